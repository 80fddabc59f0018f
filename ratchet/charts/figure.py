"""Figures of runs: the study's own, and any metrics of any runs over one axis. Reads the store and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.charts.canvas import BLUE, MARKERS, PALETTE, RED, Drawing, Event, Line, Panel, write_drawing
from ratchet.charts.labels import GREEN, ORANGE, PURPLE
from ratchet.charts.series import (
    Axis,
    Series,
    axis_named,
    metric_names,
    metric_series,
    move,
    refreshes,
    resumes,
    smoothing_window,
)
from ratchet.charts.text import number, relative_change
from ratchet.core.errors import ConfigError, nearest
from ratchet.core.metric import describe
from ratchet.store.run_store import Row, RunStore

MOST_EVENTS = 15
"""More lines of one kind than this hide the data; the caption then tells how many there were."""
MOST_PARTS = 4
"""Parts of a reward drawn beside the study's figure."""


@dataclass(frozen=True, slots=True)
class PanelPlan:
    """A panel of a study's figure."""

    metric: str
    title: str
    y_label: str
    colour: str
    marker: str
    factor: float = 1.0
    """What values are multiplied by: 100 for per cent."""
    right: PanelPlan | None = None
    """What is drawn on a second y axis of the same panel."""
    x_label: str = ""
    """Empty takes the axis's own."""


LENGTH_AND_REWARD = (
    PanelPlan("len/response/mean", "Response Length vs Step", "Response Length (tokens)", BLUE, "o"),
    PanelPlan("reward/mean", "Train Reward vs Step", "Train Reward", RED, "s"),
)
"""RM-R1 (arXiv 2505.02387), its figure of cold-start training: length in blue circles, reward in red squares."""

FOUR_PANELS = (
    PanelPlan("reward/mean", "Training Reward", "Training Reward", GREEN, "o"),
    PanelPlan("kl/ref", "KL Divergence", "KL Divergence (nats)", PURPLE, "s"),
    PanelPlan("entropy", "Entropy", "Entropy (nats)", ORANGE, "^"),
    PanelPlan("len/response/mean", "Response Length", "Response Length (tokens)", BLUE, "D"),
)
"""Yao et al. 2025 (arXiv 2509.24203): reward, divergence, entropy, length of one run; `compare` draws them of many."""

LENGTH_AND_REPRODUCED = (
    PanelPlan(
        "eval/test/env_testwriter/tokens",
        "TestWriter on held-out bugs",
        "Token Length",
        BLUE,
        "o",
        right=PanelPlan("eval/test/part_reproduced", "", "Reproduced Rate (%)", RED, "s", factor=100.0),
        x_label="RL Training Steps",
    ),
)
"""Kimi-Dev (arXiv 2509.23045), its figure of TestWriter's training: two y axes, length in blue, rate in red."""

PRESETS: Mapping[str, Sequence[PanelPlan]] = {
    "judge": LENGTH_AND_REWARD,
    "stale": FOUR_PANELS,
    "reproduce": LENGTH_AND_REPRODUCED,
}
"""Study -> its figure; a study that is not listed gets `LENGTH_AND_REWARD`."""


def draw_run(store: RunStore) -> list[Path]:
    """Draw into the run's ``figures`` and return the files: the study's figure, then the signals behind it.

    Each is a PNG and an SVG. Works while the run goes on. Raises `ConfigError` before its first step is done.
    """
    rows = store.metrics()
    study = study_of(store)
    if not rows:
        raise ConfigError(f"{store.folder} has no finished step yet, so there is nothing to draw.")
    axis = axis_named("step")
    panels, sentences = [], []
    for plan in PRESETS.get(study, LENGTH_AND_REWARD):
        line, said = _planned(store, rows, axis, plan)
        right, said_right = _planned(store, rows, axis, plan.right) if plan.right is not None else (None, "")
        panels.append(
            Panel(
                plan.title,
                plan.x_label or axis.label,
                plan.y_label,
                [line] if line is not None else [],
                said,
                counts_x=True,
                right=right,
                right_label=plan.right.y_label if plan.right is not None else "",
            )
        )
        sentences += [text for text in (said, said_right) if text]
    events, event_sentences = _events(store, rows)
    asked = int(store.plan().get("steps", len(rows)))
    progress = f"{len(rows)} of {asked} steps." if len(rows) < asked else f"{len(rows)} steps."
    caption = " ".join([progress, *sentences, *event_sentences])
    drawing = Drawing(f"{study}: run {store.folder.resolve().name}", caption, panels, events)
    folder = store.folder / "figures"
    written = write_drawing(drawing, folder / _file_name(study))
    signals = _signals(store, rows)
    return (
        [*written, *draw_metrics([store], signals, "step", folder / f"{_file_name(study)}-signals")]
        if signals
        else written
    )


def _planned(store: RunStore, rows: Sequence[Row], axis: Axis, plan: PanelPlan) -> tuple[Line | None, str]:
    """Return the line of a plan and the sentence that tells it; no line if the metric was not recorded."""
    series = metric_series(store, rows, plan.metric)
    if not series.values:
        return None, f"{plan.metric} was not recorded in this run."
    series = replace(series, values=tuple(plan.factor * v for v in series.values))
    line = Line(plan.metric, *_points(series, axis, rows), plan.colour, plan.marker)
    return line, told(plan.y_label.partition(" (")[0], _unit(plan.metric), series)


def _signals(store: RunStore, rows: Sequence[Row]) -> list[str]:
    """Return the metrics that say why the study's curves went as they did: the reward's parts, entropy, divergence."""
    known = metric_names(store, rows)
    parts = sorted(name for name in known if name.startswith("reward/parts/"))[:MOST_PARTS]
    shown = {plan.metric for plan in PRESETS.get(study_of(store), LENGTH_AND_REWARD)}
    return [name for name in (*parts, "entropy", "kl/ref") if name in known and name not in shown]


def draw_metrics(runs: Sequence[RunStore], metrics: Sequence[str], x: str, out: Path) -> list[Path]:
    """Draw one panel per metric with all runs in it, and return the PNG and the SVG.

    `x` is ``step``, ``rollouts``, ``tokens``, ``flops`` or ``time``; `out` names the files, its ending does not count.
    Raises `ConfigError` for an unknown axis, or a metric that no run has.
    """
    axis = axis_named(x)
    recorded = [(store, store.metrics()) for store in runs]
    names = _labels([store for store, _ in recorded])
    for metric in metrics:
        known = set[str]().union(*(metric_names(store, rows) for store, rows in recorded))
        if metric not in known:
            raise ConfigError(f'No run here has a metric "{metric}".{nearest(metric, known)}')
    panels, sentences = [], []
    for metric in metrics:
        lines = []
        for i, (store, rows) in enumerate(recorded):
            series = metric_series(store, rows, metric)
            who = f"{metric} of {names[i]}" if len(runs) > 1 else metric
            if not series.values:
                sentences.append(f"{who}: not recorded.")
                continue
            colour, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
            lines.append(Line(names[i], *_points(series, axis, rows), colour, marker))
            sentences.append(told(who, _unit(metric), series))
        panels.append(Panel(metric, axis.label, _unit(metric), lines, "no finite value", counts_x=axis.label == "Step"))
    caption = " ".join([f"x axis: {axis.label}.", *sentences])
    title = f"{', '.join(metrics)}: {', '.join(names)}"
    stem = out.with_suffix("") if out.suffix in (".png", ".svg", ".txt") else out
    return write_drawing(Drawing(title, caption, panels, show_legend=len(runs) > 1), stem)


def study_of(store: RunStore) -> str:
    """Return the study's name, or the environment's where the run names none."""
    config = store.config_tree()
    return str(config.get("run", {}).get("study") or config["environment"]["name"].rpartition(":")[2])


def told(name: str, unit: str, series: Series) -> str:
    """Return what a line shows as sentences: start, end, change, extremes, and how it was smoothed."""
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
    window = smoothing_window(series.values)
    if window > 1:
        text += f" Line: centred mean of {window} steps; points: single steps."
    if series.num_missing:
        text += f" {series.num_missing} recorded steps have no value."
    return text


def _points(series: Series, axis: Axis, rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return where a series lies on an axis. An evaluation after k steps stands where step k - 1 ended."""
    at = axis.at(rows)
    if not series.name.startswith("eval/"):
        return [at[step] for step in series.steps], list(series.values)
    if axis.label == "Step":
        return [float(step) for step in series.steps], list(series.values)
    return [at.get(step - 1, 0.0) for step in series.steps], list(series.values)


def _events(store: RunStore, rows: Sequence[Row]) -> tuple[list[Event], list[str]]:
    """Return the events worth a line, and what the caption says of them."""
    kinds: Sequence[tuple[str, Callable[[], list[int]]]] = (
        ("sampler refreshed", lambda: refreshes(rows)),
        ("resumed", lambda: resumes(store)),
    )
    events, sentences = [], []
    for label, find in kinds:
        steps = find()
        if not steps:
            continue
        if len(steps) > MOST_EVENTS:
            sentences.append(f"Not drawn, {label}: {len(steps)} times.")
            continue
        events.append(Event(label, [float(s) for s in steps]))
        sentences.append(f"Vertical lines, {label}: step {', '.join(str(s) for s in steps)}.")
    return events, sentences


def _labels(stores: Sequence[RunStore]) -> list[str]:
    """Return a name for each run: its folder's, with the parent's in front where two are alike."""
    names = [store.folder.resolve().name for store in stores]
    if len(set(names)) == len(names):
        return names
    return [f"{store.folder.resolve().parent.name}/{name}" for store, name in zip(stores, names, strict=True)]


def _unit(metric: str) -> str:
    found = describe(metric)
    return found.unit if found is not None else ""


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}" if unit in ("tokens", "nats") else number(value)


def _file_name(study: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in study)
