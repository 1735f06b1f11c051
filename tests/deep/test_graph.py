"""What the capture promises: nothing of the user's is touched, and what cannot be explained is
refused by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn as nn
from numpy.testing import assert_allclose
from oracles.nets import Linear, Net, networks

from shaplab import UnsupportedModelError, deep_shap
from shaplab.deep.graph import operation, reentrant


def _state(model: nn.Module) -> dict[str, object]:
    return {
        "values": {k: v.clone() for k, v in model.state_dict().items()},
        "flags": [
            (p.requires_grad, None if p.grad is None else p.grad.clone())
            for p in model.parameters()
        ],
        "training": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "grad": torch.is_grad_enabled(),
        "random": torch.get_rng_state(),
        "threads": torch.get_num_threads(),
        "mode": torch.overrides._len_torch_function_stack(),
        "global hooks": len(torch.nn.modules.module._global_forward_hooks),
    }


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict | list | tuple):
        pairs = [(a[k], b[k]) for k in a] if isinstance(a, dict) else list(zip(a, b, strict=True))  # type: ignore[index,call-overload]
        return all(_same(x, y) for x, y in pairs)
    return a == b


def test_nothing_of_the_users_changes() -> None:
    torch.manual_seed(0)
    for name in (
        "in place",
        "norms and adaptive pools",
        "bi-LSTM",
        "transformer layer",
        "folded rows",
    ):
        model, shape = networks()[name]
        first, *rest = model.parameters()
        first.requires_grad_(False)
        rest[-1].grad = torch.ones_like(rest[-1])
        X, B = torch.randn(2, *shape), torch.randn(3, *shape).requires_grad_()
        before, kept = _state(model), (X.clone(), B.detach().clone())
        deep_shap(model, X, B, rule="reveal_cancel_mean")
        assert _same(before, _state(model)), name
        assert torch.equal(X, kept[0])
        assert torch.equal(B, kept[1])
        assert B.grad is None
        with torch.no_grad():
            deep_shap(model, X, B)
            assert not torch.is_grad_enabled()


def _raises_in_the_middle(net: Net, x: torch.Tensor) -> torch.Tensor:
    h = torch.relu(net.a(x))
    if len(x) == 4:  # the background run
        raise RuntimeError("in the middle")
    return net.a(h)


@pytest.mark.parametrize("error", ["own", "unsupported", "layer"])
def test_everything_is_restored_after_an_exception(error: str) -> None:
    torch.manual_seed(0)
    run = (
        _raises_in_the_middle
        if error == "own"
        else lambda net, x: net.a(x) * torch.rand_like(x[:, :1])
    )
    model, X = Net(run, a=Linear(3, 3)), torch.randn(2, 3)
    B = torch.randn(4, 3)
    before = _state(model)
    with pytest.raises(RuntimeError if error == "own" else UnsupportedModelError):
        deep_shap(model, X, B, layer="a" if error == "layer" else None)
    assert _same(before, _state(model))
    plain = Linear(3, 1)
    deep_shap(plain, X, X)
    assert torch.sort(torch.tensor([2.0, 1.0]))[0].tolist() == [1.0, 2.0]


SIGNS = {
    "getitem": lambda net, x: net.a(x)[(x > 0)[:, 0]].sum() + net.a(x),
    "sort": lambda net, x: net.a(x.gather(1, torch.sort(x, 1)[1])),
    "max": lambda net, x: net.a(x.gather(1, x.max(1, keepdim=True)[1]).expand(-1, 4)),
    "item": lambda net, x: net.a(x * x.sum().item()),
    "bernoulli": lambda net, x: net.a(x * torch.bernoulli(torch.full_like(x, 0.5))),
    "dropout": lambda net, x: net.a(nn.functional.dropout(x, 0.5)),
    "batch_norm": lambda net, x: net.a(nn.functional.batch_norm(x, None, None, training=True)),
    "add_": lambda net, x: net.a(x + net.count.add_(1.0)),
    "max_pool2d_with_indices": lambda net, x: net.a(
        nn.functional.max_unpool2d(
            *nn.functional.max_pool2d(x.reshape(-1, 1, 2, 2), 2, return_indices=True), 2
        ).flatten(1)
    ),
}


@pytest.mark.parametrize("name", list(SIGNS))
def test_what_cannot_be_explained_is_named_with_its_place(name: str) -> None:
    torch.manual_seed(1)
    model = Net(SIGNS[name], a=Linear(4, 1))
    model.register_buffer("count", torch.zeros(1))
    X, B = torch.randn(3, 4), torch.randn(5, 4)
    random = torch.get_rng_state()
    with pytest.raises(
        UnsupportedModelError, match=rf"`{name}`.* at .*test_graph\.py:\d+: "
    ) as caught:
        deep_shap(model, X, B)
    assert str(caught.value).startswith("model: expected")
    assert float(model.count) == 0.0
    assert torch.equal(random, torch.get_rng_state())


def test_control_flow_that_depends_on_rows() -> None:
    def either(net: Net, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(net.a(x)) if x.sum() > 0 else net.a(x)

    model, X = Net(either, a=Linear(4, 1)), torch.rand(3, 4)
    with pytest.raises(
        UnsupportedModelError, match="differs between explained and background rows"
    ):
        deep_shap(model, X, -torch.rand(5, 4))
    found = deep_shap(model, X, torch.rand(5, 4))  # all take one path
    assert np.abs(found.info["gap"]).max() < 1e-6
    checked = Net(lambda net, x: net.a(x) if bool(torch.isfinite(x).all()) else x, a=Linear(4, 1))
    deep_shap(checked, X, -X)


def test_hidden_steps_and_mixed_rows_are_caught_by_the_residual() -> None:
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.exp(x.detach().numpy()))

        @staticmethod
        def backward(ctx: object, q: torch.Tensor) -> torch.Tensor:
            return q

    X, B = torch.randn(3, 4), torch.randn(5, 4)
    for run in (
        lambda net, x: net.a(Hidden.apply(x)),
        lambda net, x: net.a(torch.relu(x - x.mean(0))),
        lambda net, x: net.a(x @ x.T @ x),
        lambda net, x: torch.jit.script(math.floor and _scripted)(net.a(x)),
    ):
        with pytest.raises(UnsupportedModelError):
            deep_shap(Net(run, a=Linear(4, 1)), X, B)


def _scripted(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x)


def test_compiled_models() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(Linear(4, 5), nn.ReLU(), Linear(5, 1))
    X, B = torch.randn(3, 4), torch.randn(5, 4)
    assert_allclose(deep_shap(torch.compile(model), X, B).values, deep_shap(model, X, B).values)
    assert torch.compiler.is_compiling() is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m, X, B: (m.train(), X, B),
            "model: expected evaluation mode, got Dropout '1' in training mode",
        ),
        (
            lambda m, X, B: (nn.Sequential(m, nn.BatchNorm1d(1)).train(), X, B),
            "model: expected evaluation mode, got",
        ),
        (
            lambda m, X, B: (nn.BatchNorm1d(3), X, B),
            "model: expected evaluation mode, got BatchNorm1d '' in training",
        ),
        (lambda m, X, B: (m, X.double(), B), "X: expected dtype torch.float32 on cpu"),
        (lambda m, X, B: (m, X.to("meta"), B), "X: expected dtype torch.float32 on cpu"),
        (lambda m, X, B: (m, X, B.to("meta")), "background: expected dtype torch.float32 on cpu"),
        (lambda m, X, B: (m, X, B[:, :2]), "background: expected inputs of shape"),
        (lambda m, X, B: (m, X * torch.nan, B), "X: expected finite numbers"),
        (lambda m, X, B: (m, X, B / 0), "background: expected finite numbers"),
        (lambda m, X, B: (m, X[:0], B), "X: expected at least one row"),
        (lambda m, X, B: (Net(lambda n, x: x.sum()), X, B), "model: expected one tensor of shape"),
        (lambda m, X, B: (Net(lambda n, x: (x, x)), X, B), "model: expected one tensor of shape"),
        (lambda m, X, B: (torch.jit.script(m), X, B), "ScriptModule"),
        (lambda m, X, B: (3, X, B), "model: expected a torch.nn.Module"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_bad_input_is_refused(change: Callable[..., tuple], message: str) -> None:
    model = nn.Sequential(Linear(3, 3), nn.Dropout(0.5), Linear(3, 1)).eval()
    torch.manual_seed(3)
    args = change(model, torch.randn(2, 3), torch.randn(4, 3))
    with pytest.raises((ValueError, TypeError), match=message.replace("(", r"\(")):
        deep_shap(*args)
    for options, match in (
        ({"rule": "deeplift"}, "rule"),
        ({"max_rule": "mean"}, "max_rule"),
        ({"batch_size": 0}, "batch_size"),
        ({"outputs": 4}, "outputs"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"{match}: expected"):
            deep_shap(model.eval(), torch.randn(2, 3), torch.randn(4, 3), **options)


def test_reentrant_copies_leave_the_original_alone() -> None:
    original = nn.functional.layer_norm
    before = copy.copy(original.__globals__["has_torch_function_variadic"])
    again = reentrant(original)
    assert again is not None
    assert again is not original
    assert original.__globals__["has_torch_function_variadic"] is before
    x = torch.randn(2, 3)
    assert torch.equal(again(x, (3,)), original(x, (3,)))
    assert reentrant(torch.relu) is None
    assert operation(torch.Tensor.__iadd__) == ("add", "__iadd__")
    assert operation(torch.Tensor.shape.__get__)[0] == "shape"  # type: ignore[attr-defined]
