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

from shaplab.trees.kernels.compiling import UNCOUNTED
from shaplab.trees.kernels.predict import Nodes, goes_left
from shaplab.trees.kernels.structure import (
    BIT,
    BITS,
    COLUMNS,
    EARLIER,
    FEATURES,
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
    PathArrays,
    add_new_features,
    path_players,
    table_columns,
)

__all__ = ["build_tables", "count_patterns", "look_up"]

# Rows whose patterns are found together: the patterns of all levels stay in the cache.
_LOOKUP_ROWS = 512
# The type of indices that are not negative. An index that might be negative is tested for that, and
# in the loops over patterns the test costs more than the arithmetic.
_index = np.uint64


class Layout(NamedTuple):
    """Where the nodes of one cluster, numbered in preorder, keep their tables and histograms."""

    cluster: int
    outputs: np.ndarray  # those that the cluster's tree pays
    node: np.ndarray  # (n,)
    features: np.ndarray  # (n, n_features): of the node's table, its path's by bit, then new ones
    n_features: np.ndarray  # (n,)
    columns: np.ndarray  # (n,) of its table, for one output
    size: np.ndarray  # (n,) patterns of its table
    table_start: np.ndarray  # (n,) first entry of its table; the root's has an array of its own
    histogram_start: np.ndarray  # (n,)


class _TableSpace(NamedTuple):
    """Room for one cluster."""

    tables: np.ndarray  # of all its nodes but the root
    histograms: np.ndarray  # of all its nodes but the root, or nothing
    product: np.ndarray  # B(a) of a leaf
    rest: np.ndarray  # B(a) without one player, for pairs
    share: np.ndarray  # z of a leaf's players


class Table(NamedTuple):
    """Numbers of a table or histogram inside an array: ``size`` patterns a column."""

    numbers: np.ndarray
    start: int
    size: int


@njit(cache=True, nogil=True)
def build_tables(
    low, high, nodes: Nodes, paths: PathArrays, plan: ClusterPlan, histogram, tables, means
):
    """Fill the tables of clusters ``low`` to ``high``; ``tables[0]`` is the first entry of ``low``.

    ``histogram`` holds the background's weight of every pattern of every cluster, or nothing for
    the path-dependent game; with it, ``means`` ``(C, K)`` takes what the background's own leaves
    pay on average.
    Columns of a table: features, then pairs (i, j < i), for each output in turn.
    """
    base = plan.clusters[low, TABLE_START]
    for c in range(low, high):
        layout = _make_layout(c, paths, plan)
        entries, patterns = _place_tables(layout, nodes, paths, plan)
        start = plan.clusters[c, TABLE_START] - base
        table = Table(tables, start, layout.size[0])
        tables[start : start + table.size * plan.clusters[c, COLUMNS]] = 0.0
        largest = layout.size.max()
        work = _TableSpace(
            np.zeros(entries),
            np.zeros(patterns if histogram.shape[0] > 0 else 0),
            np.empty(largest),
            np.empty(largest if plan.pairs else 0),
            np.empty(plan.clusters[c, FEATURES]),
        )
        seen = Table(histogram, 0, 0)
        if histogram.shape[0] > 0:
            seen = Table(histogram, plan.clusters[c, HISTOGRAM_START], table.size)
            means[c] = 0.0
        _fill_cluster(layout, nodes, paths, plan.pairs, seen, table, means, work)


@njit(**UNCOUNTED)
def _fill_cluster(
    layout: Layout,
    nodes: Nodes,
    paths: PathArrays,
    pairs,
    seen: Table,
    table: Table,
    means,
    work: _TableSpace,
):
    """Fill the table of a cluster, whose histogram is ``seen``, if it has one: split the histogram
    down to the leaves, fill the leaves' tables, and add them up."""
    weighted = seen.size > 0
    outputs = layout.outputs
    n_outputs = layout.outputs.shape[0]
    if weighted:
        for i in range(layout.node.shape[0]):
            own = Table(work.histograms, layout.histogram_start[i], layout.size[i])
            if i == 0:
                own = seen
            _hand_down(own, i, layout, nodes, paths.edges, work.histograms)
    for i in range(layout.node.shape[0] - 1, -1, -1):  # children before their parent
        leaf = layout.node[i]
        here = Table(work.tables, layout.table_start[i], layout.size[i])
        own = Table(work.histograms, layout.histogram_start[i], layout.size[i])
        if i == 0:
            here = table
            own = seen
        if nodes.feature[leaf] >= 0:
            _add_child(0, i, layout, paths.edges, n_outputs, here, work.tables)
            _add_child(1, i, layout, paths.edges, n_outputs, here, work.tables)
            continue
        pay = nodes.value[leaf, outputs[0]]
        if n_outputs > 1:
            pay = 1.0
        players = paths.edges[leaf, PLAYERS]
        if not weighted:
            _path_shares(leaf, paths, work.share)
        exact = (players + 1) // 2
        for rule in range(paths.rule_start[exact], paths.rule_start[exact + 1]):
            x = paths.rules[rule, RULE_NODE]
            weight = pay * paths.rules[rule, RULE_WEIGHT]
            if weighted:
                _multiply_over_background(work.product, own, players, x)
            else:
                _multiply_over_shares(work.product, work.share, players, x)
            for f in range(players):
                _take_out(work.product, f, x, weight, here)
                if pairs:
                    _take_out_twice(work.product, work.rest, players, f, x, weight, here)
        if weighted:
            everyone = own.numbers[own.start + own.size - 1]
            for k in range(n_outputs):
                means[layout.cluster, outputs[k]] += nodes.value[leaf, outputs[k]] * everyone
        if n_outputs > 1:
            _pay_outputs(nodes.value, leaf, outputs, layout.columns[i], here)


@njit(cache=True, nogil=True)
def _make_layout(cluster, paths: PathArrays, plan: ClusterPlan):
    """The nodes of a cluster, and room for where their tables stand."""
    position = plan.clusters[cluster, ROOT_POSITION]
    tree = plan.clusters[cluster, TREE]
    n = paths.edges[paths.order[position], SUBTREE_NODES]
    return Layout(
        cluster,
        paths.output_index[paths.output_start[tree] : paths.output_start[tree + 1]],
        paths.order[position : position + n],
        np.empty((n, plan.clusters[cluster, FEATURES]), np.int32),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
    )


@njit(**UNCOUNTED)
def _place_tables(layout: Layout, nodes: Nodes, paths: PathArrays, plan: ClusterPlan):
    """List the features of each node's table, and place the tables; returns the entries of all
    tables and of all histograms but the root's."""
    edges = paths.edges
    position = plan.clusters[layout.cluster, ROOT_POSITION]
    n_outputs = layout.outputs.shape[0]
    entries = 0
    patterns = 0
    for i in range(layout.node.shape[0]):
        node = layout.node[i]
        features = layout.features[i]
        path_players(node, nodes, edges, features)
        first = position + i
        last = position + i + edges[node, SUBTREE_NODES]
        players = edges[node, PLAYERS]
        count = add_new_features(first, last, nodes, paths.order, features, players)
        layout.n_features[i] = count
        layout.columns[i] = table_columns(count, plan.pairs)
        layout.size[i] = np.int64(1) << (players + edges[node, SUBTREE_SPLITS])
        if i > 0:
            layout.table_start[i] = entries
            layout.histogram_start[i] = patterns
            entries += layout.size[i] * n_outputs * layout.columns[i]
            patterns += layout.size[i]
    return entries, patterns


@njit(inline="always")
def _child_of(i, side, layout: Layout, edges):
    """Number of the left (side 0) or right child of a cluster's node ``i``."""
    if side == 0:
        return i + 1
    return i + 1 + edges[layout.node[i + 1], SUBTREE_NODES]


@njit(inline="always")
def _hand_down(own: Table, i, layout: Layout, nodes: Nodes, edges, counts):
    """Split the histogram of an inner node among its children.

    A pattern of the node: answers of the path's players, of its own split, of the splits in the
    left subtree, of those in the right one. Below the split its answer is a player's.
    """
    node = layout.node[i]
    if nodes.feature[node] < 0:
        return
    players = edges[node, PLAYERS]
    n_left = edges[layout.node[i + 1], SUBTREE_SPLITS]
    for side in range(2):
        j = _child_of(i, side, layout, edges)
        child = layout.node[j]
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
            to = layout.histogram_start[j] + ((inside << child_players) | path)
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
def _column_above(column, child, parent, layout: Layout):
    """The parent's column for a column of its child, which is a feature's or a pair's."""
    larger = column
    smaller = -1
    if column >= layout.n_features[child]:
        larger = 1
        smaller = column - layout.n_features[child]
        while smaller >= larger:
            smaller -= larger
            larger += 1
    to = -1
    second = -1
    for k in range(layout.n_features[parent]):
        if layout.features[parent, k] == layout.features[child, larger]:
            to = k
        if smaller >= 0 and layout.features[parent, k] == layout.features[child, smaller]:
            second = k
    if smaller < 0:
        return to
    later = max(to, second)
    return layout.n_features[parent] + (later * (later - 1)) // 2 + min(to, second)


@njit(inline="always")
def _add_child(side, i, layout: Layout, edges, n_outputs, table: Table, scratch):
    """Add the table of a child to that of its parent ``i``, for every answer of the parent's split
    and of the splits below the other child, which the child's table does not depend on."""
    node = layout.node[i]
    j = _child_of(i, side, layout, edges)
    child = layout.node[j]
    run = 1 << edges[node, PLAYERS]
    n_left = edges[layout.node[i + 1], SUBTREE_SPLITS]
    n_inside = edges[node, SUBTREE_SPLITS] - 1
    fresh = edges[child, EARLIER] == 0
    clear = ~(1 << edges[child, BIT])
    for column in range(layout.columns[j]):
        to = _column_above(column, j, i, layout)
        for k in range(n_outputs):
            source = layout.table_start[j] + (k * layout.columns[j] + column) * layout.size[j]
            target = table.start + (k * layout.columns[i] + to) * table.size
            for inside in range(1 << n_inside):
                own = inside >> n_left
                if side == 0:
                    own = inside & ((1 << n_left) - 1)
                own <<= edges[child, PLAYERS]
                for left in range(2):
                    place = target + ((2 * inside + left) << edges[node, PLAYERS])
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


class _RowPatterns(NamedTuple):
    """The patterns of a block of rows."""

    levels: np.ndarray  # (levels, rows) down to each level of the path
    answer: np.ndarray  # (rows,) the bit of the present split


@njit(cache=True, nogil=True)
def _room_for_patterns(plan: ClusterPlan, chunk):
    """Room for a block of rows at all levels of a chunk's ops."""
    levels = 1
    for op in range(plan.cuts[chunk, FIRST_OP], plan.cuts[chunk + 1, FIRST_OP]):
        levels = max(levels, plan.ops[op, OP_TARGET] + 1)
    return _RowPatterns(
        np.zeros((levels, _LOOKUP_ROWS), np.int32), np.zeros(_LOOKUP_ROWS, np.int32)
    )


@njit(inline="always")
def _run_op(op, nodes: Nodes, ops, codes, begin, n, patterns: _RowPatterns):
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


@njit(cache=True, nogil=True)
def count_patterns(chunk, nodes: Nodes, plan: ClusterPlan, codes, weights, histogram):
    """Add the weights of all rows ``codes`` ``(d, R)`` to the histograms of a chunk's clusters."""
    patterns = _room_for_patterns(plan, chunk)
    _count_rows(chunk, nodes, plan, codes, weights, patterns, histogram)


@njit(**UNCOUNTED)
def _count_rows(
    chunk, nodes: Nodes, plan: ClusterPlan, codes, weights, patterns: _RowPatterns, histogram
):
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


@njit(cache=True, nogil=True)
def look_up(chunks, nodes: Nodes, plan: ClusterPlan, codes, rows, tables, sums):
    """Add what the tables of chunks ``chunks[0]`` to ``chunks[1]`` hold for rows ``rows[0]`` to
    ``rows[1]`` of ``codes`` ``(d, n)`` to ``sums`` ``(n_targets, n)``; ``tables[0]`` is the first
    entry of the first chunk."""
    base = plan.clusters[plan.cuts[chunks[0], FIRST_CLUSTER], TABLE_START]
    for chunk in range(chunks[0], chunks[1]):
        patterns = _room_for_patterns(plan, chunk)
        _look_rows_up((chunk, base), nodes, plan, codes, rows, tables, patterns, sums)


@njit(**UNCOUNTED)
def _look_rows_up(
    place, nodes: Nodes, plan: ClusterPlan, codes, rows, tables, patterns: _RowPatterns, sums
):
    chunk, base = place  # and the entry among all tables that tables[0] is
    ops = plan.ops
    clusters = plan.clusters
    targets = plan.targets
    levels = patterns.levels
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
