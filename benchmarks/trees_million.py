"""Does an explanation of 1,000,000 rows x 50 features fit in bounded memory, and how long does it
take?

XGBoost, 100 trees of depth 6. Rows come from a memory map on disk and values go to another; time
and the process's peak memory (anonymous pages, not the mapped files) are printed.

    python benchmarks/trees_million.py --rows 1000000 --jobs 2
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import xgboost

import shaplab


def anonymous_peak():
    """Resident anonymous memory in MB, from Linux's own account."""
    fields = dict(
        line.split(":")
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":" in line
    )
    return int(fields["RssAnon"].split()[0]) / 1024


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, default=1_000_000)
parser.add_argument("--jobs", type=int, default=1)
options = parser.parse_args()
rng = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as folder:
    X = np.memmap(Path(folder) / "X", np.float32, "w+", shape=(options.rows, 50))
    for start in range(0, options.rows, 100_000):
        X[start : start + 100_000] = rng.normal(size=X[start : start + 100_000].shape)
    y = X[:50_000, 0] * X[:50_000, 1] + X[:50_000, 2:12].sum(axis=1)
    model = xgboost.train(
        {"max_depth": 6, "eta": 0.1}, xgboost.DMatrix(np.array(X[:50_000]), y), 100
    )
    trees = shaplab.TreeEnsemble.from_model(model)
    shaplab.tree_shap(trees, X[:1000])
    shaplab.interventional_tree_shap(trees, X[:1000], X[:1000])
    for name, arguments in (
        ("tree_shap", ()),
        ("interventional_tree_shap", (np.array(X[:10_000]),)),
    ):
        out = np.memmap(Path(folder) / name, np.float64, "w+", shape=(options.rows, 50))
        before, wall, cpu = anonymous_peak(), time.perf_counter(), time.process_time()
        peak = before
        function = getattr(shaplab, name)
        found = function(trees, X, *arguments, out=out, batch_size=65_536, n_jobs=options.jobs)
        peak = anonymous_peak()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        gap = np.abs(found[:1000].gap(trees.predict(X[:1000]))).max()
        print(
            f"{name:<26} {options.rows:,} rows: {wall:.1f} s wall, {cpu:.1f} s CPU, "
            f"{options.rows / wall:,.0f} "
            f"rows/s, memory {before:.0f} -> {peak:.0f} MB, additivity gap {gap:.1e}"
        )
