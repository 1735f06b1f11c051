"""Checks of the exercises of the part *foundations*."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

import shaplab
from shaplab_book.checking import expect

__all__ = [
    "ex_constrained",
    "ex_count_votes",
    "ex_draw_pairs",
    "ex_matrix",
    "ex_moebius",
    "ex_one_call",
    "ex_same_rows",
    "ex_sii",
    "ex_strata",
    "ex_structures_count",
    "ex_structures_owen",
    "ex_walk",
    "ex_weights",
]


def ex_weights(answer: Callable[..., Any]) -> None:
    """``coalition_weights(n)``: giving every coalition the same weight, as Banzhaf's rule does."""
    for n in (1, 2, 3, 4, 5, 9, 30):
        truth = [
            math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n) for s in range(n)
        ]
        hint = "Of the n! orders, count those in which i finds exactly the s members of S"
        expect(f"n = {n}", answer(n), truth, atol=1e-12, hint=hint)


def ex_matrix(answer: Callable[..., Any]) -> None:
    """``shapley_matrix(n)``: leaving out the minus of the coalitions without the player."""
    hint = "A coalition adds to its members' values and takes from its outsiders'"
    for n in (1, 2, 3, 6):
        matrix = answer(n)
        expect(f"the shape of the matrix for n = {n}", np.shape(matrix), (n, 2**n))
        table = np.random.default_rng(n).normal(size=2**n)
        truth = shaplab.shapley_values(shaplab.TableGame(table), n)
        # Sums of at most 64 numbers of order one.
        expect(f"a random game of {n}", np.asarray(matrix) @ table, truth, 1e-12, hint)


def ex_count_votes(answer: Callable[..., Any]) -> None:
    """``voting_power(weights, quota)``: counting coalitions without their size, as Banzhaf does."""
    hint = "With s others before it, a player has the weight s! (n - s - 1)! / n!"
    cases = [([3], 2), ([2, 1, 1], 3), ([4, 2, 2, 1, 1], 6), ([1, 1, 1, 1], 4), ([5, 1, 1], 5)]
    for weights, quota in cases:
        votes = np.array(weights)
        truth = shaplab.shapley_values(
            lambda S, votes=votes, quota=quota: (S @ votes >= quota) * 1.0, len(weights)
        )
        expect(f"weights {weights} and quota {quota}", answer(weights, quota), truth, 1e-12, hint)
    expect("a quota out of reach", answer([1, 2], 4), [0.0, 0.0], 1e-12, hint)
    expect("thirty equal parties", answer([3] * 30, 50), np.full(30, 1 / 30), 1e-12, hint)


def ex_one_call(answer: Callable[..., Any]) -> None:
    """``one_call_game(f, x, background)``: taking the known features from the background."""
    hint = "Known features come from x, all others from the background row"
    rng = np.random.default_rng(0)
    for players, size in ((1, 1), (3, 1), (4, 7)):
        calls = []

        def model(X: np.ndarray, calls: list[int] = calls) -> np.ndarray:
            calls.append(len(X))
            return np.tanh(X).sum(axis=1) + X[:, 0] * X[:, -1]

        x = rng.normal(size=players)
        background = rng.normal(size=(size, players))
        everybody = shaplab.all_coalitions(players)
        truth = shaplab.MarginalGame(model, x[None], background)(everybody)[:, 0]
        game = answer(model, x, background)
        calls.clear()
        got = game(everybody)
        name = f"{players} features and {size} background rows"
        # Means of at most seven numbers of order one.
        expect(name, got, truth, 1e-12, hint)
        expect(f"the calls of the model with {name}", len(calls), 1)
        expect(f"one coalition of {name}", game(everybody[-1:]), truth[-1:], 1e-12, hint)


def ex_same_rows(answer: Callable[..., Any]) -> None:
    """``same_rows_game(f, x, rows)``: the mean over all rows, with the known features replaced."""
    hint = "Leave out the rows that differ from x in a known feature; change none"
    rng = np.random.default_rng(0)
    for players, size in ((1, 3), (2, 6), (4, 30)):
        rows = rng.integers(0, 2, size=(size, players)).astype(float)

        def model(X: np.ndarray) -> np.ndarray:
            return 3 * X[:, 0] + X.sum(axis=1) ** 2

        everybody = shaplab.all_coalitions(players)
        truth = shaplab.DiscreteGame(model, rows[:1], rows)(everybody)[:, 0]
        got = answer(model, rows[0], rows)(everybody)
        expect(f"{size} rows of {players} features", got, truth, 1e-12, hint)


def ex_walk(answer: Callable[..., Any]) -> None:
    """``walk_both_ways(game, order)``: returning the steps in the order of arrival."""
    hint = (
        "Entry i belongs to player i; the way back begins with everybody and loses the first first"
    )
    expect("one player", answer(shaplab.TableGame([1.0, 4.0]), [0]), [3.0], 1e-12, hint)
    rng = np.random.default_rng(0)
    pairs = np.triu(rng.normal(size=(4, 4)))

    def of_pairs(S: np.ndarray) -> np.ndarray:
        return np.einsum("mi,ij,mj->m", S * 1.0, pairs, S * 1.0)

    exact = shaplab.shapley_values(of_pairs, 4)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        expect(f"a game of pairs in the order {order}", answer(of_pairs, order), exact, 1e-12, hint)
    game = shaplab.TableGame(rng.normal(size=32))
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 1, 3]):
        wanted = np.zeros(5)
        for place, player in enumerate(order):
            before = np.isin(np.arange(5), order[:place])
            for start in (before, ~before & (np.arange(5) != player)):
                present = start | (np.arange(5) == player)
                wanted[player] += np.diff(game(np.stack([start, present])))[0] / 2
        expect(f"a random game in the order {order}", answer(game, order), wanted, 1e-12, hint)


def ex_strata(answer: Callable[..., Any]) -> None:
    """``stratified(game, n, draws, rng)``: drawing all coalitions equally often, not all sizes."""
    hint = "Average within a size first; then all n sizes from 0 to n - 1 count the same"
    rng = np.random.default_rng(0)
    one = shaplab.TableGame([1.0, 4.0])
    expect("one player", answer(one, 1, 2, rng), [3.0], 1e-12, hint)
    single = np.array([1.0, -2.0, 0.0, 4.0, 0.5])

    def by_size(S: np.ndarray) -> np.ndarray:
        return S @ single + S.sum(axis=1) ** 3.0

    for draws in (1, 3):
        got = answer(by_size, 5, draws, rng)
        truth = shaplab.shapley_values(by_size, 5)
        expect(f"a game of sizes and {draws} draws", got, truth, 1e-10, hint)
    random = shaplab.TableGame(np.random.default_rng(1).normal(size=16))
    truth = shaplab.shapley_values(random, 4)
    # Contributions spread by about 1.4; the mean of 4 sizes of 600 draws by 0.03.
    expect("a random game and 600 draws", answer(random, 4, 600, rng), truth, 0.15, hint)


def ex_constrained(answer: Callable[..., Any]) -> None:
    """``constrained_fit(coalitions, gains, weights, total)``: a free fit, moved afterwards."""
    hint = "The constraint belongs into the fit: eliminate a player, or add an unknown for it"
    nobody = np.zeros((0, 1), dtype=bool)
    none = np.zeros(0)
    expect("one player", answer(nobody, none, none, 3.0), [3.0], 1e-9, hint)
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        table = rng.normal(size=2**n)
        inner = shaplab.all_coalitions(n)[1:-1]
        size = inner.sum(axis=1)
        mu = [(n - 1) / (math.comb(n, s) * s * (n - s)) for s in size]
        gains = table[1:-1] - table[0]
        got = answer(inner, gains, np.array(mu), table[-1] - table[0])
        truth = shaplab.shapley_values(shaplab.TableGame(table), n)
        # Systems of at most six unknowns, well conditioned.
        expect(f"all coalitions of {n} players", got, truth, 1e-9, hint)
    for total in (0.0, 2.0):
        drawn = rng.random((12, 4)) < 0.5
        weights = rng.uniform(0.5, 2.0, size=12)
        gains = rng.normal(size=12)
        root = np.sqrt(weights)
        left = (drawn[:, :-1] * 1.0 - drawn[:, -1:]) * root[:, None]
        first = np.linalg.lstsq(left, (gains - drawn[:, -1] * total) * root, rcond=None)[0]
        wanted = np.append(first, total - first.sum())
        got = answer(drawn, gains, weights, total)
        expect(f"twelve drawn coalitions and the total {total:.0f}", got, wanted, 1e-9, hint)


def ex_draw_pairs(answer: Callable[..., Any]) -> None:
    """``draw_pairs(n, pairs, rng)``: a coin for every player, so mostly middle sizes."""
    rng = np.random.default_rng(0)
    for n, pairs in ((2, 3), (5, 1), (9, 40)):
        drawn = np.asarray(answer(n, pairs, rng))
        name = f"{pairs} pairs of {n} players"
        expect(f"the shape of {name}", drawn.shape, (2 * pairs, n))
        expect(f"the kind of numbers of {name}", drawn.dtype.kind, "b")
        expect(f"the second half of {name}", drawn[pairs:], ~drawn[:pairs], hint="Complements")
        empty = np.isin(drawn.sum(axis=1), (0, n)).sum()
        expect(f"nobody or everybody among {name}", empty, 0)
    first = np.asarray(answer(5, 20_000, rng))[:20_000]
    size = first.sum(axis=1)
    shares = [(size == s).mean() for s in (1, 2, 3, 4)]
    # A share of 1/4 of 20,000 draws is off by 0.003, one of 5,000 draws by 0.007.
    expect("the share of each size", shares, np.full(4, 0.25), 0.02, "Draw the size first")
    for s in (1, 2, 3, 4):
        inside = first[size == s].mean(axis=0)
        hint = "Within a size all players are alike"
        expect(f"the share of each player in size {s}", inside, np.full(5, s / 5), 0.04, hint)


def ex_moebius(answer: Callable[..., Any]) -> None:
    """``moebius(table)``: changing the caller's table; adding for subtracting."""
    hint = "Take from every set with the player what the set without the player has by now"
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 3, 6):
        table = rng.normal(size=2**n)
        kept = table.copy()
        sets = shaplab.all_coalitions(n) if n else np.zeros((1, 0), dtype=bool)
        size = sets.sum(axis=1)
        inside = (sets[None] <= sets[:, None]).all(axis=2)
        truth = (inside * (-1.0) ** (size[:, None] - size)) @ table
        got = answer(table)
        # Sums of at most 64 numbers of order one.
        expect(f"a random game of {n}", got, truth, 1e-11, hint)
        expect(f"the caller's table of {n}", table, kept, 0.0, "Work on a copy")


def ex_sii(answer: Callable[..., Any]) -> None:
    """``sii(dividends, T)``: dividing by the size of the set, whatever T is."""
    hint = "A set U pays 1 / (|U| - |T| + 1) of itself to each T inside it"
    expect("a set that nothing contains", answer({frozenset([0]): 2.0}, {1}), 0.0, 1e-12, hint)
    rng = np.random.default_rng(0)
    table = rng.normal(size=16)
    game = shaplab.TableGame(table)
    found = shaplab.interaction_values(game, 4, index="Moebius")
    dividends = {frozenset(U): float(found[U]) for U in found.subsets}
    truth = shaplab.interaction_values(game, 4, order=4, index="SII")
    for T in ((0,), (3,), (0, 1), (1, 3), (0, 2, 3), (0, 1, 2, 3)):
        name = "the players " + ", ".join(map(str, T))
        expect(name, answer(dividends, T), float(truth[T]), 1e-11, hint)


def ex_structures_owen(answer: Callable[..., Any]) -> None:
    """``owen(game, unions)``: weighing by the number of players before, not of unions before."""
    hint = "Sizes count twice: whole unions among the unions, members among the union's members"
    rng = np.random.default_rng(0)
    structures: list[list[list[int]]] = [
        [[0]],
        [[0, 1], [2]],
        [[0, 1, 2]],
        [[2], [0], [1]],
        [[4, 0], [1, 3, 2]],
        [[0, 5], [1], [2, 3], [4]],
    ]
    for unions in structures:
        n = sum(map(len, unions))
        game = shaplab.TableGame(rng.normal(size=2**n))
        expect(f"{unions}", answer(game, unions), shaplab.owen_values(game, unions), 1e-11, hint)


def ex_structures_count(answer: Callable[..., Any]) -> None:
    """``count_orderings(pairs, n)``: dividing n! by 2 for each pair, which pairs in a row break."""
    hint = "From each down-set go on with every player whose predecessors are in it"
    cases: list[tuple[list[tuple[int, int]], int]] = [
        ([], 1),
        ([], 5),
        ([(0, 1)], 2),
        ([(0, 1), (1, 2), (2, 3)], 4),
        ([(0, 1), (0, 2), (3, 2)], 5),
        ([(0, 1), (1, 0)], 3),
    ]
    for pairs, n in cases:
        orders = itertools.permutations(range(n))
        listed = [all(o.index(a) < o.index(b) for a, b in pairs) for o in orders]
        expect(f"the pairs {pairs} of {n}", answer(pairs, n), sum(listed), 0.0, hint)
    chain = [(k, k + 1) for k in range(17)]
    expect("a row of eighteen", answer(chain, 18), 1, 0.0, hint)
