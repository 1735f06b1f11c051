"""LightGBM's linear_tree: the interventional game, held against enumeration of the model itself."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from oracles.random_trees import brute
from sklearn.ensemble import VotingRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import shaplab
from shaplab import (
    BackgroundTrees,
    PreparedTrees,
    TreeEnsemble,
    UnsupportedModelError,
    interventional_tree_shap,
    tree_shap,
)
from shaplab.trees.readers._lightgbm import read_text

lgb = pytest.importorskip("lightgbm")

BASE = {"linear_tree": True, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
# Of the largest output. What is left is rounding of sums over leaves and references, near 1e-15.
CLOSE = 1e-9


def table(rng, n=200, d=4, missing=True):
    X = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-2, 3, d)
    X[rng.random(X.shape) < 0.1] = 0.0
    if missing:
        X[rng.random(X.shape) < 0.1] = np.nan
    y = np.nan_to_num(X) @ rng.normal(size=d) + np.nan_to_num(X[:, 0] * X[:, -1])
    return X, y


def train(more, X, y, rounds=5):
    return lgb.train(BASE | more, lgb.Dataset(X, y), rounds)


def raw(booster):
    # In rf mode the raw score is the sum of the trees, the prediction their mean.
    is_mean = "average_output" in booster.model_to_string()
    return lambda rows: booster.predict(rows, raw_score=not is_mean)


def enumerated(predict, X, background, weights, groups):
    """Values ``(N, players, ...)`` and base value, by all coalitions of groups of columns."""
    found = []
    for x in X:

        def v(S, x=x):
            rows = background.copy()
            for player in S:
                rows[:, groups[player]] = x[groups[player]]
            return np.average(predict(rows), axis=0, weights=weights)

        found.append(brute(v, len(groups))[0])
    return np.array(found), np.average(predict(background), axis=0, weights=weights)


def check(booster, X, background, weights=None, groups=None):
    predict = raw(booster)
    scale = np.abs(predict(np.concatenate([X, background]))).max()
    ours = interventional_tree_shap(booster, X, background, weights=weights, groups=groups)
    columns = [[j] for j in range(X.shape[1])]
    values, base = enumerated(predict, X, background, weights, groups or columns)
    np.testing.assert_allclose(ours.values, values, rtol=0, atol=CLOSE * scale)
    np.testing.assert_allclose(ours.base_values, np.broadcast_to(base, ours.base_values.shape))
    assert np.abs(ours.gap(predict(X))).max() <= CLOSE * scale


KINDS = {
    "few leaves": {"num_leaves": 2},
    "many leaves": {"num_leaves": 40},
    "lambda": {"linear_lambda": 1.0},
    "dart": {"boosting": "dart"},
    "binary": {"objective": "binary"},
    "multi-class": {"objective": "multiclass", "num_class": 3},
    "averaged": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
    "small leaves": {"min_data_in_leaf": 1, "num_leaves": 60},
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_enumeration(kind, missing):
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    X, y = table(rng, missing=missing)
    if kind == "binary":
        y = y > np.median(y)
    if kind == "multi-class":
        y = np.digitize(y, np.quantile(y, [0.3, 0.7]))
    try:
        booster = train(KINDS[kind], X, y)
    except lgb.basic.LightGBMError:
        pytest.skip("LightGBM refuses this itself")
    assert TreeEnsemble.from_model(booster).linear is not None
    weights = rng.random(12)
    check(booster, X[:4], X[20:32], weights / weights.sum())
    check(booster, X[:4], X[20:32], groups=[[0, 2], [1, 3]])
    check(booster, X[:1], X[5:6])


def test_constant_columns_and_one_feature_many_times():
    rng = np.random.default_rng(5)
    X, y = table(rng, missing=False)
    X[:, 1] = 3.0
    y = np.sin(3 * X[:, 0] / np.abs(X[:, 0]).max())
    check(train({"num_leaves": 30}, X, y), X[:5], X[50:60])


def test_more_than_64_players_on_one_leaf():
    """No packed bits: a leaf's sum may have any number of features. Beyond enumeration: sums of
    values, and equal features that get equal values."""
    rng = np.random.default_rng(6)
    X = rng.normal(size=(3000, 80))
    booster = train({"num_leaves": 200, "linear_lambda": 0.1}, X, X.sum(axis=1) ** 3, rounds=1)
    found = interventional_tree_shap(booster, X[:3], X[10:20])
    outputs = raw(booster)(X[:3])
    assert np.abs(found.gap(outputs)).max() <= CLOSE * np.abs(outputs).max()


def test_predictions_rows_with_missing_values_and_categories():
    rng = np.random.default_rng(7)
    X, y = table(rng, d=3)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    frame["kind"] = pd.Categorical(rng.choice(["x", "y", "z"], len(X)))
    model = lgb.LGBMRegressor(**BASE, n_estimators=5).fit(frame, y + 50 * (frame["kind"] == "y"))
    trees = TreeEnsemble.from_model(model)
    theirs = model.predict(frame, raw_score=True)
    np.testing.assert_allclose(trees.predict(frame), theirs, atol=CLOSE * np.abs(theirs).max())
    found = interventional_tree_shap(model, frame[:6], frame[50:70])
    assert found.feature_names == ("a", "b", "c", "kind")
    assert np.abs(found.gap(theirs[:6])).max() <= CLOSE * np.abs(theirs).max()


def test_pipelines_searches_prepared_objects_threads_and_out():
    rng = np.random.default_rng(8)
    X, y = table(rng, n=700, missing=False)
    inner = lgb.LGBMRegressor(**BASE, n_estimators=3)
    model = make_pipeline(StandardScaler(), inner).fit(X, y)
    found = interventional_tree_shap(model, X, X[:20])
    scale = np.abs(y).max()
    assert np.abs(found.gap(model.predict(X))).max() <= CLOSE * scale
    values, _ = enumerated(model.predict, X[:2], X[:20], None, [[j] for j in range(4)])
    np.testing.assert_allclose(found.values[:2], values, rtol=0, atol=CLOSE * scale)
    prepared = pickle.loads(pickle.dumps(BackgroundTrees(model, X[:20])))
    np.testing.assert_array_equal(prepared(X).values, found.values)
    out = np.empty(X.shape)
    interventional_tree_shap(model, X, X[:20], n_jobs=2, batch_size=100, out=out)
    np.testing.assert_array_equal(out, found.values)
    assert prepared.nbytes > 20 * 4 * 8
    search = GridSearchCV(inner, {"num_leaves": [4]}, cv=2).fit(X, y)
    found = interventional_tree_shap(search, X[:3], X[:20])
    assert np.abs(found.gap(search.predict(X[:3]))).max() <= CLOSE * scale


def test_read_again_from_text():
    rng = np.random.default_rng(9)
    X, y = table(rng, missing=False)
    first = train({"num_leaves": 6}, X, y)
    check(lgb.Booster(model_str=first.model_to_string()), X[:3], X[30:40])


REFUSED = {
    "tree_shap": lambda model, X: tree_shap(model, X),
    "saabas": lambda model, X: shaplab.saabas(model, X),
    "PreparedTrees": lambda model, X: PreparedTrees(model),
    "pairs": lambda model, X: shaplab.interventional_tree_shap_interactions(model, X, X),
    "order": lambda model, X: shaplab.interventional_tree_shap_interactions(model, X, X, order=3),
    "path-dependent pairs": lambda model, X: shaplab.tree_shap_interactions(model, X),
    "unions": lambda model, X: interventional_tree_shap(model, X, X, unions=[[0, 1], [2, 3]]),
    "prepared pairs": lambda model, X: BackgroundTrees(model, X, interactions=True),
    "loss": lambda model, X: shaplab.tree_loss_shap(model, X, X[:, 0], X, loss="squared"),
    "output": lambda model, X: shaplab.tree_output_shap(model, X, X),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_games_are_refused_with_a_way_that_works(name):
    rng = np.random.default_rng(10)
    X, y = table(rng, missing=False)
    booster = train({}, X, y)
    for model in (booster, TreeEnsemble.from_model(booster)):
        with pytest.raises(UnsupportedModelError, match="linear_tree=true") as caught:
            REFUSED[name](model, X[:5])
        assert "interventional_tree_shap(model, X, background)" in str(caught.value)
        found = interventional_tree_shap(model, X[:5], X[:9])
        assert np.abs(found.gap(raw(booster)(X[:5]))).max() <= CLOSE * np.abs(y).max()


def test_models_of_several_are_refused_by_their_parts_name():
    rng = np.random.default_rng(11)
    X, y = table(rng, missing=False)
    votes = VotingRegressor([("a", lgb.LGBMRegressor(**BASE, n_estimators=2))]).fit(X, y)
    with pytest.raises(UnsupportedModelError, match=r"LGBMRegressor \(linear_tree=true"):
        interventional_tree_shap(votes, X[:3], X)


def test_infinite_sums_are_refused():
    rng = np.random.default_rng(12)
    X, y = table(rng, missing=False)
    booster = train({}, X, y)
    X[0, 0] = np.inf
    with pytest.raises(ValueError, match="X: expected rows for which"):
        interventional_tree_shap(booster, X[:3], X[5:9])


def test_damaged_lines_are_refused():
    rng = np.random.default_rng(13)
    X, y = table(rng, missing=False)
    text = train({}, X, y).model_to_string()
    for old, new in (
        ("leaf_coeff=", "leaf_coeff=1 "),
        ("leaf_features=", "leaf_features=99 "),
        ("leaf_const=", "leaf_const=nan "),
        ("num_features=", "num_features=1 "),
    ):
        with pytest.raises(ValueError, match="model: expected"):
            TreeEnsemble.from_raw(read_text(text.replace(old, new)))
