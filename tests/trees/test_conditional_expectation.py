from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import brute, random_ensemble, random_rows
from properties import examples

from shaplab.trees import conditional_expectation as ce
from shaplab.trees.ensemble import TreeEnsemble

# A and B of the source's Supplementary Figure 2: fever splits first in A, cough first in B.
MODEL_A = (
    [0, 1, 1, -1, -1, -1, -1],
    [0.5] * 7,
    [1, 3, 5, -1, -1, -1, -1],
    [2, 4, 6, -1, -1, -1, -1],
)


def model_a():
    return TreeEnsemble.from_arrays(*MODEL_A, [0, 0, 0, 0, 0, 0, 80.0])


def model_b():
    feature = [1, 0, 0, -1, -1, -1, -1]
    return TreeEnsemble.from_arrays(feature, *MODEL_A[1:], [0, 0, 0, 0, 0, 10.0, 90.0])


@given(st.integers(0, 2**32 - 1))
@examples(25)
def test_game_is_algorithm_1(seed):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, outputs=None if rng.random() < 0.5 else 2)
    X = random_rows(rng, e, 3)
    S = rng.random((6, e.n_features)) < 0.5
    found = ce.path_dependent_game(e, X)(S)
    trees = list(ce.paper_trees(e))
    for m, n in np.ndindex(6, 3):
        x = e.encode(X)[n]
        expected = sum(ce.exp_value_literal(x, np.flatnonzero(S[m]), t) for t in trees) + e.base
        np.testing.assert_allclose(
            np.reshape(found[m, n], -1), np.reshape(expected, -1), atol=1e-12
        )


def test_everything_known_is_the_prediction():
    rng = np.random.default_rng(1)
    e = random_ensemble(rng)
    X = random_rows(rng, e, 20)
    np.testing.assert_allclose(
        ce.path_dependent_game(e, X)(np.ones((1, 4), bool))[0], e.predict(X), atol=1e-12
    )


def test_equation_5_over_orderings_is_the_subset_formula():
    rng = np.random.default_rng(2)
    e = random_ensemble(rng, d=4)
    x = e.encode(random_rows(rng, e, 1))[0]
    trees = list(ce.paper_trees(e))

    def f(S):
        return sum(ce.exp_value_literal(x, S, t) for t in trees)

    np.testing.assert_allclose(ce.shap_values_literal(x, f, 4), brute(f, 4)[0], atol=1e-12)


@given(st.integers(0, 2**32 - 1))
@examples(25)
def test_saabas_is_its_literal_and_adds_up(seed):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, outputs=None if rng.random() < 0.5 else 2)
    X = random_rows(rng, e, 5)
    found = ce.saabas(e, X)
    for n, x in enumerate(e.encode(X)):
        expected = np.zeros(found.values.shape[1:])
        for tree in ce.paper_trees(e):
            for f, change in ce.saabas_literal(x, tree).items():
                expected[f] += change
        np.testing.assert_allclose(found.values[n], expected, atol=1e-12)
    np.testing.assert_allclose(found.gap(e.predict(X)), 0, atol=1e-12)


def test_saabas_is_equation_1_where_no_feature_repeats():
    e = model_b()
    x = e.encode([[1.0, 1.0]])[0]
    tree = next(ce.paper_trees(e))
    first = ce.exp_value_literal(x, {1}, tree) - ce.exp_value_literal(x, (), tree)
    second = ce.exp_value_literal(x, {0, 1}, tree) - ce.exp_value_literal(x, {1}, tree)
    np.testing.assert_allclose(ce.saabas(e, [[1.0, 1.0]]).values[0], [second, first], atol=1e-12)


def test_saabas_and_gain_are_inconsistent_as_in_the_source():
    a, b = ce.saabas(model_a(), [[1.0, 1.0]]), ce.saabas(model_b(), [[1.0, 1.0]])
    np.testing.assert_allclose(a.base_values, 20)
    np.testing.assert_allclose(b.base_values, 25)
    np.testing.assert_allclose(a.values, [[20, 40]])
    np.testing.assert_allclose(b.values, [[40, 25]])  # cough matters more in B and gets less
    assert ce.gain_importance(model_b())[1] < ce.gain_importance(model_a())[1]
    np.testing.assert_array_equal(ce.split_count(model_a()), [1, 2])


def test_gain_is_scikit_learns():
    tree = pytest.importorskip("sklearn.tree")
    rng = np.random.default_rng(3)
    X = rng.normal(size=(200, 4))
    model = tree.DecisionTreeRegressor(max_depth=4).fit(X, X[:, 0] * X[:, 1] + X[:, 2])
    gain = ce.gain_importance(model)
    np.testing.assert_allclose(gain / gain.sum(), model.feature_importances_, atol=1e-12)


def test_wrong_coalitions_are_named():
    e = model_a()
    with pytest.raises(ValueError, match="S: expected shape"):
        ce.path_dependent_game(e, [[1.0, 1.0]])(np.ones((1, 3), bool))
