"""One connection to the buffer's database. Every failure leaves here as an error a person can read, without password.

Used by `groups.py` alone, from one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, inspect, make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from ratchet.core.errors import ConfigError, RunError
from ratchet.core.load import require_library

BUSY_S = 30
"""Seconds to wait for another process that writes to the same SQLite file."""
CONNECT_S = 10
"""Seconds to wait for a PostgreSQL server to answer; without it, an address that swallows packets holds for minutes."""

RETURNS_S = 60
"""Seconds to wait for a PostgreSQL server that was restarted between two transactions."""
ASK_EVERY_S = 0.5

_LOCK = 0x7261_7463_6865_74
"""Number of the PostgreSQL lock under which tables are made: "ratchet"."""
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
"""What may stand before ``://``, and the driver it means."""


class Database:
    """A connection that is opened once and closed once; between, `doing` is the only way to it."""

    def __init__(self, engine: Engine, connection: Connection, url: URL) -> None:
        self._engine, self._connection, self._url = engine, connection, url
        self.returned: Callable[[Connection], None] = _as_it_was
        """Is given the connection, within a transaction, when it had to be made anew: what was known may not hold."""

    @classmethod
    def connect(cls, text: str, *, create: bool) -> Database:
        """Connect to the database a URL names, changing nothing in it.

        A SQLite file is made if `create` asks for it, an existing one is left as it is.

        **Raises**: `ConfigError` if the URL cannot be read, its kind is not supported, its driver is missing or the
        database cannot be reached.
        """
        url = _parsed(text)
        if url.drivername == "sqlite":
            _check_file(url, create=create)
            # IMMEDIATE takes the write lock when a transaction begins to write, so that it never has to be taken back.
            arguments: dict[str, object] = {"timeout": BUSY_S, "isolation_level": "IMMEDIATE"}
        else:
            require_library("psycopg", extra="postgres", purpose=f'buffer.url = "{shown(url)}"')
            arguments = {} if "connect_timeout" in url.query else {"connect_timeout": CONNECT_S}
        try:
            engine = create_engine(url, poolclass=NullPool, connect_args=arguments)
            return cls(engine, engine.connect(), url)
        except ImportError as error:  # psycopg is there, but not the C library under it
            raise ConfigError(
                f'buffer.url = "{shown(url)}": the driver cannot be loaded: {reason(error, url)}. '
                "Install it with: pip install 'ratchet[postgres]'"
            ) from None
        except SQLAlchemyError as error:
            raise _unusable(error, url) from None

    @property
    def sqlite(self) -> bool:
        """Whether this is a SQLite file."""
        return self._url.drivername == "sqlite"

    @property
    def shown(self) -> str:
        """The URL, fit to be printed."""
        return shown(self._url)

    def has_table(self, name: str) -> bool:
        """Return whether a table exists."""
        with self.using() as connection:
            return inspect(connection).has_table(name)

    @contextmanager
    def using(self) -> Iterator[Connection]:
        """Give the connection within a transaction, while it is not sure yet that the database can be used.

        **Raises**: `ConfigError` for whatever the database says.
        """
        try:
            with self._connection.begin():
                yield self._connection
        except SQLAlchemyError as error:
            raise _unusable(error, self._url) from None

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """As `using`, while no other process makes tables: runs of a sweep may all begin at once."""
        with self.using() as connection:
            lock = "BEGIN IMMEDIATE" if self.sqlite else f"SELECT pg_advisory_xact_lock({_LOCK})"
            connection.exec_driver_sql(lock).close()
            yield connection

    def tune(self) -> None:
        """Let commits return before they are on the disk; `lasting` waits for them.

        A killed process loses nothing by that. A power cut loses the last commits, each of them whole.
        """
        if self.sqlite:  # WAL: one writer and many readers at once; NORMAL syncs when the log is copied back, only
            settings = ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA cache_size = -16384"]
        else:
            settings = ["SET synchronous_commit = off"]
        for setting in settings:
            with self.using() as connection:
                connection.exec_driver_sql(setting).close()

    @contextmanager
    def doing(self, what: str) -> Iterator[Connection]:
        """Give the connection within a transaction; one inside another is part of it.

        A PostgreSQL server that went away since the last transaction is waited for. `what` ends the sentence "The
        buffer failed while ...". **Raises**: `RunError` for whatever the database says.
        """
        if self._connection.in_transaction():
            yield self._connection
            return
        try:
            self._meet()
            with self._connection.begin():
                yield self._connection
        except SQLAlchemyError as error:
            raise RunError(
                f"The buffer at {self.shown} failed while {what}: {reason(error, self._url)}. "
                "Check that the database is reachable and its disk has room, then go on with: ratchet resume"
            ) from None

    @contextmanager
    def lasting(self, what: str) -> Iterator[Connection]:
        """As `doing`, and at the end this transaction and all before it are on the disk."""
        with self.doing(what) as connection:
            if not self.sqlite:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on").close()
            yield connection
        if self.sqlite:
            with self.doing(what) as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)").close()

    def _meet(self) -> None:
        """Make the connection anew if the server has closed it; within a transaction nothing can be gone on with."""
        if self.sqlite:
            return
        try:
            self._connection.exec_driver_sql("SELECT 1").close()
            self._connection.rollback()
            return
        except OperationalError as error:
            if not error.connection_invalidated:
                raise
        self._connection.close()
        end = time.monotonic() + RETURNS_S
        while True:
            try:
                self._connection = self._engine.connect()
                break
            except OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(ASK_EVERY_S)
        self.tune()
        with self._connection.begin():
            self.returned(self._connection)

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._connection.close()
        self._engine.dispose()


def _as_it_was(connection: Connection) -> None:
    """Nothing was known yet that may not hold any more."""


def shown(url: URL) -> str:
    """Return a URL fit to be printed: without password, and without the query, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


def reason(error: Exception, url: URL) -> str:
    """Return what a driver said, on one line, without a password it may have quoted."""
    # Drivers' own errors hide one level down; SQLAlchemy's text around them repeats the statement.
    said = " ".join(str(getattr(error, "orig", None) or error).split()).rstrip(".")
    secrets = [str(url.password or ""), *(v for v in url.query.values() if isinstance(v, str))]
    for secret in (s for s in secrets if s):
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            said = said.replace(form, "***")
    return said[:500]


def _unusable(error: Exception, url: URL) -> ConfigError:
    """Return the error for a database that cannot be used."""
    remedy = "Check the path" if url.drivername == "sqlite" else "Check host, port, user and password"
    return ConfigError(f'buffer.url = "{shown(url)}" cannot be used: {reason(error, url)}. {remedy}.')


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number is a ValueError; neither is quoted, for the password
        raise ConfigError(
            "buffer.url is not a database URL. Write sqlite:////absolute/path/buffer.sqlite or "
            "postgresql+psycopg://user:password@host:port/database; signs such as @ : / in a password as %40 %3A %2F."
        ) from None
    if url.drivername not in _DRIVERS:
        raise ConfigError(
            f'buffer.url = "{shown(url)}": {url.drivername} is not supported. Use sqlite or postgresql+psycopg.'
        )
    return url.set(drivername=_DRIVERS[url.drivername])


def _check_file(url: URL, *, create: bool) -> None:
    """Refuse a SQLite file that would vanish, or that SQLite would silently make anew."""
    if not url.database or url.database == ":memory:" or "mode" in url.query:
        raise ConfigError(
            f'buffer.url = "{shown(url)}" names no file, so the buffer could not outlive the process. '
            "Write sqlite:////absolute/path/buffer.sqlite."
        )
    file = Path(url.database)
    if not file.parent.is_dir():
        raise ConfigError(f'buffer.url = "{shown(url)}": there is no folder {file.parent}. Make it, or change the URL.')
    if not create and not file.is_file():
        raise ConfigError(
            f'buffer.url = "{shown(url)}": there is no file {file}, but this run keeps its buffer there. '
            "Put it back where it was, or correct buffer.url."
        )
