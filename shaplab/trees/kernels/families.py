"""Values of a path's players who stay together with their families (Owen, Winter).

A leaf pays the product over its path's players of p (present) or q (absent). Families arrive in a
random order, and the members of a family in a random order at the time of their family. So when a
player arrives, each of its siblings is there with chance t, uniform, and each sibling of its family
with a chance of its own, and so on up. A family that is there pays P, the product of its members'
p, else Q, that of their q. The player's value is therefore p - q, times, for itself and for each
family above it, the integral over t of the product over the siblings of Q (1 - t) + P t.

The hierarchy is numbered from its root, 0, level by level, and brothers stand side by side.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from shaplab.trees.kernels.compiling import UNCOUNTED
from shaplab.trees.kernels.orders import _pay_subsets
from shaplab.trees.kernels.patterns import (
    Background,
    _every_player_agrees,
    _has,
    _make_groups,
    _refine,
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

__all__ = ["Hierarchy", "add_family_values"]


class Hierarchy(NamedTuple):
    """Families of players, and the rules that integrate over them."""

    parent: np.ndarray  # (n,) the family above, -1 for the root
    of_player: np.ndarray  # (n_players,) the place of each player
    rule_start: np.ndarray  # a product of k siblings: rows rule_start[k] to rule_start[k + 1] ...
    times: np.ndarray  # ... of these, (q,)
    weights: np.ndarray  # ... and these, (q,)


class _PathFamilies(NamedTuple):
    """The players of one path and the families above them, root first, brothers side by side."""

    members: np.ndarray  # (n,) places in the hierarchy, rising
    local: np.ndarray  # (size of the hierarchy,) place in ``members``, -1 for others
    above: np.ndarray  # (n,) the family of each, as a place in ``members``
    player: np.ndarray  # (n,) number on the path, -1 for families
    numbers: np.ndarray  # (widest,) the path's players
    shares: np.ndarray  # (widest,) z of these
    present: np.ndarray  # (n,) P
    absent: np.ndarray  # (n,) Q
    integral: np.ndarray  # (n,) over the siblings, then times that of all families above
    ahead: np.ndarray  # (n,) products over the brothers before
    found: np.ndarray  # (1,) n of this path


@njit(cache=True, nogil=True)
def _room(widest, hierarchy: Hierarchy):
    size = hierarchy.parent.shape[0]
    return _PathFamilies(
        np.zeros(size, np.int64),
        np.full(size, -1, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(widest, np.int32),
        np.zeros(widest),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size + 1),
        np.zeros(1, np.int64),
    )


@njit(**UNCOUNTED)
def _find_families(leaf, nodes: Nodes, paths: PathArrays, hierarchy: Hierarchy, path):
    """Collect the players of the path to a leaf, their z, and the families above them."""
    d = paths.edges[leaf, PLAYERS]
    path_players(leaf, nodes, paths.edges, path.numbers)
    path.shares[:d] = np.nan
    above = leaf
    while paths.edges[above, PARENT] >= 0:
        bit = paths.edges[above, BIT]
        if np.isnan(
            path.shares[bit]
        ):  # the lowest edge of a player holds the product of all of them
            path.shares[bit] = paths.shares[above, SHARE]
        above = paths.edges[above, PARENT]
    for i in range(path.found[0]):
        path.local[path.members[i]] = -1
    count = 0
    for bit in range(d):
        place = hierarchy.of_player[path.numbers[bit]]
        while place >= 0 and path.local[place] < 0:
            path.local[place] = 0
            path.members[count] = place
            count += 1
            place = hierarchy.parent[place]
    path.found[0] = count
    members = path.members
    for i in range(1, count):  # by insertion: a path has few
        place = members[i]
        j = i
        while j > 0 and members[j - 1] > place:
            members[j] = members[j - 1]
            j -= 1
        members[j] = place
    for i in range(count):
        path.local[members[i]] = i
        path.player[i] = -1
    for bit in range(d):
        path.player[path.local[hierarchy.of_player[path.numbers[bit]]]] = bit
    for i in range(1, count):
        path.above[i] = path.local[hierarchy.parent[members[i]]]
    return d


@njit(fastmath={"contract"}, **UNCOUNTED)
def _add_pattern(weight, hierarchy: Hierarchy, path: _PathFamilies, values):
    """Add ``weight`` times the values of a leaf of weight 1 to ``values``, by number on the path.

    ``path.present`` and ``path.absent`` hold p and q at the places of the players.
    """
    present = path.present
    absent = path.absent
    above = path.above
    integral = path.integral
    ahead = path.ahead
    count = path.found[0]
    for i in range(count):
        if path.player[i] < 0:
            present[i] = 1.0
            absent[i] = 1.0
    for i in range(count - 1, 0, -1):  # children stand behind their family
        present[above[i]] *= present[i]
        absent[above[i]] *= absent[i]
    integral[0] = weight
    first = 1
    while first < count:
        last = first
        while last < count and above[last] == above[first]:
            last += 1
        for i in range(first, last):
            integral[i] = 0.0
        siblings = last - first - 1
        for q in range(hierarchy.rule_start[siblings], hierarchy.rule_start[siblings + 1]):
            t = hierarchy.times[q]
            ahead[first] = hierarchy.weights[q]
            for i in range(first, last):
                ahead[i + 1] = ahead[i] * (absent[i] + (present[i] - absent[i]) * t)
            behind = 1.0
            for i in range(last - 1, first - 1, -1):
                integral[i] += ahead[i] * behind
                behind *= absent[i] + (present[i] - absent[i]) * t
        for i in range(first, last):
            integral[i] *= integral[above[i]]
        first = last
    for i in range(count):
        if path.player[i] >= 0:
            values[path.player[i]] += integral[i] * (present[i] - absent[i])


@njit(**UNCOUNTED)
def _leaf_family_values(
    row, references, mass, hierarchy: Hierarchy, path: _PathFamilies, d, values
):
    """Values of a leaf's players for one pattern of rows, against the background's patterns or,
    without any, by shares of cover."""
    values[:d] = 0.0
    count = path.found[0]
    if mass.shape[0] == 0:
        for i in range(count):
            bit = path.player[i]
            if bit >= 0:
                path.present[i] = 1.0 if _has(row, bit) else 0.0
                path.absent[i] = path.shares[bit]
        _add_pattern(1.0, hierarchy, path, values)
        return
    for g in range(references.shape[0]):
        reference = references[g]
        # A player that neither satisfies leaves a product of 0.
        if mass[g] == 0.0 or not _every_player_agrees(row, reference, d):
            continue
        for i in range(count):
            bit = path.player[i]
            if bit >= 0:
                path.present[i] = 1.0 if _has(row, bit) else 0.0
                path.absent[i] = 1.0 if _has(reference, bit) else 0.0
        _add_pattern(mass[g], hierarchy, path, values)


@njit(cache=True, nogil=True)
def add_family_values(
    rows, nodes: Nodes, paths: PathArrays, codes, background: Background, hierarchy, sums
):
    """Add the values of all trees to ``sums`` ``(n_players * n_outputs, n)`` for ``rows[0]`` to
    ``rows[1]`` of ``codes`` ``(d, n)``; the background has no rows in the path-dependent game."""
    edges = paths.edges
    low = rows[0]
    n = rows[1] - rows[0]
    n_background = background.codes.shape[1]
    widest = 1
    levels = 2
    for node in range(edges.shape[0]):
        levels = max(levels, edges[node, LEVEL] + 2)
        widest = max(widest, edges[node, PLAYERS])
    words = (widest + 63) // 64
    ours = _make_groups(levels, n, words)
    theirs = _make_groups(levels, max(1, n_background), words)
    mass = np.zeros(n_background)
    path = _room(widest, hierarchy)
    values = np.zeros((n, widest))
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
            d = _find_families(node, nodes, paths, hierarchy, path)
            if n_background > 0:
                mass[: theirs.n_groups[level]] = 0.0
                for r in range(n_background):
                    mass[theirs.of_row[level, r]] += background.weights[r]
            references = theirs.patterns[level, : theirs.n_groups[level]]
            for g in range(ours.n_groups[level]):
                pattern = ours.patterns[level, g]
                _leaf_family_values(pattern, references, mass, hierarchy, path, d, values[g])
            # Single players are the subsets here.
            _pay_subsets(node, low, nodes.value, ours.of_row[level], path.numbers[:d], values, sums)
