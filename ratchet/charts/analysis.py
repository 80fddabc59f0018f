"""What a series did: change with its band, slope, phases, values at round steps. Pure functions of series.

Noise is estimated from the series itself. Steps of training are correlated, so bands come from a block bootstrap of
what is left around a moving mean (Künsch 1989), which keeps neighbours together. NumPy and SciPy are imported when
something is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ratchet.charts.series import CLEAR, END_STEPS, ROUNDING, Series, move, noise, smoothed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

RISING, FLAT, FALLING = "rising", "flat", "falling"
RESAMPLES = 1000
TAILS = (2.5, 97.5)
LEAST = 8
"""Values below which no band is given."""
MOST = 2000
"""Values a bootstrap works on; longer series are averaged in equal stretches first."""
STRETCHES = 12
"""Parts in which phases are looked for: fine enough for a dip of a tenth of the run."""
STRETCH_STEPS = 5
"""Least steps of a part."""
FULL_TURN = 0.05
"""Share of the whole range that a part must move to count as rising or falling."""
ENDS_OF = 2
"""Steps whose mean is called the start, or the end, of a stretch."""
ROUND_VALUES = 10
"""About how many values a table shows."""


@dataclass(frozen=True, slots=True)
class Band:
    """A number with its interval."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps over which a series went one way."""

    direction: str
    first: int
    last: int
    start: float
    end: float


def change(series: Series) -> Band | None:
    """Return last minus first values (means of five steps), with `CLEAR` standard errors around; None for short series.

    The standard error is a block bootstrap's: that of the difference between two stretches of five residuals, drawn
    anywhere, so that noise which carries over from step to step counts in full.
    """
    import numpy as np

    if len(series.values) < LEAST:
        return None
    m, left = move(series), residuals(series.values)
    starts = np.random.default_rng(0).integers(len(left), size=(2, RESAMPLES))
    means = left[(starts[:, :, None] + np.arange(m.num_steps)) % len(left)].mean(axis=2)
    room = CLEAR * float((means[1] - means[0]).std())
    return Band(m.difference, m.difference - room, m.difference + room)


def is_clear(series: Series) -> bool:
    """Return whether a series moved by more than its noise explains, by the standard error and by the bootstrap."""
    band = change(series)
    return band is not None and band.is_clear and move(series).is_clear


def lost(series: Series) -> Stretch | None:
    """Return from where to where a series fell from the best it held for five steps, if it ends clearly below that.

    Between the best window's last step and the first of the last ones: by more than twice `CLEAR` standard errors,
    since the best of many windows is high by luck too.
    """
    values, m = series.values, move(series)
    if len(values) < 4 * END_STEPS:
        return None
    n = m.num_steps
    means = smoothed_windows(values, n)
    top = max(range(len(means)), key=means.__getitem__)
    if means[top] - m.end <= 2 * CLEAR * m.standard_error:
        return None
    return Stretch(FALLING, series.steps[top], series.steps[-1], means[top], m.end)


def smoothed_windows(values: Sequence[float], n: int) -> list[float]:
    """Return the mean of every n values that follow each other."""
    import numpy as np

    return [float(v) for v in np.convolve(np.asarray(values, dtype=float), np.full(n, 1 / n), mode="valid")]


def level(series: Series, last: int) -> Band:
    """Return the mean of the last values with a block-bootstrap band; of short series the band is the value."""
    import numpy as np

    values = np.asarray(series.values)
    n = min(last, len(values))
    mean = float(values[-n:].mean())
    if len(values) < LEAST:
        return Band(mean, mean, mean)
    low, high = np.percentile(resampled(residuals(values[-MOST:]))[:, -n:].mean(axis=1), TAILS)
    return Band(mean, mean + float(low), mean + float(high))


def slope(series: Series) -> Band | None:
    """Return the Theil-Sen slope a step with its 95 % interval, from means over blocks of steps; None for short series.

    The interval takes its points for independent, which steps are not: means over blocks are nearly so.
    Source: Sen 1968.
    """
    import numpy as np

    from ratchet.core.ranks import theil_sen

    n = len(series.values)
    if n < LEAST:
        return None
    steps, values = binned(series, max(LEAST, min(200, n // block_length(n))))
    return Band(*theil_sen(np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)))


def phases(series: Series) -> list[Stretch]:
    """Return the stretches in which a series rises, is flat or falls; empty for short series.

    The series is cut into up to `STRETCHES` equal parts. A part goes up or down if its fitted line moves by more than
    `CLEAR` standard errors and by `FULL_TURN` of the whole range; neighbours of one direction are joined.
    """
    import numpy as np

    steps, values = series.steps, series.values
    parts = min(STRETCHES, len(values) // STRETCH_STEPS)
    if parts < 2:
        return []
    edges = np.linspace(0, len(values), parts + 1).astype(int).tolist()
    sigma, means = noise(values), [float(np.mean(values[a:b])) for a, b in pairwise(edges)]
    whole = max(means) - min(means)
    found: list[Stretch] = []
    for a, b in pairwise(edges):
        # One more step of either neighbour, so that what happens on the edge is in both.
        x = np.arange(max(0, a - 1), min(len(values), b + 1), dtype=float)
        y = np.asarray(values[max(0, a - 1) : min(len(values), b + 1)])
        line = np.polyfit(x - x.mean(), y, 1)
        moved = float(line[0]) * (x[-1] - x[0])
        error = sigma * math.sqrt(12 / len(x))  # of a fitted line's rise from end to end
        clear = abs(moved) > max(ROUNDING, CLEAR * error, FULL_TURN * whole)
        direction = FLAT if not clear else RISING if moved > 0 else FALLING
        start, end = float(np.mean(values[a : a + ENDS_OF])), float(np.mean(values[b - ENDS_OF : b]))
        if found and found[-1].direction == direction:
            found[-1] = Stretch(direction, found[-1].first, steps[b - 1], found[-1].start, end)
        else:
            found.append(Stretch(direction, steps[a], steps[b - 1], start, end))
    return found


def round_values(series: Series) -> list[tuple[int, float, float]]:
    """Return (step, value, deviation) at about `ROUND_VALUES` round steps, the first and the last.

    The value is the mean of the points within half a distance, at most two steps to either side, so that one noisy
    step does not stand for its neighbourhood; the deviation is that of the noise between steps.
    """
    steps, values = series.steps, series.values
    first, last = steps[0], steps[-1]
    distance = _round_distance((last - first) / ROUND_VALUES)
    wanted = [first, *range((first // distance + 1) * distance, last, distance), last]
    wanted = [s for i, s in enumerate(wanted) if i in (0, len(wanted) - 1) or min(s - first, last - s) > distance / 3]
    sigma = noise(values)
    found: dict[int, tuple[int, float, float]] = {}
    places = {step: i for i, step in enumerate(steps)}
    for step in wanted:
        i = places.get(step)
        i = min(range(len(steps)), key=lambda j: abs(steps[j] - step)) if i is None else i
        near = values[max(0, i - 2) : i + 3]
        found[steps[i]] = (steps[i], sum(near) / len(near), sigma)
    return list(found.values())


def binned(series: Series, most: int = MOST) -> tuple[list[float], list[float]]:
    """Return steps and values; of a long series, means over equal stretches."""
    n = len(series.values)
    if n <= most:
        return [float(s) for s in series.steps], list(series.values)
    import numpy as np

    edges = np.linspace(0, n, most + 1).astype(int)[:-1]
    counts = np.diff(np.r_[edges, n])
    steps = np.add.reduceat(np.asarray(series.steps, dtype=float), edges) / counts
    return steps.tolist(), (np.add.reduceat(np.asarray(series.values), edges) / counts).tolist()


def residuals(values: Sequence[float] | Numbers) -> Numbers:
    """Return what is left around a centred mean over a quarter of the series (at least 5 steps), about 0.

    A shorter mean would follow noise that carries over, and take it for a trend.
    """
    import numpy as np

    window = max(5, len(values) // 4 | 1)
    left = np.asarray(values) - np.asarray(smoothed([float(v) for v in values], window))
    # A mean of m steps has a share of 1/m of the noise of the step in its middle.
    return np.asarray((left - left.mean()) * math.sqrt(window / (window - 1)))


def block_length(n: int) -> int:
    """Return how many neighbours stay together: twice the cube root of n, the order that Künsch's variance asks for."""
    return max(1, min(n, round(2 * math.cbrt(n))))


def resampled(values: Numbers, times: int = RESAMPLES) -> Numbers:
    """Return `times` series of the same length, made of random blocks of one that goes round; always the same draws."""
    import numpy as np

    return np.asarray(values[blocks(len(values), times)])


def blocks(n: int, times: int) -> NDArray[np.int64]:
    """Return rows of indices: blocks of a circle of n, drawn at random, put one behind the other."""
    import numpy as np

    length = block_length(n)
    dice = np.random.default_rng(0)
    starts = dice.integers(n, size=(times, -(-n // length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(times, -1)[:, :n] % n
    return np.asarray(index)


def _round_distance(least: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... that is no less."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return int(factor * power)
        power *= 10
