"""Theorem 2: a Shallow ShapNet's explanation is its exact Shapley values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab.foundations.exact import shapley_values
from shaplab.shapnets import ShallowShapNet, gam_network


def enumerated(net, x, reference):
    """Shapley values of ``net`` itself at one row, every coalition evaluated: ``(d, K)``."""

    def game(S):
        rows = torch.where(
            torch.as_tensor(S).reshape(len(S), -1, *[1] * (x.ndim - 1)), x, reference
        )
        with torch.no_grad():
            return net(rows).double().numpy()

    return shapley_values(game, len(x))


@examples(25)
@given(
    d=st.integers(2, 6),
    outputs=st.integers(1, 3),
    channels=st.integers(1, 2),
    seed=st.integers(0, 10**6),
    data=st.data(),
    double=st.booleans(),
)
def test_theorem_2(d, outputs, channels, seed, data, double):
    rng = np.random.default_rng(seed)
    sets = data.draw(
        st.lists(
            st.lists(st.integers(0, d - 1), min_size=1, max_size=min(4, d), unique=True),
            min_size=1,
            max_size=5,
        )
    )
    dtype = torch.float64 if double else torch.float32
    reference = rng.standard_normal((d, channels))
    net = ShallowShapNet(
        d,
        outputs,
        active_sets=sets,
        channels=channels,
        reference=reference,
        hidden=(9, 6),
        activation="gelu",
        seed=seed,
    ).to(dtype)
    x = torch.tensor(rng.standard_normal((2, d, channels)), dtype=dtype)
    x[0, 0] = net.transforms[0].reference[0]
    rows = x[..., 0] if channels == 1 else x
    r = net.transforms[0].reference[..., 0] if channels == 1 else net.transforms[0].reference
    exact = np.stack([enumerated(net, row, r) for row in rows])
    found = net.explain(rows).detach().double().numpy()
    # The bounds the project promises: relative to the largest value, or to 1 for tiny nets (outputs
    # are of order 1).
    bound = (1e-12 if double else 1e-5) * max(1.0, abs(exact).max())
    assert abs(found - exact).max() <= bound
    assert (found[0, 0] == 0).all()


def test_all_pairs_of_ten_features_against_enumeration():
    net = ShallowShapNet(10, 1, hidden=(20,), seed=3).double()
    x = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = enumerated(net, x, torch.zeros(10, dtype=torch.float64))
    np.testing.assert_allclose(net.explain(x[None])[0].detach(), exact, atol=1e-12)


def test_a_gam_is_the_special_case_of_single_features():
    net = gam_network(4, 2, seed=0, reference=[0.1, 0.2, 0.3, 0.4]).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    for i in range(4):
        # A feature's value depends on that feature alone.
        other = torch.randn(3, 4, dtype=torch.float64)
        other[:, i] = x[:, i]
        torch.testing.assert_close(net.explain(x)[:, i], net.explain(other)[:, i], atol=0, rtol=0)
    assert net.transforms[0].active_sets == [(0,), (1,), (2,), (3,)]


def test_a_graph_leaves_out_what_is_not_an_edge():
    net = ShallowShapNet(4, 1, active_sets=[(0, 1), (1, 2)], seed=0)
    x = torch.randn(5, 4)
    assert bool((net.explain(x)[:, 3] == 0).all())
    changed = x.clone()
    changed[:, 0] += 1
    assert torch.equal(net.explain(x)[:, 2], net.explain(changed)[:, 2])


def test_output_at_the_reference_is_the_intercept():
    r = torch.tensor([1.0, -2.0, 0.5])
    for intercept in (True, False):
        net = ShallowShapNet(3, 2, reference=r, intercept=intercept, seed=0)
        if intercept:
            with torch.no_grad():
                net.intercept += torch.tensor([3.0, 4.0])
        assert torch.equal(net(r[None]), net.intercept[None])
        assert ("intercept" in dict(net.named_parameters())) == intercept


def test_explanation_adds_up_and_keeps_names():
    pd = pytest.importorskip("pandas")
    net = ShallowShapNet(3, 2, seed=0).double()
    X = pd.DataFrame(np.random.default_rng(0).standard_normal((300, 3)), columns=["a", "b", "c"])
    e = net.explanation(X, batch_size=64, output_names=["no", "yes"])
    assert e.feature_names == ("a", "b", "c")
    assert e.output_names == ("no", "yes")
    assert e.values.shape == (300, 3, 2)
    assert abs(e.gap(net(torch.tensor(X.to_numpy())))).max() < 1e-12
    np.testing.assert_array_equal(e.values, net.explanation(X.to_numpy()).values)


@pytest.mark.parametrize(("rows", "outputs"), [(1, 1), (2, 2), (3, 3), (3, 2), (2, 3)])
def test_base_values_belong_to_outputs_for_any_number_of_rows(rows, outputs):
    net = ShallowShapNet(4, outputs, seed=0).double()
    torch.nn.init.normal_(net.intercept)
    x = torch.randn(rows, 4, dtype=torch.float64)
    e = net.explanation(x)
    assert e.base_values.shape == e.prediction.shape == (rows, outputs)
    assert abs(e.gap(net(x))).max() < 1e-12


def test_an_ordinary_module(tmp_path):
    net, twin = ShallowShapNet(4, 2, reference=1.0, seed=0), ShallowShapNet(4, 2, seed=1)
    twin.load_state_dict(net.state_dict())
    x = torch.randn(6, 4)
    assert torch.equal(net(x), twin(x))
    assert net.to(torch.float64)(x.double()).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = twin(x)
    # bfloat16 keeps 8 bits: two to three digits.
    torch.testing.assert_close(low.float(), twin(x), atol=0.1, rtol=0.1)


def test_seed_fixes_the_weights_and_leaves_torch_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = (ShallowShapNet(3, 1, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.transforms[0].groups[0].first, c.transforms[0].groups[0].first)


def test_two_positional_arguments_are_enough():
    assert ShallowShapNet(5, 3)(torch.zeros(2, 5)).shape == (2, 3)


@pytest.mark.parametrize("x", [torch.zeros(2, 4), torch.zeros(3), torch.zeros(2, 3, 2)])
def test_a_wrong_shape_is_named(x):
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 3\)"):
        ShallowShapNet(3, 1)(x)


# torch.compile starts a compiler for C++: 10 to 25 s, whatever the size of the network.
@pytest.mark.slow
def test_compiles():
    net = ShallowShapNet(4, 2, seed=0)
    x = torch.randn(6, 4)
    torch.testing.assert_close(torch.compile(net)(x), net(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.compile(net.explain)(x), net.explain(x), atol=1e-5, rtol=1e-5)
