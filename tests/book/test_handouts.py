"""What a lecturer hands out: slides, figures as files, and the book on paper."""

from __future__ import annotations

import base64
import csv
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from figures import COLUMNS, figures_of, write_figures
from nbformat.v4 import new_code_cell, new_notebook, new_output
from printed import print_pdf, write_book
from run_chapters import chapters, pages
from shaplab_book.sketch import Sketch
from slides import write_slides

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOST = re.compile(r"""(?:src|href)=["'](?:https?:)?//|url\(["']?https?:""")
PAGE = """<html><body><article class="bd-article"><section id="one"><span id="ch-one"></span>
<h1>One<a class="headerlink" href="#one">#</a></h1>
<div class="goals admonition"><p class="admonition-title">You will</p><p>count.</p></div>
<section id="sums"><h2>Sums</h2><p>First <a class="reference" href="two.html#two">paragraph</a>.</p>
<p>Second paragraph.</p>
<div class="math" id="equation-eq-a"><span class="eqno">(1)</span>\\[1 + 1 = 2\\]</div>
<div class="proof theorem admonition" id="thm"><p class="admonition-title">Theorem 1</p><p>True.</p></div>
<div class="proof admonition" id="proof"><p>Proof. Count.</p></div>
<div class="cell tag_hide-input docutils container"><details class="admonition hide"><p>code of it</p></details>
<div class="cell_output"><figure id="fig-a"><img alt="A dot." src="../../_images/a.png"/>
<figcaption><p>See.</p></figcaption></figure></div></div>
<div class="cell docutils container"><div class="cell_input"><pre>hidden = 1</pre></div></div>
<div class="cell tag_slide docutils container"><div class="cell_input"><pre>shown = 1</pre></div></div>
<section id="below"><h3>Below</h3><p>Deeper.</p></section></section>
<section id="exercises"><h2>Exercises</h2>
<div class="exercise admonition" id="ex-a"><p class="admonition-title"><span class="caption-number">Exercise 1 </span>
</p><section id="exercise-content"><p>Why?</p></section></div>
<div class="solution dropdown admonition" id="book/part/one-solution-1"><p class="admonition-title">Solution</p>
<section id="solution-content"><p>Because of <a class="reference internal" href="#thm">Theorem 1</a>.</p></section></div>
</section>
<section id="take"><h2>Take it home</h2><p>Take <a class="reference download" href="x.ipynb">it</a>.</p></section>
<p>See <a class="reference internal" href="../library.html#x">the library</a>, <a href="https://example.org">a site</a>.</p>
</section></article></body></html>"""


def apart(function, *arguments):
    """Call in a thread of its own: a second browser cannot start beside that of the tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


@pytest.fixture
def built(tmp_path) -> Path:
    """A built page, as small as they come."""
    html = tmp_path / "html"
    for name, content in (("a.png", PNG), ("b.png", PNG)):
        (html / "_images").mkdir(parents=True, exist_ok=True)
        (html / "_images" / name).write_bytes(content)
    (html / "_static" / "mathjax").mkdir(parents=True)
    (html / "_static" / "mathjax" / "tex-mml-chtml.js").write_text("", encoding="utf-8")
    (html / "_static" / "pygments.css").write_text("", encoding="utf-8")
    (html / "book" / "part").mkdir(parents=True)
    for name in ("one", "two"):
        text = PAGE.replace('id="one"', f'id="{name}"').replace("ex-a", f"ex-{name}")
        (html / "book" / "part" / f"{name}.html").write_text(text, encoding="utf-8")
    return html


def test_slides_follow_the_rule(built, tmp_path):
    counts = write_slides(built, tmp_path / "slides", ["part/one"])
    path = tmp_path / "slides" / "part" / "one.html"
    deck = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    found = [
        (slide["class"][1], slide.find(["h1", "h2"]).get_text()) for slide in deck.select(".slide")
    ]
    assert found == [
        ("opening", "One"),
        ("section", "Sums"),
        ("statement", "Sums"),
        ("figure", "Sums"),
        ("cell", "Sums"),
        ("section", "Below"),
        ("exercise", "Exercises"),
    ]
    assert counts == {"part/one": 7}
    said = deck.main.get_text(" ", strip=True)
    for part in ("First paragraph.", "1 + 1 = 2", "True.", "See.", "shown = 1", "Why?"):
        assert part in said
    for part in ("Second", "Proof", "code of it", "hidden", "Because", "Take"):
        assert part not in said
    for image in deck.select("img"):
        assert (path.parent / image["src"]).is_file()
        assert image["alt"]
    assert not HOST.search(path.read_text(encoding="utf-8"))
    index = (tmp_path / "slides" / "index.html").read_text(encoding="utf-8")
    assert '<a href="part/one.html">One</a>, part: 7 slides' in index


def test_a_page_that_is_not_built_is_named(built, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"three\.html is not built\. Run: make html"):
        write_slides(built, tmp_path / "slides", ["part/three"])


def test_the_printed_book_has_its_solutions_at_the_end_and_links_that_lead(built, tmp_path, root):
    path = tmp_path / "course" / "book.html"
    write_book(root, built, path, ["part/one", "part/two"])
    text = path.read_text(encoding="utf-8")
    sheet = BeautifulSoup(text, "html.parser")
    assert_links_lead(sheet)
    articles = sheet.find_all("article")
    assert [article["id"] for article in articles] == ["p-part-one", "p-part-two", "solutions"]
    assert "Because of" not in articles[0].get_text()
    assert articles[2].get_text().count("Because of") == 2
    back = articles[2].find("h3").a
    assert (back.get_text(), back["href"]) == ("Exercise 1", "#p-part-one--ex-one")
    assert articles[0].select_one(".to-solution a")["href"] == "#p-part-one--solution-ex-one"
    first = articles[0].find("a", string="paragraph")
    assert first["href"] == "#p-part-two--two"
    words = articles[0].get_text(" ", strip=True)
    assert "the library" in words  # a page outside: its words stay, its link goes
    assert articles[0].find("a", string="the library") is None
    assert articles[0].find("a", string="a site") is not None
    for part in ("code of it", "Take it ."):
        assert part not in words
    assert (path.parent / articles[0].find("img")["src"]).resolve().is_file()


def assert_links_lead(sheet):
    marks = [element["id"] for element in sheet.select("[id]") if not element.find_parent("svg")]
    assert len(marks) == len(set(marks)), sorted({m for m in marks if marks.count(m) > 1})[:5]
    for link in sheet.select("a[href^='#']"):
        assert link["href"][1:] in marks, link


def shown(**data):
    return [new_output("display_data", data={k.replace("_", "/"): v for k, v in data.items()})]


def test_figures_are_found_with_their_words():
    drawing = Sketch(20, 'A "line" & a dot.', "See <here>.").line((0, 0), (9, 9), colour="for")
    plot = base64.b64encode(PNG).decode()
    options = {"figure": {"name": "fig-a", "caption": "A\n rise."}, "image": {"alt": "It rises."}}
    notebook = new_notebook(
        cells=[
            new_code_cell("a", outputs=shown(image_png=plot), metadata={"mystnb": options}),
            new_code_cell("b", outputs=shown(text_html=drawing._repr_html_())),
            new_code_cell("c", outputs=shown(image_png=plot), metadata={"tags": ["remove-cell"]}),
        ]
    )
    first, second = figures_of(notebook)
    assert (first.png, first.name, first.caption, first.alt) == (
        PNG,
        "fig-a",
        "A rise.",
        "It rises.",
    )
    assert (second.caption, second.alt) == ("See <here>.", 'A "line" & a dot.')
    picture = ElementTree.fromstring(second.svg)
    assert picture.get("width") == "360"
    assert "var(" not in second.svg
    assert "currentColor" not in second.svg


@pytest.mark.browser
def test_a_deck_turns_and_a_long_slide_gets_smaller(built, tmp_path, browser):
    long = "<p>" + "word " * 900 + "</p><p>Second"
    page = built / "book" / "part" / "one.html"
    page.write_text(page.read_text(encoding="utf-8").replace("<p>Deeper.", long), encoding="utf-8")
    write_slides(built, tmp_path / "slides", ["part/one"])
    tab = browser.new_page()
    tab.goto((tmp_path / "slides" / "part" / "one.html").as_uri())
    told = tab.locator("nav output")
    for key, expected in (
        ("ArrowRight", "2 / 7"),
        (" ", "3 / 7"),
        ("ArrowLeft", "2 / 7"),
        ("End", "7 / 7"),
    ):
        tab.keyboard.press(key)
        assert told.inner_text() == expected
    tab.locator("nav button").first.click()
    assert told.inner_text() == "6 / 7"
    assert tab.url.endswith("#s6")
    assert tab.locator(".slide:visible").count() == 1
    size = "node => [node.scrollHeight - node.clientHeight, parseFloat(node.style.fontSize)]"
    over, percent = tab.locator(".slide.shown").evaluate(size)
    assert over <= 0
    assert percent < 100
    tab.close()


@pytest.mark.browser
def test_a_page_becomes_a_pdf(built, tmp_path, root, browser):
    path = tmp_path / "book.html"
    write_book(root, built, path, ["part/one"])
    text = path.read_text(encoding="utf-8")
    ready = "<script>window.MathJax = {startup: {promise: Promise.resolve()}}</script>"
    path.write_text(re.sub(r"<script>window.MathJax.*?</script>", ready, text), encoding="utf-8")
    assert apart(print_pdf, path, tmp_path / "book.pdf")
    assert (tmp_path / "book.pdf").read_bytes()[:5] == b"%PDF-"


@pytest.mark.book
def test_every_figure_of_the_book_is_written(root, tmp_path):
    chosen = [page for page in chapters(root) if "/" in page]
    rows = apart(write_figures, root, tmp_path, chosen)
    assert len(rows) >= 100
    listed = list(csv.DictReader((tmp_path / "captions.csv").open(encoding="utf-8", newline="")))
    assert listed == rows
    assert tuple(listed[0]) == COLUMNS
    for row in rows:
        assert (tmp_path / row["file"]).stat().st_size > 500
        assert row["caption"], row
        assert row["alternative text"], row
    assert {row["chapter"].split("/")[0] for row in rows} >= {"foundations", "trees", "deep"}


@pytest.mark.book
def test_every_chapter_has_slides_and_the_whole_book_can_be_printed(root, html, tmp_path):
    counts = write_slides(
        html, tmp_path / "slides", [page for page in chapters(root) if "/" in page]
    )
    assert min(counts.values()) >= 8
    for path in (tmp_path / "slides").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""(?:src=|<link[^>]*href=)["'](?:https?:)?//""", text), path.name
        for source in re.findall(r'<img[^>]*src="([^"]+)"', text):
            assert source.startswith("data:") or (path.parent / source).is_file(), path.name
    target = tmp_path / "book.html"
    book = write_book(root, html, target)
    assert len(book.chapters) == len(pages(root))
    assert_links_lead(BeautifulSoup(target.read_text(encoding="utf-8"), "html.parser"))
