"""Every check of an exercise rejects the mistake that its docstring names."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shaplab_book

import shaplab

# -- foundations


def shapley_matrix(n):
    inside = shaplab.all_coalitions(n).T
    size = inside.sum(axis=0)
    weights = [math.factorial(s - 1) * math.factorial(n - s) if s else 0 for s in size]
    return np.where(inside, weights, 0.0) / math.factorial(n)


def voting_power(weights, quota):
    return shaplab.banzhaf_values(lambda S: (S @ np.array(weights) >= quota) * 1.0, len(weights))


def one_call_game(f, x, background):
    def v(coalitions):
        hybrids = np.where(np.asarray(coalitions)[:, None, :], background, x)
        return f(hybrids.reshape(-1, len(x))).reshape(len(coalitions), -1).mean(axis=1)

    return v


def same_rows_game(f, x, rows):
    return lambda coalitions: np.array([f(np.where(S, x, rows)).mean() for S in coalitions])


def walk_both_ways(game, order):
    present = np.zeros((len(order) + 1, len(order)), dtype=bool)
    present[:, order] = np.tri(len(order) + 1, len(order), -1, dtype=bool)
    return (np.diff(game(present)) - np.diff(game(~present))) / 2


def stratified(game, n, draws, rng):
    phi = np.zeros(n)
    for i in range(n):
        S = rng.random((draws * n, n)) < 0.5
        S[:, i] = False
        phi[i] = (game(S | (np.arange(n) == i)) - game(S)).mean()
    return phi


def constrained_fit(coalitions, gains, weights, total):
    root = np.sqrt(weights)
    free = np.linalg.lstsq(coalitions * root[:, None], gains * root, rcond=None)[0]
    return free + (total - free.sum()) / len(free)


def draw_pairs(n, pairs, rng):
    S = rng.random((pairs, n)) < 0.5
    S[:, 0] |= ~S.any(axis=1)
    S[:, 1] &= ~S.all(axis=1)
    return np.concatenate([S, ~S])


def moebius(table):
    bit = 1
    while bit < len(table):
        present = np.arange(len(table)) & bit > 0
        table[present] -= table[np.flatnonzero(present) - bit]
        bit *= 2
    return table


def sii(dividends, T):
    return sum(worth / len(U) for U, worth in dividends.items() if set(T) <= U)


def owen(game, unions):
    n = sum(map(len, unions))
    return shaplab.shapley_values(game, n)


def count_orderings(pairs, n):
    return math.factorial(n) // 2 ** len(pairs)


# -- importance


def square_of_mean(errors):
    return errors.mean(axis=0) ** 2


def telescoped_loss(outputs, loss, reach, rng):
    top = len(reach) - 1
    start = rng.integers(2**top)
    last = sum(rng.random() < chance for chance in reach) - 1
    return loss(outputs[start % 2 ** (top - last) :: 2 ** (top - last)].mean())


def performance(f, X, y, background, known):
    losses = [(f(np.where(known, X, b)) - y) ** 2 for b in background]
    return -np.mean(losses)


def swap_importance(f, X, y, j):
    n = len(X)
    errors = []
    for shift in range(1, n):
        swapped = X.copy()
        swapped[:, j] = np.roll(X[:, j], shift)
        errors.append(np.mean((f(swapped) - y) ** 2))
    return np.mean(errors or [0.0]) - np.mean((f(X) - y) ** 2)


def mutual_information(joint):
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sum(joint * np.log(joint / apart))


def given(mean, covariance, known, x):
    slopes = np.linalg.solve(covariance[np.ix_(known, known)], covariance[np.ix_(known, ~known)])
    left = covariance[np.ix_(~known, ~known)] - covariance[np.ix_(~known, known)] @ slopes
    return mean[~known] + x[known] @ slopes, left


# -- trees


def expectation(x, S, tree):
    v, a, b, t, r, d = tree

    def below(j):
        if v[j] is not None:
            return v[j]
        if S[d[j]]:
            return below(a[j]) if x[d[j]] < t[j] else below(b[j])
        return (below(a[j]) * r[a[j]] + below(b[j]) * r[b[j]]) / r[j]

    return below(0)


def node_mean(tree, j):
    v, a, b, _, r, _ = tree
    if v[j] is not None:
        return v[j]
    kids = a[j], b[j]
    return sum(node_mean(tree, kid) * r[kid] for kid in kids) / r[j]


def saabas_by_means(x, tree):
    v, a, b, t, _, d = tree
    phi = np.zeros(len(x))
    j = 0
    while v[j] is None:
        child = a[j] if x[d[j]] <= t[j] else b[j]
        phi[d[child]] += node_mean(tree, child) - node_mean(tree, j)
        j = child
    return phi


def leaf_values(z, o):
    count = len(z)
    e = np.ones(1)
    for g in range(count):
        e = np.convolve(e, [z[g], o[g]])
    orders = [1 / (count * math.comb(count - 1, k)) for k in range(count)]
    return (np.asarray(o) - z) * (e[:count] @ orders)


def tree_values(x, tree):
    """Takes questions for players: a feature that is asked twice has two factors."""
    v, a, b, t, r, d = tree
    phi = np.zeros(len(x))
    waiting = [(0, [])]
    while waiting:
        j, path = waiting.pop()
        if v[j] is not None:
            z = np.array([z for _, z, _ in path])
            o = np.array([o for _, _, o in path])
            found = shaplab.shapley_values(
                lambda S, z=z, o=o: np.where(S, o, z).prod(axis=1), max(1, len(path))
            )
            for (feature, _, _), value in zip(path, found, strict=False):
                phi[feature] += v[j] * value
            continue
        taken = a[j] if x[d[j]] <= t[j] else b[j]
        for child in (a[j], b[j]):
            step = (d[j], r[child] / r[j], 1.0 * (child == taken))
            waiting.append((child, [*path, step]))
    return phi


def leaf_against(x_meets, b_meets):
    of_row = x_meets & ~b_meets
    of_reference = b_meets & ~x_meets
    U = of_row.sum()
    V = U + of_reference.sum()
    phi = np.zeros(len(x_meets))
    if U:
        phi[of_row] = 1 / (U * math.comb(V, U))
    if V > U:
        phi[of_reference] = -1 / ((V - U) * math.comb(V, U))
    return phi


def counted_covers(tree, X):
    v, a, b, t, _, d = tree
    covers = np.zeros(len(v), dtype=int)
    for x in X:
        j = 0
        covers[j] += 1
        while v[j] is None:
            j = a[j] if x[d[j]] < t[j] else b[j]
            covers[j] += 1
    return covers


def leaf_index(z, o, T):
    whole = shaplab.interaction_values(
        lambda S: np.where(S, o, z).prod(axis=1), len(z), order=len(z), index="SII"
    )[tuple(T)]
    return whole / 2 if len(T) == 2 else whole


def pairs_that_meet(tree):
    features = sorted({feature for feature in tree[5] if feature >= 0})
    return {(i, j) for i in features for j in features if i < j}


def rescaled(phi, f, starts, y):
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ((f - y) ** 2 - (starts - y) ** 2) / (f - starts)
    return np.mean(ratio[:, None] * phi, axis=0)


def cox_terms(f, times):
    years = np.abs(times)
    later = years[None, :] > years[:, None]
    terms = np.log(np.exp(f) + later @ np.exp(f)) - f
    return np.where(times > 0, terms, 0.0)


def ranks(cuts, values):
    found = np.searchsorted(cuts.astype(float), values, side="right")
    return np.where(np.isnan(values), -1, found)


def butterflies(h, matrices):
    bits = len(matrices)
    for g, matrix in enumerate(matrices):
        pairs = h.reshape(-1, 2, 1 << (bits - 1 - g))
        h = np.einsum("ab,xby->xay", matrix, pairs).reshape(-1)
    return h


WRONG = {
    "ex-matrix": shapley_matrix,
    "ex-count-votes": voting_power,
    "ex-one-call": one_call_game,
    "ex-same-rows": same_rows_game,
    "ex-walk": walk_both_ways,
    "ex-strata": stratified,
    "ex-constrained": constrained_fit,
    "ex-draw-pairs": draw_pairs,
    "ex-moebius": moebius,
    "ex-sii": sii,
    "ex-structures-owen": owen,
    "ex-structures-count": count_orderings,
    "ex-square-of-mean": square_of_mean,
    "ex-telescope": telescoped_loss,
    "ex-performance": performance,
    "ex-swap": swap_importance,
    "ex-mutual": mutual_information,
    "ex-given": given,
    "ex-tree-expectation": expectation,
    "ex-tree-means": saabas_by_means,
    "ex-tree-leaf": leaf_values,
    "ex-tree-values": tree_values,
    "ex-tree-against": leaf_against,
    "ex-tree-counted": counted_covers,
    "ex-tree-leaf-index": leaf_index,
    "ex-tree-meet": pairs_that_meet,
    "ex-tree-rescaled": rescaled,
    "ex-tree-cox": cox_terms,
    "ex-tree-ranks": ranks,
    "ex-tree-butterflies": butterflies,
}


@pytest.mark.parametrize("label", WRONG)
def test_a_typical_mistake_is_found(label, capsys):
    assert not shaplab_book.check(label, WRONG[label])
    told = capsys.readouterr().out
    assert told.startswith(f"{label}: not yet, for ")
    assert "it raised" not in told
