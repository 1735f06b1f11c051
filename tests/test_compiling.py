"""The wait of a first call is announced once, with an honest forecast, and can be silenced."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from shaplab import _compiling
from shaplab._compiling import CompileAnnouncer, announce_compiling


def compiles(name: str, module: str = "shaplab.trees.kernels.tables") -> SimpleNamespace:
    function = SimpleNamespace(__name__=name, __module__=module)
    return SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=function)})


@pytest.fixture
def announcer(monkeypatch: pytest.MonkeyPatch) -> CompileAnnouncer:
    monkeypatch.setattr(_compiling, "PATIENCE", 0.2)
    monkeypatch.delenv("SHAPLAB_QUIET", raising=False)
    return CompileAnnouncer()


def spend(announcer: CompileAnnouncer, seconds: float, name: str = "f", module: str = "shaplab.x"):
    announcer.on_start(compiles(name, module))
    time.sleep(seconds)
    announcer.on_end(compiles(name, module))


def test_short_waits_are_silent_and_long_ones_are_told_once(announcer, capsys):
    spend(announcer, 0.05)
    time.sleep(0.3)  # no time of the announcer's: nothing is compiled
    assert capsys.readouterr().err == ""
    for _ in range(3):
        spend(announcer, 0.3)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.fullmatch(
        r"shaplab: compiling once \(about \d+ s\), later calls start at once; "
        r"SHAPLAB_QUIET=1 hides this\n",
        said,
    )


def test_waits_of_several_loops_add_up(announcer, capsys):
    for _ in range(6):
        spend(announcer, 0.06)
    assert "compiling once" in capsys.readouterr().err


def test_a_loop_inside_another_and_loops_of_others_do_not_count(announcer, capsys):
    announcer.on_start(compiles("outer"))
    spend(announcer, 0.05, "inner", "numba.np.arrayobj")
    announcer.on_end(compiles("outer"))
    assert set(announcer.took) == {"outer"}
    spend(announcer, 0.4, "theirs", "another.package")
    assert capsys.readouterr().err == ""


def test_the_forecast_goes_by_the_first_loop_on_this_machine(announcer, capsys):
    announcer.took["follow_trees"] = 1.5
    spend(announcer, 0.3)
    assert "about 24 s" in capsys.readouterr().err


def test_quiet_is_quiet(announcer, capsys, monkeypatch):
    monkeypatch.setenv("SHAPLAB_QUIET", "1")
    spend(announcer, 0.4)
    assert capsys.readouterr().err == ""


def test_numba_is_listened_to_once():
    assert announce_compiling() is announce_compiling()


CALL = """
import shaplab
stump = shaplab.TreeEnsemble.from_arrays(
    [0, -1, -1], [0.5, 0, 0], [1, -1, -1], [2, -1, -1], [0, 10.0, 20.0])
shaplab.tree_shap(stump, [[0.0], [1.0]])
"""


# Compiles what a first call compiles, from nothing: 10 to 30 s.
def test_a_first_call_says_so_and_a_second_does_not(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    environment.pop("SHAPLAB_QUIET", None)
    said = [
        subprocess.run(
            [sys.executable, "-c", CALL],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for _ in range(2)
    ]
    # A machine that compiles all of it in two seconds has nothing to say.
    assert said[0] == "" or said[0].startswith("shaplab: compiling once (about ")
    assert said[1] == ""


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_not_looked_for_while_loops_are_compiled_and_then_as_before(announcer, collects):
    was = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        announcer.on_start(compiles("outer"))
        announcer.on_start(compiles("inner", "numba.np.arrayobj"))
        assert not gc.isenabled()
        announcer.on_end(compiles("inner", "numba.np.arrayobj"))
        assert not gc.isenabled()
        announcer.on_end(compiles("outer"))
        assert gc.isenabled() == collects
        announcer.on_start(compiles("theirs", "another.package"))
        assert gc.isenabled() == collects
        announcer.on_end(compiles("theirs", "another.package"))
        assert gc.isenabled() == collects
    finally:
        (gc.enable if was else gc.disable)()
