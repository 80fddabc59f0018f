"""The changes of a mutant within expressions: what is written instead of what, where. `mutate.py` makes sources of
them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ratchet.bugs.allowed import words
from ratchet.bugs.changes_constants import constant_changes

_COMPARE: dict[type[ast.cmpop], tuple[str, tuple[tuple[str, str], ...]]] = {
    ast.Lt: ("<", (("boundary", "<="), ("comparison", ">"))),
    ast.LtE: ("<=", (("boundary", "<"), ("comparison", ">="))),
    ast.Gt: (">", (("boundary", ">="), ("comparison", "<"))),
    ast.GtE: (">=", (("boundary", ">"), ("comparison", "<="))),
    ast.Eq: ("==", (("comparison", "!="), ("comparison", "<="), ("comparison", ">="))),
    ast.NotEq: ("!=", (("comparison", "=="),)),
    ast.Is: ("is", (("comparison", "is not"),)),
    ast.IsNot: ("is not", (("comparison", "is"),)),
    ast.In: ("in", (("membership", "not in"),)),
    ast.NotIn: ("not in", (("membership", "in"),)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: ("+", ("-",)),
    ast.Sub: ("-", ("+",)),
    ast.Mult: ("*", ("+", "//")),
    ast.Div: ("/", ("//", "*")),
    ast.FloorDiv: ("//", ("/", "%")),
    ast.Mod: ("%", ("//",)),
    ast.Pow: ("**", ("*",)),
    ast.LShift: ("<<", (">>",)),
    ast.RShift: (">>", ("<<",)),
    ast.BitAnd: ("&", ("|",)),
    ast.BitOr: ("|", ("&",)),
    ast.BitXor: ("^", ("|",)),
}
_CONFUSED = dict(
    word.split(":")
    for word in words(
        "lower:upper upper:lower lstrip:rstrip rstrip:lstrip strip:rstrip startswith:endswith endswith:startswith "
        "find:rfind rfind:find index:rindex rindex:index partition:rpartition rpartition:partition ljust:rjust "
        "rjust:ljust removeprefix:removesuffix removesuffix:removeprefix split:rsplit rsplit:split title:capitalize "
        "capitalize:title isdigit:isalpha isalpha:isalnum isalnum:isalpha islower:isupper isupper:islower min:max "
        "max:min any:all all:any sum:max int:float floor:ceil ceil:floor keys:values values:keys extend:append "
        "append:extend popleft:pop appendleft:append union:intersection intersection:union issubset:issuperset "
        "issuperset:issubset match:search search:match fullmatch:match takewhile:dropwhile dropwhile:takewhile "
        "bisect_left:bisect_right bisect_right:bisect_left nlargest:nsmallest nsmallest:nlargest"
    )
)
"""Functions and methods that people take for each other."""
_BUILTINS = words("min max any all sum int")
"""Those of them that need no import and no object."""
_ATOMS = (ast.Name, ast.Constant, ast.Call, ast.Attribute, ast.Subscript)
_LOOSE = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.NamedExpr)
"""Expressions that need parentheses within another one."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written from `start` to `end` of a text."""

    start: int
    end: int
    text: str
    operator: str


@dataclass(frozen=True)
class Place:
    """A source, and where its nodes stand in it."""

    source: str
    starts: tuple[int, ...]
    """Where each line begins, in characters."""

    @staticmethod
    def of(source: str) -> Place:
        starts = [0]
        for line in source.split("\n"):
            starts.append(starts[-1] + len(line) + 1)
        return Place(source, tuple(starts))

    @cached_property
    def lines(self) -> tuple[str, ...]:
        return tuple(self.source.split("\n"))

    def at(self, line: int, column: int) -> int:
        """Return the place of a position as `ast` gives it: lines from 1, columns in bytes."""
        text = self.lines[line - 1].encode()[:column].decode()
        return self.starts[line - 1] + len(text)

    def span(self, node: ast.expr | ast.stmt | ast.arg | ast.keyword) -> tuple[int, int]:
        return self.at(node.lineno, node.col_offset), self.at(node.end_lineno or 0, node.end_col_offset or 0)

    def text(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        start, end = self.span(node)
        return self.source[start:end]

    def spliced(self, change: Change) -> str:
        return self.source[: change.start] + change.text + self.source[change.end :]

    def line_of(self, change: Change) -> int:
        return self.source.count("\n", 0, change.start) + 1

    def instead(self, node: ast.expr | ast.stmt | ast.keyword, text: str, operator: str) -> Change:
        """Return the change that writes `text` in a node's place."""
        return Change(*self.span(node), text, operator)

    def between(self, left: ast.expr, right: ast.expr, token: str) -> tuple[int, int] | None:
        """Return where an operator stands between its operands; parentheses and comments may be there too."""
        start, end = self.span(left)[1], self.span(right)[0]
        spaced = r"\s+".join(map(re.escape, token.split()))
        found = re.match(rf"(?:[\s)\\]|#[^\n]*\n)*?({spaced})", self.source[start:end])
        return (start + found.start(1), start + found.end(1)) if found else None


def expression_changes(node: ast.AST, function: ast.FunctionDef | None, place: Place) -> Iterator[Change]:
    """Yield the changes of one node, not those of nodes within it."""
    match node:
        case ast.Compare():
            yield from _compare(node, place)
        case ast.BinOp():
            yield from _arithmetic(node, place)
        case ast.BoolOp():
            yield from _boolean(node, place)
        case ast.UnaryOp():
            yield from _unary(node, place)
        case ast.IfExp(body=body, test=test, orelse=other):
            swapped = f"{_closed(other, place)} if {place.text(test)} else {place.text(body)}"
            yield place.instead(node, swapped, "branches swapped")
            yield from negations(test, place)
        case ast.comprehension(ifs=conditions):
            for condition in conditions:
                yield from negations(condition, place)
        case ast.Call():
            yield from _call(node, place)
        case ast.Subscript(ctx=ast.Load(), slice=ast.Slice() as part):
            yield from _slice(part, place)
        case ast.Subscript(ctx=ast.Load(), slice=index):
            yield from _index(index, place)
        case ast.Constant():
            yield from (
                place.instead(node, text, operator)
                for operator, text in constant_changes(node, place.text(node), function)
            )
        case ast.Name(ctx=ast.Load()) if function is not None:
            yield from _variable(node, function, place)
        case ast.FunctionDef(args=args):
            for default in args.defaults:
                if isinstance(default, ast.Constant):
                    changes = constant_changes(default, place.text(default), None)
                    yield from (place.instead(default, text, "default") for _, text in changes)


def negations(test: ast.expr, place: Place) -> Iterator[Change]:
    """Yield the negation of a condition; comparisons and `not` have changes of their own that mean the same."""
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return
    text = place.text(test)
    yield place.instead(test, f"not ({text})" if isinstance(test, _LOOSE) else f"not {text}", "negation")


def _compare(node: ast.Compare, place: Place) -> Iterator[Change]:
    operands = [node.left, *node.comparators]
    for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
        token, instead = _COMPARE[type(op)]
        where = place.between(left, right, token)
        if where is not None:
            yield from (Change(*where, text, operator) for operator, text in instead)


def _arithmetic(node: ast.BinOp, place: Place) -> Iterator[Change]:
    left, right = node.left, node.right
    if isinstance(left, ast.Constant | ast.JoinedStr) and isinstance(constant_of(left), str):
        return  # formatting and joining of texts
    token, instead = ARITHMETIC.get(type(node.op), ("", ()))
    where = place.between(left, right, token) if token else None
    if where is not None and not isinstance(constant_of(right), str):
        yield from (Change(*where, text, "arithmetic") for text in instead)
    if isinstance(node.op, ast.Add | ast.Sub) and constant_of(right) == 1:
        yield place.instead(node, place.text(left), "boundary")
    if (
        isinstance(node.op, ast.Sub | ast.Div | ast.FloorDiv | ast.Mod)
        and isinstance(left, _ATOMS)
        and isinstance(right, _ATOMS)
    ):
        start, end = place.span(left)[1], place.span(right)[0]
        yield place.instead(node, f"{place.text(right)}{place.source[start:end]}{place.text(left)}", "operands swapped")


def constant_of(node: ast.expr) -> object:
    """Return the value of a constant; None for anything else."""
    return node.value if isinstance(node, ast.Constant) else None


def _boolean(node: ast.BoolOp, place: Place) -> Iterator[Change]:
    token, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
    for left, right in pairwise(node.values):
        where = place.between(left, right, token)
        if where is not None:
            yield Change(*where, other, "boolean")
    for value in node.values:
        kept = [_closed(v, place) if len(node.values) > 2 else place.text(v) for v in node.values if v is not value]
        yield place.instead(node, f" {token} ".join(kept), "condition dropped")


def _unary(node: ast.UnaryOp, place: Place) -> Iterator[Change]:
    if isinstance(node.op, ast.Not | ast.USub | ast.Invert):
        yield place.instead(node, _closed(node.operand, place), "negation" if isinstance(node.op, ast.Not) else "sign")


def _call(node: ast.Call, place: Place) -> Iterator[Change]:
    name = (
        node.func.attr
        if isinstance(node.func, ast.Attribute)
        else node.func.id
        if isinstance(node.func, ast.Name)
        else ""
    )
    if name in _CONFUSED and (isinstance(node.func, ast.Attribute) or name in _BUILTINS):
        end = place.span(node.func)[1]
        yield Change(end - len(name), end, _CONFUSED[name], "another function")
    args = node.args
    if any(isinstance(argument, ast.Starred) for argument in args):
        return
    for first, second in pairwise(args):
        between = place.source[place.span(first)[1] : place.span(second)[0]]
        both = f"{place.text(second)}{between}{place.text(first)}"
        yield Change(place.span(first)[0], place.span(second)[1], both, "arguments swapped")
    given: list[ast.expr | ast.keyword] = [*args, *node.keywords]
    for i, argument in enumerate(given):
        last_positional = i == len(args) - 1
        if isinstance(argument, ast.keyword) or (last_positional and (i > 0 or isinstance(node.func, ast.Attribute))):
            others = ", ".join(place.text(other) for j, other in enumerate(given) if j != i)
            start = place.span(node.func)[1]
            yield Change(start, place.span(node)[1], f"({others})", "argument dropped")
    if name == "range" and isinstance(node.func, ast.Name):
        yield from _range(args, place)


def _range(args: Sequence[ast.expr], place: Place) -> Iterator[Change]:
    stop = args[0] if len(args) == 1 else args[1]
    for by in (1, -1):
        yield place.instead(stop, shifted(stop, by, place), "boundary")
    if len(args) == 1:
        yield place.instead(stop, f"1, {place.text(stop)}", "boundary")
    else:
        yield place.instead(args[0], shifted(args[0], 1, place), "boundary")


def _slice(part: ast.Slice, place: Place) -> Iterator[Change]:
    for bound in (part.lower, part.upper):
        if bound is not None:
            yield place.instead(bound, "", "slice bound")
            for by in (1, -1):
                text = shifted(bound, by, place)
                if text != "0" or bound is part.lower:
                    yield place.instead(bound, text, "slice bound")


def _index(index: ast.expr, place: Place) -> Iterator[Change]:
    if isinstance(index, ast.Constant | ast.UnaryOp) and not isinstance(constant_of(index), str):
        if place.text(index) in ("0", "-1"):
            yield place.instead(index, "-1" if place.text(index) == "0" else "0", "index")
        yield place.instead(index, shifted(index, 1, place), "index")
    elif isinstance(index, ast.BinOp) and isinstance(index.op, ast.Add | ast.Sub):
        yield from (place.instead(index, shifted(index, by, place), "index") for by in (1, -1))


def shifted(node: ast.expr, by: int, place: Place) -> str:
    """Return the text of an expression plus or minus one, as a person would write it."""
    text = place.text(node)
    if re.fullmatch(r"-?\d+", text):
        return str(int(text) + by)
    is_one = isinstance(node, ast.BinOp) and constant_of(node.right) == 1
    if is_one and isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub if by > 0 else ast.Add):
        return place.text(node.left)
    return f"{_closed(node, place)} {'+' if by > 0 else '-'} 1"


def _closed(node: ast.expr, place: Place) -> str:
    """Return the text of an expression, in parentheses if its neighbours could pull it apart."""
    text = place.text(node)
    return f"({text})" if isinstance(node, (*_LOOSE, ast.Compare)) else text


def _variable(node: ast.Name, function: ast.FunctionDef, place: Place) -> Iterator[Change]:
    """Yield the other variables that the function has bound where a name is read."""
    bound = {a.arg: 0 for a in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]}
    for stored in _stored(function):
        bound.setdefault(stored.id, stored.lineno)
    if node.id not in bound or node.id in ("self", "cls", "_"):
        return
    for other in sorted(bound, key=lambda name: (bound[name], name)):
        if other not in (node.id, "self", "cls", "_") and bound[other] < node.lineno:
            yield place.instead(node, other, "variable")


def _stored(function: ast.FunctionDef) -> Iterator[ast.Name]:
    """Yield the names that a function binds in its own scope, in the order of the text."""
    stack: list[ast.AST] = list(reversed(function.body))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node
        if not isinstance(
            node, ast.FunctionDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
        ):
            stack += reversed(list(ast.iter_child_nodes(node)))
