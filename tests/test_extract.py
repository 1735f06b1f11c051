"""Take it home: each public function works in one file with shaplab absent, and nasty modules are flattened rightly."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import shaplab
from shaplab import _flatten
from shaplab.extract import extract, extract_from, main, write

NAMES = [name for name in shaplab.__all__ if name != "__version__"]

# A small call for each function that has a short one; the others are imported and looked up.
CALLS = {
    "shapley_values": "m.shapley_values(lambda S: S[:, 0] * 1.0 + S.all(axis=1), 2).tolist() == [1.5, 0.5]",
    "banzhaf_values": "m.banzhaf_values(lambda S: S.sum(axis=1) * 1.0, 3).tolist() == [1.0, 1.0, 1.0]",
    "company_game": "m.company_game is not None",
    "interaction_values": "m.interaction_values(lambda S: S.all(axis=1) * 1.0, 2).shape[-2:] == (2, 2)",
    "Explanation": "float(m.Explanation([[1.0, 2.0]], 0.5).prediction[0]) == 3.5",
    "UnsupportedModelError": "issubclass(m.UnsupportedModelError, ValueError)",
    "CoalitionExplorer": "hasattr(m.CoalitionExplorer, '_repr_html_')",
}

RUN = """
import importlib, json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "shaplab":
            raise ModuleNotFoundError("shaplab is blocked: " + name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, sys.argv[1])
calls = json.loads(sys.argv[2])
failed = {}
for name, call in calls.items():
    try:
        m = importlib.import_module("only_" + name)
        assert getattr(m, name) is not None and m.__all__ == [name], "not exported"
        assert not call or eval(call), "wrong result of " + call
    except BaseException as problem:
        failed[name] = repr(problem)
assert not any(name.split(".")[0] == "shaplab" for name in sys.modules)
print("RESULT" + json.dumps(failed))
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What happens to each public name in one process where shaplab cannot be imported."""
    import json

    folder = tmp_path_factory.mktemp("home")
    failed: dict[str, str] = {}
    for name in NAMES:
        try:
            write(extract(name), folder / f"only_{name}.py")
        except Exception as problem:
            failed[name] = repr(problem)
    calls = {name: CALLS.get(name, "") for name in NAMES if name not in failed}
    done = subprocess.run([sys.executable, "-I", "-c", RUN, str(folder), json.dumps(calls)], check=False,
                          capture_output=True, text=True, timeout=300, cwd=folder,
                          env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "numba")})
    assert done.returncode == 0, done.stderr
    return failed | json.loads(done.stdout.split("RESULT")[1])


@pytest.mark.parametrize("name", NAMES)
def test_public_name_runs_with_shaplab_absent(name: str, verdicts: dict[str, str]) -> None:
    assert name not in verdicts, verdicts[name]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_shaplab_is_imported_and_all_names_are_bound(name: str) -> None:
    text = extract(name)
    imports = [ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [line for line in imports if "shaplab" in line]
    assert unbound(text) == set()
    assert "Redistribution and use in source and binary forms" in text
    assert f"{name}: taken from shaplab {shaplab.__version__}" in text


def unbound(text: str) -> set[str]:
    """Names that a file reads but neither binds nor finds among the builtins: ruff's F821."""
    command = ["ruff", "check", "--isolated", "--select=F821,F811,F401", "--no-cache", "--output-format=concise", "-"]
    done = subprocess.run([sys.executable, "-m", *command], check=False, input=text, capture_output=True, text=True)
    return {line for line in done.stdout.splitlines() if line.startswith("-:")}


def test_requirements_carry_versions_and_only_what_is_needed() -> None:
    text = ast.get_docstring(ast.parse(extract("shapley_values")))
    assert "Needs: numpy>=2." in text
    assert "pandas" in ast.get_docstring(ast.parse(extract("datasets.load_bike"))).split("Needs:")[1].split("\n")[0]


def test_only_what_is_needed_comes_along() -> None:
    text = extract("shapley_values")
    assert "def interaction_values" not in text
    assert "class Explanation" not in text
    tree = ast.parse(text)
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    words = " ".join(ast.unparse(node) for node in tree.body)
    for name in defined - {"shapley_values"}:
        assert words.count(name) > 1, f"{name} is defined and never used"


def test_several_functions_in_one_file() -> None:
    text = extract("shapley_values", "Explanation", "datasets.simulate_dna")
    namespace: dict[str, object] = {"__name__": "several"}
    sys.modules["several"] = type(sys)("several")  # dataclasses look their module up
    try:
        exec(compile(text, "several.py", "exec"), namespace)
    finally:
        del sys.modules["several"]
    assert namespace["__all__"] == ["shapley_values", "Explanation", "simulate_dna"]
    assert text.count("def fail(") == 1


# A package of nasty shapes.

NASTY = {
    "__init__": '__version__ = "9.8"\n_PUBLIC = {"nasty.top": "entry Child", "nasty.ring_a": "ring"}\n',
    "base": '''
        """Base."""
        from __future__ import annotations
        import math
        import os.path as p
        import xml.dom.minidom
        from typing import TYPE_CHECKING, Callable
        if TYPE_CHECKING:
            import decimal
            from nasty.top import entry

        Number = Callable[[float], float]
        # Shown above the constant.
        SCALE = 3
        _TABLE: dict[str, Number] = {}
        UNUSED = SCALE * 100
        _TABLE["half"] = lambda x: x / 2


        def register(name):
            def keep(function):
                _TABLE[name] = function
                return function
            return keep


        def _help(x):
            """Base's own helper."""
            return x * SCALE


        def size(x: decimal.Decimal) -> entry:
            return math.floor(_help(x)) + len(p.join("a", "b")) + len(xml.dom.minidom.__name__)


        def sum(values):
            return -1
        ''',
    "rules": '''
        """Rules, one of them registered."""
        from nasty.base import _TABLE, register


        @register("double")
        def _double(x):
            return 2 * x


        register("minus")(lambda x: -x)


        def _help(x):
            return x + 1000


        def use(name, x):
            return _TABLE[name](_help(x))
        ''',
    "again": "from nasty.rules import use as apply_rule\n",
    "top": '''
        """Top, with everything."""
        import functools
        from dataclasses import dataclass, field
        from nasty.again import apply_rule as go
        from nasty.base import SCALE, size, sum as negative

        LIMIT = 10 * SCALE
        FIRST, (SECOND, *_REST) = 1, (2, 3)


        @dataclass(frozen=True)
        class Parent:
            value: float = LIMIT
            parts: list = field(default_factory=list)


        class Child(Parent):
            def shown(self):
                return f"{self.value:{_WIDTH}} {_help(self.value)!r} { {k: LIMIT for k in 'ab'} }"


        _WIDTH = 6


        @functools.lru_cache(maxsize=None)
        def _help(x):
            return ("top", x)


        def _never(x):
            return unknown_thing


        def entry(x, LIMIT=LIMIT, _double=None):
            """The entry; LIMIT inside is a local name."""
            def use(y):
                return y
            from nasty.late import lazy as slow
            if x > 5: from nasty.late import other; return other(x)
            try:
                from nasty.late import only
            except ValueError:
                from nasty.late import other
            total = sum([go(name, x) for name in ("half", "double", "minus")])
            return total, negative([1]), use(LIMIT), size(x), slow(x), only(), [(_REST := SECOND) for _ in (1,)]
        ''',
    "late": '''
        """Imported late, because it imports top."""
        from nasty.top import Child, LIMIT


        def lazy(x):
            return Child(x).shown(), LIMIT


        def only():
            return "only"


        def other(x):
            match x:
                case {"a": _, **rest}:
                    return rest
                case [first, *others] if first:
                    return others
            return ("other", x)
        ''',
    "ring_a": "from nasty.ring_b import pong\n\n\ndef ring():\n    return pong()\n",
    "ring_b": "import nasty.ring_a\n\n\ndef pong():\n    return 1\n",
    "ring_c": "from nasty.ring_d import pong\n\n\ndef ring():\n    return pong()\n",
    "ring_d": "from nasty.ring_c import ring\n\n\ndef pong():\n    return ring\n",
    "star": "from nasty.base import *\n\n\ndef f():\n    return size(1)\n",
    "whole": "from nasty import base\n\n\ndef f():\n    return base.size(1)\n",
    "relative": "from .base import size\n\n\ndef f():\n    return size(1)\n",
    "mine": "def print(x):\n    return x\n\n\ndef f(x):\n    return print(x)\n",
    "hides": '''
        from nasty.base import _help as outer


        def f(_help):
            return outer(_help)
        ''',
}


@pytest.fixture
def nasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "nasty"
    folder.mkdir()
    for name, text in NASTY.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text).lstrip())
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "nasty"]:
        del sys.modules[name]


def run(text: str) -> dict:
    namespace: dict = {"__name__": "flat"}
    sys.modules["flat"] = type(sys)("flat")
    try:
        exec(compile(text, "flat.py", "exec"), namespace)
    finally:
        del sys.modules["flat"]
    return namespace


def test_the_nasty_package_flattened_gives_the_same_results(nasty: Path) -> None:
    from nasty.top import entry

    text = extract_from(nasty, ["entry"])
    flat = run(text)
    for x in (2.5, 4, 7):
        assert flat["entry"](x) == entry(x)
    assert "nasty" not in text.split('"""', 2)[2].replace("# From nasty.", "").replace("_of_", "")
    assert unbound(text) == set()
    assert "UNUSED" not in text
    assert "_never" not in text
    assert "# Shown above the constant.\nSCALE = 3" in text
    assert text.count("def _help(") == 1, "the three helpers got three names"
    assert {"_help", "_help_of_rules", "_help_of_top", "sum_of_base"} <= flat.keys()
    assert "if TYPE_CHECKING:\n    import decimal" in text
    assert text.splitlines()[0] == 'r"""entry: taken from nasty 9.8 (nasty.top).'


def test_a_class_with_its_parent_and_helpers(nasty: Path) -> None:
    flat = run(extract_from(nasty, ["Child", "base.size"]))
    assert flat["Child"](2).shown() == "     2 ('top', 2) {'a': 30, 'b': 30}"
    assert flat["__all__"] == ["Child", "size"]


def test_a_local_name_never_captures_a_global(nasty: Path) -> None:
    text = extract_from(nasty, ["hides.f"])
    assert run(text)["f"](5) == 15
    assert "def f(_help):" in text


def test_a_builtin_that_is_redefined_is_renamed(nasty: Path) -> None:
    text = extract_from(nasty, ["mine.f"])
    assert run(text)["f"](3) == 3
    assert "def print(" not in text


@pytest.mark.parametrize(("name", "message"), [
    ("ring", "import nasty.ring_a"), ("ring_c.ring", "nasty.ring_c -> nasty.ring_d -> nasty.ring_c"),
    ("star.f", r"from nasty\.base import \*"), ("whole.f", "names that nasty defines, got 'base'"),
    ("relative.f", r"from \.base import size"), ("mine.print", "'print'"), ("nowhere.f", "'nasty.nowhere'"),
    ("base.nothing", "names that nasty.base defines"), ("entri", "Names that are close: entry"),
])
def test_what_cannot_be_flattened_is_refused_by_name(name: str, message: str, nasty: Path) -> None:
    with pytest.raises(ValueError, match=f"names?: expected .*{message}"):
        extract_from(nasty, [name])


def test_fstrings_whose_places_python_misreports_are_still_renamed(nasty: Path) -> None:
    (nasty / "texts.py").write_text(textwrap.dedent('''
        from nasty.base import _help as outer


        def _help(x):
            return x


        def f(x):
            return (f"""one
            {_help(x)} two {outer(x):>{_help(9)}}
            """ f"{_help(
                x)}" if x else "")
        ''').lstrip() if sys.version_info >= (3, 12) else textwrap.dedent('''
        from nasty.base import _help as outer


        def _help(x):
            return x


        def f(x):
            return (f"""one
            {_help(x)} two {outer(x):>{_help(9)}}
            """ f"{_help(x)}" if x else "")
        ''').lstrip())
    from nasty.texts import f

    assert run(extract_from(nasty, ["texts.f"]))["f"](3) == f(3)


# The command, and the file it writes.

def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "my file.py"
    assert main(["shapley_values", "-o", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == extract("shapley_values")
    assert main(["shapley_values"]) == 0
    assert capsys.readouterr().out == extract("shapley_values")
    assert [path.name for path in tmp_path.iterdir()] == ["my file.py"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["shapely_values"], "Names that are close: shapley_values"),
    (["shapley_values", "-o", "no/such/folder/x.py"], "path: expected a file in a folder that exists"),
])
def test_the_command_explains_what_is_wrong(arguments, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    assert message in capsys.readouterr().err


def test_extract_needs_a_name() -> None:
    with pytest.raises(ValueError, match="names: expected at least one"):
        extract()


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


def test_flattening_errors_are_value_errors() -> None:
    assert issubclass(_flatten.NotFlat, ValueError)
