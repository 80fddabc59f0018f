"""Environments elsewhere: what is played there comes out as if it had been played here, and is played anew if lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import tiny_policy

from ratchet.cluster.host import LostError
from ratchet.config.schema import RunConfig
from ratchet.core.errors import RunError
from ratchet.core.protocols import Outcome, Sampling, Spawns
from ratchet.core.rollout import Group, Score, Status
from ratchet.core.task import Message, Split, Task
from ratchet.engines.scripted import ScriptedEngine
from ratchet.explore.explorer import LOST_IN_A_ROW, ExploreLimits, Explorer
from ratchet.explore.handle import EngineSpeaker
from ratchet.run.far_environment import EnvironmentWorker, FarEnvironment
from ratchet.store.codec import group_to_json

Config = Callable[..., RunConfig]
SPAWNING = f"{Path(__file__)}:Spawning"


class Spawning:
    """Asks the policy, has two agents look at what it said, one of them with an agent of its own; then asks again."""

    name = "spawning"
    words = ()
    characters = "abcdefghi0123456789"

    def num_tasks(self, split: Split) -> int | None:
        return None

    def task(self, split: Split, index: int) -> Task:
        return Task(self.name, (Message("user", f"{index:03d}"),), extras={"index": index})

    async def run(self, task: Task, policy: Spawns) -> Outcome:
        said = await policy.chat(task.prompt)
        first, second = policy.spawn("first"), policy.spawn("second")
        below = second.spawn("below")
        replies = await asyncio.gather(*(a.chat((Message("user", said.text),)) for a in (first, below, second)))
        first.ended("well")
        last = await policy.chat((Message("user", replies[0].text),))
        second.ended("badly")
        if task.extras["index"] == 2:
            await policy.chat((Message("user", "1" * 500),))
        return Outcome(Score(float(len(last.text))), {"said": len(said.text)}, {"note": replies[1].text})


class Near:
    """A way to an object of this process, as `Line` is one to another's; the first `losses` calls are lost."""

    def __init__(self, losses: int = 0) -> None:
        self.losses, self.object, self.calls = losses, None, 0

    async def call(self, method: str, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls <= self.losses:
            done = asyncio.ensure_future(getattr(self.object, method)(*arguments))
            await asyncio.sleep(0)  # it has begun
            done.cancel()
            raise LostError("environment-1 is gone: it was killed")
        return await getattr(self.object, method)(*arguments)


def played(config: RunConfig, *, far: bool, losses: int = 0) -> list[Group]:
    """Return groups of the environment, played here or through a worker."""
    policy = tiny_policy(context=96)
    engine = ScriptedEngine(policy.tokenizer, lambda prompt, seed: str(seed % 1000), context=96)
    engine.load({}, 0, "f0")
    worker = EnvironmentWorker(config)
    environment: Any = Spawning()
    if far:
        workers, me = Near(losses), Near()
        environment = FarEnvironment(Spawning(), workers, me)  # type: ignore[arg-type]
        workers.object, me.object = worker, environment
    sampling, limits = Sampling(max_tokens=4), ExploreLimits(96, 10.0)

    def frozen() -> EngineSpeaker:
        return EngineSpeaker(engine, policy.tokenizer, sampling, 96)

    async def play() -> list[Group]:
        explorer = Explorer(environment, engine, policy.tokenizer, Split("train", 0), sampling, limits, frozen=frozen)
        return [group async for group in explorer.groups(0, 0, 3, 2)]

    return asyncio.run(play())


def facts(groups: list[Group]) -> list[Any]:
    """Return what was recorded, without what the clock says."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "began")}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    return [timeless(group_to_json(group)) for group in groups]


def test_attempts_played_elsewhere_are_recorded_as_if_they_had_been_played_here(config: Config) -> None:
    chosen = config(f"environment.name={SPAWNING}")
    here, there = played(chosen, far=False), played(chosen, far=True)
    assert facts(there) == facts(here)
    agents = [t.agent for t in there[0].rollouts[0].trajectories]
    assert agents == ["policy", "first", "second", "below"]
    assert [t.outcome for t in there[0].rollouts[0].trajectories] == ["", "well", "badly", ""]
    assert {r.status for r in there[2].rollouts} == {Status.PROMPT_TOO_LONG}, "errors travel both ways"


def test_an_attempt_whose_worker_dies_is_played_anew_and_comes_out_as_it_would_have(config: Config) -> None:
    chosen = config(f"environment.name={SPAWNING}")
    assert facts(played(chosen, far=True, losses=LOST_IN_A_ROW - 1)) == facts(played(chosen, far=False))


def test_an_attempt_that_kills_every_worker_ends_the_run(config: Config) -> None:
    with pytest.raises(RunError, match=f"lost {LOST_IN_A_ROW} times in a row.*environment-1 is gone"):
        played(config(f"environment.name={SPAWNING}"), far=True, losses=1000)
