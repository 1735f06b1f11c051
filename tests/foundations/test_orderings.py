import numpy as np
import pandas as pd
import pytest

from shaplab.foundations._structure import both_ways, read_structure
from shaplab.foundations.exact import shapley_values
from shaplab.foundations.games import TableGame
from shaplab.foundations.orderings import game_shap, sampled_values, sampled_values_literal
from shaplab.foundations.permutation import confidence_interval
from shaplab.foundations.predictions import (
    CopulaGame,
    GaussianGame,
    LossOfMean,
    MarginalGame,
    NearestGame,
)
from shaplab.foundations.structures import CausalGame, asymmetric_values, owen_values

# Sums of some hundred float64 numbers of order one.
EXACT = 1e-12
STATED = [
    {},
    {"unions": [[0, 1], [2, 3, 4], [5]]},
    {"unions": [[[0, 1], 2], [3, [4, 5]]]},
    {"order": [[5, 0], [1, 2, 3, 4]]},
    {"order": [(0, 2), (1, 2), (1, 3)]},
]


@pytest.fixture
def game():
    return TableGame(np.random.default_rng(0).normal(size=(64, 2)))


def truth_of(game, stated):
    if "unions" in stated:
        return owen_values(game, stated["unions"])
    if "order" in stated:
        return asymmetric_values(game, stated["order"], 6)
    return shapley_values(game, 6)


@pytest.mark.parametrize("stated", STATED)
def test_sampled_values_are_the_exact_ones_within_their_errors(game, stated):
    found = sampled_values(game, 6, max_evaluations=20_000, rng=0, **stated)
    # Twelve numbers, five standard errors.
    assert (np.abs(found.values - truth_of(game, stated)) <= 5 * found.std + EXACT).all()
    assert np.allclose(found.values.sum(axis=0), game.table[-1] - game.table[0], atol=EXACT)
    assert found.evaluations <= 20_000


def test_the_literal_version_walks_the_same_orderings(game):
    structure = read_structure(6, None, unions=[[0, 1], [2, 3, 4], [5]])
    orders = both_ways(structure, np.random.default_rng(3).random((20, structure.n_keys)))
    literal = sampled_values_literal(game, orders.reshape(-1, 6))
    fast = sampled_values(
        game, 6, unions=[[0, 1], [2, 3, 4], [5]], max_evaluations=2 + 20 * 10, rng=3
    )
    assert fast.rounds == 20
    assert np.allclose(fast.values, literal, atol=EXACT)


@pytest.mark.parametrize("stated", STATED[1:])
def test_intervals_hold_in_95_percent_of_runs(game, stated):
    truth = truth_of(game, stated)
    hits = []
    for seed in range(200):
        found = sampled_values(game, 6, max_evaluations=2 + 40 * 10, rng=seed, **stated)
        low, high = found.interval()
        # What every pair of orderings has right is not for chance to hit.
        hits.extend(((low <= truth) & (truth <= high))[found.std > EXACT])
    # 1,600 answers and more, correlated within a run: the share is known to about 0.8%.
    assert 0.93 < np.mean(hits) < 0.97


def test_axioms_that_structures_keep():
    # Players 0 and 1 alike in one union, 2 adds nothing; their values are worth 1 together.
    def glove(S):
        return (S[:, 0] | S[:, 1]) & S[:, 3] | S[:, 4]

    unions = [[0, 1], [2, 3], [4]]
    found = sampled_values(lambda S: 1.0 * glove(S), 5, unions=unions, max_evaluations=4000, rng=0)
    assert found.values[2] == 0
    assert found.values.sum() == pytest.approx(1.0, abs=EXACT)
    assert abs(found.values[0] - found.values[1]) <= 5 * np.hypot(*found.std[:2])
    twice = sampled_values(lambda S: 2.0 * glove(S), 5, unions=unions, max_evaluations=4000, rng=0)
    assert np.allclose(twice.values, 2 * found.values, atol=EXACT)


def test_budgets_from_twice_the_players_on_and_nothing_valued_twice():
    asked = []

    def everybody(S):
        asked.extend(map(bytes, np.packbits(S, axis=1)))
        return S.all(axis=1) * 1.0

    with pytest.raises(ValueError, match="max_evaluations: expected at least 80"):
        sampled_values(everybody, 40, max_evaluations=79)
    found = sampled_values(everybody, 40, max_evaluations=80, rng=0)
    assert found.evaluations == len(asked) == len(set(asked)) == 80
    assert np.isnan(found.std).all()
    with pytest.raises(ValueError, match=r"max_evaluations: expected at least 16 pairs.*Pass 1250"):
        found.interval()
    found = sampled_values(everybody, 40, max_evaluations=1250, rng=0)
    assert np.isfinite(found.std).all()
    asked.clear()
    chain = [[player] for player in range(40)]
    found = sampled_values(everybody, 40, order=chain, max_evaluations=4000, rng=0)
    assert found.values[39] == 1
    assert len(asked) == found.evaluations == 41
    assert sampled_values(everybody, 1, max_evaluations=2).values.tolist() == [1.0]


def test_batches_seeds_and_names(game):
    options = dict(order=[["f", "a"], ["b", "c", "d", "e"]], names=list("abcdef"))
    first = sampled_values(game, 6, max_evaluations=500, rng=1, **options)
    again = sampled_values(game, 6, max_evaluations=500, rng=1, batch_size=3, **options)
    assert np.array_equal(first.values, again.values)
    other = sampled_values(game, 6, max_evaluations=500, rng=2, **options)
    assert not np.array_equal(first.values, other.values)


def test_bad_input(game):
    with pytest.raises(ValueError, match=r"game: expected a game of the 5 players.*6 players"):
        sampled_values(game, 5)
    with pytest.raises(ValueError, match="unions: expected each of 6 players once"):
        sampled_values(game, 6, unions=[[0, 1], [1, 2, 3, 4, 5]])
    with pytest.raises(ValueError, match="order: expected an order without a circle"):
        sampled_values(game, 6, order=[(0, 1), (1, 2), (2, 0)])
    with pytest.raises(ValueError, match="unions: expected unions or order"):
        sampled_values(game, 6, unions=[[0, 1, 2, 3, 4, 5]], order=[(0, 1)])
    with pytest.raises(ValueError, match="game: expected finite values"):
        sampled_values(lambda S: np.where(S[:, 0], np.nan, 1.0), 3)
    with pytest.raises(ValueError, match="game: expected payoffs of shape"):
        sampled_values(lambda S: np.ones((len(S), 1 if S[0].any() else 2)), 3)
    with pytest.raises(TypeError, match="game: expected a game that explains rows"):
        game_shap(lambda S: S.sum(axis=1))
    with pytest.raises(ValueError, match=r"game: expected a payoff \(N,\) or \(N, K\)"):
        game_shap(TableGame([0.0, 1.0]))


# Games that say what absence means.


def exact_law(n_pairs, rows, rng, share=0.6):
    """A background of independent pairs whose sample has this correlation exactly."""
    noise = rng.normal(size=(rows, 2 * n_pairs))
    noise -= noise.mean(axis=0)
    left, _, right = np.linalg.svd(noise, full_matrices=False)
    white = left @ right * np.sqrt(rows)
    effect = share * white[:, :n_pairs] + np.sqrt(1 - share**2) * white[:, n_pairs:]
    return np.concatenate([white[:, :n_pairs], effect], axis=1)


def test_forty_features_of_a_linear_model_have_a_closed_form():
    rng = np.random.default_rng(0)
    background = exact_law(20, 300, rng)
    X = rng.normal(size=(3, 40))
    slope = rng.normal(size=40)

    def linear(X):
        return X @ slope

    # Independent pairs: each is a game of two. Known alone, a feature speaks for its partner.
    cause, effect = X[:, :20], X[:, 20:]
    b_cause, b_effect = slope[:20], slope[20:]
    both = b_cause * cause + b_effect * effect
    cause_alone = b_cause * cause + b_effect * 0.6 * cause
    effect_alone = b_effect * effect + b_cause * 0.6 * effect
    conditional = np.concatenate(
        [cause_alone + both - effect_alone, effect_alone + both - cause_alone], axis=1
    )
    game = GaussianGame(linear, X, background, n_samples=2)
    # Interactions of two, and draws that are antithetic: a pair of orderings is exact.
    found = game_shap(game, max_evaluations=80, rng=0)
    assert np.allclose(found.values, conditional / 2, atol=1e-9)
    assert np.abs(found.gap(linear(X))).max() < 1e-9
    # Set alone, an effect says nothing about its cause.
    pairs = [list(range(20)), list(range(20, 40))]
    causal = CausalGame(linear, X, background, pairs, confounded=[0, 1], n_samples=2)
    set_alone = b_effect * (effect - 0.0)
    expected = np.concatenate(
        [
            (cause_alone + both - set_alone) / 2,
            (set_alone + both - cause_alone) / 2,
        ],
        axis=1,
    )
    found = game_shap(causal, max_evaluations=80, rng=0)
    assert np.allclose(found.values, expected, atol=1e-9)
    # Causes first, in the conditional game: effects keep what they add.
    found = game_shap(game, order=pairs, max_evaluations=80, rng=0)
    asymmetric = np.concatenate([cause_alone, both - cause_alone], axis=1)
    assert np.allclose(found.values, asymmetric, atol=1e-9)


def curved(X):
    return X[:, 0] * X[:, 1] * X[:, 2] + np.exp(X[:, 3] / 2) + X[:, 0] ** 2


@pytest.mark.parametrize("kind", [GaussianGame, CopulaGame, CausalGame])
def test_draws_are_part_of_the_error(kind):
    rng = np.random.default_rng(1)
    background = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))
    X = background[:2]
    more = ([[0, 1], [2, 3]],) if kind is CausalGame else ()
    large = kind(curved, X, background, *more, n_samples=40_000, rng=0)
    truth = shapley_values(large, 4).T
    few = kind(curved, X, background, *more, n_samples=4, rng=0)
    found = game_shap(few, max_evaluations=2 + 400 * 6, rng=2)
    # Eight numbers; the truth's own chance is a tenth of theirs: 40,000 draws beside 400 times 4.
    assert (np.abs(found.values - truth) <= 5 * found.std).all()
    assert np.abs(found.gap(curved(X))).max() < 1e-9
    low, high = confidence_interval(found)
    assert (low < high).all()
    fixed = few.draws.copy()
    game_shap(few, max_evaluations=40, rng=3)
    assert np.array_equal(few.draws, fixed)


def test_intervals_of_conditional_values_hold():
    rng = np.random.default_rng(1)
    background = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))
    X = background[:1]
    truth = shapley_values(GaussianGame(curved, X, background, n_samples=200_000, rng=0), 4).T
    game = GaussianGame(curved, X, background, n_samples=10, rng=0)
    hits = []
    for seed in range(200):
        low, high = confidence_interval(game_shap(game, max_evaluations=2 + 40 * 6, rng=seed))
        hits.append((low <= truth) & (truth <= high))
    # 800 answers, correlated within a run.
    assert 0.92 < np.mean(hits) < 0.98


def test_nearest_rows_marginal_means_and_losses():
    rng = np.random.default_rng(2)
    background = rng.normal(size=(60, 4))
    X = background[:3] + 0.1
    nearest = NearestGame(curved, X, background, n_neighbors=5)
    marginal = MarginalGame(curved, X, background, feature_names=list("abcd"))
    loss = LossOfMean(marginal, curved(X), "squared_error")
    for game in (nearest, marginal, loss):
        truth = shapley_values(game, 4).T
        found = game_shap(game, max_evaluations=2 + 300 * 6, rng=0)
        assert (np.abs(found.values - truth) <= 5 * found.std + EXACT).all()
        assert type(game).__name__ in found.method
    found = game_shap(marginal, unions=[["a", "d"], ["b", "c"]], max_evaluations=1000, rng=0)
    truth = owen_values(marginal, [[0, 3], [1, 2]]).T
    assert (np.abs(found.values - truth) <= 5 * found.std + EXACT).all()
    assert found.feature_names == tuple("abcd")


def test_columns_of_frames_are_named():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(30, 3)), columns=list("abc"))

    def two(X):
        return np.column_stack([X[:, 0] * X[:, 1], X[:, 2]])

    game = GaussianGame(two, table[:4], table, n_samples=10, rng=0)
    found = game_shap(game, order=[("a", "b")], rng=0)
    assert found.values.shape == (4, 3, 2)
    assert found.feature_names == tuple("abc")
    assert np.abs(found.gap(two(table[:4].to_numpy()))).max() < 1e-9


def test_a_copula_does_not_know_units_and_fills_with_values_that_were_seen():
    rng = np.random.default_rng(0)
    normal = rng.multivariate_normal([0, 0, 0], [[1, 0.7, 0.2], [0.7, 1, 0], [0.2, 0, 1]], 20_000)
    skewed = np.exp(normal)

    def product(X):
        return np.log(X[:, 0]) * np.log(X[:, 1]) + np.log(X[:, 2])

    def product_of_normal(X):
        return X[:, 0] * X[:, 1] + X[:, 2]

    options = dict(n_samples=2000, rng=0)
    copula = CopulaGame(product, skewed[:5], skewed, **options)
    gaussian = GaussianGame(product_of_normal, normal[:5], normal, **options)
    S = np.array([[False, False, False], [True, False, False], [False, True, True]])
    # Empirical quantiles of 20,000 rows are known to about 1%.
    assert np.allclose(copula(S), gaussian(S), atol=0.05)
    binary = np.column_stack([normal[:300, 0] > 0.5, normal[:300, 1], np.full(300, 3.0)]) * 1.0
    seen = []

    def watched(X):
        seen.append(X)
        return X.sum(axis=1)

    game = CopulaGame(watched, binary[:2], binary, n_samples=50, rng=0)
    assert np.isfinite(game(S)).all()
    rows = np.concatenate(seen)
    assert set(np.unique(rows[:, 0])) == {0.0, 1.0}
    assert set(np.unique(rows[:, 1])) <= set(binary[:, 1])
    assert (rows[:, 2] == 3.0).all()
