"""Who plays in a game of trees: features, or groups of features that are known together, and the
families that they keep to.

A path of a tree collects its splits by player. Nothing else in the algorithms asks whose split it
is, so groups are exact and cost nothing. Chapter: trees/path_dependent, "Groups of features".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shaplab._groups import group_labels
from shaplab._tables import displayed
from shaplab.foundations._structure import check_partition, nested_lists, players_as_numbers
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.kernels.families import Hierarchy
from shaplab.trees.kernels.predict import Nodes

__all__ = ["Players", "hierarchy_of", "players_of", "restricted_unions"]


@dataclass(frozen=True)
class Players:
    """The player of each feature ``(n_features,)``, the players' names and number, and nested lists
    of players who stay together, or None."""

    label: np.ndarray
    names: tuple[str, ...] | None
    count: int
    grouped: bool
    unions: list[Any] | None = None

    def nodes(self, trees: TreeEnsemble) -> Nodes:
        """The nodes of an ensemble whose splits know their player."""
        if not self.grouped:
            return trees.nodes
        splits = trees.feature >= 0
        player = np.where(splits, self.label[np.maximum(trees.feature, 0)], -1)
        return trees.nodes._replace(player=player.astype(trees.feature.dtype), n_players=self.count)

    def shown(self, X: Any) -> Any:
        """The rows to keep with a result: a group has no single number to show."""
        return None if self.grouped else displayed(X)


def players_of(
    trees: TreeEnsemble, groups: Any, names: tuple[str, ...] | None, unions: Any = None
) -> Players:
    """The columns of the rows as players, or the ``groups`` of them by number or name, and the
    ``unions`` that they keep to."""
    players = Players(trees.owner, names, trees.n_columns, False)
    if groups is not None:
        label, names = group_labels(groups, trees.n_columns, names)
        players = Players(label[trees.owner], names, len(names), True)
    if unions is None:
        return players
    listed = nested_lists(players_as_numbers(unions, names, "unions"))
    check_partition(listed, players.count, "unions")
    return replace(players, unions=listed)


def hierarchy_of(unions: list[Any], n_players: int) -> Hierarchy:
    """The hierarchy of nested lists of players; a plan adds the rules."""
    parent = [-1]
    of_player = np.zeros(n_players, np.int64)
    level: list[tuple[int, Any]] = [(0, unions)]  # families, their place and their members
    while level:
        below: list[tuple[int, Any]] = []
        for family, members in level:
            for member in members:
                place = len(parent)
                parent.append(family)
                if isinstance(member, list):
                    below.append((place, member))
                else:
                    of_player[member] = place
        level = below
    nothing = np.zeros(0)
    return Hierarchy(np.array(parent), of_player, np.zeros(1, np.int64), nothing, nothing)


def restricted_unions(unions: list[Any], kept: dict[int, int]) -> list[Any]:
    """Nested lists of the kept players only, by their new numbers; empty lists are left out."""
    found: list[Any] = []
    for part in unions:
        if isinstance(part, list):
            inner = restricted_unions(part, kept)
            found += [inner] if inner else []
        elif part in kept:
            found.append(kept[part])
    return found
