"""Leaves that pay a sum over features: what they add to an output, and to Shapley values.

``shaplab.trees._linear`` derives the values. Chapter: trees/interventional.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from shaplab.trees.kernels.compiling import ENTRY
from shaplab.trees.kernels.predict import Nodes, goes_left

__all__ = ["LeafPlayers", "LeafRows", "LinearLeaves", "add_linear_outputs", "add_linear_values"]


class LinearLeaves(NamedTuple):
    """What leaves pay on top of their value, if none of their features is missing: ``shift`` and
    slopes times features."""

    start: np.ndarray  # (n_nodes + 1,) where a leaf's slopes begin
    feature: np.ndarray  # of each slope
    slope: np.ndarray
    shift: np.ndarray  # (n_nodes,) the constant of the sum less the leaf's value
    output: np.ndarray  # (n_nodes,) the output that a leaf pays


class LeafRows(NamedTuple):
    """Rows as codes, for splits, and as numbers, for slopes; and what they answer at one leaf."""

    codes: np.ndarray  # (n, n_features)
    numbers: np.ndarray  # (n, n_features)
    passes: np.ndarray  # (n, players) whether a row passes all that a player decides
    pay: np.ndarray  # (n, players) slopes times the player's features


class LeafPlayers(NamedTuple):
    """Who decides at a leaf."""

    parent: np.ndarray  # (n_nodes,) -1 at roots
    label: np.ndarray  # (n_features,) the player of each feature
    factor: np.ndarray  # factor[a, b] = a! b! / (a + b + 1)!
    place: np.ndarray  # (n_players,) of each player among those of the leaf, -1 for others
    listed: np.ndarray  # those of the leaf


@njit(**ENTRY)
def add_linear_outputs(leaves, numbers, linear: LinearLeaves, out):
    """Add what the leaves ``(n, T)`` of rows pay on top of their value to ``out`` ``(n, K)``."""
    for i in range(leaves.shape[0]):
        for tree in range(leaves.shape[1]):
            leaf = leaves[i, tree]
            total = linear.shift[leaf]
            known = True
            for place in range(linear.start[leaf], linear.start[leaf + 1]):
                number = numbers[i, linear.feature[place]]
                known &= not np.isnan(number)
                total += linear.slope[place] * number
            if known:
                out[i, linear.output[leaf]] += total


@njit(inline="always")
def _list_players(leaf, nodes: Nodes, linear: LinearLeaves, players: LeafPlayers):
    """List the players of a leaf's path and slopes; returns how many there are."""
    place = players.place
    count = 0
    node = leaf
    while players.parent[node] >= 0:
        node = players.parent[node]
        player = nodes.player[node]
        if place[player] < 0:
            place[player] = count
            players.listed[count] = player
            count += 1
    for slope in range(linear.start[leaf], linear.start[leaf + 1]):
        player = players.label[linear.feature[slope]]
        if place[player] < 0:
            place[player] = count
            players.listed[count] = player
            count += 1
    return count


@njit(inline="always")
def _answer_leaf(leaf, nodes: Nodes, linear: LinearLeaves, players: LeafPlayers, rows: LeafRows):
    """Fill the answers of all rows at one leaf, whose players are listed."""
    passes = rows.passes
    pay = rows.pay
    parent = players.parent
    for i in range(rows.codes.shape[0]):
        for k in range(passes.shape[1]):
            passes[i, k] = True
            pay[i, k] = 0.0
    node = leaf
    while parent[node] >= 0:
        split = parent[node]
        k = players.place[nodes.player[split]]
        is_left = nodes.left[split] == node
        for i in range(rows.codes.shape[0]):
            left = goes_left(nodes, split, rows.codes[i, nodes.feature[split]])
            if left != is_left:
                passes[i, k] = False
        node = split
    for slope in range(linear.start[leaf], linear.start[leaf + 1]):
        feature = linear.feature[slope]
        k = players.place[players.label[feature]]
        for i in range(rows.codes.shape[0]):
            number = rows.numbers[i, feature]
            if np.isnan(number):
                passes[i, k] = False
            else:
                pay[i, k] += linear.slope[slope] * number


@njit(**ENTRY)
def add_linear_values(
    leaves,
    nodes: Nodes,
    linear: LinearLeaves,
    players: LeafPlayers,
    ours: LeafRows,
    theirs: LeafRows,
    weights,
    values,
):
    """Add the Shapley values of what ``leaves`` pay on top of their value, over background rows
    ``theirs`` of these weights, to ``values`` ``(n, n_players, K)``."""
    factor = players.factor
    for leaf in leaves:
        count = _list_players(leaf, nodes, linear, players)
        _answer_leaf(leaf, nodes, linear, players, ours)
        _answer_leaf(leaf, nodes, linear, players, theirs)
        output = linear.output[leaf]
        for i in range(ours.codes.shape[0]):
            for r in range(theirs.codes.shape[0]):
                needed = 0  # players that only the row passes
                unwanted = 0  # players that only the reference passes
                fixed = linear.shift[leaf]
                free = 0.0
                is_reached = True
                for k in range(count):
                    if ours.passes[i, k] and theirs.passes[r, k]:
                        fixed += theirs.pay[r, k]
                        free += ours.pay[i, k] - theirs.pay[r, k]
                    elif ours.passes[i, k]:
                        needed += 1
                        fixed += ours.pay[i, k]
                    elif theirs.passes[r, k]:
                        unwanted += 1
                        fixed += theirs.pay[r, k]
                    else:
                        is_reached = False
                        break
                if not is_reached:
                    continue
                joining = 0.0
                if needed > 0:
                    joining = fixed * factor[needed - 1, unwanted] + free * factor[needed, unwanted]
                leaving = 0.0
                if unwanted > 0:
                    leaving = -fixed * factor[needed, unwanted - 1]
                    leaving -= free * factor[needed + 1, unwanted - 1]
                for k in range(count):
                    value = leaving
                    if ours.passes[i, k]:
                        value = joining
                        if theirs.passes[r, k]:
                            value = (ours.pay[i, k] - theirs.pay[r, k]) * factor[needed, unwanted]
                    values[i, players.listed[k], output] += weights[r] * value
        for k in range(count):
            players.place[players.listed[k]] = -1
