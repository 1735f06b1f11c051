"""What is right, by definitions: enumeration of coalitions and of orderings."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy.stats import t as student

MOST_PLAYERS = 8  # what is enumerated: 256 coalitions


def enumerated(predict, row, background):
    """Shapley values ``(d, ...)`` of the marginal game of one row, by the definition."""
    d = len(row)
    worth = {}
    for size in range(d + 1):
        for members in itertools.combinations(range(d), size):
            mixed = np.array(background, copy=True)
            mixed[:, list(members)] = row[list(members)]
            worth[frozenset(members)] = np.asarray(predict(mixed), float).mean(axis=0)
    values = np.zeros((d, *worth[frozenset()].shape))
    for members, value in worth.items():
        for player in set(range(d)) - members:
            weight = math.factorial(len(members)) * math.factorial(d - len(members) - 1)
            gain = worth[members | {player}] - value
            values[player] += weight / math.factorial(d) * gain
    return values


def close(found, expected, tolerance, what):
    """Raise with the largest difference when it is above ``tolerance`` times the scale."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: shape {found.shape}, expected {expected.shape}")
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    worst = np.abs(found - expected).max(initial=0.0)
    if not worst <= tolerance * scale:
        raise AssertionError(f"{what}: off by {worst:.3g} at a scale of {scale:.3g}")


def coalitions_of(n):
    """All coalitions ``(2^n, n)``, player ``i`` the ``i``-th bit of the number of a row."""
    return np.arange(2**n)[:, None] >> np.arange(n) & 1 == 1


def outputs_of(predict, X, background, label):
    """What is predicted when players are known, the others absent, for each reference row.

    ``label`` is the player of each column; returns ``(2^n, N, R[, K])``.
    """
    known = coalitions_of(int(np.max(label)) + 1)[:, label]
    mixed = np.where(known[:, None, None], X[:, None], background)
    outputs = np.asarray(predict(mixed.reshape(-1, X.shape[1])), float)
    return outputs.reshape(*mixed.shape[:3], *outputs.shape[1:])


def worth_of(predict, X, background, label, weights=None):
    """The table ``(2^n, N[, K])`` of the marginal game of rows."""
    return np.average(outputs_of(predict, X, background, label), axis=2, weights=weights)


def by_orderings(worth, unions=None, before=()):
    """Values ``(n, ...)`` as the mean over all orderings that keep unions together and bring the
    first of each pair in ``before`` before the second."""
    n = len(worth).bit_length() - 1
    families = [set(family) for family in _families(unions)]
    total = np.zeros((n, *worth.shape[1:]))
    count = 0
    for ordering in itertools.permutations(range(n)):
        place = {player: position for position, player in enumerate(ordering)}
        if any(place[first] > place[second] for first, second in before):
            continue
        if any(_spread(place, family) >= len(family) for family in families):
            continue
        count += 1
        number = 0
        for player in ordering:
            total[player] += worth[number | 1 << player] - worth[number]
            number |= 1 << player
    return total / count


def _families(unions):
    """The members of every list of nested lists."""
    for part in unions or ():
        if isinstance(part, list):
            yield list(_members(part))
            yield from _families(part)


def _members(part):
    if not isinstance(part, list):
        yield part
        return
    for inner in part:
        yield from _members(inner)


def _spread(place, family):
    places = [place[player] for player in family]
    return max(places) - min(places)


def within_errors(found, truth, std, freedom, what):
    """Raise where an estimate is off by more than six errors, or, of few rounds, by more than one
    interval in ten million is."""
    found, truth = np.asarray(found, float), np.asarray(truth, float)
    if found.shape != truth.shape:
        raise AssertionError(f"{what}: shape {found.shape}, expected {truth.shape}")
    scale = max(np.abs(truth).max(initial=0.0), 1e-6)
    errors = np.zeros(found.shape) if std is None else np.nan_to_num(std, nan=np.inf)
    freedom = np.maximum(np.nan_to_num(freedom), 1.0)
    # Draws are skewed: means of fewer than a few hundred have longer tails than Student's.
    least = np.where(freedom < 300, 8.0, 6.0)
    reach = np.maximum(least, student.ppf(1 - 5e-8, freedom))
    # Rounding of sums of many payoffs, beside what the errors allow.
    allowed = 1e-9 * scale + reach * errors
    error = np.abs(found - truth)
    if not (error <= allowed).all():
        worst = np.argmax(error - allowed)
        told = f"off by {error.ravel()[worst]:.3g}, allowed {allowed.ravel()[worst]:.3g}"
        raise AssertionError(f"{what}: {told} at a scale of {scale:.3g}")
