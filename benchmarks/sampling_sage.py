"""SAGE values: rows evaluated and time against sage-importance's default call, errors against an enumeration.

    python benchmarks/sampling_sage.py credit bike > benchmarks/results/sampling_sage.txt

``credit``: German Credit, boosted trees, cross entropy. ``bike``: hourly bike rentals, boosted trees, squared error
(needs SHAPLAB_DATA_DIR). The truth enumerates all coalitions of a coarse game (groups of features) that both
packages explain too, and, for the full game, is a long run of sage-importance itself where ``--long`` is given.
Run in quiet with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import sage as peer

from shaplab import LossOfMean, MarginalGame, MeanGame, sage, shapley_values
from shaplab.datasets import load_bike, load_german_credit


class Counted:
    """A model that counts the rows it is given."""

    def __init__(self, model: Any) -> None:
        self.model, self.rows = model, 0

    def __call__(self, X: Any) -> np.ndarray:
        self.rows += len(X)
        return np.asarray(self.model(X))


def credit() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, str]:
    """Test rows, background and a fitted classifier of German Credit."""
    from xgboost import XGBClassifier

    data = load_german_credit()
    X, y = data.codes().to_numpy(), np.asarray(data.y, dtype=int)
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:700], order[700:]
    fitted = XGBClassifier(n_estimators=60, max_depth=4, learning_rate=0.1, n_jobs=1).fit(X[train], y[train])
    return fitted.predict_proba, X[test], y[test], X[train][:512], "cross_entropy"


def bike() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, str]:
    """Test rows, background and a fitted regressor of bike rentals."""
    from xgboost import XGBRegressor

    data = load_bike()
    X, y = np.asarray(data.X, dtype=float), np.asarray(data.y, dtype=float)
    order = np.random.default_rng(0).permutation(len(X))
    test, train = order[: len(X) // 10], order[len(X) // 10:]
    fitted = XGBRegressor(n_estimators=300, max_depth=8, learning_rate=0.1, n_jobs=1).fit(X[train], y[train])
    return fitted.predict, X[test], y[test], X[train][:512], "mse"


def clock(task: Any) -> tuple[Any, float]:
    """Result and CPU seconds."""
    start = time.process_time()
    found = task()
    return found, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", default=["credit"], choices=["credit", "bike"])
    parser.add_argument("--background", type=int, default=512, help="background rows")
    parser.add_argument("--long", type=int, default=0, help="permutations of the peer's long run, 0 to leave it out")
    chosen = parser.parse_args()
    for name in chosen.data:
        model, X, y, B, loss = {"credit": credit, "bike": bike}[name]()
        d, B = X.shape[1], B[: chosen.background]
        counted = Counted(model)

        def theirs(groups: Any, counted: Counted = counted, B: np.ndarray = B, X: np.ndarray = X, y: np.ndarray = y,
                   loss: str = loss, **settings: Any) -> Any:
            counted.rows = 0
            imputer = (peer.MarginalImputer(counted, B) if groups is None
                       else peer.GroupedMarginalImputer(counted, B, groups))
            estimator = peer.PermutationEstimator(imputer, loss.replace("_", " "))
            return estimator(X, y, bar=False, verbose=False, **settings)

        # Coarse game: few groups, so that all coalitions can be listed over the whole background.
        groups = [list(map(int, part)) for part in np.array_split(np.arange(d), 5)]
        rows = slice(0, 100)
        game = MeanGame(LossOfMean(MarginalGame(model, X[rows], B, groups=groups), y[rows], loss))
        truth = shapley_values(game, 5, batch_size=1)
        runs = [sage(model, X[rows], y[rows], B, loss=loss, groups=groups, rng=seed) for seed in range(20)]
        error = np.sqrt(np.mean([(run.values[0] - truth) ** 2 for run in runs]))
        print(f"{name}, 5 groups, 100 rows, enumerated: shaplab RMSE {error:.3g}, "
              f"mean claimed {np.sqrt(np.mean([run.std**2 for run in runs])):.3g}, spread {np.ptp(truth):.3g}")

        ours, seconds = clock(lambda model=model, X=X, y=y, B=B, loss=loss: sage(model, X, y, B, loss=loss, rng=0))
        used = ours.info["evaluations"]
        print(f"{name}, {d} features, {len(X)} rows, background {len(B)}: shaplab {used:,} rows, {seconds:.2f} s CPU, "
              f"standard error ratio {ours.info['ratio']:.4f}")
        other, slow = clock(lambda: theirs(None))
        print(f"  sage-importance {counted.rows:,} rows, {slow:.1f} s CPU: ratios {counted.rows / used:.0f} in rows, "
              f"{slow / seconds:.0f} in time; standard error ratio {other.std.max() / np.ptp(other.values):.4f}")
        apart = np.abs(ours.values[0] - other.values) / np.hypot(ours.std[0], other.std + 1e-12)
        print(f"  agreement: largest distance {apart.max():.1f} standard errors of both")
        if chosen.long:
            long = theirs(None, detect_convergence=False, n_permutations=chosen.long)
            for label, values in (("shaplab", ours.values[0]), ("sage-importance", other.values)):
                print(f"  RMSE against {chosen.long:,} permutations of sage-importance: {label} "
                      f"{np.sqrt(np.mean((values - long.values) ** 2)):.4g} (its own error "
                      f"{np.sqrt(np.mean(long.std**2)):.2g})")


if __name__ == "__main__":
    main()
