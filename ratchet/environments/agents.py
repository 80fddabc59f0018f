"""Tasks that an agent program of the user's plays, through an endpoint of OpenAI's form: `serve/training.py`.

The run opens an attempt, the program takes it up and gets a key. Whatever it asks of the model with that key is a turn
of the attempt; its reward ends it. This file keeps the attempts, and knows no HTTP. Everything in it happens in the
event loop of the run; the endpoint lives in a thread of its own and calls in.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from ratchet.core.errors import ConfigError
from ratchet.core.protocols import AgentFailed, Converses, Environment, Outcome, PolicyHandle, Probes, PromptTooLong
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Split, Task
from ratchet.environments.single_turn import Alphabet, messages
from ratchet.rewards.errors import RewardError

_PRINTABLE = "".join(chr(c) for c in range(32, 127)) + "\n"


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt that the program has, or may take up."""

    task: Task
    handle: Converses
    taken: asyncio.Future[None]
    ended: asyncio.Future[Outcome]
    key: str = field(default_factory=lambda: "attempt-" + secrets.token_urlsafe(24))
    """What the program shows as its API key."""
    said: str = ""
    """The newest answer of the policy."""
    turns: int = 0
    conversations: int = 0
    too_long: str = ""
    """Why a conversation had no room any more; empty while it has."""


class Closing(Protocol):
    """An endpoint that is there until it is closed."""

    url: str

    def close(self) -> None:
        """End it."""
        ...


class Agents(BaseModel):
    """Hands its tasks to an agent program, which plays them by OpenAI's API and posts what they earned."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "agents"

    tasks: int = Field(0, ge=0, description="Number of tasks, where the program has its own: it is told their numbers.")
    test_tasks: int = Field(0, ge=0, description="Number of the program's own tasks for the test split.")
    inner: str = Field(
        "",
        description="Environment that makes the tasks, and whose reward judges the last answer where the program posts "
        "none: questions, say.",
    )
    inner_options: Mapping[str, Any] = Field(default_factory=dict, description="Options of the inner environment.")
    host: str = Field("127.0.0.1", min_length=1, description="Address the endpoint listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Its port; 0 takes a free one.")
    keep_sampling: bool = Field(
        False,
        description="Answer requests for another temperature, top_p or top_k as the run samples, instead of refusing "
        "them.",
    )

    _inner: Environment | None = PrivateAttr(None)
    _waiting: deque[Attempt] = PrivateAttr(default_factory=deque)
    _open: dict[str, Attempt] = PrivateAttr(default_factory=dict)
    _admitted: dict[int, Attempt] = PrivateAttr(default_factory=dict)
    _loop: asyncio.AbstractEventLoop | None = PrivateAttr(None)
    _opener: Callable[[], Closing] | None = PrivateAttr(None)
    _endpoint: Closing | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.tasks) == bool(self.inner):
            raise ValueError("give either tasks, a number, for tasks of the program's own, or inner, an environment")
        if self.inner_options and not self.inner:
            raise ValueError("inner_options are those of inner, which is empty")
        return self

    def model_post_init(self, context: Any, /) -> None:
        """Make the inner environment."""
        if not self.inner:
            return
        from ratchet.environments.table import UsesSandbox, build_environment  # the table imports this file's class

        if self.inner == self.name:
            raise ConfigError('environment.inner = "agents": an endpoint cannot hand out its own tasks. Name another.')
        self._inner = build_environment(self.inner, self.inner_options)
        if isinstance(self._inner, UsesSandbox):
            raise ConfigError(
                f'environment.inner = "{self.inner}" runs code in the sandbox, which an agent program does itself. '
                "Name an environment that asks questions, or set environment.tasks."
            )

    @property
    def words(self) -> tuple[str, ...]:
        """Return the strings of several characters that should be single tokens."""
        return self._inner.words if isinstance(self._inner, Alphabet) else ()

    @property
    def characters(self) -> str:
        """Return every single character its prompts can hold: the inner environment's, else all printable ones."""
        return self._inner.characters if isinstance(self._inner, Alphabet) else _PRINTABLE

    def num_tasks(self, split: Split) -> int | None:
        """Return how many tasks the split has."""
        if self._inner is not None:
            return self._inner.num_tasks(split)
        return self.test_tasks if split.name == "test" else self.tasks

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split: the inner environment's, or the number of one of the program's own."""
        if self._inner is not None:
            found = self._inner.task(split, index)
            return replace(found, environment=self.name, extras={"split": split.name, "inner": dict(found.extras)})
        size = self.num_tasks(split)
        assert size
        number = split.shuffled(index, size)
        return Task(self.name, messages(f"Task {number}"), extras={"split": split.name, "number": number})

    def serve_by(self, opener: Callable[[], Closing]) -> None:
        """Say how the endpoint is made."""
        self._opener = opener

    def open(self) -> str:
        """Make the endpoint if it is not there; return its URL. **Raises**: `ConfigError`."""
        if self._endpoint is None:
            if self._opener is None:
                raise ConfigError(
                    'environment.name = "agents" is played through an endpoint, and nothing here makes one: use '
                    "ratchet train, or call `serve_by`."
                )
            self._endpoint = self._opener()
        return self._endpoint.url

    def close(self) -> None:
        """End the endpoint and what the inner environment holds."""
        from ratchet.environments.table import close_environment

        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None
        if self._inner is not None:
            close_environment(self._inner)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the run, where all of this happens; None before the first attempt."""
        return self._loop

    async def admit(self, task: Task, policy: PolicyHandle) -> None:
        """Return when the program has taken the attempt up."""
        self.open()
        if not isinstance(policy, Converses):
            raise ConfigError(
                'environment.name = "agents" needs a handle that holds several conversations, as the explorer\'s does.'
            )
        loop = self._loop = asyncio.get_running_loop()
        attempt = Attempt(task, policy, loop.create_future(), loop.create_future())
        self._waiting.append(attempt)
        self._admitted[id(policy)] = attempt
        taken = False
        try:
            await attempt.taken
            taken = True
        finally:
            if not taken:
                self._forget(attempt)

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return what the program posts, or what the inner environment says of the last answer."""
        if id(policy) not in self._admitted:
            await self.admit(task, policy)
        attempt = self._admitted[id(policy)]
        try:
            return await attempt.ended
        finally:
            self._forget(attempt)

    def take(self) -> Attempt | None:
        """Return an attempt that nobody plays yet, if there is one; from now on its key opens it."""
        if not self._waiting:
            return None
        attempt = self._waiting.popleft()
        self._open[attempt.key] = attempt
        attempt.taken.set_result(None)
        return attempt

    def find(self, key: str) -> Attempt | None:
        """Return the attempt that a key opens; None if it is over, or never was."""
        return self._open.get(key)

    async def finish(self, attempt: Attempt, score: Score | None, metrics: Mapping[str, float]) -> float:
        """End an attempt with what it earned; None lets the inner environment judge the last answer.

        Return the reward. **Raises**: `AgentFailed` if there is nothing that could be judged.
        """
        if not attempt.turns:
            raise AgentFailed("No answer was asked for with this key, so there is nothing to learn from.")
        if score is None:
            if not isinstance(self._inner, Probes):
                raise AgentFailed("No reward was posted, and no inner environment judges the attempt.")
            try:
                score = await self._inner.score(self._inner_task(attempt.task), attempt.said)
            except RewardError as error:
                self.stop(attempt, error)
                raise AgentFailed(f"The reward failed: {error}") from None
        counted = {"conversations": float(attempt.conversations), "turns": float(attempt.turns), **metrics}
        if not attempt.ended.done():
            attempt.ended.set_result(Outcome(score, counted))
        return score.value

    def fail(self, attempt: Attempt, reason: str) -> None:
        """End an attempt without a reward: it is counted, and not trained on."""
        if not attempt.ended.done():
            failed = PromptTooLong(attempt.too_long) if attempt.too_long else AgentFailed(reason)
            attempt.ended.set_exception(failed)

    def stop(self, attempt: Attempt, error: Exception) -> None:
        """End an attempt with what broke underneath it."""
        if not attempt.ended.done():
            attempt.ended.set_exception(error)

    def drop(self, error: Exception, *, waiting: bool) -> None:
        """End the attempts that are being played with `error`; those too that still wait to be taken up, if so said."""
        for attempt in list(self._open.values()):
            self.stop(attempt, error)
        for attempt in list(self._waiting) if waiting else ():
            if not attempt.taken.done():
                attempt.taken.set_exception(error)

    def _inner_task(self, task: Task) -> Task:
        return replace(task, environment=self.inner, extras=task.extras["inner"])

    def _forget(self, attempt: Attempt) -> None:
        """Let nobody take an attempt up, or go on with it, any more."""
        self._admitted = {who: one for who, one in self._admitted.items() if one is not attempt}
        self._open.pop(attempt.key, None)
        if attempt in self._waiting:
            self._waiting.remove(attempt)


def as_json(attempt: Attempt) -> dict[str, Any]:
    """Return what the program is told of an attempt."""
    task = attempt.task
    own = "number" in task.extras
    told: dict[str, Any] = {"id": task.id, "split": task.extras["split"]}
    if own:
        return {**told, "number": task.extras["number"]}
    return {
        **told,
        "messages": [_told(message) for message in task.prompt],
        "answer": task.answer,
        "extras": task.extras["inner"],
    }


def _told(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}
