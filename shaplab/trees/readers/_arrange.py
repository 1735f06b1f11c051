"""Trees in order for the kernels: checked nodes, thresholds as ranks, categories as bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shaplab._validation import UnsupportedModelError, describe, fail, shorten
from shaplab.trees._encoding import Encoder
from shaplab.trees.kernels.linear import LinearLeaves

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
    label_of: Callable[[Any], Any] | None = None
    frame_labels: tuple[tuple[Any, ...], ...] | None = None
    unseen: str = "other"
    missing_value: float = np.nan
    sparse_missing: bool | None = False  # None: parts of the model disagree
    nan_allowed: bool = True
    inf_allowed: bool = True
    feature_names: tuple[str, ...] | None = None
    names_made: bool = False  # by the library, as LightGBM's Column_0
    blanks_replaced: bool = False  # in the names, by underscores
    output_names: tuple[str, ...] | None = None
    objective: str = ""
    link: str = "identity"
    link_factor: float = 1.0
    linear: LinearLeaves | None = None  # by node, where leaves are linear models
    probe: tuple[np.ndarray, np.ndarray] | None = None  # a row and the library's raw output for it


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
    joined = {}
    for name, parts in columns.items():
        empty = np.zeros((0, n_outputs) if name == "value" else 0, int)
        joined[name] = np.concatenate(parts) if parts else empty
    return joined


def arrange(raw: RawTrees) -> dict[str, Any]:
    """Arrays of a ``TreeEnsemble``, by name, and its encoder."""
    n = len(raw.left)
    d = raw.n_features
    for name in ("feature", "right", "threshold", "missing_left", "cover", "value"):
        if len(getattr(raw, name)) != n:
            fail("model", f"{n} entries of {name}", f"{len(getattr(raw, name))}", DAMAGED)
    order, start, left, right = _in_order(raw)
    leaf = left < 0
    feature = np.where(leaf, -1, np.asarray(raw.feature)[order])
    threshold = np.asarray(raw.threshold, np.float64)[order]
    sets = _reachable_sets(raw.sets, order, leaf)
    numeric = ~leaf
    numeric[list(sets)] = False
    _check_splits(feature, threshold, leaf, numeric, d)
    cuts, cut_start, rank = _rank(feature, threshold, numeric, raw)
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
    set_start, set_bits = _bits(feature, sets, categories, category_start, raw.sets_left)
    threshold[~numeric] = np.nan
    encoder = Encoder(
        cuts=cuts,
        cut_start=cut_start,
        categorical=categorical,
        categories=categories,
        category_start=category_start,
        zero_rule=np.zeros(d, np.int8) if raw.zero_rule is None else raw.zero_rule,
        labels=raw.labels,
        always_labels=raw.always_labels,
        label_of=raw.label_of,
        frame_labels=raw.frame_labels,
        unseen=raw.unseen,
        missing_value=raw.missing_value,
        sparse_missing=raw.sparse_missing,
        nan_allowed=raw.nan_allowed,
        inf_allowed=raw.inf_allowed,
        feature_names=raw.feature_names,
        names_made=raw.names_made,
        blanks_replaced=raw.blanks_replaced,
    )
    return {
        "tree_start": start,
        "feature": feature,
        "left": left,
        "right": right,
        "rank": rank,
        "missing_left": np.asarray(raw.missing_left, bool)[order] & ~leaf,
        "set_start": set_start,
        "set_bits": set_bits,
        "cover": np.asarray(raw.cover, np.float64)[order],
        "value": np.where(leaf[:, None], np.asarray(raw.value, np.float64)[order], 0.0),
        "base": np.asarray(raw.base, np.float64),
        "threshold": threshold,
        "encoder": encoder,
        "linear": None if raw.linear is None else _reordered(raw.linear, order),
    }


def _reordered(linear: LinearLeaves, order: np.ndarray) -> LinearLeaves:
    """Linear leaves by the nodes' new ids."""
    lengths = np.diff(linear.start)[order]
    start = np.append(0, np.cumsum(lengths))
    places = np.repeat(linear.start[:-1][order] - start[:-1], lengths) + np.arange(start[-1])
    return LinearLeaves(
        start=start,
        feature=linear.feature[places],
        slope=linear.slope[places],
        shift=linear.shift[order],
        output=linear.output[order],
    )


def _reachable_sets(
    sets: dict[int, np.ndarray], order: np.ndarray, leaf: np.ndarray
) -> dict[int, np.ndarray]:
    """The sets of splits that a row can reach, by the nodes' new ids."""
    if not sets:
        return {}
    place = {int(node): new for new, node in enumerate(order)}
    reachable = {}
    for node, codes in sorted(sets.items()):
        if node in place and not leaf[place[node]]:
            reachable[place[node]] = np.asarray(codes, np.int64)
    return reachable


def _check_splits(
    feature: np.ndarray, threshold: np.ndarray, leaf: np.ndarray, numeric: np.ndarray, d: int
) -> None:
    """Require features in range and thresholds that are numbers."""
    if ((feature >= d) | ((feature < 0) & ~leaf)).any():
        fail(
            "model",
            f"splits on features 0 to {d - 1}",
            f"features {feature.min()} to {feature.max()}",
            DAMAGED,
        )
    if np.isnan(threshold[numeric]).any():
        fail("model", "thresholds that are numbers", "NaN", DAMAGED)


def _categories(
    feature: np.ndarray, sets: dict[int, np.ndarray], labels: dict[int, tuple[Any, ...]], d: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which features are categorical, and the library's codes that matter to each: those in a set
    and those with a label."""
    known: dict[int, list[np.ndarray]] = {j: [np.arange(len(of))] for j, of in labels.items()}
    for node, codes in sets.items():
        known.setdefault(int(feature[node]), []).append(codes)
    by_feature = [np.zeros(0, np.int64) for _ in range(d)]
    for j, parts in known.items():
        by_feature[j] = np.unique(np.concatenate(parts))
    categorical = np.zeros(d, bool)
    categorical[list(known)] = True
    categories = np.concatenate([np.zeros(0), *by_feature])
    start = np.append(0, np.cumsum([len(codes) for codes in by_feature]))
    return categorical, categories, start.astype(np.int64)


def _bits(
    feature: np.ndarray,
    sets: dict[int, np.ndarray],
    categories: np.ndarray,
    start: np.ndarray,
    sets_left: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """First entry of each node's set, and the entries: 1 where a category goes left."""
    first = np.full(len(feature), -1, np.int64)
    rows = [np.zeros(0, np.uint8)]
    used = 0
    kept: dict[tuple[int, int], int] = {}  # a level of CatBoost's trees asks the same everywhere
    for node, codes in sets.items():
        again = kept.setdefault((int(feature[node]), id(codes)), used)
        if again < used:
            first[node] = again
            continue
        low = start[feature[node]]
        high = start[feature[node] + 1]
        row = np.zeros(high - low + 1, np.uint8)  # the last entry stands for all other categories
        row[np.searchsorted(categories[low:high], codes)] = 1
        rows.append(row if sets_left else 1 - row)
        first[node] = used
        used += len(row)
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
    start = np.asarray(raw.tree_start, np.int64)
    left = np.asarray(raw.left, np.int64)
    right = np.asarray(raw.right, np.int64)
    n = len(left)
    if not increases_to(n, start):
        fail("model", f"tree starts that increase from 0 to {n}", describe(start), DAMAGED)
    tree = np.arange(len(start) - 1)
    frontier = start[:-1]
    levels: list[np.ndarray] = [np.zeros(0, np.int64)]
    trees: list[np.ndarray] = [np.zeros(0, np.int64)]
    seen = np.zeros(n, bool)
    while len(frontier):
        if seen[frontier].any() or len(np.unique(frontier)) < len(frontier):
            fail("model", "trees", "a node with two parents", DAMAGED)
        seen[frontier] = True
        levels.append(frontier)
        trees.append(tree)
        inner = left[frontier] >= 0
        children = np.stack([left[frontier[inner]], right[frontier[inner]]], axis=1).ravel()
        tree = np.repeat(tree[inner], 2)
        if ((children < start[tree]) | (children >= start[tree + 1])).any():
            fail("model", "children inside their tree", "a node that points outside", DAMAGED)
        frontier = children
    owner = np.concatenate(trees)
    order = np.concatenate(levels)[np.argsort(owner, kind="stable")]
    place = np.full(n + 1, -1)
    place[order] = np.arange(len(order))
    leaf = left[order] < 0
    new_left = np.where(leaf, -1, place[left[order]])
    new_right = np.where(leaf, -1, place[right[order]])
    sizes = np.bincount(owner, minlength=len(start) - 1)
    return order, np.append(0, np.cumsum(sizes)), new_left, new_right


def increases_to(n: int, start: np.ndarray) -> bool:
    """Whether the starts of trees, and where the last one ends, cut n nodes into trees."""
    if start.ndim != 1 or len(start) < 1:
        return False
    return bool(start[0] == 0 and start[-1] == n and (np.diff(start) > 0).all())


def _rank(
    feature: np.ndarray, threshold: np.ndarray, numeric: np.ndarray, raw: RawTrees
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted unique thresholds of each feature as ``x <= cut``, and each node's rank among them."""
    dtype = np.dtype(raw.dtype).type
    with np.errstate(over="ignore"):  # below the smallest float is minus infinity
        cut = threshold.astype(dtype)
        below = np.nextafter(cut, dtype(-np.inf))
    if raw.compare == "<":
        cut = below
    else:  # the largest number of that type that is not above the threshold
        cut = np.where(cut.astype(np.float64) > threshold, below, cut)
    nodes = np.flatnonzero(numeric)
    nodes = nodes[np.lexsort((cut[nodes], feature[nodes]))]
    own_feature = feature[nodes]
    own_cut = cut[nodes]
    new = np.ones(len(nodes), bool)
    new[1:] = (own_feature[1:] != own_feature[:-1]) | (own_cut[1:] != own_cut[:-1])
    counts = np.bincount(own_feature[new], minlength=raw.n_features)
    cut_start = np.append(0, np.cumsum(counts)).astype(np.int64)
    rank = np.zeros(len(feature), np.int32)
    rank[nodes] = np.cumsum(new) - cut_start[own_feature]
    if raw.compare == "<":
        rank[numeric & (threshold == -np.inf)] = 0  # nothing is below minus infinity
    return np.ascontiguousarray(own_cut[new], dtype), cut_start, rank
