"""The course of a series that should rise: where it began, its best level, how far it fell, where it ended."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ratchet.doctor.curve import FLAT, Curve

GAIN = 0.1
"""Share of the scale that a change must have to be worth a word: a tenth of what rollouts differ by."""
RELATIVE = 0.25
"""Or this share of where it began: from 4 % to 8 % right is a success on hard tasks."""
FALLING = 1e-3
"""p of a trend that counts as a loss by itself; strict, because what begins at a peak falls a little anyway."""
LEAST = 0.02
"""But never less than this share of the scale."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A reward over the steps."""

    curve: Curve
    scale: float
    """What rewards of rollouts differ by; where the log does not say, what the smoothed series went through."""

    @property
    def start(self) -> float:
        return self.curve.start

    @property
    def end(self) -> float:
        return self.curve.end

    @cached_property
    def peak(self) -> int:
        """Return the bin of the best smoothed level."""
        return int(np.argmax(self.curve.s))

    @property
    def best(self) -> float:
        """Return the mean around the peak, no wider than an end's."""
        return self.around(self.peak)

    @cached_property
    def low_before(self) -> float:
        """Return the lowest smoothed level up to the peak, or that of the first bins, if lower.

        The very first ones: a reward that is learned at once has no smoothed level as low as where it began.
        """
        first = self.curve.level(0, max(3, len(self.curve) // 50))
        return min(float(self.curve.s[: self.peak + 1].min()), self.start, first)

    @property
    def gain(self) -> float:
        """Return what was gained until the peak."""
        return max(0.0, self.best - self.low_before)

    @property
    def lost(self) -> float:
        """Return how far the end lies below the peak."""
        return max(0.0, self.best - self.end)

    @cached_property
    def has_lost(self) -> bool:
        """Whether the loss since the peak is more than noise: by the levels, or by the trend from there on."""
        return self.curve.counts(self.lost) or self.curve.trend(self.peak).falls(FALLING)

    @property
    def risen(self) -> float:
        return self.end - self.start

    @property
    def worth(self) -> float:
        """Return the smallest change that is worth a word."""
        return max(LEAST * self.scale, min(GAIN * self.scale, RELATIVE * abs(self.start)))

    @property
    def has_gained(self) -> bool:
        """Whether it rose by more than noise, and by enough to be worth a word."""
        return self.gain >= self.worth and self.curve.counts(self.gain)

    @property
    def has_risen(self) -> bool:
        """The same of the end against the start."""
        return self.risen >= self.worth and self.curve.counts(self.risen)

    def around(self, index: int) -> float:
        """Return the mean over an end's width around a bin."""
        half = self.curve.edge // 2
        return self.curve.level(index - half, index + half + 1)

    def fell(self, first: int, last: int) -> bool:
        """Return whether the level around `last` is below that around `first` by more than noise."""
        return self.around(first) - self.around(last) > 0 and self.curve.counts(self.around(first) - self.around(last))

    def rose(self, first: int, last: int) -> bool:
        """Return whether the level around `last` is above that around `first` by more than noise."""
        return self.around(last) - self.around(first) > 0 and self.curve.counts(self.around(last) - self.around(first))


def shape_of(curve: Curve, scale: float | None) -> Shape:
    """Return the shape of a curve; without a scale, that of what it went through, and at least a tenth of its level."""
    own = max(float(np.ptp(curve.s)), 0.1 * float(np.max(np.abs(curve.s))), FLAT)
    return Shape(curve, max(own, scale) if scale is not None else own)
