"""The path rule: multipliers of any differentiable operation, integrated along the straight path.

Between rows ``b`` and ``f`` an operation ``g`` of many inputs gives each the integral over p in
[0, 1] of its vector-Jacobian product at ``b + p (f - b)``, contracted with the incoming
multipliers. Their sum is ``q (g(f) - g(b))`` by the fundamental theorem. For many small players it
is their Shapley value (Aumann and Shapley); for scalar functions and products of two it is Rescale
and the mean of the other factor. ``path_literal`` says the same for one row, in NumPy.

The integral is a Gauss-Legendre sum, with twice the nodes until the operation adds up; what is then
missing is shared in proportion to the contributions, so that every operation adds up to rounding.

Cost: as many backward passes through the operation as nodes, 8 to 128.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shaplab._validation import UnsupportedModelError
from shaplab.deep._watched import UnitPass, WatchedRun
from shaplab.deep.graph import Call, as_function, tensors_of, walk

__all__: list[str] = []

_FEWEST_NODES = 8
_MOST_NODES = 128
_ENOUGH = 1e-4  # of the contributions: what may be missing before it is shared
_TOO_MUCH = 0.1  # of the contributions: more than this is no error of the sum
_FAR_BELOW = 1e3  # a logit this far below the largest is a mask,
_AS_IF_BELOW = 40.0  # and counts as this far below, where it still weighs nothing


def path_literal(
    slope: Callable[[np.ndarray], np.ndarray], f: np.ndarray, b: np.ndarray, steps: int = 4000
) -> np.ndarray:
    """Attributions of one output by the path rule, as a sum over midpoints of equal steps.

    Parameters
    ----------
    slope : gradient ``(d,)`` of the function at a point ``(d,)``.
    f, b : arrays ``(d,)``, explained and reference inputs.
    steps : number of steps.

    Returns
    -------
    array ``(d,)``; sums to the change of the function, up to the error of the midpoint rule.

    Examples
    --------
    >>> path_literal(lambda z: z[::-1], np.array([2.0, 3.0]), np.array([0.0, 1.0])).round(6)
    array([4., 2.])
    """
    parts = [slope(b + (k + 0.5) / steps * (f - b)) for k in range(steps)]
    return (f - b) * np.mean(parts, axis=0)


@lru_cache(maxsize=16)
def path_nodes(count: int) -> list[tuple[float, float]]:
    """Places in [0, 1] and weights of a Gauss-Legendre rule."""
    places, weights = np.polynomial.legendre.leggauss(count)
    scaled = zip((places + 1) / 2, weights / 2, strict=True)
    return [(float(place), float(weight)) for place, weight in scaled]


def path(run: WatchedRun, call: Call) -> Any:
    """Handler of any differentiable operation; integer outputs are watched as decisions."""
    inputs, function = as_function(call, run.depends)
    doubted = hasattr(call.func, "written_by_user")
    with torch.enable_grad():
        native = function([value.detach().clone().requires_grad_() for value in inputs])
    outputs = tensors_of(native)
    if not any(out.requires_grad for out in outputs):
        run.refuse(run.calling, "it has no derivative")
    places = iter(range(len(outputs)))

    def unit(out: Tensor) -> Tensor:
        place = next(places)
        if not out.requires_grad:
            if not out.is_floating_point():
                run.watch(out)
            return out

        def one_output(values: list[Tensor]) -> Tensor:
            return tensors_of(function(values))[place]

        def rule(seen: UnitPass) -> list[Tensor]:
            return integrated(one_output, seen, doubted)

        return run.unit(inputs, out.detach(), rule)

    return walk(unit, native)


def integrated(
    function: Callable[[list[Tensor]], Tensor], seen: UnitPass, doubted: bool = False
) -> list[Tensor]:
    """Multipliers of the inputs by the path rule. A derivative that is ``doubted`` must sum to most
    of the change."""
    q = seen.q
    axes, out_axis = seen.kept["axes"]
    f = [ours.expand_as(theirs) for ours, theirs in zip(seen.f, seen.b, strict=True)]
    steps = [_finite(ours - theirs) for ours, theirs in zip(f, seen.b, strict=True)]
    with torch.no_grad():
        at_f = function(f)
        at_b = function(seen.b)
        change = per_row(q.conj() * (at_f - at_b), out_axis)
        level = per_row(q.abs() * (at_f.abs() + at_b.abs()), out_axis)
        rounding = 100 * torch.finfo(change.dtype).eps * level
    shapes_only = q.device.type == "meta"
    count = _FEWEST_NODES
    while True:
        multipliers = _mean_slopes(function, seen, steps, count)
        shares = [m.conj() * step for m, step in zip(multipliers, steps, strict=True)]
        missing = change - _sum_per_row(shares, axes)
        size = _sum_per_row([share.abs() for share in shares], axes)
        error = missing.abs() - rounding
        if count >= _MOST_NODES or shapes_only or bool((error <= _ENOUGH * size).all()):
            break
        count *= 2
    if not shapes_only:
        _note_missing(seen.kept, missing, size)
        if doubted and bool((error > _TOO_MUCH * size.max()).any()):
            raise UnsupportedModelError(
                f"model: expected operations that can be explained, got {seen.kept['name']}: its "
                "derivatives do not sum to the change of its values. Give it a derivative that "
                "belongs to its values, or explain the part of the model after it."
            )
    return [
        multiplier + _correction(step, share, missing, size, axis)
        for multiplier, step, share, axis in zip(multipliers, steps, shares, axes, strict=True)
    ]


def _finite(values: Tensor) -> Tensor:
    return torch.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _mean_slopes(
    function: Callable[[list[Tensor]], Tensor],
    seen: UnitPass,
    steps: list[Tensor],
    count: int,
) -> list[Tensor]:
    """Vector-Jacobian products, averaged over the nodes of the path."""
    total = [torch.zeros_like(value) for value in seen.b]
    for place, weight in path_nodes(count):
        with torch.enable_grad():
            point = [
                (value + place * step).detach().requires_grad_()
                for value, step in zip(seen.b, steps, strict=True)
            ]
            slopes = _slopes_at(function(point), point, seen)
        for sums, slope in zip(total, slopes, strict=True):
            if slope is not None:
                sums += weight * _finite(slope)
    return total


def _slopes_at(out: Tensor, point: list[Tensor], seen: UnitPass) -> tuple[Any, ...]:
    try:
        return torch.autograd.grad(out, point, seen.q, allow_unused=True)
    except RuntimeError as problem:
        if "is not implemented" not in str(problem):  # torch's word where it cannot differentiate
            raise
        raise UnsupportedModelError(
            f"model: expected operations that can be explained, got {seen.kept['name']}: it has no "
            "derivative. Rewrite this step with supported operations, or explain the part of the "
            "model after it."
        ) from problem


def _note_missing(kept: dict[str, Any], missing: Tensor, size: Tensor) -> None:
    """Remember the largest share of the contributions that the integral missed."""
    if not float(size.max()) > 0:
        return
    worst = float((missing.abs() / size.max().clamp_min(torch.finfo(size.dtype).tiny)).max())
    kept["missing"] = max(kept.get("missing", 0.0), worst)


def _correction(step: Tensor, share: Tensor, missing: Tensor, size: Tensor, axis: int) -> Tensor:
    """What to add to multipliers so that the contributions also sum to what was ``missing`` in each
    row, in proportion to their size."""
    ratio = torch.where(size > 0, missing / torch.where(size > 0, size, 1.0), 0.0)
    if ratio.dim():
        ratio = ratio.reshape([-1 if i == axis else 1 for i in range(step.dim())])
    still = step == 0
    added = share.abs() * ratio / torch.where(still, 1.0, step)
    return torch.where(still, 0.0, added).conj()


def per_row(values: Tensor, axis: int) -> Tensor:
    """Real sums over all axes but that of the rows; over all axes when it is not known."""
    if values.is_complex():
        values = values.real
    if axis < 0:
        return values.sum()
    return values.movedim(axis, 0).reshape(values.shape[axis], -1).sum(1)


def _sum_per_row(parts: list[Tensor], axes: list[int]) -> Tensor:
    sums = [per_row(part, axis) for part, axis in zip(parts, axes, strict=True)]
    return torch.stack(sums).sum(0)


# Softmax and its relatives: the gradient is known, so the integral needs no graph


def softmax_path(f: Tensor, b: Tensor, q: Tensor, dim: int, kind: str) -> Tensor:
    """Path rule of ``softmax``, ``log_softmax`` or ``logsumexp`` (whose ``q`` keeps the axis).

    A constant added to all logits changes neither a softmax nor its multipliers. Logits so far
    below the largest that they round to nothing (a mask of -1e9) count as just that far below.
    Logits of ``-inf`` take nothing. The integral is over few nodes; what they miss of each sum of
    logits is shared in proportion.
    """
    step = f - b
    still = (step == 0) | (step.abs() == torch.inf) | torch.isnan(step)
    start = _within_reach(b, dim)
    rise = _within_reach(f, dim) - start
    total = torch.zeros_like(start * q)
    for place, weight in path_nodes(_count_for(rise - rise.mean(dim, keepdim=True))):
        total += weight * _softmax_slopes(torch.softmax(start + place * rise, dim), q, dim, kind)
    share = total * rise
    if kind == "log_softmax":
        # A far logit changes its own output by its own step, beyond what is within reach.
        share = share + torch.where(still, 0.0, (step - rise) * q)
    share = torch.where(still, 0.0, share)
    missing = _softmax_change(f, b, q, dim, kind) - share.sum(dim, keepdim=True)
    size = share.abs().sum(dim, keepdim=True)
    scale = torch.where(size > 0, missing / torch.where(size > 0, size, 1.0), 0.0)
    multipliers = (share + share.abs() * scale) / torch.where(still, 1.0, step)
    return torch.where(still, torch.where(step == 0, total, 0.0), multipliers)


def _softmax_slopes(weights: Tensor, q: Tensor, dim: int, kind: str) -> Tensor:
    """Vector-Jacobian product of each kind, where the softmax has the value ``weights``."""
    if kind == "softmax":
        return weights * (q - (weights * q).sum(dim, keepdim=True))
    if kind == "log_softmax":
        return q - weights * q.sum(dim, keepdim=True)
    return weights * q


def _softmax_change(f: Tensor, b: Tensor, q: Tensor, dim: int, kind: str) -> Tensor:
    if kind == "logsumexp":
        return q * (torch.logsumexp(f, dim, keepdim=True) - torch.logsumexp(b, dim, keepdim=True))
    native = torch.softmax if kind == "softmax" else torch.log_softmax
    return (q * _finite(native(f, dim) - native(b, dim))).sum(dim, keepdim=True)


def _within_reach(logits: Tensor, dim: int) -> Tensor:
    """Logits with masks, those far below the largest, lifted to where they still weigh nothing."""
    top = logits.amax(dim, keepdim=True)
    masks = logits < top - _FAR_BELOW
    if logits.device.type != "meta" and not bool(masks.any()):
        return logits
    return torch.where(masks, top - _AS_IF_BELOW, logits)


def _count_for(spread: Tensor) -> int:
    """How many nodes resolve logits that move apart by this much."""
    count = _FEWEST_NODES
    if spread.device.type == "meta":
        return count
    widest = float(spread.abs().max())
    while count < 64 and widest > 2 * count:
        count *= 2
    return count
