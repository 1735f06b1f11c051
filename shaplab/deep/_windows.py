"""The maximum over windows: pooling of any dimension and kind, and ``max`` over axes.

A table names the positions each window reads, so one rule and one kernel serve all of them.

Chapter: deep/rules
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shaplab.deep._watched import UnitPass, WatchedRun
from shaplab.deep.graph import Call, walk
from shaplab.deep.kernels.windows import pooled_maximum
from shaplab.deep.rules import aligned, cross_maximum, maximum

__all__: list[str] = []

_POOL = "input kernel_size stride padding dilation ceil_mode return_indices"
_ADAPTIVE_POOL = "input output_size return_indices"


class Window(NamedTuple):
    """How a window moves, for each axis; a window without size is adaptive."""

    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()


def for_each_axis(value: Any, axes: int) -> tuple[int, ...]:
    """An option of a window for each axis, from one number for all or one for each."""
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * (axes if len(value) == 1 else 1)


@lru_cache(maxsize=64)
def window_table(sizes: tuple[int, ...], outs: tuple[int, ...], window: Window) -> np.ndarray:
    """Positions each window reads, ``(windows, taps)``; -1 where it reads padding. ``sizes`` and
    ``outs`` are the axes of the input and of the output."""
    table = _positions_along(0, sizes[0], outs[0], window)
    for axis in range(1, len(sizes)):
        positions = _positions_along(axis, sizes[axis], outs[axis], window)
        before = table[:, None, :, None]
        here = positions[None, :, None, :]
        joined = np.where((before < 0) | (here < 0), -1, before * sizes[axis] + here)
        table = joined.reshape(len(table) * len(positions), -1)
    return np.ascontiguousarray(table.astype(np.int64))


def _positions_along(axis: int, size: int, out: int, window: Window) -> np.ndarray:
    """Positions along one axis, ``(out, taps)``."""
    if window.size:
        starts = np.arange(out) * window.stride[axis] - window.padding[axis]
        positions = starts[:, None] + np.arange(window.size[axis]) * window.dilation[axis]
    else:
        starts = np.arange(out) * size // out
        ends = -(-(np.arange(1, out + 1) * size) // out)
        positions = starts[:, None] + np.arange(int((ends - starts).max()))
        positions = np.where(positions < ends[:, None], positions, -1)
    return np.where((positions >= 0) & (positions < size), positions, -1)


def exact_windows(table: np.ndarray, f: Tensor, b: Tensor, q: Tensor) -> Tensor:
    """``q`` times the exact multipliers of windows; ``f`` and ``b`` end in one axis of
    positions."""
    f = aligned(f, b.shape)
    half = b.dtype in (torch.bfloat16, torch.float16)
    dtype = torch.float32 if half else b.dtype
    rows = [t.to(dtype).reshape(-1, t.shape[-1]) for t in (f, b, q)]
    if b.device.type == "cpu":
        arrays = [np.ascontiguousarray(t.numpy()) for t in rows]
        out = np.zeros_like(arrays[1])
        pooled_maximum(arrays[0], arrays[1], arrays[2], table, out)
        return torch.from_numpy(out).to(b.dtype).reshape(b.shape)
    index = torch.as_tensor(table, device=b.device)
    return _windows_in_torch(index, *rows).to(b.dtype).reshape(b.shape)


def _windows_in_torch(index: Tensor, f: Tensor, b: Tensor, q: Tensor) -> Tensor:
    """What the kernel does, on any device."""
    missing = index < 0
    places = index.clamp(min=0)
    f = f.repeat(len(b) // len(f), 1)
    ours, theirs = (t[:, places].masked_fill(missing, -torch.inf) for t in (f, b))
    share = torch.where(missing, 0.0, maximum(ours, theirs)) * q.unsqueeze(-1)
    return torch.zeros_like(b).index_add_(1, places.reshape(-1), share.reshape(len(b), -1))


def cross_windows(
    top: tuple[Tensor, Tensor],
    at: tuple[Tensor, Tensor],
    f: Tensor,
    b: Tensor,
    q: Tensor,
) -> Tensor:
    """``q`` times the cheap multipliers: each window's credit goes to the input that made the
    larger maximum.

    Windows may overlap, so credits are added, not written.
    """
    gain = top[0] - top[1]
    place = torch.where(gain > 0, at[0], at[1])
    step = f.expand_as(b).gather(-1, place) - b.gather(-1, place)
    share = torch.where(step == 0, torch.ones_like(step), gain / step)
    return torch.zeros_like(b).scatter_add_(-1, place, share * q)


def pool_handler(axes: int, adaptive: bool) -> Callable[[WatchedRun, Call], Any]:
    """The handler of max pooling over the last ``axes`` axes."""
    kind = "adaptive_max_pool" if adaptive else "max_pool"
    pooled: Callable[..., Any] = getattr(F, f"{kind}{axes}d_with_indices")

    def handler(run: WatchedRun, call: Call) -> Any:
        options = call.named(_ADAPTIVE_POOL if adaptive else _POOL)
        asked_for_indices = options.pop("return_indices", False)
        x = options.pop("input")

        def pool(t: Tensor) -> tuple[Tensor, Tensor]:
            top, places = pooled(t, **options)
            return top.flatten(-axes), places.flatten(-axes)

        with torch.no_grad():
            out, indices = pooled(x.detach(), **options)
        window = Window() if adaptive else _window_of(options, axes)
        table = window_table(tuple(x.shape[-axes:]), tuple(out.shape[-axes:]), window)

        def rule(seen: UnitPass) -> list[Tensor]:
            f = seen.f[0]
            b = seen.b[0]
            rows = f.flatten(-axes), b.flatten(-axes), seen.q.flatten(-axes)
            if run.max_rule == "exact":
                return [exact_windows(table, *rows).reshape(b.shape)]
            if "pool" not in seen.kept:
                seen.kept["pool"] = pool(b)
            top_f, places_f = pool(f)
            top_b, places_b = seen.kept["pool"]
            return [cross_windows((top_f, top_b), (places_f, places_b), *rows).reshape(b.shape)]

        result = run.unit([x], out, rule)
        run.watch(indices)
        if call.func.__name__.endswith("_with_indices") or asked_for_indices:
            return result, indices
        return result

    return handler


def _window_of(options: dict[str, Any], axes: int) -> Window:
    """The window of a pooling call; without a stride, windows lie side by side."""
    size = for_each_axis(options["kernel_size"], axes)
    stride = options.get("stride")
    return Window(
        size,
        size if stride is None or stride == [] else for_each_axis(stride, axes),
        for_each_axis(options.get("padding", 0), axes),
        for_each_axis(options.get("dilation", 1), axes),
    )


def extremum(sign: int) -> Callable[[WatchedRun, Call], Any]:
    """``max``, ``amax``, ``min``, ``amin`` over axes, or of two tensors."""

    def handler(run: WatchedRun, call: Call) -> Any:
        dim = call.argument(1, "dim", ())
        if isinstance(dim, Tensor) or isinstance(call.kwargs.get("other"), Tensor):
            return run.handlers["maximum"](run, call)
        x = call.args[0]
        axes = [dim] if isinstance(dim, int) else (list(dim) or list(range(x.dim())))
        axes = sorted(axis % x.dim() for axis in axes)
        ends = list(range(-len(axes), 0))
        table = np.arange(math.prod(x.shape[axis] for axis in axes))[None, :]
        with torch.no_grad():
            native = call.func(*walk(Tensor.detach, call.args), **call.kwargs)

        def rule(seen: UnitPass) -> list[Tensor]:
            moved = seen.b[0].movedim(axes, ends)
            f = sign * seen.f[0].movedim(axes, ends).flatten(-len(axes))
            b = sign * moved.flatten(-len(axes))
            weight = seen.q.reshape(*b.shape[:-1], 1)
            if run.max_rule == "exact":
                shared = exact_windows(table, f, b, weight)
            else:
                shared = cross_maximum(f, b) * weight
            return [shared.reshape(moved.shape).movedim(ends, axes)]

        if isinstance(native, Tensor):
            return run.unit([x], native, rule)
        values, indices = native
        result = run.unit([x], values, rule)
        run.watch(indices)
        return type(native)((result, indices))

    return handler
