"""Importance weights that correct a batch for what sampled it; usable with every row. Shapes: N tokens.

The trainer measures the log-probabilities of the batch under the weights at the start of the step and gives them to
the row as its behaviour; what is left, the ratio between those weights and the sampler, multiplies each token's
coefficient here. So a row's own ratio and clip see the updates of this step alone, and the correction sees staleness
and the difference between two implementations of the same model.

Source: Hilton et al. 2021 (decoupled PPO, arXiv 2110.00641); Yao et al. 2025 (truncated importance sampling between
sampler and trainer).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ratchet.algorithms.losses import MAX_LOG_RATIO
from ratchet.core.batch import Batch

Ratio = Literal["token", "sequence", "geometric"]


def importance(logp: Tensor, batch: Batch, *, ratio: Ratio) -> Tensor:
    """Return the ratio of the policy behind `logp` (N,) to the sampler at each token: (N,), detached.

    ``token``: of the token itself. ``sequence``: the product over its sample. ``geometric``: that product's
    ``1/|y_i|``-th power.
    """
    difference = (logp - batch.logp_behaviour).detach()
    if ratio != "token":
        total = batch.per_sample(difference)
        difference = batch.per_token(total if ratio == "sequence" else total / batch.lengths)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def truncated(weight: Tensor, *, high: float) -> Tensor:
    """Return the weights, at most `high`. Source: Ionides 2008 (truncated importance sampling)."""
    return weight.clamp(max=high)


def masked(weight: Tensor, *, low: float, high: float) -> Tensor:
    """Return the weights inside [low, high], and 0 in place of the others."""
    return weight * ((weight >= low) & (weight <= high))
