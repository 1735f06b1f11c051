"""Hybrid rows: some columns from an explained row, the rest from a reference row.

``Rows`` keeps dtypes, categories and missing values of DataFrames, so that a model that only takes
DataFrames sees what it saw in training.

Needs: shaplab._validation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._validation import (
    as_matrix,
    check_callable,
    check_outputs,
    check_same_columns,
    check_table,
    fail,
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
        self.names = [str(name) for name in X.columns] if is_frame(X) else None
        self.evaluations = 0
        check_table(X, "X")
        check_table(background, argument)
        if is_frame(X) or is_frame(background):
            check_same_columns(X, background, argument)
            if len(X) == 0 or len(background) == 0:
                fail(
                    "X" if len(X) == 0 else argument,
                    "at least one row",
                    "none",
                    "Pass a non-empty table",
                )
            self._columns = [_joined(X[name], background[name]) for name in X.columns]
            self._frame: Any = X
            # Equal values of a column have equal numbers; missing values are equal.
            self._codes: Any = np.stack([column.factorize()[0] for column in self._columns], axis=1)
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
            parts[name] = column.take(np.where(present[:, j], rows, self.n + references))
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


def _joined(ours: Any, theirs: Any) -> Any:
    """Column values of both tables in one extension array of the same dtype."""
    if ours.dtype != theirs.dtype:
        both_numeric = (
            getattr(ours.dtype, "kind", "O") in "biuf"
            and getattr(theirs.dtype, "kind", "O") in "biuf"
        )
        if not both_numeric:
            fail(
                "background",
                f"column {ours.name!r} of dtype {ours.dtype}, as in X",
                str(theirs.dtype),
                "Give both tables the same dtypes and categories",
            )
    import pandas as pd

    return pd.concat([ours, theirs], ignore_index=True).array
