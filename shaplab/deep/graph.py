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

import sys
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any, NoReturn

import torch
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily

from shaplab._validation import UnsupportedModelError

__all__: list[str] = []


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LINEAR = _names("""
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
PRODUCTS = _names("""
mul multiply matmul mm bmm mv dot vdot inner outer ger kron linear conv1d conv2d conv3d
conv_transpose1d conv_transpose2d conv_transpose3d conv_tbc convolution einsum tensordot addmm
addmv addbmm baddbmm addr addcmul bilinear chain_matmul
""")
META = _names("""
shape size dim ndim ndimension numel nelement dtype device layout requires_grad requires_grad_
is_leaf is_cuda is_cpu is_nested is_sparse is_quantized is_meta is_mps is_xla is_xpu is_contiguous
is_complex is_floating_point is_inference is_pinned is_conj is_neg is_same_size is_signed stride
storage_offset element_size itemsize nbytes get_device len names has_names data_ptr untyped_storage
storage grad grad_fn retain_grad hash result_type can_cast zeros_like ones_like empty_like
full_like new_zeros new_ones new_empty new_full new_tensor output_nr version retains_grad
register_hook type_ name device_count format is_grad_enabled can_cast promote_types
broadcast_shapes is_tensor is_storage set_grad_enabled jit_internal
""")
DECISIONS = _names("""
eq ne lt le gt ge equal not_equal less less_equal greater greater_equal isnan isinf isfinite
isclose allclose argmax argmin argsort bool any all int long item tolist nonzero is_nonzero
count_nonzero logical_not logical_and logical_or logical_xor and or xor invert contains assert
assert_async index numpy array complex byte char short searchsorted bucketize isneginf isposinf
signbit float_power_
""")
RANDOM = _names("""
rand randn randint randperm rand_like randn_like randint_like bernoulli multinomial normal poisson
uniform exponential cauchy geometric log_normal random rrelu_with_noise gumbel_softmax
""")
_TWICE = _names("""
grid_sampler batch_norm
""")  # linear in the first argument, not in the others
WHOLE = _names("""
max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
""")
_BACKWARD = (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward)
DROPOUT = _names("""
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


def operation(func: Callable[..., Any]) -> tuple[str, str]:
    """The plain name of an operation (``__iadd__`` and ``add_`` are ``add``) and the name as
    called."""
    raw = getattr(func, "__name__", type(func).__name__)
    if raw in ("__get__", "__set__", "__delete__"):
        owner = getattr(func, "__self__", None)
        return getattr(owner, "__name__", raw), raw
    plain = (
        raw.strip("_")
        .removeprefix("special_")
        .removeprefix("linalg_")
        .removesuffix("_with_indices")
    )
    return _ALIAS.get(plain, plain), raw


def walk(change: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Copy a nest of tuples, lists and dicts with every tensor replaced by ``change(tensor)``."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple):
        parts = [walk(change, part) for part in value]
        if hasattr(value, "n_fields"):  # torch's named results take a sequence
            return type(value)(parts)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [walk(change, part) for part in value]
    if isinstance(value, dict):
        return {key: walk(change, part) for key, part in value.items()}
    return value


def tensors_of(value: Any) -> list[torch.Tensor]:
    """All tensors of a nest, in order."""
    found: list[torch.Tensor] = []
    walk(found.append, value)
    return found


def substitute_at(
    spots: set[int], args: Any, kwargs: Any, values: list[torch.Tensor]
) -> tuple[Any, Any]:
    """Like ``substitute`` for arguments that were detached: replace by position."""
    left, count = iter(values), iter(range(10**6))

    def swap(tensor: torch.Tensor) -> torch.Tensor:
        return next(left) if next(count) in spots else _as_wide(tensor, values)

    return walk(swap, args), walk(swap, kwargs)


def _as_wide(constant: torch.Tensor, values: list[torch.Tensor]) -> torch.Tensor:
    """A constant in half precision beside values that were widened for their rule."""
    half = constant.dtype in (torch.float16, torch.bfloat16)
    return constant.float() if half and values[0].dtype == torch.float32 else constant


def substitute(run: Any, args: Any, kwargs: Any, values: list[torch.Tensor]) -> tuple[Any, Any]:
    """The arguments with the tensors that depend on the input replaced, in order."""
    left = iter(values)

    def swap(tensor: torch.Tensor) -> torch.Tensor:
        return next(left) if run.depends(tensor) else _as_wide(tensor, values)

    return walk(swap, args), walk(swap, kwargs)


def inputs_of(run: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """The tensors among the arguments that depend on the input."""
    return [tensor for tensor in tensors_of((args, kwargs)) if run.depends(tensor)]


_REENTRANT: dict[Any, Callable[..., Any] | None] = {}


def _no(*_: Any) -> bool:
    return False


def reentrant(func: Callable[..., Any]) -> Callable[..., Any] | None:
    """A copy of a Python-level torch function that does not ask who overrides it, or None for
    builtins.

    The copy has its own globals, in which the question "does a mode want this call?" answers no.
    The calls inside it are asked as usual, so the builtins within attention come to the mode one by
    one.
    """
    if func not in _REENTRANT:
        copy = None
        if isinstance(func, FunctionType):
            asked = [
                name
                for name in func.__code__.co_names
                if name.startswith("has_torch_function") and name in func.__globals__
            ]
            if asked:
                space = {**func.__globals__, **dict.fromkeys(asked, _no)}
                copy = FunctionType(
                    func.__code__, space, func.__name__, func.__defaults__, func.__closure__
                )
                copy.__kwdefaults__ = func.__kwdefaults__
        _REENTRANT[func] = copy
    return _REENTRANT[func]


def _frames() -> Any:
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
    handlers : name of operation -> ``handler(capture, func, args, kwargs)``, called when some
        argument depends on the input and the operation is not linear in it; the mode is off
        meanwhile, and ``with capture:`` turns it on again for a composition of simpler operations.
    """

    def __init__(self, model: Any, handlers: dict[str, Callable[..., Any]]) -> None:
        super().__init__()
        self.model, self.handlers = model, handlers
        self.owned: set[int] = set()
        if isinstance(model, torch.nn.Module):
            self.owned = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self.leaves: dict[int, torch.Tensor] = {}
        self.calling = ""

    # What a subclass may change

    def linear(
        self, name: str, func: Callable[..., Any], args: Any, kwargs: Any, found: list[torch.Tensor]
    ) -> Any:
        """A linear operation: autograd knows it."""
        return func(*args, **kwargs)

    def decide(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A decision that depends on the input."""
        self.refuse(name, "its result depends on the input")

    def custom(self, name: str, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A custom ``autograd.Function``, as one operation."""
        args, kwargs = walk(self._foreign, args), walk(self._foreign, kwargs)
        if not any(self.depends(tensor) for tensor in tensors_of((args, kwargs))):
            return func(*args, **kwargs)
        self.calling = name
        handler = self.handlers.get("anything")
        if handler is None:
            self.refuse(name)
        with _pop_mode_temporarily(), torch.enable_grad():
            return handler(self, func, args, kwargs)

    def writing(self, target: torch.Tensor) -> None:
        """Called before ``target`` is changed in place."""

    # The mechanism

    def refuse(
        self, name: str, why: str = "no rule propagates attributions through it"
    ) -> NoReturn:
        """Raise ``UnsupportedModelError`` that names the operation and where the model calls it."""
        module = ""
        names = (
            {id(part): key for key, part in self.model.named_modules()}
            if isinstance(self.model, torch.nn.Module)
            else {}
        )
        for frame in _frames():
            owner = frame.f_locals.get("self")
            if not module and id(owner) in names and owner is not self.model:
                module = f" in module {names[id(owner)]!r} ({type(owner).__name__})"
        raise UnsupportedModelError(
            f"model: expected operations that can be explained, got "
            f"`{name}`{module}{place_of_call()}: {why}. "
            "Rewrite this step with supported operations, or explain the part of the "
            "model after it."
        )

    def leaf(self, values: torch.Tensor) -> torch.Tensor:
        """A new point where dependence on the input starts."""
        start = values.detach().clone().requires_grad_()
        self.leaves[id(start)] = start
        return start

    def depends(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor depends on the input."""
        return tensor.requires_grad

    def _foreign(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self.leaves:
            return tensor.detach()
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, raw = operation(func)
        if func in _BACKWARD:
            self.refuse(name, "the model takes derivatives of its own")
        if name not in LINEAR and name not in WHOLE:
            copy = reentrant(func)
            if copy is not None:
                with self:
                    return copy(*args, **kwargs)
        if name == "nested_tensor_from_mask_left_aligned":
            return False  # an encoder then keeps its padded form instead of nested tensors
        if raw == "__get__" and name in META:
            return func(*args, **kwargs)
        in_place = (
            (raw.endswith("_") and not raw.endswith("__"))
            or raw == "__setitem__"
            or raw == "__set__"
            or (
                raw.startswith("__i")
                and raw[3:-2] in ("add", "sub", "mul", "truediv", "pow", "and", "or", "xor")
            )
        )
        if kwargs.get("out") is not None:
            self.refuse(name, "it writes into an `out` tensor")
        if in_place and args and isinstance(args[0], torch.Tensor):
            if id(args[0]) in self.owned and raw != "requires_grad_":
                self.refuse(raw, "it writes into a parameter or buffer of the model")
            self.writing(args[0])
        args, kwargs = walk(self._foreign, args), walk(self._foreign, kwargs)
        found = [tensor for tensor in tensors_of((args, kwargs)) if self.depends(tensor)]
        with torch.enable_grad():
            return self._dispatch(name, raw, func, args, kwargs, found, in_place)

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
        if name in RANDOM:
            self.refuse(name, "it draws random numbers")
        if name in DROPOUT and _training(args, kwargs):
            self.refuse(name, "dropout is active; call model.eval() or pass training=False")
        if name == "batch_norm" and (args[5] if len(args) > 5 else kwargs.get("training")):
            if found:
                self.refuse(
                    name,
                    "it uses the statistics of the batch, so rows are not explained one by one",
                )
            self.refuse(name, "it would update its running statistics; call model.eval()")
        if not found:
            return func(*args, **kwargs)
        if name in META:
            return func(*args, **kwargs)
        if name in ("detach", "data", "detach_copy"):
            return self.linear("view_as", torch.Tensor.view_as, (args[0], args[0]), {}, found)
        if (
            (name in LINEAR and not (name in _TWICE and len(found) > 1))
            or (name in PRODUCTS and len(found) == 1)
            or (
                name == "div"
                and found[0] is args[0]
                and len(found) == 1
                and not kwargs.get("rounding_mode")
            )
        ):
            return self.linear(name, func, args, kwargs, found)
        if name in DECISIONS:
            return self.decide(name, func, args, kwargs)
        handler = self.handlers.get("product" if name in PRODUCTS else name)
        self.calling = raw.strip("_") if raw != "__get__" else name
        handler = self.handlers.get("anything") if handler is None else handler
        if handler is None:
            self.refuse(self.calling)
        if not in_place:
            return handler(self, func, args, kwargs)
        target, plain = args[0], raw.strip("_")
        if plain[0] == "i" and raw.startswith("__i"):
            plain = plain[1:]
        for space in (torch.Tensor, torch._C._nn, torch):
            if hasattr(space, plain):
                result = handler(self, getattr(space, plain), args, kwargs)
                self.writing(target)
                target.copy_(result)
                return target
        self.refuse(raw)


def _training(args: Any, kwargs: Any) -> bool:
    active = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
    rate = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    return bool(active) and rate > 0
