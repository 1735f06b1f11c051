r"""LossSHAP: how much each feature makes one prediction more accurate.

The game of a row :math:`(x, y)` is minus the loss of the mean prediction,

.. math:: v(S) = -\ell\Bigl(\tfrac1B \sum_b f(x_S, b_{\bar S}),\, y\Bigr),

so positive values lower the loss. It is sampled by antithetic walks. A loss is not linear in the
mean prediction, so a few references in place of all would be biased;
``shaplab.importance._few_references`` derives two estimates that are not. References of a walk are
evenly spread over the background, in the order of the model's outputs, and the way back has others
than the way there. Source: Covert, Lundberg and Lee (2020); Covert (2020). Cost of a walk:
:math:`8 (d - 1)` model rows for squared error, some 20 to 40 times :math:`d - 1` for other smooth
losses, whatever the background's size; less where row and reference agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from shaplab._gaussian import correlations, regression
from shaplab._losses import check_probabilities, check_target, get_loss
from shaplab._parallel import chunks
from shaplab._validation import check_choice, check_size, check_weights, fail
from shaplab.explanation import Explanation
from shaplab.foundations._evaluate import FLOATS, Evaluator
from shaplab.foundations._sampling import (
    TASK_ROWS,
    Budget,
    SampledRun,
    Sampler,
    Tally,
    visit_generator,
)
from shaplab.foundations._walks import outputs_both_ways, step_contributions
from shaplab.importance._few_references import DRAWS, FewReferences, Pilot

__all__ = ["loss_shap", "loss_shap_literal"]

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


class RowLosses:
    """The loss of mean predictions, for each row with its target and weight.

    ``empty`` and ``full`` ``(N,)`` are minus the losses of nobody and of everybody.
    """

    def __init__(self, evaluator: Evaluator, y: Any, loss: Any, weights: Any = None) -> None:
        self.evaluator = evaluator
        n_rows = evaluator.n_rows
        self.weight = n_rows * check_weights(weights, n_rows, "X")  # mean 1
        self.loss = get_loss(loss)
        self.has_classes = evaluator.n_outputs > 1
        n_outputs = evaluator.n_outputs if self.has_classes else None
        self.y = check_target(y, evaluator.n_rows, self.loss, n_outputs)
        for outputs in (evaluator.row_outputs, evaluator.reference_outputs):
            check_probabilities(outputs, self.loss, classes=self.has_classes)
        nobody = np.broadcast_to(evaluator.nobody, evaluator.row_outputs.shape)
        self.empty = -self.losses(nobody, self.y) * self.weight
        self.full = -self.losses(evaluator.row_outputs, self.y) * self.weight

    def losses(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Losses ``(m,)`` of mean outputs ``(m, K)`` for targets ``(m,)``."""
        outputs = outputs if self.has_classes else outputs[:, 0]
        losses = np.asarray(self.loss.value(outputs, y), dtype=np.float64)
        if losses.shape != y.shape or not np.isfinite(losses).all():
            got = f"shape {losses.shape}" if losses.shape != y.shape else "NaN or infinity"
            fail(
                "loss",
                f"a finite loss for each of {len(y)} rows",
                got,
                "Return one number for each row, (n,)",
            )
        return losses


class MarginalRemoval:
    """Absent features take the values of references."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def outputs(self, present: np.ndarray, rows: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Outputs ``(r m, K)`` of coalitions ``(r, p)`` of rows ``(r,)``, with references ``(r,
        m)``."""
        size = references.shape[1]
        return self.evaluator.outputs(
            present.repeat(size, axis=0), rows.repeat(size), references.ravel()
        )

    def means(self, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Mean outputs ``(r, K)`` over the background of coalitions ``(r, p)`` of rows ``(r,)``."""
        return self.evaluator.means(present, rows)

    def outputs_both_ways(
        self, rank: np.ndarray, rows: np.ndarray, references: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Outputs along antithetic walks, and what they cost."""
        return outputs_both_ways(self.evaluator, rank, rows, references)

    def mean_steps(self) -> float:
        """Model rows of one way of a walk with one reference, on average."""
        evaluator = self.evaluator
        # Some rows and references, evenly spread, say enough.
        most = max(16, min(256, int(np.sqrt(FLOATS / evaluator.n_active))))
        rows = _evenly(evaluator.n_rows, most)
        references = _evenly(evaluator.n_references, most)
        changes = evaluator.differs(rows[:, None], references[None]).sum(axis=2)
        return float(np.maximum(changes - 1, 0).mean())


def _evenly(count: int, most: int) -> np.ndarray:
    """At most so many of ``count`` numbers, evenly spread."""
    return np.linspace(0, count - 1, min(count, most), dtype=int)


class ConditionalRemoval:
    """Absent features follow the present ones: references move along the regression of a Gaussian
    fitted to the background."""

    def __init__(self, evaluator: Evaluator) -> None:
        rows = evaluator.rows
        if evaluator.weights is not None:
            fail(
                "weights",
                'None, or all alike, with removal="conditional"',
                "different weights",
                'Repeat rows of the background, or use removal="marginal"',
            )
        if rows.is_table:
            fail(
                "removal",
                '"marginal" for DataFrames',
                '"conditional"',
                "Pass numeric arrays to remove conditionally",
            )
        background = rows.background.astype(np.float64)
        is_finite = np.isfinite(background).all() and np.isfinite(rows.X).all()
        if len(background) < 2 or not is_finite:
            fail(
                "background",
                "at least 2 rows, and finite numbers in both tables, to fit a Gaussian",
                f"{len(background)} rows" if len(background) < 2 else "NaN or infinity",
                'Impute, or use removal="marginal"',
            )
        remedy = 'Drop columns, or use removal="marginal" (no covariance)'
        check_size((rows.d, rows.d), "X", remedy)
        self.evaluator = evaluator
        self.X = rows.X.astype(np.float64)
        self.background = background
        self.spread, self.correlation = correlations(background)

    def outputs(self, present: np.ndarray, rows: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Outputs ``(r m, K)`` of coalitions ``(r, p)`` of rows ``(r,)``, with references ``(r,
        m)``."""
        evaluator = self.evaluator
        n_columns = evaluator.rows.d
        # A regression has as many numbers as the table of its rows, or more.
        together = evaluator.batch_size // max(references.shape[1], n_columns)
        parts = [np.empty((0, evaluator.n_outputs))]
        for part in chunks(len(present), together):
            columns = present[part][:, evaluator.player_of_column]
            reference = self.background[references[part]]
            own = self.X[rows[part]][:, None]
            step = (own - reference) / self.spread * columns[:, None]
            moved = reference + step @ regression(self.correlation, columns) * self.spread
            table = np.where(columns[:, None], own, moved).reshape(-1, n_columns)
            for piece in chunks(len(table), evaluator.batch_size):
                outputs = evaluator.rows.predict(table[piece])
                parts.append(outputs.reshape(-1, evaluator.n_outputs))
        return np.concatenate(parts)

    def means(self, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Mean outputs ``(r, K)`` over the background of coalitions ``(r, p)`` of rows ``(r,)``."""
        evaluator = self.evaluator
        size = evaluator.n_references
        mean = np.empty((len(rows), evaluator.n_outputs))
        for part in chunks(len(rows), evaluator.batch_size // size):
            count = len(rows[part])
            references = np.broadcast_to(np.arange(size), (count, size))
            outputs = self.outputs(present[part], rows[part], references)
            mean[part] = outputs.reshape(count, size, -1).mean(axis=1)
        return mean

    def outputs_both_ways(
        self, rank: np.ndarray, rows: np.ndarray, references: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Outputs along antithetic walks, and what they cost."""
        evaluator = self.evaluator
        n_walks, players = rank.shape
        inner = players - 1
        present = (rank[:, None, :] < np.arange(1, players)[:, None]).reshape(-1, players)
        way_there_then_back = np.repeat(references.swapaxes(0, 1), inner, axis=1)
        outputs = self.outputs(
            np.concatenate([present, ~present]),
            np.tile(np.repeat(rows, inner), 2),
            way_there_then_back.reshape(2 * n_walks * inner, -1),
        )
        there, back = outputs.reshape(2, n_walks, inner, references.shape[2], -1)
        low = evaluator.reference_outputs[references][:, :, None]
        high = np.broadcast_to(evaluator.row_outputs[rows][:, None, None], low[:, 0].shape)
        adding = np.concatenate([low[:, 0], there, high], axis=1)
        removing = np.concatenate([high, back, low[:, 1]], axis=1)
        return adding, removing, len(outputs)

    def mean_steps(self) -> float:
        """Model rows of one way of a walk with one reference."""
        return float(self.evaluator.n_active - 1)


# Both answer the same questions: outputs of some references, means over all, outputs along walks.
REMOVALS: dict[str, type[MarginalRemoval] | type[ConditionalRemoval]] = {
    "marginal": MarginalRemoval,
    "conditional": ConditionalRemoval,
}


class WalkDraws(NamedTuple):
    """What is random about walks: their rows, each player's place in the ordering ``(w, p)``, level
    and start of the telescoping sum ``(w,)``, and independent references ``(w, 2, DRAWS)``."""

    rows: np.ndarray
    rank: np.ndarray
    level: np.ndarray
    start: np.ndarray
    drawn: np.ndarray

    def take(self, chosen: np.ndarray) -> WalkDraws:
        """Some of the walks."""
        return WalkDraws(*(part[chosen] for part in self))


class LossWalks(Sampler):
    """Antithetic walks over the loss game of single rows; a visit averages ``walks`` of them."""

    least = 8

    def __init__(self, game: RowLosses, removal: str, walks: int) -> None:
        self.game = game
        self.evaluator = game.evaluator
        self.walks = walks
        kind = REMOVALS[check_choice(removal, "removal", tuple(REMOVALS))]
        self.removal = kind(self.evaluator)
        is_squared = game.loss.name == "squared_error"
        pilot = None
        if self.evaluator.n_active > 1 and self.evaluator.n_references > DRAWS:
            pilot = self._pilot(smallest=2 if is_squared else 4)
        references = self.evaluator.reference_outputs
        shares = self.evaluator.weights
        self.few = FewReferences(game.losses, references, pilot, is_squared, shares)
        self.shape = (self.evaluator.n_rows, self.evaluator.n_active, 1)
        self.cost = 2 * self.removal.mean_steps() * walks * self.few.mean_cost
        self.scale = float(max(np.abs(game.empty).max(), np.abs(game.full).max()))
        self.mark = {
            "method": "loss walks",
            "loss": game.loss.name,
            "removal": removal,
            "walks": walks,
            "players": self.evaluator.label.tolist(),
            "y": game.y.tolist(),
            "weights": game.weight.tolist(),
        }
        if shares is not None:
            self.mark["background"] = shares.tolist()

    def _pilot(self, smallest: int) -> Pilot:
        """Steps of a few rows over the whole background, with random numbers of their own.

        They see every reference, which walks do not, and so tell what drawing may miss.
        """
        evaluator = self.evaluator
        players = evaluator.n_active
        size = evaluator.n_references
        rng = np.random.default_rng(0)
        count = int(np.clip(TASK_ROWS // (2 * size), smallest, 16))
        half = (count + 1) // 2
        rows = rng.integers(evaluator.n_rows, size=count)
        start = rng.random(count)
        rank = rng.permuted(np.tile(np.arange(players), (half, 1)), axis=1)
        step = rng.integers(players, size=half)
        # The complements of these steps go along, so that every feature is absent somewhere.
        rank = np.concatenate([rank, players - 1 - rank])[:count]
        step = np.concatenate([step, players - 1 - step])[:count]
        before_and_after = step[:, None, None] + np.array([[0], [1]])
        present = (rank[:, None] < before_and_after).reshape(-1, players)
        references = np.broadcast_to(np.arange(size), (2 * count, size))
        outputs = self.removal.outputs(present, np.repeat(rows, 2), references)
        evaluator.evaluations += len(outputs)
        outputs = outputs.reshape(count, 2, size, evaluator.n_outputs)
        return Pilot(self.game.y[rows], start, outputs)

    def worth(self, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Minus the losses ``(m, 1)`` of the mean predictions of coalitions ``(m, p)`` of rows."""
        losses = self.game.losses(self.removal.means(present, rows), self.game.y[rows])
        return (-losses * self.game.weight[rows])[:, None]

    def visit(
        self, rows: np.ndarray, visits: np.ndarray, entropy: list[int]
    ) -> tuple[np.ndarray, int]:
        evaluator = self.evaluator
        players = evaluator.n_active
        draws = self._draw(rows, visits, entropy)
        contributions = np.empty((len(draws.rows), players, 1))
        evaluations = 0
        # Walks of one level have equally many references.
        for level in np.unique(draws.level):
            chosen = np.flatnonzero(draws.level == level)
            rows_of_a_walk = 2 * (players - 1) * int(self.few.used[level])
            together = evaluator.batch_size // max(1, rows_of_a_walk)
            for part in chunks(len(chosen), together):
                some = chosen[part]
                steps, cost = self._contributions(draws.take(some), int(level))
                contributions[some] = steps
                evaluations += cost
        mean = contributions.reshape(len(rows), self.walks, players, 1).mean(axis=1)
        return mean * self.game.weight[rows][:, None, None], evaluations

    def _draw(self, rows: np.ndarray, visits: np.ndarray, entropy: list[int]) -> WalkDraws:
        """The walks of some visits, each from its own generator."""
        numbers = (visits[:, None] * self.walks + np.arange(self.walks)).ravel()
        count = len(numbers)
        draws = WalkDraws(
            rows=np.repeat(rows, self.walks),
            rank=np.empty((count, self.evaluator.n_active), dtype=int),
            level=np.empty(count, dtype=int),
            start=np.empty(count),
            drawn=np.empty((count, 2, DRAWS), dtype=int),
        )
        for place, (row, number) in enumerate(zip(draws.rows, numbers, strict=True)):
            rng = visit_generator(entropy, int(row), int(number))
            draws.rank[place] = rng.permutation(self.evaluator.n_active)
            draws.level[place] = self.few.level(rng.random())
            draws.start[place] = rng.random()
            draws.drawn[place] = self.few.draw(rng)
        return draws

    def _contributions(self, walks: WalkDraws, level: int) -> tuple[np.ndarray, int]:
        """What each player changes ``(w, p, 1)`` along walks of one level, and what they cost."""
        references = self.few.references(walks.start, walks.drawn, level)
        adding, removing, cost = self.removal.outputs_both_ways(walks.rank, walks.rows, references)
        y = self.game.y[walks.rows]
        adding = self.few.values(adding, y, level, walks.start)[..., None]
        removing = self.few.values(removing, y, level, walks.start)[..., None]
        return step_contributions(adding, removing, walks.rank), cost

    def summary(self, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
        """Row values that add up: the residual is shared out by regression on it, over all rows'
        visits."""
        count = np.maximum(tally.count, 1)[:, None]
        freedom = np.maximum(count - 1, 1)
        m2 = tally.m2[..., 0]
        cross = tally.cross[..., 0]
        visits = int(np.maximum(tally.count - 1, 0).sum())
        share, correction = shares(
            cross.sum(axis=0), m2.sum(axis=0), visits, self.scale / tally.unit
        )
        mean = tally.mean[..., 0]
        residual = (self.game.full - self.game.empty) - mean.sum(axis=1)
        values = mean + share * residual[:, None]
        # The spread of a value less its share of the sum; cross sums to the spread of the sum.
        own = m2 - 2 * share * cross + share**2 * cross.sum(axis=1, keepdims=True)
        std = tally.unit * np.sqrt(np.maximum(own, 0.0) * correction / freedom / count)
        return values[..., None], std[..., None]


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


def loss_shap(
    model: Any,
    X: Any,
    y: Any,
    background: Any,
    *,
    loss: Any = "mse",
    removal: str = "marginal",
    groups: Any = None,
    weights: Any = None,
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
    model, X, background, groups, weights, rounds, thresh, max_evaluations, rng, n_jobs,
    batch_size, progress, callback, state, feature_names : as in
        :func:`shaplab.foundations.permutation.permutation_shap`; a round is 16 walks for each row.
        ``weights`` are of background rows and for marginal removal; losses other than squared error
        then take the whole background for every step.
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
    budget = Budget(rounds, thresh, max_evaluations, rng, n_jobs, progress, callback, state)
    evaluator = Evaluator(model, X, background, groups, batch_size, feature_names, weights)
    game = RowLosses(evaluator, y, loss)
    sampler = LossWalks(game, removal, WALKS)

    def result(tally: Tally, info: dict[str, Any]) -> Explanation:
        values, std = sampler.summary(tally)
        evaluator.check_values(values, "loss")
        how = f"{removal} removal" + (", enumerated" if tally.exact.all() else "")
        return Explanation(
            values=evaluator.expand(values[..., 0]),
            std=evaluator.expand(std[..., 0]),
            base_values=game.empty,
            data=evaluator.data,
            feature_names=evaluator.feature_names,
            method=f"loss_shap ({game.loss.name} of the mean prediction, {how})",
            info=info | {"rounds": np.where(tally.exact, 0, tally.count)},
        )

    return SampledRun(sampler, budget).run(result)
