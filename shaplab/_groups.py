"""Groups of players or features, by number or by name, as one label for each.

Chapter: foundations/predictions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from shaplab._validation import fail, shorten

__all__: list[str] = []


def group_labels(
    groups: Sequence[Sequence[Any]] | Mapping[str, Sequence[Any]],
    n_players: int | None,
    names: Sequence[str] | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Resolve groups of players.

    Parameters
    ----------
    groups : list of lists, with each player in exactly one; or dict from a group's name to a list,
        where players in no group stay players of their own, after the groups. Players by number, or
        by name when ``names`` are known.
    n_players : int, or None: as many as are named.
    names : the players' names, or None.

    Returns
    -------
    int array ``(n_players,)``, the group of each player, and the groups' names.
    """
    rule = f"a partition of the {n_players or ''} players into non-empty groups".replace("  ", " ")
    lists = _listed_groups(groups, rule)
    if n_players is None:
        n_players = sum(map(len, lists))
    known = {name: i for i, name in enumerate(names or ())}
    label = np.full(n_players, -1)
    count = np.zeros(n_players, dtype=int)
    for number, group in enumerate(lists):
        for player in group:
            index = _player_number(player, known)
            if not 0 <= index < n_players:
                fail(
                    "groups",
                    rule,
                    f"player {shorten(repr(player))}",
                    "Use the players' numbers or names",
                )
            label[index] = number
            count[index] += 1
    own = [str(name) for name in names] if names else [f"x{i}" for i in range(n_players)]
    alone: list[str] = []
    if isinstance(groups, Mapping):
        for index in np.flatnonzero(count == 0).tolist():
            label[index] = len(lists) + len(alone)
            count[index] = 1
            alone.append(own[index])
    if (count != 1).any():
        worst = int(np.flatnonzero(count != 1)[0])
        shown = names[worst] if names else worst
        fail(
            "groups",
            rule,
            f"player {shorten(repr(shown))} named {count[worst]} times",
            "Name every player exactly once",
        )
    if isinstance(groups, Mapping):
        return label, (*(str(title) for title in groups), *alone)
    members: list[list[str]] = [[] for _ in lists]
    for name, number in zip(own, label, strict=True):
        members[number].append(name)
    return label, tuple(" + ".join(group) for group in members)


def _listed_groups(groups: Any, rule: str) -> list[Any]:
    """Groups as a list of non-empty lists."""
    each = groups.values() if isinstance(groups, Mapping) else groups
    lists: list[Any] = list(each) if isinstance(each, Iterable) else []
    for group in lists or [groups]:
        if isinstance(group, str) or not hasattr(group, "__len__") or len(group) == 0:
            fail(
                "groups",
                rule,
                f"group {shorten(repr(group))}",
                "Give a list of groups, each a list of players",
            )
        if len(group) > 1 and all(isinstance(member, bool | np.bool_) for member in group):
            fail(
                "groups",
                rule,
                f"a mask of {len(group)} truth values",
                "Give the members' numbers: np.flatnonzero(mask)",
            )
    return lists


def _player_number(player: Any, known: Mapping[str, int]) -> int:
    """The number of a player given by number or by name, -1 if it is neither."""
    if isinstance(player, int | np.integer) and not isinstance(player, bool):
        return int(player)
    return known.get(player, -1) if isinstance(player, str) else -1
