"""Propagation rules: how the attribution of one operation's output is shared among its inputs.

For one explained row and one reference row an operation sees inputs ``f`` and ``b``. If its output
carries multiplier ``q`` (attribution per unit of change), a rule gives every input a multiplier so
that ``sum(multiplier * (f - b)) = q * (g(f) - g(b))``. Each rule is an exact Shapley value of a
small game:

- Rescale: one player, the input of a scalar function ``g``: ``(g(f) - g(b)) / (f - b)``;
- RevealCancel: two players, the parts of ``sum_i w_i x_i`` whose contributions ``c_i = w_i (f_i -
  b_i)`` lie above and not above a threshold (0, or for RevealCancelMean the mean of the ``c_i``);
- product: two players, ``phi_x = (f_x - b_x) (f_y + b_y) / 2``;
- maximum: all inputs of a window are players, exactly;
- normalisation: the inputs are many small players, and so is the mean square that they share.

Functions take tensors that broadcast: ``f`` one row, ``b`` many. Source: Chen, Lundberg and Lee
(2019), "Propagating Shapley values"; the maximum's exact rule counts, between two consecutive
values, who is above. Cost: elementwise; the maximum sorts 2k values for k inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import factorial

import numpy as np
import torch
from torch import Tensor

from shaplab.deep.kernels.units import FunctionEnds, rescale_rows

__all__ = [
    "maximum_literal",
    "normalise_literal",
    "product_literal",
    "rescale_literal",
    "reveal_cancel_literal",
]

Function = Callable[[Tensor], Tensor]


def rescale_literal(g: Callable[[float], float], f: float, b: float) -> float:
    """The multiplier of Rescale, in floats.

    Parameters
    ----------
    g : scalar function.
    f, b : its explained and reference inputs; when they are within 1e-6 of each other the slope at
        their midpoint stands in for the quotient.

    Returns
    -------
    float, attribution per unit of change of the input.

    References
    ----------
    Chen, Lundberg and Lee (2019), Figure 1b.

    Examples
    --------
    >>> rescale_literal(lambda z: max(z, 0.0), 3.0, -1.0)
    0.75
    """
    if abs(f - b) > 1e-6 * (1 + abs(b)):
        return (g(f) - g(b)) / (f - b)
    middle = (f + b) / 2
    h = 1e-5
    return (g(middle + h) - g(middle - h)) / (2 * h)


def reveal_cancel_literal(
    g: Callable[[float], float],
    w: np.ndarray,
    f: np.ndarray,
    b: np.ndarray,
    threshold: float | str = 0.0,
    bias: float = 0.0,
) -> np.ndarray:
    """Attributions of ``g(w @ x + bias)`` by RevealCancel, in the paper's symbols.

    Parameters
    ----------
    g : scalar function.
    w : array ``(d,)``, weights.
    f, b : arrays ``(d,)``, explained and reference inputs.
    threshold : ``t`` of the paper; ``"mean"`` takes the mean contribution (RevealCancelMean).
    bias : added before ``g``.

    Returns
    -------
    array ``(d,)``; sums to ``g(w @ f + bias) - g(w @ b + bias)``.

    Notes
    -----
    The source prints ``phi(g+)`` twice; the second is ``phi(g-)``. A part that sums to zero has
    nothing to share in proportion to, and shares by the slope that its attribution tends to.

    References
    ----------
    Chen, Lundberg and Lee (2019), section "Propagating SHAP values" and Figure 6.

    Examples
    --------
    >>> reveal_cancel_literal(lambda z: max(z, 0.0), np.ones(2), np.array([3.0, -2.0]), np.zeros(2))
    array([ 2., -1.])
    """
    c = w * (f - b)
    t = c.mean() if threshold == "mean" else float(threshold)
    up = c > t
    base = float(w @ b) + bias
    h_up = float(c[up].sum())
    h_down = float(c[~up].sum())
    phi_up = 0.5 * ((g(base + h_up + h_down) - g(base + h_down)) + (g(base + h_up) - g(base)))
    phi_down = 0.5 * ((g(base + h_up + h_down) - g(base + h_up)) + (g(base + h_down) - g(base)))
    phi = np.zeros(len(c))
    for part, total, value, other in ((up, h_up, phi_up, h_down), (~up, h_down, phi_down, h_up)):
        if not part.any():
            continue
        if abs(total) > 1e-12:
            share = value / total
        else:  # nothing to share in proportion to: the slope with and without the other part
            slopes = rescale_literal(g, base, base), rescale_literal(g, base + other, base + other)
            share = 0.5 * sum(slopes)
        phi[part] = c[part] * share
    return phi


def product_literal(f: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Shapley values of the two factors of a product.

    Parameters
    ----------
    f, b : pairs, explained and reference values of both factors.

    Returns
    -------
    pair of floats; sums to ``f[0] * f[1] - b[0] * b[1]``.

    Examples
    --------
    >>> product_literal((2.0, 3.0), (0.0, 1.0))
    (4.0, 2.0)
    """
    return (f[0] - b[0]) * (f[1] + b[1]) / 2, (f[1] - b[1]) * (f[0] + b[0]) / 2


def maximum_literal(f: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact Shapley values of ``max`` over inputs that are either explained or reference values.

    Parameters
    ----------
    f, b : arrays ``(k,)``.

    Returns
    -------
    array ``(k,)``; sums to ``max(f) - max(b)``.

    Notes
    -----
    Between two consecutive values as threshold ``t``, the maximum exceeds ``t`` when some player of
    ``A = {f > t >= b}`` is present or some player of ``C = {b > t >= f}`` is absent. A member of A
    decides in a share ``(a-1)! c! / (a+c)!`` of the orders, a member of C in ``a! (c-1)! /
    (a+c)!``. A player above with both values decides for all, and the interval is skipped. Cost:
    ``O(k^2)`` here.

    Examples
    --------
    >>> maximum_literal(np.array([2.0, 1.0]), np.array([0.0, 0.0]))
    array([1.5, 0.5])
    """
    phi = np.zeros(len(f))
    levels = np.unique(np.concatenate([f, b]))
    for low, high in pairwise(levels):
        if ((f > low) & (b > low)).any():
            continue
        A = (f > low) & (b <= low)
        C = (b > low) & (f <= low)
        a = int(A.sum())
        c = int(C.sum())
        if a:
            phi[A] += (high - low) * factorial(a - 1) * factorial(c) / factorial(a + c)
        if c:
            phi[C] -= (high - low) * factorial(c - 1) * factorial(a) / factorial(a + c)
    return phi


def normalise_literal(
    f: np.ndarray,
    b: np.ndarray,
    q: np.ndarray,
    eps: float = 0.0,
    steps: int = 4000,
    centre: bool = False,
) -> np.ndarray:
    """Multipliers of ``x / sqrt(mean(x^2) + eps)`` as integrals over the share p of inputs present.

    Parameters
    ----------
    f, b : arrays ``(d,)``, explained and reference inputs.
    q : array ``(d,)``, multipliers of the outputs.
    eps : added to the mean square.
    steps : midpoints of the integrals.
    centre : subtract the mean first, as LayerNorm does.

    Returns
    -------
    array ``(d,)``; times ``f - b`` they sum to the change of ``q @ x / sqrt(mean(x^2) + eps)``.

    Notes
    -----
    With a share p of many inputs present, chosen at random, an input is on average ``b + p (f -
    b)`` and the mean square ``B + p (F - B)``, which is not the mean square of the average. The
    variance is that mean square less the square of the mean.

    Examples
    --------
    >>> normalise_literal(np.array([2.0]), np.array([0.0]), np.ones(1)).round(2)
    array([0.5])
    """
    low = np.mean(b**2)
    high = np.mean(f**2)
    own = q - q.mean() if centre else q
    found = np.zeros(len(f))
    for angle in (np.arange(steps) + 0.5) / steps * np.pi / 2:
        # p = sin(angle)^2 lingers at both ends, where the square may be 0.
        p = np.sin(angle) ** 2
        dp = np.pi / 2 / steps * np.sin(2 * angle)
        x = b + p * (f - b)
        mean = x.mean() if centre else 0.0
        square = low + p * (high - low) - mean**2 + eps
        found += dp * own / square**0.5
        pull = q @ (x - mean) * -0.5 / square**1.5
        found += dp * pull * (f + b - 2 * mean) / len(f)
    return found


# Functions of one input


def _exp_slope(x: Tensor, y: Tensor) -> Tensor:
    return y


def _relu_slope(x: Tensor, y: Tensor) -> Tensor:
    return (x > 0).to(x.dtype)


def _sigmoid_slope(x: Tensor, y: Tensor) -> Tensor:
    return y * (1 - y)


def _square_slope(x: Tensor, y: Tensor) -> Tensor:
    return 2 * x


def _tanh_slope(x: Tensor, y: Tensor) -> Tensor:
    return 1 - y * y


def _absolute_slope(x: Tensor, y: Tensor) -> Tensor:
    return x.sign()


# Derivatives that are cheap once the value is known.
SLOPES_FROM_VALUES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relu": _relu_slope,
    "sigmoid": _sigmoid_slope,
    "tanh": _tanh_slope,
    "exp": _exp_slope,
    "abs": _absolute_slope,
    "square": _square_slope,
}


def slope(g: Function, x: Tensor, y: Tensor | None = None, name: str = "") -> Tensor:
    """Derivative of an elementwise function at ``x``, where its value is ``y``; 0 where it is
    infinite, as a step of 0 from there changes nothing."""
    if name in SLOPES_FROM_VALUES and y is not None:
        return SLOPES_FROM_VALUES[name](x, y)
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = g(point)
        if not value.requires_grad:  # a step function
            return torch.zeros_like(x)
        derivative = torch.autograd.grad(value.sum(), point)[0].detach()
        return torch.nan_to_num(derivative, nan=0.0, posinf=0.0, neginf=0.0)


def aligned(f: Tensor, shape: torch.Size) -> Tensor:
    """``f`` so that its rows repeat over those of a tensor of this shape when both are flattened to
    tables."""
    if f.shape[1:] == shape[1:] and f.shape[0] in (1, shape[0]):
        return f
    return f.expand(shape)


# When the mean of the slopes at both ends stands in for the quotient, by kind of function: scale
# and offset of ``|f - b| <= scale (offset + |b|)``, then ``|slope_f - slope_b| <= apart + bend |f -
# b|``. The quotient errs by ``eps / step``, the slopes by ``step**2 / 12``: they meet near the cube
# root of eps, the unit of scale.
LIMITS = {
    "smooth": (0.25, 1.0, np.inf, 0.0),
    # Steep near 0, smooth only relative to |b|.
    "pole": (0.25, 0.0, np.inf, 0.0),
    # Piecewise linear: only when both ends lie on the same piece.
    "kinked": (0.25, 1.0, 0.0, 0.0),
    # Smooth pieces: only when the slopes differ as little as a smooth function's.
    "bent": (0.25, 1.0, 0.0, 8.0),
    # Only where nothing changed.
    "step": (0.0, 1.0, np.inf, 0.0),
}


def limits(kind: str, dtype: torch.dtype) -> np.ndarray:
    """The four numbers of ``LIMITS`` for a dtype."""
    scale, *others = LIMITS[kind]
    unit = torch.finfo(dtype).eps ** (1 / 3)
    return np.array([scale * unit, *others], "f8" if dtype.itemsize == 8 else "f4")


def rescale(
    g: Function,
    f: Tensor,
    b: Tensor,
    kind: str = "smooth",
    known: tuple[Tensor, Tensor] | None = None,
    name: str = "",
    q: Tensor | None = None,
) -> Tensor:
    """``q`` times the multiplier of Rescale; ``known`` is ``(g(b), slope at b)`` when computed
    before."""
    if known is None:
        known = g(b), slope(g, b)
    at_b, slope_b = known
    at_f = g(f)
    slope_f = slope(g, f, at_f, name)
    if q is None:
        q = torch.ones_like(b)
    if b.device.type == "cpu" and b.dim():
        ours = FunctionEnds(*(_as_rows(t, b.shape) for t in (f, at_f, slope_f)))
        theirs = FunctionEnds(*(_as_rows(t, b.shape) for t in (b, at_b, slope_b)))
        out = np.empty(theirs.x.shape, theirs.x.dtype)
        rescale_rows(ours, theirs, _as_rows(q, b.shape), limits(kind, b.dtype), out)
        return torch.from_numpy(out).reshape(b.shape)
    scale, offset, apart, bend = (float(limit) for limit in limits(kind, b.dtype))
    step = f - b
    close = step.abs() <= scale * (offset + b.abs())
    close &= (slope_f - slope_b).abs() <= apart + bend * step.abs()
    close |= step == 0  # slopes of equal inputs may differ by rounding
    return q * torch.where(close, (slope_f + slope_b) / 2, (at_f - at_b) / step)


def _as_rows(values: Tensor, shape: torch.Size) -> np.ndarray:
    """A table for the kernel, whose rows repeat over those of a tensor of this shape."""
    values = aligned(values, shape)
    return np.ascontiguousarray(values.numpy().reshape(len(values), -1))


# Functions of two inputs


def two_players(
    g: Callable[[Tensor, Tensor], Tensor],
    f: tuple[Tensor, Tensor],
    b: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Multipliers of both inputs of an elementwise ``g(x, y)``, by its four corners; the mean of
    the slopes where an input is the same in both rows."""
    both = g(f[0], f[1])
    first = g(f[0], b[1])
    second = g(b[0], f[1])
    none = g(b[0], b[1])
    gains = both - second + first - none, both - first + second - none
    # Where the other input is present, and where it is absent.
    points = ((b[0], f[1]), (b[0], b[1])), ((f[0], b[1]), (b[0], b[1]))
    multipliers = []
    for place in (0, 1):
        step = f[place] - b[place]
        same = step == 0
        share = gains[place] / (2 * torch.where(same, 1.0, step))
        if same.device.type == "meta" or bool(same.any()):
            present, absent = (_partial(g, point, place) for point in points[place])
            share = torch.where(same, (present + absent) / 2, share)
        multipliers.append(share)
    return multipliers[0], multipliers[1]


def _partial(
    g: Callable[[Tensor, Tensor], Tensor],
    at: tuple[Tensor, Tensor],
    place: int,
) -> Tensor:
    """Derivative of ``g`` in one of its inputs, 0 where it is infinite."""
    with torch.enable_grad():
        ends = [t.detach().clone().requires_grad_() for t in torch.broadcast_tensors(*at)]
        derivative = torch.autograd.grad(g(*ends).sum(), ends[place], allow_unused=True)[0]
    if derivative is None:
        return torch.zeros_like(ends[place])
    return torch.nan_to_num(derivative, nan=0.0, posinf=0.0, neginf=0.0)


# Inputs that share a denominator


def normalise(
    f: Tensor,
    b: Tensor,
    q: Tensor,
    dims: tuple[int, ...],
    eps: float,
    centre: bool = True,
) -> Tensor:
    """Multipliers of ``(x - mean) / sqrt(var + eps)`` (or, without ``centre``, of ``x /
    sqrt(mean(x^2) + eps)``).

    The inputs are many small players: when a share p of them is present, the mean square is near
    ``B + p (F - B)``, and the mean is linear in p. See ``quotient_of_norm``.
    """
    shift = None
    if centre:
        mean_f = f.mean(dims, keepdim=True)
        mean_b = b.mean(dims, keepdim=True)
        shift = mean_f - mean_b
        f = f - mean_f
        b = b - mean_b
    s_f = torch.sqrt((f * f).mean(dims, keepdim=True) + eps)
    s_b = torch.sqrt((b * b).mean(dims, keepdim=True) + eps)
    size = b[0:1].numel() // s_b[0:1].numel()
    return quotient_of_norm(f, b, q, (s_f, s_b), dims, 1.0 / size, shift)


def quotient_of_norm(
    f: Tensor,
    b: Tensor,
    q: Tensor,
    scales: tuple[Tensor, Tensor],
    dims: tuple[int, ...],
    rate: float | Tensor,
    shift: Tensor | None = None,
) -> Tensor:
    """Multipliers of ``x / s(x)``, where ``s^2`` changes by ``rate`` times the sum of squares.

    Integrated over the share p of inputs present, with ``t = s_f + s_b``, an input has the
    multiplier ``2 / t`` on its own output, and on all outputs together, through the square,
    ``-rate (f + b) * sum(q (f / s_f + b / s_b)) / t^2``.

    With ``shift``, ``f`` and ``b`` are centred, their means differed by ``shift``, and the
    multipliers are those of the inputs before centring. A coalition then mixes rows of two levels,
    and that adds ``p (1 - p) between`` to its variance, where ``between = rate n shift^2``.
    """
    s_f, s_b = scales
    t = s_f + s_b
    inverse = torch.where(t == 0, 0.0, 1 / t)
    at_f = torch.where(s_f == 0, 0.0, (q * f).sum(dims, keepdim=True) / s_f)
    at_b = torch.where(s_b == 0, 0.0, (q * b).sum(dims, keepdim=True) / s_b)
    if shift is None:
        return 2 * inverse * q - rate * inverse * inverse * (at_f + at_b) * (f + b)
    size = b[0:1].numel() // s_b[0:1].numel()
    between = rate * size * shift * shift
    whole = t * t + between
    bounded = torch.where(whole == 0, 0.0, 1 / whole)
    own, cross = _mean_of_inverse_scales(t, between)
    pull = bounded * (at_f + at_b)
    # What the mean of the inputs present does to their variance: it grows while few are.
    lean = bounded * (at_b - at_f) + cross * (at_f * s_f - at_b * s_b)
    return own * (q - q.mean(dims, keepdim=True)) - rate * (pull * (f + b) + lean * shift)


def _mean_of_inverse_scales(t: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
    """Integrals over p in [0, 1] of ``1 / s`` and of ``p (1 - p) / s^3``, where ``s^2 = (1 - p)
    s_b^2 + p s_f^2 + p (1 - p) between`` and ``t = s_f + s_b``."""
    width = torch.sqrt(between)
    inverse = torch.where(t == 0, 0.0, 1 / t)
    near = between <= 1e-3 * t * t
    safe = torch.where(near, 1.0, between)
    own = 2 * torch.where(width == 0, inverse, torch.atan2(width, t) / width)
    cross = (own - 2 * t / (t * t + safe)) / safe
    r = between * inverse * inverse
    series = (4 / 3 - r * (8 / 5 - r * (12 / 7 - r * 16 / 9))) * inverse**3
    return own, torch.where(near, series, cross)


def softmax_of_entries(f: Tensor, b: Tensor, q: Tensor, dim: int) -> Tensor:
    """Multipliers of logits that are players themselves, under softmax.

    Each probability is the sigmoid of its logit minus the log-sum-exp of the others: a game of two
    players, the logit and the others together, whose share goes to each by the secant of its
    exponential. Bounded, as both shares are differences of probabilities.
    """
    f, b = (t.movedim(dim, -1) for t in torch.broadcast_tensors(f, b))
    itself = torch.eye(f.shape[-1], dtype=torch.bool, device=f.device)
    others_f = _log_sum_of_others(f, itself)
    others_b = _log_sum_of_others(b, itself)
    own = _sigmoid_secant(f - others_f, b - others_f) + _sigmoid_secant(f - others_b, b - others_b)
    them = _sigmoid_secant(f - others_f, f - others_b) + _sigmoid_secant(b - others_f, b - others_b)
    of_each = sum(log_secant(f, b))
    of_all = sum(log_secant(others_f, others_b))
    log_share = of_each.unsqueeze(-2) - of_all.unsqueeze(-1)  # type: ignore[union-attr]
    share = torch.nan_to_num(torch.exp(log_share.masked_fill(itself, -torch.inf)), nan=0.0)
    weight = q.movedim(dim, -1)
    from_others = (weight * (them / 2)).unsqueeze(-1) * share
    return (weight * (own / 2) - from_others.sum(-2)).movedim(-1, dim)


def _log_sum_of_others(logits: Tensor, itself: Tensor) -> Tensor:
    """Log-sum-exp of all logits but each one."""
    return torch.logsumexp(logits.unsqueeze(-2).masked_fill(itself, -torch.inf), -1)


def _secant_of_decay(step: Tensor) -> Tensor:
    """``(1 - exp(-step)) / step`` for a step of at least 0."""
    return torch.where(step == 0, 1.0, -torch.expm1(-step) / torch.where(step == 0, 1.0, step))


def _sigmoid_secant(u: Tensor, v: Tensor) -> Tensor:
    """``(sigmoid u - sigmoid v) / (u - v)`` without cancellation."""
    top = torch.maximum(u, v)
    low = torch.minimum(u, v)
    return torch.sigmoid(top) * torch.sigmoid(-low) * _secant_of_decay(top - low)


def log_secant(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Two parts of the logarithm of ``(exp u - exp v) / (u - v)``, or of ``exp u`` where they are
    equal: the larger of both, and what is left, which is at most 0."""
    return torch.maximum(u, v), torch.log(_secant_of_decay((u - v).abs()))


# The maximum


def maximum(f: Tensor, b: Tensor) -> Tensor:
    """Exact multipliers of the inputs of ``max`` over the last axis; ``-inf`` in both marks a
    missing input.

    An input with ``f = b`` gets the share of orders in which it would decide at its level.
    """
    f, b = torch.broadcast_tensors(f, b)
    k = f.shape[-1]
    levels, _ = torch.cat([f, b], -1).sort(-1, descending=True)
    count = torch.arange(2 * k + 2, device=f.device, dtype=torch.float64)
    log_factorial = torch.lgamma(count.clamp(min=1))  # of n at place n + 1
    phi = torch.zeros_like(f, dtype=torch.float64)
    for i in range(2 * k - 1):
        low = levels[..., i + 1 : i + 2]
        width = torch.nan_to_num(levels[..., i : i + 1] - low, nan=0.0, posinf=0.0).double()
        above = f > low
        below = b > low
        A = above & ~below
        C = below & ~above
        undecided = ~(above & below).any(-1, keepdim=True)
        a = A.sum(-1, keepdim=True)
        c = C.sum(-1, keepdim=True)
        for members, own, other, sign in ((A, a, c, 1.0), (C, c, a, -1.0)):
            orders = log_factorial[own.clamp(min=1)] + log_factorial[other + 1]
            share = torch.exp(orders - log_factorial[own + other + 1])
            phi += sign * torch.where(members & undecided, width * share, 0.0)
    with torch.no_grad():
        tie = _share_at_own_level(f, b, log_factorial)
    return torch.where(f == b, tie, phi / (f - b).double()).to(b.dtype)


def _share_at_own_level(f: Tensor, b: Tensor, log_factorial: Tensor) -> Tensor:
    """For inputs with ``f = b``: the share of orders in which they decide at their level."""
    level = torch.where(f == b, b, torch.full_like(b, torch.inf)).unsqueeze(-1)
    above = f.unsqueeze(-2) > level
    below = b.unsqueeze(-2) > level
    a = (above & ~below).sum(-1)
    c = (below & ~above).sum(-1)
    orders = log_factorial[a + 1] + log_factorial[c + 1]
    tie = torch.exp(orders - log_factorial[a + c + 2])
    return torch.where((above & below).any(-1) | torch.isinf(f), 0.0, tie)


def cross_maximum(f: Tensor, b: Tensor) -> Tensor:
    """Cheap multipliers of ``max`` over the last axis: all credit to the input that made the larger
    maximum."""
    f, b = torch.broadcast_tensors(f, b)
    top_f, at_f = f.max(-1, keepdim=True)
    top_b, at_b = b.max(-1, keepdim=True)
    place = torch.where(top_f > top_b, at_f, at_b)
    step = f.gather(-1, place) - b.gather(-1, place)
    share = torch.where(step == 0, torch.ones_like(step), (top_f - top_b) / step)
    return torch.zeros_like(b).scatter(-1, place, share)
