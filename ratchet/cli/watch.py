"""A run in the terminal while it trains, from its folder alone: state, waits, figures, findings, ledger.

For people on SSH. It watches runs of any process, also of one that was started elsewhere; `view.py` is what the
process that trains shows itself.
"""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ratchet.board.diagnosis import Diagnosed, Diagnosis
from ratchet.board.finding import Diagnose
from ratchet.board.ledger import ledger
from ratchet.board.page import figure
from ratchet.board.run import OwnRun
from ratchet.board.state import State
from ratchet.board.text import one_line
from ratchet.charts.text import duration, number, quantity, sparkline
from ratchet.cli.view import SHOWN
from ratchet.core.metric import describe
from ratchet.store.run_store import RunStore

EVERY_S = 1.0
STYLES = {
    State.RUNNING: "bold blue", State.PAUSED: "bold magenta", State.STALLED: "bold yellow",
    State.FINISHED: "bold green", State.CRASHED: "bold red", State.DAMAGED: "bold red",
}  # fmt: skip
SEVERITIES = {"error": "red", "warning": "yellow", "info": "dim"}
MOST_FINDINGS, MOST_EVENTS = 4, 4
NAME_WIDTH, TREND = 24, 48
QUIET = ("eval", "gate", "reward_probe", "sandbox")
"""Events that tell no news here."""


def watch(folder: Path, diagnose: Diagnose, *, once: bool) -> None:
    """Show the run until it ends or the reader leaves; only once where the output is no terminal."""
    RunStore.open(folder)  # the sentence, if it is none
    run = OwnRun(folder)
    run.refresh()
    console = Console()
    once = once or not console.is_terminal
    doctor = Diagnosis(diagnose, apart=not once)  # once, somebody waits for it in any case
    try:
        if once:
            console.print(frame(run, doctor.wait("", run), console.width))
            return
        with Live(frame(run, doctor.of("", run), console.width), console=console, auto_refresh=False) as live:
            while not _has_ended(run):
                time.sleep(EVERY_S)
                run.refresh()
                live.update(frame(run, doctor.of("", run), console.width), refresh=True)
            live.update(frame(run, doctor.wait("", run), console.width), refresh=True)
    except KeyboardInterrupt:  # how one leaves; the run is another process
        pass
    finally:
        doctor.close()


def _has_ended(run: OwnRun) -> bool:
    now = run.now()
    return now.state in (State.FINISHED, State.STOPPED, State.CRASHED) or (now.state is State.PAUSED and not now.waits)


def frame(run: OwnRun, diagnosed: Diagnosed, width: int) -> Group:
    """Return what is shown now."""
    parts: list[RenderableType] = [_head(run), _waits(run), _numbers(run, width)]
    parts += [part for part in (_findings(diagnosed, width), _ledger(run), _events(run, width)) if part is not None]
    return Group(*parts)


def _head(run: OwnRun) -> Text:
    now = run.now()
    done, asked = run.steps()
    filled = round(20 * done / asked) if asked else 0
    left = (asked - done) * run.step_s()
    return Text.assemble(
        (one_line(run.path.resolve().name, 60), "bold"), "  ",
        (now.state.value, STYLES.get(now.state, "bold")),
        f"  step {done} of {asked or '?'}  ", ("━" * filled, "blue"), ("╌" * (20 - filled), "dim"),
        f"  {duration(run.step_s())} a step" if run.step_s() else "",
        f"  {duration(left)} left" if now.state is State.RUNNING and left > 0 else "",
    )  # fmt: skip


def _waits(run: OwnRun) -> Text:
    now = run.now()
    told = [f"{w.owner} waits for {w.cause} ({duration(max(0.0, time.time() - w.since))})" for w in now.waits]
    text = "; ".join(told) if told and now.state in (State.RUNNING, State.PAUSED) else now.detail
    since = f"last word {duration(run.age_s())} ago" if run.last_word else ""
    return Text("  ".join(part for part in (one_line(text, 200), since) if part), style="dim")


def _numbers(run: OwnRun, width: int) -> Table:
    """Return the study's figure as small curves, then what the training view shows."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    panels = figure(run, set(run.names()))
    drawn = {part["metric"]: part["label"] for panel in panels for part in (panel, panel["right"]) if part is not None}
    wanted = dict.fromkeys(drawn) | dict.fromkeys(metric for _, metric, _ in SHOWN)
    labels = {metric: label for label, metric, _ in SHOWN} | drawn
    for metric in wanted:
        curve = run.curve(metric)
        if not len(curve.values):
            continue
        entry = describe(metric)
        last, unit = float(curve.values[-1]), entry.unit if entry is not None else ""
        low, high = (float(v) for v in (curve.values.min(), curve.values.max()))
        span = f"{number(low)} to {number(high)}"
        label = labels[metric].partition(" (")[0].lower() if metric in drawn else labels[metric]
        table.add_row(
            Text(one_line(label, NAME_WIDTH), style="dim"),
            Text(quantity(last, unit), justify="right"),
            Text(sparkline(curve.values.tolist(), max(8, min(TREND, width - 50))), style="cyan"),
            Text(f"{quantity(low, unit)} to {quantity(high, unit)}" if unit == "share" else span, style="dim"),
        )
    return table


def _findings(diagnosed: Diagnosed, width: int) -> Group | None:
    if diagnosed.failed:
        return Group(Text(one_line(f"No diagnosis: {diagnosed.failed}", width), style="yellow"))
    found = diagnosed.findings
    if not found:
        return None
    rows = [
        Text(one_line(f"{f.severity}: {f.sentence}", width), style=SEVERITIES[f.severity])
        for f in found[:MOST_FINDINGS]
    ]
    more = [Text(f"and {len(found) - MOST_FINDINGS} more", style="dim")] if len(found) > MOST_FINDINGS else []
    return Group(*rows, *more)


def _ledger(run: OwnRun) -> Text | None:
    books = ledger(run)["books"]
    told = [
        f"{book['title'].lower()} {number(book['total'])}: "
        + ", ".join(f"{fate['fate']} {quantity(fate['share'], 'share')}" for fate in book["fates"][:4])
        for book in books[:2]
    ]
    return Text("ledger  " + ";  ".join(told), style="dim") if told else None


def _events(run: OwnRun, width: int) -> Group | None:
    found = [event for event in run.events if event["kind"] not in QUIET][-MOST_EVENTS:]
    rows = [Text(one_line(f"step {e['step']:>4}  {e['kind']}  {_gist(e)}", width), style="dim") for e in found]
    return Group(*rows) if rows else None


def _gist(event: dict[str, object]) -> str:
    told = {k: v for k, v in event.items() if k not in ("kind", "step", "time") and v != ""}
    facts = [f"{k} {v}" for k, v in told.items() if isinstance(v, str | int)]
    return ", ".join(facts[:3])
