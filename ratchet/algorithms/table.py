"""The table of algorithms. A row is a builder whose keyword-only parameters are the options a recipe may set.

Defaults are the published ones and exist only here and in `off_policy`, the rows made for samples of any origin. To add
a method, write its functions beside their like and one row; outside the package, name it ``my_module:my_builder`` or
``file.py:my_builder``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import ValidationError, validate_call

from ratchet.algorithms.advantages import centred, leave_one_out, ones, standardised, standardised_over_batch
from ratchet.algorithms.algorithm import Algorithm, keep_all, weigh_equally
from ratchet.algorithms.losses import (
    capped_ratio,
    clipped_ratio,
    clipped_sequence_ratio,
    gated_ratio,
    geometric_mean_of_clipped,
    negative_log_likelihood,
    reinforce,
)
from ratchet.algorithms.off_policy import (
    asymre,
    k1_5,
    k2_5,
    min_opmd,
    opmd_kimi,
    opmd_pairwise,
    rec_one_side,
    rec_ring,
    rec_two_side,
    red_drop,
    red_weight,
    topr,
)
from ratchet.algorithms.options import CapHigh, CapLow, Clip, ClipHigh, Gate, Length, LogClip, LogClipHigh
from ratchet.algorithms.reductions import constant_length, sequence_mean, sequence_sum, token_mean
from ratchet.algorithms.selection import mixed_rewards
from ratchet.core.errors import ConfigError, nearest
from ratchet.core.load import LoadError, is_path, load_object


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


def dapo(*, clip_low: Clip = 0.2, clip_high: ClipHigh = 0.28) -> Algorithm:
    """DAPO: GRPO with a wider upper clip, mean over all tokens, and only the groups whose rewards differ.

    ``L = -(1/N) sum_i sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)`` with ``A_i = (r_i - mean) / std``.
    Groups left out are not replaced by new ones; the paper's length penalty belongs to the reward.

    Source: Yu et al. 2025 (arXiv 2503.14476), eqs. 8 to 12.
    """
    return Algorithm(
        keep=mixed_rewards,
        advantage=standardised,
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
    """REINFORCE++ with baseline: clipped ratio, centred in the group, one standard deviation for the whole update.

    ``L = -(1/N) sum_i sum_t min(rho_it A_i, clip(rho_it, 1-low, 1+high) A_i)`` with ``A_i = c_i / std(c)`` and
    ``c_i = r_i - mean``. The paper's k2 penalty is ``algorithm.kl_coef``'s to add.

    Source: Hu et al. 2025 (arXiv 2501.03262), the variant with a group baseline.
    """
    return Algorithm(
        keep=keep_all,
        advantage=standardised_over_batch,
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


ALGORITHMS: Mapping[str, Callable[..., Algorithm]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "gspo": gspo,
    "gmpo": gmpo,
    "cispo": cispo,
    "sapo": sapo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
    "reinforce": reinforce_group,
    "rec_one_side": rec_one_side,
    "rec_two_side": rec_two_side,
    "rec_ring": rec_ring,
    "red_drop": red_drop,
    "red_weight": red_weight,
    "topr": topr,
    "asymre": asymre,
    "opmd_kimi": opmd_kimi,
    "opmd_pairwise": opmd_pairwise,
    "min_opmd": min_opmd,
    "k1_5": k1_5,
    "k2_5": k2_5,
    "sft": sft,
}


def build_algorithm(name: str, options: Mapping[str, Any]) -> Algorithm:
    """Return the algorithm of a name with its options set.

    Raises `ConfigError` for an unknown name or option, or a value out of bounds, with the nearest known name.
    """
    if is_path(name):
        builder = _users_builder(name)
    elif name in ALGORITHMS:
        builder = ALGORITHMS[name]
    else:
        raise ConfigError(f'algorithm.name = "{name}" is not known.{nearest(name, ALGORITHMS)}')
    parameters = inspect.signature(builder).parameters
    for key in options:
        if key not in parameters:
            raise ConfigError(f"algorithm.{key}: {name} has no such option.{nearest(key, parameters)}")
    try:
        built = validate_call(builder)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"algorithm.{key} = {first['input']!r}: {first['msg']}.") from None
    if not isinstance(built, Algorithm):
        raise ConfigError(f'algorithm.name = "{name}" returned a {type(built).__name__}, not an Algorithm.')
    return built


def _users_builder(path: str) -> Callable[..., Algorithm]:
    """Return the builder a path names. Raises `ConfigError` if it cannot be loaded or called."""
    try:
        found = load_object(path)
    except LoadError as error:
        raise ConfigError(f"algorithm.name: {error}") from error
    if not callable(found):
        raise ConfigError(f'algorithm.name = "{path}" is a {type(found).__name__}; name a function instead.')
    return found
