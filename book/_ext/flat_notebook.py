"""Notebooks that read well without Sphinx: the book's MyST as plain Markdown.

Colab, Binder and plain Jupyter show ``:::{prf:theorem}`` and ``{cite:p}`` as they stand. In the
notebooks that readers take away, definitions, theorems, exercises and boxes become quotes with a
bold first word, references become names, equations carry their numbers, and sentences the values
that cells have computed. Code and outputs stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_chapters import chapter_numbers
from shaplab_book.checking import LEVELS

__all__ = ["Names", "flatten"]

ROLE = re.compile(r"\{([a-z:-]+)\}`([^`]+)`")
CLOSING = re.compile(r"^(:{3,}|`{3,})\s*$")
OPENING = re.compile(r"^(:{3,}|`{3,})\{([a-z:-]+)\}\s*(.*)$")
BLOCKS = ("definition", "theorem", "proposition", "lemma", "algorithm", "remark", "proof")


@dataclass
class Names:
    """What labels, pages and citations are called, read from the sources of the book."""

    titles: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    citations: dict[str, tuple[str, str]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_book(cls, root: Path) -> Names:
        names = cls()
        names.numbers = {f"book/{page}": n for page, n in chapter_numbers(root).items()}
        for path in (root / "book").rglob("*.md"):
            text = path.read_text(encoding="utf-8")
            page = path.relative_to(root).with_suffix("").as_posix()
            first = re.search(r"^# (.+)$", text, re.M)
            names.titles[page] = first[1] if first else page
            for label, title in re.findall(r"^\(([\w-]+)\)=\n+#+ (.+)$", text, re.M):
                names.titles[label] = title
            for kind, title, label in re.findall(
                r"^:{3,}\{prf:(\w+)\} *(.*)\n:label: (\S+)", text, re.M
            ):
                names.blocks[label] = f"{kind.title()} ({title})" if title else kind.title()
        bibliography = (root / "book" / "references.bib").read_text(encoding="utf-8")
        for key, entry in re.findall(r"@\w+\{(\S+),\n(.*?)\n\}", bibliography, re.S):
            authors = re.search(r"author\s*=\s*\{(.+?)\},?\n", entry, re.S)
            year = re.search(r"year\s*=\s*\{?(\d+)", entry)
            names.citations[key] = (
                _short_authors(authors[1] if authors else key),
                year[1] if year else "",
            )
        return names


@dataclass
class Counts:
    """What has been counted in a chapter, whose number and a point stand before."""

    chapter: str
    exercises: int = 0


def _short_authors(text: str) -> str:
    """``Lundberg et al.``, ``Owen``, ``Mann and Shapley``."""
    people = re.split(r"\s+and\s+", re.sub(r"[{}]", "", text))
    last = [
        person.split(",")[0] if "," in person else person.split()[-1] for person in people if person
    ]
    if len(last) > 2:
        return f"{last[0]} et al."
    return " and ".join(last)


def flatten(notebook: Any, page: str, names: Names) -> None:
    """Turn the Markdown cells of a notebook of the book into plain Markdown, in place."""
    values = dict(_glued(notebook))
    equations: dict[str, str] = {}
    # Numbers of exercises and equations begin with that of the chapter, as in the pages.
    chapter = f"{names.numbers[page]}." if page in names.numbers else ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for label in re.findall(r"^[> ]*\$\$ \(([\w-]+)\)\s*$", cell.source, re.M):
                equations[label] = f"{chapter}{len(equations) + 1}"
    _number_title(notebook, chapter)
    counts = Counts(chapter)

    def role(found: re.Match[str]) -> str:
        return _role(found[1], found[2], page, names, values, equations)

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = "\n".join(_blocks(cell.source.splitlines(), counts))
            text = re.sub(
                r"^([> ]*)\$\$ \(([\w-]+)\)\s*$",
                lambda found: rf"{found[1]}\tag{{{equations[found[2]]}}}" + f"\n{found[1]}$$",
                text,
                flags=re.M,
            )
            cell.source = ROLE.sub(role, text)


def _number_title(notebook: Any, chapter: str) -> None:
    """Put the number of the chapter before its title, once."""
    for cell in notebook.cells:
        title = re.search(r"^# (.+)$", cell.source, re.M)
        if cell.cell_type == "markdown" and title:
            if chapter and not title[1].startswith(chapter):
                cell.source = cell.source.replace(title[0], f"# {chapter} {title[1]}", 1)
            return


def _glued(notebook: Any) -> Iterator[tuple[str, str]]:
    """Values that cells put into sentences."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            for kind, text in output.get("data", {}).items():
                if name and kind.endswith("text/plain"):
                    yield name, str(text).strip("'\"")


def _role(
    kind: str,
    content: str,
    page: str,
    names: Names,
    values: dict[str, str],
    equations: dict[str, str],
) -> str:
    explicit = re.fullmatch(r"(.+?)\s*<(.+)>", content, re.S)
    target = explicit[2] if explicit else content
    if kind in ("cite:p", "cite:t"):
        cited = [names.citations.get(key.strip(), (key.strip(), "")) for key in target.split(",")]
        if kind == "cite:p":
            return "(" + "; ".join(f"{author}, {year}" for author, year in cited) + ")"
        return " and ".join(f"{author} ({year})" for author, year in cited)
    if kind == "term":
        return explicit[1] if explicit else content
    if kind == "glue:text":
        return values.get(target, f"({target})")
    if kind == "eq":
        number = equations.get(target)
        return f"({number})" if number else "(an equation of another chapter)"
    if explicit and kind in ("ref", "doc", "prf:ref", "numref"):
        return f"*{explicit[1]}*"
    if kind == "doc":
        folder = Path(page).parent
        place = target.lstrip("/") if target.startswith("/") else (folder / target).as_posix()
        return f"*{names.titles.get(place, target)}*"
    if kind in ("ref", "prf:ref"):
        return names.blocks.get(target) or f"*{names.titles.get(target, target)}*"
    if kind == "numref":
        return "the figure"
    return f"`{target.rpartition('.')[2] if target.startswith('~') else target}`"


def _blocks(lines: list[str], counts: Counts) -> Iterator[str]:
    """Directives as quotes; their options go, and so do labels of headings."""
    quoting: list[str] = []  # marks of the directives that are open
    options = False
    for number, line in enumerate(lines):
        opening = OPENING.match(line)
        quote = "> " * bool(quoting)
        if re.match(r"^\([\w-]+\)=\s*$", line):
            continue
        if opening:
            mark, kind, title = opening.groups()
            if kind == "dropdown":
                # Notebooks fold what HTML folds; Markdown inside needs an empty line before it.
                yield f"> <details><summary>{title}</summary>"
                yield ">"
                quoting.append(f"{mark} details")
                options = True
                continue
            head = _head(kind, title, counts)
            # The text of an exercise stands between two directives, not in one.
            if kind.endswith(("-start", "-end")):
                yield from filter(None, [f"{head}{_level(lines[number + 1 :])}"])
                quoting.append(f"{mark} outside")
            else:
                quoting.append(mark)
                if head:
                    yield f"> {head}"
                    yield ">"
            options = True
        elif quoting and CLOSING.match(line) and line.strip() == quoting[-1].split()[0]:
            if quoting.pop().endswith("details"):
                yield ">"
                yield "> </details>"
            options = False
        elif (options and re.match(r"^:[\w-]+:", line)) or (quoting and "outside" in quoting[-1]):
            continue
        else:
            options = False
            yield f"{quote}{line}".rstrip()


def _level(lines: list[str]) -> str:
    """The marks of an exercise's level, from the options that follow its first line."""
    for line in lines:
        found = re.match(r"^:class:.*\blevel-([123])\b", line)
        if found:
            return f" {LEVELS[int(found[1])][0]}"
        if not re.match(r"^:[\w-]+:", line):
            break
    return ""


def _head(kind: str, title: str, counts: Counts) -> str:
    """The bold first words of a block."""
    if kind == "exercise-start":
        counts.exercises += 1
        return f"**Exercise {counts.chapter}{counts.exercises}.**"
    if kind == "solution-start":
        return "**Solution.**"
    if kind == "take-home":
        return "**Functions of this chapter** (write one file with `python -m shaplab.extract`):"
    if kind == "admonition":
        return f"**{title}**"
    name = kind.removeprefix("prf:")
    if name in BLOCKS:
        return f"**{name.title()}** ({title})." if title else f"**{name.title()}.**"
    return ""
