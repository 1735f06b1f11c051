"""Where does the time of an explanation go?

CPU seconds of each step in one thread, with a warm compile cache, on the models of trees_speed.py.
The library's functions are wrapped for this run only; the seconds of a step leave out the steps
that it calls. "put together" is what remains: sums turned into the result, and Python between the
steps.

    OMP_NUM_THREADS=1 python benchmarks/trees_profile.py --models abc
"""

from __future__ import annotations

import argparse
import functools
import time

from trees_speed import make  # limits threads before anything is loaded

import shaplab
from shaplab.trees import _plans, ensemble
from shaplab.trees._encoding import Encoder
from shaplab.trees._paths import Paths
from shaplab.trees._plans import LeafClusters, PathDependentPlan

STEPS = {
    "read the model": (ensemble, "read_model"),
    "arrange": (ensemble, "arrange"),
    "encode rows": (Encoder, "encode"),
    "follow paths": (Paths, "__init__"),
    "plan clusters": (LeafClusters, "__init__"),
    "count background": (LeafClusters, "count"),
    "build tables": (LeafClusters, "build"),
    "look up": (_plans, "look_up"),
    "walk": (PathDependentPlan, "walk"),
}
stack: list[list] = []
spent: dict[str, float] = {}


def timed(step, function):
    @functools.wraps(function)
    def wrapper(*arguments, **named):
        entry = [step, 0.0]
        stack.append(entry)
        begin = time.process_time()
        result = function(*arguments, **named)
        whole = time.process_time() - begin
        stack.pop()
        spent[entry[0]] = spent.get(entry[0], 0.0) + whole - entry[1]
        if stack:
            stack[-1][1] += whole
        return result

    return wrapper


def profile(call, repeats):
    """Seconds by step of the fastest of some calls."""
    call()
    best: dict[str, float] = {}
    for _ in range(repeats):
        spent.clear()
        begin = time.process_time()
        call()
        whole = time.process_time() - begin
        if not best or whole < sum(best.values()):
            best = spent | {"put together": whole - sum(spent.values())}
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="abc")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for step, (place, name) in STEPS.items():
        setattr(place, name, timed(step, getattr(place, name)))
    print("CPU seconds, one thread", shaplab.__version__)
    for name in options.models:
        model, X = make(name)
        trees = shaplab.TreeEnsemble.from_model(model)
        few = X[:1000]
        jobs = {
            "read the model": lambda: shaplab.TreeEnsemble.from_model(model),
            "values, 10,000 rows": lambda: shaplab.tree_shap(trees, X[:10_000]),
            "values, 1,000 rows, 10,000 background rows": lambda: shaplab.interventional_tree_shap(
                trees, few, X[-10_000:]
            ),
            "interactions, 1,000 rows": lambda: shaplab.tree_shap_interactions(trees, few),
            "interactions, 1,000 rows, 10,000 background rows": lambda: (
                shaplab.interventional_tree_shap_interactions(trees, few, X[-10_000:])
            ),
        }
        for job, call in jobs.items():
            found = profile(call, options.repeats)
            parts = "; ".join(
                f"{step} {seconds:.4f}" for step, seconds in found.items() if seconds >= 5e-5
            )
            print(f"({name}) {job}: {parts}; total {sum(found.values()):.4f}", flush=True)


if __name__ == "__main__":
    main()
