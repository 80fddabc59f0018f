"""What a source does with inputs, seen from outside the sandbox; and what is no pure function there."""

from __future__ import annotations

import ast
import random

import pytest
from borrowed import in_sandbox

from ratchet.bugs.allowed import Reason, Refused
from ratchet.bugs.cases import LEAST, MOST, Cases, cases_of
from ratchet.bugs.closure import OneFile
from ratchet.bugs.kinds import signature_of
from ratchet.bugs.known import Call
from ratchet.bugs.measure import Ran, Runs

NUMBERS = [[n] for n in range(6)]


def ran(source: str, inputs: list[list[object]] = NUMBERS, cpu_s: float = 0.0) -> Ran:
    return in_sandbox(lambda runs: runs.run(source, "f", inputs, cpu_s))


def whats(run: Ran) -> list[str]:
    return [result.what for result in run.results]


def test_one_run_reports_on_many_inputs() -> None:
    source = (
        "def f(x):\n"
        "    print('noise', end='')\n"
        "    x.sort()\n"
        "    if not x: raise KeyError(1)\n"
        "    return x if x[0] else {1: 2} if len(x) > 1 else object()\n"
    )
    found = ran(source, [[[2, 1]], [[1]], [[]], [[0, 1]], [[0]]])
    assert not found.ended
    assert [(r.what, r.value, r.changed) for r in found.results] == [
        ("value", [1, 2], True),
        ("value", [1], False),
        ("raised", "KeyError", False),
        ("other", "dict", False),
        ("foreign", "object", False),
    ]


@pytest.mark.parametrize(
    ("body", "ended", "expected"),
    [
        ("while x == 3: pass", "timeout", ["value", "value", "value", "lost"]),
        ("if x == 3: import sys; sys.exit()", "", ["value"] * 3 + ["raised"] + ["value"] * 2),
        ("if x == 3: import os; os._exit(0)", "exited", ["value"] * 3),
        ("if x == 3: bytearray(1 << 40)", "", ["value"] * 3 + ["raised"] + ["value"] * 2),
    ],
)
def test_a_mutant_that_hangs_leaves_or_takes_all_memory_is_seen(body: str, ended: str, expected: list[str]) -> None:
    found = ran(f"def f(x):\n    {body}\n    return x\n", cpu_s=0.1)
    assert (found.ended, whats(found)) == (ended, expected)


def test_a_loop_below_the_interpreter_ends_too() -> None:
    found = ran("from itertools import count\ndef f(x):\n    return sum(count()) if x == 1 else x\n", cpu_s=0.1)
    assert found.ended
    assert whats(found) == ["value"]


def test_the_cpu_time_of_a_run_is_told() -> None:
    source = "def f(x):\n    return sum(range(5_000_000))\n"
    assert in_sandbox(lambda runs: runs.run(source, "f", [[1]]), timeout_s=4.0).cpu_s > 0.02


def test_a_source_that_cannot_be_loaded_says_so() -> None:
    assert ran("1 / 0\ndef f(x): return x\n").ended == "import_error"
    assert ran("def f(x: return x\n").ended == "syntax_error"


def test_inputs_on_which_the_fixed_source_hangs_or_dies_are_set_aside() -> None:
    source = "import os\ndef f(x):\n    if x == 1: os._exit(0)\n    while x == 3: pass\n    return x\n"
    found = in_sandbox(lambda runs: runs.settle(source, "f", NUMBERS, 3))
    assert not found.ended
    assert whats(found) == ["value", "lost", "value", "lost", "value", "value"]


def test_a_function_that_hangs_on_most_inputs_is_given_up() -> None:
    found = in_sandbox(lambda runs: runs.settle("def f(x):\n    while True: pass\n", "f", NUMBERS, 2))
    assert (found.ended, whats(found)) == ("timeout", ["lost", "lost"])


def test_a_second_run_is_another_interpreter_with_the_inputs_reversed() -> None:
    source = "CALLS = []\ndef f(x):\n    CALLS.append(x)\n    return [x, len(CALLS), hash('a') % 1000]\n"

    async def both(runs: Runs) -> tuple[Ran, Ran]:
        return await runs.run(source, "f", NUMBERS), await runs.run_apart(source, "f", NUMBERS)

    here, apart = in_sandbox(both)
    assert not here.ended
    assert not apart.ended
    assert [r.value[:2] for r in here.results] == [[n, n + 1] for n in range(6)]
    assert [r.value[:2] for r in apart.results] == [[n, 6 - n] for n in range(6)]
    assert here.results[0].value[2] != apart.results[0].value[2]


def test_nothing_of_the_network_or_of_the_users_files_is_there(tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1")
    source = (
        "import os, socket\n"
        "def f(x):\n"
        f"    if x == 0: return os.path.exists({str(secret)!r})\n"
        "    try:\n"
        "        socket.create_connection(('127.0.0.1', 22), 0.1)\n"
        "    except ConnectionRefusedError:\n"
        "        return 'reached'\n"
        "    except OSError:\n"
        "        return 'no network'\n"
    )
    found = ran(source, [[0], [1]])
    assert found.results[0].value is False
    assert found.results[1].value in ("no network", "reached")  # a network namespace has a loopback of its own


# --- cases


def cases(source: str, calls: tuple[Call, ...] = ()) -> Cases:
    (node,) = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
    file = OneFile(source, node.name)
    return in_sandbox(lambda runs: cases_of(runs, file, signature_of(node), calls, random.Random(0)))


def test_cases_are_what_people_wrote_and_what_was_drawn_each_with_the_result_of_running() -> None:
    found = cases("def f(x: int, y=2):\n    return x * y\n", (Call((3,)), Call((4,), (("y", 5),))))
    assert [(c.args, c.expected, c.is_own) for c in found.cases[:2]] == [([3], 6, True), ([4, 5], 20, True)]
    assert LEAST < len(found.cases) <= MOST
    assert all(c.expected == c.args[0] * (c.args[1] if len(c.args) > 1 else 2) for c in found.cases)
    assert found.level == 0


def test_tuples_and_iterators_are_compared_as_lists() -> None:
    assert cases("def f(x: int):\n    return x, -x\n").level == 1
    assert cases("def f(x: list[int]):\n    return zip(x, x[1:])\n").level == 2


def test_the_kind_of_an_argument_is_found_by_trying() -> None:
    # It looks as if it took a list.
    source = "def f(x):\n    total = 0\n    for key in x:\n        total += x[key]\n    return total\n"
    assert {type(c.args[0]) for c in cases(source).cases} == {dict}
    source = "def f(x):\n    return x + 1\n"
    assert {type(c.args[0]) for c in cases(source).cases} == {int, float}
    source = "def f(x):\n    return len(x)\n"
    assert {type(c.args[0]) for c in cases(source, (Call(("word",)),)).cases} == {str}


def test_a_function_that_is_slow_on_large_numbers_is_asked_with_small_ones() -> None:
    found = cases("def f(x: int):\n    while x > 40: pass\n    return x\n", (Call((39,)), Call((99,))))
    assert [39] in [c.args for c in found.cases]
    assert max(c.args[0] for c in found.cases if c.args != [39]) == 12


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(x: list):\n    x.append(1)\n    return x\n", Reason.CHANGES),
        ("def f(x: int):\n    return 1\n", Reason.CONSTANT),
        ("def f(x: int):\n    raise ValueError\n", Reason.NO_INPUT),
        ("def f(x: int):\n    return {x}\n", Reason.RESULT),
        ("def f(x: int):\n    return object()\n", Reason.RESULT),
        ("import random\ndef f(x: int):\n    return random.random()\n", Reason.UNSTABLE),
        ("import time\ndef f(x: int):\n    return time.perf_counter_ns()\n", Reason.UNSTABLE),
        ("SEEN = []\ndef f(x: int):\n    SEEN.append(x)\n    return len(SEEN)\n", Reason.UNSTABLE),
        ("def f(x: list[str]):\n    return list(set(x))\n", Reason.UNSTABLE),
        ("def f(x: int):\n    while True: pass\n", Reason.SLOW),
        ("import nothing_like_this\ndef f(x: int):\n    return x\n", Reason.BROKEN),
    ],
)
def test_a_function_that_is_not_pure_or_not_testable_is_refused_by_running_it(source: str, reason: Reason) -> None:
    with pytest.raises(Refused) as caught:
        cases(source)
    assert caught.value.reason is reason


def test_a_function_that_does_not_do_what_its_doctest_shows_is_no_fixed_source() -> None:
    source = "def f(x: int):\n    return x + 1\n"
    with pytest.raises(Refused, match="3"):
        cases(source, (Call((2,), (), 4, True),))
    assert cases(source, (Call((2,), (), 3, True),)).cases[0].is_own


def test_the_same_seed_gives_the_same_cases() -> None:
    source = "def f(x, y):\n    return [x, y]\n"
    assert cases(source).cases == cases(source).cases
