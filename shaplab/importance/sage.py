r"""SAGE: how much each feature lowers a model's loss over a data set.

SAGE values are the Shapley values of the game

.. math:: v(S) = -\frac1N \sum_{i=1}^N \ell\Bigl(\tfrac1B \sum_b f(x_{i,S}, b_{\bar S}),\,
   y_i\Bigr),

the mean of the LossSHAP games of all rows, so SAGE is the mean of LossSHAP. It is estimated by one
antithetic walk for each visit of a row; rows are visited in epochs, each row once in random order,
because chance in *which* rows are visited would be the largest part of the error. Two errors are
kept apart: the Monte-Carlo error for these
:math:`N` rows, :math:`N^{-2} \sum_i s_i^2 / r_i` with :math:`s_i^2` the variance between the
:math:`r_i` visits of a row, which more computing lowers, and the error from having these rows and
not others, which only data lowers.
Source: Covert, Lundberg and Lee (2020), Algorithm 1. Cost of a visit: as a walk of LossSHAP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shaplab._losses import get_loss
from shaplab._validation import check_result
from shaplab.explanation import Explanation
from shaplab.foundations._walks import BLOCK, Run, Tables, Tally, check_stop
from shaplab.importance.loss_shap import LossWalks, shares

__all__ = ["sage", "sage_literal"]


def sage_literal(
    model: Callable[[np.ndarray], np.ndarray],
    X: np.ndarray,
    y: np.ndarray,
    background: np.ndarray,
    samples: int,
    loss: Any,
    rng: np.random.Generator,
) -> np.ndarray:
    """SAGE values ``(d,)`` by sampling as the paper states it: a row, an ordering, one feature
    after the other."""
    ell = get_loss(loss).value
    d = X.shape[1]
    phi = np.zeros(d)
    for _ in range(samples):
        i = rng.integers(len(X))
        pi = rng.permutation(d)
        hybrid = background.copy()
        loss_prev = ell(model(hybrid).mean(axis=0)[None], y[i : i + 1])[0]
        for j in pi:
            hybrid[:, j] = X[i, j]
            loss_next = ell(model(hybrid).mean(axis=0)[None], y[i : i + 1])[0]
            phi[j] += loss_prev - loss_next
            loss_prev = loss_next
    return phi / samples


class Epochs(LossWalks):
    """Visits of all rows in epochs, for one answer."""

    pooled = True

    def __init__(
        self, tables: Tables, y: Any, loss: Any, removal: str, weights: Any = None
    ) -> None:
        super().__init__(tables, y, loss, removal, walks=1, weights=weights)
        n = tables.n
        self.blocks = -(-n // BLOCK)
        self.pilot = int(self.blocks > 2)
        # Before this many visits a standard error is not trusted; two of each row of a small table.
        self.least = -(-max(64, min(2 * n, 4 * BLOCK)) * self.blocks // n)
        self.mark["method"] = "sage"

    def moments(self, tally: Tally) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
        """Variance of the mean and its covariance with the sum ``(p,)``, variance between visits,
        and freedom."""
        seen, again = tally.count >= 1, tally.count >= 2
        n, left = int(seen.sum()), 1.0 - seen.mean()
        z, inverse = tally.mean[seen, :, 0], float((1.0 / tally.count[seen]).sum())
        centred = z - z.mean(axis=0)
        unseen = self.unseen(seen)
        between = unseen * (centred**2).sum(axis=0) / max(n - 1, 1)
        together = (centred * centred.sum(axis=1, keepdims=True)).sum(axis=0) / max(n - 1, 1)
        together = unseen * together
        if again.sum() < min(tally.count.size, 64):
            # Rows and visits cannot be told apart yet; taken together they err on the large side.
            return between / n, together / n, None, max(n - 1, 1)
        freedom = int((tally.count[again] - 1).sum())
        within = tally.m2[again, :, 0].sum(axis=0) / freedom
        cross = tally.cross[again, :, 0].sum(axis=0) / freedom
        variance, covariance = within * inverse / n**2, cross * inverse / n**2
        if left > 0.0:
            variance = variance + left / n * np.maximum(between - within * inverse / n, 0.0)
            covariance = covariance + left / n * (together - cross * inverse / n)
        return variance, covariance, within, freedom

    def unseen(self, seen: np.ndarray) -> float:
        """How much larger the variance between rows is than that of the rows seen, at least 1.

        The sum of a row's values is known beforehand for every row. A few rows with huge ones that
        have not been visited yet show in it.
        """
        total = self.full - self.empty
        known, part = total.var(), total[seen].var()
        return float(max(1.0, known / part)) if part > 0.0 else 1.0

    def summary(self, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """Values ``(1, p, 1)`` that add up, and their Monte-Carlo standard errors."""
        variance, covariance, _, freedom = self.moments(tally)
        mean = tally.mean[tally.count >= 1, :, 0].mean(axis=0)
        scale = self.scale / np.sqrt(tally.count.size)
        share, correction = shares(covariance * freedom, variance * freedom, freedom, scale)
        values = mean + share * ((self.full - self.empty).mean() - mean.sum())
        std = np.sqrt(np.maximum(variance - share * covariance, 0.0) * correction)
        return values[None, :, None], std[None, :, None]

    def freedom(self, tally: Tally) -> np.ndarray:
        """Degrees of freedom ``(p,)`` of the errors: fewer than visits if few rows make most of the
        error (Welch)."""
        nominal, again = self.moments(tally)[3], tally.count >= 2
        if self.moments(tally)[2] is None:
            return np.full(self.shape[1], float(nominal))
        m2 = tally.m2[again, :, 0]
        spread = (m2**2 / (tally.count[again, None] - 1)).sum(axis=0)
        return np.clip(m2.sum(axis=0) ** 2 / np.maximum(spread, 1e-300), 1.0, nominal)

    def sampling_error(self, tally: Tally) -> np.ndarray:
        """Standard error ``(p,)`` from having these rows: the spread of row values, less what
        visits add to it."""
        seen = tally.count >= 1
        spread = (
            tally.mean[seen, :, 0].var(axis=0, ddof=1)
            if seen.sum() > 1
            else np.full(self.shape[1], np.nan)
        )
        within = self.moments(tally)[2]
        if within is not None:
            spread = np.maximum(spread - within * (1.0 / tally.count[seen]).mean(), 0.0)
        return np.asarray(np.sqrt(spread / self.shape[0]))


def sage(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    *,
    loss: Any = "mse",
    removal: str = "marginal",
    groups: Any = None,
    rounds: int | None = None,
    thresh: float = 0.025,
    max_evaluations: int | None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 16384,
    progress: bool = False,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    state: Any = None,
    feature_names: Any = None,
    weights: Any = None,
) -> Explanation:
    """SAGE values: how much each feature lowers the model's loss, with standard errors.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``, such as ``estimator.predict_proba``, or a
        torch module.
    X : array or DataFrame ``(N, d)``, rows on which the loss is measured: a test set.
    y : array ``(N,)``, targets; class labels 0, 1, ... in the order of the model's outputs.
    background : array or DataFrame ``(B, d)``, used whole: beyond a few predictions of each of its
        rows, which tell whether some are too extreme to be drawn by chance, its size hardly changes
        the cost.
    loss : ``"mse"``, ``"cross_entropy"`` (probabilities), ``"logistic"`` or
        ``"softmax_cross_entropy"`` (margins), or a callable ``(output, y) -> (n,)`` of mean outputs
        ``(n,)`` or ``(n, K)`` and targets ``(n,)``.
    removal : ``"marginal"`` (absent features take background values) or ``"conditional"``
        (background values move along with the present features, by the regression of a Gaussian
        fitted to the background).
    groups : lists of features explained together, by number or name, or a dict from group name to
        features.
    rounds : int >= 2, epochs over the rows; None: as many as ``thresh`` or ``max_evaluations``
        need.
    thresh : float, stop when the largest standard error is below this share of the spread of the
        values (largest minus smallest, zero included).
    max_evaluations, rng, n_jobs, batch_size, progress, callback, state, feature_names : as in
        :func:`shaplab.foundations.permutation.permutation_shap`; a round is a block of at most 512
        rows.
    weights : array ``(N,)`` of at least 0, how much each row counts in the mean; None: equally.

    Returns
    -------
    Explanation
        ``values`` and ``std`` ``(1, d)``, in the loss's unit; higher means that the feature lowers
        the loss more. ``base_values`` is minus the loss of the mean prediction, ``prediction``
        minus the model's loss. ``std`` is the Monte-Carlo error for these rows;
        ``info["test_std"]`` ``(d,)`` the error from having these rows and not others, to be added
        in squares for statements about the population.

    Raises
    ------
    ValueError
        For a loss that does not match the target or the outputs, labels outside the classes, and as
        :func:`shaplab.foundations.permutation.permutation_shap`.

    Notes
    -----
    Estimates the mean over rows of minus the loss of the mean prediction (``MeanGame`` of
    ``LossOfMean``), unbiased whatever the background's size; values add up exactly. A large table
    may be precise enough before each row has been visited; then ``std`` includes the error from the
    rows not seen.

    References
    ----------
    Covert, Lundberg and Lee, "Understanding Global Feature Contributions With Additive Importance
    Measures" (2020), Algorithm 1.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> found = sage(lambda X: X[:, 0], X, X[:, 0], X, rng=0)
    >>> bool(found.values[0, 0] > 0.5), float(found.values[0, 1])
    (True, 0.0)
    """
    goal, thresh, budget = check_stop(rounds, thresh, max_evaluations)
    tables = Tables(model, X, background, groups, batch_size, feature_names)
    sampler = Epochs(tables, y, loss, removal, weights)
    run = Run(
        sampler,
        rng=rng,
        rounds=goal,
        thresh=thresh,
        budget=budget,
        state=state,
        n_jobs=n_jobs,
        progress=progress,
        callback=callback,
    )

    def result(tally: Tally, info: dict[str, Any]) -> Explanation:
        values, std = sampler.summary(tally)
        check_result(values, [tables.title(player) for player in tables.players], "loss")
        how = ", enumerated" if tally.exact.all() else ""
        more = {
            "rounds": 1.0 + tables.expand(sampler.freedom(tally)[None]),
            "epochs": 0.0 if tally.exact.all() else float(tally.count.mean()),
            "rows": int((tally.count > 0).sum()),
            "test_std": tables.expand(sampler.sampling_error(tally), axis=0),
        }
        return Explanation(
            values=tables.expand(values[..., 0]),
            std=tables.expand(std[..., 0]),
            base_values=sampler.empty.mean()[None],
            feature_names=None if tables.names is None else tuple(tables.names),
            method=f"sage ({sampler.loss.name} of the mean prediction, {removal} removal{how})",
            info=info | more,
        )

    return run(result)
