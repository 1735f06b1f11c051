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
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from shaplab._figures import COLOURS, INK, axes, escape, tell
from shaplab._gaussian import correlations
from shaplab._parallel import run_tasks, spawn

from shaplab._validation import (  # isort: skip
    as_finite,
    as_matrix,
    check_callable,
    check_choice,
    check_int,
    check_outputs,
    check_real,
    fail,
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

_SIGNS, _HIDING = ("positive", "negative", "absolute"), ("mask", "resample", "impute")
METRICS = (
    "runtime",
    "local accuracy",
    "consistency",
    *(
        f"{verb} {sign} ({hiding})"
        for verb in ("keep", "remove")
        for sign in _SIGNS
        for hiding in _HIDING
    ),
)
# The source names three kinds of guarantee, and no numbers; these only order them.
GUARANTEES = {"exact": 1.0, "in the limit": 0.8, "none": 0.0}
# Copies of a column make correlations singular; this much noise leaves twelve digits to all others.
_RIDGE = 1e-12
_LEVELS = (
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
    return next((score for bound, score in _LEVELS if size < bound), 0.0)


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
    ordering = [i for i in sorted(range(len(x)), key=lambda i: (-toward[i], i)) if toward[i] >= 0]
    outputs = []
    for count in counts:
        chosen = np.zeros(len(x), dtype=bool)
        chosen[ordering[:count]] = True
        outputs.append(float(np.mean(f(hide(x, chosen if verb == "keep" else ~chosen)))))
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
        self.draws = resolve_rng(rng).integers(
            len(self.rows), size=check_int(n_resample, "n_resample")
        )

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
        if hiding == "mask":
            return np.where(kept, X, self.mean)[:, None]
        pair = kept[:, :, None] & kept[:, None, :]
        known = np.where(pair, self.correlation, 0.0)
        diagonal = np.arange(X.shape[1])
        known[:, diagonal, diagonal] = np.where(kept, known[:, diagonal, diagonal] + _RIDGE, 1.0)
        away = np.where(kept, (X - self.mean) / self.spread, 0.0)
        solved = np.linalg.solve(known, away[..., None])[..., 0]
        return np.where(kept, X, self.mean + solved @ self.correlation * self.spread)[:, None]


def _chosen(phi: np.ndarray, sign: str, counts: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The features that come first, ``(counts, N, d)`` bool; ties in the order of ``noise``."""
    toward = {"positive": phi, "negative": -phi, "absolute": np.abs(phi)}[sign]
    rank = np.lexsort((noise, -toward), axis=1).argsort(axis=1)
    return (rank < counts[:, None, None]) & (toward >= 0)


def _accuracy(kind: str, y: np.ndarray, output: np.ndarray) -> float:
    if kind == "r2":
        return float(1 - ((y - output) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    from scipy.stats import rankdata

    positive = y == 1
    rank, n = rankdata(output), positive.sum()
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(y) - n)))


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
    model, batch_rows = check_callable(model, "model"), check_int(batch_rows, "batch_rows")
    prepare_seconds = check_real(prepare_seconds, "prepare_seconds", low=0.0)
    if not isinstance(hider, Hider):
        fail("hider", "a Hider", hider, "Make one from the training rows", TypeError)
    rows = as_matrix(X, "X", n_columns=len(hider.mean), finite=True).astype(float)
    n, d = rows.shape
    targets = as_finite(y, "y", (n,), "Pass one target for each row")
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
    consistency = GUARANTEES[check_choice(guarantee, "guarantee", tuple(GUARANTEES))]
    start = perf_counter()
    found = check_callable(explain, "explain")(X)
    seconds = perf_counter() - start
    phi = as_finite(
        getattr(found, "values", found),
        "explain",
        (n, d),
        "Return one number for each row and feature",
    )

    def outputs(table: np.ndarray) -> np.ndarray:
        parts = [
            check_outputs(model(table[i : i + batch_rows]), len(table[i : i + batch_rows]))
            for i in range(0, len(table), batch_rows)
        ]
        joined = np.concatenate(parts)
        if joined.ndim != 1:
            fail(
                "model",
                "one output a row",
                f"shape {joined.shape}",
                "Grade the outputs of a model one by one",
            )
        return joined

    f_x = outputs(rows)
    missing = f_x - phi.sum(axis=1)
    missing = missing - np.asarray(getattr(found, "base_values", missing.mean()))
    size = np.sqrt((f_x**2).mean())
    sigma = (
        float(np.sqrt((missing**2).mean()) / size) if size > 0 else float(np.abs(missing).max() > 0)
    )
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
        chosen = _chosen(phi, sign, counts, noise)
        for verb in ("keep", "remove"):
            for hiding in _HIDING:
                curve = []
                for kept in chosen if verb == "keep" else ~chosen:
                    hidden = hider(rows, kept, hiding)
                    mean = outputs(hidden.reshape(-1, d)).reshape(n, -1).mean(axis=1)
                    curve.append(
                        _accuracy(accuracy, targets, mean)
                        if sign == "absolute"
                        else float(mean.mean())
                    )
                name = f"{verb} {sign} ({hiding})"
                curves[name] = np.array(curve)
                metrics[name] = float(np.trapezoid(curves[name], fractions))
    return {name: metrics[name] for name in METRICS}, curves


def _orientation(metric: str) -> float:
    """+1 if larger is better: keep positive, remove negative, keep absolute and the two
    guarantees."""
    return (
        -1.0
        if metric.startswith(("runtime", "keep negative", "remove positive", "remove absolute"))
        else 1.0
    )


def _task(
    fit: Callable[..., Any],
    X: Any,
    y: np.ndarray,
    methods: Mapping[str, Any],
    guarantees: Mapping[str, str],
    split: np.random.Generator,
    files: Mapping[str, Path | None],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Grade the methods of one model on one split; each is written as soon as it is done."""
    n_test, n_resample = options["n_test"], options["n_resample"]
    order = split.permutation(len(y))
    test, train = np.sort(order[:n_test]), np.sort(order[n_test:])
    take = (lambda rows: X.iloc[rows]) if hasattr(X, "iloc") else (lambda rows: X[rows])
    seed = int(split.integers(2**31))
    done = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in files.items()
        if path is not None and path.exists()
    }
    if len(done) == len(files):
        return done
    model = check_callable(fit(take(train), y[train], seed), "model")
    hider = Hider(take(train), n_resample=n_resample, rng=seed)
    for name, path in files.items():
        if name in done:
            continue
        start = perf_counter()
        explain = methods[name](model, take(train))
        prepared = perf_counter() - start
        metrics, curves = explanation_metrics(
            explain,
            model,
            take(test),
            y[test],
            hider,
            prepare_seconds=prepared,
            guarantee=guarantees.get(name, "none"),
            accuracy=options["accuracy"],
            n_fractions=options["n_fractions"],
            rng=seed,
        )
        done[name] = {
            "metrics": metrics,
            "curves": {key: curve.tolist() for key, curve in curves.items()},
        }
        if path is not None:
            with tempfile.NamedTemporaryFile(
                "w", dir=path.parent, delete=False, encoding="utf-8"
            ) as part:
                json.dump(done[name], part)
            os.replace(part.name, path)
    return done


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
    import pandas as pd

    n_test, n_splits = check_int(n_test, "n_test", minimum=2), check_int(n_splits, "n_splits")
    table = as_matrix(X, "X", finite=True)
    X, targets = (
        X if is_frame(X) else table,
        as_finite(y, "y", (len(table),), "Pass one target for each row"),
    )
    if n_test + 2 > len(targets):
        fail(
            "n_test",
            f"at most {len(targets) - 2}, so that rows are left to train on",
            f"{n_test}",
            "Take fewer",
        )
    for group, named in (("methods", methods), ("models", models)):
        if not isinstance(named, Mapping) or not named:
            fail(
                group,
                "at least one name",
                named or "none",
                "Pass a dictionary of names and callables",
            )
        for name, item in named.items():
            check_callable(item, f"{group}[{name!r}]")
    for name, proved in dict(guarantees or {}).items():
        check_choice(name, "guarantees", tuple(methods))
        check_choice(proved, f"guarantees[{name!r}]", tuple(GUARANTEES))
    if not isinstance(store, str | os.PathLike | None):
        fail("store", "the path of a folder, or None", store, "Pass text or a Path", TypeError)
    generator = resolve_rng(rng)
    options = {
        "accuracy": accuracy,
        "n_test": n_test,
        "n_fractions": n_fractions,
        "n_resample": n_resample,
    }
    state = json.dumps(
        [options, generator.bit_generator.state, dict(guarantees or {})],
        sort_keys=True,
        default=str,
    )
    digest = hashlib.sha256(state.encode() + table.tobytes() + targets.tobytes()).hexdigest()
    folder = None if store is None else Path(store)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    entropy = generator.integers(2**31, size=n_splits)
    tasks, keys = [], []
    for model in models:
        for split in range(n_splits):
            named = {
                name: hashlib.sha256(json.dumps([digest, model, split, name]).encode())
                for name in methods
            }
            files = {
                name: folder and folder / f"{key.hexdigest()[:32]}.json"
                for name, key in named.items()
            }
            # The same split for every model, whatever else is graded.
            seeded = spawn(np.random.default_rng(int(entropy[split])), 1)[0]
            tasks.append(
                (models[model], X, targets, methods, dict(guarantees or {}), seeded, files, options)
            )
            keys.append((model, split))
    found = run_tasks(_task, tasks, n_jobs=n_jobs, progress=progress, description="grades")
    return pd.DataFrame(
        [
            {
                "model": model,
                "split": split,
                "method": name,
                "metric": metric,
                "value": value,
                "score": _orientation(metric) * value,
                "curve": tuple(done[name]["curves"].get(metric, ())),
            }
            for (model, split), done in zip(keys, found, strict=True)
            for name in methods
            for metric, value in done[name]["metrics"].items()
        ]
    )


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
    )[[metric for metric in METRICS if metric in set(part["metric"])]]
    if "runtime" in table:
        table["runtime"] = -np.log(np.maximum(-table["runtime"], 1e-9))
    span = table.max() - table.min()
    scaled = ((table - table.min()) / span.where(span > 1e-9 * table.abs().max(), np.nan)).fillna(
        1.0
    )
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
    for (i, j), value in np.ndenumerate(tiles):
        ax.text(
            j,
            i,
            f"{100 * value:.0f}",
            ha="center",
            va="center",
            color="white" if value < 0.55 else INK,
        )
    ax.set_xticks(
        range(tiles.shape[1]),
        map(escape, scaled.index),
        rotation=45,
        ha="right",
        rotation_mode="anchor",
    )
    ax.set_yticks(range(len(tiles)), scaled.columns)
    ax.set_title(escape(model))
    return tell(ax, lambda: scaled)
