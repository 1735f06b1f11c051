"""Pattern tables: build them for clusters of leaves, then look rows up.

A leaf reached by d players pays w when every player agrees with its path. With the Gauss-Legendre
nodes x and weights of [0, 1], the leaf's Shapley values for pattern a are sums over x of the
product B(a) = E_c prod_g (a_g x + c_g (1 - x) - a_g c_g x + ...), that is a factor of 1 where a = c
= 1, x where only a agrees, 1 - x where only c agrees and 0 where neither does. Taking one player f
out of the product needs no division by a small factor: without f and with c_f = 1 it is B(a_f=0) /
(1 - x), with c_f = 0 it is (B(a_f=1) - B(a_f=0) / (1 - x)) / x.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["build_tables", "evaluate_tables"]

_ROWS = 512


@njit(cache=True, nogil=True)
def build_tables(
    low,
    high,
    clusters,
    columns,
    order,
    feature,
    left,
    edges,
    shares,
    value,
    out_start,
    out_index,
    rules_start,
    rules,
    histogram,
    pairs,
    base,
    tables,
    means,
):
    """Fill the tables of clusters ``low`` to ``high``; ``tables[0]`` is table offset ``base``.

    ``histogram`` holds the background's weight of every pattern of every cluster, or nothing for
    the path-dependent game; with it, ``means`` ``(C, K)`` takes what the background's own leaves
    pay on average.
    Columns of a table: features, then pairs (i, j < i), for each output in turn.
    """
    # Arrays are indexed in place by unsigned numbers, never sliced or passed on, in the inner
    # loops: counting references and testing for negative indices would cost more than the
    # arithmetic.
    U = np.uint64
    for c in range(low, high):
        position, bits, n_features, width, offset, h_offset, tree = clusters[c]
        root = order[position]
        n = edges[root, 5]
        size = np.int64(1) << bits
        n_out = out_start[tree + 1] - out_start[tree]
        weighted = histogram.shape[0] > 0
        # Lay out the subtree: features of each node's columns, scratch for its table and histogram.
        local = np.empty((n, n_features), np.int32)
        counts = np.zeros(n, np.int64)
        starts = np.zeros(n, np.int64)
        h_starts = np.zeros(n, np.int64)
        used = np.int64(0)
        h_used = np.int64(0)
        largest = np.int64(1)
        for i in range(n):
            node = order[position + i]
            path = edges[node, 2]
            count = min(path, edges[root, 2])
            local[i, :count] = columns[c, :count]
            above = node
            while count < path and above != root:
                place = edges[above, 3]
                if place >= count:
                    local[i, place] = feature[edges[above, 0]]
                above = edges[above, 0]
            count = path
            for k in range(position + i, position + i + edges[node, 5]):
                f = feature[order[k]]
                if f >= 0:
                    known = False
                    for m in range(count):
                        known |= local[i, m] == f
                    if not known:
                        local[i, count] = f
                        count += 1
            counts[i] = count
            here = np.int64(1) << (path + edges[node, 6])
            if i > 0:
                starts[i] = used
                used += here * n_out * ((count * (count + 1)) // 2 if pairs else count)
                h_starts[i] = h_used
                h_used += here
            if feature[node] < 0:
                largest = max(largest, here)
        scratch = np.zeros(used)
        h_scratch = np.zeros(h_used if weighted else 0)
        table = tables[offset - base : offset - base + size * width]
        table[:] = 0.0
        if weighted:
            means[c] = 0.0
            for i in range(n):
                node = order[position + i]
                if feature[node] < 0:
                    continue
                p = edges[node, 2]
                second = i + 1 + edges[left[node], 5]
                n_left = edges[left[node], 6]
                own = histogram if i == 0 else h_scratch
                own_at = h_offset if i == 0 else h_starts[i]
                for side in range(2):
                    j = i + 1 if side == 0 else second
                    child = order[position + j]
                    clear = ~(1 << edges[child, 3])
                    wide = edges[child, 2]
                    for pattern in range(np.int64(1) << (p + edges[node, 6])):
                        t = (pattern >> p) & 1
                        agrees = (t == 1) == (side == 0)
                        inner = pattern >> (p + 1)
                        inner = inner & ((1 << n_left) - 1) if side == 0 else inner >> n_left
                        u = pattern & ((1 << p) - 1)
                        if edges[child, 4] == 0:
                            u |= (1 << p) if agrees else 0
                        elif not agrees:
                            u &= clear
                        h_scratch[U(h_starts[j] + ((inner << wide) | u))] += own[
                            U(own_at + pattern)
                        ]
        B = np.empty(largest)
        G = np.empty(largest if pairs else 0)
        share = np.empty(n_features)
        for i in range(n - 1, -1, -1):
            node = order[position + i]
            path = edges[node, 2]
            here = np.int64(1) << (path + edges[node, 6])
            wide = (counts[i] * (counts[i] + 1)) // 2 if pairs else counts[i]
            mine = tables if i == 0 else scratch
            at = offset - base if i == 0 else starts[i]
            if feature[node] < 0:
                share[:path] = np.nan
                above = node
                while edges[above, 0] >= 0:
                    if np.isnan(share[edges[above, 3]]):
                        share[edges[above, 3]] = shares[above, 0]
                    above = edges[above, 0]
                seen = histogram if i == 0 else h_scratch
                seen_at = h_offset if i == 0 else h_starts[i]
                pay = value[node, out_index[out_start[tree]]] if n_out == 1 else 1.0
                for rule in range(rules_start[(path + 1) // 2], rules_start[(path + 1) // 2 + 1]):
                    x = rules[rule, 0]
                    # B: the product of all players for every pattern of the row.
                    if weighted:
                        for a in range(here):
                            B[a] = seen[U(seen_at + a)]
                        for g in range(path):
                            run = 1 << g
                            for block in range(0, here, 2 * run):
                                for a in range(block, block + run):
                                    h0 = B[U(a)]
                                    h1 = B[U(a + run)]
                                    B[U(a)] = (1.0 - x) * h1
                                    B[U(a + run)] = x * h0 + h1
                    else:
                        B[0] = 1.0
                        for g in range(path):
                            run = 1 << g
                            f0 = share[g] * (1.0 - x)
                            f1 = f0 + x
                            for a in range(run):
                                B[U(a + run)] = B[U(a)] * f1
                                B[U(a)] *= f0
                    # Take player f out of it, and out of the rest player g.
                    inverse = 1.0 / (1.0 - x)
                    for f in range(path):
                        run = 1 << f
                        column = at + f * here
                        absent = -pay * rules[rule, 1] * inverse
                        present = pay * rules[rule, 1] / x
                        for block in range(0, here, 2 * run):
                            for a in range(block, block + run):
                                low = B[U(a)]
                                mine[U(column + a)] += low * absent
                                mine[U(column + a + run)] += (
                                    B[U(a + run)] - low * inverse
                                ) * present
                        if pairs:
                            for block in range(0, here, 2 * run):
                                for a in range(block, block + run):
                                    low = B[U(a)]
                                    G[U(a)] = 0.5 * low * absent
                                    G[U(a + run)] = 0.5 * (B[U(a + run)] - low * inverse) * present
                            for g in range(f):
                                run_g = 1 << g
                                column = at + (path + (f * (f - 1)) // 2 + g) * here
                                for block in range(0, here, 2 * run_g):
                                    for a in range(block, block + run_g):
                                        low = G[U(a)]
                                        mine[U(column + a)] -= low * inverse
                                        mine[U(column + a + run_g)] += (
                                            G[U(a + run_g)] - low * inverse
                                        ) / x
                for k in range(n_out - 1, -1, -1):
                    v = value[node, out_index[out_start[tree] + k]]
                    if weighted:
                        means[c, out_index[out_start[tree] + k]] += v * seen[seen_at + here - 1]
                    if n_out > 1:
                        to_column = at + k * here * wide
                        for m in range(here * wide):
                            mine[U(to_column + m)] = v * mine[U(at + m)]
                continue
            second = i + 1 + edges[left[node], 5]
            for side in range(2):
                j = i + 1 if side == 0 else second
                child = order[position + j]
                c_bits = edges[child, 2] + edges[child, 6]
                c_size = np.int64(1) << c_bits
                c_wide = (counts[j] * (counts[j] + 1)) // 2 if pairs else counts[j]
                for m in range(c_wide):
                    # Column m of the child is a feature or a pair; find the parent's column.
                    a = m
                    b = -1
                    if m >= counts[j]:
                        a = 1
                        b = m - counts[j]
                        while b >= a:
                            b -= a
                            a += 1
                    to = -1
                    second_to = -1
                    for k in range(counts[i]):
                        if local[i, k] == local[j, a]:
                            to = k
                        if b >= 0 and local[i, k] == local[j, b]:
                            second_to = k
                    if b >= 0:
                        up = max(to, second_to)
                        to = counts[i] + (up * (up - 1)) // 2 + min(to, second_to)
                    fresh = edges[child, 4] == 0
                    clear = ~(1 << edges[child, 3])
                    run = 1 << path
                    n_left = edges[left[node], 6]
                    n_right = edges[node, 6] - 1 - n_left
                    for k in range(n_out):
                        src = starts[j] + (k * c_wide + m) * c_size
                        dst = at + (k * wide + to) * here
                        for high in range(1 << (n_left + n_right)):
                            inner = (
                                high & ((1 << n_left) - 1) if side == 0 else high >> n_left
                            ) << edges[child, 2]
                            for t in range(2):
                                target = dst + ((high << (path + 1)) | (t << path))
                                agrees = (t == 1) == (side == 0)
                                if fresh or agrees:
                                    source = src + inner + (run if fresh and agrees else 0)
                                    for u in range(run):
                                        mine[U(target + u)] += scratch[U(source + u)]
                                else:
                                    for u in range(run):
                                        mine[U(target + u)] += scratch[
                                            U(src + (inner | (u & clear)))
                                        ]


@njit(cache=True, nogil=True)
def evaluate_tables(
    first,
    last,
    ops,
    clusters,
    targets,
    target_start,
    feature,
    rank,
    missing_left,
    set_start,
    set_bits,
    codes,
    low,
    high,
    base,
    tables,
    sums,
    weights,
):
    """Run ops ``first`` to ``last`` on rows ``low`` to ``high``.

    ``codes`` is ``(d, n)``. With ``weights`` given, add them to the histogram in ``tables``;
    otherwise add the tables' columns to the rows ``targets`` of ``sums`` ``(n_targets, n)``.
    """
    levels = 0
    for o in range(first, last):
        levels = max(levels, ops[o, 5])
    U = np.uint64
    state = np.zeros((levels + 1, _ROWS), np.int32)
    agree = np.zeros(_ROWS, np.int32)
    counting = weights.shape[0] > 0
    for begin in range(low, high, _ROWS):
        n = min(high, begin + _ROWS) - begin
        for o in range(first, last):
            node, bit, source, target, cluster = (
                ops[o, 0],
                ops[o, 2],
                ops[o, 4],
                ops[o, 5],
                ops[o, 6],
            )
            f = feature[node]
            r = rank[node]
            lowest = np.int32(-1) if missing_left[node] else np.int32(0)
            first_bit = set_start[node]
            one = np.int32(1) << bit
            yes = np.int32(0 if ops[o, 1] else one)
            no = np.int32(one if ops[o, 1] else 0)
            if first_bit < 0:
                for i in range(n):
                    code = codes[f, U(begin + i)]
                    agree[i] = yes if (code >= lowest) & (code < r) else no
            else:
                for i in range(n):
                    code = codes[f, U(begin + i)]
                    goes = lowest < 0 if code < 0 else set_bits[first_bit + code] != 0
                    agree[i] = yes if goes else no
            if ops[o, 3] == 0:
                for i in range(n):
                    state[target, i] = state[source, i] | agree[i]
            else:
                keep = np.int32(~one)
                for i in range(n):
                    state[target, i] = state[source, i] & (agree[i] | keep)
            if cluster < 0:
                continue
            size = np.int64(1) << clusters[cluster, 1]
            if counting:
                offset = clusters[cluster, 5] - base
                for i in range(n):
                    tables[U(offset + state[target, i])] += weights[U(begin + i)]
            else:
                offset = clusters[cluster, 4] - base
                for k in range(clusters[cluster, 3]):
                    row = targets[target_start[cluster] + k]
                    for i in range(n):
                        sums[row, U(begin + i)] += tables[U(offset + state[target, i])]
                    offset += size
