"""Words of the glossary: each chapter's links say what the word means, on the page and in a
notebook."""

from __future__ import annotations

import re

import pytest


def terms(root):
    text = (root / "book/reference/glossary.md").read_text(encoding="utf-8")
    inside = text.partition(":::{glossary}")[2]
    return re.findall(r"^(?![\s:])(.+)$", inside, re.M)


def test_terms_are_in_order_and_each_has_one_sentence_at_least(root):
    text = (root / "book/reference/glossary.md").read_text(encoding="utf-8")
    blocks = text.partition(":::{glossary}\n")[2].partition("\n:::")[0].split("\n\n")
    firsts = [block.splitlines()[0] for block in blocks]
    assert firsts == sorted(firsts, key=str.lower)
    assert all(re.search(r"\n  [A-Z].*\.$", block) for block in blocks)


def test_links_name_terms(root):
    known = set(terms(root))
    used = set()
    for path in (root / "book").glob("*/*.md"):
        for words in re.findall(r"\{term\}`([^`]+)`", path.read_text(encoding="utf-8")):
            used.add(words.partition("<")[2].rstrip(">") or words)
    assert used <= known
    assert len(used) >= 15


@pytest.mark.book
def test_a_link_carries_its_sentence(html):
    page = (html / "book/foundations/predictions.html").read_text(encoding="utf-8")
    link = re.search(r'<a class="reference internal" href="[^"]*#term-marginal-game"[^>]*>', page)
    assert "values of background rows" in link.group(0)


@pytest.mark.book
def test_a_notebook_has_the_plain_word(html):
    notebook = (html / "_sources/book/foundations/predictions.ipynb").read_text(encoding="utf-8")
    assert "{term}" not in notebook
    assert "The marginal game" in notebook  # the word itself, not a word of code
