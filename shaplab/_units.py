"""A unit near the numbers at hand.

Squares of very large or small numbers leave the range of floats: a spread of 1e200 would be
infinite, one of 1e-200 zero. In a unit that is a power of two near the largest number neither
happens, and no digit changes.

Cost: one look at the numbers.

Chapter: foundations/permutation
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__: list[str] = []


def unit_near(numbers: Any) -> float:
    """A power of two near the largest of the numbers; 1 if all are zero, or some not finite."""
    largest = float(np.abs(numbers).max(initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return 1.0
    return float(np.ldexp(0.5, np.frexp(largest)[1]))


def sample_spread(numbers: np.ndarray, axis: int) -> np.ndarray:
    """Standard deviation along an axis, as of a sample of at least two."""
    unit = unit_near(numbers)
    return np.asarray(unit * (numbers / unit).std(axis=axis, ddof=1))
