"""Built pages as material: what slides and the printed book take from ``_build/html``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bs4 import BeautifulSoup, Tag

__all__ = ["MATHJAX", "Picture", "article", "built", "classes", "pictures"]

# Formulas are marked by the class "math", as in the pages; what is not needed on paper is off.
MATHJAX = (
    '<script>window.MathJax = {"options": {"ignoreHtmlClass": ".*", '
    '"processHtmlClass": "math", "enableMenu": false, "enableAssistiveMml": false}}</script>'
)


@dataclass(frozen=True)
class Picture:
    """An image of a page: its element, and its file in the built pages."""

    element: Tag
    path: Path


def built(root: Path) -> Path:
    """Return the folder of the built pages, of all or of those that ``CHAPTERS`` names."""
    some = "some/_build/" if os.environ.get("CHAPTERS") else ""
    return root / "_build" / f"{some}html"


def article(html: Path, page: str) -> Tag:
    """Return the text of a built page, without the links at its headings and captions."""
    path = html / "book" / f"{page}.html"
    if not path.exists():
        raise FileNotFoundError(f"{path} is not built. Run: make html.")
    found = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").find("article")
    assert isinstance(found, Tag)
    for link in found.select("a.headerlink"):
        link.decompose()
    return found


def classes(element: Tag) -> set[str]:
    """Return the classes of an element."""
    return set(element.get("class") or [])


def pictures(element: Tag, html: Path, page: str) -> Iterator[Picture]:
    """Yield the images in a piece of a page that come from a file."""
    place = (html / "book" / page).parent
    for image in element.find_all("img"):
        source = str(image.get("src", ""))
        if not re.match(r"data:|https?:", source):
            yield Picture(image, Path(os.path.normpath(place / source)))
