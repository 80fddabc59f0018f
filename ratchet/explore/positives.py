"""Which successes of recent steps are trained on once more, late in a run. Pure functions.

When the success rate no longer rises, good answers have become a scarce good: those of recent steps are shown again,
beside the fresh ones. An answer keeps the advantage it had among the attempts it was sampled with.

**Source**: Kimi-Dev (arXiv 2509.23045), positive example reinforcement.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ratchet.core.rollout import Group, Positive


def flattened_at(rates: Sequence[float], *, window: int, gain: float, start: int = 0) -> int | None:
    """Return the first step, not before `start`, at which the mean rate has stopped rising; None if at none.

    At step k it has if the mean over the `window` steps before k is less than `gain` above that of the window before
    them; `rates` are those of the steps so far, in order.
    """
    for step in range(max(start, 2 * window), len(rates) + 1):
        last, before = rates[step - window : step], rates[step - 2 * window : step - window]
        if (sum(last) - sum(before)) / window < gain:
            return step
    return None


def choose_positives(
    recent: Sequence[Group], *, count: int, rng: random.Random, least: float = 1.0, one_per_task: bool = True
) -> list[Positive]:
    """Return up to `count` successes from recent groups, drawn evenly, in the order they were sampled.

    A success earned at least `least`. Problems that every attempt solved are left out: there is nothing left to
    reinforce. With `one_per_task` easy problems do not crowd out those that were solved once.
    """
    found: list[Positive] = []
    for group in recent:
        good = [r for r in group.usable if r.score is not None and r.score.value >= least]
        if good and len(good) < len(group.usable):
            found += [Positive(group, r) for r in ([rng.choice(good)] if one_per_task else good)]
    kept = sorted(rng.sample(range(len(found)), min(count, len(found))))
    return [found[i] for i in kept]


def replay_facts(chosen: Sequence[Positive], *, step: int, asked: int, least: float = 1.0) -> dict[str, float]:
    """Return the metrics of a replay: how many, how old, how hard their problems were."""
    rates = [solved_share([positive.group], least=least) for positive in chosen]
    return {
        "positives/count": float(len(chosen)),
        "positives/missing": float(asked - len(chosen)),
        "positives/age": sum(step - positive.group.step for positive in chosen) / len(chosen) if chosen else 0.0,
        "positives/success": sum(rates) / len(rates) if rates else 0.0,
    }


def solved_share(groups: Sequence[Group], *, least: float) -> float:
    """Return the share of scored attempts that earned at least `least`; 0 if there are none."""
    values = [r.score.value for g in groups for r in g.usable if r.score is not None]
    return sum(value >= least for value in values) / len(values) if values else 0.0
