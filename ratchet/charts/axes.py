"""What a chart may have on its x axis: the step, or what was spent until its end. Reads series, draws nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ratchet.charts.series import Series
from ratchet.core.errors import ConfigError, nearest
from ratchet.store.run_store import Row

WORK = tuple(f"flops/{what}/step" for what in ("generate", "agents", "train", "curriculum"))
"""All that a step computes."""

Find = Callable[[str], Series | None]
"""From a name to the series a run has, or None."""


@dataclass(frozen=True, slots=True)
class Spent:
    """One way of telling what a step spends."""

    label: str
    names: tuple[str, ...]
    """Series that are summed; of several, some may be missing."""
    is_total: bool = False
    """Whether the series are running sums already."""
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Axis:
    """An x axis."""

    key: str
    label: str
    spent: tuple[Spent, ...] = ()
    """Ways of telling it, the best first; empty for the step itself."""

    def at(self, rows: Sequence[Row]) -> Mapping[int, float]:
        """Return step -> place for the rows of a run of ours; what a row lacks counts as 0.

        Rows of a resumed run are in order, so that nothing counts twice.
        """
        if not self.spent:
            return {int(row["step"]): float(row["step"]) for row in rows}
        way = self.spent[0]
        added = [way.factor * sum(float(row.get(name, 0.0)) for name in way.names) for row in rows]
        return {int(row["step"]): total for row, total in zip(rows, accumulate(added), strict=True)}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the steps of one run lie on an axis."""

    label: str
    at: Mapping[int, float]
    """Step -> place at its end; empty where places are the steps themselves."""
    steps: tuple[int, ...] = ()
    """The steps of `at`, rising."""

    @property
    def is_step(self) -> bool:
        return not self.steps

    def of(self, step: int) -> float:
        """Return the place of a step; of one that spent nothing, that of the step before."""
        if self.is_step:
            return float(step)
        found = bisect_right(self.steps, step)
        return self.at[self.steps[found - 1]] if found else 0.0


AXES: Mapping[str, Axis] = {
    axis.key: axis
    for axis in (
        Axis("step", "Step"),
        Axis("rollouts", "Rollouts", (Spent("Rollouts", ("rollouts/step",)),)),
        Axis(
            "tokens",
            "Generated Tokens",
            (
                Spent("Generated Tokens", ("tokens/generated",)),
                Spent("Tokens Seen", ("tokens/seen",), is_total=True),
                Spent("Tokens, Prompts Included", ("tokens/total",)),
            ),
        ),
        Axis("flops", "RL FLOPs", (Spent("RL FLOPs", WORK),)),
        Axis(
            "time",
            "Time (minutes)",
            (Spent("Time (minutes)", ("time/step",), factor=1 / 60),),
        ),
    )
}
"""Axes by the name the command line knows them by. All but ``step`` count up to the end of the step."""


def axis_named(name: str) -> Axis:
    """Return an axis. Raises `ConfigError` for an unknown one."""
    if name not in AXES:
        raise ConfigError(f'There is no x axis "{name}".{nearest(name, AXES)}')
    return AXES[name]


def places(axis: Axis, find: Find, step_label: str) -> Places | None:
    """Return where the steps of a run lie on an axis; None if the run does not record it, or spent nothing."""
    if not axis.spent:
        return Places(step_label, {})
    for way in axis.spent:
        found = [series for name in way.names if (series := find(name)) is not None and series.values]
        if not found:
            continue
        amounts: dict[int, float] = {}
        for series in found:
            for step, value in zip(series.steps, series.values, strict=True):
                amounts[step] = amounts.get(step, 0.0) + way.factor * value
        steps = sorted(amounts)
        ordered = [amounts[step] for step in steps]
        if not any(ordered):
            continue
        totals = ordered if way.is_total else list(accumulate(ordered))
        return Places(way.label, dict(zip(steps, totals, strict=True)), tuple(steps))
    return None
