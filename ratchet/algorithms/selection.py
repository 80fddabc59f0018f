"""Which samples count, and how much. Shapes: N tokens, S samples."""

from __future__ import annotations

import torch
from torch import Tensor

from ratchet.core.batch import Batch

MAX_EXPONENT = 20.0
"""Exponents of sample weights stop here, so that one sample of large reward cannot overflow float32."""
HALVINGS = 60
"""Of an interval, after which its ends agree to float64's precision."""


def mixed_rewards(batch: Batch) -> Tensor:
    """Keep the groups whose rewards differ. Source: DAPO (arXiv 2503.14476), eq. 11, dynamic sampling."""
    return batch.group_max(batch.reward) > -batch.group_max(-batch.reward)


def balanced(batch: Batch) -> Tensor:
    """Return which samples stay when the surplus of negatives is dropped at random: (S,) bool.

    A sample is positive if its reward is at least its group's mean. Where negatives outnumber positives, as many stay
    as there are positives. The draw depends on each sample's own log-probabilities alone: it repeats, and neither the
    order of samples nor micro-batches can change it.

    Source: Yao et al. 2025 (RED-Drop, arXiv 2509.24203).
    """
    below = batch.reward - batch.group_max(batch.reward)
    positive = below >= batch.group_mean(below)
    room = batch.group_sum(positive.to(batch.reward.dtype))
    # Negatives of a group in the order of their draw; positives come before all.
    order = _draw(batch).masked_fill(positive, -1).argsort(stable=True)
    order = order[batch.group[order].argsort(stable=True)]
    place = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    sizes = torch.bincount(batch.group, minlength=batch.num_groups)
    rank = place - (sizes.cumsum(0) - sizes)[batch.group]  # within its group, positives included
    return rank < 2 * room


def exponential(batch: Batch, advantage: Tensor, *, temperature: float) -> Tensor:
    """Weigh each sample by ``exp(A_i / T)``, not normalised. Source: Yao et al. 2025 (RED-Weight, arXiv 2509.24203)."""
    return (advantage / temperature).clamp(max=MAX_EXPONENT).exp()


def adaptive_exponential(batch: Batch, advantage: Tensor, *, temperature_min: float) -> Tensor:
    """Weigh each sample by ``exp(A_i / T)`` if the update's tokens have a negative mean advantage, else by 1.

    T makes ``sum_i |y_i| A_i exp(A_i / T)`` zero, but is at least `temperature_min`. The sum grows with 1/T, so halving
    the interval up to ``1 / temperature_min`` finds it, or ends there; in float64, so that neither the order of samples
    nor their dtype moves it.

    Source: Chen et al. 2026 (arXiv 2606.20002); their code stops at a width of 0.05 in T, and at T = 100.
    """
    credit, tokens = advantage.detach().double().cpu(), batch.lengths.double().cpu()

    def token_sum(inverse: float) -> float:
        return float((tokens * credit * (credit * inverse).clamp(max=MAX_EXPONENT).exp()).sum())

    if token_sum(0.0) >= 0:
        return torch.ones_like(advantage)
    low, high = 0.0, 1 / temperature_min
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if token_sum(middle) < 0 else (low, middle)
    return (advantage * high).clamp(max=MAX_EXPONENT).exp()


def _draw(batch: Batch) -> Tensor:
    """Return a number in [0, 2^31) for each sample, drawn from its content: (S,) int64.

    Bits of the behaviour log-probabilities, each times an odd number of its place in the sample, added in integers
    (so in any order) and mixed.
    """
    bits = batch.logp_behaviour.to(torch.float32).view(torch.int32).long()
    lengths = torch.bincount(batch.sample, minlength=batch.num_samples)
    place = torch.arange(len(bits), device=bits.device) - (lengths.cumsum(0) - lengths)[batch.sample]
    mixed = _mix(_mix(bits + 0x9E3779B1 * (place + 1)) ^ bits)
    return _mix(batch.per_sample(mixed))


def _mix(x: Tensor) -> Tensor:
    """Spread the bits of int64 numbers over [0, 2^31).

    Source: the integer hash of T. Mueller, stackoverflow.com/a/12996028.
    """
    x = x & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return (x ^ (x >> 16)) & 0x7FFFFFFF
