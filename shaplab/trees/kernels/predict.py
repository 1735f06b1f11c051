"""Compiled loops of the ensemble: values to codes, codes to outputs, data to covers.

The ensemble's constructor has checked that children, features and sets lie in range, and the
encoder that codes do, so the loops index without further checks.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__: list[str] = []

_BLOCK = 256


@njit(cache=True, nogil=True)
def encode_rows(  # type: ignore
    X,
    cuts,
    cut_start,
    categorical,
    categories,
    category_start,
    zero_rule,
    zero,
    missing,
    unseen_missing,
    above,
    codes,
):
    """Write the code of every cell: the number of cuts below it, the place of its category, or -1
    if missing."""
    n, d = X.shape
    for first in range(0, n, _BLOCK):
        last = min(n, first + _BLOCK)
        for j in range(d):
            low, high = cut_start[j], cut_start[j + 1]
            first_known, last_known = category_start[j], category_start[j + 1]
            for i in range(first, last):
                x = X[i, j]
                if zero_rule[j] == 2 and abs(x) <= zero:
                    x = X[i, j] - X[i, j]  # zero of the table's type
                if np.isnan(x) or x == missing or (zero_rule[j] == 1 and abs(x) <= zero):
                    codes[i, j] = -1
                elif categorical[j]:
                    whole = np.float64(np.trunc(x))
                    a, b = first_known, last_known
                    while a < b:
                        middle = (a + b) >> 1
                        if categories[middle] < whole:
                            a = middle + 1
                        else:
                            b = middle
                    if x > above and a < last_known and categories[a] == whole:
                        codes[i, j] = a - first_known
                    else:
                        codes[i, j] = -1 if unseen_missing else last_known - first_known
                else:
                    a, b = low, high
                    while a < b:
                        middle = (a + b) >> 1
                        if cuts[middle] < x:
                            a = middle + 1
                        else:
                            b = middle
                    codes[i, j] = a - low


@njit(cache=True, nogil=True)
def next_node(node, code, left, right, rank, missing_left, set_start, set_bits):  # type: ignore
    """The child that a row with this code of the node's feature goes to."""
    if set_start[node] >= 0 and code >= 0:
        goes_left = set_bits[set_start[node] + code] == 1
    else:  # without branches: which way a row goes is hard to predict
        goes_left = (code >= 0) & (code < rank[node]) | (code < 0) & missing_left[node]
    return right[node] + (left[node] - right[node]) * goes_left


@njit(cache=True, nogil=True)
def predict_rows(  # type: ignore
    codes, roots, feature, left, right, rank, missing_left, set_start, set_bits, value, base, out
):
    """Add the leaves of every tree, in tree order, to the base; a block of rows at a time keeps a
    tree in cache."""
    n, n_outputs = out.shape
    out[:] = 0.0
    for first in range(0, n, _BLOCK):
        for t in range(roots.shape[0]):
            for i in range(first, min(n, first + _BLOCK)):
                node = roots[t]
                while feature[node] >= 0:
                    node = next_node(
                        node,
                        codes[i, feature[node]],
                        left,
                        right,
                        rank,
                        missing_left,
                        set_start,
                        set_bits,
                    )
                for k in range(n_outputs):
                    out[i, k] += value[node, k]
    for i in range(n):
        for k in range(n_outputs):
            out[i, k] += base[k]


@njit(cache=True, nogil=True)
def find_leaves(codes, roots, feature, left, right, rank, missing_left, set_start, set_bits, out):  # type: ignore
    """Write the leaf, a node id, that each row reaches in each tree."""
    for i in range(codes.shape[0]):
        for t in range(roots.shape[0]):
            node = roots[t]
            while feature[node] >= 0:
                node = next_node(
                    node,
                    codes[i, feature[node]],
                    left,
                    right,
                    rank,
                    missing_left,
                    set_start,
                    set_bits,
                )
            out[i, t] = node
