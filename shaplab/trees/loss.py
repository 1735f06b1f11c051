"""Explaining a loss: three games with three names, and output transforms as a loss without a
target.

- ``"loss_of_mean"``: v(S) is the loss of the mean output over background rows; SAGE's game.
- ``"mean_of_loss"``: v(S) is the mean over background rows of the loss of the output.
- ``"rescaled_margin"``: no game but the source's approximation (Methods 10.2): the Shapley values
of the raw output
  against each single reference, times (change of the loss) / (change of the output), averaged.

The loss of a sum of trees is not a sum over trees, so no tree algorithm computes the first two:
they are exact here by all 2^M coalitions of the M features that the model splits on.
``mean_of_loss`` averages one game for each reference, in which features that reach the same codes
in both rows are idle.

Needs: shaplab._losses, shaplab._parallel, shaplab._validation, shaplab.explanation,
shaplab.trees._arrange, shaplab.trees._encoding, shaplab.trees.kernels.patterns,
shaplab.trees.kernels.predict, shaplab.trees.kernels.quadrature, shaplab.trees.kernels.routes,
shaplab.trees.kernels.structure, shaplab.trees.kernels.tables, shaplab.trees.readers,
shaplab.trees.readers._lightgbm, shaplab.trees.readers._sklearn, shaplab.trees.readers._xgboost,
shaplab.trees.ensemble.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from shaplab._losses import Loss, check_target, get_loss, secant
from shaplab._parallel import chunks, progress_bar
from shaplab._validation import check_choice, check_int, fail
from shaplab.explanation import Explanation
from shaplab.trees.ensemble import TreeEnsemble, as_ensemble
from shaplab.trees.kernels.patterns import coalition_outputs
from shaplab.trees.kernels.routes import (
    Paths,
    interventional_plan,
    interventional_sums,
    shown,
    threads,
)

__all__ = ["cox_loss", "tree_loss_shap", "tree_output_shap"]

GAMES = ("loss_of_mean", "mean_of_loss", "rescaled_margin")
_CELLS = 2**22


def cox_loss(margin: Any, y: Any) -> Loss:
    """Cox's partial likelihood as a loss of each row's own log-hazard, the other rows staying as
    they are.

    For a row that dies at its time, ``-log(exp(f) / (exp(f) + sum of exp(margin) of the others
    still at risk))``; 0 for censored rows, whose own term is not in the likelihood. Ties as
    Breslow: equal times are at risk. The loss takes the row number in place of the target.

    Parameters
    ----------
    margin : ``(N,)`` log-hazards that the model gives the rows.
    y : ``(N,)`` times, negative when censored (XGBoost's convention).
    """
    margin, y = np.asarray(margin, np.float64), np.asarray(y, np.float64)
    time, died = np.abs(y), (y > 0).astype(float)
    order = np.argsort(-time, kind="stable")
    top = margin.max()
    weight = np.exp(margin - top)
    at_risk = np.cumsum(weight[order])
    last = np.searchsorted(-time[order], -time, side="right") - 1
    with np.errstate(divide="ignore"):
        others = np.log(np.maximum(at_risk[last] - weight, 0.0)) + top

    def value(output: np.ndarray, row: np.ndarray) -> np.ndarray:
        return died[row] * (np.logaddexp(output, others[row]) - output)

    def slope(output: np.ndarray, row: np.ndarray) -> np.ndarray:
        return died[row] * (np.exp(output - np.logaddexp(output, others[row])) - 1.0)

    return Loss("cox", value, slope)


def tree_loss_shap(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    *,
    loss: Any,
    game: str = "mean_of_loss",
    n_jobs: int | None = 1,
    max_players: int = 14,
    progress: bool = False,
) -> Explanation:
    """Attribute each row's loss to features.

    Parameters
    ----------
    model : fitted XGBoost, LightGBM or scikit-learn tree model, or a ``TreeEnsemble``; its raw
    output enters the loss.
    X : rows ``(N, d)``.
    y : targets ``(N,)``; class indices for class losses; for "cox" times, negative when censored.
    background : rows ``(R, d)``, all of them used.
    loss : "squared_error", "logistic" (margin in log-odds), "softmax_cross_entropy" (K margins),
    "cross_entropy"
        (models whose output is a probability), "cox", or a callable ``(output, y)``.
    game : "loss_of_mean", "mean_of_loss" or "rescaled_margin".
    n_jobs : threads, for "rescaled_margin".
    max_players : most features that may be enumerated; cost is N R (leaves + M 2^M).
    progress : show a bar.

    Returns
    -------
    Explanation, values ``(N, d)`` in units of the loss; base value: the loss without any feature.

    Notes
    -----
    "loss_of_mean" and "mean_of_loss" are exact for their games. "rescaled_margin" adds up exactly
    to the mean change of the loss but is an approximation of "mean_of_loss"; it needs one output.
    Where output and reference agree the loss's slope is the factor.

    References
    ----------
    Lundberg et al. 2020, Methods 10.2; Covert et al. 2020 for the loss of the mean.

    Examples
    --------
    >>> tree_loss_shap(model, X, y, X_train[:100], loss="logistic").values.shape  # doctest: +SKIP
    (200, 8)
    """
    e = as_ensemble(model)
    codes = e.encode(X)
    if isinstance(loss, str) and loss == "cox":
        target = check_target(y, len(codes), get_loss("squared_error"))
        if e.has_outputs or (target == 0).any():
            fail(
                "y",
                "times that are not 0 and one output",
                "a time of 0 or several outputs",
                "Drop rows at time 0",
            )
        loss, target = cox_loss(e.predict_codes(codes)[:, 0], target), np.arange(len(codes))
    else:
        loss = get_loss(loss).for_outputs(e.n_outputs if e.has_outputs else None)
        target = check_target(y, len(codes), loss, e.n_outputs if e.has_outputs else None)
    return _explain(
        e,
        X,
        codes,
        target,
        background,
        loss,
        game,
        n_jobs,
        max_players,
        progress,
        f"tree_loss_shap ({loss.name}, {game})",
    )


def tree_output_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    transform: Any = "probability",
    game: str = "mean_of_loss",
    n_jobs: int | None = 1,
    max_players: int = 14,
    progress: bool = False,
) -> Explanation:
    """Attribute a transformed output, such as the probability behind a margin.

    Parameters
    ----------
    model, X, background, n_jobs, max_players, progress : as in ``tree_loss_shap``.
    transform : "probability" (logistic function of one margin, softmax of several), "exp", or a
    callable of the raw
        output ``(..., N)`` or ``(..., N, K)`` that keeps its shape.
    game : "mean_of_loss" averages the transformed output over the background, "loss_of_mean"
    transforms the average,
        "rescaled_margin" is the source's approximation of the former (one output only).

    Returns
    -------
    Explanation, values ``(N, d[, K])`` in units of the transformed output.

    References
    ----------
    Lundberg et al. 2020, Methods 10.2.

    Examples
    --------
    >>> tree_output_shap(model, X, X_train[:100]).prediction.max() <= 1  # doctest: +SKIP
    True
    """
    e = as_ensemble(model)

    def logistic(f: np.ndarray) -> np.ndarray:
        return np.exp(-np.logaddexp(0.0, -f))

    def softmax(f: np.ndarray) -> np.ndarray:
        weight = np.exp(f - f.max(axis=-1, keepdims=True))
        return weight / weight.sum(axis=-1, keepdims=True)

    named: dict[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = {
        "probability": (softmax, None)
        if e.has_outputs
        else (logistic, lambda f: logistic(f) * logistic(-f)),
        "exp": (np.exp, np.exp),
    }
    change, slope = (
        (transform, None)
        if callable(transform)
        else named[check_choice(transform, "transform", tuple(named))]
    )
    loss = Loss(
        str(getattr(transform, "__name__", transform)),
        lambda f, y: change(f),
        None if slope is None else lambda f, y: slope(f),
    )
    codes = e.encode(X)
    return _explain(
        e,
        X,
        codes,
        np.zeros(len(codes)),
        background,
        loss,
        game,
        n_jobs,
        max_players,
        progress,
        f"tree_output_shap ({loss.name}, {game})",
    )


def _explain(
    e: TreeEnsemble,
    X: Any,
    codes: np.ndarray,
    y: np.ndarray,
    background: Any,
    loss: Loss,
    game: str,
    n_jobs: int | None,
    max_players: int,
    progress: bool,
    method: str,
) -> Explanation:
    check_choice(game, "game", GAMES)
    references = e.encode(background, "background")
    if game == "rescaled_margin":
        values, base = _rescaled(e, codes, y, references, loss, n_jobs, progress)
    else:
        players = np.unique(e.feature[e.feature >= 0])
        if len(players) > check_int(max_players, "max_players", minimum=0):
            fail(
                "model",
                f"splits on at most max_players = {max_players} features",
                f"{len(players)} features",
                "Raise max_players (the cost doubles with each), or use game='rescaled_margin'",
            )
        values, base = _enumerated(e, codes, y, references, loss, game, players, progress)
    names = e.output_names if base.ndim == 2 else None
    return Explanation(
        values, base, shown(X), e.feature_names, names, method=method, info={"game": game}
    )


def _coalitions(v: np.ndarray) -> np.ndarray:
    """Shapley values ``(M, ...)`` of a table ``(2^M, ...)`` whose index has one bit for each
    player."""
    m = int(v.shape[0]).bit_length() - 1
    index = np.arange(v.shape[0])
    size = np.array([int(i).bit_count() for i in index])
    phi = np.zeros((m, *v.shape[1:]))
    for i in range(m):
        without = index[(index >> i) & 1 == 0]
        weight = np.array([1.0 / (m * math.comb(m - 1, s)) for s in size[without]])
        phi[i] = np.tensordot(weight, v[without | (1 << i)] - v[without], axes=1)
    return phi


def _enumerated(
    e: TreeEnsemble,
    codes: np.ndarray,
    y: np.ndarray,
    references: np.ndarray,
    loss: Loss,
    game: str,
    players: np.ndarray,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact values of "loss_of_mean" and "mean_of_loss": every coalition, every reference."""
    m, k = len(players), e.n_outputs
    player = np.zeros(codes.shape[1], np.int64)
    player[players] = np.arange(m)
    some = max(1, min(len(references), _CELLS // (k << m)))
    parts, bases = [], []
    with progress_bar(len(codes), progress, "rows") as bar:
        for rows in chunks(len(codes), max(1, _CELLS // (some * k << m))):
            here, target = codes[rows], y[rows]
            v: Any = 0.0
            for refs in chunks(len(references), some):
                outputs = np.empty((len(references[refs]), len(here), k, 1 << m))
                coalition_outputs(
                    e.roots,
                    e.feature,
                    e.left,
                    e.right,
                    e.rank,
                    e.missing_left,
                    e.set_start,
                    e.set_bits,
                    e.value,
                    e.base,
                    player,
                    here,
                    references[refs],
                    outputs,
                )
                found = (
                    np.moveaxis(outputs, -1, 0)
                    if e.has_outputs
                    else np.moveaxis(outputs[:, :, 0], -1, 0)
                )
                worth = found if game == "loss_of_mean" else np.asarray(loss.value(found, target))
                v = v + worth.sum(axis=1) / len(references)
            if game == "loss_of_mean":
                v = np.asarray(loss.value(v, target))
            phi = np.zeros((codes.shape[1], *v.shape[1:]))
            phi[players] = _coalitions(v)
            parts.append(np.moveaxis(phi, 0, 1))
            bases.append(v[0])
            bar.update(len(here))
    return np.concatenate(parts), np.concatenate(bases)


def _rescaled(
    e: TreeEnsemble,
    codes: np.ndarray,
    y: np.ndarray,
    references: np.ndarray,
    loss: Loss,
    n_jobs: int | None,
    progress: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The compositional approximation: values against each reference, times the secant of the
    loss."""
    if e.has_outputs or loss.slope is None:
        fail(
            "game",
            "'loss_of_mean' or 'mean_of_loss' for several outputs or a loss without a derivative",
            "'rescaled_margin'",
            "Choose one of the exact games",
        )
    paths, jobs = Paths(e), threads(n_jobs)
    columns = np.ascontiguousarray(codes.T)
    f_x, f_r = e.predict_codes(codes)[:, 0], e.predict_codes(references)[:, 0]
    if loss is get_loss("squared_error"):
        return _rescaled_square(paths, codes, y, references, f_x, f_r, jobs)
    values, base = np.zeros(codes.shape), np.zeros(len(codes))
    slow, plan = interventional_plan(paths, False, len(codes), 1, "auto")
    one = np.ones(1)
    with progress_bar(len(references), progress, "references") as bar:
        for reference, output in zip(references, f_r, strict=True):
            there = np.ascontiguousarray(reference[:, None])
            counts = plan.histogram(there, one, jobs)
            phi = interventional_sums(
                paths, slow, plan, counts, None, there, one, columns, False, jobs
            )
            loss_r = loss.value(np.full(len(codes), output), y)
            factor = secant(loss, f_x, output, y)
            values += phi.T * factor[:, None] / len(references)
            base += loss_r / len(references)
            bar.update()
    return values, base


def _rescaled_square(
    paths: Paths,
    codes: np.ndarray,
    y: np.ndarray,
    references: np.ndarray,
    f_x: np.ndarray,
    f_r: np.ndarray,
    jobs: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """The same for the squared error, whose secant f_x + f_r - 2 y splits: two weightings of the
    whole background."""
    there, columns, middle = (
        np.ascontiguousarray(references.T),
        np.ascontiguousarray(codes.T),
        f_r.mean(),
    )
    slow, plan = interventional_plan(paths, False, len(codes), len(references), "auto")
    values = np.zeros(codes.shape)
    for weights, factor in (
        (np.ones(len(f_r)), f_x + middle - 2.0 * y),
        (f_r - middle, np.ones(len(f_x))),
    ):
        weights = weights / len(f_r)
        counts = plan.histogram(there, weights, jobs)
        values += (
            interventional_sums(
                paths, slow, plan, counts, None, there, weights, columns, False, jobs
            ).T
            * factor[:, None]
        )
    return values, (y - middle) ** 2 + f_r.var()
