"""Several runs held against each other: who ends highest and how sure that is, where curves part, what may explain it.

Works on any sources, ours and foreign. For methods over seeds of our own runs `compare` says more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ratchet.charts.analysis import Band, level, residuals
from ratchet.charts.document import Grid, Items, Section, Text, code, plain
from ratchet.charts.grouping import differing, flat_settings
from ratchet.charts.lines import groups_of
from ratchet.charts.remark import Remark
from ratchet.charts.series import CLEAR, Series, smoothed
from ratchet.charts.source import Source
from ratchet.charts.statistics import interval, iqm_of, mean_curve
from ratchet.charts.text import number

REWARD = "reward/mean"
ELSEWHERE = ("entropy", "kl/ref", "len/response/mean", "opt/grad_norm", "clip/frac", "len/truncated_frac")
"""Series that may have parted before the reward did."""
LAST = 10
"""Steps a final reward is the mean of."""
BEFORE, AFTER = 0.3, 0.05
"""Shares of the common steps before and after the parting within which a finding may explain it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run, or the seeds of a label, ended."""

    label: str
    sources: tuple[Source, ...]
    final: Band
    finals: tuple[float, ...]
    """Of each seed."""
    curve: Series
    """The mean over seeds."""


def ranking(sources: Sequence[Source]) -> list[Standing]:
    """Return how all runs ended, highest final reward first; runs without a finite reward are left out.

    The final reward is the mean of the last ten steps. Of one run its 95 % band is a block bootstrap over steps; of
    seeds it is the interquartile mean with a bootstrap over seeds.
    """
    found = []
    for setting, groups in groups_of(sources).items():
        for label, group in groups.items():
            rewards = [s for source in group if (s := source.nearest(REWARD)) is not None and s.values]
            if not rewards:
                continue
            levels = [level(s, LAST) for s in rewards]
            finals = tuple(b.value for b in levels)
            ends = interval(finals)
            final = levels[0] if ends is None else Band(iqm_of(finals), *ends)
            mean = mean_curve([dict(zip(s.steps, s.values, strict=True)) for s in rewards])
            curve = Series(rewards[0].name, tuple(mean), tuple(mean.values()), 0)
            name = f"{setting}, {label}" if setting else label
            found.append(Standing(name, tuple(group), final, finals, curve))
    return sorted(found, key=lambda s: -s.final.value)


def comparison(sources: Sequence[Source], remarks: Mapping[str, Sequence[Remark]]) -> Section:
    """Return the ranking with intervals, where the curves part, and which finding explains it."""
    ranked = ranking(sources)
    if not ranked:
        return Section("Comparison", [Text("No run has a finite reward, so they cannot be ranked.")])
    body = [
        (
            str(i),
            plain(s.label),
            code(s.curve.name),
            str(len(s.finals)),
            f"{number(s.final.value)} ({number(s.final.low)} to {number(s.final.high)})",
            _last_steps(s.curve),
        )
        for i, s in enumerate(ranked, start=1)
    ]
    head = ("rank", "run", "metric", "seeds", "final reward (95 %)", "over steps")
    parts: list[Text | Grid | Items] = [
        Grid(head, body),
        Text(
            f"The final reward is the mean of the last {LAST} steps. Of one run the interval is a block bootstrap over "
            "its steps, which says nothing about other seeds; of seeds it is a bootstrap over seeds of the "
            "interquartile mean."
        ),
        Items([*_order(ranked), *_doubts(ranked)]),
    ]
    left_out = len({(s.setting, s.label) for s in sources}) - len(ranked)
    if left_out:
        parts.append(Text(f"{left_out} without a finite reward are left out."))
    parted = [sentence for low in ranked[1:] for sentence in _parting(ranked[0], low, remarks)]
    return Section("Comparison", parts, [Section("Where the curves part, and why", [Items(parted)])] if parted else ())


def parting(high: Series, low: Series) -> int | None:
    """Return the first common step from which one lies above the other beyond noise until the end, or None.

    Both are smoothed over a window of a twentieth of the run (at least 5 steps); the noise of such means is that of
    what is left around the moving mean, divided by the window's root.
    """
    mine, theirs = (dict(zip(s.steps, s.values, strict=True)) for s in (high, low))
    steps = sorted(mine.keys() & theirs.keys())
    if len(steps) < 2 * CLEAR + 2:
        return None
    window = max(5, len(steps) // 20 | 1)
    a, b = [mine[s] for s in steps], [theirs[s] for s in steps]
    room = CLEAR * math.sqrt((residuals(a).var() + residuals(b).var()) / window)
    gaps = [p - q for p, q in zip(smoothed(a, window), smoothed(b, window), strict=True)]
    if abs(gaps[-1]) <= room:
        return None
    sign = math.copysign(1.0, gaps[-1])
    inside = [i for i, gap in enumerate(gaps) if sign * gap <= room]
    return steps[inside[-1] + 1 if inside else 0]


def _order(ranked: Sequence[Standing]) -> Iterator[str]:
    for high, low in pairwise(ranked):
        gap = number(high.final.value - low.final.value)
        pair = f"{plain(high.label)} over {plain(low.label)} ({_last_steps(high.curve)}, {_last_steps(low.curve)})"
        if high.final.low > low.final.high:
            yield f"{pair}: by {gap}, the intervals do not touch."
        else:
            yield f"{pair}: by {gap}, but the intervals overlap, so the order is **inside the noise**."


def _doubts(ranked: Sequence[Standing]) -> Iterator[str]:
    """Yield what forbids or weakens the ranking."""
    names = {s.curve.name for s in ranked}
    if len(names) > 1:
        kinds = ", ".join(map(code, sorted(names)))
        yield f"These rewards are different quantities ({kinds}): the ranking is no verdict."
    if len({s.curve.steps[-1] for s in ranked}) > 1:
        yield "The runs end at different steps: a longer one had more time."
    if all(len(s.finals) == 1 for s in ranked) and len(ranked) > 1:
        yield "One run each: another seed may end elsewhere, by more than these intervals say."
    trees = [s.sources[0].store.config_tree() for s in ranked if s.sources[0].store is not None]
    if len(trees) == len(ranked) > 1:
        first = flat_settings(trees[0])
        keys = sorted({key for tree in trees[1:] for key in differing(first, flat_settings(tree))})
        yield (
            f"Their configs differ in: {', '.join(map(code, keys))}."
            if keys
            else "Their configs differ in the seed alone."
        )
    elif len(ranked) > 1:
        yield "Whether they share task, reward and scale, the logs do not say; if not, the ranking means nothing."


def _parting(best: Standing, other: Standing, remarks: Mapping[str, Sequence[Remark]]) -> Iterator[str]:
    step = parting(best.curve, other.curve)
    names = f"{plain(best.label)} and {plain(other.label)}"
    if step is None:
        yield (
            f"{names} do not part in {code(best.curve.name)}: the gap stays inside the noise of both, or they share "
            "too few steps."
        )
        return
    common = sorted(set(best.curve.steps) & set(other.curve.steps))
    yield f"{names} part at step {step} in {code(best.curve.name)} and stay apart (steps {step} to {common[-1]})."
    reach = common[-1] - common[0]
    near = [
        (standing, r)
        for standing in (best, other)
        for source in standing.sources
        for r in remarks.get(source.label, ())
        if r.first is not None and step - BEFORE * reach <= r.first <= step + AFTER * reach and r.rank > 1
    ]
    if near:
        standing, remark = min(near, key=lambda pair: (-pair[1].rank, abs((pair[1].first or 0) - step)))
        yield (
            f"The finding nearest to that: **{plain(remark.title)}** in {plain(standing.label)}, {remark.where}: "
            f"{plain(remark.sentence)}"
        )
        return
    earlier = sorted((at, name) for name in ELSEWHERE if (at := _parts(best, other, name)) is not None and at < step)
    if earlier:
        at, name = earlier[0]
        yield (
            f"No finding stands near step {step}. {code(name)} parted before the reward, at step {at}: look there "
            "first."
        )
    else:
        yield f"No finding stands near step {step}, and none of {', '.join(map(code, ELSEWHERE))} parted earlier."


def _parts(best: Standing, other: Standing, name: str) -> int | None:
    one, two = best.sources[0].nearest(name), other.sources[0].nearest(name)
    if one is None or two is None or not one.values or not two.values or one.name != two.name:
        return None
    return parting(one, two)


def _last_steps(curve: Series) -> str:
    steps = curve.steps[-LAST:]
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
