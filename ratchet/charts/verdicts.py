"""A comparison in words: tables and sentences, all computed from outcomes, none canned. Reads and draws nothing."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ratchet.charts.grouping import Setting
from ratchet.charts.results import LEVEL, Held, Outcome, kl_at, level_of
from ratchet.charts.series import END_STEPS
from ratchet.charts.statistics import improvement, improvement_interval, interval, iqm_of, spread
from ratchet.charts.text import duration, number, relative_change

FEW = 5
"""Fewer seeds than this are called few."""
NONE = "-"
GAIN = 0.1
"""What a reward must rise by, as a share of its start, before it is said to have been lost."""
ROUNDED = 1e-5
"""Relative differences below this are the rounding of recorded numbers to six digits."""

SOURCE = (
    "Interquartile means, bootstrap intervals and the probability of improvement follow Agarwal et al. 2021, Deep "
    "Reinforcement Learning at the Edge of the Statistical Precipice (arXiv 2108.13264)."
)


READING = (
    f"First and final reward, length and KL at end: means of the first or last {END_STEPS} steps of each seed; the "
    f"final reward is the interquartile mean over seeds. Best: of the mean over seeds, smoothed over {END_STEPS} "
    "steps. KL at a reward: the divergence in nats where the smoothed reward first reaches it; that reward is "
    f"{100 * LEVEL:.0f} % of the lowest best one among methods that did not collapse. Collapse: the step from which "
    f"the smoothed reward stays below half of its best so far, for at least {END_STEPS} steps and to the end; of "
    "several seeds the median."
)
"""How the numbers of the tables are made."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table before it is Markdown or text."""

    title: str
    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]


def results_table(setting: Setting, outcomes: Sequence[Outcome]) -> Table:
    """Return the table of a setting: one line per method."""
    level = level_of(outcomes)
    head = (
        "method",
        "seeds",
        "steps",
        "first reward",
        "final reward (95 %)",
        *(("held out (95 %)",) if any(o.held_out for o in outcomes) else ()),
        "best (step)",
        "mean over steps",
        f"KL at {_reward(level)}" if level is not None else "KL at equal reward",
        "KL at end",
        "collapse",
        "length",
        "time",
    )
    body = tuple(
        (
            o.method.label,
            str(len(o.method.runs)),
            _span(*o.steps),
            _reward(o.first),
            _with_interval(o.finals),
            *((_with_interval(o.held_out),) if any(o.held_out for o in outcomes) else ()),
            f"{_reward(o.best[0])} ({o.best[1]})" if o.best is not None else NONE,
            _reward(o.area),
            _number(kl_at(o.method, level)),
            _number(o.kl),
            _collapse(o),
            f"{o.length:.1f}" if o.length is not None else NONE,
            duration(o.seconds),
        )
        for o in outcomes
    )
    return Table(setting.label, head, body)


def reference_table(setting: Setting, found: Sequence[Held]) -> Table:
    """Return the table of a setting's methods beside their recorded references."""
    head = ("method", "reference", "seeds", "until step", "final", "reference final", "within", "length", "KL")
    body = tuple(
        (
            h.method.label,
            h.reference.label,
            str(len(h.theirs)),
            str(h.last_step),
            _reward(h.ours),
            f"{_reward(h.expected)} ({_reward(min(h.theirs))} to {_reward(max(h.theirs))})",
            {True: "yes", False: "NO", None: "one seed"}[h.within],
            _change(h.length),
            _change(h.kl),
        )
        for h in found
    )
    return Table(f"{setting.label}, against the recorded reference", head, body)


def sentences(setting: Setting, outcomes: Sequence[Outcome]) -> list[str]:
    """Return what a setting's outcomes say: who is best and how sure that is, who collapsed, who moved least."""
    if setting.is_offline:
        said = (
            "The sampler keeps the starting policy, so the training reward stays; held-out tasks show what is learned."
        )
        return [said, *_winner(outcomes, "held_out", "held-out reward")]
    return [
        *_winner(outcomes, "finals", "final reward"),
        *_collapses(outcomes),
        *_cheapest(outcomes),
        *_lengths(setting),
    ]


def cautions(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what the number of seeds of all methods says about every interval and band."""
    return list(_seeds(outcomes))


def reference_sentences(found: Sequence[Held]) -> list[str]:
    """Return where methods left their recorded references, and what they differ in."""
    said = []
    for h in found:
        if h.within is False and h.bounds is not None:
            low, high = h.bounds
            side = "below" if h.ours < low else "above"
            said.append(
                f"{h.method.label} ends {side} its recorded reference: {_reward(h.ours)}, expected {_reward(low)} to "
                f"{_reward(high)} (see below)."
            )
        if h.reference.differs_in:
            said.append(
                f"The reference {h.reference.label} was recorded with other settings than {h.method.label}: "
                f"{', '.join(h.reference.differs_in)}."
            )
    if inside := [h.method.label for h in found if h.within]:
        said.append(f"Within the recorded reference: {', '.join(inside)}.")
    return said


def _winner(outcomes: Sequence[Outcome], field: Literal["finals", "held_out"], what: str) -> Iterator[str]:
    """Say which method ends highest in a reward, and whether that is more than chance."""
    found = [(o.method.label, values) for o in outcomes if (values := getattr(o, field))]
    ranked = sorted(found, key=lambda item: -iqm_of(item[1]))
    if not ranked:
        return
    best, finals = ranked[0]
    if len(ranked) == 1:
        yield f"{best} ends at {what} {_with_interval(finals)}."
        return
    second, others = ranked[1]
    gap = iqm_of(finals) - iqm_of(others)
    text = f"Highest {what}: {best}, {_with_interval(finals)}; then {second}, {_with_interval(others)}."
    if min(len(finals), len(others)) < 2:
        yield f"{text} The difference of {_reward(gap)} cannot be judged: one seed has no spread."
        return
    chance, ends = improvement(finals, others), improvement_interval(finals, others)
    if chance == 1:
        a, b = len(finals), len(others)
        yield (
            f"{text} Every seed of {best} ends above every seed of {second}; chance alone would part {a} from {b} "
            f"seeds like that, one way or the other, in {_often(2 / math.comb(a + b, a))}."
        )
        return
    apart = max(spread(finals), spread(others))
    if gap > apart:
        verdict = f"exceeds the spread over seeds ({_reward(apart)})"
    else:
        verdict = f"does not exceed the spread over seeds ({_reward(apart)}), so neither is shown to be better"
    yield f"{text} The difference of {_reward(gap)} {verdict}."
    if ends is not None:
        span = f"{ends[0]:.2f} to {ends[1]:.2f}"
        yield f"A seed of {best} ends above one of {second} with probability {chance:.2f} ({span})."


def _often(chance: float) -> str:
    return "every case" if chance >= 1 else f"1 of {1 / chance:.0f} cases"


def _collapses(outcomes: Sequence[Outcome]) -> Iterator[str]:
    fallen = [o for o in outcomes if o.collapses]
    for o in fallen:
        steps = f"step {o.collapses[0]}"
        if o.collapses[0] != o.collapses[-1]:
            steps = f"steps {o.collapses[0]} to {o.collapses[-1]}"
        yield f"{o.method.label} collapsed in {len(o.collapses)} of {_count(len(o.method.runs), 'seed')}, at {steps}."
    for o in outcomes:
        if o.best is None or o.first is None or o.collapses:
            continue
        lost, gained = o.best[0] - (o.final or 0.0), o.best[0] - o.first
        if gained > GAIN * abs(o.first) and lost > gained / 2:
            yield (
                f"{o.method.label} lost more than half of what it had gained: from {_reward(o.first)} to "
                f"{_reward(o.best[0])} at step {o.best[1]}, and {_reward(o.final)} at the end."
            )
    if not fallen and any(o.finals for o in outcomes):
        yield "No seed collapsed."


def _cheapest(outcomes: Sequence[Outcome]) -> Iterator[str]:
    level = level_of(outcomes)
    found = sorted((kl, o.method.label) for o in outcomes if (kl := kl_at(o.method, level)) is not None)
    if level is not None and len(found) > 1:
        (low, least), (high, most) = found[0], found[-1]
        yield (
            f"At reward {_reward(level)} the policy has gone least far with {least} ({_number(low)} nats) and "
            f"farthest with {most} ({_number(high)} nats)."
        )


def _seeds(outcomes: Sequence[Outcome]) -> Iterator[str]:
    counts = {len(o.method.runs) for o in outcomes}
    if 1 in counts:
        single = dict.fromkeys(o.method.label for o in outcomes if len(o.method.runs) == 1)
        whom = "each method" if counts == {1} and len(outcomes) > 1 else ", ".join(single)
        yield f"One seed of {whom}: no band and no interval; another seed may end elsewhere."
    if several := [n for n in counts if 1 < n < FEW]:
        which = f"{min(several)} seeds" if len(several) == 1 else f"{min(several)} to {max(several)} seeds"
        spans = " With 2 or 3 seeds an interval is the span from the lowest to the highest." if min(several) < 4 else ""
        yield f"{which}: intervals are wide and themselves uncertain.{spans}"


def _lengths(setting: Setting) -> Iterator[str]:
    for method in setting.methods:
        steps = [len(run.rows) for run in method.runs]
        if len(set(steps)) > 1:
            yield (
                f"{method.label}: its seeds have {min(steps)} to {max(steps)} steps; where one has ended, curves are "
                "means of the others."
            )
        if going := [run.name for run in method.runs if not run.done]:
            yield f"{method.label}: not all steps done in {', '.join(going)}."


def _with_interval(values: Sequence[float]) -> str:
    if not values:
        return NONE
    ends, middle = interval(values), iqm_of(values)
    return _reward(middle) if ends is None else f"{_reward(middle)} ({_reward(ends[0])} to {_reward(ends[1])})"


def _collapse(o: Outcome) -> str:
    if not o.collapses:
        return NONE
    middle = f"{plain.median(o.collapses):g}"
    return middle if len(o.method.runs) == 1 else f"{middle} ({len(o.collapses)} of {len(o.method.runs)})"


def _change(pair: tuple[float, float] | None) -> str:
    """Return ours with what it is more or less than theirs: ``41.9 (+0.3)``."""
    if pair is None:
        return NONE
    ours, theirs = pair
    if abs(ours - theirs) <= ROUNDED * abs(theirs):
        return f"{number(ours)} (the same)"
    relative = f", {relative_change((ours - theirs) / abs(theirs))}" if theirs else ""
    return f"{number(ours)} ({'+' if ours >= theirs else ''}{number(ours - theirs)}{relative})"


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _number(value: float | None) -> str:
    return NONE if value is None else number(value)


def _reward(value: float | None) -> str:
    """Return a reward with three decimals throughout, so that seeds that lie close together stay apart."""
    return NONE if value is None else f"{value:.3f}"
