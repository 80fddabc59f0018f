"""Explained waiting: every wait has an owner, a reason and a beginning, and its seconds are counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Waits:
    """Who waits for what, now and so far."""

    def __init__(self, tell: Callable[[], None]) -> None:
        """`tell` is called whenever the answer to "what waits now" changes."""
        self._tell = tell
        self._now: dict[str, tuple[str, float]] = {}
        self._seconds: dict[str, float] = {}

    @contextmanager
    def on(self, owner: str, cause: str) -> Iterator[None]:
        """Count the time inside as `owner` waiting for `cause`."""
        self._now[owner] = (cause, time.time())
        self._tell()
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            key = f"{owner}_for_{cause}"
            self._seconds[key] = self._seconds.get(key, 0.0) + spent
            del self._now[owner]
            self._tell()

    def now(self) -> dict[str, dict[str, object]]:
        """Return owner -> {what it waits for, since when (Unix time)}."""
        return {owner: {"for": cause, "since": since} for owner, (cause, since) in self._now.items()}

    def take_seconds(self) -> Mapping[str, float]:
        """Return ``wait/<owner>_for_<cause>`` seconds since the last call, and start counting anew."""
        taken, self._seconds = self._seconds, {}
        return {f"wait/{key}": seconds for key, seconds in taken.items()}
