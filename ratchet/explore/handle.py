"""The policy as an environment sees it, and the agents it spawns. Tokens are the record; text is a view of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Engine, PromptTooLong, Reply, Request, Sampling, Within
from ratchet.core.rollout import StopReason, Tokens, Trajectory, Turn
from ratchet.core.seeds import derive
from ratchet.core.task import Message
from ratchet.core.tools import ToolCall, ToolSpec
from ratchet.policy.tokenizer import Tokenizer

_MARK = "\u0001ratchet\u0001"
"""Stands for the policy's turn while the text after it is rendered."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What was said, and the turn that answered it."""

    messages: tuple[Message, ...]
    turn: Turn
    calls: tuple[ToolCall, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """What a conversation holds before its next turn."""

    rounds: tuple[Round, ...]
    messages: tuple[Message, ...]
    """What is new since the last turn."""
    tools: tuple[ToolSpec, ...]
    """What the policy was told of when the conversation opened."""
    within: Within = field(default_factory=Within)
    """What bounds the next turn."""


class Speaker(Protocol):
    """Who answers: an engine of ours, or a server elsewhere."""

    async def speak(self, opened: Opened, seed: int, began: float) -> tuple[Turn, tuple[ToolCall, ...]]:
        """Return the next turn, asked for at `began`, and the tool calls in it. **Raises** `PromptTooLong`."""
        ...

    async def close(self) -> None:
        """Give back what it holds: memory, connections."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EngineSpeaker:
    """Speaks through an engine: exact tokens in, exact tokens out."""

    engine: Engine
    tokenizer: Tokenizer
    sampling: Sampling
    context: int
    """Most tokens of a conversation."""

    async def speak(self, opened: Opened, seed: int, began: float) -> tuple[Turn, tuple[ToolCall, ...]]:
        """Earlier turns are never rendered again: what was sampled stays, token for token, and only the new messages
        are rendered behind it."""
        prompt = self._prompt(opened)
        if len(prompt) >= self.context:
            raise PromptTooLong(f"the prompt has {len(prompt)} tokens, the context holds {self.context}")
        sampling = bounded(self.sampling, opened.within)
        done = await self.engine.generate(Request(prompt, sampling, seed, opened.within.told))
        turn = Turn(
            prompt=prompt,
            output=done.output,
            logprobs=done.logprobs,
            log_kept=done.log_kept,
            version=done.version,
            last_version=done.last_version,
            fingerprint=done.fingerprint,
            stop=done.stop,
            text=self.tokenizer.decode(done.output),
            seconds=done.seconds,
            switches=done.switches,
            began=began,
        )
        return turn, self.tokenizer.tool_calls(done.output, turn.text, asked=bool(opened.tools))

    async def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _prompt(self, opened: Opened) -> Tokens:
        """Return the opening as the chat template writes it, or the last turn's tokens and what follows them."""
        if not opened.rounds:
            return self.tokenizer.chat(opened.messages, opened.tools)
        last = opened.rounds[-1].turn
        return continued(self.tokenizer, last.prompt, last.output, opened.messages, ended=last.stop is StopReason.END)


def bounded(sampling: Sampling, within: Within) -> Sampling:
    """Return how a turn is drawn: as `sampling` says, and ended earlier where `within` says so."""
    most = min(within.max_tokens or sampling.max_tokens, sampling.max_tokens)
    return replace(sampling, max_tokens=most, stop=(*sampling.stop, *within.stop))


def continued(
    tokenizer: Tokenizer, prompt: Tokens, output: Tokens, messages: Sequence[Message], *, ended: bool
) -> Tokens:
    """Return a turn's tokens followed by the rendering of `messages`; `ended` says that it closed itself."""
    after = tokenizer.render([Message("user", "."), Message("assistant", _MARK), *messages])
    at = after.rfind(_MARK)
    if at < 0:
        raise ConfigError(
            "The chat template does not write down what the assistant said, so a conversation of several turns cannot "
            "be put to the model. Set policy.chat_template to a file with a template that does."
        )
    tail = tokenizer.encode(after[at + len(_MARK) :])
    # The template closes the assistant's turn itself; if the policy already did, once is enough.
    if ended and len(tail) and tail[0] == output[-1]:
        tail = tail[1:]
    return np.concatenate([prompt, output, tail]).astype(np.int32)


class RecordingHandle:
    """Implements `core.protocols.Spawns` for one attempt, and keeps the turns of all agents in it."""

    def __init__(
        self,
        speaker: Speaker,
        frozen: Callable[[], Speaker],
        *,
        seed: int,
        agent: str = "policy",
        started: float | None = None,
    ) -> None:
        """`frozen` gives who speaks for the agents it spawns; asked only if there are any."""
        self._speaker, self._frozen, self._seed, self._agent = speaker, frozen, seed, agent
        self._started = time.perf_counter() if started is None else started
        self._rounds: list[Round] = []
        self._tools: tuple[ToolSpec, ...] = ()
        self._children: list[tuple[int, RecordingHandle]] = []
        self._others: list[RecordingHandle] = []
        self._outcome = ""

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        """Continue the conversation with `messages`; the first call opens it. Raises `PromptTooLong`."""
        turn, calls = await self.turn(messages, tools, Within())
        return Reply(turn.text, len(turn.output), turn.stop, calls)

    async def turn(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], within: Within
    ) -> tuple[Turn, tuple[ToolCall, ...]]:
        """Do what `chat` does, within bounds; return the turn as it is recorded, and the tool calls in it."""
        if not self._rounds:
            self._tools = tuple(tools)
        seed = derive(self._seed, "turn", len(self._rounds))
        opened = Opened(tuple(self._rounds), tuple(messages), self._tools, within)
        turn, calls = await self._speaker.speak(opened, seed, time.perf_counter() - self._started)
        self._rounds.append(Round(opened.messages, turn, calls))
        return turn, calls

    def another(self) -> RecordingHandle:
        """Return the handle of a further conversation of this attempt, the policy's own like this one."""
        seed = derive(self._seed, "conversation", len(self._others))
        other = RecordingHandle(self._speaker, self._frozen, seed=seed, agent=self._agent, started=self._started)
        self._others.append(other)
        return other

    def spawn(self, agent: str) -> RecordingHandle:
        """Return the handle of a new frozen agent."""
        seed = derive(self._seed, "agent", len(self._children))
        child = RecordingHandle(self._frozen(), self._frozen, seed=seed, agent=agent, started=self._started)
        self._children.append((len(self._rounds) - 1, child))
        return child

    def ended(self, outcome: str) -> None:
        """Say how this agent ended, in a word for the record."""
        self._outcome = outcome

    def trajectories(self) -> tuple[Trajectory, ...]:
        """Return what was recorded: this agent's turns first, then those of the agents it spawned, each with theirs;
        then its further conversations."""
        found = list(self._listed(-1, -1, 0, trainable=True))
        for other in self._others:
            found += other._listed(-1, -1, len(found), trainable=True)
        return tuple(found)

    def _listed(self, parent: int, parent_turn: int, place: int, *, trainable: bool) -> Iterator[Trajectory]:
        turns = tuple(one.turn for one in self._rounds)
        yield Trajectory(turns, self._agent, trainable, parent, parent_turn, self._outcome)
        next_place = place + 1
        for turn, child in self._children:
            below = list(child._listed(place, turn, next_place, trainable=False))
            yield from below
            next_place += len(below)
