import numpy as np
import pytest

from shaplab.foundations.kernel import kernel_shap
from shaplab.foundations.permutation import permutation_shap
from shaplab.importance.sage import sage

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def trees():
    xgboost = pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 8)).astype(np.float32)
    y = X[:, 0] * X[:, 1] + X[:, 2] + np.where(X[:, 3] > 0, X[:, 4], 0) + 0.1 * rng.normal(size=400)
    fitted = xgboost.XGBRegressor(n_estimators=30, max_depth=4, n_jobs=1).fit(X, y)
    return fitted, X, y


def test_walks_and_kernel_agree_with_shaps_exact_trees(trees):
    shap = pytest.importorskip("shap")
    fitted, X, _ = trees
    B = X[:40]
    explainer = shap.TreeExplainer(fitted, B, feature_perturbation="interventional")
    truth = explainer.shap_values(X[300:304])
    found = permutation_shap(fitted.predict, X[300:304], B, rounds=24, rng=0)
    # Standard errors from 24 rounds: Student's law leaves 5 in 10,000 beyond four of them, and
    # there are 32 values. Predictions are float32 sums of 30 trees: 1e-5 beside.
    assert (np.abs(found.values - truth) <= 4 * found.std + 1e-5).all()
    exact = kernel_shap(fitted.predict, X[300:304], B)
    assert exact.info["exact"]
    assert np.abs(exact.values - truth).max() < 1e-5


@pytest.mark.slow
def test_fewer_rows_than_shap_at_no_larger_error(trees):
    shap = pytest.importorskip("shap")
    fitted, X, _ = trees
    B = X[:40]
    truth = shap.TreeExplainer(fitted, B, feature_perturbation="interventional").shap_values(
        X[300:310]
    )
    rows = [0]

    def counted(X):
        rows[0] += len(X)
        return fitted.predict(X)

    explainer = shap.PermutationExplainer(
        counted, shap.maskers.Independent(B, max_samples=40), seed=0
    )
    theirs = explainer(X[300:310], max_evals=20 * 17, silent=True).values
    peer, rows[0] = rows[0], 0
    ours = permutation_shap(counted, X[300:310], B, rounds=4, rng=0).values
    assert rows[0] < peer / 2.5
    assert np.sqrt(np.mean((ours - truth) ** 2)) < 1.1 * np.sqrt(np.mean((theirs - truth) ** 2))


@pytest.mark.parametrize("loss", ["mse", "cross entropy"])
def test_sage_agrees_with_sage_importance(trees, loss):
    peer = pytest.importorskip("sage")
    fitted, X, y = trees
    B, Z, target = X[:64], X[250:400], y[250:400]

    def probability(X):
        p = 1 / (1 + np.exp(-fitted.predict(X)))
        return np.stack([1 - p, p], axis=1)

    model = fitted.predict if loss == "mse" else probability
    target = target if loss == "mse" else (target > 0).astype(int)
    ours = sage(model, Z, target, B, loss=loss.replace(" ", "_"), thresh=0.01, rng=0)
    np_state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002 - the peer draws from the global state
    estimator = peer.PermutationEstimator(peer.MarginalImputer(model, B), loss)
    theirs = estimator(
        Z,
        target,
        detect_convergence=False,
        n_permutations=1024,
        batch_size=256,
        bar=False,
        verbose=False,
    )
    np.random.set_state(np_state)  # noqa: NPY002
    # Eight values, each within four standard errors of both runs; features that trees never split
    # on are zero.
    assert (
        np.abs(ours.values[0] - theirs.values) <= 4 * np.hypot(ours.std[0], theirs.std) + 1e-6
    ).all()
