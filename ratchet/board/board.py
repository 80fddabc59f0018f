"""What the board answers: one method per question, each returning JSON values. Server and export both ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet.board.compare import MOST_RUNS, coordinates, differences, overlay
from ratchet.board.diagnosis import Diagnosed, Diagnosis
from ratchet.board.finding import Diagnose, nothing_found
from ratchet.board.index import Index, Query
from ratchet.board.ledger import ledger
from ratchet.board.library import Library, Record
from ratchet.board.listing import row, varying
from ratchet.board.page import details, series
from ratchet.board.rollouts import Shelf, attempt_named, group_named, opened, rows, whole
from ratchet.board.run import OwnRun
from ratchet.board.tags import Tags
from ratchet.core.errors import ConfigError
from ratchet.store.control import Act, Request, ask, is_held

FIRST_BUILD_S = 0.4
"""A search waits so long for the index; the rest is built beside."""
LONGEST_NOTE = 2000
ENDED = frozenset({"stopped", "finished", "crashed", "failed", "paused", "stopped_by_guard"})
"""Words of a status with which a process has ended; what is asked of such a run is done when it is resumed."""


class Board:
    """A folder of runs and logs, and everything that can be asked about it. Safe to call from several threads."""

    def __init__(self, folder: Path, diagnose: Diagnose = nothing_found, *, apart: bool = False) -> None:
        """With `apart`, runs are diagnosed by a process of its own; `diagnose` is then a function of a module."""
        self.library = Library(folder)
        self.tags = Tags(self.library.folder)
        self.diagnosis = Diagnosis(diagnose, apart=apart)
        self.diagnoses = diagnose is not nothing_found
        """Whether somebody gave the board a diagnosis."""
        self._shelf = Shelf()
        self._indexes: dict[str, Index] = {}
        self._builders: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """End what goes on beside the requests."""
        self.diagnosis.close()

    def changes(self) -> list[str]:
        """Return the ids of runs about which there is something new: in their files, or found by the diagnosis."""
        return list(dict.fromkeys([*self.library.news(), *self.diagnosis.news()]))

    def runs(self) -> dict[str, Any]:
        """Return the list of runs, newest word first, and the settings in which they differ."""
        self.library.refresh()
        records = self.library.records()
        keys, settings = varying(records)
        told = [self._row(i, r) | {"settings": settings.get(i, {})} for i, r in records.items()]
        return {
            "folder": self.library.folder.name,
            "runs": sorted(told, key=lambda run: -run["last_word"]),
            "keys": keys,
            "refused": [{"name": name, "why": why} for name, why in self.library.refused()],
            "now": time.time(),
        }

    def run(self, id_: str) -> dict[str, Any]:
        """Return the page of a run without the numbers of its curves."""
        record = self._record(id_)
        found = self._diagnosed(id_, record, first=True)
        return {
            **self._row(id_, record),
            **details(record),
            "findings": [f.as_json() for f in found.findings],
            "diagnosed": {"given": self.diagnoses, "done": found.version >= 0, "failed": found.failed},
            "acts": self._acts(record),
            "now": time.time(),
        }

    def series(self, id_: str, names: Sequence[str], **how: Any) -> list[dict[str, Any]]:
        """Return curves of a run: see `page.series`."""
        return series(self._record(id_), names, **how)

    def ledger(self, id_: str) -> dict[str, Any]:
        """Return the books of a run of ours."""
        return ledger(self._own(id_))

    def compare(self, ids: Sequence[str], metrics: Sequence[str], **how: Any) -> dict[str, Any]:
        """Return runs held side by side."""
        self.library.refresh()
        if not 1 <= len(ids) <= MOST_RUNS:
            raise ConfigError(f"Choose 1 to {MOST_RUNS} runs to compare.")
        records = {i: self.library.get(i) for i in dict.fromkeys(ids)}
        return {
            "runs": [self._row(i, r) for i, r in records.items()],
            "differences": differences(records),
            "coordinates": coordinates(records, metrics),
            "names": sorted(set[str]().union(*(r.names() for r in records.values()))),
            **overlay(records, metrics, **how),
        }

    def steps(self, id_: str) -> dict[str, Any]:
        """Return the steps whose rollouts were kept."""
        run = self._own(id_)
        return {"steps": run.store.steps_with_groups(), "kept": bool(run.settings.get("record.rollouts", True))}

    def groups(self, id_: str, step: int) -> list[dict[str, Any]]:
        """Return the groups of a step, widest spread first."""
        return rows(self._shelf.groups(self._own(id_).store, step))

    def group(self, id_: str, step: int, index: int) -> dict[str, Any]:
        """Return a group with the texts of its attempts."""
        return opened(group_named(self._shelf.groups(self._own(id_).store, step), index))

    def attempt(self, id_: str, step: int, index: int, attempt: int) -> dict[str, Any]:
        """Return one attempt with its tokens."""
        store = self._own(id_).store
        group = group_named(self._shelf.groups(store, step), index)
        differences = self._shelf.differences(store, step)
        return whole(group, attempt_named(group, attempt), self._shelf.tokenizer(store), differences)

    def search(self, id_: str, query: Query, limit: int = 50) -> dict[str, Any]:
        """Return what is found in the rollouts of a run, and how far its index is."""
        index = self._index(id_)
        return {**index.search(query, limit), "indexed": list(index.progress())}

    def same_task(self, id_: str, task_id: str) -> dict[str, Any]:
        """Return the attempts at a task over the steps, as far as the index is."""
        index = self._index(id_)
        return {"attempts": index.same_task(task_id), "indexed": list(index.progress())}

    def act(self, id_: str, act: str, *, step: int = -1, text: str = "") -> dict[str, Any]:
        """Ask something of a run on this machine. Raises `ConfigError` if it cannot be asked now."""
        run = self._own(id_)
        allowed = self._acts(run)
        if act not in allowed:
            raise ConfigError(
                f"This run cannot be asked to {act.replace('_', ' ')} now: it is {run.now().state.value}, and must be "
                "going on on this machine."
            )
        if act == Act.NOTE and not text.strip():
            raise ConfigError("A note needs words.")
        if len(text) > LONGEST_NOTE:
            raise ConfigError(f"A note has at most {LONGEST_NOTE} characters.")
        if act == Act.ROLL_BACK and step not in self.roll_back_steps(run):
            raise ConfigError(f"The run cannot go back to step {step}: {self.roll_back_steps(run)} are kept.")
        asked: Request = ask(run.path, Act(act), step=step, text=" ".join(text.split()))
        return {"number": asked.number, "act": asked.act.value}

    def roll_back_steps(self, run: OwnRun) -> list[int]:
        """Return the checkpoints a run can go back to: those its buffer still knows (see `run.control.reachable`)."""
        replays = run.settings.get("buffer.kind") == "replay"
        return run.checkpoints()[-int(run.settings.get("record.keep_checkpoints", 1)) if replays else 0 :]

    def _acts(self, record: Record) -> list[str]:
        """Return what may be asked of a run now. Only a process of this machine holds the run's lock."""
        if not isinstance(record, OwnRun):
            return []
        back = [Act.ROLL_BACK.value] if len(self.roll_back_steps(record)) > 0 else []
        if not is_held(record.path):
            return back if record.status.get("state") in ENDED else []
        paused = record.now().state.value == "paused"
        return [(Act.GO_ON if paused else Act.PAUSE).value, Act.CHECKPOINT.value, Act.STOP.value, *back, Act.NOTE.value]

    def _row(self, id_: str, record: Record) -> dict[str, Any]:
        name = self.library.name_of(record)
        return row(id_, name, record, self.tags.of(id_), self._diagnosed(id_, record))

    def _diagnosed(self, id_: str, record: Record, *, first: bool = False) -> Diagnosed:
        return self.diagnosis.of(id_, record, first=first) if self.diagnoses else Diagnosed()

    def _record(self, id_: str) -> Record:
        return self.library.look_at(id_)

    def _own(self, id_: str) -> OwnRun:
        record = self._record(id_)
        if not isinstance(record, OwnRun):
            raise ConfigError("This is a log of another framework: it holds metrics, and nothing of this.")
        return record

    def _index(self, id_: str) -> Index:
        """Return the index of a run; what it lacks is built beside, as far as it is not there in a moment."""
        run = self._own(id_)
        with self._lock:
            index = self._indexes.setdefault(id_, Index(run.store))
            builder = self._builders.get(id_)
            if builder is not None and builder.is_alive():
                return index
        if not index.build(within_s=FIRST_BUILD_S):
            builder = threading.Thread(target=index.build, name="index", daemon=True)
            with self._lock:
                self._builders[id_] = builder
            builder.start()
        return index


def as_query(asked: Mapping[str, str]) -> Query:
    """Return a query from the words of an address. Raises `ConfigError` for numbers that are none."""
    return Query(
        words=asked.get("q", "")[:400],
        low=_number(asked, "low"),
        high=_number(asked, "high"),
        status=asked.get("status", ""),
        first=_whole(asked, "first"),
        last=_whole(asked, "last"),
    )


def _number(asked: Mapping[str, str], key: str) -> float | None:
    text = asked.get(key, "")
    try:
        return float(text) if text else None
    except ValueError:
        raise ConfigError(f'{key} = "{text}" is no number.') from None


def _whole(asked: Mapping[str, str], key: str) -> int | None:
    number = _number(asked, key)
    return None if number is None else int(number)
