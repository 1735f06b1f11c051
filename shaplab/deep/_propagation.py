"""The watched run of DASP: plain rows until the first non-linearity, moments from there on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from shaplab.deep.graph import Capture, operation, tensors_of, walk
from shaplab.deep.moments import Moments, leaky_relu, max_pool, quadrature, spatial_linear

__all__ = ["Propagation"]

_MOVES = frozenset(
    """
clone contiguous to type float double view reshape flatten unflatten ravel squeeze unsqueeze
transpose permute t T swapaxes movedim expand expand_as view_as reshape_as repeat cat concat stack
chunk split unbind select narrow getitem index_select pad constant_pad_nd flip roll alias detach
""".split()
)
_SCALES = frozenset(
    "add sub rsub neg positive mul div batch_norm dropout feature_dropout alpha_dropout".split()
)
_WEIGHTED = frozenset("linear matmul mm bmm mv conv1d conv2d conv3d convolution".split())
_SMOOTH = (
    "sigmoid",
    "tanh",
    "gelu",
    "silu",
    "elu",
    "selu",
    "celu",
    "softplus",
    "mish",
    "exp",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "relu6",
    "logsigmoid",
    "log_sigmoid",
)


class Propagation(Capture):
    """One run of the model on baseline and single-player rows, turned into moments at the first
    non-linearity.

    Until then tensors hold ``1 + n`` plain rows. From then on a row is one of ``2 K I``
    propagations (without and with the player, K sizes, I players), and ``self.spread`` knows the
    moments of every tensor. There are ``self.rows = 2 K I`` rows from the start, since the model
    may ask for their number: players are repeated, and plain rows added, until both fit.
    """

    def __init__(
        self, model: Any, players: np.ndarray, shares: np.ndarray, method: str, covariance: str
    ) -> None:
        handlers: dict[str, Any] = {name: _smooth for name in _SMOOTH}
        handlers.update(relu=_relu, leaky_relu=_relu, max_pool1d=_max_pool, max_pool2d=_max_pool)
        super().__init__(model, handlers)
        self.players, self.shares, self.method, self.covariance = (
            players,
            shares,
            method,
            covariance,
        )
        self.spread: dict[int, tuple[torch.Tensor, Moments]] = {}
        self.gone: dict[int, torch.Tensor] = {}
        self.plain = self.rows = 0

    def leaf(self, values: torch.Tensor) -> torch.Tensor:
        """The start of a run on the baseline, then each player alone."""
        self.plain, pair = len(values), 2 * len(self.shares)
        self.players = np.resize(self.players, max(len(self.players), -(-self.plain // pair)))
        self.rows = pair * len(self.players)
        return super().leaf(
            torch.cat([values, values[:1].expand(self.rows - self.plain, *values.shape[1:])])
        )

    def moments(self, tensor: torch.Tensor) -> Moments:
        """The moments of a tensor, made now if it still holds plain rows."""
        if id(tensor) in self.gone:
            self.refuse("in-place operation", "a tensor is read again after it was overwritten")
        if id(tensor) not in self.spread:
            self.spread[id(tensor)] = (tensor, self._coalitions(tensor.detach()))
        return self.spread[id(tensor)][1]

    def register(self, found: Moments) -> torch.Tensor:
        """Name moments by a tensor that the model's own code can carry on."""
        tensor = found.mean.detach().requires_grad_()
        self._keeps_rows(tensor)
        self.spread[id(tensor)] = (tensor, found)
        self.leaves[id(tensor)] = tensor
        return tensor

    def _keeps_rows(self, tensor: torch.Tensor) -> None:
        if self.rows and tensor.shape[:1] != (self.rows,):
            self.refuse(
                "reshape", f"shape {tuple(tensor.shape)} for {self.rows} rows: they must stay first"
            )

    def _coalitions(self, rows: torch.Tensor) -> Moments:
        self._keeps_rows(rows)
        start, c = rows[:1], rows[1 : self.plain] - rows[:1]
        n, shape, mine = len(c), rows.shape[1:], c[self.players]
        others, owen = n - 1, self.method == "owen"
        share = torch.as_tensor(self.shares, dtype=rows.dtype, device=rows.device)
        sums = (c.sum(0) - mine)[:, None]
        without = start[None] + share.reshape(1, -1, *(1,) * len(shape)) * sums
        mean = torch.stack([without, without + mine[:, None]], dim=2)
        spread = share * (1 - share) * (1.0 if owen or others < 2 else others / (others - 1))
        pull = 0.0 if owen or not others else 1.0 / others

        def each(
            value: torch.Tensor,
        ) -> torch.Tensor:  # (..., I, K) and the shape, for without and with the player
            return (
                value.unsqueeze(value.ndim - len(shape))
                .expand(*value.shape[: value.ndim - len(shape)], 2, *shape)
                .flatten(-3 - len(shape), -1 - len(shape))
            )

        if self.covariance == "diagonal":
            squares = ((c**2).sum(0) - mine**2)[:, None]
            var = spread.reshape(1, -1, *(1,) * len(shape)) * (squares - pull * sums**2).clamp_min(
                0
            )
            return Moments(mean.reshape(-1, *shape), each(var))
        gaps = (
            c[:, None] - pull * sums[None, :, 0]
        )  # (n, I) and the shape; the player itself takes no part
        gaps[torch.as_tensor(self.players), torch.arange(len(mine))] = 0.0
        terms = torch.cat([gaps, gaps.new_zeros(n * (n + 1) // 2, *gaps.shape[1:])])
        terms = each(terms[:, :, None].expand(-1, -1, len(share), *shape))
        third = spread * (1 - 2 * share) * (1.0 if owen else others / max(1, others - 2))
        law = [part.repeat_interleave(2).repeat(len(mine)) for part in (spread, third)]
        mean = mean.reshape(-1, *shape)
        return Moments(
            mean,
            torch.zeros_like(mean),
            terms,
            (law[0], law[1] if self.covariance == "skewed" else None),
        )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, raw = operation(func)
        sign = raw.startswith("__i") and name in ("add", "sub", "mul", "div")
        found = (
            tensors_of(args)
            if sign or (raw.endswith("_") and not raw.endswith("__") and raw != "requires_grad_")
            else []
        )
        if any(id(t) in self.spread or (name in self.handlers and self.depends(t)) for t in found):
            # The result has moments of its own: compute it aside, and watch that nobody reads the
            # old one.
            base = f"__{raw[3:]}" if sign else raw.strip("_")
            plain = getattr(torch.Tensor, base, None) or getattr(torch._C._nn, base, None)
            if plain is None:
                self.refuse(raw, "it overwrites a tensor that depends on the input")
            result = super().__torch_function__(plain, types, args, kwargs)
            self.gone[id(found[0])] = found[0]
            return result
        return super().__torch_function__(func, types, args, kwargs)

    def linear(
        self, name: str, func: Callable[..., Any], args: Any, kwargs: Any, found: list[torch.Tensor]
    ) -> Any:
        """Plain rows pass; means and terms go through the operation itself, variances with squared
        weights."""
        if any(id(tensor) in self.gone for tensor in found):
            self.refuse(name, "a tensor is read again after it was overwritten in place")
        if not any(id(tensor) in self.spread for tensor in found):
            return func(*args, **kwargs)
        known = {id(tensor): self.moments(tensor) for tensor in found}

        def apply(change: Callable[[Moments], torch.Tensor]) -> Any:
            swap = lambda t: change(known[id(t)]) if id(t) in known else t  # noqa: E731
            return func(*walk(swap, args), **walk(swap, kwargs))

        with torch.no_grad():
            mean = apply(lambda m: m.mean)
            rest = self._rest(name, func, args, kwargs, mean, apply, list(known.values()))
            law, count = next(
                (m.law, 0 if m.terms is None else len(m.terms)) for m in known.values()
            )
            parts = isinstance(mean, tuple | list)
            terms: Any = [None] * len(mean) if parts else None
            if law is not None:
                zero = apply(lambda m: torch.zeros_like(m.mean))
                each = [apply(partial(_term, t)) for t in range(count)]
                terms = (
                    [
                        torch.stack(one) - z
                        for one, z in zip(zip(*each, strict=True), zero, strict=True)
                    ]
                    if parts
                    else torch.stack(each) - zero
                )
            if parts:
                return type(mean)(
                    self.register(Moments(*one, law)) for one in zip(mean, rest, terms, strict=True)
                )
            return self.register(Moments(mean, rest, terms, law))

    def _rest(
        self,
        name: str,
        func: Any,
        args: Any,
        kwargs: Any,
        mean: Any,
        apply: Any,
        parts: list[Moments],
    ) -> Any:
        """The variances behind a linear operation, of what its inputs do not share."""
        if name in _MOVES and (len(parts) == 1 or name in ("cat", "stack", "concat")):
            rest = apply(lambda m: m.rest)
            if "pad" not in name and name not in ("cat", "stack", "concat"):
                return rest
            return rest - apply(
                lambda m: torch.zeros_like(m.rest)
            )  # constants that were joined do not vary
        if len(parts) > 1:
            if name not in ("add", "sub", "rsub"):
                self.refuse(
                    name, "several random tensors meet here in a way no moment rule describes"
                )
            scales = (1.0, float(kwargs.get("alpha", 1)) ** 2)[:: -1 if name == "rsub" else 1]
            return (scales[0] * parts[0].rest + scales[1] * parts[1].rest).expand_as(mean)
        X = parts[0]
        if name in _SCALES:
            return (
                X.rest
                * (
                    apply(lambda m: torch.ones_like(m.mean))
                    - apply(lambda m: torch.zeros_like(m.mean))
                )
                ** 2
            )
        if name in _WEIGHTED:
            fixed, named = list(args), {**kwargs, "bias": None} if "bias" in kwargs else kwargs
            if name in ("linear", "conv1d", "conv2d", "conv3d", "convolution") and len(fixed) > 2:
                fixed[2] = None
            put = lambda t: X.rest if self.depends(t) else t**2  # noqa: E731
            return func(*walk(put, tuple(fixed)), **walk(put, named))
        change = lambda z: func(z, *args[1:], **kwargs)  # noqa: E731
        if "avg_pool" in name or name.startswith("upsample"):
            return spatial_linear(
                change, tuple(X.mean.shape[-next(int(d) for d in name if d.isdigit()) :])
            )(X.rest)
        if name in ("mean", "sum"):
            if mean.shape[:1] != X.mean.shape[:1]:
                self.refuse(name, "it mixes rows")
            return change(X.rest) * (mean.numel() / X.mean.numel() if name == "mean" else 1.0)
        self.refuse(name, "no moment rule for it")


def _term(t: int, m: Moments) -> torch.Tensor:
    return m.terms[t]  # type: ignore[index]


def _relu(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    slope = (
        float(kwargs.get("negative_slope", args[1] if len(args) > 1 else 0.01))
        if "leaky" in func.__name__
        else 0.0
    )
    return run.register(leaky_relu(run.moments(args[0]), slope))


def _smooth(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    return run.register(quadrature(run.moments(args[0]), lambda z: func(z, *args[1:], **kwargs)))


def _max_pool(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    X = run.moments(args[0])
    dims, shape = 1 if "1d" in func.__name__ else 2, X.mean.shape[1:]
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    given["return_indices"] = given.get("return_indices") or func.__name__.endswith("indices")
    for option in ("ceil_mode", "return_indices"):
        if given.get(option):
            run.refuse(func.__name__, f"{option} is on")
    if len(shape) != dims + 1:
        run.refuse(func.__name__, "its input has no axis of channels")

    def sides(name: str, default: Any) -> tuple[int, int]:
        value = np.broadcast_to(np.asarray(given.get(name) or default, dtype=int), dims)
        return (
            (int(value[0]), int(value[1]))
            if dims == 2
            else ({"padding": 0}.get(name, 1), int(value[0]))
        )

    kernel, padding, dilation = sides("kernel_size", 1), sides("padding", 0), sides("dilation", 1)
    stride = sides("stride", kernel[-dims:])
    picture = tuple(shape[1:]) if dims == 2 else (1, shape[1])
    # Which entry stands where, counted from 1, taken apart like an image; padding shows as 0.
    index = torch.arange(1, X.mean[0].numel() + 1, dtype=torch.float64).reshape(
        shape[0], 1, *picture
    )
    windows = F.unfold(index, kernel, dilation, padding, stride).transpose(1, 2).long() - 1
    size = [
        (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, k, p, d, s in zip(picture, kernel, padding, dilation, stride, strict=True)
    ]
    return run.register(
        max_pool(X, windows.reshape(-1, windows.shape[2]), (shape[0], *size[-dims:]))
    )
