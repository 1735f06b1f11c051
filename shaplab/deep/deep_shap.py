"""DeepSHAP: attributions of any torch network, propagated rule by rule and averaged over a background.

For an explained row ``x`` and a reference row ``r`` every non-linear operation sees two inputs, ``f`` and
``b``, and turns the multiplier of its output into multipliers of its inputs (``rules``); autograd does the
linear operations between them. Then ``phi_i(x, r) = M_i (x_i - r_i)``, which sums to
``model(x) - model(r)``, and by Theorem 1 ``phi_i(x)`` is the mean over all background rows.

One run of the model on explained rows stores the inputs of its non-linear units. One run on the background
builds a graph in which each unit is a ``torch.autograd.Function`` whose backward pass looks up one explained
row. One backward pass through it for each explained row and output gives its multipliers against all
background rows. Multipliers are symmetric in ``x`` and ``r``, so the shorter of the two is looped over.

Approximate for the interventional game, except for linear networks, single units, products and maxima;
exactly additive always. Cost: ``N + B`` rows forward, ``N B K`` rows backward; memory of ``batch_size``
rows of activations, twice. Source: Chen, Lundberg and Lee (2019), "Propagating Shapley values".

Needs: shaplab._validation, shaplab._parallel, shaplab.explanation, shaplab.deep.graph, shaplab.deep.rules,
shaplab.deep.recurrent, shaplab.deep.reveal, shaplab.deep.operations, shaplab.deep.kernels.windows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from shaplab._parallel import chunks, progress_bar
from shaplab._validation import UnsupportedModelError, check_choice, check_int, column_names, fail
from shaplab.deep.graph import Capture
from shaplab.deep.operations import HANDLERS, affine_of
from shaplab.explanation import Explanation

__all__ = ["deep_shap"]

RULES = ("rescale", "reveal_cancel", "reveal_cancel_mean")
_INPUT = 2**40  # entries of integer input i are numbered from i * _INPUT
_FOLDED = -2  # rows are mixed with another axis: look-up by row number is not possible


@dataclass
class Unit:
    """One call of a non-linear operation: what it saw, and the rule that reads it."""

    run: Run
    values: list[torch.Tensor]
    rule: Any
    axes: list[int] = field(default_factory=list)
    twin: Unit | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def back(self, q: torch.Tensor) -> list[torch.Tensor]:
        f = [self.run.look_up(value, axis) for value, axis in zip(self.twin.values, self.axes, strict=True)]  # type: ignore[union-attr]
        b = self.values
        if q.dtype in (torch.bfloat16, torch.float16):  # too few digits for differences
            f, b = [t.float() for t in f], [t.float() for t in b]
            return [m.to(q.dtype) for m in self.rule(f, b, q.float(), self.kept)]
        return self.rule(f, b, q, self.kept)


class _Through(torch.autograd.Function):
    """Identity on a unit's output whose backward pass asks the unit."""

    @staticmethod
    def forward(ctx: Any, unit: Unit, out: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        ctx.unit, ctx.shapes = unit, [value.shape for value in inputs]
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *q: torch.Tensor) -> Any:
        found = ctx.unit.back(q[0])
        return None, None, *(m.sum_to_size(shape) for m, shape in zip(found, ctx.shapes, strict=True))


@dataclass
class Source:
    """A tensor that attributions are read at; ``entry`` says which input entry each value belongs to."""

    value: torch.Tensor
    input: int
    entry: torch.Tensor | None = None
    axis: int = 0


class Run(Capture):
    """One run of the model on a batch of rows; ``twin`` is the run whose rows are looked up."""

    def __init__(self, model: Any, rule: str, max_rule: str, layer: str | None, rows: int, twin: Run | None = None) -> None:
        super().__init__(model, HANDLERS)
        self.rule, self.max_rule, self.layer, self.rows, self.twin = rule, max_rule, layer, rows, twin
        self.units: list[Unit] = []
        self.sources: list[Source] = []
        self.decisions: list[tuple[str, Any]] = []
        self.affine: dict[int, Any] = {}
        self.stored: dict[int, list[tuple[Unit, int]]] = {}
        self.kept_alive: list[torch.Tensor] = []
        self.outputs = 1
        self.fused = 0
        self.row = 0
        self.folded = False

    # Running

    def __call__(self, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        given = []
        for i, value in enumerate(inputs):
            if value.is_floating_point():
                start = self.leaf(value)
                if self.layer is None:
                    self.add(Source(start, i))
                with torch.enable_grad():
                    given.append(start.clone())
            else:
                copy = value.clone()
                entry = torch.arange(copy.numel(), device=copy.device).reshape(copy.shape)
                self.positions[id(copy)] = (copy, entry + i * _INPUT)
                given.append(copy)
        hook = _listen(self) if self.layer is not None else None
        try:
            with torch.compiler.set_stance("force_eager"), torch.inference_mode(False), torch.enable_grad(), self:
                out = self.model(*given)
        finally:
            if hook is not None:
                hook.remove()
        if self.twin is not None and len(self.units) != len(self.twin.units):
            fail("model", "the same operations for every row", f"{len(self.twin.units)} and {len(self.units)} non-linear calls",
                 "Its control flow depends on the input; explain rows that take the same path", UnsupportedModelError)
        if self.layer is not None and not self.sources:
            fail("layer", "the name of a module that the model calls", repr(self.layer),
                 "See dict(model.named_modules())")
        return self._checked(out)

    def _checked(self, out: Any) -> torch.Tensor:
        if not isinstance(out, torch.Tensor) or out.dim() not in (1, 2) or out.shape[0] != self.rows:
            shown = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            fail("model", f"one tensor of shape ({self.rows},) or ({self.rows}, K) for {self.rows} rows", str(shown),
                 "Wrap the model so that it returns one row of outputs for each row of input")
        if not torch.isfinite(out).all():
            fail("model", "finite outputs", "NaN or infinity", "Check the inputs and weights")
        out = out[:, 0] if out.dim() == 2 and out.shape[1] == 1 else out
        self.outputs = 1 if out.dim() == 1 else out.shape[1]
        return out

    # What the capture asks for

    def unit(self, inputs: list[torch.Tensor], out: torch.Tensor, rule: Any, others: tuple[torch.Tensor, ...] = ()) -> torch.Tensor:
        """Record a non-linear unit; ``others`` are stored with its inputs for the rule to look up."""
        values = [value.detach() for value in (*inputs, *others)]
        unit = Unit(self, values, rule)
        if self.twin is not None:
            twin = self.twin.units[len(self.units)] if len(self.units) < len(self.twin.units) else None
            if twin is None or len(twin.values) != len(values):
                self.refuse("forward", "other rows take another path through the model")
            unit.twin = twin
            unit.axes = [self.axis(theirs.shape, ours.shape) for theirs, ours in zip(twin.values, values, strict=True)]
        self.units.append(unit)
        for place, value in enumerate(values):
            self.stored.setdefault(value.untyped_storage().data_ptr(), []).append((unit, place))
        return _Through.apply(unit, out, *inputs)

    def writing(self, target: torch.Tensor) -> None:
        self.affine.pop(id(target), None)
        if target.device.type != "meta":
            for unit, place in self.stored.pop(target.untyped_storage().data_ptr(), ()):
                unit.values[place] = unit.values[place].clone()

    def linear(self, name: str, func: Any, args: Any, kwargs: Any, found: list[torch.Tensor]) -> Any:
        result = func(*args, **kwargs)
        if self.rule != "rescale":
            affine = affine_of(self, name, func, args, kwargs)
            if affine is not None:
                self.affine[id(result)] = affine
                self.kept_alive.append(result)  # an id is only a name while its tensor lives
        return result

    def decide(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        value: Any = result
        if isinstance(result, torch.Tensor):
            if result.numel() and not bool((result == result.reshape(-1)[0]).all()):
                self.refuse(name, "it depends on the input and differs between rows or entries")
            value = result.reshape(-1)[0].item() if result.numel() else None
        if self.twin is not None:
            seen = self.twin.decisions[len(self.decisions)] if len(self.decisions) < len(self.twin.decisions) else None
            if seen != (name, value):
                self.refuse(name, "it depends on the input and differs between explained and background rows")
        self.decisions.append((name, value))
        return result

    def embedded(self, func: Any, args: Any, kwargs: Any, positions: torch.Tensor) -> Any:
        table = func(*args, **kwargs)
        start = self.leaf(table)
        if self.layer is None:
            self.add(Source(start, int(positions.reshape(-1)[0]) // _INPUT, positions % _INPUT))
        with torch.enable_grad():
            return start.clone()

    def add(self, source: Source) -> None:
        if self.twin is not None:
            source.axis = self.axis(self.twin.sources[len(self.sources)].value.shape, source.value.shape)
        self.sources.append(source)

    # Finding the explained row

    def axis(self, theirs: torch.Size, ours: torch.Size) -> int:
        """The axis of rows: the one whose size is the number of rows in both runs; -1 when there is none."""
        if theirs == ours:
            return -1
        n, m = self.twin.rows, self.rows  # type: ignore[union-attr]
        differ = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
        if len(theirs) != len(ours) or len(differ) != 1:
            self.refuse("reshape", f"shapes {tuple(theirs)} and {tuple(ours)} for {n} and {m} rows do not keep rows apart")
        if theirs[differ[0]] == n and ours[differ[0]] == m:
            return differ[0]
        self.folded = True
        return _FOLDED

    def look_up(self, value: torch.Tensor, axis: int) -> torch.Tensor:
        return value if axis < 0 else value.narrow(axis, self.row, 1)


def _listen(run: Run) -> Any:
    """Keep the output of the named module: torch's hook for all modules, in this thread, until it is removed."""
    name, _, count = str(run.layer).partition(":")
    modules = dict(run.model.named_modules())
    if name not in modules:
        fail("layer", "the name of a module of the model", repr(run.layer), f"Pass one of {', '.join(list(modules)[1:9])}")
    target, thread, calls = modules[name], threading.get_ident(), [0]
    def hook(module: Any, inputs: Any, output: Any) -> Any:
        if module is not target or threading.get_ident() != thread or not isinstance(output, torch.Tensor):
            return None
        calls[0] += 1
        if calls[0] - 1 != int(count or 0):
            return None
        kept = output.clone()
        run.add(Source(kept, 0))
        return kept.clone()
    return torch.nn.modules.module.register_module_forward_hook(hook)


# Pairs of rows


@dataclass(frozen=True)
class Settings:
    """How to propagate: see ``deep_shap``."""

    rule: str = "rescale"
    max_rule: str = "exact"
    layer: str | None = None
    batch_size: int = 256


@dataclass
class Block:
    """Row ``one`` of the looped table against rows ``many`` of the other; outputs ``(K,)`` and ``(m, K)``."""

    one: int
    many: slice
    out_one: torch.Tensor
    out_many: torch.Tensor
    read: Callable[[torch.Tensor], list[torch.Tensor]]


def _padded(table: tuple[torch.Tensor, ...], rows: slice, size: int) -> tuple[torch.Tensor, ...]:
    """Rows of every input, the first repeated until there are ``size``."""
    found = []
    for value in table:
        part = value[rows]
        extra = size - part.shape[0]
        found.append(torch.cat([part, part[:1].expand(extra, *part.shape[1:])]) if extra > 0 else part)
    return tuple(found)


def pairs(model: Any, loop: tuple[torch.Tensor, ...], batch: tuple[torch.Tensor, ...], settings: Settings) -> Iterator[Block]:
    """Every pair of rows of two tables, as blocks of one row against many.

    ``Block.read(seed)`` takes weights of the outputs, ``(m, K)`` or ``(m,)``, and returns, for each input,
    attributions of ``seed * (model(one) - model(many))`` with shape ``(m, *input)``. Runs are padded to at
    least two rows and to different numbers of rows, so that the axis of rows can be told by its size.
    """
    def start(table: tuple[torch.Tensor, ...], twin: Run | None = None) -> tuple[Run, torch.Tensor]:
        run = Run(model, settings.rule, settings.max_rule, settings.layer, table[0].shape[0], twin)
        return run, run(table)
    for outer in chunks(loop[0].shape[0], settings.batch_size):
        count = outer.stop - outer.start
        sizes = {max(2, part.stop - part.start) for part in chunks(batch[0].shape[0], settings.batch_size)}
        size = max(2, count)
        while size in sizes:
            size += 1
        first, out_first = start(_padded(loop, outer, size))
        for inner in chunks(batch[0].shape[0], settings.batch_size):
            m = inner.stop - inner.start
            width = max(2, m)
            many = _padded(batch, inner, width)
            run, out = start(many, first)
            for i in range(count):
                if run.folded:
                    alone = tuple(value[i + outer.start: i + outer.start + 1].expand(width, *value.shape[1:]) for value in loop)
                    tiled, _ = start(alone)
                    for unit, twin in zip(run.units, tiled.units, strict=True):
                        unit.twin, unit.axes = twin, [-1] * len(unit.values)
                    for source, twin_source in zip(run.sources, tiled.sources, strict=True):
                        source.axis = -1
                    sources = tiled.sources
                else:
                    sources = first.sources
                run.row = i
                yield Block(outer.start + i, inner, out_first[i].detach(), out[:m].detach(),
                            _reader(run, sources, out, m, tuple(value.shape for value in many)))


def _reader(run: Run, sources: list[Source], out: torch.Tensor, m: int, shapes: tuple[torch.Size, ...]) -> Any:
    def read(seed: torch.Tensor) -> list[torch.Tensor]:
        full = torch.zeros_like(out)
        full[:m] = seed.to(out.dtype)
        grads: Any = [None] * len(run.sources)
        if out.requires_grad:
            grads = torch.autograd.grad(out, [source.value for source in run.sources], full, retain_graph=True, allow_unused=True)
        found: list[Any] = [None] * len(shapes)
        for source, theirs, grad in zip(run.sources, sources, grads, strict=True):
            if grad is None:
                continue
            f = run.look_up(theirs.value, source.axis).detach().double()
            credit = grad.double() * (f - source.value.detach().double())
            if source.entry is not None:
                total = torch.zeros(shapes[source.input].numel(), dtype=credit.dtype, device=credit.device)
                total.index_add_(0, source.entry.reshape(-1), credit.sum(-1).reshape(-1))
                credit = total.reshape(shapes[source.input])
            found[source.input] = credit if found[source.input] is None else found[source.input] + credit
        return [None if part is None else part[:m] for part in found]
    return read


# The public function


def as_inputs(model: Any, X: Any, argument: str, like: tuple[torch.Tensor, ...] | None = None) -> tuple[torch.Tensor, ...]:
    """Tensors of a model's inputs: arrays and tables take its dtype and device, tensors must have them."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None) if isinstance(model, torch.nn.Module) else None
    found = []
    for value in X if isinstance(X, tuple | list) else (X,):
        if isinstance(value, torch.Tensor):
            tensor = value.detach()
        else:
            array = value.to_numpy() if hasattr(value, "to_numpy") else np.asarray(value)
            if array.dtype.kind not in "biuf":
                fail(argument, "numbers", f"dtype {array.dtype}", "Encode text and objects as numbers first", TypeError)
            tensor = torch.tensor(array)
            if tensor.is_floating_point() and first is not None:
                tensor = tensor.to(dtype=first.dtype)
            tensor = tensor if first is None else tensor.to(first.device)
        if tensor.dim() < 1 or tensor.shape[0] == 0:
            fail(argument, "at least one row, rows along the first axis", f"shape {tuple(tensor.shape)}", "Pass a non-empty batch")
        if tensor.is_floating_point():
            if first is not None and (tensor.dtype != first.dtype or tensor.device != first.device):
                fail(argument, f"dtype {first.dtype} on {first.device}, as the model has", f"{tensor.dtype} on {tensor.device}",
                     f"Convert it: {argument}.to({str(first.device)!r}, {first.dtype})")
            if not torch.isfinite(tensor).all():
                fail(argument, "finite numbers", "NaN or infinity", "Impute or drop missing values first")
        found.append(tensor)
    if any(value.shape[0] != found[0].shape[0] for value in found):
        fail(argument, "the same number of rows in every input", str([value.shape[0] for value in found]), "Align the inputs")
    for i, value in enumerate(like or ()):
        if len(found) != len(like or ()) or found[i].shape[1:] != value.shape[1:] or found[i].dtype != value.dtype:
            fail(argument, f"inputs of shape (B, *{tuple(value.shape[1:])}) and dtype {value.dtype}, as X has",
                 f"{len(found)} input(s), shape {tuple(found[min(i, len(found) - 1)].shape)} and dtype {found[min(i, len(found) - 1)].dtype}",
                 "Give rows of the same kind")
    return tuple(found)


def check_model(model: Any) -> None:
    """Refuse what cannot be watched or would change while it is watched."""
    if not isinstance(model, torch.nn.Module):
        if callable(model):
            return
        fail("model", "a torch.nn.Module or a function of tensors", model, "Pass the network itself", TypeError)
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise UnsupportedModelError(f"model: expected eager modules, got a ScriptModule at {name!r}. Pass the original module.")
        active = isinstance(part, torch.nn.modules.dropout._DropoutNd) and part.p > 0
        if part.training and (active or isinstance(part, torch.nn.modules.batchnorm._NormBase) and part.track_running_stats):
            fail("model", "evaluation mode", f"{type(part).__name__} {name!r} in training mode", "Call model.eval() first")


def deep_shap(
    model: Any, X: Any, background: Any, *, rule: str = "rescale", max_rule: str = "exact",
    outputs: int | list[int] | None = None, layer: str | None = None, batch_size: int = 256,
    feature_names: Any = None, output_names: Any = None, progress: bool = False,
) -> Explanation | tuple[Explanation, ...]:
    """Attributions of a network's outputs to its inputs, averaged over a background.

    Parameters
    ----------
    model : torch.nn.Module in evaluation mode, or function of tensors; rows along the first axis of every
        input; output ``(N,)`` or ``(N, K)``.
    X : tensor, array or DataFrame ``(N, ...)``, rows to explain; a tuple for several inputs. Integer inputs
        are explained at the embedding that reads them.
    background : like ``X``, ``(B, ...)``, reference rows. All are used.
    rule : ``"rescale"``, ``"reveal_cancel"`` or ``"reveal_cancel_mean"``. The latter two see a linear or
        convolution layer (and a BatchNorm after it) together with the function it feeds; elsewhere Rescale.
    max_rule : ``"exact"``, Shapley values of each window's maximum, or ``"cross"``, the cheap rule that credits
        one input of a window.
    outputs : index or list of indices of the outputs to explain; None for all.
    layer : name of a module: attributions to its output instead of the input; ``"name:1"`` for its second call.
    batch_size : rows of each table held in memory at once.
    feature_names, output_names : names for the result.
    progress : show a progress bar.

    Returns
    -------
    Explanation
        ``values`` has the shape of ``X``, and a last axis exactly when several outputs are explained, in
        units of the output. ``base_values`` is the mean output over the background. ``info["gap"]`` is
        the additivity residual of each row, ``(N,)`` or ``(N, K)``. A tuple, one for each of several inputs; then
        ``rest`` of each holds the others' sums.

    Raises
    ------
    UnsupportedModelError
        For operations without a rule, by name and place, and when the residual is more than rounding.
    ValueError
        For bad arguments, such as a model in training mode.

    Notes
    -----
    Approximates the interventional game (features outside a coalition take background values); exact for
    linear networks and for single units. ``N + B`` forward rows, ``N * B * K`` backward rows. The model, its
    gradients, flags and the random state are not touched.

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
            for at, value in zip(range(block.many.start, block.many.stop), block.out_many, strict=True):
                if theirs[at] is None:
                    theirs[at] = value.double().reshape(-1)[chosen].cpu()
            for place, k in enumerate(chosen):
                seed = torch.zeros_like(block.out_many)
                seed[..., k if several else slice(None)] = 1
                found = block.read(seed)
                if not sums:
                    sums = [None if part is None else np.zeros((n, *part.shape[1:], len(chosen))) for part in found]
                for total, part in zip(sums, found, strict=True):
                    if part is not None and swapped:
                        total[block.many, ..., place] -= part.cpu().numpy()
                    elif part is not None:
                        total[block.one, ..., place] += part.sum(0).cpu().numpy()
            bar.update(block.many.stop - block.many.start)
    return _explain(sums, torch.stack(out_rows).numpy(), torch.stack(out_references).numpy(), size, single, rows, layer,
                    feature_names if feature_names is not None else column_names(X), output_names, settings)


def _chosen(outputs: Any, count: int) -> tuple[list[int], bool]:
    if outputs is None:
        return list(range(count)), count == 1
    listed = [outputs] if isinstance(outputs, int | np.integer) else list(outputs)
    if not listed or any(not isinstance(k, int | np.integer) or not -count <= k < count for k in listed):
        fail("outputs", f"indices of the {count} output(s)", repr(outputs), "Pass an index or a list of indices")
    return [int(k) % count for k in listed], isinstance(outputs, int | np.integer) or count == 1


def _explain(sums: list[Any], out: np.ndarray, out_references: np.ndarray, size: int, single: bool, rows: tuple[torch.Tensor, ...],
             layer: str | None, feature_names: Any, output_names: Any, settings: Settings) -> Any:
    n, count = out.shape
    base = out_references.mean(0)
    values = [np.zeros((n, *row.shape[1:], count)) if total is None else total / size for total, row in zip(sums, rows, strict=True)]
    if layer is not None:
        values = values[:1]
    totals = [value.reshape(n, -1, count).sum(1) for value in values]
    gap = out - base - sum(totals)
    scale = max(float(np.abs(out).max()), float(np.abs(out_references).max()), 1e-300)
    digits = max(torch.finfo(row.dtype).eps for row in rows if row.is_floating_point()) if any(
        row.is_floating_point() for row in rows) else 1.2e-7
    if np.abs(gap).max() > 30 * digits**0.5 * scale:
        raise UnsupportedModelError(
            f"model: expected attributions that sum to the change of output, got a residual of {np.abs(gap).max():.3g} on a scale "
            f"of {scale:.3g}. Some step is hidden from torch (another library, a custom autograd.Function, a mask made from the "
            "input) or mixes rows; rewrite it in torch operations on the input.")
    method = f"deep_shap, {settings.rule}, interventional game"
    results = []
    for i, value in enumerate(values):
        rest = base * 0 + sum((part for j, part in enumerate(totals) if j != i), np.zeros_like(out)) if len(values) > 1 else None
        data = None if layer is not None else rows[i].float().cpu().numpy()
        results.append(Explanation(
            value[..., 0] if single else value, np.full(n, base[0]) if single else np.tile(base, (n, 1)), data,
            feature_names if len(values) == 1 and layer is None else None, output_names, method=method,
            rest=None if rest is None else (rest[:, 0] if single else rest),
            info={"gap": gap[:, 0] if single else gap, "evaluations": n + len(out_references), "scale": scale}))
    return results[0] if len(results) == 1 else tuple(results)
