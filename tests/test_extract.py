"""Take it home: what a file holds, and the command that writes it. That it runs is in
test_extract_runs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import shaplab
from shaplab.extract import extract, main, write

NAMES = [name for name in shaplab.__all__ if name != "__version__"]


@pytest.mark.slow
def test_tree_shap_explains_a_forest_at_home(tmp_path: Path) -> None:
    write(extract("tree_shap"), tmp_path / "home_tree_shap.py")
    code = """
import sys
sys.modules["shaplab"] = None
import numpy as np
from sklearn.ensemble import RandomForestRegressor
sys.path.insert(0, sys.argv[1])
from home_tree_shap import tree_shap
X = np.random.default_rng(0).normal(size=(80, 4))
forest = RandomForestRegressor(5, max_depth=4, random_state=0).fit(X, X[:, 0] * X[:, 1])
gap = tree_shap(forest, X).gap(forest.predict(X))
assert abs(gap).max() < 1e-12, gap
"""
    subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)],
        check=True,
        cwd=tmp_path,
        timeout=300,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "numba")},
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_shaplab_is_imported_and_all_names_are_bound(name: str) -> None:
    text = extract(name)
    imports = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not [line for line in imports if "shaplab" in line]
    assert unbound(text) == set()
    assert "Redistribution and use in source and binary forms" in text
    assert f"{name}: taken from shaplab {shaplab.__version__}" in text


def unbound(text: str) -> set[str]:
    """Names that a file reads but neither binds nor finds among the builtins: ruff's F821."""
    command = [
        "ruff",
        "check",
        "--isolated",
        "--select=F821,F811,F401",
        "--no-cache",
        "--output-format=concise",
        "-",
    ]
    done = subprocess.run(
        [sys.executable, "-m", *command], check=False, input=text, capture_output=True, text=True
    )
    return {line for line in done.stdout.splitlines() if line.startswith("-:")}


def test_requirements_carry_versions_and_only_what_is_needed() -> None:
    text = ast.get_docstring(ast.parse(extract("shapley_values")))
    assert "Requires: numpy>=2." in text
    assert "Requires: nothing but Python." in extract("UnsupportedModelError")
    needed = extract("cluster_rows").split("Requires: ")[1].split(".\n")[0]
    assert "scipy>=1.13" in needed
    assert "torch" not in needed


def test_the_file_says_where_the_book_derives_it() -> None:
    text = extract("shapley_values")
    assert "# From shaplab.foundations.exact, derived in the chapter foundations/exact." in text


def test_only_what_is_needed_comes_along() -> None:
    text = extract("shapley_values")
    assert "def interaction_values" not in text
    assert "class Explanation" not in text
    tree = ast.parse(text)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    words = " ".join(ast.unparse(node) for node in tree.body)
    for name in defined - {"shapley_values"}:
        assert words.count(name) > 1, f"{name} is defined and never used"


def test_a_plot_is_found_behind_its_door() -> None:
    assert "def waterfall(" in extract("plots.waterfall")


def test_several_functions_in_one_file() -> None:
    text = extract("shapley_values", "Explanation", "insight.metrics.Hider")
    namespace: dict[str, object] = {"__name__": "several"}
    sys.modules["several"] = type(sys)("several")  # dataclasses look their module up
    try:
        exec(compile(text, "several.py", "exec"), namespace)
    finally:
        del sys.modules["several"]
    assert namespace["__all__"] == ["shapley_values", "Explanation", "Hider"]
    assert text.count("def fail(") == 1


# The command, and the file it writes.


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my file.py"
    assert main(["shapley_values", "-o", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == extract("shapley_values")
    assert main(["shapley_values"]) == 0
    assert capsys.readouterr().out == extract("shapley_values")
    assert [path.name for path in tmp_path.iterdir()] == ["my file.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shapely_values"], "Names that are close: shapley_values"),
        (
            ["zzzz"],
            "expected public names of shaplab, or module.name, got 'zzzz'. dir(shaplab) "
            "lists the names.",
        ),
        (["<script>" * 200], "…t><script><script><script>'. dir(shaplab) lists"),
        (["trees"], "or module.name, got 'trees'"),
        (
            ["extract.nope"],
            "names: expected names that shaplab.extract defines, got 'extract.nope'.",
        ),
        (
            ["nope.shapley_values"],
            "names: expected a module of shaplab before the dot, got 'nope.shapley_values'. "
            "Check the spelling.",
        ),
        (["shapley_values", "-o", "."], "path: expected a file in a folder that exists, got '.'"),
        (
            ["shapley_values", "-o", "no/such/folder/x.py"],
            "path: expected a file in a folder that exists",
        ),
    ],
)
def test_the_command_explains_what_is_wrong(
    arguments, message, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err


def test_extract_needs_a_name() -> None:
    with pytest.raises(ValueError, match="names: expected at least one"):
        extract()
    with pytest.raises(ValueError, match=r"names: expected public names of shaplab, .*got 5"):
        extract(5)  # type: ignore[arg-type]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "kept.py"
    target.write_text("old")
    target.chmod(0o600)
    with pytest.raises(UnicodeEncodeError):
        write("half \ud800", target)
    assert target.read_text() == "old"
    write("new", target)
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["kept.py"]
