"""Losses by name, with what every loss game needs: values, derivatives and label checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from shaplab._validation import as_finite, fail

__all__ = ["Loss", "get_loss"]

# Probabilities are clipped here, as scikit-learn's log_loss does, so that a sure and wrong model
# stays finite.
_EPS = float(np.finfo(np.float64).eps)
# Nodes in [0, 1] and weights of the Gauss-Legendre rules of two and three points.
_TWO_NODES = ((0.5 - 3**-0.5 / 2, 0.5), (0.5 + 3**-0.5 / 2, 0.5))
_THREE_NODES = ((0.5 - 0.15**0.5, 5 / 18), (0.5, 4 / 9), (0.5 + 0.15**0.5, 5 / 18))


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
        if self.value is not _cross_entropy:
            return self
        several = n_outputs is not None
        return replace(
            self,
            value=partial(_cross_entropy, several=several),
            slope=partial(_cross_entropy_slope, several=several),
        )


def logistic(margin: np.ndarray) -> np.ndarray:
    """The probability of a margin in log-odds."""
    return np.exp(-np.logaddexp(0.0, -margin))


def softmax_of(logits: np.ndarray) -> np.ndarray:
    """The probabilities of classes ``(..., K)``."""
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """Logarithm ``(...)`` of the sum of ``exp(logits)`` ``(..., K)``."""
    top = logits.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logits - top[..., None]).sum(axis=-1)))


def _squared_error(output: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (output - y) ** 2


def _squared_error_slope(output: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 2.0 * (output - y)


def _logistic_loss(margin: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, margin) - y * margin


def _logistic_slope(margin: np.ndarray, y: np.ndarray) -> np.ndarray:
    return logistic(margin) - y


def _softmax_cross_entropy(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    return log_sum_exp(logits) - _of_label(logits, y)


def _softmax_slope(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    return softmax_of(logits) - _is_label(logits, y)


def _cross_entropy(
    probability: np.ndarray, y: np.ndarray, several: bool | None = None
) -> np.ndarray:
    if _has_classes(probability, y, several):
        return -np.log(np.clip(_of_label(probability, y), _EPS, 1.0))
    p = np.clip(probability, _EPS, 1.0 - _EPS)
    return -(y * np.log(p) + (1.0 - y) * np.log1p(-p))


def _cross_entropy_slope(
    probability: np.ndarray, y: np.ndarray, several: bool | None = None
) -> np.ndarray:
    if _has_classes(probability, y, several):
        return -(_is_label(probability, y) / np.clip(probability, _EPS, 1.0))
    p = np.clip(probability, _EPS, 1.0 - _EPS)
    return (p - y) / (p * (1.0 - p))


def _has_classes(probability: np.ndarray, y: np.ndarray, several: bool | None) -> bool:
    """Whether the last axis holds classes; where nobody says so, the shapes tell."""
    if several is not None:
        return several
    has_one_axis_more = probability.ndim > np.ndim(y) and probability.shape[-2:-1] == np.shape(y)
    return has_one_axis_more and probability.shape[-1] > 1


def _of_label(output: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Each row's output of its own class, ``(...)`` of ``(..., K)``."""
    labels = np.broadcast_to(np.asarray(y, dtype=np.int64), output.shape[:-1])
    return np.take_along_axis(output, labels[..., None], axis=-1)[..., 0]


def _is_label(output: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Which of a row's outputs is that of its own class, ``(N, K)``."""
    return np.arange(output.shape[-1]) == np.asarray(y, dtype=np.int64)[..., None]


_SQUARED = Loss("squared_error", _squared_error, _squared_error_slope)
_LOSSES = {
    "squared_error": _SQUARED,
    "mse": _SQUARED,
    "logistic": Loss("logistic", _logistic_loss, _logistic_slope, labels=True),
    "softmax_cross_entropy": Loss(
        "softmax_cross_entropy", _softmax_cross_entropy, _softmax_slope, labels=True, classes=True
    ),
    "cross_entropy": Loss(
        "cross_entropy", _cross_entropy, _cross_entropy_slope, labels=True, classes=True
    ),
}


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
        name = str(getattr(loss, "__name__", "loss"))
        # A function of that name need not be that loss: no shortcut for names may take it.
        return Loss(f"own {name}" if name in _LOSSES else name, loss, None)
    fail(
        "loss",
        "one of " + ", ".join(map(repr, _LOSSES)) + " or a callable (output, y)",
        repr(loss),
        "Pass one of these names or your own function",
    )


def secant(loss: Loss, end: np.ndarray, start: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Change of the loss over change of the output, the slope where the outputs agree.

    Parameters
    ----------
    loss : a loss of one output.
    end, start : outputs ``(..., N)``, broadcast against each other.
    y : ``(N,)`` targets.

    Returns
    -------
    ``(..., N)``, ``(loss(end) - loss(start)) / (end - start)``.

    Notes
    -----
    Written so, the quotient loses digits when the outputs are close: both losses carry a rounding
    error of eps times their size, so the quotient is off by up to ``eps (|loss(end)| +
    |loss(start)|) / |end - start|``. The secant is also the mean of the slope between the outputs.
    Three Gauss-Legendre nodes give that mean with an error far below their distance to the two-node
    rule. Whichever of the two bounds is smaller decides; there is no threshold to choose. Where the
    interval is wide for the output's size, nodes might miss a bend and agree by chance, so only the
    quotient counts there.
    """
    loss = loss.for_outputs(None)
    end, start = np.broadcast_arrays(np.asarray(end, float), np.asarray(start, float))
    change = end - start
    middle = start + change / 2
    if loss.slope is None:
        return _central_secant(loss, middle, change, y)
    two = _mean_slope(loss.slope, start, change, y, _TWO_NODES)
    three = _mean_slope(loss.slope, start, change, y, _THREE_NODES)
    first = loss.value(start, y)
    last = loss.value(end, y)
    # A loss is known no better than its outputs are.
    sizes = np.abs(first) + np.abs(last) + np.abs(start) + np.abs(end)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = (last - first) / change
        doubt = _EPS * sizes / np.abs(change)
    is_near = np.abs(change) <= 0.1 * np.maximum(1.0, np.abs(middle))
    nodes_are_better = is_near & (np.abs(three - two) <= doubt)
    return np.where(nodes_are_better | (change == 0), three, quotient)


def _mean_slope(
    slope: Callable[[np.ndarray, np.ndarray], np.ndarray],
    start: np.ndarray,
    change: np.ndarray,
    y: np.ndarray,
    nodes: tuple[tuple[float, float], ...],
) -> np.ndarray:
    """The mean of the slope between ``start`` and ``start + change``, by a Gauss-Legendre rule."""
    parts = [weight * slope(start + node * change, y) for node, weight in nodes]
    return np.asarray(sum(parts))


def _central_secant(
    loss: Loss, middle: np.ndarray, change: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """The secant of a loss without a slope.

    Where the change is so small beside the outputs that the quotient would keep less than half of
    its digits, it is taken over eps^(1/3) of their size: there a central difference's rounding
    error eps/h is as small as its error h^2. Both limits are relative, so units do not matter.
    """
    size = np.abs(middle) + np.abs(change) / 2
    largest = size.max(initial=0.0) or 1.0
    size = np.where(size > 0, size, largest)
    is_near = np.abs(change) <= _EPS**0.5 * size
    half = np.where(is_near, _EPS ** (1 / 3) * size, np.abs(change) / 2)
    # A loss may end here, as the logarithm does at 0: then only the other side counts.
    with np.errstate(all="ignore"):
        ends_above = ~np.isfinite(loss.value(middle + half, y))
        ends_below = ~np.isfinite(loss.value(middle - half, y))
    top = np.where(ends_above, middle, middle + half)
    low = np.where(ends_below, middle, middle - half)
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = (loss.value(top, y) - loss.value(low, y)) / (top - low)
    is_finite = np.isfinite(quotient).ravel()
    if not is_finite.all():
        worst = float(middle.ravel()[np.argmin(is_finite)])
        fail(
            "loss",
            "finite values at and near the model's outputs",
            f"none near the output {worst:g}",
            "Let the loss clip outputs to where it is defined",
        )
    return quotient


def check_probabilities(outputs: np.ndarray, loss: Loss, *, classes: bool) -> None:
    """Require probabilities where cross entropy is asked of a model's outputs ``(..., [K])``."""
    if loss.name != "cross_entropy" or loss.slope is None:
        return
    whole = outputs.sum(axis=-1) if classes else np.ones(1)
    # Single-precision probabilities miss 0, 1 and their sum by little; NaN passes no comparison.
    in_range = outputs.min() >= -1e-6 and outputs.max() <= 1.0 + 1e-6
    if in_range and np.abs(whole - 1.0).max() <= 1e-3:
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
        are_whole = (target == np.round(target)).all()
        if not are_whole or target.min() < 0 or target.max() > top:
            fail(
                "y",
                f"class labels 0 to {top} for loss {loss.name!r}",
                f"values from {target.min():g} to {target.max():g}",
                "Encode labels as consecutive integers in the order of the model's outputs",
            )
    return target
