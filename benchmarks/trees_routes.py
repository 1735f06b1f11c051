"""Does the library choose the faster route for a forest?

CPU seconds of one thread for both routes of the path-dependent game and for the one that is chosen,
on complete trees with random splits. The cost model may miss where the routes are close; these four
are not.

    OMP_NUM_THREADS=1 python benchmarks/trees_routes.py
"""

from __future__ import annotations

import time

import numpy as np

from shaplab.trees._paths import Paths
from shaplab.trees._plans import PathDependentPlan, threads
from shaplab.trees._players import players_of
from shaplab.trees.ensemble import TreeEnsemble

FORESTS = [(3, 6, 40, 4000), (6, 12, 8, 4000), (9, 20, 1, 20), (6, 12, 8, 3)]


def complete_trees(rng, depth, d, n_trees):
    """Complete trees with random splits: the children of node i at 2i + 1 and 2i + 2."""
    n = 2 ** (depth + 1) - 1
    node = np.arange(n)
    inner = np.tile(node < 2**depth - 1, n_trees)
    start = np.arange(n_trees + 1) * n
    left = np.tile(2 * node + 1, n_trees) + np.repeat(start[:-1], n)
    return TreeEnsemble.from_arrays(
        np.where(inner, rng.integers(0, d, n * n_trees), -1),
        rng.normal(size=n * n_trees),
        np.where(inner, left, -1),
        np.where(inner, left + 1, -1),
        rng.normal(size=n * n_trees),
        tree_start=start,
        n_features=d,
    )


def main():
    for depth, d, n_trees, n_rows in FORESTS:
        trees = complete_trees(np.random.default_rng(3), depth, d, n_trees)
        rows = np.random.default_rng(4).normal(size=(n_rows, d))
        codes = np.ascontiguousarray(trees.encode(rows).T)
        paths, seconds = Paths(trees, players_of(trees, None, None)), {}
        for route in ("tables", "walk", "auto"):
            plan = PathDependentPlan(paths, False, n_rows, route)
            plan.sums(codes, threads(1))
            runs = []
            for _ in range(7):
                begin = time.process_time()
                plan.sums(codes, threads(1))
                runs.append(time.process_time() - begin)
            seconds[route] = min(runs)
        times = "  ".join(f"{route} {1e3 * best:.3f} ms" for route, best in seconds.items())
        print(f"{n_trees} trees of depth {depth}, {d} features, {n_rows} rows: {times}")


if __name__ == "__main__":
    main()
