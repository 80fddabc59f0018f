"""From rows and a framework's table to a `Log`: which step each row has, which name each key, what there is to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ratchet.logs.arrange import FEW, MANY, Arranged, arrange, filled, numbered
from ratchet.logs.collect import Group, Table
from ratchet.logs.frameworks.entry import Framework, Match, Product, StepKey, match
from ratchet.logs.log import Join, Series, StepAxis
from ratchet.logs.names import STAND_INS

COMMON_STEPS = ("step", "global_step", "_step", "Step", "Steps", "train/global_step", "iteration", "training_step")
"""Keys that hold the step wherever they occur, best first."""
BOOKKEEPING = frozenset({*COMMON_STEPS, "_timestamp", "_runtime", "timestamp", "time", "Relative Time (Process)"})
"""Keys that are neither series nor unknown."""
BARRED = 0.9
"""Share of the leading rows that a progress bar must follow to give the steps."""
COVERED = 0.5
"""Share of its rows that a step key must be on to be theirs."""


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """Series and what happened to their rows."""

    series: dict[str, Series]
    evals: dict[str, Series]
    also: dict[str, Series]
    unrecognised: dict[str, Series]
    axis: StepAxis
    joins: tuple[Join, ...]
    num_repeats: int
    num_late: int
    num_without_step: int
    """Rows that took the step of the row before; all of them where `axis` is the row."""
    first_step: int
    """Of the leading series."""
    stride: int
    """Usual distance of its steps."""
    by_bar: bool
    """Whether the steps are those of a progress bar."""
    num_unreadable: int
    """Rows left out because their step is no step, where those of their like have one."""


@dataclass(slots=True, eq=False)
class _Part:
    """Keys with the same rows and the same axis."""

    group: Group
    keys: list[str]
    axis: StepAxis
    steps: NDArray[np.float64]
    arranged: Arranged = field(default_factory=lambda: Arranged(np.empty(0, dtype=np.int64), (), 0, 0))


def build(table: Table, framework: Framework) -> Built:
    """Return the series of a table's rows, named and ordered."""
    groups = list(table.groups())
    clock = _Clock(table, framework, groups)
    parts = [part for group in groups for part in clock.parts(group)]
    _arrange_all(parts)
    leading = next(iter(_leading(parts)), None)
    named = _Named()
    raw: dict[str, Series] = {}
    for part in parts:
        steps = part.steps[part.arranged.keep].astype(np.int64)
        for key in part.keys:
            found = match(framework, key)
            series = _series(key, found, part, steps)
            raw[key] = series
            if found is not None or key not in BOOKKEEPING:
                named.take(key, found, series)
    for product in framework.products:
        made = _product(product, raw)
        if made is not None:
            named.take(made.key, Match(framework.keys[0], -1, made.name, made.change), made)
    steps_led = leading.steps[leading.arranged.keep] if leading else np.empty(0)
    training, evals, also, unrecognised = named.result()
    main = next((training[name] for name in ("reward/mean", *STAND_INS["reward/mean"]) if name in training), None)
    return Built(
        training,
        evals,
        also,
        unrecognised,
        axis=main.axis if main else leading.axis if leading else framework.axis,
        joins=_told_joins(parts, groups),
        num_repeats=sum(p.arranged.num_repeats for p in _leading(parts)),
        num_late=sum(p.arranged.num_late for p in _leading(parts)),
        num_without_step=clock.num_without_step,
        first_step=int(steps_led[0]) if len(steps_led) else 0,
        stride=int(np.median(np.diff(steps_led))) if len(steps_led) > 1 else 1,
        by_bar=clock.by_bar,
        num_unreadable=clock.num_unreadable,
    )


class _Clock:
    """Knows which step each row has, for the keys of each axis."""

    def __init__(self, table: Table, framework: Framework, groups: Sequence[Group]) -> None:
        self._framework = framework
        self._num_rows = table.num_rows
        self._columns: dict[str, NDArray[np.float64]] = {}
        self._epochs = np.full(self._num_rows, np.nan)
        wanted = {*COMMON_STEPS, *(step.key for step in framework.steps)}
        for group in groups:
            for key in wanted & set(group.columns):
                column = self._columns.setdefault(key, np.full(self._num_rows, np.nan))
                column[group.rows] = group.columns[key]
            if "epoch" in group.columns:
                self._epochs[group.rows] = group.columns["epoch"]
        explicit = table.steps()
        if bool(np.isfinite(explicit).any()):
            self._columns[""] = explicit  # what the format itself says; keys in the row say it better
        self._leading = max(groups, key=lambda g: len(g.rows) * len(g.columns), default=None)
        self._filled: dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]] = {}
        self._without = np.zeros(self._num_rows, dtype=bool)
        self._unreadable = np.zeros(self._num_rows, dtype=bool)
        self._counted: NDArray[np.float64] | None = None
        self.by_bar = not self._columns and self._add_bars(table)

    def parts(self, group: Group) -> Iterable[_Part]:
        """Yield the keys of a group by their axis."""
        by_axis: dict[StepAxis, tuple[list[str], NDArray[np.float64]]] = {}
        for key in group.columns:
            if key in self._columns and key in BOOKKEEPING:
                continue
            own = [step for step in self._framework.steps if key.startswith(step.prefix)]
            axis = next((step.axis for step in own if step.prefix), self._framework.axis)
            if axis not in by_axis:
                name = self._name(group, own)
                if name is None:
                    axis = StepAxis.ROW
                by_axis.setdefault(axis, ([], self._steps(name, group.rows)))
            by_axis[axis][0].append(key)
        for axis, (keys, steps) in by_axis.items():
            yield _Part(group, keys, axis, steps)

    def _name(self, group: Group, own: Sequence[StepKey]) -> str | None:
        """Return the column of steps for rows: the first that is on most of them, else the one on most; or None."""
        candidates = [name for name in (*(s.key for s in own), *COMMON_STEPS, "") if name in self._columns]
        shares = {name: float(np.isfinite(self._columns[name][group.rows]).mean()) for name in candidates}
        for name in candidates:
            if shares[name] >= COVERED:
                return name
        anywhere = {name: int(np.isfinite(self._columns[name]).sum()) for name in candidates}
        return max(candidates, key=lambda name: (shares[name], anywhere[name]), default=None)

    @property
    def num_without_step(self) -> int:
        """Return how many rows took their step from elsewhere."""
        return int(np.count_nonzero(self._without))

    @property
    def num_unreadable(self) -> int:
        """Return how many rows were left out because their step is no step."""
        return int(np.count_nonzero(self._unreadable))

    def _steps(self, name: str | None, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the steps of rows by one column, gaps filled; by counting rows if there is no column."""
        if name is None:
            self._without[rows] = True
            if self._counted is None:
                self._counted = self._count()
            return self._counted[rows]
        if name not in self._filled:
            self._filled[name] = filled(self._columns[name])
        steps, gaps = self._filled[name]
        if gaps[rows].mean() <= 1 - COVERED:  # a step that one of them lacks is not guessed from its like
            self._unreadable[rows] |= gaps[rows]
            return np.where(gaps[rows], np.nan, steps[rows])
        self._without[rows] |= gaps[rows]
        return steps[rows]

    def _count(self) -> NDArray[np.float64]:
        """Return the rows numbered; where the epoch falls, a run went on from a checkpoint and the numbers fall too."""
        if self._leading is None:
            return np.zeros(self._num_rows)
        return numbered(self._leading.rows, self._num_rows, self._epochs[self._leading.rows])

    def _add_bars(self, table: Table) -> bool:
        """Take the steps from the progress bar printed after each row, if it was; return whether it was."""
        totals = Counter(total for _, _, total in table.bars)
        total = totals.most_common(1)[0][0] if totals else 0
        bars = [(row, step) for row, step, of in table.bars if of == total]
        leading = set(self._leading.rows.tolist()) if self._leading is not None else set()
        led = [step for row, step in bars if row in leading]
        backs = sum(b < a for a, b in pairwise(led))  # a resumed run's bar goes back as well
        if len(led) < BARRED * max(1, len(leading)) or backs > max(FEW, MANY * len(led)):
            return False
        column = self._columns[""] = np.full(self._num_rows, np.nan)
        for row, step in bars:
            column[row] = step
        return True


def _leading(parts: Sequence[_Part]) -> list[_Part]:
    """Return the part with the most numbers on each axis: what is told of an axis is what happened to it."""
    leading: dict[StepAxis, _Part] = {}
    for part in sorted(parts, key=lambda p: -len(p.group.rows) * len(p.keys)):
        leading.setdefault(part.axis, part)
    return list(leading.values())


def _arrange_all(parts: Sequence[_Part]) -> None:
    """Order every part's rows; the joins that the leading part of an axis shows hold for its others too."""
    for leading in _leading(parts):
        leading.arranged = arrange(leading.steps, leading.group.rows)
        for part in parts:
            if part.axis is leading.axis and part is not leading:
                part.arranged = arrange(part.steps, part.group.rows, leading.arranged.joins)


def _told_joins(parts: Sequence[_Part], groups: Sequence[Group]) -> tuple[Join, ...]:
    """Return the joins of every axis, their rows counted among those that were kept."""
    joins = sorted((join for part in _leading(parts) for join in part.arranged.joins), key=lambda join: join.row)
    if not joins:
        return ()
    kept = np.unique(np.concatenate([group.rows for group in groups]))
    return tuple(replace(join, row=int(np.searchsorted(kept, join.row))) for join in joins)


def _series(key: str, found: Match | None, part: _Part, steps: NDArray[np.int64]) -> Series:
    values = np.ascontiguousarray(part.group.columns[key][part.arranged.keep])
    if found is None:
        return Series(key, key, steps, values, part.axis)
    return Series(found.name, key, steps, values, part.axis, found.key.meaning, found.change)


def _product(product: Product, raw: dict[str, Series]) -> Series | None:
    """Return the series two others make on the steps where both are, or None if one is missing."""
    left, right = raw.get(product.left), raw.get(product.right)
    if left is None or right is None:
        return None
    steps, a, b = np.intersect1d(left.steps, right.steps, assume_unique=True, return_indices=True)
    x, y = left.values[a], right.values[b]
    values = x - y if product.sign == "-" else x * y
    key = f"{product.left} {product.sign} {product.right}"
    return Series(product.name, key, steps, values, left.axis, product.meaning, product.change)


class _Named:
    """Gives names to series: of several keys with one name the table's first holds it."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, int, str, Series]] = {}
        self._also: dict[str, Series] = {}
        self._unrecognised: dict[str, Series] = {}

    def take(self, key: str, found: Match | None, series: Series) -> None:
        if found is None:
            self._unrecognised[key] = series
            return
        mine = (found.order, -len(series.steps), key, series)
        held = self._held.get(series.name)
        if held is None or mine[:2] < held[:2]:
            self._held[series.name], mine = mine, held or mine
        if held is not None:
            self._also[mine[2]] = mine[3]

    def result(self) -> tuple[dict[str, Series], dict[str, Series], dict[str, Series], dict[str, Series]]:
        """Return series of training, of evaluation, those whose name another holds, and the unrecognised."""
        all_named = {name: held[3] for name, held in self._held.items()}
        training = {n: s for n, s in all_named.items() if not n.startswith("eval/")}
        return training, {n: s for n, s in all_named.items() if n not in training}, self._also, self._unrecognised
