"""Choose the cheapest exact route for each tree and run the kernels over blocks of rows.

Routes: ``tables`` (pattern tables: many rows, or a background), ``walk`` (row-block quadrature: few
rows or long paths) and ``patterns`` (pairs of patterns: a background and long paths). A cost model
in nanoseconds picks one for each tree; they agree to rounding. Sums run in an order that depends
neither on the number of threads nor on the blocks. Chapter: trees/kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from shaplab._parallel import chunks
from shaplab.trees._paths import MAX_BITS, Paths
from shaplab.trees._questions import QuestionTables, question_tables, questions_of
from shaplab.trees.kernels.patterns import Background, pair_patterns
from shaplab.trees.kernels.predict import Nodes
from shaplab.trees.kernels.quadrature import JOB_TREE, WALK_ROWS, walk_trees
from shaplab.trees.kernels.structure import (
    BITS,
    COLUMNS,
    FIRST_CLUSTER,
    LEVEL,
    PLAYERS,
    ClusterPlan,
    Prices,
    Workload,
    plan_clusters,
    price_clusters,
)
from shaplab.trees.kernels.tables import (
    BackgroundMet,
    build_tables,
    count_patterns,
    look_up,
    row_patterns,
    table_space,
)

__all__ = [
    "LeafClusters",
    "InterventionalPlan",
    "PathDependentPlan",
    "PreparedBackground",
    "threads",
]

# Nanoseconds, measured. They decide which route is taken, not what it gives.
PRICES = Prices(bit=0.2, cluster=0.1, lookup=0.5, merge=0.6, leaf=0.7, histogram=1.0)
WALK_STEP = 0.7  # one split, one node of the rule, one row
WALK_PAIR = 0.2  # one pair of a split and a player above it, one node, one row
WALK_SPLIT = 40.0  # coefficients of one split at one node
PATTERN_ROW = 2.5  # one edge, one row
PATTERN_PAIR = 1.5  # one pair of patterns at one leaf

CHUNK = 1 << 16  # table entries built before they are used (512 KiB): they stay in the cache
LOOKUP_PART = 4096  # rows that one thread looks up
NOTHING = np.zeros(0)  # no histogram: the path-dependent game

Jobs = Callable[[Callable[..., None], Any], None]


def threads(n_jobs: int | None) -> Jobs:
    """Run a function over items: in this thread for one job, else in joblib's threads; order does
    not matter."""

    def run(function: Callable[..., None], items: Sequence[Any]) -> None:
        if n_jobs == 1 or len(items) < 2:
            for item in items:
                function(item)
        else:
            Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(function)(item) for item in items)

    return run


class PricedTables:
    """What it costs to tabulate each of the chosen trees; the same for any of them that are.

    Where trees ask few ``questions``, their clusters serve one row for each set of answers only.
    """

    def __init__(
        self, paths: Paths, chosen: np.ndarray, pairs: bool, n_rows: int, n_background: int
    ) -> None:
        self.questions = questions_of(paths.nodes, paths.n_outputs, pairs, n_rows)
        self.work = Workload(
            n_players=paths.nodes.n_players,
            n_rows=n_rows if self.questions is None else self.questions.n_rows,
            n_background=n_background,
            pairs=pairs,
            max_bits=MAX_BITS,
            chunk=CHUNK,
            prices=PRICES,
        )
        self.prices = price_clusters(paths.nodes, paths.arrays, chosen, self.work)


class LeafClusters:
    """Clusters of leaves (see ``price_clusters``) of chosen trees, with loops over their tables.

    Attributes
    ----------
    starts : ``(C+1,)`` first entry of each cluster's table, and where the last one ends.
    questions : how these tables become one for each tree, or None where that does not pay.
    """

    def __init__(self, paths: Paths, chosen: np.ndarray, priced: PricedTables) -> None:
        self.paths = paths
        self.plan, self.largest = plan_clusters(
            paths.nodes, paths.arrays, chosen, priced.prices, priced.work
        )
        sizes = self.plan.clusters[:, COLUMNS] << self.plan.clusters[:, BITS]
        self.starts = np.append(0, np.cumsum(sizes))
        self.questions = None
        if priced.questions is not None and len(self.plan.clusters):
            n_targets = paths.n_targets(priced.work.pairs)
            self.questions = question_tables(
                priced.questions, paths.nodes, self.plan, n_targets, CHUNK
            )

    def __len__(self) -> int:
        return len(self.plan.clusters)

    @property
    def nbytes(self) -> int:
        """Bytes of the plan, without tables."""
        plan = self.plan
        return sum(a.nbytes for a in (plan.ops, plan.clusters, plan.features, plan.targets))

    @property
    def n_entries(self) -> int:
        """Entries of the tables that rows are looked up in."""
        return int(self.starts[-1] if self.questions is None else self.questions.n_entries)

    def count(self, background: np.ndarray, weights: np.ndarray, jobs: Jobs) -> np.ndarray:
        """Weight of every pattern of every cluster among background rows ``(d, R)``."""
        histogram = np.zeros(int((np.int64(1) << self.plan.clusters[:, BITS]).sum()))
        nodes = self.paths.nodes

        def count_chunk(chunk: int) -> None:
            room = row_patterns(self.largest.levels)
            count_patterns(chunk, nodes, self.plan, background, weights, room, histogram)

        jobs(count_chunk, range(len(self.plan.cuts) - 1))
        return histogram

    def build(
        self,
        first: int,
        last: int,
        histogram: np.ndarray,
        means: np.ndarray,
        tables: np.ndarray,
        jobs: Jobs,
    ) -> None:
        """Fill the tables of clusters ``first`` to ``last``; with a histogram, their part of the
        background's mean output goes to ``means`` ``(C, K)``."""
        nodes = self.paths.nodes
        arrays = self.paths.arrays
        met = BackgroundMet(histogram, means)

        def build_part(part: slice) -> None:
            some = (first + part.start, first + part.stop)
            own = tables[self.starts[some[0]] - self.starts[first] :]
            room = table_space(self.largest, len(histogram) > 0)
            rest = np.empty(self.largest.patterns) if self.plan.pairs else None
            build_tables(some, nodes, arrays, self.plan, met, own, room, rest)

        jobs(build_part, list(chunks(last - first, max(1, min(64, -(-(last - first) // 8))))))

    def all_tables(
        self, memory_limit: int, histogram: np.ndarray, means: np.ndarray, jobs: Jobs
    ) -> np.ndarray | None:
        """The tables of all clusters, see ``build``, or None if they take more bytes than that."""
        if not len(self) or 8 * self.n_entries > memory_limit:
            return None
        if self.questions is not None:
            return self._tables_of_trees(self.questions, histogram, means, jobs)
        tables = np.empty(self.starts[-1])
        self.build(0, len(self), histogram, means, tables, jobs)
        return tables

    def add(
        self,
        codes: np.ndarray,
        sums: np.ndarray,
        jobs: Jobs,
        histogram: np.ndarray,
        means: np.ndarray,
        tables: np.ndarray | None = None,
    ) -> None:
        """Add the values of rows ``codes`` ``(d, n)`` in all clusters; tables are built chunk by
        chunk unless given."""
        nodes = self.paths.nodes
        questions = self.questions
        if questions is not None:
            if tables is None:
                tables = self._tables_of_trees(questions, histogram, means, jobs)
            every = (0, len(questions.plan.cuts) - 1)
            look_rows_up(every, nodes, questions.plan, questions.levels, codes, tables, sums, jobs)
            return
        if tables is not None:
            every = (0, len(self.plan.cuts) - 1)
            look_rows_up(every, nodes, self.plan, self.largest.levels, codes, tables, sums, jobs)
            return
        self._build_and_look_up(nodes, self.plan, codes, sums, histogram, means, jobs)

    def _tables_of_trees(
        self, questions: QuestionTables, histogram: np.ndarray, means: np.ndarray, jobs: Jobs
    ) -> np.ndarray:
        """One table for each tree: what made-up rows get in the clusters."""
        tables = np.zeros((questions.n_columns, questions.codes.shape[1]))
        self._build_and_look_up(
            questions.nodes, questions.making, questions.codes, tables, histogram, means, jobs
        )
        return tables.ravel()

    def _build_and_look_up(
        self,
        nodes: Nodes,
        plan: ClusterPlan,
        codes: np.ndarray,
        sums: np.ndarray,
        histogram: np.ndarray,
        means: np.ndarray,
        jobs: Jobs,
    ) -> None:
        """Build the clusters' tables chunk by chunk, and add what they hold for rows."""
        bounds = self.plan.cuts[:, FIRST_CLUSTER]
        # One place for the tables of all chunks, one after the other, that stays in the cache.
        room = np.empty(np.diff(self.starts[bounds]).max(initial=0))
        for chunk in range(len(bounds) - 1):
            self.build(bounds[chunk], bounds[chunk + 1], histogram, means, room, jobs)
            some = (chunk, chunk + 1)
            look_rows_up(some, nodes, plan, self.largest.levels, codes, room, sums, jobs)


def look_rows_up(
    some: tuple[int, int],
    nodes: Nodes,
    plan: ClusterPlan,
    levels: int,
    codes: np.ndarray,
    tables: np.ndarray,
    sums: np.ndarray,
    jobs: Jobs,
) -> None:
    """Add what the tables of some chunks of a plan, first and last, hold for rows ``codes``."""

    def look_part_up(part: slice) -> None:
        rows = (part.start, part.stop)
        look_up(some, nodes, plan, codes, rows, tables, row_patterns(levels), sums)

    jobs(look_part_up, list(chunks(codes.shape[1], LOOKUP_PART)))


class PathDependentPlan:
    """How the path-dependent game is computed: which trees are walked, and tables of the others.

    Attributes
    ----------
    walked : ``(T,)`` bool.
    clusters : of the trees that are not walked.
    """

    def __init__(self, paths: Paths, pairs: bool, n_rows: int, route: str) -> None:
        self.paths = paths
        self.pairs = pairs
        self.tables: np.ndarray | None = None
        every = np.ones(len(paths.splits), bool)
        cost = self._walk_cost(n_rows)
        if route == "walk" or (route == "auto" and self._hopeless(cost)):
            self.walked = every
            self.clusters = LeafClusters(paths, ~every, PricedTables(paths, ~every, pairs, 1, 0))
            return
        priced = PricedTables(paths, every, pairs, n_rows, 0)
        self.walked = np.isinf(priced.prices.cost)
        if route == "auto":
            self.walked |= priced.prices.cost > cost * np.maximum(paths.n_outputs, 1)
        self.clusters = LeafClusters(paths, ~self.walked, priced)

    def _walk_cost(self, n_rows: int) -> np.ndarray:
        """Nanoseconds to walk each tree once."""
        splits = self.paths.splits
        rule = self.paths.arrays.tree_rule
        steps = splits * WALK_STEP + self.pairs * self.paths.pair_terms * WALK_PAIR
        return n_rows * rule * steps + splits * rule * WALK_SPLIT

    def _hopeless(self, walk_cost: np.ndarray) -> bool:
        """Tables cannot pay when walking costs less than filling one table entry for each leaf
        pattern."""
        leaves = self.paths.trees.feature < 0
        smallest = 2.0 ** np.minimum(self.paths.arrays.edges[leaves, PLAYERS], 60).astype(float)
        return bool(walk_cost.sum() < 0.1 * smallest.sum())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"tables": None}

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables, kept or not."""
        return 8 * self.clusters.n_entries

    @property
    def nbytes(self) -> int:
        """Bytes of the plan, and of tables if they are kept."""
        return self.clusters.nbytes + (0 if self.tables is None else self.tables.nbytes)

    def keep_tables(self, memory_limit: int, jobs: Jobs) -> None:
        """Build all tables, unless they are there or take more bytes than that."""
        if self.tables is None:
            means = np.zeros((0, self.paths.trees.n_outputs))
            self.tables = self.clusters.all_tables(memory_limit, NOTHING, means, jobs)

    def sums(self, codes: np.ndarray, jobs: Jobs) -> np.ndarray:
        """Sums ``(n_targets, n)`` of encoded rows ``(d, n)``."""
        n = codes.shape[1]
        sums = np.zeros((self.paths.n_targets(self.pairs), n))
        if len(self.clusters):
            no_means = np.zeros((0, self.paths.trees.n_outputs))
            self.clusters.add(codes, sums, jobs, NOTHING, no_means, self.tables)
        if self.walked.any():

            def walk_part(part: slice) -> None:
                sums[:, part] += self.walk(codes[:, part])

            jobs(walk_part, list(chunks(n, 256 if self.pairs else 1024)))
        return sums

    def walk(self, codes: np.ndarray) -> np.ndarray:
        """Sums ``(n_targets, n)`` of the walked trees' values, by blocks of rows."""
        paths = self.paths
        d, n = codes.shape
        n_blocks = -(-n // WALK_ROWS)
        padded = np.zeros((d, n_blocks * WALK_ROWS), np.int32)
        padded[:, :n] = codes
        blocks = np.ascontiguousarray(padded.reshape(d, n_blocks, WALK_ROWS).transpose(1, 0, 2))
        sums = np.zeros((n_blocks, paths.n_targets(self.pairs), WALK_ROWS))
        jobs = np.ascontiguousarray(paths.jobs[self.walked[paths.jobs[:, JOB_TREE]]])
        walk_trees(jobs, paths.nodes, paths.arrays, blocks, self.pairs, sums)
        return sums.transpose(1, 0, 2).reshape(-1, n_blocks * WALK_ROWS)[:, :n]


class InterventionalPlan:
    """How the interventional game is computed: which trees go by pairs of patterns, and clusters of
    the others.

    Attributes
    ----------
    by_patterns : ``(T,)`` bool.
    clusters : of the other trees.
    """

    def __init__(
        self, paths: Paths, pairs: bool, n_rows: int, n_background: int, route: str
    ) -> None:
        self.paths = paths
        self.pairs = pairs
        every = np.ones(len(paths.splits), bool)
        if route == "patterns":
            self.by_patterns = every
            self.clusters = LeafClusters(paths, ~every, PricedTables(paths, ~every, pairs, 1, 1))
            return
        priced = PricedTables(paths, every, pairs, n_rows, n_background)
        self.by_patterns = np.isinf(priced.prices.cost)
        if route == "auto":
            self.by_patterns |= priced.prices.cost > self._pattern_cost(n_rows, n_background)
        self.clusters = LeafClusters(paths, ~self.by_patterns, priced)

    def _pattern_cost(self, n_rows: int, n_background: int) -> np.ndarray:
        """Nanoseconds of each tree by pairs of patterns."""
        players = np.minimum(self.paths.arrays.tree_players, 40).astype(float)
        # Of the 2^d patterns of a long path, about as many as this occur among enough rows.
        occurring = 2.0 ** (0.7 * players)
        pairs = np.minimum(n_rows, occurring) * np.minimum(n_background, occurring)
        return self.paths.splits * (
            2.0 * (n_rows + n_background) * PATTERN_ROW
            + pairs * PATTERN_PAIR
            + n_rows * players * (1 + self.pairs * players / 2)
        )

    def prepare(
        self, background: np.ndarray, weights: np.ndarray, jobs: Jobs
    ) -> PreparedBackground:
        """Count background rows ``(d, R)`` with weights ``(R,)``."""
        return PreparedBackground(self, background, weights, jobs)


class PreparedBackground:
    """A plan with a background: all that explaining rows needs. Can be pickled, without tables."""

    def __init__(
        self, plan: InterventionalPlan, background: np.ndarray, weights: np.ndarray, jobs: Jobs
    ) -> None:
        self.plan = plan
        self.weights = weights
        self.histogram = plan.clusters.count(background, weights, jobs)
        # Where all trees have tables the histogram says everything about the background.
        self.background = background if plan.by_patterns.any() else background[:, :0].copy()
        # What the background's own leaves pay on average, by cluster; known when tables are built.
        self.means = np.zeros((len(plan.clusters), plan.paths.trees.n_outputs))
        self.tables: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"tables": None}

    @property
    def nbytes(self) -> int:
        """Bytes of histograms, plan, and tables if they are kept."""
        tables = 0 if self.tables is None else self.tables.nbytes
        return self.histogram.nbytes + self.background.nbytes + self.plan.clusters.nbytes + tables

    def keep_tables(self, memory_limit: int, jobs: Jobs) -> None:
        """Build all tables, unless they are there or take more bytes than that."""
        if self.tables is None:
            # Another thread may read the means meanwhile, so it sees old ones or all the new ones.
            means = np.zeros_like(self.means)
            tables = self.plan.clusters.all_tables(memory_limit, self.histogram, means, jobs)
            if tables is not None:
                self.means = means
                self.tables = tables

    @cached_property
    def _mean_prediction(self) -> np.ndarray:
        trees = self.plan.paths.trees
        total = np.zeros(self.plan.paths.trees.n_outputs)
        for part in chunks(self.background.shape[1], 65536):
            codes = np.ascontiguousarray(self.background[:, part].T)
            total = total + self.weights[part] @ trees.predict_codes(codes)
        return total

    def expected(self) -> np.ndarray:
        """Mean output of the background, ``(K,)``; where all trees have tables, after ``sums``."""
        if self.plan.by_patterns.any():
            return self._mean_prediction
        trees = self.plan.paths.trees
        single_leaves = trees.roots[self.plan.paths.arrays.tree_nodes == 1]
        return trees.base + trees.value[single_leaves].sum(axis=0) + self.means.sum(axis=0)

    def sums(self, codes: np.ndarray, jobs: Jobs) -> np.ndarray:
        """Sums ``(n_targets, n)`` of encoded rows ``(d, n)``."""
        plan = self.plan
        paths = self.plan.paths
        n = codes.shape[1]
        sums = np.zeros((paths.n_targets(plan.pairs), n))
        if len(plan.clusters):
            tables = self.tables  # once: another thread may bring them at any time
            means = self.means if tables is not None else np.zeros_like(self.means)
            plan.clusters.add(codes, sums, jobs, self.histogram, means, tables)
            self.means = means
        if not plan.by_patterns.any():
            return sums
        players = int(paths.arrays.tree_players[plan.by_patterns].max())
        chosen = np.flatnonzero(plan.by_patterns & (paths.n_outputs > 0))
        nodes = paths.nodes
        background = Background(self.background, self.weights, shapley_factors(players))

        def pair_part(part: slice) -> None:
            rows = (part.start, part.stop)
            pair_patterns(chosen, rows, nodes, paths.arrays, codes, background, plan.pairs, sums)

        # Rows at a time: their values, and at every level their patterns and partners, take memory.
        levels = int(paths.arrays.edges[:, LEVEL].max(initial=0)) + 2
        partners = levels * len(self.weights) // 64
        numbers = players + 8 * players + partners + plan.pairs * players * (players - 1) // 2
        jobs(pair_part, list(chunks(n, int(np.clip(2**24 // max(1, numbers), 16, 2048)))))
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
