from math import factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab.foundations.exact import (
    axioms,
    banzhaf_values,
    shapley_values,
    shapley_values_literal,
    shapley_values_orderings_literal,
)
from shaplab.foundations.games import TableGame, all_coalitions, company_game

# Sums of at most 2**6 products of numbers below 100 in float64: rounding stays far below this.
EXACT = 1e-11


@examples(60)
@given(
    st.integers(1, 6),
    st.integers(0, 2**31),
    st.sampled_from([(), (3,), (2, 2)]),
    st.integers(1, 64),
)
def test_fast_equals_both_literal_forms(n, seed, payoff, batch):
    rng = np.random.default_rng(seed)
    game = TableGame(rng.integers(-3, 4, size=(2**n, *payoff)) * rng.choice([1e-3, 1.0, 10.0]))
    fast = shapley_values(game, n, batch_size=batch)
    assert fast.shape == (n, *payoff)
    assert np.allclose(fast, shapley_values_literal(game, n), atol=EXACT, rtol=0)
    assert np.allclose(fast, shapley_values_orderings_literal(game, n), atol=EXACT, rtol=0)


def test_closed_forms():
    # Majority of 2m+1 players: 1/n each. Additive game: the player's own worth. Unanimity: 1/|T|
    # inside T.
    n = 7
    assert np.allclose(shapley_values(lambda S: (S.sum(1) > 3) * 1.0, n), 1 / n, atol=EXACT)
    worth = np.arange(n) - 2.5
    assert np.allclose(shapley_values(lambda S: S @ worth, n), worth, atol=EXACT)
    needed = np.array([True, False, True, True, False, False, False])
    values = shapley_values(lambda S: (S | ~needed).all(1) * 1.0, n)
    assert np.allclose(values, needed / 3, atol=EXACT)


def test_airport_game_splits_each_metre_among_its_users():
    lengths = np.array([1.0, 2.0, 4.0])
    values = shapley_values(lambda S: (S * lengths).max(axis=1), 3)
    assert np.allclose(values, [1 / 3, 1 / 3 + 1 / 2, 1 / 3 + 1 / 2 + 2], atol=EXACT)


def test_company_bonuses_share_the_profit():
    bonuses = shapley_values(company_game(), 5)
    assert bonuses.sum() == pytest.approx(1_000_000, abs=1e-6)
    assert bonuses[1] == pytest.approx(bonuses[2])
    assert bonuses[3] == pytest.approx(bonuses[4])


def test_twenty_players_and_no_table():
    seen = []

    def game(S):
        seen.append(len(S))
        return S[:, 3] * 2.0 + S[:, 0] * S[:, 19]

    values = shapley_values(game, 20, batch_size=8192)
    assert max(seen) <= 8192
    assert np.allclose(values[[0, 3, 19]], [0.5, 2.0, 0.5], atol=1e-9)
    assert np.abs(np.delete(values, [0, 3, 19])).max() < 1e-9


def test_large_weights_stay_finite():
    # The factorials of 24 players overflow 64-bit integers; the weights must not.
    from shaplab.foundations import exact

    total = 0.0
    for size in range(24):
        weight = 1.0 / (24 * exact.comb(23, size))
        total += weight * exact.comb(23, size)
    assert total == pytest.approx(1.0)
    assert factorial(24) > 2**63


def test_banzhaf_is_the_plain_mean_of_marginals():
    rng = np.random.default_rng(3)
    game = TableGame(rng.normal(size=16))
    coalitions = all_coalitions(4)
    for i in range(4):
        without = np.flatnonzero(~coalitions[:, i])
        expected = (game.table[without | 1 << i] - game.table[without]).mean()
        assert banzhaf_values(game, 4)[i] == pytest.approx(expected, abs=EXACT)


def test_axioms_hold_for_shapley_only():
    game = TableGame.of(lambda S: S[:, 0] * S[:, 1] * 3.0 + S[:, 2] * (S[:, 0] + S[:, 1]), 4)
    for violation in axioms(shapley_values(game, 4), game, 4, rule=shapley_values).values():
        assert violation < 1e-9
    assert axioms(banzhaf_values(game, 4), game, 4, rule=banzhaf_values)["efficiency"] > 0.1


def _equal_split(game, n):
    ends = np.asarray(game(np.array([[False] * n, [True] * n])))
    return np.full(n, (ends[1] - ends[0]) / n)


def _first_in_line(game, n):
    order = np.tri(n + 1, n, -1, dtype=bool)
    return np.diff(np.asarray(game(order)))


def _proportional(game, n):
    alone = np.asarray(game(np.eye(n, dtype=bool)))
    ends = np.asarray(game(np.array([[False] * n, [True] * n])))
    return alone / alone.sum() * (ends[1] - ends[0])


@pytest.mark.parametrize(
    ("rule", "broken"),
    [(_equal_split, "null_player"), (_first_in_line, "symmetry"), (_proportional, "linearity")],
)
def test_each_other_rule_breaks_its_axiom(rule, broken):
    game = TableGame.of(lambda S: S[:, 0] * 2.0 + S[:, 1] * 2.0 + 3 * S[:, 0] * S[:, 1], 3)
    found = axioms(rule(game, 3), game, 3, rule=rule)
    assert found[broken] > 0.1
    assert found["efficiency"] < 1e-9


@pytest.mark.parametrize("rule", [_equal_split, _proportional])
def test_no_other_efficient_and_symmetric_rule_is_monotone(rule):
    # Young's theorem: the measure must not let one pass.
    game = TableGame.of(lambda S: S[:, 0] * 2.0 + S[:, 1] * 2.0 + 3 * S[:, 0] * S[:, 1], 3)
    found = axioms(rule(game, 3), game, 3, rule=rule)
    assert max(found["efficiency"], found["symmetry"]) < 1e-9
    assert found["monotonicity"] > 0.1


def test_monotonicity_catches_a_rule_that_punishes_contribution():
    def perverse(game, n):
        return -shapley_values(game, n)

    assert axioms(perverse(company_game(), 5), company_game(), 5, rule=perverse)["monotonicity"] > 1


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: shapley_values(lambda S: S[:, 0], 30),
            "n_players: expected at most 24.*permutation_shap",
        ),
        (
            lambda: shapley_values(lambda S: S[:, 0], 0),
            "n_players: expected an integer >= 1, got 0",
        ),
        (lambda: shapley_values(lambda S: S[:, 0], 2.0), "n_players: expected an integer"),
        (lambda: shapley_values([1, 2], 1), "game: expected a callable"),
        (lambda: shapley_values(lambda S: 1.0, 2), "game: expected 4 values for 4 coalitions"),
        (
            lambda: shapley_values(company_game(), 4),
            "n_players: expected 5, the players of this game, got 4",
        ),
        (lambda: banzhaf_values(lambda S: S[:, 0], 25), "n_players: expected at most 24"),
        (lambda: shapley_values(lambda S: ["a"] * len(S), 2), "game: expected numbers"),
        (
            lambda: axioms([np.nan] * 5, company_game(), 5),
            "values: expected shape.*one finite value a player",
        ),
        (lambda: axioms("abcde", company_game(), 5), "values: expected numbers, got 'abcde'"),
        (lambda: axioms(np.zeros(13), lambda S: S[:, 0], 13), "n_players: expected at most 12"),
        (
            lambda: axioms(np.zeros(5), company_game(), 5, rule="shapley"),
            "rule: expected a callable",
        ),
        (
            lambda: axioms(np.zeros(5), company_game(), 5, rule=lambda game, n: [0.0]),
            "rule: expected 5 values",
        ),
        (
            lambda: axioms(np.zeros(5), company_game(), 5, tolerance="x"),
            "tolerance: expected a number",
        ),
        (lambda: axioms(np.zeros(3), company_game(), 5), "values: expected shape \\(5,\\)"),
        (
            lambda: axioms(np.zeros(2), TableGame(np.zeros((4, 2))), 2),
            "game: expected a scalar payoff",
        ),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises((ValueError, TypeError), match=text):
        call()
