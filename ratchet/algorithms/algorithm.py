"""What an algorithm is: a frozen record of pure functions, composed per row in `algorithms.table`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ratchet.core.batch import Batch

Need = Literal["greedy", "teacher"]
"""Facts that only some algorithms ask for: a greedy attempt at each prompt (`Batch.greedy_reward`), a teacher's
log-probabilities (`Batch.logp_teacher`)."""


@dataclass(frozen=True, slots=True)
class Critic:
    """How a critic is taught. It is a copy of the starting policy with one number per token in place of logits."""

    returns: Callable[[Batch], Tensor]
    """(N,) float: what the critic should have said, from the batch with `Batch.value` filled."""
    loss: Callable[[Tensor, Batch, Tensor], Tensor]
    """Loss of each token (N,) from what the critic says now (N,), the batch, and the returns (N,)."""
    lr: float
    """Learning rate of its own AdamW."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """Five functions that turn facts into a gradient.

    The loss of an update is ``sum(coef * token_loss)`` with ``coef = reduce(batch, weight)`` fixed once for the whole
    update, so that neither micro-batches, packing nor the number of workers can change the gradient.
    """

    keep: Callable[[Batch], Tensor]
    """(S,) bool: which samples are trained on; applied before anything else is derived."""
    advantage: Callable[[Batch], Tensor]
    """(S,) or (N,) float: credit."""
    weight: Callable[[Batch, Tensor], Tensor]
    """(S,) float: how much each sample counts, given the advantage."""
    loss: Callable[[Tensor, Batch, Tensor], TokenLoss]
    """Loss of each token from its log-probability (N,), its batch, and its advantage (N,)."""
    reduce: Callable[[Batch, Tensor], Tensor]
    """(N,) float: coefficient of each token, given the weights (S,)."""
    min_group: int = 1
    """Fewest samples per prompt for which the baseline is defined."""
    silent_at_zero: bool = True
    """Whether a sample of zero advantage has zero gradient, so that it need not be trained on at all."""
    sampled: bool = True
    """Whether the loss needs behaviour log-probabilities; False for supervised fine-tuning."""
    needs: frozenset[Need] = frozenset()
    """Optional columns of the batch that must be filled before anything is derived."""
    critic: Critic | None = None
    """Set where the advantage reads `Batch.value`."""
    reset_optimiser: bool = False
    """Whether the optimiser forgets its moments each time the sampler gets new weights."""


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """What a loss function returns."""

    value: Tensor
    """(N,) loss of each token; carries the gradient."""
    clipped_low: Tensor
    """(N,) bool: tokens whose gradient was cut because their probability fell too far."""
    clipped_high: Tensor
    """(N,) bool: tokens whose gradient was cut because their probability rose too far."""


def keep_all(batch: Batch) -> Tensor:
    """Keep every sample."""
    return torch.ones(batch.num_samples, dtype=torch.bool, device=batch.reward.device)


def weigh_equally(batch: Batch, advantage: Tensor) -> Tensor:
    """Every sample counts 1."""
    return batch.reward.new_ones(batch.num_samples)
