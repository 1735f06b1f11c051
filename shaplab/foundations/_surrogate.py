r"""A Gaussian process over coalitions whose Shapley values are known: a control variate.

With signs :math:`x_i = 1` for members and :math:`-1` for the rest, the difference of a coalition
and its complement is an odd function of :math:`x`. Its prior gives the product of the players in
:math:`T` the variance :math:`\prod_{i \in T} \rho_i`, for odd :math:`|T| \ge 3`; summed over
:math:`T`, with :math:`\rho_i = \tanh \tau_i`, the covariance is

.. math:: k(x, z) = \frac{\sinh(\sum_i \tau_i x_i z_i)}{\prod_i \cosh \tau_i}
   - \sum_i \rho_i x_i z_i .

A player that takes part in no interaction gets :math:`\tau_i \to 0`. Singles have a variance of
their own, so interactions are not spent on what is additive. As a game, :math:`k(\cdot, z)` is a
product of players' factors less an additive game, so its Shapley values are an integral,

.. math:: \varphi_i = \rho_i z_i \Bigl[\int_0^1 \prod_{j \ne i} (1 + \rho_j z_j (2p - 1))\,dp
   - 1\Bigr],

and Gauss-Legendre quadrature of :math:`\lceil n/2 \rceil` nodes is exact.

Cost: for :math:`m` pairs :math:`O(m^2 (m + n))`; the variances are learned from the first pairs.

Chapter: foundations/kernel
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from shaplab._parallel import chunks

__all__: list[str] = []

# Pairs from which variances are learned, pairs that take part in predictions, payoffs that say what
# the variances are.
LEARNING_PAIRS = 400
PREDICTING_PAIRS = 2048
LEARNING_PAYOFFS = 8
# Logarithms of tau, and of the variances of interactions, noise and singles: where they are sought.
# Noise keeps the covariance solvable.
LOG_TAU = (-6.0, 1.0)
LOG_VARIANCES = [(-8.0, 6.0), (-14.0, 2.0), (-6.0, 6.0)]
STEPS = 25
# Parts of the pairs whose covariance is learned from the other parts.
FOLDS = 5


class Covariance(NamedTuple):
    """What the prior is made of: a reach for each player, and the variances of interactions as a
    whole, of noise and of singles."""

    tau: np.ndarray
    interactions: float
    noise: float
    singles: float

    @classmethod
    def from_logarithms(cls, logarithms: np.ndarray) -> Covariance:
        exponentials = np.exp(logarithms)
        return cls(exponentials[:-3], *(float(number) for number in exponentials[-3:]))

    @property
    def factor(self) -> float:
        """What products count: the covariance is divided by its largest product, so that no
        exponential overflows."""
        return float(np.exp((np.log(np.cosh(self.tau)) - self.tau).sum()))

    def parts(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The odd part of the product, its even part and its linear part, ``(m, r)`` each."""
        reach = self.tau.sum()
        agreement = (x * self.tau) @ z.T
        up = np.exp(agreement - reach)
        down = np.exp(-agreement - reach)
        linear = self.factor * ((x * np.tanh(self.tau)) @ z.T)
        return (up - down) / 2, (up + down) / 2, linear

    def of_interactions(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        odd, _, linear = self.parts(x, z)
        return self.interactions * (odd - linear)

    def of_responses(self, x: np.ndarray) -> np.ndarray:
        singles = (self.singles / x.shape[1]) * (x @ x.T)
        return self.of_interactions(x, x) + singles + self.noise * np.eye(len(x))

    def values(self, z: np.ndarray) -> np.ndarray:
        """Shapley values ``(m, n)`` of the interactions' covariance with each of ``z`` ``(m, n)``,
        by quadrature."""
        slope = np.tanh(self.tau) * z
        nodes, weights = np.polynomial.legendre.leggauss((z.shape[1] + 1) // 2)
        mean_product = np.zeros(z.shape)
        for node, weight in zip(nodes, weights / 2, strict=True):
            logarithm = np.log1p(slope * node)
            mean_product += weight * np.exp(logarithm.sum(axis=1, keepdims=True) - logarithm)
        return self.interactions * self.factor * slope * (mean_product - 1.0)


def negative_log_likelihood(
    logarithms: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[float, np.ndarray]:
    """Of responses ``(m, K)`` at signs ``(m, n)``, with its gradient."""
    covariance = Covariance.from_logarithms(logarithms)
    factored = cho_factor(covariance.of_responses(x), lower=True)
    solved = cho_solve(factored, y)
    inverse = cho_solve(factored, np.eye(len(x)))
    log_root_determinant = np.log(np.diag(factored[0])).sum()
    loss = 0.5 * float((y * solved).sum()) + y.shape[1] * float(log_root_determinant)
    # The gradient is the sum of this matrix times the covariance's derivative.
    sensitivity = 0.5 * (y.shape[1] * inverse - solved @ solved.T)
    odd, even, linear = covariance.parts(x, x)
    rho = np.tanh(covariance.tau)

    def of_agreements(matrix: np.ndarray) -> np.ndarray:
        """Sums of a matrix times ``x_i z_i``, one a player."""
        return np.asarray((x * (matrix @ x)).sum(axis=0))

    by_tau = of_agreements(sensitivity * even) - (sensitivity * odd).sum()
    by_tau -= covariance.factor * (1.0 - rho**2) * of_agreements(sensitivity)
    by_tau -= (rho - 1.0) * (sensitivity * linear).sum()
    gradient = np.concatenate(
        [
            covariance.interactions * covariance.tau * by_tau,
            [covariance.interactions * (sensitivity * (odd - linear)).sum()],
            [covariance.noise * np.trace(sensitivity)],
            [covariance.singles / x.shape[1] * of_agreements(sensitivity).sum()],
        ]
    )
    return loss, gradient


def learn_covariance(x: np.ndarray, y: np.ndarray) -> Covariance:
    """The most likely covariance of responses ``(m, K)``; players that matter alone are thought to
    matter together, to begin with."""
    n = x.shape[1]
    # Ridge, since there may be fewer pairs than players.
    singles = np.linalg.solve(x.T @ x + np.eye(n), x.T @ y)
    importance = np.sqrt((singles**2).mean(axis=1))
    share = importance / max(float(importance.max()), 1e-12)
    start = np.append(np.log(np.clip(share, 0.05, 0.7)), np.log([0.1, 0.01, 1.0]))
    bounds = [LOG_TAU] * n + LOG_VARIANCES
    found = minimize(
        negative_log_likelihood,
        start,
        args=(x, y),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": STEPS},
    )
    return Covariance.from_logarithms(found.x)


class OddSurrogate:
    """The process after seeing responses ``(m, K)`` at signs ``(m, n)``, with a covariance that was
    learned from those of them that ``learn`` ``(m,)`` tells."""

    def __init__(self, signs: np.ndarray, responses: np.ndarray, learn: np.ndarray) -> None:
        size = np.sqrt((responses[learn] ** 2).mean(axis=0))
        # A payoff that never differs needs no surrogate.
        self.unit = np.where(size > 0.0, size, 1.0)
        scaled = responses / self.unit
        teachers = np.flatnonzero(learn)[:LEARNING_PAIRS]
        told_by = np.argsort(-size, kind="stable")[:LEARNING_PAYOFFS]
        self.covariance = learn_covariance(signs[teachers], scaled[teachers][:, told_by])
        self.signs = signs[:PREDICTING_PAIRS]
        factored = cho_factor(self.covariance.of_responses(self.signs), lower=True)
        self.inverse = cho_solve(factored, np.eye(len(self.signs)))
        self.weights = self.inverse @ scaled[:PREDICTING_PAIRS]
        self.section_values = self.covariance.values(self.signs)

    def lessons(self, x: np.ndarray, places: np.ndarray, forget: np.ndarray) -> np.ndarray:
        """How predictions at ``x`` ``(r, n)`` follow from what was seen, ``(r, m)``: times the
        responses they are functions whose Shapley values are zero. Of a pair seen at one of
        ``places`` ``(r,)`` the share ``forget`` ``(r,)`` of the prediction is from all others."""
        # Covariances of interactions less their own additive part.
        centred = self.covariance.of_interactions(x, self.signs) - x @ self.section_values.T
        learned = centred @ self.inverse
        seen = np.flatnonzero(places < len(self.signs))
        at = places[seen]
        # Leaving one out takes away a multiple of its row of the inverse.
        own = forget[seen] * learned[seen, at] / self.inverse[at, at]
        learned[seen] -= own[:, None] * self.inverse[at]
        return learned

    def predict(self, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions ``(m, K)`` for all pairs, the first of which were seen, and what each of
        them changes by where the pair itself is left out."""
        predicted, without = [], []
        for part in chunks(len(signs), PREDICTING_PAIRS):
            x = signs[part]
            centred = self.covariance.of_interactions(x, self.signs) - x @ self.section_values.T
            predicted.append(centred @ self.weights)
            at = np.arange(part.start, min(part.stop, len(self.signs)))
            own = (centred[: len(at)] * self.inverse[at]).sum(axis=1) / self.inverse[at, at]
            change = np.zeros(predicted[-1].shape)
            change[: len(at)] = -own[:, None] * self.weights[at]
            without.append(change)
        return np.concatenate(predicted) * self.unit, np.concatenate(without) * self.unit

    def values(self) -> np.ndarray:
        """The mean Shapley values ``(n, K)`` given what was seen, singles included."""
        singles = (self.covariance.singles / self.signs.shape[1]) * self.signs
        return ((singles + self.section_values).T @ self.weights) * self.unit


class HeldOut(NamedTuple):
    """Predictions with Shapley values of zero: ``honest`` ``(m, K)``, each without any use of its
    own response; ``mixed`` ``(m, K)``, where a pair's own response counts as its stratum was asked
    for; the influence ``taught`` ``(r, m)`` of responses through these; and ``relearned``
    ``(FOLDS, m, K)``, mixed ones by each covariance that was learned without one of the folds."""

    honest: np.ndarray
    mixed: np.ndarray
    taught: np.ndarray
    relearned: np.ndarray


def held_out_predictions(
    signs: np.ndarray, responses: np.ndarray, unasked: np.ndarray, influence: np.ndarray
) -> HeldOut:
    """Predictions for each of the pairs: the covariance was learned from other folds, and the
    process has seen all but this pair. ``unasked`` ``(m,)`` is the share of its stratum that is
    missing, ``influence`` ``(r, m)`` that of predictions on values."""
    fold = np.arange(len(signs)) % FOLDS
    honest = np.empty(responses.shape)
    informed = np.zeros(responses.shape)
    taught = np.zeros(influence.shape)
    relearned = np.empty((FOLDS, *responses.shape))
    for which in range(FOLDS):
        surrogate = OddSurrogate(signs, responses, fold != which)
        places = np.flatnonzero(fold == which)
        predicted, without = surrogate.predict(signs)
        informed += predicted / FOLDS
        honest[places] = (predicted + without)[places]
        relearned[which] = predicted + unasked[:, None] * without
        lessons = surrogate.lessons(signs[places], places, unasked[places])
        taught[:, : lessons.shape[1]] += influence[:, places] @ lessons
    mixed = informed + unasked[:, None] * (honest - informed)
    return HeldOut(honest, mixed, taught, relearned)
