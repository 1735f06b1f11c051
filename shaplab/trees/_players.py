"""Who plays in a game of trees: features, or groups of features that are known together.

A path of a tree collects its splits by player. Nothing else in the algorithms asks whose split it
is, so groups are exact and cost nothing. Chapter: trees/path_dependent, "Groups of features".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shaplab._groups import group_labels
from shaplab._tables import displayed
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.kernels.predict import Nodes

__all__ = ["Players", "players_of"]


@dataclass(frozen=True)
class Players:
    """The player of each feature ``(n_features,)``, the players' names and number."""

    label: np.ndarray
    names: tuple[str, ...] | None
    count: int
    grouped: bool

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


def players_of(trees: TreeEnsemble, groups: Any, names: tuple[str, ...] | None) -> Players:
    """The columns of the rows as players, or the ``groups`` of them by number or name."""
    if groups is None:
        return Players(trees.owner, names, trees.n_columns, False)
    label, titles = group_labels(groups, trees.n_columns, names)
    return Players(label[trees.owner], titles, len(titles), True)
