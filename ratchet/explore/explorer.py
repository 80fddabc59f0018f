"""Tasks in, groups out. Every attempt is a coroutine; all attempts of a step run at once and share the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ratchet.core.errors import AttemptLost, ConfigError, RunError
from ratchet.core.protocols import Engine, Environment, Sampling
from ratchet.core.rollout import Group, Rollout
from ratchet.core.seeds import derive
from ratchet.core.task import Split, Task
from ratchet.explore.attempt import attempt_task
from ratchet.explore.handle import EngineSpeaker, RecordingHandle, Speaker
from ratchet.policy.tokenizer import Tokenizer

LOST_IN_A_ROW = 5
"""Times that whoever plays an attempt may die: then it is what the attempt does that kills them."""


@dataclass(frozen=True, slots=True)
class ExploreLimits:
    """What bounds an attempt."""

    context: int
    """Most tokens of a conversation."""
    rollout_timeout_s: float


def no_agents() -> Speaker:
    """Raise `ConfigError`: nobody speaks for agents here."""
    raise ConfigError(
        "The environment spawns agents, and nothing says who speaks for them: give the explorer `frozen`."
    )


class Explorer:
    """Makes groups: asks the environment for tasks, plays the attempts, turns failures into statuses."""

    def __init__(
        self,
        environment: Environment,
        engine: Engine,
        tokenizer: Tokenizer,
        split: Split,
        sampling: Sampling,
        limits: ExploreLimits,
        *,
        task_at: Callable[[int], int] = lambda index: index,
        names: tuple[str | int, ...] = (),
        frozen: Callable[[], Speaker] = no_agents,
    ) -> None:
        """`task_at` says which task of the split stands at an index; `names` make its draws different from others'.
        `frozen` gives who speaks for the agents that an environment spawns."""
        self._environment, self._engine, self._tokenizer = environment, engine, tokenizer
        self._split, self._sampling, self._limits = split, sampling, limits
        self._task_at, self._names, self._frozen = task_at, names, frozen

    async def groups(
        self, step: int, first: int, prompts: int, samples: int, *, greedy: bool = False
    ) -> AsyncIterator[Group]:
        """Yield groups first .. first + prompts - 1 in this order; all are played at once."""
        playing = [
            asyncio.ensure_future(self.group(step, index, samples, greedy=greedy))
            for index in range(first, first + prompts)
        ]
        try:
            for group in playing:
                yield await group
        finally:
            await _give_up(playing)

    async def group(self, step: int, index: int, samples: int, *, greedy: bool = False) -> Group:
        """Return the group of the task at `index`: `samples` attempts, and with `greedy` one more at temperature 0."""
        task = self._environment.task(self._split, self._task_at(index))
        attempts = [
            asyncio.ensure_future(self._attempt(task, index, attempt, self._sampling)) for attempt in range(samples)
        ]
        if greedy:
            certain = replace(self._sampling, temperature=0.0, top_p=1.0, top_k=0)
            attempts.append(asyncio.ensure_future(self._attempt(task, index, samples, certain)))
        try:
            rollouts = tuple([await attempt for attempt in attempts])
        finally:
            await _give_up(attempts)
        return Group(task, index, step, rollouts[:samples], rollouts[samples] if greedy else None)

    async def _attempt(self, task: Task, index: int, attempt: int, sampling: Sampling) -> Rollout:
        """Play one attempt to its end or to its limit; anew, from its first draw on, where who plays it is lost."""
        lost = 0
        while True:
            handle = RecordingHandle(
                EngineSpeaker(self._engine, self._tokenizer, sampling, self._limits.context),
                self._frozen,
                seed=derive(self._split.seed, self._split.name, *self._names, index, attempt),
            )
            try:
                return await attempt_task(self._environment, task, attempt, handle, self._limits.rollout_timeout_s)
            except AttemptLost as error:
                lost += 1
                if lost == LOST_IN_A_ROW:
                    raise RunError(f"The same attempt was lost {lost} times in a row. The last time: {error}") from None


async def _give_up(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Cancel what is still under way, and return when nothing of it is left."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
