"""Shapley values of any game from few evaluations: `estimate_values` beside shapiq's estimators.

    python -W ignore benchmarks/estimators.py > benchmarks/results/estimators.txt

Needs shapiq 1.8.0 with xgboost and lightgbm, which its surrogates are made of (Python 3.12). Errors
are root mean squares over players and seeds, relative to the root mean square of the true values.
Truth comes from enumeration, from exact trees, or from a closed form, never from an estimator.
Budgets are evaluations a player; where a budget covers all coalitions it is left out. A hyphen: the
estimator refuses the budget, or took more than 20 s for the one before. The best of a line has a
star. With pairs, PolySHAP of order 2 is KernelSHAP: that is a theorem.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from shapiq.approximator import (
    KernelSHAP,
    LeverageSHAP,
    OddSHAP,
    PermutationSamplingSV,
    PolySHAP,
    ProxySHAP,
)
from shapiq.approximator.proxy import RegressionMSR
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor

from shaplab import TableGame, all_coalitions, estimate_values, interventional_tree_shap
from shaplab import shapley_values as enumerate_values

BUDGETS = (5, 10, 20, 60, 200)
PATIENCE = 20.0


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

# Options: pairs where they are offered, and the estimator that corrects its surrogate.
PEERS: dict[str, Callable[[int, int], Any]] = {
    "Kernel": lambda n, seed: KernelSHAP(n=n, pairing_trick=True, random_state=seed),
    "Leverage": lambda n, seed: LeverageSHAP(n=n, random_state=seed),
    "Poly": lambda n, seed: PolySHAP(n=n, pairing_trick=True, random_state=seed),
    "Odd": lambda n, seed: OddSHAP(n=n, random_state=seed),
    "MSR": lambda n, seed: RegressionMSR(n=n, index="SV", random_state=seed),
    "Proxy": lambda n, seed: ProxySHAP(
        n=n, index="SV", max_order=1, adjustment=True, random_state=seed
    ),
    "Permutation": lambda n, seed: PermutationSamplingSV(n=n, random_state=seed),
}


def estimate(name: str, problem: Problem, budget: int, seed: int) -> np.ndarray:
    """Values by one estimator from so many evaluations."""
    game, n, _ = problem
    if name == "shaplab":
        found = estimate_values(game, n, max_evaluations=budget, thresh=None, rng=seed)
        return found.values
    peer = PEERS[name](n, seed)
    answer = peer.approximate(budget, lambda S: game(np.atleast_2d(np.asarray(S, dtype=bool))))
    return np.array([answer[(player,)] for player in range(n)])


def lines_of(name: str, seeds: int, budgets: list[int]) -> list[str]:
    """One line a budget: the error of every estimator."""
    # Fewer evaluations than terms: shapiq says so at every small budget.
    warnings.simplefilter("ignore")
    problem = PROBLEMS[name]()
    unit = np.sqrt(np.mean(problem.truth**2))
    slow: set[str] = set()
    lines = [name]
    for budget in budgets:
        if problem.n < 20 and budget * problem.n >= 2**problem.n:
            continue
        # Large budgets take longest and differ least from seed to seed.
        repeats = seeds if budget <= 20 else max(2, seeds // 2)
        errors: dict[str, float] = {}
        for estimator in ["shaplab", *PEERS]:
            if estimator in slow:
                continue
            squares = []
            start = time.perf_counter()
            try:
                for seed in range(repeats):
                    values = estimate(estimator, problem, budget * problem.n, seed)
                    squares.append(np.mean((values - problem.truth) ** 2))
            except Exception as problem_of_peer:
                print(name, budget, estimator, repr(problem_of_peer)[:200], file=sys.stderr)
                continue
            if time.perf_counter() - start > PATIENCE * repeats:
                slow.add(estimator)
            errors[estimator] = float(np.sqrt(np.mean(squares)) / unit)
        lines.append(line_of(budget, repeats, errors))
    return lines


def line_of(budget: int, repeats: int, errors: dict[str, float]) -> str:
    best = min(errors.values())
    cells = []
    for estimator in ["shaplab", *PEERS]:
        if estimator not in errors:
            cells.append(f"{'-':>11s}")
            continue
        star = "*" if errors[estimator] <= best * 1.005 + 1e-9 else " "
        cells.append(f"{errors[estimator]:10.4f}{star}")
    return f"  {budget:4d} d {repeats:3d} {' '.join(cells)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    told = " ".join(sys.argv[1:])
    packages = ", ".join(f"{name} {version(name)}" for name in ("shapiq", "xgboost-cpu", "numpy"))
    print(f"$ python -W ignore benchmarks/estimators.py {told}    ({packages})")
    print(f"  budget seeds {' '.join(f'{name:>11s}' for name in ['shaplab', *PEERS])}", flush=True)
    work = Parallel(n_jobs=options.jobs, return_as="generator")
    for lines in work(delayed(lines_of)(name, options.seeds, options.budgets) for name in PROBLEMS):
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
