"""What is drawn of a series: smoothed, thinned so that no extreme is lost, and told in a sentence. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.charts.lines import told_series
from ratchet.charts.series import Series
from ratchet.charts.text import number

Floats = NDArray[np.float64]
TO_SIGMA = 1.4826
LONG = 4000
"""Points beyond which the caption is made from arrays alone, without the test for a clear change."""
DIGITS = 7
"""Significant digits that are sent: more than a screen shows."""
EXACT_POWER = 22
"""Largest power of ten that is a double."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A metric of a run; every value is finite."""

    name: str
    steps: NDArray[np.int64]
    values: Floats
    num_missing: int = 0
    """Recorded points that are not finite."""

    @cached_property
    def auto_window(self) -> int:
        """Return `auto_window` of the values. Its medians are the dearest part of a long curve, so they are kept."""
        return auto_window(self.values)


def finite(name: str, steps: NDArray[np.int64], values: Floats, *, absent: bool) -> Curve:
    """Return the finite points of a series. `absent` says that NaN stands for a step that has no value."""
    good = np.isfinite(values)
    if good.all():
        return Curve(name, steps, values)  # the columns themselves, which nobody changes
    missing = int(np.isinf(values).sum() if absent else len(values) - good.sum())
    return Curve(name, steps[good], values[good], missing)


def thin(x: Floats, y: Floats, points: int) -> tuple[Floats, Floats]:
    """Return at most `points` points that draw the same picture: of each stretch its lowest and its highest.

    The first and the last point are always among them. x must not fall.
    """
    n = len(x)
    stretches = max(1, (points - 2) // 2)
    if n <= max(points, 4):
        return x, y
    length = -(-n // stretches)
    rows = -(-n // length)
    table = np.concatenate([y, np.full(rows * length - n, y[-1])]).reshape(rows, length)
    begins = np.arange(rows) * length
    found = np.concatenate([begins + table.argmin(axis=1), begins + table.argmax(axis=1)])
    chosen = np.unique(np.concatenate([[0], np.minimum(found, n - 1), [n - 1]]))
    return x[chosen], y[chosen]


def smooth(values: Floats, window: int) -> Floats:
    """Return centred moving means over `window` values (odd); near an end, over those of them that there are."""
    n = len(values)
    if window <= 1 or n < 3:
        return values
    half = window // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(n)
    low, high = np.maximum(0, place - half), np.minimum(n, place + half + 1)
    means: Floats = (sums[high] - sums[low]) / (high - low)
    return means


def auto_window(values: Floats) -> int:
    """Return the window that the printed charts take (`charts.series.smoothing_window`), for series of any length."""
    if len(values) <= 30 or noise(values) <= 0.01 * float(values.max() - values.min()):
        return 1
    return max(3, min(51, len(values) // 20 | 1))


def noise(values: Floats) -> float:
    """Return the standard deviation of the noise between neighbouring steps, as `charts.series.noise` estimates it."""
    differences = np.diff(values)
    if len(differences) < 2:
        return 0.0
    spread = TO_SIGMA * float(np.median(np.abs(differences - np.median(differences))))
    return (spread or float(differences.std())) / math.sqrt(2)


def caption(curve: Curve, label: str, unit: str) -> str:
    """Return what a curve shows as a sentence: start, end, change, extremes. It is the chart's accessible name."""
    steps, values = curve.steps, curve.values
    if not len(values):
        return f"{label}: not recorded."
    if len(values) <= LONG:
        series = Series(curve.name, tuple(steps.tolist()), tuple(values.tolist()), curve.num_missing)
        return told_series(label, unit, series)
    first, last = float(values[:5].mean()), float(values[-5:].mean())
    high, low = int(values.argmax()), int(values.argmin())
    return (
        f"{label}: from {number(first)} to {number(last)} (means of the first and last 5 of {len(values):,} points); "
        f"highest {number(float(values[high]))} at step {steps[high]}, lowest {number(float(values[low]))} at step "
        f"{steps[low]}."
    )


def numbers(values: Floats) -> list[float | None]:
    """Return values as JSON has them: rounded to what can be seen, null where not finite."""
    good = np.isfinite(values)
    size = np.abs(np.where(good & (values != 0), values, 1.0))
    decimals = DIGITS - 1 - np.floor(np.log10(size)).astype(np.int64)
    up, down = (10.0 ** np.clip(d, 0, EXACT_POWER) for d in (decimals, -decimals))
    # A whole number over an exact power of ten is the double next to that decimal, so it is written with few digits.
    # What is too small or too large for that is sent as it is.
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.where(np.abs(decimals) <= EXACT_POWER, np.rint(values * up / down) / up * down, values)
    found: list[float | None] = rounded.tolist()
    for place in np.flatnonzero(~good).tolist():
        found[place] = None
    return found


def plain(value: Any) -> Any:
    """Return a tree without numbers that JSON does not have: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
