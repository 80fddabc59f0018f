"""What each name at the top of a module is bound to, and by which statements."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ratchet.bugs.allowed import is_standard, words
from ratchet.bugs.sources import Module

_MUTATING = words(
    "add append appendleft clear discard extend insert move_to_end pop popitem popleft remove reverse setdefault sort "
    "update"
)


@dataclass(frozen=True, slots=True)
class Imported:
    """A name that an import binds."""

    module: str
    """Absolute and dotted."""
    attribute: str
    """Empty for ``import module``, whose name is then bound to the module."""

    @property
    def path(self) -> str:
        """Return the dotted path of what is imported."""
        return f"{self.module}.{self.attribute}" if self.attribute else self.module


@dataclass(frozen=True)
class Bindings:
    """All of a module."""

    imports: Mapping[str, Imported]
    made: Mapping[str, tuple[ast.stmt, ...]]
    """The statements that make what a name is bound to: one that binds it, and those that bind it again or change
    it."""
    changes: Mapping[str, frozenset[str]]
    """By function: names of the module that it changes when it is called."""
    stars: tuple[str, ...]
    """Modules whose public names are imported all at once."""
    notes: Mapping[str, Imported]
    """Names that are imported for type checkers alone."""

    def standard(self) -> dict[str, str]:
        """Return the names bound by imports of the standard library, with their dotted paths."""
        return {name: i.path for name, i in self.imports.items() if is_standard(i.module)}


@dataclass
class _Reading:
    module: Module
    imports: dict[str, Imported] = field(default_factory=dict)
    made: dict[str, list[ast.stmt]] = field(default_factory=lambda: defaultdict(list))
    changes: dict[str, frozenset[str]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    notes: dict[str, Imported] = field(default_factory=dict)


def bindings_of(module: Module) -> Bindings:
    """Return what the names of a module are bound to."""
    reading = _Reading(module)
    for node in module.tree.body:
        _read(reading, node)
    for node in module.tree.body:
        _assemble(reading, node)
    made = {name: tuple(sorted(set(nodes), key=lambda n: n.lineno)) for name, nodes in reading.made.items()}
    return Bindings(reading.imports, made, reading.changes, tuple(reading.stars), reading.notes)


def _read(reading: _Reading, node: ast.stmt) -> None:
    match node:
        case ast.Import() | ast.ImportFrom():
            for name, imported in _imports_of(node, reading.module):
                if name == "*":
                    reading.stars.append(imported.module)
                else:
                    reading.imports[name] = imported
        case ast.FunctionDef(decorator_list=decorators) if any(_is_overload(d) for d in decorators):
            pass
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            reading.made[name].append(node)
            if changed := frozenset(_changed_in(node.body, _locals(node))):
                reading.changes[name] = changed
        case ast.If(test=test) if "TYPE_CHECKING" in ast.unparse(test):
            for inner in node.body:
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    reading.notes.update(_imports_of(inner, reading.module))
            for inner in node.orelse:
                _read(reading, inner)
        case ast.Try() if (fallback := _fallback(node, reading.module)) is not None:
            for inner in fallback:
                _read(reading, inner)
        case _:
            for name in _bound(node):
                reading.made[name].append(node)


def _imports_of(node: ast.Import | ast.ImportFrom, module: Module) -> Iterator[tuple[str, Imported]]:
    """Yield each name that an import binds, with what it is bound to."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield alias.asname or alias.name, Imported(module.absolute(node.module, node.level), alias.name)
        elif alias.asname:
            yield alias.asname, Imported(alias.name, "")
        else:
            top = alias.name.partition(".")[0]
            yield top, Imported(top, "")


def _fallback(node: ast.Try, module: Module) -> list[ast.stmt] | None:
    """Return what stands in for an import that is not there: the body of ``except ImportError``.

    Only for imports that are not the standard library's; a single file has none of these. None if it is no such case.
    """
    tried = [n for statement in node.body for n in ast.walk(statement) if isinstance(n, ast.Import | ast.ImportFrom)]
    paths = [imported.module for n in tried for _, imported in _imports_of(n, module)]
    if all(map(is_standard, paths)):
        return None
    for handler in node.handlers:
        if handler.type is not None and ast.unparse(handler.type) in ("ImportError", "ModuleNotFoundError"):
            return handler.body
    return None


def _is_overload(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).rpartition(".")[2] == "overload"


def _assemble(reading: _Reading, node: ast.stmt) -> None:
    """Note that a statement changes names, itself or by a function that it calls, while the module is loaded."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
        return
    changed = set(_changed_in([node], set()))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name):
            changed |= reading.changes.get(inner.func.id, frozenset())
    for name in changed & set(reading.made):
        reading.made[name].append(node)


def _bound(node: ast.stmt) -> set[str]:
    """Return the names that a statement binds in its own scope."""
    found: set[str] = set()
    stack: list[ast.AST] = [node]
    while stack:
        inner = stack.pop()
        match inner:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
                continue
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                continue
            case ast.AnnAssign(value=None):
                continue
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.partition(".")[0])
        stack.extend(ast.iter_child_nodes(inner))
    return found


def _changed_in(body: list[ast.stmt], own: set[str]) -> Iterator[str]:
    """Yield names that are not `own` which code changes: by method, by index, by attribute, or by ``global``."""
    stack: list[ast.AST] = list(body)
    while stack:
        node = stack.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _changed_in(node.body, own | _locals(node))
                continue
            case ast.Global(names=names):
                yield from names
            case ast.Subscript(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()) if name not in own:
                yield name
            case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store() | ast.Del(), attr=attr) if name not in own:
                if not attr.startswith("__"):  # __doc__ and its like change nothing that runs
                    yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if name not in own:
                if method in _MUTATING:
                    yield name
        stack.extend(ast.iter_child_nodes(node))


def _locals(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    shared = {name for n in ast.walk(function) if isinstance(n, ast.Global) for name in n.names}
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return {a.arg for a in given if a is not None} | (stored - shared)
