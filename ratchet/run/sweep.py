"""Running the cells of a sweep, each in a process of its own. The sweep's state is its cells' run folders.

<folder>/<cell>/            a run folder, nothing else: finished, begun, or not there
<folder>/sweep.json         the axes and the labels of every cell, for whoever compares them
<folder>/logs/<cell>.txt    what the cell's processes said; <cell>.toml is its whole config
<folder>/discarded/         cells that were killed before their first checkpoint
<folder>/sweep.lock         locked while a sweep runs here; cells.lock, while one of its cells does
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from types import FrameType
from typing import IO, Any, Protocol

import tomli_w

from ratchet.config.read import config_from_tree
from ratchet.config.sweep import Cell, Sweep, as_tree, facts
from ratchet.core.errors import CheckpointError, ConfigError, RunError
from ratchet.environments.table import build_environment, close_environment
from ratchet.run.changes import changes
from ratchet.run.checkpoint import newest_sound
from ratchet.run.parts import make_algorithm
from ratchet.run.policies import choose_device
from ratchet.store.run_store import RunStore

HARMLESS = ("warm_start.cache",)
"""Settings in which a run may differ and be the same run, beside those that `changes` leaves out."""

POLL_S = 0.1
ORPHANS_S = 120.0
"""How long a sweep waits for the cells of a killed one to end."""

TAIL_LINES = 8
LAST_STEPS = 5
"""Steps whose mean reward is told when a cell is done."""

ASKED = "stopped as asked"


class State(Enum):
    """What a cell's folder says about it."""

    ABSENT = "absent"
    BEGUN = "begun"
    FINISHED = "finished"
    USELESS = "useless"
    """It was killed while it was being made: there is nothing to go on from."""
    DIFFERENT = "different"
    """It was begun with other settings."""


@dataclass(frozen=True, slots=True)
class Found:
    """A cell and what lies in its folder."""

    cell: Cell
    state: State
    step: int = 0
    """Steps done at the newest sound checkpoint."""
    told: tuple[str, ...] = ()
    """Why it is useless, or which settings differ."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A cell whose process has ended."""

    name: str
    finished: bool
    seconds: float
    reward: float | None
    """Mean reward of its last steps; none if it did not get that far."""
    why: str
    """How the process ended: ``exit code 1``, ``SIGKILL``."""
    log: Path
    tail: tuple[str, ...]
    """The last lines of the log."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sweep stands."""

    cells: int
    finished: int
    failed: int
    running: tuple[tuple[str, int, int], ...]
    """(cell, steps done, steps)."""
    left_s: float | None
    """Seconds to go at the pace since this sweep began; none before the first step."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a sweep ended."""

    ended: tuple[Ended, ...]
    stopped: bool
    """A signal asked it to stop."""

    @property
    def failed(self) -> tuple[Ended, ...]:
        """Those that ended otherwise than they should: not the ones that were asked to stop."""
        return tuple(e for e in self.ended if not e.finished and e.why != ASKED)


class Watcher(Protocol):
    """Told what happens, in order. Must return quickly and must not raise."""

    def note(self, text: str) -> None: ...

    def ended(self, cell: Ended, progress: Progress) -> None: ...

    def now(self, progress: Progress) -> None: ...


Command = Callable[[str, Path], list[str]]
"""``train`` and a TOML file, or ``resume`` and a run folder -> the words of a process."""


def look(cell: Cell, folder: Path) -> Found:
    """Return what the folder of a cell holds. Changes nothing."""
    path = folder / cell.name
    if not path.exists():
        return Found(cell, State.ABSENT)
    try:
        store = RunStore.open(path)
        tree, done = store.config_tree(), steps_at_end(store)
        # A finished run needs no checkpoints any more: somebody may have removed them to make room.
        step = done if done >= 0 else int(newest_sound(path / "checkpoints")[0].name[5:])
    except (ConfigError, CheckpointError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return Found(cell, State.USELESS, told=(str(error),))
    if different := differences(store, tree, cell):
        return Found(cell, State.DIFFERENT, step, tuple(different))
    return Found(cell, State.FINISHED if done >= cell.config.train.steps else State.BEGUN, step)


def steps_at_end(store: RunStore) -> int:
    """Return the steps after which a run was finished, or -1. A finished run may have been given more steps since."""
    return max((e["step"] for e in store.events() if e["kind"] == "finished"), default=-1)


def differences(store: RunStore, tree: Mapping[str, Any], cell: Cell) -> list[str]:
    """Return what tells a recorded run from the cell: settings now, and settings that were changed on the way."""
    try:
        before = config_from_tree(tree).model_dump(mode="json")
    except ConfigError as error:
        return [f"its config.toml is no config any more: {error}"]
    now = [str(c) for c in changes(before, cell.config.model_dump(mode="json")) if c.key not in HARMLESS]
    once = [(e["step"], c["key"]) for e in store.events() if e["kind"] == "config_changed" for c in e["changes"]]
    return now + [f"{key} was changed at step {step}" for step, key in once if key not in (*HARMLESS, "train.steps")]


def refuse_different(found: Sequence[Found], folder: Path) -> None:
    """Raise `ConfigError` if a cell was begun with other settings, naming them."""
    different = [f for f in found if f.state is State.DIFFERENT]
    if different:
        first, more = different[0], len(different) - 1
        others = f" So were {more} more cells." if more else ""
        raise ConfigError(
            f"The cell {folder / first.cell.name} was begun with other settings: {'; '.join(first.told)}.{others} "
            "Nothing was started. Choose another --folder, or remove that folder to run the cell anew."
        )


def check_cells(cells: Sequence[Cell]) -> None:
    """Raise `ConfigError` for the first cell whose algorithm, environment or device cannot be had."""
    known: set[str] = set()
    for cell in cells:
        config = cell.config
        try:
            choose_device(config)
            make_algorithm(config)
            warm = config.warm_start.options if config.warm_start.steps else {}
            for options in (config.environment.options, {**config.environment.options, **warm}):
                key = json.dumps([config.environment.name, options], sort_keys=True, default=str)
                if key not in known:
                    known.add(key)
                    close_environment(build_environment(config.environment.name, options))
        except ConfigError as error:
            raise ConfigError(f"Cell {cell.name}: {error}") from None


def write_sweep(sweep: Sweep, words: Sequence[str], folder: Path) -> None:
    """Write ``sweep.json``: the axes and all cells, also those that ``--only`` leaves out."""
    part = folder / ".sweep.json.part"
    part.write_text(json.dumps(facts(sweep, words), indent=2) + "\n", encoding="utf-8")
    part.replace(folder / "sweep.json")


def discard(found: Found, folder: Path, watcher: Watcher) -> None:
    """Move a useless cell's folder aside."""
    aside = folder / "discarded"
    aside.mkdir(exist_ok=True)
    targets = (aside / f"{found.cell.name}-{n}" for n in itertools.count(1))
    target = next(t for t in targets if not t.exists())
    (folder / found.cell.name).rename(target)
    why = found.told[0].rstrip(".")
    watcher.note(f"{found.cell.name} was never really begun ({why}); moved to {target}, begun anew")


@contextmanager
def locked(folder: Path, watcher: Watcher) -> Iterator[int]:
    """Hold a sweep's folder and yield the descriptor of ``cells.lock``, for the cells to inherit: it is locked while
    one of them lives, even if this process is killed.

    Raises `ConfigError` if another sweep lives in the folder, or cells of a killed one do not end.
    """
    with (folder / "sweep.lock").open("a+") as own, (folder / "cells.lock").open("a") as cells:
        if not _take(own):
            own.seek(0)
            holder = own.read().strip()
            raise ConfigError(
                f"Process {holder} runs a sweep in {folder} already. Wait for it, stop it with: kill {holder}, or "
                "choose another --folder."
            )
        own.truncate(0)
        own.write(f"{os.getpid()}\n")
        own.flush()
        deadline = time.monotonic() + ORPHANS_S
        if not (free := _take(cells)):
            watcher.note(f"The last sweep in {folder} was killed; waiting for its cells to finish their step")
        while not free:
            if time.monotonic() > deadline:
                statuses = [json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*/status.json")]
                raise ConfigError(
                    f"The last sweep in {folder} was killed, and cells of it still run, of these processes: "
                    f"{[s['pid'] for s in statuses if s['state'] == 'running']}. End them, then repeat the command."
                )
            time.sleep(POLL_S)
            free = _take(cells)
        try:
            yield cells.fileno()
        finally:
            fcntl.flock(cells, fcntl.LOCK_UN)


@dataclass(slots=True)
class Running:
    """A cell's process."""

    found: Found
    process: Popen[bytes]
    began: float
    step: int


class Supervisor:
    """Runs cells in processes, so many at a time. A failed cell does not stop the others.

    The first SIGINT or SIGTERM asks the processes for a clean stop, the second kills them. Each is a group of its own,
    so a terminal's Ctrl-C reaches the sweep alone, and inherits the descriptor `lock`.
    """

    def __init__(
        self, folder: Path, found: Sequence[Found], *, jobs: int, command: Command, watcher: Watcher, lock: int
    ) -> None:
        self._folder, self._jobs, self._command, self._watcher, self._lock = folder, jobs, command, watcher, lock
        self._cells = len(found)
        self._waiting = [f for f in found if f.state is not State.FINISHED]
        self._running: list[Running] = []
        self._ended: list[Ended] = []
        self._signals = 0
        self._answered = 0
        self._began = time.monotonic()
        self._trained = 0

    def run(self) -> Report:
        """Run what is not finished to its end. Raises `RunError` if a process cannot be started."""
        try:
            with self._listening():
                while self._running or (self._waiting and not self._signals):
                    while self._waiting and len(self._running) < self._jobs and not self._signals:
                        self._start(self._waiting.pop(0))
                    self._answer_signals()
                    for running in [r for r in self._running if r.process.poll() is not None]:
                        self._collect(running)
                    self._watcher.now(self.progress())
                    time.sleep(POLL_S)
        finally:  # whatever went wrong here, no process is left behind
            for running in self._running:
                running.process.terminate()
            for running in self._running:
                running.process.wait()
        return Report(tuple(self._ended), stopped=bool(self._signals))

    def progress(self) -> Progress:
        """Return where the sweep stands, by what the runs have written."""
        for running in self._running:
            status = RunStore(self._folder / running.found.cell.name).status()
            if status.get("pid") == running.process.pid:  # not what an earlier process left
                running.step = int(status["step"])
        now = self._trained + sum(r.step - r.found.step for r in self._running)
        left = sum(f.cell.config.train.steps - f.step for f in self._waiting)
        left += sum(r.found.cell.config.train.steps - r.step for r in self._running)
        failed = len(Report(tuple(self._ended), stopped=False).failed)
        return Progress(
            cells=self._cells,
            finished=self._cells - len(self._waiting) - len(self._running) - sum(not e.finished for e in self._ended),
            failed=failed,
            running=tuple((r.found.cell.name, r.step, r.found.cell.config.train.steps) for r in self._running),
            left_s=left * (time.monotonic() - self._began) / now if now else None,
        )

    def _start(self, found: Found) -> None:
        cell, logs = found.cell, self._folder / "logs"
        try:
            if found.state is State.USELESS:
                discard(found, self._folder, self._watcher)
            logs.mkdir(exist_ok=True)
            recipe = logs / f"{cell.name}.toml"
            recipe.write_text(tomli_w.dumps(as_tree(cell.config)), encoding="utf-8")
            begun = found.state is State.BEGUN
            words = self._command("resume", self._folder / cell.name) if begun else self._command("train", recipe)
            with self._log(cell.name).open("ab") as log:
                process = Popen(
                    words, stdin=DEVNULL, stdout=log, stderr=STDOUT, process_group=0, pass_fds=(self._lock,)
                )
        except OSError as error:
            raise RunError(
                f"The cell {cell.name} cannot be started: {error}. The others were asked to stop; mend this, then "
                "repeat the command."
            ) from error
        self._running.append(Running(found, process, time.monotonic(), found.step))
        self._watcher.note(f"{cell.name}: {f'going on at step {found.step}' if begun else 'begun'}")

    def _collect(self, running: Running) -> None:
        cell, code, log = running.found.cell, running.process.wait(), self._log(running.found.cell.name)
        self._running.remove(running)
        store = RunStore(self._folder / cell.name)  # it may not have come so far as to make its folder
        finished = steps_at_end(store) >= cell.config.train.steps
        last = [row["reward/mean"] for row in store.metrics() if "reward/mean" in row][-LAST_STEPS:]
        reward = sum(last) / len(last) if last else None
        self._trained += (cell.config.train.steps if finished else running.step) - running.found.step
        why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if self._signals and not finished and code <= 0:
            why = ASKED
        tail = tuple(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        ended = Ended(cell.name, finished, time.monotonic() - running.began, reward, why, log, tail)
        self._ended.append(ended)
        self._watcher.ended(ended, self.progress())

    def _answer_signals(self) -> None:
        """Pass signals on: the first as a request, later ones as a kill of the whole group."""
        while self._answered < self._signals:
            self._answered += 1
            if self._answered == 1:
                self._watcher.note(f"Stopping: {len(self._running)} running cells end their step; once more kills them")
            for running in self._running:
                if self._answered == 1:
                    running.process.terminate()
                elif running.process.poll() is None:
                    os.killpg(running.process.pid, signal.SIGKILL)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Count SIGINT and SIGTERM."""

        def count(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.txt"


def _take(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
