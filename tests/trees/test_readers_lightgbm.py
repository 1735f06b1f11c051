"""LightGBM reader: predict equals the library's raw score on every kind of model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from oracles.random_trees import assert_agrees
from scipy import sparse

from shaplab import UnsupportedModelError
from shaplab.trees._links import prediction
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.readers._lightgbm import read_text

lgb = pytest.importorskip("lightgbm")

# LightGBM adds leaves in float64, in the same order; only the average of rf mode is taken apart
# differently.
# That leaves rounding: 1e-12, the default of assert_agrees.
BASE = {"verbose": -1, "num_threads": 1, "num_leaves": 12, "min_data_in_leaf": 3, "seed": 1}


def table(n=400, d=5, seed=0, missing=True):
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, d)), 1)
    if missing:
        X[rng.random((n, d)) < 0.1] = np.nan
    return X, np.nan_to_num(X[:, 0]) - 2 * (np.nan_to_num(X[:, 1]) > 0) + 0.1 * rng.normal(size=n)


def train(parameters, X, y, rounds=6, **more):
    return lgb.train(BASE | parameters, lgb.Dataset(X, y, **more), rounds)


OBJECTIVES = {
    "regression": lambda y: y,
    "regression_l1": lambda y: y,
    "huber": lambda y: y,
    "fair": lambda y: y,
    "quantile": lambda y: y,
    "mape": lambda y: np.abs(y) + 1,
    "poisson": lambda y: np.floor(np.abs(y) * 3),
    "gamma": lambda y: np.abs(y) + 0.1,
    "tweedie": np.abs,
    "binary": lambda y: y > -1,
    "cross_entropy": lambda y: 1 / (1 + np.exp(-y)),
    "cross_entropy_lambda": lambda y: 1 / (1 + np.exp(-y)),
    "lambdarank": lambda y: np.clip(np.round(y + 2), 0, 4),
    "rank_xendcg": lambda y: np.clip(np.round(y + 2), 0, 4),
    "multiclass": lambda y: np.digitize(y, [-1.5, 0]),
    "multiclassova": lambda y: np.digitize(y, [-1.5, 0]),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective(objective):
    X, y = table()
    more = {"group": [200, 200]} if "rank" in objective else {}
    parameters = {"objective": objective} | (
        {"num_class": 3} if objective.startswith("multi") else {}
    )
    booster = train(parameters, X, np.asarray(OBJECTIVES[objective](y), float), **more)
    ensemble = as_ensemble(booster)
    assert_agrees(ensemble.predict(X), booster.predict(X, raw_score=True))
    assert ensemble.objective == objective
    raw = ensemble.predict(X)
    change = prediction(ensemble.link, ensemble.link_factor)
    np.testing.assert_allclose(change.value(raw), booster.predict(X), rtol=1e-9)


def test_own_objective_and_changed_leaves():
    X, y = table()
    booster = train(
        {"objective": lambda found, data: (found - data.get_label(), np.ones_like(found))}, X, y
    )
    ensemble = as_ensemble(booster)
    assert_agrees(ensemble.predict(X), booster.predict(X))
    assert (ensemble.objective, ensemble.link) == ("", "")
    booster = train({}, X, y)
    booster.set_leaf_output(0, 0, 5.0)
    assert_agrees(as_ensemble(booster).predict(X), booster.predict(X))
    again = booster.refit(X, y + 1)
    assert_agrees(as_ensemble(again).predict(X), again.predict(X))


@pytest.mark.parametrize(
    "parameters",
    [
        {"zero_as_missing": True},
        {"use_missing": False},
        {"boosting": "dart", "drop_rate": 0.5},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
        {"extra_trees": True},
        {"max_depth": 1},
        {"boosting": "goss"},
        {"min_data_in_leaf": 10_000},
        {"boost_from_average": False},
        {"num_leaves": 300, "min_data_in_leaf": 1},
        {"monotone_constraints": [1, -1, 0, 0, 0]},
        {"objective": "regression", "reg_sqrt": True},
    ],
)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("missing", [True, False])
def test_every_booster(parameters, classes, missing):
    if classes == 3 and "reg_sqrt" in parameters:
        pytest.skip("only for regression")
    X, y = table(missing=missing)
    X[::4] *= X[::4] > 0.3  # zeros, negative zeros
    if classes == 3:
        y, parameters = (
            np.digitize(y, [-1.5, 0]),
            parameters | {"objective": "multiclass", "num_class": 3},
        )
    booster = train(parameters, X, y)
    test = np.concatenate(
        [
            X,
            np.full((1, 5), np.nan),
            [[0.0, -0.0, 1e-36, 1e-35, 1e-34]],
            X.astype(np.float32),
            np.full((1, 5), np.float32(1e-35)),
            [[np.inf, -np.inf, 1e300, 0.0, -1e-40]],
        ]
    )
    expected = booster.predict(test, raw_score=True)
    # LightGBM's raw score of a forest is the sum of its trees; what it predicts with is their mean,
    # as ours.
    assert_agrees(
        as_ensemble(booster).predict(test),
        expected / (6 if parameters.get("boosting") == "rf" else 1),
    )
    if parameters.get("boosting") == "rf" and classes == 1:
        assert_agrees(as_ensemble(booster).predict(test), booster.predict(test))


def test_best_round_and_ranges():
    X, y = table()
    booster = lgb.train(
        BASE | {"learning_rate": 0.5},
        lgb.Dataset(X[:300], y[:300]),
        200,
        valid_sets=[lgb.Dataset(X[300:], y[300:])],
        callbacks=[lgb.early_stopping(3, verbose=False)],
        keep_training_booster=True,
    )
    assert 0 < booster.best_iteration < booster.current_iteration()
    assert_agrees(as_ensemble(booster).predict(X), booster.predict(X))
    part = TreeEnsemble.from_model(booster, iteration_range=(1, 3))
    assert_agrees(part.predict(X), booster.predict(X, start_iteration=1, num_iteration=2))
    forest = train({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, X, y, 7)
    part = TreeEnsemble.from_model(forest, iteration_range=(2, 5))
    assert_agrees(part.predict(X), forest.predict(X, start_iteration=2, num_iteration=3))
    with pytest.raises(ValueError, match="iteration_range"):
        TreeEnsemble.from_model(forest, iteration_range=(3, 9))


@pytest.mark.parametrize("classes", [2, 3])
def test_scikit_learn_classes(classes):
    X, y = table()
    y = np.digitize(y, [-1.5, 0][: classes - 1])
    model = lgb.LGBMClassifier(n_estimators=5, num_leaves=8, verbose=-1, n_jobs=1).fit(X, y)
    ensemble = as_ensemble(model)
    assert_agrees(ensemble.predict(X), model.predict(X, raw_score=True))
    assert ensemble.output_names == (("0", "1", "2") if classes == 3 else None)
    assert ensemble.feature_names == tuple(f"Column_{j}" for j in range(X.shape[1]))


def frame(n=400, seed=0, missing=True):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "the letter": pd.Categorical(rng.choice([*"abcdefgé"], n)),
            "x": rng.normal(size=n),
            "number": pd.Categorical(rng.integers(0, 12, n) * 10),
            "size": pd.Categorical(rng.choice(["s", "m", "l"], n), ["s", "m", "l"], ordered=True),
            "whole": rng.integers(0, 5, n),
        }
    )
    y = (
        X["the letter"].isin(["a", "c", "f"]) * 2.0
        + X["number"].astype(int) % 3
        + X["x"]
        + (X["size"] == "l")
    )
    if missing:
        X.loc[::9, "the letter"] = np.nan
        X.loc[::11, "number"] = np.nan
        X.loc[::13, "size"] = np.nan
    return X, y.to_numpy()


@pytest.mark.parametrize("one_hot", [1, 100])
@pytest.mark.parametrize("missing", [True, False])
def test_categories_of_a_frame(one_hot, missing):
    X, y = frame(missing=missing)
    booster = train(
        {"max_cat_to_onehot": one_hot, "min_data_per_group": 3, "cat_smooth": 1}, X, y, 10
    )
    ensemble = as_ensemble(booster)
    assert (ensemble.set_start >= 0).any()
    assert_agrees(ensemble.predict(X), booster.predict(X))
    gaps, _ = frame(seed=1)
    assert_agrees(ensemble.predict(gaps), booster.predict(gaps))
    unseen = X.copy()
    unseen["the letter"] = (
        unseen["the letter"].astype(object).where(np.arange(400) % 3 > 0, "new").astype("category")
    )
    assert_agrees(
        ensemble.predict(unseen), booster.predict(unseen)
    )  # LightGBM's rule: unseen is missing
    with pytest.raises(ValueError, match="3 categorical columns, as in training, got 2"):
        ensemble.predict(X.assign(number=1.0))
    with pytest.raises(ValueError, match="unknown other"):
        ensemble.predict(X.rename(columns={"x": "other"}))


@pytest.mark.parametrize("one_hot", [1, 100])
@pytest.mark.parametrize("gaps", [True, False])
def test_categories_as_codes_with_unseen_ones(one_hot, gaps):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 70, 900).astype(float)
    X = np.stack([codes, rng.normal(size=900)], axis=1)
    y = codes % 3 + X[:, 1]
    if gaps:
        X[::10, 0] = np.nan
    booster = train(
        {"max_cat_to_onehot": one_hot, "min_data_per_group": 3, "cat_smooth": 1},
        X,
        y,
        8,
        categorical_feature=[0],
    )
    assert (as_ensemble(booster).set_start >= 0).any()
    test = np.array(
        [[c, 0.1] for c in (*range(70), 71, 96, 1000, 2.7, -0.5, -1, -7, np.nan, 1e9, np.inf)]
    )
    assert_agrees(as_ensemble(booster).predict(test), booster.predict(test))


def test_training_continued_on_rows_with_gaps():
    X, y = table(missing=False)
    first = train({}, X, y, 4)
    X = X.copy()
    X[::5] = np.nan
    booster = lgb.train(BASE, lgb.Dataset(X, y), 4, init_model=first)
    assert_agrees(as_ensemble(booster).predict(X), booster.predict(X))
    other = lgb.train(BASE | {"zero_as_missing": True}, lgb.Dataset(X, y), 4, init_model=first)
    with pytest.raises(UnsupportedModelError, match="one meaning of zero"):
        as_ensemble(other)


@pytest.mark.parametrize("missing", [True, False])
def test_thresholds_at_zero(missing):
    X, y = table(missing=missing)
    near_zero = ["0", "-0.5", "0.5", "-1.0000000180025095e-35"] * 9
    lines = []
    for line in train({}, X, y).model_to_string().splitlines():
        if line.startswith("threshold="):
            line = "threshold=" + " ".join(near_zero[: len(line.split())])
        if not line.startswith("tree_sizes"):
            lines.append(line)
    booster = lgb.Booster(model_str="\n".join(lines))
    tiny = float(np.float32(1e-35))
    test = np.repeat(
        np.array([np.nan, 0.0, -0.0, 1e-36, -1e-36, tiny, -tiny, 1e-34, -1e-34])[:, None], 5, axis=1
    )
    assert_agrees(as_ensemble(booster).predict(test), booster.predict(test))
    assert (as_ensemble(booster).threshold == 0).any()


def test_layouts_of_the_table():
    X, y = table(missing=False)
    X[np.abs(X) < 0.5] = 0
    booster = train({}, X, y)
    ours, expected = as_ensemble(booster), booster.predict(X)
    for layout in (
        np.asfortranarray(X),
        X[:, ::-1][:, ::-1],
        X.tolist(),
        sparse.csr_matrix(X),
        sparse.csc_matrix(X),
    ):
        assert_agrees(ours.predict(layout), expected)
    assert_agrees(ours.predict(X[:1]), expected[:1])
    assert_agrees(ours.predict(X.astype(np.float32)), booster.predict(X.astype(np.float32)))


def test_covers_are_the_counts_of_lightgbm():
    X, y = table()
    booster = train({}, X, y)
    ensemble = as_ensemble(booster)
    np.testing.assert_array_equal(ensemble.cover, ensemble.with_covers(X).cover)
    assert ensemble.cover[0] == len(X)


def test_saved_and_loaded(tmp_path):
    X, y = frame()
    booster = train({}, X, y)
    booster.save_model(tmp_path / "model.txt")
    again = lgb.Booster(model_file=tmp_path / "model.txt")
    np.testing.assert_array_equal(as_ensemble(again).predict(X), booster.predict(X))


def test_refusals():
    X, y = table()
    with pytest.raises(UnsupportedModelError, match="linear_tree"):
        as_ensemble(train({"linear_tree": True}, np.nan_to_num(X), y))
    with pytest.raises(
        ValueError, match="model: expected a fitted model, got LGBMRegressor that was not fitted"
    ):
        as_ensemble(lgb.LGBMRegressor())
    booster = train({}, X, y)
    with pytest.raises(ValueError, match="missing: expected None"):
        TreeEnsemble.from_model(booster, missing=0.0)
    with pytest.raises(ValueError, match="X: expected 5 columns, got 4"):
        as_ensemble(booster).predict(X[:, :4])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("left_child=1", "left_child=0"),
        ("left_child=1", "left_child=999"),
        ("right_child=", "right_child=-99 "),
        ("split_feature=", "split_feature=77 "),
        ("threshold=", "threshold=nan "),
        ("leaf_value=", "leaf_value=x "),
        ("num_leaves=", "leaves="),
        ("max_feature_idx=4", "max_feature_idx=0"),
        ("feature_names", "names"),
    ],
)
def test_damaged_models_are_refused(old, new):
    X, y = table()
    text = train({}, X, y).model_to_string()
    assert old in text
    lines = text.replace(old, new).splitlines()
    name = new.split("=")[0]
    if new.endswith(" "):  # one entry replaced, so that the count stays right
        lines = [
            " ".join(line.split(" ")[:1] + line.split(" ")[2:])
            if line.startswith(name + "=")
            else line
            for line in lines
        ]

    class Booster:
        __module__ = "lightgbm.basic"

        def current_iteration(self):
            return 6

        def model_to_string(self, num_iteration=None, start_iteration=0):
            return "\n".join(lines)

    with pytest.raises(ValueError, match="model"):
        as_ensemble(Booster())


def test_text_without_trees():
    X, y = table()
    head = train({}, X, y).model_to_string().split("\nTree=")[0]
    np.testing.assert_array_equal(TreeEnsemble.from_raw(read_text(head)).predict(X), 0.0)
