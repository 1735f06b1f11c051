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
    imported,
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
        is_module = hasattr(model, "state_dict") and hasattr(model, "eval")
        self.model = _TorchCall(model) if is_module else model
        self.names = column_names(X)
        self.evaluations = 0
        check_rows(X, "X")
        check_rows(background, argument)
        self.is_table = self.names is not None or column_names(background) is not None
        if self.is_table:
            self._read_tables(X, background, argument)
        else:
            self._read_arrays(X, background, argument)

    def _read_arrays(self, X: Any, background: Any, argument: str) -> None:
        self.X: Any = as_matrix(X, "X")
        self.background = as_matrix(background, argument)
        check_same_columns(self.X, self.background, argument)
        self.seen = (self.X, self.background)
        self.n, self.d = self.X.shape
        self.size = len(self.background)

    def _read_tables(self, X: Any, background: Any, argument: str) -> None:
        """Keep each column of both tables in one piece, and numbers that are equal where its values
        are; missing values are equal."""
        check_same_columns(X, background, argument)
        _check_library(X, background, argument)
        for table, name in ((X, "X"), (background, argument)):
            if len(table) == 0:
                fail(name, "at least one row", "none", "Pass a non-empty table")
        self.X = X
        self._columns = [_joined(X[name], background[name], argument) for name in X.columns]
        codes = np.stack([_numbered(column) for column in self._columns], axis=1)
        self.seen = (codes[: len(X)], codes[len(X) :])
        self.n, self.d = X.shape
        self.size = len(background)

    def mix(self, present: np.ndarray, rows: np.ndarray, references: np.ndarray) -> Any:
        """Build ``r`` hybrid rows.

        ``present`` is boolean ``(r, d)``: True takes the column from ``X[rows]``, False from
        ``background[references]``; both index arrays have shape ``(r,)``.
        """
        if not self.is_table:
            return np.where(present, self.X[rows], self.background[references])
        parts = {}
        for j, (name, column) in enumerate(zip(self.X.columns, self._columns, strict=True)):
            chosen = np.where(present[:, j], rows, self.n + references)
            is_polars = hasattr(column, "gather")
            parts[name] = column.gather(chosen) if is_polars else column.take(chosen)
        if has(self.X, "get_columns"):
            return type(self.X)(parts)
        return type(self.X)(parts, columns=self.X.columns)

    def moving(self) -> np.ndarray:
        """Which columns of each row of X differ from some reference, ``(N, d)``: no other column
        can matter."""
        own, other = self.seen
        # A reference column of several values differs from any row somewhere.
        return unequal(own, other[0]) | unequal(other, other[0]).any(axis=0)

    def predict(self, table: Any) -> np.ndarray:
        """Call the model on rows and check what comes back, float64 ``(r,)`` or ``(r, K)``."""
        self.evaluations += len(table)
        outputs = check_outputs(self.model(table), len(table))
        if not hasattr(self, "_per_row"):
            self._per_row = outputs.shape[1:]
        if outputs.shape[1:] != self._per_row:
            fail(
                "model",
                f"outputs of shape {(len(table), *self._per_row)}, as for the first batch",
                f"shape {outputs.shape}",
                "Return as many outputs for any rows",
            )
        return outputs

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

        weights = (p for p in self.module.parameters() if p.is_floating_point())
        weight = next(weights, torch.zeros(()))
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        try:
            with torch.inference_mode():
                # Torch wants arrays that may be written to, and warns of others.
                rows = torch.as_tensor(np.require(table, requirements=["C", "W"]))
                outputs = self.module(rows.to(dtype=weight.dtype, device=weight.device))
                return np.asarray(outputs.double().cpu().numpy())
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
    number_of: dict[Any, int] = {}
    numbers = []
    for cell in column.to_list():
        # Only a missing cell differs from itself.
        key = None if cell != cell else cell
        numbers.append(number_of.setdefault(key, len(number_of)))
    return np.array(numbers)


def _joined(ours: Any, theirs: Any, argument: str) -> Any:
    """Column values of both tables in one column of the same dtype."""
    if ours.dtype != theirs.dtype:
        rule = f"column {ours.name!r} of dtype {ours.dtype}, as in X"
        if hasattr(ours, "gather"):
            remedy = f"Give both tables the same dtypes: {argument}.cast(dict(X.schema))"
            fail(argument, rule, str(theirs.dtype), remedy)
        if not (_is_number(ours.dtype) and _is_number(theirs.dtype)):
            remedy = "Give both tables the same dtypes and categories"
            fail(argument, rule, str(theirs.dtype), remedy)
    if hasattr(ours, "gather"):
        return ours.clone().append(theirs)
    pd = imported("pandas", "X")
    return pd.concat([ours, theirs], ignore_index=True).array


def _is_number(kind: Any) -> bool:
    """Whether pandas may join a column of this dtype with other numbers."""
    return getattr(kind, "kind", "O") in "biuf"
