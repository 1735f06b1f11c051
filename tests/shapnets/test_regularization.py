"""Penalties on explanations, the training helper, and the two measures of an explanation's
shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from shaplab_book.networks import ResidualDNN

from shaplab.shapnets import (
    DeepShapNet,
    ImageShapNet,
    ShallowShapNet,
    coefficient_of_variation,
    explanation_penalty,
    fit,
    sparsity,
)


def test_penalties_by_hand():
    first = torch.tensor([[[2.0], [0.0]]])
    last = torch.tensor([[[1.0, -2.0], [-3.0, 0.5]]])
    layers = [first, last]
    assert float(explanation_penalty(l1=1.0)(layers)) == pytest.approx((4 + 2.5) / 2)
    assert float(explanation_penalty(l_inf=1.0)(layers)) == pytest.approx((3 + 2) / 2)
    assert float(explanation_penalty(layerwise_l1=1.0)(layers)) == pytest.approx((2 + 3.25) / 2)
    assert float(explanation_penalty(prior=lambda z: z.sum())(layers)) == pytest.approx(-3.5)
    both = explanation_penalty(l1=2.0, l_inf=3.0)(layers)
    assert float(both) == pytest.approx(2 * 3.25 + 3 * 2.5)


NETS = [
    lambda: ShallowShapNet(4, 2, activation="gelu", seed=0),
    lambda: DeepShapNet(4, 2, activation="gelu", seed=0),
    lambda: ImageShapNet(1, 2, channels=(3,), seed=0),
]
PENALTIES = [
    {"l1": 1.0},
    {"l_inf": 1.0},
    {"layerwise_l1": 1.0},
    {"prior": lambda z: z.square().mean()},
]


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("options", PENALTIES)
def test_gradients_of_every_penalty_reach_every_parameter(make, options):
    net = make()
    x = torch.randn(200, 4) if net.input_shape[0] else torch.randn(60, 1, 6, 6)
    explanation_penalty(**options)(net.layers(x)).backward()
    for name, p in net.named_parameters():
        if name != "intercept":  # no part of any explanation
            assert bool((p.grad != 0).all()), name


def data(n=200):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    return X, (X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(int)


def test_fit_learns_repeats_itself_and_leaves_torch_alone():
    X, y = data(400)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    nets = [DeepShapNet(4, 2, seed=0) for _ in range(2)]
    histories = [fit(net, X, y, epochs=12, learning_rate=5e-3, seed=1) for net in nets]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert histories[0] == histories[1]
    assert all(
        torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True)
    )
    with torch.no_grad():
        accuracy = float((nets[0](torch.tensor(X).float()).argmax(1).numpy() == y).mean())
    assert histories[0][-1] < 0.5 * histories[0][0]
    assert accuracy > 0.9
    assert fit(DeepShapNet(4, 2, seed=0), X, y, epochs=1, seed=2)[0] != histories[0][0]


def test_fit_squared_error_and_other_networks():
    X, _ = data()
    y = X[:, 0] - 2 * X[:, 1] + 3
    for net in (ShallowShapNet(4, 1, seed=0), ResidualDNN(4, 1, width=16, depth=2, seed=0)):
        history = fit(net, X, y, loss="squared_error", epochs=25, learning_rate=1e-2)
        assert history[-1] < 0.3
    linear = torch.nn.Linear(4, 1)
    assert len(fit(linear, X, y, loss=lambda out, t: (out[:, 0] - t).abs().mean(), epochs=2)) == 2
    smooth = torch.nn.CrossEntropyLoss(label_smoothing=0.1)  # wants whole numbers
    history = fit(ShallowShapNet(4, 2, seed=0), *data(), loss=smooth, epochs=5, learning_rate=1e-2)
    assert history[-1] < history[0]


def test_penalties_do_what_they_say():
    X, y = data(300)
    found = {}
    for name, options in {"none": {}, "l1": {"l1": 0.5}, "l_inf": {"l_inf": 0.5}}.items():
        net = DeepShapNet(4, 2, seed=0)
        fit(net, X, y, epochs=15, learning_rate=5e-3, penalty=explanation_penalty(**options))
        found[name] = np.abs(net.explanation(X).values)
    assert found["l1"].mean() < 0.6 * found["none"].mean()
    assert found["l_inf"].max(1).mean() < 0.6 * found["none"].max(1).mean()
    assert coefficient_of_variation(found["l1"]) > coefficient_of_variation(found["l_inf"])


def test_measures_by_hand():
    values = np.array([[[1.0], [-3.0]], [[0.0], [0.0]]])
    assert coefficient_of_variation(values) == pytest.approx(0.5)
    assert sparsity(np.array([[[1.0], [0.005], [0.0], [0.5]]])) == 0.5
    assert sparsity(torch.ones(2, 3, 3, 1)) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: fit(torch.nn.Linear(4, 2), *data(), penalty=explanation_penalty(l1=1.0)),
            "penalty: expected None",
        ),
        (lambda: fit(ShallowShapNet(4, 2, seed=0), data()[0], [0, 1]), "y: expected 200 values"),
        (
            lambda: fit(ShallowShapNet(4, 2, seed=0), data()[0] * np.nan, data()[1], epochs=1),
            "a finite loss",
        ),
        (lambda: fit(ShallowShapNet(4, 2, seed=0), *data(), loss="hinge"), "loss: expected one of"),
        (lambda: explanation_penalty(l1=-1.0), "l1"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_targets_in_a_column_are_targets_of_rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 4))
    y = X[:, 0] - 2 * X[:, 1]
    flat, column = (ShallowShapNet(4, 1, seed=0) for _ in range(2))
    options = {"loss": "squared_error", "epochs": 15, "learning_rate": 1e-2}
    first = fit(flat, X, y, **options)
    second = fit(column, X, y[:, None], **options)
    # Against one row of all targets the loss would stay near the variance of y, 5.
    assert first[-1] < 0.5
    assert second == first
    labels = (y > 0).astype(int)
    nets = [ShallowShapNet(4, 2, seed=0) for _ in range(2)]
    assert fit(nets[0], X, labels, epochs=2) == fit(nets[1], X, labels[:, None], epochs=2)


def test_targets_that_do_not_suit_the_net_are_refused():
    X = np.zeros((6, 4))
    net = ShallowShapNet(4, 2, seed=0)
    for y, options, text in (
        (np.zeros((6, 2)), {"loss": "squared_error"}, "y: expected 6 values"),
        (np.zeros(5), {}, "y: expected 6 values"),
        (np.zeros(6), {"loss": "squared_error"}, "loss: expected a net of one output"),
        (np.array([0, 1, 2, 0, 0, 0]), {}, "y: expected labels 0 to 1"),
        (np.array([0, 1, -1, 0, 0, 0]), {}, "y: expected labels 0 to 1"),
        (np.array([0, 0.5, 1, 0, 0, 0]), {}, "y: expected whole numbers"),
    ):
        with pytest.raises(ValueError, match=text):
            fit(net, X, y, epochs=1, **options)
    for arguments, text in (
        ((None, X, np.zeros(6)), "net: expected a torch module"),
        ((net, X, None), "y: expected numbers"),
        ((net, None, np.zeros(6)), "X: expected numbers"),
    ):
        with pytest.raises(TypeError, match=text):
            fit(*arguments)
    with pytest.raises(ValueError, match="learning_rate: expected a number"):
        fit(net, X, np.zeros(6), learning_rate=np.nan)
    with pytest.raises(ValueError, match="y: expected finite targets"):
        fit(ShallowShapNet(4, 1, seed=0), X, [np.nan] * 6, epochs=1, loss="squared_error")
