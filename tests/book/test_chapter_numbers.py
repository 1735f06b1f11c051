"""Chapters are numbered through the book, the same in a build of some of them, and their theorems,
figures and equations begin with that number."""

from __future__ import annotations

import re

import pytest
from run_chapters import all_pages, chapter_numbers, chapters
from shaplab_book.checking import _of_book


def test_numbers_run_through_the_parts(root, monkeypatch):
    numbers = chapter_numbers(root)
    assert list(numbers.values()) == list(range(1, len(numbers) + 1))
    assert set(chapters(root)) - {"index"} <= set(numbers)
    for page in all_pages(root):
        counted = "/" in page and "index" not in page and not page.startswith("reference/")
        assert (page in numbers) == counted, page
    monkeypatch.setenv("CHAPTERS", "trees/loss")
    assert chapter_numbers(root) == numbers


@pytest.mark.book
def test_pages_titles_and_what_is_numbered_carry_the_number(root, html):
    start = (html / "book" / "index.html").read_text(encoding="utf-8")
    for page, number in chapter_numbers(root).items():
        text = (html / "book" / f"{page}.html").read_text(encoding="utf-8")
        title = re.search(r'<h1><span class="section-number">(\d+)\. </span>', text)
        assert title and int(title[1]) == number, page
        assert f'href="{page}.html">{number}. ' in start, page
        assert not re.search(r'<h[2-6]><span class="section-number"', text), page
        named = re.findall(r'(?:caption-number">|eqno">\()(?:[A-Z][a-z.]+ )?([\d.]*\d)[ )]', text)
        assert all(re.fullmatch(rf"{number}\.\d+", one) for one in named), (page, named)
        if page.startswith("foundations/"):
            assert len(named) >= 10


@pytest.mark.book
def test_no_number_is_given_twice_in_a_chapter(root, html):
    for page in chapter_numbers(root):
        text = (html / "book" / f"{page}.html").read_text(encoding="utf-8")
        for kind in ("Theorem", "Definition", "Exercise", "Fig."):
            found = re.findall(rf'caption-number">{re.escape(kind)} ([\d.]+) ', text)
            parts = [int(one.split(".")[1]) for one in found]
            assert parts == list(range(1, len(parts) + 1)), (page, kind)


@pytest.mark.book
def test_exercises_are_listed_under_the_numbers_of_the_pages(html):
    listed = list(_of_book())
    for page in {exercise.page for exercise in listed}:
        text = (html / "book" / f"{page}.html").read_text(encoding="utf-8")
        shown = re.findall(r'id="([\w-]+)">\s*<p class="admonition-title"><span class="caption-number">'
                           r'Exercise ([\d.]+) ', text)  # fmt: skip
        assert shown == [(e.label, e.number) for e in listed if e.page == page], page


@pytest.mark.book
def test_references_to_chapters_say_their_number(html):
    text = (html / "book" / "foundations" / "kernel.html").read_text(encoding="utf-8")
    goals = text[text.index("goals admonition") :]
    goals = goals[: goals.index("</div>")]
    assert re.search(
        r'title="Chapter 5"><span.*?>Sampling orderings</span></a> \(chapter 5\)', goals
    )
