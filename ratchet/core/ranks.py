"""Trends by ranks: Mann and Kendall's test, and Theil and Sen's slope.

`scipy.stats` has both, and takes longer to import than everything else a finding or a figure needs together. They are
held to its results in `tests/core/test_ranks.py`.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_EXACT = 33
"""Up to so many values the distribution of the test is counted out; beyond it is normal, as in SciPy."""


def mann_kendall(values: Array) -> tuple[float, float]:
    """Return Kendall's tau-b of `values` with their order, and its two-sided p under no trend.

    Source: Kendall 1970, *Rank Correlation Methods*; the variance with ties is that of its equation 4.4.
    """
    n = len(values)
    signs = np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)]
    pairs, score = n * (n - 1) // 2, int(signs.sum())
    untied = int(np.count_nonzero(signs))
    if untied == 0:
        return 0.0, 1.0
    tau = score / math.sqrt(pairs * untied)
    falls = (untied - score) // 2
    if untied == pairs and (n <= MOST_EXACT or min(falls, pairs - falls) <= 1):
        return tau, _exact(min(falls, pairs - falls), n)
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    return tau, math.erfc(abs(score) / math.sqrt(2 * variance))


def _exact(few: int, n: int) -> float:
    """Return the share of orders of `n` values with at most `few` pairs out of order, or as few in order."""
    if 2 * few == n * (n - 1) // 2:
        return 1.0
    counts = [1]  # orders of 1 value, by pairs out of order
    for size in range(2, n + 1):
        sums = [0]
        for count in counts[: few + 1]:
            sums.append(sums[-1] + count)
        sums += [sums[-1]] * (few + 2 - len(sums))
        counts = [high - sums[max(0, i - size)] for i, high in enumerate(sums[1:], 1)]
    return min(1.0, 2 * sum(counts[: few + 1]) / math.factorial(n))


def theil_sen(steps: Array, values: Array, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the median slope over all pairs and its confidence interval; `steps` must rise.

    Source: Sen 1968, equation 2.6.
    """
    n = len(values)
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((values[j] - values[i]) / (steps[j] - steps[i]))
    ties = np.unique(values, return_counts=True)[1]
    variance = (n * (n - 1) * (2 * n + 5) - int((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    low = max(round((len(slopes) - reach) / 2) - 1, 0)
    high = min(round((len(slopes) + reach) / 2), len(slopes) - 1)
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])
