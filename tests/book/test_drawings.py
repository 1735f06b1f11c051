"""The drawings of the book: their numbers, and that they can be read on a phone in both themes."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from shaplab_book import drawings
from shaplab_book.sketch import Sketch

import shaplab
from shaplab import owen_values

WORTH = {(): 0, (0,): 1, (1,): 2, (2,): 0, (0, 1): 5, (0, 2): 1, (1, 2): 4, (0, 1, 2): 9}
ALL = {
    "butterfly": lambda: drawings.butterfly([1, 2, 3, 4], [[(0, 1), (2, 3)], [(0, 2), (1, 3)]]),
    "chord": lambda: drawings.chord(lambda z: max(z, 0.0), -1, 3, "max(h, 0)"),
    "coalition_lattice": lambda: drawings.coalition_lattice(list("abc"), WORTH, (1, 0, 2), "$"),
    "difference_of_differences": lambda: drawings.difference_of_differences(
        {(0, 0): 0, (1, 0): 2, (0, 1): 1, (1, 1): 6}
    ),
    "four_kinds": drawings.four_kinds,
    "kinds_not_rows": lambda: drawings.kinds_not_rows(["00", "01", "11"], [4, 7, 3]),
    "loss_steps": lambda: drawings.loss_steps(["x_1", "x_2"], [1, 0, 1]),
    "max_levels": lambda: drawings.max_levels([3, 1], [0, 2]),
    "monitoring_stream": lambda: drawings.monitoring_stream([0, 0.2, -0.1], [0.9, 0.7]),
    "multipliers": lambda: drawings.multipliers([1, 1], [3, -2], [0, 0]),
    "normal_through_relu": lambda: drawings.normal_through_relu(0.5, 1.0),
    "ordering_and_twin": lambda: drawings.ordering_and_twin(
        "cade", {"c": 0, "ac": 1, "de": 0, "ade": 3}
    ),
    "orderings_left": lambda: drawings.orderings_left("sth", "st", "st"),
    "parts_of_a_unit": lambda: drawings.parts_of_a_unit([9, 6], 7.5),
    "path_product": lambda: drawings.path_product(
        ["one", "two"], ["1/2", "1/4"], [1, 0], [True, False]
    ),
    "product_polynomial": lambda: drawings.product_polynomial([0.5, 0.25, 0.6], [1, 1, 0]),
    "rows_to_global": lambda: drawings.rows_to_global([[1.2, -0.3], [0.4, 0.5]], ["age", "sex"]),
    "series_of_models": lambda: drawings.series_of_models(["net", "trees"], ["rule", "Tree SHAP"]),
    "shapley_transform_step": lambda: drawings.shapley_transform_step(
        lambda a, b: a * b, (2, 3), (1, 1)
    ),
    "small_functions": lambda: drawings.small_functions([((0, 1), 2), ((1, 2), 6)], 3),
    "three_loss_games": lambda: drawings.three_loss_games([1, 3], 2),
    "three_removals": lambda: drawings.three_removals(
        ["52", "high", "yes"], ["40", "low", "no"], [["40", "low", "no"], ["61", "high", "yes"]], [1]
    ),
    "tree_with_covers": lambda: drawings.tree_with_covers(
        ["fever?", "cough?", "cough?"], [10, 4, 6, 3, 1, 2, 4], [80, 30, 20, 5],
        [False, True, True], [True, True, True],
    ),
    "unfair_rules": drawings.unfair_rules,
    "window_shares": lambda: drawings.window_shares([2, -1], [1.5, -0.5]),
}  # fmt: skip


def picture(sketch: Sketch) -> ElementTree.Element:
    page = sketch._repr_html_()
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", page, re.S).group(0))


def test_every_drawing_is_here_and_in_a_chapter(root):
    assert set(ALL) == set(drawings.__all__)
    assert len(ALL) >= 25
    text = "".join(path.read_text(encoding="utf-8") for path in (root / "book").glob("*/*.md"))
    assert [name for name in ALL if f"drawings.{name}(" not in text] == []


@pytest.mark.parametrize("name", ALL)
def test_a_drawing_can_be_read(name):
    sketch = ALL[name]()
    assert sketch._repr_html_() == ALL[name]()._repr_html_()
    assert len(sketch.alt) > 40
    assert len(sketch.caption) > 60
    svg = picture(sketch)
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    assert svg.attrib["aria-label"] == sketch.alt
    for part in svg.iter():
        if part.tag == "text":
            # 360 units are 360 pixels of a phone; letters are about half as wide as high.
            assert float(part.attrib["font-size"]) >= 9.5, "".join(part.itertext())
            reach = 0.52 * float(part.attrib["font-size"]) * len("".join(part.itertext()))
            x = float(part.attrib["x"])
            left = {"start": x, "middle": x - reach / 2, "end": x - reach}[
                part.attrib["text-anchor"]
            ]
            assert left >= -4, "".join(part.itertext())
            assert left + reach <= width + 4, "".join(part.itertext())
            assert 0 < float(part.attrib["y"]) <= height
        for colour in (part.attrib.get("fill"), part.attrib.get("stroke")):
            assert colour in (None, "none", "currentColor") or colour.startswith("var(--")


def test_numbers_are_those_of_the_definitions():
    rng = np.random.default_rng(0)
    assert "0.4 · 80 + 0.6 · 20 = 44" in ALL["tree_with_covers"]().caption
    # The polynomial's last row against its definition, by subsets.
    zero, one = rng.random(3).round(2).tolist(), [1, 0, 1]
    grown = np.array([1.0])
    for z, o in zip(zero, one, strict=True):
        grown = np.convolve(grown, [z, o])
    last = drawings.product_polynomial(zero, one).alt.rsplit("row is ", 1)[1]
    assert last == ", ".join(drawings.number(v, 3) for v in grown) + "."
    # Two values from four evaluations.
    drawn = drawings.shapley_transform_step(lambda a, b: a * b + a, (2, 5), (0, 1))
    values = shaplab.shapley_values(
        lambda S: np.where(S[:, 0], 2, 0) * np.where(S[:, 1], 5, 1) + np.where(S[:, 0], 2, 0) * 1.0,
        2,
    )
    assert " and ".join(drawings.number(v) for v in values) in drawn.caption
    # The twin's mean is a's Shapley value, since there are pairs only.
    assert "mean of the two 2<" in ALL["ordering_and_twin"]()._repr_html_()
    # A ReLU's moments against draws.
    draws = np.maximum(rng.normal(0.5, 1.0, size=400_000), 0)
    out = re.search(r"mean ([\d.]+) and deviation ([\d.]+);", ALL["normal_through_relu"]().caption)
    np.testing.assert_allclose(
        [float(g) for g in out.groups()], [draws.mean(), draws.std()], atol=0.01
    )


def test_orderings_left_are_those_of_the_values():
    """Means over the orderings that a drawing leaves are the library's values."""
    caption = drawings.orderings_left("abc", "ab", "ab").caption
    assert "no structure: 6, family {a, b}: 4, a before b: 3" in caption
    game = shaplab.TableGame(np.random.default_rng(0).normal(size=8))
    left = [o for o in ("abc", "bac", "cab", "cba")]

    def value(player):
        total = 0.0
        for order in left:
            before = np.array([[p in order[: order.index(player)] for p in "abc"]])
            after = before | np.array([[p == player for p in "abc"]])
            total += (game(after) - game(before))[0] / len(left)
        return total

    np.testing.assert_allclose([value(p) for p in "abc"], owen_values(game, [[0, 1], [2]]))


def test_words_are_text_and_small_letters_small():
    sketch = Sketch(40, 'a < b & "c"', "x < y").text(10, 10, "<b>x_1 & y^{12}</b>")
    page = sketch._repr_html_()
    assert "<b>" not in page
    svg = picture(sketch)
    assert "".join(svg.itertext()).replace("\u200b", "") == "<b>x1 & y12</b>"
    shifts = [float(part.attrib["dy"]) for part in svg.iter("tspan")]
    assert shifts == [3, -3, -5, 5]
    assert sum(shifts) == 0
    assert all(a != b for a, b in pairwise(shifts))
