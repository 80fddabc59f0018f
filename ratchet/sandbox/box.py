"""What a box is: files and a command under limits in, a value out. Says nothing about how it is done.

Owns the types every back end shares. What a box does not protect against is said in `ratchet.sandbox`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command may use. Every limit is enforced by the kernel or by killing, never by asking."""

    wall_s: float = 10.0
    """Seconds from the command's start; then everything in the box is killed."""
    cpu_s: float = 10.0
    """CPU seconds of each process, rounded up to whole ones; the sum over processes is bounded by `wall_s` only."""
    memory_bytes: int = 1024 * MEBIBYTE
    """Address space of each process; where cgroups can be written also the memory of the whole box."""
    processes: int = 64
    """Processes and threads at once."""
    file_bytes: int = 32 * MEBIBYTE
    """Largest file that can be written."""
    scratch_bytes: int = 128 * MEBIBYTE
    """Everything in the scratch folder together (kept in memory); not enforced where mounts are not allowed."""
    open_files: int = 256
    """File descriptors of each process."""
    output_bytes: int = MEBIBYTE
    """What may be printed, both streams together; at more the box is killed."""


class LimitHit(StrEnum):
    """Which limit ended a command."""

    NONE = "none"
    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    """Killed for memory, or failed with a MemoryError near the limit: the second is an informed guess."""
    PROCESSES = "processes"
    """Failed after it was refused a process: known only where cgroups count."""
    FILE = "file"
    """Killed for writing too large a file. Python ignores that signal and gets an OSError instead."""
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class BoxResult:
    """What became of a command. A command that fails is a result, not an error."""

    exit_code: int | None
    """None if a signal ended it, or it was killed for a limit."""
    signal: int | None
    """The signal that ended it; None if it exited."""
    output: str
    """Standard output and error as they came, decoded with replacement, cut at `Limits.output_bytes`."""
    seconds: float
    """Wall-clock seconds from the command's start to its end."""
    peak_bytes: int
    """Largest resident memory of one process, or of the whole box where cgroups count; 0 if unknown."""
    hit: LimitHit
    layers: tuple[str, ...]
    """The protections that were in force, by name."""


@runtime_checkable
class Box(Protocol):
    """Runs commands on files, each in a box of its own that is gone afterwards.

    Concurrency: `run` may be awaited by any number of coroutines; cancelling one kills its box.
    """

    layers: tuple[str, ...]
    """The protections this machine grants, by name: what `ratchet explain` prints."""

    async def run(self, files: Mapping[str, str | bytes], command: Sequence[str], limits: Limits) -> BoxResult:
        """Return what became of `command`, run in a fresh scratch folder that holds `files` (relative paths).

        **Raises**: `ConfigError` if a path leaves the folder; `RunError` if the box itself could not be made.
        """
        ...

    def close(self) -> None:
        """Kill what is still running and sweep the scratch folders; may be called twice."""
        ...


class Settings(Protocol):
    """What a box and a pool are made by: `SandboxSection` of a recipe, whose descriptions say what each means."""

    @property
    def backend(self) -> str: ...
    @property
    def allow_unsafe(self) -> bool: ...
    @property
    def workers(self) -> int: ...
    @property
    def wall_s(self) -> float: ...
    @property
    def cpu_s(self) -> float: ...
    @property
    def memory_mb(self) -> int: ...
    @property
    def processes(self) -> int: ...
    @property
    def file_mb(self) -> int: ...
    @property
    def scratch_mb(self) -> int: ...
    @property
    def image(self) -> str: ...
    @property
    def readable(self) -> tuple[str, ...]: ...
