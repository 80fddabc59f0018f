"""Findings of runs, made beside the requests: what has changed is diagnosed, one run after another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ratchet.board.apart import Apart, Lost, looked
from ratchet.board.finding import Diagnose, Finding, worst_first
from ratchet.board.library import Record

AGAIN_S = 10.0
"""A run that grows is diagnosed again no sooner than this."""
SHARE = 20
"""Nor sooner than so many times what its diagnosis took: a long log must not keep a core busy."""


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """What was found in a run when it was last looked at."""

    findings: tuple[Finding, ...] = ()
    version: int = -1
    """Version of the run it was found in; -1 if it was not looked at yet."""
    failed: str = ""
    """Why there is no diagnosis."""
    again: float = field(default=0.0)
    """When it may be looked at again, by the clock of `time.monotonic`."""


class Diagnosis:
    """The newest findings of each run."""

    def __init__(self, diagnose: Diagnose, *, apart: bool = False) -> None:
        """With `apart`, runs are diagnosed by a process of its own; `diagnose` is then a function of a module."""
        self._diagnose = diagnose
        self._apart = Apart(diagnose) if apart else None
        self._known: dict[str, Diagnosed] = {}
        self._asked: dict[str, Record] = {}
        """What waits, in its order. As many calls of `_look_at_next` wait in the thread."""
        self._looked_at: str | None = None
        self._news: set[str] = set()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="diagnosis")

    def of(self, id_: str, record: Record, *, first: bool = False) -> Diagnosed:
        """Return what is known, and have the run looked at again if it has changed since; before others if `first`."""
        with self._lock:
            known = self._known.get(id_, Diagnosed())
            due = known.version != record.version and time.monotonic() > known.again
            if (due or known.version < 0) and id_ not in (*self._asked, self._looked_at):
                self._asked[id_] = record
                self._thread.submit(self._look_at_next)
            if first and id_ in self._asked:
                self._asked = {id_: record} | self._asked
        return known

    def news(self) -> list[str]:
        """Return the runs that were diagnosed since this was last asked."""
        with self._lock:
            news, self._news = sorted(self._news), set()
        return news

    def wait(self, id_: str, record: Record) -> Diagnosed:
        """Return the diagnosis of a run as it is now."""
        self.of(id_, record)
        self._thread.submit(lambda: None).result()
        return self._known[id_]

    def close(self) -> None:
        """End what is being looked at; what was asked for and not begun is dropped."""
        if self._apart is not None:
            self._apart.close()
        self._thread.shutdown(cancel_futures=True)

    def _look_at_next(self) -> None:
        with self._lock:
            id_ = next(iter(self._asked))
            record = self._asked.pop(id_)
            self._looked_at = id_
        version, began = record.version, time.monotonic()
        try:
            findings, failed = self._apart.look(record.path) if self._apart else looked(self._diagnose, record.path)
        except Lost as error:
            findings, failed = (), str(error)
        ended = time.monotonic()
        again = ended + max(AGAIN_S, SHARE * (ended - began))
        with self._lock:
            self._known[id_] = Diagnosed(tuple(worst_first(findings)), version, failed, again)
            self._looked_at = None
            self._news.add(id_)
