r"""ShapNets for images: convolutions whose matrix product is replaced by Shapley modules.

A window at pixel ``p`` reads ``k`` taps ``p + o_j``; its function is ``act(sum_j W_j x_j + b)``,
shared by all windows. The window's Shapley values go back to the pixels they came from, and the
values of all windows over a pixel are summed: ``(N, H, W, C)`` becomes ``(N, H, W, C')``. In the
source: unfold, evaluate every coalition, fold. Here ``W_j (x_j - r)`` is computed once for each
pixel and tap, the ``2**k`` coalitions are sums of shifted pictures, and nothing is unfolded. A
window's taps outside the picture count as missing. Dilation grows over the stages, the last stage
has one channel an output, and the sum over pixels is the output.
Source: Wang, Wang & Inouye (2021), sections 2.3 and I.3; kernel size ours. Cost: ``2**k``
activations a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shaplab._validation import check_choice, check_int, check_real, fail
from shaplab.shapnets.kernels.windows import gradients_of_four, values_of_four
from shaplab.shapnets.shallow import ShapNet
from shaplab.shapnets.transform import (
    ACTIVATIONS,
    MAX_ACTIVE,
    WithReference,
    as_reference,
    coalition_weights,
    missing_to_zero,
    seeded,
    shapley_transform_literal,
    subset_sums,
    uniform,
)

__all__ = ["ConvShapleyTransform", "ImageShapNet", "conv_transform_literal"]

# Slopes below zero of the activations that the compiled kernel knows.
LEAKS = {"relu": 0.0, "leaky_relu": 0.01}
# Numbers in one block of coalition sums: small enough for a processor's cache, large enough for a
# device.
BLOCK_ON_CPU = 2**18
BLOCK_ON_DEVICE = 2**28

Taps = tuple[tuple[int, int], ...]


def conv_transform_literal(
    x: np.ndarray,
    W: np.ndarray,
    b: np.ndarray,
    r: np.ndarray,
    taps: Sequence[tuple[int, int]],
    act: Any,
) -> np.ndarray:
    """One picture ``x (H, W, C)``, weights ``W (k, C, C')``: each window's module, its values put
    back and summed."""
    height, width = x.shape[:2]
    Z = np.zeros((height, width, W.shape[2]))

    def f(t: np.ndarray) -> np.ndarray:
        return np.asarray(act(np.einsum("kc,kcd->d", t, W) + b))

    for p in range(height):
        for q in range(width):
            places = [(p + i, q + j) for i, j in taps]
            inside = [0 <= i < height and 0 <= j < width for i, j in places]
            patch = np.array([r] * len(W))
            for tap, place in enumerate(places):
                if inside[tap]:
                    patch[tap] = x[place]
            phi = shapley_transform_literal(f, patch, np.array([r] * len(W)))
            for tap, place in enumerate(places):
                if inside[tap]:
                    Z[place] += phi[tap]
    return Z


class ConvShapleyTransform(WithReference):
    """A convolutional Shapley transform, ``(N, H, W, C)`` to ``(N, H, W, C')``.

    Parameters
    ----------
    channels_in, channels_out : int, ``C`` and ``C'``.
    kernel : (rows, columns) of a window; at most 8 taps, because each window needs ``2**taps``
        sums.
    dilation : int, distance between taps.
    reads : numbers of the channels that are read, or None for all.
    activation : "leaky_relu" and others, as in
        :class:`~shaplab.shapnets.transform.ShapleyTransform`.
    reference : array ``(C,)``, the same for every pixel, or None for zeros.
    scale : constant factor on the result.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: tuple[int, int] = (2, 2),
        dilation: int = 1,
        reads: Sequence[int] | None = None,
        activation: str = "leaky_relu",
        reference: Any = None,
        scale: float = 1.0,
    ):
        super().__init__()
        self.scale = scale
        self.reads = None if reads is None else list(reads)
        rows = check_int(kernel[0], "kernel")
        columns = check_int(kernel[1], "kernel")
        self.kernel = (rows, columns)
        self.k = rows * columns
        self.dilation = check_int(dilation, "dilation")
        if self.k > MAX_ACTIVE:
            fail(
                "kernel",
                f"at most {MAX_ACTIVE} taps",
                f"{rows} x {columns}",
                "Use (2, 2), and more stages for reach",
            )
        # Windows are centred, so that as many of a pixel's windows lie before it as after it.
        up = (rows - 1) * dilation // 2
        left = (columns - 1) * dilation // 2
        self.taps = [
            (i * dilation - up, j * dilation - left) for i in range(rows) for j in range(columns)
        ]
        n_read = check_int(channels_in, "channels_in") if reads is None else len(self.reads or [])
        fan_in = n_read * self.k
        # As numbers: what a compiler sees of them are constants.
        self.coefficients = coalition_weights(self.k)[1].tolist()
        self.activation = check_choice(activation, "activation", tuple(ACTIVATIONS))
        check_int(channels_out, "channels_out")
        self.weight = uniform(n_read, self.k, channels_out, fan_in=fan_in, gain=6**0.5)
        self.bias = uniform(channels_out, fan_in=fan_in)
        self.keep_reference(as_reference(reference, (channels_in,)))

    def forward(self, x: Tensor, skip: bool | str = False) -> Tensor:
        """Shapley representation of ``x``; ``skip`` as in ``ShapNet.layers``, for windows and
        pixels."""
        delta = x - self.reference
        reference = self.reference
        if self.reads is not None:
            delta = delta[..., self.reads]
            reference = reference[self.reads]
        base = torch.einsum("c,ckd->d", reference, self.weight) + self.bias
        if _is_watched():
            return self._in_the_open(delta, base)
        present = delta.detach().abs().amax(-1) != 0
        if skip is True:
            return self._of_present_pixels(delta, base, present)
        rows = delta.flatten(0, 2)
        terms = self._terms(rows)
        sources = every_source(tuple(x.shape[:3]), tuple(self.taps), x.device)
        is_quick = self._is_quick(terms)
        if skip == "exact" and is_quick:
            # The kernel treats each window by itself, so windows can be left out without changing a
            # bit; a product of fewer rows might round otherwise.
            alive = nn.functional.pad(present.flatten(), (0, 1))[sources].any(0)
            sources = sources[:, alive]
        total = self._sums_of_windows(terms, base, sources)
        if not is_quick or not bool(present.all()):
            total = missing_to_zero(total, rows)
        return total.unflatten(0, x.shape[:3])

    def _of_present_pixels(self, delta: Tensor, base: Tensor, present: Tensor) -> Tensor:
        """The representation from the pixels that are not at their reference; zeros elsewhere."""
        terms = self._terms(delta[present])
        total = self._sums_of_windows(terms, base, window_sources(present, tuple(self.taps)))
        result = total.new_zeros(*present.shape, total.shape[1])
        return result.masked_scatter(present.unsqueeze(-1), total)

    def _terms(self, rows: Tensor) -> Tensor:
        """What each pixel gives to each tap's sum, ``(P + 1, k, C')`` from ``rows (P, C)``; the
        last pixel stands for what lies outside the picture."""
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        return (rows @ self.weight.flatten(1)).unflatten(1, (self.k, -1))

    def _is_quick(self, terms: Tensor) -> bool:
        """Whether the compiled kernel can take them."""
        is_known = self.k == 4 and self.activation in LEAKS
        is_float = terms.dtype in (torch.float32, torch.float64)
        return is_known and is_float and terms.device.type == "cpu"

    def _sums_of_windows(self, terms: Tensor, base: Tensor, sources: Tensor) -> Tensor:
        """Values of all windows, summed for each pixel ``(P, C')``."""
        values = _FourTaps.apply if self._is_quick(terms) else window_values
        total = values(terms, base, sources, self.activation)[:-1]
        return total if self.scale == 1 else total * self.scale

    def _in_the_open(self, delta: Tensor, base: Tensor) -> Tensor:
        """The same in plain steps with rows kept apart, which compilers fuse and explainers look
        through."""
        terms = (delta @ self.weight.flatten(1)).chunk(self.k, -1)
        sums = [base]
        for part, (i, j) in zip(terms, self.taps, strict=True):
            moved = shift(part, i, j)
            sums += [smaller + moved for smaller in sums]
        act = ACTIVATIONS[self.activation]
        values = [act(total) for total in sums]
        result = torch.zeros_like(terms[0])
        for row, (i, j) in zip(self.coefficients, self.taps, strict=True):
            phi = sum(self.scale * weight * v for weight, v in zip(row, values, strict=True))
            result = result + shift(phi, -i, -j)
        return missing_to_zero(result, delta)

    def live_modules(self, x: Tensor) -> Tensor:
        """How many windows hold a pixel away from the reference, for each picture: ``(N,)``."""
        delta = x - self.reference
        if self.reads is not None:
            delta = delta[..., self.reads]
        present = delta.ne(0).any(-1, keepdim=True)
        return torch.stack([shift(present, i, j) for i, j in self.taps]).any(0).sum((1, 2, 3))

    @property
    def multiply_adds(self) -> int:
        """Multiplications for one pixel in the matrix product."""
        return self.weight.numel()


def _is_watched() -> bool:
    """Whether a compiler, an explainer or a transform such as torch.func.grad follows each step."""
    return bool(
        torch.compiler.is_compiling()
        or torch._C._len_torch_function_stack() > 0
        or torch._C._functorch.maybe_current_level() is not None
    )


def window_sources(present: Tensor, taps: Taps) -> Tensor:
    """Which of the present pixels each tap of each window reads, ``(k, windows)``; one past the
    last for none.

    ``present (N, H, W)``. Windows without a present pixel are left out.
    """
    count = int(present.sum())
    place = torch.full(present.shape, count, device=present.device)
    place[present] = torch.arange(count, device=present.device)
    table = torch.stack([shift(place.unsqueeze(-1), i, j, count).flatten() for i, j in taps])
    return table[:, (table < count).any(0)]


@lru_cache(maxsize=64)
def one_picture(height: int, width: int, taps: Taps, device: torch.device) -> Tensor:
    """:func:`window_sources` of one picture with all its pixels."""
    # What is kept may be needed for a gradient later.
    with torch.inference_mode(False):
        return window_sources(torch.ones((1, height, width), dtype=torch.bool, device=device), taps)


def every_source(shape: tuple[int, ...], taps: Taps, device: torch.device) -> Tensor:
    """:func:`window_sources` of all pixels of ``shape (N, H, W)``; only the table of one picture is
    kept."""
    count, height, width = shape
    size = height * width
    one = one_picture(height, width, taps, device).unsqueeze(1)
    moved = one + size * torch.arange(count, device=device).unsqueeze(1)
    return torch.where(one < size, moved, size * count).flatten(1)


def window_values(terms: Tensor, base: Tensor, sources: Tensor, activation: str) -> Tensor:
    """Shapley values of all windows, summed for each pixel, from ``terms (P, k, C')`` and the rows
    they read."""
    k, channels = terms.shape[1:]
    total = terms.new_zeros(len(terms), channels)
    weights = coalition_weights(k)[1].to(terms)
    act = ACTIVATIONS[activation]
    # In blocks, so that the 2**k sums of a window never travel to memory and back.
    numbers = BLOCK_ON_CPU if terms.device.type == "cpu" else BLOCK_ON_DEVICE
    block = max(256, numbers // (2**k * channels))
    for part in sources.split(block, dim=1):
        members = torch.stack([terms[rows, tap] for tap, rows in enumerate(part)]).unsqueeze(0)
        start = base.to(terms.dtype).expand(1, 1, *members.shape[2:])
        inner = act(subset_sums(start, members)[0])
        phi = (weights @ inner.flatten(1)).unflatten(1, members.shape[2:])
        for rows, values in zip(part, phi, strict=True):
            total = total.index_add(0, rows, values.to(total.dtype))
    return total


class _FourTaps(torch.autograd.Function):
    """:func:`window_values` for four taps and a piecewise linear activation, compiled."""

    @staticmethod
    def forward(ctx: Any, terms: Tensor, base: Tensor, sources: Tensor, activation: str) -> Tensor:
        ctx.save_for_backward(terms, base, sources)
        ctx.activation = activation
        out = torch.zeros(len(terms), terms.shape[2], dtype=terms.dtype)
        inputs = _arrays(terms, base.to(terms.dtype), sources)
        kernel: Any = values_of_four
        kernel(*inputs, *_constants(activation, terms), out.numpy())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        terms, base, sources = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A second derivative is wanted: once more, in steps that torch can follow.
            wanted = [part for part in (terms, base) if part.requires_grad]
            out = window_values(terms, base, sources, ctx.activation)
            parts = iter(torch.autograd.grad(out, wanted, grads[0], create_graph=True))
            of_terms = next(parts) if terms.requires_grad else None
            of_base = next(parts) if base.requires_grad else None
            return of_terms, of_base, None, None
        of_terms = torch.zeros_like(terms)
        of_base = torch.zeros_like(base, dtype=terms.dtype)
        inputs = _arrays(terms, base.to(terms.dtype), sources)
        kernel: Any = gradients_of_four
        kernel(*inputs, *_constants(ctx.activation, terms), *_arrays(grads[0], of_terms, of_base))
        return of_terms, of_base.to(base.dtype), None, None


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors as the kernels take them; new ones share their memory."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _constants(activation: str, like: Tensor) -> tuple[Any, np.ndarray]:
    """The activation's slope below zero and the kernels' weights, in the dtype of the terms."""
    numbers = torch.tensor([1 / 4, 1 / 12, 1 / 3, 1 / 6, LEAKS[activation]], dtype=like.dtype)
    return numbers.numpy()[4], numbers.numpy()[:4]


def shift(x: Tensor, rows: int, columns: int, fill: int = 0) -> Tensor:
    """``y[:, p, q] = x[:, p + rows, q + columns]``, with ``fill`` from outside the picture; shape
    kept."""
    height, width = x.shape[1:3]
    if abs(rows) >= height or abs(columns) >= width:
        return torch.full_like(x, fill)
    cut = x[:, max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)]
    pad = (0, 0, max(-columns, 0), max(columns, 0), max(-rows, 0), max(rows, 0))
    return nn.functional.pad(cut, pad, value=fill)


class ImageShapNet(ShapNet):
    """A Deep ShapNet for images with layer-wise explanations of every pixel.

    Parameters
    ----------
    in_channels, n_outputs : int; the input is ``(N, in_channels, H, W)`` of any height and width.
    channels : channels after each stage but the last, which has ``n_outputs``.
    dilations : distance between taps in each stage; None for 1, 3, 5, ...
    kernel : (rows, columns) of a window, at most 8 taps.
    channel_share : share of the channels that a stage after the first reads; the block moves on
        from stage to stage.
    reference : a number or an array ``(in_channels,)``, the value of an absent pixel; zeros if
        None.
    activation : of the windows' function.
    intercept : add a learned constant to the output.
    scale : constant factor on the last stage. A sum over hundreds of pixels starts far too large
        without it.
    seed : int, or None to draw the weights from torch's own generator.

    Notes
    -----
    Explanations are ``(N, H, W, K)``, one value a pixel for all its input channels. Local accuracy
    and missingness hold for any weights. The source's net has seven stages, six of them with 128
    channels, and dilations 1 to 13; its kernel is not stated.

    References
    ----------
    Wang, Wang & Inouye (2021), section 2.3 and appendix I.3.

    Examples
    --------
    >>> net = ImageShapNet(1, 10, channels=(8,), seed=0)
    >>> [tuple(z.shape) for z in net.layers(torch.ones(2, 1, 12, 12))]
    [(2, 12, 12, 8), (2, 12, 12, 10)]
    """

    def __init__(
        self,
        in_channels: int,
        n_outputs: int,
        *,
        channels: Sequence[int] = (16, 16, 16),
        dilations: Sequence[int] | None = None,
        kernel: tuple[int, int] = (2, 2),
        channel_share: float = 1.0,
        reference: Any = None,
        activation: str = "leaky_relu",
        intercept: bool = True,
        scale: float = 0.02,
        seed: int | None = None,
    ):
        outputs = check_int(n_outputs, "n_outputs")
        sizes = [check_int(in_channels, "in_channels"), *channels, outputs]
        n_stages = len(sizes) - 1
        steps = list(range(1, 2 * n_stages, 2)) if dilations is None else list(dilations)
        share = check_real(channel_share, "channel_share", low=0.0, high=1.0, open_low=True)
        if len(steps) != n_stages:
            fail(
                "dilations",
                f"{n_stages} numbers, one a stage",
                f"{len(steps)}",
                "Give one more than channels",
            )
        with seeded(seed):
            transforms = [
                ConvShapleyTransform(
                    sizes[stage],
                    sizes[stage + 1],
                    kernel=kernel,
                    dilation=step,
                    reads=_channels_read(stage, sizes[stage], share),
                    activation=activation,
                    reference=reference if stage == 0 else None,
                    scale=scale if stage == n_stages - 1 else 1.0,
                )
                for stage, step in enumerate(steps)
            ]
        super().__init__(transforms, (None, in_channels), n_outputs, intercept)

    def prepare(self, x: Tensor) -> Tensor:
        """Check the pictures and put their channels last."""
        if x.ndim != 4 or x.shape[1] != self.input_shape[1]:
            fail(
                "x",
                f"shape (N, {self.input_shape[1]}, H, W)",
                f"{tuple(x.shape)}",
                "Put channels first",
            )
        return x.permute(0, 2, 3, 1)


def _channels_read(stage: int, size: int, share: float) -> list[int] | None:
    """The channels that a stage reads, None for all; the block moves on from stage to stage."""
    count = size if stage == 0 else ceil(share * size)
    if count == size:
        return None
    return [((stage - 1) * count + channel) % size for channel in range(count)]
