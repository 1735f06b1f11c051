"""Shapley values of windows with four taps, ``act`` being a (leaky) ReLU, and their derivative.

``terms (P, 4, C)`` holds ``W_j (x_p - r)`` of each pixel and tap, ``sources (4, windows)`` the
pixels of each window. The last pixel is a row of zeros that stands for all those outside the
picture; what it collects means nothing. ``weights`` holds ``[1/4, 1/12, 1/3, 1/6]`` in the dtype of
``terms``.

Names: a window's members are a, b, c and d, and so are their terms in one channel. For a coalition
such as {a, b}, ``s_ab`` is ``base + a + b`` and ``v_ab`` is ``act(s_ab)``. The 16 coalitions of a
window and channel stay in registers.

A value weighs what its member adds to 0, 1, 2 and 3 others by 1/4, 1/12, 1/12 and 1/4. Collected by
coalition, all four values have a part in common, ``(v_all - v_empty) / 4 + (triples - singles -
pairs) / 12``: the weights of singletons and pairs for a member outside, of triples for one inside.
Where a member is on the other side, a third or a sixth corrects the weight.
"""

from __future__ import annotations

import numba
import numpy as np

__all__: list[str] = []

# Sums in another order, but NaN and infinity stay what they are.
_MATH = {"contract", "reassoc", "nsz"}


@numba.njit(cache=True, nogil=True, inline="always")
def _bend(s: float, value: float, slope: float) -> float:
    """``value`` times the activation's slope at ``s``; with ``s`` for ``value`` the activation."""
    return value if s > 0 else slope * value


@numba.njit(cache=True, nogil=True, fastmath=_MATH)
def values_of_four(
    terms: np.ndarray,
    base: np.ndarray,
    sources: np.ndarray,
    slope: float,
    weights: np.ndarray,
    out: np.ndarray,
) -> None:
    """Add each window's values to its pixels in ``out (P, C)``."""
    quarter, twelfth, third, sixth = weights
    for window in range(sources.shape[1]):
        pixel_a = sources[0, window]
        pixel_b = sources[1, window]
        pixel_c = sources[2, window]
        pixel_d = sources[3, window]
        for channel in range(len(base)):
            empty = base[channel]
            a = terms[pixel_a, 0, channel]
            b = terms[pixel_b, 1, channel]
            c = terms[pixel_c, 2, channel]
            d = terms[pixel_d, 3, channel]
            ab = a + b
            cd = c + d
            s_a = empty + a
            s_b = empty + b
            s_c = empty + c
            s_d = empty + d
            s_all = empty + ab + cd
            v_empty = _bend(empty, empty, slope)
            v_a = _bend(s_a, s_a, slope)
            v_b = _bend(s_b, s_b, slope)
            v_c = _bend(s_c, s_c, slope)
            v_d = _bend(s_d, s_d, slope)
            v_ab = _bend(s_b + a, s_b + a, slope)
            v_ac = _bend(s_a + c, s_a + c, slope)
            v_ad = _bend(s_a + d, s_a + d, slope)
            v_bc = _bend(s_b + c, s_b + c, slope)
            v_bd = _bend(s_b + d, s_b + d, slope)
            v_cd = _bend(s_c + d, s_c + d, slope)
            v_abc = _bend(s_c + ab, s_c + ab, slope)
            v_abd = _bend(s_d + ab, s_d + ab, slope)
            v_acd = _bend(s_a + cd, s_a + cd, slope)
            v_bcd = _bend(s_b + cd, s_b + cd, slope)
            v_all = _bend(s_all, s_all, slope)
            singles = v_a + v_b + v_c + v_d
            pairs = v_ab + v_ac + v_ad + v_bc + v_bd + v_cd
            triples = v_abc + v_abd + v_acd + v_bcd
            common = quarter * (v_all - v_empty) + twelfth * (triples - singles - pairs)
            out[pixel_a, channel] += common + third * (v_a - v_bcd) + sixth * (v_ab + v_ac + v_ad)
            out[pixel_b, channel] += common + third * (v_b - v_acd) + sixth * (v_ab + v_bc + v_bd)
            out[pixel_c, channel] += common + third * (v_c - v_abd) + sixth * (v_ac + v_bc + v_cd)
            out[pixel_d, channel] += common + third * (v_d - v_abc) + sixth * (v_ad + v_bd + v_cd)


@numba.njit(cache=True, nogil=True, fastmath=_MATH)
def gradients_of_four(
    terms: np.ndarray,
    base: np.ndarray,
    sources: np.ndarray,
    slope: float,
    weights: np.ndarray,
    grad: np.ndarray,
    d_terms: np.ndarray,
    d_base: np.ndarray,
) -> None:
    """Derivatives of ``sum(grad * out)``: written to ``d_terms`` (zeros before), added to
    ``d_base``.

    ``q_ab`` is the derivative by ``s_ab``: the activation's slope there, times what the values of
    all members make of ``v_ab``.
    """
    quarter, twelfth, third, sixth = weights
    for window in range(sources.shape[1]):
        pixel_a = sources[0, window]
        pixel_b = sources[1, window]
        pixel_c = sources[2, window]
        pixel_d = sources[3, window]
        for channel in range(len(base)):
            empty = base[channel]
            a = terms[pixel_a, 0, channel]
            b = terms[pixel_b, 1, channel]
            c = terms[pixel_c, 2, channel]
            d = terms[pixel_d, 3, channel]
            grad_a = grad[pixel_a, channel]
            grad_b = grad[pixel_b, channel]
            grad_c = grad[pixel_c, channel]
            grad_d = grad[pixel_d, channel]
            ab = a + b
            cd = c + d
            s_a = empty + a
            s_b = empty + b
            s_c = empty + c
            s_d = empty + d
            grad_all = grad_a + grad_b + grad_c + grad_d
            part = twelfth * grad_all
            whole = quarter * grad_all
            q_a = _bend(s_a, third * grad_a - part, slope)
            q_b = _bend(s_b, third * grad_b - part, slope)
            q_c = _bend(s_c, third * grad_c - part, slope)
            q_d = _bend(s_d, third * grad_d - part, slope)
            q_ab = _bend(s_b + a, sixth * (grad_a + grad_b) - part, slope)
            q_ac = _bend(s_a + c, sixth * (grad_a + grad_c) - part, slope)
            q_ad = _bend(s_a + d, sixth * (grad_a + grad_d) - part, slope)
            q_bc = _bend(s_b + c, sixth * (grad_b + grad_c) - part, slope)
            q_bd = _bend(s_b + d, sixth * (grad_b + grad_d) - part, slope)
            q_cd = _bend(s_c + d, sixth * (grad_c + grad_d) - part, slope)
            q_abc = _bend(s_c + ab, part - third * grad_d, slope)
            q_abd = _bend(s_d + ab, part - third * grad_c, slope)
            q_acd = _bend(s_a + cd, part - third * grad_b, slope)
            q_bcd = _bend(s_b + cd, part - third * grad_a, slope)
            q_all = _bend(empty + ab + cd, whole, slope)
            d_terms[pixel_a, 0, channel] = q_a + q_ab + q_ac + q_ad + q_abc + q_abd + q_acd + q_all
            d_terms[pixel_b, 1, channel] = q_b + q_ab + q_bc + q_bd + q_abc + q_abd + q_bcd + q_all
            d_terms[pixel_c, 2, channel] = q_c + q_ac + q_bc + q_cd + q_abc + q_acd + q_bcd + q_all
            d_terms[pixel_d, 3, channel] = q_d + q_ad + q_bd + q_cd + q_abd + q_acd + q_bcd + q_all
            every = q_a + q_b + q_c + q_d
            every = every + q_ab + q_ac + q_ad + q_bc + q_bd + q_cd
            every = every + q_abc + q_abd + q_acd + q_bcd + q_all
            d_base[channel] += every - _bend(empty, whole, slope)
