import numpy as np
import pandas as pd
import pytest

from shaplab.foundations.games import MeanGame
from shaplab.foundations.predictions import LossOfMean, MarginalGame
from shaplab.importance.comparisons import (
    leave_one_out_importance,
    mean_importance,
    permutation_test,
    univariate_importance,
)
from shaplab.importance.sage import sage

# Sums of some thousand float64 numbers of order one.
ROUNDING = 1e-12


def model(X):
    return X[:, 0] * X[:, 1] + np.sin(X[:, 2]) + X[:, 0]


def test_a_feature_with_proxies_is_missed_one_by_one_and_shared_by_sage():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(200, 4))
    X[:, 1] = X[:, 2] = X[:, 0]

    def majority(X):
        return np.median(X[:, :3], axis=1) + 0.2 * X[:, 3]

    y = X[:, 0] + 0.2 * X[:, 3]
    # Two of three equal copies outvote one that is shuffled: removing single features sees nothing
    # at all.
    assert (permutation_test(majority, X, y, rng=0).values[0, :3] == 0).all()
    assert np.abs(leave_one_out_importance(majority, X, y, X).values[0, :3]).max() < ROUNDING
    found = sage(majority, X, y, X, rng=0)
    assert found.values[0, :3].min() > 2 * found.values[0, 3]
    assert np.ptp(found.values[0, :3]) < 4 * np.hypot(*found.std[0, :2])


def test_comparisons_equal_their_definitions():
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(40, 4)), rng.normal(size=(30, 4))
    y = model(X) + rng.normal(size=40)
    game = MeanGame(LossOfMean(MarginalGame(model, X, B), y, "mse"))
    every = np.ones((1, 4), dtype=bool)
    without, alone = every & ~np.eye(4, dtype=bool), np.eye(4, dtype=bool)
    assert np.allclose(
        leave_one_out_importance(model, X, y, B).values[0],
        game(every) - game(without),
        atol=ROUNDING,
    )
    assert np.allclose(
        univariate_importance(model, X, y, B).values[0], game(alone) - game(~every), atol=ROUNDING
    )
    at_mean = MeanGame(LossOfMean(MarginalGame(model, X, B.mean(axis=0, keepdims=True)), y, "mse"))
    assert np.allclose(
        mean_importance(model, X, y, B).values[0], at_mean(every) - at_mean(without), atol=ROUNDING
    )
    found = permutation_test(model, X, y, n_repeats=400, rng=0)
    expected = [
        np.mean(
            [
                np.mean(
                    (model(np.where(np.arange(4) == j, X[np.roll(np.arange(40), k)], X)) - y) ** 2
                )
                for k in range(40)
            ]
        )
        - np.mean((model(X) - y) ** 2)
        for j in range(4)
    ]
    # The 40 rotations together pair every two rows once, which is what shuffles do on average.
    assert (np.abs(found.values[0] - expected) <= 4 * found.std[0] + ROUNDING).all()


def test_polars_tables_are_taken_by_every_comparison():
    polars = pytest.importorskip("polars")
    rng = np.random.default_rng(3)
    numbers = {"a": rng.normal(size=20), "b": rng.integers(0, 9, size=20)}
    words = {"c": ["high", "low", "low", "low"] * 5, "d": [True, False, True, True] * 5}
    table = {name: list(cells) for name, cells in {**numbers, **words}.items()}
    y = numbers["a"]

    def score(rows):
        low = np.array([cell == "low" for cell in rows["c"]])
        yes = np.asarray(rows["d"], dtype=float)
        return np.asarray(rows["a"]) * yes + np.asarray(rows["b"], dtype=float) * low

    for explain in (leave_one_out_importance, mean_importance, univariate_importance):
        ours = explain(score, polars.DataFrame(table), y, polars.DataFrame(table))
        theirs = explain(score, pd.DataFrame(table), y, pd.DataFrame(table))
        assert np.allclose(ours.values, theirs.values, atol=ROUNDING), explain.__name__
        assert ours.feature_names == ("a", "b", "c", "d")
