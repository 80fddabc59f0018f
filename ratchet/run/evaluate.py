"""Held-out evaluation: the same environment, the same code path, fixed denominators, intervals printed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ratchet.config.plan import Plan
from ratchet.config.read import config_from_tree
from ratchet.config.schema import RunConfig
from ratchet.core.protocols import Engine, Environment
from ratchet.core.rollout import Group
from ratchet.core.task import Split
from ratchet.engines.build import engine_here
from ratchet.environments.table import close_environment
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.policy.tokenizer import Tokenizer
from ratchet.run.checkpoint import checkpoint_path, chosen_checkpoint
from ratchet.run.endpoint import open_endpoint
from ratchet.run.frozen import Frozen
from ratchet.run.parts import Parts, make_environment, plan_for
from ratchet.run.policies import saved_policy
from ratchet.run.source import sampling_of
from ratchet.store.run_store import RunStore

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


async def evaluate(p: Parts, split: str = "test") -> Mapping[str, float]:
    """Evaluate the policy's present weights, record an event and return the numbers."""
    held, engine = p.sync.held, p.engine
    if engine.version != p.state.version:
        engine.load(p.policy.weights(), p.state.version, p.state.fingerprint)
    try:
        settings = p.config.eval
        groups = await _play(
            p.config,
            p.plan,
            p.environment,
            engine,
            p.policy.tokenizer,
            p.frozen,
            split,
            settings.tasks,
            settings.samples,
            p.state.step,
        )
    finally:
        if held is not None and held.version != engine.version:
            p.sync.hold(held)
    facts = eval_metrics(groups)
    p.store.write_groups(p.state.step, groups, name=f"eval_{split}")
    p.store.append_event("eval", p.state.step, split=split, **facts)
    return facts


def evaluate_checkpoint(
    run: Path, step: int | None, tasks: int, samples: int, split: str
) -> tuple[Path, Mapping[str, float]]:
    """Evaluate a checkpoint of a run folder with the run's own environment; nothing is written."""
    config = config_from_tree(RunStore.open(run).config_tree())
    path = chosen_checkpoint(run / "checkpoints", step)
    environment = make_environment(config)
    try:
        policy = saved_policy(config, path)
        plan = plan_for(config, policy, environment)
        open_endpoint(config, environment, policy.tokenizer)
        engine = engine_here(config.engine, policy, context=plan.context_tokens)
        engine.load(policy.weights(), 0, policy.fingerprint())
        frozen = Frozen(config, checkpoint_path(run / "checkpoints", 0), policy.device)

        async def play() -> list[Group]:
            try:
                return await _play(
                    config, plan, environment, engine, policy.tokenizer, frozen, split, tasks, samples, 0
                )
            finally:
                await frozen.close()
                engine.close()

        groups = asyncio.run(play())
    finally:
        close_environment(environment)
    return path, eval_metrics(groups)


async def _play(
    config: RunConfig,
    plan: Plan,
    environment: Environment,
    engine: Engine,
    tokenizer: Tokenizer,
    frozen: Frozen,
    split: str,
    tasks: int,
    samples: int,
    step: int,
) -> list[Group]:
    """Return the groups of the first `tasks` tasks of a split."""
    chosen = Split(split, config.run.seed)
    limits = ExploreLimits(context=plan.context_tokens, rollout_timeout_s=config.explore.rollout_timeout_s)
    explorer = Explorer(environment, engine, tokenizer, chosen, sampling_of(config), limits, frozen=frozen.speaker)
    size = environment.num_tasks(chosen)
    return [g async for g in explorer.groups(step, 0, tasks if size is None else min(tasks, size), samples)]


def eval_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Return mean reward, parts, and pass@1 .. pass@k with 95 % intervals.

    A sample passes when its part ``accuracy`` is 1 (where there is none: when its reward is the largest seen). Every
    attempt asked for counts in the denominator: one that failed did not pass. pass@k is the unbiased estimate of
    Chen et al. 2021 (arXiv 2107.03374), eq. 1; intervals treat tasks as the independent draws.
    """
    rollouts = [r for g in groups for r in g.rollouts]
    if not rollouts:
        return {}
    scores = [r.score for r in rollouts if r.score is not None]
    best = max((s.value for s in scores), default=0.0)
    passed = [
        [
            r.score is not None
            and (r.score.parts["accuracy"] >= 1 if "accuracy" in r.score.parts else r.score.value >= best)
            for r in g.rollouts
        ]
        for g in groups
    ]
    n = len(passed[0])
    facts = {"tasks": float(len(groups)), "samples": float(n), "failed": float(len(rollouts) - len(scores))}
    facts["reward_mean"] = sum(s.value for s in scores) / len(rollouts)
    failed = len(rollouts) - len(scores)
    for name in sorted({k for s in scores for k in s.parts}):
        # Tasks of different roles have different parts; an attempt that failed counts as 0 for each of them.
        values = [s.parts[name] for s in scores if name in s.parts]
        values += [0.0] * failed
        facts[f"part_{name}"] = mean = sum(values) / len(values)
        if n == 1:  # one attempt per task: the values are independent
            facts[f"part_{name}_low"], facts[f"part_{name}_high"] = interval(values, mean)
    for name in sorted({k for r in rollouts for k in r.metrics}):
        reported = [r.metrics[name] for r in rollouts if name in r.metrics]
        facts[f"env_{name}"] = sum(reported) / len(reported)
    facts["response_length"] = sum(r.output_tokens for r in rollouts) / len(rollouts)
    for k in sorted({1, *(2**i for i in range(1, 12) if 2**i <= n), n}):
        each = [_pass_at(n, sum(flags), k) for flags in passed]
        mean = sum(each) / len(each)
        facts[f"pass@{k}"] = mean
        facts[f"pass@{k}_low"], facts[f"pass@{k}_high"] = interval(each, mean)
    return facts


def _pass_at(n: int, correct: int, k: int) -> float:
    """Return the chance that k of n samples drawn without repetition hold a correct one."""
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def interval(values: Sequence[float], mean: float) -> tuple[float, float]:
    """Return a 95 % interval of a mean over tasks: Wilson's for 0/1 values, a normal one over tasks otherwise."""
    count = len(values)
    if all(v in (0.0, 1.0) for v in values):
        centre = (mean + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
        half = Z95 / (1 + Z95**2 / count) * math.sqrt(mean * (1 - mean) / count + Z95**2 / (4 * count**2))
        return max(0.0, centre - half), min(1.0, centre + half)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, count - 1))
    half = Z95 * spread / math.sqrt(count)
    return max(0.0, mean - half), min(1.0, mean + half)
