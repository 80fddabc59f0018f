"""Mutants: one change each, of every kind a person makes, with layout and comments left as they were."""

from __future__ import annotations

import ast
import difflib
import random

import pytest

from ratchet.bugs.mutate import Mutant, draw_mutants

ALL = 10_000


def mutants(source: str, entry: str = "f") -> list[Mutant]:
    return draw_mutants(source, entry, random.Random(0), ALL)


def changed(body: str, operator: str, head: str = "def f(a, b, xs, s):") -> set[str]:
    """Return what the lines of a function's body become by an operator, joined where more than one line changes."""
    source = f"{head}\n{body}\n"
    found = set()
    for mutant in mutants(source):
        if mutant.operator == operator:
            lines = difflib.ndiff(source.split("\n"), mutant.source.split("\n"))
            found.add("|".join(line[2:].strip() for line in lines if line.startswith("+ ")))
    return found


@pytest.mark.parametrize(
    ("body", "operator", "expected"),
    [
        (" return a < b", "boundary", {"return a <= b"}),
        (" return a < b", "comparison", {"return a > b"}),
        (" return a == b", "comparison", {"return a != b", "return a <= b", "return a >= b"}),
        (" return a is not None", "comparison", {"return a is None"}),
        (" return a not  in xs", "membership", {"return a in xs"}),
        (" return (a) <(b)", "boundary", {"return (a) <=(b)"}),
        (" return a < b < 9", "boundary", {"return a <= b < 9", "return a < b <= 9"}),
        (" return a + b", "arithmetic", {"return a - b"}),
        (" return a // b", "arithmetic", {"return a / b", "return a % b"}),
        (" return a + 1", "boundary", {"return a"}),
        (" a += b\n return a", "arithmetic", {"a -= b"}),
        (" a += b\n return a", "assignment", {"a = b"}),
        (" return a - b", "operands swapped", {"return b - a"}),
        (" return a and b", "boolean", {"return a or b"}),
        (" return a and b", "condition dropped", {"return a", "return b"}),
        (" return a or b and xs", "boolean", {"return a and b and xs", "return a or b or xs"}),
        (" return (a or b) and xs and s", "condition dropped",
         {"return xs and s", "return (a or b) and s", "return (a or b) and xs",
          "return (a) and xs and s", "return (b) and xs and s"}),
        (" if a:\n  return b\n return s", "negation", {"if not a:"}),
        (" if a or b:\n  return b\n return s", "negation", {"if not (a or b):"}),
        (" if not a:\n  return b\n return s", "negation", {"if a:"}),
        (" return [x for x in xs if x]", "negation", {"return [x for x in xs if not x]"}),
        (" return a if b else s", "branches swapped", {"return s if b else a"}),
        (" return -a", "sign", {"return a"}),
        (' return s.replace("_", "-")', "string", set()),  # by itself: nobody writes that
        (" return 5", "constant", {"return 6", "return 4"}),
        (" return 0", "constant", {"return 1"}),
        (" return 0x1f", "constant", {"return 0x20", "return 0x1e"}),
        (" return 1.5", "constant", {"return 3.0", "return 2.5"}),
        (" return True", "constant", {"return False"}),
        (" return g(a, b)", "arguments swapped", {"return g(b, a)"}),
        (" return g(a, k=b)", "argument dropped", {"return g(a)"}),
        (" return s.split(',', 1)", "argument dropped", {"return s.split(',')"}),
        (" return s.lower()", "another function", {"return s.upper()"}),
        (" return min(xs)", "another function", {"return max(xs)"}),
        (" return range(a)", "boundary", {"return range(a + 1)", "return range(a - 1)", "return range(1, a)"}),
        (" return range(1, a - 1)", "boundary",
         {"return range(1, a)", "return range(1, a - 1 - 1)", "return range(2, a - 1)"}),
        (" return xs[1:]", "slice bound", {"return xs[:]", "return xs[2:]", "return xs[0:]"}),
        (" return xs[:-1]", "slice bound", {"return xs[:]", "return xs[:-2]"}),
        (" return xs[0]", "index", {"return xs[-1]", "return xs[1]"}),
        (" return xs[a + 1]", "index", {"return xs[a + 1 + 1]", "return xs[a]"}),
        (" return a", "variable", {"return b", "return xs", "return s"}),
        (" return s == ','", "string", {"return s == ';'"}),
        (" return s + 'word'", "string", {"return s + 'wor'", "return s + 'Word'"}),
        (" return s in ('ab', 'cd')", "string",
         {"return s in ('a', 'cd')", "return s in ('Ab', 'cd')", "return s in ('cd', 'cd')",
          "return s in ('ab', 'c')", "return s in ('ab', 'Cd')", "return s in ('ab', 'ab')"}),
        (" return g(r'^\\d+$', s)", "pattern",
         {"return g(r'\\d+$', s)", "return g(r'^\\w+$', s)", "return g(r'^\\d*$', s)", "return g(r'^\\d+', s)"}),
        (" for x in xs:\n  if x:\n   continue\n  s += x\n return s", "jump", {"break"}),
        (" s = ''\n for x in xs:\n  s += x\n return s", "early return", {"return s"}),
        (" if a:\n  b = 1\n elif s:\n  b = 2\n else:\n  b = 3\n return b", "branch missing", {""}),
    ],
)  # fmt: skip
def test_an_operator_makes_the_mistakes_it_is_named_for(body: str, operator: str, expected: set[str]) -> None:
    assert changed(body, operator) == expected


def test_a_default_may_be_another() -> None:
    assert changed(" return a", "default", "def f(a=3, b=True, c='-', d=None):") == {
        "def f(a=4, b=True, c='-', d=None):",
        "def f(a=2, b=True, c='-', d=None):",
        "def f(a=3, b=False, c='-', d=None):",
        "def f(a=3, b=True, c='_', d=None):",
    }


def test_a_statement_may_be_missing_together_with_the_remark_above_it() -> None:
    source = (
        "def f(a):\n"
        "    b = a\n"  # without it b would be unbound
        "    # no more than nine\n"
        "    if a > 9:\n"
        "        a = 9  # the limit\n"
        "    print(a); g(a)\n"
        "    if b:\n"
        "        raise ValueError\n"
        "    return a\n"
    )
    lines = source.split("\n")
    found = {m.source for m in mutants(source) if m.operator == "statement missing"}
    assert found == {
        "\n".join([*lines[:2], *lines[5:]]),
        "\n".join([*lines[:4], "        pass  # the limit", *lines[5:]]),
        source.replace("print(a); g(a)", "pass; g(a)"),
        source.replace("print(a); g(a)", "print(a); pass"),
    }


SOURCE = '''\
"""Not changed: 1 + 1."""
import re

LIMIT = 10  # ten


def helper(x):
    return x + 1


class Box:
    """Not changed either."""

    def get(self, i: int = 1):
        return self.items[i]


@cache
def f(é, items: "list[int]" = None, *, on=True):
    """Do: 1 < 2."""
    total = (é  # before the operator < comes a comment
             < LIMIT)   # after it another
    for item in items or ():
        total += helper( item )
    if not on:
        raise ValueError("é: %d" % 1)
    text = f"{total + 1} of {LIMIT}"
    return total, \\
        text
'''


def test_everything_but_one_place_stays_as_it_was_typed() -> None:
    found = mutants(SOURCE)
    assert len(found) > 20
    for mutant in found:
        ast.parse(mutant.source)
        before, after = SOURCE.split("\n"), mutant.source.split("\n")
        hunks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        touched = [code for code in hunks if code[0] != "equal"]
        assert len(touched) == 1, mutant
        assert touched[0][1] + 1 == mutant.line or before[mutant.line - 1] in before[touched[0][1] : touched[0][2]]
        for kept in ("1 + 1", "1 < 2", "either", "ValueError", 'f"{total + 1} of {LIMIT}"', "i: int", "list[int]"):
            assert kept in mutant.source, mutant
    assert any("             <= LIMIT)   # after it another" in mutant.source for mutant in found)


def test_no_two_mutants_mean_the_same_and_none_means_what_the_source_does() -> None:
    meanings = [ast.dump(ast.parse(m.source)) for m in mutants(SOURCE)]
    assert len(set(meanings)) == len(meanings)
    assert ast.dump(ast.parse(SOURCE)) not in meanings
    # Both an index and a constant are 0 here, both operands of the comparison are a.
    assert not changed(" return a < b", "variable") & {"return a < a", "return b < b"}


def test_the_function_itself_is_changed_first_and_operators_take_turns() -> None:
    found = mutants(SOURCE)
    tiers = [mutant.tier for mutant in found]
    assert tiers == sorted(tiers)
    assert set(tiers) == {0, 1, 2}
    in_function = [m.operator for m in found if m.tier == 0]
    assert len(set(in_function[:6])) == 6


def test_the_seed_decides_which_mutants_come() -> None:
    def drawn(seed: int) -> list[Mutant]:
        return draw_mutants(SOURCE, "f", random.Random(seed), 5)

    assert drawn(1) == drawn(1)
    assert len(drawn(1)) == 5
    assert drawn(1) != drawn(2)
