"""Loss of each token, for methods that take samples of any origin. Shapes: N tokens.

REINFORCE inside a region of the ratio, and REINFORCE with a penalty on the squared log-ratio. ``sg`` is stop-gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ratchet.algorithms.algorithm import TokenLoss
from ratchet.algorithms.losses import MAX_LOG_RATIO, log_ratio
from ratchet.core.batch import Batch


def tapered(logp: Tensor, batch: Batch, advantage: Tensor, *, sequence: bool) -> TokenLoss:
    """``-sg(w) A log p`` with ``w = 1`` if A > 0, else the ratio, at most 1: of the sample, or of each token.

    Source: Le Roux et al. 2025 (TOPR, arXiv 2503.14286).
    """
    difference = logp.detach() - batch.logp_behaviour
    if sequence:
        difference = batch.per_token(batch.per_sample(difference))
    weight = torch.where(advantage > 0, 1.0, difference.clamp(-MAX_LOG_RATIO, 0).exp())
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(-weight * advantage * logp, none, none)


def one_side(logp: Tensor, batch: Batch, advantage: Tensor, *, low: float, high: float, importance: bool) -> TokenLoss:
    """REINFORCE where ``ratio <= 1+high`` if A > 0 and ``ratio >= 1-low`` if A < 0: the region of PPO's clip.

    Source: Yao et al. 2025 (REC-OneSide, arXiv 2509.24203).
    """
    ratio = log_ratio(logp.detach(), batch).exp()
    inside = torch.where(advantage > 0, ratio <= 1 + high, ratio >= 1 - low)
    return _inside(logp, advantage, ratio, inside, importance)


def two_side(logp: Tensor, batch: Batch, advantage: Tensor, *, low: float, high: float, importance: bool) -> TokenLoss:
    """REINFORCE where ``1-low <= ratio <= 1+high``, whatever the sign of A.

    Source: Yao et al. 2025 (REC-TwoSide, arXiv 2509.24203).
    """
    ratio = log_ratio(logp.detach(), batch).exp()
    return _inside(logp, advantage, ratio, (ratio >= 1 - low) & (ratio <= 1 + high), importance)


def ring(
    logp: Tensor,
    batch: Batch,
    advantage: Tensor,
    *,
    low: float,
    high: float,
    outer_low: float,
    outer_high: float,
    importance: bool,
) -> TokenLoss:
    """REINFORCE in the band of `two_side` and, far outside it, where the gradient pulls the ratio back.

    Far outside: ``ratio <= 1-outer_low`` if A > 0, ``ratio >= 1+outer_high`` if A < 0.
    Source: Yao et al. 2025 (REC-Ring, arXiv 2509.24203).
    """
    ratio = log_ratio(logp.detach(), batch).exp()
    band = (ratio >= 1 - low) & (ratio <= 1 + high)
    back = torch.where(advantage > 0, ratio <= 1 - outer_low, ratio >= 1 + outer_high)
    return _inside(logp, advantage, ratio, band | back, importance)


def penalised(logp: Tensor, batch: Batch, advantage: Tensor, *, penalty: float) -> TokenLoss:
    """``-A log p + b (log p - log p_behaviour)^2``. Source: OPMD in Yao et al. 2025 (arXiv 2509.24203)."""
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(-advantage * logp + penalty * (logp - batch.logp_behaviour).square(), none, none)


def sequence_penalised(logp: Tensor, batch: Batch, advantage: Tensor, *, tau: float) -> TokenLoss:
    """``-A log p(y) + (tau/2) (log p(y) - log p_behaviour(y))^2`` of each sample, spread over its tokens.

    Source: Kimi k1.5 (arXiv 2501.12599), section 2.3.2.
    """
    drift = batch.per_sample(logp - batch.logp_behaviour)
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(-advantage * logp + batch.per_token(tau / 2 * drift.square() / batch.lengths), none, none)


def damped(logp: Tensor, batch: Batch, advantage: Tensor, *, tau: float) -> TokenLoss:
    """``-A log p / (1 + tau)``. Source: the policy loss "opmd" of Trinity-RFT (arXiv 2505.17826)."""
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(-advantage * logp / (1 + tau), none, none)


def consistent_pairs(logp: Tensor, batch: Batch, advantage: Tensor, *, tau: float) -> TokenLoss:
    """``(A - tau (log p(y) - sg log p(y)))^2 / max(1, tau)`` of each sample, spread over its tokens.

    Value and gradient of ``sum_i (d_i - mean(d))^2`` with ``d_i = r_i - tau (log p(y_i) - sg log p(y_i))``: the mean
    moves, but its part of the gradient is multiplied by ``sum_i (r_i - mean(r)) = 0``, so groups may be cut.
    Source: the policy loss "pairwise_opmd" of Trinity-RFT (arXiv 2505.17826).
    """
    drift = batch.per_sample(logp - logp.detach())
    value = (advantage - tau * batch.per_token(drift)).square() / batch.per_token(batch.lengths)
    none = torch.zeros_like(logp, dtype=torch.bool)
    return TokenLoss(value / max(1.0, tau), none, none)


def clipped_log_ratio(
    logp: Tensor, batch: Batch, advantage: Tensor, *, low: float, high: float, tau: float
) -> TokenLoss:
    """``-clip(ratio, e^-low, e^high) A + tau (log ratio)^2``: cut outside the band whatever the sign of A.

    Source: Kimi Team 2026 (K2.5, arXiv 2602.02276), eq. 1, whose text bounds the log-ratio where the equation prints
    the ratio.
    """
    difference = logp - batch.logp_behaviour
    value = -difference.clamp(-low, high).exp() * advantage + tau * difference.square()
    with torch.no_grad():
        below, above = (difference < -low) & (advantage != 0), (difference > high) & (advantage != 0)
    return TokenLoss(value, below, above)


def _inside(logp: Tensor, advantage: Tensor, ratio: Tensor, inside: Tensor, importance: bool) -> TokenLoss:
    """Return ``-sg(ratio or 1) A log p`` where inside, zero elsewhere."""
    credit = torch.where(inside, advantage * ratio if importance else advantage, 0.0)
    cut = ~inside & (advantage != 0)
    return TokenLoss(-credit * logp, clipped_low=cut & (ratio < 1), clipped_high=cut & (ratio > 1))
