"""CatBoost reader: predict equals the library's RawFormulaVal on every kind of model.

Chapter: trees/conditional_expectation."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import assert_agrees
from properties import examples
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

import shaplab
from shaplab import UnsupportedModelError, exact_shap
from shaplab.trees._links import prediction
from shaplab.trees._text_hash import signed_hash
from shaplab.trees.conditional_expectation import paper_trees
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.interactions import (
    interventional_tree_shap_interactions,
    tree_shap_interactions,
)
from shaplab.trees.interventional import interventional_tree_shap
from shaplab.trees.loss import cox_loss, tree_loss_shap, tree_output_shap
from shaplab.trees.path_dependent import tree_shap, tree_shap_literal

cat = pytest.importorskip("catboost")

# CatBoost sums leaves in float64 in the order of the trees, as we do: rounding remains, 1e-12, the
# default of assert_agrees.
BASE = {"verbose": 0, "thread_count": 1, "allow_writing_files": False, "random_seed": 1}
CATEGORIES = ["letter", "kind", "whole"]


def table(n=300, seed=0):
    """Numbers with gaps, a category of few values, one of many, and whole numbers."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "x": np.round(rng.normal(size=n), 1),
            "letter": rng.choice([*"xyz"], n),
            "unit price": rng.normal(size=n),
            "kind": rng.choice([f"sort {i} é" for i in range(20)], n),
            "whole": rng.integers(0, 4, n),
        }
    )
    X.loc[rng.random(n) < 0.1, "x"] = np.nan
    group = X["kind"].str[5:7].astype(int) % 3
    y = X["unit price"] + (X["letter"] == "x") * 2 + group + X["x"].fillna(1) + X["whole"]
    return X, y.to_numpy()


def strange(X):
    """The same table with categories that the training has not seen, infinities and ties."""
    X = X.copy()
    X.loc[::9, "letter"] = "new"
    X.loc[::7, "kind"] = ""
    X.loc[::4, "whole"] = 17
    X.loc[X.index[:2], "x"] = [np.inf, -np.inf]
    X.loc[::5, "unit price"] = 0.0
    return X


def train(X, y, parameters=None, **more):
    settings = BASE | {"iterations": 6, "depth": 4, "max_ctr_complexity": 1} | (parameters or {})
    columns = [name for name in CATEGORIES if name in getattr(X, "columns", ())]
    model = cat.CatBoost(settings)
    model.fit(cat.Pool(X, y, cat_features=columns or None, **more))
    return model


def raw(model, X):
    return model.predict(X, prediction_type="RawFormulaVal", thread_count=1)


TARGETS = {
    "RMSE": lambda y: y,
    "MAE": lambda y: y,
    "Quantile:alpha=0.3": lambda y: y,
    "MultiQuantile:alpha=0.2,0.8": lambda y: y,
    "Huber:delta=1": lambda y: y,
    "LogLinQuantile": np.abs,
    "RMSEWithUncertainty": lambda y: y,
    "Poisson": lambda y: np.floor(np.abs(y)),
    "Tweedie:variance_power=1.5": np.abs,
    "Cox": lambda y: np.exp(y / 4) * np.where(np.arange(len(y)) % 3, 1, -1),
    "SurvivalAft": lambda y: np.stack([np.exp(y / 4), np.exp(y / 4)], axis=1),
    "Logloss": lambda y: y > 3,
    "CrossEntropy": lambda y: 1 / (1 + np.exp(-y)),
    "Focal:focal_alpha=0.5;focal_gamma=2": lambda y: y > 3,
    "MultiClass": lambda y: np.digitize(y, [2, 4]),
    "MultiClassOneVsAll": lambda y: np.digitize(y, [2, 4]),
    "YetiRank": lambda y: np.clip(y, 0, 4) / 4,
    "QueryRMSE": lambda y: y,
    "QuerySoftMax": lambda y: y > 3,
    "PairLogit": lambda y: y,
}


@pytest.mark.parametrize("objective", TARGETS)
@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
def test_every_objective(objective, policy):
    X, y = table()
    ranks = objective.startswith(("YetiRank", "Query", "PairLogit"))
    more = {"group_id": np.repeat(np.arange(15), 20)} if ranks else {}
    target = np.asarray(TARGETS[objective](y), float)
    if objective.startswith("Pair"):  # pairs of neighbours, the larger one first
        first = np.arange(0, 300, 2)
        swap = (y[first] < y[first + 1])[:, None]
        more["pairs"] = np.where(swap, np.c_[first + 1, first], np.c_[first, first + 1])
    model = train(X, target, {"loss_function": objective, "grow_policy": policy}, **more)
    ensemble = as_ensemble(model)
    rows = strange(table(seed=1)[0])
    assert_agrees(ensemble.predict(rows), raw(model, rows))
    assert ensemble.objective == objective.partition(":")[0]
    change = prediction(ensemble.link, ensemble.link_factor)
    kind = {"logistic": "Probability", "softmax": "Probability", "exp": "Exponent"}
    if ensemble.link in kind:
        found = model.predict(rows, prediction_type=kind[ensemble.link])
        if objective in ("Logloss", "CrossEntropy") or objective.startswith("Focal"):
            found = found[:, 1]
        np.testing.assert_allclose(change.value(ensemble.predict(rows)), found, rtol=1e-9)


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
@pytest.mark.parametrize("nan_mode", ["Min", "Max"])
@pytest.mark.parametrize("one_hot", [2, 3, 255])
def test_missing_values_and_categories(policy, nan_mode, one_hot):
    X, y = table()
    settings = {"grow_policy": policy, "nan_mode": nan_mode, "one_hot_max_size": one_hot}
    for loss, target in (("RMSE", y), ("MultiClass", np.digitize(y, [2, 4]))):
        model = train(X, target, settings | {"loss_function": loss})
        ensemble = as_ensemble(model)
        assert (ensemble.set_start >= 0).any()
        for seed in (0, 1):
            rows = strange(table(seed=seed)[0])
            assert_agrees(ensemble.predict(rows), raw(model, rows))


@pytest.mark.parametrize(
    "statistic",
    [
        "Borders",
        "Buckets",
        "BinarizedTargetMeanValue",
        "Counter",
        "Borders:TargetBorderCount=3",
        "Buckets:TargetBorderCount=4",
        "Borders:Prior=0.3:Prior=0.7:CtrBorderCount=40",
    ],
)
@pytest.mark.parametrize("loss", ["RMSE", "MultiClass"])
def test_every_statistic_of_categories(statistic, loss):
    X, y = table()
    target = y if loss == "RMSE" else np.digitize(y, [2, 4])
    model = train(
        X, target, {"simple_ctr": [statistic], "loss_function": loss, "one_hot_max_size": 2}
    )
    ensemble = as_ensemble(model)
    assert (ensemble.set_start >= 0).any()
    rows = strange(table(seed=1)[0])
    assert_agrees(ensemble.predict(rows), raw(model, rows))


@given(st.integers(0, 2**32 - 1))
@examples(25)
def test_drawn_models(seed):
    rng = np.random.default_rng(seed)
    X, y = table(int(rng.integers(20, 400)), int(rng.integers(1000)))
    some = list(rng.permutation(X.columns)[: rng.integers(1, 6)])
    X = X[some]
    parameters = {
        "grow_policy": str(rng.choice(["SymmetricTree", "Depthwise", "Lossguide"])),
        "depth": int(rng.integers(1, 9)),
        "iterations": int(rng.integers(1, 20)),
        "one_hot_max_size": int(rng.choice([2, 4, 255])),
        "nan_mode": str(rng.choice(["Min", "Max"])),
        "l2_leaf_reg": float(rng.choice([0.1, 3.0])),
        "random_seed": int(rng.integers(1000)),
        "border_count": int(rng.choice([3, 254])),
    }
    weight = rng.integers(1, 4, len(X)) if rng.random() < 0.3 else None
    model = train(X, y, parameters, weight=weight)
    ensemble = as_ensemble(model)
    rows = table(50, seed % 1000)[0]
    rows = strange(rows)[some]
    assert_agrees(ensemble.predict(rows), raw(model, rows))
    literal = sum(
        tree_shap_literal(ensemble.encode(rows[2:3])[0], tree) for tree in paper_trees(ensemble)
    )
    found = tree_shap(model, rows[2:3])
    # The literal's UNWIND divides by shares of cover and loses some digits where they are small.
    np.testing.assert_allclose(found.values[0], literal, atol=1e-8)
    np.testing.assert_allclose(found.prediction, raw(model, rows[2:3]), atol=1e-10)
    background = rows[10:16]
    found = interventional_tree_shap(model, rows[:3], background)
    expected = exact_shap(lambda part: raw(model, part), rows[:3], background)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-10)
    np.testing.assert_allclose(found.base_values, expected.base_values, atol=1e-10)
    assert found.feature_names == tuple(some)


def test_interactions_losses_and_probabilities():
    X, y = table()
    label = (y > 3).astype(int)
    model = train(X, label, {"loss_function": "Logloss", "iterations": 4})
    rows, background = X[:4], X[10:16]
    both = tree_shap_interactions(model, rows)
    np.testing.assert_allclose(both.values.sum(2), tree_shap(model, rows).values, atol=1e-10)
    both = interventional_tree_shap_interactions(model, rows, background)
    found = interventional_tree_shap(model, rows, background)
    np.testing.assert_allclose(both.values.sum(2), found.values, atol=1e-10)

    def probability(part):
        return model.predict(part, prediction_type="Probability")[:, 1]

    found = tree_output_shap(model, rows, background)
    expected = exact_shap(probability, rows, background)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-9)
    for i in range(4):
        found = tree_loss_shap(
            model, rows[i : i + 1], label[i : i + 1], background, loss="logistic"
        )
        expected = exact_shap(
            lambda part, i=i: -np.log(np.abs(probability(part) - 1 + label[i])),
            rows[i : i + 1],
            background,
        )
        np.testing.assert_allclose(found.values, expected.values, atol=1e-9)


def test_the_loss_of_survival_times():
    X, y = table()
    times = np.exp(y / 4) * np.where(np.arange(300) % 3, 1, -1)  # negative: censored
    model = train(X, times, {"loss_function": "Cox"})
    found = tree_loss_shap(model, X, times, X[:40], loss="cox", game="mean_of_loss")
    margin = raw(model, X)
    own = cox_loss(margin, times).value(margin, np.arange(300))
    np.testing.assert_allclose(found.prediction, own, atol=1e-10)
    with pytest.raises(ValueError, match="loss: expected a loss of this model's outputs"):
        tree_loss_shap(train(X, y), X, times, X[:40], loss="cox")


def test_values_of_symmetric_trees_are_those_of_catboost():
    X, y = table()
    pool = cat.Pool(X, cat_features=CATEGORIES)
    for loss, target in (("RMSE", y), ("MultiClass", np.digitize(y, [2, 4]))):
        model = train(X, target, {"loss_function": loss, "depth": 6, "iterations": 20})
        theirs = model.get_feature_importance(pool, type="ShapValues", thread_count=1)
        theirs = np.moveaxis(theirs, 1, 2) if theirs.ndim == 3 else theirs
        found = tree_shap(model, X)
        np.testing.assert_allclose(found.values, theirs[:, :-1], atol=1e-10)
        np.testing.assert_allclose(found.base_values, theirs[:, -1], atol=1e-10)


def test_values_of_other_trees_are_those_of_catboost_as_long_as_no_path_asks_twice():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = X[:, 0] * X[:, 1] + (X[:, 2] > 0) + X[:, 0]
    for depth, adds_up in ((2, True), (6, False)):
        settings = {"grow_policy": "Depthwise", "depth": depth, "learning_rate": 1}
        model = train(X, y, settings | {"iterations": 1})
        theirs = model.get_feature_importance(cat.Pool(X), type="ShapValues", thread_count=1)
        found = tree_shap(model, X)
        np.testing.assert_allclose(found.prediction, raw(model, X), atol=1e-12)
        # CatBoost's own values of deeper trees do not add up to its prediction.
        assert (np.abs(theirs.sum(1) - raw(model, X)).max() < 1e-9) == adds_up
        if adds_up:
            np.testing.assert_allclose(found.values, theirs[:, :-1], atol=1e-12)


def test_several_targets():
    X, y = table()
    numbers = X[["x", "unit price"]]
    both = np.stack([y, X["unit price"] - y], axis=1)
    model = train(numbers, both, {"loss_function": "MultiRMSE"})
    assert_agrees(as_ensemble(model).predict(numbers), raw(model, numbers))
    labels = np.stack([y > 3, X["unit price"] > 0, y < 1], axis=1).astype(int)
    model = train(numbers, labels, {"loss_function": "MultiLogloss"})
    ensemble = as_ensemble(model)
    assert_agrees(ensemble.predict(numbers), raw(model, numbers))
    assert ensemble.output_names == ("0", "1", "2")
    with pytest.raises(UnsupportedModelError, match="Borders statistic of one of the targets"):
        as_ensemble(train(X, both, {"loss_function": "MultiRMSE"}))
    for remedy in ({"one_hot_max_size": 255}, {"simple_ctr": ["Counter"]}):
        model = train(X, both, {"loss_function": "MultiRMSE"} | remedy)
        rows = strange(X)
        assert_agrees(as_ensemble(model).predict(rows), raw(model, rows))


def test_sums_ranges_scales_and_loaded_models(tmp_path):
    X, y = table()
    first, second = train(X, y), train(X, -y, {"depth": 3})
    for weights in (None, [0.3, 0.7], [1, -2]):
        model = cat.sum_models([first, second], weights=weights)
        ensemble = as_ensemble(model)
        assert_agrees(ensemble.predict(X), raw(model, X))
        assert ensemble.link == ""  # the sum knows nothing of objectives
    for start, end in ((0, 3), (2, 5), (2, 0), (0, 6)):
        part = TreeEnsemble.from_model(first, iteration_range=(start, end))
        expected = first.predict(X, "RawFormulaVal", ntree_start=start, ntree_end=end or 6)
        assert_agrees(part.predict(X), expected)
    for end in (3, 9):
        with pytest.raises(ValueError, match="iteration_range: expected rounds within 0 to 6"):
            TreeEnsemble.from_model(first, iteration_range=(4, end))
    first.set_scale_and_bias(2.0, 3.0)
    assert_agrees(as_ensemble(first).predict(X), raw(first, X))
    for layout in ("cbm", "json"):
        path = str(tmp_path / f"model.{layout}")
        second.save_model(path, format=layout)
        again = cat.CatBoost().load_model(path, format=layout)
        assert_agrees(as_ensemble(again).predict(X), raw(second, X))
        assert as_ensemble(again).feature_names == tuple(X.columns)
    second.shrink(2)
    assert as_ensemble(second).n_trees == 2
    ensemble = pickle.loads(pickle.dumps(as_ensemble(second)))
    assert_agrees(ensemble.predict(X), raw(second, X))


def test_best_round():
    X, y = table()
    numbers = X[["x", "unit price"]]
    model = cat.CatBoostRegressor(**BASE, iterations=300, learning_rate=0.5)
    model.fit(numbers[:200], y[:200], eval_set=(numbers[200:], y[200:]), early_stopping_rounds=3)
    assert as_ensemble(model).n_trees == model.tree_count_ < 300
    assert_agrees(as_ensemble(model).predict(numbers), model.predict(numbers))


def test_names_of_classes_and_columns():
    X, y = table()
    names = np.array(["low", "middle", "high"])[np.digitize(y, [2, 4])]
    model = cat.CatBoostClassifier(
        **BASE, iterations=3, cat_features=CATEGORIES, max_ctr_complexity=1
    ).fit(X, names)
    found = tree_shap(model, X[:3])
    assert found.output_names == tuple(model.classes_)
    assert found.feature_names == tuple(X.columns)
    with pytest.raises(ValueError, match="the columns the model was fitted on"):
        tree_shap(model, X[X.columns[::-1]])
    numbers = X[["x", "unit price"]]
    plain = train(numbers.to_numpy(), y)
    assert tree_shap(plain, numbers[:3]).feature_names == ("x", "unit price")


def test_a_ranker_and_a_level_that_asks_the_same_everywhere():
    X, y = table()
    ranker = cat.CatBoostRanker(
        **BASE, iterations=3, cat_features=CATEGORIES, max_ctr_complexity=1
    ).fit(X, y, group_id=np.repeat(np.arange(15), 20))
    ensemble = as_ensemble(ranker)
    assert_agrees(ensemble.predict(X), ranker.predict(X))
    assert ensemble.link == "identity"
    # One set for each split, not for each of the up to 32 nodes that ask it.
    starts = ensemble.set_start[ensemble.set_start >= 0]
    assert len(np.unique(starts)) < len(starts) / 2


@pytest.mark.parametrize(
    "layout", ["frame", "objects", "lists", "categorical", "polars", "strings", "bytes"]
)
def test_layouts_of_the_table(layout):
    X, y = table()
    ensemble = as_ensemble(model := train(X, y))
    expected = raw(model, X)
    rows = X
    if layout == "objects":
        rows = X.astype(object).to_numpy()
    if layout == "lists":
        rows = X.astype(object).to_numpy().tolist()
    if layout == "categorical":
        rows = X.astype({"letter": "category", "kind": "category", "whole": "category"})
        rows["letter"] = rows["letter"].cat.add_categories("unused")
    if layout == "polars":
        rows = polars.DataFrame({name: X[name].to_list() for name in X})
        rows = rows.with_columns(polars.col("letter").cast(polars.Categorical))
        rows = rows.with_columns(polars.col("x").fill_nan(None))
    if layout == "strings":
        rows = X.assign(whole=X["whole"].astype(str))
    if layout == "bytes":
        rows = X.assign(letter=[letter.encode() for letter in X["letter"]])
    assert_agrees(ensemble.predict(rows), expected)


@pytest.mark.parametrize("cell", [None, np.nan, 1.0, pd.NA, pd.NaT, pd.Timestamp("2020-01-01")])
def test_cells_that_catboost_takes_for_no_category(cell):
    X, y = table()
    ensemble = as_ensemble(model := train(X, y))
    rows = X[:5].astype({"whole": object})
    rows.loc[1, "whole"] = True  # the same as 1, and so must not hide 1.0
    rows.loc[2, "whole"] = 1
    assert_agrees(ensemble.predict(rows), raw(model, rows))
    rows["whole"] = [*rows["whole"][:3], cell, 2]
    with pytest.raises(Exception, match=r"cat_features must be|must be real number|must be a"):
        raw(model, rows)
    with pytest.raises(ValueError, match="text or whole numbers in the categorical column 'whole'"):
        ensemble.predict(rows)
    with pytest.raises(ValueError, match="text or whole numbers in the categorical column"):
        ensemble.predict(X[:5].assign(kind=pd.Categorical(["a", None, "a", "a", "a"])))
    with pytest.raises(ValueError, match="text or whole numbers in the categorical column"):
        ensemble.predict(np.zeros((3, 5)))


def test_the_hash_of_a_text_is_catboosts():
    rng = np.random.default_rng(0)
    for lengths in (range(50), range(50, 100), range(100, 150), (255, 256, 257, 1000)):
        texts = ["".join(rng.choice([*"abcXYZ 0189_-é漢ÿ"], size)) for size in lengths]
        X = pd.DataFrame({"kind": np.repeat(np.array(texts, object), 20)})
        y = np.repeat(rng.normal(size=len(texts)), 20)
        settings = {"one_hot_max_size": 255, "depth": 1, "iterations": 300, "learning_rate": 0.9}
        model = train(X, y, settings | {"random_strength": 0})
        known = set(as_ensemble(model).encoder.labels[0])
        assert known == {signed_hash(text.encode()) for text in texts}


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    X, y = table()
    model = train(X, y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tree_shap(model, X[:2])
    assert list(tmp_path.iterdir()) == []


def test_refusals_and_their_remedies():
    rng = np.random.default_rng(0)
    n = 1500
    X = pd.DataFrame(
        {
            name: rng.choice([*letters], n)
            for name, letters in (("letter", "abcdef"), ("kind", "uvwxyz"))
        }
    ).assign(x=rng.normal(size=n))
    y = X["x"] + (X["letter"] + X["kind"]).isin(["av", "bu", "cw", "dx"]) * 3.0
    model = train(X, y, {"max_ctr_complexity": 4, "iterations": 60})
    with pytest.raises(
        UnsupportedModelError, match=r"a split on '\w+' and '\w+' together"
    ) as caught:
        tree_shap(model, X)
    assert "Fit with max_ctr_complexity=1, or sample: permutation_shap(model.predict, X" in str(
        caught.value
    )
    sampled = shaplab.permutation_shap(model.predict, X[:2], X[5:9], max_evaluations=2000)
    exact = exact_shap(model.predict, X[:2], X[5:9])
    assert (np.abs(sampled.values - exact.values) <= 6 * sampled.std + 1e-9).all()  # two rows
    assert np.isfinite(tree_shap(train(X, y), X[:2]).values).all()

    texts = pd.DataFrame({"words": ["a b c", "b c d"] * 50, "x": rng.normal(size=100)})
    classifier = cat.CatBoostClassifier(**BASE, iterations=3, text_features=["words"])
    with pytest.raises(UnsupportedModelError, match="text or embeddings in words"):
        as_ensemble(classifier.fit(texts, [0, 1] * 50))
    with pytest.raises(ValueError, match="a fitted model, got CatBoostRegressor that was not"):
        as_ensemble(cat.CatBoostRegressor())
    skipped = train(X, y, {"final_ctr_computation_mode": "Skip"})
    with pytest.raises(ValueError, match="final_ctr_computation_mode='Default'"):
        as_ensemble(skipped)
    with pytest.raises(ValueError, match="missing: expected None for CatBoost"):
        TreeEnsemble.from_model(train(X, y), missing=0.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored.pop("features_info"),
        lambda stored: stored.pop("oblivious_trees"),
        lambda stored: stored["oblivious_trees"][0]["splits"][0].update(split_index=99),
        lambda stored: stored["oblivious_trees"][0]["leaf_values"].pop(),
        lambda stored: stored["oblivious_trees"][0].pop("leaf_weights"),
        lambda stored: stored["ctr_data"].clear(),
        lambda stored: stored["features_info"]["ctrs"][0].update(ctr_type="Other"),
        lambda stored: stored.update(scale_and_bias=[1, [7.0]]),
    ],
)
def test_damaged_models_are_refused(change, monkeypatch):
    X, y = table()
    model = train(X, y)
    save = cat.CatBoost.save_model

    def changed(self, path, format):
        save(self, path, format=format)
        with open(path, encoding="utf-8") as file:
            stored = json.load(file)
        change(stored)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(stored, file)

    monkeypatch.setattr(cat.CatBoost, "save_model", changed)
    with pytest.raises(ValueError, match="model: expected"):
        as_ensemble(model)


def test_at_the_end_of_a_pipeline():
    X, y = table()
    before = make_column_transformer(
        (SimpleImputer(add_indicator=True), ["x"]), remainder="passthrough"
    )
    # After the imputed column and its indicator: letter, unit price, kind, whole.
    model = cat.CatBoostRegressor(
        **BASE, iterations=5, cat_features=[2, 4, 5], max_ctr_complexity=1
    )
    pipeline = make_pipeline(before, model).fit(X, y)
    rows, background = strange(X)[2:5], X[10:16]
    found = interventional_tree_shap(pipeline, rows, background)
    expected = exact_shap(pipeline.predict, rows, background)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-10)
    assert found.feature_names == tuple(X.columns)
