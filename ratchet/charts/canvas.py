"""How figures look and how they are written: palette, panels, captions. Knows series of numbers, not runs.

Matplotlib is used through its objects (no pyplot, nothing shared between figures) and imported when a figure is drawn,
so that importing this module stays quick. `paint` draws the panels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.charts.text import printable
from ratchet.core.errors import RunError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, RED = "#0072B2", "#C8321F"
"""The pair of the reference figure. They differ in lightness too, so they stay apart without colour."""
LIGHT_BLUE = "#56B4E9"
"""Of raw points under a trend."""
PALETTE = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", LIGHT_BLUE, "#000000")
"""Okabe and Ito's colours, told apart under every common colour blindness; yellow left out, it fades on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""One per colour: series differ in form as well."""

PANEL_INCHES = (3.6, 2.75)
"""Two panels side by side fill a text column of 7.2 inches at the size they are drawn."""
DOTS_PER_INCH = 200
TOP_INCHES = 0.3
"""What a second x axis on top takes."""
DASHES = (0, (4, 2))
"""Of earlier records."""
ROW_GAP, COLUMN_GAP = 0.09, 0.07
"""Inches around panels that stand beside or above each other, so that a label is not taken for its neighbour's."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel, smoothed and thinned already."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    marker: str
    """Empty for none."""
    raw_x: Sequence[float] = ()
    """The values behind the line, drawn as light points."""
    raw_y: Sequence[float] = ()
    raw_colour: str = ""
    """Empty for the line's own, paler."""
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None
    """Where single values are too many: places, and the lowest and highest value about each."""


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
class Phase:
    """A stretch of the x axis with a colour behind it."""

    label: str
    first: float
    last: float
    colour: str


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
    log_x: bool = False
    log_y: bool = False
    """Whether the y axis is logarithmic; values that are not above 0 are left out then."""
    right: Line | Curve | None = None
    """A line on a second y axis, on the right. The text of both axes then has the colour of their lines."""
    right_label: str = ""
    top: Sequence[tuple[float, str]] = ()
    """Ticks of a second x axis on top: places on the x axis, and what they are called."""
    top_label: str = ""
    phases: Sequence[Phase] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at places on the x axis."""

    label: str
    places: Sequence[float]
    colour: str = "#555555"
    dashes: tuple[int, tuple[float, ...]] = (0, (5, 2))
    numbers: Sequence[int] = ()
    """Numbers written above the lines, as the caption has them; empty for none."""


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

    title, caption = printable(title), printable(caption)
    # Not with_suffix: a run may be called "judge-0.5".
    png, svg, text = (stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg", "txt"))
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        # Ids in an SVG are random unless salted, and the salt is read from the settings alone.
        with matplotlib.rc_context({"svg.hashsalt": "ratchet"}), warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes; the caption has it in full.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(png, metadata={"Title": title, "Description": caption, "Software": "ratchet"})
            figure.set_layout_engine("none")  # it is laid out; doing it again takes as long as drawing
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

    from ratchet.charts.paint import draw_panel, sign

    columns = min(drawing.columns, len(drawing.panels))
    rows = -(-len(drawing.panels) // columns)
    has_legend = drawing.show_legend or bool(drawing.events) or any(panel.phases for panel in drawing.panels)
    width, height = drawing.panel_inches
    height += TOP_INCHES if any(panel.top for panel in drawing.panels) else 0.0
    size = (width * columns, height * rows + (0.35 if has_legend else 0.0))
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    handles: dict[str, Any] = {}
    for axes, panel in zip(grid.flat, drawing.panels, strict=False):
        handles |= draw_panel(axes, panel, drawing.events, named=drawing.show_legend)
    for axes in list(grid.flat)[len(drawing.panels) :]:
        axes.remove()
    if columns > 1 or rows > 1:
        figure.align_ylabels()
        figure.set_layout_engine("constrained", w_pad=COLUMN_GAP, h_pad=ROW_GAP if rows > 1 else None)
    handles = _recorded_last(handles, drawing.panels)
    if handles:
        figure.legend(
            handles.values(),
            [sign(label) for label in handles],
            loc="outside lower center",
            ncols=_legend_columns(list(handles), width * columns),
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


def _legend_columns(labels: Sequence[str], inches: float) -> int:
    """Return how many entries of a legend fit side by side at its size."""
    widest = max(len(label) for label in labels)
    return max(1, min(6, len(labels), int(inches / (0.068 * widest + 0.5))))


def _described(svg: str, caption: str) -> str:
    """Return an SVG whose title is followed by a description, where screen readers look for it."""
    mark = "</title>"
    assert mark in svg, "the SVG was written with a title"
    return svg.replace(mark, f"{mark}\n <desc>{escape(caption, quote=False)}</desc>", 1)
