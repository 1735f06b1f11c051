"""Hybrid rows: what a model sees keeps dtypes, categories and missing values; every mixture is the
right one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from shaplab import exact_shap, kernel_shap, permutation_shap
from shaplab._rows import Rows, unequal


def frames() -> tuple[pd.DataFrame, pd.DataFrame]:
    kinds = pd.CategoricalDtype(["red", "green", "blue"])
    X = pd.DataFrame(
        {
            "size": [1.5, np.nan, 3.0],
            "colour": pd.Categorical(["red", None, "blue"], dtype=kinds),
            "count": pd.array([1, None, 3], dtype="Int64"),
            "flag": [True, False, True],
            "text": ["a", None, "c"],
        }
    )
    background = pd.DataFrame(
        {
            "size": [10.0, np.nan],
            "colour": pd.Categorical(["green", "red"], dtype=kinds),
            "count": pd.array([7, None], dtype="Int64"),
            "flag": [False, False],
            "text": ["z", "y"],
        }
    )
    return X, background


def test_arrays_are_mixed_cell_by_cell() -> None:
    generator = np.random.default_rng(0)
    X, background = generator.normal(size=(4, 3)), generator.normal(size=(5, 3))
    rows = Rows(lambda table: table.sum(axis=1), X, background)
    present = generator.random((50, 3)) < 0.5
    ours, theirs = generator.integers(0, 4, 50), generator.integers(0, 5, 50)
    mixed = rows.mix(present, ours, theirs)
    for r in range(50):
        for j in range(3):
            assert mixed[r, j] == (X[ours[r], j] if present[r, j] else background[theirs[r], j])
    np.testing.assert_allclose(rows.outputs(present, ours, theirs), mixed.sum(axis=1))
    assert rows.evaluations == 50
    assert (rows.n, rows.size, rows.d) == (4, 5, 3)


def test_frames_are_mixed_and_keep_what_the_model_was_trained_on() -> None:
    X, background = frames()
    seen = []

    def model(table: pd.DataFrame) -> np.ndarray:
        seen.append(table)
        return np.zeros(len(table))

    rows = Rows(model, X, background)
    generator = np.random.default_rng(1)
    present = generator.random((40, 5)) < 0.5
    ours, theirs = generator.integers(0, 3, 40), generator.integers(0, 2, 40)
    rows.outputs(present, ours, theirs)
    (table,) = seen
    assert list(table.columns) == list(X.columns)
    assert (table.dtypes == X.dtypes).all()
    assert list(table["colour"].cat.categories) == ["red", "green", "blue"]
    for r in range(40):
        for j, name in enumerate(X.columns):
            expected = X[name].iloc[ours[r]] if present[r, j] else background[name].iloc[theirs[r]]
            found = table[name].iloc[r]
            assert (pd.isna(found) and pd.isna(expected)) or found == expected
    assert rows.names == list(X.columns)


def test_all_present_and_all_absent_are_the_tables_themselves() -> None:
    X, background = frames()
    rows = Rows(len, X, background)
    here = rows.mix(np.ones((3, 5), dtype=bool), np.arange(3), np.zeros(3, dtype=int))
    there = rows.mix(np.zeros((2, 5), dtype=bool), np.zeros(2, dtype=int), np.arange(2))
    pd.testing.assert_frame_equal(here, X)
    pd.testing.assert_frame_equal(there, background)


def test_the_users_tables_are_never_changed() -> None:
    X, background = frames()
    before = X.copy(deep=True), background.copy(deep=True)

    def careless(table: pd.DataFrame) -> np.ndarray:
        table["size"] = 0.0
        return np.zeros(len(table))

    rows = Rows(careless, X, background)
    rows.outputs(np.ones((3, 5), dtype=bool), np.arange(3), np.zeros(3, dtype=int))
    pd.testing.assert_frame_equal(X, before[0])
    pd.testing.assert_frame_equal(background, before[1])
    again = rows.mix(np.ones((3, 5), dtype=bool), np.arange(3), np.zeros(3, dtype=int))
    pd.testing.assert_frame_equal(again, X)
    table = np.ones((2, 2))
    plain = Rows(lambda t: t.fill(0) or np.zeros(len(t)), table, table)
    plain.outputs(np.ones((2, 2), dtype=bool), np.arange(2), np.arange(2))
    assert (table == 1).all()


def test_a_row_index_of_the_user_does_not_matter() -> None:
    X, background = frames()
    X.index, background.index = [9, 9, 9], ["b", "a"]
    here = Rows(len, X, background).mix(
        np.ones((3, 5), dtype=bool), np.arange(3), np.zeros(3, dtype=int)
    )
    pd.testing.assert_frame_equal(here, X.reset_index(drop=True))


def test_numbers_of_two_widths_become_one() -> None:
    X, background = pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [0.5]})
    mixed = Rows(len, X, background).mix(
        np.array([[True], [False]]), np.array([1, 1]), np.array([0, 0])
    )
    assert mixed["a"].tolist() == [2.0, 0.5]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda b: b[["colour", "size", "count", "flag", "text"]],
            ValueError,
            "the columns of X in the same order",
        ),
        (lambda b: b.drop(columns="flag"), ValueError, "missing flag"),
        (lambda b: b.assign(new=1), ValueError, "unknown new"),
        (lambda b: b.iloc[:0], ValueError, "background: expected at least one row"),
        (
            lambda b: b.assign(colour=b["colour"].cat.add_categories("pink")),
            ValueError,
            "column 'colour' of dtype",
        ),
        (
            lambda b: b.assign(size=b["size"].astype(str)),
            ValueError,
            "column 'size' of dtype float64, as in X",
        ),
        (lambda b: np.zeros((2, 5)), TypeError, "a DataFrame exactly when X is one"),
    ],
)
def test_backgrounds_that_do_not_fit_are_refused(change, kind, message) -> None:
    X, background = frames()
    with pytest.raises(kind, match=message):
        Rows(len, X, change(background))


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="background: expected 3 columns"):
        Rows(len, np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="X: expected a table"):
        Rows(len, np.zeros(3), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda t: np.zeros(len(t) - 1), "for 2 rows"),
        (lambda t: np.full(len(t), np.nan), "finite outputs"),
        (lambda t: ["no"] * len(t), "not labels"),
        (lambda t: 1.0, r"shape \(\)"),
    ],
)
def test_models_that_misbehave_are_named(model, message: str) -> None:
    rows = Rows(model, np.zeros((2, 3)), np.ones((2, 3)))
    with pytest.raises((ValueError, TypeError), match=f"model: expected .*{message}"):
        rows.outputs(np.ones((2, 3), dtype=bool), np.arange(2), np.arange(2))


def test_missing_values_reach_a_model_that_takes_them() -> None:
    X = np.array([[np.nan, 1.0]])
    rows = Rows(lambda t: np.isnan(t).sum(axis=1), X, np.zeros((1, 2)))
    found = rows.outputs(
        np.array([[True, True], [False, True]]), np.zeros(2, dtype=int), np.zeros(2, dtype=int)
    )
    assert found.tolist() == [1.0, 0.0]


def test_torch_models_are_left_as_they_were() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.9), torch.nn.Linear(4, 1))
    net.train()
    net[0].eval()
    X = np.array([[1.0, 2.0], [3.0, 4.0]])
    rows = Rows(net, X, np.zeros((1, 2)))
    first = rows.outputs(np.ones((2, 2), dtype=bool), np.arange(2), np.zeros(2, dtype=int))
    second = rows.outputs(np.ones((2, 2), dtype=bool), np.arange(2), np.zeros(2, dtype=int))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2, 1)
    assert [part.training for part in net] == [False, True, True]
    assert net.training
    assert all(p.grad is None for p in net.parameters())


def polars_frames():
    pl = pytest.importorskip("polars")
    kinds = pl.Enum(["red", "green", "blue"])
    columns = {"size": pl.Float64, "colour": kinds, "count": pl.Int64, "text": pl.String}
    X = pl.DataFrame(
        [[1.5, None, 3.0], ["red", None, "blue"], [1, None, 3], ["a", None, "c"]], columns
    )
    background = pl.DataFrame(
        [[10.0, float("nan")], ["green", "red"], [7, None], ["z", "a"]], columns
    )
    return X, background


def test_polars_frames_are_mixed_and_keep_their_dtypes() -> None:
    X, background = polars_frames()
    seen = []

    def model(table):
        seen.append(table)
        return np.zeros(len(table))

    rows = Rows(model, X, background)
    generator = np.random.default_rng(1)
    present = generator.random((40, 4)) < 0.5
    ours, theirs = generator.integers(0, 3, 40), generator.integers(0, 2, 40)
    rows.outputs(present, ours, theirs)
    (table,) = seen
    assert table.schema == X.schema
    for r in range(40):
        for j, name in enumerate(X.columns):
            expected = X[name][int(ours[r])] if present[r, j] else background[name][int(theirs[r])]
            found = table[name][r]
            assert found == expected or (found != found and expected != expected)
    same = ~unequal(rows.seen[0][[0, 1, 1]], rows.seen[1][[1, 1, 0]])
    # red is red, a is a; missing numbers are alike, null or NaN.
    assert same.tolist() == [[False, True, False, True], [True, False, True, False], [False] * 4]
    assert rows.names == X.columns
    assert X.equals(polars_frames()[0])


def test_polars_and_arrow_backgrounds_that_do_not_fit_are_refused() -> None:
    pytest.importorskip("pyarrow")
    X, background = polars_frames()
    with pytest.raises(ValueError, match=r"same order, got another order.*background\[list"):
        Rows(len, X, background.select(["colour", "size", "count", "text"]))
    with pytest.raises(ValueError, match=r"'count' of dtype Int64, as in X.*cast\(dict"):
        Rows(len, X, background.with_columns(count=1.5))
    with pytest.raises(TypeError, match=r"same library as X, got pandas beside polars"):
        Rows(len, X, background.to_pandas())
    with pytest.raises(TypeError, match=r"^X: expected an array .*to_pandas"):
        Rows(len, X.to_arrow(), background.to_arrow())


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
@pytest.mark.parametrize("family", ["array", "matrix"])
def test_sparse_tables_of_any_kind_are_tables(kind, family) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(6, 3)) * (rng.random((6, 3)) < 0.5)
    table = getattr(sparse, f"{kind}_{family}")(dense)

    def model(rows):
        return rows[:, 0] * rows[:, 1] + rows[:, 2]

    for explain in (exact_shap, permutation_shap, kernel_shap):
        wanted = explain(model, dense, dense).values
        np.testing.assert_allclose(explain(model, table, table).values, wanted, atol=1e-12)


def test_arrays_on_disk_are_read_and_not_written(tmp_path) -> None:
    dense = np.random.default_rng(0).normal(size=(6, 3))
    dense.tofile(tmp_path / "rows")
    table = np.memmap(tmp_path / "rows", dtype=np.float64, mode="r", shape=(6, 3))
    found = exact_shap(lambda rows: rows.prod(axis=1), table, table)
    np.testing.assert_array_equal(
        found.values, exact_shap(lambda rows: rows.prod(axis=1), dense, dense).values
    )
