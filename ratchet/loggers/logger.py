"""What a logger is, and what it is told about a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Setting = str | int | float | bool


@dataclass(frozen=True, slots=True)
class About:
    """The run, as a logger shows it."""

    name: str
    folder: Path
    """The run's folder; what a logger writes on this machine belongs below it unless the config says otherwise."""
    study: str
    settings: Mapping[str, Setting]
    """Dotted key -> value; passwords are masked."""


class Logger(Protocol):
    """Passes numbers on to a library.

    Lifecycle: made in the main thread, which is where a missing library or login is refused (`ConfigError`). The other
    methods are called in one thread of its own, `begin` first, `end` last. Each may raise whatever the library raises:
    it is counted, and the run goes on.
    """

    def begin(self, about: About, known: str) -> str:
        """Open the run in the library and return the name it has there; `known` is that name if it was opened before,
        else empty."""
        ...

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Pass the numbers of a step on. Returning means that they need not be passed again."""
        ...

    def end(self, *, finished: bool) -> None:
        """Close the run in the library; `finished` is false if it was stopped or failed, and may go on."""
        ...
