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

from typing import Any

import numpy as np

from shaplab._validation import check_int, check_names, check_result, fail
from shaplab.explanation import Explanation
from shaplab.foundations._ordering_pairs import (
    PAIRS_FOR_ERROR,
    AskedPairs,
    RedrawnPairs,
    count_pairs,
    walk_until_precise,
)
from shaplab.foundations._sampling import Budget, hand_back, reason_of
from shaplab.foundations._structure import Unions, check_known, read_structure
from shaplab.foundations.answers import Answers, EstimatedValues, widened
from shaplab.foundations.exact import Game

__all__ = ["game_shap", "sampled_values", "sampled_values_literal"]

# What an exception that carries a result says.
LEFT = "Values from the pairs of orderings until then are in this exception's attribute .partial."


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


def sampled_values(
    game: Game,
    n_players: int,
    *,
    unions: Any = None,
    order: Any = None,
    names: Any = None,
    max_evaluations: int | None = None,
    thresh: float | None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 4096,
    progress: bool = False,
    state: Any = None,
) -> EstimatedValues:
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
        there and back. None: 50 pairs of orderings, or, with ``thresh``, up to 131,072 coalitions.
    thresh : float, stop when the largest standard error is below this share of the spread of the
        values (largest minus smallest, zero included). None spends the whole budget.
    rng : None, int or Generator; one seed gives the same numbers for any ``n_jobs`` and batch size.
    n_jobs : int, through joblib: ``joblib.parallel_config("dask")`` and others apply.
    batch_size : int, coalitions in one call of the game, at most; what a batch has answered is
        kept.
    progress : bool, show a bar of coalitions.
    state : path of a file that keeps all answers, and from which the same call goes on; that of
        :func:`shaplab.foundations.estimate.estimate_values` for the same game will do.

    Returns
    -------
    EstimatedValues
        ``values`` and ``std`` ``(n_players, *payoff)``; ``interval()``, ``to_frame()``. Values sum
        to what everybody is worth beyond nobody. Below 16 pairs of orderings, about ``32 *
        n_players`` evaluations, standard errors are NaN. There are no ``"exact"`` ones.

    Raises
    ------
    ValueError
        For structures that are none (overlaps, missing players, circles), for orders that fall into
        no parts and have too many down-sets to draw from, for budgets below the least, and for
        games that return NaN, payoffs of another shape, or another value when they are asked once
        more. An exception has what was found until then in its attribute ``partial``; after Ctrl-C
        it is returned, ``stopped`` being ``"interrupted"``.

    Notes
    -----
    Intervals know what the pairs have met. Measured at 31 pairs, 95% intervals held 94 to 98% of
    the values of trees, networks, SAGE, a saturated and a unanimity game, and 87% where eight
    players of twenty are worth much only together: few pairs have one of them come last.

    Each ordering that is left is equally likely. A pair is exact for games with interactions of at
    most two players under unions and levels. Cost: ``2 (n - 1)`` values of the game a pair; fewer
    where orderings meet in a coalition: none is valued twice, but for two that show whether the
    game answers the same, if the budget has room for them.

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
    labels = check_names(names, n, "names")
    budget = Budget(
        thresh=1.0 if thresh is None else thresh,
        max_evaluations=max_evaluations,
        rng=rng,
        n_jobs=n_jobs,
        progress=progress,
        state=state,
    )
    each = 2 * (n - 1)
    most = count_pairs(n, budget, thresh is None, (2, each))
    answers = Answers(game, n, budget, check_int(batch_size, "batch_size"))
    pairs = AskedPairs(answers, structure, _has_room(budget, 2 + most * each))

    def result(stopped: str) -> EstimatedValues:
        moments = pairs.moments
        ends = pairs.ends
        freedom = np.full(moments.mean.shape, max(1.0, moments.count - 1.0))
        shape = (n, *pairs.payoff)
        return EstimatedValues(
            values=moments.mean.reshape(shape),
            std=widened(moments.std(), freedom).reshape(shape),
            total=(ends[1] - ends[0]).reshape(pairs.payoff),
            evaluations=answers.asked,
            sizes=answers.count_sizes(),
            freedom=freedom.reshape(shape),
            stopped=stopped,
            least=2 + PAIRS_FOR_ERROR * each,
            names=labels,
        )

    units = None if thresh is None else (lambda added: added[None])
    with answers.bar:
        try:
            answers.ask(pairs.both_ends)
            return result(walk_until_precise(pairs, most, budget, units))
        except (Exception, KeyboardInterrupt) as problem:
            pairs.add_what_is_known()
            if not pairs.moments.count:
                raise
            return hand_back(problem, result(reason_of(problem)), LEFT)


def _has_room(budget: Budget, spent: int) -> bool:
    """Whether two coalitions may be asked for once more."""
    return budget.max_evaluations is None or spent + 2 <= budget.max_evaluations


def game_shap(
    game: Any,
    *,
    unions: Any = None,
    order: Any = None,
    max_evaluations: int | None = None,
    thresh: float | None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 4096,
    progress: bool = False,
    state: Any = None,
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
    unions, order, max_evaluations, thresh, rng, n_jobs, batch_size, progress, state : as in
        :func:`sampled_values`; players go by the names of the rows' columns as well. ``thresh`` is
        for each row. The file of a game that draws anew keeps finished pairs of orderings.

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
    Games that draw nothing are asked for each coalition once.

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
    budget = Budget(
        thresh=1.0 if thresh is None else thresh,
        max_evaluations=max_evaluations,
        rng=rng,
        n_jobs=n_jobs,
        progress=progress,
        state=state,
    )
    batch = check_int(batch_size, "batch_size")
    each = 2 * (n - 1)
    pairs: AskedPairs | RedrawnPairs
    if hasattr(game, "drawn_anew"):
        most = count_pairs(n, budget, thresh is None, (1, each + 1))
        pairs = RedrawnPairs(game, structure, budget, batch)
        bar = pairs.bar
    else:
        most = count_pairs(n, budget, thresh is None, (2, each))
        answers = Answers(game, n, budget, batch)
        pairs = AskedPairs(answers, structure, _has_room(budget, 2 + most * each))
        bar = answers.bar
        answers.ask(pairs.both_ends)
    payoff = pairs.payoff
    if len(payoff) not in (1, 2):
        fail(
            "game",
            "a payoff (N,) or (N, K), one number for each row",
            f"payoff of shape {payoff}",
            "Use sampled_values",
        )

    def by_row(added: np.ndarray) -> np.ndarray:
        """Rows ``(N, n, K)`` of what players add ``(n, N * K)``."""
        return np.moveaxis(added.reshape(n, payoff[0], -1), 0, 1)

    def result(stopped: str) -> Explanation:
        shape = (payoff[0], n, *payoff[1:])
        values = by_row(pairs.moments.mean).reshape(shape)
        check_result(values, names)
        told = "" if structure.listed_all else f", {structure.name}"
        return Explanation(
            values=values,
            std=by_row(pairs.moments.std()).reshape(shape),
            base_values=pairs.nobody.reshape(payoff),
            data=_rows_of(game),
            feature_names=None if names is None else tuple(names),
            method=f"game_shap ({type(game).__name__}, orderings{told})",
            info={
                "coalitions": pairs.evaluations,
                "rounds": np.full(len(values), pairs.moments.count),
                "stopped": stopped,
            },
        )

    with bar:
        try:
            units = None if thresh is None else by_row
            return result(walk_until_precise(pairs, most, budget, units))
        except (Exception, KeyboardInterrupt) as problem:
            pairs.add_what_is_known()
            if not pairs.moments.count:
                raise
            return hand_back(problem, result(reason_of(problem)), LEFT)


def _rows_of(game: Any) -> Any:
    """The explained rows of a game of features, None for others."""
    if getattr(game, "grouped", False):
        return None
    if hasattr(game, "X"):
        return game.X
    return getattr(getattr(game, "rows", None), "X", None)
