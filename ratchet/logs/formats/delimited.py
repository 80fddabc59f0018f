"""Readers of CSV and TSV: a column per key, as W&B and others export them, or as scripts write them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from math import nan
from pathlib import Path

from ratchet.core.errors import ConfigError, nearest
from ratchet.logs.cells import number
from ratchet.logs.collect import Table
from ratchet.logs.lines import Lines, head

DELIMITERS = ",\t;"
BOUNDS = re.compile(r"__(?:MIN|MAX)$")
"""W&B's columns for the bounds of what it drew as one line."""
RUN_AND_KEY = re.compile(r"^(.+) - (\S.*)$")
STEP_COLUMNS = ("Step", "step", "_step", "global_step", "Steps", "train/global_step", "trainer/global_step")


def delimiter_of(line: str) -> str:
    """Return the character a header is cut at."""
    return max(DELIMITERS, key=line.count)


def read_delimited(path: Path, table: Table, run: str | None = None) -> None:
    """Add a row per line. Empty cells are missing, not NaN.

    Raises `ConfigError` where columns of several runs stand side by side and `run` names none of them.
    """
    lines = Lines(path)
    first = next((line for line in head(path).split("\n") if line.strip()), "")
    rows = csv.reader((line + "\n" for line in lines), delimiter=delimiter_of(first))
    try:
        header = next((row for row in rows if row), [])
        names = _keys(path, header, run, table)
        keys = tuple(names) if all(names) else ()
        for row in rows:
            if len(row) == len(keys):
                try:  # the usual case: a number in every column
                    values = list(map(float, row))
                except ValueError:
                    pass
                else:
                    table.add(keys, values, nan, "columns")
                    continue
            _add(table, names, row)
    except csv.Error as error:
        raise ConfigError(f"{path} is no CSV that can be read: {error}. Is it a training log?") from None
    table.num_long_lines += lines.num_long


def _add(table: Table, names: Sequence[str], row: Sequence[str]) -> None:
    keys, values = [], []
    for name, cell in zip(names, row, strict=False):
        if name and cell:
            value = number(cell)
            if value is not None:
                keys.append(name)
                values.append(value)
    if keys:
        table.add(tuple(keys), values, nan, "columns")
    elif any(row):
        table.num_odd += 1


def _keys(path: Path, header: Sequence[str], run: str | None, table: Table) -> list[str]:
    """Return the key of each column, empty for columns to leave out."""
    if header[:3] == ["Wall time", "Step", "Value"]:  # what TensorBoard's page lets one download
        table.remarks.append(
            "The key is not in a file that TensorBoard's page saved; it was taken from the file's name."
        )
        return ["", "step", path.stem.rpartition("tag-")[2]]
    split = [RUN_AND_KEY.match(BOUNDS.sub("", name)) for name in header]
    runs = list(dict.fromkeys(found.group(1) for found in split if found))
    bounded = any(BOUNDS.search(name) for name in header)
    if not runs or not (bounded or (header[0] in STEP_COLUMNS and all(split[1:]))):
        return _once([name.strip() for name in header], table)
    if run is None and len(runs) > 1:
        raise ConfigError(
            f"{path} holds the columns of {len(runs)} runs: {', '.join(runs[:8])}. Say which one to read (run)."
        )
    if run is not None and run not in runs:
        raise ConfigError(f'{path} has no run "{run}".{nearest(run, runs)}')
    wanted = run or runs[0]
    names = [
        name if found is None else found.group(2) if found.group(1) == wanted and not BOUNDS.search(name) else ""
        for name, found in zip(header, split, strict=True)
    ]
    if any(BOUNDS.search(name) for name in header):
        table.remarks.append("W&B's columns __MIN and __MAX are the bounds of what it drew as one line: left out.")
    return _once(names, table)


def _once(names: list[str], table: Table) -> list[str]:
    """Return the names, a repeated one emptied but for its last column."""
    last = {name: i for i, name in enumerate(names)}
    repeated = {name for i, name in enumerate(names) if name and last[name] != i}
    if repeated:
        table.remarks.append(f"Columns named twice, of which the last was read: {', '.join(sorted(repeated))}.")
    return [name if last[name] == i else "" for i, name in enumerate(names)]
