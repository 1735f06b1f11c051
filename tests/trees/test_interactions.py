from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import brute, marginal_game, random_ensemble, random_rows
from properties import examples

from shaplab.trees import interactions as it
from shaplab.trees.conditional_expectation import exp_value_literal, paper_trees
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
