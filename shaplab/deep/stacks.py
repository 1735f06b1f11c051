"""Shapley values through a series of models: network, then trees, then a function or a loss.

Stage after stage turns ``h`` into ``g(h)``. For one explained row and one reference row each stage
shares its own change of output among its inputs by its own method. If an input ``h_j`` of a stage
earned ``phi_j``, the stage before it passes ``phi_j / (h_j(x) - h_j(r))`` back as the multiplier of
its output ``j``:

    phi_i(x, r) = sum_j  phi_ij(x, r) * phi_j(x, r) / (h_j(x) - h_j(r)),

with ``phi_ij`` the attribution of output ``j`` to input ``i``. Only then is the mean over
references taken: a mean of products is not the product of means. A loss is a last stage with one
more argument, each row's own label.

Exactly additive; each stage is as exact as its method, the whole is an approximation of the
interventional game. Cost: all pairs of rows through every stage. Source: Chen, Lundberg and Lee
(2019), Figure 1d.

Needs: shaplab._losses, shaplab._parallel, shaplab._validation, shaplab.deep._codes,
shaplab.deep._facts, shaplab.deep._functions, shaplab.deep._inputs, shaplab.deep._operations,
shaplab.deep._pairs, shaplab.deep._path, shaplab.deep._recurrent, shaplab.deep._reveal,
shaplab.deep._shares, shaplab.deep._windows, shaplab.deep.deep_shap, shaplab.deep.graph,
shaplab.deep.kernels.units, shaplab.deep.kernels.windows, shaplab.deep.rules, shaplab.explanation,
shaplab.trees._arrange, shaplab.trees._encoding, shaplab.trees.conditional_expectation,
shaplab.trees.ensemble, shaplab.trees.interventional, shaplab.trees.kernels.patterns,
shaplab.trees.kernels.predict, shaplab.trees.kernels.quadrature, shaplab.trees.kernels.routes,
shaplab.trees.kernels.structure, shaplab.trees.kernels.tables, shaplab.trees.readers,
shaplab.trees.readers._lightgbm, shaplab.trees.readers._sklearn, shaplab.trees.readers._xgboost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shaplab._validation import (  # isort: skip
    UnsupportedModelError,
    check_callable,
    check_choice,
    check_frames,
    check_int,
    column_names,
    fail,
)
from shaplab._losses import check_target, get_loss
from shaplab._parallel import chunks, progress_bar
from shaplab.deep._pairs import Settings, pairs
from shaplab.deep.deep_shap import RULES, as_inputs, check_model
from shaplab.explanation import Explanation
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.interventional import interventional_tree_shap

__all__ = ["FunctionStage", "SplitStage", "pull_back", "stack_shap"]

_FLOATS = 2**24  # numbers held for all pairs of a chunk


def pull_back(phi: np.ndarray, f: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Multipliers of a stage's outputs from what the next stage credits to them.

    Parameters
    ----------
    phi : array ``(N, B, d)``, attributions of the next stage to its inputs, in units of the last
    output.
    f, b : arrays ``(N, d)`` and ``(B, d)``, these inputs for explained and reference rows.

    Returns
    -------
    array ``(N, B, d)``: ``phi / (f - b)`` and 0 where ``f = b``; ``phi`` is 0 there.

    Examples
    --------
    >>> pull_back(np.array([[[3.0, 0.0]]]), np.array([[2.0, 1.0]]), np.array([[0.5, 1.0]]))
    array([[[2., 0.]]])
    """
    step = f[:, None] - b[None]
    return np.divide(phi, step, out=np.zeros_like(phi), where=step != 0)


class NetworkStage:
    """A torch module, by DeepSHAP."""

    def __init__(self, model: Any, settings: Settings) -> None:
        check_model(model)
        self.model, self.settings = model, settings

    def __call__(self, X: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            parts = [
                self.model(*as_inputs(self.model, X[rows], "X"))
                for rows in chunks(len(X), self.settings.batch_size)
            ]
        return torch.cat(parts).double().cpu().numpy()

    def pull(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Attributions ``(N, B, *input)`` of ``weights (N, B, K)`` times the change of output."""
        swap = len(R) < len(X)
        loop, batch = (R, X) if swap else (X, R)
        result = np.zeros((len(X), len(R), *X.shape[1:]))
        for block in pairs(
            self.model,
            as_inputs(self.model, loop, "X"),
            as_inputs(self.model, batch, "X"),
            self.settings,
        ):
            seed = weights[block.many, block.one] if swap else weights[block.one, block.many]
            seed = seed if block.out_many.dim() == 2 else seed[:, 0]
            found = block.read(torch.as_tensor(seed, device=block.out_many.device))[0].cpu().numpy()
            if swap:
                result[block.many, block.one] = -found
            else:
                result[block.one, block.many] = found
        return result


class TreeStage:
    """A tree model's raw output, by interventional Tree SHAP against one reference row at a
    time."""

    def __init__(self, model: Any) -> None:
        self.trees: TreeEnsemble = as_ensemble(model)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.trees.predict(X), np.float64)

    def pull(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Attributions ``(N, B, d)``; exact for each pair of rows."""
        result = np.empty((len(X), len(R), X.shape[1]))
        swap = len(X) < len(R)  # phi(x, r) = -phi(r, x)
        for i in range(min(len(X), len(R))):
            one, many = (X[i : i + 1], R) if swap else (R[i : i + 1], X)
            phi = interventional_tree_shap(self.trees, many, one).values
            phi = phi.reshape(*phi.shape[:2], -1)
            if swap:
                result[i] = -(phi * weights[i][:, None]).sum(-1)
            else:
                result[:, i] = (phi * weights[:, i][:, None]).sum(-1)
        return result


@dataclass(frozen=True)
class FunctionStage:
    """A function with its own explainer.

    Parameters
    ----------
    function : callable ``(n, d) -> (n,)`` or ``(n, K)``.
    explainer : callable ``(X, reference) -> (n, d[, K])``, attributions of the rows ``X`` against
    one
        reference row ``(1, d)``; None for a function applied to each input by itself, output ``j``
        from input ``j``.
    """

    function: Callable[[np.ndarray], Any]
    explainer: Callable[[np.ndarray, np.ndarray], Any] | None = None

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.function(X), np.float64)

    def pull(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Attributions ``(N, B, d)``."""
        if self.explainer is None:
            change = _wide(self(X))[:, None] - _wide(self(R))[None]
            if change.shape[-1] != X.shape[1]:
                fail(
                    "stages",
                    "an explainer for a function that mixes inputs",
                    "None",
                    "Pass FunctionStage(function, explainer)",
                )
            return weights * change
        result = np.empty((len(X), len(R), X.shape[1]))
        for i, r in enumerate(R):
            phi = np.asarray(self.explainer(X, r[None]), np.float64).reshape(len(X), X.shape[1], -1)
            result[:, i] = (phi * weights[:, i][:, None]).sum(-1)
        return result


class SplitStage:
    """Stages side by side, each on its own group of columns; their outputs are joined in order.

    Parameters
    ----------
    parts : pairs ``(stage, columns)``; stage None passes its columns on unchanged.
    rule, max_rule : for networks among them, as in ``deep_shap``.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Any, Sequence[int]]],
        *,
        rule: str = "rescale",
        max_rule: str = "exact",
    ) -> None:
        self.parts = [
            (
                None if stage is None else as_stage(stage, Settings(rule, max_rule)),
                np.asarray(columns, dtype=int),
            )
            for stage, columns in parts
        ]

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return np.hstack(
            [
                X[:, columns] if stage is None else _wide(stage(X[:, columns]))
                for stage, columns in self.parts
            ]
        )

    def pull(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Attributions ``(N, B, d)``; a column that several parts read adds them up."""
        result, start = np.zeros((len(X), len(R), X.shape[1])), 0
        for stage, columns in self.parts:
            ours, theirs = X[:, columns], R[:, columns]
            width = len(columns) if stage is None else _wide(stage(ours[:1])).shape[1]
            mine = weights[..., start : start + width]
            part = (
                mine * (ours[:, None] - theirs[None])
                if stage is None
                else stage.pull(ours, theirs, mine)
            )
            for place, column in enumerate(columns):
                result[..., column] += part[..., place]
            start += width
        return result


def as_stage(stage: Any, settings: Settings) -> Any:
    """A stage as given, a torch module, a tree model, or a function of each input by itself."""
    if hasattr(stage, "pull") and callable(stage):
        return stage
    if isinstance(stage, torch.nn.Module):
        return NetworkStage(stage, settings)
    try:
        return TreeStage(stage)
    except (UnsupportedModelError, TypeError):
        if hasattr(stage, "predict") and not callable(stage):
            raise
    return FunctionStage(check_callable(stage, "stages"))


def _wide(values: np.ndarray) -> np.ndarray:
    return values[:, None] if values.ndim == 1 else values


@torch.inference_mode(False)
def stack_shap(
    stages: Sequence[Any],
    X: Any,
    background: Any,
    *,
    y: Any = None,
    loss: Any = None,
    rule: str = "rescale",
    max_rule: str = "exact",
    outputs: int | list[int] | None = None,
    groups: Sequence[Sequence[int]] | None = None,
    batch_size: int = 256,
    feature_names: Any = None,
    output_names: Any = None,
    progress: bool = False,
) -> Explanation:
    """Attributions of the output, or of the loss, of models in series.

    Parameters
    ----------
    stages : in order of use: torch modules, tree models (their raw output), ``FunctionStage``,
    ``SplitStage``,
        functions of each input by itself, or any object with ``__call__(X)`` and ``pull(X, R,
        weights)``.
    X : array or table ``(N, ...)``, rows to explain.
    background : ``(B, ...)``, reference rows; all are used, one by one.
    y : array ``(N,)``, the label of each explained row, with ``loss``.
    loss : ``"squared_error"``, ``"logistic"``, ``"softmax_cross_entropy"``, ``"cross_entropy"``, a
    ``Loss`` or a
        callable ``(output, y)``: explain the loss of the last stage's output.
    rule, max_rule : for networks, as in ``deep_shap``.
    outputs : index or indices of the last stage's outputs; None for all.
    groups : lists of input columns that are shown as one feature, the sum of their values.
    batch_size : rows of a network held in memory at once.
    feature_names, output_names : names for the result.
    progress : show a bar.

    Returns
    -------
    Explanation, ``values (N, ...[, K])``; the base value is the mean over references of the output,
    or of the loss of the reference's output against the explained row's label. ``info["gap"]``
    holds the additivity residual.

    Notes
    -----
    Each stage is explained for every pair of rows; multipliers are averaged after the last product.

    References
    ----------
    Chen, Lundberg and Lee (2019), Figure 1d.

    Examples
    --------
    >>> square = FunctionStage(lambda h: h**2)
    >>> halve = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.constant_(halve.weight, 0.5)
    >>> stack_shap([halve, square], [[2.0, 4.0]], [[0.0, 0.0]]).values
    array([[3., 6.]])
    """
    check_choice(rule, "rule", RULES)
    check_choice(max_rule, "max_rule", ("exact", "cross"))
    settings = Settings(rule, max_rule, None, check_int(batch_size, "batch_size"))
    if not isinstance(stages, Sequence) or len(stages) == 0:
        fail(
            "stages",
            "a list of at least one stage",
            stages,
            "Pass [network, trees], for example",
            TypeError,
        )
    series = [as_stage(stage, settings) for stage in stages]
    names = feature_names if feature_names is not None else column_names(X)
    check_frames(X, background)
    rows, references = (_array(part, name) for part, name in ((X, "X"), (background, "background")))
    if rows.shape[1:] != references.shape[1:]:
        fail(
            "background",
            f"rows of shape {rows.shape[1:]}, as X has",
            f"{references.shape[1:]}",
            "Give rows of the same kind",
        )
    if (loss is None) != (y is None):
        fail(
            "y" if y is None else "loss",
            "y together with loss",
            "one without the other",
            "Pass both or none",
        )
    ours, theirs = [rows], [references]
    for number, stage in enumerate(series):
        wanted = getattr(getattr(stage, "trees", None), "n_features", None)
        if wanted is not None and wanted != ours[-1].shape[1]:
            fail(
                "stages",
                f"{wanted} inputs at stage {number}",
                f"{ours[-1].shape[1]} outputs of the stage before it",
                "Check the order of the stages",
            )
        for acts, what in ((ours, "X"), (theirs, "background")):
            made = _wide(np.asarray(stage(acts[-1]), np.float64))
            if len(made) != len(acts[-1]) or not np.isfinite(made).all():
                fail(
                    "stages",
                    f"finite outputs (n, K) of stage {number} on {what}",
                    f"shape {made.shape} for {len(acts[-1])} rows",
                    "Check this stage by itself",
                )
            acts.append(made)
    count = ours[-1].shape[1]
    priced = None if loss is None else Priced(loss, y, ours[-1], theirs[-1])
    listed = (
        range(count)
        if outputs is None
        else ([outputs] if isinstance(outputs, int) else list(outputs))
    )
    chosen = [0] if priced else [int(k) for k in listed]
    if not priced and any(not 0 <= k < count for k in chosen):
        fail(
            "outputs", f"indices below {count}", repr(outputs), "Pass an index or a list of indices"
        )
    values = np.empty((*rows.shape, len(chosen)))
    widest = max(int(np.prod(acts.shape[1:])) for acts in ours)
    with progress_bar(len(rows), progress, "stack_shap") as bar:
        for part in chunks(len(rows), max(1, _FLOATS // (len(references) * widest))):
            for place, k in enumerate(chosen):
                weights = np.zeros((part.stop - part.start, len(references), count))
                weights[..., k] = 1.0
                weights = weights if priced is None else priced.multipliers(part)
                for depth in range(len(series) - 1, -1, -1):
                    f, b = ours[depth][part], theirs[depth]
                    phi = series[depth].pull(f, b, weights)
                    weights = pull_back(phi, f, b) if depth else weights
                values[part, ..., place] = phi.mean(1)
            bar.update(part.stop - part.start)
    made, base = ours[-1][:, chosen], np.tile(theirs[-1][:, chosen].mean(0), (len(rows), 1))
    if priced is not None:
        made, base = priced.ours[:, None], priced.theirs.mean(1)[:, None]
    gap = made - base - values.reshape(len(rows), -1, len(chosen)).sum(1)
    if groups is not None:
        values, names = (
            np.stack([values[:, list(group)].sum(1) for group in groups], axis=1),
            feature_names,
        )
    single = len(chosen) == 1 and (priced is not None or count == 1 or isinstance(outputs, int))
    data = rows if groups is None else None
    return Explanation(
        values[..., 0] if single else values,
        base[:, 0] if single else base,
        data,
        None if names is None else tuple(names),
        output_names,
        method=f"stack_shap, {rule}" + ("" if priced is None else f", loss {priced.loss.name}"),
        info={"gap": gap[:, 0] if single else gap},
    )


class Priced:
    """The loss as a last stage: multipliers of the outputs for each pair of rows, with the
    explained row's label."""

    def __init__(self, loss: Any, y: Any, f: np.ndarray, b: np.ndarray) -> None:
        self.loss = get_loss(loss)
        count = f.shape[1]
        self.y = check_target(y, len(f), self.loss, None if count == 1 else count)
        if count > 1 and not self.loss.classes:
            fail(
                "loss",
                f"a loss of {count} outputs",
                repr(self.loss.name),
                "Use softmax_cross_entropy or cross_entropy",
            )
        self.f, self.b = f, b
        self.ours = self._value(f, self.y)
        self.theirs = np.stack([self._value(np.tile(r, (len(f), 1)), self.y) for r in b], axis=1)

    def _value(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray(
            self.loss.value(outputs[:, 0] if outputs.shape[1] == 1 else outputs, y), np.float64
        )

    def multipliers(self, part: slice) -> np.ndarray:
        """``(n, B, K)``: Rescale of the loss; for softmax cross entropy, the rule of
        log(sum(exp))."""
        f, b, y = self.f[part], self.b, self.y[part]
        if f.shape[1] == 1:
            gain = self.ours[part, None] - self.theirs[part]
            step = f - b.T
            flat = (
                np.zeros_like(step)
                if self.loss.slope is None
                else np.broadcast_to(self.loss.slope(f[:, 0], y)[:, None], step.shape)
            )
            close = np.abs(step) <= 1e-9 * (1 + np.abs(f))
            return np.where(
                close, flat, np.divide(gain, step, out=np.zeros_like(step), where=step != 0)
            )[..., None]
        hot = np.arange(f.shape[1]) == y[:, None]
        if self.loss.name == "softmax_cross_entropy":
            shift = np.maximum(f.max(1)[:, None], b.max(1)[None])[..., None]
            up, low, step = (
                np.exp(f[:, None] - shift),
                np.exp(b[None] - shift),
                f[:, None] - b[None],
            )
            rise = np.where(
                step == 0,
                low,
                low * np.expm1(np.clip(step, None, 700)) / np.where(step == 0, 1, step),
            )
            ratio = (up.sum(-1, keepdims=True) - low.sum(-1, keepdims=True)) / low.sum(
                -1, keepdims=True
            )
            slope = np.where(
                ratio == 0, 1.0, np.log1p(ratio) / np.where(ratio == 0, 1, ratio)
            ) / low.sum(-1, keepdims=True)
            return rise * slope - hot[:, None]
        gain = (self.ours[part, None] - self.theirs[part])[..., None] * hot[:, None]
        return pull_back(gain, f, b)


def _array(X: Any, argument: str) -> np.ndarray:
    X = (
        X.detach().cpu().numpy()
        if hasattr(X, "detach")
        else (X.to_numpy() if hasattr(X, "to_numpy") else X)
    )
    table = np.asarray(X, dtype=None if getattr(X, "dtype", None) == np.float32 else np.float64)
    if table.ndim < 2 or len(table) == 0 or not np.isfinite(table).all():
        fail(argument, "finite numbers (n, ...)", X, "Pass a batch of rows without missing values")
    return table
