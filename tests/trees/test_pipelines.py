"""Pipelines in the columns they were given: values are those of enumeration through the pipeline's
own predict.

Chapter: trees/path_dependent."""

from __future__ import annotations

import pickle
from unittest.mock import MagicMock

import lightgbm as lgb
import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_regression
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

import shaplab
from shaplab import UnsupportedModelError, exact_shap
from shaplab._losses import get_loss
from shaplab.foundations.exact import shapley_values
from shaplab.trees.conditional_expectation import (
    gain_importance,
    path_dependent_game,
    saabas,
    split_count,
)
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.interactions import (
    interventional_tree_shap_interactions,
    tree_shap_interactions,
)
from shaplab.trees.interventional import BackgroundTrees, interventional_tree_shap
from shaplab.trees.loss import tree_loss_shap, tree_output_shap
from shaplab.trees.path_dependent import tree_shap

CLOSE = 1e-9  # sums of a few trees of this size, in float64, in another order


def table(n=160, seed=0):
    """Text, numbers with gaps, a column that is empty, one that is constant."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "city": rng.choice(["Ulm", "Köln", "Bonn", "Linz"], n),
            "age": np.round(rng.normal(40, 12, n)),
            "size": rng.choice(["s", "m", "l"], n),
            "income": rng.normal(size=n),
            "constant": np.ones(n),
            "rate": rng.normal(size=n),
        }
    )
    X.loc[rng.random(n) < 0.2, "age"] = np.nan
    X.loc[rng.random(n) < 0.1, "city"] = None
    y = X["income"] * (X["size"] == "s") + X["age"].isna() + (X["city"] == "Ulm") + X["rate"]
    return X, y.to_numpy()


def tree(**more):
    return RandomForestRegressor(4, max_depth=5, random_state=0, **more)


def columns_of_all_kinds(**one_hot):
    words = make_pipeline(
        SimpleImputer(strategy="most_frequent"),
        OneHotEncoder(handle_unknown="ignore", **one_hot),
    )
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    order = OrdinalEncoder(categories=[["s", "m", "l"]])
    return make_column_transformer(
        (numbers, ["age", "constant"]),
        (words, ["city"]),
        (order, ["size"]),
        remainder="passthrough",
    )


def assert_exact(model, X, background, output=None):
    """Interventional values are enumeration's through ``output``, path-dependent ones those of
    Algorithm 1's game, both in the columns of ``X``."""
    output = output or model.predict
    found = interventional_tree_shap(model, X, background)
    expected = exact_shap(output, X, background)
    np.testing.assert_allclose(found.values, expected.values, atol=CLOSE)
    np.testing.assert_allclose(found.base_values, expected.base_values, atol=CLOSE)
    found = tree_shap(model, X)
    expected = shapley_values(path_dependent_game(model, X), X.shape[1])
    np.testing.assert_allclose(found.values, np.moveaxis(expected, 0, 1), atol=CLOSE)
    np.testing.assert_allclose(found.prediction, output(X), atol=CLOSE)
    return found


PIPELINES = {
    "all kinds": lambda: columns_of_all_kinds(),
    "rare cities together": lambda: columns_of_all_kinds(max_categories=3),
    "a dropped category": lambda: columns_of_all_kinds(drop="first", sparse_output=False),
    "one of two dropped": lambda: make_column_transformer(
        (OneHotEncoder(drop="if_binary"), ["size", "city"]), (SimpleImputer(), ["age"])
    ),
    "a column seen twice": lambda: make_column_transformer(
        (SimpleImputer(), ["age", "rate"]),
        (KBinsDiscretizer(3, strategy="uniform"), ["rate", "income"]),
        (SplineTransformer(n_knots=3), ["income"]),
    ),
    "columns dropped, and by selector": lambda: make_column_transformer(
        ("drop", ["rate"]),
        (SimpleImputer(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(), ["city"]),
    ),
    "numbers and slices": lambda: ColumnTransformer(
        [
            ("a", SimpleImputer(), slice(3, 6)),
            ("b", OrdinalEncoder(), [2]),
            ("c", "passthrough", [1]),
        ]
    ),
    "a mask": lambda: ColumnTransformer(
        [("a", RobustScaler(), [False, True, False, True, True, True]), ("b", OneHotEncoder(), [2])]
    ),
    "text counted": lambda: make_column_transformer(
        (CountVectorizer(analyzer="char"), "size"), (PCA(1), ["rate"]), remainder="drop"
    ),
    "whole blocks of one column": lambda: make_pipeline(
        make_column_transformer((SimpleImputer(), ["income"])), PolynomialFeatures(3), PCA(2)
    ),
    "nested": lambda: make_pipeline(
        columns_of_all_kinds(sparse_output=False),
        "passthrough",
        make_union(MaxAbsScaler(), make_pipeline(MinMaxScaler(), VarianceThreshold())),
        make_pipeline(QuantileTransformer(n_quantiles=20), PowerTransformer()),
        SelectKBest(f_regression, k=9),
    ),
    "of union parts": lambda: make_pipeline(
        make_column_transformer((FunctionTransformer(), ["age", "income", "rate"])),
        FeatureUnion(
            [
                ("a", SimpleImputer()),
                ("b", MissingIndicator()),
                ("c", "passthrough"),
                ("d", "drop"),
            ]
        ),
    ),
    "targets of categories": lambda: make_column_transformer(
        (TargetEncoder(random_state=0), ["size", "city"]), (SimpleImputer(), ["age"])
    ),
    "a function": lambda: make_pipeline(
        make_column_transformer((SimpleImputer(), ["age", "income", "rate", "constant"])),
        FunctionTransformer(np.tanh, feature_names_out="one-to-one"),
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.filterwarnings("ignore")
def test_values_are_those_of_the_original_columns(name):
    X, y = table()
    model = make_pipeline(PIPELINES[name](), tree()).fit(X, y)
    found = assert_exact(model, X[:4], X[60:66])
    assert found.feature_names == tuple(X.columns)
    assert found.data.shape == (4, 6)
    assert found.data[0, 0] == X.iloc[0, 0]
    assert (found.values[:, 4] == 0).all()  # the constant column
    again = pickle.loads(pickle.dumps(as_ensemble(model)))
    np.testing.assert_array_equal(tree_shap(again, X[:4]).values, found.values)


def gaps_kept(*more):
    return make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["city", "size"]),
        *more,
        remainder="passthrough",
        sparse_threshold=0,
    )


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(
    "model",
    [
        xgb.XGBRegressor(n_estimators=5, max_depth=4, n_jobs=1),
        lgb.LGBMRegressor(n_estimators=5, num_leaves=8, min_child_samples=3, verbose=-1, n_jobs=1),
        HistGradientBoostingRegressor(max_iter=5, max_leaf_nodes=8),
        GradientBoostingRegressor(n_estimators=5),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore")
def test_every_library_at_the_end(model, dense):
    X, y = table()
    if isinstance(model, GradientBoostingRegressor):
        before = columns_of_all_kinds(sparse_output=not dense)
    elif dense or isinstance(model, HistGradientBoostingRegressor):
        before = gaps_kept()
    else:
        before = columns_of_all_kinds()
        before.sparse_threshold = 1.0  # XGBoost takes zeros of sparse tables for missing
    pipeline = make_pipeline(before, model).fit(X, y)
    # XGBoost sums in float32, so its own output is compared elsewhere; here by our own reading of
    # the part after the steps, which is exact.
    inner = TreeEnsemble.from_model(pipeline[-1])

    def output(rows):
        return inner.predict(pipeline[:-1].transform(rows))

    np.testing.assert_allclose(output(X), pipeline.predict(X), atol=1e-5)
    assert_exact(pipeline, X[:3], X[40:46], output)


def test_categories_and_names_of_frames_that_steps_make():
    X, y = table()
    before = gaps_kept().set_output(transform="pandas")
    model = make_pipeline(before, lgb.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1))
    assert_exact(model.fit(X, y), X[:3], X[40:46])


def test_interactions_losses_and_probabilities_of_classes():
    X, y = table()
    label = np.digitize(y, [0, 1.2])
    model = make_pipeline(columns_of_all_kinds(), RandomForestClassifier(4, random_state=0))
    model.fit(X, label)
    rows, background = X[:3], X[60:65]
    assert_exact(model, rows, background, model.predict_proba)
    assert tree_shap(model, rows).output_names == ("0", "1", "2")
    for both, single in (
        (tree_shap_interactions(model, rows), tree_shap(model, rows)),
        (
            interventional_tree_shap_interactions(model, rows, background),
            interventional_tree_shap(model, rows, background),
        ),
    ):
        assert both.values.shape == (3, 6, 6, 3)
        np.testing.assert_allclose(both.values.sum(axis=2), single.values, atol=CLOSE)
    pairs = interventional_tree_shap_interactions(model, rows, background)
    some = interventional_tree_shap_interactions(model, rows, background, order=2)
    np.testing.assert_allclose(
        some["city", "income"], 2 * pairs.values[:, 0, 3], atol=CLOSE
    )  # half of it stands on each side of the diagonal
    found = tree_output_shap(model, rows, background)
    expected = exact_shap(model.predict_proba, rows, background)
    np.testing.assert_allclose(found.values, expected.values, atol=CLOSE)
    found = tree_loss_shap(model, rows, label[:3], background, loss="cross_entropy")
    for i in range(3):

        def loss(part, i=i):  # keeps probabilities away from 0 as the library does
            return get_loss("cross_entropy").value(
                model.predict_proba(part), label[[i] * len(part)]
            )

        expected = exact_shap(loss, rows[i : i + 1], background)
        np.testing.assert_allclose(found.values[i], expected.values[0], atol=CLOSE)


def test_groups_name_original_columns():
    X, y = table()
    model = make_pipeline(columns_of_all_kinds(), tree()).fit(X, y)
    groups = {"person": ["age", "income"], "place": ["city"]}
    rows, background = X[:3], X[60:66]
    found = interventional_tree_shap(model, rows, background, groups=groups)
    expected = exact_shap(model.predict, rows, background, groups=groups)
    np.testing.assert_allclose(found.values, expected.values, atol=CLOSE)
    assert found.feature_names == expected.feature_names
    found = tree_shap(model, rows, groups=groups)
    assert found.feature_names == ("person", "place", "size", "constant", "rate")
    np.testing.assert_allclose(found.prediction, model.predict(rows), atol=CLOSE)
    with pytest.raises(ValueError, match="groups"):
        tree_shap(model, rows, groups={"made": ["city_Ulm"]})


def test_prepared_backgrounds_names_and_threads():
    X, y = table()
    model = make_pipeline(columns_of_all_kinds(), tree()).fit(X, y)
    whole = interventional_tree_shap(model, X[:9], X[60:90])
    prepared = BackgroundTrees(model, X[60:90])
    for i in range(3):
        one = prepared(X[i : i + 1])
        np.testing.assert_allclose(one.values[0], whole.values[i], atol=1e-12)
        assert one.feature_names == tuple(X.columns)
    again = interventional_tree_shap(model, X[:9], X[60:90], batch_size=4, n_jobs=2)
    # Another batch size may cut the trees into other clusters: last digits.
    np.testing.assert_allclose(again.values, whole.values, atol=1e-12)
    named = tree_shap(model, X[:2], feature_names=[*"abcdef"])
    assert named.feature_names == tuple("abcdef")
    with pytest.raises(ValueError, match="feature_names: expected 6 names"):
        tree_shap(model, X[:2], feature_names=["a"])


def test_saabas_and_importances_in_columns():
    X, y = table()
    model = make_pipeline(columns_of_all_kinds(), tree()).fit(X, y)
    found = saabas(model, X[:5])
    assert found.values.shape == (5, 6)
    np.testing.assert_allclose(found.prediction, model.predict(X[:5]), atol=CLOSE)
    inner = as_ensemble(model[-1])
    names = model[0].get_feature_names_out()
    city = [name.startswith("pipeline-2") for name in names]
    for importance in (split_count, gain_importance):
        whole = importance(model)
        assert whole.shape == (6,)
        assert np.isclose(whole[0], importance(inner)[city].sum())
        assert np.isclose(whole.sum(), importance(inner).sum())


def test_covers_of_other_rows():
    X, y = table()
    model = make_pipeline(columns_of_all_kinds(), tree()).fit(X, y)
    recounted = as_ensemble(model).with_covers(X[:80])
    found = tree_shap(recounted, X[:3])
    assert np.isclose(found.base_values[0], model.predict(X[:80]).mean())


@given(st.integers(0, 2**32 - 1))
@examples(15)
def test_drawn_pipelines(seed):
    rng = np.random.default_rng(seed)
    X, y = table(int(rng.integers(60, 160)), seed % 1000)
    X = X[list(rng.permutation(X.columns))]
    numbers = [name for name in X if X[name].dtype == float]
    parts = [
        (
            "words",
            make_pipeline(
                SimpleImputer(strategy="constant", fill_value="?"),
                OneHotEncoder(
                    handle_unknown="ignore",
                    sparse_output=False,
                    max_categories=rng.choice([None, 3]),
                ),
            ),
            ["city", "size"] if rng.random() < 0.5 else ["size"],
        ),
        (
            "numbers",
            make_pipeline(
                SimpleImputer(add_indicator=bool(rng.integers(2))),
                rng.choice([StandardScaler(), MinMaxScaler(), "passthrough"]),
            ),
            [str(name) for name in rng.permutation(numbers)[: rng.integers(1, 5)]],
        ),
    ]
    rng.shuffle(parts)
    model = make_pipeline(ColumnTransformer(parts), tree(max_features=0.5)).fit(X, y)
    test = table(10, seed % 1000 + 1)[0][list(X.columns)]
    assert_exact(model, test[:2], test[4:9])


# What is refused, and whether what the message says works.


class Sum(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X):
        return np.asarray(X, float).sum(axis=1, keepdims=True)


NUMBERS = ["income", "constant", "rate"]


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (PCA(2), "PCA"),
        (PolynomialFeatures(2), "PolynomialFeatures"),
        (KNNImputer(), "KNNImputer"),
        (Normalizer(), "Normalizer"),
        (Sum(), "Sum"),
        (FunctionTransformer(np.cumsum, kw_args={"axis": 1}), "FunctionTransformer(cumsum)"),
        (
            FunctionTransformer(np.cumsum, kw_args={"axis": 1}, feature_names_out="one-to-one"),
            "FunctionTransformer(cumsum), which says so and mixes",
        ),
        (
            FunctionTransformer(lambda X: X - X.mean(axis=0), feature_names_out="one-to-one"),
            "FunctionTransformer(<lambda>), which says so and mixes",
        ),
    ],
)
def test_steps_that_mix_columns_are_refused_by_name(step, named):
    X, y = table()
    for before in (step, make_column_transformer((step, NUMBERS))):
        model = make_pipeline(before, tree()).fit(X[NUMBERS], y)
        with pytest.raises(UnsupportedModelError) as caught:
            tree_shap(model, X[NUMBERS][:8])
        assert named in str(caught.value)
        assert "ass model[-1] as model and model[:-1].transform(X) as rows" in str(caught.value)
        rows = model[:-1].transform(X[NUMBERS][:20])
        found = tree_shap(model[-1], rows)
        np.testing.assert_allclose(found.prediction, model[-1].predict(rows), atol=CLOSE)
        if "lambda" in named:
            continue  # its output for a row hangs on the other rows: no function of a row
        sampled = shaplab.permutation_shap(
            model.predict, X[NUMBERS][:2], X[NUMBERS][9:15], max_evaluations=2000
        )
        assert np.isfinite(sampled.values).all()


class Declares(OneToOneFeatureMixin, Sum):
    """Says that it works column by column, which is true of half of it."""

    def __init__(self, honest=True):
        self.honest = honest

    def transform(self, X):
        numbers = np.asarray(X, float)
        return numbers * 2 if self.honest else np.cumsum(numbers, axis=1)


def test_a_step_of_ones_own_that_says_so_is_tried():
    X, y = table()
    rows = X[NUMBERS]
    assert_exact(make_pipeline(Declares(), tree()).fit(rows, y), rows[:3], rows[40:46])
    model = make_pipeline(Declares(honest=False), tree()).fit(rows, y)
    with pytest.raises(UnsupportedModelError, match="Declares, which says so and mixes columns"):
        tree_shap(model, rows[:5])
    # A function of one column may still look at other rows.
    for function in (lambda part: part - part.mean(axis=0), lambda part: part.rank()):
        step = FunctionTransformer(function)
        model = make_pipeline(make_column_transformer((step, ["income"])), tree()).fit(rows, y)
        with pytest.raises(UnsupportedModelError, match="FunctionTransformer, which says so"):
            tree_shap(model, rows[:5])


def test_tables_of_other_libraries():
    X, y = table()
    frame = X.drop(columns="city")
    steps = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["size"]),
        (SimpleImputer(), ["age"]),
        remainder="passthrough",
    )
    model = make_pipeline(steps, tree()).fit(frame, y)
    expected = tree_shap(model, frame[:4])
    cells = {name: frame[name][:4].to_list() for name in frame}
    for rows in (polars.DataFrame(cells), pyarrow.table(cells)):
        found = tree_shap(model, rows)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-12)
        assert found.feature_names == tuple(frame.columns)
    cells = frame[["size", "income"]].to_numpy(object)
    steps = make_column_transformer((OneHotEncoder(), [0]), remainder="passthrough")
    model = make_pipeline(steps, tree()).fit(cells, y)
    found = tree_shap(model, cells[:3])
    np.testing.assert_allclose(found.prediction, model.predict(cells[:3]), atol=CLOSE)
    assert found.data.tolist() == cells[:3].tolist()


def test_a_step_of_ones_own_on_one_column_is_taken():
    X, y = table()

    class Squares(Sum):
        def transform(self, X):
            return np.concatenate([np.asarray(X, float) ** 2, X], axis=1)

    model = make_pipeline(
        make_column_transformer((Squares(), ["income"]), (Squares(), ["rate"])), tree()
    ).fit(X, y)
    assert_exact(model, X[:3], X[40:46])


def test_rows_that_do_not_fit():
    X, y = table()
    model = make_pipeline(columns_of_all_kinds(), tree()).fit(X, y)
    with pytest.raises(ValueError, match="X: expected the columns the pipeline was fitted on"):
        tree_shap(model, X[X.columns[::-1]])
    with pytest.raises(ValueError, match="missing rate"):
        tree_shap(model, X.drop(columns="rate"))
    with pytest.raises(ValueError, match="X: expected a table of 6 columns, got shape"):
        tree_shap(model, np.zeros((3, 5)))
    with pytest.raises(ValueError, match="rows that the pipeline's ColumnTransformer takes"):
        tree_shap(model, X.assign(size="unknown")[:3])
    with pytest.raises(ValueError, match="background: expected"):
        interventional_tree_shap(model, X[:3], X.drop(columns="rate"))
    unfitted = make_pipeline(StandardScaler(), tree())
    with pytest.raises(ValueError, match="expected a fitted model, got RandomForestRegressor"):
        tree_shap(unfitted, X)


def test_arrays_and_a_pipeline_of_a_model_alone():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3))
    y = X[:, 0] * X[:, 1]
    for steps in ((tree(),), (StandardScaler(), tree()), ("passthrough", None, tree())):
        named = [(f"step {i}", step) for i, step in enumerate(steps)]
        model = Pipeline(named).fit(X, y)
        found = assert_exact(model, X[:3], X[40:50])
        assert found.feature_names is None
        np.testing.assert_array_equal(found.data, X[:3])


def test_steps_of_pipelines_and_searches_at_the_end_of_others():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3))
    y = X[:, 0] * X[:, 1] + X[:, 2]
    turned = make_column_transformer((MinMaxScaler(), [2]), (StandardScaler(), [0, 1]))
    inner = make_pipeline(turned, tree())
    for last in (inner, GridSearchCV(inner, {}, cv=2), make_pipeline("passthrough", inner)):
        for first in (StandardScaler(), "passthrough", SelectKBest(f_regression, k=3)):
            model = make_pipeline(first, last).fit(X, y)
            assert_exact(model, X[:3], X[40:50])


class OddScaler(StandardScaler):
    def transform(self, X):
        return np.sort(super().transform(X), axis=1)


class OneHotEncoderOfAnotherHouse(BaseEstimator, TransformerMixin):
    def fit(self, X, y=None):
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X):
        return np.asarray(X, float)


def test_known_names_of_another_house_are_not_trusted():
    X, y = table()
    model = make_pipeline(OddScaler(), tree()).fit(X[NUMBERS], y)
    with pytest.raises(UnsupportedModelError, match="OddScaler, which says so and mixes"):
        tree_shap(model, X[NUMBERS][:8])
    odd = type("OneHotEncoder", (OneHotEncoderOfAnotherHouse,), {})
    model = make_pipeline(odd(), tree()).fit(X[NUMBERS], y)
    with pytest.raises(UnsupportedModelError, match="got OneHotEncoder"):
        tree_shap(model, X[NUMBERS][:8])


def test_a_declared_step_takes_arrow_tables():
    X, y = table()
    model = make_pipeline(Declares(), tree()).fit(X[NUMBERS], y)
    rows = pyarrow.table({name: X[name][:4].to_list() for name in NUMBERS})
    found = tree_shap(model, rows)
    np.testing.assert_allclose(found.values, tree_shap(model, X[NUMBERS][:4]).values, atol=1e-12)


def test_a_stack_takes_a_pipeline_as_a_stage():
    pytest.importorskip("torch")  # which stacks are made of, in general
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3))
    model = make_pipeline(StandardScaler(), tree()).fit(X, X[:, 0] * X[:, 1])
    found = shaplab.stack_shap([model], X[:2], X[40:44])
    expected = interventional_tree_shap(model, X[:2], X[40:44])
    np.testing.assert_allclose(found.values.squeeze(), expected.values, atol=CLOSE)


def test_a_model_inside_itself_ends():
    class Itself:
        @property
        def best_estimator_(self):
            return self

        def predict(self, rows):
            return np.zeros(len(rows))

    rows = np.zeros((2, 3))
    for model in (Itself(), MagicMock()):
        for call in (
            lambda m=model: tree_shap(m, rows),
            lambda m=model: shaplab.additive_shap(m, rows, rows),
        ):
            with pytest.raises(UnsupportedModelError, match="model: expected at most 100"):
                call()
