r"""Sampling orderings: Shapley values of any model, with standard errors.

The Shapley value is a mean over orderings,

.. math:: \varphi_i = E_\pi[v(P_i^\pi \cup i) - v(P_i^\pi)],

where :math:`P_i^\pi` are the players before :math:`i`; a mean can be sampled. The marginal game is
itself a mean over background rows :math:`b` of the games :math:`v_b(S) = f(x_S, b_{\bar S})`. One
*round* gives every :math:`b` random orderings of its own and walks each twice (antithetic): once
adding the features in order to the empty coalition, once taking them in order from the full one.
With :math:`P` the features before :math:`i` and :math:`\bar P` all others, :math:`i` among them,

.. math:: \delta_i = \tfrac12\{[v_b(P \cup i) - v_b(P)] + [v_b(\bar P) - v_b(\bar P \setminus i)]\}.

It is unbiased, the sum over features is exact, and one round is exact for models with interactions
of at most two features. An ordering turned by half of its length is walked as well: who came early
comes late there, so that errors cancel in part. Rounds are independent, so their spread gives the
standard error. Cost: two orderings, two ways, so at most :math:`4(d-1)B` model rows a round and
explained row, for backgrounds of 16 rows and more (smaller ones are walked several times); steps
between equal values cost nothing. Source: Methods 7-8 of Lundberg et al. (2020).

``ime`` is the older way, *interactions-based method for explanation*: one feature's step at a time,
more samples where they help most. Source: Strumbelj and Kononenko (2014).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from shaplab._parallel import chunks
from shaplab._units import unit_near
from shaplab._validation import check_int, check_real, fail
from shaplab.explanation import Explanation
from shaplab.foundations._evaluate import Evaluator
from shaplab.foundations._sampling import (
    MIN_ROUNDS,
    TASK_ROWS,
    Budget,
    SampledRun,
    Sampler,
    Tally,
    draw_entropy,
    explain_each_row,
    visit_generator,
)
from shaplab.foundations._structure import PartialOrder, Unions, both_ways, read_structure
from shaplab.foundations._walks import outputs_along

__all__ = [
    "confidence_interval",
    "ime",
    "ime_literal",
    "permutation_shap",
    "permutation_shap_literal",
]

# A round has at least this many orderings, so that rounds that agree by chance (one background row,
# few features) do not pass for precision.
MIN_ORDERINGS = 16
# Orderings of all rounds together below which their spread is not shown as an error: intervals of
# 95% held 43 to 81% of the time for 2 to 24 of them, with one background row and with six.
ORDERINGS_FOR_ERROR = 32
# Samples of IME for each feature that can matter, unless the caller says how many.
SAMPLES = 100


def permutation_shap_literal(
    model: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    background: np.ndarray,
    orderings: np.ndarray,
) -> np.ndarray:
    """One round for one row ``x`` ``(d,)``: with each reference ``(B, d)`` its ordering ``(B, d)``
    and the same turned by half, both ways.

    Returns ``(d,)`` for a model of rows ``(n, d)`` with one output.
    """
    d = len(x)
    phi = np.zeros(d)
    for b, ordering in zip(background, orderings, strict=True):
        for turned in (ordering, np.roll(ordering, d // 2)):
            for way in (turned, turned[::-1]):
                hybrid = b.copy()
                before = float(model(hybrid[None])[0])
                for i in way:
                    hybrid[i] = x[i]
                    after = float(model(hybrid[None])[0])
                    phi[i] += after - before
                    before = after
    return phi / (4 * len(background))


def ime_literal(
    model: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    background: np.ndarray,
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Shapley values of one row ``x`` ``(d,)`` as IME samples them, in the paper's notation: an
    ordering and a reference row, one feature's step.

    Returns ``(d,)`` for a model of rows ``(n, d)`` with one output. Cost: ``2 * d * samples`` model
    rows.
    """
    d = len(x)
    phi = np.zeros(d)
    for i in range(d):
        for _ in range(samples):
            pi = rng.permutation(d)
            w = background[rng.integers(len(background))]
            before = pi[: np.flatnonzero(pi == i)[0]]
            # b1 and b2 of the source: the reference with and without feature i of the row.
            b1 = w.copy()
            b1[before] = x[before]
            b1[i] = x[i]
            b2 = w.copy()
            b2[before] = x[before]
            phi[i] += float(model(b1[None])[0]) - float(model(b2[None])[0])
    return phi / samples


class RowWalks(Sampler):
    """Antithetic walks for every background row: an ordering of its own, and the same one turned by
    half.

    Under a structure the way back is the opposite ordering that it leaves, and nothing is turned.
    """

    def __init__(
        self, evaluator: Evaluator, budget: Budget, structure: Unions | PartialOrder | None = None
    ) -> None:
        self.evaluator = evaluator
        self.structure = structure
        self.shape = (evaluator.n_rows, evaluator.n_active, evaluator.n_outputs)
        self.scale = evaluator.scale
        self.mark = {"method": "permutation_shap", "players": evaluator.label.tolist()}
        # What each reference counts, the mean being 1; many that hardly count are few.
        self.shares = np.ones(evaluator.n_references)
        if evaluator.weights is not None:
            self.shares = evaluator.weights * evaluator.n_references
            self.mark["weights"] = evaluator.weights.tolist()
        self.effective = max(1, round(evaluator.n_references / float((self.shares**2).mean())))
        # Walks with each reference, so that a small background has enough of them.
        self.repeats = -(-MIN_ORDERINGS // self.effective)
        # Two players need no second ordering: an antithetic walk is exact.
        players = evaluator.n_active
        self.turns = (0,) if players < 3 else (0, players // 2)
        if structure is not None:
            self.turns = (0,)
            # Enumeration would be that of all orderings.
            self.enumeration = np.where(evaluator.matters.any(axis=1), np.inf, 0.0)
            self.mark["structure"] = repr(structure)
        self.steps = self._steps()
        if budget.rounds is None and budget.max_evaluations is not None:
            self._fit_round(budget.max_evaluations)
        self.cost = self._round_cost()

    def _round_cost(self) -> np.ndarray:
        return 2.0 * len(self.turns) * self.repeats * self.steps

    def _fit_round(self, max_evaluations: int) -> None:
        """Make rounds smaller where the budget has no room for some of them: better many rounds of
        few orderings than two large ones, whose spread tells little."""
        evaluator = self.evaluator
        enumeration = evaluator.enumeration_cost if self.enumeration is None else self.enumeration
        room = max_evaluations - evaluator.evaluations

        def fits(rounds: int) -> bool:
            return float(np.minimum(rounds * self._round_cost(), enumeration).sum()) <= room

        full = self.repeats * len(self.turns)
        walks = full
        while True:
            self.known_after = max(2, -(-ORDERINGS_FOR_ERROR // (walks * self.effective)))
            if fits(max(MIN_ROUNDS, self.known_after)) or walks == 1:
                break
            if self.repeats > 1:
                self.repeats //= 2
            else:
                self.turns = (0,)
            walks = self.repeats * len(self.turns)
        # Few orderings that agree by chance are no precision: as many as ever must have been seen.
        self.least = -(-MIN_ROUNDS * full // walks)
        self.fewest = self.known_after if fits(self.known_after) else 1

    def _steps(self) -> np.ndarray:
        """Model rows ``(N,)`` of one way of a walk with every reference."""
        evaluator = self.evaluator
        parts = []
        for part in chunks(evaluator.n_rows, TASK_ROWS // evaluator.n_references):
            changes = evaluator.count_differences(np.arange(part.start, part.stop))
            # The last change ends at the explained row, whose output is known.
            parts.append(np.maximum(changes - 1, 0).sum(axis=1))
        return np.concatenate(parts)

    def visit(
        self, rows: np.ndarray, visits: np.ndarray, entropy: list[int]
    ) -> tuple[np.ndarray, int]:
        evaluator = self.evaluator
        players = evaluator.n_active
        # The first visit has walks 0 to walks - 1, the second the next ones, and so on. Walk number
        # k of a visit starts at reference k modulo their number.
        walks = evaluator.n_references * self.repeats
        keys = players if self.structure is None else self.structure.n_keys
        draws = np.concatenate(
            [
                _balanced_draws(visit_generator(entropy, row, visit), walks, keys)
                for row, visit in zip(rows, visits, strict=True)
            ]
        )
        together = evaluator.batch_size // max(1, 2 * (players - 1))
        total = np.zeros((len(rows), *self.shape[1:]))
        evaluations = 0
        for turn in self.turns:
            for part in chunks(len(draws), together):
                walk = np.arange(part.start, part.stop)
                visit_of_walk = walk // walks
                rank = self._ranks(draws[part] / walks, turn)
                # Both ways with the same reference.
                reference = walk % evaluator.n_references
                outputs, cost = outputs_along(
                    evaluator,
                    rank,
                    np.tile(rows[visit_of_walk], 2),
                    np.tile(reference, 2)[:, None],
                )
                evaluations += cost
                changes = np.diff(outputs[:, :, 0], axis=1)
                there, back = np.split(np.take_along_axis(changes, rank[:, :, None], axis=1), 2)
                steps = (there + back) / 2 * self.shares[reference][:, None, None]
                # Unlike a sum, add.at goes walk by walk, so that the batch size cannot change the
                # rounding.
                np.add.at(total, visit_of_walk, steps)
        return total / (walks * len(self.turns)), evaluations

    def _ranks(self, uniform: np.ndarray, turn: int) -> np.ndarray:
        """Places ``(2 w, p)`` of the players on the ways there, then on the ways back."""
        if self.structure is None:
            rank = _places(uniform)
            players = rank.shape[1]
            rank = (rank + turn) % players
            return np.concatenate([rank, players - 1 - rank])
        orders = np.concatenate(both_ways(self.structure, uniform))
        # Players who can change nothing have a place in the structure, but take no step.
        return _places(orders.argsort(axis=1)[:, self.evaluator.active])


def _places(keys: np.ndarray) -> np.ndarray:
    """The place of each number ``(w, p)`` when those of a row are sorted."""
    return np.asarray(keys.argsort(axis=1, kind="stable").argsort(axis=1))


def _balanced_draws(rng: np.random.Generator, walks: int, players: int) -> np.ndarray:
    """Uniform draws ``(walks, p)`` with each player's spread evenly over the walks (a Latin
    hypercube); their ranks in a walk are its ordering."""
    cells = rng.permuted(np.tile(np.arange(walks)[:, None], players), axis=0)
    return np.asarray(cells + rng.random((walks, players)))


def permutation_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    groups: Any = None,
    unions: Any = None,
    order: Any = None,
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
    """Shapley values of any model by antithetic walks over orderings, with standard errors.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``, such as ``estimator.predict_proba``, or a
        torch module. DataFrames reach it as DataFrames.
    X : array or DataFrame ``(N, d)``, rows to explain.
    background : array or DataFrame ``(B, d)``, used whole in every round.
    groups : lists of features explained together, by number or name, or a dict from group name to
        features.
    unions : list of lists of features (of groups, if there are any), by number or name: Owen
        values, of players who stay together with their union; nested lists give Winter values.
    order : list of levels (lists), every player of an earlier one before all of a later one, or
        list of pairs (tuples) ``(before, after)``: asymmetric Shapley values.
    weights : array ``(B,)``, what each background row counts in the mean; None: all alike. Whole
        numbers give what repeating rows would.
    rounds : int >= 2, rounds for every row; None: as many as ``thresh`` or ``max_evaluations``
        need.
    thresh : float, stop a row when its largest standard error is below this share of the spread of
        its values (largest minus smallest, zero included; of the output with the largest spread).
    max_evaluations : int, budget in model rows for the whole call. Rounds get smaller where it is
        small, down to one ordering there and back for each background row, ``2 (d - 1) B`` model
        rows. Fewer than two rounds, or than 32 orderings in all, give values, but standard errors
        that are NaN.
    rng : None, int or Generator; one seed gives the same numbers for any ``n_jobs``, backend and
        batch size.
    n_jobs : int, through joblib: ``joblib.parallel_config("dask")`` and others apply.
    batch_size : int, model rows in one call; bounds memory.
    progress : bool, show a bar of model rows with the forecast as its total.
    callback : called after every round with a dict (``round``, ``evaluations``, ``forecast``,
        ``ratio``, ``finished``); a true answer stops the run.
    state : path of a file that keeps the run after every round and from which the same call
        resumes.
    feature_names : names of the columns; those of a DataFrame by default.

    Returns
    -------
    Explanation
        ``values`` and ``std`` (standard errors) ``(N, d[, K])``, in the model's unit; ``info`` says
        what it cost (``evaluations``), why it ``stopped``, the ``rounds`` of each row, and which
        rows are ``exact``: where all coalitions of the features that can matter cost less than
        sampling, they are enumerated (not if ``rounds`` asks for sampling).

    Raises
    ------
    ValueError
        For a model that returns NaN, another number of rows, or other values for the same row. An
        exception from the model keeps its traceback; finished rounds are in its attribute
        ``partial``. After Ctrl-C, what has been computed is returned, ``info["stopped"]`` being
        ``"interrupted"``, once there are the two rounds that a standard error needs.

    Notes
    -----
    Estimates the marginal game: unbiased, additive without error, exact for interactions of at most
    two features.
    Under ``unions`` and ``order`` rounds are of orderings that respect them, each equally likely;
    the way back takes the opposite one that does. Values still add up; what they give up is
    symmetry. Nothing is enumerated then: :func:`shaplab.foundations.predictions.exact_shap` does.
    With few orderings, those of all background rows together, intervals may hold less often than
    they say where steps are skewed: with 36 to 60 of them 93 to 96% of the time for sums of
    interactions, trees and a network, 89 to 94% for the exponential of five features (the least for
    six background rows), and 94 to 95% from 120 on.
    Cost: ``4 (d - 1) B`` model rows a round and row (a background of fewer than 16 rows is walked
    more than once), less where features of row and reference agree. Standard errors come from ``R``
    independent rounds, so intervals use Student's t with ``R - 1`` degrees of freedom: see
    :func:`confidence_interval`.

    References
    ----------
    Strumbelj and Kononenko (2014), Algorithm 1; Methods 7-8 of Lundberg et al. (2020).

    Examples
    --------
    >>> product = lambda X: X[:, 0] * X[:, 1]
    >>> found = permutation_shap(product, np.ones((1, 2)), np.zeros((1, 2)), rng=0)
    >>> found.values
    array([[0.5, 0.5]])
    """
    budget = Budget(rounds, thresh, max_evaluations, rng, n_jobs, progress, callback, state)
    evaluator = Evaluator(model, X, background, groups, batch_size, feature_names, weights)
    structure = read_structure(evaluator.n_players, evaluator.names, unions, order)
    sampler = RowWalks(evaluator, budget, structure)

    def result(tally: Tally, info: dict[str, Any]) -> Explanation:
        values, std = sampler.summary(tally)
        how = "enumerated" if tally.exact.all() else "antithetic walks"
        info = info | {"rounds": np.where(tally.exact, 0, tally.count)}
        if structure is not None:
            how += f", {structure.name}"
        return evaluator.explanation(values, std, f"permutation_shap (marginal game, {how})", info)

    return SampledRun(sampler, budget).run(result)


def confidence_interval(
    explanation: Explanation, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Student intervals around sampled values.

    Parameters
    ----------
    explanation : Explanation with ``std`` and, in ``info["rounds"]``, the independent rounds behind
        it.
    level : float in (0, 1), the wanted coverage of each interval on its own.

    Returns
    -------
    low, high : arrays of the shape of ``values``.

    Examples
    --------
    >>> found = permutation_shap(lambda X: X.sum(axis=1), np.ones((1, 2)), np.zeros((1, 2)), rng=0)
    >>> confidence_interval(found)[0]
    array([[1., 1.]])
    """
    level = check_real(level, "level", low=0.0, high=1.0, open_low=True)
    has_errors = isinstance(explanation, Explanation) and explanation.std is not None
    if not has_errors or "rounds" not in explanation.info:
        fail(
            "explanation",
            "sampled values with standard errors",
            explanation,
            "Pass what permutation_shap, kernel_shap, loss_shap or sage sampled. "
            "Exact values need no interval; those of ime have errors, but no rounds",
        )
    std = np.asarray(explanation.std)
    if np.isnan(std).any():
        fail(
            "explanation",
            "values with standard errors",
            "NaN: too few rounds to know them",
            "Raise max_evaluations",
        )
    freedom = np.asarray(explanation.info["rounds"], dtype=float) - 1.0
    # Rounds are one number a row, or a row and feature; they count for all axes after these.
    axes_after = explanation.values.ndim - freedom.ndim
    freedom = freedom.reshape(freedom.shape + (1,) * axes_after)
    # An error of zero stays zero at any level, where the quantile may be infinite.
    quantile = student.ppf(0.5 + level / 2, np.maximum(freedom, 1.0))
    quantile = np.where(std == 0, 0.0, quantile)
    reach = std * quantile
    return explanation.values - reach, explanation.values + reach


class ImeRow(NamedTuple):
    """What IME finds for a row: values and standard errors ``(p, K)``, samples ``(p,)``, and model
    rows."""

    values: np.ndarray
    std: np.ndarray
    samples: np.ndarray
    evaluations: int


def _ime_row(
    evaluator: Evaluator, row: int, min_samples: int, samples: int | None, entropy: list[int]
) -> ImeRow:
    """Values of one row: enumerated where that is cheaper, else from samples that are shared among
    the features that can matter for it."""
    members = np.flatnonzero(evaluator.matters[row])
    values, std = np.zeros((2, evaluator.n_active, evaluator.n_outputs))
    counts = np.zeros(evaluator.n_active, dtype=int)
    if samples is None:
        samples = max(SAMPLES, min_samples) * len(members)
        enumeration = int(evaluator.enumeration_cost[row])
        if enumeration <= 2 * samples:
            exact = evaluator.exact_values(np.array([row]), evaluator.means, evaluator.n_outputs)
            return ImeRow(exact[0], std, counts, enumeration)
    if len(members) == 0:
        return ImeRow(values, std, counts, 0)
    means, errors, taken = _adaptive_means(evaluator, row, min_samples, samples, entropy)
    values[members] = means
    std[members] = errors
    counts[members] = taken
    return ImeRow(values, std, counts, 2 * int(taken.sum()))


def _adaptive_means(
    evaluator: Evaluator, row: int, min_samples: int, samples: int, entropy: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean steps and their standard errors ``(a, K)`` of the ``a`` features that can matter, and
    how many of the samples each got ``(a,)``."""
    n_features = int(evaluator.matters[row].sum())
    features = np.repeat(np.arange(n_features), min_samples)
    unit = unit_near(evaluator.scale)
    steps = _ime_steps(evaluator, row, features, entropy, 0) / unit
    steps = steps.reshape(n_features, min_samples, -1)
    # Means and squares of the distances from them (Welford): sums of squares would lose the spread
    # of a feature with large steps.
    mean = steps.mean(axis=1)
    squares = ((steps - mean[:, None]) ** 2).sum(axis=1)
    count = np.full(n_features, min_samples)
    visit = 0
    # A tenth of what is left after the first ones is spent between two looks at the variances; at
    # least one sample, so that the loop ends.
    portion = max(1, (samples - n_features * min_samples) // 10)
    while count.sum() < samples:
        variance = (squares / count[:, None]).sum(axis=1)
        features = _share_out(variance, count, min(portion, samples - int(count.sum())))
        visit += 1
        steps = _ime_steps(evaluator, row, features, entropy, visit) / unit
        for feature, step in zip(features, steps, strict=True):
            count[feature] += 1
            away = step - mean[feature]
            mean[feature] += away / count[feature]
            squares[feature] += away * (step - mean[feature])
    error = np.sqrt(squares / count[:, None] / np.maximum(count - 1, 1)[:, None])
    return unit * mean, unit * error, count


def _share_out(variance: np.ndarray, count: np.ndarray, samples: int) -> np.ndarray:
    """The features that get the next samples, one after the other: where the variance of the sum of
    all estimates falls most; where no feature has varied, evenly."""
    if not (variance > 0).any():
        variance = np.ones_like(variance)
    planned = count.astype(float)
    features = []
    for _ in range(samples):
        best = int(np.argmax(variance / planned - variance / (planned + 1)))
        planned[best] += 1
        features.append(best)
    return np.array(features)


def _ime_steps(
    evaluator: Evaluator, row: int, features: np.ndarray, entropy: list[int], visit: int
) -> np.ndarray:
    """One step ``(len(features), K)`` for each entry: the output with this feature, minus that
    without, after a random prefix.

    Features are counted among those that can matter for the row.
    """
    members = np.flatnonzero(evaluator.matters[row])
    count = len(features)
    rng = visit_generator(entropy, row, visit)
    rank = rng.random((count, len(members))).argsort(axis=1).argsort(axis=1)
    references = rng.integers(evaluator.n_references, size=count)
    if evaluator.weights is not None:
        references = rng.choice(evaluator.n_references, size=count, p=evaluator.weights)
    own = np.take_along_axis(rank, features[:, None], axis=1)
    with_it = rank <= own
    without_it = rank < own
    present = np.zeros((2 * count, evaluator.n_active), dtype=bool)
    present[:, members] = np.concatenate([with_it, without_it])
    outputs = evaluator.outputs(present, np.full(2 * count, row), np.tile(references, 2))
    return outputs[:count] - outputs[count:]


def ime(
    model: Any,
    X: Any,
    background: Any,
    *,
    samples: int | None = None,
    min_samples: int = 10,
    groups: Any = None,
    weights: Any = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 16384,
    progress: bool = False,
    feature_names: Any = None,
) -> Explanation:
    """Shapley values as IME samples them: single steps of random orderings, adaptively shared among
    features.

    Parameters
    ----------
    model, X, background, groups, weights, rng, n_jobs, batch_size, feature_names : as in
        :func:`permutation_shap`.
    samples : int, steps for each explained row, at least ``min_samples`` for every feature that can
        matter; two model rows each. None: 100 for every such feature, or ``min_samples`` if that is
        more, or all coalitions where that is cheaper.
    min_samples : int >= 2, steps for every feature before the rest go where the variance is
        largest.
    progress : bool, show a bar of explained rows.

    Returns
    -------
    Explanation with ``std``; ``info["samples"]`` ``(N, d)`` says how steps were shared out.

    Notes
    -----
    Estimates the marginal game. Values do not sum exactly to the prediction. With few
    ``min_samples`` a feature that matters rarely looks constant, gets no more samples, and both its
    value and its standard error are too small: this is the bias that the source reports. Prefer
    :func:`permutation_shap`; this is for comparison.

    References
    ----------
    Strumbelj and Kononenko (2014); Methods 8 of Lundberg et al. (2020).
    """
    min_samples = check_int(min_samples, "min_samples", minimum=2)
    evaluator = Evaluator(model, X, background, groups, batch_size, feature_names, weights)
    if samples is not None:
        most = int(evaluator.matters.sum(axis=1).max())
        samples = check_int(samples, "samples", minimum=max(1, most * min_samples))

    def result(rows: np.ndarray, done: list[ImeRow]) -> Explanation:
        cost = sum(part.evaluations for part in done)
        info = {
            "evaluations": int(evaluator.evaluations + cost),
            "samples": evaluator.expand(np.stack([part.samples for part in done])),
        }
        return evaluator.explanation(
            np.stack([part.values for part in done]),
            np.stack([part.std for part in done]),
            "ime (marginal game, adaptive samples)",
            info,
            rows,
        )

    settings = (min_samples, samples, draw_entropy(rng))
    return explain_each_row(evaluator, _ime_row, settings, n_jobs, result, progress)
