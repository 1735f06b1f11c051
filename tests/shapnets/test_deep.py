"""Theorem 3 and Corollary 4: local accuracy and missingness of Deep ShapNets, for any weights and
reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab.deep.deep_shap import deep_shap
from shaplab.shapnets import DeepShapNet, butterfly
from shaplab.shapnets.deep import deep_shapnet_literal


def inner_function(group, m):
    """The function of module ``m``, on ``(k, C)`` arrays."""

    def f(t):
        h = torch.relu(
            torch.tensor(t).flatten() @ group.first[m].flatten(0, 1) + group.biases[0][m, 0]
        )
        return (h @ group.last[m]).detach().numpy()

    return f


@examples(20)
@given(
    d=st.integers(2, 9),
    outputs=st.integers(1, 3),
    channels_in=st.integers(1, 2),
    seed=st.integers(0, 10**6),
    shared=st.booleans(),
)
def test_theorem_3_and_corollary_4(d, outputs, channels_in, seed, shared):
    rng = np.random.default_rng(seed)
    net = DeepShapNet(
        d,
        outputs,
        reference=rng.standard_normal((d, channels_in)),
        channels=5,
        channels_in=channels_in,
        hidden=(6, 7),
        shared=shared,
        seed=seed,
    ).double()
    torch.nn.init.normal_(net.intercept)
    r = net.transforms[0].reference[:d]
    x = torch.tensor(rng.standard_normal((4, d, channels_in)))
    missing = torch.tensor(rng.random((4, d)) < 0.4)
    x[missing] = r.expand(4, d, channels_in)[missing]
    shape = (lambda t: t[..., 0]) if channels_in == 1 else (lambda t: t)
    phi = net.explain(shape(x))
    # float64, values of order 1.
    torch.testing.assert_close(
        phi.sum(1), net(shape(x)) - net(shape(r[None])), atol=1e-12, rtol=1e-12
    )
    layers = net.layers(shape(x))
    assert len(layers) == (d - 1).bit_length()
    assert all(bool((z[missing] == 0).all()) for z in layers)
    assert torch.equal(net(shape(r[None])), net.intercept[None])
    assert layers[-1].shape == (4, d, outputs)


@pytest.mark.parametrize("d", [2, 3, 5, 8])
def test_cascade_is_definition_8(d):
    rng = np.random.default_rng(d)
    net = DeepShapNet(
        d, 2, reference=rng.standard_normal(d), channels=3, hidden=(6,), seed=0
    ).double()
    width = net.transforms[0].reference.shape[0]
    stages = [
        [
            (A, inner_function(group, m))
            for group in t.modules_by_size
            for m, A in enumerate(group.active.tolist())
        ]
        for t in net.transforms
    ]
    x = np.zeros((width, 1))
    x[:d, 0] = rng.standard_normal(d)
    literal = deep_shapnet_literal(stages, x, net.transforms[0].reference.numpy())
    for ours, theirs in zip(net.layers(torch.tensor(x[None, :d, 0])), literal, strict=True):
        np.testing.assert_allclose(ours[0].detach(), theirs[:d], atol=1e-12)


@pytest.mark.parametrize("d", [2, 3, 5, 8, 16, 17, 30, 32])
def test_butterfly_lets_every_feature_act_on_every_other(d):
    width = 2 ** (d - 1).bit_length()
    reach = np.eye(width, dtype=bool)
    for stage in butterfly(d):
        members = [i for pair in stage for i in pair]
        assert len(set(members)) == len(members)
        assert set(range(d)) <= set(members)
        for i, j in stage:
            if j < d:  # padding stays at zero, so nothing travels through it
                reach[i] = reach[j] = reach[i] | reach[j]
    assert len(butterfly(d)) == int(np.log2(width))
    # reach[i, j]: the value of i can depend on feature j. Padding cuts some ways, never both ways
    # between two features.
    reach = reach[:d, :d]
    assert (reach | reach.T).all()
    assert reach.all() == (d == width)


def test_padding_gets_nothing_and_changes_nothing():
    net = DeepShapNet(30, 2, hidden=(8,), channels=4, seed=0).double()
    x = torch.randn(7, 30, dtype=torch.float64)
    hidden = []
    net.layers(x, edit=lambda s, z: hidden.append(z) or z)
    assert all(z.shape[1] == 32 and bool((z[:, 30:] == 0).all()) for z in hidden)
    assert [z.shape[1] for z in net.layers(x)] == [30] * 5
    # The same weights in a net of 32 features whose last two are missing.
    wide = DeepShapNet(32, 2, hidden=(8,), channels=4, seed=1).double()
    for t, w in zip(net.transforms, wide.transforms, strict=True):
        rows = [w.active_sets.index(A) for A in t.active_sets]
        for p, q in zip(t.parameters(), w.parameters(), strict=True):
            q.data[rows] = p.data
    padded = torch.nn.functional.pad(x, (0, 2))
    torch.testing.assert_close(wide.explain(padded)[:, :30], net.explain(x), atol=1e-12, rtol=0)


def test_overlapping_stages_of_ones_own():
    net = DeepShapNet(
        4, 1, stages=["pairs", [(0, 1, 2), (2, 3)]], channels=[6], hidden=[(5,), (4, 3)], seed=0
    )
    x = torch.randn(3, 4)
    assert [z.shape[-1] for z in net.layers(x)] == [6, 1]
    torch.testing.assert_close(net(x), net.explain(x).sum(1) + net.intercept)


def test_gradients_reach_every_parameter():
    net = DeepShapNet(8, 3, seed=0, activation="gelu")
    net(torch.randn(64, 8)).square().sum().backward()
    for name, p in net.named_parameters():
        assert bool((p.grad != 0).all()), name


def test_state_dtype_and_autocast():
    net, twin = DeepShapNet(6, 2, reference=0.3, seed=0), DeepShapNet(6, 2, seed=1)
    twin.load_state_dict(net.state_dict())
    x = torch.randn(4, 6)
    assert torch.equal(net.explain(x), twin.explain(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(x).float(), twin(x).float(), atol=0.1, rtol=0.1)
    assert net.double().explain(x.double()).dtype == torch.float64
    e = twin.explanation(x.numpy())
    assert abs(e.gap(twin(x))).max() < 1e-5  # float32


def test_no_rows_and_derivatives_of_torch_func():
    net, x = DeepShapNet(5, 2, seed=0).double(), torch.randn(3, 5, dtype=torch.float64)
    assert net(x[:0]).shape == (0, 2)
    assert net.explanation(x[:0]).values.shape == (0, 5, 2)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: net(row[None])[0]))(x)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    torch.testing.assert_close(jacobian[:, 1], slope, atol=1e-12, rtol=1e-10)  # float64


def test_deep_shap_looks_through():
    net = DeepShapNet(6, 2, seed=0).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    x[:, 2] = 0
    values = torch.tensor(deep_shap(net, x, torch.zeros(1, 6, dtype=torch.float64)).values)
    # The reference is the background, so both explanations sum to the same rise; double precision.
    torch.testing.assert_close(values.sum(1), net.explain(x).sum(1), atol=1e-10, rtol=0)
    assert bool((values[:, 2] == 0).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": "fft"}, "stages"),
        ({"channels": [3]}, "channels: expected an integer or 2 integers"),
        ({"hidden": [(3,), (4,)]}, "hidden"),
        ({"reference": [0.0, 1.0]}, "reference"),
    ],
)
def test_bad_input_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        DeepShapNet(5, 2, **options)


# torch.compile starts a compiler for C++: 10 to 25 s, whatever the size of the network.
@pytest.mark.slow
def test_compiles():
    net = DeepShapNet(5, 2, seed=0)
    x = torch.randn(6, 5)
    torch.testing.assert_close(torch.compile(net)(x), net(x), atol=1e-5, rtol=1e-5)
