"""Shapley values of any game from few evaluations: `estimate_values` beside shapiq's estimators,
shap's and LightSHAP's.

    python -W ignore benchmarks/estimators.py > benchmarks/results/estimators.txt

Needs shapiq 1.8.0 with xgboost and lightgbm, which its surrogates are made of, shap and lightshap
(Python 3.12). Errors are root mean squares over players and seeds, relative to the root mean square
of the true values; the games are those of `known_games.py`. shap and LightSHAP explain models: they
get the game as one of zeros and ones, with one reference of zeros, so that a model row is a
coalition. Budgets are evaluations a player; where a budget covers all coalitions it is left out. A
hyphen: the estimator refuses the budget, or took more than 60 CPU seconds a run for the one before.
The best of a line has a star. With pairs, PolySHAP of order 2 is KernelSHAP: that is a theorem.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from typing import Any

import lightshap
import numpy as np
import shap
from known_games import PROBLEMS, Problem
from shapiq.approximator import (
    KernelSHAP,
    LeverageSHAP,
    OddSHAP,
    PermutationSamplingSV,
    PolySHAP,
    ProxySHAP,
)
from shapiq.approximator.proxy import RegressionMSR

from shaplab import estimate_values

BUDGETS = (5, 10, 20, 60, 200)
PATIENCE = 60.0
USED = ("shapiq", "shap", "lightshap", "xgboost-cpu", "numpy")

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


# Explainers of models: an estimator of values, from a model, n, a budget and a seed.
Model = Callable[[np.ndarray], np.ndarray]


def shap_kernel(model: Model, n: int, budget: int, seed: int) -> Any:
    # It draws from the global generator.
    np.random.seed(seed)  # noqa: NPY002
    explainer = shap.KernelExplainer(model, np.zeros((1, n)))
    # Nobody and everybody come on top; by default all but ten values would be zero.
    return explainer.shap_values(np.ones((1, n)), nsamples=budget - 2, l1_reg=False, silent=True)


def shap_permutation(model: Model, n: int, budget: int, seed: int) -> Any:
    masker = shap.maskers.Independent(np.zeros((1, n)))
    explainer = shap.explainers.Permutation(model, masker, seed=seed)
    return explainer(np.ones((1, n)), max_evals=budget, silent=True).values


def light(model: Model, n: int, settings: tuple[str, str], iterations: int, seed: int) -> Any:
    explanation = lightshap.explain_any(
        model,
        np.ones((1, n)),
        bg_X=np.zeros((1, n)),
        method=settings[0],
        how=settings[1],
        max_iter=iterations,
        tol=1e-15,
        random_state=seed,
        verbose=False,
    )
    return explanation.shap_values


@cache
def costs_of_light(n: int, settings: tuple[str, str]) -> tuple[int, int]:
    """Evaluations of the first iteration and of each of the next ones."""
    worth = np.random.default_rng(0).normal(size=n)
    asked = []

    def model(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return np.cos(3.0 * rows @ worth)

    light(model, n, settings, 1, 0)
    first = sum(asked)
    light(model, n, settings, 2, 0)
    return first, sum(asked) - 2 * first


def light_within(model: Model, n: int, settings: tuple[str, str], budget: int, seed: int) -> Any:
    """As many iterations as the budget has room for."""
    first, more = costs_of_light(n, settings)
    if budget < first:
        raise ValueError(f"LightSHAP needs {first} evaluations")
    return light(model, n, settings, 1 + (budget - first) // more, seed)


EXPLAINERS: dict[str, Callable[[Model, int, int, int], Any]] = {
    "shap Kern": shap_kernel,
    "shap Perm": shap_permutation,
    "Light Kern": lambda model, n, budget, seed: light_within(
        model, n, ("kernel", "sampling"), budget, seed
    ),
    "Light Perm": lambda model, n, budget, seed: light_within(
        model, n, ("permutation", "sampling"), budget, seed
    ),
}
COLUMNS = ["shaplab", *PEERS, *EXPLAINERS]


def estimate(name: str, problem: Problem, budget: int, seed: int) -> np.ndarray:
    """Values by one estimator from so many evaluations."""
    game, n, _ = problem
    if name == "shaplab":
        found = estimate_values(game, n, max_evaluations=budget, thresh=None, rng=seed)
        return found.values
    if name in EXPLAINERS:
        return np.asarray(
            EXPLAINERS[name](lambda rows: game(np.asarray(rows) > 0.5), n, budget, seed)
        ).reshape(n)
    peer = PEERS[name](n, seed)
    answer = peer.approximate(budget, lambda S: game(np.atleast_2d(np.asarray(S, dtype=bool))))
    return np.array([answer[(player,)] for player in range(n)])


def lines_of(name: str, seeds: int, budgets: list[int]) -> Iterator[str]:
    """One line a budget: the error of every estimator."""
    # Fewer evaluations than terms: shapiq says so at every small budget.
    warnings.simplefilter("ignore")
    problem = PROBLEMS[name]()
    unit = np.sqrt(np.mean(problem.truth**2))
    slow: set[str] = set()
    yield name
    for budget in budgets:
        if problem.n < 20 and budget * problem.n >= 2**problem.n:
            continue
        errors: dict[str, float] = {}
        for estimator in COLUMNS:
            if estimator in slow:
                continue
            squares = []
            start = time.process_time()
            try:
                for seed in range(seeds):
                    values = estimate(estimator, problem, budget * problem.n, seed)
                    squares.append(np.mean((values - problem.truth) ** 2))
            except Exception as problem_of_peer:
                print(name, budget, estimator, repr(problem_of_peer)[:200], file=sys.stderr)
                continue
            if time.process_time() - start > PATIENCE * seeds:
                slow.add(estimator)
            errors[estimator] = float(np.sqrt(np.mean(squares)) / unit)
        yield line_of(budget, seeds, errors)


def line_of(budget: int, repeats: int, errors: dict[str, float]) -> str:
    best = min(errors.values())
    cells = []
    for estimator in COLUMNS:
        if estimator not in errors:
            cells.append(f"{'-':>11s}")
            continue
        star = "*" if errors[estimator] <= best * 1.005 + 1e-9 else " "
        cells.append(f"{errors[estimator]:10.4f}{star}")
    return f"  {budget:4d} d {repeats:3d} {' '.join(cells)}"


def means_of(lines: list[str]) -> list[str]:
    """Means over the games in which every estimator has a number, one line a budget."""
    rows: dict[int, list[list[float]]] = {}
    for line in lines:
        words = line.replace("*", " ").split()
        if len(words) == 3 + len(COLUMNS) and words[1] == "d" and "-" not in words:
            rows.setdefault(int(words[0]), []).append([float(word) for word in words[3:]])
    means = ["mean over games in which every estimator has a number; their number after the budget"]
    for budget, table in rows.items():
        mean = np.mean(table, axis=0)
        errors = dict(zip(COLUMNS, mean.tolist(), strict=True))
        means.append(line_of(budget, len(table), errors))
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--games", nargs="+", default=list(PROBLEMS))
    options = parser.parse_args()
    told = " ".join(sys.argv[1:])
    packages = ", ".join(f"{name} {version(name)}" for name in USED)
    print(f"$ python -W ignore benchmarks/estimators.py {told}    ({packages})")
    print(f"  budget seeds {' '.join(f'{name:>11s}' for name in COLUMNS)}", flush=True)
    everything: list[str] = []
    for name in options.games:
        for line in lines_of(name, options.seeds, options.budgets):
            print(line, flush=True)
            everything.append(line)
    print("\n".join(means_of(everything)))


if __name__ == "__main__":
    main()
