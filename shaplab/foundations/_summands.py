"""What additive models consist of: functions of one or two features, read from the libraries that
fit them.

No library is imported here: a model is known by its class and asked through its own methods.

Chapter: foundations/predictions
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from shaplab._tables import columns, is_present, numeric_matrix
from shaplab._validation import UnsupportedModelError, as_matrix, column_names, fail, shorten

__all__: list[str] = []

# Transformers of scikit-learn that make one column of each column, from that column alone.
_COLUMN_BY_COLUMN = {
    "Binarizer",
    "MaxAbsScaler",
    "MinMaxScaler",
    "OrdinalEncoder",
    "PowerTransformer",
    "QuantileTransformer",
    "RobustScaler",
    "SimpleImputer",
    "StandardScaler",
    "TargetEncoder",
}


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


def sampling_call(model: Any) -> str:
    """The call that explains any model, with the method of this one that gives numbers."""
    methods = ("decision_function", "predict_proba", "predict")
    named = [method for method in methods if hasattr(model, method)]
    asked = f"model.{named[0]}" if named else "model"
    return f"permutation_shap({asked}, X, background)"


def boosting_machine_summands(model: Any, X: Any, background: Any) -> list[Summand]:
    """Terms of an explainable boosting machine as tables on its own bins."""
    for features, name in zip(model.term_features_, model.term_names_, strict=True):
        if len(features) > 2:
            fail(
                "model",
                "terms of one or two features",
                f"the term {shorten(name)!r} of {len(features)}",
                f"Fit with pairs only, or sample: {sampling_call(model)}",
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
    steps: Iterable[Any], X: Any, background: Any, n_columns: int
) -> tuple[Any, Any, np.ndarray]:
    """Both tables as the last step of a pipeline sees them, and the column of X that each of their
    columns comes from."""
    owner = np.arange(n_columns)
    for step in steps:
        if step is None or step == "passthrough":
            continue
        names = column_names(X)
        X, background = step.transform(X), step.transform(background)
        owner = owner[_sources(step, len(owner), X.shape[1], names)]
    return X, background, owner


def _sources(step: Any, n_in: int, n_out: int, names: list[str] | None) -> np.ndarray:
    """The input column of each output column of a fitted transformer: ``(n_out,)``."""
    kind = type(step).__name__
    if step != "passthrough" and not type(step).__module__.startswith("sklearn."):
        kind = f"{type(step).__module__}.{kind}"  # another thing under a known name
    if kind == "ColumnTransformer":
        return _sources_of_parts(step, n_in, n_out, names)
    if kind == "Pipeline":
        return _sources_of_chain(step, n_in, n_out, names)
    each: Any = None
    identity = kind == "FunctionTransformer" and step.func is None
    adds_columns = getattr(step, "add_indicator", False)
    if (step == "passthrough" or identity or kind in _COLUMN_BY_COLUMN) and not adds_columns:
        each = np.ones(n_in, dtype=int)
    elif kind == "SplineTransformer":
        each = np.full(n_in, n_out // n_in)
    elif kind == "KBinsDiscretizer":
        each = np.ones(n_in, dtype=int) if step.encode == "ordinal" else step.n_bins_
    elif kind == "OneHotEncoder":
        each = [len(labels) for labels in step.categories_]
        if step.drop_idx_ is not None:
            each = np.array(each) - [place is not None for place in step.drop_idx_]
    if each is None or np.sum(each) != n_out:
        fail(
            "model",
            "steps that make each column from one column, as scalers, one-hot encoding and splines "
            "do",
            f"a {kind} that makes {n_out} columns of {n_in}",
            "Transform X and background first and explain the last step alone, or sample with "
            "permutation_shap",
            UnsupportedModelError,
        )
    return np.repeat(np.arange(n_in), each)


def _sources_of_chain(step: Any, n_in: int, n_out: int, names: list[str] | None) -> np.ndarray:
    """The same for a pipeline of transformers; only what all its steps keep apart can be known."""
    source = np.arange(n_in)
    parts = [part for _, part in step.steps if part is not None]
    for part in parts:
        made = n_out if part is parts[-1] else len(part.get_feature_names_out())
        source = source[_sources(part, len(source), made, names)]
        names = None
    return source


def _sources_of_parts(step: Any, n_in: int, n_out: int, names: list[str] | None) -> np.ndarray:
    """The same for a ColumnTransformer, which puts outputs of its parts side by side."""
    source = np.full(n_out, -1)
    for name, part, key in step.transformers_:
        place = step.output_indices_[name]
        size = place.stop - place.start
        if size:
            chosen = _chosen(key, n_in, names)
            chosen_names = None if names is None else [names[column] for column in chosen]
            source[place] = chosen[_sources(part, len(chosen), size, chosen_names)]
    return source


def _chosen(key: Any, n_in: int, names: list[str] | None) -> np.ndarray:
    """Numbers of the columns that a ColumnTransformer's key stands for."""
    keys: Any = [key] if isinstance(key, str | int) else key
    if not isinstance(keys, slice) and names is not None and isinstance(next(iter(keys)), str):
        return np.array([names.index(name) for name in keys])
    return np.atleast_1d(np.arange(n_in)[keys])


def linear_parts(model: Any, X: Any, background: Any) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Numbers of both tables, weights ``(K, d)`` and constants ``(K,)`` of a fitted linear
    model."""
    as_numbers_of = as_matrix if column_names(X) is None else numeric_matrix
    coefficients = model.coef_
    if hasattr(coefficients, "toarray"):  # after sparsify()
        coefficients = coefficients.toarray()
    weights = np.atleast_2d(np.asarray(coefficients, dtype=np.float64))
    constants = np.broadcast_to(np.ravel(model.intercept_), weights.shape[:1])
    own = as_numbers_of(X, "X").astype(np.float64)
    return own, as_numbers_of(background, "background").astype(np.float64), weights, constants
