"""Ordinary networks to compare ShapNets with: as many parameters, or as many multiplications.

Source: Wang, Wang and Inouye (2021), Section 4 and its supplement.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shaplab._validation import check_choice, check_int, fail
from shaplab.shapnets.image import ConvShapleyTransform, ImageShapNet
from shaplab.shapnets.shallow import ShapNet
from shaplab.shapnets.transform import seeded

__all__ = ["ComparableCNN", "ResidualDNN"]


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
