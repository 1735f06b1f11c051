# ruff: noqa: B023, E402
"""How fast are the tree explainers beside their peers?

CPU seconds in one thread, ours and the peer in turn in one process, after checking that they agree. A job that
would take minutes is run on fewer rows, and ours beside it in full; the peer's seconds are then scaled (marked ~).

    OMP_NUM_THREADS=1 python benchmarks/trees_speed.py --models abc --repeats 3
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import contextlib
import importlib.metadata
import io
import time

import numpy as np

import shaplab  # after the thread settings

MODELS = {"a": (100, 6, 30), "b": (500, 8, 50), "c": (1000, 4, 30)}


def make(name):
    """Fit model a, b, c (XGBoost) or d (random forest); returns it with 200,000 rows."""
    rng = np.random.default_rng(0)
    d = MODELS[name][2] if name in MODELS else 30
    X = rng.normal(size=(200_000, d)).astype(np.float32)
    y = X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) + X[:, 3:13].sum(axis=1) + rng.normal(size=len(X))
    if name == "d":
        from sklearn.ensemble import RandomForestRegressor

        return RandomForestRegressor(100, random_state=0).fit(X[:2000], y[:2000]), X
    import xgboost

    trees, depth, _ = MODELS[name]
    parameters = {"max_depth": depth, "eta": 0.1, "nthread": 1, "tree_method": "hist"}
    return xgboost.train(parameters, xgboost.DMatrix(X[:20_000], y[:20_000]), trees), X


def seconds(function):
    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = function()
    return time.process_time() - begin, np.asarray(result)


def compare(job, ours, theirs, rows, subset, repeats, prepare=None):
    """Alternate; ``theirs`` explains ``subset`` of the ``rows`` rows; what ``prepare`` makes for it is not scaled."""
    ours()  # compiled and cached before the clock runs
    mine, other = [], []
    for _ in range(repeats):
        t, values = seconds(ours)
        mine.append(t)
        setup, ready = seconds(prepare) if prepare else (0.0, None)
        t, expected = seconds(lambda: theirs(ready.item()) if prepare else theirs())
        other.append(setup + t * rows / subset)
    gap = np.abs(values[:subset] - expected.reshape(values[:subset].shape)).max()
    mark = "~" if subset < rows else " "
    print(f"{job:<58} ours {min(mine):9.3f} s   peer {mark}{min(other):9.2f} s   "
          f"ratio {min(other) / min(mine):8.1f}   gap {gap:.1e}", flush=True)
    assert gap < 1e-2 * max(1.0, np.abs(expected).max()), "the peer computes something else: no comparison"


def xgboost_peer(model, X, interactions=False):
    import xgboost

    found = model.predict(xgboost.DMatrix(X), pred_contribs=not interactions, pred_interactions=interactions)
    return found[:, :-1, :-1] if interactions else found[:, :-1]


def shap_peer(model, background=None):
    """shap's own C extension; for XGBoost it would call XGBoost otherwise."""
    import shap

    perturbation = "tree_path_dependent" if background is None else "interventional"
    if background is not None:  # an array would silently be cut to 100 rows
        background = shap.maskers.Independent(background, max_samples=len(background))
    explainer = shap.TreeExplainer(model, background, feature_perturbation=perturbation)
    if background is None:
        explainer.model.model_type = "internal"
    return explainer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="abcd")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", default="values,interactions,interventional,large")
    parser.add_argument("--skip", default="", help="peers to leave out: xgboost, shap, woodelf")
    options = parser.parse_args()
    jobs, skip = options.jobs.split(","), options.skip.split(",")
    packages = ("numpy", "numba", "xgboost", "shap", "scikit-learn")
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(versions, f"numba threads {os.environ['NUMBA_NUM_THREADS']}")
    for name in options.models:
        model, X = make(name)
        boosted = name != "d"
        trees = shaplab.TreeEnsemble.from_model(model)
        print(f"({name}) {trees!r}")
        rows = X[:10_000]

        def run(job, ours, theirs, n, subset, prepare=None):
            compare(job, ours, theirs, n, subset, options.repeats, prepare)

        if "values" in jobs:
            def ours():
                return shaplab.tree_shap(trees, rows).values

            if boosted and "xgboost" not in skip:
                run("path-dependent, 10,000 rows: XGBoost", ours,
                    lambda: xgboost_peer(model, rows[:2500]), 10_000, 2500)
            if "shap" not in skip:
                n = {"a": 500, "b": 100, "c": 500, "d": 20}[name]
                run("path-dependent, 10,000 rows: shap C", ours,
                    lambda peer: peer.shap_values(rows[:n], check_additivity=False), 10_000, n,
                    lambda: shap_peer(model))
        if "interactions" in jobs and boosted:
            def pairs():
                return shaplab.tree_shap_interactions(trees, rows[:1000]).values

            if "xgboost" not in skip:
                run("interactions, 1,000 rows: XGBoost", pairs,
                    lambda: xgboost_peer(model, rows[:200], True), 1000, 200)
            if "shap" not in skip:
                n = {"a": 20, "b": 2, "c": 20}[name]
                run("interactions, 1,000 rows: shap C", pairs,
                    lambda peer: peer.shap_interaction_values(rows[:n]), 1000, n, lambda: shap_peer(model))
        for n, r, job in ((1000, 10_000, "interventional"), (200_000, 200_000, "large")):
            if job not in jobs or not boosted:
                continue

            def against():
                return shaplab.interventional_tree_shap(trees, X[:n], X[-r:]).values

            label = f"interventional, {n:,} rows, {r:,} background rows"
            if "woodelf" not in skip:
                import pandas as pd
                from woodelf import WoodelfExplainer

                columns = [f"f{i}" for i in range(X.shape[1])]
                model.feature_names = columns
                frame, background = (pd.DataFrame(part, columns=columns) for part in (X[:n], X[-r:]))
                run(f"{label}: woodelf", against, lambda: WoodelfExplainer(
                    model, background, feature_perturbation="interventional").shap_values(frame, verbose=False), n, n)
                model.feature_names = None
            if "shap" not in skip and job == "interventional":
                few = {"a": 2, "b": 1, "c": 2}[name]
                run(f"{label}: shap C", against, lambda peer: peer.shap_values(X[:few], check_additivity=False), n, few,
                    lambda: shap_peer(model, X[-r:]))


if __name__ == "__main__":
    main()
