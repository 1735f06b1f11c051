"""Compiled loops of the ensemble: values to codes, codes to leaves, leaves to outputs.

The ensemble's constructor has checked that children, features and sets lie in range, and the
encoder that codes do, so the loops index without further checks. Idea 1 of the chapter *Fast enough
for everything* (trees/kernels), "compare once".

All kernels of the trees take ``Nodes``. What they call in hot loops is inlined.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from shaplab.trees.kernels.compiling import ENTRY

__all__ = ["Codebook", "Nodes", "encode_rows", "find_leaves", "goes_left", "predict_rows"]

# Rows that go through one tree, or one column, before the next: they and it stay in the cache.
_ROWS_A_TASK = 256


class Nodes(NamedTuple):
    """The nodes of all trees, one after the other; each field as in ``TreeEnsemble``.

    ``player`` says whose split a node is: that of its feature, or that of the group which the
    feature belongs to; -1 at leaves.
    """

    tree_start: np.ndarray
    feature: np.ndarray
    left: np.ndarray
    right: np.ndarray
    rank: np.ndarray
    missing_left: np.ndarray
    set_start: np.ndarray
    set_bits: np.ndarray
    value: np.ndarray
    player: np.ndarray
    n_players: int


class Codebook(NamedTuple):
    """What turns a column's values into codes; each field as in ``Encoder``.

    ``zero_rule``: 1 where numbers of magnitude at most ``tiny`` are missing, 2 where they are zero.
    ``lowest_category``: what lies above it is cut to a whole category, the rest is no category.
    """

    cuts: np.ndarray
    cut_start: np.ndarray
    categorical: np.ndarray
    categories: np.ndarray
    category_start: np.ndarray
    zero_rule: np.ndarray
    tiny: float
    missing: float
    unseen_missing: bool
    lowest_category: float


@njit(inline="always")
def _count_below(numbers, first, last, x):  # type: ignore
    """How many of the sorted ``numbers[first:last]`` are below ``x``, counted from number 0."""
    while first < last:
        middle = (first + last) >> 1
        if numbers[middle] < x:
            first = middle + 1
        else:
            last = middle
    return first


@njit(**ENTRY)
def encode_rows(X, book: Codebook, codes) -> None:  # type: ignore
    """Write the code of every cell: the number of cuts below it, the place of its category, or -1
    if missing."""
    cuts = book.cuts
    categories = book.categories
    tiny = book.tiny
    missing = book.missing
    n, d = X.shape
    for first in range(0, n, _ROWS_A_TASK):
        last = min(n, first + _ROWS_A_TASK)
        for j in range(d):
            first_cut = book.cut_start[j]
            last_cut = book.cut_start[j + 1]
            first_known = book.category_start[j]
            last_known = book.category_start[j + 1]
            categorical = book.categorical[j]
            zero_rule = book.zero_rule[j]
            for i in range(first, last):
                x = X[i, j]
                if zero_rule == 2 and abs(x) <= tiny:
                    x = X[i, j] - X[i, j]  # zero of the table's type
                if np.isnan(x) or x == missing or (zero_rule == 1 and abs(x) <= tiny):
                    codes[i, j] = -1
                elif categorical:
                    whole = np.float64(np.trunc(x))
                    place = _count_below(categories, first_known, last_known, whole)
                    if (
                        x > book.lowest_category
                        and place < last_known
                        and categories[place] == whole
                    ):
                        codes[i, j] = place - first_known
                    elif book.unseen_missing:
                        codes[i, j] = -1
                    else:
                        codes[i, j] = last_known - first_known
                else:
                    codes[i, j] = _count_below(cuts, first_cut, last_cut, x) - first_cut


@njit(inline="always")
def goes_left(nodes: Nodes, node, code):  # type: ignore
    """Whether a row with this code of the node's feature goes to the left child."""
    if nodes.set_start[node] >= 0 and code >= 0:
        return nodes.set_bits[nodes.set_start[node] + code] == 1
    # Without branches: which way a row goes is hard to predict.
    return (code >= 0) & (code < nodes.rank[node]) | (code < 0) & nodes.missing_left[node]


@njit(inline="always")
def _leaf_of(nodes: Nodes, root, codes, row):  # type: ignore
    """The leaf that a row reaches from a root."""
    node = root
    while nodes.feature[node] >= 0:
        left = goes_left(nodes, node, codes[row, nodes.feature[node]])
        node = nodes.right[node] + (nodes.left[node] - nodes.right[node]) * left
    return node


@njit(**ENTRY)
def predict_rows(codes, nodes: Nodes, base, out) -> None:  # type: ignore
    """Add the leaves of every tree, in tree order, to the base; a block of rows at a time keeps a
    tree in cache."""
    n, n_outputs = out.shape
    out[:] = 0.0
    for first in range(0, n, _ROWS_A_TASK):
        for tree in range(nodes.tree_start.shape[0] - 1):
            for i in range(first, min(n, first + _ROWS_A_TASK)):
                leaf = _leaf_of(nodes, nodes.tree_start[tree], codes, i)
                for k in range(n_outputs):
                    out[i, k] += nodes.value[leaf, k]
    for i in range(n):
        for k in range(n_outputs):
            out[i, k] += base[k]


@njit(**ENTRY)
def find_leaves(codes, nodes: Nodes, out) -> None:  # type: ignore
    """Write the leaf, a node id, that each row reaches in each tree."""
    for i in range(codes.shape[0]):
        for tree in range(nodes.tree_start.shape[0] - 1):
            out[i, tree] = _leaf_of(nodes, nodes.tree_start[tree], codes, i)
