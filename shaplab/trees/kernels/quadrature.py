"""Walk trees with blocks of rows: Shapley values and interactions of the path-dependent game.

For Gauss-Legendre nodes x of [0, 1], a leaf's product over its players g has the factor z_g (1 - x)
+ b_g x, where b_g is 1 if the row satisfies all of g's splits. Going down, every edge multiplies by
new factor over old factor; going up, it adds its players' change of S = (b - z) / (z (1 - x) + b
x), times what the leaves below pay, to the feature. Written with the bits o (the player agreed so
far) and t (and the row goes left), all of these are c0 + o c1 + t c2 with coefficients that do not
depend on the row, so nothing is divided by a small number.

Idea 2 of the chapter *Fast enough for everything* (trees/kernels), "walk with many rows at once".
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
    COVER_RATIO,
    EARLIER,
    LEVEL,
    PARENT,
    PLAYERS,
    RULE_NODE,
    RULE_WEIGHT,
    SHARE,
    SHARE_BEFORE,
    PathArrays,
)

__all__ = ["WALK_ROWS", "leaf_products", "sorted_shares", "walk_trees"]

WALK_ROWS = 128  # rows of a block: what a walk keeps of them stays in the cache

# Columns of ``jobs``: what one walk is for.
JOB_TREE = 0
JOB_OUTPUT = 1

# Columns of the coefficients of a split at one node of the rule. Groups follow each other: those of
# the left edge, then those of the right one.
GOING_DOWN = 0  # 3 an edge: c0, c1, c2 of new factor over old factor
CREDIT = 6  # 2 an edge: of o and of t, in the change of S
BOTH_UP = 10  # 3 where both children are leaves: c0, c1, c2 of what they pay together
BOTH_CREDIT = 13  # 2 there: of o and of t, in what they give to the feature
AGREEING = 15  # 1 an edge: S where the player agrees less S where it does not
_N_COEFFICIENTS = 17


class _WalkSpace(NamedTuple):
    """What a walk keeps; the last axis of most arrays is the rows of a block."""

    coefficients: np.ndarray  # (nodes of the tree, nodes of the rule, 17), without rows
    products: np.ndarray  # (3, levels, nodes): going down, sums from the left child, from the right
    agreed: np.ndarray  # (levels,) 1 where the row satisfies the edge's player so far
    before: np.ndarray  # (levels + 1,) o of a split; the last one stays 1, for a player's first
    ahead: np.ndarray  # (levels,) t of a split
    given: np.ndarray  # (nodes,) what the present split gives to its feature
    half: np.ndarray  # (levels, nodes) half of the edge's AGREEING coefficient, without rows
    stack: np.ndarray  # (levels,) splits of the present path, without rows
    stage: np.ndarray  # (levels,) 0 new, 1 left child done, 2 both done; without rows
    later: np.ndarray  # (levels,) 1 where the edge's player splits again below; without rows
    both_absent: np.ndarray  # () part of a pair's value that all pairs share


class _Visit(NamedTuple):
    """The split that a walk has come to."""

    output: int
    block: int
    n_rule: int  # nodes of the tree's rule
    level: int
    split: int
    feature: int
    player: int
    earlier: int  # level of the last edge above on the same feature, 0 if there is none
    before: int  # row of ``before`` that holds o
    place: int  # of the split in the coefficients


@njit(cache=True, nogil=True)
def sorted_shares(leaves, paths_edges, paths_shares, sorted_z):
    """Write each leaf's z of its players, largest first, to ``sorted_z`` ``(n, width)``."""
    for i in range(leaves.shape[0]):
        node = leaves[i]
        players = paths_edges[node, PLAYERS]
        row = sorted_z[i]
        row[:] = np.nan
        while paths_edges[node, PARENT] >= 0:
            # The lowest edge on a feature comes first and holds the product of all of them.
            if np.isnan(row[paths_edges[node, BIT]]):
                row[paths_edges[node, BIT]] = paths_shares[node, SHARE]
            node = paths_edges[node, PARENT]
        row[:players] = np.sort(row[:players])[::-1]


@njit(cache=True, nogil=True)
def leaf_products(shares, players, rows, x, weights, integrals):
    """Integrate each leaf's product by a rule, with its first k players absent, the rest present.

    ``shares`` as from ``sorted_shares``; ``integrals[i, k]`` for the leaves ``i`` in ``rows``, k =
    0 to ``players[i]``.
    """
    present = np.ones(shares.shape[1] + 1)
    for i in rows:
        d = players[i]
        integrals[i] = 0.0
        for q in range(x.shape[0]):
            present[d] = 1.0
            for k in range(d - 1, -1, -1):
                present[k] = present[k + 1] * (shares[i, k] + (1.0 - shares[i, k]) * x[q])
            absent = weights[q]
            for k in range(d + 1):
                integrals[i, k] += absent * present[k]
                if k < d:
                    absent *= shares[i, k] * (1.0 - x[q])


@njit(**UNCOUNTED)
def _tree_coefficients(tree, output, nodes: Nodes, paths: PathArrays, coefficients):
    """Fill the coefficients of all splits of a tree at all nodes of its rule."""
    start = nodes.tree_start[tree]
    first_rule = paths.rule_start[paths.tree_rule[tree]]
    n_rule = paths.rule_start[paths.tree_rule[tree] + 1] - first_rule
    for i in range(start, start + paths.tree_nodes[tree]):
        split = paths.order[i]
        left = nodes.left[split]
        right = nodes.right[split]
        if nodes.feature[split] < 0:
            continue
        for q in range(n_rule):
            own = coefficients[split - start, q]
            x = paths.rules[first_rule + q, RULE_NODE]
            _edge_coefficients(left, 0, x, paths, own)
            _edge_coefficients(right, 1, x, paths, own)
            _leaf_coefficients(nodes.value[left, output], nodes.value[right, output], own)


@njit(inline="always")
def _edge_coefficients(child, side, x, paths: PathArrays, c):
    """Coefficients of the left (side 0) or right edge of a split, at node ``x`` of the rule."""
    z = paths.shares[child, SHARE]
    factor = z * (1.0 - x) + x
    s_fails = -1.0 / (1.0 - x)
    s_agrees = (1.0 - z) / factor
    credit_t = s_agrees - s_fails
    if paths.edges[child, EARLIER] == 0:
        c0 = factor - x
        c1 = 0.0
        c2 = x
        credit_o = s_fails
    else:
        z_before = paths.shares[child, SHARE_BEFORE]
        factor_before = z_before * (1.0 - x) + x
        c0 = paths.shares[child, COVER_RATIO]
        c1 = (factor - x) / factor_before - c0
        c2 = x / factor_before
        credit_o = s_fails - (1.0 - z_before) / factor_before
    if side == 1:
        # The row goes right where it does not go left: o - t instead of t.
        c1 = c1 + c2
        c2 = -c2
        credit_o = credit_o + credit_t
        credit_t = -credit_t
        if paths.edges[child, EARLIER] == 0:  # o is 1
            c0 = c0 + c1
            c1 = 0.0
    c[GOING_DOWN + 3 * side] = c0
    c[GOING_DOWN + 3 * side + 1] = c1
    c[GOING_DOWN + 3 * side + 2] = c2
    c[CREDIT + 2 * side] = credit_o
    c[CREDIT + 2 * side + 1] = credit_t
    c[AGREEING + side] = s_agrees - s_fails


@njit(inline="always")
def _leaf_coefficients(left_pay, right_pay, c):
    """Coefficients of a split whose children are leaves: products of their edges', by o and t,
    where o o = o, t t = t and o t = t."""
    l0 = c[GOING_DOWN]
    l1 = c[GOING_DOWN + 1]
    l2 = c[GOING_DOWN + 2]
    r0 = c[GOING_DOWN + 3]
    r1 = c[GOING_DOWN + 4]
    r2 = c[GOING_DOWN + 5]
    lo = c[CREDIT]
    lt = c[CREDIT + 1]
    ro = c[CREDIT + 2]
    rt = c[CREDIT + 3]
    c[BOTH_UP] = l0 * left_pay + r0 * right_pay
    c[BOTH_UP + 1] = l1 * left_pay + r1 * right_pay
    c[BOTH_UP + 2] = l2 * left_pay + r2 * right_pay
    c[BOTH_CREDIT] = (l0 + l1) * lo * left_pay + (r0 + r1) * ro * right_pay
    c[BOTH_CREDIT + 1] = ((l0 + l1) * lt + l2 * (lo + lt)) * left_pay + (
        (r0 + r1) * rt + r2 * (ro + rt)
    ) * right_pay


@njit(cache=True, nogil=True)
def walk_trees(jobs, nodes: Nodes, paths: PathArrays, codes, pairs, sums):
    """Add the values of each (tree, output) in ``jobs`` to ``sums`` ``(blocks, n_targets,
    WALK_ROWS)``.

    ``codes`` is ``(blocks, d, WALK_ROWS)``. Targets: ``feature * n_outputs + output``; with
    ``pairs`` also, after ``d * n_outputs`` of those, the interactions, ``(larger * d + smaller) *
    n_outputs + output``.
    """
    n_rule = 1  # most nodes of a rule
    n_nodes = 1  # most nodes of a tree
    for job in range(jobs.shape[0]):
        tree = jobs[job, JOB_TREE]
        rule = paths.tree_rule[tree]
        n_rule = max(n_rule, paths.rule_start[rule + 1] - paths.rule_start[rule])
        n_nodes = max(n_nodes, nodes.tree_start[tree + 1] - nodes.tree_start[tree])
    levels = 2
    for node in range(paths.edges.shape[0]):
        levels = max(levels, paths.edges[node, LEVEL] + 2)
    padded = (n_rule + 3) // 4 * 4  # pairs take four nodes at a time
    work = _WalkSpace(
        np.zeros((n_nodes, n_rule, _N_COEFFICIENTS)),
        np.zeros((3, levels, n_rule, WALK_ROWS)),
        np.ones((levels, WALK_ROWS)),
        np.ones((levels + 1, WALK_ROWS)),
        np.zeros((levels, WALK_ROWS)),
        np.zeros((padded, WALK_ROWS)),
        np.zeros((levels, padded)),
        np.zeros(levels, np.int32),
        np.zeros(levels, np.int32),
        np.zeros(levels, np.uint8),
        np.zeros(WALK_ROWS),
    )
    for job in range(jobs.shape[0]):
        tree = jobs[job, JOB_TREE]
        output = jobs[job, JOB_OUTPUT]
        _tree_coefficients(tree, output, nodes, paths, work.coefficients)
        work.half[:] = 0.0
        work.given[:] = 0.0
        _walk_tree(tree, output, nodes, paths, codes, pairs, work, sums)


@njit(fastmath={"contract"}, **UNCOUNTED)
def _walk_tree(tree, output, nodes: Nodes, paths: PathArrays, codes, pairs, work: _WalkSpace, sums):
    """Walk a tree once for each block of rows: down both edges of a split, then up from it."""
    start = nodes.tree_start[tree]
    first_rule = paths.rule_start[paths.tree_rule[tree]]
    n_rule = paths.rule_start[paths.tree_rule[tree] + 1] - first_rule
    for block in range(codes.shape[0]):
        for q in range(n_rule):
            for i in range(WALK_ROWS):
                work.products[0, 0, q, i] = paths.rules[first_rule + q, RULE_WEIGHT]
        level = 0
        work.stack[0] = start
        work.stage[0] = 0
        while level >= 0:
            split = work.stack[level]
            left = nodes.left[split]
            right = nodes.right[split]
            leaves = nodes.feature[left] < 0 and nodes.feature[right] < 0
            earlier = paths.edges[left, EARLIER]
            before = level if earlier > 0 else work.before.shape[0] - 1
            visit = _Visit(
                output,
                block,
                n_rule,
                level,
                split,
                nodes.feature[split],
                nodes.player[split],
                earlier,
                before,
                split - start,
            )
            if work.stage[level] == 0:
                _answer_split(visit, nodes, codes, work)
            if work.stage[level] < 2 and not leaves:
                side = work.stage[level]
                work.stage[level] = side + 1
                child = left if side == 0 else right
                _go_down(visit, side, child, nodes, work)
                if nodes.feature[child] >= 0:
                    _enter(visit, side, work)
                    level += 1
                    work.stack[level] = child
                    work.stage[level] = 0
                continue
            _come_up(visit, leaves, work, nodes.value.shape[1], sums)
            if pairs and level > 0:
                _add_pairs(visit, nodes, paths, first_rule, work, sums)
            level -= 1


@njit(inline="always")
def _answer_split(visit: _Visit, nodes: Nodes, codes, work: _WalkSpace):
    """Find the bits o and t of a split for a block of rows."""
    ahead = work.ahead
    split = visit.split
    level = visit.level
    if nodes.set_start[split] < 0:
        # As goes_left, with all that rows have in common taken out of the loop: it runs on vectors.
        rank = nodes.rank[split]
        lowest = np.int32(-1 if nodes.missing_left[split] else 0)
        for i in range(WALK_ROWS):
            code = codes[visit.block, visit.feature, i]
            ahead[level, i] = 1.0 if (code >= lowest) & (code < rank) else 0.0
    else:
        for i in range(WALK_ROWS):
            left = goes_left(nodes, split, codes[visit.block, visit.feature, i])
            ahead[level, i] = 1.0 if left else 0.0
    if visit.earlier > 0:
        before = work.before
        agreed = work.agreed
        for i in range(WALK_ROWS):
            before[level, i] = agreed[visit.earlier, i]
            ahead[level, i] *= agreed[visit.earlier, i]


@njit(inline="always")
def _go_down(visit: _Visit, side, child, nodes: Nodes, work: _WalkSpace):
    """Multiply down one edge: to the products of an inner child, or what a leaf pays straight into
    this split's sums."""
    products = work.products
    ahead = work.ahead
    before = work.before
    level = visit.level
    pay = 1.0
    section = 0
    to = level + 1
    if nodes.feature[child] < 0:
        pay = nodes.value[child, visit.output]
        section = 1 + side
        to = level
    for q in range(visit.n_rule):
        own = work.coefficients[visit.place, q]
        c0 = pay * own[GOING_DOWN + 3 * side]
        c1 = pay * own[GOING_DOWN + 3 * side + 1]
        c2 = pay * own[GOING_DOWN + 3 * side + 2]
        if visit.earlier == 0:
            for i in range(WALK_ROWS):
                products[section, to, q, i] = products[0, level, q, i] * (c0 + ahead[level, i] * c2)
        else:
            for i in range(WALK_ROWS):
                products[section, to, q, i] = products[0, level, q, i] * (
                    c0 + before[level, i] * c1 + ahead[level, i] * c2
                )


@njit(inline="always")
def _enter(visit: _Visit, side, work: _WalkSpace):
    """Keep what pairs and later splits on the same feature need of an edge to an inner child."""
    agreed = work.agreed
    ahead = work.ahead
    before = work.before
    half = work.half
    level = visit.level
    if side == 0:
        for i in range(WALK_ROWS):
            agreed[level + 1, i] = ahead[level, i]
    else:
        for i in range(WALK_ROWS):
            agreed[level + 1, i] = before[visit.before, i] - ahead[level, i]
    for q in range(visit.n_rule):
        half[level + 1, q] = 0.5 * work.coefficients[visit.place, q, AGREEING + side]


@njit(inline="always")
def _come_up(visit: _Visit, leaves, work: _WalkSpace, n_outputs, sums):
    """Pass the sum of both children up, and give the feature its part."""
    products = work.products
    ahead = work.ahead
    before = work.before
    given = work.given
    level = visit.level
    section = 1  # of the sums of the split above; nobody reads what the root passes up
    above = 0
    if level > 0:
        section = work.stage[level - 1]
        above = level - 1
    for q in range(visit.n_rule):
        own = work.coefficients[visit.place, q]
        c0 = own[BOTH_UP]
        c1 = own[BOTH_UP + 1]
        c2 = own[BOTH_UP + 2]
        credit_o = own[BOTH_CREDIT]
        credit_t = own[BOTH_CREDIT + 1]
        if leaves and visit.earlier == 0:
            for i in range(WALK_ROWS):
                given[q, i] = products[0, level, q, i] * (credit_o + ahead[level, i] * credit_t)
            for i in range(WALK_ROWS):
                products[section, above, q, i] = products[0, level, q, i] * (
                    c0 + ahead[level, i] * c2
                )
        elif leaves:
            for i in range(WALK_ROWS):
                given[q, i] = products[0, level, q, i] * (
                    before[level, i] * credit_o + ahead[level, i] * credit_t
                )
            for i in range(WALK_ROWS):
                products[section, above, q, i] = products[0, level, q, i] * (
                    c0 + before[level, i] * c1 + ahead[level, i] * c2
                )
        else:
            left_o = own[CREDIT]
            left_t = own[CREDIT + 1]
            right_o = own[CREDIT + 2]
            right_t = own[CREDIT + 3]
            for i in range(WALK_ROWS):
                given[q, i] = before[visit.before, i] * (
                    products[1, level, q, i] * left_o + products[2, level, q, i] * right_o
                ) + ahead[level, i] * (
                    products[1, level, q, i] * left_t + products[2, level, q, i] * right_t
                )
            for i in range(WALK_ROWS):
                products[section, above, q, i] = products[1, level, q, i] + products[2, level, q, i]
        target = visit.player * n_outputs + visit.output
        for i in range(WALK_ROWS):
            sums[visit.block, target, i] += given[q, i]


@njit(inline="always")
def _add_pairs(visit: _Visit, nodes: Nodes, paths: PathArrays, first_rule, work, sums):
    """Pair the player with every other player of the path, each at its latest split."""
    stack = work.stack
    later = work.later
    agreed = work.agreed
    half = work.half
    given = work.given
    both_absent = work.both_absent
    n_outputs = nodes.value.shape[1]
    level = visit.level
    player = visit.player
    n_players = nodes.n_players
    later[: level + 1] = 0
    for k in range(level):
        later[paths.edges[nodes.left[stack[k]], EARLIER]] = 1
    both_absent[:] = 0.0
    for q in range(visit.n_rule):
        s_fails = -0.5 / (1.0 - paths.rules[first_rule + q, RULE_NODE])
        for i in range(WALK_ROWS):
            both_absent[i] += given[q, i] * s_fails
    for k in range(level):
        other = nodes.player[stack[k]]
        if later[k + 1] or other == player:
            continue
        larger = max(player, other)
        smaller = min(player, other)
        target = (n_players + larger * n_players + smaller) * n_outputs + visit.output
        for i in range(WALK_ROWS):
            sums[visit.block, target, i] += both_absent[i]
        for q in range(0, visit.n_rule, 4):  # nodes beyond the rule's last one have 0 in ``half``
            h0 = half[k + 1, q]
            h1 = half[k + 1, q + 1]
            h2 = half[k + 1, q + 2]
            h3 = half[k + 1, q + 3]
            for i in range(WALK_ROWS):
                sums[visit.block, target, i] += agreed[k + 1, i] * (
                    given[q, i] * h0
                    + given[q + 1, i] * h1
                    + given[q + 2, i] * h2
                    + given[q + 3, i] * h3
                )
