"""What the page of one run needs: who it is, its figure, its metrics in groups with the dictionary, its events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ratchet.board.curve import Curve, caption, numbers, plain, smooth, thin
from ratchet.board.foreign import ForeignLog
from ratchet.board.library import Record
from ratchet.board.listing import shown, study_name
from ratchet.board.run import OwnRun, axis_label
from ratchet.charts.presets import JUDGE, PRESETS, PanelPlan, Preset, Stripe
from ratchet.core.errors import ConfigError, nearest
from ratchet.core.metric import METRICS, SECTIONS, Metric
from ratchet.logs.names import STAND_INS, describe

OTHERS = "Others"
MOST_POINTS = 5000
MOST_SERIES = 64
"""A page asks in portions; nobody asks for more at once."""
WINDOWS = ("auto", "off")


def details(record: Record) -> dict[str, Any]:
    """Return all but the numbers of the curves."""
    names = record.names()
    own = isinstance(record, OwnRun)
    return {
        "axes": [{"name": axis, "label": axis_label(axis)} for axis in record.axes()],
        "figure": figure(record, set(names)),
        "figure_x": preset_of(record).x,
        "sections": sections(record, names),
        "events": plain(list(record.events)) if isinstance(record, OwnRun) else [],
        "settings": {k: shown(v) for k, v in sorted(record.settings.items())} if isinstance(record, OwnRun) else {},
        "plan": plain(dict(record.document("plan.json"))) if isinstance(record, OwnRun) else {},
        "environment": plain(dict(record.document("environment.json"))) if isinstance(record, OwnRun) else {},
        "checkpoints": record.checkpoints() if isinstance(record, OwnRun) else [],
        "notes": [] if own else _notes(record),
        "unreadable": record.num_unreadable if isinstance(record, OwnRun) else 0,
    }


def figure(record: Record, names: set[str]) -> list[dict[str, Any]]:
    """Return the panels of the study's own figure; a metric that is not there gives way to what may stand in for it."""
    return [_panel(plan, names) for plan in preset_of(record).panels]


def preset_of(record: Record) -> Preset:
    """Return the figure of a run's study; of a log, and of a study that has none, that of `judge`."""
    return PRESETS.get(study_name(record) if isinstance(record, OwnRun) else "", JUDGE)


def _panel(plan: PanelPlan, names: set[str]) -> dict[str, Any]:
    right = _stripe(plan.right, names) if plan.right is not None else None
    return {**_stripe(plan.left, names), "x_label": plan.x_label, "right": right}


def _stripe(stripe: Stripe, names: set[str]) -> dict[str, Any]:
    """Return what is drawn on one y axis: the first choice that was recorded, or what may stand in for the first."""
    first = stripe.choices[0]
    choice = next((c for c in stripe.choices if c.metric in names), first)
    metric = next((n for n in (choice.metric, *STAND_INS.get(choice.metric, ())) if n in names), choice.metric)
    return {
        "metric": metric,
        "asked": first.metric,
        "title": choice.shown_title,
        "label": choice.y_label or metric,
        "colour": stripe.colour,
        "factor": choice.factor,
    }


def sections(record: Record, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the metrics under the headings of the dictionary, in its order; what it does not know comes last."""
    place = {m.pattern: (title, i) for i, (title, m) in enumerate((t, m) for t, ms in SECTIONS.items() for m in ms)}
    found: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}
    for name in names:
        entry = describe(name)
        title, order = _place(name, entry, place)
        found.setdefault(title, []).append((order, name, _metric(record, name, entry)))
    titles = [*SECTIONS, OTHERS]
    return [
        {"title": title, "metrics": [metric for _, _, metric in sorted(found[title], key=lambda m: m[:2])]}
        for title in titles
        if title in found
    ]


def _place(name: str, entry: Metric | None, place: Mapping[str, tuple[str, int]]) -> tuple[str, int]:
    """Return under which heading a metric stands, and where; foreign names stand with their family."""
    if entry is not None and entry.pattern in place:
        return place[entry.pattern]
    if entry is not None:
        family = name.partition("/")[0]
        for metric in METRICS:
            if metric.pattern.partition("/")[0] == family:
                return place[metric.pattern][0], len(METRICS)
    return OTHERS, 0


def _metric(record: Record, name: str, entry: Metric | None) -> dict[str, Any]:
    series = record.log.get(name) if isinstance(record, ForeignLog) and record.log is not None else None
    told = (
        {
            "meaning": entry.meaning,
            "formula": entry.formula,
            "unit": entry.unit,
            "normal": entry.normal,
            "zero": entry.zero,
            "better": entry.better.value,
        }
        if entry is not None
        else {}
    )
    if series is not None:
        told |= {"key": series.key, **({"meaning": series.meaning} if series.meaning else {})}
    values = record.curve(name).values
    return {"name": name, "last": numbers(values[-1:])[0] if len(values) else None, "points": len(values), **told}


def _notes(log: Record) -> list[str]:
    if not isinstance(log, ForeignLog) or log.log is None:
        return []
    read = log.log
    return [
        f"Read as {read.format.name}: {read.format.evidence}.",
        f"Written by {log.title}{'' if read.framework.sure else ', not surely'}: {read.framework.evidence}.",
        f"A step is: {read.axis.value}.",
        *(note.text for note in read.notes),
    ]


def series(
    record: Record,
    names: Sequence[str],
    *,
    axis: str = "step",
    points: int = 1200,
    window: str = "auto",
    low: float | None = None,
    high: float | None = None,
) -> list[dict[str, Any]]:
    """Return curves as they are drawn: x, y, and the smoothed y where `window` asks for one.

    `low` and `high` bound the axis: within them the curve is thinned anew, so that zooming shows more.
    Raises `ConfigError` for what cannot be asked for.
    """
    if axis not in record.axes():
        raise ConfigError(f'This run has no x axis "{axis}".{nearest(axis, record.axes())}')
    if len(names) > MOST_SERIES or not 2 <= points <= MOST_POINTS:
        raise ConfigError(f"At most {MOST_SERIES} series of 2 to {MOST_POINTS} points are sent at once.")
    return [_drawn(record, name, axis, points, window, low, high) for name in names]


def _drawn(
    record: Record, name: str, axis: str, points: int, window: str, low: float | None, high: float | None
) -> dict[str, Any]:
    curve = record.curve(name)
    x, y = record.places(axis, curve.steps, evaluation=name.startswith("eval/")), curve.values
    width = window_of(window, curve)
    mean = smooth(y, width)
    entry = describe(name)
    if len(x) and (low is not None or high is not None):
        # One point more on either side, so that the line goes on to the edge.
        first = max(0, int(x.searchsorted(low if low is not None else x[0])) - 1)
        last = int(x.searchsorted(high if high is not None else x[-1], side="right")) + 1
        x, y, mean = x[first:last], y[first:last], mean[first:last]
    tx, ty = thin(x, y, points)
    sx, sy = thin(x, mean, points) if width > 1 else (x[:0], y[:0])
    return {
        "name": name,
        "x": numbers(tx),
        "y": numbers(ty),
        "sx": numbers(sx),
        "sy": numbers(sy),
        "window": width,
        "points": len(x),
        "missing": curve.num_missing,
        "caption": caption(curve, name, entry.unit if entry is not None else ""),
    }


def window_of(asked: str, curve: Curve) -> int:
    """Return the odd number of steps to average over. Raises `ConfigError` for what is neither a number nor a word."""
    if asked == "auto":
        return curve.auto_window
    if asked == "off":
        return 1
    if not asked.isdecimal() or not 1 <= int(asked) <= 100_001:
        raise ConfigError(f'"{asked}" is no smoothing. It is auto, off, or a number of steps.')
    return int(asked) | 1
