"""Loss of each token from its log-probability. Shapes: N tokens.

``ratio = exp(logp - logp_behaviour)`` compares the policy now with the policy that sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ratchet.algorithms.algorithm import TokenLoss
from ratchet.core.batch import Batch

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped here before `exp`, so that a token of vanished probability cannot overflow float32."""


def log_ratio(logp: Tensor, batch: Batch) -> Tensor:
    """Return ``logp - logp_behaviour``, clamped to +-`MAX_LOG_RATIO`."""
    return (logp - batch.logp_behaviour).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def reinforce(logp: Tensor, batch: Batch, advantage: Tensor) -> TokenLoss:
    """``-A log p``: no ratio, no clip. Source: Williams 1992."""
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(-advantage * logp, none, none)


def clipped_ratio(logp: Tensor, batch: Batch, advantage: Tensor, *, low: float, high: float) -> TokenLoss:
    """``-min(ratio A, clip(ratio, 1-low, 1+high) A)``.

    Source: Schulman et al. 2017 (PPO, arXiv 1707.06347), eq. 7; two bounds as in DAPO (arXiv 2503.14476), eq. 10.
    """
    ratio = log_ratio(logp, batch).exp()
    value = -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    return TokenLoss(
        value,
        clipped_low=(ratio.detach() < 1 - low) & (advantage < 0),
        clipped_high=(ratio.detach() > 1 + high) & (advantage > 0),
    )


def negative_log_likelihood(logp: Tensor, batch: Batch, advantage: Tensor) -> TokenLoss:
    """``-log p``: supervised fine-tuning."""
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(-logp, none, none)
