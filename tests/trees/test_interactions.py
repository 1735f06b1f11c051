from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import brute, marginal_game, random_ensemble, random_rows
from properties import examples

from shaplab.foundations.interactions import interaction_values
from shaplab.foundations.predictions import MarginalGame
from shaplab.trees import interactions as it
from shaplab.trees.conditional_expectation import (
    exp_value_literal,
    paper_trees,
    path_dependent_game,
)
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.interventional import BackgroundTrees, interventional_tree_shap
from shaplab.trees.path_dependent import tree_shap

TIGHT = 1e-11  # sums of at most a few hundred leaf values of order 1 in float64


def assert_all_agree(seed):
    """Both games, all routes = two runs of the literal algorithms = Equations 15-18 by brute
    force."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 5))
    e = random_ensemble(
        rng,
        trees=int(rng.integers(1, 3)),
        d=d,
        depth=int(rng.integers(1, 6)),
        outputs=None if rng.random() < 0.6 else 2,
        chain=rng.random() < 0.2,
    )
    X, background = random_rows(rng, e, 2), random_rows(rng, e, 3)
    trees, references = list(paper_trees(e)), e.encode(background)
    ours = {
        route: it.tree_shap_interactions(e, X, route=route).values
        for route in ("tables", "walk", "auto")
    }
    theirs = {
        route: it.interventional_tree_shap_interactions(e, X, background, route=route).values
        for route in ("tables", "patterns", "auto")
    }
    for n, x in enumerate(e.encode(X)):
        _, expected = brute(lambda S: sum(exp_value_literal(x, S, t) for t in trees), d)  # noqa: B023
        literal = sum(it.interactions_literal(x, t) for t in trees)
        np.testing.assert_allclose(literal.reshape(expected.shape), expected, atol=TIGHT)
        for route, values in ours.items():
            np.testing.assert_allclose(values[n], expected, atol=TIGHT, err_msg=route)
        _, expected = brute(marginal_game(e, X[n], background), d)
        literal = sum(it.interventional_interactions_literal(x, references, t) for t in trees)
        np.testing.assert_allclose(literal.reshape(expected.shape), expected, atol=TIGHT)
        for route, values in theirs.items():
            np.testing.assert_allclose(values[n], expected, atol=TIGHT, err_msg=route)


@given(st.integers(0, 2**32 - 1))
@examples(25)
def test_fast_is_literal_is_brute_force(seed):
    assert_all_agree(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_a_thousand_random_models(block):
    for seed in range(100):
        assert_all_agree(30_000 + 100 * block + seed)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
@examples(15)
def test_symmetric_with_rows_that_sum_to_the_values(seed, depth):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, trees=3, d=int(rng.integers(2, 25)), depth=depth, chain=depth > 7)
    X, background = random_rows(rng, e, 5), random_rows(rng, e, 6)
    for found, values in [
        (it.tree_shap_interactions(e, X), tree_shap(e, X)),
        (
            it.interventional_tree_shap_interactions(e, X, background),
            interventional_tree_shap(e, X, background),
        ),
    ]:
        np.testing.assert_array_equal(found.values, found.values.swapaxes(1, 2))
        np.testing.assert_allclose(found.values.sum(axis=2), values.values, atol=1e-9)
        np.testing.assert_allclose(
            found.gap(e.predict(X)), 0, atol=1e-9
        )  # the long rule's error is 1e-11 a leaf
        assert found.interaction


def test_a_product_of_two_features_by_hand():
    both = TreeEnsemble.from_arrays(
        [0, -1, 1, -1, -1],
        [0.5, 0, 0.5, 0, 0],
        [1, -1, 3, -1, -1],
        [2, -1, 4, -1, -1],
        [0, 0, 0, 0, 1.0],
    )
    X, background = [[1.0, 1.0]], [[0.0, 0.0]]
    # v is 1 with both and 0 otherwise: the interaction is 1, half of it in each half of the matrix.
    np.testing.assert_allclose(
        it.interventional_tree_shap_interactions(both, X, background).values,
        [[[0, 0.5], [0.5, 0]]],
        atol=1e-15,
    )


def test_threads_change_nothing_and_prepared_models_agree():
    rng = np.random.default_rng(5)
    e = random_ensemble(rng, trees=10, d=7, depth=6, outputs=2)
    X, background = random_rows(rng, e, 700), random_rows(rng, e, 20)
    for route in ("tables", "walk"):
        one = it.tree_shap_interactions(e, X, route=route).values
        np.testing.assert_array_equal(
            it.tree_shap_interactions(e, X, route=route, n_jobs=3).values, one
        )
    prepared = BackgroundTrees(e, background, interactions=True, n_rows=700)
    direct = it.interventional_tree_shap_interactions(e, X, background).values
    np.testing.assert_array_equal(
        it.interventional_tree_shap_interactions(prepared, X, n_jobs=2).values, direct
    )
    with pytest.raises(
        ValueError, match="model: expected a BackgroundTrees made with interactions=False"
    ):
        interventional_tree_shap(prepared, X)


def largest_gap(found, truth):
    """Over all subsets, those that meet on no path included."""
    gaps = [np.abs(found[T] - truth[T]).max() for T in truth.subsets]
    return max([*gaps, np.abs(found.base_value - truth.base_value).max()])


def assert_orders_agree(seed):
    """Both games, any index = enumeration of the game; SII = leaf by leaf."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, 7))
    e = random_ensemble(
        rng,
        trees=int(rng.integers(1, 4)),
        d=d,
        depth=int(rng.integers(1, 6)),
        outputs=None if rng.random() < 0.6 else 2,
        chain=rng.random() < 0.2,
    )
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 5)
    weights = rng.integers(1, 4, 5)
    order = int(rng.integers(2, min(d, 4) + 1))
    by_path = path_dependent_game(e, X)
    by_rows = MarginalGame(e, X, np.repeat(background, weights, axis=0))
    for index in ("SII", "k-SII", "STII", "FSII", "Banzhaf", "Moebius"):
        kind = {"order": order, "index": index}
        found = it.tree_shap_interactions(e, X, **kind)
        assert largest_gap(found, interaction_values(by_path, d, **kind)) < TIGHT
        found = it.interventional_tree_shap_interactions(e, X, background, weights=weights, **kind)
        assert largest_gap(found, interaction_values(by_rows, d, **kind)) < TIGHT
        if index in ("k-SII", "STII", "FSII"):
            np.testing.assert_allclose(found.total, e.predict(X), atol=TIGHT)
    path = it.tree_shap_interactions(e, X, order=order)
    pairs = it.interventional_tree_shap_interactions(e, X, background, order=order)
    trees = list(paper_trees(e))
    for n, x in enumerate(e.encode(X)):
        assert_sums(path, n, [it.leaf_interactions_literal(x, t, order) for t in trees])
        parts = [
            it.leaf_interactions_literal(x, t, order, c)
            for t in trees
            for c in e.encode(background)
        ]
        assert_sums(pairs, n, parts, len(background))


def assert_sums(found, row, parts, count=1):
    """The library's subsets are those of the literal version, with the sums of its parts."""
    assert {T for part in parts for T in part} == set(found.subsets)
    for T in found.subsets:
        expected = sum(part.get(T, 0.0) for part in parts) / count
        np.testing.assert_allclose(found[T][row], expected, atol=TIGHT)


@given(st.integers(0, 2**32 - 1))
@examples(20)
def test_any_order_is_enumeration_is_leaf_by_leaf(seed):
    assert_orders_agree(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(4))
def test_any_order_of_many_random_models(block):
    for seed in range(40):
        assert_orders_agree(70_000 + 40 * block + seed)


@pytest.mark.parametrize("players", [14, 40, 70])
def test_long_paths_keep_recursion_and_sums(players):
    """Beyond 64 players patterns take two words. I(T + j) = I(T) with j known less I(T) without, in
    the interventional game with j as x or as the reference has it."""
    rng = np.random.default_rng(players)
    e = random_ensemble(rng, trees=2, d=players, depth=2 * players, chain=True, zero=0.0)
    X, background = random_rows(rng, e, 2), random_rows(rng, e, 3)
    found = it.tree_shap_interactions(e, X, order=2)
    matrix = it.tree_shap_interactions(e, X, route="walk").values
    for i, j in combinations(range(players), 2):
        # The matrix's own rule for long paths is wrong by up to 1e-11 of a leaf.
        np.testing.assert_allclose(found[i, j], 2 * matrix[:, i, j], atol=1e-10)
    added = it.tree_shap_interactions(e, X, order=2, index="k-SII")
    np.testing.assert_allclose(added.total, e.predict(X), atol=1e-9)
    triples = it.interventional_tree_shap_interactions(e, X[:1], background[:1], order=3)
    j = triples.subsets[-1][-1]
    with_j, without_j = background[:1].copy(), X[:1].copy()
    with_j[0, j] = X[0, j]
    without_j[0, j] = background[0, j]
    known = it.interventional_tree_shap_interactions(e, X[:1], with_j, order=2)
    unknown = it.interventional_tree_shap_interactions(e, without_j, background[:1], order=2)
    for T in triples.subsets:
        if j in T and len(T) > 1:
            rest = tuple(i for i in T if i != j)
            np.testing.assert_allclose(triples[T], known[rest] - unknown[rest], atol=1e-10)


def test_three_coins_by_hand():
    # 1 if all three are heads, each with half of the cover: the derivative of all three is 1/8.
    e = TreeEnsemble.from_arrays(
        [0, -1, 1, -1, 2, -1, -1],
        [0.5, 0, 0.5, 0, 0.5, 0, 0],
        [1, -1, 3, -1, 5, -1, -1],
        [2, -1, 4, -1, 6, -1, -1],
        [0, 0, 0, 0, 0, 0, 1.0],
        cover=[8, 4, 4, 2, 2, 1, 1],
    )
    X = [[1.0, 1.0, 1.0]]
    found = it.tree_shap_interactions(e, X, order=3)
    assert found[2, 0, 1] == pytest.approx(1 / 8)
    # A pair: 1/4 times the mean of 1/2 + p / 2, that is 3/4.
    assert found[0, 1] == pytest.approx(3 / 16)
    assert found.base_value == pytest.approx(1 / 8)
    both = it.interventional_tree_shap_interactions(e, X, [[0.0, 0.0, 0.0]], order=3)
    assert both[0, 1, 2] == pytest.approx(1)
    assert both[0, 1] == pytest.approx(1 / 2)


def test_orders_do_not_depend_on_threads_batches_or_other_rows():
    rng = np.random.default_rng(6)
    e = random_ensemble(rng, trees=8, d=9, depth=6, outputs=2)
    X, background = random_rows(rng, e, 1300), random_rows(rng, e, 20)
    before = X.copy(), background.copy()
    for call in (
        lambda rows, **more: it.tree_shap_interactions(e, rows, order=3, **more),
        lambda rows, **more: it.interventional_tree_shap_interactions(
            e, rows, background, order=3, **more
        ),
    ):
        one = call(X)
        assert one.values.shape == (len(one), 1300, 2)
        np.testing.assert_array_equal(call(X, n_jobs=3, batch_size=700).values, one.values)
        np.testing.assert_array_equal(call(X[40:41]).values, one.values[:, 40:41])
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(background, before[1])


def test_single_leaves_pay_nobody():
    e = TreeEnsemble.from_arrays([-1], [0], [-1], [-1], [2.0], n_features=4)
    found = it.tree_shap_interactions(e, np.zeros((3, 4)), order=3)
    assert len(found) == 0
    assert found[0, 2, 1].tolist() == [0.0, 0.0, 0.0]
    assert found.total.tolist() == [2.0, 2.0, 2.0]
    found = it.interventional_tree_shap_interactions(e, np.zeros((3, 4)), np.ones((2, 4)), order=3)
    assert found.total.tolist() == [2.0, 2.0, 2.0]
    assert "0 subsets" in repr(found)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"order": 1}, "order: expected 2 or more .* Use tree_shap"),
        ({"order": 5}, "order: expected at most 4, the number of players"),
        ({"order": 3, "index": "sii"}, "index: expected one of 'SII', 'k-SII'"),
        ({"order": 3, "route": "walk"}, "route: expected nothing beside order=3"),
        ({"order": 3, "out": np.zeros(3)}, "out: expected nothing beside order=3"),
        ({"order": 3, "batch_size": 0}, "batch_size: expected"),
        ({"order": 3, "feature_names": ["a"]}, "feature_names: expected 4 names"),
    ],
)
def test_bad_orders_of_trees(more, message):
    e = random_ensemble(np.random.default_rng(1), trees=2, d=4, depth=3)
    X = random_rows(np.random.default_rng(2), e, 2)
    with pytest.raises(ValueError, match=message):
        it.tree_shap_interactions(e, X, **more)


def test_bad_backgrounds_and_rows_beside_an_order():
    rng = np.random.default_rng(1)
    e = random_ensemble(rng, trees=2, d=4, depth=3)
    X = random_rows(rng, e, 2)
    prepared = BackgroundTrees(e, X, interactions=True)
    for model, background in ((prepared, None), (e, None)):
        with pytest.raises(TypeError, match="background: expected the model itself and rows"):
            it.interventional_tree_shap_interactions(model, X, background, order=3)
    with pytest.raises(ValueError, match="weights: expected"):
        it.interventional_tree_shap_interactions(e, X, X, order=3, weights=[1.0])
    with pytest.raises(ValueError, match="X: expected"):
        it.tree_shap_interactions(e, X[0], order=3)
    with pytest.raises(ValueError, match="X: expected"):
        it.tree_shap_interactions(e, X[:0], order=3)
