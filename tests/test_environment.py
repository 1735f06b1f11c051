"""The ways to install: one list of packages in pyproject.toml, one set of versions, and files that agree with them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.partition(";")[0].strip() for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, _, version in (pin.partition("==") for pin in pins)}


def requirements() -> set[str]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    names = {canonical(re.match(r"[\w.-]+", line).group()) for lines in lists for line in lines}
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
    for name in requirements():
        assert version(name).partition("+")[0] == pins[name], name


def test_environment_points_at_pyproject_and_constraints():
    assert "python=3.11" in ENVIRONMENT["dependencies"]
    lines = pip_lines()
    assert lines[0] == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", lines[1]).group(1).split(",")
    assert {"book", "test"} <= set(extras) <= set(PROJECT["optional-dependencies"])


@pytest.mark.slow
def test_environment_can_be_installed():
    arguments = [word for line in pip_lines() for word in line.split()]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_installed_packages_agree():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
