"""Obeying what a person asks of a run that is going on: pause, go on, stop, write a checkpoint, note, roll back.

Requests lie in the run folder (`store.control`), and each becomes an event. Those made before the process began are
past, but for a roll-back: it is done at once by a run that is going on, and else when the run is resumed, in both cases
by `run.turning`, as the guard turns back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.run.checkpoint import damage, list_checkpoints
from ratchet.run.guard import TurnBack
from ratchet.store.control import Act, Request, requests
from ratchet.store.run_store import RunStore

LOOK_EVERY_S = 0.5
"""Between two looks at the file of requests: one small read, and soon enough for a person."""
REASON = "A person asked for it."


class Control:
    """What was asked of this run since its process began."""

    def __init__(self, config: RunConfig, store: RunStore) -> None:
        self._config, self._store = config, store
        self._past = _past(store)
        self._paused = self._stopped = self._checkpoint = False
        self._turn: TurnBack | None = None
        self._changed = asyncio.Event()
        if (left := _unfinished(store)) is not None and left.number <= self._past:  # the guard turned back first
            self._obey(left, done(store))

    async def watch(self, stop: asyncio.Event, step: Callable[[], int]) -> None:
        """Look for requests until cancelled, also while a step takes long or the run is paused.

        `step` says how many steps are done; `stop` is set when the run is to end.
        """
        while True:
            self.look(step())
            if self._stopped:
                stop.set()
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self, step: int) -> None:
        """Take up what was asked since the last look, and record each request as an event."""
        for asked in requests(self._store.folder):
            if asked.number > self._past:
                self._past = asked.number
                self._obey(asked, step)

    @property
    def holds(self) -> str:
        """Why the next step must wait: a pause, or a stop that is on its way; empty if it need not."""
        return "stop" if self._stopped else "pause" if self._paused else ""

    @property
    def turn(self) -> TurnBack | None:
        """Where the run must turn back to before the next step, if it must; one that stops does so when resumed."""
        return None if self._stopped else self._turn

    def take_checkpoint(self) -> bool:
        """Return whether a checkpoint was asked for, once."""
        asked, self._checkpoint = self._checkpoint, False
        return asked

    async def change(self) -> None:
        """Return when something else was asked."""
        self._changed.clear()
        await self._changed.wait()

    def _obey(self, asked: Request, step: int) -> None:
        facts: dict[str, object] = {"text": asked.text} if asked.text else {}
        if asked.act is Act.ROLL_BACK:
            facts["to"] = asked.step
            if asked.step in reachable(self._config, self._store):
                self._turn = TurnBack(asked.step, REASON, None, asked.number)
            else:
                facts["refused"] = "There is no sound checkpoint of that step that the run can go back to."
        self._store.append_event("act", step, act=asked.act.value, number=asked.number, **facts)
        match asked.act:
            case Act.PAUSE:
                self._paused = True
            case Act.GO_ON:
                self._paused = False
            case Act.CHECKPOINT:
                self._checkpoint = True
            case Act.STOP:
                self._stopped = True
            case Act.ROLL_BACK | Act.NOTE:
                pass  # the one is done by `run.turning`; of the other the event is all
        self._changed.set()


def reachable(config: RunConfig, store: RunStore) -> list[int]:
    """Return the sound checkpoints a run can go back to; a buffer that replays knows only what the newest ones need."""
    found = list_checkpoints(store.folder / "checkpoints")
    if config.buffer.kind == "replay":
        found = found[-config.record.keep_checkpoints :]
    return [int(path.name[5:]) for path in found if not damage(path)]


def past_requests(config: RunConfig, store: RunStore) -> TurnBack | None:
    """Record what was asked while no process worked on the run, and return the roll-back among it, if there is one.

    Raises `ConfigError` if the checkpoint is not there or damaged, or further back than the buffer knows.
    """
    wanted = _unfinished(store)
    if wanted is not None and wanted.step not in (steps := reachable(config, store)):
        raise ConfigError(
            f"{store.folder} is to be rolled back to step {wanted.step}, but there is no sound checkpoint of it. "
            f"It can go back to: {', '.join(map(str, steps)) or 'none'}. Ask for one of these, or let line "
            f"{wanted.number} of control.jsonl be empty."
        )
    past = _past(store)
    for asked in requests(store.folder):
        if asked.number > past:
            facts: dict[str, object] = {"text": asked.text} if asked.text else {}
            if asked.act is Act.ROLL_BACK:
                facts["to"] = asked.step
            elif asked.act is not Act.NOTE:
                facts["refused"] = "It was asked when no process worked on the run."
            store.append_event("act", done(store), act=asked.act.value, number=asked.number, **facts)
    return None if wanted is None else TurnBack(wanted.step, REASON, None, wanted.number)


def done(store: RunStore) -> int:
    """Return how many steps are recorded."""
    rows = store.metrics()
    return int(rows[-1]["step"]) + 1 if rows else 0


def _past(store: RunStore) -> int:
    """Return the number of the newest request that is an event."""
    return max((int(e["number"]) for e in store.events() if e["kind"] == "act"), default=0)


def _unfinished(store: RunStore) -> Request | None:
    """Return the last roll-back that was asked for and neither declared nor refused."""
    settled = 0
    for event in store.events():
        if event["kind"] == "rollback":
            settled = max(settled, int(event.get("request", 0)))
        elif event["kind"] == "act" and event["act"] == Act.ROLL_BACK and "refused" in event:
            settled = max(settled, int(event["number"]))
    asked = [r for r in requests(store.folder) if r.act is Act.ROLL_BACK and r.number > settled]
    return asked[-1] if asked else None
