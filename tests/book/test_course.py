"""The students' edition has no solutions, and runs without them."""

from __future__ import annotations

import ast

import jupytext
import nbformat
import pytest
from course import EXERCISE, without_solutions, write_course
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_chapters import chapters

SOLUTION = "```{solution-start} ex-one\n:class: dropdown\n```\nThe answer is 4.\n"
AFTER = "```{solution-end}\n```\n\n## Summary\n\nAll is said."


def test_text_and_cells_of_a_solution_go_and_a_cell_for_the_answer_comes():
    exercise = (
        "```{exercise-start}\n:label: ex-one\n```\nWhat is 2 + 2?\n```{exercise-end}\n```\n\n"
    )
    notebook = new_notebook(
        cells=[
            new_code_cell("a = 2"),
            new_markdown_cell(exercise + SOLUTION),
            new_code_cell("print(a + a)"),
            new_markdown_cell(AFTER),
            new_code_cell("a"),
        ]
    )
    found = without_solutions(notebook)
    assert [cell.source for cell in found.cells] == [
        "a = 2",
        exercise.strip("\n"),
        "# Your answer to ex-one",
        "## Summary\n\nAll is said.",
        "a",
    ]
    assert len(notebook.cells) == 5
    nbformat.validate(found)


def test_a_solution_that_does_not_end_is_named():
    with pytest.raises(ValueError, match="close it with"):
        without_solutions(new_notebook(cells=[new_markdown_cell(SOLUTION)]))


def names(source: str, kind: type) -> set[str]:
    """Names that a cell stores or loads."""
    tree = ast.parse(source)
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}
    if kind is ast.Store:
        defined = ast.FunctionDef | ast.ClassDef
        found |= {n.name for n in ast.walk(tree) if isinstance(n, defined)}
        imports = (n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
        found |= {a.asname or a.name.split(".")[0] for n in imports for a in n.names}
    return found


def test_no_chapter_needs_what_a_solution_defines(root):
    for page in chapters(root):
        notebook = jupytext.read(root / "book" / f"{page}.md")
        kept = [cell.source for cell in without_solutions(notebook).cells]
        known: set[str] = set()
        solved: set[str] = set()
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            stored = names(cell.source, ast.Store)
            if cell.source in kept:
                needed = names(cell.source, ast.Load) & (solved - known - stored)
                assert not needed, f"{page}: {needed} is defined in a solution only"
                known |= stored
            else:
                solved |= stored


@pytest.mark.book
def test_both_editions_are_written(root, tmp_path):
    exercises = write_course(root, tmp_path)
    assert len(exercises) >= 36
    for page, count in exercises.items():
        text = {}
        for edition in ("student", "instructor"):
            notebook = nbformat.read(tmp_path / edition / f"{page}.ipynb", as_version=4)
            text[edition] = "\n".join(cell.source for cell in notebook.cells)
            assert "{solution" not in text[edition]
            assert "{term}" not in text[edition]
        assert text["student"].count("# Your answer to ") == text["instructor"].count("**Solution")
        assert EXERCISE.findall(text["student"]) == []
        assert text["student"].count("# Your answer to ") >= min(1, count)
    listed = (tmp_path / "student" / "README.md").read_text(encoding="utf-8")
    assert f"{sum(exercises.values())} exercises" in listed
