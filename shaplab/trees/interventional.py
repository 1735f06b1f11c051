"""Independent Tree SHAP: exact Shapley values of the interventional game over a whole background.

v(S) averages f over background rows c with the features of S taken from x. The players of a leaf
are the features on its path; the leaf pays in a coalition if each of them sends the row it is taken
from (x for members, c for the others) along the path. So all that counts of a row is its *pattern*
(a *kind* of row in the chapter): one bit for each player, 1 if the row meets the player's splits.
Say x has the bits 10 and c has 01. Then x passes at the first player only and c at the second only,
so the leaf pays when the first is in and the second is not. The library counts the patterns of the
background once and looks those of x up in tables of 2^d patterns, for paths of d players. So the
cost adds rows and background, where the literal version takes O(rows x background x leaves) for
each tree.
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
    check_weights,
    column_names,
    compare_names,
    fail,
)
from shaplab.explanation import Explanation
from shaplab.trees._batches import PreparedGame, RowOptions, rows_a_batch
from shaplab.trees._families import interventional_plan
from shaplab.trees._linear import LinearPart
from shaplab.trees._paths import Paths
from shaplab.trees._plans import Jobs, threads
from shaplab.trees._players import players_of
from shaplab.trees.conditional_expectation import PaperTree
from shaplab.trees.ensemble import as_ensemble

__all__ = ["BackgroundTrees", "independent_tree_shap_literal", "interventional_tree_shap"]


def independent_tree_shap_literal(x: Any, refset: Any, tree: PaperTree) -> np.ndarray:
    """Algorithm 3 for one tree: values ``(d,)``, or ``(d, K)`` of leaves with K numbers, of an
    encoded row ``x`` ``(d,)`` over encoded background rows ``refset`` ``(R, d)``.

    Notes
    -----
    Three slips of the printed algorithm are mended: line 8 must ask for V = 0 (with U = 0 < V the
    leaf still has a negative part), lines 9 and 10 swap the arguments of CALCWEIGHT, and a tree of
    one leaf (line 22) credits nobody. The paper's lists of features that follow x or c are one
    table, ``owner``, as in the chapter.

    References
    ----------
    Lundberg et al. 2020, Algorithm 3.
    """
    nothing = 0.0 * tree.v[-1]  # of a leaf's shape; the last node is a leaf
    phi: list[Any] = [nothing] * len(x)

    def calcweight(U: int, V: int) -> float:
        return math.factorial(U) * math.factorial(V - U - 1) / math.factorial(V)

    def recurse(j: int, U: int, V: int, owner: dict[int, str], c: Any) -> tuple[Any, Any]:
        """What the leaves below node j pay to a player that followed x, and to one that followed c.

        V players have sent x and c different ways so far, each along the way of its owner, U of
        them along that of x.
        """
        if tree.v[j] is not None:
            pos = calcweight(U - 1, V) * tree.v[j] if U != 0 else nothing
            neg = -calcweight(U, V) * tree.v[j] if U != V else nothing
            return pos, neg
        d = tree.d[j]
        x_next = tree.a[j] if tree.left(x, j) else tree.b[j]
        c_next = tree.a[j] if tree.left(c, j) else tree.b[j]
        if x_next == c_next:
            return recurse(x_next, U, V, owner, c)
        if d in owner:
            return recurse(x_next if owner[d] == "x" else c_next, U, V, owner, c)
        posx, negx = recurse(x_next, U + 1, V + 1, owner | {d: "x"}, c)
        posc, negc = recurse(c_next, U, V + 1, owner | {d: "c"}, c)
        phi[d] = phi[d] + posx + negc
        return posx + posc, negx + negc

    for c in refset:
        recurse(0, 0, 0, {}, c)
    return np.array(phi) / len(refset)


class BackgroundTrees(PreparedGame):
    """A model with its background, prepared once: then single rows are explained at service
    latency.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM, CatBoost or scikit-learn tree model, or a ``TreeEnsemble``.
    background : rows ``(R, d)``, all of them used.
    weights : ``(R,)`` weights >= 0 of the background rows, equal by default.
    interactions : prepare interaction values instead of values.
    n_rows : rows expected in all calls together; decides how much is tabulated, which changes the
        time and not the numbers.
    memory_limit : bytes for tables kept between calls; above it tables are rebuilt in each call
        from histograms.
    n_jobs : threads that prepare, through joblib.
    route : "auto", "tables" (paths of at most 14 features) or "patterns"; the same numbers to
        rounding.
    groups, unions : as in ``interventional_tree_shap``; by name where the model, the background or
        ``feature_names`` name the features.
    feature_names : ``(d,)`` names of the features; by default the model's, else the tables'.

    Notes
    -----
    Call it on rows to get an ``Explanation``. Can be pickled; tables are left out and rebuilt at
    the first call. Exact for the interventional game. ``nbytes`` tells the memory held.

    Examples
    --------
    >>> prepared = BackgroundTrees(model, X_train)  # doctest: +SKIP
    >>> prepared(X_test[:1]).values  # doctest: +SKIP
    """

    _method = ("interventional_tree_shap", "interventional")

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
        groups: Any = None,
        unions: Any = None,
        feature_names: Any = None,
    ) -> None:
        check_choice(route, "route", ("auto", "tables", "patterns"))
        self.trees = as_ensemble(model, linear_leaves=not interactions and unions is None)
        self.interactions = bool(interactions)
        self.memory_limit = check_int(memory_limit, "memory_limit", minimum=0)
        self.columns = column_names(background)
        self.feature_names = check_names(feature_names, self.trees.n_columns, "feature_names")
        names = self.feature_names or self.trees.names_for(background)
        self.players = players_of(self.trees, groups, names, unions)
        codes = self.trees.encode(background, "background")
        self.weights = check_weights(weights, len(codes), "the background")
        n_rows = check_int(n_rows, "n_rows")
        paths = Paths(self.trees, self.players, walked=False)
        sizes = (n_rows, len(codes))
        plan = interventional_plan(paths, self.players, self.interactions, sizes, route)
        columns = np.ascontiguousarray(codes.T)
        self._plan = plan.prepare(columns, self.weights, threads(n_jobs))
        self._linear: LinearPart | None = None
        if self.trees.linear is not None:
            self._linear = LinearPart(
                self.trees, self.trees.linear, self.players, paths.arrays, background, self.weights
            )

    @property
    def nbytes(self) -> int:
        """Bytes held: trees, paths, histograms and, after the first call, tables."""
        linear = 0 if self._linear is None else self._linear.nbytes
        return self.trees.nbytes + self._plan.plan.paths.nbytes + self._plan.nbytes + linear

    @property
    def _trees_by_patterns(self) -> int:
        return int(self._plan.plan.by_patterns.sum())

    def __repr__(self) -> str:
        return (
            f"BackgroundTrees({self.trees.n_trees} trees, {len(self.weights)} background rows, "
            f"{self.nbytes / 1e6:.1f} MB, {self._trees_by_patterns} trees by patterns)"
        )

    def _names_of(self, X: Any) -> tuple[str, ...] | None:
        names = column_names(X)
        if names is not None and self.columns is not None:
            compare_names(self.columns, names, names, "X", "of the background")
        return self.feature_names or self.trees.names_for(X, None, self.columns)

    def _base(self, X: Any, values: np.ndarray, jobs: Jobs) -> np.ndarray:
        base = self._plan.expected()  # known only now: building tables finds the mean, too
        if self._linear is not None:
            self._linear.add(X, values, jobs)
            base = base + self._linear.expected()
        return base

    def _info(self) -> dict[str, Any]:
        return {"bytes": self.nbytes, "trees_by_patterns": self._trees_by_patterns}


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
    groups: Any = None,
    unions: Any = None,
    feature_names: Any = None,
) -> Explanation:
    """Independent Tree SHAP values: exact Shapley values of the interventional game.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM, CatBoost or scikit-learn tree model, a pipeline that ends in
        one, a ``TreeEnsemble``, or a ``BackgroundTrees``; ``TreeEnsemble.from_model`` lists them.
    X : array, table of pandas, polars or Arrow, or sparse matrix ``(N, d)``.
    background : rows ``(R, d)``, all of them used; omit it with a ``BackgroundTrees``.
    weights : ``(R,)`` weights >= 0 of the background rows, equal by default.
    n_jobs : threads, through joblib; the numbers do not depend on it.
    batch_size : rows explained at a time; bounds the memory beside the result.
    out : float64 array or ``np.memmap`` of the result's shape, filled batch by batch.
    progress : show a bar.
    route : "auto", "tables" or "patterns"; the same numbers to rounding.
    groups : lists of features explained together, by number or name, or a dict from group name to
        features; their splits are those of one player.
    unions : nested lists of features, or of groups, by number or name: Owen values, or Winter's, of
        players that stay together with their family.
    feature_names : ``(d,)`` names of the features; by default the model's, else those of the
        tables.

    Returns
    -------
    Explanation, values ``(N, d[, K])``, or ``(N, n_groups[, K])``, in units of the raw output; base
    value: mean output of the background.

    Notes
    -----
    Exact for its game. Cost adds rows and background where paths have at most 14 distinct features.
    Leaves of LightGBM's ``linear_tree`` are linear models; their part costs rows x background x
    leaves x features of a leaf.

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
    named = groups, unions, feature_names
    return explain_background(model, X, background, False, weights, route, named, options)


def explain_background(
    model: Any,
    X: Any,
    background: Any,
    pairs: bool,
    weights: Any,
    route: str,
    named: tuple[Any, Any, Any],
    options: RowOptions,
) -> Explanation:
    """Values, or interactions if ``pairs``, of the interventional game; ``named`` are the
    groups, the unions and the features' names that the caller gave."""
    prepared = model
    groups, unions, feature_names = named
    structured = groups is not None or unions is not None
    if isinstance(model, BackgroundTrees):
        if weights is not None or route != "auto" or structured:
            fail(
                "model",
                "the model itself beside weights, groups, unions or a route",
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
        if structured and feature_names is None and column_names(background) is None:
            feature_names = column_names(X)
        prepared = BackgroundTrees(
            model,
            background,
            weights=weights,
            interactions=pairs,
            n_rows=max(1, n_rows),
            n_jobs=options.n_jobs,
            memory_limit=2**28,
            route=route,
            groups=groups,
            unions=unions,
            feature_names=feature_names,
        )
        if options.batch_size is not None:
            check_int(options.batch_size, "batch_size")
        if n_rows <= rows_a_batch(prepared.trees, prepared.players, pairs, options):
            # One batch needs its tables once: they are built piece by piece, where the cache holds
            # them. Several batches would build them again each time.
            prepared.memory_limit = 0
    explanation = prepared(
        X,
        n_jobs=options.n_jobs,
        batch_size=options.batch_size,
        out=options.out,
        progress=options.progress,
    )
    names = check_names(feature_names, prepared.trees.n_columns, "feature_names")
    if names is None or prepared.players.grouped:
        return explanation
    return replace(explanation, feature_names=names)
