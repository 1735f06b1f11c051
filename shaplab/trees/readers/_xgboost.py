"""XGBoost: nodes from the JSON that ``Booster.save_raw`` writes.

A row goes left iff ``float32(x) < threshold``; categories in a node's set go right, all others
left. ``base_score`` is stored on the scale of predictions and turned into a margin here.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np

from shaplab._remedies import additive_instead, sampled_instead
from shaplab._validation import UnsupportedModelError, fail
from shaplab.trees.readers._arrange import RawTrees, described_as, join

__all__ = ["read_xgboost"]

_XGBOOST_LINKS = {
    "binary:logistic": "logistic",
    "reg:logistic": "logistic",
    "binary:logitraw": "log-odds",
    "binary:hinge": "other",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
    "survival:cox": "exp",
    "survival:aft": "exp",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:absoluteerror": "identity",
    "reg:quantileerror": "identity",
    "reg:expectileerror": "identity",
    "rank:ndcg": "identity",
    "rank:map": "identity",
    "rank:pairwise": "identity",
    "rank:xendcg": "identity",
}
_XGBOOST_AGAIN = "Save and load the model with the installed XGBoost, or fit it again"


def read_xgboost(
    model: Any, missing: float | None, iteration_range: tuple[int, int] | None
) -> RawTrees:
    """Read a Booster or a fitted model of the scikit-learn interface."""
    booster = model
    wrapper = None
    if hasattr(model, "get_booster"):
        wrapper = model
        try:
            booster = model.get_booster()
        except Exception:
            fail(
                "model",
                "a fitted model",
                f"{type(model).__name__} that was not fitted",
                "Call fit first",
            )
        if missing is not None:
            fail(
                "missing",
                "None for a scikit-learn model, which has its own",
                repr(missing),
                "Leave it out",
            )
        missing = None if model.missing is None else float(model.missing)
        if (
            iteration_range is None
        ):  # as its predict does; the round stays known when a model is saved and loaded
            best = getattr(model, "best_iteration", None)
            iteration_range = None if best is None else (0, int(best) + 1)
    with described_as("the JSON layout of XGBoost 1.6 to 3.4", _XGBOOST_AGAIN):
        stored = json.loads(bytes(booster.save_raw("json")))
        if stored["learner"]["gradient_booster"]["name"] == "gblinear":
            fail(
                "model",
                "trees",
                "booster gblinear, a linear model",
                f"{additive_instead(model) or 'No trees: '}sample: {sampled_instead(model)}",
                UnsupportedModelError,
            )
        raw = read_json(stored, iteration_range)
    if missing is not None:
        raw.missing_value = missing
    if hasattr(booster, "inplace_predict"):
        nothing = np.full((1, raw.n_features), np.nan, np.float32)
        raw.probe = (
            nothing,
            booster.inplace_predict(
                nothing,
                iteration_range=iteration_range or (0, 0),
                predict_type="margin",
                validate_features=False,
            ),
        )
    if wrapper is not None and raw.has_outputs and hasattr(wrapper, "classes_"):
        classes = [str(name) for name in wrapper.classes_]
        raw.output_names = tuple(classes) if len(classes) == len(raw.base) else None
    return raw


def read_json(stored: dict[str, Any], iteration_range: tuple[int, int] | None = None) -> RawTrees:
    """Nodes of a model from its JSON."""
    learner = stored["learner"]
    booster = learner["gradient_booster"]
    objective = learner["objective"]["name"]
    if booster["name"] not in ("gbtree", "dart"):
        fail(
            "model",
            "booster gbtree or dart",
            repr(booster["name"]),
            "Fit one of these",
            UnsupportedModelError,
        )
    if objective not in _XGBOOST_LINKS:
        fail(
            "model",
            "a known XGBoost objective",
            repr(objective),
            "Sample: permutation_shap(model.predict, X, background); known are "
            + ", ".join(_XGBOOST_LINKS),
            UnsupportedModelError,
        )
    weights = booster.get("weight_drop")
    part = booster["gbtree"]["model"] if "gbtree" in booster else booster["model"]
    if weights is None:
        weights = part.get("weight_drop")
    param = learner["learner_model_param"]
    d = int(param["num_feature"])
    if d == 0:
        fail("model", "a fitted model", "a Booster without features", "Train it first")
    base = np.array([float(number) for number in str(param["base_score"]).strip("[]").split(",")])
    n_outputs = max(int(param["num_class"]), int(param.get("num_target", 1)), len(base), 1)
    base = np.broadcast_to(_margin(base, objective), (n_outputs,))
    first, last = _tree_range(part, n_outputs, iteration_range)
    trees = part["trees"][first:last]
    groups = part["tree_info"][first:last]
    scale = np.ones(len(trees)) if not weights else np.asarray(weights, np.float64)[first:last]
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("feature", "left", "right", "threshold", "missing_left", "cover", "value")
    }
    sets: dict[int, np.ndarray] = {}
    start = [0]
    for tree, group, weight in zip(trees, groups, scale, strict=True):
        _read_xgboost_tree(tree, int(group), float(weight), n_outputs, start, columns, sets)
    joined = join(columns, n_outputs)
    names = learner.get("feature_names") or None
    return RawTrees(
        tree_start=np.array(start),
        base=base,
        n_features=d,
        has_outputs=n_outputs > 1,
        compare="<",
        dtype=np.float32,
        sets=sets,
        sets_left=False,
        labels=_labels(part.get("cats"), tuple(stored.get("version", ()))),
        unseen="error",
        sparse_missing=True,
        feature_names=tuple(names) if names else None,
        objective=objective,
        link=_XGBOOST_LINKS[objective],
        **joined,
    )


def _read_xgboost_tree(
    tree: dict[str, Any],
    group: int,
    weight: float,
    n_outputs: int,
    start: list[int],
    columns: dict[str, list[Any]],
    sets: dict[int, np.ndarray],
) -> None:
    offset = start[-1]
    left = np.array(tree["left_children"], np.int64)
    right = np.array(tree["right_children"], np.int64)
    n = len(left)
    leaf = left < 0
    condition = np.array(tree["split_conditions"], np.float32).astype(np.float64)
    size = int(tree["tree_param"].get("size_leaf_vector", 1))
    value = np.zeros((n, n_outputs))
    if size > 1:
        if size != n_outputs:
            fail("model", f"vector leaves of {n_outputs} outputs", f"{size}", _XGBOOST_AGAIN)
        if "leaf_weights" in tree:  # since 3.1: one row for each leaf, named by its right child
            rows = np.array(tree["leaf_weights"], np.float32).reshape(-1, size)
            value[leaf] = rows[right[leaf]]
        else:
            value[leaf] = np.array(tree["base_weights"], np.float32).reshape(n, size)[leaf]
    else:
        value[leaf, group] = condition[leaf]
    columns["feature"].append(np.array(tree["split_indices"], np.int64))
    columns["left"].append(np.where(leaf, -1, left + offset))
    columns["right"].append(np.where(leaf, -1, right + offset))
    columns["threshold"].append(condition)
    columns["missing_left"].append(np.array(tree["default_left"], bool))
    if "sum_hessian" not in tree:
        fail(
            "model",
            "covers at every node",
            "vector leaves of XGBoost 2.0 to 3.1, which stored none",
            "Fit with XGBoost 3.2 or newer, with multi_strategy='one_output_per_tree', or sample: "
            "permutation_shap(model.predict, X, background)",
            UnsupportedModelError,
        )
    columns["cover"].append(np.array(tree["sum_hessian"], np.float64))
    columns["value"].append(value * weight)
    codes = np.array(tree.get("categories", []), np.int64)
    for node, first, count in zip(
        tree.get("categories_nodes", []),
        tree.get("categories_segments", []),
        tree.get("categories_sizes", []),
        strict=True,
    ):
        sets[offset + int(node)] = codes[int(first) : int(first) + int(count)]
    start.append(offset + n)


def _margin(base: np.ndarray, objective: str) -> np.ndarray:
    """``base_score`` as a margin, in float32 as XGBoost computes it."""
    score = base.astype(np.float32)
    if objective in ("binary:logistic", "reg:logistic"):
        return -np.log(np.float32(1) / score - np.float32(1))
    if _XGBOOST_LINKS[objective] == "exp":
        return np.log(score)
    return score


def _tree_range(
    part: dict[str, Any], n_outputs: int, rounds: tuple[int, int] | None
) -> tuple[int, int]:
    """First and last tree of the boosting rounds."""
    n = len(part["trees"])
    indptr = part.get("iteration_indptr")
    if not indptr:
        width = max(1, int(part["gbtree_model_param"].get("num_parallel_tree", 1))) * n_outputs
        indptr = list(range(0, n + 1, width))
    if len(part["tree_info"]) != n or indptr[-1] != n:
        fail(
            "model",
            f"rounds and groups for {n} trees",
            f"{indptr[-1]} and {len(part['tree_info'])}",
            _XGBOOST_AGAIN,
        )
    first, last = rounds if rounds is not None else (0, 0)
    last = len(indptr) - 1 if last == 0 else last
    if not 0 <= first <= last <= len(indptr) - 1:
        fail(
            "iteration_range",
            f"rounds within 0 to {len(indptr) - 1}",
            repr(rounds),
            "Pass (first, last)",
        )
    return int(indptr[first]), int(indptr[last])


def _labels(cats: dict[str, Any] | None, version: tuple[int, ...]) -> dict[int, tuple[Any, ...]]:
    """Category names of the DataFrame the model was trained on, by feature."""
    found: dict[int, tuple[Any, ...]] = {}
    for j, column in enumerate((cats or {}).get("enc", [])):
        values = column["values"]
        if "offsets" in column:
            text = bytes(value & 255 for value in values)
            offsets = column["offsets"]
            values = [text[a:b] for a, b in pairwise(offsets)]
            # Before 3.4 the offsets count characters, not bytes, so that other than ASCII names
            # come cut. The pieces may be text all the same: of "öa" and "b", "ö" and "a".
            if text.isascii() or version >= (3, 4):
                values = [value.decode() for value in values]
        if values:
            found[j] = tuple(values)
    return found
