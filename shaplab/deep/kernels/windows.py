"""The exact maximum over windows of inputs.

``table`` has shape ``(W, k)``: window ``w`` reads positions ``table[w]``, -1 marks padding.

Needs: nothing.
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
def pooled_maximum(f: np.ndarray, b: np.ndarray, q: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """Add ``q`` times the exact multipliers of each window's maximum to ``out``.

    ``f (R_f, S)`` repeats over the rows of ``b (R, S)``; ``q (R, W)``; ``out (R, S)``, filled with zeros.
    Only inputs whose larger value lies above ``floor``, the largest of the smaller values, can decide. They
    are sorted by it, and the walk goes down from the largest to the floor. ``rise`` and ``fall`` are what a
    member of A and of C has earned so far; each member remembers what it was when it joined.
    """
    windows, k = table.shape
    top, who, when = np.empty(k + 1), np.empty(k + 1, dtype=np.int64), np.empty(k)
    for r in range(b.shape[0]):
        ours, theirs, found = f[r % f.shape[0]], b[r], out[r]
        for w in range(windows):
            weight = q[r, w]
            if weight == 0.0:
                continue
            floor, tied = -np.inf, 0
            for i in range(k):
                place = table[w, i]
                if place >= 0:
                    floor = max(floor, min(ours[place], theirs[place]))
            joined = 0
            for i in range(k):
                place = table[w, i]
                if place < 0:
                    continue
                x, y = ours[place], theirs[place]
                larger = max(x, y)
                tied += (x == y) & (x == floor)
                if larger > floor:
                    at = joined
                    while at > 0 and top[at - 1] < larger:
                        top[at], who[at] = top[at - 1], who[at - 1]
                        at -= 1
                    top[at], who[at] = larger, place
                    joined += 1
            a = c = 0
            if joined == 1:
                place = who[0]
                found[place] += weight * (top[0] - floor) / abs(ours[place] - theirs[place])
                a, c = (1, 0) if ours[place] > theirs[place] else (0, 1)
            elif joined > 1:
                rise = fall = 0.0
                top[joined] = floor
                for j in range(joined):
                    if ours[who[j]] > theirs[who[j]]:
                        when[j] = rise
                        a += 1
                    else:
                        when[j] = fall
                        c += 1
                    width = top[j] - top[j + 1]
                    if width > 0.0:
                        if a > 0:
                            rise += width * _share(a, c)
                        if c > 0:
                            fall += width * _share(c, a)
                for j in range(joined):
                    place = who[j]
                    step = ours[place] - theirs[place]
                    earned = rise - when[j] if step > 0 else fall - when[j]
                    found[place] += weight * earned / abs(step)
            if tied > 0:  # equal values decide at the floor as a vanishing step would
                share = _share(a + 1, c)
                for i in range(k):
                    place = table[w, i]
                    if place >= 0 and ours[place] == floor and theirs[place] == floor:
                        found[place] += weight * share
