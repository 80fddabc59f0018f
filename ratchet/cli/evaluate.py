"""A policy's numbers on held-out tasks, as text: of a checkpoint of a run, or of any policy that was played."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ratchet.cli.look import group_text
from ratchet.run.evaluate import evaluate_checkpoint
from ratchet.run.play import Played


def evaluation_text(run: Path, step: int | None, tasks: int, samples: int, split: str) -> str:
    """Return held-out numbers of a checkpoint as text."""
    path, facts = evaluate_checkpoint(run, step, tasks, samples, split)
    return _facts_text(f"{path.name} of {run}", split, facts)


def played_text(policy: str, split: str, played: Played) -> str:
    """Return what a policy earned, and the tasks of its best and its worst attempt, as text."""
    scored = [
        (rollout.score.value, number, group)
        for number, group in enumerate(played.groups)
        for rollout in group.rollouts
        if rollout.score is not None
    ]
    best, worst = max(scored)[2], min(scored)[2]
    shown = [best] if best is worst else [best, worst]
    names = ["best attempt", "worst attempt"] if len(shown) == 2 else ["only task that tells best from worst"]
    lines = [_facts_text(policy, split, played.facts)]
    unscored = [r for g in played.groups for r in g.rollouts if r.score is None]
    if unscored:
        lines.append(f"{len(unscored)} attempts have no score. The first: {unscored[0].error}")
    for name, group in zip(names, shown, strict=True):
        lines += ["", f"{name}:", group_text(group)]
    return "\n".join(lines)


def _facts_text(what: str, split: str, facts: Mapping[str, float]) -> str:
    lines = [f"{what}: {facts['tasks']:.0f} {split} tasks x {facts['samples']:.0f} samples"]
    for name, value in facts.items():
        if name.endswith(("_low", "_high")) or name in ("tasks", "samples"):
            continue
        band = f"  [{facts[f'{name}_low']:.3f}, {facts[f'{name}_high']:.3f}] 95 %" if f"{name}_low" in facts else ""
        lines.append(f"{name:>18}  {value:.3f}{band}")
    return "\n".join(lines)
