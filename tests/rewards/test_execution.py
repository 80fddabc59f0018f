"""What runs earn: every pair of outcomes has its verdict, and the self-play score is the published one."""

from __future__ import annotations

import pytest

from ratchet.rewards.execution import (
    PATCH_VERDICTS,
    TEST_VERDICTS,
    RunOutcome,
    Verdict,
    best_patch,
    confirmed,
    fixes,
    kills,
    reproduces,
    selfplay_scores,
    settle,
    wants_rerun,
)

R = RunOutcome


@pytest.mark.parametrize(
    ("buggy", "fixed", "value", "name"),
    [
        (R.ASSERTION, R.PASSED, 1, "reproduced"),
        (R.EXPECTED, R.PASSED, 1, "reproduced"),
        (R.PASSED, R.PASSED, 0, "not_failing"),
        (R.ASSERTION, R.ASSERTION, 0, "fails_on_fixed"),
        (R.PASSED, R.ASSERTION, 0, "fails_on_fixed"),
        (R.PASSED, R.EXPECTED, 0, "fails_on_fixed"),
        (None, R.ASSERTION, 0, "fails_on_fixed"),
        (None, R.SYNTAX_ERROR, 0, "syntax_error"),
        (R.IMPORT_ERROR, R.PASSED, 0, "import_error"),
        (R.OTHER_EXCEPTION, R.PASSED, 0, "other_exception"),
        (R.TIMEOUT, R.PASSED, 0, "timeout"),
        (R.EXITED, R.PASSED, 0, "exited"),
        (R.ASSERTION, R.EXITED, 0, "exited"),
        (R.ASSERTION, R.TIMEOUT, 0, "timeout"),
        (R.ASSERTION, R.FLAKY, 0, "flaky"),
        (R.FORGED, R.PASSED, 0, "forged"),
    ],
)
def test_a_bug_is_reproduced_by_failing_on_it_and_passing_on_the_fix(
    buggy: RunOutcome | None, fixed: RunOutcome, value: float, name: str
) -> None:
    assert reproduces(buggy, fixed) == Verdict(value, name)


def test_only_two_of_all_pairs_earn_and_every_verdict_is_in_the_list() -> None:
    verdicts = {(buggy, fixed): reproduces(buggy, fixed) for buggy in R for fixed in R}
    assert [pair for pair, verdict in verdicts.items() if verdict.value] == [
        (R.ASSERTION, R.PASSED),
        (R.EXPECTED, R.PASSED),
    ]
    assert {verdict.name for verdict in verdicts.values()} <= set(TEST_VERDICTS)
    assert len(set(TEST_VERDICTS)) == len(TEST_VERDICTS)
    assert len(set(PATCH_VERDICTS)) == len(PATCH_VERDICTS)


def test_a_test_that_passes_on_the_fixed_code_must_be_run_on_the_buggy_code_too() -> None:
    with pytest.raises(ValueError, match="is needed"):
        reproduces(None, R.PASSED)


@pytest.mark.parametrize(
    ("outcomes", "value", "name"),
    [
        ([R.PASSED, R.PASSED], 1, "fixed"),
        ([R.PASSED, R.ASSERTION, R.TIMEOUT], 0, "fails_tests"),
        ([R.TIMEOUT, R.ASSERTION], 0, "timeout"),
        ([R.EXPECTED], 0, "fails_tests"),
        ([], 0, "no_test"),
    ],
)
def test_a_patch_fixes_if_every_hidden_test_passes(outcomes: list[RunOutcome], value: float, name: str) -> None:
    assert fixes(outcomes) == Verdict(value, name)
    assert name in PATCH_VERDICTS


def test_outcomes_are_known_by_name_and_an_unknown_one_earns_nothing() -> None:
    assert RunOutcome.named("PASSED") is R.PASSED
    assert RunOutcome.named("import_error") is R.IMPORT_ERROR
    assert RunOutcome.named("won") is R.BROKEN
    assert reproduces(R.BROKEN, R.PASSED).value == 0


def test_runs_that_disagree_are_flaky_and_those_the_machine_spoilt_are_left_out() -> None:
    assert settle([R.PASSED]) is R.PASSED
    assert settle([R.ASSERTION, R.PASSED]) is R.FLAKY
    assert settle([R.TIMEOUT, R.PASSED]) is R.PASSED
    assert settle([R.TIMEOUT, R.TIMEOUT]) is R.TIMEOUT
    assert settle([R.TIMEOUT, R.MEMORY]) is R.FLAKY
    with pytest.raises(ValueError, match="nothing to settle"):
        settle([])


def test_only_unsure_outcomes_are_run_again_and_not_for_ever() -> None:
    assert wants_rerun([R.TIMEOUT], most=2)
    assert not wants_rerun([R.TIMEOUT, R.TIMEOUT], most=2)
    assert not wants_rerun([R.ASSERTION], most=2)
    assert not wants_rerun([R.TIMEOUT, R.PASSED], most=9)


def test_a_verdict_that_does_not_come_again_is_flaky() -> None:
    good = Verdict(1.0, "reproduced")
    assert confirmed(good, [good, good]) == good
    assert confirmed(good, []) == good
    assert confirmed(good, [good, Verdict(0.0, "not_failing")]) == Verdict(0.0, "flaky")


def test_a_mutant_is_killed_by_a_failure_only() -> None:
    assert kills([R.ASSERTION, R.PASSED, R.TIMEOUT, R.EXPECTED, R.IMPORT_ERROR]) == 2
    assert kills([]) == 0


def test_the_selfplay_score_of_two_patches_by_hand() -> None:
    # Test files: the first fails 2 and passes 3 without a patch, the second 1 and 1, the third fails nothing.
    failing, passing = [2, 1, 0], [3, 1, 7]
    # Patch 0 repairs 1 of 3 and keeps 4 of 4; patch 1 repairs 3 of 3 and keeps 2 of 4.
    scores = selfplay_scores(failing, passing, [[1, 0, 0], [2, 1, 0]], [[3, 1, 0], [1, 1, 7]])
    assert scores == pytest.approx([1 / 3 + 4 / 4, 3 / 3 + 2 / 4])
    assert best_patch(scores) == 1


def test_the_selfplay_score_without_failing_or_passing_tests() -> None:
    assert selfplay_scores([0, 0], [4, 1], [[0, 0]], [[4, 1]]) == [0.0]
    # Tests of one assertion each: none of those that fail also passes, so the second part is 0.
    assert selfplay_scores([1, 1], [0, 0], [[1, 1], [1, 0]], [[0, 0], [0, 0]]) == [1.0, 0.5]
    assert selfplay_scores([1], [0], [], []) == []


def test_of_equal_patches_the_first_is_chosen() -> None:
    assert best_patch([0.5, 1.0, 1.0]) == 1
    with pytest.raises(ValueError, match="no patch"):
        best_patch([])
