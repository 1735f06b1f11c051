r"""Twenty-one grades for explanation methods, as defined in Methods 11 of Lundberg et al. 2020.

*Runtime*: seconds for 1,000 rows, preparation plus ten times the time for 100. *Local accuracy*:
nine levels of

.. math:: \sigma = \sqrt{E[(f(x) - \varphi_0 - \sum_i \varphi_i)^2]} \Big/ \sqrt{E[f(x)^2]} .

*Consistency*: what is proved about the method. The other eighteen *keep* or *remove* the features
that a method ranks first, by *positive*, *negative* or *absolute* value, and hide the others by
their training mean (*mask*), by training rows (*resample*, outputs averaged over the draws), or by
the Gaussian conditional mean (*impute*)

.. math:: E[x_h \mid x_k] = \mu_h + \Sigma_{hk} \Sigma_{kk}^{-1} (x_k - \mu_k).

At eleven shares of features from 0 to 1 the curve is the mean output (positive, negative) or R2 or
AUC (absolute); the grade is the area under it. Features whose value has the other sign are never
kept by keep positive or negative, and never removed by remove positive or negative. Cost: 66 model
rows a row for mask and impute, 66 a draw for resample.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from shaplab._atomic import write_atomically
from shaplab._figures import COLOURS, INK, axes, escape, tell
from shaplab._gaussian import correlations
from shaplab._parallel import chunks, run_tasks, spawn
from shaplab._units import unit_near

from shaplab._validation import (  # isort: skip
    as_finite,
    as_matrix,
    check_callable,
    check_choice,
    check_int,
    check_outputs,
    check_real,
    fail,
    imported,
    is_frame,
    resolve_rng,
)

__all__ = [
    "METRICS",
    "Hider",
    "explanation_metrics",
    "grade_methods",
    "local_accuracy_score",
    "plot_tiles",
    "scale_tiles",
]

_VERBS = ("keep", "remove")
_SIGNS = ("positive", "negative", "absolute")
_HIDING = ("mask", "resample", "impute")
METRICS = (
    "runtime",
    "local accuracy",
    "consistency",
    *(f"{verb} {sign} ({hiding})" for verb, sign, hiding in product(_VERBS, _SIGNS, _HIDING)),
)
# The source names three kinds of guarantee, and no numbers; these only order them.
GUARANTEES = {"exact": 1.0, "in the limit": 0.8, "none": 0.0}
# Copies of a column make correlations singular; this much noise leaves twelve digits to all others.
_RIDGE = 1e-12
# Local accuracy: below which sigma which score.
_ACCURACY_SCORES = (
    (1e-6, 1.0),
    (0.01, 0.9),
    (0.05, 0.75),
    (0.1, 0.6),
    (0.2, 0.4),
    (0.3, 0.3),
    (0.5, 0.2),
    (0.7, 0.1),
)


def local_accuracy_score(sigma: float) -> float:
    """Equations 7 to 14 and the ninth level: 1 below 1e-6, 0 from 0.7 on.

    Examples
    --------
    >>> [local_accuracy_score(s) for s in (0.0, 1e-6, 0.04, 0.7)]
    [1.0, 0.9, 0.75, 0.0]
    """
    size = check_real(sigma, "sigma", low=0.0)
    return next((score for bound, score in _ACCURACY_SCORES if size < bound), 0.0)


def curve_literal(
    f: Callable[..., Any],
    x: np.ndarray,
    phi: np.ndarray,
    hide: Callable[..., Any],
    verb: str,
    sign: str,
    counts: Any,
) -> list[float]:
    """Keep or remove positive or negative, for one row, one feature after the other: the model's
    outputs.

    ``hide(x, kept)`` gives the rows that stand for ``x`` when only ``kept`` is known; ties go to
    the first feature.
    """
    toward = phi if sign == "positive" else -phi
    largest_first = sorted(range(len(x)), key=lambda i: (-toward[i], i))
    ordering = [i for i in largest_first if toward[i] >= 0]
    outputs = []
    for count in counts:
        chosen = np.zeros(len(x), dtype=bool)
        chosen[ordering[:count]] = True
        kept = chosen if verb == "keep" else ~chosen
        outputs.append(float(np.mean(f(hide(x, kept)))))
    return outputs


class Hider:
    """Rows in which some features are hidden, in the source's three ways.

    Parameters
    ----------
    X_train : training rows ``(n, d)``.
    n_resample : draws of training rows for "resample"; the same for all methods and shares of
        features.
    rng : None, seed or Generator, for these draws.
    """

    def __init__(self, X_train: Any, *, n_resample: int = 100, rng: Any = None) -> None:
        self.rows = as_matrix(X_train, "X_train", finite=True).astype(float)
        self.mean = self.rows.mean(axis=0)
        self.spread, self.correlation = correlations(self.rows)
        n_resample = check_int(n_resample, "n_resample")
        self.draws = resolve_rng(rng).integers(len(self.rows), size=n_resample)

    def __call__(self, X: np.ndarray, kept: np.ndarray, hiding: str) -> np.ndarray:
        """Hidden rows ``(N, R, d)`` for ``X`` ``(N, d)`` and ``kept`` ``(N, d)`` bool; R = 1 unless
        resampled."""
        if np.shape(X)[1:] != self.mean.shape or np.shape(kept) != np.shape(X):
            fail(
                "kept",
                f"a mask of the shape of X, (N, {len(self.mean)})",
                f"shapes {np.shape(kept)}, {np.shape(X)}",
                "Pass rows with the columns of X_train",
            )
        if check_choice(hiding, "hiding", _HIDING) == "resample":
            return np.where(kept[:, None], X[:, None], self.rows[self.draws][None])
        filling = self.mean if hiding == "mask" else self._conditional_means(X, kept)
        return np.where(kept, X, filling)[:, None]

    def _conditional_means(self, X: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Gaussian means ``(N, d)`` of all features given the kept ones."""
        pair = kept[:, :, None] & kept[:, None, :]
        known = np.where(pair, self.correlation, 0.0)
        diagonal = np.arange(X.shape[1])
        # Hidden features get equations of their own, with the solution 0.
        variance = known[:, diagonal, diagonal] + _RIDGE
        known[:, diagonal, diagonal] = np.where(kept, variance, 1.0)
        away = np.where(kept, (X - self.mean) / self.spread, 0.0)
        solved = np.linalg.solve(known, away[..., None])[..., 0]
        return self.mean + solved @ self.correlation * self.spread


def _first_features(
    phi: np.ndarray, sign: str, counts: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """The features that come first, ``(counts, N, d)`` bool; ties in the order of ``noise``."""
    toward = {"positive": phi, "negative": -phi, "absolute": np.abs(phi)}[sign]
    rank = np.lexsort((noise, -toward), axis=1).argsort(axis=1)
    return (rank < counts[:, None, None]) & (toward >= 0)


def _accuracy(kind: str, y: np.ndarray, output: np.ndarray) -> float:
    """R2, or the area under the ROC curve: the share of pairs that the output ranks rightly."""
    if kind == "r2":
        unit = unit_near(y - y.mean())
        unexplained = (((y - output) / unit) ** 2).sum()
        return float(1 - unexplained / (((y - y.mean()) / unit) ** 2).sum())
    from scipy.stats import rankdata

    is_positive = y == 1
    n_positive = is_positive.sum()
    n_negative = len(y) - n_positive
    above_least = rankdata(output)[is_positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above_least / (n_positive * n_negative))


def _outputs_of(model: Callable[..., Any], table: np.ndarray, batch_rows: int) -> np.ndarray:
    """A model's outputs ``(n,)``, so many rows at a time."""
    batches = [table[part] for part in chunks(len(table), batch_rows)]
    outputs = np.concatenate([check_outputs(model(batch), len(batch)) for batch in batches])
    if outputs.ndim != 1:
        fail(
            "model",
            "one output a row",
            f"shape {outputs.shape}",
            "Grade the outputs of a model one by one",
        )
    return outputs


def _error_of_sums(phi: np.ndarray, base: Any, outputs: np.ndarray) -> float:
    """Sigma of local accuracy; without a base value the best one counts."""
    missing = outputs - phi.sum(axis=1)
    missing = missing - np.asarray(missing.mean() if base is None else base)
    unit = unit_near(outputs)
    size = np.sqrt(((outputs / unit) ** 2).mean())
    if size > 0:
        return float(np.sqrt(((missing / unit) ** 2).mean()) / size)
    return float(np.abs(missing).max() > 0)


def explanation_metrics(
    explain: Any,
    model: Any,
    X: Any,
    y: Any,
    hider: Hider,
    *,
    prepare_seconds: float = 0.0,
    guarantee: str = "none",
    accuracy: str = "r2",
    n_fractions: int = 11,
    batch_rows: int = 100_000,
    rng: Any = None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """All 21 metrics of one method, one model and one test set.

    Parameters
    ----------
    explain : callable ``(X)`` that returns an ``Explanation`` or values ``(N, d)``.
    model : callable ``(n, d) -> (n,)``.
    X, y : test rows ``(N, d)`` and targets ``(N,)``; 0 and 1 if ``accuracy="auc"``.
    hider : made from the training rows.
    prepare_seconds : time spent before the first row could be explained.
    guarantee : "exact", "in the limit" or "none"; what is proved about consistency.
    accuracy : "r2" or "auc", what keep and remove absolute measure.
    n_fractions : points of a curve.
    batch_rows : rows given to the model at once; bounds memory.
    rng : breaks ties between equal values.

    Returns
    -------
    metrics, curves : dicts, name in ``METRICS`` to raw value, and keep or remove metric to its
    ``(n_fractions,)``.
    """
    check_callable(model, "model")
    batch_rows = check_int(batch_rows, "batch_rows")
    prepare_seconds = check_real(prepare_seconds, "prepare_seconds", low=0.0)
    if not isinstance(hider, Hider):
        fail("hider", "a Hider", hider, "Make one from the training rows", TypeError)
    rows = as_matrix(X, "X", n_columns=len(hider.mean), finite=True).astype(float)
    n, d = rows.shape
    targets = as_finite(y, "y", (n,), "Pass one target for each row")
    _check_variety(targets, accuracy)
    consistency = GUARANTEES[check_choice(guarantee, "guarantee", tuple(GUARANTEES))]
    start = perf_counter()
    explained = check_callable(explain, "explain")(X)
    seconds = perf_counter() - start
    remedy = "Return one number for each row and feature"
    phi = as_finite(getattr(explained, "values", explained), "explain", (n, d), remedy)
    base = getattr(explained, "base_values", None)
    sigma = _error_of_sums(phi, base, _outputs_of(model, rows, batch_rows))
    metrics = {
        "runtime": prepare_seconds + seconds * 1000 / n,
        "local accuracy": local_accuracy_score(sigma),
        "consistency": consistency,
    }
    fractions = np.linspace(0, 1, check_int(n_fractions, "n_fractions", minimum=2))
    counts = np.rint(fractions * d).astype(int)
    noise = resolve_rng(rng).random((n, d))
    curves = {}
    for sign in _SIGNS:
        first = _first_features(phi, sign, counts, noise)
        for verb, hiding in product(_VERBS, _HIDING):
            curve = []
            for kept in first if verb == "keep" else ~first:
                hidden = hider(rows, kept, hiding)
                outputs = _outputs_of(model, hidden.reshape(-1, d), batch_rows)
                mean = outputs.reshape(n, -1).mean(axis=1)
                if sign == "absolute":
                    curve.append(_accuracy(accuracy, targets, mean))
                else:
                    curve.append(float(mean.mean()))
            name = f"{verb} {sign} ({hiding})"
            curves[name] = np.array(curve)
            metrics[name] = float(np.trapezoid(curves[name], fractions))
    return {name: metrics[name] for name in METRICS}, curves


def _check_variety(targets: np.ndarray, accuracy: str) -> None:
    """Require targets whose accuracy can be measured."""
    labels = set(targets.tolist())
    if check_choice(accuracy, "accuracy", ("r2", "auc")) == "auc" and labels != {0.0, 1.0}:
        fail(
            "y",
            "both 0 and 1 for accuracy='auc'",
            f"{len(labels)} distinct values",
            "Use accuracy='r2', or encode y",
        )
    if accuracy == "r2" and len(labels) < 2:
        fail(
            "y",
            "at least two distinct values for accuracy='r2'",
            f"{len(labels)}",
            "Take more test rows",
        )


def _orientation(metric: str) -> float:
    """+1 if larger is better: keep positive, remove negative, keep absolute and the two
    guarantees."""
    smaller_is_better = ("runtime", "keep negative", "remove positive", "remove absolute")
    return -1.0 if metric.startswith(smaller_is_better) else 1.0


@dataclass(frozen=True)
class _Contest:
    """What is the same for all models and splits: the arguments of :func:`grade_methods`."""

    X: Any
    y: np.ndarray
    methods: Mapping[str, Any]
    guarantees: Mapping[str, str]
    settings: dict[str, Any]

    def rows(self, chosen: np.ndarray) -> Any:
        """Some of the rows, as the kind of table that they came in."""
        return self.X.iloc[chosen] if hasattr(self.X, "iloc") else self.X[chosen]


def _grade_split(
    contest: _Contest,
    fit: Callable[..., Any],
    split: np.random.Generator,
    files: Mapping[str, Path | None],
) -> dict[str, Any]:
    """Grade the methods of one model on one split; each is written as soon as it is done."""
    settings = contest.settings
    order = split.permutation(len(contest.y))
    test = np.sort(order[: settings["n_test"]])
    train = np.sort(order[settings["n_test"] :])
    seed = int(split.integers(2**31))
    done = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in files.items()
        if path is not None and path.exists()
    }
    if len(done) == len(files):
        return done
    model = check_callable(fit(contest.rows(train), contest.y[train], seed), "model")
    hider = Hider(contest.rows(train), n_resample=settings["n_resample"], rng=seed)
    for name, path in files.items():
        if name in done:
            continue
        start = perf_counter()
        explain = contest.methods[name](model, contest.rows(train))
        prepared = perf_counter() - start
        metrics, curves = explanation_metrics(
            explain,
            model,
            contest.rows(test),
            contest.y[test],
            hider,
            prepare_seconds=prepared,
            guarantee=contest.guarantees.get(name, "none"),
            accuracy=settings["accuracy"],
            n_fractions=settings["n_fractions"],
            rng=seed,
        )
        listed = {key: curve.tolist() for key, curve in curves.items()}
        done[name] = {"metrics": metrics, "curves": listed}
        if path is not None:
            _keep(path, done[name])
    return done


def _keep(path: Path, grades: dict[str, Any]) -> None:
    text = json.dumps(grades).encode()
    write_atomically(path, lambda file: file.write(text))


def grade_methods(
    methods: Mapping[str, Any],
    models: Mapping[str, Any],
    X: Any,
    y: Any,
    *,
    guarantees: Mapping[str, str] | None = None,
    accuracy: str = "r2",
    n_splits: int = 10,
    n_test: int = 100,
    n_fractions: int = 11,
    n_resample: int = 100,
    store: Any = None,
    rng: Any = None,
    n_jobs: int | None = None,
    progress: bool = False,
) -> Any:
    """Grade explanation methods on models refitted on random splits.

    Parameters
    ----------
    methods : name to callable ``(model, X_train)`` that prepares and returns ``explain(X)``, which
        gives an ``Explanation`` or values ``(N, d)``.
    models : name to callable ``(X_train, y_train, seed)`` that returns a fitted callable ``(n, d)
        -> (n,)``, for example a ``TreeEnsemble``.
    X, y : all rows ``(n, d)`` and targets ``(n,)``.
    guarantees : name of a method to "exact", "in the limit" or "none" (the default).
    accuracy, n_fractions : as in :func:`explanation_metrics`.
    n_splits, n_test : random splits, and test rows of each; the other rows train.
    n_resample : draws for the resample metrics.
    store : folder; every finished method, model and split is kept there as JSON, and a second call
        with the same data and settings goes on where the first stopped. Names stand for what they
        name: after changing a method or model give it a new name.
    rng, n_jobs, progress : seed, joblib workers, progress bar. Runtimes are only fair with one
        worker.

    Returns
    -------
    DataFrame, tidy: one row for each ``model``, ``split``, ``method`` and ``metric`` with ``value``
    (raw: seconds, level or area), ``score`` (the same, signed so that larger is better) and
    ``curve`` (tuple, empty for the first three metrics).

    References
    ----------
    Lundberg et al. 2020, Methods 11, Figure 3, Supplementary Figures 4 and 5.
    """
    pd = imported("pandas", "grade_methods")
    n_test = check_int(n_test, "n_test", minimum=2)
    n_splits = check_int(n_splits, "n_splits")
    table = as_matrix(X, "X", finite=True)
    targets = as_finite(y, "y", (len(table),), "Pass one target for each row")
    if n_test + 2 > len(targets):
        fail(
            "n_test",
            f"at most {len(targets) - 2}, so that rows are left to train on",
            f"{n_test}",
            "Take fewer",
        )
    _check_callables(methods, "methods")
    _check_callables(models, "models")
    guarantees = dict(guarantees or {})
    for name, proved in guarantees.items():
        check_choice(name, "guarantees", tuple(methods))
        check_choice(proved, f"guarantees[{name!r}]", tuple(GUARANTEES))
    if not isinstance(store, str | os.PathLike | None):
        fail("store", "the path of a folder, or None", store, "Pass text or a Path", TypeError)
    generator = resolve_rng(rng)
    # What results depend on, beside the data and the names.
    settings = {
        "accuracy": accuracy,
        "n_test": n_test,
        "n_fractions": n_fractions,
        "n_resample": n_resample,
    }
    contest = _Contest(X if is_frame(X) else table, targets, methods, guarantees, settings)
    told = [settings, generator.bit_generator.state, guarantees]
    question = json.dumps(told, sort_keys=True, default=str).encode()
    digest = hashlib.sha256(question + table.tobytes() + targets.tobytes()).hexdigest()
    folder = None if store is None else Path(store)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    entropy = generator.integers(2**31, size=n_splits)
    keys = list(product(models, range(n_splits)))
    tasks = []
    for model, number in keys:
        files = {name: _grade_file(folder, [digest, model, number, name]) for name in methods}
        # The same split for every model, whatever else is graded.
        split = spawn(np.random.default_rng(int(entropy[number])), 1)[0]
        tasks.append((contest, models[model], split, files))
    graded = run_tasks(_grade_split, tasks, n_jobs=n_jobs, progress=progress, description="grades")
    lines = []
    for (model, number), done in zip(keys, graded, strict=True):
        for name in methods:
            for metric, value in done[name]["metrics"].items():
                line = {"model": model, "split": number, "method": name, "metric": metric}
                line["value"] = value
                line["score"] = _orientation(metric) * value
                line["curve"] = tuple(done[name]["curves"].get(metric, ()))
                lines.append(line)
    return pd.DataFrame(lines)


def _check_callables(named: Any, argument: str) -> None:
    """Require a dictionary of names and callables."""
    if not isinstance(named, Mapping) or not named:
        fail(
            argument,
            "at least one name",
            named or "none",
            "Pass a dictionary of names and callables",
        )
    for name, item in named.items():
        check_callable(item, f"{argument}[{name!r}]")


def _grade_file(folder: Path | None, key: list[Any]) -> Path | None:
    """Where the grades of one data set, model, split and method are kept."""
    if folder is None:
        return None
    return folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"


def scale_tiles(grades: Any, model: str) -> Any:
    """Mean scores of one model, each metric scaled to [0, 1] from the worst to the best method,
    best method on top.

    Runtime is scaled by its logarithm. A metric on which all methods agree is 1 for all. Returns a
    DataFrame, methods by metrics, with the mean of a row as its last column, "mean".
    """
    if not is_frame(grades) or not {"model", "method", "metric", "score"} <= set(grades.columns):
        fail(
            "grades",
            "the table of grade_methods",
            grades,
            "Pass it whole, or some of its rows",
            TypeError,
        )
    part = grades[grades["model"] == model]
    if len(part) == 0:
        fail(
            "model",
            f"one of {', '.join(map(repr, grades['model'].unique()))}",
            repr(model),
            "Check the spelling",
        )
    table = part.pivot_table(
        index="method", columns="metric", values="score", aggfunc="mean", sort=False
    )
    table = table[[metric for metric in METRICS if metric in table]]
    if "runtime" in table:
        table["runtime"] = -np.log(np.maximum(-table["runtime"], 1e-9))
    span = table.max() - table.min()
    # Where all methods agree but for rounding, nobody is worse.
    span = span.where(span > 1e-9 * table.abs().max(), np.nan)
    scaled = ((table - table.min()) / span).fillna(1.0)
    scaled["mean"] = scaled.mean(axis=1)
    return scaled.sort_values("mean", ascending=False, kind="stable")


def plot_tiles(grades: Any, model: str, *, ax: Any = None) -> Any:
    """Figure 3 of the source for one model: a tile for each method and metric, bright is best, 0 to
    100.

    ``grades`` come from ``grade_methods``, ``model`` is the name of one in it.
    """
    scaled = scale_tiles(grades, model)
    tiles = scaled.to_numpy().T
    ax = axes(ax, 0.62 * tiles.shape[1] + 2.2, 0.27 * len(tiles) + 1.6)
    ax.imshow(tiles, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    for (metric, method), value in np.ndenumerate(tiles):
        color = "white" if value < 0.55 else INK
        text = f"{100 * value:.0f}"
        ax.text(method, metric, text, ha="center", va="center", color=color)
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(tiles.shape[1]), map(escape, scaled.index), **slanted)
    ax.set_yticks(range(len(tiles)), scaled.columns)
    ax.set_title(escape(model))
    return tell(ax, lambda: scaled)
