"""Mutants of a source: each differs from it in one place, and keeps its layout and comments everywhere else.

Operators of our own over `ast`, which knows where everything stands, and not a library, after looking at what there is.
mutmut 3 (libcst) writes all mutants into one file behind trampolines, offers no function from a string to mutants,
brings coverage, pytest and textual along, and its changes measure suites of tests: results become None, strings are
wrapped in "XX". cosmic-ray (parso) has such a function, but brings git, an HTTP server and a database along, and
neither swaps arguments nor drops statements nor confuses variables. mutatest changes compiled code and rests since
2022, universalmutator rewrites lines by regular expressions, of which much is not Python. What is wanted here are
mistakes that a person makes.
"""

from __future__ import annotations

import ast
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ratchet.bugs.changes import Change, Place, expression_changes
from ratchet.bugs.changes_statements import statement_changes
from ratchet.bugs.sources import parsed

_PASSED_OVER = (ast.Raise, ast.Import, ast.ImportFrom, ast.JoinedStr, ast.Global, ast.Nonlocal)
"""Nodes that are left as they are: messages of errors are nobody's bug, and before Python 3.12 parts of f-strings do
not know where they stand."""

_MAY_BE_VAIN = ("variable", "string")
"""Operators whose changes may make a line that nobody would write."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A source with one change."""

    source: str
    operator: str
    line: int
    """Of the source it was made from, counted from 1."""
    tier: int
    """0 in the function itself, 1 in what it calls, 2 in a constant."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    change: Change
    tier: int
    top: ast.stmt
    """The statement of the file that it changes."""


def draw_mutants(source: str, entry: str, rng: random.Random, most: int) -> list[Mutant]:
    """Return up to `most` mutants of a file, no two of which mean the same.

    Those of the function itself come first, then those of what it calls, then those of constants; in each the operators
    take turns, and what one operator offers comes in random order.
    """
    place = Place.of(source)
    # What a statement means as it is, so that a change which changes nothing is none.
    seen = {(top.lineno, _meaning(_segment(source, place, top))) for top in ast.parse(source).body}
    found: list[Mutant] = []
    for candidate in _in_turns(list(_candidates(source, entry, place)), rng):
        if len(found) == most:
            break
        text = place.spliced(candidate.change)
        before = _segment(source, place, candidate.top)
        changed = _segment(text, place, candidate.top, len(text) - len(source))
        meaning = _meaning(changed)
        key = candidate.top.lineno, meaning
        is_vain = bool(meaning) and candidate.change.operator in _MAY_BE_VAIN and _is_vain(before, changed)
        if meaning and key not in seen and not is_vain:
            seen.add(key)
            found.append(Mutant(text, candidate.change.operator, place.line_of(candidate.change), candidate.tier))
    return found


def _is_vain(source: str, mutant: str) -> bool:
    """Return whether a mutant compares something with itself, takes it from itself, or calls with the same argument
    twice, as ``replace("_", "_")`` does, where the source does not."""
    return _with_itself(mutant) > _with_itself(source)


def _with_itself(source: str) -> int:
    count = 0
    for node in ast.walk(parsed(source)):
        match node:
            case (
                ast.Compare(left=left, comparators=[right])
                | ast.BinOp(left=left, right=right)
                | ast.Call(args=[left, right])
            ):
                count += ast.dump(left) == ast.dump(right)
    return count


def _segment(source: str, place: Place, top: ast.stmt, grown: int = 0) -> str:
    """Return the lines of a statement at the top of a file, in a text that has grown there by some characters."""
    decorators = top.decorator_list if isinstance(top, ast.FunctionDef | ast.ClassDef) else []
    first = min([top.lineno, *(d.lineno for d in decorators)])
    return source[place.starts[first - 1] : place.starts[top.end_lineno or top.lineno] + grown]


def _candidates(source: str, entry: str, place: Place) -> Iterator[_Candidate]:
    seen: set[tuple[int, int, str]] = set()
    for top in ast.parse(source).body:
        tier = _tier(top, entry)
        for node, function in _nodes(top, None):
            for change in _changes(node, function, place):
                where = change.start, change.end, change.text
                if where not in seen:
                    seen.add(where)
                    yield _Candidate(change, tier, top)


def _in_turns(candidates: Sequence[_Candidate], rng: random.Random) -> Iterator[_Candidate]:
    for tier in sorted({c.tier for c in candidates}):
        queues: dict[str, list[_Candidate]] = defaultdict(list)
        for candidate in candidates:
            if candidate.tier == tier:
                queues[candidate.change.operator].append(candidate)
        order = sorted(queues)
        rng.shuffle(order)
        for name in order:
            rng.shuffle(queues[name])
        while any(queues.values()):
            yield from [queues[name].pop() for name in order if queues[name]]


def _changes(node: ast.AST, function: ast.FunctionDef | None, place: Place) -> Iterator[Change]:
    yield from expression_changes(node, function, place)
    yield from statement_changes(node, function, place)


def _tier(top: ast.stmt, entry: str) -> int:
    if isinstance(top, ast.FunctionDef | ast.ClassDef):
        return 0 if top.name == entry else 1
    return 2


def _nodes(node: ast.AST, function: ast.FunctionDef | None) -> Iterator[tuple[ast.AST, ast.FunctionDef | None]]:
    """Yield nodes that may be changed, each with the function it stands in."""
    if isinstance(node, _PASSED_OVER) or _is_docstring(node) or _is_of_types(node):
        return
    yield node, function
    inner = node if isinstance(node, ast.FunctionDef) else function
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "format_spec", "msg"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _nodes(child, inner)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_of_types(node: ast.AST) -> bool:
    """Return whether a call is for type checkers, or says something to a person."""
    called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
    return called in ("TypeVar", "NewType", "ParamSpec", "warn", "namedtuple", "NamedTuple")


def _meaning(source: str) -> str:
    """Return what a source means, whatever its layout; empty if it is not Python."""
    try:
        return ast.dump(parsed(source))
    except (SyntaxError, ValueError, RecursionError):
        return ""
