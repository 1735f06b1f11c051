"""Forests of other packages that average their trees: quantile forests and survival forests.

Oracle: enumeration through the model's own ``predict``.
"""

from __future__ import annotations

import numpy as np
import pytest

from shaplab import TreeEnsemble, exact_shap, interventional_tree_shap, tree_shap

TIGHT = 1e-11  # of sums of some ten leaf values of order up to a hundred


def table(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(150, 4))
    X[rng.random(X.shape) < 0.05] = 0.5  # ties
    return X, X[:, 0] * X[:, 1] + 0.3 * X[:, 2]


@pytest.mark.parametrize("name", ["RandomForestQuantileRegressor", "ExtraTreesQuantileRegressor"])
@pytest.mark.parametrize("leaf", [1, 5])
def test_a_quantile_forest_is_explained_by_the_mean_of_its_trees(name, leaf):
    forests = pytest.importorskip("quantile_forest")
    X, y = table()
    model = getattr(forests, name)(
        8, min_samples_leaf=leaf, max_samples_leaf=None, default_quantiles=0.9, random_state=0
    ).fit(X, y)

    def mean(rows):
        return model.predict(rows, quantiles="mean", aggregate_leaves_first=False)

    found = interventional_tree_shap(model, X[:4], X[20:40])
    exact = exact_shap(mean, X[:4], X[20:40])
    np.testing.assert_allclose(found.values, exact.values, atol=TIGHT)
    assert TreeEnsemble.from_model(model).output_names == ("mean of the trees",)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize(
    "name", ["ensemble.RandomSurvivalForest", "ensemble.ExtraSurvivalTrees", "tree.SurvivalTree"]
)
def test_a_survival_forest_is_explained_by_its_risk_score(name, low_memory):
    # Its wheels, or those of what it needs, end at Python 3.12.
    module, _, kind = name.partition(".")
    forests = pytest.importorskip(f"sksurv.{module}")
    X, y = table()
    rng = np.random.default_rng(1)
    seen = rng.random(len(X)) < 0.7
    times = np.exp(y + 0.3 * rng.normal(size=len(X))).round(1)  # ties
    target = np.array(list(zip(seen, times, strict=True)), dtype=[("e", bool), ("t", float)])
    options = {"n_estimators": 8} if module == "ensemble" else {}
    options |= {"min_samples_leaf": 6, "low_memory": low_memory, "random_state": 0}
    model = getattr(forests, kind)(**options).fit(X, target)
    found = interventional_tree_shap(model, X[:4], X[20:40])
    exact = exact_shap(model.predict, X[:4], X[20:40])
    np.testing.assert_allclose(found.values, exact.values, atol=TIGHT * np.abs(exact.values).max())
    np.testing.assert_allclose(tree_shap(model, X).gap(model.predict(X)), 0, atol=1e-9)
    trees = TreeEnsemble.from_model(model)
    assert (trees.output_names, trees.link) == (("risk score",), "identity")
