"""The watched run of DASP: plain rows until the first non-linearity, moments from there on.

Chapter: deep/dasp
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shaplab.deep.graph import Call, Capture, call_of, walk, words
from shaplab.deep.moments import Moments, leaky_relu, max_pool, quadrature, spatial_linear

__all__ = ["Propagation"]

_MOVES = words("""
clone contiguous to type float double view reshape flatten unflatten ravel squeeze unsqueeze
transpose permute t T swapaxes movedim expand expand_as view_as reshape_as repeat cat concat stack
chunk split unbind select narrow getitem index_select pad constant_pad_nd flip roll alias detach
""")
_JOINS = ("cat", "stack", "concat")
_SCALES = words(
    "add sub rsub neg positive mul div batch_norm dropout feature_dropout alpha_dropout"
)
_WEIGHTED = words("linear matmul mm bmm mv conv1d conv2d conv3d convolution")
_BIASED = ("linear", "conv1d", "conv2d", "conv3d", "convolution")
_SMOOTH = words("""
sigmoid tanh gelu silu elu selu celu softplus mish exp hardtanh hardswish hardsigmoid relu6
logsigmoid log_sigmoid
""")
_OVERWRITTEN = "a tensor is read again after it was overwritten"

MomentsChange = Callable[[Moments], Tensor]


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
        super().__init__(model, _HANDLERS)
        self.players = players
        self.shares = shares
        self.method = method
        self.covariance = covariance
        # By id of a tensor, which is kept so that the id stays its own.
        self.spread: dict[int, tuple[Tensor, Moments]] = {}
        self.gone: dict[int, Tensor] = {}
        self.plain = 0
        self.rows = 0

    def leaf(self, values: Tensor) -> Tensor:
        """The start of a run on the baseline, then each player alone."""
        self.plain = len(values)
        pair = 2 * len(self.shares)
        self.players = np.resize(self.players, max(len(self.players), -(-self.plain // pair)))
        self.rows = pair * len(self.players)
        repeated = values[:1].expand(self.rows - self.plain, *values.shape[1:])
        return super().leaf(torch.cat([values, repeated]))

    # Tensors and their moments

    def moments(self, tensor: Tensor) -> Moments:
        """The moments of a tensor, made now if it still holds plain rows."""
        if id(tensor) in self.gone:
            self.refuse("in-place operation", _OVERWRITTEN)
        if id(tensor) not in self.spread:
            self.spread[id(tensor)] = (tensor, self._coalitions(tensor.detach()))
        return self.spread[id(tensor)][1]

    def register(self, moments: Moments) -> Tensor:
        """Name moments by a tensor that the model's own code can carry on."""
        tensor = moments.mean.detach().requires_grad_()
        self._check_rows(tensor)
        self.spread[id(tensor)] = (tensor, moments)
        self.leaves[id(tensor)] = tensor
        return tensor

    def _check_rows(self, tensor: Tensor) -> None:
        if self.rows and tensor.shape[:1] != (self.rows,):
            shown = f"shape {tuple(tensor.shape)} for {self.rows} rows"
            self.refuse("reshape", f"{shown}: they must stay first")

    def _coalitions(self, rows: Tensor) -> Moments:
        """Moments of the sum of the baseline and a random coalition's changes."""
        self._check_rows(rows)
        start = rows[:1]
        changes = rows[1 : self.plain] - start
        own = changes[self.players]
        shape = rows.shape[1:]
        others = len(changes) - 1
        owen = self.method == "owen"
        share = torch.as_tensor(self.shares, dtype=rows.dtype, device=rows.device)
        sums = (changes.sum(0) - own)[:, None]
        without = start[None] + share.reshape(1, -1, *(1,) * len(shape)) * sums
        mean = torch.stack([without, without + own[:, None]], dim=2).reshape(-1, *shape)
        # A coalition of fixed size draws without replacement.
        independent = owen or others < 2
        spread = share * (1 - share) * (1.0 if independent else others / (others - 1))
        pull = 0.0 if owen or not others else 1.0 / others
        if self.covariance == "diagonal":
            squares = ((changes**2).sum(0) - own**2)[:, None]
            variance = (squares - pull * sums**2).clamp_min(0)
            variance = spread.reshape(1, -1, *(1,) * len(shape)) * variance
            return Moments(mean, _without_and_with(variance, len(shape)))
        gaps = changes[:, None] - pull * sums[None, :, 0]  # (n, I) and the shape
        # The player itself takes no part.
        gaps[torch.as_tensor(self.players), torch.arange(len(own))] = 0.0
        n = len(changes)
        pairs_of_players = gaps.new_zeros(n * (n + 1) // 2, *gaps.shape[1:])
        terms = torch.cat([gaps, pairs_of_players])[:, :, None]
        terms = _without_and_with(terms.expand(-1, -1, len(share), *shape), len(shape))
        spread = spread.repeat_interleave(2).repeat(len(own))
        third = None
        if self.covariance == "skewed":
            share = share.repeat_interleave(2).repeat(len(own))
            third = spread * (1 - 2 * share) * (1.0 if owen else others / max(1, others - 2))
        return Moments(mean, torch.zeros_like(mean), terms, (spread, third))

    # Operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = call_of(func, args, kwargs or {})
        target: Any = args[0] if args and _replaces(call) else None
        if not self._has_moments(call, target):
            return super().__torch_function__(func, types, args, kwargs)
        # The result has moments of its own: compute it aside, and watch that nobody reads the old
        # one.
        sign = call.called.startswith("__i")
        base = f"__{call.called[3:]}" if sign else call.called.strip("_")
        plain = getattr(Tensor, base, None) or getattr(torch._C._nn, base, None)
        if plain is None:
            self.refuse(call.called, "it overwrites a tensor that depends on the input")
        result = super().__torch_function__(plain, types, args, kwargs)
        self.gone[id(target)] = target
        return result

    def _has_moments(self, call: Call, target: Any) -> bool:
        """Whether the target of a call has moments, or will have them by it."""
        if not isinstance(target, Tensor):
            return False
        return id(target) in self.spread or (call.name in self.handlers and self.depends(target))

    def linear(self, call: Call, inputs: list[Tensor]) -> Any:
        """Plain rows pass; means and terms go through the operation itself, variances with squared
        weights."""
        if any(id(tensor) in self.gone for tensor in inputs):
            self.refuse(call.name, f"{_OVERWRITTEN} in place")
        if not any(id(tensor) in self.spread for tensor in inputs):
            return call.do()
        known = {id(tensor): self.moments(tensor) for tensor in inputs}

        def apply(change: MomentsChange) -> Any:
            """The operation on one tensor of each of the moments."""

            def swap(tensor: Tensor) -> Tensor:
                return change(known[id(tensor)]) if id(tensor) in known else tensor

            return call.changed(swap).do()

        moments = list(known.values())
        with torch.no_grad():
            mean = apply(_mean_of)
            rest = self._rest(call, mean, apply, moments)
            terms = _terms(apply, moments[0])
            law = moments[0].law
            if isinstance(mean, Tensor):
                return self.register(Moments(mean, rest, terms, law))
            each = [None] * len(mean) if terms is None else terms
            parts = zip(mean, rest, each, strict=True)
            return type(mean)(self.register(Moments(*part, law)) for part in parts)

    def _rest(self, call: Call, mean: Any, apply: Any, moments: list[Moments]) -> Any:
        """The variances behind a linear operation, of what its inputs do not share."""
        if call.name in _MOVES and (len(moments) == 1 or call.name in _JOINS):
            rest = apply(_rest_of)
            if "pad" not in call.name and call.name not in _JOINS:
                return rest
            return rest - apply(_zero_rest)  # constants that were joined do not vary
        if len(moments) > 1:
            return self._rest_of_sum(call, mean, moments)
        rest = moments[0].rest
        if call.name in _SCALES:
            return rest * (apply(_ones) - apply(_zeros)) ** 2
        if call.name in _WEIGHTED:
            return self._rest_of_weighted(call, rest)
        rank = next((int(sign) for sign in call.name if sign.isdigit()), 0)
        if "avg_pool" in call.name or call.name.startswith("upsample"):
            return spatial_linear(_in_first(call), tuple(rest.shape[-rank:]))(rest)
        if call.name in ("mean", "sum"):
            if mean.shape[:1] != rest.shape[:1]:
                self.refuse(call.name, "it mixes rows")
            share = mean.numel() / rest.numel() if call.name == "mean" else 1.0
            return _in_first(call)(rest) * share
        self.refuse(call.name, "no moment rule for it")

    def _rest_of_sum(self, call: Call, mean: Tensor, moments: list[Moments]) -> Tensor:
        if call.name not in ("add", "sub", "rsub"):
            why = "several random tensors meet here in a way no moment rule describes"
            self.refuse(call.name, why)
        scaled = float(call.kwargs.get("alpha", 1)) ** 2
        first, second = (scaled, 1.0) if call.name == "rsub" else (1.0, scaled)
        return (first * moments[0].rest + second * moments[1].rest).expand_as(mean)

    def _rest_of_weighted(self, call: Call, rest: Tensor) -> Tensor:
        """Squared weights, no bias."""
        args = list(call.args)
        if call.name in _BIASED and len(args) > 2:
            args[2] = None
        kwargs = {**call.kwargs, "bias": None} if "bias" in call.kwargs else call.kwargs

        def squared(tensor: Tensor) -> Tensor:
            return rest if self.depends(tensor) else tensor**2

        return call.func(*walk(squared, tuple(args)), **walk(squared, kwargs))


def _replaces(call: Call) -> bool:
    """Whether a call writes its result over its first argument."""
    if call.called.startswith("__i"):
        return call.name in ("add", "sub", "mul", "div")
    name = call.called
    return name.endswith("_") and not name.endswith("__") and name != "requires_grad_"


def _without_and_with(values: Tensor, rank: int) -> Tensor:
    """``(..., I, K)`` and a shape of so many axes, for the rows without and with the player."""
    place = values.ndim - rank
    shape = values.shape[place:]
    doubled = values.unsqueeze(place).expand(*values.shape[:place], 2, *shape)
    return doubled.flatten(-3 - rank, -1 - rank)


def _mean_of(moments: Moments) -> Tensor:
    return moments.mean


def _rest_of(moments: Moments) -> Tensor:
    return moments.rest


def _zero_rest(moments: Moments) -> Tensor:
    return torch.zeros_like(moments.rest)


def _zeros(moments: Moments) -> Tensor:
    return torch.zeros_like(moments.mean)


def _ones(moments: Moments) -> Tensor:
    return torch.ones_like(moments.mean)


def _terms(apply: Callable[[MomentsChange], Any], moments: Moments) -> Any:
    """The terms behind a linear operation: each by itself, without what the operation adds."""
    if moments.terms is None:
        return None

    def at(place: int) -> MomentsChange:
        return lambda some: some.terms[place]  # type: ignore[index]

    zero = apply(_zeros)
    each = [apply(at(place)) for place in range(len(moments.terms))]
    if isinstance(zero, Tensor):
        return torch.stack(each) - zero
    parts = zip(zip(*each, strict=True), zero, strict=True)
    return [torch.stack(one) - nothing for one, nothing in parts]


def _in_first(call: Call) -> Callable[[Tensor], Tensor]:
    """The call as a function of its first argument."""
    return lambda z: call.func(z, *call.args[1:], **call.kwargs)


# Operations that are not linear


def _relu(run: Propagation, call: Call) -> Tensor:
    slope = 0.0
    if "leaky" in call.func.__name__:
        slope = float(call.argument(1, "negative_slope", 0.01))
    return run.register(leaky_relu(run.moments(call.args[0]), slope))


def _smooth(run: Propagation, call: Call) -> Tensor:
    return run.register(quadrature(run.moments(call.args[0]), _in_first(call)))


def _max_pool(run: Propagation, call: Call) -> Tensor:
    name = call.func.__name__
    moments = run.moments(call.args[0])
    shape = moments.mean.shape[1:]
    dims = 1 if "1d" in name else 2
    given = call.named("input kernel_size stride padding dilation ceil_mode")
    given["return_indices"] = given.get("return_indices") or name.endswith("indices")
    for option in ("ceil_mode", "return_indices"):
        if given.get(option):
            run.refuse(name, f"{option} is on")
    if len(shape) != dims + 1:
        run.refuse(name, "its input has no axis of channels")

    def sides(option: str, default: Any, absent: int) -> tuple[int, int]:
        """An option along both axes of an image; a line is an image of height 1."""
        value = np.broadcast_to(np.asarray(given.get(option) or default, dtype=int), dims)
        return (int(value[0]), int(value[1])) if dims == 2 else (absent, int(value[0]))

    kernel = sides("kernel_size", 1, 1)
    padding = sides("padding", 0, 0)
    dilation = sides("dilation", 1, 1)
    stride = sides("stride", kernel[-dims:], 1)
    picture = tuple(shape[1:]) if dims == 2 else (1, shape[1])
    # Which entry stands where, counted from 1, taken apart like an image; padding shows as 0.
    count = moments.mean[0].numel()
    index = torch.arange(1, count + 1, dtype=torch.float64).reshape(shape[0], 1, *picture)
    windows = F.unfold(index, kernel, dilation, padding, stride).transpose(1, 2).long() - 1
    size = [
        (side + 2 * p - d * (k - 1) - 1) // s + 1
        for side, k, p, d, s in zip(picture, kernel, padding, dilation, stride, strict=True)
    ]
    out_shape = (shape[0], *size[-dims:])
    return run.register(max_pool(moments, windows.reshape(-1, windows.shape[2]), out_shape))


_HANDLERS: dict[str, Callable[[Any, Call], Any]] = {
    **dict.fromkeys(_SMOOTH, _smooth),
    "relu": _relu,
    "leaky_relu": _relu,
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
}
