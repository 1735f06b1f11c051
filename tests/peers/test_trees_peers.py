"""Where peers go wrong, we add up to the library's own output; where they are right, we agree with
them.

The cases are those in which shap, shapiq or woodelf were measured to miss the model's output.
Additivity is checked against the library's raw output, never against our own predict; the game
itself against its definition, with the library as the black box.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shaplab import (
    interventional_tree_shap,
    interventional_tree_shap_interactions,
    tree_shap,
    tree_shap_interactions,
)
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble

xgb = pytest.importorskip("xgboost")
lgb = pytest.importorskip("lightgbm")
sklearn_ensemble = pytest.importorskip("sklearn.ensemble")
pytestmark = pytest.mark.peers

# XGBoost adds its leaves in float32; the others in float64 as we do, in another order.
FLOAT32, FLOAT64 = 3e-6, 1e-11


def table(n=240, d=5, seed=0, missing=False):
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, d)), 1)
    y = X[:, 0] * X[:, 1] - 2 * (X[:, 2] > 0) + X[:, 3] + 0.1 * rng.normal(size=n)
    if missing:
        X[rng.random((n, d)) < 0.15] = np.nan
    return X, y


def frame(n=300, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "letter": pd.Categorical(rng.choice([*"abcdefgh"], n)),
            "x": rng.normal(size=n),
            "number": pd.Categorical(rng.integers(0, 12, n) * 10),
            "whole": rng.integers(0, 5, n),
        }
    )
    y = X["letter"].isin(["a", "c", "f"]) * 2.0 + X["number"].astype(int) % 3 * X["x"]
    X.loc[::9, "letter"] = np.nan
    return X, y.to_numpy()


def booster(parameters, X=None, y=None, rounds=8, weight=None, **more):
    if X is None:
        X, y = table(missing=True)
    data = xgb.DMatrix(X, y, weight=weight, **more)
    model = xgb.train({"max_depth": 4, "seed": 0, "nthread": 1} | parameters, data, rounds)
    return model, X, lambda rows: model.predict(xgb.DMatrix(rows, **more), output_margin=True)


def light(parameters, X=None, y=None, **more):
    if X is None:
        X, y = table(missing=True)
    base = {
        "verbose": -1,
        "num_threads": 1,
        "num_leaves": 10,
        "min_data_in_leaf": 4,
        "seed": 0,
        "min_data_per_group": 4,
        "cat_smooth": 1,
    }
    model = lgb.train(base | parameters, lgb.Dataset(X, y, **more), 8)
    forest = (
        parameters.get("boosting") == "rf"
    )  # whose raw score is a sum, and whose prediction a mean
    return model, X, lambda rows: model.predict(rows, raw_score=not forest)


def early_stopping():
    X, y = table(missing=True)
    model = xgb.XGBRegressor(
        n_estimators=200, learning_rate=0.6, early_stopping_rounds=3, max_depth=4, n_jobs=1
    )
    model.fit(X[:160], y[:160], eval_set=[(X[160:], y[160:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    return model, X, lambda rows: model.predict(rows, output_margin=True)


def scikit(model, X=None, y=None):
    if X is None:
        X, y = table()
    model = model.set_params(random_state=0).fit(X, y)
    method = (
        "decision_function"
        if hasattr(model, "decision_function")
        else ("predict_proba" if hasattr(model, "predict_proba") else "predict")
    )
    return model, X, getattr(model, method)


def with_sklearn(name, X=None, y=None, **parameters):
    return lambda: scikit(getattr(sklearn_ensemble, name)(**parameters), X, y)


def targets(y):
    return np.stack([y, -y, y**2], axis=1)


def near_2_24():
    rng = np.random.default_rng(0)
    X = 2.0**24 + rng.integers(-40, 40, (240, 2)) + rng.choice([0, 0.5], (240, 2))
    return X, X[:, 0] % 7 + X[:, 1] % 3


def isolation():
    X, _ = table()
    model = sklearn_ensemble.IsolationForest(n_estimators=9, random_state=0).fit(X)
    return model, X, lambda rows: -np.log2(-model.score_samples(rows))


def survival():
    X, y = table(missing=True)
    data = xgb.DMatrix(X)
    data.set_float_info("label_lower_bound", np.abs(y) + 0.1)
    data.set_float_info("label_upper_bound", np.abs(y) + 0.2)
    model = xgb.train({"objective": "survival:aft", "max_depth": 3, "nthread": 1}, data, 6)
    return model, X, lambda rows: model.predict(xgb.DMatrix(rows), output_margin=True)


def ranking():
    X, y = table(missing=True)
    grades = np.clip(np.round(y + 2), 0, 4)
    model = xgb.XGBRanker(n_estimators=6, max_depth=4, n_jobs=1).fit(X, grades, group=[120, 120])
    return model, X, model.predict


def labelled(rule, missing=True):
    X, y = table(missing=missing)
    return X, rule(y)


MISSING, FULL, LETTERS = table(missing=True), table(), frame()
CASES = {
    "xgboost": lambda: booster({}),
    "dart": lambda: booster({"booster": "dart", "rate_drop": 0.5, "one_drop": 1}),
    "early stopping": early_stopping,
    "num_parallel_tree": lambda: booster({"num_parallel_tree": 3, "subsample": 0.5}),
    "one-hot splits": lambda: booster(
        {"max_cat_to_onehot": 100}, *LETTERS, enable_categorical=True
    ),
    "set splits": lambda: booster({"max_cat_to_onehot": 1}, *LETTERS, enable_categorical=True),
    "vector leaves": lambda: booster(
        {"multi_strategy": "multi_output_tree"}, MISSING[0], targets(MISSING[1])
    ),
    "multi-class": lambda: booster(
        {"objective": "multi:softprob", "num_class": 3},
        *labelled(lambda y: np.digitize(y, [-1.5, 0])),
    ),
    "cox": lambda: booster(
        {"objective": "survival:cox"}, *labelled(lambda y: (np.abs(y) + 0.1) * np.sign(y + 9))
    ),
    "aft": survival,
    "ranking": ranking,
    "base_score vector": lambda: booster(
        {"base_score": [0.5, -1.0, 2.0]}, MISSING[0], targets(MISSING[1])
    ),
    "poisson": lambda: booster(
        {"objective": "count:poisson"}, *labelled(lambda y: np.floor(np.abs(y)))
    ),
    "logistic, base_score": lambda: booster(
        {"objective": "binary:logistic", "base_score": 0.1}, *labelled(lambda y: y > -1.0)
    ),
    "no rounds": lambda: booster({}, *MISSING, rounds=0),
    "single leaves": lambda: booster({"gamma": 1e9}),
    "stumps": lambda: booster({"max_depth": 1}),
    "zero weights": lambda: booster({"min_child_weight": 0}, *MISSING, weight=np.arange(240) % 2.0),
    "depth 30": lambda: booster({"max_depth": 30, "min_child_weight": 0, "lambda": 0}),
    "float64 near 2**24, xgboost": lambda: booster({}, *near_2_24()),
    "lightgbm": lambda: light({}),
    "zero_as_missing": lambda: light({"zero_as_missing": True}),
    "use_missing=false": lambda: light({"use_missing": False}),
    "rf": lambda: light({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}),
    "lightgbm dart": lambda: light({"boosting": "dart", "drop_rate": 0.5}),
    "lightgbm multi-class": lambda: light(
        {"objective": "multiclass", "num_class": 3}, *labelled(lambda y: np.digitize(y, [-1.5, 0]))
    ),
    "lightgbm categories": lambda: light({}, *LETTERS),
    "float64 near 2**24, lightgbm": lambda: light({}, *near_2_24()),
    "histogram": with_sklearn(
        "HistGradientBoostingRegressor", *FULL, max_iter=8, min_samples_leaf=3
    ),
    "histogram, missing": with_sklearn(
        "HistGradientBoostingRegressor", *MISSING, max_iter=8, min_samples_leaf=3
    ),
    "histogram, categories": with_sklearn(
        "HistGradientBoostingRegressor",
        *LETTERS,
        max_iter=8,
        min_samples_leaf=3,
        categorical_features="from_dtype",
    ),
    "float64 near 2**24, forest": with_sklearn(
        "RandomForestRegressor", *near_2_24(), n_estimators=4
    ),
    "float64 near 2**24, histogram": with_sklearn(
        "HistGradientBoostingRegressor", *near_2_24(), max_iter=4
    ),
    "forest": with_sklearn(
        "RandomForestClassifier",
        *labelled(lambda y: np.digitize(y, [-1.5, 0]), False),
        n_estimators=4,
    ),
    "forest, missing": with_sklearn("RandomForestRegressor", *MISSING, n_estimators=4),
    "several outputs": with_sklearn(
        "ExtraTreesRegressor", FULL[0], targets(FULL[1]), n_estimators=3
    ),
    "gradient boosting": with_sklearn(
        "GradientBoostingClassifier", *labelled(lambda y: y > -1, False), n_estimators=6
    ),
    "isolation forest": isolation,
}


def gap(values, base, outputs):
    """Largest distance between the sum of an explanation and the outputs, over the scale of the
    outputs."""
    total = values.sum(axis=1) + np.asarray(base)
    assert total.shape == outputs.shape
    return float(np.abs(total - outputs).max() / max(1.0, np.abs(outputs).max()))


def tolerance(model):
    return FLOAT32 if type(model).__module__.startswith("xgboost") else FLOAT64


def rows_of(X, part):
    return X.iloc[part] if hasattr(X, "iloc") else X[part]


@pytest.mark.parametrize("case", CASES)
def test_values_add_up_to_the_library(case):
    model, X, raw = CASES[case]()
    rows, background = rows_of(X, slice(0, 40)), rows_of(X, slice(40, 100))
    expected = np.asarray(raw(rows), np.float64)
    found = tree_shap(model, rows)
    assert gap(found.values, found.base_values, expected) < tolerance(model)
    found = interventional_tree_shap(model, rows, background)
    assert gap(found.values, found.base_values, expected) < tolerance(model)
    mean = np.asarray(raw(background), np.float64).mean(axis=0)
    np.testing.assert_allclose(
        np.broadcast_to(found.base_values, expected.shape)[0],
        mean,
        rtol=tolerance(model),
        atol=tolerance(model) * max(1.0, np.abs(expected).max()),
    )
    one = interventional_tree_shap(model, rows_of(X, slice(3, 4)), rows_of(X, slice(50, 51)))
    assert gap(one.values, one.base_values, expected[3:4]) < tolerance(model)


@pytest.mark.parametrize(
    "case",
    [
        "dart",
        "set splits",
        "vector leaves",
        "multi-class",
        "rf",
        "zero_as_missing",
        "histogram, missing",
        "histogram, categories",
        "isolation forest",
    ],
)
def test_interactions_add_up_to_the_library(case):
    model, X, raw = CASES[case]()
    rows, background = rows_of(X, slice(0, 12)), rows_of(X, slice(40, 70))
    expected = np.asarray(raw(rows), np.float64)
    for found, single in (
        (tree_shap_interactions(model, rows), tree_shap(model, rows)),
        (
            interventional_tree_shap_interactions(model, rows, background),
            interventional_tree_shap(model, rows, background),
        ),
    ):
        np.testing.assert_allclose(
            found.values.sum(axis=2), single.values, atol=1e-11 * max(1, np.abs(expected).max())
        )
        np.testing.assert_allclose(found.values, np.swapaxes(found.values, 1, 2), atol=1e-12)
        assert gap(found.values.sum(axis=1), found.base_values, expected) < tolerance(model)
        off = found.values * (1 - np.eye(found.values.shape[1])).reshape(
            1, *found.values.shape[1:3], *(1,) * (found.values.ndim - 3)
        )
        assert np.abs(off).max() > 1e-4  # shap returns zeros for the interventional ones


def by_definition(raw, rows, background, d):
    """Interventional Shapley values with the library as a black box: all coalitions, all
    references."""
    frame_given = hasattr(rows, "iloc")
    n, m = len(rows), len(background)
    means = {}
    for size in range(d + 1):
        for coalition in combinations(range(d), size):
            if frame_given:
                mixed = pd.concat([background] * n, ignore_index=True)
                for j in coalition:
                    name = rows.columns[j]
                    mixed[name] = rows[name].repeat(m).reset_index(drop=True)
            else:
                mixed = np.tile(background, (n, 1))
                mixed[:, coalition] = np.repeat(rows, m, axis=0)[:, coalition]
            outputs = np.asarray(raw(mixed), np.float64)
            means[coalition] = outputs.reshape(n, m, *outputs.shape[1:]).mean(axis=1)
    phi = np.zeros((n, d, *means[()].shape[1:]))
    for coalition, mean in means.items():
        for j in set(range(d)) - set(coalition):
            weight = (
                math.factorial(len(coalition))
                * math.factorial(d - len(coalition) - 1)
                / math.factorial(d)
            )
            phi[:, j] += weight * (means[tuple(sorted((*coalition, j)))] - mean)
    return phi


@pytest.mark.parametrize("case", CASES)
def test_interventional_values_follow_their_definition(case):
    model, X, raw = CASES[case]()
    rows, background = rows_of(X, slice(0, 5)), rows_of(X, slice(40, 52))
    expected = by_definition(raw, rows, background, X.shape[1])
    scale = max(1.0, np.abs(np.asarray(raw(X), np.float64)).max())
    found = interventional_tree_shap(model, rows, background).values
    np.testing.assert_allclose(found, expected, atol=tolerance(model) * scale)


def test_xgboost_contributions():
    for case in (
        "xgboost",
        "dart",
        "num_parallel_tree",
        "multi-class",
        "cox",
        "poisson",
        "stumps",
        "set splits",
        "one-hot splits",
        "depth 30",
        "float64 near 2**24, xgboost",
    ):
        model, X, _ = CASES[case]()
        data = xgb.DMatrix(X, enable_categorical=True)
        theirs = model.predict(data, pred_contribs=True).astype(np.float64)
        theirs = np.moveaxis(theirs, 1, 2) if theirs.ndim == 3 else theirs
        ours = tree_shap(model, X)
        # XGBoost computes path weights in float32 and loses some digits at depth
        atol = (1e-2 if case == "depth 30" else 2e-5) * max(1.0, np.abs(theirs).max())
        np.testing.assert_allclose(ours.values, theirs[:, :-1], atol=atol, err_msg=case)
        np.testing.assert_allclose(ours.base_values[0], theirs[0, -1], atol=atol, err_msg=case)


def test_xgboost_interactions():
    for case in ("xgboost", "dart", "multi-class", "set splits"):
        model, X, _ = CASES[case]()
        rows = rows_of(X, slice(0, 20))
        theirs = model.predict(
            xgb.DMatrix(rows, enable_categorical=True), pred_interactions=True
        ).astype(np.float64)
        theirs = np.moveaxis(theirs, 1, -1) if theirs.ndim == 4 else theirs
        np.testing.assert_allclose(
            tree_shap_interactions(model, rows).values,
            theirs[:, :-1, :-1],
            atol=5e-5 * max(1.0, np.abs(theirs).max()),
            err_msg=case,
        )


def test_lightgbm_contributions():
    for case in (
        "lightgbm",
        "zero_as_missing",
        "use_missing=false",
        "lightgbm dart",
        "lightgbm multi-class",
        "lightgbm categories",
        "rf",
        "float64 near 2**24, lightgbm",
    ):
        model, X, _ = CASES[case]()
        theirs = model.predict(X, pred_contrib=True) / (8 if case == "rf" else 1)
        ours = tree_shap(model, X)
        d = X.shape[1]
        if ours.values.ndim == 3:
            theirs = np.moveaxis(theirs.reshape(len(X), -1, d + 1), 1, 2)
        np.testing.assert_allclose(
            ours.values, theirs[:, :-1], atol=1e-10 * max(1.0, np.abs(theirs).max()), err_msg=case
        )


def test_shap_where_it_is_right():
    shap = pytest.importorskip("shap")
    for case in ("xgboost", "lightgbm", "forest", "gradient boosting", "multi-class"):
        model, X, _ = CASES[case]()
        theirs = np.asarray(shap.TreeExplainer(model).shap_values(X[:30], check_additivity=False))
        ours = tree_shap(model, X[:30]).values
        np.testing.assert_allclose(
            ours, theirs, atol=3e-5 if tolerance(model) == FLOAT32 else 1e-9, err_msg=case
        )
    # Its interventional code keeps thresholds, leaves, weights and sums in float32, so rows must
    # keep away from thresholds: on the rounded table above its forest is off by 0.05, ours by
    # nothing (see the definition's test).
    X = np.random.default_rng(0).normal(size=(240, 5))
    y = X[:, 0] * X[:, 1] - 2 * (X[:, 2] > 0) + X[:, 3]
    for model in (
        sklearn_ensemble.RandomForestRegressor(4, random_state=0).fit(X, y),
        sklearn_ensemble.GradientBoostingClassifier(n_estimators=6).fit(X, y > -1),
    ):
        explainer = shap.TreeExplainer(model, X[40:100], feature_perturbation="interventional")
        theirs = np.asarray(explainer.shap_values(X[:30], check_additivity=False))
        np.testing.assert_allclose(
            interventional_tree_shap(model, X[:30], X[40:100]).values, theirs, atol=3e-7
        )


def test_shap_on_paths_of_more_than_64_features():
    """Unlimited depth on 400 sparse columns, where a word of 64 bits is not enough."""
    shap = pytest.importorskip("shap")
    rng = np.random.default_rng(0)
    X = (rng.random((900, 400)) < 0.03) * rng.normal(size=(900, 400))
    y = X @ rng.normal(size=400) + rng.logistic(size=900) > 0
    model = sklearn_ensemble.RandomForestClassifier(8, random_state=0).fit(X, y)
    explainer = shap.TreeExplainer(model, X[100:140], feature_perturbation="interventional")
    theirs = np.asarray(explainer.shap_values(X[:5], check_additivity=False))
    ours = interventional_tree_shap(model, X[:5], X[100:140])
    # Its sums are float32: 8 trees of probabilities, 40 references.
    np.testing.assert_allclose(ours.values, theirs, atol=3e-6)
    np.testing.assert_allclose(ours.prediction, model.predict_proba(X[:5]), atol=1e-12)


def test_shap_where_float32_holds_the_model():
    """Integer thresholds, leaves in steps of 1/256, two features a path (weights 1 and 1/2):
    nothing is rounded."""
    shap = pytest.importorskip("shap")
    rng = np.random.default_rng(0)
    form = {
        "children_left": np.array([1, 3, 5, -1, -1, -1, -1]),
        "children_right": np.array([2, 4, 6, -1, -1, -1, -1]),
    }
    form |= {
        "children_default": form["children_left"],
        "node_sample_weight": np.array([4.0, 2, 2, 1, 1, 1, 1]),
    }
    trees = [
        form
        | {
            "features": np.r_[rng.permutation(4)[[0, 1, 1]], [-1] * 4],
            "thresholds": rng.integers(0, 3, 7).astype(float),
            "values": rng.integers(-256, 256, (7, 1)) / 256,
        }
        for _ in range(30)
    ]
    feature, threshold, value = (
        np.concatenate([tree[name].ravel() for tree in trees])
        for name in ("features", "thresholds", "values")
    )
    left, right = (
        np.concatenate([np.where(form[name] < 0, -1, form[name] + 7 * t) for t in range(30)])
        for name in ("children_left", "children_right")
    )
    ensemble = TreeEnsemble.from_arrays(
        feature, threshold, left, right, value, tree_start=np.arange(31) * 7
    )
    X = rng.integers(0, 4, (80, 4)).astype(float)
    explainer = shap.TreeExplainer({"trees": trees}, X[20:], feature_perturbation="interventional")
    theirs = explainer.shap_values(X[:20], check_additivity=False)
    ours = interventional_tree_shap(ensemble, X[:20], X[20:]).values
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=1e-12
    )  # float64 sums of 30 values below 1


def test_missing_values_only_in_the_background():
    model, X, raw = CASES["xgboost"]()
    rows, background = np.nan_to_num(X[:5]), X[40:52]
    assert np.isnan(background).any()
    np.testing.assert_allclose(
        interventional_tree_shap(model, rows, background).values,
        by_definition(raw, rows, background, 5),
        atol=FLOAT32 * 10,
    )


def test_unseen_categories_infinite_values_and_signed_zeros():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 9, 300).astype(float)
    X = np.stack([codes, rng.normal(size=300), rng.normal(size=300)], axis=1)
    model, _, raw = light({}, X, codes % 3 + X[:, 1], categorical_feature=[0])
    rows = np.array(
        [[99.0, np.inf, -0.0], [3.0, -np.inf, 0.0], [np.nan, 0.0, np.inf], [-1.0, -0.0, 1e300]]
    )
    np.testing.assert_allclose(
        interventional_tree_shap(model, rows, X[:20]).values,
        by_definition(raw, rows, X[:20], 3),
        atol=1e-11,
    )
    found = tree_shap(model, rows)
    assert gap(found.values, found.base_values, raw(rows)) < FLOAT64


def test_layouts_do_not_matter():
    model, X, _ = CASES["gradient boosting"]()
    X = np.where(np.abs(X) < 0.5, 0, X)
    expected = interventional_tree_shap(model, X[:20], X[50:80]).values
    for layout in (np.asfortranarray, sparse.csr_matrix, lambda Z: np.repeat(Z, 2, axis=1)[:, ::2]):
        found = interventional_tree_shap(model, layout(X[:20]), layout(X[50:80])).values
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(
            tree_shap(model, layout(X[:20])).values, tree_shap(model, X[:20]).values
        )


def test_counts_and_hessians_as_covers_differ():
    X, y = table()
    model, _, raw = booster({"objective": "binary:logistic"}, X, y > -1)
    hessian = as_ensemble(model)
    count = hessian.with_covers(X)
    assert count.cover[0] == len(X)
    ours = [tree_shap(ensemble, X[:40]) for ensemble in (hessian, count)]
    for found in ours:
        assert gap(found.values, found.base_values, np.asarray(raw(X[:40]), np.float64)) < FLOAT32
    assert np.abs(ours[0].values - ours[1].values).max() > 1e-3


def test_linear_trees_are_refused_by_name():
    X, y = table()
    with pytest.raises(ValueError, match="linear_tree"):
        tree_shap(light({"linear_tree": True}, X, y)[0], X)


def test_more_than_65535_thresholds():
    n = 70_000
    feature, threshold = np.tile([0, -1, -1], n), np.zeros(3 * n)
    threshold[::3] = np.arange(n)
    left, right = np.full(3 * n, -1), np.full(3 * n, -1)
    left[::3], right[::3] = np.arange(n) * 3 + 1, np.arange(n) * 3 + 2
    ensemble = TreeEnsemble.from_arrays(
        feature,
        threshold,
        left,
        right,
        np.tile([0.0, 1.0, 0.0], n),
        tree_start=np.arange(0, 3 * n + 1, 3),
        n_features=2,
    )
    rows, background = np.array([[65_600.0, 1.0]]), np.array([[69_000.0, 2.0], [0.0, 3.0]])
    found = interventional_tree_shap(ensemble, rows, background)
    np.testing.assert_allclose(
        found.values[0], [n - 65_600 - (n - 69_000 + n) / 2, 0.0], rtol=1e-12
    )
    found = tree_shap(ensemble, rows)
    np.testing.assert_allclose(found.values.sum() + found.base_values[0], n - 65_600, rtol=1e-12)
