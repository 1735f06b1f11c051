r"""Additive models are their own Shapley values: linear models, splines, boosting machines, sums.

A model :math:`f(x) = c + \sum_j f_j(x_j) + \sum_{j<k} f_{jk}(x_j, x_k)` is a sum of games of one
and two players. In the marginal game on a background :math:`B` the value of a feature is

.. math:: \varphi_j = f_j(x_j) - \overline{f_j(B_j)} + \sum_k \tfrac12 \bigl[
   f_{jk}(x_j, x_k) - \overline{f_{jk}(B_j, x_k)} + \overline{f_{jk}(x_j, B_k)}
   - \overline{f_{jk}(B_j, B_k)} \bigr].

Sources: linearity (Shapley 1953); terms of generalised additive models with pairs are those of
Lou et al. (2013). Cost: one call of each function of one feature; a pair of features with ``u``
different values in ``X`` and ``v`` in the background asks for ``u v`` values of its function.

Chapter: foundations/predictions
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np

from shaplab._pipelines import model_at_the_end
from shaplab._remedies import features_of_sum, is_boosting_machine, is_linear, is_of_trees, named_as
from shaplab._tables import as_rows, displayed, is_present
from shaplab._validation import (
    UnsupportedModelError,
    as_numbers,
    check_frames,
    check_names,
    check_outputs,
    check_size,
    check_weights,
    column_names,
    fail,
    row_labels,
    shorten,
)
from shaplab.explanation import Explanation
from shaplab.foundations._summands import (
    Summand,
    boosting_machine_summands,
    check_fitted_columns,
    columns_as_arrays,
    linear_parts,
    sampled_scores,
    through_steps,
)

__all__ = ["AdditiveModel", "additive_shap", "additive_shap_literal"]

# Values of a pair's function asked for in one call: what bounds memory.
_PAIRS_AT_ONCE = 2**20


@dataclass(frozen=True, eq=False)
class AdditiveModel:
    """A constant and functions of one or two features: a model that says what it consists of.

    Parameters
    ----------
    terms : dict from a feature, or a pair ``(feature, feature)``, to a function of its column(s):
        arrays ``(n,)`` in, ``(n,)`` or ``(n, K)`` out, row by row. Features by number, or by name
        when names are known. Columns of numbers come as floats, others as objects; missing cells
        are NaN.
    intercept : number, or array ``(K,)`` when the functions return ``(n, K)``.
    feature_names : names of the columns; those of a DataFrame by default.
    output_names : names of the ``K`` outputs, or None.

    Notes
    -----
    Called on a table ``(n, d)`` it returns the sum, ``(n,)`` or ``(n, K)``.

    Examples
    --------
    >>> model = AdditiveModel({0: np.square, (0, 1): np.multiply}, intercept=1.0)
    >>> model(np.array([[2.0, 3.0]])).tolist()
    [11.0]
    """

    terms: Mapping[Any, Callable[..., Any]]
    intercept: Any = 0.0
    feature_names: Sequence[str] | None = None
    output_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        rule = "a dict from a feature or a pair of features to a function"
        if not isinstance(self.terms, Mapping):
            fail(
                "terms",
                rule,
                self.terms,
                "Pass such as {0: np.sin, (1, 2): np.multiply}",
                TypeError,
            )
        for key, function in self.terms.items():
            if not callable(function):
                fail("terms", rule, f"{function!r} for {key!r}", "Pass functions", TypeError)
            if isinstance(key, tuple) and (len(key) != 2 or key[0] == key[1]):
                fail(
                    "terms",
                    "features and pairs of different features",
                    f"{shorten(repr(key))}",
                    "Models of larger terms are for exact_shap or permutation_shap",
                )
        if as_numbers(self.intercept, "intercept").ndim > 1:
            fail("intercept", "a number or an array (K,)", self.intercept, "Pass one an output")

    def __call__(self, X: Any) -> np.ndarray:
        parts = columns_as_arrays(as_rows(X, "X"), "X")
        outputs = np.zeros((len(parts[0]), *np.shape(self.intercept))) + self.intercept
        for key, function in self.terms.items():
            places = self.places(key, self.names_of(X), len(parts))
            outputs += _asked(function, [parts[place] for place in places], outputs.shape[1:])
        return outputs

    def names_of(self, X: Any) -> Sequence[str] | None:
        """Names of the columns of a table: its own, or the model's."""
        own = column_names(X)
        if own is None or self.feature_names is None:
            return own or self.feature_names
        if own != [str(name) for name in self.feature_names]:
            fail(
                "X",
                f"the model's columns {shorten(', '.join(map(str, self.feature_names)))}",
                shorten(", ".join(own)),
                "Select them: X[model.feature_names]",
            )
        return own

    def places(self, key: Any, names: Sequence[str] | None, n_columns: int) -> tuple[int, ...]:
        """Numbers of the columns that a key of ``terms`` stands for."""
        known = list(names or ())
        found = []
        for feature in key if isinstance(key, tuple) else (key,):
            place = feature
            if isinstance(feature, str):
                place = known.index(feature) if feature in known else -1
            if isinstance(place, bool) or not isinstance(place, int | np.integer) or place < 0:
                rule = f"names among {shorten(', '.join(known))}" if known else "numbers"
                fail("terms", f"{rule} of features", repr(feature), "Check the names")
            if place >= n_columns:
                fail("X", f"more than {place} columns", f"{n_columns}", "Pass all features")
            found.append(int(place))
        if len(set(found)) < len(found):
            fail("terms", "pairs of different features", repr(key), "Give one function of it")
        return tuple(found)

    def summands(self, X: Any, background: Any) -> list[Summand]:
        """The terms with the values of their features in both tables."""
        own = columns_as_arrays(X, "X")
        other = columns_as_arrays(background, "background")
        found = []
        for key, function in self.terms.items():
            places = self.places(key, self.names_of(X), len(own))
            ours, theirs = (tuple(table[place] for place in places) for table in (own, other))
            found.append(Summand(places, function, ours, theirs))
        return found


def additive_shap_literal(
    model: AdditiveModel, X: np.ndarray, background: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The definition: each term is a game of one or two players for every row and reference row.

    Takes arrays; returns values ``(N, d[, K])`` and the base value, a number or ``(K,)``.
    """
    payoff = np.shape(model.intercept)
    phi = np.zeros((*X.shape, *payoff))
    base = np.zeros(payoff) + model.intercept
    for key, f in model.terms.items():
        features = model.places(key, model.feature_names, X.shape[1])
        for b in background:
            nobody = f(*(b[[j]] for j in features))[0]
            base += nobody / len(background)
            for n, x in enumerate(X):
                both = f(*(x[[j]] for j in features))[0]
                if len(features) == 1:
                    phi[n, features[0]] += (both - nobody) / len(background)
                    continue
                j, k = features
                only_j = f(x[[j]], b[[k]])[0]
                only_k = f(b[[j]], x[[k]])[0]
                phi[n, j] += ((only_j - nobody) + (both - only_k)) / 2 / len(background)
                phi[n, k] += ((only_k - nobody) + (both - only_j)) / 2 / len(background)
    return phi, base


def additive_shap(
    model: Any,
    X: Any,
    background: Any,
    *,
    weights: Any = None,
    groups: Any = None,
    feature_names: Any = None,
) -> Explanation:
    """Exact interventional Shapley values of an additive model, without sampling.

    Parameters
    ----------
    model : one of

        - an :class:`AdditiveModel`;
        - a fitted linear model of scikit-learn (with ``coef_`` and ``intercept_``), regression or
          classification; XGBoost's classes with ``booster="gblinear"``, on their margin;
        - a fitted explainable boosting machine of interpret, with pairs or without;
        - a scikit-learn Pipeline that ends with one of them, whose steps make each column from one
          column (scalers, imputers, encoders, bins, splines, selectors, a ColumnTransformer or
          FeatureUnion of these, functions that say so), explained in the columns that go into it;
          a search over such models.
    X : array, DataFrame or sparse matrix ``(N, d)``, rows to explain.
    background : table ``(B, d)``, used whole.
    weights : array ``(B,)``, what each background row counts in the mean; None: all alike.
    groups : lists of features explained together, by number or name, or a dict from group name to
        features. In a sum of terms of one or two features the value of a group is the sum of its
        members' values, so this costs nothing.
    feature_names : names of the columns; those of a DataFrame, or of the model, by default.

    Returns
    -------
    Explanation, ``values`` ``(N, d[, K])``, exact for the marginal game on the model's sum:
    predictions of a regression, log-odds of two classes, ``decision_function`` of several, the
    logarithm of the prediction under a logarithmic link.

    Raises
    ------
    UnsupportedModelError
        For models that are no such sum, and whenever the sum that was read is not what the model
        itself answers on ``X``.

    Notes
    -----
    Cost: one pass over both tables. A pair whose features take ``u`` different values in ``X`` and
    ``v`` in the background asks its function for ``u v`` values, at most a million at a time;
    those of boosting machines are binned, so both are small.

    References
    ----------
    Shapley (1953), linearity; Lou et al., "Accurate intelligible models with pairwise interactions"
    (2013), for the models.

    Examples
    --------
    >>> model = AdditiveModel({0: np.square, (0, 1): np.multiply})
    >>> additive_shap(model, np.array([[2.0, 3.0]]), np.array([[0.0, 1.0]])).values.tolist()
    [[8.0, 2.0]]
    """
    X = as_rows(X, "X")
    background = as_rows(background, "background")
    check_frames(X, background)
    if X.shape[1] != background.shape[1]:
        fail(
            "background",
            f"{X.shape[1]} columns, as X has",
            f"{background.shape[1]}",
            "Pass both alike",
        )
    for table, argument in ((X, "X"), (background, "background")):
        if len(table.shape) == 2 and 0 in table.shape:
            fail(argument, "rows and columns", f"shape {tuple(table.shape)}", "Pass some of each")
    shares = check_weights(weights, background.shape[0], "the background")
    names = check_names(feature_names, X.shape[1], "feature_names") or _names(model, X)
    if isinstance(model, AdditiveModel):
        values, base = _of_terms(model.summands(X, background), shares, X.shape, model.intercept)
        scale = "sum"
        outputs: Any = model.output_names
    else:
        values, base, scale = _of_fitted(model, X, background, shares)
        outputs = _names_of_classes(model, base)
    explained = Explanation(
        values=values,
        base_values=np.broadcast_to(base, (len(values), *np.shape(base))),
        data=displayed(X),
        feature_names=names,
        output_names=outputs,
        index=row_labels(X),
        method=f"additive_shap (marginal game, {scale})",
    )
    return explained if groups is None else explained.grouped(groups)


def _names(model: Any, X: Any) -> Any:
    """Names of the columns: those of the table, or those that the model knows."""
    if isinstance(model, AdditiveModel):
        return model.names_of(X)
    known = getattr(model, "feature_names_in_", None)
    if column_names(X) is not None or known is None or len(known) != X.shape[1]:
        return column_names(X)
    return list(known)


def _names_of_classes(model: Any, base: np.ndarray) -> Sequence[str] | None:
    """Names of several outputs: the classes of a classifier."""
    classes = getattr(model, "classes_", None)
    if base.ndim == 0 or classes is None or np.shape(classes) != base.shape:
        return None
    return [str(name) for name in classes]


def _of_fitted(
    model: Any, X: Any, background: Any, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Values ``(N, d[, K])`` and base value of a model that a library has fitted, checked against
    its own answers, and what is explained."""
    last = model_at_the_end(model)
    if hasattr(model, "best_estimator_"):  # of a search
        with named_as("model.best_estimator_"):
            return _of_fitted(model.best_estimator_, X, background, shares)
    linear = is_linear(last)
    if not linear and not is_boosting_machine(last):
        _refuse(model, last)
    check_fitted_columns(model, X)
    n_features = features_of_sum(last)
    ours, theirs, owner = through_steps(model, X, background, n_features)
    if ours.shape[1] != n_features:
        fail(
            "X",
            f"{n_features} columns",
            f"{ours.shape[1]}",
            "Pass the columns the model was fitted on",
        )
    if linear:
        own, other, slopes, constants = linear_parts(last, ours, theirs)
        mean = shares @ other
        values = (own - mean)[:, :, None] * slopes.T
        base = mean @ slopes.T + constants
    else:
        summands = boosting_machine_summands(last, ours, theirs)
        constant = np.asarray(last.intercept_, dtype=np.float64)
        constant = constant.reshape(()) if constant.size == 1 else constant
        values, base = _of_terms(summands, shares, ours.shape, constant)
    by_column = np.zeros((X.shape[1], len(values), *values.shape[2:]))
    np.add.at(by_column, owner, np.moveaxis(values, 1, 0))
    return _as_answered(model, X, np.moveaxis(by_column, 0, 1), base)


def _refuse(model: Any, last: Any) -> NoReturn:
    """Say of a model that is no sum, or at the end of whose steps is none, what explains it."""
    remedy = "Fit it first and pass the model itself, write it as an AdditiveModel, or sample: "
    if is_of_trees(last):
        remedy = (
            "Its trees have exact values of their own: "
            "interventional_tree_shap(model, X, background); or sample: "
        )
    fail(
        "model",
        "a fitted linear model or explainable boosting machine, a Pipeline that ends with one, "
        "or an AdditiveModel",
        f"a {type(last).__name__}",
        f"{remedy}{sampled_scores(model)}",
        UnsupportedModelError,
    )


def _as_answered(
    model: Any, X: Any, values: np.ndarray, base: np.ndarray
) -> tuple[np.ndarray, np.ndarray, str]:
    """Values and base in the shape of the model's own answers, which they must sum to."""
    ask = getattr(model, "decision_function", None) or model.predict
    scale = "decision function" if hasattr(model, "decision_function") else "prediction"
    if hasattr(model, "get_booster"):
        ask = partial(model.predict, output_margin=True)
        scale = "margin"
    answers = check_outputs(ask(X), len(values))
    sums = base + values.sum(axis=1)
    if sums.size == answers.size == len(values):
        values = values.reshape(*values.shape[:2], *answers.shape[1:])
        base = base.reshape(answers.shape[1:])
        sums = sums.reshape(answers.shape)
    # Models that compute in float32 differ from float64 sums by 1e-7 of their terms.
    size = np.abs(base).max() + np.abs(values).max(initial=0.0)
    if sums.shape == answers.shape and _sums_agree(sums, answers, size):
        return values, base, scale
    if (
        sums.shape == answers.shape
        and (answers > 0).all()
        and _sums_agree(sums, np.log(answers), size)
    ):
        return values, base, "logarithm of the prediction"
    fail(
        "model",
        "a model whose answers are the sum of its terms",
        f"a {type(model).__name__} whose answers are not",
        f"Sample instead: {sampled_scores(model)}",
        UnsupportedModelError,
    )


def _sums_agree(sums: np.ndarray, answers: np.ndarray, size: float) -> bool:
    return bool(np.abs(sums - answers).max() <= 1e-5 * max(size, 1e-300))


def _of_terms(
    summands: Sequence[Summand], shares: np.ndarray, shape: tuple[int, ...], intercept: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Values ``(N, d[, K])`` and base value of a sum of functions."""
    payoff = np.shape(intercept)
    check_size((*shape, *payoff), "X", "Explain fewer rows at a time")
    values = np.zeros((*shape, *payoff))
    base = np.zeros(payoff) + intercept
    for summand in summands:
        own = _asked(summand.function, summand.own, payoff)
        _check_row_by_row(summand, own)
        nobody = _mean(shares, _asked(summand.function, summand.other, payoff))
        base += nobody
        if len(summand.features) == 1:
            values[:, summand.features[0]] += own - nobody
            continue
        only = _half_known(summand, shares, payoff)
        for feature, alone, other in zip(summand.features, only, only[::-1], strict=True):
            values[:, feature] += ((alone - nobody) + (own - other)) / 2
    return values, base


def _check_row_by_row(summand: Summand, own: np.ndarray) -> None:
    """Ask for the first rows once more, in another order and without the others."""
    again = _asked(summand.function, [values[:8][::-1] for values in summand.own], own.shape[1:])
    # As much as float32 functions move between batch sizes.
    if np.abs(again[::-1] - own[:8]).max() > 1e-5 * max(np.abs(own).max(), 1e-300):
        fail(
            "terms",
            "functions that say of a row the same whatever the others are",
            f"another answer for features {summand.features} when asked again",
            "Compute means and scales once, outside of the function",
        )


def _half_known(
    summand: Summand, shares: np.ndarray, payoff: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Means ``(N[, K])`` of a pair's function when only its first, or only its second feature is
    known. Each combination of different values is asked for once."""
    means = []
    for known in (0, 1):
        values, place = _distinct(summand.own[known])
        others, where = _distinct(summand.other[1 - known])
        counts = np.bincount(where, shares, minlength=len(others))
        step = max(1, _PAIRS_AT_ONCE // len(others))
        parts = []
        for start in range(0, len(values), step):
            some = values[start : start + step]
            table = [some.repeat(len(others)), np.tile(others, len(some))]
            outputs = _asked(summand.function, table[:: 1 - 2 * known], payoff)
            parts.append(
                np.einsum("b,nb...->n...", counts, outputs.reshape(len(some), -1, *payoff))
            )
        means.append(np.concatenate(parts)[place])
    return means[0], means[1]


def _mean(shares: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("b,b...->...", shares, outputs))


def _distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of a column, and the place of each row's among them; all that is missing
    is one of them."""
    if values.dtype != object:
        different, place = np.unique(values, return_inverse=True)
        return different, place.ravel()
    number_of: dict[Any, int] = {}
    place = np.array(
        [
            number_of.setdefault(cell if is_present(cell) else None, len(number_of))
            for cell in values
        ]
    )
    different = np.empty(len(number_of), dtype=object)
    different[:] = [np.nan if cell is None else cell for cell in number_of]
    return different, place


def _asked(
    function: Callable[..., Any], values: Sequence[np.ndarray], payoff: tuple[int, ...]
) -> np.ndarray:
    """What a function says of rows ``(n,)``: checked, float64 ``(n[, K])``."""
    outputs = check_outputs(function(*values), len(values[0]), "terms")
    if outputs.shape[1:] != payoff:
        fail(
            "terms",
            f"functions that return shape {('n', *payoff)}, as the intercept says".replace("'", ""),
            f"shape {outputs.shape} for {len(values[0])} rows",
            "Return one output a row, or give the intercept as an array (K,)",
        )
    return outputs
