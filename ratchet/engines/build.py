"""Choosing the runner for a device and putting an engine around it."""

from __future__ import annotations

import torch

from ratchet.engines.dense import DenseRunner
from ratchet.engines.local import LocalEngine
from ratchet.policy.policy import Policy


def local_engine(policy: Policy, *, context: int, max_rows: int) -> LocalEngine:
    """Return an engine for this policy's shape; weights are loaded by the synchroniser."""
    runner = DenseRunner(policy.shape, policy.decoder.ops, policy.device)
    return LocalEngine(runner, policy.tokenizer, context=context, max_rows=max_rows, device=policy.device)
