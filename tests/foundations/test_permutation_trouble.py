import joblib
import numpy as np
import pytest

from shaplab.foundations.kernel import kernel_shap
from shaplab.foundations.permutation import confidence_interval, ime, permutation_shap

# Sums of some thousand float64 numbers of order one.
ROUNDING = 1e-12


def model(X):
    return X[:, 0] * X[:, 1] * X[:, 2] + np.sin(X[:, 3]) * X[:, 4] + X[:, 0]


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 5)), rng.normal(size=(6, 5))


@pytest.fixture(scope="module")
def wide():
    """More features than the model reads: too many to be enumerated in place of some rounds."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 16)), rng.normal(size=(6, 16))


class Broken:
    """A model that fails, or turns NaN, after some calls."""

    def __init__(self, calls, how):
        self.left, self.how = calls, how

    def __call__(self, X):
        self.left -= 1
        if self.left >= 0:
            return model(X)
        if self.how == "raise":
            raise ZeroDivisionError("the model's own trouble")
        if self.how == "interrupt":
            raise KeyboardInterrupt
        return np.full(len(X), np.nan)


def test_a_failing_model_shows_its_own_error_and_finished_rounds_are_kept(wide, tmp_path):
    X, B = wide
    path = tmp_path / "run.npz"
    with pytest.raises(ZeroDivisionError, match="own trouble") as caught:
        permutation_shap(Broken(8, "raise"), X, B, thresh=1e-3, rng=0, state=path)
    kept = caught.value.partial
    assert kept.info["rounds"].min() >= 2
    assert np.abs(kept.gap(model(X))).max() < ROUNDING
    assert "run.npz" in caught.value.__notes__[0]
    assert caught.traceback[-1].name == "__call__"
    with pytest.raises(ValueError, match="model: expected finite outputs, got nan"):
        permutation_shap(Broken(8, "nan"), X, B, thresh=1e-3, rng=0)


def test_interrupting_returns_what_there_is(wide):
    X, B = wide
    found = permutation_shap(Broken(8, "interrupt"), X, B, thresh=1e-3, rng=0)
    assert found.info["stopped"] == "interrupted"
    assert np.abs(found.gap(model(X))).max() < ROUNDING
    with pytest.raises(KeyboardInterrupt):
        permutation_shap(Broken(3, "interrupt"), X, B, thresh=1e-3, rng=0)


@pytest.mark.parametrize("explain", [kernel_shap, ime])
def test_rows_that_were_finished_are_kept(tables, explain):
    X, B = tables
    seen = [0]
    whole = explain(lambda X: seen.__setitem__(0, seen[0] + 1) or model(X), X, B, rng=0)
    with pytest.raises(ZeroDivisionError) as caught:
        explain(Broken(seen[0] - 1, "raise"), X, B, rng=0)
    kept = caught.value.partial
    # The last call of the model belongs to the last of three rows.
    assert kept.info["rows"].tolist() == [0, 1]
    assert kept.info["stopped"] == "error"
    assert np.array_equal(kept.values, whole.values[:2])
    assert np.array_equal(kept.data, X[:2])
    assert "partial" in caught.value.__notes__[0]
    found = explain(Broken(seen[0] - 1, "interrupt"), X, B, rng=0)
    assert found.info["stopped"] == "interrupted"
    assert np.array_equal(found.values, whole.values[:2])
    with pytest.raises(KeyboardInterrupt):
        explain(Broken(3, "interrupt"), X, B, rng=0)


def raises_at_five(X):
    if len(X) > 50:
        raise ZeroDivisionError("deep inside the model")
    return model(X)


def test_an_exception_in_another_process_names_the_model(tables):
    X, B = tables
    with (
        pytest.raises(ZeroDivisionError, match="deep inside the model") as caught,
        joblib.parallel_config("loky", n_jobs=2),
    ):
        permutation_shap(raises_at_five, X, B, rounds=2, rng=0)
    # joblib hands the worker's traceback on as the cause, with the model's own frame in it.
    assert "raises_at_five" in str(caught.value.__cause__)


def test_bad_input(tables, tmp_path):
    X, B = tables
    rng = np.random.default_rng(0)
    with pytest.raises(
        ValueError, match=r"model: expected the same output each time.*non-deterministic"
    ):
        permutation_shap(lambda X: model(X) + 0.1 * rng.normal(size=len(X)), X, B)
    with pytest.raises(ValueError, match="model: expected the same output"):
        permutation_shap(lambda X: X[:, 0] - X[:, 0].mean(), X, B)
    with pytest.raises(ValueError, match="model: expected outputs of shape"):
        permutation_shap(lambda X: np.zeros((len(X), 2, 2)), X, B)
    with pytest.raises(ValueError, match="model: expected outputs of shape"):
        permutation_shap(lambda X: np.zeros(3), X, B)
    with pytest.raises(
        ValueError, match=r"model: expected outputs of shape \(8, 2\), as for the first batch"
    ):
        permutation_shap(
            lambda X: np.zeros((len(X), 1 + (len(X) < 8))), X, B, rounds=4, batch_size=8
        )
    with pytest.raises(TypeError, match="callback: expected a function of a dict"):
        permutation_shap(model, X, B, callback=3)
    with pytest.raises(
        ValueError, match="state: expected a file in a folder that can be written to"
    ):
        permutation_shap(model, X, B, state=tmp_path / "nowhere" / "run.npz")
    with pytest.raises(TypeError, match="state: expected the path of a file"):
        permutation_shap(model, X, B, state=5)
    with pytest.raises(ValueError, match="explanation: expected sampled values"):
        confidence_interval(np.zeros(3))
    for n_jobs in (0, "2"):
        with pytest.raises(ValueError, match="n_jobs: expected None or an integer other than 0"):
            permutation_shap(model, X, B, n_jobs=n_jobs)
    with pytest.raises(ValueError, match="max_evaluations: expected an integer >= 1, got -5"):
        permutation_shap(model, X, B, max_evaluations=-5)
    with pytest.raises(ValueError, match="max_evaluations: expected at least"):
        permutation_shap(model, X, B, max_evaluations=100)
    with pytest.raises(ValueError, match="rounds: expected an integer >= 2"):
        permutation_shap(model, X, B, rounds=1)
    with pytest.raises(ValueError, match="thresh"):
        permutation_shap(model, X, B, thresh=0.0)
    with pytest.raises(ValueError, match="background: expected 5 columns"):
        permutation_shap(model, X, B[:, :4])
    with pytest.raises(ValueError, match="groups: expected a partition"):
        permutation_shap(model, X, B, groups=[[0, 1], [1, 2, 3, 4]])
    with pytest.raises(ValueError, match="samples: expected an integer >= 50"):
        ime(model, X, B, samples=20)

    import threading

    class Locked:
        def __init__(self):
            self.lock = threading.Lock()

        def __call__(self, X):
            return model(X)

    with (
        pytest.raises(TypeError, match="model: expected a model that can be sent"),
        joblib.parallel_config("loky", n_jobs=2),
    ):
        permutation_shap(Locked(), X, B, rounds=2)
    with joblib.parallel_config("threading", n_jobs=2):
        assert permutation_shap(Locked(), X, B, rounds=2, rng=0).values.shape == (3, 5)
