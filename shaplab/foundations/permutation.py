r"""Sampling orderings: Shapley values of any model, with standard errors.

The Shapley value is a mean over orderings, :math:`\varphi_i = E_\pi[v(P_i^\pi \cup i) -
v(P_i^\pi)]`, where
:math:`P_i^\pi` are the players before :math:`i`; a mean can be sampled. For the marginal game,
itself a mean over background rows :math:`b` of the games :math:`v_b(S) = f(x_S, b_{\bar S})`, one
*round* gives every
:math:`b` its own random ordering and walks it twice, once adding features in order to the empty
coalition and once to its complement (antithetic):

.. math:: \delta_i = \tfrac12\{[v_b(P \cup i) - v_b(P)] + [v_b(\bar P) - v_b(\bar P \setminus i)]\}.

It is unbiased, the sum over features is exact, and one round is exact for models with interactions
of at most two features. The same ordering turned by half is walked as well: of three players
another one is then mostly in the middle, so that errors cancel in part. Rounds are independent, so
their spread gives the standard error. Source: Strumbelj and Kononenko (2014), Methods 7-8 of
Lundberg et al. (2020). Cost: at most :math:`4(d-1)B` model rows a round and explained row; steps
between equal values cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import t as student

from shaplab._parallel import Crew, chunks
from shaplab._validation import check_int, check_real, fail, resolve_rng
from shaplab.explanation import Explanation
from shaplab.foundations._walks import (
    TASK_ROWS,
    Run,
    Sampler,
    Tables,
    check_stop,
    visit_generator,
    walk_steps,
)

__all__ = ["confidence_interval", "ime", "permutation_shap", "permutation_shap_literal"]

# A round has at least this many orderings, so that rounds that agree by chance (one background row,
# few features) do not pass for precision.
MIN_ORDERINGS = 16


def permutation_shap_literal(
    model: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    background: np.ndarray,
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Shapley values of one row as IME samples them: an ordering and a reference row, one feature's
    step.

    Returns ``(d,)`` for a model with one output. Cost: ``2 * d * samples`` model rows.
    """
    M = len(x)
    phi = np.zeros(M)
    for i in range(M):
        for _ in range(samples):
            pi = rng.permutation(M)
            w = background[rng.integers(len(background))]
            before = pi[: np.flatnonzero(pi == i)[0]]
            b1, b2 = w.copy(), w.copy()
            b1[before] = x[before]
            b1[i] = x[i]
            b2[before] = x[before]
            phi[i] += float(model(b1[None])[0]) - float(model(b2[None])[0])
    return phi / samples


class Walks(Sampler):
    """Antithetic walks over single-reference games, an own ordering, and its rotation, for every
    background row."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        p = tables.p
        self.repeat = -(-MIN_ORDERINGS // tables.size)
        # Two players need no second ordering: an antithetic walk is exact.
        self.turns = (0,) if p < 3 else (0, p // 2)
        self.shape = (tables.n, p, tables.K)
        moving = np.concatenate(
            [
                np.maximum(tables.moves(np.arange(s.start, s.stop)) - 1, 0).sum(axis=1)
                for s in chunks(tables.n, TASK_ROWS // tables.size)
            ]
        )
        self.cost = 2.0 * len(self.turns) * self.repeat * moving
        self.scale = tables.scale
        self.mark = {
            "method": "permutation_shap",
            "players": tables.label.tolist(),
        }

    def visit(
        self, rows: np.ndarray, visits: np.ndarray, entropy: list[int]
    ) -> tuple[np.ndarray, int]:
        t, p = self.tables, self.tables.p
        walks = t.size * self.repeat
        draws = np.concatenate(
            [
                _balanced(visit_generator(entropy, row, visit), walks, p)
                for row, visit in zip(rows, visits, strict=True)
            ]
        )
        total, evaluations = np.zeros((len(rows), p, t.K)), 0
        for turn in self.turns:
            for part in chunks(len(draws), t.batch_size // max(1, 2 * (p - 1))):
                walk = np.arange(part.start, part.stop)
                job = walk // walks
                rank = (draws[part].argsort(axis=1, kind="stable").argsort(axis=1) + turn) % p
                own = (walk % t.size)[:, None, None].repeat(2, axis=1)
                adding, removing, cost = t.both_ways(rank, rows[job], own)
                evaluations += cost
                # Unlike a sum, add.at goes walk by walk, so that the batch size cannot change the
                # rounding.
                np.add.at(total, job, walk_steps(adding[:, :, 0], removing[:, :, 0], rank))
        return total / (walks * len(self.turns)), evaluations


def _balanced(rng: np.random.Generator, walks: int, p: int) -> np.ndarray:
    """Uniform draws ``(walks, p)`` with each player's spread evenly over the walks (a Latin
    hypercube)."""
    return np.asarray(
        rng.permuted(np.tile(np.arange(walks)[:, None], p), axis=0) + rng.random((walks, p))
    )


def permutation_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
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
    """Shapley values of any model by antithetic walks over orderings, with standard errors.

    Parameters
    ----------
    model : callable ``(n, d) -> (n,)`` or ``(n, K)``, such as ``estimator.predict_proba``, or a
        torch module. DataFrames reach it as DataFrames.
    X : array or DataFrame ``(N, d)``, rows to explain.
    background : array or DataFrame ``(B, d)``, used whole in every round.
    groups : lists of features explained together, by number or name, or a dict from group name to
        features.
    rounds : int >= 2, rounds for every row; None: as many as ``thresh`` or ``max_evaluations``
        need.
    thresh : float, stop a row when its largest standard error is below this share of the spread of
        its values (largest minus smallest, zero included; of the output with the largest spread).
    max_evaluations : int, budget in model rows for the whole call; at least two rounds.
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
        ``"interrupted"``.

    Notes
    -----
    Estimates the marginal game: unbiased, additive without error, exact for interactions of at most
    two features.
    Cost: ``4 (d - 1) B`` model rows a round and row (a background of fewer than 16 rows is walked
    more than once), less where features of row and reference agree. Standard errors come from ``R``
    independent rounds, so intervals use Student's t with ``R - 1`` degrees of freedom: see
    :func:`confidence_interval`. Less than one round is not offered: its error is poor.

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
    goal, thresh, budget = check_stop(rounds, thresh, max_evaluations)
    tables = Tables(model, X, background, groups, batch_size, feature_names)
    run = Run(
        Walks(tables),
        rng=rng,
        rounds=goal,
        thresh=thresh,
        budget=budget,
        state=state,
        n_jobs=n_jobs,
        progress=progress,
        callback=callback,
    )

    def result(tally: Any, info: dict[str, Any]) -> Explanation:
        values, std = run.sampler.summary(tally)
        base = np.broadcast_to(tables.fb.mean(axis=0), tables.fx.shape)
        how = "enumerated" if tally.exact.all() else "antithetic walks"
        return tables.explanation(
            values,
            std,
            base,
            f"permutation_shap (marginal game, {how})",
            info | {"rounds": np.where(tally.exact, 0, tally.count)},
        )

    return run(result)


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
    known = isinstance(explanation, Explanation) and explanation.std is not None
    if not known or "rounds" not in explanation.info:
        fail(
            "explanation",
            "sampled values with standard errors",
            explanation,
            "Exact values need no interval",
        )
    freedom = np.asarray(explanation.info["rounds"], dtype=float) - 1.0
    freedom = freedom.reshape(freedom.shape + (1,) * (explanation.values.ndim - freedom.ndim))
    std = np.asarray(explanation.std)
    # An error of zero stays zero at any level, where the quantile may be infinite.
    quantile = student.ppf(0.5 + level / 2, np.maximum(freedom, 1.0))
    reach = np.where(std == 0, 0.0, std) * np.where(std == 0, 0.0, quantile)
    return explanation.values - reach, explanation.values + reach


def _ime_pairs(
    tables: Tables, row: int, feature: np.ndarray, entropy: list[int], visit: int
) -> np.ndarray:
    """One difference ``(len(feature), K)`` for each entry: this feature in, and out, after a random
    prefix.

    Features are counted among those that can matter for the row.
    """
    mine = np.flatnonzero(tables.able[row])
    rng = visit_generator(entropy, row, visit)
    rank = rng.random((len(feature), len(mine))).argsort(axis=1).argsort(axis=1)
    b = rng.integers(tables.size, size=len(feature))
    own = np.take_along_axis(rank, feature[:, None], axis=1)
    present = np.zeros((2 * len(feature), tables.p), dtype=bool)
    present[:, mine] = np.concatenate([rank <= own, rank < own])
    found = tables.outputs(present, np.full(len(present), row), np.tile(b, 2))
    return found[: len(feature)] - found[len(feature) :]


def _ime_row(
    tables: Tables, row: int, least: int, samples: int | None, entropy: list[int]
) -> tuple[Any, ...]:
    """Values, standard errors, samples of each feature, and model rows."""
    mine = np.flatnonzero(tables.able[row])
    p = len(mine)
    values, std = np.zeros((2, tables.p, tables.K))
    shared = np.zeros(tables.p, dtype=int)
    goal = 100 * p if samples is None else samples
    if samples is None and tables.listing[row] <= 2 * goal:
        values = tables.enumerated(np.array([row]), tables.means, tables.K)[0]
        return values, std, shared, int(tables.listing[row])
    if p == 0:
        return values, std, shared, 0
    count = np.full(p, least)
    found = _ime_pairs(tables, row, np.repeat(np.arange(p), least), entropy, 0).reshape(
        p, least, -1
    )
    total, square = found.sum(axis=1), (found**2).sum(axis=1)
    visit = 0
    # Every turn adds at least one sample.
    while count.sum() < goal:
        variance = np.maximum(square / count[:, None] - (total / count[:, None]) ** 2, 0.0).sum(
            axis=1
        )
        # Samples go where the variance of the sum of all estimates falls most; a tenth of them
        # before a new look.
        chosen, planned = [], count.astype(float)
        for _ in range(min(max(1, (goal - p * least) // 10), goal - int(count.sum()))):
            best = int(np.argmax(variance / planned - variance / (planned + 1)))
            planned[best] += 1
            chosen.append(best)
        visit += 1
        feature = np.array(chosen)
        more = _ime_pairs(tables, row, feature, entropy, visit)
        np.add.at(total, feature, more)
        np.add.at(square, feature, more**2)
        count = planned.astype(int)
    mean = total / count[:, None]
    spread = np.maximum(square / count[:, None] - mean**2, 0.0) / np.maximum(count - 1, 1)[:, None]
    values[mine], std[mine], shared[mine] = mean, np.sqrt(spread), count
    return values, std, shared, 2 * int(count.sum())


def each_row(
    tables: Tables,
    function: Callable[..., Any],
    settings: tuple[Any, ...],
    n_jobs: int | None,
    result: Callable[[np.ndarray, list[Any]], Explanation],
) -> Explanation:
    """``result`` of rows and of what ``function(tables, row, *settings)`` found for them; finished
    rows are kept."""
    try:
        found = Crew(tables, n_jobs).run(function, [(row, *settings) for row in range(tables.n)])
        return result(np.arange(tables.n), found)
    except (Exception, KeyboardInterrupt) as problem:
        done = {
            i: part for i, part in enumerate(getattr(problem, "finished", [])) if part is not None
        }
        if not done:
            raise
        kept, interrupted = (
            result(np.array([*done]), [*done.values()]),
            isinstance(problem, KeyboardInterrupt),
        )
        why = {"stopped": "interrupted" if interrupted else "error", "rows": np.array([*done])}
        kept = replace(kept, info={**kept.info, **why})
        if interrupted:
            return kept
        problem.partial = kept  # type: ignore[union-attr]
        problem.add_note("Finished rows are kept in this exception's attribute .partial.")
        raise


def ime(
    model: Any,
    X: Any,
    background: Any,
    *,
    samples: int | None = None,
    min_samples: int = 10,
    groups: Any = None,
    rng: Any = None,
    n_jobs: int | None = None,
    batch_size: int = 16384,
    feature_names: Any = None,
) -> Explanation:
    """Shapley values as IME samples them: single steps of random orderings, adaptively shared among
    features.

    Parameters
    ----------
    model, X, background, groups, rng, n_jobs, batch_size, feature_names : as in
        :func:`permutation_shap`.
    samples : int, steps for each explained row, at least ``min_samples`` for every feature that can
        matter; two model rows each. None: 100 for every such feature, or all coalitions where that
        is cheaper.
    min_samples : int >= 2, steps for every feature before the rest go where the variance is
        largest.

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
    least = check_int(min_samples, "min_samples", minimum=2)
    tables = Tables(model, X, background, groups, batch_size, feature_names)
    most = int(tables.able.sum(axis=1).max())
    if samples is not None:
        samples = check_int(samples, "samples", minimum=max(1, most * least))
    entropy = [int(word) for word in resolve_rng(rng).integers(0, 2**63, size=2)]

    def result(rows: np.ndarray, found: list[Any]) -> Explanation:
        values, std, count, cost = (np.stack(part) for part in zip(*found, strict=True))
        base = np.broadcast_to(tables.fb.mean(axis=0), (len(rows), tables.K))
        info = {
            "evaluations": int(tables.evaluations + cost.sum()),
            "samples": tables.expand(count),
        }
        return tables.explanation(
            values, std, base, "ime (marginal game, adaptive samples)", info, rows
        )

    return each_row(tables, _ime_row, (least, samples, entropy), n_jobs, result)
