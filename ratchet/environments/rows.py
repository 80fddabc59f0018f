"""JSONL files as finite sources of tasks: read once, checked line by line, shared out between train and test."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.core.errors import ConfigError, nearest
from ratchet.core.seeds import derive
from ratchet.core.task import Split

TRAIN = "train"
"""The split that reads the rows which are not held out; every other split reads those that are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a file."""

    number: int
    """Counted from 1, as editors do."""
    values: Mapping[str, str]
    """The fields that were asked for; none is empty."""


def read_rows(path: str, *, fields: Sequence[str]) -> list[Row]:
    """Return the rows of a JSONL file with the fields asked for, as texts; blank lines are passed over.

    A number is taken as its text. **Raises**: `ConfigError` naming file, line and what is wrong with it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{path}: {reason}. Give the path of a JSONL file, relative to here or absolute.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}. Save the file as UTF-8.") from error
    # Not splitlines(): that also breaks at U+2028 and its like, which JSON strings may hold.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ConfigError(f"{path}: the file is empty. Each line should be a JSON object with {_listed(fields)}.")
    return [Row(number, _read_line(path, number, line, fields)) for number, line in lines]


def _read_line(path: str, number: int, line: str, fields: Sequence[str]) -> dict[str, str]:
    place = f"{path}:{number}"
    try:
        content = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{place}: not JSON ({error}). Each line should be one JSON object.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{place}: a JSON {type(content).__name__}, not an object with {_listed(fields)}.")
    values = {}
    for field in fields:
        if field not in content:
            raise ConfigError(f'{place}: "{field}" is missing.{nearest(field, content)}')
        value = content[field]
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f'{place}: "{field}" is {json.dumps(value)[:60]}; it should be a text that is not empty.')
        values[field] = value
    return values


def hold_out(rows: Sequence[Row], share: float, *, path: str, alike: str = "") -> tuple[list[Row], list[Row]]:
    """Return (train, test): that share of the rows is held out for test, at least one if the share is not 0.

    Which rows are held out depends on their content alone, so that neither the seed nor the order of the file moves a
    row from test to train; equal rows stay together, and so do all that are equal in the field `alike`, if it is given.

    **Raises**: `ConfigError` if nothing would be left to train on.
    """
    contents = (row.values[alike] if alike else json.dumps(dict(row.values), sort_keys=True) for row in rows)
    keys = [derive("held-out", content) for content in contents]
    by_key = sorted(range(len(rows)), key=lambda i: (keys[i], i))
    size = math.ceil(share * len(rows))
    while 0 < size < len(rows) and keys[by_key[size]] == keys[by_key[size - 1]]:
        size += 1
    if size >= len(rows):
        raise ConfigError(
            f"{path}: {len(rows)} line(s) are too few to hold {share:g} of them out for the test split. Add lines, or "
            "set held_out = 0."
        )
    held = set(by_key[:size])
    return [row for i, row in enumerate(rows) if i not in held], [row for i, row in enumerate(rows) if i in held]


class Rows:
    """Rows by (split, index), in an order that belongs to the split."""

    def __init__(self, train: Sequence[Row], test: Sequence[Row], *, path: str) -> None:
        """`path` is where the rows come from, for messages."""
        self._train, self._test, self._path = train, test, path

    def size(self, split: Split) -> int:
        """Return how many rows the split reads."""
        return len(self._of(split))

    def row(self, split: Split, index: int) -> Row:
        """Return the row that belongs to `index`.

        **Raises**: `ConfigError` if the split has no rows.
        """
        rows = self._of(split)
        if not rows:
            raise ConfigError(f'{self._path}: nothing is held out for the split "{split.name}". Set held_out above 0.')
        return rows[split.shuffled(index, len(rows))]

    def _of(self, split: Split) -> Sequence[Row]:
        return self._train if split.name == TRAIN else self._test


def _listed(fields: Sequence[str]) -> str:
    return ", ".join(f'"{field}"' for field in fields)
