"""Notebooks for a course: without solutions for students, with them for instructors.

    make editions      writes _build/course/student and _build/course/instructor

Both are plain Markdown and code, with the outputs of the chapter; in the student's edition an empty
cell stands where a solution was. A list says which exercises each chapter has.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from flat_notebook import Names, flatten
from run_chapters import chapters, executed_path, run
from shaplab_book.checking import checked, empty_answer

__all__ = ["without_solutions", "write_course"]

START = re.compile(r"^```\{solution-start\} (\S+)\n(?::.*\n)*```\n?", re.M)
END = re.compile(r"^```\{solution-end\}\n```\n?", re.M)
EXERCISE = re.compile(r"^```\{exercise-start\}.*\n:label: (\S+)\n(?::.*\n)*```\n", re.M)
INTRODUCTION = """# {title}

{count} chapters, {exercises} exercises. Each notebook runs from top to bottom; its first cell of
code says which parameters it takes.

| | chapter | exercises |
|---|---|---|
{rows}
"""


def without_solutions(notebook: Any) -> Any:
    """Return a copy without the text and the cells of solutions; an empty cell takes the place of
    each, or one that begins the function that is asked for and checks it."""
    checks = checked()
    found = nbformat.v4.new_notebook(metadata=notebook.metadata)
    inside = False
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            if not inside:
                found.cells.append(cell)
            continue
        rest = cell.source
        while rest:
            mark = (END if inside else START).search(rest)
            kept, rest = (rest, "") if mark is None else (rest[: mark.start()], rest[mark.end() :])
            if not inside and kept.strip():
                found.cells.append(nbformat.v4.new_markdown_cell(kept.strip("\n")))
            if mark is not None and not inside:
                code = empty_answer(mark[1]) if mark[1] in checks else ""
                start = f"# Your answer to {mark[1]}\n{code}".rstrip()
                found.cells.append(nbformat.v4.new_code_cell(start))
            inside = inside != (mark is not None)
    if inside:
        raise ValueError("a solution that does not end: close it with {solution-end}")
    for number, cell in enumerate(found.cells):
        cell["id"] = f"cell-{number}"
    return found


def write_course(root: Path, folder: Path) -> dict[str, int]:
    """Write both editions; returns the number of exercises of each chapter."""
    names = Names.of_book(root)
    exercises = {}
    for page in chapters(root):
        if "/" not in page:  # the start page
            continue
        path = executed_path(root, page, "quick")
        notebook = nbformat.read(path, as_version=4)
        text = "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        exercises[page] = len(EXERCISE.findall(text))
        for edition in ("student", "instructor"):
            made = without_solutions(notebook) if edition == "student" else notebook
            made = nbformat.from_dict(made)
            flatten(made, f"book/{page}", names)
            target = folder / edition / f"{page}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(made, target)
    rows = "\n".join(
        f"| {names.numbers[place]} | [{names.titles[place]}]({page}.ipynb) | {count} |"
        for page, count in exercises.items()
        for place in [f"book/{page}"]
    )
    for edition, title in (("student", "Exercises"), ("instructor", "Exercises and solutions")):
        (folder / edition / "README.md").write_text(
            INTRODUCTION.format(
                title=title, count=len(exercises), exercises=sum(exercises.values()), rows=rows
            ),
            encoding="utf-8",
        )
    return exercises


def main() -> int:
    """Run what is not current, then write both editions."""
    root = Path(__file__).resolve().parents[2]
    if run(root, chapters(root), "quick", 0, 2, False):
        return 1
    folder = root / "_build" / "course"
    exercises = write_course(root, folder)
    print(f"{len(exercises)} chapters, {sum(exercises.values())} exercises in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
