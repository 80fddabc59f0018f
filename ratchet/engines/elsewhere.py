"""An engine whose tokens come from elsewhere: a server, or another library's engine.

`ElsewhereEngine` is the `core.protocols.Engine` of all of them. It owns what they share: the thread they live in, how
many answers are asked for at once, cancelling, versions, and bringing a dead one back. A `Place` owns the rest: how
one answer is asked for and how weights get there. It never starts a second time in one version: an engine that dies
twice under the same weights will die a third time.

The calls of a place run in one thread of their own with its own event loop, for two reasons. `Engine.load` is a plain
function that must wait for a server's word, and the caller's event loop may end while the engine lives on.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor

from ratchet.core.errors import EngineError, RunError
from ratchet.core.protocols import Completion, Request
from ratchet.core.rollout import Floats, StopReason, Tokens
from ratchet.policy.policy import fingerprint

T = TypeVar("T")


class EngineGone(Exception):
    """The place does not answer any more: it died, or the way there is cut."""


@dataclass(frozen=True, slots=True)
class Label:
    """What weights are called at a place: version and fingerprint, so that its own word says which it holds."""

    version: int
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.version}:{self.fingerprint}"

    @classmethod
    def read(cls, text: str) -> Label:
        """Return the label a place answered with. **Raises**: `EngineError` if it is none of ours."""
        version, found, fingerprint = text.partition(":")
        if not found or not version.isdigit():
            raise EngineError(
                f'The engine answered with weights that it calls "{text}". This run never loaded such: somebody else '
                "updates this server too. Give the run a server of its own."
            )
        return cls(int(version), fingerprint)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came from a place."""

    tokens: Tokens
    """Sampled tokens, the end or stop token included."""
    logprobs: Floats
    """Log-probability of each under the distribution drawn from: tempered, cut, renormalised."""
    log_kept: Floats
    """Log of the mass that top-k and top-p left of the tempered distribution; empty if they cut nothing."""
    stop: StopReason
    spans: tuple[tuple[int, Label], ...] = ()
    """First token of each stretch that the same weights sampled, and their label; empty if the place does not say."""


class Place(Protocol):
    """Where answers come from. All calls come from one event loop; `generate` from any number of tasks of it.

    Every call may raise `EngineGone`.
    """

    async def open(self) -> None:
        """Get ready. **Raises**: `ConfigError` if it cannot be used as it is."""
        ...

    async def generate(self, request: Request, name: str) -> Answer:
        """Return the answer to a request; `name` is unique."""
        ...

    async def abort(self, name: str) -> None:
        """Free the slot of a request that nobody waits for any more; unknown names are fine."""
        ...

    async def load(self, weights: Mapping[str, Tensor], label: Label) -> None:
        """Put weights there in place of the old ones and forget what was computed with those.

        Answers in flight go on with the new ones. **Raises**: `EngineError` if other weights are there afterwards.
        """
        ...

    async def reopen(self) -> None:
        """Bring a dead place back; its weights are loaded anew afterwards."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """The weights that are loaded. Not a copy: `_revive` checks that they are still the same."""

    weights: Mapping[str, Tensor]
    label: Label


class ElsewhereEngine:
    """See `core.protocols.Engine`. `close` must be called: the thread lives until then."""

    def __init__(
        self,
        place: Place,
        *,
        context: int,
        max_rows: int,
        note: Callable[[str], None] = lambda text: None,
        digest: Callable[[Mapping[str, Tensor]], str] = fingerprint,
    ) -> None:
        """`note` is told, in a sentence, when the place died and came back; `digest` makes the fingerprint that weights
        are loaded with. **Raises**: as `Place.open`."""
        self._place, self._context, self._note, self._digest = place, context, note, digest
        self._held: _Held | None = None
        self._life, self._revived = 0, False
        self._names = itertools.count()
        self._closed = False
        self._tasks: set[asyncio.Task[Completion]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        self._reviving, self._slots = asyncio.Lock(), asyncio.Semaphore(max_rows)
        self.restarts = 0
        """How often the place died and was brought back."""
        opened = False
        try:
            self._there(self._place.open())
            opened = True
        finally:
            if not opened:
                self.close()

    @property
    def version(self) -> int:
        return -1 if self._held is None else self._held.label.version

    def load(self, weights: Mapping[str, Tensor], version: int, fingerprint: str) -> None:
        held = _Held(weights, Label(version, fingerprint))
        self._there(self._load(held))

    async def generate(self, request: Request) -> Completion:
        limit = min(request.sampling.max_tokens, self._context - len(request.prompt))
        assert limit > 0, "the explorer admits only prompts that leave room"
        assert len(request.prompt) > 0, "an empty prompt predicts nothing"
        assert self._held is not None, "load weights before generating"
        limited = replace(request, sampling=replace(request.sampling, max_tokens=limit))
        # Cancelling the caller cancels the wrapped future, and that one the task in the other thread.
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._tracked(limited), self._loop))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._there(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _there(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work in the engine's thread and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._place.close()

    async def _tracked(self, request: Request) -> Completion:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._closed:
                raise RunError("The engine was closed before a request was asked.")
            return await self._complete(request)
        except asyncio.CancelledError:
            if self._closed:
                raise RunError("The engine was closed while a request was in flight.") from None
            raise
        finally:
            self._tasks.discard(task)

    async def _complete(self, request: Request) -> Completion:
        started, name = time.perf_counter(), f"ratchet-{next(self._names)}"
        async with self._slots:
            while True:
                life, asked = self._life, self._held
                assert asked is not None
                try:
                    answer = await self._place.generate(request, name)
                    break
                except EngineGone as gone:
                    # Shielded: whoever waits may be cancelled, and the others still need the engine back.
                    await asyncio.shield(self._loop.create_task(self._revive(life, gone)))
                except asyncio.CancelledError:
                    await self._forget(name)
                    raise
        return self._completion(answer, asked.label, time.perf_counter() - started)

    async def _forget(self, name: str) -> None:
        """Free the slot of a cancelled request; a place that is gone has none."""
        try:
            await self._place.abort(name)
        except EngineGone:
            return

    def _completion(self, answer: Answer, asked: Label, seconds: float) -> Completion:
        assert self._held is not None
        spans = answer.spans
        if not spans and asked != self._held.label:
            raise EngineError(
                f"Weights {self._held.label.version} were loaded in the middle of an answer, and the engine does not "
                "say which tokens they sampled. Use a newer version of it, or set sync.partial_rollouts = false."
            )
        spans = spans or ((0, asked),)
        return Completion(
            output=answer.tokens,
            logprobs=answer.logprobs,
            log_kept=answer.log_kept,
            version=spans[0][1].version,
            last_version=spans[-1][1].version,
            fingerprint=spans[-1][1].fingerprint,
            stop=answer.stop,
            seconds=seconds,
            switches=tuple((place, label.version) for place, label in spans[1:]),
        )

    async def _load(self, held: _Held) -> None:
        life, self._revived = self._life, False
        try:
            await self._place.load(held.weights, held.label)
        except EngineGone as gone:
            await self._revive(life, gone, held)
        self._held = held

    async def _revive(self, life: int, gone: EngineGone, wanted: _Held | None = None) -> None:
        """Bring the place back with the weights it should hold, once per version. Whoever comes second finds it done.

        **Raises**: `EngineError` if it died before under these weights, or cannot be brought back.
        """
        async with self._reviving:
            if self._life != life:
                return
            held = wanted or self._held
            assert held is not None
            if self._revived:
                raise EngineError(
                    f"The engine died again under weights {held.label.version}, after it was brought back once: "
                    f"{gone} Look into its own log, and go on from the last checkpoint with ratchet resume."
                ) from gone
            self._revived = True
            self._note(f"The engine died and is brought back: {gone}")
            if (now := self._digest(held.weights)) != held.label.fingerprint:
                raise EngineError(
                    f"The engine died, and weights {held.label.version} cannot be loaded again: they have changed "
                    f"meanwhile ({now} now, {held.label.fingerprint} when they were handed over). Go on from the last "
                    "checkpoint with ratchet resume."
                ) from gone
            try:
                await self._place.reopen()
                await self._place.load(held.weights, held.label)
            except EngineGone as again:
                raise EngineError(
                    f"The engine died ({gone}) and could not be brought back: {again} Look into its own log, and go on "
                    "from the last checkpoint with ratchet resume."
                ) from again
            self.restarts += 1
            self._life += 1
            self._note(f"The engine is back, with weights {held.label.version}")
