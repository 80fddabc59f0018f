"""A real pytest run within a warm process: the first failure decides, as everywhere."""

from __future__ import annotations

import os

import pytest

from ratchet.sandbox.inside.verdict import TEST_FILE, Judge, Verdict, compiled

FLAGS = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--import-mode=importlib", "-c", os.devnull]


class _Recorder:
    """Sees the outcome of every test, and the exception itself of the first failure."""

    def __init__(self) -> None:
        self.passed = 0
        self.error: BaseException | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.when == "call" and report.passed

    def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
        if self.error is None and call.excinfo is not None:
            error = call.excinfo.value
            self.error = error.__cause__ or error if isinstance(error, pytest.Collector.CollectError) else error


class CollectionFailed(ImportError):
    """pytest could not make tests of the file."""


def run(source: str, judge: Judge) -> Verdict:
    """Write the test into the current folder, run pytest on it, and return the verdict."""
    compiled(source, TEST_FILE)
    with open(TEST_FILE, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(source)
    recorder = _Recorder()
    code = pytest.main([*FLAGS, f"--rootdir={os.getcwd()}", TEST_FILE], plugins=[recorder])
    if recorder.error is not None:
        return judge.told(recorder.error)
    if code == pytest.ExitCode.OK:
        return judge.told(None, recorder.passed)
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        return judge.told(None, 0)
    return judge.told(CollectionFailed(f"pytest ended with exit code {int(code)}"))


def warm() -> None:
    """Run pytest once on nothing, so that all it imports is there."""
    pytest.main(["-q", "--version"])
