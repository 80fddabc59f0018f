"""The gate before the first step: sampler and trainer must agree on log-probabilities, or the run does not start.

At step 0 both hold the same weights, so for every token the ratio is 1 and the KL 0 up to rounding. If they are not,
some setting reaches one side only; training would go on and fail later, without a word. The gate tries the usual
culprits and names the one that explains the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ratchet.core.errors import GateError
from ratchet.core.protocols import Sampling
from ratchet.core.rollout import Group
from ratchet.train.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far log-probabilities may differ by rounding alone, in nats."""

    largest: float
    mean: float

    def holds(self, ours: Tensor, theirs: Tensor) -> bool:
        """Return whether two columns of log-probabilities agree; NaN never does."""
        difference = (ours - theirs).abs()
        return not len(difference) or bool(difference.max() <= self.largest and difference.mean() <= self.mean)


TOLERANCE = {"float32": Tolerance(1e-4, 1e-5), "bfloat16": Tolerance(1.0, 0.02)}
"""float32: with native kernels 1e-6 at most was measured, with others 4e-5 at most and 1e-6 on average. bfloat16: the
sampler also rounds its cache, so that single tokens differ by up to 0.2, but 0.001 on average."""


def first_step_gate(
    trainer: Trainer, groups: Sequence[Group], sampling: Sampling, dtype: str, fingerprints: Mapping[int, str]
) -> dict[str, float]:
    """Return how well sampler and trainer agree; raise `GateError` naming the culprit if they do not."""
    check_versions(groups, fingerprints)
    ours, theirs = trainer.logprobs(groups)
    difference = (ours - theirs).abs()
    worst, mean = (float(difference.max()), float(difference.mean())) if len(difference) else (0.0, 0.0)
    allowed = TOLERANCE[dtype]
    if not allowed.holds(ours, theirs):
        raise GateError(
            f"Before the first step, sampler and trainer disagree over {len(difference)} tokens: log-probabilities "
            f"differ by {worst:.3g} at most (allowed {allowed.largest:g}) and {mean:.3g} on average (allowed "
            f"{allowed.mean:g}). {_culprit(trainer, groups, sampling, theirs, allowed)}"
        )
    return {"gate/logp_diff_max": worst, "gate/logp_diff_mean": mean}


def check_versions(groups: Sequence[Group], fingerprints: Mapping[int, str]) -> None:
    """Raise `GateError` if any turn was sampled by weights the trainer never produced."""
    for group in groups:
        for rollout in group.rollouts:
            for trajectory in rollout.trajectories:
                for turn in trajectory.turns if trajectory.trainable else ():
                    expected = fingerprints.get(turn.last_version)
                    if expected != turn.fingerprint:
                        raise GateError(
                            f"Step {group.step}: a turn says version {turn.last_version} sampled it, with weights "
                            f"{turn.fingerprint or 'unknown'}, but the trainer's version {turn.last_version} is "
                            f"{expected or 'unknown'}. The sampler holds weights that were never delivered to it: "
                            "check that every load reaches the engine."
                        )


def _culprit(trainer: Trainer, groups: Sequence[Group], sampling: Sampling, theirs: Tensor, allowed: Tolerance) -> str:
    """Say which setting explains the difference, by trying each."""
    for temperature in (1.0, 2.0 * sampling.temperature, 0.5 * sampling.temperature):
        if temperature != sampling.temperature:
            ours, _ = trainer.logprobs(groups, temperature=temperature)
            if allowed.holds(ours, theirs):
                return (
                    f"The sampler behaves as if its temperature were {temperature:g}, not {sampling.temperature:g}: "
                    "explore.temperature does not reach it, or reaches it twice."
                )
    ours, _ = trainer.logprobs(groups)
    difference = ours - theirs
    if (sampling.top_p < 1 or sampling.top_k > 0) and bool((difference < allowed.largest).all()):
        return (
            "The sampler reports log-probabilities of the distribution cut by top_p or top_k without the mass it kept."
        )
    if float(torch.quantile(difference.abs().float()[:1_000_000], 0.5)) < 0.05:
        return "The differences are small and everywhere: the sampler computes in a lower precision (policy.dtype)."
    return (
        "No single setting explains it: the sampler sees other tokens (chat template, an added begin token) or other "
        "weights than the trainer."
    )
