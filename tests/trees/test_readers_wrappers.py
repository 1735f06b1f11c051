"""Reader of models of models: predict equals what the wrapper averages.

Chapter: trees/conditional_expectation."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import assert_agrees
from properties import examples
from scipy import sparse
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from shaplab import UnsupportedModelError, exact_shap
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.interventional import interventional_tree_shap
from shaplab.trees.loss import tree_output_shap
from shaplab.trees.path_dependent import tree_shap
from shaplab.trees.readers._wrappers import last_that_rounds_to


def table(n=200, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, d)), 1).astype(np.float32).astype(float)
    return X, X[:, 0] - 2 * (X[:, 1] > 0) + X[:, 2] * X[:, 3] + 0.1 * rng.normal(size=n)


def classes(y, n=3):
    return np.array(["low", "middle", "high"])[np.digitize(y, [-1.5, 0][: n - 1])]


def assert_same_games(model, X, output, tolerance=1e-10):
    """Raw output, interventional values by enumeration, and the sum of path-dependent ones."""
    np.testing.assert_allclose(as_ensemble(model).predict(X), output(X), atol=tolerance)
    found = interventional_tree_shap(model, X[:3], X[20:26])
    expected = exact_shap(output, X[:3], X[20:26])
    np.testing.assert_allclose(found.values, expected.values, atol=tolerance)
    found = tree_shap(model, X[:3])
    np.testing.assert_allclose(found.prediction, output(X[:3]), atol=tolerance)
    return found


class PlainTree(DecisionTreeClassifier):
    """A tree that takes no weights, so that bagging hands it the rows drawn, and those alone."""

    def fit(self, X, y):
        return super().fit(X, y)


TREE = DecisionTreeClassifier(max_depth=3, random_state=0)
NUMBER = DecisionTreeRegressor(max_depth=4, random_state=0)


@pytest.mark.parametrize("columns", [1.0, 0.5])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "part",
    [
        NUMBER,
        RandomForestRegressor(3, max_depth=3),
        GradientBoostingRegressor(n_estimators=3),
        HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=5),
        xgb.XGBRegressor(n_estimators=3, max_depth=3, n_jobs=1),
        lgb.LGBMRegressor(n_estimators=3, min_child_samples=5, verbose=-1, n_jobs=1),
        lgb.LGBMRegressor(num_leaves=5, n_estimators=3, verbose=-1, n_jobs=1, zero_as_missing=True),
    ],
    ids=lambda part: type(part).__name__,
)
def test_bagging_of_every_library(part, columns, again):
    X, y = table()
    model = BaggingRegressor(
        part, 4, max_features=columns, bootstrap_features=again, random_state=0
    ).fit(X, y)
    # XGBoost sums leaves in float32.
    tolerance = 1e-5 if isinstance(part, xgb.XGBRegressor) else 1e-10
    assert_same_games(model, X, model.predict, tolerance)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize(
    "part", [TREE, RandomForestClassifier(3, max_depth=3), PlainTree(max_depth=3)]
)
def test_bagging_of_probabilities(n, part):
    X, y = table()
    y = classes(y, n)
    y[:4] = "a few"  # bootstraps of a tenth of the rows leave it out
    model = BaggingClassifier(part, 5, max_samples=0.1, max_features=0.5, random_state=0)
    model.fit(X, y)
    if isinstance(part, PlainTree):
        assert len({len(each.classes_) for each in model.estimators_}) > 1
    found = assert_same_games(model, X, model.predict_proba)
    assert found.output_names == tuple(model.classes_)
    found = tree_output_shap(model, X[:3], X[9:15])
    expected = exact_shap(model.predict_proba, X[:3], X[9:15])
    np.testing.assert_allclose(found.values, expected.values, atol=1e-10)


def test_bagging_of_several_targets():
    X, y = table()
    model = BaggingRegressor(NUMBER, 3, max_features=0.5, random_state=0)
    assert_same_games(model.fit(X, np.stack([y, -y * X[:, 0]], axis=1)), X, model.predict)


@pytest.mark.parametrize("weights", [None, [1, 2.5, 0.5]])
def test_voting_of_numbers(weights):
    X, y = table()
    parts = [
        ("a", RandomForestRegressor(3, max_depth=3)),
        ("b", xgb.XGBRegressor(n_estimators=3, max_depth=3, n_jobs=1)),
        ("c", GradientBoostingRegressor(n_estimators=3)),
    ]
    model = VotingRegressor(parts, weights=weights).fit(X, y)
    assert_same_games(model, X, model.predict, 1e-5)  # XGBoost sums leaves in float32
    ties = np.repeat(X[:1], 40, axis=0)
    ties[:, 1] = np.linspace(-0.2, 0.2, 40)  # on thresholds, where "<" and "<=" differ
    np.testing.assert_allclose(as_ensemble(model).predict(ties), model.predict(ties), atol=1e-5)
    left_out = VotingRegressor(parts, weights=weights).set_params(b="drop").fit(X, y)
    assert_same_games(left_out, X, left_out.predict)
    with pytest.raises(ValueError, match="dense table, since the parts of the model read the zero"):
        tree_shap(model, sparse.csr_matrix(X[:3]))


@pytest.mark.parametrize("zero_as_missing", [False, True])
def test_voting_of_every_library(zero_as_missing):
    X, y = table()
    X *= np.random.default_rng(1).random(X.shape) + 0.5  # float64 that no float32 holds
    X[::7, 0] = 0.0
    light = {"n_estimators": 3, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}
    parts = [
        ("a", RandomForestRegressor(3)),
        ("b", xgb.XGBRegressor(n_estimators=3, n_jobs=1)),
        ("c", HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=3)),
        ("d", lgb.LGBMRegressor(**light, zero_as_missing=zero_as_missing)),
    ]
    model = VotingRegressor(parts).fit(X, y)
    if zero_as_missing:
        with pytest.raises(UnsupportedModelError, match="disagree on what zero means"):
            as_ensemble(model)
        return
    assert_same_games(model, X, model.predict, 1e-5)  # XGBoost sums leaves in float32
    # Rows on both sides of each threshold, as near as float64 comes, and tiny ones.
    cuts = [np.unique(part.tree_.threshold) for part in model.estimators_[0].estimators_]
    near = np.concatenate([*cuts, [0.0, -0.0, 1e-36, -1e-36, 1e-34, -1e-34]])
    sides = np.concatenate([near + step * np.abs(near) for step in (-6e-8, -3e-8, 0, 3e-8, 6e-8)])
    rows = np.repeat(np.repeat(X[:3], len(sides), axis=0)[None], 4, axis=0)
    for j in range(4):
        rows[j, :, j] = np.tile(sides, 3)
    rows = rows.reshape(-1, 4)
    np.testing.assert_allclose(as_ensemble(model).predict(rows), model.predict(rows), atol=1e-5)


def test_a_comparison_in_float32_is_one_in_float64():
    rng = np.random.default_rng(0)
    special = [
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        3.4028235e38,
        -3.4028235e38,
        np.inf,
        -np.inf,
        1.0,
        2.0**-126,
    ]
    cuts = np.concatenate([special, rng.normal(size=200), rng.normal(size=50).astype(np.float32)])
    cuts = cuts.astype(np.float32).astype(np.float64)
    moved = last_that_rounds_to(cuts)
    for cut, limit in zip(cuts, moved, strict=True):
        tried = [limit, np.nextafter(limit, np.inf), np.nextafter(limit, -np.inf), cut, 0.0]
        tried += [cut * (1 + step) for step in (-1e-7, -6e-8, -3e-8, 3e-8, 6e-8, 1e-7)]
        tried += [np.inf, -np.inf, 1e200, -1e200]
        x = np.array(tried)
        with np.errstate(over="ignore", invalid="ignore"):
            expected = x.astype(np.float32) <= np.float32(cut)
        np.testing.assert_array_equal(x <= limit, expected)


@pytest.mark.parametrize("weights", [None, [1, 2]])
def test_soft_and_hard_voting_of_classes(weights):
    X, y = table()
    y = classes(y)
    parts = [("a", TREE), ("b", ExtraTreesClassifier(4, max_depth=3))]
    model = VotingClassifier(parts, voting="soft", weights=weights).fit(X, y)
    found = assert_same_games(model, X, model.predict_proba)
    assert found.output_names == tuple(model.classes_)
    parts = [("a", TREE), ("b", ExtraTreeClassifier(max_depth=3))]
    model = VotingClassifier(parts, weights=weights).fit(X, y)

    def votes(rows):
        each = np.stack([part.predict(rows) for part in model.estimators_])
        return np.average(each[..., None] == np.arange(3), axis=0, weights=weights)

    assert_same_games(model, X, votes)
    chosen = model.classes_[as_ensemble(model).predict(X).argmax(axis=1)]
    assert (chosen == model.predict(X)).all()
    with pytest.raises(ValueError, match="transform: expected a model that gives probabilities"):
        tree_output_shap(model, X[:2], X[5:9])


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.filterwarnings("ignore")
def test_adaboost(n, depth):
    X, y = table()
    y = classes(y, n) if n > 1 else np.repeat("only", len(y))
    model = AdaBoostClassifier(DecisionTreeClassifier(max_depth=depth), n_estimators=12)
    model.fit(X, y)

    if n == 1:
        assert_agrees(as_ensemble(model).predict(X), np.zeros(len(X)))
        return
    found = assert_same_games(model, X, model.decision_function)
    assert found.output_names == (tuple(model.classes_) if n == 3 else None)
    if n == 2:
        found = tree_output_shap(model, X[:3], X[9:15])
        expected = exact_shap(lambda rows: model.predict_proba(rows)[:, 1], X[:3], X[9:15])
        np.testing.assert_allclose(found.values, expected.values, atol=1e-10)


class ForgetfulTree(DecisionTreeClassifier):
    """A tree that never meets the first class, but in the first round."""

    def fit(self, X, y, sample_weight):
        known = (y != min(y.tolist())) | (np.ptp(sample_weight) == 0)
        return super().fit(X[known], y[known], sample_weight[known])


def test_votes_of_trees_that_do_not_know_a_class():
    X, y = table()
    y = np.where(np.arange(200) < 20, "a few", classes(y))
    model = AdaBoostClassifier(ForgetfulTree(max_depth=3), n_estimators=5).fit(X, y)
    assert {len(tree.classes_) for tree in model.estimators_} == {3, 4}
    assert_same_games(model, X, model.decision_function)


def test_numbers_that_lightgbm_takes_for_zero():
    X, y = table()
    light = lgb.LGBMRegressor(n_estimators=3, min_child_samples=5, verbose=-1, n_jobs=1)
    model = VotingRegressor([("a", NUMBER), ("b", light)]).fit(X, y)
    tiny = "1.0000000180025095e-35"
    lines = []
    for line in light.fit(X, y).booster_.model_to_string().splitlines():
        if line.startswith("threshold="):
            line = "threshold=" + " ".join(
                (["0", f"-{tiny}", tiny, "-1e-36", "1e-36"] * 9)[: len(line.split())]
            )
        if not line.startswith("tree_sizes"):
            lines.append(line)
    model.estimators_[1]._Booster = lgb.Booster(model_str="\n".join(lines))
    small = float(np.float32(1e-35))
    near = np.array([0.0, 1e-36, -1e-36, small, -small, 1e-34, -1e-34, np.nextafter(small, 1)])
    rows = np.stack(np.meshgrid(near, near, near, near), axis=-1).reshape(-1, 4)
    assert_agrees(as_ensemble(model).predict(rows), model.predict(rows))


def test_one_model_for_each_target():
    X, y = table()
    both = np.stack([y, -y * X[:, 0]], axis=1)
    for part in (NUMBER, GradientBoostingRegressor(n_estimators=3)):
        model = MultiOutputRegressor(part).fit(X, both)
        assert_same_games(model, X, model.predict)
    labels = np.stack([classes(y), classes(y, 2)], axis=1)
    model = MultiOutputClassifier(RandomForestClassifier(3, max_depth=3)).fit(X, labels)
    found = assert_same_games(model, X, lambda rows: np.hstack(model.predict_proba(rows)))
    assert found.output_names[:2] == ("output 0: high", "output 0: low")
    one = MultiOutputRegressor(NUMBER).fit(X, y[:, None])
    assert_same_games(one, X, one.predict)
    binary = np.stack([y > 0, X[:, 0] > 0], axis=1).astype(int)
    model = MultiOutputClassifier(GradientBoostingClassifier(n_estimators=3)).fit(X, binary)
    found = tree_output_shap(model, X[:3], X[9:15])
    expected = exact_shap(
        lambda rows: np.stack([each[:, 1] for each in model.predict_proba(rows)], axis=1),
        X[:3],
        X[9:15],
    )
    np.testing.assert_allclose(found.values, expected.values, atol=1e-10)


def test_searches_are_their_best_model():
    X, y = table()
    frame = pd.DataFrame(X, columns=[*"abcd"])
    for search in (
        GridSearchCV(RandomForestRegressor(3), {"max_depth": [2, 3]}, cv=2),
        RandomizedSearchCV(NUMBER, {"max_depth": [2]}, n_iter=1, cv=2),
        GridSearchCV(BaggingRegressor(NUMBER, 3), {"max_features": [0.5]}, cv=2),
        GridSearchCV(make_pipeline(StandardScaler(), NUMBER), {}, cv=2),
        make_pipeline(StandardScaler(), GridSearchCV(NUMBER, {}, cv=2)),
    ):
        model = search.fit(frame, y)
        found = interventional_tree_shap(model, frame[:3], frame[20:26])
        expected = exact_shap(model.predict, frame[:3], frame[20:26])
        np.testing.assert_allclose(found.values, expected.values, atol=1e-10)
        assert found.feature_names == tuple("abcd")
        with pytest.raises(ValueError, match="X: expected the columns"):
            tree_shap(model, frame[[*"dcba"]])


def test_wrappers_inside_wrappers_and_pipelines():
    X, y = table()
    inner = VotingRegressor([("a", NUMBER), ("b", BaggingRegressor(NUMBER, 2, max_features=0.5))])
    for model in (
        BaggingRegressor(inner, 3, max_features=0.75),
        MultiOutputRegressor(inner),
        make_pipeline(StandardScaler(), inner),
    ):
        target = y[:, None] if isinstance(model, MultiOutputRegressor) else y
        assert_same_games(model.fit(X, target), X, model.predict)


def test_names_and_categories():
    X, y = table()
    frame = pd.DataFrame(X, columns=[*"abcd"])
    frame["d"] = pd.Categorical(np.array([*"uvw"])[np.digitize(X[:, 3], [-0.5, 0.5])])
    parts = [
        (
            name,
            HistGradientBoostingRegressor(
                max_iter=3, max_depth=depth, categorical_features="from_dtype"
            ),
        )
        for name, depth in (("a", 2), ("b", 4))
    ]
    model = VotingRegressor(parts).fit(frame, y)
    found = interventional_tree_shap(model, frame[:3], frame[20:26])
    expected = exact_shap(model.predict, frame[:3], frame[20:26])
    np.testing.assert_allclose(found.values, expected.values, atol=1e-10)
    mixed = VotingRegressor([*parts, ("c", lgb.LGBMRegressor(n_estimators=2, verbose=-1))])
    with pytest.raises(UnsupportedModelError, match="disagree on the categories"):
        as_ensemble(mixed.fit(frame, y))


@given(st.integers(0, 2**32 - 1))
@examples(15)
def test_drawn_wrappers(seed):
    rng = np.random.default_rng(seed)
    X, y = table(int(rng.integers(30, 120)), int(rng.integers(2, 6)) + 2, seed % 1000)
    X = X[:, rng.permutation(X.shape[1])[:5]]
    label = classes(y, int(rng.integers(2, 4)))
    depth = int(rng.integers(1, 6))
    tree = DecisionTreeClassifier(max_depth=depth, random_state=0, max_features="sqrt")
    number = DecisionTreeRegressor(max_depth=depth, random_state=0)
    models = [
        (BaggingClassifier(tree, 4, max_features=0.6, max_samples=0.5), label, "predict_proba"),
        (AdaBoostClassifier(tree, n_estimators=5), label, "decision_function"),
        (
            VotingClassifier(
                [("a", tree), ("b", RandomForestClassifier(2, max_depth=depth))],
                voting="soft",
                weights=rng.random(2),
            ),
            label,
            "predict_proba",
        ),
        (BaggingRegressor(number, 4, max_features=0.6), y, "predict"),
    ]
    for model, target, method in models:
        model.fit(X, target, sample_weight=None)
        assert_same_games(model, X, getattr(model, method))


def test_refusals():
    X, y = table()
    label = classes(y)
    for model, target, text in (
        (VotingRegressor([("a", NUMBER), ("b", LinearRegression())]), y, "LinearRegression"),
        (
            VotingRegressor([("a", HistGradientBoostingRegressor(loss="poisson", max_iter=2))]),
            y + 9,
            "whose raw output is a logarithm",
        ),
        (
            VotingClassifier(
                [("a", TREE), ("b", GradientBoostingClassifier(n_estimators=2))], voting="soft"
            ),
            label,
            "whose raw output is logits",
        ),
        (
            VotingClassifier([("a", TREE), ("b", RandomForestClassifier(2))]),
            label,
            "whose votes are no sum of trees",
        ),
        (AdaBoostClassifier(RandomForestClassifier(2), n_estimators=2), label, "whose votes are"),
        (AdaBoostRegressor(n_estimators=2), y, "AdaBoostRegressor"),
        (BaggingClassifier(LogisticRegression(), 2), label, "LogisticRegression"),
        (
            BaggingRegressor(make_pipeline(StandardScaler(), NUMBER), 2),
            y,
            "Pipeline",
        ),
        (
            MultiOutputClassifier(GradientBoostingClassifier(n_estimators=2)),
            np.stack([label, classes(y, 2)], axis=1),
            "outputs on several scales",
        ),
    ):
        with pytest.raises(UnsupportedModelError, match=text):
            as_ensemble(model.fit(X, target))
    for model in (BaggingRegressor(NUMBER), AdaBoostClassifier(), MultiOutputRegressor(NUMBER)):
        with pytest.raises(ValueError, match=r"a fitted model, got \w+ that was not fitted"):
            as_ensemble(model)
    fitted = BaggingRegressor(NUMBER, 2).fit(X, y)
    with pytest.raises(ValueError, match="iteration_range: expected None for a model of several"):
        TreeEnsemble.from_model(fitted, iteration_range=(0, 1))
