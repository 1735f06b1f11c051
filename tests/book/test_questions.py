"""Questions that answer themselves: in pages by mouse and keyboard and without a script, in
notebooks, on slides and on paper."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import jupytext
import pytest
from bs4 import BeautifulSoup
from flat_notebook import Names, flatten
from printed import write_book
from run_chapters import chapters
from slides import write_slides

ROOT = Path(__file__).resolve().parents[2]
BOX = re.compile(r"^:{4}\{admonition\} ([^\n]+)\n:class: ask\n\n(.*?)^:{4}$", re.M | re.S)
CHOICE = re.compile(r"^:::\{dropdown\} ([^\n]+)\n(.*?)^:::$", re.M | re.S)
PAGES = [page for page in chapters(ROOT) if "/" in page]


def source(page: str) -> str:
    return (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")


def test_the_parts_have_their_questions():
    counts = {page: len(BOX.findall(source(page))) for page in PAGES}
    for page, count in counts.items():
        assert count or page.split("/")[0] not in ("foundations", "trees", "deep"), page
        assert source(page).count(":class: ask") == count, page
    of_part = Counter({page.split("/")[0]: 0 for page in PAGES})
    for page, count in counts.items():
        of_part[page.split("/")[0]] += count
    assert min(of_part.values()) >= 2


@pytest.mark.parametrize("page", [page for page in PAGES if ":class: ask" in source(page)])
def test_one_choice_is_right_and_each_says_why(page):
    for question, body in BOX.findall(source(page)):
        assert question.endswith("?"), question
        choices = CHOICE.findall(body)
        assert 2 <= len(choices) <= 4, question
        verdicts = [re.match(r"\*\*(Right|No)\.\*\* [A-Z]", said) for _, said in choices]
        assert [found[1] for found in verdicts if found].count("Right") == 1, question
        for (choice, said), verdict in zip(choices, verdicts, strict=True):
            assert verdict, (question, choice)
            assert not re.search(r"[$*`{]", choice), "a choice is plain words: notebooks show them"
            assert 30 <= len(said) <= 400, (question, choice)


def test_notebooks_fold_the_answers():
    notebook = jupytext.reads(source("foundations/exact"), fmt="md:myst")
    names = Names.of_book(ROOT)
    flatten(notebook, "book/foundations/exact", names)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    (question, body), *_ = BOX.findall(source("foundations/exact"))
    start = text.index(f"> **{question}**")
    told = text[start : text.index("## The literal code")]
    assert told.count("> <details><summary>") == told.count("> </details>") == 3
    for choice, said in CHOICE.findall(body):
        assert f"<details><summary>{choice}</summary>\n>\n> {said.split('.')[0]}" in told


BUILT = (
    '<div class="ask admonition"><p class="admonition-title">Why?</p>'
    '<details class="sd-dropdown"><summary><span class="sd-summary-text">So</span></summary>'
    '<div class="sd-summary-content"><p><strong>No.</strong> Because.</p></div></details></div>'
)


@pytest.mark.browser
def test_on_a_slide_a_choice_keeps_its_keys(tmp_path, browser):
    html = tmp_path / "html"
    (html / "book" / "part").mkdir(parents=True)
    (html / "_static" / "mathjax").mkdir(parents=True)
    for name in ("mathjax/tex-mml-chtml.js", "pygments.css"):
        (html / "_static" / name).write_text("", encoding="utf-8")
    body = f"<section><h1>One</h1><section><h2>Two</h2>{BUILT}</section></section>"
    text = f"<html><body><article>{body}</article></body></html>"
    (html / "book" / "part" / "one.html").write_text(text, encoding="utf-8")
    assert write_slides(html, tmp_path / "slides", ["part/one"]) == {"part/one": 2}
    tab = browser.new_page()
    tab.goto((tmp_path / "slides" / "part" / "one.html").as_uri() + "#s2")
    tab.locator("summary").focus()
    tab.keyboard.press(" ")
    tab.locator(".sd-summary-content").wait_for(state="visible", timeout=3000)
    assert tab.locator("nav output").inner_text() == "2 / 2"
    tab.close()


def test_paper_has_choices_in_place_and_answers_at_the_end(tmp_path):
    folder = tmp_path / "html" / "book" / "part"
    folder.mkdir(parents=True)
    boxes = BUILT + BUILT.replace("Why", "How")
    page = f"<html><body><article><h1>One</h1>{boxes}</article></body></html>"
    (folder / "one.html").write_text(page, encoding="utf-8")
    target = tmp_path / "book.html"
    write_book(ROOT, tmp_path / "html", target, ["part/one"])
    sheet = BeautifulSoup(target.read_text(encoding="utf-8"), "html.parser")
    chapter, solutions = sheet.find_all("article")
    assert "So" in chapter.get_text()
    assert "Because" not in chapter.get_text()
    assert solutions.get_text().count("Because") == 2
    for link in chapter.select(".to-solution a"):
        there = sheet.find(id=link["href"][1:])
        assert sheet.find(id=there.a["href"][1:]) is link.find_parent("div", class_="ask")


@pytest.mark.book
@pytest.mark.browser
@pytest.mark.parametrize("script", [True, False])
def test_a_choice_unfolds_by_mouse_and_keyboard(browser, address, script):
    page = browser.new_page()
    if not script:
        session = browser.new_cdp_session(page)
        session.send("Emulation.setScriptExecutionDisabled", {"value": True})
    page.goto(f"{address}/book/foundations/exact.html", wait_until="load")
    choices = page.locator(".ask details")
    assert choices.count() == 3
    for number in range(3):
        said = choices.nth(number).locator(".sd-summary-content")
        assert not said.is_visible()
        if number % 2:
            choices.nth(number).locator("summary").focus()
            page.keyboard.press("Enter")
        else:
            choices.nth(number).locator("summary").click()
        said.wait_for(state="visible", timeout=3000)
        assert re.match(r"(Right|No)\.", said.inner_text())
    page.close()


@pytest.mark.book
def test_every_question_is_in_its_page(html):
    for page in PAGES:
        text = (html / "book" / f"{page}.html").read_text(encoding="utf-8")
        built = BeautifulSoup(text, "html.parser")
        questions = [len(CHOICE.findall(body)) for _, body in BOX.findall(source(page))]
        assert [len(box.select("details")) for box in built.select("div.ask")] == questions, page
