"""Asking the sandbox how a program with a test ends: opened at first use, remembered, and re-run where unsure."""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ratchet.config.schema import SandboxSection
from ratchet.rewards.execution import RunOutcome, settle, wants_rerun
from ratchet.sandbox.choose import JailedBox, limits_of, open_jails
from ratchet.sandbox.pool import CheckPool
from ratchet.sandbox.program import How, Program

MODULE = "solution"
"""What tests import the code under test as."""

KEPT = 65536
"""Outcomes remembered; then the oldest go."""
MOST_RUNS = 2
"""How often a program is run whose outcome is unsure."""

_TEST_FUNCTION = re.compile(r"^(?:async )?def test", re.MULTILINE)


def import_line(entry_point: str) -> str:
    """Return the line that every test begins with."""
    return f"from {MODULE} import {entry_point}\n"


SAID = 1000
"""Characters of what a program said that are kept."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program with a test ended."""

    outcome: RunOutcome
    said: str = ""
    """The exception, and what was printed: written by strangers, for people to read, and never read for a verdict."""


@runtime_checkable
class Checker(Protocol):
    """Runs a program and then a test against it, in a fresh box."""

    async def check(self, source: str, test: str, raises: Sequence[str] = ()) -> Ran:
        """Return how it ended; never raises for what the program does. Exceptions in `raises` are EXPECTED."""
        ...

    def close(self) -> None:
        """End every process; may be called twice."""
        ...


class Remembered:
    """A checker in front of another that asks for each program once, and again while the outcome is unsure.

    Attempts at one task often write the same test. Asked for the same program at the same time, it runs it once.
    """

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._known: dict[bytes, Ran] = {}
        self._under_way: dict[bytes, asyncio.Task[Ran]] = {}
        self.runs = 0
        """Programs run so far."""

    async def check(self, source: str, test: str, raises: Sequence[str] = (), *, turn: int = 0) -> Ran:
        """Return how the program ended, now or before; every `turn` is a run of its own."""
        # Written so that no two programs share a key: a policy decides part of them, and one's outcome is another's.
        content = repr((turn, source, test, tuple(raises)))
        key = hashlib.blake2b(content.encode(), digest_size=16).digest()
        if key in self._known:
            return self._known[key]
        running = self._under_way.get(key)
        if running is None or running.get_loop() is not asyncio.get_running_loop():
            running = asyncio.create_task(self._ask(source, test, raises))
            self._under_way[key] = running
            running.add_done_callback(lambda task: self._remember(key, task))
        # Shielded: one attempt that is cancelled must not take the answer from the others.
        return await asyncio.shield(running)

    def close(self) -> None:
        """Close the checker behind."""
        self._checker.close()

    async def _ask(self, source: str, test: str, raises: Sequence[str]) -> Ran:
        outcomes, said = list[RunOutcome](), ""
        while not outcomes or wants_rerun(outcomes, most=MOST_RUNS):
            self.runs += 1
            ran = await self._checker.check(source, test, raises)
            outcomes.append(ran.outcome)
            said = ran.said
        return Ran(settle(outcomes), said)

    def _remember(self, key: bytes, task: asyncio.Task[Ran]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if task.cancelled() or task.exception() is not None:
            return
        if len(self._known) >= KEPT:
            del self._known[next(iter(self._known))]
        self._known[key] = task.result()


class PoolChecker:
    """The sandbox's warm pool as a checker.

    Opened at first use. Lives on an event loop of its own, in a thread: so it serves whichever loop asks, and can end
    its workers properly when nobody's loop runs any more.
    """

    def __init__(self, section: SandboxSection) -> None:
        self._section = section
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._box: JailedBox | None = None
        self._pool: CheckPool | None = None

    async def check(self, source: str, test: str, raises: Sequence[str] = ()) -> Ran:
        """Return how the test ended, run against the module ``solution`` with this source.

        **Raises**: `ConfigError` if this machine can make no box; `RunError` if no worker can be started.
        """
        pool, loop = self._open()
        how = How.FUNCTIONS if _TEST_FUNCTION.search(test) else How.SCRIPT
        limits = limits_of(self._section)
        program = Program(module=source, test=test, how=how, name=MODULE, expected=tuple(raises), limits=limits)
        result = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(pool.check(program), loop))
        raised = f"{result.name}: {result.detail.strip()}".strip(": ")
        said = "\n".join(text for text in (raised, result.output.strip()) if text)
        return Ran(RunOutcome.named(result.outcome.name), said[:SAID])

    def close(self) -> None:
        """End the workers and the thread; may be called twice, and a later check opens all anew."""
        if self._loop is None or self._thread is None or self._pool is None or self._box is None:
            return
        # Leaving the pool's context waits for its workers' ends.
        asyncio.run_coroutine_threadsafe(self._pool.__aexit__(None, None, None), self._loop).result()
        self._box.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = self._pool = self._box = None

    def _open(self) -> tuple[CheckPool, asyncio.AbstractEventLoop]:
        if self._pool is None or self._loop is None:
            self._box = open_jails(self._section)
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="sandbox", daemon=True)
            self._thread.start()
            self._pool = CheckPool(self._section, self._box)
        return self._pool, self._loop
