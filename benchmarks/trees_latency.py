"""How long does one row take, once everything that does not depend on it is done?

Median wall milliseconds of one row, in one thread, asked alternately: a `PreparedTrees` and a
`BackgroundTrees` with 1,000 rows beside a prepared `shap.TreeExplainer` of each game, on the models
of trees_speed.py. The row comes as an array and as a pandas frame. The answers are compared first.

    OMP_NUM_THREADS=1 python benchmarks/trees_latency.py --models abc
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import shap
from trees_speed import make

import shaplab


def medians(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each call, each in turn."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            spent[name].append(1e3 * (time.perf_counter() - begin))
    return {name: float(np.median(times)) for name, times in spent.items()}


def main() -> None:
    """Print one line for each model and game."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="abc")
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    print(f"milliseconds a row, one thread: shaplab {shaplab.__version__}, shap {shap.__version__}")
    for name in options.models:
        model, X = make(name)
        X = np.asarray(X)
        row, background = X[:1], X[1:1001]
        # A bare background is cut to 100 rows.
        masker = shap.maskers.Independent(background, max_samples=len(background))
        games = {
            "path-dependent": (
                shaplab.PreparedTrees(model),
                shap.TreeExplainer(model, feature_perturbation="tree_path_dependent"),
            ),
            "interventional": (
                shaplab.BackgroundTrees(model, background),
                shap.TreeExplainer(model, masker, feature_perturbation="interventional"),
            ),
        }
        for game, (ours, theirs) in games.items():
            expected = np.asarray(theirs.shap_values(row, check_additivity=False))
            np.testing.assert_allclose(
                ours(row).values.ravel(), expected.ravel(), rtol=1e-3, atol=1e-4
            )
            for form, table in (("array", row), ("frame", pd.DataFrame(row))):
                found = medians(
                    {
                        "shaplab": partial(ours, table),
                        "shap": partial(theirs.shap_values, table, check_additivity=False),
                    },
                    options.repeats,
                )
                ratio = found["shap"] / found["shaplab"]
                print(
                    f"{name}  {game:<15} {form}  shaplab {found['shaplab']:.2f}  "
                    f"shap {found['shap']:.2f}  ratio {ratio:.1f}  held {ours.nbytes / 1e6:.0f} MB"
                )


if __name__ == "__main__":
    main()
