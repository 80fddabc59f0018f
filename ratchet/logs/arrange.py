"""Steps put in order: where a resumed run goes back, which of repeated rows counts, which rows came late.

The rules, applied to the steps of one axis in the order of the log:

* *Join.* The steps go back and then repeat steps that were there, or run on for three rows or more below the highest:
  a run that was resumed or began anew. The later part replaces every row of the earlier one from its first step on,
  also those beyond what it has reached: they belong to a branch that was given up.
* *Late row.* The steps go back to one that was not there yet: rows out of order, sorted.
* *Repeat.* The same step again without going back (several processes, several updates): the last row counts.
* Where going back is the rule rather than the exception, several processes write at once: no joins, last row counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.logs.log import Join

RUN_ON = 3
"""Rows in order below the highest step that make a join even if no step repeats."""
MANY = 0.05
"""Share of rows that go back above which it is the rule."""
FEW = 3
"""Joins that are always believed."""


@dataclass(frozen=True, slots=True, eq=False)
class Arranged:
    """Which rows to take, in the order of their steps."""

    keep: NDArray[np.int64]
    """Places among the rows given."""
    joins: tuple[Join, ...]
    num_repeats: int
    num_late: int


def arrange(steps: NDArray[np.float64], rows: NDArray[np.int64], known: Sequence[Join] = ()) -> Arranged:
    """Return how to order rows with these steps, whole numbers or NaN, and these places in the log.

    Rows without a step are left out. `known` are joins that other rows of the same axis have shown: they hold for
    these as well.
    """
    count = len(steps)
    if count == 0 or (not known and bool(np.all(np.diff(steps) > 0))):
        return Arranged(np.arange(count), (), 0, 0)
    alive = np.isfinite(steps)
    for join in known:
        alive &= ~((rows < join.row) & (steps >= join.entered))
    alive, num_repeats = _last_of_runs(steps, alive)
    places = np.flatnonzero(alive)
    joins = _joins(steps[places], rows[places])
    for join in joins:
        alive &= ~((rows < join.row) & (steps >= join.entered))
    places = np.flatnonzero(alive)
    num_late = int(np.count_nonzero(np.diff(steps[places]) < 0))
    places = places[np.argsort(steps[places], kind="stable")]
    last = np.append(np.diff(steps[places]) > 0, [True]) if len(places) else np.empty(0, dtype=bool)
    return Arranged(places[last], tuple(joins), num_repeats + int(np.count_nonzero(~last)), num_late)


def _last_of_runs(steps: NDArray[np.float64], alive: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """Return the rows without those that the next one repeats."""
    places = np.flatnonzero(alive)
    repeated = np.append(np.diff(steps[places]) == 0, [False]) if len(places) else np.empty(0, dtype=bool)
    alive = alive.copy()
    alive[places[repeated]] = False
    return alive, int(np.count_nonzero(repeated))


def _joins(steps: NDArray[np.float64], rows: NDArray[np.int64]) -> list[Join]:
    """Return the joins among rows of which no two neighbours have the same step."""
    backs = np.flatnonzero(np.diff(steps) < 0) + 1
    if len(backs) == 0 or len(backs) > max(10 * FEW, MANY * len(steps)):
        return []
    joins: list[Join] = []
    begin = 0  # of the part that is not replaced altogether
    first = float(steps[0])
    for at in backs.tolist():
        before = steps[begin:at]
        highest = float(before.max())
        end = at + 1
        while end < len(steps) and steps[end] > steps[end - 1] and steps[end] <= highest:
            end += 1
        again = np.isin(steps[at:end], before).any()
        if not again and end - at < RUN_ON:
            continue
        entered = int(steps[at])
        replaced = len(np.unique(before[before >= entered]))
        joins.append(Join(int(rows[at]), int(steps[at - 1]), entered, replaced, entered <= first))
        if entered <= first:
            begin, first = at, float(entered)
    return joins if len(joins) <= max(FEW, MANY * len(steps)) else []


def numbered(rows: NDArray[np.int64], num_rows: int, epochs: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return a step for every row of a log that names none: how many of the leading rows have come by then.

    `rows` are the rows that lead: those of the commonest keys. What stands between them (evaluations, say) gets the
    number of the leading row before. Where `epochs` of the leading rows fall, the count goes back to where the epoch
    was before.
    """
    counts = np.arange(1.0, len(rows) + 1)
    falls = np.flatnonzero(np.diff(epochs) < 0) + 1 if epochs is not None and len(rows) else np.empty(0, dtype=np.int64)
    if epochs is not None and len(falls) <= max(FEW, MANY * len(rows)):
        for at in falls.tolist():
            behind = np.flatnonzero(epochs[:at] >= epochs[at])
            first = int(behind[0]) if len(behind) else at
            counts[at:] += counts[first] - counts[at]
    marks = np.searchsorted(rows, np.arange(num_rows), side="right") - 1
    return np.where(marks >= 0, counts[np.maximum(marks, 0)], 0.0) if len(rows) else np.zeros(num_rows)


def filled(steps: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the steps with gaps filled from the row before (0 at the beginning), and where there was one.

    A step that is no whole number of at most 15 digits is a gap.
    """
    whole = np.isfinite(steps) & (np.abs(steps) < 1e15)
    whole[whole] = steps[whole] == np.floor(steps[whole])
    if bool(whole.all()):
        return steps, ~whole
    last = np.maximum.accumulate(np.where(whole, np.arange(len(steps)), -1))
    return np.where(last >= 0, steps[np.maximum(last, 0)], 0.0), ~whole
