"""Obeying what a person asks of a run that is going on: pause, go on, stop, write a checkpoint, note, roll back.

Requests lie in the run folder (`store.control`). Those made before the process began are past, but for a roll-back,
which is obeyed when the run is resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ratchet.core.errors import ConfigError
from ratchet.run.checkpoint import damage, list_checkpoints
from ratchet.store.control import Act, Request, requests
from ratchet.store.run_store import RunStore

LOOK_EVERY_S = 0.5
"""Between two looks at the file of requests: one small read, and soon enough for a person."""


class Control:
    """What was asked of this run since its process began."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._past = max((r.number for r in requests(store.folder)), default=0)
        self._paused = self._stopped = self._checkpoint = False
        self._changed = asyncio.Event()

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
        self._store.append_event("act", step, act=asked.act.value, number=asked.number, **facts)
        match asked.act:
            case Act.PAUSE:
                self._paused = True
            case Act.GO_ON:
                self._paused = False
            case Act.CHECKPOINT:
                self._checkpoint = True
            case Act.STOP | Act.ROLL_BACK:
                self._stopped = True
            case Act.NOTE:
                pass  # the event is the note
        self._changed.set()


def roll_back_if_asked(store: RunStore, *, keep: int) -> int | None:
    """Put newer checkpoints aside if a roll-back was asked for that is not done yet, and return its step.

    They stay beside the others as ``rolled_back_step_<k>``. Returns None if nothing is to be done. Raises `ConfigError`
    if the checkpoint is not there, damaged, or none of the newest `keep`, which are all the buffer can go back to.
    """
    done = {event.get("request") for event in store.events() if event["kind"] == "rolled_back"}
    asked = [r for r in requests(store.folder) if r.act is Act.ROLL_BACK and r.number not in done]
    if not asked:
        return None
    last = asked[-1]
    found = list_checkpoints(store.folder / "checkpoints")[-keep:]
    wanted = [path for path in found if int(path.name[5:]) == last.step]
    if not wanted or damage(wanted[0]):
        steps = ", ".join(str(int(path.name[5:])) for path in found)
        raise ConfigError(
            f"{store.folder} is to be rolled back to step {last.step}, but there is no sound checkpoint of it. "
            f"There are: {steps or 'none'}. Ask for one of these, or remove the request from control.jsonl."
        )
    newer = [path for path in found if int(path.name[5:]) > last.step]
    for path in newer:
        path.rename(_free(path.with_name(f"rolled_back_{path.name}")))
    for request in asked:  # earlier ones that were never carried out are settled with the last
        store.append_event("rolled_back", last.step, request=request.number, put_aside=[path.name for path in newer])
    return last.step


def _free(path: Path) -> Path:
    """Return the path, or with a number behind it the first that is free."""
    tried, number = path, 2
    while tried.exists():
        tried, number = path.with_name(f"{path.name}_{number}"), number + 1
    return tried
