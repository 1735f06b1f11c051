"""The watched run of DASP: plain rows until the first non-linearity, moments from there on.

Needs: shaplab._validation, shaplab.deep.graph, shaplab.deep.moments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from shaplab.deep.graph import Capture, operation, walk
from shaplab.deep.moments import Moments, leaky_relu, max_pool, quadrature, spatial_linear

__all__ = ["Propagation"]

_MOVES = frozenset("""
clone contiguous to type float double view reshape flatten unflatten ravel squeeze unsqueeze transpose permute t T
swapaxes movedim expand expand_as view_as reshape_as repeat cat concat stack chunk split unbind select narrow getitem
index_select pad constant_pad_nd flip roll alias detach
""".split())
_SCALES = frozenset("add sub rsub neg positive mul div batch_norm dropout feature_dropout alpha_dropout".split())
_WEIGHTED = frozenset("linear matmul mm bmm mv addmm conv1d conv2d conv3d convolution einsum".split())
_SMOOTH = ("sigmoid", "tanh", "gelu", "silu", "elu", "selu", "celu", "softplus", "mish", "exp", "hardtanh", "hardswish",
           "hardsigmoid", "relu6", "logsigmoid", "log_sigmoid")



class Propagation(Capture):
    """One run of the model on baseline and single-player rows, turned into moments at the first non-linearity.

    Until then tensors hold ``1 + n`` plain rows. From then on a row is one of ``2 K I`` propagations (without
    and with the player, K sizes, I players), and ``self.spread`` knows the moments of every tensor.
    """

    def __init__(self, model: Any, players: np.ndarray, shares: np.ndarray, method: str, full: bool) -> None:
        handlers: dict[str, Any] = {name: _smooth for name in _SMOOTH}
        handlers.update(relu=_relu, leaky_relu=_relu, max_pool1d=_max_pool, max_pool2d=_max_pool)
        super().__init__(model, handlers)
        self.players, self.shares, self.method, self.full = players, shares, method, full
        self.spread: dict[int, tuple[torch.Tensor, Moments]] = {}
        self.gone: dict[int, torch.Tensor] = {}

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
        self.spread[id(tensor)] = (tensor, found)
        self.leaves[id(tensor)] = tensor
        return tensor

    def _coalitions(self, rows: torch.Tensor) -> Moments:
        start, c = rows[:1], rows[1:] - rows[:1]
        others, mine = len(c) - 1, c[self.players]
        shape = rows.shape[1:]
        share = torch.as_tensor(self.shares, dtype=rows.dtype, device=rows.device).reshape(1, -1, *(1,) * len(shape))
        sums = (c.sum(0) - mine)[:, None]
        without = start[None] + share * sums
        mean = torch.stack([without, without + mine[:, None]], dim=2)
        if self.method == "owen":
            factor, pull = share * (1 - share), 0.0
        else:
            factor = share * (1 - share) * (others / (others - 1) if others > 1 else 0.0)
            pull = 1.0 / others if others else 0.0
        if not self.full:
            squares = ((c**2).sum(0) - mine**2)[:, None]
            var = (factor * (squares - pull * sums**2)).clamp_min(0)
            return Moments(mean.reshape(-1, *shape), var=var[:, :, None].expand_as(mean).reshape(-1, *shape))
        flat, own, total = c.reshape(len(c), -1), mine.reshape(len(mine), -1), sums.reshape(len(mine), -1)
        cov = flat.T @ flat - own[:, :, None] * own[:, None] - pull * total[:, :, None] * total[:, None]
        cov = factor.reshape(1, -1, 1, 1) * cov[:, None]
        p = cov.shape[-1]
        return Moments(mean.reshape(-1, *shape), cov=cov[:, :, None].expand(-1, -1, 2, -1, -1).reshape(-1, p, p))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, raw = operation(func)
        ours = args and isinstance(args[0], torch.Tensor) and self.depends(args[0])
        in_place = raw.endswith("_") and not raw.endswith("__") and name != "requires_grad"
        if ours and in_place and (name in self.handlers or id(args[0]) in self.spread):
            # The result has other rows than its input: compute it aside, and watch that nobody reads the old tensor.
            source = args[0]
            plain = getattr(torch.Tensor, raw.strip("_"), None) or getattr(torch._C._nn, raw.strip("_"))
            result = super().__torch_function__(plain, types, args, kwargs)
            self.gone[id(source)] = source
            return result
        return super().__torch_function__(func, types, args, kwargs)

    def linear(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any, found: list[torch.Tensor]) -> Any:
        """Plain rows pass; moments go through with squared weights, or with the operation on both sides."""
        if any(id(tensor) in self.gone for tensor in found):
            self.refuse(name, "a tensor is read again after it was overwritten in place")
        if not any(id(tensor) in self.spread for tensor in found):
            return func(*args, **kwargs)
        known = {id(tensor): self.moments(tensor) for tensor in found}

        def apply(change: Callable[[Moments], torch.Tensor], call: Callable[..., Any] = func) -> Any:
            swap = lambda t: change(known[id(t)]) if id(t) in known else t  # noqa: E731
            return call(*walk(swap, args), **walk(swap, kwargs))

        with torch.no_grad():
            mean = apply(lambda m: m.mean)
            if isinstance(mean, tuple | list):
                if self.full:
                    self.refuse(name, 'a full covariance does not follow a split; use covariance="diagonal"')
                return type(mean)(self.register(Moments(part, var=v))
                                  for part, v in zip(mean, apply(lambda m: m.var), strict=True))
            if len(known) > 1:
                return self.register(self._joined(name, mean, apply, list(known.values()), args, kwargs))
            return self.register(self._one(name, func, args, kwargs, mean, apply, *known.values()))

    def _joined(self, name: str, mean: torch.Tensor, apply: Any, parts: list[Moments], args: Any, kwargs: Any
                ) -> Moments:
        """Sums and concatenations of several random tensors, taken as independent."""
        if name in ("cat", "stack", "concat") and not self.full:
            return Moments(mean, var=apply(lambda m: m.var))
        if name in ("add", "sub", "rsub"):
            scale = float(kwargs.get("alpha", 1)) ** 2
            if not self.full:
                return Moments(mean, var=parts[0].var + scale * parts[1].var)
            first, second = parts[0].cov, parts[1].cov
            if first is not None and second is not None and first.shape == second.shape:
                return Moments(mean, cov=first + scale * second)
        self.refuse(name, "several random tensors meet here" + (
            '; use covariance="diagonal"' if self.full else " in a way no moment rule describes"))

    def _one(self, name: str, func: Any, args: Any, kwargs: Any, mean: torch.Tensor, apply: Any, X: Moments) -> Moments:
        rows = len(X.mean)
        if name in _MOVES:
            if not self.full:
                zero = apply(lambda m: torch.zeros_like(m.mean)) if name in ("pad", "constant_pad_nd") else 0.0
                return Moments(mean, var=apply(lambda m: m.var) - zero)
            count = X.mean[0].numel()
            index = torch.arange(1, count + 1, dtype=torch.float64).reshape(X.mean.shape[1:])
            place = apply(lambda m: index.expand_as(m.mean).to(torch.float64))[0].reshape(-1).long()
            cov = F.pad(X.cov, (1, 0, 1, 0))[:, place][:, :, place]  # type: ignore[arg-type]
            return Moments(mean, cov=cov)
        if name in _SCALES:
            scale = apply(lambda m: torch.ones_like(m.mean)) - apply(lambda m: torch.zeros_like(m.mean))
            if not self.full:
                return Moments(mean, var=X.var * scale**2)
            flat = scale.reshape(rows, -1)
            return Moments(mean, cov=flat[:, :, None] * flat[:, None] * X.cov)
        if name in _WEIGHTED:
            where = 2 if name not in ("addmm", "matmul", "mm", "bmm", "mv", "einsum") else None
            fixed, named = list(args), dict(kwargs)
            if where is not None and len(fixed) > where:
                fixed[where] = None
            named.pop("bias", None) if where is not None else None
            if name == "addmm":
                fixed[0] = torch.zeros_like(fixed[0])

            def swap(new: torch.Tensor, power: int) -> Any:
                put = lambda t: new if self.depends(t) else t**power  # noqa: E731
                return func(*walk(put, tuple(fixed)), **walk(put, named))

            return self._mapped(mean, X, lambda z: swap(z, 1), lambda v: swap(v, 2))
        dims = next((int(digit) for digit in name if digit.isdigit()), 0)
        if "avg_pool" in name or name.startswith("upsample"):
            pool = lambda z: func(z, *args[1:], **kwargs)  # noqa: E731
            return self._mapped(mean, X, pool, spatial_linear(pool, tuple(X.mean.shape[-dims:])))
        if name in ("mean", "sum"):
            share = (mean.numel() / X.mean.numel()) if name == "mean" else 1.0
            if mean.shape[:1] != X.mean.shape[:1]:
                self.refuse(name, "it mixes rows")
            reduce = lambda z: func(z, *args[1:], **kwargs)  # noqa: E731
            return self._mapped(mean, X, reduce, lambda v: reduce(v) * share)
        self.refuse(name, "no moment rule for it")

    @staticmethod
    def _mapped(mean: torch.Tensor, X: Moments, function: Any, squared: Any) -> Moments:
        found = X.affine(function, squared)
        return Moments(mean, var=found._var, cov=found.cov)


def _relu(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    slope = float(kwargs.get("negative_slope", args[1] if len(args) > 1 else 0.01)) if "leaky" in func.__name__ else 0.0
    return run.register(leaky_relu(run.moments(args[0]), slope))


def _smooth(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    return run.register(quadrature(run.moments(args[0]), lambda z: func(z, *args[1:], **kwargs)))


def _max_pool(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    X = run.moments(args[0])
    dims = 1 if "1d" in func.__name__ else 2
    shape = X.mean.shape[1:]
    index = torch.arange(1, X.mean[0].numel() + 1, dtype=torch.float32).reshape(1, *shape)
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    kernel, padding, dilation = (_each(given.get(name, default), dims) for name, default in
                                 (("kernel_size", 1), ("padding", 0), ("dilation", 1)))
    stride = _each(given.get("stride") or kernel, dims)
    if given.get("ceil_mode"):
        run.refuse(func.__name__, "ceil_mode is on")
    padded = F.pad(index, [pad for size in reversed(padding) for pad in (size, size)])
    steps = [np.arange(k) * d for k, d in zip(kernel, dilation, strict=True)]
    offsets = np.stack(np.meshgrid(*steps, indexing="ij"), -1)
    taken = []
    for offset in offsets.reshape(-1, dims):
        part = padded
        for axis in range(dims):
            length = padded.shape[-dims + axis] - dilation[axis] * (kernel[axis] - 1)
            part = part.narrow(part.ndim - dims + axis, int(offset[axis]), length)
        for axis, size in enumerate(stride):
            keep = torch.arange(0, part.shape[part.ndim - dims + axis], size)
            part = part.index_select(part.ndim - dims + axis, keep)
        taken.append(part)
    windows = torch.stack(taken, dim=-1)[0]
    return run.register(max_pool(X, windows.reshape(-1, len(taken)).long() - 1, tuple(windows.shape[:-1])))


def _each(value: Any, dims: int) -> tuple[int, ...]:
    parts = tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),)
    return parts * (dims // len(parts))
