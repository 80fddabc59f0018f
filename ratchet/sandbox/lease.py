"""Who is running, and what is left over: one folder per process that uses boxes, swept at start and exit.

    <tmp>/ratchet-box-<user>/<pid>-<start>/<number>/       scratch of one box, on disk only where a back end needs it

The start time tells a process from a later one with the same number. A folder whose process is gone is swept by the
next one to start, so that even a killed run leaves nothing for long. Other machines' folders are never seen here.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ratchet.sandbox import cgroup


@dataclass(frozen=True, slots=True)
class Lease:
    """One box or worker that is running."""

    number: int
    what: str
    """The command, or the kind of worker."""
    back_end: str
    since: float
    """Seconds since 1970."""
    until: float
    """When it will have been killed at the latest, in seconds since 1970; infinite for a worker."""
    folder: Path


class Leases:
    """The table of this process's boxes. Not for threads: an event loop owns it."""

    def __init__(self, parent: Path | None = None, when_swept: Callable[[Path], None] | None = None) -> None:
        """`parent` is where scratch folders are made; the system's temporary folder if not given."""
        root = parent or Path(tempfile.gettempdir()) / f"ratchet-box-{os.getuid()}"
        self._root = root
        self._numbers = itertools.count(1)
        self._table: dict[int, Lease] = {}
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            raise PermissionError(f"{root} belongs to another user")
        self.swept = sweep(root) + cgroup.sweep()
        """Folders and control groups of ended processes that were removed."""
        self._own = root / f"{os.getpid()}-{_start_of(os.getpid())}-{id(self):x}"
        self._pid = os.getpid()
        atexit.register(self.close)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._table.values()))

    @contextmanager
    def take(self, what: Sequence[str] | str, back_end: str, seconds: float = float("inf")) -> Iterator[Lease]:
        """Hold a lease with a fresh empty folder; the folder is removed at the end."""
        number, now = next(self._numbers), time.time()
        folder = self._own / str(number)
        folder.mkdir(mode=0o711, parents=True)
        text = what if isinstance(what, str) else " ".join(what)
        self._table[number] = lease = Lease(number, text, back_end, now, now + seconds, folder)
        try:
            yield lease
        finally:
            self._table.pop(number, None)
            remove(folder)

    def close(self) -> None:
        """Remove this process's folder; may be called twice. A forked child leaves its parent's alone."""
        if os.getpid() == self._pid:
            atexit.unregister(self.close)
            remove(self._own)
            _remove_if_empty(self._root)


def sweep(root: Path) -> int:
    """Remove the folders of processes that are no more; return how many."""
    count = 0
    for folder in root.iterdir():
        pid, _, start = folder.name.partition("-")
        start = start.partition("-")[0]
        if pid.isdigit() and _start_of(int(pid)) != start:
            remove(folder)
            count += 1
    return count


def remove(folder: Path) -> None:
    """Remove a folder and all in it, whatever rights a stranger took away; links are never followed."""
    for here, folders, _ in os.walk(folder):
        for name in folders:
            path = os.path.join(here, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process has boxes
        folder.rmdir()


def _start_of(pid: int) -> str:
    """Return when a process started, in ticks since the machine did; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
