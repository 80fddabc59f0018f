"""From tasks to groups: every attempt recorded token for token, every failure a status, every limit kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from builders import tiny_policy

from ratchet.core.errors import RunError
from ratchet.core.protocols import Outcome, PolicyHandle, Sampling
from ratchet.core.rollout import Group, Rollout, Score, Status, StopReason
from ratchet.core.task import Message, Split, Task
from ratchet.engines.scripted import ScriptedEngine
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.explore.measure import explore_metrics

TOKENIZER = tiny_policy().tokenizer
Play = Callable[[Task, PolicyHandle], Awaitable[Outcome]]


@dataclass
class Playing:
    """An environment whose attempts a test writes."""

    play: Play
    name: str = "playing"

    def num_tasks(self, split: Split) -> int | None:
        return None

    def task(self, split: Split, index: int) -> Task:
        return Task(self.name, (Message("user", f"q{index}"),))

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        return await self.play(task, policy)


def explore(
    play: Play,
    *,
    answer: Callable[[str, int], str] = lambda prompt, seed: prompt + "!",
    prompts: int = 2,
    samples: int = 2,
    limit_s: float = 30.0,
    context: int = 64,
    max_tokens: int = 20,
) -> tuple[list[Group], ScriptedEngine]:
    engine = ScriptedEngine(TOKENIZER, answer, context=context)
    engine.load({}, 4, "four")
    limits = ExploreLimits(context=context, rollout_timeout_s=limit_s)
    explorer = Explorer(Playing(play), engine, TOKENIZER, Split("train", 0), Sampling(max_tokens), limits)

    async def gather() -> list[Group]:
        return [g async for g in explorer.groups(3, 10, prompts, samples)]

    return asyncio.run(gather()), engine


def only(play: Play, **changes: object) -> Rollout:
    ((group,), _) = explore(play, prompts=1, samples=1, **changes)
    return group.rollouts[0]


async def plain(task: Task, policy: PolicyHandle) -> Outcome:
    return Outcome(Score(float((await policy.chat(task.prompt)).num_tokens)))


def test_groups_come_in_the_order_of_their_tasks_with_every_attempt_recorded() -> None:
    seeds: list[int] = []

    def answer(prompt: str, seed: int) -> str:
        seeds.append(seed)
        return prompt

    groups, engine = explore(plain, answer=answer)
    assert [(g.index, g.step, g.task.prompt[0].content) for g in groups] == [(10, 3, "q10"), (11, 3, "q11")]
    assert [[r.attempt for r in g.rollouts] for g in groups] == [[0, 1], [0, 1]]
    turn = groups[1].rollouts[0].trajectories[0].turns[0]
    assert turn.prompt.tolist() == TOKENIZER.chat([Message("user", "q11")]).tolist()
    assert (turn.text, turn.stop, turn.version, turn.fingerprint) == ("q11", StopReason.END, 4, "four")
    assert len(set(seeds)) == 4, "every attempt draws from a stream of its own"
    again: list[int] = []
    explore(plain, answer=lambda prompt, seed: again.append(seed) or prompt)
    assert sorted(again) == sorted(seeds)
    assert engine.in_flight == 0


def test_a_conversation_goes_on_from_the_tokens_sampled_and_renders_only_what_is_new() -> None:
    async def two_turns(task: Task, policy: PolicyHandle) -> Outcome:
        await policy.chat(task.prompt)
        reply = await policy.chat([Message("tool", "7"), Message("user", "so?")])
        return Outcome(Score(float(len(reply.text))))

    first, second = only(two_turns, answer=lambda prompt, seed: "ab", max_tokens=20).trajectories[0].turns
    whole = [Message("user", "q10"), Message("assistant", "ab"), Message("tool", "7"), Message("user", "so?")]
    assert second.prompt.tolist() == TOKENIZER.chat(whole).tolist()
    assert second.prompt[: len(first.prompt) + len(first.output)].tolist() == [
        *first.prompt.tolist(),
        *first.output.tolist(),
    ]


def test_an_answer_that_was_cut_off_is_closed_before_the_conversation_goes_on() -> None:
    async def two_turns(task: Task, policy: PolicyHandle) -> Outcome:
        await policy.chat(task.prompt)
        await policy.chat([Message("user", "so?")])
        return Outcome(Score(0.0))

    first, second = only(two_turns, answer=lambda prompt, seed: "abcdef", max_tokens=3).trajectories[0].turns
    assert first.stop is StopReason.LENGTH
    whole = [Message("user", "q10"), Message("assistant", "abc"), Message("user", "so?")]
    assert second.prompt.tolist() == TOKENIZER.chat(whole).tolist()


async def raises(task: Task, policy: PolicyHandle) -> Outcome:
    await policy.chat(task.prompt)
    raise KeyError("no such thing")


async def never_ends(task: Task, policy: PolicyHandle) -> Outcome:
    await policy.chat(task.prompt)
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def times_out_itself(task: Task, policy: PolicyHandle) -> Outcome:
    raise TimeoutError("the server did not answer")


async def talks_too_long(task: Task, policy: PolicyHandle) -> Outcome:
    while True:
        await policy.chat([Message("user", "again and again")])


def scored(value: object, **parts: object) -> Play:
    async def play(task: Task, policy: PolicyHandle) -> Outcome:
        await policy.chat(task.prompt)
        return Outcome(Score(value, parts))

    return play


def measured(value: object) -> Play:
    async def play(task: Task, policy: PolicyHandle) -> Outcome:
        await policy.chat(task.prompt)
        return Outcome(Score(1.0), {"steps": value})

    return play


async def returns_a_number(task: Task, policy: PolicyHandle) -> Outcome:
    return 1.0  # as a first attempt at an environment may


@pytest.mark.parametrize(
    ("play", "status", "told"),
    [
        (raises, Status.ENVIRONMENT_ERROR, "KeyError: 'no such thing'"),
        (never_ends, Status.ROLLOUT_TIMEOUT, "took longer than 0.2 s"),
        (times_out_itself, Status.ENVIRONMENT_ERROR, "the server did not answer"),
        (talks_too_long, Status.PROMPT_TOO_LONG, "the context holds 64"),
        (scored(float("nan")), Status.REWARD_INVALID, "value is nan"),
        (scored(float("-inf")), Status.REWARD_INVALID, "value is -inf"),
        (scored("1"), Status.REWARD_INVALID, "value is '1'"),
        (scored(1.0, style=float("nan")), Status.REWARD_INVALID, "style is nan"),
        (returns_a_number, Status.REWARD_INVALID, "returned a float instead of an Outcome"),
        (measured("two"), Status.ENVIRONMENT_ERROR, "steps"),
    ],
)
def test_an_attempt_that_fails_becomes_a_status_with_its_reason_and_keeps_its_turns(
    play: Play, status: Status, told: str
) -> None:
    rollout = only(play, limit_s=0.2)
    assert (rollout.status, rollout.score) == (status, None)
    assert told in rollout.error
    if play in (raises, never_ends):
        assert len(rollout.trajectories[0].turns) == 1


@pytest.mark.parametrize("value", [True, 2, np.float32(0.5), np.int64(3), Fraction(1, 2)])
def test_every_kind_of_finite_number_is_a_reward_and_a_metric(value: object) -> None:
    rewarded, counted = only(scored(value, part=value)), only(measured(value))
    assert (rewarded.status, counted.status) == (Status.OK, Status.OK)
    assert rewarded.score is not None
    assert {type(rewarded.score.value), type(rewarded.score.parts["part"]), type(counted.metrics["steps"])} == {float}
    assert rewarded.score.value == counted.metrics["steps"] == float(value)


def test_one_attempt_that_fails_leaves_the_others_of_its_group() -> None:
    async def fails_at_first(task: Task, policy: PolicyHandle) -> Outcome:
        reply = await policy.chat(task.prompt)
        if reply.text == "0":
            raise ValueError
        return Outcome(Score(1.0))

    attempts = iter("0111")
    groups, _ = explore(fails_at_first, answer=lambda prompt, seed: next(attempts))
    assert [r.status for g in groups for r in g.rollouts].count(Status.ENVIRONMENT_ERROR) == 1
    assert sum(len(g.usable) for g in groups) == 3
    facts = explore_metrics(groups)
    assert (facts["rollouts/asked"], facts["rollouts/scored"], facts["drop/environment_error"]) == (4.0, 3.0, 1.0)


def test_an_engine_that_fails_is_no_attempts_fault() -> None:
    async def closes(task: Task, policy: PolicyHandle) -> Outcome:
        raise RunError("The engine was closed while a request was in flight.")

    with pytest.raises(RunError, match="engine was closed"):
        explore(closes)


def test_leaving_before_the_end_cancels_what_is_in_flight() -> None:
    engine = ScriptedEngine(TOKENIZER, lambda prompt, seed: "a" * 40, context=64)
    engine.load({}, 0, "")
    limits = ExploreLimits(context=64, rollout_timeout_s=30)

    async def first_only(task: Task, policy: PolicyHandle) -> Outcome:
        if task.prompt[0].content == "q0":
            return Outcome(Score(0.0))
        return await never_ends(task, policy)

    explorer = Explorer(Playing(first_only), engine, TOKENIZER, Split("train", 0), Sampling(50), limits)

    async def leave() -> int:
        groups = explorer.groups(0, 0, 3, 2)
        async for _ in groups:
            break
        await groups.aclose()
        await asyncio.sleep(0)
        return engine.in_flight + len(asyncio.all_tasks()) - 1

    assert asyncio.run(leave()) == 0
