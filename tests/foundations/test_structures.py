"""Families and orders: against all orderings that they leave, one by one, and against what each
value promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab import GaussianGame, GroupedGame, TableGame, shapley_values
from shaplab.foundations.structures import (
    CausalGame,
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
        (
            lambda g: owen_values(g, [[0, 1], [1, 2]]),
            "unions: expected each of 4 players once.*1 twice",
        ),
        (
            lambda g: owen_values(g, [[0, 1], [3]]),
            "unions: expected each of 3 players once.*no player 2",
        ),
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


# Causes: a linear model needs means only, and those follow from regressions.

LOADS = np.array([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [0.3, 0.5, 0.7, 0], [-0.4, 0.2, 0.6, 0.5]])
ROWS = np.random.default_rng(0).normal(size=(400, 4)) @ LOADS.T + [1.0, -2.0, 0.0, 3.0]
SLOPES = np.array([1.0, -2.0, 0.5, 3.0])


def linear(X):
    return X @ SLOPES


def do_literal(present, x, components, confounded):
    """The mean of every feature when the present ones are set: one regression after the other."""
    mean = ROWS.mean(axis=0)
    covariance = np.cov(ROWS, rowvar=False)
    expected = np.where(present, x, np.nan)
    earlier: list[int] = []
    for position, component in enumerate(components):
        known = list(earlier)
        if position not in confounded:
            known += [j for j in component if present[j]]
        for j in component:
            if not present[j]:
                slope = np.linalg.solve(covariance[np.ix_(known, known)], covariance[known, j])
                expected[j] = mean[j] + slope @ (expected[known] - mean[known])
        earlier += component
    return expected


@pytest.mark.parametrize("confounded", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize("components", [[[0], [1], [2], [3]], [[1, 0], [3, 2]], [[0, 1, 2, 3]]])
def test_causal_games_set_features_and_let_the_later_ones_follow(components, confounded):
    confounded = [c for c in confounded if c < len(components)]
    game = CausalGame(linear, ROWS[:3], ROWS, components, confounded=confounded, rng=0)
    for number in range(16):
        present = np.array([number >> j & 1 for j in range(4)], bool)
        expected = [linear(do_literal(present, x, components, confounded)) for x in ROWS[:3]]
        # Antithetic draws cancel in a linear model, up to rounding.
        np.testing.assert_allclose(game(present[None])[0], expected, rtol=0, atol=1e-10)


def test_one_component_is_the_conditional_game_or_marginal_removal():
    curved = lambda X: np.tanh(X).sum(axis=1) + X[:, 0] * X[:, 3]  # noqa: E731
    present = np.array([[True, False, True, False], [False] * 4, [True] * 4])
    options = {"n_samples": 20_000, "rng": 0}
    plain = GaussianGame(curved, ROWS[:2], ROWS, **options)(present)
    together = CausalGame(curved, ROWS[:2], ROWS, [[0, 1, 2, 3]], **options)(present)
    # Other draws for the same law: 20,000 of them, values of order 1 to 10.
    np.testing.assert_allclose(together, plain, atol=0.2)
    apart = CausalGame(curved, ROWS[:2], ROWS, [[0, 1, 2, 3]], confounded=[0], **options)
    rows = np.random.default_rng(1).multivariate_normal(
        ROWS.mean(axis=0), np.cov(ROWS, rowvar=False), size=20_000
    )
    rows[:, [0, 2]] = ROWS[0, [0, 2]]
    assert apart(present[:1])[0, 0] == pytest.approx(curved(rows).mean(), abs=0.2)


def test_setting_an_effect_tells_nothing_about_its_cause():
    first = lambda X: X[:, 0]  # noqa: E731
    components = [[0], [1], [2], [3]]
    causal = shapley_values(CausalGame(first, ROWS[:2], ROWS, components, rng=0), 4)
    assert np.abs(causal[1:]).max() < 1e-10
    told = shapley_values(GaussianGame(first, ROWS[:2], ROWS, rng=0), 4)
    assert np.abs(told[1:]).max() > 0.1


def test_components_by_name_and_bad_ones():
    import pandas as pd

    frame = pd.DataFrame(ROWS, columns=["a", "b", "c", "d"])
    model = lambda X: np.asarray(X) @ SLOPES  # noqa: E731
    everybody = np.ones((1, 4), bool)
    named = CausalGame(model, frame[:2], frame, [["a"], ["c", "b"], ["d"]], rng=0)
    numbered = CausalGame(model, ROWS[:2], ROWS, [[0], [2, 1], [3]], rng=0)
    np.testing.assert_array_equal(named(~everybody), numbered(~everybody))
    for components, message in (
        ([["a"], ["b"]], "components: expected each of 4 players once, got no player 2"),
        ([["a", "b", "c", "e"]], "components: expected names among"),
        ([[0, 1], [1, 2, 3]], "components: expected each of 4 players once, got player 1 twice"),
    ):
        with pytest.raises(ValueError, match=message):
            CausalGame(model, frame[:2], frame, components)
    with pytest.raises(ValueError, match="confounded: expected an integer"):
        CausalGame(model, ROWS[:2], ROWS, [[0, 1], [2, 3]], confounded=[2])
