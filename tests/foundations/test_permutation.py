import os

import joblib
import numpy as np
import pandas as pd
import pytest

from shaplab.foundations._sampling import MIN_ROUNDS, draw_entropy, visit_generator
from shaplab.foundations.permutation import (
    _balanced_draws,
    confidence_interval,
    ime,
    ime_literal,
    permutation_shap,
    permutation_shap_literal,
)
from shaplab.foundations.predictions import exact_shap

# Sums of some thousand float64 numbers of order one.
ROUNDING = 1e-12


def model(X):
    return X[:, 0] * X[:, 1] * X[:, 2] + np.sin(X[:, 3]) * X[:, 4] + X[:, 0]


def two_outputs(X):
    return np.column_stack([model(X), X.sum(axis=1)])


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 5)), rng.normal(size=(6, 5))


@pytest.fixture(scope="module")
def wide():
    """Too many features to be enumerated in place of some hundred rounds."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 16)), rng.normal(size=(6, 16))


def wide_model(X):
    return sum(model(X[:, start : start + 5]) for start in (0, 5, 10)) + X[:, 15] ** 2


def t_statistics(estimates, truth):
    """Distance of the mean of many runs from the truth, in standard errors of that mean."""
    estimates = np.asarray(estimates)
    return np.abs(estimates.mean(axis=0) - truth) / (
        estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates)) + 1e-12
    )


def test_the_literal_version_is_unbiased(tables):
    X, B = tables
    truth = exact_shap(model, X, B).values[0]
    rng = np.random.default_rng(1)
    runs = [ime_literal(model, X[0], B, 20, rng) for _ in range(100)]
    # Five numbers, each beyond 4 standard errors with probability 6e-5 under the seed's fate.
    assert t_statistics(runs, truth).max() < 4
    assert t_statistics(runs, truth + 0.2).max() > 4


def test_walks_are_unbiased_and_their_standard_errors_are_the_spread_of_runs(tables):
    X, B = tables
    truth = exact_shap(model, X, B).values
    runs = [permutation_shap(model, X, B, rounds=4, rng=seed) for seed in range(600)]
    values = np.array([run.values for run in runs])
    assert t_statistics(values, truth).max() < 4
    mean_variance = np.mean([run.std**2 for run in runs], axis=0)
    moves = values.std(axis=0) > 1e-9
    # A variance from 600 runs is known to 6%, the mean of 600 variances to 4%: four standard errors
    # together.
    assert np.abs(mean_variance[moves] / values.var(axis=0, ddof=1)[moves] - 1).max() < 0.28


def test_error_falls_as_one_over_the_square_root_of_rounds(tables):
    X, B = tables
    truth = exact_shap(model, X, B).values
    error = {}
    for rounds in (4, 64):
        found = [
            permutation_shap(model, X, B, rounds=rounds, rng=seed).values for seed in range(40)
        ]
        error[rounds] = np.sqrt(np.mean((np.array(found) - truth) ** 2))
    # Sixteen times the rounds: a quarter of the error; each error is known to about 6%.
    assert error[4] / error[64] == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("explain", [two_outputs, model])
def test_values_add_up_exactly(tables, explain):
    X, B = tables
    found = permutation_shap(explain, X, B, rounds=2, rng=0)
    assert np.abs(found.gap(explain(X))).max() < ROUNDING
    assert np.allclose(found.base_values[0], explain(B).mean(axis=0), rtol=0, atol=ROUNDING)


def test_two_outputs_equal_one_output_each(tables):
    X, B = tables
    both = permutation_shap(two_outputs, X, B, rounds=3, rng=0)
    assert both.values.shape == (3, 5, 2)
    assert np.array_equal(
        both.values[..., 0], permutation_shap(model, X, B, rounds=3, rng=0).values
    )


def test_pairwise_interactions_need_one_round(tables):
    X, B = tables

    def pairwise(X):
        return X[:, 0] * X[:, 1] + X[:, 2] * X[:, 3] - X[:, 4] * X[:, 0]

    found = permutation_shap(pairwise, X, B, rounds=2, rng=0)
    assert np.abs(found.values - exact_shap(pairwise, X, B).values).max() < ROUNDING
    assert found.std.max() < ROUNDING


def test_duplicated_columns_share_alike_and_constant_columns_get_zero():
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(2, 4)), rng.normal(size=(8, 4))
    X[:, 1], B[:, 1] = X[:, 0], B[:, 0]
    X[:, 3] = B[:, 3] = 7.0

    def twins(X):
        return (X[:, 0] + X[:, 1]) ** 3 * X[:, 2] + X[:, 3]

    found = permutation_shap(twins, X, B, rounds=300, rng=0)
    assert (
        np.abs(found.values[:, 0] - found.values[:, 1]).max()
        < 4 * np.hypot(found.std[:, 0], found.std[:, 1]).max()
    )
    assert (found.values[:, 3] == 0).all()
    assert (found.std[:, 3] == 0).all()
    assert found.info["converged"]


def test_a_model_without_effects_ends_at_once():
    found = permutation_shap(
        lambda X: np.full(len(X), 3.0), np.ones((2, 24)), np.zeros((5, 24)), rng=0
    )
    assert (found.values == 0).all()
    assert (found.std == 0).all()
    assert (found.info["rounds"] == MIN_ROUNDS).all()


@pytest.mark.parametrize(("d", "size"), [(1, 1), (1, 5), (2, 1), (2, 5), (3, 1)])
def test_small_cases(d, size):
    rng = np.random.default_rng(d)
    X, B = rng.normal(size=(2, d)), rng.normal(size=(size, d))

    def product(X):
        return np.exp(X).prod(axis=1)

    found = permutation_shap(product, X, B, rng=0)
    truth = exact_shap(product, X, B).values
    if d < 3:
        assert np.abs(found.values - truth).max() < 1e-10 * np.abs(truth).max()
    # One background row and few orderings: agreement by chance must not pass for certainty.
    assert (np.abs(found.values - truth) <= 4 * found.std + 1e-10).all()
    assert np.abs(found.gap(product(X))).max() < 1e-10


def test_identical_background_rows_equal_one(tables):
    X, B = tables
    found = permutation_shap(model, X, np.repeat(B[:1], 50, axis=0), thresh=0.01, rng=0)
    assert (
        np.abs(found.values - exact_shap(model, X, B[:1]).values) < 4 * found.std + ROUNDING
    ).all()


def test_groups_are_players(tables):
    X, B = tables
    groups = {"left": [0, 3], "right": [1, 2, 4]}
    found = permutation_shap(model, X, B, groups=groups, rng=0)
    # Two players: exact.
    assert np.abs(found.values - exact_shap(model, X, B, groups=groups).values).max() < ROUNDING
    assert found.feature_names == ("left", "right")


def test_single_features_in_another_order_are_groups_like_any():
    rng = np.random.default_rng(0)
    # Values agree often, so steps are skipped, and must be skipped for the right player.
    X, B = (
        rng.integers(0, 2, size=(3, 5)).astype(float),
        rng.integers(0, 2, size=(40, 5)).astype(float),
    )
    groups = [[3], [1], [4], [0], [2]]
    found = permutation_shap(model, X, B, groups=groups, rng=0)
    exact = exact_shap(model, X, B, groups=groups).values
    assert np.abs(exact - exact_shap(model, X, B).values[:, [3, 1, 4, 0, 2]]).max() < ROUNDING
    assert (np.abs(found.values - exact) < 4.5 * found.std + ROUNDING).all()
    assert found.data is None


@pytest.mark.parametrize("batch_size", [1, 7, 10**6])
def test_the_batch_size_changes_no_bit_and_bounds_every_call(tables, batch_size):
    X, B = tables
    seen = []

    def watched(X):
        seen.append(len(X))
        return model(X)

    found = permutation_shap(watched, X, B, rounds=3, rng=0, batch_size=batch_size)
    assert max(seen) <= batch_size
    reference = permutation_shap(model, X, B, rounds=3, rng=0)
    assert np.array_equal(found.values, reference.values)
    assert np.array_equal(found.std, reference.std)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_and_backends_change_no_bit(tables, backend):
    X, B = tables
    alone = permutation_shap(model, X, B, rounds=40, rng=0)
    with joblib.parallel_config(backend, n_jobs=2):
        together = permutation_shap(model, X, B, rounds=40, rng=0)
    assert np.array_equal(alone.values, together.values)
    assert np.array_equal(alone.std, together.std)
    assert alone.info["evaluations"] == together.info["evaluations"]


class CountsPickles:
    pickles = 0

    def __call__(self, X):
        return wide_model(X)

    def __reduce__(self):
        CountsPickles.pickles += 1
        return CountsPickles, ()


def test_the_model_is_packed_once_for_all_rounds(wide):
    X, B = wide
    with joblib.parallel_config("loky", n_jobs=2):
        found = permutation_shap(CountsPickles(), X, B, thresh=0.02, rng=0)
    assert found.info["round"] > 10
    assert CountsPickles.pickles == 1
    assert np.array_equal(
        found.values, permutation_shap(wide_model, X, B, thresh=0.02, rng=0).values
    )


def test_interrupted_and_resumed_equals_uninterrupted(wide, tmp_path):
    X, B = wide
    whole = permutation_shap(wide_model, X, B, thresh=0.05, rng=5)
    path = tmp_path / "run.npz"
    permutation_shap(
        wide_model, X, B, thresh=0.05, rng=5, state=path, callback=lambda info: info["round"] == 3
    )
    assert path.exists()
    resumed = permutation_shap(wide_model, X, B, thresh=0.05, state=path)
    assert np.array_equal(whole.values, resumed.values)
    assert np.array_equal(whole.std, resumed.std)
    assert np.array_equal(whole.info["rounds"], resumed.info["rounds"])
    assert os.listdir(tmp_path) == ["run.npz"]


def test_a_state_of_another_question_is_refused(tables, tmp_path):
    X, B = tables
    path = tmp_path / "run.npz"
    permutation_shap(model, X, B, rounds=2, rng=5, state=path)
    with pytest.raises(ValueError, match="state: expected a run of the same method"):
        permutation_shap(model, X + 1, B, rounds=2, state=path)
    with pytest.raises(ValueError, match="rng: expected the seed"):
        permutation_shap(model, X, B, rounds=2, rng=6, state=path)
    path.write_bytes(b"not a state")
    with pytest.raises(ValueError, match="state: expected a file written by"):
        permutation_shap(model, X, B, rounds=2, state=path)


def test_the_forecast_comes_true_within_20_percent():
    rng = np.random.default_rng(3)
    X, B = rng.normal(size=(30, 16)), rng.normal(size=(6, 16))
    told = []
    found = permutation_shap(
        wide_model, X, B, thresh=0.01, rng=0, callback=lambda info: told.append(info) and None
    )
    final = found.info["evaluations"]
    middle = next(info for info in told if info["evaluations"] > final / 3)
    assert middle["forecast"] == pytest.approx(final, rel=0.2)
    assert max(info["round"] for info in told) == found.info["rounds"].max()


def test_a_budget_is_kept_and_said(wide):
    X, B = wide
    found = permutation_shap(wide_model, X, B, max_evaluations=9000, thresh=1e-6, rng=0)
    assert found.info["evaluations"] <= 9000
    assert found.info["stopped"] == "budget"
    assert not found.info["converged"]
    seen = []

    def counted(X):
        seen.append(len(X))
        return wide_model(X)

    found = permutation_shap(counted, X, B, rounds=5, rng=0)
    assert sum(seen) == found.info["evaluations"]


def test_precision_is_reached(wide):
    X, B = wide
    found = permutation_shap(wide_model, X, B, thresh=0.02, rng=0)
    spread = np.maximum(found.values.max(axis=1), 0) - np.minimum(found.values.min(axis=1), 0)
    assert (found.std.max(axis=1) <= 0.02 * spread).all()
    assert found.info["stopped"] == "precision"


def test_memory_is_bounded_by_the_batch():
    import tracemalloc

    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(2, 20)), rng.normal(size=(3000, 20))
    peaks = []
    for batch in (1000, 50_000):
        tracemalloc.start()
        permutation_shap(lambda X: X[:, 0] * X[:, 1], X, B, rounds=2, rng=0, batch_size=batch)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Without batches the hybrid rows alone would take 2 * 19 * 3000 * 20 * 8 = 18 MB a visit. One
    # visit's orderings (0.24 MB), a batch of 1,000 hybrid rows and their masks (0.5 MB) and the
    # joblib machinery fit in 4 MB.
    assert peaks[0] < 4e6 < peaks[1]


def test_frames_reach_the_model_as_frames_with_categories_and_missing_values():
    kind = pd.CategoricalDtype(["a", "b", "c"])
    X = pd.DataFrame(
        {"size": [1.0, np.nan], "kind": pd.Series(["a", "c"], dtype=kind), "flag": [True, False]}
    )
    B = pd.DataFrame(
        {
            "size": [0.5, 2.0, np.nan],
            "kind": pd.Series(["b", None, "a"], dtype=kind),
            "flag": [False, True, True],
        }
    )

    def reads_frames(frame):
        assert frame["kind"].dtype == kind
        assert frame["flag"].dtype == bool
        return frame["size"].fillna(-1.0) * (frame["kind"].cat.codes + 2) * (1 + frame["flag"])

    found = permutation_shap(reads_frames, X, B, thresh=0.01, rng=0)
    assert (
        np.abs(found.values - exact_shap(reads_frames, X, B).values) < 4 * found.std + ROUNDING
    ).all()
    assert found.feature_names == ("size", "kind", "flag")


def test_probabilities_carry_the_names_of_the_classes():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3))
    y = np.array(["no", "yes", "perhaps"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 1)]
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    found = permutation_shap(fitted.predict_proba, X[:2], X[:10], rounds=2, rng=0)
    assert found.output_names == tuple(fitted.classes_)
    # Each row's probabilities sum to one whatever the inputs, so contributions sum to zero over
    # classes.
    assert np.abs(found.values.sum(axis=-1)).max() < ROUNDING


def test_torch_modules_are_called_in_evaluation_mode_and_left_as_they_were():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    )
    net.train()
    X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    found = permutation_shap(net, X[:2], X, rounds=2, rng=0)
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    net.eval()
    # The network computes in single precision.
    assert np.abs(found.gap(net(torch.from_numpy(X[:2])).detach().numpy())).max() < 1e-6


def test_intervals_are_student(tables):
    X, B = tables
    found = permutation_shap(model, X, B, rounds=4, rng=0)
    low, high = confidence_interval(found, 0.95)
    # 3.182446 is the 97.5% quantile of Student's t with 3 degrees of freedom.
    assert np.allclose((high - low) / 2, 3.182446305284263 * found.std, rtol=1e-9)
    with pytest.raises(ValueError, match="Exact values need no interval"):
        confidence_interval(exact_shap(model, X, B))


def test_intervals_cover_in_95_percent_of_runs(tables):
    X, B = tables
    truth = exact_shap(model, X, B).values
    hits = []
    for seed in range(300):
        low, high = confidence_interval(permutation_shap(model, X, B, rounds=8, rng=seed))
        hits.append((low <= truth + ROUNDING) & (truth - ROUNDING <= high))
    # 4,500 answers, correlated within a run: the standard error of the share is below 0.8%.
    assert 0.93 < np.mean(hits) < 0.97


def test_ime_is_unbiased_with_enough_samples_and_shares_by_variance(tables):
    X, B = tables
    truth = exact_shap(model, X, B).values
    runs = [ime(model, X, B, samples=500, min_samples=50, rng=seed) for seed in range(60)]
    assert t_statistics([run.values for run in runs], truth).max() < 4.5
    assert (runs[0].info["samples"].sum(axis=1) == 500).all()
    assert (runs[0].info["samples"] >= 50).all()

    def lone(X):
        return X[:, 0] ** 3 + 0.001 * X[:, 1]

    shares = ime(lone, X, B, samples=200, min_samples=10, rng=0).info["samples"]
    assert (shares[:, 0] > 150).all()


def test_nothing_that_the_user_owns_changes(tables):
    X, B = tables
    before, kept = np.random.get_state()[1].copy(), (X.copy(), B.copy())  # noqa: NPY002
    permutation_shap(model, X, B, rounds=2)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert np.array_equal(X, kept[0])
    assert np.array_equal(B, kept[1])


@pytest.mark.parametrize("frame", [False, True])
def test_steps_that_change_nothing_are_not_evaluated(frame):
    rng = np.random.default_rng(0)
    X, B = (
        rng.integers(0, 2, size=(2, 6)).astype(float),
        rng.integers(0, 2, size=(40, 6)).astype(float),
    )
    X[0, 0] = B[3, 0] = np.nan
    differ = (X[:, None] != B) & ~(np.isnan(X[:, None]) & np.isnan(B))

    def filled(table):
        return model(np.nan_to_num(np.asarray(table, dtype=float), nan=2.0))

    tables = (pd.DataFrame(X), pd.DataFrame(B)) if frame else (X, B)
    found = permutation_shap(filled, *tables, rounds=3, rng=0)
    # A walk over m features that differ has 2 (m - 1) rows inside; a round has two for each of 40
    # references. The ends, and three rows that check that the model is deterministic, come first.
    inside = 3 * 2 * 2 * np.maximum(differ.sum(axis=2) - 1, 0).sum()
    assert found.info["evaluations"] == inside + 42 + 3
    assert inside < 0.75 * 3 * 2 * 2 * 5 * 80
    truth = exact_shap(filled, *tables).values
    runs = [permutation_shap(filled, *tables, rounds=3, rng=seed).values for seed in range(60)]
    assert t_statistics(runs, truth).max() < 4.5


def test_ime_keeps_the_spread_of_steps_beside_a_large_mean():
    """Sums of squares of 1e9 have no digits left for a spread of 1."""

    def model(rows):
        return 1e9 * rows[:, 0] + rows[:, 0] * rows[:, 1] * rows[:, 2] * rows[:, 3]

    def plain(rows):
        return rows[:, 0] * rows[:, 1] * rows[:, 2] * rows[:, 3]

    x, reference = np.full((1, 14), 2.0), np.ones((1, 14))
    found = ime(model, x, reference, samples=3000, rng=0)
    same = ime(plain, x, reference, samples=3000, rng=0)
    # Outputs of 2e9 round by 2.4e-7.
    np.testing.assert_allclose(found.std, same.std, atol=1e-5)
    np.testing.assert_array_equal(found.info["samples"], same.info["samples"])


def test_ime_shares_evenly_where_nothing_varies():
    x, reference = np.full((1, 6), 2.0), np.ones((1, 6))
    found = ime(lambda rows: rows.sum(axis=1), x, reference, samples=300, rng=0)
    # Sums in another order leave variances of rounding; no feature gets most of the samples.
    assert found.info["samples"].max() <= 150
    exact = ime(lambda rows: 4.0 * rows.sum(axis=1), x, reference, samples=300, rng=0)
    np.testing.assert_array_equal(exact.info["samples"], np.full((1, 6), 50))


def test_ime_shows_a_bar(capsys):
    x, reference = np.full((2, 3), 2.0), np.ones((1, 3))
    ime(lambda rows: rows.sum(axis=1), x, reference, samples=60, progress=True)
    assert "explained rows: 100%" in capsys.readouterr().err


def test_ime_takes_at_least_min_samples_by_default():
    rng = np.random.default_rng(0)
    background = rng.normal(size=(20, 14))
    found = ime(lambda r: np.tanh(r.sum(axis=1)), background[:1] + 1, background, min_samples=150)
    assert found.info["samples"].sum() == 150 * 14


@pytest.mark.parametrize("d", [3, 6, 7])
def test_a_round_is_the_literal_walks(d):
    rng = np.random.default_rng(d)
    weights = rng.normal(size=(d, 4))

    def model(rows):
        return np.tanh(rows @ weights).prod(axis=1)

    x, background = rng.normal(size=(1, d)), rng.normal(size=(20, d))
    found = permutation_shap(model, x, background, rounds=2, rng=5)
    entropy = draw_entropy(5)
    rounds = []
    for visit in range(2):
        draws = _balanced_draws(visit_generator(entropy, 0, visit), 20, d)
        rounds.append(permutation_shap_literal(model, x[0], background, draws.argsort(axis=1)))
    np.testing.assert_allclose(found.values[0], np.mean(rounds, axis=0), atol=1e-13)
    spread = np.std(rounds, axis=0, ddof=1) / np.sqrt(2)
    np.testing.assert_allclose(found.std[0], spread, atol=1e-13)


def test_ime_standard_errors_are_those_of_its_samples():
    """Each step of a product of two is 0 or 1, so its mean tells its variance."""
    x, reference = np.ones((1, 2)), np.zeros((1, 2))
    found = ime(lambda rows: rows.prod(axis=1), x, reference, samples=400, rng=0)
    mean, count = found.values[0], found.info["samples"][0]
    assert count.sum() == 400
    np.testing.assert_allclose(found.std[0], np.sqrt(mean * (1 - mean) / (count - 1)), rtol=1e-12)


@pytest.mark.parametrize("samples", [None, 4000])
def test_weights_of_ime_are_repeated_rows(samples):
    rng = np.random.default_rng(3)
    X, B = rng.normal(size=(2, 5)), rng.normal(size=(4, 5))
    weights = [3, 0, 1, 5]

    def model(rows):
        return np.tanh(rows @ np.arange(5.0)) + rows[:, 0] * rows[:, 1] * rows[:, 2]

    truth = exact_shap(model, X, np.repeat(B, weights, axis=0)).values
    found = ime(model, X, B, weights=weights, samples=samples, min_samples=100, rng=0)
    # Ten numbers; without samples all coalitions are cheaper.
    assert (np.abs(found.values - truth) <= 4.5 * found.std + 1e-10).all()
    assert np.allclose(found.base_values, model(np.repeat(B, weights, axis=0)).mean())
    plain = ime(model, X, B, samples=samples, min_samples=100, rng=0)
    assert (np.abs(plain.values - truth) > 4.5 * plain.std + 1e-10).any()
