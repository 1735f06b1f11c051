"""What a leaf's path is: its players, their shares of cover, and the rule that integrates them.

Everything that depends on an ensemble only, not on rows, is here and computed once. Chapter:
trees/kernels.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from shaplab._parallel import chunks
from shaplab.trees._players import Players
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.kernels.quadrature import leaf_products, sorted_shares
from shaplab.trees.kernels.structure import (
    COVER_RATIO,
    LEVEL,
    PARENT,
    PLAYERS,
    PathArrays,
    describe_paths,
)

__all__ = ["MAX_BITS", "Paths", "exact_nodes", "gauss_legendre", "quadrature_nodes"]

MAX_BITS = 14  # of a table's patterns: 16,384 entries a column
_SHORT_PATH = 16  # players for which the exact rule, of 8 nodes, is always taken
_RULE_ERROR = 1e-11  # of a leaf's output, that a shorter rule than the exact one may have


@lru_cache(maxsize=64)
def gauss_legendre(n_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and weights."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    return (nodes + 1.0) / 2.0, weights / 2.0


def exact_nodes(players: np.ndarray) -> np.ndarray:
    """Gauss-Legendre nodes that integrate the product of all players but one, of degree
    players - 1."""
    return np.maximum(1, (players.astype(np.int64) + 1) // 2)


def quadrature_nodes(
    trees: TreeEnsemble, edges: np.ndarray, shares: np.ndarray, tree_players: np.ndarray
) -> np.ndarray:
    """Nodes for each tree: half as many as players on its longest path is exact; past 16 players,
    as many as are enough for an error below 1e-11 of the leaf's output.

    The error is computed for each long leaf with its own z and for d + 1 patterns: the players of
    largest z absent, the others present. It stays small because the z of a path multiply to the
    leaf's share of the cover. A leaf leaves the search as soon as its error is small or the rule is
    exact for it, so the search ends.
    """
    nodes = np.minimum(_SHORT_PATH // 2, exact_nodes(tree_players))
    long = np.flatnonzero((trees.feature < 0) & (edges[:, PLAYERS] > _SHORT_PATH))
    step = 16  # leaves of 17 to 32 players together, of 33 to 48, and so on
    rounded = -(-edges[long, PLAYERS] // step) * step
    for width in np.unique(rounded):
        leaves = long[rounded == width]
        for part in chunks(len(leaves), max(1, 2**22 // int(width))):
            sorted_z = np.zeros((len(leaves[part]), int(width)))
            sorted_shares(leaves[part], edges, shares, sorted_z)
            needed = _leaf_nodes(sorted_z, edges[leaves[part], PLAYERS])
            tree = np.searchsorted(trees.tree_start, leaves[part], side="right") - 1
            np.maximum.at(nodes, tree, needed)
    return nodes


def _leaf_nodes(sorted_z: np.ndarray, players: np.ndarray) -> np.ndarray:
    """Nodes that each leaf of 17 or more players needs."""
    n_leaves, width = sorted_z.shape
    exact = np.zeros((n_leaves, width + 1))
    short = np.zeros((n_leaves, width + 1))
    open_leaves = np.arange(n_leaves)
    leaf_products(sorted_z, players, open_leaves, *gauss_legendre(width // 2 + 1), exact)
    shortest = _SHORT_PATH // 2
    needed = np.minimum(shortest, exact_nodes(players))
    for n_nodes in range(shortest, width // 2 + 1):
        open_leaves = open_leaves[exact_nodes(players[open_leaves]) > n_nodes]
        if len(open_leaves) == 0:
            break
        leaf_products(sorted_z, players, open_leaves, *gauss_legendre(n_nodes), short)
        error = np.abs(short[open_leaves] - exact[open_leaves]).max(axis=1)
        open_leaves = open_leaves[error > _RULE_ERROR]
        needed[open_leaves] = n_nodes + 1
    return needed


class Paths:
    """The paths of an ensemble, whose trees may be ``walked`` or not.

    Attributes
    ----------
    trees : the ensemble.
    nodes : its nodes, whose splits know their player.
    arrays : what the kernels take.
    jobs : int64 ``(n, 2)``, tree and output of everything that is not 0: one walk each.
    n_outputs : outputs that each tree pays, ``(T,)``.
    """

    def __init__(self, trees: TreeEnsemble, players: Players, walked: bool = True) -> None:
        self.trees = trees
        self.nodes = players.nodes(trees)
        order, edges, shares, tree_nodes, tree_players = describe_paths(self.nodes, trees.cover)
        pays = np.zeros((trees.n_trees, 1), bool)
        if trees.n_trees:
            pays = np.add.reduceat(trees.value != 0, trees.roots, axis=0) > 0
        pays &= tree_nodes[:, None] > 1  # a single leaf credits nobody
        self.jobs = np.argwhere(pays).astype(np.int64)
        self.n_outputs = pays.sum(axis=1)
        tree_rule = np.minimum(_SHORT_PATH // 2, exact_nodes(tree_players))
        if walked:  # long paths make their rules dear to find
            tree_rule = quadrature_nodes(trees, edges, shares, tree_players)
        # Tables take the exact rule of each leaf. Rules that nobody uses are empty.
        used_rules = np.union1d(tree_rule, np.arange(1, (MAX_BITS + 1) // 2 + 1))
        length = np.zeros(int(used_rules[-1]) + 1, np.int64)
        length[used_rules] = used_rules
        rules = [np.stack(gauss_legendre(int(n_nodes)), axis=1) for n_nodes in used_rules]
        self.arrays = PathArrays(
            order=order,
            edges=edges,
            shares=shares,
            tree_nodes=tree_nodes,
            tree_players=tree_players,
            output_start=np.append(0, np.cumsum(self.n_outputs)).astype(np.int64),
            output_index=np.ascontiguousarray(self.jobs[:, 1]),
            tree_rule=tree_rule,
            rule_start=np.append(0, np.cumsum(length)).astype(np.int64),
            rules=np.concatenate(rules),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.jobs.nbytes + sum(array.nbytes for array in self.arrays)

    @cached_property
    def expected(self) -> np.ndarray:
        """Expected output when no feature is known, by covers, ``(K,)``."""
        edges = self.arrays.edges
        shares = self.arrays.shares
        reach = np.ones(len(self.trees.feature))
        for nodes in _by_level(edges[:, LEVEL]):
            reach[nodes] = reach[edges[nodes, PARENT]] * shares[nodes, COVER_RATIO]
        leaves = (self.trees.feature < 0)[:, None]
        return self.trees.base + reach @ np.where(leaves, self.trees.value, 0.0)

    @cached_property
    def splits(self) -> np.ndarray:
        """Splits of each tree."""
        return (self.arrays.tree_nodes - 1) // 2

    @cached_property
    def pair_terms(self) -> np.ndarray:
        """Pairs of a split and a player above it, by tree."""
        if not self.trees.n_trees:
            return np.zeros(0)
        players = np.where(self.trees.feature >= 0, self.arrays.edges[:, PLAYERS], 0)
        return np.add.reduceat(players, self.trees.roots)

    def n_targets(self, pairs: bool) -> int:
        """Rows of a table of sums: players, then pairs of players, for each output."""
        n_players = self.nodes.n_players
        return (n_players + n_players**2 * pairs) * self.trees.n_outputs


def _by_level(level: np.ndarray) -> list[np.ndarray]:
    """Nodes of level 1, of level 2, and so on."""
    order = np.argsort(level, kind="stable")
    ends = np.cumsum(np.bincount(level))
    return [order[first:last] for first, last in pairwise(ends)]
