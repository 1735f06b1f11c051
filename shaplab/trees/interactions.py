"""SHAP interaction values of trees: how much two features do together beyond what each does alone.

``Phi_ij = sum over S without i, j of |S|! (M - |S| - 2)! / (2 (M - 1)!)`` ``[f_x(S + i + j) - f_x(S
+ j) - f_x(S + i) + f_x(S)]`` and ``Phi_ii = phi_i - sum over j of Phi_ij``. The literal version
runs Algorithm 2 (or 3) twice for each j, with j known and with j unknown; the fast ones add a
second-order term for every pair of players of a path.
Source: Lundberg et al. 2020, Equations 15-19. Cost: O(T M L D^2) for each row, literally.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab.explanation import Explanation
from shaplab.trees._batches import RowOptions
from shaplab.trees.conditional_expectation import PaperTree
from shaplab.trees.interventional import explain_background, independent_tree_shap_literal
from shaplab.trees.path_dependent import explain_paths, tree_shap_literal

__all__ = [
    "interactions_literal",
    "interventional_interactions_literal",
    "interventional_tree_shap_interactions",
    "tree_shap_interactions",
]


def interactions_literal(x: Any, tree: PaperTree) -> np.ndarray:
    """Equations 15-18 for one tree by two runs of Algorithm 2 for each feature, ``(M, M[, K])``.

    References
    ----------
    Lundberg et al. 2020, Equations 15-18.
    """
    columns = []
    for j in range(len(x)):
        known = tree_shap_literal(x, tree, fixed=j, present=True)
        unknown = tree_shap_literal(x, tree, fixed=j)
        columns.append((known - unknown) / 2)
    return _with_diagonal(np.stack(columns, axis=1), tree_shap_literal(x, tree))


def interventional_interactions_literal(x: Any, refset: Any, tree: PaperTree) -> np.ndarray:
    """The same for the interventional game, by two runs of Algorithm 3 for each feature and
    background row.

    Feature j is known to both sides when the reference has x's value, and to neither when x has the
    reference's.
    """
    parts = []
    for c in refset:
        columns = []
        for j in range(len(x)):
            c_known = np.array(c)
            c_known[j] = x[j]
            x_unknown = np.array(x)
            x_unknown[j] = c[j]
            known = independent_tree_shap_literal(x, [c_known], tree)
            unknown = independent_tree_shap_literal(x_unknown, [c], tree)
            columns.append((known - unknown) / 2)
        parts.append(np.stack(columns, axis=1))
    return _with_diagonal(np.mean(parts, axis=0), independent_tree_shap_literal(x, refset, tree))


def _with_diagonal(Phi: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Put main effects on the diagonal, so that rows sum to the Shapley values ``phi``."""
    for i in range(len(phi)):
        Phi[i, i] = 0.0
        Phi[i, i] = phi[i] - Phi[i].sum(axis=0)
    return Phi


def tree_shap_interactions(
    model: Any,
    X: Any,
    *,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    feature_names: Any = None,
) -> Explanation:
    """SHAP interaction values of the path-dependent game.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM or scikit-learn tree model, or a ``TreeEnsemble``.
    X : array, table of pandas, polars or Arrow, or sparse matrix ``(N, d)``.
    n_jobs, batch_size, out, progress, route, groups, feature_names : as in ``tree_shap``.

    Returns
    -------
    Explanation, values ``(N, d, d[, K])``: half of each pair's interaction beside the diagonal,
    main effects on it; rows sum to the Shapley values.

    Notes
    -----
    Exact for its game; symmetric.

    References
    ----------
    Lundberg et al. 2020, Equations 15-19.

    Examples
    --------
    >>> tree_shap_interactions(model, X).values.shape  # doctest: +SKIP
    (1000, 30, 30)
    """
    options = RowOptions(n_jobs, batch_size, out, progress)
    return explain_paths(model, X, True, route, (groups, feature_names), options)


def interventional_tree_shap_interactions(
    model: Any,
    X: Any,
    background: Any = None,
    *,
    weights: Any = None,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    feature_names: Any = None,
) -> Explanation:
    """SHAP interaction values of the interventional game.

    Parameters
    ----------
    model : fitted tree model, ``TreeEnsemble`` or ``BackgroundTrees(..., interactions=True)``.
    X : array, table of pandas, polars or Arrow, or sparse matrix ``(N, d)``.
    background : rows ``(R, d)``, all of them used; omit it with a ``BackgroundTrees``.
    weights, n_jobs, batch_size, out, progress, route, groups, feature_names : as in
        ``interventional_tree_shap``.

    Returns
    -------
    Explanation, values ``(N, d, d[, K])``, as for ``tree_shap_interactions``.

    Notes
    -----
    Exact for its game; symmetric.

    References
    ----------
    Lundberg et al. 2020, Equations 15-19, with f_x of Algorithm 3.

    Examples
    --------
    >>> interventional_tree_shap_interactions(model, X, X_train).values.shape  # doctest: +SKIP
    (1000, 30, 30)
    """
    options = RowOptions(n_jobs, batch_size, out, progress)
    named = groups, feature_names
    return explain_background(model, X, background, True, weights, route, named, options)
