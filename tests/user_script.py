"""A small script as a user would write it: type checkers must see real types in it, not Any."""

from typing import assert_type

import numpy as np

import shaplab
from shaplab import Explanation, TreeEnsemble, plots

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
assert_type(shaplab.tree_shap(TreeEnsemble.from_model(None), X), Explanation)
deep = shaplab.deep_shap(None, X, X)
assert isinstance(deep, Explanation)  # for a network with several inputs it is a tuple
assert_type(shaplab.sage(model, X, X[:, 0], X), Explanation)
plots.beeswarm(explained)
