"""Walk trees with blocks of rows: Shapley values and interactions of the path-dependent game.

For Gauss-Legendre nodes x of [0, 1], a leaf's product over its players g has the factor
z_g (1 - x) + b_g x, where b_g is 1 if the row satisfies all of g's splits. Going down, every edge
multiplies by new factor over old factor; going up, it adds its players' change of
S = (b - z) / (z (1 - x) + b x), times what the leaves below pay, to the feature. Written with the bits
o (the player agreed so far) and t (and the row goes left), all of these are c0 + o c1 + t c2 with
coefficients that do not depend on the row, so nothing is divided by a small number.

Needs: nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["walk_trees"]

_ROWS = 64


@njit(cache=True, nogil=True)
def _coefficients(j, x, left, right, edges, shares, vl, vr, C):  # type: ignore[no-untyped-def]
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
    C[14] = (((C[0] + C[1]) * C[7] + C[2] * (C[6] + C[7])) * vl
             + ((C[3] + C[4]) * C[9] + C[5] * (C[8] + C[9])) * vr)


@njit(cache=True, nogil=True)
def _down(w, o, t, c0, c1, c2, target):  # type: ignore[no-untyped-def]
    """target = w (c0 + o c1 + t c2)."""
    if c1 == 0.0:
        for i in range(_ROWS):
            target[i] = w[i] * (c0 + t[i] * c2)
    else:
        for i in range(_ROWS):
            target[i] = w[i] * (c0 + o[i] * c1 + t[i] * c2)


@njit(cache=True, nogil=True)
def walk_trees(jobs, low, high, tree_start, feature, left, right, order, edges, shares, trees, rank, missing_left,
               set_start, set_bits, value, rules_start, rules, tree_rule, codes, pairs, n_outputs, sums):  # type: ignore[no-untyped-def]
    """Add the values of each (tree, output) in ``jobs`` to ``sums`` ``(n_targets, n)`` for rows low to high.

    Targets: ``feature * n_outputs + output``; with ``pairs`` also, after ``d * n_outputs`` of those, the
    interactions, ``(d + larger * d + smaller) * n_outputs + output``.
    """
    d = codes.shape[0]
    depth = 1
    widest = 1
    for k in range(jobs.shape[0]):
        widest = max(widest, rules_start[tree_rule[jobs[k, 0]] + 1] - rules_start[tree_rule[jobs[k, 0]]])
    for i in range(edges.shape[0]):
        depth = max(depth, edges[i, 1] + 1)
    padded = (widest + 3) // 4 * 4
    w = np.zeros((depth + 1, widest, _ROWS))
    up_left = np.zeros((depth + 1, widest, _ROWS))
    up_right = np.zeros((depth + 1, widest, _ROWS))
    bit = np.ones((depth + 1, _ROWS))
    old = np.ones((depth + 1, _ROWS))
    ahead = np.zeros((depth + 1, _ROWS))
    own = np.zeros((padded, _ROWS))
    extra = np.zeros((depth + 1, padded))
    stack = np.zeros(depth + 1, np.int32)
    stage = np.zeros(depth + 1, np.int32)
    dead = np.zeros(depth + 1, np.uint8)
    ones = np.ones(_ROWS)
    share = np.zeros(_ROWS)
    most = 0
    for k in range(jobs.shape[0]):
        most = max(most, tree_start[jobs[k, 0] + 1] - tree_start[jobs[k, 0]])
    C = np.zeros((most, widest, 17))
    for job in range(jobs.shape[0]):
        tree, output = jobs[job]
        start = tree_start[tree]
        rule = rules[rules_start[tree_rule[tree]]:rules_start[tree_rule[tree] + 1]]
        n_q = rule.shape[0]
        extra[:] = 0.0
        own[:] = 0.0
        for k in range(trees[tree, 0]):
            j = order[start + k]
            if feature[j] >= 0:
                for q in range(n_q):
                    _coefficients(j, rule[q, 0], left, right, edges, shares,
                                  value[left[j], output], value[right[j], output], C[j - start, q])
        for begin in range(low, high, _ROWS):
            n = min(high, begin + _ROWS) - begin
            for q in range(n_q):
                w[0, q, :] = rule[q, 1]
            top = 0
            stack[0] = start
            stage[0] = 0
            while top >= 0:
                j = stack[top]
                lj, rj = left[j], right[j]
                cj = C[j - start]
                o = ones if edges[lj, 4] == 0 else old[top]
                t = ahead[top]
                if stage[top] == 0:
                    column = codes[feature[j], begin:begin + n]
                    if edges[lj, 4] > 0:
                        o[:] = bit[edges[lj, 4]]
                    if set_start[j] < 0:
                        lowest = np.int32(-1) if missing_left[j] else np.int32(0)
                        r = rank[j]
                        for i in range(n):
                            t[i] = 1.0 if (column[i] >= lowest) & (column[i] < r) else 0.0
                    else:
                        for i in range(n):
                            goes = missing_left[j] if column[i] < 0 else set_bits[set_start[j] + column[i]] != 0
                            t[i] = 1.0 if goes else 0.0
                    if edges[lj, 4] > 0:
                        for i in range(_ROWS):
                            t[i] *= o[i]
                    stage[top] = 1
                    both = (feature[lj] < 0) and (feature[rj] < 0)
                    if not both:
                        if feature[lj] >= 0:
                            bit[top + 1] = t
                            for q in range(n_q):
                                extra[top + 1, q] = cj[q, 15]
                                _down(w[top, q], o, t, cj[q, 0], cj[q, 1], cj[q, 2], w[top + 1, q])
                            top += 1
                            stack[top] = lj
                            stage[top] = 0
                            continue
                        v = value[lj, output]
                        for q in range(n_q):
                            _down(w[top, q], o, t, v * cj[q, 0], v * cj[q, 1], v * cj[q, 2], up_left[top, q])
                if stage[top] == 1 and not (feature[lj] < 0 and feature[rj] < 0):
                    stage[top] = 2
                    if feature[rj] >= 0:
                        for i in range(_ROWS):
                            bit[top + 1, i] = o[i] - t[i]
                        for q in range(n_q):
                            extra[top + 1, q] = cj[q, 16]
                            _down(w[top, q], o, t, cj[q, 3], cj[q, 4], cj[q, 5], w[top + 1, q])
                        top += 1
                        stack[top] = rj
                        stage[top] = 0
                        continue
                    v = value[rj, output]
                    for q in range(n_q):
                        _down(w[top, q], o, t, v * cj[q, 3], v * cj[q, 4], v * cj[q, 5], up_right[top, q])
                # Both children are known: pass their sum up and credit the feature.
                share[:] = 0.0
                is_left = top > 0 and stage[top - 1] == 1
                above = up_left[top - 1] if is_left else up_right[max(top - 1, 0)]
                for q in range(n_q):
                    c = cj[q]
                    mine = own[q]
                    a = above[q]
                    if stage[top] == 1:
                        e0, e1, e2, g1, g2 = c[10], c[11], c[12], c[13], c[14]
                        wq = w[top, q]
                        if top > 0:
                            _down(wq, o, t, e0, e1, e2, a)
                        for i in range(_ROWS):
                            mine[i] = wq[i] * (o[i] * g1 + t[i] * g2)
                    else:
                        m1, m2, r1, r2 = c[6], c[7], c[8], c[9]
                        al, ar = up_left[top, q], up_right[top, q]
                        for i in range(_ROWS):
                            mine[i] = o[i] * (al[i] * m1 + ar[i] * r1) + t[i] * (al[i] * m2 + ar[i] * r2)
                        if top > 0:
                            for i in range(_ROWS):
                                a[i] = al[i] + ar[i]
                    for i in range(_ROWS):
                        share[i] += mine[i]
                f = feature[j]
                total = sums[f * n_outputs + output, begin:begin + n]
                for i in range(n):
                    total[i] += share[i]
                if pairs and top > 0:
                    # Pair the feature with every other player of the path, each at its latest split.
                    dead[:top + 1] = 0
                    for k in range(top):
                        dead[edges[left[stack[k]], 4]] = 1
                    share[:] = 0.0
                    for q in range(n_q):
                        s0 = -0.5 / (1.0 - rule[q, 0])
                        mine = own[q]
                        for i in range(_ROWS):
                            share[i] += mine[i] * s0
                    for k in range(top):
                        g = feature[stack[k]]
                        if dead[k + 1] or g == f:
                            continue
                        b = bit[k + 1]
                        target = sums[(d + max(f, g) * d + min(f, g)) * n_outputs + output, begin:begin + n]
                        for i in range(n):
                            target[i] += share[i]
                        for q in range(0, n_q, 4):
                            u0, u1, u2, u3 = own[q], own[q + 1], own[q + 2], own[q + 3]
                            e0, e1 = 0.5 * extra[k + 1, q], 0.5 * extra[k + 1, q + 1]
                            e2, e3 = 0.5 * extra[k + 1, q + 2], 0.5 * extra[k + 1, q + 3]
                            for i in range(n):
                                target[i] += b[i] * (u0[i] * e0 + u1[i] * e1 + u2[i] * e2 + u3[i] * e3)
                top -= 1
