"""Rows of the table for samples of the policy itself or nearly so, judged by their rewards alone.

``rho_it`` is the ratio of a token to the policy that sampled it, S the update's samples, N its tokens.
"""

from __future__ import annotations

from functools import partial

from ratchet.algorithms.advantages import (
    centred,
    leave_one_out,
    standardised,
    standardised_with_overlong,
    whitened_centred,
    whitened_reward,
)
from ratchet.algorithms.algorithm import Algorithm, keep_all, weigh_equally
from ratchet.algorithms.losses import (
    capped_ratio,
    clipped_ratio,
    clipped_sequence_ratio,
    gated_ratio,
    geometric_mean_of_clipped,
    reinforce,
)
from ratchet.algorithms.options import (
    CapHigh,
    CapLow,
    Clip,
    ClipHigh,
    Gate,
    Length,
    LogClip,
    LogClipHigh,
    OverlongBuffer,
    OverlongLength,
)
from ratchet.algorithms.reductions import constant_length, sequence_mean, sequence_sum, token_mean
from ratchet.algorithms.selection import mixed_rewards
from ratchet.core.errors import ConfigError


def grpo(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2, std: bool = True) -> Algorithm:
    """GRPO: clipped ratio on group-standardised rewards, mean over tokens, then over samples.

    ``L = -(1/S) sum_i (1/|y_i|) sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)``
    with ``A_i = (r_i - mean) / std``, or ``r_i - mean`` when `std` is false.

    Source: Shao et al. 2024 (arXiv 2402.03300), eq. 3.
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised if std else centred,
        weight=weigh_equally,
        loss=partial(clipped_ratio, low=clip_low, high=clip_high),
        reduce=sequence_mean,
        min_group=2,
    )


def dr_grpo(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2, length: Length = 1024) -> Algorithm:
    """Dr.GRPO: GRPO without its two biases: no division by std, a constant instead of the sample's length.

    ``L = -(1/(S L)) sum_i sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)`` with ``A_i = r_i - mean``.

    Source: Liu et al. 2025 (arXiv 2503.20783), section 3.2.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(clipped_ratio, low=clip_low, high=clip_high),
        reduce=partial(constant_length, length=length),
        min_group=2,
    )


def dapo(
    *,
    clip_low: Clip = 0.2,
    clip_high: ClipHigh = 0.28,
    overlong_length: OverlongLength = 0,
    overlong_buffer: OverlongBuffer = 0,
) -> Algorithm:
    """DAPO: GRPO with a wider upper clip, mean over all tokens, and only the groups whose rewards differ.

    ``L = -(1/N) sum_i sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)`` with ``A_i = (r_i - mean) / std``.
    With `overlong_length` (published: 20480 tokens, a buffer of 4096) the reward first loses up to a point as the
    answer comes near it. Groups are judged by what they were before; those left out are not replaced by new ones.

    Source: Yu et al. 2025 (arXiv 2503.14476), eqs. 8 to 13; numbers from section 4.1.
    """
    if bool(overlong_length) != bool(overlong_buffer):
        raise ConfigError(
            f"algorithm.overlong_length = {overlong_length} and algorithm.overlong_buffer = {overlong_buffer}: "
            "set both for a length penalty, or neither."
        )
    if overlong_buffer > overlong_length:
        raise ConfigError(
            f"algorithm.overlong_buffer = {overlong_buffer} is longer than algorithm.overlong_length = "
            f"{overlong_length}: set overlong_buffer to at most overlong_length."
        )
    shaped = partial(standardised_with_overlong, length=overlong_length, buffer=overlong_buffer)
    return Algorithm(
        keep=mixed_rewards,
        advantage=shaped if overlong_length else standardised,
        weight=weigh_equally,
        loss=partial(clipped_ratio, low=clip_low, high=clip_high),
        reduce=token_mean,
        min_group=2,
    )


def gspo(*, clip_low: Clip = 3e-4, clip_high: ClipHigh = 4e-4) -> Algorithm:
    """GSPO: one clipped ratio per sample, the geometric mean of its tokens' ratios.

    ``L = -(1/S) sum_i min(s_i A_i, clip(s_i, 1-low, 1+high) A_i)`` with ``s_i = exp(mean_t log rho_it)`` and
    ``A_i = (r_i - mean) / std``.

    Source: Zheng et al. 2025 (arXiv 2507.18071), eqs. 5 to 7; bounds from section 5.1.
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised,
        weight=weigh_equally,
        loss=partial(clipped_sequence_ratio, low=clip_low, high=clip_high),
        reduce=sequence_mean,
        min_group=2,
    )


def gmpo(*, log_clip_low: LogClip = 0.4, log_clip_high: LogClipHigh = 0.4) -> Algorithm:
    """GMPO: the geometric instead of the arithmetic mean of a sample's clipped ratios.

    ``L = -(1/S) sum_i A_i exp(mean_t l_it)``, ``l_it`` being ``log rho_it``, at most `log_clip_high` if ``A_i > 0``,
    at least ``-log_clip_low`` if ``A_i < 0``; ``A_i = (r_i - mean) / std``.

    Source: Zhao et al. 2025 (arXiv 2507.20673).
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised,
        weight=weigh_equally,
        loss=partial(geometric_mean_of_clipped, low=log_clip_low, high=log_clip_high),
        reduce=sequence_mean,
        min_group=2,
    )


def cispo(*, cap_low: CapLow = 0.0, cap_high: CapHigh = 1.28) -> Algorithm:
    """CISPO: REINFORCE weighted by the capped ratio, so that no token loses its gradient; mean over tokens.

    ``L = -(1/N) sum_i sum_t sg(clip(rho_it, low, high)) A_i log p(y_it)`` with ``A_i = (r_i - mean) / std``.

    Source: MiniMax 2025 (MiniMax-M1, arXiv 2506.13585), eqs. 4 and 5, without a lower bound; the paper leaves the upper
    one open, 1.28 is that of Trinity-RFT.
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised,
        weight=weigh_equally,
        loss=partial(capped_ratio, low=cap_low, high=cap_high),
        reduce=token_mean,
        min_group=2,
    )


def sapo(*, gate_positive: Gate = 1.0, gate_negative: Gate = 1.05) -> Algorithm:
    """SAPO: a sigmoid of the ratio in place of the clip, steeper for negative advantages.

    ``L = -(1/S) sum_i (1/|y_i|) sum_t (4/tau_i) sigmoid(tau_i (rho_it - 1)) A_i`` with ``A_i = (r_i - mean) / std``
    and ``tau_i`` one of the two gates by the sign of ``A_i``.

    Source: Gao et al. 2025 (arXiv 2511.20347).
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised,
        weight=weigh_equally,
        loss=partial(gated_ratio, positive=gate_positive, negative=gate_negative),
        reduce=sequence_mean,
        min_group=2,
    )


def rloo() -> Algorithm:
    """RLOO: REINFORCE with the mean of the group's other rewards as baseline; a sample is one action.

    ``L = -(1/S) sum_i A_i sum_t log p(y_it)`` with ``A_i = r_i - mean_{j != i} r_j``.

    Source: Ahmadian et al. 2024 (arXiv 2402.14740), the RLOO estimator.
    """
    return Algorithm(
        keep=keep_all,
        advantage=leave_one_out,
        weight=weigh_equally,
        loss=reinforce,
        reduce=sequence_sum,
        min_group=2,
    )


def reinforce_pp(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2) -> Algorithm:
    """REINFORCE++: clipped ratio on rewards normalised over the whole update; one sample per prompt will do.

    ``L = -(1/N) sum_i sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)`` with ``A_i = (r_i - mean) / std`` over
    all the update's tokens. The paper's KL, taken off the reward, is left to ``algorithm.kl_coef``.

    Source: Hu et al. 2025 (arXiv 2501.03262v9), the variant without a group baseline; eqs. 4 and 5.
    """
    return Algorithm(
        keep=keep_all,
        advantage=whitened_reward,
        weight=weigh_equally,
        loss=partial(clipped_ratio, low=clip_low, high=clip_high),
        reduce=token_mean,
    )


def reinforce_pp_baseline(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2) -> Algorithm:
    """REINFORCE++ with baseline: clipped ratio, rewards centred in the group, then normalised over the whole update.

    ``L = -(1/N) sum_i sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)`` with ``A_i = (c_i - mean) / std`` over
    all the update's tokens and ``c_i = r_i - mean`` of its group. The paper's k2 penalty is ``algorithm.kl_coef``'s to
    add.

    Source: Hu et al. 2025 (arXiv 2501.03262v9), the variant with a group baseline.
    """
    return Algorithm(
        keep=keep_all,
        advantage=whitened_centred,
        weight=weigh_equally,
        loss=partial(clipped_ratio, low=clip_low, high=clip_high),
        reduce=token_mean,
        min_group=2,
    )


def reinforce_group(*, std: bool = False) -> Algorithm:
    """REINFORCE with the group mean as baseline: no ratio, no clip, mean over tokens.

    ``L = -(1/N) sum_i sum_t A_i log p(y_it)`` with ``A_i = r_i - mean``.

    Source: Williams 1992; the form used as the unregularised baseline by Yao et al. 2025 (arXiv 2509.24203).
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised if std else centred,
        weight=weigh_equally,
        loss=reinforce,
        reduce=token_mean,
        min_group=2,
    )
