"""The gate before the first step refuses an engine that samples from something else, and names the culprit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from builders import tiny_policy
from torch import Tensor

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.core.errors import GateError
from ratchet.core.protocols import Completion, Engine, Outcome, PolicyHandle, Request, Sampling
from ratchet.core.rollout import Group, Score
from ratchet.core.task import Message, Split, Task
from ratchet.engines.build import local_engine
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.policy.policy import Policy
from ratchet.run.gate import check_versions, first_step_gate
from ratchet.train.trainer import Trainer

SAMPLING = Sampling(max_tokens=20, temperature=0.8, top_p=0.9)


class Echo:
    """An environment whose reward does not matter."""

    name = "echo"

    def num_tasks(self, split: Split) -> int | None:
        return None

    def task(self, split: Split, index: int) -> Task:
        return Task("echo", (Message("user", "abc"[index % 3]),))

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        return Outcome(Score(float((await policy.chat(task.prompt)).num_tokens)))


@dataclass
class Through:
    """An engine that changes what passes through it: the request, the completion, or the weights."""

    engine: Engine
    temperature: float = 1.0
    forgets_kept: bool = False
    noise: float = 0.0
    prefix: tuple[int, ...] = ()

    @property
    def version(self) -> int:
        return self.engine.version

    async def generate(self, request: Request) -> Completion:
        sampling = replace(request.sampling, temperature=request.sampling.temperature * self.temperature)
        prompt = np.concatenate([np.array(self.prefix, dtype=np.int32), request.prompt])
        done = await self.engine.generate(Request(prompt, sampling, request.seed))
        return replace(done, log_kept=done.log_kept[:0]) if self.forgets_kept else done

    def load(self, weights: Mapping[str, Tensor], version: int, fingerprint: str) -> None:
        generator = torch.Generator().manual_seed(0)
        noisy = {n: w + self.noise * torch.randn(w.shape, generator=generator) for n, w in weights.items()}
        self.engine.load(noisy, version, fingerprint)

    def close(self) -> None:
        self.engine.close()


def sampled(policy: Policy, sampling: Sampling, **changes: object) -> list[Group]:
    engine = Through(local_engine(policy, context=64, max_rows=16), **changes)
    engine.load(policy.weights(), 0, policy.fingerprint())
    limits = ExploreLimits(context=64, rollout_timeout_s=60)
    explorer = Explorer(Echo(), engine, policy.tokenizer, Split("train", 0), sampling, limits)

    async def gather() -> list[Group]:
        return [g async for g in explorer.groups(0, 0, 4, 3)]

    return asyncio.run(gather())


def gate(policy: Policy, groups: list[Group], sampling: Sampling) -> dict[str, float]:
    trainer = Trainer(
        policy,
        build_algorithm("grpo", {}),
        AlgorithmSection(),
        TrainSection(),
        seed=0,
        temperature=sampling.temperature,
    )
    return first_step_gate(trainer, groups, sampling, "float32", {0: policy.fingerprint()})


@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(20), Sampling(20, temperature=1.7, top_k=4)])
def test_a_sampler_and_a_trainer_that_agree_pass(sampling: Sampling) -> None:
    policy = tiny_policy()
    assert gate(policy, sampled(policy, sampling), sampling)["gate/logp_diff_max"] < 1e-4


def test_an_engine_with_another_temperature_is_refused_by_name() -> None:
    policy, sampling = tiny_policy(), Sampling(20, temperature=0.8)
    with pytest.raises(GateError, match=r"behaves as if its temperature were 1\.6, not 0\.8"):
        gate(policy, sampled(policy, sampling, temperature=2.0), sampling)
    with pytest.raises(GateError, match=r"behaves as if its temperature were 1, not 0\.8"):
        gate(policy, sampled(policy, sampling, temperature=1.25), sampling)


def test_an_engine_that_forgets_the_mass_it_kept_is_refused_by_name() -> None:
    policy = tiny_policy()
    with pytest.raises(GateError, match="cut by top_p or top_k without the mass it kept"):
        gate(policy, sampled(policy, SAMPLING, forgets_kept=True), SAMPLING)


def test_an_engine_that_computes_coarsely_is_told_so() -> None:
    policy, sampling = tiny_policy(), Sampling(20)
    with pytest.raises(GateError, match="lower precision"):
        gate(policy, sampled(policy, sampling, noise=1e-3), sampling)


def test_an_engine_that_holds_other_weights_or_sees_other_tokens_is_refused() -> None:
    policy, sampling = tiny_policy(), Sampling(20)
    for changes in ({"noise": 0.5}, {"prefix": (3, 4)}):
        with pytest.raises(GateError, match=r"sees other tokens .* or other weights"):
            gate(policy, sampled(policy, sampling, **changes), sampling)


def test_weights_the_trainer_never_produced_are_refused_before_anything_is_computed() -> None:
    policy = tiny_policy()
    groups = sampled(policy, SAMPLING)
    check_versions(groups, {0: policy.fingerprint()})
    with pytest.raises(GateError, match="weights that were never delivered"):
        check_versions(groups, {0: "another"})
    with pytest.raises(GateError, match="the trainer's version 0 is unknown"):
        check_versions(groups, {1: policy.fingerprint()})


def test_log_probabilities_that_are_not_numbers_do_not_pass() -> None:
    policy = tiny_policy()
    groups = sampled(policy, SAMPLING)
    groups[0].rollouts[0].trajectories[0].turns[0].logprobs[0] = np.nan
    with pytest.raises(GateError, match="disagree"):
        gate(policy, groups, SAMPLING)
