"""Wrong labels among training rows: values of shaplab beside pyDVL's, leave one out, and a model's
own probability of the label.

    python benchmarks/data_values.py --write values.npz
    python -W ignore benchmarks/data_values.py --read values.npz > data_values.txt

The first command estimates values with shaplab; the second needs pyDVL (Python 3.12, numpy before
2). Digits of scikit-learn, of whose training rows one in ten has a wrong label; five draws. Told is
the area under the curve of finding the wrong ones from the lowest value up.

First table: 500 training and 500 test rows, the votes of five neighbours. Where values are given
for the same game: how far they are apart, and the ratio of times, taken in turn.

Second table: 200 training and 200 test rows, one neighbour. Here share of votes and share of right
answers are the same game, so its Shapley values are known exactly, and those that are sampled by
training anew can be compared with them: errors are root mean squares over rows, over the standard
deviation of the exact values. All that sample may train 2,000 times, 10 times a row.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from shaplab import NeighbourGame, estimate_values, knn_shapley

DRAWS = 5
TRAININGS = 2000
Tables = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def planted(seed: int, n: int) -> tuple[Tables, np.ndarray]:
    """Test rows and labels, training rows and labels; which of the latter are wrong."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    chosen = rng.permutation(len(digits.data))[: 2 * n]
    X, y = digits.data[chosen] / 16.0, digits.target[chosen]
    wrong = rng.choice(n, n // 10, replace=False)
    given = y[:n].copy()
    given[wrong] = (given[wrong] + rng.integers(1, 10, n // 10)) % 10
    return (X[n:], y[n:], X[:n], given), np.isin(np.arange(n), wrong)


def score_game(tables: Tables, votes: int) -> Callable[[np.ndarray], np.ndarray]:
    """The share of right votes, over all test rows."""
    game = NeighbourGame(*tables, n_neighbors=votes)
    return lambda coalitions: game(coalitions).mean(axis=1)


def exact(tables: Tables, votes: int) -> np.ndarray:
    return knn_shapley(*tables, n_neighbors=votes).values.mean(axis=0)


def leave_one_out(tables: Tables, votes: int) -> np.ndarray:
    game = score_game(tables, votes)
    n = len(tables[2])
    return game(np.ones((1, n), bool)) - game(~np.eye(n, dtype=bool))


def own_probability(tables: Tables, votes: int) -> np.ndarray:
    X_train, y_train = tables[2:]
    fitted = LogisticRegression(max_iter=500).fit(X_train, y_train)
    return fitted.predict_proba(X_train)[np.arange(len(y_train)), y_train]


def reused_banzhaf(tables: Tables, seed: int) -> np.ndarray:
    """Banzhaf values from coalitions that are drawn once for all rows: the mean worth with a row
    less that without it (Wang and Jia 2023)."""
    n = len(tables[2])
    coalitions = np.random.default_rng(seed).random((TRAININGS, n)) < 0.5
    worth = score_game(tables, 1)(coalitions)
    present = coalitions.sum(axis=0)
    return worth @ coalitions / present - worth @ ~coalitions / (TRAININGS - present)


def write_values(path: str) -> None:
    """What shaplab samples for the second table."""
    found: dict[str, list[np.ndarray]] = {"shapley": [], "std": [], "banzhaf": []}
    for seed in range(DRAWS):
        tables = planted(seed, 200)[0]
        estimate = estimate_values(
            score_game(tables, 1), 200, max_evaluations=TRAININGS, thresh=None, rng=seed
        )
        assert estimate.std is not None
        found["shapley"].append(estimate.values)
        found["std"].append(estimate.std)
        found["banzhaf"].append(reused_banzhaf(tables, seed))
    np.savez(path, **{name: np.array(values) for name, values in found.items()})


def pydvl_knn(tables: Tables, votes: int) -> np.ndarray:
    from pydvl.valuation.dataset import Dataset
    from pydvl.valuation.methods.knn_shapley import KNNShapleyValuation

    X, y, X_train, y_train = tables
    model = KNeighborsClassifier(n_neighbors=votes)
    valuation = KNNShapleyValuation(model, Dataset(X, y), progress=False)
    return in_order(valuation.fit(Dataset(X_train, y_train)).result)


def in_order(found: Any) -> np.ndarray:
    """pyDVL's values, by the number of the row."""
    values = np.empty(len(found.values))
    values[found.indices] = found.values
    return values


def pydvl_sampled(tables: Tables, kind: str, seed: int) -> tuple[np.ndarray, int]:
    """Values by training one neighbour anew, and how often that was done."""
    from joblib import parallel_config
    from pydvl.valuation.dataset import Dataset
    from pydvl.valuation.methods import banzhaf, loo, shapley
    from pydvl.valuation.samplers import MSRSampler, PermutationSampler
    from pydvl.valuation.samplers.truncation import RelativeTruncation
    from pydvl.valuation.scorers import SupervisedScorer
    from pydvl.valuation.stopping import MaxSamples, MinUpdates
    from pydvl.valuation.utility import ModelUtility

    X, y, X_train, y_train = tables
    trainings = 0

    def counted(model: Any, X_test: np.ndarray, y_test: np.ndarray) -> float:
        nonlocal trainings
        trainings += 1
        return float(model.score(X_test, y_test))

    scorer = SupervisedScorer(counted, Dataset(X, y), default=0.0, range=(0.0, 1.0))
    utility = ModelUtility(KNeighborsClassifier(n_neighbors=1), scorer)
    valuation: Any
    if kind == "leave one out":
        valuation = loo.LOOValuation(utility)
    elif kind == "Banzhaf":
        drawn = MSRSampler(seed=seed)
        valuation = banzhaf.BanzhafValuation(utility, drawn, MaxSamples(drawn, TRAININGS))
    else:
        cut = RelativeTruncation(rtol=0.01, burn_in_fraction=0.4) if kind == "truncated" else None
        walks = PermutationSampler(truncation=cut, seed=seed)
        valuation = shapley.ShapleyValuation(utility, walks, MinUpdates(TRAININGS // 200))
    with parallel_config(n_jobs=1):
        valuation.fit(Dataset(X_train, y_train))
    return in_order(valuation.result), trainings


def first_table() -> None:
    """Five neighbours: exact values and what costs no more."""
    scores: dict[str, Callable[[Tables, int], np.ndarray]] = {
        "knn_shapley": exact,
        "pyDVL kNN Shapley": pydvl_knn,
        "leave one out": leave_one_out,
        "own probability": own_probability,
    }
    areas: dict[str, list[float]] = {name: [] for name in scores}
    apart, ratios = [], []
    for seed in range(DRAWS):
        tables, is_wrong = planted(seed, 500)
        values, seconds = {}, {}
        for name, score in scores.items():
            start = time.process_time()
            values[name] = score(tables, 5)
            seconds[name] = time.process_time() - start
            areas[name].append(roc_auc_score(is_wrong, -values[name]))
        apart.append(np.abs(values["knn_shapley"] - values["pyDVL kNN Shapley"]).max())
        ratios.append(seconds["pyDVL kNN Shapley"] / seconds["knn_shapley"])
    print("500 rows, 50 wrong, five neighbours")
    for name, found in areas.items():
        print(f"  {name:<28} area under the curve {np.mean(found):.3f} (least {min(found):.3f})")
    print(f"  pyDVL's values differ by at most {max(apart):.1e}")
    print(f"  CPU time, pyDVL over knn_shapley: median {np.median(ratios):.1f}")


def second_table(path: str) -> None:
    """One neighbour: exact values, and all that is sampled."""
    rows: dict[str, list[tuple[float, float, int]]] = {}
    held = []
    with np.load(path) as file:
        ours = {name: file[name] for name in file.files}
    for seed in range(DRAWS):
        tables, is_wrong = planted(seed, 200)
        truth = exact(tables, 1)
        found = {
            "knn_shapley": (truth, 0),
            "estimate_values": (ours["shapley"][seed], TRAININGS),
            "pyDVL Shapley, orderings": pydvl_sampled(tables, "whole", seed),
            "pyDVL Shapley, truncated": pydvl_sampled(tables, "truncated", seed),
            "Banzhaf, samples reused": (ours["banzhaf"][seed], TRAININGS),
            "pyDVL Banzhaf": pydvl_sampled(tables, "Banzhaf", seed),
            "leave one out": (leave_one_out(tables, 1), 201),
            "pyDVL leave one out": pydvl_sampled(tables, "leave one out", seed),
            "own probability": (own_probability(tables, 1), 1),
        }
        held.append(np.abs(ours["shapley"][seed] - truth) <= 1.96 * ours["std"][seed])
        for name, (values, trainings) in found.items():
            area = float(roc_auc_score(is_wrong, -values))
            error = float(np.sqrt(np.mean((values - truth) ** 2)) / truth.std())
            rows.setdefault(name, []).append((area, error, trainings))
    print("200 rows, 20 wrong, one neighbour")
    for name, of_draws in rows.items():
        area, error, trainings = np.mean(of_draws, axis=0)
        least = min(of_draws)[0]
        line = f"  {name:<28} area under the curve {area:.3f} (least {least:.3f})"
        line += f"  trainings {trainings:5.0f}"
        print(line + (f"  error {error:.2f}" if "Shapley" in name or "values" in name else ""))
    print(f"  estimate_values: {np.mean(held):.0%} of the exact values in intervals of 95%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write")
    parser.add_argument("--read")
    options = parser.parse_args()
    if options.write:
        write_values(options.write)
    if options.read:
        used = ", ".join(f"{name} {version(name)}" for name in ("pydvl", "scikit-learn", "numpy"))
        print(f"$ python -W ignore benchmarks/data_values.py --read values.npz    ({used})")
        first_table()
        second_table(options.read)


if __name__ == "__main__":
    main()
