"""Runs a test and names what became of it, in the test's own process: what it says is that process's word."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence

from ratchet.sandbox.inside.codec import CannotCross
from ratchet.sandbox.inside.remote import Client, ModuleFailed

Verdict = dict[str, object]
TEST_FILE = "test_program.py"


class Judge:
    """Names exceptions by what they mean."""

    def __init__(self, expected: Sequence[str], module_file: str, client: Client | None) -> None:
        self._expected, self._module_file, self._client = frozenset(expected), module_file, client

    def run(self, work: Callable[[], int]) -> Verdict:
        """Return what became of `work`, which returns how many tests it ran."""
        try:
            return self.told(None, work())
        except BaseException as error:
            return self.told(error)

    def told(self, error: BaseException | None, tests: int = 0, line: int = 0) -> Verdict:
        """Return the verdict on a test that ended with `error`, on this line if the error itself does not know."""
        if self._client and self._client.crossed:
            return {"outcome": "other_exception", "name": "CannotCross", "detail": self._client.crossed}
        if error is None:
            return {"outcome": "passed" if tests else "no_test", "tests": tests}
        name = type(error).__name__
        return {"outcome": self._outcome(error), "name": name, "detail": _detail(error, line)}

    def _outcome(self, error: BaseException) -> str:
        remote = bool(self._client and id(error) in self._client.seen)
        bases = [base.__name__ for base in type(error).__mro__]
        if isinstance(error, ModuleFailed):
            return "syntax_error" if "SyntaxError" in error.bases else "import_error"
        if not self._expected.isdisjoint(bases):
            return "expected"
        match error:
            case AssertionError():
                return "other_exception" if remote or self._in_module(error) else "assertion"
            case SystemExit():
                return "exited"
            case MemoryError():
                return "memory"
            case ImportError() if not remote:
                return "import_error"
            case CompileError():
                return "syntax_error"
            case CannotCross():
                return "other_exception"
        return "other_exception"

    def _in_module(self, error: BaseException) -> bool:
        trace, last = error.__traceback__, None
        while trace is not None:
            last, trace = trace, trace.tb_next
        return bool(last and last.tb_frame.f_code.co_filename == self._module_file)


def _detail(error: BaseException, line: int) -> str:
    """Return the message and the line of the test; the text of an error is a stranger's code, and may fail."""
    try:
        text = str(error)[:500]
    except BaseException as other:
        text = f"(its text raised {type(other).__name__})"
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(TEST_FILE):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{text} (line {line})" if line else text


class CompileError(Exception):
    """The source is not Python."""


def compiled(source: str, filename: str) -> types.CodeType:
    """Return the code of `source`. **Raises** `CompileError`."""
    try:
        return compile(source, filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError) as error:
        raise CompileError(f"{error}") from None


def run_source(source: str, how: str) -> int:
    """Run a test's source, and with `how` "functions" the functions test_* in it; return how many tests that was."""
    module = types.ModuleType("__main__" if how == "script" else "test_program")
    sys.modules[module.__name__] = module
    exec(compiled(source, TEST_FILE), module.__dict__)
    if how == "script":
        return 1
    tests = [v for k, v in list(module.__dict__.items()) if k.startswith("test") and callable(v)]
    for test in tests:
        test()
    return len(tests)
