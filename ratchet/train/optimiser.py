"""The policy's optimiser: AdamW, with its moments in full or in eight bits."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ratchet.config.learning import TrainSection
from ratchet.core.errors import ConfigError


def make_optimiser(parameters: Iterable[nn.Parameter], config: TrainSection) -> torch.optim.Optimizer:
    """Return AdamW over some parameters, fused into one kernel. Its learning rate is set at each step.

    Raises `ConfigError` where moments in eight bits cannot be had.
    """
    chosen = list(parameters)
    if config.optimiser == "adamw":
        return torch.optim.AdamW(chosen, lr=0.0, betas=config.betas, weight_decay=config.weight_decay, fused=True)
    try:
        import bitsandbytes
    except ImportError:
        raise ConfigError(
            'train.optimiser = "adamw_8bit" needs the library bitsandbytes. pip install bitsandbytes, or set '
            'train.optimiser = "adamw".'
        ) from None
    if any(p.device.type != "cuda" for p in chosen):
        raise ConfigError('train.optimiser = "adamw_8bit" needs a GPU. Set train.optimiser = "adamw".')
    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        chosen, lr=0.0, betas=config.betas, weight_decay=config.weight_decay
    )
    return made
