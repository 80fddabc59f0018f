"""Who watches a run. The command line shows it live or as plain lines; a program may pass its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Observer(Protocol):
    """Told what happens, in order. Must return quickly and must not raise."""

    def note(self, text: str) -> None:
        """Something a person should know: one sentence."""
        ...

    def progress(self, what: str, done: int, total: int, facts: Mapping[str, float]) -> None:
        """A long preparation went on: `done` of `total`."""
        ...

    def step(self, row: Mapping[str, float], total: int) -> None:
        """A training step is on disk."""
        ...

    def waiting(self, now: Mapping[str, Mapping[str, object]]) -> None:
        """Who waits for what changed."""
        ...


class Silent:
    """Watches nothing."""

    def note(self, text: str) -> None: ...

    def progress(self, what: str, done: int, total: int, facts: Mapping[str, float]) -> None: ...

    def step(self, row: Mapping[str, float], total: int) -> None: ...

    def waiting(self, now: Mapping[str, Mapping[str, object]]) -> None: ...
