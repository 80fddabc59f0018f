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
) -> list[tuple[Pair, str]]:
    """Write the pairs that the environment accepts, one a line; return the others, each with what is wrong with it.

    **Raises**: `RunError` if the file cannot be written. Where nothing is accepted or something fails, no file appears.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        _write(pairs, beside)
        rows = read_bug_rows(str(beside)) if pairs else []
        wrong = await _wrong(str(out), rows, checker, watch)
        good = [pair for pair, told in zip(pairs, wrong, strict=True) if not told]
        if good:
            _write(good, beside)
            os.replace(beside, out)
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror}. Make room, or choose another --out.") from None
    finally:
        beside.unlink(missing_ok=True)
    return [(pair, told) for pair, told in zip(pairs, wrong, strict=True) if told]


def _write(pairs: Sequence[Pair], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(json.dumps(dict(pair.content), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


async def _wrong(path: str, rows: Sequence[Row], checker: Checker, watch: Callable[[int, int], None]) -> list[str]:
    """Return what is wrong with each row; empty for those that are fine."""
    places = asyncio.Semaphore(AT_ONCE)
    done = 0

    async def wrong(row: Row) -> str:
        nonlocal done
        told = "" if _pays(row) else "its best answers do not survive being written as answers"
        async with places:
            try:
                await refuse_bad_pairs(path, [row], checker)
            except ConfigError as error:
                told = told or str(error)
        done += 1
        watch(done, len(rows))
        return told

    return list(await asyncio.gather(*map(wrong, rows)))


def _pays(row: Row) -> bool:
    """Return whether the best answers are read as they were written: a stray ``=======`` would cut an edit short."""
    pair = bug_pair(row)
    test, edits = added_test(pair.best_test), read_edits(pair.best_fix)
    return test == pair.best_test and apply_edits(pair.buggy, edits) == pair.fixed
