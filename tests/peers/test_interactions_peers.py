"""Interactions of order 3 beside shapiq: the same numbers, of any game and of trees."""

from __future__ import annotations

import numpy as np
import pytest

from shaplab import TableGame, interaction_values, tree_shap_interactions

pytestmark = pytest.mark.peers


@pytest.mark.parametrize(
    ("index", "theirs", "tolerance"),
    [
        ("SII", "SII", 1e-12),
        ("k-SII", "k-SII", 1e-12),
        ("STII", "STII", 1e-12),
        # shapiq fits FSII with a large weight in place of the constraint that all values sum up.
        ("FSII", "FSII", 1e-7),
        ("Banzhaf", "BII", 1e-12),
    ],
)
def test_any_game(index, theirs, tolerance):
    shapiq = pytest.importorskip("shapiq")
    game = TableGame(np.random.default_rng(0).normal(size=2**7))
    peer = shapiq.ExactComputer(n_players=7, game=lambda S: game(np.asarray(S, bool)))
    found = interaction_values(game, 7, order=3, index=index)
    expected = peer(index=theirs, order=3)
    for T in found.subsets:
        assert found[T] == pytest.approx(expected[T], abs=tolerance)


@pytest.mark.parametrize("index", ["SII", "k-SII"])
def test_path_dependent_trees(index):
    shapiq = pytest.importorskip("shapiq")
    ensemble = pytest.importorskip("sklearn.ensemble")
    rng = np.random.default_rng(1)
    # Numbers that float32 holds: scikit-learn rounds rows to it, shapiq does not.
    X = np.round(rng.normal(size=(300, 6)) * 4) / 4
    y = X[:, 0] * X[:, 1] * X[:, 2] + X[:, 3]
    model = ensemble.RandomForestRegressor(5, max_depth=5, random_state=0).fit(X, y)
    found = tree_shap_interactions(model, X[:3], order=3, index=index)
    peer = shapiq.TreeExplainer(model, max_order=3, index=index)
    for row in range(3):
        told = {T: v for T, v in peer.explain(X[row]).dict_values.items() if T}
        for T in {*told, *found.subsets}:
            assert found[T][row] == pytest.approx(told.get(T, 0.0), abs=1e-12)
