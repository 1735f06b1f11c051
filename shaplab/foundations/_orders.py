r"""Interaction indices as integrals over one line of coalitions.

Let everybody but the players of T come independently with probability p, and let
:math:`\Delta_T(p)` be the expected discrete derivative :math:`D_T v(S) = \sum_{L \subseteq T}
(-1)^{|T| - |L|} v(S \cup L)`. It is a polynomial of degree n - t, and every index here is
:math:`\int \Delta_T(p)\, d\mu_t(p)` for a measure that depends on t = |T| and on the order k only:
so Gauss-Legendre nodes give it exactly, and no sum over subsets of subsets is needed.

=========  ==========================================================================
SII        uniform
STII       density k (1 - p)^(k - 1) where t = k, the point 0 where t < k
FSII       p^(t-1) (1-p)^(t-1) times the Jacobi polynomial of degree k - t for (t-1, t)
Banzhaf    the point 1/2
Moebius    the point 0
=========  ==========================================================================

k-SII is what remains of SII when the orders are made to add up, with Bernoulli numbers.
Sources: Grabisch and Roubens (1999); Sundararajan, Dhamdhere and Agarwal (2020); Tsai, Yeh and
Ravikumar (2023); Bordt and von Luxburg (2023). Chapter: foundations/interactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.special import bernoulli, eval_jacobi

from shaplab._validation import check_choice, check_int, fail

__all__ = [
    "EFFICIENT",
    "INDICES",
    "DiagonalRule",
    "add_up",
    "check_order",
    "check_pairs",
    "containments",
    "count_subsets",
    "diagonal_rule",
    "subsets_up_to",
]

INDICES = ("SII", "k-SII", "STII", "FSII", "Banzhaf", "Moebius")
EFFICIENT = ("k-SII", "STII", "FSII")  # orders 1 to k sum to v(everybody) - v(nobody)
_MOST_PAIRS = 2**25  # of a subset and a larger one, which k-SII looks at


class DiagonalRule(NamedTuple):
    """How an index integrates."""

    nodes: np.ndarray  # (q,) probabilities
    weights: np.ndarray  # (order + 1, q), by the size of T; nothing for size 0


def check_order(order: int | None, index: str | None, n_players: int) -> tuple[int, str]:
    """Order and index, with what they are by default: 2, or everything for Moebius; SII."""
    index = check_choice("SII" if index is None else index, "index", INDICES)
    if order is None:
        order = n_players if index == "Moebius" else min(2, n_players)
    order = check_int(order, "order")
    if order > n_players:
        fail(
            "order",
            f"at most {n_players}, the number of players",
            str(order),
            f"Pass order={n_players} for all subsets",
        )
    return order, index


def diagonal_rule(index: str, order: int, n_players: int) -> DiagonalRule:
    """Nodes and weights that integrate the derivatives of a game of ``n_players`` exactly."""
    if index in ("Banzhaf", "Moebius"):
        weights = np.ones((order + 1, 1))
        weights[0] = 0.0
        return DiagonalRule(np.array([0.5 if index == "Banzhaf" else 0.0]), weights)
    # Derivatives have degree n - t, densities at most k - 1 (STII) or k + t - 2 (FSII).
    degree = n_players - 1 + (order - 1 if index == "FSII" else 0)
    nodes, gauss = np.polynomial.legendre.leggauss(degree // 2 + 1)
    nodes = (nodes + 1.0) / 2.0
    gauss = gauss / 2.0
    if index == "STII":
        nodes = np.append(nodes, 0.0)
        gauss = np.append(gauss, 0.0)
    weights = np.zeros((order + 1, len(nodes)))
    for t in range(1, order + 1):
        if index == "STII" and t < order:
            weights[t, -1] = 1.0
            continue
        weights[t] = gauss * _density(index, t, order, nodes)
        weights[t] /= weights[t].sum()
    return DiagonalRule(nodes, weights)


def _density(index: str, t: int, order: int, p: np.ndarray) -> np.ndarray:
    """The measure's density at p, up to a factor."""
    if index == "STII":
        return (1.0 - p) ** (order - 1)
    if index == "FSII":
        jacobi = eval_jacobi(order - t, t - 1, t, 2.0 * p - 1.0)
        return np.asarray((p * (1.0 - p)) ** (t - 1) * jacobi)
    return np.ones(len(p))


def subsets_up_to(n_players: int, order: int) -> list[tuple[int, ...]]:
    """Subsets of 1 to ``order`` players, by size and then as in a dictionary."""
    return [T for size in range(1, order + 1) for T in combinations(range(n_players), size)]


def containments(subsets: Sequence[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of listed subsets T and U with T inside U: their places, T's and U's.

    Everything inside a listed subset must be listed, too.
    """
    sizes = np.array([len(U) for U in subsets], dtype=np.int64)
    n_pairs = int((2.0**sizes - 1).sum())
    check_pairs(n_pairs)
    place = {T: number for number, T in enumerate(subsets)}
    inside = np.empty(n_pairs, np.int64)
    count = 0
    for U in subsets:
        for size in range(1, len(U) + 1):
            for T in combinations(U, size):
                inside[count] = place[T]
                count += 1
    return inside, np.repeat(np.arange(len(subsets)), 2**sizes - 1)


def check_pairs(n_pairs: float) -> None:
    """Refuse k-SII of so many subsets that passing values on between them takes too long."""
    if n_pairs > _MOST_PAIRS:
        fail(
            "order",
            f"at most {_MOST_PAIRS:.1e} pairs of a subset and a larger one for k-SII",
            f"{n_pairs:.1e}",
            "Pass a lower order, or index='STII' or 'FSII', which need no such pairs",
        )


def add_up(values: np.ndarray, subsets: Sequence[tuple[int, ...]]) -> np.ndarray:
    """k-SII of SII ``(n_subsets, ...)``: ``sum over U with T inside of B_(|U| - |T|) SII(U)``."""
    if not subsets:
        return values
    small, large = containments(subsets)
    sizes = np.array([len(T) for T in subsets], dtype=np.int64)
    numbers = bernoulli(int(sizes.max(initial=1)))  # B_1 is -1/2
    shares = numbers[sizes[large] - sizes[small]]
    passes_on = csr_array((shares, (small, large)), shape=(len(subsets), len(subsets)))
    return np.asarray(passes_on @ values.reshape(len(subsets), -1)).reshape(values.shape)


def count_subsets(n_players: int, order: int) -> int:
    """How many subsets have 1 to ``order`` players."""
    return sum(comb(n_players, size) for size in range(1, order + 1))
