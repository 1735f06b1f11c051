"""Readers: one module a library, chosen by the model's class; no library is imported here."""

from __future__ import annotations

from typing import Any

from shaplab._remedies import sampled_instead
from shaplab._validation import UnsupportedModelError, fail
from shaplab.trees.readers._arrange import RawTrees
from shaplab.trees.readers._catboost import read_catboost
from shaplab.trees.readers._lightgbm import read_lightgbm
from shaplab.trees.readers._sklearn import read_sklearn
from shaplab.trees.readers._wrappers import read_wrapper, wrapper_kind
from shaplab.trees.readers._xgboost import read_xgboost

__all__ = ["read_model"]

# Classes of the first three also derive from scikit-learn's, which is looked for last.
_READERS = {
    "xgboost": read_xgboost,
    "lightgbm": read_lightgbm,
    "catboost": read_catboost,
    "sklearn": read_sklearn,
}


def read_model(
    model: Any, missing: float | None = None, iteration_range: tuple[int, int] | None = None
) -> RawTrees:
    """Nodes of a fitted model, read by the reader of the library its class comes from."""
    homes = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if wrapper_kind(model) and "sklearn" in homes:
        for name, given in (("missing", missing), ("iteration_range", iteration_range)):
            if given is not None:
                fail(name, "None for a model of several", repr(given), "Leave it out")
        return read_wrapper(model, read_model)
    for library, reader in _READERS.items():
        if library in homes:
            return reader(model, missing, iteration_range)
    fail(
        "model",
        "a fitted XGBoost, LightGBM, CatBoost or scikit-learn tree model or a TreeEnsemble",
        f"{type(model).__module__}.{type(model).__name__}",
        "Build others with TreeEnsemble.from_arrays"
        + (f", or sample: {sampled_instead(model)}" if hasattr(model, "predict") else ""),
        UnsupportedModelError,
    )
