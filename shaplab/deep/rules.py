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
from typing import Any

import numpy as np
import torch

from shaplab.deep.kernels.units import rescale_rows

__all__ = [
    "maximum_literal",
    "normalise_literal",
    "product_literal",
    "rescale_literal",
    "reveal_cancel_literal",
]

Function = Callable[[torch.Tensor], torch.Tensor]


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
    middle, h = (f + b) / 2, 1e-5
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
    h_up, h_down = float(c[up].sum()), float(c[~up].sum())
    phi_up = 0.5 * ((g(base + h_up + h_down) - g(base + h_down)) + (g(base + h_up) - g(base)))
    phi_down = 0.5 * ((g(base + h_up + h_down) - g(base + h_up)) + (g(base + h_down) - g(base)))
    phi = np.zeros(len(c))
    for part, total, value, other in ((up, h_up, phi_up, h_down), (~up, h_down, phi_down, h_up)):
        if part.any():
            step = 0.5 * (
                rescale_literal(g, base, base) + rescale_literal(g, base + other, base + other)
            )
            phi[part] = c[part] * (value / total if abs(total) > 1e-12 else step)
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
        A, C = (f > low) & (b <= low), (b > low) & (f <= low)
        if ((f > low) & (b > low)).any():
            continue
        a, c = int(A.sum()), int(C.sum())
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
    low, high = np.mean(b**2), np.mean(f**2)
    own = q - q.mean() if centre else q
    found = np.zeros(len(f))
    for angle in (np.arange(steps) + 0.5) / steps * np.pi / 2:
        # p = sin(angle)^2 lingers at both ends, where the square may be 0.
        p, dp = np.sin(angle) ** 2, np.pi / 2 / steps * np.sin(2 * angle)
        x = b + p * (f - b)
        mean = x.mean() if centre else 0.0
        square = low + p * (high - low) - mean**2 + eps
        found += dp * own / square**0.5
        pull = q @ (x - mean) * -0.5 / square**1.5
        found += dp * pull * (f + b - 2 * mean) / len(f)
    return found


SLOPES: dict[
    str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
] = {  # of (x, g(x)), where they are cheap
    "relu": lambda x, y: (x > 0).to(x.dtype),
    "sigmoid": lambda x, y: y * (1 - y),
    "tanh": lambda x, y: 1 - y * y,
    "exp": lambda x, y: y,
    "abs": lambda x, y: x.sign(),
    "square": lambda x, y: 2 * x,
}


def slope(
    g: Function, x: torch.Tensor, y: torch.Tensor | None = None, name: str = ""
) -> torch.Tensor:
    """Derivative of an elementwise function at ``x``, where its value is ``y``; 0 where it is
    infinite, as a step of 0 from there changes nothing."""
    if name in SLOPES and y is not None:
        return SLOPES[name](x, y)
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        value = g(point)
        if not value.requires_grad:  # a step function
            return torch.zeros_like(x)
        found = torch.autograd.grad(value.sum(), point)[0].detach()
        return torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def aligned(f: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """``f`` so that its rows repeat over those of a tensor of this shape when both are flattened to
    tables."""
    return f if f.shape[1:] == shape[1:] and f.shape[0] in (1, shape[0]) else f.expand(shape)


# When the mean of the slopes at both ends stands in for the quotient, by kind of function: scale
# and offset of ``|f - b| <= scale (offset + |b|)``, then ``|slope_f - slope_b| <= apart + bend |f -
# b|``. The quotient errs by ``eps / step``, the slopes by ``step**2 / 12``: they meet near the cube
# root of eps, the unit of scale.
LIMITS = {
    "smooth": (0.25, 1.0, np.inf, 0.0),
    "pole": (0.25, 0.0, np.inf, 0.0),  # steep near 0, smooth only relative to |b|
    "kinked": (0.25, 1.0, 0.0, 0.0),  # piecewise linear: only when both ends lie on the same piece
    "bent": (
        0.25,
        1.0,
        0.0,
        8.0,
    ),  # smooth pieces: only when the slopes differ as little as a smooth function's
    "step": (0.0, 1.0, np.inf, 0.0),  # only where nothing changed
}


def limits(kind: str, dtype: torch.dtype) -> np.ndarray:
    """The four numbers of ``LIMITS`` for a dtype."""
    scale, *rest = LIMITS[kind]
    return np.array(
        [scale * torch.finfo(dtype).eps ** (1 / 3), *rest], "f8" if dtype.itemsize == 8 else "f4"
    )


def rescale(
    g: Function,
    f: torch.Tensor,
    b: torch.Tensor,
    kind: str = "smooth",
    known: tuple[torch.Tensor, torch.Tensor] | None = None,
    name: str = "",
    q: torch.Tensor | None = None,
) -> torch.Tensor:
    """``q`` times the multiplier of Rescale; ``known`` is ``(g(b), slope at b)`` when computed
    before."""
    at_b, slope_b = known or (g(b), slope(g, b))
    at_f = g(f)
    slope_f, q = slope(g, f, at_f, name), torch.ones_like(b) if q is None else q
    if b.device.type == "cpu" and b.dim():
        tensors = [aligned(t, b.shape) for t in (f, at_f, slope_f, b, at_b, slope_b, q)]
        tables: Any = [np.ascontiguousarray(t.numpy().reshape(len(t), -1)) for t in tensors]
        out = np.empty(tables[3].shape, tables[3].dtype)
        rescale_rows(*tables, limits(kind, b.dtype), out)  # type: ignore[call-arg]
        return torch.from_numpy(out).reshape(b.shape)
    scale, offset, apart, bend = (float(v) for v in limits(kind, b.dtype))
    step = f - b
    close = step.abs() <= scale * (offset + b.abs())
    close &= (slope_f - slope_b).abs() <= apart + bend * step.abs()
    close |= step == 0  # slopes of equal inputs may differ by rounding
    return q * torch.where(close, (slope_f + slope_b) / 2, (at_f - at_b) / step)


def two_players(
    g: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    f: tuple[torch.Tensor, torch.Tensor],
    b: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multipliers of both inputs of an elementwise ``g(x, y)``, by its four corners; the mean of
    the slopes where an input is the same in both rows."""
    both, first, second, none = g(f[0], f[1]), g(f[0], b[1]), g(b[0], f[1]), g(b[0], b[1])
    found: list[torch.Tensor] = []
    for step, gain, ends in (
        (f[0] - b[0], both - second + first - none, ((b[0], f[1]), (b[0], b[1]))),
        (f[1] - b[1], both - first + second - none, ((f[0], b[1]), (b[0], b[1]))),
    ):
        same, place = step == 0, len(found)
        share = gain / (2 * torch.where(same, 1.0, step))
        if same.device.type == "meta" or bool(same.any()):
            flat = (_partial(g, ends[0], place) + _partial(g, ends[1], place)) / 2
            share = torch.where(same, flat, share)
        found.append(share)
    return found[0], found[1]


def _partial(
    g: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    at: tuple[torch.Tensor, torch.Tensor],
    place: int,
) -> torch.Tensor:
    """Derivative of ``g`` in one of its inputs, 0 where it is infinite."""
    with torch.enable_grad():
        ends = [t.detach().clone().requires_grad_() for t in torch.broadcast_tensors(*at)]
        found = torch.autograd.grad(g(*ends).sum(), ends[place], allow_unused=True)[0]
    if found is None:
        return torch.zeros_like(ends[place])
    return torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def normalise(
    f: torch.Tensor,
    b: torch.Tensor,
    q: torch.Tensor,
    dims: tuple[int, ...],
    eps: float,
    centre: bool = True,
) -> torch.Tensor:
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


def softmax_of_entries(f: torch.Tensor, b: torch.Tensor, q: torch.Tensor, dim: int) -> torch.Tensor:
    """Multipliers of logits that are players themselves, under softmax.

    Each probability is the sigmoid of its logit minus the log-sum-exp of the others: a game of two
    players, the logit and the others together, whose share goes to each by the secant of its
    exponential. Bounded, as both shares are differences of probabilities.
    """
    f, b = (t.movedim(dim, -1) for t in torch.broadcast_tensors(f, b))
    same = torch.eye(f.shape[-1], dtype=torch.bool, device=f.device)
    rest_f, rest_b = (_others(t, same) for t in (f, b))
    own = (_sigmoid_secant(f - rest_f, b - rest_f) + _sigmoid_secant(f - rest_b, b - rest_b)) / 2
    them = (_sigmoid_secant(f - rest_f, f - rest_b) + _sigmoid_secant(b - rest_f, b - rest_b)) / 2
    share = _log_secant(f, b).unsqueeze(-2) - _log_secant(rest_f, rest_b).unsqueeze(-1)
    share = torch.nan_to_num(torch.exp(share.masked_fill(same, -torch.inf)), nan=0.0)
    weight = q.movedim(dim, -1)
    found = weight * own - ((weight * them).unsqueeze(-1) * share).sum(-2)
    return found.movedim(-1, dim)


def _others(logits: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Log-sum-exp of all logits but each one."""
    return torch.logsumexp(logits.unsqueeze(-2).masked_fill(same, -torch.inf), -1)


def _secant_of_decay(step: torch.Tensor) -> torch.Tensor:
    """``(1 - exp(-step)) / step`` for a step of at least 0."""
    return torch.where(step == 0, 1.0, -torch.expm1(-step) / torch.where(step == 0, 1.0, step))


def _sigmoid_secant(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """``(sigmoid u - sigmoid v) / (u - v)`` without cancellation."""
    top, low = torch.maximum(u, v), torch.minimum(u, v)
    return torch.sigmoid(top) * torch.sigmoid(-low) * _secant_of_decay(top - low)


def _log_secant(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Logarithm of ``(exp u - exp v) / (u - v)``."""
    return torch.maximum(u, v) + torch.log(_secant_of_decay((u - v).abs()))


def quotient_of_norm(
    f: torch.Tensor,
    b: torch.Tensor,
    q: torch.Tensor,
    scales: tuple[torch.Tensor, torch.Tensor],
    dims: tuple[int, ...],
    rate: float | torch.Tensor,
    shift: torch.Tensor | None = None,
) -> torch.Tensor:
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


def _mean_of_inverse_scales(
    t: torch.Tensor, between: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
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


def maximum(f: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Exact multipliers of the inputs of ``max`` over the last axis; ``-inf`` in both marks a
    missing input.

    An input with ``f = b`` gets the share of orders in which it would decide at its level.
    """
    f, b = torch.broadcast_tensors(f, b)
    k = f.shape[-1]
    levels, _ = torch.cat([f, b], -1).sort(-1, descending=True)
    count = torch.arange(2 * k + 2, device=f.device, dtype=torch.float64)
    weight = torch.lgamma(count.clamp(min=1))  # weight[n + 1] = log n!
    phi = torch.zeros_like(f, dtype=torch.float64)
    for i in range(2 * k - 1):
        low = levels[..., i + 1 : i + 2]
        width = torch.nan_to_num(levels[..., i : i + 1] - low, nan=0.0, posinf=0.0).double()
        above, below = f > low, b > low
        A, C = above & ~below, below & ~above
        open_ = ~(above & below).any(-1, keepdim=True)
        a, c = A.sum(-1, keepdim=True), C.sum(-1, keepdim=True)
        for members, own, other, sign in ((A, a, c, 1.0), (C, c, a, -1.0)):
            share = torch.exp(
                weight[own.clamp(min=1)] + weight[other + 1] - weight[own + other + 1]
            )
            phi += sign * torch.where(members & open_, width * share, 0.0)
    step = (f - b).double()
    with torch.no_grad():
        x = torch.where(f == b, b, torch.full_like(b, torch.inf)).unsqueeze(-1)
        above, below = f.unsqueeze(-2) > x, b.unsqueeze(-2) > x
        a, c = (above & ~below).sum(-1), (below & ~above).sum(-1)
        tie = torch.exp(weight[a + 1] + weight[c + 1] - weight[a + c + 2])
        tie = torch.where((above & below).any(-1) | torch.isinf(f), 0.0, tie)
    return torch.where(f == b, tie, phi / step).to(b.dtype)


def cross_maximum(f: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cheap multipliers of ``max`` over the last axis: all credit to the input that made the larger
    maximum."""
    f, b = torch.broadcast_tensors(f, b)
    top_f, at_f = f.max(-1, keepdim=True)
    top_b, at_b = b.max(-1, keepdim=True)
    at = torch.where(top_f > top_b, at_f, at_b)
    step = f.gather(-1, at) - b.gather(-1, at)
    share = torch.where(step == 0, torch.ones_like(step), (top_f - top_b) / step)
    return torch.zeros_like(b).scatter(-1, at, share)
