"""What somebody found out about a run, as charts and reports take it: where it began, what it says, what to do.

Whoever diagnoses runs converts its findings into this; nothing here decides what is worth a remark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SEVERITIES = ("info", "warning", "error")
"""From the mildest to the worst."""


@dataclass(frozen=True, slots=True)
class Remark:
    """A finding."""

    title: str
    severity: str
    """One of `SEVERITIES`; any other word is shown as it is and ranks below them."""
    sentence: str
    """What was found, with its numbers."""
    first: int | None = None
    """First step it concerns; None where it concerns the run as a whole."""
    last: int | None = None
    metric: str = ""
    details: Sequence[str] = ()
    """Likely causes, what to check, what to change, the source: a sentence each."""

    @property
    def rank(self) -> int:
        """Return how bad it is, from 0."""
        return 1 + SEVERITIES.index(self.severity) if self.severity in SEVERITIES else 0

    @property
    def where(self) -> str:
        """Return the steps in words; empty where it concerns the run as a whole."""
        if self.first is None:
            return ""
        if self.last is None or self.last == self.first:
            return f"step {self.first}"
        return f"steps {self.first} to {self.last}"


def worst_first(remarks: Sequence[Remark]) -> list[Remark]:
    """Return remarks, the worst first, then by the step at which they begin."""
    return sorted(remarks, key=lambda r: (-r.rank, -1 if r.first is None else r.first))
