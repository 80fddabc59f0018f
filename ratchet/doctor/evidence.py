"""What the rules look at: the series of a log as curves, made once, and what else is known of the run.

A rule gets an `Evidence` and nothing else. It can be made from a log that was read, or from rows while a run trains.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ratchet.doctor.curve import MAX_BINS, Array, Curve, Steps, curve_of
from ratchet.doctor.shape import Shape, shape_of
from ratchet.logs.log import Log
from ratchet.logs.names import STAND_INS

Raw = tuple[str, Steps, Array]
"""Key in the log, steps, values."""
MIN_POINTS = 8
"""Fewer points than this make no curve: nothing can be told from their noise."""
MIN_EVALS = 5
"""The same of an evaluation, which is dearer and less noisy."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The series of one run, and what is known of its settings."""

    raw: Mapping[str, Raw]
    """Canonical name -> key, steps, values; NaN and infinity where the log has them."""
    framework: str = "plain"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Config of a run of ours, flat: ``algorithm.lr`` -> 0.001. Empty for logs of others."""
    online: bool = False
    """Whether the same rules are asked at every step: differences must then be larger."""
    _curves: dict[tuple[str, bool], Curve | None] = field(default_factory=dict, repr=False)

    def curve(self, name: str, *, log: bool = False, least: int = MIN_POINTS) -> Curve | None:
        """Return the curve of a name or of what may stand in for it, or None if there is none of `least` points.

        With `log` the logarithm of a quantity that is positive where it means anything: changes are then factors.
        """
        for n in (name, *STAND_INS.get(name, ())):
            if (n, log) not in self._curves:
                self._curves[n, log] = self._made(n, log)
            found = self._curves[n, log]
            if found is not None and len(found) >= least:
                return found
        return None

    def first_of(self, *names: str, log: bool = False, least: int = MIN_POINTS) -> Curve | None:
        """Return the curve of the first of these names that there is."""
        return next((c for n in names if (c := self.curve(n, log=log, least=least)) is not None), None)

    def names(self, *patterns: str) -> list[str]:
        """Return the names that fit one of these patterns, in the log's order."""
        return [n for n in self.raw if any(fnmatch.fnmatchcase(n, p) for p in patterns)]

    def values(self, name: str) -> tuple[Steps, Array] | None:
        """Return the finite points of a name or of what may stand in for it, one by one, or None."""
        for n in (name, *STAND_INS.get(name, ())):
            if n in self.raw:
                _, steps, values = self.raw[n]
                good = np.isfinite(values)
                if good.any():
                    return steps[good], values[good]
        return None

    def share(self, names: Iterable[str], over: str) -> Curve | None:
        """Return the sum of some series over another, 0 where one of them is missing; None without the other."""
        whole = self.values(over)
        if whole is None or len(whole[0]) < MIN_POINTS:
            return None
        steps, total = whole
        parts = np.zeros(len(steps))
        found = [name for name in names if name in self.raw]
        for name in found:
            _, at, values = self.raw[name]
            _, here, there = np.intersect1d(steps, at, assume_unique=True, return_indices=True)
            parts[here] += np.nan_to_num(values[there], nan=0.0, posinf=0.0, neginf=0.0)
        if not found:
            return None
        return curve_of(found[0], " + ".join(self.raw[n][0] for n in found), steps, parts / np.maximum(total, 1e-12),
                        online=self.online)  # fmt: skip

    @cached_property
    def reward(self) -> Shape | None:
        """Return the course of the reward, or None if there is none of enough points."""
        curve = self.curve("reward/mean")
        return None if curve is None else shape_of(curve, self._reward_scale())

    @cached_property
    def task(self) -> Shape | None:
        """Return the course of what measures the task itself: an accuracy among the reward's parts, or the reward."""
        name = next((n for n in self.parts() if is_task(n)), None)
        curve = self.curve(name) if name else None
        return self.reward if curve is None else shape_of(curve, None)

    def parts(self) -> list[str]:
        """Return the named components of the reward."""
        return self.names("reward/parts/*")

    def evaluations(self) -> list[str]:
        """Return the evaluations that measure the task, best first: of held-out tasks, not sizes and lengths."""
        names = [n for n in self.raw if n.startswith("eval/") and not any(word in n for word in _NO_MEASURE)]
        return sorted(names, key=lambda n: (not any(word in n for word in _MEASURES), -len(self.raw[n][1])))

    @cached_property
    def span(self) -> tuple[int, int]:
        """Return the first and the last step of the run."""
        ends = [(int(s[0]), int(s[-1])) for n, (_, s, _) in self.raw.items() if len(s) and not n.startswith("eval/")]
        return (min(a for a, _ in ends), max(b for _, b in ends)) if ends else (0, 0)

    def setting(self, name: str) -> Any:
        """Return a setting of a run of ours, or None."""
        return self.settings.get(name)

    @property
    def planned_age(self) -> float:
        """Return how many steps behind the trainer samples may be as the settings of a run of ours ask for; else 0.

        A sampler that is refreshed every i steps, and may run o steps ahead, samples with weights up to i - 1 + o old.
        """
        interval, offset = self.setting("sync.interval"), self.setting("sync.offset") or 0
        if not isinstance(interval, int | float):
            parts = [value for name, value in self.settings.items() if name.startswith("sync.interval.")]
            interval = max((float(v) for v in parts if isinstance(v, int | float)), default=1.0)
        return float(interval) - 1 + float(offset)

    def prefix(self, step: int) -> Evidence:
        """Return what was known after a step, for rules that run during training."""
        cut = {}
        for name, (key, steps, values) in self.raw.items():
            end = int(np.searchsorted(steps, step, side="right"))
            if end:
                cut[name] = (key, steps[:end], values[:end])
        return Evidence(cut, self.framework, self.settings, online=True)

    def _made(self, name: str, log: bool) -> Curve | None:
        if name not in self.raw:
            return None
        key, steps, values = self.raw[name]
        good = np.isfinite(values)
        if np.count_nonzero(good) < MIN_EVALS or (log and not (values[good] > 0).any()):
            return None
        return curve_of(name, key, steps[good], values[good], log=log, online=self.online)

    def _reward_scale(self) -> float | None:
        """Return how far apart rewards of single rollouts lie: highest minus lowest, or twice their deviation."""
        top, bottom = self.values("reward/max"), self.values("reward/min")
        if top is not None and bottom is not None and float(top[1].max() - bottom[1].min()) > 0:
            return float(np.quantile(top[1], 0.9) - np.quantile(bottom[1], 0.1)) or None
        found = self.values("reward/std")
        return 2 * float(np.quantile(found[1], 0.9)) or None if found is not None else None


_NO_MEASURE = ("length", "tasks", "samples", "failed", "_low", "_high", "std", "num_", "time", "truncated", "env_",
               "tokens", "format")  # fmt: skip
_MEASURES = ("pass@1", "pass1", "acc", "mean@", "reward_mean", "avg_score", "score", "reward")
_TASK_WORDS = ("accuracy", "acc", "correct", "answer", "solved", "task", "exact", "pass")
_FORMAT_WORDS = ("format", "tag", "xml", "structure", "template", "syntax")


def is_task(name: str) -> bool:
    """Return whether a component's name says that it measures the task."""
    last = name.lower()
    return any(word in last for word in _TASK_WORDS) and not is_format(name)


def is_format(name: str) -> bool:
    """Return whether a component's name says that it measures form."""
    return any(word in name.lower() for word in _FORMAT_WORDS)


def evidence_of(log: Log, settings: Mapping[str, Any] | None = None, *, online: bool = False) -> Evidence:
    """Return the evidence of a log that was read; of what no table knows, only series of sub-agents."""
    unnamed = {key: s for key, s in log.unrecognised.items() if "parallelism" in key.lower()}
    series = {**unnamed, **log.series, **log.evals}
    raw = {name: (s.key, s.steps, s.values) for name, s in series.items() if len(s.steps)}
    return Evidence(raw, log.framework.name, settings or {}, online=online)


def evidence_of_rows(
    rows: Sequence[Mapping[str, float]], settings: Mapping[str, Any] | None = None, *, last: int = 4 * MAX_BINS
) -> Evidence:
    """Return the evidence of rows of metrics while a run trains: those of the newest `last` steps, each with its step.

    The names are those of our own runs.
    """
    rows = rows[-last:]
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    raw = {}
    for name in names:
        points = [(int(row["step"]), float(row[name])) for row in rows if name in row]
        raw[name] = (name, np.array([s for s, _ in points], dtype=np.int64), np.array([v for _, v in points]))
    return Evidence(raw, "ratchet", settings or {}, online=True)
