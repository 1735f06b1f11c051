"""Pattern tables: build them for clusters of leaves, then look rows up.

A leaf reached by d players pays w when every player agrees with its path. With the Gauss-Legendre
nodes x and weights of [0, 1], the leaf's Shapley values for pattern a are sums over x of the
product B(a) = E_c prod_g (a_g x + c_g (1 - x) - a_g c_g x + ...), that is a factor of 1 where a = c
= 1, x where only a agrees, 1 - x where only c agrees and 0 where neither does. Taking one player f
out of the product needs no division by a small factor: without f and with c_f = 1 it is B(a_f=0) /
(1 - x), with c_f = 0 it is (B(a_f=1) - B(a_f=0) / (1 - x)) / x.

Ideas 3 and 4 of the chapter *Fast enough for everything* (trees/kernels), "kinds, not rows" and "a
background is a histogram". The chapter's kind of a row is its pattern here.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from shaplab.trees.kernels.compiling import ENTRY, UNCOUNTED
from shaplab.trees.kernels.predict import Nodes, goes_left
from shaplab.trees.kernels.structure import (
    BIT,
    BITS,
    COLUMNS,
    EARLIER,
    FIRST_CLUSTER,
    FIRST_OP,
    FIRST_TARGET,
    HISTOGRAM_START,
    OP_BIT,
    OP_CLUSTER,
    OP_KEEP,
    OP_RIGHT,
    OP_SOURCE,
    OP_SPLIT,
    OP_TARGET,
    PARENT,
    PLAYERS,
    ROOT_POSITION,
    RULE_NODE,
    RULE_WEIGHT,
    SHARE,
    SUBTREE_NODES,
    SUBTREE_SPLITS,
    TABLE_START,
    TREE,
    ClusterPlan,
    LargestCluster,
    PathArrays,
    add_new_features,
    path_players,
    table_columns,
)

__all__ = [
    "BackgroundMet",
    "build_tables",
    "count_patterns",
    "look_up",
    "row_patterns",
    "table_space",
]

# Rows whose patterns are found together: the patterns of all levels stay in the cache. With a power
# of two counting takes a quarter longer (measured for 256, 512, 1,024), probably because the same
# row's patterns at all levels compete for one place in the cache.
_LOOKUP_ROWS = 448
# The type of indices that are not negative. An index that might be negative is tested for that, and
# in the loops over patterns the test costs more than the arithmetic.
_index = np.uint64


# Columns of ``places``, int64.
NODE_FEATURES = 0  # distinct features of the node's table
NODE_COLUMNS = 1  # of its table, for one output
NODE_SIZE = 2  # patterns of its table
NODE_TABLE = 3  # first entry of its table; the root's has an array of its own
NODE_HISTOGRAM = 4


class TableSpace(NamedTuple):
    """Room for one cluster at a time, whose nodes are numbered in preorder."""

    features: np.ndarray  # (n, n_features): of the node's table, its path's by bit, then new ones
    places: np.ndarray  # (n, 5)
    tables: np.ndarray  # of all nodes but the root
    histograms: np.ndarray  # of all nodes but the root
    product: np.ndarray  # B(a) of a leaf
    share: np.ndarray  # z of a leaf's players


class BackgroundMet(NamedTuple):
    """What clusters meet of a background: all empty for the path-dependent game."""

    histogram: np.ndarray  # weight of every pattern of every cluster
    means: np.ndarray  # (C, K) takes what the background's own leaves pay on average


class Table(NamedTuple):
    """Numbers of a table or histogram inside an array: ``size`` patterns a column."""

    numbers: np.ndarray
    start: int
    size: int


def table_space(largest: LargestCluster, weighted: bool) -> TableSpace:
    """Room for any cluster of a plan; with a background it is ``weighted``."""
    return TableSpace(
        features=np.empty((largest.nodes, largest.features), np.int32),
        places=np.empty((largest.nodes, 5), np.int64),
        tables=np.empty(largest.entries),
        histograms=np.empty(weighted * largest.histograms),
        product=np.empty(largest.patterns),
        share=np.empty(largest.features),
    )


@njit(**ENTRY)
def build_tables(
    clusters,
    nodes: Nodes,
    paths: PathArrays,
    plan: ClusterPlan,
    met: BackgroundMet,
    tables,
    space: TableSpace,
    rest,
):
    """Fill the tables of clusters ``clusters[0]`` to ``clusters[1]``; ``tables[0]`` is the first
    entry of the first one.

    ``rest`` is room for B(a) without one player, which pairs need, or None for a
    plan without pairs: the compiler then leaves out what is theirs, and the first call is shorter.
    Columns of a table: features, then pairs (i, j < i), for each output in turn.
    """
    base = plan.clusters[clusters[0], TABLE_START]
    for c in range(clusters[0], clusters[1]):
        start = plan.clusters[c, TABLE_START] - base
        size = np.int64(1) << plan.clusters[c, BITS]
        for entry in range(start, start + size * plan.clusters[c, COLUMNS]):
            tables[entry] = 0.0
        table = Table(tables, start, size)
        if met.histogram.shape[0] > 0:
            met.means[c] = 0.0
        _place_tables(c, nodes, paths, plan, space)
        _fill_cluster(c, nodes, paths, plan, met, table, space, rest)


@njit(**UNCOUNTED)
def _place_tables(cluster, nodes: Nodes, paths: PathArrays, plan: ClusterPlan, space: TableSpace):
    """List the features of each node's table, place the tables, and clear them and the histograms
    of all nodes but the root."""
    edges = paths.edges
    position = plan.clusters[cluster, ROOT_POSITION]
    tree = plan.clusters[cluster, TREE]
    n_outputs = paths.output_start[tree + 1] - paths.output_start[tree]
    entries = np.int64(0)
    patterns = np.int64(0)
    for i in range(edges[paths.order[position], SUBTREE_NODES]):
        node = paths.order[position + i]
        features = space.features[i]
        path_players(node, nodes, edges, features)
        last = position + i + edges[node, SUBTREE_NODES]
        players = edges[node, PLAYERS]
        count = add_new_features(position + i, last, nodes, paths.order, features, players)
        own = space.places[i]
        own[NODE_FEATURES] = count
        own[NODE_COLUMNS] = table_columns(count, plan.pairs)
        own[NODE_SIZE] = np.int64(1) << (players + edges[node, SUBTREE_SPLITS])
        own[NODE_TABLE] = entries
        own[NODE_HISTOGRAM] = patterns
        if i > 0:
            entries += own[NODE_SIZE] * n_outputs * own[NODE_COLUMNS]
            patterns += own[NODE_SIZE]
    for entry in range(entries):
        space.tables[entry] = 0.0
    if space.histograms.shape[0] == 0:
        return
    for pattern in range(patterns):
        space.histograms[pattern] = 0.0


@njit(**UNCOUNTED)
def _fill_cluster(
    cluster,
    nodes: Nodes,
    paths: PathArrays,
    plan: ClusterPlan,
    met: BackgroundMet,
    table: Table,
    space: TableSpace,
    rest,
):
    """Fill the table of a cluster: split its histogram, if it has one, down to the leaves, fill the
    leaves' tables, and add them up."""
    weighted = met.histogram.shape[0] > 0
    seen = Table(met.histogram, plan.clusters[cluster, HISTOGRAM_START], table.size)
    position = plan.clusters[cluster, ROOT_POSITION]
    tree = plan.clusters[cluster, TREE]
    first_output = paths.output_start[tree]
    n_outputs = paths.output_start[tree + 1] - first_output
    n_nodes = paths.edges[paths.order[position], SUBTREE_NODES]
    if weighted:
        for i in range(n_nodes):
            own = Table(
                space.histograms, space.places[i, NODE_HISTOGRAM], space.places[i, NODE_SIZE]
            )
            if i == 0:
                own = seen
            _hand_down(own, i, position, nodes, paths, space)
    for i in range(n_nodes - 1, -1, -1):  # children before their parent
        leaf = paths.order[position + i]
        size = space.places[i, NODE_SIZE]
        here = Table(space.tables, space.places[i, NODE_TABLE], size)
        own = Table(space.histograms, space.places[i, NODE_HISTOGRAM], size)
        if i == 0:
            here = table
            own = seen
        if nodes.feature[leaf] >= 0:
            for side in range(2):
                _add_child(side, i, position, paths, n_outputs, here, space, rest)
            continue
        pay = nodes.value[leaf, paths.output_index[first_output]]
        if n_outputs > 1:
            pay = 1.0
        players = paths.edges[leaf, PLAYERS]
        if not weighted:
            _path_shares(leaf, paths, space.share)
        exact = (players + 1) // 2
        for rule in range(paths.rule_start[exact], paths.rule_start[exact + 1]):
            x = paths.rules[rule, RULE_NODE]
            weight = pay * paths.rules[rule, RULE_WEIGHT]
            if weighted:
                _multiply_over_background(space.product, own, players, x)
            else:
                _multiply_over_shares(space.product, space.share, players, x)
            for f in range(players):
                _take_out(space.product, f, x, weight, here)
                if rest is not None:
                    _take_out_twice(space.product, rest, players, f, x, weight, here)
        outputs = paths.output_index[first_output : first_output + n_outputs]
        if weighted:
            everyone = own.numbers[own.start + own.size - 1]
            for k in range(n_outputs):
                met.means[cluster, outputs[k]] += nodes.value[leaf, outputs[k]] * everyone
        if n_outputs > 1:
            _pay_outputs(nodes.value, leaf, outputs, space.places[i, NODE_COLUMNS], here)


@njit(inline="always")
def _child_of(i, side, position, paths: PathArrays):
    """Number of the left (side 0) or right child of a cluster's node ``i``; the root stands at
    ``position`` of the order."""
    if side == 0:
        return i + 1
    return i + 1 + paths.edges[paths.order[position + i + 1], SUBTREE_NODES]


@njit(inline="always")
def _hand_down(own: Table, i, position, nodes: Nodes, paths: PathArrays, space: TableSpace):
    """Split the histogram of an inner node among its children.

    A pattern of the node: answers of the path's players, of its own split, of the splits in the
    left subtree, of those in the right one. Below the split its answer is a player's.
    """
    edges = paths.edges
    counts = space.histograms
    node = paths.order[position + i]
    if nodes.feature[node] < 0:
        return
    players = edges[node, PLAYERS]
    n_left = edges[paths.order[position + i + 1], SUBTREE_SPLITS]
    for side in range(2):
        j = _child_of(i, side, position, paths)
        child = paths.order[position + j]
        start = space.places[j, NODE_HISTOGRAM]
        clear = ~(1 << edges[child, BIT])
        child_players = edges[child, PLAYERS]
        for pattern in range(own.size):
            left = (pattern >> players) & 1
            agrees = (left == 1) == (side == 0)
            inside = pattern >> (players + 1)
            if side == 0:
                inside &= (1 << n_left) - 1
            else:
                inside >>= n_left
            path = pattern & ((1 << players) - 1)
            if edges[child, EARLIER] == 0:
                if agrees:
                    path |= 1 << players
            elif not agrees:
                path &= clear
            to = start + ((inside << child_players) | path)
            counts[_index(to)] += own.numbers[_index(own.start + pattern)]


@njit(inline="always")
def _path_shares(leaf, paths: PathArrays, share):
    """Write the share z of each player of a leaf, by bit."""
    share[: paths.edges[leaf, PLAYERS]] = np.nan
    node = leaf
    while paths.edges[node, PARENT] >= 0:
        bit = paths.edges[node, BIT]
        # The lowest edge on a feature comes first and holds the product of all of them.
        if np.isnan(share[bit]):
            share[bit] = paths.shares[node, SHARE]
        node = paths.edges[node, PARENT]


@njit(inline="always")
def _multiply_over_shares(product, share, players, x):
    """B(a) of the path-dependent game for every pattern a: z (1 - x) for a player that fails,
    z (1 - x) + x for one that agrees."""
    product[0] = 1.0
    for g in range(players):
        run = 1 << g
        fails = share[g] * (1.0 - x)
        agrees = fails + x
        for a in range(run):
            product[_index(a + run)] = product[_index(a)] * agrees
            product[_index(a)] *= fails


@njit(inline="always")
def _multiply_over_background(product, seen: Table, players, x):
    """B(a) of the interventional game for every pattern a, by butterflies (idea 4): one 2 x 2
    matrix for each player turns the histogram over c into the sum over c."""
    for a in range(seen.size):
        product[a] = seen.numbers[_index(seen.start + a)]
    for g in range(players):
        run = 1 << g
        for block in range(0, seen.size, 2 * run):
            for a in range(block, block + run):
                fails = product[_index(a)]
                agrees = product[_index(a + run)]
                product[_index(a)] = (1.0 - x) * agrees
                product[_index(a + run)] = x * fails + agrees


@njit(inline="always")
def _take_out(product, f, x, weight, table: Table):
    """Add the values of player f, whose factor is taken out of the product, to column f."""
    run = 1 << f
    column = table.start + f * table.size
    inverse = 1.0 / (1.0 - x)
    absent = -weight * inverse
    present = weight / x
    for block in range(0, table.size, 2 * run):
        for a in range(block, block + run):
            fails = product[_index(a)]
            table.numbers[_index(column + a)] += fails * absent
            table.numbers[_index(column + a + run)] += (
                product[_index(a + run)] - fails * inverse
            ) * present


@njit(inline="always")
def _take_out_twice(product, rest, players, f, x, weight, table: Table):
    """Add the interactions of player f with every player g < f: g is taken out of what is left of
    the product without f."""
    run = 1 << f
    inverse = 1.0 / (1.0 - x)
    absent = -weight * inverse
    present = weight / x
    for block in range(0, table.size, 2 * run):
        for a in range(block, block + run):
            fails = product[_index(a)]
            rest[_index(a)] = 0.5 * fails * absent
            rest[_index(a + run)] = 0.5 * (product[_index(a + run)] - fails * inverse) * present
    for g in range(f):
        run = 1 << g
        column = table.start + (players + (f * (f - 1)) // 2 + g) * table.size
        for block in range(0, table.size, 2 * run):
            for a in range(block, block + run):
                fails = rest[_index(a)]
                table.numbers[_index(column + a)] -= fails * inverse
                table.numbers[_index(column + a + run)] += (
                    rest[_index(a + run)] - fails * inverse
                ) / x


@njit(inline="always")
def _pay_outputs(value, leaf, outputs, columns, table: Table):
    """Turn the columns of a leaf that pays 1 into those of each output; the first output's come
    last, since they are made where the columns for 1 stand."""
    for k in range(outputs.shape[0] - 1, -1, -1):
        pay = value[leaf, outputs[k]]
        column = table.start + k * table.size * columns
        for entry in range(table.size * columns):
            table.numbers[_index(column + entry)] = pay * table.numbers[_index(table.start + entry)]


@njit(inline="always")
def _column_above(column, child, parent, space: TableSpace, rest):
    """The parent's column for a column of its child, which is a feature's or, with room for the
    ``rest``, a pair's."""
    own = space.features[child]
    above = space.features[parent]
    n_above = space.places[parent, NODE_FEATURES]
    if rest is None:
        to = 0
        while above[to] != own[column]:
            to += 1
        return to
    larger = column
    smaller = -1
    if column >= space.places[child, NODE_FEATURES]:
        larger = 1
        smaller = column - space.places[child, NODE_FEATURES]
        while smaller >= larger:
            smaller -= larger
            larger += 1
    to = -1
    second = -1
    for k in range(n_above):
        if above[k] == own[larger]:
            to = k
        if smaller >= 0 and above[k] == own[smaller]:
            second = k
    if smaller < 0:
        return to
    if to < second:
        to, second = second, to
    return n_above + (to * (to - 1)) // 2 + second


@njit(inline="always")
def _add_child(
    side, i, position, paths: PathArrays, n_outputs, table: Table, space: TableSpace, rest
):
    """Add the table of a child to that of its parent ``i``, for every answer of the parent's split
    and of the splits below the other child, which the child's table does not depend on."""
    edges = paths.edges
    scratch = space.tables
    node = paths.order[position + i]
    j = _child_of(i, side, position, paths)
    child = paths.order[position + j]
    columns = space.places[j, NODE_COLUMNS]
    players = edges[node, PLAYERS]
    run = 1 << players
    n_left = edges[paths.order[position + i + 1], SUBTREE_SPLITS]
    n_inside = edges[node, SUBTREE_SPLITS] - 1
    fresh = edges[child, EARLIER] == 0
    clear = ~(1 << edges[child, BIT])
    for column in range(columns):
        to = _column_above(column, j, i, space, rest)
        for k in range(n_outputs):
            source = (
                space.places[j, NODE_TABLE] + (k * columns + column) * space.places[j, NODE_SIZE]
            )
            target = table.start + (k * space.places[i, NODE_COLUMNS] + to) * table.size
            for inside in range(1 << n_inside):
                own = inside >> n_left
                if side == 0:
                    own = inside & ((1 << n_left) - 1)
                own <<= edges[child, PLAYERS]
                for left in range(2):
                    place = target + ((2 * inside + left) << players)
                    agrees = (left == 1) == (side == 0)
                    if fresh or agrees:
                        first = source + own
                        if fresh and agrees:
                            first += run
                        for path in range(run):
                            table.numbers[_index(place + path)] += scratch[_index(first + path)]
                    else:
                        for path in range(run):
                            table.numbers[_index(place + path)] += scratch[
                                _index(source + (own | (path & clear)))
                            ]


class RowPatterns(NamedTuple):
    """The patterns of a block of rows."""

    levels: np.ndarray  # (levels, rows) down to each level of the path
    answer: np.ndarray  # (rows,) the bit of the present split


def row_patterns(levels: int) -> RowPatterns:
    """Room for a block of rows at all levels of a plan's ops."""
    patterns = RowPatterns(
        np.empty((levels, _LOOKUP_ROWS), np.int32), np.empty(_LOOKUP_ROWS, np.int32)
    )
    patterns.levels[0] = 0  # nobody has answered yet
    return patterns


@njit(inline="always")
def _run_op(op, nodes: Nodes, ops, codes, begin, n, patterns: RowPatterns):
    """Write the patterns of rows ``begin`` to ``begin + n`` at the op's level."""
    levels = patterns.levels
    answer = patterns.answer
    split = ops[op, OP_SPLIT]
    feature = nodes.feature[split]
    source = ops[op, OP_SOURCE]
    target = ops[op, OP_TARGET]
    bit = np.int32(1) << ops[op, OP_BIT]
    if_left = np.int32(0 if ops[op, OP_RIGHT] else bit)
    if_right = np.int32(bit if ops[op, OP_RIGHT] else 0)
    if nodes.set_start[split] < 0:
        # As goes_left, with all that rows have in common taken out of the loop: it runs on vectors.
        rank = nodes.rank[split]
        lowest = np.int32(-1 if nodes.missing_left[split] else 0)
        for i in range(n):
            code = codes[feature, _index(begin + i)]
            answer[i] = if_left if (code >= lowest) & (code < rank) else if_right
    else:
        for i in range(n):
            left = goes_left(nodes, split, codes[feature, _index(begin + i)])
            answer[i] = if_left if left else if_right
    if ops[op, OP_KEEP] == 0:
        for i in range(n):
            levels[target, i] = levels[source, i] | answer[i]
    else:
        others = np.int32(~bit)
        for i in range(n):
            levels[target, i] = levels[source, i] & (answer[i] | others)


@njit(**ENTRY)
def count_patterns(
    chunk, nodes: Nodes, plan: ClusterPlan, codes, weights, patterns: RowPatterns, histogram
):
    """Add the weights of all rows ``codes`` ``(d, R)`` to the histograms of a chunk's clusters."""
    ops = plan.ops
    clusters = plan.clusters
    levels = patterns.levels
    for begin in range(0, codes.shape[1], _LOOKUP_ROWS):
        n = min(codes.shape[1], begin + _LOOKUP_ROWS) - begin
        for op in range(plan.cuts[chunk, FIRST_OP], plan.cuts[chunk + 1, FIRST_OP]):
            _run_op(op, nodes, ops, codes, begin, n, patterns)
            cluster = ops[op, OP_CLUSTER]
            if cluster < 0:
                continue
            level = ops[op, OP_TARGET]
            start = clusters[cluster, HISTOGRAM_START]
            for i in range(n):
                histogram[_index(start + levels[level, i])] += weights[_index(begin + i)]


@njit(**ENTRY)
def look_up(
    chunks, nodes: Nodes, plan: ClusterPlan, codes, rows, tables, patterns: RowPatterns, sums
):
    """Add what the tables of chunks ``chunks[0]`` to ``chunks[1]`` hold for rows ``rows[0]`` to
    ``rows[1]`` of ``codes`` ``(d, n)`` to ``sums`` ``(n_targets, n)``; ``tables[0]`` is the first
    entry of the first chunk."""
    ops = plan.ops
    clusters = plan.clusters
    targets = plan.targets
    levels = patterns.levels
    base = clusters[plan.cuts[chunks[0], FIRST_CLUSTER], TABLE_START]
    for chunk in range(chunks[0], chunks[1]):
        for begin in range(rows[0], rows[1], _LOOKUP_ROWS):
            n = min(rows[1], begin + _LOOKUP_ROWS) - begin
            for op in range(plan.cuts[chunk, FIRST_OP], plan.cuts[chunk + 1, FIRST_OP]):
                _run_op(op, nodes, ops, codes, begin, n, patterns)
                cluster = ops[op, OP_CLUSTER]
                if cluster < 0:
                    continue
                level = ops[op, OP_TARGET]
                column = clusters[cluster, TABLE_START] - base
                size = np.int64(1) << clusters[cluster, BITS]
                first_target = clusters[cluster, FIRST_TARGET]
                for k in range(clusters[cluster, COLUMNS]):
                    target = targets[first_target + k]
                    for i in range(n):
                        sums[target, _index(begin + i)] += tables[_index(column + levels[level, i])]
                    column += size
