"""The default engine: this process generates with the project's own decoder, batching whatever is asked at once.

It owns scheduling, sampling and stopping; the arithmetic and the cache belong to a `Runner`. All coroutines that
wait for a completion share one pump: it lets everyone who wants to ask, ask; admits what fits; advances every row by
one token; hands out what is finished; and begins again. Nothing here depends on time, so the same requests give the
same batches.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ratchet.core.errors import RunError
from ratchet.core.protocols import Completion, Request
from ratchet.core.rollout import Floats, StopReason, Tokens
from ratchet.engines.runner import Runner
from ratchet.engines.sampling import draw, uniforms
from ratchet.policy.tokenizer import Tokenizer

Column = NDArray[Any]

TAIL = 48
"""Tokens decoded to look for a stop string, unless one is longer."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A request and who waits for it."""

    request: Request
    future: asyncio.Future[Completion]
    limit: int
    """Most new tokens, the context considered."""
    at: float
    """When it was asked."""
    switches: list[tuple[int, int]] = field(default_factory=list)
    """Loads in the middle of the answer: (place of the first token of the new weights, their version)."""


class _Live:
    """The rows in flight as columns, so that a step over all of them is a few array operations."""

    def __init__(self) -> None:
        self.asked: list[_Asked] = []
        self.number: Column = np.zeros(0, dtype=np.int64)
        """The runner's name of each row."""
        self.length: Column = np.zeros(0, dtype=np.int64)
        self.limit: Column = np.zeros(0, dtype=np.int64)
        self.version: Column = np.zeros(0, dtype=np.int64)
        """Version that sampled the first token."""
        self.seed: Column = np.zeros(0, dtype=np.uint64)
        self.temperature: Column = np.zeros(0, dtype=np.float32)
        self.top_p: Column = np.zeros(0, dtype=np.float32)
        self.top_k: Column = np.zeros(0, dtype=np.int64)
        self.special: Column = np.zeros(0, dtype=bool)
        """Rows with end tokens or stop strings of their own."""
        self.told: Column = np.zeros(0, dtype=bool)
        """Rows whose request wants to hear of each token."""
        self.tokens: Column = np.zeros((0, 0), dtype=np.int32)
        self.logprob: Column = np.zeros((0, 0), dtype=np.float32)
        self.log_kept: Column = np.zeros((0, 0), dtype=np.float32)

    def __len__(self) -> int:
        return len(self.asked)

    def add(self, asked: list[_Asked], numbers: list[int], version: int) -> None:
        """Append rows that have produced nothing yet."""
        sampling = [a.request.sampling for a in asked]
        columns = {
            "number": numbers,
            "length": [0] * len(asked),
            "limit": [a.limit for a in asked],
            "version": [version] * len(asked),
            "seed": [a.request.seed for a in asked],
            "temperature": [s.temperature for s in sampling],
            "top_p": [s.top_p for s in sampling],
            "top_k": [s.top_k for s in sampling],
            "special": [bool(s.stop or s.stop_tokens) for s in sampling],
            "told": [a.request.told is not None for a in asked],
        }
        for name, values in columns.items():
            old: Column = self.__dict__[name]
            self.__dict__[name] = np.concatenate([old, np.array(values, dtype=old.dtype)])
        width = max([a.limit for a in asked] + [self.tokens.shape[1]])
        for name in ("tokens", "logprob", "log_kept"):
            old = self.__dict__[name]
            self.__dict__[name] = np.pad(old, ((0, len(asked)), (0, width - old.shape[1])))
        self.asked += asked

    def keep(self, kept: Column) -> None:
        """Forget the rows where `kept` is false."""
        self.asked = [a for a, k in zip(self.asked, kept, strict=True) if k]
        for name, column in self.__dict__.items():
            if name != "asked":
                self.__dict__[name] = column[kept]


class LocalEngine:
    """See `core.protocols.Engine`."""

    def __init__(
        self, runner: Runner, tokenizer: Tokenizer, *, context: int, max_rows: int, device: torch.device
    ) -> None:
        self._runner, self._tokenizer, self._device = runner, tokenizer, device
        self._context, self._max_rows = context, max_rows
        self._ends = np.array(tokenizer.end_tokens, dtype=np.int32)
        self._waiting: list[_Asked] = []
        self._live = _Live()
        self._pump: asyncio.Task[None] | None = None
        self._version, self._fingerprint = -1, ""
        self.seconds = {"prefill": 0.0, "decode": 0.0, "sample": 0.0}
        """Where the time went since the engine was made."""

    @property
    def version(self) -> int:
        return self._version

    def load(self, weights: Mapping[str, Tensor], version: int, fingerprint: str) -> None:
        self._runner.load(weights)
        self._version, self._fingerprint = version, fingerprint
        for asked, place in zip(self._live.asked, self._live.length.tolist(), strict=True):
            asked.switches.append((place, version))

    @property
    def runner(self) -> Runner:
        """What decodes."""
        return self._runner

    def rehearse(self, prompt: Tokens, rows: int, room: int) -> None:
        """Open so many rows at once, each with room for so many tokens, and let them go again.

        Where a runner claims its cache at once, torch raises here if that does not fit.
        """
        numbers, _ = self._runner.prefill([prompt], [rows], room)
        self._runner.step(numbers[0], torch.zeros(rows, dtype=torch.int64, device=self._device))
        self._runner.release(numbers[0])

    def close(self) -> None:
        self._runner.release(self._live.number.tolist())
        self._fail(RunError("The engine was closed while a request was in flight."))

    async def generate(self, request: Request) -> Completion:
        limit = min(request.sampling.max_tokens, self._context - len(request.prompt))
        assert limit > 0, "the explorer admits only prompts that leave room"
        assert len(request.prompt) > 0, "an empty prompt predicts nothing"
        assert self._version >= 0, "load weights before generating"
        loop = asyncio.get_running_loop()
        asked = _Asked(request, loop.create_future(), limit, time.perf_counter())
        self._waiting.append(asked)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._run())
            self._pump.add_done_callback(self._after_pump)
        return await asked.future  # cancelling the caller cancels the future; the pump then frees the row

    async def _run(self) -> None:
        while self._waiting or len(self._live):
            await asyncio.sleep(0)
            self._drop_cancelled()
            self._admit()
            if len(self._live):
                self._advance()

    def _after_pump(self, pump: asyncio.Task[None]) -> None:
        """If the pump died, so do all requests, with its reason."""
        if pump.cancelled():
            self._fail(RunError("The engine was stopped while requests were in flight."))
        elif (error := pump.exception()) is not None:
            failure = RunError(f"The engine failed while generating: {type(error).__name__}: {error}")
            failure.__cause__ = error
            self._fail(failure)

    def _fail(self, error: RunError) -> None:
        for asked in [*self._waiting, *self._live.asked]:
            if not asked.future.done():
                asked.future.set_exception(error)
        self._waiting, self._live = [], _Live()

    def _drop_cancelled(self) -> None:
        self._waiting = [a for a in self._waiting if not a.future.cancelled()]
        gone = np.array([a.future.cancelled() for a in self._live.asked], dtype=bool)
        if gone.any():
            self._let_go(gone)

    def _admit(self) -> None:
        """Prefill waiting requests as far as there is place, each distinct prompt once."""
        free = self._max_rows - len(self._live)
        entering = self._waiting[:free]
        if not entering:
            return
        started = time.perf_counter()
        families: dict[bytes, list[_Asked]] = {}
        for asked in entering:
            families.setdefault(asked.request.prompt.tobytes(), []).append(asked)
        copies = [len(f) for f in families.values()]
        prompts = [f[0].request.prompt for f in families.values()]
        # A long prompt beside a short one: the short one's room would lead the long one beyond the context. The longest
        # prompt and its own room bound what any row needs.
        room = min(max(a.limit for a in entering), self._context - max(len(p) for p in prompts))
        numbers, logits = self._runner.prefill(prompts, copies, room)
        self._waiting = self._waiting[free:]  # not before: if the runner fails, these requests must be told
        first = len(self._live)
        self._live.add([a for f in families.values() for a in f], [n for f in numbers for n in f], self._version)
        self.seconds["prefill"] += time.perf_counter() - started
        self._emit(logits.repeat_interleave(torch.tensor(copies, device=logits.device), dim=0), slice(first, None))

    def _advance(self) -> None:
        """One token for every live row."""
        started = time.perf_counter()
        live = self._live
        last = live.tokens[np.arange(len(live)), live.length - 1].astype(np.int64)
        logits = self._runner.step(live.number.tolist(), torch.from_numpy(last).to(self._device))
        self.seconds["decode"] += time.perf_counter() - started
        self._emit(logits, slice(0, None))

    def _emit(self, logits: Tensor, rows: slice) -> None:
        """Draw a token for these rows, record it, and finish the rows it ends."""
        started = time.perf_counter()
        live, device = self._live, logits.device
        length = live.length[rows].copy()
        drawn = draw(
            logits,
            torch.from_numpy(uniforms(live.seed[rows], length)).to(device),
            torch.from_numpy(live.temperature[rows]).to(device),
            torch.from_numpy(live.top_p[rows]).to(device),
            torch.from_numpy(live.top_k[rows]).to(device),
        )
        at = np.arange(len(live))[rows], length
        for column, values in zip((live.tokens, live.logprob, live.log_kept), drawn, strict=True):
            column[at] = values.cpu().numpy()
        live.length[rows] += 1
        for i in np.flatnonzero(live.told[rows]) + (rows.start or 0):
            if (told := live.asked[i].request.told) is not None:
                told(int(live.tokens[i, live.length[i] - 1]))
        ended = np.zeros(len(live), dtype=bool)
        ended[rows] = np.isin(live.tokens[at], self._ends) | (live.length[rows] >= live.limit[rows])
        for i in np.flatnonzero(live.special[rows]) + (rows.start or 0):
            ended[i] |= self._reason(int(i)) is not StopReason.LENGTH
        for i in np.flatnonzero(ended):
            self._finish(int(i))
        if ended.any():
            self._let_go(ended)
        self.seconds["sample"] += time.perf_counter() - started

    def _reason(self, i: int) -> StopReason:
        """Say why row `i` would end here; LENGTH if nothing but its limit could end it."""
        live, sampling = self._live, self._live.asked[i].request.sampling
        n = int(live.length[i])
        if live.tokens[i, n - 1] in self._ends or live.tokens[i, n - 1] in sampling.stop_tokens:
            return StopReason.END
        if sampling.stop:
            reach = max(TAIL, *(len(s.encode()) for s in sampling.stop))  # a token is a byte at least
            tail = self._tokenizer.decode(live.tokens[i, max(0, n - reach) : n])
            if any(s in tail for s in sampling.stop):
                return StopReason.STOP
        return StopReason.LENGTH

    def _finish(self, i: int) -> None:
        live, asked = self._live, self._live.asked[i]
        if asked.future.done():  # cancelled meanwhile
            return
        n = int(live.length[i])
        kept: Floats = live.log_kept[i, :n]
        asked.future.set_result(
            Completion(
                output=live.tokens[i, :n].copy(),
                logprobs=live.logprob[i, :n].copy(),
                log_kept=kept.copy() if kept.any() else kept[:0].copy(),
                version=int(live.version[i]),
                last_version=self._version,
                fingerprint=self._fingerprint,
                stop=self._reason(i),
                seconds=time.perf_counter() - asked.at,
                switches=tuple(asked.switches),
            )
        )

    def _let_go(self, gone: Column) -> None:
        """Free the rows where `gone` is true."""
        self._runner.release(self._live.number[gone].tolist())
        self._live.keep(~gone)


def generate_all(engine: LocalEngine, requests: Sequence[Request]) -> list[Completion]:
    """Return the completions of many requests, for programs without an event loop."""

    async def gather() -> list[Completion]:
        return list(await asyncio.gather(*(engine.generate(r) for r in requests)))

    return asyncio.run(gather())
