"""From scores to the rewards of a training step: what `[reward]` of a recipe asks for, group by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ratchet.algorithms.shaping import budget_of, is_limited, k1_5_length, overlong, toggled, weighted
from ratchet.config.curve import at
from ratchet.config.learning import RewardSection
from ratchet.core.errors import ConfigError, nearest
from ratchet.core.rollout import Group, Rollout, Score


class Shaper:
    """Turns scores into rewards. Remembers one thing: the budget of each problem, once it is known."""

    def __init__(self, config: RewardSection) -> None:
        self._config = config
        self._budgets: dict[int, float] = {}

    def shaped(self, groups: Sequence[Group], step: int) -> list[Group]:
        """Return the groups with rewards in place of scores; their parts stay what they are.

        **Raises**: `ConfigError` for a weight of a part that no attempt of the step has.
        """
        config = self._config
        if not config.is_used:
            return list(groups)
        self._check_parts(groups)
        return [self._shaped(group, step) for group in groups]

    def metrics(self, groups: Sequence[Group], shaped: Sequence[Group], step: int) -> dict[str, float]:
        """Return what became of the scores in a step."""
        config = self._config
        if not config.is_used:
            return {}
        values = [r.score.value for g in shaped for r in g.usable if r.score is not None]
        facts = {"reward/trained/mean": float(np.mean(values)) if values else 0.0}
        if config.toggle_period:
            limited = is_limited(step, period=config.toggle_period)
            before = [r.score.value for g in groups for r in g.usable if r.score is not None]
            lost = sum(a != b for a, b in zip(before, values, strict=True)) if limited else 0
            facts |= {
                "reward/toggle/limited": float(limited),
                "reward/toggle/lost_frac": lost / max(1, len(values)),
                "reward/toggle/budgets": float(len(self._budgets)),
            }
        return facts

    def state(self) -> dict[str, Tensor]:
        """Return the budgets, for a checkpoint; nothing without Toggle."""
        if not self._config.toggle_period:
            return {}
        ids = np.array(list(self._budgets), dtype=np.uint64).astype(np.int64)
        return {"budget_ids": torch.from_numpy(ids), "budgets": torch.tensor(list(self._budgets.values()))}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        if not state:
            return
        ids = state["budget_ids"].numpy().astype(np.uint64).tolist()
        self._budgets = dict(zip(ids, state["budgets"].tolist(), strict=True))

    def _shaped(self, group: Group, step: int) -> Group:
        usable = group.usable
        if not usable:
            return group
        config = self._config
        lengths = [r.output_tokens for r in usable]
        scores = [r.score.value for r in usable if r.score is not None]
        right = [score >= config.solved for score in scores]
        rewards = [self._own(r, step) for r in usable]
        if config.length == "k1_5":
            weight = at(config.length_weight, step)
            rewards = [r + weight * term for r, term in zip(rewards, k1_5_length(right, lengths), strict=True)]
        if config.toggle_period:
            budget = self._budget(group, right, lengths)
            if budget is not None and is_limited(step, period=config.toggle_period):
                rewards = toggled(rewards, lengths, budget, solved=config.toggle_solved)
        worth = {r.attempt: reward for r, reward in zip(usable, rewards, strict=True)}
        rollouts = tuple(_worth(r, worth[r.attempt]) if r.score is not None else r for r in group.rollouts)
        greedy = group.greedy
        if greedy is not None and greedy.score is not None:
            greedy = _worth(greedy, self._own(greedy, step))
        return replace(group, rollouts=rollouts, greedy=greedy)

    def _own(self, rollout: Rollout, step: int) -> float:
        """Return what an attempt is worth for itself, whatever the others of its group did."""
        config, score = self._config, rollout.score
        assert score is not None
        value = score.value
        if config.weights:
            value = weighted(score.parts, {name: at(curve, step) for name, curve in config.weights.items()})
        if config.length == "overlong":
            term = overlong(rollout.output_tokens, limit=config.overlong_length, buffer=config.overlong_buffer)
            value += at(config.length_weight, step) * term
        return value

    def _budget(self, group: Group, right: Sequence[bool], lengths: Sequence[int]) -> float | None:
        """Return the problem's budget, fixed when it was first solved; None before."""
        key = int(group.task.id, 16)
        if key not in self._budgets:
            found = budget_of(right, lengths, percentile=self._config.toggle_percentile)
            if found is None:
                return None
            self._budgets[key] = found
        return self._budgets[key]

    def _check_parts(self, groups: Sequence[Group]) -> None:
        known = {name for g in groups for r in g.usable if r.score is not None for name in r.score.parts}
        unknown = [name for name in self._config.weights if name not in known]
        if unknown and any(g.usable for g in groups):
            raise ConfigError(
                f"reward.weights.{unknown[0]} weighs a part that the environment's scores do not have."
                f"{nearest(unknown[0], known)} They have: {', '.join(sorted(known)) or 'none'}."
            )


def _worth(rollout: Rollout, reward: float) -> Rollout:
    assert rollout.score is not None
    return replace(rollout, score=Score(reward, rollout.score.parts))
