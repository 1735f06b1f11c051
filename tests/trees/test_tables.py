"""Tables as people have them: columns of any library by name, categories by label, names that
survive, and words for what is no table.

Chapter: trees/conditional_expectation."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from scipy import sparse
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import shaplab
from shaplab._tables import columns, in_one_piece
from shaplab.trees import _batches
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.interactions import tree_shap_interactions
from shaplab.trees.interventional import BackgroundTrees, interventional_tree_shap
from shaplab.trees.loss import tree_loss_shap, tree_output_shap
from shaplab.trees.path_dependent import tree_shap

pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

N = 300
RNG = np.random.default_rng(0)
LETTERS = ["x", "y", "z"]
FRAME = pd.DataFrame(
    {
        "a": RNG.normal(size=N),
        "b": RNG.normal(size=N),
        "c": pd.Categorical(RNG.choice(LETTERS, N), categories=LETTERS),
    }
)
Y = FRAME["a"] + (FRAME["c"] == "y") - FRAME["b"] * (FRAME["c"] == "z")
NUMERIC = FRAME[["a", "b"]]
LIGHT = {"n_estimators": 6, "verbose": -1, "n_jobs": 1}
MODELS = {
    "xgboost": xgb.XGBRegressor(n_estimators=6, max_depth=3, n_jobs=1, enable_categorical=True),
    "lightgbm": lgb.LGBMRegressor(**LIGHT),
    "sklearn": HistGradientBoostingRegressor(max_iter=6, categorical_features="from_dtype"),
}
SINGLE = {"rtol": 1e-5, "atol": 1e-5}  # XGBoost predicts in float32


def polars_categorical(frame):
    return pl.from_pandas(frame.astype({"c": str})).with_columns(pl.col("c").cast(pl.Categorical))


def polars_enum(frame):
    return pl.from_pandas(frame.astype({"c": str})).with_columns(pl.col("c").cast(pl.Enum(LETTERS)))


def arrow(frame):
    return pa.Table.from_pandas(frame)


def arrow_batch(frame):
    return pa.RecordBatch.from_pandas(frame)


TABLES = [lambda f: f, polars_categorical, polars_enum, arrow, arrow_batch]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("convert", TABLES)
def test_categories_of_any_table_are_read_by_their_labels(name, convert):
    model = MODELS[name].fit(FRAME, Y)
    expected = model.predict(FRAME)
    table = convert(FRAME)
    np.testing.assert_allclose(as_ensemble(model).predict(table), expected, **SINGLE)
    found = interventional_tree_shap(model, table, convert(FRAME[::40]))
    same = interventional_tree_shap(model, FRAME, FRAME[::40])
    np.testing.assert_array_equal(found.values, same.values)
    assert found.feature_names == ("a", "b", "c")
    assert found.data[0].tolist() == [FRAME["a"][0], FRAME["b"][0], FRAME["c"][0]]


@pytest.mark.parametrize("name", ["xgboost", "sklearn"])
@pytest.mark.parametrize("convert", [polars_categorical, polars_enum])
def test_models_trained_on_polars_read_any_table(name, convert):
    try:
        model = MODELS[name].fit(convert(FRAME), Y)
    except ValueError:
        pytest.skip("this scikit-learn reads no categories of polars")
    expected = model.predict(convert(FRAME))
    for other in TABLES:
        found = interventional_tree_shap(model, other(FRAME), convert(FRAME[:9]))
        np.testing.assert_allclose(found.prediction, expected, **SINGLE)


def test_columns_of_nothing_are_missing():
    model = xgb.XGBRegressor(n_estimators=3, n_jobs=1).fit(NUMERIC, Y)
    X = NUMERIC[:5].assign(b=np.nan)
    expected = tree_shap(model, X).values
    for table in (
        pl.DataFrame({"a": X["a"].to_list(), "b": [None] * 5}),
        pa.table({"a": X["a"].to_numpy(), "b": pa.nulls(5)}),
        pl.from_pandas(X),
    ):
        np.testing.assert_array_equal(tree_shap(model, table).values, expected)


def test_columns_of_one_name_are_refused_or_kept_apart():
    twice = pd.DataFrame(NUMERIC.to_numpy(), columns=["a", "a"])
    model = RandomForestRegressor(2, random_state=0).fit(NUMERIC, Y)
    with pytest.raises(ValueError, match=r"missing b; twice a"):
        tree_shap(model, twice)
    model.fit(NUMERIC.to_numpy(), Y)
    found = tree_shap(model, twice)
    np.testing.assert_array_equal(found.values, tree_shap(model, NUMERIC.to_numpy()).values)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("convert", TABLES)
def test_columns_in_another_order_or_of_other_names_are_refused(name, convert):
    model = MODELS[name].fit(FRAME, Y)
    X = FRAME.head(9)
    for function in (
        lambda table: as_ensemble(model).predict(table),
        lambda table: tree_shap(model, table),
        lambda table: interventional_tree_shap(model, X, table),
        lambda table: interventional_tree_shap(model, table, X),
        lambda table: tree_loss_shap(model, table, Y[:9], X, loss="squared_error"),
        lambda table: tree_output_shap(model, X, table, transform="prediction"),
        lambda table: BackgroundTrees(model, X)(table),
        lambda table: shaplab.saabas(model, table),
    ):
        with pytest.raises(ValueError, match=r"another order"):
            function(convert(X[["b", "a", "c"]]))
        with pytest.raises(ValueError, match=r"missing b; unknown other|missing other; unknown b"):
            function(convert(X.rename(columns={"b": "other"})))


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "sklearn"])
def test_blanks_and_underscores_are_different_names(kind):
    X = NUMERIC.rename(columns={"a": "unit price", "b": "unit-price"})
    both = NUMERIC.rename(columns={"a": "unit price", "b": "unit_price"})
    model = {
        "xgboost": xgb.XGBRegressor(n_estimators=6, n_jobs=1),
        "lightgbm": lgb.LGBMRegressor(**LIGHT),
        "sklearn": RandomForestRegressor(5, random_state=0),
    }[kind].fit(X, Y)
    e = as_ensemble(model)
    np.testing.assert_allclose(e.predict(X), model.predict(X), **SINGLE)
    assert tree_shap(model, X[:2]).feature_names == ("unit price", "unit-price")
    with pytest.raises(ValueError, match=r"missing unit.price; unknown unit.price|missing unit-p"):
        e.predict(both)
    if kind == "lightgbm":  # it forbids both names at once, and forgets which one it was
        return
    model.fit(both, Y)
    with pytest.raises(ValueError, match=r"another order"):
        as_ensemble(model).predict(both[["unit_price", "unit price"]])


def test_lightgbms_underscores_are_not_taken_for_another_columns_blank():
    model = lgb.LGBMRegressor(**LIGHT).fit(NUMERIC.rename(columns={"a": "u p", "b": "v"}), Y)
    both = NUMERIC.rename(columns={"a": "u_p", "b": "u p"})
    with pytest.raises(ValueError, match=r"missing v; unknown u p"):
        as_ensemble(model).predict(both)


NAMES = ["Tree=0", "a\tb", "a\u00a0b", "a\u2009b", "a\u2028b", "a\x1cb", "end of trees", "a=b", "é"]


@pytest.mark.parametrize("name", NAMES)
def test_lightgbm_names_of_any_characters(name):
    X = NUMERIC.rename(columns={"a": name})
    model = lgb.LGBMRegressor(**LIGHT).fit(X, Y)
    e = as_ensemble(model)
    np.testing.assert_allclose(e.predict(X), model.predict(X), rtol=1e-12)
    assert tree_shap(model, X[:2]).feature_names == (name, "b")
    again = as_ensemble(lgb.Booster(model_str=model.booster_.model_to_string()))
    np.testing.assert_array_equal(again.predict(X.to_numpy()), e.predict(X))


# LightGBM refuses some characters and, when it reads its own text, loses "=" at the ends.
TEXT = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters='",:[]{}<\n\r\x00'), min_size=1
).filter(lambda name: name == name.strip("="))


@given(st.lists(TEXT, min_size=2, max_size=2, unique_by=lambda name: name.replace(" ", "_")))
@examples(25)
def test_any_names_survive_all_three_libraries(names):
    X = pd.DataFrame(NUMERIC.to_numpy()[:60], columns=names)
    swapped = X[names[::-1]]
    for model in (
        lgb.LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1),
        xgb.XGBRegressor(n_estimators=2, n_jobs=1),
        RandomForestRegressor(2, random_state=0),
    ):
        model.fit(X, Y[:60])
        found = tree_shap(model, X[:2])
        assert found.feature_names == tuple(names)
        np.testing.assert_allclose(found.prediction, model.predict(X[:2]), **SINGLE)
        with pytest.raises(ValueError, match=r"^X: expected the columns the model was fitted on"):
            tree_shap(model, swapped[:2])


ATTRIBUTES = ["num_data", "num_row", "column_names", "get_columns", "toarray", "tocsr", "dtype"]
ATTRIBUTES += ["detach", "cpu", "collect", "lazy", "to_frame", "shape"]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_column_that_is_named_like_a_method_is_a_column(name):
    """pandas shows columns as attributes, so a look at an attribute may find one."""
    X = NUMERIC.rename(columns={"a": name, "b": "cpu" if name == "detach" else "other"})
    model = RandomForestRegressor(3, random_state=0).fit(X, Y)
    found = interventional_tree_shap(model, X[:3], X[:9])
    assert found.feature_names == tuple(X.columns)
    np.testing.assert_allclose(found.prediction, model.predict(X[:3]), atol=1e-12)
    same = shaplab.exact_shap(model.predict, X[:3], X[:9])
    np.testing.assert_allclose(same.values, found.values, atol=1e-12)


def test_lightgbm_codes_of_a_million_take_little_memory():
    codes = RNG.choice(10**6, 40, replace=False)
    X = np.column_stack([codes[RNG.integers(0, 40, 2000)], RNG.normal(size=2000)])
    y = (X[:, 0] % 7) + X[:, 1]
    data = lgb.Dataset(X, y, categorical_feature=[0])
    settings = {"verbose": -1, "num_threads": 1, "min_data_per_group": 1, "cat_smooth": 0}
    booster = lgb.train(settings, data, 5)
    e = as_ensemble(booster)
    assert (e.set_start >= 0).sum() > 5
    assert e.nbytes < 2**20
    X[:5, 0] = [-3, np.nan, 10**6 + 1, 1e300, 0.5]
    np.testing.assert_allclose(e.predict(X), booster.predict(X), rtol=1e-12)
    found = tree_shap(booster, X[:20])
    np.testing.assert_allclose(found.prediction, booster.predict(X[:20]), rtol=1e-12)
    theirs = booster.predict(X[5:20], pred_contrib=True)[:, :-1]
    np.testing.assert_allclose(found.values[5:], theirs, atol=1e-9)  # sums of order 10


def test_columns_of_several_levels():
    X = NUMERIC.copy()
    X.columns = pd.MultiIndex.from_tuples([("a", "first"), ("b", "second")])
    model = xgb.XGBRegressor(n_estimators=5, n_jobs=1).fit(X, Y)
    found = tree_shap(model, X[:5])
    assert found.feature_names == ("a first", "b second")
    np.testing.assert_allclose(found.prediction, model.predict(X[:5]), **SINGLE)
    with pytest.raises(ValueError, match=r"another order"):
        tree_shap(model, X.iloc[:5, ::-1])
    forest = RandomForestRegressor(5, random_state=0).fit(X, Y)  # keeps no names of this kind
    assert tree_shap(forest, X[:5]).feature_names == ("a first", "b second")


@pytest.mark.parametrize("kind", ["coo", "bsr", "dia", "csc", "csr", "lil", "dok"])
@pytest.mark.parametrize("model", ["xgboost", "lightgbm", "sklearn"])
def test_sparse_matrices_of_any_format(kind, model):
    dense = RNG.normal(size=(60, 6)) * (RNG.random((60, 6)) < 0.4)
    y = dense.sum(axis=1)
    csr = sparse.csr_matrix(dense)
    fitted = {
        "xgboost": xgb.XGBRegressor(n_estimators=5, n_jobs=1),
        "lightgbm": lgb.LGBMRegressor(min_child_samples=3, **LIGHT),
        "sklearn": RandomForestRegressor(5, random_state=0),
    }[model].fit(csr, y)
    X = csr.asformat(kind)
    expected = fitted.predict(csr)
    np.testing.assert_allclose(tree_shap(fitted, X).prediction, expected, **SINGLE)
    found = interventional_tree_shap(fitted, X, X)
    np.testing.assert_allclose(found.prediction, expected, **SINGLE)


def test_a_sparse_matrix_with_an_entry_twice_means_their_sum():
    twice = sparse.coo_matrix(([1.0, 2.0], ([0, 0], [0, 0])), shape=(1, 2))
    model = RandomForestRegressor(3, random_state=0).fit(NUMERIC.to_numpy(), Y)
    same = tree_shap(model, np.array([[3.0, 0.0]]))
    np.testing.assert_array_equal(tree_shap(model, twice).values, same.values)
    booster = xgb.XGBRegressor(n_estimators=3, n_jobs=1).fit(NUMERIC.to_numpy(), Y)
    same = tree_shap(booster, np.array([[3.0, np.nan]]))  # what is left out is missing there
    np.testing.assert_array_equal(tree_shap(booster, twice).values, same.values)


def test_numbers_given_for_text_categories_are_refused_as_scikit_learn_does():
    model = HistGradientBoostingRegressor(max_iter=5, categorical_features=[2]).fit(FRAME, Y)
    codes = FRAME.assign(c=FRAME["c"].cat.codes)
    for X in (codes.to_numpy(float), codes, codes.astype({"c": "category"})):
        with pytest.raises(TypeError):
            model.predict(X)
        with pytest.raises(ValueError, match=r"^X: expected text categories in column 'c'"):
            tree_shap(model, X)
    text = FRAME.to_numpy()  # an object array is as good as the frame
    np.testing.assert_allclose(tree_shap(model, text).prediction, model.predict(FRAME), atol=1e-12)
    missing = codes.assign(c=np.nan)
    assert np.isfinite(tree_shap(model, missing.to_numpy(float)).values).all()


def fitted_on_an_array():
    y = (Y.median() < Y).astype(int)
    X = NUMERIC.to_numpy()
    yield xgb.XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1).fit(X, y), ("x", "y")
    yield lgb.LGBMClassifier(**LIGHT).fit(X, y), ("Column_0", "Column_1")
    yield RandomForestClassifier(4, random_state=0).fit(X, y), None


@pytest.mark.parametrize("number", range(3))
def test_names_of_a_frame_win_when_the_model_has_none(number):
    model, made = list(fitted_on_an_array())[number]
    X = NUMERIC[:4]
    y = np.array([0, 1, 0, 1])
    loss = "cross_entropy"
    given = {"feature_names": ["first", "second"]}
    array = X.to_numpy()
    for rows, names, more in ((X, ("a", "b"), {}), (array, ("first", "second"), given)):
        prepared = BackgroundTrees(model, rows, **more)
        results = [
            tree_shap(model, rows, **more),
            tree_shap_interactions(model, rows, **more),
            interventional_tree_shap(model, rows, rows, **more),
            shaplab.interventional_tree_shap_interactions(model, rows, rows, **more),
            prepared(rows),
            prepared(array),
            interventional_tree_shap(prepared, array),
            shaplab.saabas(model, rows, **more),
            tree_loss_shap(model, rows, y, rows, loss=loss, **more),
            tree_output_shap(model, rows, rows, **more),
        ]
        assert [result.feature_names for result in results] == [names] * len(results)
        if results[0].values.ndim == 3:
            assert all(r.output_names == ("0", "1") for r in results if r.values.ndim >= 3)
    found = tree_shap(model, array).feature_names
    assert found == (made if number else None)
    with pytest.raises(ValueError, match=r"^feature_names: expected 2 names, got 3"):
        tree_shap(model, X, feature_names=["a", "b", "c"])


def test_made_up_names_that_a_frame_really_has_are_checked():
    model = lgb.LGBMRegressor(**LIGHT).fit(NUMERIC.to_numpy(), Y)
    X = NUMERIC.rename(columns={"a": "Column_1", "b": "Column_0"})
    with pytest.raises(ValueError, match=r"another order"):
        tree_shap(model, X)


def test_missing_cells_of_nullable_columns_are_kept_as_nan():
    X = pd.DataFrame({"a": pd.array([1, None, 3], "Int64"), "b": pd.array([True, None, False])})
    model = xgb.XGBRegressor(n_estimators=2, n_jobs=1).fit(NUMERIC.to_numpy(), Y)
    found = tree_shap(model, X)
    assert found.data.dtype == np.float64
    np.testing.assert_array_equal(found.data, [[1, 1], [np.nan, np.nan], [3, 0]])
    mixed = pd.DataFrame({"a": pd.array([1.5, None], "Float64"), "c": ["x", None]})
    shown = shaplab._tables.displayed(mixed)
    assert shown[0].tolist() == [1.5, "x"]
    assert np.isnan(shown[1].astype(float)).all()


def test_plots_of_missing_cells_of_any_kind_work():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    X = pd.DataFrame(
        {
            "a": pd.array([1.5, None, 2.5] * 9, "Float64"),
            "b": pd.array([True, None, False] * 9, "boolean"),
            "c": pd.Categorical(["x", None, "z"] * 9, categories=LETTERS),
        }
    )
    model = MODELS["xgboost"].fit(FRAME.assign(b=FRAME["b"] > 0), Y)
    found = tree_shap(model, X)
    assert np.isnan(found.data[1].astype(float)).all()
    for plot in (shaplab.plots.beeswarm, shaplab.plots.bar):
        plot(found)
    shaplab.plots.waterfall(found[1])
    for name in X.columns:
        shaplab.plots.scatter(found, name)
    assert "nan" in str(found.to_frame()).lower()
    pyplot.close("all")


WORDS = [
    (lambda: xgb.DMatrix(NUMERIC), "a DMatrix", "array or DataFrame it was made from"),
    (lambda: lgb.Dataset(NUMERIC), "a Dataset", "array or DataFrame it was made from"),
    (lambda: (row for row in NUMERIC.to_numpy()), "a generator", r"list\((X|background)\)"),
    (lambda: NUMERIC.iloc[0], r"a Series of shape \(2,\)", r"X\.iloc\[\[0\]\]"),
    (lambda: NUMERIC["a"], r"a Series of shape \(300,\)", "to_frame"),
    (lambda: pl.from_pandas(NUMERIC)["a"], "a Series", r"X\[0:1\]"),
    (lambda: pl.from_pandas(NUMERIC).lazy(), "a LazyFrame", "collect"),
    (lambda: NUMERIC.to_numpy()[0], r"shape \(2,\)", r"reshape\(1, -1\)"),
    (lambda: None, r"(None|shape \(\))", "Use|Pass"),
]


@pytest.mark.parametrize(("make", "got", "remedy"), WORDS)
def test_what_is_no_table_gets_a_word(make, got, remedy):
    model = RandomForestRegressor(2, random_state=0).fit(NUMERIC.to_numpy(), Y)
    X = NUMERIC.to_numpy()[:3]
    for function in (
        lambda table: tree_shap(model, table),
        lambda table: interventional_tree_shap(model, table, X),
        lambda table: interventional_tree_shap(model, X, table),
        lambda table: tree_output_shap(model, table, X, transform="prediction"),
        lambda table: shaplab.saabas(model, table),
        lambda table: BackgroundTrees(model, X)(table),
        lambda table: TreeEnsemble.from_model(model).predict(table),
    ):
        with pytest.raises(
            (TypeError, ValueError), match=f"^(X|background): expected .*{got}"
        ) as e:
            function(make())
        assert pytest.importorskip("re").search(remedy, str(e.value))


def test_the_remedies_for_a_series_and_a_generator_work():
    model = RandomForestRegressor(2, random_state=0).fit(NUMERIC, Y)
    expected = tree_shap(model, NUMERIC[:1]).values
    row = NUMERIC.iloc[0]
    for X in (NUMERIC.iloc[[0]], row.to_frame().T, list(row for row in NUMERIC.to_numpy()[:1])):
        np.testing.assert_array_equal(tree_shap(model, X).values, expected)


def test_a_result_too_large_for_memory_names_out(monkeypatch):
    model = RandomForestRegressor(2, random_state=0).fit(NUMERIC.to_numpy(), Y)

    def full(out, shape):
        raise MemoryError

    monkeypatch.setattr(_batches, "_result", full)
    with pytest.raises(
        MemoryError, match=r"^X: expected memory .*shape \(300, 2\).*out=np\.memmap"
    ):
        tree_shap(model, NUMERIC.to_numpy())


def test_the_remedy_for_large_results_works(tmp_path):
    model = RandomForestRegressor(2, random_state=0).fit(NUMERIC.to_numpy(), Y)
    out = np.memmap(tmp_path / "values", dtype=float, mode="w+", shape=(N, 2))
    found = tree_shap(model, NUMERIC.to_numpy(), out=out, batch_size=7)
    # Few rows at a time take another route: the same sums in another order.
    np.testing.assert_allclose(out, tree_shap(model, NUMERIC.to_numpy()).values, atol=1e-13)
    assert found.values.shape == (N, 2)


def test_values_that_overflow_name_the_feature_and_the_leaf():
    huge = 1.2e308
    e = TreeEnsemble.from_arrays(
        [0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1], [0, huge, -huge], feature_names=["wide"]
    )
    with pytest.raises(ValueError, match=r"for feature 'wide' of row [01]; the largest leaf, node"):
        interventional_tree_shap(e, [[0.0], [1.0]], [[0.0]])
    twice = TreeEnsemble.from_arrays(
        [0, -1, -1] * 2,
        [0.5, 0, 0] * 2,
        [1, -1, -1, 4, -1, -1],
        [2, -1, -1, 5, -1, -1],
        [0, huge, 1.0] * 2,
        tree_start=[0, 3, 6],
    )
    with pytest.raises(ValueError, match=r"for row 0: the model's own output overflows"):
        tree_shap(twice, [[0.0]])


def test_stumps_of_lightgbm_with_an_empty_count_are_read():
    model = lgb.train({"verbose": -1, "min_data_in_leaf": 400}, lgb.Dataset(NUMERIC, Y), 2)
    text = model.model_to_string()

    class Written:
        __module__ = "lightgbm.basic"

        def current_iteration(self):
            return 2

        def feature_name(self):
            return ["a", "b"]

        def model_to_string(self, num_iteration=None, start_iteration=0):
            lines = text.split("\n")
            at = [i for i, line in enumerate(lines) if line.startswith("leaf_value=")]
            for i in at[::-1]:
                lines.insert(i, "leaf_count=")
            return "\n".join(lines)

    np.testing.assert_allclose(
        as_ensemble(Written()).predict(NUMERIC), model.predict(NUMERIC), rtol=1e-12
    )


@pytest.mark.parametrize("groups", [None, {"both": ["a", "b"]}])
def test_the_labels_of_rows_stay_with_every_result(groups):
    table = NUMERIC.set_axis([f"person {i}" for i in range(N)])
    model = RandomForestRegressor(3, max_depth=3, random_state=0).fit(table, Y)
    rows = table.iloc[[7, 3]]
    players = {"groups": groups}
    found = [
        tree_shap(model, rows, **players),
        tree_shap_interactions(model, rows, **players),
        interventional_tree_shap(model, rows, table, **players),
        BackgroundTrees(model, table, **players)(rows),
        shaplab.PreparedTrees(model, **players)(rows),
        tree_loss_shap(model, rows, Y[:2], table, loss="squared_error", **players),
        tree_output_shap(model, rows, table, transform="prediction", **players),
    ]
    if groups is None:
        found.append(shaplab.saabas(model, rows))
    for e in found:
        assert e.index.tolist() == ["person 7", "person 3"], e.method
        assert e[1:].to_frame()["row"].unique().tolist() == ["person 3"], e.method
    assert tree_shap(model, rows.to_numpy()).index is None


def test_the_labels_of_rows_stay_with_a_pipeline():
    table = NUMERIC.set_axis([f"person {i}" for i in range(N)])
    model = make_pipeline(StandardScaler(), RandomForestRegressor(3, random_state=0)).fit(table, Y)
    assert tree_shap(model, table.iloc[[4]]).index.tolist() == ["person 4"]


def test_a_frame_read_in_one_piece_is_what_its_columns_are():
    frame = pd.DataFrame(
        {
            "half": np.array([0.1, np.nan], np.float16),
            "large": np.array([2**63, 2**64 - 1], np.uint64),
            "odd": np.array([2**53 + 1, -(2**53) - 1]),
            "yes": [True, False],
            "long": np.array([1.0, np.inf], np.longdouble),
        }
    )
    whole = in_one_piece(frame)
    by_column = np.stack([column.numbers for column in columns(frame)], axis=1)
    np.testing.assert_array_equal(whole, by_column)
    one_block = pd.DataFrame(np.zeros((2, 2)))
    in_one_piece(one_block)[:] = 1.0
    assert (one_block == 0).all(axis=None)
    for kind in ("Int64", "boolean", "Float64", "object", "category", "datetime64[ns]"):
        assert in_one_piece(pd.DataFrame({"a": [1.0], "b": pd.Series([1]).astype(kind)})) is None
    assert in_one_piece(np.zeros((2, 2))) is None
