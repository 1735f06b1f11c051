"""What plots refuse, in the one form, and hostile words in every argument that is drawn."""

from __future__ import annotations

import re

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from shaplab import Explanation, plots
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


GONE = make(np.where(np.arange(18).reshape(6, 3) == 4, np.nan, 1.0))
NO_BASE = Explanation(np.ones((6, 3)), np.inf, data=np.ones((6, 3)))


def draw(name: str, e: object, **options: object):
    return (
        getattr(plots, name)(e, 0, **options)
        if name == "scatter"
        else getattr(plots, name)(e, **options)
    )


def refuses(call, text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text) as caught:
        call()
    assert FORM.match(str(caught.value)), caught.value
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", FIVE)
def test_the_five_refuse_what_they_cannot_draw(name: str) -> None:
    for other in (None, np.zeros((3, 3)), "x" * 900):
        refuses(lambda other=other: draw(name, other), "explanation: expected an Explanation, got")
    refuses(lambda: draw(name, GONE), "explanation: expected finite values, got NaN or infinity")
    refuses(lambda: draw(name, NO_BASE), "explanation: expected finite values, got NaN or infinity")
    refuses(lambda: draw(name, make(), ax="x"), "ax: expected 1 Axes, got 1 of type str")
    refuses(lambda: draw(name, make()[[]]), "explanation: expected at least one row")
    if name != "scatter":
        refuses(lambda: draw(name, make(), max_features="x"), "max_features: expected an integer")
    if name in ("waterfall", "force", "scatter"):
        refuses(
            lambda: draw(name, make(), units=5),
            "units: expected 3 units or a mapping from names, got 5",
        )
    assert not plt.get_fignums(), "something was drawn before the refusal"


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


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: plots.summary(None), "explanation: expected an Explanation"),
        (lambda: plots.summary(GONE), "explanation: expected finite values"),
        (lambda: plots.heatmap(NO_BASE), "explanation: expected finite values"),
        (lambda: plots.interaction(None, 0, 1), "explanation: expected interaction values"),
        (lambda: plots.interaction(E, 0, 1), "explanation: expected interaction values"),
        (
            lambda: plots.interaction(PAIRS, 0, "n" * 600),
            "other: expected one of x0, x1, x2, got 'n",
        ),
        (
            lambda: plots.heatmap(E, clusters=3),
            "clusters: expected cluster_rows of the 6 explained rows, got 3",
        ),
        (
            lambda: plots.embedding(None),
            "embedded: expected an Embedding of at least two components, got None",
        ),
        (
            lambda: plots.embedding(embed_rows(E), color_by=[1, 2]),
            "color_by: expected 6 values",
        ),
        (
            lambda: plots.embedding(embed_rows(E), feature_names=["a"]),
            "feature_names: expected 3 names, got 1",
        ),
        (lambda: plots.compare(None), "explanations: expected at least one explanation"),
        (lambda: plots.compare([E]), "explanations: expected at least one explanation"),
        (
            lambda: plots.compare({"a": E, "b": None}),
            "explanation: expected an Explanation, got None",
        ),
        (
            lambda: plots.compare({"a": E}, kind="x" * 99),
            "kind: expected one of 'waterfall', 'force'",
        ),
        (lambda: plots.images(None), "explanation: expected attributions of images"),
        (lambda: plots.images({"a": E}), "explanation: expected attributions of images"),
        (lambda: plots.images({}), "explanation: expected explanations of the same images"),
        (
            lambda: plots.images(IMAGES, rows=[]),
            r"rows: expected positions of at least one image, got \[\]",
        ),
        (lambda: plots.images(IMAGES, rows="ab"), "row: expected an integer"),
        (
            lambda: plots.images(Explanation(IMAGES.values * np.nan, 0.0, data=IMAGES.data)),
            "explanation: expected",
        ),
        (lambda: plots.images(IMAGES, rows=[7]), "row: expected an integer"),
        (lambda: plots.partial_dependence(None, E.data, 0), "model: expected a callable"),
        (
            lambda: plots.partial_dependence(lambda X: X[:1, 0], E.data, 0),
            "model: expected outputs of shape",
        ),
        (
            lambda: plots.partial_dependence(lambda X: X[:, 0], E.data, 0, output=1),
            "output: expected None, as the mod",
        ),
        (
            lambda: plots.partial_dependence(lambda X: X[:, 0], E.data, "q"),
            "feature: expected one of x0",
        ),
        (
            lambda: plots.partial_dependence(lambda X: X[:, 0], E.data, 0, grid="x"),
            "grid: expected numbers, got 'x'",
        ),
        (
            lambda: plots.partial_dependence(lambda X: X[:, 0], E.data, 0, grid=[2, 1]),
            "grid: expected at least two",
        ),
    ],
)
def test_overviews_refuse_what_they_cannot_draw(call, text: str) -> None:
    refuses(call, text)


def test_one_position_is_one_image():
    assert plots.table(plots.images(IMAGES, rows=1))["row"].tolist() == [1]


def test_numbers_beside_narrow_steps_stay_inside_when_panels_share_a_wide_scale():
    near = Explanation([[0.9, -0.3, -0.2]], -0.3, data=E.data[:1])
    far = Explanation([[0.6, -2.5, -1.0]], 3.0, data=E.data[:1])
    figure = plots.compare({"near": near, "far": far})
    figure.canvas.draw()
    for ax in figure.axes:
        for text in ax.texts:
            box, frame = text.get_window_extent(), ax.get_window_extent()
            assert frame.x0 <= box.x0, f"{text.get_text()} runs into the names"
            assert box.x1 <= figure.bbox.x1
