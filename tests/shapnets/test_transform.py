"""The Shapley transform against Definition 1, enumeration, and Lemma 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from shaplab.foundations.exact import shapley_values
from shaplab.shapnets.transform import (
    ShapleyTransform,
    check_active_sets,
    coalition_weights,
    shapley_transform,
    shapley_transform_literal,
)

# float64 sums of at most 2**6 terms of order 1: rounding stays far below this.
TIGHT = 1e-12


def random_function(rng, d, channels, outputs):
    """A smooth function (n, d, C) -> (n, outputs) with interactions of every order."""
    A = rng.standard_normal((d * channels, 7))
    B = rng.standard_normal((7, outputs))
    return lambda x: torch.tanh(x.flatten(1) @ torch.tensor(A)) ** 2 @ torch.tensor(B)


@examples(25)
@given(
    d=st.integers(1, 4),
    channels=st.integers(1, 3),
    outputs=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_transform_is_definition_one_and_enumeration(d, channels, outputs, seed):
    rng = np.random.default_rng(seed)
    f = random_function(rng, d, channels, outputs)
    x, r = rng.standard_normal((2, d, channels)), rng.standard_normal((d, channels))
    fast = shapley_transform(f, torch.tensor(x), torch.tensor(r)).numpy()
    for row in range(2):
        literal = shapley_transform_literal(
            lambda t: f(torch.tensor(t)[None])[0].numpy(), x[row], r
        )
        np.testing.assert_allclose(fast[row], literal, atol=TIGHT)
        exact = shapley_values(
            lambda S, x=x[row]: f(torch.tensor(np.where(S[:, :, None], x, r))).numpy(), d
        )
        np.testing.assert_allclose(fast[row], exact, atol=TIGHT)


def test_two_explainable_dimensions_share_channels():
    rng = np.random.default_rng(0)
    f = random_function(rng, 6, 2, 3)
    x = torch.tensor(rng.standard_normal((4, 2, 3, 2)))
    Z = shapley_transform(f, x, 0.3, explainable=2)
    flat = shapley_transform(f, x.flatten(1, 2), 0.3)
    assert Z.shape == (4, 2, 3, 3)
    assert torch.equal(Z.flatten(1, 2), flat)


@examples(20)
@given(d=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_lemma_1_linear_map_of_a_transform_is_a_transform(d, seed):
    rng = np.random.default_rng(seed)
    f, A = random_function(rng, d, 2, 4), torch.tensor(rng.standard_normal((3, 4)))
    x, r = torch.tensor(rng.standard_normal((2, d, 2))), torch.tensor(rng.standard_normal((d, 2)))
    torch.testing.assert_close(
        shapley_transform(f, x, r) @ A.T,
        shapley_transform(lambda t: f(t) @ A.T, x, r),
        atol=TIGHT,
        rtol=0,
    )


def test_weights_sum_as_the_axioms_ask():
    for k in range(1, 6):
        members, weights = coalition_weights(k)
        # Efficiency: the sum over players is v(all) - v(none).
        total = weights.sum(0)
        expected = torch.zeros(2**k, dtype=torch.float64)
        expected[-1], expected[0] = 1, -1
        torch.testing.assert_close(total, expected, atol=1e-15, rtol=0)
        assert members.shape == (2**k, k)


def as_double(layer):
    return layer.to(torch.float64)


@examples(20)
@given(
    seed=st.integers(0, 10**6),
    shared=st.booleans(),
    depth=st.integers(1, 3),
    activation=st.sampled_from(["relu", "leaky_relu", "gelu", "tanh", "softplus"]),
)
def test_layer_is_the_sum_of_its_modules_definition_7(seed, shared, depth, activation):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    sets = [(0,), (3,), (1, 2), (2, 4), (4, 0, 1), (3, 1, 2, 0)]
    r = rng.standard_normal((5, 2))
    layer = as_double(
        ShapleyTransform(
            5,
            sets,
            2,
            3,
            hidden=(4, 6, 5)[:depth],
            activation=activation,
            shared=shared,
            reference=r,
        )
    )
    r = layer.reference.numpy()  # stored in the dtype the layer was made in
    x = rng.standard_normal((3, 5, 2))
    x[1, 2] = r[2]
    expected = np.zeros((3, 5, 3))
    for group in layer.modules_by_size:
        for m, A in enumerate(group.active.tolist()):
            own = 0 if shared else m

            def inner(t, group=group, own=own):
                act = {"relu": torch.relu, "tanh": torch.tanh}.get(activation) or getattr(
                    torch.nn.functional, activation
                )
                h = act(
                    torch.tensor(t).flatten() @ group.first[own].flatten(0, 1)
                    + group.biases[0][own, 0]
                )
                for weight, bias in zip(group.middle, list(group.biases)[1:], strict=True):
                    h = act(h @ weight[own] + bias[own, 0])
                return (h @ group.last[own]).detach().numpy()

            for n in range(3):
                expected[n, A] += shapley_transform_literal(inner, x[n, A], r[A])
    found = layer(torch.tensor(x))
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=TIGHT)
    assert bool((found[1, 2] == 0).all())
    contributions = layer.contributions(torch.tensor(x))
    assert [tuple(c.shape) for c in contributions] == [
        (3, 2, 1, 3),
        (3, 2, 2, 3),
        (3, 1, 3, 3),
        (3, 1, 4, 3),
    ]
    np.testing.assert_allclose(
        sum(c.sum((1, 2)) for c in contributions).detach(), expected.sum(1), atol=TIGHT
    )


@pytest.mark.parametrize("rows", [1, 5, 64])
def test_skipping_dead_modules_changes_nothing(rows):
    torch.manual_seed(0)
    layer = as_double(
        ShapleyTransform(6, [(0, 1), (2, 3), (4, 5), (1, 2, 4)], 2, 3, hidden=(5, 4), reference=0.5)
    )
    x = torch.randn(rows, 6, 2, dtype=torch.float64)
    x[:, 4:] = 0.5
    x[::2, 0:2] = 0.5
    # The same products in batches of another size may round in another order.
    torch.testing.assert_close(layer(x, skip=True), layer(x), atol=TIGHT, rtol=0)
    assert int(layer.live_modules(x)[0]) == 2
    empty = torch.full_like(x, 0.5)
    assert float(layer(empty, skip=True).abs().max()) == 0
    assert int(layer.live_modules(empty).sum()) == 0


def test_gradient_of_a_missing_feature_is_kept():
    torch.manual_seed(0)
    layer = as_double(ShapleyTransform(2, [(0, 1)], 1, 1, hidden=(8,), activation="tanh"))
    x = torch.tensor([[[0.0], [0.7]]], dtype=torch.float64, requires_grad=True)
    layer(x)[0, 0, 0].backward()
    step = torch.tensor([[[1e-6], [0.7]]], dtype=torch.float64)
    slope = float(layer(step)[0, 0, 0].detach()) / 1e-6
    assert abs(slope) > 1e-3
    assert float(x.grad[0, 0, 0]) == pytest.approx(
        slope, rel=1e-4
    )  # one-sided difference, error of order 1e-6


def test_counts_of_multiplications():
    layer = ShapleyTransform(4, [(0, 1), (2, 3)], 3, 5, hidden=(7, 6))
    assert layer.multiply_adds == 2 * (2 * 3 * 7 + 4 * 7 * 6 + 2 * 6 * 5)
    assert layer.active_sets == [(0, 1), (2, 3)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: check_active_sets([(0, 5)], 3),
            "active_sets: expected sets of 1 to 8 different features from 0 to 2",
        ),
        (lambda: check_active_sets([(1, 1)], 3), "active_sets"),
        (lambda: check_active_sets([], 3), "at least one set"),
        (lambda: check_active_sets("quads", 3), "'singles', 'pairs', 'triples'"),
        (
            lambda: ShapleyTransform(3, "pairs", 1, 1, hidden=()),
            "hidden: expected at least one width",
        ),
        (lambda: ShapleyTransform(3, "pairs", 1, 1, activation="swish"), "activation"),
        (
            lambda: ShapleyTransform(3, "pairs", 1, 1, reference=[1.0, 2.0]),
            "reference: expected a number or an array",
        ),
        (
            lambda: ShapleyTransform(3, "pairs", 1, 1, reference=[1.0, 2.0, np.nan]),
            "reference: expected finite",
        ),
        (
            lambda: shapley_transform(torch.sum, torch.zeros(1, 17)),
            "at most 16 explained positions",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize(
    ("f", "x", "words"),
    [
        (None, torch.ones(2, 3), "f: expected a callable"),
        (lambda t: t, np.ones((2, 3)), "x: expected a torch tensor"),
    ],
)
def test_the_transform_names_what_is_no_function_or_tensor(f, x, words):
    with pytest.raises(TypeError, match=words):
        shapley_transform(f, x)
