"""Groups of features as players of the tree functions.

Oracle: enumeration of the grouped game through the ensemble's own outputs.
"""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import random_ensemble, random_rows
from properties import examples

import shaplab
from shaplab import (
    BackgroundTrees,
    exact_shap,
    interventional_tree_shap,
    interventional_tree_shap_interactions,
    path_dependent_game,
    shapley_values,
    tree_loss_shap,
    tree_output_shap,
    tree_shap,
    tree_shap_interactions,
)
from shaplab.foundations.games import GroupedGame
from shaplab.foundations.predictions import MarginalGame

TIGHT = 1e-12  # sums of at most some hundred numbers of order 1 in float64


def random_groups(rng, d):
    """A partition of d features into at least two groups, as lists."""
    label = rng.integers(0, max(2, d // 2), size=d)
    label[0], label[1] = 0, 1
    groups = [np.flatnonzero(label == g).tolist() for g in np.unique(label)]
    return [groups[i] for i in rng.permutation(len(groups))]


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 2]))
@examples(20)
def test_interventional_values_are_those_of_the_grouped_game(seed, outputs):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=6, depth=5, outputs=outputs)
    X, background = random_rows(rng, e, 4), random_rows(rng, e, 7)
    groups = random_groups(rng, 6)
    exact = exact_shap(e.predict, X, background, groups=groups)
    for route in ("auto", "tables", "patterns"):
        found = interventional_tree_shap(e, X, background, groups=groups, route=route)
        np.testing.assert_allclose(found.values, exact.values, atol=TIGHT)
        np.testing.assert_allclose(found.base_values, exact.base_values, atol=TIGHT)
    prepared = pickle.loads(pickle.dumps(BackgroundTrees(e, background, groups=groups)))
    np.testing.assert_allclose(prepared(X).values, exact.values, atol=TIGHT)


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 2]))
@examples(20)
def test_path_dependent_values_are_those_of_the_grouped_game(seed, outputs):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=6, depth=5, outputs=outputs)
    X = random_rows(rng, e, 4)
    groups = random_groups(rng, 6)
    game = GroupedGame(path_dependent_game(e, X), groups)
    exact = np.moveaxis(shapley_values(game, len(groups)), 0, 1)
    for route in ("auto", "tables", "walk"):
        found = tree_shap(e, X, groups=groups, route=route)
        np.testing.assert_allclose(found.values, exact, atol=TIGHT)
    whole = tree_shap(e, X)
    np.testing.assert_allclose(found.values.sum(1), whole.values.sum(1), atol=TIGHT)


@given(st.integers(0, 2**32 - 1))
@examples(12)
def test_interactions_are_those_of_the_grouped_game(seed):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=6, depth=5)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 5)
    groups = random_groups(rng, 6)
    count = len(groups)
    by_paths = GroupedGame(path_dependent_game(e, X), groups)
    exact = np.moveaxis(shaplab.interaction_values(by_paths, count), -1, 0)
    for route in ("tables", "walk"):
        found = tree_shap_interactions(e, X, groups=groups, route=route)
        np.testing.assert_allclose(found.values, exact, atol=TIGHT)
    by_rows = MarginalGame(e.predict, X, background, groups=groups)
    exact = np.moveaxis(shaplab.interaction_values(by_rows, count), -1, 0)
    for route in ("tables", "patterns"):
        found = interventional_tree_shap_interactions(e, X, background, groups=groups, route=route)
        np.testing.assert_allclose(found.values, exact, atol=TIGHT)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["loss_of_mean", "mean_of_loss"]))
@examples(10)
def test_losses_are_those_of_the_grouped_game(seed, game):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=6, depth=4)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 5)
    y = rng.integers(0, 2, size=3)
    groups = random_groups(rng, 6)
    found = tree_loss_shap(e, X, y, background, loss="logistic", game=game, groups=groups)
    make = {
        "loss_of_mean": shaplab.LossOfMean,
        "mean_of_loss": shaplab.MeanLoss,
    }[game]
    marginal = MarginalGame(e.predict, X, background, groups=groups)
    grouped = make(marginal, y, "logistic")
    exact = np.moveaxis(shapley_values(grouped, len(groups)), 0, 1)
    np.testing.assert_allclose(found.values, exact, atol=1e-11)
    rescaled = tree_loss_shap(
        e, X, y, background, loss="logistic", game="rescaled_margin", groups=groups
    )
    np.testing.assert_allclose(rescaled.prediction, found.prediction, atol=1e-11)
    square = tree_loss_shap(
        e, X, y, background, loss="squared_error", game="rescaled_margin", groups=groups
    )
    assert square.values.shape == (3, len(groups))
    assert np.abs(square.gap((e.predict(X) - y) ** 2)).max() < 1e-11
    one = tree_output_shap(e, X, background, transform=np.tanh, groups=groups)
    direct = exact_shap(lambda rows: np.tanh(e.predict(rows)), X, background, groups=groups)
    np.testing.assert_allclose(one.values, direct.values, atol=1e-11)


def test_long_paths_take_groups_on_every_route():
    rng = np.random.default_rng(3)
    e = random_ensemble(rng, trees=1, d=30, depth=30, chain=True)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 6)
    groups = [list(range(g, 30, 5)) for g in range(5)]
    exact = exact_shap(e.predict, X, background, groups=groups)
    for route in ("tables", "patterns"):
        found = interventional_tree_shap(e, X, background, groups=groups, route=route)
        np.testing.assert_allclose(found.values, exact.values, atol=TIGHT)
    game = GroupedGame(path_dependent_game(e, X), groups)
    exact_paths = np.moveaxis(shapley_values(game, 5), 0, 1)
    for route in ("tables", "walk"):
        found = tree_shap(e, X, groups=groups, route=route)
        np.testing.assert_allclose(found.values, exact_paths, atol=TIGHT)


def test_a_group_is_not_the_sum_of_its_members():
    """A product of two features in one group and one outside: the group is one player of two."""

    def product(rows):
        return rows[:, 0] * rows[:, 1] * rows[:, 2]

    X, background = np.ones((1, 3)), np.zeros((1, 3))
    alone = exact_shap(product, X, background).values[0]
    grouped = exact_shap(product, X, background, groups=[[0, 1], [2]]).values[0]
    np.testing.assert_allclose(alone, 1 / 3)
    np.testing.assert_allclose(grouped, 1 / 2)


def test_groups_by_name_and_the_rest_alone():
    rng = np.random.default_rng(1)
    e = random_ensemble(rng, d=4)
    names = ["age", "city_a", "city_b", "income"]
    X = pd.DataFrame(random_rows(rng, e, 3), columns=names)
    background = pd.DataFrame(random_rows(rng, e, 5), columns=names)
    city = {"city": ["city_a", "city_b"]}
    whole = [[1, 2], [0], [3]]
    found = tree_shap(e, X, groups=city)
    assert found.feature_names == ("city", "age", "income")
    np.testing.assert_array_equal(found.values, tree_shap(e, X.to_numpy(), groups=whole).values)
    both = interventional_tree_shap(e, X, background.to_numpy(), groups=city)
    assert both.feature_names == ("city", "age", "income")
    again = interventional_tree_shap(e, X.to_numpy(), background, groups=city)
    np.testing.assert_array_equal(both.values, again.values)
    assert exact_shap(lambda rows: e.predict(rows), X, background, groups=city).feature_names == (
        "city",
        "age",
        "income",
    )
    assert found.data is None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([[0, 1]], "player 'x2'|player 2"),
        ([[0, 1], [1, 2, 3]], "2 times"),
        ({"a": ["nobody"]}, "nobody"),
        ({"a": [0], "b": [0]}, "2 times"),
        ([[0, 1, 2, 3], []], "non-empty"),
    ],
)
def test_bad_groups(groups, message):
    rng = np.random.default_rng(1)
    e = random_ensemble(rng, d=4)
    X = random_rows(rng, e, 3)
    with pytest.raises(ValueError, match=message):
        tree_shap(e, X, groups=groups)
    with pytest.raises(ValueError, match=message):
        interventional_tree_shap(e, X, X, groups=groups)


def test_groups_belong_to_what_prepares():
    rng = np.random.default_rng(1)
    e = random_ensemble(rng, d=4)
    X = random_rows(rng, e, 3)
    prepared = BackgroundTrees(e, X)
    with pytest.raises(ValueError, match="BackgroundTrees"):
        interventional_tree_shap(prepared, X, groups=[[0, 1], [2, 3]])


@given(st.integers(0, 2**32 - 1), st.sampled_from(["SII", "k-SII", "STII", "Moebius"]))
@examples(8)
def test_triples_are_those_of_the_grouped_game(seed, index):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=7, depth=5)
    X, background = random_rows(rng, e, 2), random_rows(rng, e, 4)
    groups = [[0, 4], [1], [2, 6], [3, 5]]
    games = (
        (GroupedGame(path_dependent_game(e, X), groups), tree_shap_interactions, ()),
        (
            MarginalGame(e.predict, X, background, groups=groups),
            interventional_tree_shap_interactions,
            (background,),
        ),
    )
    for game, explain, more in games:
        found = explain(e, X, *more, order=3, index=index, groups=groups)
        exact = shaplab.interaction_values(game, 4, order=3, index=index)
        for subset, value in zip(exact.subsets, exact.values, strict=True):
            own = found[subset] if subset in found.subsets else 0.0
            np.testing.assert_allclose(own, value, atol=TIGHT)
