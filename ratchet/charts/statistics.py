"""Statistics over the seeds of a method, and over the steps of a curve. Pure functions of numbers.

Aggregates over few runs follow Agarwal et al. 2021 (rliable, arXiv 2108.13264): interquartile means, percentile
bootstrap intervals over runs, probability of improvement. NumPy and SciPy are imported when something is computed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ratchet.charts.series import END_STEPS, smoothed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Statistic = Callable[[Array], Array]
    """From samples along the last axis to one number each."""

TAILS = (2.5, 97.5)
"""Percentiles at the ends of a 95 % interval."""
RESAMPLES = 2000
CHUNK = 64
"""Steps resampled at once: all steps of a long run would hold gigabytes."""
TRIMMED = 0.25
"""Share of the runs left out at either end of an interquartile mean; of fewer than four runs that is none."""
HALF = 0.5
"""A run whose reward stays below this share of the best it had is called collapsed."""


def mean(samples: Array) -> Array:
    """Return means along the last axis."""
    import numpy as np

    return np.asarray(samples.mean(axis=-1))


def iqm(samples: Array) -> Array:
    """Return interquartile means along the last axis: the mean without the lowest and the highest quarter.

    Source: Agarwal et al. 2021, section 4.3; `scipy.stats.trim_mean`, which cuts whole runs only.
    """
    import numpy as np
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(samples, TRIMMED, axis=-1))


def iqm_of(values: Sequence[float]) -> float:
    """Return the interquartile mean of some runs."""
    import numpy as np

    return float(iqm(np.asarray(values, dtype=float)))


def interval(values: Sequence[float], statistic: Statistic | None = None) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of a statistic (the IQM unless given) over runs; None for one run."""
    import numpy as np

    if len(values) < 2:
        return None
    low, high = bootstrap_band(np.asarray(values, dtype=float)[:, None], statistic or iqm)
    return float(low[0]), float(high[0])


def bootstrap_band(curves: Array, statistic: Statistic | None = None) -> tuple[Array, Array]:
    """Return the lower and upper end of a statistic's (the mean's unless given) 95 % band, by resampling runs.

    `curves` has one row per run and one column per step. A resample draws whole runs, the same for all steps. With two
    or three runs a resample of nothing but the lowest is common enough to be the end itself: the band then spans them.
    """
    import numpy as np

    number, steps = curves.shape
    drawn = np.random.default_rng(0).integers(number, size=(RESAMPLES, number))
    ends = []
    for first in range(0, steps, CHUNK):
        samples = curves.T[first : first + CHUNK][:, drawn]
        ends.append(np.percentile((statistic or mean)(samples), TAILS, axis=1))
    low, high = np.concatenate(ends, axis=1)
    return low, high


def improvement(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the probability that a run of ours ends above one of theirs: the share of pairs, ties count half.

    Source: Agarwal et al. 2021, section 4.3; the Mann-Whitney U statistic over the number of pairs.
    """
    return statistics.fmean((a > b) + 0.5 * (a == b) for a in ours for b in theirs)


def improvement_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float] | None:
    """Return the bootstrap interval of `improvement`, each side resampled by itself; None for one run a side."""
    import numpy as np

    if min(len(ours), len(theirs)) < 2:
        return None
    dice = np.random.default_rng(0)
    a = np.asarray(ours)[dice.integers(len(ours), size=(RESAMPLES, len(ours)))][:, :, None]
    b = np.asarray(theirs)[dice.integers(len(theirs), size=(RESAMPLES, len(theirs)))][:, None, :]
    shares = ((a > b) + 0.5 * (a == b)).mean(axis=(1, 2))
    low, high = np.percentile(shares, TAILS)
    return float(low), float(high)


def spread(values: Sequence[float]) -> float:
    """Return how far runs lie apart: highest minus lowest."""
    return max(values) - min(values)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the centred means of `END_STEPS` steps, which best values, levels and collapses are read from."""
    return smoothed(values, END_STEPS)


def collapse(values: Sequence[float]) -> int | None:
    """Return the index from which a reward has collapsed, or None.

    With s the smoothed series and ``b_t = max(s_0 .. s_t)`` the best so far, it is the first t such that
    ``s_u < b_u / 2`` for all u >= t, if at least `END_STEPS` such steps end the series and the best is above 0.
    A series that recovers has not collapsed.
    """
    curve, best, below = smooth(values), float("-inf"), 0
    for value in curve:
        best = max(best, value)
        below = below + 1 if best > 0 and value < HALF * best else 0
    return len(curve) - below if below >= END_STEPS else None


def crossing(values: Sequence[float], level: float) -> float | None:
    """Return where a series first reaches a level, as an index with its fraction between two steps; None if never."""
    for k, value in enumerate(values):
        if value >= level:
            if k == 0:
                return 0.0
            before = values[k - 1]
            return k - 1 + (level - before) / (value - before)
    return None


def at_index(values: Sequence[float], index: float) -> float:
    """Return a series between its values, by straight lines."""
    low = int(index)
    if low + 1 >= len(values):
        return float(values[-1])
    return float(values[low] + (index - low) * (values[low + 1] - values[low]))


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Return step -> mean over the runs that have the step."""
    steps = sorted(set[int]().union(*curves))
    return {step: statistics.fmean(c[step] for c in curves if step in c) for step in steps}


def edge(values: Sequence[float], *, last: bool) -> float:
    """Return the mean of the first or last `END_STEPS` values (of all, if there are fewer)."""
    return statistics.fmean(values[-END_STEPS:] if last else values[:END_STEPS])


def as_array(rows: Sequence[Sequence[float]]) -> Any:
    """Return rows of equal length as an array."""
    import numpy as np

    return np.asarray(rows, dtype=float)
