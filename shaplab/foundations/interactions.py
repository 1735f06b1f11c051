r"""Shapley interaction values of any game.

The interaction of players :math:`i \neq j` is the Shapley-weighted mean of what they add together
beyond what each adds alone, half of it in each of the cells :math:`(i, j)` and :math:`(j, i)`:

.. math:: \Phi_{ij} = \sum_{S \not\ni i,j} \frac{|S|!\,(n-|S|-2)!}{2\,(n-1)!}
          [v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)],

and the diagonal holds main effects, :math:`\Phi_{ii} = \varphi_i - \sum_{j \ne i} \Phi_{ij}`.
With ``order=`` or ``index=`` the interactions of every subset of up to that many players, by one of
six indices that are all averages of :math:`D_T v(S) = \sum_{L \subseteq T} (-1)^{|T| - |L|} v(S
\cup L)`; the literal version is their definitions, the fast one integrates along the diagonal.
Source: Fujimoto, Kojadinovic and Marichal (2006); Eq. 15-19 of Lundberg et al. (2020); those of
``_orders`` for the indices. Cost: :math:`2^n` values of the game, and about :math:`2^n (k + 1) n`
operations for order k.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from math import comb, factorial
from typing import Any, overload

import numpy as np
from scipy.special import bernoulli

from shaplab._validation import (
    as_numbers,
    check_int,
    check_names,
    digits,
    fail,
    imported,
    shorten,
)
from shaplab.foundations._interaction_sampling import InteractionSampling, SampledInteractions
from shaplab.foundations._orders import (
    DiagonalRule,
    add_up,
    check_order,
    check_pairs,
    count_subsets,
    diagonal_rule,
    subsets_up_to,
)
from shaplab.foundations._sampling import Budget, hand_back, reason_of
from shaplab.foundations.answers import Answers
from shaplab.foundations.exact import Game, shapley_values_literal
from shaplab.foundations.games import (
    MAX_PLAYERS,
    MAX_TABLE,
    TableGame,
    all_coalitions,
    check_players,
    check_same_players,
    iterate_game,
)

__all__ = [
    "Interactions",
    "higher_interactions_literal",
    "interaction_values",
    "interaction_values_literal",
]

_MOST_PLAYERS = 500  # of an estimate: the numbers of coalitions of a size fit into a float
_MOST_VALUED = 2**17  # coalitions, if precision is asked for without a budget
_MOST_SUBSETS = 2**20  # of an estimate: each coalition pays them all


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """Interactions of subsets of players, of any order.

    Parameters
    ----------
    values : array ``(n_subsets, *payoff)``, in units of the payoff.
    subsets : the subsets' players, sorted numbers; a subset that is not listed has value 0.
    order : most players of a subset.
    index : "SII", "k-SII", "STII", "FSII", "Banzhaf" or "Moebius".
    base_value : array ``payoff``, the value of the empty coalition.
    n_players : players of the game.
    names : their names, or None.
    std : standard errors like ``values``, None where nothing was sampled.
    method : name of the function that made the values, and of its game.
    info : what the run cost.

    Notes
    -----
    ``r[i, j, k]`` is the value of a subset, its players in any order, by number or by name;
    ``r[()]`` is the base value. The arrays are read-only.

    Examples
    --------
    >>> r = interaction_values(lambda S: 6.0 * S.all(axis=1), 3, order=3, index="Moebius")
    >>> float(r[2, 0, 1]), float(r[0, 1])
    (6.0, 0.0)
    """

    values: np.ndarray
    subsets: tuple[tuple[int, ...], ...]
    order: int
    index: str
    base_value: np.ndarray
    n_players: int
    names: tuple[str, ...] | None = None
    std: np.ndarray | None = None
    method: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    _places: dict[tuple[int, ...], int] = field(init=False)

    def __post_init__(self) -> None:
        self._put("subsets", tuple(tuple(int(i) for i in T) for T in self.subsets))
        self._put("_places", {T: place for place, T in enumerate(self.subsets)})
        shape = (len(self.subsets), *np.shape(self.base_value))
        for name in ("values", "base_value", "std"):
            given = getattr(self, name)
            if given is None:
                continue
            array = as_numbers(given, name).view()
            if name != "base_value" and array.shape != shape:
                fail(
                    name,
                    f"shape {shape}: {shape[0]} subsets, then the shape of base_value",
                    f"shape {array.shape}",
                    "Give one payoff a subset",
                )
            array.flags.writeable = False
            self._put(name, array)
        self._put("names", check_names(self.names, self.n_players, "names"))
        self._put("info", dict(self.info))

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.subsets)

    def __getitem__(self, players: Any) -> Any:
        """The value of a subset: a number, or an array of shape ``payoff``."""
        return self._entry(players, self.values)

    def error(self, players: Any) -> Any:
        """The standard error of a subset's value, 0 where nothing was sampled."""
        errors = np.zeros_like(self.values) if self.std is None else self.std
        return self._entry(players, errors)

    def _entry(self, players: Any, array: np.ndarray) -> Any:
        single = isinstance(players, str) or not isinstance(players, Iterable)
        given = [players] if single else list(players)
        subset = tuple(sorted(self._player(player) for player in given))
        if len(set(subset)) < len(subset):
            fail("subset", "each player once", repr(tuple(given)), "Name every player once")
        if len(subset) > self.order:
            fail(
                "subset",
                f"at most {self.order} players, the order of these interactions",
                f"{len(subset)}",
                "Compute them with a higher order",
            )
        if not subset:
            return self.base_value[()] if array is self.values else np.zeros(array.shape[1:])[()]
        place = self._places.get(subset)
        return np.zeros(array.shape[1:])[()] if place is None else array[place]

    def _player(self, player: Any) -> int:
        """The number of a player given by number or by name."""
        if isinstance(player, str):
            bearers = [i for i, name in enumerate(self.player_names) if name == player]
            if len(bearers) == 1:
                return bearers[0]
        number = isinstance(player, int | np.integer) and not isinstance(player, bool)
        if number and 0 <= player < self.n_players:
            return int(player)
        fail(
            "subset",
            f"players from 0 to {self.n_players - 1}, or names that one of them has",
            repr(player),
            "Name the players by number, or as names= has them",
        )

    @property
    def player_names(self) -> tuple[str, ...]:
        """Names of the players, made up (``x0``, ``x1``, ...) where none were given."""
        return self.names or tuple(f"x{i}" for i in range(self.n_players))

    @property
    def labels(self) -> list[str]:
        """The subsets by the names of their players."""
        names = self.player_names
        return [" × ".join(names[i] for i in T) for T in self.subsets]

    @property
    def total(self) -> np.ndarray:
        """Base value plus all interactions: the value of everybody where the index is k-SII, STII
        or FSII, or where Moebius has all orders."""
        return np.asarray(self.base_value + self.values.sum(axis=0))

    @property
    def sizes(self) -> np.ndarray:
        """Mean absolute value of each subset over the payoff's axes, ``(n_subsets,)``."""
        payoff = tuple(range(1, self.values.ndim))
        return np.asarray(np.abs(self.values).mean(axis=payoff))

    def to_frame(self) -> Any:
        """A tidy pandas DataFrame, one value a line.

        Columns: ``players``, ``order``, for payoffs with axes ``row`` and ``output`` (``axis 2``
        and so on beyond), ``value``, and ``std`` when estimated.
        """
        pd = imported("pandas", "to_frame")
        payoff = self.values.shape[1:]
        titles = ["row", "output", *(f"axis {a}" for a in range(2, len(payoff)))]
        at_subset, *at_payoff = [axis.ravel() for axis in np.indices(self.values.shape)]
        frame = pd.DataFrame({"players": np.asarray(self.labels, dtype=object)[at_subset]})
        frame["order"] = np.array([len(T) for T in self.subsets], dtype=int)[at_subset]
        for title, place in zip(titles, at_payoff, strict=False):
            frame[title] = place
        frame["value"] = self.values.reshape(-1)
        if self.std is not None:
            frame["std"] = self.std.reshape(-1)
        return frame

    def __repr__(self) -> str:
        payoff = self.values.shape[1:]
        kind = f"{self.index} up to order {self.order}"
        facts = [f"{kind} of {self.n_players} players", f"{len(self)} subsets"]
        if payoff:
            facts.append(f"payoff {payoff}")
        if self.std is not None:
            facts.append(f"largest standard error {digits(self.std.max(initial=0.0), 2)}")
        lines = [f"<{self.method or 'Interactions'}: {', '.join(facts)}>"]
        labels = self.labels
        shown = np.argsort(-self.sizes, kind="stable")[:8]
        scale = float(np.abs(self.values).max(initial=0.0))
        for place in shown:
            label = f"  {shorten(labels[place], 44):<44}"
            if payoff:
                lines.append(f"{label}  mean |value| {digits(self.sizes[place])}")
                continue
            error = "" if self.std is None else f"  ± {digits(self.std[place], 2)}"
            lines.append(f"{label}  {digits(self.values[place], 4, '+', scale)}{error}")
        if len(self) > len(shown):
            lines.append(f"  {len(self) - len(shown)} more subsets")
        return "\n".join(lines)


def higher_interactions_literal(
    game: Game, n_players: int, order: int, index: str
) -> dict[tuple[int, ...], Any]:
    """Every index by its definition: subset to value.

    SII, STII, Banzhaf and Moebius weight discrete derivatives; k-SII gives the highest order of
    SII to lower ones; FSII is the weighted least squares fit, exact for nobody and everybody.
    """
    players = range(n_players)
    worth = {
        S: np.asarray(game(np.isin(players, S)[None])[0], dtype=float)
        for size in range(n_players + 1)
        for S in combinations(players, size)
    }

    def derivative(T: tuple[int, ...], S: tuple[int, ...]) -> Any:
        return sum(
            (-1) ** (len(T) - len(L)) * worth[tuple(sorted((*S, *L)))] for L in _subsets_of(T)
        )

    def weight(t: int, s: int) -> float:
        rest = n_players - t - s
        if index == "Banzhaf":
            return 0.5 ** (n_players - t)
        if index == "Moebius" or (index == "STII" and t < order):
            return float(s == 0)
        if index == "STII":
            return order / (n_players * comb(n_players - 1, s))
        return factorial(s) * factorial(rest) / factorial(n_players - t + 1)

    if index == "FSII":
        return _faithful_literal(worth, n_players, order)
    found = {}
    for T in subsets_up_to(n_players, order):
        others = tuple(i for i in players if i not in T)
        found[T] = sum(weight(len(T), len(S)) * derivative(T, S) for S in _subsets_of(others))
    if index != "k-SII":
        return found
    numbers = bernoulli(order)
    return {
        T: sum(numbers[len(U) - len(T)] * found[U] for U in found if set(T) <= set(U))
        for T in found
    }


def _subsets_of(members: Sequence[int]) -> list[tuple[int, ...]]:
    sizes = range(len(members) + 1)
    return list(chain.from_iterable(combinations(members, size) for size in sizes))


def _faithful_literal(
    worth: Mapping[tuple[int, ...], Any], n: int, order: int
) -> dict[tuple[int, ...], Any]:
    """The polynomial of that order that is nearest to the game in the Shapley kernel's weights."""
    terms = subsets_up_to(n, order)
    inner = [S for S in worth if 0 < len(S) < n]
    holds = np.array([[set(T) <= set(S) for T in terms] for S in inner], dtype=float)
    holds = holds.reshape(len(inner), len(terms))
    kernel = np.array([(n - 1) / (comb(n, len(S)) * len(S) * (n - len(S))) for S in inner])
    values = np.array([worth[S] - worth[()] for S in inner])
    values = values.reshape(len(inner), *worth[()].shape)
    # Stationary under one constraint: the terms sum to v(everybody) - v(nobody).
    normal = holds.T @ (kernel[:, None] * holds)
    one = np.ones((len(terms), 1))
    system = np.block([[normal, one], [one.T, np.zeros((1, 1))]])
    gain = (worth[tuple(range(n))] - worth[()])[None]
    right = np.concatenate([np.tensordot(holds.T * kernel, values, axes=1), gain])
    flat = np.linalg.lstsq(system, right.reshape(len(right), -1), rcond=None)[0]
    solved = flat[:-1].reshape(len(terms), *right.shape[1:])
    return dict(zip(terms, solved, strict=True))


def interaction_values_literal(game: Game, n_players: int) -> np.ndarray:
    """Interaction values by the formula, one pair and one subset at a time."""
    M = n_players
    phi = shapley_values_literal(game, M)
    Phi = np.zeros((M, M, *phi.shape[1:]))

    def v(*members: int) -> Any:
        return game(np.isin(range(M), members)[None])[0]

    for i, j in combinations(range(M), 2):
        rest = [k for k in range(M) if k not in (i, j)]
        for size in range(M - 1):
            weight = factorial(size) * factorial(M - size - 2) / (2 * factorial(M - 1))
            for S in combinations(rest, size):
                Phi[i, j] += weight * (v(*S, i, j) - v(*S, i) - v(*S, j) + v(*S))
        Phi[j, i] = Phi[i, j]
    for i in range(M):
        Phi[i, i] = phi[i] - (Phi[i].sum(axis=0) - Phi[i, i])
    return Phi


@overload
def interaction_values(
    game: Game,
    n_players: int,
    *,
    order: None = None,
    index: None = None,
    names: Sequence[str] | None = None,
    max_evaluations: None = None,
    thresh: None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 4096,
    progress: bool = False,
    state: Any = None,
) -> np.ndarray: ...


@overload
def interaction_values(
    game: Game,
    n_players: int,
    *,
    order: int | None = None,
    index: str | None = None,
    names: Sequence[str] | None = None,
    max_evaluations: int | None = None,
    thresh: float | None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 4096,
    progress: bool = False,
    state: Any = None,
) -> Interactions: ...


def interaction_values(
    game: Game,
    n_players: int,
    *,
    order: int | None = None,
    index: str | None = None,
    names: Sequence[str] | None = None,
    max_evaluations: int | None = None,
    thresh: float | None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 4096,
    progress: bool = False,
    state: Any = None,
) -> Any:
    """Shapley interaction values of a game: the matrix of pairs, or, with ``order``, ``index`` or
    ``max_evaluations``, the interactions of all subsets up to an order, exact or estimated.

    Parameters
    ----------
    game : callable, bool array ``(m, n_players)`` to ``(m, *payoff)``.
    n_players : int, 1 to 24; up to 500 with ``max_evaluations`` or ``thresh``.
    order : most players of a subset, 1 to ``n_players``; 2 by default, all for Moebius. Order 1
        of SII, k-SII, STII or FSII are the Shapley values.
    index : "SII" (the default), "k-SII", "STII", "FSII", "Banzhaf" or "Moebius". k-SII, STII and
        FSII sum to ``v(everybody) - v(nobody)``.
    names : names of the players; by default those of the game, if it has some.
    max_evaluations : most coalitions that are valued. Where it covers all of them, values are
        exact; else they are estimated, with standard errors in ``std``.
    thresh : float, stop when the largest standard error is below this share of the spread of the
        values (largest minus smallest, zero included); at most 131,072 coalitions then, unless
        ``max_evaluations`` says how many. None spends the whole budget.
    rng : None, a seed or a Generator, for the estimate; one seed gives the same numbers for any
        ``n_jobs`` and batch size.
    n_jobs : int, through joblib: ``joblib.parallel_config("dask")`` and others apply.
    batch_size : int, coalitions valued in one call; bounds memory.
    progress : bool, show a bar of coalitions.
    state : path of a file that keeps all answers, and from which the same call goes on; that of
        :func:`shaplab.foundations.estimate.estimate_values` for the same game will do.

    Returns
    -------
    Without ``order``, ``index``, ``max_evaluations`` and ``thresh`` a float64 array ``(n_players,
    n_players, *payoff)``, symmetric in its first two axes; each row sums to the player's Shapley
    value, the whole matrix to ``v(everybody) - v(nobody)``. Else ``Interactions``.

    Notes
    -----
    For the matrix one matrix product a batch, with :math:`n^2` coefficients for each coalition.
    Else every coalition's payoff is kept, in at most 2 GiB. Estimates are unbiased; an interval of
    1.96 standard errors holds the value in about 95 of 100 runs (of the largest subsets of STII in
    92 to 94). No coalition is valued twice, but
    for two that show whether the game answers the same, if the budget has room for them. An
    exception from an estimate has what was found until then in its attribute ``partial``; after
    Ctrl-C it is returned, ``info["stopped"]`` being ``"interrupted"``.

    References
    ----------
    Lundberg et al., "From local explanations to global understanding with explainable AI for trees"
    (2020), Eq. 15-19. Grabisch and Roubens (1999): SII, Banzhaf. Bordt and von Luxburg (2023):
    k-SII. Sundararajan, Dhamdhere and Agarwal (2020): STII. Tsai, Yeh and Ravikumar (2023): FSII.
    Fumagalli et al. (2023): estimates from single coalitions.

    Examples
    --------
    >>> from shaplab.foundations.games import TableGame
    >>> interaction_values(TableGame([0.0, 0.0, 0.0, 1.0]), 2)
    array([[0. , 0.5],
           [0.5, 0. ]])
    >>> interaction_values(TableGame([0.0, 0.0, 0.0, 1.0]), 2, index="STII")
    <interaction_values: STII up to order 2 of 2 players, 3 subsets>
      0 × 1                                         +1
      0                                             +0
      1                                             +0
    """
    batch = check_int(batch_size, "batch_size")
    if thresh is not None and max_evaluations is None:
        max_evaluations = _MOST_VALUED
    budget = Budget(
        thresh=1.0 if thresh is None else thresh,
        max_evaluations=max_evaluations,
        rng=rng,
        n_jobs=n_jobs,
        progress=progress,
        state=state,
    )
    if budget.max_evaluations is not None:
        n = check_int(n_players, "n_players", maximum=_MOST_PLAYERS)
        if n > MAX_PLAYERS or 2**n > budget.max_evaluations:
            answers = _new_answers(game, n, budget, batch)
            kind = check_order(order, index, n)
            return _estimates(answers, kind, _names_of(game, n, names), thresh is not None)
        order = min(2, n) if order is None and index is None else order
    n = check_players(n_players)
    if n_jobs is not None or progress or state is not None:
        names = _names_of(game, n, names)
        game = _answered(game, n, budget, batch)
    if order is not None or index is not None:
        return _interactions(game, n, *check_order(order, index, n), names, batch)
    # Weights by the size of S: that of the formula, and that of a Shapley value.
    pair_weight = np.zeros(1)
    if n > 1:
        pair_weight = np.array([0.5 / ((n - 1) * comb(n - 2, size)) for size in range(n - 1)])
    single_weight = 1.0 / (n * np.array([comb(n - 1, size) for size in range(n)], dtype=np.float64))
    diagonal = np.arange(n)
    total: Any = 0.0
    for coalitions, values in iterate_game(game, n, batch):
        member = coalitions.astype(np.int64)
        size = member.sum(axis=1)
        # Both sums run over what stays outside the pair, so sizes are counted without its members.
        beside_pair = size[:, None, None] - member[:, :, None] - member[:, None, :]
        both_or_none = coalitions[:, :, None] == coalitions[:, None, :]
        sign = np.where(both_or_none, 1.0, -1.0)
        coefficient = sign * pair_weight[np.clip(beside_pair, 0, max(0, n - 2))]
        beside_one = size[:, None] - member
        shapley = np.where(coalitions, 1.0, -1.0) * single_weight[beside_one]
        # The main effect is the Shapley value less the row's interactions.
        coefficient[:, diagonal, diagonal] = 0.0
        coefficient[:, diagonal, diagonal] = shapley - coefficient.sum(axis=2)
        total = total + np.tensordot(coefficient.transpose(1, 2, 0), values, axes=1)
    return np.asarray(total)


def _interactions(
    game: Game, n: int, order: int, index: str, names: Sequence[str] | None, batch: int
) -> Interactions:
    """Interactions up to an order from the table of the game."""
    if index == "k-SII":
        check_pairs(sum(comb(n, size) * 2.0**size for size in range(1, order + 1)))
    table = _tabulate(game, n, count_subsets(n, order), batch)
    flat = table.reshape(len(table), -1)
    subsets, numbers = _subsets_by_axis(n, order)
    values = integrate_derivatives(flat, diagonal_rule(index, order, n), numbers)
    if index == "k-SII":
        values = add_up(values, subsets)
    return Interactions(
        values.reshape(len(subsets), *table.shape[1:]),
        tuple(subsets),
        order,
        index,
        table[0],
        n,
        _names_of(game, n, names),
        method="interaction_values",
        info={"evaluations": len(table)},
    )


def _answered(game: Game, n: int, budget: Budget, batch: int) -> Game:
    """The game with all its answers, asked for as a budget says."""
    answers = _new_answers(game, n, budget, batch)
    coalitions = all_coalitions(n)
    with answers.bar:
        answers.ask(coalitions)
        if answers.resumed:
            answers.check_same_answer(coalitions[[-1, 1]])
    payoff = next(iter(answers.known.values())).shape
    return TableGame(answers.values(coalitions).reshape(-1, *payoff))


def _new_answers(game: Game, n: int, budget: Budget, batch: int) -> Answers:
    check_same_players(game, n)
    return Answers(game, n, budget, batch)


def _estimates(
    answers: Answers, kind: tuple[int, str], labels: tuple[str, ...] | None, until_precise: bool
) -> Interactions:
    """Estimated interactions, from the whole budget or from what is precise enough."""
    order, index = kind
    n = answers.n
    budget = answers.budget
    n_subsets = count_subsets(n, order)
    if n_subsets > _MOST_SUBSETS:
        fail(
            "order",
            f"at most {_MOST_SUBSETS:,} subsets for an estimate",
            f"{n_subsets:,} of up to {order} of {n} players",
            "Take a lower order, or group players",
        )

    def allowed(values: np.ndarray) -> float:
        """The largest standard error that is precise enough."""
        of_outputs = values.reshape(1, n_subsets, -1)
        return float(budget.allowed_error(of_outputs, answers.scale())[0])

    most = int(budget.max_evaluations or 0)
    sampling = InteractionSampling(answers, kind, most, allowed if until_precise else None)

    def result(found: SampledInteractions, stopped: str) -> Interactions:
        return Interactions(
            found.values,
            tuple(subsets_up_to(n, order)),
            order,
            index,
            found.base_value,
            n,
            labels,
            found.std,
            method="interaction_values, estimated",
            info={
                "evaluations": found.evaluations,
                "pairs": found.pairs,
                "fitted_order": found.fitted_order,
                "stopped": stopped,
            },
        )

    with answers.bar:
        try:
            return result(*sampling.run())
        except (Exception, KeyboardInterrupt) as problem:
            count = sampling.count_known()
            if count is None:
                raise
            note = "Interactions from the answers until then are in this exception's .partial."
            return hand_back(problem, result(sampling.estimate(count), reason_of(problem)), note)


def _names_of(game: Game, n: int, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Names that were given, else those of the game, else None."""
    return check_names(getattr(game, "names", None) if names is None else names, n, "names")


def _tabulate(game: Game, n: int, n_subsets: int, batch: int) -> np.ndarray:
    """All values of the game, ``(2**n, *payoff)``, if they and the result fit into memory."""
    table = np.empty(0)
    start = 0
    for _, values in iterate_game(game, n, batch):
        if not start:
            size = values[:1].nbytes * max(2**n, n_subsets)
            if size > MAX_TABLE:
                fail(
                    "game",
                    f"payoffs whose table takes at most {MAX_TABLE >> 30} GiB",
                    f"{size / 2**30:.1f} GiB: {max(2**n, n_subsets):,} payoffs of shape "
                    f"{values.shape[1:]}",
                    "Value fewer rows at a time, or group players",
                )
            table = np.empty((2**n, *values.shape[1:]))
        table[start : start + len(values)] = values
        start += len(values)
    return table


def _subsets_by_axis(n: int, order: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Subsets up to an order, and the number (bit i for player i) of each."""
    subsets = subsets_up_to(n, order)
    return subsets, np.array([sum(1 << i for i in T) for T in subsets], dtype=np.int64)


def integrate_derivatives(table: np.ndarray, rule: DiagonalRule, numbers: np.ndarray) -> np.ndarray:
    """Integrals of the expected derivatives of a table ``(2**n, P)``, ``(n_subsets, P)``; subsets
    by their ``numbers``.

    Player by player, the last first, each part of the table is halved: into the mean over the
    player's presence, and into the difference that it makes. Parts with more differences than the
    order are left out, so all halves together stay as large as the table for each order.
    """
    n_payoffs = table.shape[1]
    n = len(table).bit_length() - 1
    order = len(rule.weights) - 1
    total = np.zeros((len(numbers), n_payoffs))
    for node, weight in zip(rule.nodes, rule.weights.T, strict=True):
        parts = table[None]
        subset = np.zeros(1, np.int64)
        size = np.zeros(1, np.int64)
        for player in range(n - 1, -1, -1):
            halves = parts.reshape(len(parts), 2, -1, n_payoffs)
            without = halves[:, 0]
            gain = halves[:, 1] - without
            grows = size < order
            parts = np.concatenate([without + node * gain, gain[grows]])
            subset = np.concatenate([subset, subset[grows] | (1 << player)])
            size = np.concatenate([size, size[grows] + 1])
        place = np.argsort(subset)[np.searchsorted(np.sort(subset), numbers)]
        total += weight[size[place], None] * parts[place, 0]
    return total
