"""DeepSHAP: additive on every network, exact where it must be, and what Theorem 1 says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn as nn
from numpy.testing import assert_allclose, assert_array_equal
from oracles.nets import Linear, Net, brute_force, networks

from shaplab.deep.deep_shap import deep_shap
from shaplab.deep.rules import reveal_cancel_literal

NAMES = list(networks())
RULES = ("rescale", "reveal_cancel", "reveal_cancel_mean")


def _case(
    name: str, dtype: torch.dtype, n: int = 3, size: int = 5
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model, shape = networks()[name]
    return (
        model.to(dtype),
        torch.randn(n, *shape, dtype=dtype),
        torch.randn(size, *shape, dtype=dtype),
    )


@pytest.mark.parametrize("name", NAMES)
def test_attributions_sum_to_the_change_of_output(name: str) -> None:
    for dtype, bound in (
        (torch.float32, 1e-5),
        (torch.float64, 1e-12),
    ):  # the bounds that this part promises
        model, X, B = _case(name, dtype)
        for rule in RULES:
            for max_rule in ("exact", "cross"):
                found = deep_shap(model, X, B, rule=rule, max_rule=max_rule)
                out, base = (model(t).detach().double().numpy() for t in (X, B))
                axes = tuple(range(1, X.dim()))
                total = found.values.sum(axes).reshape(len(X), -1) + base.reshape(len(B), -1).mean(
                    0
                )
                assert np.abs(total - out.reshape(len(X), -1)).max() <= bound * np.abs(out).max()
                assert found.values.shape == tuple(X.shape) + out.shape[1:]
                assert np.abs(found.info["gap"]).max() <= bound * found.info["scale"]


@pytest.mark.parametrize(
    "name",
    [
        "functional residual",
        "overlapping pool",
        "folded rows",
        "sequence-first LSTM",
        "bi-LSTM",
        "transformer layer",
        "norms and adaptive pools",
        "grouped conv1d",
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_background_is_a_mean_of_single_references(name: str, rule: str) -> None:
    model, X, B = _case(name, torch.float64)
    single = np.mean(
        [deep_shap(model, X[:2], B[i : i + 1], rule=rule).values for i in range(5)], axis=0
    )
    whole = deep_shap(model, X[:2], B, rule=rule).values
    # Same operations in another order of batches: rounding only.
    assert_allclose(whole, single, atol=1e-12)
    for n, size in ((3, 3), (1, 5), (3, 1), (1, 1)):
        one = deep_shap(model, X[:1], B[:size], rule=rule).values
        assert_allclose(deep_shap(model, X[:n], B[:size], rule=rule).values[:1], one, atol=1e-12)
        assert_allclose(
            one,
            np.mean([deep_shap(model, X[:1], r[None], rule=rule).values for r in B[:size]], axis=0),
            atol=1e-12,
        )
    assert_allclose(deep_shap(model, X[:2], B, rule=rule, batch_size=2).values, whole, atol=1e-12)
    swapped = deep_shap(model, B[:1], X[:1], rule=rule).values
    if (
        rule == "rescale"
        # the two thresholded rules send contributions equal to the threshold down in both
        # directions
    ):
        assert_allclose(swapped, -deep_shap(model, X[:1], B[:1], rule=rule).values, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_equal_inputs_get_exactly_nothing(name: str) -> None:
    model, X, _ = _case(name, torch.float32)
    B = X[:1].clone()
    B.reshape(-1)[1::2] += 1.0
    for rule in RULES:
        phi = deep_shap(model, X[:1], B, rule=rule).values.reshape(X[:1].numel(), -1)
        assert_array_equal(phi[0::2], 0.0)
    assert_array_equal(deep_shap(model, X[:1], X[:1], max_rule="cross").values, 0.0)


class TestExact:
    """Networks whose attributions are Shapley values, by enumeration of all coalitions."""

    @staticmethod
    def check(model: nn.Module, d: int, rule: str = "rescale", **options: str) -> None:
        model = model.double().eval()
        X, B = torch.randn(3, d, dtype=torch.float64), torch.randn(4, d, dtype=torch.float64)
        exact = np.mean([[brute_force(model, x, r).numpy() for r in B] for x in X], axis=1)
        found = deep_shap(model, X, B, rule=rule, **options).values.reshape(exact.shape)
        assert_allclose(found, exact, atol=1e-12)

    def test_linear_network(self) -> None:
        torch.manual_seed(1)
        for rule in RULES:
            self.check(nn.Sequential(Linear(6, 4), Linear(4, 3), Linear(3, 1)), 6, rule)

    @pytest.mark.parametrize("g", [torch.relu, torch.tanh, torch.nn.functional.gelu, torch.exp])
    def test_one_function_of_each_input(self, g: object) -> None:
        torch.manual_seed(2)
        self.check(Net(lambda n, x: n.c(g(x * 2 - 0.3)), c=Linear(5, 1)), 5)  # type: ignore[operator]

    def test_one_maximum(self) -> None:
        torch.manual_seed(3)
        self.check(Net(lambda n, x: x.amax(1)), 6)
        self.check(Net(lambda n, x: nn.functional.max_pool1d(x[:, None], 3, 3).sum((1, 2))), 6)
        with pytest.raises(AssertionError):
            self.check(
                Net(lambda n, x: x.amax(1)), 6, max_rule="cross"
            )  # the cheap rule is cheap for a reason

    def test_one_product(self) -> None:
        torch.manual_seed(4)
        self.check(Net(lambda n, x: (x[:, :3] * x[:, 3:]).sum(1)), 6)
        self.check(Net(lambda n, x: torch.tanh(x[:, 0]) / (1 + x[:, 1] ** 2)), 2)

    def test_two_player_units(self) -> None:
        torch.manual_seed(5)
        self.check(
            Net(lambda n, x: torch.maximum(x[:, 0], x[:, 1]) + torch.atan2(x[:, 2], x[:, 3])), 4
        )

    def test_two_inputs_of_opposite_contribution(self) -> None:
        model = nn.Sequential(Linear(2, 1), nn.ReLU()).double()
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[1.0, -1.0]]))
        X, B = (
            torch.tensor([[3.0, 2.0]], dtype=torch.float64),
            torch.tensor([[-1.0, -0.5]], dtype=torch.float64),
        )
        exact = brute_force(model, X[0], B[0]).numpy()
        for rule in RULES[1:]:
            assert_allclose(deep_shap(model, X, B, rule=rule).values[0, :, 0], exact, atol=1e-14)
        assert (
            np.abs(deep_shap(model, X, B).values[0, :, 0] - exact).max() > 0.1
        )  # Rescale cannot see the cancellation


@pytest.mark.parametrize("rule", ["reveal_cancel", "reveal_cancel_mean"])
def test_fused_rules_equal_their_literal_twin(rule: str) -> None:
    torch.manual_seed(6)
    for conv in (False, True):
        layer: nn.Module = nn.Conv1d(4, 6, 4, groups=2) if conv else Linear(4, 3)
        norm = nn.BatchNorm1d(6 if conv else 3)
        norm.running_var.uniform_(0.5, 2.0)
        norm.weight.data.uniform_(-1.0, 1.0)
        model = (
            nn.Sequential(
                layer, norm, nn.Tanh(), nn.Flatten(), Linear(6 if conv else 3, 1, bias=False)
            )
            .double()
            .eval()
        )
        X, B = (
            torch.randn(2, *((4, 4) if conv else (4,)), dtype=torch.float64),
            torch.randn(3, *((4, 4) if conv else (4,)), dtype=torch.float64),
        )
        found = deep_shap(model, X, B, rule=rule).values.reshape(2, -1)
        weight = layer.weight.detach()
        if conv:  # a dense matrix of the same map: 6 units of 2 channels x 4 taps each
            dense = torch.zeros(6, 4, 4, dtype=torch.float64)
            dense[:3, :2], dense[3:, 2:] = weight[:3], weight[3:]
            mine = [slice(0, 8)] * 3 + [slice(8, 16)] * 3
            weight = dense.reshape(6, 16)
        else:
            mine = [slice(0, 4)] * 3
        scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
        head = model[4].weight.detach()[0]
        for n, x in enumerate(X.reshape(2, -1)):
            expected = np.zeros(x.numel())
            for r in B.reshape(3, -1):
                bias = (
                    model[:2](r.reshape(1, *X.shape[1:])).detach().reshape(-1)
                    - (weight * scale[:, None]) @ r
                )
                for j in range(len(weight)):
                    expected[mine[j]] += (
                        float(head[j])
                        * reveal_cancel_literal(
                            np.tanh,
                            (weight[j] * scale[j])[mine[j]].numpy(),
                            x[mine[j]].numpy(),
                            r[mine[j]].numpy(),
                            "mean" if rule.endswith("mean") else 0.0,
                            float(bias[j]),
                        )
                        / 3
                    )
            assert_allclose(
                found[n], expected, atol=1e-9
            )  # the twin's slopes are differences, good to 1e-10


def test_errors_of_the_rules_on_random_networks_are_known() -> None:
    """Rules approximate the Shapley values of a deep network: how far, on 10 features, is written
    here."""
    errors = {rule: [] for rule in RULES}
    for seed in range(6):
        torch.manual_seed(seed)
        model = nn.Sequential(
            Linear(10, 16), nn.ReLU(), Linear(16, 8), nn.ReLU(), Linear(8, 1)
        ).double()
        X, B = torch.randn(2, 10, dtype=torch.float64), torch.randn(3, 10, dtype=torch.float64)
        exact = np.mean([[brute_force(model, x, r).numpy() for r in B] for x in X], axis=1)
        for rule in RULES:
            errors[rule].append(
                np.abs(deep_shap(model, X, B, rule=rule, outputs=0).values - exact).mean()
                / np.abs(exact).mean()
            )
    means = {rule: float(np.mean(values)) for rule, values in errors.items()}
    assert all(0.01 < value < 0.5 for value in means.values()), means


def test_inputs_of_every_kind() -> None:
    torch.manual_seed(7)
    model = nn.Sequential(Linear(3, 4), nn.ReLU(), Linear(4, 2))
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(4, 3)), columns=list("abc"))
    named = deep_shap(model, X, X.iloc[:2], output_names=["u", "v"])
    assert named.names == ("a", "b", "c")
    assert_array_equal(named.values, deep_shap(model, X.to_numpy(), X.to_numpy()[:2]).values)
    assert_array_equal(deep_shap(model, X, X[:2], outputs=1).values, named.values[..., 1])
    assert_allclose(
        deep_shap(model, [[1, 2, 3]], [[0, 0, 1]]).values,
        deep_shap(model, [[1.0, 2, 3]], [[0.0, 0, 1]]).values,
    )
    two = Net(lambda n, a, b: n.l(torch.relu(torch.cat([a, b.flatten(1)], 1))), l=Linear(7, 1))
    parts = deep_shap(
        two, (torch.randn(3, 3), torch.randn(3, 2, 2)), (torch.randn(2, 3), torch.randn(2, 2, 2))
    )
    assert isinstance(parts, tuple)
    assert [part.values.shape for part in parts] == [(3, 3, 1), (3, 2, 2, 1)]
    assert_allclose(parts[0].prediction, parts[1].prediction, atol=1e-6)
    half = nn.Sequential(Linear(3, 8), nn.GELU(), Linear(8, 1)).to(torch.bfloat16)
    found = deep_shap(half, torch.randn(3, 3).bfloat16(), torch.randn(4, 3).bfloat16())
    assert found.values.dtype == np.float64
    assert np.abs(found.info["gap"]).max() < 0.05 * found.info["scale"]  # bfloat16 has 3 digits


def test_integers_are_explained_at_the_embedding() -> None:
    torch.manual_seed(8)

    def run(net: Net, tokens: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        words = net.e(tokens[:, :4].long())
        city = net.f(tokens[:, 4])
        return net.l(torch.relu(torch.cat([words.flatten(1), city, numbers], 1)))

    model = Net(run, e=nn.Embedding(9, 3), f=nn.Embedding(5, 2), l=Linear(17, 1)).double()
    rng = np.random.default_rng(0)
    tokens, numbers = (
        torch.tensor(rng.integers(0, 5, (8, 5))),
        torch.tensor(rng.normal(size=(8, 3))),
    )
    rows, others = (tokens[:3], numbers[:3]), (tokens[3:], numbers[3:])
    ids, values = deep_shap(model, rows, others, outputs=0)
    assert ids.values.shape == (3, 5)
    gap = (
        model(tokens[:3], numbers[:3]).detach().numpy()[:, 0]
        - ids.base_values
        - ids.values.sum(1)
        - values.values.sum(1)
    )
    assert_allclose(gap, 0.0, atol=1e-14)
    # One linear map of embeddings: the value of a token is the change that it makes alone.
    lone = Net(lambda n, t: n.l(n.e(t).sum(1)), e=nn.Embedding(9, 3), l=Linear(3, 1)).double()
    found = deep_shap(lone, tokens[:2, :4], tokens[3:4, :4], outputs=0).values
    for i in range(4):
        changed = tokens[3:4, :4].repeat(2, 1)
        changed[:, i] = tokens[:2, i]
        assert_allclose(
            found[:, i], (lone(changed) - lone(tokens[3:4, :4])).detach().numpy()[:, 0], atol=1e-14
        )


def test_layer_attributions() -> None:
    torch.manual_seed(9)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), Linear(72, 3)
    ).double()
    X, B = (
        torch.randn(2, 1, 8, 8, dtype=torch.float64),
        torch.randn(4, 1, 8, 8, dtype=torch.float64),
    )
    at_conv = deep_shap(model, X, B, layer="0")
    rest = deep_shap(model[1:], model[0](X).detach(), model[0](B).detach())
    assert_allclose(at_conv.values, rest.values, atol=1e-14)
    assert at_conv.values.shape == (2, 2, 6, 6, 3)
    with pytest.raises(ValueError, match="layer: expected"):
        deep_shap(model, X, B, layer="nope")
    twice = Net(
        lambda n, x: n.c(torch.tanh(n.a(torch.tanh(n.a(x))))), a=Linear(3, 3), c=Linear(3, 1)
    ).double()
    x, b = torch.randn(2, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    after = Net(lambda n, h: n.c(torch.tanh(h)), c=twice.c)
    z = [twice.a(torch.tanh(twice.a(t))).detach() for t in (x, b)]
    assert_allclose(
        deep_shap(twice, x, b, layer="a:1").values, deep_shap(after, *z).values, atol=1e-14
    )
    with pytest.raises(ValueError, match="layer: expected"):
        deep_shap(twice, x, b, layer="a:2")


def test_work_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows forward: N + B, not N B; a bar only when asked for."""
    seen = []
    model = Net(lambda n, x: (seen.append(len(x)), n.c(torch.tanh(x)))[1], c=Linear(3, 2))
    X, B = torch.randn(6, 3), torch.randn(50, 3)
    found = deep_shap(model, X, B)
    assert sum(seen) == 56
    assert capsys.readouterr().err == ""
    shown = deep_shap(model, X, B, outputs=[1, 0], progress=True)
    assert "deep_shap" in capsys.readouterr().err
    assert_array_equal(shown.values, found.values[..., ::-1])


def test_names_beside_a_layer_are_refused():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1)).eval()
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="feature_names: expected None beside layer"):
        deep_shap(net, x, x + 1, layer="1", feature_names=["a", "b", "c"])
