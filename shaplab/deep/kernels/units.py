"""Kernels of scalar units: Rescale, and the two passes of RevealCancelMean."""

from __future__ import annotations

import numba
import numpy as np

__all__: list[str] = []

_FAST = {"reassoc", "contract", "nsz", "arcp"}
_LANES = 16  # rows of inputs are padded to a multiple, so that no loop has a slow end


@numba.njit(cache=True, error_model="numpy")
def rescale_rows(
    f: np.ndarray,
    at_f: np.ndarray,
    slope_f: np.ndarray,
    b: np.ndarray,
    at_b: np.ndarray,
    slope_b: np.ndarray,
    q: np.ndarray,
    limits: np.ndarray,
    out: np.ndarray,
) -> None:
    """``q`` times the multipliers of Rescale, in one pass; ``limits`` as in ``rules.LIMITS``.

    ``f (R_f, D)`` with its values and slopes repeats over the rows of ``b (R, D)``.
    """
    scale, offset, apart, bend = limits
    half = b.dtype.type(0.5)
    for r in range(b.shape[0]):
        source = r % f.shape[0]
        for j in range(b.shape[1]):
            step = f[source, j] - b[r, j]
            near = (abs(step) <= scale * (offset + abs(b[r, j]))) & (
                abs(slope_f[source, j] - slope_b[r, j]) <= apart + bend * abs(step)
            )
            close = near | (step == 0)  # slopes of equal inputs may differ by rounding
            flat = half * (slope_f[source, j] + slope_b[r, j])
            out[r, j] = q[r, j] * (flat if close else (at_f[source, j] - at_b[r, j]) / step)


@numba.njit(cache=True)
def padded(weight: np.ndarray) -> np.ndarray:
    """``weight (O, n)`` with zero rows and columns, which change no sum, up to multiples of 4 and
    of 16."""
    wide = np.zeros(
        (-(-weight.shape[0] // 4) * 4, -(-weight.shape[1] // _LANES) * _LANES), dtype=weight.dtype
    )
    wide[: weight.shape[0], : weight.shape[1]] = weight
    return wide


@numba.njit(cache=True, fastmath=_FAST)
def above_mean(
    f: np.ndarray,
    b: np.ndarray,
    weight: np.ndarray,
    z_f: np.ndarray,
    z_b: np.ndarray,
    inverse: np.ndarray,
) -> np.ndarray:
    """Sums ``(R, O)`` of the contributions ``weight[o, i] * (f - b)[r, i]`` above their mean.

    ``f (R_f, n)`` repeats over the rows of ``b (R, n)``; ``weight`` is ``padded``; the mean is
    ``(z_f - z_b) * inverse``, with ``inverse`` one over the number of players of a row. ``z_f`` and
    ``inverse`` repeat as ``f`` does.
    """
    zero = b.dtype.type(0)
    up = np.empty_like(z_b)
    step = np.zeros((8, weight.shape[1]), dtype=b.dtype)
    bound = np.zeros((8, weight.shape[0]), dtype=b.dtype)
    found = np.zeros_like(bound)
    for start in range(
        0, b.shape[0], 8
    ):  # four rows of weights serve eight rows while they are in the nearest cache
        stop = min(start + 8, b.shape[0])
        for r in range(start, stop):
            k, source = r - start, r % z_f.shape[0]
            step[k, : b.shape[1]] = f[r % f.shape[0]] - b[r]
            for o in range(z_b.shape[1]):
                bound[k, o] = (z_f[source, o] - z_b[r, o]) * inverse[r % inverse.shape[0]]
        for o in range(0, weight.shape[0], 4):
            w0, w1, w2, w3 = weight[o], weight[o + 1], weight[o + 2], weight[o + 3]
            for k in range(stop - start):
                row, t, total = step[k], bound[k, o : o + 4], found[k, o : o + 4]
                t0, t1, t2, t3 = t[0], t[1], t[2], t[3]
                s0, s1, s2, s3 = zero, zero, zero, zero
                for i in range(row.shape[0]):
                    c0, c1, c2, c3 = w0[i] * row[i], w1[i] * row[i], w2[i] * row[i], w3[i] * row[i]
                    s0 += c0 if c0 > t0 else zero
                    s1 += c1 if c1 > t1 else zero
                    s2 += c2 if c2 > t2 else zero
                    s3 += c3 if c3 > t3 else zero
                total[0], total[1], total[2], total[3] = s0, s1, s2, s3
        for r in range(start, stop):
            up[r] = found[r - start, : z_b.shape[1]]
    return up


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def split_at_mean(
    f: np.ndarray,
    b: np.ndarray,
    weight: np.ndarray,
    z_f: np.ndarray,
    z_b: np.ndarray,
    inverse: np.ndarray,
    tiny: float,
    up: np.ndarray,
    at_f: np.ndarray,
    slope_f: np.ndarray,
    at_b: np.ndarray,
    slope_b: np.ndarray,
    at_up: np.ndarray,
    at_down: np.ndarray,
    q: np.ndarray,
) -> np.ndarray:
    """Multipliers ``(R, n)`` of the inputs, given those of the units, ``q (R, O)``: each
    contribution takes its part's.

    First arguments as in ``above_mean``; then values and slopes of the function at ``z_f`` and
    ``z_b`` and its values at ``z_b + up`` and ``z_f - up``; a part within ``tiny`` of zero takes
    the slope.
    """
    one, half = b.dtype.type(1), b.dtype.type(0.5)
    units, n = z_b.shape[1], b.shape[1]
    small = b.dtype.type(tiny)
    out = np.empty_like(b)
    step = np.zeros((8, weight.shape[1]), dtype=b.dtype)
    total = np.empty_like(step)
    high = np.zeros((8, weight.shape[0]), dtype=b.dtype)
    low, bound = np.zeros_like(high), np.zeros_like(high)
    gain, flat = np.empty(units, dtype=b.dtype), np.empty(units, dtype=b.dtype)
    for start in range(0, b.shape[0], 8):
        stop = min(start + 8, b.shape[0])
        for r in range(start, stop):
            k, source = r - start, r % z_f.shape[0]
            step[k, :n] = f[r % f.shape[0]] - b[r]
            whole, part, level = inverse[r % inverse.shape[0]], up[r], z_b[r]
            for o in range(
                units
            ):  # loops of one result each, which compilers turn into vector operations
                bound[k, o] = (z_f[source, o] - level[o]) * whole
            for o in range(units):
                gain[o] = half * (at_f[source, o] - at_b[r, o] + (at_up[r, o] - at_down[r, o]))
            for o in range(units):
                flat[o] = half * (slope_f[source, o] + slope_b[r, o])
            for o in range(units):
                close = abs(part[o]) <= small * (one + abs(level[o]))
                high[k, o] = q[r, o] * (flat[o] if close else gain[o] / part[o])
            for o in range(units):
                rest, close = z_f[source, o] - level[o] - part[o], small * (one + abs(level[o]))
                least = at_f[source, o] - at_b[r, o] - gain[o]
                low[k, o] = q[r, o] * (flat[o] if abs(rest) <= close else least / rest)
        total[:] = 0
        for o in range(0, weight.shape[0], 4):
            w0, w1, w2, w3 = weight[o], weight[o + 1], weight[o + 2], weight[o + 3]
            for k in range(stop - start):
                row, found, u, d, t = (
                    step[k],
                    total[k],
                    high[k, o : o + 4],
                    low[k, o : o + 4],
                    bound[k, o : o + 4],
                )
                u0, u1, u2, u3 = u[0], u[1], u[2], u[3]
                d0, d1, d2, d3 = d[0], d[1], d[2], d[3]
                t0, t1, t2, t3 = t[0], t[1], t[2], t[3]
                for i in range(row.shape[0]):
                    s = row[i]
                    found[i] += (
                        w0[i] * (u0 if w0[i] * s > t0 else d0)
                        + w1[i] * (u1 if w1[i] * s > t1 else d1)
                    ) + (
                        w2[i] * (u2 if w2[i] * s > t2 else d2)
                        + w3[i] * (u3 if w3[i] * s > t3 else d3)
                    )
        for r in range(start, stop):
            out[r] = total[r - start, :n]
    return out
