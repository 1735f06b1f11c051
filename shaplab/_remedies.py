"""What to call instead, for models that a method cannot read; every call named here works.

Chapter: foundations/predictions
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shaplab._validation import UnsupportedModelError, fail

__all__ = [
    "additive_instead",
    "check_fitted_sum",
    "features_of_sum",
    "is_boosting_machine",
    "is_linear",
    "is_of_trees",
    "named_as",
    "sampled_call",
    "sampled_instead",
]

# Libraries of trees, and what scikit-learn's trees derive from.
_TREE_HOMES = {"xgboost", "lightgbm", "catboost"}
_TREE_KINDS = {
    "BaseDecisionTree",
    "BaseForest",
    "BaseGradientBoosting",
    "BaseHistGradientBoosting",
    "IsolationForest",
}
# What linear models of scikit-learn and boosting machines of interpret derive from.
_SUM_KINDS = {
    "BaseSGDRegressor",
    "EBMModel",
    "LinearClassifierMixin",
    "LinearModel",
    "_GeneralizedLinearRegressor",
}
# Slopes of these are those of something else: of pairs of classes.
_OTHER_SLOPES = {"BaseSVC"}


def sampled_call(model: Any, probability: bool = True) -> str:
    """The function of rows that a sampling method would explain, as a user writes it."""
    if type(model).__name__ == "MultiOutputClassifier":  # gives a list
        return "lambda rows: numpy.hstack(model.predict_proba(rows))"
    if probability and hasattr(model, "predict_proba"):
        return "model.predict_proba"
    if hasattr(model, "decision_function"):
        return "model.decision_function"  # predict gives labels
    if any(base.__name__ == "ClassifierMixin" for base in type(model).__mro__):
        return "lambda rows: (model.predict(rows)[:, None] == model.classes_) * 1.0"
    if callable(model) and not hasattr(model, "predict"):
        return "model"
    if not hasattr(model, "inplace_predict"):
        return "model.predict"
    return "lambda rows: model.predict(xgboost.DMatrix(rows))"


def sampled_instead(model: Any, probability: bool = True) -> str:
    """The last remedy for a model that cannot be read: a call that needs its predictions only."""
    return f"permutation_shap({sampled_call(model, probability)}, X, background)"


def is_boosting_machine(model: Any) -> bool:
    """Whether a model is a fitted explainable boosting machine of interpret."""
    return hasattr(model, "term_features_") and hasattr(model, "eval_terms")


def is_linear(model: Any) -> bool:
    """Whether a model has the slopes and constants of a fitted linear one."""
    return hasattr(model, "coef_") and hasattr(model, "intercept_")


def features_of_sum(model: Any) -> int:
    """How many features a linear model or a boosting machine has."""
    if hasattr(model, "get_booster"):  # whose slopes are one list
        return int(model.n_features_in_)
    if is_linear(model):
        return int(model.coef_.shape[-1])
    return len(model.feature_names_in_)


def additive_instead(model: Any) -> str:
    """The beginning of a remedy for a model that is a sum of its terms, and "" for others."""
    kinds = {base.__name__ for base in type(model).__mro__}
    adds_up = is_linear(model) and not kinds & _OTHER_SLOPES
    if is_boosting_machine(model):
        adds_up = all(len(features) <= 2 for features in model.term_features_)
    if not adds_up:
        return ""
    return "Its terms have exact values of their own: additive_shap(model, X, background); or "


def check_fitted_sum(model: Any) -> None:
    """Refuse a linear model or boosting machine that was not fitted, by the call that takes it."""
    kinds = {base.__name__ for base in type(model).__mro__}
    if kinds & _SUM_KINDS and not hasattr(model, "n_features_in_"):
        fail(
            "model",
            "a fitted tree model",
            f"{type(model).__name__} that was not fitted and has no trees",
            "Call fit first, and explain it by additive_shap(model, X, background)",
        )


def is_of_trees(model: Any) -> bool:
    """Whether a model is a tree, or a forest or boosting of them."""
    kinds = type(model).__mro__
    homes = {base.__module__.split(".")[0] for base in kinds}
    return bool(homes & _TREE_HOMES) or any(base.__name__ in _TREE_KINDS for base in kinds)


@contextmanager
def named_as(place: str) -> Iterator[None]:
    """Let the remedies of an error name a model by where it stands in the one that was passed."""
    try:
        yield
    except UnsupportedModelError as error:
        raise UnsupportedModelError(re.sub(r"\bmodel(?=[.\[])", place, str(error))) from error
