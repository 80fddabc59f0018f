"""``ratchet bugs``: what it says while it works, and the table at its end."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ratchet.bugs.allowed import Reason
from ratchet.bugs.ledger import Fate, Ledger
from ratchet.bugs.make import Wishes
from ratchet.bugs.produce import Asked, Done, Watcher, make_bugs
from ratchet.cli.view import duration
from ratchet.config.read import config_from_tree, merge, parse_override
from ratchet.config.schema import SandboxSection
from ratchet.core.errors import ConfigError

LINE_S = 10.0
"""Seconds between progress lines where there is no terminal."""


def bugs(asked: Asked, *, plain: bool, show_reasons: bool) -> str:
    """Make the file, and return what is said at the end."""
    started = time.monotonic()
    with watching(plain=plain) as watcher:
        done = make_bugs(asked, watcher)
    return end_text(asked, done, time.monotonic() - started, show_reasons=show_reasons)


def asked_for(source: str, words: Sequence[str], **given: Any) -> Asked:
    """Return what the command line's words and options mean. **Raises**: `ConfigError`."""
    wishes = Wishes(
        per_function=given["per_function"],
        limit=given["limit"],
        reveal_max=given["reveal_max"],
        seed=given["seed"],
        most_cases=given["cases"],
        most_lines=given["lines"],
    )
    return Asked(source, given["out"], wishes, given["tests"], given["timeout"], given["force"], sandbox_of(words))


def sandbox_of(words: Sequence[str]) -> SandboxSection:
    """Return the settings of the sandbox that ``sandbox.key=value`` words ask for. **Raises**: `ConfigError`."""
    tree: Mapping[str, object] = {"environment": {"name": "reproduce"}}
    for word in words:
        if not word.startswith("sandbox.") or "=" not in word:
            raise ConfigError(f'"{word}": one package or folder at a time; after it only sandbox.key=value words.')
        tree = merge(tree, parse_override(word))
    return config_from_tree(tree).sandbox


@contextmanager
def watching(*, plain: bool) -> Iterator[Watcher]:
    """Yield the watcher that suits where the output goes."""
    if plain or not sys.stdout.isatty():
        yield BugLines()
        return
    console = Console()
    view = BugView()
    with Live(console=console, refresh_per_second=4, transient=True, get_renderable=view.render):
        yield view


class BugLines:
    """A line now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def now(self, what: str, done: int, total: int, lines: int) -> None:
        if time.monotonic() - self._last >= LINE_S:
            self._last = time.monotonic()
            print(progress_text(what, done, total, lines), flush=True)


class BugView:
    """One line that is redrawn in place."""

    def __init__(self) -> None:
        self._text = Text("reading sources ...", style="dim")

    def now(self, what: str, done: int, total: int, lines: int) -> None:
        filled = round(30 * done / max(1, total))
        self._text = Text(f"{'━' * filled}{'╌' * (30 - filled)}  {progress_text(what, done, total, lines)}")

    def render(self) -> Text:
        """Return the line as it is now."""
        return self._text


def progress_text(what: str, done: int, total: int, lines: int) -> str:
    """Return how far the work is, in a few words."""
    return f"{done} of {total} {what}, {lines} bugs"


def end_text(asked: Asked, done: Done, seconds: float, *, show_reasons: bool) -> str:
    """Return the tables of functions and mutants, what to do next, and what to look out for."""
    ledger, library = done.ledger, done.library
    named = f"{asked.what} ({library.version})" if library.version else asked.what
    lines = [*(["", *sorted(ledger.details)] if show_reasons else []), ""]
    lines += [f"{named}: {done.num_lines} bugs in {duration(seconds)}, {done.checks} runs in the sandbox", ""]
    lines += [*_table(_functions(ledger)), "", *_table(_mutants(ledger)), ""]
    lines += [f"Changed: {', '.join(f'{name} {count}' for name, count in ledger.operators.most_common() if count)}", ""]
    lines += [f"Left out: {sentence}" for sentence in library.unread]
    lines += [_warning(done)] if library.installed else []
    lines.append(
        f"{asked.out} is written. Train on it: ratchet train reproduce/kimi-dev policy.model=MODEL "
        f"environment.source={shlex.quote(str(asked.out))}"
    )
    return "\n".join(lines)


def _functions(ledger: Ledger) -> list[tuple[str, int]]:
    refused = [(f"  refused: {reason.value}", ledger.refused[reason]) for reason in Reason if ledger.refused[reason]]
    left = [("  not looked at: there were lines enough", ledger.not_reached)] if ledger.not_reached else []
    found = ledger.functions + ledger.not_reached
    return [("functions found", found), ("  used", ledger.usable), *refused, *left]


def _mutants(ledger: Ledger) -> list[tuple[str, int]]:
    return [
        ("mutants run", ledger.mutants),
        *((f"  {fate.value}", ledger.fates[fate]) for fate in Fate if ledger.fates[fate]),
    ]


def _table(rows: Sequence[tuple[str, int]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {count:>6}" for name, count in rows]


def _warning(done: Done) -> str:
    return (
        f"Take care: {done.library.what} is installed where the sandbox can read it, so a policy's test could import "
        "it and compare. Uninstall it from this Python before you train; the lines do not need it."
    )
