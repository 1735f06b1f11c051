"""The ways to install: one list of packages in pyproject.toml, one set of versions, and files that
agree with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import yaml
from packaging.requirements import Requirement

import shaplab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition(";")[0].strip() for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, _, version in (pin.partition("==") for pin in pins)}


def requirements(without: tuple[str, ...] = ()) -> set[str]:
    extras = PROJECT["optional-dependencies"]
    lists = [PROJECT["dependencies"], *(extras[name] for name in extras if name not in without)]
    asked = [Requirement(line) for lines in lists for line in lines]
    names = {canonical(each.name) for each in asked if not each.marker or each.marker.evaluate()}
    return names - {"shaplab"}


def pip_lines() -> list[str]:
    return next(item["pip"] for item in ENVIRONMENT["dependencies"] if isinstance(item, dict))


def test_core_stays_small():
    names = {re.match(r"[\w.-]+", line).group() for line in PROJECT["dependencies"]}
    assert names == {"numpy", "scipy", "numba", "joblib", "cloudpickle", "tqdm"}


def test_every_requirement_is_pinned():
    assert requirements() - set(pinned()) == set()


def test_constraints_name_versions_and_no_addresses():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert all(re.fullmatch(r"[\w.]+", version) for version in pinned().values())


def test_installed_versions_are_the_pinned_ones():
    from importlib.metadata import version

    pins = pinned()
    for name in requirements(without=("lab",)):  # `make lab` installs it when it is asked for
        assert version(name).partition("+")[0] == pins[name], name


def test_environment_points_at_pyproject_and_constraints():
    assert "python=3.11" in ENVIRONMENT["dependencies"]
    lines = pip_lines()
    assert lines[0] == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", lines[1]).group(1).split(",")
    assert {"book", "test"} <= set(extras) <= set(PROJECT["optional-dependencies"])


# What README says can be done.

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    explained = names["explained"]
    people = names["people"].data
    outputs = names["forest"].predict(people)
    # A mean of 100 trees whose leaves are of order 100.
    assert abs(explained.gap(outputs)).max() < 1e-9
    # What the picture says to those who do not see it.
    said = re.search(
        r"from the mean, ([\d.]+), to ([\d.]+); body mass index adds ([\d.]+\d)", README
    )
    told = (
        explained.base_values[0],
        outputs[0],
        explained.values[0, list(people.columns).index("bmi")],
    )
    assert [float(number) for number in said.groups()] == [round(float(v), 1) for v in told]


def test_the_picture_of_the_readme_is_that_of_its_script(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    from readme_picture import PLACE, draw

    assert f"]({PLACE.relative_to(ROOT).as_posix()})" in README
    draw(tmp_path / "again.png")
    kept, drawn = (plt.imread(path)[..., :3] for path in (PLACE, tmp_path / "again.png"))
    assert PLACE.stat().st_size < 100_000
    assert kept.shape == drawn.shape
    assert (kept[0, 0] == 1).all()  # white behind, on a dark page too
    # Another version of matplotlib may set letters otherwise: a few pixels in a hundred.
    assert (abs(kept - drawn).max(axis=-1) > 0.2).mean() < 0.03


def test_the_targets_extras_and_files_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"book", "test", "chapter"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    for extras in re.findall(r"\.\[([\w,]+)\]", README):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).is_file(), link


def test_the_readme_tells_what_each_part_teaches():
    parts = re.findall(r"caption: (.+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", README, re.M)[1:]
    assert rows == [*parts[:-2], "Library and reference"]


def test_the_workflow_publishes_what_the_buttons_open():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [
        "3.11",
        "3.12",
        "3.13",
        "3.14",
    ]
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make test PYTHON=python"]
    assert (
        next(step["with"]["path"] for step in steps if "upload" in step.get("uses", ""))
        == "_build/html"
    )
    publish = workflow["jobs"]["publish"]
    assert publish["needs"] == "test"
    assert publish["permissions"] == {"contents": "write"}
    assert "git init -q -b gh-pages" in publish["steps"][-1]["run"]
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert publish["if"] == f"github.ref == 'refs/heads/{config['repository']['branch']}'"


def test_binder_gets_a_notebook_beside_every_chapter(tmp_path):
    shutil.copy(ROOT / "postBuild", tmp_path)
    (tmp_path / "book" / "part").mkdir(parents=True)
    shutil.copy(ROOT / "tests/book/sample/tiny.md", tmp_path / "book" / "part")
    (tmp_path / "book" / "index.md").write_text("# No chapter\n", encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        ["./postBuild"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": path},
    )
    assert [p.name for p in tmp_path.rglob("*.ipynb")] == ["tiny.ipynb"]


@pytest.mark.slow
def test_environment_can_be_installed():
    arguments = [word for line in pip_lines() for word in line.split()]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_installed_packages_agree():
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


# What the project says of itself.


def test_the_citation_file_says_what_the_package_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == shaplab.__version__
    assert citation["license"] == PROJECT["license"] == "BSD-3-Clause"
    assert [author["name"] for author in citation["authors"]] == ["shaplab authors"]
    assert PROJECT["authors"] == [{"name": "shaplab authors"}]
    assert "Copyright (c) 2026, shaplab authors" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_address_of_the_repository_is_the_same_everywhere():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    address = config["repository"]["url"]
    assert PROJECT["urls"]["Repository"] == address
    assert citation["repository-code"] == address


def test_classifiers_name_the_versions_of_python_that_are_tested():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    versions = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if "3." in line]
    assert named == versions
    assert PROJECT["requires-python"] == f">={versions[0]},<3.{int(versions[-1][2:]) + 1}"


WITHOUT_XGBOOST = """
import importlib.metadata as metadata
found = metadata.distribution
def distribution(name):
    if name == "xgboost":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.distribution = distribution
import numpy as np, shaplab, xgboost
X = np.random.default_rng(0).normal(size=(40, 3))
model = xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(X, X[:, 0] * X[:, 1])
for found in (shaplab.tree_shap(model, X), shaplab.interventional_tree_shap(model, X, X[:5])):
    assert np.abs(found.gap(model.predict(X))).max() < 1e-5
"""


def test_xgboost_may_be_installed_under_another_name():
    """xgboost-cpu is the same module without 470 MB of libraries for graphics cards."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_XGBOOST], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
