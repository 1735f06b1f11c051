"""Pictures of what needs what: the parts of the book, and the chapters of a part.

The arrows are read from the chapters' own lines "You need ...", so a map cannot disagree with
them. A node stands one level below the deepest of those that it needs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import yaml
from run_chapters import chapter_numbers

__all__ = ["chapter_map", "part_map"]

WIDTH = 172
HEIGHT = 58
ACROSS = 16
DOWN = 40
A_ROW = 4  # boxes side by side; a level with more takes several rows


class Page(NamedTuple):
    """A chapter: its place, its title, the places of the chapters that it needs, and its number."""

    page: str
    title: str
    needs: list[str]
    number: int

    def named(self) -> str:
        """Its number and its title."""
        return f"{self.number}. {self.title}"


def _parts(root: Path) -> dict[str, list[str]]:
    """Chapters by part, from the table of contents; parts without a chapter are left out."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    parts = {}
    for part in toc["parts"]:
        files = [item["file"].removeprefix("book/") for item in part["chapters"]]
        chapters = [page for page in files if _needs_line(root, page)]
        if chapters:
            parts[part["caption"]] = chapters
    return parts


def _needs_line(root: Path, page: str) -> str:
    text = (root / "book" / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(r"^\*\*You need\*\*(.+?)\*\*Time\*\*", text, re.M)
    return found[1] if found else ""


def _pages(root: Path) -> dict[str, Page]:
    listed = [page for chapters in _parts(root).values() for page in chapters]
    labels = {}
    titles = {}
    for page in listed:
        text = (root / "book" / f"{page}.md").read_text(encoding="utf-8")
        label, title = re.search(r"^\((.+)\)=\n# (.+)$", text, re.M).groups()  # type: ignore[union-attr]
        labels[label] = page
        titles[page] = title
    pages = {}
    numbers = chapter_numbers(root)
    for page in listed:
        needs = []
        for role, target in re.findall(r"\{(ref|doc)\}`([^`]+)`", _needs_line(root, page)):
            if role == "ref":
                needs.append(labels.get(target))
            elif target.startswith("/book/"):
                needs.append(target.removeprefix("/book/"))
            else:
                needs.append(f"{page.split('/')[0]}/{target}")
        pages[page] = Page(
            page, titles[page], [need for need in needs if need in titles], numbers[page]
        )
    return pages


def part_map(root: Path) -> str:
    """Which part needs which, as an SVG; a part leads to its own page."""
    parts = _parts(root)
    home = {page: caption for caption, chapters in parts.items() for page in chapters}
    needs: dict[str, list[str]] = {}
    for page, chapter in _pages(root).items():
        others = {home[need] for need in chapter.needs} - {home[page]}
        needs.setdefault(home[page], []).extend(others)
    # Chapters of two parts may need each other; a part needs only what stands before it.
    order = list(parts)
    nodes = {
        caption: (caption, f"{chapters[0].split('/')[0]}/index.html", True)
        for caption, chapters in parts.items()
    }
    edges = {
        (other, caption)
        for caption, others in needs.items()
        for other in others
        if order.index(other) < order.index(caption)
    }
    return _drawing(nodes, _direct(edges), "Map of the book: which part needs which.")


def chapter_map(root: Path, part: str) -> str:
    """Which chapter of a part needs which, with the chapters of other parts that it starts from."""
    pages = _pages(root)
    inside = [page for page in pages if page.startswith(f"{part}/")]
    edges = {(need, page) for page in inside for need in pages[page].needs}
    outside = [page for page in pages if page not in inside and any(page == e[0] for e in edges)]
    named = ""
    if len(outside) > A_ROW:  # too many arrows to follow: their names say it better
        edges = {edge for edge in edges if edge[0] in inside}
        links = [
            f'<a href="../{page}.html">{html.escape(pages[page].named())}</a>' for page in outside
        ]
        named = f"<p>They start from {', '.join(links[:-1])} and {links[-1]}.</p>"
        outside = []
    nodes = {
        page: (pages[page].named(), f"../{page}.html", page in inside)
        for page in [*outside, *inside]
    }
    described = f"Map of the part {part}: which chapter needs which."
    return _drawing(nodes, _direct(edges), described) + named


def _direct(edges: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Edges without those that a longer way says already."""
    edges = set(edges)
    after: dict[str, set[str]] = {}
    for start, end in edges:
        after.setdefault(start, set()).add(end)

    def reached(start: str) -> set[str]:
        found = set(after.get(start, ()))
        for node in list(found):
            found |= reached(node)
        return found

    return {
        (start, end)
        for start, end in edges
        if not any(end in reached(other) for other in after[start] - {end})
    }


def _drawing(
    nodes: dict[str, tuple[str, str, bool]], edges: set[tuple[str, str]], described: str
) -> str:
    """Boxes in levels with arrows from what is needed; nodes are (title, link, own)."""
    level: dict[str, int] = {}
    for name in nodes:  # in reading order, so what is needed has its level already
        above = [level[start] for start, end in edges if end == name and start in level]
        level[name] = 1 + max(above, default=-1)
    corner: dict[str, tuple[float, float]] = {}
    widest = min(A_ROW, max(list(level.values()).count(depth) for depth in level.values()))
    total = widest * (WIDTH + ACROSS) - ACROSS
    tall = 0
    for depth in sorted(set(level.values())):
        row = [name for name in nodes if level[name] == depth]
        # Near those that they need, so that fewer arrows cross; those that lead on come last.
        leading = {start for start, _ in edges}
        place_of = {
            name: _mean([corner[start][0] for start, end in edges if end == name]) for name in row
        }
        several = len(row) > A_ROW
        row.sort(key=lambda name: (several and name in leading, place_of[name]))
        for first in range(0, len(row), A_ROW):
            part = row[first : first + A_ROW]
            left = (total - (len(part) * (WIDTH + ACROSS) - ACROSS)) / 2
            for place, name in enumerate(part):
                corner[name] = (left + place * (WIDTH + ACROSS), tall)
            tall += HEIGHT + (DOWN if first + A_ROW >= len(row) else ACROSS)
    tall -= DOWN
    arrows = []
    for start, end in sorted(edges):
        x0 = corner[start][0] + WIDTH / 2
        y0 = corner[start][1] + HEIGHT
        x1 = corner[end][0] + WIDTH / 2
        y1 = corner[end][1]
        bend = (y1 - y0) / 2
        arrows.append(
            f'<path d="M{x0:g} {y0:g}C{x0:g} {y0 + bend:g} {x1:g} {y1 - bend:g} {x1:g} {y1 - 5:g}" '
            'marker-end="url(#arrow)"/>'
        )
    boxes = [_box(*corner[name], *nodes[name]) for name in nodes]
    return (
        f'<div class="book-map"><svg viewBox="-2 -2 {total + 4:g} {tall + 4:g}" '
        f'style="width:{total + 4:g}px;min-width:{min(total + 4, 520):g}px" '
        f'role="group" aria-label="{html.escape(described)}">'
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z"/></marker></defs>'
        f"{''.join(arrows)}{''.join(boxes)}</svg></div>"
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _box(x: float, y: float, title: str, link: str, own: bool) -> str:
    """A box that is a link; its title on up to two lines."""
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + len(word) > 19:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    middle = y + HEIGHT / 2 + 5 - 9 * (len(lines) - 1)
    text = "".join(
        f'<tspan x="{x + WIDTH / 2:g}" y="{middle + 18 * number:g}">{html.escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    kind = "own" if own else "other"
    return (
        f'<a class="{kind}" href="{html.escape(link)}"><rect x="{x:g}" y="{y:g}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="6"/><text>{text}</text></a>'
    )
