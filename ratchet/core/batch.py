"""The algorithm's view of a training step: flat columns of numbers. The only torch file in `core`.

Legend: N trainable tokens, S samples, P groups (prompts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one update. Tokens of a sample stand together, samples in order; every sample has tokens."""

    sample: Tensor
    """(N,) int64: the sample each token belongs to."""
    group: Tensor
    """(S,) int64: the group each sample belongs to, 0 .. P-1."""
    reward: Tensor
    """(S,) float32."""
    version: Tensor
    """(S,) int64: version of the weights that sampled it; -1 for demonstrations."""
    logp_behaviour: Tensor
    """(N,) float32: log-probability of each token when it was sampled; 0 for demonstrations."""
    greedy_reward: Tensor | None = None
    """(S,) float32: reward of the greedy answer to the sample's prompt, for algorithms that need "greedy"."""
    value: Tensor | None = None
    """(N,) float32: the critic's estimate of the reward before each token, for algorithms with a critic."""
    logp_teacher: Tensor | None = None
    """(N,) float32: log-probability under the teacher, for algorithms that need "teacher"."""

    given: Tensor | None = None
    """(S,) float32: the advantage of samples that are shown once more and keep it; NaN where it is to be derived."""

    @property
    def num_samples(self) -> int:
        return len(self.group)

    @property
    def num_groups(self) -> int:
        return int(self.group.max()) + 1 if len(self.group) else 0

    @property
    def lengths(self) -> Tensor:
        """(S,) number of tokens of each sample, as float32."""
        return self.per_sample(torch.ones_like(self.logp_behaviour))

    def per_sample(self, x: Tensor) -> Tensor:
        """Sum a (N,) column over each sample: (S,)."""
        return x.new_zeros(self.num_samples).index_add(0, self.sample, x)

    def per_token(self, x: Tensor) -> Tensor:
        """Give every token its sample's value of a (S,) column; a (N,) column passes unchanged."""
        # When N == S every sample has exactly one token, in order, and both readings agree.
        return x[self.sample] if len(x) == self.num_samples else x

    def group_sum(self, x: Tensor) -> Tensor:
        """Sum a (S,) column over its group, given back to each member: (S,)."""
        return x.new_zeros(self.num_groups).index_add(0, self.group, x)[self.group]

    @property
    def group_size(self) -> Tensor:
        """(S,) number of samples in each sample's group, as float32."""
        return self.group_sum(torch.ones_like(self.reward))

    def group_mean(self, x: Tensor) -> Tensor:
        """Mean of a (S,) column over its group, given back to each member: (S,)."""
        return self.group_sum(x) / self.group_size

    def group_max(self, x: Tensor) -> Tensor:
        """Largest value of a (S,) column in its group, given back to each member: (S,)."""
        lowest = x.new_full((self.num_groups,), -torch.inf)
        return lowest.scatter_reduce(0, self.group, x, "amax")[self.group]

    def select(self, samples: Tensor) -> Batch:
        """Return the batch of some samples, in the order given. Groups keep their numbers."""
        at = self.tokens_of(samples)
        renumbered = torch.repeat_interleave(
            torch.arange(len(samples), device=samples.device), self.lengths.long()[samples]
        )
        return replace(
            self,
            sample=renumbered,
            group=self.group[samples],
            reward=self.reward[samples],
            version=self.version[samples],
            logp_behaviour=self.logp_behaviour[at],
            greedy_reward=None if self.greedy_reward is None else self.greedy_reward[samples],
            value=None if self.value is None else self.value[at],
            logp_teacher=None if self.logp_teacher is None else self.logp_teacher[at],
            given=None if self.given is None else self.given[samples],
        )

    def tokens_of(self, samples: Tensor) -> Tensor:
        """Return the places of the tokens of some samples, sample by sample: (N',)."""
        length = torch.bincount(self.sample, minlength=self.num_samples)
        first = length.cumsum(0) - length
        counts = length[samples]
        before = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        return (
            torch.repeat_interleave(first[samples], counts) + torch.arange(len(before), device=before.device) - before
        )
