r"""Games that explain predictions: what a feature's absence means.

For a row :math:`x` and a coalition :math:`S` of known features, each game replaces the unknown ones
by

- baseline: one reference row, :math:`v(S) = f(x_S, b_{\bar S})`;
- marginal (interventional): every row of a background, averaged;
- conditional: values that go with :math:`x_S`, drawn from a fitted Gaussian, taken from the nearest
  background rows, or read from an exact joint table.

Three games explain a loss, and they differ: the loss of the mean prediction, the mean of the loss
over references, and the rescaled margin. Source: Methods 9-10 of Lundberg et al. (2020); Covert et
al. (2020).
Cost: ``m N B`` model rows for ``m`` coalitions, ``N`` explained and ``B`` reference rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from shaplab._gaussian import correlations, regression, spreads
from shaplab._losses import check_probabilities, check_target, get_loss, secant
from shaplab._parallel import counted, progress_bar
from shaplab._rows import Rows
from shaplab._validation import (
    as_matrix,
    as_numbers,
    check_int,
    check_result,
    check_same_columns,
    check_size,
    class_names,
    column_names,
    fail,
    resolve_rng,
)
from shaplab.explanation import Explanation
from shaplab.foundations._evaluate import PlayerRows, weigh_background
from shaplab.foundations._structure import read_structure, steps_of, sum_of_steps
from shaplab.foundations.exact import shapley_values
from shaplab.foundations.games import check_coalitions

__all__ = [
    "BaselineGame",
    "CopulaGame",
    "DiscreteGame",
    "GaussianGame",
    "LossOfMean",
    "MarginalGame",
    "MeanLoss",
    "NearestGame",
    "RescaledMargin",
    "exact_shap",
]

Groups = Sequence[Sequence[Any]] | Mapping[str, Sequence[Any]]


class MarginalGame(PlayerRows):
    """The mean prediction when absent features take the values of background rows.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``; DataFrames reach it as DataFrames.
    X : array or DataFrame ``(N, d)``, the rows to explain.
    background : array or DataFrame ``(B, d)``, used whole.
    groups : lists of features that enter and leave together, by number or name; None: each on its
        own.
    batch_size : int, model rows in one call; bounds memory.
    weights : array ``(B,)``, what each background row counts in the mean; None: all alike.
    feature_names : names of the columns; those of a DataFrame by default.

    Notes
    -----
    Called on coalitions ``(m, n_players)``, the game returns ``(m, N)`` or ``(m, N, K)`` in the
    model's unit. ``evaluations`` counts model rows.
    """

    _filler = "background"

    def __init__(
        self,
        model: Any,
        X: Any,
        background: Any,
        *,
        groups: Groups | None = None,
        batch_size: int = 65536,
        weights: Any = None,
        feature_names: Any = None,
    ) -> None:
        background, self.weights = weigh_background(background, weights)
        rows = Rows(model, X, background, self._filler)
        super().__init__(rows, groups, batch_size, feature_names)

    @property
    def evaluations(self) -> int:
        """Model rows evaluated so far."""
        return self.rows.evaluations

    def outputs(self, coalitions: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Predictions for every reference row, ``(m, N, B)`` or ``(m, N, B, K)``, before any
        averaging; of the rows with these numbers, all by default."""
        present = check_coalitions(coalitions, self.n_players)[:, self.label]
        rows = np.arange(self.rows.n) if rows is None else rows
        shape = (len(present), len(rows), self.rows.size)
        total = math.prod(shape)
        parts = []
        for start in range(0, max(1, total), self.batch_size):
            batch = np.arange(start, min(start + self.batch_size, total))
            coalition, row, reference = np.unravel_index(batch, shape)
            parts.append(self.rows.outputs(present[coalition], rows[row], reference))
        outputs = np.concatenate(parts)
        return outputs.reshape(*shape, *outputs.shape[1:])

    def means(self, coalitions: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Mean predictions ``(m, N)`` or ``(m, N, K)`` of the rows with these numbers, all by
        default."""
        count = self.rows.n if rows is None else len(rows)
        step = max(1, self.batch_size // (count * self.rows.size))
        parts = [
            np.average(
                self.outputs(coalitions[start : start + step], rows), axis=2, weights=self.weights
            )
            for start in range(0, max(1, len(coalitions)), step)
        ]
        return np.concatenate(parts)

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        return self.means(check_coalitions(coalitions, self.n_players))


class BaselineGame(MarginalGame):
    """The prediction when absent features take the values of one reference row.

    Parameters
    ----------
    model, X, groups, batch_size, feature_names : as in :class:`MarginalGame`.
    baseline : array ``(d,)`` or ``(1, d)``, or a DataFrame of one row.
    """

    _filler = "baseline"

    def __init__(
        self,
        model: Any,
        X: Any,
        baseline: Any,
        *,
        groups: Groups | None = None,
        batch_size: int = 65536,
        feature_names: Any = None,
    ) -> None:
        if column_names(baseline) is None:
            baseline = np.atleast_2d(np.asarray(baseline))
        if len(baseline) != 1:
            fail(
                "baseline",
                "one reference row",
                f"{len(baseline)} rows",
                "Use MarginalGame to average over several",
            )
        super().__init__(
            model, X, baseline, groups=groups, batch_size=batch_size, feature_names=feature_names
        )


class _Conditional:
    """What the conditional games on numeric tables share: rows to explain are filled ``step`` at a
    time."""

    _filler = "background"
    _finite = True
    step = 1

    def __init__(self, model: Any, X: Any, background: Any) -> None:
        if column_names(X) is not None or column_names(background) is not None:
            check_same_columns(X, background, self._filler)
        self.X = as_matrix(X, "X", finite=self._finite).astype(np.float64)
        known = as_matrix(background, self._filler, finite=self._finite)
        self.background = known.astype(np.float64)
        self.rows = Rows(model, self.X, self.background, self._filler)
        self.n_players = self.rows.d
        self.names = column_names(X)

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        return np.stack(
            [self._all_rows(present) for present in check_coalitions(coalitions, self.n_players)]
        )

    def _all_rows(self, present: np.ndarray) -> np.ndarray:
        """The worth of one coalition ``(d,)`` for all rows."""
        parts = [
            self._value(present, self.X[start : start + self.step])
            for start in range(0, len(self.X), self.step)
        ]
        return np.concatenate(parts)

    def _value(self, present: np.ndarray, X: np.ndarray) -> np.ndarray:
        """The worth of one coalition for some rows: the mean prediction over what they are filled
        with."""
        table = np.where(present, X[:, None], self._fill(present, X))
        outputs = self.rows.predict(table.reshape(-1, self.n_players))
        return outputs.reshape(*table.shape[:2], *outputs.shape[1:]).mean(axis=1)

    def _fill(self, present: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Values ``(n, draws, d)`` for the absent features."""
        raise TypeError("a conditional game says how absent features are filled")


class GaussianGame(_Conditional):
    """The mean prediction given the known features, under a Gaussian fitted to the background.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``.
    X : array ``(N, d)``, finite numbers.
    background : array ``(B, d)``, from which mean and covariance are estimated.
    n_samples : int, draws for each coalition, antithetic. The same draws serve every coalition, so
        the game is a fixed function; its own Monte-Carlo error falls as ``1 / sqrt(n_samples)``.
    rng : None, int or Generator.
    batch_size : int, model rows in one call; bounds memory.

    Notes
    -----
    Exact, up to rounding, for models that are linear in the absent features: antithetic draws
    average to the conditional mean. A singular covariance is handled by the pseudo-inverse.
    """

    def __init__(
        self,
        model: Any,
        X: Any,
        background: Any,
        *,
        n_samples: int = 200,
        rng: Any = None,
        batch_size: int = 65536,
    ) -> None:
        super().__init__(model, X, background)
        if len(self.background) < 2:
            fail(
                "background",
                "at least 2 rows to fit a covariance",
                "1",
                "Pass more rows, or use BaselineGame",
            )
        self.half = (check_int(n_samples, "n_samples", minimum=2) + 1) // 2
        self.step = max(1, check_int(batch_size, "batch_size") // (2 * self.half))
        self._draw_noise(resolve_rng(rng))
        self._fit(self.background)

    def _fit(self, rows: np.ndarray) -> None:
        self.mean = rows.mean(axis=0)
        self.spread, self.correlation = correlations(rows)

    def _draw_noise(self, rng: np.random.Generator) -> None:
        draws = rng.standard_normal((self.half, self.n_players))
        # The sample's covariance, not the population's, as the mean is estimated, too.
        draws *= np.sqrt(len(self.background) / (len(self.background) - 1))
        self.draws = np.concatenate([draws, -draws])

    def drawn_anew(self, rng: np.random.Generator) -> GaussianGame:
        """The same game with other draws."""
        other = copy.copy(self)
        other._draw_noise(rng)
        return other

    def _fill(self, present: np.ndarray, X: np.ndarray) -> np.ndarray:
        absent = ~present
        filled = np.zeros((len(X), len(self.draws), self.n_players))
        noise = self.draws[:, : absent.sum()]
        filled[:, :, absent] = self._draw(X[:, None], present, absent, noise)
        return filled

    def _draw(
        self, given: np.ndarray, known: np.ndarray, wanted: np.ndarray, noise: np.ndarray
    ) -> np.ndarray:
        """Values ``(N, draws, wanted)`` of columns, given the known ones of rows
        ``(N, 1 or draws, d)``."""
        follow = regression(self.correlation, known)
        away = (given - self.mean) / self.spread * known
        mean = self.mean[wanted] + (away @ follow)[..., wanted] * self.spread[wanted]
        # What the known features leave of the covariance; rounding makes it slightly asymmetric.
        left = (self.correlation - self.correlation @ follow)[np.ix_(wanted, wanted)]
        size, axes = np.linalg.eigh((left + left.T) / 2)
        # The symmetric root: the same for any order and sign of the axes.
        root = (axes * np.sqrt(np.clip(size, 0.0, None))) @ axes.T * self.spread[wanted]
        return mean + noise @ root


class CopulaGame(GaussianGame):
    """The mean prediction given the known features, under a Gaussian copula of the background.

    Each column keeps its own distribution, that of the background's values; normal scores of the
    columns follow a Gaussian.

    Parameters
    ----------
    model, X, background, n_samples, rng, batch_size : as in :class:`GaussianGame`.

    Notes
    -----
    A value's score is the normal quantile of its mean rank among the background's values, ties at
    their middle. Absent features take values that the background has, never ones between: columns
    of 0 and 1 stay so, though several one-hot columns of one category need not agree. Beyond the
    background's range a known value counts as its end. Exact as the background grows, if the
    copula is Gaussian.

    References
    ----------
    Aas, Jullum and Loland, "Explaining individual predictions when features are dependent" (2021).
    """

    def _fit(self, rows: np.ndarray) -> None:
        self.sorted = np.sort(rows, axis=0)
        super()._fit(self._scores(rows))

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """Normal scores ``(n, d)`` of values."""
        count = len(self.sorted)
        share = np.empty(rows.shape)
        for j, column in enumerate(self.sorted.T):
            below = np.searchsorted(column, rows[:, j], side="left")
            up_to = np.searchsorted(column, rows[:, j], side="right")
            share[:, j] = (below + up_to) / (2 * count)
        return np.asarray(ndtri(np.clip(share, 0.5 / count, 1 - 0.5 / count)))

    def _fill(self, present: np.ndarray, X: np.ndarray) -> np.ndarray:
        drawn = ndtr(super()._fill(present, self._scores(X)))
        place = np.clip((drawn * len(self.sorted)).astype(int), 0, len(self.sorted) - 1)
        return np.asarray(np.take_along_axis(self.sorted[None], place, axis=1))


class NearestGame(_Conditional):
    """The mean prediction over the background rows most like the known features.

    Parameters
    ----------
    model, X, background, batch_size : as in :class:`GaussianGame`.
    n_neighbors : int, rows averaged; distance is Euclidean on the known features, each in units of
        its background standard deviation. With nothing known, all rows are averaged.

    Notes
    -----
    An estimate whose bias grows with the number of known features: near neighbours get rare. Rows
    that are equally far share the places that are left, so the order of the background does not
    count.
    """

    def __init__(
        self, model: Any, X: Any, background: Any, *, n_neighbors: int = 10, batch_size: int = 65536
    ) -> None:
        super().__init__(model, X, background)
        self.step = max(1, check_int(batch_size, "batch_size") // len(self.background))
        self.n_neighbors = check_int(n_neighbors, "n_neighbors", maximum=len(self.background))
        self.scale = spreads(self.background)

    def _weights(self, present: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Shares ``(n, B)`` of the background rows in each row's mean."""
        count = len(self.background)
        if not present.any():
            return np.full((len(X), count), 1.0 / count)
        away = X[:, None, present] - self.background[None, :, present]
        distance = ((away / self.scale[present]) ** 2).sum(axis=2)
        sorted_up_to_last = np.partition(distance, self.n_neighbors - 1, axis=1)
        last = sorted_up_to_last[:, self.n_neighbors - 1, None]
        # Distances that differ by rounding only are ties.
        nearer = distance < last * (1 - 1e-12)
        tied = ~nearer & (distance <= last * (1 + 1e-12))
        places = self.n_neighbors - nearer.sum(axis=1, keepdims=True)
        return (nearer + tied * (places / tied.sum(axis=1, keepdims=True))) / self.n_neighbors

    def _value(self, present: np.ndarray, X: np.ndarray) -> np.ndarray:
        weights = self._weights(present, X)
        # Only neighbours are predicted.
        row, neighbour = np.nonzero(weights)
        outputs = self.rows.predict(np.where(present, X[row], self.background[neighbour]))
        share = weights[row, neighbour].reshape(-1, *[1] * (outputs.ndim - 1))
        result = np.zeros((len(X), *outputs.shape[1:]))
        np.add.at(result, row, share * outputs)
        return result


class DiscreteGame(_Conditional):
    """The exact conditional mean prediction, for a joint distribution given as a table.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``.
    X : array ``(N, d)``; every row must be possible under the table.
    support : array ``(R, d)``, all possible rows.
    probability : array ``(R,)``, non-negative, with sum 1; None: equal.
    """

    _filler = "support"
    _finite = False

    def __init__(self, model: Any, X: Any, support: Any, probability: Any = None) -> None:
        super().__init__(model, X, support)
        count = len(self.background)
        if probability is None:
            weights = np.full(count, 1.0 / count)
        else:
            weights = as_numbers(probability, "probability")
        is_distribution = (weights >= 0).all() and abs(weights.sum() - 1.0) <= 1e-9
        if weights.shape != (count,) or not is_distribution:
            fail(
                "probability",
                f"{count} non-negative numbers with sum 1",
                f"shape {weights.shape} with sum {weights.sum():g}",
                "Normalise the table",
            )
        self.probability = weights
        self.values = self.rows.predict(self.background)
        self.step = max(1, 65536 // count)

    def _value(self, present: np.ndarray, X: np.ndarray) -> np.ndarray:
        agrees = (X[:, None, present] == self.background[:, present]).all(axis=2)
        match = agrees * self.probability
        mass = match.sum(axis=1)
        if (mass == 0).any():
            fail(
                "X",
                "rows with positive probability under the table",
                f"{X[np.argmin(mass)].tolist()} with probability 0",
                "Add the row to the support or drop it",
            )
        return np.tensordot(match / mass[:, None], self.values, axes=1)


class LossOfMean:
    """The loss of the mean prediction: predictions are averaged over references first.

    Parameters
    ----------
    game : a prediction game with payoff ``(N,)`` or ``(N, K)``.
    y : array ``(N,)``, each row's own target.
    loss : ``"squared_error"``, ``"logistic"`` (labels 0 and 1, log-odds), ``"cross_entropy"``
        (probabilities), ``"softmax_cross_entropy"`` (logits), or a callable ``(output, y)`` that
        gives one number a row.

    Notes
    -----
    Payoff ``(N,)``: positive Shapley values raise the loss. This is the game that SAGE averages.
    """

    # What a game must have for this loss game, and what the error text calls such a game.
    _needs = "n_players"
    _rule = "a prediction game"

    def __init__(self, game: Any, y: Any, loss: Any) -> None:
        if not hasattr(game, self._needs):
            fail(
                "game",
                self._rule,
                f"a {type(game).__name__}",
                "Make one with shaplab.MarginalGame",
                TypeError,
            )
        self.game = game
        self.loss = get_loss(loss)
        self.n_players = game.n_players
        self.y = y
        self._checked = False

    def _price(self, outputs: np.ndarray, leading: int) -> np.ndarray:
        """Losses of outputs ``(..., N[, K])`` with so many axes before the rows."""
        if outputs.ndim not in (leading + 1, leading + 2):
            fail(
                "game",
                "a payoff (N,) or (N, K)",
                f"{outputs.shape[1:]}",
                "Explain the predictions of rows",
            )
        shape = outputs.shape[: leading + 1]
        has_classes = outputs.ndim == leading + 2
        if not self._checked:
            n_outputs = outputs.shape[-1] if has_classes else None
            self.loss = self.loss.for_outputs(n_outputs)
            self.y = check_target(self.y, shape[-1], self.loss, n_outputs)
            self._checked = True
        check_probabilities(outputs, self.loss, classes=has_classes)
        losses = as_numbers(self.loss.value(outputs, self.y), "loss", "numbers")
        if losses.shape != shape:
            fail(
                "loss",
                f"one number for each output, {shape}",
                f"shape {losses.shape}",
                "Let (output, y) keep all axes but that of the outputs",
            )
        return losses

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        return self._price(np.asarray(self.game(coalitions)), 1)


class MeanLoss(LossOfMean):
    """The mean loss over references: each reference row's prediction meets the target on its own.

    Parameters
    ----------
    game : a :class:`MarginalGame` or :class:`BaselineGame`.
    y, loss : as in :class:`LossOfMean`.
    """

    _needs = "outputs"
    _rule = "a game that knows its reference rows"

    def _outputs(self, coalitions: np.ndarray) -> np.ndarray:
        """Outputs ``(m, B, N[, K])``: rows last, as losses broadcast."""
        return np.swapaxes(self.game.outputs(coalitions), 1, 2)

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        return self._mean(self._price(self._outputs(coalitions), 2))

    def _mean(self, losses: np.ndarray) -> np.ndarray:
        """Mean over references of losses ``(m, B, N)``, as the game weighs them."""
        weights = getattr(self.game, "weights", None)
        return np.asarray(np.average(losses, axis=1, weights=weights))


class RescaledMargin(MeanLoss):
    """The compositional approximation: margins are explained, then stretched to the loss
    difference.

    Parameters
    ----------
    game : a :class:`MarginalGame` or :class:`BaselineGame` with one output.
    y, loss : as in :class:`LossOfMean`.

    Notes
    -----
    For reference b the payoff is loss(b) + (f_S - f_b) (loss(x) - loss(b)) / (f_x - f_b); where f_x
    equals f_b the ratio is the loss's slope (its numerical slope for a callable). Agrees with
    :class:`MeanLoss` for the empty and the full coalition only.
    """

    def __call__(self, coalitions: np.ndarray) -> np.ndarray:
        nobody_and_everybody = np.zeros((2, self.n_players), dtype=bool)
        nobody_and_everybody[1] = True
        ends = self._outputs(nobody_and_everybody)
        reference, own = ends
        reference_loss = self._price(ends, 2)[0]
        if reference.ndim != 2:
            fail(
                "game",
                "one output",
                f"{reference.shape[-1]} outputs",
                "Explain one output, or use MeanLoss",
            )
        ratio = secant(self.loss, own, reference, self.y)
        margins = self._outputs(coalitions) - reference
        return self._mean(reference_loss + margins * ratio)


def exact_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    groups: Groups | None = None,
    unions: Any = None,
    order: Any = None,
    weights: Any = None,
    batch_size: int = 65536,
    progress: bool = False,
    feature_names: Any = None,
) -> Explanation:
    """Exact interventional Shapley values of any model on few features, by enumeration.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``.
    X : array or DataFrame ``(N, d)``, rows to explain.
    background : array or DataFrame ``(B, d)``, used whole.
    groups : lists of features explained together, by number or name, or a dict from group name to
        features.
    unions : list of lists of features (of groups, if there are any), by number or name: Owen
        values; nested lists give Winter values.
    order : list of levels (lists) of features, or of pairs (tuples) ``(before, after)``: asymmetric
        Shapley values.
    weights : array ``(B,)``, what each background row counts in the mean; None: all alike. Whole
        numbers give what repeating rows would.
    batch_size : int, model rows in one call; bounds memory.
    progress : bool, show a bar of coalitions.
    feature_names : names of the columns; those of a DataFrame by default.

    Returns
    -------
    Explanation with ``values`` ``(N, n_players[, K])`` in the model's unit; exact for the marginal
    game.

    Notes
    -----
    Cost: ``2**n * B`` model rows for a row in which ``n`` players can matter, at most 24: players
    whose columns are equal in the row and all references cost nothing and get 0. Under ``unions``
    and ``order`` the coalitions that can come before a player: see
    :func:`shaplab.foundations.structures.owen_values`.

    References
    ----------
    Eq. 5 of Lundberg et al. (2020) over the marginal game.

    Examples
    --------
    >>> exact_shap(lambda X: X[:, 0] * X[:, 1], np.ones((1, 2)), np.zeros((1, 2))).values
    array([[0.5, 0.5]])
    """
    game = MarginalGame(
        model,
        X,
        background,
        groups=groups,
        batch_size=batch_size,
        weights=weights,
        feature_names=feature_names,
    )
    base = game.means(np.zeros((1, game.n_players), dtype=bool))[0]
    check_size(
        (*base.shape, game.n_players), "X", "Explain fewer rows at a time, or features in groups"
    )
    structure = read_structure(game.n_players, game.names, unions, order)
    if structure is None:
        values = _shapley_by_pattern(game, base, progress)
    else:
        together = min(4096, max(1, game.batch_size // (game.rows.n * game.rows.size)))
        total = sum_of_steps(game, steps_of(structure), together, progress)
        values = np.moveaxis(total, 0, 1)
    how = "enumerated" if structure is None else f"enumerated, {structure.name}"
    check_result(values, game.names)
    return Explanation(
        values=values,
        base_values=base,
        data=X if groups is None else None,
        feature_names=None if game.names is None else tuple(game.names),
        output_names=class_names(model, base.shape[-1]) if base.ndim == 2 else None,
        method=f"exact_shap (marginal game, {how})",
        info={"evaluations": game.evaluations},
    )


def _shapley_by_pattern(game: MarginalGame, base: np.ndarray, progress: bool) -> np.ndarray:
    """Shapley values ``(N, n_players[, K])`` among the players that can matter for each row."""
    values = np.zeros((game.rows.n, game.n_players, *base.shape[1:]))
    # Rows in which the same players can matter are explained together.
    patterns, pattern_of_row = np.unique(game.able(), axis=0, return_inverse=True)
    coalitions = sum(2 ** int(able) for able in patterns.sum(axis=1))
    with progress_bar(coalitions, progress, "coalitions") as bar:
        for number, pattern in enumerate(patterns):
            rows = np.flatnonzero(pattern_of_row.ravel() == number)
            members = np.flatnonzero(pattern)
            if members.size == 0:
                continue
            step = max(1, game.batch_size // (len(rows) * game.rows.size))
            phi = shapley_values(
                counted(partial(_game_of_members, game, rows, members), bar),
                members.size,
                batch_size=min(4096, step),
            )
            values[np.ix_(rows, members)] = np.moveaxis(phi, 0, 1)
    return values


def _game_of_members(
    game: MarginalGame, rows: np.ndarray, members: np.ndarray, coalitions: np.ndarray
) -> np.ndarray:
    """Mean predictions for some rows when only these players take part."""
    present = np.zeros((len(coalitions), game.n_players), dtype=bool)
    present[:, members] = coalitions
    return game.means(present, rows)
