"""Which conversation of an attempt a request goes on with. Clients repeat everything that was said; tokens are kept.

A request goes on with the longest conversation that it begins with, word for word. So an agent program may hold several
at once, or cut and rewrite its history: what does not go on with anything opens a conversation of its own, whose tokens
so far are then its prompt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.core.protocols import Converses, Within
from ratchet.core.rollout import Turn
from ratchet.core.task import Message
from ratchet.core.tools import ToolCall, ToolSpec
from ratchet.policy.tokenizer import Tokenizer
from ratchet.serve.model import Answer, answer_of

Calls = tuple[tuple[str, str], ...]
"""Name and arguments, in one spelling."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A message as conversations are told apart by it."""

    role: str
    text: str
    calls: Calls = ()

    def repeats(self, said: Heard) -> bool:
        """Return whether this is `said` once more. Clients trim an answer, and drop what stands beside its calls."""
        if (self.role, self.calls) != (said.role, said.calls):
            return False
        if self.role != "assistant":
            return self.text == said.text
        return self.text.strip() == said.text.strip() or (bool(said.calls) and not self.text)


def heard(message: Message, given: Mapping[str, Any]) -> Heard:
    """Return a message of a request, as it was read and as it was given."""
    calls = given.get("tool_calls") or ()
    if message.role != "assistant" or not calls:
        return Heard(message.role, message.content)
    content = given.get("content") or ""
    if not isinstance(content, str):
        content = "".join(str(part["text"]) for part in content)
    spelled = tuple(
        (str(c["function"]["name"]), _spelled(json.loads(c["function"]["arguments"] or "{}"))) for c in calls
    )
    return Heard("assistant", content, spelled)


def said(answer: Answer) -> Heard:
    """Return an answer as a client is told it."""
    return Heard("assistant", answer.text, tuple((call.name, _spelled(call.arguments)) for call in answer.calls))


def _spelled(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments), sort_keys=True, ensure_ascii=False)


@dataclass(slots=True, eq=False)
class _Conversation:
    handle: Converses
    tools: tuple[str, ...]
    known: list[Heard] = field(default_factory=list)
    busy: bool = False

    def goes_on_in(self, request: Sequence[Heard], tools: tuple[str, ...]) -> bool:
        if self.busy or self.tools != tools or len(request) <= len(self.known):
            return False
        return all(new.repeats(old) for new, old in zip(request, self.known, strict=False))


class Conversations:
    """The conversations of one attempt. For one event loop, that of the run."""

    def __init__(self, handle: Converses, tokenizer: Tokenizer) -> None:
        self._handle, self._tokenizer = handle, tokenizer
        self._open: list[_Conversation] = []

    def __len__(self) -> int:
        return len(self._open)

    async def answer(
        self, messages: Sequence[Message], given: Sequence[Mapping[str, Any]], tools: Sequence[ToolSpec], within: Within
    ) -> Answer:
        """Return the policy's turn after some messages, recorded. **Raises**: as `Converses.turn`."""
        request = [heard(message, one) for message, one in zip(messages, given, strict=True)]
        told = tuple(repr(tool) for tool in tools)
        found = [one for one in self._open if one.goes_on_in(request, told)]
        at = max(found, key=lambda one: len(one.known)) if found else self._new(told)
        at.busy = True
        try:
            turn, calls = await at.handle.turn(messages[len(at.known) :], tools, within)
        finally:
            at.busy = False
        answer = self._answer(turn, calls, tools, within)
        at.known = [*request, said(answer)]
        return answer

    def _new(self, tools: tuple[str, ...]) -> _Conversation:
        handle = self._handle.another() if self._open else self._handle
        self._open.append(_Conversation(handle, tools))
        return self._open[-1]

    def _answer(self, turn: Turn, calls: Sequence[ToolCall], tools: Sequence[ToolSpec], within: Within) -> Answer:
        return answer_of(
            self._tokenizer, turn, calls, stop=within.stop, told_tools=bool(tools), prompt_tokens=len(turn.prompt)
        )
