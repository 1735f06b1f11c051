"""Networks to compare with: as many parameters, channels and windows as the ShapNets they match."""

from __future__ import annotations

import pytest
import torch
from shaplab_book.networks import ComparableCNN, ResidualDNN, everyday_networks

from shaplab.shapnets import DeepShapNet, ImageShapNet


@pytest.mark.parametrize("equal", ["parameters", "compute"])
def test_the_residual_baseline_matches(equal):
    net = DeepShapNet(16, 1, seed=0)
    dnn = ResidualDNN.matching(net, equal=equal, depth=4, seed=0)
    count = sum(p.numel() for p in dnn.parameters())
    target = (
        sum(p.numel() for p in net.parameters()) if equal == "parameters" else net.multiply_adds
    )
    assert abs(count - target) / target < 0.05  # widths are whole numbers
    assert dnn(torch.zeros(2, 16)).shape == (2, 1)


def test_cnn_has_the_same_parameters_and_shape():
    net = ImageShapNet(1, 10, channels=(6, 7), dilations=(1, 2, 3), seed=0)
    cnn = ComparableCNN(net, seed=0)
    assert sum(p.numel() for p in cnn.parameters()) == sum(p.numel() for p in net.parameters())
    assert cnn(torch.zeros(2, 1, 9, 8)).shape == (2, 10)
    x = torch.randn(2, 1, 9, 8)
    # With the same weights the first layer of both sees the same windows: full coalitions are the
    # convolution.
    t, conv = net.transforms[0], cnn.stages[0]
    conv.weight.data = t.weight.detach().permute(2, 0, 1).reshape(conv.weight.shape)
    conv.bias.data = t.bias.detach()
    whole = torch.nn.functional.leaky_relu(conv(torch.nn.functional.pad(x, cnn.pads[0])))
    none = torch.nn.functional.leaky_relu(t.bias)
    total = t(x.permute(0, 2, 3, 1)).sum((1, 2))
    torch.testing.assert_close(
        total, (whole - none[:, None, None]).sum((2, 3)), atol=1e-4, rtol=1e-4
    )  # float32


def test_the_comparison_reads_as_many_channels_as_the_net_does():
    net = ImageShapNet(2, 3, channels=(6, 6), channel_share=0.5, seed=0)
    other = ComparableCNN(net, seed=0)
    made = other(torch.randn(4, 2, 9, 8))
    assert made.shape == (4, 3)
    assert [layer.weight.shape[1] for layer in other.stages] == [2, 3, 3]
    # As many parameters as the net itself.
    assert sum(p.numel() for p in other.parameters()) == sum(p.numel() for p in net.parameters())
    # Every channel of the second stage is read by that or the next one.
    made.square().sum().backward()
    assert all(bool((layer.weight.grad != 0).any()) for layer in other.stages)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: ResidualDNN("x", 1), "n_features"),
        (lambda: ResidualDNN(3, "x"), "n_outputs"),
        (lambda: ComparableCNN(None), "net: expected an ImageShapNet"),
    ],
)
def test_bad_input_is_named(make, argument):
    with pytest.raises(TypeError, match=argument):
        make()


def test_everyday_networks_run_and_come_from_the_seed():
    state = torch.random.get_rng_state()
    nets = everyday_networks(0)
    assert torch.equal(torch.random.get_rng_state(), state)
    again, other = everyday_networks(0), everyday_networks(1)
    assert len(nets) == 12
    for name, (net, shape) in nets.items():
        rows = torch.ones(3, *shape)
        out = net.eval()(rows)
        assert out.shape == (3, 1)
        assert torch.equal(out, again[name][0].eval()(rows))
        assert not torch.equal(out, other[name][0].eval()(rows))
    twice = [m for m in nets["one nn.ReLU used twice"][0] if isinstance(m, torch.nn.ReLU)]
    assert len(twice) == 2
    assert twice[0] is twice[1]
