"""From a library's values to integer codes, the same for every library.

A numeric feature with sorted thresholds ``c_1 < ... < c_m`` gets the code ``#{k : c_k < x}``, so
that ``x <= c_k`` is exactly ``code < k``. Strict comparisons become weak ones by moving each
threshold to its neighbour in the model's own number type: ``x < t`` is ``x <= prev(t)``. A
category's code is its place among the categories that occur in the model's splits (a library's own
codes may run to a million), one more code stands for all others, which no split tells apart, and
``-1`` is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from shaplab._tables import Column, as_rows, columns, in_one_piece, is_present, numeric_matrix
from shaplab._validation import as_matrix, column_names, compare_names, fail, has, plain, shorten
from shaplab.trees.kernels.predict import Codebook, encode_rows

__all__ = ["Encoder"]


@dataclass(frozen=True, eq=False)
class Encoder:
    """Turns rows into codes ``(N, d)`` as the model's own library would compare them.

    ``categorical`` ``(d,)`` marks features whose splits are sets; the library's codes that those
    sets hold are ``categories[category_start[j]:category_start[j + 1]]``, sorted. ``names_made``
    tells that the library made ``feature_names`` up, so that a table's own names win. ``label_of``
    turns a cell into the label the model knows it by, None where the library takes it for none.
    """

    cuts: np.ndarray
    cut_start: np.ndarray
    categorical: np.ndarray
    categories: np.ndarray
    category_start: np.ndarray
    zero_rule: np.ndarray
    labels: dict[int, tuple[Any, ...]]
    always_labels: bool
    frame_labels: tuple[tuple[Any, ...], ...] | None
    unseen: str
    missing_value: float
    sparse_missing: bool | None
    nan_allowed: bool
    inf_allowed: bool
    feature_names: tuple[str, ...] | None
    names_made: bool = False
    blanks_replaced: bool = False
    label_of: Callable[[Any], Any] | None = None

    @property
    def n_codes(self) -> np.ndarray:
        """Number of codes of each feature, the missing code -1 not counted."""
        return np.where(self.categorical, np.diff(self.category_start), np.diff(self.cut_start)) + 1

    def encode(self, X: Any, argument: str = "X") -> np.ndarray:
        """Return codes, int32 ``(N, d)``, C-contiguous."""
        d = len(self.categorical)
        table = self._numbers(as_rows(X, argument), argument)
        if table.shape[1] != d:
            fail(
                argument,
                f"{d} columns",
                f"{table.shape[1]}",
                "Pass the columns the model was fitted on",
            )
        if not self.nan_allowed and np.isnan(table).any():
            fail(
                argument,
                "no missing values, as the model's library requires",
                "NaN",
                "Impute them first",
            )
        with np.errstate(
            over="ignore"
        ):  # what is too large for float32 is infinite for the library, too
            table = np.ascontiguousarray(table, dtype=self.cuts.dtype)
        if not self.inf_allowed and np.isinf(table).any():
            fail(
                argument,
                f"numbers within {self.cuts.dtype}, as the model's library requires",
                "infinite values",
                "Replace or clip them first",
            )
        codes = np.empty(table.shape, np.int32)
        # LightGBM's kZeroThreshold is the float32 1e-35: smaller magnitudes are missing (rule 1) or
        # zero (rule 2).
        book = Codebook(
            cuts=self.cuts,
            cut_start=self.cut_start,
            categorical=self.categorical,
            categories=self.categories,
            category_start=self.category_start,
            zero_rule=self.zero_rule,
            tiny=float(np.float32(1e-35)),
            missing=self.cuts.dtype.type(self.missing_value),
            unseen_missing=self.unseen == "missing",
            # LightGBM cuts -0.5 to category 0, XGBoost knows no negative category.
            lowest_category=-1.0 if table.dtype == np.float64 else -1e-45,
        )
        encode_rows(table, book, codes)
        return codes

    def numbers(self, X: Any, argument: str) -> np.ndarray:
        """The numbers that the library computes with, float64 ``(N, d)``; NaN is missing."""
        return np.ascontiguousarray(self._numbers(as_rows(X, argument), argument), np.float64)

    def _numbers(self, X: Any, argument: str) -> np.ndarray:
        """A float table in which categories are the library's codes."""
        if column_names(X) is not None:
            return self._table(X, argument)
        if has(X, "tocoo") and self.sparse_missing is None:
            fail(
                argument,
                "a dense table, since the parts of the model read the zeros of a sparse one "
                "differently",
                f"a {type(X).__name__}",
                f"Pass {argument}.toarray()",
            )
        if (
            has(X, "tocoo") and self.sparse_missing
        ):  # what a sparse matrix leaves out is missing, not zero
            entries = X.tocoo()
            table = np.full(X.shape, np.nan)
            table[entries.row, entries.col] = entries.data
            return as_matrix(table, argument)
        if not (self.labels and self.always_labels):
            return as_matrix(X, argument)
        cells = np.asarray(plain(X))
        if cells.ndim != 2 or cells.shape[1] != len(self.categorical):
            return as_matrix(
                X, argument
            )  # says what is wrong, or leaves it to the check of columns
        if cells.dtype.kind not in "biufO":
            cells = cells.astype(object)
        found = np.empty(cells.shape)
        for j in range(cells.shape[1]):
            column = cells[:, j]
            if j in self.labels:
                found[:, j] = self._look_up(column.tolist(), self.labels[j], j, argument)
                self._check_text(column.dtype.kind in "biuf", found[:, j], column, j, argument)
                continue
            try:
                found[:, j] = column
            except (TypeError, ValueError):
                fail(
                    argument,
                    "numbers in every column that is not a category",
                    f"{shorten(repr(column[0]))} in column {self._name(j)}",
                    "Encode text as numbers first",
                )
        return as_matrix(found, argument)

    def _check_text(
        self, numeric: bool, codes: np.ndarray, cells: Any, j: int, argument: str
    ) -> None:
        """Numbers where the training had text match no category; scikit-learn refuses them, too."""
        text = self.always_labels and any(isinstance(label, str) for label in self.labels[j])
        if text and numeric and any(is_present(cell) for cell in np.asarray(cells).tolist()):
            fail(
                argument,
                f"text categories in column {self._name(j)}, as in training",
                "numbers",
                "Pass the categories themselves, not their codes: a DataFrame as in fit, or an "
                "array of dtype object",
            )

    def check_names(self, names: list[str], argument: str) -> None:
        """Require the names the model was fitted with, in their order, if it was fitted with names.

        Notes
        -----
        LightGBM stores blanks as underscores, and only it: there "unit price" may be what the model
        calls unit_price, unless the table has a column of that name as well.
        """
        if self.feature_names is None:
            return
        ours = list(self.feature_names)
        if self.names_made and not set(ours) & set(names):
            return
        theirs = names
        if self.blanks_replaced:
            spelled = [name.replace(" ", "_") for name in names]
            theirs = [
                name if name in ours or other in names else other
                for name, other in zip(names, spelled, strict=True)
            ]
        compare_names(ours, names, theirs, argument, "the model was fitted on")

    def _table(self, X: Any, argument: str) -> np.ndarray:
        names = column_names(X) or []
        self.check_names(names, argument)
        d = len(self.categorical)
        if len(names) != d or X.shape[0] == 0:
            return as_matrix(np.empty((X.shape[0], len(names))), argument, n_columns=d)
        at_once = None if self.labels or self.frame_labels else in_one_piece(X)
        if at_once is not None:
            return as_matrix(at_once, argument)
        found = columns(X)
        labels = self.labels
        if (
            self.frame_labels is not None
        ):  # LightGBM: the k-th list belongs to the k-th categorical column
            places = [j for j, column in enumerate(found) if column.labels is not None]
            if len(places) != len(self.frame_labels):
                fail(
                    argument,
                    f"{len(self.frame_labels)} categorical columns, as in training",
                    f"{len(places)}",
                    "Convert the same columns with astype('category')",
                )
            labels = dict(zip(places, self.frame_labels, strict=True))
        if not labels and all(column.numbers is not None for column in found):
            return numeric_matrix(X, argument)
        table = [self._column(column, j, labels.get(j), argument) for j, column in enumerate(found)]
        return as_matrix(np.stack(table, axis=1), argument)

    def _column(
        self, column: Column, j: int, labels: tuple[Any, ...] | None, argument: str
    ) -> np.ndarray:
        """Numbers of one column, or the library's codes of its categories."""
        if labels is not None:
            if not self.always_labels and column.labels is None:
                fail(
                    argument,
                    f"a categorical column {column.name!r}, as in training",
                    column.kind,
                    "Convert the column with astype('category')",
                )
            if labels and isinstance(labels[0], bytes):
                return self._same_order(column, labels, j, argument)
            return self._codes(column, labels, j, argument)
        if column.numbers is not None:
            return column.numbers
        if column.labels is None or column.codes is None:
            fail(
                argument,
                "numeric columns",
                f"{column.name!r} of type {column.kind}",
                "Encode these columns as numbers first",
            )
        if not self.categorical[j]:
            fail(
                argument,
                f"a numeric column {column.name!r}, as the model has it",
                column.kind,
                "Pass it as numbers",
            )
        if not column.declared:
            fail(
                argument,
                f"a column {column.name!r} whose categories have an order, since the model knows "
                "only their codes",
                column.kind,
                "Cast it to polars' Enum or a pandas category with the training's categories in "
                "their order",
            )
        return np.where(column.codes < 0, np.nan, column.codes)

    def _codes(self, column: Column, labels: tuple[Any, ...], j: int, argument: str) -> np.ndarray:
        """Codes of a column of labels; NaN where missing or, if the library says so, unseen."""
        if column.labels is None or column.codes is None or self.label_of is not None:
            found = self._look_up(column.cells(), labels, j, argument)
            self._check_text(column.numbers is not None, found, column.numbers, j, argument)
            return found
        # One look-up for each category, not for each row; only categories that occur may be unseen.
        occurs = np.zeros(len(column.labels) + 1, bool)
        occurs[column.codes] = True
        listed = [
            label if here else None for label, here in zip(column.labels, occurs, strict=False)
        ]
        found = np.append(self._look_up(listed, labels, j, argument), np.nan)[column.codes]
        numeric = all(isinstance(label, int | float) for label in column.labels)
        self._check_text(
            numeric, found, [label for label in listed if label is not None], j, argument
        )
        return found

    def _look_up(
        self, cells: list[Any], labels: tuple[Any, ...], j: int, argument: str
    ) -> np.ndarray:
        """Code of each cell; NaN where missing or, if the library says so, unseen."""
        code = {label: float(k) for k, label in enumerate(labels)}
        if self.label_of is not None:
            return self._look_up_spelled(cells, code, j, argument)
        found = np.full(len(cells), np.nan)
        for i, label in enumerate(cells):
            known = code.get(label)
            if known is not None:
                found[i] = known
            elif self.unseen == "error" and is_present(label):
                fail(
                    argument,
                    f"categories known to the model in column {self._name(j)}",
                    repr(str(label) if isinstance(label, str) else label),
                    "Map unseen categories to known ones or to missing",
                )
        return found

    def _look_up_spelled(
        self, cells: list[Any], code: dict[Any, float], j: int, argument: str
    ) -> np.ndarray:
        """Code of each cell by the label that the library makes of it; one for all unseen ones."""
        spelled: dict[Any, float] = {}
        found = np.empty(len(cells))
        for i, cell in enumerate(cells):
            seen = (type(cell), cell)  # 1 and 1.0 are equal, but not the same category
            known = spelled.get(seen) if isinstance(cell, Hashable) else None
            if known is None:
                label = self.label_of(cell) if self.label_of else cell
                if label is None:
                    fail(
                        argument,
                        f"text or whole numbers in the categorical column {self._name(j)}, as the "
                        "model's library requires",
                        repr(cell),
                        "Make them text as in training, with a text of its own for missing cells",
                    )
                known = spelled[seen] = code.get(label, float(len(code)))
            found[i] = known
        return found

    def _same_order(
        self, column: Column, labels: tuple[Any, ...], j: int, argument: str
    ) -> np.ndarray:
        """Codes of a column whose training labels XGBoost stored cut: bytes at character
        offsets."""
        if len(set(labels)) < len(labels):  # XGBoost's own predict takes one for the other
            fail(
                argument,
                f"categories that the model tells apart in column {self._name(j)}",
                f"names that XGBoost has cut to {len(set(labels))} for {len(labels)} categories",
                "Rename them in ASCII, cat.rename_categories, and train again, or use XGBoost 3.4",
            )
        names = [str(label) for label in column.labels or ()]
        text = "".join(names).encode()
        ends = np.cumsum([0] + [len(name) for name in names])
        if not column.declared or tuple(text[a:b] for a, b in pairwise(ends)) != labels:
            fail(
                argument,
                f"the training's categories in their order in column {self._name(j)}",
                shorten(names),
                "XGBoost damages names that are not ASCII when it stores them; use "
                "cat.set_categories",
            )
        codes = np.asarray(column.codes)
        return np.where(codes < 0, np.nan, codes)

    def _name(self, j: int) -> str:
        return repr(self.feature_names[j]) if self.feature_names else str(j)
