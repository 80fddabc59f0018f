"""Checks programs in a warm pool of jailed workers: a few milliseconds each, in two fresh processes.

    async with CheckPool(section, open_jails(section)) as pool:
        result = await pool.check(Program(module="def f(x): ...", test="from solution import f ..."))

**Who can forge a verdict.** A verdict is what the test's process reports, so the question is who can write there. The
module under test cannot: it lives in another process, pid namespace and mount namespace; only plain data crosses (no
object, so no `__eq__` of its), and if its process ends early that is the verdict. The test can say what it likes about
itself, and gains nothing: it sees the module only by calling it and never held its source, so a test that fails on one
version and passes on another has found inputs on which they differ. Between checks nothing stays: fresh processes,
an empty scratch folder, no shared memory, and workers that never read a source.

**What remains possible.** A test may toss a coin or look at the clock: run it again, in an order it cannot know (always
"buggy, then fixed" would tell it). A module may recognise the inputs of a test and answer them by rote. With
`Program.apart` off both share an interpreter and each can rewrite the other; `CheckResult.apart` says so. Calls can be
timed, so versions that differ in speed can be told apart. See `ratchet.sandbox` for what no box here protects against.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from ratchet.core.errors import RunError
from ratchet.sandbox.box import MEBIBYTE, LimitHit, Limits, Settings
from ratchet.sandbox.inside import frame
from ratchet.sandbox.jailed import Jail, Walls, limits_spec, spec_of
from ratchet.sandbox.lease import Leases
from ratchet.sandbox.program import CHECK_LIMITS, CheckResult, How, Outcome, Program
from ratchet.sandbox.view import View

_START_S = 30.0
"""How long a worker may take to import what it needs."""

_GRACE_S = 2.0
"""How long a worker may take beyond a check's own limit before it is taken for lost, killed and replaced."""

_WARM = ("random", "math", "itertools", "functools", "collections", "re", "string", "typing", "dataclasses", "json",
         "importlib.machinery", "linecache", "traceback", "copy", "operator", "heapq", "bisect")  # fmt: skip
"""What a worker has imported for tests before they ask."""


class Jails(Protocol):
    """A back end that can hold warm workers: `bubblewrap`, `linux`, and `linux` without isolation."""

    name: str
    layers: tuple[str, ...]
    leases: Leases

    @property
    def view(self) -> View: ...

    def walls(self, scratch_bytes: int, folder: str = "") -> Walls: ...


class CheckPool:
    """Warm workers, started when first needed; a lost one is replaced.

    Used from one event loop at a time; any number of coroutines may wait in `check`; cancelling one kills its check.
    """

    def __init__(self, section: Settings, box: Jails) -> None:
        """Checks run in the jails of `box`, `section.workers` of them at once for each kind of test."""
        self._box = box
        # One more than cores: while a worker hands over its answer and takes the next check, its core is free.
        self.size = section.workers or len(os.sched_getaffinity(0)) + 1
        self._idle: dict[str, list[_Worker]] = {"plain": [], "pytest": []}
        self._free = {kind: asyncio.Semaphore(self.size) for kind in self._idle}
        self._busy: set[_Worker] = set()
        self._layers = box.layers
        self._processes = max(section.processes, CHECK_LIMITS.processes)
        self.replaced = 0
        """Workers that were lost and replaced: killed with a check that was cancelled, or out of memory."""

    @property
    def layers(self) -> tuple[str, ...]:
        """The protections in force; those per check are known once a worker has started."""
        return self._layers

    async def check(self, program: Program) -> CheckResult:
        """Return what became of `program`. **Raises**: `RunError` if no worker can be started."""
        kind = "pytest" if program.how is How.PYTEST or "pytest" in program.test else "plain"
        async with self._free[kind]:
            worker = self._idle[kind].pop() if self._idle[kind] else await self._start(kind)
            self._busy.add(worker)
            healthy = False
            try:
                answer = await worker.check(program)
                healthy = answer is not None
            finally:
                self._busy.discard(worker)
                if healthy:
                    self._idle[kind].append(worker)
                else:
                    self.replaced += 1
                    await asyncio.shield(worker.end())
        if answer is None:
            answer = worker.last_words(program.limits)
        return _result(answer, program)

    async def warm(self, kind: str = "plain") -> None:
        """Start all workers of a kind ("plain" or "pytest") now."""
        missing = self.size - len(self._idle[kind]) - len(self._busy)
        started = await asyncio.gather(*(self._start(kind) for _ in range(missing)))
        self._idle[kind] += started

    def close(self) -> None:
        """Kill all workers at once; checks in flight end as KILLED. May be called twice; a later check starts anew."""
        for worker in (*self._busy, *(w for idle in self._idle.values() for w in idle)):
            worker.kill()
        for idle in self._idle.values():
            idle.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        workers = [w for idle in self._idle.values() for w in idle]
        await asyncio.gather(*(w.end() for w in workers))
        self.close()

    async def _start(self, kind: str) -> _Worker:
        worker = await _Worker.start(kind, self._box, 2 * self._processes + 16)
        self._layers = tuple(dict.fromkeys((*self._box.layers, *worker.layers)))
        return worker


class _Worker:
    """One jail with a warm interpreter in it."""

    def __init__(self, kind: str, box: Jails) -> None:
        self._held = ExitStack()
        self._kind, self._box = kind, box
        self.layers: tuple[str, ...] = ()
        self._out_of_memory = False
        self._out_of_time = False
        self._words = ""

    @staticmethod
    async def start(kind: str, box: Jails, processes: int) -> _Worker:
        """Return a worker that is ready; all of it may have `processes`. **Raises**: `RunError` if it cannot be had."""
        worker = _Worker(kind, box)
        lease = worker._held.enter_context(box.leases.take(f"warm worker ({kind})", box.name))
        walls = box.walls(MEBIBYTE, str(lease.folder))
        # Beyond what single processes may use, a worker as a whole: its own memory and two processes at their limit.
        worker._jail = await Jail.start(walls, 2048 * MEBIBYTE, processes)
        try:
            warm = [*_WARM, *(["pytest"] if kind == "pytest" else [])]
            await worker._jail.send(spec_of(walls, box.view, mode="worker", warm=warm, scratch_bytes=MEBIBYTE))
            async with asyncio.timeout(_START_S):
                ready = await worker._jail.receive()
        except (TimeoutError, ConnectionError):
            ready = None
        if ready is None:
            await worker.end()
            raise RunError(f"A warm worker could not be started in {box.name}: {worker._words}")
        layers = ready["layers"]
        assert isinstance(layers, list)
        worker.layers = tuple(layers)
        return worker

    async def check(self, program: Program) -> dict[str, object] | None:
        """Return the worker's answer; None if the worker was lost."""
        message: dict[str, object] = {
            "how": program.how.value, "name": program.name, "entry_points": list(program.entry_points),
            "expected": list(program.expected), "apart": program.apart, "may_read": program.may_read,
            "limits": limits_spec(program.limits), "test": program.test, "module": program.module,
        }  # fmt: skip
        try:
            async with asyncio.timeout(program.limits.wall_s + _GRACE_S):
                await self._jail.send(message)
                return await self._jail.receive()
        except TimeoutError:
            self._out_of_time = True
        except (OSError, frame.BadFrame):
            pass
        return None

    def last_words(self, limits: Limits) -> dict[str, object]:
        """Return the verdict on the check that a worker was lost with."""
        if self._out_of_time:
            return {"outcome": "timeout", "hit": "wall", "seconds": limits.wall_s + _GRACE_S}
        if self._out_of_memory:
            return {"outcome": "memory", "hit": "memory"}
        return {"outcome": "killed", "detail": f"the worker was lost: {self._words}"}

    def kill(self) -> None:
        """Kill the worker; what waits for it sees it gone."""
        self._jail.kill()
        self._held.close()

    async def end(self) -> None:
        group = self._jail.group
        self._out_of_memory = group is not None and group.out_of_memory
        await self._jail.end()
        self._words = self._jail.words
        self._held.close()

    _jail: Jail


def _result(answer: dict[str, object], program: Program) -> CheckResult:
    def text(name: str) -> str:
        return str(answer.get(name, ""))

    outcome = text("outcome")
    return CheckResult(
        outcome=Outcome(outcome) if outcome in set(Outcome) else Outcome.FORGED,
        name=text("name"),
        detail=text("detail")[:1000],
        output=text("output"),
        seconds=float(text("seconds") or 0.0),
        peak_bytes=int(text("peak") or 0),
        hit=LimitHit(text("hit") or "none"),
        apart=program.apart,
        tests=int(text("tests") or 0),
    )
