"""Random ensembles that are nasty on purpose, and Shapley values by brute force for any function of
a coalition."""

from __future__ import annotations

import itertools
import math

import numpy as np

from shaplab.trees.ensemble import TreeEnsemble

__all__ = ["assert_agrees", "brute", "marginal_game", "random_ensemble", "random_rows"]


def assert_agrees(ours, theirs, tolerance=1e-12):
    """Equal to rounding, in shape and value; float64 sums in another order by default."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(
        ours, theirs, rtol=tolerance, atol=tolerance * max(1.0, np.abs(theirs).max())
    )


def random_ensemble(rng, *, trees=3, d=4, depth=4, outputs=None, zero=0.15, chain=False):
    """Repeated features, tied thresholds, splits without cover, missing directions, category sets,
    single leaves.

    ``chain`` makes one long path instead of a bushy tree.
    """
    feature, threshold, left, right, value, cover, missing, start, sets = (
        [],
        [],
        [],
        [],
        [],
        [],
        [],
        [0],
        {},
    )
    categorical = {d - 1} if rng.random() < 0.4 else set()

    def grow(level, weight, must):
        node = len(feature)
        feature.append(-1)
        threshold.append(0.0)
        left.append(-1)
        right.append(-1)
        value.append(rng.normal(size=outputs))
        cover.append(weight)
        missing.append(False)
        if level < depth and (must or rng.random() > 0.3):
            feature[node] = int(rng.integers(d))
            threshold[node] = float(np.round(rng.normal(), 1))
            missing[node] = bool(rng.random() < 0.5)
            if feature[node] in categorical:
                sets[node] = np.flatnonzero(rng.random(4) < 0.5)
            share = float(rng.integers(2)) if rng.random() < zero else float(rng.random())
            long_left = rng.random() < 0.5
            left[node] = child(level + 1, weight * share, long_left)
            right[node] = child(level + 1, weight * (1 - share), not long_left)
        return node

    def child(level, weight, is_long):
        return grow(level if is_long or not chain else depth, weight, chain and is_long)

    for _ in range(trees):
        grow(0, float(rng.integers(1, 100)), rng.random() < 0.9)
        start.append(len(feature))
    return TreeEnsemble.from_arrays(
        feature,
        threshold,
        left,
        right,
        np.array(value),
        cover=cover,
        tree_start=start,
        missing_left=missing,
        sets=sets,
        base=rng.normal(),
        n_features=d,
    )


def random_rows(rng, ensemble, n):
    """Rows on and off the thresholds, with missing values; small integers in case a column is
    categorical."""
    X = np.round(rng.normal(size=(n, ensemble.n_features)), 1)
    X[:, -1] = np.abs(np.round(X[:, -1] * 2)) if len(ensemble.set_bits) else X[:, -1]
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


def brute(v, d):
    """Shapley values ``(d, ...)`` and interactions ``(d, d, ...)`` (Eq. 15-18) of ``v(frozenset)``
    by definition."""
    worth = {
        frozenset(S): np.asarray(v(frozenset(S)), float)
        for size in range(d + 1)
        for S in itertools.combinations(range(d), size)
    }
    shape = worth[frozenset()].shape
    phi, both = np.zeros((d, *shape)), np.zeros((d, d, *shape))
    for S, value in worth.items():
        for i in set(range(d)) - S:
            weight = math.factorial(len(S)) * math.factorial(d - len(S) - 1) / math.factorial(d)
            phi[i] += weight * (worth[S | {i}] - value)
            for j in set(range(d)) - S - {i}:
                weight = (
                    math.factorial(len(S))
                    * math.factorial(d - len(S) - 2)
                    / (2 * math.factorial(d - 1))
                )
                both[i, j] += weight * (worth[S | {i, j}] - worth[S | {i}] - worth[S | {j}] + value)
    for i in range(d):
        both[i, i] = phi[i] - both[i].sum(axis=0)
    return phi, both


def marginal_game(e, x, background, weights=None):
    """v(S) on the black box: the mean of predict over background rows with the columns of S from
    x."""

    def v(S):
        known = np.isin(np.arange(e.n_features), list(S))
        return np.average(e.predict(np.where(known, x, background)), axis=0, weights=weights)

    return v
