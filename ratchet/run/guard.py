"""What a run does by itself when the doctor's rules find something while it trains.

    found = guard.decide(step, row)      None, or what the loops must do now: turn back, pause, stop

Every decision is an event with its reason before anything is done about it. What was decided follows from the recorded
rows, so a resumed run decides what the killed one would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ratchet.config.guard import Action
from ratchet.config.schedule import Schedule
from ratchet.config.schema import RunConfig
from ratchet.run.checkpoint import checkpoint_path, damage, list_checkpoints
from ratchet.run.observer import Observer
from ratchet.run.remedy import Remedy, choose_remedy
from ratchet.store.run_store import Row, RunStore


@dataclass(frozen=True, slots=True)
class Alarm:
    """A finding as the guard needs it."""

    rule: str
    severity: str
    """info, warning or error."""
    metric: str
    first: int
    """Step at which it began, as far as can be told."""
    sentence: str
    remedies: tuple[str, ...] = ()
    """Names of remedies that fit its causes, most likely first."""
    helps: bool = True
    """Whether going back to earlier weights could help."""


Diagnose = Callable[[RunConfig, Sequence[Row]], Sequence[Alarm]]
"""Returns what is wrong, given the config and the rows of all steps so far."""


@dataclass(frozen=True, slots=True)
class TurnBack:
    """Go on from an earlier checkpoint."""

    to: int
    """Steps done at the checkpoint."""
    reason: str
    remedy: Remedy | None
    request: int = 0
    """Number of the request of a person that asked for it; 0 if nobody did."""


@dataclass(frozen=True, slots=True)
class Halt:
    """End the run now: paused, to be resumed; or stopped, as failed."""

    kind: Literal["paused", "stopped_by_guard"]
    reason: str


Decision = TurnBack | Halt


class Guard:
    """Looks after every step."""

    def __init__(
        self,
        config: RunConfig,
        store: RunStore,
        schedule: Schedule,
        diagnose: Diagnose,
        observer: Observer,
        *,
        step: int,
    ) -> None:
        """`step` steps are done, and lie in the store."""
        self._config, self._store, self._schedule = config, store, schedule
        self._diagnose, self._observer = diagnose, observer
        self._rows: list[Row] = [row for row in store.metrics() if row["step"] < step] if config.guard.enabled else []
        self._told: set[tuple[str, str]] = set()
        """What was acted on since the run began or last turned back."""
        self._turned: list[Row] = []
        self.kept: set[int] = set()
        """Steps of checkpoints that are not to be removed."""
        for event in store.events():
            if event["kind"] == "rollback":
                if not event.get("request"):  # what a person asks for is not the guard's to count
                    self._turned.append(event)
                self._told.clear()
            elif event["kind"] == "guard":
                self._told.add((event["rule"], event["severity"]))
                self.kept |= set(event.get("kept", ()))

    def decide(self, step: int, row: Mapping[str, Any]) -> Decision | None:
        """Return what the loops must do after a step, if anything. Events and notes are written here."""
        guard = self._config.guard
        if not guard.enabled:
            return None
        self._rows.append(dict(row))
        if step < guard.start or step % guard.every:
            return None
        alarms = [a for a in self._diagnose(self._config, self._rows) if (a.rule, a.severity) not in self._told]
        for alarm in sorted(alarms, key=lambda a: a.severity != "error"):
            action = self._action(alarm)
            self._told.add((alarm.rule, alarm.severity))
            facts: dict[str, Any] = {
                "rule": alarm.rule, "severity": alarm.severity, "metric": alarm.metric, "first": alarm.first,
                "text": alarm.sentence, "action": action,
            }  # fmt: skip
            if action != "note" and (good := self.last_good(alarm.first)) is not None:
                self.kept.add(good)
                facts["kept"] = [good]
            self._store.append_event("guard", step, **facts)
            self._observer.note(f"Guard, step {step}: {alarm.sentence} ({alarm.severity}; {_DONE[action]})")
            if (decision := self._decision(alarm, action, step)) is not None:
                return decision
        return None

    def last_good(self, first: int) -> int | None:
        """Return the newest checkpoint whose weights were seen to sample well before step `first`, or None.

        A checkpoint proves itself only once its weights have sampled: with stale samplers the reward stays high while
        the policy in training is already lost. Where turning back to a checkpoint has not helped, an older one is
        taken: the harm is older than it seemed.
        """
        proven = self._schedule.version_for(max(0, first - 1))
        found = [int(path.name[5:]) for path in list_checkpoints(self._store.folder / "checkpoints")]
        good = [done for done in found if done <= proven]
        last = self._turned[-1] if self._turned else None
        if last is not None and first <= last["step"] and good and good[-1] == last["to"]:
            good = good[:-1] or good
        sound = (done for done in reversed(good) if not damage(self._path(done)))
        return next(sound, None)

    def held(self, step: int) -> frozenset[int]:
        """Return the checkpoints that must stay after `step` steps: those kept, and those to turn back to if something
        is found that began now, or some steps ago; how far back is doubled from one to the next."""
        if not self._config.guard.enabled:
            return frozenset()
        ago = (first for n in range(step.bit_length() + 1) if (first := step - 2**n + 1) >= 0)
        good = {self.last_good(first) for first in ago}
        return frozenset(self.kept | {done for done in good if done is not None})

    def _path(self, done: int) -> Path:
        return checkpoint_path(self._store.folder / "checkpoints", done)

    def _action(self, alarm: Alarm) -> Action:
        guard = self._config.guard
        if alarm.severity == "info":
            return "note"
        action = guard.on_error if alarm.severity == "error" else guard.on_warning
        if action == "rollback" and not alarm.helps:
            return "keep"
        if action == "rollback" and len(self._turned) >= guard.rollbacks:
            return guard.then
        return action

    def _decision(self, alarm: Alarm, action: Action, step: int) -> Decision | None:
        if action == "pause":
            return Halt("paused", alarm.sentence)
        if action == "stop":
            return Halt("stopped_by_guard", alarm.sentence)
        if action != "rollback":
            return None
        to = self.last_good(alarm.first)
        if to is None:
            return Halt("stopped_by_guard", f"{alarm.sentence} There is no good checkpoint to turn back to.")
        used = [event["remedy"] for event in self._turned if event.get("remedy")]
        return TurnBack(to, alarm.sentence, choose_remedy(self._config, to, used, alarm.remedies))


_DONE = {
    "note": "noted",
    "keep": "the checkpoint before it is kept",
    "pause": "the run pauses",
    "rollback": "the run turns back",
    "stop": "the run stops",
}
