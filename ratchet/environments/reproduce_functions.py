"""Tiny Python functions with one mutation each: what the `reproduce` study's bugs are made of. Pure functions.

Three kinds, all over the digits 0..9 with results modulo 10: ``one`` and ``two`` branch on one or two arguments,
``list`` loops over two items:

    def f(a, b):                     def f(xs):
     if a>b:                          t = 3
      return (a-3)%10                 for a in xs:
     return (b+a)%10                   if a>=4:
                                        t = (t+a)%10
                                      return t

A function is its kind and its parts, each a token long, so that a mutation replaces one part and the working of a
call can be written down step by step. The intended behaviour stands in the docstring: a formula, or examples.
"""

from __future__ import annotations

import itertools
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

Kind = Literal["one", "two", "list"]
KINDS: tuple[Kind, ...] = ("one", "two", "list")
ARGUMENTS: dict[Kind, str] = {"one": "a", "two": "a, b", "list": "xs"}
COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}

_STRICTER = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_FLIPPED = {"+": "-", "-": "+"}

Input = tuple[int, ...]
"""The arguments of a call, or the two items of its list."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the family.

    `parts` are, for a branch, three of the condition and three of either result (``a > 6  a + 6  a - 2``); for a
    loop the start, the comparison and its threshold, the operator and its operand (``3  >= 4  + a``).
    """

    kind: Kind
    parts: tuple[str, ...]

    def call(self, values: Input) -> int:
        """Return what the function returns."""
        names = dict(zip("ab", values, strict=False))
        if self.kind == "list":
            total = int(self.parts[0])
            for item in values:
                if COMPARE[self.parts[1]](item, int(self.parts[2])):
                    total = _apply(total, self.parts[3], _value(self.parts[4], {"a": item}))
            return total
        left, compare, right = self.parts[:3]
        taken = self.parts[3:6] if COMPARE[compare](_value(left, names), _value(right, names)) else self.parts[6:]
        return int(_apply(_value(taken[0], names), taken[1], _value(taken[2], names)))

    def lines(self) -> list[str]:
        """Return the body's lines that hold a part each: start (of a loop), condition, results."""
        if self.kind == "list":
            start, compare, threshold, sign, operand = self.parts
            return [f" t = {start}\n", f"  if a{compare}{threshold}:\n", f"   t = (t{sign}{operand})%10\n"]
        condition, then, other = ("".join(self.parts[i : i + 3]) for i in (0, 3, 6))
        return [f" if {condition}:\n", f"  return ({then})%10\n", f" return ({other})%10\n"]

    def pieces(self) -> list[str]:
        """Return the piece of the formula that belongs to each of `lines`."""
        if self.kind == "list":
            start, compare, threshold, sign, operand = self.parts
            return [start, f"a{compare}{threshold}", f"t{sign}{operand}"]
        return ["".join(self.parts[i : i + 3]) for i in (0, 3, 6)]

    def formula(self) -> str:
        """Return the behaviour as a line: ``a>6 ? a+6 : a-2``, or ``3; a>=4 ? t+a`` for a loop."""
        first, second, third = self.pieces()
        return f"{first}; {second} ? {third}" if self.kind == "list" else f"{first} ? {second} : {third}"

    def file(self, docstring: str) -> str:
        """Return the whole source file."""
        body = self.lines()
        if self.kind == "list":
            body = [body[0], " for a in xs:\n", *body[1:], " return t\n"]
        return f'def f({ARGUMENTS[self.kind]}):\n """{docstring}"""\n' + "".join(body)

    def working(self, values: Input) -> str:
        """Return the evaluation of a call step by step; it ends with the result.

        ``a>6: 8>6 T a+6: 8+6=4`` for a branch: each piece, then the piece with its numbers. For a loop the start and
        one step per item: ``3|a>=4: 7>=4 T t+a: 3+7=0|a>=4: 2>=4 F 0``.
        """
        names = {name: str(value) for name, value in zip("ab", values, strict=False)}
        if self.kind == "list":
            return self._loop_working(values)
        left, compare, right = (names.get(part, part) for part in self.parts[:3])
        holds = COMPARE[compare](int(left), int(right))
        condition, then, other = self.pieces()
        # Copying a piece and putting the numbers in are two steps: a policy of two layers cannot do both in one.
        taken = "".join(names.get(part, part) for part in (self.parts[3:6] if holds else self.parts[6:]))
        mark, piece = (" T ", then) if holds else (" F ", other)
        return f"{condition}: {left}{compare}{right}{mark}{piece}: {taken}={self.call(values)}"

    def _loop_working(self, values: Input) -> str:
        start, compare, threshold, sign, operand = self.parts
        total, text = int(start), start
        for item in values:
            text += f"|a{compare}{threshold}: {item}{compare}{threshold}"
            if COMPARE[compare](item, int(threshold)):
                amount = item if operand == "a" else int(operand)
                text += f" T t{sign}{operand}: {total}{sign}{amount}={_apply(total, sign, amount)}"
                total = _apply(total, sign, amount)
            else:
                text += f" F {total}"
        return text


def all_pieces() -> list[str]:
    """Return every piece of a formula that is longer than a digit: ``a>6``, ``a<=b``, ``b-7``, ``t+a``."""
    digits = "0123456789"
    conditions = [f"a{compare}{right}" for compare in COMPARE for right in (*digits, "b")]
    sides = [(left, right) for left, names in (("a", "b"), ("b", "a"), ("t", "a")) for right in (*digits[1:], names)]
    return conditions + [f"{left}{sign}{right}" for left, right in sides for sign in "+-"]


def inputs(kind: Kind) -> Sequence[Input]:
    """Return every input of the family: ten, or a hundred for two arguments or two items."""
    return _INPUTS[kind]


def results(function: Function) -> list[int]:
    """Return what the function returns for each of `inputs`: the same as `Function.call`, all at once."""
    first, second = _ARRAYS[function.kind]
    if function.kind == "list":
        start, compare, threshold, sign, operand = function.parts
        total = np.full(len(first), int(start))
        for items in (first, second):
            amounts = items if operand == "a" else np.full(len(first), int(operand))
            holds = COMPARE[compare](items, int(threshold))
            total = np.where(holds, _apply(total, sign, amounts), total)
        return list(total.tolist())
    names = {"a": first, "b": second}
    left, compare, right = function.parts[:3]
    branches = (function.parts[3:6], function.parts[6:])
    then, other = (_apply(_value(p[0], names), p[1], _value(p[2], names)) for p in branches)
    return list(np.where(COMPARE[compare](_value(left, names), _value(right, names)), then, other).tolist())


def write_call(kind: Kind, values: Input) -> str:
    """Return the call as source: ``f(8)``, ``f(8, 3)``, ``f([8, 3])``."""
    listed = ", ".join(map(str, values))
    return f"f([{listed}])" if kind == "list" else f"f({listed})"


def revealing(fixed: Function, buggy: Function) -> list[Input]:
    """Return the inputs at which the two differ."""
    pairs = zip(inputs(fixed.kind), results(fixed), results(buggy), strict=True)
    return [values for values, right, wrong in pairs if right != wrong]


def draw_pair(rng: random.Random, kinds: Sequence[Kind], reveal_max: float) -> tuple[Function, Function]:
    """Return a function and its mutant, which some input reveals, but no more than a share `reveal_max` of all."""
    while True:
        fixed = draw_function(rng, rng.choice(kinds))
        buggy = mutate(fixed, rng)
        shown = len(revealing(fixed, buggy))
        if 0 < shown <= reveal_max * len(inputs(fixed.kind)):
            return fixed, buggy


def draw_mutants(rng: random.Random, fixed: Function, count: int) -> list[Function]:
    """Return up to `count` different mutants of a function, each revealed by some input."""
    found: dict[Function, None] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        mutant = mutate(fixed, rng)
        if revealing(fixed, mutant):
            found[mutant] = None
    return list(found)


def draw_function(rng: random.Random, kind: Kind) -> Function:
    """Return a function of a kind."""
    compare, threshold = rng.choice(tuple(COMPARE)), str(rng.randint(2, 7))
    if kind == "list":
        operand = "a" if rng.random() < 0.5 else str(rng.randint(1, 9))
        return Function(kind, (str(rng.randint(0, 9)), compare, threshold, rng.choice("+-"), operand))
    if kind == "one":
        return Function(kind, ("a", compare, threshold, *_result(rng, "a"), *_result(rng, "a")))
    right = "b" if rng.random() < 0.5 else threshold
    return Function(kind, ("a", compare, right, *_result(rng, "ab"), *_result(rng, "ab")))


def mutate(function: Function, rng: random.Random) -> Function:
    """Return the function with one part changed: a comparison, a threshold, an operator, or an operand."""
    if function.kind == "list":
        place = rng.choice((1, 1, 2, 2, 3, 4))
    else:
        place = rng.choice((1, 1, 2, 2, *rng.choice(((4, 5), (7, 8)))))
    part = function.parts[place]
    if part in COMPARE:
        new = _STRICTER[part] if rng.random() < 0.7 else _TURNED[part]
    elif part in _FLIPPED:
        new = _FLIPPED[part]
    elif part.isdigit() and place == 2:
        new = str(int(part) + rng.choice((-2, -1, 1, 2)))
    else:
        new = rng.choice([digit for digit in "123456789" if digit != part])
    return replace(function, parts=(*function.parts[:place], new, *function.parts[place + 1 :]))


def _result(rng: random.Random, names: str) -> tuple[str, str, str]:
    name = rng.choice(names)
    other = {"a": "b", "b": "a"}[name] if len(names) > 1 and rng.random() < 0.3 else str(rng.randint(1, 9))
    return name, rng.choice("+-"), other


def _value(part: str, names: Mapping[str, Any]) -> Any:
    return names[part] if part in names else int(part)


def _apply(left: Any, sign: str, right: Any) -> Any:
    """Work on numbers and on arrays of them."""
    return (left + right if sign == "+" else left - right) % 10


_INPUTS: Mapping[Kind, Sequence[Input]] = {
    kind: tuple(itertools.product(range(10), repeat=1 if kind == "one" else 2)) for kind in KINDS
}
_ARRAYS = {kind: (np.array([v[0] for v in _INPUTS[kind]]), np.array([v[-1] for v in _INPUTS[kind]])) for kind in KINDS}
