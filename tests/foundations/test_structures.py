"""Families and orders: against all orderings that they leave, one by one, and against what each
value promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab import GroupedGame, TableGame, shapley_values
from shaplab.foundations.structures import (
    asymmetric_values,
    asymmetric_values_literal,
    owen_values,
    owen_values_literal,
)

TIGHT = {"rtol": 0, "atol": 1e-12}  # sums of at most some thousand values of order 1


def table(seed: int, n: int, payoff: tuple[int, ...] = ()) -> TableGame:
    return TableGame(np.random.default_rng(seed).normal(size=(2**n, *payoff)))


@pytest.mark.parametrize(
    "unions",
    [
        [[0, 1], [2, 3, 4]],
        [[4, 0], [1], [3, 2]],
        [[0], [1], [2], [3], [4]],
        [[0, 1, 2, 3, 4]],
        [2, [0, 1], [4, 3]],
        [[[0, 3], [1]], [2, 4]],
        [[[0, [3, 4]], 1], 2],
    ],
)
@pytest.mark.parametrize("payoff", [(), (3, 2)])
def test_owen_values_are_the_mean_over_orderings_that_keep_unions_together(unions, payoff):
    game = table(0, 5, payoff)
    np.testing.assert_allclose(
        owen_values(game, unions), owen_values_literal(game, unions), **TIGHT
    )


def test_unions_of_one_and_one_union_are_shapley_values():
    game = table(1, 5)
    expected = shapley_values(game, 5)
    np.testing.assert_allclose(owen_values(game, [[i] for i in range(5)]), expected, **TIGHT)
    np.testing.assert_allclose(owen_values(game, [list(range(5))]), expected, **TIGHT)


def test_a_union_gets_its_share_of_the_game_between_unions():
    game = table(2, 6)
    unions = [[0, 4], [1, 2, 5], [3]]
    values = owen_values(game, unions)
    between = shapley_values(GroupedGame(game, unions), 3)
    np.testing.assert_allclose([values[union].sum() for union in unions], between, **TIGHT)


def test_only_coalitions_that_may_happen_are_valued_and_each_once():
    asked = []

    def game(S):
        asked.extend(map(tuple, S.tolist()))
        return S[:, 0] * 1.0

    owen_values(game, [[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    assert len(asked) == len(set(asked))
    assert len(asked) < 2**9 / 3


@examples(20)
@given(st.integers(0, 2**31), st.integers(2, 5))
def test_asymmetric_values_are_the_mean_over_orderings_that_respect_the_order(seed, n):
    rng = np.random.default_rng(seed)
    arrival = rng.permutation(n).tolist()  # an ordering that respects all pairs, so no circle
    pairs = [
        (arrival[i], arrival[j]) for i in range(n) for j in range(i + 1, n) if rng.random() < 0.3
    ]
    game = table(seed, n, (2,))
    values = asymmetric_values(game, pairs or [list(range(n))])
    np.testing.assert_allclose(values, asymmetric_values_literal(game, n, pairs), **TIGHT)
    total = game(np.ones((1, n), bool)) - game(np.zeros((1, n), bool))
    np.testing.assert_allclose(values.sum(axis=0), total[0], **TIGHT)


def test_levels_are_pairs_of_all_their_members():
    game = table(3, 5)
    pairs = [(before, after) for before in (3, 0) for after in (1, 4, 2)]
    levels = asymmetric_values(game, [[3, 0], [1, 4, 2]])
    np.testing.assert_allclose(levels, asymmetric_values(game, pairs), **TIGHT)


def test_a_chain_pays_what_each_adds_in_turn():
    game = table(4, 4)
    path = [2, 0, 3, 1]
    values = asymmetric_values(game, [[player] for player in path])
    present = np.zeros((5, 4), bool)
    for step, player in enumerate(path, start=1):
        present[step:, player] = True
    np.testing.assert_allclose(values[path], np.diff(game(present)), **TIGHT)


def test_a_long_chain_with_free_players_is_counted_exactly():
    """Thirty players, 30! orderings: counted over the few hundred down-sets of two chains."""

    def game(S):
        return S[:, 0] * 1.0 + S[:, :2].all(axis=1) + S[:, [0, 15]].all(axis=1) * 4.0

    chains = [(i, i + 1) for i in range(14)] + [(i, i + 1) for i in range(15, 29)]
    values = asymmetric_values(game, chains, 30)
    # Player 0 or 15 comes first with equal chance; whoever comes second of the two gets the 4.
    assert values[0] == pytest.approx(1.0 + 2.0, abs=1e-12)
    assert values[15] == pytest.approx(2.0, abs=1e-12)
    assert values[1] == pytest.approx(1.0, abs=1e-12)


def test_names():
    game = table(5, 3)
    names = ["age", "sex", "dose"]
    np.testing.assert_array_equal(
        owen_values(game, [["age", "sex"], ["dose"]], names=names),
        owen_values(game, [[0, 1], [2]]),
    )
    np.testing.assert_array_equal(
        asymmetric_values(game, [("age", "dose")], names=names),
        asymmetric_values(game, [(0, 2)]),
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: owen_values(g, [[0, 1], [1, 2]]), "unions: expected every player.*1 twice"),
        (lambda g: owen_values(g, [[0, 1], [3]]), "unions: expected every player.*no player 2"),
        (lambda g: owen_values(g, [[0, 1]]), "game: expected a game of the 2 players"),
        (lambda g: owen_values(g, 3), "unions: expected a list"),
        (lambda g: owen_values(g, [["a"], [1], [2]]), "unions: expected numbers of players"),
        (lambda g: owen_values(lambda S: S, [list(range(30))]), "unions: expected at most"),
        (lambda g: asymmetric_values(g, [(0, 1), (1, 2), (2, 0)]), "order: expected an order with"),
        (lambda g: asymmetric_values(g, [(0, 3)]), "order: expected pairs of players 0 to 2"),
        (lambda g: asymmetric_values(g, [[0], [1]]), "order: expected all 3 players, got 2"),
        (lambda g: asymmetric_values(lambda S: S, [(0, 1)]), "n_players: expected the number"),
        (lambda g: asymmetric_values(lambda S: S, [list(range(40))]), "order: expected at most"),
        (lambda g: asymmetric_values(g, [[0, "b"], [1]], names="ab"), "names"),
    ],
)
def test_bad_structures_are_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(table(6, 3))
