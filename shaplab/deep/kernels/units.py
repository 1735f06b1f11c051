"""Kernels of scalar units: Rescale, and the two passes of RevealCancelMean."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from shaplab._compiling import announce_compiling

__all__: list[str] = []

_HEARD = announce_compiling()
_FAST = {"reassoc", "contract", "nsz", "arcp"}
_LANES = 16  # rows of inputs are padded to a multiple, so that no loop has a slow end


class FunctionEnds(NamedTuple):
    """A scalar function on some rows: its inputs, values and slopes, ``(R, D)`` each."""

    x: np.ndarray
    y: np.ndarray
    slope: np.ndarray


@numba.njit(cache=True, error_model="numpy")
def rescale_rows(
    ours: FunctionEnds,
    theirs: FunctionEnds,
    q: np.ndarray,
    limits: np.ndarray,
    out: np.ndarray,
) -> None:
    """``q`` times the multipliers of Rescale, in one pass; ``limits`` as in ``rules.LIMITS``.

    Rows of ``ours``, the explained ones, repeat over those of ``theirs``.
    """
    f, at_f, slope_f = ours
    b, at_b, slope_b = theirs
    scale, offset, apart, bend = limits
    half = b.dtype.type(0.5)
    for r in range(b.shape[0]):
        source = r % f.shape[0]
        for j in range(b.shape[1]):
            step = f[source, j] - b[r, j]
            short = abs(step) <= scale * (offset + abs(b[r, j]))
            alike = abs(slope_f[source, j] - slope_b[r, j]) <= apart + bend * abs(step)
            # Slopes of equal inputs may differ by rounding.
            close = (short & alike) | (step == 0)
            flat = half * (slope_f[source, j] + slope_b[r, j])
            out[r, j] = q[r, j] * (flat if close else (at_f[source, j] - at_b[r, j]) / step)


class Contributions(NamedTuple):
    """What the contributions ``weight[o, i] * (f - b)[r, i]`` are made of.

    ``f (R_f, n)`` repeats over the rows of ``b (R, n)``; ``weight`` is ``padded``; ``z_f`` and
    ``z_b`` are the sums, ``(R, O)``; ``inverse`` is one over the number of players of a row.
    ``z_f`` and ``inverse`` repeat as ``f`` does.
    """

    f: np.ndarray
    b: np.ndarray
    weight: np.ndarray
    z_f: np.ndarray
    z_b: np.ndarray
    inverse: np.ndarray


class UnitEnds(NamedTuple):
    """A function of units, ``(R, O)`` each: ``up``, the sum of the contributions above their mean;
    values and slopes at ``z_f`` and ``z_b``; values at ``z_b + up`` and at ``z_f - up``."""

    up: np.ndarray
    at_f: np.ndarray
    slope_f: np.ndarray
    at_b: np.ndarray
    slope_b: np.ndarray
    at_up: np.ndarray
    at_down: np.ndarray


@numba.njit(cache=True)
def padded(weight: np.ndarray) -> np.ndarray:
    """``weight (O, n)`` with zero rows and columns, which change no sum, up to multiples of 4 and
    of 16."""
    units, inputs = weight.shape
    rows = -(-units // 4) * 4
    columns = -(-inputs // _LANES) * _LANES
    wide = np.zeros((rows, columns), dtype=weight.dtype)
    wide[:units, :inputs] = weight
    return wide


# Both passes take eight rows at a time: four rows of weights serve them all while they are in the
# nearest cache. Four units at once, written out, are what compilers turn into vector operations.


@numba.njit(cache=True, fastmath=_FAST)
def above_mean(sums: Contributions) -> np.ndarray:
    """Sums ``(R, O)`` of the contributions above their mean, ``(z_f - z_b) * inverse``."""
    f, b, weight, z_f, z_b, inverse = sums
    zero = b.dtype.type(0)
    up = np.empty_like(z_b)
    step = np.zeros((8, weight.shape[1]), dtype=b.dtype)
    mean = np.zeros((8, weight.shape[0]), dtype=b.dtype)
    above = np.zeros_like(mean)
    for start in range(0, b.shape[0], 8):
        stop = min(start + 8, b.shape[0])
        for r in range(start, stop):
            k = r - start
            source = r % z_f.shape[0]
            step[k, : b.shape[1]] = f[r % f.shape[0]] - b[r]
            for o in range(z_b.shape[1]):
                mean[k, o] = (z_f[source, o] - z_b[r, o]) * inverse[r % inverse.shape[0]]
        for o in range(0, weight.shape[0], 4):
            w0 = weight[o]
            w1 = weight[o + 1]
            w2 = weight[o + 2]
            w3 = weight[o + 3]
            for k in range(stop - start):
                row = step[k]
                t0 = mean[k, o]
                t1 = mean[k, o + 1]
                t2 = mean[k, o + 2]
                t3 = mean[k, o + 3]
                s0 = s1 = s2 = s3 = zero
                for i in range(row.shape[0]):
                    c0 = w0[i] * row[i]
                    c1 = w1[i] * row[i]
                    c2 = w2[i] * row[i]
                    c3 = w3[i] * row[i]
                    s0 += c0 if c0 > t0 else zero
                    s1 += c1 if c1 > t1 else zero
                    s2 += c2 if c2 > t2 else zero
                    s3 += c3 if c3 > t3 else zero
                above[k, o] = s0
                above[k, o + 1] = s1
                above[k, o + 2] = s2
                above[k, o + 3] = s3
        for r in range(start, stop):
            up[r] = above[r - start, : z_b.shape[1]]
    return up


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def split_at_mean(sums: Contributions, ends: UnitEnds, q: np.ndarray, tiny: float) -> np.ndarray:
    """Multipliers ``(R, n)`` of the inputs, given those of the units, ``q (R, O)``: each
    contribution takes its part's; a part within ``tiny`` of zero takes the slope."""
    f, b, weight, z_f, z_b, inverse = sums
    units = z_b.shape[1]
    inputs = b.shape[1]
    one = b.dtype.type(1)
    half = b.dtype.type(0.5)
    small = b.dtype.type(tiny)
    out = np.empty_like(b)
    step = np.zeros((8, weight.shape[1]), dtype=b.dtype)
    total = np.empty_like(step)
    high = np.zeros((8, weight.shape[0]), dtype=b.dtype)
    low = np.zeros_like(high)
    mean = np.zeros_like(high)
    gain = np.empty(units, dtype=b.dtype)
    flat = np.empty(units, dtype=b.dtype)
    for start in range(0, b.shape[0], 8):
        stop = min(start + 8, b.shape[0])
        for r in range(start, stop):
            k = r - start
            source = r % z_f.shape[0]
            step[k, :inputs] = f[r % f.shape[0]] - b[r]
            share = inverse[r % inverse.shape[0]]
            up = ends.up[r]
            level = z_b[r]
            # Loops of one result each, which compilers turn into vector operations.
            for o in range(units):
                mean[k, o] = (z_f[source, o] - level[o]) * share
            for o in range(units):
                cross = ends.at_up[r, o] - ends.at_down[r, o]
                gain[o] = half * (ends.at_f[source, o] - ends.at_b[r, o] + cross)
            for o in range(units):
                flat[o] = half * (ends.slope_f[source, o] + ends.slope_b[r, o])
            for o in range(units):
                nothing = abs(up[o]) <= small * (one + abs(level[o]))
                high[k, o] = q[r, o] * (flat[o] if nothing else gain[o] / up[o])
            for o in range(units):
                down = z_f[source, o] - level[o] - up[o]
                nothing = abs(down) <= small * (one + abs(level[o]))
                loss = ends.at_f[source, o] - ends.at_b[r, o] - gain[o]
                low[k, o] = q[r, o] * (flat[o] if nothing else loss / down)
        total[:] = 0
        for o in range(0, weight.shape[0], 4):
            w0 = weight[o]
            w1 = weight[o + 1]
            w2 = weight[o + 2]
            w3 = weight[o + 3]
            for k in range(stop - start):
                row = step[k]
                earned = total[k]
                u0 = high[k, o]
                u1 = high[k, o + 1]
                u2 = high[k, o + 2]
                u3 = high[k, o + 3]
                d0 = low[k, o]
                d1 = low[k, o + 1]
                d2 = low[k, o + 2]
                d3 = low[k, o + 3]
                t0 = mean[k, o]
                t1 = mean[k, o + 1]
                t2 = mean[k, o + 2]
                t3 = mean[k, o + 3]
                for i in range(row.shape[0]):
                    s = row[i]
                    m0 = w0[i] * (u0 if w0[i] * s > t0 else d0)
                    m1 = w1[i] * (u1 if w1[i] * s > t1 else d1)
                    m2 = w2[i] * (u2 if w2[i] * s > t2 else d2)
                    m3 = w3[i] * (u3 if w3[i] * s > t3 else d3)
                    earned[i] += (m0 + m1) + (m2 + m3)
        for r in range(start, stop):
            out[r] = total[r - start, :inputs]
    return out
