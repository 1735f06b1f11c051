r"""Values for players who come in families, in an order, or in a chain of causes.

The Shapley value is the mean over all orderings of what a player adds. A *structure* leaves only
some of the orderings:

- **unions** (Owen 1977): the members of a union arrive one after the other, with nobody in between.
  Unions may hold unions (Winter 1989).
- **order** (Frye, Rowat and Feige 2020): some players arrive before others. What is left are the
  linear extensions of a partial order, each counted once.

With :math:`w(S, i)` the share of the orderings left in which exactly :math:`S` comes before
:math:`i`, both are

.. math:: \varphi_i = \sum_{S \not\ni i} w(S, i)\,[v(S \cup i) - v(S)],

and only coalitions with :math:`w > 0` are valued, each once.

**Causes** change the game instead (Heskes et al. 2020): an absent feature is drawn as it would be
if somebody had *set* the present ones, :math:`v(S) = \mathbb{E}[f(X) \mid do(X_S = x_S)]`.

Cost: for :math:`m` unions of
:math:`b` players :math:`m\,2^{m-1+b}` coalitions at most; for an order, its down-sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, permutations, product
from math import comb
from typing import Any

import numpy as np

from shaplab._validation import check_int, check_names, column_names, fail, shorten
from shaplab.foundations.exact import Game
from shaplab.foundations.games import evaluate_game
from shaplab.foundations.predictions import GaussianGame

__all__ = [
    "CausalGame",
    "asymmetric_values",
    "asymmetric_values_literal",
    "owen_values",
    "owen_values_literal",
]

# Coalitions that enumeration may hold: a second and some hundred megabytes.
MAX_COALITIONS = 2**18


def owen_values_literal(game: Game, unions: Sequence[Any]) -> np.ndarray:
    """Owen and Winter values by their story: every ordering that keeps each union together."""
    orders = list(_together(unions))
    return _mean_over_orderings(game, orders)


def asymmetric_values_literal(
    game: Game, n_players: int, pairs: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Asymmetric values by their story: every ordering that respects all pairs (before, after)."""
    orders = [
        order
        for order in permutations(range(n_players))
        if all(order.index(before) < order.index(after) for before, after in pairs)
    ]
    return _mean_over_orderings(game, orders)


def _together(unions: Any) -> Iterator[tuple[int, ...]]:
    """All orderings of nested lists of players in which no list is torn apart."""
    if not isinstance(unions, list | tuple):
        yield (unions,)
        return
    for order in permutations(unions):
        for parts in product(*(list(_together(part)) for part in order)):
            yield tuple(chain.from_iterable(parts))


def _mean_over_orderings(game: Game, orders: Sequence[tuple[int, ...]]) -> np.ndarray:
    total = [0.0] * len(orders[0])
    for order in orders:
        present = np.zeros((1, len(order)), dtype=bool)
        before = game(present)[0]
        for player in order:
            present[0, player] = True
            after = game(present)[0]
            total[player] = total[player] + (after - before)
            before = after
    return np.array(total) / len(orders)


def owen_values(
    game: Game, unions: Sequence[Any], *, names: Any = None, batch_size: int = 4096
) -> np.ndarray:
    """Exact Owen values: Shapley values of players who stay together with their union.

    Parameters
    ----------
    game : callable, bool array ``(m, n)`` to ``(m, *payoff)``.
    unions : list of lists of players; every player stands in one of them. A list may hold lists:
        then these are Winter's values, of families within families. A player that stands for itself
        may be written without a list.
    names : names of the players, if ``unions`` names them.
    batch_size : coalitions valued in one call; bounds memory.

    Returns
    -------
    float64 array ``(n, *payoff)``, in the payoff's unit. A union's values sum to its Shapley value
    in the game between the unions.

    Raises
    ------
    ValueError
        For unions that overlap or miss a player, and for more coalitions than can be enumerated.

    References
    ----------
    Owen, "Values of Games with a Priori Unions" (1977); Winter, "A Value for Cooperative Games with
    Levels Structure of Cooperation" (1989).

    Examples
    --------
    >>> everybody = lambda S: S.all(axis=1) * 6.0
    >>> owen_values(everybody, [[0, 1], [2]])
    array([1.5, 1.5, 3. ])
    """
    players = _players_as_numbers(unions, names, "unions")
    n = sum(1 for _ in _leaves(players))
    _check_partition(players, n, "unions")
    _check_known(game, n)
    joining = []
    before = []
    weights = []
    for player, coalitions, shares in _contexts(players, n):
        joining.append(np.full(len(shares), player))
        before.append(coalitions)
        weights.append(shares)
    return _sum_of_steps(
        game, np.concatenate(joining), np.concatenate(before), np.concatenate(weights), batch_size
    )


def asymmetric_values(
    game: Game,
    order: Sequence[Any],
    n_players: int | None = None,
    *,
    names: Any = None,
    batch_size: int = 4096,
) -> np.ndarray:
    """Exact asymmetric Shapley values: some players arrive before others.

    Parameters
    ----------
    game : callable, bool array ``(m, n)`` to ``(m, *payoff)``.
    order : list of levels (lists of players), every player of an earlier level before all of a
        later one; or list of pairs (tuples) ``(before, after)``.
    n_players : number of players; needed for pairs when the game does not know it.
    names : names of the players, if ``order`` names them.
    batch_size : coalitions valued in one call; bounds memory.

    Returns
    -------
    float64 array ``(n, *payoff)``, in the payoff's unit. Values sum over players to
    ``v(everybody) - v(nobody)``. Symmetric players may get different values: that axiom is given
    up.

    Raises
    ------
    ValueError
        For an order that goes in a circle, for levels that overlap or miss a player, and for more
        coalitions than can be enumerated.

    Notes
    -----
    All orderings that respect the order count alike. How many there are is counted over the
    down-sets of the order, those coalitions that hold with each player all that must come before.

    References
    ----------
    Frye, Rowat and Feige, "Asymmetric Shapley values" (2020).

    Examples
    --------
    >>> first = lambda S: S.any(axis=1) * 1.0
    >>> asymmetric_values(first, [[0], [1, 2]])
    array([1., 0., 0.])
    """
    listed = _players_as_numbers(order, names, "order")
    if n_players is None:
        n_players = getattr(game, "n_players", None)
    n, required = _requirements_of(listed, n_players)
    _check_known(game, n)
    down_sets = _down_sets(n, required)
    joining, before, weights = _steps_between(down_sets, n, required)
    return _sum_of_steps(game, joining, before, weights, batch_size)


class CausalGame(GaussianGame):
    """The mean prediction when the known features are set, in a Gaussian chain graph.

    Components of features follow each other in causal order. Setting a feature changes what comes
    after it and nothing before: the absent features of each component are drawn, in order, given
    all earlier components as they are then.

    Parameters
    ----------
    model, X, background, n_samples, rng, batch_size : as in :class:`GaussianGame`.
    components : list of lists of features (numbers, or names of the columns), in causal order;
        every feature stands in one.
    confounded : components, by position in the list, whose members depend on each other through a
        hidden common cause: setting one of them tells nothing about the others. In the other
        components members act on each other, so setting one changes the others.

    Notes
    -----
    The do-calculus of a chain graph: with :math:`\\tau` a component and :math:`S` what is set,

    .. math:: P(X_{\\bar S} \\mid do(x_S)) = \\prod_\\tau P(X_{\\tau \\cap \\bar S} \\mid
              X_{\\text{earlier}}, x_{\\tau \\cap S}),

    where :math:`x_{\\tau \\cap S}` is left out of the condition for confounded components. One
    component that is not confounded gives :class:`GaussianGame`; one that is, marginal removal
    under the Gaussian. The graph is yours: data cannot check it.

    References
    ----------
    Heskes, Sijben, Bucur and Claassen, "Causal Shapley Values" (2020).
    """

    def __init__(
        self,
        model: Any,
        X: Any,
        background: Any,
        components: Sequence[Any],
        *,
        confounded: Sequence[int] = (),
        n_samples: int = 200,
        rng: Any = None,
        batch_size: int = 65536,
    ) -> None:
        super().__init__(model, X, background, n_samples=n_samples, rng=rng, batch_size=batch_size)
        listed = _players_as_numbers(components, column_names(X), "components")
        listed = [part if isinstance(part, list) else [part] for part in listed]
        _check_partition(listed, self.n_players, "components")
        features = np.arange(self.n_players)
        self.components = [np.isin(features, part) for part in listed]
        last = len(self.components) - 1
        self.confounded = {check_int(c, "confounded", minimum=0, maximum=last) for c in confounded}

    def _fill(self, present: np.ndarray, X: np.ndarray) -> np.ndarray:
        filled = np.repeat(X[:, None], len(self.draws), axis=1)
        earlier = np.zeros(self.n_players, dtype=bool)
        for position, component in enumerate(self.components):
            known = earlier.copy()
            if position not in self.confounded:
                known |= component & present
            wanted = component & ~present
            if wanted.any():
                noise = self.draws[:, wanted]
                filled[:, :, wanted] = self._draw(filled, known, wanted, noise)
            earlier |= component
        return filled


def _sum_of_steps(
    game: Game, joining: np.ndarray, before: np.ndarray, weights: np.ndarray, batch_size: int
) -> np.ndarray:
    """Sum over steps of weight times what a player adds to those before; each coalition is valued
    once."""
    batch = check_int(batch_size, "batch_size")
    after = before.copy()
    after[np.arange(len(joining)), joining] = True
    coalitions, place = np.unique(np.concatenate([before, after]), axis=0, return_inverse=True)
    values = np.concatenate(
        [
            evaluate_game(game, coalitions[start : start + batch])
            for start in range(0, len(coalitions), batch)
        ]
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
        members = np.stack([np.isin(np.arange(n), list(_leaves(part))) for part in siblings])
        count = len(siblings)
        for position, part in enumerate(siblings):
            if len(outside) << (count - 1) > MAX_COALITIONS:
                fail(
                    "unions",
                    f"at most {MAX_COALITIONS:,} coalitions before a player",
                    f"{len(outside) << (count - 1):,}",
                    "Make more and smaller unions, or nest them",
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


def _leaves(part: Any) -> Iterator[int]:
    """Players of nested lists."""
    if isinstance(part, list):
        for inner in part:
            yield from _leaves(inner)
    else:
        yield part


def _check_partition(unions: Any, n: int, argument: str) -> None:
    players = sorted(_leaves(unions))
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


def _requirements_of(listed: list[Any], n_players: int | None) -> tuple[int, list[int]]:
    """Number of players, and for each the set of those that must come before it, as bits."""
    pairs = [part for part in listed if isinstance(part, tuple)]
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
        n = len(list(_leaves(levels)))
        _check_partition(levels, n, "order")
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
    return n, required


def _down_sets(n: int, required: list[int]) -> dict[int, list[tuple[int, int]]]:
    """Every coalition, as bits, that holds with a player all that must come before; with the steps
    (player, next coalition) that lead on. By size."""
    everybody = (1 << n) - 1
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
                    "State more of the order, or join players in a GroupedGame",
                )
        layer = following
    if everybody not in steps:
        stuck = max(steps, key=int.bit_count)
        circle = [player for player in range(n) if not stuck >> player & 1]
        fail("order", "an order without a circle", f"one among {circle}", "Leave one pair out")
    return steps


def _steps_between(
    down_sets: dict[int, list[tuple[int, int]]], n: int, required: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Players that join, the coalitions before them, and the share of orderings with that step:
    orderings that lead there, times those that lead on, over all. Integers, so exact."""
    reached = dict.fromkeys(down_sets, 0)
    reached[0] = 1
    for coalition, steps in down_sets.items():
        for _, after in steps:
            reached[after] += reached[coalition]
    onward = dict.fromkeys(down_sets, 0)
    onward[(1 << n) - 1] = 1
    for coalition in reversed(down_sets):
        for _, after in down_sets[coalition]:
            onward[coalition] += onward[after]
    joining = []
    before = []
    weights = []
    for coalition, steps in down_sets.items():
        for player, after in steps:
            joining.append(player)
            before.append(coalition)
            weights.append(reached[coalition] * onward[after] / onward[0])
    bits = np.array([[coalition >> player & 1 for player in range(n)] for coalition in before])
    return np.array(joining), bits.astype(bool), np.array(weights)


# What users pass


def _players_as_numbers(listed: Any, names: Any, argument: str) -> list[Any]:
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


def _check_known(game: Any, n: int) -> None:
    known = getattr(game, "n_players", n)
    if known != n:
        fail("game", f"a game of the {n} players that are named", f"{known} players", "Name all")
