"""The interventional game for long paths: distinct pairs of patterns instead of tables.

At a leaf of d players only pairs of patterns (a of a row, c of a background row) in which every
player agrees on at least one side count. With n01 = d - |a| players that only c satisfies and n10 =
d - |c| that only a satisfies, the leaf's Shapley values are (n10 - 1)! n01! / (n10 + n01)! for the
latter and
-n10! (n01 - 1)! / (n10 + n01)! for the former. Rows with equal patterns are grouped on the way
down.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["coalition_outputs", "pair_patterns"]


@njit(cache=True, nogil=True)
def _refine(
    child_is_right, bit, fresh, goes, groups, patterns, n_groups, renamed, new_groups, new_patterns
):
    """Split the groups by whether their rows take this edge; returns the number of new groups."""
    word = bit >> 6
    one = np.uint64(1) << np.uint64(bit & 63)
    renamed[: 2 * n_groups] = -1
    count = 0
    for i in range(groups.shape[0]):
        g = groups[i]
        agrees = goes[i] != child_is_right
        key = 2 * g + (1 if agrees else 0)
        if renamed[key] < 0:
            renamed[key] = count
            new_patterns[count] = patterns[g]
            if fresh and agrees:
                new_patterns[count, word] |= one
            elif not agrees:
                new_patterns[count, word] &= ~one
            count += 1
        new_groups[i] = renamed[key]
    return count


@njit(cache=True, nogil=True)
def _goes_left(column, rank, missing_left, first_bit, set_bits, goes):
    for i in range(column.shape[0]):
        if column[i] < 0:
            goes[i] = missing_left
        elif first_bit < 0:
            goes[i] = column[i] < rank
        else:
            goes[i] = set_bits[first_bit + column[i]] != 0


@njit(cache=True, nogil=True)
def _size(pattern):
    count = 0
    for w in range(pattern.shape[0]):
        rest = pattern[w]
        while rest != np.uint64(0):
            rest &= rest - np.uint64(1)
            count += 1
    return count


@njit(cache=True, nogil=True)
def _has(pattern, k):
    return (pattern[k >> 6] >> np.uint64(k & 63)) & np.uint64(1) != np.uint64(0)


@njit(cache=True, nogil=True)
def _leaf_values(d, a, c, mass, c_size, factor, pairs, absent, phi):
    """Values of a leaf of weight 1 for one row pattern: d players, then pairs (i, j < i)."""
    phi[:] = 0.0
    n01 = d - _size(a)
    minus = 0.0
    both = 0.0
    words = a.shape[0]
    for g in range(c.shape[0]):
        if mass[g] == 0.0:
            continue
        live = True
        for w in range(words):
            # A leaf with fewer players than the widest one of the call leaves later words empty.
            kept = max(0, min(64, d - 64 * w))
            full = ~np.uint64(0) if kept == 64 else (np.uint64(1) << np.uint64(kept)) - np.uint64(1)
            live &= (a[w] | c[g, w]) == full
        if not live:
            continue
        n10 = d - c_size[g]
        if n01 > 0:
            minus += mass[g] * factor[n10, n01 - 1]
        if n10 > 0:
            plus = mass[g] * factor[n10 - 1, n01]
            count = 0
            for k in range(d):
                if not _has(c[g], k):
                    phi[k] += plus
                    absent[count] = k
                    count += 1
            if pairs:
                mixed = 0.5 * mass[g] * factor[n10 - 1, n01 - 1] if n01 > 0 else 0.0
                alike = 0.5 * mass[g] * factor[n10 - 2, n01] if n10 > 1 else 0.0
                for s in range(count):
                    i = absent[s]
                    for r in range(s):
                        phi[d + (i * (i - 1)) // 2 + absent[r]] += alike
                    for j in range(d if n01 > 0 else 0):
                        if not _has(a, j):
                            big, small = max(i, j), min(i, j)
                            phi[d + (big * (big - 1)) // 2 + small] -= mixed
        if pairs and n01 > 1:
            both += 0.5 * mass[g] * factor[n10, n01 - 2]
    for k in range(d):
        if not _has(a, k):
            phi[k] -= minus
            if pairs:
                for j in range(k):
                    if not _has(a, j):
                        phi[d + (k * (k - 1)) // 2 + j] += both


@njit(cache=True, nogil=True)
def pair_patterns(
    chosen,
    low,
    high,
    tree_start,
    feature,
    left,
    right,
    order,
    edges,
    trees,
    rank,
    missing_left,
    set_start,
    set_bits,
    value,
    codes,
    background,
    weights,
    factor,
    pairs,
    sums,
):
    """Add the values of the ``chosen`` trees to ``sums`` ``(n_targets, n)`` for rows low to high.

    ``codes`` ``(d, n)`` and ``background`` ``(d, R)``; targets as in ``walk_trees``.
    """
    d = codes.shape[0]
    n_outputs = value.shape[1]
    n, r = high - low, background.shape[1]
    depth = 1
    widest = 1
    for k in range(chosen.shape[0]):
        widest = max(widest, trees[chosen[k], 1])
        for i in range(tree_start[chosen[k]], tree_start[chosen[k] + 1]):
            depth = max(depth, edges[i, 1] + 1)
    words = (widest + 63) // 64
    x_groups = np.zeros((depth + 1, n), np.int32)
    b_groups = np.zeros((depth + 1, r), np.int32)
    x_patterns = np.zeros((depth + 1, n, words), np.uint64)
    b_patterns = np.zeros((depth + 1, r, words), np.uint64)
    x_count = np.ones(depth + 1, np.int32)
    b_count = np.ones(depth + 1, np.int32)
    renamed = np.zeros(2 * max(n, r), np.int32)
    goes = np.zeros(max(n, r), np.bool_)
    mass = np.zeros(r)
    sizes = np.zeros(r, np.int32)
    absent = np.zeros(widest, np.int32)
    wide = widest + ((widest * (widest - 1)) // 2 if pairs else 0)
    phi = np.zeros((n, wide))
    players = np.zeros(widest, np.int32)
    for k in range(chosen.shape[0]):
        tree = chosen[k]
        start = tree_start[tree]
        x_patterns[0, 0] = np.uint64(0)
        b_patterns[0, 0] = np.uint64(0)
        for m in range(1, trees[tree, 0]):
            node = order[start + m]
            level = edges[node, 1]
            parent = edges[node, 0]
            is_right = right[parent] == node
            fresh = edges[node, 4] == 0
            f = feature[parent]
            _goes_left(
                codes[f, low:high],
                rank[parent],
                missing_left[parent],
                set_start[parent],
                set_bits,
                goes[:n],
            )
            x_count[level] = _refine(
                is_right,
                edges[node, 3],
                fresh,
                goes[:n],
                x_groups[level - 1],
                x_patterns[level - 1],
                x_count[level - 1],
                renamed,
                x_groups[level],
                x_patterns[level],
            )
            _goes_left(
                background[f],
                rank[parent],
                missing_left[parent],
                set_start[parent],
                set_bits,
                goes[:r],
            )
            b_count[level] = _refine(
                is_right,
                edges[node, 3],
                fresh,
                goes[:r],
                b_groups[level - 1],
                b_patterns[level - 1],
                b_count[level - 1],
                renamed,
                b_groups[level],
                b_patterns[level],
            )
            if feature[node] >= 0:
                continue
            players_count = edges[node, 2]
            above = node
            players[:players_count] = -1
            while edges[above, 0] >= 0:
                players[edges[above, 3]] = feature[edges[above, 0]]
                above = edges[above, 0]
            mass[: b_count[level]] = 0.0
            for i in range(r):
                mass[b_groups[level, i]] += weights[i]
            for g in range(b_count[level]):
                sizes[g] = _size(b_patterns[level, g])
            for g in range(x_count[level]):
                _leaf_values(
                    players_count,
                    x_patterns[level, g],
                    b_patterns[level, : b_count[level]],
                    mass,
                    sizes,
                    factor,
                    pairs,
                    absent,
                    phi[g],
                )
            for output in range(n_outputs):
                v = value[node, output]
                if v == 0.0:
                    continue
                for p in range(players_count):
                    total = sums[players[p] * n_outputs + output]
                    for i in range(n):
                        total[low + i] += v * phi[x_groups[level, i], p]
                    for s in range(p if pairs else 0):
                        i_f, j_f = max(players[p], players[s]), min(players[p], players[s])
                        total = sums[(d + i_f * d + j_f) * n_outputs + output]
                        column = players_count + (p * (p - 1)) // 2 + s
                        for i in range(n):
                            total[low + i] += v * phi[x_groups[level, i], column]


@njit(cache=True, nogil=True)
def coalition_outputs(
    roots,
    feature,
    left,
    right,
    rank,
    missing_left,
    set_start,
    set_bits,
    value,
    base,
    player,
    rows,
    references,
    outputs,
):
    """The model's output for every coalition of players, ``(R, N, K, 2^M)``, features of S from the
    row.

    A leaf pays in the coalitions that hold all players whose split only the row passes and none
    whose split only the reference passes; its signed weights are spread by sums over subsets, so no
    hybrid row is ever predicted.
    """
    size = outputs.shape[3]
    nodes = np.empty(feature.shape[0] + 1, np.int32)
    row_fails = np.empty(feature.shape[0] + 1, np.int64)
    reference_fails = np.empty(feature.shape[0] + 1, np.int64)
    for r in range(references.shape[0]):
        for i in range(rows.shape[0]):
            outputs[r, i] = 0.0
            for root in roots:
                top = 1
                nodes[0], row_fails[0], reference_fails[0] = root, 0, 0
                while top > 0:
                    top -= 1
                    node, out, must = nodes[top], row_fails[top], reference_fails[top]
                    f = feature[node]
                    if f < 0:
                        part = out
                        while True:
                            sign = 1.0
                            rest = part
                            while rest:
                                rest &= rest - 1
                                sign = -sign
                            for k in range(value.shape[1]):
                                outputs[r, i, k, must | part] += sign * value[node, k]
                            if part == 0:
                                break
                            part = (part - 1) & out
                        continue
                    bit = np.int64(1) << player[f]
                    ours, theirs = rows[i, f], references[r, f]
                    a = (
                        missing_left[node]
                        if ours < 0
                        else (
                            ours < rank[node]
                            if set_start[node] < 0
                            else set_bits[set_start[node] + ours] != 0
                        )
                    )
                    c = (
                        missing_left[node]
                        if theirs < 0
                        else (
                            theirs < rank[node]
                            if set_start[node] < 0
                            else set_bits[set_start[node] + theirs] != 0
                        )
                    )
                    for side in range(2):
                        child_out = out if a == (side == 0) else out | bit
                        child_must = must if c == (side == 0) else must | bit
                        if child_out & child_must == 0:
                            nodes[top] = left[node] if side == 0 else right[node]
                            row_fails[top], reference_fails[top] = child_out, child_must
                            top += 1
            run = 1
            while run < size:
                for k in range(value.shape[1]):
                    for block in range(0, size, 2 * run):
                        for s in range(block, block + run):
                            outputs[r, i, k, s + run] += outputs[r, i, k, s]
                run *= 2
            for k in range(value.shape[1]):
                for s in range(size):
                    outputs[r, i, k, s] += base[k]
