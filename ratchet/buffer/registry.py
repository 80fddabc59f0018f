"""Which buffers a database holds, and whether one may be used. `groups.py` asks; messages are for the user."""

from __future__ import annotations

from sqlalchemy import RowMapping, func, insert, select
from sqlalchemy.exc import IntegrityError

from ratchet.buffer.database import Database
from ratchet.buffer.tables import BUFFERS, GROUPS, METADATA, SCHEMA
from ratchet.core.errors import ConfigError


def open_buffer(database: Database, name: str, *, tokenizer: str, create: bool) -> int:
    """Return the number of the buffer of a name: a new one if `create`, else the one that is there.

    **Raises**: `ConfigError`, with the database untouched, if a new buffer's name is taken, or an old one is missing or
    has another schema or tokenizer.
    """
    where = f'The buffer "{name}" in {database.shown}'
    row = _find(database, name)
    if not create:
        if row is None:
            raise ConfigError(f"{where} does not exist. Correct buffer.name or buffer.url, or start a new run.")
        _check(row, where, tokenizer)
        database.tune()
        return int(row["buffer_id"])
    if row is not None:
        raise _taken(database, row, where)
    database.tune()
    return _make(database, name, tokenizer, where)


def _find(database: Database, name: str) -> RowMapping | None:
    """Return the row of a buffer, if there is one."""
    if not database.has_table(BUFFERS.name):
        return None
    with database.using() as connection:
        return connection.execute(select(BUFFERS).where(BUFFERS.c.name == name)).mappings().one_or_none()


def _check(row: RowMapping, where: str, tokenizer: str) -> None:
    """Refuse a buffer that would be read wrongly."""
    if row["schema"] != SCHEMA:
        raise ConfigError(
            f"{where} has schema version {row['schema']}, but this version of ratchet reads schema version {SCHEMA}. "
            "Go on with the version of ratchet that wrote it, or start a new run with another buffer.name."
        )
    if row["tokenizer"] != tokenizer:
        raise ConfigError(
            f"{where} was filled with the tokenizer {row['tokenizer']}, but the policy's tokenizer is {tokenizer}: its "
            "tokens would mean something else. Use the model it was filled with, or another buffer.name."
        )


def _taken(database: Database, row: RowMapping, where: str) -> ConfigError:
    """Return the error for a new buffer whose name is in use."""
    held = ""
    if row["schema"] == SCHEMA:  # the groups of another version lie in tables unknown here
        with database.using() as connection:
            query = select(func.count()).select_from(GROUPS).where(GROUPS.c.buffer_id == row["buffer_id"])
            held = f" and holds {connection.execute(query).scalar_one()} groups"
    return ConfigError(
        f"{where} exists already{held}. Choose another buffer.name, or go on with the run that made it: ratchet resume."
    )


def _make(database: Database, name: str, tokenizer: str, where: str) -> int:
    """Make a buffer, and the tables if it is the first. Return its number."""
    row = {"name": name, "schema": SCHEMA, "tokenizer": tokenizer, "trained": 0, "purged": 0}
    with database.alone() as connection:
        try:
            METADATA.create_all(connection)
            key = connection.execute(insert(BUFFERS).values(**row)).inserted_primary_key
        except IntegrityError:  # another run was faster
            raise ConfigError(f"{where} exists already: another run made it just now. Choose another name.") from None
    assert key is not None, "a single row always tells its key"
    return int(key[0])
