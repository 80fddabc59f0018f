"""Figures: from sources and a wish to panels, events and a caption computed from the numbers that are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ratchet.charts.axes import Axis, axis_named
from ratchet.charts.canvas import PANEL_INCHES, Drawing, Event, Panel, Phase, write_drawing
from ratchet.charts.happened import events_of, kinds_named, phases_of
from ratchet.charts.labels import styles
from ratchet.charts.lines import Drawn, groups_of, several, single
from ratchet.charts.presets import (
    JUDGE,
    LENGTH,
    PRESETS,
    REWARD,
    Choice,
    PanelPlan,
    Preset,
    Stripe,
    plain,
    preset_named,
)
from ratchet.charts.remark import Remark
from ratchet.charts.source import Source, by_config, source_of_run, study_of
from ratchet.core.errors import ConfigError, nearest
from ratchet.core.metric import describe
from ratchet.store.run_store import RunStore

MOST_PARTS = 4
"""Parts of a reward drawn beside the study's figure."""
TOP_TICKS = 6
"""About how many steps are written on top."""
GRID_INCHES = (2.95, 2.45)
"""Of a panel in a row of three or more."""
ENDINGS = (".png", ".svg", ".txt")


@dataclass(frozen=True, slots=True)
class Look:
    """What is to be drawn, and how."""

    metrics: Sequence[str] = ()
    """A panel each; none takes the panels of the style."""
    style: str = ""
    """A preset by the name of its study; empty takes the run's own, or that of `judge`."""
    x: str = ""
    """An axis; empty takes the preset's."""
    right: str = ""
    """A metric on a second y axis of every panel."""
    logs: Sequence[str] = ()
    """Axes that are logarithmic: ``x``, ``y``."""
    events: Sequence[str] = ()
    """Names of `happened.KINDS`; none takes the usual ones, ``none`` takes none."""
    phases: str = ""
    """``trend`` or ``curriculum``: stretches coloured behind the curves."""
    remarks: Mapping[str, Sequence[Remark]] = field(default_factory=dict)
    """Findings by the label of the source."""


def draw(sources: Sequence[Source], look: Look, out: Path) -> list[Path]:
    """Draw one figure of some runs, and return the PNG and the SVG; the caption lies beside them.

    `out` names the files, its ending does not count. Sources of one label and setting are seeds of one curve: drawn is
    their mean with a bootstrap band. Each setting is a row. Raises `ConfigError` for an unknown axis or style, for a
    metric that no run has, and for an axis that a run did not record.
    """
    stem = out.with_suffix("") if out.suffix in ENDINGS else out
    return write_drawing(drawing_of(sources, look), stem)


def draw_run(store: RunStore, remarks: Sequence[Remark] = ()) -> list[Path]:
    """Draw into the run's ``figures`` and return the files: the study's figure, then the signals behind it.

    Each is a PNG and an SVG. Works while the run goes on. Raises `ConfigError` before its first step is done.
    """
    source = source_of_run(store)
    if not source.rows:
        raise ConfigError(f"{store.folder} has no finished step yet, so there is nothing to draw.")
    name, folder = file_name(study_of(store)), store.folder / "figures"
    found = {source.label: remarks}
    written = draw([source], Look(remarks=found), folder / name)
    extra = signals(source)
    return [*written, *draw([source], Look(extra, remarks=found), folder / f"{name}-signals")] if extra else written


def draw_metrics(runs: Sequence[RunStore], metrics: Sequence[str], x: str, out: Path) -> list[Path]:
    """Draw one panel per metric with all runs of ours in it; see `draw`."""
    sources = [source_of_run(store) for store in runs]
    names = [s.label for s in sources]
    if len(set(names)) < len(names):
        sources = [replace(s, label=f"{s.path.resolve().parent.name}/{s.label}") for s in sources]
    return draw(sources, Look(metrics, x=x), out)


def drawing_of(sources: Sequence[Source], look: Look) -> Drawing:
    """Return the figure of some runs, ready to be written."""
    preset = _preset(sources, look)
    axis, said = _axis(sources, look.x or preset.x, is_asked=bool(look.x))
    grid = groups_of(sources)
    labels = list(dict.fromkeys(s.label for s in sources))
    colours = styles({s.label: s.algorithm for s in sources}) if len(labels) > 1 else {}
    plans = _unfolded(preset.panels) if len(labels) > 1 else preset.panels
    panels, told, made = list[Panel](), list[str](), list[Drawn]()
    for setting, groups in grid.items():
        for plan in plans:
            panel, drawn = _panel(plan, groups, axis, colours, look)
            where = f"{setting}: " if len(grid) > 1 else ""
            panels.append(_titled(panel, plan, preset, setting, groups))
            told += [f"{where}{line.told}" for line in drawn]
            made += drawn
    events, phases, behind = _behind(sources, plans, axis, look)
    top = _top(sources, axis) if preset.tops_steps else ()
    panels = [replace(p, phases=phases, top=top, top_label="Step" if top else "") for p in panels]
    caption = " ".join([*_progress(sources), *said, *dict.fromkeys(told), *_notes(made), *behind])
    columns = len(plans) if len(grid) > 1 else min(preset.columns, len(panels))
    inches = GRID_INCHES if columns > 2 else PANEL_INCHES
    return Drawing(_title(sources, plans), caption, panels, events, columns, len(labels) > 1, inches)


def signals(source: Source) -> list[str]:
    """Return the metrics that say why the study's curves went as they did: the reward's parts, entropy, divergence."""
    known = source.names
    parts = [name for name in known if name.startswith("reward/parts/")][:MOST_PARTS]
    preset = PRESETS.get(source.study, JUDGE)
    shown = {c.metric for p in preset.panels for stripe in (p.left, p.right) if stripe for c in stripe.choices[:1]}
    return [name for name in (*parts, "entropy", "kl/ref") if name in known and name not in shown]


def file_name(text: str) -> str:
    """Return a text as the name of a file."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text) or "figure"


def _preset(sources: Sequence[Source], look: Look) -> Preset:
    """Return the panels to draw. Raises `ConfigError` for a metric no source has."""
    if look.style:
        preset = preset_named(look.style)
        return replace(plain(look.metrics, look.right), x=preset.x) if look.metrics else preset
    if look.metrics or look.right:
        chosen = list(look.metrics) or ["reward/mean"]
        known = set[str]().union(*(s.names for s in sources))
        for metric in [*chosen, *([look.right] if look.right else [])]:
            if metric not in known:
                raise ConfigError(f'No run here has a metric "{metric}".{nearest(metric, known)}')
        return plain(chosen, look.right)
    studies = {s.study for s in sources}
    return PRESETS.get(studies.pop(), JUDGE) if len(studies) == 1 else JUDGE


def _axis(sources: Sequence[Source], name: str, *, is_asked: bool) -> tuple[Axis, list[str]]:
    """Return the axis and what the caption says of it. Raises `ConfigError` if one was asked for and is not there."""
    axis = axis_named(name)
    without = [s.label for s in sources if s.places(axis) is None]
    if without and is_asked:
        raise ConfigError(
            f"{', '.join(without)}: nothing recorded tells {axis.label.lower()}, so it cannot be the x axis. "
            "Leave out --x to draw over steps."
        )
    if without:
        return axis_named("step"), [f"x axis: step, since {axis.label} were not recorded ({', '.join(without)})."]
    labels = sorted({p.label for s in sources if (p := s.places(axis)) is not None})
    if name == "step" and labels == ["Step"]:
        return axis, []
    warning = " These are not the same: the curves must not be compared place by place." if len(labels) > 1 else ""
    return axis, [f"x axis: {', '.join(labels)}.{warning}"]


def _panel(
    plan: PanelPlan,
    groups: Mapping[str, Sequence[Source]],
    axis: Axis,
    colours: Mapping[str, tuple[str, str]],
    look: Look,
) -> tuple[Panel, list[Drawn]]:
    choice = chosen(plan.left, [s for group in groups.values() for s in group])
    found = list[Drawn]()
    for label, group in groups.items():
        stripe = plan.left
        if label in colours:
            stripe = replace(stripe, colour=colours[label][0], marker=colours[label][1] if stripe.marker else "")
            stripe = replace(stripe, raw_colour=stripe.colour if stripe.raw_colour else "")
        who = f" of {label}" if len(groups) > 1 else ""
        found.append(_drawn(choice, stripe, group, axis, look, who))
    right = right_label = None
    if plan.right is not None:
        (group,) = groups.values()
        other = chosen(plan.right, group)
        beside = _drawn(other, plan.right, group, axis, look, "")
        right, right_label = beside.line, _y_label(other, beside.name or other.metric)
        found.append(beside)
    left = found[: len(groups)]
    name = next((d.name for d in left if d.name), choice.metric)
    return (
        Panel(
            choice.shown_title,
            plan.x_label if plan.x_label and not axis.spent else left[0].x_label,
            _y_label(choice, name),
            [d.line for d in left if d.line is not None],
            left[0].told,
            counts_x=not axis.spent,
            log_x="x" in look.logs,
            log_y="y" in look.logs,
            right=right,
            right_label=right_label or "",
        ),
        found,
    )


def _drawn(choice: Choice, stripe: Stripe, group: Sequence[Source], axis: Axis, look: Look, who: str) -> Drawn:
    logarithmic = "y" in look.logs
    if len(group) == 1:
        return single(choice, stripe, group[0], axis, who, logarithmic=logarithmic)
    return several(choice, stripe, group, axis, who)


def chosen(stripe: Stripe, sources: Sequence[Source]) -> Choice:
    """Return the first choice that a source recorded, else that for which one has a stand-in, else the first."""
    for choice in stripe.choices:
        if any(s.get(choice.metric) is not None for s in sources):
            return choice
    for choice in stripe.choices:
        if any(s.nearest(choice.metric) is not None for s in sources):
            return choice
    return stripe.choices[0]


def _y_label(choice: Choice, name: str) -> str:
    """Return the label of a y axis: the plan's, or for a stand-in and a plain metric its name and unit."""
    if choice.y_label and name == choice.metric:
        return choice.y_label
    entry = describe(name)
    unit = f" ({entry.unit})" if entry is not None and entry.unit else ""
    return f"{name}{unit}"


def _titled(
    panel: Panel, plan: PanelPlan, preset: Preset, setting: str, groups: Mapping[str, Sequence[Source]]
) -> Panel:
    """Return a panel titled by its setting where it has one: then the y label says what is drawn."""
    if not setting and preset.is_titled_by_setting:
        known = {s.setting for s in by_config([s for group in groups.values() for s in group])}
        setting = known.pop() if len(known) == 1 else ""
    return replace(panel, title=setting) if setting else panel


def _behind(
    sources: Sequence[Source], plans: Sequence[PanelPlan], axis: Axis, look: Look
) -> tuple[list[Event], list[Phase], list[str]]:
    """Return events and phases; of several runs there are none, since one's would be taken for another's."""
    kinds = kinds_named(look.events)
    if len(sources) > 1:
        wanted = [w for w in (*look.events, look.phases) if w and w != "none"]
        return [], [], (["Events and phases are drawn for one run alone."] if wanted else [])
    source = sources[0]
    places = source.places(axis)
    assert places is not None, "the axis was checked"
    events, told = events_of(source, places, kinds, look.remarks.get(source.label, ()))
    if not look.phases:
        return events, [], told
    drawn = [chosen(stripe, sources).metric for p in plans for stripe in (p.left, p.right) if stripe is not None]
    leading = next((metric for metric in drawn if metric.startswith("reward/")), drawn[0])
    series = source.nearest(leading)
    if series is None or not series.values:
        return events, [], [*told, f"No phases: {leading} has no values."]
    phases, sentence = phases_of(look.phases, source, series, places)
    return events, phases, [*told, sentence]


def _top(sources: Sequence[Source], axis: Axis) -> list[tuple[float, str]]:
    """Return ticks that write steps over an axis of what was spent: those of the first source."""
    places = sources[0].places(axis)
    if places is None or places.is_step:
        return []
    first, last = places.steps[0], places.steps[-1]
    distance = max(1, _rounded((last - first) / TOP_TICKS))
    wanted = range(-(-first // distance) * distance, last + 1, distance)
    return [(places.of(step), str(step)) for step in wanted]


def _rounded(least: float) -> int:
    found = next(f * 10**p for p in range(12) for f in (1, 2, 5) if f * 10**p >= least)
    return int(found)


def _unfolded(plans: Sequence[PanelPlan]) -> tuple[PanelPlan, ...]:
    """Return plans without right axes: of several runs nobody could tell which line belongs to which axis."""
    found = []
    for plan in plans:
        found.append(replace(plan, right=None))
        if plan.right is not None:
            titled = tuple(replace(c, title=c.title or c.y_label or c.metric) for c in plan.right.choices)
            found.append(PanelPlan(replace(plan.right, choices=titled), x_label=plan.x_label))
    return tuple(found)


def _progress(sources: Sequence[Source]) -> list[str]:
    if len(sources) > 1 or sources[0].store is None:
        return []
    done = len(sources[0].rows)
    asked = int(sources[0].store.plan().get("steps", done))
    return [f"{done} of {asked} steps." if done < asked else f"{done} steps."]


def _title(sources: Sequence[Source], plans: Sequence[PanelPlan]) -> str:
    labels = list(dict.fromkeys(s.label for s in sources))
    studies = sorted({s.study for s in sources if s.study})
    if (len(labels) == 1 and plans[0].left.choices[0] in (LENGTH, REWARD)) or (studies and len(sources) == 1):
        return f"{studies[0]}: run {labels[0]}" if studies else labels[0]
    shown = ", ".join(p.left.choices[0].shown_title for p in plans)
    return f"{shown}: {', '.join(labels)}"


def _notes(lines: Sequence[Drawn]) -> list[str]:
    """Return how lines were made: once what holds for all of them, else with the names of those for which it holds."""
    holds: dict[str, list[str]] = {}
    drawn = [line for line in lines if line.line is not None]
    for line in drawn:
        for note in line.notes:
            holds.setdefault(note, []).append(line.told.partition(":")[0])
    return [
        note if len(names) == len(drawn) else f"{', '.join(dict.fromkeys(names))}: {note}"
        for note, names in holds.items()
    ]
