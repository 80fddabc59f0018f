"""Playing an environment with any policy, a server or a checkpoint, without training: what it earns, every attempt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Environment
from ratchet.core.rollout import Group, Rollout
from ratchet.core.seeds import derive
from ratchet.core.task import Split, Task
from ratchet.environments.table import close_environment
from ratchet.explore.attempt import attempt_task
from ratchet.explore.handle import RecordingHandle
from ratchet.run.evaluate import eval_metrics
from ratchet.run.frozen import Frozen
from ratchet.run.observer import Observer
from ratchet.run.parts import make_environment
from ratchet.run.policies import choose_device
from ratchet.run.source import sampling_of

AT_ONCE = 16
"""Attempts at the same time: a server batches them, and is not flooded."""


@dataclass(frozen=True, slots=True)
class Played:
    """What a policy did."""

    groups: tuple[Group, ...]
    facts: Mapping[str, float]
    """As of a held-out evaluation: mean reward, parts, pass@k with intervals."""
    seconds: float


@dataclass(frozen=True, slots=True)
class _Cast:
    """Who speaks in an attempt."""

    policy: Frozen
    agents: Frozen

    async def close(self) -> None:
        """Close both."""
        for one in {id(self.policy): self.policy, id(self.agents): self.agents}.values():
            await one.close()


def play(
    config: RunConfig, policy: str, model: str, *, tasks: int, samples: int, split: str, observer: Observer
) -> Played:
    """Return what the policy at a URL, or in a checkpoint's folder, does with tasks of a config's environment.

    Agents that the environment spawns speak as `config.subagent` says; "start" is the policy itself.

    **Raises**: `ConfigError` if the policy cannot be had, or no attempt at all could be played.
    """
    environment = make_environment(config)
    try:
        cast = _cast(config, policy, model)
        chosen, started = Split(split, config.run.seed), time.perf_counter()
        size = environment.num_tasks(chosen)
        count = tasks if size is None else min(tasks, size)
        timeout_s = config.explore.rollout_timeout_s
        groups = asyncio.run(_play(environment, chosen, count, samples, cast, timeout_s, observer))
    finally:
        close_environment(environment)
    failed = [r for g in groups for r in g.rollouts if r.score is None]
    if len(failed) == sum(len(g.rollouts) for g in groups):
        raise ConfigError(f"Not one of {len(failed)} attempts could be played. The first said: {failed[0].error}")
    return Played(tuple(groups), eval_metrics(groups), time.perf_counter() - started)


def _cast(config: RunConfig, policy: str, model: str) -> _Cast:
    server = policy.startswith(("http://", "https://"))
    if server and not model:
        raise ConfigError(f"{policy} is a server: name the model it is to be asked for, with --model.")
    if not server and not Path(policy).is_dir():
        raise ConfigError(f"{policy} is no folder. Name a Hugging Face checkpoint, or the URL of a server.")
    drawn = sampling_of(config)
    told = {
        "policy": policy,
        "model": model,
        "max_tokens": drawn.max_tokens,
        "temperature": drawn.temperature,
        "top_p": drawn.top_p,
        "top_k": drawn.top_k,
        "timeout_s": config.explore.rollout_timeout_s,
    }
    agent = config.subagent.model_copy(update=told)
    device = choose_device(config)
    speaks = Frozen(config.model_copy(update={"subagent": agent}), Path(policy), device)
    agents = speaks if config.subagent.policy == "start" else Frozen(config, Path(policy), device)
    return _Cast(speaks, agents)


async def _play(
    environment: Environment, split: Split, tasks: int, samples: int, cast: _Cast, timeout_s: float, observer: Observer
) -> list[Group]:
    places, done = asyncio.Semaphore(AT_ONCE), 0

    async def attempt(task: Task, index: int, number: int) -> Rollout:
        nonlocal done
        async with places:
            seed = derive(split.seed, "play", index, number)
            handle = RecordingHandle(cast.policy.speaker(), cast.agents.speaker, seed=seed)
            rollout = await attempt_task(environment, task, number, handle, timeout_s)
        done += 1
        observer.progress("play", done, tasks * samples, {})
        return rollout

    async def group(index: int) -> Group:
        task = environment.task(split, index)
        rollouts = await asyncio.gather(*(attempt(task, index, number) for number in range(samples)))
        return Group(task, index, 0, tuple(rollouts))

    try:
        return list(await asyncio.gather(*(group(index) for index in range(tasks))))
    finally:
        await cast.close()
