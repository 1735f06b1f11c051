"""CatBoost: nodes from the JSON that ``save_model`` writes.

A row goes right iff ``float32(x) > border``, its category is the one a split asks for, or the
statistic that CatBoost keeps of the category (a *CTR*, a mean of the targets it was trained with)
is above a border. A statistic of one feature has one value for each category seen in training and
one for all others, so such a split is a set of categories. Of several features together it is no
split on a feature, and the model is refused.

Symmetric trees ask all nodes of a level the same question; the root asks the last one listed, as
in CatBoost's own ShapValues. Covers are the weights of the leaves.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shaplab._remedies import sampled_instead
from shaplab._validation import UnsupportedModelError, fail, shorten
from shaplab.trees._text_hash import signed_hash
from shaplab.trees.readers._arrange import RawTrees, described_as

__all__ = ["category_number", "read_catboost"]

_CATBOOST_AGAIN = "Save and load the model with the installed CatBoost, or fit it again"
_CATBOOST_LINKS = {
    "Logloss": "logistic",
    "CrossEntropy": "logistic",
    "Focal": "logistic",
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "logistic",
    "MultiLogloss": "logistic",
    "MultiCrossEntropy": "logistic",
    "Poisson": "exp",
    "Tweedie": "exp",
    # What predict makes of these hangs on the class and on prediction_type.
    "LogLinQuantile": "other",
    "RMSEWithUncertainty": "other",
    "SurvivalAft": "other",
    "Cox": "other",
    # Nobody but the user knows what these mean.
    "PythonUserDefinedPerObject": "",
    "PythonUserDefinedMultiTarget": "",
    "UserPerObjMetric": "",
    "UserQuerywiseMetric": "",
    "": "",
}
# With several targets the description does not say which target a statistic is of.
_SEVERAL_TARGETS = {
    "MultiRMSE",
    "MultiRMSEWithMissingValues",
    "MultiLogloss",
    "MultiCrossEntropy",
    "PythonUserDefinedMultiTarget",
}
_WITHOUT_TARGET = ("Counter", "FeatureFreq")
_KEY_FACTOR = 0x4906BA494954CB65  # a table's key is a category's number times this, twice
_KEY_INVERSE = pow(_KEY_FACTOR, -2, 2**64)
_NO_KEY = 2**64 - 1


class SplitRule(NamedTuple):
    """What a split asks: ``number > threshold``, or whether a category's number is in ``yes``.

    ``others`` answers for categories that were not seen in training, ``missing`` for NaN.
    """

    feature: int
    threshold: float = 0.0
    missing: bool = False
    yes: frozenset[int] | None = None
    others: bool = False


class Splits(NamedTuple):
    """The model's splits in their order, and each categorical feature's known categories."""

    questions: list[SplitRule]
    known: dict[int, list[int]]


class Grown(NamedTuple):
    """The nodes of one tree: which split each asks (-1 at leaves), where ``no`` and ``yes`` lead,
    its weight and its value."""

    split: np.ndarray
    no: np.ndarray
    yes: np.ndarray
    weight: np.ndarray
    value: np.ndarray


def category_number(cell: Any) -> int | None:
    """The number CatBoost keeps of a category, None for what it takes for no category."""
    if isinstance(cell, bytes):
        return signed_hash(cell)
    if isinstance(cell, str):
        return signed_hash(cell.encode())
    if isinstance(cell, int | np.integer | np.bool_):
        return signed_hash(str(int(cell)).encode())
    return None


def read_catboost(
    model: Any, missing: float | None, iteration_range: tuple[int, int] | None
) -> RawTrees:
    """Read a fitted CatBoost model of any of its classes."""
    if not model.is_fitted():
        fail(
            "model",
            "a fitted model",
            f"{type(model).__name__} that was not fitted",
            "Call fit first",
        )
    if missing is not None:
        fail(
            "missing",
            "None for CatBoost, whose model says what is missing",
            repr(missing),
            "Leave it out",
        )
    instead = sampled_instead(model)
    others = [*model.get_text_feature_indices(), *model.get_embedding_feature_indices()]
    if others:
        fail(
            "model",
            "features that are numbers or categories",
            f"text or embeddings in {shorten(', '.join(model.feature_names_[j] for j in others))}",
            f"Turn them into numbers before the model, or sample: {instead}",
            UnsupportedModelError,
        )
    total = int(model.tree_count_)
    first, last = (0, 0) if iteration_range is None else iteration_range
    last = last or total
    if iteration_range is not None and not 0 <= first < last <= total:
        fail(
            "iteration_range",
            f"rounds within 0 to {total}",
            repr(iteration_range),
            "Pass (first, last)",
        )
    with described_as("the JSON layout of CatBoost 1.2", _CATBOOST_AGAIN):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.json")
            model.save_model(str(path), format="json")
            stored = json.loads(path.read_bytes())
        raw = read_catboost_json(stored, (first, last), instead)
        names = tuple(str(name) for name in model.feature_names_)
    raw.feature_names = names if len(names) == raw.n_features else None
    raw.names_made = list(names) == [str(j) for j in range(raw.n_features)]
    row = np.full((1, raw.n_features), 0.0, object)
    row[0, list(raw.labels)] = ""
    # Of the base class: a ranker's own predict takes no type, and gives the same.
    plain: Any = next(base for base in type(model).__mro__ if base.__name__ == "CatBoost")
    raw.probe = (
        row,
        plain.predict(model, row, "RawFormulaVal", ntree_start=first, ntree_end=last),
    )
    return raw


def read_catboost_json(stored: dict[str, Any], rounds: tuple[int, int], instead: str) -> RawTrees:
    """Nodes of a model from its JSON; ``instead`` is the call for what cannot be read."""
    features = stored["features_info"]
    objective, names = _meaning(stored.get("model_info", {}))
    if objective in _SEVERAL_TARGETS:
        _refuse_statistics(features, objective, instead)
    splits = _splits(stored, instead)
    scale, base = stored["scale_and_bias"]
    base = np.atleast_1d(np.asarray(base, np.float64))
    first, last = rounds
    symmetric = stored.get("oblivious_trees")
    trees = (stored["trees"] if symmetric is None else symmetric)[first:last]
    grow = _nested if symmetric is None else _symmetric
    columns = _tree_columns([grow(tree, len(base)) for tree in trees], splits, len(base))
    if np.isnan(columns["cover"]).any():
        fail(
            "model",
            "weights of the leaves",
            "a model that was saved without them",
            f"Fit it again, or sample: {instead}",
            UnsupportedModelError,
        )
    columns["value"] *= float(scale)
    if first > 0:
        base = np.zeros_like(base)  # as CatBoost's predict(ntree_start=...)
    listed = [*features.get("float_features", []), *features.get("categorical_features", [])]
    return RawTrees(
        base=base,
        n_features=1 + max(int(feature["flat_feature_index"]) for feature in listed),
        has_outputs=len(base) > 1,
        dtype=np.float32,
        sets_left=True,
        labels={feature: tuple(numbers) for feature, numbers in splits.known.items()},
        always_labels=True,
        label_of=category_number,
        output_names=tuple(names) if 1 < len(base) == len(names) else None,
        objective=objective,
        link=_CATBOOST_LINKS.get(objective, "identity"),
        **columns,
    )


def _meaning(info: dict[str, Any]) -> tuple[str, list[str]]:
    """The objective and the classes' names."""
    params = info.get("params", {})
    params = json.loads(params) if isinstance(params, str) else params
    classes = info.get("class_params", {})
    classes = json.loads(classes) if isinstance(classes, str) else classes
    objective = str(params.get("loss_function", {}).get("type", ""))
    return objective, [str(name) for name in classes.get("class_names", [])]


def _refuse_statistics(features: dict[str, Any], objective: str, instead: str) -> None:
    """Of several targets, only statistics that no target enters can be read."""
    for statistic in features.get("ctrs", []):
        if statistic["ctr_type"] not in _WITHOUT_TARGET:
            fail(
                "model",
                "statistics of categories whose target is known",
                f"a {statistic['ctr_type']} statistic of one of the targets of {objective}, which "
                "CatBoost's description does not name",
                "Fit with one_hot_max_size=255, with simple_ctr=['Counter'] or one model a target, "
                f"or sample: {instead}",
                UnsupportedModelError,
            )


def _splits(stored: dict[str, Any], instead: str) -> Splits:
    """All splits, in the order that trees number them: numbers, categories, statistics."""
    features = stored["features_info"]
    questions = []
    for feature in features.get("float_features", []):
        j = int(feature["flat_feature_index"])
        missing = feature.get("nan_value_treatment") == "AsTrue"
        questions += [SplitRule(j, float(border), missing) for border in feature["borders"]]
    columns = features.get("categorical_features", [])
    place = {int(column["feature_index"]): int(column["flat_feature_index"]) for column in columns}
    known: dict[int, set[int]] = {j: set() for j in place.values()}
    for column in columns:
        j = int(column["flat_feature_index"])
        for number in column.get("values", []):
            known[j].add(int(number))
            questions.append(SplitRule(j, yes=frozenset([int(number)])))
    names = {int(column["feature_index"]): str(column.get("feature_id")) for column in columns}
    if features.get("ctrs") and "ctr_data" not in stored:
        fail(
            "model",
            "the statistics of categories that its splits ask for",
            "a model without them, which cannot predict",
            "Fit with final_ctr_computation_mode='Default'",
        )
    for statistic in features.get("ctrs", []):
        asked = statistic["elements"]
        if len(asked) != 1 or asked[0]["combination_element"] != "cat_feature_value":
            _refuse_combination(asked, names, features, instead)
        j = place[int(asked[0]["cat_feature_index"])]
        worth, others = _statistic(statistic, stored["ctr_data"][statistic["identifier"]])
        known[j].update(worth)
        for border in statistic["borders"]:
            above = frozenset(number for number, found in worth.items() if found > border)
            questions.append(SplitRule(j, yes=above, others=bool(others > border)))
    return Splits(questions, {j: sorted(numbers) for j, numbers in known.items()})


def _refuse_combination(
    asked: list[dict[str, Any]], names: dict[int, str], features: dict[str, Any], instead: str
) -> None:
    """Name the features that a split asks for together."""
    numbers = {
        int(f["feature_index"]): str(f.get("feature_id")) for f in features["float_features"]
    }
    together = []
    for part in asked:
        if "cat_feature_index" in part:
            together.append(names[int(part["cat_feature_index"])])
        else:
            together.append(numbers.get(int(part.get("float_feature_index", -1)), "a number"))
    fail(
        "model",
        "splits on one feature each",
        f"a split on {shorten(' and '.join(map(repr, together)))} together",
        f"Fit with max_ctr_complexity=1, or sample: {instead}",
        UnsupportedModelError,
    )


def _statistic(
    statistic: dict[str, Any], table: dict[str, Any]
) -> tuple[dict[int, np.float32], np.float32]:
    """A statistic of each known category, and that of all others, in float32 as CatBoost's."""
    kind = statistic["ctr_type"]
    target = int(statistic["target_border_idx"])
    prior = np.float32(statistic["prior_numerator"])
    prior_weight = np.float32(statistic["prior_denomerator"])  # so it is spelled there
    shift = np.float32(statistic["shift"])
    scale = np.float32(statistic["scale"])

    def scaled(good: float, total: float) -> np.float32:
        mean = (np.float32(good) + prior) / (np.float32(total) + prior_weight)
        return np.float32((mean + shift) * scale)

    counted = _counted(kind, target, float(table["counter_denominator"]))
    entries = table["hash_map"]
    stride = int(table["hash_stride"])
    worth = {}
    for start in range(0, len(entries), stride):
        key = int(entries[start])
        if key != _NO_KEY:
            number = key * _KEY_INVERSE % 2**32
            number -= 2**32 if number >= 2**31 else 0
            worth[number] = scaled(*counted(entries[start + 1 : start + stride]))
    return worth, scaled(*counted([0.0] * (stride - 1)))


def _counted(
    kind: str, target: int, denominator: float
) -> Callable[[list[float]], tuple[float, float]]:
    """What of a category's counts is divided by what."""
    if kind in _WITHOUT_TARGET:
        return lambda counts: (counts[0], denominator)
    if kind in ("BinarizedTargetMeanValue", "FloatTargetMeanValue"):
        return lambda sums: (sums[0], sums[1])
    if kind == "Buckets":
        return lambda counts: (counts[target], sum(counts))
    if kind == "Borders":
        return lambda counts: (sum(counts[target + 1 :]), sum(counts))
    fail("model", "a known statistic of categories", repr(kind), _CATBOOST_AGAIN)


def _symmetric(tree: dict[str, Any], n_outputs: int) -> Grown:
    """A tree whose leaf number has a bit for each split, the first split's the lowest."""
    asked = [int(split["split_index"]) for split in reversed(tree.get("splits") or [])]
    leaf_values = np.asarray(tree["leaf_values"], np.float64).reshape(-1, n_outputs)
    lowest = tree.get("leaf_weights") or np.full(len(leaf_values), np.nan)
    weights = [np.asarray(lowest, np.float64)]
    for _ in asked:
        weights.append(weights[-1].reshape(-1, 2).sum(axis=1))
    n_inner = len(leaf_values) - 1
    inner = np.arange(n_inner)
    leaves = np.full(n_inner + 1, -1)
    split = np.repeat(np.array(asked, np.int64), 2 ** np.arange(len(asked)))
    return Grown(
        split=np.concatenate([split, leaves]),
        no=np.concatenate([2 * inner + 1, leaves]),
        yes=np.concatenate([2 * inner + 2, leaves]),
        weight=np.concatenate(weights[::-1]),
        value=np.concatenate([np.zeros((n_inner, n_outputs)), leaf_values]),
    )


def _nested(tree: dict[str, Any], n_outputs: int) -> Grown:
    """A tree of nodes inside nodes; children after their parent, level by level."""
    order = [tree]
    no = []
    for node in order:  # grows as it runs
        no.append(len(order) if "split" in node else -1)
        if "split" in node:
            order += [node["left"], node["right"]]
    weight = np.zeros(len(order))
    value = np.zeros((len(order), n_outputs))
    for place in reversed(range(len(order))):
        node = order[place]
        if "split" in node:
            weight[place] = weight[no[place]] + weight[no[place] + 1]
        else:
            weight[place] = node.get("weight", np.nan)
            value[place] = node["value"]
    left = np.array(no)
    split = [int(node["split"]["split_index"]) if "split" in node else -1 for node in order]
    return Grown(np.array(split), left, np.where(left < 0, -1, left + 1), weight, value)


def _tree_columns(trees: list[Grown], splits: Splits, n_outputs: int) -> dict[str, Any]:
    """Columns of a ``RawTrees`` and its sets: the categories that go left, never the unseen ones,
    so that where those are a ``yes`` the children change sides."""
    start = np.cumsum([0, *(len(tree.split) for tree in trees)])
    empty = np.zeros(0, np.int64)
    split = np.concatenate([empty, *(tree.split for tree in trees)])
    leaf = split < 0
    no = np.concatenate([empty, *(tree.no + at for tree, at in zip(trees, start, strict=False))])
    yes = np.concatenate([empty, *(tree.yes + at for tree, at in zip(trees, start, strict=False))])
    asked = [*splits.questions, SplitRule(-1)]  # the last one stands for leaves
    swapped = np.array([each.yes is not None and not each.others for each in asked])[split]
    found = {
        "tree_start": start,
        "feature": np.array([each.feature for each in asked], np.int64)[split],
        "left": np.where(leaf, -1, np.where(swapped, yes, no)),
        "right": np.where(leaf, -1, np.where(swapped, no, yes)),
        "threshold": np.array([each.threshold for each in asked])[split],
        "missing_left": ~np.array([each.missing for each in asked])[split],
        "cover": np.concatenate([np.zeros(0), *(tree.weight for tree in trees)]),
        "value": np.concatenate([np.zeros((0, n_outputs)), *(tree.value for tree in trees)]),
    }
    sets = [_set_of(question, splits.known) for question in asked]
    categorical = np.flatnonzero([codes is not None for codes in sets])
    nodes = np.flatnonzero(np.isin(split, categorical) & ~leaf)
    return {**found, "sets": {int(node): sets[split[node]] for node in nodes}}


def _set_of(question: SplitRule, known: dict[int, list[int]]) -> np.ndarray | None:
    """Codes, places among the known categories, of those that go left at a split."""
    if question.yes is None:
        return None
    left = [(number in question.yes) != question.others for number in known[question.feature]]
    return np.flatnonzero(left)
