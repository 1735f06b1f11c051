"""The static face: type checkers and completion see the public names, although they are loaded on
first use."""

from __future__ import annotations

import ast
import rlcompleter
import subprocess
import sys
from pathlib import Path

import pytest

import shaplab
from shaplab import shapnets

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "tests" / "user_script.py"


def listed(stub: str) -> tuple[set[str], set[str]]:
    """What a stub lists in ``__all__``, and all that it binds."""
    tree = ast.parse((ROOT / stub).read_text(encoding="utf-8"))
    everything = next(ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign))
    bound = {alias.name for n in tree.body if isinstance(n, ast.ImportFrom) for alias in n.names}
    return set(everything), bound


@pytest.mark.parametrize(
    ("stub", "module"),
    [("shaplab/__init__.pyi", shaplab), ("shaplab/shapnets/__init__.pyi", shapnets)],
)
def test_the_stub_lists_what_the_package_offers(stub, module):
    everything, bound = listed(stub)
    assert everything == set(module.__all__)
    assert bound | {"__version__"} == set(dir(module)) | {"__version__"}


# mypy takes a minute where `make lint` has not yet filled its cache: it reads the types of torch.
@pytest.mark.parametrize(
    "command",
    [["mypy"], ["basedpyright", "--level", "error"]],
    ids=lambda c: c[0],
)
def test_a_type_checker_sees_real_types(command):
    name, *options = command
    if name == "basedpyright":
        options += ["--pythonpath", sys.executable]
    done = subprocess.run(
        [sys.executable, "-m", name, *options, str(SCRIPT)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_type_checker_finds_a_mistake(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import shaplab\nshaplab.tree_shap(None, [[0.0]], backgrund=1)\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "basedpyright",
            "--level",
            "error",
            "--pythonpath",
            sys.executable,
            str(wrong),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "backgrund" in done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (
            "tree_",
            {"tree_loss_shap(", "tree_output_shap(", "tree_shap(", "tree_shap_interactions("},
        ),
        ("shapnets.pru", {"shapnets.prune(", "shapnets.pruning"}),
        ("Explan", {"Explanation("}),
        ("plots.", {f"plots.{name}(" for name in shaplab.plots.__all__}),
    ],
)
def test_completion_in_a_session_offers_public_names(typed, offered):
    found = rlcompleter.Completer({"shaplab": shaplab}).attr_matches(f"shaplab.{typed}")
    assert {item.removeprefix("shaplab.") for item in found} == offered
