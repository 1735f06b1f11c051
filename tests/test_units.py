"""Nothing depends on units: columns times 1e-9 to 1e9, with a model that divides again, change no
result."""

import numpy as np
import pytest

from shaplab import Explanation, plots
from shaplab.foundations.exact import shapley_values
from shaplab.foundations.kernel import kernel_shap
from shaplab.foundations.permutation import ime, permutation_shap
from shaplab.foundations.predictions import (
    BaselineGame,
    DiscreteGame,
    GaussianGame,
    LossOfMean,
    MarginalGame,
    NearestGame,
    RescaledMargin,
    exact_shap,
)
from shaplab.importance.comparisons import mean_importance, permutation_test
from shaplab.importance.loss_shap import loss_shap
from shaplab.importance.sage import sage
from shaplab.insight.metrics import Hider, explanation_metrics
from shaplab.insight.summaries import cluster_rows, embed_rows, standardized

# Powers of two: then only the order of magnitude changes, and no digit of an input.
UNITS = {
    "plain": np.ones(4),
    "small": np.full(4, 2.0**-30),
    "large": np.full(4, 2.0**30),
    "mixed": 2.0 ** np.array([-30, 0, 30, -12]),
    "other way": 2.0 ** np.array([25, -30, 3, 30]),
}


def table():
    rng = np.random.default_rng(0)
    root = np.eye(4) + 0.6 * rng.normal(size=(4, 4))
    B = np.column_stack([rng.normal(size=(60, 4)) @ root])
    X = rng.normal(size=(6, 4)) @ root
    # A copy of a column, and rows that are equal: singular covariances and ties.
    B[:, 3], X[:, 3] = B[:, 0], X[:, 0]
    return X, B


def results(units):
    X, B = (part * units for part in table())

    def f(Z):
        Z = np.asarray(Z) / units
        return Z[:, 0] * Z[:, 1] + np.sin(Z[:, 2]) + 0.5 * Z[:, 3]

    y = f(X) + 0.1 * np.arange(6)

    def game(kind, **options):
        return shapley_values(kind(f, X, B, **options), 4)

    known = (np.arange(24).reshape(6, 4) * 5) % 7 < 4
    hider = Hider(B, n_resample=9, rng=0)
    exact = exact_shap(f, X, B)
    _, curves = explanation_metrics(lambda X: exact_shap(f, X, B), f, X, y, hider, rng=0)
    e = Explanation(exact.values, exact.base_values, data=X)
    scatter = plots.table(e, feature=0, color_by=2).drop(columns="x0")
    return {
        "exact": exact.values,
        "permutation": permutation_shap(f, X, B, rounds=4, rng=0).values,
        "kernel": kernel_shap(f, X, B, rng=0).values,
        "ime": ime(f, X, B, samples=200, rng=0).values,
        "baseline": shapley_values(BaselineGame(f, X, B[0]), 4),
        "marginal": game(MarginalGame),
        "gaussian": game(GaussianGame, n_samples=20, rng=0),
        "nearest": game(NearestGame, n_neighbors=5),
        "discrete": shapley_values(DiscreteGame(f, B[:3], B), 4),
        "rescaled": shapley_values(RescaledMargin(MarginalGame(f, X, B), y, "mse"), 4),
        "loss": shapley_values(LossOfMean(MarginalGame(f, X, B), y, "mse"), 4),
        "loss_shap": loss_shap(f, X, y, B, rounds=2, rng=0).values,
        "sage": sage(f, X, y, B, rounds=2, rng=0).values,
        "conditional loss": loss_shap(f, X, y, B, removal="conditional", rounds=4, rng=0).values,
        "conditional sage": sage(f, X, y, B, removal="conditional", rng=0).values,
        "mean importance": mean_importance(f, X, y, B).values,
        "permutation test": permutation_test(f, X, y, rng=0).values,
        "impute": hider(X, known, "impute")[:, 0] / units,
        "mask": hider(X, known, "mask")[:, 0] / units,
        "metrics": np.array([curves[name] for name in sorted(curves)]),
        "clusters": cluster_rows(standardized(B), n_clusters=4).labels,
        "plane": np.abs(embed_rows(standardized(B)[:, :3]).points),
        "dependence": scatter.to_numpy(dtype=float),
    }


@pytest.fixture(scope="module")
def plain():
    return results(UNITS["plain"])


@pytest.mark.parametrize("units", [name for name in UNITS if name != "plain"])
def test_units_of_columns_change_no_result(plain, units):
    found = results(UNITS[units])
    for name, expected in plain.items():
        # Inputs keep their digits, so what differs is rounding of sums; a pseudo-inverse of a
        # singular matrix has a condition of about 100 here.
        np.testing.assert_allclose(found[name], expected, rtol=1e-7, atol=1e-9, err_msg=name)


def test_conditional_removal_of_columns_of_unlike_units_is_the_regression():
    # A share beside an income, as in the case that went wrong: the oracle solves in standard units.
    rng = np.random.default_rng(3)
    Z = rng.multivariate_normal(np.zeros(3), [[1, 0.6, 0.3], [0.6, 1, 0.5], [0.3, 0.5, 1]], 300)
    units = np.array([0.1, 30_000.0, 1.0])
    w = np.array([1.0, 2.0, -1.0])

    def f(X):
        return (np.asarray(X) / units) @ w

    X, B = Z[:3] * units, Z * units
    found = shapley_values(GaussianGame(f, X, B, n_samples=2, rng=0), 3)
    covariance, mean = np.cov(Z, rowvar=False), Z.mean(axis=0)

    def linear(S):
        values = np.empty((len(S), 3))
        for line, known in enumerate(S):
            row = np.where(known, Z[:3], mean)
            if known.any() and not known.all():
                solve = np.linalg.solve(
                    covariance[np.ix_(known, known)], covariance[np.ix_(known, ~known)]
                )
                row[:, ~known] = mean[~known] + (Z[:3][:, known] - mean[known]) @ solve
            values[line] = row @ w
        return values

    np.testing.assert_allclose(found, shapley_values(linear, 3), atol=1e-9)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_the_unit_of_the_output_scales_values_and_changes_no_decision(unit):
    X, B = table()
    y = np.linspace(-1, 1, 6)

    def f(X):
        return unit * (X[:, 0] * X[:, 1] + np.sin(X[:, 2]))

    def scaled(game):
        return shapley_values(game, 4)

    for make, power in (
        (lambda g, f: scaled(RescaledMargin(MarginalGame(f, X, B), g * y, "mse")), 2),
        (lambda g, f: scaled(LossOfMean(MarginalGame(f, X, B), g * y, "mse")), 2),
        (lambda g, f: permutation_shap(f, X, B, rng=0, thresh=0.1).values, 1),
        (lambda g, f: kernel_shap(f, X, B, rng=0, thresh=0.1).values, 1),
        (lambda g, f: sage(f, X, g * y, B, rng=0).values, 2),
    ):
        plain = make(1.0, lambda X: f(X) / unit)
        np.testing.assert_allclose(
            make(unit, f) / unit**power, plain, rtol=1e-6, atol=1e-9 * np.abs(plain).max()
        )


def test_ties_of_neighbours_are_shared_whatever_the_order_of_the_background():
    rng = np.random.default_rng(0)
    B = rng.integers(0, 3, size=(40, 3)).astype(float)
    X = rng.integers(0, 3, size=(4, 3)).astype(float)

    def f(X):
        return X @ [1.0, 10.0, 100.0] + X[:, 0] * X[:, 2]

    S = np.array([[True, False, False], [True, True, False], [False, False, False]])
    first = NearestGame(f, X, B, n_neighbors=4)(S)
    for seed in range(5):
        mixed = np.random.default_rng(seed).permutation(B)
        np.testing.assert_allclose(NearestGame(f, X, mixed, n_neighbors=4)(S), first, rtol=1e-12)
    # By hand: all rows with the same first column are equally near, and are averaged.
    for n, x in enumerate(X):
        same = B[B[:, 0] == x[0]]
        assert len(same) > 4
        expected = f(np.column_stack([np.full(len(same), x[0]), same[:, 1:]])).mean()
        assert first[0, n] == pytest.approx(expected, rel=1e-12)
