"""Each chapter runs once: what invalidates it, what does not, and that the build and nbval read the
same outputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import run_chapters

ROOT = Path(__file__).resolve().parents[2]
TINY = (ROOT / "tests" / "book" / "sample" / "tiny.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.xdist_group("one execution")  # its tests share a project, in order
TOC = "format: jb-book\nroot: book/index\nchapters:\n" + "".join(
    f"  - file: book/{page}\n" for page in ("part/one", "part/two", "reproduction")
)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """Return a book of two tiny chapters with the real configuration, helper, runner and
    extension."""
    root = tmp_path_factory.mktemp("project")
    for folder in ("book/_ext", "book/_static", "shaplab"):
        shutil.copytree(
            ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "kernels")
        )
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copy(ROOT / "book" / "references.bib", root / "book")
    (root / "_toc.yml").write_text(TOC, encoding="utf-8")
    (root / "book" / "index.md").write_text("# Index\n", encoding="utf-8")
    rows = "# Rows\n\n```{reproduction-table} count\n```\n\n```{reproduction-table}\n```\n\n```{bibliography}\n```\n"
    (root / "book" / "reproduction.md").write_text(rows, encoding="utf-8")
    (root / "book" / "part").mkdir()
    for name in ("one", "two"):
        text = TINY.replace("tiny", name).replace("SAGE-1", "SAGE-2" if name == "two" else "SAGE-1")
        (root / "book" / "part" / f"{name}.md").write_text(text, encoding="utf-8")
    return root


def run(project: Path, capsys, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = run_chapters.main(["--root", str(project), *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def build(project: Path, *more: str, **environment: str) -> subprocess.CompletedProcess:
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        ".",
        "-W",
        "-n",
        "--keep-going",
        *more,
    ]
    env = {
        **os.environ,
        "PROFILE": "quick",
        **environment,
        "PYTHONPATH": os.pathsep.join([str(project), str(project / "book/_ext")]),
    }
    return subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, check=False
    )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.book
def test_a_chapter_runs_once_and_again_only_when_something_changed(project, capsys):
    status, said, _ = run(project, capsys)
    assert status == 0
    assert "2 chapters, 0 unchanged, 2 to run" in said
    assert "part/one: ran in" in said

    assert "2 unchanged, 0 to run" in run(project, capsys)[1]

    edit(project / "book/part/one.md", "Double it.", "Double it now.")
    said = run(project, capsys)[1]
    assert "1 unchanged, 1 to run" in said
    assert "part/one: ran" in said
    assert "part/two: ran" not in said

    before = run_chapters.cache_path(project, "quick")
    edit(project / "shaplab/explanation.py", '"""Explanation', '"""An Explanation')
    assert "0 unchanged, 2 to run" in run(project, capsys)[1]
    after = run_chapters.cache_path(project, "quick")
    assert before != after
    assert after.exists()
    assert not before.exists()

    said = run(project, capsys, "part/one", "--seed", "3")[1]
    path = Path(said.splitlines()[-1])
    assert path == project / "_build/executed/quick-seed3/part/one.ipynb"
    assert "total 5" in path.read_text(encoding="utf-8")
    assert "2 unchanged" in run(project, capsys)[1]


@pytest.mark.book
def test_the_build_reads_the_cache_and_never_executes(project, capsys):
    assert run(project, capsys)[0] == 0
    for attempt in (1, 2):
        if attempt == 2:
            (project / "book/index.md").write_text("# Index, again\n", encoding="utf-8")
        done = build(project)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Executing notebook" not in done.stdout + done.stderr
        if attempt == 1:
            assert done.stdout.count("Using cached notebook") == 2
    page = (project / "_build/html/book/part/one.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    assert "The total is 2, recorded as 2 gloves" in text
    title = re.search(r'id="ex-one">\s*<p class="admonition-title">(.*?)</p>', page, re.S)
    assert title is not None
    assert "●●○" in title[1]
    assert "Level 2 of 3" in title[1]
    rows = (project / "_build/html/book/reproduction.html").read_text(encoding="utf-8")
    assert "2 reproduced, 0 reproduced on a stand-in" in rows
    assert "2 gloves" in rows
    assert (project / "_build/html/_static/mathjax/tex-mml-chtml.js").exists()

    edit(project / "book/part/two.md", "total = 2 + seed", "total = 2 + 1 * seed")
    # The build runs what changed, through papermill and once, and does not hide a failure.
    done = build(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 chapters, 1 unchanged, 1 to run" in done.stdout
    edit(project / "book/part/two.md", "assert total == 2 + seed", "assert total == 7")
    failed = build(project)
    assert failed.returncode != 0
    assert "A chapter failed" in failed.stderr + failed.stdout
    edit(project / "book/part/two.md", "assert total == 7", "assert total == 2 + seed")
    edit(project / "book/part/two.md", "total = 2 + 1 * seed", "total = 2 + seed")


@pytest.mark.book
def test_hidden_solutions_are_nowhere(project, capsys):
    assert run(project, capsys)[0] == 0
    edit(
        project / "_config.yml",
        "    language: en\n",
        "    language: en\n    hide_solutions: true\n",
    )
    done = build(project, "--all", "--path-output", "_build/hidden")
    edit(project / "_config.yml", "    hide_solutions: true\n", "")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = project / "_build" / "hidden" / "_build"
    page = (folder / "html/book/part/one.html").read_text(encoding="utf-8")
    assert "Double it" in page  # an earlier test may have changed the rest
    assert "What this does not say" in page
    for path in (*folder.rglob("one*.html"), *folder.rglob("one*.md"), *folder.rglob("one*.ipynb")):
        text = re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"2 \* total|solution-start|Solution", text), path
    assert len(list(folder.rglob("one*.ipynb"))) >= 2
    index = (folder / "html" / "searchindex.js").read_text(encoding="utf-8")
    assert '"solut"' not in index


@pytest.mark.book
def test_some_chapters_are_built_without_warnings(project, capsys, monkeypatch):
    links = (
        "\nSee {ref}`ch-two`, {ref}`this <ch-two>`, {doc}`two`, {numref}`fig-two`, {ref}`ex-two`, "
        "{prf:ref}`thm-two`.\n"
    )
    page = project / "book" / "part" / "one.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(before + links, encoding="utf-8")
    theorem = ":::{prf:theorem} Two\n:label: thm-two\nTrue.\n:::\n"
    other = project / "book" / "part" / "two.md"
    other.write_text(other.read_text(encoding="utf-8") + theorem, encoding="utf-8")
    monkeypatch.setenv("CHAPTERS", "part/one reproduction")
    status, said, _ = run(project, capsys)
    assert status == 0
    assert "1 chapter" in said
    done = build(project, "--toc", "_build/some/_toc.yml", "--path-output", "_build/some")
    page.write_text(before, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    html = project / "_build" / "some" / "_build" / "html"
    assert not (html / "book" / "part" / "two.html").exists()
    text = (html / "book" / "part" / "one.html").read_text(encoding="utf-8")
    assert "two.html" not in text
    said = " ".join(re.sub(r"<[^>]+>", "", text).split())
    assert "See A two chapter, this, A two chapter, a figure of another chapter, another" in said
    assert "Theorem (Two)" in said
    monkeypatch.setenv("CHAPTERS", "part/on")
    with pytest.raises(SystemExit):
        run(project, capsys)
    assert "no such page: part/on. Did you mean part/one" in capsys.readouterr().err


@pytest.mark.book
def test_an_unknown_function_to_take_home_fails_the_build(project, capsys):
    page = project / "book/part/one.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(before + "\n```{take-home} shapley_valeus\n```\n", encoding="utf-8")
    assert run(project, capsys)[0] == 0
    done = build(project)
    page.write_text(before, encoding="utf-8")
    assert done.returncode != 0
    assert "take-home: shapley_valeus" in done.stderr


@pytest.mark.book
def test_a_failing_chapter_names_its_cell_and_fails(project, capsys):
    edit(project / "book/part/two.md", "assert total == 2 + seed", "assert total == 7, 'planted'")
    status, said, problem = run(project, capsys)
    edit(project / "book/part/two.md", "assert total == 7, 'planted'", "assert total == 2 + seed")
    assert status == 1
    assert "part/two: FAILED" in said
    assert "book/part/two.md" in problem
    assert "assert total == 7" in problem
    assert "AssertionError" in problem


def test_an_unknown_chapter_is_refused(project, capsys):
    with pytest.raises(SystemExit):
        run_chapters.main(["--root", str(project), "part/three"])
    assert "no such chapter: part/three. Chapters: part/one, part/two." in capsys.readouterr().err


def test_the_fingerprint_follows_library_and_dependencies(project, monkeypatch):
    first = run_chapters.fingerprint(project)
    assert first == run_chapters.fingerprint(project)
    monkeypatch.setattr(run_chapters.metadata, "version", lambda name: "0.0.0")
    assert run_chapters.fingerprint(project) != first
    names = run_chapters.dependencies(project)
    assert {"numpy", "torch", "xgboost", "shap"} <= set(names)


@pytest.mark.book
def test_nbval_finds_a_planted_digit(project, capsys):
    assert run(project, capsys)[0] == 0
    source = project / "_build/executed/quick/part/one.ipynb"
    planted = project / "planted.ipynb"
    notebook = json.loads(source.read_text(encoding="utf-8"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "ipc_kernels",
        "--nbval",
    ]
    command += ["-c", os.devnull]
    command += [
        "--nbval-current-env",
        "--nbval-sanitize-with",
        str(ROOT / "tests/book/sanitize.cfg"),
        str(planted),
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project), str(project / "book/_ext")])}
    codes = []
    for digit in ("2", "3"):
        text = json.dumps(notebook).replace("total 2", f"total {digit}")
        planted.write_text(text, encoding="utf-8")
        codes.append(
            subprocess.run(
                command, env=env, cwd=project, capture_output=True, check=False
            ).returncode
        )
    assert codes == [0, 1]
