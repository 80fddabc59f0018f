"""Credit and loss of the methods that learn to foresee the reward. Shapes: N tokens.

``V_t`` is `Batch.value`: what the critic expects before token t of its sample. The reward comes with the last token,
and behind it is nothing more to expect. Samples stand whole, so any selection of them gives each token the same credit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ratchet.algorithms.advantages import whitened
from ratchet.core.batch import Batch


def gae(batch: Batch, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimate of each token: (N,).

    ``A_t = d_t + gamma lam A_{t+1}`` with ``d_t = r_t + gamma V_{t+1} - V_t``; ``A`` and ``V`` are 0 behind the end.
    Source: Schulman et al. 2016 (GAE, arXiv 1506.02438).
    """
    assert batch.value is not None
    value, sample = batch.value, batch.sample
    reward = torch.zeros_like(value)
    reward[batch.lengths.long().cumsum(0) - 1] = batch.reward
    total = reward + gamma * _ahead(value, sample, 1) - value
    # After k rounds a token holds the sum of its next 2^k terms: no more rounds than the longest sample has bits.
    step, longest = 1, int(batch.lengths.max()) if batch.num_samples else 0
    while step < longest:
        total = total + (gamma * lam) ** step * _ahead(total, sample, step)
        step *= 2
    return total


def whitened_gae(batch: Batch, *, gamma: float, lam: float) -> Tensor:
    """`gae` normalised over the update's tokens: (N,)."""
    return whitened(batch, gae(batch, gamma=gamma, lam=lam))


def returns(batch: Batch, *, gamma: float, lam: float) -> Tensor:
    """What the critic should have said at each token: ``R_t = A_t + V_t``, with A before it is normalised: (N,)."""
    assert batch.value is not None
    return gae(batch, gamma=gamma, lam=lam) + batch.value


def clipped_square(value: Tensor, batch: Batch, returns: Tensor, *, clip: float) -> Tensor:
    """``max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) / 2`` of each token: (N,).

    A critic that has moved by `clip` towards its target learns no more from it in this step.
    Source: PPO's public implementations (OpenAI baselines, TRL, OpenRLHF, verl); the paper has no such clip.
    """
    assert batch.value is not None
    held = batch.value + (value - batch.value).clamp(-clip, clip)
    return torch.maximum((value - returns).square(), (held - returns).square()) / 2


def _ahead(x: Tensor, sample: Tensor, step: int) -> Tensor:
    """Return what stands `step` tokens further on in the same sample, 0 where it has ended: (N,)."""
    out = torch.zeros_like(x)
    out[:-step] = torch.where(sample[step:] == sample[:-step], x[step:], 0.0)
    return out
