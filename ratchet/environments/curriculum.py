"""Which problems are trained on when, and which successes are shown once more late in a run. Pure functions.

    plan = first_plan(passes)                                       problems some of k attempts solved
    if is_due(step, every=100):
        plan, facts = admit(plan, passes, rule="unsolved", count=500, rng=rng)
    if has_flattened(rates, window=20, gain=0.01):
        again = choose_positives(recent_groups, count=64, rng=rng)

A problem that no attempt solves, or every one, gives a group without a difference to learn from. So training begins
with the problems that are solved at least once in k attempts, and the others wait.

**Source**: Kimi-Dev (arXiv 2509.23045). Its text admits problems once the success on the present ones passes a
threshold, from those that have become solvable; its appendix draws from those still unsolved. The two conflict, so the
rule is a parameter.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ratchet.core.rollout import Group, Rollout

Rule = Literal["solvable", "unsolved"]
"""solvable: those that at least one attempt solves by now; unsolved: a random draw from those that none does."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The problems in training and those that wait, by name, each in the order they came."""

    admitted: tuple[str, ...]
    waiting: tuple[str, ...]


def first_plan(passes: Mapping[str, int]) -> Plan:
    """Return the plan a run begins with; `passes` counts how many of a problem's k attempts succeeded."""
    return Plan(tuple(n for n, c in passes.items() if c > 0), tuple(n for n, c in passes.items() if c == 0))


def is_due(step: int, *, every: int) -> bool:
    """Return whether problems are admitted before this step: every so many steps, not at the start."""
    if every < 1:
        raise ValueError(f"every = {every} must be at least 1")
    return step > 0 and step % every == 0


def admit(
    plan: Plan,
    passes: Mapping[str, int],
    *,
    rule: Rule,
    count: int,
    rng: random.Random,
    success: float = 1.0,
    threshold: float = 0.0,
) -> tuple[Plan, dict[str, float]]:
    """Return the plan with up to `count` waiting problems admitted, and the numbers of an event about it.

    `passes` counts the present policy's successes in k attempts at waiting problems; one that was not tried counts as
    unsolved. Nothing is admitted while `success`, the rate on the admitted ones, is below `threshold`.
    """
    solvable = [name for name in plan.waiting if passes.get(name, 0) > 0]
    fitting = solvable if rule == "solvable" else [name for name in plan.waiting if not passes.get(name, 0)]
    drawn = set(rng.sample(fitting, min(count, len(fitting)))) if success >= threshold else set()
    chosen = tuple(name for name in plan.waiting if name in drawn)
    after = Plan(plan.admitted + chosen, tuple(name for name in plan.waiting if name not in drawn))
    return after, {
        "curriculum/newly_admitted": float(len(chosen)),
        "curriculum/admitted": float(len(after.admitted)),
        "curriculum/waiting": float(len(after.waiting)),
        "curriculum/solvable_waiting": float(len(solvable)),
        "curriculum/success": success,
    }


def has_flattened(rates: Sequence[float], *, window: int, gain: float) -> bool:
    """Return whether the mean rate of the last `window` steps is less than `gain` above that of the window before.

    False while there are fewer than two windows.
    """
    if window < 1:
        raise ValueError(f"window = {window} must be at least 1")
    if len(rates) < 2 * window:
        return False
    last, before = rates[-window:], rates[-2 * window : -window]
    return (sum(last) - sum(before)) / window < gain


@dataclass(frozen=True, slots=True, eq=False)
class Positive:
    """A success that is to be trained on once more."""

    group: Group
    rollout: Rollout


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


def replay_facts(chosen: Sequence[Positive], *, step: int, asked: int) -> dict[str, float]:
    """Return the numbers of an event about a replay: how many, how old, how hard their problems were."""
    rates = [_rate(positive.group) for positive in chosen]
    return {
        "replay/positives": float(len(chosen)),
        "replay/missing": float(asked - len(chosen)),
        "replay/age": sum(step - positive.group.step for positive in chosen) / len(chosen) if chosen else 0.0,
        "replay/success": sum(rates) / len(rates) if rates else 0.0,
    }


def _rate(group: Group) -> float:
    values = [r.score.value for r in group.usable if r.score is not None]
    return sum(values) / len(values) if values else 0.0
