"""Numbers about groups: what a step's exploration was like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratchet.core.rollout import Group, Tokens, Trajectory, Turn


def explore_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Return reward, length, truncation and failure metrics of a step (names as in the metric dictionary)."""
    rollouts = [r for g in groups for r in g.rollouts]
    scored = [r for r in rollouts if r.score is not None]
    greedy = [g.greedy for g in groups if g.greedy is not None]
    metrics: dict[str, float] = {"rollouts/asked": float(len(rollouts)), "rollouts/scored": float(len(scored))}
    if not scored:
        return metrics
    rewards = np.array([r.score.value for r in scored if r.score is not None])
    lengths = np.array([r.output_tokens for r in scored], dtype=float)
    metrics |= {
        "reward/mean": float(rewards.mean()),
        "reward/std": float(rewards.std()),
        "reward/min": float(rewards.min()),
        "reward/max": float(rewards.max()),
        "len/response/mean": float(lengths.mean()),
        "len/response/min": float(lengths.min()),
        "len/response/max": float(lengths.max()),
        "len/truncated_frac": float(np.mean([r.truncated for r in scored])),
        "tokens/generated": float(sum(r.output_tokens for r in rollouts)),
        "tokens/prompt": float(sum(len(t.turns[0].prompt) for r in rollouts for t in r.trajectories if t.turns)),
        "signal/group_std": float(np.mean([_spread(g) for g in groups if len(g.usable) > 1] or [0.0])),
    }
    parts = sorted({name for r in scored if r.score for name in r.score.parts})
    for name in parts:
        values = [r.score.parts[name] for r in scored if r.score and name in r.score.parts]
        metrics[f"reward/parts/{name}"] = float(np.mean(values))
    for name in sorted({name for r in scored for name in r.metrics}):
        metrics[f"env/{name}"] = float(np.mean([r.metrics[name] for r in scored if name in r.metrics]))
    if certain := [r.score.value for r in greedy if r.score is not None]:
        metrics["reward/greedy"] = float(np.mean(certain))
        metrics["tokens/greedy"] = float(sum(r.output_tokens for r in greedy))
    agents = [t for r in rollouts for t in r.trajectories if not t.trainable]
    if agents:
        metrics["agents/spawned"] = float(len(agents))
        metrics["tokens/agents"] = float(sum(len(turn.output) for t in agents for turn in t.turns))
        for outcome in sorted({t.outcome for t in agents if t.outcome}):
            metrics[f"ledger_agents/{outcome}"] = float(sum(t.outcome == outcome for t in agents))
    if any(len(t.turns) > 1 for r in rollouts for t in r.trajectories if t.trainable):
        metrics["prefix/breaks"] = float(sum(_breaks(t) for r in rollouts for t in r.trajectories if t.trainable))
    for reason in sorted({r.status.value for r in rollouts} - {"ok"}):
        metrics[f"drop/{reason}"] = float(sum(r.status.value == reason for r in rollouts))
    return metrics


def _spread(group: Group) -> float:
    return float(np.std([r.score.value for r in group.usable if r.score is not None]))


def _breaks(trajectory: Trajectory) -> int:
    """Return how many turns do not begin with all tokens of the turn before and its answer."""
    pairs = zip(trajectory.turns, trajectory.turns[1:], strict=False)
    return sum(not np.array_equal(b.prompt[: len(seen)], seen) for b, seen in ((b, _seen(a)) for a, b in pairs))


def _seen(turn: Turn) -> Tokens:
    return np.concatenate([turn.prompt, turn.output])
