"""The maximum over windows: pooling of any dimension and kind, and ``max`` over axes.

A table names the positions each window reads, so one rule and one kernel serve all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from shaplab.deep.graph import walk
from shaplab.deep.kernels.windows import pooled_maximum
from shaplab.deep.rules import aligned, cross_maximum, maximum

__all__: list[str] = []


@lru_cache(maxsize=64)
def window_table(
    sizes: tuple[int, ...],
    outs: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
) -> np.ndarray:
    """Positions each window reads, ``(windows, taps)``; -1 where it reads padding. Kernel () is
    adaptive."""
    axes = []
    for i, (size, out) in enumerate(zip(sizes, outs, strict=True)):
        if kernel:
            at = (
                np.arange(out)[:, None] * stride[i]
                - padding[i]
                + np.arange(kernel[i]) * dilation[i]
            )
        else:
            starts, ends = np.arange(out) * size // out, -(-(np.arange(1, out + 1) * size) // out)
            at = starts[:, None] + np.arange(int((ends - starts).max()))
            at = np.where(at < ends[:, None], at, -1)
        axes.append(np.where((at >= 0) & (at < size), at, -1))
    table = axes[0]
    for size, at in zip(sizes[1:], axes[1:], strict=True):
        joined = table[:, None, :, None] * size + at[None, :, None, :]
        joined = np.where((table[:, None, :, None] < 0) | (at[None, :, None, :] < 0), -1, joined)
        table = joined.reshape(len(table) * len(at), -1)
    return np.ascontiguousarray(table.astype(np.int64))


def exact_windows(
    table: np.ndarray, f: torch.Tensor, b: torch.Tensor, q: torch.Tensor
) -> torch.Tensor:
    """``q`` times the exact multipliers of windows; ``f`` and ``b`` end in one axis of
    positions."""
    f = aligned(f, b.shape)
    dtype = torch.float32 if b.dtype in (torch.bfloat16, torch.float16) else b.dtype
    rows = [t.to(dtype).reshape(-1, t.shape[-1]) for t in (f, b, q)]
    if b.device.type == "cpu":
        out = np.zeros(tuple(rows[1].shape), dtype=rows[1].numpy().dtype)
        arrays = [np.ascontiguousarray(t.numpy()) for t in rows]
        pooled_maximum(arrays[0], arrays[1], arrays[2], table, out)
        return torch.from_numpy(out).to(b.dtype).reshape(b.shape)
    return _everywhere(torch.as_tensor(table, device=b.device), *rows).to(b.dtype).reshape(b.shape)


def _everywhere(
    index: torch.Tensor, f: torch.Tensor, b: torch.Tensor, q: torch.Tensor
) -> torch.Tensor:
    """What the kernel does, in torch."""
    missing = index < 0
    seen = [
        t[:, index.clamp(min=0)].masked_fill(missing, -torch.inf)
        for t in (f.repeat(len(b) // len(f), 1), b)
    ]
    share = torch.where(missing, 0.0, maximum(*seen)) * q.unsqueeze(-1)
    return torch.zeros_like(b).index_add_(
        1, index.clamp(min=0).reshape(-1), share.reshape(len(b), -1)
    )


def cross_windows(
    top: tuple[torch.Tensor, torch.Tensor],
    at: tuple[torch.Tensor, torch.Tensor],
    f: torch.Tensor,
    b: torch.Tensor,
    q: torch.Tensor,
) -> torch.Tensor:
    """``q`` times the cheap multipliers: each window's credit goes to the input that made the
    larger maximum.

    Windows may overlap, so credits are added, not written.
    """
    gain = top[0] - top[1]
    place = torch.where(gain > 0, at[0], at[1])
    step = f.expand_as(b).gather(-1, place) - b.gather(-1, place)
    share = torch.where(step == 0, torch.ones_like(step), gain / step)
    return torch.zeros_like(b).scatter_add_(-1, place, share * q)


def max_pool(n: int, adaptive: bool) -> Callable[..., Any]:
    """The handler of max pooling over ``n`` axes."""
    pooled: Callable[..., Any] = getattr(
        F, f"{'adaptive_' if adaptive else ''}max_pool{n}d_with_indices"
    )

    def handler(run: Any, func: Any, args: Any, kwargs: Any) -> Any:
        names = (
            ("input", "output_size", "return_indices")
            if adaptive
            else (
                "input",
                "kernel_size",
                "stride",
                "padding",
                "dilation",
                "ceil_mode",
                "return_indices",
            )
        )
        named = dict(zip(names, args, strict=False)) | kwargs
        named.pop("return_indices", None)
        x = named.pop("input")

        def pool(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            top, at = pooled(t, **named)
            return top.flatten(-n), at.flatten(-n)

        def each(key: str, default: Any) -> tuple[int, ...]:
            value = named.get(key, default)
            value = default if value is None or value == [] else value
            return (
                (value,) * n
                if isinstance(value, int)
                else tuple(value) * (n if len(value) == 1 else 1)
            )

        with torch.no_grad():
            out, indices = pooled(x.detach(), **named)
        sizes, outs = tuple(x.shape[-n:]), tuple(out.shape[-n:])
        if adaptive:
            table = window_table(sizes, outs, (), (), (), ())
        else:
            kernel = each("kernel_size", None)
            table = window_table(
                sizes, outs, kernel, each("stride", kernel), each("padding", 0), each("dilation", 1)
            )

        def rule(
            f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
        ) -> list[torch.Tensor]:
            flat_f, flat_b, flat_q = f[0].flatten(-n), b[0].flatten(-n), q.flatten(-n)
            if run.max_rule == "exact":
                return [exact_windows(table, flat_f, flat_b, flat_q).reshape(b[0].shape)]
            if "pool" not in kept:
                kept["pool"] = pool(b[0])
            (top_f, at_f), (top_b, at_b) = pool(f[0]), kept["pool"]
            return [
                cross_windows((top_f, top_b), (at_f, at_b), flat_f, flat_b, flat_q).reshape(
                    b[0].shape
                )
            ]

        result = run.unit([x], out, rule)
        run.watch(indices)
        return (
            (result, indices)
            if func.__name__.endswith("_with_indices") or kwargs.get("return_indices")
            else result
        )

    return handler


def extremum(sign: int) -> Callable[..., Any]:
    """``max``, ``amax``, ``min``, ``amin`` over axes, or of two tensors."""

    def handler(run: Any, func: Any, args: Any, kwargs: Any) -> Any:
        if (len(args) > 1 and isinstance(args[1], torch.Tensor)) or isinstance(
            kwargs.get("other"), torch.Tensor
        ):
            return run.handlers["maximum"](run, func, args, kwargs)
        x = args[0]
        dim = kwargs.get("dim", args[1] if len(args) > 1 else ())
        axes = [dim] if isinstance(dim, int) else (list(dim) or list(range(x.dim())))
        axes = sorted(axis % x.dim() for axis in axes)
        with torch.no_grad():
            native = func(*walk(torch.Tensor.detach, args), **kwargs)
        out = native if isinstance(native, torch.Tensor) else native[0]
        ends = list(range(-len(axes), 0))

        def flat(t: torch.Tensor) -> torch.Tensor:
            return sign * t.movedim(axes, ends).flatten(-len(axes))

        size = int(np.prod([x.shape[axis] for axis in axes]))
        table = np.arange(size)[None, :]

        def rule(
            f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
        ) -> list[torch.Tensor]:
            moved = b[0].movedim(axes, ends)
            f_, b_ = flat(f[0]), flat(b[0])
            weight = q.reshape(*b_.shape[:-1], 1)
            if run.max_rule == "exact":
                shared = exact_windows(table, f_, b_, weight)
            else:
                shared = cross_maximum(f_, b_) * weight
            return [shared.reshape(moved.shape).movedim(ends, axes)]

        result = run.unit([x], out, rule)
        if isinstance(native, torch.Tensor):
            return result
        run.watch(native[1])
        return type(native)((result, native[1]))

    return handler
