"""What a comparison's table says of a method: one number per seed first, then a number for all seeds."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.charts.curves import values_of
from ratchet.charts.grouping import Method, Run, Setting
from ratchet.charts.reference import Reference, reference_for
from ratchet.charts.series import CLEAR, END_STEPS, noise
from ratchet.charts.statistics import (
    at_index,
    collapse,
    crossing,
    edge,
    interval,
    iqm_of,
    mean_curve,
    smooth,
    spread,
)

REWARD, KL, LENGTH, HELD_OUT = "reward/mean", "kl/ref", "len/response/mean", "eval/test/reward_mean"
LEVEL = 0.9
"""Share of the weakest method's best reward at which divergences are compared."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a method in a setting."""

    method: Method
    steps: tuple[int, int]
    """Steps of the shortest and the longest seed."""
    seconds: float
    """Mean over seeds."""
    length: float | None
    """Mean over seeds of the last steps; None where no seed recorded it."""
    kl: float | None
    """The same."""
    first: float | None
    """Reward over the first steps, mean over seeds; this and what follows is None without a reward."""
    finals: tuple[float, ...]
    """Reward over the last steps of each seed."""
    best: tuple[float, int] | None
    """Highest value of the smoothed mean over seeds, and its step."""
    area: float | None
    """Mean reward over all steps, mean over seeds."""
    collapses: tuple[int, ...]
    """Steps from which seeds have collapsed."""
    held_out: tuple[float, ...]
    """Reward on held-out tasks at the last evaluation of each seed that has one."""

    @property
    def final(self) -> float | None:
        """Interquartile mean over seeds."""
        return iqm_of(self.finals) if self.finals else None

    @property
    def final_interval(self) -> tuple[float, float] | None:
        """Bootstrap interval of `final`; None for one seed."""
        return interval(self.finals)

    @property
    def collapsed(self) -> bool:
        """Whether half of the seeds or more have collapsed."""
        return len(self.collapses) > 0 and 2 * len(self.collapses) >= len(self.method.runs)


@dataclass(frozen=True, slots=True)
class Held:
    """A method beside its recorded reference, over the last steps that both have."""

    method: Method
    reference: Reference
    last_step: int
    ours: float
    """Reward, IQM over seeds."""
    theirs: tuple[float, ...]
    """Reward of each recorded seed."""
    error: float
    """Standard error of such a reward, from the noise between neighbouring steps; the median of the recorded seeds."""
    length: tuple[float, float] | None
    """Ours and theirs, means over seeds."""
    kl: tuple[float, float] | None

    @property
    def expected(self) -> float:
        """The recorded reward, IQM over seeds."""
        return iqm_of(self.theirs)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Where our reward may lie: from the lowest to the highest recorded seed, and some room on either side.

        The room is the distance between the two, or `CLEAR` standard errors if that is more: three seeds may lie close
        together by luck. None for one recorded seed.
        """
        if len(self.theirs) < 2:
            return None
        room = max(spread(self.theirs), CLEAR * self.error)
        return min(self.theirs) - room, max(self.theirs) + room

    @property
    def within(self) -> bool | None:
        """Whether our reward lies in the bounds; None where there are none."""
        return None if self.bounds is None else self.bounds[0] <= self.ours <= self.bounds[1]


def outcome(method: Method) -> Outcome:
    """Return what came of a method."""
    rewards = [c for c in (values_of(run, REWARD) for run in method.runs) if c]
    lengths = [len(run.rows) for run in method.runs]
    curve = mean_curve(rewards)
    smooth_steps = zip(smooth(list(curve.values())), curve, strict=True)
    best = max(smooth_steps, key=lambda p: round(p[0], 9), default=None)  # of values equal but for rounding the first
    collapses = []
    for values in rewards:
        index = collapse(list(values.values()))
        if index is not None:
            collapses.append(list(values)[index])
    return Outcome(
        method=method,
        steps=(min(lengths), max(lengths)),
        seconds=plain.fmean(sum(float(row.get("time/step", 0.0)) for row in run.rows) for run in method.runs),
        length=_end(method.runs, LENGTH),
        kl=_end(method.runs, KL),
        first=plain.fmean(edge(list(c.values()), last=False) for c in rewards) if rewards else None,
        finals=tuple(edge(list(c.values()), last=True) for c in rewards),
        best=best,
        area=plain.fmean(plain.fmean(c.values()) for c in rewards) if rewards else None,
        collapses=tuple(sorted(collapses)),
        held_out=tuple(c[max(c)] for c in (values_of(run, HELD_OUT) for run in method.runs) if c),
    )


def level_of(outcomes: Sequence[Outcome]) -> float | None:
    """Return the reward at which divergences are compared; None if some method never had to rise to it."""
    standing = [o for o in outcomes if not o.collapsed]
    bests = [o.best[0] for o in standing if o.best is not None]
    firsts = [o.first for o in standing if o.first is not None]
    level = LEVEL * min(bests, default=0.0)
    return level if level > max(0.0, *firsts, 0.0) else None


def kl_at(method: Method, level: float | None) -> float | None:
    """Return the divergence where the smoothed mean reward first reaches a level; None if it never does."""
    rewards = mean_curve([values_of(run, REWARD) for run in method.runs])
    divergences = mean_curve([values_of(run, KL) for run in method.runs])
    steps = [s for s in rewards if s in divergences]
    if level is None or not steps:
        return None
    place = crossing(smooth([rewards[s] for s in steps]), level)
    return None if place is None else at_index(smooth([divergences[s] for s in steps]), place)


def held(setting: Setting, references: Sequence[Reference]) -> list[Held]:
    """Return the methods of a setting that have a recorded reference with steps in common, beside it."""
    found = []
    for method in setting.methods:
        reference = reference_for(method, references)
        if reference is None:
            continue
        ours, theirs = _rewards(method.runs), _rewards(reference.runs)
        if not ours or not theirs:
            continue
        last = min(max(c) for c in (*ours, *theirs))
        window = range(last - END_STEPS + 1, last + 1)
        mine, recorded = _over(ours, window), _over(theirs, window)
        if mine and recorded:
            found.append(
                Held(
                    method,
                    reference,
                    last,
                    iqm_of(mine),
                    tuple(recorded),
                    plain.median(noise(list(c.values())) for c in theirs) / math.sqrt(END_STEPS),
                    _pair(method.runs, reference.runs, LENGTH, window),
                    _pair(method.runs, reference.runs, KL, window),
                )
            )
    return found


def _end(runs: Sequence[Run], metric: str) -> float | None:
    ends = [edge(list(c.values()), last=True) for c in (values_of(run, metric) for run in runs) if c]
    return plain.fmean(ends) if ends else None


def _rewards(runs: Sequence[Run]) -> list[dict[int, float]]:
    return [c for c in (values_of(run, REWARD) for run in runs) if c]


def _over(curves: Sequence[dict[int, float]], window: range) -> list[float]:
    """Return each curve's mean over the steps of a window; curves without any are left out."""
    found = [[c[s] for s in window if s in c] for c in curves]
    return [plain.fmean(values) for values in found if values]


def _pair(ours: Sequence[Run], theirs: Sequence[Run], metric: str, window: range) -> tuple[float, float] | None:
    mine = _over([values_of(run, metric) for run in ours], window)
    recorded = _over([values_of(run, metric) for run in theirs], window)
    return (plain.fmean(mine), plain.fmean(recorded)) if mine and recorded else None
