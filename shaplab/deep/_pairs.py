"""All pairs of explained and reference rows of a network, one backward pass for each looped row.

One run of the model on the looped rows stores what its non-linear units see. One run on the other
rows builds a graph in which each unit is a ``torch.autograd.Function`` whose backward pass looks up
one looped row. Multipliers are symmetric in both rows, so either table may be looped over.

Chapter: deep/graph.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from shaplab._parallel import chunks
from shaplab._validation import UnsupportedModelError, fail
from shaplab.deep._codes import Codes
from shaplab.deep._facts import Notes
from shaplab.deep._functions import functions_watched
from shaplab.deep._operations import HANDLERS, affine_of, choose_by_mask, scalar_rule
from shaplab.deep._watched import Rule, UnitPass
from shaplab.deep.graph import Call, place_of_call

__all__: list[str] = []

_INPUT = 2**40  # entries of integer input i are numbered from i * _INPUT
_NO_ROWS = -1  # a tensor that is the same for all rows
_FOLDED = -2  # rows are mixed with another axis: look-up by row number is not possible

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Settings:
    """How to propagate: see ``deep_shap``."""

    rule: str = "rescale"
    max_rule: str = "exact"
    layer: str | None = None
    batch_size: int = 256


# What a run records


@dataclass
class UnitCall:
    """One call of a non-linear operation: what it saw, and the rule that reads it.

    ``axes`` say where the rows of each value are, and ``twin`` is the same call in the run whose
    rows are looked up.
    """

    run: PairRun
    values: list[Tensor]
    rule: Rule
    name: str
    out: torch.Size
    axes: list[int] = field(default_factory=list)
    twin: UnitCall | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    def meet(self, twin: UnitCall) -> None:
        """Find the axes of rows by the shapes in both runs."""
        both = zip(twin.values, self.values, strict=True)
        axes = [self.run.axis_of_rows(theirs.shape, ours.shape) for theirs, ours in both]
        self.look_up_in(twin, axes, self.run.axis_of_rows(twin.out, self.out))

    def look_up_in(self, twin: UnitCall, axes: list[int], out_axis: int) -> None:
        self.twin = twin
        self.axes = axes
        self.kept["axes"] = axes, out_axis

    def back(self, q: Tensor) -> list[Tensor]:
        """Multipliers of the inputs from those of the output."""
        multipliers = self._by_rule(q)
        if self.run.strict and not all(bool(torch.isfinite(m).all()) for m in multipliers):
            raise UnsupportedModelError(
                f"model: expected finite attributions, got NaN or infinity from {self.name}: its "
                f"multipliers leave the range of {q.dtype}. Explain with model.double() and "
                "float64 rows, or explain the part of the model after it."
            )
        return multipliers

    def _by_rule(self, q: Tensor) -> list[Tensor]:
        theirs = self.twin.values  # type: ignore[union-attr]
        f = [self.run.looked_up(v, axis) for v, axis in zip(theirs, self.axes, strict=True)]
        if q.dtype not in (torch.bfloat16, torch.float16):
            return self.rule(UnitPass(f, self.values, q, self.kept))
        # Half precision has too few digits for differences.
        wide_f = [value.float() for value in f]
        wide_b = [value.float() for value in self.values]
        wide = self.rule(UnitPass(wide_f, wide_b, q.float(), self.kept))
        return [multiplier.to(q.dtype) for multiplier in wide]


class _Through(torch.autograd.Function):
    """Identity on a unit's output whose backward pass asks the unit."""

    @staticmethod
    def forward(ctx: Any, unit: UnitCall, made: list[Tensor], *inputs: Tensor) -> Tensor:
        ctx.unit = unit
        ctx.shapes = [value.shape for value in inputs]
        return made.pop()  # not an argument, so that it may be changed in place

    @staticmethod
    def backward(ctx: Any, *q: Tensor) -> Any:
        multipliers = ctx.unit.back(q[0])
        shaped = (m.sum_to_size(shape) for m, shape in zip(multipliers, ctx.shapes, strict=True))
        return (None, None, *shaped)


@dataclass
class Source:
    """A tensor that attributions are read at; ``entry`` says which input entry each value belongs
    to."""

    value: Tensor
    input: int = 0
    entry: Tensor | None = None
    axis: int = 0


class PairRun(Codes):
    """One run of the model on a batch of rows; ``twin`` is the run whose rows are looked up."""

    def __init__(
        self, model: Any, settings: Settings, rows: int, twin: PairRun | None = None
    ) -> None:
        super().__init__(model, HANDLERS, rows, twin)
        self.rule = settings.rule
        self.max_rule = settings.max_rule
        self.layer = settings.layer
        self.units: list[UnitCall] = []
        self.sources: list[Source] = []
        self.affine: dict[int, Any] = {}
        self.notes = Notes()
        # Units by the memory of what they saw, to keep it when the model overwrites it.
        self.stored: dict[int, list[tuple[UnitCall, int]]] = {}
        self.kept_alive: list[Tensor] = []
        self.fused = 0
        self.row = 0
        self.folded = False
        self.strict = False  # whether each unit's multipliers are checked, to name the one at fault

    # Running

    def __call__(self, inputs: Tensors) -> Tensor:
        given = [self._input(place, value) for place, value in enumerate(inputs)]
        hook = _listen(self) if self.layer is not None else None
        try:
            stance = torch.compiler.set_stance("force_eager")
            with stance, torch.enable_grad(), functions_watched(), self:
                out = self.model(*given)
        except UnsupportedModelError:
            raise
        except Exception as problem:  # the model's own: said with what it was given
            problem.add_note(
                f"The model was run on {self.rows} rows. It must take any number of rows, with "
                "inputs of the shapes and dtypes of X."
            )
            raise
        finally:
            if hook is not None:
                hook.remove()
        if self.twin is not None and len(self.units) != len(self.twin.units):
            fail(
                "model",
                "the same operations for every row",
                f"{len(self.twin.units)} and {len(self.units)} non-linear calls",
                "Its control flow depends on the input; explain rows that take the same path",
                UnsupportedModelError,
            )
        if self.layer is not None and not self.sources:
            fail(
                "layer",
                "the name of a module that the model calls, with a number below that of its calls",
                repr(self.layer),
                "See dict(model.named_modules()); without a number it is the first call",
            )
        with torch.enable_grad():
            return self._checked(out)

    def _input(self, place: int, value: Tensor) -> Tensor:
        """What the model is given: a copy, so that it may change it."""
        if value.is_floating_point():
            start = self.leaf(value)
            if self.layer is None:
                self.add(Source(start, place))
            with torch.enable_grad():
                copy = start.clone()
            self.notes.put_alone(copy)
            return copy
        copy = value.clone()
        entries = torch.arange(copy.numel(), device=copy.device).reshape(copy.shape)
        self._put_entries(copy, entries + place * _INPUT)
        return copy

    def _checked(self, out: Any) -> Tensor:
        """The output, which must be one tensor with a row for each row."""
        is_tensor = isinstance(out, Tensor)
        if not is_tensor or out.dim() not in (1, 2) or out.shape[0] != self.rows:
            fail(
                "model",
                f"one tensor of shape ({self.rows},) or ({self.rows}, K) for {self.rows} rows",
                str(tuple(out.shape) if is_tensor else type(out).__name__),
                "Wrap the model so that it returns one row of outputs for each row of input",
            )
        if not torch.isfinite(out).all():
            fail("model", "finite outputs", "NaN or infinity", "Check the inputs and weights")
        return out

    # What handlers ask for

    def unit(self, inputs: list[Tensor], out: Tensor, rule: Rule, others: Tensors = ()) -> Tensor:
        """Record a non-linear unit; ``others`` are stored with its inputs for the rule to look
        up."""
        values = [value.detach() for value in (*inputs, *others)]
        unit = UnitCall(self, values, rule, f"`{self.calling}`{place_of_call()}", out.shape)
        unit.kept["name"] = unit.name
        if self.twin is not None:
            place = len(self.units)
            twin = self.twin.units[place] if place < len(self.twin.units) else None
            if twin is None or len(twin.values) != len(values):
                self.refuse("forward", "other rows take another path through the model")
            unit.meet(twin)
        self.units.append(unit)
        for place, value in enumerate(values):
            memory = value.untyped_storage().data_ptr()
            self.stored.setdefault(memory, []).append((unit, place))
        return _Through.apply(unit, [out], *inputs)

    def writing(self, target: Tensor) -> None:
        self.affine.pop(id(target), None)
        if target.device.type == "meta":
            return
        for unit, place in self.stored.pop(target.untyped_storage().data_ptr(), ()):
            unit.values[place] = unit.values[place].clone()

    def linear(self, call: Call, inputs: list[Tensor]) -> Any:
        result = call.do()
        if call.name in ("sum", "mean") or self.notes.known or self.notes.own:
            self.notes.linear(call, result)
        if self.rule != "rescale":
            affine = affine_of(self, call)
            if affine is not None:
                self.affine[id(result)] = affine
                self.kept_alive.append(result)  # an id is only a name while its tensor lives
        return result

    def begin(self, values: Tensor, entries: Tensor) -> Tensor:
        start = self.leaf(values)
        if self.layer is None:
            self.add(Source(start, entry=entries))
        with torch.enable_grad():
            return start.clone()

    def step(self, name: str, difference: Tensor, mask: Tensor) -> Tensor:
        compare = getattr(torch, name)

        def zero_or_one(z: Tensor) -> Tensor:
            return compare(z, torch.zeros_like(z)).to(z.dtype)

        self.calling = name
        rule = scalar_rule(zero_or_one, "step", name)
        return self.unit([difference], mask.to(difference.dtype), rule)

    def choose(self, mask: Tensor, yes: Any, no: Any, native: Tensor) -> Tensor:
        self.calling = "where"
        return choose_by_mask(self, mask, yes, no, native)

    def add(self, source: Source) -> None:
        """A further tensor to read attributions at."""
        if self.twin is not None:
            twin = self.twin.sources[len(self.sources)]
            source.axis = self.axis_of_rows(twin.value.shape, source.value.shape)
        self.sources.append(source)

    # Finding the explained row

    def axis_of_rows(self, theirs: torch.Size, ours: torch.Size) -> int:
        """The axis whose size is the number of rows in both runs."""
        if theirs == ours:
            return _NO_ROWS
        n = self.twin.rows
        m = self.rows
        both = enumerate(zip(theirs, ours, strict=False))
        differ = [axis for axis, (size, other) in both if size != other]
        if len(theirs) != len(ours) or len(differ) != 1:
            self.refuse(
                "reshape",
                f"shapes {tuple(theirs)} and {tuple(ours)} for {n} and {m} rows do not "
                f"keep rows apart",
            )
        axis = differ[0]
        if theirs[axis] == n and ours[axis] == m:
            return axis
        self.folded = True
        return _FOLDED

    def looked_up(self, value: Tensor, axis: int) -> Tensor:
        """The present row of a value of the other run."""
        return value if axis < 0 else value.narrow(axis, self.row, 1)


def _listen(run: PairRun) -> Any:
    """Keep the output of the named module: torch's hook for all modules, in this thread, until it
    is removed."""
    name, _, number = str(run.layer).partition(":")
    modules = dict(run.model.named_modules())
    if number and not number.isdigit():
        fail(
            "layer",
            "a module's name, or name:number for a later call of it",
            repr(run.layer),
            f"Pass {name!r} for its first call, {name + ':1'!r} for its second",
        )
    wanted = int(number or 0)
    if name not in modules:
        fail(
            "layer",
            "the name of a module of the model",
            repr(run.layer),
            f"Pass one of {', '.join(list(modules)[1:9])}",
        )
    target = modules[name]
    thread = threading.get_ident()
    calls = 0

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        nonlocal calls
        if module is not target or threading.get_ident() != thread:
            return None
        calls += 1
        if calls - 1 != wanted:
            return None
        if not isinstance(output, Tensor):
            fail(
                "layer",
                "a module that returns one tensor",
                f"{name!r} ({type(module).__name__}), which returns a {type(output).__name__}",
                "Name the layer after it",
            )
        kept = output.clone()
        run.add(Source(kept, 0))
        return kept.clone()

    return torch.nn.modules.module.register_module_forward_hook(hook)


# Pairs of rows


@dataclass
class Block:
    """Row ``one`` of the looped table against rows ``many`` of the other; outputs ``(K,)`` and
    ``(m, K)``."""

    one: int
    many: slice
    out_one: Tensor
    out_many: Tensor
    run: PairRun
    reader: _Reader

    @property
    def steps(self) -> int:
        """How many non-linear operations lie between input and output."""
        return len(self.run.units)

    def read(self, seed: Tensor) -> list[Any]:
        """Attributions ``(m, *input)`` of ``seed * (model(one) - model(many))`` for each input,
        None for an input that has none; ``seed`` weighs the outputs, ``(m, K)`` or ``(m,)``."""
        return self.reader.read(seed)

    def shared(self) -> float:
        """The largest share of an operation's contributions that its path integral missed."""
        return max((unit.kept.get("missing", 0.0) for unit in self.run.units), default=0.0)


def pairs(model: Any, loop: Tensors, batch: Tensors, settings: Settings) -> Iterator[Block]:
    """Every pair of rows of two tables, as blocks of one row against many.

    Runs are padded to at least two rows and to different numbers of rows, so that the axis of rows
    can be told by its size.
    """
    outers = list(chunks(loop[0].shape[0], settings.batch_size))
    inners = list(chunks(batch[0].shape[0], settings.batch_size))
    widths = {_at_least_two(inner) for inner in inners}
    for outer in outers:
        size = _at_least_two(outer)
        while size in widths:
            size += 1
        first = PairRun(model, settings, size)
        out_first = first(_padded(loop, outer, size))
        for inner in inners:
            width = _at_least_two(inner)
            rows = _padded(batch, inner, width)
            run = PairRun(model, settings, width, first)
            out = run(rows)
            shapes = tuple(value.shape for value in rows)
            count = inner.stop - inner.start
            for i in range(outer.stop - outer.start):
                one = outer.start + i
                sources = first.sources
                if run.folded:
                    sources = _meet_alone(run, loop, one, settings)
                run.row = i
                reader = _Reader(run, sources, out, count, shapes)
                yield Block(one, inner, out_first[i].detach(), out[:count].detach(), run, reader)


def aligned_pairs(model: Any, rows: Tensors, references: Tensors, settings: Settings) -> Block:
    """Row i of one table against row i of the other, in one run of each.

    Both runs have the same number of rows, so what a unit looks up is the whole table.
    """
    every = slice(0, rows[0].shape[0])
    size = _at_least_two(every)
    first = PairRun(model, settings, size)
    out_first = first(_padded(rows, every, size))
    run = PairRun(model, settings, size, first)
    padded = _padded(references, every, size)
    out = run(padded)
    shapes = tuple(value.shape for value in padded)
    reader = _Reader(run, first.sources, out, every.stop, shapes)
    both = out_first[every].detach(), out[every].detach()
    return Block(0, every, *both, run, reader)


def outputs_of(model: Any, table: Tensors, settings: Settings) -> Tensor:
    """The model's outputs ``(N,)`` or ``(N, K)`` for every row."""
    found = []
    for rows in chunks(table[0].shape[0], settings.batch_size):
        size = _at_least_two(rows)
        out = PairRun(model, settings, size)(_padded(table, rows, size))
        found.append(out[: rows.stop - rows.start].detach())
    return torch.cat(found)


def _at_least_two(rows: slice) -> int:
    return max(2, rows.stop - rows.start)


def _padded(table: Tensors, rows: slice, size: int) -> Tensors:
    """Rows of every input, the first repeated until there are ``size``."""
    padded = []
    for value in table:
        part = value[rows]
        missing = size - part.shape[0]
        if missing > 0:
            part = torch.cat([part, part[:1].expand(missing, *part.shape[1:])])
        padded.append(part)
    return tuple(padded)


def _meet_alone(run: PairRun, loop: Tensors, one: int, settings: Settings) -> list[Source]:
    """Run one row by itself, repeated, where rows are folded into another axis; its sources."""
    repeated = tuple(value[one : one + 1].expand(run.rows, *value.shape[1:]) for value in loop)
    alone = PairRun(run.model, settings, run.rows)
    alone(repeated)
    for unit, twin in zip(run.units, alone.units, strict=True):
        unit.look_up_in(twin, [_NO_ROWS] * len(unit.values), _NO_ROWS)
    for source, _twin in zip(run.sources, alone.sources, strict=True):
        source.axis = _NO_ROWS
    return alone.sources


class _Reader:
    """Attributions of one row against a batch, read off at the sources of the batch's run."""

    def __init__(
        self,
        run: PairRun,
        sources: list[Source],
        out: Tensor,
        count: int,
        shapes: tuple[torch.Size, ...],
    ) -> None:
        self.run = run
        self.sources = sources  # of the explained row
        self.out = out
        self.count = count  # rows that are no padding
        self.shapes = shapes

    def _multipliers(self, seed: Tensor) -> Any:
        points = [source.value for source in self.run.sources]
        return torch.autograd.grad(self.out, points, seed, retain_graph=True, allow_unused=True)

    def _finite_multipliers(self, seed: Tensor) -> Any:
        if not self.out.requires_grad:
            return [None] * len(self.run.sources)
        multipliers = self._multipliers(seed)
        if all(m is None or bool(torch.isfinite(m).all()) for m in multipliers):
            return multipliers
        self.run.strict = True
        self._multipliers(seed)  # raises where a unit is at fault
        raise UnsupportedModelError(
            "model: expected finite attributions, got NaN or infinity from a linear operation: "
            f"its weights leave the range of {self.out.dtype}. Explain with model.double()."
        )

    def read(self, seed: Tensor) -> list[Any]:
        """See ``Block.read``."""
        full = torch.zeros_like(self.out)
        full[: self.count] = seed.to(self.out.dtype)
        multipliers = self._finite_multipliers(full)
        credits: list[Any] = [None] * len(self.shapes)
        for source, theirs, m in zip(self.run.sources, self.sources, multipliers, strict=True):
            if m is None:
                continue
            f = self.run.looked_up(theirs.value, source.axis).detach()
            b = source.value.detach()
            if b.dtype.itemsize < 4:  # too few digits for differences
                f, b, m = f.float(), b.float(), m.float()
            credit = m * (f - b)
            parts = [(source.input, credit)]
            if source.entry is not None:
                parts = _by_entry(source.entry, credit, self.shapes)
            for place, part in parts:
                credits[place] = part if credits[place] is None else credits[place] + part
        return [None if part is None else part[: self.count] for part in credits]


def _by_entry(
    entry: Tensor, credit: Tensor, shapes: tuple[torch.Size, ...]
) -> list[tuple[int, Tensor]]:
    """Credit of values summed at the entries of integer inputs that they are functions of."""
    entries = entry.reshape(-1)
    sums = credit.reshape(entries.shape[0], -1).sum(1, dtype=torch.float64)
    parts = []
    for place, shape in enumerate(shapes):
        mine = (entries >= place * _INPUT) & (entries < (place + 1) * _INPUT)
        if bool(mine.any()):
            total = torch.zeros(shape.numel(), dtype=torch.float64, device=credit.device)
            total.index_add_(0, entries[mine] - place * _INPUT, sums[mine])
            parts.append((place, total.reshape(shape)))
    return parts
