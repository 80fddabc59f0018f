"""Readers of JSON: one row a line, an array of rows, or transformers' ``trainer_state.json``. All are streamed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any, TextIO

from ratchet.core.errors import ConfigError
from ratchet.logs.cells import parsed, row_of
from ratchet.logs.collect import Table
from ratchet.logs.lines import CHUNK, MAX_LINE, Lines, opened

ROWS = re.compile(r'"(?:log_history|history|logs|rows)"\s*:\s*\[')
"""Where a document that is no array keeps its rows."""
GAP = re.compile(r"[\s,]*")


def read_json_lines(path: Path, table: Table) -> None:
    """Add a row per line. Lines that are no JSON are passed over and counted."""
    lines = Lines(path)
    add = table.add
    for line in lines:
        begin = line.find("{")
        tree = parsed(line[begin:] if begin else line) if begin >= 0 else None
        if tree is None:
            table.num_odd += bool(line.strip())
        elif isinstance(tree, dict):
            keys, values, has_texts = row_of(tree)
            table.num_samples += has_texts
            if keys:
                add(keys, values, nan, "json rows")
    table.num_long_lines += lines.num_long


def read_json(path: Path, table: Table) -> None:
    """Add the rows of an array, or of the array that a document keeps them in."""
    _add_all(path, table, "json rows")


def read_trainer_state(path: Path, table: Table) -> None:
    """Add the rows of ``log_history``."""
    _add_all(path, table, "trainer_state")


def _add_all(path: Path, table: Table, shape: str) -> None:
    for tree in elements(path, table, inside=True):
        if isinstance(tree, dict):
            keys, values, has_texts = row_of(tree)
            table.num_samples += has_texts
            if keys:
                table.add(keys, values, nan, shape)


def elements(path: Path, table: Table, *, inside: bool = False) -> Iterator[Any]:
    """Yield the elements of a JSON array in a file, or of records that follow each other, one after the other.

    With `inside`, a file that is no array is a document that holds one. A file that ends in the middle gives what is
    whole, and the table is told. Raises `ConfigError` on an element that is too long to hold.
    """
    decoder = json.JSONDecoder()
    with opened(path) as text:
        buffer, at = _to_first_row(text, inside)
        while True:
            at = GAP.match(buffer, at).end()  # type: ignore[union-attr]  # it matches the empty text too
            if buffer.startswith("]", at):
                return
            try:
                tree, at = decoder.raw_decode(buffer, at)
            except (ValueError, RecursionError):
                more = text.read(CHUNK)
                if not more:
                    table.num_odd += bool(buffer[at:].strip())
                    return
                buffer, at = buffer[at:] + more, 0
                if len(buffer) > MAX_LINE:
                    raise ConfigError(
                        f"{path} has an entry of more than {MAX_LINE >> 20} million characters, or is no JSON from "
                        "there on. Is it a training log?"
                    ) from None
                continue
            yield tree


def _to_first_row(text: TextIO, inside: bool) -> tuple[str, int]:
    """Return what was read, and where in it the first row begins."""
    buffer = text.read(CHUNK)
    start = len(buffer) - len(buffer.lstrip("\ufeff \t\n"))
    if buffer.startswith("[", start):
        return buffer, start + 1
    if not inside:
        return buffer, start
    while not (found := ROWS.search(buffer)):
        more = text.read(CHUNK)
        if not more:
            return "]", 0
        buffer = buffer[-64:] + more
    return buffer, found.end()
