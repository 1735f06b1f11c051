"""Choose the cheapest exact route for each tree and run the kernels over blocks of rows.

Routes: ``tables`` (pattern tables: many rows, or a background), ``walk`` (row-block quadrature: few
rows or long paths) and ``patterns`` (pairs of patterns: a background and long paths). A cost model
in nanoseconds picks one for each tree; they agree to rounding. Sums run in an order that depends
neither on the number of threads nor on the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from shaplab._parallel import chunks
from shaplab.trees.kernels.patterns import pair_patterns
from shaplab.trees.kernels.quadrature import BLOCK, leaf_products, sorted_shares, walk_trees
from shaplab.trees.kernels.structure import describe_paths, plan_clusters
from shaplab.trees.kernels.tables import build_tables, evaluate_tables

__all__ = [
    "Paths",
    "TablePlan",
    "interventional_plan",
    "interventional_sums",
    "path_dependent_plan",
    "path_dependent_sums",
    "threads",
]

MAX_BITS = 14
# Nanoseconds: bit of a code and cluster for each row, lookup, table entry merged, leaf entry,
# histogram row.
PRICES = np.array([0.2, 0.1, 0.5, 0.6, 0.7, 1.0])
WALK = 0.7  # one split, one node of the rule, one row
WALK_PAIR = 0.2
WALK_SPLIT = 40.0  # coefficients of one split at one node
PATTERN_ROW, PATTERN_PAIR = 2.5, 1.5
CHUNK = 1 << 16  # table entries built before they are used (512 KiB): they stay in the cache
TOLERANCE = 1e-11


@lru_cache(maxsize=64)
def _rule(q: int) -> tuple[np.ndarray, np.ndarray]:
    x, w = np.polynomial.legendre.leggauss(q)
    return (x + 1.0) / 2.0, w / 2.0


def exact_nodes(players: np.ndarray) -> np.ndarray:
    """Gauss-Legendre nodes that integrate the product of all players but one, of degree
    players - 1."""
    return np.maximum(1, (players.astype(np.int64) + 1) // 2)


def quadrature_nodes(paths: Paths) -> np.ndarray:
    """Nodes for each tree: half as many as players on its longest path is exact; past 16 players,
    as many as are enough for an error below 1e-11 of the leaf's output.

    The error is computed for each long leaf with its own z and for d + 1 patterns: the players of
    largest z absent, the others present. It stays small because the z of a path multiply to the
    leaf's share of the cover. A leaf leaves the search as soon as its error is small or the rule is
    exact for it, so the search ends.
    """
    t, edges = paths.trees, paths.edges
    nodes = np.minimum(8, exact_nodes(paths.counts[:, 1]))
    long = np.flatnonzero((t.feature < 0) & (edges[:, 2] > 16))
    step = 16  # leaves of 17 to 32 players together, of 33 to 48, and so on
    for wide in np.unique(-(-edges[long, 2] // step) * step):
        leaves = long[-(-edges[long, 2] // step) * step == wide]
        for part in chunks(len(leaves), max(1, 2**22 // int(wide))):
            needed = _leaf_nodes(paths, leaves[part], int(wide))
            tree = np.searchsorted(t.tree_start, leaves[part], side="right") - 1
            np.maximum.at(nodes, tree, needed)
    return nodes


def _leaf_nodes(paths: Paths, leaves: np.ndarray, wide: int) -> np.ndarray:
    """Nodes that each leaf of 17 to ``wide`` players needs."""
    shares, players = np.zeros((len(leaves), wide)), paths.edges[leaves, 2]
    sorted_shares(leaves, paths.edges, paths.shares, shares)
    truth, found = np.zeros((2, len(leaves), wide + 1))
    rest = np.arange(len(leaves))
    leaf_products(shares, players, rest, *_rule(wide // 2 + 1), truth)  # exact: degree wide
    needed = np.minimum(8, exact_nodes(players))
    for q in range(8, wide // 2 + 1):
        rest = rest[exact_nodes(players[rest]) > q]
        if len(rest) == 0:
            break
        leaf_products(shares, players, rest, *_rule(q), found)
        rest = rest[np.abs(found[rest] - truth[rest]).max(axis=1) > TOLERANCE]
        needed[rest] = q + 1
    return needed


class Paths:
    """What all routes need to know about an ensemble, computed once."""

    def __init__(self, trees: Any) -> None:
        self.trees = trees
        self.order, self.edges, self.shares, self.counts = describe_paths(
            trees.tree_start, trees.feature, trees.left, trees.right, trees.cover
        )
        starts = trees.tree_start[:-1]
        used = (
            np.add.reduceat(trees.value != 0, starts, axis=0) > 0
            if len(starts)
            else np.zeros((0, 1), bool)
        )
        used &= self.counts[:, :1] > 1  # a single leaf credits nobody
        self.jobs = np.argwhere(used).astype(np.int64)
        self.out_start = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int64)
        self.out_index = np.ascontiguousarray(self.jobs[:, 1])
        self.outputs = np.diff(self.out_start)
        self.tree_rule = quadrature_nodes(self)
        # Rule q: rows rules_start[q] to rules_start[q + 1]; rules that nobody uses are empty.
        used_rules = np.union1d(self.tree_rule, np.arange(1, (MAX_BITS + 1) // 2 + 1))
        length = np.zeros(int(used_rules[-1]) + 1, np.int64)
        length[used_rules] = used_rules
        self.rules = np.concatenate([np.stack(_rule(int(q)), axis=1) for q in used_rules])
        self.rules_start = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(a.nbytes for a in vars(self).values() if isinstance(a, np.ndarray))

    @cached_property
    def expected(self) -> np.ndarray:
        """Expected output when no feature is known, by covers, ``(K,)``."""
        reach = np.ones(len(self.trees.feature))
        level = self.edges[:, 1]
        for nodes in _by_level(level):
            reach[nodes] = reach[self.edges[nodes, 0]] * self.shares[nodes, 2]
        return self.trees.base + reach @ np.where(
            (self.trees.feature < 0)[:, None], self.trees.value, 0.0
        )

    @cached_property
    def splits(self) -> np.ndarray:
        """Splits of each tree."""
        return (self.counts[:, 0] - 1) // 2

    @cached_property
    def pair_terms(self) -> np.ndarray:
        """Pairs of a split and a split above it, by tree."""
        inner = np.where(self.trees.feature >= 0, self.edges[:, 2], 0)
        return (
            np.add.reduceat(inner, self.trees.tree_start[:-1]) if len(self.splits) else np.zeros(0)
        )

    def targets(self, pairs: bool) -> int:
        """Rows of a table of sums."""
        d = self.trees.n_features
        return (d + d * d * pairs) * self.trees.n_outputs

    def walk(self, chosen: np.ndarray, pairs: bool, codes: np.ndarray) -> np.ndarray:
        """Sums ``(n_targets, n)`` of the chosen trees' path-dependent values."""
        t, (d, n) = self.trees, codes.shape
        blocks = -(-n // BLOCK)
        padded = np.zeros((d, blocks * BLOCK), np.int32)
        padded[:, :n] = codes
        cut = np.ascontiguousarray(padded.reshape(d, blocks, BLOCK).transpose(1, 0, 2))
        sums = np.zeros((blocks, self.targets(pairs), BLOCK))
        walk_trees(
            np.ascontiguousarray(self.jobs[chosen[self.jobs[:, 0]]]),
            t.tree_start,
            t.feature,
            t.left,
            t.right,
            self.order,
            self.edges,
            self.shares,
            self.counts,
            t.rank,
            t.missing_left,
            t.set_start,
            t.set_bits,
            t.value,
            self.rules_start,
            self.rules,
            self.tree_rule,
            cut,
            pairs,
            t.n_outputs,
            sums,
        )
        return sums.transpose(1, 0, 2).reshape(-1, blocks * BLOCK)[:, :n]


def _by_level(level: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(level, kind="stable")
    ends = np.cumsum(np.bincount(level))
    return [order[a:b] for a, b in pairwise(ends)]


class TablePlan:
    """Clusters of the chosen trees, with the instructions that look rows up."""

    def __init__(
        self, paths: Paths, chosen: np.ndarray, pairs: bool, n_rows: int, n_background: int
    ) -> None:
        t = paths.trees
        self.paths, self.pairs = paths, pairs
        self.cost, self.ops, self.clusters, self.columns, self.cuts = plan_clusters(
            t.tree_start,
            t.feature,
            t.left,
            t.right,
            paths.order,
            paths.edges,
            paths.counts,
            chosen,
            paths.outputs,
            MAX_BITS,
            pairs,
            n_rows,
            n_background,
            CHUNK,
            PRICES,
        )
        sizes = self.clusters[:, 3] << self.clusters[:, 1]
        self.entries = int(sizes.sum())
        self.patterns = int((np.int64(1) << self.clusters[:, 1]).sum())
        self.means = np.zeros((len(self.clusters) if n_background else 0, t.n_outputs))
        self.target_start = np.concatenate([[0], np.cumsum(self.clusters[:, 3])]).astype(np.int64)

    @cached_property
    def targets(self) -> np.ndarray:
        """Row of the sums that each table column adds to."""
        d, k = self.paths.trees.n_features, self.paths.trees.n_outputs
        found = np.empty(int(self.target_start[-1]), np.int64)
        outputs = self.paths.outputs[self.clusters[:, 6]]
        for count, n_out in np.unique(np.stack([self.clusters[:, 2], outputs], axis=1), axis=0):
            these = np.flatnonzero((self.clusters[:, 2] == count) & (outputs == n_out))
            f = self.columns[these, :count].astype(np.int64)
            if self.pairs:
                i, j = np.tril_indices(count, -1)
                f = np.concatenate(
                    [f, d + np.maximum(f[:, i], f[:, j]) * d + np.minimum(f[:, i], f[:, j])], axis=1
                )
            out = self.paths.out_index[
                self.paths.out_start[self.clusters[these, 6]][:, None] + np.arange(n_out)
            ]
            rows = (f[:, None, :] * k + out[:, :, None]).reshape(len(these), -1)
            found[self.target_start[these][:, None] + np.arange(rows.shape[1])] = rows
        return found

    def bounds(self, i: int) -> tuple[int, int, int, int, int, int]:
        """First and last op and cluster of a chunk, its first table entry and their number."""
        stop_op, stop = (
            self.cuts[i + 1] if i + 1 < len(self.cuts) else (len(self.ops), len(self.clusters))
        )
        first_op, first = self.cuts[i]
        base = self.clusters[first, 4]
        end = self.clusters[stop, 4] if stop < len(self.clusters) else self.entries
        return int(first_op), int(stop_op), int(first), int(stop), int(base), int(end - base)

    def build(
        self, low: int, high: int, histogram: np.ndarray, base: int, tables: np.ndarray
    ) -> None:
        """Fill the tables of clusters low to high, and their part of the background's mean
        output."""
        p, t = self.paths, self.paths.trees
        build_tables(
            low,
            high,
            self.clusters,
            self.columns,
            p.order,
            t.feature,
            t.left,
            p.edges,
            p.shares,
            t.value,
            p.out_start,
            p.out_index,
            p.rules_start,
            p.rules,
            histogram,
            self.pairs,
            base,
            tables,
            self.means,
        )

    def evaluate(
        self,
        ops: Sequence[int],
        codes: np.ndarray,
        low: int,
        high: int,
        base: int,
        tables: np.ndarray,
        sums: np.ndarray,
        weights: np.ndarray,
    ) -> None:
        """Look rows low to high up, or count them when ``weights`` is given."""
        t = self.paths.trees
        evaluate_tables(
            ops[0],
            ops[1],
            self.ops,
            self.clusters,
            self.targets,
            self.target_start,
            t.feature,
            t.rank,
            t.missing_left,
            t.set_start,
            t.set_bits,
            codes,
            low,
            high,
            base,
            tables,
            sums,
            weights,
        )

    def histogram(self, background: np.ndarray, weights: np.ndarray, jobs: Any) -> np.ndarray:
        """Weight of every pattern of every cluster among background rows ``(d, R)``."""
        counts = np.zeros(self.patterns)
        none = np.zeros((0, 0))

        def count(i: int) -> None:
            first_op, stop_op, first, *_ = self.bounds(i)
            start = int(self.clusters[first, 5])
            self.evaluate(
                (first_op, stop_op),
                background,
                0,
                background.shape[1],
                start,
                counts[start:],
                none,
                weights,
            )

        jobs(count, range(len(self.cuts)))
        return counts


def threads(n_jobs: int | None) -> Callable[[Callable[..., None], Any], None]:
    """Run a function over items: in this thread for one job, else in joblib's threads; order does
    not matter."""

    def run(function: Callable[..., None], items: Any) -> None:
        if n_jobs == 1 or len(items) < 2:
            for item in items:
                function(item)
        else:
            Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(function)(item) for item in items)

    return run


def add_tables(
    plan: TablePlan,
    histogram: np.ndarray,
    tables: np.ndarray | None,
    codes: np.ndarray,
    sums: np.ndarray,
    jobs: Any,
) -> None:
    """Add all clusters' values of rows ``codes`` ``(d, n)``; tables are built in chunks unless
    given."""
    n = codes.shape[1]
    blocks = list(chunks(n, 4096))
    none = np.zeros(0)
    for i in range(len(plan.cuts)):
        *ops, first, stop, base, entries = plan.bounds(i)
        if tables is None:
            here = np.empty(entries)
            jobs(
                lambda part: plan.build(
                    first + part.start,
                    first + part.stop,
                    histogram,
                    base,
                    here,
                ),
                list(chunks(stop - first, max(1, -(-(stop - first) // 8)))),
            )
        else:
            here = tables[base : base + entries]
        jobs(
            lambda part: plan.evaluate(
                ops,
                codes,
                part.start,
                part.stop,
                base,
                here,
                sums,
                none,
            ),
            blocks,
        )


def path_dependent_plan(
    paths: Paths, pairs: bool, n_rows: int, route: str
) -> tuple[np.ndarray, TablePlan]:
    """Which trees are walked, and the table plan of the others."""
    every = np.ones(len(paths.splits), bool)
    q = paths.tree_rule
    walk = (
        n_rows * q * (paths.splits * WALK + pairs * paths.pair_terms * WALK_PAIR)
        + paths.splits * q * WALK_SPLIT
    )
    if route == "walk" or (route == "auto" and _hopeless(paths, walk, n_rows)):
        return every, TablePlan(paths, ~every, pairs, 1, 0)
    plan = TablePlan(paths, every, pairs, n_rows, 0)
    walked = np.isinf(plan.cost)
    if route == "auto":
        walked |= plan.cost > walk * np.maximum(paths.outputs, 1)
    return (
        (walked, plan)
        if not walked.any()
        else (walked, TablePlan(paths, ~walked, pairs, n_rows, 0))
    )


def _hopeless(paths: Paths, walk: np.ndarray, n_rows: int) -> bool:
    """Tables cannot pay when walking costs less than filling one table entry for each leaf
    pattern."""
    leaves = paths.trees.feature < 0
    smallest = 2.0 ** np.minimum(paths.edges[leaves, 2], 60).astype(float)
    return bool(walk.sum() < 0.1 * smallest.sum())


def path_dependent_sums(
    paths: Paths, walked: np.ndarray, plan: TablePlan, codes: np.ndarray, pairs: bool, jobs: Any
) -> np.ndarray:
    """Sums ``(n_targets, n)`` of the path-dependent game for encoded rows ``(d, n)``."""
    n = codes.shape[1]
    sums = np.zeros((paths.targets(pairs), n))
    if len(plan.clusters):
        add_tables(plan, np.zeros(0), None, codes, sums, jobs)
    if walked.any():

        def walk(part: slice) -> None:
            sums[:, part] += paths.walk(walked, pairs, codes[:, part])

        jobs(walk, list(chunks(n, 256 if pairs else 1024)))
    return sums


def shapley_factors(players: int) -> np.ndarray:
    """``factor[a, b] = a! b! / (a + b + 1)!`` where ``a + b <= players``, 0 elsewhere."""
    factor = np.zeros((players + 1, players + 1))
    for a in range(players + 1):
        ways = 1  # (a + b)! / (a! b!), a whole number that outgrows floats at 1030 players
        for b in range(players + 1 - a):
            factor[a, b] = 1 / ((a + b + 1) * ways)
            ways = ways * (a + b + 1) // (b + 1)
    return factor


def interventional_plan(
    paths: Paths, pairs: bool, n_rows: int, n_background: int, route: str
) -> tuple[np.ndarray, TablePlan]:
    """Which trees go by pairs of patterns, and the table plan of the others."""
    every = np.ones(len(paths.splits), bool)
    width = np.minimum(paths.counts[:, 1], 40).astype(float)
    found = np.minimum(n_rows, 2.0 ** (0.7 * width)) * np.minimum(
        n_background, 2.0 ** (0.7 * width)
    )
    cost = paths.splits * (
        2.0 * (n_rows + n_background) * PATTERN_ROW
        + found * PATTERN_PAIR
        + n_rows * width * (1 + pairs * width / 2)
    )
    if route == "patterns":
        return every, TablePlan(paths, ~every, pairs, 1, 1)
    plan = TablePlan(paths, every, pairs, n_rows, n_background)
    slow = np.isinf(plan.cost)
    if route == "auto":
        slow |= plan.cost > cost
    return (
        (slow, plan)
        if not slow.any()
        else (slow, TablePlan(paths, ~slow, pairs, n_rows, n_background))
    )


def interventional_sums(
    paths: Paths,
    slow: np.ndarray,
    plan: TablePlan,
    histogram: np.ndarray,
    tables: np.ndarray | None,
    background: np.ndarray,
    weights: np.ndarray,
    codes: np.ndarray,
    pairs: bool,
    jobs: Any,
) -> np.ndarray:
    """Sums ``(n_targets, n)`` of the interventional game for encoded rows ``(d, n)``."""
    n = codes.shape[1]
    t = paths.trees
    sums = np.zeros((paths.targets(pairs), n))
    if len(plan.clusters):
        add_tables(plan, histogram, tables, codes, sums, jobs)
    if slow.any():
        factor = shapley_factors(int(paths.counts[slow, 1].max()))
        chosen = np.flatnonzero(slow & (paths.outputs > 0))

        def pair(part: slice) -> None:
            pair_patterns(
                chosen,
                part.start,
                part.stop,
                t.tree_start,
                t.feature,
                t.left,
                t.right,
                paths.order,
                paths.edges,
                paths.counts,
                t.rank,
                t.missing_left,
                t.set_start,
                t.set_bits,
                t.value,
                codes,
                background,
                weights,
                factor,
                pairs,
                sums,
            )

        # Rows at a time: their values, and their patterns at every level, take memory.
        width = int(paths.counts[slow, 1].max())
        wide = width + 8 * width + pairs * width * (width - 1) // 2
        jobs(pair, list(chunks(n, int(np.clip(2**24 // max(1, wide), 16, 2048)))))
    return sums
