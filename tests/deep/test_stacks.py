"""Stacks and losses: additive, exact where they must be, and averaged after the last product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn as nn
import xgboost
from numpy.testing import assert_allclose

from shaplab import FunctionStage, SplitStage, deep_shap, interventional_tree_shap, stack_shap
from shaplab._losses import Loss
from shaplab.deep.stacks import pull_back
from tests.deep.nets import Linear, brute_force

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
    with pytest.raises(ValueError, match="stages: expected an explainer"):
        stack_shap([net, lambda h: h.sum(1)], X, B)
    with pytest.raises(ValueError, match="loss: expected a loss of 3 outputs"):
        stack_shap([net], X, B, y=np.zeros(5), loss="squared_error")


def test_multipliers_are_zero_where_nothing_changed() -> None:
    assert pull_back(
        np.array([[[2.0, 0.0]]]), np.array([[1.0, 1.0]]), np.array([[0.0, 1.0]])
    ).tolist() == [[[2.0, 0.0]]]
