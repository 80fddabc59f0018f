"""Estimates of a KL divergence from the sampled token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]


def estimate(kind: Estimator, d: Tensor) -> Tensor:
    """Estimate ``KL(p || q)`` at tokens drawn from p, from ``d = log q - log p`` of each: (N,).

    ``k1 = -d`` is unbiased and noisy; ``k2 = d^2 / 2`` is biased and calm; ``k3 = exp(d) - 1 - d`` is unbiased, never
    negative, and explodes where q is far above p. Source: Schulman 2020, Approximating KL divergence.
    """
    if kind == "k1":
        return -d
    return d.square() / 2 if kind == "k2" else torch.expm1(d) - d
