"""Losses by name, with what every loss game needs: values, derivatives and label checks.

Needs: shaplab._validation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from shaplab._validation import as_finite, fail

__all__ = ["Loss", "get_loss"]


@dataclass(frozen=True)
class Loss:
    """A loss as two vectorised functions.

    ``value(output, y)`` and ``slope(output, y)`` broadcast: ``output`` has shape ``(..., N)`` or,
    when ``classes`` is True and the model has several outputs, ``(..., N, K)``; ``y`` has shape
    ``(N,)``; the value has shape ``(..., N)`` and the slope that of ``output``. ``slope`` is None
    for user callables.
    Cross entropy of outputs with leading axes needs :meth:`for_outputs` first.
    """

    name: str
    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    labels: bool = False
    classes: bool = False

    def for_outputs(self, n_outputs: int | None) -> Loss:
        """The same loss for outputs without (None) or with an output axis.

        Needed where outputs have leading axes: of a binary model, an array ``(B, N)`` with B = N
        would look like the class probabilities of N rows.
        """
        if self.name != "cross_entropy" or self.slope is None:
            return self
        several = n_outputs is not None
        return replace(
            self,
            value=partial(_cross_entropy, several=several),
            slope=partial(_cross_entropy_slope, several=several),
        )


def _sigmoid(margin: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -margin))


def _squared_error(output: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (output - y) ** 2


def _logistic(margin: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, margin) - y * margin


def _pick(output: np.ndarray, y: np.ndarray) -> np.ndarray:
    labels = np.broadcast_to(np.asarray(y, dtype=np.int64), output.shape[:-1])
    return np.take_along_axis(output, labels[..., None], axis=-1)[..., 0]


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _softmax_cross_entropy(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    top = logits.max(axis=-1)
    return top + np.log(np.exp(logits - top[..., None]).sum(axis=-1)) - _pick(logits, y)


def _softmax_slope(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    hot = np.arange(logits.shape[-1]) == np.asarray(y, dtype=np.int64)[..., None]
    return _softmax(logits) - hot


# Probabilities are clipped as scikit-learn's log_loss does, so that a sure and wrong model stays
# finite.
_TINY = float(np.finfo(np.float64).eps)


def _has_classes(probability: np.ndarray, y: np.ndarray) -> bool:
    return (
        probability.ndim > np.ndim(y)
        and probability.shape[-1] > 1
        and probability.shape[-2:-1] == np.shape(y)
    )


def _cross_entropy(
    probability: np.ndarray, y: np.ndarray, several: bool | None = None
) -> np.ndarray:
    if _has_classes(probability, y) if several is None else several:
        return -np.log(np.clip(_pick(probability, y), _TINY, 1.0))
    p = np.clip(probability, _TINY, 1.0 - _TINY)
    return -(y * np.log(p) + (1.0 - y) * np.log1p(-p))


def _cross_entropy_slope(
    probability: np.ndarray, y: np.ndarray, several: bool | None = None
) -> np.ndarray:
    if _has_classes(probability, y) if several is None else several:
        hot = np.arange(probability.shape[-1]) == np.asarray(y, dtype=np.int64)[..., None]
        return -(hot / np.clip(probability, _TINY, 1.0))
    p = np.clip(probability, _TINY, 1.0 - _TINY)
    return (p - y) / (p * (1.0 - p))


_LOSSES = {
    "squared_error": Loss("squared_error", _squared_error, lambda f, y: 2.0 * (f - y)),
    "logistic": Loss("logistic", _logistic, lambda f, y: _sigmoid(f) - y, labels=True),
    "softmax_cross_entropy": Loss(
        "softmax_cross_entropy", _softmax_cross_entropy, _softmax_slope, labels=True, classes=True
    ),
    "cross_entropy": Loss(
        "cross_entropy", _cross_entropy, _cross_entropy_slope, labels=True, classes=True
    ),
}
_LOSSES["mse"] = _LOSSES["squared_error"]


def get_loss(loss: Any) -> Loss:
    """Resolve a loss.

    Parameters
    ----------
    loss : ``"squared_error"`` (or ``"mse"``), ``"logistic"`` (labels 0 and 1, margins in log-odds),
        ``"softmax_cross_entropy"`` (class indices, logits ``(N, K)``), ``"cross_entropy"`` (class
        indices or 0/1, probabilities ``(N, K)`` or ``(N,)``, clipped at machine precision), a
        ``Loss``, or a callable ``(output, y) -> (..., N)``.

    Returns
    -------
    Loss
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in _LOSSES:
        return _LOSSES[loss]
    if callable(loss):
        return Loss(getattr(loss, "__name__", "loss"), loss, None)
    fail(
        "loss",
        "one of " + ", ".join(map(repr, _LOSSES)) + " or a callable (output, y)",
        repr(loss),
        "Pass one of these names or your own function",
    )


def check_probabilities(outputs: np.ndarray, loss: Loss, *, classes: bool) -> None:
    """Require probabilities where cross entropy is asked of a model's outputs ``(..., [K])``."""
    if loss.name != "cross_entropy" or loss.slope is None:
        return
    whole = outputs.sum(axis=-1) if classes else np.ones(1)
    # Single-precision probabilities miss 0, 1 and their sum by little; NaN passes no comparison.
    if outputs.min() >= -1e-6 and outputs.max() <= 1.0 + 1e-6 and np.abs(whole - 1.0).max() <= 1e-3:
        return
    fail(
        "model",
        "probabilities from 0 to 1 that sum to 1 over classes for cross entropy",
        f"outputs from {outputs.min():g} to {outputs.max():g} with sums from {whole.min():g} to "
        f"{whole.max():g}",
        'Pass predict_proba, or use loss="logistic" or "softmax_cross_entropy" for margins',
    )


def check_target(y: Any, n: int, loss: Loss, n_outputs: int | None = None) -> np.ndarray:
    """Return ``y`` as float64 ``(n,)`` after checking that outputs, loss and target suit each
    other."""
    if n_outputs is not None and not loss.classes and loss.slope is not None:
        fail(
            "loss",
            f"a loss of {n_outputs} outputs",
            repr(loss.name),
            "Use 'cross_entropy' for probabilities, 'softmax_cross_entropy' for logits, or "
            "explain one output",
        )
    if n_outputs is None and loss.name == "softmax_cross_entropy":
        fail("loss", "a loss of one output", repr(loss.name), "Use 'logistic' for log-odds")
    target = as_finite(y, "y", (n,), "Give one target for each row of X, and number classes from 0")
    if loss.labels:
        top = 1 if n_outputs is None else n_outputs - 1
        if (target != np.round(target)).any() or target.min() < 0 or target.max() > top:
            fail(
                "y",
                f"class labels 0 to {top} for loss {loss.name!r}",
                f"values from {target.min():g} to {target.max():g}",
                "Encode labels as consecutive integers in the order of the model's outputs",
            )
    return target
