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
}


@pytest.mark.parametrize("label", WRONG)
def test_a_typical_mistake_is_found(label, capsys):
    assert not shaplab_book.check(label, WRONG[label])
    told = capsys.readouterr().out
    assert told.startswith(f"{label}: not yet, for ")
    assert "it raised" not in told
