"""Logs of other frameworks: finds what may be one, reads it when it changes, and gives it a run's form."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ratchet.board.curve import Curve, Floats, finite
from ratchet.core.errors import ConfigError
from ratchet.logs.frameworks.table import FRAMEWORKS
from ratchet.logs.log import Log
from ratchet.logs.read import read_log

ENDINGS = (".log", ".out", ".jsonl", ".csv", ".tsv", ".ipynb", ".db", ".wandb")
NO_LOG = re.compile(r"rollout|sample|generation|completion|trajector|requirements|readme|licen[cs]e|board\.", re.I)
"""Names of files that hold no metrics, or were made by the board."""
LARGEST_BYTES = 512 << 20
"""A larger file is not read unasked: it would take tens of seconds. The list says so."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file or folder that may be a log."""

    path: Path
    size: int
    changed: int
    """Of the newest of its files, in nanoseconds."""


def candidates(folder: Path, files: Sequence[Path]) -> Iterator[Candidate]:
    """Yield what may be a log of its own among the files that lie directly in a folder.

    Event files of TensorBoard are one log together, and so is a ``trainer_state.json`` with its folder, unless that is
    a checkpoint, whose parent then stands for all of them.
    """
    events = [f for f in files if "tfevents" in f.name]
    states = [f for f in files if f.name == "trainer_state.json"]
    if states or events:
        is_checkpoint = folder.name.startswith("checkpoint-")
        yield _candidate(folder.parent if states and is_checkpoint else folder, [*states, *events])
        return
    for file in files:
        if file.suffix.lower() in ENDINGS and not NO_LOG.search(file.name):
            yield _candidate(file, [file])


def _candidate(path: Path, files: Sequence[Path]) -> Candidate:
    stats = [file.stat() for file in files]
    return Candidate(path, sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats))


class ForeignLog:
    """A log of another framework. Read whole whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = 0
        self.lock = threading.RLock()
        self.log: Log | None = None
        """None if it is no log of reinforcement learning, or not read yet."""
        self.why_not = ""
        self._seen: Candidate | None = None
        self._curves: Mapping[str, Curve] = {}

    def look(self, candidate: Candidate) -> bool:
        """Read the log if it has changed; return whether it has."""
        with self.lock:
            if candidate == self._seen:
                return False
            self._seen = candidate
            self.log, self.why_not = None, ""
            if candidate.size > LARGEST_BYTES:
                self.why_not = (
                    f"it has {candidate.size >> 20} MiB; more than {LARGEST_BYTES >> 20} are not read unasked"
                )
            elif candidate.size:
                self._read()
            self.version += 1
            return True

    def _read(self) -> None:
        try:
            log = read_log(self.path, need_reward=False)
            objection = log.objection()
        except (ConfigError, OSError) as error:
            self.why_not = str(error)
            return
        if objection is not None:
            self.why_not = str(objection)
            return
        self.log = log
        series = {**log.unrecognised, **log.also, **log.evals, **log.series}
        self._curves = {name: finite(name, s.steps, s.values, absent=False) for name, s in series.items()}

    @property
    def title(self) -> str:
        """Name of the framework that wrote it."""
        return FRAMEWORKS[self.log.framework.name].title if self.log is not None else ""

    @property
    def last_word(self) -> float:
        return self._seen.changed / 1e9 if self._seen is not None else 0.0

    def names(self) -> list[str]:
        return [name for name, curve in self._curves.items() if len(curve.values)]

    def curve(self, name: str) -> Curve:
        held = self._curves.get(name)
        return held if held is not None else Curve(name, np.zeros(0, dtype=np.int64), np.zeros(0))

    def axes(self) -> list[str]:
        return ["step"]

    def places(self, axis: str, steps: NDArray[np.int64], *, evaluation: bool = False) -> Floats:
        """Return the steps themselves: what else a foreign log counts is a series of its own."""
        return steps.astype(np.float64)

    def steps(self) -> tuple[int, int]:
        last = [int(curve.steps[-1]) for curve in self._curves.values() if len(curve.steps)]
        return max(last, default=0), 0
