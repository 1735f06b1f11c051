import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shaplab.deep.moments import (
    Moments,
    leaky_relu,
    max_pool,
    quadrature,
    relu_literal,
    sigmoid_literal,
    spatial_linear,
    two_max_literal,
)

GRID = [(mu, s) for mu in (-3.0, -0.5, 0.0, 0.7, 2.0) for s in (0.1, 1.0, 2.5)]


def _pair(mu, v):
    return Moments(torch.tensor([[mu]], dtype=torch.float64), var=torch.tensor([[v]], dtype=torch.float64))


def _monte_carlo(function, X, draws=400_000, seed=0):
    """Mean and variance of a function of independent Gaussians; 400,000 draws leave about 0.3% of error."""
    rng = np.random.default_rng(seed)
    z = torch.as_tensor(rng.standard_normal((draws, *X.mean.shape[1:])))
    out = function(X.mean + X.var.sqrt() * z)
    return out.mean(0), out.var(0)


def _assert_close_to_monte_carlo(found, mean, var, scale=1.0):
    # One percent of the spread for means, one percent (plus the noise of rare events) for variances.
    assert (found.mean[0] - mean).abs().max() < 0.01 * scale
    assert ((found.var[0] - var).abs() <= 0.012 * var + 2e-3 * scale**2).all()


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("mu", "s"), GRID)
def test_relu_equals_its_literal_twin(mu, s, slope):
    found = leaky_relu(_pair(mu, s * s), slope)
    mean, var = relu_literal(mu, s * s, slope)
    # The literal form subtracts squares: its own rounding is the limit.
    assert found.mean.item() == pytest.approx(mean, abs=1e-12)
    assert found.var.item() == pytest.approx(var, abs=1e-11)


@pytest.mark.parametrize("function", [torch.relu, lambda x: F.leaky_relu(x, 0.2)], ids=["relu", "leaky"])
def test_relu_agrees_with_monte_carlo(function):
    X = Moments(torch.tensor([[m for m, _ in GRID]], dtype=torch.float64),
                var=torch.tensor([[s * s for _, s in GRID]], dtype=torch.float64))
    found = leaky_relu(X, 0.2 if function is not torch.relu else 0.0)
    _assert_close_to_monte_carlo(found, *_monte_carlo(function, X), scale=2.5)


@pytest.mark.parametrize("function", [torch.sigmoid, torch.tanh, F.gelu, F.silu, F.softplus])
def test_quadrature_agrees_with_monte_carlo(function):
    X = Moments(torch.tensor([[m for m, _ in GRID]], dtype=torch.float64),
                var=torch.tensor([[s * s for _, s in GRID]], dtype=torch.float64))
    _assert_close_to_monte_carlo(quadrature(X, function), *_monte_carlo(function, X), scale=2.5)


@pytest.mark.parametrize(("mu", "s"), GRID)
def test_sigmoid_equals_its_literal_twin(mu, s):
    found = quadrature(_pair(mu, s * s), torch.sigmoid)
    mean, var = sigmoid_literal(mu, s * s)
    # 32 Hermite nodes leave 1e-4 at a spread of 2.5, where the logistic curve is steep on the scale of the nodes.
    assert found.mean.item() == pytest.approx(mean, abs=1e-4)
    assert found.var.item() == pytest.approx(var, abs=1e-4)


def test_maximum_of_two_equals_clark_and_monte_carlo():
    rng = np.random.default_rng(1)
    for _ in range(20):
        mu, v = rng.normal(size=2) * 2, rng.uniform(0.1, 3, size=2)
        c = rng.uniform(-0.9, 0.9) * math.sqrt(v[0] * v[1])
        cov = torch.tensor([[[v[0], c], [c, v[1]]]])
        found = max_pool(Moments(torch.tensor(mu[None]), cov=cov), torch.tensor([[0, 1]]), (1,))
        mean, var = two_max_literal(mu[0], v[0], mu[1], v[1], c)
        assert found.mean.item() == pytest.approx(mean, abs=1e-12)
        assert found.var.item() == pytest.approx(var, abs=1e-11)
        draws = rng.multivariate_normal(mu, cov[0].numpy(), size=200_000).max(axis=1)
        assert found.mean.item() == pytest.approx(draws.mean(), abs=0.02)
        assert found.var.item() == pytest.approx(draws.var(), rel=0.02)


def test_max_pooling_over_four_agrees_with_monte_carlo():
    # Clark's recursion is exact for two and near for four entries of like spread: within two percent of the spread.
    rng = np.random.default_rng(2)
    X = Moments(torch.as_tensor(rng.normal(size=(1, 4))), var=torch.as_tensor(rng.uniform(0.5, 1.5, size=(1, 4))))
    found = max_pool(X, torch.tensor([[0, 1, 2, 3]]), (1,))
    mean, var = _monte_carlo(lambda z: z.max(dim=1, keepdim=True).values, X)
    assert found.mean.item() == pytest.approx(mean.item(), abs=0.02)
    assert found.var.item() == pytest.approx(var.item(), rel=0.05)


def test_padding_never_wins():
    X = Moments(torch.tensor([[-5.0, 1.0]]), var=torch.tensor([[1.0, 1.0]]))
    found = max_pool(X, torch.tensor([[0, -1], [0, 1]]), (2,))
    assert found.mean[0, 0].item() == pytest.approx(-5.0)
    assert found.var[0, 0].item() == pytest.approx(1.0)


def test_linear_with_full_covariance_is_exact():
    rng = np.random.default_rng(3)
    A, root = torch.as_tensor(rng.normal(size=(3, 5))), torch.as_tensor(rng.normal(size=(2, 5, 5)))
    bias = torch.as_tensor(rng.normal(size=3))
    cov = root @ root.transpose(1, 2)
    X = Moments(torch.as_tensor(rng.normal(size=(2, 5))), cov=cov)
    found = X.affine(lambda x: F.linear(x, A, bias), lambda v: F.linear(v, A**2))
    assert torch.allclose(found.mean, X.mean @ A.T + bias)
    assert torch.allclose(found.cov, A @ cov @ A.T, atol=1e-10)


def test_covariance_through_relu_agrees_with_monte_carlo():
    rng = np.random.default_rng(4)
    root = rng.normal(size=(4, 4)) / 2
    cov, mu = root @ root.T + 0.2 * np.eye(4), rng.normal(size=4)
    found = leaky_relu(Moments(torch.tensor(mu[None]), cov=torch.tensor(cov[None])))
    draws = np.maximum(rng.multivariate_normal(mu, cov, size=400_000), 0)
    expected = np.cov(draws.T)
    assert np.allclose(np.diag(found.cov[0]), np.diag(expected), rtol=0.02)
    # The expansion stops after two terms: off the diagonal a few percent of the spread are left out.
    assert np.abs(found.cov[0].numpy() - expected).max() < 0.06 * expected.max()


@pytest.mark.parametrize("pool", [
    lambda x: F.avg_pool2d(x, 2), lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
    lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
    lambda x: F.adaptive_avg_pool2d(x, (2, 3)), lambda x: F.avg_pool2d(x, 2, ceil_mode=True)])
def test_average_pooling_squares_its_weights(pool):
    rng = np.random.default_rng(5)
    var = torch.as_tensor(rng.uniform(size=(2, 3, 5, 7)))
    found = spatial_linear(pool, (5, 7))(var)
    zero = torch.zeros(5, 7, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: pool(x[None, None])[0, 0], zero)
    expected = torch.einsum("abhw,nchw->ncab", jacobian**2, var)
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("ratio", [-40.0, -12.0, 12.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_tails_are_finite_and_right(ratio, dtype):
    mu, v = torch.tensor([[ratio, ratio]], dtype=dtype), torch.ones(1, 2, dtype=dtype)
    relu = leaky_relu(Moments(mu, var=v))
    top = max_pool(Moments(torch.tensor([[ratio, 0.0]], dtype=dtype), var=v), torch.tensor([[0, 1]]), (1,))
    assert torch.isfinite(relu.mean).all()
    assert torch.isfinite(relu.var).all()
    assert (relu.var >= 0).all()
    limit = (max(ratio, 0.0), 1.0 if ratio > 0 else 0.0)
    assert relu.mean[0, 0].item() == pytest.approx(limit[0], abs=1e-5)
    assert relu.var[0, 0].item() == pytest.approx(limit[1], abs=1e-5)
    assert top.mean.item() == pytest.approx(max(ratio, 0.0), abs=1e-5)
    assert top.var.item() == pytest.approx(1.0, abs=1e-5)
    assert torch.isfinite(quadrature(Moments(mu, var=v), torch.sigmoid).var).all()


def test_zero_variance_is_the_function_itself():
    mu = torch.tensor([[-2.0, 0.0, 3.0]], dtype=torch.float64)
    for found, function in ((leaky_relu(Moments(mu, var=0 * mu), 0.1), lambda x: F.leaky_relu(x, 0.1)),
                            (quadrature(Moments(mu, var=0 * mu), torch.tanh), torch.tanh)):
        assert torch.allclose(found.mean, function(mu))
        assert found.var.abs().max() < 1e-15
    both = max_pool(Moments(mu, cov=torch.zeros(1, 3, 3, dtype=torch.float64)), torch.tensor([[0, 1], [1, 2]]), (2,))
    assert both.mean.tolist() == [[0.0, 3.0]]


def test_one_spread_only():
    with pytest.raises(TypeError, match="var: expected exactly one of var and cov"):
        Moments(torch.zeros(1, 1))
