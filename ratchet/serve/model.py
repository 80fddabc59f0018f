"""The model behind an endpoint: requests become prompts, completions become messages."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ratchet.core.protocols import Completion, Engine, Request, Sampling
from ratchet.core.rollout import StopReason, Tokens, Turn
from ratchet.core.task import Message
from ratchet.core.tools import ToolCall, ToolSpec
from ratchet.policy.tokenizer import Tokenizer
from ratchet.serve.shapes import ApiError

SEED_BITS = 62


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as the API tells it."""

    text: str
    """Without the stop string, and without tool calls."""
    calls: tuple[ToolCall, ...]
    finish: str
    """``stop``, ``length`` or ``tool_calls``."""
    sampled: Completion | Turn
    """Its tokens and their log-probabilities."""
    prompt_tokens: int


def answer_of(
    tokenizer: Tokenizer,
    sampled: Completion | Turn,
    calls: Sequence[ToolCall],
    *,
    stop: Sequence[str],
    told_tools: bool,
    prompt_tokens: int,
) -> Answer:
    """Return what was sampled as text and those tool calls that can be read."""
    text = tokenizer.decode(sampled.output)
    places = [at for one in stop if (at := text.find(one)) >= 0]
    calls = tuple(call for call in calls if not call.error) if told_tools else ()
    if sampled.stop is StopReason.STOP and places:
        text = text[: min(places)]
    if calls:
        marker = tokenizer.tool_format.marker
        text = text.partition(marker)[0] if marker and marker in text else ""
    length = sampled.stop is StopReason.LENGTH
    finish = "length" if length else "tool_calls" if calls else "stop"
    return Answer(text, calls, finish, sampled, prompt_tokens)


def marks_of(tokenizer: Tokenizer, stop: Sequence[str], tools: Sequence[ToolSpec]) -> tuple[str, ...]:
    """Return what a stream holds text back behind: stop strings, and the beginning of a tool call."""
    marker = tokenizer.tool_format.marker if tools else ""
    return (*stop, *((marker,) if marker else ()))


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """A model that answers requests. Requests that come at the same time share the engine's batches."""

    name: str
    """What clients call it."""
    engine: Engine
    tokenizer: Tokenizer
    context: int
    """Most tokens of prompt and answer."""
    fingerprint: str
    """Of the weights that were loaded."""
    created: int
    """Seconds since 1970."""

    def chat_prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Tokens:
        """Return the tokens of a conversation up to where the model answers."""
        # Not `chat`, which remembers conversations by the names of their tools: these are strangers' tools.
        return self.tokenizer.encode(self.tokenizer.render(messages, tools))

    def room(self, prompt: Tokens, wanted: int | None, most: int) -> int:
        """Return how many tokens an answer may have. **Raises**: `ApiError` if the prompt leaves none."""
        if len(prompt) >= self.context or not len(prompt):
            raise ApiError(
                400,
                f"The prompt has {len(prompt)} tokens; the context holds {self.context}, and an answer needs room. "
                "Nothing is cut: send less.",
                code="context_length_exceeded",
                param="messages",
            )
        return min(wanted or self.context, most or self.context, self.context - len(prompt))

    async def generate(
        self, prompt: Tokens, sampling: Sampling, seeds: Sequence[int], told: Callable[[int, int], None] | None = None
    ) -> list[Completion]:
        """Return one completion for each seed; `told` hears (answer, token) while they are drawn."""

        def hear(index: int) -> Callable[[int], None] | None:
            return None if told is None else lambda token: told(index, token)

        requests = [Request(prompt, sampling, seed, hear(index)) for index, seed in enumerate(seeds)]
        tasks = [asyncio.ensure_future(self.engine.generate(request)) for request in requests]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # if one fails or the client goes, all places are freed
                task.cancel()


def seeds_of(seed: int | None, count: int) -> list[int]:
    """Return the seeds of some answers to one request: derived from the one given, or drawn."""
    first = secrets.randbits(SEED_BITS) if seed is None else seed
    return [(first + 0x9E3779B97F4A7C15 * index) % (1 << SEED_BITS) for index in range(count)]
