"""What a check says, for every way a test can end; and that nothing of one check is left for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ratchet.config.schema import SandboxSection
from ratchet.core.errors import ConfigError
from ratchet.sandbox.bubblewrap import BubblewrapBox
from ratchet.sandbox.choose import limits_of, open_jails
from ratchet.sandbox.linux import LinuxBox, UnsafeBox
from ratchet.sandbox.pool import CheckPool
from ratchet.sandbox.program import CheckResult, How, Outcome, Program

MODULE = """
LIMIT = 7
class Refused(ValueError):
    pass
def f(x):
    return x + 1
def refuse(x):
    raise Refused("not", x)
def asserts():
    assert False
def sort(xs):
    xs.sort()
    return xs
def count():
    yield from range(3)
def everything(x):
    return x
def _hidden():
    pass
def opaque():
    return object()
"""


def jails() -> BubblewrapBox | LinuxBox | UnsafeBox:
    try:
        return open_jails(SandboxSection())
    except ConfigError as error:
        pytest.skip(str(error))


def check(*programs: Program, workers: int = 2) -> list[CheckResult]:
    async def run() -> list[CheckResult]:
        box = jails()
        async with CheckPool(SandboxSection(workers=workers), box) as pool:
            results = await asyncio.gather(*(pool.check(p) for p in programs))
        box.close()
        return results

    return asyncio.run(run())


def program(body: str, how: How = How.SCRIPT, module: str = MODULE, expected: Sequence[str] = ()) -> Program:
    return Program(module, f"import solution\nfrom solution import *\n{body}", how, expected=expected)


def test_every_way_to_end_has_its_name() -> None:
    cases = {
        "assert solution.f(1) == 2": Outcome.PASSED,
        "assert solution.f(1) == 3": Outcome.ASSERTION,
        "solution.refuse(1)": Outcome.OTHER_EXCEPTION,
        "solution.asserts()": Outcome.OTHER_EXCEPTION,
        "solution.opaque()": Outcome.OTHER_EXCEPTION,
        "1 / 0": Outcome.OTHER_EXCEPTION,
        "from solution import missing": Outcome.IMPORT_ERROR,
        "import no_such_module": Outcome.IMPORT_ERROR,
        "solution._hidden()": Outcome.OTHER_EXCEPTION,
        "def (": Outcome.SYNTAX_ERROR,
        "x = bytearray(1 << 40)": Outcome.MEMORY,
        "raise SystemExit": Outcome.EXITED,
        "import os; os._exit(0)": Outcome.EXITED,
        "print('x' * 100_000)": Outcome.KILLED,
    }
    results = check(*(program(body) for body in cases))
    assert {b: r.outcome for b, r in zip(cases, results, strict=True)} == cases
    assert all(r.apart for r in results)


def test_a_test_without_end_is_killed_within_its_limit() -> None:
    (result,) = check(program("while True: pass"))
    assert result.outcome is Outcome.TIMEOUT
    assert result.seconds < limits_of(SandboxSection()).wall_s + 1


def test_declared_exceptions_count_as_expected_by_their_own_name_or_that_of_a_base() -> None:
    by_name, by_base, other = check(
        program("solution.refuse(1)", expected=["Refused"]),
        program("solution.refuse(1)", expected=["ValueError"]),
        program("solution.refuse(1)", expected=["KeyError"]),
    )
    assert (by_name.outcome, by_base.outcome) == (Outcome.EXPECTED, Outcome.EXPECTED)
    assert (other.outcome, other.name) == (Outcome.OTHER_EXCEPTION, "Refused")


def test_a_module_that_cannot_be_loaded_is_told_from_a_test_that_fails() -> None:
    raises, broken = check(program("", module="1 / 0"), program("", module="def ("))
    assert (raises.outcome, broken.outcome) == (Outcome.IMPORT_ERROR, Outcome.SYNTAX_ERROR)


def test_nothing_tested_is_not_passed() -> None:
    functions, pytests = check(program("x = 1", How.FUNCTIONS), program("x = 1", How.PYTEST))
    assert (functions.outcome, pytests.outcome) == (Outcome.NO_TEST, Outcome.NO_TEST)


def test_across_the_border_values_arguments_iterators_and_exceptions_are_what_they_were() -> None:
    body = """
import collections, math
for value in (None, True, -1, 10 ** 5000, 0.1, "\\ud800é", b"\\x00", [1, [2]], (1,), {1: "a", (2,): None}, {1, 2},
              frozenset("a"), 1j, range(3, 9, 2), bytearray(b"x"), collections.Counter("aab"), collections.deque([1])):
    back = everything(value)
    assert back == value and type(back) is type(value), (value, back)
assert math.isnan(everything(float("nan"))) and everything(float("-inf")) == -math.inf
xs = [3, 1, 2]
assert sort(xs) is xs and xs == [1, 2, 3]
assert list(count()) == [0, 1, 2] and LIMIT == 7
try:
    refuse(5)
except Refused as error:
    assert error.args == ("not", 5) and isinstance(error, ValueError)
else:
    assert False
"""
    (result,) = check(program("from solution import f, refuse, Refused, sort, count, everything, LIMIT\n" + body))
    assert result.outcome is Outcome.PASSED, result


def test_pytest_runs_fixtures_and_marks_and_rewrites_assertions() -> None:
    body = """
import pytest
@pytest.fixture
def one(): return 1
@pytest.mark.parametrize("n", [1, 2])
def test_f(one, n, tmp_path):
    (tmp_path / "x").write_text("y")
    assert solution.f(n) == n + one
    with pytest.raises(ValueError): solution.refuse(1)
"""
    passed, failed = check(
        program(body, How.PYTEST), program("def test_f(): assert [solution.f(1), 5] == [2, 6]", How.PYTEST)
    )
    assert (passed.outcome, passed.tests) == (Outcome.PASSED, 2), passed
    assert failed.outcome is Outcome.ASSERTION
    assert "At index 1" in failed.detail


def test_only_the_entry_points_are_shown() -> None:
    only_f = Program(MODULE, "import solution\nassert not hasattr(solution, 'sort')", How.SCRIPT, entry_points=["f"])
    assert check(only_f)[0].outcome is Outcome.PASSED


def test_in_one_interpreter_objects_cross_and_the_result_says_so() -> None:
    together = Program(MODULE, "import solution\nassert solution.opaque()", How.SCRIPT, apart=False)
    (result,) = check(together)
    assert (result.outcome, result.apart) == (Outcome.PASSED, False)


def test_cancelling_a_check_kills_it_and_the_pool_goes_on() -> None:
    async def run() -> tuple[CheckResult, int]:
        box = jails()
        async with CheckPool(SandboxSection(workers=1, wall_s=30), box) as pool:
            hanging = asyncio.create_task(pool.check(program("while True: pass")))
            await pool.check(program("", How.PYTEST))  # the other kind of worker: by then the first one hangs
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            result = await pool.check(program("assert solution.f(1) == 2"))
            replaced = pool.replaced
        assert not list(box.leases)
        box.close()
        return result, replaced

    result, replaced = asyncio.run(run())
    assert (result.outcome, replaced) == (Outcome.PASSED, 1)
