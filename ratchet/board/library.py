"""All runs and logs below a folder: finds them, gives each an id, and says which have changed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from ratchet.board.foreign import Candidate, ForeignLog, candidates
from ratchet.board.run import OwnRun
from ratchet.core.errors import ConfigError

Record = OwnRun | ForeignLog

FIND_EVERY_S = 5.0
"""Between two walks through the folder: runs begin seldom."""
LOOK_EVERY_S = 0.5
"""Between two looks at the files of the known runs."""
MAX_DEPTH = 6
MAX_LOGS = 400
PASSED_OVER = frozenset({"checkpoints", "rollouts", "figures", "node_modules", "__pycache__", "site-packages", "wandb"})


class Library:
    """What lies below a folder. Safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"{folder} is no folder. Name the folder that holds your runs, such as runs.")
        self.folder = folder.resolve()
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        self._candidates: dict[str, Candidate] = {}
        self._found_at = self._looked_at = 0.0
        self._untold: dict[str, None] = {}
        """Ids of what a look found changed and `news` has not returned yet, in order."""

    def refresh(self, *, force: bool = False) -> None:
        """Look for new runs and for what is new in the known ones, if the last look is not of this moment."""
        with self._lock:
            now = time.monotonic()
            if not force and now - self._looked_at < LOOK_EVERY_S:
                return
            if force or not self._found_at or now - self._found_at > FIND_EVERY_S:
                self._find()
                self._found_at = time.monotonic()
            for id_, record in self._records.items():
                if record.refresh() if isinstance(record, OwnRun) else record.look(self._candidates[id_]):
                    self._untold[id_] = None
            self._looked_at = time.monotonic()

    def news(self, *, force: bool = False) -> list[str]:
        """Look, and return the ids that changed, are new or are gone since this was asked last, whoever looked."""
        self.refresh(force=force)
        with self._lock:
            told = list(self._untold)
            self._untold.clear()
            return told

    def records(self) -> Mapping[str, Record]:
        """Return id -> run or log. Files that are no log of reinforcement learning are not among them."""
        return {i: r for i, r in self._records.items() if isinstance(r, OwnRun) or r.log is not None}

    def refused(self) -> list[tuple[str, str]]:
        """Return what looked like a log and is none that can be shown: its name, and why."""
        found = [r for r in self._records.values() if isinstance(r, ForeignLog) and r.log is None and r.why_not]
        return [(self.name_of(r), r.why_not) for r in found]

    def get(self, id_: str) -> Record:
        """Return a run or log by its id. Raises `ConfigError` if there is none: ids are looked up, never opened."""
        found = self.records().get(id_)
        if found is None:
            raise ConfigError("There is no such run in this folder. It may have been moved or removed.")
        return found

    def look_at(self, id_: str) -> Record:
        """Return a run or log as its files are now, however lately they were looked at. Raises as `get` does."""
        self.refresh()
        record = self.get(id_)
        if isinstance(record, OwnRun):
            with self._lock:
                if record.refresh():
                    self._untold[id_] = None
        return record

    def name_of(self, record: Record) -> str:
        """Return the place of a run below the folder; its own name where it is the folder itself."""
        if record.path == self.folder:
            return self.folder.name
        return record.path.relative_to(self.folder).as_posix()

    def _find(self) -> None:
        own, logs = _walk(self.folder)
        there = {_id(path, self.folder) for path in own}
        for path in own:
            id_ = _id(path, self.folder)
            if not isinstance(self._records.get(id_), OwnRun):
                self._records[id_] = OwnRun(path)
                self._untold[id_] = None
        for candidate in logs[:MAX_LOGS]:
            id_ = _id(candidate.path, self.folder)
            there.add(id_)
            self._candidates[id_] = candidate
            if id_ not in self._records:
                self._records[id_] = ForeignLog(candidate.path)
        for gone in self._records.keys() - there:
            del self._records[gone]
            self._untold[gone] = None


def _walk(folder: Path) -> tuple[list[Path], list[Candidate]]:
    """Return the run folders below a folder, and what may be logs. Links to folders are not followed."""
    own: list[Path] = []
    logs: dict[Path, Candidate] = {}
    for place, below, names in os.walk(folder):
        here = Path(place)
        below[:] = sorted(d for d in below if not d.startswith(".") and d not in PASSED_OVER)
        if "config.toml" in names and "metrics.jsonl" in names:
            below.clear()
            own.append(here)
            continue
        if len(here.relative_to(folder).parts) >= MAX_DEPTH:
            below.clear()
        files = [here / name for name in sorted(names) if not name.startswith(".")]
        try:
            found = list(candidates(here, [f for f in files if f.is_file() and not f.is_symlink()]))
        except OSError:  # a file that went away while it was looked at
            continue
        for candidate in found:
            if candidate.path not in logs or candidate.changed > logs[candidate.path].changed:
                logs[candidate.path] = candidate
    return own, list(logs.values())


def _id(path: Path, folder: Path) -> str:
    """Return an id that says nothing about the place, is safe in an address, and is the same after a restart."""
    return hashlib.blake2b(path.relative_to(folder).as_posix().encode(), digest_size=6).hexdigest()
