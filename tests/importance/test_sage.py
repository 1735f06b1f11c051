import joblib
import numpy as np
import pandas as pd
import pytest

from shaplab.foundations.exact import shapley_values
from shaplab.foundations.games import MeanGame
from shaplab.foundations.permutation import confidence_interval
from shaplab.foundations.predictions import LossOfMean, MarginalGame
from shaplab.importance.comparisons import mean_importance
from shaplab.importance.loss_shap import loss_shap
from shaplab.importance.sage import sage, sage_literal

# Sums of some thousand float64 numbers of order one.
ROUNDING = 1e-12


def model(X):
    return X[:, 0] * X[:, 1] + np.sin(X[:, 2]) + X[:, 0]


def probabilities(X):
    scores = np.stack([model(X), -model(X), 0.3 * X[:, 2]], axis=1)
    weights = np.exp(scores)
    return weights / weights.sum(axis=1, keepdims=True)


def absolute(output, y):
    return np.abs(output - y)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 4))
    return X, model(X) + rng.normal(size=40), rng.normal(size=(30, 4))


def cases(y):
    return [
        (model, y, "mse"),
        (probabilities, np.digitize(y, [-0.5, 0.5]), "cross_entropy"),
        (model, y, absolute),
    ]


def truth(explain, X, y, B, loss):
    return shapley_values(MeanGame(LossOfMean(MarginalGame(explain, X, B), y, loss)), X.shape[1])


@pytest.mark.parametrize("case", range(3))
def test_unbiased_additive_and_covered(data, case):
    X, y, B = data
    explain, target, loss = cases(y)[case]
    exact = truth(explain, X, target, B, loss)
    runs = [sage(explain, X, target, B, loss=loss, rounds=3, rng=seed) for seed in range(100)]
    values = np.array([run.values[0] for run in runs])
    distance = np.abs(values.mean(axis=0) - exact) / (values.std(axis=0, ddof=1) / 10 + ROUNDING)
    assert distance.max() < 4
    hits = [(low[0] <= exact) & (exact <= high[0]) for low, high in map(confidence_interval, runs)]
    # 300 moving answers: standard error 1.3%.
    assert 0.90 < np.mean(np.array(hits)[:, :3]) < 0.99
    assert np.abs(values.sum(axis=1) - exact.sum()).max() < ROUNDING
    assert (values[:, 3] == 0).all()
    best = runs[0].base_values[0] + exact.sum()
    assert runs[0].gap([best])[0] == pytest.approx(0, abs=ROUNDING)


@pytest.mark.parametrize("case", range(2))
def test_the_literal_version_agrees(data, case):
    X, y, B = data
    explain, target, loss = cases(y)[case]
    rng = np.random.default_rng(0)
    runs = np.array([sage_literal(explain, X, target, B, 40, loss, rng) for _ in range(50)])
    exact = truth(explain, X, target, B, loss)
    assert (
        np.abs(runs.mean(axis=0) - exact) / (runs.std(axis=0, ddof=1) / np.sqrt(50) + ROUNDING)
    ).max() < 4
    # Drawn rows make the literal version's sums move; they are its honest behaviour.
    assert runs.sum(axis=1).std() > 1e-3


def test_error_falls_as_one_over_the_square_root_of_epochs(data):
    X, y, B = data
    exact = truth(model, X, y, B, "mse")
    error = []
    for rounds in (2, 32):
        found = [sage(model, X, y, B, rounds=rounds, rng=seed).values[0] for seed in range(25)]
        error.append(np.sqrt(np.mean((np.array(found) - exact) ** 2)))
    # Sixteen times the epochs, a quarter of the error; each error is known to about 8%.
    assert error[0] / error[1] == pytest.approx(4, rel=0.3)


def test_sage_is_the_mean_of_loss_shap(data):
    X, y, B = data
    # With three references every walk has the whole background and sums exactly; the same seed
    # gives the same walks: 16 epochs here, one round of 16 walks there (32 for two rounds).
    one = sage(model, X, y, B[:3], rounds=32, rng=7)
    rows = loss_shap(model, X, y, B[:3], rounds=2, rng=7)
    assert np.abs(one.values[0] - rows.values.mean(axis=0)).max() < ROUNDING
    # Independent runs agree within their errors.
    other = sage(model, X, y, B, rng=8)
    mean = loss_shap(model, X, y, B, rounds=8, rng=9)
    error = np.hypot(other.std[0], np.sqrt((mean.std**2).sum(axis=0)) / len(X))
    assert (np.abs(other.values[0] - mean.values.mean(axis=0)) <= 4 * error + ROUNDING).all()


def test_the_two_errors_are_kept_apart():
    rng = np.random.default_rng(1)
    B = rng.normal(size=(50, 4))
    population, claimed = [], []
    for seed in range(60):
        X = rng.normal(size=(60, 4))
        y = model(X) + rng.normal(size=60)
        found = sage(model, X, y, B, rounds=8, rng=seed)
        population.append(found.values[0])
        claimed.append(found.info["test_std"] ** 2 + found.std[0] ** 2)
    spread = np.std(population, axis=0, ddof=1)[:3]
    # A standard deviation from 60 test sets is known to 9%.
    assert np.abs(np.sqrt(np.mean(claimed, axis=0))[:3] / spread - 1).max() < 0.3


def test_default_precision_is_reached_and_a_null_model_ends():
    rng = np.random.default_rng(2)
    X, B = rng.normal(size=(300, 4)), rng.normal(size=(100, 4))
    found = sage(model, X, model(X), B, rng=0)
    assert found.std.max() <= 0.025 * np.ptp(np.append(found.values, 0.0))
    assert found.info["stopped"] == "precision"
    null = sage(lambda X: np.full(len(X), 0.5), X, model(X), B, rng=0)
    assert (null.values == 0).all()
    assert null.info["converged"]


def test_a_large_table_may_stop_before_every_row_was_seen():
    rng = np.random.default_rng(3)
    X, B = rng.normal(size=(10_000, 4)), rng.normal(size=(100, 4))
    y = model(X) + 0.3 * rng.normal(size=len(X))
    runs = [sage(model, X, y, B, thresh=0.05, rng=seed) for seed in range(8)]
    assert all(run.info["rows"] < len(X) for run in runs)
    long = sage(model, X, y, B, thresh=0.015, rng=99)
    hits = [
        np.abs(run.values - long.values) <= 2 * np.hypot(run.std, long.std) + ROUNDING
        for run in runs
    ]
    # 24 moving answers, at two standard errors.
    assert np.mean(np.array(hits)[..., :3]) > 0.9
    # Sums refer to all rows, seen or not.
    assert np.abs(runs[0].values.sum() - long.values.sum()) < 1e-9


def test_frames_groups_and_categories():
    rng = np.random.default_rng(0)
    kind = pd.CategoricalDtype(["a", "b"])
    X = pd.DataFrame(
        {
            "kind": pd.Series(rng.choice(["a", "b"], 30), dtype=kind),
            "size": rng.normal(size=30),
            "count": rng.integers(0, 5, 30),
        }
    )
    X.loc[3, "size"] = np.nan

    def reads_frames(frame):
        return frame["kind"].cat.codes * 2.0 + frame["size"].fillna(0.0) * frame["count"]

    y = np.asarray(reads_frames(X)) + rng.normal(size=30)
    found = sage(reads_frames, X, y, X.iloc[:20], rng=0)
    exact = truth(reads_frames, X, y, X.iloc[:20], "mse")
    assert found.feature_names == ("kind", "size", "count")
    assert (np.abs(found.values[0] - exact) <= 4 * found.std[0] + ROUNDING).all()
    grouped = sage(
        reads_frames, X, y, X.iloc[:20], groups={"a": ["kind"], "b": ["size", "count"]}, rng=0
    )
    assert grouped.feature_names == ("a", "b")
    assert grouped.values.sum() == pytest.approx(found.values.sum(), abs=1e-9)
    assert np.isfinite(mean_importance(reads_frames, X, y, X).values).all()
    with pytest.raises(ValueError, match="removal: expected"):
        sage(reads_frames, X, y, X, removal="conditional")


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_batches_and_resuming_change_no_bit(data, backend, tmp_path):
    X, y, B = data
    alone = sage(model, X, y, B, thresh=0.1, rng=0)
    with joblib.parallel_config(backend, n_jobs=2):
        together = sage(model, X, y, B, thresh=0.1, rng=0)
    assert np.array_equal(alone.values, together.values)
    assert np.array_equal(alone.std, together.std)
    assert np.array_equal(
        alone.values, sage(model, X, y, B, thresh=0.1, rng=0, batch_size=13).values
    )
    path = tmp_path / "sage.npz"
    sage(model, X, y, B, thresh=0.1, rng=0, state=path, callback=lambda info: info["round"] == 3)
    resumed = sage(model, X, y, B, thresh=0.1, state=path)
    assert np.array_equal(alone.values, resumed.values)
    assert np.array_equal(alone.std, resumed.std)
    with pytest.raises(ValueError, match="state: expected a run of the same method"):
        sage(model, X, y + 1, B, state=path)


@pytest.mark.parametrize(("n", "d", "size"), [(1, 1, 1), (1, 3, 2), (2, 2, 1), (3, 1, 20)])
def test_small_cases(n, d, size):
    rng = np.random.default_rng(n + d)
    X, B, y = rng.normal(size=(n, d)), rng.normal(size=(size, d)), rng.normal(size=n)

    def product(X):
        return np.exp(X).prod(axis=1)

    found = sage(product, X, y, B, rng=0)
    exact = truth(product, X, y, B, "mse")
    assert (np.abs(found.values[0] - exact) <= 4 * found.std[0] + 1e-9 * np.abs(exact).max()).all()


def test_forecast_and_budget(data):
    X, y, B = data
    told = []
    found = sage(model, X, y, B, thresh=0.02, rng=0, callback=lambda info: told.append(info))
    final = found.info["evaluations"]
    middle = next(info for info in told if info["round"] > told[-1]["round"] / 3)
    assert middle["forecast"] == pytest.approx(final, rel=0.2)
    short = sage(model, X, y, B, thresh=1e-5, max_evaluations=20_000, rng=0)
    assert short.info["stopped"] == "budget"
    assert short.info["evaluations"] <= 20_000
    with pytest.raises(ValueError, match="max_evaluations: expected at least"):
        sage(model, X, y, B, max_evaluations=500)


def test_weights_of_rows_count_as_copies_of_them(data):
    X, y, B = data
    weights = np.arange(40) % 3
    exact = truth(model, np.repeat(X, weights, axis=0), np.repeat(y, weights), B, "mse")
    found = sage(model, X, y, B, rounds=40, rng=0, weights=weights)
    assert (np.abs(found.values[0] - exact) <= 4 * found.std[0] + ROUNDING).all()
    assert found.std[0, :3].min() > 0
    # Enumerated, they agree to rounding.
    listed = sage(model, X, y, B, rng=0, weights=weights, thresh=1e-4)
    assert listed.info["exact"].all()
    assert np.abs(listed.values[0] - exact).max() < ROUNDING
    loss = ((y - model(X)) ** 2 @ weights) / weights.sum()
    assert listed.prediction[0] == pytest.approx(-loss, abs=ROUNDING)
    plain = sage(model, X, y, B, rounds=3, rng=0)
    same = sage(model, X, y, B, rounds=3, rng=0, weights=np.full(40, 7.0))
    assert np.array_equal(plain.values, same.values)
    for wrong in (np.full(40, -1.0), np.zeros(40), np.ones(3), np.full(40, np.nan)):
        with pytest.raises(ValueError, match="weights: expected"):
            sage(model, X, y, B, weights=wrong)


def test_error_of_having_these_rows_under_weights():
    """If every row has the same value, other rows would have given the same mean."""

    def model(rows):
        return rows[:, 0]

    X = np.tile([[1.0, 0.0]], (60, 1))
    y = np.ones(60)
    weights = np.where(np.arange(60) < 30, 1.0, 9.0)
    found = sage(model, X, y, np.zeros((1, 2)), loss="mse", weights=weights, rng=0)
    np.testing.assert_allclose(found.values[0], [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.info["test_std"], 0.0, atol=1e-12)
    # With equal weights it is the spread of the rows' values, as before.
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 2))
    found = sage(model, X, X[:, 0], np.zeros((1, 2)), loss="mse", rng=0)
    spread = np.std(X[:, 0] ** 2, ddof=1) / np.sqrt(80)
    np.testing.assert_allclose(found.info["test_std"][0], spread, rtol=1e-9)
