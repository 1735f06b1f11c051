"""The interventional game for long paths: distinct pairs of patterns instead of tables.

At a leaf of d players only pairs of patterns (a of a row, c of a background row) in which every
player agrees on at least one side count. With n01 = d - |a| players that only c satisfies and n10 =
d - |c| that only a satisfies, the leaf's Shapley values are (n10 - 1)! n01! / (n10 + n01)! for the
latter and
-n10! (n01 - 1)! / (n10 + n01)! for the former. Rows with equal patterns are grouped on the way
down. A pair that fails at a player is lost for the whole subtree, so each group of rows keeps, as
bits, the background rows that it can still be paired with, and a subtree without pairs is left out.

The end of idea 4 of the chapter *Fast enough for everything* (trees/kernels): a path with forty
features has no more kinds than there are rows. The chapter's kind of a row is its pattern here.
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
    EARLIER,
    LEVEL,
    PARENT,
    PLAYERS,
    SUBTREE_NODES,
    PathArrays,
    path_players,
    table_columns,
)

__all__ = ["NO_BACKGROUND", "Background", "coalition_outputs", "pair_patterns"]


class Background(NamedTuple):
    """Encoded background rows and what their pairs with a row weigh."""

    codes: np.ndarray  # (d, R)
    weights: np.ndarray  # (R,)
    factor: np.ndarray  # factor[a, b] = a! b! / (a + b + 1)!


# Where a bit stands in a word: the top six bits of bit times this number are different for each.
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_PLACE_OF_BIT = np.argsort([(0x03F79D71B4CB0A89 << i) % 2**64 >> 58 for i in range(64)])
# Of the path-dependent game, for kernels that serve both.
NO_BACKGROUND = Background(np.zeros((0, 0), np.int32), np.zeros(0), np.zeros((1, 1)))


class _Groups(NamedTuple):
    """Rows grouped by their patterns at every level of a path."""

    of_row: np.ndarray  # (levels, n): the group of each row
    patterns: np.ndarray  # (levels, n, words) of each group, 64 players a word
    n_groups: np.ndarray  # (levels,)
    goes: np.ndarray  # (n,) which way each row goes at the present split
    renamed: np.ndarray  # (2 n,): new number of each old group's rows that disagree and that agree


class _Partners(NamedTuple):
    """Which background rows each pattern of a row can still be paired with: with every player in
    at least one of the two. Bits of background rows, 64 a word."""

    live: np.ndarray  # (levels, n, words) of each group of rows
    agree: np.ndarray  # (words,) of the rows that agree at the present player
    first: np.ndarray  # (words,) of the first row of each pattern at a leaf


class _Opponents(NamedTuple):
    """The background's patterns at one leaf."""

    patterns: np.ndarray  # (groups, words)
    of_row: np.ndarray  # (R,) the pattern of each row
    first: np.ndarray  # as in ``_Partners``
    mass: np.ndarray  # (groups,) weight of the rows in each
    factor: np.ndarray  # as in ``Background``
    absent: np.ndarray  # room for a list of players that fail in a background row
    failing: np.ndarray  # and of those that fail in the row


@njit(cache=True, nogil=True)
def _make_groups(levels, n, words):
    """One group of all rows, without players, at every level."""
    return _Groups(
        np.zeros((levels, n), np.int32),
        np.zeros((levels, n, words), np.uint64),
        np.ones(levels, np.int32),
        np.zeros(n, np.bool_),
        np.zeros(2 * n, np.int32),
    )


@njit(**UNCOUNTED)
def _refine(node, groups: _Groups, nodes: Nodes, edges, codes, low):
    """Split the groups of the level above by whether their rows take the edge to ``node``.

    ``codes`` ``(d, n)``; the groups hold its rows from ``low`` on.
    """
    split = edges[node, PARENT]
    level = edges[node, LEVEL]
    fresh = edges[node, EARLIER] == 0
    is_right = nodes.right[split] == node
    word = edges[node, BIT] >> 6
    one = np.uint64(1) << np.uint64(edges[node, BIT] & 63)
    column = codes[nodes.feature[split]]
    goes = groups.goes
    renamed = groups.renamed
    above = groups.patterns[level - 1]
    here = groups.patterns[level]
    group_above = groups.of_row[level - 1]
    group_here = groups.of_row[level]
    for i in range(goes.shape[0]):
        goes[i] = goes_left(nodes, split, column[low + i])
    renamed[: 2 * groups.n_groups[level - 1]] = -1
    count = 0
    for i in range(goes.shape[0]):
        agrees = goes[i] != is_right
        key = 2 * group_above[i] + (1 if agrees else 0)
        if renamed[key] < 0:
            renamed[key] = count
            for w in range(here.shape[1]):
                here[count, w] = above[group_above[i], w]
            if fresh and agrees:
                here[count, word] |= one
            elif not agrees:
                here[count, word] &= ~one
            count += 1
        group_here[i] = renamed[key]
    groups.n_groups[level] = count


@njit(**UNCOUNTED)
def _size(pattern):
    """How many players of a pattern agree."""
    count = 0
    for word in range(pattern.shape[0]):
        rest = pattern[word]
        while rest != np.uint64(0):
            rest &= rest - np.uint64(1)
            count += 1
    return count


@njit(**UNCOUNTED)
def _has(pattern, player):
    """Whether a player of a pattern agrees."""
    return (pattern[player >> 6] >> np.uint64(player & 63)) & np.uint64(1) != np.uint64(0)


@njit(**UNCOUNTED)
def _every_player_agrees(a, c, d):
    """Whether each of the d players agrees in one of two patterns at least."""
    for word in range(a.shape[0]):
        # A leaf with fewer players than the widest one of the call leaves later words empty.
        kept = max(0, min(64, d - 64 * word))
        full = ~np.uint64(0) if kept == 64 else (np.uint64(1) << np.uint64(kept)) - np.uint64(1)
        if (a[word] | c[word]) != full:
            return False
    return True


@njit(**UNCOUNTED)
def _part_pairs(
    node, ours: _Groups, theirs: _Groups, nodes: Nodes, edges, codes, partners: _Partners
):
    """Keep the pairs that the edge to ``node`` leaves; returns whether there are any.

    Where a row fails in the edge's player, its partner must agree. Groups of rows are numbered by
    their first rows, so each is new where its number is the next one. The background, ``codes``
    ``(d, R)``, still has the groups of the level above.
    """
    level = edges[node, LEVEL]
    bit = edges[node, BIT]
    agree = partners.agree
    is_known = False
    some = np.uint64(0)
    count = 0
    for i in range(ours.of_row.shape[1]):
        if ours.of_row[level, i] < count:
            continue
        above = partners.live[level - 1, ours.of_row[level - 1, i]]
        here = partners.live[level, count]
        for word in range(agree.shape[0]):
            here[word] = above[word]
        if not _has(ours.patterns[level, count], bit):
            if not is_known:
                _find_agreeing(node, theirs, nodes, edges, codes, agree)
                is_known = True
            for word in range(agree.shape[0]):
                here[word] &= agree[word]
        for word in range(agree.shape[0]):
            some |= here[word]
        count += 1
    return some != np.uint64(0)


@njit(**UNCOUNTED)
def _find_agreeing(node, theirs: _Groups, nodes: Nodes, edges, codes, agree):
    """Write the bits of the background rows that agree in the player of the edge to ``node``."""
    split = edges[node, PARENT]
    level = edges[node, LEVEL]
    bit = edges[node, BIT]
    fresh = edges[node, EARLIER] == 0
    is_right = nodes.right[split] == node
    column = codes[nodes.feature[split]]
    group = theirs.of_row[level - 1]
    for word in range(agree.shape[0]):
        bits = np.uint64(0)
        for row in range(64 * word, min(column.shape[0], 64 * word + 64)):
            agrees = goes_left(nodes, split, column[row]) != is_right
            if not fresh:
                agrees &= _has(theirs.patterns[level - 1, group[row]], bit)
            bits |= np.uint64(agrees) << np.uint64(row & 63)
        agree[word] = bits


@njit(**UNCOUNTED)
def _weigh_groups(group_of_row, weights, mass, first):
    """Sum up the weights of each group, and mark its first row."""
    first[:] = np.uint64(0)
    count = 0
    for row in range(group_of_row.shape[0]):
        g = group_of_row[row]
        if g == count:
            first[row >> 6] |= np.uint64(1) << np.uint64(row & 63)
            mass[g] = 0.0
            count += 1
        mass[g] += weights[row]


@njit(**UNCOUNTED)
def _list_failing(pattern, d, listed):
    """List the players of a pattern, of d, that do not agree; returns how many there are."""
    count = 0
    for word in range((d + 63) >> 6):
        kept = min(64, d - 64 * word)
        rest = ~pattern[word] & (~np.uint64(0) >> np.uint64(64 - kept))
        while rest != np.uint64(0):
            lowest = rest & (~rest + np.uint64(1))
            rest ^= lowest
            listed[count] = 64 * word + _PLACE_OF_BIT[(lowest * _DE_BRUIJN) >> np.uint64(58)]
            count += 1
    return count


@njit(**UNCOUNTED)
def _leaf_values(d, a, live, opponents: _Opponents, pairs, phi):
    """Values of a leaf of weight 1 for one row pattern and the background rows it is paired with:
    d players, then pairs (i, j < i).

    Pairs of two players that only the row satisfies, or only the reference, are alike; one of each
    is mixed.
    """
    factor = opponents.factor
    mass = opponents.mass
    absent = opponents.absent
    failing = opponents.failing
    phi[:] = 0.0
    n01 = -1  # not counted yet: most patterns of rows have no partner left
    minus = 0.0  # of each player that only the reference satisfies
    both = 0.0  # of each pair of them
    for word in range(live.shape[0]):
        rest = live[word] & opponents.first[word]
        while rest != np.uint64(0):
            lowest = rest & (~rest + np.uint64(1))
            rest ^= lowest
            row = 64 * word + _PLACE_OF_BIT[(lowest * _DE_BRUIJN) >> np.uint64(58)]
            g = opponents.of_row[row]
            if mass[g] == 0.0:
                continue
            if n01 < 0:
                n01 = _list_failing(a, d, failing)
            n10 = _list_failing(opponents.patterns[g], d, absent)
            if n01 > 0:
                minus += mass[g] * factor[n10, n01 - 1]
            if n10 > 0:
                plus = mass[g] * factor[n10 - 1, n01]
                for s in range(n10):
                    phi[absent[s]] += plus
                if pairs:
                    mixed = 0.5 * mass[g] * factor[n10 - 1, n01 - 1] if n01 > 0 else 0.0
                    alike = 0.5 * mass[g] * factor[n10 - 2, n01] if n10 > 1 else 0.0
                    _add_leaf_pairs(d, absent[:n10], failing[:n01], alike, mixed, phi)
            if pairs and n01 > 1:
                both += 0.5 * mass[g] * factor[n10, n01 - 2]
    for s in range(n01):
        phi[failing[s]] -= minus
        if pairs:
            for t in range(s):
                phi[_pair_column(d, failing[s], failing[t])] += both


@njit(**UNCOUNTED)
def _add_leaf_pairs(d, absent, failing, alike, mixed, phi):
    """Add the pairs that hold a player that only the row satisfies, one of ``absent``; in those of
    ``failing`` only the reference agrees."""
    for s in range(absent.shape[0]):
        player = absent[s]
        for r in range(s):
            phi[_pair_column(d, player, absent[r])] += alike
        for t in range(failing.shape[0]):
            other = failing[t]
            phi[_pair_column(d, max(player, other), min(player, other))] -= mixed


@njit(**UNCOUNTED)
def _pair_column(d, larger, smaller):
    """Column of a pair of players, after those of d players."""
    return d + (larger * (larger - 1)) // 2 + smaller


@njit(cache=True, nogil=True)
def pair_patterns(
    chosen, rows, nodes: Nodes, paths: PathArrays, codes, background: Background, pairs, sums
):
    """Add the values of the ``chosen`` trees to ``sums`` ``(n_targets, n)`` for ``rows[0]`` to
    ``rows[1]`` of ``codes`` ``(d, n)``; targets as in ``walk_trees``."""
    edges = paths.edges
    low = rows[0]
    n = rows[1] - rows[0]
    n_background = background.codes.shape[1]
    levels = 2
    widest = 1  # most players of a path
    for tree in chosen:
        widest = max(widest, paths.tree_players[tree])
        for node in range(nodes.tree_start[tree], nodes.tree_start[tree + 1]):
            levels = max(levels, edges[node, LEVEL] + 2)
    words = (widest + 63) // 64
    ours = _make_groups(levels, n, words)
    theirs = _make_groups(levels, n_background, words)
    mass = np.zeros(n_background)
    absent = np.zeros(widest, np.int32)
    failing = np.zeros(widest, np.int32)
    players = np.zeros(widest, np.int32)
    phi = np.zeros((n, table_columns(widest, pairs)))
    words = (n_background + 63) // 64
    partners = _Partners(
        np.zeros((levels, n, words), np.uint64),
        np.zeros(words, np.uint64),
        np.zeros(words, np.uint64),
    )
    partners.live[0, 0] = ~np.uint64(0)  # bits beyond the last row are the first of no pattern
    for tree in chosen:
        start = nodes.tree_start[tree]
        ours.patterns[0, 0] = np.uint64(0)
        theirs.patterns[0, 0] = np.uint64(0)
        next_position = 1
        while next_position < paths.tree_nodes[tree]:
            node = paths.order[start + next_position]
            next_position += 1
            _refine(node, ours, nodes, edges, codes, low)
            if not _part_pairs(node, ours, theirs, nodes, edges, background.codes, partners):
                next_position += edges[node, SUBTREE_NODES] - 1
                continue
            _refine(node, theirs, nodes, edges, background.codes, 0)
            if nodes.feature[node] >= 0:
                continue
            level = edges[node, LEVEL]
            d = edges[node, PLAYERS]
            count = theirs.n_groups[level]
            _weigh_groups(theirs.of_row[level], background.weights, mass, partners.first)
            opponents = _Opponents(
                theirs.patterns[level, :count],
                theirs.of_row[level],
                partners.first,
                mass,
                background.factor,
                absent,
                failing,
            )
            for g in range(ours.n_groups[level]):
                live = partners.live[level, g]
                _leaf_values(d, ours.patterns[level, g], live, opponents, pairs, phi[g])
            path_players(node, nodes, edges, players)
            _pay_leaf(
                node, nodes.value, players[:d], ours.of_row[level], phi, nodes.n_players, low, sums
            )


@njit(**UNCOUNTED)
def _pay_leaf(leaf, value, players, group_of_row, phi, n_players, low, sums):
    """Add what a leaf pays to its players for every row and output, and, where ``phi`` has columns
    for pairs, to pairs of them."""
    d = players.shape[0]
    n_outputs = value.shape[1]
    pairs = sums.shape[0] > n_players * n_outputs
    for output in range(n_outputs):
        pay = value[leaf, output]
        if pay == 0.0:
            continue
        for p in range(d):
            total = sums[players[p] * n_outputs + output]
            for i in range(group_of_row.shape[0]):
                total[low + i] += pay * phi[group_of_row[i], p]
            if not pairs:
                continue
            for s in range(p):
                larger = max(players[p], players[s])
                smaller = min(players[p], players[s])
                pair = n_players + larger * n_players + smaller
                total = sums[pair * n_outputs + output]
                column = _pair_column(d, p, s)
                for i in range(group_of_row.shape[0]):
                    total[low + i] += pay * phi[group_of_row[i], column]


@njit(cache=True, nogil=True)
def coalition_outputs(nodes: Nodes, base, player, rows, references, outputs):
    """The model's output for every coalition of players, ``(R, N, K, 2^M)``, features of S from the
    row; ``player`` is the bit of each feature.

    A leaf pays in the coalitions that hold all players whose split only the row passes and none
    whose split only the reference passes; its signed weights are spread by sums over subsets, so no
    hybrid row is ever predicted.
    """
    room = nodes.feature.shape[0] + 1
    stack = np.empty(room, np.int32)
    # Players that a waiting node needs to be out of the coalition, and those that it needs in.
    must_be_out = np.empty(room, np.int64)
    must_be_in = np.empty(room, np.int64)
    for r in range(references.shape[0]):
        for i in range(rows.shape[0]):
            signed = outputs[r, i]
            signed[:] = 0.0
            for root in nodes.tree_start[:-1]:
                stack[0] = root
                must_be_out[0] = 0
                must_be_in[0] = 0
                waiting = 1
                while waiting > 0:
                    waiting -= 1
                    node = stack[waiting]
                    out = must_be_out[waiting]
                    inside = must_be_in[waiting]
                    feature = nodes.feature[node]
                    if feature < 0:
                        _pay_coalitions(node, out, inside, nodes.value, signed)
                        continue
                    bit = np.int64(1) << player[feature]
                    row_left = goes_left(nodes, node, rows[i, feature])
                    reference_left = goes_left(nodes, node, references[r, feature])
                    for side in range(2):
                        child_out = out
                        child_in = inside
                        if row_left != (side == 0):
                            child_out |= bit
                        if reference_left != (side == 0):
                            child_in |= bit
                        if child_out & child_in == 0:
                            stack[waiting] = nodes.left[node] if side == 0 else nodes.right[node]
                            must_be_out[waiting] = child_out
                            must_be_in[waiting] = child_in
                            waiting += 1
            _sum_over_subsets(signed)
            for k in range(signed.shape[0]):
                for s in range(signed.shape[1]):
                    signed[k, s] += base[k]


@njit(inline="always")
def _pay_coalitions(leaf, out, inside, value, signed):
    """Write a leaf's signed weights, whose sums over subsets are its value in coalitions that hold
    all of ``inside`` and nobody of ``out``, 0 elsewhere."""
    part = out
    while True:
        sign = 1.0
        rest = part
        while rest:
            rest &= rest - 1
            sign = -sign
        for k in range(value.shape[1]):
            signed[k, inside | part] += sign * value[leaf, k]
        if part == 0:
            break
        part = (part - 1) & out


@njit(**UNCOUNTED)
def _sum_over_subsets(numbers):
    """Replace each number ``[k, S]`` by the sum over all subsets of S."""
    run = 1
    while run < numbers.shape[1]:
        for k in range(numbers.shape[0]):
            for block in range(0, numbers.shape[1], 2 * run):
                for s in range(block, block + run):
                    numbers[k, s + run] += numbers[k, s]
        run *= 2
