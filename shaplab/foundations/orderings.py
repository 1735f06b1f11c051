r"""Orderings of any game: values for families and orders of any number of players, with errors.

A pair of opposite orderings gives one unbiased estimate of what every player adds,

.. math:: \hat\varphi_i = \tfrac12 \sum_{\pi \in \{\text{there}, \text{back}\}}
          [v(P_i^\pi \cup i) - v(P_i^\pi)],

and pairs are independent, so their spread gives the standard error. Orderings are those that a
structure leaves, each equally likely. A conditional game draws its absent features anew for each
pair, so that the error of these draws is part of what is told.

Sources: Castro, Gomez and Tejada (2009); Owen (1977), Winter (1989) and Frye et al. (2020) for the
structures. Cost: :math:`2 (n - 1)` values of the game a pair.

Chapter: foundations/structures
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from shaplab._parallel import chunks, progress_bar
from shaplab._validation import check_int, check_real, check_result, fail, resolve_rng
from shaplab.explanation import Explanation
from shaplab.foundations._structure import (
    PartialOrder,
    Unions,
    both_ways,
    check_known,
    read_structure,
)
from shaplab.foundations.exact import Game
from shaplab.foundations.games import evaluate_game

__all__ = ["SampledValues", "game_shap", "sampled_values", "sampled_values_literal"]

# Pairs of orderings without a budget, and those below which their spread is not told as an error.
PAIRS = 50
PAIRS_FOR_ERROR = 16
# Truth values in the coalitions that are looked at together.
CELLS = 2**22


def sampled_values_literal(game: Game, orders: np.ndarray) -> np.ndarray:
    """What players add ``(n, *payoff)``, the mean over orderings ``(w, n)``, one by one."""
    count, n = orders.shape
    total = [0.0] * n
    for order in orders:
        present = np.zeros((1, n), dtype=bool)
        before = game(present)[0]
        for player in order:
            present[0, player] = True
            after = game(present)[0]
            total[player] = total[player] + (after - before)
            before = after
    return np.array(total) / count


@dataclass(frozen=True, eq=False)
class SampledValues:
    """Values of a game from sampled orderings.

    Parameters
    ----------
    values : array ``(n, *payoff)``, in the payoff's unit.
    std : standard errors of that shape; NaN when there were too few orderings to know them.
    evaluations : coalitions that were valued.
    rounds : independent pairs of opposite orderings.
    """

    values: np.ndarray
    std: np.ndarray
    evaluations: int
    rounds: int

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Student intervals: arrays ``low`` and ``high`` of the shape of ``values``."""
        level = check_real(level, "level", low=0.0, high=1.0, open_low=True)
        if np.isnan(self.std).any():
            fail(
                "max_evaluations",
                f"at least {PAIRS_FOR_ERROR} pairs of orderings for an interval",
                f"{self.rounds}",
                f"Pass {2 + 2 * PAIRS_FOR_ERROR * (len(self.values) - 1)}",
            )
        reach = student.ppf(0.5 + level / 2, max(1, self.rounds - 1)) * self.std
        return self.values - reach, self.values + reach


class PairMoments:
    """Running mean and spread of what pairs of orderings say."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0

    def add(self, estimates: np.ndarray) -> None:
        """Add estimates ``(w, n, *payoff)``, one after the other."""
        for estimate in estimates:
            self.count += 1
            before = estimate - self.mean
            self.mean = self.mean + before / self.count
            self.squares = self.squares + before * (estimate - self.mean)

    def std(self) -> np.ndarray:
        """Standard errors of the mean, NaN for too few pairs."""
        if self.count < PAIRS_FOR_ERROR:
            return np.full(np.shape(self.mean), np.nan)
        return np.asarray(np.sqrt(self.squares / (self.count - 1) / self.count))


def _pair_estimates(
    game: Game, orders: np.ndarray, ends: np.ndarray, batch_size: int
) -> tuple[np.ndarray, int]:
    """What players add ``(w, n, *payoff)`` along orderings ``(2, w, n)``, the mean of both, and
    coalitions valued: each once.

    ``ends`` ``(2, *payoff)`` are nobody's and everybody's values.
    """
    n = orders.shape[2]
    rank = orders.reshape(-1, n).argsort(axis=1)
    present = rank[:, None, :] < np.arange(1, n)[:, None]
    packed = np.packbits(present.reshape(-1, n), axis=1)
    different, place = np.unique(packed, axis=0, return_inverse=True)
    coalitions = np.unpackbits(different, axis=1, count=n).astype(bool)
    parts = [evaluate_game(game, coalitions[part]) for part in chunks(len(different), batch_size)]
    payoff = ends.shape[1:]
    if n > 1 and parts[0].shape[1:] != payoff:
        fail(
            "game",
            f"payoffs of shape {payoff}, as for everybody",
            f"shape {parts[0].shape[1:]}",
            "Return payoffs of one shape for all coalitions",
        )
    values = np.concatenate([*parts, ends])
    nobody, everybody = len(different), len(different) + 1
    along = np.pad(
        place.reshape(len(rank), n - 1), ((0, 0), (1, 1)), constant_values=(nobody, everybody)
    )
    added = np.diff(values[along], axis=1)
    of_player = np.take_along_axis(added, rank.reshape(*rank.shape, *[1] * len(payoff)), axis=1)
    there, back = np.split(of_player, 2)
    return (there + back) / 2, len(different)


def _pairs_of(n: int, max_evaluations: int | None) -> int:
    """Pairs of orderings that a budget of coalitions has room for."""
    if max_evaluations is None:
        return PAIRS
    least = 2 * n
    rule = f"at least {least}: nobody, everybody, and one ordering there and back"
    budget = check_int(max_evaluations, "max_evaluations")
    if budget < least:
        fail("max_evaluations", rule, str(budget), "Raise the budget, or join players in groups")
    # One player has one ordering, which costs nothing more.
    return PAIRS if n == 1 else (budget - 2) // (2 * (n - 1))


def sampled_values(
    game: Game,
    n_players: int,
    *,
    unions: Any = None,
    order: Any = None,
    names: Any = None,
    max_evaluations: int | None = None,
    rng: Any = None,
    batch_size: int = 4096,
    progress: bool = False,
) -> SampledValues:
    """Values of any game of any number of players from orderings that a structure leaves.

    Parameters
    ----------
    game : callable, bool array ``(m, n_players)`` to ``(m, *payoff)``; one coalition a row.
    n_players : int, any number.
    unions : as in :func:`shaplab.foundations.structures.owen_values`.
    order : as in :func:`shaplab.foundations.structures.asymmetric_values`. With neither, all
        orderings count: Shapley values.
    names : names of the players, if the structure names them.
    max_evaluations : int, coalitions that may be valued, at least ``2 * n_players``: one ordering
        there and back. None: 50 pairs of orderings.
    rng : None, int or Generator; one seed gives the same numbers for any batch size.
    batch_size : int, coalitions in one call of the game, at most.
    progress : bool, show a bar of pairs of orderings.

    Returns
    -------
    SampledValues
        ``values`` and ``std`` ``(n_players, *payoff)``, ``interval()``. Values sum to what
        everybody is worth beyond nobody. Below 16 pairs of orderings standard errors are NaN.

    Raises
    ------
    ValueError
        For structures that are none (overlaps, missing players, circles), for orders that fall into
        no parts and have too many down-sets to draw from, for budgets below the least, and for
        games that return NaN or another number of values.

    Notes
    -----
    Each ordering that is left is equally likely. A pair is exact for games with interactions of at
    most two players under unions and levels. Cost: ``2 (n - 1)`` values of the game a pair; fewer
    where orderings meet in a coalition.

    References
    ----------
    Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling"
    (2009); Owen (1977); Winter (1989); Frye, Rowat and Feige (2020).

    Examples
    --------
    >>> everybody = lambda S: S.all(axis=1) * 6.0
    >>> found = sampled_values(everybody, 40, order=[list(range(39)), [39]], rng=0)
    >>> found.values[[0, 39]], found.std[39]
    (array([0., 6.]), np.float64(0.0))
    """
    n = check_int(n_players, "n_players")
    check_known(game, n)
    structure = read_structure(n, names, unions, order) or Unions(list(range(n)))
    batch = check_int(batch_size, "batch_size")
    pairs = _pairs_of(n, max_evaluations)
    generator = resolve_rng(rng)
    ends = evaluate_game(game, np.array([[False] * n, [True] * n]))
    moments = PairMoments()
    evaluations = 2
    # Sums of payoffs are held for all steps of the pairs that are looked at together.
    width = n * max(n, ends[0].size)
    with progress_bar(pairs, progress, "pairs of orderings") as bar:
        for part in chunks(pairs, CELLS // width):
            count = part.stop - part.start
            orders = both_ways(structure, generator.random((count, structure.n_keys)))
            estimates, valued = _pair_estimates(game, orders, ends, batch)
            moments.add(estimates)
            evaluations += valued
            bar.update(count)
    return SampledValues(moments.mean, moments.std(), evaluations, moments.count)


def game_shap(
    game: Any,
    *,
    unions: Any = None,
    order: Any = None,
    max_evaluations: int | None = None,
    rng: Any = None,
    batch_size: int = 4096,
    progress: bool = False,
) -> Explanation:
    """Explain predictions in any game of rows: conditional, causal, marginal, or of losses.

    The game says what absence means, and carries the assumption in its name.

    Parameters
    ----------
    game : a game with ``n_players`` and a payoff ``(N,)`` or ``(N, K)``, such as
        :class:`~shaplab.foundations.predictions.GaussianGame`,
        :class:`~shaplab.foundations.predictions.CopulaGame`,
        :class:`~shaplab.foundations.predictions.NearestGame` or
        :class:`~shaplab.foundations.structures.CausalGame`.
    unions, order, max_evaluations, rng, batch_size, progress : as in :func:`sampled_values`;
        players go by the names of the rows' columns as well.

    Returns
    -------
    Explanation
        ``values`` and ``std`` ``(N, n_players[, K])``, in the payoff's unit; intervals by
        :func:`shaplab.foundations.permutation.confidence_interval`.

    Notes
    -----
    Games that draw what is absent draw anew for every pair of orderings, so that standard errors
    hold for the game itself, not for one set of draws; values and base values add up to the
    prediction. Many pairs with few draws each cost less than the opposite: take ``n_samples`` of 10
    to 50. Errors of the assumption, a Gaussian that is none, are not told.
    Cost: ``2 (n - 1) + 1`` coalitions a pair, for each of them ``N`` times the draws model rows.

    Examples
    --------
    >>> from shaplab.foundations.predictions import MarginalGame
    >>> game = MarginalGame(lambda X: X[:, 0] * X[:, 1], np.ones((1, 2)), np.zeros((1, 2)))
    >>> game_shap(game, rng=0).values
    array([[0.5, 0.5]])
    """
    if not hasattr(game, "n_players"):
        remedy = "Make one with shaplab.GaussianGame, or use sampled_values for any callable"
        fail("game", "a game that explains rows", game, remedy, TypeError)
    n = check_int(game.n_players, "game")
    names = getattr(game, "names", None)
    structure = read_structure(n, names, unions, order) or Unions(list(range(n)))
    pairs = _pairs_of(n, max_evaluations)
    run = _GameRun(game, structure, check_int(batch_size, "batch_size"))
    generator = resolve_rng(rng)
    with progress_bar(pairs, progress, "pairs of orderings") as bar:
        for _ in range(pairs):
            run.add_pair(generator)
            bar.update()
    values = np.moveaxis(run.moments.mean, 0, 1)
    std = np.moveaxis(run.moments.std(), 0, 1)
    check_result(values, names)
    return Explanation(
        values=values,
        std=std,
        base_values=run.nobody / pairs,
        data=_rows_of(game),
        feature_names=None if names is None else tuple(names),
        method=f"game_shap ({type(game).__name__}, orderings{run.told})",
        info={"coalitions": run.evaluations, "rounds": np.full(len(values), pairs)},
    )


class _GameRun:
    """Pairs of orderings of a game that may draw anew for each."""

    def __init__(self, game: Any, structure: Unions | PartialOrder, batch_size: int) -> None:
        self.game = game
        self.structure = structure
        self.batch_size = batch_size
        self.moments = PairMoments()
        self.told = "" if structure.listed_all else f", {structure.name}"
        n = structure.n_players
        self.ends = evaluate_game(game, np.array([[False] * n, [True] * n]))
        if self.ends.ndim not in (2, 3):
            fail(
                "game",
                "a payoff (N,) or (N, K), one number for each row",
                f"payoff of shape {self.ends.shape[1:]}",
                "Use sampled_values",
            )
        self.evaluations = 2
        self.nobody: Any = 0.0

    def add_pair(self, generator: np.random.Generator) -> None:
        """One ordering there and back."""
        game = self.game
        ends = self.ends
        orders = both_ways(self.structure, generator.random((1, self.structure.n_keys)))
        if hasattr(game, "drawn_anew"):
            game = game.drawn_anew(generator)
            nobody = evaluate_game(game, np.zeros((1, self.structure.n_players), dtype=bool))
            ends = np.concatenate([nobody, ends[1:]])
            self.evaluations += 1
        estimates, valued = _pair_estimates(game, orders, ends, self.batch_size)
        self.moments.add(estimates)
        self.evaluations += valued
        self.nobody = self.nobody + ends[0]


def _rows_of(game: Any) -> Any:
    """The explained rows of a game of features, None for others."""
    if getattr(game, "grouped", False):
        return None
    if hasattr(game, "X"):
        return game.X
    return getattr(getattr(game, "rows", None), "X", None)
