"""Every row in the trainer: neither the cut into forward passes nor the skipping of silent samples moves a gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from builders import random_groups, rollout, tiny_policy, turn
from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.table import ALGORITHMS, build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.train.trainer import Trainer


def gradient_of_a_step(algorithm: Algorithm, *, equal: tuple[int, ...], tokens: int) -> tuple[list[Tensor], float]:
    """Return the gradient the optimiser got and the loss, with forward passes of at most so many tokens."""
    policy = tiny_policy()
    seen = [torch.zeros_like(p) for p in policy.decoder.parameters()]
    for i, p in enumerate(policy.decoder.parameters()):
        p.register_post_accumulate_grad_hook(lambda p, i=i: seen.__setitem__(i, p.grad.clone()))
    made = Trainer(
        policy,
        algorithm,
        AlgorithmSection(lr=1e-3),
        TrainSection(micro_batch_tokens=tokens, grad_clip=1e9),
        seed=0,
        teacher=tiny_policy(seed=1).decoder,
    )
    groups = [
        replace(group, greedy=rollout(0.5, turn(group.rollouts[0].trajectories[0].turns[0].prompt, [8])))
        for group in random_groups(1, groups=3, samples=4, equal=equal)
    ]
    return seen, made.step(groups, 0).metrics.get("loss/policy", 0.0)


@pytest.mark.parametrize("row", sorted(ALGORITHMS))
def test_neither_cuts_nor_silence_move_a_gradient(row: str) -> None:
    algorithm = build_algorithm(row, {})
    whole, loss = gradient_of_a_step(replace(algorithm, silent_at_zero=False), equal=(1,), tokens=10_000)
    cut, loss_cut = gradient_of_a_step(algorithm, equal=(1,), tokens=12)
    largest = max(float(x.abs().max()) for x in whole)
    assert 0 < largest < float("inf")
    assert loss_cut == pytest.approx(loss, rel=1e-4, abs=1e-6)
    for ours, theirs in zip(cut, whole, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5 * largest)


def test_an_update_of_agreeing_groups_alone_is_no_error_for_a_row_that_keeps_none_of_them() -> None:
    gradient, loss = gradient_of_a_step(build_algorithm("dapo", {}), equal=(0, 1, 2), tokens=12)
    assert loss == 0.0
    assert not any(bool(x.any()) for x in gradient)
