"""What charts and the report read from a run: series over the steps, and statements about them. Draws nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ratchet.store.run_store import Row, RunStore

END_STEPS = 5
"""Steps averaged for "start" and "end"."""
CLEAR = 3.0
"""Standard errors a move must exceed to be called a change: with some ten metrics a report, two would cry wolf."""
ROUNDING = 1e-9
"""Moves below this are rounding of float32 sums, however regular they look (kl/old on fresh data is about 1e-13)."""
QUICK = 100_000
"""Additions that plain Python does at once; a longer series is smoothed by NumPy."""
MANY = 2000
"""Values above which NumPy takes the medians."""
TO_SIGMA = 1.4826
"""The median absolute deviation of normal noise times this is its standard deviation."""


@dataclass(frozen=True, slots=True)
class Series:
    """A metric over the steps of a run; every value is finite."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    num_missing: int
    """Recorded steps on which the metric is absent or not finite."""


@dataclass(frozen=True, slots=True)
class Move:
    """How a series went from its first steps to its last."""

    start: float
    end: float
    num_steps: int
    """Steps averaged at either end."""
    standard_error: float
    """Of `end - start`, from the noise between neighbouring steps; NaN with fewer than four steps."""
    highest: tuple[int, float]
    """(step, value)"""
    lowest: tuple[int, float]
    """(step, value)"""

    @property
    def difference(self) -> float:
        return self.end - self.start

    @property
    def is_clear(self) -> bool:
        """Whether the series moved by more than noise explains."""
        return abs(self.difference) > max(ROUNDING, CLEAR * self.standard_error) and not math.isnan(self.standard_error)

    @property
    def relative(self) -> float | None:
        """Change as a share of the start; None where the start is 0 or the sign changes."""
        return self.difference / abs(self.start) if self.start * self.end > 0 else None


def metric_series(store: RunStore, rows: Sequence[Row], name: str) -> Series:
    """Return a metric of a run. Names ``eval/<split>/<number>`` come from the events. Empty if it never appears."""
    if name.startswith("eval/"):
        rows = evaluations(store)
    found = [(int(row["step"]), float(row[name])) for row in rows if _is_finite(row.get(name))]
    return Series(name, tuple(s for s, _ in found), tuple(v for _, v in found), len(rows) - len(found))


def metric_names(store: RunStore, rows: Sequence[Row]) -> set[str]:
    """Return the names of all series a run has."""
    return {key for row in [*rows, *evaluations(store)] for key, value in row.items() if _is_number(value)} - {"step"}


def evaluations(store: RunStore) -> list[Row]:
    """Return one row per evaluation, its numbers named ``eval/<split>/<number>``; of a repeated step the last."""
    latest: dict[tuple[str, int], Row] = {}
    for event in store.events():
        if event["kind"] == "eval":
            facts = {k: v for k, v in event.items() if k not in ("kind", "split", "step", "time")}
            split, step = str(event["split"]), int(event["step"])
            latest[split, step] = {"step": step, **{f"eval/{split}/{k}": v for k, v in facts.items()}}
    return [latest[key] for key in sorted(latest, key=lambda key: (key[1], key[0]))]


def move(series: Series) -> Move:
    """Return how a series of at least one value moved.

    The noise of a step is estimated from differences of neighbouring steps, which a trend hardly touches:
    ``sigma = 1.4826 * median |d_i - median d| / sqrt(2)``. The means of n first and n last steps then differ by noise
    with standard error ``sigma * sqrt(2 / n)``.
    """
    values = series.values
    # Evaluations are few and far apart: the mean of several would hide most of the way.
    n = max(1, min(END_STEPS, len(values) // (8 if series.name.startswith("eval/") else 2)))
    start, end = statistics.fmean(values[:n]), statistics.fmean(values[-n:])
    error = noise(values) * math.sqrt(2 / n) if len(values) >= 4 else math.nan
    points = list(zip(series.steps, values, strict=True))
    highest, lowest = max(points, key=lambda p: p[1]), min(points, key=lambda p: p[1])
    return Move(start, end, n, error, highest, lowest)


def noise(values: Sequence[float]) -> float:
    """Return the standard deviation of the noise between neighbouring steps; 0 for fewer than three values."""
    if len(values) > MANY:
        return _noise_of_many(values)
    differences = [b - a for a, b in pairwise(values)]
    if len(differences) < 2:
        return 0.0
    middle = statistics.median(differences)
    spread = TO_SIGMA * statistics.median(abs(d - middle) for d in differences)
    # More than half of the differences may be equal (a fraction that is mostly 0): then their plain spread.
    return (spread or statistics.pstdev(differences)) / math.sqrt(2)


def _noise_of_many(values: Sequence[float]) -> float:
    """Return the same for a long series, by NumPy."""
    import numpy as np

    differences = np.diff(np.asarray(values, dtype=float))
    spread = TO_SIGMA * float(np.median(np.abs(differences - np.median(differences))))
    return (spread or float(differences.std())) / math.sqrt(2)


def smoothing_window(values: Sequence[float]) -> int:
    """Return the odd number of steps a line averages over; 1 for short or quiet series, which need no smoothing."""
    if len(values) <= 30 or noise(values) <= 0.01 * (max(values) - min(values)):
        return 1
    # A twentieth of the run (3 of 70 steps): short enough to leave a cliff of a few steps standing.
    return max(3, min(51, len(values) // 20 | 1))


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Return centred moving means over `window` values (odd); near an end, over those of them that there are."""
    half = window // 2
    if window == 1 or len(values) * window <= QUICK:
        return [statistics.fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    import numpy as np

    numbers = np.asarray(values, dtype=float)
    middle = numbers.mean()  # taken off first, so that running sums stay small
    sums = np.r_[0.0, np.cumsum(numbers - middle)]
    first = np.maximum(np.arange(len(numbers)) - half, 0)
    last = np.minimum(np.arange(len(numbers)) + half + 1, len(numbers))
    return [float(v) for v in middle + (sums[last] - sums[first]) / (last - first)]


def refreshes(rows: Sequence[Row]) -> list[int]:
    """Return the steps at which the sampler got new weights after it had gone without for a step or more."""
    held = [(int(row["step"]), int(row["step"]) - int(row["stale/max"])) for row in rows if "stale/max" in row]
    return [step for (_, before), (step, now) in pairwise(held) if now - before > 1]


def resumes(store: RunStore) -> list[int]:
    """Return the steps at which the run was resumed."""
    return sorted({int(event["step"]) for event in store.events() if event["kind"] == "resume"})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
