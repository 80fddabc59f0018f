"""What runs of code earn: tests that reproduce a bug, patches that fix it, and the choice among patches by tests.

Pure functions over the outcomes of runs; what runs the code is the business of `sandbox`, and its outcomes come here
by name. Every pair of outcomes has a verdict with a name of its own, so that each way to fail can be counted.

**Source**: Kimi-Dev (arXiv 2509.23045): binary rewards by execution alone, and its self-play score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class RunOutcome(StrEnum):
    """How the run of a program with a test ended."""

    PASSED = "passed"
    ASSERTION = "assertion"
    """An assertion of the test failed."""
    EXPECTED = "expected"
    """The exception was raised that the task declares to be the bug's symptom."""
    OTHER_EXCEPTION = "other_exception"
    IMPORT_ERROR = "import_error"
    SYNTAX_ERROR = "syntax_error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    NO_TEST = "no_test"
    """Nothing was tested."""
    KILLED = "killed"
    EXITED = "exited"
    """It ended the process instead of coming to its end."""
    FORGED = "forged"
    """It wrote into the channel of the verdict."""
    FLAKY = "flaky"
    """Runs of the same program ended differently: see `settle`."""
    BROKEN = "broken"
    """Any other end, such as a box that could not be made."""

    @classmethod
    def named(cls, name: str) -> RunOutcome:
        """Return the outcome of that name in any case; `BROKEN` for one that is not known here."""
        try:
            return cls(name.lower())
        except ValueError:
            return cls.BROKEN


FAILED = frozenset({RunOutcome.ASSERTION, RunOutcome.EXPECTED})
"""What counts as a test that failed, as opposed to one that could not be run."""

UNSURE = frozenset({RunOutcome.TIMEOUT, RunOutcome.MEMORY, RunOutcome.KILLED, RunOutcome.BROKEN})
"""Outcomes that the machine's load can cause."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer earned, and why."""

    value: float
    name: str


NO_TEST = Verdict(0.0, RunOutcome.NO_TEST.value)
"""The answer holds no test."""
NO_PATCH = Verdict(0.0, "no_patch")
"""The answer holds no edit that applies."""

REPRODUCED, NOT_FAILING, FAILS_ON_FIXED = "reproduced", "not_failing", "fails_on_fixed"
FIXED, FAILS_TESTS = "fixed", "fails_tests"
_ENDS = tuple(o.value for o in RunOutcome if o is not RunOutcome.PASSED and o not in FAILED)
TEST_VERDICTS = (REPRODUCED, NOT_FAILING, FAILS_ON_FIXED, *_ENDS)
"""Every name `reproduces` gives, and that of an answer without a test."""
PATCH_VERDICTS = (FIXED, FAILS_TESTS, NO_PATCH.name, *_ENDS)
"""Every name `fixes` gives, and that of an answer without a patch."""


def reproduces(buggy: RunOutcome | None, fixed: RunOutcome) -> Verdict:
    """Return whether a test reproduces a bug: 1 if it fails on the buggy code and passes on the fixed code.

    To fail means by an assertion or by the exception the task declares. A run that ended otherwise gives the verdict
    its name, the run on the fixed code first; `buggy` may be None if that one did not pass, for it decides alone.
    """
    if fixed in FAILED:
        return Verdict(0.0, FAILS_ON_FIXED)
    if fixed is not RunOutcome.PASSED:
        return Verdict(0.0, fixed.value)
    if buggy is None:
        raise ValueError("the test passes on the fixed code, so the outcome on the buggy code is needed")
    if buggy is RunOutcome.PASSED:
        return Verdict(0.0, NOT_FAILING)
    return Verdict(1.0, REPRODUCED) if buggy in FAILED else Verdict(0.0, buggy.value)


def fixes(outcomes: Sequence[RunOutcome]) -> Verdict:
    """Return whether a patch fixes a bug: 1 if every hidden test passes on the patched code.

    The first outcome that is not a pass gives the verdict its name. No test at all is no proof, and earns nothing.
    """
    if not outcomes:
        return NO_TEST
    first = next((outcome for outcome in outcomes if outcome is not RunOutcome.PASSED), None)
    if first is None:
        return Verdict(1.0, FIXED)
    return Verdict(0.0, FAILS_TESTS if first in FAILED else first.value)


def settle(outcomes: Sequence[RunOutcome]) -> RunOutcome:
    """Return the one outcome that runs of the same program agree on, or `FLAKY`: a reward is never a matter of luck.

    An unsure outcome (the machine was busy, say) followed by others is left out: it was re-run for that reason.
    """
    if not outcomes:
        raise ValueError("there is nothing to settle: no run has ended")
    sure = [outcome for outcome in outcomes if outcome not in UNSURE] or list(outcomes)
    return sure[0] if len(set(sure)) == 1 else RunOutcome.FLAKY


def confirmed(verdict: Verdict, again: Sequence[Verdict]) -> Verdict:
    """Return the verdict if running it all `again` came to the same each time, else a flaky one that earns nothing."""
    if all(other == verdict for other in again):
        return verdict
    return Verdict(0.0, RunOutcome.FLAKY.value)


def wants_rerun(outcomes: Sequence[RunOutcome], *, most: int) -> bool:
    """Return whether the program is to be run once more, `most` times in all: if only unsure outcomes are there."""
    return len(outcomes) < most and all(outcome in UNSURE for outcome in outcomes)


def kills(outcomes: Sequence[RunOutcome]) -> int:
    """Return how many mutants of the fixed code a test kills: on how many it fails.

    The audit of false positives: a test that reproduces the bug but kills few other mutants shows little of what the
    code should do. A mutant on which the test cannot be run is not killed.
    """
    return sum(outcome in FAILED for outcome in outcomes)


def selfplay_scores(
    failing: Sequence[int], passing: Sequence[int], repaired: Sequence[Sequence[int]], kept: Sequence[Sequence[int]]
) -> list[float]:
    """Return the self-play score S of each patch; the patch with the highest is chosen.

    F(j) = `failing[j]` and P(j) = `passing[j]` count test file j's tests without a patch; FP(i, j) = `repaired[i][j]`
    those that patch i turns from failing to passing, PP(i, j) = `kept[i][j]` those that pass either way. Then
    S_i = sum_j FP(i, j) / sum_j F(j) + sum_j PP(i, j) / sum_j P(j), where a part with denominator 0 is 0. Test files
    that fail nothing without a patch are left out: they do not reproduce the bug.

    **Source**: Kimi-Dev (arXiv 2509.23045), its test-time self-play.
    """
    counted = [j for j, count in enumerate(failing) if count > 0]
    all_failing, all_passing = sum(failing[j] for j in counted), sum(passing[j] for j in counted)

    def share(row: Sequence[int], whole: int) -> float:
        return sum(row[j] for j in counted) / whole if whole else 0.0

    return [share(fp, all_failing) + share(pp, all_passing) for fp, pp in zip(repaired, kept, strict=True)]


def best_patch(scores: Sequence[float]) -> int:
    """Return the place of the highest score, the first of equals: the first patch is the greedy one."""
    if not scores:
        raise ValueError("there is no patch to choose")
    return max(range(len(scores)), key=lambda i: (scores[i], -i))
