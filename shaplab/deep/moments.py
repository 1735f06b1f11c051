r"""Mean and variance through the operations of a network, for Gaussian inputs.

Each rule takes the mean and the variance of its input, entry by entry, and returns those of its output,
treating the input as Gaussian. With a full covariance :math:`\Sigma` the off-diagonal entries follow the
first two terms of the Hermite expansion,

.. math:: \mathrm{Cov}(g(X_i), g(X_j)) \approx E g'(X_i)\, E g'(X_j)\, \Sigma_{ij}
          + \tfrac12 E g''(X_i)\, E g''(X_j)\, \Sigma_{ij}^2 ,

and the diagonal is exact. Closed forms: ReLU, leaky ReLU, the maximum of two (Clark, 1961); other
non-linearities by Gauss-Hermite quadrature. Source: Ancona, Öztireli and Gross (2019); Gast and Roth (2018).
Cost: one elementwise pass; ``O(p^2)`` a row for a covariance of ``p`` entries.

Chapter: deep/dasp
Needs: shaplab._validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from shaplab._validation import fail

__all__ = ["Moments", "leaky_relu", "max_pool", "quadrature", "relu_literal", "sigmoid_literal", "spatial_linear",
           "two_max_literal"]

_ROOT2 = math.sqrt(2.0)
_NODES = 32


# The literal twins: one scalar at a time.


def relu_literal(mu: float, v: float, slope: float = 0.0) -> tuple[float, float]:
    """Mean and variance of max(X, slope X) for X ~ N(mu, v), term by term."""
    s = math.sqrt(v)
    if s == 0.0:
        return max(mu, slope * mu), 0.0
    phi = math.exp(-0.5 * (mu / s) ** 2) / math.sqrt(2 * math.pi)
    Phi = 0.5 * math.erfc(-mu / s / _ROOT2)
    positive = mu * Phi + s * phi  # E[X; X > 0]
    square = (mu**2 + v) * Phi + mu * s * phi  # E[X^2; X > 0]
    mean = (1 - slope) * positive + slope * mu
    return mean, (1 - slope**2) * square + slope**2 * (mu**2 + v) - mean**2


def two_max_literal(mu_a: float, v_a: float, mu_b: float, v_b: float, c: float = 0.0) -> tuple[float, float]:
    """Mean and variance of the larger of two Gaussians with covariance c (Clark, 1961)."""
    s = math.sqrt(max(0.0, v_a + v_b - 2 * c))
    if s == 0.0:
        return (mu_a, v_a) if mu_a >= mu_b else (mu_b, v_b)
    alpha = (mu_a - mu_b) / s
    phi = math.exp(-0.5 * alpha**2) / math.sqrt(2 * math.pi)
    Phi = 0.5 * math.erfc(-alpha / _ROOT2)
    mean = s * phi + (mu_a - mu_b) * Phi + mu_b
    square = (mu_a + mu_b) * s * phi + (mu_a**2 + v_a) * Phi + (mu_b**2 + v_b) * (1 - Phi)
    return mean, square - mean**2


def sigmoid_literal(mu: float, v: float, steps: int = 20001) -> tuple[float, float]:
    """Mean and variance of the logistic function of X ~ N(mu, v), by a fine Riemann sum."""
    z = np.linspace(-12.0, 12.0, steps)
    weight = np.exp(-0.5 * z**2)
    g = 1.0 / (1.0 + np.exp(-(mu + math.sqrt(v) * z)))
    mean = float((weight * g).sum() / weight.sum())
    return mean, float((weight * (g - mean) ** 2).sum() / weight.sum())


class Moments:
    """Mean and spread of a tensor with a leading axis of rows.

    Parameters
    ----------
    mean : tensor ``(rows, *shape)``.
    var : variance of every entry, ``(rows, *shape)``; or
    cov : full covariance ``(rows, p, p)`` with ``p`` the number of entries in ``shape``; exactly one of them.
    """

    def __init__(self, mean: torch.Tensor, var: torch.Tensor | None = None, cov: torch.Tensor | None = None) -> None:
        if (var is None) == (cov is None):
            fail("var", "exactly one of var and cov", "both or none", "Pass one of them", TypeError)
        self.mean, self.cov = mean, cov
        self._var = var

    @property
    def var(self) -> torch.Tensor:
        """Variance of every entry, never below zero."""
        if self._var is not None:
            return self._var
        spread: torch.Tensor = self.cov  # type: ignore[assignment]
        return torch.diagonal(spread, dim1=1, dim2=2).clamp_min(0).reshape(self.mean.shape)

    def affine(self, function: Callable[[torch.Tensor], torch.Tensor],
               squared: Callable[[torch.Tensor], torch.Tensor]) -> Moments:
        """Through an affine operation: ``squared`` maps variances (its weights squared, no bias).

        With a full covariance ``function`` itself is applied to both sides, and must keep rows apart.
        """
        mean = function(self.mean)
        if self.cov is None:
            return Moments(mean, var=squared(self.var))
        rows, p, shape = len(self.mean), self.cov.shape[1], self.mean.shape[1:]
        zero = function(torch.zeros_like(self.mean[:1]))
        half = (function(self.cov.reshape(rows * p, *shape)) - zero).reshape(rows, p, -1)
        q = half.shape[2]
        whole = (function(half.transpose(1, 2).reshape(rows * q, *shape)) - zero).reshape(rows, q, q)
        return Moments(mean, cov=(whole + whole.transpose(1, 2)) / 2)

    def _spread(self, mean: torch.Tensor, var: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> Moments:
        """Put the diagonal ``var`` and, with a covariance, the expansion in E g' and E g'' together."""
        var = var.clamp_min(0)
        if self.cov is None:
            return Moments(mean, var=var)
        rows = len(mean)
        d1, d2 = first.reshape(rows, -1), second.reshape(rows, -1)
        cov = d1[:, :, None] * d1[:, None] * self.cov + 0.5 * d2[:, :, None] * d2[:, None] * self.cov**2
        diagonal = torch.diagonal(cov, dim1=1, dim2=2)
        return Moments(mean, cov=cov + torch.diag_embed(var.reshape(rows, -1) - diagonal))


def _normal(ratio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Density and distribution function of a standard normal; erfc keeps the lower tail exact."""
    return torch.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi), 0.5 * torch.erfc(-ratio / _ROOT2)


def leaky_relu(X: Moments, slope: float = 0.0) -> Moments:
    """ReLU (slope 0) and leaky ReLU in closed form.

    The variance is written as v times a function of mu / s, so nothing cancels far out in the tails: at
    mu = -40 s the result is 0 and at mu = 40 s it is v, without NaN.
    """
    mu, v = X.mean, X.var
    s = v.sqrt()
    safe = torch.where(s > 0, s, torch.ones_like(s))
    ratio = torch.where(s > 0, mu / safe, torch.sign(mu) * 50.0).clamp(-50.0, 50.0)
    phi, Phi = _normal(ratio)
    tail = 0.5 * torch.erfc(ratio / _ROOT2)  # 1 - Phi without cancellation
    positive = torch.where(s > 0, mu * Phi + s * phi, mu.clamp_min(0))
    mean = (1 - slope) * positive + slope * mu
    # Var[max(X, 0)] / v = Phi + (r Phi + phi)(r (1 - Phi) - phi), and the leaky part adds its own share.
    up = (ratio * Phi + phi) * (ratio * tail - phi)
    var = v * ((Phi + up) + slope**2 * (tail + up) - 2 * slope * up)
    return X._spread(mean, var, slope + (1 - slope) * Phi, (1 - slope) * torch.where(s > 0, phi / safe, 0 * s))


def quadrature(X: Moments, function: Callable[[torch.Tensor], torch.Tensor]) -> Moments:
    """Any smooth elementwise function by 32-point Gauss-Hermite quadrature (sigmoid, tanh, GELU, ...)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    mu, s = X.mean, X.var.sqrt()
    weights = weights / weights.sum()
    mean, first, second = torch.zeros_like(mu), torch.zeros_like(mu), torch.zeros_like(mu)
    values = [function(mu + float(z) * s) for z in nodes]
    for z, w, g in zip(nodes, weights, values, strict=True):
        mean += float(w) * g
        first += float(w * z) * g
        second += float(w * (z * z - 1)) * g
    var = sum(float(w) * (g - mean) ** 2 for w, g in zip(weights, values, strict=True))
    safe = torch.where(s > 0, s, torch.ones_like(s))
    return X._spread(mean, torch.as_tensor(var), first / safe, second / safe**2)


def _two_max(a: torch.Tensor, va: torch.Tensor, b: torch.Tensor, vb: torch.Tensor, c: torch.Tensor | float
             ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and variance of the larger of two, and the weight of the first in covariances with others."""
    s2 = (va + vb - 2 * c).clamp_min(0)
    s = s2.sqrt()
    safe = torch.where(s > 0, s, torch.ones_like(s))
    gap = a - b
    alpha = torch.where(s > 0, gap / safe, torch.sign(gap) * 50.0).clamp(-50.0, 50.0)
    phi, Phi = _normal(alpha)
    tail = 0.5 * torch.erfc(alpha / _ROOT2)
    mean = torch.where(s > 0, b + s * (alpha * Phi + phi), torch.maximum(a, b))
    # Around the mean: Phi va + (1 - Phi) vb + s^2 (alpha Phi + phi)(alpha (1 - Phi) - phi), free of large squares.
    var = Phi * va + tail * vb + s2 * (alpha * Phi + phi) * (alpha * tail - phi)
    return mean, var.clamp_min(0), Phi


def max_pool(X: Moments, windows: torch.Tensor, out_shape: tuple[int, ...]) -> Moments:
    """The maximum over windows, pair by pair from the first entry on.

    Parameters
    ----------
    X : moments with rows of shape ``shape``, ``p`` entries.
    windows : long tensor ``(q, k)``: the flat input entries of each of ``q`` windows; -1 for padding.
    out_shape : shape of a row of the output, ``q`` entries.

    Notes
    -----
    Without a covariance the window's entries count as independent. Each partial maximum is treated as
    Gaussian again, so the order matters a little.
    """
    rows = len(X.mean)
    mu, var = X.mean.reshape(rows, -1), X.var.reshape(rows, -1)
    windows = windows.gather(1, torch.argsort((windows < 0).long(), dim=1, stable=True))  # padding last
    index = windows.clamp_min(0)
    mean, spread = mu[:, index[:, 0]], var[:, index[:, 0]]
    weight = torch.zeros(*mean.shape, windows.shape[1], dtype=mu.dtype, device=mu.device) if X.cov is not None else None
    if weight is not None:
        weight[..., 0] = 1.0
    for k in range(1, windows.shape[1]):
        nth, here = index[:, k], (windows[:, k] >= 0)[None]
        c: torch.Tensor | float = 0.0
        if weight is not None and X.cov is not None:
            c = sum((weight[..., m] * X.cov[:, index[:, m], nth] for m in range(k)), torch.zeros_like(mean))
        best, wide, first = _two_max(mean, spread, mu[:, nth], var[:, nth], c)
        first = torch.where(here, first, torch.ones_like(first))
        mean, spread = torch.where(here, best, mean), torch.where(here, wide, spread)
        if weight is not None:
            weight = weight * first[..., None]
            weight[..., k] = 1 - first
    if weight is None or X.cov is None:
        return Moments(mean.reshape(rows, *out_shape), var=spread.reshape(rows, *out_shape))
    mix = torch.zeros(rows, len(windows), mu.shape[1], dtype=mu.dtype, device=mu.device)
    mix.scatter_add_(2, index[None].expand(rows, -1, -1), weight)
    cov = mix @ X.cov @ mix.transpose(1, 2)
    cov = cov + torch.diag_embed(spread - torch.diagonal(cov, dim1=1, dim2=2))
    return Moments(mean.reshape(rows, *out_shape), cov=cov)


def spatial_linear(function: Callable[[torch.Tensor], torch.Tensor], spatial: tuple[int, ...]
                   ) -> Callable[[torch.Tensor], torch.Tensor]:
    """The map of variances through a linear operation on the last axes that is the same for every channel.

    Parameters
    ----------
    function : tensor ``(rows, channels, *spatial)`` to ``(rows, channels, *out)``, such as average pooling.
    spatial : the input's spatial shape.

    Returns
    -------
    callable on variances. The operation's matrix is read off by applying it to unit images, so that
    padding, uneven adaptive windows and ceil mode come out right.
    """
    p = math.prod(spatial)
    matrix = function(torch.eye(p, dtype=torch.float64).reshape(p, 1, *spatial))
    out = matrix.shape[2:]
    squared = matrix.reshape(p, -1) ** 2

    def apply(var: torch.Tensor) -> torch.Tensor:
        flat = var.reshape(*var.shape[: var.ndim - len(spatial)], p)
        return (flat @ squared.to(var)).reshape(*flat.shape[:-1], *out)

    return apply
