"""Ordinary networks: to compare ShapNets with, as many parameters, or as many multiplications; and
small ones with one thing each that real networks have.

Source of the first: Wang, Wang and Inouye (2021), Section 4 and its supplement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from shaplab._validation import check_choice, check_int, fail
from shaplab.shapnets.image import ConvShapleyTransform, ImageShapNet
from shaplab.shapnets.shallow import ShapNet
from shaplab.shapnets.transform import seeded

__all__ = ["ComparableCNN", "ResidualDNN", "everyday_networks"]


class ResidualDNN(nn.Module):
    """The source's comparison: fully connected layers with residual links, ``h + relu(W h + b)``.

    Parameters
    ----------
    n_features, n_outputs, width, depth : int; ``depth`` layers of ``width`` units.
    seed : int, or None to draw the weights from torch's own generator.
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        width: int = 64,
        depth: int = 4,
        seed: int | None = None,
    ):
        super().__init__()
        with seeded(seed):
            self.first = nn.Linear(check_int(n_features, "n_features"), check_int(width, "width"))
            self.inner = nn.ModuleList(
                [nn.Linear(width, width) for _ in range(check_int(depth, "depth") - 1)]
            )
            self.last = nn.Linear(width, check_int(n_outputs, "n_outputs"))

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(N, K)`` of a batch."""
        h = nn.functional.relu(self.first(x))
        for layer in self.inner:
            h = h + nn.functional.relu(layer(h))
        return self.last(h)

    @classmethod
    def matching(
        cls, net: ShapNet, *, equal: str, depth: int, seed: int | None = None
    ) -> ResidualDNN:
        """The network of this depth whose parameters or multiplications come nearest to those of
        ``net``.

        Parameters
        ----------
        net : the ShapNet to match.
        equal : "parameters" or "compute".
        depth : int, number of layers.
        seed : as above.
        """
        check_choice(equal, "equal", ("parameters", "compute"))
        d = int(net.input_shape[0] or 1)
        outputs = len(net.intercept)
        if equal == "compute":
            bias = 0
            target = net.multiply_adds
        else:
            bias = 1
            target = sum(parameter.numel() for parameter in net.parameters())

        def distance(width: int) -> int:
            inner = (depth - 1) * (width + bias) * width
            return abs((d + bias) * width + inner + (width + bias) * outputs - target)

        width = min(range(1, 4096), key=distance)
        return cls(d, outputs, width=width, depth=depth, seed=seed)


class ComparableCNN(nn.Module):
    """Dilated convolutions with as many channels, stages and parameters as an
    :class:`ImageShapNet`, then a sum.

    Parameters
    ----------
    net : the ImageShapNet to match; its weights are not used.
    seed : int, or None to draw the weights from torch's own generator.
    """

    def __init__(self, net: ImageShapNet, *, seed: int | None = None):
        super().__init__()
        if not isinstance(net, ImageShapNet):
            fail("net", "an ImageShapNet", net, "Make the network to match first", TypeError)
        self.intercept = nn.Parameter(torch.zeros(len(net.intercept)))
        stages = [stage for stage in net.transforms if isinstance(stage, ConvShapleyTransform)]
        self.scale = stages[-1].scale
        # A stage that reads some channels only reads the same ones here.
        self.reads = [stage.reads for stage in stages]
        self.pads = [_padding(stage.taps) for stage in stages]
        with seeded(seed):
            self.stages = nn.ModuleList(
                [
                    nn.Conv2d(
                        len(stage.weight),
                        stage.weight.shape[2],
                        stage.kernel,
                        dilation=stage.dilation,
                    )
                    for stage in stages
                ]
            )

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(N, K)`` of a batch."""
        for layer, pad, reads in zip(self.stages, self.pads, self.reads, strict=True):
            x = x if reads is None else x[:, reads]
            x = nn.functional.leaky_relu(layer(nn.functional.pad(x, pad)))
        return self.scale * x.sum((2, 3)) + self.intercept


def _padding(taps: Sequence[tuple[int, int]]) -> tuple[int, int, int, int]:
    """Zeros to the left, to the right, above and below, so that windows stay centred."""
    up, left = taps[0]
    down, right = taps[-1]
    return -left, right, -up, down


class Written(nn.Module):
    """A network whose forward pass is written as a function of its parts."""

    def __init__(self, run: Callable[[Written, Tensor], Tensor], **parts: nn.Module):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Output of a batch."""
        return self.run(self, x)


def everyday_networks(seed: int | None = None) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return twelve small networks with random weights and one output, each with one thing that
    real networks have, and the shape of one row; by name."""
    with seeded(seed):
        rows = {**_rows_of_numbers(), **_gated_or_scaled()}
        return {**rows, **_images(), **_sequences()}


def _residual(net: Written, x: Tensor) -> Tensor:
    hidden = functional.relu(net.first(x))
    more = functional.relu(net.second(hidden))
    return net.last(functional.relu(hidden + more))


def _layers(*between: nn.Module) -> nn.Module:
    """Return linear layers of 16 units with these modules between them."""
    layers: list[nn.Module] = [nn.Linear(10, 16)]
    for module in between[:-1]:
        layers += [module, nn.Linear(16, 16)]
    return nn.Sequential(*layers, between[-1], nn.Linear(16, 1))


def _rows_of_numbers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    residual = Written(
        _residual, first=nn.Linear(10, 16), second=nn.Linear(16, 16), last=nn.Linear(16, 1)
    )
    shared = nn.ReLU()
    nets = {
        "functional residual": residual,
        "one nn.ReLU used twice": _layers(shared, shared),
        "GELU": _layers(nn.GELU(), nn.GELU()),
        "SiLU": _layers(nn.SiLU(), nn.SiLU()),
    }
    return {name: (net, (10,)) for name, net in nets.items()}


def _gated_or_scaled() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    gate = Written(
        lambda net, x: net.last(net.value(x) * torch.sigmoid(net.gate(x))),
        value=nn.Linear(10, 16),
        gate=nn.Linear(10, 16),
        last=nn.Linear(16, 1),
    )
    nets = {
        "LayerNorm": _layers(nn.Sequential(nn.LayerNorm(16), nn.ReLU())),
        "hidden softmax": _layers(nn.Softmax(1)),
        "a gate": gate,
    }
    return {name: (net, (10,)) for name, net in nets.items()}


def _images() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    def pooled(pool: nn.Module, left: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(left, 1))

    def by_functions(net: Written, x: Tensor) -> Tensor:
        seen = functional.relu(net.window(x))
        return net.last(functional.max_pool2d(seen, 2).flatten(1))

    nets = {
        "conv, ReLU, pool": pooled(nn.MaxPool2d(2), 100),
        "overlapping pool": pooled(nn.MaxPool2d(3, 1), 256),
        "functional conv, pool": Written(
            by_functions, window=nn.Conv2d(1, 4, 3), last=nn.Linear(100, 1)
        ),
    }
    return {name: (net, (1, 12, 12)) for name, net in nets.items()}


def _sequences() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    reader = Written(
        lambda net, x: net.last(net.body(x)[0][:, -1]),
        body=nn.LSTM(4, 6, 2, bidirectional=True, batch_first=True),
        last=nn.Linear(12, 1),
    )
    encoder = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(40, 1)
    )
    return {"two-layer bi-LSTM": (reader, (6, 4)), "transformer layer": (encoder, (5, 8))}
