"""Credit from a critic, and what the critic is taught."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from builders import batch
from hypothesis import given
from hypothesis import strategies as st
from naive_rows import naive_gae, shape
from row_cases import SEEDS, gradient_of, random_batch
from torch import Tensor

from ratchet.algorithms.algorithm import Critic
from ratchet.algorithms.critic import gae
from ratchet.algorithms.table import ALGORITHMS, build_algorithm

UNIT = st.floats(0.01, 1.0)


def critic_of(**options: object) -> Critic:
    critic = build_algorithm("ppo", options).critic
    assert critic is not None
    return critic


# Two samples of 3 tokens and 1, rewards 1 and -1; the critic expected 0.5, 0.25, 0.5 | 0.
WORKED = replace(batch([3, 1], [0, 1], [1.0, -1.0]), value=torch.tensor([0.5, 0.25, 0.5, 0.0], dtype=torch.float64))


def test_credit_and_returns_are_those_worked_out_by_hand() -> None:
    # gamma = 1, lam = 1/2. d: 0.25 - 0.5 = -0.25; 0.5 - 0.25 = 0.25; 1 - 0.5 = 0.5 | -1 - 0 = -1.
    # A from the end: 0.5; 0.25 + 0.5/2 = 0.5; -0.25 + 0.5/2 = 0 | -1. Returns A + V: 0.5, 0.75, 1 | -1.
    assert gae(WORKED, gamma=1.0, lam=0.5).tolist() == [0.0, 0.5, 0.5, -1.0]
    assert critic_of(lam=0.5).returns(WORKED).tolist() == [0.5, 0.75, 1.0, -1.0]
    # gamma = 1/2 too: d: 0.125 - 0.5 = -0.375; 0.25 - 0.25 = 0; 0.5 | -1. A: 0.5; 0.125; -0.375 + 0.125/4 | -1.
    assert gae(WORKED, gamma=0.5, lam=0.5).tolist() == [-0.34375, 0.125, 0.5, -1.0]


def test_whitened_credit_is_that_worked_out_by_hand() -> None:
    # 0, 0.5, 0.5, -1 have mean 0 and mean square 1.5 / 4.
    found = build_algorithm("ppo", {"lam": 0.5}).advantage(WORKED)
    assert found.tolist() == pytest.approx([x / (0.375**0.5 + 1e-8) for x in (0.0, 0.5, 0.5, -1.0)], rel=1e-12)


def test_the_critics_loss_is_that_worked_out_by_hand() -> None:
    # Returns 1, old values 0, clip 0.2. Inside the clip the square counts: 0.1 -> 0.81 / 2. Beyond it on the way to the
    # return the held one: 0.5 -> (0.2 - 1)^2 / 2, no gradient. Beyond it on the wrong side the square:
    # -0.5 -> 2.25 / 2. Past the return by more than the held one is short of it, the square again: 2 -> 1 / 2.
    b = replace(batch([4], [0], [1.0]), value=torch.zeros(4, dtype=torch.float64))
    now, target = torch.tensor([0.1, 0.5, -0.5, 2.0], dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    critic = critic_of(value_clip=0.2)
    assert critic.loss(now, b, target).tolist() == pytest.approx([0.405, 0.32, 1.125, 0.5])
    found = gradient_of(lambda x: critic.loss(x, b, target).sum(), now)
    assert found.tolist() == pytest.approx([-0.9, 0.0, -1.5, 1.0])


@given(seed=SEEDS, gamma=UNIT, lam=st.floats(0.0, 1.0))
def test_credit_and_returns_equal_a_naive_reference(seed: int, gamma: float, lam: float) -> None:
    b, _ = random_batch(seed, 0.3)
    expected: list[float] = []
    for places, reward in zip(shape(b)[1], b.reward.tolist(), strict=True):
        expected += naive_gae([b.value.tolist()[t] for t in places], reward, {"gamma": gamma, "lam": lam})
    found = gae(b, gamma=gamma, lam=lam)
    assert found.tolist() == pytest.approx(expected, abs=1e-10)
    assert torch.allclose(critic_of(gamma=gamma, lam=lam).returns(b), found + b.value, rtol=0, atol=1e-14)


def test_a_long_sample_is_credited_like_a_short_one() -> None:
    lengths = [1000, 1, 513, 512]
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(sum(lengths), generator=generator, dtype=torch.float64)
    b = replace(batch(lengths, [0, 0, 1, 1], [1.0, 0.0, -2.0, 0.5]), value=value)
    expected: list[float] = []
    for places, reward in zip(shape(b)[1], b.reward.tolist(), strict=True):
        expected += naive_gae(value[places.start : places.stop].tolist(), reward, {"gamma": 0.99, "lam": 0.95})
    assert gae(b, gamma=0.99, lam=0.95).tolist() == pytest.approx(expected, abs=1e-10)


@given(seed=SEEDS, spread=st.floats(0.0, 2.0))
def test_the_critics_loss_and_gradient_equal_a_naive_reference(seed: int, spread: float) -> None:
    b, _ = random_batch(seed, 0.3)
    critic = critic_of()
    target = critic.returns(b)
    now = b.value + spread * torch.randn(
        len(target), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )

    def naive(value: Tensor) -> Tensor:
        terms = []
        for v, old, r in zip(value, b.value.tolist(), target.tolist(), strict=True):
            moved = float(v.detach()) - old
            held = v if abs(moved) <= 0.2 else v.new_tensor(old + math.copysign(0.2, moved))
            terms.append(max((v - r) ** 2, (held - r) ** 2, key=lambda x: float(x.detach())) / 2)
        return torch.stack(terms).sum()

    assert float(critic.loss(now, b, target).sum()) == pytest.approx(float(naive(now)), abs=1e-10)
    ours = gradient_of(lambda x: critic.loss(x, b, target).sum(), now)
    assert torch.allclose(ours, gradient_of(naive, now), rtol=0, atol=1e-10)


@given(seed=SEEDS, rng=st.randoms(use_true_random=False))
def test_neither_order_nor_cuts_change_credit_or_the_critics_loss(seed: int, rng: Any) -> None:
    b, _ = random_batch(seed, 0.3)
    order = list(range(b.num_samples))
    rng.shuffle(order)
    critic = critic_of()
    target, now = critic.returns(b), b.value + 0.5
    for part in (torch.tensor(order[:2]), torch.tensor(order[2:])):
        at, cut = b.tokens_of(part), b.select(part)
        assert torch.allclose(gae(cut, gamma=1.0, lam=0.95), gae(b, gamma=1.0, lam=0.95)[at], rtol=0, atol=1e-12)
        assert torch.allclose(critic.loss(now[at], cut, target[at]), critic.loss(now, b, target)[at], rtol=0, atol=0)


@given(seed=SEEDS)
def test_at_the_ends_of_lambda_credit_is_the_whole_reward_or_one_step_of_the_critic(seed: int) -> None:
    b, _ = random_batch(seed, 0.3)
    whole = gae(b, gamma=1.0, lam=1.0)
    assert torch.allclose(whole, b.per_token(b.reward) - b.value, rtol=0, atol=1e-12)
    assert torch.allclose(critic_of(lam=1.0).returns(b), b.per_token(b.reward), rtol=0, atol=1e-12)
    following = [torch.cat([b.value[p.start + 1 : p.stop], b.reward[i : i + 1]]) for i, p in enumerate(shape(b)[1])]
    assert torch.allclose(gae(b, gamma=1.0, lam=0.0), torch.cat(following) - b.value, rtol=0, atol=1e-12)


def test_an_update_of_nothing_has_no_credit() -> None:
    nothing = random_batch(0, 0.3)[0].select(torch.zeros(0, dtype=torch.int64))
    assert len(build_algorithm("ppo", {}).advantage(nothing)) == 0
    assert len(critic_of().returns(nothing)) == 0


def test_only_ppo_has_a_critic_and_its_learning_rate_is_an_option() -> None:
    assert [row for row in ALGORITHMS if build_algorithm(row, {}).critic] == ["ppo"]
    assert critic_of(critic_lr=3e-6).lr == 3e-6
