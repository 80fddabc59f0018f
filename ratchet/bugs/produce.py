"""``ratchet bugs`` as one call: from what the user asked for to a file and a ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ratchet.bugs.allowed import Reason
from ratchet.bugs.ledger import Fate, Ledger
from ratchet.bugs.make import Wishes, find_functions, make_pairs
from ratchet.bugs.measure import Runs
from ratchet.bugs.rows import Pair
from ratchet.bugs.sources import Library, read_library
from ratchet.bugs.write import refuse_existing, write_lines
from ratchet.config.schema import SandboxSection
from ratchet.core.errors import ConfigError
from ratchet.environments.reproduce_checks import PoolChecker, Remembered
from ratchet.sandbox.choose import open_jails
from ratchet.sandbox.pool import CheckPool

PATIENCE_S = 120.0
"""Wall-clock seconds of a check of a line. Its CPU seconds are the environment's."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for."""

    what: str
    out: Path
    wishes: Wishes
    tests: tuple[Path, ...] = ()
    timeout_s: float = 1.0
    """CPU seconds that a function may take for all its inputs."""
    force: bool = False
    sandbox: SandboxSection = field(default_factory=SandboxSection)


class Watcher(Protocol):
    """Hears how far the work is. Called on the event loop; must not block."""

    def now(self, what: str, done: int, total: int, lines: int) -> None:
        """`done` of `total` functions or lines are through, and there are so many `lines` so far."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it."""

    library: Library
    ledger: Ledger
    num_lines: int
    checks: int
    """Runs of the sandbox, the environment's own check not counted."""


def make_bugs(asked: Asked, watcher: Watcher) -> Done:
    """Write the file that was asked for, and return where everything went.

    **Raises**: `ConfigError` if the input cannot be used, or nothing of it makes a line: the message says why.
    """
    refuse_existing(asked.out, force=asked.force)
    library = read_library(asked.what, asked.tests)
    if not find_functions(library, asked.wishes.seed):
        raise ConfigError(
            f"{asked.what}: no functions at the top of its {len(library.chosen)} modules; methods are not used."
        )
    return asyncio.run(_make(asked, library, watcher))


async def _make(asked: Asked, library: Library, watcher: Watcher) -> Done:
    box = open_jails(asked.sandbox)
    ledger = Ledger()
    # As the environment asks, but for the clock: what is written must not depend on how busy this machine is.
    patient = asked.sandbox.model_copy(update={"wall_s": max(PATIENCE_S, asked.sandbox.wall_s)})
    checker = Remembered(PoolChecker(patient))
    try:
        async with CheckPool(asked.sandbox, box) as pool:
            runs = Runs(asked.sandbox, box, pool, asked.timeout_s)
            pairs = await make_pairs(library, runs, asked.wishes, ledger, lambda *now: watcher.now("functions", *now))
        if not pairs:
            raise ConfigError(f"{asked.what}: nothing usable in {ledger.functions} functions. {reasons(ledger)}")
        refused = await write_lines(
            pairs, asked.out, checker, lambda done, total: watcher.now("lines checked", done, total, len(pairs))
        )
    finally:
        checker.close()
        box.close()
    _take_back(ledger, pairs, refused)
    if len(refused) == len(pairs):
        raise ConfigError(f"{asked.what}: the environment refused all {len(pairs)} lines. Please report this as a bug.")
    return Done(library, ledger, len(pairs) - len(refused), runs.checks)


def reasons(ledger: Ledger) -> str:
    """Return why functions were refused, the commonest reason first."""
    return ". ".join(f"{count} of them: {reason.value}" for reason, count in ledger.refused.most_common()) + "."


def _take_back(ledger: Ledger, pairs: list[Pair], refused: list[tuple[Pair, str]]) -> None:
    """Write down that some lines were refused in the end, and functions that have none left."""
    gone = [pair for pair, _ in refused]
    for pair, told in refused:
        ledger.fates[Fate.KEPT] -= 1
        ledger.fates[Fate.REFUSED] += 1
        ledger.operators[pair.operator] -= 1
        ledger.details.append(f"{pair.content['name']}: {told}")
    for function in sorted({pair.function for pair in gone} - {pair.function for pair in pairs if pair not in gone}):
        ledger.usable -= 1
        ledger.refuse(function, Reason.NO_MUTANT, "the environment's own check refused them")
