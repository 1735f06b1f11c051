"""What a tensor is known to be: a square, a sum of squares or of exponentials, a scale, a centred
row.

A denominator that is a function of the same inputs as its numerator is no player of its own. So
``x / norm(x)``, ``(x - mean) / std`` and ``exp(x) / sum(exp(x))`` written by hand must be seen as
the normalisation and the softmax that they are. While the model runs, tensors that arise in the
steps of such a formula are noted here; the quotient at its end looks the notes up.

Cost: a dictionary look-up for each operation, once a first note is made.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch

from shaplab.deep.graph import tensors_of

__all__: list[str] = []

_MOVED = frozenset(
    "unsqueeze expand expand_as view reshape getitem contiguous clone view_as squeeze".split()
)
_KEPT = frozenset(
    """
view reshape unsqueeze squeeze flatten transpose permute t add sub mul div getitem select narrow
unbind chunk split
""".split()
)
_BOUNDED = frozenset("clamp clamp_min maximum max".split())


@dataclass(frozen=True)
class Note:
    """``kind`` of ``root``: ``exp`` and ``square`` are elementwise; ``mean``, ``centred`` and
    ``softmax`` have axes, as have ``exps`` (a sum of exponentials), ``squares`` (rate times a sum
    of squares and a constant), ``scale`` (a root of squares) and ``inverse`` (one over it)."""

    kind: str
    root: torch.Tensor
    dims: tuple[int, ...] = ()
    rate: float = 1.0


class Notes:
    """Notes on tensors that are alive and unchanged."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, int, int, Note]] = {}
        self.own: dict[int, tuple[Any, int]] = {}  # functions of one input entry each

    def put(self, tensor: torch.Tensor, note: Note) -> None:
        """Remember a note as long as neither the tensor nor its root changes."""
        key = id(tensor)
        reference = weakref.ref(tensor, lambda _: self.known.pop(key, None))
        self.known[key] = (reference, tensor._version, note.root._version, note)

    def get(self, tensor: Any) -> Note | None:
        """The note on a tensor, if there is one that still holds."""
        found = self.known.get(id(tensor))
        if found is None or found[0]() is not tensor:
            return None
        _, version, root_version, note = found
        still = tensor._version == version and note.root._version == root_version
        return note if still else None

    def linear(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Follow a linear operation: sums, means, centring, constants that are added or factors."""
        first = args[0] if args else None
        if not isinstance(first, torch.Tensor):
            return
        others = (*args[1:], *kwargs.values())
        if name in _KEPT and self.alone(first) and not any(_depends(value) for value in others):
            repeats = name == "getitem" and not _plain_index(args[1])
            for tensor in () if repeats else tensors_of(result):
                self.put_alone(tensor)
        if not isinstance(result, torch.Tensor):
            return
        note = self.get(first)
        if name in ("sum", "mean"):
            dims = _axes(first, args, kwargs)
            if dims is not None:
                self._summed(name, first, note, dims, result)
        elif name == "sub" and len(args) == 2 and not kwargs:
            other = self.get(args[1])
            if other is not None and other.kind == "mean" and other.root is first:
                self.put(result, replace(other, kind="centred"))
        elif name == "dropout" and note is not None:  # in evaluation, the same numbers
            self.put(result, note)
        elif note is None or note.kind not in ("squares", "scale", "exps"):
            if name == "add" and len(args) == 2 and note is None:
                self._added(args[1], first, result)
        elif name in _MOVED or (name == "add" and note.kind != "exps" and not _depends(others[0])):
            self.put(result, note)
        elif name in ("mul", "div") and note.kind == "squares" and _number(others[0]) is not None:
            factor = _number(others[0]) or 0.0
            if factor:
                rate = note.rate * factor if name == "mul" else note.rate / factor
                self.put(result, replace(note, rate=rate))

    def _added(self, other: Any, first: torch.Tensor, result: torch.Tensor) -> None:
        note = self.get(other)
        if note is not None and note.kind in ("squares", "scale") and not _depends(first):
            self.put(result, note)

    def _summed(
        self,
        name: str,
        first: torch.Tensor,
        note: Note | None,
        dims: tuple[int, ...],
        result: torch.Tensor,
    ) -> None:
        size = 1
        for axis in dims:
            size *= first.shape[axis]
        if note is None or note.kind not in ("exp", "square"):
            if name == "mean" and note is None:
                self.put(result, Note("mean", first, dims))
        elif note.kind == "exp" and name == "sum" and len(dims) == 1:
            self.put(result, Note("exps", note.root, dims))
        elif note.kind == "square":
            self.put(result, Note("squares", note.root, dims, 1.0 / size if name == "mean" else 1))

    def function(self, name: str, x: torch.Tensor, args: Any, result: Any) -> None:
        """Follow a scalar function of one tensor."""
        if self.alone(x):
            self.put_alone(result)
        note = self.get(x)
        power = _number(args[1]) if name == "pow" and len(args) > 1 else None
        if name == "exp":
            self.put(result, Note("exp", x))
        elif name == "square" or power == 2:
            self.put(result, Note("square", x))
        elif note is None:
            return
        elif note.kind == "squares" and (name in ("sqrt", "rsqrt") or power in (0.5, -0.5)):
            inverse = name == "rsqrt" or power == -0.5
            self.put(result, replace(note, kind="inverse" if inverse else "scale"))
        elif note.kind == "scale" and (name == "reciprocal" or power == -1):
            self.put(result, replace(note, kind="inverse"))
        elif note.kind in ("squares", "scale") and name in _BOUNDED:
            self.put(result, note)

    def put_alone(self, tensor: torch.Tensor) -> None:
        """Remember that each value is a function of one input entry of its own."""
        key = id(tensor)
        reference = weakref.ref(tensor, lambda _: self.own.pop(key, None))
        self.own[key] = reference, tensor._version

    def alone(self, tensor: torch.Tensor) -> bool:
        """Whether each value is a function of one input entry of its own."""
        found = self.own.get(id(tensor))
        return found is not None and found[0]() is tensor and found[1] == tensor._version

    def same(self, top: torch.Tensor, note: Note) -> bool:
        """Whether ``top`` is the tensor whose squares a scale sums: itself, or centred alike."""
        if top is note.root:
            return True
        ours, theirs = self.get(top), self.get(note.root)
        return (
            ours is not None
            and theirs is not None
            and ours.kind == theirs.kind == "centred"
            and ours.root is theirs.root
            and ours.dims == theirs.dims
        )


def along(value: torch.Tensor, like: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor | None:
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


def _axes(x: torch.Tensor, args: Any, kwargs: Any) -> tuple[int, ...] | None:
    dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    if dim is None or isinstance(dim, torch.dtype) or len(args) > 3 or kwargs.get("dtype"):
        return None
    listed = [dim] if isinstance(dim, int) else list(dim)
    return tuple(sorted(axis % x.dim() for axis in listed))


def _plain_index(index: Any) -> bool:
    """Whether an index names each entry at most once."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in parts)


def _number(value: Any) -> float | None:
    if isinstance(value, torch.Tensor):
        return None if value.requires_grad or value.numel() != 1 else float(value)
    return float(value) if isinstance(value, int | float) else None


def _depends(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad
