"""DeepSHAP: attributions of any torch network, propagated rule by rule and averaged over a
background.

For an explained row ``x`` and a reference row ``r`` every non-linear operation sees two inputs,
``f`` and ``b``, and turns the multiplier of its output into multipliers of its inputs (``rules``);
autograd does the linear operations between them. Then ``phi_i(x, r) = M_i (x_i - r_i)``, which sums
to ``model(x) - model(r)``, and by Theorem 1 ``phi_i(x)`` is the mean over all background rows.

One run of the model on explained rows stores the inputs of its non-linear units. One run on the
background builds a graph in which each unit is a ``torch.autograd.Function`` whose backward pass
looks up one explained row. One backward pass through it for each explained row and output gives its
multipliers against all background rows. Multipliers are symmetric in ``x`` and ``r``, so the
shorter of the two is looped over.

Approximate for the interventional game, except for linear networks, single units, products and
maxima; exactly additive always. Cost: ``N + B`` rows forward, ``N B K`` rows backward; memory of
``batch_size`` rows of activations, twice. Source: Chen, Lundberg and Lee (2019), "Propagating
Shapley values".

Chapter: deep/rules
Needs: shaplab._parallel, shaplab._validation, shaplab.explanation, shaplab.deep._operations,
shaplab.deep._pairs, shaplab.deep._recurrent, shaplab.deep._reveal, shaplab.deep._windows,
shaplab.deep.graph, shaplab.deep.rules, shaplab.deep.kernels.units, shaplab.deep.kernels.windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from shaplab._parallel import progress_bar
from shaplab._validation import (
    UnsupportedModelError,
    check_choice,
    check_frames,
    check_int,
    column_names,
    fail,
)
from shaplab.deep._pairs import Settings, pairs
from shaplab.explanation import Explanation

__all__ = ["deep_shap"]

RULES = ("rescale", "reveal_cancel", "reveal_cancel_mean")


def as_inputs(
    model: Any, X: Any, argument: str, like: tuple[torch.Tensor, ...] | None = None
) -> tuple[torch.Tensor, ...]:
    """Tensors of a model's inputs: arrays and tables take its dtype and device, tensors must have
    them."""
    first = (
        next((p for p in model.parameters() if p.is_floating_point()), None)
        if isinstance(model, torch.nn.Module)
        else None
    )
    found = []
    for value in X if isinstance(X, tuple) else (X,):
        if isinstance(value, torch.Tensor):
            tensor = value.detach()
        else:
            array = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
            if array.dtype.kind not in "biuf":
                fail(
                    argument,
                    "numbers",
                    f"dtype {array.dtype}",
                    "Encode text and objects as numbers first",
                    TypeError,
                )
            tensor = torch.tensor(array)
            codes = first is None or any(
                isinstance(part, torch.nn.Embedding) for part in model.modules()
            )
            if first is not None and (tensor.is_floating_point() or not codes):
                tensor = tensor.to(dtype=first.dtype)
            tensor = tensor if first is None else tensor.to(first.device)
        if tensor.dim() < 1 or tensor.shape[0] == 0:
            fail(
                argument,
                "at least one row, rows along the first axis",
                f"shape {tuple(tensor.shape)}",
                "Pass a non-empty batch",
            )
        if tensor.is_floating_point():
            if first is not None and (tensor.dtype != first.dtype or tensor.device != first.device):
                fail(
                    argument,
                    f"dtype {first.dtype} on {first.device}, as the model has",
                    f"{tensor.dtype} on {tensor.device}",
                    f"Convert it: {argument}.to({str(first.device)!r}, {first.dtype})",
                )
            if not torch.isfinite(tensor).all():
                fail(
                    argument,
                    "finite numbers",
                    "NaN or infinity",
                    "Impute or drop missing values first",
                )
        found.append(tensor)
    if any(value.shape[0] != found[0].shape[0] for value in found):
        fail(
            argument,
            "the same number of rows in every input",
            str([value.shape[0] for value in found]),
            "Align the inputs",
        )
    for i, value in enumerate(like or ()):
        if (
            len(found) != len(like or ())
            or found[i].shape[1:] != value.shape[1:]
            or found[i].dtype != value.dtype
        ):
            fail(
                argument,
                f"inputs of shape (B, *{tuple(value.shape[1:])}) and dtype {value.dtype}, as X has",
                f"{len(found)} input(s), shapes {[tuple(t.shape) for t in found]} and "
                f"{[t.dtype for t in found]}",
                "Give rows of the same kind",
            )
    return tuple(found)


def check_model(model: Any) -> None:
    """Refuse what cannot be watched or would change while it is watched."""
    if not isinstance(model, torch.nn.Module):
        if callable(model):
            return
        fail(
            "model",
            "a torch.nn.Module or a function of tensors",
            model,
            "Pass the network itself",
            TypeError,
        )
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"model: expected eager modules, got a ScriptModule at {name!r}. Pass the "
                f"original module."
            )
        active = isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0
        if part.training and (
            active
            or (isinstance(part, torch.nn.modules.batchnorm._NormBase) and part.track_running_stats)
        ):
            fail(
                "model",
                "evaluation mode",
                f"{type(part).__name__} {name!r} in training mode",
                "Call model.eval() first",
            )


@torch.inference_mode(False)
def deep_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    rule: str = "rescale",
    max_rule: str = "exact",
    outputs: int | list[int] | None = None,
    layer: str | None = None,
    batch_size: int = 256,
    feature_names: Any = None,
    output_names: Any = None,
    progress: bool = False,
) -> Explanation | tuple[Explanation, ...]:
    """Attributions of a network's outputs to its inputs, averaged over a background.

    Parameters
    ----------
    model : torch.nn.Module in evaluation mode, or function of tensors; rows along the first axis of
        every input; output ``(N,)`` or ``(N, K)``.
    X : tensor, array or DataFrame ``(N, ...)``, rows to explain; a tuple for several inputs.
        Integer inputs are explained at the embedding that reads them; arrays of integers are
        numbers if the model has no embedding.
    background : like ``X``, ``(B, ...)``, reference rows. All are used.
    rule : ``"rescale"``, ``"reveal_cancel"`` or ``"reveal_cancel_mean"``. The latter two see a
        linear or convolution layer (and a BatchNorm after it) together with the function it feeds;
        elsewhere Rescale.
    max_rule : ``"exact"``, Shapley values of each window's maximum, or ``"cross"``, the cheap rule
        that credits one input of a window.
    outputs : index or list of indices of the outputs to explain; None for all.
    layer : name of a module: attributions to its output instead of the input; ``"name:1"`` for its
        second call.
    batch_size : rows of each table held in memory at once.
    feature_names, output_names : names for the result.
    progress : show a progress bar.

    Returns
    -------
    Explanation
        ``values`` has the shape of ``X``, and a last axis exactly when several outputs are
        explained, in units of the output. ``base_values`` is the mean output over the background.
        ``info["gap"]`` is the additivity residual of each row, ``(N,)`` or ``(N, K)``. A tuple, one
        for each of several inputs; then ``rest`` of each holds the others' sums.

    Raises
    ------
    UnsupportedModelError
        For operations without a rule, by name and place, and when the residual is more than
        rounding.
    ValueError
        For bad arguments, such as a model in training mode.

    Notes
    -----
    Approximates the interventional game (features outside a coalition take background values);
    exact for linear networks and for single units. ``N + B`` forward rows, ``N * B * K`` backward
    rows. The model, its gradients, flags and the random state are not touched.

    References
    ----------
    Chen, Lundberg and Lee (2019), "Propagating Shapley values", Theorem 1, Figures 1 and 6.

    Examples
    --------
    >>> import torch
    >>> double = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.constant_(double.weight, 2.0)
    >>> deep_shap(double, [[1.0, 3.0]], [[0.0, 1.0], [0.0, 3.0]]).values
    array([[2., 2.]])
    """
    check_choice(rule, "rule", RULES)
    check_choice(max_rule, "max_rule", ("exact", "cross"))
    check_int(batch_size, "batch_size")
    check_model(model)
    check_frames(X, background)
    rows = as_inputs(model, X, "X")
    references = as_inputs(model, background, "background", rows)
    n, size = rows[0].shape[0], references[0].shape[0]
    swapped = size < n
    loop, batch = (references, rows) if swapped else (rows, references)
    settings = Settings(rule, max_rule, layer, batch_size)
    sums: list[Any] = []
    out_rows: list[Any] = [None] * n
    out_references: list[Any] = [None] * size
    chosen: list[int] = []
    single = True
    with progress_bar(n * size, progress, "deep_shap") as bar:
        for block in pairs(model, loop, batch, settings):
            several = block.out_one.dim() == 1
            if not chosen:
                count = block.out_one.shape[0] if several else 1
                chosen, single = _chosen(outputs, count)
            ours, theirs = (out_references, out_rows) if swapped else (out_rows, out_references)
            ours[block.one] = block.out_one.double().reshape(-1)[chosen].cpu()
            if theirs[block.many.start] is None:
                theirs[block.many] = (
                    block.out_many.double().reshape(len(block.out_many), -1)[:, chosen].cpu()
                )
            for place, k in enumerate(chosen):
                seed = torch.zeros_like(block.out_many)
                seed[..., k if several else slice(None)] = 1
                found = block.read(seed)
                if not sums:
                    sums = [
                        None if part is None else np.zeros((n, *part.shape[1:], len(chosen)))
                        for part in found
                    ]
                for total, part in zip(sums, found, strict=True):
                    if part is not None and swapped:
                        total[block.many, ..., place] -= part.cpu().numpy()
                    elif part is not None:
                        total[block.one, ..., place] += (
                            part.sum(0, dtype=torch.float64).cpu().numpy()
                        )
            bar.update(block.many.stop - block.many.start)
    return _explain(
        sums,
        torch.stack(out_rows).numpy(),
        torch.stack(out_references).numpy(),
        size,
        single,
        rows,
        layer,
        feature_names if feature_names is not None else column_names(X),
        output_names,
        settings,
    )


def _chosen(outputs: Any, count: int) -> tuple[list[int], bool]:
    if outputs is None:
        return list(range(count)), count == 1
    listed = [outputs] if isinstance(outputs, int | np.integer) else list(outputs)
    if not listed or any(
        not isinstance(k, int | np.integer) or not -count <= k < count for k in listed
    ):
        fail(
            "outputs",
            f"indices of the {count} output(s)",
            repr(outputs),
            "Pass an index or a list of indices",
        )
    return [int(k) % count for k in listed], isinstance(outputs, int | np.integer) or count == 1


def _explain(
    sums: list[Any],
    out: np.ndarray,
    out_references: np.ndarray,
    size: int,
    single: bool,
    rows: tuple[torch.Tensor, ...],
    layer: str | None,
    feature_names: Any,
    output_names: Any,
    settings: Settings,
) -> Any:
    n, count = out.shape
    base = out_references.mean(0)
    values = [
        np.zeros((n, *row.shape[1:], count)) if total is None else total / size
        for total, row in zip(sums, rows, strict=True)
    ]
    if layer is not None:
        values = values[:1]
    totals = [value.reshape(n, -1, count).sum(1) for value in values]
    gap = out - base - sum(totals)
    scale = max(float(np.abs(out).max()), float(np.abs(out_references).max()), 1e-300)
    digits = (
        max(torch.finfo(row.dtype).eps for row in rows if row.is_floating_point())
        if any(row.is_floating_point() for row in rows)
        else 1.2e-7
    )
    if np.abs(gap).max() > 30 * digits**0.5 * scale:
        raise UnsupportedModelError(
            f"model: expected attributions that sum to the change of output, got a residual of "
            f"{np.abs(gap).max():.3g} on a scale of {scale:.3g}. "
            "Some step is hidden from torch (another library, a custom "
            "autograd.Function, a mask made from the input) or mixes rows; rewrite it in torch "
            "operations on the input."
        )
    method = f"deep_shap, {settings.rule}, interventional game"
    results = []
    for i, value in enumerate(values):
        rest = (
            base * 0 + sum((part for j, part in enumerate(totals) if j != i), np.zeros_like(out))
            if len(values) > 1
            else None
        )
        data = None if layer is not None else rows[i].float().cpu().numpy()
        results.append(
            Explanation(
                value[..., 0] if single else value,
                np.full(n, base[0]) if single else np.tile(base, (n, 1)),
                data,
                feature_names if len(values) == 1 and layer is None else None,
                output_names,
                method=method,
                rest=None if rest is None else (rest[:, 0] if single else rest),
                info={
                    "gap": gap[:, 0] if single else gap,
                    "evaluations": n + len(out_references),
                    "scale": scale,
                },
            )
        )
    return results[0] if len(results) == 1 else tuple(results)
