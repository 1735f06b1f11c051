"""Tables of pandas, polars and Arrow as columns, none of which is imported here.

A column is numbers, categories or something else. Numbers come as float64 with NaN for missing
cells; categories as codes into a list of labels. The package narwhals reads the same libraries
and is not used: what explainers ask of a table is on this page, its columns of labels would have to
be told apart here all the same, and who takes one function home takes a page and not a package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from shaplab._validation import as_matrix, check_rows, column_names, fail, has, is_frame, plain

__all__ = ["Column", "as_rows", "columns", "displayed", "take_rows"]

_ARROW_NUMBER = re.compile(r"(u?int\d+|halffloat|float|double|bool|decimal|null)")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    ``labels`` is None unless the column is categorical; then ``codes`` are places in it, -1 where
    missing, and ``declared`` tells whether the user or the library fixed that order, as pandas and
    polars' Enum do. ``numbers`` is None unless the column is numeric.
    """

    name: str
    kind: str
    source: Any
    numbers: np.ndarray | None = None
    labels: tuple[Any, ...] | None = None
    codes: np.ndarray | None = None
    declared: bool = False

    def cells(self) -> list[Any]:
        """Values as Python objects."""
        source = self.source
        return list(source.to_pylist() if hasattr(source, "to_pylist") else source.to_list())


def as_rows(X: Any, argument: str) -> Any:
    """Return a table that has a shape and whose rows can be sliced: lists become arrays, sparse
    matrices that cannot be sliced become CSR; what is no table is refused with what to pass."""
    check_rows(X, argument)
    if has(X, "tocsr") and getattr(X, "format", "csr") not in ("csr", "csc"):
        return X.tocsr()
    return X if hasattr(X, "shape") else np.asarray(X)


def take_rows(X: Any, part: slice) -> Any:
    """Some rows of a table."""
    if has(X, "column_names"):
        return X.slice(part.start, part.stop - part.start)
    return X.iloc[part] if is_frame(X) else X[part]


def columns(X: Any) -> list[Column]:
    """Columns of a pandas, polars or Arrow table."""
    names = column_names(X) or []
    if is_frame(X):
        return [_pandas(name, X.iloc[:, j]) for j, name in enumerate(names)]
    if has(X, "get_columns"):
        return [_polars(name, s) for name, s in zip(names, X.get_columns(), strict=True)]
    return [_arrow(name, X.column(j)) for j, name in enumerate(names)]


def in_one_piece(X: Any) -> np.ndarray | None:
    """A copy of the numbers of a pandas frame, float64 ``(n, d)``, where NumPy holds every column;
    else None. Column by column one row of fifty takes eighty times as long as explaining it."""
    if not is_frame(X):
        return None
    kinds = X.dtypes.tolist()
    if not all(isinstance(kind, np.dtype) and kind.kind in "biuf" for kind in kinds):
        return None
    return np.array(X.to_numpy(np.float64), order="C")


def _pandas(name: str, series: Any) -> Column:
    kind = series.dtype
    if hasattr(kind, "categories"):
        labels = tuple(series.cat.categories.tolist())
        codes = series.cat.codes.to_numpy().astype(np.int64)
        return Column(name, str(kind), series, None, labels, codes, declared=True)
    if getattr(kind, "kind", "O") in "biuf":
        return Column(name, str(kind), series, series.to_numpy(dtype=np.float64, na_value=np.nan))
    return Column(name, str(kind), series)


def _polars(name: str, series: Any) -> Column:
    kind = str(series.dtype)
    if kind.startswith("Enum"):
        listed = series.dtype.categories.to_list()
        return _labelled(name, "Enum", series, series.to_list(), listed)
    if kind.startswith("Categorical"):
        return _labelled(name, "Categorical", series, series.to_list(), None)
    if series.dtype.is_numeric() or kind in ("Boolean", "Null"):
        return Column(name, kind, series, np.asarray(series.to_numpy()).astype(np.float64))
    return Column(name, kind, series)


def _arrow(name: str, column: Any) -> Column:
    kind = str(column.type)
    if kind.startswith("dictionary"):
        return _labelled(name, "dictionary", column, column.to_pylist(), None)
    if _ARROW_NUMBER.match(kind):
        numbers = np.asarray(column.to_numpy(zero_copy_only=False)).astype(np.float64)
        return Column(name, kind, column, numbers)
    return Column(name, kind, column)


def _labelled(
    name: str, kind: str, source: Any, cells: list[Any], listed: list[Any] | None
) -> Column:
    """A categorical column from its cells; without a list the labels stand as they occur."""
    if listed is None:
        labels = tuple(dict.fromkeys(cell for cell in cells if cell is not None))
    else:
        labels = tuple(listed)
    place = {label: number for number, label in enumerate(labels)}
    codes = np.array([-1 if cell is None else place[cell] for cell in cells], np.int64)
    return Column(name, kind, source, None, labels, codes, declared=listed is not None)


def displayed(X: Any) -> np.ndarray | None:
    """The explained rows as an Explanation keeps them: numbers where all columns are numeric, with
    NaN for missing cells of any kind; None for sparse tables."""
    if has(X, "toarray"):
        return None
    if column_names(X) is None:
        return np.asarray(plain(X))
    at_once = in_one_piece(X)
    if at_once is not None:
        return at_once
    parts = columns(X)
    numbers = [column.numbers for column in parts if column.numbers is not None]
    if len(numbers) == len(parts):
        return np.stack(numbers, axis=1)
    cells = np.empty((len(parts[0].cells()), len(parts)), object)
    for j, column in enumerate(parts):
        if column.numbers is not None:
            cells[:, j] = column.numbers
        else:
            cells[:, j] = [cell if is_present(cell) else np.nan for cell in column.cells()]
    return cells


def is_present(label: Any) -> bool:
    """Tell whether a cell holds something; None, NaN, NaT and pandas' NA do not."""
    if label is None or type(label).__name__ in ("NAType", "NaTType"):
        return False
    return bool(label == label)


def numeric_matrix(X: Any, argument: str) -> np.ndarray:
    """Numbers of a table whose columns must all be numeric, float64 ``(n, d)``."""
    numbers = []
    for column in columns(X):
        if column.numbers is None:
            fail(
                argument,
                "numeric columns",
                f"{column.name!r} of type {column.kind}",
                "Encode these columns as numbers first",
            )
        numbers.append(column.numbers)
    return as_matrix(np.stack(numbers, axis=1), argument)
