"""Moments where it gets hard: far tails, no spread at all, spreads wide beside the bend."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shaplab.deep.moments import Moments, leaky_relu, max_pool, quadrature, smooth_literal


@pytest.mark.parametrize(
    ("function", "limit"),
    [
        (torch.sigmoid, 0.01),
        (torch.tanh, 0.01),
        (F.gelu, 0.01),
        (F.silu, 0.01),
        (F.softplus, 0.01),
        (F.mish, 0.01),
        (F.elu, 0.01),
        (F.selu, 0.01),
        (F.hardtanh, 0.04),
        (F.hardswish, 0.04),
        (F.relu6, 0.04),
        (F.hardsigmoid, 0.04),
    ],
)
def test_quadrature_keeps_its_word_where_spreads_are_wide(function, limit):
    # The limits are those of the docstring: 1%, and 4% for functions with kinks, which no smooth
    # rule sees.
    for s in (0.1, 0.5, 1.0, 2.0, 4.0):
        for m in np.linspace(-8, 8, 65):
            mean, var = smooth_literal(lambda x: function(torch.tensor(x)).numpy(), m, s * s)
            found = quadrature(Moments(torch.tensor([[m]]), torch.tensor([[s * s]])), function)
            if var > 1e-3 * min(1.0, s * s):  # elsewhere the function is flat
                assert found.mean.item() == pytest.approx(mean, abs=limit * math.sqrt(var))
                assert found.var.item() == pytest.approx(var, rel=limit)


@pytest.mark.parametrize("ratio", [-40.0, -12.0, 12.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["plain", "terms", "skewed"])
def test_far_tails_are_finite_and_right(ratio, dtype, kind):
    mu, one = torch.tensor([[ratio, 0.0]], dtype=dtype), torch.ones(1, dtype=dtype)
    slopes = torch.zeros(5, 1, 2, dtype=dtype)  # two players, one for each entry, and three pairs
    slopes[0, 0, 0] = slopes[1, 0, 1] = 1.0
    X = (
        Moments(mu, torch.ones_like(mu))
        if kind == "plain"
        else Moments(mu, 0 * mu, slopes, (one, one if kind == "skewed" else None))
    )
    relu, top, smooth = (
        leaky_relu(X),
        max_pool(X, torch.tensor([[0, 1]]), (1,)),
        quadrature(X, torch.tanh),
    )
    for found in (relu, top, smooth):
        assert all(torch.isfinite(part).all() for part in (found.mean, found.var, found.rest))
        assert found.terms is None or torch.isfinite(found.terms).all()
        assert (found.rest >= 0).all()
    limit = (max(ratio, 0.0), 1.0 if ratio > 0 else 0.0)
    assert (relu.mean[0, 0].item(), relu.var[0, 0].item()) == pytest.approx(limit, abs=1e-5)
    assert (top.mean.item(), top.var.item()) == pytest.approx((max(ratio, 0.0), 1.0), abs=1e-5)
    assert smooth.mean[0, 0].item() == pytest.approx(math.copysign(1.0, ratio), abs=1e-5)


def test_zero_variance_is_the_function_itself():
    mu = torch.tensor([[-2.0, 0.0, 3.0]], dtype=torch.float64)
    for found, function in (
        (leaky_relu(Moments(mu, 0 * mu), 0.1), lambda x: F.leaky_relu(x, 0.1)),
        (quadrature(Moments(mu, 0 * mu), torch.tanh), torch.tanh),
    ):
        assert torch.allclose(found.mean, function(mu))
        assert found.var.abs().max() < 1e-15
    both = max_pool(Moments(mu, 0 * mu), torch.tensor([[0, 1], [1, -1]]), (2,))
    assert both.mean.tolist() == [[0.0, 0.0]]


def test_terms_and_law_come_together():
    with pytest.raises(TypeError, match="law: expected given exactly when terms are"):
        Moments(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(2, 1, 1))
