"""The numbers of a team's work, by hand."""

from __future__ import annotations

import pytest

from ratchet.rewards.parallel import (
    AgentRun,
    Ended,
    Stage,
    critical_steps,
    duplicates,
    finish_rate,
    parallel_term,
    parallelism,
    team_metrics,
    total_steps,
    work_over_span,
)


def run(prompt: str, steps: int = 1, ended: Ended = Ended.FINISHED, work: int | None = None) -> AgentRun:
    return AgentRun("r", prompt, ended, steps, steps if work is None else work, tokens=10, seconds=0.5)


STAGES = [
    Stage((run("a", 2), run("b", 5), run("c", 1, Ended.TIMEOUT))),  # 1 + 5 critical, 1 + 8 in all
    Stage(),  # a tool call of its own: 1
    Stage((run("a", 3, work=7),)),  # 1 + 3 critical, 1 + 7 in all
    Stage(),  # the answer: 1
]


def test_critical_steps_take_the_longest_agent_of_each_stage() -> None:
    assert critical_steps(STAGES) == 6 + 1 + 4 + 1
    assert total_steps(STAGES) == 9 + 1 + 8 + 1
    assert work_over_span(STAGES) == pytest.approx(19 / 12)
    assert critical_steps([]) == 0
    assert work_over_span([]) == 1


def test_parallelism_is_the_mean_over_stages_that_launch() -> None:
    assert parallelism(STAGES) == (3 + 1) / 2
    assert parallelism([Stage(), Stage()]) == 0


def test_finished_tasks_are_counted_among_the_assigned() -> None:
    assert finish_rate(STAGES) == 3 / 4
    assert finish_rate([Stage()]) == 0


def test_the_same_task_twice_is_a_duplicate_and_is_paid_once() -> None:
    assert duplicates(STAGES) == 1
    assert parallel_term(STAGES, 24) == 3 / 24
    assert parallel_term(STAGES, 2) == 1


def test_the_metrics_of_a_rollout_name_every_way_to_end() -> None:
    facts = team_metrics(STAGES, tokens=7, seconds=1.5)
    assert facts["assigned"] == 4
    assert facts["tokens/agents"] == 40
    assert {f"agents/{how.value}" for how in Ended} <= facts.keys()
    assert (facts["agents/finished"], facts["agents/timeout"]) == (3, 1)
    assert "finish_rate" not in team_metrics([Stage()], tokens=1, seconds=0.1), "nothing was assigned"
