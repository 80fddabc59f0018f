"""The report of a run: what was trained, what came of it, where every attempt and every second went.

Every number is computed here from what is on disk and stands beside the metric it comes from. A move that noise can
explain is not called a change.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet.charts.series import CLEAR, END_STEPS, ROUNDING, WORK, Move, Series, metric_series, move
from ratchet.charts.setup import setup
from ratchet.charts.tables import largest_first, summed, table
from ratchet.charts.text import duration, flops, number, percent, quantity, relative_change, size
from ratchet.core.errors import RunError
from ratchet.core.metric import Better, describe
from ratchet.store.run_store import Row, RunStore

ENDS = ("finished", "stopped", "failed", "crashed")
"""Kinds of the event that closes a stretch of a run; ``start`` and ``resume`` open one."""
RESULTS = (
    "reward/mean",
    "reward/parts/*",
    "len/response/mean",
    "len/truncated_frac",
    "entropy",
    "kl/ref",
    "kl/old",
    "clip/frac",
    "signal/zero_groups_frac",
    "opt/grad_norm",
)
"""Metrics of the results table, in order; a family stands for all its members."""


def write_report(store: RunStore, figures: Sequence[Path]) -> Path:
    """Write ``report.md`` into the run's folder and return its path. `figures` are the pictures to show.

    Works for a run in progress, stopped or crashed. Raises `RunError` if the file cannot be written.
    """
    path = store.folder / "report.md"
    try:
        path.write_text(report_text(store, figures), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}. Make room, then draw it again.") from error
    return path


def report_text(store: RunStore, figures: Sequence[Path]) -> str:
    """Return the report as Markdown."""
    rows, events, config = store.metrics(), store.events(), store.config_tree()
    sections = [
        [f"# {store.folder.resolve().name}", _outcome(store, rows, events)],
        setup(store, config),
        _pictures(store, figures),
        _results(store, rows),
        _held_out(rows, events),
        _ledger(rows),
        _time(rows),
        _gate(events),
        _probe(events),
        _checkpoints(store, events),
        _machine(store, events),
        _commands(store, config),
    ]
    return "\n\n".join("\n\n".join(section) for section in sections if section) + "\n"


def _outcome(store: RunStore, rows: Sequence[Row], events: Sequence[Row]) -> str:
    """Say how the run ended, and warn if it did not end well."""
    asked = int(store.plan().get("steps", len(rows)))
    done = f"{len(rows)} of {asked} steps"
    if rows:
        done += f" in {duration(sum(row.get('time/step', 0.0) for row in rows))}"
    opened = max((i for i, e in enumerate(events) if e["kind"] in ("start", "resume")), default=0)
    end = next((e for e in reversed(events[opened:]) if e["kind"] in ENDS), None)
    resumes = sum(e["kind"] == "resume" for e in events)
    again = f" It was resumed {'once' if resumes == 1 else f'{resumes} times'}." if resumes else ""
    if end is None:
        return f"> **No end is recorded after {done}**: the run is still going, or its process was killed.{again}"
    if end["kind"] == "finished":
        return f"Finished: {done}.{again}"
    if end["kind"] == "stopped":
        return f"> **Stopped on request after {done}.** Go on with `ratchet resume {store.folder}`.{again}"
    verb = "Failed" if end["kind"] == "failed" else "Crashed"
    reason = " ".join(str(end.get("error", "no reason recorded")).split())
    return f"> **{verb} at step {end['step']}, with {done} done**: {reason}{again}"


def _pictures(store: RunStore, figures: Sequence[Path]) -> list[str]:
    """Show each PNG with the caption written beside it."""
    parts = []
    for path in figures:
        if path.suffix != ".png":
            continue
        text = path.with_suffix(".txt")
        told = text.read_text(encoding="utf-8") if text.is_file() else path.stem
        title, _, caption = told.partition("\n\n")
        place = Path(os.path.relpath(path, store.folder)).as_posix()
        parts += [f"![{title}]({place})", caption.strip()]
    return [p for p in parts if p]


def _results(store: RunStore, rows: Sequence[Row]) -> list[str]:
    """Return the table of metrics and what it says about the end of the run."""
    found = [s for name in _expanded(rows) if (s := metric_series(store, rows, name)).values]
    if not found:
        return ["## Results", "No step is recorded."]
    moves = [(s, move(s)) for s in found]
    n = moves[0][1].num_steps
    first, last = _span(found[0].steps[:n]), _span(found[0].steps[-n:])
    head = ("metric", f"start ({first})", f"end ({last})", "change", "best, or range")
    body = [
        (f"`{s.name}`", _valued(s.name, m.start), _valued(s.name, m.end), _verdict(s.name, m), _best(s.name, m))
        for s, m in moves
    ]
    rule = (
        f"Start and end are means of {n} step{'' if n == 1 else 's'}. A change is clear when it exceeds {CLEAR:g} "
        "standard errors, estimated from the differences between neighbouring steps."
    )
    notes = [
        f"`{s.name}` is 0 throughout, up to rounding ({entry.zero})."
        for s in found
        if max(map(abs, s.values)) < ROUNDING and (entry := describe(s.name)) is not None and entry.zero
    ]
    return ["## Results", table(head, body), rule, *_fallen(moves), *notes]


def _fallen(moves: Sequence[tuple[Series, Move]]) -> list[str]:
    """Name rewards that end clearly below the best they held for some steps: a late collapse, or a plateau overrun."""
    said = []
    for series, m in moves:
        if not series.name.startswith("reward/") or len(series.values) < 4 * END_STEPS:
            continue
        n, values = m.num_steps, series.values
        means = [statistics.fmean(values[i : i + n]) for i in range(len(values) - n + 1)]
        top = max(range(len(means)), key=means.__getitem__)
        # The best of many windows is high by luck too: ask for twice the margin.
        if means[top] - m.end > 2 * CLEAR * m.standard_error:
            span = _span(series.steps[top : top + n])
            said.append(
                f"**`{series.name}` fell back**: {number(means[top])} over {span}, {number(m.end)} at the end "
                f"({number(m.end - means[top])})."
            )
    return said


def _held_out(rows: Sequence[Row], events: Sequence[Row]) -> list[str]:
    """Return evaluations with intervals beside the training numbers of the same time."""
    latest = {(e["split"], e["step"]): e for e in events if e["kind"] == "eval" and "pass@1" in e}
    if not latest:
        return []
    body = []
    for (split, step), e in sorted(latest.items(), key=lambda item: item[0][1]):
        before = [row for row in rows if step - END_STEPS <= row["step"] < step]
        seen = [float(row["reward/parts/accuracy"]) for row in before if "reward/parts/accuracy" in row]
        rewards = [float(row["reward/mean"]) for row in before if "reward/mean" in row]
        body.append(
            (
                f"{split}, after {step} steps",
                f"{percent(e['pass@1'])} ({percent(e['pass@1_low'])} to {percent(e['pass@1_high'])})",
                percent(statistics.fmean(seen)) if seen else "no such part",
                number(e["reward_mean"]),
                number(statistics.fmean(rewards)) if rewards else "none",
                f"{e['tasks']:.0f} x {e['samples']:.0f}, {e['failed']:.0f} failed",
            )
        )
    head = ("split", "`pass@1` (95 % interval)", "train accuracy", "`reward_mean`", "train reward", "tasks x samples")
    note = (
        f"Train numbers are means of `reward/parts/accuracy` and `reward/mean` over the {END_STEPS} steps before. "
        "A failed attempt counts as wrong."
    )
    return ["## Held-out evaluation", table(head, body), note]


def _ledger(rows: Sequence[Row]) -> list[str]:
    """Say where every attempt went, and whether the entries close."""
    if not rows:
        return []
    totals = summed(rows, "ledger/")
    asked = sum(row.get("rollouts/asked", 0.0) for row in rows)
    open_steps = [
        int(row["step"])
        for row in rows
        if sum(v for k, v in row.items() if k.startswith("ledger/")) != row.get("rollouts/asked", 0.0)
    ]
    body = [(f"`{k}`", f"{v:,.0f}", percent(v / asked) if asked else "") for k, v in largest_first(totals)]
    body.append(("sum", f"{sum(totals.values()):,.0f}", ""))
    body.append(("`rollouts/asked`", f"{asked:,.0f}", ""))
    verdict = "The ledger closes: on each step the entries add up to the attempts asked for."
    if open_steps:
        shown = ", ".join(str(s) for s in open_steps[:5]) + (" ..." if len(open_steps) > 5 else "")
        verdict = (
            f"**The ledger does not close on {len(open_steps)} of {len(rows)} steps** ({shown}): the entries do not "
            "add up to the attempts asked for."
        )
    tokens, prompts = summed(rows, "ledger_tokens/"), summed(rows, "ledger_prompts/")
    sampled = sum(row.get("tokens/generated", 0.0) for row in rows)
    also = (
        f"Tokens: {tokens.get('ledger_tokens/trained', 0.0):,.0f} of {sampled:,.0f} sampled were trained on"
        f"{'' if sum(tokens.values()) == sampled else ' (**these entries do not close**)'}; prompts: "
        f"{prompts.get('ledger_prompts/trained', 0.0):,.0f} of {sum(prompts.values()):,.0f}."
    )
    return ["## Where every rollout went", table(("fate", "rollouts", "share"), body), verdict, also]


def _time(rows: Sequence[Row]) -> list[str]:
    """Say where the seconds went, and what they bought."""
    total = sum(row.get("time/step", 0.0) for row in rows)
    if not total:
        return []
    parts = [*largest_first(summed(rows, "time/")), *largest_first(summed(rows, "wait/"))]
    body = [(f"`{name}`", duration(seconds), percent(seconds / total)) for name, seconds in parts]
    tokens = sum(row.get("tokens/generated", 0.0) for row in rows)
    work = sum(row.get(name, 0.0) for row in rows for name in WORK)
    costs = (
        f"{tokens:,.0f} tokens sampled (`tokens/generated`), {number(tokens / total)} a second; {flops(work)} "
        f"(`flops/*/step`), {flops(work / total)}/s; "
        f"at most {size(max(row.get('mem/rss_bytes', 0.0) for row in rows))} resident (`mem/rss_bytes`)."
    )
    note = (
        "`time/explore` and `time/train` make up `time/step`; the other times are parts of `time/train`. Explorer and "
        "trainer may wait at the same time, so waits do not add up to the step."
    )
    return ["## Time and waiting", table(("what", "time", "share of step time"), body), note, costs]


def _gate(events: Sequence[Row]) -> list[str]:
    """Say how well sampler and trainer agreed before the first step."""
    gate = _latest(events, "gate")
    if gate is None:
        return []
    said = ", ".join(f"`{k}` {number(v)} nats" for k, v in sorted(gate.items()) if k.startswith("gate/"))
    return ["## Before the first step", f"Sampler and trainer agreed on log-probabilities: {said}."]


def _probe(events: Sequence[Row]) -> list[str]:
    """Return what the reward gave texts of known worth."""
    event = _latest(events, "reward_probe")
    if event is None:
        return []
    if not event.get("rows"):
        return ["### Reward probe", "The reward was not probed: the environment shows no gold answers."]
    body = [
        (r["probe"], number(r["mean"]), percent(r["full_share"]), str(r["num_tasks"]), str(r["num_failed"]))
        for r in event["rows"]
    ]
    head = ("text", "mean reward", "earns full marks on", "tasks", "failed")
    return ["### Reward probe", table(head, body), "For gold, full marks means more than the empty text earns."]


def _checkpoints(store: RunStore, events: Sequence[Row]) -> list[str]:
    """List the checkpoints still there, and those found damaged."""
    written = [str(e["path"]) for e in events if e["kind"] == "checkpoint"]
    kept = sorted(path for path in set(written) if (store.folder / path).is_dir())
    damaged = [f"Damaged: {e['what']}." for e in events if e["kind"] == "damaged_checkpoint"]
    listed = ", ".join(f"`{path}`" for path in kept) or "none"
    said = f"{listed} ({len(set(written))} written). Each is a Hugging Face folder too."
    return ["## Checkpoints", said, *damaged]


def _machine(store: RunStore, events: Sequence[Row]) -> list[str]:
    """Say with what the run was made; a resume elsewhere is told."""
    first = store.environment()
    commit = f" ({first['commit']})" if first.get("commit") else ""
    packages = ", ".join(f"{k} {v}" for k, v in first.get("packages", {}).items())
    said = (
        f"ratchet {first.get('ratchet', '?')}{commit}, Python {first.get('python', '?')}, {packages}; "
        f"{first.get('processor', '?')}, cores: {first.get('cores', '?')}, threads: {first.get('threads', '?')}, "
        f"{first.get('cuda') or 'no GPU'}; native kernels: {first.get('native_kernels', '?')}; "
        f"{first.get('platform', '?')}."
    )
    changed = []
    for event in events:
        if event["kind"] == "resume":
            other = event.get("environment", {})
            differs = sorted(k for k in first.keys() | other.keys() if first.get(k) != other.get(k))
            if differs:
                changed.append(f"The resume at step {event['step']} differs in: {', '.join(differs)}.")
    return ["## Versions and machine", said, *changed]


def _commands(store: RunStore, config: Mapping[str, Any]) -> list[str]:
    """Give the commands that repeat the run and go on with it."""
    name = config.get("run", {}).get("name")
    other = f" run.name={name}-again" if name else ""
    return [
        "## Again",
        f"```console\n$ ratchet train {store.folder / 'config.toml'}{other}\n$ ratchet resume {store.folder}\n```",
    ]


def _expanded(rows: Sequence[Row]) -> list[str]:
    """Return `RESULTS` with each family replaced by its members."""
    names: list[str] = []
    for pattern in RESULTS:
        stem = pattern.removesuffix("*")
        names += sorted({k for row in rows for k in row if k.startswith(stem)}) if stem != pattern else [pattern]
    return names


def _valued(name: str, value: float) -> str:
    entry = describe(name)
    return quantity(value, entry.unit if entry is not None else "")


def _verdict(name: str, m: Move) -> str:
    """Return a move in words; shares move by percentage points."""
    if math.isnan(m.standard_error):
        return "too few steps to say"
    if not m.is_clear:
        return "no clear change"
    word, by_how_much = "up" if m.difference > 0 else "down", abs(m.difference)
    entry = describe(name)
    if entry is not None and entry.unit == "share":
        return f"{word} {100 * by_how_much:.1f} points"
    return f"{word} {number(by_how_much)}" + (f" ({relative_change(m.relative)})" if m.relative is not None else "")


def _best(name: str, m: Move) -> str:
    """Return the best value with its step; for a metric that is no goal, both extremes."""
    entry = describe(name)
    better = entry.better if entry is not None else Better.NEITHER
    high, low = (f"{_valued(name, value)} (step {step})" for step, value in (m.highest, m.lowest))
    if m.highest[1] == m.lowest[1]:
        return "constant"
    if better is Better.NEITHER:
        return f"lowest {low}, highest {high}"
    return high if better is Better.HIGHER else low


def _span(steps: Sequence[int]) -> str:
    return f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"


def _latest(events: Sequence[Row], kind: str) -> Row | None:
    return next((e for e in reversed(events) if e["kind"] == kind), None)
