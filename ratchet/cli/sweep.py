"""``ratchet sweep``: what it looks like, and how a cell's process is started."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ratchet.cli.view import duration
from ratchet.config.sweep import Cell, make_cells, read_sweep
from ratchet.core.errors import ConfigError, RunError
from ratchet.run.policies import choose_device
from ratchet.run.sweep import (
    ASKED,
    Ended,
    Found,
    Progress,
    Report,
    State,
    Supervisor,
    Watcher,
    check_cells,
    locked,
    look,
    refuse_different,
    write_sweep,
)

LINE_S = 30.0
"""Seconds between progress lines where there is no terminal."""

SHOWN_RUNNING = 8
"""Running cells the live view lists by name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for."""

    words: tuple[str, ...]
    """The sweep, then ``key=value`` words."""
    only: tuple[str, ...] = ()
    folder: Path | None = None
    jobs: int = 0
    """Processes at once; 0 takes as many as the cores hold."""
    dry: bool = False
    plain: bool = False


def sweep(asked: Asked) -> bool:
    """Run or list a sweep. Return whether every cell it was asked for is finished (always true for a list)."""
    read = read_sweep(asked.words[0])
    folder = asked.folder or Path("runs") / f"{read.name}-sweep"
    cells = make_cells(read, folder=folder, words=asked.words[1:], only=asked.only)
    check_cells(cells)
    jobs = asked.jobs or default_jobs(cells)
    if asked.dry:
        print(list_text([look(cell, folder) for cell in cells], folder, jobs))
        return True
    make_folder(folder)
    with watching(plain=asked.plain) as watcher, locked(folder, watcher) as lock:
        found = [look(cell, folder) for cell in cells]
        refuse_different(found, folder)
        try:
            write_sweep(read, asked.words[1:], folder)
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error.strerror}. Make room and repeat the command.") from None
        watcher.note(head_text(found, folder, jobs))
        report = Supervisor(folder, found, jobs=jobs, command=words_of, watcher=watcher, lock=lock).run()
    done = sum(f.state is State.FINISHED for f in found) + sum(e.finished for e in report.ended)
    print(end_text(report, done, len(found), folder, again(asked)))
    return done == len(found)


def default_jobs(cells: Sequence[Cell]) -> int:
    """Return how many cells run at once: as many as the cores hold, one where each takes all cores or the GPU."""
    if any(choose_device(cell.config).type != "cpu" for cell in cells):
        return 1
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // max(cell.config.run.threads or cores for cell in cells))


def make_folder(folder: Path) -> None:
    """Make the sweep's folder. Raises `ConfigError` if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep.lock").touch()
    except OSError as error:
        raise ConfigError(
            f"The sweep's folder {folder} cannot be written: {error.strerror}. Choose another --folder."
        ) from None


def list_text(found: Sequence[Found], folder: Path, jobs: int) -> str:
    """Return the cells and what is there of each."""
    width = max(len(f.cell.name) for f in found)
    return "\n".join([head_text(found, folder, jobs), *(f"{f.cell.name:<{width}}  {state_text(f)}" for f in found)])


def state_text(found: Found) -> str:
    """Return what a cell's folder holds, in words."""
    match found.state:
        case State.ABSENT:
            return "to be trained"
        case State.BEGUN:
            return f"begun, {found.step} of {found.cell.config.train.steps} steps done"
        case State.FINISHED:
            return "finished"
        case State.USELESS:
            return f"to be begun anew: {found.told[0]}"
        case State.DIFFERENT:
            return f"begun with other settings: {'; '.join(found.told)}"


def head_text(found: Sequence[Found], folder: Path, jobs: int) -> str:
    """Return one line: how many cells there are, and how many of them are done."""
    done = sum(f.state is State.FINISHED for f in found)
    begun = sum(f.state is State.BEGUN for f in found)
    return f"{folder}: {len(found)} cells, {done} finished, {begun} begun; {jobs} at a time"


def end_text(report: Report, done: int, cells: int, folder: Path, command: str) -> str:
    """Return what to do next."""
    lines = []
    for ended in report.failed:
        lines += ["", f"{ended.name} failed ({ended.why}). Its last words, of {ended.log}:"]
        lines += [f"    {line}" for line in ended.tail]
    lines += ["", f"{done} of {cells} cells are finished in {folder}."]
    if report.failed:
        lines.append(f"Failed: {', '.join(e.name for e in report.failed)}.")
    if done < cells:
        lines.append(f"Go on, with what is not finished: {command}")
    if done:
        lines.append(f"Compare: ratchet compare {shlex.quote(str(folder))}")
    return "\n".join(lines)


def again(asked: Asked) -> str:
    """Return the command that was asked for, without the choice of how it looks."""
    options = [word for only in asked.only for word in ("--only", only)]
    options += ["--folder", str(asked.folder)] if asked.folder else []
    options += ["--jobs", str(asked.jobs)] if asked.jobs else []
    return shlex.join(["ratchet", "sweep", *asked.words, *options])


@contextmanager
def watching(*, plain: bool) -> Iterator[Watcher]:
    """Yield the watcher that suits where the output goes."""
    if plain or not sys.stdout.isatty():
        yield SweepLines()
        return
    console = Console()
    view = SweepView(console)
    with Live(console=console, refresh_per_second=4, transient=True, get_renderable=view.render):
        yield view


class SweepLines:
    """A line when a cell begins or ends, and one now and then between."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def note(self, text: str) -> None:
        print(text, flush=True)

    def ended(self, cell: Ended, progress: Progress) -> None:
        print(ended_text(cell, progress), flush=True)

    def now(self, progress: Progress) -> None:
        if time.monotonic() - self._last >= LINE_S and progress.running:
            self._last = time.monotonic()
            running = ", ".join(f"{name} {step}/{steps}" for name, step, steps in progress.running)
            print(f"{progress_text(progress)}: {running}", flush=True)


class SweepView:
    """Lines that scroll, and below them where the sweep stands, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def ended(self, cell: Ended, progress: Progress) -> None:
        style = "" if cell.finished else "red"
        self._console.print(Text(ended_text(cell, progress), style=style))

    def now(self, progress: Progress) -> None:
        self._progress = progress

    def render(self) -> Group:
        """Return the lines as they are now."""
        if self._progress is None:
            return Group()
        lines = [Text(progress_text(self._progress), style="bold")]
        for name, step, steps in self._progress.running[:SHOWN_RUNNING]:
            filled = round(20 * step / steps)
            lines.append(Text(f"  {'━' * filled}{'╌' * (20 - filled)}  {name}  {f'{step}/{steps}' if step else '...'}"))
        if len(self._progress.running) > SHOWN_RUNNING:
            lines.append(Text(f"  and {len(self._progress.running) - SHOWN_RUNNING} more", style="dim"))
        return Group(*lines)


def ended_text(cell: Ended, progress: Progress) -> str:
    """Return the line of a cell whose process has ended."""
    count = f"{progress.finished}/{progress.cells}"
    reward = "" if cell.reward is None else f"  reward {cell.reward:.3f}"
    if cell.finished:
        return f"{count}  {cell.name}{reward}  {duration(cell.seconds)}"
    last = f": {cell.tail[-1]}" if cell.tail and cell.why != ASKED else ""
    return f"{count}  {cell.name}  {cell.why}{last}"


def progress_text(progress: Progress) -> str:
    """Return where the sweep stands in a few words."""
    failed = f", {progress.failed} failed" if progress.failed else ""
    left = "" if progress.left_s is None else f", {duration(progress.left_s)} left"
    return f"{progress.finished} of {progress.cells} cells finished{failed}{left}"


def words_of(verb: str, path: Path) -> list[str]:
    """Return the words of a process that runs ``ratchet train`` or ``ratchet resume`` and ends with this one."""
    # -P: what lies in the current folder is not importable, just as under the command ratchet itself.
    return [sys.executable, "-P", "-m", "ratchet.cli.sweep", str(os.getpid()), verb, str(path), "--plain"]


def run_cell(parent: int, words: Sequence[str]) -> None:
    """Run a command in a cell's own process. When the sweep is killed, it is asked to stop like by Ctrl-C."""
    from ratchet.cli.main import main

    if sys.platform == "linux":
        die_with_parent = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGTERM)
    if os.getppid() != parent:  # it was killed before the line above
        sys.exit(1)
    main(list(words))


if __name__ == "__main__":
    run_cell(int(sys.argv[1]), sys.argv[2:])
