"""Intervals hold when a few references, or a few rows, are huge: sampling must see them all."""

import numpy as np
import pytest

from shaplab.foundations.exact import shapley_values
from shaplab.foundations.games import MeanGame
from shaplab.foundations.permutation import confidence_interval
from shaplab.foundations.predictions import LossOfMean, MarginalGame
from shaplab.importance._few_references import KURTOSIS, loud_references
from shaplab.importance.loss_shap import loss_shap
from shaplab.importance.sage import sage


def model(X):
    return X[:, 0] * X[:, 1] + np.sin(X[:, 2]) + X[:, 0] + X[:, 3]


def absolute(output, y):
    return np.abs(output - y)


def question(rare, spreads, rows=60):
    rng = np.random.default_rng(1)
    X, B = rng.normal(size=(rows, 6)), rng.normal(size=(512, 6))
    y = model(X) + rng.normal(size=rows)
    B[rng.permutation(512)[:rare], 0] = spreads
    return X, y, B


@pytest.mark.parametrize(("rare", "loss"), [(10, "mse"), (1, "mse"), (10, absolute)])
def test_sage_covers_the_truth_beside_rare_references_500_spreads_away(rare, loss):
    X, y, B = question(rare, 500.0)
    exact = shapley_values(MeanGame(LossOfMean(MarginalGame(model, X, B), y, loss)), 6)
    hits = []
    for seed in range(40):
        found = sage(model, X, y, B, loss=loss, rng=seed)
        assert found.info["converged"]
        low, high = confidence_interval(found)
        hits.append((low[0] <= exact) & (exact <= high[0]))
        # 61,440 rows times 32 would be enumeration; a tenth of it is enough.
        assert found.info["evaluations"] < 200_000
    # 160 answers of the four features that move, in part correlated: a standard error of 2 to 3%
    # below 95%. Drawing the rare rows only now and then covered 60%.
    assert np.mean(np.array(hits)[:, :4]) > 0.88


def test_loss_shap_covers_the_truth_beside_rare_references():
    X, y, B = question(10, 500.0, rows=4)
    exact = shapley_values(LossOfMean(MarginalGame(model, X, B), y, "mse"), 6).T
    hits = []
    for seed in range(25):
        found = loss_shap(model, X, y, B, rounds=8, rng=seed)
        low, high = confidence_interval(found)
        hits.append((low - 1e-9 <= -exact) & (-exact <= high + 1e-9))
    # 400 answers: a standard error of about 2%.
    assert np.mean(np.array(hits)[..., :4]) > 0.9


def test_a_few_huge_rows_that_were_not_visited_keep_sage_from_being_sure():
    rng = np.random.default_rng(4)
    X, B = rng.normal(size=(8000, 4)), rng.normal(size=(100, 4))
    X[rng.permutation(8000)[:10], 0] = 300.0
    y = np.sin(X[:, 1])

    def plain(X):
        return X[:, 0] + X[:, 1] * X[:, 2]

    found = sage(plain, X, y, B, rng=0, thresh=0.05)
    # The feature is independent of the rest: its loss against the mean is known in closed form,
    # but for what the covariances with the others, about a hundredth, add.
    mean = B[:, 0].mean()
    gain = ((y - mean) ** 2).mean() - ((y - X[:, 0]) ** 2).mean()
    low, high = confidence_interval(found, 0.999)
    assert low[0, 0] <= 0.99 * gain + 1
    assert high[0, 0] >= 1.01 * gain - 1
    assert abs(found.values[0, 0] / gain - 1) < 0.2


def test_ordinary_references_are_drawn_and_rare_huge_ones_are_not():
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(8, 2, 500, 1))
    assert loud_references(outputs).size == 0
    outputs[:, :, [3, 77]] += 100.0
    assert sorted(loud_references(outputs)) == [3, 77]
    # Whatever the unit, and whatever the level.
    for scale, shift in ((1e-200, 0.0), (1e200, 0.0), (1.0, 1e5)):
        assert sorted(loud_references(scale * outputs + shift)) == [3, 77]
    assert loud_references(np.zeros((4, 2, 9, 1))).size == 0
    # Every power of two is huge beside the smaller ones; below a millionth of the largest nothing
    # is seen of them, and two to the twentieth is a million.
    powers = np.tile(2.0 ** np.arange(60), (4, 2, 1))[..., None]
    assert loud_references(powers).tolist() == list(range(59, 40, -1))
    assert KURTOSIS > 3
