"""Checks of the exercises of the part *shapnets*."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import shaplab
from shaplab_book.checking import expect

__all__ = [
    "ex_butterfly_pairs",
    "ex_cut",
    "ex_deep_values",
    "ex_fold",
    "ex_keep_share",
    "ex_module_layer",
    "ex_needed",
    "ex_pair_matrix",
    "ex_pair_transform",
    "ex_product_values",
    "ex_shrunk",
    "ex_window_values",
]

Module = tuple[tuple[int, int], Callable[[float, float], float]]


def ex_pair_transform(answer: Callable[..., Any]) -> None:
    """``pair_transform(f, x, r)``: what each feature adds when it comes last."""
    import torch

    hint = "2 phi_1 = [f(x1, x2) - f(r1, x2)] + [f(x1, r2) - f(r1, r2)]"
    functions: dict[str, Callable[[Any], Any]] = {
        "a product": lambda t: t[:, 0] * t[:, 1],
        "a sum": lambda t: t[:, 0] ** 2 + torch.sin(t[:, 1]),
        "a maximum": lambda t: t.amax(1),
    }
    generator = torch.Generator().manual_seed(0)
    for name, f in functions.items():
        for rows in (1, 5):
            x = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
            r = torch.randn(2, generator=generator, dtype=torch.float64)
            wanted = shaplab.shapley_transform(f, x, r)
            expect(f"{name} and {rows} rows", answer(f, x, r), wanted, 1e-12, hint)


def ex_module_layer(answer: Callable[..., Any]) -> None:
    """``module_layer(x, active_sets, functions, r)``: writing over what another module has paid."""
    import torch

    hint = "Add to the columns of the active set; features in no set keep 0"
    generator = torch.Generator().manual_seed(0)
    layers: list[tuple[int, list[tuple[int, ...]]]] = [
        (1, [(0,)]),
        (3, [(0, 1), (1, 2)]),
        (5, [(0, 1), (1, 2, 4), (2,), (4, 0)]),
    ]
    for players, active_sets in layers:
        x = torch.randn(4, players, generator=generator, dtype=torch.float64)
        r = torch.randn(players, generator=generator, dtype=torch.float64)
        functions: list[Callable[[Any], Any]] = [
            lambda t, place=place: torch.tanh(t.sum(1) + place) * t.prod(1)
            for place in range(len(active_sets))
        ]

        def total(
            t: Any,
            active_sets: list[tuple[int, ...]] = active_sets,
            functions: list[Callable[[Any], Any]] = functions,
        ) -> Any:
            parts = zip(active_sets, functions, strict=True)
            return sum(f(t[:, list(active)]) for active, f in parts)

        wanted = shaplab.shapley_transform(total, x, r)
        got = answer(x, active_sets, functions, r)
        expect(f"{players} features and the active sets {active_sets}", got, wanted, 1e-12, hint)


def ex_product_values(answer: Callable[..., Any]) -> None:
    """``product_values(Q, x, r)``: the halves of the products, right for the reference 0 only."""
    hint = "A feature adds (x_i - r_i) times the partner's reference or value, the mean of the two"
    rng = np.random.default_rng(0)
    for players in (1, 2, 3, 6):
        Q = np.triu(rng.normal(size=(players, players)), 1)
        x = rng.normal(size=players)
        for r in (np.zeros(players), rng.normal(size=players), x):

            def game(S: np.ndarray, Q: np.ndarray = Q, x: np.ndarray = x, r: Any = r) -> Any:
                rows = np.where(S, x, r)
                return np.einsum("mi,ij,mj->m", rows, Q, rows)

            name = f"{players} features and the reference {np.round(r, 2).tolist()}"
            wanted = shaplab.shapley_values(game, players)
            expect(name, answer(Q, x, r), wanted, 1e-12, hint)


def modules_and_points(players: int) -> tuple[list[Module], np.ndarray, np.ndarray]:
    """Return overlapping modules on pairs, a point and a reference."""
    rng = np.random.default_rng(players)
    pairs = list(itertools.combinations(range(players), 2))
    modules: list[Module] = [
        (pair, lambda a, c, k=k: float(np.sin(a + k) * c + a * a - k * c))
        for k, pair in enumerate(pairs)
    ]
    return modules, rng.normal(size=players), rng.normal(size=players)


def ex_pair_matrix(answer: Callable[..., Any]) -> None:
    """``pair_matrix(modules, x, r)``: the whole of what two add together in both of their cells."""
    hint = (
        "Half of the second difference to each cell of the pair; alone against nobody: the diagonal"
    )
    for players in (2, 3, 5):
        modules, x, r = modules_and_points(players)

        def game(
            S: np.ndarray,
            modules: list[Module] = modules,
            x: np.ndarray = x,
            r: np.ndarray = r,
        ) -> np.ndarray:
            rows = np.where(S, x, r)
            return np.array([sum(f(row[i], row[j]) for (i, j), f in modules) for row in rows])

        wanted = shaplab.interaction_values(game, players)
        name = f"{len(modules)} modules of {players} features"
        expect(name, answer(modules, x, r), wanted, 1e-11, hint)
    expect("no modules", answer([], np.ones(2), np.zeros(2)), np.zeros((2, 2)), 1e-12, hint)


def ex_butterfly_pairs(answer: Callable[..., Any]) -> None:
    """``butterfly_pairs(size)``: pairing every i with i + 2^s, in two pairs each."""
    from shaplab.shapnets import butterfly

    hint = "Partners differ in bit s only, and the first of a pair has a 0 there"
    for size in (1, 2, 4, 8, 32):
        stages = answer(size)
        wanted = butterfly(size) if size > 1 else []
        shown = [sorted(tuple(sorted(pair)) for pair in stage) for stage in stages]
        truth = [sorted(tuple(sorted(pair)) for pair in stage) for stage in wanted]
        expect(f"the number of stages of {size}", len(shown), len(truth), 0.0, hint)
        for stage, (got, pairs) in enumerate(zip(shown, truth, strict=True)):
            same = "the pairs" if got == pairs else str(got)
            expect(f"stage {stage} of {size}", same, "the pairs", hint=hint)


def ex_deep_values(answer: Callable[..., Any]) -> None:
    """``deep_values(stages, x, r)``: the user's reference at later stages, where absent means 0."""
    hint = "The first stage has the reference r, all later ones have 0"
    from shaplab.shapnets.deep import deep_shapnet_literal

    rng = np.random.default_rng(0)

    def literal(stages: list[list[Module]], x: np.ndarray, r: np.ndarray) -> np.ndarray:
        wrapped = [
            [(pair, lambda t, f=f: np.array([f(t[0, 0], t[1, 0])])) for pair, f in stage]
            for stage in stages
        ]
        return deep_shapnet_literal(wrapped, x[:, None], r[:, None])[-1][:, 0]

    modules, x, r = modules_and_points(4)
    of_pair = dict(modules)

    def stage(*pairs: tuple[int, int]) -> list[Module]:
        return [(pair, of_pair[pair]) for pair in pairs]

    cases = {
        "one stage": [stage((0, 1), (2, 3))],
        "two stages": [stage((0, 1), (2, 3)), stage((0, 2), (1, 3))],
        "a feature without a pair": [stage((0, 1), (2, 3)), stage((0, 2)), stage((0, 3))],
        "overlapping pairs": [stage((0, 1), (1, 2), (0, 3)), stage((0, 1), (0, 2))],
    }
    for name, stages in cases.items():
        expect(name, answer(stages, x, r), literal(stages, x, r), 1e-11, hint)
    kept = np.where(rng.random(4) < 0.5, x, r)
    stages = cases["two stages"]
    name = "some features at their reference"
    expect(name, answer(stages, kept, r), literal(stages, kept, r), 1e-11, hint)


def ex_shrunk(answer: Callable[..., Any]) -> None:
    """``shrunk(a, strength)``: taking the strength off, without stopping at zero."""
    hint = "Every value moves towards 0 by the strength, and stays at 0 when it gets there"
    cases = [([3.0, -2.0, 0.5], 1.0), ([1.0, -1.0], 1.0), ([0.0], 0.3), ([-4.0, 4.0], 0.0)]
    for values, strength in cases:
        a = np.array(values)
        grid = np.linspace(-5, 5, 100_001)
        pays = (grid - a[:, None]) ** 2 / 2 + strength * np.abs(grid)
        wanted = grid[pays.argmin(axis=1)]
        # The grid has steps of 1e-4.
        expect(f"a = {values} and strength {strength}", answer(a, strength), wanted, 2e-4, hint)
    table = np.array([[2.0, -0.1], [0.4, -3.0]])
    expect("an array (2, 2)", answer(table, 0.5), [[1.5, 0.0], [0.0, -2.5]], 1e-12, hint)


def ex_cut(answer: Callable[..., Any]) -> None:
    """``cut(a, strength)``: moving all values towards 0, as the sum of sizes would."""
    hint = "Cut all values to [-t, t]; what the large ones give up sums to the strength"
    rng = np.random.default_rng(0)
    cases = [
        (np.array([3.0]), 1.0),
        (np.array([3.0, -1.0, 2.0]), 0.5),
        (np.array([3.0, -3.0, 1.0]), 2.0),
        (np.array([1.0, -0.5]), 4.0),
        (np.array([2.0, 1.0]), 0.0),
        (rng.normal(size=7), 1.5),
    ]
    for a, strength in cases:
        low, high = 0.0, float(np.abs(a).max())
        for _ in range(100):
            middle = (low + high) / 2
            given_up = np.maximum(np.abs(a) - middle, 0.0).sum()
            low, high = (middle, high) if given_up > strength else (low, middle)
        name = f"a = {np.round(a, 2).tolist()} and strength {strength}"
        expect(name, answer(a, strength), np.clip(a, -high, high), 1e-9, hint)


def ex_needed(answer: Callable[..., Any]) -> None:
    """``needed_share(active_sets, present)``: only modules all of whose inputs are present."""
    hint = "One input that is present is enough for a module to be needed"
    rng = np.random.default_rng(0)
    pairs = [(0, 1), (2, 3)]
    expect("nobody", answer(pairs, np.zeros((3, 4), dtype=bool)), 0.0, 1e-12, hint)
    expect("everybody", answer(pairs, np.ones((3, 4), dtype=bool)), 1.0, 1e-12, hint)
    one = np.array([[True, False, False, False]])
    expect("one feature of four", answer(pairs, one), 0.5, 1e-12, hint)
    for active_sets in ([(0,), (1, 2, 3)], [(0, 1), (1, 2), (2, 3), (0, 3), (3,)]):
        present = rng.random((20, 4)) < 0.4
        asked = [any(row[i] for i in active) for row in present for active in active_sets]
        expect(
            f"the active sets {active_sets}",
            answer(active_sets, present),
            np.mean(asked),
            1e-12,
            hint,
        )


def ex_keep_share(answer: Callable[..., Any]) -> None:
    """``keep_share(z, share)``: one position too few, the one that crosses the share."""
    hint = "Take the largest norms until their sum reaches the share of the whole"
    cases = {
        "norms 4, 3, 2, 1 and half": ([[4.0], [3.0], [2.0], [1.0]], 0.5, [1, 1, 0, 0]),
        "norms 4, 3, 2, 1 and 70%": ([[4.0], [3.0], [2.0], [1.0]], 0.7, [1, 1, 0, 0]),
        "norms 4, 3, 2, 1 and 71%": ([[4.0], [3.0], [2.0], [1.0]], 0.71, [1, 1, 1, 0]),
        "two channels of both signs": ([[1.0, -2.0], [5.0, 4.0], [-1.0, 0.0]], 0.69, [0, 1, 0]),
        "one large value": ([[0.1], [9.0], [0.1]], 0.9, [0, 1, 0]),
        "all of it": ([[1.0], [0.0], [2.0]], 1.0, [1, 0, 1]),
        "norms of zero": ([[0.0], [0.0]], 0.5, [0, 0]),
    }
    for name, (z, share, wanted) in cases.items():
        expect(name, answer(np.array(z), share), np.array(wanted, dtype=bool), 0.0, hint)


def ex_window_values(answer: Callable[..., Any]) -> None:
    """``window_values(terms, start, act)``: leaving out the start, which moves the bend."""
    hint = "The worth of a coalition is act(start + its terms), for nobody it is act(start)"
    rng = np.random.default_rng(0)

    def relu(a: np.ndarray) -> np.ndarray:
        return np.maximum(a, 0.0)

    for taps in (1, 2, 4):
        for act in (relu, np.tanh, np.asarray):
            terms = rng.normal(size=taps)
            start = float(rng.normal())
            wanted = shaplab.shapley_values(
                lambda S, terms=terms, start=start, act=act: act(start + S @ terms), taps
            )
            shown = getattr(act, "__name__", "act")
            shown = "no activation" if act is np.asarray else shown
            name = f"{taps} taps, {shown}, start {start:.2f}"
            expect(name, answer(terms, start, act), wanted, 1e-12, hint)


def ex_fold(answer: Callable[..., Any]) -> None:
    """``fold(phi, taps)``: sending the values the other way, to p - o."""
    hint = "The window at p reads the pixel p + o_j, and that pixel gets the value of tap j"
    rng = np.random.default_rng(0)
    square = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for shape, taps in (
        ((1, 1), square),
        ((2, 3), [(0, 0)]),
        ((4, 5), square),
        ((5, 4), [(-2, 0), (0, 2), (0, -2)]),
    ):
        phi = rng.normal(size=(*shape, len(taps)))
        wanted = np.zeros(shape)
        for row, column in np.ndindex(shape):
            for j, (down, right) in enumerate(taps):
                source = row - down, column - right
                if 0 <= source[0] < shape[0] and 0 <= source[1] < shape[1]:
                    wanted[row, column] += phi[*source, j]
        expect(f"a picture {shape} and the taps {taps}", answer(phi, taps), wanted, 1e-12, hint)
