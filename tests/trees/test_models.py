"""Models as people train them, drawn at random: values add up to the library's own output, the
interventional game is that of its definition, predictions are the library's.

Chapter: trees/path_dependent."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import brute
from properties import examples
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor

from shaplab.trees._links import prediction
from shaplab.trees.conditional_expectation import paper_trees
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.interactions import (
    interventional_tree_shap_interactions,
    tree_shap_interactions,
)
from shaplab.trees.interventional import (
    independent_tree_shap_literal,
    interventional_tree_shap,
)
from shaplab.trees.loss import tree_output_shap
from shaplab.trees.path_dependent import tree_shap

D, N = 4, 150
# XGBoost sums leaves in float32: 6e-8 a leaf, for tens of leaves of the size of the output.
SINGLE, DOUBLE = {"rtol": 1e-5, "atol": 3e-5}, {"rtol": 1e-10, "atol": 1e-10}


def numbers(signal):
    return signal


def counts(signal):
    return np.floor(np.exp(signal / 2))


def positive(signal):
    return np.exp(signal / 3)


def yes_or_no(signal):
    return (signal > 0).astype(float)


def three(signal):
    return np.digitize(signal, [-0.5, 0.5]).astype(float)


def share(signal):
    return 1 / (1 + np.exp(-signal))


def times(signal):
    return np.exp(signal / 3) * np.where(np.arange(len(signal)) % 3, 1, -1)


def grades(signal):
    return np.clip(np.round(signal + 2), 0, 4)


XGBOOST = {
    "reg:squarederror": numbers,
    "reg:squaredlogerror": positive,
    "reg:logistic": share,
    "reg:pseudohubererror": numbers,
    "reg:absoluteerror": numbers,
    "reg:quantileerror": numbers,
    "reg:gamma": positive,
    "reg:tweedie": counts,
    "binary:logistic": yes_or_no,
    "binary:logitraw": yes_or_no,
    "binary:hinge": yes_or_no,
    "count:poisson": counts,
    "survival:cox": times,
    "multi:softprob": three,
    "rank:pairwise": grades,
    "rank:ndcg": grades,
    "rank:map": yes_or_no,
}
LIGHTGBM = {
    "regression": numbers,
    "regression_l1": numbers,
    "huber": numbers,
    "fair": numbers,
    "quantile": numbers,
    "mape": positive,
    "poisson": counts,
    "gamma": positive,
    "tweedie": counts,
    "binary": yes_or_no,
    "cross_entropy": share,
    "cross_entropy_lambda": share,
    "multiclass": three,
    "multiclassova": three,
    "lambdarank": grades,
    "rank_xendcg": grades,
}


def drawn_rows(rng):
    X = np.round(rng.normal(size=(N, D)), 1).astype(np.float32).astype(float)
    X[rng.random(X.shape) < rng.choice([0.0, 0.1])] = np.nan
    filled = np.nan_to_num(X)
    return X, filled[:, 0] * filled[:, 1] - filled[:, 2] + 0.2 * rng.normal(size=N)


def check_model(model, X, margin, close, final=None):
    """Path-dependent and interventional values and interactions of a few rows."""
    e = TreeEnsemble.from_model(model)
    rows, background = X[:3], X[20:25]
    np.testing.assert_allclose(e.predict(X), margin(X), **close)
    path = tree_shap(model, rows)
    np.testing.assert_allclose(path.prediction, margin(rows), **close)
    both = tree_shap_interactions(model, rows)
    np.testing.assert_allclose(both.values.sum(axis=2), path.values, atol=1e-9)
    found = interventional_tree_shap(model, rows, background)
    np.testing.assert_allclose(found.base_values[0], margin(background).mean(axis=0), **close)
    both = interventional_tree_shap_interactions(model, rows, background)
    for i, x in enumerate(rows[:2]):

        def v(S, x=x):
            known = np.isin(np.arange(D), list(S))
            return margin(np.where(known, x, background)).mean(axis=0)

        phi, pairs = brute(v, D)
        loose = {"rtol": 1e-4, "atol": 2e-4} if close is SINGLE else close  # sums of 16 margins
        np.testing.assert_allclose(found.values[i], phi, **loose)
        np.testing.assert_allclose(both.values[i], pairs, **loose)
    change = prediction(e.link, e.link_factor)
    if final is None or change is None:
        return
    np.testing.assert_allclose(change.value(e.predict(X)), final(X), **close)
    shown = tree_output_shap(model, rows, background, transform="prediction")
    np.testing.assert_allclose(shown.prediction, final(rows), **close)
    np.testing.assert_allclose(shown.base_values[0], final(background).mean(axis=0), **close)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(XGBOOST)),
    st.sampled_from(["gbtree", "dart"]),
    st.integers(1, 2),
    st.integers(0, 5),
)
@examples(40)
def test_xgboost_of_every_objective(seed, objective, booster, parallel, depth):
    rng = np.random.default_rng(seed)
    X, signal = drawn_rows(rng)
    data = xgb.DMatrix(X, XGBOOST[objective](signal))
    if objective.startswith("rank"):
        data.set_group([N // 3] * 3)
    settings_ = {"objective": objective, "booster": booster, "max_depth": depth, "nthread": 1}
    settings_ |= {"num_parallel_tree": parallel, "subsample": 0.7, "seed": seed % 1000}
    settings_ |= {"num_class": 3} if objective.startswith("multi") else {}
    settings_ |= {"rate_drop": 0.3} if booster == "dart" else {}
    settings_ |= {"quantile_alpha": 0.3} if "quantile" in objective else {}
    if objective in ("reg:absoluteerror", "reg:quantileerror"):
        # Leaves of these are set after the split: XGBoost has no dart and no forests of them.
        settings_ |= {"booster": "gbtree", "num_parallel_tree": 1}
        settings_.pop("rate_drop", None)
    model = xgb.train(settings_, data, 4)
    # rank:map predicts margins for ordering; what predict adds differs between versions.
    final = None if objective == "rank:map" else lambda rows: model.predict(xgb.DMatrix(rows))
    check_model(
        model, X, lambda rows: model.predict(xgb.DMatrix(rows), output_margin=True), SINGLE, final
    )


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(LIGHTGBM)),
    st.sampled_from(["gbdt", "dart", "rf"]),
    st.sampled_from([{}, {"zero_as_missing": True}, {"use_missing": False}, {"extra_trees": True}]),
    st.sampled_from([1.0, 0.5, 2.0]),
)
@examples(40)
def test_lightgbm_of_every_objective(seed, objective, boosting, more, sigmoid):
    rng = np.random.default_rng(seed)
    X, signal = drawn_rows(rng)
    settings_ = {"objective": objective, "boosting": boosting, "verbose": -1, "num_threads": 1}
    settings_ |= {"seed": seed % 1000, "min_data_in_leaf": 5, "sigmoid": sigmoid} | more
    settings_ |= {"num_class": 3} if objective.startswith("multi") else {}
    settings_ |= {"bagging_freq": 1, "bagging_fraction": 0.6} if boosting == "rf" else {}
    group = [N // 3] * 3 if "rank" in objective else None
    data = lgb.Dataset(X, LIGHTGBM[objective](signal), group=group)
    model = lgb.train(settings_, data, 4)

    def margin(rows):
        raw = model.predict(rows, raw_score=True)
        return raw / 4 if boosting == "rf" else raw  # its raw score is the sum, predict uses means

    check_model(model, X, margin, DOUBLE, model.predict)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([RandomForestRegressor, ExtraTreesRegressor, RandomForestClassifier]),
    st.integers(100, 400),
    st.sampled_from([0.02, 0.05, 0.2]),
)
@examples(8)
def test_forests_of_unlimited_depth_on_hundreds_of_sparse_columns(seed, kind, d, filled):
    rng = np.random.default_rng(seed)
    X = (rng.random((500, d)) < filled) * rng.normal(size=(500, d))
    signal = X @ rng.normal(size=d) + rng.logistic(size=500) / 2
    y = signal > 0 if kind is RandomForestClassifier else signal
    model = kind(2, random_state=seed % 1000).fit(X, y)
    e = TreeEnsemble.from_model(model)
    own = model.predict_proba if kind is RandomForestClassifier else model.predict
    size = max(1.0, np.abs(signal).max())  # outputs are of this size, sums of 2 trees
    found = interventional_tree_shap(model, X[:2], X[9:12])
    np.testing.assert_allclose(found.prediction, own(X[:2]), atol=1e-11 * size)
    path = tree_shap(model, X[:2])
    np.testing.assert_allclose(path.prediction, own(X[:2]), atol=1e-10 * size)
    references = e.encode(X[9:12])
    for i, x in enumerate(e.encode(X[:2])):
        expected = sum(
            independent_tree_shap_literal(x, references, tree) for tree in paper_trees(e)
        )
        np.testing.assert_allclose(found.values[i], expected, atol=1e-11 * size)
