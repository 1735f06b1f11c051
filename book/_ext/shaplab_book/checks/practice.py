"""Checks of the exercises of the part *practice*."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from shaplab_book.checking import expect

__all__ = ["ex_merge", "ex_visit_rng", "ex_which_cheaper", "ex_which_error"]


def ex_which_cheaper(answer: Callable[..., Any]) -> None:
    """``cheaper(features, background, rounds)``: forgetting that orderings are walked twice."""
    hint = (
        "2^n rows for each background row against 4 (n - 1) for each round; in a tie, enumeration"
    )
    cases = [
        (12, 100, 16, "orderings"),
        (9, 100, 16, "enumeration"),
        (10, 1, 16, "orderings"),
        (2, 7, 1, "enumeration"),
        (5, 50, 2, "enumeration"),
        (6, 50, 2, "orderings"),
        (7, 3, 5, "orderings"),
        (30, 100, 1000, "orderings"),
    ]
    for features, background, rounds, wanted in cases:
        name = f"{features} features, a background of {background} and {rounds} rounds"
        expect(name, answer(features, background, rounds), wanted, hint=hint)


def ex_which_error(answer: Callable[..., Any]) -> None:
    """``share_of_error(found, truth)``: the mean of each value's own relative error."""
    hint = "Root of the mean square of the differences, over the root mean square of the truth"
    rng = np.random.default_rng(0)
    expect("no error", answer(np.ones((2, 2)), np.ones((2, 2))), 0.0, 1e-12, hint)
    expect("twice the truth", answer(np.full(3, 4.0), np.full(3, 2.0)), 1.0, 1e-12, hint)
    small = np.array([[1.0, 0.0], [-1.0, 1e-9]])
    got = answer(small + 0.1, small)
    expect("values near 0", got, 0.1 / np.sqrt(0.5), 1e-9, hint)
    for shape in ((5,), (4, 3)):
        truth = rng.normal(size=shape)
        found = truth + rng.normal(size=shape)
        wanted = np.linalg.norm(found - truth) / np.linalg.norm(truth)
        expect(f"a random array {shape}", answer(found, truth), wanted, 1e-12, hint)


def ex_visit_rng(answer: Callable[..., Any]) -> None:
    """``visit_rng(entropy, row, visit)``: the sum of the three as the seed."""
    hint = "Same three numbers, same draws; another one, or another order, and others"
    seen = {}
    for numbers in itertools.product((0, 1, 2), repeat=3):
        drawn = tuple(answer(*numbers).random(4).tolist())
        again = tuple(answer(*numbers).random(4).tolist())
        expect(f"a second generator of {numbers}", again == drawn, True, 0.0, hint)
        expect(f"draws of {numbers} that no others have", seen.get(drawn, "new"), "new", hint=hint)
        seen[drawn] = str(numbers)
    state = np.random.get_state()[1]  # noqa: NPY002
    answer(1, 2, 3).random(5)
    same = np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    expect("numpy's global state", same, True, 0.0, "Make a generator; leave np.random.seed alone")
    expect("large numbers", len(answer(2**70, 10**9, 5).random(3)), 3, 0.0, hint)


def ex_merge(answer: Callable[..., Any]) -> None:
    """``merge(first, second)``: the plain mean of the two means, whatever the counts are."""
    hint = "Means are weighted by counts, and the squares gain what lies between the two means"
    rng = np.random.default_rng(0)

    def told(values: np.ndarray) -> tuple[int, float, float]:
        if len(values) == 0:
            return 0, 0.0, 0.0
        return len(values), float(values.mean()), float(((values - values.mean()) ** 2).sum())

    for n, m in ((1, 1), (2, 7), (0, 3), (3, 0), (0, 0), (40, 5)):
        a = 5.0 + rng.normal(size=n)
        b = 1.0 + rng.normal(size=m)
        wanted = told(np.concatenate([a, b]))
        expect(f"{n} and {m} visits", answer(told(a), told(b)), wanted, 1e-9, hint)
    far = 1e8 + rng.normal(size=20)
    merged = answer(told(far[:8]), told(far[8:]))
    expect("a large mean and a small spread", merged[2], told(far)[2], 1e-4, hint)
