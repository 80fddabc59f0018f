"""Small facts made by hand, for every room's tests: turns, groups, batches, policies."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

import numpy as np
import torch

from ratchet.config.schema import TinySection
from ratchet.core.batch import Batch
from ratchet.core.rollout import Group, Rollout, Score, Status, StopReason, Trajectory, Turn
from ratchet.core.task import Message, Task
from ratchet.policy.policy import Policy

WORDS = ("<think>", "</think>")
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789+=? "


def tiny_policy(
    *, seed: int = 0, words: Sequence[str] = WORDS, characters: str = CHARACTERS, **changes: object
) -> Policy:
    """Return a policy of a few thousand weights, drawn wide enough that its distributions are not flat."""
    settings = {
        "hidden": 16,
        "layers": 2,
        "query_heads": 4,
        "key_heads": 2,
        "head_size": 4,
        "intermediate": 24,
        "context": 96,
    }
    policy = Policy.tiny(TinySection(**{**settings, **changes}), words=words, characters=characters, seed=seed)
    with torch.no_grad():
        policy.decoder.head.mul_(12.0)
    return policy


def task(text: str = "1+1", answer: str = "2") -> Task:
    return Task("test", (Message("user", text),), answer)


def turn(
    prompt: Sequence[int],
    output: Sequence[int],
    *,
    logprobs: Sequence[float] | None = None,
    version: int = 0,
    **changes: object,
) -> Turn:
    """Return a turn whose log-probabilities are -1 unless given."""
    given = [-1.0] * len(output) if logprobs is None else logprobs
    made = Turn(
        prompt=np.array(prompt, dtype=np.int32),
        output=np.array(output, dtype=np.int32),
        logprobs=np.array(given, dtype=np.float32),
        log_kept=np.zeros(0, dtype=np.float32),
        version=version,
        last_version=version,
        fingerprint="f",
        stop=StopReason.END,
        text="",
        seconds=0.0,
    )
    return replace(made, **changes)


def rollout(reward: float | None, *turns: Turn, attempt: int = 0, status: Status = Status.REWARD_ERROR) -> Rollout:
    """Return a rollout with a reward, or a failed one without."""
    scored = reward is not None
    return Rollout(
        task_id=task().id,
        attempt=attempt,
        trajectories=(Trajectory(turns),),
        status=Status.OK if scored else status,
        score=Score(reward) if scored else None,
        error="" if scored else "it failed",
    )


def group(rollouts: Sequence[Rollout], *, index: int = 0, step: int = 0) -> Group:
    return Group(task(), index, step, tuple(rollouts))


def random_groups(
    seed: int, *, groups: int = 3, samples: int = 3, vocab: int = 40, longest: int = 9, equal: Sequence[int] = ()
) -> list[Group]:
    """Return groups with random tokens, log-probabilities, cut masses and rewards; those in `equal` have one reward."""
    rng = np.random.default_rng(seed)
    made = []
    for g in range(groups):
        prompt = rng.integers(7, vocab, rng.integers(1, 6)).tolist()
        rollouts = []
        for a in range(samples):
            n = int(rng.integers(1, longest))
            one = turn(
                prompt,
                rng.integers(7, vocab, n).tolist(),
                logprobs=(-3.0 + 0.3 * rng.standard_normal(n)).tolist(),
                log_kept=(-0.2 * rng.random(n)).astype(np.float32),
            )
            reward = 0.5 if g in equal else float(rng.integers(0, 4)) + a / 8
            rollouts.append(rollout(reward, one, attempt=a))
        made.append(group(rollouts, index=g))
    return made


def batch(
    lengths: Sequence[int], groups: Sequence[int], rewards: Sequence[float], *, behaviour: Sequence[float] | None = None
) -> Batch:
    """Return a float64 batch of samples with these lengths, groups and rewards."""
    n = sum(lengths)
    return Batch(
        sample=torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)),
        group=torch.tensor(groups),
        reward=torch.tensor(rewards, dtype=torch.float64),
        version=torch.zeros(len(lengths), dtype=torch.int64),
        logp_behaviour=torch.tensor(behaviour if behaviour is not None else [-1.0] * n, dtype=torch.float64),
    )


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `AssertionError` if the body is not done in time: a deadlock fails one test, not all."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not done within {seconds:g} s: something waits for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
