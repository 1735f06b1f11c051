"""The path-dependent game by its definition, and what people used before it.

Algorithm 1 estimates f_x(S) = E[f(x) | x_S] by following x at splits on known features and
averaging both branches by cover at the others; Equation 5 averages its changes over all orderings.
Saabas values use the single ordering of the decision path. Gain, split count and permutation are
global importances.
Source: Lundberg et al. 2020, Methods 5, 6, 9 and 10.1.1. Cost: O(T L M 2^M) for Equation 5.

A node without cover gives both children weight 0: 0/0 counts as 0 here and in every fast algorithm.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shaplab._parallel import chunks
from shaplab._tables import as_rows, displayed
from shaplab._validation import fail, row_labels
from shaplab.explanation import Explanation
from shaplab.trees.ensemble import as_ensemble

__all__ = [
    "PaperTree",
    "exp_value_literal",
    "gain_importance",
    "paper_trees",
    "path_dependent_game",
    "saabas",
    "saabas_literal",
    "shap_values_literal",
    "split_count",
]


@dataclass(frozen=True)
class PaperTree:
    """A tree in the paper's symbols, root 0: values v (None if internal), children a (left) and b
    (right), cover r, split feature d, and ``left(x, j)``, the test x_{d_j} <= t_j of an encoded row
    x."""

    v: list[Any]
    a: list[int]
    b: list[int]
    r: list[float]
    d: list[int]
    left: Callable[[Any, int], bool]


def paper_trees(model: Any) -> Iterator[PaperTree]:
    """Yield the trees of a model for the literal algorithms; encode rows with
    ``as_ensemble(model).encode``."""
    e = as_ensemble(model)
    for start, stop in itertools.pairwise(e.tree_start):

        def left(x: Any, j: int, start: int = start) -> bool:
            node = start + j
            code = x[e.feature[node]]
            if code < 0:
                return bool(e.missing_left[node])
            return bool(
                e.set_bits[e.set_start[node] + code]
                if e.set_start[node] >= 0
                else code < e.rank[node]
            )

        part = slice(start, stop)
        leaf = e.feature[part] < 0
        values = e.value[part] if e.has_outputs else e.value[part, 0]
        v = [w if end else None for end, w in zip(leaf, values, strict=True)]
        yield PaperTree(
            v,
            list(e.left[part] - start),
            list(e.right[part] - start),
            list(e.cover[part]),
            list(e.feature[part]),
            left,
        )


def exp_value_literal(x: Any, S: Iterable[int], tree: PaperTree, root: int = 0) -> Any:
    """Algorithm 1: the estimate of E[f(x) | x_S] for one tree.

    Parameters
    ----------
    x : encoded row ``(M,)``.
    S : features that are known.
    tree : from ``paper_trees``.
    root : node to start from; the paper's node 1 is our 0.

    References
    ----------
    Lundberg et al. 2020, Algorithm 1.
    """
    v = tree.v
    a = tree.a
    b = tree.b
    r = tree.r
    d = tree.d
    known = set(S)

    def G(j: int) -> Any:
        if v[j] is not None:
            return v[j]
        if d[j] in known:
            return G(a[j]) if tree.left(x, j) else G(b[j])
        return (G(a[j]) * r[a[j]] + G(b[j]) * r[b[j]]) / r[j] if r[j] > 0 else 0.0 * G(a[j])

    return G(root)


def shap_values_literal(x: Any, f: Callable[[frozenset[int]], Any], M: int) -> Any:
    """Equation 5: average the change when each feature joins, over all M! orderings.

    Parameters
    ----------
    x : the row, kept for the paper's notation; ``f`` already knows it.
    f : ``f_x(S)``, for trees the sum of ``exp_value_literal(x, S, tree)``.
    M : number of features, at most 9 in practice.

    References
    ----------
    Lundberg et al. 2020, Equation 5.
    """
    worth = {
        frozenset(S): f(frozenset(S))
        for size in range(M + 1)
        for S in itertools.combinations(range(M), size)
    }
    phi = [0.0 * worth[frozenset()] for _ in range(M)]
    for R in itertools.permutations(range(M)):
        P: frozenset[int] = frozenset()
        for i in R:
            phi[i] = phi[i] + (worth[P | {i}] - worth[P]) / math.factorial(M)
            P = P | {i}
    return np.array(phi)


def path_dependent_game(model: Any, X: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The path-dependent tree game as a callable, for any method that takes games.

    Parameters
    ----------
    model : fitted tree model or ``TreeEnsemble``.
    X : rows ``(N, d)``.

    Returns
    -------
    callable ``v(S)``: boolean ``(m, d)`` to float64 ``(m, N[, K])``, Algorithm 1 summed over trees
    plus the base.

    Notes
    -----
    Exact; costs one pass over all nodes with ``m * N`` numbers each.

    References
    ----------
    Lundberg et al. 2020, Algorithm 1.
    """
    e = as_ensemble(model)
    codes = e.encode(X)
    trees = list(paper_trees(e))

    def game(S: np.ndarray) -> np.ndarray:
        S = np.atleast_2d(np.asarray(S, bool))
        if S.shape[1] != e.n_columns:
            fail("S", f"shape (m, {e.n_columns})", S, "Give one column for each feature")
        S = S[:, e.owner]

        def G(tree: PaperTree, went: list[np.ndarray], j: int) -> np.ndarray:
            if tree.v[j] is not None:
                return np.broadcast_to(np.reshape(tree.v[j], (1, 1, -1)), (1, 1, e.n_outputs))
            left = G(tree, went, tree.a[j])
            right = G(tree, went, tree.b[j])
            share = (
                (tree.r[tree.a[j]] / tree.r[j], tree.r[tree.b[j]] / tree.r[j])
                if tree.r[j] > 0
                else (0.0, 0.0)
            )
            known = S[:, tree.d[j], None, None]
            return np.where(
                known,
                np.where(went[j][None, :, None], left, right),
                left * share[0] + right * share[1],
            )

        total = np.zeros((len(S), len(codes), e.n_outputs)) + e.base
        for tree in trees:
            went = [
                np.array([tree.v[j] is None and tree.left(x, j) for x in codes])
                for j in range(len(tree.v))
            ]
            total = total + G(tree, went, 0)
        return total if e.has_outputs else total[..., 0]

    return game


def _node_means(e: Any) -> np.ndarray:
    """Expected output of every node by covers, ``(n_nodes, K)``: Algorithm 1 with S empty, from
    each node."""
    mean = np.array(e.value)
    for node in range(len(e.feature) - 1, -1, -1):  # children have larger ids
        if e.feature[node] >= 0:
            l = e.left[node]
            r = e.right[node]
            mean[node] = (
                (e.cover[l] * mean[l] + e.cover[r] * mean[r]) / e.cover[node]
                if e.cover[node] > 0
                else 0.0
            )
    return mean


def saabas_literal(x: Any, tree: PaperTree) -> Any:
    """Saabas values of one tree: the change of the node's expectation at each split of x's path, to
    its feature.

    Where no feature splits twice below one of its splits this is Equation 1 of the source; there,
    f_x(A_j) already follows x at later splits on the same features, here the node's mean does not.

    References
    ----------
    Lundberg et al. 2020, Equation 1.
    """
    phi: dict[int, Any] = {}
    j = 0
    while tree.v[j] is None:
        child = tree.a[j] if tree.left(x, j) else tree.b[j]
        change = exp_value_literal(x, (), tree, child) - exp_value_literal(x, (), tree, j)
        phi[tree.d[j]] = phi.get(tree.d[j], 0.0) + change
        j = child
    return phi


def saabas(model: Any, X: Any, *, feature_names: Any = None) -> Explanation:
    """Saabas values: the decision path's own ordering instead of all orderings.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM, CatBoost or scikit-learn tree model, or a ``TreeEnsemble``.
    X : rows ``(N, d)``.
    feature_names : ``(d,)`` names for the result; by default the model's, else those of ``X``.

    Returns
    -------
    Explanation, values ``(N, d[, K])`` in units of the raw output.

    Notes
    -----
    A heuristic, not Shapley values: splits near the root get too little credit. Adds up to the
    output. Cost O(N T D).

    References
    ----------
    Lundberg et al. 2020, Methods 6.

    Examples
    --------
    >>> saabas(model, X).values.shape  # doctest: +SKIP
    (1000, 30)
    """
    e, X = as_ensemble(model), as_rows(X, "X")
    codes = e.encode(X)
    mean = _node_means(e)
    values = np.zeros((len(codes), e.n_columns, e.n_outputs))
    for part in chunks(len(codes), max(1, 2**20 // max(1, e.n_trees))):
        here = codes[part]
        row = np.repeat(np.arange(len(here)), e.n_trees)
        node = np.tile(e.roots, len(here))
        flat = np.zeros((len(here) * e.n_columns, e.n_outputs))
        while (inner := e.feature[node] >= 0).any():
            row, node = row[inner], node[inner]
            f = e.feature[node]
            code = here[row, f]
            bits = e.set_bits if len(e.set_bits) else np.zeros(1, np.uint8)
            member = (
                bits[np.where(e.set_start[node] >= 0, e.set_start[node] + np.maximum(code, 0), 0)]
                == 1
            )
            known = np.where(e.set_start[node] >= 0, member, code < e.rank[node])
            goes = np.where(code < 0, e.missing_left[node], known)
            child = np.where(goes, e.left[node], e.right[node])
            for k in range(e.n_outputs):
                flat[:, k] += np.bincount(
                    row * e.n_columns + e.owner[f], mean[child, k] - mean[node, k], len(flat)
                )
            node = child
        values[part] = flat.reshape(len(here), e.n_columns, -1)
    base = np.broadcast_to(
        e.base + (mean[e.roots].sum(axis=0) if e.n_trees else 0.0), (len(codes), e.n_outputs)
    )
    return Explanation(
        values if e.has_outputs else values[..., 0],
        base if e.has_outputs else base[:, 0],
        data=displayed(X),
        feature_names=e.names_for(X, feature_names),
        output_names=e.output_names,
        index=row_labels(X),
        method="saabas",
    )


def split_count(model: Any) -> np.ndarray:
    """How often each feature splits, ``(d,)``: a global importance that ignores what a split does
    (Methods 5).

    Parameters: ``model``, anything that ``TreeEnsemble.from_model`` reads.
    """
    e = as_ensemble(model)
    return np.bincount(e.column[e.feature >= 0], minlength=e.n_columns).astype(float)


def gain_importance(model: Any) -> np.ndarray:
    """Gain of each feature, ``(d,)``: the drop in squared error of the covers' output, summed over
    its splits.

    For a regression tree with row covers this is the training gain; for boosted trees it is the
    gain of the tree's own outputs, r_a r_b / r (mean_a - mean_b)^2 for each split. Source: Lundberg
    et al. 2020, Methods 5. Parameters as in ``split_count``.
    """
    e = as_ensemble(model)
    mean = _node_means(e)
    inner = np.flatnonzero(e.feature >= 0)
    a = e.left[inner]
    b = e.right[inner]
    total = e.cover[a] + e.cover[b]
    weight = np.divide(e.cover[a] * e.cover[b], total, out=np.zeros(len(inner)), where=total > 0)
    return np.bincount(
        e.column[inner], weight * ((mean[a] - mean[b]) ** 2).sum(axis=1), e.n_columns
    )
