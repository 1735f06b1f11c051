"""What does a convolutional Shapley transform cost: beside a convolution, beside unfolding, and
when pruned?

Run: OMP_NUM_THREADS=1 python benchmarks/shapnets_layer.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from shaplab_book import datasets

from shaplab.shapnets import ImageShapNet, coalition_weights, prune
from shaplab.shapnets.image import ConvShapleyTransform


def milliseconds(call: Callable[[], object], repeats: int = 7) -> float:
    times = []
    with torch.no_grad():
        call()
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3


def unfolded(layer: ConvShapleyTransform, z: torch.Tensor) -> torch.Tensor:
    """Every coalition multiplied for itself, windows from the top left: the work of the published
    construction."""
    n, _, _, c = z.shape
    patches = (
        torch.nn.functional.unfold(z.permute(0, 3, 1, 2), 2, padding=1)
        .view(n, c, 4, -1)
        .permute(0, 3, 2, 1)
    )
    present = ((torch.arange(16)[:, None] >> torch.arange(4)) & 1).float()[:, None, None, :, None]
    inner = torch.nn.functional.leaky_relu(
        (patches * present).flatten(3) @ layer.weight.permute(1, 0, 2).flatten(0, 1) + layer.bias
    )
    return torch.tensordot(coalition_weights(4)[1].float(), inner, 1)


def main() -> None:
    torch.set_num_threads(1)
    for pictures, size, channels in ((1, 28, 32), (16, 14, 16), (16, 28, 32)):
        layer = ConvShapleyTransform(channels, channels)
        conv, z = (
            torch.nn.Conv2d(channels, channels, 2, padding=1),
            torch.randn(pictures, size, size, channels),
        )
        found = [
            milliseconds(lambda c=conv, z=z: c(z.permute(0, 3, 1, 2))),
            milliseconds(lambda t=layer, z=z: t(z)),
            milliseconds(lambda t=layer, z=z: unfolded(t, z)),
        ]
        print(
            f"{pictures} pictures of {size} x {size}, {channels} channels: convolution "
            f"{found[0]:.1f} ms, "
            f"transform {found[1]:.1f} ms, unfolding {found[2]:.1f} ms"
        )
    digits = torch.tensor(datasets.load_mnist_small().X[:16])
    net = ImageShapNet(1, 10, channels=(32, 32, 32), dilations=(1, 1, 1, 1), seed=0)
    with torch.no_grad():
        assert torch.equal(prune(net, threshold=0.0)(digits), net(digits))
    dense = milliseconds(lambda: net(digits))
    for options in ({"threshold": 0.0}, {"threshold": 0.1}, {"fraction": 0.6}, {"fraction": 0.9}):
        pruned = prune(net, **options)
        with torch.no_grad():
            share = pruned.work(digits)["share"]
        took = milliseconds(lambda p=pruned: p(digits))
        print(
            f"16 digits on black, {options}: {share:.0%} of windows, {took:.1f} ms, "
            f"{dense / took:.1f}x faster than dense"
        )


if __name__ == "__main__":
    main()
