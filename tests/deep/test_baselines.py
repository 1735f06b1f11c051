"""Baselines: closed forms on linear and additive networks."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn as nn
from numpy.testing import assert_allclose
from oracles.nets import Linear, Net

from shaplab import (
    deep_shap,
    deeplift,
    gradients,
    input_x_gradient,
    integrated_gradients,
    occlusion,
)

X, B = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)


def test_all_agree_on_a_linear_network() -> None:
    torch.manual_seed(0)
    net = Linear(4, 2).double()
    weight = net.weight.detach().numpy().T
    expected = (X.numpy() - B.numpy().mean(0))[:, :, None] * weight
    for method in (input_x_gradient, integrated_gradients, occlusion):
        assert_allclose(method(net, X, B).values, expected, atol=1e-13)
    assert_allclose(gradients(net, X).values, np.broadcast_to(weight, (3, 4, 2)), atol=1e-15)
    assert_allclose(deeplift(net, X).values, X.numpy()[:, :, None] * weight, atol=1e-14)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_closed_forms_on_a_product() -> None:
    net = Net(lambda n, x: x[:, 0] * x[:, 1] + torch.tanh(x[:, 2]))
    x, r = X.numpy(), B.numpy()
    found = occlusion(net, X, B).values
    assert_allclose(found[:, 0], (x[:, 0] - r[:, 0].mean()) * x[:, 1], atol=1e-14)
    path = integrated_gradients(net, X, B)
    shares = np.mean(
        [(x[:, 0] - s[0]) * (x[:, 1] + s[1]) / 2 for s in r], axis=0
    )  # Aumann-Shapley = Shapley of a product
    assert_allclose(path.values[:, 0], shares, atol=1e-13)
    assert np.abs(path.info["gap"]).max() < 1e-10
    assert np.abs(input_x_gradient(net, X, B).info["gap"]).max() > 0.1
    assert_allclose(deeplift(net, X, B[0]).values, deep_shap(net, X, B[:1]).values)


def test_images_keep_their_shape() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), Linear(8, 1)).eval()
    images, others = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    for method in (input_x_gradient, integrated_gradients, occlusion):
        assert method(net, images, others).values.shape == (2, 1, 4, 4, 1)
