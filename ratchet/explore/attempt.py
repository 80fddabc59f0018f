"""One attempt at a task: played to its end or its limit; whatever goes wrong in it becomes a status."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from numbers import Real

from ratchet.core.errors import RatchetError
from ratchet.core.protocols import Admits, AgentFailed, Environment, Outcome, PromptTooLong
from ratchet.core.rollout import Rollout, Score, Status
from ratchet.core.task import Task
from ratchet.explore.handle import RecordingHandle
from ratchet.rewards.errors import RewardError

LONGEST_NOTE = 4000
"""Characters of a note that are recorded: a program can print much."""


async def attempt_task(
    environment: Environment, task: Task, attempt: int, handle: RecordingHandle, timeout_s: float
) -> Rollout:
    """Return what came of an attempt, `timeout_s` seconds long at most from where the environment admits it.

    **Raises**: `RatchetError` if not the attempt failed but what it runs on.
    """
    if isinstance(environment, Admits):
        await environment.admit(task, handle)
    started = time.perf_counter()
    status, error, score = Status.OK, "", None
    metrics: Mapping[str, float] = {}
    notes: Mapping[str, str] = {}
    try:
        async with asyncio.timeout(timeout_s) as limit:
            outcome = await environment.run(task, handle)
        score, metrics = _checked(outcome), _numbers(outcome.metrics)
        notes = {name: str(text)[:LONGEST_NOTE] for name, text in outcome.notes.items()}
    except PromptTooLong as reason:
        status, error = Status.PROMPT_TOO_LONG, str(reason)
    except AgentFailed as reason:
        status, error = Status.ENVIRONMENT_ERROR, str(reason)
    except RewardError as reason:
        status, error = reason.status, str(reason)
    except TimeoutError as reason:
        if limit.expired():
            status, error = Status.ROLLOUT_TIMEOUT, f"took longer than {timeout_s:g} s"
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
        notes=notes,
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
