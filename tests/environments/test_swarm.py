"""The swarm task: what is hidden, what contention does, what is paid, and that its demonstrations can be followed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from statistics import fmean

import pytest

from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Outcome, Reply
from ratchet.core.rollout import StopReason
from ratchet.core.task import Message, Split, Task
from ratchet.core.tools import ToolSpec, written
from ratchet.environments.scripted import ScriptedTeam
from ratchet.environments.swarm import Swarm, said
from ratchet.environments.table import build_environment

TEST = Split("test", seed=0)


class Reader:
    """An agent that reads its document and makes no mistake."""

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        asked = messages[-1].content  # "4 in c? a line with 4"
        label, _, brought = asked.partition(" in ")[2].partition("? ")
        text = label + (" ?" if brought == "busy" else " no" if brought == "nothing" else " yes")
        return Reply(text, len(text), StopReason.END)


def read(labels: str, *, create: bool = True) -> str:
    opening = written("create_subagent", {"name": "r", "system_prompt": "read"}) if create else ""
    return opening + "".join(written("assign_task", {"agent": "r", "prompt": label}) for label in labels)


def played(swarm: Swarm, task: Task, replies: Sequence[str]) -> tuple[Outcome, ScriptedTeam]:
    team = ScriptedTeam(replies, lambda name: Reader())
    return asyncio.run(swarm.run(task, team)), team


def answer(label: str) -> str:
    return f"<answer>{label}</answer>"


def test_a_team_that_reads_everything_finds_the_document_where_nothing_is_lost() -> None:
    swarm = Swarm(reliability=1.0, contention=0.0)
    task = swarm.task(TEST, 3)
    outcome, team = played(swarm, task, [read(task.extras["documents"]), answer(task.answer)])
    heard = [m.content for m in team.asked[1]]
    assert sum(text.startswith(f"{task.answer} yes") for text in heard) == 1
    assert sum(" no" in text for text in heard) == len(task.extras["documents"]) - 1
    assert outcome.score.value == 1.0
    assert outcome.score.parts == {
        "accuracy": 1.0, "finish": 1.0, "parallel": len(task.extras["documents"]) / 24,
    }  # fmt: skip
    assert outcome.metrics["parallelism"] == len(task.extras["documents"])
    assert outcome.metrics["critical_steps"] == 3  # a turn with agents of one step each, and the answer


def test_the_more_documents_a_turn_asks_for_the_fewer_are_served() -> None:
    swarm = Swarm()

    def finished(count: int) -> float:
        rates = []
        for index in range(150):
            task = swarm.task(TEST, index)
            outcome, _ = played(swarm, task, [read(task.extras["documents"][:count]), answer("a")])
            rates.append(outcome.score.parts["finish"])
        return fmean(rates)

    assert finished(2) == pytest.approx(0.75 * (1 - 0.02 * 2), abs=0.09)
    assert finished(20) == pytest.approx(0.75 * (1 - 0.02 * 20), abs=0.05)


def test_a_document_that_was_busy_may_be_asked_for_again_and_another_draw_decides() -> None:
    swarm = Swarm(reliability=0.5, contention=0.0)
    task = swarm.task(TEST, 0)
    replies = [read("a"), *(read("a", create=False) for _ in range(2)), answer("a")]
    heard = set()
    for index in range(20):
        _, team = played(swarm, swarm.task(TEST, index), replies)
        heard |= {tuple(asked[-1].content.split(" ")[1] for asked in team.asked[1:3])}
    assert {("?", "?"), ("?", "no")} <= heard
    again = [played(swarm, task, replies)[1].asked for _ in range(2)]
    assert again[0] == again[1]  # attempts that do the same get the same


def test_reading_one_after_the_other_is_over_the_budget_before_all_are_read() -> None:
    swarm = Swarm()
    task = swarm.task(TEST, 1)
    outcome, team = played(swarm, task, [read("a"), read("b", create=False), answer("c"), answer("c"), answer("c")])
    assert outcome.metrics["critical_steps"] <= 5
    assert len(team.spawned) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [("<answer>k</answer>", "k"), ("so <answer>b</answer>", "b"), ("<answer>k", ""), ("k", ""), ("", "")],
)
def test_only_what_stands_in_the_tags_is_an_answer(text: str, found: str) -> None:
    assert said(text) == found


def test_an_agent_s_task_of_the_warm_start_is_paid_for_its_one_right_reply() -> None:
    swarm = Swarm(agent_share=1.0)
    task = swarm.task(TEST, 0)
    assert asyncio.run(swarm.score(task, task.answer)).value == 1.0
    assert asyncio.run(swarm.score(task, "z no")).value == 0.0


def test_demonstrations_are_turns_that_the_environment_itself_would_have_played() -> None:
    """Each demonstration's own turns, played, bring the results that it shows."""
    swarm = Swarm()
    for index in range(20):
        task = swarm.task(Split("train", seed=0), index)
        shown = swarm.demonstration(task, random.Random(index))
        assert not isinstance(shown, str)
        outcome, team = played(swarm, task, [m.content for m in shown if m.role == "assistant"])
        heard = [[m.content for m in asked if m.role == "tool"] for asked in team.asked[1:]]
        expected: list[list[str]] = []
        for message in shown:
            if message.role == "assistant":
                expected.append([])
            else:
                expected[-1].append(message.content)
        assert heard == expected[:-1]
        assert outcome.metrics["bad_calls"] == 0


def test_bounds_that_are_swapped_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"agents_min = 9 is above agents_max = 3; swap them"):
        build_environment("swarm", {"agents_min": 9, "agents_max": 3, "few_max": 9})
