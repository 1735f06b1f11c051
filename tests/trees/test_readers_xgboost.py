"""XGBoost reader: predict equals the library's margin on every kind of model."""

from __future__ import annotations

import copy
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from oracles import random_trees
from scipy import sparse

from shaplab import UnsupportedModelError
from shaplab.trees._links import prediction
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.readers._xgboost import read_json

xgb = pytest.importorskip("xgboost")

# XGBoost adds leaves in float32: its sum over T trees is off by up to about T * 6e-8 of the partial
# sums.
assert_agrees = partial(random_trees.assert_agrees, tolerance=2e-6)


def table(n=300, d=5, seed=0, missing=True):
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, d)), 1)  # ties with thresholds
    if missing:
        X[rng.random((n, d)) < 0.1] = np.nan
    return X, np.nan_to_num(X[:, 0]) - 2 * (np.nan_to_num(X[:, 1]) > 0) + 0.1 * rng.normal(size=n)


OBJECTIVES = {
    "reg:squarederror": lambda y: y,
    "reg:squaredlogerror": np.abs,
    "reg:pseudohubererror": lambda y: y,
    "reg:absoluteerror": lambda y: y,
    "reg:logistic": lambda y: 1 / (1 + np.exp(-y)),
    "binary:logistic": lambda y: y > -1,
    "binary:logitraw": lambda y: y > -1,
    "binary:hinge": lambda y: y > -1,
    "count:poisson": lambda y: np.floor(np.abs(y) * 3),
    "reg:gamma": lambda y: np.abs(y) + 0.1,
    "reg:tweedie": np.abs,
    "survival:cox": lambda y: (np.abs(y) + 0.1) * np.sign(y + 0.01),
    "rank:pairwise": lambda y: np.clip(np.round(y + 2), 0, 4),
    "rank:ndcg": lambda y: np.clip(np.round(y + 2), 0, 4),
    "rank:map": lambda y: y > -1,
}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("base_score", [None, 0.3])
def test_every_objective(objective, base_score):
    X, y = table()
    data = xgb.DMatrix(X, np.asarray(OBJECTIVES[objective](y), float))
    if objective.startswith("rank"):
        data.set_group([100, 100, 100])
    parameters = {"objective": objective, "max_depth": 3}
    if base_score is not None:
        parameters["base_score"] = base_score
    booster = xgb.train(parameters, data, 8)
    ensemble = TreeEnsemble.from_model(booster)
    assert_agrees(ensemble.predict(X), booster.predict(data, output_margin=True))
    assert ensemble.objective == objective
    assert not ensemble.has_outputs
    change = prediction(ensemble.link, ensemble.link_factor)
    assert (change is None) == (objective == "binary:hinge")
    if change is not None and objective != "rank:map":
        np.testing.assert_allclose(
            change.value(ensemble.predict(X)), booster.predict(data), rtol=1e-4, atol=1e-5
        )


def test_aft():
    X, y = table()
    data = xgb.DMatrix(X)
    data.set_float_info("label_lower_bound", np.abs(y) + 0.1)
    data.set_float_info("label_upper_bound", np.where(y > 0, np.inf, np.abs(y) + 0.1))
    booster = xgb.train({"objective": "survival:aft", "max_depth": 3}, data, 8)
    assert_agrees(as_ensemble(booster).predict(X), booster.predict(data, output_margin=True))


def test_own_objective():
    X, y = table()
    data = xgb.DMatrix(X, y)
    booster = xgb.train(
        {"max_depth": 3, "disable_default_eval_metric": True},
        data,
        5,
        obj=lambda found, data: (found - data.get_label(), np.ones_like(found)),
    )
    assert_agrees(as_ensemble(booster).predict(X), booster.predict(data, output_margin=True))


def test_quantiles():
    X, y = table()
    booster = xgb.train(
        {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9], "max_depth": 3},
        xgb.QuantileDMatrix(X, y),
        6,
    )
    assert_agrees(
        as_ensemble(booster).predict(X), booster.predict(xgb.DMatrix(X), output_margin=True)
    )


@pytest.mark.filterwarnings(
    "ignore:(?s).*(are not used|is deprecated)"
)  # drop-out has two names in different versions
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"booster": "dart", "rate_drop": 0.5, "one_drop": 1},
        {"booster": "dart", "rate_drop": 0.5, "num_parallel_tree": 2},
        {"rate_drop": 0.5, "one_drop": 1},
        {"booster": "dart", "rate_drop": 0.9, "skip_drop": 0.3, "normalize_type": "forest"},
        {"grow_policy": "lossguide", "max_leaves": 9},
        {"tree_method": "exact", "gamma": 0.5},
        {"tree_method": "approx"},
        {"max_depth": 30, "min_child_weight": 0},
        {"max_depth": 1},
        {"gamma": 1e9},
        {"monotone_constraints": "(1,-1,0,0,0)"},
    ],
)
@pytest.mark.parametrize("classes", [1, 3])
def test_every_booster(parameters, classes):
    X, y = table()
    y = np.digitize(y, [-1.5, 0]) if classes == 3 else y
    parameters = {"max_depth": 4, "seed": 1} | parameters
    if classes == 3:
        parameters |= {"objective": "multi:softprob", "num_class": 3}
    data = xgb.DMatrix(X, y)
    booster = xgb.train(parameters, data, 6)
    ensemble = as_ensemble(booster)
    assert_agrees(ensemble.predict(X), booster.predict(data, output_margin=True))
    assert ensemble.n_trees == len(booster.get_dump())
    assert ensemble.has_outputs == (classes == 3)


@pytest.mark.parametrize("strategy", ["multi_output_tree", "one_output_per_tree"])
def test_several_targets(strategy):
    X, y = table()
    Y = np.stack([y, -2 * y, y**2], axis=1)
    data = xgb.DMatrix(X, Y)
    booster = xgb.train(
        {"multi_strategy": strategy, "max_depth": 4, "tree_method": "hist"}, data, 6
    )
    version = tuple(int(part) for part in xgb.__version__.split(".")[:2])
    if strategy == "multi_output_tree" and version < (3, 2):
        with pytest.raises(UnsupportedModelError, match="one_output_per_tree"):
            as_ensemble(booster)
        return
    ensemble = as_ensemble(booster)
    assert ensemble.n_trees == (6 if strategy == "multi_output_tree" else 18)
    assert_agrees(ensemble.predict(X), booster.predict(data, output_margin=True))
    assert ensemble.predict(X[:1]).shape == (1, 3)
    assert (
        len(set(ensemble.base)) == 3 or xgb.__version__ < "3.1"
    )  # a vector of base scores since then


def test_scikit_learn_classes_use_their_best_round(tmp_path):
    X, y = table()
    model = xgb.XGBRegressor(
        n_estimators=300, learning_rate=0.5, early_stopping_rounds=3, max_depth=5
    )
    model.fit(X[:200], y[:200], eval_set=[(X[200:], y[200:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    assert_agrees(as_ensemble(model).predict(X), model.predict(X, output_margin=True))
    model.save_model(tmp_path / "model.json")
    again = xgb.XGBRegressor()
    again.load_model(tmp_path / "model.json")
    assert_agrees(as_ensemble(again).predict(X), again.predict(X, output_margin=True))
    booster = model.get_booster()
    assert_agrees(
        as_ensemble(booster).predict(X), booster.predict(xgb.DMatrix(X), output_margin=True)
    )
    part = TreeEnsemble.from_model(booster, iteration_range=(1, 3))
    assert_agrees(
        part.predict(X), booster.predict(xgb.DMatrix(X), output_margin=True, iteration_range=(1, 3))
    )
    assert part.n_trees == 2


def test_forests_and_rankers_of_the_scikit_learn_interface():
    X, y = table()
    for model in (xgb.XGBRFRegressor(n_estimators=5), xgb.XGBRFClassifier(n_estimators=5)):
        model.fit(X, y if isinstance(model, xgb.XGBRegressor) else np.digitize(y, [-1.5, 0]))
        assert_agrees(as_ensemble(model).predict(X), model.predict(X, output_margin=True))
    ranker = xgb.XGBRanker(n_estimators=5).fit(X, np.clip(np.round(y + 2), 0, 4), group=[100, 200])
    assert_agrees(as_ensemble(ranker).predict(X), ranker.predict(X))


@pytest.mark.parametrize("classes", [2, 3])
def test_classifier_names_its_classes(classes):
    X, y = table()
    y = np.digitize(y, [-1.5, 0][: classes - 1])
    model = xgb.XGBClassifier(n_estimators=5, max_depth=3).fit(X, y)
    ensemble = as_ensemble(model)
    assert_agrees(ensemble.predict(X), model.predict(X, output_margin=True))
    assert ensemble.output_names == (("0", "1", "2") if classes == 3 else None)


def test_missing_value_of_the_model():
    X, y = table(missing=False)
    X[::7, 1] = -999.0
    model = xgb.XGBRegressor(n_estimators=5, missing=-999.0).fit(X, y)
    assert_agrees(as_ensemble(model).predict(X), model.predict(X))
    assert (as_ensemble(model).encode(X)[::7, 1] == -1).all()
    data = xgb.DMatrix(X, y, missing=-999.0)
    booster = xgb.train({}, data, 5)
    assert_agrees(
        TreeEnsemble.from_model(booster, missing=-999.0).predict(X), booster.predict(data)
    )


def frame(n=300, seed=0):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "letter": pd.Categorical(rng.choice([*"abcdefgh"], n)),
            "x": rng.normal(size=n),
            "number": pd.Categorical(rng.integers(0, 12, n) * 10),
            "whole": rng.integers(0, 5, n),
        }
    )
    y = X["letter"].isin(["a", "c", "f"]) * 2.0 + X["number"].astype(int) % 3 + X["x"]
    X.loc[::9, "letter"] = np.nan
    return X, y.to_numpy()


@pytest.mark.parametrize("one_hot", [1, 100])
@pytest.mark.parametrize("wrapped", [True, False])
def test_categories_of_a_frame(one_hot, wrapped):
    X, y = frame()
    if wrapped:
        model = xgb.XGBRegressor(
            n_estimators=8, max_depth=4, max_cat_to_onehot=one_hot, enable_categorical=True
        )
        model.fit(X, y)
        theirs = model.predict(X)
    else:
        data = xgb.DMatrix(X, y, enable_categorical=True)
        model = xgb.train({"max_depth": 4, "max_cat_to_onehot": one_hot}, data, 8)
        theirs = model.predict(data)
    ensemble = as_ensemble(model)
    assert (ensemble.set_start >= 0).any()
    assert_agrees(ensemble.predict(X), theirs)
    other = X.copy()
    other["letter"] = other["letter"].cat.reorder_categories([*X["letter"].cat.categories[::-1]])
    np.testing.assert_array_equal(ensemble.predict(other), ensemble.predict(X))
    other = X.copy()
    other["letter"] = other["letter"].cat.rename_categories({"a": "zz"})
    with pytest.raises(ValueError, match=r"X: expected categories known .* 'letter', got 'zz'"):
        ensemble.predict(other.dropna())
    with pytest.raises(ValueError, match="categorical column 'letter'"):
        ensemble.predict(X.assign(letter=1.0))
    with pytest.raises(ValueError, match="missing letter"):
        ensemble.predict(X.rename(columns={"letter": "other"}))
    with pytest.raises(ValueError, match="another order"):
        ensemble.predict(X[X.columns[::-1]])


def test_categories_with_names_that_xgboost_stores_cut():
    X, y = frame()
    X["letter"] = X["letter"].cat.rename_categories({"b": "é", "d": "日本"})
    model = xgb.XGBRegressor(n_estimators=8, max_depth=4, enable_categorical=True).fit(X, y)
    assert_agrees(as_ensemble(model).predict(X), model.predict(X))
    X["letter"] = X["letter"].cat.reorder_categories([*X["letter"].cat.categories[::-1]])
    if tuple(map(int, xgb.__version__.split(".")[:2])) >= (3, 4):
        assert_agrees(as_ensemble(model).predict(X), model.predict(X))
    else:
        with pytest.raises(ValueError, match="categories in their order in column 'letter'"):
            as_ensemble(model).predict(X)


@pytest.mark.parametrize("words", [["öa", "b", "a"], ["Ulm", "Köln"], ["é", "a", "b"]])
def test_category_names_that_are_text_after_the_cut(words):
    rng = np.random.default_rng(0)
    codes = rng.integers(len(words), size=200)
    X = pd.DataFrame({"word": pd.Categorical.from_codes(codes, words), "x": rng.normal(size=200)})
    model = xgb.XGBRegressor(n_estimators=20, enable_categorical=True).fit(X, codes + 0.1 * X["x"])
    ensemble = as_ensemble(model)
    assert_agrees(ensemble.predict(X), model.predict(X))
    for code in range(len(words)):  # a row's own category decides, whatever others occur
        rows = X[codes == code][:2]
        assert_agrees(ensemble.predict(rows), model.predict(rows))


def test_category_names_that_are_one_after_the_cut():
    words = ["é", "ü", "ö"]  # two bytes each, the first of "é" and "ö" the same
    codes = np.arange(200) % 3
    X = pd.DataFrame({"word": pd.Categorical.from_codes(codes, words)})
    model = xgb.XGBRegressor(n_estimators=20, enable_categorical=True).fit(X, codes)
    if tuple(map(int, xgb.__version__.split(".")[:2])) >= (3, 4):
        assert_agrees(as_ensemble(model).predict(X), model.predict(X))
        return
    assert model.predict(X[2:3])[0] < 0.5  # the target is 2
    with pytest.raises(ValueError, match=r"tells apart in column 'word'.*Rename them in ASCII"):
        as_ensemble(model).predict(X)
    X["word"] = X["word"].cat.rename_categories(["e", "u", "o"])
    model.fit(X, codes)
    assert_agrees(as_ensemble(model).predict(X), model.predict(X))


@pytest.mark.parametrize("one_hot", [1, 100])
def test_categories_as_codes_with_unseen_ones(one_hot):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 9, 300).astype(float)
    X = np.stack([codes, rng.normal(size=300)], axis=1)
    data = xgb.DMatrix(X, codes % 3 + X[:, 1], feature_types=["c", "q"])
    booster = xgb.train({"max_cat_to_onehot": one_hot, "max_depth": 4}, data, 8)
    test = np.array(
        [[c, 0.1] for c in (0, 3, 8, 9, 31, 32, 64, 1000, 2.7, -0.5, -0.0, -1, -7, np.nan)]
    )
    assert_agrees(
        as_ensemble(booster).predict(test),
        booster.predict(xgb.DMatrix(test, feature_types=["c", "q"])),
    )


def test_numbers_that_float32_cannot_tell_apart():
    rng = np.random.default_rng(0)
    X = 2.0**24 + rng.integers(-40, 40, (400, 2)) + rng.choice([0, 0.5], (400, 2))
    booster = xgb.train({"max_depth": 6}, xgb.DMatrix(X, X[:, 0] % 7), 5)
    assert_agrees(as_ensemble(booster).predict(X), booster.predict(xgb.DMatrix(X)))


def test_many_thresholds_and_signed_zeros():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 1))
    booster = xgb.train(
        {"max_depth": 40, "tree_method": "exact", "min_child_weight": 0, "lambda": 0},
        xgb.DMatrix(X, rng.normal(size=3000)),
        1,
    )
    ensemble = as_ensemble(booster)
    assert ensemble.encoder.n_codes[0] > 1000
    thresholds = ensemble.threshold[np.isfinite(ensemble.threshold)]
    below = np.nextafter(thresholds.astype(np.float32), np.float32(-9))
    test = np.concatenate([thresholds, below, [0.0, -0.0]])[:, None]
    assert_agrees(ensemble.predict(test), booster.predict(xgb.DMatrix(test)))
    zero = xgb.train(
        {"max_depth": 1, "min_child_weight": 0}, xgb.DMatrix([[-1.0], [0.0]], [0.0, 1.0]), 1
    )
    np.testing.assert_allclose(
        as_ensemble(zero).predict([[-0.0], [0.0], [-1e-45]]),
        zero.predict(xgb.DMatrix([[-0.0], [0.0], [-1e-45]])),
        rtol=1e-6,
    )


def test_layouts_of_the_table():
    X, y = table(missing=False)
    X[np.abs(X) < 0.5] = 0
    dense = xgb.train({"max_depth": 3}, xgb.DMatrix(X, y), 5)
    ours = as_ensemble(dense)
    expected = dense.predict(xgb.DMatrix(X))
    for layout in (
        np.asfortranarray(X),
        X[:, ::-1][:, ::-1],
        X.astype(np.float32),
        X.tolist(),
        pd.DataFrame(X),
    ):
        assert_agrees(ours.predict(layout), expected)
    assert_agrees(ours.predict(X[:1]), expected[:1])
    # what a sparse matrix leaves out is missing for XGBoost
    rows = sparse.csr_matrix(X)
    assert_agrees(ours.predict(rows), dense.predict(xgb.DMatrix(rows)))
    assert np.abs(ours.predict(rows) - expected).max() > 0.01


def test_infinite_values_and_what_float32_makes_infinite():
    X, y = table()
    booster = xgb.train({"max_depth": 4}, xgb.DMatrix(X, y), 4)
    test = np.array([[np.inf, -np.inf, 1e300, -1e300, 0.0], [-np.inf, np.inf, np.nan, 0.0, 1e39]])
    assert_agrees(as_ensemble(booster).predict(test), booster.inplace_predict(test))


def test_no_rounds_and_zero_weights():
    X, y = table()
    empty = xgb.train({"base_score": 0.7}, xgb.DMatrix(X, y), 0)
    np.testing.assert_allclose(as_ensemble(empty).predict(X), 0.7, rtol=1e-7)
    data = xgb.DMatrix(X, y, weight=(np.arange(300) % 2).astype(float))
    weighted = xgb.train({"max_depth": 5, "min_child_weight": 0}, data, 5)
    assert_agrees(as_ensemble(weighted).predict(X), weighted.predict(data))


def test_loaded_from_every_format(tmp_path):
    X, y = table()
    booster = xgb.train({"max_depth": 3}, xgb.DMatrix(X, y), 5)
    for suffix in ("json", "ubj"):
        booster.save_model(tmp_path / f"model.{suffix}")
        again = xgb.Booster(model_file=tmp_path / f"model.{suffix}")
        np.testing.assert_array_equal(
            as_ensemble(again).predict(X), as_ensemble(booster).predict(X)
        )


def test_base_score_of_older_versions():
    X, y = table()
    stored = json.loads(xgb.train({"base_score": 0.5}, xgb.DMatrix(X, y), 2).save_raw("json"))
    new = TreeEnsemble.from_raw(read_json(stored)).predict(X)
    stored["learner"]["learner_model_param"]["base_score"] = "5E-1"
    del stored["learner"]["gradient_booster"]["model"]["iteration_indptr"]
    np.testing.assert_array_equal(TreeEnsemble.from_raw(read_json(stored)).predict(X), new)


def test_refusals():
    X, y = table()
    with pytest.raises(UnsupportedModelError, match="gblinear"):
        as_ensemble(xgb.train({"booster": "gblinear"}, xgb.DMatrix(X, y), 2))
    with pytest.raises(
        ValueError, match="model: expected a fitted model, got XGBRegressor that was not fitted"
    ):
        as_ensemble(xgb.XGBRegressor())
    with pytest.raises(ValueError, match="model"):
        as_ensemble(xgb.Booster())
    booster = xgb.train({}, xgb.DMatrix(X, y), 2)
    with pytest.raises(ValueError, match="iteration_range"):
        TreeEnsemble.from_model(booster, iteration_range=(1, 5))
    ensemble = as_ensemble(booster)
    with pytest.raises(ValueError, match="X: expected 5 columns, got 4"):
        ensemble.predict(X[:, :4])
    with pytest.raises(TypeError, match="X: expected a numeric table"):
        ensemble.predict([["a"] * 5])


def test_a_reader_that_misreads_would_be_noticed(monkeypatch):
    X, y = table()
    booster = xgb.train(
        {"objective": "binary:logistic", "base_score": 0.2}, xgb.DMatrix(X, y > -1), 2
    )
    monkeypatch.setattr("shaplab.trees.readers._xgboost._margin", lambda base, objective: base)
    with pytest.raises(ValueError, match="for a row of missing values"):
        as_ensemble(booster)


def damage(stored, what):
    stored = copy.deepcopy(stored)
    tree = stored["learner"]["gradient_booster"]["model"]["trees"][0]
    leaf = tree["left_children"].index(-1)
    if what == "cycle":
        tree["left_children"][1] = 0
    elif what == "outside":
        tree["left_children"][0] = 10**6
    elif what == "negative right":
        tree["right_children"][0] = -5
    elif what == "feature":
        tree["split_indices"][0] = 99
    elif what == "short":
        tree["sum_hessian"] = tree["sum_hessian"][:-1]
    elif what == "nan leaf":
        tree["split_conditions"][leaf] = float("nan")
    elif what == "no trees":
        del stored["learner"]["gradient_booster"]["model"]["trees"]
    elif what == "objective":
        stored["learner"]["objective"]["name"] = "my:own"
    elif what == "base":
        stored["learner"]["learner_model_param"]["base_score"] = "[abc]"
    elif what == "group":
        stored["learner"]["gradient_booster"]["model"]["tree_info"][0] = 7
    return stored


@pytest.mark.parametrize(
    "what",
    [
        "cycle",
        "outside",
        "negative right",
        "feature",
        "short",
        "nan leaf",
        "no trees",
        "objective",
        "base",
        "group",
    ],
)
def test_damaged_models_are_refused(what):
    class Booster:  # what the reader sees of a Booster
        __module__ = "xgboost.core"

        def save_raw(self, raw_format):
            return bytearray(json.dumps(damage(stored, what)).encode())

    X, y = table()
    stored = json.loads(xgb.train({"max_depth": 3}, xgb.DMatrix(X, y), 2).save_raw("json"))
    with pytest.raises(ValueError, match="model"):
        as_ensemble(Booster())
