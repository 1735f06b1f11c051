"""Families of features in the tree functions: Owen and Winter values.

Oracle: ``owen_values``, which is tested against its story, over enumerated games.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import random_ensemble, random_rows
from properties import examples

import shaplab
from shaplab import (
    BackgroundTrees,
    PreparedTrees,
    interventional_tree_shap,
    owen_values,
    path_dependent_game,
    tree_loss_shap,
    tree_output_shap,
    tree_shap,
    tree_shap_interactions,
)
from shaplab.foundations.games import GroupedGame
from shaplab.foundations.predictions import MarginalGame

TIGHT = 1e-12  # sums of at most some hundred numbers of order 1 in float64


def random_unions(rng, players, level=0):
    """Nested lists of players: some alone, some in families, some of these in families again."""
    players = list(rng.permutation(players))
    cuts = np.sort(rng.choice(np.arange(1, len(players)), min(2, len(players) - 1), replace=False))
    found = []
    for part in np.split(np.array(players), cuts):
        if len(part) == 1 and rng.random() < 0.5:
            found.append(int(part[0]))
        elif len(part) > 2 and level < 2 and rng.random() < 0.5:
            found.append(random_unions(rng, part, level + 1))
        else:
            found.append([int(player) for player in part])
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 2]))
@examples(20)
def test_path_dependent_values_are_those_of_the_game(seed, outputs):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=6, depth=6, outputs=outputs)
    X = random_rows(rng, e, 4)
    unions = random_unions(rng, range(6))
    exact = np.moveaxis(owen_values(path_dependent_game(e, X), unions), 0, 1)
    found = tree_shap(e, X, unions=unions)
    np.testing.assert_allclose(found.values, exact, atol=TIGHT)
    np.testing.assert_allclose(found.gap(e.predict(X)), 0, atol=TIGHT)
    assert found.data is not None
    prepared = pickle.loads(pickle.dumps(PreparedTrees(e, unions=unions)))
    np.testing.assert_array_equal(prepared(X).values, found.values)


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 2]))
@examples(20)
def test_interventional_values_are_those_of_the_game(seed, outputs):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=6, depth=6, outputs=outputs)
    X, background = random_rows(rng, e, 4), random_rows(rng, e, 7)
    weights = rng.random(7)
    unions = random_unions(rng, range(6))
    game = MarginalGame(e.predict, X, background, weights=weights)
    exact = np.moveaxis(owen_values(game, unions), 0, 1)
    found = interventional_tree_shap(e, X, background, weights=weights, unions=unions)
    np.testing.assert_allclose(found.values, exact, atol=TIGHT)
    np.testing.assert_allclose(found.gap(e.predict(X)), 0, atol=TIGHT)
    prepared = BackgroundTrees(e, background, weights=weights, unions=unions)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(prepared))(X).values, found.values)


@given(st.integers(0, 2**32 - 1))
@examples(10)
def test_groups_may_stand_in_families(seed):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=7, depth=5)
    X = random_rows(rng, e, 3)
    groups = {"a": [0, 3], "b": [1], "c": [2, 6], "d": [4, 5]}
    unions = [["a", "c"], ["b"], "d"]
    game = GroupedGame(path_dependent_game(e, X), list(groups.values()))
    exact = np.moveaxis(owen_values(game, unions, names=list(groups)), 0, 1)
    found = tree_shap(e, X, groups=groups, unions=unions)
    np.testing.assert_allclose(found.values, exact, atol=TIGHT)
    assert found.feature_names == ("a", "b", "c", "d")


@given(st.integers(0, 2**32 - 1))
@examples(10)
def test_losses_are_those_of_the_game(seed):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=6, depth=4)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 5)
    y = rng.normal(size=3)
    unions = random_unions(rng, range(6))
    game = MarginalGame(e.predict, X, background)
    wholes = {"loss_of_mean": shaplab.LossOfMean, "mean_of_loss": shaplab.MeanLoss}
    for name, make in wholes.items():
        exact = np.moveaxis(owen_values(make(game, y, "squared_error"), unions), 0, 1)
        found = tree_loss_shap(e, X, y, background, loss="squared_error", game=name, unions=unions)
        np.testing.assert_allclose(found.values, exact, atol=10 * TIGHT)
    # For one reference, rescaling is the secant times the values against it.
    for loss, target in (("squared_error", y), ("logistic", (y > 0).astype(int))):
        options = {"loss": loss, "game": "rescaled_margin", "unions": unions}
        found = tree_loss_shap(e, X, target, background[:1], **options).values
        each = interventional_tree_shap(e, X, background[:1], unions=unions).values
        whole = each.sum(axis=1, keepdims=True)
        scaled = np.divide(each, whole, out=np.zeros_like(each), where=np.abs(whole) > 1e-9)
        expected = scaled * found.sum(axis=1, keepdims=True)
        clear = np.abs(whole[:, 0]) > 1e-3  # else the quotient has no digits
        np.testing.assert_allclose(found[clear], expected[clear], atol=1e-9)


def test_a_probability_is_shared_among_families_too():
    rng = np.random.default_rng(0)
    e = random_ensemble(rng, d=5, depth=4)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 5)
    unions = [[0, 1], [2, [3, 4]]]
    found = tree_output_shap(e, X, background, unions=unions)

    def probability(rows):
        return 1.0 / (1.0 + np.exp(-e.predict(rows)))

    exact = np.moveaxis(owen_values(MarginalGame(probability, X, background), unions), 0, 1)
    np.testing.assert_allclose(found.values, exact, atol=TIGHT)


def test_flat_lists_and_lists_of_one_are_no_families():
    rng = np.random.default_rng(1)
    e = random_ensemble(rng, d=6, depth=7)
    X, background = random_rows(rng, e, 5), random_rows(rng, e, 6)
    for unions in (
        list(range(6)),
        [[i] for i in range(6)],
        [list(range(6))],
        [[[0]], 1, 2, 3, 4, 5],
    ):
        paths = tree_shap(e, X, unions=unions).values
        np.testing.assert_allclose(paths, tree_shap(e, X).values, atol=TIGHT)
        rows = interventional_tree_shap(e, X, background, unions=unions).values
        plain = interventional_tree_shap(e, X, background).values
        np.testing.assert_allclose(rows, plain, atol=TIGHT)


def test_long_paths():
    rng = np.random.default_rng(2)
    e = random_ensemble(rng, trees=2, d=90, depth=120, chain=True)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 4)
    order = rng.permutation(90).tolist()
    # Values of a family sum to its value as one player, whatever its members do inside.
    unions = [order[:30], [order[30:50], order[50:60]], order[60:]]
    groups = [order[:30], order[30:60], order[60:]]
    for found, whole in (
        (tree_shap(e, X, unions=unions), tree_shap(e, X, groups=groups)),
        (
            interventional_tree_shap(e, X, background, unions=unions),
            interventional_tree_shap(e, X, background, groups=groups),
        ),
    ):
        sums = np.stack([found.values[:, group].sum(axis=1) for group in groups], axis=1)
        np.testing.assert_allclose(sums, whole.values, atol=1e-11)
        np.testing.assert_allclose(found.gap(e.predict(X)), 0, atol=1e-11)


@pytest.mark.parametrize("function", [tree_shap, tree_shap_interactions])
def test_covers_below_zero_follow_the_same_formula(function):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        e = random_ensemble(rng, d=4, depth=5)
        odd = shaplab.TreeEnsemble(
            **{
                name: getattr(e, name)
                for name in e.__dataclass_fields__
                if name not in ("cover", "link", "link_factor")
            },
            cover=e.cover * rng.choice([-0.3, 1.0, 2.0], size=len(e.cover)),
        )
        X = random_rows(rng, e, 3)
        game = path_dependent_game(odd, X)
        if function is tree_shap:
            unions = random_unions(rng, range(4))
            exact = np.moveaxis(owen_values(game, unions), 0, 1)
            np.testing.assert_allclose(function(odd, X, unions=unions).values, exact, atol=1e-10)
            continue
        exact = shaplab.interaction_values(game, 4, order=3, index="SII")
        found = function(odd, X, order=3, index="SII")
        for players in found.subsets:
            np.testing.assert_allclose(found[players], exact[players], atol=1e-10)


def test_batches_and_threads_change_nothing():
    rng = np.random.default_rng(3)
    e = random_ensemble(rng, d=6, depth=6, trees=5)
    X = random_rows(rng, e, 2500)
    unions = [[0, 1, 2], [3, [4, 5]]]
    one = tree_shap(e, X, unions=unions).values
    np.testing.assert_array_equal(tree_shap(e, X, unions=unions, n_jobs=2).values, one)
    # Rows are grouped by pattern within a batch; the sums of a pattern do not depend on that.
    np.testing.assert_array_equal(
        tree_shap(e, X, unions=unions, batch_size=7).values[:70], one[:70]
    )


@pytest.mark.parametrize(
    ("unions", "message"),
    [
        ([[0, 1], [1, 2, 3]], "unions: expected each of 4 players once, got player 1 twice"),
        ([[0, 1], [3]], "unions: expected each of 4 players once, got no player 2"),
        ([[0, 1], [2, 3, 9]], "unions: expected each of 4 players once"),
        ([["a", "b"], [2, 3]], "unions: expected numbers of players"),
        ("abc", "unions: expected a list of lists of players"),
        ([], "unions: expected a list of lists of players"),
    ],
)
def test_bad_unions_are_named(unions, message):
    e = random_ensemble(np.random.default_rng(4), d=4)
    X = random_rows(np.random.default_rng(5), e, 3)
    for call in (
        lambda: tree_shap(e, X, unions=unions),
        lambda: interventional_tree_shap(e, X, X, unions=unions),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


def test_what_does_not_go_with_unions():
    e = random_ensemble(np.random.default_rng(4), d=4)
    X = random_rows(np.random.default_rng(5), e, 3)
    unions = [[0, 1], [2, 3]]
    with pytest.raises(ValueError, match="route: expected 'auto' beside unions"):
        tree_shap(e, X, unions=unions, route="walk")
    with pytest.raises(ValueError, match="unions: expected nothing beside interactions"):
        PreparedTrees(e, interactions=True, unions=unions)
    with pytest.raises(ValueError, match="model: expected the model itself beside"):
        interventional_tree_shap(BackgroundTrees(e, X), X, unions=unions)


def test_families_of_a_pipelines_columns():
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(7)
    table = pd.DataFrame(rng.normal(size=(200, 3)), columns=["a", "b", "c"])
    table["kind"] = rng.choice(["red", "green", "blue"], size=200)
    y = table["a"] * (table["kind"] == "red") + table["b"]
    steps = make_column_transformer(
        (OneHotEncoder(), ["kind"]), (StandardScaler(), ["a", "b", "c"])
    )
    forest = RandomForestRegressor(10, max_depth=5, random_state=0, n_jobs=1)
    model = make_pipeline(steps, forest).fit(table, y)
    rows, others = table.iloc[:4], table.iloc[50:60]
    unions = [["a", "kind"], ["b", "c"]]
    game = MarginalGame(model.predict, rows, others)
    exact = np.moveaxis(owen_values(game, unions, names=list(table)), 0, 1)
    found = interventional_tree_shap(model, rows, others, unions=unions)
    np.testing.assert_allclose(found.values, exact, atol=TIGHT)
    prepared = PreparedTrees(model, unions=unions)
    direct = tree_shap(model, rows, unions=unions)
    np.testing.assert_array_equal(prepared(rows).values, direct.values)
    assert prepared(rows).feature_names == direct.feature_names == tuple(table)
    plain = tree_shap(model, rows)
    np.testing.assert_allclose(PreparedTrees(model)(rows).values, plain.values, atol=TIGHT)
    np.testing.assert_allclose(plain.values.sum(1), direct.values.sum(1), atol=TIGHT)
