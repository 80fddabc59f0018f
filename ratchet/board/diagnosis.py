"""Findings of runs, made beside the requests: one thread diagnoses what has changed, one run after another."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ratchet.board.finding import Diagnose, Finding, sorted_findings
from ratchet.board.library import Record
from ratchet.core.errors import RatchetError

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

    def __init__(self, diagnose: Diagnose) -> None:
        self._diagnose = diagnose
        self._known: dict[str, Diagnosed] = {}
        self._asked: set[str] = set()
        self._news: set[str] = set()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="diagnosis")

    def of(self, id_: str, record: Record) -> Diagnosed:
        """Return what is known, and have it looked at again if the run has changed since."""
        with self._lock:
            known = self._known.get(id_, Diagnosed())
            due = known.version != record.version and time.monotonic() > known.again
            if (due or known.version < 0) and id_ not in self._asked:
                self._asked.add(id_)
                self._thread.submit(self._look, id_, record)
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
        """End the thread; what was asked for and not begun is dropped."""
        self._thread.shutdown(cancel_futures=True)

    def _look(self, id_: str, record: Record) -> None:
        version, began = record.version, time.monotonic()
        findings: tuple[Finding, ...] = ()
        failed = ""
        try:
            findings = tuple(sorted_findings(self._diagnose(record.path)))
        except (RatchetError, OSError, ValueError, KeyError, TypeError) as error:
            # The last three: rows or rollouts that are damaged, or half written. The page shows the run without.
            failed = str(error) if isinstance(error, RatchetError | OSError) else f"damaged data: {error}"
        ended = time.monotonic()
        found = Diagnosed(findings, version, failed, ended + max(AGAIN_S, SHARE * (ended - began)))
        with self._lock:
            self._known[id_] = found
            self._asked.discard(id_)
            self._news.add(id_)
