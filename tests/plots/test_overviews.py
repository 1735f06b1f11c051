"""Overviews: what is drawn (positions, order, labels, text), the tables that say the same, and bad
input."""

from __future__ import annotations

import pickle

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

mpl.use("Agg")
import matplotlib.pyplot as plt

import shaplab
from shaplab import Explanation, plots
from shaplab._figures import DOWN, GREY, UP, to_unit
from shaplab.insight.summaries import Clusters, cluster_rows, embed_rows

HOSTILE = [
    "<script>alert('x')</script>",
    "$\\frac{1}{2}$ & $b_1",
    "quo\"te's\nand lines",
    "n" * 500,
]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def make(n=40, names=("f0", "f1", "f2", "f3")):
    X = np.random.default_rng(0).normal(size=(n, 4))
    return Explanation(X * [0.5, -2.0, 1.0, 0.1], 3.0, data=X, feature_names=list(names))


def make_pairs(n=40, names=("f0", "f1", "f2", "f3")):
    X = np.random.default_rng(0).normal(size=(n, 4))
    values = np.zeros((n, 4, 4))
    values[:, range(4), range(4)] = X
    values[:, 0, 1] = values[:, 1, 0] = X[:, 0] * X[:, 1]
    return Explanation(values, 0.0, data=X, feature_names=list(names), interaction=True)


def make_images(n=3, channels=1, outputs=0):
    shape = (n, channels, 5, 4)
    values = np.random.default_rng(1).normal(size=shape + ((outputs,) if outputs else ()))
    return Explanation(
        values,
        np.zeros((n, outputs)) if outputs else 0.0,
        data=np.random.default_rng(2).random(shape),
        output_names=["$no", "yes"][:outputs] or None,
    )


def make_subsets(names=("f0", "f1", "f2", "f3"), rows=None, **more):
    X = np.random.default_rng(3).normal(size=(1 if rows is None else rows, 4))

    def game(S):
        triple = S[:, None, :3].all(axis=2) * 5.0
        values = triple * X[:, 0] - 2.0 * (S[:, None, 0] & S[:, None, 3]) + S[:, None, 1] * 0.5
        return values[:, 0] if rows is None else values

    more = {"order": 3, "index": "Moebius", **more}
    return shaplab.interaction_values(game, 4, names=names, **more)


def bent(Z):
    return np.asarray(Z)[:, 0] * np.asarray(Z)[:, 1] + np.asarray(Z)[:, 2]


DRAW = {
    "summary": lambda names, **o: plots.summary(make(names=names), **o),
    "interaction": lambda names, **o: plots.interaction(make_pairs(names=names), 0, 1, **o),
    "interaction bars": lambda names, **o: plots.interaction_bars(make_subsets(names), **o),
    "strongest pairs": lambda names, **o: plots.interaction_bars(make_pairs(names=names), **o),
    "cohorts": lambda names, **o: plots.bar(
        make(names=names), cohorts=[names[row % 2] for row in range(40)], **o
    ),
    "decision": lambda names, **o: plots.decision(make(names=names), highlight=[3], **o),
    "violin": lambda names, **o: plots.violin(make(names=names), **o),
    "interaction network": lambda names, **o: plots.interaction_network(make_subsets(names), **o),
    "heatmap": lambda names, **o: plots.heatmap(make(names=names), **o),
    "embedding": lambda names, **o: plots.embedding(
        embed_rows(make()),
        color_by=make().prediction,
        color_name=names[0],
        feature_names=names,
        **o,
    ),
    "waterfalls": lambda names, **o: plots.compare(
        {names[0]: make(names=names), "b": make(names=names)}, **o
    ),
    "forces": lambda names, **o: plots.compare(
        {names[0]: make(names=names), "b": make(names=names)}, kind="force", **o
    ),
    "images": lambda names, **o: plots.images(
        {names[1]: make_images(), "b": make_images()}, rows=[0], **o
    ),
    "partial dependence": lambda names, **o: plots.partial_dependence(
        bent, pd.DataFrame(make().data, columns=list(names)), 0, color_by=1, **o
    ),
}
PANELS = {"summary": 2, "waterfalls": 2, "forces": 2, "images": 3}
NAMES = ("f0", "f1", "f2", "f3")


def figure_of(drawn):
    return getattr(drawn, "figure", drawn)


def words(drawn):
    figure_of(drawn).canvas.draw()
    return [text.get_text() for text in figure_of(drawn).findobj(mpl.text.Text) if text.get_text()]


# What every plot must and must not do.


@pytest.mark.parametrize("name", DRAW)
def test_it_draws_on_the_axes_it_was_given_and_nowhere_else(name):
    figure, given = plt.subplots(1, PANELS.get(name, 1) + 1)
    ax = given[1:] if name in PANELS else given[1]
    drawn = DRAW[name](NAMES, ax=ax)
    assert drawn is (figure if name in PANELS else ax)
    assert not given[0].has_data()
    assert all(one.has_data() for one in given[1:])
    assert plt.get_fignums() == [figure.number]
    if name in PANELS:
        with pytest.raises(ValueError, match=f"ax: expected {PANELS[name]} Axes, got 1"):
            DRAW[name](NAMES, ax=given[0])


@pytest.mark.parametrize("name", DRAW)
def test_nothing_of_the_user_is_changed(name, monkeypatch):
    monkeypatch.setattr(
        plt, "show", lambda *args, **options: pytest.fail("plots must not be shown")
    )
    before, state = dict(mpl.rcParams), np.random.get_state()[1].copy()  # noqa: NPY002
    drawn = DRAW[name](NAMES)
    plots.table(drawn)
    assert dict(mpl.rcParams) == before
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_is_opaque_white_with_dark_text_in_any_style(name):
    with plt.style.context("dark_background"):
        drawn = figure_of(DRAW[name](NAMES))
        drawn.canvas.draw()
    assert to_hex(drawn.get_facecolor(), keep_alpha=True) == "#ffffffff"
    for text in drawn.findobj(mpl.text.Text):
        if text.get_text() and text.get_visible() and text.axes is not None:
            parts = [int(to_hex(text.get_color())[i : i + 2], 16) / 255 for i in (1, 3, 5)]
            linear = [
                part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
                for part in parts
            ]
            assert 1.05 / (np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05) >= 4.5, text.get_text()


@pytest.mark.parametrize("name", DRAW)
def test_hostile_names_are_drawn_as_they_are_and_cut(name):
    drawn = figure_of(DRAW[name](tuple(HOSTILE)))
    drawn.canvas.draw()
    for text in [text for text in drawn.findobj(mpl.text.Text) if text.get_text()]:
        said, is_math = text._preprocess_math(text.get_text())
        assert not is_math, f"{said} would be read as a formula"
        assert max(map(len, said.split("\n"))) <= 80
    assert any("<script>" in text or "frac" in text for text in words(drawn))


@pytest.mark.parametrize("name", DRAW)
def test_what_a_plot_returns_has_a_table(name):
    drawn = DRAW[name](NAMES)
    assert isinstance(plots.table(drawn), pd.DataFrame)
    assert len(plots.table(drawn)) > 0
    pickle.dumps(figure_of(drawn))  # what is kept for the table must not stick to the figure


def test_table_of_anything_else_is_refused():
    for other in (plt.subplots()[1], "bar", None, 3):
        with pytest.raises(
            TypeError,
            match="explanation: expected an Explanation, or what a plot of shaplab returned",
        ):
            plots.table(other)


@pytest.mark.parametrize("name", ["waterfall", "force", "bar", "beeswarm", "scatter"])
def test_the_first_five_have_the_table_too(name):
    e = make()
    ax = plots.scatter(e, "f1", color_by="f0") if name == "scatter" else getattr(plots, name)(e)
    expected = {
        "waterfall": {"row": 0},
        "force": {"row": 0},
        "scatter": {"feature": "f1", "color_by": "f0"},
    }
    pd.testing.assert_frame_equal(plots.table(ax), plots.table(e, **expected.get(name, {})))


# Summary.


def test_summary_has_one_order_for_both_sides():
    e = make()
    figure = plots.summary(e, max_features=3, output_unit="minutes")
    left, right = figure.axes[:2]
    order = np.argsort(-np.abs(e.values).mean(axis=0))[:3]
    assert [label.get_text() for label in left.get_yticklabels()] == [f"f{j}" for j in order]
    np.testing.assert_allclose(
        [patch.get_width() for patch in left.patches], np.abs(e.values).mean(axis=0)[order]
    )
    points = next(
        c for c in right.collections if isinstance(c, mpl.collections.PathCollection)
    ).get_offsets()
    np.testing.assert_allclose(points[:, 0], e.values[:, order].T.ravel())
    assert left.get_ylim() == right.get_ylim()
    for patch, place in zip(left.patches, (2, 1, 0), strict=True):
        assert patch.get_y() + patch.get_height() / 2 == pytest.approx(place)
    assert left.get_xlabel() == "mean |contribution| (minutes)"
    pd.testing.assert_frame_equal(plots.table(figure), plots.table(e))
    with pytest.raises(ValueError, match="max_features"):
        plots.summary(e, max_features=0)


# Colours that are chosen.


def test_scatter_colours_by_the_strongest_partner():
    n = 400
    X = np.random.default_rng(3).normal(size=(n, 4))
    values = np.column_stack([X[:, 0] + X[:, 0] * X[:, 2], X[:, 1], np.zeros(n), X[:, 3]])
    e = Explanation(values, 0.0, data=X, feature_names=list("abcd"))

    chosen = lambda ax: [a.get_ylabel() for a in ax.figure.axes if a is not ax]  # noqa: E731
    ax = plots.scatter(e, "a", color_by=True)
    assert chosen(ax) == ["c"]
    np.testing.assert_allclose(ax.collections[-1].get_array(), to_unit(X[:, 2]))
    cells = np.zeros((n, 4, 4))
    cells[:, 0, 0], cells[:, 0, 3], cells[:, 0, 1] = 9.0, -2.0, 1.0
    pairs = Explanation(cells, 0.0, data=X, feature_names=list("abcd"), interaction=True)
    assert chosen(plots.scatter(e, "a", color_by=pairs)) == ["d"]
    assert chosen(plots.scatter(e[:, ["a"]], "a", color_by=True)) == []
    with pytest.raises(ValueError, match=r"color_by: expected interactions of shape \(N, 4, 4\)"):
        plots.scatter(e, "a", color_by=e)
    gone = Explanation(values, 0.0, data=np.where(X > 1, np.nan, X), feature_names=list("abcd"))
    assert chosen(plots.scatter(gone, "a", color_by=True)) == ["c"]
    text = np.where(X > 0, "high", "low").astype(object)
    text[:, 0] = X[:, 0]
    ax = plots.scatter(Explanation(values, 0.0, data=text), 0, color_by=True)
    assert ax.get_legend().get_title().get_text() == "x2"


def test_table_tells_what_the_colour_shows():
    x, z = np.repeat([0.0, 1.0], 4), np.tile([0.0, 0.0, 1.0, 1.0], 2)
    e = Explanation(
        np.column_stack([x * (1 + 2 * z), z]),
        0.0,
        data=np.column_stack([x, z]),
        feature_names=["a", "b"],
    )
    table = plots.table(e, feature="a", color_by="b")
    assert table["mean, b low"].tolist() == [0.0, 1.0]
    assert table["mean, b high"].tolist() == [0.0, 3.0]
    most = Explanation(
        [[1.0, 0], [2.0, 0], [3.0, 0]], 0.0, data=np.array([[5.0, 0], [5, 1], [5, 1]])
    )
    assert plots.table(most, feature=0, color_by=1).loc[
        0, ["mean, x1 low", "mean, x1 high"]
    ].tolist() == [1.0, 2.5]


# Interaction.


def test_interaction_draws_one_cell_against_the_first_feature():
    pairs = make_pairs()
    ax = plots.interaction(pairs, "f0", "f1", units={"f0": "kg"}, output_unit="m")
    points = ax.collections[-1]
    np.testing.assert_allclose(
        points.get_offsets(), np.column_stack([pairs.data[:, 0], pairs.values[:, 0, 1]])
    )
    np.testing.assert_allclose(points.get_array(), to_unit(pairs.data[:, 1]))
    assert ax.get_xlabel() == "f0 (kg)"
    assert ax.get_ylabel() == "interaction of f0\nand f1 (m)"
    table = plots.table(ax)
    assert (table["rows"] @ table["mean interaction with f1"]) == pytest.approx(
        pairs.values[:, 0, 1].sum()
    )
    alone = plots.interaction(pairs, 2, 2)
    np.testing.assert_allclose(alone.collections[-1].get_offsets()[:, 1], pairs.values[:, 2, 2])
    assert alone.get_ylabel() == "main effect of f2"
    assert "mean main effect" in plots.table(alone)
    with pytest.raises(ValueError, match="explanation: expected interaction values"):
        plots.interaction(make(), 0, 1)
    with pytest.raises(ValueError, match="other: expected one of f0, f1, f2, f3, got 'age'"):
        plots.interaction(pairs, 0, "age")


# Heatmap and embedding.


def test_heatmap_shows_rows_in_the_order_of_the_leaves():
    e = make()
    found = cluster_rows(e, n_clusters=3)
    ax = plots.heatmap(e, found, max_features=2, output_unit="m")
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), e.values[found.order][:, [1, 2]].T)
    assert image.norm.vmin == -image.norm.vmax
    assert to_hex(image.cmap(0.0)) == DOWN
    assert to_hex(image.cmap(1.0)) == UP
    assert [label.get_text() for label in ax.get_yticklabels()] == ["f1", "f2"]
    above = ax.child_axes[0]
    np.testing.assert_array_equal(above.lines[0].get_ydata(), e.prediction[found.order])
    sizes = np.bincount(found.labels)
    np.testing.assert_allclose(
        [line.get_xdata()[0] for line in ax.lines], np.cumsum(sizes)[:-1] - 0.5
    )
    table = plots.table(ax)
    assert table.columns.tolist() == ["group", "rows", "mean output", "f1", "f2"]
    assert table["rows"].tolist() == sizes.tolist()
    assert table.loc[1, "f1"] == pytest.approx(e.values[found.labels == 1, 1].mean())
    plots.heatmap(
        Explanation(np.zeros((3, 2)), 0.0),
        Clusters(np.arange(3), np.zeros(3, int), np.zeros((2, 4))),
    )
    with pytest.raises(
        ValueError, match="clusters: expected cluster_rows of the 39 explained rows"
    ):
        plots.heatmap(e[1:], found)
    with pytest.raises(ValueError, match="explanation: expected at least two rows"):
        plots.heatmap(e[:1])


def test_embedding_draws_the_points_and_says_what_they_are_made_of():
    e = make()
    found = embed_rows(e, n_components=3)
    ax = plots.embedding(
        found, color_by=e.prediction, color_name="output", feature_names=e.names, unit="m"
    )
    np.testing.assert_allclose(ax.collections[0].get_offsets(), found.points[:, :2])
    np.testing.assert_allclose(ax.collections[0].get_array(), to_unit(e.prediction))
    assert ax.get_xlabel() == f"component 1, {found.explained[0]:.0%} of the variance (m)"
    bar = ax.figure.axes[-1]
    assert bar.get_ylabel() == "output"
    assert [label.get_text() for label in bar.get_yticklabels()] == [
        f"{q:.2g}" for q in np.percentile(e.prediction, [5, 95])
    ]
    table = plots.table(ax)
    assert table.loc[0, "made of"].startswith("+") and table.loc[0, "made of"].endswith(
        ("f0", "f2", "f3")
    )
    assert table["covariance with output"][1] == pytest.approx(
        np.cov(found.points[:, 1], e.prediction, ddof=0)[0, 1]
    )
    groups = plots.embedding(
        found, color_by=np.where(e.values[:, 1] > 0, "up", None), color_name="side"
    )
    assert [text.get_text() for text in groups.get_legend().get_texts()] == ["up", "missing"]
    assert len(plots.embedding(found).figure.axes) == 1
    with pytest.raises(
        ValueError, match=r"color_by: expected 40 values, one a row, got shape \(3,\)"
    ):
        plots.embedding(found, color_by=[1, 2, 3])
    with pytest.raises(
        ValueError, match="embedded: expected an Embedding of at least two components"
    ):
        plots.embedding(embed_rows(e, n_components=1))


# One row against several backgrounds.


@pytest.mark.parametrize("kind", ["waterfall", "force"])
def test_compare_puts_one_row_on_one_scale(kind):
    e = make()
    other = Explanation(e.values / 4, 1.0, data=e.data, feature_names=e.names)
    figure = plots.compare({"everybody": e, "men $x$": other}, row=-1, kind=kind, output_unit="m")
    left, right = figure.axes
    assert [left.get_title(), right.get_title()] == ["everybody", r"men \$x\$"]
    assert left.get_xlim() == right.get_xlim()
    for ax, one in ((left, e), (right, other)):
        assert f"output {one.prediction[39]:.4g}" in [text.get_text() for text in ax.texts]
        if kind == "waterfall":
            assert sum(patch.get_width() for patch in ax.patches) == pytest.approx(
                one.values[39].sum()
            )
    table = plots.table(figure)
    order = np.argsort(-np.abs(e.values[39]))
    assert table["feature"].tolist() == ["base value", *[f"f{j}" for j in order], "output"]
    np.testing.assert_allclose(
        table["men $x$"], [1.0, *other.values[39, order], other.prediction[39]]
    )
    part = plots.table(plots.compare({"a": e[:, ["f0"]], "b": other[:, ["f0"]]}, kind=kind))
    assert part["feature"].tolist() == ["base value", "f0", "features left out", "output"]
    assert part["a"][:3].sum() == pytest.approx(part["a"][3])


def test_compare_needs_the_same_features():
    with pytest.raises(
        ValueError,
        match="explanations: expected at least one explanation, all of the same features",
    ):
        plots.compare({"a": make(), "b": make()[:, ["f1", "f0"]]})
    with pytest.raises(ValueError, match="kind: expected one of 'waterfall', 'force', got 'bar'"):
        plots.compare({"a": make()}, kind="bar")
    with pytest.raises(ValueError, match="row: expected an integer"):
        plots.compare({"a": make()}, row=40)


# Images.


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_beside_their_signed_maps(channels):
    e = make_images(channels=channels, outputs=2)
    figure = plots.images(e, rows=[2, 0])
    panels = [ax for ax in figure.axes if ax.images][:6]
    assert [ax.get_title() for ax in panels[:3]] == ["image", r"\$no", "yes"]
    maps = e.values.sum(axis=1)
    for place, n in enumerate((2, 0)):
        image, no, yes = panels[3 * place : 3 * place + 3]
        shown = np.moveaxis(e.data[n], 0, -1) if channels == 3 else e.data[n, 0]
        np.testing.assert_allclose(
            image.images[0].get_array(), (shown - shown.min()) / np.ptp(shown)
        )
        np.testing.assert_allclose(no.images[0].get_array(), maps[n, ..., 0])
        np.testing.assert_allclose(yes.images[0].get_array(), maps[n, ..., 1])
        assert yes.get_xlabel() == f"sum {maps[n, ..., 1].sum():+.3g}"
    assert {
        ax.images[0].norm.vmax
        for ax in panels
        if ax.get_title() != "image" and "row" not in ax.get_xlabel()
    } == {np.percentile(np.abs(maps[[2, 0]]), 99.5)}
    table = plots.table(figure)
    assert table["map"].tolist() == ["$no", "yes", "$no", "yes"]
    np.testing.assert_allclose(table["raises"] + table["lowers"], table["sum"])
    assert table.loc[1, "most raising pixel"] == tuple(
        np.unravel_index(maps[2, ..., 1].argmax(), (5, 4))
    )
    one = plots.table(plots.images({"ours": e, "theirs": e}, output="yes", rows=[1]))
    assert one["map"].tolist() == ["ours yes", "theirs yes"]


def test_images_take_plain_maps_and_refuse_tables():
    flat = Explanation(np.ones((2, 3, 3)), 0.0, data=np.zeros((2, 3, 3)))
    assert plots.table(plots.images(flat))["map"].tolist() == ["contribution"] * 2
    with pytest.raises(ValueError, match="explanation: expected attributions of images"):
        plots.images(make())
    with pytest.raises(
        ValueError, match="explanation: expected explanations of the same images, with data"
    ):
        plots.images(Explanation(np.ones((2, 3, 3)), 0.0))
    with pytest.raises(ValueError, match="explanation: expected explanations of the same images"):
        plots.images({"a": make_images(3), "b": make_images(2)})
    with pytest.raises(ValueError, match="output: expected None, as the model has one output"):
        plots.images(flat, output=1)
    with pytest.raises(ValueError, match="row: expected an integer"):
        plots.images(flat, rows=[2])


# Partial dependence.


def test_partial_dependence_draws_every_curve_and_their_mean():
    X = make(30).data
    grid = [-1.0, 0.0, 2.0]
    ax = plots.partial_dependence(bent, X, 0, grid=grid, color_by="x1", unit="kg", output_unit="m")
    curves = np.array([[z * x[1] + x[2] for z in grid] for x in X])
    drawn = np.stack(ax.collections[0].get_segments())
    np.testing.assert_allclose(drawn[:, :, 0], np.tile(grid, (30, 1)))
    np.testing.assert_allclose(drawn[:, :, 1], curves)
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), curves.mean(axis=0))
    np.testing.assert_allclose(ax.collections[0].get_array(), to_unit(X[:, 1]))
    ax.figure.canvas.draw()
    assert len(np.unique(ax.collections[0].get_edgecolor(), axis=0)) > 15
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x0 (kg)", "output (m)")
    table = plots.table(ax)
    assert table["x0 (kg)"].tolist() == grid
    np.testing.assert_allclose(table["5% of rows above"], np.quantile(curves, 0.95, axis=0))
    ax = plots.partial_dependence(bent, X, 0, grid=grid, centered=True, max_curves=5, rng=1)
    assert len(ax.collections[0].get_segments()) == 5
    np.testing.assert_allclose(
        ax.lines[-1].get_ydata(),
        (curves - curves.mean(axis=1, keepdims=True)).mean(axis=0),
        atol=1e-15,
    )


def test_partial_dependence_keeps_frames_and_chooses_a_grid():
    seen = []
    frame = pd.DataFrame({"size": [1, 2, 3, 2], "kind": pd.Categorical(["a", "b", "a", "b"])})

    def model(Z):
        seen.append(Z["kind"].dtype)
        return np.column_stack([Z["size"], -Z["size"]])

    before = frame.copy()
    ax = plots.partial_dependence(model, frame, "size", output=1, color_by="kind")
    assert ax.lines[-1].get_xdata().tolist() == [1, 2, 3]
    assert ax.lines[-1].get_ydata().tolist() == [-1, -2, -3]
    assert set(map(str, seen)) == {"category"}
    pd.testing.assert_frame_equal(frame, before)
    X = make(200).data
    many = plots.partial_dependence(bent, X, "x1")
    np.testing.assert_allclose(
        many.lines[-1].get_xdata(), np.linspace(*np.percentile(X[:, 1], [1, 99]), 25)
    )
    with pytest.raises(ValueError, match="output: expected one of 0 to 1, got None"):
        plots.partial_dependence(model, frame, "size")
    with pytest.raises(ValueError, match="feature: expected a column of numbers, got kind"):
        plots.partial_dependence(model, frame, "kind", output=0)
    with pytest.raises(ValueError, match="grid: expected at least two increasing numbers"):
        plots.partial_dependence(bent, make().data, 0, grid=[1.0, 1.0])
    with pytest.raises(ValueError, match="feature: expected one of x0"):
        plots.partial_dependence(bent, make().data, "age")


# Layouts of pictures.


@pytest.mark.parametrize("shape", [(3, 8, 9), (8, 9, 3), (1, 8, 9), (8, 9, 1), (8, 9), (16, 9, 9)])
def test_pictures_are_drawn_whichever_axis_the_channels_are(shape):
    rng = np.random.default_rng(0)
    values, data = rng.normal(size=(2, *shape)), rng.random((2, *shape))
    drawn = plots.images(Explanation(values, 0.0, data=data), rows=[1])
    channels = {(3, 8, 9): 1, (1, 8, 9): 1, (16, 9, 9): 1, (8, 9, 3): 3, (8, 9, 1): 3}.get(shape)
    expected = values[1] if channels is None else values.sum(axis=channels)[1]
    picture, shown = (ax.images[0].get_array() for ax in drawn.axes[:2])
    np.testing.assert_allclose(np.asarray(shown), expected, rtol=1e-12)
    assert picture.shape[:2] == expected.shape
    plt.close(drawn)


def test_a_layout_that_cannot_be_told_is_refused():
    cube = np.zeros((2, 9, 9, 9))
    with pytest.raises(ValueError, match=r"explanation: expected images .*which may be either"):
        plots.images(Explanation(cube, 0.0, data=cube))
    # Maps without channels beside pictures with channels last.
    values, data = np.ones((2, 8, 9)), np.zeros((2, 8, 9, 3))
    drawn = plots.images(Explanation(values, 0.0, data=data))
    assert drawn.axes[0].images[0].get_array().shape == (8, 9, 3)
    plt.close(drawn)


def test_interaction_bars_rank_subsets_with_their_signs():
    found = make_subsets()
    ax = plots.interaction_bars(found, max_subsets=4, output_unit="m")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "f0 × f1 × f2"
    assert labels[1] == "f0 × f3"
    assert labels[2] == "f1"
    assert labels[3] == f"{len(found) - 3} other subsets"
    lengths = [bar.get_width() for bar in ax.patches]
    assert lengths[:3] == pytest.approx([found[0, 1, 2], -2.0, 0.5])
    colours = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colours[:2] == [UP if lengths[0] > 0 else DOWN, DOWN]
    assert ax.get_xlabel() == "Moebius interaction (m)"
    table = plots.table(ax)
    assert list(table.columns) == ["subset", "players", "Moebius interaction"]
    assert table["subset"][0] == "f0 × f1 × f2"
    assert table["players"][:3].tolist() == [3, 2, 1]
    assert len(table) == len(found)


def test_a_network_has_lines_by_strength_and_sign():
    def game(S):
        return S @ [1.0, 0.0, 0.0, -2.0] + 3.0 * S[:, 0] * S[:, 1] - S[:, 1] * S[:, 2]

    found = shaplab.interaction_values(game, 4, order=2, index="Moebius")
    ax = plots.interaction_network(found, output_unit="m", max_pairs=2)
    strongest = 3.0
    assert ax.get_xlabel() == "Moebius interaction (m); widest line 3"
    table = plots.table(ax)
    assert list(table.columns) == ["one", "other", "Moebius interaction"]
    assert table["Moebius interaction"].tolist() == [3.0, -1.0]
    assert table["one"].tolist() == ["x0", "x1"]
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2]
    drawn = sorted(lines, key=lambda line: -line.get_linewidth())
    for line, number in zip(drawn, table["Moebius interaction"], strict=True):
        assert to_hex(line.get_color()) == (UP if number > 0 else DOWN)
        assert line.get_linestyle() == ("-" if number > 0 else "--")
        assert line.get_linewidth() == pytest.approx(9.0 * abs(number) / strongest)
    discs = [line for line in ax.lines if len(line.get_xdata()) == 1]
    areas = [disc.get_markersize() ** 2 for disc in discs]
    # Players 3 and 0 alone: -2 and 1.
    assert areas[3] == pytest.approx(2 * areas[0])
    assert to_hex(discs[3].get_color()) == DOWN and to_hex(discs[0].get_color()) == UP
    assert [text.get_text() for text in ax.texts] == ["x0", "x1", "x2", "x3"]


def test_a_network_of_rows_of_few_players_and_of_estimates():
    found = make_subsets(rows=5)
    ax = plots.interaction_network(found)
    assert ax.get_xlabel().startswith("mean |Moebius interaction|")
    assert {to_hex(line.get_color()) for line in ax.lines if len(line.get_xdata()) == 2} == {GREY}
    ax = plots.interaction_network(found, row=1)
    table = plots.table(ax)
    pair = table[(table["one"] == "f0") & (table["other"] == "f3")]
    assert pair["Moebius interaction"].item() == pytest.approx(-2.0)
    two = plots.interaction_network(found, max_players=2)
    assert [text.get_text() for text in two.texts] == ["f0", "f3"]
    guessed = shaplab.interaction_values(
        lambda S: S[:, :3].all(axis=1) * 1.0, 26, order=2, max_evaluations=900, rng=0
    )
    assert "standard error" in plots.table(plots.interaction_network(guessed))
    nothing = shaplab.interaction_values(lambda S: np.zeros(len(S)), 3, order=2)
    assert len(plots.table(plots.interaction_network(nothing))) == 3
    with pytest.raises(ValueError, match="max_pairs: expected an integer"):
        plots.interaction_network(found, max_pairs=0)
    with pytest.raises(ValueError, match="order: expected an integer >= 1 and <= 1"):
        plots.interaction_network(shaplab.interaction_values(lambda S: S[:, 0] * 1.0, 3, order=1))
    with pytest.raises(TypeError, match="interactions: expected Interactions, or an Explanation"):
        plots.interaction_network(make())


def test_interaction_bars_of_rows_one_row_one_order_and_estimates():
    found = make_subsets(rows=5)
    ax = plots.interaction_bars(found)
    assert ax.get_xlabel() == "mean |Moebius interaction|"
    assert ax.patches[0].get_width() == pytest.approx(np.abs(found[0, 1, 2]).mean())
    ax = plots.interaction_bars(found, row=-1)
    assert plots.table(ax).set_index("subset")["Moebius interaction"]["f0 × f1 × f2"] == (
        pytest.approx(found[0, 1, 2][4])
    )
    ax = plots.interaction_bars(found, order=2)
    assert set(plots.table(ax)["players"]) == {2}
    guessed = shaplab.interaction_values(
        lambda S: S[:, :3].all(axis=1) * 1.0, 26, order=2, max_evaluations=300, rng=0
    )
    ax = plots.interaction_bars(guessed)
    assert "standard error" in plots.table(ax)
    assert len(ax.collections) > 0
    several = shaplab.interaction_values(lambda S: np.ones((len(S), 3, 2)), 3, order=2)
    assert plots.interaction_bars(several, output=1).has_data()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r: plots.interaction_bars(make()),
            "interactions: expected Interactions, or an Explanation of interactions, got",
        ),
        (lambda r: plots.interaction_bars(r, order=4), "order: expected an integer >= 1 and <= 3"),
        (lambda r: plots.interaction_bars(r, row=1), "row: expected an integer"),
        (lambda r: plots.interaction_bars(r, max_subsets=0), "max_subsets: expected an integer"),
        (lambda r: plots.interaction_bars(r, output=0), "output: expected None"),
        (lambda r: plots.interaction_bars(r, ax=3), "ax: expected 1 Axes"),
        (
            lambda r: plots.interaction_bars(
                shaplab.interaction_values(lambda S: np.ones((len(S), 2, 2, 2)), 2, order=2)
            ),
            "interactions: expected a payoff of one number",
        ),
        (
            lambda r: plots.interaction_bars(
                shaplab.interaction_values(lambda S: np.ones((len(S), 2, 2)), 2, order=2)
            ),
            "output: expected one of 0, 1, got None",
        ),
        (
            lambda r: plots.interaction_bars(
                shaplab.Interactions(np.zeros((0, 1)), (), 2, "SII", np.zeros(1), 3)
            ),
            "interactions: expected at least one subset",
        ),
    ],
)
def test_interaction_bars_refuse_what_they_cannot_draw(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(make_subsets())
    assert not plt.get_fignums()
