"""Rows of the table for samples of any origin: stale, replayed, or not the policy's own.

``A_i = r_i - mean`` is never divided by a deviation here, and token sums are divided by the update's N tokens, unless
a row says otherwise. ``rho_it`` is the ratio of a token, ``sg`` stop-gradient.
"""

from __future__ import annotations

from functools import partial

from ratchet.algorithms.advantages import centred, centred_on_balanced, shifted, soft_centred
from ratchet.algorithms.algorithm import Algorithm, keep_all, weigh_equally
from ratchet.algorithms.losses import reinforce
from ratchet.algorithms.off_policy_losses import (
    clipped_log_ratio,
    consistent_pairs,
    damped,
    one_side,
    penalised,
    ring,
    sequence_penalised,
    tapered,
    two_side,
)
from ratchet.algorithms.options import (
    Clip,
    ClipHigh,
    Importance,
    LogClip,
    LogClipHigh,
    OuterHigh,
    OuterLow,
    Penalty,
    SequenceRatio,
    Shift,
    SoftBaseline,
    Tau,
    Temperature,
    TemperatureMin,
)
from ratchet.algorithms.reductions import sequence_sum, token_mean
from ratchet.algorithms.selection import adaptive_exponential, exponential
from ratchet.core.errors import ConfigError


def rec_one_side(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2, importance: Importance = False) -> Algorithm:
    """REC-OneSide: REINFORCE inside the region where PPO's clip leaves a gradient; with `importance`, that gradient.

    ``L = -(1/N) sum_i sum_t M_it A_i log p(y_it)``, times ``sg(rho_it)`` with `importance`;
    ``M = [rho <= 1+high]`` if ``A > 0``, ``[rho >= 1-low]`` if ``A < 0``.

    Source: Yao et al. 2025 (arXiv 2509.24203), REC-OneSide-NoIS and -IS.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(one_side, low=clip_low, high=clip_high, importance=importance),
        reduce=token_mean,
        min_group=2,
    )


def rec_two_side(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2, importance: Importance = False) -> Algorithm:
    """REC-TwoSide: REINFORCE inside a band of the ratio, whatever the sign of the advantage.

    ``L = -(1/N) sum_i sum_t M_it A_i log p(y_it)``, times ``sg(rho_it)`` with `importance`;
    ``M = [1-low <= rho <= 1+high]``.

    Source: Yao et al. 2025 (arXiv 2509.24203), REC-TwoSide-NoIS and -IS.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(two_side, low=clip_low, high=clip_high, importance=importance),
        reduce=token_mean,
        min_group=2,
    )


def rec_ring(
    *,
    clip_low: Clip = 0.2,
    clip_high: ClipHigh = 0.2,
    outer_low: OuterLow = 0.6,
    outer_high: OuterHigh = 2.0,
    importance: Importance = False,
) -> Algorithm:
    """REC-Ring: REC-TwoSide that also keeps far-off tokens whose gradient pulls the ratio back.

    ``L = -(1/N) sum_i sum_t M_it A_i log p(y_it)``, times ``sg(rho_it)`` with `importance`;
    ``M = [1-low <= rho <= 1+high] or [A > 0, rho <= 1-outer_low] or [A < 0, rho >= 1+outer_high]``.

    Source: Yao et al. 2025 (arXiv 2509.24203), REC-Ring-NoIS and -IS.
    """
    if outer_low < clip_low:
        raise ConfigError(
            f"algorithm.outer_low = {outer_low:g} lies inside algorithm.clip_low = {clip_low:g}: "
            "set outer_low to at least clip_low."
        )
    if outer_high < clip_high:
        raise ConfigError(
            f"algorithm.outer_high = {outer_high:g} lies inside algorithm.clip_high = {clip_high:g}: "
            "set outer_high to at least clip_high."
        )
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(
            ring,
            low=clip_low,
            high=clip_high,
            outer_low=outer_low,
            outer_high=outer_high,
            importance=importance,
        ),
        reduce=token_mean,
        min_group=2,
    )


def red_drop() -> Algorithm:
    """RED-Drop: REINFORCE without the surplus of negatives: as many stay, at random, as there are positives.

    ``L = -(1/N) sum_{i kept} sum_t A_i log p(y_it)`` with ``A_i = r_i - mean`` over the kept of its group. Positive is
    ``r_i >= mean`` of the whole group. Dropped samples keep their tokens in N.

    Source: Yao et al. 2025 (arXiv 2509.24203), RED-Drop.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred_on_balanced,
        weight=weigh_equally,
        loss=reinforce,
        reduce=token_mean,
        min_group=2,
    )


def red_weight(*, temperature: Temperature = 1.0) -> Algorithm:
    """RED-Weight: REINFORCE that weighs good samples up.

    ``L = -(1/N) sum_i exp(A_i / T) sum_t A_i log p(y_it)``; the weights are not normalised.

    Source: Yao et al. 2025 (arXiv 2509.24203), RED-Weight.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=partial(exponential, temperature=temperature),
        loss=reinforce,
        reduce=token_mean,
        min_group=2,
    )


def red_adaptive(
    *, temperature_min: TemperatureMin = 0.8, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.2
) -> Algorithm:
    """REC-OneSide with adaptive RED-Weight: good samples weigh more only when bad tokens outweigh the good ones.

    ``L = -(1/N) sum_i w_i sum_t M_it A_i log p(y_it)`` with M that of ``rec_one_side``. If
    ``sum_i |y_i| A_i < 0`` then ``w_i = exp(A_i / T)``, T being the temperature, at least `temperature_min`, where
    ``sum_i |y_i| w_i A_i`` is zero; otherwise ``w_i = 1``.

    Source: Chen et al. 2026 (Connect the Dots, arXiv 2606.20002), eq. 3, over all samples of an update.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=partial(adaptive_exponential, temperature_min=temperature_min),
        loss=partial(one_side, low=clip_low, high=clip_high, importance=False),
        reduce=token_mean,
        min_group=2,
    )


def topr(*, sequence: SequenceRatio = True) -> Algorithm:
    """TOPR: good samples count fully, bad ones by their ratio, at most 1.

    ``L = -(1/N) sum_i sum_t sg(w_i) A_i log p(y_it)`` with ``w_i = 1`` if ``A_i > 0``, else
    ``min(1, p(y_i) / p_old(y_i))``; without `sequence` each token has its own ratio, as in Trinity-RFT.

    Source: Le Roux et al. 2025 (arXiv 2503.14286), with the group mean as the reward's baseline.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(tapered, sequence=sequence),
        reduce=token_mean,
        min_group=2,
    )


def asymre(*, baseline_shift: Shift = -0.1) -> Algorithm:
    """AsymRE: REINFORCE with a moved baseline; a lower one leans towards imitating every sample.

    ``L = -(1/N) sum_i sum_t (r_i - mean - shift) log p(y_it)``.

    Source: Arnal et al. 2025 (arXiv 2506.20520).
    """
    return Algorithm(
        keep=keep_all,
        advantage=partial(shifted, baseline_shift=baseline_shift),
        weight=weigh_equally,
        loss=reinforce,
        reduce=token_mean,
        min_group=2,
    )


def opmd_kimi(*, penalty: Penalty = 0.1) -> Algorithm:
    """OPMD as in Kimi: REINFORCE with a penalty on each token's squared log-ratio to the sampling policy.

    ``L = (1/N) sum_i sum_t (-A_i log p(y_it) + b (log rho_it)^2)``.

    Source: Kimi k1.5 (arXiv 2501.12599), section 2.3.2, in the token form of Yao et al. 2025 (arXiv 2509.24203).
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(penalised, penalty=penalty),
        reduce=token_mean,
        min_group=2,
        silent_at_zero=False,
    )


def opmd_pairwise(*, tau: Tau = 1.0) -> Algorithm:
    """OPMD of pairs, with the current policy as reference: the same direction as REINFORCE.

    ``L = sum_i (d_i - mean(d))^2 / (N max(1, tau))`` with ``d_i = r_i - tau (log p(y_i) - sg log p(y_i))``.
    Its gradient is ``2 tau / max(1, tau)`` times that of ``reinforce``.

    Source: the policy loss "pairwise_opmd" of Trinity-RFT (arXiv 2505.17826).
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(consistent_pairs, tau=tau),
        reduce=token_mean,
        min_group=2,
    )


def min_opmd(*, tau: Tau = 1.0, soft_baseline: SoftBaseline = False) -> Algorithm:
    """OPMD at its simplest: REINFORCE over ``1 + tau``, with the mean or the soft maximum of rewards as baseline.

    ``L = -(1/N) sum_i sum_t A_i log p(y_it) / (1 + tau)`` with ``A_i = r_i - mean``, or
    ``r_i - tau log(mean(exp(r / tau)))`` with `soft_baseline`.

    Source: the algorithm "opmd" of Trinity-RFT (arXiv 2505.17826).
    """
    return Algorithm(
        keep=keep_all,
        advantage=partial(soft_centred, tau=tau) if soft_baseline else centred,
        weight=weigh_equally,
        loss=partial(damped, tau=tau),
        reduce=token_mean,
        min_group=2,
    )


def k1_5(*, tau: Tau = 0.1) -> Algorithm:
    """Kimi k1.5: REINFORCE with a penalty on each sample's squared log-ratio to the sampling policy.

    ``L = (1/S) sum_i (-A_i log p(y_i) + (tau/2) (log p(y_i) - log p_old(y_i))^2)`` with sums over tokens.
    The optimiser forgets its moments each time the sampler gets new weights. `tau` is not published.

    Source: Kimi k1.5 (arXiv 2501.12599), section 2.3.2.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(sequence_penalised, tau=tau),
        reduce=sequence_sum,
        min_group=2,
        silent_at_zero=False,
        reset_optimiser=True,
    )


def k2_5(*, log_clip_low: LogClip = 0.2, log_clip_high: LogClipHigh = 0.2, tau: Tau = 0.1) -> Algorithm:
    """Kimi K2.5: the ratio inside a band of the log-ratio, whatever the sign, and a penalty on its square everywhere.

    ``L = (1/N) sum_i sum_t (-clip(rho_it, e^-low, e^high) A_i + tau (log rho_it)^2)``.
    The three options are not published.

    Source: Kimi Team 2026 (K2.5, arXiv 2602.02276), eq. 1.
    """
    return Algorithm(
        keep=keep_all,
        advantage=centred,
        weight=weigh_equally,
        loss=partial(clipped_log_ratio, low=log_clip_low, high=log_clip_high, tau=tau),
        reduce=token_mean,
        min_group=2,
        silent_at_zero=False,
    )
