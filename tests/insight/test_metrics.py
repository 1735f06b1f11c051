"""The 21 metrics against cases done by hand, closed forms for Gaussians, and their own literal
version."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from sklearn.metrics import r2_score, roc_auc_score

from shaplab import plots
from shaplab.explanation import Explanation
from shaplab.insight.metrics import (
    METRICS,
    Hider,
    _accuracy,
    curve_literal,
    explanation_metrics,
    grade_methods,
    local_accuracy_score,
    plot_tiles,
    scale_tiles,
)

matplotlib.use("Agg")
rng = np.random.default_rng(0)
TRAIN = rng.normal(size=(300, 4)) @ np.array(
    [[1, 0.8, 0, 0], [0, 0.6, 0, 0], [0, 0, 1, 0.5], [0, 0, 0, 1]]
)
TEST, W = rng.normal(size=(8, 4)), np.array([2.0, -1.0, 0.5, 1.5])


def linear(X):
    return X @ W + 3.0


def bent(X):
    return X[:, 0] * X[:, 1] + np.maximum(X[:, 2], X[:, 3])


def graded(explain, model=linear, y=None, **options):
    hider = Hider(TRAIN, n_resample=25, rng=1)
    y = linear(TEST) if y is None else y
    return explanation_metrics(explain, model, TEST, y, hider, rng=0, **options)


def shapley(X):
    return (X - TRAIN.mean(axis=0)) * W


def test_by_hand_keep_and_remove_positive_masked():
    # Mean 0 in every column, row (1, 1, 1, 1): contributions are the weights 2, -1, 0.5, 1.5.
    train = np.array([[1.0] * 4, [-1.0] * 4])
    rows = np.ones((2, 4))
    found, curves = explanation_metrics(
        lambda X: W[None].repeat(2, 0),
        lambda X: X @ W,
        rows,
        np.array([0.0, 1.0]),
        Hider(train, rng=0),
        n_fractions=5,
    )
    assert curves["keep positive (mask)"] == pytest.approx([0, 2, 3.5, 4, 4])  # -1 is never kept
    assert curves["remove positive (mask)"] == pytest.approx(
        [3, 1, -0.5, -1, -1]
    )  # and never removed
    assert curves["keep negative (mask)"] == pytest.approx([0, -1, -1, -1, -1])
    assert curves["remove negative (mask)"] == pytest.approx([3, 4, 4, 4, 4])
    # Trapezoids of width 1/4: (0 + 2)/8 + (2 + 3.5)/8 + (3.5 + 4)/8 + (4 + 4)/8.
    assert found["keep positive (mask)"] == pytest.approx(23 / 8)
    assert found["remove negative (mask)"] == pytest.approx((3 + 4) / 8 + 3)


def test_keep_absolute_by_hand():
    train = np.array([[1.0] * 4, [-1.0] * 4])
    rows = np.array([[1.0, 1, 1, 1], [-1, -1, -1, -1]])
    hider = Hider(train, rng=0)
    _, curves = explanation_metrics(
        lambda X: X * W, lambda X: X @ W, rows, rows @ W, hider, n_fractions=5
    )
    # The truth is +-3. Kept in the order 2, 1.5, -1, 0.5 the output is 0, 2, 3.5, 2.5, 3 times the
    # sign of the row.
    expected = [1 - (3 - out) ** 2 / 9 for out in (0, 2, 3.5, 2.5, 3)]
    assert curves["keep absolute (mask)"] == pytest.approx(expected)
    assert curves["remove absolute (mask)"] == pytest.approx(
        [1 - out**2 / 9 for out in (0, 2, 3.5, 2.5, 3)]
    )


HAND = {  # three points each: no feature, the first of two, both
    "keep signed": {"mask": [0, 0, 6], "resample": [1, 0, 6], "impute": [0, 4, 6]},
    "remove signed": {"mask": [6, 0, 0], "resample": [6, 0, 1], "impute": [6, 9, 0]},
    "keep absolute": {
        "mask": [[0, 0], [0, 0], [6, -1]],
        "resample": [[1, 1], [0, 0], [6, -1]],
        "impute": [[0, 0], [4, 1], [6, -1]],
    },
    "remove absolute": {
        "mask": [[6, -1], [0, 0], [0, 0]],
        "resample": [[6, -1], [0, 0], [1, 1]],
        "impute": [[6, -1], [9, 1], [0, 0]],
    },
}


@pytest.mark.parametrize("hiding", ["mask", "resample", "impute"])
@pytest.mark.parametrize("sign", ["positive", "negative", "absolute"])
@pytest.mark.parametrize("verb", ["keep", "remove"])
def test_each_curve_by_hand(verb, sign, hiding):
    # f = x1 x2 on training rows (1, 1) and (-1, -1). Masked features are 0. Resampled, one is 0 on
    # average, but both hidden give f = 1. Imputed, each is the copy of the other: knowing x1 = 2
    # says x2 = 2, so f = 4.
    hider = Hider(np.array([[1.0, 1.0], [-1.0, -1.0]]))
    hider.draws = np.array([0, 1])
    rows, size = np.array([[2.0, 3.0], [1.0, -1.0]]), np.array([[1.0, 0.5]])
    phi = (-size if sign == "negative" else size).repeat(2, axis=0)
    expected = HAND[f"{verb} {'absolute' if sign == 'absolute' else 'signed'}"][hiding]
    if sign == "absolute":  # outputs 6 and -1 have the mean 2.5 and the sum of squares 24.5
        expected = [1 - ((6 - a) ** 2 + (-1 - b) ** 2) / 24.5 for a, b in expected]
    else:  # a mean over rows: the first row twice
        rows = rows[[0, 0]]
    found, curves = explanation_metrics(
        lambda X: phi,
        lambda X: X[:, 0] * X[:, 1],
        rows,
        np.array([6.0, -1.0]),
        hider,
        n_fractions=3,
    )
    name = f"{verb} {sign} ({hiding})"
    assert curves[name] == pytest.approx(expected, abs=1e-9)  # the ridge of impute is 1e-12
    assert found[name] == pytest.approx(
        expected[0] / 4 + expected[1] / 2 + expected[2] / 4, abs=1e-9
    )


@pytest.mark.parametrize("hiding", ["mask", "resample", "impute"])
@pytest.mark.parametrize("model", [linear, bent])
def test_curves_are_the_literal_ones(hiding, model):
    phi = np.random.default_rng(4).normal(size=TEST.shape)
    hider = Hider(TRAIN, n_resample=25, rng=1)
    _, curves = graded(lambda X: phi, model)
    counts = np.rint(np.linspace(0, 1, 11) * 4).astype(int)
    for sign in ("positive", "negative"):
        for verb in ("keep", "remove"):
            literal = np.mean(
                [
                    curve_literal(
                        model,
                        x,
                        row,
                        lambda x, kept: hider(x[None], kept[None], hiding)[0],
                        verb,
                        sign,
                        counts,
                    )
                    for x, row in zip(TEST, phi, strict=True)
                ],
                axis=0,
            )
            assert curves[f"{verb} {sign} ({hiding})"] == pytest.approx(literal, abs=1e-10)


@pytest.mark.parametrize("hiding", ["mask", "resample"])
@pytest.mark.parametrize("sign", ["positive", "negative"])
def test_keep_and_remove_agree_on_an_additive_model(hiding, sign):
    # f(x_A, r) + f(r_A, x) = f(x) + f(r) whatever the order, so the two curves sum to a constant.
    _, curves = graded(lambda X: np.random.default_rng(2).normal(size=X.shape))
    hider = Hider(TRAIN, n_resample=25, rng=1)
    empty = linear(TRAIN.mean(axis=0)) if hiding == "mask" else linear(TRAIN[hider.draws]).mean()
    total = curves[f"keep {sign} ({hiding})"] + curves[f"remove {sign} ({hiding})"]
    assert total == pytest.approx(np.full(11, linear(TEST).mean() + empty), abs=1e-10)


def test_impute_is_the_gaussian_conditional_mean():
    # Rows with exactly mean 0 and correlation 0.6: E[x1 | x0] = 0.6 x0.
    raw = np.random.default_rng(3).normal(size=(500, 2))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(raw.T @ raw / 500)).T
    hider = Hider(white @ np.linalg.cholesky([[1, 0.6], [0.6, 1]]).T)
    found = hider(
        np.array([[2.0, 9.0], [9.0, -1.0], [1.0, 1.0], [5.0, 7.0]]),
        np.array([[True, False], [False, True], [False, False], [True, True]]),
        "impute",
    )
    # The ridge of 1e-12 moves the answer by about as much.
    assert np.abs(found[:, 0] - [[2.0, 1.2], [-0.6, -1.0], [0.0, 0.0], [5.0, 7.0]]).max() < 1e-9


def test_impute_survives_copies_and_constants():
    column = np.random.default_rng(5).normal(size=(50, 1))
    hider = Hider(np.hstack([column, column, np.full((50, 1), 4.0)]))
    found = hider(np.array([[1.5, 0.0, 4.0]]), np.array([[True, False, True]]), "impute")[0, 0]
    assert found == pytest.approx([1.5, 1.5, 4.0], abs=1e-6)


def test_impute_of_one_training_row_is_that_row():
    # Nothing varies, so nothing is known: without a floor the ridge would be 0 times anything, and
    # the answer NaN.
    kept = np.array([[True, False, True]])
    assert Hider([[1.0, 2.0, 3.0]])(np.array([[7.0, 8.0, 9.0]]), kept, "impute").tolist() == [
        [[7.0, 2.0, 9.0]]
    ]


def test_resample_has_the_closed_form_of_a_linear_model():
    _, curves = graded(shapley)
    mean = TRAIN[Hider(TRAIN, n_resample=25, rng=1).draws].mean(axis=0)
    phi = shapley(TEST)
    for fraction, count in ((0.5, 2), (1.0, 4)):
        kept = (phi.argsort(axis=1)[:, ::-1].argsort(axis=1) < count) & (phi >= 0)
        expected = linear(np.where(kept, TEST, mean)).mean()
        assert curves["keep positive (resample)"][round(10 * fraction)] == pytest.approx(expected)


def test_resample_has_the_closed_form_of_a_square_of_gaussians():
    # f = (x0 + x1)^2 with x1 hidden: E f = x0^2 + 2 x0 E[x1] + E[x1^2], whatever the correlation.
    # Here E[x1] = 0 and E[x1^2] = 1. Of 40,000 draws the mean of f has the standard error sqrt(4
    # x0^2 + 2) / 200 = 0.012.
    draws = (
        np.random.default_rng(8).normal(size=(4000, 2)) @ np.linalg.cholesky([[1, 0.6], [0.6, 1]]).T
    )
    white = (draws - draws.mean(axis=0)) / draws.std(axis=0)
    x = np.array([[1.0, 5.0]])
    hidden = Hider(white, n_resample=40_000, rng=0)(x, np.array([[True, False]]), "resample")[0]
    assert abs((hidden.sum(axis=1) ** 2).mean() - 2.0) < 4 * 0.0123


def test_true_values_beat_random_ones():
    good, _ = graded(shapley)
    bad, _ = graded(lambda X: np.random.default_rng(1).normal(size=X.shape))
    for hiding in ("mask", "resample"):
        for sign, verb, direction in (
            ("positive", "keep", 1),
            ("negative", "keep", -1),
            ("positive", "remove", -1),
            ("negative", "remove", 1),
        ):
            name = f"{verb} {sign} ({hiding})"
            assert direction * good[name] > direction * bad[name]


def test_local_accuracy():
    assert [
        local_accuracy_score(s) for s in (0, 9e-7, 1e-6, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 9)
    ] == [1.0, 1.0, 0.9, 0.75, 0.6, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0]
    assert (
        graded(lambda X: Explanation(shapley(X), linear(TRAIN.mean(axis=0))))[0]["local accuracy"]
        == 1.0
    )
    assert (
        graded(shapley)[0]["local accuracy"] == 1.0
    )  # without a base value the best constant is taken
    # Values 4% too small: sigma = 0.04 rms(f) / rms(f) with the base value 0.
    close = graded(
        lambda X: Explanation(np.column_stack([0.96 * linear(X), *[0 * X[:, 0]] * 3]), 0.0)
    )
    assert close[0]["local accuracy"] == 0.75


def test_accuracy_equals_scikit_learn_s():
    y, output = np.array([0, 1, 1, 0, 1, 0.0]), np.array([0.1, 0.4, 0.4, 0.4, 0.9, 0.2])
    assert _accuracy("auc", y, output) == pytest.approx(roc_auc_score(y, output))
    assert _accuracy("r2", y, output) == pytest.approx(r2_score(y, output))


def test_runtime_and_consistency():
    found, _ = graded(shapley, prepare_seconds=100.0, guarantee="in the limit")
    assert 100 <= found["runtime"] < 110
    assert found["consistency"] == 0.8
    assert tuple(found) == METRICS
    assert len(METRICS) == 21


CALLS: list[str] = []


def prepare_true(model, X_train):
    CALLS.append("true")
    return lambda X: (np.asarray(X) - np.asarray(X_train).mean(axis=0)) * W


def prepare_random(model, X_train):
    CALLS.append("random")
    return lambda X: np.random.default_rng(0).normal(size=np.shape(X))


def fit_linear(X, y, seed):
    return linear


def run(**options):
    X = np.random.default_rng(6).normal(size=(60, 4))
    methods = {"true": prepare_true, "random": prepare_random}
    return grade_methods(
        methods,
        {"linear": fit_linear},
        X,
        linear(X),
        n_splits=2,
        n_test=20,
        n_resample=5,
        rng=3,
        guarantees={"true": "exact"},
        **options,
    )


def test_grades_are_tidy_parallel_and_resumable(tmp_path):
    found = run(store=tmp_path)
    assert len(found) == 2 * 2 * 21
    assert list(found.columns) == ["model", "split", "method", "metric", "value", "score", "curve"]
    steady = found["metric"] != "runtime"
    with parallel_config("threading", n_jobs=2):
        pd.testing.assert_frame_equal(found[steady], run()[steady])
    CALLS.clear()
    pd.testing.assert_frame_equal(found, run(store=tmp_path))  # times too: nothing was run again
    assert CALLS == []
    victim = next(
        path
        for path in sorted(tmp_path.iterdir())
        if json.loads(path.read_text())["metrics"]["consistency"] == 1.0
    )
    victim.unlink()
    pd.testing.assert_frame_equal(found[steady], run(store=tmp_path)[steady])
    assert CALLS == ["true"]
    X = np.random.default_rng(6).normal(size=(60, 4))
    as_list = grade_methods(
        {"true": prepare_true},
        {"linear": fit_linear},
        X.tolist(),
        linear(X).tolist(),
        n_splits=2,
        n_test=20,
        n_resample=5,
        rng=3,
        guarantees={"true": "exact"},
    )
    same = found[(found["method"] == "true") & steady].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        as_list[as_list["metric"] != "runtime"].reset_index(drop=True), same
    )
    sign = found.set_index("metric")[["value", "score"]]
    assert (
        sign.loc["keep positive (mask)", "value"] == sign.loc["keep positive (mask)", "score"]
    ).all()
    for lower in (
        "runtime",
        "keep negative (mask)",
        "remove positive (impute)",
        "remove absolute (resample)",
    ):
        assert (sign.loc[lower, "value"] == -sign.loc[lower, "score"]).all()


def test_tiles():
    grades = run()
    scaled = scale_tiles(grades, "linear")
    assert scaled.index.tolist() == ["true", "random"]
    assert scaled.columns.tolist() == [*METRICS, "mean"]
    assert scaled.loc["true", "keep positive (mask)"] == 1.0
    assert scaled.loc["random", "keep positive (mask)"] == 0.0
    ax = plot_tiles(grades, "linear")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["true", "random"]
    assert ax.images[0].get_array().tolist() == scaled.to_numpy().T.tolist()
    pd.testing.assert_frame_equal(plots.table(ax), scaled)
    ax = plot_tiles(
        grades.assign(method=grades["method"].map({"true": "$x$", "random": "r" * 99})), "linear"
    )
    assert ax.get_xticklabels()[0].get_text() == r"\$x\$"
    assert len(ax.get_xticklabels()[1].get_text()) == 34
    matplotlib.pyplot.close("all")
    with pytest.raises(ValueError, match="model: expected one of 'linear', got 'tree'"):
        scale_tiles(grades, "tree")


def test_bad_input():
    with pytest.raises(ValueError, match=r"explain: expected shape \(8, 4\) of finite numbers"):
        graded(lambda X: X[:, :2])
    with pytest.raises(ValueError, match="y: expected both 0 and 1"):
        graded(shapley, accuracy="auc")
    with pytest.raises(ValueError, match="model: expected one output a row"):
        graded(shapley, model=lambda X: X[:, :2])
    with pytest.raises(ValueError, match="hiding: expected one of"):
        Hider(TRAIN)(TEST, TEST > 0, "blank")
    with pytest.raises(ValueError, match=r"kept: expected a mask of the shape of X, \(N, 4\)"):
        Hider(TRAIN)(TEST, TEST[:3] > 0, "mask")
    with pytest.raises(ValueError, match="sigma: expected a number in"):
        local_accuracy_score(np.nan)
    with pytest.raises(TypeError, match="hider: expected a Hider, got None"):
        explanation_metrics(shapley, linear, TEST, linear(TEST), None)
    with pytest.raises(ValueError, match="X: expected 2 columns, got 4"):
        explanation_metrics(shapley, linear, TEST, linear(TEST), Hider(TRAIN[:, :2]))
    for y in (["a"] * 8, [np.nan] * 8, [1.0] * 7):
        with pytest.raises(
            (TypeError, ValueError), match=r"y: expected shape \(8,\) of finite numbers, got"
        ):
            graded(shapley, y=y)
    for options, text in (
        ({"batch_rows": 0}, "batch_rows"),
        ({"prepare_seconds": -1}, "prepare_seconds"),
        ({"model": None}, "model"),
        ({"guarantee": "yes"}, "guarantee"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"{text}: expected"):
            graded(shapley, **options)
    for guarantees, text in (
        ({"b": "exact"}, "guarantees: expected one of 'a'"),
        ({"a": "maybe"}, r"guarantees\['a'\]: expected one of 'exact'"),
    ):
        with pytest.raises(ValueError, match=text):
            grade_methods(
                {"a": prepare_true}, {"b": fit_linear}, TRAIN, TRAIN[:, 0], guarantees=guarantees
            )
    with pytest.raises(TypeError, match="store: expected the path of a folder, or None, got 3"):
        grade_methods({"a": prepare_true}, {"b": fit_linear}, TRAIN, TRAIN[:, 0], store=3)
    with pytest.raises(TypeError, match="model: expected a callable"):
        grade_methods(
            {"a": prepare_true},
            {"b": lambda X, y, seed: None},
            TRAIN,
            TRAIN[:, 0],
            n_test=20,
            n_splits=1,
        )
    with pytest.raises(ValueError, match="methods: expected at least one name, got"):
        grade_methods([prepare_true], {"b": fit_linear}, TRAIN, TRAIN[:, 0])
    for grades in (None, pd.DataFrame({"model": ["a"]})):
        with pytest.raises(TypeError, match="grades: expected the table of grade_methods, got"):
            plot_tiles(grades, "a")
    with pytest.raises(ValueError, match="n_test: expected at most 58"):
        grade_methods({"a": prepare_true}, {"b": fit_linear}, TRAIN[:60], TRAIN[:60, 0])
    with pytest.raises(ValueError, match="methods: expected at least one name"):
        grade_methods({}, {"b": fit_linear}, TRAIN, TRAIN[:, 0])
