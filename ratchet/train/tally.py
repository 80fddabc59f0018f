"""What a step adds up while it trains, from which the reported means are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LARGEST_HALF = 65504.0
"""The largest number that float16 has."""


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
    differences: dict[int, NDArray[np.float16]] = field(default_factory=dict)
    """Number of a sample -> of each of its trained tokens, the trainer's log-probability minus the sampler's."""
    seconds: dict[str, float] = field(default_factory=lambda: {"forward": 0.0, "backward": 0.0, "optimiser": 0.0})

    def add(self, name: str, values: Tensor) -> None:
        """Add the sum of a (N,) column."""
        self.sums[name] = self.sums.get(name, 0.0) + float(values.detach().double().sum())

    def peak(self, name: str, values: Tensor) -> None:
        """Add a column's sum, and remember its largest value."""
        self.add(name, values)
        if len(values):
            self.largest[name] = max(self.largest.get(name, 0.0), float(values.detach().max()))

    def keep(self, numbers: Sequence[int], lengths: Sequence[int], values: Tensor) -> None:
        """Keep a (N,) column token by token: that of the samples `numbers`, with so many tokens each."""
        # Half precision: to a thousandth of each value, and never further off than 3e-8.
        halves = values.detach().clamp(-LARGEST_HALF, LARGEST_HALF).half().cpu().numpy()
        parts = np.split(halves, np.cumsum(lengths)[:-1])
        self.differences.update(zip(numbers, parts, strict=True))

    def mean(self, name: str) -> float:
        """Return the mean of a column over the step's tokens."""
        return self.sums.get(name, 0.0) / max(1, self.tokens)

    def times(self) -> dict[str, float]:
        """Return ``time/*`` of the trainer's own work, in seconds."""
        return {f"time/{name}": seconds for name, seconds in self.seconds.items()}


def joined(tallies: Sequence[Tally], seconds: Mapping[str, float]) -> Tally:
    """Return what several ranks added up, as one; what each counted for the whole batch is taken once.

    `seconds` are those of the rank that asks.
    """
    if len(tallies) == 1:
        return tallies[0]
    first = tallies[0]
    whole = Tally(heard_groups=first.heard_groups, norms=first.norms, seconds=dict(seconds))
    for one in tallies:
        whole.tokens, whole.inputs = whole.tokens + one.tokens, whole.inputs + one.inputs
        for name, value in one.sums.items():
            whole.sums[name] = whole.sums.get(name, 0.0) + value
        for name, value in one.largest.items():
            whole.largest[name] = max(whole.largest.get(name, value), value)
        whole.differences.update(one.differences)
    whole.losses = [sum(parts) for parts in zip(*(one.losses for one in tallies), strict=True)]
    return whole
