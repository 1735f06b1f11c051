"""Flattening: a package of nasty module shapes gives the same results in one file, or is refused by
name."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shaplab import _flatten
from shaplab.extract import extract_from


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


# A package of nasty shapes.

NASTY = {
    "__init__": '__version__ = "9.8"\n_PUBLIC = {"nasty.top": "entry Child", '
    '"nasty.ring_a": "ring"}\n',
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
    "hides": """
        from nasty.base import _help as outer


        def f(_help):
            return outer(_help)
        """,
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ring", "import nasty.ring_a"),
        ("ring_c.ring", "nasty.ring_c -> nasty.ring_d -> nasty.ring_c"),
        ("star.f", r"from nasty\.base import \*"),
        ("whole.f", "names that nasty defines, got 'base'"),
        ("relative.f", r"from \.base import size"),
        ("mine.print", "'print'"),
        ("nowhere.f", "'nasty.nowhere'"),
        ("base.nothing", "names that nasty.base defines"),
        ("entri", "Names that are close: entry"),
    ],
)
def test_what_cannot_be_flattened_is_refused_by_name(name: str, message: str, nasty: Path) -> None:
    with pytest.raises(ValueError, match=f"names?: expected .*{message}"):
        extract_from(nasty, [name])


def test_fstrings_whose_places_python_misreports_are_still_renamed(nasty: Path) -> None:
    (nasty / "texts.py").write_text(
        textwrap.dedent('''
        from nasty.base import _help as outer


        def _help(x):
            return x


        def f(x):
            return (f"""one
            {_help(x)} two {outer(x):>{_help(9)}}
            """ f"{_help(
                x)}" if x else "")
        ''').lstrip()
        if sys.version_info >= (3, 12)
        else textwrap.dedent('''
        from nasty.base import _help as outer


        def _help(x):
            return x


        def f(x):
            return (f"""one
            {_help(x)} two {outer(x):>{_help(9)}}
            """ f"{_help(x)}" if x else "")
        ''').lstrip()
    )
    from nasty.texts import f

    assert run(extract_from(nasty, ["texts.f"]))["f"](3) == f(3)


def test_flattening_errors_are_value_errors() -> None:
    assert issubclass(_flatten.NotFlat, ValueError)
