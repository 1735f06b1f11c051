"""What a model's raw output means: probabilities, predictions and losses by enumeration through the
library's own predictions.

Chapter: trees/loss."""

from __future__ import annotations

import re

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb
from oracles.random_trees import brute
from sklearn import ensemble as forests
from sklearn import tree

import shaplab
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.interventional import interventional_tree_shap
from shaplab.trees.loss import tree_loss_shap, tree_output_shap

D = 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, D)).astype(np.float32).astype(float)
SIGNAL = X[:, 0] * X[:, 1] + X[:, 2] + 0.3 * RNG.normal(size=300)
TWO, THREE = (SIGNAL > 0).astype(int), np.digitize(SIGNAL, [-0.5, 0.7])
COUNT, SHARE = np.floor(np.exp(SIGNAL / 2) * 2), 1 / (1 + np.exp(-SIGNAL))
LABELS = np.stack([TWO, X[:, 3] > 0], axis=1).astype(int)
ROWS, BACKGROUND = X[:2], X[50:54]
SMALL = {"n_estimators": 5, "max_depth": 3, "random_state": 0}
LIGHT = SMALL | {"verbose": -1, "n_jobs": 1}
EXACT = 1e-10  # sums of a few hundred float64 numbers of order 1
SINGLE = 2e-5  # XGBoost predicts in float32


def histogram(kind, **more):
    return kind(max_iter=5, max_depth=3, random_state=0, **more)


def light(kind, **more):
    return getattr(lgb, kind)(**(LIGHT | more))


def boosted(kind, **more):
    return getattr(xgb, kind)(**(SMALL | {"n_jobs": 1} | more))


PROBABILITIES = {
    "tree": (tree.DecisionTreeClassifier(max_depth=3), THREE),
    "forest": (forests.RandomForestClassifier(**SMALL), TWO),
    "extra trees": (forests.ExtraTreesClassifier(**SMALL), THREE),
    "boosting": (forests.GradientBoostingClassifier(**SMALL), TWO),
    "boosting of three": (forests.GradientBoostingClassifier(**SMALL), THREE),
    "exponential": (forests.GradientBoostingClassifier(loss="exponential", **SMALL), TWO),
    "histogram": (histogram(forests.HistGradientBoostingClassifier), TWO),
    "histogram of three": (histogram(forests.HistGradientBoostingClassifier), THREE),
    "lightgbm": (light("LGBMClassifier"), TWO),
    "lightgbm sigmoid": (light("LGBMClassifier", sigmoid=2.0), TWO),
    "lightgbm rf": (
        light("LGBMClassifier", boosting_type="rf", bagging_freq=1, bagging_fraction=0.5),
        TWO,
    ),
    "lightgbm three": (light("LGBMClassifier"), THREE),
    "one against all": (light("LGBMClassifier", objective="multiclassova"), THREE),
    "one against all, sigmoid": (
        light("LGBMClassifier", objective="multiclassova", sigmoid=2.0),
        THREE,
    ),
    "xgboost": (boosted("XGBClassifier"), TWO),
    "xgboost three": (boosted("XGBClassifier"), THREE),
    "xgboost labels": (boosted("XGBClassifier"), LABELS),
}
PREDICTIONS = {
    "share": (light("LGBMRegressor", objective="cross_entropy"), SHARE, "predict"),
    "lambda": (light("LGBMRegressor", objective="cross_entropy_lambda"), SHARE, "predict"),
    "root": (light("LGBMRegressor", reg_sqrt=True), COUNT - 2, "predict"),
    "lightgbm rate": (light("LGBMRegressor", objective="poisson"), COUNT, "predict"),
    "xgboost rate": (boosted("XGBRegressor", objective="count:poisson"), COUNT, "predict"),
    "histogram rate": (
        histogram(forests.HistGradientBoostingRegressor, loss="poisson"),
        COUNT,
        "predict",
    ),
    "xgboost number": (boosted("XGBRegressor"), SIGNAL, "predict"),
    "forest number": (forests.RandomForestRegressor(**SMALL), SIGNAL, "predict"),
    "isolation": (forests.IsolationForest(n_estimators=5, random_state=0), None, "score_samples"),
}


def tolerance(model):
    return SINGLE if type(model).__module__.startswith("xgboost") else EXACT


def enumerated(predict, x, background, after=lambda mean: mean, before=lambda found: found):
    """Shapley values of ``after(mean over the background of before(predict))``, by definition."""

    def v(S):
        rows = np.where(np.isin(np.arange(D), list(S)), x, background)
        return after(np.mean(before(predict(rows)), axis=0))

    return brute(v, D)[0]


def own_probability(model):
    """predict_proba as the ensemble shows it: one column for boosters of two classes."""
    e = as_ensemble(model)
    return lambda rows: (
        model.predict_proba(rows) if e.has_outputs else model.predict_proba(rows)[:, 1]
    )


@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_are_those_of_the_library(name):
    model, y = PROBABILITIES[name]
    model.fit(X, y)
    found = tree_output_shap(model, ROWS, BACKGROUND, transform="probability")
    same = tree_output_shap(model, ROWS, BACKGROUND, transform="prediction")
    predict = own_probability(model)
    np.testing.assert_allclose(found.prediction, predict(ROWS), atol=tolerance(model))
    np.testing.assert_array_equal(found.values, same.values)
    for i, x in enumerate(ROWS):
        expected = enumerated(predict, x, BACKGROUND)
        np.testing.assert_allclose(found.values[i], expected, atol=tolerance(model))
    if not as_ensemble(model).has_outputs:
        rescaled = tree_output_shap(model, ROWS, BACKGROUND, game="rescaled_margin")
        np.testing.assert_allclose(rescaled.prediction, predict(ROWS), atol=tolerance(model))


def test_probabilities_of_several_targets_stay_as_they_are():
    model = forests.RandomForestClassifier(**SMALL).fit(X, np.stack([TWO, THREE], axis=1))
    found = tree_output_shap(model, ROWS, BACKGROUND)
    expected = np.concatenate(model.predict_proba(ROWS), axis=1)
    np.testing.assert_allclose(found.prediction, expected, atol=EXACT)
    with pytest.raises(ValueError, match=r"^loss: expected .*probabilities of several targets"):
        tree_loss_shap(model, ROWS, [0, 1], BACKGROUND, loss="cross_entropy")


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_are_those_of_the_library(name):
    model, y, method = PREDICTIONS[name]
    model.fit(X, y)
    predict = getattr(model, method)
    found = tree_output_shap(model, ROWS, BACKGROUND, transform="prediction")
    np.testing.assert_allclose(found.prediction, predict(ROWS), atol=tolerance(model))
    for i, x in enumerate(ROWS):
        expected = enumerated(predict, x, BACKGROUND)
        np.testing.assert_allclose(found.values[i], expected, atol=tolerance(model))
    rescaled = tree_output_shap(
        model, ROWS, BACKGROUND, transform="prediction", game="rescaled_margin"
    )
    np.testing.assert_allclose(rescaled.prediction, predict(ROWS), atol=tolerance(model))
    if name == "share":  # its predictions are probabilities
        same = tree_output_shap(model, ROWS, BACKGROUND)
        np.testing.assert_array_equal(same.values, found.values)
        return
    with pytest.raises(ValueError, match=r"^transform: expected a model that gives prob.*'pred"):
        tree_output_shap(model, ROWS, BACKGROUND)


def test_log_odds_as_predictions_have_a_probability():
    data = xgb.DMatrix(X, TWO)
    booster = xgb.train({"objective": "binary:logitraw", "max_depth": 3}, data, 5)
    margin = booster.predict(xgb.DMatrix(ROWS)).astype(float)
    found = tree_output_shap(booster, ROWS, BACKGROUND)
    np.testing.assert_allclose(found.prediction, 1 / (1 + np.exp(-margin)), atol=SINGLE)
    same = tree_output_shap(booster, ROWS, BACKGROUND, transform="prediction")
    np.testing.assert_allclose(same.prediction, margin, atol=SINGLE)


def test_a_hinge_has_neither():
    booster = xgb.train({"objective": "binary:hinge"}, xgb.DMatrix(X, TWO), 3)
    for transform in ("probability", "prediction"):
        with pytest.raises(ValueError, match=r"^transform: .*binary:hinge"):
            tree_output_shap(booster, ROWS, BACKGROUND, transform=transform)
    with pytest.raises(ValueError, match=r"^loss: .*binary:hinge"):
        tree_loss_shap(booster, ROWS, TWO[:2], BACKGROUND, loss="squared_error")


def test_an_objective_of_ones_own_is_named_by_the_caller():
    def logistic(margin, data):
        p = 1 / (1 + np.exp(-margin))
        return p - data.get_label(), p * (1 - p)

    booster = xgb.train({"max_depth": 3}, xgb.DMatrix(X, TWO), 5, obj=logistic)
    with pytest.raises(ValueError, match=r"TreeEnsemble.from_model"):
        tree_output_shap(booster, ROWS, BACKGROUND)
    known = TreeEnsemble.from_model(booster, link="logistic")
    found = tree_output_shap(known, ROWS, BACKGROUND)
    margin = booster.predict(xgb.DMatrix(ROWS), output_margin=True).astype(float)
    np.testing.assert_allclose(found.prediction, 1 / (1 + np.exp(-margin)), atol=SINGLE)
    tree_loss_shap(known, ROWS, TWO[:2], BACKGROUND, loss="logistic")
    with pytest.raises(ValueError, match=r"^link: expected one of"):
        TreeEnsemble.from_model(booster, link="probit")


def log_loss(p, y):
    """Of one row's probabilities, clipped as scikit-learn clips."""
    tiny = np.finfo(float).eps
    if np.ndim(p):
        return -np.log(np.clip(p[y], tiny, 1))
    p = np.clip(p, tiny, 1 - tiny)
    return -(y * np.log(p) + (1 - y) * np.log1p(-p))


CROSS = [
    name
    for name in PROBABILITIES
    if "against" not in name and name not in ("xgboost labels", "several")
]


@pytest.mark.parametrize("name", CROSS)
@pytest.mark.parametrize("game", ["loss_of_mean", "mean_of_loss"])
def test_the_log_loss_is_that_of_the_librarys_probabilities(name, game):
    model, y = PROBABILITIES[name]
    model.fit(X, y)
    predict = own_probability(model)
    found = tree_loss_shap(model, ROWS, y[:2], BACKGROUND, loss="cross_entropy", game=game)
    # XGBoost's float32 probabilities near 0 give logarithms with few digits.
    close = 20 * tolerance(model)
    for i, x in enumerate(ROWS):
        one = lambda p, i=i: log_loss(p, y[i])  # noqa: E731
        if game == "loss_of_mean":
            expected = enumerated(predict, x, BACKGROUND, after=one)
        else:
            expected = enumerated(
                predict, x, BACKGROUND, before=lambda found, one=one: [one(p) for p in found]
            )
        np.testing.assert_allclose(found.values[i], expected, atol=close)
    if as_ensemble(model).has_outputs:
        return
    own = tree_loss_shap(model, ROWS, y[:2], BACKGROUND, loss="logistic")
    both = tree_loss_shap(model, ROWS, y[:2], BACKGROUND, loss="cross_entropy")
    np.testing.assert_allclose(own.values, both.values, atol=EXACT)
    rescaled = tree_loss_shap(
        model, ROWS, y[:2], BACKGROUND, loss="cross_entropy", game="rescaled_margin"
    )
    expected = [log_loss(p, t) for p, t in zip(predict(ROWS), y[:2], strict=True)]
    np.testing.assert_allclose(rescaled.prediction, expected, atol=close)


SQUARED = PREDICTIONS | {
    name: (*PROBABILITIES[name], "")
    for name in ("xgboost", "exponential", "lightgbm sigmoid", "histogram")
}


@pytest.mark.parametrize("name", SQUARED)
@pytest.mark.parametrize("game", ["loss_of_mean", "mean_of_loss", "rescaled_margin"])
def test_the_squared_error_is_that_of_the_librarys_prediction(name, game):
    model, y, method = SQUARED[name]
    model.fit(X, y)
    target = np.array([0.5, 2.0]) if y is None else y[:2].astype(float)
    predict = getattr(model, method) if method else own_probability(model)
    found = tree_loss_shap(model, ROWS, target, BACKGROUND, loss="squared_error", game=game)
    close = 20 * tolerance(model)  # predictions up to 5 are squared
    np.testing.assert_allclose(found.prediction, (predict(ROWS) - target) ** 2, atol=close)
    for i, x in enumerate(ROWS):
        square = lambda f, i=i: (f - target[i]) ** 2  # noqa: E731
        if game == "loss_of_mean":
            expected = enumerated(predict, x, BACKGROUND, after=square)
        elif game == "mean_of_loss":
            expected = enumerated(predict, x, BACKGROUND, before=square)
        else:  # values of the raw output, rescaled by the change of the prediction's square
            expected = np.zeros(D)
            e = as_ensemble(model)
            for r in BACKGROUND:
                phi = interventional_tree_shap(model, x[None], r[None]).values[0]
                rise = e.predict(x[None]) - e.predict(r[None])
                if abs(rise[0]) > 1e-6:
                    change = square(predict(x[None])[0]) - square(predict(r[None])[0])
                    expected += phi * change / rise[0] / len(BACKGROUND)
            if abs(rise[0]) <= 1e-6:
                continue
        np.testing.assert_allclose(found.values[i], expected, atol=close)


MISFITS = [
    ("forest", "softmax_cross_entropy", "'cross_entropy'"),
    ("tree", "softmax_cross_entropy", "'cross_entropy'"),
    ("one against all", "softmax_cross_entropy", "several yes-or-no questions"),
    ("one against all", "cross_entropy", "several yes-or-no questions"),
    ("xgboost number", "logistic", "'squared_error'"),
    ("xgboost number", "cross_entropy", "outputs from"),
    ("xgboost rate", "logistic", "takes the prediction"),
    ("histogram rate", "cross_entropy", "takes the prediction"),
    ("isolation", "logistic", "'squared_error'"),
    ("xgboost rate", "cox", "takes the prediction"),
    ("xgboost", "cox", "'logistic' or 'cross_entropy'"),
]


@pytest.mark.parametrize(("name", "loss", "remedy"), MISFITS)
def test_a_loss_that_does_not_fit_the_outputs_is_refused(name, loss, remedy):
    model, y = (PROBABILITIES | PREDICTIONS)[name][:2]
    model.fit(X, y)
    target = np.array([1, 1]) if loss == "cox" else np.array([0, 1])
    with pytest.raises(ValueError, match=f"^loss: expected .*{remedy}"):
        tree_loss_shap(model, ROWS, target, BACKGROUND, loss=loss)


def test_a_forest_that_regresses_zero_and_one_has_a_log_loss():
    model = forests.RandomForestRegressor(**SMALL).fit(X, TWO)
    found = tree_loss_shap(model, ROWS, TWO[:2], BACKGROUND, loss="cross_entropy")
    for i, x in enumerate(ROWS):
        expected = enumerated(
            model.predict, x, BACKGROUND, before=lambda f, i=i: [log_loss(p, TWO[i]) for p in f]
        )
        np.testing.assert_allclose(found.values[i], expected, atol=EXACT)


def wide_models():
    """Splits on more than 14 features: nothing can be enumerated."""
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(300, 30))
    y = np.digitize(wide.sum(axis=1), [-2, 2])
    yield forests.RandomForestClassifier(3, random_state=0).fit(wide, y), wide, y
    yield forests.GradientBoostingClassifier(n_estimators=9, random_state=0).fit(wide, y), wide, y
    yield boosted("XGBClassifier", max_depth=4).fit(wide, y), wide, y
    yield light("LGBMClassifier", n_estimators=9, max_depth=4).fit(wide, y), wide, y


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("game", ["mean_of_loss", "loss_of_mean", "rescaled_margin"])
def test_the_remedy_of_too_many_features_works(number, game):
    model, wide, y = list(wide_models())[number]
    names = {"model": model, "X": wide[:1], "y": y[:1], "background": wide[:3]}
    names |= {name: getattr(shaplab, name) for name in ("permutation_shap", "loss_shap")}
    calls = [
        lambda: tree_output_shap(model, wide[:1], wide[:3], game=game),
        lambda: tree_loss_shap(model, wide[:1], y[:1], wide[:3], loss="cross_entropy", game=game),
    ]
    for call in calls[number == 0 :]:  # a forest's own probabilities need no enumeration
        with pytest.raises(ValueError, match=r"^(model|game): expected") as caught:
            call()
        text = re.search(r"(permutation_shap|loss_shap)\(.*\)", str(caught.value)).group(0)
        found = eval(text[:-1] + ", max_evaluations=5000)", names)  # what the user would type
        assert np.isfinite(found.values).all()
    if number == 0:
        np.testing.assert_allclose(calls[0]().prediction, model.predict_proba(wide[:1]), atol=EXACT)


def test_one_output_is_sent_to_rescaling_and_it_works():
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(300, 30))
    model = boosted("XGBClassifier", max_depth=5).fit(wide, wide.sum(axis=1) > 0)
    with pytest.raises(ValueError, match=r"^model: expected .*'rescaled_margin'"):
        tree_output_shap(model, wide[:1], wide[:3])
    found = tree_output_shap(model, wide[:1], wide[:3], game="rescaled_margin")
    expected = model.predict_proba(wide[:1])[:, 1]
    np.testing.assert_allclose(found.prediction, expected, atol=SINGLE)


def test_no_one_enumerates_more_than_memory_holds():
    e = TreeEnsemble.from_arrays([0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1], [0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"^max_players: expected an integer >= 0 and <= 20"):
        tree_output_shap(e, [[0.0]], [[1.0]], max_players=64)
