import numpy as np
import pytest

from shaplab.foundations._evaluate import Evaluator
from shaplab.foundations.exact import shapley_values
from shaplab.foundations.permutation import confidence_interval
from shaplab.foundations.predictions import GaussianGame, LossOfMean, MarginalGame
from shaplab.importance.loss_shap import LossWalks, RowLosses, loss_shap, loss_shap_literal

# Sums of some thousand float64 numbers of order one.
ROUNDING = 1e-12


def model(X):
    return X[:, 0] * X[:, 1] + np.sin(X[:, 2]) + X[:, 0]


def probabilities(X):
    p = 1 / (1 + np.exp(-2 * model(X)))
    return np.stack([1 - p, p], axis=1)


def absolute(output, y):
    return np.abs(output - y)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4, 4))
    # Levels of 8, 16, 32 and 70 references; six of the last have no place in the lattice of the
    # others.
    return X, model(X) + rng.normal(size=4), rng.normal(size=(70, 4))


def cases(y):
    return [
        (model, y, "mse"),
        (probabilities, (y > 0).astype(int), "cross_entropy"),
        (model, y > 0, "logistic"),
        (model, y, absolute),
    ]


def truth(explain, X, y, B, loss):
    return -shapley_values(LossOfMean(MarginalGame(explain, X, B), y, loss), X.shape[1]).T


@pytest.mark.parametrize("case", range(4))
def test_rows_are_unbiased_additive_and_inside_their_intervals(data, case):
    X, y, B = data
    explain, target, loss = cases(y)[case]
    exact = truth(explain, X, target, B, loss)
    runs = [loss_shap(explain, X, target, B, loss=loss, rounds=10, rng=seed) for seed in range(30)]
    values = np.array([run.values for run in runs])
    # 12 moving numbers at 4.5 standard errors of the mean of 30 runs, Student's t with 29 degrees
    # of freedom.
    distance = np.abs(values.mean(axis=0) - exact) / (
        values.std(axis=0, ddof=1) / np.sqrt(30) + ROUNDING
    )
    assert distance.max() < 4.5
    hits = [
        (low - ROUNDING <= exact) & (exact <= high + ROUNDING)
        for low, high in map(confidence_interval, runs)
    ]
    # 360 moving answers, correlated within a row: standard error about 2%. Column 3 never moves and
    # always hits.
    assert 0.89 < np.mean(np.array(hits)[..., :3]) < 0.995
    assert np.abs(values.sum(axis=2) - exact.sum(axis=1)).max() < ROUNDING
    assert (values[..., 3] == 0).all()


def test_the_literal_version_agrees(data):
    X, y, B = data
    rng = np.random.default_rng(0)
    exact = truth(model, X[:1], y[:1], B, "mse")[0]
    runs = np.array([loss_shap_literal(model, X[0], y[0], B, 10, "mse", rng) for _ in range(60)])
    assert (
        np.abs(runs.mean(axis=0) - exact) / (runs.std(axis=0, ddof=1) / np.sqrt(60) + ROUNDING)
    ).max() < 4


def test_levels_need_few_rows_of_a_large_background():
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(5, 6)), rng.normal(size=(4000, 6))
    y = rng.normal(size=5)
    for loss, rows in (("mse", 4), (absolute, 20)):
        found = loss_shap(model, X, y, B, loss=loss, rounds=4, rng=0)
        walks = 4 * 5 * 16
        # 2 (d - 1) coalitions a walk, each with this many references on average. The pilot, of two
        # or four steps, has all.
        pilot = (2 if loss == "mse" else 4) * 2 * 4000
        assert found.info["evaluations"] < walks * 2 * 5 * rows + pilot + 4100


def test_conditional_removal_follows_the_regression():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(4, 4))
    X, B = rng.normal(size=(3, 4)) @ mix, rng.normal(size=(50, 4)) @ mix
    y = rng.normal(size=3)

    def linear(X):
        return X @ np.array([1.0, -2.0, 0.5, 0.0])

    # Linear models see the conditional mean only, so the antithetic Gaussian game is exact.
    game = LossOfMean(GaussianGame(linear, X, B, n_samples=2, rng=0), y, "mse")
    exact = -shapley_values(game, 4).T
    found = loss_shap(linear, X, y, B, removal="conditional", rng=0)
    low, high = confidence_interval(found, 0.9999)
    assert ((low - 1e-9 <= exact) & (exact <= high + 1e-9)).all()
    # A feature that the model ignores gets credit for what it says about the others.
    assert np.abs(found.values[:, 3]).max() > 0.1


def test_conditional_removal_survives_duplicated_and_constant_columns(data):
    X, y, B = (table.copy() for table in data)
    X[:, 1], B[:, 1] = X[:, 0], B[:, 0]
    X[:, 3] = B[:, 3] = 1.0
    found = loss_shap(model, X, y, B, removal="conditional", rounds=30, rng=0)
    assert np.isfinite(found.values).all()
    assert np.abs(found.values.sum(axis=1) + found.base_values + (model(X) - y) ** 2).max() < 1e-9


def test_batches_change_no_bit(data):
    X, y, B = data
    for explain, target, loss in cases(y)[:2]:
        one = loss_shap(explain, X, target, B, loss=loss, rounds=4, rng=0)
        two = loss_shap(explain, X, target, B, loss=loss, rounds=4, rng=0, batch_size=11)
        assert np.array_equal(one.values, two.values)


@pytest.mark.parametrize("size", [1, 2, 4, 5, 9])
def test_small_backgrounds_and_one_feature(size):
    rng = np.random.default_rng(size)
    X, B, y = rng.normal(size=(3, 2)), rng.normal(size=(size, 2)), rng.normal(size=3)
    found = loss_shap(lambda X: X[:, 0] * X[:, 1], X, y, B, rng=0, thresh=0.05)
    exact = truth(lambda X: X[:, 0] * X[:, 1], X, y, B, "mse")
    assert (np.abs(found.values - exact) <= 5 * found.std + ROUNDING).all()
    one = loss_shap(lambda X: X[:, 0] ** 2, X[:, :1], y, B[:, :1], rng=0)
    assert (
        np.abs(one.values - truth(lambda X: X[:, 0] ** 2, X[:, :1], y, B[:, :1], "mse")).max()
        < 1e-9
    )


def test_bad_input(data):
    X, y, B = data
    with pytest.raises(ValueError, match="y: expected class labels 0 to 1"):
        loss_shap(probabilities, X, np.array([0, 1, 2, 1]), B, loss="cross_entropy")
    with pytest.raises(ValueError, match="loss: expected a loss of 2 outputs"):
        loss_shap(probabilities, X, y, B)
    for explain in (model, lambda X: 0.7 * probabilities(X)):
        with pytest.raises(
            ValueError, match="model: expected probabilities from 0 to 1 that sum to 1"
        ):
            loss_shap(explain, X, y > 0, B, loss="cross_entropy")
    with pytest.raises(ValueError, match="loss: expected a loss of 2 outputs, got 'logistic'"):
        loss_shap(probabilities, X, y > 0, B, loss="logistic")
    with pytest.raises(
        ValueError, match="loss: expected a loss of one output, got 'softmax_cross_entropy'"
    ):
        loss_shap(model, X, y > 0, B, loss="softmax_cross_entropy")
    with pytest.raises(
        TypeError, match=r"y: expected shape .* of finite numbers.*number classes from 0"
    ):
        loss_shap(probabilities, X, np.array(["a", "b", "a", "b"]), B, loss="cross_entropy")
    with pytest.raises(
        ValueError, match="loss: expected a finite loss for each of 4 rows, got shape"
    ):
        loss_shap(model, X, y, B, loss=lambda output, y: np.mean(output - y))
    with pytest.raises(ValueError, match="loss: expected a finite loss"):
        loss_shap(model, X, y, B, loss=lambda output, y: np.full(len(y), np.nan))
    with pytest.raises(ValueError, match="y: expected shape"):
        loss_shap(model, X, y[:2], B)
    with pytest.raises(ValueError, match="removal: expected one of"):
        loss_shap(model, X, y, B, removal="absent")
    with pytest.raises(ValueError, match="at least 2 rows"):
        loss_shap(model, X, y, B[:1], removal="conditional")


@pytest.mark.parametrize("size", [16, 21, 37])
def test_every_group_of_every_level_has_the_same_mean_loss(size):
    rng = np.random.default_rng(0)
    B = rng.normal(size=(size, 4))
    evaluator = Evaluator(model, B[:2], B, None, 1000)
    few = LossWalks(RowLosses(evaluator, np.zeros(2), absolute), "marginal", 1).few
    last = len(few.sizes) - 1
    # Draws change where the start passes a multiple of 1 / (16 size lattice): midpoints between
    # take the mean exactly.
    steps = 2 * 16 * size * few.lattice
    starts = (np.arange(steps) + 0.5) / steps
    values = np.abs(rng.normal(size=(size, 1))) ** 3
    place = np.argsort(few.order)
    means = [[] for _ in few.sizes]
    for depth, draw in enumerate(few.sizes):
        b = (
            np.broadcast_to(few.order, (steps, size))
            if depth == last
            else few.spread(starts, draw)[:, 0]
        )
        for level, losses in enumerate(
            few.level_losses(values[place[b]][:, None], np.zeros(steps), depth, starts)
        ):
            means[level] += list(losses.mean(axis=(0, 1)))
    for level in range(last):
        # Sums of some ten thousand numbers of order one; groups of small draws, of large ones and
        # of all rows agree.
        assert len(means[level]) > 2
        assert np.ptp(means[level]) < 1e-12
    assert means[last] == pytest.approx([np.abs(values.mean())], rel=1e-12)


@pytest.mark.parametrize("size", [16, 21, 100])
def test_references_are_uniform_draws_and_the_way_back_has_others(size):
    rng = np.random.default_rng(0)
    B = rng.normal(size=(size, 4))
    evaluator = Evaluator(model, B[:2], B, None, 1000)
    few = LossWalks(RowLosses(evaluator, np.zeros(2), absolute), "marginal", 1).few
    draws = few.spread(rng.random(4000), few.sizes[0])
    assert all(len(set(draw.ravel())) == 2 * few.sizes[0] for draw in draws[:50])
    for way in (0, 1):
        # Every row equally often, to 4.5 binomial standard errors.
        counts, expected = (
            np.bincount(draws[:, way].ravel(), minlength=size),
            4000 * few.sizes[0] / size,
        )
        assert np.abs(counts - expected).max() <= 4.5 * np.sqrt(expected)
    assert np.array_equal(
        np.sort(few.spread(rng.random(3), size)), np.tile(np.arange(size), (3, 2, 1))
    )


def test_levels_are_visited_as_often_as_their_corrections_need():
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(20, 4)), rng.normal(size=(500, 4))
    y = (model(X) > 0).astype(int)

    def designed(loss):
        evaluator = Evaluator(lambda X: probabilities(X)[:, 1], X, B, None, 1000)
        reach = LossWalks(RowLosses(evaluator, y, loss), "marginal", 1).few.reach
        # A pilot of 16 steps over the whole background, beside the ends and nine rows that test for
        # determinism.
        assert evaluator.evaluations == 20 + 500 + 9 + 2 * 16 * 500
        assert (reach[0], reach[-1]) == (1.0, 0.0)
        assert (np.diff(reach) <= 0).all()
        return reach[1:-1]

    # Doubling references changes a smooth loss little, one that jumps again and again, and a linear
    # one not at all.
    smooth, rough, linear = (
        designed(loss) for loss in ("cross_entropy", lambda p, y: (p > 0.5) != y, lambda p, y: p)
    )
    assert (linear[:3] < smooth[:3]).all()
    assert (smooth < rough / 2).all()
    assert smooth[0] < 0.3
    # The first level costs as much as the smallest draw, the second twice as much; each gets a
    # hundredth at least.
    assert linear[:2] == pytest.approx([0.01, 0.005])


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("drawn", [False, True])
def test_weights_of_the_background_are_repeated_rows(loss, drawn):
    """Twelve references are drawn from for squared error, three are used whole."""
    rng = np.random.default_rng(7)
    X = rng.normal(size=(3, 5))
    B = rng.normal(size=(12 if drawn else 3, 5))
    B[0] *= 3.0
    weights = np.arange(len(B)) % 4
    weights[-1] = 6
    repeated = np.repeat(B, weights, axis=0)

    def model(rows):
        linear = rows[:, 0] * rows[:, 1] * rows[:, 2] + rows[:, 3] - rows[:, 4]
        return linear if loss == "mse" else 1.0 / (1.0 + np.exp(-linear))

    y = np.array([0.0, 1.0, 1.0])
    truth = -shapley_values(LossOfMean(MarginalGame(model, X, repeated), y, loss), 5).T
    options = dict(loss=loss, rounds=40, rng=0)
    found = loss_shap(model, X, y, B, weights=weights, **options)
    # Fifteen numbers and their standard errors from forty rounds.
    assert (np.abs(found.values - truth) <= 4.5 * found.std + 1e-9).all()
    assert found.std.max() < 0.1 * np.ptp(truth)
    assert np.allclose(
        found.base_values, loss_shap(model, X, y, repeated, **options).base_values, atol=1e-12
    )
    # Unweighted values are others.
    plain = loss_shap(model, X, y, B, **options)
    assert (np.abs(plain.values - truth) > 4.5 * plain.std + 1e-9).any()
    exact = loss_shap(model, X, y, B, weights=weights, loss=loss, thresh=1e-6)
    assert np.allclose(exact.values, truth, atol=1e-10)


def test_weights_need_marginal_removal():
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(2, 3)), rng.normal(size=(6, 3))
    with pytest.raises(ValueError, match=r'weights: expected None.*removal="conditional"'):
        loss_shap(
            lambda Z: Z.sum(axis=1), X, [0.0, 1.0], B, removal="conditional", weights=range(1, 7)
        )
