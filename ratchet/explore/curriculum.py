"""Which problems are trained on when. Pure functions.

    plan = first_plan(passes)                               the problems that some of k attempts solved
    if is_due(step, every=100):
        plan, facts = admit(plan, passes, rule="unsolved", count=500, rng=rng)
    problem = plan.problem(place, seed, step)               the problem at a place of the data

A problem that no attempt solves, or every one, gives a group without a difference to learn from. So training begins
with the problems that are solved at least once in k attempts, and the others wait.

**Source**: Kimi-Dev (arXiv 2509.23045). Its text admits problems once the success on the present ones passes a
threshold, from those that have become solvable; its appendix draws from those still unsolved. The two conflict, so the
rule is a parameter.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ratchet.core.seeds import stream

Rule = Literal["solvable", "unsolved"]
"""solvable: those that at least one attempt solves by now; unsolved: a random draw from those that none does."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The problems in training and those that wait, by number, each in the order they came."""

    admitted: tuple[int, ...]
    waiting: tuple[int, ...]

    def problem(self, place: int, *names: str | int) -> int:
        """Return the problem at a place counted from where the plan began.

        Every `len(admitted)` places are all problems once, in an order that the epoch and `names` decide.
        """
        epoch, position = divmod(place, len(self.admitted))
        return _order(self.admitted, names, epoch)[position]


@lru_cache(maxsize=4)
def _order(admitted: tuple[int, ...], names: tuple[str | int, ...], epoch: int) -> list[int]:
    order = list(admitted)
    stream("curriculum", *names, epoch).shuffle(order)
    return order


def first_plan(passes: Mapping[int, int]) -> Plan:
    """Return the plan a run begins with; `passes` counts how many of a problem's k attempts succeeded."""
    return Plan(tuple(n for n, c in passes.items() if c > 0), tuple(n for n, c in passes.items() if c == 0))


def is_due(step: int, *, every: int) -> bool:
    """Return whether problems are admitted before this step: every so many steps, not at the start; 0 is never."""
    return every > 0 and step > 0 and step % every == 0


def admit(
    plan: Plan,
    passes: Mapping[int, int],
    *,
    rule: Rule,
    count: int,
    rng: random.Random,
    success: float = 1.0,
    threshold: float = 0.0,
) -> tuple[Plan, dict[str, float]]:
    """Return the plan with up to `count` waiting problems admitted, and the numbers of an event about it.

    `passes` counts the present policy's successes in k attempts at waiting problems; one that was not tried is not
    admitted. Nothing is admitted while `success`, the rate on the admitted ones, is below `threshold`.
    """
    solvable = [name for name in plan.waiting if passes.get(name, 0) > 0]
    fitting = solvable if rule == "solvable" else [name for name in plan.waiting if passes.get(name) == 0]
    drawn = set(rng.sample(fitting, min(count, len(fitting)))) if success >= threshold else set()
    chosen = tuple(name for name in plan.waiting if name in drawn)
    after = Plan(plan.admitted + chosen, tuple(name for name in plan.waiting if name not in drawn))
    return after, {
        "newly_admitted": float(len(chosen)),
        "admitted": float(len(after.admitted)),
        "waiting": float(len(after.waiting)),
        "tried": float(len(passes)),
        "solvable_waiting": float(len(solvable)),
        "success": success,
    }
