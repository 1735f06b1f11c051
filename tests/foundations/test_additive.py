"""Additive models: closed form, literal twin, and enumeration of the model's own answers."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import CCA, PLSCanonical, PLSRegression
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    HuberRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDRegressor,
)
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC

from shaplab import (
    AdditiveModel,
    UnsupportedModelError,
    additive_shap,
    exact_shap,
    interventional_tree_shap,  # noqa: F401  named in errors
    permutation_shap,  # noqa: F401  named in errors
)
from shaplab.foundations import additive
from shaplab.foundations.additive import additive_shap_literal

# Both sides sum a few hundred float64 terms of size 1 to 100.
EXACT = 1e-10

rng = np.random.default_rng(0)
X = rng.normal(size=(150, 4))
y = X @ [1.0, -2.0, 0.5, 0.0] + np.sin(2 * X[:, 0])
CLASSES = np.array(["low", "mid", "top"])[np.digitize(y, [-1, 1])]
FRAME = pd.DataFrame(X, columns=list("abcd")).assign(
    kind=rng.choice(["x", "y", "z"], size=150), day=rng.choice(["mo", "tu"], size=150)
)


def answers(model):
    return getattr(model, "decision_function", None) or model.predict


def check_against_enumeration(model, rows, background, weights=None):
    found = additive_shap(model, rows, background, weights=weights)
    exact = exact_shap(answers(model), rows, background, weights=weights)
    scale = 1.0 + np.abs(exact.values).max()
    assert found.values.shape == exact.values.shape
    assert np.abs(found.values - exact.values).max() < EXACT * scale
    assert np.abs(found.base_values - exact.base_values).max() < EXACT * scale
    assert found.std is None
    assert found.output_names == exact.output_names
    return found


def random_model(draw, n_features, n_outputs):
    """Sums of products and waves, one function even in the order of its pair."""
    shape = () if n_outputs is None else (n_outputs,)

    def wave(weight):
        return lambda *v: (
            np.sin(sum(v))[(..., *[None] * len(shape))] * weight + v[0][(..., *[None] * len(shape))]
        )

    keys = [int(j) for j in draw.choice(n_features, size=2)]
    keys += [tuple(int(j) for j in draw.permutation(n_features)[:2]) for _ in range(4)]
    return AdditiveModel(
        {key: wave(draw.normal(size=shape)) for key in keys}, draw.normal(size=shape)
    )


@examples(40)
@given(st.integers(2, 5), st.integers(0, 2**31), st.sampled_from([None, 1, 3]), st.booleans())
def test_closed_form_equals_the_literal_twin_and_enumeration(n_features, seed, n_outputs, tied):
    draw = np.random.default_rng(seed)
    rows, background = draw.normal(size=(4, n_features)), draw.normal(size=(5, n_features))
    if tied:
        rows, background = rows.round(), background.round()
        rows[:, 0] = background[:, 0] = 1.0
    model = random_model(draw, n_features, n_outputs)
    found = additive_shap(model, rows, background)
    values, base = additive_shap_literal(model, rows, background)
    assert np.allclose(found.values, values, atol=EXACT, rtol=0)
    assert np.allclose(found.base_values, base, atol=EXACT, rtol=0)
    exact = exact_shap(model, rows, background)
    assert np.allclose(found.values, exact.values, atol=EXACT, rtol=0)
    assert np.abs(found.gap(model(rows))).max() < EXACT


def test_batches_of_a_pair_change_nothing(monkeypatch):
    model = AdditiveModel({(1, 0): lambda a, b: a * np.exp(b)})
    whole = additive_shap(model, X[:7], X[:11]).values
    monkeypatch.setattr(additive, "_PAIRS_AT_ONCE", 23)
    assert np.allclose(additive_shap(model, X[:7], X[:11]).values, whole, atol=1e-14, rtol=0)


def test_weights_count_as_repeated_rows():
    model = AdditiveModel({0: np.cos, (1, 2): np.multiply})
    counts = np.array([3, 0, 1, 2])
    weighted = additive_shap(model, X[:5], X[5:9], weights=counts)
    repeated = additive_shap(model, X[:5], X[5:9].repeat(counts, axis=0))
    assert np.allclose(weighted.values, repeated.values, atol=EXACT, rtol=0)
    assert np.allclose(weighted.base_values, repeated.base_values, atol=EXACT, rtol=0)


def test_groups_are_sums_and_that_is_exact():
    model = AdditiveModel({0: np.cos, (1, 2): np.multiply, (0, 3): np.multiply})
    groups = {"ends": [0, 3], "middle": [1]}
    found = additive_shap(model, X[:5], X[5:9], groups=groups)
    exact = exact_shap(model, X[:5], X[5:9], groups=groups)
    assert found.feature_names == exact.feature_names == ("ends", "middle", "x2")
    assert np.allclose(found.values, exact.values, atol=EXACT, rtol=0)


def test_columns_by_name_with_text_and_missing_cells():
    table = FRAME[["a", "kind", "day"]].head(12).copy()
    table.loc[[1, 4], "a"] = np.nan
    table.loc[[2, 4], "kind"] = None

    def worth(kind, a):
        known = np.array([{"x": 1.0, "y": 2.0}.get(cell, -1.0) for cell in kind])
        return known * np.nan_to_num(a, nan=7.0)

    model = AdditiveModel({"a": np.isnan, ("kind", "a"): worth})
    found = additive_shap(model, table.head(6), table.tail(6))
    exact = exact_shap(lambda t: model(t), table.head(6), table.tail(6))
    assert np.allclose(found.values, exact.values, atol=EXACT, rtol=0)
    assert found.feature_names == ("a", "kind", "day")
    assert (found[:, "day"].values == 0).all()
    assert found.index.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_other_libraries_tables(library):
    other = pytest.importorskip(library)
    table = FRAME[["a", "kind"]].head(10)
    model = AdditiveModel({("kind", "a"): lambda kind, a: (kind == "x") * a, "a": np.square})
    wanted = additive_shap(model, table.head(5), table.tail(5))
    columns = {name: table[name].tolist() for name in table}
    tables = other.DataFrame(columns) if library == "polars" else other.table(columns)
    found = additive_shap(model, tables.slice(0, 5), tables.slice(5, 5), weights=[1, 1, 1, 1, 1])
    assert np.array_equal(found.values, wanted.values)
    assert found.feature_names == ("a", "kind")


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        LinearRegression(fit_intercept=False),
        Ridge(),
        ElasticNet(alpha=0.01),
        HuberRegressor(),
        SGDRegressor(random_state=0),
        make_pipeline(StandardScaler(), Ridge()),
        make_pipeline(MinMaxScaler(), SplineTransformer(n_knots=4), Ridge()),
        make_pipeline("passthrough", SimpleImputer(), KBinsDiscretizer(4), LinearRegression()),
        make_pipeline(KBinsDiscretizer(4, encode="ordinal"), FunctionTransformer(), Ridge()),
        make_pipeline(SimpleImputer(add_indicator=True), Ridge()),
        GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 10.0]}, cv=3),
    ],
    ids=lambda m: str(m)[:30].replace("\n", ""),
)
def test_regressors_of_scikit_learn(model):
    check_against_enumeration(model.fit(X, y), X[:6], X[20:50], weights=np.arange(30))


@pytest.mark.parametrize("model", [LinearRegression(), Ridge()])
@pytest.mark.parametrize("columns", [1, 2])
def test_regressors_of_several_outputs(model, columns):
    several = np.stack([y, X[:, 0] - y], axis=1)[:, :columns]
    found = check_against_enumeration(model.fit(X, several), X[:6], X[20:50])
    assert found.values.shape == (6, 4, columns) or found.values.shape == (6, 4)


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("model", [PLSRegression(2), CCA(1), PLSCanonical(1)])
def test_partial_least_squares(model, columns):
    several = np.stack([y, X[:, 0] - y, X[:, 1] + y], axis=1)[:, :columns]
    check_against_enumeration(model.fit(X + 5.0, several), X[:6], X[20:50])
    piped = make_pipeline(StandardScaler(), PLSRegression(1)).fit(X, several)
    check_against_enumeration(piped, X[:6], X[20:50])


def test_lines_fitted_on_tables_take_tables_and_warn_of_nothing():
    xgb = pytest.importorskip("xgboost")
    frame = pd.DataFrame(X, columns=list("abcd"))
    for model in (PLSRegression(2), xgb.XGBRegressor(booster="gblinear", n_jobs=1)):
        names = model.fit(frame, y).feature_names_in_.tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = additive_shap(model, frame[:6], frame[20:50])
        assert list(found.feature_names) == names == list("abcd")
        assert model.feature_names_in_.tolist() == names
        np.testing.assert_allclose(found.prediction, model.predict(frame[:6]), atol=1e-5)


LINES = {
    "reg:squarederror": lambda: y,
    "binary:logistic": lambda: (y > 0) * 1,
    "multi:softprob": lambda: np.digitize(y, [-0.5, 0.5]),
    "count:poisson": lambda: np.abs(y),
    "several": lambda: np.stack([y, -X[:, 0]], axis=1),
}


@pytest.mark.parametrize("missing", [np.nan, 0.0, -1.0])
@pytest.mark.parametrize("objective", LINES)
def test_lines_of_xgboost_on_their_margin(objective, missing):
    """XGBoost answers in float32."""
    xgb = pytest.importorskip("xgboost")
    target = LINES[objective]()
    kind = xgb.XGBClassifier if objective[:2] in ("bi", "mu") else xgb.XGBRegressor
    named = {} if objective == "several" else {"objective": objective}
    rows = np.round(X, 1)
    rows[::5, 1] = missing
    model = kind(booster="gblinear", n_estimators=9, n_jobs=1, missing=missing, **named)
    model.fit(rows, target)
    weights = np.arange(30)
    found = additive_shap(model, rows[:6], rows[20:50], weights=weights)

    def margin(table):
        return model.predict(table, output_margin=True).astype(float)

    exact = exact_shap(margin, rows[:6], rows[20:50], weights=weights)
    scale = 1.0 + np.abs(exact.values).max()
    np.testing.assert_allclose(found.values, exact.values, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(found.base_values, exact.base_values, rtol=0, atol=1e-5 * scale)
    assert "margin" in found.method


@pytest.mark.parametrize("labels", [y > 0, CLASSES], ids=["two", "three"])
@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        RidgeClassifier(),
        LinearSVC(),
        LinearDiscriminantAnalysis(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_classifiers_are_explained_on_their_decision_function(model, labels):
    found = check_against_enumeration(model.fit(X, labels), X[:6], X[20:50])
    assert found.output_names == (None if labels is not CLASSES else ("low", "mid", "top"))


def test_a_sparse_linear_model_and_sparse_rows():
    from scipy import sparse

    model = LogisticRegression().fit(sparse.csr_array(X), CLASSES).sparsify()
    found = additive_shap(model, sparse.coo_array(X[:6]), sparse.csc_array(X[20:50]))
    exact = exact_shap(model.decision_function, X[:6], X[20:50])
    assert np.allclose(found.values, exact.values, atol=EXACT, rtol=0)
    assert found.data is None


def mixed_columns():
    numbers = make_pipeline(SimpleImputer(), StandardScaler(), SplineTransformer(n_knots=4))
    return ColumnTransformer(
        [
            ("late", OneHotEncoder(drop="first"), ["kind", "day"]),
            ("numbers", numbers, ["d", "b"]),
            ("gone", "drop", ["c"]),
        ],
        remainder="passthrough",
    )


def test_a_column_transformer_is_explained_in_the_original_columns():
    table = FRAME.copy()
    table.loc[::9, "b"] = np.nan
    model = make_pipeline(mixed_columns(), Ridge()).fit(table, y)
    found = check_against_enumeration(model, table.head(6), table[20:50])
    assert found.feature_names == ("a", "b", "c", "d", "kind", "day")
    assert (found[:, "c"].values == 0).all()
    assert np.abs(found[:, ["a", "b", "kind"]].values).max(axis=0).min() > 0


def test_a_column_transformer_by_number_slice_and_mask():
    parts = ColumnTransformer(
        [
            ("first", SplineTransformer(n_knots=3), slice(1, 3)),
            ("mask", StandardScaler(), [True, False, False, False]),
            ("last", "passthrough", [-1]),
        ]
    )
    check_against_enumeration(make_pipeline(parts, Ridge()).fit(X, y), X[:6], X[20:50])


def test_a_logarithmic_link_is_explained_on_the_logarithm():
    model = PoissonRegressor(alpha=1e-3).fit(X, np.exp(y / 4))
    found = additive_shap(model, X[:6], X[20:50])
    exact = exact_shap(lambda t: np.log(model.predict(t)), X[:6], X[20:50])
    assert np.allclose(found.values, exact.values, atol=EXACT, rtol=0)
    assert "logarithm of the prediction" in found.method


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (RandomForestRegressor(n_estimators=2), "RandomForestRegressor"),
        (RandomForestClassifier(n_estimators=2).fit(X, CLASSES), "model.predict_proba"),
        (Ridge(), "Fit it first"),
        (make_pipeline(PolynomialFeatures(2), Ridge()).fit(X, y), "PolynomialFeatures"),
        (make_pipeline(Normalizer(), Ridge()).fit(X, y), "Normalizer"),
        (make_pipeline(FunctionTransformer(np.sort), Ridge()).fit(X, y), "FunctionTransformer"),
        (SVC(kernel="linear").fit(X, CLASSES), "sum of its terms"),
        (
            GridSearchCV(make_pipeline(PCA(2), Ridge()), {"ridge__alpha": [1.0]}, cv=2).fit(X, y),
            "PCA",
        ),
        (make_pipeline(StandardScaler(), RandomForestRegressor(2)).fit(X, y), "Its trees"),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, str) else part,
)
def test_models_that_are_no_sum_are_refused_with_a_remedy_that_works(model, words):
    if isinstance(model, RandomForestRegressor):
        model.fit(X, y)
    with pytest.raises(UnsupportedModelError, match=words) as refused:
        additive_shap(model, X[:2], X[2:4])
    if "Fit it" in words:
        return
    tables = {"model": model, "X": X[:2], "background": X[2:4]}
    calls = re.findall(r"\w+_shap\(model.*?\)", str(refused.value))
    assert calls
    for call in calls:
        found = eval(call, {**globals(), **tables})
        assert np.abs(found.gap(found.prediction)).max() < EXACT
    parts = re.search(
        r"pass (\S+) as model, (\S+) as X and (\S+) as background", str(refused.value)
    )
    if parts:
        found = additive_shap(*(eval(part, tables) for part in parts.groups()))
        assert np.isfinite(found.values).all()


def test_models_of_trees_are_sent_to_the_values_of_their_trees():
    boosted = GradientBoostingRegressor(n_estimators=2).fit(X, y)
    for model in (
        boosted,
        GridSearchCV(boosted, {"max_depth": [2]}, cv=2).fit(X, y),
        make_pipeline(StandardScaler(), ExtraTreesClassifier(2)).fit(X, CLASSES),
        HistGradientBoostingRegressor(max_iter=2).fit(X, y),
        IsolationForest(n_estimators=2).fit(X),
    ):
        with pytest.raises(UnsupportedModelError, match="interventional_tree_shap") as refused:
            additive_shap(model, X[:2], X[2:4])
        call = re.search(r"interventional_tree_shap\(.*?\)", str(refused.value))
        names = {"model": model, "X": X[:2], "background": X[2:4]}
        assert np.isfinite(eval(call[0], {**globals(), **names}).values).all()


STEPS = {
    "rare and dropped categories": lambda: ColumnTransformer(
        [
            ("rare", OneHotEncoder(max_categories=2, drop="first"), ["kind"]),
            ("two", OneHotEncoder(drop="if_binary", sparse_output=False), ["day", "kind"]),
            ("numbers", SimpleImputer(add_indicator=True), ["b", "a"]),
        ],
        remainder="passthrough",
    ),
    "targets, orders, bins": lambda: ColumnTransformer(
        [
            ("target", TargetEncoder(random_state=0), ["kind"]),
            ("order", OrdinalEncoder(), ["day"]),
            ("bins", make_pipeline(SimpleImputer(), KBinsDiscretizer(3)), ["b", "c"]),
        ]
    ),
    "union, selection, functions": lambda: make_pipeline(
        ColumnTransformer([("n", SimpleImputer(), ["a", "b", "c", "d"])]),
        make_union(
            SplineTransformer(n_knots=3),
            FunctionTransformer(np.tanh, feature_names_out="one-to-one"),
            "passthrough",
        ),
        SelectKBest(f_regression, k=7),
    ),
    "one column through anything": lambda: ColumnTransformer(
        [
            ("a", make_pipeline(PolynomialFeatures(3), PCA(2)), ["a"]),
            ("words", CountVectorizer(analyzer="char"), "kind"),
        ]
    ),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.filterwarnings("ignore")
def test_steps_that_trees_follow_are_followed_here(name):
    table = FRAME.copy()
    table.loc[::9, "b"] = np.nan
    model = make_pipeline(STEPS[name](), Ridge()).fit(table, y)
    found = check_against_enumeration(model, table.head(6), table[20:50])
    assert found.feature_names == tuple(table.columns)
    nested = make_pipeline(STEPS[name](), make_pipeline(MaxAbsScaler(), Ridge())).fit(table, y)
    check_against_enumeration(nested, table.head(6), table[20:50])


@examples(15)
@given(st.integers(0, 2**31))
@pytest.mark.filterwarnings("ignore")
def test_drawn_pipelines(seed):
    """Tied, constant and missing cells, columns in any order, several parts of one column."""
    draw = np.random.default_rng(seed)
    table = FRAME.assign(a=FRAME.a.round(), same=1.0)
    table.loc[draw.random(len(table)) < 0.2, "b"] = np.nan
    table = table[list(draw.permutation(table.columns))]
    numbers = [str(name) for name in draw.permutation([*"abcd", "same"])]
    after = [
        StandardScaler(),
        SplineTransformer(n_knots=3),
        KBinsDiscretizer(3, encode=str(draw.choice(["ordinal", "onehot-dense"]))),
        FunctionTransformer(np.tanh, feature_names_out="one-to-one"),
        "passthrough",
    ]
    imputer = SimpleImputer(add_indicator=bool(draw.integers(2)))
    parts = [
        ("numbers", make_pipeline(imputer, draw.choice(after)), numbers[:3]),
        ("again", make_pipeline(SimpleImputer(), draw.choice(after)), numbers[2:]),
        (
            "words",
            OneHotEncoder(
                drop=draw.choice([None, "first", "if_binary"]),
                max_categories=draw.choice([None, 2]),
            ),
            [str(name) for name in draw.permutation(["kind", "day"])],
        ),
    ]
    draw.shuffle(parts)
    labels = CLASSES if draw.random() < 0.3 else y
    last = LogisticRegression(max_iter=20) if labels is CLASSES else Ridge()
    model = make_pipeline(ColumnTransformer(parts), last).fit(table, labels)
    check_against_enumeration(model, table.head(2), table[20:26])


class Doubles(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Says that it works column by column, which is true where it is honest."""

    def __init__(self, honest=True):
        self.honest = honest

    def fit(self, table, target=None):
        self.n_features_in_ = np.shape(table)[1]
        return self

    def transform(self, table):
        numbers = np.asarray(table, float)
        return numbers * 2 if self.honest else np.cumsum(numbers, axis=1)


class OddScaler(StandardScaler):
    def transform(self, table):
        return np.sort(super().transform(table), axis=1)


def test_steps_of_ones_own_are_tried_even_on_one_row():
    frame = FRAME[list("abcd")]
    for table in (X, frame):
        check_against_enumeration(
            make_pipeline(Doubles(), Ridge()).fit(table, y), table[:3], table[9:19]
        )
        for step in (
            Doubles(honest=False),
            OddScaler(),
            FunctionTransformer(np.sort, feature_names_out="one-to-one"),
            FunctionTransformer(lambda t: t - np.mean(t, axis=0), feature_names_out="one-to-one"),
        ):
            model = make_pipeline(step, Ridge()).fit(table, y)
            with pytest.raises(UnsupportedModelError, match="which says so and mixes"):
                additive_shap(model, table[:1], table[9:10])


def test_arrow_and_sparse_tables_through_steps():
    pyarrow = pytest.importorskip("pyarrow")
    from scipy import sparse

    table = FRAME[["a", "kind"]]
    steps = ColumnTransformer(
        [("k", OneHotEncoder(), ["kind"]), ("a", FunctionTransformer(np.tanh), ["a"])]
    )
    model = make_pipeline(steps, Ridge()).fit(table, y)
    wanted = additive_shap(model, table[:4], table[9:19])
    found = additive_shap(
        model,
        *(
            pyarrow.table({name: part[name].tolist() for name in part})
            for part in (table[:4], table[9:19])
        ),
    )
    assert np.allclose(found.values, wanted.values, atol=EXACT, rtol=0)
    rows = sparse.csr_array(X)
    model = make_pipeline(MaxAbsScaler(), Ridge()).fit(rows, y)
    found = additive_shap(model, rows[:3], rows[9:19])
    wanted = exact_shap(model.predict, X[:3], X[9:19])
    assert np.allclose(found.values, wanted.values, atol=EXACT, rtol=0)


def test_rows_that_the_steps_do_not_take():
    model = make_pipeline(mixed_columns(), Ridge()).fit(FRAME, y)
    with pytest.raises(ValueError, match="rows that the pipeline's ColumnTransformer takes"):
        additive_shap(model, FRAME[:2].assign(kind="unknown"), FRAME[2:4])
    with pytest.raises(ValueError, match="background: expected rows that the pipeline's"):
        additive_shap(model, FRAME[:2], FRAME[2:4].assign(kind="unknown"))


def test_a_scaler_of_another_house_is_not_trusted():
    class StandardScaler(FunctionTransformer):
        pass

    model = make_pipeline(StandardScaler(np.sort), Ridge()).fit(X, y)
    with pytest.raises(UnsupportedModelError, match="StandardScaler"):
        additive_shap(model, X[:2], X[2:4])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: AdditiveModel([np.sin]), "terms: expected a dict"),
        (lambda: AdditiveModel({0: 1.0}), "terms: expected a dict"),
        (lambda: AdditiveModel({(0, 1, 2): np.sin}), "pairs of different"),
        (lambda: AdditiveModel({(0, 0): np.multiply}), "pairs of different"),
        (lambda: AdditiveModel({0: np.sin}, [[1.0]]), "intercept"),
        (
            lambda: additive_shap(AdditiveModel({"q": np.sin}), FRAME[["a"]], FRAME[["a"]]),
            "names among a",
        ),
        (lambda: additive_shap(AdditiveModel({"q": np.sin}), X, X), "numbers of features"),
        (
            lambda: additive_shap(AdditiveModel({(0, "a"): np.add}), *[FRAME[["a", "b"]]] * 2),
            "pairs of different features",
        ),
        (lambda: additive_shap(AdditiveModel({9: np.sin}), X, X), "more than 9 columns"),
        (lambda: additive_shap(AdditiveModel({0: np.sin}), X, X[:, :2]), "background: expected 4"),
        (lambda: additive_shap(AdditiveModel({0: np.log}), X, X), "finite outputs"),
        (lambda: additive_shap(AdditiveModel({0: np.sum}), X, X), "terms: expected outputs"),
        (lambda: additive_shap(AdditiveModel({0: np.sin}, [0.0, 1.0]), X, X), "return shape"),
        (lambda: additive_shap(AdditiveModel({0: lambda v: v - v.mean()}), X, X), "same whatever"),
        (lambda: additive_shap(AdditiveModel({0: np.sin}), X, X, weights=[1.0]), "weights"),
        (lambda: additive_shap(AdditiveModel({0: np.sin}), X, X[:0]), "background: expected rows"),
        (lambda: additive_shap(AdditiveModel({0: np.sin}), X[:0], X), "X: expected rows"),
        (
            lambda: additive_shap(Ridge().fit(FRAME[["a", "b"]], y), *[FRAME[["b", "a"]]] * 2),
            "in its order",
        ),
        (lambda: additive_shap(Ridge().fit(X, y).predict, X, X), "pass the model itself"),
        (lambda: additive_shap(Ridge().fit(X, y), X[:, :3], X[:, :3]), "X: expected 4 columns"),
        (lambda: additive_shap(Ridge().fit(X[:, :1], y), X, X), "X: expected 1 columns"),
        (
            lambda: additive_shap(
                make_pipeline(StandardScaler(), Ridge()).fit(X, y), X[:, :3], X[:, :3]
            ),
            "X: expected a table of 4 columns",
        ),
        (
            lambda: additive_shap(
                AdditiveModel({0: np.sin}, feature_names=["b", "a"]), *[FRAME[["a", "b"]]] * 2
            ),
            "the model's columns b, a",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*log.*:RuntimeWarning")
def test_errors_say_what_to_do(call, words):
    with pytest.raises((ValueError, TypeError), match=words):
        call()


def test_nothing_of_the_user_changes():
    rows, background = X[:6].copy(), X[6:9].copy()
    model = make_pipeline(StandardScaler(), Ridge()).fit(X, y)
    before = model[-1].coef_.copy()
    additive_shap(model, rows, background)
    assert np.array_equal(rows, X[:6])
    assert np.array_equal(background, X[6:9])
    assert np.array_equal(model[-1].coef_, before)


# Explainable boosting machines


def boosting_machine(kind, table, target, **options):
    glassbox = pytest.importorskip("interpret.glassbox")
    machine = getattr(glassbox, f"ExplainableBoosting{kind}")
    settings = {"outer_bags": 2, "max_rounds": 60, "n_jobs": 1, "random_state": 0}
    return machine(**settings, **options).fit(table, target)


def hard_table():
    """Missing numbers, missing and unknown categories, a constant."""
    table = FRAME.drop(columns="d").assign(same=1.0)
    table.loc[::7, "b"] = np.nan
    table.loc[::11, "kind"] = None
    return table


@pytest.mark.parametrize("pairs", [0, [(0, 1), (1, 3), (3, 4)]])
@pytest.mark.parametrize("kind", ["Regressor", "Classifier"])
def test_boosting_machines(kind, pairs):
    table = hard_table()
    target = y + X[:, 0] * X[:, 1] + (table.kind == "x") * X[:, 1]
    target = target if kind == "Regressor" else target > 0
    model = boosting_machine(kind, table, target, interactions=pairs)
    rows, background = table.head(8).copy(), table.tail(9).copy()
    rows.loc[[1, 2], "day"] = "never seen"
    background.loc[background.index[:2], "kind"] = "never seen"
    found = check_against_enumeration(model, rows, background, weights=np.arange(9))
    assert found.feature_names == tuple(table.columns)


def test_boosting_machines_of_several_classes_and_arrays():
    model = boosting_machine("Classifier", X, CLASSES, interactions=0)
    found = check_against_enumeration(model, X[:5], X[20:40])
    assert found.output_names == ("low", "mid", "top")
    scaled = make_pipeline(StandardScaler(), model.__class__(**model.get_params())).fit(X, CLASSES)
    check_against_enumeration(scaled, X[:5], X[20:40])


def test_boosting_machines_with_a_logarithmic_link():
    model = boosting_machine("Regressor", X, np.exp(y / 4), objective="gamma_deviance")
    found = additive_shap(model, X[:5], X[20:40])
    exact = exact_shap(lambda t: np.log(model.predict(t)), X[:5], X[20:40])
    # The logarithm of an exponential is off by rounding of the exponential.
    assert np.abs(found.values - exact.values).max() < EXACT


def test_boosting_machines_are_left_as_they_are_and_read_in_their_order():
    table = hard_table()
    model = boosting_machine("Regressor", table, y, interactions=[(0, 1)])
    before = [scores.copy() for scores in model.term_scores_]
    additive_shap(model, table.head(3), table.tail(3))
    assert all(map(np.array_equal, before, model.term_scores_))
    turned = table[table.columns[::-1]]
    with pytest.raises(ValueError, match="in its order"):
        additive_shap(model, turned.head(3), turned.tail(3))
    with pytest.raises(ValueError, match="6 columns"):
        additive_shap(model, table.head(3).drop(columns="a"), table.tail(3).drop(columns="a"))
    triple = boosting_machine("Regressor", X, y, interactions=[(0, 1, 2)])
    with pytest.raises(UnsupportedModelError, match="of 3"):
        additive_shap(triple, X[:3], X[3:6])
