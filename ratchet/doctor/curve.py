"""A series as the rules see it: binned, smoothed, with the noise estimated from itself. Pure functions of numbers.

Everything a rule decides is a difference of levels over its standard error. The noise is taken from differences of
neighbours, which a slow trend does not touch, and its autocorrelation from how these differences grow with the lag.
Long series are cut into `MAX_BINS` equal blocks first, so that cost does not grow with length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ratchet.core.ranks import mann_kendall, theil_sen

Array = NDArray[np.float64]
Steps = NDArray[np.int64]

MAX_BINS = 512
"""Blocks a longer series is averaged to: a change of 1 % of a run still spans five."""
MAX_RHO = 0.9
"""Largest autocorrelation believed; above, noise and trend cannot be told apart."""
SHRINK = 20.0
"""Points at which the estimated autocorrelation counts half: its own error is about 1/sqrt(n)."""
BASE_Z = 2.0
"""Standard errors beyond what the largest of all windows reaches by chance (one-sided 2 %)."""
ONLINE_Z = 1.0
"""More of them where the same question is asked at every step of a run."""
FLAT = 1e-12
DRAWN_IN = 1.007
"""Makes up for what drawing in to three deviations takes off that of a normal distribution."""
MAD = 1.4826
"""From median absolute deviation to standard deviation of a normal distribution."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A finite series of a log, or its logarithm. Build it with `curve_of`."""

    name: str
    key: str
    first_steps: Steps
    """First step of each bin."""
    last_steps: Steps
    y: Array
    """Mean of each bin."""
    log: bool = False
    online: bool = False

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def noise(self) -> tuple[float, float]:
        """Return standard deviation and lag-1 autocorrelation of the noise.

        With ``v_k = var(y[t+k] - y[t]) / 2`` (robust, so that jumps do not count), noise of the form AR(1) has
        ``v_k = sigma^2 (1 - rho^k)``, hence ``rho = v_2 / v_1 - 1`` and ``rho^2 = v_4 / v_2 - 1``; the mean of both is
        taken. Trends that are linear over five bins cancel.
        """
        return _noise(self.y)

    @property
    def sigma(self) -> float:
        return self.noise[0]

    @cached_property
    def half(self) -> int:
        """Return the half width of the smoothing window, in bins: a twentieth of the run, more where it is noisy."""
        n = len(self)
        half = max(1, min(2, n // 10), n // 20)
        middle = _running_median(self.y)
        while half < n // 8:
            smooth = _smooth(middle, half)
            reach = float(np.ptp(smooth))
            if self.error(2 * half + 1) <= 0.08 * reach or reach <= FLAT:
                break
            half += max(1, half // 2)
        return half

    @cached_property
    def s(self) -> Array:
        """Return the smoothed series: a running median of three, then a local mean with tricube weights.

        That is LOWESS of degree 0 (Cleveland 1979, doi 10.2307/2286407). Degree 1 follows the last points so closely
        that the ends, which decide most here, have four times the variance.
        """
        return _smooth(_running_median(self.y), self.half)

    def error(self, count: int) -> float:
        """Return the standard error of a mean of `count` successive bins under AR(1) noise, at most sigma."""
        sigma, rho = self.noise
        return sigma * min(1.0, math.sqrt((1 + rho) / (1 - rho) / max(1, count)))

    @property
    def needed(self) -> float:
        """Return the standard errors a difference of levels must have to count.

        The largest of n/w independent windows lies at about ``sqrt(2 ln(n / w))`` by chance alone; `BASE_Z` comes on
        top of it.
        """
        windows = max(2.0, len(self) / (2 * self.half + 1))
        return math.sqrt(2 * math.log(windows)) + BASE_Z + (ONLINE_Z if self.online else 0.0)

    @property
    def edge(self) -> int:
        """Return how many bins the level at an end is taken over."""
        return min(len(self), max(3, self.half + 1))

    @property
    def start(self) -> float:
        return float(np.mean(self.y[: self.edge]))

    @property
    def end(self) -> float:
        return float(np.mean(self.y[-self.edge :]))

    def level(self, first: int, last: int) -> float:
        """Return the mean over bins ``first .. last - 1``."""
        return float(np.mean(self.y[max(0, first) : max(last, first + 1)]))

    def z(self, difference: float, count: int | None = None, other: int | None = None) -> float:
        """Return a difference of two means over so many bins (the ends' unless given) in standard errors."""
        a, b = self.error(count or self.edge), self.error(other or count or self.edge)
        scale = math.hypot(a, b)
        if scale <= FLAT * max(1.0, abs(difference)):
            return math.copysign(math.inf, difference) if abs(difference) > FLAT else 0.0
        return difference / scale

    def counts(self, difference: float, count: int | None = None, other: int | None = None) -> bool:
        """Return whether a difference of levels is more than noise."""
        return abs(self.z(difference, count, other)) > self.needed

    def window(self, fraction: float) -> int:
        """Return a share of the run in bins, at least three."""
        return max(3, round(fraction * len(self)))

    def real(self, value: float) -> float:
        """Return a level in the series' own unit."""
        return math.exp(value) if self.log else value

    def at(self, step: int) -> int:
        """Return the bin that holds a step, or the nearest."""
        return int(np.clip(np.searchsorted(self.first_steps, step, side="right") - 1, 0, len(self) - 1))

    def first_step(self, index: int) -> int:
        return int(self.first_steps[index])

    def last_step(self, index: int) -> int:
        return int(self.last_steps[index])

    def shifts(self) -> list[int]:
        """Return the bins at which the level changes, by PELT with the penalty ``4 ln n`` on whitened values.

        **Source**: Killick et al. 2012 (arXiv 1101.1438), as in `ruptures` (kernel form, which is the same cost for
        the linear kernel). Twice the penalty of the BIC, because noise of a run is not quite AR(1).
        """
        import ruptures

        n, (sigma, rho) = len(self), self.noise
        if n < 8 or sigma <= FLAT:
            jumps = np.flatnonzero(np.abs(np.diff(self.y)) > FLAT) + 1 if n > 1 else np.empty(0, dtype=int)
            return [int(j) for j in jumps] if len(jumps) <= 8 else []
        white = self.y / sigma * math.sqrt((1 - rho) / (1 + rho))
        found = ruptures.KernelCPD(kernel="linear", min_size=3).fit(white).predict(pen=4 * math.log(n))
        return [int(at) for at in found[:-1]]

    def onset(self, before: int, after: int, sign: int) -> int:
        """Return the bin between two others at which the level moves most in a direction: where a change began."""
        inside = [at for at in self.shifts() if before < at <= after]
        if not inside:
            return before + int(np.argmax(sign * np.gradient(self.s[before : after + 1]))) if after > before else after
        bounds = [max(0, before), *inside, min(len(self), after + 1)]
        means = [self.level(a, b) for a, b in pairwise(bounds)]
        moves = [sign * (b - a) for a, b in pairwise(means)]
        return inside[int(np.argmax(moves))]

    def trend(self, first: int = 0, last: int | None = None) -> Trend:
        """Return Mann-Kendall's test and Theil and Sen's slope over blocks that are about independent."""
        return _trend(self, first, len(self) if last is None else last)


@dataclass(frozen=True, slots=True)
class Trend:
    """A monotone trend over a stretch of a series."""

    tau: float
    p: float
    """Two-sided, of no trend."""
    change: float
    """Slope times the length of the stretch."""
    low: float
    high: float
    """95 % interval of `change`."""

    def rises(self, p: float = 0.01) -> bool:
        return self.tau > 0 and self.p < p

    def falls(self, p: float = 0.01) -> bool:
        return self.tau < 0 and self.p < p


def curve_of(name: str, key: str, steps: Steps, values: Array, *, log: bool = False, online: bool = False) -> Curve:
    """Return the curve of a finite series; for its logarithm what is not above 0 takes the smallest value that is."""
    values = np.asarray(values, dtype=np.float64)
    if log:
        positive = values[values > 0]
        floor = float(positive.min()) if len(positive) else 1.0
        values = np.log(np.maximum(values, floor))
    n = len(values)
    if n <= MAX_BINS:
        return Curve(name, key, steps, steps, values, log, online)
    edges = np.linspace(0, n, MAX_BINS + 1).astype(np.int64)
    means = np.add.reduceat(values, edges[:-1]) / np.diff(edges)
    return Curve(name, key, steps[edges[:-1]], steps[edges[1:] - 1], means, log, online)


def spread(values: Array) -> float:
    """Return a robust standard deviation: that of the values drawn in to three of the MAD's.

    The MAD alone needs three times as many values for the same precision. Where more than half of them are equal it is
    0, and the plain deviation is returned.
    """
    if len(values) < 2:
        return 0.0
    off = values - np.median(values)
    mad = MAD * float(np.median(np.abs(off)))
    return DRAWN_IN * float(np.std(np.clip(off, -3 * mad, 3 * mad))) if mad > FLAT else float(np.std(values))


def _noise(y: Array) -> tuple[float, float]:
    n = len(y)
    if n < 8:
        return float(np.std(y)) if n else 0.0, 0.0
    v1, v2, v4 = (spread(y[k:] - y[:-k]) ** 2 / 2 for k in (1, 2, 4))
    if min(v1, v2) <= FLAT**2:
        return math.sqrt(max(v1, v2)), 0.0
    guess = (v2 / v1 - 1 + math.sqrt(max(0.0, v4 / v2 - 1))) / 2
    rho = float(np.clip(guess * n / (n + SHRINK), 0.0, MAX_RHO))
    return math.sqrt(v1 / (1 - rho)), rho


def _running_median(y: Array) -> Array:
    if len(y) < 3:
        return y
    middle = np.median(np.stack([y[:-2], y[1:-1], y[2:]]), axis=0)
    return np.concatenate([[np.median(y[:3])], middle, [np.median(y[-3:])]])


def _smooth(y: Array, half: int) -> Array:
    """Return local means with tricube weights; windows are cut at the ends."""
    if half < 1 or len(y) < 3:
        return y
    reach = np.arange(-half, half + 1) / (half + 1)
    weights = (1 - np.abs(reach) ** 3) ** 3
    total = np.convolve(np.ones_like(y), weights, mode="full")[half : half + len(y)]
    return np.asarray(np.convolve(y, weights, mode="full")[half : half + len(y)] / total)


MAX_BLOCKS, MIN_BLOCKS = 64, 8
"""Blocks a trend is tested over: 2,016 pairs at most; of fewer than eight, p below 0.001 cannot come."""


def _trend(curve: Curve, first: int, last: int) -> Trend:
    """Return the trend over bins ``first .. last - 1``.

    Neighbours are averaged to blocks of about one correlation time, ``(1 + rho) / (1 - rho)`` bins, because the test
    takes its points for independent (Yue and Wang 2004, doi 10.1023/B:WARM.0000043140.61082.60).
    """
    y = curve.y[first:last]
    rho = curve.noise[1]
    block = max(1, min(round((1 + rho) / (1 - rho)), len(y) // MIN_BLOCKS), math.ceil(len(y) / MAX_BLOCKS))
    count = len(y) // block
    if count < 4 or float(np.ptp(y)) <= FLAT:
        return Trend(0.0, 1.0, 0.0, 0.0, 0.0)
    means = y[len(y) - count * block :].reshape(count, block).mean(axis=1)
    change, low, high = (slope * (count - 1) for slope in theil_sen(np.arange(count, dtype=np.float64), means))
    return Trend(*mann_kendall(means), change, low, high)
