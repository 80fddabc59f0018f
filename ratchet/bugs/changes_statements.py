"""The changes of a mutant to statements: one that is missing, returns too early, jumps wrongly, or assigns
otherwise."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ratchet.bugs.changes import ARITHMETIC, Change, Place, negations


def statement_changes(node: ast.AST, function: ast.FunctionDef | None, place: Place) -> Iterator[Change]:
    """Yield the changes of one statement, and of the blocks it holds, not those of statements within these."""
    match node:
        case ast.AugAssign():
            yield from _augmented(node, place)
        case ast.If(test=test):
            yield from negations(test, place)
            yield from _branches(node, place)
        case ast.Break() | ast.Continue():
            other = "continue" if isinstance(node, ast.Break) else "break"
            yield place.instead(node, other, "jump")
    if function is None and not isinstance(node, ast.FunctionDef):
        return
    for block in _blocks(node):
        yield from _dropped(block, function or node, place)
        yield from _early(block, place)


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    match node:
        case ast.FunctionDef(body=body) | ast.With(body=body):
            yield body
        case ast.If(body=body, orelse=other) | ast.For(body=body, orelse=other) | ast.While(body=body, orelse=other):
            yield from (body, other)
        case ast.Try(body=body, orelse=other):
            yield from (body, other)


def _augmented(node: ast.AugAssign, place: Place) -> Iterator[Change]:
    token, instead = ARITHMETIC.get(type(node.op), ("", ()))
    start, end = place.span(node.target)[1], place.span(node.value)[0]
    at = place.source.find(f"{token}=", start, end)
    if token and at >= 0:
        yield from (Change(at, at + len(token), text, "arithmetic") for text in instead)
        yield Change(at, at + len(token), "", "assignment")


def _branches(node: ast.If, place: Place) -> Iterator[Change]:
    """Yield the change that forgets an ``else``, or one ``elif`` of several."""
    if not node.orelse or node.body[-1].end_lineno is None:
        return
    first, last = node.orelse[0], node.orelse[-1]
    begin = place.starts[node.body[-1].end_lineno]
    is_elif = isinstance(first, ast.If) and place.text(first).startswith("elif")
    if isinstance(first, ast.If) and is_elif:
        yield Change(begin, place.starts[first.body[-1].end_lineno or 0], "", "branch missing")
    elif place.source[begin:].lstrip().startswith("else"):
        yield Change(begin, place.starts[last.end_lineno or 0], "", "branch missing")


def _dropped(block: Sequence[ast.stmt], function: ast.AST, place: Place) -> Iterator[Change]:
    """Yield the changes that forget one statement of a block."""
    assert isinstance(function, ast.FunctionDef)
    for statement in block:
        if _may_go(statement, function) and not (
            isinstance(statement, ast.If) and place.text(statement).startswith("elif")
        ):
            only = all(s is statement or _is_remark(s) for s in block)
            yield _without(statement, place, only)


def _is_remark(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _may_go(statement: ast.stmt, function: ast.FunctionDef) -> bool:
    """Return whether a statement can be missing without leaving a name unbound."""
    match statement:
        case ast.AugAssign() | ast.Continue():
            return True
        case ast.Expr(value=ast.Call()):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]):
            arguments = function.args
            bound = {a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
            earlier = (n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            return name in bound or any(n.id == name and n.lineno < statement.lineno for n in earlier)
        case ast.Assign(targets=[ast.Subscript()]):
            return True
        case ast.If(orelse=[]):
            return not any(isinstance(n, ast.Raise) for n in statement.body)
    return False


def _without(statement: ast.stmt, place: Place, only: bool) -> Change:
    """Return the change that leaves a statement out, with the remark right above it."""
    start, end = place.span(statement)
    first, last = statement.lineno, statement.end_lineno or statement.lineno
    before = place.source[place.starts[first - 1] : start]
    behind = place.source[end : place.starts[last] - 1]
    if only or before.strip() or (behind.strip() and not behind.lstrip().startswith("#")):
        return Change(start, end, "pass", "statement missing")
    while first > 1 and place.lines[first - 2].startswith(f"{before}#"):
        first -= 1
    return Change(place.starts[first - 1], place.starts[last], "", "statement missing")


def _early(block: Sequence[ast.stmt], place: Place) -> Iterator[Change]:
    """Yield the change that returns from within the loop above instead of after it."""
    for loop, after in pairwise(block):
        if isinstance(loop, ast.For | ast.While) and not loop.orelse and isinstance(after, ast.Return):
            inner, outer = loop.body[0], place.lines[after.lineno - 1]
            is_apart = (
                inner.lineno > loop.lineno
                and after.lineno == after.end_lineno
                and outer.startswith(" " * after.col_offset)
            )
            if is_apart:
                start = place.at(after.lineno, after.col_offset)
                yield Change(start, start, " " * (inner.col_offset - after.col_offset), "early return")
