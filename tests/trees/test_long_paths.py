"""Paths of more features than a machine word has bits: every route against whole-number arithmetic.

Chapter: trees/interventional."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import random_ensemble
from properties import examples
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from shaplab.trees import _paths
from shaplab.trees._paths import Paths, exact_nodes
from shaplab.trees._plans import shapley_factors
from shaplab.trees._players import players_of
from shaplab.trees.conditional_expectation import paper_trees
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.interactions import (
    interventional_tree_shap_interactions,
    tree_shap_interactions,
)
from shaplab.trees.interventional import (
    BackgroundTrees,
    independent_tree_shap_literal,
    interventional_tree_shap,
)
from shaplab.trees.loss import tree_loss_shap
from shaplab.trees.path_dependent import tree_shap

SIZES = [63, 64, 65, 128, 129, 200, 300]
# Sums of a few products of hundreds of factors in float64, each rounded by 1e-16; the shorter rule
# of path-dependent values adds at most 1e-11 of a leaf's output (of order 1).
CLOSE = {"rtol": 1e-11, "atol": 2e-11}


class Chain:
    """One path of ``n`` distinct features; only some of its leaves pay, so that each can be solved
    in whole numbers."""

    def __init__(self, rng: np.random.Generator, n: int, paying: int = 4) -> None:
        self.n, self.order = n, rng.permutation(n)
        self.long_left = rng.random(n) < 0.5
        self.share = rng.integers(13, 16, n)  # sixteenths that the long side keeps
        self.pays = np.zeros(n + 1)
        self.pays[np.r_[n, n - 1, rng.integers(0, n, paying - 2)]] = rng.normal(size=paying)

    def ensemble(self) -> TreeEnsemble:
        n = self.n
        feature = np.concatenate([self.order, np.full(n + 1, -1)])
        inner, leaf = np.arange(n), n + np.arange(n + 1)  # leaf k hangs below node k
        long, short = np.append(inner[1:], leaf[n]), leaf[:n]
        left, right = np.full((2, 2 * n + 1), -1)
        left[:n], right[:n] = (
            np.where(self.long_left, long, short),
            np.where(self.long_left, short, long),
        )
        cover = np.zeros(2 * n + 1)
        cover[0] = 1.0
        for k in range(n):
            cover[long[k]] = cover[k] * self.share[k] / 16
            cover[short[k]] = cover[k] - cover[long[k]]
        value = np.concatenate([np.zeros(n), self.pays])
        return TreeEnsemble.from_arrays(
            feature, np.zeros(2 * n + 1), left, right, value, cover=cover, n_features=n
        )

    def row(self, rng: np.random.Generator, away: int) -> np.ndarray:
        """A row that leaves the long side at ``away`` places."""
        goes_long = np.ones(self.n, bool)
        goes_long[rng.choice(self.n, away, replace=False)] = False
        x = np.zeros(self.n)
        x[self.order] = np.where(goes_long == self.long_left, -1.0, 1.0)
        return x

    def follows(self, x: np.ndarray) -> np.ndarray:
        """Whether each split sends the row along the long side."""
        return (x[self.order] <= 0) == self.long_left

    def games(self, x: np.ndarray, absent: np.ndarray | None = None):
        """(pay, features, z as sixteenths, o) of every paying leaf; z from covers or from a
        reference's own path."""
        took = self.follows(x)
        for leaf in np.flatnonzero(self.pays):
            count = min(leaf + 1, self.n)
            on_long = np.arange(count) < leaf
            o = (took[:count] == on_long).astype(int)
            if absent is None:
                z = np.where(on_long, self.share[:count], 16 - self.share[:count])
            else:
                z = 16 * (self.follows(absent)[:count] == on_long).astype(int)
            yield self.pays[leaf], self.order[:count], z.tolist(), o.tolist()


def divided(product: list[int], z: int, o: int) -> list[int]:
    """The product without the factor z + 16 o t, exactly."""
    if o == 0:
        return [c // z for c in product]
    if z == 0:
        return [c // 16 for c in product[1:]]
    found, before = [], 0
    for c in product[:-1]:
        before = (c - 16 * before) // z
        found.append(before)
    return found


def solved(chain: Chain, x: np.ndarray, absent: np.ndarray | None = None, pairs: bool = False):
    """Shapley values, or interactions, of the chain by the definition: coalitions by their size."""
    n = chain.n
    phi, both = np.zeros(n), np.zeros((n, n))
    for pay, features, z, o in chain.games(x, absent):
        if any(a == 0 and b == 0 for a, b in zip(z, o, strict=True)):
            continue  # no coalition reaches this leaf
        d = len(features)
        product = [1]
        for a, b in zip(z, o, strict=True):
            product = [
                a * low + 16 * b * high
                for low, high in zip([*product, 0], [0, *product], strict=True)
            ]
        weights = [math.factorial(s) * math.factorial(d - 1 - s) for s in range(d)]
        half = [math.factorial(s) * math.factorial(d - 2 - s) for s in range(d - 1)]
        scale = math.factorial(d) * 16**d
        half_scale = 2 * math.factorial(d - 1) * 16**d
        for i in range(d):
            if z[i] == 16 * o[i]:
                continue
            rest = divided(product, z[i], o[i])
            total = sum(c * w for c, w in zip(rest, weights, strict=False))
            phi[features[i]] += pay * float(Fraction((16 * o[i] - z[i]) * total, scale))
            for j in range(i if pairs else 0):
                if z[j] == 16 * o[j]:
                    continue
                last = divided(rest, z[j], o[j])
                total = sum(c * w for c, w in zip(last, half, strict=False))
                change = (16 * o[i] - z[i]) * (16 * o[j] - z[j])
                term = pay * float(Fraction(change * total, half_scale))
                both[features[i], features[j]] += term
                both[features[j], features[i]] += term
    if not pairs:
        return phi
    both[np.arange(n), np.arange(n)] = phi - both.sum(axis=1)
    return both


@pytest.mark.parametrize("n", SIZES)
def test_values_of_a_long_chain_are_those_of_whole_numbers(n):
    rng = np.random.default_rng(n)
    chain = Chain(rng, n)
    e = chain.ensemble()
    X = np.stack([chain.row(rng, k) for k in (0, 1, 3)])
    B = np.stack([chain.row(rng, k) for k in (0, 1, 2, n // 2, n)])
    weights = np.array([1.0, 2.0, 0.0, 4.0, 1.0])
    expected = np.stack([solved(chain, x) for x in X])
    single = np.array([[solved(chain, x, b) for b in B] for x in X])
    for route in ("auto", "tables", "walk"):
        np.testing.assert_allclose(tree_shap(e, X, route=route).values, expected, **CLOSE)
    for route in ("auto", "tables", "patterns"):
        found = interventional_tree_shap(e, X, B, route=route)
        np.testing.assert_allclose(found.values, single.mean(axis=1), **CLOSE)
        np.testing.assert_allclose(found.prediction, e.predict(X), atol=1e-12)
    mean = np.tensordot(single, weights / weights.sum(), axes=([1], [0]))
    prepared = BackgroundTrees(e, B, weights=weights)
    np.testing.assert_allclose(prepared(X).values, mean, **CLOSE)
    np.testing.assert_allclose(prepared(X[1:2]).values, mean[1:2], **CLOSE)


@pytest.mark.parametrize("n", [65, 130])
def test_interactions_of_a_long_chain_are_those_of_whole_numbers(n):
    rng = np.random.default_rng(n)
    chain = Chain(rng, n)
    e = chain.ensemble()
    X, B = chain.row(rng, 2)[None], np.stack([chain.row(rng, k) for k in (0, 2, n // 2)])
    expected = solved(chain, X[0], pairs=True)
    np.testing.assert_allclose(tree_shap_interactions(e, X).values[0], expected, **CLOSE)
    expected = np.mean([solved(chain, X[0], b, pairs=True) for b in B], axis=0)
    found = interventional_tree_shap_interactions(e, X, B).values[0]
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("loss", ["squared_error", "logistic"])
def test_rescaled_losses_of_a_long_chain_add_single_references(loss):
    rng = np.random.default_rng(0)
    chain = Chain(rng, 70)
    chain.pays = rng.normal(size=71)  # every leaf its own output
    e = chain.ensemble()
    X, B = np.stack([chain.row(rng, k) for k in (0, 1)]), np.stack([chain.row(rng, 2)] * 2)
    B[1] = chain.row(rng, 30)
    y = np.array([1.0, 0.0])
    f, g = e.predict(X), e.predict(B)
    assert (f[:, None] != g).all()
    value = {
        "squared_error": lambda a, t: (a - t) ** 2,
        "logistic": lambda a, t: np.log1p(np.exp(a)) - t * a,
    }[loss]
    expected = np.zeros(X.shape)
    for i in range(2):
        for r in range(2):
            factor = (value(f[i], y[i]) - value(g[r], y[i])) / (f[i] - g[r])
            expected[i] += solved(chain, X[i], B[r]) * factor / 2
    found = tree_loss_shap(e, X, y, B, loss=loss, game="rescaled_margin").values
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)  # the quotient's rounding


def sparse_forest(kind=RandomForestClassifier, trees=6, rows=800):
    """Unlimited depth on 400 sparse columns: paths of more than a hundred distinct features."""
    rng = np.random.default_rng(5)
    X = (rng.random((rows, 400)) < 0.03) * rng.normal(size=(rows, 400))
    y = X @ rng.normal(size=400) + rng.logistic(size=rows) > 0
    return kind(trees, random_state=0).fit(X, y), X


@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
def test_a_sparse_forest_of_unlimited_depth_by_the_literal_algorithm(kind):
    model, X = sparse_forest(kind)
    e = TreeEnsemble.from_model(model)
    assert Paths(e, players_of(e, None, None)).arrays.tree_players.max() > 64
    rows, references = e.encode(X[:3]), e.encode(X[10:18])
    expected = [
        sum(independent_tree_shap_literal(x, references, tree) for tree in paper_trees(e))
        for x in rows
    ]
    found = interventional_tree_shap(model, X[:3], X[10:18])
    np.testing.assert_allclose(found.values, expected, atol=1e-12)  # sums of 6 trees of order 1
    np.testing.assert_allclose(found.prediction, model.predict_proba(X[:3]), atol=1e-12)
    both = interventional_tree_shap_interactions(model, X[:1], X[10:12])
    np.testing.assert_allclose(
        both.values.sum(axis=2), interventional_tree_shap(model, X[:1], X[10:12]).values, atol=1e-12
    )
    np.testing.assert_allclose(tree_shap(model, X[:3]).prediction, found.prediction, atol=1e-11)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("first", "other"), [(19, 0.5), (20, 0.6), (21, 0.5), (33, 0.9)])
def test_the_search_for_nodes_ends_beside_a_path_of_nearly_all_rows(first, other):
    """A path of 18 features that keeps 99.9% of the rows beside a longer one: the search compared
    the narrow leaf with a rule that was not exact for it, for ever."""
    trees = [(18, 0.999), (first, other)]
    columns: dict[str, list] = {name: [] for name in ("feature", "left", "right", "value", "cover")}
    start = [0]
    for players, share in trees:
        node, offset = np.arange(players), start[-1]
        columns["feature"] += [*node, *[-1] * (players + 1)]
        columns["right"] += [*(node + 1 + offset), *[-1] * (players + 1)]
        columns["left"] += [*(players + 1 + node + offset), *[-1] * (players + 1)]
        columns["value"] += [0.0] * players + [1.0] + [0.0] * players
        columns["cover"] += [*share ** np.arange(players + 1.0)]
        columns["cover"] += [*((1 - share) * share ** np.arange(float(players)))]
        start.append(offset + 2 * players + 1)
    e = TreeEnsemble.from_arrays(
        columns["feature"],
        np.zeros(start[-1]),
        columns["left"],
        columns["right"],
        columns["value"],
        cover=columns["cover"],
        tree_start=start,
    )
    nodes = Paths(e, players_of(e, None, None)).arrays.tree_rule
    assert nodes[0] <= 9 and nodes[1] <= (first + 1) // 2
    expected = np.zeros(first)
    for players, share in trees:
        expected[:players] += (1 - share**players) / players  # all features of a path are alike
    found = tree_shap(e, np.ones((1, first)), route="walk").values[0]
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.timeout(20)
def test_the_search_for_nodes_ends_for_the_seed_that_hung():
    rng = np.random.default_rng(6277267)
    e = random_ensemble(rng, trees=2, d=80, depth=int(rng.integers(16, 90)), chain=True)
    paths = Paths(e, players_of(e, None, None)).arrays
    assert (paths.tree_rule <= exact_nodes(paths.tree_players)).all()


@pytest.mark.timeout(20)
@given(st.integers(0, 2**32 - 1))
@examples(30)
def test_the_chosen_rule_is_as_good_as_the_exact_one(seed):
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(1, 110))
    e = random_ensemble(rng, trees=2, d=120, depth=depth, chain=True, zero=0.02)
    X = rng.normal(size=(4, 120))
    if len(e.set_bits):
        X[:, -1] = rng.integers(0, 4, 4)
    paths = Paths(e, players_of(e, None, None)).arrays
    exact = exact_nodes(paths.tree_players)
    assert (paths.tree_rule <= exact).all()
    short = tree_shap(e, X, route="walk").values
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_paths, "quadrature_nodes", lambda *_: exact)
        np.testing.assert_allclose(short, tree_shap(e, X, route="walk").values, atol=1e-10)


def test_factors_of_a_thousand_players_stay_finite():
    factor = shapley_factors(1100)
    assert np.isfinite(factor).all()
    assert factor[0, 1099] == 1 / 1100
    assert factor[3, 2] == math.factorial(2) * math.factorial(3) / math.factorial(6)
    assert factor[600, 500] == 0.0  # below the smallest float: 1e-328
