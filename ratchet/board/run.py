"""One run of ours, followed while it grows: its numbers, events, status, config. Reads its folder, writes nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.board.curve import Curve, Floats, finite
from ratchet.board.follow import Columns, Follower, Row
from ratchet.board.state import Now, State, state_of
from ratchet.charts.axes import AXES, WORK
from ratchet.charts.grouping import flat_settings
from ratchet.core.errors import ConfigError
from ratchet.store.run_store import RunStore

SUMMED: Mapping[str, tuple[str, ...]] = {
    "rollouts": ("rollouts/step",),
    "tokens": ("tokens/generated",),
    "flops": WORK,
    "time": ("time/step",),
}
"""Axis -> the columns that it counts up."""
RECENT_STEPS = 20
"""Steps whose median says what a step usually takes."""


class OwnRun:
    """A run folder. Calls come from several threads; `refresh` and readers exclude each other."""

    def __init__(self, folder: Path) -> None:
        self.store = RunStore(folder)
        self.version = 0
        """Grows when something of the run has changed."""
        self.columns = Columns()
        self.lock = threading.RLock()
        self._metrics, self._log = Follower(folder / "metrics.jsonl"), Follower(folder / "events.jsonl")
        self._events: list[Row] = []
        self._curves: dict[str, Curve] = {}
        """Curves that were asked for since the run changed."""
        self._status: Row = {}
        self._settings: Mapping[str, Any] = {}
        self._config_at = 0
        self._damage = ""
        self._last_word = 0.0
        self._spoken = State.DAMAGED

    @property
    def path(self) -> Path:
        return self.store.folder

    def refresh(self) -> bool:
        """Read what is new; return whether anything is."""
        with self.lock:
            changed = self._read_config()
            for follower, take in ((self._metrics, self._take_metrics), (self._log, self._take_events)):
                rows, again = follower.fresh()
                if rows or again:
                    take(rows, again)
                    self._curves.clear()
                    changed = True
            status = self._read_status()
            changed |= status != self._status
            self._status = status
            self._last_word = max(self._last_word, self._touched())
            word = self.now().state
            changed |= word != self._spoken  # a process that died, or fell silent, writes nothing
            self._spoken = word
            self.version += changed
            return changed

    def _take_metrics(self, rows: Sequence[Row], again: bool) -> None:
        if again:
            self.columns = Columns()
        self.columns.extend(rows)

    def _take_events(self, rows: Sequence[Row], again: bool) -> None:
        whole = [row for row in rows if isinstance(row.get("kind"), str) and isinstance(row.get("step"), int)]
        self._events = whole if again else [*self._events, *whole]

    def _read_config(self) -> bool:
        path = self.path / "config.toml"
        try:
            changed_at = path.stat().st_mtime_ns
            if changed_at == self._config_at:
                return False
            self._config_at = changed_at
            self._settings, self._damage = flat_settings(self.store.config_tree()), ""
        except (ConfigError, OSError, KeyError, TypeError) as error:
            damage = f"config.toml cannot be read: {error}"
            changed, self._damage = damage != self._damage, damage
            return changed
        return True

    def _read_status(self) -> Row:
        try:
            return self.store.status()
        except (ValueError, OSError, TypeError):
            return {}

    def _touched(self) -> float:
        found = [0.0]
        for path in (self._metrics.path, self._log.path):
            with suppress(OSError):  # not there yet, or no longer
                found.append(path.stat().st_mtime)
        return max(found)

    def now(self) -> Now:
        """Return what the run does now."""
        if self._damage:
            return Now(State.DAMAGED, self._damage)
        return state_of(self._status, self._last_word, self.step_s())

    def step_s(self) -> float:
        """Return what a step usually takes, in seconds; 0 before the first."""
        recent = self.columns.column("time/step")[-RECENT_STEPS:]
        known = recent[np.isfinite(recent)]
        return float(np.median(known)) if len(known) else 0.0

    @property
    def settings(self) -> Mapping[str, Any]:
        """The config as dotted key -> value, defaults filled in."""
        return self._settings

    @property
    def events(self) -> Sequence[Row]:
        return self._events

    @property
    def status(self) -> Mapping[str, Any]:
        return self._status

    @property
    def last_word(self) -> float:
        """When one of its files last changed, Unix time; 0 if never."""
        return self._last_word

    @property
    def num_unreadable(self) -> int:
        """Lines of metrics and events that are damaged and were passed over."""
        return self._metrics.num_unreadable + self._log.num_unreadable

    def steps(self) -> tuple[int, int]:
        """Return how many steps are done, and how many were asked for (0 if that is not known)."""
        done = int(self.columns.steps[-1]) + 1 if self.columns.size else 0
        return done, int(self._settings.get("train.steps", 0))

    def names(self) -> list[str]:
        """Return all metrics that have a value, evaluations included."""
        with self.lock:
            found = {f"eval/{e['split']}/{k}" for e in self._evaluations() for k, v in e.items() if _is_fact(k, v)}
            return [*self.columns.names(), *sorted(found)]

    def curve(self, name: str) -> Curve:
        """Return a metric over the steps."""
        with self.lock:
            if name not in self._curves:
                self._curves[name] = self._curve(name)
            return self._curves[name]

    def _curve(self, name: str) -> Curve:
        if name.startswith("eval/"):
            return self._evaluation(name)
        return finite(name, self.columns.steps, self.columns.column(name), absent=True)

    def axes(self) -> list[str]:
        """Return the x axes that the run has numbers for."""
        known = set(self.columns.names())
        return ["step", *(axis for axis, names in SUMMED.items() if known & set(names))]

    def places(self, axis: str, steps: NDArray[np.int64], *, evaluation: bool = False) -> Floats:
        """Return where steps lie on an axis. An evaluation after k steps stands where step k - 1 ended."""
        if axis == "step":
            return steps.astype(np.float64)
        with self.lock:
            mine = self.columns.steps
            total = np.zeros(len(mine))
            for name in SUMMED[axis]:
                total += np.cumsum(np.nan_to_num(self.columns.column(name)))
        if axis == "time":
            total /= 60  # minutes, as AXES["time"] says
        found = np.searchsorted(mine, steps - 1 if evaluation else steps, side="right") - 1
        return np.where(found >= 0, total[np.maximum(found, 0)] if len(total) else 0.0, 0.0)

    def _evaluations(self) -> list[Row]:
        """Return the evaluations that count: not those after a checkpoint that the run was turned back to."""
        found: list[Row] = []
        for event in self._events:
            if event["kind"] == "eval" and "split" in event:
                found.append(event)
            elif event["kind"] == "rollback" and isinstance(event.get("to"), int):
                found = [known for known in found if known["step"] <= event["to"]]
        return found

    def _evaluation(self, name: str) -> Curve:
        _, split, fact = name.split("/", 2)
        latest = {
            int(e["step"]): float(e[fact])
            for e in self._evaluations()
            if e["split"] == split and fact in e and _is_fact(fact, e[fact])
        }
        steps = np.array(sorted(latest), dtype=np.int64)
        return finite(name, steps, np.array([latest[s] for s in steps.tolist()], dtype=np.float64), absent=False)

    def document(self, name: str) -> Mapping[str, Any]:
        """Return ``plan.json`` or ``environment.json``; empty if it cannot be read."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def checkpoints(self) -> list[int]:
        """Return the steps of the checkpoints that are there."""
        found = (self.path / "checkpoints").glob("step_*")
        return sorted(int(p.name[5:]) for p in found if p.name[5:].isdecimal())

    def begun(self) -> float:
        """Return when the run began, Unix time; 0 if that is not known."""
        first = next((e for e in self._events if isinstance(e.get("time"), int | float)), None)
        return float(first["time"]) if first is not None else 0.0

    def age_s(self) -> float:
        """Return the seconds since its last word."""
        return max(0.0, time.time() - self._last_word) if self._last_word else 0.0


def axis_label(axis: str) -> str:
    """Return what stands under a chart with this axis."""
    return AXES[axis].label


def _is_fact(name: str, value: object) -> bool:
    return (
        name not in ("kind", "split", "step", "time") and isinstance(value, int | float) and not isinstance(value, bool)
    )
