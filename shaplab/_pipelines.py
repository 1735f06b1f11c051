"""The steps before the model in scikit-learn's ``Pipeline``, and which column of the rows each
feature of the model comes from.

A feature made of one column is that column's: knowing the column is knowing the feature. So the
columns of the rows are players, and the features that a column becomes are a group. A step that
makes a feature of several columns leaves no such game, and the pipeline is refused by the name of
the step.

Each kind of step is traced by what it says about itself once it is fitted. One whose word is all
there is, a ``FunctionTransformer`` or a class that is not scikit-learn's own, is tried on mixtures
of rows where there are two rows to mix.
Cost: the steps' own, and about ``log2(d)`` calls on sixteen rows for a declared step.

Chapter: trees/path_dependent, "A pipeline, in the columns it was given".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from shaplab._remedies import additive_instead, features_of_sum, sampled_instead
from shaplab._rows import Rows, unequal
from shaplab._tables import take_rows
from shaplab._validation import (
    UnsupportedModelError,
    column_names,
    compare_names,
    fail,
    has,
    shorten,
)

__all__ = ["PipelineSteps", "at_the_end_of", "is_pipeline", "model_at_the_end", "steps_before"]

_SCALERS = {
    "StandardScaler",
    "MinMaxScaler",
    "MaxAbsScaler",
    "RobustScaler",
    "PowerTransformer",
    "QuantileTransformer",
    "Binarizer",
    "OrdinalEncoder",
}
_TRIED_ROWS = 8
# An object that answers to every name, such as a mock, would have a model inside for ever.
_MOST_NESTED = 100


@dataclass(frozen=True, eq=False)
class PipelineSteps:
    """Fitted steps, and the column ``owner[f]`` of each feature that comes out of them.

    ``declared`` names a step whose word is to be tried: see the module. ``instead`` says what works
    where there is no game of columns.
    """

    steps: tuple[Any, ...]
    owner: np.ndarray
    n_columns: int
    names: tuple[str, ...] | None
    declared: str
    instead: str

    def features(self, X: Any, argument: str) -> Any:
        """The rows as the model after the steps sees them."""
        given = column_names(X)
        if given is not None and self.names is not None:
            compare_names(list(self.names), given, given, argument, "the pipeline was fitted on")
        if len(X.shape) != 2 or X.shape[1] != self.n_columns:
            fail(
                argument,
                f"a table of {self.n_columns} columns",
                f"shape {tuple(X.shape)}",
                "Pass the columns the pipeline was fitted on, X[:1] for a single row",
            )
        rows = _as_steps_take(X)
        for step in self.steps:
            try:
                rows = step.transform(rows)
            except Exception as error:
                fail(
                    argument,
                    f"rows that the pipeline's {type(step).__name__} takes",
                    f"{type(error).__name__}: {shorten(error, 200).rstrip('.')}",
                    "Pass rows as the pipeline's own predict takes them",
                )
        if rows.shape[0] != X.shape[0]:
            fail(
                "model",
                "steps that keep the rows",
                f"{rows.shape[0]} rows of {X.shape[0]}",
                "Drop rows before the pipeline",
                UnsupportedModelError,
            )
        return rows

    def check_declared(
        self,
        own: tuple[Any, np.ndarray],
        other: tuple[Any, np.ndarray],
        encode: Callable[[Any], np.ndarray],
    ) -> None:
        """Try a step that says it works column by column: in a row mixed of two, each column's
        features must be those of the row it comes from; and alone, a row must be as among others.

        ``own`` and ``other`` are rows to mix and the features ``encode`` makes of them; other rows
        may be the same.
        """
        ours, theirs = own[1], other[1]
        n = min(_TRIED_ROWS, max(len(ours), len(theirs)))
        here = np.tile(np.arange(n) % len(ours), 2)
        there = np.tile(np.arange(1, n + 1) % len(theirs), 2)
        mix = _mixer(_first_rows(own[0], n + 1), _first_rows(other[0], n + 1), encode)
        same = _alike(encode(_first_rows(own[0], 1)), ours[:1])
        for bit in range(self.n_columns.bit_length()):
            chosen = np.arange(self.n_columns) >> bit & 1 == 1
            present = np.repeat([chosen, ~chosen], n, axis=0)
            expected = np.where(present[:, self.owner], ours[here], theirs[there])
            same = same and _alike(encode(mix(present, here, there)), expected)
        if not same:
            fail(
                "model",
                "steps that make each feature of one column",
                f"{self.declared}, which says so and mixes columns or rows",
                self.instead,
                UnsupportedModelError,
            )


def _as_steps_take(X: Any) -> Any:
    """Rows as scikit-learn's steps take them: Arrow tables as pandas."""
    return X.to_pandas() if has(X, "column_names", "to_pandas") else X


def _first_rows(X: Any, n: int) -> Any:
    """The first rows of a table, to be mixed with others."""
    rows = take_rows(_as_steps_take(X), slice(0, n))
    return rows.toarray() if has(rows, "tocoo") else rows


def _mixer(own: Any, other: Any, encode: Callable[[Any], np.ndarray]) -> Callable[..., Any]:
    """A function of ``(present, here, there)`` that mixes rows of two tables of any kind."""
    if column_names(own) is None and column_names(other) is None:
        return lambda present, here, there: np.where(present, own[here], other[there])
    return Rows(encode, own, other).mix


def _alike(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether features are the same. The last digits of functions such as ``tanh`` hang on how
    many numbers a processor takes at once."""
    different = unequal(found, expected)
    try:
        pairs = np.stack([found[different], expected[different]]).astype(np.float64)
    except (TypeError, ValueError):  # text
        return False
    return bool(np.allclose(pairs[0], pairs[1], rtol=1e-9, atol=0.0))


def is_pipeline(model: Any) -> bool:
    """Whether a model is scikit-learn's ``Pipeline``, or imbalanced-learn's."""
    kinds = {base.__name__ for base in type(model).__mro__}
    return "Pipeline" in kinds and hasattr(model, "steps")


@contextmanager
def at_the_end_of(model: Any) -> Iterator[None]:
    """Say of what cannot be read that it stands at the end of a pipeline."""
    try:
        yield
    except UnsupportedModelError as error:
        what = str(error).partition(". ")[0].removeprefix("model: ")
        exact = _additive_instead_of(model)
        fail(
            "model",
            "a pipeline whose last step can be read",
            f"{type(model.steps[-1][1]).__name__} ({what})",
            f"{exact}sample: {sampled_instead(model)}" if exact else _instead(model),
            UnsupportedModelError,
        )


def _instead(model: Any) -> str:
    """What works for a pipeline that leaves no game of columns."""
    return (
        "Run the steps yourself and explain their outputs: pass model[-1] as model and "
        f"model[:-1].transform(X) as rows; or sample the pipeline: {sampled_instead(model)}"
    )


def _additive_instead_of(model: Any) -> str:
    """The beginning of a remedy for a pipeline that is a sum of functions of its columns."""
    last = model_at_the_end(model)
    exact = additive_instead(last)
    if exact:
        try:
            steps_before(model, features_of_sum(last))
        except UnsupportedModelError:
            return ""
    return exact


def _taken_apart(model: Any) -> tuple[list[Any], Any]:
    """Steps, and the model after them: of pipelines at the end of others and of searches, too."""
    steps: list[Any] = []
    for _ in range(_MOST_NESTED):
        if is_pipeline(model):
            steps += [step for _, step in model.steps[:-1]]
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
        else:
            return steps, model
    fail(
        "model",
        f"at most {_MOST_NESTED} pipelines and searches inside each other",
        "more: a model that has itself as its last step or its best_estimator_",
        "Pass the model inside",
        UnsupportedModelError,
    )


def model_at_the_end(model: Any) -> Any:
    """The model after all steps, or the model itself."""
    return _taken_apart(model)[1]


def steps_before(model: Any, n_features: int, instead: str | None = None) -> PipelineSteps | None:
    """The fitted steps before the model at the end of ``model``, which has ``n_features``; None
    where there are none. ``instead`` is the remedy where there is no game of columns, by default
    one for functions of ``model`` and rows."""
    steps = _flat(_taken_apart(model)[0])
    if not steps:
        return None
    trace = _Trace(_instead(model) if instead is None else instead)
    if not hasattr(steps[0], "n_features_in_"):
        trace.refuse(steps[0])
    n_columns = int(steps[0].n_features_in_)
    owner = np.arange(n_columns)
    for step in steps:
        owner = trace.owners(step, owner)
    if len(owner) != n_features:
        fail(
            "model",
            f"steps that make the {n_features} features of the model",
            f"{len(owner)} features",
            trace.instead,
            UnsupportedModelError,
        )
    names = getattr(steps[0], "feature_names_in_", None)
    return PipelineSteps(
        steps=tuple(steps),
        owner=owner,
        n_columns=n_columns,
        names=None if names is None else tuple(str(name) for name in names),
        declared=trace.declared,
        instead=trace.instead,
    )


def _flat(steps: list[Any]) -> list[Any]:
    """PipelineSteps that change the table, those of pipelines among them one by one."""
    found = []
    for step in steps:
        if is_pipeline(step):
            found += _flat([inner for _, inner in step.steps])
        elif not _keeps(step) and hasattr(step, "transform"):
            found.append(step)  # what only resamples the training rows does nothing here
    return found


def _keeps(step: Any) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")


class _Trace:
    """Follows columns through steps; remembers a step whose word is to be tried."""

    def __init__(self, instead: str) -> None:
        self.instead = instead
        self.declared = ""

    def owners(self, step: Any, owner: np.ndarray) -> np.ndarray:
        """The column of each output of a step, from those of its inputs."""
        kind = {base.__name__ for base in type(step).__mro__}
        if _keeps(step):
            return owner
        if isinstance(step, str):  # "drop"
            return owner[:0]
        if is_pipeline(step):
            for inner in _flat([step]):
                owner = self.owners(inner, owner)
            return owner
        self._note(step)
        if "ColumnTransformer" in kind:
            return self._by_column(step, owner)
        if "FeatureUnion" in kind:
            parts = [self.owners(part, owner) for _, part in step.transformer_list]
            return np.concatenate([owner[:0], *parts])
        if "FunctionTransformer" in kind:
            return self._by_function(step, owner)
        if "OneToOneFeatureMixin" in kind and _of_another_house(step):
            return owner
        try:
            outputs = _outputs(step, kind, len(owner))
        except AttributeError:  # another thing under a known name
            self.refuse(step)
        if outputs is not None:
            return owner[outputs]
        if len(np.unique(owner)) == 1 and hasattr(step, "get_feature_names_out"):
            return np.repeat(owner[:1], len(step.get_feature_names_out()))
        self.refuse(step)

    def _by_column(self, step: Any, owner: np.ndarray) -> np.ndarray:
        """The outputs of a ``ColumnTransformer``, each part's in its place."""
        fitted = [(name, part) for name, part, _ in step.transformers_]
        n_outputs = max((place.stop for place in step.output_indices_.values()), default=0)
        found = np.full(n_outputs, -1)
        for name, part in fitted:
            inputs = owner[np.asarray(step._transformer_to_input_indices[name], np.int64)]
            place = step.output_indices_[name]
            size = place.stop - place.start
            if size == 0 or len(inputs) == 0:
                continue
            if len(np.unique(inputs)) == 1:  # whatever it does, it does it to one column
                self._note(part)
                found[place] = inputs[0]
                continue
            outputs = self.owners(part, inputs)
            if len(outputs) != size:
                self.refuse(part)
            found[place] = outputs
        if (found < 0).any():
            self.refuse(step)
        return found

    def refuse(self, step: Any) -> NoReturn:
        """Name a step that leaves no game of columns."""
        fail(
            "model",
            "steps that make each feature of one column",
            f"{type(step).__name__}, which makes features of several columns or is not known",
            self.instead,
            UnsupportedModelError,
        )

    def _note(self, step: Any) -> None:
        """Remember a step that may look at several rows: a user's function or class."""
        own = getattr(step, "func", None) is not None
        if own or _of_another_house(step):
            self.declared = type(step).__name__

    def _by_function(self, step: Any, owner: np.ndarray) -> np.ndarray:
        """A function of the whole table, which may say that it works column by column."""
        if step.func is None:
            return owner
        named = getattr(step.func, "__name__", "a function")
        if step.feature_names_out != "one-to-one" and len(np.unique(owner)) > 1:
            fail(
                "model",
                "steps that make each feature of one column",
                f"{type(step).__name__}({named}), which does not say what it makes of them",
                "Give it feature_names_out='one-to-one' if it works column by column. "
                f"Else {self.instead[0].lower()}{self.instead[1:]}",
                UnsupportedModelError,
            )
        self.declared = f"{type(step).__name__}({named})"
        if step.feature_names_out in (None, "one-to-one"):
            return owner
        return np.repeat(owner[:1], len(step.get_feature_names_out()))


def _of_another_house(step: Any) -> bool:
    """Whether a step is not scikit-learn's own, and so does what nobody here knows."""
    return not isinstance(step, str) and not type(step).__module__.startswith("sklearn.")


def _outputs(step: Any, kind: set[str], n: int) -> np.ndarray | None:
    """The input of each output of a fitted step that takes its ``n`` inputs one by one."""
    each = np.arange(n)
    if kind & _SCALERS:
        return each
    if "OneHotEncoder" in kind:
        return np.repeat(each, _one_hot_sizes(step))
    if "KBinsDiscretizer" in kind:
        return each if step.encode == "ordinal" else np.repeat(each, step.n_bins_)
    if "SplineTransformer" in kind:
        return np.repeat(each, step.n_features_out_ // n)
    if "TargetEncoder" in kind and hasattr(step, "target_type_"):
        return np.repeat(each, len(step.classes_) if step.target_type_ == "multiclass" else 1)
    if "MissingIndicator" in kind:
        return np.asarray(step.features_, np.int64)
    if "SimpleImputer" in kind:
        return _imputed(step, each)
    if "SelectorMixin" in kind:
        return np.flatnonzero(step.get_support())
    return None


def _one_hot_sizes(step: Any) -> list[int]:
    """How many columns each feature becomes: its categories, the rare ones as one, less the one
    dropped."""
    rare = getattr(step, "infrequent_categories_", None) or [None] * len(step.categories_)
    dropped = step.drop_idx_
    sizes = []
    for j, categories in enumerate(step.categories_):
        few = 0 if rare[j] is None else len(rare[j]) - 1
        gone = 0 if dropped is None or dropped[j] is None else 1
        sizes.append(len(categories) - few - gone)
    return sizes


def _imputed(step: Any, each: np.ndarray) -> np.ndarray:
    """Columns that had a value in training, then the indicators of missing ones."""
    kept = each
    if not step.keep_empty_features:
        kept = np.flatnonzero([bool(value == value) for value in step.statistics_])
    if step.indicator_ is None:
        return kept
    return np.concatenate([kept, np.asarray(step.indicator_.features_, np.int64)])
