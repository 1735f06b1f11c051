r"""The loss of a mean prediction, without bias, from a few references instead of all.

Let :math:`f_b` be the output with reference :math:`b`, :math:`\bar f` the mean over all :math:`B`
references, and wanted :math:`\ell(\bar f)`. The loss of the mean of a few drawn outputs is biased,
since a loss is not linear. Two estimates are not:

- Squared error: with :math:`m` references drawn independently and :math:`e_i = y - f_{b_i}`, all
  products of two different errors, :math:`[(\sum e)^2 - \sum e^2] / (m (m - 1))`.
- Any other loss: *telescoping*. Level :math:`k` splits drawn references into groups of
  :math:`m_k = 2^k m_0`; :math:`\ell_k` is the mean over groups of the loss of a group's mean
  output, and the last level has one group, the whole background, so that its :math:`\ell_L` is what
  is wanted. Means telescope, :math:`\ell(\bar f) = E\ell_0 + \sum_{k \ge 1} E[\ell_k -
  \ell_{k-1}]`, and a correction need not be made each time: if a walk goes as far as level
  :math:`k` with probability :math:`q_k`, then

  .. math:: \ell_0 + \sum_{1 \le k \le \text{level reached}} (\ell_k - \ell_{k-1}) / q_k

  has the right mean. Its variance is about :math:`\sum_k V_k / q_k` with :math:`V_k` the
  correction's mean square, its cost :math:`\sum_k q_k c_k` with :math:`c_k` the references that a
  level adds. Their product is least where :math:`q_k \propto \sqrt{V_k / c_k}`; a pilot measures
  :math:`V_k`.

Small groups are drawn evenly spread over the background, in the order of the model's outputs: a
lattice with a random start. A few *loud* references, whose rare outputs would spoil any draw, are
used each time. Source: Giles (2008). Cost: ``mean_cost`` references a walk, each way.

Chapter: importance/loss_shap
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.stats.qmc import Halton

from shaplab._units import unit_near

__all__: list[str] = []

# References of a squared-error estimate.
DRAWS = 4
# References at the smallest telescoping level.
SMALLEST = 8
# Share of its cost that a higher level takes at least, so that no rare correction is divided by a
# vanishing probability.
SPARE = 0.01
# Lattices that stand for the whole background where smaller levels split it.
SHIFTS = 16
# Kurtosis of drawn outputs above which the most extreme references are used in every walk: 3 is
# normal, 6 Laplace's.
KURTOSIS = 6.0


@dataclass(frozen=True)
class Pilot:
    """A few steps over the whole background: targets ``y`` and ``start`` ``(m,)``, and outputs
    ``(m, 2, B, K)`` before and after each step."""

    y: np.ndarray
    start: np.ndarray
    outputs: np.ndarray


class FewReferences:
    """Which references a walk meets, and the unbiased losses that their outputs give.

    Parameters
    ----------
    losses : function of mean outputs ``(m, K)`` and targets ``(m,)``, to ``(m,)``.
    reference_outputs : array ``(B, K)``, outputs of the references themselves.
    pilot : tells which references are loud and how often to go to each level; None where there are
        too few references or players for either to matter.
    is_squared : whether the loss is squared error.
    shares : what each reference ``(B,)`` counts in the mean; None: all alike. Losses other than
        squared error then use all of them in every walk.

    Attributes
    ----------
    loud, order : numbers of the loud references, and of the others in the order of their outputs.
    sizes ``(levels,)`` : references drawn at each level; ``used`` counts the loud ones, too.
    reach ``(levels + 1,)`` : the chance that a walk goes as far as each level, and 0.
    """

    def __init__(
        self,
        losses: Callable[[np.ndarray, np.ndarray], np.ndarray],
        reference_outputs: np.ndarray,
        pilot: Pilot | None,
        is_squared: bool,
        shares: np.ndarray | None = None,
    ) -> None:
        self.losses = losses
        self.shares = shares
        self.n_references = len(reference_outputs)
        self.loud = np.empty(0, dtype=int)
        if pilot is not None:
            self.loud = loud_references(pilot.outputs)
        self.quiet = np.setdiff1d(np.arange(self.n_references), self.loud)
        self.n_quiet = len(self.quiet)
        self.is_squared = is_squared and self.n_quiet > DRAWS
        scaled = reference_outputs / unit_near(reference_outputs)
        liveliest = scaled.var(axis=0).argmax()
        key = reference_outputs[self.quiet, liveliest]
        self.order = self.quiet[key.argsort(kind="stable")]
        self._make_levels()
        self.reach = np.array([1.0, 0.0])
        if pilot is not None and len(self.sizes) > 1:
            self.reach = self._reach(pilot)

    def _make_levels(self) -> None:
        """Set the levels' sizes, and the places of their references between 0 and 1."""
        doublings = int(np.log2(max(self.n_quiet / SMALLEST, 1.0)))
        first = self.n_quiet >> doublings
        # The largest lattice; the background may have a few references more.
        self.lattice = first << doublings
        if self.is_squared:
            self.sizes = [DRAWS]
        elif self.shares is not None:
            self.sizes = [self.n_quiet]
        else:
            self.sizes = [*(first << level for level in range(doublings)), self.n_quiet]
        self.used = np.array(self.sizes) + len(self.loud)
        # Van der Corput's sequence shifts one lattice after another, so that leading blocks are
        # lattices, too.
        shifts = Halton(1, scramble=False).random(2**doublings)
        self.places = ((shifts + np.arange(first)) / first).ravel()

    @property
    def mean_cost(self) -> float:
        """References that a walk uses on average."""
        return float((self.used * -np.diff(self.reach)).sum())

    def level(self, uniform: float) -> int:
        """The level that a walk goes to, from a uniform draw."""
        return int(np.searchsorted(-self.reach, -uniform)) - 1

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Independent references ``(2, DRAWS)`` that are not loud, for both ways of a walk."""
        size = (2, DRAWS)
        if self.shares is None:
            return np.asarray(self.quiet[rng.integers(self.n_quiet, size=size)])
        chances = self.shares[self.quiet]
        return rng.choice(self.quiet, size=size, p=chances / chances.sum())

    def references(self, start: np.ndarray, drawn: np.ndarray, level: int) -> np.ndarray:
        """Numbers ``(w, 2, m)`` of the references of walks, for the way there and the way back;
        the loud ones stand last.

        ``drawn`` ``(w, 2, DRAWS)`` are independent draws, for squared error; ``start`` ``(w,)``
        where lattices begin.
        """
        some = drawn if self.is_squared else self.spread(start, self.sizes[level])
        loud = np.broadcast_to(self.loud, (*some.shape[:2], len(self.loud)))
        return np.concatenate([some, loud], axis=2)

    def spread(self, start: np.ndarray, size: int) -> np.ndarray:
        """References ``(w, 2, size)`` evenly spread over the order of their outputs, as are the
        groups that smaller levels split off.

        Those of the way back lie between those of the way there; where all are used none is drawn.
        """
        if size == self.n_quiet:
            return np.broadcast_to(self.order, (len(start), 2, size))
        half_a_step = 0.5 / size
        start_of_ways = start[:, None] + [0.0, half_a_step]
        return self.order[self._lattice_places(start_of_ways, size)]

    def _lattice_places(self, start: np.ndarray, size: int) -> np.ndarray:
        """Places ``(..., size)`` in ``order``, of equal steps from ``start`` ``(...)`` on."""
        between_0_and_1 = (self.places[:size] + start[..., None]) % 1.0
        return (self.n_quiet * between_0_and_1).astype(int)

    def values(
        self, outputs: np.ndarray, y: np.ndarray, level: int, start: np.ndarray
    ) -> np.ndarray:
        """Unbiased estimates ``(w, c)`` of minus the loss of the mean output, from outputs ``(w, c,
        m, K)`` of the references of this level."""
        if self.is_squared:
            drawn, of_loud = self._split_off_loud(outputs)
            error = y[:, None, None] - (of_loud[:, :, None] + drawn)[..., 0]
            count = error.shape[2]
            products = error.sum(axis=2) ** 2 - (error**2).sum(axis=2)
            return -products / (count * (count - 1))
        by_level = [losses.mean(axis=2) for losses in self.level_losses(outputs, y, level, start)]
        total = 0.0 - by_level[0] / self.reach[0]
        for number, (coarse, fine) in enumerate(pairwise(by_level), start=1):
            total = total - (fine - coarse) / self.reach[number]
        return np.asarray(total)

    def _split_off_loud(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs ``(w, c, m, K)`` of drawn references in their share of the mean, and what the
        loud ones, which stand last, give to it ``(w, c, K)``."""
        drawn = outputs.shape[2] - len(self.loud)
        if self.shares is not None:
            loud = self.shares[self.loud, None]
            of_loud = (outputs[:, :, drawn:] * loud).sum(axis=2)
            # Draws come as often as they count; the whole background comes in its order.
            quiet = self.shares[self.quiet].sum()
            if not self.is_squared:
                quiet = self.shares[self.order, None] * self.n_quiet
            return outputs[:, :, :drawn] * quiet, of_loud
        share = self.n_quiet / self.n_references
        of_loud = outputs[:, :, drawn:].sum(axis=2) / self.n_references
        return outputs[:, :, :drawn] * share, of_loud

    def level_losses(
        self, outputs: np.ndarray, y: np.ndarray, level: int, start: np.ndarray
    ) -> list[np.ndarray]:
        """Losses ``(w, c, groups)`` of the mean outputs of each level's groups, up to this level,
        from outputs ``(w, c, m, K)``."""
        outputs, of_loud = self._split_off_loud(outputs)
        n_walks, n_coalitions, drawn, n_outputs = outputs.shape

        def group_losses(some: np.ndarray, size: int) -> np.ndarray:
            mean = some.reshape(n_walks, n_coalitions, -1, size, n_outputs).mean(axis=3)
            mean = (mean + of_loud[:, :, None]).reshape(-1, n_outputs)
            losses = self.losses(mean, np.repeat(y, len(mean) // n_walks))
            return losses.reshape(n_walks, n_coalitions, -1)

        if drawn < self.n_quiet or level == 0:
            return [group_losses(outputs, size) for size in self.sizes[: level + 1]]
        # A lattice leaves out some rows of the whole background; many shifted ones do so evenly.
        shifts = np.arange(SHIFTS)[:, None] / (SHIFTS * self.lattice) + start
        places = self._lattice_places(shifts, self.lattice)[:, :, None, :, None]
        lattices = [np.take_along_axis(outputs, shifted, axis=2) for shifted in places]
        smaller = []
        for size in self.sizes[:level]:
            parts = [group_losses(lattice, size) for lattice in lattices]
            smaller.append(np.concatenate(parts, axis=2))
        return [*smaller, group_losses(outputs, drawn)]

    def _reach(self, pilot: Pilot) -> np.ndarray:
        """How often walks go as far as each level: in proportion to the root of the correction's
        mean square over its cost, relative to the first level's.

        A walk is made of steps, so what counts is how levels change a step's change of the loss.
        """
        quiet_then_loud = np.concatenate([self.order, self.loud])
        outputs = pilot.outputs[:, :, quiet_then_loud]
        last = len(self.sizes) - 1
        losses = self.level_losses(outputs, pilot.y, last, pilot.start)
        # (m, groups) of each level.
        unit = unit_near(losses[0])
        changes = [(both[:, 1] - both[:, 0]) / unit for both in losses]
        square = [changes[0].var(axis=1, ddof=1).mean()]
        for coarse, fine in pairwise(changes):
            split = coarse.reshape(*fine.shape, -1).mean(axis=2)
            square.append(((fine - split) ** 2).mean())
        added = np.diff(self.used, prepend=0) / self.used[0]
        # Twice the best rate: there the error is flat, below it steep.
        relative = np.array(square) / max(square[0], 1e-300)
        rate = 2 * np.sqrt(relative / added)
        reach = np.clip(rate, SPARE / added, 1.0)
        # A walk that goes far passes all levels before.
        passing = np.maximum.accumulate(reach[:0:-1])[::-1]
        return np.concatenate([[1.0], passing, [0.0]])


def loud_references(outputs: np.ndarray) -> np.ndarray:
    """The references that draws of a few would rarely meet and that matter when they do.

    Of outputs ``(m, 2, B, K)`` of some coalitions: the fewest references without which the others'
    outputs have a kurtosis of at most KURTOSIS. They are used in every walk, so that what is drawn
    has no rare huge values: intervals then hold after tens of walks, not thousands. None for
    ordinary data; all if there is no end of them.
    """
    size = outputs.shape[2]
    table = np.moveaxis(outputs, 2, 0).reshape(size, -1)
    away = table - np.median(table, axis=0)
    scale = np.abs(away).max()
    if scale == 0.0:
        return np.empty(0, dtype=int)
    away = away / scale
    loudest = np.argsort(-(away**2).sum(axis=1), kind="stable")
    sorted_away = away[loudest]
    one = _means_of_rest(sorted_away)
    two = _means_of_rest(sorted_away**2)
    three = _means_of_rest(sorted_away**3)
    four = _means_of_rest(sorted_away**4)
    variance = np.maximum(two - one**2, 0.0)
    fourth = np.maximum(four - 4 * three * one + 6 * two * one**2 - 3 * one**4, 0.0)
    # A difference of large numbers; what is below its rounding is no spread.
    is_flat = variance.sum(axis=1) <= 1e-12
    is_calm = fourth.sum(axis=1) <= KURTOSIS * (variance**2).sum(axis=1)
    enough = np.flatnonzero((is_calm | is_flat)[: size // 2])
    return loudest[: enough[0]] if enough.size else loudest


def _means_of_rest(table: np.ndarray) -> np.ndarray:
    """Means of all rows but the first l, for every l at once."""
    count = np.arange(len(table), 0, -1)[:, None]
    return np.cumsum(table[::-1], axis=0)[::-1] / count
