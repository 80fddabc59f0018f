"""From a series to what is drawn of it: its smoothed line, its raw points, and few enough of both. Draws nothing.

What is done on the way is told in sentences, because captions must say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ratchet.charts.series import smoothed, smoothing_window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

MOST_POINTS = 1000
"""Points of a line: more than a column's width has dots at 200 a inch, and an SVG of some tens of kilobytes."""
MOST_KNOTS = 200
"""Means a smoothing spline is put through; it bends less than that."""
LEAST_FOR_SPLINE = 8
"""Distinct places below which a spline says nothing that the points do not."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line and the points behind it."""

    x: list[float]
    y: list[float]
    raw_x: list[float]
    raw_y: list[float]
    band: tuple[list[float], list[float], list[float]] | None
    """In place of raw points, where they are too many: middles of stretches, and the lowest and highest in each."""
    told: tuple[str, ...]
    """What was smoothed and what was left out, as sentences that begin with a capital."""


def stroke(x: Sequence[float], y: Sequence[float], *, logarithmic: bool = False) -> Stroke:
    """Return a series as a line: as it is if it is short or quiet, else as a centred mean over its points.

    With `logarithmic`, values that are not above 0 are left out.
    """
    told, left_out = list[str](), list[str]()
    if logarithmic:
        kept = [(a, b) for a, b in zip(x, y, strict=True) if b > 0]
        if len(kept) < len(y):
            left_out.append(f"{len(y) - len(kept)} values of 0 or below have no place on the logarithmic axis.")
        x, y = [a for a, _ in kept], [b for _, b in kept]
    window = smoothing_window(y) if y else 1
    line = smoothed(y, window)
    is_long = len(y) > MOST_POINTS
    if window > 1:
        told = [f"Line: centred mean of {window} steps; {'band' if is_long else 'points'}: single steps."]
    if is_long:
        told.append(_thinning(len(y)))
    points = [] if is_long or window == 1 else range(len(y))
    band = envelope(x, y) if is_long and window > 1 else None
    return Stroke(*_picked(x, line, thinned(x, line)), *_picked(x, y, points), band, (*left_out, *told))


def trend(x: Sequence[float], y: Sequence[float]) -> Stroke:
    """Return a series as raw points and a smooth curve through them.

    The curve is a cubic smoothing spline whose stiffness is chosen by generalised cross-validation (Woltring 1986;
    `scipy.interpolate.make_smoothing_spline`), through means of up to `MOST_KNOTS` equal stretches. Of fewer than
    `LEAST_FOR_SPLINE` places it is a line from point to point.
    """
    import numpy as np
    from scipy.interpolate import make_smoothing_spline

    places, values, counts, spread = _binned(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    is_long = len(y) > MOST_POINTS
    told, band = ([_thinning(len(y))], envelope(x, y)) if is_long else ([], None)
    raw = _picked(x, y, () if is_long else range(len(y)))
    if len(places) < LEAST_FOR_SPLINE:
        return Stroke(places.tolist(), values.tolist(), *raw, band, (*told, "Curve: from point to point."))
    # On the unit interval, so that stiffness is chosen alike for steps and for FLOPs.
    low, width = places[0], places[-1] - places[0]
    spline = make_smoothing_spline((places - low) / width, values, w=np.sqrt(counts))
    at = np.linspace(0, 1, 4 * MOST_KNOTS)
    behind = "Band" if is_long else "Points"
    told.append(
        f"{behind}: single steps; curve: cubic smoothing spline, stiffness by generalised cross-validation"
        + (f", through means of {spread} steps." if spread > 1 else ".")
    )
    return Stroke((low + width * at).tolist(), spline(at).tolist(), *raw, band, tuple(told))


def thinned(x: Sequence[float], y: Sequence[float], most: int = MOST_POINTS) -> list[int]:
    """Return which points to draw: all, or of each of `most` / 2 equal stretches the lowest and the highest.

    So every spike stays, which a plain every-nth choice would lose. First and last point are always there.
    """
    n = len(y)
    if n <= most:
        return list(range(n))
    import numpy as np

    values = np.asarray(y, dtype=float)
    edges = np.linspace(0, n, most // 2 + 1).astype(int)
    kept = {0, n - 1}
    for first, last in pairwise(edges.tolist()):
        part = values[first:last]
        kept |= {int(first + part.argmin()), int(first + part.argmax())}
    return sorted(kept)


def envelope(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float], list[float]]:
    """Return the middle of each of `MOST_POINTS` / 2 equal stretches, and the lowest and the highest value in it.

    Of so many points only the outermost would be seen, and a band says that there are others between.
    """
    import numpy as np

    values, edges = np.asarray(y, dtype=float), np.linspace(0, len(y), MOST_POINTS // 2 + 1).astype(int)
    low, high = (at.reduceat(values, edges[:-1]).tolist() for at in (np.minimum, np.maximum))
    return [(x[a] + x[b - 1]) / 2 for a, b in pairwise(edges.tolist())], low, high


def _thinning(count: int) -> str:
    return (
        f"Of {count:,} steps the lowest and the highest of each of {MOST_POINTS // 2} equal stretches are drawn, and "
        "the numbers are of all steps."
    )


def _picked(x: Sequence[float], y: Sequence[float], which: Sequence[int]) -> tuple[list[float], list[float]]:
    return [float(x[i]) for i in which], [float(y[i]) for i in which]


def _binned(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers, Numbers, int]:
    """Return means over stretches of equal numbers of steps, how many each holds, and how many the longest.

    Points at one place count as one, since a spline needs places that rise.
    """
    import numpy as np

    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    parts = np.arange(len(x)) * min(MOST_KNOTS, len(x)) // max(1, len(x))
    first = np.flatnonzero(np.r_[True, (np.diff(parts) > 0) & (np.diff(x) > 0)])
    counts = np.diff(np.r_[first, len(x)]).astype(float)
    return np.add.reduceat(x, first) / counts, np.add.reduceat(y, first) / counts, counts, int(counts.max())
