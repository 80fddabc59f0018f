"""How two series of a run go together: strength, lead, and where they part; with the bands and the doubt that is due.

Training moves everything, so two series that both drift are correlated whatever joins them. Two numbers are given
therefore: the correlation of the values, and that of what is left around their moving means.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from ratchet.charts.analysis import FALLING, RISING, Band, blocks, phases, residuals
from ratchet.charts.series import Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

LEAST = 20
"""Common steps below which nothing is said."""
MOST = 1000
"""Points that are compared; more are averaged in equal stretches first."""
RESAMPLES = 500
TAILS = (2.5, 97.5)
CHANCE = 0.01
"""Of unrelated series, so many may seem to have a lead."""
BEYOND = 1.25
"""A lead must be so many times stronger than no lead, or the two are called simultaneous."""
LONGEST_LEAD = 0.1
"""Share of the run up to which one may lead the other."""
WORDS = ((0.2, "none"), (0.4, "weak"), (0.7, "moderate"), (2.0, "strong"))
"""Strength of a correlation, up to an absolute value (after Cohen's and Evans's tables, rounded)."""


@dataclass(frozen=True, slots=True)
class Lead:
    """That one series goes before the other."""

    steps: int
    """By how many steps the first goes before the second; negative the other way round."""
    correlation: float
    doubt: float
    """What chance gives at most, in 99 of 100 cases."""


@dataclass(frozen=True, slots=True)
class Apart:
    """A stretch on which one rose clearly while the other fell clearly."""

    first: int
    last: int
    rising: str
    falling: str


@dataclass(frozen=True, slots=True)
class Relation:
    """How two series go together."""

    one: str
    other: str
    first: int
    last: int
    num_points: int
    values: Band
    """Pearson's correlation of the values."""
    ripples: Band
    """The same of what is left around the moving means."""
    lead: Lead | None
    apart: tuple[Apart, ...]


def relation(one: Series, other: Series) -> Relation | None:
    """Return how two series go together over the steps that both have; None for too few, or for a constant one."""
    import numpy as np

    steps, x, y = common(one, other)
    if len(steps) < LEAST or min(np.ptp(x), np.ptp(y)) == 0:
        return None
    left, right = residuals(x), residuals(y)
    if min(np.ptp(left), np.ptp(right)) == 0:
        return None
    distance = max(1, round((steps[-1] - steps[0]) / (len(steps) - 1)))
    return Relation(
        one.name,
        other.name,
        int(steps[0]),
        int(steps[-1]),
        len(steps),
        correlation(x, y),
        correlation(left, right),
        lead(left, right, distance),
        tuple(parted(one, other)),
    )


def common(one: Series, other: Series) -> tuple[Numbers, Numbers, Numbers]:
    """Return the steps both have and the values of each there; of more than `MOST`, means over equal stretches."""
    import numpy as np

    steps, a, b = np.intersect1d(np.asarray(one.steps), np.asarray(other.steps), return_indices=True)
    x, y = np.asarray(one.values, dtype=float)[a], np.asarray(other.values, dtype=float)[b]
    if len(steps) <= MOST:
        return steps.astype(float), x, y
    edges = np.linspace(0, len(steps), MOST + 1).astype(int)[:-1]
    counts = np.diff(np.r_[edges, len(steps)])
    shrunk = [np.add.reduceat(values, edges) / counts for values in (steps.astype(float), x, y)]
    return shrunk[0], shrunk[1], shrunk[2]


def correlation(x: Numbers, y: Numbers) -> Band:
    """Return Pearson's correlation with the percentile interval of a block bootstrap of pairs."""
    import numpy as np

    rows = blocks(len(x), RESAMPLES)
    a, b = x[rows], y[rows]
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    drawn = (a * b).sum(axis=1)[scale > 0] / scale[scale > 0]
    low, high = np.percentile(drawn, TAILS)
    return Band(float(np.corrcoef(x, y)[0, 1]), float(low), float(high))


def lead(x: Numbers, y: Numbers, distance: int) -> Lead | None:
    """Return by how many steps x goes before y, or None if that is not shown.

    The correlation of what is left is taken at every lag of a circle. Lags of up to a tenth of the run may matter, the
    others cannot, and show what chance gives. The strongest lag must exceed all of those, the bound that as many normal
    numbers of their spread keep in 99 of 100 cases (Bonferroni), and the correlation without a lag by a quarter.
    """
    import numpy as np

    n = len(x)
    most = max(1, round(LONGEST_LEAD * n))
    a, b = (x - x.mean()) / (x.std() * np.sqrt(n)), (y - y.mean()) / (y.std() * np.sqrt(n))
    # r[k] = sum_t a[t] b[t + k]: large at k > 0 where a goes before b.
    r = np.fft.irfft(np.conj(np.fft.rfft(a)) * np.fft.rfft(b), n)
    lags = np.r_[np.arange(0, most + 1), np.arange(-most, 0)]
    best = int(lags[np.argmax(np.abs(r[lags]))])
    far = np.abs(r[most + 1 : n - most])
    width = 2 * most + 1
    if best == 0 or len(far) < 2 * width:
        return None
    bound = NormalDist().inv_cdf(1 - CHANCE / 2 / width) * float(np.sqrt(np.mean(far**2)))
    doubt = max(bound, float(far.max()))
    found = float(r[best])
    if abs(found) <= doubt or abs(found) < BEYOND * abs(r[0]):
        return None
    return Lead(best * distance, found, doubt)


def parted(one: Series, other: Series) -> list[Apart]:
    """Return the stretches on which one rises clearly while the other falls clearly (`analysis.phases`)."""
    found = []
    for a in phases(one):
        for b in phases(other):
            first, last = max(a.first, b.first), min(a.last, b.last)
            if {a.direction, b.direction} == {RISING, FALLING} and last > first:
                up, down = (one.name, other.name) if a.direction == RISING else (other.name, one.name)
                found.append(Apart(first, last, up, down))
    return found


def strength(value: float) -> str:
    """Return a correlation's strength as a word."""
    return next(word for most, word in WORDS if abs(value) < most)
