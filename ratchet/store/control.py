"""What a person asks of a run from outside its process: a file of requests in the run folder, and who is alive.

The board, or any program, appends requests to ``control.jsonl``; the run reads them between its steps, obeys, and
records each as an event `act` with the request's number. Nothing here sends a signal: a process id may be somebody
else's by now.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ratchet.core.errors import ConfigError

CONTROL = "control.jsonl"


class Act(StrEnum):
    """What may be asked."""

    PAUSE = "pause"
    """Train no further step until told to go on."""
    GO_ON = "go_on"
    STOP = "stop"
    """As Ctrl-C once: finish the step, write a checkpoint, end."""
    CHECKPOINT = "checkpoint"
    """Write a checkpoint before the next step."""
    ROLL_BACK = "roll_back"
    """Go on from the checkpoint after `step` steps, at once or when it is resumed; what came later counts no more."""
    NOTE = "note"
    """Record a sentence as an event."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that was asked."""

    number: int
    """Counted from 1 in the order of the file."""
    act: Act
    step: int
    """For `Act.ROLL_BACK`, the checkpoint; -1 otherwise."""
    text: str
    """For `Act.NOTE`, the sentence; empty otherwise."""
    time: float
    """Unix time."""


def ask(folder: Path, act: Act, *, step: int = -1, text: str = "") -> Request:
    """Append a request and return it; it is on disk when this returns. Raises `ConfigError` if it cannot be written."""
    try:
        with (folder / CONTROL).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # two pages may ask at once; the system lets go on closing
            asked = Request(_lines(folder) + 1, act, step, text, round(time.time(), 3))
            row = {"act": act.value, "step": step, "text": text, "time": asked.time}
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{folder / CONTROL} cannot be written: {error.strerror}. Mend the permissions.") from None
    return asked


def requests(folder: Path) -> list[Request]:
    """Return what was asked so far; a line that is no request keeps its number and is left out."""
    path = folder / CONTROL
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            found.append(Request(number, Act(row["act"]), int(row["step"]), str(row["text"]), float(row["time"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _lines(folder: Path) -> int:
    return (folder / CONTROL).read_bytes().count(b"\n")


def is_held(folder: Path) -> bool:
    """Return whether a process of this machine works on the run: it holds the lock of the folder."""
    try:
        with (folder / "run.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def is_alive(pid: int) -> bool:
    """Return whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    stat = Path(f"/proc/{pid}/stat")
    # A process that died and was not yet collected by its parent still has its number: state Z.
    return not stat.is_file() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
