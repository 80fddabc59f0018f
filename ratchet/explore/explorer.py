"""Tasks in, groups out. Every attempt is a coroutine; all attempts of a step run at once and share the engine."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from numbers import Real

from ratchet.core.errors import ConfigError, RatchetError
from ratchet.core.protocols import AgentFailed, Engine, Environment, Outcome, PromptTooLong, Sampling
from ratchet.core.rollout import Group, Rollout, Score, Status
from ratchet.core.seeds import derive
from ratchet.core.task import Split, Task
from ratchet.explore.handle import EngineSpeaker, RecordingHandle, Speaker
from ratchet.policy.tokenizer import Tokenizer
from ratchet.rewards.errors import RewardError


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
        self, step: int, first: int, prompts: int, samples: int, *, skip: Collection[int] = (), greedy: bool = False
    ) -> AsyncIterator[Group]:
        """Yield the groups of tasks first .. first + prompts - 1 in this order, `samples` attempts each.

        Indexes in `skip` are left out. With `greedy`, each group has one more attempt at temperature 0.
        """
        indexes = [first + i for i in range(prompts) if first + i not in skip]
        tasks = [self._environment.task(self._split, self._task_at(index)) for index in indexes]
        plays = [
            [asyncio.ensure_future(self._attempt(task, index, attempt, self._sampling)) for attempt in range(samples)]
            for index, task in zip(indexes, tasks, strict=True)
        ]
        certain = replace(self._sampling, temperature=0.0, top_p=1.0, top_k=0)
        extras = [
            asyncio.ensure_future(self._attempt(task, index, samples, certain))
            for index, task in zip(indexes, tasks, strict=True)
            if greedy
        ]
        try:
            for i, (index, task, attempts) in enumerate(zip(indexes, tasks, plays, strict=True)):
                rollouts = tuple([await a for a in attempts])
                yield Group(task, index, step, rollouts, await extras[i] if greedy else None)
        finally:
            for attempt in (*(a for attempts in plays for a in attempts), *extras):
                attempt.cancel()

    async def _attempt(self, task: Task, index: int, attempt: int, sampling: Sampling) -> Rollout:
        """Play one attempt to its end or to its limit."""
        handle = RecordingHandle(
            EngineSpeaker(self._engine, self._tokenizer, sampling, self._limits.context),
            self._frozen,
            seed=derive(self._split.seed, self._split.name, *self._names, index, attempt),
        )
        started = time.perf_counter()
        status, error, score = Status.OK, "", None
        metrics: Mapping[str, float] = {}
        try:
            async with asyncio.timeout(self._limits.rollout_timeout_s) as limit:
                outcome = await self._environment.run(task, handle)
            score, metrics = _checked(outcome), _numbers(outcome.metrics)
        except PromptTooLong as reason:
            status, error = Status.PROMPT_TOO_LONG, str(reason)
        except AgentFailed as reason:
            status, error = Status.ENVIRONMENT_ERROR, str(reason)
        except RewardError as reason:
            status, error = reason.status, str(reason)
        except TimeoutError as reason:
            if limit.expired():
                status, error = Status.ROLLOUT_TIMEOUT, f"took longer than {self._limits.rollout_timeout_s:g} s"
            else:  # the environment's own affair
                status, error = Status.ENVIRONMENT_ERROR, f"TimeoutError: {reason}"
        except RatchetError:
            raise  # the engine or the machinery failed, not the attempt
        except Exception as reason:  # the one place where a failed attempt becomes a fact
            status, error = Status.ENVIRONMENT_ERROR, f"{type(reason).__name__}: {reason}"
        return Rollout(
            task_id=task.id,
            attempt=attempt,
            trajectories=handle.trajectories(),
            status=status,
            score=score if status is Status.OK else None,
            error=error,
            metrics=metrics,
            seconds=time.perf_counter() - started,
        )


class InvalidReward(RewardError):
    """The environment's outcome holds no finite reward."""

    status = Status.REWARD_INVALID


def _checked(outcome: Outcome) -> Score:
    """Return the outcome's score if every number in it is finite. Raises `InvalidReward`."""
    if not isinstance(outcome, Outcome):
        raise InvalidReward(f"the environment returned a {type(outcome).__name__} instead of an Outcome")
    for name, value in {"value": outcome.score.value, **outcome.score.parts}.items():
        if not isinstance(value, Real) or not math.isfinite(value):
            raise InvalidReward(f"the reward's {name} is {value!r}, which is not a finite number")
    return Score(float(outcome.score.value), {k: float(v) for k, v in outcome.score.parts.items()})


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return an outcome's metrics as plain floats. Raises `TypeError` for what is no number."""
    for name, value in metrics.items():
        if not isinstance(value, Real):
            raise TypeError(f"the environment's metric {name} is {value!r}, which is not a number")
    return {name: float(value) for name, value in metrics.items()}
