"""Rows of a log as they come, kept as typed arrays: eight bytes a number, whatever the text was.

Rows with the same keys share a block, so a log of a million rows holds its keys once. Nothing here knows what a key
means; which number is the step is decided when the keys are known.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_BLOCKS = 1_000
"""Different sets of keys that get a block of their own; after that each key gets one, so memory stays bounded."""
MAX_KEYS = 20_000
"""Different keys kept; frameworks have hundreds, a log of garbage any number."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Keys that always occur together: the rows they are on, and one column of values per key."""

    rows: NDArray[np.int64]
    """Rising."""
    columns: Mapping[str, NDArray[np.float64]]


class _Block:
    """Rows of one shape with one set of keys: values row by row."""

    __slots__ = ("keys", "rows", "shape", "values")

    def __init__(self, shape: str, keys: tuple[str, ...]) -> None:
        self.shape = shape
        self.keys = keys
        self.values = array("d")
        self.rows = array("q")


class Table:
    """Collects rows. Readers of formats call `add`; what reads the whole asks for `groups`."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, tuple[str, ...]], _Block] = {}
        self._keys: set[str] = set()
        self._steps = array("d")
        self.num_odd = 0
        """Rows or lines that looked like metrics and could not be read."""
        self.num_refused_keys = 0
        """Values whose key came after `MAX_KEYS` others."""
        self.num_samples = 0
        """Rows that hold texts of rollouts rather than metrics."""
        self.num_long_lines = 0
        self.sources: list[tuple[int, Path]] = []
        """(first row, file) of every file, in order."""
        self.bars: list[tuple[int, int, int]] = []
        """(row, step, of how many) as the progress bar right after a row without a step says it."""
        self.remarks: list[str] = []
        """What a reader has to say about what it left out."""

    @property
    def num_rows(self) -> int:
        return len(self._steps)

    @property
    def keys(self) -> set[str]:
        """Return all keys that were kept."""
        return self._keys

    def begin(self, source: Path) -> None:
        """Note that the rows to come are those of this file."""
        self.sources.append((self.num_rows, source))

    def add(self, keys: tuple[str, ...], values: Sequence[float], step: float = nan, shape: str = "") -> None:
        """Take a row; `step` is the one the format itself gives it, apart from its keys."""
        row = len(self._steps)
        self._steps.append(step)
        block = self._blocks.get((shape, keys))
        if block is None:
            block = self._new_block(shape, keys)
        if block is None:
            for key, value in zip(keys, values, strict=True):
                self._add_single(row, shape, key, value)
            return
        block.values.extend(values)
        block.rows.append(row)

    def steps(self) -> NDArray[np.float64]:
        """Return the step the format gave each row; NaN where it gave none."""
        return np.frombuffer(self._steps, dtype=np.float64) if self._steps else np.empty(0)

    def groups(self) -> Iterator[Group]:
        """Yield the columns, those that always occur together at once."""
        places: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for name, block in self._blocks.items():
            for key in block.keys:
                places.setdefault(key, []).append(name)
        together: dict[tuple[tuple[str, tuple[str, ...]], ...], list[str]] = {}
        for key, names in places.items():
            together.setdefault(tuple(names), []).append(key)
        for blocks, keys in together.items():
            yield self._group([self._blocks[name] for name in blocks], keys)

    def shapes(self) -> Mapping[str, int]:
        """Return how many rows came in which shape, the commonest first. Rows kept key by key count once a key."""
        counts: dict[str, int] = {}
        for block in self._blocks.values():
            counts[block.shape] = counts.get(block.shape, 0) + len(block.rows)
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def layouts(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield (shape, keys) of every kind of row there is."""
        yield from self._blocks

    def keys_of(self, shape: str) -> set[str]:
        """Return the keys of the rows of one shape."""
        return {key for block in self._blocks.values() if block.shape == shape for key in block.keys}

    def keep(self, wanted: Callable[[str, tuple[str, ...]], bool]) -> int:
        """Drop the rows whose (shape, keys) are not wanted; return how many they were."""
        dropped = [name for name in self._blocks if not wanted(*name)]
        num_rows = sum(len(self._blocks.pop(name).rows) for name in dropped)
        self._keys = {key for block in self._blocks.values() for key in block.keys}
        return num_rows

    def _new_block(self, shape: str, keys: tuple[str, ...]) -> _Block | None:
        """Return a new block, or None where the keys must be kept one by one."""
        fresh = [key for key in keys if key not in self._keys]
        if len(self._blocks) >= MAX_BLOCKS or len(self._keys) + len(fresh) > MAX_KEYS or len(set(keys)) < len(keys):
            return None
        self._keys.update(fresh)
        block = self._blocks[shape, keys] = _Block(shape, keys)
        return block

    def _add_single(self, row: int, shape: str, key: str, value: float) -> None:
        block = self._blocks.get((shape, (key,)))
        if block is None:
            if key not in self._keys and len(self._keys) >= MAX_KEYS:
                self.num_refused_keys += 1
                return
            self._keys.add(key)
            block = self._blocks[shape, (key,)] = _Block(shape, (key,))
        block.values.append(value)
        block.rows.append(row)

    def _group(self, blocks: Sequence[_Block], keys: Sequence[str]) -> Group:
        rows = np.concatenate([np.frombuffer(b.rows, dtype=np.int64) for b in blocks])
        order = np.argsort(rows, kind="stable") if len(blocks) > 1 else None
        tables = [np.frombuffer(b.values, dtype=np.float64).reshape(-1, len(b.keys)) for b in blocks]
        columns = {}
        for key in keys:
            parts = [table[:, b.keys.index(key)] for b, table in zip(blocks, tables, strict=True)]
            columns[key] = parts[0] if order is None else np.concatenate(parts)[order]
        return Group(rows if order is None else rows[order], columns)
