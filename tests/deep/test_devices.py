"""Nothing leaves the device of the model: torch's "meta" device refuses every mixture, and no GPU
is needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.nets import networks
from torch import nn

from shaplab import dasp, deep_shap, deeplift, gradients, integrated_gradients, stack_shap
from shaplab.deep._pairs import Settings, pairs
from shaplab.deep._propagation import Propagation
from shaplab.deep._windows import Window, _windows_in_torch, exact_windows, window_table

NAMES = list(networks())


@pytest.mark.parametrize(
    ("rule", "max_rule"),
    [
        ("rescale", "exact"),
        ("rescale", "cross"),
        ("reveal_cancel", "exact"),
        ("reveal_cancel_mean", "exact"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_rules_stay_on_the_device(name, rule, max_rule, monkeypatch):
    # Whether outputs are finite cannot be asked of tensors without values.
    monkeypatch.setattr(torch, "isfinite", lambda tensor: torch.ones(()))
    net, shape = networks()[name]
    rows, references = (torch.zeros(count, *shape, device="meta") for count in (3, 4))
    for block in pairs(net.to("meta"), (rows,), (references,), Settings(rule, max_rule)):
        (found,) = block.read(torch.zeros_like(block.out_many))
        assert (found.device.type, found.shape) == ("meta", references.shape)


@pytest.mark.parametrize("stride", [1, 2])
def test_kernel_of_the_maximum_is_the_formula_for_other_devices(stride):
    rng = torch.Generator().manual_seed(stride)
    window = Window((2, 2), (stride, stride), (1, 1), (1, 1))
    table = window_table((6, 5), (7 // stride, 6 // stride), window)
    f, b = (
        torch.randint(0, 9, (count, 30), generator=rng).double() for count in (2, 6)
    )  # with ties
    q = torch.randn(6, len(table), generator=rng, dtype=torch.float64)
    # Sums of products of a few numbers below ten: rounding only.
    assert torch.allclose(
        _windows_in_torch(torch.as_tensor(table), f, b, q),
        exact_windows(table, f.repeat(3, 1), b, q),
        atol=1e-12,
    )


@pytest.mark.parametrize("covariance", ["diagonal", "full", "skewed"])
@pytest.mark.parametrize("method", ["hypergeometric", "owen"])
def test_moments_stay_on_the_device(method, covariance):
    net = (
        nn.Sequential(
            nn.Conv2d(2, 3, 2, padding="same", padding_mode="circular"),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.MaxPool2d(2, 1, 1),
            nn.Conv2d(3, 4, 2, dilation=2),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4, 5),
            nn.LeakyReLU(),
            nn.Linear(5, 2),
        )
        .eval()
        .to("meta")
    )
    run = Propagation(net, np.arange(3), np.array([0.2, 0.8]), method, covariance)
    with torch.no_grad(), run:
        out = net(run.leaf(torch.zeros(10, 2, 3, 3, device="meta")))
    found = run.moments(out)
    assert (found.mean.device.type, found.var.device.type, found.mean.shape) == (
        "meta",
        "meta",
        (12, 2),
    )


class _Watched(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.seen = nn.LSTM(3, 4, batch_first=True), set()

    def forward(self, x):
        self.seen.add(torch.backends.cudnn.enabled)
        return self.body(x)[0][:, -1, 0]


def test_gradients_of_recurrent_layers_do_without_cudnn():
    # On a GPU cuDNN raises here: it has no backward pass of recurrent layers in evaluation mode.
    net, x, before = _Watched().eval(), torch.zeros(2, 5, 3), torch.backends.cudnn.enabled
    gradients(net, x)
    assert False in net.seen
    assert torch.backends.cudnn.enabled == before
    plain = nn.Linear(3, 1)
    plain.register_forward_pre_hook(
        lambda *_: net.seen.add(f"plain {torch.backends.cudnn.enabled}")
    )
    integrated_gradients(plain, x[:, 0], x[:, 0], steps=2)
    assert f"plain {before}" in net.seen


def test_a_baseline_may_be_a_tensor_that_numpy_cannot_read():
    net, row = (
        nn.Linear(3, 1),
        torch.ones(3, requires_grad=True),
    )  # as little to numpy as a tensor on a GPU
    found = deeplift(net, torch.zeros(2, 3), row).values
    assert np.allclose(found[..., 0], -net.weight.detach().numpy(), atol=1e-6)  # single precision


@pytest.mark.parametrize(
    "call",
    [
        deep_shap,
        dasp,
        integrated_gradients,
        lambda net, x, r: deep_shap(net, x, r[:1], rule="reveal_cancel_mean"),
        lambda net, x, r: dasp(net, x, r, covariance="full"),
        lambda net, x, r: stack_shap([net], x, r),
        lambda net, x, r: deeplift(net, x, r[0]),
    ],
)
def test_inference_mode_changes_nothing(call):
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).eval()
    expected = call(net, torch.eye(3), -torch.eye(3)).values
    with torch.inference_mode():
        found = call(net, torch.eye(3), -torch.eye(3)).values  # the inputs belong to that mode, too
    assert np.array_equal(found, expected)
