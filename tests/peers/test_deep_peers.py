"""DeepSHAP beside shap and captum: equal where they are right, additive where they are not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn as nn
from numpy.testing import assert_allclose

from shaplab import deep_shap

pytestmark = pytest.mark.peers


def _case(
    *layers: nn.Module, shape: tuple[int, ...]
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    return (
        nn.Sequential(*layers).double().eval(),
        torch.randn(4, *shape).double(),
        torch.randn(6, *shape).double(),
    )


@pytest.mark.parametrize("name", ["mlp", "tanh", "softplus", "cnn"])
def test_rescale_equals_shap_where_shap_is_right(name: str) -> None:
    shap = pytest.importorskip("shap")
    torch.manual_seed(0)
    g = {"mlp": nn.ReLU, "tanh": nn.Tanh, "softplus": nn.Softplus, "cnn": nn.ReLU}[name]
    if name == "cnn":
        model, X, B = _case(
            nn.Conv2d(1, 3, 3),
            g(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(27, 2),
            shape=(1, 8, 8),
        )
    else:
        model, X, B = _case(nn.Linear(5, 8), g(), nn.Linear(8, 6), g(), nn.Linear(6, 2), shape=(5,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = shap.DeepExplainer(model, B).shap_values(X, check_additivity=False)
    # shap takes slopes below 1e-6 and sums in float64: rounding of the quotients remains.
    assert_allclose(deep_shap(model, X, B, max_rule="cross").values, theirs, atol=1e-9)


def test_rescale_equals_captum_on_an_mlp() -> None:
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(1)
    model, X, B = _case(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1), shape=(5,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = attr.DeepLiftShap(model).attribute(X, B).detach().numpy()
    assert_allclose(deep_shap(model, X, B, outputs=0).values, theirs, atol=1e-9)


def test_overlapping_windows_are_added_up_here() -> None:
    shap = pytest.importorskip("shap")
    torch.manual_seed(2)
    model, X, B = _case(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, 1),
        nn.Flatten(),
        nn.Linear(48, 1),
        shape=(1, 8, 8),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = shap.DeepExplainer(model, B).shap_values(X, check_additivity=False)
    change = (model(X) - model(B).mean()).detach().numpy()[:, 0]
    assert (
        np.abs(theirs.reshape(4, -1).sum(1) - change).max() > 0.1 * np.abs(change).max()
    )  # if this fails, shap has been repaired
    assert (
        np.abs(deep_shap(model, X, B, max_rule="cross").values.reshape(4, -1).sum(1) - change).max()
        < 1e-12
    )
