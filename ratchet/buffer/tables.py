"""The tables of the experience buffer, the same on SQLite and PostgreSQL. Only `groups.py` reads and writes them.

    ratchet_buffers    one row per buffer: what it was filled with, how far its run has come
    ..._samplers       which weights sampled a group: few distinct rows, shared by the groups
    ..._groups         one short row per group: what choosing, using and evicting need
    ..._facts          the group itself, packed; apart, so that an update of the short row never rewrites it
    ..._uses           what each use overwrote, so that it can be taken back

A group is live while `evicted_at` is null. The indexes over live groups are partial: what was evicted costs nothing
until it is deleted. The tables below `ratchet_buffers` carry the schema version in their names, so that buffers of two
versions can lie in one database.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA = 1
"""Version of the layout; raised whenever a buffer written before could not be read rightly."""

METADATA = MetaData()

# SQLite numbers rows by itself only where the type is INTEGER, which holds 64 bits there.
_Id = BigInteger().with_variant(Integer, "sqlite")

BUFFERS = Table(
    "ratchet_buffers",
    METADATA,
    Column("buffer_id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("schema", Integer, nullable=False),
    Column("tokenizer", Text, nullable=False),
    Column("trained", BigInteger, nullable=False),  # steps whose uses are recorded
    Column("purged", BigInteger, nullable=False),  # no rewind goes behind this step
)

SAMPLERS = Table(
    f"ratchet_{SCHEMA}_samplers",
    METADATA,
    Column("sampler_id", _Id, primary_key=True),
    Column("buffer_id", Integer, nullable=False, index=True),
    Column("weights", Text, nullable=False),  # JSON, version -> fingerprint
)

GROUPS = Table(
    f"ratchet_{SCHEMA}_groups",
    METADATA,
    Column("group_id", _Id, primary_key=True),
    Column("buffer_id", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("idx", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sampler_id", BigInteger, nullable=False),
    Column("admitted", Boolean, nullable=False),
    Column("priority", Double, nullable=False),
    Column("uses", BigInteger, nullable=False),
    Column("last_used", BigInteger),
    Column("evicted_at", BigInteger),
    UniqueConstraint("buffer_id", "step", "idx"),
)

FACTS = Table(
    f"ratchet_{SCHEMA}_facts",
    METADATA,
    Column("group_id", _Id, primary_key=True, autoincrement=False),
    Column("facts", LargeBinary, nullable=False),
)

USES = Table(
    f"ratchet_{SCHEMA}_uses",
    METADATA,
    Column("buffer_id", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("group_id", BigInteger, nullable=False),
    # what the use overwrote
    Column("uses", BigInteger, nullable=False),
    Column("last_used", BigInteger),
    Column("priority", Double, nullable=False),
    PrimaryKeyConstraint("buffer_id", "step", "group_id"),
    sqlite_with_rowid=False,
)

_live, _gone = text("evicted_at IS NULL"), text("evicted_at IS NOT NULL")
_live_part: dict[str, Any] = {"sqlite_where": _live, "postgresql_where": _live}
_gone_part: dict[str, Any] = {"sqlite_where": _gone, "postgresql_where": _gone}

BY_PRIORITY = Index(
    f"ratchet_{SCHEMA}_by_priority",
    GROUPS.c.buffer_id,
    GROUPS.c.priority.desc(),
    GROUPS.c.step.desc(),
    GROUPS.c.idx,
    **_live_part,
)
# Step, sampler and, for SQLite, even the constant null are in it so that opening a buffer counts its live groups from
# this index alone.
BY_VERSION = Index(
    f"ratchet_{SCHEMA}_by_version",
    GROUPS.c.buffer_id,
    GROUPS.c.version,
    GROUPS.c.step,
    GROUPS.c.sampler_id,
    GROUPS.c.evicted_at,
    **_live_part,
)
BY_EVICTION = Index(f"ratchet_{SCHEMA}_by_eviction", GROUPS.c.buffer_id, GROUPS.c.evicted_at, **_gone_part)
