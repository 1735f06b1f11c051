from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import brute, random_ensemble, random_rows
from properties import examples

from shaplab.trees.conditional_expectation import exp_value_literal, paper_trees
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.interactions import tree_shap_interactions
from shaplab.trees.path_dependent import tree_shap, tree_shap_literal

# Sums of at most a few hundred leaf values of order 1 in float64.
TIGHT = 1e-11


def assert_all_agree(seed):
    """Fast on both routes = Algorithm 2 = Equation 5 over Algorithm 1."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 6))
    e = random_ensemble(
        rng,
        trees=int(rng.integers(1, 4)),
        d=d,
        depth=int(rng.integers(1, 7)),
        outputs=None if rng.random() < 0.6 else 2,
        chain=rng.random() < 0.2,
    )
    X = random_rows(rng, e, 4)
    trees = list(paper_trees(e))
    for n, x in enumerate(e.encode(X)):
        expected, _ = brute(lambda S: sum(exp_value_literal(x, S, t) for t in trees), d)  # noqa: B023
        literal = sum(tree_shap_literal(x, t) for t in trees)
        np.testing.assert_allclose(literal.reshape(expected.shape), expected, atol=TIGHT)
        for route in ("tables", "walk", "auto"):
            found = tree_shap(e, X, route=route)
            np.testing.assert_allclose(found.values[n], expected, atol=TIGHT)
        base = sum(exp_value_literal(x, (), t) for t in trees) + (
            e.base if e.has_outputs else e.base[0]
        )
        np.testing.assert_allclose(found.base_values[n], base, atol=TIGHT)


@given(st.integers(0, 2**32 - 1))
@examples(30)
def test_fast_is_literal_is_brute_force(seed):
    assert_all_agree(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_two_thousand_random_models(block):
    for seed in range(100):
        assert_all_agree(10_000 + 100 * block + seed)


@given(st.integers(0, 2**32 - 1), st.integers(5, 30))
@examples(12)
def test_deep_trees_add_up_and_routes_agree(seed, depth):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, trees=2, d=int(rng.integers(2, 40)), depth=depth, chain=True, zero=0.0)
    X = random_rows(rng, e, 9)
    walked = tree_shap(e, X, route="walk")
    np.testing.assert_allclose(
        walked.gap(e.predict(X)), 0, atol=1e-9
    )  # the long rule's stated error is 1e-11 a leaf
    literal = sum(tree_shap_literal(e.encode(X)[0], t) for t in paper_trees(e))
    # UNWIND divides by small shares and loses digits on long paths, so the literal sets this
    # tolerance.
    np.testing.assert_allclose(walked.values[0], literal, atol=1e-6)
    np.testing.assert_allclose(tree_shap(e, X).values, walked.values, atol=1e-9)


def test_one_feature_five_times_on_a_path():
    e = TreeEnsemble.from_arrays(
        [0, 0, 0, 0, 0, -1, -1, -1, -1, -1, -1],
        [5.0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, -1, -1, -1, -1, -1, -1],
        [10, 9, 8, 7, 6, -1, -1, -1, -1, -1, -1],
        np.arange(11.0),
    )
    X = [[0.5], [2.5], [9.0]]
    np.testing.assert_allclose(
        tree_shap(e, X).values[:, 0], e.predict(X) - np.arange(5, 11).mean(), atol=1e-12
    )


@pytest.mark.parametrize("value", [[3.0], [[3.0, 4.0]]])
def test_a_single_leaf_credits_nobody(value):
    e = TreeEnsemble.from_arrays([-1], [0], [-1], [-1], value, n_features=2)
    found = tree_shap(e, [[1.0, 2.0]])
    np.testing.assert_array_equal(found.values, 0)
    np.testing.assert_array_equal(found.prediction, e.predict([[1.0, 2.0]]))


@pytest.mark.parametrize("route", ["tables", "walk"])
def test_threads_and_batches_change_nothing(route):
    rng = np.random.default_rng(0)
    e = random_ensemble(rng, trees=20, d=8, depth=6, outputs=2)
    X = random_rows(rng, e, 5000)
    one = tree_shap(e, X, route=route).values
    np.testing.assert_array_equal(tree_shap(e, X, route=route, n_jobs=3).values, one)
    # Another batch size may cut the trees into other clusters, so it changes the last digits only.
    np.testing.assert_allclose(tree_shap(e, X, route=route, batch_size=777).values, one, atol=1e-12)


def test_out_takes_a_memmap(tmp_path):
    rng = np.random.default_rng(0)
    e = random_ensemble(rng)
    X = random_rows(rng, e, 1000)
    out = np.memmap(tmp_path / "values", dtype=np.float64, mode="w+", shape=(1000, 4))
    found = tree_shap(e, X, out=out, batch_size=300)
    assert np.shares_memory(found.values, out)
    np.testing.assert_allclose(out, tree_shap(e, X).values, atol=1e-12)
    with pytest.raises(
        ValueError, match="out: expected a writeable float64 array of shape \\(1000, 4\\)"
    ):
        tree_shap(e, X, out=np.empty((1000, 5)))


def test_wrong_arguments_are_named():
    e = random_ensemble(np.random.default_rng(0))
    for kind, arguments in [("route", {"route": "magic"}), ("batch_size", {"batch_size": 0})]:
        with pytest.raises(ValueError, match=f"^{kind}: expected"):
            tree_shap(e, np.zeros((1, 4)), **arguments)
    with pytest.raises(ValueError, match="X: expected"):
        tree_shap(e, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="X: expected"):
        tree_shap(e, np.zeros((0, 4)))
    with pytest.raises(ValueError, match="X: expected"):
        tree_shap(e, np.zeros(4))


@pytest.mark.parametrize("seed", range(12))
def test_covers_below_zero_follow_the_same_formula(seed):
    """Differences of Hessians may round below 0; every route takes such a share as it is."""
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, trees=2, d=3, depth=5, zero=0.0)
    cover = np.array(e.cover)
    for node in np.flatnonzero(e.feature >= 0)[::2]:
        cover[e.left[node]] *= -0.2
    e = replace(e, cover=cover)
    X = random_rows(rng, e, 4)
    for x, walk, tables, both in zip(
        e.encode(X),
        tree_shap(e, X, route="walk").values,
        tree_shap(e, X, route="tables").values,
        tree_shap_interactions(e, X).values,
        strict=True,
    ):
        trees = list(paper_trees(e))

        def worth(S, x=x, trees=trees):
            return sum(exp_value_literal(x, S, tree) for tree in trees)

        phi, pairs = brute(worth, 3)
        np.testing.assert_allclose(walk, phi, atol=1e-11)
        np.testing.assert_allclose(tables, phi, atol=1e-11)
        np.testing.assert_allclose(both, pairs, atol=1e-11)
