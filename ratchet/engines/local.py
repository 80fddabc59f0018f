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
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ratchet.core.errors import RunError
from ratchet.core.protocols import Completion, Request
from ratchet.core.rollout import Floats, StopReason
from ratchet.engines.runner import Runner
from ratchet.engines.sampling import draw, uniforms
from ratchet.policy.tokenizer import Tokenizer

TAIL = 48
"""Tokens decoded to look for a stop string: more than any stop string is long."""


@dataclass(eq=False)
class _Row:
    """One sequence in flight. The only mutable record of the engine."""

    request: Request
    future: asyncio.Future[Completion]
    limit: int
    ends: frozenset[int]
    asked: float
    number: int = -1
    first_version: int = -1
    length: int = 0


class LocalEngine:
    """See `core.protocols.Engine`."""

    def __init__(self, runner: Runner, tokenizer: Tokenizer, *, context: int, max_rows: int, device: torch.device) -> None:
        self._runner, self._tokenizer, self._device = runner, tokenizer, device
        self._context, self._max_rows = context, max_rows
        self._ends = frozenset(tokenizer.end_tokens)
        self._waiting: list[_Row] = []
        self._live: list[_Row] = []
        self._tokens = np.zeros((0, 0), dtype=np.int32)  # what each live row has produced so far, row by row
        self._logps = np.zeros((2, 0, 0), dtype=np.float32)  # log-probability, and log of the mass kept
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

    def close(self) -> None:
        for row in [*self._waiting, *self._live]:
            if not row.future.done():
                row.future.set_exception(RunError("The engine was closed while a request was in flight."))
        self._runner.release([r.number for r in self._live])
        self._waiting, self._live = [], []

    async def generate(self, request: Request) -> Completion:
        limit = min(request.sampling.max_tokens, self._context - len(request.prompt))
        assert limit > 0 and len(request.prompt) > 0, "the explorer admits only prompts that leave room"
        assert self._version >= 0, "load weights before generating"
        loop = asyncio.get_running_loop()
        ends = self._ends | frozenset(request.sampling.stop_tokens)
        row = _Row(request, loop.create_future(), limit, ends, time.perf_counter())
        self._waiting.append(row)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._run())
            self._pump.add_done_callback(self._fail_all)
        return await row.future  # cancelling the caller cancels the future; the pump then frees the row

    async def _run(self) -> None:
        while self._waiting or self._live:
            await asyncio.sleep(0)
            self._drop_cancelled()
            self._admit()
            if self._live:
                self._advance()

    def _fail_all(self, pump: asyncio.Task[None]) -> None:
        """If the pump died, so do all requests, with its reason."""
        error = None if pump.cancelled() else pump.exception()
        if error is not None or pump.cancelled():
            for row in [*self._waiting, *self._live]:
                if not row.future.done():
                    row.future.set_exception(error or asyncio.CancelledError())
            self._waiting, self._live = [], []

    def _drop_cancelled(self) -> None:
        self._waiting = [r for r in self._waiting if not r.future.cancelled()]
        gone = np.array([r.future.cancelled() for r in self._live], dtype=bool)
        if gone.any():
            self._keep(~gone)

    def _admit(self) -> None:
        """Prefill waiting requests as far as there is place, each distinct prompt once."""
        free = self._max_rows - len(self._live)
        entering, self._waiting = self._waiting[:free], self._waiting[free:]
        if not entering:
            return
        started = time.perf_counter()
        by_prompt: dict[bytes, list[_Row]] = {}
        for row in entering:
            by_prompt.setdefault(row.request.prompt.tobytes(), []).append(row)
        families = list(by_prompt.values())
        room = max(row.limit for row in entering)
        numbers, logits = self._runner.prefill(
            [f[0].request.prompt for f in families], [len(f) for f in families], room
        )
        for family, given in zip(families, numbers, strict=True):
            for row, number in zip(family, given, strict=True):
                row.number, row.first_version = number, self._version
        self._reserve(len(entering), room)
        self.seconds["prefill"] += time.perf_counter() - started
        each = torch.repeat_interleave(logits, torch.tensor([len(f) for f in families], device=logits.device), dim=0)
        first = len(self._live)
        self._live += [row for family in families for row in family]
        self._emit(each, np.arange(first, len(self._live)))

    def _advance(self) -> None:
        """One token for every live row."""
        started = time.perf_counter()
        last = self._tokens[np.arange(len(self._live)), [r.length - 1 for r in self._live]]
        tokens = torch.from_numpy(last.astype(np.int64)).to(self._device)
        logits = self._runner.step([r.number for r in self._live], tokens)
        self.seconds["decode"] += time.perf_counter() - started
        self._emit(logits, np.arange(len(self._live)))

    def _emit(self, logits: Tensor, at: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        """Draw a token for the live rows `at`, record it, and finish the rows it ends."""
        started = time.perf_counter()
        rows = [self._live[i] for i in at]
        lengths = np.array([r.length for r in rows], dtype=np.int64)
        seeds = np.array([r.request.seed for r in rows], dtype=np.uint64)
        to = lambda values: torch.tensor(values, device=logits.device)  # noqa: E731
        sampling = [r.request.sampling for r in rows]
        token, logp, kept = draw(
            logits,
            torch.from_numpy(uniforms(seeds, lengths)).to(logits.device),
            to([s.temperature for s in sampling]),
            to([s.top_p for s in sampling]),
            to([s.top_k for s in sampling]),
        )
        drawn = token.cpu().numpy()
        self._tokens[at, lengths] = drawn
        self._logps[0, at, lengths] = logp.cpu().numpy()
        self._logps[1, at, lengths] = kept.cpu().numpy()
        gone = np.zeros(len(self._live), dtype=bool)
        for i, row, value in zip(at, rows, drawn.tolist(), strict=True):
            row.length += 1
            reason = self._reason(row, int(i), value)
            if reason is not None:
                self._finish(row, int(i), reason)
                gone[i] = True
        if gone.any():
            self._keep(~gone)
        self.seconds["sample"] += time.perf_counter() - started

    def _reason(self, row: _Row, i: int, token: int) -> StopReason | None:
        if token in row.ends:
            return StopReason.END
        if row.request.sampling.stop:
            tail = self._tokenizer.decode(self._tokens[i, max(0, row.length - TAIL) : row.length])
            if any(s in tail for s in row.request.sampling.stop):
                return StopReason.STOP
        return StopReason.LENGTH if row.length >= row.limit else None

    def _finish(self, row: _Row, i: int, reason: StopReason) -> None:
        if row.future.done():  # cancelled meanwhile
            return
        n = row.length
        kept: Floats = self._logps[1, i, :n]
        row.future.set_result(
            Completion(
                output=self._tokens[i, :n].copy(),
                logprobs=self._logps[0, i, :n].copy(),
                log_kept=kept.copy() if kept.any() else kept[:0].copy(),
                version=row.first_version,
                last_version=self._version,
                fingerprint=self._fingerprint,
                stop=reason,
                seconds=time.perf_counter() - row.asked,
            )
        )

    def _keep(self, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        """Let go of the other live rows."""
        self._runner.release([r.number for r, k in zip(self._live, keep, strict=True) if not k])
        self._live = [r for r, k in zip(self._live, keep, strict=True) if k]
        self._tokens, self._logps = self._tokens[: len(keep)][keep], self._logps[:, : len(keep)][:, keep]

    def _reserve(self, more: int, room: int) -> None:
        """Make place for `more` rows of up to `room` tokens."""
        rows, width = len(self._live) + more, max(room, self._tokens.shape[1])
        have = self._tokens.shape
        self._tokens = np.pad(self._tokens, ((0, rows - have[0]), (0, width - have[1])))
        self._logps = np.pad(self._logps, ((0, 0), (0, rows - have[0]), (0, width - have[1])))


def generate_all(engine: LocalEngine, requests: Sequence[Request]) -> list[Completion]:
    """Return the completions of many requests, for programs without an event loop."""

    async def gather() -> list[Completion]:
        return list(await asyncio.gather(*(engine.generate(r) for r in requests)))

    return asyncio.run(gather())
