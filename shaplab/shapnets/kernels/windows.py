"""Shapley values of windows with four taps, ``act`` being a (leaky) ReLU, and their derivative.

``terms (P, 4, C)`` holds ``W_j (x_p - r)`` of each pixel and tap, ``sources (4, windows)`` the
pixels of each window. The last pixel is a row of zeros that stands for all those outside the
picture; what it collects means nothing. The 16 coalitions of a window and channel stay in
registers. ``w`` holds ``[1/4, 1/12, 1/3, 1/6]`` in the dtype of ``terms``.
"""

from __future__ import annotations

import numba
import numpy as np

__all__: list[str] = []

# Sums in another order, but NaN and infinity stay what they are.
_MATH = {"contract", "reassoc", "nsz"}


@numba.njit(cache=True, nogil=True, inline="always")
def _bend(s: float, value: float, slope: float) -> float:
    return value if s > 0 else slope * value


@numba.njit(cache=True, nogil=True, fastmath=_MATH)
def values_of_four(
    terms: np.ndarray,
    base: np.ndarray,
    sources: np.ndarray,
    slope: float,
    w: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add each window's values to its pixels in ``out (P, C)``."""
    quarter, twelfth, third, sixth = w[0], w[1], w[2], w[3]
    for m in range(sources.shape[1]):
        i, j, k, n = sources[0, m], sources[1, m], sources[2, m], sources[3, m]
        for c in range(len(base)):
            o, a, b, d, e = base[c], terms[i, 0, c], terms[j, 1, c], terms[k, 2, c], terms[n, 3, c]
            oa, ob, od, oe, ab, de = o + a, o + b, o + d, o + e, a + b, d + e
            va, vb, vd, ve = (
                _bend(oa, oa, slope),
                _bend(ob, ob, slope),
                _bend(od, od, slope),
                _bend(oe, oe, slope),
            )
            vab, vad, vae = (
                _bend(ob + a, ob + a, slope),
                _bend(oa + d, oa + d, slope),
                _bend(oa + e, oa + e, slope),
            )
            vbd, vbe, vde = (
                _bend(ob + d, ob + d, slope),
                _bend(ob + e, ob + e, slope),
                _bend(od + e, od + e, slope),
            )
            abd, abe, ade, bde, every = od + ab, oe + ab, oa + de, ob + de, o + ab + de
            vabd, vabe = _bend(abd, abd, slope), _bend(abe, abe, slope)
            vade, vbde = _bend(ade, ade, slope), _bend(bde, bde, slope)
            # What all four members share: the sizes' sums, each with the weight of a member that is
            # absent.
            common = quarter * (_bend(every, every, slope) - _bend(o, o, slope)) + twelfth * (
                vabd
                + vabe
                + vade
                + vbde
                - (va + vb + vd + ve)
                - (vab + vad + vae + vbd + vbe + vde)
            )
            out[i, c] += common + third * (va - vbde) + sixth * (vab + vad + vae)
            out[j, c] += common + third * (vb - vade) + sixth * (vab + vbd + vbe)
            out[k, c] += common + third * (vd - vabe) + sixth * (vad + vbd + vde)
            out[n, c] += common + third * (ve - vabd) + sixth * (vae + vbe + vde)


@numba.njit(cache=True, nogil=True, fastmath=_MATH)
def gradients_of_four(
    terms: np.ndarray,
    base: np.ndarray,
    sources: np.ndarray,
    slope: float,
    w: np.ndarray,
    grad: np.ndarray,
    d_terms: np.ndarray,
    d_base: np.ndarray,
) -> None:
    """Derivatives of ``sum(grad * out)``: written to ``d_terms`` (zeros before), added to
    ``d_base``."""
    quarter, twelfth, third, sixth = w[0], w[1], w[2], w[3]
    for m in range(sources.shape[1]):
        i, j, k, n = sources[0, m], sources[1, m], sources[2, m], sources[3, m]
        for c in range(len(base)):
            o, a, b, d, e = base[c], terms[i, 0, c], terms[j, 1, c], terms[k, 2, c], terms[n, 3, c]
            ga, gb, gd, ge = grad[i, c], grad[j, c], grad[k, c], grad[n, c]
            oa, ob, od, oe, ab, de, both = (
                o + a,
                o + b,
                o + d,
                o + e,
                a + b,
                d + e,
                ga + gb + gd + ge,
            )
            less, most = twelfth * both, quarter * both
            qa, qb = _bend(oa, third * ga - less, slope), _bend(ob, third * gb - less, slope)
            qd, qe = _bend(od, third * gd - less, slope), _bend(oe, third * ge - less, slope)
            qab, qad = (
                _bend(ob + a, sixth * (ga + gb) - less, slope),
                _bend(oa + d, sixth * (ga + gd) - less, slope),
            )
            qae, qbd = (
                _bend(oa + e, sixth * (ga + ge) - less, slope),
                _bend(ob + d, sixth * (gb + gd) - less, slope),
            )
            qbe, qde = (
                _bend(ob + e, sixth * (gb + ge) - less, slope),
                _bend(od + e, sixth * (gd + ge) - less, slope),
            )
            abd, abe = (
                _bend(od + ab, less - third * ge, slope),
                _bend(oe + ab, less - third * gd, slope),
            )
            ade, bde = (
                _bend(oa + de, less - third * gb, slope),
                _bend(ob + de, less - third * ga, slope),
            )
            every = _bend(o + ab + de, most, slope)
            d_terms[i, 0, c] = qa + qab + qad + qae + abd + abe + ade + every
            d_terms[j, 1, c] = qb + qab + qbd + qbe + abd + abe + bde + every
            d_terms[k, 2, c] = qd + qad + qbd + qde + abd + ade + bde + every
            d_terms[n, 3, c] = qe + qae + qbe + qde + abe + ade + bde + every
            d_base[c] += (
                qa
                + qb
                + qd
                + qe
                + qab
                + qad
                + qae
                + qbd
                + qbe
                + qde
                + abd
                + abe
                + ade
                + bde
                + every
                - _bend(o, most, slope)
            )
