"""A check: a module, a test of it, and what became of the test. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ratchet.sandbox.box import MEBIBYTE, LimitHit, Limits

CHECK_LIMITS = Limits(
    wall_s=2.0,
    cpu_s=2.0,
    memory_bytes=256 * MEBIBYTE,
    processes=8,
    file_bytes=4 * MEBIBYTE,
    scratch_bytes=8 * MEBIBYTE,
    open_files=64,
    output_bytes=16 << 10,
)
"""What one check may use if nothing else is said: each of its two processes, wall and output together."""


class How(StrEnum):
    """How the source of a test is run."""

    FUNCTIONS = "functions"
    """Its functions test_*, without arguments, in their order, up to the first that fails."""
    SCRIPT = "script"
    """From top to bottom, with assertions where they stand."""
    PYTEST = "pytest"
    """By pytest, with fixtures and rewritten assertions, up to the first failure."""


@dataclass(frozen=True, slots=True)
class Program:
    """One test to be run on one version of a module."""

    module: str
    """Source of the module under test."""
    test: str
    """Source of the test; it imports the module by its name."""
    how: How = How.FUNCTIONS
    name: str = "solution"
    """Name of the module."""
    entry_points: Sequence[str] = ()
    """Names of the module that the test may see; empty shows all that are public. Only with `apart`."""
    expected: Sequence[str] = ()
    """Names of exceptions (or of their bases) that count as EXPECTED."""
    apart: bool = True
    """Run the module and the test in processes of their own, between which plain data crosses. Without it both are in
    one interpreter, where either can rewrite the other: use that only if both have one author, or neither gains."""
    may_read: bool = True
    """Judge a test that is nothing but assertions on calls with plain values by reading it, in half the time. Off, it
    is run like any other; the verdict is the same."""
    limits: Limits = field(default=CHECK_LIMITS)


class Outcome(StrEnum):
    """What became of a check."""

    PASSED = "passed"
    """At least one test ran, and all came to their end."""
    ASSERTION = "assertion"
    """An assertion of the test failed; one of the module does not count as such."""
    EXPECTED = "expected"
    """An exception that the program declares."""
    OTHER_EXCEPTION = "other_exception"
    """Any other exception: `CheckResult.name`. "CannotCross": a value was not plain data."""
    IMPORT_ERROR = "import_error"
    """The module could not be loaded, or the test imports what is not there."""
    SYNTAX_ERROR = "syntax_error"
    """The test or the module is not Python."""
    NO_TEST = "no_test"
    """Nothing failed because nothing was tested."""
    TIMEOUT = "timeout"
    """Out of wall or CPU time."""
    MEMORY = "memory"
    """A MemoryError, or killed by the kernel for memory."""
    KILLED = "killed"
    """Ended by a signal, or killed for printing too much (`CheckResult.hit`)."""
    EXITED = "exited"
    """The test or the module left before the end: sys.exit, os._exit, or a closed channel."""
    FORGED = "forged"
    """What came as a report is not one: something wrote into the channel."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What became of a check. Nothing in it is an error of the pool."""

    outcome: Outcome
    name: str
    """Type of the exception, or name of the signal; empty if there was none."""
    detail: str
    """One line for a person: the exception's text and the line of the test. Written by strangers."""
    output: str
    """What both processes printed, cut at `Limits.output_bytes`. Written by strangers, and never read for a verdict."""
    seconds: float
    """Wall-clock seconds in the worker, waiting for one not counted."""
    peak_bytes: int
    """Resident memory of the larger of the two processes, what it shares with the worker included."""
    hit: LimitHit
    apart: bool
    """Whether module and test could not touch each other."""
    tests: int = 0
    """Tests that ran to their end, if the check passed."""
