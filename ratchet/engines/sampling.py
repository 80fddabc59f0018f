"""Drawing tokens from logits, with randomness that belongs to each request alone. Shapes: B rows, V vocabulary."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SMALL = 4096
"""Up to so many tokens, a float32 sum is exact enough to draw from."""
BLOCK = 512
"""Tokens whose mass is summed before the block that is hit is looked into."""
_BELOW_ONE = 1.0 - 2 * torch.finfo(torch.float64).eps
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: the increment of splitmix64."""


def uniforms(seeds: NDArray[np.uint64], position: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return one number in [0, 1) for each (seed, position): the same wherever and in whatever batch it is asked.

    Source: splitmix64, Steele et al. 2014 (Fast splittable pseudorandom number generators), its output function on a
    counter.
    """
    with np.errstate(over="ignore"):
        z = seeds + (position.astype(np.uint64) + np.uint64(1)) * GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def draw(
    logits: Tensor, uniform: Tensor, temperature: Tensor, top_p: Tensor, top_k: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens (B,), their log-probabilities (B,) and the log of the mass that was kept (B,).

    The log-probability is that of the distribution really drawn from: tempered, cut to the top k, then to the
    smallest set whose mass reaches top p, renormalised. Temperature 0 takes the likeliest token and reports its
    log-probability at temperature 1.
    """
    greedy = temperature == 0
    if bool((temperature == 1).all()):
        logp = logits.log_softmax(-1)
    else:
        logp = (logits / torch.where(greedy, 1.0, temperature)[:, None]).log_softmax(-1)
    if bool((top_p >= 1).all()) and bool((top_k == 0).all()):
        log_kept = torch.zeros(len(logp), device=logp.device)
        token = _inverse(logp.exp(), uniform)
    else:
        kept = _kept(logp, top_p, top_k)
        probs = torch.where(kept, logp.exp(), 0.0)
        # Exactly 0 for rows that cut nothing: what shares a batch must not show in what is recorded.
        log_kept = torch.where((top_p < 1) | (top_k > 0), probs.sum(-1).log(), 0.0)
        token = _inverse(probs, uniform)
    if bool(greedy.any()):
        token = torch.where(greedy, logits.argmax(-1), token)
        log_kept = torch.where(greedy, 0.0, log_kept)
    return token, logp.gather(1, token[:, None])[:, 0] - log_kept, log_kept


def draw_plain(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens (B,) and their log-probabilities (B,) where nothing is tempered or cut.

    Equal to `draw` up to rounding, without asking the device what the settings are, and with a third of its passes over
    a large vocabulary: the cumulative distribution is made of blocks first, and inside the one block that is hit.
    """
    rows, vocab = logits.shape
    if vocab <= SMALL:
        logp = logits.log_softmax(-1)
        token = _inverse(logp.exp(), uniform)
        return token, logp.gather(1, token[:, None])[:, 0]
    most = logits.amax(-1, keepdim=True)
    mass = F.pad((logits - most).exp_(), (0, -vocab % BLOCK)).view(rows, -1, BLOCK)
    ends = mass.sum(-1, dtype=torch.float64).cumsum(-1)
    target = uniform.clamp(max=_BELOW_ONE)[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, target, right=True).clamp_(max=ends.shape[1] - 1)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = mass[torch.arange(rows, device=logits.device), block[:, 0]].double().cumsum(-1)
    # Sums in another order may differ in the last bit: the target must stay below what the block holds.
    rest = torch.minimum((target - before).clamp(min=0.0), inside[:, -1:] * _BELOW_ONE)
    token = block[:, 0] * BLOCK + torch.searchsorted(inside, rest, right=True)[:, 0]
    return token, logits.gather(1, token[:, None])[:, 0] - most[:, 0] - ends[:, -1].log().float()


def _inverse(probs: Tensor, uniform: Tensor) -> Tensor:
    """Draw by inverting the cumulative distribution; a token of probability 0 is never drawn."""
    # Over a large vocabulary a float32 sum is off by more than a rare token's probability.
    cumulative = (probs if probs.shape[-1] <= SMALL else probs.double()).cumsum(-1)
    below_one = 1.0 - 2 * torch.finfo(cumulative.dtype).eps  # so that rounding never lifts the target to the total
    target = uniform.clamp(max=below_one).to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True)[:, 0]


def _kept(logp: Tensor, top_p: Tensor, top_k: Tensor) -> Tensor:
    """Return (B, V) bool: the tokens that survive top-k and top-p. Ties are broken by token number."""
    ranked, order = logp.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logp.shape[-1], device=logp.device)
    keep = (rank < top_k[:, None]) | (top_k[:, None] == 0)
    probs = torch.where(keep, ranked.exp(), 0.0)
    probs = probs / probs.sum(-1, keepdim=True)
    before = probs.cumsum(-1) - probs
    keep &= (before < top_p[:, None]) | (top_p[:, None] >= 1)
    return torch.zeros_like(keep).scatter(1, order, keep)
