"""Which coefficients for the penalties on a ShapNet's explanation? Chosen on splits that the
chapter does not show.

Deep ShapNets of the chapter's quick size on Wine and Breast Cancer, splits and starting weights of
seeds 100, 101, ...; the chapter's own are others. Mean and standard deviation over the splits.
Run: OMP_NUM_THREADS=1 python benchmarks/shapnets_penalties.py [--splits 20]
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from shaplab_book import datasets
from shaplab_book.datasets import Dataset

from shaplab.shapnets import (
    DeepShapNet,
    coefficient_of_variation,
    explanation_penalty,
    fit,
    sparsity,
)

TRIED = {
    "l_inf": (0.05, 0.1, 0.2),
    "l1": (0.05, 0.1, 0.2, 0.4),
    "layerwise_l1": (0.05, 0.1, 0.2, 0.4),
}


def split(
    found: Dataset, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    X, y = found.X.to_numpy(), np.unique(found.y, return_inverse=True)[1]
    order = rng.permutation(len(X))
    train, test = order[: int(0.75 * len(X))], order[int(0.75 * len(X)) :]
    X = ((X - X[train].mean(0)) / X[train].std(0)).astype(np.float32)
    return X[train], y[train], X[test], y[test]


def main(splits: int) -> None:
    torch.set_num_threads(1)
    penalties: dict[str, dict[str, float]] = {"none": {}}
    penalties |= {
        f"{name} {value:g}": {name: value} for name, tried in TRIED.items() for value in tried
    }
    for data, load in (
        ("wine", datasets.load_wine),
        ("breast cancer", datasets.load_breast_cancer),
    ):
        rows = []
        for trial in range(100, 100 + splits):
            X, y, X_test, y_test = split(load(), np.random.default_rng(trial))
            for penalty, options in penalties.items():
                net = DeepShapNet(
                    X.shape[1], int(y.max()) + 1, channels=8, hidden=(16,), seed=trial
                )
                fit(
                    net,
                    X,
                    y,
                    epochs=9,
                    learning_rate=5e-3,
                    penalty=explanation_penalty(**options),
                    seed=trial,
                )
                e = net.explanation(X_test)
                rows.append(
                    (
                        penalty,
                        coefficient_of_variation(e.values),
                        sparsity(e.values),
                        np.abs(e.values).sum(1).mean(),
                        (e.prediction.argmax(1) == y_test).mean(),
                    )
                )
        columns = [
            f"{data}, {splits} splits",
            "variation",
            "sparsity",
            "sum of |value|",
            "accuracy",
        ]
        found = pd.DataFrame(rows, columns=columns)
        groups = found.groupby(found.columns[0], sort=False)
        mean, spread = (table.map("{:.3f}".format) for table in (groups.mean(), groups.std()))
        print((mean + " ± " + spread).to_string(), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=20)
    main(parser.parse_args().splits)
