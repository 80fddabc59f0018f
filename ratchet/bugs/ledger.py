"""Where every function and every mutant went. What was found is what was used or refused under a reason, or it is a
bug."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from ratchet.bugs.allowed import Reason


class Fate(StrEnum):
    """What became of a mutant."""

    KEPT = "kept"
    UNLOADABLE = "killed by import"
    TIMED_OUT = "timed out, or out of memory"
    UNDEFINED = "reads a name that is not bound"
    NOT_PLAIN = "returns what cannot be compared"
    EQUIVALENT = "equivalent: no input reveals it"
    TRIVIAL = "trivial: too many inputs reveal it"
    SAME = "behaves like another one"
    SPARE = "not needed: enough of its function are kept"
    REFUSED = "refused by the environment's own check"


@dataclass
class Ledger:
    """The counts of one command."""

    functions: int = 0
    """Functions that were looked at."""
    not_reached: int = 0
    """Functions that were not looked at, because there were lines enough."""
    usable: int = 0
    """Functions with at least one line."""
    refused: Counter[Reason] = field(default_factory=Counter)
    mutants: int = 0
    """Mutants that were run."""
    fates: Counter[Fate] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    """Kept mutants, by what was changed."""
    details: list[str] = field(default_factory=list)
    """A line on each function that was refused, for who wants to know."""

    def refuse(self, function: str, reason: Reason, detail: str) -> None:
        self.refused[reason] += 1
        self.details.append(f"{function}: {reason.value}" + (f" ({detail})" if detail else ""))

    def closes(self) -> bool:
        """Return whether nothing went missing."""
        return self.functions == self.usable + self.refused.total() and self.mutants == self.fates.total()
