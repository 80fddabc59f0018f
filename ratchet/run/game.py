"""What is asked of an explorer in another process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Game:
    """One group to be played."""

    step: int
    index: int
    problem: int
    """Number of the task in the training split."""
    samples: int
    greedy: bool
