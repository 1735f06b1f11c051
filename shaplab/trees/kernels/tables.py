"""Pattern tables: build them for clusters of leaves, then look rows up.

A leaf reached by d players pays w when every player agrees with its path. With the Gauss-Legendre nodes
x and weights of [0, 1], the leaf's Shapley values for pattern a are sums over x of the product
B(a) = E_c prod_g (a_g x + c_g (1 - x) - a_g c_g x + ...), that is a factor of 1 where a = c = 1, x where
only a agrees, 1 - x where only c agrees and 0 where neither does. Taking one player f out of the product
needs no division by a small factor: without f and with c_f = 1 it is B(a_f=0) / (1 - x), with c_f = 0 it
is (B(a_f=1) - B(a_f=0) / (1 - x)) / x.

Needs: nothing.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["build_tables", "evaluate_tables"]

_ROWS = 512


@njit(cache=True, nogil=True)
def _take_out(source, bit, x, scale, target):
    """Add scale * (player ``bit`` present minus absent) of every pattern to ``target``."""
    run = 1 << bit
    inverse = 1.0 / (1.0 - x)
    absent = -scale * inverse
    present = scale / x
    for block in range(0, source.shape[0], 2 * run):
        for a in range(block, block + run):
            low = source[a]
            target[a] += low * absent
            target[a + run] += (source[a + run] - low * inverse) * present


@njit(cache=True, nogil=True)
def _leaf_table(d, share, counts, nodes, weights, pairs, B, G, unit):
    """Values of a leaf of weight 1 for all 2^d patterns: d rows, then one for each pair, into ``unit``."""
    size = 1 << d
    unit[:] = 0.0
    for q in range(nodes.shape[0]):
        x = nodes[q]
        if counts.shape[0] > 0:
            B[:size] = counts
            for g in range(d):
                run = 1 << g
                for block in range(0, size, 2 * run):
                    for a in range(block, block + run):
                        h0 = B[a]
                        h1 = B[a + run]
                        B[a] = (1.0 - x) * h1
                        B[a + run] = x * h0 + h1
        else:
            B[0] = 1.0
            for g in range(d):
                run = 1 << g
                f0 = share[g] * (1.0 - x)
                f1 = f0 + x
                for a in range(run):
                    B[a + run] = B[a] * f1
                    B[a] *= f0
        for f in range(d):
            _take_out(B[:size], f, x, weights[q], unit[f * size:(f + 1) * size])
        if pairs:
            row = d
            for f in range(d):
                G[:size] = 0.0
                _take_out(B[:size], f, x, 0.5 * weights[q], G[:size])
                for g in range(f):
                    _take_out(G[:size], g, x, 1.0, unit[row * size:(row + 1) * size])
                    row += 1


@njit(cache=True, nogil=True)
def _merge(child_bits, inside, p, position, fresh, is_left, n_left, n_right, source, target):
    """Add a child's column to its parent's: path bits, the parent's split, then inner bits left and right."""
    run = 1 << p
    clear = ~(1 << position)
    path_bits = child_bits - inside
    for r in range(1 << n_right):
        for l in range(1 << n_left):
            inner = (l if is_left else r) << path_bits
            for t in range(2):
                to = (r << (p + 1 + n_left)) | (l << (p + 1)) | (t << p)
                agrees = (t == 1) == is_left
                if fresh:
                    at = inner | ((1 << p) if agrees else 0)
                    for u in range(run):
                        target[to + u] += source[at + u]
                elif agrees:
                    for u in range(run):
                        target[to + u] += source[inner + u]
                else:
                    for u in range(run):
                        target[to + u] += source[inner | (u & clear)]


@njit(cache=True, nogil=True)
def build_tables(low, high, clusters, columns, order, feature, left, edges, shares, value, out_start, out_index,
                 rules_start, rules, histogram, pairs, base, tables, means):
    """Fill the tables of clusters ``low`` to ``high``; ``tables[0]`` is table offset ``base``.

    ``histogram`` holds the background's weight of every pattern of every cluster, or nothing for the
    path-dependent game; with it, ``means`` ``(C, K)`` takes what the background's own leaves pay on average.
    Columns of a table: features, then pairs (i, j < i), for each output in turn.
    """
    for c in range(low, high):
        position, bits, n_features, width, offset, h_offset, tree = clusters[c]
        root = order[position]
        n = edges[root, 5]
        size = np.int64(1) << bits
        n_out = out_start[tree + 1] - out_start[tree]
        per_out = width // n_out
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
        table = tables[offset - base:offset - base + size * width]
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
                own = (histogram[h_offset:h_offset + size] if i == 0
                       else h_scratch[h_starts[i]:h_starts[i] + (np.int64(1) << (p + edges[node, 6]))])
                for side in range(2):
                    j = i + 1 if side == 0 else second
                    child = order[position + j]
                    inside = edges[child, 6]
                    clear = ~(1 << edges[child, 3])
                    mine = h_scratch[h_starts[j]:h_starts[j] + (np.int64(1) << (edges[child, 2] + inside))]
                    for pattern in range(own.shape[0]):
                        t = (pattern >> p) & 1
                        agrees = (t == 1) == (side == 0)
                        inner = pattern >> (p + 1)
                        inner = inner & ((1 << n_left) - 1) if side == 0 else inner >> n_left
                        u = pattern & ((1 << p) - 1)
                        if edges[child, 4] == 0:
                            u |= (1 << p) if agrees else 0
                        elif not agrees:
                            u &= clear
                        mine[(inner << edges[child, 2]) | u] += own[pattern]
        B = np.empty(largest)
        G = np.empty(largest if pairs else 0)
        share = np.empty(n_features)
        unit = np.empty(largest * per_out)
        for i in range(n - 1, -1, -1):
            node = order[position + i]
            path = edges[node, 2]
            here = np.int64(1) << (path + edges[node, 6])
            wide = (counts[i] * (counts[i] + 1)) // 2 if pairs else counts[i]
            mine = table if i == 0 else scratch[starts[i]:starts[i] + here * wide * n_out]
            if feature[node] < 0:
                share[:path] = -1.0
                above = node
                while edges[above, 0] >= 0:
                    if share[edges[above, 3]] < 0.0:
                        share[edges[above, 3]] = shares[above, 0]
                    above = edges[above, 0]
                seen = h_scratch[:0]
                if weighted:
                    seen = (histogram[h_offset:h_offset + size] if i == 0
                            else h_scratch[h_starts[i]:h_starts[i] + here])
                q = (path + 1) // 2
                rule = rules[rules_start[q]:rules_start[q + 1]]
                _leaf_table(path, share, seen, rule[:, 0], rule[:, 1], pairs, B, G, unit[:here * wide])
                for k in range(n_out):
                    v = value[node, out_index[out_start[tree] + k]]
                    if weighted:
                        means[c, out_index[out_start[tree] + k]] += v * seen[here - 1]
                    for m in range(here * wide):
                        mine[k * here * wide + m] = v * unit[m]
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
                    for k in range(n_out):
                        src = starts[j] + (k * c_wide + m) * c_size
                        dst = (k * wide + to) * here
                        _merge(c_bits, edges[child, 6], path, edges[child, 3], edges[child, 4] == 0, side == 0,
                               edges[left[node], 6], edges[node, 6] - 1 - edges[left[node], 6],
                               scratch[src:src + c_size], mine[dst:dst + here])


@njit(cache=True, nogil=True)
def evaluate_tables(first, last, ops, clusters, targets, target_start, feature, rank, missing_left, set_start,
                    set_bits, codes, low, high, base, tables, sums, weights):
    """Run ops ``first`` to ``last`` on rows ``low`` to ``high``.

    ``codes`` is ``(d, n)``. With ``weights`` given, add them to the histogram in ``tables``; otherwise add
    the tables' columns to the rows ``targets`` of ``sums`` ``(n_targets, n)``.
    """
    levels = 0
    for o in range(first, last):
        levels = max(levels, ops[o, 5])
    state = np.zeros((levels + 1, _ROWS), np.int32)
    agree = np.zeros(_ROWS, np.int32)
    for begin in range(low, high, _ROWS):
        n = min(high, begin + _ROWS) - begin
        for o in range(first, last):
            node, flip, bit, clears, source, target, cluster = ops[o]
            column = codes[feature[node], begin:begin + n]
            r = rank[node]
            lowest = np.int32(-1) if missing_left[node] else np.int32(0)
            first_bit = set_start[node]
            value = np.int32(1) << bit
            if first_bit < 0:
                if flip == 0:
                    for i in range(n):
                        agree[i] = value if (column[i] >= lowest) & (column[i] < r) else np.int32(0)
                else:
                    for i in range(n):
                        agree[i] = np.int32(0) if (column[i] >= lowest) & (column[i] < r) else value
            else:
                for i in range(n):
                    goes = lowest < 0 if column[i] < 0 else set_bits[first_bit + column[i]] != 0
                    agree[i] = value if goes != (flip != 0) else np.int32(0)
            into = state[target]
            came = state[source]
            if clears == 0:
                for i in range(n):
                    into[i] = came[i] | agree[i]
            else:
                keep = np.int32(~value)
                for i in range(n):
                    into[i] = came[i] & (agree[i] | keep)
            if cluster >= 0:
                size = np.int64(1) << clusters[cluster, 1]
                if weights.shape[0] > 0:
                    counts = tables[clusters[cluster, 5] - base:clusters[cluster, 5] - base + size]
                    for i in range(n):
                        counts[into[i]] += weights[begin + i]
                else:
                    offset = clusters[cluster, 4] - base
                    for k in range(clusters[cluster, 3]):
                        table = tables[offset + k * size:offset + (k + 1) * size]
                        total = sums[targets[target_start[cluster] + k], begin:begin + n]
                        for i in range(n):
                            total[i] += table[np.uint32(into[i])]
