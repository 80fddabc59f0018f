"""What a report says of a log that others wrote: whose it is, how it was read, what it counts and times."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ratchet.charts.document import Grid, Items, Part, Quote, Section, Text, code, plain
from ratchet.charts.series import Series
from ratchet.charts.source import Source
from ratchet.charts.story import series_named
from ratchet.charts.text import duration, number, percent
from ratchet.logs.log import Log
from ratchet.logs.names import describe

COUNTED = (
    "ledger/*",
    "ledger_tokens/*",
    "ledger_prompts/*",
    "drop/*",
    "drop_frac/*",
    "rollouts/*",
    "tokens/*",
    "queue/*",
)
TIMED = ("time/*", "wait/*")
MOST_ROWS = 20


def foreign_overview(source: Source) -> list[Part]:
    """Say what was trained, as far as a log tells, and how it was read."""
    log = _log(source)
    facts = [
        ("log", code(str(source.path))),
        ("written by", f"{plain(log.framework.name)} ({code(log.framework.evidence)})"),
        ("form", f"{plain(log.format.name)} ({code(log.format.evidence)})"),
        ("training", log.training.value),
        ("a step is", log.axis.value),
        ("series", f"{len(log.series)} known, {len(log.evals)} of evaluation, {len(log.unrecognised)} not recognised"),
    ]
    parts: list[Part] = [Grid(("what", "how"), facts)]
    if not (log.framework.sure and log.format.sure):
        parts.append(Text("**Whose log this is, or its form, is not sure**: another reading is possible.", True))
    if log.notes:
        parts.append(Items([f"{note.topic.value}: {plain(note.text)}" for note in log.notes]))
    parts.append(Text("Model, task and settings are not in a log of metrics."))
    return parts


def foreign_ledger(source: Source) -> Section:
    """Say what the log counts of prompts, rollouts and tokens."""
    found = [s for s in series_named(source, COUNTED) if s.values]
    title = "Ledger: where every prompt and token went"
    if not found:
        return Section(title, [Text("The log counts no prompts, rollouts or tokens, so none can be followed.")])
    body = [(code(s.name), *_counted(s)) for s in found[:MOST_ROWS]]
    note = "The log has no entry for each fate of a prompt, so it cannot be said whether this is all."
    return Section(title, [Grid(("counted", "mean a step", "last", "sum over steps"), body), Text(note)])


def foreign_time(source: Source) -> Section:
    """Say where the seconds went, as far as the log tells."""
    found = [s for s in series_named(source, TIMED) if s.values]
    if not found:
        return Section("Waiting and time", [Text("The log times nothing.")])
    whole = next((sum(s.values) for s in found if s.name == "time/step"), 0.0)
    body = [
        (code(s.name), duration(sum(s.values)), percent(sum(s.values) / whole) if whole else "")
        for s in sorted(found, key=lambda s: -sum(s.values))[:MOST_ROWS]
    ]
    note = "Taken as seconds. Parts of a step may overlap, so shares need not add up to 100 %."
    return Section("Waiting and time", [Grid(("what", "sum over steps", "share of `time/step`"), body), Text(note)])


def foreign_repeat(source: Source) -> Section:
    """Give the command that makes this report again; how to train again, a log does not say."""
    log = _log(source)
    words = ["ratchet", "report", *(str(path) for path in log.sources[:1])]
    known = f" --format {log.format.name} --framework {log.framework.name}"
    return Section(
        "To repeat it",
        [
            Quote(f"$ {' '.join(map(shlex.quote, words))}{known}", "console"),
            Text("This makes the report again. The command, config and versions of the training are not in the log."),
        ],
    )


def _counted(series: Series) -> Sequence[str]:
    """Return mean, last and sum of a count; the sum of a share, or of a running total, would mean nothing."""
    entry = describe(series.name)
    mean = sum(series.values) / len(series.values)
    is_share = (entry is not None and entry.unit == "share") or "frac" in series.name
    rises = len(series.values) > 2 and all(b >= a for a, b in zip(series.values, series.values[1:], strict=False))
    is_total = rises and series.values[-1] > 3 * mean / 2
    total = "a share" if is_share else "a running total" if is_total else number(sum(series.values))
    return number(mean), number(series.values[-1]), total


def _log(source: Source) -> Log:
    assert source.log is not None, "a foreign source has a log"
    return source.log
