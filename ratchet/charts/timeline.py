"""One attempt as a timeline: a lane for the policy, one for each agent, and the chain of turns it all waited for.

Reads recorded rollouts. Time is seconds as recorded, or steps: each turn is one, a stage as long as its longest agent.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ratchet.charts.canvas import BLUE, DOTS_PER_INCH, RED, write_figure
from ratchet.core.rollout import Group, Rollout, Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Clock = Literal["seconds", "steps"]
GREEN, GREY = "#009E73", "#8A8A8A"
FINISHED = ("finished", "")
LANES_LABELLED = 40
"""With more lanes, only some are named."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One turn."""

    lane: int
    begin: float
    end: float
    text: str
    tokens: int
    critical: bool
    """Whether everything waited for it."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One agent's work on one task."""

    name: str
    outcome: str
    depth: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a figure of an attempt shows."""

    clock: Clock
    lanes: tuple[Lane, ...]
    bars: tuple[Bar, ...]
    stages: tuple[float, ...]
    """Where the policy's turns begin."""
    title: str
    caption: str


def timeline_of(group: Group, rollout: Rollout, clock: Clock) -> Timeline:
    """Return the timeline of one attempt."""
    trajectories = rollout.trajectories
    spans = _by_steps(trajectories) if clock == "steps" else _by_seconds(trajectories)
    critical = _critical(trajectories, spans)
    lanes = tuple(Lane(t.agent, t.outcome, _depth(trajectories, i)) for i, t in enumerate(trajectories))
    bars = tuple(
        Bar(i, *spans[i][j], turn.text, len(turn.output), (i, j) in critical)
        for i, t in enumerate(trajectories)
        for j, turn in enumerate(t.turns)
    )
    score = rollout.score
    earned = f"reward {score.value:g}" if score is not None else rollout.status.value
    title = f"Step {group.step}, task {group.index}, attempt {rollout.attempt}: {earned}"
    return Timeline(
        clock, lanes, bars, tuple(begin for begin, _ in spans[0]), title, _told(trajectories, bars, spans, clock)
    )


def draw_timeline(timeline: Timeline, stem: Path) -> list[Path]:
    """Write the timeline as PNG and SVG, with its caption beside them; return the pictures."""
    return write_figure(_figure(timeline), timeline.title, timeline.caption, stem)


def write_page(timeline: Timeline, pictures: Sequence[Path], out: Path) -> Path:
    """Write one page that holds the picture and what every agent said; it opens offline. Return it."""
    svg = next(path for path in pictures if path.suffix == ".svg")
    picture = base64.b64encode(svg.read_bytes()).decode()
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(timeline.title)}</title>",
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;"
        "background:#fff}img{max-width:100%}pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f4f4f4;"
        "padding:.6rem;border-radius:4px;margin:.3rem 0}.critical{border-left:4px solid #C8321F}"
        "summary{cursor:pointer}small{color:#555}</style></head><body>",
        f"<h1>{escape(timeline.title)}</h1>",
        f'<img alt="{escape(timeline.caption)}" src="data:image/svg+xml;base64,{picture}">',
        f"<p>{escape(timeline.caption)}</p>",
    ]
    for number, lane in enumerate(timeline.lanes):
        bars = [bar for bar in timeline.bars if bar.lane == number]
        outcome = f", {lane.outcome}" if lane.outcome else ""
        parts.append(
            f"<details{' open' if number == 0 else ''}><summary>{escape(lane.name)}"
            f"<small> {len(bars)} turns{escape(outcome)}</small></summary>"
        )
        for bar in bars:
            kind = ' class="critical"' if bar.critical else ""
            parts.append(f"<small>{bar.begin:.3g} to {bar.end:.3g} {timeline.clock}, {bar.tokens} tokens</small>")
            parts.append(f"<pre{kind}>{escape(bar.text)}</pre>")
        parts.append("</details>")
    parts.append("</body></html>")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(parts) + "\n", encoding="utf-8")
    return out


def _by_seconds(trajectories: Sequence[Trajectory]) -> list[list[tuple[float, float]]]:
    return [[(turn.began, turn.began + turn.seconds) for turn in t.turns] for t in trajectories]


def _by_steps(trajectories: Sequence[Trajectory]) -> list[list[tuple[float, float]]]:
    """Give each turn one step; a turn begins when all that the turn before launched has ended."""
    spans: list[list[tuple[float, float]]] = [[] for _ in trajectories]

    def lay(number: int, begin: float) -> float:
        now = begin
        for j, _ in enumerate(trajectories[number].turns):
            spans[number].append((now, now + 1))
            below = [i for i, t in enumerate(trajectories) if t.parent == number and t.parent_turn == j]
            now = max([now + 1, *(lay(i, now + 1) for i in below)])
        return now

    lay(0, 0.0)
    return spans


def _critical(
    trajectories: Sequence[Trajectory], spans: Sequence[Sequence[tuple[float, float]]]
) -> set[tuple[int, int]]:
    """Return the turns of the chain that everything waited for: of each stage, those of the agent that ended last."""
    found: set[tuple[int, int]] = set()

    def follow(number: int) -> None:
        for j, _ in enumerate(trajectories[number].turns):
            found.add((number, j))
            below = [i for i, t in enumerate(trajectories) if (t.parent, t.parent_turn) == (number, j) and t.turns]
            if below:
                follow(max(below, key=lambda i: (spans[i][-1][1], -i)))

    follow(0)
    return found


def _depth(trajectories: Sequence[Trajectory], number: int) -> int:
    parent = trajectories[number].parent
    return 0 if parent < 0 else 1 + _depth(trajectories, parent)


def _told(
    trajectories: Sequence[Trajectory],
    bars: Sequence[Bar],
    spans: Sequence[Sequence[tuple[float, float]]],
    clock: Clock,
) -> str:
    agents = [t for t in trajectories if t.parent >= 0]
    turns = len(trajectories[0].turns)
    if not agents:
        return f"{turns} turns of the policy; it launched no agent."
    launched = [sum(t.parent == 0 and t.parent_turn == j for t in agents) for j in range(turns)]
    stages = [n for n in launched if n]
    critical, work = sum(bar.critical for bar in bars), len(bars)
    ended = sorted({t.outcome for t in agents if t.outcome})
    counts = ", ".join(f"{sum(t.outcome == name for t in agents)} {name}" for name in ended)
    last = max((end for row in spans for _, end in row), default=0.0)
    unit = "s" if clock == "seconds" else "steps"
    return (
        f"{turns} turns of the policy, {len(stages)} of which launched agents: {', '.join(map(str, stages))}. "
        f"{len(agents)} tasks in all ({counts}). The chain of turns that everything waited for has {critical} of "
        f"{work} turns, so the work was {work / max(1, critical):.1f} times as long as the chain. It took "
        f"{last:.3g} {unit}."
    )


def _figure(timeline: Timeline) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lanes = len(timeline.lanes)
    height = min(12.0, 1.3 + 0.19 * max(4, lanes))
    figure = Figure(figsize=(7.2, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for begin in timeline.stages:
        axes.axvline(begin, color="#BBBBBB", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    for bar in timeline.bars:
        axes.barh(
            bar.lane,
            max(bar.end - bar.begin, 1e-9),
            left=bar.begin,
            height=0.72,
            color=_colour(timeline.lanes[bar.lane]),
            edgecolor=RED if bar.critical else "white",
            linewidth=1.6 if bar.critical else 0.4,
            zorder=3 if bar.critical else 2,
        )
    shown = list(_named(timeline.lanes))
    axes.set_yticks([number for number, _ in shown], [name for _, name in shown], fontsize=7)
    axes.set_ylim(lanes - 0.4, -0.6)
    axes.set_xlabel("Seconds" if timeline.clock == "seconds" else "Steps")
    axes.set_xlim(left=0)
    axes.grid(axis="x", linestyle="--", linewidth=0.5, color="#DDDDDD", zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(timeline.title, fontsize=9.5, loc="left")
    handles = [
        Patch(facecolor=BLUE, label="policy"),
        Patch(facecolor=GREEN, label="agent, finished"),
        Patch(facecolor=GREY, label="agent, not finished"),
        Patch(facecolor="white", edgecolor=RED, linewidth=1.6, label="critical path"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _named(lanes: Sequence[Lane]) -> Iterator[tuple[int, str]]:
    """Yield the lanes that are named, and how; agents are numbered in the order they were launched."""
    every = -(-len(lanes) // LANES_LABELLED)
    for number, lane in enumerate(lanes):
        if number == 0 or number % every == 0:
            yield number, "  " * lane.depth + (lane.name if number == 0 else f"{lane.name} {number}")


def _colour(lane: Lane) -> str:
    if lane.depth == 0:
        return BLUE
    return GREEN if lane.outcome in FINISHED else GREY
