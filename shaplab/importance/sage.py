r"""SAGE: how much each feature lowers a model's loss over a data set.

SAGE values are the Shapley values of the game

.. math:: v(S) = -\frac1N \sum_{i=1}^N \ell\Bigl(\tfrac1B \sum_b f(x_{i,S}, b_{\bar S}),\,
   y_i\Bigr),

the mean of the LossSHAP games of all rows, so SAGE is the mean of LossSHAP (``weights`` count some
rows more; conditional removal lets the background follow the known features). It is estimated by
one antithetic walk for each visit of a row. Rows are visited in epochs, all of them once in random
order before any row again, because chance in *which* rows are visited would be the largest part of
the error; only a first block of a large table is visited twice at once, to learn the variance
between visits. Two errors are kept apart: the Monte-Carlo error for these :math:`N` rows,
:math:`N^{-2} \sum_i s^2 / r_i` with :math:`s^2` the variance between the visits of a row (pooled)
and :math:`r_i` their number, which more computing lowers; and the error from having these rows and
not others, which only data lowers. Source: Covert, Lundberg and Lee (2020), Algorithm 1. Cost of a
visit: a walk of LossSHAP, ``2 (d - 1)`` coalitions of a few references each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from shaplab._losses import get_loss
from shaplab._units import unit_near
from shaplab.explanation import Explanation
from shaplab.foundations._evaluate import Evaluator
from shaplab.foundations._sampling import Budget, SampledRun, Tally
from shaplab.importance.loss_shap import LossWalks, RowLosses, shares

__all__ = ["sage", "sage_literal"]

# Rows that a round visits; an epoch over a larger table has several rounds.
ROWS_A_ROUND = 512
# Rows visited twice before the variance between visits is told from that between rows.
ROWS_AGAIN = 64


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


class ErrorMoments(NamedTuple):
    """What is known about the error of the mean over rows, in squares of the tally's unit: its
    ``variance`` ``(p,)`` and its ``covariance`` ``(p,)`` with the error of the sum over players,
    the variance ``within`` a row's visits ``(p,)`` (None: not yet known), and the degrees of
    ``freedom`` behind it.

    Chapter importance/sage, "How sure"."""

    variance: np.ndarray
    covariance: np.ndarray
    within: np.ndarray | None
    freedom: int


class Epochs(LossWalks):
    """Visits of all rows in epochs, for one answer: the mean over rows."""

    pooled = True

    def __init__(self, game: RowLosses, removal: str) -> None:
        super().__init__(game, removal, walks=1)
        n_rows = self.evaluator.n_rows
        self.blocks = math.ceil(n_rows / ROWS_A_ROUND)
        # The first block is visited twice at once, so that rows and visits can be told apart early.
        # Of one or two blocks, second visits come soon enough by themselves.
        self.first_block_again = int(self.blocks > 2)
        # Before this many visits a standard error is not trusted: two of each row of a small table,
        # but at least 64, of which a spread is known to a tenth or so (one over the square root of
        # twice their number).
        visits = max(64, min(2 * n_rows, 4 * ROWS_A_ROUND))
        self.least = math.ceil(visits * self.blocks / n_rows)  # in blocks
        self.mark["method"] = "sage"

    def moments(self, tally: Tally) -> ErrorMoments:
        """Variance of the mean over rows: that between visits and, as long as rows are unseen, that
        between rows."""
        seen = tally.count >= 1
        again = tally.count >= 2
        n_seen = int(seen.sum())
        between, between_sum = self._between_rows(tally, seen)
        if again.sum() < min(tally.count.size, ROWS_AGAIN):
            # Rows and visits cannot be told apart yet; taken together they err on the large side.
            return ErrorMoments(between / n_seen, between_sum / n_seen, None, max(n_seen - 1, 1))
        freedom = int((tally.count[again] - 1).sum())
        within = tally.m2[again, :, 0].sum(axis=0) / freedom
        within_sum = tally.cross[again, :, 0].sum(axis=0) / freedom
        # A row's mean has the variance within over its number of visits.
        one_over_visits = float((1.0 / tally.count[seen]).mean())
        noise = within * one_over_visits
        noise_sum = within_sum * one_over_visits
        variance = noise / n_seen
        covariance = noise_sum / n_seen
        unseen = 1.0 - seen.mean()
        if unseen > 0.0:
            # Rows are drawn without replacement: their variance counts for the share that is not
            # seen. The spread of row means, less what visits add to it, is that of the rows. (A
            # covariance may be negative.)
            variance = variance + unseen / n_seen * np.maximum(between - noise, 0.0)
            covariance = covariance + unseen / n_seen * (between_sum - noise_sum)
        return ErrorMoments(variance, covariance, within, freedom)

    def _between_rows(self, tally: Tally, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variance ``(p,)`` of row means and covariance with their sum over players, scaled to all
        rows."""
        mean = tally.mean[seen, :, 0]
        away = (mean - mean.mean(axis=0)) / tally.unit
        freedom = max(len(mean) - 1, 1)
        scale = self._scale_to_all_rows(seen)
        variance = scale * (away**2).sum(axis=0) / freedom
        covariance = (away * away.sum(axis=1, keepdims=True)).sum(axis=0) / freedom
        return variance, scale * covariance

    def _scale_to_all_rows(self, seen: np.ndarray) -> float:
        """How much larger the variance between rows is than that of the rows seen, at least 1.

        The sum of a row's values is known beforehand for every row. A few rows with huge ones that
        have not been visited yet show in it.
        """
        total = self.game.full - self.game.empty
        total = total / unit_near(total)
        of_seen = total[seen].var()
        return float(max(1.0, total.var() / of_seen)) if of_seen > 0.0 else 1.0

    def summary(self, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """Values ``(1, p, 1)`` that add up, and their Monte-Carlo standard errors."""
        variance, covariance, _, freedom = self.moments(tally)
        mean = tally.mean[tally.count >= 1, :, 0].mean(axis=0)
        # `shares` takes sums of squares, as a tally keeps them, and their degrees of freedom; the
        # scale of one row's numbers becomes that of a mean of so many rows.
        scale = self.scale / tally.unit / np.sqrt(tally.count.size)
        share, correction = shares(covariance * freedom, variance * freedom, freedom, scale)
        residual = (self.game.full - self.game.empty).mean() - mean.sum()
        values = mean + share * residual
        # What is left of a variance after regression on the sum.
        std = np.sqrt(np.maximum(variance - share * covariance, 0.0) * correction)
        return values[None, :, None], tally.unit * std[None, :, None]

    def freedom(self, tally: Tally) -> np.ndarray:
        """Degrees of freedom ``(p,)`` of the errors: fewer than visits if few rows make most of the
        error. Welch and Satterthwaite: the square of the sum of all rows' squares, over the sum of
        each row's own squared, divided by its degrees of freedom."""
        moments = self.moments(tally)
        if moments.within is None:
            return np.full(self.shape[1], float(moments.freedom))
        again = tally.count >= 2
        m2 = tally.m2[again, :, 0]
        spread = (m2**2 / (tally.count[again, None] - 1)).sum(axis=0)
        return np.clip(m2.sum(axis=0) ** 2 / np.maximum(spread, 1e-300), 1.0, moments.freedom)

    def test_error(self, tally: Tally) -> np.ndarray:
        """Standard error ``(p,)`` from having these rows: the spread of row values, less what
        visits add to it."""
        seen = tally.count >= 1
        if seen.sum() < 2:
            return np.full(self.shape[1], np.nan)
        # A row of weight w stands for w * value; other rows would have had other weights, too. So
        # what counts is how far w * value is from w * mean.
        weight = self.game.weight[seen, None]
        weighted = tally.mean[seen, :, 0]
        away = (weighted - weight * (weighted.sum(axis=0) / weight.sum())) / tally.unit
        spread = (away**2).sum(axis=0) / (seen.sum() - 1)
        within = self.moments(tally).within
        if within is not None:
            spread = np.maximum(spread - within * (1.0 / tally.count[seen]).mean(), 0.0)
        return np.asarray(tally.unit * np.sqrt(spread / self.shape[0]))


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
    background : array or DataFrame ``(B, d)``; the mean is over all of it. Walks draw a few
        references each, so its size hardly changes the cost; a few predictions of every row tell
        whether some are too extreme to be drawn by chance.
    loss : ``"mse"``, ``"cross_entropy"`` (probabilities), ``"logistic"`` or
        ``"softmax_cross_entropy"`` (margins), or a callable ``(output, y) -> (n,)`` of mean outputs
        ``(n,)`` or ``(n, K)`` and targets ``(n,)``.
    removal : ``"marginal"`` (absent features take background values) or ``"conditional"``
        (background values move along with the present features, by the regression of a Gaussian
        fitted to the background).
    groups : lists of features explained together, by number or name, or a dict from group name to
        features.
    rounds : int >= 2, epochs over the rows (of more than 1,024 rows, a first block of at most 512
        comes once more); None: as many as ``thresh`` or ``max_evaluations`` need.
    thresh : float, stop when the largest standard error is below this share of the spread of the
        values (largest minus smallest, zero included).
    max_evaluations, rng, n_jobs, batch_size, progress, callback, state, feature_names : as in
        :func:`shaplab.foundations.permutation.permutation_shap`; ``callback`` and ``progress``
        count blocks of at most 512 rows.
    weights : array ``(N,)`` of at least 0, how much each row counts in the mean; None: equally.

    Returns
    -------
    Explanation
        ``values`` and ``std`` ``(1, d)``, in the loss's unit; higher means that the feature lowers
        the loss more. ``base_values`` is minus the loss of the mean prediction, ``prediction``
        minus the model's loss. ``std`` is the Monte-Carlo error for these rows;
        ``info["test_std"]`` ``(d,)`` the error from having these rows and not others, to be added
        in squares for statements about the population, NaN for one row. ``info["rounds"]`` ``(1,
        d)`` is one more than the degrees of freedom of ``std``, ``info["epochs"]`` the mean number
        of visits of a row (0 if every coalition was evaluated), ``info["rows"]`` how many rows were
        visited.

    Raises
    ------
    ValueError
        For a loss that does not match the target or the outputs, labels outside the classes, and as
        :func:`shaplab.foundations.permutation.permutation_shap`.

    Notes
    -----
    Estimates the mean over rows of minus the loss of the mean prediction (``MeanGame`` of
    ``LossOfMean``), whatever the background's size without bias from drawing few references; values
    add up exactly, at the price of a bias of the order of one over the number of visits. A large
    table may be precise enough before each row has been visited; then ``std`` includes the error
    from the rows not seen.

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
    budget = Budget(rounds, thresh, max_evaluations, rng, n_jobs, progress, callback, state)
    evaluator = Evaluator(model, X, background, groups, batch_size, feature_names)
    game = RowLosses(evaluator, y, loss, weights)
    sampler = Epochs(game, removal)

    def result(tally: Tally, info: dict[str, Any]) -> Explanation:
        values, std = sampler.summary(tally)
        evaluator.check_values(values, "loss")
        is_exact = bool(tally.exact.all())
        how = ", enumerated" if is_exact else ""
        about_rows = {
            "rounds": 1.0 + evaluator.expand(sampler.freedom(tally)[None]),
            "epochs": 0.0 if is_exact else float(tally.count.mean()),
            "rows": int((tally.count > 0).sum()),
            "test_std": evaluator.expand(sampler.test_error(tally), axis=0),
        }
        return Explanation(
            values=evaluator.expand(values[..., 0]),
            std=evaluator.expand(std[..., 0]),
            base_values=game.empty.mean()[None],
            feature_names=evaluator.feature_names,
            method=f"sage ({game.loss.name} of the mean prediction, {removal} removal{how})",
            info=info | about_rows,
        )

    return SampledRun(sampler, budget).run(result)
