r"""Interactions of a game with too many players to count, from some of its coalitions.

Every index is a sum over all coalitions, :math:`I(T) = \sum_S v(S)\, G(|T|, |S|, |S \cap T|)`.
Sizes with few coalitions are summed whole. Of the others S is drawn with its complement, with a
probability that depends on its size, and pays all T at once. Before that a polynomial with as many
terms as the draws can carry is taken off: its own interactions are known, and what is left varies
less. Each fifth of the draws is corrected by a polynomial fitted to the other four, so that the
estimate is unbiased and its spread is honest.
Source: the sum over coalitions is that of SHAP-IQ, Fumagalli et al. (2023). Chapter:
foundations/interactions.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from scipy.special import bernoulli

from shaplab._parallel import chunks
from shaplab._validation import fail
from shaplab.foundations._orders import (
    DiagonalRule,
    add_up,
    count_subsets,
    diagonal_rule,
    subsets_up_to,
)
from shaplab.foundations.answers import Answers

__all__ = ["InteractionSampling", "SampledInteractions"]

_FOLDS = 5
_FIRST_PAIRS = 200  # before precision may stop a run
_EXPECTED = 4096  # evaluations that sizes are chosen for, if precision may stop a run
_LEAST_PAIRS = 50  # whose spread a standard error can be taken from, ten in a fold
_ROWS_A_TERM = 3  # coalitions for each term of the polynomial
_MOST_TERMS = 2000
_CHUNK = 2**21  # coefficients at a time


class SampledInteractions(NamedTuple):
    """What sampling found."""

    values: np.ndarray  # (n_subsets, *payoff)
    std: np.ndarray  # like values
    base_value: np.ndarray  # (*payoff)
    evaluations: int
    pairs: int  # of a drawn coalition and its complement
    fitted_order: int  # of the polynomial


class _Target(NamedTuple):
    """What is estimated."""

    n_players: int
    order: int
    rule: DiagonalRule
    name: str  # of the index
    coefficients: np.ndarray  # G, (order + 1, n_players + 1, order + 1)
    by_size: list[np.ndarray]  # subsets of each size, (C(n, t), t)


class InteractionSampling:
    """Coalitions to ask for, and what follows for interactions of an ``(order, index)`` from at
    most ``max_evaluations`` of them."""

    def __init__(
        self,
        answers: Answers,
        kind: tuple[int, str],
        max_evaluations: int,
        allowed: Callable[[np.ndarray], float] | None = None,
    ) -> None:
        """``allowed``: the largest standard error, from values, with which a run may stop."""
        self.answers = answers
        self.allowed = allowed
        n = answers.n
        order, index = kind
        self.target = _target_of(n, order, index)
        # Two coalitions are asked for once more, if that leaves enough.
        least = least_evaluations(n, order, index)
        self.checks = max_evaluations - 2 >= least
        budget = max_evaluations - 2 if self.checks else max_evaluations
        self.chances = _size_chances(self.target)
        # Whole sizes are asked for at once: not too many of them if the run may stop soon.
        aim = budget if allowed is None else min(budget, max(least, _EXPECTED))
        whole = _whole_sizes(self.target, aim, self.chances)
        self.chances[whole] = 0.0
        self.counted = _all_of_sizes(n, np.flatnonzero(whole))
        n_pairs = (budget - len(self.counted)) // 2 if self.chances.any() else 0
        self.drawn = _draw(n, self.chances, n_pairs, answers.entropy)

    def ask(self, n_pairs: int) -> None:
        """Ask for what is counted and for the first pairs, and see whether the game answers the
        same."""
        answers = self.answers
        answers.ask(self.counted)
        # Both of a pair side by side, so that an interrupted run has whole pairs.
        first = self.drawn[:n_pairs]
        both = np.stack([first, ~first], axis=1).reshape(-1, answers.n)
        answers.ask(both)
        if (self.checks or answers.resumed) and not answers.repeated:
            answers.check_same_answer(np.concatenate([self.counted, both])[[-1, 1]])

    def run(self) -> tuple[SampledInteractions, str]:
        """What the whole budget finds, or fewer pairs if these are precise enough; and why no more
        was asked."""
        allowed = self.allowed
        most = len(self.drawn)
        count = most if allowed is None else min(most, _FIRST_PAIRS)
        while True:
            self.ask(count)
            found = self.estimate(count)
            if allowed is None or not most:
                return found, "budget"
            ratio = float(found.std.max()) / allowed(found.values)
            if ratio <= 1.0:
                return found, "precision"
            if count == most:
                return found, "budget"
            # Errors fall with the root of the pairs, at least; a forecast is trusted up to twice of
            # what there is.
            ahead = np.clip(count * min(ratio, 2.0) ** 2, 1.1 * count + 1, 2 * count)
            count = min(most, int(ahead))

    def count_known(self) -> int | None:
        """How many pairs, from the first one on, are known; None if these are too few."""
        answers = self.answers
        if answers.count_known(self.counted) < len(self.counted):
            return None
        count = min(answers.count_known(self.drawn), answers.count_known(~self.drawn))
        return count if count >= _LEAST_PAIRS else None

    def estimate(self, n_pairs: int) -> SampledInteractions:
        """Interactions from the first pairs."""
        unit = self.answers.unit()
        counted = self.answers.values(self.counted) / unit
        base_value = counted[0]  # nobody is counted first
        counted = counted - base_value
        drawn = self.drawn[:n_pairs]
        if n_pairs == 0:
            total = _weighted_sum(self.target, self.counted, counted)
            found = (total, np.zeros_like(total), 0)
        else:
            near = self.answers.values(drawn) / unit - base_value
            far = self.answers.values(~drawn) / unit - base_value
            pairs = (drawn, near, far)
            found = _cross_fitted(self.target, (self.counted, counted), pairs, self.chances)
        payoff = next(iter(self.answers.known.values())).shape
        shape = (len(found[0]), *payoff)
        return SampledInteractions(
            unit * found[0].reshape(shape),
            unit * found[1].reshape(shape),
            unit * base_value.reshape(payoff),
            self.answers.asked,
            n_pairs,
            found[2],
        )


def least_evaluations(n_players: int, order: int, index: str) -> int:
    """The smallest budget: sizes that must be whole, and enough pairs for a standard error."""
    if index == "Moebius":
        return 1 + count_subsets(n_players, order)
    needed = max(1, order - 1 if index in ("STII", "k-SII") else 1)
    low = 1 + count_subsets(n_players, needed)
    high = low if index == "k-SII" else 1 + n_players
    # All coalitions are enough for anything.
    return min(low + high + 2 * _LEAST_PAIRS, 2**n_players)


def _target_of(n: int, order: int, index: str) -> _Target:
    """The coefficient of ``v(S)`` in ``I(T)``, by sizes of T, of S, and of what they share."""
    rule = diagonal_rule(index, order, n)
    table = np.zeros((order + 1, n + 1, order + 1))
    for t in range(1, order + 1):
        for beside in range(n - t + 1):  # players of S outside T
            powers = rule.nodes**beside * (1.0 - rule.nodes) ** (n - t - beside)
            weight = rule.weights[t] @ powers
            for shared in range(t + 1):
                table[t, beside + shared, shared] = (-1) ** (t - shared) * weight
    if index == "k-SII":
        table = _added_up(table, n, order)
    subsets = [np.array(list(combinations(range(n), t)), np.int64) for t in range(1, order + 1)]
    return _Target(n, order, rule, index, table, subsets)


def _added_up(table: np.ndarray, n: int, order: int) -> np.ndarray:
    """Coefficients of k-SII from those of SII: T takes part in all larger sets that hold it, which
    differ by how many of their other players S has."""
    numbers = bernoulli(order)
    result = np.zeros_like(table)
    for t in range(1, order + 1):
        for shared in range(t + 1):
            for beside in range(n - t + 1):
                s = beside + shared
                for more in range(order - t + 1):
                    for inside in range(more + 1):
                        ways = comb(beside, inside) * comb(n - t - beside, more - inside)
                        if ways:
                            part = numbers[more] * table[t + more, s, shared + inside]
                            result[t, s, shared] += ways * part
    return result


def _size_chances(target: _Target) -> np.ndarray:
    """Chance of each size of S, ``(n + 1,)``: as its coefficients' mean size, on average over the
    sizes of T; the same for S and its complement.

    The mean is of fourth powers. Squares would make the error as small, but leave a subset of T to
    a few rare draws of large weight, whose spread is seen too late: intervals were too short.
    """
    n = target.n_players
    chances = np.zeros(n + 1)
    for t in range(1, target.order + 1):
        size = np.zeros(n + 1)
        for s in range(n + 1):
            fourth = 0.0
            for shared in range(max(0, t - n + s), min(t, s) + 1):
                likely = comb(t, shared) * comb(n - t, s - shared) / comb(n, s)
                fourth += likely * target.coefficients[t, s, shared] ** 4
            size[s] = comb(n, s) * fourth**0.25
        chances += size / size.sum()
    # What is 0 but for rounding takes no draws.
    chances[chances < 1e-12 * chances.max()] = 0.0
    return (chances + chances[::-1]) / 2.0


def _whole_sizes(target: _Target, max_evaluations: int, chances: np.ndarray) -> np.ndarray:
    """Sizes all of whose coalitions are valued: nobody, one player, and their complements; what the
    index needs whole; then more while a quarter of the budget lasts."""
    n = target.n_players
    whole = np.zeros(n + 1, bool)
    least = least_evaluations(n, target.order, target.name)
    if max_evaluations < least:
        fail(
            "max_evaluations",
            f"at least {least} for order {target.order} of {target.name} with {n} players",
            str(max_evaluations),
            f"Pass max_evaluations={least} or more, or a lower order",
        )
    if target.name == "Moebius":
        whole[: target.order + 1] = True
        chances[:] = 0.0
        return whole
    whole[[0, 1, n - 1, n]] = True
    if target.name in ("STII", "k-SII"):
        whole[: target.order] = True
    if target.name == "k-SII":
        # A subset below the highest order weighs itself and its complement by a half, however many
        # players there are: whether those two are drawn would be most of its error, seen too late.
        whole[n - target.order + 1 :] = True
    spent = sum(comb(n, int(s)) for s in np.flatnonzero(whole))
    for s in range(2, n // 2 + 1):
        wanted = [size for size in {s, n - s} if not whole[size]]
        spent += sum(comb(n, size) for size in wanted)
        if spent > max_evaluations // 4:
            break
        whole[wanted] = True
    return whole


def _all_of_sizes(n: int, sizes: np.ndarray) -> np.ndarray:
    """All coalitions of these sizes, nobody first."""
    rows = []
    for size in sizes:
        members = np.array(list(combinations(range(n), int(size))), np.int64)
        block = np.zeros((len(members), n), bool)
        np.put_along_axis(block, members.reshape(len(members), -1), True, axis=1)
        rows.append(block)
    return np.concatenate(rows)


def _draw(n: int, chances: np.ndarray, count: int, entropy: list[int]) -> np.ndarray:
    """Coalitions whose sizes have these chances, ``(count, n)``; more of them begin with these."""
    if count == 0:
        return np.zeros((0, n), bool)
    of_sizes, of_members = (
        np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(which,)))
        for which in range(2)
    )
    sizes = of_sizes.choice(n + 1, size=count, p=chances / chances.sum())
    rank = of_members.random((count, n)).argsort(axis=1).argsort(axis=1)
    return np.asarray(rank < sizes[:, None])


def _rows_coefficients(target: _Target, coalitions: np.ndarray) -> np.ndarray:
    """``G`` of each coalition and subset, ``(m, n_subsets)``."""
    sizes = coalitions.sum(axis=1)[:, None]
    columns = []
    for t, subsets in enumerate(target.by_size, start=1):
        shared = np.zeros((len(coalitions), len(subsets)), np.int64)
        for place in range(t):
            shared += coalitions[:, subsets[:, place]]
        columns.append(target.coefficients[t][sizes, shared])
    return np.concatenate(columns, axis=1)


def _row_chunks(target: _Target, n_rows: int) -> list[slice]:
    n_subsets = sum(map(len, target.by_size))
    return list(chunks(n_rows, max(1, _CHUNK // n_subsets)))


def _weighted_sum(target: _Target, coalitions: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum of ``v(S) G`` over the rows, ``(n_subsets, columns)``."""
    total = np.zeros((sum(map(len, target.by_size)), values.shape[1]))
    for part in _row_chunks(target, len(coalitions)):
        total += _rows_coefficients(target, coalitions[part]).T @ values[part]
    return total


def _cross_fitted(
    target: _Target,
    counted: tuple[np.ndarray, np.ndarray],
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    chances: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Values, standard errors and the order of the polynomial; ``counted`` are coalitions and their
    values, ``pairs`` drawn ones, their values, and those of their complements."""
    drawn, near, far = pairs
    n = target.n_players
    n_pairs = len(drawn)
    columns = near.shape[1]
    fold = np.arange(n_pairs) % _FOLDS
    order = _fitted_order(n, target.order, n_pairs)
    models = [
        _fit(
            np.concatenate([drawn[fold != f], ~drawn[fold != f]]),
            np.concatenate([near[fold != f], far[fold != f]]),
            order,
        )
        for f in range(_FOLDS)
    ]
    together = np.concatenate(models, axis=1)
    left = np.tile(counted[1], (1, _FOLDS)) - _parities(counted[0], order) @ together
    rest = _weighted_sum(target, counted[0], left) + _known(target, together, order)
    # How many coalitions of its size a drawn one stands for, over their chance.
    share = chances / chances.sum()
    weight = np.array([comb(n, s) / share[s] if share[s] > 0 else 0.0 for s in range(n + 1)])
    value = np.zeros((len(rest), columns))
    variance = np.zeros_like(value)
    for f, model in enumerate(models):
        own = np.flatnonzero(fold == f)
        size = drawn[own].sum(axis=1)
        scale = weight[size][:, None]
        # A size that is counted whole is not drawn from the other side either: there the drawn one
        # alone stands for its size, which it else shares with the complements of the other.
        both = (share[n - size] > 0)[:, None]
        off_near = scale * (near[own] - _parities(drawn[own], order) @ model)
        off_near = np.where(both, off_near, 2.0 * off_near)
        off_far = scale * (far[own] - _parities(~drawn[own], order) @ model)
        off_far = np.where(both, off_far, 0.0)
        mean, square = _pair_moments(target, drawn[own], off_near, off_far)
        spread = np.maximum(square - mean**2, 0.0) * len(own) / (len(own) - 1)
        value += len(own) / n_pairs * (rest[:, f * columns : (f + 1) * columns] + mean)
        variance += len(own) / n_pairs**2 * spread
    return value, np.sqrt(variance), order


def _pair_moments(
    target: _Target, drawn: np.ndarray, near: np.ndarray, far: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and mean square, of what a pair says of each subset."""
    total: np.ndarray | float = 0.0
    square: np.ndarray | float = 0.0
    for part in _row_chunks(target, len(drawn)):
        ours = _rows_coefficients(target, drawn[part]) / 2.0
        theirs = _rows_coefficients(target, ~drawn[part]) / 2.0
        total = total + ours.T @ near[part] + theirs.T @ far[part]
        square = square + (ours**2).T @ near[part] ** 2 + (theirs**2).T @ far[part] ** 2
        square = square + 2.0 * (ours * theirs).T @ (near[part] * far[part])
    return np.asarray(total) / len(drawn), np.asarray(square) / len(drawn)


def _fitted_order(n: int, order: int, n_pairs: int) -> int:
    """The highest order whose terms the draws of four folds can carry."""
    carried = min(_MOST_TERMS, 2 * n_pairs * (_FOLDS - 1) // _FOLDS // _ROWS_A_TERM)
    fitting = [k for k in range(1, order + 1) if 1 + count_subsets(n, k) <= carried]
    return max(fitting, default=0)


def _parities(coalitions: np.ndarray, order: int) -> np.ndarray:
    """1, then the product over each subset of +1 for members of S and -1 for others, ``(m,
    1 + n_subsets)``."""
    signs = np.where(coalitions, 1.0, -1.0)
    columns = [np.ones((len(signs), 1))]
    n = signs.shape[1]
    for size in range(1, order + 1):
        subsets = np.array(list(combinations(range(n), size)), np.int64)
        product = signs[:, subsets[:, 0]]
        for place in range(1, size):
            product = product * signs[:, subsets[:, place]]
        columns.append(product)
    return np.concatenate(columns, axis=1)


def _fit(coalitions: np.ndarray, values: np.ndarray, order: int) -> np.ndarray:
    """Coefficients of the nearest polynomial, ``(terms, columns)``."""
    terms = _parities(coalitions, order)
    normal = terms.T @ terms
    # Only rounding is kept away: where terms are told apart, this changes nothing that shows.
    normal[np.diag_indices_from(normal)] += 1e-9 * len(terms)
    return np.asarray(np.linalg.solve(normal, terms.T @ values))


def _known(target: _Target, coefficients: np.ndarray, order: int) -> np.ndarray:
    """Interactions of a polynomial in parities, ``(n_subsets, columns)``: the derivative of a term
    U in T, inside U, is ``2^t (2 p - 1)^(u - t)``."""
    rule = target.rule  # of k-SII that of SII
    subsets = subsets_up_to(target.n_players, target.order)
    place = {T: number for number, T in enumerate(subsets)}
    result = np.zeros((len(subsets), coefficients.shape[1]))
    odds = 2.0 * rule.nodes - 1.0
    for size in range(1, order + 1):
        start = 1 + (count_subsets(target.n_players, size - 1) if size > 1 else 0)
        larger = target.by_size[size - 1]
        for t in range(1, size + 1):
            factor = 2.0**t * (rule.weights[t] @ odds ** (size - t))
            for chosen in combinations(range(size), t):
                inside = [place[tuple(T)] for T in larger[:, list(chosen)].tolist()]
                part = factor * coefficients[start : start + len(larger)]
                np.add.at(result, inside, part)
    return add_up(result, subsets) if target.name == "k-SII" else result
