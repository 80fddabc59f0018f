"""Policies that are not models: a script of replies, and one that never replies. For testing environments, yours too.

    policy = Scripted(["<answer>6</answer>"])
    outcome = await environment.run(task, policy)

Replies count one token per character.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from ratchet.core.protocols import Reply
from ratchet.core.rollout import StopReason
from ratchet.core.task import Message


class Scripted:
    """A policy that gives prepared replies, in order, and remembers what it was asked."""

    def __init__(self, replies: Iterable[str], *, stop: StopReason = StopReason.END) -> None:
        """Every reply ends for the reason `stop`."""
        self._replies = list(replies)
        self._stop = stop
        self.asked: list[tuple[Message, ...]] = []
        """The messages of each call so far."""

    async def chat(self, messages: Sequence[Message]) -> Reply:
        """Return the next reply. **Raises**: `AssertionError` if the script has ended."""
        turn = len(self.asked)
        assert turn < len(self._replies), f"the script has {len(self._replies)} replies, and this is call {turn + 1}"
        self.asked.append(tuple(messages))
        text = self._replies[turn]
        return Reply(text=text, num_tokens=len(text), stop=self._stop)


class Silent:
    """A policy that never replies: for showing that an environment can be cancelled while it waits."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Set once somebody waits for a reply."""

    async def chat(self, messages: Sequence[Message]) -> Reply:
        """Wait until cancelled."""
        self.asked.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future nobody holds is never done")
