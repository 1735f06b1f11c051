"""Games whose Shapley values are known exactly: what the benchmarks of estimators ask of them.

Truth comes from enumeration, from exact trees, or from a closed form, never from an estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

from shaplab import TableGame, all_coalitions, interventional_tree_shap
from shaplab import shapley_values as enumerate_values


class Problem(NamedTuple):
    """A game, its players, its exact Shapley values."""

    game: Callable[[np.ndarray], np.ndarray]
    n: int
    truth: np.ndarray


def with_references(predict: Any, row: np.ndarray, references: np.ndarray) -> Any:
    """The mean prediction when players outside a coalition take the values of references."""

    def game(coalitions: np.ndarray) -> np.ndarray:
        rows = np.where(coalitions[:, None, :], row, references).reshape(-1, len(row))
        return np.asarray(predict(rows)).reshape(len(coalitions), -1).mean(axis=1)

    return game


def trees(n: int, references: int) -> Problem:
    """Boosted trees on a table with interactions."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, n))
    y = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) * X[:, 3] + X[:, 4] + X @ rng.normal(size=n) * 0.3
    y += (X[:, 5] > 0) * (X[:, 6] > 0) * 2 * X[:, 7]
    model = GradientBoostingRegressor(n_estimators=100, max_depth=5, random_state=0).fit(X, y)
    row, background = X[7], X[100 : 100 + references]
    truth = interventional_tree_shap(model, row[None], background).values[0]
    return Problem(with_references(model.predict, row, background), n, truth)


def network(n: int, references: int) -> Problem:
    """A network of two hidden layers with random weights."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=(n, 32)) * 1.8 / np.sqrt(n)
    second = rng.normal(size=(32, 32)) * 1.5 / np.sqrt(32)
    last = rng.normal(size=32) / 5
    row, background = rng.normal(size=n), rng.normal(size=(references, n))

    def predict(rows: np.ndarray) -> np.ndarray:
        return np.tanh(np.tanh(rows @ first) @ second) @ last

    return enumerated(with_references(predict, row, background), n)


def enumerated(game: Any, n: int) -> Problem:
    """A game whose values come from all its coalitions, which are kept."""
    parts = np.array_split(all_coalitions(n), max(1, 2**n // 1024))
    table = TableGame(np.concatenate([game(part) for part in parts]))
    return Problem(table, n, enumerate_values(table, n))


def additive(n: int) -> Problem:
    worth = np.linspace(-1.0, 1.0, n)
    return Problem(lambda S: S @ worth, n, worth)


def unanimity(n: int, needed: int) -> Problem:
    truth = np.where(np.arange(n) < needed, 1.0 / needed, 0.0)
    return Problem(lambda S: S[:, :needed].all(axis=1) * 1.0, n, truth)


def sharp(n: int, together: int) -> Problem:
    """One interaction beside an additive part."""
    worth = np.linspace(-1.0, 1.0, n)
    truth = worth + np.where(np.arange(n) < together, 3.0 / together, 0.0)
    return Problem(lambda S: S @ worth + 3.0 * S[:, :together].all(axis=1), n, truth)


def saturated(n: int) -> Problem:
    worth = np.random.default_rng(3).exponential(size=n)
    return enumerated(lambda S: 1.0 - np.exp(-0.5 * (S @ worth)), n)


def sage_of_a_small_table() -> Problem:
    """Minus the squared error of the mean prediction over 30 references, over 60 rows."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(200, 10))
    X[:, 1] += X[:, 0]
    y = X[:, 0] * X[:, 1] + X[:, 2] + np.abs(X[:, 3]) * X[:, 4] + 0.3 * rng.normal(size=200)
    forest = RandomForestRegressor(20, min_samples_leaf=5, random_state=0).fit(X, y)

    def game(coalitions: np.ndarray) -> np.ndarray:
        values = []
        for S in coalitions:
            rows = np.where(S, X[:60, None, :], X[None, :30]).reshape(-1, 10)
            predicted = forest.predict(rows).reshape(60, 30).mean(axis=1)
            values.append(-np.mean((predicted - y[:60]) ** 2))
        return np.array(values)

    return enumerated(game, 10)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "additive, d = 30": lambda: additive(30),
    "unanimity of 5, d = 14": lambda: unanimity(14, 5),
    "interaction of 8, d = 20": lambda: sharp(20, 8),
    "interaction of 4, d = 100": lambda: sharp(100, 4),
    "saturated, d = 18": lambda: saturated(18),
    "network, d = 10, 1 reference": lambda: network(10, 1),
    "network, d = 16, 1 reference": lambda: network(16, 1),
    "network, d = 16, 50 references": lambda: network(16, 50),
    "trees, d = 30, 1 reference": lambda: trees(30, 1),
    "trees, d = 30, 50 references": lambda: trees(30, 50),
    "trees, d = 60, 1 reference": lambda: trees(60, 1),
    "SAGE, d = 10": sage_of_a_small_table,
}
