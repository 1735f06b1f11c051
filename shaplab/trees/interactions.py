"""SHAP interaction values of trees: how much two features do together beyond what each does alone.

``Phi_ij = sum over S without i, j of |S|! (M - |S| - 2)! / (2 (M - 1)!)`` ``[f_x(S + i + j) - f_x(S
+ j) - f_x(S + i) + f_x(S)]`` and ``Phi_ii = phi_i - sum over j of Phi_ij``. The literal version
runs Algorithm 2 (or 3) twice for each j, with j known and with j unknown; the fast ones add a
second-order term for every pair of players of a path. Beyond pairs, a leaf pays c times the product
of z + (o - z) present over its players, so for a set T of them the interaction is c times the
product of o - z over T times an integral of the product of z + (o - z) p over the others.
Source: Lundberg et al. 2020, Equations 15-19. Cost: O(T M L D^2) for each row, literally.
"""

from __future__ import annotations

from itertools import combinations
from math import factorial
from typing import Any, overload

import numpy as np

from shaplab._tables import as_rows
from shaplab._validation import check_frames, check_weights, column_names, fail
from shaplab.explanation import Explanation
from shaplab.foundations.interactions import Interactions
from shaplab.trees._batches import RowOptions
from shaplab.trees._players import players_of
from shaplab.trees._subsets import check_tree_order, tree_interactions
from shaplab.trees.conditional_expectation import PaperTree
from shaplab.trees.ensemble import as_ensemble
from shaplab.trees.interventional import (
    BackgroundTrees,
    explain_background,
    independent_tree_shap_literal,
)
from shaplab.trees.kernels.patterns import NO_BACKGROUND, Background
from shaplab.trees.path_dependent import explain_paths, tree_shap_literal

__all__ = [
    "interactions_literal",
    "interventional_interactions_literal",
    "leaf_interactions_literal",
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


def leaf_interactions_literal(
    x: Any, tree: PaperTree, order: int, reference: Any = None
) -> dict[tuple[int, ...], Any]:
    """SII of one tree, leaf by leaf and subset by subset; path-dependent, or interventional with a
    reference row."""
    found: dict[tuple[int, ...], Any] = {}

    def pay(c: Any, z: dict[int, float], o: dict[int, float]) -> None:
        for size in range(1, order + 1):
            for T in combinations(sorted(z), size):
                rest = [g for g in z if g not in T]
                mean: Any = 0.0
                for s in range(len(rest) + 1):
                    weight = factorial(s) * factorial(len(rest) - s) / factorial(len(rest) + 1)
                    for S in combinations(rest, s):
                        mean += weight * np.prod([o[g] if g in S else z[g] for g in rest])
                change = np.prod([o[g] - z[g] for g in T])
                found[T] = found.get(T, 0.0) + c * change * mean

    def walk(j: int, z: dict[int, float], o: dict[int, float]) -> None:
        if tree.v[j] is not None:
            pay(tree.v[j], z, o)
            return
        d = tree.d[j]
        for child, left in ((tree.a[j], True), (tree.b[j], False)):
            share = tree.r[child] / tree.r[j] if tree.r[j] > 0 else 0.0
            if reference is not None:
                share = float(tree.left(reference, j) == left)
            agrees = float(tree.left(x, j) == left)
            walk(child, {**z, d: z.get(d, 1.0) * share}, {**o, d: o.get(d, 1.0) * agrees})

    walk(0, {}, {})
    return found


def _with_diagonal(Phi: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Put main effects on the diagonal, so that rows sum to the Shapley values ``phi``."""
    for i in range(len(phi)):
        Phi[i, i] = 0.0
        Phi[i, i] = phi[i] - Phi[i].sum(axis=0)
    return Phi


@overload
def tree_shap_interactions(
    model: Any,
    X: Any,
    *,
    order: None = None,
    index: None = None,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    feature_names: Any = None,
) -> Explanation: ...


@overload
def tree_shap_interactions(
    model: Any,
    X: Any,
    *,
    order: int | None = None,
    index: str | None = None,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    feature_names: Any = None,
) -> Interactions: ...


def tree_shap_interactions(
    model: Any,
    X: Any,
    *,
    order: int | None = None,
    index: str | None = None,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    feature_names: Any = None,
) -> Any:
    """SHAP interaction values of the path-dependent game; with ``order`` or ``index`` those of all
    subsets of features up to that order.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM, CatBoost or scikit-learn tree model, a ``TreeEnsemble``, or a
        ``PreparedTrees(..., interactions=True)``.
    X : array, table of pandas, polars or Arrow, or sparse matrix ``(N, d)``.
    order : most features of a subset, from 2 on.
    index : "SII" (the default), "k-SII", "STII", "FSII", "Banzhaf" or "Moebius".
    n_jobs, batch_size, out, progress, route, groups, feature_names : as in ``tree_shap``; no
        ``out`` and no ``route`` beside ``order`` or ``index``.

    Returns
    -------
    Without ``order`` and ``index`` an Explanation, values ``(N, d, d[, K])``: half of each pair's
    interaction beside the diagonal, main effects on it; rows sum to the Shapley values. Else
    ``Interactions``, values ``(n_subsets, N[, K])`` of the subsets that meet on a path: all others
    have none.

    Notes
    -----
    Exact for its game; symmetric. Beyond pairs the cost is that of all subsets of the players of
    each leaf, for every row.
    There are no ``unions``: an index of interaction weighs coalitions with both of a pair absent,
    and for a pair from two unions those would take both unions apart at once, which unions forbid.
    How families interact as wholes: pass them as ``groups``.

    References
    ----------
    Lundberg et al. 2020, Equations 15-19.

    Examples
    --------
    >>> tree_shap_interactions(model, X).values.shape  # doctest: +SKIP
    (1000, 30, 30)
    >>> tree_shap_interactions(model, X, order=3)["age", "sex", "weight"]  # doctest: +SKIP
    """
    options = RowOptions(n_jobs, batch_size, out, progress)
    if order is not None or index is not None:
        trees = as_ensemble(model)
        X = as_rows(X, "X")
        players = players_of(trees, groups, trees.names_for(X, feature_names))
        kind = check_tree_order(players, order, index, route, out)
        return tree_interactions(trees, X, kind, NO_BACKGROUND, None, players, options)
    return explain_paths(model, X, True, route, (groups, None, feature_names), options)


@overload
def interventional_tree_shap_interactions(
    model: Any,
    X: Any,
    background: Any = None,
    *,
    order: None = None,
    index: None = None,
    weights: Any = None,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    feature_names: Any = None,
) -> Explanation: ...


@overload
def interventional_tree_shap_interactions(
    model: Any,
    X: Any,
    background: Any = None,
    *,
    order: int | None = None,
    index: str | None = None,
    weights: Any = None,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    feature_names: Any = None,
) -> Interactions: ...


def interventional_tree_shap_interactions(
    model: Any,
    X: Any,
    background: Any = None,
    *,
    order: int | None = None,
    index: str | None = None,
    weights: Any = None,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    feature_names: Any = None,
) -> Any:
    """SHAP interaction values of the interventional game; with ``order`` or ``index`` those of all
    subsets of features up to that order.

    Parameters
    ----------
    model : fitted tree model, ``TreeEnsemble`` or ``BackgroundTrees(..., interactions=True)``.
    X : array, table of pandas, polars or Arrow, or sparse matrix ``(N, d)``.
    background : rows ``(R, d)``, all of them used; omit it with a ``BackgroundTrees``.
    order, index : as in ``tree_shap_interactions``; they take the model itself and a background.
    weights, n_jobs, batch_size, out, progress, route, groups, feature_names : as in
        ``interventional_tree_shap``.

    Returns
    -------
    Explanation, values ``(N, d, d[, K])``, or ``Interactions``, as for ``tree_shap_interactions``.

    Notes
    -----
    Exact for its game; symmetric. Beyond pairs, each leaf compares the distinct patterns of rows
    and background. As for ``unions``, see :func:`tree_shap_interactions`.

    References
    ----------
    Lundberg et al. 2020, Equations 15-19, with f_x of Algorithm 3.

    Examples
    --------
    >>> interventional_tree_shap_interactions(model, X, X_train).values.shape  # doctest: +SKIP
    (1000, 30, 30)
    """
    options = RowOptions(n_jobs, batch_size, out, progress)
    if order is not None or index is not None:
        kind = (order, index)
        given = (background, weights, groups, feature_names)
        return _background_interactions(model, X, given, kind, route, options)
    named = groups, None, feature_names
    return explain_background(model, X, background, True, weights, route, named, options)


def _background_interactions(
    model: Any,
    X: Any,
    given: tuple[Any, Any, Any, Any],
    kind: tuple[int | None, str | None],
    route: str,
    options: RowOptions,
) -> Interactions:
    """Interactions of any order of the interventional game; ``given`` are background, weights,
    groups and feature names."""
    background, weights, groups, feature_names = given
    if isinstance(model, BackgroundTrees) or background is None:
        fail(
            "background",
            "the model itself and rows (R, d) beside an order or an index",
            "a BackgroundTrees" if isinstance(model, BackgroundTrees) else "None",
            "Pass the model and its background, such as training rows",
            TypeError,
        )
    trees = as_ensemble(model)
    X = as_rows(X, "X")
    check_frames(X, background)
    names = trees.names_for(X, feature_names, column_names(background))
    players = players_of(trees, groups, names)
    order, index = check_tree_order(players, *kind, route, options.out)
    codes = trees.encode(background, "background")
    shares = check_weights(weights, len(codes), "the background")
    expected = shares @ trees.predict_codes(codes)
    columns = np.ascontiguousarray(codes.T)
    rows = Background(columns, shares, np.zeros((1, 1)))
    return tree_interactions(trees, X, (order, index), rows, expected, players, options)
