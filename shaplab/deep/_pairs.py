"""All pairs of explained and reference rows of a network, one backward pass for each looped row.

One run of the model on the looped rows stores what its non-linear units see. One run on the other
rows builds a graph in which each unit is a ``torch.autograd.Function`` whose backward pass looks up
one looped row. Multipliers are symmetric in both rows, so either table may be looped over.

Chapter: deep/graph.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from shaplab._parallel import chunks
from shaplab._validation import UnsupportedModelError, fail
from shaplab.deep._codes import Codes
from shaplab.deep._facts import Notes
from shaplab.deep._functions import functions_watched
from shaplab.deep._operations import HANDLERS, affine_of, scalar_rule, where
from shaplab.deep.graph import place_of_call

__all__: list[str] = []

_INPUT = 2**40  # entries of integer input i are numbered from i * _INPUT
_FOLDED = -2  # rows are mixed with another axis: look-up by row number is not possible


@dataclass
class Unit:
    """One call of a non-linear operation: what it saw, and the rule that reads it."""

    run: Run
    values: list[torch.Tensor]
    rule: Any
    name: str
    axes: list[int] = field(default_factory=list)
    twin: Unit | None = None
    out: torch.Size = field(default_factory=torch.Size)
    kept: dict[str, Any] = field(default_factory=dict)

    def back(self, q: torch.Tensor) -> list[torch.Tensor]:
        """Multipliers of the inputs from those of the output."""
        found = self.shared(q)
        if self.run.strict and not all(bool(torch.isfinite(m).all()) for m in found):
            raise UnsupportedModelError(
                f"model: expected finite attributions, got NaN or infinity from {self.name}: its "
                f"multipliers leave the range of {q.dtype}. Explain with model.double() and "
                "float64 rows, or explain the part of the model after it."
            )
        return found

    def shared(self, q: torch.Tensor) -> list[torch.Tensor]:
        f = [
            self.run.look_up(value, axis)
            for value, axis in zip(self.twin.values, self.axes, strict=True)  # type: ignore[union-attr]
        ]
        b = self.values
        if q.dtype in (torch.bfloat16, torch.float16):  # too few digits for differences
            f, b = [t.float() for t in f], [t.float() for t in b]
            return [m.to(q.dtype) for m in self.rule(f, b, q.float(), self.kept)]
        return self.rule(f, b, q, self.kept)


class _Through(torch.autograd.Function):
    """Identity on a unit's output whose backward pass asks the unit."""

    @staticmethod
    def forward(
        ctx: Any, unit: Unit, made: list[torch.Tensor], *inputs: torch.Tensor
    ) -> torch.Tensor:
        ctx.unit, ctx.shapes = unit, [value.shape for value in inputs]
        return made.pop()  # not an argument, so that it may be changed in place

    @staticmethod
    def backward(ctx: Any, *q: torch.Tensor) -> Any:
        found = ctx.unit.back(q[0])
        return (
            None,
            None,
            *(m.sum_to_size(shape) for m, shape in zip(found, ctx.shapes, strict=True)),
        )


@dataclass
class Source:
    """A tensor that attributions are read at; ``entry`` says which input entry each value belongs
    to."""

    value: torch.Tensor
    input: int = 0
    entry: torch.Tensor | None = None
    axis: int = 0


class Run(Codes):
    """One run of the model on a batch of rows; ``twin`` is the run whose rows are looked up."""

    def __init__(
        self,
        model: Any,
        rule: str,
        max_rule: str,
        layer: str | None,
        rows: int,
        twin: Run | None = None,
    ) -> None:
        super().__init__(model, HANDLERS, rows, twin)
        self.rule, self.max_rule, self.layer = rule, max_rule, layer
        self.units: list[Unit] = []
        self.sources: list[Source] = []
        self.affine: dict[int, Any] = {}
        self.stored: dict[int, list[tuple[Unit, int]]] = {}
        self.kept_alive: list[torch.Tensor] = []
        self.fused = 0
        self.row = 0
        self.folded = False
        self.notes = Notes()
        self.strict = False  # whether each unit's multipliers are checked, to name the one at fault

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
                self.notes.put_alone(given[-1])
            else:
                copy = value.clone()
                entry = torch.arange(copy.numel(), device=copy.device).reshape(copy.shape)
                self.positions[id(copy)] = (copy, entry + i * _INPUT)
                given.append(copy)
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
                "the name of a module that the model calls",
                repr(self.layer),
                "See dict(model.named_modules())",
            )
        with torch.enable_grad():
            return self._checked(out)

    def _checked(self, out: Any) -> torch.Tensor:
        if (
            not isinstance(out, torch.Tensor)
            or out.dim() not in (1, 2)
            or out.shape[0] != self.rows
        ):
            shown = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
            fail(
                "model",
                f"one tensor of shape ({self.rows},) or ({self.rows}, K) for {self.rows} rows",
                str(shown),
                "Wrap the model so that it returns one row of outputs for each row of input",
            )
        if not torch.isfinite(out).all():
            fail("model", "finite outputs", "NaN or infinity", "Check the inputs and weights")
        return out

    # What the capture asks for

    def unit(
        self,
        inputs: list[torch.Tensor],
        out: torch.Tensor,
        rule: Any,
        others: tuple[torch.Tensor, ...] = (),
    ) -> torch.Tensor:
        """Record a non-linear unit; ``others`` are stored with its inputs for the rule to look
        up."""
        values = [value.detach() for value in (*inputs, *others)]
        unit = Unit(self, values, rule, f"`{self.calling}`{place_of_call()}", out=out.shape)
        if self.twin is not None:
            twin = (
                self.twin.units[len(self.units)] if len(self.units) < len(self.twin.units) else None
            )
            if twin is None or len(twin.values) != len(values):
                self.refuse("forward", "other rows take another path through the model")
            unit.twin = twin
            unit.axes = [
                self.axis(theirs.shape, ours.shape)
                for theirs, ours in zip(twin.values, values, strict=True)
            ]
            unit.kept["axes"] = unit.axes, self.axis(twin.out, out.shape)
        unit.kept["name"] = unit.name
        self.units.append(unit)
        for place, value in enumerate(values):
            self.stored.setdefault(value.untyped_storage().data_ptr(), []).append((unit, place))
        return _Through.apply(unit, [out], *inputs)

    def writing(self, target: torch.Tensor) -> None:
        self.affine.pop(id(target), None)
        if target.device.type != "meta":
            for unit, place in self.stored.pop(target.untyped_storage().data_ptr(), ()):
                unit.values[place] = unit.values[place].clone()

    def linear(
        self, name: str, func: Any, args: Any, kwargs: Any, found: list[torch.Tensor]
    ) -> Any:
        result = func(*args, **kwargs)
        if name in ("sum", "mean") or self.notes.known or self.notes.own:
            self.notes.linear(name, args, kwargs, result)
        if self.rule != "rescale":
            affine = affine_of(self, name, func, args, kwargs)
            if affine is not None:
                self.affine[id(result)] = affine
                self.kept_alive.append(result)  # an id is only a name while its tensor lives
        return result

    def begin(self, values: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
        start = self.leaf(values)
        if self.layer is None:
            self.add(Source(start, entry=entries))
        with torch.enable_grad():
            return start.clone()

    def _step(self, name: str, difference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        compare = getattr(torch, name)

        def step(z: torch.Tensor) -> torch.Tensor:
            return compare(z, torch.zeros_like(z)).to(z.dtype)

        self.calling = name
        return self.unit([difference], mask.to(difference.dtype), scalar_rule(step, "step", name))

    def choose(self, mask: torch.Tensor, yes: Any, no: Any, native: torch.Tensor) -> torch.Tensor:
        self.calling = "where"
        return where(self, mask, yes, no, native)

    def add(self, source: Source) -> None:
        if self.twin is not None:
            source.axis = self.axis(
                self.twin.sources[len(self.sources)].value.shape, source.value.shape
            )
        self.sources.append(source)

    # Finding the explained row

    def axis(self, theirs: torch.Size, ours: torch.Size) -> int:
        """The axis of rows: the one whose size is the number of rows in both runs; -1 when there is
        none."""
        if theirs == ours:
            return -1
        n, m = self.twin.rows, self.rows
        differ = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
        if len(theirs) != len(ours) or len(differ) != 1:
            self.refuse(
                "reshape",
                f"shapes {tuple(theirs)} and {tuple(ours)} for {n} and {m} rows do not "
                f"keep rows apart",
            )
        if theirs[differ[0]] == n and ours[differ[0]] == m:
            return differ[0]
        self.folded = True
        return _FOLDED

    def look_up(self, value: torch.Tensor, axis: int) -> torch.Tensor:
        return value if axis < 0 else value.narrow(axis, self.row, 1)


def _listen(run: Run) -> Any:
    """Keep the output of the named module: torch's hook for all modules, in this thread, until it
    is removed."""
    name, _, count = str(run.layer).partition(":")
    modules = dict(run.model.named_modules())
    if name not in modules:
        fail(
            "layer",
            "the name of a module of the model",
            repr(run.layer),
            f"Pass one of {', '.join(list(modules)[1:9])}",
        )
    target, thread, calls = modules[name], threading.get_ident(), [0]

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        if module is not target or threading.get_ident() != thread:
            return None
        calls[0] += 1
        if calls[0] - 1 != int(count or 0):
            return None
        if not isinstance(output, torch.Tensor):
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


@dataclass(frozen=True)
class Settings:
    """How to propagate: see ``deep_shap``."""

    rule: str = "rescale"
    max_rule: str = "exact"
    layer: str | None = None
    batch_size: int = 256


@dataclass
class Block:
    """Row ``one`` of the looped table against rows ``many`` of the other; outputs ``(K,)`` and
    ``(m, K)``; ``steps`` non-linear operations lie between."""

    one: int
    many: slice
    out_one: torch.Tensor
    out_many: torch.Tensor
    steps: int
    read: Callable[[torch.Tensor], list[Any]]
    run: Any

    def shared(self) -> float:
        """The largest share of an operation's contributions that its path integral missed."""
        return max((unit.kept.get("missing", 0.0) for unit in self.run.units), default=0.0)


def _padded(table: tuple[torch.Tensor, ...], rows: slice, size: int) -> tuple[torch.Tensor, ...]:
    """Rows of every input, the first repeated until there are ``size``."""
    found = []
    for value in table:
        part = value[rows]
        extra = size - part.shape[0]
        found.append(
            torch.cat([part, part[:1].expand(extra, *part.shape[1:])]) if extra > 0 else part
        )
    return tuple(found)


def pairs(
    model: Any, loop: tuple[torch.Tensor, ...], batch: tuple[torch.Tensor, ...], settings: Settings
) -> Iterator[Block]:
    """Every pair of rows of two tables, as blocks of one row against many.

    ``Block.read(seed)`` takes weights of the outputs, ``(m, K)`` or ``(m,)``, and returns, for each
    input, attributions of ``seed * (model(one) - model(many))`` with shape ``(m, *input)``. Runs
    are padded to at least two rows and to different numbers of rows, so that the axis of rows can
    be told by its size.
    """

    def start(table: tuple[torch.Tensor, ...], twin: Run | None = None) -> tuple[Run, torch.Tensor]:
        run = Run(model, settings.rule, settings.max_rule, settings.layer, table[0].shape[0], twin)
        return run, run(table)

    for outer in chunks(loop[0].shape[0], settings.batch_size):
        count = outer.stop - outer.start
        sizes = {
            max(2, part.stop - part.start)
            for part in chunks(batch[0].shape[0], settings.batch_size)
        }
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
                    alone = tuple(
                        value[i + outer.start : i + outer.start + 1].expand(width, *value.shape[1:])
                        for value in loop
                    )
                    tiled, _ = start(alone)
                    for unit, twin in zip(run.units, tiled.units, strict=True):
                        unit.twin, unit.axes = twin, [-1] * len(unit.values)
                        unit.kept["axes"] = unit.axes, -1
                    for source, _theirs in zip(run.sources, tiled.sources, strict=True):
                        source.axis = -1
                    sources = tiled.sources
                else:
                    sources = first.sources
                run.row = i
                yield Block(
                    outer.start + i,
                    inner,
                    out_first[i].detach(),
                    out[:m].detach(),
                    len(run.units),
                    _reader(run, sources, out, m, tuple(value.shape for value in many)),
                    run,
                )


def _by_entry(
    entry: torch.Tensor, credit: torch.Tensor, shapes: tuple[torch.Size, ...]
) -> list[tuple[int, torch.Tensor]]:
    """Credit of values summed at the entries of integer inputs that they are functions of."""
    flat, found = entry.reshape(-1), []
    sums = credit.reshape(flat.shape[0], -1).sum(1, dtype=torch.float64)
    for k, shape in enumerate(shapes):
        mine = (flat >= k * _INPUT) & (flat < (k + 1) * _INPUT)
        if bool(mine.any()):
            total = torch.zeros(shape.numel(), dtype=torch.float64, device=credit.device)
            total.index_add_(0, flat[mine] - k * _INPUT, sums[mine])
            found.append((k, total.reshape(shape)))
    return found


def _reader(
    run: Run, sources: list[Source], out: torch.Tensor, m: int, shapes: tuple[torch.Size, ...]
) -> Any:
    def multipliers(full: torch.Tensor) -> Any:
        return torch.autograd.grad(
            out,
            [source.value for source in run.sources],
            full,
            retain_graph=True,
            allow_unused=True,
        )

    def read(seed: torch.Tensor) -> list[Any]:
        full = torch.zeros_like(out)
        full[:m] = seed.to(out.dtype)
        grads: Any = multipliers(full) if out.requires_grad else [None] * len(run.sources)
        if not all(grad is None or bool(torch.isfinite(grad).all()) for grad in grads):
            run.strict = True
            multipliers(full)
            raise UnsupportedModelError(
                "model: expected finite attributions, got NaN or infinity from a linear operation: "
                f"its weights leave the range of {out.dtype}. Explain with model.double()."
            )
        found: list[Any] = [None] * len(shapes)
        for source, theirs, grad in zip(run.sources, sources, grads, strict=True):
            if grad is None:
                continue
            f, b = run.look_up(theirs.value, source.axis).detach(), source.value.detach()
            if b.dtype.itemsize < 4:  # too few digits for differences
                f, b, grad = f.float(), b.float(), grad.float()
            credit = grad * (f - b)
            parts = [(source.input, credit)]
            if source.entry is not None:
                parts = _by_entry(source.entry, credit, shapes)
            for k, part in parts:
                found[k] = part if found[k] is None else found[k] + part
        return [None if part is None else part[:m] for part in found]

    return read
