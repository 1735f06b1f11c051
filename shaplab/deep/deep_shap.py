"""DeepSHAP: attributions of any torch network, propagated rule by rule and averaged over a
background.

For an explained row ``x`` and a reference row ``r`` every non-linear operation sees two inputs,
``f`` of ``x`` and ``b`` of ``r``, and turns the multiplier of its output into multipliers of its
inputs (see ``shaplab.deep.rules``); autograd does the linear operations between them. Then
``phi_i(x, r) = M_i (x_i - r_i)``, which sums to ``model(x) - model(r)``. Shapley values are linear
in the game, so ``phi_i(x)`` is the mean over all background rows (Theorem 1 of the source; chapter
deep/deep_shap).

The shorter of the two tables is looped over. One run of the model on it stores the inputs of its
non-linear units. One run on the other table builds a graph in which each unit is a
``torch.autograd.Function`` whose backward pass looks up one looped row. One backward pass through
it for each looped row and output gives its multipliers against all rows of the other table. Every
rule divides a change by a change, so a multiplier stays what it is when ``x`` and ``r`` change
places; where references are looped over, the changes take the opposite sign.

Approximate for the interventional game, except for linear networks and for one operation alone: a
function of one number, a product, a window's maximum. Whatever does not add up is refused, but that
values add up says nothing about the split: a rule can share any amount between two inputs. What the
rules are chosen for is the distance from enumeration. Cost: ``N + B`` rows forward (the longer
table again for every further batch of the shorter one), ``N B K`` rows backward; memory of
``batch_size`` rows of activations, twice.
Source: Chen, Lundberg and Lee (2019), "Propagating Shapley values".

Chapters: rules in deep/rules, the mean in deep/deep_shap, the graph in deep/graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shaplab._parallel import progress_bar
from shaplab._validation import UnsupportedModelError, check_choice, check_int, fail
from shaplab.deep._inputs import (
    ByName,
    as_inputs,
    check_model,
    check_tables,
    names_of,
    shown_rows,
)
from shaplab.deep._pairs import Block, Settings, pairs
from shaplab.explanation import Explanation

__all__ = ["deep_shap"]

RULES = ("rescale", "reveal_cancel", "reveal_cancel_mean")


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
    X : tensor, array or DataFrame ``(N, ...)``, rows to explain; a tuple for several inputs, or a
        dict for inputs that have names (then a dict of results, but for ``layer``). Integer inputs,
        such as words, are explained where they become numbers: in an embedding, a table, or as
        floats. Arrays and tables take the dtypes that the model runs with.
    background : like ``X``, ``(B, ...)``, reference rows. All are used.
    rule : ``"rescale"`` takes the slope from ``b`` to ``f``; ``"reveal_cancel"`` and
        ``"reveal_cancel_mean"`` see a linear or convolution layer (and a BatchNorm after it)
        together with the function it feeds, and treat what raises and what lowers its sum apart;
        elsewhere Rescale.
    max_rule : of max-pooling: ``"exact"``, Shapley values of each window's maximum, or ``"cross"``,
        cheap: all of a window's change goes to the input that made the larger of its two maxima.
    outputs : index or list of indices of the outputs to explain; None for all.
    layer : name of a module: attributions to its output instead of the input; ``"name:1"`` for its
        second call. Its outputs have no names, so ``feature_names`` stays None.
    batch_size : rows of each table held in memory at once.
    feature_names, output_names : names for the result.
    progress : show a progress bar.

    Returns
    -------
    Explanation
        ``values`` has the shape of ``X`` (``(N, 1)`` for one number a row), and a last axis exactly
        when the model's output has one and ``outputs`` is no single index, in units of the output.
        ``base_values`` is the mean output over the background. ``info["gap"]`` is the additivity
        residual of each row, ``(N,)`` or ``(N, K)``; ``info["shared"]`` the largest share of an
        operation's change of output that its path rule (deep/rules, "A number and its own
        normaliser") missed and that was divided among its inputs; ``info["evaluations"]`` the rows
        that the model was run on; ``info["scale"]`` the largest output. A tuple, one for each of
        several inputs; then ``rest`` of each holds the others' sums.

    Raises
    ------
    UnsupportedModelError
        For decisions on the input that differ between rows, random numbers and operations without a
        derivative, by name and place; for values that leave the range of the dtype; and when the
        residual is more than rounding beside the change of output.
    ValueError
        For bad arguments, such as a model in training mode.

    Notes
    -----
    Approximates the interventional game (features outside a coalition take background values);
    exact for linear networks and for single units. That the values sum to the change of output says
    nothing about how it is split: ``benchmarks/deep_accuracy.py`` measures that against
    enumeration, and finds errors like those of integrated gradients with many steps. ``N + B``
    forward rows, ``N * B * K`` backward rows. The model, its gradients, flags and the random state
    are not touched.

    References
    ----------
    Chen, Lundberg and Lee (2019), "Propagating Shapley values", Theorem 1, Figures 1 and 6.

    Examples
    --------
    >>> import torch
    >>> double = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.constant_(double.weight, 2.0)
    >>> deep_shap(double, [[1.0, 3.0]], [[0.0, 1.0], [0.0, 3.0]]).values
    array([[[2.],
            [2.]]])
    """
    check_choice(rule, "rule", RULES)
    check_choice(max_rule, "max_rule", ("exact", "cross"))
    check_int(batch_size, "batch_size")
    check_model(model)
    if layer is not None and feature_names is not None:
        fail(
            "feature_names",
            "None beside layer, whose outputs have no names",
            feature_names,
            "Leave it out",
        )
    if isinstance(X, dict):
        options: dict[str, Any] = {"rule": rule, "max_rule": max_rule, "outputs": outputs}
        options |= {"layer": layer, "batch_size": batch_size, "progress": progress}
        options |= {"feature_names": feature_names, "output_names": output_names}
        return by_name(deep_shap, model, X, background, options)
    check_tables(X, background)
    rows = as_inputs(model, X, "X")
    references = as_inputs(model, background, "background", rows)
    n = rows[0].shape[0]
    n_references = references[0].shape[0]
    swapped = n_references < n
    loop, batch = (references, rows) if swapped else (rows, references)
    settings = Settings(rule, max_rule, layer, batch_size)
    totals = _Totals(n, n_references, swapped, outputs)
    with progress_bar(n * n_references, progress, "deep_shap") as bar:
        for block in pairs(model, loop, batch, settings):
            totals.take(block)
            bar.update(block.many.stop - block.many.start)
    out = torch.stack(totals.out_rows).numpy()
    out_references = torch.stack(totals.out_references).numpy()
    values = totals.values(rows)
    names = names_of(X, feature_names)
    data: list[Any] = [shown_rows(row) for row in rows]
    if layer is not None:  # its outputs have no table and no names
        values = values[:1]
        names = [None]
        data = [None]
    sums = [value.reshape(n, -1, out.shape[1]).sum(1) for value in values]
    change = out - out_references.mean(0)
    # Rounding of independent operations adds up like a random walk; the linear ones between the
    # units round as many times.
    rounding = max(totals.rounding_unit, coarsest(model, rows)) * (1 + totals.units) ** 0.5
    gap = checked_gap(change - sum(sums), out, out_references, rounding, layer)
    found = Found(values, out, out_references, gap, totals.single)
    batches = math.ceil(loop[0].shape[0] / batch_size)
    evaluations = loop[0].shape[0] + batches * batch[0].shape[0]
    info = {"evaluations": evaluations, "shared": totals.shared}
    named = {"feature_names": names, "output_names": output_names}
    return found.explanations(data, f"deep_shap, {rule}, interventional game", info, **named)


@dataclass(frozen=True)
class Found:
    """Values ``(N, *input, K)`` of every input, and the outputs ``(N, K)`` and ``(B, K)`` that they
    tell apart; ``gap`` ``(N, K)`` is the residual of additivity. ``single``: the axis of outputs
    goes, because the model or the caller has but one."""

    values: list[np.ndarray]
    out: np.ndarray
    out_references: np.ndarray
    gap: np.ndarray
    single: bool
    std: list[np.ndarray] | None = None

    def explanations(
        self,
        data: list[Any],
        method: str,
        info: dict[str, Any],
        *,
        feature_names: list[Any],
        output_names: Any,
    ) -> Explanation | tuple[Explanation, ...]:
        """One result, or one for each of several inputs."""
        if self.single and output_names is not None:
            fail(
                "output_names",
                "None where the result has no axis of outputs",
                repr(output_names),
                "Leave it out, or pass outputs=[k] to keep the axis",
            )
        n = len(self.out)
        sums = [value.reshape(n, -1, self.out.shape[1]).sum(1) for value in self.values]
        base = np.tile(self.out_references.mean(0), (n, 1))
        largest = max(float(np.abs(self.out).max()), float(np.abs(self.out_references).max()))
        # Readers divide by the scale, which is 0 for a model that gives 0 only.
        info = {"gap": self._cut(self.gap), **info, "scale": max(largest, 1e-300)}
        results = []
        for i, value in enumerate(self.values):
            rest = self._cut(sum(sums) - sums[i]) if len(sums) > 1 else None
            results.append(
                Explanation(
                    self._cut(value),
                    self._cut(base),
                    data[i],
                    feature_names[i],
                    output_names,
                    std=None if self.std is None else self._cut(self.std[i]),
                    method=method,
                    rest=rest,
                    info=info,
                )
            )
        return results[0] if len(results) == 1 else tuple(results)

    def _cut(self, table: np.ndarray) -> np.ndarray:
        return table[..., 0] if self.single else table


def by_name(
    explain: Callable[..., Any],
    model: Any,
    X: dict[str, Any],
    background: Any,
    options: dict[str, Any],
) -> Any:
    """The call of ``explain`` with a dictionary of inputs, as one with a tuple; a dictionary of
    results."""
    names = tuple(X)
    if not X:
        fail("X", "at least one input", "an empty dict", "Pass the rows of each input by its name")
    if not isinstance(background, dict) or set(background) != set(X):
        given = list(background) if isinstance(background, dict) else type(background).__name__
        fail(
            "background",
            f"a dict with the inputs {', '.join(map(str, X))}",
            f"{given}",
            "Give both tables the same inputs",
        )
    feature_names = options["feature_names"]
    if feature_names is not None:
        if not isinstance(feature_names, dict) or not set(feature_names) <= set(names):
            fail(
                "feature_names",
                f"a dict from some of the inputs {', '.join(map(str, names))} to their names",
                repr(feature_names),
                "Give the names of each input under its own",
            )
        options["feature_names"] = tuple(feature_names.get(name) for name in names)
    tables = tuple(X.values()), tuple(background[name] for name in names)
    results = explain(ByName(model, names), *tables, **options)
    if options.get("layer") is not None:
        return results
    listed = results if isinstance(results, tuple) else (results,)
    return dict(zip(names, listed, strict=True))


class _Totals:
    """Sums over the background of what the blocks of pairs say.

    Attributes
    ----------
    out_rows, out_references : chosen outputs ``(K,)`` of each row, as blocks bring them.
    sums : attributions ``(N, *input, K)`` of each input, summed over references; None for an input
        without any.
    chosen : numbers of the outputs to explain.
    single : the result has no axis of outputs.
    units : non-linear calls between input and output.
    rounding_unit : of the dtype of the outputs.
    shared : as in the result's ``info``.
    """

    def __init__(self, n: int, n_references: int, swapped: bool, outputs: Any) -> None:
        self.n = n
        self.n_references = n_references
        self.swapped = swapped
        self.outputs = outputs
        self.out_rows: list[Any] = [None] * n
        self.out_references: list[Any] = [None] * n_references
        self.sums: list[Any] = []
        self.chosen: list[int] = []
        self.single = True
        self.units = 0
        self.rounding_unit = 0.0
        self.shared = 0.0

    def take(self, block: Block) -> None:
        """Add the pairs of a block, output by output."""
        has_axis = block.out_one.dim() == 1  # outputs (K,) of one row, not a single number
        if not self.chosen:
            self.chosen = chosen_outputs(self.outputs, block.out_one.shape[0] if has_axis else 1)
            self.single = not has_axis or isinstance(self.outputs, int | np.integer)
            self.units = block.steps
            self.rounding_unit = torch.finfo(block.out_one.dtype).eps
        looped = self.out_rows
        batched = self.out_references
        if self.swapped:
            looped, batched = batched, looped
        looped[block.one] = block.out_one.double().reshape(-1)[self.chosen].cpu()
        if batched[block.many.start] is None:  # each batch comes once for every looped row
            table = block.out_many.double().reshape(len(block.out_many), -1)
            batched[block.many] = table[:, self.chosen].cpu()
        for place, output in enumerate(self.chosen):
            seed = torch.zeros_like(block.out_many)  # weighs the outputs: 1 for this one
            own = seed[:, output] if has_axis else seed
            own.fill_(1)
            self._add(block, place, block.read(seed))
        self.shared = max(self.shared, block.shared())

    def _add(self, block: Block, place: int, attributions: list[Any]) -> None:
        """Add attributions ``(m, *input)`` of one output, for each input that has some."""
        if not self.sums:
            self.sums = [
                None if part is None else np.zeros((self.n, *part.shape[1:], len(self.chosen)))
                for part in attributions
            ]
        for total, part in zip(self.sums, attributions, strict=True):
            if part is None:
                continue
            if self.swapped:  # from the reference's side: the change is the other way
                total[block.many, ..., place] -= part.cpu().numpy()
            else:
                total[block.one, ..., place] += part.sum(0, dtype=torch.float64).cpu().numpy()

    def values(self, rows: tuple[Tensor, ...]) -> list[np.ndarray]:
        """Means over the background, ``(N, *input, K)`` for each input."""
        count = len(self.chosen)
        values = []
        for total, row in zip(self.sums, rows, strict=True):
            mean = (
                np.zeros((self.n, *row.shape[1:], count))
                if total is None
                else total / self.n_references
            )
            values.append(mean.reshape(self.n, 1, count) if mean.ndim == 2 else mean)
        return values


def chosen_outputs(outputs: Any, count: int) -> list[int]:
    """Numbers of the outputs to explain; negative ones count from the end."""
    if outputs is None:
        return list(range(count))
    listed = list(outputs) if isinstance(outputs, Iterable) else [outputs]
    valid = [
        isinstance(k, int | np.integer) and not isinstance(k, bool) and -count <= k < count
        for k in listed
    ]
    if not listed or not all(valid):
        fail(
            "outputs",
            f"indices of the {count} output(s)",
            repr(outputs),
            "Pass an index or a list of indices",
        )
    return [int(k) % count for k in listed]


def coarsest(model: Any, rows: tuple[Tensor, ...]) -> float:
    """The largest rounding unit among the inputs and the model's parameters."""
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
    kinds = {t.dtype for t in (*rows, *parameters) if t.is_floating_point()}
    return max((torch.finfo(kind).eps for kind in kinds), default=0.0)


def checked_gap(
    gap: np.ndarray,
    out: np.ndarray,
    out_references: np.ndarray,
    rounding: float,
    layer: str | None = None,
) -> np.ndarray:
    """The residual ``gap`` ``(N, K)`` as it is, or an error where it is more than rounding.

    Each output is judged by itself: a residual that is nothing beside a large output may be all of
    a small one. What counts is the change of output, not its size: a step that torch cannot see
    loses a share of the change. ``rounding`` is the outputs' relative error.
    """
    both = np.concatenate([out, out_references])
    rise = out.max(0) - out_references.min(0)
    change = np.maximum(rise, out_references.max(0) - out.min(0))
    worst = np.abs(gap).max(0)
    # Hidden values may be larger than the outputs they cancel to, and round accordingly; half
    # precision has no digits to spare for that. The factors leave room for networks of hundreds of
    # operations; a hidden step loses far more.
    floor = (64 if rounding < 1e-5 else 8) * rounding * np.abs(both).max(0)
    allowed = min(0.1, 10 * rounding**0.5) * change + floor
    refused = ~(worst <= allowed)  # NaN compares false
    if not refused.any():
        return gap
    output = int(np.argmax(refused))
    why = (
        "Some step is hidden from torch (another library, a mask made from the input) or mixes "
        "rows; rewrite it in torch operations on the input"
    )
    if layer is not None:
        why = (
            f"Part of the output does not pass through {layer!r}: a parallel branch bypasses it. "
            "Name a layer that everything passes through"
        )
    raise UnsupportedModelError(
        f"model: expected attributions that sum to the change of output, got a residual of "
        f"{worst[output]:.3g} where the output changes by up to {change[output]:.3g}. {why}."
    )
