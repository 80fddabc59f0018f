"""What is proved about the methods: which are the same, which differ by what, and where each of them ends up.

``K`` responses to one prompt, each a single token unless a test says otherwise, so that ``log p(y)`` is one number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from builders import batch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ratchet.algorithms.advantages import centred, soft_centred
from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.reductions import token_mean
from ratchet.algorithms.table import build_algorithm
from ratchet.core.batch import Batch

SEEDS = st.integers(0, 10_000)
TAUS = st.floats(0.01, 10.0)


def loss_of(algorithm: Algorithm, logp: Tensor, b: Batch) -> Tensor:
    credit = algorithm.advantage(b)
    coef = algorithm.reduce(b, algorithm.weight(b, credit))
    return (coef * algorithm.loss(logp, b, b.per_token(credit)).value).sum()


def row_gradient(row: str, logp: Tensor, b: Batch, **options: object) -> Tensor:
    leaf = logp.clone().requires_grad_(True)
    return torch.autograd.grad(loss_of(build_algorithm(row, options), leaf, b), leaf)[0]


def draw(seed: int, lengths: Sequence[int], groups: Sequence[int], *, spread: float = 0.3) -> tuple[Batch, Tensor]:
    """Return a batch of random rewards and behaviour, and log-probabilities that have moved by `spread`."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(len(lengths) + 2 * sum(lengths), generator=generator, dtype=torch.float64)
    rewards, behaviour, change = numbers.split([len(lengths), sum(lengths), sum(lengths)])
    behaviour = behaviour / 2 - 2
    return batch(lengths, groups, rewards.tolist(), behaviour=behaviour.tolist()), behaviour + spread * change


def of_pairs(b: Batch, weight: Tensor, tau: float) -> Tensor:
    """Gradient at the sampling policy of ``(1/K^2) sum_{i<j} w_i w_j (a_i - a_j)^2``,
    ``a_i = r_i - tau (log p(y_i) - log p_old(y_i))``: what an optimal policy makes zero for every pair."""
    leaf = b.logp_behaviour.clone().requires_grad_(True)
    a = b.reward - tau * (leaf - b.logp_behaviour)
    pairs = weight[:, None] * weight * (a[:, None] - a).square()
    return torch.autograd.grad(pairs.triu(1).sum() / len(a) ** 2, leaf)[0]


@given(seed=SEEDS, tau=TAUS)
def test_one_step_on_pairs_is_the_group_relative_reinforce_step(seed: int, tau: float) -> None:
    b, _ = draw(seed, [1] * 5, [0] * 5)
    ours = row_gradient("reinforce", b.logp_behaviour, b)
    assert torch.allclose(of_pairs(b, torch.ones(5), tau), 2 * tau * ours, rtol=0, atol=1e-12)


@given(seed=SEEDS, tau=TAUS, temperature=st.floats(0.2, 5.0))
def test_red_weight_is_a_step_on_weighted_pairs_and_a_pull_to_imitate(
    seed: int, tau: float, temperature: float
) -> None:
    b, _ = draw(seed, [1] * 5, [0] * 5)
    w = (centred(b) / temperature).exp()
    mean, weighted_mean = b.reward.mean(), (w * b.reward).sum() / w.sum()
    pairs = of_pairs(b, w, tau)
    assert torch.allclose(pairs, -(2 * tau * w.sum() / 25) * w * (b.reward - weighted_mean), rtol=1e-10, atol=1e-12)
    pull = weighted_mean - mean
    assert pull >= 0  # weights rise with the reward
    expected = pairs * 25 / (2 * tau * w.sum()) / 5 - pull * w / 5
    ours = row_gradient("red_weight", b.logp_behaviour, b, temperature=temperature)
    assert torch.allclose(ours, expected, rtol=1e-10, atol=1e-12)


@given(seed=SEEDS, tau=TAUS)
def test_the_pairwise_row_is_the_coupled_loss_though_it_never_couples_samples(seed: int, tau: float) -> None:
    lengths, groups = [2, 1, 3, 1, 2], [0, 0, 0, 1, 1]
    b, logp = draw(seed, lengths, groups)
    leaf = logp.clone().requires_grad_(True)
    d = b.reward - tau * b.per_sample(leaf - leaf.detach())
    coupled = (d - b.group_mean(d)).square().sum() / (sum(lengths) * max(1.0, tau))
    assert float(loss_of(build_algorithm("opmd_pairwise", {"tau": tau}), logp, b)) == pytest.approx(
        float(coupled.detach())
    )
    ours = row_gradient("opmd_pairwise", logp, b, tau=tau)
    assert torch.allclose(ours, torch.autograd.grad(coupled, leaf)[0], rtol=0, atol=1e-12)
    assert torch.allclose(ours, 2 * tau / max(1.0, tau) * row_gradient("reinforce", logp, b), rtol=0, atol=1e-12)


@given(seed=SEEDS, low=st.floats(0.01, 0.9), high=st.floats(0.01, 3.0))
def test_the_gradient_of_ppos_clip_is_reinforce_times_the_ratio_in_the_one_side_region(
    seed: int, low: float, high: float
) -> None:
    b, logp = draw(seed, [2, 1, 3, 1, 2], [0, 0, 0, 1, 1], spread=0.8)
    clip = replace(build_algorithm("dr_grpo", {"clip_low": low, "clip_high": high}), reduce=token_mean)
    leaf = logp.clone().requires_grad_(True)
    theirs = torch.autograd.grad(loss_of(clip, leaf, b), leaf)[0]
    ours = row_gradient("rec_one_side", logp, b, clip_low=low, clip_high=high, importance=True)
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@given(seed=SEEDS, shift=st.floats(-1.0, 1.0))
def test_a_shifted_baseline_is_a_penalty_on_the_forward_kl(seed: int, shift: float) -> None:
    b, logp = draw(seed, [2, 1, 3, 1, 2], [0, 0, 0, 1, 1])
    leaf = logp.clone().requires_grad_(True)
    forward_kl = (b.logp_behaviour - leaf).sum() / len(leaf)
    penalised = loss_of(build_algorithm("reinforce", {}), leaf, b) - shift * forward_kl
    ours = row_gradient("asymre", logp, b, baseline_shift=shift)
    assert torch.allclose(ours, torch.autograd.grad(penalised, leaf)[0], rtol=0, atol=1e-12)


@given(seed=SEEDS)
def test_the_soft_baseline_lies_between_the_mean_and_the_best(seed: int) -> None:
    b, _ = draw(seed, [1] * 5, [0, 0, 0, 1, 1])
    assert torch.allclose(soft_centred(b, tau=1e6), centred(b), rtol=0, atol=1e-5)
    assert torch.allclose(soft_centred(b, tau=1e-4), b.reward - b.group_max(b.reward), rtol=0, atol=2e-4)


@given(seed=SEEDS)
def test_adaptive_weights_leave_no_push_on_the_tokens_as_a_whole(seed: int) -> None:
    b, _ = draw(seed, [1, 4, 2, 5, 3], [0, 0, 0, 1, 1])
    pushed = row_gradient("red_adaptive", b.logp_behaviour, b, temperature_min=0.01).sum()
    plain = row_gradient("rec_one_side", b.logp_behaviour, b).sum()
    assert float(pushed) == pytest.approx(min(0.0, float(plain)), abs=1e-9)


@given(seed=SEEDS)
def test_ppo_with_the_groups_mean_as_critic_is_reinforce_with_ppos_clip(seed: int) -> None:
    b, logp = draw(seed, [2, 1, 3, 1, 2], [0, 0, 0, 1, 1])
    b = replace(b, value=b.per_token(b.group_mean(b.reward)))
    ours = row_gradient("ppo", logp, b, lam=1.0, whiten=False)
    assert torch.allclose(ours, row_gradient("rec_one_side", logp, b, importance=True), rtol=0, atol=1e-12)


@given(seed=SEEDS)
def test_remax_with_the_others_mean_as_greedy_reward_is_rloo(seed: int) -> None:
    b, logp = draw(seed, [2, 1, 3, 1, 2], [0, 0, 0, 1, 1])
    others = (b.group_sum(b.reward) - b.reward) / (b.group_size - 1)
    ours = row_gradient("remax", logp, replace(b, greedy_reward=others))
    assert torch.allclose(ours, row_gradient("rloo", logp, b), rtol=0, atol=1e-12)


@given(seed=SEEDS)
def test_in_one_group_a_baseline_makes_no_difference_to_reinforce_pp(seed: int) -> None:
    b, logp = draw(seed, [2, 1, 3, 1, 2], [0] * 5)
    ours = row_gradient("reinforce_pp", logp, b)
    assert torch.allclose(ours, row_gradient("reinforce_pp_baseline", logp, b), rtol=0, atol=1e-12)


def test_distillation_descends_the_reverse_kl_to_the_teacher() -> None:
    # Four answers of one token, drawn as often as the policy (1/2, 1/4, 1/4) says.
    arms = torch.tensor([0, 0, 1, 2])
    logits = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().requires_grad_(True)
    teacher = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64).log()
    logp = logits.log_softmax(0)
    b = batch([1] * 4, [0, 1, 2, 3], [0.0] * 4, behaviour=logp.detach()[arms].tolist())
    loss = loss_of(build_algorithm("distill", {}), logp[arms], replace(b, logp_teacher=teacher[arms]))
    reverse_kl = (logp.exp() * (logp - teacher)).sum()
    ours = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert torch.allclose(ours, torch.autograd.grad(reverse_kl, logits)[0], rtol=0, atol=1e-12)


ON_POLICY: Sequence[tuple[str, Sequence[tuple[str, Mapping[str, object]]]]] = [
    (
        "reinforce",
        [
            ("rec_one_side", {}),
            ("rec_one_side", {"importance": True}),
            ("rec_two_side", {"importance": True}),
            ("rec_ring", {"importance": True}),
            ("topr", {}),
            ("topr", {"sequence": False}),
            ("asymre", {"baseline_shift": 0.0}),
            ("opmd_kimi", {}),
            ("k2_5", {}),
        ],
    ),
    ("grpo", [("gspo", {}), ("gmpo", {}), ("sapo", {})]),
    ("cispo", [("dapo", {}), ("reinforce", {"std": True})]),
]


@pytest.mark.parametrize(
    ("first", "second", "options"), [(first, row, options) for first, others in ON_POLICY for row, options in others]
)
def test_on_policy_the_methods_of_one_credit_and_one_mean_are_one(
    first: str, second: str, options: Mapping[str, object]
) -> None:
    b, _ = draw(3, [2, 1, 3, 1, 2], [0, 0, 0, 1, 1])
    expected = row_gradient(first, b.logp_behaviour, b)
    assert torch.allclose(row_gradient(second, b.logp_behaviour, b, **options), expected, rtol=0, atol=1e-14)


@given(seed=SEEDS)
def test_with_one_token_per_sample_gspo_and_gmpo_are_grpo(seed: int) -> None:
    b, logp = draw(seed, [1] * 5, [0, 0, 0, 1, 1])
    grpo = row_gradient("grpo", logp, b)
    assert torch.allclose(row_gradient("gspo", logp, b, clip_low=0.2, clip_high=0.2), grpo, rtol=1e-12, atol=1e-14)
    bounds = {"log_clip_low": -math.log(0.8), "log_clip_high": math.log(1.2)}
    assert torch.allclose(row_gradient("gmpo", logp, b, **bounds), grpo, rtol=1e-12, atol=1e-14)


# --- Three arms, pulled by a fixed behaviour (0.3, 0.6, 0.1), paying 0, 0.8, 1: mean 0.58.
PULLS = [0, 0, 0, 1, 1, 1, 1, 1, 1, 2]
PAID = (0.0, 0.8, 1.0)


def arms_after(row: str, steps: int = 20_000, lr: float = 0.5, **options: object) -> list[float]:
    """Train a softmax over three arms by exact gradient descent on the ten pulls; return its probabilities."""
    b = batch([1] * 10, [0] * 10, [PAID[arm] for arm in PULLS])
    # The loss is linear in the log-probabilities: its gradient for each pull is one number, for all steps.
    per_pull = row_gradient(row, b.logp_behaviour, b, **options).tolist()
    drift = [-sum(g for g, arm in zip(per_pull, PULLS, strict=True) if arm == a) for a in range(3)]
    total, logits = sum(drift), [0.0, 0.0, 0.0]
    for _ in range(steps):
        scale = [math.exp(x - max(logits)) for x in logits]
        logits = [x + lr * (d - total * s / sum(scale)) for x, d, s in zip(logits, drift, scale, strict=True)]
    scale = [math.exp(x - max(logits)) for x in logits]
    return [s / sum(scale) for s in scale]


def test_reinforce_on_fixed_data_ends_at_the_arm_pulled_most_of_the_good_ones() -> None:
    # Its drift is p (r - mean) = -0.174, 0.132, 0.042: the second arm wins though the third pays more.
    assert arms_after("reinforce") == pytest.approx([0.0, 1.0, 0.0], abs=0.01)


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, [0.0, 0.88, 0.12]), (0.2, [0.0, 0.54, 0.46]), (0.1, [0.0, 0.30, 0.70])]
)
def test_red_weight_finds_the_best_arm_the_sooner_the_colder(temperature: float, expected: Sequence[float]) -> None:
    assert arms_after("red_weight", temperature=temperature) == pytest.approx(expected, abs=0.01)
