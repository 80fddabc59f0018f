"""Tests that need not be run: assertions on calls with plain values are read here and judged one by one.

A policy's tests are mostly of this kind, ``assert f(8) == 4``. Such a test holds no code of its own, so it needs no
process of its own, and there is nothing in it that could forge a verdict. `read` returns None for everything beyond;
those tests are run. What a read test gives is what running it would give: `tests/sandbox/test_plain.py` holds it.
"""

from __future__ import annotations

import ast
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ratchet.sandbox.inside.remote import Client
from ratchet.sandbox.inside.verdict import TEST_FILE, compiled

Names = dict[str, Any]

_BUILTINS: Names = {f.__name__: f for f in (abs, dict, len, list, max, min, range, round, set, sorted, sum, tuple)}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
}  # fmt: skip
_AT_ONCE = 256
"""Calls of a comprehension that cross the border together."""


@dataclass(frozen=True)
class PlainTest:
    """A test that was found to be plain."""

    module: str
    """What the module under test is called."""
    body: list[ast.stmt]
    functions: list[list[ast.stmt]]
    """The bodies of its functions test_*, if those are asked for."""
    script: bool


def read(source: str, module: str, how: str) -> PlainTest | None:
    """Return a test that is plain, None for one that is not. **Raises** `CompileError` for one that is not Python."""
    compiled(source, TEST_FILE)
    tree = ast.parse(source)
    body: list[ast.stmt] = []
    functions: dict[str, list[ast.stmt]] = {}
    check = _Check(module)
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and how == "functions":
            if not _is_bare(statement) or statement.name in functions:
                return None
            functions[statement.name] = statement.body
        elif check.allows(statement):
            body.append(statement)
        else:
            return None
    bound = check.bound
    if how == "functions" and any(name.startswith("test") for name in bound):
        return None
    for inner in functions.values():
        check = _Check(module, set(bound), set(check.modules))
        # A name that is assigned in a function is its own there from the first line on: left to Python.
        if not all(map(check.allows, inner)) or check.assigned & (bound | set(functions)):
            return None
    return PlainTest(module, body, list(functions.values()), how == "script")


def _is_bare(function: ast.FunctionDef) -> bool:
    given = function.args
    nothing = not (given.posonlyargs or given.args or given.kwonlyargs or given.vararg or given.kwarg)
    returns = function.returns is None or isinstance(function.returns, ast.Constant)
    return function.name.startswith("test") and nothing and returns and not function.decorator_list


class _Check:
    """Whether statements, in the order they come, are plain; owns the names that are bound so far."""

    def __init__(self, module: str, bound: set[str] | None = None, modules: set[str] | None = None) -> None:
        self._module, self.bound, self.modules, self.assigned = module, bound or set(), modules or set(), set[str]()

    def allows(self, node: ast.stmt) -> bool:
        match node:
            case ast.ImportFrom(module=module, level=0) if module == self._module:
                self._bind(alias.asname or alias.name for alias in node.names)
                return all(alias.name != "*" for alias in node.names)
            case ast.Import(names=[ast.alias(name=name, asname=other)]) if name == self._module:
                self._bind([other or name])
                self.modules.add(other or name)
                return True
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                plain = self._plain(value)
                self._bind([name])
                return plain
            case ast.Assert(test=test, msg=message):
                return self._plain(test) and (message is None or isinstance(message, ast.Constant))
            case ast.Expr(value=value):
                return self._plain(value)
            case ast.Pass():
                return True
        return False

    def _bind(self, names: Iterable[str]) -> None:
        names = set(names)
        self.bound |= names
        self.assigned |= names
        self.modules -= names

    def _plain(self, node: ast.expr) -> bool:
        match node:
            case ast.Constant():
                return True
            case ast.Name(id=name):
                return name in self.bound or name in _BUILTINS
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                return name in self.modules and not attribute.startswith("__")
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                return all(map(self._plain, items))
            case ast.Dict(keys=keys, values=values):
                return all(key is not None and self._plain(key) for key in keys) and all(map(self._plain, values))
            case ast.UnaryOp(op=op, operand=operand):
                return type(op) in _SIGNS and self._plain(operand)
            case ast.BoolOp(values=values):
                return all(map(self._plain, values))
            case ast.Compare(left=left, ops=ops, comparators=right):
                return self._compares(ops, right) and all(map(self._plain, [left, *right]))
            case ast.Call(func=function, args=args, keywords=keywords):
                named = all(word.arg is not None and self._plain(word.value) for word in keywords)
                return (
                    isinstance(function, ast.Name | ast.Attribute)
                    and all(map(self._plain, [function, *args]))
                    and named
                )
            case ast.Subscript(value=value, slice=index):
                return self._plain(value) and self._plain(index)
            case ast.ListComp(elt=item, generators=loops):
                return self._loops(item, loops)
        return False

    def _compares(self, ops: list[ast.cmpop], right: list[ast.expr]) -> bool:
        # What else is one and the same object is the interpreter's business.
        singletons = (isinstance(r, ast.Constant) and r.value in (None, True, False) for r in right)
        return all(not isinstance(op, ast.Is | ast.IsNot) or one for op, one in zip(ops, singletons, strict=True))

    def _loops(self, item: ast.expr, loops: list[ast.comprehension]) -> bool:
        inner = _Check(self._module, set(self.bound), set(self.modules))
        for loop in loops:
            if loop.is_async or not isinstance(loop.target, ast.Name) or not inner._plain(loop.iter):
                return False
            inner._bind([loop.target.id])
            if not all(map(inner._plain, loop.ifs)):
                return False
        return inner._plain(item)


class Reading:
    """Judges a plain test, statement by statement, with the module at the other end of `client`."""

    def __init__(self, test: PlainTest, client: Client) -> None:
        self._test, self._client = test, client
        self._loaded = False
        self._functions: dict[int, tuple[object, str]] = {}
        """What stands for a function of the module, by id, and its name there."""
        self.line = 0
        """The line of the test that is being judged."""

    def run(self) -> int:
        """Return how many tests there were, all passed. **Raises** what running the test would raise."""
        names: Names = {}
        self._all(self._test.body, names)
        for body in self._test.functions:
            self._all(body, dict(names))
        return 1 if self._test.script else len(self._test.functions)

    def _all(self, body: list[ast.stmt], names: Names) -> None:
        for statement in body:
            self.line = statement.lineno
            match statement:
                case ast.ImportFrom(names=imported):
                    self._load()
                    for alias in imported:
                        names[alias.asname or alias.name] = self._imported(alias.name)
                case ast.Import(names=[alias]):
                    self._load()
                    names[alias.asname or alias.name] = _Module()
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = self._value(value, names)
                case ast.Assert(test=test, msg=message):
                    if not self._value(test, names):
                        raise AssertionError(*([message.value] if isinstance(message, ast.Constant) else []))
                case ast.Expr(value=value):
                    self._value(value, names)

    def _load(self) -> None:
        if not self._loaded:
            self._client.load(self._test.module)
            self._loaded = True

    def _imported(self, name: str) -> object:
        try:
            return self._got(name)
        except AttributeError:
            raise ImportError(f"cannot import name '{name}' from '{self._test.module}'") from None

    def _got(self, name: str) -> object:
        found = self._client.get(self._test.module, name)
        if callable(found) and not isinstance(found, type):
            self._functions[id(found)] = found, name
        return found

    def _value(self, node: ast.expr, names: Names) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return _find(name, names)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                return self._got(attribute)
            case ast.List(elts=items):
                return [self._value(item, names) for item in items]
            case ast.Tuple(elts=items):
                return tuple([self._value(item, names) for item in items])
            case ast.Set(elts=items):
                return {self._value(item, names) for item in items}
            case ast.Dict(keys=keys, values=values):
                return {self._value(k, names): self._value(v, names) for k, v in zip(keys, values, strict=True) if k}
            case ast.UnaryOp(op=op, operand=operand):
                return _SIGNS[type(op)](self._value(operand, names))
            case ast.BoolOp(op=op, values=values):
                return self._chain(isinstance(op, ast.Or), values, names)
            case ast.Compare():
                return self._comparison(node, names)
            case ast.Call(func=function):
                found = self._value(function, names)
                return found(*self._arguments(node, names), **self._keywords(node, names))
            case ast.Subscript(value=value, slice=index):
                return self._value(value, names)[self._value(index, names)]
            case ast.ListComp(elt=item, generators=loops):
                return self._listed(item, loops, names)
        raise AssertionError(f"{node} was found to be plain")

    def _arguments(self, call: ast.Call, names: Names) -> list[Any]:
        return [self._value(argument, names) for argument in call.args]

    def _keywords(self, call: ast.Call, names: Names) -> dict[str, Any]:
        return {str(word.arg): self._value(word.value, names) for word in call.keywords}

    def _chain(self, ends_on: bool, values: list[ast.expr], names: Names) -> Any:
        result: Any = None
        for value in values:
            result = self._value(value, names)
            if bool(result) is ends_on:
                break
        return result

    def _comparison(self, node: ast.Compare, names: Names) -> Any:
        left, result = self._value(node.left, names), True
        for op, operand in zip(node.ops, node.comparators, strict=True):
            right = self._value(operand, names)
            result = _COMPARE[type(op)](left, right)
            if not result:
                break
            left = right
        return result

    def _listed(self, item: ast.expr, loops: list[ast.comprehension], names: Names) -> list[Any]:
        if not (isinstance(item, ast.Call) and _is_still(item) and all(map(_is_fixed, loops))):
            return [self._value(item, inner) for inner in self._each(loops, names)]
        found: list[Any] = []
        each = self._each(loops, names)
        # Nothing but the calls themselves can have an effect or fail, so many cross the border at once.
        while some := list(itertools.islice(each, _AT_ONCE)):
            calls = [(self._arguments(item, inner), self._keywords(item, inner)) for inner in some]
            found += self._called(self._value(item.func, some[0]), calls)
        return found

    def _called(self, function: Any, calls: list[tuple[list[Any], dict[str, Any]]]) -> list[Any]:
        if id(function) not in self._functions:
            return [function(*args, **kwargs) for args, kwargs in calls]
        return self._client.call_all(self._functions[id(function)][1], calls)

    def _each(self, loops: list[ast.comprehension], names: Names) -> Iterator[Names]:
        if not loops:
            yield names
            return
        loop, *rest = loops
        for value in self._value(loop.iter, names):
            inner = {**names, _target(loop): value}
            if all(self._value(condition, inner) for condition in loop.ifs):
                yield from self._each(rest, inner)


class _Module:
    """What a plain test's name for the module under test is bound to."""


def _is_still(call: ast.Call) -> bool:
    """Return whether the function is a plain name, and no argument calls, indexes or computes anything."""
    still = ast.Constant | ast.Name | ast.List | ast.Tuple | ast.expr_context | ast.keyword
    inner = (n for a in (*call.args, *call.keywords) for n in ast.walk(a))
    return isinstance(call.func, ast.Name) and all(isinstance(node, still) for node in inner)


def _is_fixed(loop: ast.comprehension) -> bool:
    """Return whether a loop goes over a range, or over values that are written out, and over all of them."""
    match loop.iter:
        case (
            ast.Call(func=ast.Name(id="range"), args=values, keywords=[])
            | ast.List(elts=values)
            | ast.Tuple(elts=values)
        ):
            return not loop.ifs and bool(values) and all(isinstance(v, ast.Constant) for v in values)
    return False


def _find(name: str, names: Names) -> Any:
    return names[name] if name in names else _BUILTINS[name]


def _target(loop: ast.comprehension) -> str:
    assert isinstance(loop.target, ast.Name)
    return loop.target.id
