"""Maps of the book: every chapter stands in one, below all that it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from book_map import chapter_map, part_map
from run_chapters import chapters

ROOT = Path(__file__).resolve().parents[2]
PARTS = sorted({page.split("/")[0] for page in chapters(ROOT) if "/" in page})


def boxes(drawn: str) -> dict[str, tuple[float, float]]:
    """Links and corners of the boxes."""
    found = re.findall(r'href="([^"]+)"><rect x="([\d.]+)" y="([\d.]+)"', drawn)
    return {link: (float(x), float(y)) for link, x, y in found}


def test_every_part_and_every_chapter_has_a_box_that_leads_there():
    assert ">8. Tree SHAP<" in chapter_map(ROOT, "trees")
    assert set(boxes(part_map(ROOT))) == {f"{part}/index.html" for part in PARTS}
    for part in PARTS:
        drawn = boxes(chapter_map(ROOT, part))
        own = {f"../{page}.html" for page in chapters(ROOT) if page.startswith(f"{part}/")}
        assert own - {"../practice/teaching.html"} <= set(drawn)


@pytest.mark.parametrize("part", PARTS)
def test_a_chapter_stands_below_what_it_needs_and_no_box_covers_another(part):
    corners = boxes(chapter_map(ROOT, part))
    assert len(set(corners.values())) == len(corners)
    drawn = chapter_map(ROOT, part)
    for arrow in re.findall(r'<path d="M[\d.]+ ([\d.]+)C.*? [\d.]+ ([\d.]+)"', drawn):
        start, end = map(float, arrow)
        assert start < end
    if part == "trees":
        assert corners["../trees/path_dependent.html"][1] < corners["../trees/loss.html"][1]
