"""Hybrid rows: some columns from an explained row, the rest from a reference row.

``Rows`` keeps dtypes, categories and missing values of DataFrames, so that a model that only takes
DataFrames sees what it saw in training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._validation import (
    as_matrix,
    check_callable,
    check_outputs,
    check_rows,
    check_same_columns,
    column_names,
    fail,
    has,
    is_frame,
)

__all__ = ["Rows"]


class Rows:
    """Two tables with the same columns, and the model that reads their mixtures.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``; a torch module gets tensors, in evaluation
        mode.
    X : array or DataFrame ``(N, d)``, rows to explain.
    background : array or DataFrame ``(B, d)``, reference rows; ``argument`` is what the caller
        calls them.
    """

    def __init__(self, model: Any, X: Any, background: Any, argument: str = "background") -> None:
        check_callable(model, "model")
        self.model = (
            _TorchCall(model) if hasattr(model, "state_dict") and hasattr(model, "eval") else model
        )
        self.names = column_names(X)
        self.evaluations = 0
        check_rows(X, "X")
        check_rows(background, argument)
        if self.names is not None or column_names(background) is not None:
            check_same_columns(X, background, argument)
            _check_library(X, background, argument)
            if len(X) == 0 or len(background) == 0:
                fail(
                    "X" if len(X) == 0 else argument,
                    "at least one row",
                    "none",
                    "Pass a non-empty table",
                )
            self._columns = [_joined(X[name], background[name], argument) for name in X.columns]
            self._frame: Any = X
            # Equal values of a column have equal numbers; missing values are equal.
            self._codes: Any = np.stack([_numbered(column) for column in self._columns], axis=1)
            self.seen = self._codes[: len(X)], self._codes[len(X) :]
            self.n, self.size, self.d = len(X), len(background), X.shape[1]
        else:
            X, background = as_matrix(X, "X"), as_matrix(background, argument)
            check_same_columns(X, background, argument)
            self._frame = None
            self._X, self._background = X, background
            self.seen = X, background
            self.n, self.size, self.d = X.shape[0], background.shape[0], X.shape[1]

    def mix(self, present: np.ndarray, rows: np.ndarray, references: np.ndarray) -> Any:
        """Build ``r`` hybrid rows.

        ``present`` is boolean ``(r, d)``: True takes the column from ``X[rows]``, False from
        ``background[references]``; both index arrays have shape ``(r,)``.
        """
        if self._frame is None:
            return np.where(present, self._X[rows], self._background[references])
        parts = {}
        for j, (name, column) in enumerate(zip(self._frame.columns, self._columns, strict=True)):
            chosen = np.where(present[:, j], rows, self.n + references)
            parts[name] = (
                column.gather(chosen) if hasattr(column, "gather") else column.take(chosen)
            )
        if has(self._frame, "get_columns"):
            return type(self._frame)(parts)
        return type(self._frame)(parts, columns=self._frame.columns)

    def differs(self, rows: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Where rows of X and references have different values: ``(..., d)`` for indices
        ``(...)``."""
        return unequal(self.seen[0][rows], self.seen[1][references])

    def moving(self) -> np.ndarray:
        """Which columns of each row of X differ from some reference, ``(N, d)``: no other column
        can matter."""
        own, other = self.seen
        # A reference column of several values differs from any row somewhere.
        return unequal(own, other[0]) | unequal(other, other[0]).any(axis=0)

    def predict(self, table: Any) -> np.ndarray:
        """Call the model on rows and check what comes back, float64 ``(r,)`` or ``(r, K)``."""
        self.evaluations += len(table)
        found = check_outputs(self.model(table), len(table))
        self._per_row: tuple[int, ...] = getattr(self, "_per_row", found.shape[1:])
        if found.shape[1:] != self._per_row:
            fail(
                "model",
                f"outputs of shape {(len(table), *self._per_row)}, as for the first batch",
                f"shape {found.shape}",
                "Return as many outputs for any rows",
            )
        return found

    def outputs(self, present: np.ndarray, rows: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Model outputs of hybrid rows."""
        return self.predict(self.mix(present, rows, references))


def unequal(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where values differ; NaN equals NaN."""
    return np.asarray((own != other) & ((own == own) | (other == other)))


class _TorchCall:
    """A torch module as a function of arrays, left as it was found: same mode, no gradients."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, table: Any) -> np.ndarray:
        import torch

        weight = next(
            (p for p in self.module.parameters() if p.is_floating_point()), torch.zeros(())
        )
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with torch.inference_mode():
                # Torch wants arrays that may be written to, and warns of others.
                rows = torch.as_tensor(np.require(table, requirements=["C", "W"]))
                found = self.module(rows.to(dtype=weight.dtype, device=weight.device))
                return np.asarray(found.double().cpu().numpy())
        finally:
            for part, training in modes:
                part.training = training


def _check_library(X: Any, background: Any, argument: str) -> None:
    """Rows are mixed within one library, so that the model sees the kind of table it knows."""
    for table, name in ((X, "X"), (background, argument)):
        if has(table, "column_names"):
            fail(
                name,
                "an array or a DataFrame of pandas or polars",
                f"an Arrow {type(table).__name__}",
                "Pass X.to_pandas() and let the model read pandas",
                TypeError,
            )
    if is_frame(X) != is_frame(background):
        ours, theirs = (type(table).__module__.split(".")[0] for table in (X, background))
        fail(
            argument,
            "a DataFrame of the same library as X",
            f"{theirs} beside {ours}",
            "Convert one of them",
            TypeError,
        )


def _numbered(column: Any) -> np.ndarray:
    """Numbers that are equal where values are; missing values have one, too."""
    if hasattr(column, "factorize"):
        return np.asarray(column.factorize()[0])
    place: dict[Any, int] = {}
    return np.array(
        [place.setdefault(None if cell != cell else cell, len(place)) for cell in column.to_list()]
    )


def _joined(ours: Any, theirs: Any, argument: str) -> Any:
    """Column values of both tables in one column of the same dtype."""
    if hasattr(ours, "gather"):
        if ours.dtype != theirs.dtype:
            fail(
                argument,
                f"column {ours.name!r} of dtype {ours.dtype}, as in X",
                str(theirs.dtype),
                f"Give both tables the same dtypes: {argument}.cast(dict(X.schema))",
            )
        return ours.clone().append(theirs)
    if ours.dtype != theirs.dtype:
        both_numeric = (
            getattr(ours.dtype, "kind", "O") in "biuf"
            and getattr(theirs.dtype, "kind", "O") in "biuf"
        )
        if not both_numeric:
            fail(
                argument,
                f"column {ours.name!r} of dtype {ours.dtype}, as in X",
                str(theirs.dtype),
                "Give both tables the same dtypes and categories",
            )
    import pandas as pd

    return pd.concat([ours, theirs], ignore_index=True).array
