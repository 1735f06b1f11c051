"""Checks of the exercises of the part *foundations*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from shaplab_book.checking import expect

__all__ = ["ex_weights"]


def ex_weights(answer: Callable[..., Any]) -> None:
    """``coalition_weights(n)``: giving every coalition the same weight, as Banzhaf's rule does."""
    for n in (1, 2, 3, 4, 5, 9, 30):
        truth = [
            math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n) for s in range(n)
        ]
        hint = "Of the n! orders, count those in which i finds exactly the s members of S"
        expect(f"n = {n}", answer(n), truth, atol=1e-12, hint=hint)
