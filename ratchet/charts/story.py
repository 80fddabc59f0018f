"""What a run's series say, one by one: results, trends, values at round steps. Sentences are computed, none canned.

Every sentence names its metric and the steps it is about. A move that noise can explain is called noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ratchet.charts.analysis import FLAT, LEAST, Band, Stretch, change, lost, phases, round_values, slope
from ratchet.charts.document import Grid, Items, Section, Text, code, plain
from ratchet.charts.series import CLEAR, END_STEPS, ROUNDING, Move, Series, move
from ratchet.charts.source import Source
from ratchet.charts.text import number, quantity, relative_change
from ratchet.core.metric import Better
from ratchet.logs.names import STAND_INS, describe

RESULTS = (
    "reward/mean",
    "reward/parts/*",
    "len/response/mean",
    "len/truncated_frac",
    "entropy",
    "kl/ref",
    "kl/old",
    "kl/sampler",
    "clip/frac",
    "signal/zero_groups_frac",
    "opt/grad_norm",
)
"""Metrics of the results table, in order; a family stands for all its members."""
ALSO = (
    "eval/*/reward_mean",
    "eval/*/pass@1",
    "eval/*/part_*",
    "env/parallelism",
    "opt/lr",
    "loss/policy",
    "stale/mean",
)
"""Described in detail beside them, where they were recorded."""
MOST_DETAILED = 18
"""Series described in detail; the others are named."""
MOST_STRETCHES = 5


def series_named(source: Source, patterns: Sequence[str]) -> list[Series]:
    """Return the series of some names that a source has, each once; a family gives all its members."""
    names, found = source.names, dict[str, Series]()
    for pattern in patterns:
        head, star, tail = pattern.partition("*")
        wanted = [n for n in names if n.startswith(head) and n.endswith(tail)] if star else [pattern]
        for name in wanted:
            series = source.nearest(name) if name in STAND_INS else source.get(name)
            if series is not None:
                found.setdefault(series.name, series)
    return list(found.values())


def results(source: Source) -> list[Text | Grid | Items]:
    """Return the table of metrics and what it says about the end of the run."""
    moves = [(s, move(s)) for s in series_named(source, RESULTS) if s.values]
    if not moves:
        return [Text("No step is recorded." if source.span is None else "None of the usual metrics is recorded.")]
    n = moves[0][1].num_steps
    first, last = moves[0][0].steps[:n], moves[0][0].steps[-n:]
    if all(s.steps[0] == first[0] and s.steps[-1] == last[-1] and m.num_steps == n for s, m in moves):
        head = ("metric", f"start ({span(first)})", f"end ({span(last)})", "change", "best, or range")
    else:
        head = ("metric", "start", "end", "change", "best, or range")
    body = [
        (code(s.name), valued(s.name, m.start), valued(s.name, m.end), verdict(s.name, m), best(s.name, m))
        for s, m in moves
    ]
    rule = (
        f"Start and end are means of {n} step{'' if n == 1 else 's'}. A change is clear when it exceeds {CLEAR:g} "
        "standard errors, estimated from the differences between neighbouring steps."
    )
    notes = [
        f"{code(s.name)} is 0 throughout, up to rounding ({entry.zero})."
        for s, _ in moves
        if max(map(abs, s.values)) < ROUNDING and (entry := describe(s.name)) is not None and entry.zero
    ]
    said = [*fallen(moves), *notes]
    return [Grid(head, body), Text(rule), *([Items(said)] if said else [])]


def fallen(moves: Sequence[tuple[Series, Move]]) -> list[str]:
    """Name rewards that end clearly below the best they held for some steps: a late collapse, or a plateau overrun."""
    said = []
    for series, m in moves:
        gone = lost(series) if series.name.startswith("reward/") else None
        if gone is not None:
            at = series.steps.index(gone.first)
            said.append(
                f"**{code(series.name)} fell back**: {number(gone.start)} over "
                f"{span(series.steps[at : at + m.num_steps])}, {number(gone.end)} at the end "
                f"({number(gone.end - gone.start)})."
            )
    return said


def details(source: Source) -> list[Section]:
    """Return a section for each series: what it is, how it went, and its values at round steps."""
    found = series_named(source, (*RESULTS, *ALSO))
    shown = found[:MOST_DETAILED]
    sections = [Section(s.name, _detail(source, s)) for s in shown]
    others = sorted(set(source.names) - {s.name for s in shown})
    if others:
        told = ", ".join(code(name) for name in others[:60]) + (", ..." if len(others) > 60 else "")
        sections.append(Section("Not described", [Text(f"{len(others)} more series are recorded: {told}.")]))
    return sections


def _detail(source: Source, series: Series) -> list[Text | Grid | Items]:
    entry = describe(series.name)
    meaning = [entry.meaning] if entry is not None else []
    told = source.meaning(series.name)
    meaning += [f"In this log: {code(told)}."] if told else []
    if not series.values:
        return [Text(" ".join([*map(plain, meaning), f"None of its {series.num_missing} values is finite."]))]
    parts: list[Text | Grid | Items] = [Text(" ".join([*(plain(m) if "`" not in m else m for m in meaning)]))]
    parts = [p for p in parts if isinstance(p, Text) and p.text]
    parts.append(Text(trend_sentence(series)))
    if len(series.values) > 1:
        rows = round_values(series)
        noise = rows[0][2]
        head = ("step", *(f"{step:,}" for step, _, _ in rows))
        parts.append(Grid(head, [("about", *(valued(series.name, value) for _, value, _ in rows))]))
        if len(series.values) > 2 * END_STEPS:
            parts.append(
                Text(f"Means of up to five steps around each; a single step scatters by {valued(series.name, noise)}.")
            )
    if series.num_missing:
        parts.append(Text(f"{series.num_missing} recorded steps have no finite value of it."))
    return parts


def trend_sentence(series: Series) -> str:
    """Return how a series went: its change with a band, its phases, its slope; noise is called noise."""
    name, m = code(series.name), move(series)
    if len(series.values) == 1:
        return f"{name} has one value: {valued(series.name, m.start)} at step {series.steps[0]}."
    ends = (
        f"{name} goes from {valued(series.name, m.start)} ({span(series.steps[: m.num_steps])}) to "
        f"{valued(series.name, m.end)} ({span(series.steps[-m.num_steps :])})"
    )
    if m.highest[1] == m.lowest[1]:
        return f"{name} is {valued(series.name, m.start)} throughout ({span(series.steps)})."
    if max(map(abs, series.values)) < ROUNDING:
        return f"{name} is 0 throughout, up to rounding ({span(series.steps)})."
    band = change(series)
    if band is None:
        return f"{ends}; {len(series.values)} values are too few to tell a change from noise (least: {LEAST})."
    said = f"{ends}, change {_banded(series.name, band)}"
    said += "." if band.is_clear and m.is_clear else ": **inside the noise**, so no change from start to end is shown."
    stretches = [s for s in phases(series) if s.direction != FLAT]
    if stretches:
        told = "; ".join(_stretch(series.name, s) for s in stretches[:MOST_STRETCHES])
        more = f"; and {len(stretches) - MOST_STRETCHES} more" if len(stretches) > MOST_STRETCHES else ""
        said += f" It is {told}{more}; flat otherwise." if len(phases(series)) > 1 else f" It is {told}."
    elif len(phases(series)) > 1 and band.is_clear and m.is_clear:
        said += " The move is spread over the run: no part of it alone stands out of the noise."
    if (found := slope(series)) is not None and found.is_clear:
        said += (
            f" Median slope (Theil-Sen): {number(found.value)} a step "
            f"({number(found.low)} to {number(found.high)}, {span(series.steps)})."
        )
    return said


def _stretch(name: str, s: Stretch) -> str:
    return f"{s.direction} over steps {s.first} to {s.last} ({valued(name, s.start)} to {valued(name, s.end)})"


def _banded(name: str, band: Band) -> str:
    return f"{signed(name, band.value)} (three standard errors: {signed(name, band.low)} to {signed(name, band.high)})"


def signed(name: str, value: float) -> str:
    """Return a difference with its sign; shares move by percentage points."""
    entry = describe(name)
    if entry is not None and entry.unit == "share":
        return f"{100 * value:+.1f} points"
    return f"{'+' if value > 0 else ''}{number(value)}"


def valued(name: str, value: float) -> str:
    """Return a value with the unit of its metric."""
    entry = describe(name)
    return quantity(value, entry.unit if entry is not None else "")


def verdict(name: str, m: Move) -> str:
    """Return a move in words; shares move by percentage points."""
    if math.isnan(m.standard_error):
        return "too few steps to say"
    if not m.is_clear:
        return "no clear change"
    word, by_how_much = "up" if m.difference > 0 else "down", abs(m.difference)
    entry = describe(name)
    if entry is not None and entry.unit == "share":
        return f"{word} {100 * by_how_much:.1f} points"
    return f"{word} {number(by_how_much)}" + (f" ({relative_change(m.relative)})" if m.relative is not None else "")


def best(name: str, m: Move) -> str:
    """Return the best value with its step; for a metric that is no goal, both extremes."""
    entry = describe(name)
    better = entry.better if entry is not None else Better.NEITHER
    high, low = (f"{valued(name, value)} (step {step})" for step, value in (m.highest, m.lowest))
    if m.highest[1] == m.lowest[1]:
        return "constant"
    if better is Better.NEITHER:
        return f"lowest {low}, highest {high}"
    return high if better is Better.HIGHER else low


def span(steps: Sequence[int]) -> str:
    """Return steps in words."""
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
