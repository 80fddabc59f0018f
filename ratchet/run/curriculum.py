"""The curriculum of a run: decided before a step, recorded as an event, looked up by the place in the data.

A decision depends on the weights that sample its step and on names alone, so a resumed run decides again what the
killed one decided, and takes from the events what lies behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from ratchet.config.learning import CurriculumSection
from ratchet.core.errors import ConfigError
from ratchet.core.rollout import Group
from ratchet.core.seeds import stream
from ratchet.explore.curriculum import Plan, admit, first_plan, is_due
from ratchet.explore.positives import solved_share
from ratchet.store.run_store import RunStore

AT_ONCE = 256
"""Problems that are tried at the same time."""

Play = Callable[[int, Sequence[int], int], Awaitable[list[Group]]]
"""Returns the groups of so many attempts at each of some problems, played before a step."""


@dataclass(frozen=True, slots=True)
class _Decision:
    plan: Plan
    flops: float
    rollouts: float


class Curriculum:
    """Which problem stands at which place of a run's data. Without problems to choose from, place and problem agree."""

    def __init__(self, config: CurriculumSection, store: RunStore, *, prompts_per_step: int, seed: int) -> None:
        self._config, self._store, self._size, self._seed = config, store, prompts_per_step, seed
        self._decisions: dict[int, _Decision] = {}

    def restore(self, step: int) -> None:
        """Take back from the run's events what was decided up to a step."""
        for event in self._store.events():
            if event["kind"] == "curriculum" and event["step"] <= step:
                plan = Plan(tuple(event["problems"]), tuple(event["waiting_problems"]))
                self._decisions[event["step"]] = _Decision(plan, event["flops"], event["rollouts"])

    def task_at(self, index: int) -> int:
        """Return the task at an index of the data. The step it belongs to must have been prepared."""
        if not self._config.problems:
            return index
        start, plan = self._plan_at(index // self._size)
        return plan.problem(index - start * self._size, self._seed, start)

    def is_due(self, step: int) -> bool:
        """Return whether a decision is to be made before a step."""
        due = step == 0 or is_due(step, every=self._config.every)
        return bool(self._config.problems) and due and step not in self._decisions

    async def prepare(self, step: int, version: int, play: Play, flops: Callable[[Sequence[Group]], float]) -> None:
        """Decide what a step may train on: try problems with the weights of `version`. Call it where it is due.

        **Raises**: `ConfigError` if no problem at all is solved.
        """
        config = self._config
        if step == 0:
            groups, passes = await self._try(step, range(config.problems), play)
            plan = first_plan(passes)
            if not plan.admitted:
                raise ConfigError(
                    f"None of the {config.problems} problems was solved in {config.attempts} attempts, so there is "
                    "nothing to begin with. Warm-start longer, raise curriculum.attempts, or give easier problems."
                )
            facts = {"admitted": float(len(plan.admitted)), "waiting": float(len(plan.waiting))}
        else:
            _, before = self._plan_at(step)
            rng = stream("curriculum", self._seed, "admit", step)
            tried = before.waiting
            if config.tried:
                tried = tuple(rng.sample(tried, min(config.tried, len(tried))))
            groups, passes = await self._try(step, tried, play)
            success = self._success(version)
            plan, facts = admit(
                before,
                passes,
                rule=config.rule,
                count=config.count,
                rng=rng,
                success=success,
                threshold=config.threshold,
            )
        cost = _Decision(plan, flops(groups), float(sum(len(g.rollouts) for g in groups)))
        self._decisions[step] = cost
        self._store.append_event(
            "curriculum",
            step,
            **facts,
            flops=cost.flops,
            rollouts=cost.rollouts,
            problems=list(plan.admitted),
            waiting_problems=list(plan.waiting),
        )

    def metrics(self, step: int, groups: Sequence[Group]) -> dict[str, float]:
        """Return the metrics of a step; `groups` are those sampled for it."""
        if not self._config.problems:
            return {}
        _, plan = self._plan_at(step)
        return {
            "curriculum/admitted": float(len(plan.admitted)),
            "curriculum/waiting": float(len(plan.waiting)),
            "curriculum/success": solved_share(groups, least=self._config.solved),
        }

    def costs(self, step: int) -> dict[str, float]:
        """Return the FLOPs and attempts that deciding before this step has cost."""
        decision = self._decisions.get(step)
        return {} if decision is None else {"flops/curriculum": decision.flops, "rollouts/tried": decision.rollouts}

    async def _try(self, step: int, problems: Sequence[int], play: Play) -> tuple[list[Group], dict[int, int]]:
        """Return all attempts at some problems, and how many of each succeeded."""
        groups: list[Group] = []
        for first in range(0, len(problems), AT_ONCE):
            groups += await play(step, problems[first : first + AT_ONCE], self._config.attempts)
        least = self._config.solved
        scores = [[r.score.value for r in g.usable if r.score is not None] for g in groups]
        return groups, {n: sum(v >= least for v in values) for n, values in zip(problems, scores, strict=True)}

    def _success(self, version: int) -> float:
        """Return the mean success of the steps since the last decision whose outcome the weights of `version` know."""
        rows = self._store.metrics()[:version]
        rates = [row["curriculum/success"] for row in rows[-self._config.every :] if "curriculum/success" in row]
        return fmean(rates) if rates else 0.0

    def _plan_at(self, step: int) -> tuple[int, Plan]:
        start = max(s for s in self._decisions if s <= step)
        return start, self._decisions[start].plan


def check_problems(config: CurriculumSection, size: int | None) -> None:
    """Raise `ConfigError` if there are fewer problems than the curriculum is to choose from."""
    if size is not None and config.problems > size:
        raise ConfigError(
            f"curriculum.problems = {config.problems}, but the training split has {size} tasks. Lower it to {size} or "
            "less."
        )
