"""Take it home: one self-contained file with exactly what public functions need.

``python -m shaplab.extract tree_shap -o my_tree_shap.py`` writes the file; ``extract("tree_shap")``
returns its text: the wanted definitions and all that they reach, in the order in which the modules
import each other, below the imports of other packages.

Nothing has to be renamed or rewritten for it, because the package keeps three rules, which
``tests/test_architecture.py`` holds: names of the package are imported absolutely and at the top of
a module; a top-level name is defined once in the whole package; and the top level holds nothing but
imports, definitions and assignments.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from symtable import SymbolTable, symtable
from typing import NamedTuple

from shaplab import _HOME, __version__
from shaplab._atomic import write_atomically
from shaplab._validation import describe, fail

__all__ = ["extract", "write"]

_FOLDER = Path(__file__).parent
# Packages that are installed under another name than they are imported.
_INSTALLED_AS = {"sklearn": "scikit-learn", "PIL": "pillow"}


class _Piece(NamedTuple):
    """A definition or an assignment at the top level of a module, with the comments above it."""

    module: str
    text: str
    defines: frozenset[str]
    reads: frozenset[str]


class _Module(NamedTuple):
    """What a file of the package holds: documentation, imports of others, and its own pieces."""

    documentation: str
    chapter: str  # where the book derives what the module does
    needed: list[str]  # modules of the package that it imports
    imports: dict[str, str]  # names that other packages give, with the line that imports them
    pieces: list[_Piece]


def _names_read(statement: str) -> Iterator[str]:
    """Names that a statement takes from the top level; Python's own scoping rules tell them from
    local ones."""
    tables: list[SymbolTable] = [symtable(statement, "statement", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (top or symbol.is_global()):
                yield symbol.get_name()
    # Annotations are never evaluated, but tools that check the file look their names up.
    for node in ast.walk(ast.parse(statement)):
        annotations = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for annotation in filter(None, annotations):
            yield from (leaf.id for leaf in ast.walk(annotation) if isinstance(leaf, ast.Name))


def _names_defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for leaf in (leaf for target in targets for leaf in ast.walk(target)):
            if isinstance(leaf, ast.Name) and isinstance(leaf.ctx, ast.Store):
                yield leaf.id


def _file_of(module: str) -> Path:
    stem = _FOLDER.parent / module.replace(".", "/")
    return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")


def _read_module(name: str) -> _Module:
    source = _file_of(name).read_text(encoding="utf-8")
    lines = source.splitlines()
    tree = ast.parse(source)
    needed: list[str] = []
    imports: dict[str, str] = {}
    pieces: list[_Piece] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("shaplab."):
            needed.append(str(node.module))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                start = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                bound = alias.asname or alias.name
                renamed = f" as {alias.asname}" if alias.asname else ""
                imports[bound.partition(".")[0]] = f"{start}import {alias.name}{renamed}"
        else:
            decorators = getattr(node, "decorator_list", [])
            if any(isinstance(d, ast.Name) and d.id == "overload" for d in decorators):
                continue  # told to type checkers only
            first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
            while lines[first - 2].startswith("#"):
                first -= 1
            text = "\n".join(lines[first - 1 : node.end_lineno])
            defined = frozenset(_names_defined(node)) - {"__all__"}
            pieces.append(_Piece(name, text, defined, frozenset(_names_read(text))))
    imports.pop("annotations", None)
    documentation = ast.get_docstring(tree) or ""
    named = re.search(r"^Chapter: (.+?)\.?$", documentation, re.M)
    topic = "" if "._" in name else name.removeprefix("shaplab.").replace(".", "/")
    return _Module(documentation, named[1] if named else topic, needed, imports, pieces)


def _read_with_imports(home: str, known: dict[str, _Module]) -> None:
    """Read a module after all that it imports; ``known`` keeps the order."""
    if home not in known:
        module = _read_module(home)
        for needed in module.needed:
            _read_with_imports(needed, known)
        known[home] = module


def _homes(names: Sequence[str]) -> list[str]:
    """The module that defines each wanted name."""
    homes = []
    for name in names:
        module, _, local = str(name).removeprefix("shaplab.").rpartition(".")
        home = f"shaplab.{module}" if module else _HOME.get(local)
        if home is None:
            close = difflib.get_close_matches(local, _HOME, n=3, cutoff=0.5)
            fail(
                "names",
                "public names of shaplab, or module.name",
                describe(name),
                f"Names that are close: {', '.join(close)}"
                if close
                else "dir(shaplab) lists the names",
            )
        if not _file_of(home).is_file():
            fail(
                "names", "a module of shaplab before the dot", describe(name), "Check the spelling"
            )
        homes.append(home)
    return homes


def _requirements(source: str) -> str:
    """Packages that a file imports, with the versions that shaplab itself asks for."""
    packages = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add(str(node.module).partition(".")[0])
    packages -= sys.stdlib_module_names
    wanted = sorted(_INSTALLED_AS.get(package, package) for package in packages)
    asked: dict[str, str] = {}
    for line in importlib.metadata.requires("shaplab") or []:
        requirement = line.partition(";")[0].strip()
        asked.setdefault(re.split(r"[^\w.-]", requirement)[0].lower(), requirement)
    return ", ".join(asked.get(package.lower(), package) for package in wanted)


def _reachable(wanted: Sequence[str], owner: dict[str, _Piece]) -> set[str]:
    """The wanted names and all that their definitions read, and theirs in turn."""
    reached: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += owner[name].reads if name in owner else ()
    return reached


def _body(modules: dict[str, _Module], reached: set[str]) -> str:
    """The reached definitions in order; a comment says where each group comes from."""
    blocks = []
    for name, module in modules.items():
        texts = [piece.text for piece in module.pieces if piece.defines & reached]
        if texts:
            derived = f", derived in the chapter {module.chapter}" if module.chapter else ""
            blocks.append(f"# From {name}{derived}.\n\n" + "\n\n\n".join(texts))
    return "\n\n\n".join(blocks)


def _import_block(lines: Sequence[str], *, standard: bool) -> str:
    """The imports of the standard library, or of other packages, with one line for each module."""
    block: dict[str, list[str]] = {}
    for line in lines:
        if (re.split(r"[ .]", line)[1] in sys.stdlib_module_names) == standard:
            module, _, name = line.partition(" import ")
            block.setdefault(module, []).append(name)
    return "\n".join(
        f"{module} import {', '.join(names)}" if names[0] else module
        for module, names in block.items()
    )


def _licence() -> str:
    """The licence text, which must go with every copy."""
    beside = _FOLDER.parent / "LICENSE"
    if beside.is_file():
        return beside.read_text(encoding="utf-8").strip()
    return (importlib.metadata.distribution("shaplab").read_text("licenses/LICENSE") or "").strip()


def extract(*names: str) -> str:
    """The text of one Python file that holds public functions or classes and all that they need of
    shaplab.

    Parameters
    ----------
    names : public names such as ``"shapley_values"``, or with their module,
        ``"trees.conditional_expectation.saabas_literal"``.

    Returns
    -------
    str
        Source code that imports with shaplab absent; its docstring names origin, requirements and
        licence.

    Examples
    --------
    >>> "def shapley_values(" in extract("shapley_values")
    True
    """
    if not names:
        fail(
            "names", "at least one public name", "none", "Name a function, such as 'shapley_values'"
        )
    homes = _homes(names)
    modules: dict[str, _Module] = {}
    for home in homes:
        _read_with_imports(home, modules)
    pieces = [piece for module in modules.values() for piece in module.pieces]
    owner = {name: piece for piece in pieces for name in piece.defines}
    wanted = [str(name).rpartition(".")[2] for name in names]
    for name, local, home in zip(names, wanted, homes, strict=True):
        # A door such as shaplab.plots offers what a module behind it defines.
        if local not in owner or not f"{owner[local].module}.".startswith(f"{home}."):
            fail("names", f"names that {home} defines", describe(name), "Check the spelling")

    reached = _reachable(wanted, owner)
    available = {name: line for module in modules.values() for name, line in module.imports.items()}
    lines = sorted({available[name] for name in reached if name in available})
    source = "\n\n".join(
        filter(
            None,
            [
                "from __future__ import annotations",
                _import_block(lines, standard=True),
                _import_block(lines, standard=False),
                f"__all__ = {wanted}".replace("'", '"'),
                _body(modules, reached),
            ],
        )
    )
    documented = [modules[home].documentation for home in dict.fromkeys(homes)]
    head = [
        f"{', '.join(wanted)}: taken from shaplab {__version__} "
        f"({', '.join(dict.fromkeys(homes))}).",
        *documented,
        f"Requires: {_requirements(source) or 'nothing but Python'}.",
        _licence(),
    ]
    text = "\n\n".join(head).replace('"' * 3, "'" * 3)
    return f'r"""{text}\n"""\n\n{source}\n'


def write(text: str, path: str | os.PathLike[str]) -> None:
    """Write a text file at once: readers see the old file or the new one, never a part."""
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir():
        fail(
            "path",
            "a file in a folder that exists",
            repr(str(target)),
            "Make the folder, and name a file in it",
            OSError,
        )
    write_atomically(target, lambda file: file.write(text.encode()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: ``python -m shaplab.extract NAME ... [-o FILE]``."""
    parser = argparse.ArgumentParser(
        prog="python -m shaplab.extract", description="Write functions into one file."
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a public name, or module.name")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="file to write (standard output without it)"
    )
    options = parser.parse_args(arguments)
    try:
        text = extract(*options.names)
        if options.output:
            write(text, options.output)
        else:
            sys.stdout.write(text)
    except (ValueError, OSError) as problem:
        parser.exit(1, f"{parser.prog}: {problem}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
