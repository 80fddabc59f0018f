"""A plugin of SGLang that lets its wheel for GPUs compute on a CPU without the kernels of its CPU build.

Runs in SGLang's processes, never in the tests', with `TRITON_INTERPRET=1`: Triton then runs SGLang's own kernels in
NumPy. Three things have no such way and are mended here. Nothing that a test asks about is among them: sampling,
log-probabilities, stopping, weights, versions and aborting are SGLang's.
"""

from __future__ import annotations

import sys
import types
from typing import Any


def apply() -> None:
    """Called by SGLang in each of its processes, before anything is made."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    # Imported for a kernel of positions that no model calls here: PyTorch's is taken.
    sys.modules["vllm._custom_ops"] = ops = types.ModuleType("vllm._custom_ops")
    ops.rotary_embedding = None  # type: ignore[attr-defined]
    # Matrix products that do not depend on the batch are written for GPUs; here a product's last bits may depend on it.
    runner = "sglang.srt.model_executor.model_runner.ModelRunner.maybe_enable_batch_invariant_mode"
    HookRegistry.register(runner, lambda self: None, HookType.REPLACE)
    HookRegistry.register("sglang.srt.layers.sampler.murmur_hash32", murmur_hash32, HookType.REPLACE)


def murmur_hash32(seed: Any, positions: Any, columns: Any) -> Any:
    """Return SGLang's hash of (n,) seeds and positions for (m,) columns as (n, m) uint32, by its kernel for GPUs."""
    import torch
    import triton
    from sglang.kernels.ops.sampling.murmur_hash import murmur_hash32_kernel

    n, m, block = len(seed), len(columns), 1024
    hashed = torch.empty((n, m), dtype=torch.uint32)
    murmur_hash32_kernel[n, triton.cdiv(m, block)](seed, positions, columns, hashed, n, m, BLOCK_SIZE=block)
    return hashed
