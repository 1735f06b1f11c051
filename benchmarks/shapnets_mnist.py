"""How accurate is an image ShapNet beside the convolutional network of equal parameters, and what
does training cost?

60,000 digits of MNIST for training (SHAPLAB_DATA_DIR, else fetched), the 10,000 others looked at
once, at the end; the recipe was chosen on 5,000 of the 60,000 (``--validate`` holds these out again
and does not touch the 10,000): of the learning rates 0.004 to 0.06, 0.03 is best for both networks.
The recipe: random 24 x 24 windows of the 28 x 28 canvas (the source's random 32 of 36 shifts as
much; the rim is empty), Adam with one cycle of the rate. Training reads every second row and
column, from a random start: a quarter of the work. The finished net has all dilations doubled and
reads every pixel: four interleaved pictures whose values add up. Both networks are trained so; the
seconds are those of the processor, on one thread.
Run: OMP_NUM_THREADS=1 python benchmarks/shapnets_mnist.py [--epochs 10] [--learning-rate 0.03]
[--validate]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from shaplab_book import datasets
from shaplab_book.networks import ComparableCNN

from shaplab.shapnets import ImageShapNet, fit

SIDE = 24


def standard(pixels: np.ndarray) -> torch.Tensor:
    return (torch.tensor(pixels) - 0.1307) / 0.3081


def crops(batch: torch.Tensor) -> torch.Tensor:
    """A window of each digit, every second pixel of it."""
    room = batch.shape[-1] - SIDE + 1
    (i, j), (a, b) = torch.randint(0, room, (2, len(batch), 1)), torch.randint(0, 2, (2,)).tolist()
    rows, columns = i + torch.arange(a, SIDE, 2), j + torch.arange(b, SIDE, 2)
    return batch[
        torch.arange(len(batch))[:, None, None], :, rows[:, :, None], columns[:, None, :]
    ].movedim(-1, 1)


def networks(channels: int, spread: int) -> dict[str, Callable[[], torch.nn.Module]]:
    """The two networks; ``spread`` 1 reads the thinned picture, 2 the whole one with four times the
    pixels."""

    def shapnet() -> ImageShapNet:
        return ImageShapNet(
            1,
            10,
            channels=(channels,) * 5,
            dilations=[spread * d for d in (1, 1, 2, 3, 2, 1)],
            scale=0.04 / spread**2,
            seed=0,
        )

    return {"Deep ShapNet": shapnet, "comparable CNN": lambda: ComparableCNN(shapnet(), seed=0)}


def main(epochs: int, rate: float, channels: int, validate: bool, device: str, seed: int) -> None:
    torch.set_num_threads(1)
    digits = datasets.load_mnist()
    X, y = standard(digits.X), np.asarray(digits.y)
    cut, end = (55000, 60000) if validate else (60000, 70000)
    edge = (28 - SIDE) // 2
    test, truth = X[cut:end, :, edge : 28 - edge, edge : 28 - edge], y[cut:end]
    for name in networks(channels, 1):
        model, whole = (
            networks(channels, 1)[name]().to(device),
            networks(channels, 2)[name]().to(device),
        )
        start = time.process_time()
        fit(
            model,
            X[:cut],
            y[:cut],
            epochs=epochs,
            batch_size=128,
            learning_rate=rate,
            one_cycle=True,
            augment=crops,
            seed=seed,
        )
        took = time.process_time() - start
        whole.load_state_dict(model.state_dict())
        start = time.process_time()
        with torch.no_grad():
            found = torch.cat([whole(part.to(device)).argmax(1) for part in test.split(100)])
        right = found.cpu().numpy() == truth
        each, which = (
            (time.process_time() - start) / len(test) * 1e3,
            "validation" if validate else "test",
        )
        print(
            f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {epochs} epochs of "
            f"{cut} digits in "
            f"{took:.0f} s, {which} accuracy {right.mean():.4f}, {each:.2f} ms a digit",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=3e-2)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the order of training rows and their windows"
    )
    arguments = parser.parse_args()
    main(
        arguments.epochs,
        arguments.learning_rate,
        arguments.channels,
        arguments.validate,
        arguments.device,
        arguments.seed,
    )
