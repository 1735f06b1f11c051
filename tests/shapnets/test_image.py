"""Convolutional Shapley transforms against windows written out, and Theorem 3 for pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab.deep.deep_shap import deep_shap
from shaplab.shapnets import ImageShapNet
from shaplab.shapnets.image import (
    ConvShapleyTransform,
    _FourTaps,
    conv_transform_literal,
    shift,
    window_values,
)


def leaky(a):
    return np.where(a > 0, a, 0.01 * a)


@examples(15)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    dilation=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    kernel=st.sampled_from([(2, 2), (1, 2), (3, 1), (1, 1)]),
    channels=st.integers(1, 3),
)
def test_one_transform_is_its_windows(height, width, dilation, seed, kernel, channels):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    t = ConvShapleyTransform(
        channels, 2, kernel=kernel, dilation=dilation, reference=rng.standard_normal(channels)
    ).double()
    r = t.reference.numpy()
    x = rng.standard_normal((2, height, width, channels))
    x[0, rng.random((height, width)) < 0.4] = r
    W, b = t.weight.detach().numpy().transpose(1, 0, 2), t.bias.detach().numpy()
    for skip in (False, True):
        Z = t(torch.tensor(x), skip).detach().numpy()
        for n in range(2):
            # float64 sums of fewer than 100 terms of order 1.
            np.testing.assert_allclose(
                Z[n], conv_transform_literal(x[n], W, b, r, t.taps, leaky), atol=1e-12
            )


@examples(10)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([1.0, 0.5, 0.3]), size=st.integers(3, 7))
def test_local_accuracy_and_missingness(seed, share, size):
    rng = np.random.default_rng(seed)
    r = rng.standard_normal(3)
    net = ImageShapNet(3, 2, channels=(5, 4), reference=r, channel_share=share, seed=seed).double()
    r = net.transforms[0].reference
    torch.nn.init.normal_(net.intercept)
    x = torch.tensor(rng.standard_normal((2, 3, size, size)))
    missing = torch.tensor(rng.random((2, size, size)) < 0.5)
    x = torch.where(missing[:, None], r[None, :, None, None], x)
    layers = net.layers(x)
    assert [tuple(z.shape) for z in layers] == [(2, size, size, c) for c in (5, 4, 2)]
    assert all(bool((z[missing] == 0).all()) for z in layers)
    empty = r[None, :, None, None].expand(1, 3, size, size)
    torch.testing.assert_close(layers[-1].sum((1, 2)), net(x) - net(empty), atol=1e-12, rtol=1e-12)
    assert torch.equal(net(empty), net.intercept[None])


def test_two_taps_are_the_pair_formula():
    t = ConvShapleyTransform(1, 1, kernel=(1, 2)).double()
    (w1, w2), b = t.weight.detach().flatten().tolist(), float(t.bias.detach())
    x = torch.tensor([[[[1.5], [-0.7]]]], dtype=torch.float64)
    f = lambda a, c: float(leaky(w1 * a + w2 * c + b))  # noqa: E731
    a, c = 1.5, -0.7
    # The window at pixel 0 sees both pixels; the one at pixel 1 sees pixel 1 and, as its second
    # tap, nothing.
    first = (f(a, c) - f(0, c) + f(a, 0) - f(0, 0)) / 2
    second = (f(a, c) - f(a, 0) + f(0, c) - f(0, 0)) / 2 + f(c, 0) - f(0, 0)
    np.testing.assert_allclose(t(x).detach().flatten(), [first, second], atol=1e-14)


def test_shift_moves_and_fills():
    x = torch.arange(6.0).view(1, 2, 3, 1)
    assert shift(x, 1, -1, 9).flatten().tolist() == [9, 3, 4, 9, 9, 9]
    assert shift(x, 5, 0).abs().sum() == 0
    assert torch.equal(shift(x, 0, 0), x)


def test_blocks_of_windows_do_not_matter():
    torch.manual_seed(0)
    t = ConvShapleyTransform(2, 64).double()
    x = torch.randn(2, 20, 20, 2, dtype=torch.float64)
    # More windows than one block holds; each picture alone is cut elsewhere.
    torch.testing.assert_close(t(x), torch.cat([t(x[:1]), t(x[1:])]), atol=1e-12, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_the_kernel_is_the_torch_path(activation):
    torch.manual_seed(0)
    terms, base = torch.randn(31, 4, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    terms[-1] = 0  # the pixel that stands for all outside the picture
    # Each tap of a pixel is read by one window at most, as in a picture; 30 stands for nothing
    # there.
    sources = torch.stack([torch.randperm(30)[:20] for _ in range(4)])
    sources[torch.rand(4, 20) < 0.2] = 30
    for t in (terms, base):
        t.requires_grad_()
    pull = torch.randn(30, 3, dtype=torch.float64)
    found = []
    for run in (_FourTaps.apply, window_values):
        out = run(terms, base, sources, activation)[:30]
        slopes = torch.autograd.grad((out * pull).sum(), (terms, base), create_graph=True)
        cubes = (run(terms, base, sources, activation)[:30] ** 3).sum()
        twice = torch.autograd.grad(cubes, terms, create_graph=True)[0]
        found.append(
            (
                out,
                slopes[0][:30],
                slopes[1],
                torch.autograd.grad(twice[:30].square().sum(), base)[0],
            )
        )
    for ours, theirs in zip(*found, strict=True):
        # float64 sums of 16 terms of order 1, the second derivatives of order 100.
        torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-12)


def test_nan_stays_nan():
    x = torch.ones(1, 1, 4, 4)
    x[0, 0, 0, 0] = torch.nan
    z = ImageShapNet(1, 2, channels=(), seed=0).explain(x)
    assert bool(z[0, 0, 0].isnan().all())
    assert not bool(z[0, 3, 3].isnan().any())


def test_deep_shap_looks_through():
    net = ImageShapNet(1, 3, channels=(4,), seed=0).double()
    # So many rows that the explainer works in batches of rows and background rows.
    x, background = (
        torch.randn(18, 1, 5, 5, dtype=torch.float64),
        torch.zeros(2, 1, 5, 5, dtype=torch.float64),
    )
    x[0, 0, :2] = 0
    values = torch.tensor(deep_shap(net, x, background).values)
    # Double precision; the net has local accuracy for its own reference, so both explanations have
    # the same sum.
    torch.testing.assert_close(
        values.flatten(1, 3).sum(1), net.explain(x).sum((1, 2)), atol=1e-10, rtol=0
    )


def test_an_ordinary_module():
    net, twin = (
        ImageShapNet(1, 3, channels=(4,), reference=0.1, seed=0),
        ImageShapNet(1, 3, channels=(4,), seed=1),
    )
    twin.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 6, 5)
    assert torch.equal(net(x), twin(x))
    e = net.explanation(x.numpy(), batch_size=1)
    assert e.values.shape == (2, 6, 5, 3)
    assert abs(e.gap(net(x))).max() < 1e-5  # float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(x).float(), twin(x).float(), atol=0.2, rtol=0.2)
    net(x).square().sum().backward()
    assert all(bool((p.grad != 0).any()) for p in net.parameters())


def test_training_goes_on_after_inference_mode():
    net, x = ImageShapNet(1, 2, channels=(3,), seed=0), torch.randn(2, 1, 13, 11)
    with torch.inference_mode():
        first = net(x).clone()
    out = net(x)  # reads the tables of windows that were made in inference mode
    out.sum().backward()
    assert torch.equal(out.detach(), first)
    assert all(p.grad is not None for p in net.parameters())


def test_derivatives_of_torch_func():
    net, x = (
        ImageShapNet(1, 2, channels=(3,), seed=0).double(),
        torch.randn(2, 1, 5, 4, dtype=torch.float64),
    )
    weights = {name: p.detach() for name, p in net.named_parameters()}
    found = torch.func.grad(lambda w: torch.func.functional_call(net, w, (x,)).square().sum())(
        weights
    )
    net(x).square().sum().backward()
    for name, p in net.named_parameters():
        # float64, the same sums in another order.
        torch.testing.assert_close(found[name], p.grad, atol=1e-12, rtol=1e-10)
    each = torch.func.vmap(lambda row: net(row[None])[0])(x)
    torch.testing.assert_close(each, net(x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_of_half_precision(dtype):
    net, x = ImageShapNet(1, 2, channels=(3,), seed=0), torch.randn(2, 1, 6, 5)
    full = net.explanation(x).values
    e = net.to(dtype).explanation(x.to(dtype))
    # 8 or 11 bits, sums of 30 pixels with 16 terms each.
    np.testing.assert_allclose(e.values, full, atol=0.05 * abs(full).max())
    assert e.data.shape == (2, 1, 6, 5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ImageShapNet(1, 2)(torch.zeros(2, 3, 5, 5)), r"x: expected shape \(N, 1, H, W\)"),
        (lambda: ImageShapNet(1, 2, dilations=(1,)), "dilations: expected 4 numbers"),
        (lambda: ImageShapNet(1, 2, kernel=(3, 3)), "kernel: expected at most 8 taps"),
        (lambda: ImageShapNet(1, 2, channel_share=0.0), "channel_share"),
        (lambda: ImageShapNet(1, 2, reference=[1.0, 2.0]), "reference"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# torch.compile starts a compiler for C++: 10 to 25 s, whatever the size of the network.
@pytest.mark.slow
def test_compiles():
    net = ImageShapNet(1, 2, channels=(3,), seed=0)
    x = torch.randn(2, 1, 6, 6)
    torch.testing.assert_close(torch.compile(net)(x), net(x), atol=1e-4, rtol=1e-4)
