"""The path rule and what is built on it: against integrals by hand, enumeration, and integrated
gradients of one-operation networks, which are the same integral."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from oracles.nets import Linear, Net, brute_force
from torch import nn
from torch.utils.checkpoint import checkpoint

from shaplab import UnsupportedModelError, deep_shap, integrated_gradients
from shaplab.deep._path import integrated, path_literal, softmax_path
from shaplab.deep._watched import UnitPass

D = torch.float64


def _rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def _gradient(g: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    def slope(z: np.ndarray) -> np.ndarray:
        point = torch.tensor(z, requires_grad=True)
        return torch.autograd.grad(g(point), point)[0].numpy()

    return slope


@pytest.mark.parametrize("kind", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_rules_of_logits_are_the_integral_along_the_line(kind: str, scale: float) -> None:
    f, b, q = scale * _rows(0, 1, 5), scale * _rows(1, 6, 5), _rows(2, 6, 5)
    native: Any = {
        "softmax": lambda z, w: (torch.softmax(z, -1) * w).sum(),
        "log_softmax": lambda z, w: (torch.log_softmax(z, -1) * w).sum(),
        "logsumexp": lambda z, w: torch.logsumexp(z, -1) * w[0],
    }[kind]
    weight = q[:, :1] if kind == "logsumexp" else q
    found = softmax_path(f, b, weight, -1, kind) * (f - b)
    for i in range(6):
        literal = path_literal(
            _gradient(lambda z, w=q[i]: native(z, w)), f[0].numpy(), b[i].numpy()
        )
        # What 8 to 16 nodes miss of an integral over logits of this size.
        assert_allclose(found[i].numpy(), literal, atol=2e-3 * scale)
        change = float(native(f[0], q[i]) - native(b[i], q[i]))
        assert_allclose(float(found[i].sum()), change, atol=1e-13)


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    f, b, q = _rows(0, 1, 5), _rows(1, 6, 5), _rows(2, 6, 5)
    near = softmax_path(f, b, q, -1, "softmax")
    far = softmax_path(f + 30, b, q, -1, "softmax")
    assert_allclose(far.numpy(), near.numpy(), atol=0.05 * float(near.abs().max()))
    assert_allclose(
        far.sum(1).numpy(), 0.0, atol=0.05
    )  # so a common part of all logits gets nothing


def test_the_review_s_softmax_is_bounded() -> None:
    found = deep_shap(nn.Softmax(1), [[11.0, 10, 9]], [[0.5, 0.2, -1]], outputs=0).values[0]
    exact = [0.654, -0.286, -0.211]  # by enumeration; the earlier rule gave 3095, -2263, -832
    rows = torch.tensor([[11.0, 10, 9], [0.5, 0.2, -1]], dtype=D)
    truth = brute_force(lambda x: torch.softmax(x, 1)[:, 0], *rows)
    assert_allclose(truth.numpy(), exact, atol=1e-3)
    assert np.abs(found).max() < 3 * np.abs(exact).max()
    assert (np.sign(found) == np.sign(exact)).all()


def test_two_classes_are_the_sigmoid_of_their_difference() -> None:
    X, B = _rows(0, 4, 3), _rows(1, 5, 3)
    torch.manual_seed(0)
    one, two = Linear(3, 2).double(), Linear(3, 1).double()
    with torch.no_grad():
        two.weight.copy_(one.weight[:1] - one.weight[1:])
        two.bias.copy_(one.bias[:1] - one.bias[1:])
    pair = deep_shap(Net(lambda n, x: torch.softmax(n.l(x), 1)[:, 0], l=one), X, B).values
    sigmoid = deep_shap(Net(lambda n, x: torch.sigmoid(n.l(x))[:, 0], l=two), X, B).values
    assert_allclose(pair, sigmoid, atol=1e-9)  # 8 nodes on logits of order 1


def test_the_path_rule_is_the_exact_value_of_a_product_and_of_a_scalar_function() -> None:
    f, b = [_rows(0, 1, 4), _rows(1, 1, 4)], [_rows(2, 3, 4), _rows(3, 3, 4)]
    q = _rows(4, 3, 4)
    kept = {"axes": ([0, 0], 0), "name": "product"}
    found = integrated(lambda v: v[0] * v[1], UnitPass(f, b, q, kept))
    assert_allclose(found[0].numpy(), (q * (f[1] + b[1]) / 2).numpy(), atol=1e-14)
    assert_allclose(found[1].numpy(), (q * (f[0] + b[0]) / 2).numpy(), atol=1e-14)
    kept = {"axes": ([0], 0), "name": "tanh"}
    (found_one,) = integrated(lambda v: torch.tanh(v[0]), UnitPass(f[:1], b[:1], q, kept))
    quotient = q * (torch.tanh(f[0]) - torch.tanh(b[0])) / (f[0] - b[0])
    assert_allclose(found_one.numpy(), quotient.numpy(), atol=1e-3)  # the nodes stop at 1e-4


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**3 / 3

    @staticmethod
    def backward(ctx: Any, q: torch.Tensor) -> torch.Tensor:
        return q * ctx.saved_tensors[0] ** 2


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.round(3 * x)

    @staticmethod
    def backward(ctx: Any, q: torch.Tensor) -> torch.Tensor:
        return q


def _grid(n: Any, x: torch.Tensor) -> torch.Tensor:
    theta = torch.tanh(n.a(x)[:, :6]).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, [len(x), 1, 2, 2], align_corners=False)
    return F.grid_sample(x.reshape(-1, 1, 2, 4), grid, align_corners=False).sum((1, 2, 3))


def _rotary(n: Any, x: torch.Tensor) -> torch.Tensor:
    angle = torch.polar(torch.ones(4, dtype=x.dtype), torch.arange(4.0).to(x))
    turned = torch.view_as_complex(torch.tanh(n.a(x)).reshape(-1, 4, 2)) * angle
    return n.c(torch.view_as_real(turned).flatten(1) * x)[:, 0]


# Each was refused once. Values add up in every one, and stay near enumeration.
ACCEPTED: dict[str, Callable[..., torch.Tensor]] = {
    "custom function": lambda n, x: n.c(_Cube.apply(n.a(x)))[:, 0],
    "checkpoint": lambda n, x: n.c(
        checkpoint(lambda h: torch.tanh(n.a(h)), x, use_reentrant=False)
    )[:, 0],
    "reentrant checkpoint": lambda n, x: n.c(
        checkpoint(lambda h: torch.tanh(n.a(h)), x, use_reentrant=True)
    )[:, 0],
    "prod": lambda n, x: torch.prod(1.5 + torch.tanh(n.a(x)), 1),
    "cumprod": lambda n, x: n.c(torch.cumprod(1.5 + torch.tanh(n.a(x)), 1))[:, 0],
    "cosine_similarity": lambda n, x: F.cosine_similarity(n.a(x), n.b(x)),
    "pairwise_distance": lambda n, x: F.pairwise_distance(n.a(x), n.b(x)),
    "cdist": lambda n, x: torch.cdist(n.a(x)[:, None], n.b(x)[:, None]).flatten(),
    "lerp": lambda n, x: n.c(torch.lerp(n.a(x), n.b(x), torch.sigmoid(x)))[:, 0],
    "scatter_reduce": lambda n, x: (
        torch.zeros(len(x), 4, dtype=x.dtype)
        .scatter_reduce(1, (torch.arange(8) % 4).expand(len(x), 8), n.a(x), "amax")
        .sum(1)
    ),
    "sparse.mm": lambda n, x: n.c(
        torch.tanh(torch.sparse.mm(n.a.weight.detach().to_sparse(), x.T).T)
    )[:, 0],
    "nearest-exact": lambda n, x: F.interpolate(
        torch.tanh(n.a(x)).reshape(-1, 1, 2, 4), size=(3, 5), mode="nearest-exact"
    ).sum((1, 2, 3)),
    "antialiased": lambda n, x: F.interpolate(
        torch.tanh(n.a(x)).reshape(-1, 1, 2, 4), size=(2, 2), mode="bilinear", antialias=True
    ).sum((1, 2, 3)),
    "unpool": lambda n, x: n.c(
        F.max_unpool1d(
            torch.tanh(n.a(x))[:, None, :4], torch.tensor([0, 2, 4, 6]).expand(len(x), 1, 4), 2
        )[:, 0]
    )[:, 0],
    "fft": lambda n, x: torch.fft.rfft(n.a(x)).abs().sum(1),
    "rotary embedding": _rotary,
    "where": lambda n, x: n.c(torch.where(n.a(x) > 0, n.a(x), 0.1 * n.a(x)))[:, 0],
    "times a mask": lambda n, x: n.c(n.a(x) * (n.a(x) > 0))[:, 0],
    "x.where": lambda n, x: n.c(n.a(x).where(n.a(x) > 0, n.b(x)))[:, 0],
    "both of two masks": lambda n, x: ((n.a(x) > 0) & (n.b(x) > 0)).to(x.dtype).sum(1),
    "either of two masks": lambda n, x: ((n.a(x) > 0) | ~(n.b(x) > 0)).to(x.dtype).sum(1),
    "count of a mask": lambda n, x: n.a(x).sum(1) / (1 + (n.a(x) > 0).sum(1).clamp(max=6)),
    "masked_fill": lambda n, x: n.c(n.a(x).masked_fill(n.a(x) < 0, 0.0))[:, 0],
    "sort": lambda n, x: n.c(torch.sort(n.a(x), 1)[0])[:, 0],
    "topk": lambda n, x: torch.topk(n.a(x), 3, 1).values.sum(1),
    "median": lambda n, x: n.a(x).median(1).values,
    "einsum of three": lambda n, x: torch.einsum("ni,ni,ni->n", n.a(x), n.b(x), torch.tanh(x)),
    "cross_entropy": lambda n, x: F.cross_entropy(
        n.a(x), torch.zeros(len(x), dtype=torch.long), reduction="none"
    ),
    "affine_grid": _grid,
    "logit": lambda n, x: torch.logit(torch.sigmoid(n.a(x)) * 0.9 + 0.05).sum(1),
    "nan_to_num": lambda n, x: n.c(torch.nan_to_num(n.a(x)))[:, 0],
    "norm of order 3": lambda n, x: n.a(x).norm(3, 1),
    "logsumexp over two axes": lambda n, x: torch.logsumexp(n.a(x).reshape(-1, 2, 4), (1, 2)),
    "packed sequence": lambda n, x: n.l(
        n.r(
            nn.utils.rnn.pack_padded_sequence(
                x.reshape(-1, 4, 2), torch.full((len(x),), 4), batch_first=True
            )
        )[1][0][-1]
    )[:, 0],
    "padding mask": lambda n, x: n.l(
        n.t(x.reshape(-1, 4, 2), src_key_padding_mask=torch.zeros(len(x), 4, dtype=torch.bool))[
            :, 0
        ]
    )[:, 0],
}
WIDE = {
    "both of two masks": 2.0,  # sums of steps have no slope: only the ends of each row are seen
    "either of two masks": 2.0,
    "padding mask": 1.6,
    "affine_grid": 1.0,
    "where": 1.0,
    "times a mask": 1.0,
}


@pytest.mark.parametrize("name", list(ACCEPTED))
def test_differentiable_operations_are_explained(name: str) -> None:
    torch.manual_seed(1)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 1, 4, batch_first=True), 1)
    model = (
        Net(
            ACCEPTED[name],
            a=Linear(8, 8),
            b=Linear(8, 8),
            c=Linear(8, 1),
            l=Linear(2, 1),
            r=nn.LSTM(2, 2, batch_first=True),
            t=encoder,
        )
        .double()
        .eval()
    )
    X, B = _rows(0, 2, 8), _rows(1, 3, 8)
    exact = np.mean([[brute_force(model, x, r).numpy() for r in B] for x in X], axis=1)
    found = deep_shap(model, X, B)
    change = (model(X) - model(B).mean()).detach().numpy()
    assert_allclose(found.values.sum(1), change, atol=1e-10 * np.abs(change).max())
    error = np.sqrt(np.mean((found.values - exact) ** 2)) / exact.std()
    # Measured: below .5 but for the few named; these networks have one steep step and 8 inputs.
    assert error < WIDE.get(name, 0.7)


def test_a_network_of_one_path_operation_has_integrated_gradients() -> None:
    torch.manual_seed(0)
    for g in (
        lambda n, x: F.scaled_dot_product_attention(*n.a(x.reshape(-1, 4, 2)).chunk(3, -1)).sum(
            (1, 2)
        ),
        lambda n, x: torch.cumprod(x, 1).sum(1),
    ):
        model = Net(g, a=Linear(2, 6)).double()
        X, B = _rows(0, 3, 8), _rows(1, 2, 8)
        path = integrated_gradients(model, X, B, steps=64).values
        assert_allclose(deep_shap(model, X, B).values, path, atol=2e-3 * np.abs(path).max())


def test_attention_by_hand_is_fused_attention() -> None:
    torch.manual_seed(0)

    def by_hand(n: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = n.a(x.reshape(-1, 4, 2)).chunk(3, -1)
        weights = F.dropout((q @ k.transpose(1, 2) / 2**0.5).softmax(-1), 0.1, training=False)
        return (weights @ v).sum((1, 2))

    layer = Linear(2, 6)
    hand = Net(by_hand, a=layer).double()
    fused = Net(
        lambda n, x: F.scaled_dot_product_attention(*n.a(x.reshape(-1, 4, 2)).chunk(3, -1)).sum(
            (1, 2)
        ),
        a=layer,
    ).double()
    X, B = _rows(0, 2, 8), _rows(1, 3, 8)
    ours, theirs = deep_shap(hand, X, B).values, deep_shap(fused, X, B).values
    # Scores are a product of two in one, part of the operation in the other: near, not equal.
    assert_allclose(ours, theirs, atol=0.1 * np.abs(theirs).max())


BY_HAND = {
    "normalize": (F.normalize, lambda x: x / (x * x).sum(1, keepdim=True).sqrt()),
    "rms_norm": (
        lambda x: F.rms_norm(x, (8,), eps=1e-5),
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5),
    ),
    "rms_norm with named arguments": (
        lambda x: F.rms_norm(x, (8,), eps=1e-5),
        lambda x: torch.div(
            x, other=torch.add(torch.div((x * x).sum(1, keepdim=True), other=8), other=1e-5).sqrt()
        ),
    ),
    "layer_norm": (
        lambda x: F.layer_norm(x, (8,), eps=0.0),
        lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True, correction=0),
    ),
    "softmax": (
        lambda x: torch.softmax(x, 1),
        lambda x: torch.exp(x) / torch.exp(x).sum(1, keepdim=True),
    ),
    "logsumexp": (
        lambda x: torch.logsumexp(x, 1, keepdim=True),
        lambda x: torch.exp(x).sum(1, keepdim=True).log(),
    ),
}


@pytest.mark.parametrize("name", list(BY_HAND))
def test_formulas_by_hand_are_seen_as_what_they_are(name: str) -> None:
    torch.manual_seed(0)
    X, B = _rows(0, 3, 8), _rows(1, 4, 8)
    B[0] *= 1e-3
    head = Linear(1 if name == "logsumexp" else 8, 1)
    first, second = (
        Net(lambda n, x, g=g: n.c(torch.tanh(g(x)))[:, 0], c=head).double() for g in BY_HAND[name]
    )
    assert_allclose(deep_shap(second, X, B).values, deep_shap(first, X, B).values, atol=1e-10)


def test_a_derivative_that_does_not_belong_to_the_values_is_named() -> None:
    model = Net(lambda n, x: n.c(_StraightThrough.apply(x)), c=Linear(4, 1)).double()
    with pytest.raises(UnsupportedModelError, match=r"`_StraightThrough` at .*test_path\.py:\d+"):
        deep_shap(model, _rows(0, 2, 4), _rows(1, 3, 4))


def test_derivatives_inside_the_model_are_named() -> None:
    def slope(n: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(torch.tanh(x).sum(), x, create_graph=True)[0].sum(1)

    with pytest.raises(UnsupportedModelError, match=r"`grad` at .*derivatives of its own"):
        deep_shap(Net(slope), _rows(0, 2, 4), _rows(1, 3, 4))


def test_custom_functions_of_others_are_left_alone() -> None:
    before = torch.autograd.Function.__dict__["apply"]
    seen = []

    def run(n: Any, x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.autograd.Function.__dict__["apply"] is before)
        return _Cube.apply(x).sum(1)

    deep_shap(Net(run), _rows(0, 2, 4), _rows(1, 3, 4))
    assert seen
    assert not any(seen)
    assert torch.autograd.Function.__dict__["apply"] is before
    with pytest.raises(RuntimeError):
        deep_shap(
            Net(lambda n, x: (_ for _ in ()).throw(RuntimeError())),
            torch.ones(1, 2),
            torch.ones(1, 2),
        )
    assert torch.autograd.Function.__dict__["apply"] is before
