"""What happened: turns, trajectories, rollouts, groups. Facts only; nothing here is ever rewritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ratchet.core.task import Task

Tokens = NDArray[np.int32]
Floats = NDArray[np.float32]
Differences = Mapping[tuple[int, int, int], NDArray[np.float16]]
"""(step, index, attempt) of a rollout -> of each token it sampled, turn after turn: the trainer's log-probability minus
the sampler's, in nats; NaN where the token was not trained on."""


class StopReason(StrEnum):
    """Why a generation ended."""

    END = "end"
    """The policy emitted an end token; it is the last output token."""
    STOP = "stop"
    """A stop string appeared; its tokens are kept."""
    LENGTH = "length"
    """The limit of new tokens, or of the context, was reached: the answer is truncated."""


class Status(StrEnum):
    """What became of a rollout. All but `OK` are counted in the ledger and never trained on."""

    OK = "ok"
    PROMPT_TOO_LONG = "prompt_too_long"
    """The prompt leaves no room in the context; it is never cut."""
    REWARD_TIMEOUT = "reward_timeout"
    """The reward did not return within its limit and was killed."""
    REWARD_ERROR = "reward_error"
    """The reward raised, or its process died."""
    REWARD_INVALID = "reward_invalid"
    """The reward returned something that is not a finite number."""
    ENVIRONMENT_ERROR = "environment_error"
    """The environment raised."""
    ROLLOUT_TIMEOUT = "rollout_timeout"
    """The whole rollout exceeded its time limit."""
    CANCELLED = "cancelled"
    """The run was stopped while the rollout was in flight; it will be sampled again."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One generation: exact tokens in, exact tokens out; never re-tokenised."""

    prompt: Tokens
    """(P,) every token the policy saw before its first output token."""
    output: Tokens
    """(T,) tokens sampled, the end token included."""
    logprobs: Floats
    """(T,) log-probability of each output token under the distribution it was really sampled from; empty when the
    tokens were not sampled (a demonstration)."""
    log_kept: Floats
    """(T,) log of the probability mass that top-k and top-p left; 0 where nothing was cut, empty if never."""
    version: int
    """Version of the weights that sampled the first token; -1 for a demonstration."""
    last_version: int
    """Version of the weights that sampled the last token."""
    fingerprint: str
    """Digest of the weights behind `last_version`; empty for a demonstration."""
    stop: StopReason
    text: str
    """The output decoded: a view for people and rewards, never fed back."""
    seconds: float
    """From request to completion, waiting included."""
    switches: tuple[tuple[int, int], ...] = ()
    """Where newer weights took over in the middle: (place of the first output token they sampled, their version)."""
    began: float = 0.0
    """When it was asked for, in seconds from the beginning of the rollout."""

    @property
    def token_versions(self) -> NDArray[np.int32]:
        """(T,) version of the weights that sampled each output token."""
        versions = np.full(len(self.output), self.version, dtype=np.int32)
        for place, version in self.switches:
            versions[place:] = version
        return versions


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One agent's thread of turns."""

    turns: tuple[Turn, ...]
    agent: str = "policy"
    trainable: bool = True
    """False for frozen agents: their tokens are observations."""
    parent: int = -1
    """Index of the trajectory that spawned this one within the rollout; -1 for the root."""
    parent_turn: int = -1
    """Number of the parent's turn that spawned it; -1 for the root."""
    outcome: str = ""
    """How the environment says that it ended; empty for the root."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward function returns."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components, each logged on its own as ``reward/parts/<name>``."""


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One attempt at a task: its trajectories, and its score or the reason it has none."""

    task_id: str
    attempt: int
    """0 .. samples_per_prompt - 1."""
    trajectories: tuple[Trajectory, ...]
    status: Status
    score: Score | None
    """None unless `status` is OK."""
    error: str = ""
    """One line on what went wrong; empty when nothing did."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Further numbers the environment wants charted."""
    seconds: float = 0.0
    notes: Mapping[str, str] = field(default_factory=dict)
    """Texts of the environment for people to read, such as what a sandbox printed."""

    @property
    def output_tokens(self) -> int:
        """Number of trainable tokens sampled."""
        return sum(len(t.output) for tr in self.trajectories if tr.trainable for t in tr.turns)

    @property
    def truncated(self) -> bool:
        """Whether any trainable turn hit its length limit."""
        return any(t.stop is StopReason.LENGTH for tr in self.trajectories if tr.trainable for t in tr.turns)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """All attempts at one task: the atom of the buffer and of the baseline."""

    task: Task
    index: int
    """Position of the task in its split: the data cursor."""
    step: int
    """The step that asked for it."""
    rollouts: tuple[Rollout, ...]
    greedy: Rollout | None = None
    """One more attempt at temperature 0, never trained on: the baseline of algorithms that need it."""

    @property
    def usable(self) -> tuple[Rollout, ...]:
        """The rollouts that have a score."""
        return tuple(r for r in self.rollouts if r.status is Status.OK)


@dataclass(frozen=True, slots=True, eq=False)
class Positive:
    """A success of an earlier step that is to be trained on once more."""

    group: Group
    """The attempts it was sampled with: they decide its advantage."""
    rollout: Rollout
