"""What a model's raw output means: how it becomes the library's prediction, or a probability."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

__all__ = ["Change", "prediction", "probability"]


class Change(NamedTuple):
    """A function of raw outputs ``(..., N)`` or ``(..., N, K)`` that keeps their shape, and its
    derivative, None where each result depends on several outputs."""

    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray] | None


def _logistic(raw: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -raw))


def _softmax(raw: np.ndarray) -> np.ndarray:
    weight = np.exp(raw - raw.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def _score(raw: np.ndarray) -> np.ndarray:
    return -np.exp2(-raw)


SAME = Change(lambda raw: raw, np.ones_like)
SOFTMAX = Change(_softmax, None)
_PREDICTIONS = {
    "identity": SAME,
    "probability": SAME,
    "probabilities": SAME,
    "log-odds": SAME,
    "softmax": SOFTMAX,
    "exp": Change(np.exp, np.exp),
    "softplus": Change(lambda raw: np.logaddexp(0.0, raw), _logistic),
    "signed_square": Change(lambda raw: raw * np.abs(raw), lambda raw: 2.0 * np.abs(raw)),
    "isolation": Change(_score, lambda raw: -np.log(2.0) * _score(raw)),
}
# "" stands for an ensemble that says nothing, "other" for a prediction that is no function here.
LINKS = (*_PREDICTIONS, "logistic", "other", "")


def scaled_logistic(factor: float) -> Change:
    """The logistic function of ``factor`` times the raw output, for each output by itself."""
    return Change(
        lambda raw: _logistic(factor * raw),
        lambda raw: factor * _logistic(factor * raw) * _logistic(-factor * raw),
    )


def prediction(link: str, factor: float) -> Change | None:
    """What the library's own ``predict`` or ``predict_proba`` makes of the raw output, if known."""
    return scaled_logistic(factor) if link == "logistic" else _PREDICTIONS.get(link)


def probability(link: str, factor: float, several: bool) -> Change | None:
    """What makes the raw output a probability; None where it is none and can be made none.

    An ensemble that says nothing about its output is taken for log-odds, or logits of several
    classes.
    """
    if link in ("probability", "probabilities"):
        return SAME
    if link == "softmax" or (link == "" and several):
        return SOFTMAX
    return scaled_logistic(factor) if link in ("logistic", "log-odds", "") else None
