"""Builds that leave something out: solutions, or all chapters but some.

``hide_solutions: true`` under ``sphinx: config:`` in _config.yml takes solutions out of the pages,
out of the notebooks that readers download, and out of the sources beside the pages.

    make html CHAPTERS="foundations/exact trees/path_dependent"

builds these chapters with the start page, the pages of their parts and the reference. What their
text says of other chapters stays as words without a link.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from course import END, START
from docutils import nodes
from flat_notebook import Names
from run_chapters import pages
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx_exercise.nodes import solution_node

__all__ = ["connect", "without_dead_links"]

HIDDEN = "shaplab_hide_solutions"


def take_over(app: Sphinx, config: Any) -> None:
    """Hide solutions ourselves: sphinx-exercise would drop the boxes around them and show what is
    in them."""
    config[HIDDEN] = bool(config.hide_solutions)
    config.hide_solutions = False


def drop_solutions(app: Sphinx, doctree: nodes.document) -> None:
    if app.config[HIDDEN]:
        for node in list(doctree.findall(solution_node)):
            node.parent.remove(node)


def clean_sources(app: Sphinx, exception: Exception | None) -> None:
    """Take solutions out of the copies of the sources that lie beside the pages."""
    if exception or not app.config[HIDDEN]:
        return
    for path in (Path(app.outdir) / "_sources").rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        kept = re.sub(f"{START.pattern}(?s:.*?){END.pattern}", "", text, flags=re.M)
        if kept != text:
            path.write_text(kept, encoding="utf-8")


def say_in_words(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Where chapters are left out, a reference to one of them is its title."""
    if not os.environ.get("CHAPTERS") or node.get("refdomain") == "py":
        return None
    if node.get("refexplicit") and content.astext():
        return nodes.inline("", content.astext())
    names = Names.of_book(Path(app.srcdir))
    target = str(node.get("reftarget"))
    if node.get("reftype") == "eq":
        return nodes.inline("", "(an equation of another chapter)")
    if node.get("reftype") == "numref":
        return nodes.inline("", "a figure of another chapter")
    folder = Path(str(node.get("refdoc"))).parent
    page = target.lstrip("/") if target.startswith("/") else (folder / target).as_posix()
    page = page.removesuffix(".md")
    title = names.blocks.get(target) or names.titles.get(target) or names.titles.get(page)
    return nodes.emphasis("", title) if title else nodes.inline("", "another chapter")


class SayBoxesInWords(SphinxPostTransform):
    """References to definitions and theorems of chapters that are left out, before sphinx-proof
    warns of them."""

    default_priority = 1

    def run(self, **options: Any) -> None:
        if not os.environ.get("CHAPTERS"):
            return
        known = getattr(self.env, "proof_list", {})
        for node in list(self.document.findall(pending_xref)):
            if node.get("refdomain") == "prf" and node["reftarget"] not in known:
                words = say_in_words(self.app, self.env, node, node)
                node.replace_self(words)


def without_dead_links(root: Path, drawn: str) -> str:
    """Return a map of the book whose boxes lead to pages that are built, and to no other."""
    built = set(pages(root))

    def link(found: re.Match[str]) -> str:
        return found[0] if found[1] in built else ""

    return re.sub(r' href="(?:\.\./)*([\w/]+)\.html"', link, drawn)


def connect(app: Sphinx) -> None:
    """Add the value that remembers the choice, and listen."""
    app.add_config_value(HIDDEN, False, "env")
    app.add_post_transform(SayBoxesInWords)
    app.connect("config-inited", take_over, priority=5)
    app.connect("doctree-read", drop_solutions)
    app.connect("missing-reference", say_in_words, priority=900)
    app.connect("build-finished", clean_sources)
