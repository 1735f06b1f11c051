"""Readers: one module a library, chosen by the model's class; no library is imported here.

Needs: shaplab._validation, shaplab.trees._encoding.
"""

from __future__ import annotations

from typing import Any

from shaplab._validation import UnsupportedModelError, fail
from shaplab.trees._encoding import RawTrees

__all__ = ["read_model"]


def read_model(model: Any, missing: float | None = None, iteration_range: tuple[int, int] | None = None) -> RawTrees:
    """Nodes of a fitted model, read by the library its class comes from."""
    fail("model", "a fitted tree model", model, "Pass one", UnsupportedModelError)
