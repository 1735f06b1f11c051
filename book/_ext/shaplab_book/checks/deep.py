"""Checks of the exercises of the part *deep*."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import shaplab
from shaplab_book.checking import expect

__all__ = [
    "ex_dasp_moments",
    "ex_dasp_relu",
    "ex_exact_unit",
    "ex_graph_calls",
    "ex_graph_multiplier",
    "ex_integrated",
    "ex_pass_back",
    "ex_rescale_values",
    "ex_reveal",
    "ex_series",
    "ex_stepwise_blocks",
    "ex_triple_product",
    "ex_weighted_references",
]


def relu(z: Any) -> Any:
    """Return the positive part; of numbers and of arrays."""
    return np.maximum(z, 0.0)


def ex_rescale_values(answer: Callable[..., Any]) -> None:
    """``rescale_values(layers, f, b)``: the derivative on the explained row for the multiplier."""
    hint = "A unit's multiplier is the change of its output over the change of its input"
    rng = np.random.default_rng(0)
    for sizes in ((2, 1), (3, 4, 1), (4, 6, 5, 1)):
        layers = [
            (rng.normal(size=(after, before)), rng.normal(size=after))
            for before, after in itertools.pairwise(sizes)
        ]
        f, b = rng.normal(size=(2, sizes[0]))
        same = f.copy()
        same[0] = b[0]
        for name, row in (("two rows", f), ("one feature the same", same), ("the same row", b)):
            wanted = _rescale_by_units(layers, row, b)
            expect(f"layers {sizes}, {name}", answer(layers, row, b), wanted, 1e-10, hint)
    one = [(np.eye(2), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))]
    got = answer(one, np.array([3.0, -1.0]), np.array([-1.0, -2.0]))
    expect("a unit that opens and one that stays shut", got, [3.0, 0.0], 1e-12, hint)


def _rescale_by_units(layers: list[Any], f: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the attributions, one unit after the other, from the output back."""
    rows = [(f, b)]
    for W, bias in layers[:-1]:
        there, here = rows[-1]
        rows.append((relu(W @ there + bias), relu(W @ here + bias)))
    multiplier = layers[-1][0][0]
    for (W, bias), (there, here) in zip(layers[-2::-1], rows[-2::-1], strict=True):
        passed = np.zeros(len(there))
        for unit, weights in enumerate(W):
            z_f = weights @ there + bias[unit]
            z_b = weights @ here + bias[unit]
            slope = float(z_b > 0) if z_f == z_b else (relu(z_f) - relu(z_b)) / (z_f - z_b)
            passed += multiplier[unit] * slope * weights
        multiplier = passed
    return multiplier * (f - b)


def ex_triple_product(answer: Callable[..., Any]) -> None:
    """``triple_product(f, b)``: the mean of the others' two products, without the mixed ones."""
    hint = "The others are both new, both old, or one of each: weights 2, 2, 1 and 1 of 6"
    rng = np.random.default_rng(0)
    cases = [([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]), ([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])]
    cases += [(rng.normal(size=3).tolist(), rng.normal(size=3).tolist()) for _ in range(3)]
    cases.append(([2.0, 5.0, -1.0], [2.0, 0.0, 3.0]))
    for f, b in cases:
        truth = shaplab.shapley_values(lambda S, f=f, b=b: np.where(S, f, b).prod(axis=1), 3)
        name = f"f = {np.round(f, 2).tolist()}, b = {np.round(b, 2).tolist()}"
        expect(name, answer(np.array(f), np.array(b)), truth, 1e-10, hint)


def ex_weighted_references(answer: Callable[..., Any]) -> None:
    """``weighted_values(explain, x, background, weights)``: a sum with weights that sum to more."""
    hint = "Explain against each row; the weighted mean divides by the sum of the weights"
    rng = np.random.default_rng(0)

    def explain(x: np.ndarray, b: np.ndarray) -> np.ndarray:
        # The values of the product of two factors.
        return (x - b) * (x + b)[::-1] / 2

    for rows in (1, 2, 5):
        x = rng.normal(size=2)
        background = rng.normal(size=(rows, 2))
        for weights in (
            np.ones(rows),
            rng.uniform(0.5, 4.0, rows),
            np.arange(rows) + 0.0 + (rows == 1),
        ):
            total = np.zeros(2)
            for b, weight in zip(background, weights, strict=True):
                total += weight * explain(x, b)
            name = f"{rows} references with the weights {np.round(weights, 1).tolist()}"
            got = answer(explain, x, background, weights)
            expect(name, got, total / weights.sum(), 1e-12, hint)


def ex_integrated(answer: Callable[..., Any]) -> None:
    """``integrated(gradient, x, b, steps)``: the mean slope, without the way from b to x."""
    hint = "Mean gradient at the middles of the steps, times (x - b)"
    rng = np.random.default_rng(0)
    x, b = rng.normal(size=(2, 3))

    def of_squares(row: np.ndarray) -> np.ndarray:
        return 2 * row

    def of_product(row: np.ndarray) -> np.ndarray:
        return np.array([row[1], row[0], 0.0])

    for steps in (1, 2, 7):
        expect(
            f"squares and {steps} steps", answer(of_squares, x, b, steps), x**2 - b**2, 1e-12, hint
        )
        wanted = np.array([(x[0] - b[0]) * (x[1] + b[1]), (x[1] - b[1]) * (x[0] + b[0]), 0.0]) / 2
        expect(f"a product and {steps} steps", answer(of_product, x, b, steps), wanted, 1e-12, hint)
    got = answer(np.exp, x, b, 2)
    middles = np.exp(b + 0.25 * (x - b)) + np.exp(b + 0.75 * (x - b))
    expect("exponentials and 2 steps", got, (x - b) * middles / 2, 1e-12, hint)
    expect("a row against itself", answer(np.exp, b, b, 3), np.zeros(3), 1e-12, hint)


def ex_reveal(answer: Callable[..., Any]) -> None:
    """``reveal(g, c, start, t)``: each group as if it came first, without the other order."""
    hint = "A group's share is the mean of what it adds first and last; then in proportion to c"
    from shaplab.deep.rules import reveal_cancel_literal

    rng = np.random.default_rng(0)
    for n in (1, 2, 5):
        c = rng.normal(size=n) * 3
        for t in (0.0, float(c.mean()), -10.0):
            for start in (-1.0, 2.0):
                wanted = reveal_cancel_literal(relu, np.ones(n), c, np.zeros(n), t, bias=start)
                name = f"c = {c.round(1).tolist()}, start {start:.0f}, t = {t:.2f}"
                expect(name, answer(relu, c, start, t), wanted, 1e-10, hint)
    got = answer(relu, np.array([2.0, 0.0, 0.0]), 0.0, 0.0)
    expect("a group of zeros", got, [2.0, 0.0, 0.0], 1e-12, hint)


def ex_exact_unit(answer: Callable[..., Any]) -> None:
    """``exact_unit(g, c, start)``: the same weight for all coalitions, as Banzhaf has it."""
    hint = "A coalition of s others has the weight 1 / (n binom(n - 1, s))"
    rng = np.random.default_rng(0)
    for n in (1, 2, 4, 8):
        for g in (relu, np.tanh):
            c = rng.normal(size=n) * 2
            start = float(rng.normal())
            wanted = shaplab.shapley_values(lambda S, g=g, c=c, start=start: g(start + S @ c), n)
            expect(f"{g.__name__} of {n} contributions", answer(g, c, start), wanted, 1e-10, hint)


def ex_pass_back(answer: Callable[..., Any]) -> None:
    """``pass_back(worth, change, inner)``: dividing by a change of 0."""
    hint = "Worth over change for each output, 0 where it did not move; then add over the outputs"
    rng = np.random.default_rng(0)
    for d, K in ((1, 1), (3, 2), (2, 5)):
        inner = rng.normal(size=(d, K))
        change = inner.sum(axis=0)
        worth = rng.normal(size=K)
        wanted = sum(worth[k] / change[k] * inner[:, k] for k in range(K))
        expect(f"{d} inputs and {K} outputs", answer(worth, change, inner), wanted, 1e-10, hint)
    inner = np.array([[1.0, 2.0], [-1.0, 2.0]])
    got = answer(np.array([0.0, 8.0]), np.array([0.0, 4.0]), inner)
    expect("an output that did not move", got, [4.0, 4.0], 1e-12, hint)


def ex_series(answer: Callable[..., Any]) -> None:
    """``series(first, second, x, references)``: a mean of multipliers times a mean of values."""
    hint = "Take one reference at a time through both stages, and the mean last"
    rng = np.random.default_rng(0)

    def first(X: np.ndarray) -> np.ndarray:
        return np.stack([X[:, 0] * X[:, -1], np.tanh(X.sum(axis=1))], axis=1)

    def second(H: np.ndarray) -> np.ndarray:
        return H[:, 0] * H[:, 1] + relu(H[:, 0])

    for d in (1, 3):
        for rows in (1, 4):
            x = rng.normal(size=d)
            references = rng.normal(size=(rows, d))
            wanted = np.zeros(d)
            for r in references:
                h_x, h_r = first(x[None])[0], first(r[None])[0]
                worth = shaplab.shapley_values(
                    lambda S, h_x=h_x, h_r=h_r: second(np.where(S, h_x, h_r)), 2
                )
                inner = shaplab.shapley_values(lambda S, x=x, r=r: first(np.where(S, x, r)), d)
                wanted += inner @ (worth / (h_x - h_r)) / rows
            got = answer(first, second, x, references)
            expect(f"{d} inputs and {rows} references", got, wanted, 1e-9, hint)


def ex_graph_multiplier(answer: Callable[..., Any]) -> None:
    """``chord(g, f, b)``: 0 divided by 0 where the two rows agree."""
    import torch

    hint = "Where f equals b it is the derivative, elsewhere the change of g over the change"
    f = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.2, -1.0]], dtype=torch.float64)
    b = torch.tensor([[-1.0, -1.0, 0.5], [1.0, 0.2, -1.0]], dtype=torch.float64)
    functions: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "tanh": (torch.tanh, lambda z: 1 - torch.tanh(z) ** 2),
        "exp": (torch.exp, torch.exp),
        "relu": (torch.relu, lambda z: (z > 0).to(z.dtype)),
        "a square": (torch.square, lambda z: 2 * z),
    }
    for name, (g, derivative) in functions.items():
        wanted = torch.where(f == b, derivative(b), (g(f) - g(b)) / torch.where(f == b, 1.0, f - b))
        expect(f"{name}, rows that agree in places", answer(g, f, b).detach(), wanted, 1e-12, hint)
        expect(
            f"{name}, a row against itself", answer(g, b, b).detach(), derivative(b), 1e-12, hint
        )


def ex_graph_calls(answer: Callable[..., Any]) -> None:
    """``count_calls(model, *inputs)``: counting modules, which misses calls of functions."""
    import torch
    import torch.nn.functional as F

    hint = "Ask a TorchFunctionMode, and count the name of every function it sees"
    x = torch.ones(2, 3)
    calls: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, int]]] = {
        "one call": (torch.tanh, (x,), {"tanh": 1}),
        "the same call three times": (
            lambda t: torch.tanh(torch.tanh(torch.tanh(t))),
            (x,),
            {"tanh": 3},
        ),
        "functions of two inputs": (
            lambda s, t: torch.matmul(torch.relu(s), torch.exp(t)),
            (x, x.T),
            {"relu": 1, "exp": 1, "matmul": 1},
        ),
        "no call": (lambda t: t, (x,), {}),
        "a layer called as a function": (
            lambda t: F.linear(t, torch.eye(3)),
            (x,),
            {"linear": 1, "eye": 1},
        ),
    }
    for name, (model, inputs, wanted) in calls.items():
        expect(name, dict(answer(model, *inputs)), wanted, hint=hint)


def ex_stepwise_blocks(answer: Callable[..., Any]) -> None:
    """``block_values(game, n, sizes)``: the change of a whole block shared evenly in it."""
    hint = "In each block the Shapley values of the block's own game; then the mean over orderings"
    rng = np.random.default_rng(0)
    for sizes in ((2, 1), (1, 1, 1), (2, 2), (1, 3), (5,)):
        n = sum(sizes)
        worth = rng.normal(size=2**n)
        bits = 2 ** np.arange(n)

        def game(S: Any, worth: Any = worth, bits: Any = bits) -> Any:
            return worth[np.asarray(S, dtype=bool) @ bits]

        wanted = shaplab.shapley_values(game, n)
        expect(f"{n} players in blocks of {sizes}", answer(game, n, sizes), wanted, 1e-10, hint)


def ex_dasp_moments(answer: Callable[..., Any]) -> None:
    """``all_moments(c)``: the variance of draws with replacement, without the last factor."""
    hint = "Without the player itself; nothing is random when all others are in"
    rng = np.random.default_rng(0)
    for c in (np.array([2.0, 5.0]), np.array([1.0, -2.0, 3.0]), rng.normal(size=6), np.ones(4)):
        n = len(c)
        wanted = np.zeros((2, n, n))
        for i in range(n):
            for k in range(n):
                sums = [sum(part) for part in itertools.combinations(np.delete(c, i), k)]
                wanted[:, i, k] = np.mean(sums), np.var(sums)
        means, variances = answer(c)
        name = f"c = {c.round(2).tolist()}"
        expect(f"the means of {name}", means, wanted[0], 1e-10, hint)
        expect(f"the variances of {name}", variances, wanted[1], 1e-10, hint)


def ex_dasp_relu(answer: Callable[..., Any]) -> None:
    """``relu_mean(mu, v)``: taking the variance for the standard deviation."""
    from scipy.stats import norm

    hint = "mu Phi(mu / s) + s phi(mu / s) with s the root of v; without chance the ReLU of mu"
    mu = np.array([-3.0, -1.0, 0.0, 0.2, 1.5, 6.0])
    for v in (0.25, 1.0, 4.0):
        # Midpoints of probability: the mean over 200,000 equally likely values.
        z = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
        wanted = relu(mu[:, None] + np.sqrt(v) * z).mean(axis=1)
        expect(f"the variance {v}", answer(mu, np.full(6, v)), wanted, 1e-4, hint)
    expect("no variance", answer(mu, np.zeros(6)), relu(mu), 1e-12, hint)
    mixed = answer(np.array([-1.0, 0.0]), np.array([0.0, 1.0]))
    expect("variances 0 and 1", mixed, [0.0, 1 / np.sqrt(2 * np.pi)], 1e-12, hint)
