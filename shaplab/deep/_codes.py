"""Integers, masks and positions of one watched run: where they come from, and what they may do.

Derivatives stop at integers and comparisons, so attributions must be told how to pass. A tensor of
integers or booleans is one of:

- *codes*: each entry is a function of one entry of an integer input. They are followed through
  copies and elementwise operations, and explained where they become numbers: looked up in a table,
  or turned into floats;
- a *comparison* of numbers that depend on the input: a step function of their difference, once it
  is used as a number or to choose between numbers;
- *counts* and other sums of these: the same sums of their numbers;
- *positions* or anything else: a decision, allowed while it is the same for every row.

Cost: a dictionary look-up for each operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from shaplab.deep.graph import META, Capture, tensors_of, walk

__all__: list[str] = []


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


COMPARISONS = _names("eq ne lt le gt ge")
_NEGATED = _names("logical_not invert bitwise_not")
_BOTH = _names("logical_and and bitwise_and")
_EITHER = _names("logical_or or bitwise_or")
_COPIED = _names("""
getitem view reshape flatten unflatten squeeze unsqueeze transpose permute t T select narrow unbind
chunk split split_with_sizes tensor_split contiguous clone expand expand_as repeat index_select
movedim flip roll detach iter swapaxes repeat_interleave ravel broadcast_to view_as reshape_as
""")
_JOINED = _names("cat concat concatenate stack hstack vstack")
_ALONE = _names("""
add sub rsub mul floor_divide remainder fmod neg abs sign clamp clamp_min clamp_max maximum minimum
where masked_fill eq ne lt le gt ge logical_not logical_and logical_or logical_xor and or xor invert
bitwise_and bitwise_or bitwise_xor bitwise_not lshift rshift to long int type type_as cpu cuda bool
byte char short isin floordiv mod bitwise_left_shift bitwise_right_shift square pow div
""")
_CASTS = _names("to double float half bfloat16 type type_as")
_SUMS = _names("sum cumsum mean")
_LOOKED_UP = _names("embedding getitem index_select gather take take_along_dim")


class Codes(Capture):
    """A watched run that follows integers and masks; ``rows`` rows, ``twin`` the other run."""

    def __init__(self, model: Any, handlers: dict[str, Any], rows: int, twin: Any) -> None:
        super().__init__(model, handlers)
        self.rows, self.twin = rows, twin
        self.positions: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.numbers: dict[int, tuple[torch.Tensor, Callable[[], torch.Tensor]]] = {}
        self.watched: dict[int, tuple[torch.Tensor, str]] = {}
        self.decisions: list[tuple[str, Any]] = []

    def begin(self, values: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
        """A point where dependence on the input starts: ``entries`` says which entry of an integer
        input each value is a function of, -1 for none; later axes belong to the same entry."""
        self.refuse(self.calling, "integers of the input have no rule here")

    # Decisions

    def watch(self, places: torch.Tensor, name: str = "") -> None:
        """A tensor of integers that is a decision as soon as it is used."""
        self.watched[id(places)] = (places, name or self.calling)

    def decide(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        if name in ("numpy", "array", "tolist"):
            self.refuse(name, "values leave torch here, where they cannot be followed")
        result = func(*args, **kwargs)
        if name == "logical_not":  # of numbers: whether they are 0
            name, args = "eq", (args[0], 0.0)
        if name in COMPARISONS and isinstance(result, torch.Tensor):
            difference = args[0] - (args[1] if len(args) > 1 else kwargs["other"])
            self.numbers[id(result)] = (result, lambda: self._step(name, difference, result))
            self.watch(result, name)
            return result
        if isinstance(result, torch.Tensor) and name in ("long", "int", "short", "argmax"):
            self.calling = name
        self.alike(name, result)
        return result

    def alike(self, name: str, result: Any) -> None:
        """Refuse a decision unless it is the same for every row, here and in the other run."""
        value: Any = result
        if isinstance(result, torch.Tensor):
            axis = next((i for i, size in enumerate(result.shape) if size == self.rows), None)
            first = result if axis is None else result.narrow(axis, 0, 1)
            if not bool((result == first).all()):
                self.refuse(name, "it depends on the input and differs between rows" + _hint(name))
            value = first.reshape(-1).tolist()
        if self.twin is not None:
            place = len(self.decisions)
            seen = self.twin.decisions[place] if place < len(self.twin.decisions) else None
            if seen != (name, value):
                self.refuse(
                    name,
                    "it depends on the input and differs between explained and background rows"
                    + _hint(name),
                )
        self.decisions.append((name, value))

    # Numbers of integers and masks

    def number(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as floats that depend on the input, where it is known how."""
        known = self.numbers.get(id(tensor))
        if known is not None:
            return known[1]()
        if id(tensor) in self.positions:
            made = self.begin(tensor.double(), self.positions[id(tensor)][1])
            self.numbers[id(tensor)] = (tensor, lambda: made)
            return made
        return tensor

    def _step(self, name: str, difference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """A comparison as the step function of a difference."""
        self.refuse(name, "comparisons have no rule here")

    def choose(self, mask: torch.Tensor, yes: Any, no: Any, native: torch.Tensor) -> torch.Tensor:
        """``where(mask, yes, no)`` for a mask of floats that depends on the input."""
        self.refuse("where", "masks made from the input have no rule here")

    def _known(self, tensor: torch.Tensor) -> bool:
        key = id(tensor)
        return key in self.positions or key in self.numbers or key in self.watched

    def _dispatch(
        self,
        name: str,
        raw: str,
        func: Any,
        args: Any,
        kwargs: Any,
        found: list[torch.Tensor],
        in_place: bool,
    ) -> Any:
        if name in META or not (self.positions or self.numbers or self.watched):
            return super()._dispatch(name, raw, func, args, kwargs, found, in_place)
        known = [t for t in tensors_of((args, kwargs)) if self._known(t)]
        if not known:
            return super()._dispatch(name, raw, func, args, kwargs, found, in_place)
        if name in _LOOKED_UP or name == "embedding_bag":
            made = self._looked_up(name, func, args, kwargs, found)
            if made is not None:
                return made
        if in_place and args[0] is known[0] and not args[0].is_floating_point():
            self._overwritten(name, args, known)
            return func(*args, **kwargs)
        if name in ("where", "masked_fill"):
            plain = torch.Tensor.masked_fill if name == "masked_fill" else func
            made = self._chosen(name, plain, args, kwargs)
            if made is not None:
                return args[0].copy_(made) if in_place else made
        followed = [t for t in known if id(t) in self.positions or id(t) in self.numbers]
        if found or not followed:
            return self._as_numbers(name, raw, func, args, kwargs, in_place, followed)
        result = func(*args, **kwargs)
        if not isinstance(result, torch.Tensor | tuple | list):
            self.alike(name, followed[0])
            return result
        if any(t.is_floating_point() for t in tensors_of(result)):
            return self._as_numbers(name, raw, func, args, kwargs, in_place, followed)
        self._follow(name, func, args, kwargs, followed, result)
        return result

    def _as_numbers(
        self,
        name: str,
        raw: str,
        func: Any,
        args: Any,
        kwargs: Any,
        in_place: bool,
        followed: list[torch.Tensor],
    ) -> Any:
        """The operation on the numbers of codes and masks; on decisions where it needs integers."""
        indexing = name in _LOOKED_UP or name in ("scatter", "scatter_add", "index_put", "setitem")
        masks = name in ("masked_select", "masked_fill", "where", "masked_scatter", "index_fill")
        if indexing or masks or not followed or name in ("one_hot", "bincount", "nonzero"):
            for tensor in tensors_of((args, kwargs)):
                if self._known(tensor):
                    self.alike(self.watched.get(id(tensor), (None, name))[1], tensor)
            found = [tensor for tensor in tensors_of((args, kwargs)) if self.depends(tensor)]
            return super()._dispatch(name, raw, func, args, kwargs, found, in_place)
        kinds = [
            t.dtype
            for t in tensors_of((args, kwargs))
            if t.is_floating_point() and not self._known(t)
        ]
        kinds.append(torch.get_default_dtype())
        keys = {id(t) for t in followed}

        def put(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in keys:
                return tensor
            made = self.number(tensor)
            return made if name in _CASTS else made.to(kinds[0])

        args, kwargs = walk(put, args), walk(put, kwargs)
        found = [tensor for tensor in tensors_of((args, kwargs)) if self.depends(tensor)]
        return super()._dispatch(name, raw, func, args, kwargs, found, in_place)

    def _follow(
        self,
        name: str,
        func: Any,
        args: Any,
        kwargs: Any,
        followed: list[torch.Tensor],
        result: Any,
    ) -> None:
        """Note what the integers are that an operation made of followed integers."""
        codes = all(id(t) in self.positions for t in followed)
        if name in _COPIED or name in _JOINED:
            if codes:
                self._copied(name, func, args, kwargs, result)
                return
            for place, tensor in enumerate(tensors_of(result)):
                self.numbers[id(tensor)] = (tensor, self._later(func, args, kwargs, place))
            return
        if name in ("pad", "constant_pad_nd") and codes:
            self._padded(args, kwargs, followed[0], result)
            return
        if name == "one_hot" and codes:
            entries = self.positions[id(followed[0])][1]
            self.positions[id(result)] = (result, entries[..., None].expand(result.shape))
            return
        if name in _ALONE and codes and isinstance(result, torch.Tensor):
            entries = self._merged(followed, result.shape)
            if entries is not None:
                self.positions[id(result)] = (result, entries)
                return
        logic: dict[str, Any] = {**dict.fromkeys(_NEGATED, _not), **dict.fromkeys(_BOTH, _and)}
        logic |= dict.fromkeys(_EITHER, _or)
        kinds_kept = name in _SUMS or name in ("add", "sub", "mul", "neg")
        if isinstance(result, torch.Tensor) and name in logic and result.dtype == torch.bool:
            self.numbers[id(result)] = (result, self._later(logic[name], args, {}, 0))
        elif isinstance(result, torch.Tensor) and kinds_kept:
            self.numbers[id(result)] = (result, self._later(func, args, kwargs, 0))
        elif isinstance(result, torch.Tensor) and name in ("to", "long", "int", "bool", "type"):
            self.numbers[id(result)] = (result, lambda: self.number(followed[0]))
        elif name in ("clamp", "clamp_min", "clamp_max", "maximum", "minimum"):
            self.numbers[id(result)] = (result, self._later(func, args, kwargs, 0))
        elif name in COMPARISONS and isinstance(result, torch.Tensor) and len(args) > 1:
            made = lambda: self._step(  # noqa: E731
                name, _value(self, args[0]) - _value(self, args[1]), result
            )
            self.numbers[id(result)] = (result, made)
        else:
            for tensor in tensors_of(result):
                self.watch(tensor, name)

    def _later(
        self, func: Callable[..., Any], args: Any, kwargs: Any, place: int
    ) -> Callable[[], torch.Tensor]:
        """The same operation on numbers, when they are asked for."""
        memory: list[torch.Tensor] = []

        def made() -> torch.Tensor:
            if not memory:
                new = walk(lambda t: _value(self, t), args)
                named = {key: value for key, value in kwargs.items() if key != "dtype"}
                with self:  # products and bounds of numbers have rules of their own
                    memory.extend(tensors_of(func(*new, **named)))
            return memory[place]

        return made

    def _copied(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        def place(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) in self.positions:
                return self.positions[id(tensor)][1]
            if name in _JOINED:
                return torch.full_like(tensor, -1, dtype=torch.long)
            return tensor

        moved = func(*walk(place, args), **walk(place, kwargs))
        for tensor, entries in zip(tensors_of(result), tensors_of(moved), strict=True):
            self.positions[id(tensor)] = (tensor, entries)

    def _padded(self, args: Any, kwargs: Any, codes: torch.Tensor, result: torch.Tensor) -> None:
        given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
        if given.get("mode", "constant") not in ("constant", 0):
            self.watch(result, "pad")
            return
        entries = torch.constant_pad_nd(self.positions[id(codes)][1], given["pad"], -1)
        self.positions[id(result)] = (result, entries)

    def _merged(self, followed: list[torch.Tensor], shape: torch.Size) -> Any:
        """The one entry that each value is a function of; None when some have two."""
        if any(len(self.positions[id(t)][1].shape) > len(shape) for t in followed):
            return None
        each = [self.positions[id(t)][1].expand(shape) for t in followed]
        merged = each[0]
        for other in each[1:]:
            if not bool(((merged == other) | (other < 0) | (merged < 0)).all()):
                return None
            merged = torch.maximum(merged, other)
        return merged

    def _overwritten(self, name: str, args: Any, known: list[torch.Tensor]) -> None:
        """Codes that are changed in place stay codes while no other entry is written into them."""
        others = [t for t in known[1:] if id(t) in self.positions]
        entries = self.positions.get(id(args[0]))
        if entries is None or (name == "setitem" and any(t is args[-1] for t in others)):
            self.refuse(name, "it writes integers of the input into others")
        for other in others:
            if self._merged([args[0], other], args[0].shape) is None:
                self.refuse(name, "it writes integers of the input into others")

    def _chosen(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        """``where`` and ``masked_fill`` whose mask depends on the input."""
        given = dict(zip(("input", "mask", "value"), args, strict=False)) | kwargs
        if name == "where" and len(args) == 3:
            mask, yes, no = args
            if isinstance(mask, torch.Tensor) and mask.is_floating_point():  # x.where(mask, other)
                mask, yes = yes, mask
        elif name == "masked_fill" and len(given) == 3:
            mask, yes, no = given["mask"], given["value"], given["input"]
        else:
            return None
        known = id(mask) in self.numbers or id(mask) in self.positions
        floats = any(isinstance(t, torch.Tensor) and t.is_floating_point() for t in (yes, no))
        if not known or not (floats or isinstance(yes, float) or isinstance(no, float)):
            return None
        with torch.no_grad():
            native = func(*args, **kwargs)
        if not native.is_floating_point():
            return None
        far = 1e3  # as good as infinite behind a softmax, and its path can be followed
        native = torch.nan_to_num(native, torch.nan, far, -far)
        yes, no = (
            torch.nan_to_num(torch.as_tensor(t, dtype=native.dtype), torch.nan, far, -far)
            for t in (yes, no)
        )
        return self.choose(self.number(mask).to(native.dtype), yes, no, native)

    def _looked_up(
        self, name: str, func: Any, args: Any, kwargs: Any, found: list[torch.Tensor]
    ) -> Any:
        """A constant table read at codes: explained from there on."""
        if name == "embedding_bag":
            return self._bag(args, kwargs)
        table = args[0] if args else None
        index = args[-1] if name in ("embedding", "getitem", "take") else None
        if name in ("index_select", "gather", "take_along_dim"):
            index = args[2] if len(args) > 2 else kwargs.get("index", kwargs.get("indices"))
        if name == "embedding":
            index = args[1]
        before = 0
        if name == "getitem" and isinstance(index, tuple):
            tensors = [i for i, part in enumerate(index) if isinstance(part, torch.Tensor)]
            plain = all(part == slice(None) for part in index[: tensors[0]]) if tensors else False
            if len(tensors) != 1 or not plain or len(index) != tensors[0] + 1:
                return None
            before, index = tensors[0], index[tensors[0]]
        if found or not isinstance(index, torch.Tensor) or id(index) not in self.positions:
            return None
        if not isinstance(table, torch.Tensor) or self._known(table) or index.dtype == torch.bool:
            return None
        entries = self.positions[id(index)][1]
        result = func(*args, **kwargs)
        if name == "index_select":
            before = (args[1] if len(args) > 1 else kwargs["dim"]) % table.dim()
        if before:
            later = table.dim() - before - 1
            shape = (*[1] * before, *entries.shape, *[1] * later)
            entries = entries.reshape(shape).expand(result.shape)
        if not result.is_floating_point():
            wide = entries.reshape(*entries.shape, *[1] * (result.dim() - entries.dim()))
            self.positions[id(result)] = (result, wide.expand(result.shape))
            return result
        return self.begin(result, entries)

    def _bag(self, args: Any, kwargs: Any) -> Any:
        names = "weight indices offsets scale_grad_by_freq mode sparse per_sample_weights".split()
        names += ["include_last_offset", "padding_idx"]
        given = dict(zip(names, args, strict=False)) | kwargs
        index, offsets = given["indices"], given["offsets"]
        if id(index) not in self.positions:
            return None
        size = len(index) // max(1, len(offsets))
        if not torch.equal(offsets, torch.arange(0, len(index), max(1, size)).to(offsets)):
            self.refuse("embedding_bag", "with bags of different sizes entries belong to no row")
        mode = ("sum", "mean", "max")[given.get("mode", 0)]
        padding = given.get("padding_idx")
        padded = padding is not None and padding >= 0
        if padded and mode == "max":
            self.refuse("embedding_bag", "a maximum that leaves out padding has no rule")
        parts = self.begin(given["weight"][index], self.positions[id(index)][1])
        with self:
            parts = parts.reshape(len(offsets), size, -1)
            count: Any = size
            if given.get("per_sample_weights") is not None:
                parts = parts * given["per_sample_weights"].reshape(len(offsets), size, 1)
            if padded:
                present = (index != padding).to(parts.dtype).reshape(len(offsets), size, 1)
                parts = parts * present
                count = present.sum(1).clamp_min(1)
            if mode == "max":
                total = parts.amax(1)
            else:
                total = parts.sum(1) if mode == "sum" else parts.sum(1) / count
        return total, offsets, index, offsets


def _value(run: Codes, value: Any) -> Any:
    """The numbers of a followed tensor, and anything else as it is."""
    if isinstance(value, torch.Tensor) and (id(value) in run.numbers or id(value) in run.positions):
        return run.number(value)
    return value


def _not(a: torch.Tensor) -> torch.Tensor:
    return 1 - a


def _and(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a * b


def _or(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b - a * b


def _hint(name: str) -> str:
    if name in ("eq", "ne"):
        return "; a mask that only cleans rounding can be left out"
    if name in ("long", "int", "short"):
        return "; pass codes as an integer input of their own"
    if name == "bucketize":
        return "; pass the bins as an integer input of their own"
    if name == "sort":
        return "; where sequences were packed, pad them to one length"
    if name == "embedding":
        return "; an index that counts several entries has no slope: give all rows the same padding"
    return ""
