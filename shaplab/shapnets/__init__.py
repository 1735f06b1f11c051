"""Networks whose layers are Shapley values. Names are resolved on first use: torch is loaded only
then."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
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


def _has_torch() -> bool:
    try:
        return find_spec("torch") is not None
    except (ImportError, ValueError):
        return False


# Without torch there is nothing to list, and ``import *`` and pydoc work.
__all__ = [*_HOME] if _has_torch() else []


def __getattr__(name: str) -> Any:
    if name in _HOME:
        if not _has_torch():
            raise ModuleNotFoundError(
                f"{name}: expected the package torch beside shaplab, got an environment without "
                "it. Install it: pip install torch."
            )
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'shaplab.shapnets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(_HOMES if __all__ else ())])
