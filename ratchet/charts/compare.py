"""Comparing methods over seeds: figure, tables and sentences about many runs, held against recorded references.

Rows of the figure are settings (how stale the data is), curves are methods, seeds are pooled. Called by
``ratchet compare``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.charts.axes import Axis, axis_named
from ratchet.charts.canvas import Curve, Drawing, Panel, write_drawing
from ratchet.charts.curves import Pooled, pooled, spans_decades, values_of, window_of
from ratchet.charts.grouping import Run, Setting, find_runs, grouped, read_runs
from ratchet.charts.labels import styles
from ratchet.charts.reference import Reference, read_references, reference_for
from ratchet.charts.results import HELD_OUT, REWARD, Outcome, held, outcome
from ratchet.charts.tables import aligned, table
from ratchet.charts.verdicts import (
    READING,
    SOURCE,
    Table,
    cautions,
    reference_sentences,
    reference_table,
    results_table,
    sentences,
)
from ratchet.config.read import RECIPES
from ratchet.core.errors import ConfigError, RunError, nearest
from ratchet.core.metric import describe

NAMES: Mapping[str, str] = {
    "reward/mean": "Training Reward",
    "kl/ref": "KL Divergence",
    "entropy": "Entropy",
    "len/response/mean": "Response Length",
}
"""The panels of the study `stale` (Yao et al. 2025, arXiv 2509.24203) and what its figure calls them."""

RECORDED = "recorded reference"
PANEL_INCHES = (2.95, 2.45)
TITLE_WIDTH, SMALL_TITLE_WIDTH = 28, 40
"""Most characters on one line of a panel's title; one of several lines is set smaller."""
COLUMNS = 4
"""Panels side by side, if all are of one setting."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be compared, and how."""

    paths: Sequence[Path]
    """Run folders, or folders that hold some."""
    metrics: Sequence[str] = ()
    """Panels; none takes those of `NAMES` that were recorded."""
    x: str = "step"
    keys: Sequence[str] = ()
    """Settings that tell methods apart; none takes all that differ."""
    reference: bool = True
    """Whether to hold the runs against recorded references."""
    out: Path | None = None
    """File to write; its ending does not count."""
    recipes: Path = RECIPES
    """Where recorded references are looked for."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs sorted, with what came of them."""

    settings: Sequence[Setting]
    outcomes: Sequence[Sequence[Outcome]]
    """Of each setting's methods."""
    references: Sequence[Reference]
    notes: Sequence[str]
    """Sentences about the input: what was left out, pooled, or looked for in vain."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a comparison left."""

    text: str
    """Tables and sentences for the terminal."""
    files: Sequence[Path]


def compare(asked: Asked) -> Written:
    """Draw and write a comparison, and return what to print.

    Raises `ConfigError` for folders that are no runs, runs without steps, or metrics they do not share.
    """
    axis = axis_named(asked.x)
    folders = find_runs(asked.paths)
    runs, left_out = read_runs(folders)
    metrics = _metrics(runs, asked.metrics)
    settings, notes = grouped(runs, asked.keys)
    references, missing = _references(settings, asked) if asked.reference and not asked.keys else ([], [])
    comparison = Comparison(
        settings, [[outcome(m) for m in s.methods] for s in settings], references, [*left_out, *notes, *missing]
    )
    stem = _stem(asked, folders)
    files = write_drawing(drawing(comparison, metrics, axis), stem)
    page = stem.with_name(f"{stem.name}.md")
    try:
        page.write_text(markdown(comparison, files[0].name), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{page} cannot be written: {error.strerror}.") from error
    return Written(terminal(comparison), [*files, page])


def drawing(comparison: Comparison, metrics: Sequence[str], axis: Axis) -> Drawing:
    """Return the figure: a row per setting, a panel per metric, one legend below."""
    settings = comparison.settings
    algorithms = {m.label: m.algorithm for setting in settings for m in setting.methods}
    look = styles(algorithms)
    panels, smoothing, logs, shrinks, recorded = [], dict[int, list[str]](), [], False, False
    for setting in settings:
        for metric in metrics:
            made = _panel(setting, metric, axis, look, comparison.references)
            panels.append(made.panel)
            where = f"{made.panel.y_label} ({setting.label})" if len(settings) > 1 else made.panel.y_label
            smoothing.setdefault(made.window, []).append(where)
            logs += [where] if made.panel.log_y else []
            shrinks |= made.shrinks
            recorded |= any(isinstance(line, Curve) and line.is_recorded for line in made.panel.lines)
    labels = ", ".join(look)
    studies = sorted({r.study for s in settings for m in s.methods for r in m.runs if r.study})
    title = f"{', '.join(studies) or 'runs'}: {labels}"
    caption = " ".join(
        [
            f"x axis: {axis.label}. Lines: mean over seeds. Bands: 95 % percentile bootstrap of that mean over seeds, "
            "whole seeds resampled; with 2 or 3 seeds that is the span from the lowest to the highest.",
            *_smoothing(smoothing, len(panels)),
            *([f"Logarithmic: {', '.join(logs)}."] if logs else []),
            *(["Where a seed has ended, lines are means of the others."] if shrinks else []),
            *([f"Thin dashes: {RECORDED}, mean over its seeds."] if recorded else []),
            *(f"{s.label}: {' '.join(sentences(s, o))}" for s, o in zip(settings, comparison.outcomes, strict=True)),
            *cautions([o for outcomes in comparison.outcomes for o in outcomes]),
        ]
    )
    columns = len(metrics) if len(settings) > 1 else min(COLUMNS, len(metrics))
    return Drawing(title, caption, panels, columns=columns, show_legend=True, panel_inches=PANEL_INCHES)


def terminal(comparison: Comparison) -> str:
    """Return tables and sentences as plain text."""
    return "\n\n".join(
        f"{part.title}\n{aligned(part.head, part.body)}" if isinstance(part, Table) else part
        for part in _parts(comparison)
    )


def markdown(comparison: Comparison, picture: str) -> str:
    """Return the comparison as Markdown, the figure on top."""
    parts = ["# Comparison", f"![Curves of all methods]({picture})"]
    for part in _parts(comparison):
        parts += [f"## {part.title}", table(part.head, part.body)] if isinstance(part, Table) else [part]
    return "\n\n".join(parts) + "\n"


def _parts(comparison: Comparison) -> Iterator[Table | str]:
    """Yield tables and paragraphs in reading order."""
    for setting, outcomes in zip(comparison.settings, comparison.outcomes, strict=True):
        yield results_table(setting, outcomes)
        if said := sentences(setting, outcomes):
            yield "\n".join(f"- {s}" for s in said)
        if found := held(setting, comparison.references):
            yield reference_table(setting, found)
            if left := reference_sentences(found):
                yield "\n".join(f"- {s}" for s in left)
    if careful := cautions([o for outcomes in comparison.outcomes for o in outcomes]):
        yield "\n".join(f"- {s}" for s in careful)
    yield READING
    if any(held(setting, comparison.references) for setting in comparison.settings):
        yield (
            "Against the reference: rewards are interquartile means over seeds of the last five steps that both have. "
            "Within: no farther below the lowest or above the highest recorded seed than these two lie apart, or than "
            "three standard errors of such a mean if that is more. Behind length and KL: the difference."
        )
    yield SOURCE
    if comparison.notes:
        yield "\n".join(f"- {note}" for note in comparison.notes)


@dataclass(frozen=True, slots=True)
class _Made:
    """A panel, and what the caption has to say of it."""

    panel: Panel
    window: int
    """Steps its lines are smoothed over."""
    shrinks: bool
    """Whether some seeds of a line end before others."""


def _panel(
    setting: Setting, metric: str, axis: Axis, look: Mapping[str, tuple[str, str]], references: Sequence[Reference]
) -> _Made:
    name = NAMES.get(metric, metric)
    if metric == REWARD and setting.is_offline and any(o.held_out for o in map(outcome, setting.methods)):
        metric, name = HELD_OUT, "Held-out Reward"
    window = window_of([m.runs for m in setting.methods], metric)
    lines: list[Curve] = []
    found: list[Pooled] = []
    drawn: list[Sequence[float]] = []
    for method in setting.methods:
        colour, marker = look[method.label]
        reference = reference_for(method, references)
        recorded = pooled(reference.runs, metric, axis, window) if reference is not None else None
        if recorded is not None and max(recorded.x) > 0:  # of a cost that was not recorded the axis is all 0
            drawn.append(recorded.smooth)
            lines.append(Curve(RECORDED, recorded.x, recorded.smooth, colour, is_recorded=True))
        ours = pooled(method.runs, metric, axis, window)
        if ours is not None:
            found.append(ours)
            drawn.append(ours.smooth)
            raw = ours.raw if window > 1 else []
            lines.append(Curve(method.label, ours.x, ours.smooth, colour, marker, raw, ours.bands))
    lines.sort(key=lambda line: line.is_recorded)  # the legend names it last
    entry = describe(metric)
    unit = f" ({entry.unit})" if entry is not None and entry.unit in ("tokens", "nats") and metric not in NAMES else ""
    panel = Panel(
        title=_lines(setting.label),
        x_label=axis.label,
        y_label=name + unit,
        lines=lines,
        empty=f"{metric} was not recorded.",
        counts_x=axis.label == "Step",
        log_y=metric == "kl/ref" and spans_decades(drawn),
    )
    return _Made(panel, window, shrinks=any(len(set(p.counts)) > 1 for p in found))


def _lines(label: str) -> str:
    """Return a setting as a title: what is too long for one line is broken at its commas."""
    if len(label) <= TITLE_WIDTH:
        return label
    lines = [""]
    for part in label.split(", "):
        if lines[-1] and len(lines[-1]) + len(part) + 2 <= SMALL_TITLE_WIDTH:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return ",\n".join(lines[1:])


def _smoothing(windows: Mapping[int, Sequence[str]], number: int) -> Iterator[str]:
    """Say over how many steps lines are smoothed, panel by panel unless it is the same everywhere."""
    for window, where in sorted(windows.items()):
        if window > 1:
            panels = "" if len(where) == number else f" of {', '.join(where)}"
            yield f"Lines{panels} are centred means of {window} steps; faint: single steps."


def _metrics(runs: Sequence[Run], asked: Sequence[str]) -> list[str]:
    """Return the panels' metrics. Raises `ConfigError` for one that no run has, or if no run shares any."""
    for metric in asked:
        if not any(values_of(run, metric) for run in runs):
            known = {k for run in runs for row in run.rows for k, v in row.items() if isinstance(v, int | float)}
            raise ConfigError(f'No run here has a metric "{metric}".{nearest(metric, known - {"step"})}')
    found = [m for m in asked or NAMES if any(values_of(run, m) for run in runs)]
    if not any(all(values_of(run, m) for run in runs) for m in found):
        raise ConfigError(
            f"These runs share none of the metrics {', '.join(asked or NAMES)}, so they cannot be compared by them. "
            "Name one that all of them recorded with --metric."
        )
    return found


def _references(settings: Sequence[Setting], asked: Asked) -> tuple[list[Reference], list[str]]:
    """Return the recorded references of the runs' studies, and a sentence about methods that have none."""
    studies = dict.fromkeys(m.runs[0].study for s in settings for m in s.methods)
    references = [r for study in studies for r in read_references(asked.recipes, study)]
    without = [f"{m.label} ({s.label})" for s in settings for m in s.methods if reference_for(m, references) is None]
    if not references or not without:
        return references, []
    return references, [
        f"No recorded reference has the algorithm, staleness and environment of {', '.join(without)}. "
        f"Recorded are: {', '.join(dict.fromkeys(r.label for r in references))}."
    ]


def _stem(asked: Asked, folders: Sequence[Path]) -> Path:
    """Return where the files go: as asked, or ``compare`` in the folder that holds all runs."""
    if asked.out is not None:
        known = asked.out.suffix in (".png", ".svg", ".txt", ".md")
        return asked.out.with_suffix("") if known else asked.out
    if len(folders) == 1:
        return folders[0] / "figures" / "compare"
    common = Path(os.path.commonpath([p.resolve() for p in folders]))
    return (Path() if common == Path(common.anchor) else common) / "compare"
