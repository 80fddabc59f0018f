"""From groups to samples: one branch of a rollout flattened to the tokens a trainer needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ratchet.core.batch import Batch
from ratchet.core.rollout import Differences, Floats, Group, Rollout, Tokens, Trajectory, Turn


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A prompt and what follows it, with the tokens that are trained on marked."""

    group: int
    """Number of its group within the step."""
    reward: float
    version: int
    """Version of the weights that sampled its first token; -1 for a demonstration."""
    prompt: Tokens
    """(P,) what stands before the first output token; samples of a group share it."""
    tokens: Tokens
    """(T,) everything after the prompt; the last one is always trained on."""
    trained: NDArray[np.bool_]
    """(T,) which tokens the policy sampled; the others were inserted by the environment."""
    logprobs: Floats
    """(T,) log-probability of the sampled tokens; 0 elsewhere and for demonstrations."""
    log_kept: Floats
    """(T,) log of the mass that top-k and top-p left; 0 elsewhere."""
    greedy_reward: float | None = None
    """Reward of the greedy attempt at the same prompt, where there was one."""
    attempt: int = 0
    """Number of its rollout within the group."""
    given: float | None = None
    """The advantage it has had in its own group, where it is shown once more alone."""

    @property
    def num_trained(self) -> int:
        return int(self.trained.sum())


def flatten(groups: Sequence[Group]) -> list[Sample]:
    """Return the trainable samples of the usable rollouts, group by group.

    Turns that extend their predecessor's tokens merge into one sample; a turn that does not begins a new one.
    """
    return [
        replace(s, greedy_reward=_greedy_reward(group))
        for number, group in enumerate(groups)
        for rollout in group.usable
        for s in _samples(rollout, number)
    ]


def _greedy_reward(group: Group) -> float | None:
    return None if group.greedy is None or group.greedy.score is None else group.greedy.score.value


def _samples(rollout: Rollout, group: int) -> list[Sample]:
    assert rollout.score is not None
    reward = rollout.score.value
    trajectories = [t for t in rollout.trajectories if t.trainable]
    return [replace(s, reward=reward, attempt=rollout.attempt) for t in trajectories for s in _branches(t, group)]


def _branches(trajectory: Trajectory, group: int) -> list[Sample]:
    done: list[Sample] = []
    for turn in trajectory.turns:
        if not len(turn.output):
            continue
        if done and _extends(done[-1], turn):
            done[-1] = _merged(done[-1], turn)
        else:
            done.append(_sample(turn, group))
    return done


def _extends(sample: Sample, turn: Turn) -> bool:
    head = len(sample.prompt)
    seen = head + len(sample.tokens)
    return (
        len(turn.prompt) >= seen
        and np.array_equal(turn.prompt[:head], sample.prompt)
        and np.array_equal(turn.prompt[head:seen], sample.tokens)
    )


def _sample(turn: Turn, group: int) -> Sample:
    n = len(turn.output)
    return Sample(
        group=group,
        reward=0.0,
        version=turn.version,
        prompt=turn.prompt,
        tokens=turn.output,
        trained=np.ones(n, dtype=bool),
        logprobs=turn.logprobs if len(turn.logprobs) else np.zeros(n, dtype=np.float32),
        log_kept=turn.log_kept if len(turn.log_kept) else np.zeros(n, dtype=np.float32),
    )


def _merged(sample: Sample, turn: Turn) -> Sample:
    new = _sample(turn, sample.group)
    inserted = turn.prompt[len(sample.prompt) + len(sample.tokens) :]
    zeros = np.zeros(len(inserted), dtype=np.float32)
    return replace(
        sample,
        tokens=np.concatenate([sample.tokens, inserted, new.tokens]),
        trained=np.concatenate([sample.trained, zeros.astype(bool), new.trained]),
        logprobs=np.concatenate([sample.logprobs, zeros, new.logprobs]),
        log_kept=np.concatenate([sample.log_kept, zeros, new.log_kept]),
    )


def batch_of(samples: Sequence[Sample], device: torch.device) -> Batch:
    """Return the columns of some samples; groups are renumbered 0 .. P-1 in order of appearance."""
    numbers = {g: i for i, g in enumerate(dict.fromkeys(s.group for s in samples))}
    lengths = [s.num_trained for s in samples]
    logprobs = np.concatenate([np.zeros(0, dtype=np.float32), *(s.logprobs[s.trained] for s in samples)])
    greedy = [s.greedy_reward for s in samples if s.greedy_reward is not None]
    return Batch(
        sample=torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(lengths, dtype=torch.int64)).to(device),
        group=torch.tensor([numbers[s.group] for s in samples], dtype=torch.int64, device=device),
        reward=torch.tensor([s.reward for s in samples], dtype=torch.float32, device=device),
        version=torch.tensor([s.version for s in samples], dtype=torch.int64, device=device),
        logp_behaviour=torch.from_numpy(logprobs.astype(np.float32)).to(device),
        greedy_reward=torch.tensor(greedy, dtype=torch.float32, device=device) if len(greedy) == len(samples) else None,
        given=_given(samples, device),
    )


def by_rollout(
    groups: Sequence[Group], samples: Sequence[Sample], found: Mapping[int, NDArray[np.float16]]
) -> Differences:
    """Return what was `found` of the samples' trained tokens, by the rollouts of `groups` they were cut from.

    A sample's trained tokens are the outputs of its turns, one after another, and samples stand in the order of their
    turns. So those of a rollout, put together, are all the tokens it sampled. Answers shown again are left out.
    """
    columns: dict[tuple[int, int, int], list[NDArray[np.float16]]] = {}
    for number, sample in enumerate(samples):
        if sample.given is None:
            group = groups[sample.group]
            column = found.get(number, np.full(sample.num_trained, np.nan, dtype=np.float16))
            columns.setdefault((group.step, group.index, sample.attempt), []).append(column)
    return {key: np.concatenate(parts) for key, parts in columns.items()}


def _given(samples: Sequence[Sample], device: torch.device) -> Tensor | None:
    if all(s.given is None for s in samples):
        return None
    values = [math.nan if s.given is None else s.given for s in samples]
    return torch.tensor(values, dtype=torch.float32, device=device)


def longest_samples(prompt: int, answer: int, tokens: int) -> list[Sample]:
    """Return made-up samples that fill a forward pass of `tokens`, each with prompt and answer of these lengths."""
    said = np.zeros(answer, dtype=np.int32)
    zeros, told = np.zeros(answer, dtype=np.float32), np.ones(answer, dtype=bool)
    asked = np.zeros(prompt, dtype=np.int32)
    count = 1 + max(0, tokens - prompt - answer + 1) // max(1, answer - 1)
    return [Sample(0, 0.0, -1, asked, said, told, zeros, zeros) for _ in range(count)]
