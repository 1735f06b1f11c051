r"""Importance by removing single features: what SAGE is compared with.

With :math:`D` all features, :math:`v` SAGE's game and :math:`L` the mean loss over rows:

- permutation test (Breiman 2001): :math:`E_\pi[L(x_{D \setminus i}, x_{\pi, i})] - L`, the mean of
  losses, not the loss of a mean;
- leave one covariate out, without refitting: :math:`v(D) - v(D \setminus i)`;
- mean importance: the loss with feature :math:`i` at its background mean, minus :math:`L`;
- univariate: :math:`v(\{i\}) - v(\emptyset)`, what the feature does on its own.

The first three miss a feature that another one stands in for, the last counts both in full. All
belong to the additive importance measures: each fits :math:`v` on some coalitions, where SAGE
weighs all. Source: Covert, Lundberg and Lee (2020), Section 4. Cost in model rows: :math:`NdR`,
:math:`NdB`, :math:`Nd`, :math:`NdB`.

Chapter: importance/sage
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shaplab._validation import as_matrix, check_int, is_frame, resolve_rng
from shaplab.explanation import Explanation
from shaplab.foundations._walks import Tables
from shaplab.importance.loss_shap import LossWalks

__all__ = [
    "leave_one_out_importance",
    "mean_importance",
    "permutation_test",
    "univariate_importance",
]


def _one_by_one(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    loss: Any,
    batch_size: int,
    feature_names: Any,
    present: bool,
    title: str,
) -> Explanation:
    """Change in mean loss when each feature alone is removed, or alone is present."""
    t = Tables(model, X, background, None, batch_size, feature_names)
    walks = LossWalks(t, y, loss, "marginal", 0)
    lost = np.empty(t.p)
    for j in range(t.p):
        S = np.broadcast_to((np.arange(t.p) == j) == present, (t.n, t.p))
        lost[j] = walks.losses(t.means(S, np.arange(t.n)), walks.y).mean()
    values = -walks.empty.mean() - lost if present else lost + walks.full.mean()
    info = {"evaluations": t.evaluations + t.p * t.n * t.size}
    return Explanation(
        values=t.expand(values[None]),
        base_values=np.array([walks.empty.mean()]),
        feature_names=None if t.names is None else tuple(t.names),
        method=f"{title} ({walks.loss.name})",
        info=info,
    )


def leave_one_out_importance(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    *,
    loss: Any = "mse",
    batch_size: int = 16384,
    feature_names: Any = None,
) -> Explanation:
    """Leave one covariate out, without refitting: the rise in loss when a feature is averaged over
    the background.

    Arguments are those of :func:`shaplab.importance.sage.sage`; ``values`` ``(1, d)`` are exact for
    this background, and not additive.
    """
    return _one_by_one(
        model, X, y, background, loss, batch_size, feature_names, False, "leave_one_out_importance"
    )


def univariate_importance(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    *,
    loss: Any = "mse",
    batch_size: int = 16384,
    feature_names: Any = None,
) -> Explanation:
    """The fall in loss when a feature alone is known and all others are averaged over the
    background.

    Arguments are those of :func:`shaplab.importance.sage.sage`; ``values`` ``(1, d)`` are exact for
    this background, and not additive.
    """
    return _one_by_one(
        model, X, y, background, loss, batch_size, feature_names, True, "univariate_importance"
    )


def mean_importance(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    *,
    loss: Any = "mse",
    batch_size: int = 16384,
    feature_names: Any = None,
) -> Explanation:
    """The rise in loss when a feature is put at its background mean (its most frequent value if not
    a number).

    Arguments are those of :func:`shaplab.importance.sage.sage`; ``values`` ``(1, d)`` are exact for
    this background, and not additive.
    """
    if is_frame(background) and len(background):
        middle = background.iloc[:1].copy()
        for name, kind in background.dtypes.items():
            numeric = getattr(kind, "kind", "O") in "iuf"
            value = background[name].mean() if numeric else background[name].mode().iloc[0]
            middle[name] = type(background[name])(
                [value], index=middle.index, dtype=float if numeric else kind
            )
    else:
        middle = as_matrix(background, "background").mean(axis=0, keepdims=True, dtype=np.float64)
    return _one_by_one(
        model, X, y, middle, loss, batch_size, feature_names, False, "mean_importance"
    )


def permutation_test(
    model: Any,
    X: Any,
    y: Any,
    *,
    loss: Any = "mse",
    n_repeats: int = 5,
    rng: Any = None,
    batch_size: int = 16384,
    feature_names: Any = None,
) -> Explanation:
    """Breiman's permutation test: the rise in mean loss when a feature's values are shuffled among
    the rows.

    Arguments are those of :func:`shaplab.importance.sage.sage`; each feature is shuffled
    ``n_repeats`` times, at least twice. ``values`` and ``std``, over shuffles, are ``(1, d)``, and
    not additive.
    """
    repeats, rng = check_int(n_repeats, "n_repeats", minimum=2), resolve_rng(rng)
    t = Tables(model, X, X, None, batch_size, feature_names)
    walks = LossWalks(t, y, loss, "marginal", 0)
    rise = np.empty((repeats, t.p))
    for j in range(t.p):
        S = np.broadcast_to(np.arange(t.p) != j, (t.n, t.p))
        for r in range(repeats):
            rise[r, j] = walks.losses(
                t.outputs(S, np.arange(t.n), rng.permutation(t.n)), walks.y
            ).mean()
    info = {"evaluations": t.evaluations + t.n * t.p * repeats, "rounds": np.array([repeats])}
    return Explanation(
        values=t.expand((rise.mean(axis=0) + walks.full.mean())[None]),
        std=t.expand((rise.std(axis=0, ddof=1) / np.sqrt(repeats))[None]),
        base_values=np.array([walks.full.mean()]),
        feature_names=None if t.names is None else tuple(t.names),
        method=f"permutation_test ({walks.loss.name})",
        info=info,
    )
