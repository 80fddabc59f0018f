"""Which samples of an update are kept, and their advantage: by the algorithm, but for those that bring their own.

A success that is shown once more comes without the attempts it was sampled with. It keeps the advantage it had among
them; the algorithm sees the fresh samples alone, so a baseline or a scale over the batch is theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm
from ratchet.core.batch import Batch
from ratchet.core.rollout import Positive
from ratchet.train.experience import Sample, batch_of, flatten


def kept_samples(algorithm: Algorithm, batch: Batch) -> Tensor:
    """Return the numbers of the samples that are trained on."""
    if batch.given is None:
        return algorithm.keep(batch).nonzero()[:, 0]
    keep, fresh = ~batch.given.isnan(), batch.given.isnan().nonzero()[:, 0]
    if len(fresh):
        keep[fresh] = algorithm.keep(batch.select(fresh))
    return keep.nonzero()[:, 0]


def credit_of(algorithm: Algorithm, batch: Batch) -> Tensor:
    """Return the advantage of kept samples: (S,), or (N,) where the algorithm gives one to tokens."""
    if batch.given is None:
        return algorithm.advantage(batch)
    credit, fresh = batch.given.clone(), batch.given.isnan().nonzero()[:, 0]
    if len(fresh):
        credit[fresh] = algorithm.advantage(batch.select(fresh))
    return credit


def shown_again(positives: Sequence[Positive], algorithm: Algorithm, *, first: int) -> list[Sample]:
    """Return the samples of successes, each a group from number `first` on, with the advantage it had in its own."""
    found: list[Sample] = []
    for number, positive in enumerate(positives, first):
        samples = flatten([positive.group])
        batch = batch_of(samples, torch.device("cpu"))
        kept = algorithm.keep(batch).nonzero()[:, 0]
        credit = algorithm.advantage(batch.select(kept)).tolist()
        found += [
            replace(samples[i], group=number, given=value)
            for i, value in zip(kept.tolist(), credit, strict=True)
            if samples[i].attempt == positive.rollout.attempt
        ]
    return found
