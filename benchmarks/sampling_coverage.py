"""Coverage of 95% intervals over 500 repetitions, for fixed rounds and for runs that stop
themselves.

    python benchmarks/sampling_coverage.py > benchmarks/results/sampling_coverage.txt

Truth is exact enumeration. Wanted: between 93% and 97%.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab import (
    LossOfMean,
    MarginalGame,
    MeanGame,
    confidence_interval,
    exact_shap,
    kernel_shap,
    loss_shap,
    permutation_shap,
    sage,
    shapley_values,
)


def model(X: np.ndarray) -> np.ndarray:
    """A model with interactions of three and more of ten features."""
    return np.asarray(
        np.prod(X[:, :3], axis=1)
        + np.sin(X[:, 3] * X[:, 4] * X[:, 5])
        + np.tanh(X).sum(axis=1)
        + np.prod(np.tanh(X[:, 5:]), axis=1)
    )


def coverage(label: str, truth: np.ndarray, run: Any, repetitions: int = 500) -> None:
    """Print the share of intervals that hold the truth, over features with any error at all."""
    hits, rows = [], []
    for seed in range(repetitions):
        found = run(seed)
        low, high = confidence_interval(found)
        hits.append(((low <= truth) & (truth <= high))[found.std > 1e-9].mean())
        rows.append(found.info["evaluations"])
    error = np.std(hits, ddof=1) / np.sqrt(repetitions)
    print(f"{label:<44} {np.mean(hits):.3f} +- {error:.3f}   {np.mean(rows):,.0f} model rows")


def main() -> None:
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(4, 10)), rng.normal(size=(16, 10))
    truth = exact_shap(model, X, B).values
    for rounds in (4, 8, 16):
        coverage(
            f"permutation_shap, {rounds} rounds",
            truth,
            lambda seed, rounds=rounds: permutation_shap(model, X, B, rounds=rounds, rng=seed),
        )
    coverage(
        "permutation_shap, stops at 5%",
        truth,
        lambda seed: permutation_shap(model, X, B, thresh=0.05, rng=seed),
    )
    for sampling in ("kernel", "leverage"):
        coverage(
            f"kernel_shap, {sampling}, 300 coalitions",
            truth,
            lambda seed, sampling=sampling: kernel_shap(
                model, X, B, sampling=sampling, max_evaluations=30 + 300 * 64, rng=seed
            ),
        )
    Z = rng.normal(size=(80, 10))
    y = model(Z) + rng.normal(size=80)
    rows = -shapley_values(LossOfMean(MarginalGame(model, Z, B), y, "mse"), 10, batch_size=64)
    coverage(
        "loss_shap, 10 rounds",
        rows.T[:4],
        lambda seed: loss_shap(model, Z[:4], y[:4], B, rounds=10, rng=seed),
    )
    coverage(
        "sage, squared error, stops at 5%",
        rows.mean(axis=1)[None],
        lambda seed: sage(model, Z, y, B, thresh=0.05, rng=seed),
    )
    game = MeanGame(
        LossOfMean(
            MarginalGame(lambda X: 1 / (1 + np.exp(-model(X))), Z, B), y > 0, "cross_entropy"
        )
    )
    coverage(
        "sage, cross entropy, stops at 5%",
        shapley_values(game, 10, batch_size=64)[None],
        lambda seed: sage(
            lambda X: 1 / (1 + np.exp(-model(X))),
            Z,
            y > 0,
            B,
            loss="cross_entropy",
            thresh=0.05,
            rng=seed,
        ),
    )


if __name__ == "__main__":
    main()
