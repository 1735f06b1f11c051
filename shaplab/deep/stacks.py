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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from shaplab._groups import group_labels
from shaplab._losses import check_probabilities, check_target, get_loss, secant
from shaplab._parallel import chunks, progress_bar
from shaplab._validation import (
    UnsupportedModelError,
    check_callable,
    check_choice,
    check_frames,
    check_int,
    check_result,
    column_names,
    fail,
    row_labels,
)
from shaplab.deep._inputs import as_inputs, as_stage_rows, check_model
from shaplab.deep._pairs import Settings, pairs
from shaplab.deep.deep_shap import RULES
from shaplab.deep.rules import log_secant
from shaplab.explanation import Explanation
from shaplab.foundations.exact import shapley_coefficients
from shaplab.foundations.games import all_coalitions
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.interventional import interventional_tree_shap

__all__ = ["FunctionStage", "SplitStage", "pull_back", "stack_shap"]

_HELD = 2**24  # numbers held for all pairs of a chunk
_TRIED = 256  # mixed rows that tell what a function is
_MOST_MIXED = 10  # inputs of a function whose coalitions are all evaluated


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
        self.model = model
        self.settings = settings

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
        loop = as_inputs(self.model, R if swap else X, "X")
        batch = as_inputs(self.model, X if swap else R, "X")
        result = np.zeros((len(X), len(R), *X.shape[1:]))
        for block in pairs(self.model, loop, batch, self.settings):
            place = (block.many, block.one) if swap else (block.one, block.many)
            seed = weights[place]
            if block.out_many.dim() == 1:
                seed = seed[:, 0]
            credit = block.read(torch.as_tensor(seed, device=block.out_many.device))[0]
            result[place] = (-credit if swap else credit).cpu().numpy()
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
    """A function, with its own explainer or none.

    Parameters
    ----------
    function : callable ``(n, d) -> (n,)`` or ``(n, K)``.
    explainer : callable ``(X, reference) -> (n, d[, K])``, attributions of the rows ``X`` against
        one reference row ``(1, d)``. None finds out, on mixtures of explained and reference rows,
        what the function is: of each input by itself (output ``j`` from input ``j``), a sum of
        functions of single inputs (a projection, scaling), or one that mixes them, of at most ten
        inputs (a softmax, probabilities), whose coalitions are all evaluated. Each is exact.
    """

    function: Callable[[np.ndarray], Any]
    explainer: Callable[[np.ndarray, np.ndarray], Any] | None = None

    def __post_init__(self) -> None:
        check_callable(self.function, "function")
        if self.explainer is not None:
            check_callable(self.explainer, "explainer")

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return np.asarray(self.function(X), np.float64)

    def pull(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Attributions ``(N, B, d)``."""
        if self.explainer is None:
            explain = {"each": self._each, "sum": self._sum, "mixed": self._mixed}[self.kind(X, R)]
            return explain(X, R, weights)
        result = np.empty((len(X), len(R), X.shape[1]))
        for i, r in enumerate(R):
            phi = np.asarray(self.explainer(X, r[None]), np.float64).reshape(len(X), X.shape[1], -1)
            result[:, i] = (phi * weights[:, i][:, None]).sum(-1)
        return result

    def kind(self, X: np.ndarray, R: np.ndarray) -> str:
        """ "each", "sum" or "mixed": what mixtures of some explained and reference rows say."""
        rng = np.random.default_rng(0)
        count = min(_TRIED, len(X) * len(R))
        d = X.shape[1]
        f = X[rng.integers(len(X), size=count)]
        b = R[rng.integers(len(R), size=count)]
        ours = _as_columns(self(f))
        theirs = _as_columns(self(b))
        # Each output has a scale of its own.
        scale = np.maximum(np.abs(ours).max(axis=0), np.abs(theirs).max(axis=0))
        mask = rng.random((count, d)) < 0.5
        mixed = _as_columns(self(np.where(mask, f, b)))

        def same(one: np.ndarray, other: np.ndarray) -> bool:
            # Single-precision functions round at some 1e-7 of their scale.
            return bool((np.abs(one - other) <= 1e-5 * scale).all())

        if ours.shape[1] == d and same(np.where(mask, ours, theirs), mixed):
            return "each"
        alone = [_as_columns(self(np.where(np.arange(d) == i, f, b))) for i in range(d)]
        steps = np.stack(alone, axis=1) - theirs[:, None]
        present = theirs + (steps * mask[:, :, None]).sum(axis=1)
        if same(theirs + steps.sum(axis=1), ours) and same(present, mixed):
            return "sum"
        if d > _MOST_MIXED:
            fail(
                "stages",
                f"a function of each input by itself, a sum of such, or one of at most "
                f"{_MOST_MIXED} inputs that mixes them",
                f"one that mixes {d} inputs",
                "Say how to explain it: FunctionStage(function, explainer), for example with "
                "explainer=lambda X, r: permutation_shap(function, X, r, rng=0).values",
            )
        return "mixed"

    def _each(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return weights * (_as_columns(self(X))[:, None] - _as_columns(self(R))[None])

    def _sum(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        result = np.empty((len(X), len(R), X.shape[1]))
        for i, r in enumerate(R):
            start = _as_columns(self(r[None]))
            for j in range(X.shape[1]):
                step = _as_columns(self(np.where(np.arange(len(r)) == j, X, r))) - start
                result[:, i, j] = (step * weights[:, i]).sum(-1)
        return result

    def _mixed(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        S = all_coalitions(X.shape[1])
        share = shapley_coefficients(S)
        result = np.empty((len(X), len(R), X.shape[1]))
        for i, r in enumerate(R):
            for rows in chunks(len(X), max(1, _HELD // S.size)):
                table = np.where(S, X[rows][:, None], r).reshape(-1, X.shape[1])
                game = _as_columns(self(table)).reshape(rows.stop - rows.start, len(S), -1)
                result[rows, i] = (game * weights[rows, i][:, None]).sum(-1) @ share.T
        return result


class SplitStage:
    """Stages side by side, each on its own group of columns; their outputs are joined in order.

    Parameters
    ----------
    parts : pairs ``(stage, columns)``, columns by number or as a mask; stage None passes its
        columns on unchanged.
    rule, max_rule : for networks among them, as in ``deep_shap``.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Any, Sequence[int]]],
        *,
        rule: str = "rescale",
        max_rule: str = "exact",
    ) -> None:
        listed = isinstance(parts, Sequence) and len(parts) > 0
        if not listed or any(not isinstance(p, tuple | list) or len(p) != 2 for p in parts):
            fail(
                "parts",
                "a list of pairs (stage, columns)",
                parts,
                "Write [(stage, [0, 1]), (None, [2])]",
                TypeError,
            )
        settings = Settings(rule, max_rule)
        self.parts = [
            (None if stage is None else as_stage(stage, settings), _column_numbers(columns))
            for stage, columns in parts
        ]
        masks = [len(mask) for _, mask in parts if np.asarray(mask).dtype == bool]
        self._width = masks[0] if masks else None
        if any(width != self._width for width in masks):
            fail("parts", "masks of one length", f"lengths {masks}", "Mask the columns of one X")

    def __call__(self, X: np.ndarray) -> np.ndarray:
        last = max(int(columns.max()) for _, columns in self.parts)
        if last >= X.shape[1] or self._width not in (None, X.shape[1]):
            fail(
                "parts",
                f"columns of the {X.shape[1]} inputs of this stage",
                f"column {last}" if last >= X.shape[1] else f"masks of length {self._width}",
                "Count columns from 0, or give masks as long as there are inputs",
            )
        return np.hstack(
            [
                X[:, columns] if stage is None else _as_columns(stage(X[:, columns]))
                for stage, columns in self.parts
            ]
        )

    def pull(self, X: np.ndarray, R: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Attributions ``(N, B, d)``; a column that several parts read adds them up."""
        result = np.zeros((len(X), len(R), X.shape[1]))
        start = 0
        for stage, columns in self.parts:
            ours = X[:, columns]
            theirs = R[:, columns]
            width = len(columns) if stage is None else _as_columns(stage(ours[:1])).shape[1]
            own = weights[..., start : start + width]
            start += width
            if stage is None:
                part = own * (ours[:, None] - theirs[None])
            else:
                part = stage.pull(ours, theirs, own)
            for place, column in enumerate(columns):
                result[..., column] += part[..., place]
        return result


def _column_numbers(columns: Any) -> np.ndarray:
    """Numbers of columns, from numbers or from a mask."""
    given = np.asarray(columns)
    if given.dtype == bool and given.ndim == 1 and given.any():
        return np.flatnonzero(given)
    if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu" or given.min() < 0:
        fail(
            "parts",
            "for each stage a list of column numbers from 0, or a mask with some True",
            columns,
            "Write (stage, [0, 1, 2])",
        )
    return given.astype(int)


def as_stage(stage: Any, settings: Settings) -> Any:
    """A stage as given, a torch module, a tree model, or a function."""
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


def _as_columns(values: np.ndarray) -> np.ndarray:
    """One column for one number a row."""
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
    outputs: Any = None,
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
        ``SplitStage``, functions of numbers (see ``FunctionStage``), or any object with
        ``__call__(X)`` and ``pull(X, R, weights)``.
    X : array or table ``(N, ...)``, rows to explain.
    background : ``(B, ...)``, reference rows; all are used, one by one.
    y : array ``(N,)``, the label of each explained row, with ``loss``.
    loss : ``"squared_error"``, ``"logistic"``, ``"softmax_cross_entropy"``, ``"cross_entropy"``, a
        ``Loss`` or a callable ``(output, y)``: explain the loss of the last stage's output.
    rule, max_rule : for networks, as in ``deep_shap``.
    outputs : index or indices of the last stage's outputs, or their names; None for all.
    groups : lists of input columns that are shown as one feature, the sum of their values; each
        column in exactly one.
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
    rows = as_stage_rows(X, "X")
    references = as_stage_rows(background, "background")
    if rows.shape[1:] != references.shape[1:]:
        fail(
            "background",
            f"rows of shape {rows.shape[1:]}, as X has",
            f"{references.shape[1:]}",
            "Give rows of the same kind",
        )
    if groups is not None:
        label, titles = group_labels(groups, rows.shape[1], column_names(X))
    if (loss is None) != (y is None):
        fail(
            "y" if y is None else "loss",
            "y together with loss",
            "one without the other",
            "Pass both or none",
        )
    seen = _forward(series, rows, references)
    priced = None if loss is None else LossOfStack(loss, y, seen.ours[-1], seen.theirs[-1])
    chosen = [0] if priced else _named_outputs(outputs, seen.count, output_names)
    with progress_bar(len(rows), progress, "stack_shap") as bar:
        values = _attributions(series, seen, priced, chosen, bar)
    check_result(values, column_names(X), "stages")
    if priced is None:
        made = seen.ours[-1][:, chosen]
        base = np.tile(seen.theirs[-1][:, chosen].mean(0), (len(rows), 1))
    else:
        made = priced.ours[:, None]
        base = priced.theirs.mean(1)[:, None]
    gap = made - base - values.reshape(len(rows), -1, len(chosen)).sum(1)
    if groups is not None:
        values = np.stack([values[:, label == g].sum(1) for g in range(len(titles))], axis=1)
        names = titles if feature_names is None else feature_names
    one = isinstance(outputs, str | int | np.integer)
    single = len(chosen) == 1 and (priced is not None or seen.count == 1 or one)
    if priced is None and output_names is not None and outputs is not None:
        output_names = None if single else [list(output_names)[k] for k in chosen]
    return Explanation(
        values[..., 0] if single else values,
        base[:, 0] if single else base,
        rows if groups is None else None,
        None if names is None else tuple(names),
        output_names,
        method=f"stack_shap, {rule}" + ("" if priced is None else f", loss {priced.loss.name}"),
        info={"gap": gap[:, 0] if single else gap},
        index=row_labels(X),
    )


@dataclass(frozen=True)
class _Activations:
    """What goes into each stage, and what comes out last, for explained and reference rows."""

    ours: list[np.ndarray]
    theirs: list[np.ndarray]

    @property
    def count(self) -> int:
        """Outputs of the last stage."""
        return self.ours[-1].shape[1]

    def rows_at_once(self) -> int:
        """Explained rows whose pairs with all references fit into memory at every stage."""
        widest = max(int(np.prod(acts.shape[1:])) for acts in self.ours)
        return max(1, _HELD // (len(self.theirs[0]) * widest))


def _attributions(
    series: Sequence[Any],
    seen: _Activations,
    priced: LossOfStack | None,
    chosen: list[int],
    bar: Any,
) -> np.ndarray:
    """Values ``(N, *input, K)``: back through the stages for each pair of rows, then the mean."""
    rows = seen.ours[0]
    values = np.empty((*rows.shape, len(chosen)))
    for part in chunks(len(rows), seen.rows_at_once()):
        for place, output in enumerate(chosen):
            if priced is None:
                weights = np.zeros((part.stop - part.start, len(seen.theirs[0]), seen.count))
                weights[..., output] = 1.0
            else:
                weights = priced.multipliers(part)
            for depth in range(len(series) - 1, -1, -1):
                f = seen.ours[depth][part]
                b = seen.theirs[depth]
                phi = series[depth].pull(f, b, weights)
                if depth:
                    weights = pull_back(phi, f, b)
            values[part, ..., place] = phi.mean(1)
        bar.update(part.stop - part.start)
    return values


def _forward(series: Sequence[Any], rows: np.ndarray, references: np.ndarray) -> _Activations:
    """Run all stages on both tables, checking what they hand on."""
    ours = [rows]
    theirs = [references]
    for number, stage in enumerate(series):
        wanted = getattr(getattr(stage, "trees", None), "n_columns", None)
        if wanted is not None and wanted != ours[-1].shape[1]:
            fail(
                "stages",
                f"{wanted} inputs at stage {number}",
                f"{ours[-1].shape[1]} outputs of the stage before it",
                "Check the order of the stages",
            )
        for acts, what in ((ours, "X"), (theirs, "background")):
            made = _as_columns(np.asarray(stage(acts[-1]), np.float64))
            if len(made) != len(acts[-1]) or not np.isfinite(made).all():
                fail(
                    "stages",
                    f"finite outputs (n, K) of stage {number} on {what}",
                    f"shape {made.shape} for {len(acts[-1])} rows",
                    "Check this stage by itself",
                )
            acts.append(made)
    return _Activations(ours, theirs)


def _named_outputs(outputs: Any, count: int, names: Any) -> list[int]:
    """Numbers of the outputs to explain, given as one or several numbers or names."""
    if outputs is None:
        return list(range(count))
    known = [] if names is None else [str(name) for name in names]
    if isinstance(outputs, str | int | np.integer):
        listed: list[Any] = [outputs]
    else:
        listed = list(np.ravel(np.asarray(outputs)).tolist())
    chosen = [known.index(part) if part in known else part for part in listed]
    for part in chosen:
        number = isinstance(part, int | np.integer) and not isinstance(part, bool)
        if not number or not 0 <= part < count:
            fail(
                "outputs",
                f"indices from 0 to {count - 1}" + (" or names" if known else ""),
                repr(outputs),
                "Pass an index or a list of indices",
            )
    if not chosen:
        fail("outputs", "at least one index", repr(outputs), "Leave it out for all outputs")
    return [int(part) for part in chosen]


class LossOfStack:
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
        for made in (f, b):
            check_probabilities(made if count > 1 else made[:, 0], self.loss, classes=count > 1)
        self.f = f
        self.b = b
        self.ours = self._value(f, self.y)
        self.theirs = np.stack([self._value(np.tile(r, (len(f), 1)), self.y) for r in b], axis=1)

    def _value(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        if outputs.shape[1] == 1:
            outputs = outputs[:, 0]
        return np.asarray(self.loss.value(outputs, y), np.float64)

    def multipliers(self, part: slice) -> np.ndarray:
        """``(n, B, K)``: Rescale of the loss; for softmax cross entropy, the rule of
        log(sum(exp))."""
        f = self.f[part]
        b = self.b
        y = self.y[part]
        if f.shape[1] == 1:
            return secant(self.loss, f.T, b, y).T[..., None]
        label = np.arange(f.shape[1]) == y[:, None]
        if self.loss.name == "softmax_cross_entropy":
            return _weights_of_log_sum(f, b) - label[:, None]
        gain = (self.ours[part, None] - self.theirs[part])[..., None] * label[:, None]
        return pull_back(gain, f, b)


def _weights_of_log_sum(f: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much the exponential of one output moves against their sum, both over their path,
    ``(n, B, K)``; in logarithms, as outputs may lie hundreds apart. Never above 1."""
    logits_f = torch.from_numpy(f)
    logits_b = torch.from_numpy(b)
    top, steep = log_secant(logits_f[:, None], logits_b[None])
    totals = torch.logsumexp(logits_f, -1)[:, None], torch.logsumexp(logits_b, -1)[None]
    top_of_sum, steep_of_sum = log_secant(*totals)
    # Large parts first: they may be equal, and lose the digits of the small ones.
    log_share = (top - top_of_sum[..., None]) + (steep - steep_of_sum[..., None])
    return torch.exp(log_share).numpy()
