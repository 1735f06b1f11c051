"""Wrong labels among training rows: `knn_shapley` beside pyDVL's, leave one out, and a model's own
probability of the label.

    python -W ignore benchmarks/data_values.py > benchmarks/results/data_values.txt

Needs pyDVL (Python 3.12, numpy before 2). Digits of scikit-learn, 500 training rows of which 50
labels are wrong, 500 test rows, five draws: area under the curve of finding the wrong ones from the
lowest value up, and where values are given for the same game, how far they are apart and the ratio
of times, taken in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
from pydvl.valuation.dataset import Dataset
from pydvl.valuation.methods.knn_shapley import KNNShapleyValuation
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from shaplab import NeighbourGame, knn_shapley

NEIGHBORS = 5
Tables = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def planted(seed: int) -> tuple[Tables, np.ndarray]:
    """Test rows and labels, training rows and labels; which of the latter are wrong."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    chosen = rng.permutation(len(digits.data))[:1000]
    X, y = digits.data[chosen] / 16.0, digits.target[chosen]
    wrong = rng.choice(500, 50, replace=False)
    given = y[:500].copy()
    given[wrong] = (given[wrong] + rng.integers(1, 10, 50)) % 10
    return (X[500:], y[500:], X[:500], given), np.isin(np.arange(500), wrong)


def ours(tables: Tables) -> np.ndarray:
    return knn_shapley(*tables, n_neighbors=NEIGHBORS).values.mean(axis=0)


def pydvl(tables: Tables) -> np.ndarray:
    X, y, X_train, y_train = tables
    model = KNeighborsClassifier(n_neighbors=NEIGHBORS)
    valuation = KNNShapleyValuation(model, Dataset(X, y), progress=False)
    found = valuation.fit(Dataset(X_train, y_train)).result
    values = np.empty(len(X_train))
    values[found.indices] = found.values
    return values


def leave_one_out(tables: Tables) -> np.ndarray:
    game = NeighbourGame(*tables, n_neighbors=NEIGHBORS)
    n = game.n_players
    return game(np.ones((1, n), bool)).mean() - game(~np.eye(n, dtype=bool)).mean(axis=1)


def own_probability(tables: Tables) -> np.ndarray:
    X_train, y_train = tables[2:]
    fitted = LogisticRegression(max_iter=500).fit(X_train, y_train)
    return fitted.predict_proba(X_train)[np.arange(len(y_train)), y_train]


SCORES: dict[str, Callable[[Tables], np.ndarray]] = {
    "knn_shapley": ours,
    "pyDVL": pydvl,
    "leave one out": leave_one_out,
    "own probability": own_probability,
}


def main() -> None:
    versions = ", ".join(f"{name} {version(name)}" for name in ("pydvl", "scikit-learn", "numpy"))
    print(f"$ python -W ignore benchmarks/data_values.py    ({versions})")
    areas: dict[str, list[float]] = {name: [] for name in SCORES}
    apart, ratios = [], []
    for seed in range(5):
        tables, is_wrong = planted(seed)
        values, seconds = {}, {}
        for name, score in SCORES.items():
            start = time.process_time()
            values[name] = score(tables)
            seconds[name] = time.process_time() - start
            areas[name].append(roc_auc_score(is_wrong, -values[name]))
        apart.append(np.abs(values["knn_shapley"] - values["pyDVL"]).max())
        ratios.append(seconds["pyDVL"] / seconds["knn_shapley"])
    for name, found in areas.items():
        print(f"{name:<18} area under the curve {np.mean(found):.4f} (least {min(found):.4f})")
    print(f"pyDVL's values differ by at most {max(apart):.1e}")
    print(f"CPU time, pyDVL over knn_shapley: median {np.median(ratios):.1f}")


if __name__ == "__main__":
    main()
