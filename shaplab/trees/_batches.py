"""Rows in, values out: encode rows batch by batch, collect their values, and look for overflow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from shaplab._parallel import chunks, progress_bar
from shaplab._tables import take_rows
from shaplab._validation import fail
from shaplab.trees.kernels.quadrature import BLOCK

__all__ = ["explain_rows"]


def explain_rows(
    trees: Any,
    X: Any,
    pairs: bool,
    compute: Callable[[np.ndarray], np.ndarray],
    out: Any = None,
    batch_size: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Encode rows of a table in batches and write their values to ``out`` ``(N, d[, d][, K])``,
    made here unless given."""
    d, k = trees.n_features, trees.n_outputs
    if len(X.shape) != 2 or X.shape[0] == 0:
        trees.encode(X)
    shape = (X.shape[0], d, *((d,) if pairs else ()), *((k,) if trees.has_outputs else ()))
    try:
        found = _result(out, shape)
        size = 2**23 // ((d + d * d * pairs) * k)
        size = max(BLOCK, min(65536, size)) if batch_size is None else batch_size
        with progress_bar(X.shape[0], progress, "rows") as bar:
            for part in chunks(X.shape[0], size):
                codes = np.ascontiguousarray(trees.encode(take_rows(X, part)).T)
                target = found[part] if trees.has_outputs else found[part][..., None]
                _unfold(compute(codes), d, k, pairs, target)
                _check_finite(trees, codes, found[part], part.start)
                bar.update(codes.shape[1])
    except MemoryError:
        fail(
            "X",
            f"memory for a result of shape {shape}",
            f"too little: {8 * math.prod(shape) / 2**30:.3g} GiB, and working space",
            "Explain fewer rows at a time, or pass out=np.memmap(..., dtype=float, shape=that "
            "shape) with a smaller batch_size",
            MemoryError,
        )
    return found


def _result(out: Any, shape: tuple[int, ...]) -> np.ndarray:
    if out is None:
        return np.empty(shape)
    if (
        not isinstance(out, np.ndarray)
        or out.shape != shape
        or out.dtype != np.float64
        or not out.flags.writeable
    ):
        fail(
            "out",
            f"a writeable float64 array of shape {shape}",
            out,
            "Make it with np.empty or np.memmap",
        )
    return out


def _unfold(sums: np.ndarray, d: int, k: int, pairs: bool, target: np.ndarray) -> None:
    """Write sums ``(n_targets, n)`` to values ``(n, d[, d], K)``."""
    values = sums[: d * k].reshape(d, k, -1)
    if not pairs:
        target[:] = values.transpose(2, 0, 1)
        return
    both = sums[d * k :].reshape(d, d, k, -1)
    both += both.transpose(1, 0, 2, 3)  # the lower triangle was filled, the diagonal is 0
    both[np.arange(d), np.arange(d)] = values - both.sum(axis=1)
    target[:] = both.transpose(3, 0, 1, 2)


def _check_finite(trees: Any, codes: np.ndarray, values: np.ndarray, first: int) -> None:
    """Values overflow only where leaves are near the largest float; say where."""
    if np.isfinite(values).all():
        return
    place = np.argwhere(~np.isfinite(values))[0]
    row, j = int(place[0]), int(place[1])
    own = trees.predict_codes(np.ascontiguousarray(codes[:, row : row + 1].T))[0]
    if not np.isfinite(own).all():
        fail(
            "model",
            "finite outputs",
            f"{own} for row {first + row}: the model's own output overflows",
            "Scale the target of the model",
        )
    leaf = int(np.abs(trees.value).max(axis=1).argmax())
    tree = int(np.searchsorted(trees.tree_start, leaf, side="right")) - 1
    name = trees.feature_names[j] if trees.feature_names else j
    fail(
        "model",
        "leaves whose differences fit into float64",
        f"a value of {values[tuple(place)]} for feature {name!r} of row {first + row}; the largest "
        f"leaf, node {leaf - trees.tree_start[tree]} of tree {tree}, pays {trees.value[leaf]}",
        "Scale the target of the model",
    )
