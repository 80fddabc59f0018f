"""Held-out evaluation: the same environment, the same code path, fixed denominators, intervals printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ratchet.core.rollout import Group
from ratchet.core.task import Split
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.run.parts import Parts, sampling_of
from ratchet.run.sync import frozen

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


async def evaluate(p: Parts, split: str = "test") -> Mapping[str, float]:
    """Evaluate the policy's present weights, record an event and return the numbers."""
    held, engine = p.sync.held, p.engine
    weights = frozen(p.policy.weights(), p.state.version, p.state.fingerprint)
    if engine.version != weights.version:
        engine.load(weights.tensors, weights.version, weights.fingerprint)
    try:
        explorer = Explorer(
            p.environment,
            engine,
            p.policy.tokenizer,
            Split(split, p.config.run.seed),
            sampling_of(p.config),
            ExploreLimits(context=p.plan.context_tokens, rollout_timeout_s=p.config.explore.rollout_timeout_s),
        )
        size = p.environment.num_tasks(Split(split, p.config.run.seed))
        count = min(p.config.eval.tasks, size) if size is not None else p.config.eval.tasks
        groups = [g async for g in explorer.groups(p.state.step, 0, count, p.config.eval.samples)]
    finally:
        if held is not None and held.version != engine.version:
            p.sync.hold(held)
    facts = eval_metrics(groups)
    p.store.write_groups(p.state.step, groups, name=f"eval_{split}")
    p.store.append_event("eval", p.state.step, split=split, **facts)
    return facts


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
            r.score is not None and (r.score.parts["accuracy"] >= 1 if "accuracy" in r.score.parts else r.score.value >= best)
            for r in g.rollouts
        ]
        for g in groups
    ]
    n = len(passed[0])
    facts = {"tasks": float(len(groups)), "samples": float(n), "failed": float(len(rollouts) - len(scores))}
    facts["reward_mean"] = sum(s.value for s in scores) / len(rollouts)
    for name in sorted({k for s in scores for k in s.parts}):
        facts[f"part_{name}"] = sum(s.parts.get(name, 0.0) for s in scores) / len(rollouts)
    facts["response_length"] = sum(r.output_tokens for r in rollouts) / len(rollouts)
    for k in sorted({1, *(2**i for i in range(1, 12) if 2**i <= n), n}):
        each = [_pass_at(n, sum(flags), k) for flags in passed]
        mean = sum(each) / len(each)
        facts[f"pass@{k}"] = mean
        facts[f"pass@{k}_low"], facts[f"pass@{k}_high"] = _interval(each, mean)
    return facts


def _pass_at(n: int, correct: int, k: int) -> float:
    """Return the chance that k of n samples drawn without repetition hold a correct one."""
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def _interval(values: Sequence[float], mean: float) -> tuple[float, float]:
    """Return a 95 % interval: Wilson's for 0/1 values, a normal one over tasks otherwise."""
    count = len(values)
    if all(v in (0.0, 1.0) for v in values):
        centre = (mean + Z95**2 / (2 * count)) / (1 + Z95**2 / count)
        half = Z95 / (1 + Z95**2 / count) * math.sqrt(mean * (1 - mean) / count + Z95**2 / (4 * count**2))
        return max(0.0, centre - half), min(1.0, centre + half)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, count - 1))
    half = Z95 * spread / math.sqrt(count)
    return max(0.0, mean - half), min(1.0, mean + half)
