"""Results follow the unit of the payoff: in another unit, a power of two, every digit is the same.

Errors are sums of squares, which leave the range of floats long before payoffs do.
"""

import numpy as np
import pytest
import torch

from shaplab import (
    Explanation,
    cluster_rows,
    embed_rows,
    estimate_values,
    feature_ranking,
    ime,
    kernel_shap,
    loss_shap,
    permutation_shap,
    permutation_test,
    sage,
    sampled_values,
    standardized,
    stepwise_deep_shap,
    variance_explained,
)
from shaplab._units import sample_spread, unit_near

# Their squares, 2**1320 and 2**-1320, are infinite and zero.
UNITS = (2.0**660, 2.0**-660)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8))
BACKGROUND = RNG.normal(size=(20, 8))
SLOPES = RNG.normal(size=(8, 8))
TARGET = RNG.normal(size=6)


def outputs(rows):
    return 3.0 * np.tanh(rows @ SLOPES).prod(axis=1) + rows[:, 0] * rows[:, 1] * rows[:, 2]


def absolute_error(output, y):
    return np.abs(output - y)


def permutation(unit):
    found = permutation_shap(lambda rows: unit * outputs(rows), X, BACKGROUND, rounds=4, rng=0)
    return found.values, found.std


def permutation_until_precise(unit):
    found = permutation_shap(
        lambda rows: unit * outputs(rows),
        X[:2],
        BACKGROUND,
        unions=[[0, 1], [2, 3, 4, 5, 6, 7]],
        thresh=0.05,
        rng=0,
    )
    return found.values, found.std


def kernel(unit):
    found = kernel_shap(
        lambda rows: unit * outputs(rows), X, BACKGROUND, max_evaluations=12_000, rng=0
    )
    return found.values, found.std


def adaptive(unit):
    found = ime(lambda rows: unit * outputs(rows), X, BACKGROUND, samples=200, rng=0)
    return found.values, found.std


def sampled(unit):
    found = sampled_values(
        lambda players: unit * outputs(players.astype(float)), 8, max_evaluations=600, rng=0
    )
    return found.values, found.std


def estimated(unit):
    found = estimate_values(
        lambda players: unit * outputs(players.astype(float)), 8, max_evaluations=100, rng=0
    )
    return found.values, found.std


def losses_of_rows(unit):
    found = loss_shap(
        lambda rows: unit * outputs(rows),
        X,
        unit * TARGET,
        BACKGROUND,
        loss=absolute_error,
        rounds=4,
        rng=0,
    )
    return found.values, found.std


def squared_losses_of_rows(unit):
    # The loss is in the square of the model's unit.
    root = np.sqrt(unit)
    found = loss_shap(
        lambda rows: root * outputs(rows), X, root * TARGET, BACKGROUND, rounds=8, rng=0
    )
    return found.values, found.std


def importance(unit):
    found = sage(
        lambda rows: unit * outputs(rows),
        X,
        unit * TARGET,
        BACKGROUND,
        loss=absolute_error,
        rounds=40,
        rng=0,
    )
    return found.values, found.std, found.info["test_std"]


def shuffled(unit):
    found = permutation_test(
        lambda rows: unit * outputs(rows), X, unit * TARGET, loss=absolute_error, rng=0
    )
    return found.values, found.std


class Scaled(torch.nn.Module):
    def __init__(self, unit):
        super().__init__()
        torch.manual_seed(0)
        self.unit = unit
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
        ).double()

    def forward(self, rows):
        return self.unit * self.layers(rows)[:, 0]


def stepwise(unit):
    found = stepwise_deep_shap(Scaled(unit), torch.tensor(X), torch.tensor(BACKGROUND), rng=0)
    return found.values, found.std


def ranking(unit):
    frame = feature_ranking(Explanation(unit * X, 0.0))
    return frame["mean |value|"].to_numpy(), frame["standard error"].to_numpy()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(
    "explain",
    [
        permutation,
        permutation_until_precise,
        kernel,
        adaptive,
        sampled,
        estimated,
        losses_of_rows,
        squared_losses_of_rows,
        importance,
        shuffled,
        stepwise,
        ranking,
    ],
)
def test_errors_follow_the_unit_of_the_payoff(explain, unit):
    for wanted, got in zip(explain(1.0), explain(unit), strict=True):
        assert np.isfinite(wanted).all()
        assert np.abs(wanted).max() > 0.0
        # A power of two moves no digit; what is left is the rounding of the tests' own functions,
        # such as the root of an output whose last bits are subnormal.
        np.testing.assert_allclose(np.asarray(got) / unit, wanted, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("unit", UNITS)
def test_groups_of_explanations_do_not_depend_on_their_unit(unit):
    wanted = cluster_rows(X, n_clusters=3)
    got = cluster_rows(unit * X, n_clusters=3)
    np.testing.assert_array_equal(got.labels, wanted.labels)
    np.testing.assert_allclose(got.links[:, 2] / unit, wanted.links[:, 2], rtol=1e-12)
    np.testing.assert_allclose(embed_rows(unit * X).explained, embed_rows(X).explained, rtol=1e-9)
    np.testing.assert_allclose(standardized(unit * X), standardized(X), rtol=1e-12)
    labels = [0, 0, 1, 1, 2, 2]
    share = variance_explained(labels, X)
    assert variance_explained(labels, unit * X) == pytest.approx(share, rel=1e-12)


def test_a_unit_is_a_power_of_two_near_the_largest_number():
    assert unit_near([3.0, -5.0]) == 4.0
    assert unit_near([0.0]) == 1.0
    assert unit_near([]) == 1.0
    assert unit_near([np.inf, 1.0]) == 1.0
    assert unit_near([5e-324]) == 5e-324
    assert unit_near([np.finfo(float).max]) == 2.0**1023


def test_a_spread_of_huge_numbers_is_finite():
    np.testing.assert_allclose(
        sample_spread(1e200 * X, axis=0), 1e200 * X.std(axis=0, ddof=1), rtol=1e-12
    )


@pytest.mark.filterwarnings("error")
def test_one_reference_has_no_spread_and_no_warning():
    for function in (loss_shap, sage):
        found = function(outputs, X, TARGET, BACKGROUND[:1], rounds=8, rng=0)
        assert np.isfinite(found.values).all()
