import numpy as np
import pandas as pd
import pytest

from shaplab.foundations._sampling import draw_entropy
from shaplab.foundations._structure import both_ways, read_structure
from shaplab.foundations.estimate import estimate_values
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
    generator = np.random.default_rng(np.random.SeedSequence(draw_entropy(3)))
    orders = both_ways(structure, generator.random((20, structure.n_keys)))
    literal = sampled_values_literal(game, orders.reshape(-1, 6))
    fast = sampled_values(
        game, 6, unions=[[0, 1], [2, 3, 4], [5]], max_evaluations=2 + 20 * 10, rng=3
    )
    assert (fast.freedom == 19).all()
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
    with pytest.raises(ValueError, match="max_evaluations: expected at least 1250 evaluations"):
        found.interval()
    found = sampled_values(everybody, 40, max_evaluations=1250, rng=0)
    assert np.isfinite(found.std).all()
    asked.clear()
    chain = [[player] for player in range(40)]
    found = sampled_values(everybody, 40, order=chain, max_evaluations=4000, rng=0)
    assert found.values[39] == 1
    # Everybody and one more, which show that the game answers the same.
    assert len(asked) == found.evaluations == 41 + 2
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


# What a run costs, and where it is kept.


def cubes(S):
    """Interactions of three among thirty players."""
    return S[:, 0] * S[:, 1] * S[:, 2] * 3.0 + S[:, 3] * S[:, 4] * S[:, 5] + S @ np.arange(30.0)


def counted(game, asked, stop_at=None, problem=KeyboardInterrupt):
    def valued(S):
        if stop_at is not None and len(asked) >= stop_at:
            raise problem
        asked.extend(map(bytes, np.packbits(S, axis=1)))
        return game(S)

    return valued


@pytest.mark.parametrize("stated", [{}, {"unions": [list(range(10)), list(range(10, 30))]}])
def test_precision_stops_a_run_and_workers_change_nothing(stated):
    rough = sampled_values(cubes, 30, thresh=0.05, rng=0, **stated)
    fine = sampled_values(cubes, 30, thresh=0.005, rng=0, n_jobs=2, batch_size=77, **stated)
    again = sampled_values(cubes, 30, thresh=0.005, rng=0, **stated)
    assert rough.stopped == fine.stopped == "precision"
    assert rough.evaluations < fine.evaluations
    assert fine.std.max() <= 0.005 * np.ptp(np.append(fine.values, 0.0))
    assert np.array_equal(fine.values, again.values)
    assert fine.sizes[[0, 30]].tolist() == [1, 1]
    spent = sampled_values(cubes, 30, thresh=1e-9, max_evaluations=3000, rng=0, **stated)
    assert spent.stopped == "budget" and spent.evaluations <= 3000


def test_a_run_goes_on_from_its_file_and_from_that_of_an_estimate(tmp_path):
    state = tmp_path / "answers.npz"
    asked = []
    sampled_values(counted(cubes, asked), 30, max_evaluations=1500, rng=1, state=state)
    first = len(asked)
    longer = sampled_values(counted(cubes, asked), 30, max_evaluations=3000, rng=1, state=state)
    whole = sampled_values(cubes, 30, max_evaluations=3000, rng=1)
    assert np.array_equal(longer.values, whole.values)
    # Two coalitions are asked for once more, to see that it is the same game.
    assert len(asked) == longer.evaluations + 2 and len(asked) - first > 1000
    assert len(set(asked)) == len(asked) - 4
    with pytest.raises(ValueError, match="game: expected the same value"):
        sampled_values(lambda S: cubes(S) + S[:, 7], 30, max_evaluations=3000, state=state)
    asked.clear()
    estimate_values(counted(cubes, asked), 30, max_evaluations=3500, thresh=None, state=state)
    assert len(asked) < 3500 and asked


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_whole_pairs_are_kept_when_a_game_stops(problem, tmp_path):
    asked = []
    state = tmp_path / "answers.npz"
    game = counted(cubes, asked, stop_at=1300, problem=problem)
    options = dict(max_evaluations=4000, rng=0, batch_size=50)
    if problem is KeyboardInterrupt:
        kept = sampled_values(game, 30, state=state, **options)
    else:
        with pytest.raises(RuntimeError) as raised:
            sampled_values(game, 30, state=state, **options)
        kept = raised.value.partial
    assert kept.stopped == ("interrupted" if problem is KeyboardInterrupt else "error")
    # 22 pairs of 58 coalitions.
    assert kept.evaluations == len(asked) == 1300 + 2 and (kept.freedom >= 21).all()
    assert np.isfinite(kept.std).all() and kept.values.sum() == pytest.approx(kept.total)
    ahead = len(asked)
    whole = sampled_values(counted(cubes, asked), 30, state=state, **options)
    assert len(asked) - ahead < 2750
    assert np.array_equal(whole.values, sampled_values(cubes, 30, **options).values)


def test_games_that_answer_otherwise_are_named():
    noise = np.random.default_rng(0)
    with pytest.raises(ValueError, match="game: expected the same value each time"):
        sampled_values(lambda S: S.sum(axis=1) + noise.normal(size=len(S)), 20)
    with pytest.raises(ValueError, match="names: expected"):
        sampled_values(cubes, 30, names=["a", "b"])
    with pytest.raises(ValueError, match=r"max_evaluations: expected at least 60.*Pass 60"):
        sampled_values(cubes, 30, max_evaluations=59)
    least = sampled_values(cubes, 30, max_evaluations=60)
    with pytest.raises(ValueError, match="expected at least 930 evaluations for an interval"):
        least.interval()
    assert np.isfinite(sampled_values(cubes, 30, max_evaluations=930).std).all()


@pytest.mark.parametrize("kind", ["drawn", "fixed"])
def test_explained_rows_are_kept_and_resumed(kind, tmp_path):
    rng = np.random.default_rng(1)
    background = rng.normal(size=(100, 4)) @ rng.normal(size=(4, 4))
    calls = []

    def model(X, stop=[None]):  # noqa: B006
        calls.append(len(X))
        if stop[0] is not None and len(calls) >= stop[0]:
            raise KeyboardInterrupt
        return curved(X)

    X = background[:3]
    made = {
        "drawn": lambda f: GaussianGame(f, X, background, n_samples=6, rng=0),
        "fixed": lambda f: MarginalGame(f, X, background[:9]),
    }[kind]
    whole = game_shap(made(curved), max_evaluations=400, rng=5)
    state = tmp_path / "run.npz"
    part = game_shap(made(curved), max_evaluations=200, rng=5, state=state)
    assert 0 < part.info["coalitions"] <= 200
    longer = game_shap(made(curved), max_evaluations=400, rng=5, state=state, n_jobs=2)
    assert np.allclose(longer.values, whole.values, atol=EXACT)
    assert np.allclose(longer.std, whole.std, atol=EXACT)
    assert np.allclose(longer.base_values, whole.base_values, atol=EXACT)
    rough = game_shap(made(curved), thresh=0.1, rng=5)
    assert rough.info["stopped"] == "precision"
    spread = np.ptp(np.concatenate([rough.values, np.zeros((3, 1))], axis=1), axis=1)
    assert (rough.std.max(axis=1) <= 0.1 * spread).all()
    if kind == "drawn":
        other = GaussianGame(curved, X + 1.0, background, n_samples=6, rng=0)
        with pytest.raises(ValueError, match="state: expected a run of the same game"):
            game_shap(other, max_evaluations=400, state=state)
        calls.clear()
        stopped = game_shap(made(lambda X: model(X, [150])), max_evaluations=4000, rng=5)
        assert stopped.info["stopped"] == "interrupted" and stopped.info["rounds"][0] > 3
        assert np.abs(stopped.gap(curved(X))).max() < 1e-9
