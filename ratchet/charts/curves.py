"""Curves of a method: the mean of its seeds over the steps, smoothed, with a bootstrap band. Draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ratchet.charts.axes import Axis
from ratchet.charts.series import metric_series, smoothed, smoothing_window
from ratchet.charts.statistics import as_array, bootstrap_band, mean_curve
from ratchet.store.run_store import RunStore

if TYPE_CHECKING:
    from ratchet.charts.grouping import Run

MOST_DECADES = 2
"""A panel spanning more than so many powers of ten has a logarithmic axis."""
START_UP = 0.1
"""Share of the smallest values that does not count for that: a divergence starts from 0, however it goes on."""

Band = tuple[list[float], list[float], list[float]]
"""Places, lower ends, upper ends."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """A metric of a method over its seeds."""

    x: list[float]
    """Where the steps lie on the axis, on average over the seeds."""
    raw: list[float]
    """Mean over the seeds that have the step."""
    smooth: list[float]
    """The same of smoothed seeds."""
    bands: list[Band]
    """Stretches of steps that two or more seeds have."""
    counts: list[int]
    """Seeds that have the step."""


def values_of(run: Run, metric: str) -> dict[int, float]:
    """Return step -> finite value of a metric of a run."""
    series = metric_series(RunStore(run.folder), run.rows, metric)
    return dict(zip(series.steps, series.values, strict=True))


def window_of(methods: Sequence[Sequence[Run]], metric: str) -> int:
    """Return the smoothing window that serves all methods of a panel: the widest that one of them needs."""
    curves = [mean_curve([values_of(run, metric) for run in runs]) for runs in methods]
    return max((smoothing_window(list(curve.values())) for curve in curves if curve), default=1)


def pooled(runs: Sequence[Run], metric: str, axis: Axis, window: int) -> Pooled | None:
    """Return a metric of some seeds on an axis; None if none recorded it."""
    raw = [values_of(run, metric) for run in runs]
    places = [axis.at(run.rows) for run in runs]
    # The evaluation after the last step has that step's place.
    ends = [{**p, max(p) + 1: p[max(p)]} if p else {} for p in places]
    return pool(raw, ends, window)


def pool(raw: Sequence[Mapping[int, float]], places: Sequence[Mapping[int, float]], window: int) -> Pooled | None:
    """Return step -> value of some seeds, at their step -> place, as one curve; None if they share no place."""
    smooth = [dict(zip(c, smoothed(list(c.values()), window), strict=True)) for c in raw]
    x = mean_curve([{s: p[s] for s in c if s in p} for p, c in zip(places, raw, strict=True)])
    steps = list(x)
    if not steps:
        return None
    raw_mean, smooth_mean = mean_curve(raw), mean_curve(smooth)
    return Pooled(
        x=[x[s] for s in steps],
        raw=[raw_mean[s] for s in steps],
        smooth=[smooth_mean[s] for s in steps],
        bands=_bands(smooth, steps, x),
        counts=[sum(s in c for c in raw) for s in steps],
    )


def spans_decades(curves: Sequence[Sequence[float]]) -> bool:
    """Return whether the values need a logarithmic axis."""
    values = sorted(v for curve in curves for v in curve if v > 0)
    return bool(values) and values[-1] > 10**MOST_DECADES * values[int(START_UP * (len(values) - 1))]


def _bands(curves: Sequence[Mapping[int, float]], steps: Sequence[int], x: Mapping[int, float]) -> list[Band]:
    """Return the bands of the stretches on which the same two or more seeds have a value."""
    bands = []
    for present, stretch in groupby(steps, key=lambda s: tuple(i for i, c in enumerate(curves) if s in c)):
        if len(present) > 1:
            found = list(stretch)
            low, high = bootstrap_band(as_array([[curves[i][s] for s in found] for i in present]))
            bands.append(([x[s] for s in found], low.tolist(), high.tolist()))
    return bands
