"""RevealCancel and RevealCancelMean for a linear layer followed by a scalar function, seen as one unit.

For a unit ``g(z_j)`` with ``z = W x + c``, contributions ``W_ji (f_i - b_i)`` above a threshold add to
``P_j``, the others to ``M_j = z_f - z_b - P_j``; the two parts play the game of ``rules.reveal_cancel_literal``.
With threshold 0 the parts separate into products with the positive and negative weights, so any linear
operation will do. With the mean as threshold every pair of input and unit is compared: a numba kernel
does that on the CPU for dense layers and for windows of convolutions.

Cost: threshold 0, two products forward and three back for each pair of rows; mean, two passes over all
weights for each pair of rows and each window.

Needs: shaplab.deep.kernels.windows, shaplab.deep.rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shaplab.deep.kernels.windows import above_threshold, split_backward
from shaplab.deep.rules import slope

__all__: list[str] = []

_CELLS = 2**22  # largest number of compared weights at once without a kernel


@dataclass
class Affine:
    """Where a tensor came from: ``apply(x, weight)`` without bias; ``table(x, z)`` gives a convolution's windows."""

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
    g: Callable[[torch.Tensor], torch.Tensor],
    z_f: torch.Tensor,
    z_b: torch.Tensor,
    up: torch.Tensor,
    known: tuple[torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multipliers of the part above the threshold, with sum ``up``, and of the rest."""
    at_b, slope_b = known
    down = z_f - z_b - up
    at_f, at_up, at_down = g(z_f), g(z_b + up), g(z_b + down)
    flat = (slope_b + slope(g, z_f)) / 2
    tiny = 16 * torch.finfo(z_b.dtype).eps * (1 + z_b.abs())
    gain_up, gain_down = (at_f - at_down + at_up - at_b) / 2, (at_f - at_up + at_down - at_b) / 2
    return (torch.where(up.abs() <= tiny, flat, gain_up / up), torch.where(down.abs() <= tiny, flat, gain_down / down))


def fused(g: Callable[[torch.Tensor], torch.Tensor], affine: Affine, which: str) -> Any:
    """The rule of one unit; its inputs are ``x`` and, for look-up only, ``z``."""

    def rule(f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]) -> list[torch.Tensor]:
        (x_f, z_f), (x_b, z_b) = f, b
        if "known" not in kept:
            kept["known"] = (g(z_b), slope(g, z_b))
        step = x_f - x_b
        if which == "reveal_cancel":
            return [_at_zero(g, affine, step, z_f, z_b, q, kept)]
        return [_at_mean(g, affine, step, z_f, z_b, q, kept["known"])]

    return rule


def _at_zero(
    g: Any,
    affine: Affine,
    step: torch.Tensor,
    z_f: torch.Tensor,
    z_b: torch.Tensor,
    q: torch.Tensor,
    kept: dict[str, Any],
) -> torch.Tensor:
    positive = affine.weight.clamp(min=0)
    negative = affine.weight - positive
    up = affine.apply(step.clamp(min=0), positive) + affine.apply(step.clamp(max=0), negative)
    m_up, m_down = parts(g, z_f, z_b, up, kept["known"])
    if "back" not in kept:
        with torch.enable_grad():
            point = torch.zeros_like(step).requires_grad_()
            kept["back"] = (point, affine.apply(point, affine.weight), affine.apply(point, positive))
    point, whole, plus = kept["back"]

    def back(of: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(of, point, by, retain_graph=True)[0]

    spread = q * (m_up - m_down)
    base, extra, both = back(whole, q * m_down), back(plus, spread), back(whole, spread)
    # A positive step meets positive weights above the threshold; a negative step meets negative ones.
    share = torch.where(step > 0, extra, torch.where(step < 0, both - extra, both / 2))
    return base + share


def _at_mean(
    g: Any,
    affine: Affine,
    step: torch.Tensor,
    z_f: torch.Tensor,
    z_b: torch.Tensor,
    q: torch.Tensor,
    known: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    rise = z_f - z_b
    if affine.table is None:
        shape = z_b.shape[-1]
        flat = [t.reshape(-1, shape) for t in (rise, *torch.broadcast_tensors(z_f, z_b))]
        slopes = tuple(t.reshape(-1, shape) for t in known)
        rows = step.reshape(-1, step.shape[-1])
        return _dense(
            g,
            affine.weight,
            rows,
            flat[0] / step.shape[-1],
            flat[1],
            flat[2],
            q.reshape(-1, shape),
            (slopes[0], slopes[1]),
        ).reshape(step.shape)
    table = affine.table(step.shape, z_b.shape)
    index = torch.as_tensor(table, device=step.device)
    spatial, outer = step.shape[2:], step.shape[0]
    flat_step = step.flatten(2)
    padded = torch.cat([flat_step, torch.zeros_like(flat_step[..., :1])], -1)
    seen = padded[:, :, index]  # (B, C, W, k); index -1 reads the zero
    windows, taps = table.shape
    groups, channels = affine.groups, step.shape[1] // affine.groups
    players = ((index >= 0).sum(1) * channels).to(step.dtype).repeat(outer)[:, None]

    def columns(t: torch.Tensor, group: int) -> torch.Tensor:
        t = t.expand_as(z_b).flatten(2).movedim(1, 2)
        width = t.shape[-1] // groups
        return t[..., group * width : (group + 1) * width].reshape(outer * windows, width)

    result = torch.zeros_like(padded)
    for group in range(groups):
        mine = slice(group * channels, (group + 1) * channels)
        rows = seen[:, mine].permute(0, 2, 1, 3).reshape(outer * windows, channels * taps)
        weight = affine.weight.reshape(groups, -1, channels * taps)[group]
        pieces = [columns(t, group) for t in (rise, z_f, z_b, q, *known)]
        back = _dense(g, weight, rows, pieces[0] / players, pieces[1], pieces[2], pieces[3], (pieces[4], pieces[5]))
        back = back.reshape(outer, windows, channels, taps).permute(0, 2, 1, 3).reshape(outer, channels, -1)
        result[:, mine].index_add_(2, torch.where(index < 0, padded.shape[-1] - 1, index).reshape(-1), back)
    return result[..., :-1].reshape(*step.shape[:2], *spatial)


def _dense(
    g: Any,
    weight: torch.Tensor,
    step: torch.Tensor,
    threshold: torch.Tensor,
    z_f: torch.Tensor,
    z_b: torch.Tensor,
    q: torch.Tensor,
    known: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """RevealCancel with any threshold for rows ``(R, n_in)`` and units ``(R, n_out)``."""
    if step.device.type == "cpu" and step.dtype in (torch.float32, torch.float64):
        arrays = [np.ascontiguousarray(t.detach().numpy()) for t in (step, weight, threshold)]
        up = np.empty(tuple(z_b.shape), dtype=arrays[0].dtype)
        above_threshold(arrays[0], arrays[1], arrays[2], up)
        m_up, m_down = parts(g, z_f, z_b, torch.from_numpy(up), known)
        shares = [(q * m).contiguous().numpy() for m in (m_up, m_down)]
        split_backward(arrays[0], arrays[1], arrays[2], shares[0], shares[1], result := np.zeros_like(arrays[0]))
        return torch.from_numpy(result)
    out = torch.empty_like(step)
    size = max(1, _CELLS // weight.numel())
    for start in range(0, len(step), size):
        rows = slice(start, start + size)
        c = step[rows, None, :] * weight
        above = c > threshold[rows, :, None]
        m_up, m_down = parts(
            g, z_f[rows], z_b[rows], torch.where(above, c, 0.0).sum(-1), (known[0][rows], known[1][rows])
        )
        m = torch.where(above, (q[rows] * m_up)[..., None], (q[rows] * m_down)[..., None])
        out[rows] = (m * weight).sum(1)
    return out
