"""Independent Tree SHAP: exact Shapley values of the interventional game over a whole background.

v(S) averages f over background rows c with the features of S taken from x. The players of a leaf
are the features on its path; the leaf pays in a coalition if each of them sends the row it is taken
from (x for members, c for the others) along the path. So all that counts of a row is its *pattern*:
which of the leaf's players send it along. With two players and patterns 10 of x and 01 of c the
leaf pays when the first is in and the second is not. The library counts the patterns of the
background once and looks those of x up in tables, so the cost adds rows and background instead of
multiplying them, as the literal version does: O(rows x background x leaves).
Source: Lundberg et al. 2020, Algorithm 3. The chapter trees/kernels derives the tables.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from shaplab._tables import as_rows
from shaplab._validation import (
    check_choice,
    check_frames,
    check_int,
    check_names,
    column_names,
    fail,
)
from shaplab.explanation import Explanation
from shaplab.trees._batches import RowOptions, explain_rows, tree_explanation
from shaplab.trees._encoding import compare_names
from shaplab.trees._paths import Paths
from shaplab.trees._plans import InterventionalPlan, threads
from shaplab.trees.conditional_expectation import PaperTree
from shaplab.trees.ensemble import as_ensemble

__all__ = ["BackgroundTrees", "independent_tree_shap_literal", "interventional_tree_shap"]


def independent_tree_shap_literal(x: Any, refset: Any, tree: PaperTree) -> np.ndarray:
    """Algorithm 3 for one tree: values of all features of an encoded row ``x`` over encoded
    background rows.

    Notes
    -----
    Three slips of the printed algorithm are mended: line 8 must ask for V = 0 (with U = 0 < V the
    leaf still has a negative part), lines 9 and 10 swap the arguments of CALCWEIGHT, and a single
    path (line 22) credits nobody.

    References
    ----------
    Lundberg et al. 2020, Algorithm 3.
    """
    # V players have sent x and c different ways so far, and U of them followed x; xlist and clist
    # tell which. A leaf returns what it pays to a player that followed x, and to one that did not.
    phi: list[Any] = [0.0] * len(x)

    def calcweight(U: int, V: int) -> float:
        return math.factorial(U) * math.factorial(V - U - 1) / math.factorial(V)

    def recurse(
        j: int, U: int, V: int, xlist: list[int], clist: list[int], c: Any
    ) -> tuple[Any, Any]:
        v = tree.v[j]
        d = tree.d[j]
        if v is not None:
            pos = calcweight(U - 1, V) * v if U != 0 else 0.0 * v
            neg = -calcweight(U, V) * v if U != V else 0.0 * v
            return pos, neg
        x_next = tree.a[j] if tree.left(x, j) else tree.b[j]
        c_next = tree.a[j] if tree.left(c, j) else tree.b[j]
        if xlist[d] > 0 or x_next == c_next:
            return recurse(x_next if clist[d] == 0 else c_next, U, V, xlist, clist, c)
        if clist[d] > 0:
            return recurse(c_next, U, V, xlist, clist, c)
        xlist[d] += 1
        posx, negx = recurse(x_next, U + 1, V + 1, xlist, clist, c)
        xlist[d] -= 1
        clist[d] += 1
        posc, negc = recurse(c_next, U, V + 1, xlist, clist, c)
        clist[d] -= 1
        phi[d] = phi[d] + posx + negc
        return posx + posc, negx + negc

    for c in refset:
        recurse(0, 0, 0, [0] * len(x), [0] * len(x), c)
    nothing = 0.0 * tree.v[-1]  # of an output's shape; the last node is a leaf
    return np.array([p + nothing for p in phi]) / len(refset)


class BackgroundTrees:
    """A model with its background, prepared once: then single rows are explained at service
    latency.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM or scikit-learn tree model, or a ``TreeEnsemble``.
    background : rows ``(R, d)``, all of them used.
    weights : ``(R,)`` weights >= 0 of the background rows, equal by default.
    interactions : prepare interaction values instead of values.
    n_rows : rows expected in all calls together; decides how much is tabulated.
    memory_limit : bytes for tables kept between calls; above it tables are rebuilt in each call
        from histograms.
    n_jobs : threads that prepare, through joblib.
    route : "auto", "tables" (paths of at most 14 features) or "patterns"; the same numbers to
        rounding.
    feature_names : ``(d,)`` names for the results; by default the model's, else the tables'.

    Notes
    -----
    Call it on rows to get an ``Explanation``. Can be pickled; tables are left out and rebuilt at
    the first call. Exact for the interventional game. ``nbytes`` tells the memory held.

    Examples
    --------
    >>> prepared = BackgroundTrees(model, X_train)  # doctest: +SKIP
    >>> prepared(X_test[:1]).values  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        background: Any,
        *,
        weights: Any = None,
        interactions: bool = False,
        n_rows: int = 1000,
        memory_limit: int = 2**30,
        n_jobs: int | None = 1,
        route: str = "auto",
        feature_names: Any = None,
    ) -> None:
        check_choice(route, "route", ("auto", "tables", "patterns"))
        self.trees = as_ensemble(model)
        self.interactions = bool(interactions)
        self.memory_limit = check_int(memory_limit, "memory_limit", minimum=0)
        self.columns = column_names(background)
        self.feature_names = check_names(feature_names, self.trees.n_features, "feature_names")
        codes = self.trees.encode(background, "background")
        self.weights = _check_weights(weights, len(codes))
        n_rows = check_int(n_rows, "n_rows")
        plan = InterventionalPlan(Paths(self.trees), self.interactions, n_rows, len(codes), route)
        columns = np.ascontiguousarray(codes.T)
        self._prepared = plan.prepare(columns, self.weights, threads(n_jobs))

    @property
    def nbytes(self) -> int:
        """Bytes held: trees, paths, histograms and, after the first call, tables."""
        return self.trees.nbytes + self._prepared.plan.paths.nbytes + self._prepared.nbytes

    @property
    def _trees_by_patterns(self) -> int:
        return int(self._prepared.plan.by_patterns.sum())

    def __repr__(self) -> str:
        return (
            f"BackgroundTrees({self.trees.n_trees} trees, {len(self.weights)} background rows, "
            f"{self.nbytes / 1e6:.1f} MB, {self._trees_by_patterns} trees by patterns)"
        )

    def __call__(
        self,
        X: Any,
        *,
        n_jobs: int | None = 1,
        batch_size: int | None = None,
        out: Any = None,
        progress: bool = False,
    ) -> Explanation:
        """Explain rows ``(N, d)``; arguments as in ``interventional_tree_shap``."""
        X = as_rows(X, "X")
        names = column_names(X)
        if names is not None and self.columns is not None:
            compare_names(self.columns, names, names, "X", "of the background")
        if batch_size is not None:
            check_int(batch_size, "batch_size")
        jobs = threads(n_jobs)
        self._prepared.keep_tables(self.memory_limit, jobs)
        names_of_result = self.feature_names or self.trees.names_for(X, None, self.columns)
        values = explain_rows(
            self.trees,
            X,
            self.interactions,
            lambda codes: self._prepared.sums(codes, jobs),
            RowOptions(n_jobs, batch_size, out, progress),
        )
        name = "interventional_tree_shap" + "_interactions" * self.interactions
        return tree_explanation(
            self.trees,
            X,
            values,
            self._prepared.expected(),
            names_of_result,
            method=f"{name} (interventional)",
            interaction=self.interactions,
            info={"bytes": self.nbytes, "trees_by_patterns": self._trees_by_patterns},
        )


def _check_weights(weights: Any, n_background: int) -> np.ndarray:
    """Weights of the background rows that sum to 1."""
    if weights is None:
        weights = np.ones(n_background)
    given = np.asarray(weights, np.float64)
    if (
        given.shape != (n_background,)
        or not np.isfinite(given).all()
        or (given < 0).any()
        or given.sum() <= 0
    ):
        fail(
            "weights",
            f"{n_background} finite numbers >= 0 with a positive sum",
            given,
            "Give one weight a background row",
        )
    return given / given.sum()


def interventional_tree_shap(
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
    feature_names: Any = None,
) -> Explanation:
    """Independent Tree SHAP values: exact Shapley values of the interventional game.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM or scikit-learn tree model, a ``TreeEnsemble``, or a
        ``BackgroundTrees``.
    X : array, table of pandas, polars or Arrow, or sparse matrix ``(N, d)``.
    background : rows ``(R, d)``, all of them used; omit it with a ``BackgroundTrees``.
    weights : ``(R,)`` weights >= 0 of the background rows, equal by default.
    n_jobs : threads, through joblib; the numbers do not depend on it.
    batch_size : rows explained at a time; bounds the memory beside the result.
    out : float64 array or ``np.memmap`` of the result's shape, filled batch by batch.
    progress : show a bar.
    route : "auto", "tables" or "patterns"; the same numbers to rounding.
    feature_names : ``(d,)`` names for the result; by default the model's, else those of the tables.

    Returns
    -------
    Explanation, values ``(N, d[, K])`` in units of the raw output; base value: mean output of the
    background.

    Notes
    -----
    Exact for its game. Cost adds rows and background where paths have at most 14 distinct features.

    References
    ----------
    Lundberg et al. 2020, Algorithm 3.

    Examples
    --------
    >>> from shaplab import TreeEnsemble, interventional_tree_shap
    >>> stump = TreeEnsemble.from_arrays(
    ...     [0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1], [0, 10.0, 20.0])
    >>> interventional_tree_shap(stump, [[1.0]], [[0.0], [0.2], [0.3], [0.9]]).values.tolist()
    [[7.5]]
    """
    options = RowOptions(n_jobs, batch_size, out, progress)
    return explain_background(model, X, background, False, weights, route, feature_names, options)


def explain_background(
    model: Any,
    X: Any,
    background: Any,
    pairs: bool,
    weights: Any,
    route: str,
    feature_names: Any,
    options: RowOptions,
) -> Explanation:
    """Values, or interactions if ``pairs``, of the interventional game."""
    prepared = model
    if isinstance(model, BackgroundTrees):
        if weights is not None or route != "auto":
            fail(
                "model",
                "the model itself beside weights or a route",
                repr(model),
                "Give them to BackgroundTrees, which prepares with them",
            )
        if background is not None or model.interactions != pairs:
            fail(
                "model",
                f"a BackgroundTrees made with interactions={pairs} and no further background",
                repr(model),
                "Prepare it for this function, or pass the model and the background",
            )
    else:
        if background is None:
            fail(
                "background",
                "rows (R, d)",
                "None",
                "Pass a background, such as training rows",
                TypeError,
            )
        X = as_rows(X, "X")
        check_frames(X, background)
        n_rows = X.shape[0] if X.shape else 0
        prepared = BackgroundTrees(
            model,
            background,
            weights=weights,
            interactions=pairs,
            n_rows=max(1, n_rows),
            n_jobs=options.n_jobs,
            # One batch needs its tables once; several would build them again each time.
            memory_limit=0 if n_rows <= 2**16 else 2**28,
            route=route,
            feature_names=feature_names,
        )
    explanation = prepared(
        X,
        n_jobs=options.n_jobs,
        batch_size=options.batch_size,
        out=options.out,
        progress=options.progress,
    )
    names = check_names(feature_names, prepared.trees.n_features, "feature_names")
    return explanation if names is None else replace(explanation, feature_names=names)
