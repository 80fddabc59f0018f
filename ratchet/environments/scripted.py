"""Policies that are not models: a script of replies, and one that never replies. For testing environments, yours too.

    policy = Scripted(["<answer>6</answer>"])
    outcome = await environment.run(task, policy)

Replies count one token per character.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from ratchet.core.protocols import PolicyHandle, Reply
from ratchet.core.rollout import StopReason
from ratchet.core.task import Message
from ratchet.core.tools import ToolSpec, format_of


class Scripted:
    """A policy that gives prepared replies, in order, and remembers what it was asked."""

    def __init__(self, replies: Iterable[str], *, stop: StopReason = StopReason.END) -> None:
        """Every reply ends for the reason `stop`."""
        self._replies = list(replies)
        self._stop = stop
        self.asked: list[tuple[Message, ...]] = []
        """The messages of each call so far."""

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        """Return the next reply; its tool calls stand in the default form. **Raises**: `AssertionError` at the end."""
        turn = len(self.asked)
        assert turn < len(self._replies), f"the script has {len(self._replies)} replies, and this is call {turn + 1}"
        self.asked.append(tuple(messages))
        text = self._replies[turn]
        return Reply(text=text, num_tokens=len(text), stop=self._stop, calls=format_of("").calls(text))


class ScriptedTeam(Scripted):
    """An orchestrator with prepared replies whose agents are scripts too: for environments that spawn agents."""

    def __init__(self, replies: Iterable[str], agents: Callable[[str], PolicyHandle]) -> None:
        """`agents` gives the policy of each agent that is spawned, by its name."""
        super().__init__(replies)
        self._make = agents
        self.spawned: list[ScriptedAgent] = []

    def spawn(self, agent: str) -> ScriptedAgent:
        """Return the handle of a new agent."""
        self.spawned.append(ScriptedAgent(agent, self._make(agent), self._make))
        return self.spawned[-1]

    def ended(self, outcome: str) -> None:
        """Nothing: an orchestrator is not ended by anyone."""


class ScriptedAgent:
    """An agent of a `ScriptedTeam`."""

    def __init__(self, name: str, policy: PolicyHandle, agents: Callable[[str], PolicyHandle]) -> None:
        self.name, self._policy, self._make = name, policy, agents
        self.outcome = ""
        """How the environment says that it ended."""
        self.spawned: list[ScriptedAgent] = []

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        """Return what its policy says."""
        return await self._policy.chat(messages, tools)

    def spawn(self, agent: str) -> ScriptedAgent:
        """Return the handle of a new agent below it."""
        self.spawned.append(ScriptedAgent(agent, self._make(agent), self._make))
        return self.spawned[-1]

    def ended(self, outcome: str) -> None:
        """Remember how it ended."""
        self.outcome = outcome


class Silent:
    """A policy that never replies: for showing that an environment can be cancelled while it waits."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        """Set once somebody waits for a reply."""

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        """Wait until cancelled."""
        self.asked.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a future nobody holds is never done")
