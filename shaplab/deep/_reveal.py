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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shaplab._parallel import chunks
from shaplab.deep.kernels.units import above_mean, padded, split_at_mean
from shaplab.deep.rules import aligned, slope

__all__: list[str] = []

_CELLS = 2**22  # largest number of compared weights at once without a kernel


@dataclass
class Affine:
    """Where a tensor came from: ``apply(x, weight)`` without bias; ``table(x, z)`` gives a
    convolution's windows."""

    x: torch.Tensor
    weight: torch.Tensor
    apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    table: Callable[[torch.Size, torch.Size], np.ndarray] | None = None
    groups: int = 1
    out_axis: int = 0

    def scaled(self, scale: torch.Tensor) -> Affine:
        """The same followed by a factor for each output channel (BatchNorm in eval mode)."""
        shape = [1] * self.weight.dim()
        shape[self.out_axis] = -1
        return Affine(
            self.x,
            self.weight * scale.detach().to(self.weight.dtype).view(shape),
            self.apply,
            self.table,
            self.groups,
            self.out_axis,
        )


def parts(
    of_f: tuple[torch.Tensor, torch.Tensor],
    of_b: tuple[torch.Tensor, torch.Tensor],
    corners: tuple[torch.Tensor, torch.Tensor],
    z_f: torch.Tensor,
    z_b: torch.Tensor,
    up: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multipliers of the part above the threshold, with sum ``up``, and of the rest, from values
    and slopes."""
    whole, cross, flat = of_f[0] - of_b[0], corners[0] - corners[1], (of_f[1] + of_b[1]) / 2
    down, tiny = z_f - z_b - up, 16 * torch.finfo(z_b.dtype).eps * (1 + z_b.abs())
    return (
        torch.where(up.abs() <= tiny, flat, (whole + cross) / (2 * up)),
        torch.where(down.abs() <= tiny, flat, (whole - cross) / (2 * down)),
    )


def fused(g: Callable[[torch.Tensor], torch.Tensor], affine: Affine, which: str) -> Any:
    """The rule of one unit; its inputs are ``x`` and, for look-up only, ``z``."""

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        (x_f, z_f), (x_b, z_b) = f, b
        if "known" not in kept:
            kept["known"] = (g(z_b), slope(g, z_b))
        of_f = (g(z_f), slope(g, z_f))

        def corners(up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return g(z_b + up), g(z_f - up)

        if which == "reveal_cancel":
            return [_at_zero(affine, x_f - x_b, (z_f, z_b), of_f, corners, q, kept)]
        return [_at_mean(affine, (x_f, x_b), (z_f, z_b), of_f, corners, q, kept)]

    return rule


def _at_zero(
    affine: Affine,
    step: torch.Tensor,
    z: tuple[torch.Tensor, torch.Tensor],
    of_f: tuple[torch.Tensor, torch.Tensor],
    corners: Any,
    q: torch.Tensor,
    kept: dict[str, Any],
) -> torch.Tensor:
    positive = affine.weight.clamp(min=0)
    negative = affine.weight - positive
    up = affine.apply(step.clamp(min=0), positive) + affine.apply(step.clamp(max=0), negative)
    m_up, m_down = parts(of_f, kept["known"], corners(up), *z, up)
    if "back" not in kept:
        with torch.enable_grad():
            point = torch.zeros_like(step).requires_grad_()
            kept["back"] = (
                point,
                affine.apply(point, affine.weight),
                affine.apply(point, positive),
            )
    point, whole, plus = kept["back"]

    def back(of: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(of, point, by, retain_graph=True)[0]

    spread = q * (m_up - m_down)
    base, extra, both = back(whole, q * m_down), back(plus, spread), back(whole, spread)
    # A positive step meets positive weights above the threshold; a negative step meets negative
    # ones.
    share = torch.where(step > 0, extra, torch.where(step < 0, both - extra, both / 2))
    return base + share


class Dense:
    """How inputs and units become tables, one of each for each group of channels; a dense layer has
    one group."""

    def __init__(self, affine: Affine, x: torch.Tensor, z: torch.Tensor) -> None:
        self.x, self.z, groups = x.shape, z.shape, affine.groups
        self.weights = list(affine.weight.detach().reshape(groups, -1, affine.weight[0].numel()))
        self.players = torch.full((1,), float(x.shape[-1]), dtype=x.dtype, device=x.device)

    def rows(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [aligned(x, self.x).reshape(-1, x.shape[-1])]

    def columns(self, z: torch.Tensor) -> list[torch.Tensor]:
        return [aligned(z, self.z).reshape(-1, z.shape[-1])]

    def units(self, columns: list[torch.Tensor]) -> torch.Tensor:
        return columns[0].reshape(self.z)

    def inputs(self, rows: list[torch.Tensor]) -> torch.Tensor:
        return rows[0].reshape(self.x)


class Windowed(Dense):
    """A convolution: each window of the input is a row of a dense layer; ``index`` -1 reads
    padding."""

    def __init__(self, affine: Affine, x: torch.Tensor, z: torch.Tensor) -> None:
        super().__init__(affine, x, z)
        self.index = torch.as_tensor(affine.table(x.shape, z.shape), device=x.device)  # type: ignore[misc]
        self.players = ((self.index >= 0).sum(1) * (x.shape[1] // affine.groups)).to(x.dtype)

    def rows(self, x: torch.Tensor) -> list[torch.Tensor]:
        flat = x.flatten(2)
        seen = torch.cat([flat, torch.zeros_like(flat[..., :1])], -1)[
            :, :, self.index
        ]  # (B, C, W, k)
        return [t.movedim(2, 1).flatten(2).flatten(0, 1) for t in seen.chunk(len(self.weights), 1)]

    def columns(self, z: torch.Tensor) -> list[torch.Tensor]:
        return [t.movedim(1, 2).flatten(0, 1) for t in z.flatten(2).chunk(len(self.weights), 1)]

    def units(self, columns: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(
            [t.reshape(self.z[0], len(self.index), -1).movedim(1, 2) for t in columns], 1
        ).reshape(self.z)

    def inputs(self, rows: list[torch.Tensor]) -> torch.Tensor:
        outer, channels, *spatial = self.x
        windows, taps = self.index.shape
        found = [t.reshape(outer, windows, -1, taps).movedim(1, 2).flatten(2) for t in rows]
        size = int(np.prod(spatial))
        sums = rows[0].new_zeros(outer, channels, size + 1)
        sums.index_add_(
            2, torch.where(self.index < 0, size, self.index).reshape(-1), torch.cat(found, 1)
        )
        return sums[..., :-1].reshape(self.x)


def _at_mean(
    affine: Affine,
    x: tuple[torch.Tensor, torch.Tensor],
    z: tuple[torch.Tensor, torch.Tensor],
    of_f: tuple[torch.Tensor, torch.Tensor],
    corners: Any,
    q: torch.Tensor,
    kept: dict[str, Any],
) -> torch.Tensor:
    fast = q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64)
    first: Any = above_mean if fast else _above
    second: Any = split_at_mean if fast else _split

    def ready(tables: list[torch.Tensor]) -> list[Any]:
        return [np.ascontiguousarray(t.detach().numpy()) for t in tables] if fast else tables

    if "tables" not in kept:
        made = (Dense if affine.table is None else Windowed)(affine, x[1], z[1])
        weights = [padded(w) for w in ready(made.weights)] if fast else made.weights
        kept["tables"] = made, weights, ready([1 / made.players])[0]
    made, weights, inverse = kept["tables"]
    xs = [ready(made.rows(t)) for t in x]
    zs = [ready(made.columns(t)) for t in z]
    shared = list(zip(*xs, weights, *zs, [inverse] * len(weights), strict=True))
    ups = [torch.as_tensor(first(*some)) for some in shared]
    up = made.units(ups)
    more = [ready(made.columns(t)) for t in (up, *of_f, *kept["known"], *corners(up), q)]
    tiny = 16 * torch.finfo(q.dtype).eps
    found = [
        second(*some, tiny, *own) for some, own in zip(shared, zip(*more, strict=True), strict=True)
    ]
    return made.inputs([torch.as_tensor(rows) for rows in found])


# What the two kernels do, where numba does not reach: a few rows at a time


def _compared(x_f: Any, x_b: Any, weight: Any, z_f: Any, z_b: Any, inverse: Any) -> Any:
    for rows in chunks(len(x_b), max(1, _CELLS // weight.numel())):
        at = torch.arange(rows.start, rows.stop, device=x_b.device)
        rise = z_f[at % len(z_f)] - z_b[rows]
        c = (x_f[at % len(x_f)] - x_b[rows])[:, None] * weight
        yield rows, c, (rise * inverse[at % len(inverse), None])[..., None]


def _above(*shared: Any) -> torch.Tensor:
    return torch.cat([torch.where(c > bound, c, 0.0).sum(-1) for _, c, bound in _compared(*shared)])


def _split(
    x_f: Any,
    x_b: Any,
    weight: Any,
    z_f: Any,
    z_b: Any,
    inverse: Any,
    tiny: float,
    up: Any,
    at_f: Any,
    slope_f: Any,
    at_b: Any,
    slope_b: Any,
    at_up: Any,
    at_down: Any,
    q: Any,
) -> torch.Tensor:
    times = len(z_b) // len(z_f)
    wide = [t.repeat(times, 1) for t in (at_f, slope_f, z_f)]
    high, low = (
        q * m
        for m in parts((wide[0], wide[1]), (at_b, slope_b), (at_up, at_down), wide[2], z_b, up)
    )
    found = [
        (torch.where(c > bound, high[rows, :, None], low[rows, :, None]) * weight).sum(1)
        for rows, c, bound in _compared(x_f, x_b, weight, z_f, z_b, inverse)
    ]
    return torch.cat(found)
