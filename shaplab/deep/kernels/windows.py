"""The exact maximum over windows of inputs.

``table`` has shape ``(W, k)``: window ``w`` reads positions ``table[w]``, -1 marks padding.
"""

from __future__ import annotations

from math import exp, lgamma

import numba
import numpy as np

__all__: list[str] = []

_LISTED = 30  # shares of windows of up to so many inputs are looked up


@numba.njit(cache=True, inline="always")
def _share_of_orders(a: int, c: int) -> float:
    """Share of orders in which one of ``a`` players decides against ``c``: (a-1)! c! / (a+c)!."""
    if c == 0:
        return 1.0 / a
    if a == 1:
        return 1.0 / (c + 1.0)
    if a + c > 20:
        return exp(lgamma(a) + lgamma(c + 1.0) - lgamma(a + c + 1.0))
    share = 1.0 / a
    for j in range(1, c + 1):
        share *= j / (a + j)
    return share


@numba.njit(cache=True, inline="always")
def _listed_shares(k: int) -> np.ndarray:
    """The shares of all numbers of players in windows of ``k`` inputs; an empty list for many."""
    listed = k + 2 if k <= _LISTED else 1
    shares = np.zeros((listed, listed))
    for a in range(1, listed):
        for c in range(listed):
            shares[a, c] = _share_of_orders(a, c)
    return shares


@numba.njit(cache=True, inline="always")
def _sort_down(level: np.ndarray, who: np.ndarray, count: int) -> None:
    """Sort the first inputs by their level, the highest first."""
    for j in range(1, count):
        larger = level[j]
        i = who[j]
        place = j
        while place > 0 and level[place - 1] < larger:
            level[place] = level[place - 1]
            who[place] = who[place - 1]
            place -= 1
        level[place] = larger
        who[place] = i


@numba.njit(cache=True, error_model="numpy")
def pooled_maximum(
    f: np.ndarray, b: np.ndarray, q: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    """Add ``q`` times the exact multipliers of each window's maximum to ``out``.

    ``f (R_f, S)`` repeats over the rows of ``b (R, S)``; ``q (R, W)``; ``out (R, S)``, filled with
    zeros. Only inputs whose larger value lies above ``floor``, the largest of the smaller values,
    can decide. They are sorted by it, and the walk goes down from the largest to the floor.
    ``rise`` and ``fall`` are what a member of A and of C has earned so far; each member remembers
    what it was when it joined.
    """
    windows, k = table.shape
    level = np.empty(k + 1)
    who = np.empty(k + 1, dtype=np.int64)
    when = np.empty(k)
    xs = np.empty(k, dtype=f.dtype)
    ys = np.empty(k, dtype=f.dtype)
    lowest = f.dtype.type(-np.inf)
    few = k <= _LISTED
    shares = _listed_shares(k)
    for r in range(b.shape[0]):
        ours = f[r % f.shape[0]]
        theirs = b[r]
        credit = out[r]
        for w in range(windows):
            weight = q[r, w]
            if weight == 0.0:
                continue
            floor = lowest
            for i in range(k):
                place = table[w, i]
                x = y = lowest
                if place >= 0:
                    x = ours[np.uint64(place)]
                    y = theirs[np.uint64(place)]
                xs[i] = x
                ys[i] = y
                floor = max(floor, min(x, y))
            joined = tied = 0
            for i in range(k):  # no branches: which inputs decide is unpredictable
                x = xs[i]
                y = ys[i]
                larger = max(x, y)
                level[joined] = larger
                who[joined] = i
                joined += larger > floor
                tied += (x == floor) & (y == floor)
            _sort_down(level, who, joined)
            level[joined] = floor
            a = c = 0
            rise = fall = 0.0
            for j in range(joined):
                i = who[j]
                up = xs[i] > ys[i]
                when[j] = rise if up else fall
                a += up
                c += not up
                width = level[j] - level[j + 1]
                if few:
                    rise += width * shares[a, c]
                    fall += width * shares[c, a]
                elif width > 0.0:
                    rise += width * _share_of_orders(a, c) if a else 0.0
                    fall += width * _share_of_orders(c, a) if c else 0.0
            for j in range(joined):
                i = who[j]
                step = xs[i] - ys[i]
                earned = rise - when[j] if step > 0 else fall - when[j]
                credit[np.uint64(table[w, i])] += weight * earned / abs(step)
            if tied > 0:  # equal values decide at the floor as a vanishing step would
                share = shares[a + 1, c] if few else _share_of_orders(a + 1, c)
                for i in range(k):
                    if xs[i] == floor and ys[i] == floor and table[w, i] >= 0:
                        credit[np.uint64(table[w, i])] += weight * share
