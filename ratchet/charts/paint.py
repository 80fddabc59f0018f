"""Draws one panel of a figure with matplotlib: lines, curves with bands, events, phases, axes. Knows no runs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ratchet.charts.canvas import DASHES, Curve, Event, Line, Panel
from ratchet.charts.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED = 15
"""About how many markers a long line carries."""
FEW_MARKED = 8
"""About how many a curve carries, which shares its panel with others and their bands."""
RAISED = str.maketrans("0123456789-\u2212", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻")
GRID = "#D0D0D0"
NEAR = 0.06
"""Share of the x axis within which numbers of events would lie on each other."""


def draw_panel(axes: Axes, panel: Panel, events: Sequence[Event], *, named: bool) -> dict[str, Any]:
    """Draw one panel; return what belongs into the legend by label."""
    title = sign(panel.title)
    axes.set_title(title, fontsize=8.5 if "\n" in title else 11 if len(title) < 34 else 9, pad=6)
    axes.set_xlabel(sign(panel.x_label), fontsize=9.5)
    axes.set_ylabel(sign(panel.y_label), fontsize=9.5 if len(panel.y_label) < 30 else 8)
    axes.tick_params(labelsize=8.5)
    axes.grid(visible=True, color=GRID, linestyle="--", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not panel.lines and panel.right is None:
        axes.text(
            0.5, 0.5, sign(panel.empty), ha="center", va="center", wrap=True, fontsize=9, transform=axes.transAxes
        )
        axes.set_xticks([])
        axes.set_yticks([])
        return {}
    handles = _draw_lines(axes, panel, named=named)
    _set_scales(axes, panel)
    handles |= _draw_phases(axes, panel) | _draw_events(axes, events)
    if panel.top:
        _draw_top(axes, panel)
    return handles


def sign(text: str) -> str:
    """Return a text that matplotlib shows as it stands: ``$`` begins no formula, ``_`` hides no legend entry, and what
    cannot be printed is a space."""
    plain = printable(text).replace("$", r"\$")
    return f" {plain}" if plain.startswith("_") else plain


def _draw_lines(axes: Axes, panel: Panel, *, named: bool) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    for line in panel.lines:
        drawn = _draw_either(axes, line, panel.log_y)
        if named:
            handles[line.label] = drawn
    if panel.right is not None:
        handles |= _draw_right(axes, panel, panel.right, named=named)
    return handles


def _set_scales(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    elif panel.lines:
        _leave_room(axes, panel.lines)
    _leave_room_beside(axes, [*panel.lines, *([panel.right] if panel.right is not None else [])], panel.log_x)
    for axis, is_log in ((axes.xaxis, panel.log_x), (axes.yaxis, panel.log_y)):
        low, high = sorted(axis.get_view_interval())
        if not is_log:
            axis.set_major_formatter(_formatter())
        elif 0 < high < 10 * low:  # within one power of ten, where matplotlib would write 1.4 x 10^0
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(lambda value, _: f"{value:g}")
            axis.set_tick_params(which="both", labelsize=8.5)
    if panel.counts_x and not panel.log_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))


def _formatter() -> Any:
    """Return a formatter of ticks that writes powers of ten as ``×10⁵``.

    Matplotlib's own way would have every label parsed as a formula, which takes longer than drawing it.
    """
    from matplotlib.ticker import ScalarFormatter

    class Powers(ScalarFormatter):
        def get_offset(self) -> str:
            return re.sub(
                "1e([\u2212-]?[0-9]+)", lambda found: f"\u00d710{found[1].translate(RAISED)}", super().get_offset()
            )

    made = Powers()
    made.set_powerlimits((-3, 5))
    return made


def _draw_phases(axes: Axes, panel: Panel) -> dict[str, Any]:
    left, right = axes.get_xlim()
    handles = {}
    for phase in panel.phases:
        handles[phase.label] = axes.axvspan(
            max(left, phase.first), min(right, phase.last), color=phase.colour, alpha=0.16, linewidth=0, zorder=0.4
        )
    axes.set_xlim(left, right)
    return handles


def _draw_events(axes: Axes, events: Sequence[Event]) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    left, right = axes.get_xlim()
    for event in events:
        lowered = _lowered(event.places, NEAR * (right - left))
        for i, place in enumerate(event.places):
            handles[event.label] = axes.axvline(
                place, color=event.colour, linestyle=event.dashes, linewidth=1.1, zorder=1.5
            )
            if event.numbers:
                axes.annotate(
                    str(event.numbers[i]),
                    (place, 1.0),
                    xycoords=("data", "axes fraction"),
                    xytext=(2, -1 - 8 * lowered[i]),
                    textcoords="offset points",
                    va="top",
                    fontsize=7.5,
                    color=event.colour,
                )
    return handles


def _lowered(places: Sequence[float], near: float) -> list[int]:
    """Return how many lines each number is set lower, so that those of neighbours do not lie on each other."""
    rows: list[int] = []
    for i, place in enumerate(places):
        taken = {rows[j] for j in range(i) if abs(places[j] - place) < near}
        rows.append(next(row for row in range(len(places)) if row not in taken))
    return rows


def _draw_top(axes: Axes, panel: Panel) -> None:
    """Draw the second x axis; its ticks lie where the caller counted them to lie, so it follows no formula."""
    left, right = axes.get_xlim()
    other = axes.twiny()
    other.set_xscale(axes.get_xscale())
    other.set_xlim(left, right)
    ticks = [(place, name) for place, name in panel.top if left <= place <= right]
    other.set_xticks([place for place, _ in ticks], [name for _, name in ticks], fontsize=7.5)
    other.minorticks_off()
    other.set_xlabel(sign(panel.top_label), fontsize=8.5)
    other.tick_params(length=2.5)
    other.spines["right"].set_visible(False)


def _draw_either(axes: Axes, line: Line | Curve, log_y: bool) -> Any:
    return _draw_curve(axes, line, log_y) if isinstance(line, Curve) else _draw_line(axes, line)


def _draw_right(axes: Axes, panel: Panel, line: Line | Curve, *, named: bool) -> dict[str, Any]:
    """Draw the line of the right axis, and give the text of both axes the colours of their lines."""
    other = axes.twinx()
    drawn = _draw_either(other, line, False)
    other.set_ylabel(sign(panel.right_label), fontsize=9.5, color=line.colour)
    other.tick_params(axis="y", labelsize=8.5, labelcolor=line.colour, color=line.colour)
    other.spines["top"].set_visible(False)
    other.spines["right"].set_color(line.colour)
    other.yaxis.set_major_formatter(_formatter())
    _leave_room(other, [line])
    if panel.lines:
        left = panel.lines[0].colour
        axes.yaxis.label.set_color(left)
        axes.tick_params(axis="y", labelcolor=left, color=left)
        axes.spines["left"].set_color(left)
    return {line.label: drawn} if named else {}


def _draw_line(axes: Axes, line: Line) -> Any:
    """Draw a line with its markers, and the points behind it."""
    shade = line.raw_colour or line.colour
    if line.band is not None:
        axes.fill_between(*line.band, color=shade, alpha=0.45 if line.raw_colour else 0.25, linewidth=0)
    if line.raw_x:
        axes.plot(
            line.raw_x,
            line.raw_y,
            linestyle="",
            marker="o" if line.raw_colour else line.marker or "o",
            color=shade,
            alpha=0.55 if line.raw_colour else 0.28,
            markersize=3.0 if line.raw_colour else 2.6,
            markeredgewidth=0,
        )
    return axes.plot(
        line.x,
        line.y,
        color=line.colour,
        marker=line.marker or None,
        markersize=4.2,
        markevery=max(1, round(len(line.x) / MARKED)) if len(line.x) > 2 * MARKED else 1,
        linewidth=1.6 if line.marker else 2.0,
        solid_joinstyle="round",
    )[0]


def _draw_curve(axes: Axes, curve: Curve, above_zero: bool) -> Any:
    """Draw a curve: its band, its raw values, and the line over both."""

    def kept(values: Sequence[float]) -> list[float]:
        return [v if v > 0 or not above_zero else math.nan for v in values]

    for places, low, high in curve.bands:
        axes.fill_between(places, kept(low), kept(high), color=curve.colour, alpha=0.2, linewidth=0)
    if curve.raw:
        axes.plot(curve.x, kept(curve.raw), color=curve.colour, alpha=0.3, linewidth=0.6)
    if curve.is_recorded:
        return axes.plot(curve.x, kept(curve.y), color=curve.colour, linestyle=DASHES, linewidth=0.9, zorder=1.9)[0]
    apart = max(1, round(len(curve.x) / FEW_MARKED))
    return axes.plot(
        curve.x,
        kept(curve.y),
        color=curve.colour,
        marker=curve.marker,
        markersize=4,
        markeredgecolor="white",
        markeredgewidth=0.4,
        markevery=(apart // 2, apart),
        linewidth=1.6,
        solid_joinstyle="round",
    )[0]


def _leave_room(axes: Axes, lines: Sequence[Line | Curve]) -> None:
    """Give a series that hardly moves an axis on which it looks so, in place of one that magnifies rounding."""
    values = [y for line in lines for y in (*line.y, *(line.raw_y if isinstance(line, Line) else line.raw))]
    values += [y for line in lines if isinstance(line, Line) and line.band for y in (*line.band[1], *line.band[2])]
    low, high = min(values), max(values)
    least = 0.02 * max(abs(low), abs(high))
    if high - low < least:
        middle, half = (low + high) / 2, least or 1.0
        axes.set_ylim(middle - half, middle + half)


def _leave_room_beside(axes: Axes, lines: Sequence[Line | Curve], log_x: bool) -> None:
    places = [x for line in lines for x in line.x]
    if min(places) == max(places) and not log_x:
        axes.set_xlim(min(places) - 1, max(places) + 1)
