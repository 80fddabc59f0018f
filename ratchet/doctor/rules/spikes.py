"""Single values far above their neighbours. A pure function of numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ratchet.doctor.curve import Array, spread

NEIGHBOURS = 11
"""Values the running median is taken over: five on either side, so that a spike of five still shows."""
MIRROR = 2.0
"""How far above the largest fall below the median a spike must be: noise with heavy tails falls as far as it rises."""
SIGMAS = 7.0
"""Robust standard deviations of the logarithm: one in 10^11 for normal noise, and noise here has heavier tails."""
FEW = 20


def spikes(values: Array, factor: float) -> NDArray[np.intp]:
    """Return the indices of values at least `factor` above the running median of their neighbours, and beyond noise.

    Values must be positive where they mean anything; others take a hundredth of the median.
    """
    positive = values[values > 0]
    if len(values) < FEW or len(positive) < FEW // 2:
        return np.empty(0, dtype=np.intp)
    logs = np.log(np.maximum(values, 0.01 * float(np.median(positive))))
    around = np.pad(logs, NEIGHBOURS // 2, mode="symmetric")
    above = logs - np.median(np.lib.stride_tricks.sliding_window_view(around, NEIGHBOURS), axis=1)
    lowest = -float(above[2:].min())  # a KL begins at 0, far below its neighbours
    return np.flatnonzero(above > max(math.log(factor), SIGMAS * spread(above), MIRROR * lowest))
