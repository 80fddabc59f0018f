"""The reward probe: what it finds in rewards that are right, generous, broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Split, Task
from ratchet.environments.arithmetic import Arithmetic
from ratchet.environments.judge import Judge
from ratchet.rewards.errors import RewardTimeout
from ratchet.rewards.probe import GOLD, JUNK, WRONG, ProbeRow, probe, verdict

TASKS = [Task("fake", (Message("user", f"what is {i}?"),), answer=f"<{i}>") for i in range(10)]


@dataclass(frozen=True)
class Fake:
    """An environment whose reward is any function of task and text."""

    reward: Callable[[Task, str], float]
    name: str = "fake"

    def num_tasks(self, split: Split) -> int | None:
        return len(TASKS)

    def task(self, split: Split, index: int) -> Task:
        return TASKS[index]

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        raise NotImplementedError

    async def score(self, task: Task, text: str) -> Score:
        return Score(self.reward(task, text))

    def gold(self, task: Task) -> str:
        return task.answer


class Unprobed:
    """An environment without score and gold."""

    name = "unprobed"

    def num_tasks(self, split: Split) -> int | None:
        return None

    def task(self, split: Split, index: int) -> Task:
        return TASKS[index]

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        raise NotImplementedError


def rows_of(reward: Callable[[Task, str], float]) -> list[ProbeRow]:
    return asyncio.run(probe(Fake(reward), TASKS))


def test_a_right_reward_has_a_row_per_probe_and_no_findings() -> None:
    rows = rows_of(lambda task, text: float(text == task.answer))
    assert [row.probe for row in rows] == [GOLD, *JUNK]
    assert [row.mean for row in rows] == [1, 0, 0, 0, 0]
    assert [row.full_share for row in rows] == [1, 0, 0, 0, 0]
    assert verdict(rows) == []


def test_a_reward_of_minus_one_and_plus_one_is_as_right() -> None:
    assert verdict(rows_of(lambda task, text: 1.0 if text == task.answer else -1.0)) == []


@pytest.mark.parametrize("environment", [Arithmetic(), Judge()])
def test_built_in_rewards_pay_the_form_of_a_wrong_answer_only(environment: Arithmetic | Judge) -> None:
    rows = asyncio.run(probe(environment, [environment.task(Split("train", 0), i) for i in range(20)]))
    wrong = rows[-1]
    assert wrong.probe == WRONG
    assert (wrong.mean, wrong.full_share) == (1, 0)
    assert verdict(rows) == []


def test_gold_that_does_not_pay_is_an_error() -> None:
    (finding,) = verdict(rows_of(lambda task, text: 0.0))[:1]
    assert finding.level == "error"
    assert "100% of 10 tasks" in finding.text


def test_one_bad_line_among_many_is_a_warning() -> None:
    row = ProbeRow(GOLD, 0.98, 0.98, 100, 0, "")
    zeros = [ProbeRow(kind, 0, 0, 100, 0, "") for kind in JUNK]
    assert [finding.level for finding in verdict([row, *zeros])] == ["warning"]


def test_a_refusal_that_pays_half_is_a_warning_that_names_it() -> None:
    def generous(task: Task, text: str) -> float:
        return 1.0 if text == task.answer else 0.5 * text.startswith("I cannot")

    (finding,) = verdict(rows_of(generous))
    assert finding.level == "warning"
    assert '"refusal" earns 0.5' in finding.text


def test_longer_is_better_is_found_by_long_junk() -> None:
    findings = verdict(rows_of(lambda task, text: len(text) / 1000))
    assert any('"long junk"' in finding.text for finding in findings)


def test_a_reward_that_hangs_on_junk_is_a_warning() -> None:
    def fragile(task: Task, text: str) -> float:
        if len(text) > 1000:
            raise RewardTimeout("it did not return within 5 s.")
        return float(text == task.answer)

    (finding,) = verdict(rows_of(fragile))
    assert finding.level == "warning"
    assert '"long junk" (10 of 10): it did not return within 5 s.' in finding.text


def test_a_reward_that_always_raises_is_one_error() -> None:
    def broken(task: Task, text: str) -> float:
        raise ZeroDivisionError("oh")

    (finding,) = verdict(rows_of(broken))
    assert finding.level == "error"
    assert "ZeroDivisionError: oh" in finding.text


def test_an_environment_without_score_is_reported_as_not_probed() -> None:
    rows = asyncio.run(probe(Unprobed(), TASKS))
    (finding,) = verdict(rows)
    assert finding.level == "note"
    assert "not probed" in finding.text


def test_tasks_without_a_known_answer_are_left_out() -> None:
    tasks = [*TASKS[:3], Task("fake", (), answer="")]
    rows = asyncio.run(probe(Fake(lambda task, text: float(text == task.answer)), tasks))
    assert {row.num_tasks for row in rows} == {3}
