"""What a run looks like while it trains: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ratchet.charts.text import sparkline
from ratchet.run.observer import Observer

SHOWN = (
    ("reward", "reward/mean", "{:.3f}"),
    ("accuracy", "reward/parts/accuracy", "{:.3f}"),
    ("format", "reward/parts/format", "{:.3f}"),
    ("length", "len/response/mean", "{:.1f} tokens"),
    ("truncated", "len/truncated_frac", "{:.1%}"),
    ("entropy", "entropy", "{:.4f}"),
    ("KL to start", "kl/ref", "{:.4f}"),
    ("zero-signal groups", "signal/zero_groups_frac", "{:.1%}"),
)
"""Lines of the live table: label, metric, form. A line appears when its metric does."""

TREND = 40
"""Steps a sparkline shows."""


@contextmanager
def watching(*, plain: bool) -> Iterator[Observer]:
    """Yield the observer that suits where the output goes."""
    if plain or not sys.stdout.isatty():
        yield Lines()
        return
    console = Console()
    view = LiveView(console)
    with Live(console=console, refresh_per_second=8, transient=False, get_renderable=view.render) as live:
        view.show = live
        yield view


def tokens_per_second(row: Mapping[str, float]) -> float:
    """Return sampled tokens over the step's whole time."""
    return row.get("tokens/generated", 0.0) / max(1e-9, row.get("time/step", 0.0))


def duration(seconds: float) -> str:
    """Return seconds as ``2 min 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Lines:
    """One line per step."""

    def note(self, text: str) -> None:
        print(text, flush=True)

    def progress(self, what: str, done: int, total: int, facts: Mapping[str, float]) -> None:
        if done == total or done % max(1, total // 8) < 20:
            told = ", ".join(f"{name} {value:.3g}" for name, value in facts.items() if name == "loss/token_nll")
            print(f"{what}: {done}/{total} {told}".rstrip(), flush=True)

    def step(self, row: Mapping[str, float], total: int) -> None:
        cells = [f"{label} {form.format(row[name])}" for label, name, form in SHOWN if name in row]
        print(
            f"step {int(row['step'])}/{total - 1}  {'  '.join(cells)}  {row['time/step']:.2f} s  "
            f"{tokens_per_second(row):,.0f} tokens/s",
            flush=True,
        )

    def waiting(self, now: Mapping[str, Mapping[str, object]]) -> None:
        pass


class LiveView:
    """A table that is redrawn in place; notes scroll above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.show: Live | None = None
        self._row: Mapping[str, float] = {}
        self._history: dict[str, deque[float]] = {}
        self._total = 0
        self._preparing: tuple[str, int, int] | None = None
        self._times: deque[float] = deque(maxlen=20)
        self._waiting: Mapping[str, Mapping[str, object]] = {}
        self._begun = time.time()
        self._took = 0.0

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def progress(self, what: str, done: int, total: int, facts: Mapping[str, float]) -> None:
        self._preparing = (what, done, total) if done < total else None

    def step(self, row: Mapping[str, float], total: int) -> None:
        self._row, self._total, self._preparing = row, total, None
        self._times.append(row["time/step"])
        self._took = time.time() - self._begun
        for _, name, _ in SHOWN:
            if name in row:
                self._history.setdefault(name, deque(maxlen=TREND)).append(row[name])

    def waiting(self, now: Mapping[str, Mapping[str, object]]) -> None:
        self._waiting = now

    def render(self) -> Group:
        """Return the table as it is now."""
        if not self._row:
            if self._preparing is None:
                return Group(Text("preparing ...", style="dim"))
            what, done, total = self._preparing
            filled = round(30 * done / total)
            return Group(Text(f"{what}  {'━' * filled}{'╌' * (30 - filled)}  {done}/{total}"))
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
        for label, name, form in SHOWN:
            if name in self._row:
                trend = sparkline(list(self._history[name]), width=TREND)
                table.add_row(Text(label, style="dim"), form.format(self._row[name]), Text(trend, style="cyan"))
        done = int(self._row["step"]) + 1
        left = (self._total - done) * sum(self._times) / len(self._times)
        head = Text.assemble(
            (f"step {done} of {self._total}", "bold"),
            f"   {self._row['time/step']:.2f} s a step   {tokens_per_second(self._row):,.0f} tokens/s   "
            f"{duration(left)} left"
            if done < self._total
            else f"   done in {duration(self._took)}",
        )
        return Group(Text(""), head, table, Text(self._waits(), style="dim"))

    def _waits(self) -> str:
        told = [
            f"{owner} waits for {now['for']} ({time.time() - float(str(now['since'])):.0f} s)"
            for owner, now in self._waiting.items()
        ]
        return "; ".join(told)
