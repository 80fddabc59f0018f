"""What kind of value an argument takes: by its annotation, by its default, by its name, by how the code uses it."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ratchet.bugs.allowed import Reason, Refused, words
from ratchet.bugs.known import Call, NotLiteral, literal


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """A type of JSON values."""

    name: str
    """int, float, str, bool, none, list or dict."""
    of: tuple[Kind, ...] = ()
    """Kinds of a list's items or a dict's values; none given means any."""


INT, FLOAT, STR, BOOL, NONE = (Kind(name) for name in ("int", "float", "str", "bool", "none"))
LIST_OF_INT, LIST_OF_STR = Kind("list", (INT,)), Kind("list", (STR,))
TRIED = (INT, STR, LIST_OF_INT, LIST_OF_STR, FLOAT, Kind("dict", (INT,)), Kind("list", (LIST_OF_INT,)), BOOL)
"""Kinds that an argument of unknown kind is tried with, the likelier first."""

Alias = Callable[[str], ast.expr | None]
_SIMPLE = {"int": INT, "float": FLOAT, "str": STR, "bool": BOOL, "None": NONE, "AnyStr": STR, "complex": FLOAT,
           "Number": INT, "Real": FLOAT, "Integral": INT, "SupportsIndex": INT}  # fmt: skip
_LISTS = words("list List Sequence MutableSequence Iterable Iterator Collection tuple Tuple Reversible Generator")
_DICTS = words("dict Dict Mapping MutableMapping")
_OF_STR = words(
    "capitalize casefold center encode endswith expandtabs format isalnum isalpha isdecimal isdigit islower isspace "
    "istitle isupper ljust lower lstrip partition removeprefix removesuffix replace rfind rjust rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title translate upper zfill"
)
_OF_DICT = words("items keys values")
_TEXTS = words("char line name phrase prefix s sentence sep separator string suffix text word")
_COUNTS = words("base count digits i index k length n num number size step width")
"""Names that people give to arguments of a kind."""
_OF_REGEX = words("match fullmatch search sub findall finditer split subn")
_OF_SEQUENCE = words("len sum min max sorted enumerate reversed any all zip map filter iter set list tuple")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One positional parameter."""

    name: str
    kinds: tuple[Kind, ...]
    """What it seems to take; empty if nothing tells."""
    is_guess: bool
    """Whether no annotation says so, but its default, its name or the code that uses it."""
    is_optional: bool
    default: object = None
    has_literal_default: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """How a function can be called by position."""

    parameters: tuple[Parameter, ...]
    takes_more: bool
    """Whether it has ``*args``."""

    @property
    def num_required(self) -> int:
        return sum(not p.is_optional for p in self.parameters)

    def positional(self, call: Call) -> list[object] | None:
        """Return the arguments of a call by position; None if it cannot be made so."""
        given = dict(call.keywords)
        args = list(call.args)
        if len(args) > len(self.parameters) and not self.takes_more:
            return None
        for parameter in self.parameters[len(args) :]:
            if not given:
                break
            if parameter.name in given:
                args.append(given.pop(parameter.name))
            elif parameter.has_literal_default:
                args.append(parameter.default)
            else:
                return None
        return None if given or len(args) < self.num_required else args


def signature_of(node: ast.FunctionDef, alias: Alias = lambda name: None) -> Signature:
    """Return how a function is called; `alias` says what a name in an annotation stands for.

    **Raises**: `Refused` if it cannot be called by position, or only with a function.
    """
    given = node.args
    if any(default is None for default in given.kw_defaults):
        raise Refused(Reason.KEYWORDS)
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    parameters = tuple(_parameter(node, a, d, alias) for a, d in zip(positional, defaults, strict=True))
    if not parameters and given.vararg is None:
        raise Refused(Reason.KEYWORDS, "it takes no arguments")
    return Signature(parameters, given.vararg is not None)


def _parameter(node: ast.FunctionDef, argument: ast.arg, default: ast.expr | None, alias: Alias) -> Parameter:
    kinds = list(_annotated(argument.annotation, alias)) if argument.annotation else []
    is_guess = not kinds
    value, known = None, False
    if default is not None:
        with suppress(NotLiteral):
            value, known = literal(default, {}), True
    if not kinds:
        # A text that is looped over looks like a list, so its name counts more.
        kinds = [STR] if argument.arg in _TEXTS else list(_used(node, argument.arg))
        if known and value is not None:
            kinds.insert(0, kind_of(value))
    if not kinds and _is_function(node, argument):
        if default is None:
            raise Refused(Reason.CALLABLE, argument.arg)
        kinds = [NONE] if known else []
    elif not kinds and argument.arg in _COUNTS:
        kinds = [INT]
    return Parameter(argument.arg, tuple(dict.fromkeys(kinds)), is_guess, default is not None, value, known)


def _is_function(function: ast.FunctionDef, argument: ast.arg) -> bool:
    """Return whether an argument is called, or handed on to what calls it."""
    if argument.annotation is not None and "Callable" in ast.unparse(argument.annotation):
        return True
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Name(id=called)) if called == argument.arg:
                return True
            case ast.Call(func=ast.Name(id="map" | "filter" | "reduce" | "partial"), args=[ast.Name(id=first), *_]):
                if first == argument.arg:
                    return True
            case ast.keyword(arg="key", value=ast.Name(id=first)) if first == argument.arg:
                return True
    return False


def kind_of(value: object) -> Kind:
    """Return the kind of a JSON value."""
    match value:
        case None:
            return NONE
        case bool():
            return BOOL
        case list():
            return Kind("list", tuple(sorted({kind_of(item) for item in value})))
        case dict():
            return Kind("dict", tuple(sorted({kind_of(item) for item in value.values()})))
    return Kind(type(value).__name__)


def _annotated(node: ast.expr, alias: Alias) -> Iterator[Kind]:
    """Yield the kinds that an annotation names; what it says beyond JSON is passed over."""
    match node:
        case ast.Constant(value=None):
            yield NONE
        case ast.Constant(value=str(text)):
            try:
                yield from _annotated(ast.parse(text.strip(), mode="eval").body, alias)
            except SyntaxError:
                return
        case ast.Name(id=name) | ast.Attribute(attr=name):
            yield from _named(name, [], alias)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _annotated(left, alias)
            yield from _annotated(right, alias)
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            items = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
            if name in ("Optional", "Union"):
                for item in items:
                    yield from _annotated(item, alias)
                if name == "Optional":
                    yield NONE
            elif name == "Literal":
                yield from {kind_of(i.value) for i in items if isinstance(i, ast.Constant)}
            else:
                yield from _named(name, items, alias)


def _named(name: str, items: Sequence[ast.expr], alias: Alias) -> Iterator[Kind]:
    def of(some: Sequence[ast.expr]) -> tuple[Kind, ...]:
        return tuple(dict.fromkeys(kind for item in some for kind in _annotated(item, alias)))

    if name in _SIMPLE:
        yield _SIMPLE[name]
    elif name in _LISTS:
        yield Kind("list", of(items[:2]))
    elif name in _DICTS:
        yield Kind("dict", of(items[1:]))
    elif (stands_for := alias(name)) is not None:
        yield from _annotated(stands_for, lambda _: None)  # one step, so that nothing goes round


def _used(function: ast.FunctionDef, name: str) -> Iterator[Kind]:
    """Yield the kinds that the code of a function treats an argument as, where that is clear."""
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=base), attr=method)) if base == name:
                if method in _OF_STR:
                    yield STR
                elif method in _OF_DICT:
                    yield Kind("dict")
            case ast.Call(func=ast.Name(id="isinstance"), args=[ast.Name(id=base), types]) if base == name:
                named = types.elts if isinstance(types, ast.Tuple) else [types]
                yield from (_SIMPLE[t.id] for t in named if isinstance(t, ast.Name) and t.id in _SIMPLE)
            case ast.Call(func=ast.Attribute(attr=method), args=args) if method in _OF_REGEX:
                if any(isinstance(a, ast.Name) and a.id == name for a in args[-2:]):
                    yield STR
            case ast.Call(func=ast.Name(id="range"), args=args) if _holds(args, name):
                yield INT
            case ast.Call(func=ast.Name(id=called), args=args) if called in _OF_SEQUENCE:
                if _holds(args[1:] if called in ("map", "filter") else args, name):
                    yield from (LIST_OF_INT, LIST_OF_STR)
            case ast.For(iter=ast.Name(id=base)) | ast.comprehension(iter=ast.Name(id=base)) if base == name:
                yield from (LIST_OF_INT, LIST_OF_STR)
            case ast.BinOp(left=left, op=op, right=right) if _holds([left, right], name):
                if any(
                    isinstance(side, ast.Constant) and isinstance(side.value, int | float) for side in (left, right)
                ):
                    yield from () if isinstance(op, ast.Mult) else (INT, FLOAT)
            case ast.Compare(left=left, comparators=right) if _holds([left], name):
                if isinstance(right[0], ast.Constant) and type(right[0].value) in (int, float):
                    yield INT


def _holds(nodes: Sequence[ast.expr], name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in nodes)
