"""Self-play at test time: a policy writes tests and patches for the same bugs, and its tests choose among its patches.

For each held-out bug the first patch and the first test are greedy, the others sampled. Tests that fail nothing on the
buggy file are dropped. Each patch is run against each test; the patch with the highest score S is the answer, and the
hidden tests say afterwards whether it is right.

**Source**: Kimi-Dev (arXiv 2509.23045), its test-time self-play; the score is `rewards.execution.selfplay_scores`.
"""

from __future__ import annotations

import ast
import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from ratchet.config.read import config_from_tree
from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Rollout
from ratchet.core.task import Split, Task
from ratchet.engines.build import engine_here
from ratchet.environments.reproduce import Reproduce, Role
from ratchet.environments.reproduce_edits import added_test, apply_edits, read_edits
from ratchet.environments.table import close_environment
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.rewards.execution import FAILED, RunOutcome, best_patch, selfplay_scores
from ratchet.run.checkpoint import chosen_checkpoint
from ratchet.run.evaluate import interval
from ratchet.run.observer import Observer
from ratchet.run.parts import make_environment, plan_for
from ratchet.run.policies import saved_policy
from ratchet.run.source import sampling_of
from ratchet.store.run_store import RunStore

AT_ONCE = 32
"""Bugs that are worked on at the same time."""


@dataclass(frozen=True, slots=True)
class Bug:
    """What a policy wrote for one bug, and what running it all said. I patches, J tests."""

    right: tuple[bool, ...]
    """(I,) whether each patch passes the hidden tests."""
    patched: tuple[str | None, ...]
    """(I,) the patched files; None where the edit does not apply."""
    reproduces: tuple[bool, ...]
    """(J,) whether each test fails on the buggy file and passes on the fixed one; not known when choosing."""
    failing: tuple[int, ...]
    """(J,) functions of each test that fail on the buggy file."""
    passing: tuple[int, ...]
    """(J,) functions of each test that pass on it."""
    repaired: tuple[tuple[int, ...], ...]
    """(I, J) functions that a patch turns from failing to passing."""
    kept: tuple[tuple[int, ...], ...]
    """(I, J) functions that pass without and with a patch."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of bugs with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class AtSize:
    """How well a number of patches and as many tests do."""

    size: int
    chosen: Rate
    """Bugs whose chosen patch is right."""
    majority: Rate
    """Bugs whose most frequent patch is right, without any test."""
    possible: Rate
    """Bugs with at least one right patch: what no choice can exceed."""
    average: Rate
    """Right patches among all."""


@dataclass(frozen=True, slots=True)
class SelfPlay:
    """The result on a number of bugs."""

    checkpoint: Path
    bugs: int
    sizes: tuple[AtSize, ...]
    reproduced: float
    """Share of tests that reproduce their bug."""
    checks: int
    """Tests run against files."""


def selfplay(run: Path, step: int | None, *, tasks: int, size: int, observer: Observer) -> SelfPlay:
    """Return how well a run's checkpoint repairs held-out bugs with up to `size` patches and tests each.

    **Raises**: `ConfigError` if the run's environment has no such roles.
    """
    config = config_from_tree(RunStore.open(run).config_tree())
    path = chosen_checkpoint(run / "checkpoints", step)
    environment = make_environment(config)
    try:
        if not isinstance(environment, Reproduce):
            raise ConfigError(
                f'{run} was trained on environment.name = "{config.environment.name}". Self-play needs a policy that '
                'writes both tests and patches: a run of the environment "reproduce".'
            )
        policy = saved_policy(config, path)
        plan = plan_for(config, policy, environment)
        engine = engine_here(config.engine, policy, context=plan.context_tokens)
        engine.load(policy.weights(), 0, policy.fingerprint())
        split = Split("test", config.run.seed)
        limits = ExploreLimits(context=plan.context_tokens, rollout_timeout_s=config.explore.rollout_timeout_s)

        def explorer_for(role: Role) -> Explorer:
            asked = _InRole(environment, role)
            return Explorer(asked, engine, policy.tokenizer, split, sampling_of(config), limits, names=("play", role))

        count = min(tasks, environment.num_tasks(split) or tasks)
        bugs = asyncio.run(
            _played(environment, explorer_for("bugfixer"), explorer_for("testwriter"), split, count, size, observer)
        )
        engine.close()
    finally:
        close_environment(environment)
    return _told(path, bugs, size)


class _InRole:
    """The environment as one role sees it: every task asks for a patch, or every task for a test."""

    def __init__(self, environment: Reproduce, role: Role) -> None:
        self._environment, self._role = environment, role
        self.name = environment.name

    def num_tasks(self, split: Split) -> int | None:
        return self._environment.num_tasks(split)

    def task(self, split: Split, index: int) -> Task:
        return self._environment.task_for(split, index, self._role)

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        return await self._environment.run(task, policy)


async def _played(
    environment: Reproduce, fixer: Explorer, writer: Explorer, split: Split, count: int, size: int, observer: Observer
) -> list[Bug]:
    bugs: list[Bug] = []
    for first in range(0, count, AT_ONCE):
        number = min(AT_ONCE, count - first)
        answers = [
            [
                (*([] if g.greedy is None else [g.greedy]), *g.rollouts)
                async for g in explorer.groups(0, first, number, size - 1, greedy=True)
            ]
            for explorer in (fixer, writer)
        ]
        tasks = [environment.task_for(split, first + i, "testwriter") for i in range(number)]
        bugs += await asyncio.gather(*(_tried(environment, *each) for each in zip(tasks, *answers, strict=True)))
        observer.progress("self-play", len(bugs), count, {})
    return bugs


async def _tried(environment: Reproduce, task: Task, fixes: Sequence[Rollout], tests: Sequence[Rollout]) -> Bug:
    """Run every patch of a bug against every test."""
    buggy = task.extras["buggy"]
    patched = tuple(apply_edits(buggy, read_edits(_text(r))) for r in fixes)
    cases = [single_tests(added_test(_text(r))) for r in tests]
    without = await _outcomes(environment, task, buggy, cases)
    versions = {source: None for source in patched if source is not None}
    runs = dict(
        zip(versions, await asyncio.gather(*(_outcomes(environment, task, v, cases) for v in versions)), strict=True)
    )

    def turned(source: str | None, before: frozenset[RunOutcome]) -> tuple[int, ...]:
        if source is None:
            return (0,) * len(cases)
        return tuple(
            sum(b in before and a is RunOutcome.PASSED for b, a in zip(old, new, strict=True))
            for old, new in zip(without, runs[source], strict=True)
        )

    passed = frozenset({RunOutcome.PASSED})
    return Bug(
        right=tuple(_value(r) >= 1 for r in fixes),
        patched=patched,
        reproduces=tuple(_value(r) >= 1 for r in tests),
        failing=tuple(sum(o in FAILED for o in row) for row in without),
        passing=tuple(sum(o in passed for o in row) for row in without),
        repaired=tuple(turned(source, FAILED) for source in patched),
        kept=tuple(turned(source, passed) for source in patched),
    )


async def _outcomes(
    environment: Reproduce, task: Task, source: str, tests: Sequence[Sequence[str]]
) -> list[list[RunOutcome]]:
    return [list(await asyncio.gather(*(environment.run_test(task, source, case) for case in test))) for test in tests]


def single_tests(test: str) -> list[str]:
    """Return the test as one program per function test_*, each with what stands beside the functions; or as it is."""
    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [test]
    named = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test")]
    if len(named) < 2:
        return [test]
    parts = []
    for one in named:
        body = [n for n in tree.body if n not in named or n is one]
        parts.append(ast.unparse(ast.Module(body, type_ignores=[])))
    return parts


def choice(bug: Bug, size: int) -> int | None:
    """Return the patch that the first `size` tests choose among the first `size` patches; None if none applies."""
    able = [i for i in range(size) if bug.patched[i] is not None]
    if not able:
        return None
    scores = selfplay_scores(
        bug.failing[:size],
        bug.passing[:size],
        [bug.repaired[i][:size] for i in able],
        [bug.kept[i][:size] for i in able],
    )
    return able[best_patch(scores)]


def majority(bug: Bug, size: int) -> int | None:
    """Return the patch whose file comes up most often among the first `size`, the first of equals; None if none."""
    files = [source for source in bug.patched[:size] if source is not None]
    if not files:
        return None
    counts = Counter(files)
    return bug.patched.index(max(files, key=lambda source: counts[source]))


def _told(path: Path, bugs: Sequence[Bug], size: int) -> SelfPlay:
    sizes = sorted({size, *(2**k for k in range(12) if 2**k < size)})

    def rate(values: Sequence[float]) -> Rate:
        mean = fmean(values)
        return Rate(mean, *interval(values, mean))

    def right(bug: Bug, place: int | None) -> float:
        return float(place is not None and bug.right[place])

    told = [
        AtSize(
            n,
            chosen=rate([right(bug, choice(bug, n)) for bug in bugs]),
            majority=rate([right(bug, majority(bug, n)) for bug in bugs]),
            possible=rate([float(any(bug.right[:n])) for bug in bugs]),
            average=rate([fmean(bug.right[:n]) for bug in bugs]),
        )
        for n in sizes
    ]
    checks = sum(len(set(bug.patched) - {None}) * len(bug.failing) + len(bug.failing) for bug in bugs)
    return SelfPlay(path, len(bugs), tuple(told), fmean(r for bug in bugs for r in bug.reproduces), checks)


def _text(rollout: Rollout) -> str:
    return rollout.trajectories[0].turns[-1].text if rollout.trajectories[0].turns else ""


def _value(rollout: Rollout) -> float:
    return 0.0 if rollout.score is None else rollout.score.value
