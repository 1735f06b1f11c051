r"""Shapley interaction values of any game.

The interaction of players :math:`i \neq j` is the Shapley-weighted mean of what they add together
beyond what each adds alone, half of it in each of the cells :math:`(i, j)` and :math:`(j, i)`:

.. math:: \Phi_{ij} = \sum_{S \not\ni i,j} \frac{|S|!\,(n-|S|-2)!}{2\,(n-1)!}
          [v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)],

and the diagonal holds main effects, :math:`\Phi_{ii} = \varphi_i - \sum_{j \ne i} \Phi_{ij}`.
Source: Fujimoto, Kojadinovic and Marichal (2006); Eq. 15-19 of Lundberg et al. (2020).
Cost: :math:`2^n` values of the game.
"""

from __future__ import annotations

from itertools import combinations
from math import comb, factorial
from typing import Any

import numpy as np

from shaplab._validation import check_int
from shaplab.foundations.exact import Game, shapley_values_literal
from shaplab.foundations.games import check_players, iterate_game

__all__ = ["interaction_values", "interaction_values_literal"]


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


def interaction_values(game: Game, n_players: int, *, batch_size: int = 4096) -> np.ndarray:
    """Exact Shapley interaction values of a game.

    Parameters
    ----------
    game : callable, bool array ``(m, n_players)`` to ``(m, *payoff)``.
    n_players : int, 1 to 24.
    batch_size : int, coalitions valued in one call; bounds memory.

    Returns
    -------
    float64 array ``(n_players, n_players, *payoff)``, symmetric in its first two axes; each row
    sums to the player's Shapley value, the whole matrix to ``v(everybody) - v(nobody)``.

    Notes
    -----
    One matrix product a batch, with :math:`n^2` coefficients for each coalition.

    References
    ----------
    Lundberg et al., "From local explanations to global understanding with explainable AI for trees"
    (2020), Eq. 15-19.

    Examples
    --------
    >>> from shaplab.foundations.games import TableGame
    >>> interaction_values(TableGame([0.0, 0.0, 0.0, 1.0]), 2)
    array([[0. , 0.5],
           [0.5, 0. ]])
    """
    n = check_players(n_players)
    batch = check_int(batch_size, "batch_size")
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
