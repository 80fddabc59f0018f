"""Trackio: a database on this machine, or a Space of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trackio

from ratchet.config.loggers import TrackioSection
from ratchet.loggers.logger import About


class Trackio:
    """See `logger.Logger`. A run is known by its project and name."""

    def __init__(self, section: TrackioSection) -> None:
        self._section = section

    def begin(self, about: About, known: str) -> str:
        """Open the run, or the same run again."""
        self._run: Any = trackio.init(
            project=self._section.project,
            name=known or about.name,
            space_id=self._section.space or None,
            group=about.study or None,
            config=dict(about.settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return str(self._run.name)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand a row to the library, which sends it in a thread of its own."""
        self._run.log(dict(numbers), step=step)

    def end(self, *, finished: bool) -> None:
        """Wait until everything is sent."""
        self._run.finish()
