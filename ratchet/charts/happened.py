"""What is drawn behind the curves: lines where something happened, findings with their numbers, phases in colour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from ratchet.charts.analysis import FALLING, FLAT, RISING, phases
from ratchet.charts.axes import Places
from ratchet.charts.canvas import Event, Phase
from ratchet.charts.remark import Remark, worst_first
from ratchet.charts.series import Series
from ratchet.charts.source import CHANGED, CHECKPOINT, CURRICULUM, FINDING, RESUMED, ROLLBACK, SYNC, Source
from ratchet.core.errors import ConfigError, nearest

KINDS: Mapping[str, str] = {
    "sync": SYNC,
    "resume": RESUMED,
    "checkpoint": CHECKPOINT,
    "curriculum": CURRICULUM,
    "rollback": ROLLBACK,
    "config": CHANGED,
    "finding": FINDING,
}
"""Name on the command line -> kind."""
USUAL = (SYNC, RESUMED, CURRICULUM, ROLLBACK, CHANGED, FINDING)
"""Kinds that are drawn unless others are named; checkpoints follow a clock and tell nothing."""
MOST_EVENTS = 15
"""More lines of one kind than this hide the data; the caption then tells how many there were."""
MOST_FINDINGS = 6

_Dashes = tuple[int, tuple[float, ...]]
STYLES: Mapping[str, tuple[str, _Dashes]] = {
    SYNC: ("#555555", (0, (5, 2))),
    RESUMED: ("#7A5195", (0, (1, 1.5))),
    CHECKPOINT: ("#9A9A9A", (0, (1, 3))),
    CURRICULUM: ("#007355", (0, (6, 2, 1, 2))),
    ROLLBACK: ("#A32C1A", (0, (3, 1))),
    CHANGED: ("#8C6D31", (0, (4, 1, 1, 1, 1, 1))),
    FINDING: ("#D55E00", (0, (2, 2))),
}
"""Colour and dashes of each kind."""
PHASE_COLOURS: Mapping[str, str] = {RISING: "#009E73", FLAT: "#8A8A8A", FALLING: "#D55E00"}
STAGES = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00")
"""Of a curriculum's stages."""


def kinds_named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds to draw: `USUAL` unless some are named, none for ``none``. Raises `ConfigError`."""
    if not names:
        return USUAL
    for name in names:
        if name != "none" and name not in KINDS:
            raise ConfigError(f'There is no event "{name}".{nearest(name, [*KINDS, "none"])}')
    return tuple(KINDS[name] for name in names if name != "none")


def events_of(
    source: Source, places: Places, kinds: Sequence[str], remarks: Sequence[Remark]
) -> tuple[list[Event], list[str]]:
    """Return the events worth a line, and what the caption says of them."""
    events, sentences = [], []
    for kind in kinds:
        steps = sorted({h.step for h in source.happenings if h.kind == kind})
        if not steps:
            continue
        if len(steps) > MOST_EVENTS:
            sentences.append(f"Not drawn, {kind}: {len(steps)} times.")
            continue
        events.append(Event(kind, [_before(places, step) for step in steps], *STYLES[kind]))
        sentences.append(f"Vertical lines, {kind}: step {', '.join(str(s) for s in steps)}.")
    if FINDING in kinds and (found := [r for r in worst_first(remarks) if r.first is not None]):
        drawn = found[:MOST_FINDINGS]
        at = [_before(places, r.first) for r in drawn if r.first is not None]
        events.append(Event(FINDING, at, *STYLES[FINDING], numbers=range(1, len(drawn) + 1)))
        sentences += [f"Finding {i} ({r.where}): {r.sentence}" for i, r in enumerate(drawn, start=1)]
        if len(found) > len(drawn):
            sentences.append(f"{len(found) - len(drawn)} milder findings are not drawn.")
    return events, sentences


def phases_of(what: str, source: Source, series: Series, places: Places) -> tuple[list[Phase], str]:
    """Return the stretches of the x axis to colour, and the sentence that names them.

    `what` is ``trend`` (where `series` rises, is flat, falls; `analysis.phases`), or ``curriculum``. Raises
    `ConfigError` for another word.
    """
    makers: Mapping[str, Callable[[], list[tuple[str, int, int, str]]]] = {
        "trend": lambda: [(p.direction, p.first, p.last, PHASE_COLOURS[p.direction]) for p in phases(series)],
        "curriculum": lambda: _stages(source),
    }
    if what not in makers:
        raise ConfigError(f'There are no phases by "{what}".{nearest(what, makers)}')
    found = makers[what]()
    if not found:
        return [], f"No phases by {what}: nothing to tell them apart by."
    ends = [first for _, first, _, _ in found[1:]] + [found[-1][2] + 1]  # a phase reaches to the next one
    drawn = [
        Phase(label, _before(places, first), _before(places, end), colour)
        for (label, first, _, colour), end in zip(found, ends, strict=True)
    ]
    told = "; ".join(f"{label}: steps {first} to {last}" for label, first, last, _ in found)
    of = f" of {series.name}" if what == "trend" else ""
    return drawn, f"Colours behind the curves, phases{of}: {told}."


def _stages(source: Source) -> list[tuple[str, int, int, str]]:
    cuts = sorted({h.step for h in source.happenings if h.kind == CURRICULUM})
    span = source.span
    if span is None or not cuts:
        return []
    edges = [span[0], *[c for c in cuts if c > span[0]], span[1]]
    return [(f"stage {i + 1}", first, last, STAGES[i % len(STAGES)]) for i, (first, last) in enumerate(pairwise(edges))]


def _before(places: Places, step: int) -> float:
    """Return where a step begins: on an axis of what was spent, where the step before ended."""
    return places.of(step if places.is_step else step - 1)
