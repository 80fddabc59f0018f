"""Which version of the arithmetic runs where."""

from __future__ import annotations

from typing import Literal

import torch

from ratchet.kernels import native
from ratchet.kernels.reference import OPS, OPS_BF16, Ops


def ops_for(device: torch.device, dtype: Literal["float32", "bfloat16"]) -> Ops:
    """Return the fastest operations for a device; `dtype` is that of matrix products, weights stay float32."""
    bf16 = dtype == "bfloat16"
    if device.type == "cpu" and native.available():
        return native.ops(bf16)
    return OPS_BF16 if bf16 else OPS
