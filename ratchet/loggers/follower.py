"""One logger at work: a thread that reads the run store behind the run, and passes on what is new.

The run only rings. What it wrote is read from its files, so a logger that is slow loses nothing and holds nothing up,
and one that was away (a network that was down, a logger that was added later) catches up from where it was.

    rung -> read the rows behind the mark -> pass them on -> move the mark -> wait
                                              | raises
                                              +-> counted; tried again after a pause, and when the run ends
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

from ratchet.core.load import describe
from ratchet.loggers.logger import About, Logger
from ratchet.loggers.mark import Mark, mark_path, read_mark, write_mark
from ratchet.store.run_store import RunStore

LONGEST_PAUSE_S = 300.0
"""The pause after a failure is 2 s, and doubles with each one that follows, up to this."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about a logger that the run should record."""

    kind: str
    """``logger_begun``; ``logger_failed``, which will be tried again; ``logger_dead``, which will not."""
    logger: str
    what: str
    """The name the library has for the run, or what went wrong."""


@dataclass(frozen=True, slots=True)
class _End:
    finished: bool


class Follower:
    """Passes a run on to one logger, in a thread."""

    def __init__(self, name: str, logger: Logger, store: RunStore, about: About, now: Callable[[], float]) -> None:
        """`now` tells seconds, for the pauses."""
        self.name, self._now, self._not_before = name, now, 0.0
        self._logger, self._store, self._about = logger, store, about
        self._path = mark_path(store.folder, name)
        self._rings: SimpleQueue[_End | None] = SimpleQueue()
        self._notices: SimpleQueue[Notice] = SimpleQueue()
        self._mark, self._begun, self._in_a_row = Mark(), False, 0
        # A daemon: a library that never returns must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name=f"logger-{name}", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Say that the run wrote something."""
        self._rings.put(None)

    def end(self, *, finished: bool) -> None:
        """Say that nothing more will come."""
        self._rings.put(_End(finished))

    def ended(self, limit_s: float) -> bool:
        """Wait for everything to be passed on, `limit_s` seconds at most; return whether it was."""
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def notices(self) -> Iterator[Notice]:
        """Yield what happened since this was asked last."""
        while True:
            try:
                yield self._notices.get_nowait()
            except Empty:
                return

    def _work(self) -> None:
        self._mark = read_mark(self._path)
        ring = None
        while ring is None:
            ring = self._rings.get()
            while ring is None and not self._rings.empty():  # one reading answers many rings
                ring = self._rings.get()
            if ring is not None or self._now() >= self._not_before:
                self._try(ring)

    def _try(self, ring: _End | None) -> None:
        try:
            self._catch_up()
            if ring is not None:
                self._logger.end(finished=ring.finished)
        # A library of others may raise anything, most of all when a network is down; the run must not notice.
        except Exception as error:
            self._in_a_row += 1
            self._not_before = self._now() + min(LONGEST_PAUSE_S, 2.0**self._in_a_row)
            self._notices.put(Notice("logger_failed", self.name, describe(error)))
            if ring is not None:
                said = f"did not get everything, the last reason being {describe(error)}"
                self._notices.put(Notice("logger_dead", self.name, said))
        else:
            self._in_a_row = 0

    def _catch_up(self) -> None:
        if not self._begun:
            self._mark = replace(self._mark, id=self._logger.begin(self._about, self._mark.id))
            write_mark(self._path, self._mark)
            self._begun = True
            self._notices.put(Notice("logger_begun", self.name, self._mark.id))
        rows, metrics_at = self._store.tail("metrics", self._mark.metrics_at)
        for row in rows:
            if row.get("step", -1) > self._mark.step:  # a line without a step says that the run was turned back
                self._logger.log(row["step"], _numbers(row))
                self._mark = replace(self._mark, step=row["step"])
        events, events_at = self._store.tail("events", self._mark.events_at)
        for event in events:
            if event["kind"] == "eval" and event["step"] > self._mark.evaluated.get(event["split"], -1):
                prefix = f"eval/{event['split']}/"
                self._logger.log(event["step"], {prefix + name: x for name, x in _numbers(event).items()})
                self._mark = replace(self._mark, evaluated={**self._mark.evaluated, event["split"]: event["step"]})
        self._mark = replace(self._mark, metrics_at=metrics_at, events_at=events_at)
        write_mark(self._path, self._mark)


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a number in a row; `step` and `time` say when it was, and are none of them."""
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("step", "time")
    }
