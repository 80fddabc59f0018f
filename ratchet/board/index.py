"""Search in all rollouts of a run: an SQLite file beside them with a full-text index (FTS5), built step by step.

    steps     which files of rollouts are in it, as they were        rollouts   one row per attempt, with its text
    words     the full-text index over the texts and prompts         build_id   unknown ones are built anew

It holds nothing that the rollouts do not, and may be removed at any time.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.core.errors import ConfigError
from ratchet.store.run_store import Row, RunStore

FILE = "board.sqlite"
LAYOUT = 1
"""Raised when the tables change; an index of another layout is built anew."""
MOST_HITS = 100
COUNTED = 10_000
"""Hits beyond this are not counted: "10,000 or more" is as good an answer, and quick."""
LOOKED_AT = 100_000
"""Attempts that bounds on reward, status or step are held against, newest first: reading more takes too long."""
WORDS, QUOTE = re.compile(r'"([^"]+)"|([^\s"]+)'), '"'
SNIPPET = 30
"""Words of a text that a hit shows."""
TABLES = """
CREATE TABLE steps (step INTEGER PRIMARY KEY, size INTEGER, changed INTEGER);
CREATE TABLE rollouts (
    id INTEGER PRIMARY KEY, step INTEGER, task INTEGER, attempt INTEGER, task_id TEXT, reward REAL, status TEXT,
    tokens INTEGER, text TEXT, prompt TEXT
);
CREATE INDEX of_step ON rollouts (step);
CREATE INDEX of_task ON rollouts (task_id, step);
CREATE VIRTUAL TABLE words USING fts5 (
    text, prompt, content='rollouts', content_rowid='id', tokenize='unicode61 remove_diacritics 2'
);
"""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for."""

    words: str
    """Words that must all be there; in quotes, a phrase; with a star behind it, the beginning of one."""
    low: float | None = None
    """Least reward."""
    high: float | None = None
    status: str = ""
    first: int | None = None
    """First step."""
    last: int | None = None


class Index:
    """The index of one run. Searches may go on while another thread builds."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._path = store.folder / FILE
        self._building = threading.Lock()
        self._known = (0, 0)

    def progress(self) -> tuple[int, int]:
        """Return how many steps are in the index, and how many there are."""
        return self._known

    def build(self, *, within_s: float = float("inf")) -> bool:
        """Bring the index up to date, for at most about so many seconds; return whether it is.

        Raises `ConfigError` if the file cannot be written.
        """
        with self._building, closing(self._opened()) as base:
            until = time.monotonic() + within_s
            there = {int(p.name[5:11]): _mark(p) for p in sorted((self._store.folder / "rollouts").glob("step_*.gz"))}
            held = {int(s): (int(size), int(changed)) for s, size, changed in base.execute("SELECT * FROM steps")}
            done = sum(held.get(step) == mark for step, mark in there.items())
            self._known = (done, len(there))
            for step, mark in there.items():
                if held.get(step) == mark:
                    continue
                if time.monotonic() > until:
                    return False
                try:
                    rows = list(_rows(step, self._store.group_rows(step)))
                except (OSError, EOFError, ValueError, KeyError, TypeError):
                    rows = []  # damaged: it has no texts, and is looked at again when it changes
                with base:
                    _forget(base, step)
                    put(base, rows)
                    base.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?)", (step, *mark))
                done += 1
                self._known = (done, len(there))
            return True

    def search(self, query: Query, limit: int = 50) -> dict[str, Any]:
        """Return the newest hits, and how many there are (counted up to `COUNTED`).

        With bounds beside the words, only the newest `LOOKED_AT` attempts that have the words are looked at.
        """
        started = time.perf_counter()
        match = phrase(query.words)
        bounds, values = _bounds(query)
        with closing(self._opened()) as base:
            # Newest first by the row number, which the index yields in order: ranking would read every hit.
            words = "SELECT rowid AS at FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT ?"
            inner, given = (words, [match]) if match else ("SELECT id AS at FROM rollouts ORDER BY id DESC LIMIT ?", [])
            if bounds:
                narrowed = f"SELECT at FROM ({inner}) JOIN rollouts ON id = at {bounds} ORDER BY at DESC LIMIT ?"
                found = base.execute(narrowed, (*given, LOOKED_AT, *values, COUNTED)).fetchall()
            else:
                found = base.execute(inner, (*given, COUNTED)).fetchall()
            shown = [at for (at,) in found[: min(limit, MOST_HITS)]]
            hits = _hits(base, match, shown) if bounds or not match else _newest(base, match, len(shown))
        return {
            "hits": hits,
            "count": len(found),
            "capped": len(found) >= COUNTED,
            "newest": LOOKED_AT if bounds else 0,
            "ms": round(1000 * (time.perf_counter() - started), 1),
        }

    def same_task(self, task_id: str, limit: int = 600) -> list[dict[str, Any]]:
        """Return the attempts at a task over all steps."""
        names = ("step", "task", "attempt", "reward", "status", "tokens", "text")
        with closing(self._opened()) as base:
            found = base.execute(
                f"SELECT {', '.join(names)} FROM rollouts WHERE task_id = ? ORDER BY step, task, attempt LIMIT ?",
                (task_id, limit),
            ).fetchall()
        return [dict(zip(names, row, strict=True)) for row in found]

    def _opened(self) -> sqlite3.Connection:
        try:
            return opened(self._path)
        except sqlite3.Error as error:
            raise ConfigError(
                f"{self._path} cannot be used: {error}. It is only an index: make the folder writable, or remove the "
                "file, and it is built again."
            ) from None


def opened(path: Path) -> sqlite3.Connection:
    """Return the database with its tables; one of another layout, or damaged, is made anew."""
    base = sqlite3.connect(path, timeout=30, check_same_thread=False)
    try:
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        base.execute("PRAGMA cache_size = -65536")
        layout = base.execute("PRAGMA user_version").fetchone()[0]
        if layout != LAYOUT:
            for (name,) in base.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('words', 'rollouts', 'steps')"
            ).fetchall():
                base.execute(f"DROP TABLE {name}")
            base.executescript(TABLES)
            base.execute(f"PRAGMA user_version = {LAYOUT}")
    except sqlite3.DatabaseError:
        base.close()
        raise
    return base


def put(base: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Add attempts: (step, task, attempt, task_id, reward, status, tokens, text, prompt)."""
    first = base.execute("SELECT coalesce(max(id), 0) + 1 FROM rollouts").fetchone()[0]
    numbered = [(first + i, *row) for i, row in enumerate(rows)]
    base.executemany("INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", numbered)
    base.executemany(
        "INSERT INTO words (rowid, text, prompt) VALUES (?, ?, ?)", ((r[0], r[-2], r[-1]) for r in numbered)
    )


def _forget(base: sqlite3.Connection, step: int) -> None:
    """Remove a step that is there in another form: a resumed run sampled it again."""
    base.execute(
        "INSERT INTO words (words, rowid, text, prompt) SELECT 'delete', id, text, prompt FROM rollouts WHERE step = ?",
        (step,),
    )
    base.execute("DELETE FROM rollouts WHERE step = ?", (step,))


def phrase(words: str) -> str:
    """Return words as FTS5 understands them: each quoted, so that nothing in them is an operator; empty for none.

    Quoted words stay together, and a word with a star behind it is a beginning.
    """
    parts = [(quoted or word, not quoted and word.endswith("*")) for quoted, word in WORDS.findall(words)]
    kept = [(text, begins) for text, begins in parts if re.search(r"\w", text)]
    return " ".join(f'"{text.replace(QUOTE, 2 * QUOTE)}"{" *" if begins else ""}' for text, begins in kept)


def _bounds(query: Query) -> tuple[str, list[Any]]:
    """Return what a query asks beside its words, as a condition over `rollouts`; empty for nothing."""
    asked = (
        ("reward >= ?", query.low),
        ("reward <= ?", query.high),
        ("status = ?", query.status or None),
        ("step >= ?", query.first),
        ("step <= ?", query.last),
    )
    given = [(told, value) for told, value in asked if value is not None]
    where = f"WHERE {' AND '.join(told for told, _ in given)}" if given else ""
    return where, [value for _, value in given]


NAMES = ("step", "task", "attempt", "reward", "status", "tokens", "text", "prompt")
FACTS = "step, task, attempt, reward, status, tokens"
AROUND = f"snippet(words, 0, '', '', ' … ', {SNIPPET}), snippet(words, 1, '', '', ' … ', {SNIPPET})"
JOINED = "words JOIN rollouts ON id = words.rowid WHERE words MATCH ?"


def _newest(base: sqlite3.Connection, match: str, limit: int) -> list[dict[str, Any]]:
    """Return the newest attempts that have the words, with what stands around these."""
    asked = f"SELECT {FACTS}, {AROUND} FROM {JOINED} ORDER BY words.rowid DESC LIMIT ?"
    return [dict(zip(NAMES, row, strict=True)) for row in base.execute(asked, (match, limit))]


def _hits(base: sqlite3.Connection, match: str, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """Return some attempts with what stands around the words, or how they begin where none were asked for."""
    found = []
    for at in chosen:
        if match:
            row = base.execute(f"SELECT {FACTS}, {AROUND} FROM {JOINED} AND words.rowid = ?", (match, at)).fetchone()
        else:
            begins = f"SELECT {FACTS}, substr(text, 1, 240), substr(prompt, 1, 240) FROM rollouts WHERE id = ?"
            row = base.execute(begins, (at,)).fetchone()
        found.append(dict(zip(NAMES, row, strict=True)))
    return found


def _mark(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _rows(step: int, groups: Iterator[Row]) -> Iterator[tuple[Any, ...]]:
    """Yield the attempts of a step. The prompt stands with the first of a group, so that it is found once."""
    for group in groups:
        prompt = "\n".join(str(m["content"]) for m in group["task"]["prompt"])
        for i, rollout in enumerate(group["rollouts"]):
            texts, tokens = _texts(rollout)
            yield (
                step, int(group["index"]), int(rollout["attempt"]), str(group["task_id"]), rollout["reward"],
                str(rollout["status"]), tokens, texts, prompt if i == 0 else "",
            )  # fmt: skip


def _texts(rollout: Mapping[str, Any]) -> tuple[str, int]:
    """Return what all agents of an attempt wrote, and how many tokens the policy sampled."""
    turns = [(t["trainable"], u) for t in rollout["trajectories"] for u in t["turns"]]
    return "\n".join(str(u["text"]) for _, u in turns), sum(len(u["output"]) for trained, u in turns if trained)
