"""Tree SHAP: exact Shapley values of the path-dependent game in polynomial time.

A leaf's game pays w times the product over the players of its path of z (cover share, player
absent) or b (1 if x satisfies the player's splits, player present), so phi_f = w * integral over p
in [0, 1] of (b_f - z_f) * prod over g != f of (z_g (1 - p) + b_g p) dp. The literal version is the
paper's Algorithm 2, which tracks subset sizes with EXTEND and UNWIND; the fast one integrates by
Gauss-Legendre nodes, exactly, with tables of bit patterns or blocks of rows.
Source: Lundberg et al. 2020, Algorithm 2. Cost: O(T L D^2) for each row, literally.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._tables import as_rows
from shaplab._validation import check_choice, check_int, check_names, fail
from shaplab.explanation import Explanation
from shaplab.trees._batches import PreparedGame, RowOptions
from shaplab.trees._families import path_plan
from shaplab.trees._paths import Paths
from shaplab.trees._players import players_of
from shaplab.trees.conditional_expectation import PaperTree
from shaplab.trees.ensemble import as_ensemble

__all__ = ["PreparedTrees", "tree_shap", "tree_shap_literal"]


def tree_shap_literal(
    x: Any, tree: PaperTree, *, fixed: int = -1, present: bool = False
) -> np.ndarray:
    """Algorithm 2 for one tree: values of all features of an encoded row ``x`` ``(M,)``.

    With ``fixed`` that feature is no player: known if ``present``, else averaged out; interaction
    values need both.

    Notes
    -----
    Printed line 20 ff. of the source divides by l, the length before extending; Equation 5 needs
    the length after, as UNWIND has it. Lines 16 and 17 belong to every split, not only to repeated
    features. A branch that no coalition can reach (z = o = 0, a node without cover) is left out.

    References
    ----------
    Lundberg et al. 2020, Algorithm 2.
    """
    phi: list[Any] = [0.0] * len(x)

    def recurse(j: int, m: list[list[Any]], fraction: float) -> None:
        if tree.v[j] is not None:
            for i in range(1, len(m)):
                w = sum(w for *_, w in unwind(m, i))
                d, z, o, _ = m[i]
                phi[d] = phi[d] + fraction * w * (o - z) * tree.v[j]
            return
        h, c = (tree.a[j], tree.b[j]) if tree.left(x, j) else (tree.b[j], tree.a[j])
        share = [tree.r[k] / tree.r[j] if tree.r[j] > 0 else 0.0 for k in (h, c)]
        if tree.d[j] == fixed:
            recurse(h, m, fraction if present else fraction * share[0])
            if not present:
                recurse(c, m, fraction * share[1])
            return
        i_z = 1.0
        i_o = 1.0
        k = next((k for k in range(1, len(m)) if m[k][0] == tree.d[j]), None)
        if k is not None:
            _, i_z, i_o, _ = m[k]
            m = unwind(m, k)
        for child, ratio, one in ((h, share[0], i_o), (c, share[1], 0.0)):
            if i_z * ratio > 0 or one > 0:
                recurse(child, extend(m, i_z * ratio, one, tree.d[j]), fraction)

    def extend(m: list[list[Any]], p_z: float, p_o: float, p_i: int) -> list[list[Any]]:
        m = [list(part) for part in m]
        m.append([p_i, p_z, p_o, 1.0 if not m else 0.0])
        l = len(m)
        for i in range(l - 1, 0, -1):
            m[i][3] += p_o * m[i - 1][3] * i / l
            m[i - 1][3] = p_z * m[i - 1][3] * (l - i) / l
        return m

    def unwind(m: list[list[Any]], i: int) -> list[list[Any]]:
        l = len(m)
        n = m[-1][3]
        _, z, o, _ = m[i]
        w = [part[3] for part in m]
        for j in range(l - 1, 0, -1):
            if o != 0:
                t = w[j - 1]
                w[j - 1] = n * l / (j * o)
                n = t - w[j - 1] * z * (l - j) / l
            else:
                w[j - 1] = w[j - 1] * l / (z * (l - j))
        kept = m[:i] + m[i + 1 :]
        return [[*part[:3], weight] for part, weight in zip(kept, w, strict=False)]

    recurse(0, extend([], 1.0, 1.0, -1), 1.0)
    return np.array([p + 0.0 * (tree.v[-1]) for p in phi])


class PreparedTrees(PreparedGame):
    """A model prepared for the path-dependent game: then single rows are explained at service
    latency.

    Parameters
    ----------
    model : as in ``tree_shap``.
    interactions : prepare interaction values instead of values.
    n_rows : rows expected in all calls together; decides how much is tabulated, which changes the
        time and not the numbers.
    memory_limit : bytes for tables kept between calls; what does not fit is walked. 0 keeps none:
        tables are built in each call.
    route : as in ``tree_shap``.
    groups, unions : as in ``tree_shap``; by name where the model or ``feature_names`` name the
        features.
    feature_names : ``(d,)`` names of the features; by default the model's, else the tables'.

    Notes
    -----
    Call it on rows to get an ``Explanation``, from several threads if you like. Can be pickled;
    tables are left out and rebuilt at the first call. Exact for the path-dependent game.
    ``nbytes`` tells the memory held.

    Examples
    --------
    >>> from shaplab import PreparedTrees, TreeEnsemble
    >>> prepared = PreparedTrees(TreeEnsemble.from_arrays(
    ...     [0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1], [0, 10.0, 20.0]))
    >>> prepared([[0.0]]).values.tolist(), prepared([[1.0]]).values.tolist()
    ([[-5.0]], [[5.0]])
    """

    _method = ("tree_shap", "path-dependent")

    def __init__(
        self,
        model: Any,
        *,
        interactions: bool = False,
        n_rows: int = 10_000,
        memory_limit: int = 2**30,
        route: str = "auto",
        groups: Any = None,
        unions: Any = None,
        feature_names: Any = None,
    ) -> None:
        check_choice(route, "route", ("auto", "tables", "walk"))
        self.trees = as_ensemble(model)
        self.interactions = bool(interactions)
        self.memory_limit = check_int(memory_limit, "memory_limit", minimum=0)
        self.feature_names = check_names(feature_names, self.trees.n_columns, "feature_names")
        names = self.feature_names or self.trees.names_for(None)
        self.players = players_of(self.trees, groups, names, unions)
        n_rows = check_int(n_rows, "n_rows")
        paths = Paths(self.trees, self.players)
        self._plan = path_plan(paths, self.players, self.interactions, n_rows, route)
        # Tables that cannot be kept are built again in each call, which is dearer than walking: a
        # plan for fewer rows has smaller ones.
        while 0 < self.memory_limit < self._plan.table_bytes and route == "auto":
            n_rows = n_rows // 4
            route = "auto" if n_rows else "walk"
            n_planned = max(1, n_rows)
            self._plan = path_plan(paths, self.players, self.interactions, n_planned, route)

    @property
    def nbytes(self) -> int:
        """Bytes held: trees, paths and, after the first call, tables."""
        return self.trees.nbytes + self._plan.paths.nbytes + self._plan.nbytes

    @property
    def _walked_trees(self) -> int:
        return int(self._plan.walked.sum())

    def __repr__(self) -> str:
        return (
            f"PreparedTrees({self.trees.n_trees} trees, {self.nbytes / 1e6:.1f} MB, "
            f"{self._walked_trees} trees walked)"
        )

    def _info(self) -> dict[str, Any]:
        walked = self._walked_trees
        return {"walked_trees": walked, "tabulated_trees": self.trees.n_trees - walked}


def tree_shap(
    model: Any,
    X: Any,
    *,
    n_jobs: int | None = 1,
    batch_size: int | None = None,
    out: Any = None,
    progress: bool = False,
    route: str = "auto",
    groups: Any = None,
    unions: Any = None,
    feature_names: Any = None,
) -> Explanation:
    """Tree SHAP values: exact Shapley values of the path-dependent game (Algorithm 1).

    Parameters
    ----------
    model : fitted XGBoost, LightGBM, CatBoost or scikit-learn tree model, a pipeline that ends in
        one, a ``TreeEnsemble``, or a ``PreparedTrees``; ``TreeEnsemble.from_model`` lists them.
    X : array, table of pandas, polars or Arrow, or sparse matrix ``(N, d)``.
    n_jobs : threads, through joblib; the numbers do not depend on it.
    batch_size : rows encoded and explained at a time; bounds the memory beside the result.
    out : float64 array or ``np.memmap`` of the result's shape, filled batch by batch.
    progress : show a bar.
    route : "auto", "tables" (paths of at most 14 features) or "walk"; the same numbers to rounding.
    groups : lists of features explained together, by number or name, or a dict from group name to
        features; their splits are those of one player.
    unions : nested lists of features, or of groups, by number or name: Owen values, or Winter's, of
        players that stay together with their family.
    feature_names : ``(d,)`` names of the features; by default the model's, else those of ``X``.

    Returns
    -------
    Explanation, values ``(N, d[, K])``, or ``(N, n_groups[, K])``, in units of the raw output.

    Notes
    -----
    Exact for its game, additive to rounding; groups cost nothing, unions take each path by itself,
    O(D^2) for each pattern of rows. Paths of more than 16 distinct features use a shorter
    rule whose error is below 1e-11 of a leaf's output. Missing values and categories follow the
    model's own directions. A ``base_margin`` (exposure) that XGBoost's ``predict`` may be given is
    no part of the raw output; there it replaces ``TreeEnsemble.base``, so add the difference to the
    base values.

    References
    ----------
    Lundberg et al. 2020, Algorithms 1 and 2, Equation 5.

    Examples
    --------
    >>> from shaplab import TreeEnsemble, tree_shap
    >>> stump = TreeEnsemble.from_arrays(
    ...     [0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1], [0, 10.0, 20.0])
    >>> tree_shap(stump, [[0.0], [1.0]]).values.tolist()
    [[-5.0], [5.0]]
    """
    options = RowOptions(n_jobs, batch_size, out, progress)
    return explain_paths(model, X, False, route, (groups, unions, feature_names), options)


def explain_paths(
    model: Any,
    X: Any,
    pairs: bool,
    route: str,
    named: tuple[Any, Any, Any],
    options: RowOptions,
) -> Explanation:
    """Values, or interactions if ``pairs``, of the path-dependent game; ``named`` are the groups,
    the unions and the features' names that the caller gave."""
    groups, unions, feature_names = named
    if isinstance(model, PreparedTrees):
        if route != "auto" or any(given is not None for given in named):
            fail(
                "model",
                "the model itself beside groups, unions, names or a route",
                repr(model),
                "Give them to PreparedTrees, which prepares with them",
            )
        if model.interactions != pairs:
            fail(
                "model",
                f"a PreparedTrees made with interactions={pairs}",
                repr(model),
                "Prepare it for this function, or pass the model",
            )
        prepared = model
    else:
        trees = as_ensemble(model)
        X = as_rows(X, "X")
        batch = 65536
        if options.batch_size is not None:
            batch = check_int(options.batch_size, "batch_size")
        n_rows = X.shape[0] if X.shape else 0
        if feature_names is None and (groups is not None or unions is not None):
            found = trees.names_for(X)
            feature_names = found if found and len(found) == trees.n_columns else None
        # Rows of one call need their tables once: they are built piece by piece, where the cache
        # holds them.
        prepared = PreparedTrees(
            trees,
            interactions=pairs,
            n_rows=min(max(1, n_rows), batch),
            memory_limit=0,
            route=route,
            groups=groups,
            unions=unions,
            feature_names=feature_names,
        )
    return prepared(
        X,
        n_jobs=options.n_jobs,
        batch_size=options.batch_size,
        out=options.out,
        progress=options.progress,
    )
