"""Choosing the runner for a policy and a device, and putting an engine around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ratchet.core.rollout import Tokens
from ratchet.engines.dense import DenseRunner
from ratchet.engines.hosted_runner import HostedRunner
from ratchet.engines.local import LocalEngine
from ratchet.engines.native_runner import NativeRunner
from ratchet.engines.runner import Runner
from ratchet.kernels import native
from ratchet.kernels.choose import ops_for
from ratchet.policy.policy import Policy

EngineName = Literal["ratchet", "transformers"]


@dataclass(frozen=True, slots=True)
class Converting:
    """A runner that gets weights in another form than it reads: an adapter to be merged, other names."""

    runner: Runner
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """See `engines.runner.Runner`."""
        self.runner.load(self.convert(weights))

    def prefill(self, prompts: Sequence[Tokens], copies: Sequence[int], room: int) -> tuple[list[list[int]], Tensor]:
        """See `engines.runner.Runner`."""
        return self.runner.prefill(prompts, copies, room)

    def step(self, rows: Sequence[int], tokens: Tensor) -> Tensor:
        """See `engines.runner.Runner`."""
        return self.runner.step(rows, tokens)

    def release(self, rows: Sequence[int]) -> None:
        """See `engines.runner.Runner`."""
        self.runner.release(rows)


def runner_for(policy: Policy, name: EngineName = "ratchet") -> Runner:
    """Return what decodes for this policy: ours where its form and `name` allow it, else `transformers`."""
    shape, device = policy.shape, policy.device
    if name == "transformers" or shape.counted:
        return Converting(HostedRunner(policy.hosted()), policy.stored_weights)
    if device.type == "cpu" and native.available() and native.runs_heads_of(shape.head_size) and shape.is_plain:
        runner: Runner = NativeRunner(shape, policy.dtype)
    else:
        runner = DenseRunner(shape, ops_for(device, policy.dtype), device)
    return runner if policy.origin.base is None else Converting(runner, policy.own_weights)


def local_engine(policy: Policy, *, context: int, max_rows: int, name: EngineName = "ratchet") -> LocalEngine:
    """Return an engine for this policy; weights are loaded by the synchroniser."""
    runner = runner_for(policy, name)
    return LocalEngine(runner, policy.tokenizer, context=context, max_rows=max_rows, device=policy.device)
