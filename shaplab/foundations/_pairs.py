r"""Pairs of coalitions: which to ask for, and the regression on them.

Shapley values depend only on the odd part of a game: the difference of a coalition :math:`S` and
its complement. Among all values that sum to :math:`v(N) - v(\emptyset)`, the Shapley values
minimise

.. math:: \sum_S \mu(S) \Bigl(v(S) - v(\bar S) - \sum_i x_i \varphi_i\Bigr)^2,
   \qquad \mu(S) = \frac{n - 1}{\binom{n}{|S|}\,|S|\,(n - |S|)},

with :math:`x_i = 1` for members of :math:`S` and :math:`-1` for the rest. Sizes are strata: pairs
of one size are drawn without repetition, and stand for all pairs of that size. A stratum has the
weight :math:`1/(s(n-s))`, and a pair moves the values in proportion to :math:`\sqrt{s(n-s)}`, so
errors are smallest (Neyman) when sizes are drawn in proportion to :math:`1/\sqrt{s(n-s)}`.

Anything whose own Shapley values are zero may be subtracted with any slope: powers of the size,
and predictions of a surrogate that did not see the pair. The slope is fitted, so a surrogate that
is of no use takes no part.

Pairs that were asked for are known; only the rest of a stratum is guessed. A prediction that knows
a pair's own difference leaves the residual that this pair has, one that does not know it (honest)
tells of pairs that were never asked for. So with a share :math:`u` of a stratum not asked for,
:math:`u` times the honest prediction and :math:`1 - u` times the other one are subtracted; the mean
of honest residuals alone would take what was guessed badly for the whole stratum. Their variance is
what a sample without repetition has: :math:`u` times the honest residual's.

Intervals. With its covariance held, the whole procedure is linear in the differences: values are
:math:`\sum_j a_j d_j`. A pair counts directly, and through what it teaches about others, :math:`a_j
= b_j - \beta \sum_i b_i C_{ij}`, where :math:`b` is the regression's influence, :math:`\beta` the
slope, :math:`C` how predictions follow from differences. To leave a pair out (the jackknife) moves
the values by :math:`a_j` times its held-out residual, which says too much of the variance (Efron
and Stein); :math:`b_j` alone says too little, for the predictions vary, too. Half of the difference
is added, as HC2 stands between HC0 and HC3. That holds the covariance, which was learned from the
same pairs: each of the folds has learned one without its own pairs, and how far values move from
one to the other (the jackknife with whole folds left out), less what each pair's own residual
shows already, is what learning adds. Both additions tell of the same thing, and neither of them
well: half of each counts.
Degrees of freedom follow from how uneven terms are, by leverage (Bell and McCaffrey) and by the
residuals that were met, and from the number of folds (Satterthwaite).

Chapter: foundations/kernel
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

from shaplab.foundations._surrogate import (
    FOLDS,
    HeldOut,
    OddSurrogate,
    held_out_predictions,
)

__all__: list[str] = []

# Strata with at most this many pairs are listed and shuffled; of larger ones pairs are drawn.
LISTED_PAIRS = 2**14
DRAWN_AT_ONCE = 64
# More pairs than anybody can ask for: counts of larger strata stop here.
MANY_PAIRS = 2**60
# Residuals beyond the regression's own columns before a standard error says anything.
LEAST_FREEDOM = 4
# No residual is thought to have lost more than all but this share of its square.
LEAST_KEPT = 0.05
# Residuals from which on their degrees of freedom change no interval that anybody would notice.
MANY_RESIDUALS = 1000
# A stratum is finished at once as soon as this share of it is due: few pairs that are missing stand
# for players who are anything but alike.
FINISHED_AT = 0.5


class Pairs(NamedTuple):
    """Pairs as a regression sees them: signs ``(m, n)``, differences ``(m, K)``, and for each pair
    its weight and the share of its stratum that was not asked for."""

    signs: np.ndarray
    differences: np.ndarray
    weights: np.ndarray
    unasked: np.ndarray


class PairFit(NamedTuple):
    """Values, standard errors and their degrees of freedom ``(n, K)``; NaN where nothing can be
    said."""

    values: np.ndarray
    std: np.ndarray
    freedom: np.ndarray


class PairDesign:
    """Pairs of ``n`` players in an order of which any beginning is a design.

    A pair is written as its smaller coalition; of two halves, the one with player 0.
    """

    def __init__(self, n: int, entropy: list[int]) -> None:
        self.n = n
        self.entropy = entropy
        self.sizes = np.arange(1, n // 2 + 1)
        halves = np.where(2 * self.sizes == n, 2, 1)
        counts = [comb(n, int(size)) for size in self.sizes]
        self.available = np.array(
            [
                min(MANY_PAIRS, count // half)
                for count, half in zip(counts, halves.tolist(), strict=True)
            ]
        )
        self.total = int(min(MANY_PAIRS, self.available.astype(float).sum()))
        product = self.sizes * (n - self.sizes)
        self.mass = 1.0 / (halves * product)
        share = 1.0 / (halves * np.sqrt(product))
        self.share = share / share.sum()
        self._drawn: dict[int, np.ndarray] = {}
        self._generators: dict[int, np.random.Generator] = {}

    def first(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first pairs ``(count, n)``, and the stratum ``(count,)`` of each."""
        stratum = self._schedule(count)
        coalitions = np.zeros((count, self.n), dtype=bool)
        for which in np.unique(stratum):
            places = np.flatnonzero(stratum == which)
            coalitions[places] = self._of_stratum(int(which), len(places))
        return coalitions, stratum

    def _schedule(self, count: int) -> np.ndarray:
        """Strata ``(count,)`` in the order of their turns: each comes at even intervals, until it
        is finished."""
        horizon = float(count)
        turns = self._turns(horizon)
        while turns.sum() < count:
            horizon *= 2.0
            turns = self._turns(horizon)
        times = []
        for available, share, turn in zip(self.available, self.share, turns, strict=True):
            number = np.arange(min(int(turn), count)) + 0.5
            times.append(np.minimum(number, max(FINISHED_AT * available, 0.5)) / share)
        stratum = np.repeat(np.arange(len(turns)), [len(time) for time in times])
        return stratum[np.argsort(np.concatenate(times), kind="stable")[:count]]

    def _turns(self, horizon: float) -> np.ndarray:
        """Pairs of each stratum whose time is not after the horizon."""
        due = horizon * self.share
        finished = due >= np.maximum(FINISHED_AT * self.available, 0.5)
        return np.where(finished, self.available, np.floor(due + 0.5))

    def _of_stratum(self, which: int, count: int) -> np.ndarray:
        """The first pairs of a stratum."""
        if which not in self._drawn:
            seed = np.random.SeedSequence(self.entropy, spawn_key=(which,))
            self._generators[which] = np.random.default_rng(seed)
            self._drawn[which] = np.zeros((0, self.n), dtype=bool)
            if self.available[which] <= LISTED_PAIRS:
                listed = self._list(int(self.sizes[which]))
                self._drawn[which] = self._generators[which].permutation(listed)
        if len(self._drawn[which]) < count:
            self._draw(which, count)
        return self._drawn[which][:count]

    def _list(self, size: int) -> np.ndarray:
        fixed = (0,) if 2 * size == self.n else ()
        others = range(len(fixed), self.n)
        members = np.array(
            [fixed + rest for rest in combinations(others, size - len(fixed))], dtype=int
        )
        listed = np.zeros((len(members), self.n), dtype=bool)
        np.put_along_axis(listed, members, True, axis=1)
        return listed

    def _draw(self, which: int, count: int) -> None:
        """Draw more pairs of a stratum, leaving out those that were drawn before."""
        size = int(self.sizes[which])
        known = {coalition.tobytes(): coalition for coalition in self._drawn[which]}
        while len(known) < count:
            numbers = self._generators[which].random((DRAWN_AT_ONCE, self.n))
            drawn = numbers.argsort(axis=1).argsort(axis=1) < size
            if 2 * size == self.n:
                drawn ^= ~drawn[:, :1]
            for coalition in drawn:
                known.setdefault(coalition.tobytes(), coalition)
        self._drawn[which] = np.array(list(known.values()))

    def weigh(self, stratum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weight of pairs of these strata, and the share of each stratum that is missing."""
        asked = np.bincount(stratum, minlength=len(self.sizes))
        mass = self.mass.copy()
        # A stratum that nobody asked for is stood for by the nearest one.
        present = np.flatnonzero(asked)
        for which in np.flatnonzero(asked == 0):
            nearest = present[np.abs(present - which).argmin()]
            mass[nearest] += mass[which]
        unasked = 1.0 - asked / self.available
        return (mass / np.maximum(asked, 1))[stratum], unasked[stratum]


def least_pairs(n: int) -> int:
    """Pairs from which on there are standard errors."""
    return n - 1 + _size_columns(n) + 1 + LEAST_FREEDOM


def _size_columns(n: int) -> int:
    """Powers of the size that the regression holds: two, or as many as there are sizes."""
    return min(2, (n - 1) // 2)


def fit_pairs(pairs: Pairs, total: np.ndarray) -> PairFit:
    """Shapley values that sum to ``total`` ``(K,)``, by regression on pairs, with a surrogate as
    control variate."""
    n = pairs.signs.shape[1]
    if len(pairs.signs) < least_pairs(n) and pairs.unasked.any():
        # Too few for a regression: the surrogate's own belief, corrected to the right sum.
        everything = np.ones(len(pairs.signs), dtype=bool)
        values = OddSurrogate(pairs.signs, pairs.differences, everything).values()
        values = values + (total - values.sum(axis=0)) / n
        return PairFit(values, np.full(values.shape, np.nan), np.full(values.shape, np.nan))
    layout = lay_out(pairs)
    held_out = held_out_predictions(pairs.signs, pairs.differences, pairs.unasked, layout.influence)
    return regress_pairs(pairs, total, layout, held_out)


class PairLayout(NamedTuple):
    """What a regression knows before it sees differences: roots of the weights ``(m, 1)``, weighted
    columns ``(m, p)``, the directions ``(n, n - 1)`` that they are coefficients of, the inverse
    ``(p, m)``, the influence ``(n, m)`` of differences on values."""

    root: np.ndarray
    columns: np.ndarray
    free: np.ndarray
    inverse: np.ndarray
    influence: np.ndarray


def lay_out(pairs: Pairs) -> PairLayout:
    """Columns of the regression on these pairs."""
    n = pairs.signs.shape[1]
    root = np.sqrt(pairs.weights)[:, None]
    tilt = pairs.signs.mean(axis=1, keepdims=True)
    # Directions that leave the sum as it is.
    free = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:]
    # Odd functions of the size that leave everybody's worth as it is.
    powers = [tilt ** (2 * power + 3) - tilt for power in range(_size_columns(n))]
    columns = np.concatenate([pairs.signs @ free, *powers], axis=1) * root
    inverse = np.linalg.pinv(columns)
    influence = (free @ inverse[: n - 1]) * root[:, 0]
    return PairLayout(root, columns, free, inverse, influence)


def regress_pairs(
    pairs: Pairs, total: np.ndarray, layout: PairLayout, held_out: HeldOut
) -> PairFit:
    """The regression with a control variate whose Shapley values are zero."""
    n = pairs.signs.shape[1]
    tilt = pairs.signs.mean(axis=1, keepdims=True)
    response = (pairs.differences - tilt * total) * layout.root
    # The slope and the residuals are those of predictions that did not see the pair.
    control = held_out.honest * layout.root
    left = response - layout.columns @ (layout.inverse @ response)
    own = control - layout.columns @ (layout.inverse @ control)
    size = np.maximum((own**2).sum(axis=0), np.finfo(float).tiny)
    slope = (own * left).sum(axis=0) / size
    left = left - slope * own
    coefficients = layout.inverse @ (response - slope * held_out.mixed * layout.root)
    values = total / n + layout.free @ coefficients[: n - 1]
    # How much of each pair its own residual has lost.
    lost = (layout.columns * layout.inverse.T).sum(axis=1)[:, None] + own**2 / size
    kept = np.maximum(1.0 - lost, LEAST_KEPT)
    squares = pairs.unasked[:, None] * (left / layout.root) ** 2 / kept
    shared = slope**2 * _shared_by_folds(held_out.relearned, layout.influence, pairs.unasked)
    by_leverage = _leverage_freedom(layout, pairs.unasked)
    std = np.empty(values.shape)
    freedom = np.empty(values.shape)
    for payoff in range(values.shape[1]):
        direct = layout.influence**2 * squares[:, payoff]
        followed = layout.influence - slope[payoff] * held_out.taught
        terms = (direct + followed**2 * squares[:, payoff]) / 2
        variance, of_residuals = _mean_variance((direct, terms), shared[:, payoff], by_leverage)
        std[:, payoff] = np.sqrt(variance)
        freedom[:, payoff] = of_residuals
    return PairFit(values, std, freedom)


def _mean_variance(
    terms: tuple[np.ndarray, np.ndarray], shared: np.ndarray, by_leverage: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Variances and degrees of freedom ``(n,)``: of terms ``(n, m)`` that hold pairs' direct
    influence and what folds ``shared`` ``(n,)``, and of terms that hold what pairs teach: the mean
    of both, with the freedom of the larger one."""
    direct, taught = (each.sum(axis=1) for each in terms)
    of_direct, of_taught = (_add_freedoms(by_leverage, _residual_freedom(each)) for each in terms)
    relearned = direct + shared
    # Satterthwaite: variances in sum have the freedom of the larger one, or more.
    both = (direct**2 / of_direct + shared**2 / (FOLDS - 1)) / np.maximum(
        relearned**2, np.finfo(float).tiny
    )
    of_relearned = np.maximum(1.0, 1.0 / np.maximum(both, np.finfo(float).tiny))
    is_larger = relearned > taught
    return (relearned + taught) / 2, np.where(is_larger, of_relearned, of_taught)


def _shared_by_folds(
    relearned: np.ndarray, influence: np.ndarray, unasked: np.ndarray
) -> np.ndarray:
    """The variance ``(n, K)`` of values by what errors of predictions ``(FOLDS, m, K)`` have in
    common: the jackknife's, less what each pair has for itself, which its residual shows."""
    of_values = (influence @ relearned).var(axis=0)
    of_pairs = (influence**2 * unasked) @ relearned.var(axis=0)
    return np.asarray(np.maximum(of_values - of_pairs, 0.0) * (FOLDS - 1))


def _add_freedoms(by_leverage: np.ndarray, by_residuals: np.ndarray) -> np.ndarray:
    """Degrees of freedom when leverage and residuals are uneven."""
    return np.maximum(1.0, 1.0 / (1.0 / by_leverage + 1.0 / by_residuals))


def _residual_freedom(terms: np.ndarray) -> np.ndarray:
    """Degrees of freedom ``(n,)`` of sums of squares ``(n, m)``: as many as there are terms, if
    these are squares of equal normal numbers; few, if few make up the sum."""
    # The fourth moment of a normal number is three times its squared variance.
    fourth = np.maximum((terms**2).sum(axis=1), np.finfo(float).tiny)
    return np.maximum(3.0 * terms.sum(axis=1) ** 2 / fourth, 1.0)


def _leverage_freedom(layout: PairLayout, unasked: np.ndarray) -> np.ndarray:
    """Degrees of freedom ``(n,)`` of an HC2 variance if residuals were equal: twice its squared
    mean over its variance."""
    lost = (layout.columns * layout.inverse.T).sum(axis=1)
    kept = np.maximum(1.0 - lost, LEAST_KEPT)
    parts = (layout.influence / layout.root[:, 0]) ** 2 * unasked / kept
    mean = parts @ (1.0 - lost)
    variance = parts**2 @ np.square(1.0 - lost)
    # With many residuals what they share matters no more.
    if len(lost) <= MANY_RESIDUALS + layout.columns.shape[1]:
        variance = parts**2 @ (1.0 - 2.0 * lost)
        for player, part in enumerate(parts):
            shared = (layout.inverse * part) @ layout.columns
            variance[player] += (shared * shared.T).sum()
    return np.maximum(mean**2 / np.maximum(variance, np.finfo(float).tiny), 1.0)
