"""Rotary frequencies, plain and stretched: from `config.json` to numbers, and from numbers to the table of angles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ratchet.core.errors import ModelError
from ratchet.core.shape import ModelShape, RopeScaling


def scaling_from_hf(rope: Mapping[str, Any], kind: str, context: int, where: str) -> RopeScaling | None:
    """Return how a configuration of this `kind` stretches frequencies; None if it does not.

    ``dynamic`` stretches beyond `max_position_embeddings` only, where no context of ours reaches, so it is None.

    Raises `ModelError` if a number is missing.
    """
    if kind in ("default", "dynamic"):
        return None
    try:
        if kind == "linear":
            return RopeScaling(kind, float(rope["factor"]))
        original = int(rope.get("original_max_position_embeddings") or context)
        if kind == "llama3":
            low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
            return RopeScaling(kind, float(rope["factor"]), original, low, high)
        factor = float(rope.get("factor") or context / original)
        return RopeScaling(
            kind,
            factor,
            original,
            beta_fast=float(rope.get("beta_fast") or 32),
            beta_slow=float(rope.get("beta_slow") or 1),
            attention=_attention(rope, factor),
            truncate=bool(rope.get("truncate", True)),
        )
    except KeyError as missing:
        raise ModelError(
            f'{where}: the rope parameters in config.json are of the kind "{kind}" and have no {missing}.'
        ) from None


def _attention(rope: Mapping[str, Any], factor: float) -> float:
    """Return what YaRN multiplies cosines and sines by. Source: Peng et al. 2023 (arXiv 2309.00071), eq. 22."""
    given, scale, over = (rope.get(key) for key in ("attention_factor", "mscale", "mscale_all_dim"))
    if given is not None:
        return float(given)

    def grown(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    return grown(float(scale)) / grown(float(over)) if scale and over else grown(1.0)


def frequencies(shape: ModelShape) -> Tensor:
    """Return the (D/2,) float32 angle by which each pair of channels turns per position."""
    size = shape.head_size
    plain = 1.0 / shape.rope_base ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    scaling = shape.scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    return _llama3(plain, scaling) if scaling.kind == "llama3" else _yarn(plain, scaling, shape)


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Return frequencies as Llama 3.1 stretches them: slow ones fully, fast ones not, those between in proportion."""
    turns = scaling.original * plain / (2 * math.pi)
    kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return (1 - kept) * plain / scaling.factor + kept * plain


def _yarn(plain: Tensor, scaling: RopeScaling, shape: ModelShape) -> Tensor:
    """Return frequencies stretched by parts. Source: Peng et al. 2023 (arXiv 2309.00071), eq. 17 to 20."""

    def channel(turns: float) -> float:
        """Return the pair of channels that turns so often over the original context."""
        ratio = scaling.original / (turns * 2 * math.pi)
        return shape.head_size * math.log(ratio) / (2 * math.log(shape.rope_base))

    low, high = channel(scaling.beta_fast), channel(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, shape.head_size - 1)
    width = high - low or 0.001  # a ramp needs some width
    stretched = ((torch.arange(len(plain), dtype=torch.float32) - low) / width).clamp(0, 1)
    return plain / scaling.factor * stretched + plain * (1 - stretched)


def rope_table(shape: ModelShape, positions: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the (positions, D) table of cosines (first half) and sines of the rotary embedding."""
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies(shape))
    table = torch.cat([angle.cos(), angle.sin()], dim=1).to(device)
    return table if shape.scaling is None else table * shape.scaling.attention


def upright_table(shape: ModelShape, positions: int) -> Tensor:
    """Return a table of the same form that turns nothing: for layers without rotary positions."""
    half = shape.head_size // 2
    return torch.cat([torch.ones(positions, half), torch.zeros(positions, half)], dim=1)
