"""From sample weights to one coefficient per token; the loss is ``sum(coef * token_loss)``.

Every denominator is a count over the whole update, never over a micro-batch. Shapes: N tokens, S samples.
"""

from __future__ import annotations

from torch import Tensor

from ratchet.core.batch import Batch


def token_mean(batch: Batch, weight: Tensor) -> Tensor:
    """Every token counts the same: ``w_i / N``. Long answers weigh more. Source: DAPO (arXiv 2503.14476), eq. 8."""
    return batch.per_token(weight) / len(batch.sample)


def sequence_mean(batch: Batch, weight: Tensor) -> Tensor:
    """Mean over tokens, then over samples: ``w_i / (S |y_i|)``. Source: GRPO (arXiv 2402.03300), eq. 3."""
    return batch.per_token(weight / (batch.lengths * batch.num_samples))


def constant_length(batch: Batch, weight: Tensor, *, length: int) -> Tensor:
    """Sum over tokens over a constant: ``w_i / (S L)``. Source: Dr.GRPO (arXiv 2503.20783), section 3.2."""
    return batch.per_token(weight) / (length * batch.num_samples)


def sequence_sum(batch: Batch, weight: Tensor) -> Tensor:
    """Sum over tokens, mean over samples: ``w_i / S``. A whole sample is one action."""
    return batch.per_token(weight) / batch.num_samples
