"""scikit-learn reader: predict equals the library's raw output on every kind of model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from oracles.random_trees import assert_agrees
from scipy import sparse
from sklearn.datasets import make_classification
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from shaplab import UnsupportedModelError
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble

# Both sums are float64; only the order of additions and of the division by the number of trees
# differs.
# That leaves rounding: 1e-12, the default of assert_agrees.


def table(n=300, d=5, seed=0, missing=False):
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, d)), 1)
    y = X[:, 0] - 2 * (X[:, 1] > 0) + 0.1 * rng.normal(size=n)
    if missing:
        X[rng.random((n, d)) < 0.15] = np.nan
    return X, y


REGRESSORS = [
    DecisionTreeRegressor(),
    DecisionTreeRegressor(max_depth=1),
    DecisionTreeRegressor(min_samples_leaf=1000),
    DecisionTreeRegressor(criterion="absolute_error", max_depth=4),
    ExtraTreeRegressor(max_depth=6),
    RandomForestRegressor(7),
    RandomForestRegressor(5, criterion="poisson", bootstrap=False),
    ExtraTreesRegressor(5),
    GradientBoostingRegressor(n_estimators=9),
    GradientBoostingRegressor(n_estimators=5, init="zero"),
    GradientBoostingRegressor(n_estimators=5, loss="huber"),
    GradientBoostingRegressor(n_estimators=5, loss="quantile"),
    GradientBoostingRegressor(
        n_estimators=5, init=DummyRegressor(strategy="constant", constant=7.0)
    ),
    HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=3),
    HistGradientBoostingRegressor(max_iter=50, early_stopping=True, learning_rate=0.5),
    HistGradientBoostingRegressor(max_iter=5, loss="absolute_error"),
]


@pytest.mark.parametrize("model", REGRESSORS, ids=lambda model: str(model)[:60])
def test_regressors(model):
    X, y = table()
    model = model.set_params(random_state=0).fit(
        X, np.abs(y) if getattr(model, "criterion", "") == "poisson" else y
    )
    test = np.concatenate([X, X + 0.05, [[0.0, -0.0, 1e-40, -1e-40, 1e30]]])
    ensemble = as_ensemble(model)
    assert_agrees(ensemble.predict(test), model.predict(test))
    assert not ensemble.has_outputs
    assert ensemble.link == "identity"


@pytest.mark.parametrize("loss", ["poisson", "gamma"])
def test_histogram_boosting_on_the_log_scale(loss):
    X, y = table(missing=True)
    model = HistGradientBoostingRegressor(max_iter=5, loss=loss).fit(X, np.abs(y) + 0.1)
    ensemble = as_ensemble(model)
    assert_agrees(np.exp(ensemble.predict(X)), model.predict(X), 1e-10)
    assert ensemble.link == "exp"


CLASSIFIERS = [
    DecisionTreeClassifier(max_depth=4),
    ExtraTreeClassifier(),
    RandomForestClassifier(6, max_depth=5),
    RandomForestClassifier(4, class_weight="balanced", criterion="log_loss"),
    ExtraTreesClassifier(4),
    DecisionTreeClassifier(max_depth=4, ccp_alpha=0.01),
    GradientBoostingClassifier(n_estimators=4),
    HistGradientBoostingClassifier(max_iter=4, class_weight="balanced"),
    GradientBoostingClassifier(n_estimators=4, init="zero", subsample=0.5),
]


def test_monotonic_constraints():
    X, y = table()
    for model in (
        RandomForestClassifier(4, monotonic_cst=[1, 0, -1, 0, 0], random_state=0).fit(X, y > -1),
        HistGradientBoostingRegressor(max_iter=4, monotonic_cst=[1, 0, -1, 0, 0]).fit(X, y),
    ):
        predict = model.predict_proba if hasattr(model, "classes_") else model.predict
        assert_agrees(as_ensemble(model).predict(X), predict(X))


@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: str(model)[:60])
@pytest.mark.parametrize("classes", [2, 3])
def test_classifiers(model, classes):
    X, y = table()
    y = np.array(["low", "mid", "top"])[np.digitize(y, [-1.5, 0][: classes - 1])]
    model = model.set_params(random_state=0).fit(X, y)
    ensemble = as_ensemble(model)
    boosting = hasattr(model, "decision_function")
    assert_agrees(
        ensemble.predict(X), (model.decision_function if boosting else model.predict_proba)(X)
    )
    assert ensemble.has_outputs == (classes == 3 or not boosting)
    assert ensemble.output_names == (tuple(model.classes_) if ensemble.has_outputs else None)
    if boosting:
        assert ensemble.link == ("softmax" if classes == 3 else "logistic")


def test_one_class_and_exponential_loss():
    X, y = table()
    only = DecisionTreeClassifier().fit(X, np.zeros(len(X)))
    assert_agrees(as_ensemble(only).predict(X), only.predict_proba(X))
    boosted = GradientBoostingClassifier(loss="exponential", n_estimators=4).fit(X, y > -1)
    assert_agrees(as_ensemble(boosted).predict(X), boosted.decision_function(X))


def test_several_outputs():
    X, y = table()
    Y = np.stack([y, -y, y**2], axis=1)
    for model in (
        DecisionTreeRegressor(max_depth=5),
        RandomForestRegressor(5),
        ExtraTreesRegressor(3),
    ):
        model.set_params(random_state=0).fit(X, Y)
        assert_agrees(as_ensemble(model).predict(X), model.predict(X))
    labels = np.stack([y > -1, np.digitize(y, [-2, 0])], axis=1)
    forest = RandomForestClassifier(4, random_state=0).fit(X, labels)
    ensemble = as_ensemble(forest)
    assert_agrees(ensemble.predict(X), np.concatenate(forest.predict_proba(X), axis=1))
    assert ensemble.output_names[0] == "output 0: 0"


@pytest.mark.parametrize(
    "model",
    [
        DecisionTreeRegressor(max_depth=6),
        RandomForestRegressor(5),
        ExtraTreesRegressor(5),
        HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=3),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("seen", [True, False])
def test_missing_values(model, seen):
    X, y = table(missing=seen)
    model = model.set_params(random_state=0).fit(X, y)
    test, _ = table(seed=1, missing=True)
    assert_agrees(as_ensemble(model).predict(test), model.predict(test))


def test_what_the_library_refuses_is_refused():
    X, y = table()
    boosting = as_ensemble(GradientBoostingRegressor(n_estimators=2).fit(X, y))
    with pytest.raises(ValueError, match="X: expected no missing values"):
        boosting.predict(np.full((1, 5), np.nan))
    for value in (np.inf, 1e39):
        with pytest.raises(ValueError, match="infinite"):
            boosting.predict(np.full((1, 5), value))
    histogram = HistGradientBoostingRegressor(max_iter=5).fit(X, y)
    test = np.array([[np.inf, -np.inf, 1e300, 0, 0]])
    assert_agrees(as_ensemble(histogram).predict(test), histogram.predict(test))


def frame(n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "letter": pd.Categorical(rng.choice([*"abcdefgé"], n)),
            "whole": rng.integers(0, 5, n),
            "number": pd.Categorical(rng.integers(0, 40, n) * 10),
        }
    )
    y = X["letter"].isin(["a", "c", "f"]) * 2.0 + X["number"].astype(int) % 3 + X["x"]
    X.loc[::9, "letter"] = np.nan
    X.loc[::11, "number"] = np.nan
    return X, y.to_numpy()


@pytest.mark.parametrize("gaps", [True, False])
def test_histogram_boosting_with_categories_of_a_frame(gaps):
    X, y = frame()
    train = X if gaps else X.dropna()
    model = HistGradientBoostingRegressor(
        max_iter=10, categorical_features="from_dtype", min_samples_leaf=3
    )
    model.fit(train, y[train.index])
    ensemble = as_ensemble(model)
    assert (ensemble.set_start >= 0).any()
    assert_agrees(ensemble.predict(X), model.predict(X))
    unseen = X.copy()
    unseen["letter"] = (
        unseen["letter"].astype(object).where(np.arange(400) % 3 > 0, "new").astype("category")
    )
    assert_agrees(
        ensemble.predict(unseen), model.predict(unseen)
    )  # the library's rule: unseen is missing
    with pytest.raises(ValueError, match="another order"):
        ensemble.predict(X[X.columns[::-1]])


def test_histogram_boosting_with_categories_of_an_array():
    rng = np.random.default_rng(0)
    codes = rng.choice([-3.0, 0.0, 2.5, 7.0, 100.0, 255.0], 400)
    X = np.stack([rng.normal(size=400), codes, rng.integers(0, 200, 400)], axis=1)
    y = (codes > 2) + X[:, 0] + (X[:, 2] % 2)
    model = HistGradientBoostingClassifier(
        max_iter=8, categorical_features=[1, 2], min_samples_leaf=3
    )
    model.fit(X, np.digitize(y, [0.5, 1.5]))
    test = np.array(
        [
            [0.1, c, e]
            for c in (-3, 0, 2.5, 7, 100, 255, 1, 2, np.nan)
            for e in (0, 7, 199, 200, np.nan, 0.5)
        ]
    )
    assert_agrees(as_ensemble(model).predict(test), model.decision_function(test))
    words = np.array([[0.3, "a"], [0.1, "b"], [-0.4, "c"]] * 40, dtype=object)
    model = HistGradientBoostingRegressor(max_iter=8, categorical_features=[1], min_samples_leaf=3)
    model.fit(words, np.arange(120) % 3)
    test = np.array([[0.2, "a"], [0.0, "zz"], [0.1, "c"]], dtype=object)
    assert_agrees(as_ensemble(model).predict(test), model.predict(test))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_features": 0.5},
        {"max_samples": 2},
        {"max_samples": 1},
        {"bootstrap": True},
        {"contamination": 0.1},
    ],
)
def test_isolation_forest(parameters):
    X, _ = table()
    model = IsolationForest(n_estimators=9, random_state=0, **parameters).fit(X)
    ensemble = as_ensemble(model)
    assert_agrees(-(2.0 ** -ensemble.predict(X)), model.score_samples(X))
    assert ensemble.link == "isolation"


def test_numbers_that_float32_cannot_tell_apart():
    rng = np.random.default_rng(0)
    X = 2.0**24 + rng.integers(-40, 40, (400, 2)) + rng.choice([0, 0.5], (400, 2))
    y = X[:, 0] % 7
    for model in (
        RandomForestRegressor(3, random_state=0),
        DecisionTreeRegressor(),
        ExtraTreesRegressor(3),
        HistGradientBoostingRegressor(max_iter=4),
        GradientBoostingRegressor(n_estimators=4),
    ):
        model.fit(X, y)
        assert_agrees(as_ensemble(model).predict(X), model.predict(X), 1e-11)


def test_ties_at_every_threshold():
    X, y = np.random.default_rng(0).normal(size=(500, 3)), np.random.default_rng(1).normal(size=500)
    model = DecisionTreeRegressor().fit(X, y)
    threshold = model.tree_.threshold[model.tree_.children_left >= 0]
    near = np.concatenate(
        [
            np.nextafter(threshold, -np.inf),
            threshold,
            np.nextafter(threshold, np.inf),
            threshold.astype(np.float32),
            np.nextafter(threshold.astype(np.float32), np.float32(9)),
        ]
    )
    test = np.repeat(near[:, None], 3, axis=1)
    assert_agrees(as_ensemble(model).predict(test), model.predict(test))


def test_layouts_weights_and_names():
    X, y = table()
    X[np.abs(X) < 0.5] = 0
    weight = (np.arange(300) % 3 > 0).astype(float)
    forest = RandomForestRegressor(4, random_state=0, bootstrap=False).fit(
        X, y, sample_weight=weight
    )
    ours, expected = as_ensemble(forest), forest.predict(X)
    for layout in (
        np.asfortranarray(X),
        X[::-1][::-1],
        X.astype(np.float32),
        sparse.csr_matrix(X),
        X.tolist(),
    ):
        assert_agrees(ours.predict(layout), expected)
    np.testing.assert_allclose(ours.with_covers(X, weight).cover, ours.cover, rtol=1e-12)
    named = pd.DataFrame(X, columns=[*"abcde"])
    model = RandomForestRegressor(3, random_state=0).fit(named, y)
    assert_agrees(as_ensemble(model).predict(named), model.predict(named))
    assert as_ensemble(model).feature_names == tuple("abcde")
    with pytest.raises(ValueError, match="missing e; unknown z"):
        as_ensemble(model).predict(named.rename(columns={"e": "z"}))
    with pytest.raises(ValueError, match="numeric columns"):
        as_ensemble(model).predict(named.astype({"a": object}))


def test_deep_trees_with_zero_weights():
    X, y = make_classification(600, 6, flip_y=0.5, random_state=0)
    weight = np.where(np.arange(600) % 2 == 0, 1e-9, 1.0)
    model = ExtraTreesClassifier(3, random_state=0).fit(X, y, sample_weight=weight)
    ensemble = as_ensemble(model)
    assert ensemble.max_depth >= 12
    assert_agrees(ensemble.predict(X), model.predict_proba(X))


def test_refusals():
    X, y = table()
    for model in (
        RandomForestRegressor(),
        DecisionTreeRegressor(),
        HistGradientBoostingRegressor(),
        IsolationForest(),
    ):
        with pytest.raises(ValueError, match="model: expected a fitted model"):
            as_ensemble(model)
    with pytest.raises(UnsupportedModelError, match="init=LinearRegression"):
        as_ensemble(GradientBoostingRegressor(n_estimators=2, init=LinearRegression()).fit(X, y))
    with pytest.raises(UnsupportedModelError, match="got LinearRegression"):
        as_ensemble(LinearRegression().fit(X, y))
    with pytest.raises(UnsupportedModelError, match=r"got LinearRegression"):
        as_ensemble(make_pipeline(StandardScaler(), LinearRegression()).fit(X, y))
    with pytest.raises(UnsupportedModelError, match=r"got builtins\.function"):
        as_ensemble(lambda rows: rows)
    with pytest.raises(ValueError, match="iteration_range: expected None"):
        TreeEnsemble.from_model(DecisionTreeRegressor().fit(X, y), iteration_range=(0, 1))


def test_a_class_derived_from_a_known_one():
    class Mine(RandomForestRegressor):
        pass

    X, y = table()
    model = Mine(3, random_state=0).fit(X, y)
    assert_agrees(as_ensemble(model).predict(X), model.predict(X))
