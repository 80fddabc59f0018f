"""One step on several ranks: the same loss, gradients, norm, weights and metrics, however the weights lie."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import random_groups, tiny_policy
from several import on_ranks

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.kernels.reference import OPS
from ratchet.policy.decoder import Decoder
from ratchet.policy.policy import Policy
from ratchet.train.team import ALONE, Team
from ratchet.train.trainer import Trainer

CLOSE = {"rtol": 1e-6, "atol": 1e-9}
VARIES = ("time/", "tokens/forward")
"""What depends on the clock, and on how the batch is cut: a prompt may be computed on two ranks."""


def exact_policy() -> Policy:
    """Return a small policy that computes in float64."""
    policy = tiny_policy()
    decoder = Decoder(policy.shape, OPS)
    decoder.load_state_dict(policy.decoder.state_dict())
    return Policy(decoder.double(), policy.tokenizer, policy.device, policy.dtype)


def two_steps(algorithm: str, team: Team, **settings: Any) -> dict[str, Any]:
    """Return the clipped gradient of the first step, the weights after the second, and the metrics of both."""
    policy = exact_policy()
    penalty = 0.01 if algorithm == "grpo" else 0.0  # without one, a group of equal rewards is only measured
    method = AlgorithmSection(lr=1e-2, kl_coef=penalty, entropy_coef=penalty)
    reference = copy.deepcopy(policy.decoder).requires_grad_(False)
    config = TrainSection(micro_batch_tokens=40, grad_clip=0.05, **settings)
    made = Trainer(
        policy, build_algorithm(algorithm, {}), method, config, seed=0, reference=reference, team=team, by_token=True
    )
    gradient: dict[str, torch.Tensor] = {}

    def keep(*_: Any) -> None:
        for name, p in made.trained().items():
            gradient.setdefault(name, p.grad.full_tensor() if team.sharded else p.grad.clone())

    made.optimiser.register_step_pre_hook(keep)
    reports = [made.step(random_groups(step, groups=4, equal=(1,)), step) for step in range(2)]
    return {
        "gradient": gradient,
        "weights": policy.weights(),
        "metrics": [r.metrics for r in reports],
        "differences": [r.differences for r in reports],
    }


@pytest.mark.parametrize("shard", ["none", "full"])
@pytest.mark.parametrize("size", [2, 4])
def test_a_step_gives_the_same_numbers_on_any_number_of_ranks(size: int, shard: Any, tmp_path: Path) -> None:
    # Means of sequence means, and a mean over all tokens: both divide by counts of the whole batch.
    for algorithm in ("grpo", "rloo"):
        one = two_steps(algorithm, ALONE)
        many = on_ranks(size, shard, tmp_path / algorithm, lambda team, name=algorithm: two_steps(name, team))
        for rank, found in enumerate(many):
            for name, gradient in one["gradient"].items():
                torch.testing.assert_close(found["gradient"][name], gradient, **CLOSE)
            for mine, theirs in zip(one["metrics"], found["metrics"], strict=True):
                assert mine.keys() == theirs.keys()
                for name in mine:
                    if not name.startswith(VARIES):
                        assert theirs[name] == pytest.approx(mine[name], rel=1e-6, abs=1e-9), (rank, name)
            for mine, theirs in zip(one["differences"], found["differences"], strict=True):
                assert mine.keys() == theirs.keys()
                for rollout, values in mine.items():
                    assert theirs[rollout].tolist() == pytest.approx(values.tolist(), rel=2e-3, abs=1e-6)
        for name, weight in one["weights"].items():  # the whole weights are on rank 0
            torch.testing.assert_close(many[0]["weights"][name], weight, rtol=1e-5, atol=1e-7)
