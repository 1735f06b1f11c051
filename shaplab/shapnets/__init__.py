"""Networks whose layers are Shapley values. Names are resolved on first use: torch is loaded only
then."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "transform": "ShapleyTransform coalition_weights shapley_transform",
    "shallow": "ShallowShapNet gam_network",
    "deep": "DeepShapNet butterfly",
    "image": "ImageShapNet",
    "regularization": "coefficient_of_variation explanation_penalty fit sparsity",
    "pruning": "PrunedShapNet prune strip_modules",
}
_HOME = {
    name: f"shaplab.shapnets.{module}" for module, names in _HOMES.items() for name in names.split()
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'shaplab.shapnets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_HOMES])
