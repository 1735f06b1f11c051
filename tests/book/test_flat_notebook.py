"""Notebooks to take away: no MyST is left in them, and nothing that the text says is lost."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from flat_notebook import Names, _glued, flatten
from run_chapters import chapters, executed_path

ROOT = Path(__file__).resolve().parents[2]
MYST = re.compile(r"\{[a-z:-]+\}`[^`]*`|^:{3,}|^`{3,}\{|^:[a-z]+: |^\$\$ \(|^\([\w-]+\)=", re.M)
TEXT = """\
(ch-one)=
# One

:::{prf:theorem} A sum
:label: thm-sum
It is

$$
1 + 1 = 2 .
$$ (eq-sum)
:::

:::{prf:proof}
Count. See {eq}`eq-sum` and {prf:ref}`thm-sum`. $\\square$
:::

By {cite:t}`shapley1953value`, as {ref}`others <ch-one>` say, it is {glue:text}`answer`; {func}`~shaplab.sage`.

```{exercise-start}
:label: ex-one
```
How many?
```{exercise-end}
```

```{solution-start} ex-one
:class: dropdown
```
Two.
```{solution-end}
```
"""


def text_of(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_blocks_roles_and_values_become_plain_text():
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(TEXT),
            nbformat.v4.new_code_cell(
                "1 + 1",
                outputs=[
                    nbformat.v4.new_output(
                        "display_data",
                        data={"application/papermill.record/text/plain": "'2'"},
                        metadata={"scrapbook": {"name": "answer"}},
                    )
                ],
            ),
        ]
    )
    names = Names.of_book(ROOT)
    names.blocks["thm-sum"] = "Theorem (A sum)"
    names.numbers["book/part/one"] = 7
    flatten(notebook, "book/part/one", names)
    text = text_of(notebook)
    assert not MYST.search(text)
    for part in (
        "# 7. One",
        "> **Theorem** (A sum).",
        "> **Proof.**",
        "> Count. See (7.1) and Theorem (A sum).",
        "\\tag{7.1}",
        "By Shapley (1953), as *others* say, it is 2; `sage`.",
        "**Exercise 7.1.**\nHow many?",
        "**Solution.**\nTwo.",
    ):
        assert part in text
    assert notebook.cells[1].source == "1 + 1"
    again = text_of(notebook)
    flatten(notebook, "book/part/one", names)
    assert text_of(notebook) == again


@pytest.mark.parametrize("page", chapters(ROOT))
def test_no_myst_is_left_in_any_chapter(page):
    source = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
    notebook = jupytext.reads(source, fmt="md:myst")
    before = len(text_of(notebook).split())
    flatten(notebook, f"book/{page}", Names.of_book(ROOT))
    text = text_of(notebook)
    assert not MYST.findall(text)
    # Fences and options go; words stay.
    assert len(text.split()) > 0.8 * before


@pytest.mark.book
def test_downloads_are_executed_and_plain(html):
    for page in chapters(ROOT):
        notebook = nbformat.read(html / "_sources" / "book" / f"{page}.ipynb", as_version=4)
        text = text_of(notebook)
        assert not MYST.findall(text), page
        source = (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8")
        for key in re.findall(r"\{glue:text\}`([\w-]+)`", source):
            assert f"({key})" not in text, f"{page}: {key} was not filled in"
        assert any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.book
@pytest.mark.parametrize("page", chapters(ROOT))
def test_values_in_sentences_have_no_marks(page):
    """Pages show them as they are: a star would stand there as a star."""
    notebook = nbformat.read(executed_path(ROOT, page, "quick"), as_version=4)
    assert [text for _, text in _glued(notebook) if re.search(r"\*\w|`", text)] == []
