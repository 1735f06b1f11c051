"""Checks tell a right answer from a wrong one, and say for which input it is wrong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from course import without_solutions
from flat_notebook import Names, flatten
from nbformat.v4 import new_markdown_cell, new_notebook
from run_chapters import chapters
from shaplab_book import check
from shaplab_book.checking import (
    CheckFailed,
    checked,
    exercises_of,
    expect,
    find_check,
    main,
    wanted_signature,
)

RIGHT = """
import math
def helper(n):
    return math.factorial(n)
def coalition_weights(n):
    return [helper(s) * helper(n - s - 1) / helper(n) for s in range(n)]
"""
WRONG = "def coalition_weights(n):\n    return [1 / 2 ** (n - 1)] * n\n"


def banzhaf(n):
    return np.full(n, 0.5 ** (n - 1))


def test_a_right_answer_passes(capsys):
    assert check("ex-weights", lambda n: [1 / (n * _binomial(n - 1, s)) for s in range(n)])
    assert capsys.readouterr().out == "ex-weights: passes (7 cases)\n"


def _binomial(n, k):
    return 1 if k == 0 else _binomial(n, k - 1) * (n - k + 1) / k


def test_a_wrong_answer_fails_with_the_input_and_a_hint(capsys):
    assert not check("ex-weights", banzhaf)
    told = capsys.readouterr().out
    assert told.startswith("ex-weights: not yet, for n = 3: expected [0.33333, 0.16667, 0.33333],")
    assert "got [0.25, 0.25, 0.25]. Of the n! orders" in told


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda n: None, "for n = 1: expected [1.], got None; does the function end with return?"),
        (lambda n: [1.0] * 2, "for n = 1: expected the shape (1,), got (2,)."),
        (lambda n: "one", "for n = 1: expected [1.], got 'one', which is no number"),
        (lambda n: [np.nan], "for n = 1: expected [1.], got [nan]."),
        (
            lambda n: [1 / (n - 1)],
            "in the first case it raised ZeroDivisionError: division by zero.",
        ),
        (lambda: 1, "in the first case it raised TypeError"),
    ],
)
def test_every_kind_of_mistake_is_told(answer, expected, capsys):
    assert not check("ex-weights", answer)
    assert f"ex-weights: not yet, {expected}" in capsys.readouterr().out


def test_a_mistake_of_the_reader_s_code_names_its_line(capsys):
    def coalition_weights(n):
        if n == 1:
            return [1.0]
        return [undefined] * n  # noqa: F821

    assert not check("ex-weights", coalition_weights)
    told = capsys.readouterr().out
    assert "after n = 1 it raised NameError: name 'undefined' is not defined." in told
    assert "line 4 of coalition_weights: return [undefined] * n" in told


def test_bad_calls_are_named():
    with pytest.raises(ValueError, match=r"got 'ex-weight'\. Did you mean 'ex-weights'\?"):
        check("ex-weight", banzhaf)
    with pytest.raises(ValueError, match=r"expected an exercise with a check, got 'zzz'\. Known:"):
        check("zzz", banzhaf)
    with pytest.raises(ValueError, match="Pass its name, without brackets"):
        check("ex-weights", banzhaf(3))  # type: ignore[arg-type]


def test_expect_compares_values_of_any_kind():
    expect("a set", {1, 2}, {2, 1})
    expect("a word", "yes", "yes")
    expect("truth", np.array([True, False]), [1, 0])
    expect("what is missing", [np.nan, 1.0], [np.nan, 1.0])
    with pytest.raises(CheckFailed, match=r"for a word: expected 'yes', got 'no'\. Think\."):
        expect("a word", "no", "yes", hint="Think")


def test_the_command_line(tmp_path, capsys):
    right, wrong, other = (tmp_path / f"{name}.py" for name in ("right", "wrong", "other"))
    right.write_text(RIGHT, encoding="utf-8")
    wrong.write_text(WRONG, encoding="utf-8")
    other.write_text("def a(n): ...\ndef b(n): ...\n", encoding="utf-8")
    assert main(["ex-weights", str(right)]) == 0
    assert main(["ex-weights", str(wrong)]) == 1
    assert main(["ex-weights", str(other)]) == 1
    assert main(["ex-weights", str(tmp_path / "none.py")]) == 1
    assert main(["ex-wieghts", str(right)]) == 1
    said = capsys.readouterr().out
    for part in (
        "passes (7 cases)",
        "not yet, for n = 3",
        "expected the function coalition_weights",
        "got a, b. Define it under that name.",
        "Write it first.",
        "Did you mean 'ex-weights'?",
    ):
        assert part in said
    with pytest.raises(SystemExit):
        main([])


def test_a_file_with_one_function_of_any_name_and_one_that_fails(tmp_path, capsys):
    path = tmp_path / "answer.py"
    path.write_text(RIGHT.replace("coalition_weights", "mine").replace("helper", "_h"), "utf-8")
    assert main(["ex-weights", str(path)]) == 0
    path.write_text("1 / 0", "utf-8")
    assert main(["ex-weights", str(path)]) == 1
    assert "answer.py: ZeroDivisionError" in capsys.readouterr().out


def test_an_answer_without_an_end_is_ended(tmp_path, capsys):
    path = tmp_path / "answer.py"
    path.write_text("def coalition_weights(n):\n    while True:\n        pass\n", "utf-8")
    assert main(["ex-weights", str(path), "--seconds", "1"]) == 1
    said = capsys.readouterr().out
    assert "in the first case it raised TimeoutError: no answer after 1 s" in said
    path.write_text("while True:\n    pass\n", "utf-8")
    assert main(["ex-weights", str(path), "--seconds", "1"]) == 1
    assert "answer.py: TimeoutError" in capsys.readouterr().out


def test_a_student_finds_the_function_begun(capsys):
    text = "```{solution-start} ex-weights\n```\nDone.\n```{solution-end}\n```\n"
    notebook = without_solutions(new_notebook(cells=[new_markdown_cell(text)]))
    code = notebook.cells[0].source
    assert code.startswith("# Your answer to ex-weights\nfrom shaplab_book import check\n")
    assert "def coalition_weights(n):\n" in code
    exec(code, {})  # it runs as it stands, and says what is missing
    assert "ex-weights: not yet, for n = 1: expected [1.], got None" in capsys.readouterr().out


def test_exercises_are_listed_with_their_levels(capsys):
    assert main(["--list", "foundations/exact"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [f"1.{place}" for place in range(1, len(lines) + 1)]
    assert ["foundations/exact", "ex-weights", "●●○", "check"] in [line[1:] for line in lines]
    assert main(["--list", "foundations/exat"]) == 1
    assert "Known:" in capsys.readouterr().out
    assert main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert len(listed) > 60
    assert listed == sorted(listed, key=lambda number: [int(part) for part in number.split(".")])


def test_it_runs_as_a_module(tmp_path, root):
    path = tmp_path / "answer.py"
    path.write_text(WRONG, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::RuntimeWarning",
            "-m",
            "shaplab_book.check",
            "ex-weights",
            path,
        ],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{root}:{root / 'book/_ext'}", "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "not yet, for n = 3" in done.stdout


def test_a_reader_of_the_list_may_stop_early(root):
    done = subprocess.run(
        f"{sys.executable} -u -m shaplab_book.check --list | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{root}:{root / 'book/_ext'}", "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_the_name_check_is_the_function_whatever_is_imported(root):
    # The module of that name is for the command line; an import of it would hide the function.
    for path in (root / "book" / "_ext").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "from shaplab_book.check import" not in text, f"{path.name}: import from checking"
    find_check("ex-weights")
    import shaplab_book

    assert callable(shaplab_book.check)


def test_every_check_has_its_exercise_and_every_exercise_to_implement_its_check(root):
    asked = {}
    for page in chapters(root):
        text = (root / "book" / f"{page}.md").read_text(encoding="utf-8")
        for exercise in exercises_of(text, page):
            assert exercise.label, page
            if exercise.implement:
                asked[exercise.label] = page
                assert f'check("{exercise.label}", ' in text, exercise
                assert f'assert check("{exercise.label}", ' in text, f"{exercise}: in its solution"
    parts = {label: page.split("/")[0] for label, page in asked.items()}
    assert parts == checked()
    for label in asked:
        signature = wanted_signature(label)
        assert signature, f"{label}: begin its docstring with the signature, ``name(...)``"
        ast.parse(f"def {signature}: ...")
        assert len((find_check(label).__doc__ or "").split()) > 5, f"{label}: name a mistake"


def test_checks_import_what_is_heavy_where_it_is_needed(root):
    for path in (root / "book" / "_ext" / "shaplab_book" / "checks").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            heavy = {name.split(".")[0] for name in names} & {"torch", "xgboost", "sklearn", "shap"}
            assert not heavy, f"{path.name}: import {heavy} inside the check"


def test_levels_reach_flat_notebooks_and_the_students_edition():
    text = (
        "```{exercise-start}\n:label: ex-a\n:class: level-2 implement\n```\nWrite it.\n"
        "```{exercise-end}\n```\n\n```{solution-start} ex-a\n```\nDone.\n```{solution-end}\n```\n"
    )
    assert [(e.label, e.level, e.implement) for e in exercises_of(text)] == [("ex-a", 2, True)]
    notebook = without_solutions(new_notebook(cells=[new_markdown_cell(text)]))
    flatten(notebook, "book/part/one", Names())
    assert notebook.cells[0].source == "**Exercise 1.** ●●○\nWrite it."
    assert notebook.cells[1].source == "# Your answer to ex-a"


@pytest.mark.book
def test_levels_are_on_the_page(html):
    page = Path(html / "book" / "foundations" / "exact.html").read_text(encoding="utf-8")
    assert '<span aria-hidden="true">●●○</span>' in page
    assert "Level 2 of 3" in page
