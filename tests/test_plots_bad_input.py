"""What plots refuse, in the one form, and hostile words in every argument that is drawn."""

from __future__ import annotations

import re

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from shaplab import Explanation, overviews, plots
from shaplab.insight.summaries import embed_rows

FORM = re.compile(r"^[^:]+: expected .+, got .+\. .+\.$", re.DOTALL)
FIVE = ["waterfall", "bar", "beeswarm", "scatter", "force"]
HOSTILE = "<script>alert('x')</script> $x_1$ \"" + "u" * 500


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def make(values: object = None, **options: object) -> Explanation:
    X = np.random.default_rng(0).normal(size=(6, 3))
    return Explanation(X if values is None else values, 0.0, **({"data": X} | options))


def draw(name: str, e: object, **options: object):
    return getattr(plots, name)(e, 0, **options) if name == "scatter" else getattr(plots, name)(e, **options)


def refuses(call, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text) as caught:
        call()
    assert FORM.match(str(caught.value)), caught.value
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", FIVE)
def test_the_five_refuse_what_they_cannot_draw(name: str) -> None:
    for other in (None, np.zeros((3, 3)), "x" * 900):
        refuses(lambda other=other: draw(name, other), "explanation: expected an Explanation, got")
    values = np.ones((6, 3))
    values[2, 1] = np.nan
    refuses(lambda: draw(name, make(values)), "explanation: expected finite values, got NaN or infinity")
    refuses(lambda: draw(name, make(), ax="x"), "ax: expected 1 Axes, got 1 of type str")
    refuses(lambda: draw(name, make()[[]]), "explanation: expected at least one row")
    if name != "scatter":
        refuses(lambda: draw(name, make(), max_features="x"), "max_features: expected an integer")
    if name in ("waterfall", "force", "scatter"):
        refuses(lambda: draw(name, make(), units=5), "units: expected 3 units or a mapping from names, got 5")


@pytest.mark.parametrize("name", FIVE)
def test_units_and_classes_are_drawn_as_they_are_and_cut(name: str) -> None:
    options = {"units": [HOSTILE] * 3} if name in ("waterfall", "force", "scatter") else {}
    ax = draw(name, make(feature_names=[HOSTILE, "b", "c"]), output_unit=HOSTILE, **options)
    ax.figure.canvas.draw()
    for text in [text for text in ax.figure.findobj(mpl.text.Text) if text.get_text()]:
        said, is_math = text._preprocess_math(text.get_text())
        assert not is_math, f"{said} would be read as a formula"
        assert max(map(len, said.split("\n"))) <= 100


E = make()
PAIRS = Explanation(np.zeros((6, 3, 3)), 0.0, data=E.data, interaction=True)
IMAGES = Explanation(np.zeros((2, 4, 4)), 0.0, data=np.zeros((2, 4, 4)))


@pytest.mark.parametrize(("call", "text"), [
    (lambda: overviews.summary(None), "explanation: expected an Explanation"),
    (lambda: overviews.interaction(None, 0, 1), "explanation: expected interaction values"),
    (lambda: overviews.interaction(E, 0, 1), "explanation: expected interaction values"),
    (lambda: overviews.interaction(PAIRS, 0, "n" * 600), "other: expected one of x0, x1, x2, got 'n"),
    (lambda: overviews.heatmap(E, clusters=3), "clusters: expected cluster_rows of the 6 explained rows, got 3"),
    (lambda: overviews.embedding(None), "embedded: expected an Embedding of at least two components, got None"),
    (lambda: overviews.embedding(embed_rows(E), color_by=[1, 2]), "color_by: expected 6 values"),
    (lambda: overviews.compare([E]), "explanations: expected at least one explanation"),
    (lambda: overviews.compare({"a": E, "b": None}), "explanation: expected an Explanation, got None"),
    (lambda: overviews.compare({"a": E}, kind="x" * 99), "kind: expected one of 'waterfall', 'force'"),
    (lambda: overviews.images(None), "explanation: expected attributions of images"),
    (lambda: overviews.images({"a": E}), "explanation: expected attributions of images"),
    (lambda: overviews.images(IMAGES, rows=[7]), "row: expected an integer"),
    (lambda: overviews.partial_dependence(None, E.data, 0), "model: expected a callable"),
    (lambda: overviews.partial_dependence(lambda X: X[:1, 0], E.data, 0), "model: expected outputs of shape"),
    (lambda: overviews.partial_dependence(lambda X: X[:, 0], E.data, "q"), "feature: expected one of x0"),
    (lambda: overviews.partial_dependence(lambda X: X[:, 0], E.data, 0, grid="x"), "grid: expected numbers, got 'x'"),
    (lambda: overviews.partial_dependence(lambda X: X[:, 0], E.data, 0, grid=[2, 1]), "grid: expected at least two"),
])
def test_overviews_refuse_what_they_cannot_draw(call, text: str) -> None:
    refuses(call, text)
