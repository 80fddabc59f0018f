"""The gate before the first step: sampler and trainer must agree on log-probabilities, or the run does not start.

At step 0 both hold the same weights, so for every token the ratio is 1 and the KL 0 up to rounding. If they are not,
some setting reaches one side only; training would go on and fail later, without a word. The gate tries the usual
culprits and names the one that explains the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ratchet.core.errors import GateError
from ratchet.core.protocols import Sampling
from ratchet.core.rollout import Group
from ratchet.train.trainer import Trainer

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.25}
"""Largest difference of a log-probability that rounding explains. float32: measured below 1e-5 on models of 0.1 M to
10 M weights, with a factor 10 to spare; bfloat16: measured 0.02 to 0.05 on the same."""


def first_step_gate(
    trainer: Trainer, groups: Sequence[Group], sampling: Sampling, dtype: str, fingerprints: Mapping[int, str]
) -> dict[str, float]:
    """Return how well sampler and trainer agree; raise `GateError` naming the culprit if they do not."""
    check_versions(groups, fingerprints)
    ours, theirs = trainer.logprobs(groups)
    difference = (ours - theirs).abs()
    worst = float(difference.max()) if len(difference) else 0.0
    tolerance = TOLERANCE[dtype]
    if not worst <= tolerance:  # also catches NaN
        raise GateError(
            f"Before the first step, sampler and trainer disagree: log-probabilities differ by {worst:.3g} at most "
            f"(tolerance {tolerance:g}, mean {float(difference.mean()):.3g}) over {len(difference)} tokens. "
            f"{_culprit(trainer, groups, sampling, theirs, tolerance)}"
        )
    return {"gate/logp_diff_max": worst, "gate/logp_diff_mean": float(difference.mean())}


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


def _culprit(trainer: Trainer, groups: Sequence[Group], sampling: Sampling, theirs: Tensor, tolerance: float) -> str:
    """Say which setting explains the difference, by trying each."""
    for temperature in (1.0, 2.0 * sampling.temperature, 0.5 * sampling.temperature):
        if temperature != sampling.temperature:
            ours, _ = trainer.logprobs(groups, temperature=temperature)
            if float((ours - theirs).abs().max()) <= tolerance:
                return (
                    f"The sampler behaves as if its temperature were {temperature:g}, not {sampling.temperature:g}: "
                    "explore.temperature does not reach it, or reaches it twice."
                )
    ours, _ = trainer.logprobs(groups)
    difference = ours - theirs
    if (sampling.top_p < 1 or sampling.top_k > 0) and bool((difference < tolerance).all()):
        return (
            "The sampler reports log-probabilities of the distribution cut by top_p or top_k without the mass it kept."
        )
    if float(torch.quantile(difference.abs().float()[:1_000_000], 0.5)) < 0.05:
        return "The differences are small and everywhere: the sampler computes in a lower precision (policy.dtype)."
    return (
        "No single setting explains it: the sampler sees other tokens (chat template, an added begin token) or other "
        "weights than the trainer."
    )
