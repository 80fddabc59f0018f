"""The package that the tests of this room work on, and the sandbox they run it in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from ratchet.bugs.measure import Runs
from ratchet.bugs.sources import Library, read_library
from ratchet.config.schema import SandboxSection
from ratchet.core.errors import ConfigError
from ratchet.sandbox.choose import open_jails
from ratchet.sandbox.pool import CheckPool

T = TypeVar("T")
POND = Path(__file__).parent / "bugs" / "pond"


def pond() -> Library:
    return read_library(str(POND))


def need_sandbox() -> None:
    """Skip the test where no box can be made."""
    try:
        open_jails(SandboxSection()).close()
    except ConfigError as error:
        pytest.skip(str(error))


def in_sandbox(work: Callable[[Runs], Awaitable[T]], timeout_s: float = 0.4) -> T:
    """Return what `work` returns with a sandbox."""
    need_sandbox()

    async def run() -> T:
        section = SandboxSection(workers=2)
        box = open_jails(section)
        try:
            async with CheckPool(section, box) as pool:
                return await work(Runs(section, box, pool, timeout_s))
        finally:
            box.close()

    return asyncio.run(run())
