"""What additive models consist of: functions of one or two features, read from the libraries that
fit them.

No library is imported here: a model is known by its class and asked through its own methods.

Chapter: foundations/predictions
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from shaplab._pipelines import steps_before
from shaplab._remedies import sampled_instead
from shaplab._tables import columns, is_present, numeric_matrix
from shaplab._validation import UnsupportedModelError, as_matrix, column_names, fail, plain, shorten

__all__: list[str] = []


class Summand(NamedTuple):
    """A function of one or two features, with their values in the explained rows (``own``) and in
    the background (``other``)."""

    features: tuple[int, ...]
    function: Callable[..., Any]
    own: tuple[np.ndarray, ...]
    other: tuple[np.ndarray, ...]


def columns_as_arrays(X: Any, argument: str) -> list[np.ndarray]:
    """Columns of a table: numbers as floats, others as objects; missing cells of any kind are
    NaN."""
    if column_names(X) is None:
        return list(as_matrix(X, argument).T)
    found = []
    for column in columns(X):
        if column.numbers is not None:
            found.append(column.numbers)
            continue
        cells = np.empty(len(column.source), dtype=object)
        cells[:] = [cell if is_present(cell) else np.nan for cell in column.cells()]
        found.append(cells)
    return found


def boosting_machine_summands(model: Any, X: Any, background: Any) -> list[Summand]:
    """Terms of an explainable boosting machine as tables on its own bins."""
    for features, name in zip(model.term_features_, model.term_names_, strict=True):
        if len(features) > 2:
            fail(
                "model",
                "terms of one or two features",
                f"the term {shorten(name)!r} of {len(features)}",
                f"Fit with pairs only, or sample: {sampled_scores(model)}",
                UnsupportedModelError,
            )
    check_fitted_columns(model, X)
    parts = (model.term_features_, model.term_scores_)
    bins = (_bin_numbers(model, X), _bin_numbers(model, background))
    return [
        Summand(tuple(features), partial(_looked_up, np.asarray(scores)), own, other)
        for features, scores, own, other in zip(*parts, *bins, strict=True)
    ]


def check_fitted_columns(model: Any, X: Any) -> None:
    """Require the columns, in the order, that a model was fitted on, where it knows their names."""
    known = [str(name) for name in getattr(model, "feature_names_in_", ())]
    if known and X.shape[1] != len(known):
        fail(
            "X",
            f"{len(known)} columns",
            f"{X.shape[1]}",
            "Pass the columns the model was fitted on",
        )
    names = column_names(X)
    if known and names is not None and names != known and set(names) & set(known):
        fail(
            "X",
            f"the model's columns {shorten(', '.join(known))}",
            shorten(", ".join(names)),
            "Select them in its order: X[list(model.feature_names_in_)]",
        )


def _looked_up(scores: np.ndarray, *bins: np.ndarray) -> np.ndarray:
    return np.asarray(scores[bins])


def _bin_numbers(model: Any, X: Any) -> list[tuple[np.ndarray, ...]]:
    """The bins that rows fall into, for each term and each of its features.

    How values become bins (missing, unknown, text, other bins in pairs than alone) is the model's
    own affair, so its own reader is asked: in a copy whose scores are the places in each table.
    """
    shapes = [
        np.shape(scores)[: len(features)]
        for features, scores in zip(model.term_features_, model.term_scores_, strict=True)
    ]
    asked = copy.copy(model)
    asked.term_scores_ = [np.arange(float(np.prod(shape))).reshape(shape) for shape in shapes]
    asked.intercept_ = 0.0
    places = asked.eval_terms(X).astype(int)
    return [
        tuple(np.unravel_index(places[:, number], shape)) for number, shape in enumerate(shapes)
    ]


def through_steps(
    model: Any, X: Any, background: Any, n_features: int
) -> tuple[Any, Any, np.ndarray]:
    """Both tables as the last step of a pipeline sees them, and the column of X that each of their
    columns comes from."""
    before = steps_before(model, n_features, _instead_of_columns(model))
    if before is None:
        return X, background, np.arange(X.shape[1])
    ours = before.features(X, "X")
    theirs = before.features(background, "background")
    if before.declared:
        before.check_declared(
            (X, _cells(ours)),
            (background, _cells(theirs)),
            lambda rows: _cells(before.features(rows, "X")),
        )
    return ours, theirs, before.owner


def sampled_scores(model: Any) -> str:
    """The call that samples a model on the scale on which its terms add up."""
    return sampled_instead(model, probability=not hasattr(model, "decision_function"))


def _instead_of_columns(model: Any) -> str:
    """What works for a pipeline that leaves no game of columns."""
    return (
        "Run the steps yourself and explain their outputs: pass model[-1] as model, "
        "model[:-1].transform(X) as X and model[:-1].transform(background) as background; or "
        f"sample the pipeline: {sampled_scores(model)}"
    )


def _cells(features: Any) -> np.ndarray:
    """Features as one array, whatever table a step makes."""
    if column_names(features) is None:
        return np.asarray(plain(features))
    found = columns_as_arrays(features, "X")
    return np.stack([column.astype(object) for column in found], axis=1)


def linear_parts(model: Any, X: Any, background: Any) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Numbers of both tables, weights ``(K, d)`` and constants ``(K,)`` of a fitted linear
    model."""
    as_numbers_of = as_matrix if column_names(X) is None else numeric_matrix
    own = as_numbers_of(X, "X").astype(np.float64)
    other = as_numbers_of(background, "background").astype(np.float64)
    origin = np.zeros((1, own.shape[1]))
    if hasattr(model, "get_booster"):  # gblinear, to which a missing number adds nothing
        stored = json.loads(bytes(model.get_booster().save_raw("json")))
        numbers = stored["learner"]["gradient_booster"]["model"]["weights"]
        weights = np.reshape(numbers, (own.shape[1] + 1, -1))[:-1].T
        missing = np.nan if model.missing is None else model.missing
        own, other = (np.where(np.isnan(t) | (t == missing), 0.0, t) for t in (own, other))
        # Zero may be missing, which adds as little.
        margin = model.predict(origin, output_margin=True, validate_features=False)
        return own, other, weights, np.ravel(margin)
    coefficients = model.coef_
    if hasattr(coefficients, "toarray"):  # after sparsify()
        coefficients = coefficients.toarray()
    weights = np.atleast_2d(np.asarray(coefficients, dtype=np.float64))
    constants = np.broadcast_to(np.ravel(model.intercept_), weights.shape[:1])
    if hasattr(model, "x_rotations_"):  # partial least squares: slopes of centred columns
        nameless = copy.copy(model)  # else it warns of an array, where a table fitted it
        vars(nameless).pop("feature_names_in_", None)
        constants = np.ravel(nameless.predict(origin))
    return own, other, weights, constants
