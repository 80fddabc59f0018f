"""How figures look and how they are written: palette, panels, captions. Knows series of numbers, not runs.

Matplotlib is used through its objects (no pyplot, nothing shared between figures) and imported when a figure is drawn,
so that importing this module stays quick.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from ratchet.charts.series import smoothed, smoothing_window
from ratchet.core.errors import RunError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED = "#0072B2", "#C8321F"
"""The pair of the reference figure. They differ in lightness too, so they stay apart without colour."""
PALETTE = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart under every common colour blindness; yellow left out, it fades on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""One per colour: series differ in form as well."""
EVENT_STYLES = (("#555555", (0, (5, 2))), ("#7A5195", (0, (1, 1.5))))
"""Colour and dashes of event lines, by the order of their kinds."""

PANEL_INCHES = (3.6, 2.75)
"""Two panels side by side fill a text column of 7.2 inches at the size they are drawn."""
DOTS_PER_INCH = 200
MARKED = 15
"""About how many markers a long line carries."""
DASHES = (0, (4, 2))
"""Of earlier records."""
ROW_GAP, COLUMN_GAP = 0.09, 0.07
"""Inches around panels of curves, more than otherwise: rows are settings, and there may be four columns."""
FEW_MARKED = 8
"""About how many a curve carries, which shares its panel with others and their bands."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    marker: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line that was averaged already: over runs, and over steps if it was noisy. Drawn as it is, with its band."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    marker: str = ""
    """Empty for none."""
    raw: Sequence[float] = ()
    """The values before smoothing, drawn faintly; as long as `x`, or empty."""
    bands: Sequence[tuple[Sequence[float], Sequence[float], Sequence[float]]] = ()
    """Stretches of the band: places, lower ends, upper ends."""
    is_recorded: bool = False
    """Whether it is an earlier record that the others are held against: thin, dashed, behind them."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line | Curve]
    empty: str = ""
    """What to say in place of lines if there are none."""
    counts_x: bool = False
    """Whether only whole numbers make sense on the x axis."""
    log_y: bool = False
    """Whether the y axis is logarithmic; values that are not above 0 are left out then."""
    right: Line | None = None
    """A line on a second y axis, on the right. The text of both axes then has the colour of their lines."""
    right_label: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at places on the x axis."""

    label: str
    places: Sequence[float]


@dataclass(frozen=True, slots=True)
class Drawing:
    """A whole figure, ready to be written."""

    title: str
    caption: str
    panels: Sequence[Panel]
    events: Sequence[Event] = ()
    columns: int = 2
    show_legend: bool = False
    """Whether lines are named below the panels; one line per panel is named by its title."""
    panel_inches: tuple[float, float] = PANEL_INCHES


def write_drawing(drawing: Drawing, stem: Path) -> list[Path]:
    """Draw, and write `stem` with .png, .svg and .txt; see `write_figure`."""
    return write_figure(make_figure(drawing), drawing.title, drawing.caption, stem)


def write_figure(figure: Figure, title: str, caption: str, stem: Path) -> list[Path]:
    """Write `stem` with .png, .svg and .txt (the caption, as alt text); return the two pictures.

    The same figure gives the same bytes. Raises `RunError` if they cannot be written.
    """
    import matplotlib

    # Not with_suffix: a run may be called "judge-0.5".
    png, svg, text = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg", "txt"))
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(png, metadata={"Title": title, "Description": caption, "Software": "ratchet"})
        # Ids in an SVG are random unless salted, and the salt is read from the settings alone.
        with matplotlib.rc_context({"svg.hashsalt": "ratchet"}):
            figure.savefig(svg, metadata={"Title": title, "Date": None, "Creator": "ratchet"})
        svg.write_text(_described(svg.read_text(encoding="utf-8"), caption), encoding="utf-8")
        text.write_text(f"{title}\n\n{caption}\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"The figure {png} cannot be written: {error.strerror}.") from error
    return [png, svg]


def make_figure(drawing: Drawing) -> Figure:
    """Return the figure of a drawing on a canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(drawing.columns, len(drawing.panels))
    rows = -(-len(drawing.panels) // columns)
    has_legend = drawing.show_legend or bool(drawing.events)
    width, height = drawing.panel_inches
    size = (width * columns, height * rows + (0.35 if has_legend else 0.0))
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, drawing.panels, strict=False):
        handles |= _draw_panel(axes, panel, drawing.events, named=drawing.show_legend)
    for axes in list(grid.flat)[len(drawing.panels) :]:
        axes.remove()
    if any(isinstance(line, Curve) for panel in drawing.panels for line in panel.lines):
        figure.align_ylabels()
        figure.set_layout_engine("constrained", w_pad=COLUMN_GAP, h_pad=ROW_GAP if rows > 1 else None)
    handles = _recorded_last(handles, drawing.panels)
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc="outside lower center",
            ncols=min(4 if columns < 4 else 6, len(handles)),
            frameon=False,
            fontsize=8.5,
        )
    return figure


def _recorded_last(handles: dict[str, Any], panels: Sequence[Panel]) -> dict[str, Any]:
    """Return a legend whose last entries stand for earlier records of all colours."""
    from matplotlib.lines import Line2D

    curves = [line for panel in panels for line in panel.lines if isinstance(line, Curve)]
    recorded = dict.fromkeys(curve.label for curve in curves if curve.is_recorded)
    proxies = {k: Line2D([], [], color="#333333", linestyle=DASHES, linewidth=0.9) for k in recorded if k in handles}
    return {k: v for k, v in handles.items() if k not in proxies} | proxies


def _draw_panel(axes: Axes, panel: Panel, events: Sequence[Event], *, named: bool) -> dict[str, Any]:
    """Draw one panel; return what belongs into the legend by label."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(panel.title, fontsize=8.5 if "\n" in panel.title else 11)
    axes.set_xlabel(panel.x_label, fontsize=9.5)
    axes.set_ylabel(panel.y_label, fontsize=9.5)
    axes.tick_params(labelsize=8.5)
    axes.grid(visible=True, color="#D0D0D0", linestyle="--", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if not panel.lines:
        axes.text(0.5, 0.5, panel.empty, ha="center", va="center", wrap=True, fontsize=9, transform=axes.transAxes)
        axes.set_xticks([])
        axes.set_yticks([])
        return {}
    handles: dict[str, Any] = {}
    for line in panel.lines:
        drawn = _draw_curve(axes, line, panel.log_y) if isinstance(line, Curve) else _draw_line(axes, line)
        if named:
            handles[line.label] = drawn
    if panel.right is not None:
        handles |= _draw_right(axes, panel, panel.right, named=named)
    for event, (colour, dashes) in zip(events, EVENT_STYLES, strict=False):
        for place in event.places:
            handles[event.label] = axes.axvline(place, color=colour, linestyle=dashes, linewidth=1.1, zorder=1.5)
    if panel.log_y:
        axes.set_yscale("log")
    else:
        _leave_room(axes, panel.lines)
    axes.ticklabel_format(axis="x" if panel.log_y else "both", style="sci", scilimits=(-3, 5), useMathText=True)
    if panel.counts_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True))
    return handles


def _draw_right(axes: Axes, panel: Panel, line: Line, *, named: bool) -> dict[str, Any]:
    """Draw the line of the right axis, and give the text of both axes the colours of their lines."""
    other = axes.twinx()
    drawn = _draw_line(other, line)
    other.set_ylabel(panel.right_label, fontsize=9.5, color=line.colour)
    other.tick_params(axis="y", labelsize=8.5, labelcolor=line.colour, color=line.colour)
    other.spines["top"].set_visible(False)
    other.spines["right"].set_color(line.colour)
    _leave_room(other, [line])
    left = panel.lines[0].colour
    axes.yaxis.label.set_color(left)
    axes.tick_params(axis="y", labelcolor=left, color=left)
    axes.spines["left"].set_color(left)
    return {line.label: drawn} if named else {}


def _draw_line(axes: Axes, line: Line) -> Any:
    """Draw a line with its markers; a long noisy one as light points under its moving mean."""
    window = smoothing_window(line.y)
    shown = line.y
    if window > 1:
        axes.plot(line.x, line.y, line.marker, color=line.colour, alpha=0.28, markersize=2.6, markeredgewidth=0)
        shown = smoothed(line.y, window)
    return axes.plot(
        line.x,
        shown,
        color=line.colour,
        marker=line.marker,
        markersize=4.2,
        markevery=max(1, round(len(line.x) / MARKED)) if len(line.x) > 2 * MARKED else 1,
        linewidth=1.6,
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
    values = [y for line in lines for y in line.y]
    low, high = min(values), max(values)
    least = 0.02 * max(abs(low), abs(high))
    if high - low < least:
        middle, half = (low + high) / 2, least or 1.0
        axes.set_ylim(middle - half, middle + half)
    places = [x for line in lines for x in line.x]
    if min(places) == max(places):
        axes.set_xlim(min(places) - 1, max(places) + 1)


def _described(svg: str, caption: str) -> str:
    """Return an SVG whose title is followed by a description, where screen readers look for it."""
    mark = "</title>"
    assert mark in svg, "the SVG was written with a title"
    return svg.replace(mark, f"{mark}\n <desc>{escape(caption)}</desc>", 1)
