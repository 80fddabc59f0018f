"""Credit: from rewards to advantages, one number per sample. Shapes: S samples.

A group whose rewards all agree gets exact zeros from every function but `ones` and `shifted`: rewards are measured from
the group's largest, so that no rounding of the mean is left over to be divided by a small deviation.
"""

from __future__ import annotations

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


def standardised_over_batch(batch: Batch, *, eps: float = 1e-8) -> Tensor:
    """Centred reward over its population standard deviation in the whole update: ``A_i = c_i / (std(c) + eps)``.

    The mean of centred rewards is zero already, so none is subtracted. Samples count equally, whatever their length.
    Source: Hu et al. 2025 (REINFORCE++ with baseline, arXiv 2501.03262).
    """
    centre = centred(batch)
    return centre / (centre.square().mean().sqrt() + eps)


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
