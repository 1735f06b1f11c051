"""Each rule against the definition of Shapley values, and against its literal twin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from oracles.nets import brute_force

from shaplab import deep_shap
from shaplab.deep import rules
from shaplab.deep._path import softmax_path
from shaplab.deep._reveal import above_mean_in_torch, split_at_mean_in_torch
from shaplab.deep._windows import Window, exact_windows, window_table
from shaplab.deep.kernels.units import (
    Contributions,
    UnitEnds,
    above_mean,
    padded,
    split_at_mean,
)


def _rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("case", range(40))
def test_exact_maximum_is_the_shapley_value(case: int) -> None:
    rng = np.random.default_rng(case)
    k = int(rng.integers(1, 7))
    values = (
        rng.integers(-3, 4, size=(2, k)).astype(float) if case % 2 else rng.normal(size=(2, k))
    )  # ties half of the time
    f, b = values
    expected = brute_force(lambda x: x.amax(1), torch.tensor(f), torch.tensor(b)).numpy()
    # Sums of at most 2k terms of size 1: a few ulp.
    assert_allclose(rules.maximum_literal(f, b), expected, atol=1e-13)
    fast = rules.maximum(torch.tensor(f), torch.tensor(b)).numpy() * (f - b)
    assert_allclose(fast, expected, atol=1e-13)
    kernel = exact_windows(
        np.arange(k)[None],
        torch.tensor(f)[None],
        torch.tensor(b)[None],
        torch.ones(1, 1, dtype=torch.float64),
    )
    assert_allclose(kernel.numpy()[0] * (f - b), expected, atol=1e-13)
    # Multipliers agree also where f = b, which no sum of attributions sees.
    assert_allclose(
        kernel.numpy()[0], rules.maximum(torch.tensor(f), torch.tensor(b)).numpy(), atol=1e-12
    )


def test_exact_maximum_of_many_inputs_uses_stable_weights() -> None:
    f, b = _rows(0, 60), _rows(1, 60)
    share = exact_windows(
        np.arange(60)[None], f[None], b[None], torch.ones(1, 1, dtype=torch.float64)
    )[0]
    assert_allclose(float((share * (f - b)).sum()), float(f.max() - b.max()), atol=1e-12)
    assert_allclose(
        share.numpy() * (f - b).numpy(), rules.maximum_literal(f.numpy(), b.numpy()), atol=1e-13
    )


def test_the_two_paths_over_windows_agree() -> None:
    table = window_table((5, 5), (3, 3), Window((3, 3), (2, 2), (1, 1), (1, 1)))
    assert (
        table < 0
    ).sum() == 9 * 9 - 49  # 7 + 7 taps of padding, by hand: 3x3 windows over a padded 7x7 grid
    f, b, q = _rows(0, 1, 4, 25), _rows(1, 6, 4, 25), _rows(2, 6, 4, 9)
    ours = exact_windows(table, f, b, q)
    index = torch.as_tensor(table)
    seen = [
        t[..., index.clamp(min=0)].masked_fill(index < 0, -torch.inf) for t in (f.expand_as(b), b)
    ]
    share = torch.where(index < 0, 0.0, rules.maximum(*seen)) * q[..., None]
    expected = torch.zeros_like(b)
    for w in range(9):
        for i in range(9):
            if table[w, i] >= 0:
                expected[..., table[w, i]] += share[..., w, i]
    assert_allclose(ours.numpy(), expected.numpy(), atol=1e-13)


@pytest.mark.parametrize(
    "function", [torch.relu, torch.sigmoid, torch.nn.functional.gelu, torch.exp]
)
def test_rescale_is_exact_for_one_input(function: object) -> None:
    f, b = _rows(3, 200), _rows(4, 200)
    f[:50] = b[:50] + 1e-9 * f[:50]  # differences that a quotient cannot resolve
    f[50:60] = b[50:60]
    m = rules.rescale(function, f, b, "step" if function is torch.relu else "smooth")  # type: ignore[arg-type]
    assert_allclose((m * (f - b)).numpy(), (function(f) - function(b)).numpy(), atol=2e-15)  # type: ignore[operator]
    literal = [
        rules.rescale_literal(
            lambda z: float(function(torch.tensor(z, dtype=torch.float64))), float(u), float(v)
        )  # type: ignore[operator]
        for u, v in zip(f, b, strict=True)
    ]
    assert_allclose(m.numpy()[60:], literal[60:], atol=1e-9)
    # The literal slope is a central difference of step 1e-5, good to 1e-10 and, at a kink,
    # meaningless.
    away = b[:60].abs() > 1e-3
    assert_allclose(m[:60][away].numpy(), np.array(literal[:60])[away.numpy()], atol=1e-7)


def test_product_and_two_player_units() -> None:
    for seed, g in enumerate((torch.mul, torch.maximum, torch.atan2, torch.logaddexp)):
        f, b = _rows(seed, 2), _rows(seed + 9, 2)
        expected = brute_force(lambda x, g=g: g(x[:, 0], x[:, 1]), f, b)
        m = rules.two_players(g, (f[0], f[1]), (b[0], b[1]))
        assert_allclose([float(m[i] * (f[i] - b[i])) for i in range(2)], expected, atol=1e-14)
    assert rules.product_literal((2.0, 3.0), (0.0, 1.0)) == (4.0, 2.0)


@pytest.mark.parametrize(
    ("name", "native"),
    [
        ("softmax", lambda x: torch.softmax(x, -1)),
        ("log_softmax", lambda x: torch.log_softmax(x, -1)),
        ("normalise", lambda x: torch.nn.functional.layer_norm(x, (5,))),
        ("rms", lambda x: torch.nn.functional.rms_norm(x, (5,))),
    ],
)
def test_compositions_are_additive(name: str, native: object) -> None:
    f, b, q = _rows(0, 1, 5) * 3, _rows(1, 40, 5) * 3, _rows(2, 40, 5)
    b[:5] = f + 1e-9 * b[:5]
    b[5] = f[0]
    rule = {
        "softmax": lambda: softmax_path(f, b, q, -1, "softmax"),
        "log_softmax": lambda: softmax_path(f, b, q, -1, "log_softmax"),
        "normalise": lambda: rules.normalise(f, b, q, (-1,), 1e-5),
        "rms": lambda: rules.normalise(
            f, b, q, (-1,), torch.finfo(torch.float64).eps, centre=False
        ),
    }[name]
    change = (q * (native(f) - native(b))).sum(1)  # type: ignore[operator]
    assert_allclose((rule() * (f - b)).sum(1).numpy(), change.numpy(), atol=1e-13)
    # In the limit of equal rows the multiplier is the derivative.
    point = b.clone().requires_grad_()
    (q * native(point)).sum().backward()  # type: ignore[operator]
    assert_allclose(rule()[:6].numpy(), point.grad[:6].numpy(), atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.05, 1.0, 40.0])
@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_normalisation_is_its_literal_twin(eps: float, centre: bool, shift: float) -> None:
    f, b, q = _rows(0, 1, 5) * 3 + shift, _rows(1, 4, 5) * 3, _rows(2, 4, 5)
    b[0] = 0.0
    found = rules.normalise(f, b, q, (-1,), eps, centre=centre).numpy()
    literal = [
        rules.normalise_literal(f[0].numpy(), *(t[i].numpy() for t in (b, q)), eps, centre=centre)
        for i in range(4)
    ]
    # Midpoint rule of 4000 steps, slow at both ends: errors near 1e-7 of numbers of order 1.
    assert_allclose(found, literal, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 10.0, 100.0])
@pytest.mark.parametrize(
    "norm",
    [
        lambda x: torch.nn.functional.layer_norm(x, (8,)),
        lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True),
    ],
)
def test_rows_far_from_a_calm_baseline_get_values_of_the_size_of_the_exact_ones(
    norm: Callable[[torch.Tensor], torch.Tensor], shift: float
) -> None:
    weights = torch.linspace(-1, 1, 8, dtype=torch.float64)
    model = lambda x: norm(x) @ weights  # noqa: E731
    x, calm = _rows(0, 1, 8) + shift, 1e-2 * _rows(1, 1, 8)
    exact = brute_force(model, x[0], calm[0]).numpy()
    found = deep_shap(model, x, calm).values[0]
    # Centring as a step of its own, which is linear, gave 10 and 100 times the exact values.
    assert np.abs(found - exact).max() < 1.2 * np.abs(exact).max()
    assert_allclose(found.sum(), exact.sum(), atol=1e-9)


def test_normalisation_from_zero_is_bounded_where_a_product_of_factors_is_not() -> None:
    f, b, q = _rows(0, 1, 8), torch.zeros(1, 8, dtype=torch.float64), _rows(2, 1, 8)
    exact = brute_force(lambda x: (torch.nn.functional.layer_norm(x, (8,)) * q).sum(1), f[0], b[0])
    found = (rules.normalise(f, b, q, (-1,), 1e-5) * (f - b))[0]
    # The mean of 1 / s over both rows, which added up just as well, was off by a factor of 80.
    assert float((found - exact).norm() / exact.std() / 8**0.5) < 0.6


def test_softmax_survives_huge_and_masked_logits() -> None:
    f = torch.tensor([[1000.0, -1000.0, -torch.inf]], dtype=torch.float64)
    b = torch.tensor([[-1000.0, 1000.0, -torch.inf]], dtype=torch.float64)
    q = torch.tensor([[1.0, 2.0, 5.0]], dtype=torch.float64)
    m = softmax_path(f, b, q, -1, "softmax")
    assert torch.isfinite(m).all()
    assert_allclose(float((m[:, :2] * (f - b)[:, :2]).sum()), -1.0, atol=1e-12)


def test_reveal_cancel_literal_on_paper_example() -> None:
    relu = lambda z: max(z, 0.0)  # noqa: E731
    for seed in range(20):
        rng = np.random.default_rng(seed)
        w, f, b = rng.normal(size=(3, 5))
        for threshold in (0.0, "mean", -0.3):
            phi = rules.reveal_cancel_literal(relu, w, f, b, threshold, bias=0.2)
            assert_allclose(phi.sum(), relu(w @ f + 0.2) - relu(w @ b + 0.2), atol=1e-14)
    # Two inputs of opposite sign are the two players themselves, so the values are exact.
    w, f, b = np.array([1.0, 1.0]), np.array([3.0, -2.0]), np.zeros(2)
    exact = brute_force(lambda x: torch.relu(x.sum(1)), torch.tensor(f), torch.tensor(b))
    assert_allclose(rules.reveal_cancel_literal(relu, w, f, b), exact, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", list(rules.LIMITS))
def test_kernel_of_rescale_is_the_formula_for_other_devices(kind: str, dtype: torch.dtype) -> None:
    functions = {
        "smooth": torch.tanh,
        "pole": torch.exp,
        "kinked": torch.abs,
        "bent": torch.nn.functional.elu,
    }
    g = functions.get(kind, torch.relu)
    f, b, q = (t.to(dtype) for t in (_rows(0, 1, 40), _rows(1, 30, 40), _rows(2, 30, 40)))
    b[:10] = f + b[:10] * 1e-7  # too near for a quotient
    b[10] = f
    kernel = rules.rescale(g, f, b, kind, q=q)
    formula = [
        [rules.rescale(g, f[0, j], b[i, j], kind, q=q[i, j]) for j in range(40)] for i in range(30)
    ]  # no axis
    eps = torch.finfo(
        dtype
    ).eps  # quotients of differences down to the limit, eps**(1/3) / 4: 4 eps**(2/3), some ulp
    assert_allclose(
        kernel.numpy(), np.array(formula), atol=20 * eps ** (2 / 3) * float(q.abs().max())
    )
    assert_allclose((kernel * (f - b)).double(), (q * (g(f) - g(b))).double(), atol=40 * eps)
    # Another axis of rows: the same pairs.
    turned = rules.rescale(g, f.T[:, :, None], b.T[:, :, None], kind, q=q.T[:, :, None])
    assert_allclose(turned[..., 0].T.numpy(), kernel.numpy(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rows", "tokens", "n", "units"), [(1, 1, 1, 1), (13, 1, 17, 5), (3, 4, 33, 9)]
)
def test_kernels_of_reveal_cancel_mean_are_the_formulas_for_other_devices(
    rows: int, tokens: int, n: int, units: int
) -> None:
    w, f, b = _rows(0, units, n), _rows(1, tokens, n), _rows(2, rows * tokens, n)
    z_f, z_b, inverse = f @ w.T, b @ w.T, torch.full((tokens,), 1.0 / n, dtype=torch.float64)
    tensors = Contributions(f, b, w, z_f, z_b, inverse)
    arrays = Contributions(*(t.numpy() for t in tensors))._replace(weight=padded(w.numpy()))
    up = torch.from_numpy(above_mean(arrays))
    assert_allclose(up.numpy(), above_mean_in_torch(tensors).numpy(), atol=1e-12)
    slopes = 1 - z_f.tanh() ** 2, 1 - z_b.tanh() ** 2
    parts = (z_b + up).tanh(), (z_f.repeat(rows, 1) - up).tanh()
    ends = UnitEnds(up, z_f.tanh(), slopes[0], z_b.tanh(), slopes[1], *parts)
    q = _rows(3, rows * tokens, units)
    found = split_at_mean(arrays, UnitEnds(*(t.numpy() for t in ends)), q.numpy(), 1e-14)
    expected = split_at_mean_in_torch(tensors, ends, q, 1e-14)
    assert_allclose(found, expected.numpy(), atol=1e-12)
    step = f.repeat(rows, 1) - b
    change = q * (z_f.repeat(rows, 1).tanh() - z_b.tanh())
    assert_allclose((found * step.numpy()).sum(1), change.sum(1).numpy(), atol=1e-12)
