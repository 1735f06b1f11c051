"""Take it home: one self-contained file with exactly what public functions need.

``python -m shaplab.extract tree_shap -o my_tree_shap.py`` writes the file; ``extract("tree_shap")``
returns its text. Starting from the wanted names, every definition that they reach is copied from
the syntax trees of the modules that hold it, in the order in which the modules import each other:
functions, classes, constants, type aliases, third-party imports, statements that fill a table, and
definitions that a decorator registers. Imports of this package vanish, also those inside functions.
Two private names that are the same in two modules are told apart by renaming one.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import difflib
import importlib.metadata
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from shaplab._flatten import NotFlat, Package, Symbol, Unit
from shaplab._validation import describe, fail

__all__ = ["extract", "write"]


def _final_names(
    package: Package, roots: Sequence[Symbol], symbols: Sequence[Symbol], units: Sequence[Unit]
) -> dict[Symbol, str]:
    """One name for each symbol: its own, unless that is taken, builtin, or hidden by a local name
    where it is used."""
    said = {
        name
        for module in package.modules.values()
        for node in ast.walk(module.tree)
        for name in (getattr(node, "id", None), getattr(node, "arg", None))
        if name
    }
    wanted = {symbol: symbol.name for symbol in symbols if not symbol.outside}
    hidden: dict[Symbol, set[str]] = {}
    for unit in units:
        for node, symbol, local in unit.references:
            if isinstance(node, ast.Name):
                target = package.resolve(symbol)
                own = wanted.setdefault(target, node.id)
                hidden.setdefault(target, set()).update(local - {own} if node.id == own else local)
    final: dict[Symbol, str] = {}
    taken: set[str] = set()
    for symbol in symbols:
        name = wanted[symbol]
        if (
            name in taken
            or name in hidden.get(symbol, ())
            or (hasattr(builtins, name) and not symbol.outside)
        ):
            if symbol in roots:
                fail(
                    "names",
                    "public names that differ from each other, from builtins and from local names",
                    repr(name),
                    "Extract them into separate files",
                    NotFlat,
                )
            stem = name = f"{name}_of_{symbol.home.rsplit('.', 1)[-1].strip('_')}"
            count = 2
            while name in taken or name in said:
                name, count = f"{stem}_{count}", count + 1
        final[symbol] = name
        taken.add(name)
    return final


def flatten(package: Package, roots: Sequence[Symbol]) -> tuple[str, str, list[str]]:
    """Import lines, definitions in order, and the top-level names of the other packages that are
    imported."""
    roots = [package.resolve(root) for root in roots]
    units = package.reach(roots)
    used = dict.fromkeys(
        package.resolve(symbol) for unit in units for _, symbol, _ in unit.references
    )
    final = _final_names(package, roots, list(dict.fromkeys([*roots, *used])), units)
    plain: set[str] = set()
    taken_from: dict[str, list[str]] = {}
    for symbol in filter(lambda symbol: symbol.outside, used):
        wanted = symbol.name or symbol.home
        item = wanted if final[symbol] == wanted else f"{wanted} as {final[symbol]}"
        if symbol.name:
            taken_from.setdefault(symbol.home, []).append(item)
        else:
            plain.add(f"import {item}")
    for unit in units:
        for node, _, _ in unit.references:
            if isinstance(node, ast.Name):
                plain |= {f"import {name}" for name in unit.module.submodules.get(node.id, ())}
    lines = sorted(plain)
    lines += [
        f"from {home} import {', '.join(sorted(items))}"
        for home, items in sorted(taken_from.items())
    ]
    pieces, current = [], None
    for unit in units:
        start = "" if unit.module.name == current else f"# From {unit.module.name}.\n\n"
        current = unit.module.name
        pieces.append(start + unit.module.text(unit, final))
    body = "\n\n\n".join(pieces)
    needed: set[str] = set()
    for node in ast.walk(ast.parse("\n".join([*lines, body]))):
        if isinstance(node, ast.Import):
            needed |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            needed.add(str(node.module).split(".")[0])
    standard = [line for line in lines if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    other = [line for line in lines if line not in standard]
    imports = "\n\n".join("\n".join(group) for group in (standard, other) if group)
    return imports, body, sorted(needed - sys.stdlib_module_names)


# Packages that are installed under another name than they are imported.
_INSTALLED_AS = {"sklearn": "scikit-learn", "PIL": "pillow"}


def _requirements(needed: Sequence[str], folder: Path) -> list[str]:
    """Requirement lines with the versions that the package itself asks for."""
    project = folder.parent / "pyproject.toml"
    known: list[str] = []
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        known = [
            *table.get("dependencies", []),
            *chain(*table.get("optional-dependencies", {}).values()),
        ]
    else:
        with suppress(importlib.metadata.PackageNotFoundError):
            known = [
                line.split(";")[0].strip()
                for line in importlib.metadata.requires(folder.name) or []
            ]
    versions = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower(): line for line in reversed(known)}
    return [
        versions.get(name.lower(), name)
        for name in (_INSTALLED_AS.get(name, name) for name in needed)
    ]


def _licence(folder: Path) -> str:
    """The licence text, which must go with every copy."""
    if (folder.parent / "LICENSE").is_file():
        return (folder.parent / "LICENSE").read_text(encoding="utf-8").strip()
    try:
        found = importlib.metadata.distribution(folder.name)
        return (found.read_text("licenses/LICENSE") or found.read_text("LICENSE") or "").strip()
    except importlib.metadata.PackageNotFoundError:
        return ""


def extract_from(folder: Path, names: Sequence[str]) -> str:
    """``extract`` for any package folder."""
    package = Package(folder)
    public = package.public()
    roots = []
    for name in names:
        home, _, local = str(name).removeprefix(f"{package.name}.").rpartition(".")
        if not home and local not in public:
            close = difflib.get_close_matches(local, public, n=3, cutoff=0.5)
            fail(
                "names",
                f"public names of {package.name}, or module.name",
                describe(name),
                f"Names that are close: {', '.join(close)}"
                if close
                else f"dir({package.name}) lists the names",
            )
        module = package.module(f"{package.name}.{home}" if home else public[local])
        if local not in module.bindings:
            fail("names", f"names that {module.name} defines", describe(name), "Check the spelling")
        roots.append(package.resolve(Symbol(module.name, local)))
    imports, body, needed = flatten(package, roots)
    sources = list(dict.fromkeys(root.home for root in roots))
    told = [
        (ast.get_docstring(package.module(home).tree) or "").split("\nNeeds:")[0].strip()
        for home in sources
    ]
    version = re.search(r'__version__ = "(.+?)"', package.module(package.name).source.decode())
    bare = [root.name for root in roots]
    text = "\n\n".join(
        filter(
            None,
            [
                f"{', '.join(bare)}: taken from {package.name} "
                f"{version[1] if version else ''}".rstrip()
                + f" ({', '.join(sources)}).",
                *told,
                f"Needs: {', '.join(_requirements(needed, folder)) or 'nothing but Python'}.",
                _licence(folder),
            ],
        )
    )
    text = text.replace('"' * 3, "'" * 3)
    listed = ", ".join(f'"{name}"' for name in bare)
    return "\n\n".join(
        filter(
            None,
            [
                f'r"""{text}\n"""',
                "from __future__ import annotations",
                imports,
                f"__all__ = [{listed}]",
                f"\n{body}\n",
            ],
        )
    )


def extract(*names: str) -> str:
    """The text of one Python file that holds public functions or classes and all that they need of
    shaplab.

    Parameters
    ----------
    names : public names such as ``"shapley_values"``, or with their module,
        ``"datasets.simulate_dna"``.

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
    return extract_from(Path(__file__).parent, names)


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
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        # mkstemp makes private files: an old file keeps its permissions, a new one may be read by
        # all.
        os.chmod(draft, target.stat().st_mode & 0o777 if target.exists() else 0o644)
        os.replace(draft, target)
    except BaseException:
        os.unlink(draft)
        raise


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
