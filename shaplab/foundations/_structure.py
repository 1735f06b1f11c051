r"""Structures on players: unions that stay together, orders that are respected.

A structure leaves some of the orderings of the players. It says which steps they take, with the
share of the orderings that take each (exact, for few players), and turns uniform numbers into
orderings, each of those left equally likely.

**Opposite orderings.** Numbers :math:`u` and :math:`1 - u` are equally likely, so the orderings
made of them are, too. Without a structure the ordering of :math:`1 - u` is the reverse of that of
:math:`u`.

- Unions: every level of the lists is reversed, so the whole is reversed, which tears no union
  apart.
- Orders: the reverse of an ordering puts *after* before *before* and is not left. Players of one
  level are reversed among themselves, levels stay where they are.

In both, two players are met once in each order if both orders are possible, so that the mean of
the two orderings is exact for games with interactions of at most two players. Orders that are
neither in levels nor without relation keep the equal chances, but not this.

Cost: for :math:`m` unions of :math:`b` players :math:`m\,2^{m-1+b}` coalitions at most; for an
order, its down-sets. An ordering costs a sort.

Chapter: foundations/structures
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from math import comb
from typing import Any, NamedTuple

import numpy as np

from shaplab._parallel import chunks, counted, progress_bar
from shaplab._validation import check_int, check_names, fail, shorten
from shaplab.foundations.exact import Game
from shaplab.foundations.games import evaluate_game

__all__: list[str] = []

# Coalitions that enumeration may hold: a second and some hundred megabytes.
MAX_COALITIONS = 2**18
# What helps where there are more.
DRAW_INSTEAD = "draw orderings: permutation_shap for a model, sampled_values for a game"


class Steps(NamedTuple):
    """Players that join ``(s,)``, those before them ``(s, n)``, and shares of the orderings."""

    joining: np.ndarray
    before: np.ndarray
    shares: np.ndarray


def read_structure(
    n_players: int, names: Any, unions: Any = None, order: Any = None
) -> Unions | PartialOrder | None:
    """The structure that a caller states for so many players; None for none."""
    if unions is not None and order is not None:
        fail("unions", "unions or order, not both", "both", "Leave one of them out")
    if unions is not None:
        listed = nested_lists(players_as_numbers(unions, names, "unions"))
        check_partition(listed, n_players, "unions")
        return Unions(listed)
    if order is not None:
        listed = players_as_numbers(order, names, "order")
        return PartialOrder(requirements_of(listed, n_players)[1])
    return None


class Unions:
    """Nested lists of players, none of which is torn apart."""

    name = "unions"

    def __init__(self, listed: list[Any]) -> None:
        self.listed = listed
        # A flat list is no structure: all orderings are left.
        self.listed_all = not any(isinstance(part, list) for part in listed)
        self.n_players = sum(1 for _ in leaves_of(listed))
        # For each level the number of the list or player, among all, that holds a player there.
        levels: list[np.ndarray] = []
        self.n_keys = 0
        siblings = listed
        while siblings:
            level = np.full(self.n_players, -1)
            inner = []
            for part in siblings:
                level[list(leaves_of(part))] = self.n_keys
                self.n_keys += 1
                inner.extend(part if isinstance(part, list) else [])
            levels.append(level)
            siblings = inner
        self.levels = np.array(levels)

    def orders(self, uniform: np.ndarray) -> np.ndarray:
        """Orderings ``(w, n)``, players as they arrive, of numbers ``(w, n_keys)`` in (0, 1)."""
        # Players without a place in a level stand in it alone: their last number is 0 for all.
        keys = np.concatenate([uniform, np.zeros((len(uniform), 1))], axis=1)
        by_level = np.moveaxis(keys[:, self.levels], 1, 0)
        # The last key counts first.
        return np.asarray(np.lexsort(by_level[::-1], axis=-1))

    def __repr__(self) -> str:
        return f"Unions({self.listed})"


class PartialOrder:
    """Orderings in which every player comes after those it requires: linear extensions.

    The order is taken apart into parts that follow each other and parts without relation, down to
    single players; uniform orderings of the parts make uniform orderings of the whole. What cannot
    be taken apart is drawn step by step, as its down-sets count.
    """

    name = "order"
    listed_all = False

    def __init__(self, required: list[int]) -> None:
        self.required = required
        self.n_players = len(required)
        self._taken = 0

    @cached_property
    def whole(self) -> Any:
        """The order as its parts, for drawing; enumeration needs none of them."""
        return self._taken_apart((1 << self.n_players) - 1, _related(self.required))

    @property
    def n_keys(self) -> int:
        """Numbers that one ordering takes."""
        return int(self.whole.n_keys)

    def _taken_apart(self, players: int, related: list[int]) -> Any:
        """Parts of players, all as bits: a number, or a function of uniform numbers."""
        members = _members_of(players)
        if len(members) == 1:
            return _Alone(members[0])
        alone = _connected(players, related)
        if len(alone) > 1:
            parts = [self._taken_apart(part, related) for part in alone]
            return _Shuffled(parts, self._take_keys(len(members)))
        strangers = [players & ~mask for mask in related]
        following = _connected(players, strangers)
        if len(following) > 1:
            # A part comes after all that its players require.
            following.sort(key=lambda part: self._requirements(part, players).bit_count())
            return _InTurn([self._taken_apart(part, related) for part in following])
        return _Drawn(members, self.required, self._take_keys(len(members)))

    def _requirements(self, part: int, players: int) -> int:
        first = _members_of(part)[0]
        return self.required[first] & players & ~part

    def _take_keys(self, count: int) -> slice:
        self._taken += count
        return slice(self._taken - count, self._taken)

    def orders(self, uniform: np.ndarray) -> np.ndarray:
        """Orderings ``(w, n)``, players as they arrive, of numbers ``(w, n_keys)`` in (0, 1)."""
        return np.asarray(self.whole.orders(uniform))

    def __repr__(self) -> str:
        return f"PartialOrder({self.required})"


class _Alone:
    """A single player."""

    size = 1
    n_keys = 0

    def __init__(self, player: int) -> None:
        self.player = player

    def orders(self, uniform: np.ndarray) -> np.ndarray:
        return np.full((len(uniform), 1), self.player)


class _InTurn:
    """Parts that follow each other."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)
        self.n_keys = sum(part.n_keys for part in parts)

    def orders(self, uniform: np.ndarray) -> np.ndarray:
        return np.concatenate([part.orders(uniform) for part in self.parts], axis=1)


class _Shuffled:
    """Parts without relation: shuffled like packs of cards, each of which keeps its order."""

    def __init__(self, parts: list[Any], keys: slice) -> None:
        self.parts = parts
        self.keys = keys
        sizes = [part.size for part in parts]
        self.size = sum(sizes)
        self.n_keys = self.size + sum(part.n_keys for part in parts)
        self.part_of_card = np.repeat(np.arange(len(parts)), sizes)

    def orders(self, uniform: np.ndarray) -> np.ndarray:
        turn = self.part_of_card[uniform[:, self.keys].argsort(axis=1)]
        # Stable, so that the places of a part are found from left to right.
        places = turn.argsort(axis=1, kind="stable")
        cards = np.concatenate([part.orders(uniform) for part in self.parts], axis=1)
        found = np.empty_like(cards)
        np.put_along_axis(found, places, cards, axis=1)
        return found


class _Drawn:
    """Players drawn one after the other, each next one with the share of the orderings that have it
    there."""

    def __init__(self, members: list[int], required: list[int], keys: slice) -> None:
        self.members = np.array(members)
        self.keys = keys
        self.size = len(members)
        self.n_keys = self.size
        own = [_restricted(required[player], members) for player in members]
        remedy = "State more of the order, as levels for instance, or join players in groups"
        down_sets = _down_sets(self.size, own, remedy)
        onward = _onward(down_sets, self.size)
        number = {coalition: place for place, coalition in enumerate(down_sets)}
        widest = max(map(len, down_sets.values()))
        shape = (len(down_sets), widest)
        self.player = np.zeros(shape, dtype=np.int64)
        self.following = np.zeros(shape, dtype=np.int64)
        # Beyond any number that is drawn where there is no such choice.
        self.up_to = np.full(shape, 2.0)
        for coalition, steps in down_sets.items():
            passed = 0
            for choice, (player, after) in enumerate(steps):
                passed += onward[after]
                cell = (number[coalition], choice)
                self.player[cell] = player
                self.following[cell] = number[after]
                if choice < len(steps) - 1:
                    self.up_to[cell] = passed / onward[coalition]

    def orders(self, uniform: np.ndarray) -> np.ndarray:
        drawn = uniform[:, self.keys]
        at = np.zeros(len(drawn), dtype=np.int64)
        found = np.empty(drawn.shape, dtype=np.int64)
        for step in range(self.size):
            choice = (drawn[:, step, None] >= self.up_to[at]).sum(axis=1)
            found[:, step] = self.player[at, choice]
            at = self.following[at, choice]
        return self.members[found]


def _members_of(mask: int) -> list[int]:
    return [place for place in range(mask.bit_length()) if mask >> place & 1]


def _restricted(mask: int, members: list[int]) -> int:
    """The same set, members counted among themselves."""
    return sum(1 << place for place, member in enumerate(members) if mask >> member & 1)


def _related(required: list[int]) -> list[int]:
    """For each player those that must come before or after it, as bits."""
    related = list(required)
    for player, mask in enumerate(required):
        for before in _members_of(mask):
            related[before] |= 1 << player
    return related


def _connected(players: int, neighbours: list[int]) -> list[int]:
    """Connected parts of players, all as bits."""
    parts = []
    left = players
    while left:
        part = 0
        fresh = left & -left
        while fresh:
            part |= fresh
            reached = 0
            for player in _members_of(fresh):
                reached |= neighbours[player]
            fresh = reached & left & ~part
        parts.append(part)
        left &= ~part
    return parts


def both_ways(structure: Unions | PartialOrder, uniform: np.ndarray) -> np.ndarray:
    """Orderings ``(2, w, n)`` of uniform numbers ``(w, n_keys)``, and the opposite ones."""
    # A number of exactly zero has no opposite below one; no number drawn is that close.
    return np.stack([structure.orders(uniform), structure.orders(1.0 - uniform)])


def steps_of(structure: Unions | PartialOrder) -> Steps:
    """All steps that the orderings left take."""
    if isinstance(structure, PartialOrder):
        down_sets = _down_sets(structure.n_players, structure.required)
        return _steps_between(down_sets, structure.n_players)
    joining = []
    before = []
    shares = []
    for player, coalitions, share in _contexts(structure.listed, structure.n_players):
        joining.append(np.full(len(share), player))
        before.append(coalitions)
        shares.append(share)
    return Steps(np.concatenate(joining), np.concatenate(before), np.concatenate(shares))


def sum_of_steps(game: Game, steps: Steps, batch_size: int, progress: bool = False) -> np.ndarray:
    """Sum over steps of weight times what a player adds to those before; each coalition is valued
    once."""
    batch = check_int(batch_size, "batch_size")
    joining, before, weights = steps
    after = before.copy()
    after[np.arange(len(joining)), joining] = True
    coalitions, place = np.unique(np.concatenate([before, after]), axis=0, return_inverse=True)
    with progress_bar(len(coalitions), progress, "coalitions") as bar:
        told = counted(game, bar)
        values = np.concatenate(
            [evaluate_game(told, coalitions[part]) for part in chunks(len(coalitions), batch)]
        )
    place_before, place_after = np.split(place.ravel(), 2)
    added = values[place_after] - values[place_before]
    total = np.zeros((before.shape[1], *values.shape[1:]))
    np.add.at(total, joining, weights.reshape(-1, *[1] * (values.ndim - 1)) * added)
    return total


# Unions


def _contexts(unions: Sequence[Any], n: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For every player the coalitions that may stand before it, and their shares of the orderings.

    Going down the nested lists, each level adds a subset of the siblings, whole, with the Shapley
    weight of its size.
    """
    nobody = np.zeros((1, n), dtype=bool)
    todo = [(list(unions), nobody, np.ones(1))]
    while todo:
        siblings, outside, shares = todo.pop()
        members = np.stack([np.isin(np.arange(n), list(leaves_of(part))) for part in siblings])
        count = len(siblings)
        for position, part in enumerate(siblings):
            if len(outside) << (count - 1) > MAX_COALITIONS:
                fail(
                    "unions",
                    f"at most {MAX_COALITIONS:,} coalitions before a player",
                    f"{len(outside) << (count - 1):,}",
                    f"Make more and smaller unions, nest them, or {DRAW_INSTEAD}",
                )
            others = np.delete(members, position, axis=0)
            chosen = (np.arange(2 ** (count - 1))[:, None] >> np.arange(count - 1)) & 1
            sizes = chosen.sum(axis=1)
            weight = np.array([1.0 / (count * comb(count - 1, size)) for size in sizes])
            joined = chosen @ others.astype(np.int64) > 0
            before = (outside[:, None] | joined[None]).reshape(-1, n)
            share = (shares[:, None] * weight).ravel()
            if isinstance(part, list):
                todo.append((part, before, share))
            else:
                yield part, before, share


def nested_lists(part: Any) -> Any:
    """Unions may be written as tuples, too."""
    if isinstance(part, list | tuple):
        return [nested_lists(inner) for inner in part]
    return part


def leaves_of(part: Any) -> Iterator[int]:
    """Players of nested lists."""
    if isinstance(part, list):
        for inner in part:
            yield from leaves_of(inner)
    else:
        yield part


def check_partition(unions: Any, n: int, argument: str) -> None:
    """Require nested lists that name each of ``n`` players once."""
    players = sorted(leaves_of(unions))
    if players != list(range(n)):
        twice = [player for player in set(players) if players.count(player) > 1]
        missed = sorted(set(range(max([n - 1, *players]) + 1)) - set(players))
        strange = [player for player in players if player >= n]
        if twice:
            got = f"player {twice[0]} twice"
        elif missed:
            got = f"no player {missed[0]}"
        else:
            got = f"player {strange[0]}"
        fail(argument, f"each of {n} players once", got, "Name each player in one list")


# Orders


def requirements_of(listed: list[Any], n_players: int | None) -> tuple[int, list[int]]:
    """Number of players, and for each the set of those that must come before it, as bits."""
    pairs = [part for part in listed if isinstance(part, tuple)]
    if 0 < len(pairs) < len(listed):
        rule = "levels, which are lists, or pairs, which are tuples"
        fail("order", rule, f"both: {shorten(listed)}", "Write [[0, 1], [2]] or [(0, 2), (1, 2)]")
    if pairs and len(pairs) == len(listed):
        if n_players is None:
            fail(
                "n_players",
                "the number of players beside pairs",
                "None",
                "Pass n_players, or a list of levels that names every player",
            )
        n = check_int(n_players, "n_players")
        for pair in pairs:
            if len(pair) != 2 or not set(pair) <= set(range(n)):
                fail("order", f"pairs of players 0 to {n - 1}", repr(pair), "Name two players")
    else:
        levels = [part if isinstance(part, list) else [part] for part in listed]
        n = len(list(leaves_of(levels)))
        check_partition(levels, n, "order")
        pairs = [
            (before, after)
            for earlier, later in pairwise(levels)
            for before in earlier
            for after in later
        ]
        if n_players is not None and n != n_players:
            fail("order", f"all {n_players} players", f"{n}", "Name each player in one level")
    required = [0] * n
    for before, after in pairs:
        required[after] |= 1 << before
    return n, _closed(required)


def _closed(required: list[int]) -> list[int]:
    """With those that must come before a player, those that must come before them."""
    closed = list(required)
    left = (1 << len(required)) - 1
    while left:
        free = [player for player in _members_of(left) if required[player] & left == 0]
        if not free:
            circle = _members_of(left)
            fail("order", "an order without a circle", f"one among {circle}", "Leave one pair out")
        for player in free:
            for before in _members_of(required[player]):
                closed[player] |= closed[before]
            left &= ~(1 << player)
    return closed


def _down_sets(
    n: int, required: list[int], remedy: str = f"State more of the order, or {DRAW_INSTEAD}"
) -> dict[int, list[tuple[int, int]]]:
    """Every coalition, as bits, that holds with a player all that must come before; with the steps
    (player, next coalition) that lead on. By size."""
    steps: dict[int, list[tuple[int, int]]] = {}
    layer = {0}
    while layer:
        following = set()
        for coalition in layer:
            steps[coalition] = [
                (player, coalition | 1 << player)
                for player in range(n)
                if not coalition >> player & 1 and required[player] & ~coalition == 0
            ]
            following |= {after for _, after in steps[coalition]}
            if len(steps) + len(following) > MAX_COALITIONS:
                fail(
                    "order",
                    f"at most {MAX_COALITIONS:,} coalitions that respect it",
                    "more",
                    remedy,
                )
        layer = following
    return steps


def _onward(down_sets: dict[int, list[tuple[int, int]]], n: int) -> dict[int, int]:
    """How many orderings lead on from each down-set to everybody. Integers, so exact."""
    onward = dict.fromkeys(down_sets, 0)
    onward[(1 << n) - 1] = 1
    for coalition in reversed(down_sets):
        for _, after in down_sets[coalition]:
            onward[coalition] += onward[after]
    return onward


def _steps_between(down_sets: dict[int, list[tuple[int, int]]], n: int) -> Steps:
    """Players that join, the coalitions before them, and the share of orderings with that step:
    orderings that lead there, times those that lead on, over all. Integers, so exact."""
    reached = dict.fromkeys(down_sets, 0)
    reached[0] = 1
    for coalition, steps in down_sets.items():
        for _, after in steps:
            reached[after] += reached[coalition]
    onward = _onward(down_sets, n)
    joining = []
    before = []
    weights = []
    for coalition, steps in down_sets.items():
        for player, after in steps:
            joining.append(player)
            before.append(coalition)
            weights.append(reached[coalition] * onward[after] / onward[0])
    bits = np.array([[coalition >> player & 1 for player in range(n)] for coalition in before])
    return Steps(np.array(joining), bits.astype(bool), np.array(weights))


# What users pass


def players_as_numbers(listed: Any, names: Any, argument: str) -> list[Any]:
    """Nested lists with players as numbers; tuples stay tuples."""
    if not isinstance(listed, list | tuple) or len(listed) == 0:
        fail(argument, "a list of lists of players", listed, "Write [[0, 1], [2]]", TypeError)
    known: dict[str, int] = {}
    if names is not None:
        checked = check_names(names, len(list(names)), "names") or ()
        known = {name: number for number, name in enumerate(checked)}

    def number(part: Any) -> Any:
        if isinstance(part, list | tuple):
            return type(part)(number(inner) for inner in part)
        if isinstance(part, str):
            if part not in known:
                what = f"names among {shorten(', '.join(known))}" if known else "numbers of players"
                fail(argument, what, repr(shorten(part)), "Pass names=, or check the spelling")
            return known[part]
        return check_int(part, argument, minimum=0)

    return [number(part) for part in listed]


def check_known(game: Any, n: int) -> None:
    """Require as many players as a game that knows its number has."""
    known = getattr(game, "n_players", n)
    if known != n:
        fail("game", f"a game of the {n} players that are named", f"{known} players", "Name all")
