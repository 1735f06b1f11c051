"""The exact maximum over windows of inputs.

``table`` has shape ``(W, k)``: window ``w`` reads positions ``table[w]``, -1 marks padding.
"""

from __future__ import annotations

from math import exp, lgamma

import numba
import numpy as np

__all__: list[str] = []


@numba.njit(cache=True, inline="always")
def _share(a: int, c: int) -> float:
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
    top, who, when = np.empty(k + 1), np.empty(k + 1, dtype=np.int64), np.empty(k)
    xs, ys = np.empty(k, dtype=f.dtype), np.empty(k, dtype=f.dtype)
    few = k <= 30  # their shares are looked up
    listed = k + 2 if few else 1
    shares = np.zeros((listed, listed))
    for a in range(1, listed):
        for c in range(listed):
            shares[a, c] = _share(a, c)
    for r in range(b.shape[0]):
        ours, theirs, found = f[r % f.shape[0]], b[r], out[r]
        for w in range(windows):
            weight = q[r, w]
            if weight == 0.0:
                continue
            floor = f.dtype.type(-np.inf)
            for i in range(k):
                place = table[w, i]
                x = y = f.dtype.type(-np.inf)
                if place >= 0:
                    x, y = ours[np.uint64(place)], theirs[np.uint64(place)]
                xs[i], ys[i] = x, y
                floor = max(floor, min(x, y))
            joined = tied = 0
            for i in range(k):  # no branches: which inputs decide is unpredictable
                x, y = xs[i], ys[i]
                larger = max(x, y)
                top[joined], who[joined] = larger, i
                joined += larger > floor
                tied += (x == floor) & (y == floor)
            for j in range(1, joined):
                larger, i, at = top[j], who[j], j
                while at > 0 and top[at - 1] < larger:
                    top[at], who[at] = top[at - 1], who[at - 1]
                    at -= 1
                top[at], who[at] = larger, i
            top[joined] = floor
            a = c = 0
            rise = fall = 0.0
            for j in range(joined):
                i = who[j]
                up = xs[i] > ys[i]
                when[j] = rise if up else fall
                a += up
                c += not up
                width = top[j] - top[j + 1]
                if few:
                    rise += width * shares[a, c]
                    fall += width * shares[c, a]
                elif width > 0.0:
                    rise += width * _share(a, c) if a else 0.0
                    fall += width * _share(c, a) if c else 0.0
            for j in range(joined):
                i = who[j]
                step = xs[i] - ys[i]
                earned = rise - when[j] if step > 0 else fall - when[j]
                found[np.uint64(table[w, i])] += weight * earned / abs(step)
            if tied > 0:  # equal values decide at the floor as a vanishing step would
                share = shares[a + 1, c] if few else _share(a + 1, c)
                for i in range(k):
                    if xs[i] == floor and ys[i] == floor and table[w, i] >= 0:
                        found[np.uint64(table[w, i])] += weight * share
