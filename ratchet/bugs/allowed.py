"""What a pure function may use: modules of the standard library, parts of others, builtins, decorators.

A screen, not a proof: whether a function is pure is seen when it runs (`cases.py`). What is not listed is refused, so a
module that Python gains later is refused until someone looks at it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from enum import StrEnum


class Reason(StrEnum):
    """Why a function gives no bugs; the words of the closing table."""

    PRIVATE = "its name begins with an underscore"
    ASYNC = "asynchronous"
    DECORATED = "a decorator that is not known to be harmless"
    KEYWORDS = "cannot be called with positional arguments alone"
    CALLABLE = "needs a function as an argument"
    THIRD_PARTY = "needs a package that is not the standard library"
    PACKAGE = "needs a part of its package that cannot be taken along"
    UNKNOWN = "needs a name that is bound nowhere"
    GLOBAL = "uses a global that is changed or assembled"
    IO = "reads, prints or asks the system"
    RANDOM = "random"
    TIME = "asks for the time"
    DYNAMIC = "evaluates code, or looks into itself"
    LONG = "too long with all it needs"
    NO_INPUT = "too few inputs are known or found on which it works"
    RESULT = "its results are not plain JSON values"
    CONSTANT = "the same result for every input"
    UNSTABLE = "other results when run again"
    CHANGES = "changes its arguments"
    DOCTEST = "its own doctest fails"
    SLOW = "too slow or too hungry"
    BROKEN = "cannot be loaded as one file"
    NO_MUTANT = "no mutant of it is worth keeping"


class Refused(Exception):
    """A function that gives no bugs: `reason` is counted, `detail` is for a person."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def words(text: str) -> frozenset[str]:
    """Return the words of a text: how this room writes down sets of names."""
    return frozenset(text.split())


_PURE = words(
    "abc array base64 binascii bisect builtins calendar cmath collections collections.abc colorsys contextlib copy csv "
    "dataclasses datetime decimal difflib enum fnmatch fractions functools hashlib heapq hmac html html.entities "
    "html.parser ipaddress itertools json keyword math numbers operator posixpath ntpath re reprlib shlex statistics "
    "string struct textwrap token tokenize types typing unicodedata urllib.parse warnings zlib __future__"
)
_PARTS = words(
    "sys.byteorder sys.float_info sys.maxsize sys.maxunicode sys.hexversion sys.version_info io.StringIO io.BytesIO "
    "os.extsep os.linesep os.fspath os.sep os.path.basename os.path.commonprefix os.path.dirname os.path.isabs "
    "os.path.join os.path.normpath os.path.sep os.path.split os.path.splitext ast.literal_eval ast.parse ast.walk "
    "random.Random uuid.UUID"
)
"""What may be used of modules that are not pure as a whole."""
_IMPURE = {
    **dict.fromkeys(("random", "secrets", "uuid"), Reason.RANDOM),
    **dict.fromkeys(("time", "timeit", "sched", "zoneinfo"), Reason.TIME),
    **dict.fromkeys(("inspect", "importlib", "ast", "dis", "gc", "traceback", "weakref", "pkgutil"), Reason.DYNAMIC),
}
_CLOCKS = frozenset({"now", "today", "utcnow", "fromtimestamp"})
"""Attributes of `datetime` that look at a clock or the time zone."""
_BUILTINS = {
    **dict.fromkeys(("print", "input", "open", "help", "breakpoint", "exit", "quit"), Reason.IO),
    **dict.fromkeys(("exec", "eval", "compile", "__import__", "globals", "locals"), Reason.DYNAMIC),
    **dict.fromkeys(("vars", "id", "hash"), Reason.DYNAMIC),
}
_DECORATORS = words(
    "cache lru_cache functools.cache functools.lru_cache total_ordering functools.total_ordering dataclass "
    "dataclasses.dataclass contextmanager contextlib.contextmanager wraps functools.wraps staticmethod classmethod "
    "property no_type_check typing.no_type_check final typing.final unique enum.unique abstractmethod "
    "abc.abstractmethod deprecated overload typing.overload"
)
"""Decorators under which a function still is what its body says."""


def is_standard(module: str) -> bool:
    """Return whether a dotted name belongs to the standard library."""
    return module.partition(".")[0] in sys.stdlib_module_names


def may_use(dotted: str) -> bool:
    """Return whether ``module.attribute`` is listed, or a part of what is: of a module that is not pure as a whole."""
    return dotted in _PARTS or any(dotted.startswith(f"{part}.") for part in _PARTS)


def screen(node: ast.AST, imported: dict[str, str]) -> None:
    """Look through code that a function would take along; `imported` maps names to dotted standard-library paths.

    **Raises**: `Refused` with what was found.
    """
    imported = {**imported, **dict(_imported_within(node))}
    for inner in ast.walk(node):
        match inner:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                raise Refused(Reason.ASYNC)
            case ast.FunctionDef(decorator_list=decorators) | ast.ClassDef(decorator_list=decorators):
                for decorator in decorators:
                    _screen_decorator(decorator)
            case ast.Attribute(attr=attr) if attr in _CLOCKS and any(
                m.startswith("datetime") for m in imported.values()
            ):
                raise Refused(Reason.TIME, f".{attr}()")
            case ast.Attribute(attr="__dict__" | "__code__" | "__globals__" | "__subclasses__"):
                raise Refused(Reason.DYNAMIC, inner.attr)
    for dotted in used_parts(node, imported):
        if not may_use(dotted):
            reason = Reason.DYNAMIC if "._" in dotted else _IMPURE.get(dotted.partition(".")[0], Reason.IO)
            raise Refused(reason, dotted)


def _imported_within(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that a function imports for itself. **Raises**: `Refused` for what it may not."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            for alias in inner.names:
                _refuse_import(alias.name)
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(inner, ast.ImportFrom):
            if inner.level:
                raise Refused(Reason.PACKAGE, f"{'.' * inner.level}{inner.module or ''}")
            _refuse_import(str(inner.module))
            yield from ((alias.asname or alias.name, f"{inner.module}.{alias.name}") for alias in inner.names)


def _refuse_import(module: str) -> None:
    if not is_standard(module):
        raise Refused(Reason.THIRD_PARTY, module)


def screen_builtin(name: str) -> None:
    """**Raises**: `Refused` for a builtin that a pure function does not use."""
    if name in _BUILTINS:
        raise Refused(_BUILTINS[name], f"{name}()")


def used_parts(node: ast.AST, imported: dict[str, str]) -> Iterator[str]:
    """Yield the dotted paths, as long as they stand there, that code takes of modules which are not pure as a whole."""
    partial = {name: path for name, path in imported.items() if _is_partial(path)}
    covered: set[int] = set()
    for inner in ast.walk(node):  # outer attributes come before those they hold
        if isinstance(inner, ast.Attribute) and id(inner) not in covered:
            chain, base = [inner.attr], inner.value
            while isinstance(base, ast.Attribute):
                covered.add(id(base))
                chain.append(base.attr)
                base = base.value
            if isinstance(base, ast.Name) and base.id in partial:
                covered.add(id(base))
                yield ".".join([partial[base.id], *reversed(chain)])
        elif isinstance(inner, ast.Name) and inner.id in partial and id(inner) not in covered:
            yield partial[inner.id]


def _is_partial(path: str) -> bool:
    """Return whether a path is a module that is not pure, or something imported from one."""
    return path not in _PURE and path.rpartition(".")[0] not in _PURE


def _screen_decorator(node: ast.expr) -> None:
    text = ast.unparse(node.func if isinstance(node, ast.Call) else node)
    if text not in _DECORATORS and not text.endswith((".setter", ".getter", ".deleter")):
        raise Refused(Reason.DECORATED, f"@{text}")
