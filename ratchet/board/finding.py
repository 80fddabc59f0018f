"""What a diagnosis hands to the board: findings, ready to be shown. Values only; the board itself diagnoses nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]
WORST_FIRST: Mapping[str, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Reason:
    """A likely cause and what speaks for it."""

    text: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a log shows, with where to look."""

    severity: Severity
    rule: str
    metric: str
    """Series it was found in; empty if in none."""
    first: int
    """First step it concerns."""
    last: int
    sentence: str
    causes: tuple[Reason, ...] = ()
    check: tuple[str, ...] = ()
    change: tuple[str, ...] = ()
    rollouts: tuple[str, ...] = ()
    """Attempts that show it, as ``STEP:TASK:ATTEMPT``."""
    sources: tuple[str, ...] = ()
    """Where the rule comes from."""

    def as_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return asdict(self)


Diagnose = Callable[[Path], Sequence[Finding]]
"""From a run folder or a log to what is wrong with it. May raise `RatchetError`, which is then shown in its place."""


def nothing_found(path: Path) -> Sequence[Finding]:
    """Return no finding: what the board uses when nobody gave it a diagnosis."""
    return ()


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings worst first; among equals in the order of the diagnosis, which knows what explains what."""
    return sorted(findings, key=lambda finding: WORST_FIRST[finding.severity])
