import joblib
import numpy as np
import pytest

from shaplab.foundations.exact import shapley_values
from shaplab.foundations.games import TableGame
from shaplab.foundations.kernel import kernel_shap, kernel_shap_literal
from shaplab.foundations.permutation import confidence_interval, permutation_shap
from shaplab.foundations.predictions import exact_shap

# Regressions on at most 1,022 coalitions; their matrices have condition numbers below 100.
SOLVED = 1e-11


def model(X):
    return np.tanh(X).sum(axis=1) + 3 * np.tanh(X[:, ::2]).prod(axis=1) + X[:, 0] * X[:, 1]


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 11)), rng.normal(size=(4, 11))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_the_literal_regression_gives_shapley_values(n):
    game = TableGame(np.random.default_rng(n).normal(size=(2**n, 2)))
    assert np.abs(kernel_shap_literal(game, n) - shapley_values(game, n)).max() < SOLVED


@pytest.mark.parametrize("d", [1, 2, 3, 9])
def test_few_features_are_enumerated_and_exact(d):
    rng = np.random.default_rng(d)
    X, B = rng.normal(size=(2, d)), rng.normal(size=(3, d))
    found = kernel_shap(model if d > 1 else lambda X: X[:, 0] ** 2, X, B)
    truth = exact_shap(model if d > 1 else lambda X: X[:, 0] ** 2, X, B)
    assert found.info["exact"]
    assert found.std is None
    assert np.abs(found.values - truth.values).max() < SOLVED


@pytest.mark.parametrize("sampling", ["kernel", "leverage"])
def test_drawn_coalitions_estimate_without_visible_bias_and_with_honest_errors(wide, sampling):
    X, B = wide
    truth = exact_shap(model, X, B).values
    budget = 20 + 2 * 4 * (22 + 320)
    runs = [
        kernel_shap(model, X, B, sampling=sampling, max_evaluations=budget, rng=seed)
        for seed in range(60)
    ]
    values = np.array([run.values for run in runs])
    assert not runs[0].info["exact"]
    assert max(run.info["evaluations"] for run in runs) <= budget
    # The bias, of order one over the draws, hides below the noise of 60 runs; 22 numbers.
    assert (
        np.abs(values.mean(axis=0) - truth) / (values.std(axis=0, ddof=1) / np.sqrt(60))
    ).max() < 4.5
    claimed = np.mean([run.std**2 for run in runs])
    # Variances of 22 values over 60 runs: the pooled ratio is known to about 10%; a jackknife errs
    # on the large side.
    assert 0.75 < claimed / values.var(axis=0, ddof=1).mean() < 1.5
    hits = [(low <= truth) & (truth <= high) for low, high in map(confidence_interval, runs)]
    assert 0.91 < np.mean(hits) < 0.99


def test_error_falls_as_one_over_the_square_root_of_draws(wide):
    X, B = wide
    truth = exact_shap(model, X, B).values
    error = []
    for coalitions in (22 + 64, 22 + 1024):
        budget = 20 + 2 * 4 * coalitions
        found = [kernel_shap(model, X, B, max_evaluations=budget, rng=seed) for seed in range(12)]
        error.append(np.sqrt(np.mean([(run.values - truth) ** 2 for run in found])))
    # Sixteen times the draws; with more budget one more size is listed, so the gain is at least
    # fourfold.
    assert error[0] / error[1] > 3.2


def test_precision_is_reached_and_said(wide):
    X, B = wide
    found = kernel_shap(model, X, B, thresh=0.02, rng=0)
    spread = np.maximum(found.values.max(axis=1), 0) - np.minimum(found.values.min(axis=1), 0)
    assert (found.std.max(axis=1) <= 0.02 * spread).all()
    assert found.info["evaluations"] == 6 + 3 + 4 * found.info["coalitions"].sum()
    assert np.abs(found.gap(model(X))).max() < 1e-12


@pytest.mark.parametrize(("d", "size"), [(11, 4), (12, 30), (40, 20)])
def test_the_default_costs_no_more_than_the_walks(d, size):
    rng = np.random.default_rng(d)
    X, B = rng.normal(size=(2, d)), rng.normal(size=(size, d))
    found = kernel_shap(model, X, B, rng=0)
    walked = permutation_shap(model, X, B, rng=0)
    assert not found.info["exact"]
    assert found.info["evaluations"] <= walked.info["evaluations"]
    assert np.isfinite(found.std).all()
    spread = np.maximum(found.values.max(axis=1), 0) - np.minimum(found.values.min(axis=1), 0)
    reached = (found.std.max(axis=1) <= 0.02 * spread).all()
    assert found.info["converged"] == reached


def test_a_budget_that_covers_everything_is_exact(wide):
    X, B = wide
    found = kernel_shap(model, X, B, max_evaluations=10**6)
    assert found.info["exact"]
    assert (found.info["coalitions"] == 2**11 - 2).all()
    assert np.abs(found.values - exact_shap(model, X, B).values).max() < SOLVED


def test_constant_and_duplicated_columns(wide):
    X, B = (table.copy() for table in wide)
    X[:, 3] = B[:, 3] = 2.0
    X[:, 4], B[:, 4] = X[:, 2], B[:, 2]

    def symmetric(X):
        return (X[:, 2] * X[:, 4]) * X[:, 0] + X[:, 3] + X[:, 5:].sum(axis=1)

    found = kernel_shap(symmetric, X, B, rng=0)
    assert (np.abs(found.values[:, 3]) <= 4 * found.std[:, 3] + 1e-12).all()
    assert np.isfinite(found.values).all()
    assert (
        np.abs(found.values[:, 2] - found.values[:, 4]).max()
        < 4 * np.hypot(found.std[:, 2], found.std[:, 4]).max()
    )


def test_groups_outputs_batches_and_workers(wide):
    X, B = wide

    def two(X):
        return np.column_stack([model(X), -2 * model(X)])

    found = kernel_shap(two, X, B, rng=1)
    assert np.allclose(found.values[..., 1], -2 * found.values[..., 0], rtol=0, atol=1e-12)
    small = kernel_shap(two, X, B, rng=1, batch_size=5)
    assert np.array_equal(found.values, small.values)
    with joblib.parallel_config("threading", n_jobs=2):
        assert np.array_equal(found.std, kernel_shap(two, X, B, rng=1).std)
    groups = [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]
    grouped = kernel_shap(model, X, B, groups=groups)
    assert np.abs(grouped.values - exact_shap(model, X, B, groups=groups).values).max() < SOLVED


def test_bad_input(wide):
    X, B = wide
    with pytest.raises(ValueError, match="max_evaluations: expected at least"):
        kernel_shap(model, X, B, max_evaluations=100)
    with pytest.raises(ValueError, match="max_evaluations: expected an integer >= 1"):
        kernel_shap(model, X, B, max_evaluations=-1)
    with pytest.raises(ValueError, match="sampling: expected one of"):
        kernel_shap(model, X, B, sampling="lottery")
    with pytest.raises(ValueError, match="model: expected finite outputs"):
        kernel_shap(lambda X: np.where(X[:, 0] > 0, np.nan, 1.0), X, B)
    with pytest.raises(ValueError, match="background: expected 11 columns"):
        kernel_shap(model, X, B[:, :5])


def test_small_budgets_list_what_makes_the_regression_solvable(wide):
    X, B = wide
    complete = 2 + 4 + 3
    least = complete + 2 * 4 * 22
    with pytest.raises(ValueError, match=f"max_evaluations: expected at least {least} model rows"):
        kernel_shap(model, X, B, max_evaluations=least - 1)
    found = kernel_shap(model, X, B, max_evaluations=least)
    assert found.info["evaluations"] == least
    assert np.isnan(found.std).all()
    assert not found.info["converged"]
    assert np.abs(found.gap(model(X))).max() < SOLVED
    with pytest.raises(ValueError, match="explanation: expected values with standard errors"):
        confidence_interval(found)

    def pairwise(X):
        return X[:, 0] * X[:, 1] + np.sin(X[:, 2]) * X[:, 9] + X[:, 4]

    # With interactions of two at most, single players and all but one say everything.
    truth = exact_shap(pairwise, X, B).values
    found = kernel_shap(pairwise, X, B, max_evaluations=least)
    assert np.abs(found.values - truth).max() < SOLVED
    for extra in (31, 32, 70, 300):
        found = kernel_shap(model, X, B, max_evaluations=least + 2 * 4 * extra, rng=0)
        assert found.info["evaluations"] <= least + 2 * 4 * extra
        assert np.isfinite(found.std).all() == (extra >= 32)


@pytest.mark.parametrize("extra", [32, 64])
def test_intervals_at_small_budgets_cover(extra):
    rng = np.random.default_rng(5)
    X, B = rng.normal(size=(1, 12)), rng.normal(size=(5, 12))

    def triple(X):
        return X[:, 0] * X[:, 1] * X[:, 2] + np.tanh(X[:, 3:8]).sum(axis=1) ** 3 + X.sum(axis=1)

    truth = exact_shap(triple, X, B).values
    budget = 1 + 5 + 2 + 5 * (24 + extra)
    hits = []
    for seed in range(200):
        found = kernel_shap(triple, X, B, max_evaluations=budget, rng=seed)
        assert found.info["coalitions"] == [24 + extra]
        low, high = confidence_interval(found)
        hits.append((low <= truth) & (truth <= high))
    # 2,400 answers, correlated within a run.
    assert 0.92 < np.mean(hits) < 0.985


def test_weights_progress_and_structures(wide, capsys):
    X, B = wide
    weights = [3, 0, 1, 2]
    truth = exact_shap(model, X, np.repeat(B, weights, axis=0))
    found = kernel_shap(model, X, B, weights=weights, max_evaluations=10**6)
    assert np.abs(found.values - truth.values).max() < SOLVED
    assert np.allclose(found.base_values, truth.base_values, atol=SOLVED)
    drawn = kernel_shap(model, X, B, weights=weights, max_evaluations=3000, rng=0)
    assert (np.abs(drawn.values - truth.values) <= 5 * drawn.std).all()
    kernel_shap(model, X, B, progress=True, rng=0)
    assert "explained rows" in capsys.readouterr().err
    for argument in ("unions", "order"):
        with pytest.raises(ValueError, match=f"{argument}: expected None.*permutation_shap"):
            kernel_shap(model, X, B, **{argument: [[0, 1], list(range(2, 11))]})
