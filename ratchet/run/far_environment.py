"""Environments in processes of their own: they play and judge there, and ask the explorer with the engine for turns.

    explorer                                 worker
    --------                                 ------
    task                      -- run -->     environment.run(task, handle)
    engine speaks, handle     <- speak --    handle.chat(...)
    records the turn          -- reply ->
    outcome                   <---------     Outcome

Only texts travel; tokens stay with the explorer. What a handle is told without waiting for an answer (an agent spawned,
how one ended) is noted and sent with what is asked next.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.cluster.host import Line, LostError
from ratchet.cluster.pool import Lines
from ratchet.config.schema import RunConfig
from ratchet.core.errors import AttemptLost
from ratchet.core.protocols import Environment, Outcome, PolicyHandle, Reply, Spawns
from ratchet.core.task import Message, Split, Task
from ratchet.core.tools import ToolSpec
from ratchet.run.parts import make_environment

Path = tuple[int, ...]
"""Which agent of an attempt: the n-th spawned by the m-th spawned by ... the policy, which is ()."""
Note = tuple[str, Path, str]
"""What was done ("spawn" or "ended"), by whom, and the name or the word for the record."""


class FarEnvironment:
    """An explorer's side: makes tasks here, has attempts played by a pool of workers, and speaks for them."""

    def __init__(self, own: Environment, workers: Lines, me: Line) -> None:
        """`own` is the same environment as the workers'; `me` the way to who forwards `speak` to this."""
        self.name = own.name
        self._own, self._workers, self._me = own, workers, me
        self._keys = itertools.count()
        self._attempts: dict[int, _Attempt] = {}

    def num_tasks(self, split: Split) -> int | None:
        return self._own.num_tasks(split)

    def task(self, split: Split, index: int) -> Task:
        return self._own.task(split, index)

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Have a worker play an attempt. Raises what its environment raises, and `AttemptLost` if the worker dies."""
        key = next(self._keys)
        attempt = self._attempts[key] = _Attempt(policy)
        try:
            outcome, notes = await self._workers.call("run", task, key, self._me)
            attempt.take(notes)
        except LostError as error:
            raise AttemptLost(f"An attempt at {task.id} was lost: {error}") from None
        finally:
            del self._attempts[key]
        assert isinstance(outcome, Outcome)
        return outcome

    async def speak(
        self, key: int, notes: Sequence[Note], path: Path, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> Reply:
        """Answer a worker: the next turn of one of an attempt's agents."""
        attempt = self._attempts.get(key)
        if attempt is None:
            raise AttemptLost("Nobody waits for this attempt any more.")
        attempt.take(notes)
        reply: Reply = await attempt.agents[path].chat(messages, tools)
        return reply


@dataclass(slots=True, eq=False)
class _Attempt:
    """What an explorer knows of an attempt under way."""

    policy: PolicyHandle
    agents: dict[Path, Any] = field(default_factory=dict)
    taken: int = 0
    """Notes done so far: each comes until it is known to have come."""

    def __post_init__(self) -> None:
        self.agents[()] = self.policy

    def take(self, notes: Sequence[Note]) -> None:
        """Do what is new among all notes of the attempt, in order."""
        for what, path, word in notes[self.taken :]:
            if what == "spawn":
                parent: Spawns = self.agents[path[:-1]]
                self.agents[path] = parent.spawn(word)
            else:
                self.agents[path].ended(word)
        self.taken = max(self.taken, len(notes))


class EnvironmentWorker:
    """A worker's side: the object that a pool hosts."""

    def __init__(self, config: RunConfig) -> None:
        self._environment = make_environment(config)

    async def run(self, task: Task, key: int, explorer: Line) -> tuple[Outcome, list[Note]]:
        """Play an attempt; return its outcome and all notes."""
        talk = _Talk(explorer, key)
        outcome = await self._environment.run(task, FarHandle(talk, ()))
        return outcome, talk.notes


@dataclass(slots=True, eq=False)
class _Talk:
    """An attempt's way to its explorer."""

    explorer: Line
    key: int
    notes: list[Note] = field(default_factory=list)


class FarHandle:
    """The policy or an agent as an environment sees it, with its engine elsewhere (`core.protocols.Spawns`)."""

    def __init__(self, talk: _Talk, path: Path) -> None:
        self._talk, self._path, self._children = talk, path, 0

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        """See `PolicyHandle`."""
        talk = self._talk
        reply = await talk.explorer.call("speak", talk.key, list(talk.notes), self._path, tuple(messages), tuple(tools))
        assert isinstance(reply, Reply)
        return reply

    def spawn(self, agent: str) -> FarHandle:
        """See `Spawns`."""
        path = (*self._path, self._children)
        self._children += 1
        self._talk.notes.append(("spawn", path, agent))
        return FarHandle(self._talk, path)

    def ended(self, outcome: str) -> None:
        """See `Spawns`."""
        self._talk.notes.append(("ended", self._path, outcome))
