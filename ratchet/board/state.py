"""What a run does now: from its status, its process, and how long it has been silent."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ratchet.store.control import is_alive

SILENT_S = 120.0
"""A run that said nothing for so long, and for many times its usual step, is stalled."""
SILENT_STEPS = 8.0


class State(StrEnum):
    """In one word."""

    RUNNING = "running"
    PAUSED = "paused"
    STALLED = "stalled"
    """Its process lives, but has said nothing for far longer than its steps take."""
    FINISHED = "finished"
    STOPPED = "stopped"
    """On purpose; it can be resumed."""
    CRASHED = "crashed"
    """An error ended it, or its process is gone without a word."""
    RECORDED = "recorded"
    """A log of another framework: whether it still grows is not known."""
    DAMAGED = "damaged"
    """Its files cannot be read."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Who waits for what."""

    owner: str
    cause: str
    since: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class Now:
    """What a run does now."""

    state: State
    detail: str
    """A clause that says more; empty where the word is enough."""
    waits: tuple[Wait, ...] = ()


def state_of(status: Mapping[str, Any], last_word: float, step_s: float, *, now: float | None = None) -> Now:
    """Return what a run of ours does.

    `status` is its ``status.json``, `last_word` when one of its files last changed (Unix time), `step_s` what a step
    usually takes.
    """
    now = time.time() if now is None else now
    word = str(status.get("state", ""))
    if not word:
        return Now(State.STOPPED, "it has not begun its first step")
    if word != "running":
        return Now(*_ended(word, status))
    waits = tuple(
        Wait(str(owner), str(wait.get("for", "")), float(wait.get("since", now)))
        for owner, wait in dict(status.get("waiting", {})).items()
    )
    if not is_alive(int(status.get("pid", -1))):
        return Now(State.CRASHED, "its process is gone without a word, or runs on another machine")
    if any(wait.cause == "pause" for wait in waits):
        return Now(State.PAUSED, "a person paused it", waits)
    silent = now - max(last_word, float(status.get("time", 0.0)))
    if silent > max(SILENT_S, SILENT_STEPS * step_s):
        return Now(State.STALLED, _stalled(waits, silent), waits)
    return Now(State.RUNNING, "; ".join(f"{w.owner} waits for {w.cause}" for w in waits) or "busy", waits)


def _ended(word: str, status: Mapping[str, Any]) -> tuple[State, str]:
    if word == "finished":
        return State.FINISHED, ""
    if word == "stopped":
        resume = status.get("resume", "")
        return State.STOPPED, f"it can go on: {resume}" if resume else ""
    if word == "paused":
        return State.PAUSED, f"the guard paused it: {status.get('reason', '')} Go on: {status.get('resume', '')}"
    if word == "stopped_by_guard":
        return State.STOPPED, f"by the guard: {status.get('reason', '')}"
    return State.CRASHED, str(status.get("error", "it ended with an error"))


def _stalled(waits: tuple[Wait, ...], silent: float) -> str:
    told = "; ".join(f"{w.owner} waits for {w.cause}" for w in waits) or "it waits for nothing it knows of: it computes"
    return f"silent for {silent / 60:.0f} min; {told}"
