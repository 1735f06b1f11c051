from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_trees import brute, random_ensemble, random_rows
from properties import examples

from shaplab._losses import Loss, get_loss
from shaplab.trees.ensemble import TreeEnsemble
from shaplab.trees.interventional import interventional_tree_shap
from shaplab.trees.loss import cox_loss, tree_loss_shap, tree_output_shap

TIGHT = 1e-11  # sums of at most a few hundred numbers of order 1 in float64


def outputs(e, x, background, S):
    return e.predict(np.where(np.isin(np.arange(e.n_features), list(S)), x, background))


def expected_loss(e, x, y, background, loss, game):
    """The exact games by brute force on the black box."""
    value = get_loss(loss).value

    def v(S):
        out = outputs(e, x, background, S)
        if game == "loss_of_mean":
            return value(out.mean(axis=0)[None], np.array([y]))[0]
        return value(out, np.full(len(out), y)).mean()

    return brute(v, e.n_features)[0], v(())


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["squared_error", "logistic", "softmax_cross_entropy"]),
    st.sampled_from(["loss_of_mean", "mean_of_loss"]),
)
@examples(25)
def test_exact_games_by_brute_force(seed, loss, game):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng, d=4, outputs=3 if loss == "softmax_cross_entropy" else None)
    X, background = random_rows(rng, e, 4), random_rows(rng, e, 5)
    y = rng.integers(0, 3 if e.has_outputs else 2, size=4)
    found = tree_loss_shap(e, X, y, background, loss=loss, game=game)
    for n in range(4):
        phi, base = expected_loss(e, X[n], y[n], background, loss, game)
        np.testing.assert_allclose(found.values[n], phi, atol=TIGHT)
        np.testing.assert_allclose(found.base_values[n], base, atol=TIGHT)
    np.testing.assert_allclose(found.prediction, get_loss(loss).value(e.predict(X), y), atol=TIGHT)


def test_the_three_games_differ_and_each_adds_up():
    rng = np.random.default_rng(0)
    e = random_ensemble(rng, trees=5)
    X, background = random_rows(rng, e, 20), random_rows(rng, e, 30)
    y = rng.integers(0, 2, size=20)
    found = {
        game: tree_loss_shap(e, X, y, background, loss="logistic", game=game)
        for game in ("loss_of_mean", "mean_of_loss", "rescaled_margin")
    }
    for explanation in found.values():
        np.testing.assert_allclose(
            explanation.prediction, get_loss("logistic").value(e.predict(X), y), atol=TIGHT
        )
    # The last two start from the same mean loss; the first from the loss of the mean, which is
    # smaller (Jensen).
    np.testing.assert_allclose(
        found["mean_of_loss"].base_values, found["rescaled_margin"].base_values, atol=TIGHT
    )
    assert (found["loss_of_mean"].base_values < found["mean_of_loss"].base_values).all()
    assert np.abs(found["mean_of_loss"].values - found["rescaled_margin"].values).max() > 1e-3


@given(st.integers(0, 2**32 - 1))
@examples(15)
def test_rescaled_margin_by_its_definition(seed):
    rng = np.random.default_rng(seed)
    e = random_ensemble(rng)
    X, background = random_rows(rng, e, 3), random_rows(rng, e, 4)
    y = rng.normal(size=3)
    expected = np.zeros((3, 4))
    for c in background:
        f, g = e.predict(X), e.predict(c[None])[0]
        factor = [(a - t) ** 2 - (g - t) ** 2 for a, t in zip(f, y, strict=True)] / np.where(
            f == g, 1, f - g
        )
        factor = np.where(f == g, 2 * (f - y), factor)
        expected += interventional_tree_shap(e, X, c[None]).values * factor[:, None] / 4
    found = tree_loss_shap(e, X, y, background, loss="squared_error", game="rescaled_margin")
    np.testing.assert_allclose(
        found.values, expected, atol=1e-9
    )  # the secant divides by small changes of f


def test_equal_outputs_use_the_slope():
    # Two features cancel: f is the same at x and at the reference although both features matter.
    e = TreeEnsemble.from_arrays(
        [0, -1, -1, 1, -1, -1],
        [0.5, 0, 0, 0.5, 0, 0],
        [1, -1, -1, 4, -1, -1],
        [2, -1, -1, 5, -1, -1],
        [0, 0.0, 1.0, 0, 0.0, -1.0],
        tree_start=[0, 3, 6],
    )
    found = tree_loss_shap(
        e, [[1.0, 1.0]], [3.0], [[0.0, 0.0]], loss="squared_error", game="rescaled_margin"
    )
    np.testing.assert_allclose(found.values, [[-6.0, 6.0]])  # slope 2 (0 - 3)


def test_nearly_equal_outputs_keep_the_digits_of_the_slope():
    # Two features nearly cancel: their values are about 1 and -1 and the output changes by 1e-9.
    e = TreeEnsemble.from_arrays(
        [0, -1, -1, 1, -1, -1],
        [0.5, 0, 0, 0.5, 0, 0],
        [1, -1, -1, 4, -1, -1],
        [2, -1, -1, 5, -1, -1],
        [0, 0.0, 1.0, 0, 0.0, -1.0 + 1e-9],
        tree_start=[0, 3, 6],
        base=0.3,
    )
    arguments = {"loss": "logistic", "game": "rescaled_margin"}
    found = tree_loss_shap(e, [[1.0, 1.0]], [1.0], [[0.0, 0.0]], **arguments)
    slope = 1 / (1 + np.exp(-0.3 - 0.5e-9)) - 1  # of the middle: the rest is of order 1e-18
    np.testing.assert_allclose(found.values, [[slope, -slope * (1 - 1e-9)]], rtol=1e-13)


def test_cox_is_the_partial_likelihood():
    rng = np.random.default_rng(1)
    margin, y = (
        rng.normal(size=12),
        rng.permutation(np.arange(1.0, 13)) * np.where(rng.random(12) < 0.5, 1, -1),
    )
    y[0] = y[1] = abs(y[1])
    loss = cox_loss(margin, y)
    for i in range(12):
        risk = np.exp(margin[np.abs(y) >= abs(y[i])]).sum()
        expected = np.log(risk) - margin[i] if y[i] > 0 else 0.0
        assert abs(loss.value(margin, np.arange(12))[i] - expected) < 1e-12
    step = 1e-6
    slope = (
        loss.value(margin + step, np.arange(12)) - loss.value(margin - step, np.arange(12))
    ) / (2 * step)
    np.testing.assert_allclose(
        loss.slope(margin, np.arange(12)), slope, atol=1e-8
    )  # central difference
    e = random_ensemble(rng)
    X = random_rows(rng, e, 12)
    for game in ("loss_of_mean", "mean_of_loss", "rescaled_margin"):
        found = tree_loss_shap(e, X, y, X[:4], loss="cox", game=game)
        expected = cox_loss(e.predict(X), y).value(e.predict(X), np.arange(12))
        np.testing.assert_allclose(found.prediction, expected, atol=TIGHT)
        np.testing.assert_array_equal(found.values[y < 0], 0)


@pytest.mark.parametrize("many", [None, 3])
def test_probability_adds_up_to_probability(many):
    rng = np.random.default_rng(2)
    e = random_ensemble(rng, outputs=many)
    X, background = random_rows(rng, e, 6), random_rows(rng, e, 7)
    f = e.predict(X)
    p = 1 / (1 + np.exp(-f)) if many is None else np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    for game in ("loss_of_mean", "mean_of_loss") + (("rescaled_margin",) if many is None else ()):
        np.testing.assert_allclose(
            tree_output_shap(e, X, background, game=game).prediction, p, atol=TIGHT
        )
    np.testing.assert_allclose(
        tree_output_shap(e, X, background, transform=np.tanh).prediction, np.tanh(f), atol=TIGHT
    )


def test_many_rows_are_cut_into_blocks(monkeypatch):
    rng = np.random.default_rng(3)
    e = random_ensemble(rng)
    X, background, y = random_rows(rng, e, 40), random_rows(rng, e, 5), rng.uniform(1, 9, 40)
    for loss in ("squared_error", "cox"):
        whole = tree_loss_shap(e, X, y, background, loss=loss).values
        monkeypatch.setattr("shaplab.trees.loss._CELLS", 200)
        np.testing.assert_allclose(
            tree_loss_shap(e, X, y, background, loss=loss).values, whole, atol=1e-14
        )
        monkeypatch.undo()


def test_wrong_arguments_are_named():
    rng = np.random.default_rng(4)
    one, many = random_ensemble(rng), random_ensemble(rng, outputs=3)
    X, y = random_rows(rng, one, 3), np.array([0.0, 1.0, 1.0])
    cases = [
        ("loss", one, y, {"loss": "nothing"}),
        ("loss", one, y, {"loss": "softmax_cross_entropy"}),
        ("loss", many, y, {"loss": "squared_error"}),
        ("y", one, y[:2], {"loss": "squared_error"}),
        ("y", one, y + 1, {"loss": "logistic"}),
        ("y", one, y, {"loss": "cox"}),
        ("game", one, y, {"loss": "logistic", "game": "other"}),
        ("game", many, y, {"loss": "softmax_cross_entropy", "game": "rescaled_margin"}),
        ("model", one, y, {"loss": "logistic", "max_players": 1}),
    ]
    for argument, model, target, arguments in cases:
        with pytest.raises(ValueError, match=f"^{argument}: expected"):
            tree_loss_shap(model, np.abs(X), target, np.abs(X), **arguments)


def test_squared_error_takes_the_whole_background_at_once():
    # Deep trees, so that some paths pass 14 features; the general way, reference by reference, is
    # the truth.
    from sklearn.tree import DecisionTreeRegressor

    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 40))
    y = 1e3 + X[:, 0] * X[:, 1] + rng.normal(size=300)
    m = DecisionTreeRegressor(random_state=0, splitter="random").fit(X, y)
    square = get_loss("squared_error")
    general = Loss("square", square.value, square.slope)
    slow = tree_loss_shap(m, X[:20], y[:20] + 1, X[:50], loss=general, game="rescaled_margin")
    fast = tree_loss_shap(
        m, X[:20], y[:20] + 1, X[:50], loss="squared_error", game="rescaled_margin"
    )
    # The general way subtracts squares of order 1e6 and divides by changes of order 1: 1e-16 * 1e6
    # a term.
    np.testing.assert_allclose(fast.values, slow.values, atol=1e-8)
    np.testing.assert_allclose(fast.base_values, slow.base_values, rtol=1e-9)


def test_losses_without_finite_values_say_so():
    e = TreeEnsemble.from_arrays([0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1], [0, 900.0, -1])
    X, background = [[1.0], [0.0]], [[1.0]]
    with np.errstate(all="ignore"):
        for game in ("loss_of_mean", "mean_of_loss", "rescaled_margin"):
            with pytest.raises(ValueError, match=r"^transform: expected finite .*row 1"):
                tree_output_shap(e, X, background, transform="exp", game=game)
        with pytest.raises(ValueError, match=r"^loss: expected finite .*row 0"):
            tree_loss_shap(e, X, [0, 0], background, loss=lambda f, y: np.log(f))
    huge = TreeEnsemble.from_arrays(
        [0, -1, -1] * 2,
        [0.5, 0, 0] * 2,
        [1, -1, -1, 4, -1, -1],
        [2, -1, -1, 5, -1, -1],
        [0, 1.2e308, 1.0] * 2,
        tree_start=[0, 3, 6],
    )
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match=r"^model: .* inf from the model itself for row 1"),
    ):
        tree_loss_shap(huge, X, [0, 0], background, loss="squared_error")
