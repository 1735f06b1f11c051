"""No number comes back that is wrong without a word: NaN, hidden steps, names, dtypes, shapes.

Oracles: closed forms, enumeration of all coalitions, and the model's own outputs.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose, assert_array_equal
from oracles.nets import Linear, Net, brute_force
from torch import nn

from shaplab import (
    UnsupportedModelError,
    deep_shap,
    deeplift,
    gradients,
    input_x_gradient,
    integrated_gradients,
    occlusion,
)
from shaplab.deep import rules
from shaplab.deep.deep_shap import checked_gap
from shaplab.deep.kernels.units import FunctionEnds, rescale_rows

RNG = np.random.default_rng(0)
ROWS = torch.tensor(RNG.normal(size=(3, 4)), dtype=torch.float32)


@pytest.mark.parametrize("kind", list(rules.LIMITS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_of_zero_takes_the_slope_even_when_the_two_slopes_differ_by_rounding(
    kind: str, dtype: type
) -> None:
    # Another batch shape or processor gives the same input another last digit of the slope.
    slope = np.full((1, 3), 0.5, dtype)
    other = slope * (1 + np.finfo(dtype).eps)
    x, y, q = np.full((1, 3), 2.0, dtype), np.ones((1, 3), dtype), np.ones((1, 3), dtype)
    out = np.empty_like(x)
    limits = rules.limits(kind, torch.float64 if dtype is np.float64 else torch.float32)
    rescale_rows(FunctionEnds(x, y, slope), FunctionEnds(x, y, other), q, limits, out)
    assert_allclose(out, 0.5, rtol=4 * np.finfo(dtype).eps)  # the mean of both slopes


def test_rows_explained_against_themselves_get_numbers() -> None:
    torch.manual_seed(0)
    for part in (nn.ELU(), nn.SELU(), nn.CELU(), nn.Hardswish(), nn.LeakyReLU(), nn.GELU()):
        model = nn.Sequential(Linear(4, 8), part, Linear(8, 8), part, Linear(8, 1))
        found = deep_shap(model, ROWS, ROWS)
        assert np.isfinite(found.values).all()
        change = (model(ROWS) - model(ROWS).mean()).detach().numpy()
        assert_allclose(found.values.sum(1), change, atol=1e-6)  # float32, outputs of order 1


FLAT = {
    "norm": lambda n, x: x.norm(dim=1),
    "root of relu": lambda n, x: torch.relu(x).sqrt().sum(1),
    "power of relu": lambda n, x: torch.relu(x).pow(0.5).sum(1),
    "std of a constant": lambda n, x: x.std(1),
    "normalize a dead layer": lambda n, x: F.normalize(torch.relu(x)).sum(1),
    "twins": lambda n, x: (x - x).norm(dim=1) + x.sum(1),
    "hypot": lambda n, x: torch.hypot(x[:, 0], x[:, 1]),
}


@pytest.mark.parametrize("name", list(FLAT))
def test_infinite_slopes_where_nothing_changes_give_nothing(name: str) -> None:
    model, zero = Net(FLAT[name]), torch.zeros(2, 4)
    assert_array_equal(deep_shap(model, zero, zero).values, 0.0)
    below = -ROWS.abs()
    for X, B in ((zero, ROWS), (ROWS, zero), (below, below - 1)):
        found = deep_shap(model, X, B)
        change = (model(X) - model(B).mean()).numpy()
        assert_allclose(found.values.sum(1), change, atol=2e-6)  # float32, outputs of order 1


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 90.0), (torch.float64, 750.0)])
def test_logits_far_apart_give_the_share_of_each(dtype: torch.dtype, far: float) -> None:
    f = torch.tensor([[far, -far, 0.0]], dtype=dtype)
    for model in (nn.Softmax(1), nn.LogSoftmax(1), Net(lambda n, x: x.logsumexp(1))):
        found = deep_shap(model, f, -f).values
        change = (model(f) - model(-f)).numpy()
        assert_allclose(found.sum(1), change, rtol=1e-5, atol=1e-6)  # float32 sums of 2 far
        exact = [
            brute_force(lambda x, m=model, k=k: m(x).reshape(len(x), -1)[:, k], f[0], -f[0])
            for k in range(change.size)
        ]
        assert np.abs(found).max() <= 3 * np.abs(torch.stack(exact).numpy()).max()


def test_numbers_that_leave_the_range_name_the_operation_and_line() -> None:
    model = Net(lambda n, x: torch.sigmoid(torch.exp(x) + x).sum(1))
    with pytest.raises(UnsupportedModelError, match=r"from `exp` at .*\.py:\d+: .*double"):
        deep_shap(model, torch.full((1, 2), 200.0), torch.zeros(1, 2))


def test_a_model_whose_own_output_is_infinite_is_said_to_be_that() -> None:
    model = Net(lambda n, x: torch.exp(x).sum(1))
    with pytest.raises(ValueError, match="model: expected finite outputs"):
        deep_shap(model, torch.full((1, 2), 1e3), torch.zeros(1, 2))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str
)
def test_a_hidden_step_is_found_behind_a_large_constant(dtype: torch.dtype) -> None:
    """The residual counts beside the change of output, not beside its size."""
    model = Net(lambda n, x: n.l(_hidden(x)), l=Linear(4, 1))
    with torch.no_grad():
        model.l.weight.fill_(1.0)
        model.l.bias.fill_(20.0 if dtype.itemsize > 2 else 2.0)  # half precision rounds 20 to .02
    model = model.to(dtype)
    X, B = ROWS.to(dtype), -ROWS.to(dtype)
    with pytest.raises(UnsupportedModelError, match="where the output changes by"):
        deep_shap(model, X, B)


def _hidden(x: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunction():  # nobody can watch this step
        return torch.tanh(4 * x)


def test_half_precision_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Linear(4, 8), nn.GELU(), Linear(8, 2))
    exact = deep_shap(model, ROWS, -ROWS).values
    for dtype in (torch.float16, torch.bfloat16):
        half = nn.Sequential(Linear(4, 8), nn.GELU(), Linear(8, 2))
        half.load_state_dict(model.state_dict())
        half = half.to(dtype)
        found = deep_shap(half, ROWS.to(dtype), -ROWS.to(dtype)).values
        # Weights, inputs and each layer are rounded once: some units in the last place.
        assert_allclose(found, exact, atol=8 * torch.finfo(dtype).eps * np.abs(exact).max())


def test_half_precision_meets_constants_in_half_precision() -> None:
    torch.manual_seed(0)
    table = torch.randn(4, 4)

    def run(n: Net, x: torch.Tensor) -> torch.Tensor:
        q, k, v = n.a(x.reshape(-1, 4, 1)).chunk(3, -1)
        mask = table.to(x.dtype)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).mean(2)
        return n.l(torch.clamp(torch.cumprod(h + mask[0], 1), min=mask[1] - 1))

    parts = {"a": Linear(1, 12), "l": Linear(4, 1)}
    exact = deep_shap(Net(run, **parts), ROWS, -ROWS).values
    for dtype in (torch.float16, torch.bfloat16):
        half = Net(run, **{name: Linear(*part.weight.shape[::-1]) for name, part in parts.items()})
        for name, part in parts.items():
            getattr(half, name).load_state_dict(part.state_dict())
        found = deep_shap(half.to(dtype), ROWS.to(dtype), -ROWS.to(dtype)).values
        # Each of some ten operations rounds once, to 3 digits in bfloat16.
        assert_allclose(found, exact, atol=16 * torch.finfo(dtype).eps * np.abs(exact).max())


class TestTables:
    table = pd.DataFrame(RNG.normal(size=(4, 3)), columns=list("abc"))
    model = Net(lambda n, a, b: n.l(torch.relu(a * b)), l=Linear(3, 1))

    def test_each_of_several_tables_is_checked_and_keeps_its_names(self) -> None:
        T, U = self.table, self.table.rename(columns=str.upper)
        with pytest.raises(ValueError, match=r"background\[1\]: expected the columns of X"):
            deep_shap(self.model, (T, T), (T, T[list("cba")]))
        for method in (deep_shap, input_x_gradient, integrated_gradients, occlusion):
            first, second = method(self.model, (T, U), (T, U))
            assert first.names == ("a", "b", "c")
            assert second.names == ("A", "B", "C")

    def test_arrays_of_every_form_are_read_as_their_numbers(self) -> None:
        net = Linear(3, 1)
        X = self.table.to_numpy()
        plain = deep_shap(net, X, X[:2]).values
        forms = (
            X[:, ::-1][:, ::-1],
            X.astype(">f8"),
            np.asfortranarray(X),
            self.table.astype("Float64"),
            X.astype(object),
            X.tolist(),
        )
        for form in forms:
            assert_array_equal(deep_shap(net, form, X[:2]).values, plain)
        mask = X > 0
        as_numbers = deep_shap(net, mask.astype(float), X).values
        assert_array_equal(deep_shap(net, mask, X).values, as_numbers)

    def test_one_number_a_row(self) -> None:
        found = deep_shap(Net(lambda n, x: x**2), torch.tensor([3.0, 1.0]), torch.tensor([1.0]))
        assert_allclose(found.values, [[8.0], [0.0]])

    def test_a_list_of_inputs_is_told_to_be_a_tuple(self) -> None:
        with pytest.raises(TypeError, match=r"Pass tuple\(X\)"):
            deep_shap(self.model, [ROWS[:, :3]] * 2, [ROWS[:, :3]] * 2)


def test_inputs_with_names_are_a_dict() -> None:
    torch.manual_seed(0)
    body, X, B = (
        Linear(5, 1),
        {"a": ROWS[:, :3], "b": ROWS[:, 2:]},
        {"b": -ROWS[:, 2:], "a": -ROWS[:, :3]},
    )

    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, *, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.body(torch.cat([a, b], 1)))

    class ByDict(ByKeyword):
        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:  # type: ignore[override]
            return super().forward(**batch)

    pair = Net(lambda n, a, b: torch.tanh(n.l(torch.cat([a, b], 1))), l=body)
    expected = deep_shap(pair, (X["a"], X["b"]), (B["a"], B["b"]))
    for model in (ByKeyword(), ByDict()):
        found = deep_shap(model, X, B)
        assert list(found) == ["a", "b"]
        assert_array_equal(found["a"].values, expected[0].values)
        assert_array_equal(found["b"].values, expected[1].values)
        at_layer = deep_shap(model, X, B, layer="body")
        assert at_layer.values.shape == (3, 1, 1)
        assert model.training
        assert body.training
    with pytest.raises(ValueError, match="background: expected a dict with the inputs a, b"):
        deep_shap(ByKeyword(), X, {"a": B["a"]})


def test_a_model_for_a_fixed_batch_is_told_that_it_was_given_another() -> None:
    fixed = Net(lambda n, x: n.l(torch.tanh(x.reshape(4, 4))), l=Linear(4, 1))
    X = torch.randn(4, 4)
    with pytest.raises(RuntimeError) as caught:
        deep_shap(fixed, X, X)
    assert "must take any number of rows" in caught.value.__notes__[0]


def test_the_output_axis_exists_exactly_when_the_model_has_one() -> None:
    torch.manual_seed(0)
    column, line = Linear(4, 1), Net(lambda n, x: n.l(x)[:, 0], l=Linear(4, 1))
    for method in (deep_shap, input_x_gradient, integrated_gradients, occlusion):
        assert method(column, ROWS, ROWS).values.shape == (3, 4, 1)
        assert method(line, ROWS, ROWS).values.shape == (3, 4)
    assert gradients(column, ROWS).values.shape == (3, 4, 1)
    assert deeplift(column, ROWS).values.shape == (3, 4, 1)
    assert deep_shap(column, ROWS, ROWS, outputs=0).values.shape == (3, 4)
    assert deep_shap(column, ROWS, ROWS, outputs=[0]).values.shape == (3, 4, 1)


def test_the_dtype_is_the_one_that_the_model_runs_with() -> None:
    torch.manual_seed(0)
    nets = (
        Net(
            lambda n, x: n.b(torch.relu(n.a(x.bfloat16())).float()),
            a=Linear(4, 4).bfloat16(),
            b=Linear(4, 1),
        ),
        Net(lambda n, x: n.b(torch.relu(n.a(x.double()))).float(), a=Linear(4, 4), b=Linear(4, 1)),
        Net(lambda n, x: n.b(torch.relu(n.a(x)).double()), a=Linear(4, 4), b=Linear(4, 1).double()),
    )
    nets[1].double()
    nets[1].register_parameter("late", nn.Parameter(torch.zeros(1)))
    for net, rows in zip(nets, (ROWS, ROWS.double(), ROWS), strict=True):
        given = deep_shap(net, rows, -rows)
        as_array = deep_shap(net, rows.numpy(), -rows.numpy())
        assert_allclose(as_array.values, given.values, atol=1e-6)
        change = (net(rows) - net(-rows).mean()).detach().numpy()
        # bfloat16 has 3 digits; the others more.
        assert_allclose(given.values.sum(1), change, atol=2e-2)
    with pytest.raises(ValueError, match=r"X: expected dtype torch.float32 on cpu"):
        deep_shap(Linear(4, 1), ROWS.double(), ROWS)


def test_simpler_attributions_take_several_inputs() -> None:
    model = Net(lambda n, a, b: (a * b).sum(1))
    x, b = ROWS.double(), -ROWS.double() + 1
    X, B = (x[:, :2], x[:, 2:]), (b[:, :2], b[:, 2:])
    whole = Net(lambda n, x: (x[:, :2] * x[:, 2:]).sum(1))
    exact = np.mean([[brute_force(whole, row, ref).numpy() for ref in b] for row in x], axis=1)
    parts = integrated_gradients(model, X, B)
    joined = np.concatenate([part.values for part in parts], 1)
    assert_allclose(
        joined, exact, atol=1e-12
    )  # the path integral of a product is its Shapley value
    for method in (input_x_gradient, occlusion):
        one = method(whole, x, b).values
        two = np.concatenate([part.values for part in method(model, X, B)], 1)
        assert_allclose(two, one, atol=1e-14)
    slopes = np.concatenate([part.values for part in gradients(model, X)], 1)
    assert_allclose(slopes, torch.cat([x[:, 2:], x[:, :2]], 1).numpy(), atol=1e-15)
    lifted = deeplift(model, X)
    one = deeplift(whole, x).values
    assert_allclose(np.concatenate([part.values for part in lifted], 1), one, atol=1e-14)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("body", "a module that returns one tensor"),
        ("side", "a parallel branch bypasses it"),
        ("unused", "the name of a module that the model calls"),
    ],
)
def test_a_layer_that_cannot_be_explained_is_told_why(layer: str, message: str) -> None:
    model = Net(
        lambda n, x: n.head(torch.tanh(n.body(x)[0][:, -1]) + n.side(x[:, -1])),
        body=nn.LSTM(4, 3, batch_first=True),
        side=Linear(4, 3),
        unused=Linear(1, 1),
        head=Linear(3, 1),
    )
    X = torch.randn(3, 5, 4)
    with pytest.raises(ValueError, match=message):
        deep_shap(model, X, -X, layer=layer)


@pytest.mark.parametrize(("dtype", "units"), [(np.float64, 25), (np.float32, 25), (np.float16, 4)])
def test_outputs_that_differ_by_rounding_alone_are_no_hidden_step(dtype: type, units: int) -> None:
    # Two runs of a row in batches of two shapes: a network of sigmoids and norms gave outputs that
    # differ by 5.5 rounding units, and attributions of exactly zero.
    unit = float(np.finfo(dtype).eps)
    out, reference = np.array([[1.0 + units * unit]]), np.array([[1.0]])
    kept = checked_gap(out - reference, out, reference, unit, None)
    assert_array_equal(kept, out - reference)
    with pytest.raises(UnsupportedModelError, match="attributions that sum"):
        checked_gap(np.array([[0.2]]), np.array([[2.0]]), reference, unit, None)


def test_every_output_is_judged_by_itself() -> None:
    """A residual that is nothing beside a large output may be all of a small one."""

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([1e8 * self.line(x), torch.sin(x[:, 1:])], 1)

    torch.manual_seed(0)
    net = Two().double()
    X, B = torch.randn(3, 2).double(), torch.randn(4, 2).double()
    with pytest.raises(UnsupportedModelError, match="bypasses"):
        deep_shap(net, X, B, layer="line")

    def mixes_rows(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([1e8 * x[:, 0], x[:, 1] * x[:, 1].mean()], 1)

    with pytest.raises(UnsupportedModelError, match="mixes rows"):
        deep_shap(mixes_rows, X, B)


def test_rows_that_the_model_ran_on_are_counted() -> None:
    class Counting(torch.nn.Module):
        rows = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.rows += len(x)
            return torch.tanh(x).sum(1)

    for n, size, batch_size in ((60, 60, 10), (60, 30, 10), (7, 5, 256)):
        net = Counting()
        given = torch.randn(n, 3), torch.randn(size, 3)
        found = deep_shap(net, *given, batch_size=batch_size)
        # Batches are padded by a few rows, so that their axis can be told by its size.
        padding = 2 * (1 + min(n, size) // batch_size)
        assert found.info["evaluations"] <= net.rows <= found.info["evaluations"] + padding


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "0:1"}, "number below that of its calls"),
        ({"layer": "0:x"}, "name:number"),
        ({"outputs": 2.0}, "outputs: expected indices"),
        ({"outputs": True}, "outputs: expected indices"),
        ({"outputs": 0, "output_names": ["a", "b"]}, "output_names: expected None"),
    ],
)
def test_arguments_that_were_dropped_or_crashed(options: dict, message: str) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    with pytest.raises(ValueError, match=message):
        deep_shap(net, torch.randn(2, 2), torch.randn(2, 2), **options)


def test_inputs_by_name_have_names_by_name() -> None:
    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a[:, 0] * b[:, 0]

    X = {"a": torch.randn(3, 1), "b": torch.randn(3, 1)}
    found = deep_shap(product, X, X, feature_names={"a": ["p"]})
    assert found["a"].feature_names == ("p",)
    for names in (["p", "q"], {"a": ["p"], "c": ["q"]}):
        with pytest.raises(ValueError, match="feature_names: expected a dict"):
            deep_shap(product, X, X, feature_names=names)
    with pytest.raises(ValueError, match="X: expected at least one input"):
        deep_shap(product, {}, {})
