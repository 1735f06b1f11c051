"""What each non-linear torch operation does to attributions: names, compositions and handlers.

An operation is one of: a scalar function applied elementwise (Rescale, or RevealCancel when a
linear or convolution layer feeds it), a product, a maximum over windows, a softmax or
normalisation, also written by hand, a composition of these (LSTM, GRU, division, norms), or any
other with a derivative (attention, cumprod, sort, custom functions: the path rule).
``HANDLERS`` maps names to functions ``handler(run, call)`` for ``Capture``; ``run.unit(inputs,
output, rule)`` records one non-linear unit, whose ``rule`` returns the multipliers of its inputs,
given those of its output (``_watched``).

Cost: one elementwise pass of the rule for each pair of rows.

Chapter: deep/graph
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shaplab.deep._facts import Note
from shaplab.deep._path import path
from shaplab.deep._recurrent import RECURRENT, recurrent_cell, recurrent_layer
from shaplab.deep._reveal import Affine, fused
from shaplab.deep._shares import (
    group_norm,
    instance_norm,
    layer_norm,
    log_of_sum,
    logsumexp,
    ratio,
    rms_norm,
    softmax_handler,
    weighted,
)
from shaplab.deep._watched import Rule, UnitPass, WatchedRun
from shaplab.deep._windows import Window, extremum, for_each_axis, pool_handler, window_table
from shaplab.deep.graph import Call, as_function
from shaplab.deep.rules import Function, rescale, slope, two_players

__all__: list[str] = []

# Scalar functions by kind, which says how near two inputs may be for their slopes to stand in for
# the quotient: see ``rules.LIMITS``.
_SCALAR = {
    "smooth": """
gelu silu mish sigmoid tanh softplus log_sigmoid logsigmoid exp exp2 expm1 sin cos tan atan arctan
asinh sinh cosh erf erfc tanhshrink square log1p softsign float_power atan2 hypot logaddexp arctan2
""",
    "pole": "log log2 log10 sqrt rsqrt reciprocal pow",
    "bent": "elu celu selu hardswish",
    "kinked": """
relu6 leaky_relu hardtanh hardsigmoid softshrink abs clamp clamp_min clamp_max maximum minimum fmax
fmin
""",
    "step": """
relu floor ceil round trunc fix sign sgn frac hardshrink threshold heaviside remainder fmod
""",
}
# Products that are linear in the first of three.
_ADDED_PRODUCTS = ("addmm", "addmv", "addbmm", "baddbmm", "addr", "addcmul")


# Functions of one or two numbers


def elementwise(kind: str, run: WatchedRun, call: Call) -> Any:
    """Handler of a scalar function: Rescale, or RevealCancel where a fused linear layer is
    known."""
    inputs, function = as_function(call, run.depends)
    if len(inputs) == 2:
        players = kind == "kinked" or all(run.notes.alone(tensor) for tensor in inputs)
        return corners(run, call) if players else path(run, call)
    if len(inputs) > 2 or inputs[0].is_complex():
        return path(run, call)
    z = inputs[0]

    def g(x: Tensor) -> Tensor:
        return function([x])

    note = run.notes.get(z)
    if note is not None and note.kind == "exps" and call.name == "log":
        return log_of_sum(run, z, note)
    with torch.no_grad():
        out = g(z.detach())
    if out.is_complex():
        return path(run, call)
    if out.shape != z.shape:  # a constant argument is wider
        wide = z.expand(out.shape)
        return elementwise(kind, run, call.changed(lambda t: wide if t is z else t))
    affine = run.affine.get(id(z))
    if affine is not None:
        run.fused += 1
        return run.unit([affine.x], out, fused(g, affine, run.rule), (z.detach(),))
    result = run.unit([z], out, scalar_rule(g, kind, call.name))
    if z is call.args[0]:
        run.notes.function(call.name, z, call.args, result)
    return result


def scalar_rule(g: Function, kind: str, name: str) -> Rule:
    """Rescale for one scalar function; what depends on the reference only is computed once."""

    def rule(seen: UnitPass) -> list[Tensor]:
        f = seen.f[0]
        b = seen.b[0]
        if "known" not in seen.kept:
            value = g(b)
            seen.kept["known"] = value, slope(g, b, value, name)
        return [rescale(g, f, b, kind, seen.kept["known"], name, seen.q)]

    return rule


def corners(run: WatchedRun, call: Call) -> Tensor:
    """Elementwise function of two inputs, as a game of two players."""
    inputs, function = as_function(call, run.depends)
    x, y = torch.broadcast_tensors(*inputs)

    def g(first: Tensor, second: Tensor) -> Tensor:
        return function([first, second])

    def rule(seen: UnitPass) -> list[Tensor]:
        (x_f, y_f) = seen.f
        (x_b, y_b) = seen.b
        return [seen.q * m for m in two_players(g, (x_f, y_f), (x_b, y_b))]

    with torch.no_grad():
        out = g(x.detach(), y.detach())
    return run.unit([x, y], out, rule)


# Products and quotients


def product_of_two(run: WatchedRun, call: Call) -> Any:
    """Product of two tensors: the vector-Jacobian product at the mean of both rows. A number times
    one over its own norm, and a product with a softmax, are operations of their own."""
    inputs, function = as_function(call, run.depends)
    if len(inputs) == 2:
        special = _of_shared_inputs(run, call, inputs)
        if special is not None:
            return special
    if len(inputs) > 2 + (call.name in _ADDED_PRODUCTS):
        return path(run, call)

    def rule(seen: UnitPass) -> list[Tensor]:
        with torch.enable_grad():
            middle = [
                ((f + b) / 2).expand_as(b).detach().requires_grad_()
                for f, b in zip(seen.f, seen.b, strict=True)
            ]
            return list(torch.autograd.grad(function(middle), middle, seen.q))

    with torch.no_grad():
        out = function([tensor.detach() for tensor in inputs])
    result = run.unit(inputs, out, rule)
    if call.name == "mul" and inputs[0] is inputs[1]:
        run.notes.put(result, Note("square", inputs[0]))
    return result


def _of_shared_inputs(run: WatchedRun, call: Call, inputs: list[Tensor]) -> Tensor | None:
    """A product whose factors are functions of the same inputs, where that is known."""
    for one, other in (inputs, inputs[::-1]):
        if call.name == "mul":
            made = ratio(run, one, other, inverse=True)
            if made is not None:
                return made
    for weights, other in (inputs, inputs[::-1]):
        note = run.notes.get(weights)
        if note is not None and note.kind == "softmax" and weights is not other:
            return weighted(run, call, weights, note)
    return None


def divide(run: WatchedRun, call: Call) -> Any:
    """Handler of a quotient: by its own norm or sum, or times one over the denominator."""
    if call.kwargs.get("rounding_mode") is not None:
        run.refuse("div", "it rounds")
    top = call.args[0]
    low = call.argument(1, "other")
    if isinstance(top, Tensor) and run.depends(top):
        made = ratio(run, top, low, inverse=False)
        if made is not None:
            return made
    with run:
        return top * low.reciprocal()


# Compositions, whose operations are seen one by one


def composed(body: Callable[..., Any]) -> Callable[[WatchedRun, Call], Any]:
    """Handler that runs ``body`` with the capture on."""

    def handler(run: WatchedRun, call: Call) -> Any:
        with run:
            return body(*call.args, **call.kwargs)

    return handler


def norm(run: WatchedRun, call: Call) -> Any:
    """Handler of a norm: the root of a sum of squares, other orders as any operation."""
    given = call.named("x p dim keepdim" if call.called == "norm" else "x ord dim keepdim")
    order = given.get("p", given.get("ord", 2))
    x = call.args[0]
    euclidean = order in (None, 2, 2.0, "fro")
    if not euclidean or not x.is_floating_point() or call.kwargs.get("dtype"):
        return path(run, call)
    with run:
        return (x * x).sum(given.get("dim"), keepdim=bool(given.get("keepdim", False))).sqrt()


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    one, two = (x / (x * x).sum(dim, keepdim=True).sqrt().clamp_min(eps) for x in (x1, x2))
    return (one * two).sum(dim)


def _variance(
    x: Tensor,
    dim: Any = None,
    unbiased: Any = None,
    keepdim: bool = False,
    *,
    correction: float | None = 1,
) -> Tensor:
    if isinstance(dim, bool):  # torch also takes `unbiased` in the place of `dim`
        unbiased = dim
        dim = None
    if unbiased is not None:
        correction = float(unbiased)
    if dim is None:
        axes = tuple(range(x.dim()))
    else:
        axes = (dim,) if isinstance(dim, int) else tuple(dim)
    size = math.prod(x.shape[axis] for axis in axes)
    free = float(size - (1.0 if correction is None else correction))
    centred = x - x.mean(axes, keepdim=True)
    return (centred * centred).sum(axes, keepdim=keepdim) / free


def _deviation(*args: Any, **kwargs: Any) -> Tensor:
    return _variance(*args, **kwargs).sqrt()


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    shape = [1] * x.dim()
    if weight.numel() > 1:
        shape[1] = -1
    return torch.relu(x) - torch.relu(-x) * weight.view(shape)


def _glu(x: Tensor, dim: int = -1) -> Tensor:
    value, gate = x.chunk(2, dim)
    return value * gate.sigmoid()


def attention(run: WatchedRun, call: Call) -> Any:
    """Fused attention as one operation of queries, keys and values."""
    if call.argument(4, "dropout_p", 0.0) > 0:
        run.refuse("scaled_dot_product_attention", "dropout is active; call model.eval()")
    return path(run, call)


# A choice by a mask


def choose_by_mask(run: WatchedRun, mask: Tensor, yes: Any, no: Any, native: Tensor) -> Tensor:
    """A choice by a mask of zeros and ones that depends on the input: two players, the mask and
    what it chooses from. An infinite alternative gives the mask nothing."""
    sides = [torch.as_tensor(t, dtype=native.dtype, device=native.device) for t in (yes, no)]
    sides = [side.expand(native.shape) for side in sides]
    moving = [side for side in sides if run.depends(side)]
    constants = [None if run.depends(side) else side.detach() for side in sides]

    def rule(seen: UnitPass) -> list[Tensor]:
        chosen = (seen.f[0] + seen.b[0]) / 2
        ends = iter(list(zip(seen.f[1:], seen.b[1:], strict=True)))
        gain: Any = 0.0
        multipliers = []
        for sign, weight, constant in zip(
            (1.0, -1.0), (chosen, 1 - chosen), constants, strict=True
        ):
            if constant is None:
                f, b = next(ends)
                gain = gain + sign * (f + b) / 2
                multipliers.append(seen.q * weight)
            else:
                gain = gain + sign * constant
        of_mask = torch.nan_to_num(seen.q * gain, nan=0.0, posinf=0.0, neginf=0.0)
        return [of_mask, *multipliers]

    return run.unit([mask.expand(native.shape), *moving], native, rule)


# Linear layers that RevealCancel sees together with the function they feed


def affine_of(run: WatchedRun, call: Call) -> Affine | None:
    """The linear map of a layer with constant weights, or None when it is not one that can be
    fused."""
    if call.name == "batch_norm":
        return _batch_norm_of(run, call)
    given = call.named("input weight bias")
    if call.name == "linear":
        x = given["input"]
        return Affine(x, given["weight"], F.linear) if run.depends(x) else None
    if not call.name.startswith("conv") or call.name in ("convolution", "conv_tbc"):
        return None
    return _convolution_of(run, call, given["input"], given["weight"])


def _batch_norm_of(run: WatchedRun, call: Call) -> Affine | None:
    before = run.affine.get(id(call.args[0]))
    if before is None:
        return None
    # The Python function takes its statistics first, the builtin its weights.
    python = call.func is F.batch_norm
    order = ("mean", "var", "weight", "bias") if python else ("weight", "bias", "mean", "var")
    given = dict(zip(order, call.args[1:5], strict=False))
    given |= {key.removeprefix("running_"): value for key, value in call.kwargs.items()}
    scale = torch.rsqrt(given["var"] + call.argument(7, "eps", 1e-5))
    if given.get("weight") is not None:
        scale = scale * given["weight"]
    return before.scaled(scale)


def _convolution_of(run: WatchedRun, call: Call, x: Tensor, weight: Tensor) -> Affine | None:
    if not run.depends(x):
        return None
    places = call.args[3:]
    options = {k: v for k, v in call.kwargs.items() if k not in ("input", "weight", "bias")}

    def apply(t: Tensor, w: Tensor) -> Tensor:
        return call.func(t, w, None, *places, **options)

    if call.name.startswith("conv_transpose"):
        return Affine(x, weight, apply, out_axis=1) if run.rule == "reveal_cancel" else None
    axes = weight.dim() - 2
    given = dict(zip(("stride", "padding", "dilation", "groups"), places, strict=False)) | options
    if isinstance(given.get("padding"), str) or x.dim() != axes + 2:
        return None
    defaults = {"stride": 1, "padding": 0, "dilation": 1} | given
    moves = (for_each_axis(defaults[key], axes) for key in ("stride", "padding", "dilation"))
    window = Window(tuple(weight.shape[2:]), *moves)

    def table(shape: torch.Size, out: torch.Size) -> np.ndarray:
        return window_table(tuple(shape[2:]), tuple(out[2:]), window)

    return Affine(x, weight, apply, table, given.get("groups", 1))


HANDLERS: dict[str, Callable[[Any, Call], Any]] = {
    **{
        name: partial(elementwise, kind)
        for kind, names in _SCALAR.items()
        for name in names.split()
    },
    **{f"max_pool{axes}d": pool_handler(axes, adaptive=False) for axes in (1, 2, 3)},
    **{f"adaptive_max_pool{axes}d": pool_handler(axes, adaptive=True) for axes in (1, 2, 3)},
    **{name: recurrent_layer(name) for name in RECURRENT},
    **{f"{name}_cell": recurrent_cell(name) for name in RECURRENT},
    "amax": extremum(1),
    "amin": extremum(-1),
    "anything": path,
    "cosine_similarity": composed(_cosine_similarity),
    "div": divide,
    "glu": composed(_glu),
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "layer_norm": layer_norm,
    "log_softmax": softmax_handler("log_softmax"),
    "logsumexp": logsumexp,
    "max": extremum(1),
    "min": extremum(-1),
    "norm": norm,
    "prelu": composed(_prelu),
    "product": product_of_two,
    "rms_norm": rms_norm,
    "scaled_dot_product_attention": attention,
    "softmax": softmax_handler("softmax"),
    "std": composed(_deviation),
    "var": composed(_variance),
    "vector_norm": norm,
}
