"""Operations whose inputs share one denominator: softmax, log-sum-exp, normalisation.

Also the same formulas written by hand, which the notes of a run tell, and products with the weights
of a softmax. A denominator that is a function of the same inputs as the numerator is no player of
its own.

Cost: a few elementwise passes; for softmax 8 to 64 of them.

Chapter: deep/rules
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from shaplab.deep._facts import Note, along
from shaplab.deep._path import integrated, path, softmax_path
from shaplab.deep._watched import Rule, UnitPass, WatchedRun
from shaplab.deep.graph import Call, as_function
from shaplab.deep.rules import normalise, quotient_of_norm, softmax_of_entries

__all__: list[str] = []

_MOST_LOGITS = 64  # of a softmax whose inputs are compared one with all others

Handler = Callable[[WatchedRun, Call], Any]


# Softmax and its relatives


def softmax_handler(kind: str) -> Handler:
    """Handler of ``softmax`` or ``log_softmax``."""

    def handler(run: WatchedRun, call: Call) -> Tensor:
        (x,), function = as_function(call, run.depends)
        dim = call.argument(1, "dim", -1)
        with torch.no_grad():
            out = function([x.detach()])
        result = run.unit([x], out, _softmax_rule(run, x, dim, kind))
        if kind == "softmax" and result.dtype == x.dtype:
            run.notes.put(result, Note("softmax", x, (dim % x.dim(),)))
        return result

    return handler


def _softmax_rule(run: WatchedRun, logits: Tensor, dim: int, kind: str) -> Rule:
    """Logits that are inputs of the model are players; others take the path."""
    players = run.notes.alone(logits) and logits.shape[dim] <= _MOST_LOGITS

    def rule(seen: UnitPass) -> list[Tensor]:
        f = seen.f[0]
        b = seen.b[0]
        q = seen.q.to(b.dtype)
        if players and kind == "softmax":
            return [softmax_of_entries(f, b, q, dim)]
        return [softmax_path(f, b, q, dim, kind)]

    return rule


def logsumexp(run: WatchedRun, call: Call) -> Tensor:
    """Handler of ``logsumexp``: over one axis by its own path, over several as any operation."""
    dim = call.argument(1, "dim")
    keeps_axis = call.argument(2, "keepdim", False)
    if not isinstance(dim, int):
        if len(dim) != 1:
            return path(run, call)
        dim = dim[0]

    def rule(seen: UnitPass) -> list[Tensor]:
        q = seen.q if keeps_axis else seen.q.unsqueeze(dim)
        return [softmax_path(seen.f[0], seen.b[0], q, dim, "logsumexp")]

    (x,), function = as_function(call, run.depends)
    with torch.no_grad():
        out = function([x.detach()])
    return run.unit([x], out, rule)


# Normalisation


def layer_norm(run: WatchedRun, call: Call) -> Tensor:
    """Handler of ``layer_norm``: over the last axes."""
    given = call.named("input normalized_shape weight bias eps")
    dims = tuple(range(-len(given["normalized_shape"]), 0))
    y = _normalised(run, given["input"], dims, given.get("eps", 1e-5))
    return _scaled(run, y, given.get("weight"), given.get("bias"))


def rms_norm(run: WatchedRun, call: Call) -> Tensor:
    """Handler of ``rms_norm``: as layer norm, without centring."""
    given = call.named("input normalized_shape weight eps")
    dims = tuple(range(-len(given["normalized_shape"]), 0))
    eps = given.get("eps")
    if eps is None:
        eps = torch.finfo(given["input"].dtype).eps
    y = _normalised(run, given["input"], dims, eps, centre=False)
    return _scaled(run, y, given.get("weight"), None)


def group_norm(run: WatchedRun, call: Call) -> Tensor:
    """Handler of ``group_norm``: over groups of channels with all their positions."""
    given = call.named("input num_groups weight bias eps")
    x = given["input"]
    grouped = x.reshape(x.shape[0], given["num_groups"], -1)
    y = _normalised(run, grouped, (-1,), given.get("eps", 1e-5)).reshape(x.shape)
    return _scaled_per_channel(run, y, given.get("weight"), given.get("bias"))


def instance_norm(run: WatchedRun, call: Call) -> Tensor:
    """Handler of ``instance_norm``: over the positions of each channel."""
    given = call.named("input weight bias mean var use_input_stats momentum eps")
    if not given["use_input_stats"]:
        run.refuse("instance_norm", "running statistics have no rule; use BatchNorm")
    x = given["input"]
    y = _normalised(run, x, tuple(range(2, x.dim())), given.get("eps", 1e-5))
    return _scaled_per_channel(run, y, given.get("weight"), given.get("bias"))


def _normalised(
    run: WatchedRun, x: Tensor, dims: tuple[int, ...], eps: float, centre: bool = True
) -> Tensor:
    """The unit of a normalisation, without weights."""

    def rule(seen: UnitPass) -> list[Tensor]:
        return [normalise(seen.f[0], seen.b[0], seen.q, dims, eps, centre)]

    with torch.no_grad():
        z = x.detach()
        if centre:
            z = z - z.mean(dims, keepdim=True)
        out = z * torch.rsqrt((z * z).mean(dims, keepdim=True) + eps)
    return run.unit([x], out, rule)


def _scaled(run: WatchedRun, y: Tensor, weight: Any, bias: Any) -> Tensor:
    with run:
        if weight is not None:
            y = y * weight
        return y if bias is None else y + bias


def _scaled_per_channel(run: WatchedRun, y: Tensor, weight: Any, bias: Any) -> Tensor:
    shape = (-1, *[1] * (y.dim() - 2))
    if weight is not None:
        weight = weight.view(shape)
    if bias is not None:
        bias = bias.view(shape)
    return _scaled(run, y, weight, bias)


# The same, written by hand


def log_of_sum(run: WatchedRun, total: Tensor, note: Note) -> Tensor:
    """The logarithm of a sum of exponentials that was written by hand."""
    (dim,) = note.dims

    def rule(seen: UnitPass) -> list[Tensor]:
        f = seen.f[0]
        b = seen.b[0]
        shape = [1 if axis == dim else size for axis, size in enumerate(b.shape)]
        return [softmax_path(f, b, seen.q.reshape(shape), dim, "logsumexp")]

    with torch.no_grad():
        out = total.detach().log()
    return run.unit([note.root], out, rule)


def ratio(run: WatchedRun, top: Tensor, scale: Any, inverse: bool) -> Tensor | None:
    """``top / scale``, or ``top * scale`` of an inverse scale, when the scale is a function of the
    same inputs; None when it is not."""
    note = run.notes.get(scale)
    if note is None:
        return None
    if note.kind == "exps" and not inverse:
        return _softmax_by_hand(run, top, scale, note)
    if note.kind == ("inverse" if inverse else "scale"):
        return _normalised_by_hand(run, top, scale, note)
    return None


def _softmax_by_hand(run: WatchedRun, top: Tensor, total: Tensor, note: Note) -> Tensor | None:
    """``exp(x) / sum(exp(x))``; None when the numerator is another."""
    above = run.notes.get(top)
    if above is None or above.kind != "exp" or above.root is not note.root:
        return None
    if along(total.detach(), top, note.dims) is None:
        return None
    rule = _softmax_rule(run, note.root, note.dims[0], "softmax")
    made = run.unit([note.root], (top / total).detach(), rule)
    run.notes.put(made, Note("softmax", note.root, note.dims))
    return made


def _normalised_by_hand(run: WatchedRun, top: Tensor, scale: Tensor, note: Note) -> Tensor | None:
    """``x / norm(x)`` and ``(x - mean) / std``; None when the numerator is another."""
    if not run.notes.same(top, note):
        return None
    level = along(scale.detach(), top, note.dims)
    if level is None:
        return None
    dims = note.dims
    inverse = note.kind == "inverse"
    centred = run.notes.get(note.root)
    centre = centred is not None and centred.kind == "centred" and centred.dims == dims
    root = centred.root if centred is not None and centre else top

    def rule(seen: UnitPass) -> list[Tensor]:
        (f, s_f) = seen.f
        (b, s_b) = seen.b
        if inverse:
            s_f, s_b = 1 / s_f, 1 / s_b
        shift = None
        if centre:
            mean_f = f.mean(dims, keepdim=True)
            mean_b = b.mean(dims, keepdim=True)
            shift = mean_f - mean_b
            f, b = f - mean_f, b - mean_b
        rate = _rate_of_square(f, b, (s_f, s_b), dims, note.rate)
        return [quotient_of_norm(f, b, seen.q, (s_f, s_b), dims, rate, shift)]

    with torch.no_grad():
        out = top.detach() * scale.detach() if inverse else top.detach() / scale.detach()
    return run.unit([root], out, rule, (level,))


def _rate_of_square(
    f: Tensor,
    b: Tensor,
    scales: tuple[Tensor, Tensor],
    dims: tuple[int, ...],
    slope: float,
) -> Tensor:
    """How fast the squared scale changes with the sum of squares: it may have been bounded on the
    way. ``slope`` where the sums are equal."""
    s_f, s_b = scales
    square_b = (b * b).sum(dims, keepdim=True)
    rise = (f * f).sum(dims, keepdim=True) - square_b
    secant = (s_f * s_f - s_b * s_b) / torch.where(rise == 0, 1.0, rise)
    least = 4 * torch.finfo(rise.dtype).eps * square_b
    return torch.where(rise.abs() <= least, slope, secant)


def weighted(run: WatchedRun, call: Call, weights: Tensor, note: Note) -> Tensor:
    """A product with the weights of a softmax: one operation of the scores and the other factor,
    as in fused attention."""
    inputs, function = as_function(call, run.depends)
    place = next(i for i, tensor in enumerate(inputs) if tensor is weights)

    def of_scores(values: list[Tensor]) -> Tensor:
        values = list(values)
        values[place] = torch.softmax(values[place], note.dims[0])
        return function(values)

    def rule(seen: UnitPass) -> list[Tensor]:
        return integrated(of_scores, seen)

    with torch.no_grad():
        out = function([tensor.detach() for tensor in inputs])
    inputs[place] = note.root
    return run.unit(inputs, out, rule)
