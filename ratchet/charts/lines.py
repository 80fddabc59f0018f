"""One line of a panel, of one run or of several seeds, and the sentence that tells its numbers. Draws nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ratchet.charts.axes import Axis
from ratchet.charts.canvas import Curve, Line
from ratchet.charts.curves import Pooled, pool
from ratchet.charts.presets import Choice, Stripe
from ratchet.charts.series import Series, move, smoothing_window
from ratchet.charts.source import Source
from ratchet.charts.statistics import mean_curve
from ratchet.charts.strokes import MOST_POINTS, stroke, trend
from ratchet.charts.text import number, relative_change
from ratchet.core.metric import describe

MOST_BANDED = 500
"""Steps of a band; more are thinned first, since each is a bootstrap of its own."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A line, or why there is none."""

    line: Line | Curve | None
    told: str
    """What it shows, as a sentence."""
    notes: tuple[str, ...]
    """How it was made; many lines share them."""
    name: str
    """The metric that is drawn, which may be a stand-in; empty for none."""
    x_label: str


def groups_of(sources: Sequence[Source]) -> dict[str, dict[str, list[Source]]]:
    """Return setting -> label -> sources, in the order in which they were named."""
    grid: dict[str, dict[str, list[Source]]] = {}
    for source in sources:
        grid.setdefault(source.setting, {}).setdefault(source.label, []).append(source)
    return grid


def single(choice: Choice, stripe: Stripe, source: Source, axis: Axis, who: str, *, logarithmic: bool) -> Drawn:
    """Return the line of one run."""
    places = source.places(axis)
    assert places is not None, "the axis was checked"
    series = source.nearest(choice.metric)
    if series is None:
        absent = f"{choice.metric}{who or ' was not recorded in this run'}{': not recorded' if who else ''}."
        return Drawn(None, absent, (), "", places.label)
    if not series.values:
        empty = f"{series.name}{who} has no finite value in {series.num_missing} steps."
        return Drawn(None, empty, (), "", places.label)
    series = replace(series, values=tuple(choice.factor * v for v in series.values))
    make = stroke if not stripe.raw_colour else trend
    x = source.place(places, series)
    made = make(x, series.values, logarithmic=True) if logarithmic and make is stroke else make(x, series.values)
    told = told_series(_name(choice, series.name) + who, unit_of(series.name, choice), series)
    if not made.x:
        return Drawn(None, " ".join([told, *made.told]), (), "", places.label)
    line = Line(
        source.label,
        made.x,
        made.y,
        stripe.colour,
        stripe.marker,
        made.raw_x,
        made.raw_y,
        stripe.raw_colour,
        made.band,
    )
    return Drawn(line, told, made.told, series.name, places.label)


def several(choice: Choice, stripe: Stripe, group: Sequence[Source], axis: Axis, who: str) -> Drawn:
    """Return the mean of some seeds with the bootstrap band of that mean over seeds."""
    found = [(s, series) for s in group if (series := s.nearest(choice.metric)) is not None and series.values]
    x_label = next(p.label for s in group if (p := s.places(axis)) is not None)
    if not found:
        return Drawn(None, f"{choice.metric}{who}: not recorded.", (), "", x_label)
    raw, at = list[dict[int, float]](), list[Mapping[int, float]]()
    for source, series in found:
        places = source.places(axis)
        assert places is not None, "the axis was checked"
        raw.append(dict(zip(series.steps, (choice.factor * v for v in series.values), strict=True)))
        at.append(dict(zip(series.steps, source.place(places, series), strict=True)))
    mean = mean_curve(raw)
    window = smoothing_window(list(mean.values()))
    every = -(-len(mean) // MOST_BANDED)
    if every > 1:  # whole seeds are averaged over stretches, all over the same ones
        raw, at, window = [_coarse(c, every) for c in raw], [_coarse(p, every) for p in at], 1
    made = pool(raw, at, window)
    assert made is not None, "there are values"
    line = Curve(group[0].label, made.x, made.smooth, stripe.colour, stripe.marker, _raw(made, window), made.bands)
    name = found[0][1].name
    series = Series(name, tuple(mean), tuple(mean.values()), 0)
    told = told_series(f"{_name(choice, name)}{who}, mean of {len(found)} seeds", unit_of(name, choice), series)
    if len(found) < len(group):
        told += f" {len(group) - len(found)} of {len(group)} did not record it."
    return Drawn(line, told, _seed_notes(len(found), window, every), name, x_label)


def told_series(name: str, unit: str, series: Series) -> str:
    """Return what a line shows as a sentence: start, end, change, extremes."""
    if len(series.values) == 1:
        return f"{name}: {_with_unit(series.values[0], unit)} at step {series.steps[0]}, the only one."
    m = move(series)
    relative = f" ({relative_change(m.relative)})" if m.relative is not None else ""
    if m.num_steps == 1:
        averaged = f"steps {series.steps[0]} and {series.steps[-1]}"
    else:
        averaged = f"means of the first and last {m.num_steps} steps"
    verdict = f"{'' if m.is_clear else 'no clear '}change {number(m.difference)}{relative}"
    text = (
        f"{name}: from {_with_unit(m.start, unit)} to {_with_unit(m.end, unit)} ({averaged}), {verdict}; "
        f"highest {number(m.highest[1])} at step {m.highest[0]}, lowest {number(m.lowest[1])} at step {m.lowest[0]}."
    )
    if series.num_missing:
        text += f" {series.num_missing} recorded steps have no value."
    return text


def unit_of(metric: str, choice: Choice | None = None) -> str:
    """Return the unit a caption writes behind a number; a share shown in per cent has none."""
    found = describe(metric)
    return found.unit if found is not None and (choice is None or choice.factor == 1) else ""


def _seed_notes(count: int, window: int, every: int) -> tuple[str, ...]:
    """Say how a mean over seeds and its band were made."""
    notes = []
    if count > 1:
        span = "; with 2 or 3 seeds that is the span from the lowest to the highest" if count < 4 else ""
        notes.append(f"Band: 95 % percentile bootstrap of the mean over whole seeds{span}.")
    if every > 1:
        notes.append(f"Drawn are means over stretches of {every} steps.")
    elif window > 1:
        notes.append(f"Line: centred mean of {window} steps; faint: single steps.")
    return tuple(notes)


def _raw(made: Pooled, window: int) -> list[float]:
    return made.raw if window > 1 and len(made.raw) <= MOST_POINTS else []


def _coarse(values: Mapping[int, float], every: int) -> dict[int, float]:
    """Return means over stretches of `every` steps, counted from step 0, at the middle of each."""
    parts: dict[int, list[float]] = {}
    for step, value in values.items():
        parts.setdefault(step // every * every + every // 2, []).append(value)
    return {step: sum(found) / len(found) for step, found in sorted(parts.items())}


def _name(choice: Choice, drawn: str) -> str:
    """Return what a caption calls a line: the y label without its unit, and the metric where that is another."""
    if choice.metric != drawn:
        return f"{drawn} (in place of {choice.metric})"
    return choice.y_label.partition(" (")[0] or choice.metric


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}" if unit in ("tokens", "nats") else number(value)
