"""Credit: from rewards to advantages, one number per sample unless said otherwise. Shapes: N tokens, S samples.

Credit of a group is measured from its largest reward, so that a group whose rewards all agree gets exact zeros: no
rounding of the mean is left over to be divided by a small deviation.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ratchet.algorithms.selection import balanced
from ratchet.core.batch import Batch


def centred(batch: Batch) -> Tensor:
    """Reward minus the mean reward of its group: ``A_i = r_i - mean(r)``.

    Source: Williams 1992 with the group mean as baseline; Liu et al. 2025 (Dr.GRPO, arXiv 2503.20783).
    """
    below = batch.reward - batch.group_max(batch.reward)
    return below - batch.group_mean(below)


def standardised(batch: Batch, *, eps: float = 1e-6) -> Tensor:
    """Centred reward over the group's sample standard deviation: ``A_i = (r_i - mean(r)) / (std(r) + eps)``.

    A group whose rewards all agree gets zeros. Source: Shao et al. 2024 (GRPO, arXiv 2402.03300), section 4.1.2.
    """
    centre = centred(batch)
    variance = batch.group_sum(centre.square()) / (batch.group_size - 1).clamp(min=1)
    return centre / (variance.sqrt() + eps)


def leave_one_out(batch: Batch) -> Tensor:
    """Reward minus the mean reward of the others in its group: ``A_i = K/(K-1) (r_i - mean(r))``.

    A sample without others gets zero. Source: Ahmadian et al. 2024 (RLOO, arXiv 2402.14740).
    """
    size = batch.group_size
    return centred(batch) * size / (size - 1).clamp(min=1)


def whitened(batch: Batch, credit: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Credit (S,) or (N,) less its mean over the update's tokens, over their population deviation plus `eps`.

    A long sample weighs more in both. Credit that is the same everywhere becomes exact zeros.
    Source: the normalisation of OpenRLHF, the code of REINFORCE++ (Hu et al. 2025, arXiv 2501.03262).
    """
    below = credit - credit[:1]  # equal credit leaves no rounding to be divided by a small deviation
    centre = below - batch.per_token(below).mean()
    return centre / (batch.per_token(centre).square().mean().sqrt() + eps)


def whitened_reward(batch: Batch) -> Tensor:
    """Reward normalised over the whole update, groups ignored: ``A_i = (r_i - mean(r)) / std(r)`` over tokens.

    Source: Hu et al. 2025 (REINFORCE++, arXiv 2501.03262v9), eqs. 4 and 5.
    """
    return whitened(batch, batch.reward)


def whitened_centred(batch: Batch) -> Tensor:
    """Reward less its group's mean, then normalised over the whole update's tokens.

    Source: Hu et al. 2025 (REINFORCE++ with baseline, arXiv 2501.03262).
    """
    return whitened(batch, centred(batch))


def standardised_with_overlong(batch: Batch, *, length: int, buffer: int) -> Tensor:
    """Group-standardised reward after a penalty for answers that come near the limit.

    ``r_i - min(1, max(0, (|y_i| - (length - buffer)) / buffer))``: nothing up to ``length - buffer`` tokens, then
    linear down to -1 at `length`. Source: Yu et al. 2025 (DAPO, arXiv 2503.14476), eq. 13.
    """
    over = (batch.lengths - (length - buffer)) / buffer
    return standardised(replace(batch, reward=batch.reward - over.clamp(0, 1)))


def above_greedy(batch: Batch) -> Tensor:
    """Reward minus that of the greedy answer to the same prompt: ``A_i = r_i - r_greedy``.

    Source: Li et al. 2023 (ReMax, arXiv 2310.10505).
    """
    assert batch.greedy_reward is not None
    return batch.reward - batch.greedy_reward


def teacher_gap(batch: Batch, *, reward_coef: float) -> Tensor:
    """How much likelier the teacher finds each token than the sampler did, plus a share of the centred reward: (N,).

    ``A_it = log q(y_it) - log p_old(y_it) + c (r_i - mean(r))``; the expectation of the first part at each place is
    minus the reverse KL from sampler to teacher. Source: Lu and Thinking Machines Lab 2025 (On-Policy Distillation).
    """
    assert batch.logp_teacher is not None
    gap = batch.logp_teacher - batch.logp_behaviour
    return gap + reward_coef * batch.per_token(centred(batch)) if reward_coef else gap


def centred_on_balanced(batch: Batch) -> Tensor:
    """Reward minus the mean over the group's balanced samples; zero for those that `balanced` drops.

    A dropped sample keeps its tokens in every denominator. Source: Yao et al. 2025 (RED-Drop, arXiv 2509.24203).
    """
    kept = balanced(batch).to(batch.reward.dtype)
    below = batch.reward - batch.group_max(batch.reward)
    return (below - batch.group_sum(below * kept) / batch.group_sum(kept)) * kept


def shifted(batch: Batch, *, baseline_shift: float) -> Tensor:
    """Reward minus a moved mean: ``A_i = r_i - (mean(r) + shift)``. Source: Arnal et al. 2025 (arXiv 2506.20520)."""
    return centred(batch) - baseline_shift


def soft_centred(batch: Batch, *, tau: float) -> Tensor:
    """Reward minus the soft maximum of its group: ``A_i = r_i - tau log(mean(exp(r / tau)))``.

    The mean for large `tau`, the largest reward for small. Source: the baseline "opmd" of Trinity-RFT
    (arXiv 2505.17826), after the value ``tau log Z`` of Kimi k1.5 (arXiv 2501.12599), section 2.3.2.
    """
    below = batch.reward - batch.group_max(batch.reward)
    return below - tau * batch.group_mean((below / tau).exp()).log()


def ones(batch: Batch) -> Tensor:
    """Credit 1 for every sample: supervised fine-tuning."""
    return torch.ones_like(batch.reward)
