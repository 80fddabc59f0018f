"""Inputs that people wrote: the arguments of calls in doctests and tests, where these are literals. Runs nothing.

From ``>>> f(1, 2)``, ``assert f(a, b) == c`` and ``self.assertEqual(f(x), y)`` the arguments are taken, also where they
are names that a test binds to literals, by assignment, by ``for x, y in [...]`` or by ``parametrize``. What is expected
is not taken from there but found by running; only a doctest's own result is kept, to see whether the function does what
it says.
"""

from __future__ import annotations

import ast
import doctest
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from ratchet.bugs.sources import parsed

Env = Mapping[str, object]
Names = Mapping[str, str]
"""What functions are called in a file, and their own names."""
MOST_ROWS = 300
"""Rows of one loop or parametrize that are read."""
_MOST_ITEMS = 200


class NotLiteral(Exception):
    """A value that only running could tell."""


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments that somebody called a function with."""

    args: tuple[object, ...]
    keywords: tuple[tuple[str, object], ...] = ()
    wanted: object = None
    """What a doctest shows as its result."""
    has_wanted: bool = False


def calls_in_doctests(docstring: str, name: str) -> list[Call]:
    """Return the calls of `name` in the examples of a docstring."""
    try:
        examples = doctest.DocTestParser().get_examples(docstring)
    except ValueError:
        return []
    env: dict[str, object] = {}
    found = []
    for example in examples:
        try:
            body = ast.parse(example.source).body
        except SyntaxError:
            continue
        for statement in body:
            env.update(_assigned(statement, env))
            calls = [call for _, call in _calls_in(statement, {name: name}, [env])]
            if len(calls) == 1 and example.exc_msg is None and _is_whole(statement, name):
                calls = [_wanting(calls[0], example.want)]
            found += calls
    return found


def _is_whole(statement: ast.stmt, name: str) -> bool:
    """Return whether a statement is a call of the function, or a list of one, with arguments that are JSON as
    written."""
    if not isinstance(statement, ast.Expr):
        return False
    node = statement.value
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "list" and len(node.args) == 1:
        node = node.args[0]
    if not isinstance(node, ast.Call) or _called(node) != name:
        return False
    given = [*node.args, *(word.value for word in node.keywords)]
    return not any(isinstance(n, ast.Tuple | ast.Call | ast.Name) for argument in given for n in ast.walk(argument))


def _wanting(call: Call, want: str) -> Call:
    if "..." in want:  # a part left out
        return call
    try:
        return Call(call.args, call.keywords, ast.literal_eval(want.strip()), True)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return call


def calls_in_tests(tests: Sequence[str], names: Set[str]) -> dict[str, list[Call]]:
    """Return the calls of functions in the sources of test files, by name; a file that is not Python has none."""
    found: dict[str, list[Call]] = defaultdict(list)
    for source in tests:
        if here := names & set(re.findall(r"\w+", source)):
            try:
                tree = parsed(source)
            except (SyntaxError, ValueError, RecursionError):
                continue
            for name, call in _calls_in_file(tree, here):
                found[name].append(call)
    return dict(found)


def _calls_in_file(tree: ast.Module, names: Set[str]) -> Iterator[tuple[str, Call]]:
    called = {name: name for name in names}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            called |= {alias.asname: alias.name for alias in node.names if alias.name in names and alias.asname}
    env: dict[str, object] = {}
    for statement in tree.body:
        env.update(_assigned(statement, env))
    for statement in tree.body:
        yield from _walk(statement, called, [env])


def _walk(statement: ast.stmt, names: Names, envs: list[Env]) -> Iterator[tuple[str, Call]]:
    """Yield the calls in a statement, once for each of `envs`: what names are bound to."""
    match statement:
        case ast.ClassDef(body=body):
            inner = dict(envs[0])
            for part in body:
                inner.update(_assigned(part, inner))
            shown = {**inner, **{f"self.{key}": value for key, value in inner.items()}}
            for part in body:
                yield from _walk(part, names, [shown])
        case ast.FunctionDef(body=body, decorator_list=decorators):
            rows = envs
            for decorator in decorators:
                rows = list(itertools.islice(_parametrized(decorator, rows), MOST_ROWS))
            yield from _walk_body(body, names, rows or envs)
        case ast.For(target=target, iter=loop, body=body):
            rows = list(itertools.islice((row for env in envs for row in _looped(target, loop, env)), MOST_ROWS))
            yield from _walk_body(body, names, rows or envs)
        case ast.With(body=body, items=items):
            if not any("raises" in ast.unparse(item.context_expr).lower() for item in items):
                yield from _walk_body(body, names, envs)
        case ast.If(body=body, orelse=other) | ast.While(body=body, orelse=other):
            yield from _walk_body([*body, *other], names, envs)
        case ast.Try(body=body):
            yield from _walk_body(body, names, envs)
        case _:
            yield from _calls_in(statement, names, envs)


def _walk_body(body: Iterable[ast.stmt], names: Names, envs: list[Env]) -> Iterator[tuple[str, Call]]:
    inner = [dict(env) for env in envs]
    for statement in body:
        yield from _walk(statement, names, list(inner))
        for env in inner:
            env.update(_assigned(statement, env))


def _parametrized(decorator: ast.expr, envs: list[Env]) -> Iterator[Env]:
    """Yield each environment once per row of a ``parametrize``; unchanged for any other decorator."""
    is_one = isinstance(decorator, ast.Call) and ast.unparse(decorator.func).rpartition(".")[2] == "parametrize"
    if not is_one or not isinstance(decorator, ast.Call) or len(decorator.args) < 2:
        yield from envs
        return
    for env in envs:
        try:
            given = literal(decorator.args[0], env)
            names = [n.strip() for n in given.split(",")] if isinstance(given, str) else given
            rows = _rows(decorator.args[1], env)
        except NotLiteral:
            yield env
            continue
        assert isinstance(names, list)
        for row in rows:
            values = row if len(names) > 1 and isinstance(row, list) else [row]
            if len(values) == len(names):
                yield {**env, **dict(zip(names, values, strict=True))}


def _rows(node: ast.expr, env: Env) -> list[object]:
    """Return the rows that are literals; those that are not are passed over. **Raises** `NotLiteral` if it is no
    list."""
    if not isinstance(node, ast.List | ast.Tuple):
        found = literal(node, env)
        if isinstance(found, dict):
            found = list(found)
        if not isinstance(found, list):
            raise NotLiteral
        return found
    rows = []
    for item in node.elts:
        if isinstance(item, ast.Call) and ast.unparse(item.func).rpartition(".")[2] == "param":
            item = ast.Tuple(item.args, ast.Load()) if len(item.args) > 1 else item.args[0]
        try:
            rows.append(literal(item, env))
        except NotLiteral:
            continue
    return rows


def _looped(target: ast.expr, loop: ast.expr, env: Env) -> Iterator[Env]:
    pairs = isinstance(loop, ast.Call) and isinstance(loop.func, ast.Attribute) and loop.func.attr == "items"
    try:
        if pairs and isinstance(loop, ast.Call) and isinstance(loop.func, ast.Attribute):
            table = literal(loop.func.value, env)
            rows: list[object] = [list(item) for item in table.items()] if isinstance(table, dict) else []
        else:
            rows = _rows(loop, env)
    except NotLiteral:
        return
    for row in rows:
        if isinstance(target, ast.Name):
            yield {**env, target.id: row}
        elif isinstance(target, ast.Tuple) and isinstance(row, list) and len(row) == len(target.elts):
            bound = {t.id: v for t, v in zip(target.elts, row, strict=True) if isinstance(t, ast.Name)}
            yield {**env, **bound}


def _assigned(statement: ast.stmt, env: Env) -> dict[str, object]:
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            try:
                return {name: literal(value, env)}
            except NotLiteral:
                return {}
    return {}


def _calls_in(statement: ast.stmt, names: Names, envs: Sequence[Env]) -> Iterator[tuple[str, Call]]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and (called := _called(node)) in names:
            for env in envs:
                call = _call(node, env)
                if call is not None:
                    yield names[called], call


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=base) | ast.Attribute(attr=base), attr=name) if base != "self":
            return name
    return ""


def _call(node: ast.Call, env: Env) -> Call | None:
    try:
        args = tuple(literal(argument, env) for argument in node.args)
        keywords = tuple((word.arg, literal(word.value, env)) for word in node.keywords if word.arg is not None)
    except NotLiteral:
        return None
    return Call(args, keywords) if len(keywords) == len(node.keywords) else None


def literal(node: ast.expr, env: Env) -> object:
    """Return the JSON value of an expression: tuples, ranges and iterators over literals as lists.

    **Raises**: `NotLiteral` if only running could tell it, or it is not JSON.
    """
    match node:
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name) if name in env:
            return env[name]
        case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if f"self.{name}" in env:
            return env[f"self.{name}"]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [literal(item, env) for item in items]
        case ast.Dict(keys=keys, values=values):
            named = [literal(key, env) if key else None for key in keys]
            if all(isinstance(key, str) for key in named):
                return dict(zip(named, [literal(value, env) for value in values], strict=True))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            number = literal(operand, env)
            if isinstance(number, int | float) and not isinstance(number, bool):
                return -number
        case ast.BinOp(left=left, op=op, right=right):
            return _computed(literal(left, env), op, literal(right, env))
        case ast.Call(func=ast.Name(id="range"), args=args, keywords=[]):
            return _ranged([literal(argument, env) for argument in args])
        case ast.Call(func=ast.Name(id="list" | "tuple" | "iter"), args=[argument], keywords=[]):
            given = literal(argument, env)
            if isinstance(given, str | list | dict):
                return list(given)
    raise NotLiteral


def _ranged(args: list[object]) -> object:
    bounds = [a for a in args if isinstance(a, int)]
    if len(bounds) == len(args) and 1 <= len(args) <= 3 and bounds[2:] != [0]:
        found = range(*bounds)
        if not found[_MOST_ITEMS:]:
            return list(found)
    raise NotLiteral


def _computed(left: object, op: ast.operator, right: object) -> object:
    match left, op, right:
        case (str() | list(), ast.Mult(), int(times)) if len(left) * times <= _MOST_ITEMS:
            return left * times
        case (str(), ast.Add(), str()) | (list(), ast.Add(), list()):
            return left + right  # type: ignore[operator]
        case (int(), ast.Add(), int()):
            return left + right
        case (int(), ast.Sub(), int()):
            return left - right
        case (int(base), ast.Pow(), int(power)) if 0 <= power <= 64 and abs(base) <= 1000:
            return int(base**power)
    raise NotLiteral
