"""The interventional game of leaves that are linear models: LightGBM's ``linear_tree``.

A leaf pays its value v and, if none of its own features is missing, s + sum_j slope_j x_j more,
with s the constant of its sum less v. The first part is a tree of constant leaves like any other.
The second is, for a row x and a reference c, a sum of product games: each player of the path or the
sum has a factor, 1 or 0, for passing its splits and having no feature missing, in the coalition
with the row's features and outside of it with the reference's; one player's factor is multiplied by
its part of the sum, a_j = slope_j x_j or b_j = slope_j c_j.

A factor that is 0 on both sides ends the game. Say that only x passes at the p players of P and
only c at the n players of N: nothing is paid unless a coalition S holds P and nobody of N. Then the
sum is fixed = s + sum over P of a + sum over all others of b, and a_j - b_j more for each other
player j in S, whom both x and c pass. So the game is fixed times the game of P and N plus, for each
such j, (a_j - b_j) times the game of P with j, and N. With F(a, b) = a! b! / (a + b + 1)!, the
Shapley value of members of a game that needs a + 1 and keeps out b, and free = sum over those j of
a_j - b_j:

    members of P     fixed F(p - 1, n) + free F(p, n)
    members of N    -fixed F(p, n - 1) - free F(p + 1, n - 1)
    the others j     (a_j - b_j) F(p, n)

Groups of features are players like any other: a and b are their features' parts. Nothing of this
exists for the path-dependent game, which asks for the mean of a leaf's sum over the rows of
training that reached it. LightGBM keeps no such mean. Cost: rows x references x leaves x players of
a leaf. Chapter: trees/interventional.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._parallel import chunks
from shaplab._tables import as_rows, take_rows
from shaplab._validation import fail
from shaplab.trees._plans import Jobs, shapley_factors
from shaplab.trees._players import Players
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.kernels.linear import LeafPlayers, LeafRows, LinearLeaves, add_linear_values
from shaplab.trees.kernels.structure import PARENT, PLAYERS, PathArrays

__all__ = ["LinearPart"]

_LINEAR_ROWS = 256  # that one thread takes at a time, with all answers of the background


class LinearPart:
    """What leaves that are linear models pay on top of their values, over a background."""

    def __init__(
        self,
        trees: TreeEnsemble,
        linear: LinearLeaves,
        players: Players,
        paths: PathArrays,
        background: Any,
        weights: np.ndarray,
    ) -> None:
        self.trees = trees
        self.linear = linear
        self.label = players.label
        self.nodes = players.nodes(trees)
        self.parent = np.ascontiguousarray(paths.edges[:, PARENT])
        self.weights = weights
        self.background = trees.codes_and_numbers(background, "background")
        n_slopes = np.diff(linear.start)
        leaf = trees.feature < 0
        self.leaves = np.flatnonzero(leaf & ((n_slopes > 0) | (linear.shift != 0.0)))
        own = paths.edges[self.leaves, PLAYERS] + n_slopes[self.leaves]
        self.most_players = min(int(own.max(initial=0)), players.count)

    @property
    def nbytes(self) -> int:
        """Bytes of the background's rows."""
        return sum(array.nbytes for array in self.background)

    def expected(self) -> np.ndarray:
        """Mean of the background, ``(K,)``."""
        return self.weights @ self.trees.linear_outputs(*self.background)

    def add(self, X: Any, values: np.ndarray, jobs: Jobs) -> None:
        """Add to the values ``(N, n_players[, K])`` of a table's rows."""
        X = as_rows(X, "X")
        target = values if self.trees.has_outputs else values[..., None]

        def add_part(part: slice) -> None:
            players = LeafPlayers(
                parent=self.parent,
                label=self.label,
                factor=shapley_factors(self.most_players + 1),
                place=np.full(self.nodes.n_players, -1),
                listed=np.zeros(self.most_players, np.int64),
            )
            ours = self._rows(self.trees.codes_and_numbers(take_rows(X, part)))
            theirs = self._rows(self.background)
            add_linear_values(
                self.leaves,
                self.nodes,
                self.linear,
                players,
                ours,
                theirs,
                self.weights,
                target[part],
            )

        jobs(add_part, list(chunks(len(values), _LINEAR_ROWS)))
        if not np.isfinite(values).all():
            fail(
                "X",
                "rows for which the linear models in the leaves pay finite sums",
                "values that are not finite",
                "Leave out infinite and huge numbers, here and in the background",
            )

    def _rows(self, codes_and_numbers: tuple[np.ndarray, np.ndarray]) -> LeafRows:
        shape = (len(codes_and_numbers[0]), self.most_players)
        return LeafRows(*codes_and_numbers, np.zeros(shape, bool), np.zeros(shape))
