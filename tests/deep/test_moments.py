"""Each moment rule beside a literal scalar twin and beside draws; and each notices a flipped
sign."""

import ast
import copy
import inspect
import math
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shaplab.deep import _propagation, moments
from shaplab.deep.moments import (
    Moments,
    leaky_relu,
    pair_literal,
    quadrature,
    relu_literal,
    smooth_literal,
    spatial_linear,
    two_max_literal,
)

# Every layer below takes 24 numbers, so that one set of draws serves all. 400,000 draws leave
# standard errors of 0.16% of the spread in a mean and 0.22% (Gaussian) in a variance: the stated 1%
# is 4.5 of them or more.
P, DRAWS = 24, 400_000
RNG = np.random.default_rng(0)
MU, V = RNG.uniform(-1, 1, size=P), RNG.uniform(0.3, 1.5, size=P)
Z = RNG.standard_normal((DRAWS, P))


# Literal scalar twins of the linear layers: sums over single weights, in which power 2 gives
# variances.


def linear_literal(layer, x, power):
    W, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return np.array(
        [
            sum(W[o, i] ** power * x[i] for i in range(len(x))) + (b[o] if power == 1 else 0.0)
            for o in range(len(W))
        ]
    )


def conv_literal(layer, x, power):
    W, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    stride, padding, dilation = layer.stride, layer.padding, layer.dilation
    if padding == "same":  # one more on the right where the sides differ
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, layer.kernel_size, strict=True))
    if W.ndim == 3:  # one dimension is a picture of height one
        W, x = W[:, :, None], x[:, None]
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    channels, (high, wide) = W.shape[1], W.shape[2:]
    size = [
        side if layer.padding == "same" else (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, p, d, k, s in zip(
            x.shape[1:], padding, dilation, (high, wide), stride, strict=True
        )
    ]
    around = layer.padding_mode == "circular"
    out = np.zeros((len(W), *size))
    for o, r, s in np.ndindex(*out.shape):
        first = o // (len(W) // layer.groups) * channels
        for c, h, w in np.ndindex(channels, high, wide):
            row, column = (
                r * stride[0] - padding[0] + h * dilation[0],
                s * stride[1] - padding[1] + w * dilation[1],
            )
            row, column = (row % x.shape[1], column % x.shape[2]) if around else (row, column)
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                out[o, r, s] += W[o, c, h, w] ** power * x[first + c, row, column]
        out[o, r, s] += b[o] if power == 1 else 0.0
    return out[:, 0] if layer.weight.ndim == 3 else out


def average_literal(layer, x, power):
    k, s, p = layer.kernel_size, layer.stride, layer.padding
    size = [(side + 2 * p - k) // s + 1 for side in x.shape[1:]]
    out = np.zeros((len(x), *size))
    for c, r, t in np.ndindex(*out.shape):
        for h, w in np.ndindex(k, k):
            row, column = r * s - p + h, t * s - p + w
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                out[c, r, t] += x[c, row, column] / (k * k) ** power
    return out


def norm_literal(layer, x, power):
    out = np.zeros_like(x)
    for c in range(len(x)):
        scale = layer.weight[c].item() / math.sqrt(layer.running_var[c].item() + layer.eps)
        out[c] = scale**power * (x[c] - (layer.running_mean[c].item() if power == 1 else 0.0))
        out[c] += layer.bias[c].item() if power == 1 else 0.0
    return out


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch = nn.Linear(P, P)

    def forward(self, x):
        return x + self.branch(x)


def residual_literal(layer, x, power):
    return x + linear_literal(
        layer.branch, x, power
    )  # without covariances the two branches count as independent


def same_literal(layer, x, power):
    return x.reshape(-1) if isinstance(layer, nn.Flatten) else x


def _made(layer):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = layer().double().eval()
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.running_mean, layer.bias.data, layer.weight.data):
                value += torch.randn(len(value)).double() / 2
            layer.running_var *= 2
    return layer


LINEAR = {
    "linear": (lambda: nn.Linear(P, 5), (P,), linear_literal),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 12), conv_literal),
    "conv2d, strides and groups": (
        lambda: nn.Conv2d(4, 6, 2, stride=(1, 2), padding=1, groups=2),
        (4, 2, 3),
        conv_literal,
    ),
    "conv1d, same": (lambda: nn.Conv1d(2, 3, 4, padding="same", dilation=2), (2, 12), conv_literal),
    "conv2d, circular": (
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        (2, 3, 4),
        conv_literal,
    ),
    "conv2d, dilation": (lambda: nn.Conv2d(2, 3, 2, dilation=(1, 2)), (2, 3, 4), conv_literal),
    "average pool": (lambda: nn.AvgPool2d(2, stride=1, padding=1), (2, 3, 4), average_literal),
    "batch norm": (lambda: nn.BatchNorm2d(4), (4, 2, 3), norm_literal),
    "flatten": (nn.Flatten, (4, 2, 3), same_literal),
    "dropout": (lambda: nn.Dropout(0.5), (P,), same_literal),
    "residual": (Residual, (P,), residual_literal),
}
BENT = {  # module, scalar function, twin
    "relu": (nn.ReLU, lambda m, v: relu_literal(m, v)),
    "leaky relu": (lambda: nn.LeakyReLU(0.3), lambda m, v: relu_literal(m, v, 0.3)),
    "sigmoid": (nn.Sigmoid, lambda m, v: smooth_literal(lambda x: 1 / (1 + np.exp(-x)), m, v)),
    "tanh": (nn.Tanh, lambda m, v: smooth_literal(np.tanh, m, v)),
    "elu": (nn.ELU, lambda m, v: smooth_literal(lambda x: np.where(x > 0, x, np.expm1(x)), m, v)),
}
PAIRS = (lambda: nn.MaxPool1d(2), (2, 12))


def _named(name):
    make, shape = (
        PAIRS
        if name == "max of pairs"
        else LINEAR[name][:2]
        if name in LINEAR
        else (BENT[name][0], (P,))
    )
    return _made(make), shape


def _covariance():
    """Covariances with variances V and correlations up to about 0.3."""
    root = np.random.default_rng(5).normal(size=(P, 8)) / np.sqrt(8)
    cov = root @ root.T + 2.5 * np.eye(P)
    scale = np.sqrt(V / np.diag(cov))
    return cov * scale[:, None] * scale


def _start(shape, full, kind=Moments):
    mean = torch.tensor(MU).reshape(1, *shape)
    if not full:
        return kind(mean, torch.tensor(V).reshape(1, *shape))
    slopes = torch.tensor(np.linalg.cholesky(_covariance()).T).reshape(P, 1, *shape)
    terms = torch.cat([slopes, torch.zeros(P * (P + 1) // 2, 1, *shape, dtype=torch.float64)])
    return kind(mean, torch.zeros_like(mean), terms, (torch.ones(1, dtype=torch.float64), None))


def _through(layer, X, space=_propagation):
    run = space.Propagation(layer, np.arange(1), np.zeros(1), "hypergeometric", "diagonal")
    start = run.register(X)
    with torch.no_grad(), run:
        out = layer(start)
    return run.moments(out)


def _matrix(found):
    """The covariance that terms and rest describe, entry by entry."""
    terms, n = found.terms.flatten(2)[:, 0].numpy(), P
    B = np.zeros((n, n, terms.shape[1]))
    i, j = np.triu_indices(n)
    B[i, j] = B[j, i] = terms[n:]
    cov = terms[:n].T @ terms[:n] + 0.5 * np.einsum("jlp,jlq->pq", B, B)
    return cov + np.diag(found.rest.flatten().numpy())


def compare_with_draws(layer, shape, full, space=_propagation):
    """Mean and variance (and covariances) within 1% of 400,000 draws."""
    found = _through(layer, _start(shape, full, space.Moments), space)
    draws = MU + Z @ np.linalg.cholesky(_covariance()).T if full else MU + Z * np.sqrt(V)
    with torch.no_grad():  # in single precision, for speed
        out = copy.deepcopy(layer).float()(
            torch.tensor(draws, dtype=torch.float32).reshape(-1, *shape)
        )
    assert found.mean.shape[1:] == out.shape[1:]
    spread, gap = out.std(0), out - out.mean(0)
    # Behind a ReLU that is hardly ever open the draws themselves are uncertain: four standard
    # errors on top.
    noise = 4 * ((gap**4).mean(0) - (gap**2).mean(0) ** 2).sqrt() / DRAWS**0.5
    assert ((found.mean[0] - out.mean(0)).abs() <= 0.01 * spread + 1e-9).all()
    assert ((found.var[0] - out.var(0)).abs() <= 0.01 * out.var(0) + noise + 1e-9).all()
    if full:
        flat, size = gap.flatten(1).numpy(), spread.flatten().numpy()
        cov = flat.T @ flat / DRAWS
        noise = 4 * np.sqrt(np.maximum(0, (flat**2).T @ flat**2 / DRAWS - cov**2) / DRAWS)
        assert (np.abs(_matrix(found) - cov) <= 0.01 * np.outer(size, size) + noise).all()


@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers_equal_their_scalar_twins(name):
    make, shape, twin = LINEAR[name]
    layer = _made(make)
    found = _through(layer, _start(shape, False))
    # The same sums in another order: only rounding.
    assert np.allclose(found.mean[0].numpy(), twin(layer, MU.reshape(shape), 1), atol=1e-13)
    assert np.allclose(found.var[0].numpy(), twin(layer, V.reshape(shape), 2), atol=1e-13)
    # All covariances: the matrix of the layer, column by column from the twin, on both sides.
    full, zero = _through(layer, _start(shape, True)), twin(layer, np.zeros(shape), 1).ravel()
    M = np.stack([twin(layer, unit.reshape(shape), 1).ravel() - zero for unit in np.eye(P)], axis=1)
    assert np.allclose(full.mean[0].numpy(), twin(layer, MU.reshape(shape), 1), atol=1e-13)
    assert np.allclose(_matrix(full), M @ _covariance() @ M.T, atol=1e-13)


@pytest.mark.parametrize("name", BENT)
def test_bends_equal_their_scalar_twins(name):
    make, twin = BENT[name]
    mean, var = np.array([twin(m, v) for m, v in zip(MU, V, strict=True)]).T
    # Closed forms agree to rounding; 100 Hermite nodes leave 1e-8 for a tanh at a spread of 1.2
    # and, where the second derivative jumps, 4e-4 for an ELU.
    limit = 1e-13 if "relu" in name else 1e-3 if name == "elu" else 1e-7
    for full in (False, True):
        found = _through(_made(make), _start((P,), full))
        assert np.allclose(found.mean[0].numpy(), mean, atol=limit)
        assert np.allclose(found.var[0].numpy(), var, atol=limit)


def test_max_pooling_of_pairs_equals_clark():
    cov = _covariance()
    for full in (False, True):
        found = _through(PAIRS[0](), _start(PAIRS[1], full))
        for k, (mean, var) in enumerate(
            zip(found.mean.flatten(), found.var.flatten(), strict=True)
        ):
            a, b = 2 * k, 2 * k + 1
            twin = two_max_literal(MU[a], V[a], MU[b], V[b], cov[a, b] if full else 0.0)
            assert (mean.item(), var.item()) == pytest.approx(twin, abs=1e-13)


# Without covariances the branches of a residual link count as independent, so draws differ; the
# twin above says how.
@pytest.mark.parametrize(
    ("name", "full"),
    [
        (name, full)
        for name in [*LINEAR, *BENT, "max of pairs"]
        for full in (False, True)
        if full or name != "residual"
    ],
)
def test_every_rule_agrees_with_draws(name, full):
    compare_with_draws(*_named(name), full)


# rule: (module, text, the text with a sign flipped, layer it shows in, with covariances). Terms of
# one sign throughout describe the same covariance, so there the sign is flipped where the mean is
# negative. A text that stands in several lines of the module is flipped in all of them.
FLIPS = {
    "relu mean": (
        moments,
        "mu * Phi + s * (phi + shift)",
        "mu * Phi - s * (phi + shift)",
        "relu",
        False,
    ),
    "relu variance": (
        moments,
        "v * (Phi + up",
        "v * (Phi - up",
        "relu",
        False,
    ),
    "leaky mean": (
        moments,
        "(1 - slope) * positive + slope * mu",
        "(1 - slope) * positive - slope * mu",
        "leaky relu",
        False,
    ),
    "leaky variance": (moments, "- 2 * slope * up", "+ 2 * slope * up", "leaky relu", False),
    "smooth mean": (
        moments,
        "function(mu + float(z) * s)",
        "function(-mu + float(z) * s)",
        "sigmoid",
        False,
    ),
    "smooth variance": (moments, "(g - mean) ** 2", "(g + mean) ** 2", "tanh", False),
    "max mean": (
        moments,
        "b + s * (alpha * Phi + phi)",
        "b + s * (alpha * Phi - phi)",
        "max of pairs",
        False,
    ),
    "max variance": (moments, "tail * vb + s2", "tail * vb - s2", "max of pairs", False),
    "max covariance": (moments, "(va + vb - 2 * c)", "(va + vb + 2 * c)", "max of pairs", True),
    "max terms": (
        moments,
        "larger.first * terms + (1 - larger.first)",
        "larger.first * terms - (1 - larger.first)",
        "max of pairs",
        True,
    ),
    "slopes": (
        moments,
        "= first * self.terms",
        "= torch.sign(self.mean) * first * self.terms",
        "relu",
        True,
    ),
    "curvatures": (
        moments,
        "terms[n:] += second",
        "terms[n:] += torch.sign(self.mean) * second",
        "relu",
        True,
    ),
    "weights": (
        _propagation,
        "self.depends(tensor) else tensor ** 2",
        "self.depends(tensor) else -tensor ** 2",
        "linear",
        False,
    ),
    "kernels": (
        _propagation,
        "self.depends(tensor) else tensor ** 2",
        "self.depends(tensor) else -tensor ** 2",
        "conv2d, dilation",
        False,
    ),
    "scales": (
        _propagation,
        "apply(_ones) - apply(_zeros)",
        "apply(_ones) + apply(_zeros)",
        "batch norm",
        False,
    ),
    "averages": (
        moments,
        "matrix.reshape(p, -1) ** 2",
        "-matrix.reshape(p, -1) ** 2",
        "average pool",
        False,
    ),
    "terms of a layer": (
        _propagation,
        "torch.stack(each) - zero",
        "torch.stack(each) + zero",
        "linear",
        True,
    ),
    "residual": (
        _propagation,
        "first * moments[0].rest + ",
        "first * moments[0].rest - ",
        "residual",
        False,
    ),
}


@pytest.mark.parametrize("rule", FLIPS)
def test_a_flipped_sign_is_noticed(rule):
    where, old, new, name, full = FLIPS[rule]
    spaces = []
    for module in (moments, _propagation):
        text = ast.unparse(ast.parse(inspect.getsource(module)))  # whatever its layout
        if module is where:
            assert old in text
            text = text.replace(old, new)
        space = types.ModuleType("flipped")
        exec(compile(text, "flipped", "exec"), space.__dict__)
        spaces.append(space)
    for part in ("Moments", "leaky_relu", "max_pool", "quadrature", "spatial_linear"):
        setattr(spaces[1], part, getattr(spaces[0], part))
    layer, shape = _named(name)
    if name == "residual":
        found, right = (
            _through(layer, _start(shape, False), space) for space in (spaces[1], _propagation)
        )
        assert not torch.allclose(found.var, right.var)
        return
    with pytest.raises(AssertionError):
        compare_with_draws(layer, shape, full, spaces[1])


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(2, stride=1, padding=1), nn.MaxPool2d(2, dilation=2)]
)
@pytest.mark.parametrize("full", [False, True])
def test_max_pooling_over_windows(pool, full):
    X = _start((1, 4, 6), full)
    X.terms = None if X.terms is None else 0 * X.terms
    sharp = Moments(X.mean, 0 * X.rest, X.terms, X.law)
    assert torch.allclose(
        _through(pool, sharp).mean, pool(X.mean)
    )  # without spread: the plain maximum
    # Four entries, pair by pair: each partial maximum counts as Gaussian, which leaves up to 2% of
    # the spread in the mean and 9% in the variance: the price of the recursion, not of the rule for
    # two.
    X = _start((1, 4, 6), full)
    draws = (
        MU + Z[:100_000] @ np.linalg.cholesky(_covariance()).T
        if full
        else MU + Z[:100_000] * np.sqrt(V)
    )
    out, found = pool(torch.tensor(draws).reshape(-1, 1, 4, 6)), _through(pool, X)
    assert ((found.mean[0] - out.mean(0)).abs() <= 0.02 * out.std(0)).all()
    assert ((found.var[0] - out.var(0)).abs() <= 0.09 * out.var(0)).all()


def test_terms_equal_their_literal_twin():
    rng = np.random.default_rng(6)
    n, p, f, c = 4, 3, 0.21, -0.05
    A, B = rng.normal(size=(p, n)), rng.normal(size=(p, n, n)) / 3
    B = B + B.transpose(0, 2, 1)
    i, j = np.triu_indices(n)
    terms = torch.tensor(np.concatenate([A.T, B[:, i, j].T]))[:, None]
    zero, law = torch.zeros(1, p).double(), (torch.tensor([f]).double(), torch.tensor([c]).double())
    X = Moments(zero, zero, terms, law)
    cov, third = pair_literal(A, B, f, c)
    assert np.allclose(X.var[0], np.diag(cov), atol=1e-13)
    assert np.allclose(X.shared(terms[..., :1], terms[..., 1:2]), cov[0, 1], atol=1e-13)
    assert np.allclose(X.skew[0] * X.var[0] ** 1.5, third, atol=1e-13)
    bent = leaky_relu(Moments(zero + 0.3, zero, terms, (law[0], None)))
    phi, Phi = (
        g(0.3 / np.sqrt(np.diag(cov)))
        for g in (
            lambda r: np.exp(-r * r / 2) / np.sqrt(2 * np.pi),
            np.vectorize(lambda r: 0.5 * math.erfc(-r / math.sqrt(2))),
        )
    )
    second = phi / np.sqrt(np.diag(cov))
    assert np.allclose(bent.terms[:n, 0], (Phi[:, None] * A).T, atol=1e-13)
    expected = Phi[:, None, None] * B + second[:, None, None] * A[:, :, None] * A[:, None]
    assert np.allclose(bent.terms[n:, 0], expected[:, i, j].T, atol=1e-13)


@pytest.mark.parametrize(
    ("rule", "function", "twin"),
    [
        (leaky_relu, torch.relu, lambda m, v, k3: relu_literal(m, v, 0.0, k3)),
        (
            lambda X: leaky_relu(X, 0.3),
            lambda x: F.leaky_relu(x, 0.3),
            lambda m, v, k3: relu_literal(m, v, 0.3, k3),
        ),
        (
            lambda X: quadrature(X, torch.sigmoid),
            torch.sigmoid,
            lambda m, v, k3: smooth_literal(lambda x: 1 / (1 + np.exp(-x)), m, v, k3),
        ),
    ],
    ids=["relu", "leaky", "sigmoid"],
)
def test_third_cumulants_equal_their_twins_and_come_closer_to_draws(rule, function, twin):
    # A sum of 12 exponentials less its mean: skewness 2 / sqrt(12). One slope for each, of variance
    # 1 and cumulant 2.
    n, share = 12, np.full(12, 0.4)
    draws = (np.random.default_rng(7).exponential(size=(DRAWS, n)) - 1) @ share
    terms = torch.cat([torch.tensor(share), torch.zeros(n * (n + 1) // 2).double()])[:, None, None]
    one = torch.ones(1).double()
    for mu in (-1.0, 0.4):
        X = Moments(
            torch.tensor([[mu]]).double(), torch.zeros(1, 1).double(), terms, (one, 2 * one)
        )
        found, v, true = rule(X), X.var.item(), function(torch.tensor(mu + draws))
        mean, var = twin(mu, v, 2 * (share**3).sum())
        # 32 Hermite nodes against a Riemann sum for the sigmoid; rounding for the others.
        assert (found.mean.item(), found.var.item()) == pytest.approx((mean, var), abs=1e-6)
        plain = twin(mu, v, 0.0)
        assert abs(mean - true.mean().item()) < abs(plain[0] - true.mean().item())
        assert abs(var - true.var().item()) < abs(plain[1] - true.var().item())


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, 3, stride=2, padding=1),
        lambda x: F.avg_pool2d(x, 3, stride=2, ceil_mode=True),
        lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
        lambda x: F.avg_pool2d(x, 3, padding=1, count_include_pad=False),
    ],
)
def test_average_pooling_squares_its_weights(pool):
    rng = np.random.default_rng(5)
    var = torch.as_tensor(rng.uniform(size=(2, 3, 5, 7)))
    found = spatial_linear(pool, (5, 7))(var)
    zero = torch.zeros(5, 7, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: pool(x[None, None])[0, 0], zero)
    assert torch.allclose(found, torch.einsum("abhw,nchw->ncab", jacobian**2, var), atol=1e-12)
