# ruff: noqa: B023, E402
"""How fast are the tree explainers beside their peers?

CPU seconds in one thread, ours and the peer in turn in one process, after checking that they agree.
A job that would take minutes is run on fewer rows, and ours beside it in full; the peer's seconds
are then scaled (marked ~). ``gap`` is the largest difference between the two; ``miss``, ours / the
peer's, how far the sums of the values are from the model's output up to a constant, so that a gap
can be laid at somebody's door. MB is the most memory that a call took beyond what the process held
before it.

    OMP_NUM_THREADS=1 python benchmarks/trees_speed.py --models abc --repeats 3 OMP_NUM_THREADS=1
    python benchmarks/trees_speed.py --models abc --jobs large --skip shap,shapiq --repeats 1
    python benchmarks/trees_speed.py --models f --jobs values
    python benchmarks/trees_speed.py --models de --jobs forests
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import time

import numpy as np

import shaplab  # after the thread settings

MODELS = {"a": (100, 6, 30), "b": (500, 8, 50), "c": (1000, 4, 30)}
# Rows of training and columns of the forests of 100 trees without a limit of depth.
FORESTS = {"d": (2000, 30), "e": (20_000, 400)}


def make(name):
    """Fit model a, b, c (XGBoost), d, e (random forest) or f (CatBoost); returns it with 200,000
    rows, e with 22,000 of 400 columns, 5 % of which are not 0: its paths ask up to some 250 of
    them. Fitting it takes minutes."""
    rng = np.random.default_rng(0)
    if name == "e":
        fitted, d = FORESTS[name]
        X = rng.normal(size=(fitted + 2000, d)).astype(np.float32)
        X[rng.random(X.shape) > 0.05] = 0.0
        y = X @ rng.normal(size=d) + 0.1 * rng.normal(size=len(X))
        return forest(X[:fitted], y[:fitted]), X
    d = MODELS[name][2] if name in MODELS else 30
    X = rng.normal(size=(200_000, d)).astype(np.float32)
    y = X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) + X[:, 3:13].sum(axis=1) + rng.normal(size=len(X))
    if name == "d":
        fitted, _ = FORESTS[name]
        return forest(X[:fitted], y[:fitted]), X
    if name == "f":
        import catboost

        settings = {"verbose": 0, "thread_count": 1, "allow_writing_files": False}
        model = catboost.CatBoostRegressor(iterations=500, depth=6, **settings)
        return model.fit(X[:20_000], y[:20_000]), X
    import xgboost

    trees, depth, _ = MODELS[name]
    parameters = {"max_depth": depth, "eta": 0.1, "nthread": 1, "tree_method": "hist"}
    return xgboost.train(parameters, xgboost.DMatrix(X[:20_000], y[:20_000]), trees), X


def forest(X, y):
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(100, random_state=0).fit(X, y)


def memory(name):
    """A line of Linux's own account of this process, in MB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))


def seconds(function):
    """CPU seconds, result, and the MB beyond those held before."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # the peak starts anew
    before, begin = memory("VmRSS"), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = function()
    return time.process_time() - begin, np.asarray(result), memory("VmHWM") - before


def compare(job, ours, theirs, rows, subset, repeats, output, prepare=None):
    """Alternate; ``theirs`` explains ``subset`` of the ``rows`` rows; what ``prepare`` makes for it
    is not scaled."""
    ours()  # compiled and cached before the clock runs
    mine, other = [], []
    for _ in range(repeats):
        t, values, our_memory = seconds(ours)
        mine.append(t)
        setup, ready, _ = seconds(prepare) if prepare else (0.0, None, 0.0)
        t, expected, their_memory = seconds(lambda: theirs(ready.item()) if prepare else theirs())
        other.append(setup + t * rows / subset)
    values, expected = values[:subset], expected.reshape(values[:subset].shape)
    gap = np.abs(values - expected).max()
    miss = [
        np.ptp(found.reshape(subset, -1).sum(axis=1) - output[:subset])
        for found in (values, expected)
    ]
    mark = "~" if subset < rows else " "
    print(
        f"{job:<59} ours {min(mine):8.3f} s   peer {mark}{min(other):8.2f} s   ratio "
        f"{min(other) / min(mine):7.1f}"
        f"   gap {gap:.0e}   miss {miss[0]:.0e} / {miss[1]:.0e}",
        flush=True,
    )
    if rows > 10_000:
        print(f"{'':<59} ours {our_memory:8,.0f} MB  peer  {their_memory:8,.0f} MB", flush=True)
    # A peer may send single rows another way at thresholds; a different game would differ
    # everywhere.
    assert np.median(np.abs(values - expected)) < 1e-5 * np.abs(expected).max(), (
        "the peer computes something else"
    )


def xgboost_peer(model, X, interactions=False):
    import xgboost

    found = model.predict(
        xgboost.DMatrix(X), pred_contribs=not interactions, pred_interactions=interactions
    )
    return found[:, :-1, :-1] if interactions else found[:, :-1]


def catboost_peer(model, X):
    import catboost

    pool = catboost.Pool(X)
    return model.get_feature_importance(pool, type="ShapValues", thread_count=1)[:, :-1]


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


def shapiq_peer(model, background=None, order=1):
    """shapiq's own algorithms; without the backend it would hand large backgrounds to woodelf."""
    import shapiq

    mode = {} if background is None else {"mode": "interventional", "reference_dataset": background}
    return shapiq.TreeExplainer(
        model, max_order=order, index="SV" if order == 1 else "k-SII", backend="shapiq", **mode
    )


def shapiq_values(explainer, X, order=1):
    found, d = explainer.explain_X(X).values, X.shape[1]
    if order == 1:
        return np.stack([found[(j,)] for j in range(d)], axis=1)
    matrix = np.zeros((len(X), d, d))
    for players, column in found.items():
        if len(players) == 1:
            matrix[:, players[0], players[0]] = column
        elif len(players) == 2:  # ours has half of an interaction on each side of the diagonal
            matrix[:, players[0], players[1]] = matrix[:, players[1], players[0]] = column / 2
    return matrix


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="abcd")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jobs", default="values,interactions,interventional,forests,large")
    parser.add_argument(
        "--skip", default="", help="peers to leave out: xgboost, shap, shapiq, woodelf"
    )
    parser.add_argument(
        "--large", type=int, default=200_000, help="rows, and background rows, of the job 'large'"
    )
    options = parser.parse_args()
    jobs, skip = options.jobs.split(","), options.skip.split(",")
    skip += [
        name for name in ("shap", "shapiq", "woodelf") if importlib.util.find_spec(name) is None
    ]
    known = importlib.metadata.packages_distributions()
    modules = ("numpy", "numba", "xgboost", "catboost", "shap", "shapiq", "woodelf", "sklearn")
    versions = {
        known[module][0]: importlib.metadata.version(known[module][0])
        for module in modules
        if module in known and module not in skip
    }
    print(versions, f"numba threads {os.environ['NUMBA_NUM_THREADS']}")
    for name in options.models:
        model, X = make(name)
        boosted = name in MODELS
        catboosts = name == "f"
        trees = shaplab.TreeEnsemble.from_model(model)
        print(f"({name}) {trees!r}")
        rows = X[:10_000]

        def run(job, ours, theirs, n, subset, prepare=None):
            compare(job, ours, theirs, n, subset, options.repeats, trees.predict(X[:n]), prepare)

        if "values" in jobs and name != "e":  # shap would take days

            def ours():
                return shaplab.tree_shap(trees, rows).values

            if boosted and "xgboost" not in skip:
                run(
                    "path-dependent, 10,000 rows: XGBoost",
                    ours,
                    lambda: xgboost_peer(model, rows[:2500]),
                    10_000,
                    2500,
                )
            if catboosts:
                many = X[:100_000]
                run(
                    "path-dependent, 10,000 rows: CatBoost",
                    ours,
                    lambda: catboost_peer(model, rows),
                    10_000,
                    10_000,
                )
                prepared = shaplab.PreparedTrees(trees)
                run(
                    "path-dependent, 10,000 rows, prepared model: CatBoost",
                    lambda: prepared(rows).values,
                    lambda: catboost_peer(model, rows),
                    10_000,
                    10_000,
                )
                run(
                    "path-dependent, 100,000 rows: CatBoost",
                    lambda: shaplab.tree_shap(trees, many).values,
                    lambda: catboost_peer(model, many),
                    100_000,
                    100_000,
                )
            if "shap" not in skip and not catboosts:
                n = {"a": 500, "b": 100, "c": 500, "d": 20}[name]
                run(
                    "path-dependent, 10,000 rows: shap C",
                    ours,
                    lambda peer: peer.shap_values(rows[:n], check_additivity=False),
                    10_000,
                    n,
                    lambda: shap_peer(model),
                )
            if boosted and "shapiq" not in skip:
                n = {"a": 500, "b": 50, "c": 200}[name]
                run(
                    "path-dependent, 10,000 rows: shapiq",
                    ours,
                    lambda peer: shapiq_values(peer, rows[:n]),
                    10_000,
                    n,
                    lambda: shapiq_peer(model),
                )
        if "interactions" in jobs and boosted:

            def pairs():
                return shaplab.tree_shap_interactions(trees, rows[:1000]).values

            if "xgboost" not in skip:
                run(
                    "interactions, 1,000 rows: XGBoost",
                    pairs,
                    lambda: xgboost_peer(model, rows[:200], True),
                    1000,
                    200,
                )
            if "shap" not in skip:
                n = {"a": 20, "b": 2, "c": 20}[name]
                run(
                    "interactions, 1,000 rows: shap C",
                    pairs,
                    lambda peer: peer.shap_interaction_values(rows[:n]),
                    1000,
                    n,
                    lambda: shap_peer(model),
                )
            if "shapiq" not in skip:
                n = {"a": 50, "b": 5, "c": 50}[name]
                run(
                    "interactions, 1,000 rows: shapiq, k-SII of order 2",
                    pairs,
                    lambda peer: shapiq_values(peer, rows[:n], 2),
                    1000,
                    n,
                    lambda: shapiq_peer(model, order=2),
                )
        if "forests" in jobs and name in FORESTS and "shap" not in skip:
            few = {"d": 4, "e": 1}[name]
            rows_of_background = X[-1000:]
            run(
                "interventional, 100 rows, 1,000 background rows: shap C",
                lambda: shaplab.interventional_tree_shap(trees, X[:100], rows_of_background).values,
                lambda peer: peer.shap_values(X[:few], check_additivity=False),
                100,
                few,
                lambda: shap_peer(model, rows_of_background),
            )
        for n, r, job in (
            (1000, 10_000, "interventional"),
            (options.large, options.large, "large"),
        ):
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
                frame, background = (
                    pd.DataFrame(part, columns=columns) for part in (X[:n], X[-r:])
                )
                run(
                    f"{label}: woodelf",
                    against,
                    lambda: WoodelfExplainer(
                        model, background, feature_perturbation="interventional"
                    ).shap_values(frame, verbose=False),
                    n,
                    n,
                )
                model.feature_names = None
            if "shap" not in skip and job == "interventional":
                few = {"a": 2, "b": 1, "c": 2}[name]
                run(
                    f"{label}: shap C",
                    against,
                    lambda peer: peer.shap_values(X[:few], check_additivity=False),
                    n,
                    few,
                    lambda: shap_peer(model, X[-r:]),
                )
            if "shapiq" not in skip and job == "interventional":
                few = {"a": 4, "b": 2, "c": 4}[name]
                run(
                    f"{label}: shapiq",
                    against,
                    lambda peer: shapiq_values(peer, X[:few]),
                    n,
                    few,
                    lambda: shapiq_peer(model, X[-r:]),
                )


if __name__ == "__main__":
    main()
