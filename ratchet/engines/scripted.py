"""An engine without a model: it says what a function of the prompt says. For testing environments and runs, yours too.

    engine = ScriptedEngine(tokenizer, lambda prompt, seed: "<answer>6</answer>", context=128)
    engine.load({}, 0, "")
    completion = await engine.generate(request)

Called by tests and by users' own; a run never makes one. It obeys `core.protocols.Engine` in everything but
arithmetic: what it says is certain, so every log-probability is 0.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

from ratchet.core.errors import RunError
from ratchet.core.protocols import Completion, Request
from ratchet.core.rollout import StopReason
from ratchet.policy.tokenizer import Tokenizer


class ScriptedEngine:
    """See `core.protocols.Engine`. One token a turn of the event loop, so that a load or a close can come between."""

    def __init__(self, tokenizer: Tokenizer, answer: Callable[[str, int], str], *, context: int) -> None:
        """`answer` gets the prompt as text (special tokens left out) and the request's seed."""
        self._tokenizer, self._answer, self._context = tokenizer, answer, context
        self._version, self._fingerprint = -1, ""
        self._lives = 0
        self.in_flight = 0
        """Requests being answered now."""

    @property
    def version(self) -> int:
        return self._version

    def load(self, weights: Mapping[str, Tensor], version: int, fingerprint: str) -> None:
        self._version, self._fingerprint = version, fingerprint

    def close(self) -> None:
        self._lives += 1

    async def generate(self, request: Request) -> Completion:
        assert self._version >= 0, "load weights before generating"
        limit = min(request.sampling.max_tokens, self._context - len(request.prompt))
        assert limit > 0, "the explorer admits only prompts that leave room"
        started, life = time.perf_counter(), self._lives
        text = self._answer(self._tokenizer.decode(request.prompt), request.seed)
        script = [*self._tokenizer.encode(text).tolist(), self._tokenizer.end_tokens[0]]
        said: list[int] = []
        first, stop = -1, None
        self.in_flight += 1
        try:
            while stop is None:
                await asyncio.sleep(0)
                if self._lives != life:
                    raise RunError("The engine was closed while a request was in flight.")
                first = self._version if first < 0 else first
                said.append(script[len(said)])
                if request.told is not None:
                    request.told(said[-1])
                stop = self._reason(said, request, limit)
        finally:
            self.in_flight -= 1
        return Completion(
            output=np.array(said, dtype=np.int32),
            logprobs=np.zeros(len(said), dtype=np.float32),
            log_kept=np.zeros(0, dtype=np.float32),
            version=first,
            last_version=self._version,
            fingerprint=self._fingerprint,
            stop=stop,
            seconds=time.perf_counter() - started,
        )

    def _reason(self, said: list[int], request: Request, limit: int) -> StopReason | None:
        if said[-1] in (*self._tokenizer.end_tokens, *request.sampling.stop_tokens):
            return StopReason.END
        if any(stop in self._tokenizer.decode(said) for stop in request.sampling.stop):
            return StopReason.STOP
        return StopReason.LENGTH if len(said) >= limit else None
