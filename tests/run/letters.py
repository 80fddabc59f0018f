"""An environment for tests of runs: how many letters of an answer are vowels. Options make it fail in chosen ways."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Split, Task


class Letters:
    name = "letters"
    words = ()
    characters = "abcdefghi0123456789"

    def __init__(
        self,
        *,
        size: int = -1,
        fail: str = "",
        every: int = 2,
        hold: str = "",
        wait: str = "",
        prompt: int = 3,
        shown: str = "aei",
    ) -> None:
        """`fail` is how tasks 0, `every`, ... fail. Tasks from 12 on that begin while the file `hold` exists never end,
        and they wait until the file `wait` is gone. A negative `prompt` is the length of every second prompt."""
        self._size, self._fail, self._every, self._hold, self._wait = size, fail, every, hold, wait
        self._prompt, self._shown = prompt, shown

    def num_tasks(self, split: Split) -> int | None:
        return None if self._size < 0 else self._size

    def task(self, split: Split, index: int) -> Task:
        length = 3 if self._prompt < 0 and index % 2 else abs(self._prompt)
        text = "".join(split.rng(index).choices("0123456789", k=length))
        return Task(self.name, (Message("user", text),), extras={"index": index})

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        index = task.extras["index"]
        if self._hold and index >= 12 and Path(self._hold).exists():
            await asyncio.get_running_loop().create_future()
        while self._wait and index >= 12 and Path(self._wait).exists():
            await asyncio.sleep(0.1)
        if self._fail and index % self._every == 0:
            await self._misbehave(policy, task)
        if self._fail == "silent" and index % self._every == 0:
            return Outcome(Score(0.5))
        reply = await policy.chat(task.prompt)
        share = sum(c in "aei" for c in reply.text) / max(1, len(reply.text))
        if self._fail == "no number" and index % self._every == 0:
            share = float("nan")
        return Outcome(Score(share, {"vowels": share}), {"share": share})

    async def _misbehave(self, policy: PolicyHandle, task: Task) -> None:
        if self._fail == "raise":
            raise KeyError("no such letter")
        if self._fail == "never":
            await policy.chat(task.prompt)
            await asyncio.get_running_loop().create_future()

    def demonstration(self, task: Task, rng: random.Random) -> str:
        return "".join(rng.choices(self._shown, k=4))
