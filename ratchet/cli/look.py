"""Looking at a run: its status, its rollouts, its charts. Reads the store and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from ratchet.charts.figure import draw_metrics, draw_run
from ratchet.charts.text import sparkline
from ratchet.cli.view import SHOWN, duration
from ratchet.core.errors import ConfigError
from ratchet.core.rollout import Group, Rollout
from ratchet.store.run_store import RunStore


def status_text(store: RunStore) -> str:
    """Return what a run does now, whom it waits for, and its latest numbers."""
    status, rows = store.status(), store.metrics()
    state = str(status.get("state", "not started"))
    lines = [f"{store.folder}: {state}, {status.get('step', 0)} of {status.get('steps', '?')} steps done"]
    if state == "running":
        alive = _alive(int(status["pid"]))
        since = time.time() - float(status["time"])
        if not alive:
            lines = [f"{store.folder}: killed, {status['step']} of {status['steps']} steps done"]
            lines.append(f"Its process is gone. Go on with: ratchet resume {store.folder}")
        for owner, wait in status["waiting"].items() if alive else ():
            lines.append(f"{owner} waits for {wait['for']} since {duration(time.time() - wait['since'])}")
        if alive and not status["waiting"]:
            lines.append(f"busy; last word {duration(since)} ago")
    if "error" in status:
        lines.append(f"It ended with: {status['error']}")
    if "resume" in status:
        lines.append(f"Go on with: {status['resume']}")
    for label, name, form in SHOWN:
        series = [row[name] for row in rows if name in row]
        if series:
            lines.append(f"{label:>20}  {form.format(series[-1]):<14} {sparkline(series, width=40)}")
    return "\n".join(lines)


def rollouts_text(store: RunStore, step: int | None, count: int, tokens: bool) -> str:
    """Return the groups of a step as text, widest spread of rewards first."""
    if step is None:
        kept = store.steps_with_groups()
        if not kept:
            raise ConfigError(f"{store.folder} holds no rollouts yet.")
        step = kept[-1]
    groups = sorted(store.read_groups(step), key=_spread, reverse=True)
    head = f"Step {step}: {len(groups)} groups; showing {min(count, len(groups))}, widest spread first."
    return "\n\n".join([head, *(_group_text(g, tokens) for g in groups[:count])])


def chart_files(stores: Sequence[RunStore], metrics: Sequence[str], x: str, out: Path | None) -> list[Path]:
    """Draw and return the files written."""
    if not metrics and len(stores) == 1 and out is None and x == "step":
        return draw_run(stores[0])
    chosen = list(metrics) or ["reward/mean", "len/response/mean"]
    target = out if out is not None else stores[0].folder / "figures" / f"{chosen[0].replace('/', '_')}.png"
    return draw_metrics(stores, chosen, x, target)


def _group_text(group: Group, tokens: bool) -> str:
    prompt = "\n".join(f"{m.role}: {m.content}" for m in group.task.prompt)
    lines = [f"task {group.index} ({group.task.id})", prompt, f"answer: {group.task.answer}"]
    for rollout in sorted(group.rollouts, key=lambda r: -(r.score.value if r.score else float("-inf"))):
        lines.append(_rollout_text(rollout))
        if tokens:
            lines += [
                "      "
                + " ".join(f"{t}:{p:.2f}" for t, p in zip(turn.output.tolist(), turn.logprobs.tolist(), strict=True))
                for trajectory in rollout.trajectories
                for turn in trajectory.turns
            ]
    return "\n".join(lines)


def _rollout_text(rollout: Rollout) -> str:
    if rollout.score is None:
        return f"  [{rollout.status.value}] {rollout.error}"
    parts = " ".join(f"{name} {value:g}" for name, value in rollout.score.parts.items())
    text = " | ".join(turn.text for t in rollout.trajectories for turn in t.turns)
    cut = " (truncated)" if rollout.truncated else ""
    return f"  {rollout.score.value:g}  [{parts}; {rollout.output_tokens} tokens{cut}]  {text}"


def _spread(group: Group) -> float:
    values = [r.score.value for r in group.usable if r.score is not None]
    return max(values) - min(values) if values else 0.0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    # A process that died and was not yet collected by its parent still has its number: state Z.
    return not stat.is_file() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
