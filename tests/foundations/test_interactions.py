import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab.foundations.exact import shapley_values
from shaplab.foundations.games import TableGame
from shaplab.foundations.interactions import interaction_values, interaction_values_literal

# As in test_exact: a few dozen float64 products.
EXACT = 1e-11


@examples(40)
@given(st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([(), (2,)]), st.integers(1, 64))
def test_fast_equals_literal(n, seed, payoff, batch):
    game = TableGame(np.random.default_rng(seed).normal(size=(2**n, *payoff)))
    fast = interaction_values(game, n, batch_size=batch)
    assert fast.shape == (n, n, *payoff)
    assert np.allclose(fast, interaction_values_literal(game, n), atol=EXACT, rtol=0)


def test_rows_sum_to_shapley_values_and_matrix_is_symmetric():
    game = TableGame(np.random.default_rng(4).normal(size=2**8))
    matrix = interaction_values(game, 8)
    assert np.allclose(matrix, matrix.T, atol=EXACT)
    assert np.allclose(matrix.sum(axis=1), shapley_values(game, 8), atol=EXACT)
    assert matrix.sum() == pytest.approx(game.table[-1] - game.table[0], abs=EXACT)


@pytest.mark.parametrize(
    ("logic", "off", "diagonal"),
    [
        (np.logical_and, 0.5, 0.0),
        (np.logical_or, -0.5, 1.0),
        (np.logical_xor, -1.0, 1.0),
    ],
)
def test_logic_by_hand(logic, off, diagonal):
    # Two players, empty S only: v(12) - v(1) - v(2) + v(0), halved.
    matrix = interaction_values(lambda S: logic(S[:, 0], S[:, 1]) * 1.0, 2)
    assert np.allclose(matrix, [[diagonal, off], [off, diagonal]], atol=EXACT)


def test_additive_game_has_no_interactions():
    worth = np.array([1.0, -2.0, 0.5])
    assert np.allclose(interaction_values(lambda S: S @ worth, 3), np.diag(worth), atol=EXACT)


def test_three_way_product_spreads_over_its_pairs():
    matrix = interaction_values(lambda S: S[:, :3].all(axis=1) * 6.0, 4)
    assert np.allclose(matrix.sum(axis=1), [2, 2, 2, 0], atol=EXACT)
    assert np.allclose(matrix[3], 0, atol=EXACT)
    assert matrix[0, 1] == pytest.approx(1.5)


def test_too_many_players():
    with pytest.raises(ValueError, match="n_players: expected at most 24"):
        interaction_values(lambda S: S[:, 0], 25)
