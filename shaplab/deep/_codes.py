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

Chapter: deep/graph
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from shaplab.deep.graph import META, Call, Capture, tensors_of, walk, words

__all__: list[str] = []

_COMPARISONS = words("eq ne lt le gt ge")
_COPIED = words("""
getitem view reshape flatten unflatten squeeze unsqueeze transpose permute t T select narrow unbind
chunk split split_with_sizes tensor_split contiguous clone expand expand_as repeat index_select
movedim flip roll detach iter swapaxes repeat_interleave ravel broadcast_to view_as reshape_as
""")
_JOINED = words("cat concat concatenate stack hstack vstack")
_ENTRY_BY_ENTRY = words("""
add sub rsub mul floor_divide remainder fmod neg abs sign clamp clamp_min clamp_max maximum minimum
where masked_fill eq ne lt le gt ge logical_not logical_and logical_or logical_xor and or xor invert
bitwise_and bitwise_or bitwise_xor bitwise_not lshift rshift to long int type type_as cpu cuda bool
byte char short isin floordiv mod bitwise_left_shift bitwise_right_shift square pow div
""")
_FLOAT_CASTS = words("to double float half bfloat16 type type_as")
_INTEGER_CASTS = words("to long int bool type")
_SAME_OF_NUMBERS = words("sum cumsum mean add sub mul neg")
_BOUNDED = words("clamp clamp_min clamp_max maximum minimum")
_LOOKED_UP = words("embedding getitem index_select gather take take_along_dim")
# Here integers are places, and masks choose: neither can be replaced by its numbers.
_NEED_INTEGERS = _LOOKED_UP | words("""
scatter scatter_add index_put setitem masked_select masked_fill where masked_scatter index_fill
one_hot bincount nonzero
""")
_LEAVES_TORCH = words("numpy array tolist")
_FAR = 1e3  # as good as infinite behind a softmax, and its path can be followed
_HINTS = {
    "eq": "a mask that only cleans rounding can be left out",
    "ne": "a mask that only cleans rounding can be left out",
    "long": "pass codes as an integer input of their own",
    "int": "pass codes as an integer input of their own",
    "short": "pass codes as an integer input of their own",
    "bucketize": "pass the bins as an integer input of their own",
    "sort": "where sequences were packed, pad them to one length",
    "embedding": "an index that counts several entries has no slope; give all rows one padding",
}


def _not(a: Tensor) -> Tensor:
    return 1 - a


def _and(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def _or(a: Tensor, b: Tensor) -> Tensor:
    return a + b - a * b


# Logic of masks, as arithmetic of zeros and ones.
_LOGIC: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("logical_not", "invert", "bitwise_not"), _not),
    **dict.fromkeys(("logical_and", "and", "bitwise_and"), _and),
    **dict.fromkeys(("logical_or", "or", "bitwise_or"), _or),
}


class Codes(Capture):
    """A watched run that follows integers and masks; ``rows`` rows, ``twin`` the other run."""

    def __init__(self, model: Any, handlers: dict[str, Any], rows: int, twin: Any) -> None:
        super().__init__(model, handlers)
        self.rows = rows
        self.twin = twin
        # By id of a tensor, which is kept so that the id stays its own: the entries that codes
        # come from, how numbers are made of integers, and who made integers that are decisions.
        self.positions: dict[int, tuple[Tensor, Tensor]] = {}
        self.numbers: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}
        self.watched: dict[int, tuple[Tensor, str]] = {}
        self.decisions: list[tuple[str, Any]] = []

    # What a subclass must say

    def begin(self, values: Tensor, entries: Tensor) -> Tensor:
        """A point where dependence on the input starts: ``entries`` says which entry of an integer
        input each value is a function of, -1 for none; later axes belong to the same entry."""
        self.refuse(self.calling, "integers of the input have no rule here")

    def step(self, name: str, difference: Tensor, mask: Tensor) -> Tensor:
        """A comparison as the step function of a difference."""
        self.refuse(name, "comparisons have no rule here")

    def choose(self, mask: Tensor, yes: Any, no: Any, native: Tensor) -> Tensor:
        """``where(mask, yes, no)`` for a mask of floats that depends on the input."""
        self.refuse("where", "masks made from the input have no rule here")

    # Decisions

    def watch(self, places: Tensor, name: str = "") -> None:
        """A tensor of integers that is a decision as soon as it is used."""
        self.watched[id(places)] = (places, name or self.calling)

    def decide(self, call: Call) -> Any:
        if call.name in _LEAVES_TORCH:
            self.refuse(call.name, "values leave torch here, where they cannot be followed")
        result = call.do()
        name = call.name
        other = call.argument(1, "other")
        if name == "logical_not":  # of numbers: whether they are 0
            name = "eq"
            other = 0.0
        if name in _COMPARISONS and isinstance(result, Tensor):
            difference = call.args[0] - other
            self._put_number(result, lambda: self.step(name, difference, result))
            self.watch(result, name)
            return result
        if isinstance(result, Tensor) and name in ("long", "int", "short", "argmax"):
            self.calling = name
        self.check_alike(name, result)
        return result

    def check_alike(self, name: str, result: Any) -> None:
        """Refuse a decision unless it is the same for every row, here and in the other run."""
        value: Any = result
        if isinstance(result, Tensor):
            axis = next((i for i, size in enumerate(result.shape) if size == self.rows), None)
            first = result if axis is None else result.narrow(axis, 0, 1)
            if not bool((result == first).all()):
                self._refuse_decision(name, "rows")
            value = first.reshape(-1).tolist()
        if self.twin is not None:
            place = len(self.decisions)
            seen = self.twin.decisions[place] if place < len(self.twin.decisions) else None
            if seen != (name, value):
                self._refuse_decision(name, "explained and background rows")
        self.decisions.append((name, value))

    def _refuse_decision(self, name: str, between: str) -> None:
        hint = f"; {_HINTS[name]}" if name in _HINTS else ""
        self.refuse(name, f"it depends on the input and differs between {between}{hint}")

    # Numbers of integers and masks

    def number(self, tensor: Tensor) -> Tensor:
        """The tensor as floats that depend on the input, where it is known how."""
        known = self.numbers.get(id(tensor))
        if known is not None:
            return known[1]()
        if id(tensor) in self.positions:
            made = self.begin(tensor.double(), self._entries(tensor))
            self._put_number(tensor, lambda: made)
            return made
        return tensor

    def _entries(self, codes: Tensor) -> Tensor:
        return self.positions[id(codes)][1]

    def _put_entries(self, codes: Tensor, entries: Tensor) -> None:
        self.positions[id(codes)] = (codes, entries)

    def _put_number(self, tensor: Tensor, made: Callable[[], Tensor]) -> None:
        self.numbers[id(tensor)] = (tensor, made)

    def _followed(self, value: Any) -> bool:
        """Whether it is a tensor whose numbers are known."""
        return id(value) in self.positions or id(value) in self.numbers

    def _known(self, tensor: Tensor) -> bool:
        return self._followed(tensor) or id(tensor) in self.watched

    def _value(self, value: Any) -> Any:
        """The numbers of a followed tensor, and anything else as it is."""
        if isinstance(value, Tensor) and self._followed(value):
            return self.number(value)
        return value

    def _later(self, func: Callable[..., Any], call: Call, place: int = 0) -> Callable[[], Any]:
        """A function of the numbers of a call's arguments, when it is asked for."""
        memory: list[Tensor] = []

        def made() -> Tensor:
            if not memory:
                args = walk(self._value, call.args)
                kwargs = {key: value for key, value in call.kwargs.items() if key != "dtype"}
                with self:  # products and bounds of numbers have rules of their own
                    memory.extend(tensors_of(func(*args, **kwargs)))
            return memory[place]

        return made

    # What an operation does with integers

    def _dispatch(self, call: Call, inputs: list[Tensor]) -> Any:
        if call.name in META or not (self.positions or self.numbers or self.watched):
            return super()._dispatch(call, inputs)
        known = [tensor for tensor in call.tensors() if self._known(tensor)]
        if not known:
            return super()._dispatch(call, inputs)
        if call.name in _LOOKED_UP or call.name == "embedding_bag":
            made = self._looked_up(call, inputs)
            if made is not None:
                return made
        if call.in_place and call.args[0] is known[0] and not known[0].is_floating_point():
            self._check_overwritten(call, known)
            return call.do()
        if call.name in ("where", "masked_fill"):
            made = self._chosen_by_mask(call)
            if made is not None:
                return call.args[0].copy_(made) if call.in_place else made
        picks = call.tensors()[1:] if call.name in ("getitem", "index_select") else []
        for index in filter(self._known, picks):  # which entries to take is a decision
            self.check_alike(self.watched.get(id(index), (None, call.name))[1], index)
        call = call.changed(lambda t: t.clone() if any(t is pick for pick in picks) else t)
        followed = [tensor for tensor in call.tensors() if self._followed(tensor)]
        if inputs or not followed:
            return self._as_numbers(call, followed)
        result = call.do()
        if not isinstance(result, Tensor | tuple | list):
            self.check_alike(call.name, followed[0])
            return result
        if any(tensor.is_floating_point() for tensor in tensors_of(result)):
            return self._as_numbers(call, followed)
        self._follow(call, followed, result)
        return result

    def _as_numbers(self, call: Call, followed: list[Tensor]) -> Any:
        """The operation on the numbers of codes and masks; on decisions where it needs integers."""
        if call.name in _NEED_INTEGERS or not followed:
            for tensor in call.tensors():
                if self._known(tensor):
                    maker = self.watched.get(id(tensor), (None, call.name))[1]
                    self.check_alike(maker, tensor)
        else:
            floats = [
                t.dtype for t in call.tensors() if t.is_floating_point() and not self._known(t)
            ]
            dtype = floats[0] if floats else torch.get_default_dtype()
            keys = {id(tensor) for tensor in followed}

            def put(tensor: Tensor) -> Tensor:
                if id(tensor) not in keys:
                    return tensor
                made = self.number(tensor)
                return made if call.name in _FLOAT_CASTS else made.to(dtype)

            call = call.changed(put)
        inputs = [tensor for tensor in call.tensors() if self.depends(tensor)]
        return super()._dispatch(call, inputs)

    def _follow(self, call: Call, followed: list[Tensor], result: Any) -> None:
        """Note what the integers are that an operation made of followed integers."""
        all_codes = all(id(tensor) in self.positions for tensor in followed)
        if all_codes and self._follow_codes(call, followed, result):
            return
        if call.name in _COPIED or call.name in _JOINED:
            for place, tensor in enumerate(tensors_of(result)):
                self._put_number(tensor, self._later(call.func, call, place))
            return
        if not isinstance(result, Tensor):
            for tensor in tensors_of(result):
                self.watch(tensor, call.name)
        elif call.name in _LOGIC and result.dtype == torch.bool:
            by_arithmetic = call._replace(kwargs={})
            self._put_number(result, self._later(_LOGIC[call.name], by_arithmetic))
        elif call.name in _SAME_OF_NUMBERS or call.name in _BOUNDED:
            self._put_number(result, self._later(call.func, call))
        elif call.name in _INTEGER_CASTS:
            self._put_number(result, lambda: self.number(followed[0]))
        elif call.name in _COMPARISONS and len(call.args) > 1:
            one, other = call.args[:2]
            self._put_number(
                result,
                lambda: self.step(call.name, self._value(one) - self._value(other), result),
            )
        else:
            self.watch(result, call.name)

    # Codes: each entry a function of one entry of an integer input

    def _follow_codes(self, call: Call, followed: list[Tensor], result: Any) -> bool:
        """Note the entries of integers made of codes; False when some have more than one."""
        if call.name in _COPIED or call.name in _JOINED:
            self._copy_entries(call, result)
            return True
        if call.name in ("pad", "constant_pad_nd"):
            self._pad_entries(call, followed[0], result)
            return True
        if call.name == "one_hot":
            entries = self._entries(followed[0])
            self._put_entries(result, entries[..., None].expand(result.shape))
            return True
        if call.name in _ENTRY_BY_ENTRY and isinstance(result, Tensor):
            merged = self._merged_entries(followed, result.shape)
            if merged is not None:
                self._put_entries(result, merged)
                return True
        return False

    def _copy_entries(self, call: Call, result: Any) -> None:
        """The same operation on entry numbers; constants that are joined have none."""

        def entries(tensor: Tensor) -> Tensor:
            if id(tensor) in self.positions:
                return self._entries(tensor)
            return torch.full_like(tensor, -1, dtype=torch.long) if call.name in _JOINED else tensor

        moved = call.changed(entries).do()
        for tensor, places in zip(tensors_of(result), tensors_of(moved), strict=True):
            self._put_entries(tensor, places)

    def _pad_entries(self, call: Call, codes: Tensor, result: Tensor) -> None:
        given = call.named("input pad mode value")
        if given.get("mode", "constant") not in ("constant", 0):
            self.watch(result, "pad")
            return
        self._put_entries(result, torch.constant_pad_nd(self._entries(codes), given["pad"], -1))

    def _merged_entries(self, followed: list[Tensor], shape: torch.Size) -> Tensor | None:
        """The one entry that each value is a function of; None when some have two."""
        each = [self._entries(tensor) for tensor in followed]
        if any(entries.dim() > len(shape) for entries in each):
            return None
        merged = each[0].expand(shape)
        for entries in each[1:]:
            other = entries.expand(shape)
            if not bool(((merged == other) | (other < 0) | (merged < 0)).all()):
                return None
            merged = torch.maximum(merged, other)
        return merged

    def _check_overwritten(self, call: Call, known: list[Tensor]) -> None:
        """Codes that are changed in place stay codes while no other entry is written into them."""
        target = call.args[0]
        others = [tensor for tensor in known[1:] if id(tensor) in self.positions]
        moved = call.name == "setitem" and any(tensor is call.args[-1] for tensor in others)
        mixed = id(target) not in self.positions or moved
        if mixed or any(self._merged_entries([target, o], target.shape) is None for o in others):
            self.refuse(call.name, "it writes integers of the input into others")

    # Choices by a mask

    def _chosen_by_mask(self, call: Call) -> Tensor | None:
        """``where`` and ``masked_fill`` whose mask depends on the input; None for others."""
        sides = _sides_of_choice(call)
        if sides is None or not self._followed(sides[0]):
            return None
        mask, yes, no = sides
        if not (_is_float(yes) or _is_float(no)):
            return None
        func = Tensor.masked_fill if call.name == "masked_fill" else call.func
        with torch.no_grad():
            native = func(*call.args, **call.kwargs)
        if not native.is_floating_point():
            return None
        yes = torch.as_tensor(yes, dtype=native.dtype)
        no = torch.as_tensor(no, dtype=native.dtype)
        native, yes, no = (torch.nan_to_num(t, torch.nan, _FAR, -_FAR) for t in (native, yes, no))
        return self.choose(self.number(mask).to(native.dtype), yes, no, native)

    # Tables

    def _looked_up(self, call: Call, inputs: list[Tensor]) -> Any:
        """A constant table read at codes: explained from there on. None for other look-ups."""
        if call.name == "embedding_bag":
            return self._bag(call)
        table = call.args[0] if call.args else None
        index, before = _index_of(call)
        if inputs or not isinstance(index, Tensor) or id(index) not in self.positions:
            return None
        if not isinstance(table, Tensor) or self._known(table) or index.dtype == torch.bool:
            return None
        entries = self._entries(index)
        result = call.do()
        if before:
            # The entries stand behind axes of the table that are read whole.
            later = table.dim() - before - 1
            shape = (*[1] * before, *entries.shape, *[1] * later)
            entries = entries.reshape(shape).expand(result.shape)
        if result.is_floating_point():
            return self.begin(result, entries)
        wide = entries.reshape(*entries.shape, *[1] * (result.dim() - entries.dim()))
        self._put_entries(result, wide.expand(result.shape))
        return result

    def _bag(self, call: Call) -> Any:
        """Bags of one size, as a look-up and a sum, mean or maximum; None for constant ones."""
        given = call.named(
            "weight indices offsets scale_grad_by_freq mode sparse per_sample_weights "
            "include_last_offset padding_idx"
        )
        index = given["indices"]
        offsets = given["offsets"]
        if id(index) not in self.positions:
            return None
        bags = len(offsets)
        size = len(index) // max(1, bags)
        if not torch.equal(offsets, torch.arange(0, len(index), max(1, size)).to(offsets)):
            self.refuse("embedding_bag", "with bags of different sizes entries belong to no row")
        mode = ("sum", "mean", "max")[given.get("mode", 0)]
        padding = given.get("padding_idx")
        has_padding = padding is not None and padding >= 0
        if has_padding and mode == "max":
            self.refuse("embedding_bag", "a maximum that leaves out padding has no rule")
        vectors = self.begin(given["weight"][index], self._entries(index))
        with self:
            vectors = vectors.reshape(bags, size, -1)
            count: Any = size
            if given.get("per_sample_weights") is not None:
                vectors = vectors * given["per_sample_weights"].reshape(bags, size, 1)
            if has_padding:
                present = (index != padding).to(vectors.dtype).reshape(bags, size, 1)
                vectors = vectors * present
                count = present.sum(1).clamp_min(1)
            if mode == "max":
                total = vectors.amax(1)
            else:
                total = vectors.sum(1) if mode == "sum" else vectors.sum(1) / count
        return total, offsets, index, offsets


def _sides_of_choice(call: Call) -> tuple[Any, Any, Any] | None:
    """Mask, value where it is true, value where it is not."""
    given = call.named("input mask value")
    if call.name == "masked_fill":
        return (given["mask"], given["value"], given["input"]) if len(given) == 3 else None
    if len(call.args) != 3:
        return None
    mask, yes, no = call.args
    if isinstance(mask, Tensor) and mask.is_floating_point():  # x.where(mask, other)
        mask, yes = yes, mask
    return mask, yes, no


def _is_float(value: Any) -> bool:
    return value.is_floating_point() if isinstance(value, Tensor) else isinstance(value, float)


def _index_of(call: Call) -> tuple[Any, int]:
    """Where a look-up reads its table, and how many axes of the table stand before."""
    if call.name == "embedding":
        return call.args[1], 0
    if call.name in ("index_select", "gather", "take_along_dim"):
        index = call.argument(2, "index", call.kwargs.get("indices"))
        if call.name != "index_select":
            return index, 0
        return index, call.argument(1, "dim") % call.argument(0, "input").dim()
    index = call.args[-1]
    if call.name == "take" or not isinstance(index, tuple):
        return index, 0
    # One tensor behind whole axes, and nothing behind it.
    places = [place for place, part in enumerate(index) if isinstance(part, Tensor)]
    if len(places) != 1 or len(index) != places[0] + 1:
        return None, 0
    if any(part != slice(None) for part in index[:-1]):
        return None, 0
    return index[-1], places[0]
