"""Numbers of chapters, which run through the whole book.

Sphinx could number a table of contents by itself, but would count the pages of parts, and count
anew in a build of some chapters. Here a chapter's number is its place among all chapters of
_toc.yml. Its sections have none; its figures, equations, theorems and exercises begin with it:
Theorem 5.2 is the second theorem of chapter 5.
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from docutils import nodes
from run_chapters import chapter_numbers
from sphinx.application import Sphinx
from sphinx_external_toc.collectors import TocTreeCollectorWithStyles as Collector

__all__ = ["connect_numbers"]


def assign_chapter_numbers(collector: Collector, env: Any) -> list[str]:
    """Put the numbers where Sphinx looks for those of sections; return the pages that changed."""
    before = env.toc_secnumbers
    env.toc_secnumbers = {}
    for page, number in chapter_numbers(Path(env.srcdir)).items():
        place = f"book/{page}"
        if place not in env.tocs:
            continue
        found: dict[str, tuple[int, ...]] = {}
        for link in env.tocs[place].findall(nodes.reference):
            # An empty number: without one, Sphinx gives a section that of its page.
            found[link["anchorname"]] = () if link["anchorname"] else (number,)
            link["secnumber"] = found[link["anchorname"]]
        env.toc_secnumbers[place] = found
        env.titles[place]["secnumber"] = (number,)
    pages = set(before) | set(env.toc_secnumbers)
    return [page for page in pages if before.get(page) != env.toc_secnumbers.get(page)]


def name_chapters(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Say the number of a chapter beside references to it in boxes of goals, and elsewhere when one
    points at them."""
    numbers = chapter_numbers(Path(app.srcdir))
    folder = posixpath.dirname(docname)
    for link in list(doctree.findall(nodes.reference)):
        path, _, anchor = str(link.get("refuri", "")).partition("#")
        page = posixpath.normpath(posixpath.join(folder, path))
        number = numbers.get(page.removeprefix("book/").removesuffix(".html"))
        if not link.get("internal") or number is None or (anchor and not anchor.startswith("ch-")):
            continue
        link["reftitle"] = f"Chapter {number}"
        if _in_goals(link):
            place = link.parent.index(link) + 1
            link.parent.insert(place, nodes.Text(f" (chapter {number})"))


def _in_goals(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, nodes.Element) and "goals" in node.get("classes", ()):
            return True
    return False


def connect_numbers(app: Sphinx) -> None:
    """Let Sphinx number chapters so, and name them in references."""
    Collector.assign_section_numbers = assign_chapter_numbers
    app.connect("doctree-resolved", name_chapters)
