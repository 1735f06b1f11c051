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

Needs: shaplab._parallel, shaplab._rows, shaplab._losses, shaplab._validation, shaplab.explanation,
shaplab.foundations.games, shaplab.foundations._walks.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats.qmc import Halton

from shaplab._losses import check_target, get_loss
from shaplab._parallel import chunks
from shaplab._validation import check_choice, fail
from shaplab.explanation import Explanation
from shaplab.foundations._walks import (
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

    def __init__(self, tables: Tables, y: Any, loss: Any, removal: str, walks: int) -> None:
        self.tables, self.walks = tables, walks
        t, p = tables, tables.p
        self.loss = get_loss(loss)
        self.squared = self.loss.name == "squared_error"
        self.y = check_target(y, t.n, self.loss, t.K if t.K > 1 else None)
        whole = t.fx.sum(axis=1) if t.K > 1 else np.ones(1)
        if self.loss.name == "cross_entropy" and (
            t.fx.min() < 0.0 or t.fx.max() > 1.0 + 1e-6 or np.abs(whole - 1.0).max() > 1e-3
        ):
            fail(
                "model",
                "probabilities from 0 to 1 that sum to 1 over classes for cross entropy",
                f"outputs from {t.fx.min():g} to {t.fx.max():g} with sums from {whole.min():g} to "
                f"{whole.max():g}",
                'Pass predict_proba, or use loss="logistic" or "softmax_cross_entropy" for margins',
            )
        self.covariance = None
        if check_choice(removal, "removal", ("marginal", "conditional")) == "conditional":
            self.covariance = _covariance(t)
        self.squared = self.squared and t.size > DRAWS
        doublings = int(np.log2(max(t.size / SMALLEST, 1.0)))
        first, self.lattice = t.size >> doublings, (t.size >> doublings) << doublings
        self.sizes = [DRAWS] if self.squared else [*(first << k for k in range(doublings)), t.size]
        self.order = t.fb[:, t.fb.var(axis=0).argmax()].argsort(kind="stable")
        # Van der Corput's sequence shifts one lattice after another, so that leading blocks are
        # lattices, too.
        shifts = Halton(1, scramble=False).random(2**doublings)
        self.places = ((shifts + np.arange(first)) / first).ravel()
        self.empty = -self.losses(np.broadcast_to(t.fb.mean(axis=0), t.fx.shape), self.y)
        self.full = -self.losses(t.fx, self.y)
        self.reach = (
            np.array([1.0, 0.0]) if len(self.sizes) == 1 or not walks or p == 1 else self._levels()
        )
        self.shape = (t.n, p, 1)
        own, other = (np.linspace(0, n - 1, min(n, 256), dtype=int) for n in (t.n, t.size))
        steps = (
            p - 1
            if self.covariance is not None
            else np.maximum(t.differs(own[:, None], other[None]).sum(axis=2) - 1, 0).mean()
        )
        self.cost = 2 * steps * walks * float((np.array(self.sizes) * -np.diff(self.reach)).sum())
        self.scale = float(max(np.abs(self.empty).max(), np.abs(self.full).max()))
        self.least = 8
        self.mark = {
            "method": "loss walks",
            "loss": self.loss.name,
            "removal": removal,
            "walks": walks,
            "membership": t.membership.astype(int).tolist(),
            "y": self.y.tolist(),
        }

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
            drawn[k] = rng.integers(t.size, size=(2, DRAWS))
        deltas, evaluations = np.empty((len(row), p, 1)), 0
        for depth in np.unique(level):
            chosen = np.flatnonzero(level == depth)
            for s in chunks(len(chosen), t.batch_size // max(1, 2 * (p - 1) * self.sizes[depth])):
                part = chosen[s]
                b = drawn[part] if self.squared else self._spread(start[part], self.sizes[depth])
                deltas[part, :, 0], cost = self._deltas(
                    rank[part], row[part], b, int(depth), start[part]
                )
                evaluations += cost
        return deltas.reshape(len(rows), self.walks, p, 1).mean(axis=1), evaluations

    def _spread(self, start: np.ndarray, size: int) -> np.ndarray:
        """References evenly spread over the order of their outputs, as are the groups that smaller
        levels split off.

        Of ``(w, 2, size)`` the second ones, for the way back, lie between the first; a whole
        background is not drawn.
        """
        if size == self.tables.size:
            return np.broadcast_to(self.order, (len(start), 2, size))
        return self.order[self._places(start[:, None] + [0.0, 0.5 / size], size)]

    def _places(self, start: np.ndarray, size: int) -> np.ndarray:
        """Places ``(..., size)`` of equal steps from ``start`` ``(...)`` on."""
        return (self.tables.size * ((self.places[:size] + start[..., None]) % 1.0)).astype(int)

    def _levels(self) -> np.ndarray:
        """How often walks go as far as each level: in proportion to its root mean square over the
        root of its cost.

        Both are measured on steps of a few rows over the whole background, with random numbers of
        their own.
        """
        t, n, rng = self.tables, self.tables.size, np.random.default_rng(0)
        m = int(np.clip(TASK_ROWS // (2 * n), 4, 16))
        i, rank = rng.integers(t.n, size=m), rng.permuted(np.tile(np.arange(t.p), (m, 1)), axis=1)
        k, start = rng.integers(t.p, size=m), rng.random(m)
        present, own = (
            (rank[:, None] < k[:, None, None] + np.array([[0], [1]])).reshape(-1, t.p),
            np.repeat(i, 2),
        )
        b = np.broadcast_to(self.order, (2 * m, n))
        found = (
            self._conditional(present, own, b)
            if self.covariance is not None
            else t.outputs(present.repeat(n, axis=0), own.repeat(n), b.ravel())
        )
        t.evaluations += len(found)
        steps = [
            np.diff(loss, axis=1)[:, 0]
            for loss in self._by_level(
                found.reshape(m, 2, n, t.K), self.y[i], len(self.sizes) - 1, start
            )
        ]
        square = [steps[0].var(axis=1, ddof=1).mean()]
        square += [
            ((fine - coarse.reshape(m, fine.shape[1], -1).mean(axis=2)) ** 2).mean()
            for coarse, fine in pairwise(steps)
        ]
        more = np.diff(self.sizes, prepend=0) / self.sizes[0]
        # Twice the best rate: there the error is flat, below it steep.
        reach = np.clip(
            2 * np.sqrt(np.array(square) / max(square[0], 1e-300) / more), SPARE / more, 1.0
        )
        # A walk that goes far passes all levels before.
        return np.concatenate([[1.0], np.maximum.accumulate(reach[:0:-1])[::-1], [0.0]])

    def _deltas(
        self, rank: np.ndarray, i: np.ndarray, b: np.ndarray, depth: int, start: np.ndarray
    ) -> tuple[np.ndarray, int]:
        """Contributions ``(w, p)`` of walks with references ``b`` ``(w, 2, m)``, and what they
        cost."""
        t, (w, p) = self.tables, rank.shape
        if self.covariance is None:
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
            m = outputs.shape[2]
            e = y[:, None, None] - outputs[..., 0]
            return -(e.sum(axis=2) ** 2 - (e**2).sum(axis=2)) / (m * (m - 1))
        mean = [loss.mean(axis=2) for loss in self._by_level(outputs, y, depth, start)]
        parts = [
            -(fine - coarse) / self.reach[k]
            for k, (coarse, fine) in enumerate(pairwise([0.0 * mean[0], *mean]))
        ]
        return np.asarray(sum(parts))

    def _by_level(
        self, outputs: np.ndarray, y: np.ndarray, depth: int, start: np.ndarray
    ) -> list[np.ndarray]:
        """Losses ``(w, c, groups)`` of the mean outputs of each level's groups, from outputs ``(w,
        c, m, K)``."""
        w, c, m, K = outputs.shape

        def of(part: np.ndarray, size: int) -> np.ndarray:
            mean = part.reshape(-1, size, K).mean(axis=1)
            return self.losses(mean, np.repeat(y, len(mean) // w)).reshape(w, c, -1)

        if m < self.tables.size or depth == 0:
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
        x, z = t.rows._X.astype(np.float64), t.rows._background.astype(np.float64)
        for s in chunks(len(present), t.batch_size // max(b.shape[1], t.rows.d)):
            S = present[s][:, t.player]
            masked = self.covariance * S[:, :, None] * S[:, None, :]
            regression = np.linalg.pinv(masked, rcond=1e-10, hermitian=True) @ self.covariance
            reference, own = z[b[s]], x[i[s]][:, None]
            moved = reference + ((own - reference) * S[:, None]) @ regression
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


def _covariance(t: Tables) -> np.ndarray:
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
    return np.cov(z, rowvar=False).reshape(t.rows.d, t.rows.d)


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
) -> Explanation:
    """LossSHAP values of rows: how much each feature lowers each row's loss, with standard errors.

    Parameters
    ----------
    model, X, background, groups, rounds, thresh, max_evaluations, rng, n_jobs, batch_size,
    progress, callback, \
state : as in :func:`shaplab.foundations.permutation.permutation_shap`; a round is 16 walks for each
row.
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
    tables = Tables(model, X, background, groups, batch_size)
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
        return Explanation(
            values=values[..., 0],
            std=std[..., 0],
            base_values=sampler.empty,
            data=tables.data,
            feature_names=tables.names,
            method=f"loss_shap ({sampler.loss.name} of the mean prediction, {removal} removal)",
            info=info | {"rounds": tally.count.copy()},
        )

    return run(result)
