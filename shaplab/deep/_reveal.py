"""RevealCancel and RevealCancelMean for a linear layer followed by a scalar function, seen as one
unit.

For a unit ``g(z_j)`` with ``z = W x + c``, contributions ``W_ji (f_i - b_i)`` above a threshold add
to ``P_j``, the others to ``M_j = z_f - z_b - P_j``; the two parts play the game of
``rules.reveal_cancel_literal``. With threshold 0 the parts separate into products with the positive
and negative weights, so any linear operation will do. With the mean as threshold every pair of
input and unit is compared: a numba kernel does that on the CPU for dense layers and for windows of
convolutions.

Cost: threshold 0, two products forward and three back for each pair of rows; mean, two passes over
all weights for each pair of rows and each window.

Chapter: deep/reveal_cancel
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from shaplab._parallel import chunks
from shaplab.deep._watched import Rule, UnitPass
from shaplab.deep.kernels.units import (
    Contributions,
    UnitEnds,
    above_mean,
    padded,
    split_at_mean,
)
from shaplab.deep.rules import Function, aligned, slope

__all__: list[str] = []

_COMPARED = 2**22  # largest number of weights compared at once without a kernel


@dataclass(frozen=True)
class Affine:
    """Where a tensor came from: ``apply(x, weight)`` without bias; ``table(x, z)`` gives a
    convolution's windows."""

    x: Tensor
    weight: Tensor
    apply: Callable[[Tensor, Tensor], Tensor]
    table: Callable[[torch.Size, torch.Size], np.ndarray] | None = None
    groups: int = 1
    out_axis: int = 0

    def scaled(self, scale: Tensor) -> Affine:
        """The same followed by a factor for each output channel (BatchNorm in eval mode)."""
        shape = [1] * self.weight.dim()
        shape[self.out_axis] = -1
        factor = scale.detach().to(self.weight.dtype).view(shape)
        return replace(self, weight=self.weight * factor)


class ValueAndSlope(NamedTuple):
    """A function at some sums ``z``."""

    z: Tensor
    value: Tensor
    slope: Tensor


def _value_and_slope(g: Function, z: Tensor) -> ValueAndSlope:
    return ValueAndSlope(z, g(z), slope(g, z))


def multipliers_of_parts(
    ours: ValueAndSlope, theirs: ValueAndSlope, up: Tensor, cross: Tensor
) -> tuple[Tensor, Tensor]:
    """Multipliers of the part above the threshold, with sum ``up``, and of the rest. ``cross`` is
    the value with the first part alone less that with the second alone."""
    whole = ours.value - theirs.value
    flat = (ours.slope + theirs.slope) / 2
    down = ours.z - theirs.z - up
    nothing = 16 * torch.finfo(theirs.z.dtype).eps * (1 + theirs.z.abs())
    return (
        torch.where(up.abs() <= nothing, flat, (whole + cross) / (2 * up)),
        torch.where(down.abs() <= nothing, flat, (whole - cross) / (2 * down)),
    )


def fused(g: Function, affine: Affine, which: str) -> Rule:
    """The rule of one unit; its inputs are ``x`` and, for look-up only, ``z``."""
    split = _split_at_zero if which == "reveal_cancel" else _split_at_mean

    def rule(seen: UnitPass) -> list[Tensor]:
        if "known" not in seen.kept:
            seen.kept["known"] = _value_and_slope(g, seen.b[1])
        return [split(g, affine, seen, _value_and_slope(g, seen.f[1]))]

    return rule


# Threshold 0


def _split_at_zero(g: Function, affine: Affine, seen: UnitPass, ours: ValueAndSlope) -> Tensor:
    step = seen.f[0] - seen.b[0]
    theirs = seen.kept["known"]
    positive = affine.weight.clamp(min=0)
    negative = affine.weight - positive
    up = affine.apply(step.clamp(min=0), positive) + affine.apply(step.clamp(max=0), negative)
    cross = g(theirs.z + up) - g(ours.z - up)
    m_up, m_down = multipliers_of_parts(ours, theirs, up, cross)
    if "back" not in seen.kept:
        with torch.enable_grad():
            point = torch.zeros_like(step).requires_grad_()
            whole = affine.apply(point, affine.weight)
            seen.kept["back"] = point, whole, affine.apply(point, positive)
    point, whole, plus = seen.kept["back"]

    def back(out: Tensor, multipliers: Tensor) -> Tensor:
        return torch.autograd.grad(out, point, multipliers, retain_graph=True)[0]

    spread = seen.q * (m_up - m_down)
    base = back(whole, seen.q * m_down)
    by_positive = back(plus, spread)
    by_all = back(whole, spread)
    # A positive step meets positive weights above the threshold; a negative step meets negative
    # ones.
    by_sign = torch.where(step < 0, by_all - by_positive, by_all / 2)
    return base + torch.where(step > 0, by_positive, by_sign)


# The mean as threshold


class DenseTables:
    """How inputs and units become tables, one of each for each group of channels; a dense layer has
    one group."""

    def __init__(self, affine: Affine, x: Tensor, z: Tensor) -> None:
        self.x = x.shape
        self.z = z.shape
        inputs = affine.weight[0].numel()
        self.weights = list(affine.weight.detach().reshape(affine.groups, -1, inputs))
        self.players = torch.full((1,), float(x.shape[-1]), dtype=x.dtype, device=x.device)

    def of_inputs(self, x: Tensor) -> list[Tensor]:
        return [aligned(x, self.x).reshape(-1, x.shape[-1])]

    def of_units(self, z: Tensor) -> list[Tensor]:
        return [aligned(z, self.z).reshape(-1, z.shape[-1])]

    def units(self, tables: list[Tensor]) -> Tensor:
        return tables[0].reshape(self.z)

    def inputs(self, tables: list[Tensor]) -> Tensor:
        return tables[0].reshape(self.x)


class WindowTables(DenseTables):
    """A convolution: each window of the input is a row of a dense layer; ``index`` -1 reads
    padding."""

    def __init__(self, affine: Affine, x: Tensor, z: Tensor) -> None:
        super().__init__(affine, x, z)
        windows = affine.table(x.shape, z.shape)  # type: ignore[misc]
        self.index = torch.as_tensor(windows, device=x.device)
        channels = x.shape[1] // affine.groups
        self.players = ((self.index >= 0).sum(1) * channels).to(x.dtype)

    def of_inputs(self, x: Tensor) -> list[Tensor]:
        flat = x.flatten(2)
        # Index -1 reads the zero that is joined here.
        flat = torch.cat([flat, torch.zeros_like(flat[..., :1])], -1)
        windows = flat[:, :, self.index]  # (rows, channels, windows, taps)
        groups = windows.chunk(len(self.weights), 1)
        return [group.movedim(2, 1).flatten(2).flatten(0, 1) for group in groups]

    def of_units(self, z: Tensor) -> list[Tensor]:
        groups = z.flatten(2).chunk(len(self.weights), 1)
        return [group.movedim(1, 2).flatten(0, 1) for group in groups]

    def units(self, tables: list[Tensor]) -> Tensor:
        shape = self.z[0], len(self.index), -1
        return torch.cat([t.reshape(shape).movedim(1, 2) for t in tables], 1).reshape(self.z)

    def inputs(self, tables: list[Tensor]) -> Tensor:
        rows, channels, *spatial = self.x
        windows, taps = self.index.shape
        shape = rows, windows, -1, taps
        credit = torch.cat([t.reshape(shape).movedim(1, 2).flatten(2) for t in tables], 1)
        size = int(np.prod(spatial))
        sums = credit.new_zeros(rows, channels, size + 1)
        places = torch.where(self.index < 0, size, self.index).reshape(-1)
        sums.index_add_(2, places, credit)
        return sums[..., :-1].reshape(self.x)


def _split_at_mean(g: Function, affine: Affine, seen: UnitPass, ours: ValueAndSlope) -> Tensor:
    q = seen.q
    theirs = seen.kept["known"]
    fast = q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)
    above = above_mean if fast else above_mean_in_torch
    split = split_at_mean if fast else split_at_mean_in_torch

    def ready(tables: list[Tensor]) -> list[Any]:
        if not fast:
            return tables
        return [np.ascontiguousarray(table.detach().numpy()) for table in tables]

    if "tables" not in seen.kept:
        kind = DenseTables if affine.table is None else WindowTables
        made = kind(affine, seen.b[0], theirs.z)
        weights = ready(made.weights)
        if fast:
            weights = [padded(weight) for weight in weights]
        seen.kept["tables"] = made, weights, ready([1 / made.players])[0]
    made, weights, inverse = seen.kept["tables"]
    inputs = ready(made.of_inputs(seen.f[0])), ready(made.of_inputs(seen.b[0]))
    totals = ready(made.of_units(ours.z)), ready(made.of_units(theirs.z))
    sums = [
        Contributions(f, b, weight, z_f, z_b, inverse)
        for f, b, weight, z_f, z_b in zip(*inputs, weights, *totals, strict=True)
    ]
    up = made.units([torch.as_tensor(above(group)) for group in sums])
    at_parts = g(theirs.z + up), g(ours.z - up)
    ends = (up, ours.value, ours.slope, theirs.value, theirs.slope, *at_parts)
    tables = zip(*(ready(made.of_units(t)) for t in ends), strict=True)
    tiny = 16 * torch.finfo(q.dtype).eps
    multipliers = [
        split(group, UnitEnds(*table), by, tiny)
        for group, table, by in zip(sums, tables, ready(made.of_units(q)), strict=True)
    ]
    return made.inputs([torch.as_tensor(rows) for rows in multipliers])


# What the two kernels do, where numba does not reach: a few rows at a time


def _compared(sums: Any) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """For some rows at a time: the rows, their contributions, and which lie above the mean."""
    f, b, weight, z_f, z_b, inverse = sums
    for rows in chunks(len(b), max(1, _COMPARED // weight.numel())):
        place = torch.arange(rows.start, rows.stop, device=b.device)
        rise = z_f[place % len(z_f)] - z_b[rows]
        mean = rise * inverse[place % len(inverse), None]
        contributions = (f[place % len(f)] - b[rows])[:, None] * weight
        yield rows, contributions, contributions > mean[..., None]


def above_mean_in_torch(sums: Any) -> Tensor:
    """``above_mean`` of tensors on any device."""
    return torch.cat([torch.where(above, c, 0.0).sum(-1) for _, c, above in _compared(sums)])


def split_at_mean_in_torch(sums: Any, ends: Any, q: Tensor, tiny: float) -> Tensor:
    """``split_at_mean`` of tensors on any device."""
    times = len(sums.z_b) // len(sums.z_f)
    ours = ValueAndSlope(*(t.repeat(times, 1) for t in (sums.z_f, ends.at_f, ends.slope_f)))
    theirs = ValueAndSlope(sums.z_b, ends.at_b, ends.slope_b)
    parts = multipliers_of_parts(ours, theirs, ends.up, ends.at_up - ends.at_down)
    high, low = (q * part for part in parts)
    return torch.cat(
        [
            (torch.where(above, high[rows, :, None], low[rows, :, None]) * sums.weight).sum(1)
            for rows, _, above in _compared(sums)
        ]
    )
