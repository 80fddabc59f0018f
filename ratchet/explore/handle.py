"""The policy as an environment sees it. Tokens are the record; text is a view of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratchet.core.protocols import Engine, Reply, Request, Sampling
from ratchet.core.rollout import StopReason, Tokens, Trajectory, Turn
from ratchet.core.seeds import derive
from ratchet.core.task import Message
from ratchet.policy.tokenizer import Tokenizer

_MARK = "\u0001ratchet\u0001"
"""Stands for the policy's turn while the text after it is rendered."""


class PromptTooLong(Exception):
    """The conversation leaves no room for an answer. It is counted, never cut."""


class RecordingHandle:
    """Implements `core.protocols.PolicyHandle` for one attempt and keeps its turns."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, sampling: Sampling, *, context: int, seed: int) -> None:
        self._engine, self._tokenizer, self._sampling = engine, tokenizer, sampling
        self._context, self._seed = context, seed
        self._turns: list[Turn] = []

    async def chat(self, messages: Sequence[Message]) -> Reply:
        """Continue the conversation with `messages`; the first call opens it.

        Earlier turns are never rendered again: what was sampled stays, token for token, and only the new messages
        are rendered behind it. Raises `PromptTooLong`.
        """
        prompt = self._tokenizer.chat(messages) if not self._turns else self._continued(messages)
        if len(prompt) >= self._context:
            raise PromptTooLong(f"the prompt has {len(prompt)} tokens, the context holds {self._context}")
        seed = derive(self._seed, "turn", len(self._turns))
        done = await self._engine.generate(Request(prompt, self._sampling, seed))
        turn = Turn(
            prompt=prompt,
            output=done.output,
            logprobs=done.logprobs,
            log_kept=done.log_kept,
            version=done.version,
            last_version=done.last_version,
            fingerprint=done.fingerprint,
            stop=done.stop,
            text=self._tokenizer.decode(done.output),
            seconds=done.seconds,
            switches=done.switches,
        )
        self._turns.append(turn)
        return Reply(turn.text, len(turn.output), turn.stop)

    def trajectory(self) -> Trajectory:
        """Return what was recorded."""
        return Trajectory(tuple(self._turns))

    def _continued(self, messages: Sequence[Message]) -> Tokens:
        """Return the last turn's tokens followed by the rendering of `messages`."""
        last = self._turns[-1]
        after = self._tokenizer.render([Message("user", "."), Message("assistant", _MARK), *messages])
        tail = self._tokenizer.encode(after[after.rindex(_MARK) + len(_MARK) :])
        # The template closes the assistant's turn itself; if the policy already did, once is enough.
        if last.stop is StopReason.END and len(tail) and tail[0] == last.output[-1]:
            tail = tail[1:]
        return np.concatenate([last.prompt, last.output, tail]).astype(np.int32)
