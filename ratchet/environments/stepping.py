"""Environments with `reset` and `step`, in Gymnasium's form: the policy reads observations and answers with actions.

    reset(seed) -> (observation, info)      step(action) -> (observation, reward, terminated, truncated, info)

An environment of one's own needs nothing but these two methods; Gymnasium itself is imported only for an id of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from ratchet.core.errors import ConfigError
from ratchet.core.load import describe, is_path, load_function, require_library
from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.seeds import derive
from ratchet.core.task import Message, Split, Task
from ratchet.environments.single_turn import messages


class Steps(Protocol):
    """An environment in Gymnasium's form; `render` and `close` are used where there are any."""

    def reset(self, *, seed: int) -> tuple[Any, Mapping[str, Any]]:
        """Begin an episode and return (observation, info)."""
        ...

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Mapping[str, Any]]:
        """Return (observation, reward, terminated, truncated, info)."""
        ...


class Stepping(BaseModel):
    """Plays an episode of an environment with reset and step; the reward is the sum of its rewards."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "gymnasium"

    make: str = Field(
        min_length=1, description="Gymnasium's id, FrozenLake-v1 say, or file.py:function that returns an environment."
    )
    options: Mapping[str, Any] = Field(default_factory=dict, description="Keyword arguments it is made with.")
    actions: tuple[str, ...] = Field(
        (),
        description="Words for the actions 0, 1, ...; the last of them in an answer is taken. Empty hands the whole "
        "answer to the environment.",
    )
    system: str = Field("", description="System message; empty for none.")
    turns: int = Field(32, ge=1, description="Most answers in an episode; then it ends with what was earned.")

    _new: Callable[..., Any] = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Begin one episode, so that an environment which cannot be used fails when the configuration is read."""
        if is_path(self.make):
            self._new = load_function(self.make, where="environment.make")
        else:
            require_library("gymnasium", extra="gymnasium", purpose=f'environment.make = "{self.make}"')
            library: Any = importlib.import_module("gymnasium")
            self._new = lambda **options: library.make(self.make, **options)
        try:
            self._opened(0)
        # An environment is the user's code, or another library's.
        except Exception as error:
            raise ConfigError(f'environment.make = "{self.make}" cannot begin an episode: {describe(error)}') from error

    def num_tasks(self, split: Split) -> int | None:
        """Return None: every seed is an episode."""
        return None

    def task(self, split: Split, index: int) -> Task:
        """Return the beginning of an episode: its prompt is the first observation."""
        seed = derive("gymnasium", split.name, split.seed, index) % 2**31
        return Task(self.name, messages(self._opened(seed), system=self.system), extras={"seed": seed})

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Play an episode: observation, action, and so on."""
        steps: Steps = self._new(**self.options)
        try:
            await asyncio.to_thread(steps.reset, seed=task.extras["seed"])
            earned, acted, told = 0.0, 0, task.prompt
            for _ in range(self.turns):
                action = self._action((await policy.chat(told)).text)
                if action is None:
                    told = (Message("user", f"Answer with one of: {', '.join(self.actions)}."),)
                    continue
                # In a thread: a step that computes for long must not hold up the other attempts.
                observation, reward, terminated, truncated, _ = await asyncio.to_thread(steps.step, action)
                earned, acted = earned + float(reward), acted + 1
                if terminated or truncated:
                    break
                told = (Message("user", _shown(steps, observation)),)
            return Outcome(Score(earned), {"actions": acted})
        finally:
            _close(steps)

    def _opened(self, seed: int) -> str:
        steps: Steps = self._new(**self.options)
        try:
            return _shown(steps, steps.reset(seed=seed)[0])
        finally:
            _close(steps)

    def _action(self, text: str) -> str | int | None:
        """Return what the policy does: its text, or the number of the last action word in it; None if there is none."""
        if not self.actions:
            return text
        words = "|".join(re.escape(word) for word in sorted(self.actions, key=len, reverse=True))
        found = re.findall(rf"(?<!\w)(?:{words})(?!\w)", text, re.IGNORECASE)
        return [word.lower() for word in self.actions].index(found[-1].lower()) if found else None


def _shown(steps: Any, observation: Any) -> str:
    """Return an observation as text: itself, the drawing that `render` makes in text mode, or how Python writes it."""
    if isinstance(observation, str):
        return observation
    with suppress(AttributeError, NotImplementedError):
        drawn = steps.render()
        if isinstance(drawn, str):
            return drawn
    return str(observation)


def _close(steps: Any) -> None:
    with suppress(AttributeError):
        steps.close()
