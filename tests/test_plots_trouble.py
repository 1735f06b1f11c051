"""Bad input to plots and overviews: every one is named in the one form, before anything is drawn."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from shaplab import Explanation, overviews, plots
from shaplab.insight.summaries import embed_rows

X = np.random.default_rng(0).normal(size=(6, 3))
GOOD = Explanation(X, 1.0, data=X)
GONE = Explanation(np.where(np.arange(18).reshape(6, 3) == 4, np.nan, X), 1.0, data=X)
NO_BASE = Explanation(X, np.inf, data=X)
MAPS = Explanation(np.ones((2, 3, 3)), 0.0, data=np.zeros((2, 3, 3)))
FIVE = {"waterfall": plots.waterfall, "bar": plots.bar, "beeswarm": plots.beeswarm, "force": plots.force,
        "scatter": lambda e, **options: plots.scatter(e, 0, **options)}


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.mark.parametrize("plot", [*FIVE.values(), overviews.summary, overviews.heatmap], ids=[*FIVE, "summary", "heat"])
def test_only_finite_explanations_are_drawn_on_axes(plot):
    for other in (None, X, "explanation"):
        with pytest.raises(TypeError, match="explanation: expected an Explanation, got"):
            plot(other)
    for bad in (GONE, NO_BASE):
        with pytest.raises(ValueError, match="explanation: expected finite values, got NaN or infinite values"):
            plot(bad)
    with pytest.raises(ValueError, match=r"ax: expected \d Axes, got"):
        plot(GOOD, ax="a")
    assert not plt.get_fignums()


@pytest.mark.parametrize(("call", "text"), [
    (lambda: plots.waterfall(GOOD, units=3), "units: expected 3 units or a mapping from names, got 3"),
    (lambda: overviews.interaction(None, 0, 1), r"explanation: expected interaction values of shape \(N, d, d\), got"),
    (lambda: overviews.heatmap(GOOD, 3), "clusters: expected an order of 6 rows, got 3"),
    (lambda: overviews.embedding(None), "embedded: expected at least two components, got None"),
    (lambda: overviews.embedding(embed_rows(GOOD), feature_names=["a"]), "feature_names: expected 3 names, got 1"),
    (lambda: overviews.embedding(embed_rows(GOOD), color_by="abc"), r"color_by: expected 6 values, one a row, got"),
    (lambda: overviews.compare(None), "explanations: expected at least one explanation"),
    (lambda: overviews.compare([GOOD, GOOD]), "explanations: expected at least one explanation"),
    (lambda: overviews.compare({"a": 3}), "explanation: expected an Explanation, got 3"),
    (lambda: overviews.images(None), "explanation: expected attributions of images, .*, got None"),
    (lambda: overviews.images({}), "explanation: expected explanations of the same images"),
    (lambda: overviews.images(MAPS, rows=[]), r"rows: expected positions of at least one image, got \[\]"),
    (lambda: overviews.images(MAPS, rows="ab"), "row: expected an integer"),
    (lambda: overviews.images(Explanation(MAPS.values * np.nan, 0.0, data=MAPS.data)), "explanation: expected attrib"),
    (lambda: overviews.partial_dependence(None, X, 0), "model: expected a callable"),
    (lambda: overviews.partial_dependence(lambda Z: Z[:, 0], X, 0, grid="abc"), "grid: expected a numeric table"),
    (lambda: overviews.partial_dependence(lambda Z: Z[:, 0], X, 0, output=1), "output: expected None, as the model"),
])
def test_bad_input_is_named(call, text):
    with pytest.raises((ValueError, TypeError), match=text):
        call()


def test_one_position_is_one_image():
    assert plots.table(overviews.images(MAPS, rows=1))["row"].tolist() == [1]


def test_numbers_beside_narrow_steps_stay_inside_when_panels_share_a_wide_scale():
    near = Explanation([[0.9, -0.3, -0.2]], -0.3, data=X[:1])
    far = Explanation([[0.6, -2.5, -1.0]], 3.0, data=X[:1])
    figure = overviews.compare({"near": near, "far": far})
    figure.canvas.draw()
    for ax in figure.axes:
        for text in ax.texts:
            box, frame = text.get_window_extent(), ax.get_window_extent()
            assert frame.x0 <= box.x0, f"{text.get_text()} runs into the names"
            assert box.x1 <= figure.bbox.x1
