"""How long does the first call take: after installation (nothing compiled) and with the compile
cache?

Each function is called in a fresh process, first with an empty cache directory, then again with
what that run left there; wall and CPU seconds of reading the model and the call, with the import of
numba that they cause.

    python benchmarks/trees_first_call.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

CALL = """
import sys, time
import numpy as np
import shaplab
rng = np.random.default_rng(0)
X = rng.normal(size=(1000, 8))
from sklearn.ensemble import GradientBoostingRegressor
model = GradientBoostingRegressor(n_estimators=20, max_depth=4).fit(X, X[:, 0] * X[:, 1])
before, cpu = time.perf_counter(), time.process_time()
trees = shaplab.TreeEnsemble.from_model(model)
for name in sys.argv[1].split(","):
    function = getattr(shaplab, name)
    function(trees, X, X[:50]) if name.startswith("interventional") else function(trees, X)
print(time.perf_counter() - before, time.process_time() - cpu)
"""
NAMES = (
    "tree_shap",
    "interventional_tree_shap",
    "tree_shap_interactions",
    "interventional_tree_shap_interactions",
)


def call(names, folder):
    environment = os.environ | {"NUMBA_CACHE_DIR": folder}
    done = subprocess.run(
        [sys.executable, "-c", CALL, names],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return "{:6.2f} s wall {:6.2f} s CPU".format(*map(float, done.stdout.split()))


for names in (*NAMES, ",".join(NAMES)):
    with tempfile.TemporaryDirectory() as folder:
        first, again = call(names, folder), call(names, folder)
    print(
        f"{names if ',' not in names else 'all four':<40} empty cache {first}   with cache {again}"
    )
