"""Numbers as text: small graphs for the terminal, and values with their units. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
GAP = " "
"""Stands where a series has no finite value."""


def sparkline(values: Sequence[float], width: int) -> str:
    """Return a series as at most `width` bars; a longer one is cut into `width` parts and each part averaged.

    The lowest bar is the smallest drawn value and the highest the largest; a series that does not move is drawn flat
    in the middle. Values that are not finite leave a gap.
    """
    if not values or width < 1:
        return ""
    points = _averaged(values, width) if len(values) > width else list(values)
    finite = [p for p in points if math.isfinite(p)]
    if not finite:
        return GAP * len(points)
    low, high = min(finite), max(finite)
    # Rounding noise is no movement.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return "".join(BARS[3] if math.isfinite(p) else GAP for p in points)
    top = len(BARS) - 1
    return "".join(BARS[round(top * (p - low) / (high - low))] if math.isfinite(p) else GAP for p in points)


def number(value: float) -> str:
    """Return a number with about three figures, as a person would write it: 0.0412, 1.87, 24,310, 6.1e-07."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}"
    size = abs(value)
    if size < 1e-3 or size >= 1e12:
        return f"{value:.3g}"
    if size >= 1000:
        return f"{value:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def quantity(value: float, unit: str) -> str:
    """Return a number with its unit; ``share`` is written in percent, ``s`` and ``bytes`` in a handy multiple.

    Units are those of the metric dictionary (`core.metric`); an empty one adds nothing.
    """
    if not math.isfinite(value):
        return "not finite"
    if unit == "share":
        return percent(value)
    if unit == "s":
        return duration(value)
    if unit == "bytes":
        return size(value)
    return f"{number(value)} {unit}" if unit else number(value)


def percent(share: float) -> str:
    """Return a share as ``86.9 %``; a small one keeps two figures: ``0.031 %``."""
    return f"{100 * share:.2g} %" if 0 < abs(share) < 1e-3 else f"{100 * share:.1f} %"


def relative_change(share: float) -> str:
    """Return a change relative to the start as ``+12.4 %``, or as ``20.6 times`` where percents get out of hand."""
    if share > 3:
        return f"{1 + share:.3g} times"
    text = f"{100 * share:+.1f} %"
    return "0.0 %" if text in ("+0.0 %", "-0.0 %") else text


def duration(seconds: float) -> str:
    """Return seconds as ``0.38 s``, ``2 min 05 s`` or ``1 h 07 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(count: float) -> str:
    """Return bytes as ``412 MB`` (decimal multiples)."""
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def flops(count: float) -> str:
    """Return floating-point operations as ``1.92 TFLOP`` (decimal multiples)."""
    return _scaled(count, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP", "YFLOP"))


def _scaled(count: float, units: Sequence[str]) -> str:
    power = 0
    while count >= 999.5 and power < len(units) - 1:
        count, power = count / 1000, power + 1
    return f"{number(float(f'{count:.3g}'))} {units[power]}"


def _averaged(values: Sequence[float], parts: int) -> list[float]:
    """Return the mean of the finite values of each of `parts` equal stretches."""
    edges = [round(i * len(values) / parts) for i in range(parts + 1)]
    means = []
    for first, last in pairwise(edges):
        finite = [v for v in values[first:last] if math.isfinite(v)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    return means


def printable(text: str) -> str:
    """Return a text whose characters all can be printed, and stand in XML; what cannot is a space."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
