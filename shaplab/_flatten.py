"""The syntax trees behind ``shaplab.extract``: which statements a name reaches, across modules.

A *symbol* is a name with the module that defines it; a *unit* is a top-level statement. References
are found with Python's own scoping rules, so a local variable that is called like a function
elsewhere brings nothing along.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from shaplab._validation import fail

__all__ = ["Module", "NotFlat", "Package", "Symbol", "Unit"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


class NotFlat(ValueError):
    """The modules use a form of import that cannot be flattened into one file."""


class Symbol(NamedTuple):
    """A name of a module of the package, or, if ``outside``, of another package (``name`` "" for
    the module itself)."""

    home: str
    name: str
    outside: bool = False


_Scope = dict[str, "Symbol | None"]  # None: an ordinary local name


@dataclass(eq=False)
class Unit:
    """One top-level statement with the names it refers to."""

    module: Module
    node: ast.stmt
    references: list[tuple[ast.AST, Symbol, set[str]]] = field(default_factory=list)
    dropped: list[ast.stmt] = field(default_factory=list)


class Module:
    """A parsed module: what its top-level names mean and which statements define them."""

    def __init__(self, package: Package, name: str, path: Path) -> None:
        self.package, self.name, self.path = package, name, path
        self.source = path.read_bytes()
        self.tree = ast.parse(self.source)
        self.bindings: dict[str, Symbol] = {}
        self.submodules: dict[str, set[str]] = {}
        self.eager: list[str] = []
        self.starts = [0, *(match.end() for match in re.finditer(rb"\n", self.source))]
        statements = [node for node in self.tree.body if not isinstance(node, _IMPORTS)]
        for node in self.tree.body:
            if isinstance(node, _IMPORTS):
                self.bindings |= self._imported(node)
                self.eager += [
                    symbol.home for symbol in self._imported(node).values() if not symbol.outside
                ]
        for node in statements:
            for local in _own_nodes(node):
                if isinstance(local, _IMPORTS):  # in an if or try block
                    self.bindings |= {
                        bound: symbol
                        for bound, symbol in self._imported(local).items()
                        if not symbol.outside
                    }
            for bound in _binders([node]):
                self.bindings.setdefault(bound, Symbol(name, bound))
        self.units = [self._unit(node) for node in statements]

    def _imported(self, node: ast.AST) -> dict[str, Symbol]:
        """What an import statement binds."""
        found: dict[str, Symbol] = {}
        where = f"{self.path.name}:{getattr(node, 'lineno', 0)}"
        root = self.package.name
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == root:
                    fail(
                        "name",
                        f"modules that use 'from {root}.part import thing'",
                        f"{where}: import {alias.name}",
                        "Import the names themselves",
                        NotFlat,
                    )
                bound = alias.asname or alias.name.split(".")[0]
                found[bound] = Symbol(alias.name if alias.asname else bound, "", True)
                if not alias.asname and "." in alias.name:
                    self.submodules.setdefault(bound, set()).add(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            if node.level or node.names[0].name == "*":
                fail(
                    "name",
                    "modules with absolute imports of single names",
                    f"{where}: {ast.unparse(node)}",
                    "Write from package.part import thing",
                    NotFlat,
                )
            inside = str(node.module).split(".")[0] == root
            for alias in node.names:
                found[alias.asname or alias.name] = Symbol(str(node.module), alias.name, not inside)
        return found

    def _unit(self, node: ast.stmt) -> Unit:
        unit = Unit(self, node)
        self._visit(node, [], unit)
        if isinstance(node, _DEFINITIONS):
            unit.references.append((node, self.bindings[node.name], set()))
        return unit

    def _visit(self, node: ast.AST, scopes: list[tuple[bool, _Scope]], unit: Unit) -> None:
        """Collect references to module-level names, following Python's scopes; a scope is (is a
        class, names)."""
        if isinstance(node, ast.Name):
            for depth, (is_class, names) in enumerate(reversed(scopes)):
                if node.id in names and (depth == 0 or not is_class):
                    symbol = names[node.id]
                    break
            else:
                symbol = self.bindings.get(node.id)
            if symbol is not None:
                hidden = {
                    name
                    for _, scope in scopes
                    for name, meaning in scope.items()
                    if meaning is None
                }
                unit.references.append((node, symbol, hidden))
            return
        if isinstance(node, _IMPORTS):
            if any(not symbol.outside for symbol in self._imported(node).values()):
                unit.dropped.append(node)
            return
        inner: list[ast.AST] = []
        scope: _Scope = {}
        if isinstance(node, _FUNCTIONS):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            every += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
            inner = [node.body] if isinstance(node, ast.Lambda) else list(node.body)
            scope = dict.fromkeys(argument.arg for argument in every)
            scope |= self._locals(inner)
        elif isinstance(node, ast.ClassDef):
            inner, scope = list(node.body), self._locals(node.body)
        elif isinstance(node, _COMPREHENSIONS):
            first = node.generators[0].iter
            self._visit(first, scopes, unit)
            scope = {
                target.id: None
                for generator in node.generators
                for target in ast.walk(generator.target)
                if isinstance(target, ast.Name)
            }
            for child in ast.walk(node):  # the first iterable belongs to the surrounding scope
                if isinstance(child, ast.comprehension) and child is node.generators[0]:
                    inner += [child.target, *child.ifs]
                elif isinstance(child, ast.comprehension) and child in node.generators:
                    inner.append(child)
            inner += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        if scope or inner:
            skipped = {id(child) for child in inner}
            if not isinstance(node, _COMPREHENSIONS):
                for child in ast.iter_child_nodes(node):
                    if id(child) not in skipped:
                        self._visit(child, scopes, unit)  # decorators, defaults, annotations, bases
            for child in inner:
                self._visit(child, [*scopes, (isinstance(node, ast.ClassDef), scope)], unit)
            return
        for child in ast.iter_child_nodes(node):
            self._visit(child, scopes, unit)

    def _locals(self, body: Sequence[ast.AST]) -> _Scope:
        scope: _Scope = dict.fromkeys(_binders(body))
        for statement in body:
            for node in [statement, *_own_nodes(statement)]:
                if isinstance(node, ast.Global | ast.Nonlocal):
                    for name in node.names:
                        scope.pop(name, None)
                elif isinstance(node, _IMPORTS):
                    scope |= {
                        bound: symbol
                        for bound, symbol in self._imported(node).items()
                        if not symbol.outside
                    }
        return scope

    def touched(self, unit: Unit) -> set[Symbol]:
        """Symbols that bring this statement along: those it defines, fills, or is registered by."""
        own = {Symbol(self.name, name) for name in _binders([unit.node])} & set(
            self.bindings.values()
        )
        calls: list[ast.expr] = []
        if isinstance(unit.node, _DEFINITIONS):
            calls = unit.node.decorator_list
        elif isinstance(unit.node, ast.Assign | ast.Delete):
            calls = [target for target in unit.node.targets if not isinstance(target, ast.Name)]
        elif isinstance(unit.node, ast.AugAssign | ast.Expr):
            calls = [unit.node.target if isinstance(unit.node, ast.AugAssign) else unit.node.value]
        for call in calls:
            for symbol in self._filled(call):
                own |= {symbol, *self.package.module(symbol.home).fills(symbol.name)}
        return own

    def fills(self, name: str) -> set[Symbol]:
        """Tables of the package that a function stores into or calls a method of: a decorator may
        register there."""
        found: set[Symbol] = set()
        for unit in self.units:
            if isinstance(unit.node, _DEFINITIONS) and unit.node.name == name:
                for node in ast.walk(unit.node):
                    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                        found |= self._filled(node)
                    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                        found |= self._filled(node.func)
        return found

    def _filled(self, node: ast.AST) -> set[Symbol]:
        """The symbol at the bottom of ``table[key].method(...)``, if it is one of the package."""
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
            node = node.func if isinstance(node, ast.Call) else node.value
        if isinstance(node, ast.Name) and node.id in self.bindings:
            symbol = self.package.resolve(self.bindings[node.id])
            return set() if symbol.outside else {symbol}
        return set()

    def text(self, unit: Unit, final: dict[Symbol, str]) -> str:
        """The source of a statement with the comments above it, named as in ``final``, less the
        package's imports."""
        edits: list[tuple[int, int, bytes]] = []
        exact = True
        for node, symbol, _ in unit.references:
            name = final[self.package.resolve(symbol)]
            if isinstance(node, _DEFINITIONS):
                start = self.source.index(
                    node.name.encode(), self._at(node.lineno, node.col_offset) + 4
                )
                old, node.name = node.name, name
            elif isinstance(node, ast.Name):
                start = self._at(node.lineno, node.col_offset)
                old, node.id = node.id, name
            stop = start + len(old.encode())
            # Python 3.11 misplaces names in some f-strings; then the statement is written from its
            # tree.
            exact &= self.source[start:stop] == old.encode()
            if name != old:
                edits.append((start, stop, name.encode()))
        for node in unit.dropped:
            siblings = next(
                body for parent in ast.walk(unit.node) for body in _bodies(parent) if node in body
            )
            start = self._at(node.lineno, node.col_offset)
            stop = self._at(node.end_lineno or 0, node.end_col_offset or 0)
            line_end = self.source.find(b"\n", stop)
            before, after = (
                self.source[self.starts[node.lineno - 1] : start],
                self.source[stop:line_end],
            )
            alone = not before.strip() and b";" not in after
            siblings.remove(node)
            if alone and siblings:
                edits.append((self.starts[node.lineno - 1], line_end + 1, b""))
            else:
                edits.append((start, stop, b"pass"))
                siblings.append(ast.Pass())
        if not exact:
            return ast.unparse(ast.fix_missing_locations(unit.node))
        first = min(
            [unit.node.lineno, *(d.lineno for d in getattr(unit.node, "decorator_list", []))]
        )
        while first > 1 and self.source[self.starts[first - 2] :].startswith(b"#"):
            first -= 1
        begin, end = (
            self.starts[first - 1],
            self._at(unit.node.end_lineno or 0, unit.node.end_col_offset or 0),
        )
        piece = self.source
        for start, stop, new in sorted(edits, reverse=True):
            piece = piece[:start] + new + piece[stop:]
            end += len(new) - (stop - start)
        return piece[begin:end].decode().rstrip()

    def _at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column


def _bodies(node: ast.AST) -> Iterator[list]:
    for name in ("body", "orelse", "finalbody"):
        if isinstance(getattr(node, name, None), list):
            yield getattr(node, name)


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Descendants in the same scope; a nested scope is yielded, not entered."""
    if isinstance(node, (*_FUNCTIONS, *_COMPREHENSIONS, ast.ClassDef)):
        return
    for child in ast.iter_child_nodes(node):
        yield child
        yield from _own_nodes(child)


def _binders(body: Sequence[ast.AST]) -> list[str]:
    """Names that statements bind in their own scope, imports included."""
    found: list[str] = []
    for statement in body:
        for node in [statement, *_own_nodes(statement)]:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                found.append(node.id)
            elif isinstance(node, _DEFINITIONS):
                found.append(node.name)
            elif isinstance(node, _IMPORTS):
                found += [alias.asname or alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                found.append(node.name)
            elif isinstance(node, ast.MatchMapping) and node.rest:
                found.append(node.rest)
            elif isinstance(node, _COMPREHENSIONS):
                found += [
                    walrus.target.id
                    for walrus in ast.walk(node)
                    if isinstance(walrus, ast.NamedExpr)
                ]
    return found


class Package:
    """The modules of a package folder, parsed when they are reached."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, folder.name
        self.modules: dict[str, Module] = {}

    def module(self, name: str) -> Module:
        if name not in self.modules:
            path = self.folder.joinpath(*name.split(".")[1:])
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if not path.is_file():
                fail("name", f"a module of {self.name}", repr(name), "Check the spelling", NotFlat)
            self.modules[name] = Module(self, name, path)
        return self.modules[name]

    def public(self) -> dict[str, str]:
        """Names at the top level of the package and the modules that they come from."""
        for node in self.module(self.name).tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_PUBLIC":
                return {
                    name: home
                    for home, names in ast.literal_eval(node.value).items()
                    for name in names.split()
                }
        return {}

    def resolve(self, symbol: Symbol) -> Symbol:
        """Follow re-exports to where a name is defined."""
        while not symbol.outside:
            module = self.module(symbol.home)
            if symbol.name in module.bindings:
                further = module.bindings[symbol.name]
            elif symbol.home == self.name and symbol.name in self.public():
                further = Symbol(self.public()[symbol.name], symbol.name)
            else:
                fail(
                    "name",
                    f"names that {symbol.home} defines",
                    repr(symbol.name),
                    "Import functions and classes, not modules",
                    NotFlat,
                )
            if further == symbol:
                break
            symbol = further
        return symbol

    def order(self, names: Sequence[str]) -> list[str]:
        """Modules so that each comes after those it imports."""
        done: list[str] = []

        def add(name: str, above: tuple[str, ...]) -> None:
            if name in above:
                fail(
                    "name",
                    "modules that do not import each other in a circle",
                    " -> ".join([*above[above.index(name) :], name]),
                    "Move one import into the function that needs it",
                    NotFlat,
                )
            if name not in done:
                for other in self.module(name).eager:
                    add(other, (*above, name))
                done.append(name)

        for name in names:
            add(name, ())
        return done

    def reach(self, roots: Sequence[Symbol]) -> list[Unit]:
        """Statements that the roots need, in an order in which they can run."""
        symbols: dict[Symbol, None] = dict.fromkeys(roots)
        chosen: dict[Unit, None] = {}
        while True:
            before = len(chosen)
            for name in self.order(
                list(dict.fromkeys(symbol.home for symbol in symbols if not symbol.outside))
            ):
                for unit in self.module(name).units:
                    if unit not in chosen and self.module(name).touched(unit) & symbols.keys():
                        chosen[unit] = None
                        symbols |= dict.fromkeys(
                            self.resolve(symbol) for _, symbol, _ in unit.references
                        )
            if len(chosen) == before:
                break
        place = {name: position for position, name in enumerate(self.order(list(self.modules)))}
        return sorted(chosen, key=lambda unit: (place[unit.module.name], unit.node.lineno))
