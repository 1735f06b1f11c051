"""What the fast algorithms need to know about paths, and the plan that cuts trees into table
clusters.

A path collects its splits by player: each distinct feature is one, or each group of features that
are known together (``nodes.player``); "feature" means a player in the names and comments here. The
share z of a player is the part of the cover that its splits keep when the feature is unknown, the
product of child over parent; a node without cover gives both children 0, so 0/0 counts as 0. The
plan belongs to idea 3 of the chapter *Fast enough for everything* (trees/kernels), "kinds, not
rows".

Rows of integers have named columns, because a compiled loop reads a row at once: write
``edges[node, PLAYERS]``. An edge is named by the node it leads to.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from shaplab.trees.kernels.compiling import ENTRY
from shaplab.trees.kernels.predict import Nodes

__all__ = [
    "ClusterPlan",
    "ClusterPrices",
    "LargestCluster",
    "PathArrays",
    "Prices",
    "Workload",
    "describe_paths",
    "plan_clusters",
    "price_clusters",
]

# Columns of ``edges``, int32.
PARENT = 0
LEVEL = 1  # edges from the root
PLAYERS = 2  # distinct features down to here
BIT = 3  # which player of its path the edge's feature is, counted from 0
EARLIER = 4  # level of the last edge above on the same feature, 0 if there is none
SUBTREE_NODES = 5
SUBTREE_SPLITS = 6

# Columns of ``shares``, float64.
SHARE = 0  # z of the edge's player with this edge
SHARE_BEFORE = 1  # z of that player without it, 1 for a new player
COVER_RATIO = 2  # cover of the node over cover of its parent

# Columns of ``rules``: Gauss-Legendre nodes in [0, 1] and their weights.
RULE_NODE = 0
RULE_WEIGHT = 1

# Columns of ``ops``, int32. An op answers one split for a block of rows.
OP_SPLIT = 0  # the node that asks
OP_RIGHT = 1  # 1: the bit says that the row goes right
OP_BIT = 2  # of the pattern
OP_KEEP = 3  # 1: the player has answered before, so the bit stays only where the row agrees again
OP_SOURCE = 4  # level whose patterns are read
OP_TARGET = 5  # level whose patterns are written
OP_CLUSTER = 6  # the cluster whose patterns are complete now, or -1

# Columns of ``clusters``, int64.
ROOT_POSITION = 0  # place of the cluster's root in ``order``
BITS = 1  # of a pattern: players of the root's path, then splits inside
FEATURES = 2  # distinct features of the path and of the splits inside
COLUMNS = 3  # of the table: features, then pairs of features, for each output
TABLE_START = 4  # first entry among all tables
HISTOGRAM_START = 5  # first entry among all histograms
TREE = 6
FIRST_TARGET = 7  # where its columns stand in ``targets``

# Columns of ``cuts``, int64: where a chunk of clusters begins. The last row is where all end.
FIRST_OP = 0
FIRST_CLUSTER = 1


class PathArrays(NamedTuple):
    """What all routes know about an ensemble's paths; the rows of two-dimensional arrays have named
    columns."""

    order: np.ndarray  # nodes of each tree in preorder, from tree_start[t]
    edges: np.ndarray  # (n_nodes, 7)
    shares: np.ndarray  # (n_nodes, 3)
    tree_nodes: np.ndarray  # (T,) nodes of each tree
    tree_players: np.ndarray  # (T,) most players on one path
    output_start: np.ndarray  # (T+1,) the outputs that tree t pays: from output_start[t] ...
    output_index: np.ndarray  # ... to output_start[t + 1] of these
    tree_rule: np.ndarray  # (T,) the rule of each tree, by its number of nodes
    rule_start: np.ndarray  # rule q: rows from rule_start[q] to rule_start[q + 1] ...
    rules: np.ndarray  # ... of these, (n, 2)


class ClusterPlan(NamedTuple):
    """Clusters and the ops that find the patterns of rows in them."""

    ops: np.ndarray  # (n_ops, 7)
    clusters: np.ndarray  # (n_clusters, 8)
    features: np.ndarray  # (n_clusters, max_bits): features of each cluster, by bit, then new ones
    targets: np.ndarray  # row of the sums that each column of the tables adds to
    cuts: np.ndarray  # (n_chunks + 1, 2)
    pairs: bool  # tables have columns for pairs, too


class LargestCluster(NamedTuple):
    """Most of everything that one cluster of a plan has."""

    nodes: int
    features: int
    patterns: int
    entries: int  # of the tables of all nodes but the root
    histograms: int  # patterns of all nodes but the root
    levels: int  # of the patterns of a block of rows


class Prices(NamedTuple):
    """Nanoseconds of the steps that a plan weighs, measured."""

    bit: float  # one bit of one row's pattern
    cluster: float  # one cluster for one row
    lookup: float  # one table entry for one row
    merge: float  # one table entry added to the parent's table
    leaf: float  # one table entry of a leaf, for one node of the rule
    histogram: float  # one cluster for one background row


class Workload(NamedTuple):
    """What a plan has to serve."""

    n_players: int
    n_rows: int
    n_background: int  # 0 for the path-dependent game
    pairs: bool
    max_bits: int  # of a cluster's pattern
    chunk: int  # table entries after which the ops start again from a root
    prices: Prices


class ClusterPrices(NamedTuple):
    """What tables of each tree cost, and what is known of the table of each node's subtree."""

    cost: np.ndarray  # (T,) ns, infinite where a path has more than ``max_bits`` distinct features
    is_root: np.ndarray  # (n_nodes,) 1 where a cluster's root stands in ``order``
    features: np.ndarray  # (n_nodes,) distinct features of the path and of the splits below
    entries: np.ndarray  # (n_nodes,) of the table, with those that it is added up from
    histograms: np.ndarray  # (n_nodes,) their patterns


class _Below(NamedTuple):
    """Nanoseconds below each node, ``(n_nodes,)``."""

    best: np.ndarray  # tables of the subtree, and all rows looked up
    build: np.ndarray  # one table of the whole subtree
    together: np.ndarray  # 1 where one table of the whole subtree is best


def describe_paths(nodes: Nodes, cover):
    """Follow every path once; returns the first five fields of ``PathArrays``."""
    n_nodes = nodes.feature.shape[0]
    n_trees = nodes.tree_start.shape[0] - 1
    order = np.zeros(n_nodes, np.int32)
    edges = np.zeros((n_nodes, 7), np.int32)
    shares = np.ones((n_nodes, 3))
    tree_nodes = np.zeros(n_trees, np.int32)
    tree_players = np.zeros(n_trees, np.int32)
    stack = np.empty(n_nodes + 1, np.int32)
    follow_trees(nodes, cover, order, edges, shares, tree_nodes, tree_players, stack)
    return order, edges, shares, tree_nodes, tree_players


@njit(**ENTRY)
def follow_trees(nodes: Nodes, cover, order, edges, shares, tree_nodes, tree_players, stack):
    """Describe the edges of each tree in preorder, then the subtrees from the leaves up; count its
    nodes and most players on a path."""
    for tree in range(tree_nodes.shape[0]):
        start = nodes.tree_start[tree]
        stack[0] = start
        edges[start, PARENT] = -1
        waiting = 1
        count = 0
        most_players = 0
        while waiting > 0:
            waiting -= 1
            node = stack[waiting]
            order[start + count] = node
            count += 1
            if node != start:
                _describe_edge(node, start, nodes, cover, edges, shares)
            if edges[node, PLAYERS] > most_players:
                most_players = edges[node, PLAYERS]
            if nodes.feature[node] >= 0:
                edges[nodes.left[node], PARENT] = node
                edges[nodes.right[node], PARENT] = node
                stack[waiting] = nodes.right[node]
                stack[waiting + 1] = nodes.left[node]
                waiting += 2
        tree_nodes[tree] = count
        tree_players[tree] = most_players
        for i in range(count - 1, -1, -1):  # children before their parent
            node = order[start + i]
            left = nodes.left[node]
            right = nodes.right[node]
            edges[node, SUBTREE_NODES] = 1
            edges[node, SUBTREE_SPLITS] = 0
            if nodes.feature[node] >= 0:
                edges[node, SUBTREE_NODES] += (
                    edges[left, SUBTREE_NODES] + edges[right, SUBTREE_NODES]
                )
                edges[node, SUBTREE_SPLITS] = (
                    1 + edges[left, SUBTREE_SPLITS] + edges[right, SUBTREE_SPLITS]
                )


@njit(inline="always")
def _describe_edge(child, root, nodes: Nodes, cover, edges, shares):
    """Fill the rows of the edge to ``child`` whose parent's edge is described already."""
    node = edges[child, PARENT]
    ratio = 0.0
    if cover[node] > 0.0:
        ratio = cover[child] / cover[node]
    edges[child, LEVEL] = edges[node, LEVEL] + 1
    shares[child, COVER_RATIO] = ratio
    # The last edge above on the same feature; the root's, which is none, if the feature is new.
    above = node
    while above != root and nodes.player[edges[above, PARENT]] != nodes.player[node]:
        above = edges[above, PARENT]
    if above == root:
        edges[child, PLAYERS] = edges[node, PLAYERS] + 1
        edges[child, BIT] = edges[node, PLAYERS]
        edges[child, EARLIER] = 0
        shares[child, SHARE] = ratio
        shares[child, SHARE_BEFORE] = 1.0
    else:
        edges[child, PLAYERS] = edges[node, PLAYERS]
        edges[child, BIT] = edges[above, BIT]
        edges[child, EARLIER] = edges[above, LEVEL]
        shares[child, SHARE] = ratio * shares[above, SHARE]
        shares[child, SHARE_BEFORE] = shares[above, SHARE]


@njit(inline="always")
def path_players(node, nodes: Nodes, edges, players):
    """Write the feature of each player of the path to ``node``, by bit."""
    players[: edges[node, PLAYERS]] = -1
    above = node
    while edges[above, PARENT] >= 0:
        players[edges[above, BIT]] = nodes.player[edges[above, PARENT]]
        above = edges[above, PARENT]


@njit(inline="always")
def add_new_features(first, last, nodes: Nodes, order, features, count):
    """Append the features that split ``order[first:last]`` and are not among the first ``count``;
    returns how many there are then."""
    for i in range(first, last):
        feature = nodes.player[order[i]]
        if feature >= 0:
            known = False
            for k in range(count):
                known |= features[k] == feature
            if not known:
                features[count] = feature
                count += 1
    return count


@njit(inline="always")
def _cluster_features(position, nodes: Nodes, paths: PathArrays, features):
    """Distinct features of a cluster: its path's, by bit, then new ones in preorder."""
    root = paths.order[position]
    path_players(root, nodes, paths.edges, features)
    last = position + paths.edges[root, SUBTREE_NODES]
    return add_new_features(
        position, last, nodes, paths.order, features, paths.edges[root, PLAYERS]
    )


@njit(inline="always")
def table_columns(n_features, pairs):
    """Columns of a table for one output: features, then pairs (i, j < i)."""
    if pairs:
        return n_features + (n_features * (n_features - 1)) // 2
    return n_features


def price_clusters(nodes: Nodes, paths: PathArrays, chosen, work: Workload) -> ClusterPrices:
    """Find the clusters (subtrees tabulated together) of least total cost of the chosen trees.

    A cluster's pattern has one bit for each distinct feature above it and one for each split
    inside. Chapter trees/kernels, idea 3.
    """
    n_nodes = nodes.feature.shape[0]
    chosen = chosen & (np.diff(paths.output_start) > 0) & (paths.tree_nodes > 1)
    too_long = paths.tree_players > work.max_bits
    prices = ClusterPrices(
        cost=np.where(chosen & too_long, np.inf, 0.0),
        is_root=np.zeros(n_nodes, np.uint8),
        features=np.zeros(n_nodes, np.int64),
        entries=np.zeros(n_nodes, np.int64),
        histograms=np.zeros(n_nodes, np.int64),
    )
    below = _Below(np.zeros(n_nodes), np.zeros(n_nodes), np.zeros(n_nodes, np.uint8))
    features = np.empty(work.max_bits, np.int32)
    trees = np.flatnonzero(chosen & ~too_long)
    price_trees(trees, nodes, paths, work, below, prices, features)
    return prices


def plan_clusters(nodes: Nodes, paths: PathArrays, chosen, prices: ClusterPrices, work: Workload):
    """Cut the chosen trees, which have been priced, into clusters.

    Returns
    -------
    plan : the ``ClusterPlan``.
    largest : the room that a cluster needs at most.
    """
    clusters = _list_clusters(nodes, paths, chosen, prices, work.pairs)
    roots = paths.order[clusters[:, ROOT_POSITION]]
    # Each cluster may have to start again from the root.
    n_ops = int((paths.edges[roots, SUBTREE_SPLITS] + paths.edges[roots, LEVEL]).sum())
    plan = ClusterPlan(
        ops=np.zeros((n_ops, 7), np.int32),
        clusters=clusters,
        features=np.zeros((len(clusters), work.max_bits), np.int32),
        targets=np.empty(0, np.int64),
        cuts=np.zeros((len(clusters) + 1, 2), np.int64),
        pairs=work.pairs,
    )
    path = np.full(n_ops + 2, -1, np.int32)  # no path is longer than all ops
    written = np.zeros(2, np.int64)
    write_clusters(nodes, paths, work.chunk, path, plan, written)
    targets = _list_targets(plan, paths, work, nodes.value.shape[1])
    patterns = 1 << clusters[:, BITS]
    largest = LargestCluster(
        nodes=int(paths.edges[roots, SUBTREE_NODES].max(initial=0)),
        features=int(clusters[:, FEATURES].max(initial=0)),
        patterns=int(patterns.max(initial=0)),
        entries=int((prices.entries[roots] - clusters[:, COLUMNS] * patterns).max(initial=0)),
        histograms=int((prices.histograms[roots] - patterns).max(initial=0)),
        levels=int(paths.edges[roots, LEVEL].max(initial=0)) + 2,
    )
    plan = plan._replace(
        ops=plan.ops[: written[0]], cuts=plan.cuts[: written[1] + 1], targets=targets
    )
    return plan, largest


def _list_targets(plan: ClusterPlan, paths: PathArrays, work: Workload, n_outputs: int):
    """Row of the sums for each column of each cluster: for each of the tree's outputs in turn the
    features, then pairs (i, j < i).

    Row ``feature * K + output`` of the sums takes values; with pairs, row ``(d + larger * d +
    smaller) * K + output`` takes interactions.
    """
    columns = plan.clusters[:, COLUMNS]
    owner = np.repeat(np.arange(len(columns)), columns)
    column = np.arange(len(owner)) - np.repeat(plan.clusters[:, FIRST_TARGET], columns)
    tree = plan.clusters[owner, TREE]
    first_output = paths.output_start[tree]
    width = columns[owner] // (paths.output_start[tree + 1] - first_output)
    turn, column = np.divmod(column, width)
    count = plan.clusters[owner, FEATURES]
    features = plan.features.astype(np.int64)
    player = features[owner, np.minimum(column, count - 1)]
    if work.pairs:
        larger, smaller = np.tril_indices(features.shape[1], -1)
        is_pair = column >= count
        pair = (column - count)[is_pair]
        two = features[owner[is_pair], larger[pair]], features[owner[is_pair], smaller[pair]]
        player[is_pair] = work.n_players * (1 + np.maximum(*two)) + np.minimum(*two)
    return player * n_outputs + paths.output_index[first_output + turn]


def _list_clusters(nodes: Nodes, paths: PathArrays, chosen, prices: ClusterPrices, pairs):
    """The clusters of the chosen trees, in preorder of each tree."""
    positions = np.flatnonzero(prices.is_root)
    tree = np.searchsorted(nodes.tree_start, positions, side="right") - 1
    positions = positions[chosen[tree]]
    tree = tree[chosen[tree]]
    roots = paths.order[positions]
    edges = paths.edges[roots]
    bits = (edges[:, PLAYERS] + edges[:, SUBTREE_SPLITS]).astype(np.int64)
    count = prices.features[roots]
    columns = count + count * (count - 1) // 2 if pairs else count
    columns = columns * np.diff(paths.output_start)[tree]
    clusters = np.zeros((len(roots), 8), np.int64)
    clusters[:, ROOT_POSITION] = positions
    clusters[:, BITS] = bits
    clusters[:, FEATURES] = count
    clusters[:, COLUMNS] = columns
    clusters[:, TREE] = tree
    sizes = ((TABLE_START, columns << bits), (HISTOGRAM_START, 1 << bits), (FIRST_TARGET, columns))
    for column, size in sizes:
        clusters[1:, column] = np.cumsum(size)[:-1]
    return clusters


@njit(**ENTRY)
def price_trees(
    trees,
    nodes: Nodes,
    paths: PathArrays,
    work: Workload,
    below: _Below,
    prices: ClusterPrices,
    room,
):
    """Compare one table of a subtree with separate ones, from the leaves up; then mark the places
    in ``order`` of the subtrees that are best tabulated together."""
    price = work.prices
    for tree in trees:
        start = nodes.tree_start[tree]
        n_outputs = paths.output_start[tree + 1] - paths.output_start[tree]
        for i in range(paths.tree_nodes[tree] - 1, -1, -1):
            node = paths.order[start + i]
            left = nodes.left[node]
            right = nodes.right[node]
            inside = paths.edges[node, SUBTREE_SPLITS]
            bits = paths.edges[node, PLAYERS] + inside
            separate = np.inf
            if inside > 0:
                separate = below.best[left] + below.best[right] + 2.0 * work.n_rows * price.bit
            together = np.inf
            if bits <= work.max_bits:
                count = _cluster_features(start + i, nodes, paths, room)
                width = table_columns(count, work.pairs) * n_outputs
                size = float(1 << bits)
                prices.features[node] = count
                prices.entries[node] = width << bits
                prices.histograms[node] = 1 << bits
                if inside > 0:
                    prices.entries[node] += prices.entries[left] + prices.entries[right]
                    prices.histograms[node] += prices.histograms[left] + prices.histograms[right]
                    entry = width * price.merge
                    if work.n_background > 0:  # histograms of both children are split off, too
                        entry += 2.0 * price.merge
                    below.build[node] = below.build[left] + below.build[right] + size * entry
                else:
                    rule_nodes = (bits + 1) // 2
                    product_steps = 1
                    if work.n_background > 0:
                        product_steps = bits
                    steps = rule_nodes * (width / n_outputs + product_steps) + width
                    below.build[node] = size * price.leaf * steps
                spill = 1.0  # large tables are read from further away
                if size < 1024.0:
                    spill = size / 1024.0
                together = (
                    below.build[node]
                    + work.n_background * (inside * price.bit + price.histogram)
                    + work.n_rows
                    * (inside * price.bit + price.cluster + width * price.lookup * (1.0 + spill))
                )
            below.together[node] = together <= separate
            below.best[node] = separate
            if together < separate:
                below.best[node] = together
        prices.cost[tree] = below.best[start]
        position = start
        while position < start + paths.tree_nodes[tree]:
            node = paths.order[position]
            if below.together[node]:
                prices.is_root[position] = 1
                position += paths.edges[node, SUBTREE_NODES]
            else:
                position += 1


@njit(**ENTRY)
def write_clusters(nodes: Nodes, paths: PathArrays, chunk, path, plan: ClusterPlan, written):
    """Fill the features, ops and cuts of a plan; ``written`` takes how many ops and cuts there are.

    The ops of a cluster go down its path, from where it leaves the path of the cluster before, and
    then answer its own splits. A chunk starts again from the root, so that it needs no other.
    ``path`` takes the node at each level of the path; -1 at first.
    """
    ops = plan.ops
    clusters = plan.clusters
    cuts = plan.cuts
    edges = paths.edges
    op = 0
    n_cuts = 0
    opened = np.int64(0)
    for c in range(clusters.shape[0]):
        position = clusters[c, ROOT_POSITION]
        _cluster_features(position, nodes, paths, plan.features[c])
        root = paths.order[position]
        level = edges[root, LEVEL]
        restart = n_cuts == 0 or clusters[c, TABLE_START] - opened >= chunk
        if restart:
            cuts[n_cuts, FIRST_OP] = op
            cuts[n_cuts, FIRST_CLUSTER] = c
            opened = clusters[c, TABLE_START]
            n_cuts += 1
        shared = level  # levels of the path that the cluster before has been through
        above = root
        while shared > 0 and (restart or path[shared] != above):
            path[shared] = above
            above = edges[above, PARENT]
            shared -= 1
        for k in range(shared + 1, level + 1):
            split = edges[path[k], PARENT]
            ops[op, OP_SPLIT] = split
            ops[op, OP_RIGHT] = path[k] == nodes.right[split]
            ops[op, OP_BIT] = edges[path[k], BIT]
            ops[op, OP_KEEP] = edges[path[k], EARLIER] > 0
            ops[op, OP_SOURCE] = k - 1
            ops[op, OP_TARGET] = k
            ops[op, OP_CLUSTER] = -1
            op += 1
        source = level
        bit = edges[root, PLAYERS]
        for i in range(position, position + edges[root, SUBTREE_NODES]):
            node = paths.order[i]
            if nodes.feature[node] >= 0:
                ops[op, OP_SPLIT] = node
                ops[op, OP_BIT] = bit
                ops[op, OP_SOURCE] = source
                ops[op, OP_TARGET] = level + 1
                ops[op, OP_CLUSTER] = -1
                source = level + 1
                bit += 1
                op += 1
        ops[op - 1, OP_CLUSTER] = c
    cuts[n_cuts, FIRST_OP] = op
    cuts[n_cuts, FIRST_CLUSTER] = clusters.shape[0]
    written[0] = op
    written[1] = n_cuts
