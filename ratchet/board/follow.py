"""Files of lines that grow while they are read, and the columns of numbers made from their rows. Opens one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, Any]
FIRST_ROOM = 256


class Follower:
    """Yields the rows that were appended to a file since it was last asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_unreadable = 0
        """Lines that are no JSON object; they are passed over."""
        self._offset = 0
        self._file = (0, 0)

    def fresh(self) -> tuple[list[Row], bool]:
        """Return new rows, and whether the file was replaced or cut, so that they are all of its rows.

        A half-written last line waits for its end. A file that is not there has no rows.
        """
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                again = (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self._offset
                if again:
                    self._file, self._offset, self.num_unreadable = (stat.st_dev, stat.st_ino), 0, 0
                file.seek(self._offset)
                data = file.read()
        except OSError:
            again = self._offset > 0
            self._file, self._offset = (0, 0), 0
            return [], again
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        rows = []
        for line in data[:whole].splitlines():
            row = _row(line)
            if row is None:
                self.num_unreadable += bool(line.strip())
            else:
                rows.append(row)
        return rows, again


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


class Columns:
    """Numbers by step, one column per metric. Views that were given out stay valid while rows are appended."""

    def __init__(self) -> None:
        self.size = 0
        self._steps = np.zeros(FIRST_ROOM, dtype=np.int64)
        self._data: dict[str, NDArray[np.float64]] = {}

    @property
    def steps(self) -> NDArray[np.int64]:
        """(N,) steps, rising."""
        return self._steps[: self.size]

    def names(self) -> list[str]:
        """Return the columns that have a value."""
        return [name for name, column in self._data.items() if not np.isnan(column[: self.size]).all()]

    def column(self, name: str) -> NDArray[np.float64]:
        """(N,) values; NaN where a step has none."""
        held = self._data.get(name)
        return held[: self.size] if held is not None else np.full(self.size, np.nan)

    def extend(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows. One that goes back replaces what was there from its step on: a resumed run begins anew there.

        A row ``{"rewound": k}`` says that what is there of step k and later ones counts no longer.
        """
        for row in rows:
            if isinstance(back := row.get("rewound"), int) and not isinstance(back, bool):
                self._cut(int(np.searchsorted(self.steps, back)))
                continue
            step = row.get("step")
            if not isinstance(step, int) or isinstance(step, bool):
                continue
            if self.size and step <= self._steps[self.size - 1]:
                self._cut(int(np.searchsorted(self.steps, step)))
            self._make_room()
            self._steps[self.size] = step
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                    column = self._data.get(name)
                    if column is None:
                        column = self._data[name] = np.full(len(self._steps), np.nan)
                    column[self.size] = value
            self.size += 1

    def _cut(self, size: int) -> None:
        """Forget rows from `size` on; in copies, since others may hold views."""
        self._steps = self._steps.copy()
        for name, column in self._data.items():
            kept = column.copy()
            kept[size:] = np.nan
            self._data[name] = kept
        self.size = size

    def _make_room(self) -> None:
        if self.size < len(self._steps):
            return
        room = 2 * len(self._steps)
        self._steps = np.concatenate([self._steps, np.zeros(room - len(self._steps), dtype=np.int64)])
        for name, column in self._data.items():
            self._data[name] = np.concatenate([column, np.full(room - len(column), np.nan)])
