"""An environment whose first task ends only when another has begun: it shows what is played beside it."""

from __future__ import annotations

import asyncio

from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Split, Task


class Relay:
    name = "relay"
    words = ()
    characters = "abcdefghi0123456789"

    def __init__(self, *, awaited: int = 0) -> None:
        """Attempts at task 0 end when one at task `awaited` has begun. What began meanwhile is recorded with them."""
        self._awaited, self._begun, self._there = awaited, list[int](), asyncio.Event()

    def num_tasks(self, split: Split) -> int | None:
        return None

    def task(self, split: Split, index: int) -> Task:
        return Task(self.name, (Message("user", f"{index % 1000:03}"),), extras={"index": index})

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        index = task.extras["index"]
        self._begun.append(index)
        if index == self._awaited:
            self._there.set()
        reply = await policy.chat(task.prompt)
        if index == 0:
            await self._there.wait()
        return Outcome(Score(len(reply.text) / 6), {"latest": float(max(self._begun))})
