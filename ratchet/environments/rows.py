"""Data as finite sources of tasks: read once, checked record by record, shared out between train and test."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratchet.core.errors import ConfigError, nearest
from ratchet.core.seeds import derive
from ratchet.core.task import Message, Split
from ratchet.environments.sources import Record, Source, read_records

TRAIN = "train"
"""The split that reads the rows which are not held out; every other split reads those that are."""
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Row:
    """One record with the fields that were asked for."""

    number: int
    """Counted from 1; of a text file the line, as editors count them."""
    values: Mapping[str, str]
    """The fields by the names they were asked for; none is empty. Of a conversation, the last message."""
    place: str = ""
    """Where it stands, for messages."""
    chats: Mapping[str, tuple[Message, ...]] = field(default_factory=dict)
    """The fields that hold a whole conversation."""


def read_rows(source: Source | str, *, fields: Sequence[str], chats: Sequence[str] = ()) -> list[Row]:
    """Return the records of a source with the fields asked for, as texts; a blank line of a text file is passed over.

    A number is taken as its text. A field may lie within another, ``reward_model.ground_truth`` say. Those of `chats`
    may hold a conversation instead of a text: a list of messages with role and content.

    **Raises**: `ConfigError` naming the record and what is wrong with it.
    """
    chosen = Source(source) if isinstance(source, str) else source
    wanted = ", ".join(f'"{name}"' for name in fields)
    rows = [_row(record, fields, chats) for record in read_records(chosen, wanted=wanted)]
    if not rows:
        raise ConfigError(f"{chosen}: the file is empty. Each line should be a JSON object with {wanted}.")
    return rows


def _row(record: Record, fields: Sequence[str], chats: Sequence[str]) -> Row:
    values: dict[str, str] = {}
    conversations: dict[str, tuple[Message, ...]] = {}
    for name in fields:
        value = _found(record, name)
        if name in chats and isinstance(value, list):
            conversations[name] = _conversation(record, name, value)
            value = conversations[name][-1].content
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            shown = json.dumps(value, default=str)[:60]
            raise ConfigError(f'{record.place}: "{name}" is {shown}; it should be a text that is not empty.')
        values[name] = value
    return Row(record.number, values, record.place, conversations)


def _found(record: Record, name: str) -> Any:
    """Return the value of a field, by its own name or by the path to it."""
    if name in record.content:
        return record.content[name]
    value: Any = record.content
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = value if isinstance(value, Mapping) else record.content
            raise ConfigError(f'{record.place}: "{name}" is missing.{nearest(part, map(str, known))}')
        value = value[part]
    return value


def _conversation(record: Record, name: str, value: Sequence[object]) -> tuple[Message, ...]:
    messages = []
    for one in value:
        role, content = (one.get("role"), one.get("content")) if isinstance(one, Mapping) else (None, None)
        if role not in ROLES or not isinstance(content, str):
            raise ConfigError(
                f'{record.place}: "{name}" holds {json.dumps(one, default=str)[:60]}, which is no message: a message '
                "has a role (system, user, assistant, tool) and a content that is a text."
            )
        messages.append(Message(role, content))
    if not messages:
        raise ConfigError(f'{record.place}: "{name}" is a conversation without messages.')
    return tuple(messages)


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
