"""Coverage of 95% intervals over 500 repetitions, for fixed rounds and for runs that stop
themselves; then, game by game and budget by budget, for games of players.

    python benchmarks/sampling_coverage.py > benchmarks/results/sampling_coverage.txt

Truth is exact enumeration, for games of players that of `known_games.py`. Wanted: between 93% and
97%. A hyphen: too few evaluations for an interval, and the result says so. A star: exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from known_games import PROBLEMS, Problem

from shaplab import (
    LossOfMean,
    MarginalGame,
    MeanGame,
    confidence_interval,
    estimate_values,
    exact_shap,
    kernel_shap,
    loss_shap,
    permutation_shap,
    sage,
    sampled_values,
    shapley_values,
)

# Evaluations a player, and repetitions.
BUDGETS = ((5, 200), (10, 200), (20, 200), (60, 50))
GAMES = (
    "unanimity of 5, d = 14",
    "interaction of 8, d = 20",
    "saturated, d = 18",
    "network, d = 10, 1 reference",
    "network, d = 16, 1 reference",
    "trees, d = 30, 1 reference",
    "SAGE, d = 10",
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


def told(hits: list[float]) -> str:
    """The mean share of intervals that hold the truth, and its standard error in thousandths."""
    if not hits:
        return "-"
    error = np.std(hits) / np.sqrt(len(hits))
    return f"{np.mean(hits):.3f} ({1000 * error:.0f})"


def coverage_of_players(function: Any, problem: Problem, budget: int, repetitions: int) -> str:
    """Of a game of players, at so many evaluations a player."""
    hits = []
    options = {"thresh": None} if function is estimate_values else {}
    most = budget * problem.n
    for seed in range(1000, 1000 + repetitions):
        found = function(problem.game, problem.n, max_evaluations=most, rng=seed, **options)
        if found.std is None:
            return "*"
        if np.isnan(found.std).any():
            return "-"
        low, high = found.interval()
        hits.append(((low <= problem.truth) & (problem.truth <= high)).mean())
    return told(hits)


def coverage_of_model(function: Any, X: np.ndarray, B: np.ndarray, budget: int) -> str:
    """Of a function of models, at so many coalitions a feature."""
    hits: list[float] = []
    truth = exact_shap(model, X, B).values
    most = len(X) + len(B) + budget * X.size * len(B)
    options = {"thresh": 1e-9} if function is permutation_shap else {}
    for seed in range(200):
        try:
            found = function(model, X, B, max_evaluations=most, rng=seed, **options)
        except ValueError:
            return "-"
        if found.std is None:
            return "*"
        if np.isnan(found.std).any():
            return "-"
        low, high = confidence_interval(found)
        hits.append(((low <= truth) & (truth <= high))[found.std > 1e-9].mean())
    return told(hits)


def table(head: str, cell: Any, lines: list[tuple[str, Any, Any]]) -> None:
    """Functions and what they are asked down, evaluations a player across."""
    budgets = " ".join(f"{f'{budget} d':>12s}" for budget, _ in BUDGETS)
    print(f"\n{head:<46} {budgets}")
    for label, function, asked in lines:
        cells = [f"{cell(function, asked, *budget):>12s}" for budget in BUDGETS]
        print(f"{function.__name__ + ', ' + label:<46} {' '.join(cells)}", flush=True)


def small_budgets(X: np.ndarray) -> None:
    """Both tables."""
    backgrounds = {
        count: np.random.default_rng(count).normal(size=(count, X.shape[1])) for count in (1, 6, 50)
    }
    table(
        "a model of ten features",
        lambda function, B, budget, repetitions: coverage_of_model(function, X, B, budget),
        [
            (f"{count} references", function, B)
            for count, B in backgrounds.items()
            for function in (permutation_shap, kernel_shap)
        ],
    )
    problems = [(name, PROBLEMS[name]()) for name in GAMES]
    table(
        "games of players",
        coverage_of_players,
        [
            (name, function, problem)
            for function in (estimate_values, sampled_values)
            for name, problem in problems
        ],
    )


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
    small_budgets(X)


if __name__ == "__main__":
    main()
