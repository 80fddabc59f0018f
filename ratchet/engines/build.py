"""Choosing the runner for a device and putting an engine around it."""

from __future__ import annotations

from ratchet.engines.dense import DenseRunner
from ratchet.engines.local import LocalEngine
from ratchet.engines.native_runner import NativeRunner
from ratchet.kernels import native
from ratchet.policy.policy import Policy


def local_engine(policy: Policy, *, context: int, max_rows: int) -> LocalEngine:
    """Return an engine for this policy's shape; weights are loaded by the synchroniser."""
    shape, device = policy.shape, policy.device
    fast = device.type == "cpu" and native.available() and native.runs_heads_of(shape.head_size)
    runner = NativeRunner(shape, policy.dtype) if fast else DenseRunner(shape, policy.decoder.ops, device)
    return LocalEngine(runner, policy.tokenizer, context=context, max_rows=max_rows, device=policy.device)
