"""Rows of the table that learn from more than sampled rewards: a critic, a greedy attempt, a teacher, demonstrations.

``rho_it`` is the ratio of a token to the policy that sampled it, S the update's samples, N its tokens.
"""

from __future__ import annotations

from functools import partial

from ratchet.algorithms.advantages import above_greedy, ones, teacher_gap
from ratchet.algorithms.algorithm import Algorithm, Critic, keep_all, weigh_equally
from ratchet.algorithms.critic import clipped_square, gae, returns, whitened_gae
from ratchet.algorithms.losses import clipped_ratio, importance_ratio, negative_log_likelihood, reinforce
from ratchet.algorithms.options import Clip, ClipHigh, CriticLr, Discount, RewardCoef, Trace, ValueClip, Whiten
from ratchet.algorithms.reductions import sequence_sum, token_mean


def ppo(
    *,
    clip_low: Clip = 0.2,
    clip_high: ClipHigh = 0.2,
    gamma: Discount = 1.0,
    lam: Trace = 0.95,
    whiten: Whiten = True,
    value_clip: ValueClip = 0.2,
    critic_lr: CriticLr = 1e-5,
) -> Algorithm:
    """PPO: clipped ratio on credit per token, measured against a critic that learns along with the policy.

    ``L = -(1/N) sum_i sum_t min(rho_it A_it, clip(rho_it, 1-low, 1+high) A_it)`` with
    ``A_it = d_it + gamma lam A_i,t+1``, ``d_it = r_it + gamma V_i,t+1 - V_it``, normalised over the update's tokens.
    The critic's loss is half of ``max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2)``, ``R = A + V_old``, mean over
    tokens; it has its own optimiser and so no coefficient.

    Source: Schulman et al. 2017 (arXiv 1707.06347), eq. 7; GAE: Schulman et al. 2016 (arXiv 1506.02438). Defaults are
    those of TRL's PPO for language models, `critic_lr` that of verl.
    """
    return Algorithm(
        keep=keep_all,
        advantage=partial(whitened_gae if whiten else gae, gamma=gamma, lam=lam),
        weight=weigh_equally,
        loss=partial(clipped_ratio, low=clip_low, high=clip_high),
        reduce=token_mean,
        critic=Critic(
            returns=partial(returns, gamma=gamma, lam=lam), loss=partial(clipped_square, clip=value_clip), lr=critic_lr
        ),
    )


def remax() -> Algorithm:
    """ReMax: REINFORCE with the reward of the greedy answer as baseline; a sample is one action.

    ``L = -(1/S) sum_i A_i sum_t log p(y_it)`` with ``A_i = r_i - r_greedy``, the greedy answer to the same prompt.

    Source: Li et al. 2023 (arXiv 2310.10505), algorithm 1.
    """
    return Algorithm(
        keep=keep_all,
        advantage=above_greedy,
        weight=weigh_equally,
        loss=reinforce,
        reduce=sequence_sum,
        needs=frozenset({"greedy"}),
    )


def distill(*, reward_coef: RewardCoef = 0.0) -> Algorithm:
    """On-policy distillation: the policy's own answers, each token judged by how likely a teacher finds it.

    ``L = -(1/N) sum_i sum_t rho_it A_it`` with ``A_it = log q(y_it) - log p_old(y_it) + c (r_i - mean)``, q the
    teacher. On policy that descends the reverse KL ``KL(p || q)`` at each place the policy comes to, as in MiniLLM
    (arXiv 2306.08543) but blind to what a token leads to. The reward counts only with `reward_coef`. GKD
    (arXiv 2306.13649) compares whole distributions instead, which needs the teacher's.

    Source: Lu and Thinking Machines Lab 2025 (thinkingmachines.ai/blog/on-policy-distillation) and its code, with
    discount 0 and the loss "importance_sampling", there summed over tokens.
    """
    return Algorithm(
        keep=keep_all,
        advantage=partial(teacher_gap, reward_coef=reward_coef),
        weight=weigh_equally,
        loss=importance_ratio,
        reduce=token_mean,
        min_group=2 if reward_coef else 1,
        needs=frozenset({"teacher"}),
    )


def sft() -> Algorithm:
    """Supervised fine-tuning: negative log-likelihood of demonstrations, mean over tokens.

    ``L = -(1/N) sum_i sum_t log p(y_it)``.
    """
    return Algorithm(
        keep=keep_all,
        advantage=ones,
        weight=weigh_equally,
        loss=negative_log_likelihood,
        reduce=token_mean,
        silent_at_zero=False,
        sampled=False,
    )
