"""What the tests of the rows share: the loss as the trainer makes it, random batches, options to try each row with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace

import torch
from builders import batch
from hypothesis import strategies as st
from torch import Tensor

from ratchet.algorithms.algorithm import Algorithm
from ratchet.algorithms.table import ALGORITHMS
from ratchet.core.batch import Batch

ROWS = sorted(ALGORITHMS)
SEEDS = st.integers(0, 10_000)

OPTIONS: Mapping[str, Sequence[Mapping[str, object]]] = {
    "grpo": [{}, {"std": False, "clip_low": 0.1, "clip_high": 0.28}],
    "dr_grpo": [{}, {"length": 7, "clip_high": 0.4}],
    "reinforce": [{}, {"std": True}],
    "sft": [{}],
    "dapo": [{}, {"clip_low": 0.1, "clip_high": 0.3}, {"overlong_length": 4, "overlong_buffer": 3}],
    "gspo": [{}, {"clip_low": 0.1, "clip_high": 0.2}],
    "gmpo": [{}, {"log_clip_low": 0.1, "log_clip_high": 0.2}],
    "cispo": [{}, {"cap_low": 0.9, "cap_high": 1.1}],
    "sapo": [{}, {"gate_positive": 3.0, "gate_negative": 0.5}],
    "rloo": [{}],
    "remax": [{}],
    "reinforce_pp": [{}, {"clip_low": 0.1, "clip_high": 0.3}],
    "reinforce_pp_baseline": [{}, {"clip_low": 0.1, "clip_high": 0.3}],
    "ppo": [{}, {"whiten": False, "gamma": 0.9, "lam": 0.5, "clip_high": 0.3}, {"whiten": False, "lam": 0.0}],
    "rec_one_side": [{}, {"importance": True, "clip_low": 0.6, "clip_high": 2.0}],
    "rec_two_side": [{}, {"importance": True, "clip_low": 0.3}],
    "rec_ring": [{}, {"importance": True, "clip_low": 0.1, "clip_high": 0.1, "outer_low": 0.3, "outer_high": 0.3}],
    "red_drop": [{}],
    "red_weight": [{}, {"temperature": 0.3}],
    "red_adaptive": [{}, {"temperature_min": 0.01, "clip_low": 0.6, "clip_high": 2.0}, {"temperature_min": 50.0}],
    "topr": [{}, {"sequence": False}],
    "asymre": [{}, {"baseline_shift": 0.5}, {"baseline_shift": 0.0}],
    "opmd_kimi": [{}, {"penalty": 2.0}],
    "opmd_pairwise": [{}, {"tau": 4.0}],
    "min_opmd": [{}, {"tau": 0.3, "soft_baseline": True}],
    "k1_5": [{}, {"tau": 2.0}],
    "k2_5": [{}, {"log_clip_low": 0.5, "log_clip_high": 0.1, "tau": 1.0}],
    "distill": [{}, {"reward_coef": 0.7}],
}
CASES = [(row, options) for row in ROWS for options in OPTIONS[row]]


def loss_of(algorithm: Algorithm, logp: Tensor, b: Batch) -> Tensor:
    """Return the loss as the trainer makes it: everything derived once for the whole batch."""
    kept = algorithm.keep(b).nonzero()[:, 0]
    logp, b = logp[b.tokens_of(kept)], b.select(kept)
    credit = algorithm.advantage(b)
    coef = algorithm.reduce(b, algorithm.weight(b, credit))
    return (coef * algorithm.loss(logp, b, b.per_token(credit)).value).sum()


def gradient_of(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    leaf = at.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    return gradient


def random_batch(seed: int, spread: float) -> tuple[Batch, Tensor]:
    """Return a batch with every column filled, and log-probabilities that have moved by `spread`."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randn(n, generator=generator, dtype=torch.float64)  # noqa: E731
    samples = 3 + seed % 7
    lengths = [1 + int(torch.randint(0, 5, (1,), generator=generator)) for _ in range(samples)]
    groups = sorted([0, 0, *(int(torch.randint(0, 3, (1,), generator=generator)) for _ in range(samples - 2))])
    numbers = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    behaviour = -2 + 0.5 * draw(sum(lengths))
    b = batch(lengths, [numbers[g] for g in groups], draw(samples).tolist(), behaviour=behaviour.tolist())
    logp = behaviour + spread * draw(sum(lengths))
    return replace(
        b, greedy_reward=draw(3)[b.group], value=draw(sum(lengths)), logp_teacher=-2 + draw(sum(lengths))
    ), logp


def as_expected(b: Batch, reward: float) -> Batch:
    """Return the batch with this reward everywhere, foreseen by attempt and critic; the teacher is the sampler."""
    return replace(
        b,
        reward=torch.full_like(b.reward, reward),
        greedy_reward=torch.full_like(b.reward, reward),
        value=torch.full_like(b.logp_behaviour, reward),
        logp_teacher=b.logp_behaviour,
    )


def in_dtype(b: Batch, dtype: torch.dtype) -> Batch:
    """Return the batch with its numbers in another precision."""
    columns = {f.name: getattr(b, f.name) for f in fields(b)}
    return replace(b, **{n: x.to(dtype) for n, x in columns.items() if x is not None and x.is_floating_point()})
