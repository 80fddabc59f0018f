"""Which version of the arithmetic runs where."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from ratchet.kernels import native, reference
from ratchet.kernels.reference import OPS, OPS_BF16, Ops

Attention = Literal["sdpa", "flex"]


def ops_for(device: torch.device, dtype: Literal["float32", "bfloat16"], attention: Attention = "sdpa") -> Ops:
    """Return the fastest operations for a device; `dtype` is that of matrix products, weights stay float32.

    `attention` says what computes it on a GPU.
    """
    bf16 = dtype == "bfloat16"
    if device.type == "cpu" and native.available():
        return native.ops(bf16)
    ops = OPS_BF16 if bf16 else OPS
    if device.type == "cuda":
        return replace(ops, attention=partial(reference.attention, bf16=bf16, work=_work(attention)))
    return ops


def _work(attention: Attention):  # type: ignore[no-untyped-def]
    if attention == "sdpa":
        return reference.attend
    from ratchet.kernels import flex  # which takes a second to import

    return flex.attend
