"""Credit: from rewards to advantages, one number per sample. Shapes: S samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ratchet.core.batch import Batch


def centred(batch: Batch) -> Tensor:
    """Reward minus the mean reward of its group: ``A_i = r_i - mean(r)``.

    Source: Williams 1992 with the group mean as baseline; Liu et al. 2025 (Dr.GRPO, arXiv 2503.20783).
    """
    return batch.reward - batch.group_mean(batch.reward)


def standardised(batch: Batch, *, eps: float = 1e-6) -> Tensor:
    """Centred reward over the group's sample standard deviation: ``A_i = (r_i - mean(r)) / (std(r) + eps)``.

    A group whose rewards all agree gets zeros. Source: Shao et al. 2024 (GRPO, arXiv 2402.03300), section 4.1.2.
    """
    centre = centred(batch)
    variance = batch.group_sum(centre.square()) / (batch.group_size - 1).clamp(min=1)
    return centre / (variance.sqrt() + eps)


def ones(batch: Batch) -> Tensor:
    """Credit 1 for every sample: supervised fine-tuning."""
    return torch.ones_like(batch.reward)
