"""How property tests draw: the same examples at every run, or many new ones.

``make test`` must take the same time twice and must not fail on one day of ten, so there the
examples are fixed. ``make test-random`` sets ``SHAPLAB_RANDOM_TESTS`` to a factor and draws that
many times as many, new at every run; a failure prints the lines that draw its example again.
"""

from __future__ import annotations

import os

from hypothesis import settings

__all__ = ["examples"]

_FACTOR = int(os.environ.get("SHAPLAB_RANDOM_TESTS", "0"))


def examples(number: int) -> settings:
    """Settings of a property test that draws ``number`` examples in ``make test``."""
    return settings(
        max_examples=number * max(1, _FACTOR),
        derandomize=_FACTOR == 0,
        deadline=None,  # the first example compiles kernels
        database=None,
        print_blob=_FACTOR > 0,
    )
