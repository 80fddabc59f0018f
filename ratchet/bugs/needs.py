"""Which names of its module a piece of code needs, by Python's own rules of scope. Pure functions over syntax."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Needs:
    """What a statement that stands at the top of a module asks of the module."""

    names: frozenset[str]
    """Read when it runs or is called; names of builtins are among them."""
    annotations: frozenset[str]
    """Read in annotations alone, which nothing has to evaluate."""
    writes: frozenset[str]
    """Names of the module that it assigns from within a function."""


def needs_of(statement: ast.stmt) -> Needs:
    """Return what a statement needs."""
    bare = _without_annotations(statement)
    table = symtable.symtable(ast.unparse(bare), "solution.py", "exec")
    names: set[str] = set()
    writes: set[str] = set()
    for scope in _scopes(table):
        for symbol in scope.get_symbols():
            outer = scope is not table
            if symbol.is_referenced() and (not outer or symbol.is_global()):
                names.add(symbol.get_name())
            if outer and symbol.is_declared_global() and symbol.is_assigned():
                writes.add(symbol.get_name())
    names -= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() and not _reads_first(bare)}
    own = {name.id for note in _annotations(statement) for name in _names(note)}
    return Needs(frozenset(names), frozenset(own - names), frozenset(writes))


def _reads_first(statement: ast.stmt) -> bool:
    """Return whether a statement may read a name before it binds it, as ``X = X + 1`` does."""
    return isinstance(statement, ast.Assign | ast.AugAssign)


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _scopes(child)


class _Bare(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return self.generic_visit(ast.Assign([node.target], node.value, lineno=node.lineno))


def _without_annotations(statement: ast.stmt) -> ast.stmt:
    copy = ast.parse(ast.unparse(statement)).body[0]
    return ast.fix_missing_locations(_Bare().visit(copy))  # type: ignore[no-any-return]


def _annotations(statement: ast.stmt) -> Iterator[ast.expr]:
    for node in ast.walk(statement):
        match node:
            case ast.arg(annotation=note) if note is not None:
                yield note
            case ast.AnnAssign(annotation=note):
                yield note
            case ast.FunctionDef(returns=note) | ast.AsyncFunctionDef(returns=note) if note is not None:
                yield note


def _names(node: ast.expr) -> Iterator[ast.Name]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield from _quoted(inner.value)


def _quoted(text: str) -> Iterator[ast.Name]:
    try:
        inner = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return
    yield from (n for n in ast.walk(inner) if isinstance(n, ast.Name))


def has_annotations(statement: ast.stmt) -> bool:
    """Return whether a statement holds any annotation."""
    return any(True for _ in _annotations(statement))
