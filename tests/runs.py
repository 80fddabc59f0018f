"""Reading finished runs in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ratchet.run.observer import Silent
from ratchet.store.run_store import RunStore

CLOCKS = ("time/", "wait/", "mem/", "seconds/")


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return a run's metrics without those that tell the time."""
    return [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in RunStore.open(folder).metrics()]


def weights(folder: Path, step: int = 6) -> bytes:
    return (folder / "checkpoints" / f"step_{step:06d}" / "model.safetensors").read_bytes()


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
