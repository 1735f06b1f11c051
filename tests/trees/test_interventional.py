from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import brute, marginal_game, random_ensemble, random_rows
from properties import examples

from shaplab.trees._plans import LeafClusters
from shaplab.trees.conditional_expectation import paper_trees
from shaplab.trees.interventional import (
    BackgroundTrees,
    independent_tree_shap_literal,
    interventional_tree_shap,
)

TIGHT = 1e-11  # sums of at most a few hundred leaf values of order 1 in float64


def assert_all_agree(seed):
    rng = np.random.default_rng(seed)
    d, r = int(rng.integers(1, 6)), int(rng.integers(1, 8))
    e = random_ensemble(
        rng,
        trees=int(rng.integers(1, 4)),
        d=d,
        depth=int(rng.integers(1, 7)),
        outputs=None if rng.random() < 0.6 else 2,
        chain=rng.random() < 0.2,
    )
    X, background = random_rows(rng, e, 3), random_rows(rng, e, r)
    codes, references = e.encode(X), e.encode(background)
    found = {
        route: interventional_tree_shap(e, X, background, route=route)
        for route in ("tables", "patterns", "auto")
    }
    for n, x in enumerate(X):
        game = marginal_game(e, x, background)
        expected, _ = brute(game, d)
        literal = sum(
            independent_tree_shap_literal(codes[n], references, t) for t in paper_trees(e)
        )
        np.testing.assert_allclose(literal.reshape(expected.shape), expected, atol=TIGHT)
        for route, explanation in found.items():
            np.testing.assert_allclose(explanation.values[n], expected, atol=TIGHT, err_msg=route)
            np.testing.assert_allclose(explanation.base_values[n], game(()), atol=TIGHT)


@given(st.integers(0, 2**32 - 1))
@examples(30)
def test_fast_is_literal_is_brute_force(seed):
    assert_all_agree(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(20))
def test_two_thousand_random_models(block):
    for seed in range(100):
        assert_all_agree(20_000 + 100 * block + seed)


@given(st.integers(0, 2**32 - 1))
@examples(8)
def test_paths_of_more_players_than_tables_take(seed):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, trees=2, d=80, depth=int(rng.integers(16, 90)), chain=True)
    X, background = random_rows(rng, e, 4), random_rows(rng, e, 5)
    found = interventional_tree_shap(e, X, background)
    np.testing.assert_allclose(found.gap(e.predict(X)), 0, atol=TIGHT)
    literal = sum(
        independent_tree_shap_literal(e.encode(X)[0], e.encode(background), t)
        for t in paper_trees(e)
    )
    np.testing.assert_allclose(found.values[0], literal, atol=TIGHT)


def test_weights_are_repeated_rows():
    rng = np.random.default_rng(0)
    e = random_ensemble(rng)
    X, background = random_rows(rng, e, 5), random_rows(rng, e, 3)
    weighted = interventional_tree_shap(e, X, background, weights=[1, 0, 2])
    repeated = interventional_tree_shap(e, X, background[[0, 2, 2]])
    np.testing.assert_allclose(weighted.values, repeated.values, atol=TIGHT)
    np.testing.assert_allclose(weighted.base_values, repeated.base_values, atol=TIGHT)


@pytest.mark.parametrize("route", ["tables", "patterns"])
def test_threads_change_nothing(route):
    rng = np.random.default_rng(1)
    e = random_ensemble(rng, trees=20, d=8, depth=6, outputs=2)
    X, background = random_rows(rng, e, 5000), random_rows(rng, e, 50)
    one = interventional_tree_shap(e, X, background, route=route)
    np.testing.assert_array_equal(
        interventional_tree_shap(e, X, background, route=route, n_jobs=3).values, one.values
    )
    np.testing.assert_allclose(one.gap(e.predict(X)), 0, atol=1e-10)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_a_prepared_model_can_be_pickled_and_explains_row_by_row(memory_limit):
    rng = np.random.default_rng(2)
    e = random_ensemble(rng, trees=10, d=6, depth=6)
    X, background = random_rows(rng, e, 30), random_rows(rng, e, 40)
    prepared = BackgroundTrees(e, background, memory_limit=memory_limit)
    before = prepared.nbytes
    rows = np.concatenate([prepared(X[i : i + 1]).values for i in range(30)])
    assert (prepared.nbytes > before) == (memory_limit > 0)
    np.testing.assert_array_equal(prepared(X).values, rows)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(prepared))(X).values, rows)
    np.testing.assert_array_equal(interventional_tree_shap(prepared, X).values, rows)
    assert "40 background rows" in repr(prepared)


def test_one_row_explained_by_itself_is_zero():
    rng = np.random.default_rng(3)
    e = random_ensemble(rng)
    X = random_rows(rng, e, 1)
    np.testing.assert_allclose(interventional_tree_shap(e, X, X).values, 0, atol=1e-15)


def test_wrong_arguments_are_named():
    import pandas as pd

    rng = np.random.default_rng(4)
    e = random_ensemble(rng)
    X = random_rows(rng, e, 3)
    frame = pd.DataFrame(X, columns=list("abcd"))
    cases = [
        ("background", lambda: interventional_tree_shap(e, X)),
        ("background", lambda: interventional_tree_shap(e, X, X[:0])),
        ("background", lambda: interventional_tree_shap(e, X, X[:, :3])),
        ("background", lambda: interventional_tree_shap(e, frame, frame[list("abdc")])),
        ("weights", lambda: interventional_tree_shap(e, X, X, weights=[1, 2])),
        ("weights", lambda: interventional_tree_shap(e, X, X, weights=[1, -2, 1])),
        ("route", lambda: interventional_tree_shap(e, X, X, route="walk")),
        ("model", lambda: interventional_tree_shap(BackgroundTrees(e, X), X, X)),
    ]
    for argument, call in cases:
        with pytest.raises((ValueError, TypeError), match=f"^{argument}: expected"):
            call()


def test_what_a_prepared_background_cannot_heed_is_refused():
    rng = np.random.default_rng(0)
    e = random_ensemble(rng)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 5)
    prepared = BackgroundTrees(e, background)
    for options in ({"weights": np.ones(5)}, {"route": "patterns"}):
        with pytest.raises(ValueError, match="model: expected the model itself beside weights"):
            interventional_tree_shap(prepared, X, **options)


def test_huge_weights_are_shares():
    rng = np.random.default_rng(0)
    e = random_ensemble(rng)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 4)
    equal = interventional_tree_shap(e, X, background)
    huge = interventional_tree_shap(e, X, background, weights=np.full(4, 1e308))
    np.testing.assert_array_equal(huge.values, equal.values)
    for weights in ([[1], [1, 2], 3, 4], ["a", "b", "c", "d"]):
        with pytest.raises((TypeError, ValueError), match="weights: expected"):
            interventional_tree_shap(e, X, background, weights=weights)
    with pytest.raises(ValueError, match="zeros only"):
        interventional_tree_shap(e, X, background, weights=np.zeros(4))


def test_tables_are_built_once_for_many_batches(monkeypatch):
    rng = np.random.default_rng(0)
    e = random_ensemble(rng, trees=3)
    X, background = random_rows(rng, e, 200), random_rows(rng, e, 30)
    built = []
    build = LeafClusters.build

    def counted(self, first, last, *rest):
        built.append(last - first)
        return build(self, first, last, *rest)

    monkeypatch.setattr(LeafClusters, "build", counted)
    whole = interventional_tree_shap(e, X, background, route="tables")
    once = sum(built)
    built.clear()
    parts = interventional_tree_shap(e, X, background, route="tables", batch_size=20)
    assert sum(built) == once
    np.testing.assert_allclose(parts.values, whole.values, atol=1e-13)
