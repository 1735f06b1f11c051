"""What a tensor is known to be: a square, a sum of squares or of exponentials, a scale, a centred
row.

A denominator that is a function of the same inputs as its numerator is no player of its own. So
``x / norm(x)``, ``(x - mean) / std`` and ``exp(x) / sum(exp(x))`` written by hand must be seen as
the normalisation and the softmax that they are. While the model runs, tensors that arise in the
steps of such a formula are noted here; the quotient at its end looks the notes up.

Cost: a dictionary look-up for each operation, once a first note is made.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from shaplab.deep.graph import Call, tensors_of, words

__all__: list[str] = []

_SAME_NUMBERS = words(
    "unsqueeze expand expand_as view reshape getitem contiguous clone view_as squeeze"
)
_KEEP_ENTRIES_APART = words("""
view reshape unsqueeze squeeze flatten transpose permute t add sub mul div getitem select narrow
unbind chunk split
""")
_BOUNDS = words("clamp clamp_min maximum max")
_POWERS = {"square": 2, "sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1}
_SUMMED = ("squares", "scale", "exps")


@dataclass(frozen=True)
class Note:
    """``kind`` of ``root``: ``exp`` and ``square`` are elementwise; ``mean``, ``centred`` and
    ``softmax`` have axes, as have ``exps`` (a sum of exponentials), ``squares`` (rate times a sum
    of squares and a constant), ``scale`` (a root of squares) and ``inverse`` (one over it)."""

    kind: str
    root: Tensor
    dims: tuple[int, ...] = ()
    rate: float = 1.0


class _Known:
    """A note that holds while neither its tensor nor its root is changed in place."""

    def __init__(self, tensor: Tensor, forget: Any, note: Note | None) -> None:
        self.tensor = weakref.ref(tensor, forget)
        self.version = tensor._version
        self.note = note
        self.root_version = 0 if note is None else note.root._version

    def holds(self, tensor: Tensor) -> bool:
        if self.tensor() is not tensor or tensor._version != self.version:
            return False
        return self.note is None or self.note.root._version == self.root_version


class Notes:
    """Notes on tensors that are alive and unchanged."""

    def __init__(self) -> None:
        self.known: dict[int, _Known] = {}
        self.own: dict[int, _Known] = {}  # functions of one input entry each

    def put(self, tensor: Tensor, note: Note) -> None:
        """Remember a note as long as neither the tensor nor its root changes."""
        key = id(tensor)
        self.known[key] = _Known(tensor, lambda _: self.known.pop(key, None), note)

    def get(self, tensor: Any) -> Note | None:
        """The note on a tensor, if there is one that still holds."""
        known = self.known.get(id(tensor))
        if known is None or not known.holds(tensor):
            return None
        return known.note

    def put_alone(self, tensor: Tensor) -> None:
        """Remember that each value is a function of one input entry of its own."""
        key = id(tensor)
        self.own[key] = _Known(tensor, lambda _: self.own.pop(key, None), None)

    def alone(self, tensor: Tensor) -> bool:
        """Whether each value is a function of one input entry of its own."""
        known = self.own.get(id(tensor))
        return known is not None and known.holds(tensor)

    def same(self, top: Tensor, note: Note) -> bool:
        """Whether ``top`` is the tensor whose squares a scale sums: itself, or centred alike."""
        if top is note.root:
            return True
        ours = self.get(top)
        theirs = self.get(note.root)
        if ours is None or theirs is None:
            return False
        if ours.kind != "centred" or theirs.kind != "centred":
            return False
        return ours.root is theirs.root and ours.dims == theirs.dims

    # Following the model

    def linear(self, call: Call, result: Any) -> None:
        """Follow a linear operation: sums, means, centring, constants that are added or factors."""
        first = call.args[0] if call.args else None
        if not isinstance(first, Tensor):
            return
        others = (*call.args[1:], *call.kwargs.values())
        if self.alone(first) and _keeps_entries_apart(call, others):
            for tensor in tensors_of(result):
                self.put_alone(tensor)
        if not isinstance(result, Tensor):
            return
        note = self.get(first)
        if call.name in ("sum", "mean"):
            self._summed(call, first, note, result)
        elif call.name == "sub" and len(others) == 1 and not call.kwargs:
            other = self.get(others[0])
            if other is not None and other.kind == "mean" and other.root is first:
                self.put(result, replace(other, kind="centred"))
        elif call.name == "dropout" and note is not None:  # in evaluation, the same numbers
            self.put(result, note)
        elif note is not None and note.kind in _SUMMED:
            self._of_a_sum(call.name, note, others, result)
        elif note is None and call.name == "add" and len(call.args) == 2:
            self._added_to_a_constant(first, others[0], result)

    def _of_a_sum(self, name: str, note: Note, others: tuple[Any, ...], result: Tensor) -> None:
        """What a constant that is added, or a factor, makes of a noted sum."""
        constant_added = name == "add" and note.kind != "exps" and not _depends(others[0])
        if name in _SAME_NUMBERS or constant_added:
            self.put(result, note)
        elif name in ("mul", "div") and note.kind == "squares":
            factor = _number(others[0])
            if factor:
                rate = note.rate * factor if name == "mul" else note.rate / factor
                self.put(result, replace(note, rate=rate))

    def _added_to_a_constant(self, constant: Tensor, other: Any, result: Tensor) -> None:
        note = self.get(other)
        if note is not None and note.kind in ("squares", "scale") and not _depends(constant):
            self.put(result, note)

    def _summed(self, call: Call, first: Tensor, note: Note | None, result: Tensor) -> None:
        dims = _axes(first, call)
        if dims is None:
            return
        if note is None or note.kind not in ("exp", "square"):
            if call.name == "mean" and note is None:
                self.put(result, Note("mean", first, dims))
        elif note.kind == "square":
            size = math.prod(first.shape[axis] for axis in dims)
            rate = 1.0 / size if call.name == "mean" else 1
            self.put(result, Note("squares", note.root, dims, rate))
        elif call.name == "sum" and len(dims) == 1:
            self.put(result, Note("exps", note.root, dims))

    def function(self, name: str, x: Tensor, args: Any, result: Any) -> None:
        """Follow a scalar function of one tensor."""
        if self.alone(x):
            self.put_alone(result)
        note = self.get(x)
        power = _POWERS.get(name)
        if name == "pow" and len(args) > 1:
            power = _number(args[1])
        if name == "exp":
            self.put(result, Note("exp", x))
        elif power == 2:
            self.put(result, Note("square", x))
        elif note is None:
            return
        elif note.kind == "squares" and power in (0.5, -0.5):
            self.put(result, replace(note, kind="scale" if power == 0.5 else "inverse"))
        elif note.kind == "scale" and power == -1:
            self.put(result, replace(note, kind="inverse"))
        elif note.kind in ("squares", "scale") and name in _BOUNDS:
            self.put(result, note)


def along(value: Tensor, like: Tensor, dims: tuple[int, ...]) -> Tensor | None:
    """A scale with size 1 along ``dims`` of a tensor of the shape of ``like``, or None when it
    varies there."""
    if value.dim() != like.dim():
        return None
    for axis in dims:
        if value.shape[axis] != 1 and value.stride(axis) != 0:
            return None
        value = value.narrow(axis, 0, 1)
    sizes = [1 if axis in dims else size for axis, size in enumerate(like.shape)]
    return value if list(value.shape) == sizes else None


def _axes(x: Tensor, call: Call) -> tuple[int, ...] | None:
    """The axes that a sum or mean runs over; None when it does something else, too."""
    dim = call.kwargs.get("dim", call.kwargs.get("axis"))
    if dim is None:
        dim = call.argument(1, "dim")
    if dim is None or isinstance(dim, torch.dtype):
        return None
    if len(call.args) > 3 or call.kwargs.get("dtype"):
        return None
    listed = [dim] if isinstance(dim, int) else list(dim)
    return tuple(sorted(axis % x.dim() for axis in listed))


def _keeps_entries_apart(call: Call, others: tuple[Any, ...]) -> bool:
    """Whether each value of the result is a function of one value of the first argument."""
    if call.name not in _KEEP_ENTRIES_APART or any(_depends(value) for value in others):
        return False
    return call.name != "getitem" or _names_entries_once(call.args[1])


def _names_entries_once(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts)


def _number(value: Any) -> float | None:
    """A constant number, from Python or in a tensor."""
    if isinstance(value, Tensor):
        return None if value.requires_grad or value.numel() != 1 else float(value)
    return float(value) if isinstance(value, int | float) else None


def _depends(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad
