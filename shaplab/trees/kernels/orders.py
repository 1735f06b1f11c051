"""Interactions of subsets of a path's players, of any order and any index.

A leaf of d players pays c times the product of z + (b - z) present, so the expected derivative in T
is c times the product over T of b - z times that of z + (b - z) p over the others. What is given of
each row is its pattern b; equal patterns are grouped on the way down, as in ``patterns``. Subsets
of players come in an order in which those of fewer players are the first ones: by their last
player, and each after the subset that it extends.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from shaplab.trees.kernels.compiling import UNCOUNTED
from shaplab.trees.kernels.patterns import (
    Background,
    _every_player_agrees,
    _has,
    _make_groups,
    _refine,
    _size,
)
from shaplab.trees.kernels.predict import Nodes
from shaplab.trees.kernels.structure import (
    BIT,
    LEVEL,
    PARENT,
    PLAYERS,
    SHARE,
    PathArrays,
    path_players,
)

__all__ = ["Subsets", "add_subsets", "path_subset_keys"]


class Subsets(NamedTuple):
    """Subsets of the players of a path, of all paths, and how an index integrates."""

    parent: np.ndarray  # (n,) the subset without its last player, -1 for single players
    last: np.ndarray  # (n,) its last player, by place on the path
    size: np.ndarray  # (n,)
    n_of: np.ndarray  # (widest + 1,) subsets of so many players: the first ones
    base: int  # features + 1
    keys: np.ndarray  # (m,) sorted; a key is the number to this base with the digits feature + 1
    rule_start: np.ndarray  # of d players: rows rule_start[d] to rule_start[d + 1] ...
    nodes: np.ndarray  # ... of these, (q,)
    weights: np.ndarray  # ... and these, (q, order + 1)
    integral: np.ndarray  # [t, a, b]: integral of p^a (1 - p)^b for subsets of size t


class _LeafSpace(NamedTuple):
    """What is kept of one leaf."""

    features: np.ndarray  # (widest,) of its players, rising
    bits: np.ndarray  # (widest,) of these players in patterns
    shares: np.ndarray  # (widest,) z of these players
    change: np.ndarray  # (widest,) b - z
    between: np.ndarray  # (widest + 1, widest + 1) product of factors from one player to before one
    product: np.ndarray  # (n,) of a subset's players and of the others up to its last one
    from_row: np.ndarray  # (n,) players of a subset that only the row satisfies, -1 if one is none
    target: np.ndarray  # (n,) place of each subset among the keys


@njit(**UNCOUNTED)
def _sort_players(leaf, nodes: Nodes, paths: PathArrays, space: _LeafSpace):
    """Players of the path to a leaf, by feature, with their bits and shares; returns how many."""
    d = paths.edges[leaf, PLAYERS]
    path_players(leaf, nodes, paths.edges, space.features)
    for bit in range(d):
        feature = space.features[bit]
        place = bit
        while place > 0 and space.features[place - 1] > feature:
            space.features[place] = space.features[place - 1]
            space.bits[place] = space.bits[place - 1]
            place -= 1
        space.features[place] = feature
        space.bits[place] = bit
    space.shares[:d] = np.nan
    above = leaf
    while paths.edges[above, PARENT] >= 0:
        for place in range(d):
            # The lowest edge of a player comes first and holds the product of all of them.
            own = space.bits[place] == paths.edges[above, BIT]
            if own and np.isnan(space.shares[place]):
                space.shares[place] = paths.shares[above, SHARE]
        above = paths.edges[above, PARENT]
    return d


@njit(**UNCOUNTED)
def _subset_keys(d, subsets: Subsets, features, keys):
    """Write the key of each subset of the d players."""
    for s in range(subsets.n_of[d]):
        before = subsets.parent[s]
        head = np.int64(0) if before < 0 else keys[before]
        keys[s] = head * subsets.base + features[subsets.last[s]] + 1


@njit(cache=True, nogil=True)
def _leaf_space(widest, n_subsets):
    return _LeafSpace(
        np.zeros(widest, np.int32),
        np.zeros(widest, np.int32),
        np.zeros(widest),
        np.zeros(widest),
        np.ones((widest + 1, widest + 1)),
        np.zeros(n_subsets),
        np.zeros(n_subsets, np.int32),
        np.zeros(n_subsets, np.int64),
    )


@njit(cache=True, nogil=True)
def path_subset_keys(tree, nodes: Nodes, paths: PathArrays, subsets: Subsets):
    """Keys of the subsets that meet on a path of a tree, with repetitions."""
    first = nodes.tree_start[tree]
    last = nodes.tree_start[tree + 1]
    total = 0
    for node in range(first, last):
        if nodes.feature[node] < 0:
            total += subsets.n_of[paths.edges[node, PLAYERS]]
    keys = np.empty(total, np.int64)
    space = _leaf_space(subsets.n_of.shape[0], 1)
    start = 0
    for node in range(first, last):
        if nodes.feature[node] < 0:
            d = _sort_players(node, nodes, paths, space)
            _subset_keys(d, subsets, space.features, keys[start:])
            start += subsets.n_of[d]
    return keys


@njit(fastmath={"contract"}, **UNCOUNTED)
def _path_values(d, pattern, subsets: Subsets, space: _LeafSpace, values):
    """Interactions of a leaf of weight 1 in the path-dependent game, for one pattern."""
    n = subsets.n_of[d]
    between = space.between
    product = space.product
    for place in range(d):
        present = 1.0 if _has(pattern, space.bits[place]) else 0.0
        space.change[place] = present - space.shares[place]
    values[:n] = 0.0
    for q in range(subsets.rule_start[d], subsets.rule_start[d + 1]):
        p = subsets.nodes[q]
        for i in range(d):
            for j in range(i, d):
                factor = space.shares[j] + space.change[j] * p
                between[i, j + 1] = between[i, j] * factor
        for s in range(n):
            before = subsets.parent[s]
            i = subsets.last[s]
            if before < 0:
                product[s] = between[0, i] * space.change[i]
            else:
                product[s] = (
                    product[before] * between[subsets.last[before] + 1, i] * space.change[i]
                )
            values[s] += subsets.weights[q, subsets.size[s]] * product[s] * between[i + 1, d]


@njit(**UNCOUNTED)
def _pair_values(d, row, references, mass, subsets: Subsets, space: _LeafSpace, values):
    """The same in the interventional game, over the groups of background rows."""
    n = subsets.n_of[d]
    from_row = space.from_row
    values[:n] = 0.0
    only_reference = d - _size(row)
    for g in range(references.shape[0]):
        reference = references[g]
        if mass[g] == 0.0 or not _every_player_agrees(row, reference, d):
            continue
        only_row = d - _size(reference)
        for s in range(n):
            before = subsets.parent[s]
            bit = space.bits[subsets.last[s]]
            count = 0 if before < 0 else from_row[before]
            if not _has(reference, bit):
                count += count >= 0
            elif _has(row, bit):
                count = -1  # both satisfy this player, who then changes nothing
            from_row[s] = count
            if count < 0:
                continue
            t = subsets.size[s]
            part = mass[g] * subsets.integral[t, only_row - count, only_reference - t + count]
            values[s] += part if (t - count) % 2 == 0 else -part


@njit(cache=True, nogil=True)
def add_subsets(
    rows, nodes: Nodes, paths: PathArrays, codes, background: Background, subsets: Subsets, sums
):
    """Add the interactions of all trees to ``sums`` ``(m * n_outputs, n)`` for ``rows[0]`` to
    ``rows[1]`` of ``codes`` ``(d, n)``; the background has no rows in the path-dependent game."""
    edges = paths.edges
    low = rows[0]
    n = rows[1] - rows[0]
    n_background = background.codes.shape[1]
    widest = subsets.n_of.shape[0] - 1
    levels = 2
    for node in range(edges.shape[0]):
        levels = max(levels, edges[node, LEVEL] + 2)
    words = max(1, (widest + 63) // 64)
    ours = _make_groups(levels, n, words)
    theirs = _make_groups(levels, max(1, n_background), words)
    mass = np.zeros(n_background)
    space = _leaf_space(max(1, widest), subsets.parent.shape[0])
    values = np.zeros((n, subsets.parent.shape[0]))
    for tree in range(paths.tree_nodes.shape[0]):
        start = nodes.tree_start[tree]
        ours.patterns[0, 0] = np.uint64(0)
        theirs.patterns[0, 0] = np.uint64(0)
        for i in range(1, paths.tree_nodes[tree]):
            node = paths.order[start + i]
            _refine(node, ours, nodes, edges, codes, low)
            if n_background > 0:
                _refine(node, theirs, nodes, edges, background.codes, 0)
            if nodes.feature[node] >= 0:
                continue
            level = edges[node, LEVEL]
            d = _sort_players(node, nodes, paths, space)
            if n_background > 0:
                mass[: theirs.n_groups[level]] = 0.0
                for r in range(n_background):
                    mass[theirs.of_row[level, r]] += background.weights[r]
            for g in range(ours.n_groups[level]):
                if n_background == 0:
                    _path_values(d, ours.patterns[level, g], subsets, space, values[g])
                else:
                    count = theirs.n_groups[level]
                    references = theirs.patterns[level, :count]
                    _pair_values(
                        d, ours.patterns[level, g], references, mass, subsets, space, values[g]
                    )
            n_subsets = subsets.n_of[d]
            _subset_keys(d, subsets, space.features, space.target)
            for s in range(n_subsets):
                space.target[s] = np.searchsorted(subsets.keys, space.target[s])
            targets = space.target[:n_subsets]
            _pay_subsets(node, low, nodes.value, ours.of_row[level], targets, values, sums)


@njit(**UNCOUNTED)
def _pay_subsets(leaf, low, value, group_of_row, targets, values, sums):
    """Add what a leaf pays to the subsets of its players, for every row and output."""
    n_outputs = value.shape[1]
    for s in range(targets.shape[0]):
        for output in range(n_outputs):
            pay = value[leaf, output]
            if pay == 0.0:
                continue
            total = sums[targets[s] * n_outputs + output]
            for i in range(group_of_row.shape[0]):
                total[low + i] += pay * values[group_of_row[i], s]
