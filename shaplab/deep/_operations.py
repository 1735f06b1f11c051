"""What each non-linear torch operation does to attributions: names, compositions and handlers.

An operation is one of: a scalar function applied elementwise (Rescale, or RevealCancel when a
linear or convolution layer feeds it), a product, a maximum over windows, a softmax or
normalisation, also written by hand, a composition of these (LSTM, GRU, division, norms), or any
other with a derivative (attention, cumprod, sort, fft, custom functions: the path rule).
``HANDLERS`` maps names to functions ``handler(run, func, args, kwargs)`` for ``Capture``;
``run.unit(inputs, output, rule)`` records one non-linear unit whose ``rule(f, b, q, kept)`` returns
the multipliers of its inputs, given those of its output; ``kept`` is a dict that lives as long as
the reference rows.

Cost: one elementwise pass of the rule for each pair of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from shaplab.deep._facts import Note
from shaplab.deep._path import path
from shaplab.deep._recurrent import cell, layer
from shaplab.deep._reveal import Affine, fused
from shaplab.deep._shares import (
    Rule,
    group_norm,
    instance_norm,
    layer_norm,
    log_of_sum,
    logsumexp,
    ratio,
    rms_norm,
    softmax,
    weighted,
)
from shaplab.deep._windows import extremum, max_pool, window_table
from shaplab.deep.graph import inputs_of, operation, substitute, substitute_at, tensors_of, walk
from shaplab.deep.rules import (
    rescale,
    slope,
    two_players,
)

__all__: list[str] = []

SMOOTH = """
gelu silu mish sigmoid tanh softplus log_sigmoid logsigmoid exp exp2 expm1 sin cos tan atan arctan
asinh sinh cosh erf erfc tanhshrink square log1p softsign float_power
"""
POLE = "log log2 log10 sqrt rsqrt reciprocal pow"
BENT = "elu celu selu hardswish"
KINKED = """
relu6 leaky_relu hardtanh hardsigmoid softshrink abs clamp clamp_min clamp_max maximum minimum
fmax fmin
"""
STEP = "relu floor ceil round trunc fix sign sgn frac hardshrink threshold heaviside remainder fmod"
KIND = {
    name: kind
    for kind, names in (
        ("smooth", SMOOTH),
        ("pole", POLE),
        ("bent", BENT),
        ("kinked", KINKED),
        ("step", STEP),
    )
    for name in names.split()
}


def elementwise(kind: str) -> Callable[..., Any]:
    """Handler of a scalar function: Rescale, or RevealCancel where a fused linear layer is
    known."""

    def handler(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        found = inputs_of(run, args, kwargs)
        if len(found) == 2:
            players = kind == "kinked" or all(run.notes.alone(tensor) for tensor in found)
            return (corners if players else path)(run, func, args, kwargs)
        if len(found) > 2:
            return path(run, func, args, kwargs)

        def g(x: torch.Tensor) -> torch.Tensor:
            new, named = substitute(run, args, kwargs, [x])
            return func(*new, **named)

        z = found[0]
        if z.is_complex():
            return path(run, func, args, kwargs)
        name = operation(func)[0]
        note = run.notes.get(z)
        if note is not None and note.kind == "exps" and name == "log":
            return log_of_sum(run, z, note)
        with torch.no_grad():
            out = g(z.detach())
        if out.is_complex():
            return path(run, func, args, kwargs)
        if out.shape != z.shape:
            wide = z.expand(out.shape)
            return handler(run, func, *substitute(run, args, kwargs, [wide]))
        affine = run.affine.get(id(z))
        if affine is not None:
            run.fused += 1
            return run.unit([affine.x], out, fused(g, affine, run.rule), (z.detach(),))
        result = run.unit([z], out, scalar_rule(g, kind, name))
        if z is args[0]:
            run.notes.function(name, z, args, result)
        return result

    return handler


def scalar_rule(g: Callable[[torch.Tensor], torch.Tensor], kind: str, name: str) -> Rule:
    """Rescale for one scalar function; what depends on the reference only is computed once."""

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        if "known" not in kept:
            value = g(b[0])
            kept["known"] = (value, slope(g, b[0], value, name))
        return [rescale(g, f[0], b[0], kind, kept["known"], name, q)]

    return rule


def corners(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """Elementwise function of two inputs, as a game of two players."""
    x, y = torch.broadcast_tensors(*inputs_of(run, args, kwargs))

    def g(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        new, named = substitute(run, args, kwargs, [first, second])
        return func(*new, **named)

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        return [q * m for m in two_players(g, (f[0], f[1]), (b[0], b[1]))]

    with torch.no_grad():
        out = g(x.detach(), y.detach())
    return run.unit([x, y], out, rule)


def product(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """Product of two tensors: the vector-Jacobian product at the mean of both rows."""
    found = inputs_of(run, args, kwargs)
    if operation(func)[0] == "mul" and len(found) == 2:
        for top, scale in (found, found[::-1]):
            made = ratio(run, top, scale, inverse=True)
            if made is not None:
                return made
    if len(found) == 2:
        for weights, other in (found, found[::-1]):
            note = run.notes.get(weights)
            if note is not None and note.kind == "softmax" and weights is not other:
                return weighted(run, func, args, kwargs, weights, note)
    affine = (
        "addmm",
        "addmv",
        "addbmm",
        "baddbmm",
        "addr",
        "addcmul",
    )  # linear in the first of three
    if len(found) > 2 + (func.__name__.strip("_") in affine):
        return path(run, func, args, kwargs)

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        with torch.enable_grad():
            middle = [
                ((u + v) / 2).expand_as(v).detach().requires_grad_()
                for u, v in zip(f, b, strict=True)
            ]
            new, named = substitute_at(spots, args, kwargs, middle)
            return list(torch.autograd.grad(func(*new, **named), middle, q))

    spots = {i for i, tensor in enumerate(tensors_of((args, kwargs))) if run.depends(tensor)}
    args, kwargs = walk(torch.Tensor.detach, args), walk(torch.Tensor.detach, kwargs)
    with torch.no_grad():
        out = func(*args, **kwargs)
    result = run.unit(found, out, rule)
    if operation(func)[0] == "mul" and found[0] is found[1]:
        run.notes.put(result, Note("square", found[0]))
    return result


def composed(body: Callable[..., Any]) -> Callable[..., Any]:
    """Handler that runs ``body`` with the capture on, so that its operations are seen one by
    one."""

    def handler(run: Any, func: Any, args: Any, kwargs: Any) -> Any:
        with run:
            return body(run, *args, **kwargs)

    return handler


def _divide(run: Any, func: Any, args: Any, kwargs: Any) -> Any:
    if kwargs.get("rounding_mode") is not None:
        run.refuse("div", "it rounds")
    top, low = args[0], args[1] if len(args) > 1 else kwargs["other"]
    if isinstance(top, torch.Tensor) and run.depends(top):
        made = ratio(run, top, low, inverse=False)
        if made is not None:
            return made
    with run:
        return top * low.reciprocal()


def _norm(run: Any, func: Any, args: Any, kwargs: Any) -> Any:
    names = ("x", "p" if operation(func)[1] == "norm" else "ord", "dim", "keepdim")
    given = dict(zip(names, args, strict=False)) | kwargs
    order = given.get("p", given.get("ord", 2))
    x, dim, keep = args[0], given.get("dim"), bool(given.get("keepdim", False))
    if order in (None, 2, 2.0, "fro") and x.is_floating_point() and not kwargs.get("dtype"):
        with run:
            return (x * x).sum(dim, keepdim=keep).sqrt()
    return path(run, func, args, kwargs)


def _cosine(
    run: Any, x1: torch.Tensor, x2: torch.Tensor, dim: int = 1, eps: float = 1e-8
) -> torch.Tensor:
    one, two = (t / (t * t).sum(dim, keepdim=True).sqrt().clamp_min(eps) for t in (x1, x2))
    return (one * two).sum(dim)


def _variance(root: bool) -> Callable[..., Any]:
    def body(
        run: Any,
        x: torch.Tensor,
        dim: Any = None,
        unbiased: Any = None,
        keepdim: bool = False,
        *,
        correction: float | None = 1,
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        correction = (
            float(unbiased) if unbiased is not None else (1.0 if correction is None else correction)
        )
        axes = (
            tuple(range(x.dim()))
            if dim is None
            else ((dim,) if isinstance(dim, int) else tuple(dim))
        )
        centred = x - x.mean(axes, keepdim=True)
        size = np.prod([x.shape[axis] for axis in axes])
        found = (centred * centred).sum(axes, keepdim=keepdim) / float(size - correction)
        return found.sqrt() if root else found

    return composed(body)


def _prelu(run: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    shape = [1] * x.dim()
    if weight.numel() > 1:
        shape[1] = -1
    return torch.relu(x) - torch.relu(-x) * weight.view(shape)


def _attention(run: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """Fused attention as one operation of queries, keys and values."""
    if (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0:
        run.refuse("scaled_dot_product_attention", "dropout is active; call model.eval()")
    return path(run, func, args, kwargs)


def where(run: Any, mask: torch.Tensor, yes: Any, no: Any, native: torch.Tensor) -> torch.Tensor:
    """A choice by a mask of zeros and ones that depends on the input: two players, the mask and
    what it chooses from. An infinite alternative gives the mask nothing."""
    sides = [torch.as_tensor(t, dtype=native.dtype, device=native.device) for t in (yes, no)]
    sides = [t.expand(native.shape) for t in sides]
    wide = mask.expand(native.shape)
    own = [t for t in sides if run.depends(t)]
    fixed = [None if run.depends(t) else t.detach() for t in sides]

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        share = (f[0] + b[0]) / 2
        ends = list(zip(f[1:], b[1:], strict=True))
        gain: Any = 0.0
        found = []
        for sign, weight, constant in ((1.0, share, fixed[0]), (-1.0, 1 - share, fixed[1])):
            if constant is None:
                one, other = ends.pop(0)
                gain = gain + sign * (one + other) / 2
                found.append(q * weight)
            else:
                gain = gain + sign * constant
        return [torch.nan_to_num(q * gain, nan=0.0, posinf=0.0, neginf=0.0), *found]

    return run.unit([wide, *own], native, rule)


# Linear layers that RevealCancel sees together with the function they feed


def affine_of(run: Any, name: str, func: Any, args: Any, kwargs: Any) -> Affine | None:
    """The linear map of a layer with constant weights, or None when it is not one that can be
    fused."""
    if name == "batch_norm":
        before = run.affine.get(id(args[0]))
        if before is None:
            return None
        order = (
            ("mean", "var", "weight", "bias")
            if func is F.batch_norm
            else ("weight", "bias", "mean", "var")
        )
        named = dict(zip(order, args[1:5], strict=False)) | {
            key.removeprefix("running_"): value for key, value in kwargs.items()
        }
        scale = torch.rsqrt(named["var"] + kwargs.get("eps", args[7] if len(args) > 7 else 1e-5))
        return before.scaled(scale if named.get("weight") is None else scale * named["weight"])
    if name not in (
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
    ):
        return None
    named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    x, weight = named["input"], named["weight"]
    if not run.depends(x):
        return None
    if name == "linear":
        return Affine(x, weight, F.linear)
    rest, options = (
        args[3:],
        {k: v for k, v in kwargs.items() if k not in ("input", "weight", "bias")},
    )

    def apply(t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return func(t, w, None, *rest, **options)

    if name.startswith("conv_transpose"):
        return Affine(x, weight, apply, out_axis=1) if run.rule == "reveal_cancel" else None
    n = weight.dim() - 2
    settings = dict(zip(("stride", "padding", "dilation", "groups"), rest, strict=False)) | options

    def each(key: str, default: int) -> tuple[int, ...]:
        value = settings.get(key, default)
        return (
            (value,) * n if isinstance(value, int) else tuple(value) * (n if len(value) == 1 else 1)
        )

    if isinstance(settings.get("padding"), str) or x.dim() != n + 2:
        return None

    def table(shape: torch.Size, out: torch.Size) -> np.ndarray:
        return window_table(
            tuple(shape[2:]),
            tuple(out[2:]),
            tuple(weight.shape[2:]),
            each("stride", 1),
            each("padding", 0),
            each("dilation", 1),
        )

    return Affine(x, weight, apply, table, settings.get("groups", 1))


HANDLERS: dict[str, Callable[..., Any]] = {
    **{name: elementwise(kind) for name, kind in KIND.items()},
    **{
        f"{kind}_pool{n}d": max_pool(n, kind == "adaptive_max")
        for n in (1, 2, 3)
        for kind in ("max", "adaptive_max")
    },
    **{name: composed(layer(name)) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **{f"{name}_cell": composed(cell(name)) for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    **dict.fromkeys(("max", "amax"), extremum(1)),
    **dict.fromkeys(("min", "amin"), extremum(-1)),
    **dict.fromkeys(("atan2", "hypot", "logaddexp", "arctan2"), elementwise("smooth")),
    **dict.fromkeys(("norm", "vector_norm"), _norm),
    "product": product,
    "anything": path,
    "cosine_similarity": composed(_cosine),
    "div": _divide,
    "prelu": composed(_prelu),
    "glu": composed(lambda run, x, dim=-1: x.chunk(2, dim)[0] * x.chunk(2, dim)[1].sigmoid()),
    "var": _variance(False),
    "std": _variance(True),
    "scaled_dot_product_attention": _attention,
    "softmax": softmax("softmax"),
    "log_softmax": softmax("log_softmax"),
    "logsumexp": logsumexp,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
}
