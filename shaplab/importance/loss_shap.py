r"""LossSHAP: how much each feature makes one prediction more accurate.

The game of a row :math:`(x, y)` is minus the loss of the mean prediction,

.. math:: v(S) = -\ell\Bigl(\tfrac1B \sum_b f(x_S, b_{\bar S}),\, y\Bigr),

so positive values lower the loss. It is sampled by antithetic walks. A loss is not linear in the mean prediction,
so a few references in place of all would be biased; two estimates are not. Squared error: with :math:`m`
references drawn independently and :math:`e_i = y - f(x_S, b_i)`,
:math:`[(\sum e)^2 - \sum e^2] / (m (m - 1))`. Any other loss: telescoping, the loss with :math:`m_0` references
plus, with probability :math:`q_l` and divided by it, what the loss changes when references are doubled, up to the
whole background. They are drawn evenly spread over the background, in the order of the model's outputs. Source:
Covert, Lundberg and Lee (2020); Covert (2020). Cost of a walk: :math:`8 (d - 1)` model rows for squared error, about
:math:`33 (d - 1)` for others, whatever the size of the background; less where features of row and reference agree.

Needs: shaplab._parallel, shaplab._rows, shaplab._losses, shaplab._validation, shaplab.explanation,
shaplab.foundations.games, shaplab.foundations._walks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats.qmc import Halton

from shaplab._losses import check_target, get_loss
from shaplab._parallel import chunks
from shaplab._validation import check_choice, fail
from shaplab.explanation import Explanation
from shaplab.foundations._walks import Run, Sampler, Tables, Tally, check_stop, visit_generator, walk_steps

__all__ = ["loss_shap", "loss_shap_literal"]

# References of a squared-error walk; smallest telescoping level; decay of the levels' probabilities, between the
# variance's 4^-l and the cost's 2^l. Every second walk goes beyond the smallest, or errors would have heavy tails.
DRAWS, SMALLEST, DECAY = 4, 8, 1.75
# Walks of a LossSHAP visit: one walk says little about a row.
WALKS = 16


def loss_shap_literal(model: Callable[[np.ndarray], np.ndarray], x: np.ndarray, y: float, background: np.ndarray,
                      samples: int, loss: Any, rng: np.random.Generator) -> np.ndarray:
    """LossSHAP values ``(d,)`` of one row by sampled orderings, the whole background for every prediction."""
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
        if self.loss.name == "cross_entropy" and (t.fx.min() < 0.0 or t.fx.max() > 1.0 + 1e-6):
            fail("model", "probabilities from 0 to 1 for cross entropy",
                 f"outputs from {t.fx.min():g} to {t.fx.max():g}",
                 'Pass predict_proba, or use loss="logistic" or "softmax_cross_entropy" for margins')
        self.covariance = None
        if check_choice(removal, "removal", ("marginal", "conditional")) == "conditional":
            self.covariance = _covariance(t)
        self.squared = self.squared and t.size > DRAWS
        doublings = int(np.log2(max(t.size / SMALLEST, 1.0)))
        first, self.lattice = t.size >> doublings, (t.size >> doublings) << doublings
        self.sizes = [DRAWS] if self.squared else [*(first << k for k in range(doublings)), t.size]
        self.reach = np.concatenate([[1.0], 0.5 * 2.0 ** (-DECAY * np.arange(len(self.sizes)))])
        self.reach[-1] = 0.0
        self.order = t.fb[:, t.fb.var(axis=0).argmax()].argsort(kind="stable")
        # Van der Corput's sequence shifts one lattice after another, so that leading blocks are lattices, too.
        shifts = Halton(1, scramble=False).random(2**doublings)
        self.places = ((shifts + np.arange(first)) / first).ravel()
        self.empty = -self.losses(np.broadcast_to(t.fb.mean(axis=0), t.fx.shape), self.y)
        self.full = -self.losses(t.fx, self.y)
        self.shape = (t.n, p, 1)
        own, other = (np.linspace(0, n - 1, min(n, 256), dtype=int) for n in (t.n, t.size))
        steps = p - 1 if self.covariance is not None else np.maximum(
            t.differs(own[:, None], other[None]).sum(axis=2) - 1, 0).mean()
        self.cost = 2 * steps * walks * float((np.array(self.sizes) * -np.diff(self.reach)).sum())
        self.scale = float(max(np.abs(self.empty).max(), np.abs(self.full).max()))
        self.least = 8
        self.mark = {"method": "loss walks", "loss": self.loss.name, "removal": removal, "walks": walks,
                     "membership": t.membership.astype(int).tolist(), "y": self.y.tolist()}

    def losses(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Losses ``(m,)`` of mean outputs ``(m, K)`` for targets ``(m,)``."""
        found = np.asarray(self.loss.value(outputs if self.tables.K > 1 else outputs[:, 0], y), dtype=np.float64)
        if found.shape != y.shape or not np.isfinite(found).all():
            got = f"shape {found.shape}" if found.shape != y.shape else "NaN or infinity"
            fail("loss", f"a finite loss for each of {len(y)} rows", got, "Return one number for each row, (n,)")
        return found

    def visit(self, rows: np.ndarray, visits: np.ndarray, entropy: list[int]) -> tuple[np.ndarray, int]:
        t, p = self.tables, self.tables.p
        walk = (visits[:, None] * self.walks + np.arange(self.walks)).ravel()
        row = np.repeat(rows, self.walks)
        rank, level, references = np.empty((len(row), p), dtype=int), np.empty(len(row), dtype=int), []
        for k, (i, number) in enumerate(zip(row, walk, strict=True)):
            rng = visit_generator(entropy, int(i), int(number))
            rank[k] = rng.permutation(p)
            level[k] = np.searchsorted(-self.reach, -rng.random()) - 1
            size = self.sizes[level[k]]
            references.append(rng.integers(t.size, size=size) if self.squared else self._spread(rng, size))
        deltas, evaluations = np.empty((len(row), p, 1)), 0
        for depth in np.unique(level):
            chosen = np.flatnonzero(level == depth)
            size = self.sizes[depth]
            for s in chunks(len(chosen), t.batch_size // max(1, 2 * (p - 1) * size)):
                part = chosen[s]
                b = np.stack([references[k] for k in part])
                deltas[part, :, 0], cost = self._deltas(rank[part], row[part], b, int(depth))
                evaluations += cost
        return deltas.reshape(len(rows), self.walks, p, 1).mean(axis=1), evaluations

    def _spread(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """References evenly spread over the order of their outputs, as are the groups that smaller levels split off."""
        n = self.tables.size
        drawn = self.order[(n * ((self.places[:min(size, self.lattice)] + rng.random()) % 1.0)).astype(int)]
        return drawn if size < n else np.concatenate([drawn, np.setdiff1d(np.arange(n), drawn)])[:n]

    def _deltas(self, rank: np.ndarray, i: np.ndarray, b: np.ndarray, depth: int) -> tuple[np.ndarray, int]:
        """Contributions ``(w, p)`` of walks with references ``b`` ``(w, m)``, and what they cost."""
        t, (w, p) = self.tables, rank.shape
        if self.covariance is None:
            adding, removing, cost = t.along(rank, i, b)
        else:
            present = (rank[:, None, :] < np.arange(1, p)[:, None]).reshape(-1, p)
            both = np.concatenate([present, ~present])
            rows, references = np.repeat(i, p - 1), np.repeat(b, p - 1, axis=0)
            found = self._conditional(both, np.tile(rows, 2), np.tile(references, (2, 1)))
            parts, cost = found.reshape(2, w, p - 1, b.shape[1], t.K), len(found)
            low = t.fb[b][:, None]
            high = np.broadcast_to(t.fx[i][:, None, None], low.shape)
            adding = np.concatenate([low, parts[0], high], axis=1)
            removing = np.concatenate([high, parts[1], low], axis=1)
        adding, removing = (self._values(part, self.y[i], depth)[..., None] for part in (adding, removing))
        return walk_steps(adding, removing, rank)[..., 0], cost

    def _values(self, outputs: np.ndarray, y: np.ndarray, depth: int) -> np.ndarray:
        """Unbiased values ``(w, c)`` of the game from outputs ``(w, c, m, K)``."""
        w, c, m, K = outputs.shape
        if self.squared:
            e = y[:, None, None] - outputs[..., 0]
            return -(e.sum(axis=2) ** 2 - (e**2).sum(axis=2)) / (m * (m - 1))
        total, before = np.zeros((w, c)), np.zeros((w, c))
        for k in range(depth + 1):
            size = self.sizes[k]
            # Of the whole background only the part that was spread evenly may be split.
            groups = max(1, min(m, self.lattice) // size)
            mean = outputs[:, :, : groups * size].reshape(w * c * groups, size, K).mean(axis=1)
            loss = self.losses(mean, np.repeat(y, c * groups)).reshape(w, c, groups).mean(axis=2)
            total -= (loss - before) / self.reach[k]
            before = loss
        return total

    def _conditional(self, present: np.ndarray, i: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Outputs when absent features follow the present ones: references move along the Gaussian regression."""
        t, parts = self.tables, []
        x, z = t.rows._X.astype(np.float64), t.rows._background.astype(np.float64)
        for s in chunks(len(present), t.batch_size // max(b.shape[1], t.rows.d)):
            S = present[s][:, t.player]
            masked = self.covariance * S[:, :, None] * S[:, None, :]
            regression = np.linalg.pinv(masked, rcond=1e-10, hermitian=True) @ self.covariance
            reference, own = z[b[s]], x[i[s]][:, None]
            moved = reference + ((own - reference) * S[:, None]) @ regression
            table = np.where(S[:, None], own, moved).reshape(-1, t.rows.d)
            parts.append(np.concatenate([t.rows.predict(table[r]).reshape(-1, t.K)
                                         for r in chunks(len(table), t.batch_size)]))
        return np.concatenate(parts) if parts else np.empty((0, t.K))

    def summary(self, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """Row values that add up: the residual is shared out by regression on it, over all rows' visits."""
        count = np.maximum(tally.count, 1)[:, None]
        freedom = np.maximum(count - 1, 1)
        m2, cross = tally.m2[..., 0], tally.cross[..., 0]
        share, correction = shares(cross.sum(axis=0), int(np.maximum(tally.count - 1, 0).sum()), self.scale)
        residual = (self.full - self.empty) - tally.mean[..., 0].sum(axis=1)
        values = tally.mean[..., 0] + share * residual[:, None]
        own = np.maximum(m2 - 2 * share * cross + share**2 * cross.sum(axis=1, keepdims=True), 0.0)
        return values[..., None], np.sqrt(own * correction / freedom / count)[..., None]


def shares(cross: np.ndarray, freedom: int, scale: float) -> tuple[np.ndarray, float]:
    """Each player's share ``(p,)`` of the residual, its regression on the sum, and the variance's correction.

    Estimates are noisy, and so is their sum, whose true value is known. Regressing on the sum makes the total exact,
    lowers every variance, leaves null players at zero, and is free of bias but for the estimated coefficients.
    """
    total = cross.sum()
    # Sums that differ by rounding only carry no information: every visit had the whole background.
    if total <= (1e-10 * scale) ** 2 * max(freedom, 1):
        return np.zeros(len(cross)), 1.0
    return cross / total, freedom / max(freedom - 1.0, 1.0)


def _covariance(t: Tables) -> np.ndarray:
    if t.rows._frame is not None:
        fail("removal", '"marginal" for DataFrames', '"conditional"', "Pass numeric arrays to remove conditionally")
    z = t.rows._background.astype(np.float64)
    if len(z) < 2 or not (np.isfinite(z).all() and np.isfinite(t.rows._X).all()):
        fail("background", "at least 2 rows, and finite numbers in both tables, to fit a Gaussian",
             f"{len(z)} rows" if len(z) < 2 else "NaN or infinity", 'Impute, or use removal="marginal"')
    return np.cov(z, rowvar=False).reshape(t.rows.d, t.rows.d)


def loss_shap(model: Any, X: Any, y: Any, background: Any, *, loss: Any = "mse", removal: str = "marginal",
              groups: Any = None, rounds: int | None = None, thresh: float = 0.02, max_evaluations: int | None = None,
              rng: Any = None, n_jobs: int | None = None, batch_size: int = 16384, progress: bool = False,
              callback: Callable[[dict[str, Any]], Any] | None = None, state: Any = None) -> Explanation:
    """LossSHAP values of rows: how much each feature lowers each row's loss, with standard errors.

    Parameters
    ----------
    model, X, background, groups, rounds, thresh, max_evaluations, rng, n_jobs, batch_size, progress, callback, \
state : as in :func:`shaplab.foundations.permutation.permutation_shap`; a round is 16 walks for each row.
    y : array ``(N,)``, targets; class labels 0, 1, ... in the order of the model's outputs.
    loss : ``"mse"``, ``"cross_entropy"`` (probabilities), ``"logistic"`` or ``"softmax_cross_entropy"`` (margins), or
        a callable ``(output, y) -> (n,)`` of mean outputs ``(n,)`` or ``(n, K)`` and targets ``(n,)``.
    removal : ``"marginal"`` (absent features take background values) or ``"conditional"`` (background values move
        along with the present features, by the regression of a Gaussian fitted to the background).

    Returns
    -------
    Explanation with ``values`` and ``std`` ``(N, d)``, in the loss's unit; positive values lower the loss.
        ``base_values`` are minus the losses of the mean prediction.

    Notes
    -----
    Estimates minus the loss of the mean prediction (``LossOfMean``) of the marginal game over the whole background;
    values add up exactly. Their mean over rows is SAGE.

    References
    ----------
    Lundberg et al. (2020), Section 2.7.4; Covert (2020).
    """
    goal, thresh, budget = check_stop(rounds, thresh, max_evaluations)
    tables = Tables(model, X, background, groups, batch_size)
    sampler = LossWalks(tables, y, loss, removal, WALKS)
    run = Run(sampler, rng=rng, rounds=goal, thresh=thresh, budget=budget, state=state, n_jobs=n_jobs,
              progress=progress, callback=callback)

    def result(tally: Tally, info: dict[str, Any]) -> Explanation:
        values, std = sampler.summary(tally)
        return Explanation(values=values[..., 0], std=std[..., 0], base_values=sampler.empty,
                           data=X if tables.p == tables.rows.d else None, feature_names=tables.names,
                           method=f"loss_shap ({sampler.loss.name} of the mean prediction, {removal} removal)",
                           info=info | {"rounds": tally.count.copy()})

    return run(result)
