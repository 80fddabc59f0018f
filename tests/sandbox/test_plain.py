"""Tests that are read: which are plain, and that reading one gives the verdict that running it gives."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from ratchet.config.schema import SandboxSection
from ratchet.core.errors import ConfigError
from ratchet.sandbox.box import Limits
from ratchet.sandbox.choose import open_jails
from ratchet.sandbox.inside.plain import read
from ratchet.sandbox.inside.verdict import CompileError
from ratchet.sandbox.pool import CheckPool
from ratchet.sandbox.program import CheckResult, How, Outcome, Program

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")
"""Python warns about some tests that make no sense."""

MODULE = """
LIMIT = 7
calls = 0
class Refused(ValueError):
    pass
def f(x, y=1):
    return x * y + 1
def refuse(x):
    raise Refused("not", x)
def asserts():
    assert False
def sort(xs):
    xs.sort()
    return xs
def count(n=3):
    yield from range(n)
def counted():
    global calls
    calls += 1
    return calls
def pick(xs, i):
    return xs[i]
def opaque():
    return object()
def leave():
    raise SystemExit
def hang():
    while True: pass
def die():
    import os
    os._exit(3)
def tested():
    return 1
"""

PLAIN = [
    "from solution import f\nassert f(1) == 2",
    "from solution import f\nassert f(1) == 3",
    "from solution import f\nassert f(1) == 3, 'why'",
    "import solution\nassert solution.f(2, y=3) == 7 and not solution.f(0) == 2",
    "import solution as s\nassert s.LIMIT == 7\nassert s.LIMIT is not None",
    "from solution import f as g, LIMIT\nassert g(LIMIT) != LIMIT",
    "from solution import sort\nxs = [3, 1, 2]\nassert sort(xs) == [1, 2, 3]\nassert xs[0] == 1 and len(xs) == 3",
    "from solution import count\nassert list(count()) == [0, 1, 2]\nassert sum(count(4)) == 6",
    "from solution import f\nassert [f(a) for a in range(10)] == [a for a in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]",
    "from solution import f\nassert [f(a, b) for a in range(30) for b in range(20)][3] == 1",
    "from solution import f\nassert [f(a) for a in range(9) if f(a) > 3] == [4, 5, 6, 7, 8, 9]",
    "from solution import pick\nassert [pick([1, 2], i) for i in range(5)] == []",
    "from solution import pick\nassert [pick([1, 2], [0, 1, 2][i]) for i in range(9)] == []",
    "from solution import counted\nassert counted() == 1\nassert [counted() for a in (1, 2)] == [2, 3]",
    "from solution import counted\nassert counted() < counted() < counted() < 0",
    "from solution import counted\nassert counted() == 2 or counted() == 2 or counted() == 9",
    "from solution import f\nassert f(1) in (1, 2) and f(1) not in {5: 6}",
    "from solution import f\nassert f([1], 2) == [1, 1, 1]",
    "from solution import f\nassert f('a') == 1",
    "from solution import refuse\nrefuse(1)",
    "from solution import Refused\nRefused(1)",
    "from solution import asserts\nasserts()",
    "from solution import opaque\nopaque()",
    "from solution import leave\nleave()",
    "from solution import die\ndie()",
    "from solution import missing\nassert True",
    "import solution\nassert solution.missing == 1",
    "import solution\nassert solution.hidden() == 1",
    "from solution import f\nassert f() == 1",
    "from solution import LIMIT\nassert LIMIT(1) == 1",
    "from solution import LIMIT\nassert LIMIT[0] == 1",
    "assert f(1) == 2 if False else True\n",
    "assert -1 < +1\nassert not []\nassert {1, 2} == {2, 1} and (1,) == (1,) and {1: [2]} == {1: [2]}",
    "assert {[1]: 2}",
    "assert abs(-1) == 1 == round(1.2) and max([1, 2]) == 2 and min((1, 2)) == 1 and tuple([1]) == (1,)",
    "assert 1 < 'a'",
    "x = 1\nassert x == 1",
    "from solution import f\nassert f(10 ** 0) == 2",
    "from solution import f\nassert sorted([3, 1], key=f) == [1, 3]",
    "assert list(range(10 ** 9)) == 1",
    "def (",
    "return 1",
    "",
    "'nothing but a docstring'",
    "pass",
]
FUNCTIONS = [
    "from solution import f\ndef test_a():\n    assert f(1) == 2\ndef test_b() -> None:\n    y = f(2)\n    assert y",
    "from solution import f\ndef test_a():\n    assert f(1) == 2\ndef test_b():\n    assert f(1) == 3",
    "def test_a():\n    from solution import f\n    assert f(1) == 2",
    "x = 1\ndef test_a():\n    assert x == 2",
    "def test_a(): pass",
    "from solution import tested\ndef helper(): return 1\ndef test_a(): assert helper() == 1",
    "assert False\ndef test_a(): pass",
    "from solution import f",
]


def outcomes(programs: list[Program]) -> list[CheckResult]:
    async def run() -> list[CheckResult]:
        try:
            box = open_jails(SandboxSection())
        except ConfigError as error:
            pytest.skip(str(error))
        async with CheckPool(SandboxSection(), box) as pool:
            found = await asyncio.gather(*(pool.check(p) for p in programs))
        box.close()
        return found

    return asyncio.run(run())


def differences(sources: list[tuple[str, str, How]]) -> dict[str, tuple[object, object]]:
    """Return the tests on which reading and running disagree."""
    programs = [
        Program(module, test, how, may_read=may, expected=["Refused"])
        for module, test, how in sources
        for may in (True, False)
    ]
    found = iter(outcomes(programs))
    told = {}
    for _, test, _ in sources:
        read_, ran = next(found), next(found)
        facts = [(r.outcome, r.name, r.tests, r.hit) for r in (read_, ran)]
        if facts[0] != facts[1]:
            told[test] = (facts[0], facts[1])
    return told


def test_reading_gives_the_verdict_that_running_gives() -> None:
    cases = [(MODULE, test, how) for test in PLAIN for how in (How.SCRIPT, How.FUNCTIONS)]
    cases += [(MODULE, test, How.FUNCTIONS) for test in FUNCTIONS]
    broken = ["1 / 0", "def (", "raise SystemExit", "import os; os._exit(0)", "import nothing_there"]
    cases += [(module, PLAIN[0], How.SCRIPT) for module in broken]
    assert differences(cases) == {}


def test_random_tests_are_judged_alike_read_or_run() -> None:
    rng = random.Random(0)

    def value(depth: int = 0) -> str:
        kinds = ["number", "number", "text", "none"] + (["list", "call", "sign", "index", "dict"] if depth < 3 else [])
        match rng.choice(kinds):
            case "number":
                return str(rng.choice([0, 1, 2, 3, 7, 1.5]))
            case "text":
                return repr(rng.choice(["", "a", "é\n"]))
            case "none":
                return rng.choice(["None", "True", "x"])
            case "list":
                return "[" + ", ".join(value(depth + 1) for _ in range(rng.randint(0, 3))) + "]"
            case "dict":
                return "{" + ", ".join(f"{value(3)}: {value(depth + 1)}" for _ in range(rng.randint(0, 2))) + "}"
            case "sign":
                return f"({rng.choice(['-', 'not '])}{value(depth + 1)})"
            case "index":
                return f"{value(3)}[{value(3)}]"
        name = rng.choice(["f", "f", "pick", "sort", "counted", "s.f", "len", "sorted", "refuse"])
        return f"{name}({', '.join(value(depth + 1) for _ in range(rng.randint(0, 2)))})"

    def statement() -> str:
        sign = rng.choice(["==", "==", "!=", "<", ">=", "in"])
        return rng.choice([f"assert {value()} {sign} {value()}", f"x = {value()}", value(), f"assert {value()}"])

    cases = []
    for _ in range(150):
        lines = ["from solution import f, pick, sort, counted, refuse", "import solution as s", "x = 3"]
        lines += [statement() for _ in range(rng.randint(1, 3))]
        cases.append((MODULE, "\n".join(f"{line}" for line in lines), How.SCRIPT))
    assert sum(read(test, "solution", "script") is not None for _, test, _ in cases) > 140
    assert differences(cases) == {}


@pytest.mark.parametrize(
    "test",
    [
        "from solution import *\nassert f(1) == 2",
        "import os\nassert True",
        "assert '{0.__class__}'.format(1)",
        "import solution\nsolution = 1\nassert solution.real == 1",
        "import solution\nassert solution.__dict__",
        "import solution\nassert [solution.x for solution in [1]]",
        "assert open('x')",
        "assert __import__('os')",
        "assert 2 ** 10 ** 10",
        "assert 'a' * 10 ** 9",
        "assert (lambda: 1)()",
        "x = y = 1",
        "x, y = 1, 2",
        "x += 1",
        "assert f'{1}'",
        "from solution import f\nassert f(*[1])",
        "from solution import f\nassert f(**{})",
        "from solution import f\nassert f(1) is 2",
        "for x in [1]: assert x",
        "while True: pass",
        "class A: pass",
        "try:\n    pass\nexcept Exception: pass",
        "print(1)",
        "y",
        "from .solution import f",
        "from other import f",
        "assert (x := 1)",
        "assert {x for x in [1]}",
        "global x",
        "def test_a(): pass",
    ],
)
def test_what_is_not_plain_is_run(test: str) -> None:
    assert read(test, "solution", "script") is None


@pytest.mark.parametrize(
    "test",
    [
        "def test_a(x): pass",
        "def test_a(): pass\ndef test_a(): pass",
        "@f\ndef test_a(): pass",
        "async def test_a(): pass",
        "x = 1\ndef test_a():\n    x = 2",
        "def test_a():\n    assert x\nx = 1\ny = x\ndef helper(): pass",
        "from solution import tested\ndef test_a(): pass",
        "def test_a():\n    test_b()\ndef test_b(): pass",
        "def test_a():\n    yield",
        "def test_a() -> f(): pass",
    ],
)
def test_functions_that_are_not_plain_are_run(test: str) -> None:
    assert read(test, "solution", "functions") is None


def test_what_is_not_python_is_known_without_running_anything() -> None:
    for text in ("def (", "return 1", "\x00", "(" * 500):
        with pytest.raises(CompileError):
            read(text, "solution", "script")


def test_a_module_that_answers_nonsense_or_never_ends_its_answer_costs_no_more_than_the_time_it_has() -> None:
    nonsense = """
import os
def f(x):
    os.write(6, {answer})  # the way to the worker
    while True: pass
"""
    answers = [
        rb"\x00\x00\x00\x02[]",
        rb"\x00\x00\x00\x09{{\"a\":",
        rb"\x7f\xff\xff\xff",
        rb"\x00\x00\x00\x05[1,2]",
        rb"\x00",
    ]
    limits = Limits(wall_s=0.5, cpu_s=1.0, memory_bytes=256 << 20, scratch_bytes=1 << 20, output_bytes=1 << 14)
    test = "from solution import f\nassert f(1) == 2"
    programs = [Program(nonsense.format(answer=f"b'{a.decode()}'"), test, How.SCRIPT, limits=limits) for a in answers]
    started = time.monotonic()
    found = outcomes(programs)
    assert {r.outcome for r in found} <= {Outcome.TIMEOUT, Outcome.EXITED}
    assert time.monotonic() - started < 5


def test_a_flood_printed_by_the_module_of_a_read_test_is_cut() -> None:
    module = "def f(x):\n    while True: print('x' * 1000)\n"
    (result,) = outcomes([Program(module, "from solution import f\nassert f(1) == 2", How.SCRIPT)])
    assert (result.outcome, result.hit.value, len(result.output)) == (Outcome.KILLED, "output", 16 << 10)


def test_a_read_test_says_where_it_failed() -> None:
    (result,) = outcomes([Program(MODULE, "from solution import f\n\nassert f(1) == 3, 'too low'", How.SCRIPT)])
    assert (result.outcome, result.detail) == (Outcome.ASSERTION, "too low (line 3)")
