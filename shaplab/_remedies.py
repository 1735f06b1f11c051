"""What to call instead, for models that a method cannot read; every call named here works.

Chapter: foundations/predictions
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shaplab._validation import UnsupportedModelError

__all__ = ["named_as", "sampled_call", "sampled_instead"]


def sampled_call(model: Any, probability: bool = True) -> str:
    """The function of rows that a sampling method would explain, as a user writes it."""
    if type(model).__name__ == "MultiOutputClassifier":  # gives a list
        return "lambda rows: numpy.hstack(model.predict_proba(rows))"
    if probability and hasattr(model, "predict_proba"):
        return "model.predict_proba"
    if hasattr(model, "classes_") and hasattr(model, "decision_function"):
        return "model.decision_function"  # predict gives labels
    if any(base.__name__ == "ClassifierMixin" for base in type(model).__mro__):
        return "lambda rows: (model.predict(rows)[:, None] == model.classes_) * 1.0"
    if not hasattr(model, "inplace_predict"):
        return "model.predict"
    return "lambda rows: model.predict(xgboost.DMatrix(rows))"


def sampled_instead(model: Any) -> str:
    """The last remedy for a model that cannot be read: a call that needs its predictions only."""
    return f"permutation_shap({sampled_call(model)}, X, background)"


@contextmanager
def named_as(place: str) -> Iterator[None]:
    """Let the remedies of an error name a model by where it stands in the one that was passed."""
    try:
        yield
    except UnsupportedModelError as error:
        raise UnsupportedModelError(re.sub(r"\bmodel(?=[.\[])", place, str(error))) from error
