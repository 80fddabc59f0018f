"""The form of an entry of the metric dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Better(StrEnum):
    """Which way a metric should move."""

    HIGHER = "higher is better"
    LOWER = "lower is better"
    NEITHER = ""
    """It describes; it is no goal."""


@dataclass(frozen=True, slots=True)
class Metric:
    """An entry of the dictionary: one metric, or a family with ``*`` for the part that varies."""

    pattern: str
    meaning: str
    """One sentence."""
    formula: str
    unit: str
    """``share`` (0 to 1), ``tokens``, ``nats``, ``s``, ``bytes``, ``FLOP``, ``steps``, ...; empty for a bare number."""
    normal: str
    """Usual range, or what a departure means."""
    zero: str = ""
    """What 0 says, as a clause: that it is normal and why, or what it means; empty where it is nothing special."""
    better: Better = Better.NEITHER

    def fits(self, name: str) -> bool:
        """Return whether the entry speaks of this metric."""
        return self.pattern == name or fnmatchcase(name, self.pattern)
