"""Losses: values against scikit-learn and torch-free formulas, slopes against differences, labels
checked."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from shaplab._losses import Loss, check_target, get_loss, secant

N, K = 6, 3
RNG = np.random.default_rng(0)
MARGIN, LOGITS = RNG.normal(size=N) * 3, RNG.normal(size=(N, K)) * 3
BINARY, CLASSES = np.array([0, 1, 1, 0, 1, 0.0]), np.array([0, 2, 1, 1, 0, 2.0])
CASES = {
    "squared_error": (MARGIN, RNG.normal(size=N)),
    "logistic": (MARGIN, BINARY),
    "softmax_cross_entropy": (LOGITS, CLASSES),
    "cross_entropy": (1 / (1 + np.exp(-MARGIN)), BINARY),
    "cross_entropy of classes": (
        np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True),
        CLASSES,
    ),
}


def test_values_are_those_of_their_definitions() -> None:
    p, q = CASES["cross_entropy"][0], CASES["cross_entropy of classes"][0]
    f, y = CASES["squared_error"]
    # Each side is a handful of float64 operations: agreement to a few units of the last place.
    close = {"rtol": 1e-12}
    np.testing.assert_allclose(get_loss("squared_error").value(f, y), (f - y) ** 2, **close)
    np.testing.assert_allclose(
        get_loss("logistic").value(MARGIN, BINARY).mean(), log_loss(BINARY, p), **close
    )
    np.testing.assert_allclose(
        get_loss("cross_entropy").value(p, BINARY).mean(), log_loss(BINARY, p), **close
    )
    np.testing.assert_allclose(
        get_loss("cross_entropy").value(q, CLASSES).mean(), log_loss(CLASSES, q), **close
    )
    softmax = get_loss("softmax_cross_entropy").value(LOGITS, CLASSES)
    np.testing.assert_allclose(softmax.mean(), log_loss(CLASSES, q), **close)


@pytest.mark.parametrize("name", CASES)
def test_slopes_are_derivatives(name: str) -> None:
    loss = get_loss(name.split()[0])
    output, y = CASES[name]
    slope = loss.slope(output, y)
    assert slope.shape == output.shape
    h = 1e-6
    for where in np.ndindex(output.shape):
        up, down = output.copy(), output.copy()
        up[where] += h
        down[where] -= h
        change = (loss.value(up, y) - loss.value(down, y))[where[0]] / (2 * h)
        # Central differences: error h^2 times the third derivative (below 1e4 here) plus rounding
        # 1e-16/h.
        assert slope[where] == pytest.approx(change, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_leading_axes_broadcast(name: str) -> None:
    loss = get_loss(name.split()[0])
    output, y = CASES[name]
    stacked = np.stack([output, output[::-1].copy() if output.ndim == 1 else output])
    found = loss.value(stacked, y)
    assert found.shape == (2, N)
    np.testing.assert_allclose(found[0], loss.value(output, y), rtol=1e-15)
    assert loss.slope(stacked, y).shape == stacked.shape


def test_probabilities_of_one_column_are_not_taken_for_classes() -> None:
    p = np.array([0.2, 0.9])
    coalitions = np.stack([p] * 5)
    found = get_loss("cross_entropy").value(coalitions, np.array([0.0, 1.0]))
    np.testing.assert_allclose(found[3], -np.log([0.8, 0.9]))


@pytest.mark.parametrize("rows", [2, 3])
def test_coalitions_of_binary_probabilities_are_never_taken_for_classes(rows: int) -> None:
    # As many coalitions as rows: nothing in the array (rows, rows) tells it from class
    # probabilities.
    coalitions = RNG.uniform(0.1, 0.9, size=(rows, rows))
    y = np.arange(rows) % 2.0
    loss = get_loss("cross_entropy").for_outputs(None)
    expected = -np.where(y == 1, np.log(coalitions), np.log(1 - coalitions))
    np.testing.assert_allclose(loss.value(coalitions, y), expected, rtol=1e-12)
    assert loss.slope(coalitions, y).shape == (rows, rows)
    several = get_loss("cross_entropy").for_outputs(2)
    classes = np.stack([1 - coalitions, coalitions], axis=-1)
    np.testing.assert_allclose(several.value(classes, y), expected, rtol=1e-12)
    assert get_loss("mse").for_outputs(3) is get_loss("mse")


def test_the_loss_game_of_as_many_references_as_rows() -> None:
    from shaplab.foundations.predictions import LossOfMean, MarginalGame, MeanLoss

    X, background = RNG.normal(size=(4, 2)), RNG.normal(size=(4, 2))
    y = np.array([0.0, 1, 1, 0])

    def model(table: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-table.sum(axis=1)))

    coalitions = np.array([[False, False], [True, False], [False, True], [True, True]])
    outputs = np.array(
        [[[model(np.where(S, x, b)[None])[0] for x in X] for b in background] for S in coalitions]
    )
    of_mean, of_each = _binary(outputs.mean(axis=1), y), _binary(outputs, y).mean(axis=1)
    for game, expected in ((LossOfMean, of_mean), (MeanLoss, of_each)):
        found = game(MarginalGame(model, X, background), y, "cross_entropy")(coalitions)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def _binary(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.where(y == 1, np.log(p), np.log(1 - p))


@pytest.mark.parametrize("margin", [800.0, -800.0])
def test_extreme_outputs_stay_finite(margin: float) -> None:
    for y in (0.0, 1.0):
        assert np.isfinite(get_loss("logistic").value(np.array([margin]), np.array([y]))).all()
        assert np.isfinite(get_loss("logistic").slope(np.array([margin]), np.array([y]))).all()
        assert np.isfinite(
            get_loss("cross_entropy").value(np.array([float(margin > 0)]), np.array([y]))
        ).all()
        assert np.isfinite(
            get_loss("cross_entropy").slope(np.array([float(margin > 0)]), np.array([y]))
        ).all()
    logits = np.array([[margin, 0.0, -margin]])
    for y in (0.0, 2.0):
        assert np.isfinite(get_loss("softmax_cross_entropy").value(logits, np.array([y]))).all()
        assert np.isfinite(get_loss("softmax_cross_entropy").slope(logits, np.array([y]))).all()


def test_names_callables_and_losses_are_resolved() -> None:
    assert get_loss("mse") is get_loss("squared_error")
    given = get_loss("logistic")
    assert get_loss(given) is given
    own = get_loss(lambda output, y: np.abs(output - y))
    assert isinstance(own, Loss)
    assert own.slope is None
    assert own.value(np.array([3.0]), np.array([1.0])) == 2
    for bad in ("hinge", None, 3):
        with pytest.raises(ValueError, match=r"loss: expected one of 'squared_error', .*, got "):
            get_loss(bad)


@pytest.mark.parametrize(
    ("y", "loss", "outputs", "kind", "message"),
    [
        ([1, 2], "mse", None, ValueError, r"y: expected shape \(3,\)"),
        ([[1], [2], [3]], "mse", None, ValueError, "shape"),
        ([1, np.nan, 2], "mse", None, ValueError, "finite numbers"),
        (["a", "b", "c"], "mse", None, TypeError, r"y: expected shape \(3,\) of finite numbers"),
        ([0, 1, 2], "logistic", None, ValueError, "class labels 0 to 1"),
        ([0, 0.5, 1], "logistic", None, ValueError, "0 to 1"),
        ([-1, 1, 1], "logistic", None, ValueError, "0 to 1"),
        ([0, 1, 3], "softmax_cross_entropy", 3, ValueError, "class labels 0 to 2"),
    ],
)
def test_bad_targets_are_refused(y, loss, outputs, kind, message) -> None:
    with pytest.raises(kind, match=message):
        check_target(y, 3, get_loss(loss), outputs)


def test_good_targets_become_floats() -> None:
    found = check_target([0, 1, 2], 3, get_loss("softmax_cross_entropy"), 3)
    assert found.dtype == np.float64
    assert check_target([True, False], 2, get_loss("logistic")).tolist() == [1.0, 0.0]
    assert check_target([0.3, -5], 2, get_loss("mse")).tolist() == [0.3, -5.0]


@pytest.mark.parametrize("name", ["squared_error", "logistic", "cross_entropy"])
@pytest.mark.parametrize("exponent", range(-16, 1))
def test_a_secant_keeps_its_digits_at_any_distance(name: str, exponent: int) -> None:
    """Against 60-digit arithmetic on the very same two outputs."""
    mpmath = pytest.importorskip("mpmath")
    mpmath.mp.dps = 60

    def exact(output, label):
        f, t = mpmath.mpf(float(output)), mpmath.mpf(float(label))
        if name == "squared_error":
            return (f - t) ** 2
        if name == "logistic":
            return mpmath.log(1 + mpmath.exp(f)) - t * f
        return -(t * mpmath.log(f) + (1 - t) * mpmath.log(1 - f))

    start = np.array([0.3, 0.01, 0.7, 0.45, 0.25])
    y = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    end = start + 0.25 * 10.0**exponent
    expected = [
        float((exact(b, t) - exact(a, t)) / (mpmath.mpf(float(b)) - mpmath.mpf(float(a))))
        if a != b
        else get_loss(name).slope(a, t)
        for a, b, t in zip(start, end, y, strict=True)
    ]
    # The crossing of the two error bounds lies where both are below 1e-11 of these slopes; the
    # quotient alone is off by 1e-7 at a distance of 1e-9.
    np.testing.assert_allclose(secant(get_loss(name), end, start, y), expected, rtol=1e-11)


def test_a_secant_of_a_callable_works_at_the_end_of_its_domain() -> None:
    own = Loss("own", lambda p, y: -np.log(np.where((p < 0) | (p > 1), np.nan, p)), None)
    p = np.array([1.0, 1.0 - 1e-9, 0.5])
    # One-sided differences over 6e-6: error of that order.
    np.testing.assert_allclose(secant(own, p, np.ones(3) * p, np.zeros(3)), -1 / p, rtol=1e-5)
    with pytest.raises(ValueError, match=r"^loss: expected finite values"):
        secant(own, np.array([2.0]), np.array([2.0]), np.zeros(1))


def test_a_secant_of_probabilities_is_not_taken_for_classes() -> None:
    p, b, y = np.array([0.2, 0.9]), np.array([0.5, 0.6]), np.array([0.0, 1.0])
    loss = get_loss("cross_entropy")
    found = secant(loss, p, b[:, None], y)
    one = loss.for_outputs(None).value
    for r in range(2):
        expected = (one(p, y) - one(b[r] + 0 * p, y)) / (p - b[r])
        np.testing.assert_allclose(found[r], expected, rtol=1e-12)  # a few roundings


def test_a_function_that_bears_a_losss_name_is_not_taken_for_it() -> None:
    def squared_error(output, y):
        return 3 * (output - y) ** 2

    loss = get_loss(squared_error)
    assert loss.name not in ("squared_error", "mse")
    assert loss.value(np.array([2.0]), np.array([0.0]))[0] == 12.0
    own = Loss("cross_entropy", squared_error, lambda f, y: 6 * (f - y))
    assert own.for_outputs(None).value is squared_error
