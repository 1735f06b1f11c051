"""Slides from the built pages, by a rule: a deck for each chapter that needs no network.

    make slides        writes _build/course/slides, with index.html as the way in

A chapter gives its title and goals; each section its title, its first paragraph (or list) and its
numbered equations; each definition, theorem, figure, drawing, explorable, question and exercise,
and each cell tagged ``slide``, gets a slide of its own under the section's title. Proofs, code and
solutions stay in the book.
"""

from __future__ import annotations

import html as htmllib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from built_pages import MATHJAX, article, built, classes, pictures
from run_chapters import chapters

__all__ = ["Slide", "slides_of", "write_slides"]

HERE = Path(__file__).parent
NOT_SHOWN = ("take it home", "summary")
STATEMENTS = {"definition", "theorem", "lemma", "proposition", "algorithm", "remark", "corollary"}
DECK = """<!doctype html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="{up}_static/pygments.css">
<style>{style}</style>
{mathjax}
<script defer src="{up}_static/mathjax/tex-mml-chtml.js"></script>
</head>
<body>
<main>
{slides}
</main>
<nav aria-label="Slides">
<a href="{up}index.html">All decks</a>
<button type="button" data-step="-1" aria-label="Previous slide">‹</button>
<output aria-live="polite"></output>
<button type="button" data-step="1" aria-label="Next slide">›</button>
</nav>
<script>{script}</script>
</body>
</html>
"""
INDEX = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Slides</title><style>{style}</style></head>
<body class="index"><h1>Slides</h1>
<p>Arrow keys, space, a swipe or the buttons turn the slides; printing gives one slide a page.</p>
<ul>{rows}</ul></body></html>
"""


@dataclass(frozen=True)
class Slide:
    """One slide: the title of its section, its parts, and what it shows (``opening``, ``section``,
    ``statement``, ``figure``, ``play``, ``cell`` or ``exercise``)."""

    title: str
    parts: tuple[Tag, ...]
    kind: str


def slides_of(text: Tag) -> Iterator[Slide]:
    """Yield the slides of a chapter from its built text."""
    chapter = text.find("section")
    assert isinstance(chapter, Tag)
    title = _title(chapter)
    goals = chapter.select_one("div.goals")
    yield Slide(title, (goals,) if goals else (), "opening")
    yield from _own(chapter, title)
    for section in chapter.find_all("section"):
        heading = section.find(["h2", "h3"], recursive=False)
        if heading is None or _title(section).lower() in NOT_SHOWN:
            continue
        opening = _opening(section)
        if opening:
            yield Slide(_title(section), opening, "section")
        yield from _own(section, _title(section))


def _title(section: Tag) -> str:
    heading = section.find(["h1", "h2", "h3", "h4"])
    return heading.get_text(" ", strip=True) if heading else ""


def _opening(section: Tag) -> tuple[Tag, ...]:
    """The first paragraph or list of a section, and its numbered equations."""
    children = [child for child in section.find_all(True, recursive=False)]
    words = next((child for child in children if child.name in ("p", "ul", "ol")), None)
    numbered = [
        child for child in children if "math" in classes(child) and child.select(".eqno, [id]")
    ]
    numbered += [child for child in children if child.name == "div" and _is_numbered(child)]
    found = [*filter(None, [words]), *dict.fromkeys(numbered)]
    return tuple(found)


def _is_numbered(element: Tag) -> bool:
    return "math" in classes(element) and str(element.get("id", "")).startswith("equation-")


def _own(section: Tag, title: str) -> Iterator[Slide]:
    """The slides of what stands in a section, but not in a section below it."""
    for element in section.find_all(True, recursive=False):
        kind = _kind(element)
        if element.name == "section" and element.find(["h2", "h3"], recursive=False):
            continue
        if kind:
            yield Slide(title, tuple(_shown(element, kind)), kind)


def _kind(element: Tag) -> str:
    """What an element is on a slide; nothing when it stays in the book."""
    own = classes(element)
    if "proof" in own:
        return "statement" if own & STATEMENTS else ""
    if own & {"exercise", "ask"}:
        return "exercise"
    if "solution" in own:
        return ""
    if "tag_slide" in own:
        return "cell"
    if element.select_one("section.shaplab-explorable, .shaplab-explorer"):
        return "play"
    return "figure" if element.select_one("figure") or element.name == "figure" else ""


def _shown(element: Tag, kind: str) -> list[Tag]:
    """The part of an element that is shown, with the styles and scripts that it brings."""
    if kind == "figure" and element.name != "figure":
        return element.select("figure, .cell_output style")
    if kind == "play":
        return element.select(".cell_output > .output") or [element]
    return [element]


def rendered(slide: Slide, number: int) -> str:
    """Return a slide as HTML: links become plain words, ids go, so that none is there twice."""
    parts = []
    for part in slide.parts:
        copy = BeautifulSoup(str(part), "html.parser")
        for link in copy.select("a.reference, a[href^='#']"):
            link.unwrap()
        if slide.kind != "play":
            for marked in copy.select("[id]"):
                del marked["id"]
        parts.append(str(copy))
    level = "h1" if slide.kind == "opening" else "h2"
    head = f"<{level}>{htmllib.escape(slide.title)}</{level}>"
    return f'<section class="slide {slide.kind}" id="s{number}">{head}{"".join(parts)}</section>'


def write_deck(html: Path, folder: Path, page: str) -> tuple[str, int]:
    """Write the deck of one chapter with its pictures; return its title and its number of
    slides."""
    text = article(html, page)
    for picture in list(pictures(text, html, page)):
        target = folder / "_images" / picture.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture.path, target)
        picture.element["src"] = "../" * (page.count("/")) + f"_images/{picture.path.name}"
    slides = list(slides_of(text))
    deck = DECK.format(
        title=htmllib.escape(slides[0].title),
        up="../" * page.count("/"),
        mathjax=MATHJAX,
        style=(HERE / "slides.css").read_text(encoding="utf-8"),
        script=(HERE / "slides.js").read_text(encoding="utf-8"),
        slides="\n".join(rendered(slide, number) for number, slide in enumerate(slides, 1)),
    )
    path = folder / f"{page}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(deck, encoding="utf-8")
    return slides[0].title, len(slides)


def write_slides(html: Path, folder: Path, chosen: list[str]) -> dict[str, int]:
    """Write the decks, what they share, and the page that leads to them; return the number of
    slides of each chapter."""
    shared = folder / "_static"
    shared.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(html / "_static" / "pygments.css", shared / "pygments.css")
    shutil.copytree(html / "_static" / "mathjax", shared / "mathjax", dirs_exist_ok=True)
    counts, rows = {}, ""
    for page in chosen:
        title, counts[page] = write_deck(html, folder, page)
        link = f'<a href="{page}.html">{htmllib.escape(title)}</a>'
        rows += f"<li>{link}, {page.split('/')[0]}: {counts[page]} slides</li>\n"
    style = (HERE / "slides.css").read_text(encoding="utf-8")
    (folder / "index.html").write_text(INDEX.format(style=style, rows=rows), encoding="utf-8")
    return counts


def main(arguments: list[str]) -> int:
    """Write the decks of the chapters named, or of all."""
    root = Path(__file__).resolve().parents[2]
    chosen = arguments or [page for page in chapters(root) if "/" in page]
    folder = root / "_build" / "course" / "slides"
    try:
        counts = write_slides(built(root), folder, chosen)
    except FileNotFoundError as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"{sum(counts.values())} slides of {len(counts)} chapters in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
