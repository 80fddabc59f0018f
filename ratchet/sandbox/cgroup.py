"""A control group per box, where this process may make one: memory and processes counted together, by the kernel.

Both layouts are known: version 1 (a folder per controller) and version 2 (one tree). Where neither can be written there
is none, and the limits of single processes have to do.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import cache
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_FILES = {
    1: {"memory": "memory.limit_in_bytes", "peak": "memory.max_usage_in_bytes", "failures": "memory.failcnt"},
    2: {"memory": "memory.max", "peak": "memory.peak", "failures": "memory.events"},
}


class Group:
    """The control group of one box."""

    def __init__(self, folders: dict[str, Path], version: int, name: str) -> None:
        self._folders = {controller: folder / name for controller, folder in folders.items()}
        self._version = version
        for folder in self._folders.values():
            folder.mkdir(exist_ok=True)

    def limit(self, memory_bytes: int, processes: int) -> None:
        (self._folders["memory"] / _FILES[self._version]["memory"]).write_text(str(memory_bytes))
        (self._folders["pids"] / "pids.max").write_text(str(processes))

    def add(self, pid: int) -> None:
        """Move a process in; what it starts from now on follows."""
        for folder in set(self._folders.values()):
            (folder / "cgroup.procs").write_text(str(pid))

    @property
    def peak_bytes(self) -> int:
        """Most memory the box held at once, files in memory included; 0 if the kernel does not say."""
        try:
            return int((self._folders["memory"] / _FILES[self._version]["peak"]).read_text())
        except (OSError, ValueError):
            return 0

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed for memory."""
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        return _field(self._folders["memory"] / name, "oom_kill") > 0

    @property
    def out_of_processes(self) -> bool:
        """Whether a new process was refused."""
        return _field(self._folders["pids"] / "pids.events", "max") > 0

    def kill(self, deadline_s: float = 5.0) -> None:
        """Kill whatever is left in the group and remove it."""
        with contextlib.suppress(OSError):
            (self._folders["pids"] / "pids.max").write_text("0")  # nothing is born while we kill
        for folder in set(self._folders.values()):
            end = time.monotonic() + deadline_s
            while folder.exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                with contextlib.suppress(OSError):
                    for pid in (folder / "cgroup.procs").read_text().split():
                        os.kill(int(pid), 9)
                if time.monotonic() > end:
                    break
                time.sleep(0.001)


def _field(file: Path, name: str) -> int:
    try:
        words = file.read_text().split()
    except OSError:
        return 0
    return int(words[words.index(name) + 1]) if name in words else 0


def open_group(name: str) -> Group | None:
    """Return a new group below this process's own; None where that is not allowed. Its name begins with our number."""
    found = _folders()
    if found is None:
        return None
    try:
        return Group(found[1], found[0], f"ratchet-{os.getpid()}-{name}")
    except OSError:
        return None


def sweep() -> int:
    """Remove the empty groups that processes left which are no more; return how many folders that was."""
    found, count = _folders(), 0
    for folder in set(found[1].values()) if found else ():
        for left in folder.glob("ratchet-*-*"):
            if not os.path.exists(f"/proc/{left.name.split('-')[1]}"):
                with contextlib.suppress(OSError):
                    left.rmdir()
                    count += 1
    return count


@cache
def _folders() -> tuple[int, dict[str, Path]] | None:
    own: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path.lstrip("/")
    old: dict[str, Path] = {name: _ROOT / name / own[name] for name in ("memory", "pids") if name in own}
    if len(old) == 2 and all(_works(folder) for folder in old.values()):
        return 1, old
    new = _ROOT / own.get("", "")
    try:
        granted = (new / "cgroup.subtree_control").read_text().split()
    except OSError:
        return None
    if {"memory", "pids"} <= set(granted) and _works(new):
        return 2, {"memory": new, "pids": new}
    return None


def _works(folder: Path) -> bool:
    trial = folder / f"ratchet-trial-{os.getpid()}"
    try:
        trial.mkdir()
        trial.rmdir()
    except OSError:
        return False
    return True
