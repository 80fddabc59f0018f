"""Loss of each token from its log-probability, for methods that stay near the sampling policy. Shapes: N tokens.

``ratio = exp(logp - logp_behaviour)`` compares the policy now with the policy that sampled. Losses of a whole sample
are written to its tokens: every batch holds whole samples, though not whole groups.
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


def importance_ratio(logp: Tensor, batch: Batch, advantage: Tensor) -> TokenLoss:
    """``-ratio A``: the ratio without a clip. Source: the loss "importance_sampling" of Thinking Machines' Tinker."""
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(-log_ratio(logp, batch).exp() * advantage, none, none)


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


def clipped_sequence_ratio(logp: Tensor, batch: Batch, advantage: Tensor, *, low: float, high: float) -> TokenLoss:
    """``-min(s A, clip(s, 1-low, 1+high) A)`` with ``s_i`` the geometric mean of the sample's ratios, at each token.

    Source: Zheng et al. 2025 (GSPO, arXiv 2507.18071), eqs. 5 and 7.
    """
    mean = batch.per_sample(logp - batch.logp_behaviour) / batch.lengths
    ratio = batch.per_token(mean.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp())
    value = -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    return TokenLoss(
        value,
        clipped_low=(ratio.detach() < 1 - low) & (advantage < 0),
        clipped_high=(ratio.detach() > 1 + high) & (advantage > 0),
    )


def geometric_mean_of_clipped(logp: Tensor, batch: Batch, advantage: Tensor, *, low: float, high: float) -> TokenLoss:
    """``-A exp(mean_t l_t)`` at each token, ``l_t`` the log-ratio cut at `high` if A > 0, at ``-low`` if A < 0.

    Source: Zhao et al. 2025 (GMPO, arXiv 2507.20673), whose bounds are ``exp(-low)`` and ``exp(high)``.
    """
    ratio = log_ratio(logp, batch)
    kept = torch.where(advantage > 0, ratio.clamp(max=high), ratio.clamp(min=-low))
    value = -advantage * batch.per_token((batch.per_sample(kept) / batch.lengths).exp())
    return TokenLoss(
        value,
        clipped_low=(ratio.detach() < -low) & (advantage < 0),
        clipped_high=(ratio.detach() > high) & (advantage > 0),
    )


def capped_ratio(logp: Tensor, batch: Batch, advantage: Tensor, *, low: float, high: float) -> TokenLoss:
    """``-sg(clip(ratio, low, high)) A log p``: every token keeps a gradient, its weight is capped.

    Reported as clipped are the tokens whose weight is capped. Source: MiniMax 2025 (CISPO, arXiv 2506.13585), eq. 4.
    """
    ratio = log_ratio(logp.detach(), batch).exp()
    return TokenLoss(-ratio.clamp(low, high) * advantage * logp, clipped_low=ratio < low, clipped_high=ratio > high)


def gated_ratio(logp: Tensor, batch: Batch, advantage: Tensor, *, positive: float, negative: float) -> TokenLoss:
    """``-A (4/tau) sigmoid(tau (ratio - 1))``, ``tau`` by the sign of A: the gradient fades instead of being cut.

    Source: Gao et al. 2025 (SAPO, arXiv 2511.20347).
    """
    ratio = log_ratio(logp, batch).exp()
    tau = torch.where(advantage > 0, advantage.new_tensor(positive), advantage.new_tensor(negative))
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(-advantage * 4 / tau * torch.sigmoid(tau * (ratio - 1)), none, none)
