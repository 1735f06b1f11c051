"""Rows in, an explanation out: encode rows batch by batch, collect their values, and look for
overflow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shaplab._parallel import chunks, progress_bar
from shaplab._tables import as_rows, take_rows
from shaplab._validation import check_int, fail, row_labels
from shaplab.explanation import Explanation
from shaplab.trees._plans import Jobs, threads
from shaplab.trees._players import Players
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.kernels.quadrature import WALK_ROWS

__all__ = ["PreparedGame", "RowOptions", "explain_rows", "rows_a_batch"]


@dataclass(frozen=True)
class RowOptions:
    """The keywords of ``tree_shap`` that say how rows are explained, not what."""

    n_jobs: int | None = 1
    batch_size: int | None = None
    out: Any = None
    progress: bool = False


def explain_rows(
    trees: TreeEnsemble,
    players: Players,
    X: Any,
    pairs: bool,
    sums_of: Callable[[np.ndarray], np.ndarray],
    options: RowOptions,
) -> np.ndarray:
    """Values ``(N, n_players[, n_players][, K])`` of a table's rows, in ``options.out`` if given.

    ``sums_of`` turns codes ``(d, n)`` into sums ``(n_targets, n)``, see ``walk_trees``.
    """
    if len(X.shape) != 2 or X.shape[0] == 0:
        trees.encode(X)  # says what is wrong
    n_rows = X.shape[0]
    d = players.count
    k = trees.n_outputs
    shape: tuple[int, ...] = (n_rows, d)
    if pairs:
        shape += (d,)
    if trees.has_outputs:
        shape += (k,)
    size = rows_a_batch(trees, players, pairs, options)
    try:
        values = _result(options.out, shape)
        with progress_bar(n_rows, options.progress, "rows") as bar:
            for part in chunks(n_rows, size):
                codes = np.ascontiguousarray(trees.encode(take_rows(X, part)).T)
                target = values[part] if trees.has_outputs else values[part][..., None]
                _unfold(sums_of(codes), d, k, pairs, target)
                _check_finite(trees, players, codes, values[part], part.start)
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
    return values


def rows_a_batch(trees: TreeEnsemble, players: Players, pairs: bool, options: RowOptions) -> int:
    """Rows that are encoded and explained together."""
    if options.batch_size is not None:
        return options.batch_size
    numbers = (players.count + players.count**2 * pairs) * trees.n_outputs
    return max(WALK_ROWS, min(65536, 2**23 // max(1, numbers)))


def _result(out: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The array that the values go to."""
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


def _check_finite(
    trees: TreeEnsemble, players: Players, codes: np.ndarray, values: np.ndarray, first: int
) -> None:
    """Values overflow only where leaves are near the largest float; say where."""
    if np.isfinite(values).all():
        return
    place = np.argwhere(~np.isfinite(values))[0]
    row = int(place[0])
    j = int(place[1])
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
    name = players.names[j] if players.names else j
    fail(
        "model",
        "leaves whose differences fit into float64",
        f"a value of {values[tuple(place)]} for feature {name!r} of row {first + row}; the largest "
        f"leaf, node {leaf - trees.tree_start[tree]} of tree {tree}, pays {trees.value[leaf]}",
        "Scale the target of the model",
    )


class PreparedGame:
    """A model prepared for one game, to be called on rows: what both games have in common.

    ``_plan`` gives the sums of encoded rows; ``_method`` names the function of the game and the
    game.
    """

    trees: TreeEnsemble
    players: Players
    interactions: bool
    memory_limit: int
    feature_names: tuple[str, ...] | None
    _plan: Any
    _method: tuple[str, str]

    def __call__(
        self,
        X: Any,
        *,
        n_jobs: int | None = 1,
        batch_size: int | None = None,
        out: Any = None,
        progress: bool = False,
    ) -> Explanation:
        """Explain rows ``(N, d)``; arguments as in the function of the same game."""
        X = as_rows(X, "X")
        names = self._names_of(X)
        if batch_size is not None:
            check_int(batch_size, "batch_size")
        jobs = threads(n_jobs)
        self._plan.keep_tables(self.memory_limit, jobs)
        players = self.players
        if not players.grouped:  # the rows may have names where nothing prepared has any
            players = replace(players, names=names)
        values = explain_rows(
            self.trees,
            players,
            X,
            self.interactions,
            lambda codes: self._plan.sums(codes, jobs),
            RowOptions(n_jobs, batch_size, out, progress),
        )
        base = np.broadcast_to(self._base(X, values, jobs), (len(values), self.trees.n_outputs))
        name, game = self._method
        return Explanation(
            values,
            base if self.trees.has_outputs else base[:, 0],
            players.shown(X),
            players.names,
            self.trees.output_names,
            index=row_labels(X),
            method=f"{name}{'_interactions' * self.interactions} ({game})",
            interaction=self.interactions,
            info=self._info(),
        )

    def _names_of(self, X: Any) -> tuple[str, ...] | None:
        """Names of the features of a result."""
        return self.trees.names_for(X, self.feature_names)

    def _base(self, X: Any, values: np.ndarray, jobs: Jobs) -> np.ndarray:
        """What nobody gets, ``(K,)``; ``values`` may still be added to."""
        del X, values, jobs
        return self._plan.paths.expected

    def _info(self) -> dict[str, Any]:
        """What else to tell with a result."""
        return {}
