r"""LossSHAP: how much each feature makes one prediction more accurate.

The game of a row :math:`(x, y)` is minus the loss of the mean prediction,

.. math:: v(S) = -\ell\Bigl(\tfrac1B \sum_b f(x_S, b_{\bar S}),\, y\Bigr),

so positive values lower the loss. It is sampled by antithetic walks. A loss is not linear in the
mean prediction, so a few references in place of all would be biased; two estimates are not. Squared
error: with :math:`m` references drawn independently and :math:`e_i = y - f(x_S, b_i)`,
:math:`[(\sum e)^2 - \sum e^2] / (m (m - 1))`. Any other loss: telescoping, the loss with
:math:`m_0` references plus, with probability :math:`q_l` and divided by it, what the loss changes
when references are doubled, up to the whole background. References are drawn evenly spread over the
background, in the order of the model's outputs, and the way back has others than the way there; a
pilot on a few steps chooses :math:`q_l` (Giles 2008). Source: Covert, Lundberg and Lee (2020);
Covert (2020). Cost of a walk: :math:`8 (d - 1)` model rows for squared error, about
:math:`20 (d - 1)` for smooth losses, whatever the background's size; less where row and reference
agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats.qmc import Halton

from shaplab._gaussian import correlations, regression
from shaplab._losses import check_probabilities, check_target, get_loss
from shaplab._parallel import chunks
from shaplab._validation import as_finite, check_choice, check_result, check_size, fail
from shaplab.explanation import Explanation
from shaplab.foundations._walks import (
    FLOATS,
    TASK_ROWS,
    Run,
    Sampler,
    Tables,
    Tally,
    check_stop,
    visit_generator,
    walk_steps,
)

__all__ = ["loss_shap", "loss_shap_literal"]

# References of a squared-error walk, each way; smallest telescoping level; share of its cost that a
# higher level takes at least, so that no rare correction is divided by a vanishing probability;
# lattices at the last level.
DRAWS, SMALLEST, SPARE, SHIFTS = 4, 8, 0.01, 16
# Kurtosis of drawn outputs above which the most extreme references are used in every walk: 3 is
# normal, 6 Laplace's.
KURTOSIS = 6.0
# Walks of a LossSHAP visit: one walk says little about a row.
WALKS = 16


def loss_shap_literal(
    model: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    y: float,
    background: np.ndarray,
    samples: int,
    loss: Any,
    rng: np.random.Generator,
) -> np.ndarray:
    """LossSHAP values ``(d,)`` of one row by sampled orderings, the whole background for every
    prediction."""
    ell = get_loss(loss).value
    d = len(x)
    phi = np.zeros(d)
    for _ in range(samples):
        hybrid = background.copy()
        before = ell(model(hybrid).mean(axis=0)[None], np.array([y]))[0]
        for i in rng.permutation(d):
            hybrid[:, i] = x[i]
            after = ell(model(hybrid).mean(axis=0)[None], np.array([y]))[0]
            phi[i] += before - after
            before = after
    return phi / samples


class LossWalks(Sampler):
    """Antithetic walks over the loss game of single rows; a visit averages ``walks`` of them."""

    def __init__(
        self, tables: Tables, y: Any, loss: Any, removal: str, walks: int, weights: Any = None
    ) -> None:
        self.tables, self.walks = tables, walks
        self.weight = row_weights(weights, tables.n)
        t, p = tables, tables.p
        self.loss = get_loss(loss)
        self.squared = self.loss.name == "squared_error"
        self.y = check_target(y, t.n, self.loss, t.K if t.K > 1 else None)
        for outputs in (t.fx, t.fb):
            check_probabilities(outputs, self.loss, classes=t.K > 1)
        self.gaussian: Any = None
        if check_choice(removal, "removal", ("marginal", "conditional")) == "conditional":
            self.gaussian = _gaussian(t)
        pilot = self._pilot() if walks and p > 1 and t.size > DRAWS else None
        self.loud = np.empty(0, dtype=int) if pilot is None else loud_references(pilot.outputs)
        self.quiet = np.setdiff1d(np.arange(t.size), self.loud)
        self.pool = len(self.quiet)
        self.squared = self.squared and self.pool > DRAWS
        doublings = int(np.log2(max(self.pool / SMALLEST, 1.0)))
        first = self.pool >> doublings
        self.lattice = first << doublings
        self.sizes = (
            [DRAWS] if self.squared else [*(first << k for k in range(doublings)), self.pool]
        )
        key = t.fb[self.quiet, t.fb.var(axis=0).argmax()]
        self.order = self.quiet[key.argsort(kind="stable")]
        # Van der Corput's sequence shifts one lattice after another, so that leading blocks are
        # lattices, too.
        shifts = Halton(1, scramble=False).random(2**doublings)
        self.places = ((shifts + np.arange(first)) / first).ravel()
        nobody = np.broadcast_to(t.fb.mean(axis=0), t.fx.shape)
        self.empty = -self.losses(nobody, self.y) * self.weight
        self.full = -self.losses(t.fx, self.y) * self.weight
        self.reach = np.array([1.0, 0.0])
        if pilot is not None and len(self.sizes) > 1:
            self.reach = self._levels(pilot)
        self.shape = (t.n, p, 1)
        most = max(16, min(256, int(np.sqrt(FLOATS / p))))
        own, other = (np.linspace(0, n - 1, min(n, most), dtype=int) for n in (t.n, t.size))
        steps = float(p - 1)
        if self.gaussian is None:
            moves = t.differs(own[:, None], other[None]).sum(axis=2)
            steps = float(np.maximum(moves - 1, 0).mean())
        used = np.array(self.sizes) + len(self.loud)
        self.cost = 2 * steps * walks * float((used * -np.diff(self.reach)).sum())
        self.scale = float(max(np.abs(self.empty).max(), np.abs(self.full).max()))
        self.least = 8
        self.mark = {
            "method": "loss walks",
            "loss": self.loss.name,
            "removal": removal,
            "walks": walks,
            "players": t.label.tolist(),
            "y": self.y.tolist(),
            "weights": self.weight.tolist(),
        }

    def worth(self, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Minus the losses ``(m, 1)`` of the mean predictions of coalitions ``(m, p)`` of rows."""
        t = self.tables
        if self.gaussian is None:
            mean = t.means(present, rows)
        else:
            every = np.arange(t.size)
            mean = np.empty((len(rows), t.K))
            for s in chunks(len(rows), t.batch_size // t.size):
                b = np.broadcast_to(every, (len(rows[s]), t.size))
                found = self._conditional(present[s], rows[s], b)
                mean[s] = found.reshape(len(rows[s]), t.size, t.K).mean(axis=1)
        return (-self.losses(mean, self.y[rows]) * self.weight[rows])[:, None]

    def losses(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Losses ``(m,)`` of mean outputs ``(m, K)`` for targets ``(m,)``."""
        found = np.asarray(
            self.loss.value(outputs if self.tables.K > 1 else outputs[:, 0], y), dtype=np.float64
        )
        if found.shape != y.shape or not np.isfinite(found).all():
            got = f"shape {found.shape}" if found.shape != y.shape else "NaN or infinity"
            fail(
                "loss",
                f"a finite loss for each of {len(y)} rows",
                got,
                "Return one number for each row, (n,)",
            )
        return found

    def visit(
        self, rows: np.ndarray, visits: np.ndarray, entropy: list[int]
    ) -> tuple[np.ndarray, int]:
        t, p = self.tables, self.tables.p
        walk = (visits[:, None] * self.walks + np.arange(self.walks)).ravel()
        row = np.repeat(rows, self.walks)
        rank, level, start = (
            np.empty((len(row), p), dtype=int),
            np.empty(len(row), dtype=int),
            np.empty(len(row)),
        )
        drawn = np.empty((len(row), 2, DRAWS), dtype=int)
        for k, (i, number) in enumerate(zip(row, walk, strict=True)):
            rng = visit_generator(entropy, int(i), int(number))
            rank[k] = rng.permutation(p)
            level[k] = np.searchsorted(-self.reach, -rng.random()) - 1
            start[k] = rng.random()
            drawn[k] = self.quiet[rng.integers(self.pool, size=(2, DRAWS))]
        deltas, evaluations = np.empty((len(row), p, 1)), 0
        for depth in np.unique(level):
            chosen = np.flatnonzero(level == depth)
            width = self.sizes[depth] + len(self.loud)
            for s in chunks(len(chosen), t.batch_size // max(1, 2 * (p - 1) * width)):
                part = chosen[s]
                b = drawn[part] if self.squared else self._spread(start[part], self.sizes[depth])
                deltas[part, :, 0], cost = self._deltas(
                    rank[part], row[part], b, int(depth), start[part]
                )
                evaluations += cost
        mean = deltas.reshape(len(rows), self.walks, p, 1).mean(axis=1)
        return mean * self.weight[rows][:, None, None], evaluations

    def _spread(self, start: np.ndarray, size: int) -> np.ndarray:
        """References evenly spread over the order of their outputs, as are the groups that smaller
        levels split off.

        Of ``(w, 2, size)`` the second ones, for the way back, lie between the first; where all are
        used none is drawn.
        """
        if size == self.pool:
            return np.broadcast_to(self.order, (len(start), 2, size))
        return self.order[self._places(start[:, None] + [0.0, 0.5 / size], size)]

    def _places(self, start: np.ndarray, size: int) -> np.ndarray:
        """Places ``(..., size)`` of equal steps from ``start`` ``(...)`` on."""
        return (self.pool * ((self.places[:size] + start[..., None]) % 1.0)).astype(int)

    def _pilot(self) -> Pilot:
        """Steps of a few rows over the whole background, with random numbers of their own.

        They see every reference, which walks do not, and so tell what drawing may miss.
        """
        t, n, rng = self.tables, self.tables.size, np.random.default_rng(0)
        m = int(np.clip(TASK_ROWS // (2 * n), 2 if self.squared else 4, 16))
        i, start, half = rng.integers(t.n, size=m), rng.random(m), (m + 1) // 2
        rank = rng.permuted(np.tile(np.arange(t.p), (half, 1)), axis=1)
        k = rng.integers(t.p, size=half)
        # The complements of these steps go along, so that every feature is absent somewhere.
        rank = np.concatenate([rank, t.p - 1 - rank])[:m]
        k = np.concatenate([k, t.p - 1 - k])[:m]
        present = (rank[:, None] < k[:, None, None] + np.array([[0], [1]])).reshape(-1, t.p)
        own, every = np.repeat(i, 2), np.arange(n)
        if self.gaussian is not None:
            found = self._conditional(present, own, np.broadcast_to(every, (2 * m, n)))
        else:
            found = t.outputs(present.repeat(n, axis=0), own.repeat(n), np.tile(every, 2 * m))
        t.evaluations += len(found)
        return Pilot(i, start, found.reshape(m, 2, n, t.K))

    def _levels(self, pilot: Pilot) -> np.ndarray:
        """How often walks go as far as each level: in proportion to its root mean square over the
        root of its cost, both measured on the pilot."""
        i, start = pilot.rows, pilot.start
        found = pilot.outputs[:, :, np.concatenate([self.order, self.loud])]
        steps = [
            np.diff(loss, axis=1)[:, 0]
            for loss in self._by_level(found, self.y[i], len(self.sizes) - 1, start)
        ]
        square = [steps[0].var(axis=1, ddof=1).mean()]
        square += [
            ((fine - coarse.reshape(len(i), fine.shape[1], -1).mean(axis=2)) ** 2).mean()
            for coarse, fine in pairwise(steps)
        ]
        used = np.array(self.sizes) + len(self.loud)
        more = np.diff(used, prepend=0) / used[0]
        # Twice the best rate: there the error is flat, below it steep.
        reach = np.clip(
            2 * np.sqrt(np.array(square) / max(square[0], 1e-300) / more), SPARE / more, 1.0
        )
        # A walk that goes far passes all levels before.
        return np.concatenate([[1.0], np.maximum.accumulate(reach[:0:-1])[::-1], [0.0]])

    def _deltas(
        self, rank: np.ndarray, i: np.ndarray, b: np.ndarray, depth: int, start: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Contributions ``(w, p)`` of walks with references ``b`` ``(w, 2, m)`` beside the loud
        ones, and what they cost."""
        t, (w, p) = self.tables, rank.shape
        loud = np.broadcast_to(self.loud, (w, 2, len(self.loud)))
        b = np.concatenate([b, loud], axis=2)
        if self.gaussian is None:
            adding, removing, cost = t.both_ways(rank, i, b)
        else:
            present = (rank[:, None, :] < np.arange(1, p)[:, None]).reshape(-1, p)
            references = np.repeat(b.swapaxes(0, 1), p - 1, axis=1).reshape(-1, b.shape[2])
            found = self._conditional(
                np.concatenate([present, ~present]), np.tile(np.repeat(i, p - 1), 2), references
            )
            parts, cost = found.reshape(2, w, p - 1, b.shape[2], t.K), len(found)
            low = t.fb[b][:, :, None]
            high = np.broadcast_to(t.fx[i][:, None, None], low[:, 0].shape)
            adding = np.concatenate([low[:, 0], parts[0], high], axis=1)
            removing = np.concatenate([high, parts[1], low[:, 1]], axis=1)
        adding, removing = (
            self._values(part, self.y[i], depth, start)[..., None] for part in (adding, removing)
        )
        return walk_steps(adding, removing, rank)[..., 0], cost

    def _values(
        self, outputs: np.ndarray, y: np.ndarray, depth: int, start: np.ndarray
    ) -> np.ndarray:
        """Unbiased values ``(w, c)`` of the game from outputs ``(w, c, m, K)``."""
        if self.squared:
            part, rest = self._apart(outputs)
            e = y[:, None, None] - (rest[:, :, None] + part)[..., 0]
            m = e.shape[2]
            return -(e.sum(axis=2) ** 2 - (e**2).sum(axis=2)) / (m * (m - 1))
        mean = [loss.mean(axis=2) for loss in self._by_level(outputs, y, depth, start)]
        parts = [
            -(fine - coarse) / self.reach[k]
            for k, (coarse, fine) in enumerate(pairwise([0.0 * mean[0], *mean]))
        ]
        return np.asarray(sum(parts))

    def _apart(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs ``(w, c, m, K)`` of drawn references in their share of the mean, and what the
        loud ones, which stand last, give to it ``(w, c, K)``."""
        size, m = self.tables.size, outputs.shape[2] - len(self.loud)
        return outputs[:, :, :m] * (self.pool / size), outputs[:, :, m:].sum(axis=2) / size

    def _by_level(
        self, outputs: np.ndarray, y: np.ndarray, depth: int, start: np.ndarray
    ) -> list[np.ndarray]:
        """Losses ``(w, c, groups)`` of the mean outputs of each level's groups, from outputs ``(w,
        c, m, K)``."""
        outputs, rest = self._apart(outputs)
        w, c, m, K = outputs.shape

        def of(part: np.ndarray, size: int) -> np.ndarray:
            mean = part.reshape(w, c, -1, size, K).mean(axis=3) + rest[:, :, None]
            mean = mean.reshape(-1, K)
            return self.losses(mean, np.repeat(y, len(mean) // w)).reshape(w, c, -1)

        if m < self.pool or depth == 0:
            return [of(outputs, size) for size in self.sizes[: depth + 1]]
        # A lattice leaves out some rows of the whole background; many shifted ones do so evenly.
        shifts = np.arange(SHIFTS)[:, None] / (SHIFTS * self.lattice) + start
        places = self._places(shifts, self.lattice)[:, :, None, :, None]
        lattices = (np.take_along_axis(outputs, at, axis=2) for at in places)
        levels = zip(
            *([of(part, size) for size in self.sizes[:depth]] for part in lattices), strict=True
        )
        return [*(np.concatenate(same, axis=2) for same in levels), of(outputs, m)]

    def _conditional(self, present: np.ndarray, i: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Outputs when absent features follow the present ones: references move along the Gaussian
        regression."""
        t, parts = self.tables, []
        spread, correlation = self.gaussian
        x, z = t.rows._X.astype(np.float64), t.rows._background.astype(np.float64)
        for s in chunks(len(present), t.batch_size // max(b.shape[1], t.rows.d)):
            S = present[s][:, t.player]
            reference, own = z[b[s]], x[i[s]][:, None]
            step = (own - reference) / spread * S[:, None]
            moved = reference + step @ regression(correlation, S) * spread
            table = np.where(S[:, None], own, moved).reshape(-1, t.rows.d)
            parts.append(
                np.concatenate(
                    [
                        t.rows.predict(table[r]).reshape(-1, t.K)
                        for r in chunks(len(table), t.batch_size)
                    ]
                )
            )
        return np.concatenate(parts) if parts else np.empty((0, t.K))

    def summary(self, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """Row values that add up: the residual is shared out by regression on it, over all rows'
        visits."""
        count = np.maximum(tally.count, 1)[:, None]
        freedom = np.maximum(count - 1, 1)
        m2, cross = tally.m2[..., 0], tally.cross[..., 0]
        visits = int(np.maximum(tally.count - 1, 0).sum())
        share, correction = shares(cross.sum(axis=0), m2.sum(axis=0), visits, self.scale)
        residual = (self.full - self.empty) - tally.mean[..., 0].sum(axis=1)
        values = tally.mean[..., 0] + share * residual[:, None]
        own = np.maximum(m2 - 2 * share * cross + share**2 * cross.sum(axis=1, keepdims=True), 0.0)
        return values[..., None], np.sqrt(own * correction / freedom / count)[..., None]


@dataclass(frozen=True)
class Pilot:
    """A few steps over the whole background: ``rows`` and ``start`` ``(m,)``, and outputs ``(m, 2,
    B, K)`` before and after each step."""

    rows: np.ndarray
    start: np.ndarray
    outputs: np.ndarray


def row_weights(weights: Any, n: int) -> np.ndarray:
    """How much each of ``n`` rows counts in a mean, with mean 1."""
    if weights is None:
        return np.ones(n)
    found = as_finite(weights, "weights", (n,), "Give one weight for each row of X")
    if (found < 0).any() or not found.sum() > 0:
        fail("weights", "weights of at least 0, some above", found, "Drop rows that do not count")
    return found / found.mean()


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
    # Sums over all but the loudest l references, for every l at once.
    power = [np.cumsum(away[loudest[::-1]] ** k, axis=0)[::-1] for k in (1, 2, 3, 4)]
    count = np.arange(size, 0, -1)[:, None]
    one, two, three, four = (part / count for part in power)
    variance = np.maximum(two - one**2, 0.0)
    fourth = np.maximum(four - 4 * three * one + 6 * two * one**2 - 3 * one**4, 0.0)
    # A difference of large numbers; what is below its rounding is no spread.
    flat = variance.sum(axis=1) <= 1e-12
    calm = (fourth.sum(axis=1) <= KURTOSIS * (variance**2).sum(axis=1)) | flat
    quiet = np.flatnonzero(calm[: size // 2])
    return loudest[: quiet[0]] if quiet.size else loudest


def shares(
    cross: np.ndarray, m2: np.ndarray, freedom: int, scale: float
) -> tuple[np.ndarray, float]:
    """Each player's share ``(p,)`` of the residual, its regression on the sum, and the variance's
    correction.

    Estimates are noisy, and so is their sum, whose true value is known. Regressing on the sum makes
    the total exact, lowers every variance, leaves null players at zero, and is free of bias but for
    the estimated coefficients.
    """
    total = cross.sum()
    # Sums that differ by rounding only carry no information: every visit had the whole background,
    # or stopped at the first level. Variances share out what little may be left.
    if total <= (1e-10 * scale) ** 2 * max(freedom, 1):
        return m2 / max(m2.sum(), 1e-300), 1.0
    return cross / total, freedom / max(freedom - 1.0, 1.0)


def _gaussian(t: Tables) -> tuple[np.ndarray, np.ndarray]:
    if t.rows._frame is not None:
        fail(
            "removal",
            '"marginal" for DataFrames',
            '"conditional"',
            "Pass numeric arrays to remove conditionally",
        )
    z = t.rows._background.astype(np.float64)
    if len(z) < 2 or not (np.isfinite(z).all() and np.isfinite(t.rows._X).all()):
        fail(
            "background",
            "at least 2 rows, and finite numbers in both tables, to fit a Gaussian",
            f"{len(z)} rows" if len(z) < 2 else "NaN or infinity",
            'Impute, or use removal="marginal"',
        )
    check_size(
        (z.shape[1], z.shape[1]), "X", 'Drop columns, or use removal="marginal" (no covariance)'
    )
    return correlations(z)


def loss_shap(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    *,
    loss: Any = "mse",
    removal: str = "marginal",
    groups: Any = None,
    rounds: int | None = None,
    thresh: float = 0.02,
    max_evaluations: int | None = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 16384,
    progress: bool = False,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    state: Any = None,
    feature_names: Any = None,
) -> Explanation:
    """LossSHAP values of rows: how much each feature lowers each row's loss, with standard errors.

    Parameters
    ----------
    model, X, background, groups, rounds, thresh, max_evaluations, rng, n_jobs, batch_size,
    progress, callback, state, feature_names : as in
        :func:`shaplab.foundations.permutation.permutation_shap`; a round is 16 walks for each row.
    y, loss, removal : as in :func:`shaplab.importance.sage.sage`.

    Returns
    -------
    Explanation with ``values`` and ``std`` ``(N, d)``, in the loss's unit; positive values lower
        the loss. ``base_values`` are minus the losses of the mean prediction.

    Notes
    -----
    Estimates minus the loss of the mean prediction (``LossOfMean``) of the marginal game over the
    whole background; values add up exactly. Their mean over rows is SAGE.

    References
    ----------
    Lundberg et al. (2020), Section 2.7.4; Covert (2020).
    """
    goal, thresh, budget = check_stop(rounds, thresh, max_evaluations)
    tables = Tables(model, X, background, groups, batch_size, feature_names)
    sampler = LossWalks(tables, y, loss, removal, WALKS)
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
        how = f"{removal} removal" + (", enumerated" if tally.exact.all() else "")
        return Explanation(
            values=tables.expand(values[..., 0]),
            std=tables.expand(std[..., 0]),
            base_values=sampler.empty,
            data=tables.data,
            feature_names=None if tables.names is None else tuple(tables.names),
            method=f"loss_shap ({sampler.loss.name} of the mean prediction, {how})",
            info=info | {"rounds": np.where(tally.exact, 0, tally.count)},
        )

    return run(result)
