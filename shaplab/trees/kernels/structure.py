"""What the fast algorithms need to know about paths, and the plan that cuts trees into table
clusters.

A path collects its splits by feature: each distinct feature is one player. ``z`` is the share of
cover that a player's splits keep when the feature is unknown, the product of child over parent; a
node without cover gives both children 0, so 0/0 counts as 0.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["describe_paths", "plan_clusters"]


@njit(cache=True, nogil=True)
def describe_paths(tree_start, feature, left, right, cover):
    """Describe every edge by the node it leads to.

    Returns
    -------
    order : nodes of each tree in preorder, from ``tree_start[t]``.
    edges : int32 ``(n_nodes, 7)``: parent, level, distinct features down to here, bit position of
    the
        edge's feature on its path, level of the previous edge on that feature (0 if none), size of
        the subtree in nodes, internal nodes in the subtree.
    shares : float64 ``(n_nodes, 3)``: z after this edge, z before it (1 if new), the edge's cover
    ratio.
    trees : int32 ``(T, 2)``: reachable nodes, largest number of distinct features on one path.
    """
    n_nodes = feature.shape[0]
    n_trees = tree_start.shape[0] - 1
    order = np.zeros(n_nodes, np.int32)
    edges = np.zeros((n_nodes, 7), np.int32)
    shares = np.ones((n_nodes, 3))
    trees = np.zeros((n_trees, 2), np.int32)
    stack = np.empty(n_nodes + 1, np.int32)
    for t in range(n_trees):
        start = tree_start[t]
        stack[0] = start
        edges[start, 0] = -1
        top = 1
        count = 0
        while top > 0:
            top -= 1
            node = stack[top]
            order[start + count] = node
            count += 1
            if feature[node] >= 0:
                stack[top] = right[node]
                stack[top + 1] = left[node]
                top += 2
                for child in (left[node], right[node]):
                    ratio = cover[child] / cover[node] if cover[node] > 0.0 else 0.0
                    edges[child, 0] = node
                    edges[child, 1] = edges[node, 1] + 1
                    above = node
                    while above != start and feature[edges[above, 0]] != feature[node]:
                        above = edges[above, 0]
                    shares[child, 2] = ratio
                    if above == start:
                        edges[child, 2] = edges[node, 2] + 1
                        edges[child, 3] = edges[node, 2]
                        edges[child, 4] = 0
                        shares[child, 0] = ratio
                        shares[child, 1] = 1.0
                    else:
                        edges[child, 2] = edges[node, 2]
                        edges[child, 3] = edges[above, 3]
                        edges[child, 4] = edges[above, 1]
                        shares[child, 0] = ratio * shares[above, 0]
                        shares[child, 1] = shares[above, 0]
            trees[t, 1] = max(trees[t, 1], edges[node, 2])
        trees[t, 0] = count
        for i in range(count - 1, -1, -1):
            node = order[start + i]
            edges[node, 5] = 1
            edges[node, 6] = 0
            if feature[node] >= 0:
                edges[node, 5] += edges[left[node], 5] + edges[right[node], 5]
                edges[node, 6] = 1 + edges[left[node], 6] + edges[right[node], 6]
    return order, edges, shares, trees


@njit(cache=True, nogil=True)
def _columns(position, stop, order, feature, edges, found):
    """Collect the distinct features of a cluster: path first, by bit position, then new ones in
    preorder."""
    root = order[position]
    count = edges[root, 2]
    found[:count] = -1
    above = root
    while edges[above, 0] >= 0:
        if found[edges[above, 3]] < 0:
            found[edges[above, 3]] = feature[edges[above, 0]]
        above = edges[above, 0]
    for i in range(position, stop):
        f = feature[order[i]]
        if f >= 0:
            known = False
            for k in range(count):
                known |= found[k] == f
            if not known:
                found[count] = f
                count += 1
    return count


@njit(cache=True, nogil=True)
def plan_clusters(
    tree_start,
    feature,
    left,
    right,
    order,
    edges,
    trees,
    chosen,
    outputs,
    max_bits,
    pairs,
    n_rows,
    n_background,
    chunk,
    prices,
):
    """Cut the chosen trees into clusters (subtrees tabulated together) of least total cost.

    A cluster's pattern has one bit for each distinct feature above it and one for each split
    inside. ``prices`` (ns): code of a bit, cluster, lookup, table entry merged, leaf entry,
    histogram row. ``chunk`` is the number of table entries after which the instructions start again
    from a root.

    Returns
    -------
    cost : ns for each tree, infinite where a path has more than ``max_bits`` distinct features.
    ops : int32 ``(n, 7)``: node, flip, bit, keep-or-clear mode, source level, target level, cluster
    or -1.
    clusters : int64 ``(C, 7)``: preorder position, bits, features, columns, table offset, histogram
    offset, tree.
    columns : features of each cluster, ``max_bits`` reserved for each.
    cuts : int64 ``(n, 2)``: first op and first cluster of each chunk.
    """
    n_nodes = feature.shape[0]
    n_trees = tree_start.shape[0] - 1
    best = np.zeros(n_nodes)
    build = np.zeros(n_nodes)
    merged = np.zeros(n_nodes, np.uint8)
    cost = np.zeros(n_trees)
    found = np.empty(4 * max_bits + 4 + (int(trees[:, 1].max()) if n_trees > 0 else 0), np.int32)
    place = np.zeros(n_nodes, np.int32)
    n_clusters = 0
    n_ops = 0
    for t in range(n_trees):
        start = tree_start[t]
        if not chosen[t] or outputs[t] == 0 or trees[t, 0] < 2:
            continue
        if trees[t, 1] > max_bits:
            cost[t] = np.inf
            continue
        for i in range(trees[t, 0] - 1, -1, -1):
            node = order[start + i]
            place[node] = start + i
            inside = edges[node, 6]
            bits = edges[node, 2] + inside
            split = np.inf
            if inside > 0:
                split = best[left[node]] + best[right[node]] + 2.0 * n_rows * prices[0]
            together = np.inf
            if bits <= max_bits:
                count = _columns(
                    start + i, start + i + edges[node, 5], order, feature, edges, found
                )
                width = (count + (count * (count - 1)) // 2 if pairs else count) * outputs[t]
                size = float(1 << bits)
                if inside > 0:
                    build[node] = (
                        build[left[node]]
                        + build[right[node]]
                        + size
                        * (width * prices[3] + (2.0 * prices[3] if n_background > 0 else 0.0))
                    )
                else:
                    nodes = (bits + 1) // 2
                    build[node] = (
                        size
                        * prices[4]
                        * (nodes * (width / outputs[t] + (bits if n_background > 0 else 1)) + width)
                    )
                spill = min(1.0, size / 1024.0)
                together = (
                    build[node]
                    + n_background * (inside * prices[0] + prices[5])
                    + n_rows * (inside * prices[0] + prices[1] + width * prices[2] * (1.0 + spill))
                )
            merged[node] = together <= split
            best[node] = min(together, split)
        cost[t] = best[start]
        # Clusters and ops of this tree, to size the arrays: at most one restart for each cluster.
        i = 0
        while i < trees[t, 0]:
            node = order[start + i]
            n_ops += 1
            if merged[node]:
                n_clusters += 1
                n_ops += edges[node, 6] + edges[node, 1]
                i += edges[node, 5]
            else:
                i += 1
    ops = np.zeros((n_ops, 7), np.int32)
    clusters = np.zeros((n_clusters, 7), np.int64)
    columns = np.zeros((n_clusters, max_bits), np.int32)
    cuts = np.zeros((n_clusters + 1, 2), np.int64)
    path = np.zeros((int(edges[:, 1].max()) if n_nodes > 0 else 0) + 2, np.int32)
    o = 0
    c = 0
    n_cuts = 0
    table = 0
    histogram = 0
    opened = -1
    for t in range(n_trees):
        start = tree_start[t]
        if not chosen[t] or outputs[t] == 0 or trees[t, 0] < 2 or cost[t] == np.inf:
            continue
        i = 0
        while i < trees[t, 0]:
            node = order[start + i]
            level = edges[node, 1]
            path[level] = node
            first = level
            if merged[node] and (opened < 0 or table - opened >= chunk):
                cuts[n_cuts, 0] = o
                cuts[n_cuts, 1] = c
                n_cuts += 1
                opened = table
                first = 1
            elif opened < 0:
                # Nothing is tabulated yet: the first cluster writes the whole path.
                i += 1
                continue
            for k in range(max(1, first), level + 1):
                edge = path[k]
                ops[o, 0] = edges[edge, 0]
                ops[o, 1] = edge == right[edges[edge, 0]]
                ops[o, 2] = edges[edge, 3]
                ops[o, 3] = edges[edge, 4] > 0
                ops[o, 4] = k - 1
                ops[o, 5] = k
                ops[o, 6] = -1
                o += 1
            if not merged[node]:
                i += 1
                continue
            stop = start + i + edges[node, 5]
            inner = 0
            for k in range(start + i, stop):
                if feature[order[k]] >= 0:
                    ops[o, 0] = order[k]
                    ops[o, 2] = edges[node, 2] + inner
                    ops[o, 4] = level if inner == 0 else level + 1
                    ops[o, 5] = level + 1
                    ops[o, 6] = -1
                    inner += 1
                    o += 1
            ops[o - 1, 6] = c
            count = _columns(start + i, stop, order, feature, edges, columns[c])
            width = (count + (count * (count - 1)) // 2 if pairs else count) * outputs[t]
            bits = edges[node, 2] + inner
            clusters[c, 0] = start + i
            clusters[c, 1] = bits
            clusters[c, 2] = count
            clusters[c, 3] = width
            clusters[c, 4] = table
            clusters[c, 5] = histogram
            clusters[c, 6] = t
            table += np.int64(width) << bits
            histogram += np.int64(1) << bits
            c += 1
            i += edges[node, 5]
    return cost, ops[:o], clusters[:c], columns, cuts[:n_cuts]
