"""Stacks and losses: additive, exact where they must be, and averaged after the last product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn as nn
import xgboost
from numpy.testing import assert_allclose
from oracles.nets import Linear, brute_force

from shaplab import (
    FunctionStage,
    SplitStage,
    deep_shap,
    exact_shap,
    interventional_tree_shap,
    stack_shap,
)
from shaplab._losses import Loss
from shaplab.deep.stacks import pull_back

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def stack() -> tuple[nn.Module, xgboost.XGBRegressor, np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    net = nn.Sequential(Linear(6, 8), nn.ReLU(), Linear(8, 3)).double().eval()
    X = RNG.normal(size=(60, 6))
    hidden = net(torch.tensor(X)).detach().numpy()
    trees = xgboost.XGBRegressor(n_estimators=12, max_depth=3, n_jobs=1, random_state=0)
    trees.fit(hidden, hidden[:, 0] * hidden[:, 1] + hidden[:, 2])
    return net, trees, X[:5], X[20:27]


def test_network_into_trees_is_additive_and_averages_last(stack: tuple) -> None:
    net, trees, X, B = stack
    hidden = [net(torch.tensor(t)).detach().numpy() for t in (X, B)]
    made, base = (trees.predict(h) for h in hidden)
    found = stack_shap([net, trees], X, B)
    # XGBoost predicts in float32: 1e-6 of the output.
    assert_allclose(found.values.sum(1) + base.mean(), made, atol=1e-5)
    assert np.abs(found.info["gap"]).max() < 1e-12
    # By the formula, one pair of rows at a time.
    expected = np.zeros_like(X)
    first = np.zeros_like(X)
    through = np.mean(
        [interventional_tree_shap(trees, hidden[0], r[None]).values for r in hidden[1]], axis=0
    )
    for n in range(5):
        for b in range(7):
            phi = interventional_tree_shap(
                trees, hidden[0][n : n + 1], hidden[1][b : b + 1]
            ).values[0]
            step = hidden[0][n] - hidden[1][b]
            single = deep_shap(net, X[n : n + 1], B[b : b + 1]).values[0]  # (6, 3)
            expected[n] += single @ (phi / step) / 7
            first[n] += single @ (through[n] / (hidden[0][n] - hidden[1].mean(0))) / 7
    assert_allclose(found.values, expected, atol=1e-12)
    # Average-then-multiply gives other numbers. They sum just as well, so additivity would not show
    # the mistake.
    assert np.abs(found.values - first).max() > 0.05 * np.abs(expected).max()


def test_more_references_than_rows_and_the_other_way_round_agree(stack: tuple) -> None:
    net, trees, X, B = stack
    whole = stack_shap([net, trees], X, B).values
    assert_allclose(stack_shap([net, trees], X[:2], B).values, whole[:2], atol=1e-12)
    parts = [stack_shap([net, trees], X, B[i : i + 1]).values for i in range(7)]
    assert_allclose(np.mean(parts, axis=0), whole, atol=1e-12)


def test_each_stage_alone_is_its_own_method(stack: tuple) -> None:
    net, trees, X, B = stack
    assert_allclose(stack_shap([net], X, B).values, deep_shap(net, X, B).values, atol=1e-14)
    hidden = [net(torch.tensor(t)).detach().numpy() for t in (X, B)]
    # XGBoost compares in float32; both sides see the same float32 numbers.
    assert_allclose(
        stack_shap([trees], *hidden).values,
        interventional_tree_shap(trees, *hidden).values,
        atol=1e-12,
    )


def test_linear_stages_of_every_kind_are_exact() -> None:
    torch.manual_seed(1)
    one, two = Linear(4, 3).double(), Linear(5, 2).double()
    w = RNG.normal(size=(2, 3))
    last = FunctionStage(lambda h: h @ w, lambda h, r: (h - r)[:, :, None] * w)
    split = SplitStage([(one, [0, 1, 2, 3]), (None, [3, 4])])
    X, B = RNG.normal(size=(3, 5)), RNG.normal(size=(4, 5))
    with torch.no_grad():
        middle = torch.cat([one.weight, torch.zeros(3, 1)], 1)
        passed = torch.eye(5, dtype=torch.float64)[3:]
        matrix = (w.T @ two.weight.numpy()) @ torch.cat([middle, passed]).numpy()
    found = stack_shap([split, two, last], X, B)
    assert_allclose(found.values, (X - B.mean(0))[:, :, None] * matrix.T, atol=1e-13)
    assert_allclose(found.info["gap"], 0, atol=1e-13)
    grouped = stack_shap([split, two, last], X, B, groups=[[0, 1], [2, 3, 4]], outputs=2)
    assert_allclose(grouped.values[:, 1], found.values[:, 2:, 2].sum(1), atol=1e-14)


def test_squared_error_of_a_linear_model_is_exact() -> None:
    torch.manual_seed(2)
    net = Linear(4, 1).double()
    X, B, y = RNG.normal(size=(3, 4)), RNG.normal(size=(5, 4)), RNG.normal(size=3)
    found = stack_shap([net], X, B, y=y, loss="squared_error")
    exact = [
        np.mean(
            [
                brute_force(
                    lambda z, t=t: (net(z)[:, 0] - t) ** 2, torch.tensor(x), torch.tensor(r)
                ).numpy()
                for r in B
            ],
            axis=0,
        )
        for x, t in zip(X, y, strict=True)
    ]
    assert_allclose(
        found.values, exact, atol=1e-12
    )  # a square is a product of two equal linear maps: exact
    out, base = net(torch.tensor(X)).detach().numpy()[:, 0], net(torch.tensor(B)).detach().numpy()
    assert_allclose(found.prediction, (out - y) ** 2, atol=1e-12)
    assert_allclose(found.base_values, ((base - y) ** 2).mean(0), atol=1e-12)


@pytest.mark.parametrize(
    "loss", ["squared_error", "logistic", "softmax_cross_entropy", "cross_entropy", "own"]
)
def test_losses_use_each_rows_own_label(loss: str) -> None:
    torch.manual_seed(3)
    classes = loss in ("softmax_cross_entropy", "cross_entropy")
    tail = [nn.Softmax(-1)] if loss == "cross_entropy" else []
    net = (
        nn.Sequential(Linear(4, 6), nn.Tanh(), Linear(6, 3 if classes else 1), *tail)
        .double()
        .eval()
    )
    X, B = RNG.normal(size=(4, 4)), RNG.normal(size=(5, 4))
    X[3] = B[0]  # equal rows: slope, not a quotient of zeros
    y = np.array([0.0, 2.0, 1.0, 2.0]) if classes else np.array([0.0, 1.0, 1.0, 0.0])
    own = Loss(
        "own", lambda f, t: np.abs(f - t) ** 3, lambda f, t: 3 * np.sign(f - t) * (f - t) ** 2
    )
    found = stack_shap([net], X, B, y=y, loss=own if loss == "own" else loss)
    native = {
        "squared_error": lambda f, t: (f[:, 0] - t) ** 2,
        "own": lambda f, t: (f[:, 0] - t).abs() ** 3,
        "logistic": lambda f, t: nn.functional.binary_cross_entropy_with_logits(
            f[:, 0], t.expand(len(f)), reduction="none"
        ),
        "softmax_cross_entropy": lambda f, t: nn.functional.cross_entropy(
            f, t.long(), reduction="none"
        ),
        "cross_entropy": lambda f, t: nn.functional.nll_loss(f.log(), t.long(), reduction="none"),
    }[loss]
    out, base, labels = (
        net(torch.tensor(X)).detach(),
        net(torch.tensor(B)).detach(),
        torch.tensor(y),
    )
    assert_allclose(found.prediction, native(out, labels).numpy(), atol=1e-12)
    assert_allclose(
        found.base_values, [native(base, t.expand(5)).numpy().mean() for t in labels], atol=1e-12
    )

    # The loss written in torch as part of the network gives the same attributions.
    class WithLoss(nn.Module):
        def __init__(self, label: torch.Tensor) -> None:
            super().__init__()
            self.net, self.label = net, label

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return native(self.net(x), self.label.expand(len(x)))

    if loss in ("softmax_cross_entropy", "cross_entropy"):
        return
    for n in range(3):
        whole = stack_shap(
            [net, lambda f, t=y[n]: native(torch.tensor(f), torch.tensor(t)).numpy()],
            X[n : n + 1],
            B,
        )
        assert_allclose(found.values[n], whole.values[0], atol=1e-12)


def test_bad_stacks_are_refused(stack: tuple) -> None:
    net, trees, X, B = stack
    with pytest.raises(ValueError, match=r"stages: expected 3 inputs at stage 0, got 6 outputs"):
        stack_shap([trees, net], X, B)
    with pytest.raises(ValueError, match="y: expected y together with loss"):
        stack_shap([net, trees], X, B, loss="squared_error")
    with pytest.raises(ValueError, match="background: expected rows of shape"):
        stack_shap([net, trees], X, B[:, :5])
    with pytest.raises(ValueError, match=r"stages: expected a function of each input.*mixes 12"):
        stack_shap([lambda X: np.exp(X.sum(1))], np.ones((2, 12)), np.zeros((3, 12)))
    with pytest.raises(ValueError, match="loss: expected a loss of 3 outputs"):
        stack_shap([net], X, B, y=np.zeros(5), loss="squared_error")


def test_multipliers_are_zero_where_nothing_changed() -> None:
    assert pull_back(
        np.array([[[2.0, 0.0]]]), np.array([[1.0, 1.0]]), np.array([[0.0, 1.0]])
    ).tolist() == [[[2.0, 0.0]]]


# What a stage is, and not what its shape suggests.


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_a_projection_with_as_many_outputs_as_inputs_is_not_taken_for_elementwise(
    unit: float,
) -> None:
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestRegressor

    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 4)) @ rng.normal(size=(4, 4)) * unit
    pca = PCA(4).fit(X)
    forest = RandomForestRegressor(10, max_depth=4, random_state=0).fit(
        pca.transform(X), X[:, 0] * X[:, 1] / unit**2
    )
    net = Linear(4, 4).double()
    with torch.no_grad():
        net.weight[:] = torch.as_tensor(pca.components_)
        net.bias[:] = torch.as_tensor(-pca.components_ @ pca.mean_)
    found = stack_shap([pca.transform, forest], X[:5], X[20:40])
    expected = stack_shap([net, forest], X[:5], X[20:40])
    # The same linear map, once as a function and once as a network: rounding of sums of four.
    assert_allclose(found.values, expected.values, rtol=1e-9, atol=1e-9)
    assert np.abs(found.info["gap"]).max() < 1e-9


@pytest.mark.parametrize("count", [2, 3])
def test_probabilities_and_softmax_mix_their_inputs_and_are_exact(count: int) -> None:
    rng = np.random.default_rng(0)
    X, B = 2 * rng.normal(size=(4, count)), 2 * rng.normal(size=(6, count))
    found = stack_shap([softmax], X, B)
    assert_allclose(found.values, exact_shap(softmax, X, B).values, atol=1e-14)
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression().fit(B, np.arange(6) % 2)
    found = stack_shap([fitted.predict_proba], X, B)
    assert_allclose(found.values, exact_shap(fitted.predict_proba, X, B).values, atol=1e-14)


def test_functions_of_each_input_and_sums_of_them_are_found_out() -> None:
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(4, 5)), rng.normal(size=(6, 5))
    W = rng.normal(size=(5, 3))
    for function, kind in (
        (np.tanh, "each"),
        (lambda h: np.tanh(h) @ W, "sum"),
        (lambda h: np.tanh(h @ W), "mixed"),
        (lambda h: h[:, ::-1], "sum"),
        (lambda h: (h - 3.0) * [1.0, 2.0, 3.0, 1e9, 1e-9], "each"),
        # One output a million times smaller than the others mixes all the same.
        (lambda h: np.c_[h[:, :4] * 1e6, h.prod(axis=1)], "mixed"),
        (lambda h: h.astype(np.float32), "each"),
    ):
        stage = FunctionStage(function)
        assert stage.kind(X, B) == kind
        exact = exact_shap(function, X, B).values
        # Float32 keeps seven digits.
        assert_allclose(
            stack_shap([stage], X, B).values, exact, rtol=1e-6, atol=1e-9 * np.abs(exact).max()
        )


def test_a_mask_splits_as_its_positions_do() -> None:
    rng = np.random.default_rng(0)
    X, B = rng.normal(size=(4, 5)), rng.normal(size=(6, 5))
    mask = np.array([False, True, False, True, True])
    parts = [(np.tanh, mask), (None, ~mask)]
    by_mask = stack_shap([SplitStage(parts), lambda h: h.sum(1)], X, B)
    numbers = [(np.tanh, [1, 3, 4]), (None, [0, 2])]
    by_number = stack_shap([SplitStage(numbers), lambda h: h.sum(1)], X, B)
    assert_allclose(by_mask.values, by_number.values, atol=1e-14)
    assert_allclose(by_mask.values[:, 0], X[:, 0] - B[:, 0].mean(), atol=1e-14)
    for wrong in ([-1, 0], [0.5], [], np.zeros(5, dtype=bool), [[0, 1]], "ab"):
        with pytest.raises(ValueError, match="parts: expected for each stage a list of column"):
            SplitStage([(None, wrong)])
    with pytest.raises(ValueError, match=r"parts: expected columns of the 5 inputs.*column 7"):
        stack_shap([SplitStage([(None, [0, 7])])], X, B)
    with pytest.raises(ValueError, match=r"parts: expected columns of the 5 inputs.*length 6"):
        stack_shap([SplitStage([(None, np.array([True, *[False] * 5]))])], X, B)


def test_groups_of_a_stack_are_a_partition(stack: tuple) -> None:
    net, trees, X, B = stack
    plain = stack_shap([net, trees], X, B)
    found = stack_shap([net, trees], X, B, groups={"a": [0, 1], "b": [2, 3, 4, 5]})
    assert found.feature_names == ("a", "b")
    assert_allclose(found.values[:, 0], plain.values[:, :2].sum(1), atol=1e-14)
    for wrong in ([[0, 1], [1, 2, 3, 4, 5]], [[0, 1], [2, 3]], [[True] * 6]):
        with pytest.raises(ValueError, match="groups: expected a partition of the 6 players"):
            stack_shap([net, trees], X, B, groups=wrong)


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4, 1e300])
def test_softmax_cross_entropy_of_logits_far_apart_is_finite_and_adds_up(size: float) -> None:
    rng = np.random.default_rng(0)
    X, B, y = size * rng.normal(size=(4, 3)), size * rng.normal(size=(5, 3)), np.array([0, 1, 2, 0])
    found = stack_shap([lambda h: h], X, B, y=y, loss="softmax_cross_entropy")
    assert np.isfinite(found.values).all()
    assert np.abs(found.info["gap"]).max() < 1e-12 * size
    if size < 100:
        # By the definition of the multipliers, in plain numbers.
        up, low = np.exp(X)[:, None], np.exp(B)[None]
        secant = (up - low) / (X[:, None] - B[None])
        total = (up.sum(2) - low.sum(2)) / (np.log(up.sum(2)) - np.log(low.sum(2)))
        hot = np.arange(3) == y[:, None]
        expected = (secant / total[..., None] - hot[:, None]) * (X[:, None] - B[None])
        assert_allclose(found.values, expected.mean(1), rtol=1e-9, atol=1e-9)


def test_cross_entropy_is_asked_of_probabilities_only() -> None:
    rng = np.random.default_rng(0)
    X, B, y = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), np.array([0, 1, 2, 0])
    with pytest.raises(ValueError, match="model: expected probabilities from 0 to 1 that sum"):
        stack_shap([lambda h: h], X, B, y=y, loss="cross_entropy")
    found = stack_shap([softmax], X, B, y=y, loss="cross_entropy")
    assert np.abs(found.info["gap"]).max() < 1e-12
    from shaplab import LossOfMean, MarginalGame, MeanLoss

    for game in (LossOfMean, MeanLoss):
        with pytest.raises(ValueError, match="model: expected probabilities"):
            game(MarginalGame(lambda h: h, X, B), y, "cross_entropy")(np.ones((1, 3), dtype=bool))
        game(MarginalGame(softmax, X, B), y, "cross_entropy")(np.ones((1, 3), dtype=bool))


def test_outputs_are_named_by_any_integer_or_by_name_and_others_are_refused(stack: tuple) -> None:
    net, _, X, B = stack
    whole = stack_shap([net], X, B, output_names=["u", "v", "w"])
    for outputs in (1, np.int64(1), "v"):
        found = stack_shap([net], X, B, outputs=outputs, output_names=["u", "v", "w"])
        assert_allclose(found.values, whole.values[..., 1], atol=1e-14)
    for outputs in ([2, 0], np.array([2, 0]), ["w", "u"]):
        found = stack_shap([net], X, B, outputs=outputs, output_names=["u", "v", "w"])
        assert found.output_names == ("w", "u")
        assert_allclose(found.values, whole.values[..., [2, 0]], atol=1e-14)
    for outputs in (-1, 3, True, 1.5, "x", [0, 7], []):
        with pytest.raises(ValueError, match="outputs: expected"):
            stack_shap([net], X, B, outputs=outputs, output_names=["u", "v", "w"])


def test_what_is_no_stage_and_no_table_is_refused_by_name() -> None:
    X = np.ones((2, 3))
    for call, text in (
        (lambda: SplitStage([]), "parts: expected a list of pairs"),
        (lambda: SplitStage(None), "parts: expected a list of pairs"),  # type: ignore[arg-type]
        (lambda: SplitStage([3]), "parts: expected a list of pairs"),  # type: ignore[list-item]
        (lambda: FunctionStage(None), "function: expected a callable"),  # type: ignore[arg-type]
        (lambda: FunctionStage(np.tanh, 3), "explainer: expected a callable"),  # type: ignore[arg-type]
        (lambda: stack_shap([np.tanh], "abc", X), "X: expected numbers"),
        (lambda: stack_shap([np.tanh], None, X), "X: expected numbers"),
        (lambda: stack_shap([np.tanh], X, [["a", "b", "c"]]), "background: expected numbers"),
    ):
        with pytest.raises(TypeError, match=text):
            call()
