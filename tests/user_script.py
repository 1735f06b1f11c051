"""A small script as a user would write it: type checkers must see real types in it, not Any."""

from typing import assert_type

import numpy as np

import shaplab
from shaplab import Explanation, Interactions, TreeEnsemble, plots

rng = np.random.default_rng(0)
X = rng.normal(size=(20, 3))


def model(table: np.ndarray) -> np.ndarray:
    return table[:, 0] * table[:, 1]


explained = shaplab.permutation_shap(model, X, X, rng=0)
assert_type(explained, Explanation)
assert_type(explained.values, np.ndarray)
assert_type(explained[:2], Explanation)
assert_type(shaplab.kernel_shap(model, X, X), Explanation)
assert_type(shaplab.exact_shap(model, X, X).feature_names, tuple[str, ...] | None)
assert_type(shaplab.shapley_values(shaplab.company_game(), 5), np.ndarray)
game = shaplab.company_game()
assert_type(shaplab.interaction_values(game, 5), np.ndarray)
assert_type(shaplab.interaction_values(game, 5, order=3), Interactions)
assert_type(shaplab.interaction_values(game, 5, index="STII"), Interactions)
assert_type(shaplab.interaction_values(game, 5, max_evaluations=200), Interactions)
trees = TreeEnsemble.from_model(None)
assert_type(shaplab.tree_shap_interactions(trees, X), Explanation)
triples = shaplab.tree_shap_interactions(trees, X, order=3)
assert_type(triples, Interactions)
assert_type(triples.values, np.ndarray)
assert_type(shaplab.interventional_tree_shap_interactions(trees, X, X, order=3), Interactions)
plots.interaction_bars(triples)
assert_type(shaplab.tree_shap(TreeEnsemble.from_model(None), X), Explanation)
deep = shaplab.deep_shap(None, X, X)
assert isinstance(deep, Explanation)  # for a network with several inputs it is a tuple
assert_type(shaplab.sage(model, X, X[:, 0], X), Explanation)
plots.beeswarm(explained)
