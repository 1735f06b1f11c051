"""Who tries a name of the package shap is told what it is called here, and each call that is named
works."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeRegressor

import shaplab

X = np.random.default_rng(0).normal(size=(30, 3))


@pytest.mark.parametrize("name", shaplab._OF_SHAP)
def test_the_calls_that_are_named_work(name):
    with pytest.raises(AttributeError, match="What shap calls so is shaplab") as caught:
        getattr(shaplab, name)
    calls = [re.sub(r"^(?:or |shaplab\.)*", "", call) for call in _calls(str(caught.value))]
    assert calls
    for call in calls:
        torch = pytest.importorskip("torch")
        fitted = LinearRegression if name == "LinearExplainer" else DecisionTreeRegressor
        known = {
            "model": fitted().fit(X, X[:, 0]),
            "network": torch.nn.Sequential(torch.nn.Linear(3, 1)).eval(),
            "feature": 0,
        }
        tables = {"X": X[:2], "background": X[2:9]}
        if "network" in call:
            tables = {
                key: torch.tensor(table, dtype=torch.float32) for key, table in tables.items()
            }
        known |= tables
        known["explanation"] = shaplab.exact_shap(lambda Z: Z @ [1.0, 2.0, 3.0], X[:5], X[5:])
        eval(f"shaplab.{call}", {"shaplab": shaplab, **known})
    plt.close("all")


def _calls(message: str) -> list[str]:
    return re.findall(r"[\w.]+\([^()]*\)", message.partition("is shaplab.")[2])


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match=r"no attribute 'nothing_like_this'$"):
        _ = shaplab.nothing_like_this
    assert not hasattr(shaplab, "TreeExplainer")
