"""What the doctor says: a finding, its causes, and how bad it is. Values only; nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal


class Severity(IntEnum):
    """How bad a finding is; the worst one of a log decides the exit code."""

    INFO = 0
    """Worth knowing; nothing need be done."""
    WARNING = 1
    """Something goes wrong, or will cost you; look at it."""
    ERROR = 2
    """What this run learns from here on is not what you want."""

    @property
    def label(self) -> Literal["info", "warning", "error"]:
        """Return the word that is printed."""
        return _LABELS[self]


_LABELS: Mapping[Severity, Literal["info", "warning", "error"]] = {
    Severity.INFO: "info", Severity.WARNING: "warning", Severity.ERROR: "error",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """A likely cause, and what in this very log speaks for it."""

    text: str
    evidence: tuple[str, ...] = ()
    """Sentences computed from other series; none where the cause is only what is usual."""
    strength: float = 0.0
    """Rank: how many standard errors the strongest of the evidence is; 0 without any."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rollouts that would show the finding: how to choose them among those a run of ours recorded."""

    first: int
    last: int
    kind: str
    """``status:reward_timeout``, ``lost``, ``longest``, ``truncated``, ``highest``, ``lowest``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a log shows."""

    rule: str
    severity: Severity
    metric: str
    """Canonical name of the series it was found in."""
    key: str
    """Its key in the log."""
    first: int
    """First step it concerns."""
    last: int
    sentence: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    causes: tuple[Cause, ...] = ()
    """Likeliest first."""
    check: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    """What to change, with the name of the option where the framework is known."""
    sources: tuple[str, ...] = ()
    wanted: Wanted | None = None
    rollouts: tuple[str, ...] = ()
    """Recorded rollouts that show it, as ``STEP:TASK:ATTEMPT``."""
