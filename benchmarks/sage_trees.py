"""Shares of R2 by Q-SHAP (the package qshap) beside SAGE values: two games that one word covers.

    OMP_NUM_THREADS=1 python -W ignore benchmarks/sage_trees.py > benchmarks/results/sage_trees.txt

Q-SHAP explains how much each boosted tree lowers the squared error of what the trees before it have
left over. In the game of tree t a feature outside the coalition is unknown to tree t alone, which
then averages its leaves by their covers; the trees before it know all features. The sum over trees
is no game of the whole model's predictions. First this reading is enumerated. Then three answers
are laid beside each other, all enumerated: Q-SHAP's, those of the whole model's path-dependent
predictions, and SAGE's, where unknown features come from background rows. Last, CPU seconds of both
packages on a larger table, one thread, in turn in one process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from typing import Any

import numpy as np
import xgboost
from qshap import gazer

from shaplab import path_dependent_game, sage, shapley_values, tree_loss_shap


def table(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose first two features are near copies, and a target of the first four."""
    X = rng.normal(size=(n, d))
    X[:, 1] = X[:, 0] + 0.2 * X[:, 1]
    y = X[:, 0] + X[:, 1] + X[:, 2] * X[:, 3] + 0.5 * rng.normal(size=n)
    return X, y


def fit(X: np.ndarray, y: np.ndarray, trees: int) -> Any:
    model = xgboost.XGBRegressor(n_estimators=trees, max_depth=4, learning_rate=0.1, n_jobs=1)
    return model.fit(X, y)


def error_game(model: Any, X: np.ndarray, target: np.ndarray, base: float) -> Any:
    """Mean squared error of path-dependent predictions, less ``base``, of coalitions ``(m, d)``."""
    predicted = path_dependent_game(model, X)

    def game(coalitions: np.ndarray) -> np.ndarray:
        found = np.reshape(predicted(coalitions), (len(coalitions), len(X))) - base
        return ((target - found) ** 2).mean(axis=1)

    return game


def tree_after_tree(model: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The definition that Q-SHAP computes: the games of single trees, each on what is left over."""
    booster = model.get_booster()
    total = np.zeros(X.shape[1])
    rows = xgboost.DMatrix(X)
    nothing = float(model.intercept_[0])
    before = np.full(len(X), nothing)
    for t in range(model.n_estimators):
        one = booster[t]
        total += shapley_values(error_game(one, X, y - before, nothing), X.shape[1])
        before += one.predict(rows, output_margin=True) - nothing
    return total


def peer_loss(model: Any, X: np.ndarray, y: np.ndarray) -> np.ndarray:
    return gazer(model).loss(X, y, progress_bar=False).mean(axis=0)


def compare_answers() -> None:
    rng = np.random.default_rng(0)
    X, y = table(rng, 1500, 8)
    model = fit(X[:1000], y[:1000], 40)
    rows, target, background = X[1000:], y[1000:], X[:200]
    theirs = peer_loss(model, rows, target)
    defined = tree_after_tree(model, rows, target)
    print(
        f"Q-SHAP beside the sum of its games over {model.n_estimators} trees, enumerated:\n"
        f"  largest gap {np.abs(theirs - defined).max():.0e} of {np.abs(defined).max():.2f}"
    )
    assert np.abs(theirs - defined).max() < 1e-4 * np.abs(defined).max()
    whole = shapley_values(error_game(model, rows, target, 0.0), rows.shape[1])
    explained = tree_loss_shap(
        model, rows, target, background, loss="squared_error", game="loss_of_mean"
    )
    exact = explained.values.mean(axis=0)
    print("share of the target's variance that features explain, all enumerated:")
    print(f"  {'':<42}{'x1':>7}{'x2':>7}{'x3':>7}{'x4':>7}{'rest':>7}")
    for name, values in (
        ("Q-SHAP: tree after tree, covers", defined),
        ("the whole model, covers", whole),
        ("SAGE: the whole model, background rows", exact),
    ):
        shares = -values / target.var()
        shown = [*shares[:4], shares[4:].sum()]
        print(f"  {name:<42}" + "".join(f"{share:7.3f}" for share in shown))


def compare_time(turns: int) -> None:
    rng = np.random.default_rng(1)
    X, y = table(rng, 12_000, 20)
    model = fit(X[:10_000], y[:10_000], 100)
    rows, target, background = X[10_000:], y[10_000:], X[:512]
    clocks: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(turns):
        begin = time.process_time()
        found = sage(model.predict, rows, target, background, loss="mse", rng=0, thresh=0.025)
        clocks["ours"].append(time.process_time() - begin)
        begin = time.process_time()
        peer_loss(model, rows, target)
        clocks["peer"].append(time.process_time() - begin)
    ours, theirs = min(clocks["ours"]), min(clocks["peer"])
    largest = float(np.max(found.std) / np.abs(found.values).max())
    print(
        "2,000 rows of 20 features, 100 trees of depth 4, CPU seconds:\n"
        f"  sage {ours:.2f} (512 background rows, largest standard error {largest:.3f} of the "
        f"largest\n  value), Q-SHAP {theirs:.2f}: {theirs / ours:.1f} times as many; different "
        "games, so no race"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    versions = {name: importlib.metadata.version(name) for name in ("qshap", "numpy")}
    print(versions, "xgboost", xgboost.__version__)
    compare_answers()
    compare_time(turns)


if __name__ == "__main__":
    main()
