"""No operation reads a table from end to end, and none does more work because the buffer is large."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from experiences import fingerprints, put
from sqlalchemy import Engine, event

from ratchet.buffer.groups import GroupTable

Asked = list[tuple[str, Any]]


@pytest.fixture
def asked() -> Iterator[Asked]:
    """Record the statements any database is asked, with their parameters."""
    found: Asked = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        found.append((statement, parameters[0] if many else parameters))

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "buffer.sqlite"


def filled(file: Path, steps: int, *, name: str = "b") -> GroupTable:
    table = GroupTable.open(f"sqlite:///{file}", name, tokenizer="t", create=True)
    with table.transaction("filling"):
        for step in range(steps):
            for index in range(8):
                put(table, step, index, priority=float((step * 8 + index) % 97))
    return table


def everything(table: GroupTable, now: int) -> None:
    """Do what a buffer does in a step, and more."""
    put(table, now, 0, priority=5.0)
    put(table, now, 0, priority=6.0)
    table.groups_at(now)
    table.read(now)
    table.entries_at(now)
    table.evict_older(now, 3)
    entries = table.choose(now, 8, cooldown=2, max_uses=3)
    table.load(entries)
    table.use(now, entries, [e.priority - 1 for e in entries])
    table.evict(now, entries[:2])
    table.evict_used(now)
    table.evict_beyond(now, table.size_at(now) - 8)
    table.purge(now - 5)
    table.rewind(now - 1, fingerprints(now))


@pytest.mark.parametrize("analysed", [False, True])
def test_no_statement_reads_a_table_from_end_to_end_or_sorts_one(file: Path, asked: Asked, analysed: bool) -> None:
    table = filled(file, 60)
    reader = sqlite3.connect(file)
    if analysed:  # what SQLite knows of the tables' contents changes its plans
        reader.execute("ANALYZE")
        table.close()
        table = GroupTable.open(f"sqlite:///{file}", "b", tokenizer="t", create=False)
    asked.clear()
    everything(table, 60)
    table.close()
    plans: dict[str, str] = {}
    for statement, parameters in asked:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            plans[statement] = "; ".join(
                row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            )
    reader.close()
    assert len(plans) >= 20
    # Three read an index over all live groups: from its best end, from its worst, and to count them after going back.
    whole = {s: p for s, p in plans.items() if "(buffer_id=?)" in p and "ratchet_1_uses" not in s}
    assert sorted(p.split(" USING ")[1].split()[-2] for p in whole.values()) == [
        "ratchet_1_by_priority", "ratchet_1_by_priority", "ratchet_1_by_version"
    ]  # fmt: skip
    assert all("LIMIT" in s or "count(*)" in s for s in whole)
    assert {s: p for s, p in plans.items() if "SCAN" in p or "TEMP B-TREE" in p} == {}


OPERATIONS: dict[str, Callable[[GroupTable, int], object]] = {
    "put": lambda t, now: put(t, now, 0, priority=50.5),
    "choose": lambda t, now: t.choose(now, 8, cooldown=2, max_uses=3),
    "use": lambda t, now: t.use(now, e := t.choose(now, 8, cooldown=0, max_uses=0), [x.priority for x in e]),
    "evict stale": lambda t, now: t.evict_older(now, 1),
    "evict beyond": lambda t, now: t.evict_beyond(now, t.size_at(now) - 8),
    "evict used": lambda t, now: t.evict_used(now - 1),
    "purge": lambda t, now: t.purge(now - 5),
}


def test_no_operation_does_more_work_in_a_large_buffer(tmp_path: Path) -> None:
    """Counts what SQLite's virtual machine does, in hundreds of instructions: clocks would make the test a gamble."""
    ticks = [0]

    def watch(connection: sqlite3.Connection, record: object) -> None:
        def tick() -> int:
            ticks[0] += 1
            return 0

        connection.set_progress_handler(tick, 10)

    work: dict[str, list[int]] = {name: [] for name in OPERATIONS}
    event.listen(Engine, "connect", watch)
    try:
        for steps in (30, 600):
            table = filled(tmp_path / f"{steps}.sqlite", steps)
            for name, operation in OPERATIONS.items():
                ticks[0] = 0
                operation(table, steps)
                work[name].append(ticks[0])
            table.close()
    finally:
        event.remove(Engine, "connect", watch)
    assert {name: n for name, n in work.items() if n[1] > 1.5 * n[0] + 10} == {}, work
