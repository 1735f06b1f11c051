"""Models that cannot be read are sent to something that works: each remedy is followed.

Chapter: trees/conditional_expectation."""

from __future__ import annotations

import re

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb
from sklearn import ensemble, linear_model, svm
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectFromModel
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.tree import DecisionTreeClassifier

import shaplab
from shaplab._validation import UnsupportedModelError
from shaplab.trees.path_dependent import tree_shap

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 3))
SIGNAL = X[:, 0] + X[:, 1] * X[:, 2]
LABEL = np.digitize(SIGNAL, [-0.5, 0.6])
BOTH = np.stack([LABEL, SIGNAL > 0], axis=1).astype(int)
TREE = DecisionTreeClassifier(max_depth=2, random_state=0)
FOREST = ensemble.RandomForestClassifier(3, random_state=0)
BOOSTED = ensemble.GradientBoostingClassifier(n_estimators=2, random_state=0)
NUMBER = ensemble.RandomForestRegressor(3, random_state=0)

WRAPPERS = {
    "pipeline that mixes columns": (make_pipeline(PCA(2), FOREST), LABEL),
    "pipeline of numbers that mixes columns": (make_pipeline(PCA(2), NUMBER), SIGNAL),
    "pipeline that ends in a wrapper": (
        make_pipeline(
            StandardScaler(),
            TransformedTargetRegressor(NUMBER, func=np.sinh, inverse_func=np.arcsinh),
        ),
        SIGNAL,
    ),
    "pipeline that ends in a linear model": (
        make_pipeline(StandardScaler(), linear_model.LogisticRegression()),
        LABEL,
    ),
    "a function of rows": (
        make_pipeline(FunctionTransformer(lambda rows: rows[:, :2]), NUMBER),
        SIGNAL,
    ),
    "target": (TransformedTargetRegressor(NUMBER, func=np.sinh, inverse_func=np.arcsinh), SIGNAL),
    "calibrated": (CalibratedClassifierCV(FOREST, cv=2), LABEL),
    "hard voting": (ensemble.VotingClassifier([("a", TREE), ("b", FOREST)]), LABEL),
    "hard voting of names": (
        ensemble.VotingClassifier([("a", TREE), ("b", FOREST)]),
        np.array(["low", "middle", "high"])[LABEL],
    ),
    "voting of log-odds": (
        ensemble.VotingClassifier([("a", TREE), ("b", BOOSTED)], voting="soft"),
        LABEL,
    ),
    "voting of pipelines": (
        ensemble.VotingRegressor([("a", NUMBER), ("b", make_pipeline(StandardScaler(), NUMBER))]),
        SIGNAL,
    ),
    "bagging of log-odds": (ensemble.BaggingClassifier(BOOSTED, 2), LABEL),
    "bagging of lines": (ensemble.BaggingRegressor(linear_model.LinearRegression(), 2), SIGNAL),
    "votes of forests": (ensemble.AdaBoostClassifier(FOREST, n_estimators=2), LABEL),
    "several scales": (MultiOutputClassifier(BOOSTED), BOTH),
    "a search over what cannot be read": (
        GridSearchCV(ensemble.StackingRegressor([("a", NUMBER)], cv=2), {}, cv=2),
        SIGNAL,
    ),
    "a search over a pipeline that mixes": (
        GridSearchCV(make_pipeline(PCA(2), NUMBER), {}, cv=2),
        SIGNAL,
    ),
    "stacking": (ensemble.StackingClassifier([("a", TREE), ("b", FOREST)], cv=2), LABEL),
    "boosted numbers": (ensemble.AdaBoostRegressor(n_estimators=3), SIGNAL),
    "self training": (SelfTrainingClassifier(FOREST), np.where(RNG.random(120) < 0.2, -1, LABEL)),
    "linear": (linear_model.LinearRegression(), SIGNAL),
    "logistic": (linear_model.LogisticRegression(), LABEL),
    "support vectors": (svm.SVC(), LABEL),
    "starting from a model": (
        ensemble.GradientBoostingRegressor(init=linear_model.LinearRegression(), n_estimators=3),
        SIGNAL,
    ),
    "gblinear": (xgb.XGBRegressor(booster="gblinear", n_estimators=3, n_jobs=1), SIGNAL),
    "linear leaves": (
        lgb.LGBMRegressor(linear_tree=True, n_estimators=3, verbose=-1, n_jobs=1),
        SIGNAL,
    ),
}


def refused(model, rows=X):
    with pytest.raises(UnsupportedModelError, match=r"^model: expected") as caught:
        tree_shap(model, rows)
    return str(caught.value)


def followed(model, text, depth=0, table=X):
    """Do everything that the message names, as its reader would; return how much was done."""
    names = {"model": model, "X": table[:3], "background": table[3:9], "xgboost": xgb, "numpy": np}
    names["permutation_shap"] = shaplab.permutation_shap
    done = 0
    for call in re.findall(r"additive_shap\(.*?, X, background\)", text):
        found = eval(call, {**names, "additive_shap": shaplab.additive_shap})
        assert np.isfinite(found.values).all()
        done += 1
    for call in re.findall(r"permutation_shap\(.*?, X, background\)", text):
        found = eval(call[:-1] + ", max_evaluations=3000)", names)
        assert np.isfinite(found.values).all()
        done += 1
    for call in re.findall(r"interventional_tree_shap\(.*?, X, background\)", text):
        found = eval(call, names | {"interventional_tree_shap": shaplab.interventional_tree_shap})
        assert np.isfinite(found.values).all()
        done += 1
    for inner in re.findall(r"[Pp]ass (model(?:\.\w+_)*(?:\[-1\])?)", text):
        steps = re.findall(r"model[\w.]*\[:-1\]\.transform\(X\)", text)
        rows = eval(steps[0], {**names, "X": table}) if steps else table
        done += tried(eval(inner, names), rows, depth)
    for parts in re.findall(r"(?:each|one) of (model[\w.]*\.estimators_)", text):
        done += sum(tried(part, table, depth) for part in eval(parts, names))
    return done


def tried(model, rows, depth):
    """1 if the model is explained, at once or after its own remedy."""
    assert depth < 3, "a circle"
    if isinstance(model, list):
        return sum(tried(part, rows, depth) for part in model)
    try:
        assert np.isfinite(tree_shap(model, rows[:3]).values).all()
    except UnsupportedModelError as error:
        return followed(model, str(error), depth + 1, rows)
    return 1


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.filterwarnings("ignore")
def test_the_remedy_for_a_model_that_wraps_others_works(name):
    model, y = WRAPPERS[name]
    assert followed(model.fit(X, y), refused(model)) > 0


def a_boosting_machine(target):
    glassbox = pytest.importorskip("interpret.glassbox")
    machine = glassbox.ExplainableBoostingRegressor(
        outer_bags=1, max_rounds=10, n_jobs=1, interactions=[(0, 1)]
    )
    return machine.fit(X, target)


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (linear_model.LinearRegression(), SIGNAL),
        (linear_model.LogisticRegression(), LABEL),
        (linear_model.PoissonRegressor(), np.exp(SIGNAL / 4)),
        (linear_model.SGDClassifier(random_state=0), LABEL),
        (svm.LinearSVC(), LABEL),
        (LinearDiscriminantAnalysis(), LABEL),
        (make_pipeline(StandardScaler(), linear_model.LogisticRegression()), LABEL),
        (make_pipeline(SplineTransformer(n_knots=3), linear_model.Ridge()), SIGNAL),
        (GridSearchCV(linear_model.Ridge(), {"alpha": [1.0, 2.0]}, cv=2), SIGNAL),
        (
            GridSearchCV(make_pipeline(StandardScaler(), linear_model.Ridge()), {}, cv=2),
            SIGNAL,
        ),
        (
            make_pipeline(KBinsDiscretizer(3), make_pipeline(MaxAbsScaler(), linear_model.Lasso())),
            SIGNAL,
        ),
        (linear_model.Ridge(), "machine"),
    ],
    ids=lambda part: type(part).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_sums_are_sent_to_their_own_exact_values(model, y):
    model = a_boosting_machine(SIGNAL) if isinstance(y, str) else model.fit(X, y)
    call = re.search(r"additive_shap\(model, X, background\)", refused(model))
    names = {"model": model, "X": X[:3], "background": X[3:9]}
    found = eval(call[0], {"additive_shap": shaplab.additive_shap}, names)
    ask = getattr(model, "decision_function", None) or model.predict
    answers = ask(X[:3])
    if "logarithm" in found.method:
        answers = np.log(answers)
    # Sums of a few float64 terms of size 1.
    np.testing.assert_allclose(found.prediction, answers, atol=1e-9)


@pytest.mark.parametrize("options", [{"ensemble": False}, {"cv": 3}, {"method": "isotonic"}])
@pytest.mark.parametrize("inside", [BOOSTED, ensemble.HistGradientBoostingClassifier(max_iter=5)])
def test_calibrated_boosting_is_explained_through_its_curve(inside, options):
    model = CalibratedClassifierCV(inside, **options).fit(X, LABEL > 0)
    text = refused(model)
    call = re.search(r"tree_output_shap\(.*?raw\.shape\)\)", text).group(0)
    names = {"X": X[:3], "background": X[3:9], "tree_output_shap": shaplab.tree_output_shap}
    found = [eval(call, {**names, "part": part}).values for part in model.calibrated_classifiers_]
    exact = shaplab.exact_shap(model.predict_proba, X[:3], X[3:9]).values[..., 1]
    np.testing.assert_allclose(np.mean(found, axis=0), exact, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_sums_that_were_not_fitted_are_sent_to_fit_first():
    for model in (
        linear_model.LinearRegression(),
        linear_model.LogisticRegression(),
        linear_model.SGDRegressor(),
        linear_model.GammaRegressor(),
        make_pipeline(StandardScaler(), linear_model.Ridge()),
    ):
        words = r"Call fit first, and explain it by additive_shap\(model, X, background\)"
        with pytest.raises(ValueError, match=words):
            tree_shap(model, X)
        model.fit(X, np.where(SIGNAL > 0, 2, 1))
        assert np.isfinite(shaplab.additive_shap(model, X[:3], X[3:9]).values).all()


def test_lines_of_other_libraries_are_sent_to_their_own_values():
    lines = xgb.XGBRegressor(booster="gblinear", n_estimators=3, n_jobs=1)
    for model in (lines, PLSRegression()):
        text = refused(model.fit(X, SIGNAL))
        assert "additive_shap(model, X, background)" in text
        assert followed(model, text) == 2


def test_what_only_looks_like_a_sum_is_not_sent_there():
    classifier = svm.SVC(kernel="linear").fit(X, LABEL)
    text = refused(classifier)
    assert "additive_shap(" not in text
    assert followed(classifier, text) == 1
    mixing = make_pipeline(PCA(2), linear_model.Ridge()).fit(X, SIGNAL)
    assert "additive_shap(" not in refused(mixing)  # but its last step alone is sent there
    assert followed(mixing, refused(mixing)) == 3


def test_wrappers_name_the_part_that_can_be_read():
    named = {"target": "regressor_", "bagging of log-odds": "estimators_"}
    for name, part in (*named.items(), ("self training", "estimator_")):
        model, y = WRAPPERS[name]
        assert f"model.{part}" in refused(model.fit(X, y))


def test_searches_without_a_model_ask_for_one():
    search = GridSearchCV(FOREST, {"max_depth": [2]}, cv=2, refit=False)
    assert "refit=True" in refused(search)
    assert "fit" in refused(SelectFromModel(FOREST))


def test_a_linear_booster_is_sent_to_its_predictions():
    booster = xgb.train({"booster": "gblinear"}, xgb.DMatrix(X, SIGNAL), 3)
    assert followed(booster, refused(booster)) == 1


def test_a_model_of_another_library_is_sent_to_its_predictions():
    class Other:
        def predict(self, rows):
            return rows.sum(axis=1)

    assert followed(Other(), refused(Other())) == 1


def test_a_margin_of_the_rows_gets_a_word():
    data = xgb.DMatrix(X, SIGNAL)
    data.set_base_margin(np.ones(len(X)))
    booster = xgb.train({}, data, 3)
    with pytest.raises(TypeError, match="base_margin is no part of the model"):
        tree_shap(booster, data)
    rows = xgb.DMatrix(X[:4], base_margin=np.full(4, 2.0))
    found = tree_shap(booster, X[:4])
    base = shaplab.TreeEnsemble.from_model(booster).base
    # What the message says: the margin takes the place of the base. Predictions are float32.
    np.testing.assert_allclose(found.prediction - base + 2.0, booster.predict(rows), atol=1e-5)
