"""Watch every torch operation of one model run, without touching the model.

A network is a Python program. While it runs under a ``torch.overrides.TorchFunctionMode`` each
torch call passes through ``Capture.__torch_function__`` with its function and arguments, whether it
comes from a module, from ``torch.nn.functional``, from an operator such as ``+`` or from inside
attention. There are no hooks and no tracing, so reused modules, residual links, in-place operations
and Python control flow need no special care: what runs is what is seen.

Each operation is one of five kinds, told by its name:

- *linear* in the tensors that depend on the input: autograd already propagates it exactly;
- a *product* of two such tensors: linear when only one depends on the input;
- *meta*: shapes, devices, dtypes;
- a *decision* (comparison, ``bool``, ``.item()``): allowed only while every row decides alike;
- anything else needs a *handler*, given by the subclass; without one the model is refused by name.

A tensor depends on the input when it requires gradients: parameters are detached as they pass, and
operations run with gradients on even inside the model's own ``no_grad``.

Cost: some microseconds per operation.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from types import FrameType, FunctionType
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily

from shaplab._validation import UnsupportedModelError

__all__: list[str] = []


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


LINEAR = words("""
add sub rsub neg positive negative subtract sum mean cumsum diff trace clone contiguous to type_as
type float double half bfloat16 cpu cuda view reshape flatten unflatten ravel squeeze unsqueeze
transpose permute t T mT H mH swapaxes swapdims adjoint movedim moveaxis expand expand_as view_as
reshape_as repeat tile repeat_interleave cat concat concatenate stack hstack vstack dstack
column_stack row_stack chunk split split_with_sizes unsafe_chunk unsafe_split tensor_split hsplit
vsplit unbind iter select narrow getitem index_select gather take take_along_dim masked_fill
masked_select where index_put index_fill index_copy index_add scatter scatter_add setitem copy fill
zero flip fliplr flipud roll rot90 diag diagonal diag_embed tril triu unfold as_strided alias
broadcast_to broadcast_tensors atleast_1d atleast_2d atleast_3d meshgrid block_diag pad
constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
replication_pad2d replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle
native_channel_shuffle im2col col2im upsample_nearest1d upsample_nearest2d upsample_nearest3d
upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d grid_sampler
avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d fold
dropout alpha_dropout feature_dropout feature_alpha_dropout batch_norm pack_padded_sequence
pad_packed_sequence fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2
fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift real imag view_as_real
view_as_complex complex conj resolve_conj cfloat cdouble upsample_nearest_exact1d
upsample_nearest_exact2d upsample_nearest_exact3d upsample_bilinear2d_aa upsample_bicubic2d_aa
""")
PRODUCTS = words("""
mul multiply matmul mm bmm mv dot vdot inner outer ger kron linear conv1d conv2d conv3d
conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc convolution einsum tensordot addmm
addmv addbmm baddbmm addr addcmul bilinear chain_matmul
""")
META = words("""
shape size dim ndim ndimension numel nelement dtype device layout requires_grad requires_grad_
is_leaf is_cuda is_cpu is_nested is_sparse is_quantized is_meta is_mps is_xla is_xpu is_contiguous
is_complex is_floating_point is_inference is_pinned is_conj is_neg is_same_size is_signed stride
storage_offset element_size itemsize nbytes get_device len names has_names data_ptr untyped_storage
storage grad grad_fn retain_grad hash result_type can_cast zeros_like ones_like empty_like
full_like new_zeros new_ones new_empty new_full new_tensor output_nr version retains_grad
register_hook type_ name device_count format is_grad_enabled can_cast promote_types
broadcast_shapes is_tensor is_storage set_grad_enabled jit_internal
""")
DECISIONS = words("""
eq ne lt le gt ge equal not_equal less less_equal greater greater_equal isnan isinf isfinite
isclose allclose argmax argmin argsort bool any all int long item tolist nonzero is_nonzero
count_nonzero logical_not logical_and logical_or logical_xor and or xor invert contains assert
assert_async index numpy array complex byte char short searchsorted bucketize isneginf isposinf
signbit float_power_
""")
RANDOM = words("""
rand randn randint randperm rand_like randn_like randint_like bernoulli multinomial normal poisson
uniform exponential cauchy geometric log_normal random rrelu_with_noise gumbel_softmax
""")
# Linear in the first argument, not in the others.
_LINEAR_IN_FIRST = words("grid_sampler batch_norm")
WHOLE = words("""
max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
""")
_BACKWARD = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
DROPOUT = words("""
dropout alpha_dropout feature_dropout feature_alpha_dropout
""")
_ALIAS = dict(
    pair.split("=")
    for pair in """
iadd=add radd=add isub=sub imul=mul rmul=mul itruediv=div truediv=div rtruediv=rdiv divide=div
true_divide=div ipow=pow multiply=mul clip=clamp absolute=abs concat=cat swapdims=transpose
expit=sigmoid subtract=sub iand=and ior=or
ixor=xor
""".split()
)


_OPERATORS_IN_PLACE = words("add sub mul truediv pow and or xor")
_HALVES = (torch.float16, torch.bfloat16)


class Call(NamedTuple):
    """One call of a torch function inside the model.

    ``name`` is the plain name of the operation (``__iadd__`` and ``add_`` are ``add``), ``called``
    the name of what was called.
    """

    name: str
    called: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    in_place: bool = False

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument that may be given by place or by name."""
        if len(self.args) > place:
            return self.args[place]
        return self.kwargs.get(name, default)

    def named(self, names: str) -> dict[str, Any]:
        """All arguments by name, where ``names`` are those of the places."""
        return dict(zip(names.split(), self.args, strict=False)) | self.kwargs

    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, in order."""
        return tensors_of((self.args, self.kwargs))

    def changed(self, change: Callable[[Tensor], Any]) -> Call:
        """The same call with every tensor replaced by ``change(tensor)``."""
        return self._replace(args=walk(change, self.args), kwargs=walk(change, self.kwargs))

    def do(self) -> Any:
        """Call the function."""
        return self.func(*self.args, **self.kwargs)


def call_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """A call as torch reports it."""
    name, called = operation(func)
    return Call(name, called, func, args, kwargs, _writes(called))


def operation(func: Callable[..., Any]) -> tuple[str, str]:
    """The plain name of an operation (``__iadd__`` and ``add_`` are ``add``) and the name as
    called."""
    called = getattr(func, "__name__", type(func).__name__)
    if called in ("__get__", "__set__", "__delete__"):
        owner = getattr(func, "__self__", None)
        return getattr(owner, "__name__", called), called
    plain = called.strip("_").removeprefix("special_").removeprefix("linalg_")
    plain = plain.removesuffix("_with_indices")
    return _ALIAS.get(plain, plain), called


def _writes(called: str) -> bool:
    """Whether a name is that of an operation that changes its first argument."""
    if called in ("__setitem__", "__set__"):
        return True
    if called.endswith("__"):
        return called.startswith("__i") and called[3:-2] in _OPERATORS_IN_PLACE
    return called.endswith("_")


def walk(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Copy a nest of tuples, lists and dicts with every tensor replaced by ``change(tensor)``."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        parts = [walk(change, part) for part in value]
        if hasattr(value, "n_fields"):  # torch's named results take a sequence
            return type(value)(parts)
        if hasattr(value, "_fields"):
            return type(value)(*parts)
        return tuple(parts)
    if isinstance(value, list):
        return [walk(change, part) for part in value]
    if isinstance(value, dict):
        return {key: walk(change, part) for key, part in value.items()}
    return value


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors of a nest, in order."""
    found: list[Tensor] = []
    walk(found.append, value)
    return found


def as_function(
    call: Call, depends: Callable[[Tensor], bool]
) -> tuple[list[Tensor], Callable[[list[Tensor]], Any]]:
    """The tensors of a call that depend on the input, and the call as a function of them."""
    tensors = call.tensors()
    direct = [place for place, value in enumerate(call.args) if isinstance(value, Tensor)]
    if len(direct) == len(tensors) and all(depends(tensor) for tensor in tensors):
        # No nests and no constants: nearly every call.
        # not the call, which would keep its tensors alive
        func = call.func
        kwargs = call.kwargs
        template = [None if isinstance(value, Tensor) else value for value in call.args]

        def direct_function(values: list[Tensor]) -> Any:
            args = list(template)
            for place, value in zip(direct, values, strict=True):
                args[place] = value
            return func(*args, **kwargs)

        return tensors, direct_function
    places = [place for place, tensor in enumerate(tensors) if depends(tensor)]
    constant = call.changed(Tensor.detach)

    def function(values: list[Tensor]) -> Any:
        values_left = iter(values)
        places_left = itertools.count()

        def put(tensor: Tensor) -> Tensor:
            if next(places_left) in places:
                return next(values_left)
            # A constant in half precision, beside values that were widened for their rule.
            if tensor.dtype in _HALVES and values[0].dtype == torch.float32:
                return tensor.float()
            return tensor

        return constant.changed(put).do()

    return [tensors[place] for place in places], function


_REENTRANT: dict[Any, Callable[..., Any] | None] = {}


def reentrant(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """A copy of a Python-level torch function that does not ask who overrides it, or None for
    builtins.

    The copy has its own globals, in which the question "does a mode want this call?" answers no.
    The calls inside it are asked as usual, so the builtins within attention come to the mode one by
    one.
    """
    if func not in _REENTRANT:
        _REENTRANT[func] = _unasked(func) if isinstance(func, FunctionType) else None
    return _REENTRANT[func]


def _unasked(func: FunctionType) -> Callable[..., Any] | None:
    names = [name for name in func.__code__.co_names if name.startswith("has_torch_function")]
    questions = [name for name in names if name in func.__globals__]
    if not questions:
        return None
    space = {**func.__globals__, **dict.fromkeys(questions, _answer_no)}
    copy = FunctionType(func.__code__, space, func.__name__, func.__defaults__, func.__closure__)
    copy.__kwdefaults__ = func.__kwdefaults__
    return copy


def _answer_no(*_: Any) -> bool:
    return False


def _frames() -> Iterator[FrameType]:
    """The frames of the present call, from the caller outwards."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def place_of_call() -> str:
    """Where the model makes the present call: the nearest line outside torch and this part."""
    for frame in _frames():
        path = frame.f_code.co_filename.replace("\\", "/")
        if "/torch/" not in path and "/shaplab/deep/" not in path:
            return f" at {path}:{frame.f_lineno}"
    return ""


class Capture(TorchFunctionMode):
    """One watched run of ``model``; subclasses say what a non-linear operation does.

    Parameters
    ----------
    model : torch.nn.Module or callable.
    handlers : name of operation -> ``handler(run, call)``, called when some argument depends on the
        input and the operation is not linear in it; the mode is off meanwhile, and ``with run:``
        turns it on again for a composition of simpler operations.
    """

    def __init__(self, model: Any, handlers: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        self.model = model
        self.handlers = handlers
        self.owned: set[int] = set()
        if isinstance(model, torch.nn.Module):
            self.owned = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self.leaves: dict[int, Tensor] = {}
        self.calling = ""

    # What a subclass may change

    def linear(self, call: Call, inputs: list[Tensor]) -> Any:
        """A linear operation: autograd knows it. ``inputs`` depend on the input of the model."""
        return call.do()

    def decide(self, call: Call) -> Any:
        """A decision that depends on the input."""
        self.refuse(call.name, "its result depends on the input")

    def custom(self, call: Call) -> Any:
        """A custom ``autograd.Function``, as one operation."""
        call = call.changed(self._foreign)
        if not any(self.depends(tensor) for tensor in call.tensors()):
            return call.do()
        self.calling = call.name
        handler = self.handlers.get("anything")
        if handler is None:
            self.refuse(call.name)
        with _pop_mode_temporarily(), torch.enable_grad():
            return handler(self, call)

    def writing(self, target: Tensor) -> None:
        """Called before ``target`` is changed in place."""

    # The mechanism

    def refuse(
        self, name: str, why: str = "no rule propagates attributions through it"
    ) -> NoReturn:
        """Raise ``UnsupportedModelError`` that names the operation and where the model calls it."""
        raise UnsupportedModelError(
            f"model: expected operations that can be explained, got "
            f"`{name}`{self._module_of_call()}{place_of_call()}: {why}. "
            "Rewrite this step with supported operations, or explain the part of the "
            "model after it."
        )

    def _module_of_call(self) -> str:
        """The innermost module of the model that makes the present call."""
        if not isinstance(self.model, torch.nn.Module):
            return ""
        names = {id(part): name for name, part in self.model.named_modules()}
        for frame in _frames():
            owner = frame.f_locals.get("self")
            if id(owner) in names and owner is not self.model:
                return f" in module {names[id(owner)]!r} ({type(owner).__name__})"
        return ""

    def leaf(self, values: Tensor) -> Tensor:
        """A new point where dependence on the input starts."""
        start = values.detach().clone().requires_grad_()
        self.leaves[id(start)] = start
        return start

    def depends(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on the input."""
        return tensor.requires_grad

    def _foreign(self, tensor: Tensor) -> Tensor:
        """Parameters are detached, so that only what depends on the input requires gradients."""
        if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self.leaves:
            return tensor.detach()
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = call_of(func, args, kwargs or {})
        if func in _BACKWARD:
            self.refuse(call.name, "the model takes derivatives of its own")
        if call.name not in LINEAR and call.name not in WHOLE:
            composition = reentrant(func)
            if composition is not None:
                with self:
                    return composition(*call.args, **call.kwargs)
        if call.name == "nested_tensor_from_mask_left_aligned":
            return False  # an encoder then keeps its padded form instead of nested tensors
        if call.called == "__get__" and call.name in META:
            return call.do()
        if call.kwargs.get("out") is not None:
            self.refuse(call.name, "it writes into an `out` tensor")
        if call.in_place and call.args and isinstance(call.args[0], Tensor):
            if id(call.args[0]) in self.owned and call.called != "requires_grad_":
                self.refuse(call.called, "it writes into a parameter or buffer of the model")
            self.writing(call.args[0])
        call = call.changed(self._foreign)
        inputs = [tensor for tensor in call.tensors() if self.depends(tensor)]
        with torch.enable_grad():
            return self._dispatch(call, inputs)

    def _dispatch(self, call: Call, inputs: list[Tensor]) -> Any:
        """Do what the kind of an operation asks for."""
        self._check_evaluation(call, inputs)
        if not inputs or call.name in META:
            return call.do()
        if call.name in ("detach", "data", "detach_copy"):
            # Attributions pass where derivatives are asked to stop.
            view = Tensor.view_as
            same = Call("view_as", "view_as", view, (call.args[0], call.args[0]), {})
            return self.linear(same, inputs)
        if _is_linear(call, inputs):
            return self.linear(call, inputs)
        if call.name in DECISIONS:
            return self.decide(call)
        self.calling = call.name if call.called == "__get__" else call.called.strip("_")
        handler = self.handlers.get("product" if call.name in PRODUCTS else call.name)
        if handler is None:
            handler = self.handlers.get("anything")
        if handler is None:
            self.refuse(self.calling)
        if not call.in_place:
            return handler(self, call)
        target = call.args[0]
        result = handler(self, self._out_of_place(call))
        self.writing(target)
        target.copy_(result)
        return target

    def _check_evaluation(self, call: Call, inputs: list[Tensor]) -> None:
        """Refuse what gives one row other numbers in another batch or call."""
        if call.name in RANDOM:
            self.refuse(call.name, "it draws random numbers")
        if call.name in DROPOUT and _drops(call):
            self.refuse(call.name, "dropout is active; call model.eval() or pass training=False")
        if call.name == "batch_norm" and call.argument(5, "training"):
            if inputs:
                why = "it uses the statistics of the batch, so rows are not explained one by one"
                self.refuse(call.name, why)
            why = "it would update its running statistics; call model.eval()"
            self.refuse(call.name, why)

    def _out_of_place(self, call: Call) -> Call:
        """The same operation with a result of its own."""
        plain = call.called.strip("_")
        if call.called.startswith("__i"):
            plain = plain[1:]
        for space in (Tensor, torch._C._nn, torch):
            if hasattr(space, plain):
                return call._replace(func=getattr(space, plain), in_place=False)
        self.refuse(call.called)


def _is_linear(call: Call, inputs: list[Tensor]) -> bool:
    """Whether an operation is linear in the tensors that depend on the input, all together."""
    several = len(inputs) > 1
    if call.name in LINEAR:
        return not (several and call.name in _LINEAR_IN_FIRST)
    if several:
        return False
    if call.name == "div":
        return inputs[0] is call.args[0] and not call.kwargs.get("rounding_mode")
    return call.name in PRODUCTS


def _drops(call: Call) -> bool:
    active = call.kwargs.get("training", call.kwargs.get("train"))
    if active is None:
        active = call.argument(2, "training", True)
    return bool(active) and call.argument(1, "p", 0.5) > 0
