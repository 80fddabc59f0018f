"""What single rows promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from builders import batch
from hypothesis import given
from hypothesis import strategies as st
from row_cases import ROWS, SEEDS, gradient_of, in_dtype, loss_of, random_batch
from torch import Tensor

from ratchet.algorithms.selection import balanced
from ratchet.algorithms.table import build_algorithm
from ratchet.core.batch import Batch


def test_dapo_trains_only_on_groups_whose_rewards_differ() -> None:
    b = batch([1] * 6, [0, 1, 2, 0, 1, 2], [1.0, 0.1, 0.0, 1.0, 0.2, 0.0])
    assert build_algorithm("dapo", {}).keep(b).tolist() == [False, True, False, False, True, False]


def test_ring_keeps_far_tokens_that_are_pulled_back_and_no_others() -> None:
    ratio = torch.tensor([0.3, 0.5, 3.5, 0.3, 2.5, 3.5], dtype=torch.float64)
    b = batch([3, 3], [0, 0], [1.0, 0.0])
    found = gradient_of(lambda x: loss_of(build_algorithm("rec_ring", {}), x, b), ratio.log() - 1)
    assert (found != 0).tolist() == [True, False, False, False, False, True]


def draws(seed: int, rewards: Sequence[float]) -> Tensor:
    """Which samples of one group stay, for behaviour log-probabilities of a seed."""
    behaviour = -torch.rand(len(rewards), generator=torch.Generator().manual_seed(seed))
    return balanced(batch([1] * len(rewards), [0] * len(rewards), rewards, behaviour=behaviour.tolist()))


def test_red_drop_keeps_as_many_negatives_as_positives_and_centres_on_them() -> None:
    # Mean 0.25: one positive, three negatives, two of which go; over the kept the mean is 1/2. The second group has two
    # positives, one negative: all stay, with their own mean 2/3. The third agrees: all are positive.
    rewards = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.5, 0.5]
    b = batch([1] * 9, [0, 0, 0, 0, 1, 1, 1, 2, 2], rewards, behaviour=[-0.1 * i for i in range(9)])
    credit = build_algorithm("red_drop", {}).advantage(b)
    assert sorted(credit[:4].tolist()) == [-0.5, 0.0, 0.0, 0.5]
    assert credit[4:].tolist() == pytest.approx([1 / 3, 1 / 3, -2 / 3, 0.0, 0.0])


@given(seed=SEEDS)
def test_red_drop_draws_the_same_whatever_the_order_of_samples(seed: int) -> None:
    b, _ = random_batch(seed, 0.3)
    order = torch.randperm(b.num_samples, generator=torch.Generator().manual_seed(seed))
    assert balanced(b.select(order)).tolist() == balanced(b)[order].tolist()


def test_red_drop_draws_every_negative_equally_often() -> None:
    kept = torch.stack([draws(seed, [0.0, 0.0, 1.0, 0.0, 0.0]) for seed in range(2000)]).double().mean(0)
    # One of four negatives stays: 0.25 each, with a standard error of 0.0097 over 2000 draws.
    assert kept.tolist() == pytest.approx([0.25, 0.25, 1.0, 0.25, 0.25], abs=0.04)


def test_a_dropped_sample_keeps_its_tokens_in_the_denominator() -> None:
    b = batch([1, 2, 3], [0, 0, 0], [3.0, 0.0, 0.0], behaviour=[-0.1, -0.2, -0.3, -0.4, -0.5, -0.6])
    found = gradient_of(lambda x: loss_of(build_algorithm("red_drop", {}), x, b), b.logp_behaviour)
    assert float(found[0]) == pytest.approx(-1.5 / 6)
    assert found[1:].abs().sum() in (pytest.approx(1.5 * 2 / 6), pytest.approx(1.5 * 3 / 6))


def test_one_sample_of_huge_reward_cannot_overflow_a_weight() -> None:
    b = batch([1, 1], [0, 0], [1e4, -1e4])
    b = Batch(b.sample, b.group, b.reward.float(), b.version, b.logp_behaviour.float())
    algorithm = build_algorithm("red_weight", {"temperature": 0.01})
    assert bool(algorithm.weight(b, algorithm.advantage(b)).isfinite().all())


def test_dapo_takes_up_to_a_point_from_answers_near_the_limit() -> None:
    # Of 4 tokens the last 2 cost 1/2 each: lengths 1, 2, 3, 4, 6 lose 0, 0, 1/2, 1, 1.
    b = batch([1, 2, 3, 4, 6], [0] * 5, [1.0, 0.0, 1.0, 1.0, 0.0])
    penalised = torch.tensor([1.0, 0.0, 0.5, 0.0, -1.0], dtype=torch.float64)
    expected = (penalised - penalised.mean()) / (penalised.std() + 1e-6)
    found = build_algorithm("dapo", {"overlong_length": 4, "overlong_buffer": 2}).advantage(b)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-14)


def test_dapos_length_penalty_is_the_published_one_at_the_published_numbers() -> None:
    # 20480 - 4096 = 16384 tokens are free; 18432 lie in the middle of the buffer.
    b = batch([16384, 18432, 20480], [0] * 3, [0.0, 1.0, 2.0])
    found = build_algorithm("dapo", {"overlong_length": 20480, "overlong_buffer": 4096}).advantage(b)
    rewards = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert found.tolist() == pytest.approx(((rewards - 0.5) / (rewards.std() + 1e-6)).tolist(), abs=1e-14)


def test_dapo_leaves_groups_out_by_their_rewards_without_the_penalty() -> None:
    b = batch([1, 3, 1, 3], [0, 0, 1, 1], [1.0, 1.0, 0.0, 1.0])
    algorithm = build_algorithm("dapo", {"overlong_length": 3, "overlong_buffer": 2})
    assert algorithm.keep(b).tolist() == [False, False, True, True]


def temperature_of(b: Batch, temperature_min: float = 0.8) -> float:
    """Return the temperature behind the weights of red_adaptive; infinite where they are all 1."""
    algorithm = build_algorithm("red_adaptive", {"temperature_min": temperature_min})
    credit = algorithm.advantage(b)
    best = int(credit.argmax())
    exponent = float(algorithm.weight(b, credit)[best].log())
    return float(credit[best]) / exponent if exponent else math.inf


def test_the_adaptive_temperature_lets_bad_tokens_weigh_as_much_as_good_ones() -> None:
    # A = 1/2 on 1 token, -1/2 on 3: e^(1/2T) = 3 e^(-1/2T) where T = 1 / log 3 = 0.910.
    assert temperature_of(batch([1, 3], [0, 0], [1.0, 0.0])) == pytest.approx(1 / math.log(3), rel=1e-12)
    # With 9 bad tokens it would be 1 / log 9 = 0.455: it stays at 0.8. With as many good ones nothing is weighed.
    assert temperature_of(batch([1, 9], [0, 0], [1.0, 0.0])) == pytest.approx(0.8, rel=1e-12)
    assert temperature_of(batch([1, 9], [0, 0], [1.0, 0.0]), 0.1) == pytest.approx(1 / math.log(9), rel=1e-12)
    assert temperature_of(batch([2, 2], [0, 0], [1.0, 0.0])) == math.inf
    assert temperature_of(batch([3, 1], [0, 0], [1.0, 0.0])) == math.inf


@given(seed=SEEDS, temperature_min=st.floats(0.01, 5.0))
def test_the_adaptive_temperature_balances_the_tokens_or_is_the_lowest(seed: int, temperature_min: float) -> None:
    b, _ = random_batch(seed, 0.3)
    algorithm = build_algorithm("red_adaptive", {"temperature_min": temperature_min})
    credit = algorithm.advantage(b)
    weight = algorithm.weight(b, credit)
    before, after = float((b.lengths * credit).sum()), float((b.lengths * credit * weight).sum())
    if before >= 0:
        assert weight.tolist() == [1.0] * b.num_samples
    elif after < -1e-9:
        expected = (credit / temperature_min).clamp(max=20).exp()
        assert torch.allclose(weight, expected, rtol=1e-12, atol=0)
    else:
        scale = float((b.lengths * credit.abs() * weight).sum())
        assert after == pytest.approx(0, abs=1e-12 * max(1.0, scale))
        assert temperature_of(b, temperature_min) >= temperature_min * (1 - 1e-12)


def test_the_adaptive_weights_carry_no_gradient_and_stay_finite_in_float32() -> None:
    b = in_dtype(batch([1, 900], [0, 0], [1e4, -1e4]), torch.float32)
    algorithm = build_algorithm("red_adaptive", {})
    credit = algorithm.advantage(b).requires_grad_(True)
    weight = algorithm.weight(b, credit.detach())
    assert not weight.requires_grad
    assert weight.dtype == torch.float32
    assert bool(weight.isfinite().all())


def test_k1_5_forgets_the_optimisers_moments_and_no_other_row_does() -> None:
    assert [row for row in ROWS if build_algorithm(row, {}).reset_optimiser] == ["k1_5"]


def test_distill_asks_for_groups_only_if_it_centres_rewards() -> None:
    assert build_algorithm("distill", {}).min_group == 1
    assert build_algorithm("distill", {"reward_coef": 0.1}).min_group == 2


def test_without_a_coefficient_distill_ignores_the_reward() -> None:
    b, logp = random_batch(2, 0.3)
    algorithm = build_algorithm("distill", {})
    assert float(loss_of(algorithm, logp, b)) == float(loss_of(algorithm, logp, replace(b, reward=-b.reward)))


@pytest.mark.parametrize("row", ["reinforce_pp", "reinforce_pp_baseline", "ppo"])
@given(seed=SEEDS)
def test_normalised_credit_has_mean_zero_and_deviation_one_over_tokens(row: str, seed: int) -> None:
    b, _ = random_batch(seed, 0.3)
    credit = b.per_token(build_algorithm(row, {}).advantage(b))
    assert float(credit.mean()) == pytest.approx(0, abs=1e-12)
    assert float(credit.std(correction=0)) == pytest.approx(1, abs=1e-6)
