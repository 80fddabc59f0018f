"""What a log was read into: series with canonical names, where they come from, and what was done to them.

Charts, reports and diagnosis work on `Log` and need not know who wrote it. Canonical names are described in `names`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ratchet.core.errors import ConfigError
from ratchet.logs.names import STAND_INS

Steps = NDArray[np.int64]
Values = NDArray[np.float64]


class StepAxis(StrEnum):
    """What a step of a log counts. Series over different axes must not be joined by their step."""

    OPTIMISER = "optimiser step"
    ROLLOUT = "rollout step"
    """One batch of rollouts, however many optimiser steps it is trained for."""
    BATCH = "batch"
    VERSION = "policy version"
    EVALUATION = "evaluation"
    ROW = "row"
    """The log names no step; its rows were numbered from 1."""
    UNSAID = "step as the log numbers it"


class Training(StrEnum):
    """What kind of training a log tells of."""

    RL = "reinforcement learning"
    SFT = "supervised fine-tuning"
    PREFERENCE = "preference training (DPO and its kin)"
    UNCLEAR = "no training that is known here"


class Topic(StrEnum):
    """What a note is about."""

    JOIN = "join"
    """Segments glued together: a resumed or restarted run."""
    REPEAT = "repeat"
    ORDER = "order"
    NUMBERED = "numbered"
    """Steps that the log does not have."""
    START = "start"
    """A log that begins late."""
    NON_FINITE = "non-finite"
    LEFT_OUT = "left out"
    MEANING = "meaning"
    """A quantity that is easily taken for another."""


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence about how the log was read."""

    topic: Topic
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """A format or framework, and why it was taken for that."""

    name: str
    evidence: str
    sure: bool = True
    """False where another reading is possible."""


@dataclass(frozen=True, slots=True)
class Join:
    """A place where a log goes back to an earlier step, and the points that the later part replaced."""

    row: int
    """Row of the log, counted from 0, at which the later part begins."""
    left: int
    """Last step before it."""
    entered: int
    """First step after it."""
    replaced: int
    """Steps of the earlier part, from `entered` on, that were given up for the later part."""
    restart: bool
    """Whether the later part begins at or before the log's first step: a run that began anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One quantity over the steps. Steps rise strictly; values may be NaN or infinite where the log says so."""

    name: str
    """Canonical name; the framework's own key where it is not recognised."""
    key: str
    """The key as the log has it."""
    steps: Steps
    values: Values
    axis: StepAxis
    meaning: str = ""
    """What this framework's quantity is, where the canonical name alone may mislead."""
    change: str = ""
    """What was done to the values, or to the key, on the way here."""

    @property
    def num_non_finite(self) -> int:
        """Return how many values are NaN or infinite; their steps are kept, so that a gap can be drawn."""
        return int(len(self.values) - np.count_nonzero(np.isfinite(self.values)))

    def finite(self) -> tuple[Steps, Values]:
        """Return steps and values without the non-finite ones."""
        good = np.isfinite(self.values)
        return self.steps[good], self.values[good]


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """A log that was read."""

    sources: tuple[Path, ...]
    format: Found
    framework: Found
    axis: StepAxis
    """What the steps of most series count."""
    num_rows: int
    series: Mapping[str, Series]
    """Recognised series of training, by canonical name."""
    evals: Mapping[str, Series]
    """Recognised series of evaluation, by canonical name (``eval/<set>/<number>``)."""
    also: Mapping[str, Series]
    """Recognised series whose canonical name another key of this log holds, by their own key."""
    unrecognised: Mapping[str, Series]
    """Series no table knows, by their own key."""
    joins: tuple[Join, ...]
    notes: tuple[Note, ...]
    training: Training
    unread: tuple[Path, ...] = ()
    """Files of the same run that were not read, because another form of the same numbers was."""

    def get(self, name: str) -> Series | None:
        """Return the series of that very name, from training, evaluation or, by its own key, the unrecognised."""
        return self.series.get(name) or self.evals.get(name) or self.unrecognised.get(name) or self.also.get(name)

    def nearest(self, name: str) -> Series | None:
        """Return the series of that name or, if there is none, what may stand in for it; its own name says what it is.

        Frameworks differ in what they log. Where one has no ``entropy`` but ``entropy/sampled``, a chart is better off
        with the latter under its own name than with nothing.
        """
        names = (name, *STAND_INS.get(name, ()))
        return next((found for n in names if (found := self.get(n)) is not None), None)

    def objection(self) -> ConfigError | None:
        """Return why this is no log of reinforcement learning to work with, or None."""
        where = self.sources[0] if self.sources else "the log"
        if self.training is Training.SFT:
            return ConfigError(
                f"{where} is a log of {Training.SFT.value}: it has a loss and a learning rate but no reward. "
                "What works on logs here needs rewards; name the log of the reinforcement learning."
            )
        if self.training is Training.PREFERENCE:
            return ConfigError(
                f"{where} is a log of {Training.PREFERENCE.value}: its rewards are margins of log-probabilities, "
                "not what rollouts earned. Name a log of reinforcement learning."
            )
        if self.nearest("reward/mean") is None:
            return ConfigError(
                f"{where} has no reward series. Read were {self._told()}. Is the reward in another file of the run? "
                "Name its folder, or all its files; or say whose log it is with the framework option."
            )
        return None

    def _told(self) -> str:
        names = [*self.series, *self.evals, *self.unrecognised]
        shown = ", ".join(names[:8])
        return f"{len(names)} series ({shown}{', ...' if len(names) > 8 else ''})" if names else "no series"
