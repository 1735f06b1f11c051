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


@numba.njit(cache=True)
def pooled_maximum(f: np.ndarray, b: np.ndarray, q: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """Add ``q`` times the exact multipliers of each window's maximum to ``out``.

    ``f (R_f, S)`` repeats over the rows of ``b (R, S)``; ``q (R, W)``; ``out (R, S)``, filled with zeros.
    The walk goes down from the largest value. ``rise`` and ``fall`` are what a member of A and of C has
    earned so far; each member remembers what it was when it joined. The walk ends at the first player
    that is above with both values.
    """
    windows, k = table.shape
    which = np.empty(2 * k, dtype=np.int64)
    when = np.empty(2 * k)
    used = np.empty(2 * k, dtype=np.bool_)
    values = np.empty(2 * k)
    for r in range(b.shape[0]):
        source = r % f.shape[0]
        for w in range(windows):
            weight = q[r, w]
            if weight == 0.0:
                continue
            for i in range(k):
                place = table[w, i]
                used[i] = used[k + i] = place < 0
                if place >= 0:
                    values[i], values[k + i] = f[source, place], b[r, place]
            rise = fall = level = 0.0
            a = c = joined = 0
            while True:
                best = -1
                for j in range(2 * k):
                    if not used[j] and (best < 0 or values[j] > values[best]):
                        best = j
                if best < 0:
                    break
                width = level - values[best]
                if joined > 0 and width > 0.0:
                    if a > 0:
                        rise += width * _share(a, c)
                    if c > 0:
                        fall -= width * _share(c, a)
                level = values[best]
                twin = best + k if best < k else best - k
                if used[twin] or values[twin] == level:
                    break
                used[best] = True
                which[joined] = best
                if best < k:
                    when[joined] = rise
                    a += 1
                else:
                    when[joined] = fall
                    c += 1
                joined += 1
            a = c = 0
            for j in range(joined):
                if values[which[j]] > level:
                    a += which[j] < k
                    c += which[j] >= k
            for i in range(k):  # equal values decide at their level as a vanishing step would
                if table[w, i] >= 0 and values[i] == level and values[k + i] == level:
                    out[r, table[w, i]] += weight * _share(a + 1, c)
            for j in range(joined):
                best = which[j]
                player = best if best < k else best - k
                earned = rise - when[j] if best < k else fall - when[j]
                out[r, table[w, player]] += weight * earned / (values[player] - values[k + player])
