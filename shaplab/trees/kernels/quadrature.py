"""Walk trees with blocks of rows: Shapley values and interactions of the path-dependent game.

For Gauss-Legendre nodes x of [0, 1], a leaf's product over its players g has the factor z_g (1 - x)
+ b_g x, where b_g is 1 if the row satisfies all of g's splits. Going down, every edge multiplies by
new factor over old factor; going up, it adds its players' change of S = (b - z) / (z (1 - x) + b
x), times what the leaves below pay, to the feature. Written with the bits o (the player agreed so
far) and t (and the row goes left), all of these are c0 + o c1 + t c2 with coefficients that do not
depend on the row, so nothing is divided by a small number.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["BLOCK", "leaf_products", "sorted_shares", "walk_trees"]

BLOCK = 128


@njit(cache=True, nogil=True)
def sorted_shares(leaves, edges, shares, found):
    """Write each leaf's z of its players, largest first, to ``found`` ``(n, width)``."""
    for i in range(leaves.shape[0]):
        node = leaves[i]
        players = edges[node, 2]
        row = found[i]
        row[:] = np.nan
        while edges[node, 0] >= 0:
            # The lowest edge on a feature comes first and holds the product of all of them.
            if np.isnan(row[edges[node, 3]]):
                row[edges[node, 3]] = shares[node, 0]
            node = edges[node, 0]
        row[:players] = np.sort(row[:players])[::-1]


@njit(cache=True, nogil=True)
def leaf_products(shares, players, rows, x, weights, found):
    """Integrate each leaf's product by a rule, with its first k players absent, the rest present.

    ``shares`` as from ``sorted_shares``; ``found[i, k]`` for the leaves ``i`` in ``rows``, k = 0 to
    ``players[i]``.
    """
    present = np.ones(shares.shape[1] + 1)
    for i in rows:
        d = players[i]
        found[i] = 0.0
        for q in range(x.shape[0]):
            present[d] = 1.0
            for k in range(d - 1, -1, -1):
                present[k] = present[k + 1] * (shares[i, k] + (1.0 - shares[i, k]) * x[q])
            absent = weights[q]
            for k in range(d + 1):
                found[i, k] += absent * present[k]
                if k < d:
                    absent *= shares[i, k] * (1.0 - x[q])


@njit(cache=True, nogil=True)
def _coefficients(j, x, left, right, edges, shares, vl, vr, C):
    """Coefficients of split ``j`` at node ``x``.

    C[0:3], C[3:6]: down to the left and right child; C[6:8], C[8:10]: their share for the feature;
    C[10:13], C[13:15]: the split's own sum and share when both children are leaves that pay vl, vr;
    C[15], C[16]: S(1) - S(0) of the left and right edge.
    """
    s0 = -1.0 / (1.0 - x)
    for side in range(2):
        child = left[j] if side == 0 else right[j]
        z = shares[child, 0]
        new = z * (1.0 - x) + x
        s1 = (1.0 - z) / new
        if edges[child, 4] == 0:
            c0, c1, c2 = new - x, 0.0, x
            m1, m2 = s0, s1 - s0
        else:
            old_z = shares[child, 1]
            old = old_z * (1.0 - x) + x
            c0 = shares[child, 2]
            c1 = (new - x) / old - c0
            c2 = x / old
            m1 = s0 - (1.0 - old_z) / old
            m2 = s1 - s0
        if side == 1:
            # The row goes right where it does not go left: o - t instead of t.
            c1, c2 = c1 + c2, -c2
            m1, m2 = m1 + m2, -m2
            if edges[child, 4] == 0:
                c0, c1 = c0 + c1, 0.0
        C[3 * side], C[3 * side + 1], C[3 * side + 2] = c0, c1, c2
        C[6 + 2 * side], C[7 + 2 * side] = m1, m2
        C[15 + side] = s1 - s0
    C[10] = C[0] * vl + C[3] * vr
    C[11] = C[1] * vl + C[4] * vr
    C[12] = C[2] * vl + C[5] * vr
    C[13] = (C[0] + C[1]) * C[6] * vl + (C[3] + C[4]) * C[8] * vr
    C[14] = ((C[0] + C[1]) * C[7] + C[2] * (C[6] + C[7])) * vl + (
        (C[3] + C[4]) * C[9] + C[5] * (C[8] + C[9])
    ) * vr


@njit(cache=True, nogil=True, fastmath={"contract"})
def walk_trees(
    jobs,
    tree_start,
    feature,
    left,
    right,
    order,
    edges,
    shares,
    trees,
    rank,
    missing_left,
    set_start,
    set_bits,
    value,
    rules_start,
    rules,
    tree_rule,
    codes,
    pairs,
    n_outputs,
    sums,
):
    """Add the values of each (tree, output) in ``jobs`` to ``sums`` ``(blocks, n_targets, BLOCK)``.

    ``codes`` is ``(blocks, d, BLOCK)``. Targets: ``feature * n_outputs + output``; with ``pairs``
    also, after ``d * n_outputs`` of those, the interactions, ``(larger * d + smaller) * n_outputs +
    output``.
    """
    # Arrays are indexed in place, never sliced or passed on, below: counting references to them
    # would cost more than the arithmetic. ``state`` holds three sections of rows: products going
    # down, sums from the left, the right.
    d = codes.shape[1]
    depth = 1
    widest = 1
    most = 1
    for k in range(jobs.shape[0]):
        widest = max(
            widest, rules_start[tree_rule[jobs[k, 0]] + 1] - rules_start[tree_rule[jobs[k, 0]]]
        )
        most = max(most, tree_start[jobs[k, 0] + 1] - tree_start[jobs[k, 0]])
    for i in range(edges.shape[0]):
        depth = max(depth, edges[i, 1] + 1)
    padded = (widest + 3) // 4 * 4
    section = (depth + 1) * widest
    state = np.zeros((3 * section, BLOCK))
    bit = np.ones((depth + 1, BLOCK))
    old = np.ones((depth + 2, BLOCK))  # the last row stays 1: a feature's first split
    ahead = np.zeros((depth + 1, BLOCK))
    own = np.zeros((padded, BLOCK))
    extra = np.zeros((depth + 1, padded))
    stack = np.zeros(depth + 1, np.int32)
    stage = np.zeros(depth + 1, np.int32)
    dead = np.zeros(depth + 1, np.uint8)
    share = np.zeros(BLOCK)
    C = np.zeros((most * widest, 17))
    for job in range(jobs.shape[0]):
        tree, output = jobs[job, 0], jobs[job, 1]
        start = tree_start[tree]
        first_rule = rules_start[tree_rule[tree]]
        n_q = rules_start[tree_rule[tree] + 1] - first_rule
        extra[:] = 0.0
        own[:] = 0.0
        for k in range(trees[tree, 0]):
            j = order[start + k]
            if feature[j] >= 0:
                for q in range(n_q):
                    _coefficients(
                        j,
                        rules[first_rule + q, 0],
                        left,
                        right,
                        edges,
                        shares,
                        value[left[j], output],
                        value[right[j], output],
                        C[(j - start) * widest + q],
                    )
        for block in range(codes.shape[0]):
            for q in range(n_q):
                for i in range(BLOCK):
                    state[q, i] = rules[first_rule + q, 1]
            top = 0
            stack[0] = start
            stage[0] = 0
            while top >= 0:
                j = stack[top]
                lj, rj = left[j], right[j]
                cj = (j - start) * widest
                at = top * widest
                f = feature[j]
                again = edges[lj, 4]
                o_row = top if again > 0 else depth + 1
                both = (feature[lj] < 0) and (feature[rj] < 0)
                if stage[top] == 0:
                    if set_start[j] < 0:
                        lowest = np.int32(-1) if missing_left[j] else np.int32(0)
                        r = rank[j]
                        for i in range(BLOCK):
                            code = codes[block, f, i]
                            ahead[top, i] = 1.0 if (code >= lowest) & (code < r) else 0.0
                    else:
                        for i in range(BLOCK):
                            code = codes[block, f, i]
                            goes = (
                                missing_left[j] if code < 0 else set_bits[set_start[j] + code] != 0
                            )
                            ahead[top, i] = 1.0 if goes else 0.0
                    if again > 0:
                        for i in range(BLOCK):
                            old[top, i] = bit[again, i]
                            ahead[top, i] *= bit[again, i]
                if stage[top] < 2 and not both:
                    # Down one edge: to the child's products, or a leaf's pay straight into this
                    # split's sums.
                    side = stage[top]
                    stage[top] = side + 1
                    child = lj if side == 0 else rj
                    inner = feature[child] >= 0
                    v = 1.0 if inner else value[child, output]
                    to = at + widest if inner else (1 + side) * section + at
                    for q in range(n_q):
                        c0, c1, c2 = (
                            v * C[cj + q, 3 * side],
                            v * C[cj + q, 3 * side + 1],
                            v * C[cj + q, 3 * side + 2],
                        )
                        if again == 0:
                            for i in range(BLOCK):
                                state[to + q, i] = state[at + q, i] * (c0 + ahead[top, i] * c2)
                        else:
                            for i in range(BLOCK):
                                state[to + q, i] = state[at + q, i] * (
                                    c0 + old[top, i] * c1 + ahead[top, i] * c2
                                )
                    if inner:
                        for i in range(BLOCK):
                            bit[top + 1, i] = (
                                ahead[top, i] if side == 0 else old[o_row, i] - ahead[top, i]
                            )
                        for q in range(n_q):
                            extra[top + 1, q] = 0.5 * C[cj + q, 15 + side]
                        top += 1
                        stack[top] = child
                        stage[top] = 0
                        continue
                    if side == 0:
                        stage[top] = 1
                        # The bits are known: go on with the right edge.
                        continue
                # Both children are known: pass their sum up and credit the feature.
                up = (stage[top - 1] if top > 0 else 1) * section + max(at - widest, 0)
                for q in range(n_q):
                    c = cj + q
                    if both:
                        e0, e1, e2, g1, g2 = C[c, 10], C[c, 11], C[c, 12], C[c, 13], C[c, 14]
                        if again == 0:
                            for i in range(BLOCK):
                                own[q, i] = state[at + q, i] * (g1 + ahead[top, i] * g2)
                        else:
                            for i in range(BLOCK):
                                own[q, i] = state[at + q, i] * (
                                    old[top, i] * g1 + ahead[top, i] * g2
                                )
                        if again == 0:
                            for i in range(BLOCK):
                                state[up + q, i] = state[at + q, i] * (e0 + ahead[top, i] * e2)
                        else:
                            for i in range(BLOCK):
                                state[up + q, i] = state[at + q, i] * (
                                    e0 + old[top, i] * e1 + ahead[top, i] * e2
                                )
                    else:
                        m1, m2, r1, r2 = C[c, 6], C[c, 7], C[c, 8], C[c, 9]
                        l_row, r_row = section + at + q, 2 * section + at + q
                        for i in range(BLOCK):
                            own[q, i] = old[o_row, i] * (
                                state[l_row, i] * m1 + state[r_row, i] * r1
                            ) + ahead[top, i] * (state[l_row, i] * m2 + state[r_row, i] * r2)
                        for i in range(BLOCK):
                            state[up + q, i] = state[l_row, i] + state[r_row, i]
                    for i in range(BLOCK):
                        sums[block, f * n_outputs + output, i] += own[q, i]
                if pairs and top > 0:
                    # Pair the feature with every other player of the path, each at its latest
                    # split.
                    dead[: top + 1] = 0
                    for k in range(top):
                        dead[edges[left[stack[k]], 4]] = 1
                    share[:] = 0.0
                    for q in range(n_q):
                        s0 = -0.5 / (1.0 - rules[first_rule + q, 0])
                        for i in range(BLOCK):
                            share[i] += own[q, i] * s0
                    for k in range(top):
                        g = feature[stack[k]]
                        if dead[k + 1] or g == f:
                            continue
                        pair = (d + max(f, g) * d + min(f, g)) * n_outputs + output
                        for i in range(BLOCK):
                            sums[block, pair, i] += share[i]
                        for q in range(0, n_q, 4):
                            e0, e1 = extra[k + 1, q], extra[k + 1, q + 1]
                            e2, e3 = extra[k + 1, q + 2], extra[k + 1, q + 3]
                            for i in range(BLOCK):
                                sums[block, pair, i] += bit[k + 1, i] * (
                                    own[q, i] * e0
                                    + own[q + 1, i] * e1
                                    + own[q + 2, i] * e2
                                    + own[q + 3, i] * e3
                                )
                top -= 1
