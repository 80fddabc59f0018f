"""A frozen model behind the endpoint: every request stands for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.core.rollout import Tokens
from ratchet.core.tools import ToolSpec
from ratchet.policy.tokenizer import Tokenizer
from ratchet.serve.limits import Door
from ratchet.serve.model import Answer, Served, answer_of, marks_of, seeds_of
from ratchet.serve.replies import CHAT, TEXT, Shape
from ratchet.serve.shapes import ApiError, ChatRequest, TextRequest
from ratchet.serve.wanted import Told, Wanted, wants_logprobs, wants_usage


@dataclass(frozen=True, slots=True)
class Plain:
    """See `wanted.Speaks`."""

    served: Served
    door: Door

    @property
    def name(self) -> str:
        return self.served.name

    @property
    def created(self) -> int:
        return self.served.created

    @property
    def fingerprint(self) -> str:
        return self.served.fingerprint

    @property
    def tokenizer(self) -> Tokenizer:
        return self.served.tokenizer

    def check(self, header: str) -> None:
        self.door.check_token(header)

    def chat(self, asked: ChatRequest, header: str) -> Wanted:
        tools = asked.tool_specs()
        prompt = self.served.chat_prompt(asked.conversation(), tools)
        return self._wanted(asked, CHAT, prompt, asked.max_completion_tokens or asked.max_tokens, tools)

    def text(self, asked: TextRequest, header: str) -> Wanted:
        given = asked.prompt
        if not isinstance(given, str) and not all(0 <= token < self.tokenizer.vocab_size for token in given):
            raise ApiError(400, "prompt holds numbers that are no tokens.", code="invalid_value", param="prompt")
        prompt = self.tokenizer.encode(given) if isinstance(given, str) else np.array(given, dtype=np.int32)
        return self._wanted(asked, TEXT, prompt, asked.max_tokens, ())

    def _wanted(
        self,
        asked: ChatRequest | TextRequest,
        shape: Shape,
        prompt: Tokens,
        most: int | None,
        tools: Sequence[ToolSpec],
    ) -> Wanted:
        count, limits = asked.n or 1, self.door.limits
        if count > limits.choices:
            raise ApiError(400, f"n is above {limits.choices}.", code="invalid_value", param="n")
        sampling = asked.sampling(self.served.room(prompt, most, limits.tokens))
        seeds = seeds_of(asked.seed, count)

        async def ask(told: Told | None) -> list[Answer]:
            return [
                answer_of(
                    self.tokenizer,
                    one,
                    # How calls look is told by the chat template, which a base model lacks.
                    self.tokenizer.tool_calls(one.output, self.tokenizer.decode(one.output), asked=True)
                    if tools
                    else (),
                    stop=sampling.stop,
                    told_tools=bool(tools),
                    prompt_tokens=len(prompt),
                )
                for one in await self.served.generate(prompt, sampling, seeds, told)
            ]

        marks = marks_of(self.tokenizer, sampling.stop, tools)
        return Wanted(shape, count, ask, marks, wants_logprobs(asked), bool(asked.stream), wants_usage(asked))
