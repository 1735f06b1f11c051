"""LightGBM: nodes from the text that ``Booster.model_to_string`` writes.

A row goes left iff ``x <= threshold`` in float64, or iff its category is in the node's set. Missing
means NaN, NaN and zero, or nothing at all (then NaN counts as zero), as each split says. In rf mode
the output is the mean of the trees, which LightGBM's ``predict`` uses; its ``raw_score`` and
``pred_contrib`` give the sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._validation import UnsupportedModelError, fail
from shaplab.trees.kernels.linear import LinearLeaves
from shaplab.trees.readers._arrange import RawTrees, described_as, join

__all__ = ["read_lightgbm"]

_LIGHTGBM_LINKS = {
    "binary": "logistic",
    "multiclassova": "logistic",
    "cross_entropy": "logistic",
    "multiclass": "softmax",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    "cross_entropy_lambda": "softplus",
    "": "",
}
# What is read of linear leaves: of each node, of each slope, of each tree.
_LINEAR_COLUMNS = ("n_slopes", "shift", "output", "feature", "slope", "is_linear")
_LIGHTGBM_AGAIN = "Save and load the model with the installed LightGBM, or fit it again"


def read_lightgbm(
    model: Any, missing: float | None, iteration_range: tuple[int, int] | None
) -> RawTrees:
    """Read a Booster or a fitted model of the scikit-learn interface."""
    booster = model
    wrapper = None
    if not hasattr(model, "model_to_string"):
        wrapper = model
        try:
            booster = model.booster_
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
            "None for LightGBM, whose model says what is missing",
            repr(missing),
            "Leave it out",
        )
    first, last = (0, None) if iteration_range is None else iteration_range
    total = booster.current_iteration()
    if iteration_range is not None and not 0 <= first < (last or total) <= total:
        fail(
            "iteration_range",
            f"rounds within 0 to {total}",
            repr(iteration_range),
            "Pass (first, last)",
        )
    count = None if last is None else (last or total) - first
    text = booster.model_to_string(num_iteration=count, start_iteration=first)
    names = booster.feature_name() if hasattr(booster, "feature_name") else None
    with described_as("the text layout of LightGBM 3 to 4", _LIGHTGBM_AGAIN):
        raw = read_text(text, names)
    categories = getattr(booster, "pandas_categorical", None)
    raw.frame_labels = None if not categories else tuple(tuple(labels) for labels in categories)
    if wrapper is not None and raw.has_outputs and hasattr(wrapper, "classes_"):
        classes = tuple(str(name) for name in wrapper.classes_)
        raw.output_names = classes if len(classes) == len(raw.base) else None
    return raw


def read_text(text: str, names: list[str] | None = None) -> RawTrees:
    """Nodes of a model from its text; ``names`` of the features where the live model knows them."""
    # Lists of importances and parameters follow, which may hold any name.
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    # Names may hold tabs and line separators, which are no ends of lines here.
    header = {line.partition("=")[0]: line.partition("=")[2] for line in head.split("\n")}
    d = int(header["max_feature_idx"]) + 1
    n_outputs = int(header["num_tree_per_iteration"])
    average = n_outputs / len(blocks) if "average_output" in header and blocks else 1.0
    columns: dict[str, list[Any]] = {
        name: [] for name in ("feature", "left", "right", "threshold", "kind", "cover", "value")
    }
    lines: dict[str, list[Any]] = {name: [] for name in _LINEAR_COLUMNS}
    sets: dict[int, np.ndarray] = {}
    start = [0]
    for t, block in enumerate(blocks):
        tree = dict(
            line.split("=", 1) for line in block.split("\n\n")[0].split("\n")[1:] if "=" in line
        )
        _read_lightgbm_tree(tree, t % n_outputs, average, n_outputs, start, columns, sets)
        _read_linear_leaves(tree, t % n_outputs, average, lines)
    joined = join(columns, n_outputs)
    kind = joined.pop("kind").astype(np.int64)
    zero_rule, missing_left = _missing(kind, joined, d)
    names = header["feature_names"].split(" ") if names is None else names
    objective, *options = header.get("objective", "").split() or [
        ""
    ]  # a user's own one has no name
    link = _LIGHTGBM_LINKS.get(objective, "identity")
    if "sqrt" in options:
        link = "signed_square"
    factors = [float(option[8:]) for option in options if option.startswith("sigmoid:")]
    return RawTrees(
        tree_start=np.array(start),
        base=np.zeros(n_outputs),
        n_features=d,
        has_outputs=n_outputs > 1,
        sets=sets,
        zero_rule=zero_rule,
        missing_left=missing_left,
        objective=objective,
        link=link,
        linear=_linear_leaves(lines),
        link_factor=factors[0] if factors and link == "logistic" else 1.0,
        feature_names=tuple(names),
        names_made=list(names) == [f"Column_{j}" for j in range(d)],
        blanks_replaced=True,
        **joined,
    )


def _read_lightgbm_tree(
    tree: dict[str, str],
    group: int,
    average: float,
    n_outputs: int,
    start: list[int],
    columns: dict[str, list[Any]],
    sets: dict[int, np.ndarray],
) -> None:
    offset = start[-1]
    n_leaves = int(tree["num_leaves"])
    n_inner = n_leaves - 1

    def row(name: str, length: int, dtype: Any = np.float64) -> np.ndarray:
        return _tree_row(tree, name, length, dtype)

    def child(
        name: str,
    ) -> np.ndarray:  # inner nodes count from 0, leaf k is ~k and comes after them
        found = row(name, n_inner, np.int64)
        return np.concatenate(
            [np.where(found < 0, n_inner + ~found, found) + offset, np.full(n_leaves, -1)]
        )

    kind = row("decision_type", n_inner, np.int64)
    threshold = row("threshold", n_inner)
    value = np.zeros((n_inner + n_leaves, n_outputs))
    value[n_inner:, group] = row("leaf_value", n_leaves) * average
    empty = np.zeros(n_leaves)
    # Trees of a single leaf have no count, or an empty one (LightGBM 4.3 to 4.5).
    has_counts = n_inner > 0 or tree.get("leaf_count", "").strip() != ""
    cover = [row("internal_count", n_inner), row("leaf_count", n_leaves) if has_counts else empty]
    for name, column in (
        ("feature", np.concatenate([row("split_feature", n_inner, np.int64), empty - 1])),
        ("left", child("left_child")),
        ("right", child("right_child")),
        ("threshold", np.concatenate([threshold, empty])),
        ("value", value),
        ("kind", np.concatenate([kind, empty])),
        ("cover", np.concatenate(cover)),
    ):
        columns[name].append(column.astype(np.int64) if name == "feature" else column)
    if (kind & 1).any():
        bounds = np.array(tree["cat_boundaries"].split(), np.int64)
        words = np.array(tree["cat_threshold"].split(), np.uint32)
        for node in np.flatnonzero(kind & 1):
            which = int(threshold[node])
            part = words[bounds[which] : bounds[which + 1]]
            sets[offset + int(node)] = np.flatnonzero(
                np.unpackbits(part.view(np.uint8), bitorder="little")
            )
    start.append(offset + n_inner + n_leaves)


def _tree_row(tree: dict[str, str], name: str, length: int, dtype: Any = np.float64) -> np.ndarray:
    """One line of a tree's text as so many numbers."""
    found = np.array(tree.get(name, "").split(), dtype) if length else np.zeros(0, dtype)
    if len(found) != length:
        fail("model", f"{length} entries of {name}", f"{len(found)}", _LIGHTGBM_AGAIN)
    return found


def _read_linear_leaves(
    tree: dict[str, str], group: int, average: float, lines: dict[str, list[Any]]
) -> None:
    """What the leaves of a tree with ``linear_tree`` pay, by node; nothing for other trees."""
    n_leaves = int(tree["num_leaves"])
    inner = np.zeros(n_leaves - 1)
    n_slopes = np.zeros(n_leaves, np.int64)
    shift = np.zeros(n_leaves)
    is_linear = tree.get("is_linear", "0") != "0"
    if is_linear:
        n_slopes = _tree_row(tree, "num_features", n_leaves, np.int64)
        shift = _tree_row(tree, "leaf_const", n_leaves) - _tree_row(tree, "leaf_value", n_leaves)
    total = int(n_slopes.sum())
    for name, column in (
        ("n_slopes", np.concatenate([inner, n_slopes])),
        ("shift", np.concatenate([inner, shift * average])),
        ("output", np.full(2 * n_leaves - 1, group)),
        ("feature", _tree_row(tree, "leaf_features", total, np.int64)),
        ("slope", _tree_row(tree, "leaf_coeff", total) * average),
        ("is_linear", np.array([is_linear])),
    ):
        lines[name].append(column)


def _linear_leaves(lines: dict[str, list[Any]]) -> LinearLeaves | None:
    """The linear models of all leaves, or None where no tree was fitted with them."""
    joined = join(lines, 1)
    if not joined["is_linear"].any():
        return None
    return LinearLeaves(
        start=np.append(0, np.cumsum(joined["n_slopes"])).astype(np.int64),
        feature=joined["feature"].astype(np.int64),
        slope=joined["slope"],
        shift=joined["shift"],
        output=joined["output"].astype(np.int64),
    )


def _missing(
    kind: np.ndarray, nodes: dict[str, np.ndarray], d: int
) -> tuple[np.ndarray, np.ndarray]:
    """What zero means for each feature, and the way of missing values at each node."""
    numeric = (nodes["left"] >= 0) & (kind & 1 == 0)
    rule = kind >> 2 & 3
    zero_missing = np.zeros(d, bool)
    zero = numeric & (rule == 1)
    zero_missing[nodes["feature"][zero]] = True
    mixed = numeric & ~zero & zero_missing[np.maximum(nodes["feature"], 0)]
    if mixed.any():
        fail(
            "model",
            "one meaning of zero for each feature",
            f"feature {nodes['feature'][mixed][0]} with zero missing in some trees only",
            "Continue training with the same zero_as_missing",
            UnsupportedModelError,
        )
    default_left = (kind & 2) > 0
    # Where zero is not missing, prediction drops tiny values. Without a missing type NaN counts as
    # zero; at sets NaN goes right.
    missing_left = numeric & np.where(rule == 0, nodes["threshold"] >= 0.0, default_left)
    return np.where(zero_missing, 1, 2).astype(np.int8), missing_left
