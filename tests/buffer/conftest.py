"""Buffers in SQLite files and, where RATCHET_TEST_POSTGRES names one, in a PostgreSQL database."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ratchet.buffer.groups import GroupTable

sys.path.insert(0, str(Path(__file__).parent))  # for `experiences`

POSTGRES = os.environ.get("RATCHET_TEST_POSTGRES", "")
Open = Callable[..., GroupTable]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database that can be written to."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'buffer.sqlite'}"
    if not POSTGRES:
        pytest.skip("RATCHET_TEST_POSTGRES is unset: set it to the URL of a PostgreSQL database for tests")
    return POSTGRES


@pytest.fixture
def name() -> str:
    """Return a name no buffer has."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def opened(url: str, name: str) -> Iterator[Open]:
    """Return a function that opens tables and is answerable for closing them."""
    tables: list[GroupTable] = []

    def open_table(*, create: bool = True, name: str = name, tokenizer: str = "letters") -> GroupTable:
        tables.append(GroupTable.open(url, name, tokenizer=tokenizer, create=create))
        return tables[-1]

    yield open_table
    for table in tables:
        table.close()


@pytest.fixture
def table(opened: Open) -> GroupTable:
    return opened()
