"""Cohorts, rows as lines, violins, categories in colour, strongest pairs: what is drawn and told."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.collections import PathCollection

from shaplab import Explanation, interaction_values, plots
from shaplab._figures import CATEGORIES, GREY
from shaplab.insight.summaries import embed_rows

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4))
SLOPES = np.array([0.5, -2.0, 1.0, 0.1])
KINDS = np.array(["red", "green", "blue"])[np.arange(60) % 3]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def make(**options) -> Explanation:
    return Explanation(X * SLOPES, 3.0, **({"data": X, "feature_names": list("abcd")} | options))


def points(ax):
    return [part for part in ax.collections if isinstance(part, PathCollection)]


# Cohorts.


@pytest.mark.parametrize(
    "cohorts",
    [
        KINDS,
        pd.Series(KINDS),
        {kind: kind == KINDS for kind in ("blue", "green", "red")},
        {kind: np.flatnonzero(kind == KINDS) for kind in ("blue", "green", "red")},
    ],
)
def test_bars_of_cohorts_are_their_own_means(cohorts):
    ax = plots.bar(make(std=np.full(X.shape, 0.1)), cohorts=cohorts, max_features=3)
    named = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    assert list(named) == [f"{kind} (20 rows)" for kind in ("blue", "green", "red")]
    for kind, name in zip(("blue", "green", "red"), named, strict=True):
        wanted = np.abs((X * SLOPES)[kind == KINDS]).mean(axis=0)
        lengths = [bar.get_width() for bar in named[name]]
        np.testing.assert_allclose(lengths, wanted[[1, 2, 0]])
        told = plots.table(ax)
        assert told["feature"].tolist() == ["b", "c", "a", "d"]
        np.testing.assert_allclose(told[name], wanted[[1, 2, 0, 3]])


def test_cohorts_of_numbers_and_of_missing_labels():
    labels = np.where(np.arange(60) < 10, np.nan, np.arange(60) % 2)
    told = plots.table(plots.bar(make(), cohorts=labels))
    assert list(told.columns) == ["feature", "0 (25 rows)", "1 (25 rows)"]


@pytest.mark.parametrize(
    ("cohorts", "words"),
    [
        (KINDS[:5], r"shape \(5,\)"),
        (np.arange(60), "1 to 7 cohorts, got 60"),
        ({}, "1 to 7 cohorts, got 0"),
        ({"a": []}, "'a' with"),
        ({"a": [60]}, "'a' with"),
        ({"a": np.ones(3, bool)}, "mask of shape"),
        ({"a": "b"}, "'a' with b"),
    ],
)
def test_cohorts_that_do_not_fit(cohorts, words):
    with pytest.raises(ValueError, match=f"cohorts: expected .*{words}"):
        plots.bar(make(), cohorts=cohorts)


# Decision plot.


def test_lines_go_from_the_base_value_to_the_outputs():
    e = make()
    ax = plots.decision(e, rows=[4, -1], highlight=[4], max_features=3)
    lines = [line for line in ax.lines if len(line.get_xdata()) == 4]
    least, less, *most = np.argsort(np.abs(e.values[[4, -1]]).mean(axis=0))
    assert len(lines) == 2
    for line, row in zip(lines, (4, 59), strict=True):
        x = line.get_xdata()
        assert x[0] == 3.0
        np.testing.assert_allclose(x[1] - 3.0, e.values[row, [least, less]].sum())
        np.testing.assert_allclose(x[2] - x[1], e.values[row, most[0]])
        np.testing.assert_allclose(x[-1], e.prediction[row])
    assert lines[0].get_linewidth() > lines[1].get_linewidth()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["2 other features", *("abcd"[j] for j in most)]
    assert "2 of 60 rows" in ax.get_xlabel()
    told = plots.table(ax)
    assert told["row"].tolist() == [4, 59]
    np.testing.assert_allclose(told[f"after {labels[-1]}"], e.prediction[[4, 59]])


def test_lines_of_many_rows_are_a_part_that_is_told_and_keep_what_was_sliced_away():
    many = Explanation(rng.normal(size=(1200, 3)), rng.normal(size=1200))[:, :2]
    ax = plots.decision(many, highlight=[7])
    told = plots.table(ax)
    assert "501 of 1,200 rows" in ax.get_xlabel() or "500 of 1,200 rows" in ax.get_xlabel()
    assert 7 in told["row"].tolist()
    np.testing.assert_allclose(told.iloc[:, -1], many.prediction[told["row"]])
    assert list(told.columns[:3]) == ["row", "base value", "after features left out"]
    with pytest.raises(ValueError, match="row: expected"):
        plots.decision(many, rows=[1200])


# Violins.


def test_violins_have_the_quartiles_and_the_crowd_where_the_rows_are():
    e = make()
    ax = plots.violin(e, bins=20, max_features=3)
    order = [1, 2, 0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c", "a"]
    medians = [part.get_offsets()[0, 0] for part in points(ax)]
    np.testing.assert_allclose(medians, np.median(e.values[:, order], axis=0))
    told = plots.table(ax).set_index("feature")
    np.testing.assert_allclose(told.loc["c", "median"], np.median(e.values[:, 2]))
    np.testing.assert_allclose(told.loc["a", "third quartile"], np.percentile(e.values[:, 0], 75))
    reach = [
        body.get_paths()[0].get_extents().height
        for body in ax.collections
        if body not in points(ax)
    ]
    assert reach[2] == max(reach)  # the least spread feature is the most crowded


def test_violins_of_one_row_and_of_nothing_but_zero():
    for rows in (1, 9):
        ax = plots.violin(Explanation(np.zeros((rows, 2)), 0.0))
        ax.figure.canvas.draw()
        assert len(ax.get_yticks()) == 2
        low, high = ax.get_xlim()
        assert low < 0 < high
        assert (plots.table(ax)[["first quartile", "third quartile"]] == 0).all(axis=None)


# Categories and missing values.


def mixed() -> Explanation:
    data = np.array([["x", 1.0], ["y", np.nan], [None, 3.0], ["x", 5.0]], dtype=object)
    return Explanation(np.arange(8.0).reshape(4, 2), 0.0, data=data, feature_names=["kind", "size"])


def test_a_beeswarm_gives_text_no_place_between_low_and_high():
    ax = plots.beeswarm(mixed())
    grey, coloured, rings = points(ax)
    assert sorted(grey.get_offsets()[:, 0]) == [0, 2, 6]
    assert to_hex(grey.get_facecolor()[0]) == GREY
    assert sorted(coloured.get_offsets()[:, 0]) == [1, 5, 7]
    assert sorted(rings.get_offsets()[:, 0]) == [3, 4]
    only = Explanation(np.ones((2, 1)), 0.0, data=np.array([["a"], ["b"]], dtype=object))
    assert len(plots.beeswarm(only).figure.axes) == 1  # no bar of colours that mean nothing


def test_a_second_feature_of_categories_has_a_legend():
    for ax in (
        plots.scatter(mixed(), "size", color_by="kind"),
        plots.embedding(embed_rows(X), color_by=KINDS, color_name="kind"),
    ):
        legend = ax.get_legend()
        said = [text.get_text() for text in legend.get_texts()]
        assert legend.get_title().get_text() == "kind"
        assert said in (["x", "y", "missing"], ["blue", "green", "red"])
        assert to_hex(points(ax)[0].get_facecolor()[0]) == CATEGORIES[0]


def test_more_categories_than_colours_are_the_others():
    labels = np.array([f"k{number:02d}" for number in range(20)])
    data = np.stack([np.arange(200.0), labels[np.minimum(np.arange(200) // 8, 19)]], axis=1)
    data = data.astype(object)
    data[:, 0] = np.arange(200.0)
    ax = plots.scatter(Explanation(np.ones((200, 2)), 0.0, data=data), 0, color_by=1)
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said[-1] == "14 others"
    assert "k19" in said
    assert sum(len(part.get_offsets()) for part in points(ax)) == 200


def test_no_number_stands_below_rows_whose_value_is_missing():
    income = np.where(np.arange(40) % 4 == 0, np.nan, np.linspace(0, 1e6, 40))
    ax = plots.scatter(Explanation(np.ones((40, 1)), 0.0, data=income[:, None]), 0)
    ax.figure.canvas.draw()
    assert min(ax.get_xticks()) >= np.nanmin(income)
    assert len(ax.get_xticks()) >= 3
    assert ax.xaxis.get_offset_text().get_text() == ""
    assert "200000" in [label.get_text() for label in ax.get_xticklabels()]
    assert "missing" in [text.get_text() for text in ax.texts]


# Pairs of an explanation.


def test_strongest_pairs_have_both_halves_and_effects_once():
    values = rng.normal(size=(5, 3, 3))
    values = values + np.swapaxes(values, 1, 2)
    e = Explanation(values, 0.0, interaction=True, feature_names=list("abc"))
    told = plots.table(plots.interaction_bars(e, row=2)).set_index("subset")
    name = told.columns[-1]
    assert len(told) == 6
    np.testing.assert_allclose(told.loc["a × c", name], 2 * values[2, 0, 2])
    np.testing.assert_allclose(told.loc["b", name], values[2, 1, 1])
    np.testing.assert_allclose(told[name].sum(), e.prediction[2])
    pairs = plots.table(plots.interaction_bars(e, order=2))
    assert len(pairs) == 3
    with pytest.raises(ValueError, match="interactions: expected Interactions, or"):
        plots.interaction_bars(make())


def test_pairs_of_an_explanation_agree_with_pairs_of_any_game():
    game = lambda S: S[:, 0] * S[:, 1] * 3.0 + S[:, 2]  # noqa: E731
    matrix = interaction_values(game, 3)  # halves in cells, main effects on the diagonal
    once = interaction_values(game, 3, order=2, index="k-SII")
    e = Explanation(matrix[None], 0.0, interaction=True)
    told = plots.table(plots.interaction_bars(e, row=0)).set_index("subset").iloc[:, -1]
    assert told["x0 × x1"] == pytest.approx(once[0, 1])
