"""What a run of ours accounts for: its end, held-out results, where every rollout and second went, how to repeat it.

Every number is computed here from what is on disk and stands beside the metric it comes from.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import tomli_w

from ratchet.charts.axes import WORK
from ratchet.charts.document import Grid, Part, Quote, Section, Text, code, plain
from ratchet.charts.series import END_STEPS
from ratchet.charts.tables import largest_first, summed
from ratchet.charts.text import duration, flops, number, percent, size
from ratchet.core.rollout import Group, Rollout
from ratchet.store.run_store import Row, RunStore

ENDS = ("finished", "stopped", "failed", "crashed")
"""Kinds of the event that closes a stretch of a run; ``start`` and ``resume`` open one."""
MOST_TEXT = 1500
"""Characters of an answer that is quoted."""


def outcome(store: RunStore, rows: Sequence[Row], events: Sequence[Row]) -> Text:
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
        said = f"**No end is recorded after {done}**: the run is still going, or its process was killed.{again}"
        return Text(said, is_warning=True)
    if end["kind"] == "finished":
        return Text(f"Finished: {done}.{again}")
    if end["kind"] == "stopped":
        said = f"**Stopped on request after {done}.** Go on with {code(f'ratchet resume {store.folder}')}.{again}"
        return Text(said, is_warning=True)
    verb = "Failed" if end["kind"] == "failed" else "Crashed"
    reason = plain(str(end.get("error", "no reason recorded")))
    return Text(f"**{verb} at step {end['step']}, with {done} done**: {reason}{again}", is_warning=True)


def held_out(rows: Sequence[Row], events: Sequence[Row]) -> list[Section]:
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
                f"{plain(str(split))}, after {step} steps",
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
    return [Section("Held-out evaluation", [Grid(head, body), Text(note)])]


def ledger(rows: Sequence[Row]) -> Section:
    """Say where every rollout, token and prompt went, and whether the entries close."""
    parts: list[Part] = []
    if not rows:
        return Section("Ledger", [Text("No step is recorded.")])
    asked = sum(row.get("rollouts/asked", 0.0) for row in rows)
    open_steps = [
        int(row["step"])
        for row in rows
        if sum(v for k, v in row.items() if k.startswith("ledger/")) != row.get("rollouts/asked", 0.0)
    ]
    parts.append(_fates(rows, "ledger/", "rollouts", ("`rollouts/asked`", asked)))
    verdict = "The ledger closes: on each step the entries add up to the attempts asked for."
    if open_steps:
        shown = ", ".join(str(s) for s in open_steps[:5]) + (" ..." if len(open_steps) > 5 else "")
        verdict = (
            f"**The ledger does not close on {len(open_steps)} of {len(rows)} steps** ({shown}): the entries do not "
            "add up to the attempts asked for."
        )
    parts.append(Text(verdict, is_warning=bool(open_steps)))
    sampled = sum(row.get("tokens/generated", 0.0) for row in rows)
    if tokens := summed(rows, "ledger_tokens/"):
        parts.append(_fates(rows, "ledger_tokens/", "tokens", ("`tokens/generated`", sampled)))
        if sum(tokens.values()) != sampled:
            parts.append(Text("**The tokens do not close**: the entries do not add up to those sampled.", True))
    if summed(rows, "ledger_prompts/"):
        parts.append(_fates(rows, "ledger_prompts/", "prompts", None))
    if agents := summed(rows, "ledger_agents/"):
        told = ", ".join(f"{code(k)} {v:,.0f}" for k, v in largest_first(agents))
        parts.append(Text(f"Tasks of agents by how they ended: {told}."))
    return Section("Ledger: where every prompt and token went", parts)


def _fates(rows: Sequence[Row], family: str, what: str, asked: tuple[str, float] | None) -> Grid:
    totals = summed(rows, family)
    whole = asked[1] if asked is not None else sum(totals.values())
    body = [(code(k), f"{v:,.0f}", percent(v / whole) if whole else "") for k, v in largest_first(totals)]
    body.append(("sum", f"{sum(totals.values()):,.0f}", ""))
    if asked is not None:
        body.append((asked[0], f"{asked[1]:,.0f}", ""))
    return Grid(("fate", what, "share"), body)


def time(rows: Sequence[Row]) -> list[Section]:
    """Say where the seconds went, and what they bought."""
    total = sum(row.get("time/step", 0.0) for row in rows)
    if not total:
        return []
    found = [*largest_first(summed(rows, "time/")), *largest_first(summed(rows, "wait/"))]
    body = [(code(name), duration(seconds), percent(seconds / total)) for name, seconds in found]
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
    grid = Grid(("what", "time", "share of step time"), body)
    return [Section("Waiting and time", [grid, Text(note), Text(costs)])]


def gate(events: Sequence[Row]) -> list[Section]:
    """Say how well sampler and trainer agreed before the first step, and what the reward gave texts of known worth."""
    parts: list[Part] = []
    if (found := _latest(events, "gate")) is not None:
        said = ", ".join(f"{code(k)} {number(v)} nats" for k, v in sorted(found.items()) if k.startswith("gate/"))
        parts.append(Text(f"Sampler and trainer agreed on log-probabilities: {said}."))
    if (probe := _latest(events, "reward_probe")) is not None:
        if probe.get("rows"):
            head = ("text", "mean reward", "earns full marks on", "tasks", "failed")
            body = [
                (
                    plain(r["probe"]),
                    number(r["mean"]),
                    percent(r["full_share"]),
                    str(r["num_tasks"]),
                    str(r["num_failed"]),
                )
                for r in probe["rows"]
            ]
            parts += [
                Text("What the reward gave texts of known worth:"),
                Grid(head, body),
                Text("For gold, full marks means more than the empty text earns."),
            ]
        else:
            parts.append(Text("The reward was not probed: the environment shows no gold answers."))
    return [Section("Before the first step", parts)] if parts else []


def written(store: RunStore) -> list[Part]:
    """Return one answer of the first and one of the last recorded step, each the best of its step, as it stands."""
    kept = store.steps_with_groups()
    parts: list[Part] = []
    for step in dict.fromkeys([*kept[:1], *kept[-1:]]):
        scored = [(g, r) for g in store.read_groups(step) for r in g.rollouts if r.score is not None]
        if scored:
            parts.append(_answer(step, *max(scored, key=lambda pair: pair[1].score.value if pair[1].score else 0.0)))
    return parts


def _answer(step: int, group: Group, rollout: Rollout) -> Quote:
    text = "\n".join(turn.text for t in rollout.trajectories if t.trainable for turn in t.turns)
    cut = f"{text[:MOST_TEXT]}\n[{len(text) - MOST_TEXT:,} more characters]" if len(text) > MOST_TEXT else text
    prompt = "\n".join(f"{m.role}: {m.content}" for m in group.task.prompt)[-MOST_TEXT:]
    earned = number(rollout.score.value) if rollout.score is not None else "nothing"
    return Quote(f"{prompt}\n---\n{cut}", title=f"Highest-paid answer of step {step} (reward {earned})")


def repeat(store: RunStore, events: Sequence[Row]) -> Section:
    """Give the commands that repeat the run, its config, checkpoints, and with what it was made."""
    config = store.config_tree()
    name = config.get("run", {}).get("name")
    other = f" run.name={name}-again" if name else ""
    commands = f"$ ratchet train {store.folder / 'config.toml'}{other}\n$ ratchet resume {store.folder}"
    listed = [str(e["path"]) for e in events if e["kind"] == "checkpoint"]
    kept = sorted(path for path in set(listed) if (store.folder / path).is_dir())
    checkpoints = ", ".join(code(path) for path in kept) or "none"
    return Section(
        "To repeat it",
        [
            Quote(commands, "console"),
            Text(f"Checkpoints: {checkpoints} ({len(set(listed))} written). Each is a Hugging Face folder too."),
            *(Text(f"Damaged: {plain(str(e['what']))}.", True) for e in events if e["kind"] == "damaged_checkpoint"),
            *(Text(text) for text in _machine(store, events)),
            Quote(tomli_w.dumps(config), "toml", title="The whole config"),
        ],
    )


def _machine(store: RunStore, events: Sequence[Row]) -> list[str]:
    """Say with what the run was made; a resume elsewhere is told."""
    first = store.environment()
    commit = f" ({first['commit']})" if first.get("commit") else ""
    packages = ", ".join(f"{k} {v}" for k, v in first.get("packages", {}).items())
    said = plain(
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
    return [f"Made with {said}", *changed]


def _latest(events: Sequence[Row], kind: str) -> Row | None:
    return next((e for e in reversed(events) if e["kind"] == kind), None)
