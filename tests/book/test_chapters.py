"""Every chapter is in the table of contents and has the parts that a reader expects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from oracles.anatomy import complaints, figure_complaints
from pybtex.database import parse_file
from run_chapters import chapters, executed_path, is_chapter

ROOT = Path(__file__).resolve().parents[2]
# The start page is executed like a chapter, but it teaches nothing and has no exercises.
CHAPTERS = [page for page in chapters(ROOT) if page != "index"]
SAMPLE = (Path(__file__).parent / "sample" / "tiny.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_table_of_contents():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:file|root): (\S+)", toc))
    pages = {
        path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "book").rglob("*.md")
    }
    assert pages == listed


def test_the_bibliography_has_what_pages_cite():
    """In seconds, what else only a build of the pages would see."""
    known = set(parse_file(str(ROOT / "book" / "references.bib")).entries)
    cited = {
        key.strip()
        for path in (ROOT / "book").rglob("*.md")
        for keys in re.findall(r"\{cite:[pt]\}`([^`]+)`", path.read_text(encoding="utf-8"))
        for key in keys.split(",")
    }
    assert cited
    assert cited <= known


@pytest.mark.parametrize("page", CHAPTERS)
def test_chapter_has_its_parts(page):
    assert complaints((ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")) == []


@pytest.mark.book
@pytest.mark.parametrize("page", CHAPTERS)
def test_figures_have_captions_and_alternative_texts(page):
    path = executed_path(ROOT, page, "quick")
    assert figure_complaints(json.loads(path.read_text(encoding="utf-8"))) == []


def test_sample_has_all_parts():
    assert is_chapter(SAMPLE)
    assert complaints(SAMPLE) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[parameters]", "[other]", "tagged 'parameters'"),
        ('profile = "quick"', 'profile = "full"', "profile"),
        ("assert ", "total ", "asserts"),
        ("{solution-start} ex-tiny", "{solution-start} ex-other", "without a solution"),
        ("{cite:p}`", "`", "citation"),
        (":class: goals", "", "goals"),
        ("What this does not say", "More", "does not say"),
        ("(ch-tiny)=\n", "", "label above the title"),
        ("total = 2", "plt.show(); total = 2", "plt.show"),
    ],
)
def test_a_missing_part_is_named(old, new, expected):
    assert old in SAMPLE
    assert any(expected in line for line in complaints(SAMPLE.replace(old, new)))


def test_a_figure_without_caption_is_named():
    output = {"output_type": "display_data", "data": {"image/png": "", "text/plain": ""}}
    bare = {"cells": [{"cell_type": "code", "metadata": {}, "outputs": [output]}]}
    assert len(figure_complaints(bare)) == 2
    options = {"figure": {"name": "fig-a", "caption": "See."}, "image": {"alt": "A line."}}
    assert (
        figure_complaints({"cells": [{"metadata": {"mystnb": options}, "outputs": [output]}]}) == []
    )
