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

from shaplab._validation import UnsupportedModelError
from shaplab.deep.graph import substitute_at, tensors_of, walk

__all__: list[str] = []

_FEWEST, _MOST = 8, 128
_ENOUGH = 1e-4  # of the contributions: what may be missing before it is shared
_TOO_MUCH = 0.1  # of the contributions: more than this is no error of the sum
_FAR, _NOTHING = 1e3, 40.0  # a logit this far below the largest is a mask, and counts as that far


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
def nodes(count: int) -> list[tuple[float, float]]:
    """Places in [0, 1] and weights of a Gauss-Legendre rule."""
    at, weight = np.polynomial.legendre.leggauss(count)
    return [(float(p), float(w)) for p, w in zip((at + 1) / 2, weight / 2, strict=True)]


def path(run: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """Handler of any differentiable operation; integer outputs are watched as decisions."""
    found = [tensor for tensor in tensors_of((args, kwargs)) if run.depends(tensor)]
    spots = {i for i, tensor in enumerate(tensors_of((args, kwargs))) if run.depends(tensor)}
    args, kwargs = walk(torch.Tensor.detach, args), walk(torch.Tensor.detach, kwargs)

    doubted = hasattr(func, "written_by_user")

    def g(values: list[torch.Tensor]) -> Any:
        new, named = substitute_at(spots, args, kwargs, values)
        return func(*new, **named)

    with torch.enable_grad():
        points = [value.detach().clone().requires_grad_() for value in found]
        native = g(points)
    if not any(t.requires_grad for t in tensors_of(native)):
        run.refuse(run.calling, "it has no derivative")
    place = iter(range(len(tensors_of(native))))

    def unit(out: torch.Tensor) -> torch.Tensor:
        k = next(place)
        if not out.requires_grad:
            if not out.is_floating_point():
                run.watch(out)
            return out

        def rule(
            f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
        ) -> list[torch.Tensor]:
            return integrated(lambda values: tensors_of(g(values))[k], f, b, q, kept, doubted)

        return run.unit(found, out.detach(), rule)

    return walk(unit, native)


def integrated(
    g: Callable[[list[torch.Tensor]], torch.Tensor],
    f: list[torch.Tensor],
    b: list[torch.Tensor],
    q: torch.Tensor,
    kept: dict[str, Any],
    doubted: bool = False,
) -> list[torch.Tensor]:
    """Multipliers of the inputs by the path rule; ``kept["axes"]`` says where the rows are. A
    derivative that is ``doubted`` must sum to most of the change."""
    f = [u.expand_as(v) for u, v in zip(f, b, strict=True)]
    steps = [
        torch.nan_to_num(u - v, nan=0.0, posinf=0.0, neginf=0.0) for u, v in zip(f, b, strict=True)
    ]
    in_axes, out_axis = kept["axes"]
    with torch.no_grad():
        ends = g(f), g(b)
        change = per_row(q.conj() * (ends[0] - ends[1]), out_axis)
        level = per_row(q.abs() * (ends[0].abs() + ends[1].abs()), out_axis)
        rounding = 100 * torch.finfo(change.dtype).eps * level
    count = _FEWEST
    while True:
        total = [torch.zeros_like(v) for v in b]
        for p, weight in nodes(count):
            with torch.enable_grad():
                at = [
                    (v + p * step).detach().requires_grad_()
                    for v, step in zip(b, steps, strict=True)
                ]
                slopes = _slopes(g(at), at, q, kept)
            for i, slope in enumerate(slopes):
                if slope is not None:
                    total[i] += weight * torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
        parts = [m.conj() * step for m, step in zip(total, steps, strict=True)]
        missing = change - _sum(parts, in_axes)
        size = _sum([part.abs() for part in parts], in_axes)
        still = missing.abs() - rounding
        if count >= _MOST or q.device.type == "meta" or bool((still <= _ENOUGH * size).all()):
            break
        count *= 2
    if q.device.type != "meta":
        worst = float((missing.abs() / size.max().clamp_min(torch.finfo(size.dtype).tiny)).max())
        kept["missing"] = max(kept.get("missing", 0.0), worst if float(size.max()) > 0 else 0.0)
    if doubted and q.device.type != "meta" and bool((still > _TOO_MUCH * size.max()).any()):
        raise UnsupportedModelError(
            f"model: expected operations that can be explained, got {kept['name']}: its "
            "derivatives do not sum to the change of its values. Give it a derivative that belongs "
            "to its values, or explain the part of the model after it."
        )
    return shared(total, steps, parts, missing, size, in_axes)


def _slopes(
    out: torch.Tensor, at: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
) -> tuple[Any, ...]:
    try:
        return torch.autograd.grad(out, at, q, allow_unused=True)
    except NotImplementedError as problem:  # torch's word for operations it cannot differentiate
        raise UnsupportedModelError(
            f"model: expected operations that can be explained, got {kept['name']}: it has no "
            "derivative. Rewrite this step with supported operations, or explain the part of the "
            "model after it."
        ) from problem


def shared(
    multipliers: list[torch.Tensor],
    steps: list[torch.Tensor],
    parts: list[torch.Tensor],
    missing: torch.Tensor,
    size: torch.Tensor,
    axes: list[int],
) -> list[torch.Tensor]:
    """Multipliers whose contributions also sum to what was ``missing``, in each row."""
    ratio = torch.where(size > 0, missing / torch.where(size > 0, size, 1.0), 0.0)
    found = []
    for m, step, part, axis in zip(multipliers, steps, parts, axes, strict=True):
        scale = ratio
        if ratio.dim():
            scale = ratio.reshape([-1 if i == axis else 1 for i in range(m.dim())])
        own = part.abs() * scale
        still = step == 0
        found.append(m + torch.where(still, 0.0, own / torch.where(still, 1.0, step)).conj())
    return found


def per_row(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Real sums over all axes but that of the rows; over all axes when it is not known."""
    values = values.real if values.is_complex() else values
    return (
        values.sum() if axis < 0 else values.movedim(axis, 0).reshape(values.shape[axis], -1).sum(1)
    )


def _sum(parts: list[torch.Tensor], axes: list[int]) -> torch.Tensor:
    sums = [per_row(part, axis) for part, axis in zip(parts, axes, strict=True)]
    return torch.stack(sums).sum(0)


def softmax_path(
    f: torch.Tensor, b: torch.Tensor, q: torch.Tensor, dim: int, kind: str
) -> torch.Tensor:
    """Path rule of ``softmax``, ``log_softmax`` or ``logsumexp`` (whose ``q`` keeps the axis).

    A constant added to all logits changes neither a softmax nor its multipliers. Logits so far
    below the largest that they round to nothing (a mask of -1e9) count as just that far below.
    Logits of ``-inf`` take nothing. The integral is over few nodes; what they miss of each sum of
    logits is shared in proportion.
    """
    step = f - b
    still = (step == 0) | (step.abs() == torch.inf) | torch.isnan(step)
    high, low = (_reached(t, dim) for t in (f, b))
    rise = high - low
    spread = rise - rise.mean(dim, keepdim=True)
    total = torch.zeros_like(low * q)
    for p, weight in nodes(_count(spread)):
        share = torch.softmax(low + p * rise, dim)
        if kind == "softmax":
            total += weight * share * (q - (share * q).sum(dim, keepdim=True))
        elif kind == "log_softmax":
            total += weight * (q - share * q.sum(dim, keepdim=True))
        else:
            total += weight * share * q
    if kind == "logsumexp":
        change = q * (torch.logsumexp(f, dim, keepdim=True) - torch.logsumexp(b, dim, keepdim=True))
    else:
        native = torch.softmax if kind == "softmax" else torch.log_softmax
        gain = native(f, dim) - native(b, dim)
        gain = torch.nan_to_num(gain, nan=0.0, posinf=0.0, neginf=0.0)
        change = (q * gain).sum(dim, keepdim=True)
    # With log-softmax a far logit changes its own output by its own step, beyond what is reached.
    own = (step - rise) * q if kind == "log_softmax" else torch.zeros_like(step)
    part = total * rise + torch.where(still, 0.0, own)
    part = torch.where(still, 0.0, part)
    missing = change - part.sum(dim, keepdim=True)
    size = part.abs().sum(dim, keepdim=True)
    scale = torch.where(size > 0, missing / torch.where(size > 0, size, 1.0), 0.0)
    full = (part + part.abs() * scale) / torch.where(still, 1.0, step)
    return torch.where(still, torch.where(step == 0, total, 0.0), full)


def _reached(t: torch.Tensor, dim: int) -> torch.Tensor:
    """Logits with masks, those far below the largest, lifted to where they still weigh nothing."""
    top = t.amax(dim, keepdim=True)
    masks = t < top - _FAR
    if t.device.type != "meta" and not bool(masks.any()):
        return t
    return torch.where(masks, top - _NOTHING, t)


def _count(spread: torch.Tensor) -> int:
    """How many nodes resolve logits that move apart by this much."""
    if spread.device.type == "meta":
        return _FEWEST
    widest, count = float(spread.abs().max()), _FEWEST
    while count < 64 and widest > 2 * count:
        count *= 2
    return count
