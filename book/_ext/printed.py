"""The whole book on paper: one page of HTML from the built pages, and a PDF where chromium is.

    make pdf       writes _build/course/book.html and _build/course/book.pdf

Chapters follow each other as in the table of contents. Solutions stand at the end, with links both
ways; the code of figures stays in the notebooks; explorables show the state they begin in.
"""

from __future__ import annotations

import html as htmllib
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, Tag
from built_pages import MATHJAX, article, built, pictures
from figures import chromium
from run_chapters import pages

__all__ = ["Printed", "print_pdf", "write_book"]

HERE = Path(__file__).parent
SHEET = """<!doctype html>
<html lang="en" data-theme="light">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="stylesheet" href="{static}/pygments.css">
<style>{style}</style>
{mathjax}
<script defer src="{static}/mathjax/tex-mml-chtml.js"></script>
</head>
<body>
<header><h1 class="book-title">{title}</h1><p>{author}</p></header>
<nav aria-label="Contents"><h2>Contents</h2>{contents}</nav>
{chapters}
{solutions}
</body>
</html>
"""
# Only for the screen: the code of figures, parameters of a run, downloads.
SCREEN_ONLY = (
    "details.hide",
    "div.tag_parameters",
    "ul.take-home",
    "button.copybtn",
    ".shaplab-explorable .controls",
)


@dataclass
class Printed:
    """The parts of the printed book as they are put together."""

    html: Path
    base: str
    known: set[str]
    chapters: list[str] = field(default_factory=list)
    solutions: list[str] = field(default_factory=list)
    contents: list[tuple[str, str]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def add(self, page: str) -> None:
        """Add a page: its text, and its solutions for the end."""
        text = article(self.html, page)
        for element in text.select(", ".join(SCREEN_ONLY)):
            element.decompose()
        for link in text.select("a.download, code.download"):
            sentence = link.find_parent(["p", "li"])
            if sentence:
                sentence.decompose()
        for picture in list(pictures(text, self.html, page)):
            inside = picture.path.relative_to(self.html).as_posix()
            picture.element["src"] = f"{self.base}/{inside}"
        solved = self._take_answers(text, page) + self._take_solutions(text, page)
        self._name(text, page)
        heading = text.find("h1")
        title = heading.get_text(" ", strip=True) if isinstance(heading, Tag) else page
        place = _place(page)
        self.contents.append((place, title))
        self.chapters.append(f'<article id="{place}">{text.decode_contents()}</article>')
        if solved:
            head = f'<h2><a href="#{place}">{htmllib.escape(title)}</a></h2>'
            self.solutions.append(head + "".join(solved))

    def _take_answers(self, text: Tag, page: str) -> list[str]:
        """Leave questions with their choices, and take what is said about each to the end."""
        found = []
        for number, box in enumerate(text.select("div.ask"), 1):
            there = _place(page, f"question-{number}")
            here = _place(page, f"answer-{number}")
            title = box.select_one("p.admonition-title")
            question = title.get_text(" ", strip=True) if title else "Question"
            answers = ""
            choices = "<ol type='a'>"
            for choice in box.select("details"):
                words = choice.select_one("summary .sd-summary-text")
                said = choice.select_one("div.sd-summary-content")
                assert words is not None
                assert said is not None
                choices += f"<li>{words.decode_contents()}</li>"
                answers += f"<li>{said.decode_contents()}</li>"
                choice.decompose()
            link = f'<p class="to-solution"><a href="#{here}">Answer</a></p>'
            box.append(BeautifulSoup(f"{choices}</ol>{link}", "html.parser"))
            box["id"] = there
            back = f'<h3 id="{here}"><a href="#{there}">{htmllib.escape(question)}</a></h3>'
            found.append(f"{back}<ol type='a'>{answers}</ol>")
        return found

    def _take_solutions(self, text: Tag, page: str) -> list[str]:
        """Take the solutions out; a link stands where each was."""
        found = []
        for solution in text.select("div.solution"):
            exercise = solution.find_previous_sibling("div", class_="exercise")
            label = str(exercise.get("id", "")) if isinstance(exercise, Tag) else ""
            caption = exercise.select_one(".caption-number") if isinstance(exercise, Tag) else None
            words = caption.get_text(" ", strip=True) if caption else "Exercise"
            here = _place(page, f"solution-{label}")
            link = BeautifulSoup(
                f'<p class="to-solution"><a href="#{here}">Solution</a></p>', "html.parser"
            )
            solution.replace_with(link)
            own = solution.select_one("p.admonition-title")
            if own:
                own.decompose()
            self._name(solution, page)
            solution["id"] = here
            back = f'<h3><a href="#{_place(page, label)}">{words}</a></h3>'
            found.append(back + str(solution))
        return found

    def _name(self, text: Tag, page: str) -> None:
        """Make anchors of the page anchors of the book, and let links follow."""
        for marked in text.select("[id]"):
            inside = marked.find_parent("svg") is not None or marked.name == "svg"
            if inside or str(marked["id"]).startswith(("shaplab-", "p-")):
                continue
            place = _place(page, str(marked["id"]))
            del marked["id"]
            if place not in self.used:  # boxes repeat names such as "proof", to which nothing leads
                marked["id"] = place
                self.used.add(place)
        for link in text.select("a[title^=Chapter]"):
            after = str(link.next_sibling or "")
            if not after.startswith(" (chapter"):  # paper does not follow a link
                link.insert_after(f" ({str(link['title']).lower()})")
        for link in text.select("a[href]"):
            target = self._target(str(link["href"]), page)
            if target:
                link["href"] = target
            else:  # what is not in this book, such as pages of the library
                link.unwrap()

    def _target(self, href: str, page: str) -> str:
        """Where a link of a page leads to in the book; nothing where it leads out of it."""
        if re.match(r"(https?|mailto):", href):
            return href
        path, _, anchor = href.partition("#")
        if not path:
            return "#" + (href[1:] if href.startswith("#p-") else _place(page, anchor))
        target = os.path.normpath(f"book/{os.path.dirname(page)}/{path}")
        target = target.removeprefix("book/").removesuffix(".html")
        return "#" + _place(target, anchor) if target in self.known else ""


def _place(page: str, anchor: str = "") -> str:
    """Name of an anchor of a page in the book."""
    return "p-" + page.replace("/", "-") + (f"--{anchor.replace('/', '-')}" if anchor else "")


def write_book(root: Path, html: Path, target: Path, chosen: list[str] | None = None) -> Printed:
    """Write the pages, or those chosen, as one page; return what it was put together from."""
    listed = chosen or pages(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    base = Path(os.path.relpath(html, target.parent)).as_posix()
    book = Printed(html, base, set(listed))
    for page in listed:
        book.add(page)
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    contents = "".join(
        f'<li><a href="#{place}">{htmllib.escape(title)}</a></li>' for place, title in book.contents
    )
    solutions = ""
    if book.solutions:
        contents += '<li><a href="#solutions">Solutions</a></li>'
        solutions = f'<article id="solutions"><h1>Solutions</h1>{"".join(book.solutions)}</article>'
    text = SHEET.format(
        title=htmllib.escape(config["title"]),
        author=htmllib.escape(config["author"]),
        static=f"{base}/_static",
        style=(HERE / "printed.css").read_text(encoding="utf-8"),
        mathjax=MATHJAX,
        contents=f"<ul>{contents}</ul>",
        chapters="\n".join(book.chapters),
        solutions=solutions,
    )
    target.write_text(text, encoding="utf-8")
    return book


def print_pdf(page: Path, target: Path) -> bool:
    """Print a page to PDF, with an outline; say whether there was a browser to do it."""
    where = chromium()
    if where is None:
        return False
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(600_000)
        tab.goto(page.resolve().as_uri(), wait_until="load")
        tab.evaluate("MathJax.startup.promise.then(() => true)")
        tab.evaluate("document.fonts.ready.then(() => true)")
        tab.pdf(
            path=target,
            format="A4",
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template="<div style='width:100%;text-align:center;font-size:8px'>"
            "<span class='pageNumber'></span></div>",
            margin={"top": "18mm", "bottom": "18mm", "left": "20mm", "right": "20mm"},
            outline=True,
            tagged=True,
        )
        browser.close()
    return True


def main(arguments: list[str]) -> int:
    """Write the page and the PDF of the pages named, or of all; return the exit status."""
    root = Path(__file__).resolve().parents[2]
    folder = root / "_build" / "course"
    page, target = folder / "book.html", folder / "book.pdf"
    try:
        write_book(root, built(root), page, arguments or None)
    except FileNotFoundError as problem:
        print(problem, file=sys.stderr)
        return 1
    if not print_pdf(page, target):
        print(f"No chromium here: open {page} in a browser and print it.")
        return 0
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
