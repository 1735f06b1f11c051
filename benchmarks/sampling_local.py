"""Local values of any model: rows for equal error, shaplab's walks against shap and (Python 3.12) shapiq.

    python benchmarks/sampling_local.py

Truth is shap's exact interventional TreeExplainer on boosted trees explained in log-odds or raw scores: another
package's exact algorithm. Errors are root mean squares over features and rows, relative to the root mean square of
the values; rows are model rows for each explained row. The ratio compares rows at the same error, by interpolating
the peer's error curve in the logarithm.
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import numpy as np
import shap
from xgboost import XGBRegressor

from shaplab import kernel_shap, permutation_shap


class Counted:
    """A model that counts the rows it is given."""

    def __init__(self, booster: Any) -> None:
        self.booster, self.rows = booster, 0

    def __call__(self, X: np.ndarray) -> np.ndarray:
        self.rows += len(X)
        return np.asarray(self.booster.inplace_predict(np.asarray(X, dtype=np.float32)), dtype=np.float64)


def problem(d: int, seed: int = 0, size: int = 50, explained: int = 5
            ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Boosted trees on ``d`` features with interactions of several orders, rows, background and exact values."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3000, d)).astype(np.float32)
    y = X @ rng.normal(size=d) * 0.5
    for _ in range(d):
        y = y + np.prod(X[:, rng.choice(d, 3, replace=False)], axis=1)
    fitted = XGBRegressor(n_estimators=100, max_depth=6, n_jobs=1).fit(X, y)
    booster = fitted.get_booster()
    B, Z = X[:size], X[-explained:]
    exact = shap.TreeExplainer(fitted, B.astype(float), feature_perturbation="interventional")
    truth = exact.shap_values(Z.astype(float))
    return booster, Z, B, np.asarray(truth)


def error_of(values: np.ndarray, truth: np.ndarray) -> float:
    """Relative root mean square error."""
    return float(np.sqrt(np.mean((values - truth) ** 2) / np.mean(truth**2)))


def curves(d: int) -> None:
    """Print errors and ratios for one number of features."""
    booster, Z, B, truth = problem(d)
    model = Counted(booster)

    def measure(label: str, explain: Any) -> tuple[float, float]:
        model.rows, start = 0, time.process_time()
        error = error_of(explain(), truth)
        rows, seconds = model.rows / len(Z), time.process_time() - start
        print(f"  {label:<34} {rows:>10,.0f} rows a row   error {error:.4f}   {seconds:.2f} s CPU")
        return rows, error

    print(f"d = {d}, background {len(B)}, {len(Z)} rows")
    ours = [measure(f"shaplab walks, {r} rounds", lambda r=r: permutation_shap(model, Z, B, rounds=r, rng=0).values)
            for r in (2, 4, 8)]
    measure("shaplab walks, default 2%", lambda: permutation_shap(model, Z, B, rng=0).values)
    peers: dict[str, list[tuple[float, float]]] = {}
    for n in (1, 4, 16, 64):
        explainer = shap.PermutationExplainer(model, shap.maskers.Independent(B, max_samples=len(B)), seed=0)
        peers.setdefault("shap Permutation", []).append(measure(
            f"shap Permutation, {n} permutations",
            lambda n=n, e=explainer: e(Z, max_evals=n * 2 * d + 2 * n, silent=True).values))
    for n in (256, 1024, 4096):
        kernel = shap.KernelExplainer(model, B, seed=0)
        peers.setdefault("shap Kernel", []).append(measure(
            f"shap Kernel, {n} coalitions",
            lambda n=n, e=kernel: e.shap_values(Z, nsamples=n, l1_reg=False, silent=True)))
    for n in (256, 1024, 4096):
        measure(f"shaplab Kernel, {n} coalitions",
                lambda n=n: kernel_shap(model, Z, B, max_evaluations=100 + n * len(B) * len(Z), rng=0).values)
    if importlib.util.find_spec("shapiq"):
        import shapiq

        low = model(B).mean()
        for label, kind in (("KernelSHAP", shapiq.KernelSHAP), ("Permutation", shapiq.PermutationSamplingSV)):
            for n in (256, 1024, 4096):
                def estimate(kind: Any = kind, n: int = n) -> np.ndarray:
                    found = []
                    for z in Z:
                        def game(S: np.ndarray, z: np.ndarray = z) -> np.ndarray:
                            S = np.asarray(S, dtype=bool)
                            hybrid = np.where(S[:, None], z, B).reshape(-1, d)
                            return model(hybrid).reshape(len(S), len(B)).mean(axis=1) - low
                        values = kind(n=d, random_state=0).approximate(n, game)
                        found.append([values[(i,)] for i in range(d)])
                    return np.array(found)
                peers.setdefault(f"shapiq {label}", []).append(measure(f"shapiq {label}, {n}", estimate))
        for n in (256, 1024, 4096):
            whole = shapiq.TabularExplainer(model, B, random_state=0, sample_size=None)
            peers.setdefault("shapiq Explainer", []).append(measure(
                f"shapiq Explainer (its default), {n}",
                lambda n=n, e=whole: np.array([[e.explain(z, budget=n)[(i,)] for i in range(d)] for z in Z])))
    for name, curve in peers.items():
        # A peer that lists all coalitions is exact, and no longer on its curve.
        rows, errors = np.log(np.array([point for point in curve if point[1] > 1e-3])).T
        slope, offset = np.polyfit(errors, rows, 1)
        at = [np.exp(offset + slope * np.log(error)) / used for used, error in ours]
        print(f"  {name}: {min(at):.1f} to {max(at):.1f} times our rows at our errors")


if __name__ == "__main__":
    for features in (12, 30, 60):
        curves(features)
