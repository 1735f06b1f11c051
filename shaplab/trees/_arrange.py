"""Trees in order for the kernels: checked nodes, thresholds as ranks, categories as bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shaplab._validation import UnsupportedModelError, describe, fail, shorten
from shaplab.trees._encoding import Encoder

__all__ = ["RawTrees"]

DAMAGED = "Fit the model again: its description is damaged or of another version"


@dataclass(eq=False)
class RawTrees:
    """What a reader takes from a model: nodes of all trees one after the other, children as
    absolute ids.

    ``left`` is -1 at leaves. ``sets`` maps a node to the category codes that go left
    (``sets_left``) or right. Everything else is named as in ``TreeEnsemble``.
    """

    tree_start: np.ndarray
    feature: np.ndarray
    left: np.ndarray
    right: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    cover: np.ndarray
    value: np.ndarray
    base: np.ndarray
    n_features: int
    has_outputs: bool = False
    compare: str = "<="
    dtype: Any = np.float64
    sets: dict[int, np.ndarray] = field(default_factory=dict)
    sets_left: bool = True
    zero_rule: np.ndarray | None = None
    labels: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    always_labels: bool = False
    frame_labels: tuple[tuple[Any, ...], ...] | None = None
    unseen: str = "other"
    missing_value: float = np.nan
    sparse_missing: bool = False
    nan_allowed: bool = True
    inf_allowed: bool = True
    feature_names: tuple[str, ...] | None = None
    names_made: bool = False  # by the library, as LightGBM's Column_0
    blanks_replaced: bool = False  # in the names, by underscores
    output_names: tuple[str, ...] | None = None
    objective: str = ""
    link: str = "identity"
    link_factor: float = 1.0
    probe: tuple[np.ndarray, np.ndarray] | None = None  # a row and the library's raw output for it


def sampled_call(model: Any, probability: bool = True) -> str:
    """The function of rows that a sampling method would explain, as a user writes it."""
    if probability and hasattr(model, "predict_proba"):
        return "model.predict_proba"
    if hasattr(model, "classes_") and hasattr(model, "decision_function"):
        return "model.decision_function"  # predict gives labels
    if not hasattr(model, "inplace_predict"):
        return "model.predict"
    return "lambda rows: model.predict(xgboost.DMatrix(rows))"


def sampled_instead(model: Any) -> str:
    """The last remedy for a model that cannot be read: a call that needs its predictions only."""
    return f"permutation_shap({sampled_call(model)}, X, background)"


@contextmanager
def described_as(layout: str, remedy: str) -> Iterator[None]:
    """Turn whatever goes wrong while a description is read into one clear error."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UnsupportedModelError) or ": expected " in str(error):
            raise
        fail("model", layout, f"{type(error).__name__}: {shorten(error)}", remedy)


def join(columns: dict[str, list[Any]], n_outputs: int) -> dict[str, Any]:
    """Columns of all trees, each from the parts of one tree after the other."""
    return {
        name: np.concatenate(parts)
        if parts
        else np.zeros((0, n_outputs) if name == "value" else 0, int)
        for name, parts in columns.items()
    }


def arrange(raw: RawTrees) -> dict[str, Any]:
    """Arrays of a ``TreeEnsemble``, by name, and its encoder."""
    n, d = len(raw.left), raw.n_features
    for name in ("feature", "right", "threshold", "missing_left", "cover", "value"):
        if len(getattr(raw, name)) != n:
            fail("model", f"{n} entries of {name}", f"{len(getattr(raw, name))}", DAMAGED)
    order, start, left, right = _in_order(raw)
    feature, threshold = (
        np.asarray(raw.feature)[order],
        np.asarray(raw.threshold, np.float64)[order],
    )
    leaf = left < 0
    place = {int(node): new for new, node in enumerate(order)} if raw.sets else {}
    sets = {
        place[node]: np.asarray(codes, np.int64)
        for node, codes in sorted(raw.sets.items())
        if node in place and not leaf[place[node]]
    }
    numeric = ~leaf
    numeric[list(sets)] = False
    feature = np.where(leaf, -1, feature)
    if ((feature >= d) | ((feature < 0) & ~leaf)).any():
        fail(
            "model",
            f"splits on features 0 to {d - 1}",
            f"features {feature.min()} to {feature.max()}",
            DAMAGED,
        )
    if np.isnan(threshold[numeric]).any():
        fail("model", "thresholds that are numbers", "NaN", DAMAGED)
    cuts, cut_start, rank = _rank(feature, threshold, numeric, raw, d)
    largest = 2**24 if np.dtype(raw.dtype) == np.float32 else 2**53
    for codes in sets.values():
        if (codes < 0).any() or (codes >= largest).any():
            fail(
                "model",
                f"categories from 0 to {largest}",
                f"{codes.min()} to {codes.max()}",
                DAMAGED,
            )
    categorical, categories, category_start = _categories(feature, sets, raw.labels, d)
    both = numeric & categorical[feature]
    if both.any():
        fail(
            "model",
            "features that are numeric or categorical",
            f"both kinds of splits on feature {feature[both][0]}",
            DAMAGED,
        )
    set_start, bits = _bits(feature, sets, categories, category_start, raw.sets_left)
    threshold[~numeric] = np.nan
    encoder = Encoder(
        cuts,
        cut_start,
        categorical,
        categories,
        category_start,
        np.zeros(d, np.int8) if raw.zero_rule is None else raw.zero_rule,
        raw.labels,
        raw.always_labels,
        raw.frame_labels,
        raw.unseen,
        raw.missing_value,
        raw.sparse_missing,
        raw.nan_allowed,
        raw.inf_allowed,
        raw.feature_names,
        raw.names_made,
        raw.blanks_replaced,
    )
    return {
        "tree_start": start,
        "feature": feature,
        "left": left,
        "right": right,
        "rank": rank,
        "missing_left": np.asarray(raw.missing_left, bool)[order] & ~leaf,
        "set_start": set_start,
        "set_bits": bits,
        "cover": np.asarray(raw.cover, np.float64)[order],
        "value": np.where(leaf[:, None], np.asarray(raw.value, np.float64)[order], 0.0),
        "base": np.asarray(raw.base, np.float64),
        "threshold": threshold,
        "encoder": encoder,
    }


def _categories(
    feature: np.ndarray, sets: dict[int, np.ndarray], labels: dict[int, tuple[Any, ...]], d: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which features are categorical, and the library's codes that matter to each: those in a set
    and those with a label."""
    known: dict[int, list[np.ndarray]] = {j: [np.arange(len(of))] for j, of in labels.items()}
    for node, codes in sets.items():
        known.setdefault(int(feature[node]), []).append(codes)
    found = [
        np.unique(np.concatenate(known[j])) if j in known else np.zeros(0, np.int64)
        for j in range(d)
    ]
    categorical = np.zeros(d, bool)
    categorical[list(known)] = True
    categories = np.concatenate(found) if found else np.zeros(0)
    start = np.concatenate([[0], np.cumsum([len(codes) for codes in found])])
    return categorical, categories.astype(np.float64), start.astype(np.int64)


def _bits(
    feature: np.ndarray,
    sets: dict[int, np.ndarray],
    categories: np.ndarray,
    start: np.ndarray,
    sets_left: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """First entry of each node's set, and the entries: 1 where a category goes left."""
    first, rows, used = np.full(len(feature), -1, np.int64), [np.zeros(0, np.uint8)], 0
    for node, codes in sets.items():
        low, high = start[feature[node]], start[feature[node] + 1]
        row = np.zeros(high - low + 1, np.uint8)  # the last entry stands for all other categories
        row[np.searchsorted(categories[low:high], codes)] = 1
        rows.append(row if sets_left else 1 - row)
        first[node], used = used, used + len(row)
    if used >= 2**31:
        fail(
            "model",
            "category sets of at most 2**31 entries in all",
            f"{used}",
            "Fit with fewer categories or fewer trees",
            UnsupportedModelError,
        )
    return first.astype(np.int32), np.concatenate(rows)


def _in_order(raw: RawTrees) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reachable nodes, level by level within each tree, with the children's new ids.

    Libraries leave deleted nodes behind and put children before parents; a walk from the roots
    drops the former, and a node that it meets twice shows a damaged model.
    """
    start, left, right = (np.asarray(a, np.int64) for a in (raw.tree_start, raw.left, raw.right))
    n = len(left)
    if (
        start.ndim != 1
        or len(start) < 1
        or start[0] != 0
        or start[-1] != n
        or (np.diff(start) <= 0).any()
    ):
        fail("model", f"tree starts that increase from 0 to {n}", describe(start), DAMAGED)
    tree, frontier = np.arange(len(start) - 1), start[:-1]
    levels, trees, seen = [], [], np.zeros(n, bool)
    while len(frontier):
        if seen[frontier].any() or len(np.unique(frontier)) < len(frontier):
            fail("model", "trees", "a node with two parents", DAMAGED)
        seen[frontier] = True
        levels.append(frontier)
        trees.append(tree)
        inner = left[frontier] >= 0
        pair = np.stack([left[frontier[inner]], right[frontier[inner]]], axis=1).ravel()
        tree = np.repeat(tree[inner], 2)
        if ((pair < start[tree]) | (pair >= start[tree + 1])).any():
            fail("model", "children inside their tree", "a node that points outside", DAMAGED)
        frontier = pair
    if not levels:
        return np.zeros(0, np.int64), start, np.zeros(0, np.int64), np.zeros(0, np.int64)
    nodes, owner = np.concatenate(levels), np.concatenate(trees)
    order = nodes[np.argsort(owner, kind="stable")]
    place = np.full(n + 1, -1)
    place[order] = np.arange(len(order))
    new_left, new_right = (
        np.where(left[order] < 0, -1, place[child[order]]) for child in (left, right)
    )
    sizes = np.bincount(owner, minlength=len(start) - 1)
    return order, np.concatenate([[0], np.cumsum(sizes)]), new_left, new_right


def _rank(
    feature: np.ndarray, threshold: np.ndarray, numeric: np.ndarray, raw: RawTrees, d: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted unique thresholds of each feature as ``x <= cut``, and each node's rank among them."""
    dtype = np.dtype(raw.dtype).type
    with np.errstate(over="ignore"):
        cut = threshold.astype(dtype)
    if raw.compare == "<":
        cut = np.nextafter(cut, dtype(-np.inf))
    else:  # the largest number of that type that is not above the threshold
        cut = np.where(cut.astype(np.float64) > threshold, np.nextafter(cut, dtype(-np.inf)), cut)
    nodes = np.flatnonzero(numeric)
    nodes = nodes[np.lexsort((cut[nodes], feature[nodes]))]
    f, c = feature[nodes], cut[nodes]
    new = np.ones(len(nodes), bool)
    new[1:] = (f[1:] != f[:-1]) | (c[1:] != c[:-1])
    cut_start = np.concatenate([[0], np.cumsum(np.bincount(f[new], minlength=d))]).astype(np.int64)
    rank = np.zeros(len(feature), np.int32)
    rank[nodes] = np.cumsum(new) - cut_start[f]
    if raw.compare == "<":
        rank[numeric & (threshold == -np.inf)] = 0  # nothing is below minus infinity
    return np.ascontiguousarray(c[new], dtype), cut_start, rank
