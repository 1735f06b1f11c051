"""One representation of tree models: flat arrays, integer comparisons, the library's own raw
output.

A tree model is ``f(x) = base + sum over trees t of value[leaf_t(x)]``. Inner node ``j`` sends a row
left iff ``code < rank[j]`` where ``code`` counts the thresholds of feature ``j`` below the row's
value (see ``Encoder``), or iff the code lies in a set of categories; missing values have their own
direction. ``cover[j]`` is the training weight that reached the node; the conditional expectation of
the path-dependent game splits by it (Lundberg et al. 2020, Algorithm 1).

Chapter: trees/conditional_expectation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from shaplab._parallel import chunks
from shaplab._pipelines import (
    PipelineSteps,
    at_the_end_of,
    is_pipeline,
    model_at_the_end,
    steps_before,
)
from shaplab._remedies import named_as, sampled_instead
from shaplab._tables import as_rows
from shaplab._validation import (
    UnsupportedModelError,
    check_choice,
    check_names,
    column_names,
    describe,
    fail,
)
from shaplab.trees._encoding import Encoder
from shaplab.trees._links import LINKS
from shaplab.trees.kernels.linear import LinearLeaves, add_linear_outputs
from shaplab.trees.kernels.predict import Nodes, find_leaves, predict_rows
from shaplab.trees.readers import read_model
from shaplab.trees.readers._arrange import DAMAGED, RawTrees, arrange, increases_to

__all__ = ["TreeEnsemble", "as_ensemble"]

_LEAVES_AT_ONCE = 65_536  # rows times trees whose leaves are counted together
_ARRAY_TYPES = {
    "tree_start": np.int64,
    "feature": np.int32,
    "left": np.int32,
    "right": np.int32,
    "rank": np.int32,
    "missing_left": np.bool_,
    "set_start": np.int32,
    "set_bits": np.uint8,
    "cover": np.float64,
    "value": np.float64,
    "base": np.float64,
    "threshold": np.float64,
}


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """A tree model as read-only arrays; made by ``from_model`` or ``from_arrays``.

    Children have larger ids than their parent and stand next to each other; trees follow each
    other.

    Attributes
    ----------
    tree_start : int64 ``(T+1,)``; nodes of tree ``t`` are ``tree_start[t]:tree_start[t+1]``, root
        first.
    feature : int32 ``(n_nodes,)``, -1 for leaves.
    left, right : int32 ``(n_nodes,)``, -1 for leaves.
    rank : int32 ``(n_nodes,)``; at a numeric split a row goes left iff ``code < rank``.
    missing_left : bool ``(n_nodes,)``; where ``code == -1`` goes.
    set_start : int32 ``(n_nodes,)``; -1 at numeric splits, else a row goes left iff
        ``set_bits[set_start + code] == 1``.
    set_bits : uint8; one entry for each code of the feature, the last one for unseen categories.
    cover : float64 ``(n_nodes,)``; what the library records: sum of Hessians (XGBoost), row counts
        (LightGBM, histogram boosting), sample weights (CatBoost, scikit-learn).
    value : float64 ``(n_nodes, K)``; outputs at leaves, already scaled; 0 at inner nodes.
    base : float64 ``(K,)``, added once.
    threshold : float64 ``(n_nodes,)``; the library's threshold, NaN at leaves and sets, for
        display.
    encoder : ``encode(X)`` gives the codes, int32 ``(N, d)``.
    has_outputs : bool; False when the model has a single output and results drop the output axis.
    link : what the raw output means, by what turns it into the library's prediction: "identity" (a
        number), "probability" and "probabilities" (of one or several targets; nothing to turn),
        "log-odds" (predicted as such), "logistic" (of ``link_factor`` times each output),
        "softmax", "exp", "softplus", "signed_square" (``raw |raw|``), "isolation" (``-2 ** -raw``),
        "other"
        (no formula known) or "" (nothing is known, as for objectives of your own).
    link_factor : see "logistic".
    before : the steps of a pipeline before its model, or None. Then ``encode`` and ``predict`` take
        rows of the pipeline, whose ``n_columns`` columns are the players of every game.
    linear : what leaves that are linear models pay on top of their ``value``, or None; of such
        trees only the values of the interventional game are known.
    """

    tree_start: np.ndarray
    feature: np.ndarray
    left: np.ndarray
    right: np.ndarray
    rank: np.ndarray
    missing_left: np.ndarray
    set_start: np.ndarray
    set_bits: np.ndarray
    cover: np.ndarray
    value: np.ndarray
    base: np.ndarray
    threshold: np.ndarray
    encoder: Encoder
    compare: str = "<="
    has_outputs: bool = False
    n_features: int = 0
    feature_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    objective: str = ""
    link: str = ""
    link_factor: float = 1.0
    before: PipelineSteps | None = None
    linear: LinearLeaves | None = None

    def __post_init__(self) -> None:
        for name, dtype in _ARRAY_TYPES.items():
            array: np.ndarray = np.ascontiguousarray(getattr(self, name), dtype)
            if array is getattr(self, name) and array.flags.writeable:
                array = array.copy()
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        self._check()

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, item.name) for item in fields(self))

    @classmethod
    def from_model(
        cls,
        model: Any,
        *,
        missing: float | None = None,
        iteration_range: tuple[int, int] | None = None,
        link: str | None = None,
    ) -> TreeEnsemble:
        """Read a fitted XGBoost, LightGBM, CatBoost or scikit-learn model through its public parts.

        Parameters
        ----------
        model : the fitted model; ``xgboost.Booster``, ``lightgbm.Booster``, their scikit-learn
            classes, CatBoost's classes, scikit-learn's trees, forests, gradient boosting and
            isolation forest; bagging, voting, AdaBoost's classifier and one model for each target
            over these; a search, for its best model; or a ``Pipeline`` that ends in one of these.
        missing : value that means missing beside NaN; only for ``xgboost.Booster``, whose
            ``DMatrix`` took it.
        iteration_range : boosting rounds ``(first, last)``, last not included. By default what the
            model's own ``predict`` uses: rounds up to ``best_iteration`` for scikit-learn classes
            and LightGBM.
        link : what the raw output means, as the attribute of that name; for objectives of your own,
            of which the library knows nothing.

        Returns
        -------
        TreeEnsemble
            Its ``predict`` equals the library's raw output to the library's precision: margins for
            boosting, class probabilities for scikit-learn's trees and forests that classify,
            predictions for regression.

        Raises
        ------
        UnsupportedModelError
            For models that are no sums of trees: gblinear, boosting that starts from another model;
            for CatBoost's splits on several features at once; also for XGBoost objectives that are
            not known.
        ValueError
            For models that were not fitted, and descriptions that are damaged or of an unknown
            layout.

        Notes
        -----
        A ``base_margin`` or ``init_score`` (exposure) belongs to rows, not to the model: XGBoost's
        ``predict`` puts the margin it is given in the place of ``base``. Nothing in the model shows
        that it was trained with one.

        A pipeline keeps its steps: rows are those of its own ``predict``, and their columns are the
        players of every game. That needs steps that make each feature of one column.

        Exact. The cost is that of writing and reading the model once, about 0.2 s for 500 trees of
        depth 8.

        Examples
        --------
        >>> from sklearn.tree import DecisionTreeRegressor
        >>> model = DecisionTreeRegressor(max_depth=1).fit([[0.0], [1.0], [2.0]], [5.0, 5.0, 8.0])
        >>> TreeEnsemble.from_model(model).predict([[1.5], [1.6]]).tolist()
        [5.0, 8.0]
        """
        if link is not None:
            check_choice(link, "link", LINKS)
        model_at_the_end(model)  # refuses a model inside itself
        if hasattr(model, "best_estimator_"):  # of a search
            with named_as("model.best_estimator_"):
                return cls.from_model(
                    model.best_estimator_,
                    missing=missing,
                    iteration_range=iteration_range,
                    link=link,
                )
        if is_pipeline(model):
            with at_the_end_of(model):
                inner = cls.from_model(
                    model.steps[-1][1], missing=missing, iteration_range=iteration_range, link=link
                )
            return replace(inner, before=steps_before(model, inner.n_features))
        raw = read_model(model, missing, iteration_range)
        built = cls.from_raw(raw)
        # The meaning of what XGBoost stores has changed between its versions.
        if raw.probe is not None:
            row, expected = raw.probe
            output = built.predict(row)
            if not np.allclose(output, np.reshape(expected, output.shape), rtol=1e-3, atol=1e-3):
                fail(
                    "model",
                    f"a reader that gives the library's {np.ravel(expected)} for a row of "
                    f"missing values",
                    f"{np.ravel(output)}",
                    "Please report the version of the library",
                )
        return built if link is None else replace(built, link=link, link_factor=1.0)

    @classmethod
    def from_arrays(
        cls,
        feature: Any,
        threshold: Any,
        left: Any,
        right: Any,
        value: Any,
        *,
        cover: Any = None,
        tree_start: Any = None,
        missing_left: Any = None,
        sets: Mapping[int, Sequence[int]] | None = None,
        base: Any = 0.0,
        compare: str = "<=",
        dtype: Any = np.float64,
        n_features: int | None = None,
        feature_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        objective: str = "",
        link: str = "",
    ) -> TreeEnsemble:
        """Build an ensemble by hand.

        Parameters
        ----------
        feature, threshold, left, right : ``(n_nodes,)``; ``left`` and ``right`` are node ids,
            negative at leaves.
        value : ``(n_nodes,)`` for one output or ``(n_nodes, K)``; used at leaves.
        cover : ``(n_nodes,)`` weights; by default each leaf weighs 1.
        tree_start : ``(T+1,)`` first nodes of the trees, the roots; by default one tree.
        missing_left : ``(n_nodes,)`` bool; by default missing values go right.
        sets : categories (integers >= 0) that go left, by node; such nodes ignore ``threshold``.
        compare, dtype : a row goes left iff ``x <compare> threshold`` in this number type.
        link : what the outputs mean, as the attribute; by default nobody knows.

        Returns
        -------
        TreeEnsemble

        Examples
        --------
        A tree that asks for feature 0 first, then, on the left, for feature 1:

        >>> tree = TreeEnsemble.from_arrays(
        ...     feature=[0, 1, -1, -1, -1], threshold=[0.5, 0.5, 0, 0, 0], left=[1, 3, -1, -1, -1],
        ...     right=[2, 4, -1, -1, -1], value=[0, 0, 7.0, 1.0, 3.0])
        >>> tree.predict([[0, 0], [0, 1], [1, 0]]).tolist()
        [1.0, 3.0, 7.0]
        """
        value = np.asarray(value, np.float64)
        n = value.shape[0] if value.ndim else 0
        if value.ndim not in (1, 2) or n == 0:
            fail(
                "value",
                "shape (n_nodes,) or (n_nodes, K)",
                value,
                "Pass one row of outputs for each node",
            )
        check_choice(link, "link", LINKS)
        if compare not in ("<", "<="):
            fail("compare", "'<' or '<='", repr(compare), "Pass one of these")
        columns: dict[str, Any] = {
            "feature": np.asarray(feature),
            "threshold": np.asarray(threshold),
            "left": np.asarray(left),
            "right": np.asarray(right),
            "missing_left": np.zeros(n, bool),
        }
        if missing_left is not None:
            columns["missing_left"] = np.asarray(missing_left, bool)
        if cover is not None:
            columns["cover"] = np.asarray(cover, np.float64)
        for name, column in columns.items():
            if column.shape != (n,):
                fail(name, f"shape ({n},), as value has", column, "Pass one entry for each node")
        for name in ("feature", "left", "right"):
            columns[name] = columns[name].astype(np.int64)
        columns["threshold"] = columns["threshold"].astype(np.float64)
        columns.setdefault("cover", np.where(columns["left"] < 0, 1.0, 0.0))
        if n_features is not None:
            d = int(n_features)
        elif feature_names is not None:
            d = len(feature_names)
        else:
            d = max(int(columns["feature"].max(initial=-1)) + 1, 1)
        has_outputs = value.ndim == 2
        value = value.reshape(n, -1)
        n_outputs = value.shape[1]
        built = cls.from_raw(
            RawTrees(
                tree_start=np.array([0, n]) if tree_start is None else np.asarray(tree_start),
                value=value,
                base=np.asarray(base, np.float64) * np.ones(n_outputs),
                n_features=d,
                has_outputs=has_outputs,
                compare=compare,
                dtype=dtype,
                sets={int(node): np.asarray(of, np.int64) for node, of in (sets or {}).items()},
                feature_names=check_names(feature_names, d, "feature_names"),
                output_names=check_names(output_names, n_outputs, "output_names"),
                objective=objective,
                link=link,
                **columns,
            )
        )
        return built if cover is not None else replace(built, cover=_sum_up(built, built.cover))

    @classmethod
    def from_raw(cls, raw: RawTrees) -> TreeEnsemble:
        """Put a reader's nodes in order, turn thresholds into ranks and sets into bits."""
        return cls(
            **arrange(raw),
            compare=raw.compare,
            has_outputs=raw.has_outputs,
            n_features=raw.n_features,
            feature_names=raw.feature_names,
            output_names=raw.output_names,
            objective=raw.objective,
            link=raw.link,
            link_factor=raw.link_factor,
        )

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.tree_start) - 1

    @property
    def n_outputs(self) -> int:
        """Number of outputs, 1 when results have no output axis."""
        return len(self.base)

    @property
    def roots(self) -> np.ndarray:
        """Root of each tree."""
        return self.tree_start[:-1]

    @property
    def n_columns(self) -> int:
        """Columns of the rows; other than ``n_features`` only for a pipeline."""
        return self.n_features if self.before is None else self.before.n_columns

    @property
    def owner(self) -> np.ndarray:
        """The column of the rows that each feature comes from, ``(n_features,)``."""
        return np.arange(self.n_features) if self.before is None else self.before.owner

    @property
    def column(self) -> np.ndarray:
        """The column of the rows that each node asks, -1 at leaves."""
        if self.before is None:
            return self.feature
        asked = np.where(self.feature >= 0, self.owner[np.maximum(self.feature, 0)], -1)
        return asked.astype(self.feature.dtype)

    @property
    def nodes(self) -> Nodes:
        """The arrays that compiled loops take."""
        own: dict[str, Any] = {n: getattr(self, n) for n in Nodes._fields if n in _ARRAY_TYPES}
        return Nodes(player=self.column, n_players=self.n_columns, **own)

    @property
    def max_depth(self) -> int:
        """Most splits on a path."""
        return max(0, len(_inner_by_level(self)) - 1)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        encoder = self.encoder
        arrays = [getattr(self, name) for name in _ARRAY_TYPES]
        arrays += [encoder.cuts, encoder.cut_start, encoder.categories, encoder.category_start]
        arrays += [] if self.linear is None else list(self.linear)
        return int(sum(array.nbytes for array in arrays))

    def __repr__(self) -> str:
        outputs = f"{self.n_outputs} outputs" if self.has_outputs else "1 output"
        return (
            f"TreeEnsemble({self.n_trees} trees, {len(self.feature)} nodes, depth "
            f"{self.max_depth}, "
            f"{self.n_columns} features, {outputs}, objective={self.objective!r}, "
            f"{self.nbytes / 1e6:.2f} MB)"
        )

    def names_for(
        self, X: Any, given: Any = None, others: list[str] | None = None
    ) -> tuple[str, ...] | None:
        """Feature names of a result: those given, else the model's, else those of the table ``X``
        or another one, else those the library made up."""
        if given is not None:
            return check_names(given, self.n_columns, "feature_names")
        names = column_names(X) or others
        if self.before is not None:
            return self.before.names if names is None else tuple(names)
        if names is None or len(names) != self.n_features:
            return self.feature_names
        # LightGBM's model knows a name with blanks only by its underscores; the table passed.
        own = self.encoder.names_made or self.encoder.blanks_replaced or not self.feature_names
        return tuple(names) if own else self.feature_names

    def encode(self, X: Any, argument: str = "X") -> np.ndarray:
        """Codes of rows, int32 ``(N, n_features)``; -1 is missing."""
        if self.before is None:
            return self.encoder.encode(X, argument)
        rows = as_rows(X, argument)
        codes = self._encode_features(rows, argument)
        if self.before.declared and len(codes) > 1:
            given = (rows, codes)
            self.before.check_declared(given, given, self._encode_features)
        return codes

    def _encode_features(self, rows: Any, argument: str = "X") -> np.ndarray:
        """Codes of the features that the steps of a pipeline make of rows."""
        features = rows if self.before is None else self.before.features(rows, argument)
        return self.encoder.encode(features, argument)

    def codes_and_numbers(self, X: Any, argument: str = "X") -> tuple[np.ndarray, np.ndarray]:
        """Codes and numbers of rows, ``(N, n_features)`` each: what splits and slopes take."""
        codes = self.encode(X, argument)
        rows = as_rows(X, argument)
        features = rows if self.before is None else self.before.features(rows, argument)
        return codes, self.encoder.numbers(features, argument)

    def linear_outputs(self, codes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """What linear leaves pay on top of their values, ``(N, K)``."""
        out = np.zeros((len(codes), self.n_outputs))
        if self.linear is not None:
            add_linear_outputs(self.leaves(codes), numbers, self.linear, out)
        return out

    def predict_codes(self, codes: np.ndarray) -> np.ndarray:
        """Raw output ``(N, K)`` of encoded rows, without what linear leaves add to it."""
        out = np.empty((len(codes), self.n_outputs))
        predict_rows(codes, self.nodes, self.base, out)
        return out

    def predict(self, X: Any) -> np.ndarray:
        """Raw output of rows, ``(N,)`` or ``(N, K)``, as the library's own raw prediction.

        Notes
        -----
        Exact up to the rounding of the sum over trees, which is float64 here.
        """
        if self.linear is None:
            out = self.predict_codes(self.encode(X))
        else:
            codes, numbers = self.codes_and_numbers(X)
            out = self.predict_codes(codes) + self.linear_outputs(codes, numbers)
        return out if self.has_outputs else out[:, 0]

    __call__ = predict

    def leaves(self, codes: np.ndarray) -> np.ndarray:
        """Leaf that each encoded row reaches in each tree, node ids int32 ``(N, T)``."""
        out = np.empty((len(codes), self.n_trees), np.int32)
        find_leaves(codes, self.nodes, out)
        return out

    def with_covers(self, X: Any, sample_weight: Any = None) -> TreeEnsemble:
        """Copy of the ensemble whose covers are the weights of these rows in each node.

        Parameters
        ----------
        X : rows ``(N, d)``.
        sample_weight : ``(N,)`` weights >= 0; by default 1 each.
        """
        codes = self.encode(X)
        weight = np.ones(len(codes))
        if sample_weight is not None:
            weight = np.asarray(sample_weight, np.float64)
        if weight.shape != (len(codes),) or not np.isfinite(weight).all() or (weight < 0).any():
            fail(
                "sample_weight",
                f"{len(codes)} finite weights >= 0",
                weight,
                "Pass one weight for each row",
            )
        cover = np.zeros(len(self.feature))
        for part in chunks(len(codes), max(1, _LEAVES_AT_ONCE // max(1, self.n_trees))):
            reached = self.leaves(codes[part])
            repeated = np.repeat(weight[part], self.n_trees)
            cover += np.bincount(reached.ravel(), weights=repeated, minlength=len(cover))
        return replace(self, cover=_sum_up(self, cover))

    def _check(self) -> None:
        """Everything the compiled loops rely on, so that no model makes them read outside an
        array."""
        n = len(self.feature)
        shapes: dict[str, tuple[int, ...]] = {
            name: (n,)
            for name in ("left", "right", "rank", "missing_left", "set_start", "cover", "threshold")
        }
        shapes["value"] = (n, len(self.base))
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                fail(name, f"shape {shape}", getattr(self, name), DAMAGED)
        start = self.tree_start
        if not increases_to(n, start):
            fail("tree_start", f"increasing node ids from 0 to {n}", describe(start), DAMAGED)
        self._check_children()
        self._check_codes()
        self._check_linear()
        if not np.isfinite(self.base).all():
            fail("base", "finite numbers", f"{self.base}", DAMAGED)
        for name, array in (("output", self.value), ("cover", self.cover[:, None])):
            wrong = np.flatnonzero(~np.isfinite(array).all(axis=1))
            if len(wrong):
                tree = int(np.searchsorted(start, wrong[0], side="right")) - 1
                fail(
                    "model",
                    f"a finite {name} of every node",
                    f"{array[wrong[0]]} at node {wrong[0] - start[tree]} of tree {tree}",
                    "Fit it again on finite targets and weights: its own predictions are not "
                    "finite either",
                )

    def _check_linear(self) -> None:
        """Every linear leaf has its slopes, of features that exist, and an output."""
        if self.linear is None:
            return
        start, feature, slope, shift, output = self.linear
        n = len(self.feature)
        if (
            not len(start) - 1 == len(shift) == len(output) == n
            or start[0] != 0
            or (np.diff(start) < 0).any()
            or not start[-1] == len(feature) == len(slope)
            or ((feature < 0) | (feature >= self.n_features)).any()
            or ((output < 0) | (output >= len(self.base))).any()
            or not (np.isfinite(slope).all() and np.isfinite(shift).all())
        ):
            fail(
                "model",
                "linear leaves with a finite slope for each of their features",
                "others",
                DAMAGED,
            )

    def _check_children(self) -> None:
        """Every node but the roots has one parent, which stands before it in the same tree."""
        n = len(self.feature)
        start = self.tree_start
        leaf = self.feature < 0
        end = np.repeat(start[1:], np.diff(start))[~leaf]
        inner = np.flatnonzero(~leaf)
        children = np.concatenate([self.left[inner], self.right[inner]])
        inside = (children > np.tile(inner, 2)) & (children < np.tile(end, 2))
        if (
            not inside.all()
            or (self.feature < -1).any()
            or (self.feature >= self.n_features).any()
            or (self.left[leaf] != -1).any()
        ):
            fail(
                "model",
                "children and features in range",
                "a node that points outside its tree",
                DAMAGED,
            )
        parents = np.bincount(children, minlength=n)
        parents[start[:-1]] += 1
        if (parents != 1).any():
            odd = int(np.argmax(parents != 1))
            fail("model", "trees", f"node {odd} with {parents[odd]} parents", DAMAGED)

    def _check_codes(self) -> None:
        """Ranks are codes of their feature, and sets hold an entry for each of its codes."""
        n_codes = self.encoder.n_codes
        if n_codes.shape != (self.n_features,):
            fail("encoder", f"{self.n_features} features", f"{len(n_codes)}", DAMAGED)
        inner = np.flatnonzero(self.feature >= 0)
        size = n_codes[self.feature[inner]]
        rank = self.rank[inner]
        first = self.set_start[inner]
        beyond = (first >= 0) & (first + size > len(self.set_bits))
        if beyond.any() or ((rank < 0) | (rank >= size)).any():
            fail("model", "ranks and category sets in range", "one outside its array", DAMAGED)


def as_ensemble(model: Any, linear_leaves: bool = False) -> TreeEnsemble:
    """Return ``model`` if it is a ``TreeEnsemble``, else read it with
    ``TreeEnsemble.from_model``; leaves that are linear models only for those who can take them."""
    if isinstance(getattr(model, "trees", None), TreeEnsemble):  # prepared for one game
        fail(
            "model",
            "the model itself, for this function",
            repr(model),
            "Pass the ensemble that it was made from, its attribute trees",
        )
    trees = model if isinstance(model, TreeEnsemble) else TreeEnsemble.from_model(model)
    if trees.linear is not None and not linear_leaves:
        fail(
            "model",
            "constant leaves, for this function",
            "linear_tree=true, leaves that are linear models, whose means over the rows that reach "
            "them LightGBM does not keep",
            "Take the interventional game, which is exact for them: "
            "interventional_tree_shap(model, X, background); fit with linear_tree=false; or "
            f"sample: {sampled_instead(model)}",
            UnsupportedModelError,
        )
    return trees


def _inner_by_level(ensemble: TreeEnsemble) -> list[np.ndarray]:
    """Inner nodes of all trees by their depth, level 0 first; the last level has none."""
    levels = []
    frontier = ensemble.roots
    while len(frontier):
        inner = frontier[ensemble.feature[frontier] >= 0]
        levels.append(inner)
        frontier = np.concatenate([ensemble.left[inner], ensemble.right[inner]])
    return levels


def _sum_up(ensemble: TreeEnsemble, cover: np.ndarray) -> np.ndarray:
    """Covers of inner nodes from those of the leaves."""
    total = np.where(ensemble.feature < 0, cover, 0.0)
    for inner in reversed(_inner_by_level(ensemble)):
        total[inner] = total[ensemble.left[inner]] + total[ensemble.right[inner]]
    return total
