"""Filling the optional columns of a batch, once per step, before anything is derived from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.correction import importance, masked, truncated
from ratchet.config.learning import AlgorithmSection
from ratchet.core.batch import Batch
from ratchet.policy.policy import FrozenNetwork
from ratchet.train.critic import ValueModel
from ratchet.train.experience import Sample
from ratchet.train.passes import Passes


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """A step's batch with every column its algorithm needs."""

    batch: Batch
    """With a correction, its `logp_behaviour` is that of the weights at the start of the step."""
    sampled: Tensor
    """(N,) log-probabilities as the sampler recorded them."""
    correction: Tensor | None
    """(N,) what each token's coefficient is multiplied by; None without a correction."""


def annotated(
    samples: Sequence[Sample],
    batch: Batch,
    passes: Passes,
    algorithm: Algorithm,
    method: AlgorithmSection,
    policy: FrozenNetwork,
    teacher: FrozenNetwork | None,
    critic: ValueModel | None,
) -> Annotated:
    """Return the batch of a step's samples with the columns of teacher, critic and correction."""
    if "teacher" in algorithm.needs:
        assert teacher is not None
        batch = replace(batch, logp_teacher=passes.logprobs(teacher, samples, kept=False))
    if critic is not None:
        batch = replace(batch, value=critic.values(samples))
    sampled = batch.logp_behaviour
    if method.correction == "none" or not len(sampled):
        return Annotated(batch, sampled, None)
    start = passes.logprobs(policy, samples)
    weight = importance(start, batch, ratio=method.correction)
    if method.correction_mode == "truncate":
        weight = truncated(weight, high=method.correction_high)
    else:
        weight = masked(weight, low=method.correction_low, high=method.correction_high)
    return Annotated(replace(batch, logp_behaviour=start), sampled, weight)


def correction_metrics(weight: Tensor | None) -> dict[str, float]:
    """Return ``correction/*``: mean weight, share of tokens masked, and effective sample size as a share."""
    if weight is None:
        return {}
    w = weight.double()
    square = float((w * w).sum())
    return {
        "correction/weight/mean": float(w.mean()),
        "correction/masked_frac": float((w == 0).double().mean()),
        "correction/ess_frac": float(w.sum()) ** 2 / (len(w) * square) if square else 0.0,
    }
