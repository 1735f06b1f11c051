"""Simpler attributions of a network, to compare with: gradients, integrated gradients, occlusion,
DeepLIFT.

None but DeepLIFT and, with enough steps, integrated gradients sums to the change of output; the
residual is kept in ``info["gap"]``.

Chapter: deep/deep_shap.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from shaplab._parallel import chunks
from shaplab._validation import check_int, fail
from shaplab.deep._inputs import (
    as_inputs,
    as_reference_row,
    check_model,
    check_tables,
    each_table,
    names_of,
    shown_rows,
)
from shaplab.deep._pairs import Tensors
from shaplab.deep.deep_shap import deep_shap
from shaplab.explanation import Explanation

__all__ = ["deeplift", "gradients", "input_x_gradient", "integrated_gradients", "occlusion"]


def _part_of(x: Tensors, rows: slice) -> Tensors:
    """Some rows of every input."""
    return tuple(part[rows] for part in x)


def _evaluate(model: Any, x: Tensors, batch_size: int) -> Tensor:
    with torch.no_grad():
        parts = [model(*_part_of(x, rows)) for rows in chunks(len(x[0]), batch_size)]
    return torch.cat(parts).double()


@torch.inference_mode(False)
def _gradients_at(model: Any, x: Tensors, batch_size: int) -> list[Tensor]:
    """Gradients ``(N, *input, K)`` of each input, parameters and their gradients untouched."""
    if not all(part.is_floating_point() for part in x):
        fail(
            "X",
            "floating-point inputs, which have gradients",
            str([part.dtype for part in x]),
            "Use deep_shap, which explains codes at their embedding",
            TypeError,
        )
    parts: list[list[Tensor]] = []
    # cuDNN has no gradients of recurrent layers in evaluation mode.
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    recurrent = any(isinstance(part, torch.nn.RNNBase) for part in modules)
    without_cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with torch.enable_grad(), without_cudnn:
        for rows in chunks(len(x[0]), batch_size):
            points = tuple(part.detach().clone().requires_grad_() for part in _part_of(x, rows))
            out = model(*points)
            each = out.unbind(1) if out.dim() == 2 else [out]
            slopes = [_gradient(part.sum(), points) for part in each]
            parts.append([torch.stack(of_input, -1) for of_input in zip(*slopes, strict=True)])
    return [torch.cat(of_input) for of_input in zip(*parts, strict=True)]


def _gradient(total: Tensor, points: Tensors) -> list[Tensor]:
    slopes: Any = (None,) * len(points)
    if total.requires_grad:
        slopes = torch.autograd.grad(total, points, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(point, dtype=torch.float64) if slope is None else slope.double()
        for point, slope in zip(points, slopes, strict=True)
    ]


def _both_tables(model: Any, X: Any, background: Any) -> tuple[Tensors, Tensors]:
    """Explained rows and reference rows as tensors, for each input."""
    check_model(model)
    check_tables(X, background)
    x = as_inputs(model, X, "X")
    return x, as_inputs(model, background, "background", x)


class _Label(NamedTuple):
    method: str
    evaluations: int


def _explained(
    model: Any,
    X: Any,
    values: list[Tensor],
    x: Tensors,
    base: Tensor,
    label: _Label,
) -> Any:
    """One Explanation, or a tuple of them, one for each of several inputs."""
    out = _evaluate(model, x, 256)
    single = out.dim() == 1
    top = out.reshape(len(out), -1).cpu().numpy()
    start = np.broadcast_to(base.reshape(-1).cpu().numpy(), top.shape)
    tables = [value.cpu().numpy() for value in values]
    tables = [t.reshape(len(t), 1, -1) if t.ndim == 2 else t for t in tables]
    totals = [table.reshape(*top.shape[:1], -1, top.shape[1]).sum(1) for table in tables]
    gap = top - start - sum(totals)

    def cut(table: np.ndarray) -> np.ndarray:
        return table[..., 0] if single else table

    results = tuple(
        Explanation(
            cut(table),
            cut(start),
            shown_rows(x[i]),
            names_of(X, None)[i],
            method=label.method,
            rest=cut(sum(totals) - totals[i]) if len(tables) > 1 else None,
            info={"gap": cut(gap), "evaluations": label.evaluations},
        )
        for i, table in enumerate(tables)
    )
    return results[0] if len(results) == 1 else results


def gradients(model: Any, X: Any, *, batch_size: int = 256) -> Any:
    """Gradient of each output at each explained row.

    Parameters
    ----------
    model : torch.nn.Module in evaluation mode, output ``(N,)`` or ``(N, K)``.
    X : rows ``(N, ...)``; a tuple for several inputs, here and below, gives a tuple of results.
    batch_size : rows at a time.

    Returns
    -------
    Explanation, values in units of output per unit of input; not attributions of a difference.

    References
    ----------
    Simonyan, Vedaldi and Zisserman (2013).
    """
    check_model(model)
    x = as_inputs(model, X, "X")
    slopes = _gradients_at(model, x, batch_size)
    base = torch.zeros(slopes[0].shape[-1], dtype=torch.float64)
    return _explained(model, X, slopes, x, base, _Label("gradients", len(x[0])))


def input_x_gradient(model: Any, X: Any, background: Any, *, batch_size: int = 256) -> Any:
    """Gradient at each explained row times its distance from the mean background row.

    Parameters
    ----------
    model, X, batch_size : as in ``gradients``.
    background : rows ``(B, ...)``; only their mean matters.

    Returns
    -------
    Explanation
    """
    x, r = _both_tables(model, X, background)
    base = _evaluate(model, r, batch_size).mean(0)
    values = [
        slope * (part.double() - other.double().mean(0))[..., None]
        for slope, part, other in zip(_gradients_at(model, x, batch_size), x, r, strict=True)
    ]
    return _explained(model, X, values, x, base, _Label("input_x_gradient", len(x[0])))


def integrated_gradients(
    model: Any, X: Any, background: Any, *, steps: int = 32, batch_size: int = 256
) -> Any:
    """Mean gradient on the straight line from each background row, times the distance; averaged
    over the background.

    Parameters
    ----------
    model, X, batch_size : as in ``gradients``.
    background : rows ``(B, ...)``, all used.
    steps : nodes of the Gauss-Legendre rule on each line.

    Returns
    -------
    Explanation; Aumann-Shapley values of each pair of rows up to the error of the rule, which
    ``info["gap"]`` shows.

    References
    ----------
    Sundararajan, Taly and Yan (2017).
    """
    check_int(steps, "steps")
    x, r = _both_tables(model, X, background)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = [torch.zeros((), dtype=torch.float64, device=part.device) for part in x]
    for i in range(len(r[0])):
        start = _part_of(r, slice(i, i + 1))
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            points = tuple(b + float(node) * (f - b) for f, b in zip(x, start, strict=True))
            for k, slope in enumerate(_gradients_at(model, points, batch_size)):
                step = (x[k] - start[k]).double()[..., None]
                total[k] = total[k] + weight * slope * step
    values = [part / len(r[0]) for part in total]
    base = _evaluate(model, r, batch_size).mean(0)
    label = _Label(f"integrated_gradients, {steps} steps", steps * len(r[0]) * len(x[0]))
    return _explained(model, X, values, x, base, label)


def occlusion(model: Any, X: Any, background: Any, *, batch_size: int = 256) -> Any:
    """Change of output when one input entry alone takes its background values.

    Parameters
    ----------
    model, X, batch_size : as in ``gradients``.
    background : rows ``(B, ...)``, all used.

    Returns
    -------
    Explanation; the last marginal contribution of each feature, not a share.

    References
    ----------
    Zeiler and Fergus (2014).
    """
    x, r = _both_tables(model, X, background)
    out = _evaluate(model, x, batch_size)
    results = []
    count = 0
    for k, part in enumerate(x):
        flat = part.reshape(len(part), -1)
        width = part[0].numel()
        count += width
        values = torch.zeros((len(part), width, *out.shape[1:]), dtype=torch.float64)
        for i in range(width):
            for one in r[k].reshape(len(r[k]), -1):
                occluded = flat.clone()
                occluded[:, i] = one[i]
                inputs = (*x[:k], occluded.reshape(part.shape), *x[k + 1 :])
                values[:, i] += (out - _evaluate(model, inputs, batch_size)).cpu() / len(r[k])
        results.append(values.reshape(*part.shape, -1))
    base = _evaluate(model, r, batch_size).mean(0)
    evaluations = (count * len(r[0]) + 1) * len(x[0])
    return _explained(model, X, results, x, base, _Label("occlusion", evaluations))


def deeplift(
    model: Any, X: Any, baseline: Any = None, *, rule: str = "rescale", **options: Any
) -> Any:
    """DeepSHAP against one baseline row; what that choice does is the subject of the chapter on
    backgrounds.

    Parameters
    ----------
    model, X : as in ``deep_shap``.
    baseline : one row of the shape of a row of ``X``; zeros by default.
    rule : as in ``deep_shap``, as are further keywords.

    Returns
    -------
    Explanation

    References
    ----------
    Shrikumar, Greenside and Kundaje (2017).
    """
    check_tables(X, baseline, "baseline")
    x = as_inputs(model, X, "X")
    given = (None,) * len(x) if baseline is None else each_table(baseline)
    if len(given) != len(x):
        fail(
            "baseline",
            f"one row for each of {len(x)} inputs",
            f"{len(given)}",
            "Pass a tuple with a row of each input",
        )
    rows = tuple(as_reference_row(one, part) for one, part in zip(given, x, strict=True))
    row = rows if isinstance(X, tuple) else rows[0]
    return deep_shap(model, X, row, rule=rule, **options)
