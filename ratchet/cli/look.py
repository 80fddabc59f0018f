"""Looking at a run: its status, its rollouts, its charts. Reads the store and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ratchet.charts.text import sparkline
from ratchet.charts.timeline import draw_timeline, timeline_of, write_page
from ratchet.cli.view import SHOWN, duration
from ratchet.core.errors import ConfigError
from ratchet.core.rollout import Group, Rollout
from ratchet.store.control import is_alive
from ratchet.store.run_store import RunStore


def status_text(store: RunStore) -> str:
    """Return what a run does now, whom it waits for, and its latest numbers."""
    status, rows = store.status(), store.metrics()
    state = str(status.get("state", "not started"))
    lines = [f"{store.folder}: {state}, {status.get('step', 0)} of {status.get('steps', '?')} steps done"]
    if state == "running":
        alive = is_alive(int(status["pid"]))
        since = time.time() - float(status["time"])
        if not alive:
            lines = [f"{store.folder}: killed, {status['step']} of {status['steps']} steps done"]
            lines.append(f"Its process is gone. Go on with: ratchet resume {store.folder}")
        for owner, wait in status["waiting"].items() if alive else ():
            lines.append(f"{owner} waits for {wait['for']} since {duration(time.time() - wait['since'])}")
        trainer = status["waiting"].get("trainer")
        lines += [actor_text(actor, trainer) for actor in status.get("actors", ()) if alive]
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


def actor_text(actor: Mapping[str, Any], trainer: Mapping[str, Any] | None = None) -> str:
    """Return who an actor is, where it lives, what it does, and since when; `trainer` is what rank 0 waits for."""
    if "pid" not in actor:
        since = "" if actor.get("since") is None else f" since {duration(time.time() - actor['since'])}"
        if actor.get("lacks"):
            return f"{actor['name']} waits{since} for {actor['lacks']}"
        return f"{actor['name']} is starting{since}"
    node = f", Ray's node {actor['ray_node'][:8]}" if "ray_node" in actor else ""
    where = f" (pid {actor['pid']} on {actor['node']}{node})"
    if "calls" in actor:
        does = f"plays {actor['calls']} attempts" if actor["calls"] else "waits for attempts"
        return f"{actor['name']}{where} {does}"
    if "plays" not in actor:  # a rank: it does what rank 0 does
        does = f"waits for rank 0, which waits for {trainer['for']}" if trainer else "trains"
        return f"{actor['name']}{where} {does}"
    silent = ""
    if "silent" in actor:
        silent = f"; its last sign of life came {duration(time.time() - actor['silent'])} ago"
    if not actor["plays"]:
        return f"{actor['name']}{where} waits for a group to play{silent}"
    groups = ", ".join(map(str, actor["plays"]))
    return f"{actor['name']}{where} plays {groups} since {duration(time.time() - actor['since'])}{silent}"


def rollouts_text(store: RunStore, step: int | None, count: int, tokens: bool) -> str:
    """Return the groups of a step as text, widest spread of rewards first."""
    if step is None:
        kept = store.steps_with_groups()
        if not kept:
            raise ConfigError(f"{store.folder} holds no rollouts yet.")
        step = kept[-1]
    groups = sorted(store.read_groups(step), key=_spread, reverse=True)
    head = f"Step {step}: {len(groups)} groups; showing {min(count, len(groups))}, widest spread first."
    return "\n\n".join([head, *(group_text(g, tokens) for g in groups[:count])])


def timeline_files(
    store: RunStore, name: str | None, clock: Literal["seconds", "steps"], out: Path | None
) -> list[Path]:
    """Draw one attempt as a timeline and return the files written. Raises `ConfigError` if there is no such attempt."""
    group, rollout = _chosen(store, name)
    told = f"rollout-{group.step}-{group.index}-{rollout.attempt}"
    stem = out if out is not None else store.folder / "figures" / told
    timeline = timeline_of(group, rollout, clock)
    pictures = draw_timeline(timeline, stem)
    return [*pictures, write_page(timeline, pictures, stem.with_name(f"{stem.name}.html"))]


def _chosen(store: RunStore, name: str | None) -> tuple[Group, Rollout]:
    """Return the attempt of that name, or of the last recorded step the one with the most agents."""
    if name is None:
        kept = store.steps_with_groups()
        if not kept:
            raise ConfigError(f"{store.folder} holds no rollouts yet.")
        found = [(g, r) for g in store.read_groups(kept[-1]) for r in g.rollouts]
        return max(found, key=lambda pair: len(pair[1].trajectories))
    numbers = name.split(":")
    if len(numbers) != 3 or not all(n.isdecimal() for n in numbers):
        raise ConfigError(f'"{name}" is no name of an attempt. It has the form STEP:TASK:ATTEMPT, 12:384:3 say.')
    step, index, attempt = map(int, numbers)
    groups = store.read_groups(step)
    for group in groups:
        for rollout in group.rollouts:
            if (group.index, rollout.attempt) == (index, attempt):
                return group, rollout
    tasks = f"tasks {groups[0].index} to {groups[-1].index}" if groups else "no tasks"
    raise ConfigError(f"{store.folder} has no attempt {attempt} at task {index} in step {step}: that step has {tasks}.")


def group_text(group: Group, tokens: bool = False) -> str:
    """Return a task and its attempts as text, best first."""
    prompt = "\n".join(f"{m.role}: {m.content}" for m in group.task.prompt)
    lines = [f"task {group.index} ({group.task.id})", prompt, f"answer: {group.task.answer}"]
    for rollout in sorted(group.rollouts, key=lambda r: -(r.score.value if r.score else float("-inf"))):
        lines.append(f"  {group.step}:{group.index}:{rollout.attempt}" + _rollout_text(rollout))
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
    text = " | ".join(turn.text for t in rollout.trajectories if t.trainable for turn in t.turns)
    agents = sum(not t.trainable for t in rollout.trajectories)
    text += f" ({agents} agents)" if agents else ""
    cut = " (truncated)" if rollout.truncated else ""
    return f"  {rollout.score.value:g}  [{parts}; {rollout.output_tokens} tokens{cut}]  {text}"


def _spread(group: Group) -> float:
    values = [r.score.value for r in group.usable if r.score is not None]
    return max(values) - min(values) if values else 0.0
