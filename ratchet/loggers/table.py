"""The loggers by name, and all those of a run together. A library is imported when its logger is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ratchet.config.loggers import LoggerName, LogSection
from ratchet.core.load import require_library
from ratchet.loggers.follower import Follower, Notice
from ratchet.loggers.logger import About, Logger
from ratchet.store.run_store import RunStore


@dataclass(frozen=True, slots=True)
class Named:
    """A logger and what the config calls it."""

    name: LoggerName
    logger: Logger


def make_loggers(section: LogSection) -> list[Named]:
    """Return the loggers a config names. **Raises**: `ConfigError` if one's library or login is missing."""
    return [Named(name, _make(name, section)) for name in section.to]


def _make(name: LoggerName, section: LogSection) -> Logger:
    require_library(name, extra=name, purpose=f'log.to = ["{name}"]')
    match name:
        case "tensorboard":
            from ratchet.loggers.to_tensorboard import TensorBoard

            return TensorBoard(section.tensorboard)
        case "wandb":
            from ratchet.loggers.to_wandb import Wandb

            return Wandb(section.wandb)
        case "mlflow":
            from ratchet.loggers.to_mlflow import Mlflow

            return Mlflow(section.mlflow)
        case "trackio":
            from ratchet.loggers.to_trackio import Trackio

            return Trackio(section.trackio)


class Loggers:
    """Everyone who is told how a run goes. Its methods return at once, but for `end`."""

    def __init__(
        self,
        made: Sequence[Named],
        store: RunStore,
        about: About,
        *,
        finish_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._finish_s = store, finish_s
        self._followers = [Follower(one.name, one.logger, store, about, now) for one in made]
        self._failed = 0
        self._late: Sequence[str] = ()

    def ring(self) -> None:
        """Say that the run wrote something."""
        for follower in self._followers:
            follower.ring()

    def end(self, *, finished: bool) -> None:
        """Let everyone catch up and close, for as long as `log.finish_s` allows."""
        for follower in self._followers:
            follower.end(finished=finished)
        until = time.monotonic() + self._finish_s
        self._late = [f.name for f in self._followers if not f.ended(max(0.0, until - time.monotonic()))]

    def notices(self) -> list[Notice]:
        """Return what happened to loggers since this was asked last: for the thread that writes the run's events."""
        found = [notice for follower in self._followers for notice in follower.notices()]
        self._failed += sum(notice.kind == "logger_failed" for notice in found)
        late, self._late = self._late, []
        said = f"did not end within log.finish_s = {self._finish_s:g} s; what it lacks is in {self._store.folder}"
        return [*found, *(Notice("logger_dead", name, said) for name in late)]

    def metrics(self) -> Mapping[str, float]:
        """Return the number of failures so far; nothing if there are no loggers."""
        return {"loggers/failed": float(self._failed)} if self._followers else {}
