r"""Moments through the operations of a network, for Gaussian inputs and for slightly skewed ones.

Each rule takes the moments of its input, entry by entry, and returns those of its output. Alone, an
entry has a mean and a variance, and the entries of a tensor count as independent. With *terms*
every entry :math:`u` also knows how it depends on the :math:`n` players, whose presences
:math:`\zeta_j` are centred, with variance :math:`f` and third cumulant :math:`c`:

.. math:: u = \mu + \sum_j A_j \zeta_j + \tfrac12 \sum_{jl} B_{jl} (\zeta_j \zeta_l - E \zeta_j
   \zeta_l) + \text{rest}.

Terms pass linear operations unchanged. A non-linear :math:`g` gives :math:`A' = E g'(u) A` and
:math:`B' = E g'(u) B + E g''(u) A A^\top`, and the rest takes what is missing from the exact
variance, if anything. So two entries have the covariance :math:`f A \cdot A^* + \tfrac12 f^2 B
\cdot B^*`, behind the first non-linearity the first two terms :math:`E g'_a E g'_b \Sigma_{ab} +
\tfrac12 E g''_a E g''_b \Sigma_{ab}^2` of the Hermite expansion, and the third cumulant :math:`c
\sum_j A_j^3 + 3 f^2 A^\top B A`. Closed forms: ReLU, leaky ReLU, the maximum of two (Clark, 1961);
other non-linearities by Gauss-Hermite quadrature. A third cumulant enters by the first term of
Edgeworth's series. Source: Ancona, Öztireli and Gross (2019); Gast and Roth (2018); the terms and
the third cumulant are our own.
Cost: one elementwise pass, and one more for each of the ``n + n (n + 1) / 2`` terms.

Chapter: deep/dasp
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shaplab._validation import fail

__all__ = [
    "Moments",
    "leaky_relu",
    "max_pool",
    "pair_literal",
    "quadrature",
    "relu_literal",
    "smooth_literal",
    "spatial_linear",
    "two_max_literal",
]

_ROOT2 = math.sqrt(2.0)
# half of them carry no weight; fewer are too coarse for a tanh that is steep beside the spread
_NODES = 100


# The literal twins: one scalar at a time.


def relu_literal(mu: float, v: float, slope: float = 0.0, k3: float = 0.0) -> tuple[float, float]:
    """Mean and variance of max(X, slope X) for X ~ N(mu, v), or with a third cumulant k3 by
    Edgeworth's first term."""
    s = math.sqrt(v)
    if s == 0.0:
        return max(mu, slope * mu), 0.0
    phi = math.exp(-0.5 * (mu / s) ** 2) / math.sqrt(2 * math.pi)
    Phi = 0.5 * math.erfc(-mu / s / _ROOT2)
    positive = mu * Phi + s * phi - k3 / (6 * v) * mu / s * phi  # E[X; X > 0]
    square = (mu**2 + v) * Phi + mu * s * phi + k3 / (3 * s) * phi  # E[X^2; X > 0]
    mean = (1 - slope) * positive + slope * mu
    return mean, (1 - slope**2) * square + slope**2 * (mu**2 + v) - mean**2


def two_max_literal(
    mu_a: float, v_a: float, mu_b: float, v_b: float, c: float = 0.0
) -> tuple[float, float]:
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


def smooth_literal(
    g: Callable[[np.ndarray], np.ndarray], mu: float, v: float, k3: float = 0.0
) -> tuple[float, float]:
    """Mean and variance of g(X), X ~ N(mu, v) or with third cumulant k3 as above, by a fine Riemann
    sum."""
    z = np.linspace(-12.0, 12.0, 20001)
    weight = np.exp(-0.5 * z**2)
    if k3:
        weight = weight * (1 + k3 / (6 * v**1.5) * (z**3 - 3 * z))
    values = g(mu + math.sqrt(v) * z)
    mean = float((weight * values).sum() / weight.sum())
    return mean, float((weight * (values - mean) ** 2).sum() / weight.sum())


def pair_literal(A: np.ndarray, B: np.ndarray, f: float, c: float) -> tuple[np.ndarray, np.ndarray]:
    """Covariances and third cumulants of entries with terms ``A (p, n)`` and ``B (p, n, n)``, sum
    by sum."""
    p, n = A.shape
    cov = np.zeros((p, p))
    third = np.zeros(p)
    for a in range(p):
        for j in range(n):
            third[a] += c * A[a, j] ** 3
            cov[a] += f * A[a, j] * A[:, j]
            for l in range(n):
                cov[a] += 0.5 * f**2 * B[a, j, l] * B[:, j, l]
                third[a] += 3 * f**2 * A[a, j] * B[a, j, l] * A[a, l]
    return cov, third


class Moments:
    """Moments of a tensor with a leading axis of rows.

    Parameters
    ----------
    mean : tensor ``(rows, *shape)``.
    rest : variance of every entry that is its own, ``(rows, *shape)``; without terms, all of it.
    terms : ``(n + n (n + 1) / 2, rows, *shape)``: A, then B for the pairs j <= l; or None.
    law : ``(f, c)``, each ``(rows,)``: variance and third cumulant of a player's presence; c None
        to leave it out.
    """

    def __init__(
        self,
        mean: Tensor,
        rest: Tensor,
        terms: Tensor | None = None,
        law: tuple[Tensor, Tensor | None] | None = None,
    ) -> None:
        if (terms is None) != (law is None):
            fail(
                "law",
                "given exactly when terms are",
                "one of the two",
                "Pass both or none",
                TypeError,
            )
        self.mean = mean
        self.rest = rest
        self.terms = terms
        self.law = law

    def shared(self, one: Tensor, two: Tensor) -> Tensor:
        """Covariance of entries from their terms, ``(t, rows, ...)`` each."""
        i, j, n = _player_pairs(len(one))
        f = self.law[0]  # type: ignore[index]
        of_pairs = torch.where(i == j, 0.5, 1.0).to(f)[:, None] * f**2
        weight = torch.cat([f.expand(n, -1), of_pairs])
        return torch.einsum("tr,tr...,tr...->r...", weight, one, two)

    @property
    def var(self) -> Tensor:
        """Variance of every entry."""
        if self.terms is None:
            return self.rest
        return self.rest + self.shared(self.terms, self.terms)

    @property
    def skew(self) -> Tensor | float:
        """Third cumulant of every entry over s^3, held within 3: beyond, no short series serves."""
        if self.terms is None or self.law is None or self.law[1] is None:
            return 0.0
        i, j, n = _player_pairs(len(self.terms))
        ones = (1,) * (self.mean.ndim - 1)
        f = self.law[0].reshape(-1, *ones)
        c = self.law[1].reshape(-1, *ones)
        s = self.var.sqrt()
        unit = torch.where(s > 0, self.terms / s, torch.zeros_like(s))
        A = unit[:n]
        B = unit[n:] * torch.where(i == j, 3.0, 6.0).to(s).reshape(-1, 1, *ones)
        return (c * (A**3).sum(0) + f**2 * (B * A[i] * A[j]).sum(0)).clamp(-3, 3)

    def bent(self, mean: Tensor, var: Tensor, first: Tensor, second: Tensor) -> Moments:
        """Moments behind a non-linear g from the mean and variance of g and the means of g' and
        g''."""
        if self.terms is None:
            return Moments(mean, var.clamp_min(0))
        i, j, n = _player_pairs(len(self.terms))
        terms = first * self.terms
        terms[n:] += second * self.terms[i] * self.terms[j]
        return Moments(mean, (var - self.shared(terms, terms)).clamp_min(0), terms, self.law)


def _player_pairs(count: int) -> tuple[Tensor, Tensor, int]:
    """The pairs j <= l of n players that so many terms, n + n (n + 1) / 2, are for, and n."""
    n = (math.isqrt(9 + 8 * count) - 3) // 2
    i, j = torch.triu_indices(n, n)
    return i, j, n


def _normal(ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Density and both tails of a standard normal; erfc keeps each tail exact."""
    phi = torch.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
    return phi, 0.5 * torch.erfc(-ratio / _ROOT2), 0.5 * torch.erfc(ratio / _ROOT2)


def _in_spreads(gap: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """A distance in units of ``s``, within 50, and an ``s`` that may be divided by."""
    safe = torch.where(s > 0, s, torch.ones_like(s))
    return torch.where(s > 0, gap / safe, torch.sign(gap) * 50.0).clamp(-50.0, 50.0), safe


def leaky_relu(X: Moments, slope: float = 0.0) -> Moments:
    """ReLU (slope 0) and leaky ReLU in closed form.

    The variance is written as v times a function of mu / s, so nothing cancels far out in the
    tails: at mu = -40 s the result is 0 and at mu = 40 s it is v, without NaN.
    """
    mu = X.mean
    v = X.var
    s = v.sqrt()
    ratio, safe = _in_spreads(mu, s)
    phi, Phi, tail = _normal(ratio)
    # In units of s, with r = mu / s: the corrections of E[X; X > 0], of its variance and of its
    # covariance with X.
    third = X.skew / 6 * phi
    shift = -third * ratio
    rise = ratio * Phi + phi
    wide = 2 * third - 2 * rise * shift - shift**2
    along = 2 * third - ratio * shift
    positive = torch.where(s > 0, mu * Phi + s * (phi + shift), mu.clamp_min(0))
    mean = (1 - slope) * positive + slope * mu
    # Var[max(X, 0)] / v = Phi + (r Phi + phi)(r (1 - Phi) - phi), and the leaky part adds its own
    # share.
    up = rise * (ratio * tail - phi)
    leak = slope**2 * (tail + up)
    skewed = (1 - slope) ** 2 * wide
    var = v * (Phi + up + leak - 2 * slope * up + skewed + 2 * slope * (1 - slope) * along)
    first = slope + (1 - slope) * Phi
    second = (1 - slope) * torch.where(s > 0, phi / safe, 0 * s)
    return X.bent(mean, var, first, second)


def quadrature(X: Moments, function: Callable[[Tensor], Tensor]) -> Moments:
    """Any smooth elementwise function by Gauss-Hermite quadrature (sigmoid, tanh, GELU, ...).

    Within 1% of the spread and of the variance up to a spread of 4; for functions with kinks
    (hardtanh, hardswish, ReLU6) within 4%.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    counted = weights > 1e-16
    mu = X.mean
    s = X.var.sqrt()
    third = X.skew / 6
    weights = weights[counted] / weights[counted].sum()
    values = [
        (float(z), float(w), function(mu + float(z) * s))
        for z, w in zip(nodes[counted], weights, strict=True)
    ]

    def expect(f: Callable[[float, Tensor], Tensor]) -> Tensor:
        return sum((w * f(z, g) for z, w, g in values), torch.zeros_like(mu))

    mean = expect(lambda z, g: (1 + third * (z**3 - 3 * z)) * g)
    var = expect(lambda z, g: (1 + third * (z**3 - 3 * z)) * (g - mean) ** 2)
    safe = torch.where(s > 0, s, torch.ones_like(s))
    first = expect(lambda z, g: z * g) / safe
    second = expect(lambda z, g: (z * z - 1) * g) / safe**2
    return X.bent(mean, var, first, second)


class _Larger(NamedTuple):
    """The larger of two Gaussians: ``first`` is the chance that it is the first, ``tie`` the
    density of a tie."""

    mean: Tensor
    var: Tensor
    first: Tensor
    tie: Tensor


def _larger_of_two(a: Tensor, va: Tensor, b: Tensor, vb: Tensor, c: Tensor | float) -> _Larger:
    s2 = (va + vb - 2 * c).clamp_min(0)
    s = s2.sqrt()
    alpha, safe = _in_spreads(a - b, s)
    phi, Phi, tail = _normal(alpha)
    mean = torch.where(s > 0, b + s * (alpha * Phi + phi), torch.maximum(a, b))
    # Around the mean: Phi va + (1 - Phi) vb + s^2 (alpha Phi + phi)(alpha (1 - Phi) - phi), free of
    # large squares.
    var = Phi * va + tail * vb + s2 * (alpha * Phi + phi) * (alpha * tail - phi)
    return _Larger(mean, var.clamp_min(0), Phi, torch.where(s > 0, phi / safe, 0 * s))


def max_pool(X: Moments, windows: Tensor, out_shape: tuple[int, ...]) -> Moments:
    """The maximum over windows, pair by pair from the first entry on.

    Parameters
    ----------
    X : moments with rows of shape ``shape``, ``p`` entries.
    windows : long tensor ``(q, k)``: the flat input entries of each of ``q`` windows; -1 for
        padding.
    out_shape : shape of a row of the output, ``q`` entries.

    Notes
    -----
    What the entries of a window have in common is known from the terms only. Each partial maximum
    is treated as Gaussian again, so the order matters a little: for four entries up to 2% of the
    spread in a mean, 9% in a variance.
    """
    rows = len(X.mean)
    windows = windows.to(X.mean.device)
    padding_last = torch.argsort((windows < 0).long(), dim=1, stable=True)
    windows = windows.gather(1, padding_last)
    index = windows.clamp_min(0)
    mu = X.mean.reshape(rows, -1)
    var = X.var.reshape(rows, -1)
    known = None if X.terms is None else X.terms.reshape(len(X.terms), rows, -1)
    mean = mu[:, index[:, 0]]
    spread = var[:, index[:, 0]]
    terms = None if known is None else known[:, :, index[:, 0]]
    for k in range(1, windows.shape[1]):
        nth = index[:, k]
        here = windows[:, k] >= 0
        rival = None if known is None else known[:, :, nth]
        c = 0.0 if terms is None or rival is None else X.shared(terms, rival)
        larger = _larger_of_two(mean, spread, mu[:, nth], var[:, nth], c)
        mean = torch.where(here, larger.mean, mean)
        spread = torch.where(here, larger.var, spread)
        if terms is not None and rival is not None:
            terms = torch.where(here, _terms_of_larger(terms, rival, larger), terms)
    shape = (rows, *out_shape)
    if terms is None:
        return Moments(mean.reshape(shape), spread.reshape(shape))
    rest = (spread - X.shared(terms, terms)).clamp_min(0)
    terms = terms.reshape(len(terms), *shape)
    return Moments(mean.reshape(shape), rest.reshape(shape), terms, X.law)


def _terms_of_larger(terms: Tensor, rival: Tensor, larger: _Larger) -> Tensor:
    i, j, n = _player_pairs(len(terms))
    gap = terms[:n] - rival[:n]
    mixed = larger.first * terms + (1 - larger.first) * rival
    mixed[n:] += larger.tie * gap[i] * gap[j]
    return mixed


def spatial_linear(
    function: Callable[[Tensor], Tensor], spatial: tuple[int, ...]
) -> Callable[[Tensor], Tensor]:
    """The map of variances through a linear operation on the last axes that is the same for every
    channel.

    Parameters
    ----------
    function : tensor ``(rows, channels, *spatial)`` to ``(rows, channels, *out)``, such as average
        pooling.
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

    def apply(var: Tensor) -> Tensor:
        flat = var.reshape(*var.shape[: var.ndim - len(spatial)], p)
        return (flat @ squared.to(var)).reshape(*flat.shape[:-1], *out)

    return apply
