"""How long do all SHAP values of a mortality model take: 9,550 people x 18 features, 2,000 trees,
Cox objective?

The table is NHANES I (SHAPLAB_DATA_DIR), or a simulated one of the same shape where that is
missing. Main effects and interactions for everybody, beside XGBoost's own code, one thread, CPU
seconds, best of three turns.

    OMP_NUM_THREADS=1 python benchmarks/cox_all.py [--trees 2000] [--turns 3]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import xgboost
from shaplab_book import datasets

from shaplab import TreeEnsemble, tree_shap, tree_shap_interactions

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--trees", type=int, default=2000)
parser.add_argument("--turns", type=int, default=3)
options = parser.parse_args()
try:
    study = datasets.load_nhanes()
    X, years, name = study.X.astype(float).to_numpy(), np.asarray(study.y), study.name
except FileNotFoundError:
    rng, name = np.random.default_rng(0), "simulated"
    X = rng.normal(size=(9550, 18))
    years = np.ceil(20 * rng.exponential(np.exp(-X[:, 0] - X[:, 1] * X[:, 2])))
    years *= np.where(rng.random(9550) < 0.4, 1, -1)
settings = {
    "objective": "survival:cox",
    "max_depth": 4,
    "eta": 0.005,
    "subsample": 0.5,
    "base_score": 1.0,
    "nthread": 1,
}
rows = xgboost.DMatrix(X, years, nthread=1)
start = time.process_time()
model = xgboost.train(settings, rows, options.trees)
fit = time.process_time() - start
start = time.process_time()
trees = TreeEnsemble.from_model(model)
read = time.process_time() - start
tree_shap(trees, X[:100])  # compiled before the clock runs
tree_shap_interactions(trees, X[:100])
few = {
    "main": 1000,
    "interactions": 100,
}  # rows for XGBoost, whose time grows with them; scaled to all, marked ~
parts = {job: xgboost.DMatrix(X[:n], nthread=1) for job, n in few.items()}
jobs = {
    "main": (
        lambda: tree_shap(trees, X, n_jobs=1),
        lambda: model.predict(parts["main"], pred_contribs=True),
    ),
    "interactions": (
        lambda: tree_shap_interactions(trees, X, n_jobs=1),
        lambda: model.predict(parts["interactions"], pred_interactions=True),
    ),
}
print(f"{name}: {X.shape[0]:,} x {X.shape[1]}, {options.trees:,} trees of depth 4")
print(f"CPU seconds: fitted in {fit:.2f}, read in {read:.2f}")
for job, calls in jobs.items():
    best, found = [np.inf, np.inf], [None, None]
    for _ in range(options.turns):
        for k, call in enumerate(calls):
            start = time.process_time()
            found[k] = call()
            best[k] = min(best[k], (time.process_time() - start) * (len(X) / few[job] if k else 1))
    theirs = found[1][:, :-1] if job == "main" else found[1][:, :-1, :-1]
    gap = np.abs(found[0].gap(model.predict(rows, output_margin=True))).max()
    print(
        f"{job:<13} ours {best[0]:6.2f}   XGBoost ~ {best[1]:6.1f}   ratio "
        f"{best[1] / best[0]:5.0f}   difference "
        f"{np.abs(found[0].values[: few[job]] - theirs).max():.0e}   from the output {gap:.0e}"
    )
