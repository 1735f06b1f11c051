"""scikit-learn: nodes from the arrays of its fitted trees.

Trees, forests and gradient boosting compare ``float32(x) <= threshold``, histogram boosting
compares in float64. Raw outputs: probabilities for trees and forests that classify, the mean for
those that regress (of quantile forests, too), margins for boosting, risk scores for survival
forests, and for the isolation forest the mean path length over that of a random search tree, so
that ``score_samples`` is ``-2 ** -raw``.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from shaplab._remedies import additive_instead, check_fitted_sum, sampled_instead
from shaplab._validation import UnsupportedModelError, fail
from shaplab.trees.readers._arrange import RawTrees, join

__all__ = ["read_sklearn"]

_TREES = {
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
    "ExtraTreeClassifier",
    "ExtraTreeRegressor",
}
_FORESTS = {
    "RandomForestClassifier",
    "RandomForestRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
}
_BOOSTING = {"GradientBoostingClassifier", "GradientBoostingRegressor"}
_HISTOGRAM = {"HistGradientBoostingClassifier", "HistGradientBoostingRegressor"}
_CALIBRATED = (
    "tree_output_shap(part.estimator, X, background, transform=lambda raw: "
    "part.calibrators[0].predict(raw.ravel()).reshape(raw.shape))"
)
_QUANTILE = "BaseForestQuantileRegressor"  # quantile-forest
_SURVIVAL = {"SurvivalTree", "ExtraSurvivalTree", "RandomSurvivalForest", "ExtraSurvivalTrees"}
_KINDS = _TREES | _FORESTS | _BOOSTING | _HISTOGRAM | _SURVIVAL | {"IsolationForest", _QUANTILE}


def read_sklearn(
    model: Any, missing: float | None, iteration_range: tuple[int, int] | None
) -> RawTrees:
    """Read a fitted tree, forest, boosting model or isolation forest."""
    kind = next((base.__name__ for base in type(model).__mro__ if base.__name__ in _KINDS), "")
    if not kind:
        check_fitted_sum(model)
        fail(
            "model",
            "a tree model of scikit-learn",
            type(model).__name__,
            _inside(model),
            UnsupportedModelError,
        )
    for name, given in (("missing", missing), ("iteration_range", iteration_range)):
        if given is not None:
            fail(name, "None for scikit-learn", repr(given), "Leave it out")
    if not hasattr(model, "n_features_in_") or not any(
        hasattr(model, name) for name in ("tree_", "estimators_", "_predictors")
    ):
        fail(
            "model",
            "a fitted model",
            f"{type(model).__name__} that was not fitted",
            "Call fit first",
        )
    if kind in _HISTOGRAM:
        raw = _histogram(model)
    elif kind in _BOOSTING:
        raw = _boosting(model)
    elif kind == "IsolationForest":
        raw = _isolation(model)
    elif kind in _SURVIVAL:
        raw = _survival(model)
    else:
        raw = _forest(model, [model] if kind in _TREES else list(model.estimators_))
    if kind == _QUANTILE:  # quantiles are no sums over trees
        raw.output_names = ("mean of the trees",)
    names = getattr(model, "feature_names_in_", None)
    raw.feature_names = None if names is None else tuple(str(name) for name in names)
    return raw


def _inside(model: Any) -> str:
    """What to pass instead of a model that wraps others, or is no tree model at all."""
    sampled = sampled_instead(model)
    exact = additive_instead(model)
    if exact:
        return f"{exact}sample: {sampled}"
    if hasattr(model, "regressor_"):
        return (
            "Pass model.regressor_, whose output is the transformed target, or explain the target "
            f"itself by {sampled}"
        )
    if hasattr(model, "refit") and not hasattr(model, "best_score_"):
        return "Call fit first, with refit=True"
    parts = getattr(model, "calibrated_classifiers_", ())
    if parts and all(_one_curve(part) for part in parts):
        return (
            f"Its output is the mean over model.calibrated_classifiers_ of {_CALIBRATED}: take the "
            f"mean of these; or {sampled}"
        )
    several = getattr(model, "estimators_", None)
    if isinstance(several, list) and several and not hasattr(model, "calibrated_classifiers_"):
        return f"Explain the whole by {sampled}, or each of model.estimators_ by itself"
    if hasattr(model, "estimator_") and hasattr(model.estimator_, "predict"):
        return f"Pass model.estimator_, or explain the whole by {sampled}"
    if not any(hasattr(model, name) for name in ("predict", "predict_proba")):
        return "Call fit first, or pass a model that predicts"
    return f"It is read by its predictions only: {sampled}"


def _one_curve(part: Any) -> bool:
    """Whether a calibrated classifier bends the log-odds of trees by one curve."""
    kinds = {base.__name__ for base in type(part.estimator).__mro__}
    return len(part.calibrators) == 1 and bool(kinds & (_BOOSTING | _HISTOGRAM))


def _join(
    trees: list[Any], values: list[np.ndarray], base: Any, n_features: int, **more: Any
) -> RawTrees:
    """Put scikit-learn's ``Tree`` objects one after the other; ``values`` are ``(n_nodes, K)``
    each."""
    start = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees], dtype=np.int64)])
    columns: dict[str, list[Any]] = {
        name: [] for name in ("feature", "left", "right", "threshold", "missing_left", "cover")
    }
    for tree, offset in zip(trees, start, strict=False):
        left, right = (
            np.asarray(child, np.int64) for child in (tree.children_left, tree.children_right)
        )
        columns["feature"].append(tree.feature)
        columns["left"].append(np.where(left < 0, -1, left + offset))
        columns["right"].append(np.where(left < 0, -1, right + offset))
        columns["threshold"].append(tree.threshold)
        columns["missing_left"].append(
            np.asarray(getattr(tree, "missing_go_to_left", left * 0), bool)
        )
        columns["cover"].append(tree.weighted_n_node_samples)
    return RawTrees(
        tree_start=start,
        value=np.concatenate(values),
        base=np.asarray(base, np.float64),
        n_features=n_features,
        **(
            {"dtype": np.float32}
            | {name: np.concatenate(parts) for name, parts in columns.items()}
            | more
        ),
    )


def _limits(model: Any) -> dict[str, bool]:
    """Whether the model's ``predict`` takes NaN; it never takes infinity."""
    tags = getattr(model, "__sklearn_tags__", None)
    return {
        "nan_allowed": True if tags is None else bool(tags().input_tags.allow_nan),
        "inf_allowed": False,
    }


def _forest(model: Any, estimators: list[Any]) -> RawTrees:
    trees = [estimator.tree_ for estimator in estimators]
    classifier = hasattr(model, "classes_")
    names: tuple[str, ...] | None = None
    link = "identity"
    if classifier:
        several = isinstance(model.n_classes_, list | np.ndarray)
        sizes = [int(n) for n in model.n_classes_] if several else [int(model.n_classes_)]
        values = [
            np.concatenate([tree.value[:, o, :n] for o, n in enumerate(sizes)], axis=1)
            for tree in trees
        ]
        link = "probabilities" if several else "probability"
        classes = model.classes_ if several else [model.classes_]
        names = tuple(
            f"output {o}: {label}" if several else str(label)
            for o, labels in enumerate(classes)
            for label in labels
        )
    else:
        values = [tree.value[:, :, 0] for tree in trees]
    k = values[0].shape[1]
    return _join(
        trees,
        [value / len(trees) for value in values],
        np.zeros(k),
        model.n_features_in_,
        has_outputs=classifier or k > 1,
        output_names=names,
        objective=f"{model.criterion}",
        link=link,
        **_limits(model),
    )


def _boosting(model: Any) -> RawTrees:
    init = type(model.init_).__name__
    if model.init != "zero" and init not in ("DummyClassifier", "DummyRegressor"):
        fail(
            "model",
            "boosting that starts from a constant",
            f"init={init}",
            f"Fit with init=None or init='zero', or sample: {sampled_instead(model)}",
            UnsupportedModelError,
        )
    k = model.estimators_.shape[1]
    trees = []
    values = []
    for estimators in model.estimators_:
        for group, estimator in enumerate(estimators):
            value = np.zeros((estimator.tree_.node_count, k))
            value[:, group] = estimator.tree_.value[:, 0, 0] * model.learning_rate
            trees.append(estimator.tree_)
            values.append(value)
    origin = np.zeros((1, model.n_features_in_), np.float32)
    classifier = hasattr(model, "classes_")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the model was perhaps fitted with names, the origin has none
        total = np.atleast_1d(
            (model.decision_function if classifier else model.predict)(origin).squeeze()
        )
    base = total.astype(np.float64)
    for tree, value in zip(trees, values, strict=True):
        base = base - value[tree.apply(origin)[0]]
    names = tuple(str(label) for label in model.classes_) if classifier and k > 1 else None
    link = "identity"
    if classifier:
        link = "softmax" if k > 1 else "logistic"
    return _join(
        trees,
        values,
        base,
        model.n_features_in_,
        has_outputs=k > 1,
        output_names=names,
        objective=str(model.loss),
        link=link,
        link_factor=2.0 if model.loss == "exponential" else 1.0,
        **_limits(model),
    )


def _survival(model: Any) -> RawTrees:
    """Trees of scikit-survival: a leaf's cumulative hazard, summed over the times of events."""
    estimators = [model] if hasattr(model, "tree_") else list(model.estimators_)
    trees = [estimator.tree_ for estimator in estimators]
    values = []
    for estimator, tree in zip(estimators, trees, strict=True):
        risk = tree.value[:, :, 0]
        if not estimator.low_memory:  # else the sum is all that was kept
            risk = risk[:, estimator.is_event_time_].sum(axis=1, keepdims=True)
        values.append(risk / len(trees))
    return _join(
        trees,
        values,
        np.zeros(1),
        model.n_features_in_,
        has_outputs=False,
        output_names=("risk score",),
        objective="survival",
        link="identity",
        **_limits(model),
    )


def _isolation(model: Any) -> RawTrees:
    trees = []
    values = []
    columns = []
    expected = _path_length(np.array([float(model.max_samples_)]))[0]
    scale = 1.0 / (len(model.estimators_) * expected) if expected > 0 else 0.0
    for estimator, chosen in zip(model.estimators_, model.estimators_features_, strict=True):
        tree = estimator.tree_
        depth = np.zeros(tree.node_count)
        left = tree.children_left
        right = tree.children_right
        for node in range(tree.node_count):  # parents come first
            if left[node] >= 0:
                depth[[left[node], right[node]]] = depth[node] + 1
        trees.append(tree)
        values.append(
            ((depth + _path_length(tree.n_node_samples.astype(np.float64))) * scale)[:, None]
        )
        columns.append(np.where(left < 0, -1, np.asarray(chosen)[np.maximum(tree.feature, 0)]))
    # With one training row every path length is 0 and scikit-learn defines the score as 1/2: raw is
    # 1.
    return _join(
        trees,
        values,
        [0.0 if expected > 0 else 1.0],
        model.n_features_in_,
        feature=np.concatenate(columns),
        output_names=("normalised path length",),
        objective="isolation",
        link="isolation",
        nan_allowed=True,
        inf_allowed=True,
    )


def _path_length(n: np.ndarray) -> np.ndarray:
    """Expected depth of a leaf with ``n`` rows, were it split further: Liu et al. (2008), Eq. 1."""
    many = np.maximum(n, 3.0)
    longer = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, longer))


def _histogram(model: Any) -> RawTrees:
    d = int(model.n_features_in_)
    rounds = model._predictors
    k = int(model.n_trees_per_iteration_)
    place, labels = _columns(model, d)
    start = [0]
    sets = {}
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("feature", "left", "right", "threshold", "missing_left", "cover", "value")
    }
    for predictor, group in (
        (predictor, group) for each in rounds for group, predictor in enumerate(each)
    ):
        nodes = predictor.nodes
        offset = start[-1]
        leaf = nodes["is_leaf"].astype(bool)
        value = np.zeros((len(nodes), k))
        value[leaf, group] = nodes["value"][leaf]
        columns["feature"].append(place[np.where(leaf, 0, nodes["feature_idx"])])
        columns["left"].append(np.where(leaf, -1, nodes["left"].astype(np.int64) + offset))
        columns["right"].append(np.where(leaf, -1, nodes["right"].astype(np.int64) + offset))
        columns["threshold"].append(nodes["num_threshold"])
        columns["missing_left"].append(nodes["missing_go_to_left"].astype(bool))
        columns["cover"].append(nodes["count"])
        columns["value"].append(value)
        for node in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~leaf):
            words = np.ascontiguousarray(
                predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]], np.uint32
            )
            sets[offset + int(node)] = np.flatnonzero(
                np.unpackbits(words.view(np.uint8), bitorder="little")
            )
        start.append(offset + len(nodes))
    joined = join(columns, k)
    classifier = hasattr(model, "classes_")
    if classifier:
        link = "softmax" if k > 1 else "logistic"
    else:
        link = "exp" if model.loss in ("poisson", "gamma") else "identity"
    names = tuple(str(label) for label in model.classes_) if classifier and k > 1 else None
    return RawTrees(
        tree_start=np.array(start),
        base=np.ravel(model._baseline_prediction).astype(np.float64),
        n_features=d,
        has_outputs=k > 1,
        sets=sets,
        labels=labels,
        always_labels=True,
        unseen="missing",
        output_names=names,
        objective=str(model.loss),
        link=link,
        **joined,
    )


def _columns(model: Any, d: int) -> tuple[np.ndarray, dict[int, tuple[Any, ...]]]:
    """Original column of each column inside the model, which puts categories first, and their
    labels."""
    chosen = getattr(model, "is_categorical_", None)
    if chosen is None or not np.any(chosen):
        return np.arange(d), {}
    preprocessor = getattr(model, "_preprocessor", None)
    if preprocessor is None:
        fail(
            "model",
            "histogram boosting of scikit-learn 1.4 or newer when it has categories",
            "an older one",
            "Fit it with a newer scikit-learn",
            UnsupportedModelError,
        )
    first = np.flatnonzero(chosen)
    rest = np.flatnonzero(~np.asarray(chosen))
    labels = {}
    for j, categories in zip(
        first, preprocessor.named_transformers_["encoder"].categories_, strict=True
    ):
        found = list(categories.tolist())
        labels[int(j)] = tuple(found[:-1] if found and found[-1] != found[-1] else found)
    return np.concatenate([first, rest]), labels
