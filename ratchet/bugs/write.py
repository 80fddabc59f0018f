"""Lines into a file: each is held against the environment's own reader and check first, and the file appears whole."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ratchet.bugs.rows import Pair
from ratchet.core.errors import ConfigError, RunError
from ratchet.environments.reproduce_checks import Checker
from ratchet.environments.reproduce_edits import added_test, apply_edits, read_edits
from ratchet.environments.reproduce_pairs import bug_pair, read_bug_rows, refuse_bad_pairs
from ratchet.environments.rows import Row

AT_ONCE = 4
"""Lines that are checked at the same time."""


def refuse_existing(out: Path, *, force: bool) -> None:
    """**Raises**: `ConfigError` if the file cannot be written, or is there and may not be replaced."""
    if out.is_dir():
        raise ConfigError(f"{out} is a folder. --out names a file, such as bugs.jsonl.")
    if out.exists() and not force:
        raise ConfigError(f"{out} is there already. Choose another --out, or replace it with --force.")
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"{out.parent}: no such folder, or it cannot be written. Choose another --out.")


async def write_lines(
    pairs: Sequence[Pair], out: Path, checker: Checker, watch: Callable[[int, int], None]
) -> list[Pair]:
    """Write the pairs that the environment accepts, one a line; return those that it does not.

    **Raises**: `ConfigError` if none is left; `RunError` if the file cannot be written. Nothing is then left of it.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        _write(pairs, beside)
        rows = read_bug_rows(str(beside)) if pairs else []
        accepted = await _accepted(str(out), rows, checker, watch)
        good = [pair for pair, fine in zip(pairs, accepted, strict=True) if fine]
        if good:
            _write(good, beside)
            os.replace(beside, out)
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror}. Make room, or choose another --out.") from None
    finally:
        beside.unlink(missing_ok=True)
    return [pair for pair, fine in zip(pairs, accepted, strict=True) if not fine]


def _write(pairs: Sequence[Pair], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(dict(pair.content), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


async def _accepted(path: str, rows: Sequence[Row], checker: Checker, watch: Callable[[int, int], None]) -> list[bool]:
    places = asyncio.Semaphore(AT_ONCE)
    done = 0

    async def accepted(row: Row) -> bool:
        nonlocal done
        async with places:
            fine = _pays(row)
            if fine:
                try:
                    await refuse_bad_pairs(path, [row], checker)
                except ConfigError:
                    fine = False
        done += 1
        watch(done, len(rows))
        return fine

    return list(await asyncio.gather(*map(accepted, rows)))


def _pays(row: Row) -> bool:
    """Return whether the best answers survive being written as answers: a stray ``=======`` would cut an edit short."""
    pair = bug_pair(row)
    return (
        apply_edits(pair.buggy, read_edits(pair.best_fix)) == pair.fixed
        and added_test(pair.best_test) == pair.best_test
    )
