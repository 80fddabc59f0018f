"""What a step adds up while it trains, from which the reported means are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True)
class Tally:
    """Sums over the tokens of a step, and a number per update."""

    tokens: int = 0
    inputs: int = 0
    heard_groups: int = 0
    """Groups that have a gradient."""
    losses: list[float] = field(default_factory=list)
    """One per update."""
    norms: list[float] = field(default_factory=list)
    """Gradient norm before clipping, one per update that had a gradient."""
    sums: dict[str, float] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"forward": 0.0, "backward": 0.0, "optimiser": 0.0})

    def add(self, name: str, values: Tensor) -> None:
        """Add the sum of a (N,) column."""
        self.sums[name] = self.sums.get(name, 0.0) + float(values.detach().double().sum())

    def peak(self, name: str, values: Tensor) -> None:
        """Add a column's sum, and remember its largest value."""
        self.add(name, values)
        if len(values):
            self.largest[name] = max(self.largest.get(name, 0.0), float(values.detach().max()))

    def mean(self, name: str) -> float:
        """Return the mean of a column over the step's tokens."""
        return self.sums.get(name, 0.0) / max(1, self.tokens)

    def times(self) -> dict[str, float]:
        """Return ``time/*`` of the trainer's own work, in seconds."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}
