"""SAGE values: rows evaluated and time against sage-importance's default call, errors against an
enumeration.

    python benchmarks/sampling_sage.py credit bike > benchmarks/results/sampling_sage.txt

``credit``: German Credit, boosted trees, cross entropy. ``bike``: hourly bike rentals, boosted
trees, squared error (needs SHAPLAB_DATA_DIR). First both packages explain a smaller game, few rows
and at most 12 players, whose coalitions can all be listed; then the whole table, where they are
compared with each other and, with ``--long``, with a long run of sage-importance itself. Run in
quiet with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import sage as peer
from shaplab_book.datasets import load_bike, load_german_credit

from shaplab import LossOfMean, MarginalGame, MeanGame, sage, shapley_values

# Players of the games whose coalitions are all listed.
LISTED = 12


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
    fitted = XGBClassifier(n_estimators=60, max_depth=4, learning_rate=0.1, n_jobs=1).fit(
        X[train], y[train]
    )
    return fitted.predict_proba, X[test], y[test], X[train][:512], "cross_entropy"


def bike() -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, str]:
    """Test rows, background and a fitted regressor of bike rentals."""
    from xgboost import XGBRegressor

    data = load_bike()
    X, y = np.asarray(data.X, dtype=float), np.asarray(data.y, dtype=float)
    order = np.random.default_rng(0).permutation(len(X))
    test, train = order[: len(X) // 10], order[len(X) // 10 :]
    fitted = XGBRegressor(n_estimators=300, max_depth=8, learning_rate=0.1, n_jobs=1).fit(
        X[train], y[train]
    )
    return fitted.predict, X[test], y[test], X[train][:512], "mse"


def clock(task: Any) -> tuple[Any, float]:
    """Result and CPU seconds."""
    start = time.process_time()
    found = task()
    return found, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", default=["credit"], choices=["credit", "bike"])
    parser.add_argument("--background", type=int, default=512, help="background rows")
    parser.add_argument(
        "--long", type=int, default=0, help="permutations of the peer's long run, 0 to leave it out"
    )
    chosen = parser.parse_args()
    for name in chosen.data:
        model, X, y, B, loss = {"credit": credit, "bike": bike}[name]()
        d, B = X.shape[1], B[: chosen.background]
        counted = Counted(model)

        def theirs(
            groups: Any,
            counted: Counted = counted,
            B: np.ndarray = B,
            X: np.ndarray = X,
            y: np.ndarray = y,
            loss: str = loss,
            seed: int = 0,
            **settings: Any,
        ) -> Any:
            counted.rows = 0
            imputer = (
                peer.MarginalImputer(counted, B)
                if groups is None
                else peer.GroupedMarginalImputer(counted, B, groups)
            )
            estimator = peer.PermutationEstimator(
                imputer, loss.replace("_", " "), random_state=seed
            )
            return estimator(X, y, bar=False, verbose=False, **settings)

        # A game small enough to list all its coalitions, over the whole background: features in
        # groups, or few rows.
        groups = [list(map(int, part)) for part in np.array_split(np.arange(d), min(d, LISTED))]
        rows, few = slice(0, 64), B[:128]
        game = MeanGame(LossOfMean(MarginalGame(model, X[rows], few, groups=groups), y[rows], loss))
        truth = shapley_values(game, len(groups), batch_size=1)

        def miss(values: list[np.ndarray], truth: np.ndarray = truth) -> float:
            return float(np.sqrt(np.mean([(found - truth) ** 2 for found in values])))

        runs = [
            sage(model, X[rows], y[rows], few, loss=loss, groups=groups, rng=seed)
            for seed in range(20)
        ]
        used = np.mean([run.info["evaluations"] for run in runs])
        error, claimed = (
            miss([run.values[0] for run in runs]),
            np.sqrt(np.mean([run.std**2 for run in runs])),
        )
        print(
            f"{name}, {len(groups)} players, 64 rows, background 128, all coalitions listed; "
            f"spread {np.ptp(truth):.3g}"
        )
        print(f"  shaplab: RMSE {error:.3g} over 20 runs (claimed {claimed:.3g}), {used:,.0f} rows")
        others, cost = [], []
        for seed in range(3):
            others.append(theirs(groups, B=few, X=X[rows], y=y[rows], seed=seed).values)
            cost.append(counted.rows)
        other = miss(others)
        print(
            f"  sage-importance: RMSE {other:.3g} over 3 runs, {np.mean(cost):,.0f} rows; "
            f"{np.mean(cost) / used * (other / error) ** 2:.0f} times the rows at an equal error",
            flush=True,
        )

        ours, seconds = clock(
            lambda model=model, X=X, y=y, B=B, loss=loss: sage(model, X, y, B, loss=loss, rng=0)
        )
        used = ours.info["evaluations"]
        print(
            f"{name}, {d} features, {len(X)} rows, background {len(B)}: shaplab {used:,} rows, "
            f"{seconds:.2f} s CPU, "
            f"standard error ratio {ours.info['ratio']:.4f}"
        )
        other, slow = clock(lambda: theirs(None))
        print(
            f"  sage-importance {counted.rows:,} rows, {slow:.1f} s CPU: ratios "
            f"{counted.rows / used:.0f} in rows, "
            f"{slow / seconds:.0f} in time; standard error ratio "
            f"{other.std.max() / np.ptp(other.values):.4f}"
        )
        apart = np.abs(ours.values[0] - other.values) / np.hypot(ours.std[0], other.std + 1e-12)
        print(f"  agreement: largest distance {apart.max():.1f} standard errors of both")
        if chosen.long:
            long = theirs(None, detect_convergence=False, n_permutations=chosen.long)
            for label, values in (("shaplab", ours.values[0]), ("sage-importance", other.values)):
                print(
                    f"  RMSE against {chosen.long:,} permutations of sage-importance: {label} "
                    f"{np.sqrt(np.mean((values - long.values) ** 2)):.4g} (its own error "
                    f"{np.sqrt(np.mean(long.std**2)):.2g})"
                )


if __name__ == "__main__":
    main()
