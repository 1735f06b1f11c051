"""Plots: what is drawn (positions, order, labels), not pixels; and what they leave alone."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

mpl.use("Agg")
import matplotlib.pyplot as plt

from shaplab import Explanation, plots
from shaplab._figures import DOWN, UP, codes_of, escape, spread_out, to_unit
from shaplab._validation import digits

ALL = ["waterfall", "bar", "beeswarm", "scatter", "force"]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def make(n: int = 40, d: int = 4, std: bool = False, **options: object) -> Explanation:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(n, d))
    values = X * np.array([0.5, -2.0, 1.0, 0.1, *[0.01] * max(0, d - 4)])[:d]
    return Explanation(
        values,
        3.0,
        data=X,
        feature_names=[f"f{j}" for j in range(d)],
        std=np.full((n, d), 0.25) if std else None,
        **options,
    )


def draw(name: str, e: Explanation, **options: object):
    return (
        getattr(plots, name)(e, 0, **options)
        if name == "scatter"
        else getattr(plots, name)(e, **options)
    )


def words(ax) -> list[str]:
    ax.figure.canvas.draw()
    labels = [
        *ax.get_xticklabels(),
        *ax.get_yticklabels(),
        ax.xaxis.label,
        ax.yaxis.label,
        *ax.texts,
    ]
    return [label.get_text() for label in labels if label.get_text()]


def bars(ax) -> list[tuple[float, float, float]]:
    """(start, length, height on the page) of each bar."""
    return [(p.get_x(), p.get_width(), p.get_y() + p.get_height() / 2) for p in ax.patches]


# What every plot must and must not do.


@pytest.mark.parametrize("name", ALL)
def test_it_returns_the_axes_it_was_given(name: str) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert draw(name, make(), ax=right) is right
    assert not left.has_data()
    assert right.figure is figure


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_the_user_is_changed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plt, "show", lambda *args, **options: pytest.fail("plots must not be shown")
    )
    before, state = dict(mpl.rcParams), np.random.get_state()[1].copy()  # noqa: NPY002
    e = make(std=True)
    draw(name, e)
    assert dict(mpl.rcParams) == before
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    np.testing.assert_array_equal(e.values, make(std=True).values)


def test_importing_plots_loads_no_matplotlib_and_sets_nothing() -> None:
    code = "import sys, shaplab.plots; assert not [m for m in sys.modules if m.startswith('matplotlib')]"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ALL)
def test_a_figure_is_opaque_white_with_dark_text_in_any_style(name: str) -> None:
    with plt.style.context("dark_background"):
        ax = draw(name, make())
        ax.figure.canvas.draw()
    assert to_hex(ax.figure.get_facecolor(), keep_alpha=True) == "#ffffffff"
    assert to_hex(ax.get_facecolor(), keep_alpha=True) == "#ffffffff"
    labels = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, *ax.texts]
    for text in [text for text in labels if text.get_text()]:
        assert contrast(to_hex(text.get_color())) >= 4.5, f"{text.get_text()} is {text.get_color()}"


def contrast(colour: str) -> float:
    """WCAG contrast against white."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 1.05 / (float(np.dot(linear, [0.2126, 0.7152, 0.0722])) + 0.05)


@pytest.mark.parametrize("name", ALL)
def test_hostile_names_and_values_are_drawn_as_they_are_and_cut(name: str) -> None:
    names = [
        "<script>alert('x')</script>",
        "$\\frac{1}{2}$ & $b_1",
        "quo\"te's\nand lines",
        "n" * 500,
        "$",
    ]
    e = Explanation(
        np.arange(1.0, 6.0)[None] * np.ones((3, 1)),
        0.0,
        feature_names=names,
        data=np.array([["$x$", "y" * 300, "<b>", "a\n\tb", "$\\alpha$"]] * 3, dtype=object),
    )
    ax = draw(name, e)
    ax.figure.canvas.draw()
    drawn = [text for text in ax.figure.findobj(mpl.text.Text) if text.get_text()]
    for text in drawn:
        said, is_math = text._preprocess_math(text.get_text())
        assert not is_math, f"{said} would be read as a formula"
        assert max(map(len, said.split("\n"))) <= 80
    if name != "scatter":
        assert any("<script>" in text.get_text() for text in drawn)
        assert any("n…n" in text.get_text() for text in drawn)


def test_escape_shows_every_dollar_sign() -> None:
    label = mpl.text.Text(0, 0, escape("a $x_1$ \\$ b$"))
    assert label._preprocess_math(label.get_text()) == ("a $x_1$ \\$ b$", False)
    assert len(escape("x" * 500)) == 34


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "case", ["one row", "one feature", "zeros", "no data", "all missing", "constant"]
)
def test_unusual_explanations_can_be_drawn(name: str, case: str) -> None:
    e = make(1 if case == "one row" else 20, 1 if case == "one feature" else 4)
    if case == "zeros":
        e = Explanation(np.zeros((5, 3)), 0.0, data=np.zeros((5, 3)), std=np.zeros((5, 3)))
    elif case == "no data":
        e = Explanation(e.values, 1.0)
        if name == "scatter":
            with pytest.raises(
                ValueError, match="explanation: expected an explanation with the explained rows"
            ):
                plots.scatter(e, 0)
            return
    elif case == "all missing":
        e = Explanation(e.values, 1.0, data=np.full((20, 4), np.nan))
    elif case == "constant":
        e = Explanation(e.values, 1.0, data=np.ones((20, 4)))
    draw(name, e).figure.canvas.draw()
    plots.table(e)
    plots.table(e, row=0)


@pytest.mark.parametrize("name", ALL)
def test_several_outputs_need_a_choice(name: str) -> None:
    e = Explanation(
        np.ones((3, 2, 2)), np.zeros((3, 2)), data=np.ones((3, 2)), output_names=["yes", "no"]
    )
    with pytest.raises(ValueError, match="output: expected one of yes, no, got None"):
        draw(name, e)
    assert draw(name, e, output="no") is not None
    with pytest.raises(ValueError, match="output: expected None"):
        draw(name, make(), output=0)


@pytest.mark.parametrize("name", ALL)
def test_images_and_interactions_are_refused(name: str) -> None:
    for e in (
        Explanation(np.ones((2, 3, 3)), 0.0),
        Explanation(np.ones((2, 3, 3)), 0.0, interaction=True),
    ):
        with pytest.raises(
            ValueError, match=r"explanation: expected attributions of shape \(N, d\)"
        ):
            draw(name, e)


# Waterfall and force.


def test_waterfall_goes_from_the_base_to_the_output() -> None:
    e = make()
    ax = plots.waterfall(e, row=5)
    drawn = sorted(bars(ax), key=lambda bar: bar[2])
    order = np.argsort(np.abs(e.values[5]))
    np.testing.assert_allclose([length for _, length, _ in drawn], e.values[5, order])
    assert drawn[0][0] == pytest.approx(3.0)
    for (start, length, _), (following, _, _) in pairwise(drawn):
        assert start + length == pytest.approx(following)
    assert sum(drawn[-1][:2]) == pytest.approx(e.prediction[5])
    ax.figure.canvas.draw()
    labels = {round(label.get_position()[1]): label.get_text() for label in ax.get_yticklabels()}
    for place, j in enumerate(order):
        assert labels[place] == f"f{j} = {e.data[5, j]:.4g}"
    for patch in ax.patches:
        assert to_hex(patch.get_facecolor()) == (UP if patch.get_width() >= 0 else DOWN)
    assert f"output {e.prediction[5]:.4g}" in words(ax)
    assert "base value 3" in words(ax)


def test_waterfall_puts_small_steps_together_with_what_was_sliced_away() -> None:
    e = make(d=10)
    ax = plots.waterfall(e, row=2, max_features=4)
    assert "7 other features" in words(ax)
    assert len(ax.patches) == 4
    lowest = min(bars(ax), key=lambda bar: bar[2])
    assert lowest[1] == pytest.approx(e.values[2, np.argsort(np.abs(e.values[2]))[:7]].sum())
    part = e[:, ["f1", "f2"]]
    ax = plots.waterfall(part, row=2)
    assert "features left out" in words(ax)
    assert sum(length for _, length, _ in bars(ax)) == pytest.approx(e.prediction[2] - 3.0)


def test_waterfall_units_and_missing_values() -> None:
    data = np.array([[5.0, None, 1.0]], dtype=object)
    e = Explanation([[1.0, 2.0, 3.0]], 0.0, data=data, feature_names=["a", "b", "c"])
    said = words(plots.waterfall(e, units={"a": "kg", "c": "1 = yes"}, output_unit="log-odds"))
    assert {"a = 5 kg", "b = missing", "c = 1", "output (log-odds)"} <= set(said)
    assert "a = 5 m" in words(plots.waterfall(e, units=["m", "", ""]))
    with pytest.raises(ValueError, match="units: expected 3 units"):
        plots.waterfall(e, units=["m"])


@pytest.mark.parametrize("name", ["waterfall", "bar"])
def test_standard_errors_are_drawn_when_there_are_some(name: str) -> None:
    assert not draw(name, make()).containers[1:]
    ax = draw(name, make(std=True))
    segments = ax.containers[1].lines[2][0].get_segments()
    for (left, _), (right, _) in segments:
        assert right - left == pytest.approx(0.5)
    assert len(segments) == 4


def test_beeswarm_and_scatter_draw_standard_errors_as_lines() -> None:
    for name, expected in (("beeswarm", 160), ("scatter", 40)):
        lines = [
            c
            for c in draw(name, make(std=True)).collections
            if isinstance(c, mpl.collections.LineCollection)
        ]
        assert sum(len(c.get_segments()) for c in lines) == expected


def test_force_segments_meet_at_the_output_and_cover_all_contributions() -> None:
    e = make()
    ax = plots.force(e, row=1)
    pushing = {UP: [], DOWN: []}
    for patch in ax.patches:
        x = patch.get_xy()[:, 0]
        pushing[to_hex(patch.get_facecolor())].append((x[0], x[2]))
    values, prediction = e.values[1], e.prediction[1]
    assert sum(tip - end for end, tip in pushing[UP]) == pytest.approx(values[values > 0].sum())
    assert sum(tip - end for end, tip in pushing[DOWN]) == pytest.approx(values[values < 0].sum())
    for segments in pushing.values():
        assert segments[0][1] == pytest.approx(prediction)
        lengths = [abs(tip - end) for end, tip in segments]
        assert lengths == sorted(lengths, reverse=True)
    assert f"output {prediction:.4g}" in words(ax)


def test_rows_are_checked() -> None:
    e = make()
    assert bars(plots.waterfall(e, row=-1)) == bars(plots.waterfall(e, row=39))
    for bad in (40, -41, 1.0, "first"):
        with pytest.raises((ValueError, TypeError), match="row: expected an integer"):
            plots.waterfall(e, row=bad)
    with pytest.raises(ValueError, match="max_features: expected an integer >= 1"):
        plots.waterfall(e, max_features=0)


# Bar and beeswarm.


def test_bar_shows_mean_sizes_largest_on_top() -> None:
    e = make()
    ax = plots.bar(e, output_unit="minutes")
    sizes = np.abs(e.values).mean(axis=0)
    top_down = sorted(bars(ax), key=lambda bar: -bar[2])
    np.testing.assert_allclose([length for _, length, _ in top_down], np.sort(sizes)[::-1])
    ax.figure.canvas.draw()
    labels = sorted(ax.get_yticklabels(), key=lambda label: -label.get_position()[1])
    assert [label.get_text() for label in labels] == [f"f{j}" for j in np.argsort(-sizes)]
    assert ax.get_xlabel() == "mean |contribution| (minutes)"
    ax = plots.bar(e, max_features=2)
    assert "3 other features" in words(ax)
    assert min(bars(ax), key=lambda bar: bar[2])[1] == pytest.approx(np.sort(sizes)[:3].sum())


def test_beeswarm_points_are_the_values_on_their_rows() -> None:
    e = make()
    ax = plots.beeswarm(e, max_features=3)
    (points,) = [c for c in ax.collections if isinstance(c, mpl.collections.PathCollection)]
    x, y = points.get_offsets().T
    order = np.argsort(-np.abs(e.values).mean(axis=0))[:3]
    np.testing.assert_allclose(x, e.values[:, order].T.ravel())
    assert (np.round(y) == np.repeat([2, 1, 0], 40)).all()
    assert np.abs(y - np.round(y)).max() <= 0.4 + 1e-12
    colours = points.get_array().reshape(3, 40)
    for j, row in zip(order, colours, strict=True):
        middle = np.argsort(e.data[:, j])[5:-5]
        assert (np.diff(row[middle]) >= 0).all()
    assert "feature value" in [a.get_ylabel() for a in ax.figure.axes]


def test_heights_come_from_rng_only() -> None:
    def heights(rng):
        return plots.beeswarm(make(), rng=rng).collections[-1].get_offsets()[:, 1]

    np.testing.assert_array_equal(heights(1), heights(1))
    assert not np.array_equal(heights(1), heights(2))
    np.testing.assert_array_equal(heights(1), heights(np.random.default_rng(1)))


def test_equal_values_are_spread_apart() -> None:
    heights = spread_out(np.array([1.0] * 9 + [5.0]), np.random.default_rng(0))
    assert len(np.unique(heights[:9])) == 9
    assert np.abs(heights).max() == pytest.approx(0.4)
    assert heights[9] == 0


def test_missing_values_are_rings_in_a_colour_of_their_own() -> None:
    data = np.array([[1.0], [np.nan], [3.0], [np.nan]])
    ax = plots.beeswarm(Explanation(np.arange(4.0)[:, None], 0.0, data=data))
    filled, rings = [c for c in ax.collections if isinstance(c, mpl.collections.PathCollection)]
    np.testing.assert_array_equal(filled.get_offsets()[:, 0], [0, 2])
    np.testing.assert_array_equal(rings.get_offsets()[:, 0], [1, 3])
    assert len(rings.get_facecolor()) == 0
    ring = rings.get_edgecolor()[0, :3]
    scale = mpl.colormaps["cividis"](np.linspace(0, 1, 50))[:, :3]
    assert np.linalg.norm(scale - ring, axis=1).min() > 0.4


# Scatter.


def test_scatter_draws_value_against_contribution() -> None:
    e = make()
    ax = plots.scatter(e, "f1", color_by="f2", units={"f1": "kg"}, output_unit="minutes")
    points = ax.collections[-1]
    np.testing.assert_allclose(
        points.get_offsets(), np.column_stack([e.data[:, 1], e.values[:, 1]])
    )
    np.testing.assert_allclose(points.get_array(), to_unit(e.data[:, 2]))
    assert ax.get_xlabel() == "f1 (kg)"
    assert ax.get_ylabel() == "contribution (minutes)"
    assert "f2" in [a.get_ylabel() for a in ax.figure.axes]
    with pytest.raises(ValueError, match="feature: expected one of f0, f1, f2, f3, got 'f9'"):
        plots.scatter(e, "f9")
    with pytest.raises(ValueError, match="color_by: expected an integer"):
        plots.scatter(e, 0, color_by=7)


def test_scatter_of_categories_and_missing_values() -> None:
    data = np.array([["red"], ["blue"], [None], ["red"], [np.nan]], dtype=object)
    ax = plots.scatter(
        Explanation(np.arange(5.0)[:, None], 0.0, data=data, feature_names=["colour"]), "colour"
    )
    x, y = ax.collections[-1].get_offsets().T
    np.testing.assert_array_equal(y, range(5))
    np.testing.assert_array_equal(np.round(x[[0, 1, 3]]), [1, 0, 1])
    line = next(text.get_position()[0] for text in ax.texts if text.get_text() == "missing")
    assert (x[[2, 4]] < x[[0, 1, 3]].min()).all()
    assert np.abs(x[[2, 4]] - line).max() < 0.1
    assert [label.get_text() for label in ax.get_xticklabels()] == ["blue", "red"]


# Helpers.


def test_codes_of_mixed_columns() -> None:
    numbers, labels = codes_of(np.array([1, None, 2.5], dtype=object))
    np.testing.assert_array_equal(numbers, [1, np.nan, 2.5])
    assert labels is None
    codes, labels = codes_of(np.array(["b", None, "a", "b"], dtype=object))
    np.testing.assert_array_equal(codes, [1, np.nan, 0, 1])
    assert labels == ["a", "b"]


def test_to_unit_keeps_missing_and_survives_constants() -> None:
    np.testing.assert_array_equal(to_unit(np.array([2.0, np.nan, 2.0])), [0.5, np.nan, 0.5])
    np.testing.assert_array_equal(to_unit(np.array([np.nan])), [np.nan])
    rare = to_unit(np.array([0.0] * 99 + [1.0]))
    assert rare[-1] == 1
    assert rare[0] == 0


# The table for readers who cannot see a plot.


def test_table_of_a_row_says_what_the_waterfall_says() -> None:
    e = make(std=True)
    table = plots.table(e, row=5, units={"f1": "kg"})
    order = np.argsort(-np.abs(e.values[5]))
    assert table["feature"].tolist() == ["base value", *[f"f{j}" for j in order], "output"]
    np.testing.assert_allclose(table["contribution"], [3.0, *e.values[5, order], e.prediction[5]])
    assert table.loc[table["feature"] == "f1", "value"].item() == f"{e.data[5, 1]:.4g} (kg)"
    assert table["standard error"][1] == 0.25
    part = plots.table(e[:, ["f0"]], row=5)
    assert part["feature"].tolist() == ["base value", "f0", "features left out", "output"]
    assert part["contribution"][:3].sum() == pytest.approx(part["contribution"][3])


def test_table_of_all_rows_says_what_the_bars_say() -> None:
    e = make()
    table = plots.table(e)
    assert table["feature"].tolist() == ["f1", "f2", "f0", "f3"]
    np.testing.assert_allclose(
        table["mean |contribution|"], np.sort(np.abs(e.values).mean(axis=0))[::-1]
    )
    np.testing.assert_allclose(table["direction"], [-1, 1, 1, 1])


def test_table_of_a_feature_says_what_the_scatter_says() -> None:
    e = make(100)
    table = plots.table(e, feature="f1", units={"f1": "kg"})
    assert table.columns[0] == "f1 (kg)"
    assert table["rows"].sum() == 100
    assert (np.diff(table["mean contribution"]) < 0).all()
    np.testing.assert_allclose(
        table["rows"] @ table["mean contribution"] / 100, e.values[:, 1].mean()
    )
    data = np.array([["b"], ["a"], [None], ["b"]], dtype=object)
    words = plots.table(Explanation(np.arange(4.0)[:, None], 0.0, data=data), feature=0)
    assert words.iloc[:, 0].tolist() == ["a", "b", "missing"]
    assert words["rows"].tolist() == [1, 2, 1]
    with pytest.raises(ValueError, match="feature: expected None when row is given"):
        plots.table(e, row=0, feature=0)


def test_table_is_escaped_by_pandas() -> None:
    e = Explanation([[1.0]], 0.0, feature_names=["<script>alert(1)</script>"])
    assert isinstance(plots.table(e), pd.DataFrame)
    assert "<script>" not in plots.table(e)._repr_html_()


def test_the_bar_of_one_row_keeps_signs():
    e = Explanation([[-2.0, 1.0, 0.5]], 3.0, feature_names=["a", "b", "c"], std=[[0.1, 0.2, 0.3]])
    ax = plots.bar(e)
    assert [bar.get_width() for bar in ax.patches] == [-2.0, 1.0, 0.5]
    assert {"-2", "+1", "+0.5"} <= {text.get_text() for text in ax.texts}
    assert ax.get_xlim()[0] < -2.1
    assert ax.get_xlabel() == "contribution"
    told = plots.table(ax).set_index("feature")["contribution"]
    assert told["a"] == -2.0
    assert told["output"] == 2.5
    plt.close(ax.figure)


def test_what_was_sliced_away_is_no_other_feature_of_a_waterfall():
    values = np.array([[5.0, 3.0, 1.0, 0.5, 100.0]])
    e = Explanation(values, 0.0, feature_names=list("abcde"))[:, list("abcd")]
    ax = plots.waterfall(e, max_features=3)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert sorted(labels) == ["2 other features", "a", "b", "features left out"]
    widths = dict(zip(labels, [bar.get_width() for bar in ax.patches], strict=True))
    assert widths["2 other features"] == 1.5
    assert widths["features left out"] == 100.0
    plt.close(ax.figure)


def test_missing_values_of_nullable_columns_are_drawn_as_missing():
    import pandas as pd

    X = np.array([[1.0, pd.NA], [pd.NA, "b"], [2.0, "a"]], dtype=object)
    e = Explanation(np.ones((3, 2)), 0.0, data=X)
    for draw in (plots.beeswarm, plots.waterfall, lambda e: plots.scatter(e, 0, color_by=1)):
        ax = draw(e)
        assert len(plots.table(ax)) > 0
        plt.close(ax.figure)
    assert "missing" in str(plots.table(e, row=1)["value"].tolist())


def test_numbers_are_written_as_people_write_them():
    e = Explanation([[1500.0, -1500.0]], -8.9e-16, feature_names=["a", "b"])
    for draw in (plots.waterfall, plots.force, plots.bar):
        ax = draw(e)
        text = " ".join(part.get_text() for part in ax.texts)
        assert "+1500" in text
        assert "e+" not in text and "e-" not in text
        plt.close(ax.figure)
    assert "e-16" not in repr(e) and "+1500" in repr(e)
    # Below a ten-thousandth and from a billion on, powers of ten are shorter.
    assert [digits(x, 3) for x in (1e-5, 0.001, 123456.0, 2e9)] == [
        "1e-05",
        "0.001",
        "123456",
        "2e+09",
    ]
