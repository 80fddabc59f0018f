"""What the endpoint asks of whoever stands behind it: requests understood, and answers given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ratchet.policy.tokenizer import Tokenizer
from ratchet.serve.model import Answer
from ratchet.serve.replies import Shape
from ratchet.serve.shapes import ChatRequest, TextRequest

Told = Callable[[int, int], None]
"""Hears (answer, token) while they are drawn, in the endpoint's own event loop."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that was understood."""

    shape: Shape
    count: int
    """How many answers."""
    ask: Callable[[Told | None], Awaitable[Sequence[Answer]]]
    """Gives the answers; may raise `ApiError` or `RatchetError`."""
    marks: Sequence[str]
    """What a stream holds text back behind."""
    logprobs: bool
    stream: bool
    told_usage: bool


class Speaks(Protocol):
    """Whoever answers. Its methods are called in the endpoint's event loop, and return at once."""

    @property
    def name(self) -> str:
        """What clients call the model."""
        ...

    @property
    def created(self) -> int:
        """Since when it is there, in seconds since 1970."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of the weights; empty if they change."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model."""
        ...

    def check(self, header: str) -> None:
        """**Raises**: `ApiError` unless the header ``Authorization`` opens the door."""
        ...

    def chat(self, asked: ChatRequest, header: str) -> Wanted:
        """Return what a conversation asks for. **Raises**: `ApiError`."""
        ...

    def text(self, asked: TextRequest, header: str) -> Wanted:
        """Return what a text asks for. **Raises**: `ApiError`."""
        ...


def wants_logprobs(asked: ChatRequest | TextRequest) -> bool:
    """Return whether log-probabilities are asked for; 0 asks for those of the sampled tokens."""
    return asked.logprobs not in (None, False)


def wants_usage(asked: ChatRequest | TextRequest) -> bool:
    """Return whether a stream is to end with the number of tokens."""
    return asked.stream_options is not None and asked.stream_options.include_usage
