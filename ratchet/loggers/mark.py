"""How far a logger has come, in ``loggers/<name>.json`` of the run's folder: what makes a resumed run the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mark:
    """What was passed on so far."""

    id: str = ""
    """What the library calls the run; empty before it was opened."""
    metrics_at: int = 0
    """Where in ``metrics.jsonl`` the next row begins, in bytes."""
    events_at: int = 0
    """Where in ``events.jsonl`` the next event begins, in bytes."""
    step: int = -1
    """Newest step passed on. A resumed run repeats steps; they are not passed on twice."""
    evaluated: Mapping[str, int] = field(default_factory=dict)
    """Split -> steps done at the newest evaluation passed on."""


def mark_path(folder: Path, name: str) -> Path:
    """Return where the mark of a logger lies."""
    return folder / "loggers" / f"{name}.json"


def read_mark(path: Path) -> Mark:
    """Return the mark in a file; that of a beginning if there is none, or none that can be read."""
    try:
        return Mark(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Mark()


def write_mark(path: Path, mark: Mark) -> None:
    """Put a mark in place, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(mark)) + "\n", encoding="utf-8")
    part.replace(path)
