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
from itertools import chain, permutations, product
from typing import Any

import numpy as np

from shaplab._validation import check_int, column_names
from shaplab.foundations._structure import (
    PartialOrder,
    Unions,
    check_known,
    check_partition,
    leaves_of,
    nested_lists,
    players_as_numbers,
    requirements_of,
    steps_of,
    sum_of_steps,
)
from shaplab.foundations.exact import Game
from shaplab.foundations.predictions import GaussianGame

__all__ = [
    "CausalGame",
    "asymmetric_values",
    "asymmetric_values_literal",
    "owen_values",
    "owen_values_literal",
]


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
    players = nested_lists(players_as_numbers(unions, names, "unions"))
    n = sum(1 for _ in leaves_of(players))
    check_partition(players, n, "unions")
    check_known(game, n)
    return sum_of_steps(game, steps_of(Unions(players)), batch_size)


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
    listed = players_as_numbers(order, names, "order")
    if n_players is None:
        n_players = getattr(game, "n_players", None)
    n, required = requirements_of(listed, n_players)
    check_known(game, n)
    return sum_of_steps(game, steps_of(PartialOrder(required)), batch_size)


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
        listed = players_as_numbers(components, column_names(X), "components")
        listed = [part if isinstance(part, list) else [part] for part in listed]
        check_partition(listed, self.n_players, "components")
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
