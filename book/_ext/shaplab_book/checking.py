"""Checks of exercises that ask the reader to write a function.

In a notebook ``check("ex-label", your_function)`` says whether the function is right, or for which
input it is not; at a command line ``python -m shaplab_book.check ex-label answer.py`` does. A check
is a function ``ex_label(answer)`` in ``checks/<part>.py``. It calls the answer on small inputs and
hands each result to ``expect`` with the truth, which it has from somewhere else: from enumeration,
or from the library. Its docstring begins with the signature that the exercise asks for, in double
backquotes, and names a typical mistake that it catches.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import re
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LEVELS", "CheckFailed", "Exercise", "check", "exercises_of", "expect"]

LEVELS = {
    1: ("●○○", "by hand, or with another number"),
    2: ("●●○", "change the code"),
    3: ("●●●", "build, prove or find out"),
}
DEFINITION = re.compile(r"^def (ex_\w+)\(", re.M)
EXERCISE = re.compile(r"^```\{exercise-start\}.*\n((?::.*\n)*)```", re.M)
passed: ContextVar[list[str] | None] = ContextVar("passed", default=None)


class CheckFailed(AssertionError):
    """An answer is wrong; the message says for which input, what was expected, and a hint."""


def expect(name: str, got: Any, wanted: Any, atol: float = 1e-9, hint: str = "") -> None:
    """Compare what an answer returned with the truth.

    Parameters
    ----------
    name : the input, in words that follow "for": ``"the glove game"``, ``"n = 1"``.
    got : what the reader's function returned.
    wanted : the truth: a number or an array, or a value that is compared by ``==``.
    atol : absolute tolerance, in the unit of the numbers.
    hint : where to look when they differ, a sentence without its full stop.

    Raises
    ------
    CheckFailed : if they differ in kind, shape or value.
    """
    why = _difference(got, wanted, atol)
    if why:
        raise CheckFailed(f"for {name}: {why}.{f' {hint}.' if hint else ''}")
    counted = passed.get()
    if counted is not None:
        counted.append(name)


def _difference(got: Any, wanted: Any, atol: float) -> str:
    """Say how a result differs from the truth; nothing when it does not."""
    if got is None and wanted is not None:
        return f"expected {_short(wanted)}, got None; does the function end with return?"
    if not _numeric(wanted):
        return "" if got == wanted else f"expected {wanted!r}, got {got!r}"
    if not _numeric(got):
        return f"expected {_short(wanted)}, got {_short(got)}, which is no number or array of them"
    found, truth = np.asarray(got, dtype=float), np.asarray(wanted, dtype=float)
    if found.shape != truth.shape:
        return f"expected the shape {truth.shape}, got {found.shape}"
    if np.allclose(found, truth, rtol=0, atol=atol, equal_nan=True):
        return ""
    return f"expected {_short(truth)}, got {_short(found)}"


def _numeric(value: Any) -> bool:
    try:
        kind = np.asarray(value).dtype.kind
    except (TypeError, ValueError):
        return False
    return kind in "biuf"


def _short(value: Any) -> str:
    """Return numbers on one line, shortened when there are many of them."""
    if not _numeric(value):
        return repr(value)
    text = np.array2string(
        np.asarray(value, dtype=float),
        precision=5,
        suppress_small=True,
        separator=", ",
        threshold=12,
    )
    return " ".join(text.split())


def check(label: str, answer: Callable[..., Any]) -> bool:
    """Say whether a function answers an exercise, and if not, for which input.

    Parameters
    ----------
    label : label of the exercise, such as ``"ex-weights"``.
    answer : the function that the exercise asks for.

    Returns
    -------
    bool
        Whether every case passes. What is wrong is printed, not raised.

    Raises
    ------
    ValueError : if no exercise with this label is checked, or the answer is not a function.
    """
    case = find_check(label)
    if not callable(answer):
        raise ValueError(
            f"answer: expected the function of {label}, got {type(answer).__name__}. "
            "Pass its name, without brackets."
        )
    names: list[str] = []
    before = passed.set(names)
    try:
        case(answer)
    except CheckFailed as problem:
        print(f"{label}: not yet, {problem}")
        return False
    except Exception as problem:  # whatever the reader's own code raised
        print(f"{label}: not yet, {_raised(problem, answer, names)}")
        return False
    finally:
        passed.reset(before)
    cases = "1 case" if len(names) == 1 else f"{len(names)} cases"
    print(f"{label}: passes ({cases})")
    return True


def _raised(problem: Exception, answer: Callable[..., Any], names: list[str]) -> str:
    """Say what an answer raised, after which case, and in which of its lines."""
    after = f"after {names[-1]}" if names else "in the first case"
    told = f"{after} it raised {type(problem).__name__}: {problem}."
    code = getattr(answer, "__code__", None)
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        if code is not None and frame.filename == code.co_filename:
            line = frame.lineno - code.co_firstlineno + 1 if frame.lineno else 1
            return f"{told} Look at line {line} of {frame.name}: {frame.line or ''}".rstrip(": ")
    return told


def find_check(label: str) -> Callable[[Callable[..., Any]], None]:
    """Return the check of an exercise; only the module of its part is imported."""
    known = checked()
    if label not in known:
        close = difflib.get_close_matches(str(label), known, n=1, cutoff=0.5)
        remedy = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
        raise ValueError(f"label: expected an exercise with a check, got {label!r}. {remedy}")
    module = importlib.import_module(f"shaplab_book.checks.{known[label]}")
    return getattr(module, label.replace("-", "_"))


def checked() -> dict[str, str]:
    """Return the part of every exercise that has a check, by its label."""
    folder = files("shaplab_book").joinpath("checks")
    found = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".py"):
            for name in DEFINITION.findall(path.read_text(encoding="utf-8")):
                found[name.replace("_", "-")] = path.name.removesuffix(".py")
    return found


def wanted_signature(label: str) -> str:
    """Return what an exercise asks for, such as ``"coalition_weights(n)"``, from its check's
    docstring."""
    found = re.match(r"\s*``(\w+\([^`]*\))``", find_check(label).__doc__ or "")
    return found[1] if found else ""


def empty_answer(label: str) -> str:
    """Return the code of a cell in which a reader answers an exercise that has a check."""
    signature = wanted_signature(label)
    name = signature.partition("(")[0]
    return (
        f"from shaplab_book import check\n\n\ndef {signature}:\n    ...  # your code\n\n\n"
        f'check("{label}", {name})'
    )


# -- what the chapters ask


@dataclass(frozen=True)
class Exercise:
    """An exercise of a chapter: its label, its level (0 when it has none), and whether the reader
    writes a function; its number in the book."""

    page: str
    label: str
    level: int
    implement: bool
    number: str = ""


def exercises_of(text: str, page: str = "") -> list[Exercise]:
    """Return the exercises in the text of a chapter."""
    found = []
    for options in EXERCISE.findall(text):
        given = dict(re.findall(r"^:(\w+): *(.*)$", options, re.M))
        classes = given.get("class", "").split()
        levels = [int(name[-1]) for name in classes if re.fullmatch(r"level-[123]", name)]
        label = given.get("label", "")
        found.append(Exercise(page, label, levels[0] if levels else 0, "implement" in classes))
    return found


def _of_book() -> Iterator[Exercise]:
    """Exercises of all chapters in reading order, where the book's sources are there."""
    book = Path(__file__).resolve().parents[2]
    contents = book.parent / "_toc.yml"
    if not contents.is_file():
        return
    chapter = 0
    for page in re.findall(r"file: book/(\S+)", contents.read_text(encoding="utf-8")):
        path = book / f"{page}.md"
        if not path.is_file() or page.endswith("/index") or page.startswith("reference/"):
            continue
        chapter += 1  # as the pages count
        found = exercises_of(path.read_text(encoding="utf-8"), page)
        for place, exercise in enumerate(found, 1):
            yield replace(exercise, number=f"{chapter}.{place}")


# -- the command line


def load_answer(path: Path, name: str) -> Callable[..., Any]:
    """Run a file and return its function of this name, or the only public one it defines."""
    if not path.is_file():
        raise ValueError(
            f"file: expected a file with the answer, got {str(path)!r}. Write it first."
        )
    spec = importlib.util.spec_from_file_location("answer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    own = {
        key: value
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == "answer" and key[0] != "_"
    }
    if name in own:
        return own[name]
    if len(own) == 1:
        return next(iter(own.values()))
    asked = f"the function {name}" if name else "one public function"
    there = ", ".join(own) or "none"
    raise ValueError(f"file: expected {asked} in {path}, got {there}. Define it under that name.")


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """End what takes longer, where the system can (not on Windows): a loop may have no end."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"no answer after {seconds} s; is there a loop without an end?")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(max(1, seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def list_exercises(page: str) -> int:
    """Print the exercises of a chapter, or of all, with their levels; return the exit status."""
    known = checked()
    found = [exercise for exercise in _of_book() if page in ("", exercise.page)]
    if page and not found:
        pages = sorted({exercise.page for exercise in _of_book()})
        print(f"page: expected a chapter with exercises, got {page!r}. Known: {', '.join(pages)}.")
        return 1
    for exercise in found:
        marks = LEVELS[exercise.level][0] if exercise.level else "   "
        mark = "check" if exercise.label in known else ""
        line = f"{exercise.number:5} {exercise.page:30} {exercise.label:28} {marks} {mark}"
        print(line.rstrip())
    if not found:  # an installed package, without the sources of the book
        print("\n".join(f"{part:30} {label:28}     check" for label, part in known.items()))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Check the answer in a file, or list the exercises; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m shaplab_book.check", description="Check an answer to an exercise."
    )
    parser.add_argument("label", nargs="?", help="label of the exercise, such as ex-weights")
    parser.add_argument("file", nargs="?", type=Path, help="Python file that defines the function")
    parser.add_argument(
        "--list",
        nargs="?",
        const="",
        metavar="PART/TOPIC",
        help="list the exercises of a chapter, or of all",
    )
    parser.add_argument(
        "--seconds", type=int, default=60, help="stop an answer that runs longer (default: 60)"
    )
    options = parser.parse_args(arguments)
    if options.list is not None:
        return list_exercises(options.list)
    if options.label is None or options.file is None:
        parser.error("expected a label and a file, or --list")
    try:
        name = wanted_signature(options.label).partition("(")[0]
        with _time_limit(options.seconds):
            return 0 if check(options.label, load_answer(options.file, name)) else 1
    except ValueError as problem:
        print(problem)
    except Exception as problem:  # the file itself fails
        print(f"{options.file}: {type(problem).__name__}: {problem}")
    return 1
