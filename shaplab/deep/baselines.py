"""Simpler attributions of a network, to compare with: gradients, integrated gradients, occlusion,
DeepLIFT.

None but DeepLIFT and, with enough steps, integrated gradients sums to the change of output; the
residual is kept in ``info["gap"]``.

Chapter: deep/deep_shap.

Needs: shaplab._parallel, shaplab._validation, shaplab.explanation, shaplab.deep._operations,
shaplab.deep._pairs, shaplab.deep._recurrent, shaplab.deep._reveal, shaplab.deep._windows,
shaplab.deep.deep_shap, shaplab.deep.graph, shaplab.deep.rules, shaplab.deep.kernels.units,
shaplab.deep.kernels.windows.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from shaplab._parallel import chunks
from shaplab._validation import as_numbers, check_frames, check_int, column_names, fail
from shaplab.deep.deep_shap import as_inputs, check_model, deep_shap
from shaplab.explanation import Explanation

__all__ = ["deeplift", "gradients", "input_x_gradient", "integrated_gradients", "occlusion"]


def _evaluate(model: Any, x: torch.Tensor, batch_size: int) -> torch.Tensor:
    with torch.no_grad():
        out = torch.cat([model(x[rows]) for rows in chunks(len(x), batch_size)]).double()
    return out if out.dim() == 2 else out[:, None]


@torch.inference_mode(False)
def _slopes(model: Any, x: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Gradients ``(N, *input, K)``, parameters and their gradients untouched."""
    found = []
    # cuDNN has no gradients of recurrent layers in evaluation mode.
    recurrent = isinstance(model, torch.nn.Module) and any(
        isinstance(m, torch.nn.RNNBase) for m in model.modules()
    )
    with (
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext(),
    ):
        for rows in chunks(len(x), batch_size):
            point = x[rows].detach().clone().requires_grad_()
            out = model(point)
            each = out.unbind(1) if out.dim() == 2 else [out]
            slopes = [
                torch.autograd.grad(part.sum(), point, retain_graph=True)[0].double()
                for part in each
            ]
            found.append(torch.stack(slopes, -1))
    return torch.cat(found)


def _inputs(model: Any, X: Any, background: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Explained rows and reference rows as tensors."""
    check_model(model)
    check_frames(X, background)
    (x,) = as_inputs(model, X, "X")
    (r,) = as_inputs(model, background, "background", (x,))
    return x, r


def _explained(
    model: Any,
    X: Any,
    values: torch.Tensor,
    x: torch.Tensor,
    base: torch.Tensor,
    name: str,
    evaluations: int,
) -> Explanation:
    out = _evaluate(model, x, 256)
    table, start = values.cpu().numpy(), np.broadcast_to(base.cpu().numpy(), tuple(out.shape))
    gap = out.cpu().numpy() - start - table.reshape(len(table), -1, table.shape[-1]).sum(1)
    if table.shape[-1] == 1:
        table, start, gap = table[..., 0], start[:, 0], gap[:, 0]
    names, info = tuple(column_names(X) or ()) or None, {"gap": gap, "evaluations": evaluations}
    return Explanation(table, start, x.float().cpu().numpy(), names, method=name, info=info)


def gradients(model: Any, X: Any, *, batch_size: int = 256) -> Explanation:
    """Gradient of each output at each explained row.

    Parameters
    ----------
    model : torch.nn.Module in evaluation mode, output ``(N,)`` or ``(N, K)``.
    X : rows ``(N, ...)``.
    batch_size : rows at a time.

    Returns
    -------
    Explanation, values in units of output per unit of input; not attributions of a difference.

    References
    ----------
    Simonyan, Vedaldi and Zisserman (2013).
    """
    check_model(model)
    (x,) = as_inputs(model, X, "X")
    return _explained(
        model,
        X,
        _slopes(model, x, batch_size),
        x,
        torch.zeros(1, 1, dtype=torch.float64),
        "gradients",
        len(x),
    )


def input_x_gradient(model: Any, X: Any, background: Any, *, batch_size: int = 256) -> Explanation:
    """Gradient at each explained row times its distance from the mean background row.

    Parameters
    ----------
    model, X, batch_size : as in ``gradients``.
    background : rows ``(B, ...)``; only their mean matters.

    Returns
    -------
    Explanation
    """
    x, r = _inputs(model, X, background)
    step = x.double() - r.double().mean(0)
    base = _evaluate(model, r, batch_size).mean(0, keepdim=True)
    return _explained(
        model,
        X,
        _slopes(model, x, batch_size) * step[..., None],
        x,
        base,
        "input_x_gradient",
        len(x),
    )


def integrated_gradients(
    model: Any, X: Any, background: Any, *, steps: int = 32, batch_size: int = 256
) -> Explanation:
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
    x, r = _inputs(model, X, background)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total: Any = 0.0
    for one in r:
        step = (x - one).double()
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            total = (
                total
                + weight
                * _slopes(model, one + float(node) * (x - one), batch_size)
                * step[..., None]
            )
    base = _evaluate(model, r, batch_size).mean(0, keepdim=True)
    return _explained(
        model,
        X,
        total / len(r),
        x,
        base,
        f"integrated_gradients, {steps} steps",
        steps * len(r) * len(x),
    )


def occlusion(model: Any, X: Any, background: Any, *, batch_size: int = 256) -> Explanation:
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
    x, r = _inputs(model, X, background)
    out = _evaluate(model, x, batch_size)
    flat, count = x.flatten(1), x[0].numel()
    values = torch.zeros((len(x), count, out.shape[1]), dtype=torch.float64, device=x.device)
    for i in range(count):
        for one in r.flatten(1):
            changed = flat.clone()
            changed[:, i] = one[i]
            values[:, i] += (out - _evaluate(model, changed.reshape(x.shape), batch_size)) / len(r)
    base = _evaluate(model, r, batch_size).mean(0, keepdim=True)
    return _explained(
        model, X, values.reshape(*x.shape, -1), x, base, "occlusion", (count * len(r) + 1) * len(x)
    )


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
    check_frames(X, baseline, "baseline")
    (x,) = as_inputs(model, X, "X")
    row = torch.zeros_like(x[:1])
    if baseline is not None:
        given = (
            baseline.detach()
            if isinstance(baseline, torch.Tensor)
            else as_numbers(baseline, "baseline").copy()
        )
        given = torch.as_tensor(given, dtype=x.dtype, device=x.device)
        if given.numel() != row.numel():
            fail(
                "baseline",
                f"one row of shape {tuple(x.shape[1:])}",
                f"shape {tuple(given.shape)}",
                "Use deep_shap for several reference rows",
            )
        row = given.reshape(row.shape)
    return deep_shap(model, X if not isinstance(X, torch.Tensor) else x, row, rule=rule, **options)
