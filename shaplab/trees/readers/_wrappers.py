"""Models of models: bagging, voting, AdaBoost's votes, one model for each target. A weighted sum of
sums of trees is a sum of trees.

The parts have to agree on what categories are. Number types need not agree: that ``x`` rounded to
float32 is at most ``t`` is a comparison of ``x`` itself with a number beside ``t``. And what is
averaged has to be the parts' raw output: predictions of regressors, probabilities of trees and
forests, but not probabilities behind the log-odds of boosting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from shaplab._remedies import sampled_instead
from shaplab._validation import UnsupportedModelError, fail, shorten
from shaplab.trees.readers._arrange import RawTrees

__all__ = ["read_wrapper", "wrapper_kind"]

Read = Callable[[Any], RawTrees]


@dataclass(frozen=True)
class Part:
    """A model inside a wrapper: its nodes, what its outputs are multiplied by, and the wrapper's
    columns and outputs that its own features and outputs are."""

    raw: RawTrees
    weight: float
    columns: np.ndarray | None
    outputs: np.ndarray


def wrapper_kind(model: Any) -> str:
    """The name of the wrapper that a model is, or ""."""
    return next((kind.__name__ for kind in type(model).__mro__ if kind.__name__ in _WRAPPERS), "")


def read_wrapper(model: Any, read: Read) -> RawTrees:
    """Nodes of all parts of a fitted wrapper, each read by ``read``."""
    if not hasattr(model, "estimators_"):
        fail(
            "model",
            "a fitted model",
            f"{type(model).__name__} that was not fitted",
            "Call fit first",
        )
    raw = _WRAPPERS[wrapper_kind(model)](model, lambda part: _read_part(model, part, read))
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        raw.feature_names = tuple(str(name) for name in names)
        raw.names_made = raw.blanks_replaced = False
    return raw


def _read_part(model: Any, part: Any, read: Read) -> RawTrees:
    """Nodes of a part; resampling that only training does, as imbalanced-learn's, is left out."""
    steps = [step for _, step in getattr(part, "steps", [])]
    if steps and not any(hasattr(step, "transform") for step in steps[:-1]):
        part = steps[-1]
    try:
        raw = read(part)
    except UnsupportedModelError as error:
        what = str(error).partition(". ")[0].removeprefix("model: ")
        _refuse_part(model, f"{type(part).__name__} ({what})")
    if raw.linear is not None:
        _refuse_part(model, f"{type(part).__name__} (linear_tree=true, leaves that are sums)")
    return raw


def _refuse_part(model: Any, what: str) -> NoReturn:
    fail(
        "model",
        f"a {type(model).__name__} of models whose raw outputs it adds up",
        shorten(what, 200),
        f"Explain the whole by {sampled_instead(model)}, or each of model.estimators_ by itself",
        UnsupportedModelError,
    )


def _bagging(model: Any, read: Read) -> RawTrees:
    """The mean of models that see some of the columns each."""
    weight = 1.0 / len(model.estimators_)
    parts = []
    for estimator, chosen in zip(model.estimators_, model.estimators_features_, strict=True):
        raw = read(estimator)
        _check_scale(model, estimator, raw)
        outputs = np.arange(len(raw.base))
        if hasattr(model, "classes_"):  # a part may not have met all classes; its own are numbers
            outputs = np.asarray(estimator.classes_, np.int64)
        parts.append(Part(raw, weight, np.asarray(chosen, np.int64), outputs))
    classes = getattr(model, "classes_", None)
    return _added(model, parts, int(model.n_features_in_), classes)


def _voting(model: Any, read: Read) -> RawTrees:
    """The weighted mean of models, or of their votes."""
    weights = np.ones(len(model.estimators_))
    if model.weights is not None:
        listed = zip(model.estimators, model.weights, strict=True)
        weights = np.array([float(w) for (_, each), w in listed if each != "drop"])
    weights = weights / weights.sum()
    classes = getattr(model, "classes_", None)
    hard = classes is not None and model.voting == "hard"
    parts = []
    for estimator, weight in zip(model.estimators_, weights, strict=True):
        raw = read(estimator)
        if hard:
            raw = _votes(model, estimator, raw)
        else:
            _check_scale(model, estimator, raw)
        parts.append(Part(raw, float(weight), None, np.arange(len(raw.base))))
    raw = _added(model, parts, parts[0].raw.n_features, classes)
    raw.objective = "votes" if hard else raw.objective
    raw.link = "other" if hard else raw.link  # predict names the class of most votes
    return raw


def _adaboost(model: Any, read: Read) -> RawTrees:
    """The decision function of AdaBoost's classifier: weighted votes of trees."""
    classes = model.classes_
    n = len(classes)
    if getattr(model, "algorithm", "SAMME") == "SAMME.R":
        _refuse_part(model, "algorithm='SAMME.R'")
    weights = np.asarray(model.estimator_weights_, np.float64)[: len(model.estimators_)]
    shares = weights / weights.sum()
    parts = []
    for estimator, share in zip(model.estimators_, shares, strict=True):
        raw = _votes(model, estimator, read(estimator))
        places = np.searchsorted(classes, estimator.classes_)
        voted = np.zeros((len(raw.left), n))
        voted[:, places] = raw.value
        leaf = np.asarray(raw.left) < 0
        # A vote counts 1 for its class and -1 / (n - 1) for each other.
        value = np.where(leaf[:, None], voted - (1.0 - voted) / max(1, n - 1), 0.0)
        if n == 1:
            value = 0.0 * value  # as its decision function
        if n == 2:
            value = value[:, 1:] - value[:, :1]
        raw = replace(raw, value=value, base=np.zeros(value.shape[1]))
        parts.append(Part(raw, float(share), None, np.arange(value.shape[1])))
    raw = _added(model, parts, int(model.n_features_in_), None if n == 2 else classes)
    raw.has_outputs = n > 2
    raw.objective = "adaboost"
    raw.link = "logistic" if n == 2 else "other"
    return raw


def _several(model: Any, read: Read) -> RawTrees:
    """One model for each target, their outputs side by side."""
    raws = [read(estimator) for estimator in model.estimators_]
    links = {raw.link for raw in raws}
    classify = links == {"probability"}
    if len(links) > 1 or not (classify or all(len(raw.base) == 1 for raw in raws)):
        _refuse_part(model, f"outputs on several scales: {', '.join(sorted(links))}")
    first = 0
    parts = []
    names = []
    for o, (estimator, raw) in enumerate(zip(model.estimators_, raws, strict=True)):
        k = len(raw.base)
        parts.append(Part(raw, 1.0, None, np.arange(first, first + k)))
        first += k
        if classify:
            names += [f"output {o}: {label}" for label in estimator.classes_]
    raw = _added(model, parts, raws[0].n_features, None)
    raw.has_outputs = True
    raw.output_names = tuple(names) if classify else None
    raw.link = "probabilities" if classify else raw.link
    return raw


_WRAPPERS: dict[str, Callable[[Any, Read], RawTrees]] = {
    "BaggingClassifier": _bagging,
    "BaggingRegressor": _bagging,
    "VotingClassifier": _voting,
    "VotingRegressor": _voting,
    "AdaBoostClassifier": _adaboost,
    "MultiOutputClassifier": _several,
    "MultiOutputRegressor": _several,
}


def _check_scale(model: Any, estimator: Any, raw: RawTrees) -> None:
    """Require parts whose raw output is what the wrapper averages."""
    wanted = "probability" if hasattr(model, "classes_") else "identity"
    if raw.link != wanted:
        what = {"logistic": "log-odds", "softmax": "logits", "exp": "a logarithm"}.get(raw.link)
        _refuse_part(model, f"{type(estimator).__name__}, whose raw output is {what or 'another'}")


def _votes(model: Any, estimator: Any, raw: RawTrees) -> RawTrees:
    """A tree that classifies, with a vote at each leaf in the place of its probabilities."""
    if raw.link != "probability" or len(raw.tree_start) != 2:
        _refuse_part(model, f"{type(estimator).__name__}, whose votes are no sum of trees")
    leaf = np.asarray(raw.left) < 0
    voted = np.zeros(raw.value.shape)
    voted[leaf, raw.value[leaf].argmax(axis=1)] = 1.0
    return replace(raw, value=voted)


def _added(model: Any, parts: list[Part], n_features: int, classes: Any) -> RawTrees:
    """All parts as one model."""
    n_outputs = 1 + max(int(part.outputs.max()) for part in parts)
    if classes is not None:
        n_outputs = len(classes)
    shared = _shared(model, parts, n_features)
    base = np.zeros(n_outputs)
    start = [np.zeros(1, np.int64)]
    sets: dict[int, np.ndarray] = {}
    columns: dict[str, list[Any]] = {}
    offset = 0
    for part in parts:
        raw = part.raw
        n = len(raw.left)
        base[part.outputs] += part.weight * np.asarray(raw.base)
        value = np.zeros((n, n_outputs))
        value[:, part.outputs] = part.weight * np.asarray(raw.value)
        for name, column in _moved(part, offset, shared["dtype"], shared["zero_rule"] is None):
            columns.setdefault(name, []).append(column)
        columns.setdefault("value", []).append(value)
        start.append(np.asarray(raw.tree_start, np.int64)[1:] + offset)
        sets |= {int(node) + offset: codes for node, codes in raw.sets.items()}
        offset += n
    joined: dict[str, Any] = {name: np.concatenate(found) for name, found in columns.items()}
    return RawTrees(
        tree_start=np.concatenate(start),
        base=base,
        n_features=n_features,
        has_outputs=classes is not None or n_outputs > 1 or parts[0].raw.has_outputs,
        sets=sets,
        output_names=None if classes is None else tuple(str(label) for label in classes),
        **shared,
        **joined,
    )


def _moved(part: Part, offset: int, dtype: Any, plain: bool) -> Iterator[tuple[str, np.ndarray]]:
    """A part's nodes after ``offset`` others, its features as the wrapper's columns, and its
    comparisons as ``x <= threshold`` in the wrapper's number type.

    ``plain`` tells that tiny numbers are to be compared as they are, where LightGBM takes them for
    zero.
    """
    raw = part.raw
    leaf = np.asarray(raw.left) < 0
    feature = np.asarray(raw.feature)
    if part.columns is not None:
        feature = np.where(leaf, -1, part.columns[np.where(leaf, 0, feature)])
    threshold = np.asarray(raw.threshold, np.float64)
    if raw.compare == "<":
        kind = np.dtype(raw.dtype).type
        with np.errstate(over="ignore"):  # below the smallest number is minus infinity
            threshold = np.nextafter(threshold.astype(kind), kind(-np.inf)).astype(np.float64)
    if np.dtype(raw.dtype) != np.dtype(dtype):
        threshold = last_that_rounds_to(threshold)
    if plain and raw.zero_rule is not None:
        inside = np.abs(threshold) <= _TINY
        below = np.nextafter(-_TINY, -np.inf)
        threshold = np.where(inside, np.where(threshold >= 0, _TINY, below), threshold)
    yield "feature", feature
    yield "left", np.where(leaf, -1, np.asarray(raw.left) + offset)
    yield "right", np.where(leaf, -1, np.asarray(raw.right) + offset)
    yield "threshold", threshold
    yield "missing_left", np.asarray(raw.missing_left, bool)
    yield "cover", np.asarray(raw.cover, np.float64)


def last_that_rounds_to(threshold: np.ndarray) -> np.ndarray:
    """The largest float64 whose rounding to float32 is at most the float32 below or at a number:
    the middle between that and the next one, or what stands before the middle where it rounds up.
    """
    with np.errstate(over="ignore"):
        low = threshold.astype(np.float32)
        low = np.where(low > threshold, np.nextafter(low, np.float32(-np.inf)), low)
        high = np.nextafter(low, np.float32(np.inf))
        # Infinity stands where the next number would be.
        ends = np.clip(np.stack([low, high]).astype(np.float64), -(2.0**128), 2.0**128)
        middle = ends.mean(axis=0)
        rounded = middle.astype(np.float32)
    found = np.where(rounded <= low, middle, np.nextafter(middle, -np.inf))
    return np.where(np.isposinf(threshold), np.inf, found)


_TINY = float(np.float32(1e-35))  # LightGBM's kZeroThreshold

# What parts have to agree on, and what of it matters only where there are categories.
_ROWS = ("missing_value", "link", "link_factor")
_CATEGORIES = ("sets_left", "labels", "always_labels", "label_of", "frame_labels", "unseen")


def _shared(model: Any, parts: list[Part], n_features: int) -> dict[str, Any]:
    """What all parts make of a row, or an error that names what they disagree on."""
    first = parts[0].raw
    found: dict[str, Any] = {name: getattr(first, name) for name in _ROWS}
    for name in _ROWS:
        several = {repr(getattr(part.raw, name)) for part in parts}
        if len(several) > 1:
            _refuse_part(model, f"parts that disagree on {name}: {', '.join(sorted(several))}")
    dtypes = {np.dtype(part.raw.dtype) for part in parts}
    found["dtype"] = np.float64 if len(dtypes) > 1 else first.dtype
    categorical = [part for part in parts if part.raw.sets or part.raw.labels]
    if categorical:
        several = {repr([_of_columns(part, name) for name in _CATEGORIES]) for part in categorical}
        if len(several) > 1 or len(dtypes) > 1 or len(categorical) < len(parts):
            _refuse_part(model, "parts that disagree on the categories of their columns")
        found |= {name: _of_columns(categorical[0], name) for name in _CATEGORIES}
    sparse = {part.raw.sparse_missing for part in parts}
    return found | {
        "zero_rule": _zero_rule(model, parts, n_features),
        "sparse_missing": sparse.pop() if len(sparse) == 1 else None,
        "nan_allowed": all(part.raw.nan_allowed for part in parts),
        "inf_allowed": all(part.raw.inf_allowed for part in parts),
        "feature_names": first.feature_names if parts[0].columns is None else None,
        "names_made": first.names_made,
        "blanks_replaced": first.blanks_replaced,
        "objective": first.objective,
    }


def _of_columns(part: Part, name: str) -> Any:
    """A property of a part, categories by the wrapper's columns."""
    if name != "labels" or part.columns is None:
        return getattr(part.raw, name)
    return {int(part.columns[j]): labels for j, labels in sorted(part.raw.labels.items())}


def _zero_rule(model: Any, parts: list[Part], n_features: int) -> np.ndarray | None:
    """What zero means in each of the wrapper's columns; None where it is nothing special, or only
    LightGBM's tiny numbers are, which thresholds can say as well."""
    rules = [part.raw.zero_rule for part in parts]
    missing = any(rule is not None and (rule == 1).any() for rule in rules)
    if not missing:
        return None
    found = np.full(n_features, -1)
    for part in parts:
        feature = np.asarray(part.raw.feature)
        asked = np.unique(feature[np.asarray(part.raw.left) >= 0])
        columns = asked if part.columns is None else part.columns[asked]
        own = np.zeros(len(asked)) if part.raw.zero_rule is None else part.raw.zero_rule[asked]
        if ((found[columns] >= 0) & (found[columns] != own)).any():
            _refuse_part(model, "parts that disagree on what zero means")
        found[columns] = own
    return np.maximum(found, 0).astype(np.int8)
