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

from shaplab._units import sample_spread
from shaplab._validation import as_matrix, check_int, has, is_frame, resolve_rng
from shaplab.explanation import Explanation
from shaplab.foundations._evaluate import Evaluator
from shaplab.importance.loss_shap import RowLosses

__all__ = [
    "leave_one_out_importance",
    "mean_importance",
    "permutation_test",
    "univariate_importance",
]


def _one_by_one(game: RowLosses, title: str, *, alone: bool) -> Explanation:
    """Change in mean loss when each feature alone is removed, or is present alone."""
    evaluator = game.evaluator
    players = evaluator.n_active
    loss_without_or_with = np.empty(players)
    for player in range(players):
        is_player = np.arange(players) == player
        coalition = is_player if alone else ~is_player
        present = np.broadcast_to(coalition, (evaluator.n_rows, players))
        mean = evaluator.means(present, np.arange(evaluator.n_rows))
        loss_without_or_with[player] = game.losses(mean, game.y).mean()
    if alone:
        values = -game.empty.mean() - loss_without_or_with
    else:
        values = loss_without_or_with + game.full.mean()
    cost = players * evaluator.n_rows * evaluator.n_references
    return Explanation(
        values=evaluator.expand(values[None]),
        base_values=np.array([game.empty.mean()]),
        feature_names=evaluator.feature_names,
        method=f"{title} ({game.loss.name})",
        info={"evaluations": evaluator.evaluations + cost},
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
    evaluator = Evaluator(model, X, background, None, batch_size, feature_names)
    return _one_by_one(RowLosses(evaluator, y, loss), "leave_one_out_importance", alone=False)


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
    evaluator = Evaluator(model, X, background, None, batch_size, feature_names)
    return _one_by_one(RowLosses(evaluator, y, loss), "univariate_importance", alone=True)


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
    middle = _middle_row(background)
    if has(middle, "get_columns") and has(X, "get_columns"):
        # Polars joins columns of one type only, and the mean of whole numbers is not whole.
        means = {name for name, kind in middle.schema.items() if kind.is_float()}
        numbers = {name for name, kind in X.schema.items() if kind.is_numeric()}
        X = X.cast({name: middle.schema[name] for name in means & numbers})
    evaluator = Evaluator(model, X, middle, None, batch_size, feature_names)
    return _one_by_one(RowLosses(evaluator, y, loss), "mean_importance", alone=False)


def _middle_row(background: Any) -> Any:
    """A table of one row: the mean of each numeric column, the most frequent value of others."""
    if has(background, "get_columns") and len(background):
        return type(background)([_middle_of_polars(series) for series in background.get_columns()])
    if not is_frame(background) or len(background) == 0:
        return as_matrix(background, "background").mean(axis=0, keepdims=True, dtype=np.float64)
    middle = background.iloc[:1].copy()
    for name, kind in background.dtypes.items():
        column = background[name]
        if getattr(kind, "kind", "O") in "iuf":
            value = column.mean()
            kind = float
        else:
            value = column.mode().iloc[0]
        middle[name] = type(column)([value], index=middle.index, dtype=kind)
    return middle


def _middle_of_polars(series: Any) -> Any:
    """A polars column of one cell: the mean of numbers, the most frequent value of others."""
    known = series.drop_nulls()
    if series.dtype.is_numeric():
        known = known.drop_nans() if series.dtype.is_float() else known
        return type(series)(series.name, [known.mean()]).cast(float)
    if len(known) == 0:
        return series.head(1)
    return known.mode().sort().head(1)


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
    repeats = check_int(n_repeats, "n_repeats", minimum=2)
    rng = resolve_rng(rng)
    evaluator = Evaluator(model, X, X, None, batch_size, feature_names)
    game = RowLosses(evaluator, y, loss)
    players = evaluator.n_active
    rows = np.arange(evaluator.n_rows)
    shuffled_loss = np.empty((repeats, players))
    for player in range(players):
        present = np.broadcast_to(np.arange(players) != player, (evaluator.n_rows, players))
        for repeat in range(repeats):
            outputs = evaluator.outputs(present, rows, rng.permutation(evaluator.n_rows))
            shuffled_loss[repeat, player] = game.losses(outputs, game.y).mean()
    rise = shuffled_loss.mean(axis=0) + game.full.mean()
    std = sample_spread(shuffled_loss, axis=0) / np.sqrt(repeats)
    cost = evaluator.n_rows * players * repeats
    return Explanation(
        values=evaluator.expand(rise[None]),
        std=evaluator.expand(std[None]),
        base_values=np.array([game.full.mean()]),
        feature_names=evaluator.feature_names,
        method=f"permutation_test ({game.loss.name})",
        info={"evaluations": evaluator.evaluations + cost, "rounds": np.array([repeats])},
    )
