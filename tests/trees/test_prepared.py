"""A model prepared for the path-dependent game gives the numbers of ``tree_shap``, row by row."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from oracles.random_trees import random_ensemble, random_rows

from shaplab import (
    BackgroundTrees,
    PreparedTrees,
    interventional_tree_shap,
    tree_loss_shap,
    tree_shap,
    tree_shap_interactions,
)

# Sums of a few hundred leaf values of order 1 in float64; other routes add them in another order.
TIGHT = 1e-11


def model_and_rows(depth, n=20, trees=10):
    rng = np.random.default_rng(depth)
    e = random_ensemble(rng, trees=trees, d=6, depth=depth, outputs=2)
    return e, random_rows(rng, e, n)


@pytest.mark.parametrize("interactions", [False, True])
@pytest.mark.parametrize("memory_limit", [0, 2000, 2**30])
@pytest.mark.parametrize("depth", [0, 3, 7])
def test_rows_one_by_one_are_those_of_the_model(depth, memory_limit, interactions):
    e, X = model_and_rows(depth)
    prepared = PreparedTrees(e, interactions=interactions, memory_limit=memory_limit)
    before = prepared.nbytes
    function = tree_shap_interactions if interactions else tree_shap
    whole = function(e, X)
    rows = [prepared(X[i : i + 1]) for i in range(len(X))]
    np.testing.assert_allclose(np.concatenate([r.values for r in rows]), whole.values, atol=TIGHT)
    np.testing.assert_allclose(rows[0].base_values[0], whole.base_values[0], atol=TIGHT)
    assert rows[0].method == whole.method
    np.testing.assert_array_equal(function(prepared, X).values, prepared(X).values)
    again = pickle.loads(pickle.dumps(prepared))
    np.testing.assert_array_equal(again(X).values, prepared(X).values)
    if memory_limit == 0:
        assert prepared.nbytes == before
    elif prepared._walked_trees == 0 and depth:
        assert before < prepared.nbytes <= before + memory_limit


def test_tables_that_do_not_fit_are_walked():
    e, X = model_and_rows(8, trees=30)
    free = PreparedTrees(e, route="auto")
    tight = PreparedTrees(e, memory_limit=20_000)
    free(X), tight(X)
    assert tight._plan.table_bytes <= 20_000 < free._plan.table_bytes
    assert tight._walked_trees > free._walked_trees
    np.testing.assert_allclose(tight(X).values, free(X).values, atol=TIGHT)


def test_threads_may_share_it():
    e, X = model_and_rows(6, n=64)
    expected = PreparedTrees(e)(X).values
    both = BackgroundTrees(e, X)(X).values
    cases = [(PreparedTrees(e), expected), (BackgroundTrees(e, X), both)]
    cases.append((BackgroundTrees(e, X, memory_limit=0), both))
    for prepared, values in cases:

        def explain(i, prepared=prepared):
            return prepared(X[i : i + 1])

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(explain, range(len(X))))
        np.testing.assert_array_equal(np.concatenate([r.values for r in found]), values)
        base = e.predict(X).mean(axis=0)
        if isinstance(prepared, PreparedTrees):
            base = tree_shap(e, X[:1]).base_values[0]
        for each in found:
            np.testing.assert_allclose(each.base_values[0], base, atol=TIGHT)


def test_groups_and_names_belong_to_what_prepares():
    e, X = model_and_rows(5)
    groups = {"first": [0, 1], "rest": [2, 3, 4, 5]}
    prepared = PreparedTrees(e, groups=groups)
    direct = tree_shap(e, X, groups=groups)
    np.testing.assert_allclose(prepared(X).values, direct.values, atol=TIGHT)
    assert prepared(X).feature_names == ("first", "rest")
    named = PreparedTrees(e, feature_names=list("abcdef"))
    assert named(X).feature_names == tuple("abcdef")
    for more in ({"groups": groups}, {"route": "walk"}, {"feature_names": list("abcdef")}):
        with pytest.raises(ValueError, match="model: expected the model itself beside groups"):
            tree_shap(prepared, X, **more)


def test_what_is_prepared_for_one_game_is_refused_by_another():
    e, X = model_and_rows(3)
    y = np.zeros(len(X))
    prepared = PreparedTrees(e)
    calls = [
        lambda: tree_shap_interactions(prepared, X),
        lambda: tree_shap_interactions(prepared, X, order=3),
        lambda: interventional_tree_shap(prepared, X, X),
        lambda: tree_loss_shap(prepared, X, y, X, loss="mse"),
        lambda: tree_shap(BackgroundTrees(e, X), X),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^model: expected"):
            call()
    # The remedy works.
    interventional_tree_shap(prepared.trees, X, X)
    assert "10 trees" in repr(prepared)
