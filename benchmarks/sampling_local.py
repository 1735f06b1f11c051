"""Local values of any model: rows for equal error, shaplab's walks against shap and (Python 3.12)
shapiq.

    python benchmarks/sampling_local.py > benchmarks/results/sampling_local.txt

Problems are boosted trees on simulated tables full of triple interactions, and on breast cancer (30
features). Truth is shap's exact interventional TreeExplainer: another package's exact algorithm.
Errors are root mean squares over features, rows and three problems, relative to the root mean
square of the values; rows are model rows for each explained row. The ratio compares rows at the
same error, by a line through the peer's errors in the logarithm.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import shap
from shaplab_book.datasets import load_breast_cancer
from xgboost import XGBClassifier, XGBRegressor

from shaplab import kernel_shap, permutation_shap


class Counted:
    """A model that counts the rows it is given."""

    def __init__(self, booster: Any) -> None:
        self.booster, self.rows = booster, 0

    def __call__(self, X: np.ndarray) -> np.ndarray:
        self.rows += len(X)
        rows = np.asarray(X, dtype=np.float32)
        return np.asarray(
            self.booster.inplace_predict(rows, predict_type="margin"), dtype=np.float64
        )


def simulated(d: int, seed: int) -> tuple[Any, np.ndarray]:
    """Boosted trees on ``d`` features with interactions of several orders, and their table."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(3000, d)).astype(np.float32)
    y = X @ rng.normal(size=d) * 0.5
    for _ in range(d):
        y = y + np.prod(X[:, rng.choice(d, 3, replace=False)], axis=1)
    return XGBRegressor(n_estimators=100, max_depth=6, n_jobs=1).fit(X, y), X


def cancer(d: int, seed: int) -> tuple[Any, np.ndarray]:
    """Boosted trees on breast cancer, explained in log-odds, and its table in random order."""
    data = load_breast_cancer()
    order = np.random.default_rng(seed).permutation(len(data.y))
    X, y = data.X.to_numpy(dtype=np.float32)[order], np.asarray(data.y)[order]
    return XGBClassifier(n_estimators=100, max_depth=6, n_jobs=1).fit(X[:400], y[:400]), X


def problem(
    source: Any, d: int, seed: int, size: int = 50, explained: int = 5
) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """A booster, rows, background and exact values."""
    fitted, X = source(d, seed)
    B, Z = X[:size], X[-explained:]
    exact = shap.TreeExplainer(fitted, B.astype(float), feature_perturbation="interventional")
    return fitted.get_booster(), Z, B, np.asarray(exact.shap_values(Z.astype(float)))


def error_of(values: np.ndarray, truth: np.ndarray) -> float:
    """Relative root mean square error."""
    return float(np.sqrt(np.mean((values - truth) ** 2) / np.mean(truth**2)))


def methods(model: Any, Z: np.ndarray, B: np.ndarray, seed: int) -> Iterator[tuple[str, str, Any]]:
    """Give each method's name, setting and a function that explains all rows."""
    d = Z.shape[1]
    for r in (2, 4, 8):
        yield (
            "shaplab walks",
            f"{r} rounds",
            lambda r=r: permutation_shap(model, Z, B, rounds=r, rng=seed).values,
        )
    yield "shaplab walks, default", "2%", lambda: permutation_shap(model, Z, B, rng=seed).values
    for n in (256, 1024, 4096):
        yield (
            "shaplab Kernel",
            f"{n}",
            lambda n=n: (
                kernel_shap(model, Z, B, max_evaluations=100 + n * len(B) * len(Z), rng=seed).values
            ),
        )
    for n in (4, 16, 64):
        permuting = shap.PermutationExplainer(
            model, shap.maskers.Independent(B, max_samples=len(B)), seed=seed
        )
        yield (
            "shap Permutation",
            f"{n}",
            lambda n=n, e=permuting: e(Z, max_evals=n * 2 * d + 2 * n, silent=True).values,
        )
    for n in (256, 1024, 4096):
        kernel = shap.KernelExplainer(model, B, seed=seed)
        yield (
            "shap Kernel",
            f"{n}",
            lambda n=n, e=kernel: e.shap_values(Z, nsamples=n, l1_reg=False, silent=True),
        )
    if not importlib.util.find_spec("shapiq"):
        return
    import shapiq

    def games() -> list[Any]:
        low = model(B).mean()

        def value(S: Any, z: np.ndarray) -> np.ndarray:
            S = np.atleast_2d(np.asarray(S, dtype=bool))
            return np.asarray(
                model(np.where(S[:, None], z, B).reshape(-1, d)).reshape(-1, len(B)).mean(axis=1)
                - low
            )

        return [lambda S, z=z: value(S, z) for z in Z]

    def firsts(found: list[Any]) -> np.ndarray:
        return np.array([[values[(i,)] for i in range(d)] for values in found])

    for kind in (shapiq.KernelSHAP, shapiq.PermutationSamplingSV):
        for n in (256, 1024, 4096):
            yield (
                f"shapiq {kind.__name__}",
                f"{n}",
                lambda n=n, kind=kind: firsts(
                    [kind(n=d, random_state=seed).approximate(n, game) for game in games()]
                ),
            )
    for n in (256, 1024, 4096):
        whole = shapiq.TabularExplainer(model, B, random_state=seed, sample_size=None)
        yield (
            "shapiq Explainer, default",
            f"{n}",
            lambda n=n, e=whole: firsts([e.explain(z, budget=n) for z in Z]),
        )


def curves(source: Any, d: int, problems: int = 3) -> None:
    """Print errors and ratios for one kind of problem and number of features."""
    table: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for seed in range(problems):
        booster, Z, B, truth = problem(source, d, seed)
        model = Counted(booster)
        for name, setting, explain in methods(model, Z, B, seed):
            model.rows, start = 0, time.process_time()
            error = error_of(explain(), truth)
            table.setdefault(name, {}).setdefault(setting, []).append(
                (model.rows / len(Z), error**2, time.process_time() - start)
            )
    print(f"{source.__name__}, d = {d}, background {len(B)}, {len(Z)} rows, {problems} problems")
    lines = {}
    for name, settings in table.items():
        for setting, found in settings.items():
            rows, square, seconds = np.mean(found, axis=0)
            lines.setdefault(name, []).append((rows, np.sqrt(square)))
            print(
                f"  {name:<26} {setting:>9} {rows:>9,.0f} rows a row   error "
                f"{np.sqrt(square):.4f}   "
                f"{seconds:.2f} s CPU"
            )
    for name, curve in lines.items():
        # A peer that lists all coalitions is exact, and no longer on its curve.
        rows, errors = np.log(np.array([point for point in curve if point[1] > 1e-3])).T
        if len(rows) > 1 and name != "shaplab walks":
            slope, offset = np.polyfit(errors, rows, 1)
            at = [
                np.exp(offset + slope * np.log(error)) / used
                for used, error in lines["shaplab walks"]
            ]
            print(
                f"  {name}: {min(at):.1f} to {max(at):.1f} times the walks' rows at the "
                f"walks' errors"
            )


if __name__ == "__main__":
    for features in (12, 30, 60):
        curves(simulated, features)
    curves(cancer, 30)
