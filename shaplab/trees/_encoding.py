"""From a library's values to integer codes, the same for every library.

A numeric feature with sorted thresholds ``c_1 < ... < c_m`` gets the code ``#{k : c_k < x}``, so
that ``x <= c_k`` is exactly ``code < k``. Strict comparisons become weak ones by moving each
threshold to its neighbour in the model's own number type: ``x < t`` is ``x <= prev(t)``. A
category's code is its number, one more code stands for all categories the model never saw, and
``-1`` is missing.

Needs: shaplab._validation, shaplab.trees.kernels.predict.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from shaplab._validation import as_matrix, column_names, fail, is_frame, shorten
from shaplab.trees.kernels.predict import encode_rows

__all__ = ["Encoder"]


@dataclass(frozen=True, eq=False)
class Encoder:
    """Turns rows into codes ``(N, d)`` as the model's own library would compare them."""

    cuts: np.ndarray
    cut_start: np.ndarray
    n_categories: np.ndarray
    zero_rule: np.ndarray
    labels: dict[int, tuple[Any, ...]]
    always_labels: bool
    frame_labels: tuple[tuple[Any, ...], ...] | None
    unseen: str
    missing_value: float
    sparse_missing: bool
    nan_allowed: bool
    inf_allowed: bool
    feature_names: tuple[str, ...] | None

    @property
    def n_codes(self) -> np.ndarray:
        """Number of codes of each feature, the missing code -1 not counted."""
        return np.where(self.n_categories > 0, self.n_categories, np.diff(self.cut_start)) + 1

    def encode(self, X: Any, argument: str = "X") -> np.ndarray:
        """Return codes, int32 ``(N, d)``, C-contiguous."""
        d = len(self.n_categories)
        table = self._numbers(X, argument)
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
        zero, missing = float(np.float32(1e-35)), self.cuts.dtype.type(self.missing_value)
        # LightGBM cuts -0.5 to category 0, XGBoost knows no negative category.
        encode_rows(
            table,
            self.cuts,
            self.cut_start,
            self.n_categories,
            self.zero_rule,
            zero,
            missing,
            self.unseen == "missing",
            -1.0 if table.dtype == np.float64 else -1e-45,
            codes,
        )
        return codes

    def _numbers(self, X: Any, argument: str) -> np.ndarray:
        """A float table in which categories are their codes."""
        if is_frame(X):
            return self._frame(X, argument)
        if (
            hasattr(X, "tocoo") and self.sparse_missing
        ):  # what a sparse matrix leaves out is missing, not zero
            entries = X.tocoo()
            table = np.full(X.shape, np.nan)
            table[entries.row, entries.col] = entries.data
            return as_matrix(table, argument)
        if not (self.labels and self.always_labels):
            return as_matrix(X, argument)
        cells = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        if cells.ndim != 2 or cells.shape[1] != len(self.n_categories):
            return as_matrix(
                X, argument
            )  # says what is wrong, or leaves it to the check of columns
        if cells.dtype.kind not in "biufO":
            cells = cells.astype(object)
        columns = [
            self._codes(cells[:, j], self.labels[j], j, argument)
            if j in self.labels
            else cells[:, j]
            for j in range(cells.shape[1])
        ]
        try:
            return as_matrix(
                np.stack([np.asarray(column, np.float64) for column in columns], axis=1), argument
            )
        except (TypeError, ValueError):
            fail(
                argument,
                "numbers in every column that is not a category",
                X,
                "Encode text as numbers first",
            )

    def _frame(self, X: Any, argument: str) -> np.ndarray:
        names = column_names(X) or []
        # LightGBM stores blanks in names as underscores.
        ours, theirs = (
            [name.replace(" ", "_") for name in some]
            for some in (self.feature_names or names, names)
        )
        if ours != theirs:
            missing = [name for name in ours if name not in theirs]
            extra = [name for name in theirs if name not in ours]
            got = (
                "; ".join(
                    f"{what} {shorten(', '.join(which))}"
                    for what, which in (("missing", missing), ("unknown", extra))
                    if which
                )
                or "another order"
            )
            fail(
                argument,
                "the columns the model was fitted on, in their order",
                got,
                "Select and order the columns",
            )
        labels = self.labels
        if (
            self.frame_labels is not None
        ):  # LightGBM: the k-th list belongs to the k-th categorical column
            places = [j for j, kind in enumerate(X.dtypes) if hasattr(kind, "categories")]
            if len(places) != len(self.frame_labels):
                fail(
                    argument,
                    f"{len(self.frame_labels)} categorical columns, as in training",
                    f"{len(places)}",
                    "Convert the same columns with astype('category')",
                )
            labels = dict(zip(places, self.frame_labels, strict=True))
        if not labels and all(isinstance(kind, np.dtype) for kind in X.dtypes):
            return as_matrix(X, argument)
        table = np.empty(X.shape, np.float64)
        for j, name in enumerate(names):
            column = X.iloc[:, j]
            kind = column.dtype
            if j in labels:
                if not self.always_labels and not hasattr(kind, "categories"):
                    fail(
                        argument,
                        f"a categorical column {name!r}, as in training",
                        str(kind),
                        "Convert the column with astype('category')",
                    )
                if labels[j] and isinstance(labels[j][0], bytes):
                    table[:, j] = self._same_order(column, labels[j], j, argument)
                    continue
                table[:, j] = self._codes(column, labels[j], j, argument)
            elif hasattr(kind, "categories"):
                if j >= len(self.n_categories) or self.n_categories[j] == 0:
                    fail(
                        argument,
                        f"a numeric column {name!r}, as the model has it",
                        str(kind),
                        "Pass it as numbers",
                    )
                codes = column.cat.codes.to_numpy()
                table[:, j] = np.where(codes < 0, np.nan, codes)
            elif getattr(kind, "kind", "O") not in "biuf":
                fail(
                    argument,
                    "numeric columns",
                    f"{name!r} of type {kind}",
                    "Encode these columns as numbers first",
                )
            else:
                table[:, j] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return as_matrix(table, argument)

    def _codes(self, column: Any, labels: tuple[Any, ...], j: int, argument: str) -> np.ndarray:
        """Codes of a column of labels; NaN where missing or, if the library says so, unseen."""
        code = {label: float(k) for k, label in enumerate(labels)}

        def look_up(values: Any) -> np.ndarray:
            return np.array(
                [
                    code.get(label, -1.0) if label in code or _present(label) else np.nan
                    for label in values.tolist()
                ],
                np.float64,
            )

        if hasattr(column, "cat"):  # one look-up for each category, not for each row
            found = np.append(look_up(column.cat.categories), np.nan)[column.cat.codes.to_numpy()]
        else:
            found = look_up(column)
        unseen = found < 0
        if unseen.any() and self.unseen == "error":
            fail(
                argument,
                f"categories known to the model in column {self._name(j)}",
                repr(np.asarray(column, dtype=object)[np.argmax(unseen)]),
                "Map unseen categories to known ones or to missing",
            )
        return np.where(unseen, np.nan, found)

    def _same_order(
        self, column: Any, labels: tuple[Any, ...], j: int, argument: str
    ) -> np.ndarray:
        """Codes of a column whose training labels XGBoost stored cut: bytes at character
        offsets."""
        names = [str(label) for label in column.cat.categories]
        text, ends = "".join(names).encode(), np.cumsum([0] + [len(name) for name in names])
        if tuple(text[a:b] for a, b in pairwise(ends)) != labels:
            fail(
                argument,
                f"the training's categories in their order in column {self._name(j)}",
                shorten(names),
                "XGBoost damages names that are not ASCII when it stores them; use "
                "cat.set_categories",
            )
        codes = column.cat.codes.to_numpy()
        return np.where(codes < 0, np.nan, codes)

    def _name(self, j: int) -> str:
        return repr(self.feature_names[j]) if self.feature_names else str(j)


def _present(label: Any) -> bool:
    """Tell whether a cell holds a label; None, NaN and pandas' NA do not."""
    return label is not None and bool(label == label) if type(label).__name__ != "NAType" else False
