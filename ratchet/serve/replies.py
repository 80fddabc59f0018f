"""Answers in the shapes of OpenAI's API, whole or as the events of a stream."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.core.tools import ToolCall
from ratchet.policy.tokenizer import Tokenizer
from ratchet.serve.model import Answer

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of answer: what it is called, and how text stands in it."""

    whole: str
    piece: str
    prefix: str
    chat: bool


CHAT = Shape("chat.completion", "chat.completion.chunk", "chatcmpl-", chat=True)
TEXT = Shape("text_completion", "text_completion", "cmpl-", chat=False)


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all parts of one answer share."""

    shape: Shape
    model: str
    fingerprint: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def put(self, choices: Sequence[Mapping[str, Any]], *, piece: bool, **more: Any) -> dict[str, Any]:
        """Return choices in their envelope."""
        return {
            "id": self.shape.prefix + self.id,
            "object": self.shape.piece if piece else self.shape.whole,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": list(choices),
            **more,
        }


def choice(shape: Shape, index: int, answer: Answer, logprobs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return one whole answer."""
    said: dict[str, Any] = {"index": index, "finish_reason": answer.finish, "logprobs": logprobs}
    if not shape.chat:
        return {**said, "text": answer.text}
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or (None if answer.calls else "")}
    if answer.calls:
        message["tool_calls"] = tool_calls(answer.calls)
    return {**said, "message": message}


def piece(shape: Shape, index: int, text: str, *, first: bool = False) -> dict[str, Any]:
    """Return a part of an answer that is still being written."""
    if not shape.chat:
        return {"index": index, "text": text, "finish_reason": None, "logprobs": None}
    delta = {**({"role": "assistant"} if first else {}), "content": text}
    return {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}


def last_piece(shape: Shape, index: int, answer: Answer, rest: str, logprobs: Any) -> dict[str, Any]:
    """Return the end of a streamed answer: what was held back, tool calls, and why it ended."""
    said: dict[str, Any] = {"index": index, "finish_reason": answer.finish, "logprobs": logprobs}
    if not shape.chat:
        return {**said, "text": rest}
    calls = [{"index": i, **call} for i, call in enumerate(tool_calls(answer.calls))]
    return {**said, "delta": {**({"content": rest} if rest else {}), **({"tool_calls": calls} if calls else {})}}


def tool_calls(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    """Return tool calls as the API tells them."""
    return [
        {
            "id": f"call_{secrets.token_hex(8)}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
        }
        for call in calls
    ]


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Return the number of tokens, the end token included; the prompt counts once."""
    prompt_tokens = answers[0].prompt_tokens
    sampled = sum(len(answer.sampled.output) for answer in answers)
    return {"prompt_tokens": prompt_tokens, "completion_tokens": sampled, "total_tokens": prompt_tokens + sampled}


def logprobs_of(shape: Shape, answer: Answer, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the log-probability of each sampled token, under the distribution that it was drawn from."""
    pieces = tokenizer.pieces(answer.sampled.output)
    values = [float(x) for x in answer.sampled.logprobs]
    if not shape.chat:
        return {"tokens": pieces, "token_logprobs": values, "top_logprobs": None, "text_offset": []}
    content = [
        {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
        for token, value in zip(pieces, values, strict=True)
    ]
    return {"content": content, "refusal": None}


def event(body: Mapping[str, Any]) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"
