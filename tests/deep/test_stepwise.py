"""Walks of a few steps, each shared out by the rules.

Oracles: the literal twin, enumeration, and games whose every block is counted exactly.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from oracles.nets import brute_force

from shaplab import deep_shap, shapley_values, stepwise_deep_shap
from shaplab._validation import UnsupportedModelError
from shaplab.deep.stepwise import stepwise_deep_shap_literal


def _network(inputs: int = 5, outputs: int = 1, gain: float = 2.0) -> torch.nn.Module:
    torch.manual_seed(3)
    net = torch.nn.Sequential(
        torch.nn.Linear(inputs, 12),
        torch.nn.Tanh(),
        torch.nn.Linear(12, 8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, outputs),
    ).double()
    with torch.no_grad():
        net[0].weight.mul_(gain)
    return net


def _rows(count: int, width: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_the_literal_walks(steps: int) -> None:
    net = _network()
    x, reference = _rows(1), _rows(1, seed=1)
    found = stepwise_deep_shap(net, x, reference, steps=steps, orderings=6, rng=7)
    drawn = np.random.default_rng(7).permuted(np.tile(np.arange(5), (3, 1)), axis=1)
    both = np.concatenate([drawn, drawn[:, ::-1]]).copy()
    literal = stepwise_deep_shap_literal(net, x, reference, both, steps)
    assert_allclose(found.values[0, :, 0], literal, atol=1e-12)  # rounding of float64
    assert_allclose(found.values.sum(1), (net(x) - net(reference)).detach(), atol=1e-12)


def test_if_every_step_were_exact_the_mean_would_be() -> None:
    """The theorem, on a game of numbers: exact values of each block, mean over all orderings."""
    n = 4
    table = np.random.default_rng(0).normal(size=2**n)
    bits = 2 ** np.arange(n)

    def game(coalitions: np.ndarray) -> np.ndarray:
        return table[coalitions @ bits]

    exact = shapley_values(game, n)
    for steps in (1, 2, 3, 4):
        total = np.zeros(n)
        count = 0
        for ordering in permutations(range(n)):
            present = np.zeros(n, dtype=bool)
            for block in np.array_split(np.array(ordering), steps):
                start = present.copy()

                def step(some: np.ndarray, start: Any = start, block: Any = block) -> np.ndarray:
                    coalitions = np.tile(start, (len(some), 1))
                    coalitions[:, block] = some
                    return game(coalitions)

                total[block] += shapley_values(step, len(block))
                present[block] = True
            count += 1
        assert_allclose(total / count, exact, atol=1e-12)


def test_one_step_is_deep_shap() -> None:
    net, X, B = _network(outputs=3), _rows(3), _rows(4, seed=1)
    for rule in ("rescale", "reveal_cancel_mean"):
        for outputs in (None, 1, [2, 0]):
            once = deep_shap(net, X, B, rule=rule, outputs=outputs)
            found = stepwise_deep_shap(
                net, X, B, steps=1, orderings=2, rule=rule, outputs=outputs, rng=0
            )
            assert_allclose(found.values, once.values, atol=1e-12)
            assert_allclose(found.base_values, once.base_values, atol=1e-12)
            assert found.values.shape == once.values.shape


def test_as_many_steps_as_features_have_no_bias_and_honest_errors() -> None:
    net, x, reference = _network(gain=6.0), _rows(1), _rows(1, seed=1)
    exact = brute_force(net, x[0], reference[0]).detach().numpy().reshape(-1)
    inside = []
    for seed in range(60):
        found = stepwise_deep_shap(net, x, reference, steps=5, orderings=40, rng=seed)
        inside.append(np.abs(found.values[0, :, 0] - exact) <= 1.96 * found.std[0, :, 0])
    # 300 intervals from 20 pairs: 93.5% by Student's law with 19 degrees; 3 standard errors of a
    # share are .04.
    assert 0.89 <= np.mean(inside) <= 0.98


def test_two_steps_are_nearer_than_one() -> None:
    errors: list[list[float]] = []
    for seed in range(12):
        net = _network(gain=4.0)
        x, reference = _rows(1, seed=2 * seed), _rows(1, seed=2 * seed + 1)
        exact = brute_force(net, x[0], reference[0]).detach().numpy().reshape(-1)
        once = deep_shap(net, x, reference).values[0, :, 0]
        found = stepwise_deep_shap(net, x, reference, rng=0).values[0, :, 0]
        errors.append([float(np.abs(v - exact).mean()) for v in (once, found)])
    once_error, steps_error = np.mean(errors, axis=0)
    assert steps_error < 0.8 * once_error


def test_a_product_is_exact_in_any_number_of_steps() -> None:
    def product(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] * x[:, 1]

    x, reference = torch.tensor([[3.0, 2.0]]), torch.tensor([[0.0, 1.0]])
    for steps in (1, 2, 3):
        found = stepwise_deep_shap(product, x, reference, steps=steps, orderings=2, rng=0)
        assert_allclose(found.values, deep_shap(product, x, reference).values, atol=1e-6)


def test_features_that_do_not_change_are_no_steps() -> None:
    net, x = _network(), _rows(1)
    reference = x.clone()
    reference[0, [1, 3]] -= 1.0
    found = stepwise_deep_shap(net, x, reference, steps=4, rng=0)
    assert_array_equal(found.values[0, [0, 2, 4], 0], 0.0)
    exact = brute_force(net, x[0], reference[0]).detach().numpy().reshape(-1)
    assert_allclose(found.values[0, :, 0], exact, atol=1e-12)  # two players: a walk and its reverse
    same = stepwise_deep_shap(net, x, x, rng=0)
    assert_array_equal(same.values, 0.0)
    assert_array_equal(same.std, 0.0)


def test_batches_and_rows_do_not_change_the_draws() -> None:
    net, X, B = _network(outputs=2), _rows(3), _rows(4, seed=1)
    whole = stepwise_deep_shap(net, X, B, rng=5)
    for batch_size in (1, 3, 50):
        parts = stepwise_deep_shap(net, X, B, rng=5, batch_size=batch_size)
        assert_allclose(parts.values, whole.values, atol=1e-12)
        assert_allclose(parts.std, whole.std, atol=1e-12)
    assert whole.info["evaluations"] == 3 + 4 + 2 * 3 * 4 * 4 * 2


class _Words(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = torch.nn.Embedding(20, 6)
        self.layer = torch.nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True)
        self.last = torch.nn.Linear(6, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(self.table(ids)).mean(1))[:, 0]


def test_words_of_several_tokens_move_together() -> None:
    net = _Words().double().eval()
    ids, absent = torch.tensor([[3, 7, 8, 11, 2]]), torch.tensor([[1, 1, 1, 1, 2]])
    words = np.array([4, 9, 9, 5, 0])
    found = stepwise_deep_shap(net, ids, absent, players=words, steps=3, orderings=12, rng=0)
    by_word = np.array([found.values[0, words == word].sum() for word in (4, 9, 5)])
    groups = [[0], [1, 2], [3]]

    def game(coalitions: np.ndarray) -> np.ndarray:
        rows = absent.repeat(len(coalitions), 1)
        for place, group in enumerate(groups):
            rows[np.ix_(coalitions[:, place], group)] = ids[0, group]
        return net(rows).detach().numpy()

    exact = shapley_values(game, 3)
    # Three players in three steps: every step is exact; 12 of 6 orderings drawn leave noise.
    noise = 4 * np.sqrt((found.std[0] ** 2).sum()) + 1e-12
    assert_allclose(by_word, exact, atol=noise)
    alone = stepwise_deep_shap(net, ids, absent, players=np.zeros(5, int), rng=0)
    assert_allclose(alone.values, deep_shap(net, ids, absent).values, atol=1e-12)


def test_several_inputs_and_inputs_by_name() -> None:
    net = _network(4)

    def both(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return net(torch.cat([a, b], 1))[:, 0]

    X, B = _rows(2, 4), _rows(3, 4, seed=1)
    parts, others = (X[:, :1], X[:, 1:]), (B[:, :1], B[:, 1:])
    first, second = stepwise_deep_shap(both, parts, others, rng=0)
    assert_allclose(
        first.values.sum(1) + second.values.sum(1), first.prediction - first.base_values
    )
    named = stepwise_deep_shap(
        both, {"a": parts[0], "b": parts[1]}, {"a": others[0], "b": others[1]}, rng=0
    )
    assert_array_equal(named["b"].values, second.values)
    whole = stepwise_deep_shap(lambda x: net(x)[:, 0], X, B, rng=0)
    assert_allclose(np.hstack([first.values, second.values]), whole.values, atol=1e-12)


def test_nothing_else_is_changed() -> None:
    net, X = _network(), _rows(2)
    state = torch.get_rng_state()
    kept = X.clone()
    with torch.inference_mode():
        stepwise_deep_shap(net, X, X.flip(0))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(kept, X)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"orderings": 3}, "Pass 4"),
        ({"orderings": 0}, "orderings"),
        ({"players": [0, 1]}, r"players.*\(5,\)"),
        ({"players": np.linspace(0, 1, 5)}, "integers"),
        ({"rule": "lrp"}, "rule"),
        ({"rng": -1}, "rng"),
        ({"outputs": 4}, "outputs"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stepwise_deep_shap(_network(), _rows(1), _rows(1, seed=1), **options)


def test_a_hidden_step_is_refused() -> None:
    def hidden(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0] + torch.from_numpy(x.detach().numpy()[:, 1] * 2.0)

    with pytest.raises(UnsupportedModelError, match=r"hidden|numpy|explained"):
        stepwise_deep_shap(hidden, _rows(1), _rows(1, seed=1))
