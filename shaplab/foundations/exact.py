r"""Exact Shapley values of any game, Banzhaf values, and how far a sharing rule is from the axioms.

The Shapley value of player :math:`i` in a game :math:`v` on :math:`n` players is

.. math:: \varphi_i(v) = \sum_{S \not\ni i} \frac{|S|!\,(n-|S|-1)!}{n!}\,[v(S \cup i) - v(S)],

the mean over all :math:`n!` orderings of what :math:`i` adds to the players before it. Source:
Shapley (1953); Eq. 5 of Lundberg et al. (2020). Cost: :math:`2^n` values of the game, each used
once.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations
from math import comb, factorial
from typing import Any

import numpy as np

from shaplab._validation import as_numbers, check_int, check_real, fail
from shaplab.foundations.games import (
    TableGame,
    all_coalitions,
    check_players,
    evaluate_game,
    iterate_game,
)

__all__ = [
    "axioms",
    "banzhaf_values",
    "shapley_values",
    "shapley_values_literal",
    "shapley_values_orderings_literal",
]

Game = Callable[[np.ndarray], Any]
ESTIMATE_INSTEAD = (
    "Call estimate_values(game, {n}, max_evaluations={budget}), of a model permutation_shap or "
    "kernel_shap, or group players"
)


def shapley_values_literal(game: Game, n_players: int) -> np.ndarray:
    """Shapley values by the formula: every subset that leaves the player out, with its weight."""
    N = range(n_players)
    phi = []
    for i in N:
        phi_i = 0.0
        for size in range(n_players):
            weight = factorial(size) * factorial(n_players - size - 1) / factorial(n_players)
            for S in combinations([j for j in N if j != i], size):
                without = np.isin(N, S)
                with_i = without | (np.arange(n_players) == i)
                phi_i = phi_i + weight * (game(with_i[None])[0] - game(without[None])[0])
        phi.append(phi_i)
    return np.array(phi)


def shapley_values_orderings_literal(game: Game, n_players: int) -> np.ndarray:
    """Shapley values by their story: players arrive in every order, each is paid what it adds."""
    total = [0.0] * n_players
    for order in permutations(range(n_players)):
        present = np.zeros((1, n_players), dtype=bool)
        before = game(present)[0]
        for i in order:
            present[0, i] = True
            after = game(present)[0]
            total[i] = total[i] + (after - before)
            before = after
    return np.array(total) / factorial(n_players)


def shapley_values(game: Game, n_players: int, *, batch_size: int = 4096) -> np.ndarray:
    """Exact Shapley values of a game.

    Parameters
    ----------
    game : callable, bool array ``(m, n_players)`` to ``(m, *payoff)``; one coalition a row.
    n_players : int, 1 to 24. Twenty players take about a second beside the game's own time.
    batch_size : int, coalitions valued in one call; bounds memory.

    Returns
    -------
    float64 array ``(n_players, *payoff)``, in the payoff's unit. Values sum over players to
    ``v(everybody) - v(nobody)``.

    Raises
    ------
    ValueError
        For more players than enumeration can hold
        (:func:`shaplab.foundations.estimate.estimate_values` takes any number), for another number
        than the game has, and for games that return the wrong number of values or values that are
        not finite.

    Notes
    -----
    Collecting the terms of the formula by coalition gives each value :math:`v(S)` the coefficient
    :math:`(|S|-1)!\\,(n-|S|)!/n!` for members and :math:`-|S|!\\,(n-|S|-1)!/n!` for the rest, so
    one matrix product a batch is enough, and the table of :math:`2^n` values is never stored.

    References
    ----------
    Shapley, "A Value for n-Person Games" (1953).

    Examples
    --------
    >>> from shaplab.foundations.games import TableGame
    >>> shapley_values(TableGame([0.0, 0.0, 0.0, 1.0]), 2)
    array([0.5, 0.5])
    """
    n = check_players(n_players, instead=ESTIMATE_INSTEAD)
    total: Any = 0.0
    for coalitions, values in iterate_game(game, n, check_int(batch_size, "batch_size")):
        total = total + np.tensordot(shapley_coefficients(coalitions), values, axes=1)
    return np.asarray(total)


def banzhaf_values(game: Game, n_players: int, *, batch_size: int = 4096) -> np.ndarray:
    """Exact Banzhaf values: the mean marginal contribution over all coalitions, each equally
    likely.

    Parameters
    ----------
    game, n_players, batch_size : as in :func:`shapley_values`.

    Returns
    -------
    float64 array ``(n_players, *payoff)``. The values do not sum to ``v(everybody) - v(nobody)`` in
    general.

    References
    ----------
    Banzhaf, "Weighted Voting Doesn't Work" (1965).
    """
    n = check_players(n_players)
    weight = 0.5 ** (n - 1)
    total: Any = 0.0
    for coalitions, values in iterate_game(game, n, check_int(batch_size, "batch_size")):
        total = total + np.tensordot(np.where(coalitions, weight, -weight).T, values, axes=1)
    return np.asarray(total)


def shapley_coefficients(coalitions: np.ndarray) -> np.ndarray:
    """What the values of coalitions ``(m, n)`` count in each player's Shapley value: ``(n, m)``."""
    n = coalitions.shape[1]
    # 1 / (n * C(n-1, s)) is s!(n-s-1)!/n! without large factorials.
    share = 1.0 / (n * np.array([comb(n - 1, s) for s in range(n)], dtype=np.float64))
    size = coalitions.sum(axis=1)
    # A member's share is that of the coalition without it; the padding is never chosen.
    inside = np.append(0.0, share)[size]
    outside = np.append(share, 0.0)[size]
    return np.where(coalitions, inside[:, None], -outside[:, None]).T


def axioms(
    values: np.ndarray,
    game: Game,
    n_players: int,
    *,
    rule: Callable[[Game, int], np.ndarray] | None = None,
    tolerance: float = 1e-9,
) -> dict[str, float]:
    """Measure how far an attribution is from each of Shapley's axioms and from monotonicity.

    Parameters
    ----------
    values : array ``(n_players,)``, the attribution to judge, in the game's unit.
    game : callable with scalar payoff, bool ``(m, n_players)`` to ``(m,)``.
    n_players : int, at most 12: every pair of players is compared on every coalition.
    rule : callable ``(game, n_players) -> values`` that made the attribution. Linearity and
        monotonicity speak of several games, so they are measured only with it: linearity on the
        game and a fixed second one, monotonicity on games in which a player's marginal
        contributions rise, or stay while others change.
    tolerance : float, relative to the game's range: marginal contributions this close count as
        equal.

    Returns
    -------
    dict of violations, 0 when the axiom holds: ``efficiency`` is ``abs(sum - (v(all) - v(none)))``,
    ``symmetry`` the largest difference between interchangeable players, ``null_player`` the largest
    value of a player that never adds anything, ``linearity`` the largest deviation from additivity,
    ``monotonicity`` the largest drop of a player's value when its contributions rose, or change of
    it when they stayed. All in the game's unit.

    Examples
    --------
    >>> from shaplab.foundations.games import TableGame
    >>> glove = TableGame([0.0, 0.0, 0.0, 1.0])
    >>> axioms(np.array([1.0, 0.0]), glove, 2)["symmetry"]
    1.0
    """
    n = check_players(n_players, maximum=12)
    values = as_numbers(values, "values")
    if values.shape != (n,) or not np.isfinite(values).all():
        fail(
            "values",
            f"shape ({n},), one finite value a player",
            values.tolist() if values.ndim == 1 else values,
            "Judge one scalar game at a time",
        )
    table = evaluate_game(game, all_coalitions(n))
    if table.ndim != 1:
        fail(
            "game",
            "a scalar payoff",
            f"payoff of shape {table.shape[1:]}",
            "Select one row and output of the game",
        )
    close = check_real(tolerance, "tolerance", low=0.0) * max(1e-300, float(np.ptp(table)))
    violations = {
        "efficiency": abs(float(values.sum() - (table[-1] - table[0]))),
        "symmetry": _asymmetry(values, table, close),
        "null_player": _null_value(values, table, close),
    }
    if rule is not None:
        # A second game, unlike the first, of about the same size.
        other = np.sin(1.0 + np.arange(2**n)) * (1.0 + np.abs(table).max())
        violations["linearity"] = _nonlinearity(rule, table, other, n)
        violations["monotonicity"] = _nonmonotonicity(rule, table, other, n)
    return violations


def _null_value(values: np.ndarray, table: np.ndarray, close: float) -> float:
    """The largest value of a player that never adds anything."""
    worst = 0.0
    for i in range(len(values)):
        without = _numbers_without(len(values), i)
        if np.abs(table[without | 1 << i] - table[without]).max() <= close:
            worst = max(worst, abs(float(values[i])))
    return worst


def _asymmetry(values: np.ndarray, table: np.ndarray, close: float) -> float:
    """The largest difference between players that add the same to every coalition without both."""
    worst = 0.0
    for j, i in combinations(range(len(values)), 2):
        neither = _numbers_without(len(values), i, j)
        if np.abs(table[neither | 1 << i] - table[neither | 1 << j]).max() <= close:
            worst = max(worst, abs(float(values[i] - values[j])))
    return worst


def _nonlinearity(rule: Any, table: np.ndarray, other: np.ndarray, n: int) -> float:
    """How far the values of a sum of two games are from the sum of their values."""
    apart = 2.0 * _shares(rule, table, n) - 3.0 * _shares(rule, other, n)
    together = _shares(rule, 2.0 * table - 3.0 * other, n)
    return float(np.abs(together - apart).max())


def _nonmonotonicity(rule: Any, table: np.ndarray, other: np.ndarray, n: int) -> float:
    """The largest wrong change of a player's value when contributions rise, or stay."""
    numbers = np.arange(2**n)
    coalitions = all_coalitions(n)
    scale = 1.0 + np.abs(table).max()
    own = _shares(rule, table, n)
    worst = 0.0
    for i in range(n):
        # First every marginal contribution of i rises; then none changes, though the game does.
        rise = scale * (1 + coalitions.sum(axis=1) % 2)
        raised = _shares(rule, table + np.where(coalitions[:, i], rise, 0.0), n)[i]
        same = _shares(rule, table + other[numbers & ~(1 << i)], n)[i]
        worst = max(worst, float(own[i] - raised), abs(float(own[i] - same)))
    return worst


def _numbers_without(n: int, *players: int) -> np.ndarray:
    """Numbers of the coalitions that none of these players is in."""
    numbers = np.arange(2**n)
    for i in players:
        numbers = numbers[(numbers >> i) & 1 == 0]
    return numbers


def _shares(rule: Callable[[Game, int], Any], table: np.ndarray, n: int) -> np.ndarray:
    """What a rule gives the players of the game with this table of values."""
    if not callable(rule):
        fail(
            "rule",
            "a callable (game, n_players) -> values",
            rule,
            "Pass the function that made them",
            TypeError,
        )
    values = as_numbers(rule(TableGame(table), n), "rule", "values from the rule")
    if values.shape != (n,):
        fail(
            "rule",
            f"{n} values, one a player",
            f"shape {values.shape}",
            "Return one value for each player",
        )
    return values
