"""What an update's facts come to, derived once for all of it before any forward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ratchet.core.batch import Batch
from ratchet.train.packing import Packed


@dataclass(frozen=True, slots=True)
class Penalties:
    """Coefficients of the terms that every row shares, at one step."""

    kl: float
    """Divergence to the reference."""
    sampler_kl: float
    """Divergence of the sampler from the policy, over the sampler's own tokens."""
    entropy: float
    """Bonus."""

    def __bool__(self) -> bool:
        return bool(self.kl or self.sampler_kl or self.entropy)


@dataclass(frozen=True, slots=True, eq=False)
class Derived:
    """What an update's facts come to: derived once for all of it, then only looked up. Shapes: N tokens."""

    batch: Batch
    sampled: Tensor
    """(N,) log-probabilities as recorded by the sampler."""
    credit: Tensor
    """(N,) advantage."""
    coef: Tensor
    """(N,) coefficient of the row's loss."""
    plain: Tensor
    """(N,) coefficient of the shared terms: every sample counts the same."""
    numbers: tuple[int, ...]
    """Which samples of the step they are."""

    def of(self, one: Packed) -> Derived:
        """Return the part that a forward pass holds, in the order of its tokens."""
        members = torch.tensor(one.chosen, device=self.credit.device)
        at_tokens = self.batch.tokens_of(members)
        sampled, credit, coef, plain = (c[at_tokens] for c in (self.sampled, self.credit, self.coef, self.plain))
        numbers = tuple(self.numbers[i] for i in one.chosen)
        return Derived(self.batch.select(members), sampled, credit, coef, plain, numbers)
