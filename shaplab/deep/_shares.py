"""Operations whose inputs share one denominator: softmax, log-sum-exp, normalisation.

Also the same formulas written by hand, which the notes of a run tell, and products with the weights
of a softmax. A denominator that is a function of the same inputs as the numerator is no player of
its own.

Cost: a few elementwise passes; for softmax 8 to 64 of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from shaplab.deep._facts import Note, along
from shaplab.deep._path import integrated, path, softmax_path
from shaplab.deep.graph import inputs_of, substitute, substitute_at, tensors_of, walk
from shaplab.deep.rules import normalise, quotient_of_norm, softmax_of_entries

__all__: list[str] = []

_PLAYERS = 64  # inputs of a softmax that are compared one with all others

Rule = Callable[
    [list[torch.Tensor], list[torch.Tensor], torch.Tensor, dict[str, Any]], list[torch.Tensor]
]


def _unary(
    x: torch.Tensor, run: Any, func: Any, args: Any, kwargs: Any, rule: Rule
) -> torch.Tensor:
    new, named = substitute(run, args, kwargs, [x.detach()] * len(inputs_of(run, args, kwargs)))
    with torch.no_grad():
        out = func(*new, **named)
    return run.unit([x], out, rule)


def softmax(kind: str) -> Callable[..., Any]:
    def handler(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)

        def rule(
            f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
        ) -> list[torch.Tensor]:
            q = q.to(b[0].dtype)
            if alone and kind == "softmax":
                return [softmax_of_entries(f[0], b[0], q, dim)]
            return [softmax_path(f[0], b[0], q, dim, kind)]

        x = inputs_of(run, args, kwargs)[0]
        alone = run.notes.alone(x) and x.shape[dim] <= _PLAYERS
        result = _unary(x, run, func, args, kwargs, rule)
        if kind == "softmax" and result.dtype == x.dtype:
            run.notes.put(result, Note("softmax", x, (dim % x.dim(),)))
        return result

    return handler


def logsumexp(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    dim, keep = (
        kwargs.get("dim", args[1] if len(args) > 1 else None),
        kwargs.get("keepdim", len(args) > 2 and args[2]),
    )
    if not isinstance(dim, int):
        if len(dim) != 1:
            return path(run, func, args, kwargs)
        dim = dim[0]

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        wide = q if keep else q.unsqueeze(dim)
        return [softmax_path(f[0], b[0], wide, dim, "logsumexp")]

    return _unary(args[0], run, func, args, kwargs, rule)


def _normalised(
    run: Any, x: torch.Tensor, dims: tuple[int, ...], eps: float, centre: bool = True
) -> torch.Tensor:
    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        return [normalise(f[0], b[0], q, dims, eps, centre)]

    with torch.no_grad():
        z = x.detach()
        z = z - z.mean(dims, keepdim=True) if centre else z
        out = z * torch.rsqrt((z * z).mean(dims, keepdim=True) + eps)
    return run.unit([x], out, rule)


def _scaled(run: Any, y: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
    with run:
        y = y if weight is None else y * weight
        return y if bias is None else y + bias


def layer_norm(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    named = dict(zip(("input", "shape", "weight", "bias", "eps"), args, strict=False)) | kwargs
    dims = tuple(range(-len(named.get("shape", kwargs.get("normalized_shape"))), 0))
    y = _normalised(run, named["input"], dims, named.get("eps", 1e-5))
    return _scaled(run, y, named.get("weight"), named.get("bias"))


def rms_norm(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    named = dict(zip(("input", "shape", "weight", "eps"), args, strict=False)) | kwargs
    x, eps = named["input"], named.get("eps")
    dims = tuple(range(-len(named.get("shape", kwargs.get("normalized_shape"))), 0))
    y = _normalised(run, x, dims, torch.finfo(x.dtype).eps if eps is None else eps, centre=False)
    return _scaled(run, y, named.get("weight"), None)


def group_norm(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    named = dict(zip(("input", "num_groups", "weight", "bias", "eps"), args, strict=False)) | kwargs
    x, groups = named["input"], named["num_groups"]
    y = _normalised(run, x.reshape(x.shape[0], groups, -1), (-1,), named.get("eps", 1e-5)).reshape(
        x.shape
    )
    return _per_channel(run, y, named.get("weight"), named.get("bias"))


def instance_norm(run: Any, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    names = ("input", "weight", "bias", "mean", "var", "use_input_stats", "momentum", "eps")
    named = dict(zip(names, args, strict=False)) | kwargs
    x = named["input"]
    if not named["use_input_stats"]:
        run.refuse("instance_norm", "running statistics have no rule; use BatchNorm")
    y = _normalised(run, x, tuple(range(2, x.dim())), named.get("eps", 1e-5))
    return _per_channel(run, y, named.get("weight"), named.get("bias"))


def _per_channel(run: Any, y: torch.Tensor, weight: Any, bias: Any) -> torch.Tensor:
    shape = (-1, *[1] * (y.dim() - 2))
    return _scaled(
        run,
        y,
        None if weight is None else weight.view(shape),
        None if bias is None else bias.view(shape),
    )


# The same, written by hand


def log_of_sum(run: Any, total: torch.Tensor, note: Note) -> torch.Tensor:
    """The logarithm of a sum of exponentials that was written by hand."""
    (dim,) = note.dims

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        shape = [1 if axis == dim else size for axis, size in enumerate(b[0].shape)]
        return [softmax_path(f[0], b[0], q.reshape(shape), dim, "logsumexp")]

    with torch.no_grad():
        out = total.detach().log()
    return run.unit([note.root], out, rule)


def ratio(run: Any, top: torch.Tensor, scale: torch.Tensor, inverse: bool) -> Any:
    """``top / scale``, or ``top * scale`` of an inverse scale, when the scale is a function of the
    same inputs; None when it is not."""
    note = run.notes.get(scale)
    if note is None:
        return None
    if note.kind == "exps" and not inverse:
        above = run.notes.get(top)
        if above is None or above.kind != "exp" or above.root is not note.root:
            return None
        if along(scale.detach(), top, note.dims) is None:
            return None
        (dim,) = note.dims
        alone = run.notes.alone(note.root) and top.shape[dim] <= _PLAYERS
        made = run.unit([note.root], (top / scale).detach(), _softmax_of(dim, alone))
        run.notes.put(made, Note("softmax", note.root, note.dims))
        return made
    if note.kind != ("inverse" if inverse else "scale") or not run.notes.same(top, note):
        return None
    level = along(scale.detach(), top, note.dims)
    if level is None:
        return None
    dims, rate = note.dims, note.rate
    centred = run.notes.get(note.root)
    centre = centred is not None and centred.kind == "centred" and centred.dims == dims
    root = centred.root if centre else top

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        s_f, s_b = (1 / t if inverse else t for t in (f[1], b[1]))
        x_f, x_b = f[0], b[0]
        shift = None
        if centre:
            mean_f = x_f.mean(dims, keepdim=True)
            mean_b = x_b.mean(dims, keepdim=True)
            shift = mean_f - mean_b
            x_f = x_f - mean_f
            x_b = x_b - mean_b
        square_b = (x_b * x_b).sum(dims, keepdim=True)
        rise = (x_f * x_f).sum(dims, keepdim=True) - square_b
        found = (s_f * s_f - s_b * s_b) / torch.where(rise == 0, 1.0, rise)
        least = 4 * torch.finfo(rise.dtype).eps * square_b
        slope = torch.where(rise.abs() <= least, rate, found)
        return [quotient_of_norm(x_f, x_b, q, (s_f, s_b), dims, slope, shift)]

    with torch.no_grad():
        out = top.detach() * scale.detach() if inverse else top.detach() / scale.detach()
    return run.unit([root], out, rule, (level,))


def _softmax_of(dim: int, alone: bool) -> Rule:
    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        if alone:
            return [softmax_of_entries(f[0], b[0], q, dim)]
        return [softmax_path(f[0], b[0], q, dim, "softmax")]

    return rule


def weighted(
    run: Any, func: Any, args: Any, kwargs: Any, weights: torch.Tensor, note: Note
) -> torch.Tensor:
    """A product with the weights of a softmax: one operation of the scores and the other factor,
    as in fused attention."""
    found = inputs_of(run, args, kwargs)
    at = next(i for i, tensor in enumerate(found) if tensor is weights)
    spots = {i for i, tensor in enumerate(tensors_of((args, kwargs))) if run.depends(tensor)}
    args, kwargs = walk(torch.Tensor.detach, args), walk(torch.Tensor.detach, kwargs)

    def g(values: list[torch.Tensor]) -> torch.Tensor:
        values = list(values)
        values[at] = torch.softmax(values[at], note.dims[0])
        new, named = substitute_at(spots, args, kwargs, values)
        return func(*new, **named)

    def rule(
        f: list[torch.Tensor], b: list[torch.Tensor], q: torch.Tensor, kept: dict[str, Any]
    ) -> list[torch.Tensor]:
        return integrated(g, f, b, q, kept)

    with torch.no_grad():
        out = func(*args, **kwargs)
    found[at] = note.root
    return run.unit(found, out, rule)
