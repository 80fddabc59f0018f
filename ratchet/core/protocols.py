"""The boundaries between rooms: what an engine, an environment and a policy handle must offer.

Each protocol has one contract test in ``tests/contracts`` and one scripted fake that users get too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ratchet.core.rollout import Floats, Score, StopReason, Tokens, Turn
from ratchet.core.task import Message, Split, Task
from ratchet.core.tools import ToolCall, ToolSpec

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. Part of the recorded policy: log-probabilities are those of this distribution."""

    max_tokens: int
    """Most new tokens."""
    temperature: float = 1.0
    """0 means greedy."""
    top_p: float = 1.0
    """Smallest set of tokens whose mass reaches this; 1 keeps all."""
    top_k: int = 0
    """How many of the likeliest tokens are kept; 0 keeps all."""
    stop: tuple[str, ...] = ()
    """Strings that end the generation."""
    stop_tokens: tuple[int, ...] = ()
    """Tokens that end the generation, besides the model's own end tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One generation to be done."""

    prompt: Tokens
    sampling: Sampling
    seed: int
    """Decides every random choice of this request, whatever else shares its batch."""
    told: Callable[[int], None] | None = None
    """Called with each token as soon as it is drawn, by engines that can; must return at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """One generation done. Fields as in `core.rollout.Turn`."""

    output: Tokens
    logprobs: Floats
    log_kept: Floats
    version: int
    last_version: int
    fingerprint: str
    stop: StopReason
    seconds: float
    switches: tuple[tuple[int, int], ...] = ()


class Engine(Protocol):
    """Generates tokens. Knows tokens, not tasks.

    Concurrency: `generate` may be awaited by any number of coroutines of one event loop; they share batches.
    Cancelling the awaiting coroutine frees its place. A `load` while requests are in flight is allowed: later tokens
    come from the new weights, and the completion's two versions say so.
    """

    async def generate(self, request: Request) -> Completion:
        """Return the completion of one request."""
        ...

    def load(self, weights: Mapping[str, Tensor], version: int, fingerprint: str) -> None:
        """Copy weights in; the tensors may change afterwards without changing the engine."""
        ...

    @property
    def version(self) -> int:
        """Version of the weights now loaded; -1 before the first `load`."""
        ...

    def close(self) -> None:
        """Free everything; pending requests fail."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What the policy answered."""

    text: str
    num_tokens: int
    stop: StopReason
    calls: tuple[ToolCall, ...] = ()
    """The tool calls in it, in the form of the policy's own chat template."""


class PromptTooLong(Exception):
    """The conversation leaves no room for an answer. It is counted, never cut."""


class AgentFailed(Exception):
    """An agent elsewhere did not answer: its server failed, refused, or said nothing that can be read."""


class PolicyHandle(Protocol):
    """The policy as an environment sees it: text in, text out; every turn is recorded behind its back."""

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        """Continue the conversation with `messages` and return the policy's next turn.

        `tools` are those it is told of when the conversation opens; later calls cannot change them.
        """
        ...


@runtime_checkable
class Spawns(Protocol):
    """A handle that can spawn frozen agents: their turns are recorded beside its own, and never trained on."""

    async def chat(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> Reply:
        """See `PolicyHandle`."""
        ...

    def spawn(self, agent: str) -> Spawns:
        """Return the handle of a new agent, which begins with an empty conversation. It counts as spawned by the turn
        before; the name is for the record. Its `chat` may raise `PromptTooLong` and `AgentFailed`."""
        ...

    def ended(self, outcome: str) -> None:
        """Say how this agent ended, in a word for the record."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Within:
    """What bounds one turn further than the run's own sampling does."""

    max_tokens: int = 0
    """Most new tokens; 0 leaves the run's limit."""
    stop: tuple[str, ...] = ()
    """Strings that end it, besides the run's."""
    told: Callable[[int], None] | None = None
    """As in `Request`."""


@runtime_checkable
class Converses(Protocol):
    """A handle of which one attempt may have several: conversations that are all the policy's own, and trained on."""

    async def turn(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], within: Within
    ) -> tuple[Turn, tuple[ToolCall, ...]]:
        """As `PolicyHandle.chat`; return the turn as it was recorded, and the tool calls in it."""
        ...

    def another(self) -> Converses:
        """Return the handle of a further conversation, which begins empty."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an environment returns for one rollout."""

    score: Score
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    """Texts to be recorded with the attempt and shown to people, such as what a sandbox printed."""


@runtime_checkable
class Environment(Protocol):
    """Makes tasks and judges attempts.

    Lifecycle: one instance serves a whole run; `run` is called concurrently and must keep its state in locals.
    `task` is deterministic in (split, index). A finite environment answers `num_tasks` with its size.
    """

    name: str

    def num_tasks(self, split: Split) -> int | None:
        """Return how many different tasks there are, or None for a generator without end."""
        ...

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split."""
        ...

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Play one attempt and return its outcome; raising turns the rollout into a counted failure."""
        ...


@runtime_checkable
class Admits(Protocol):
    """An environment whose attempts begin when somebody takes them up: the limit of an attempt's time counts from
    there."""

    async def admit(self, task: Task, policy: PolicyHandle) -> None:
        """Return when the attempt can begin; `run` follows with the same task and handle."""
        ...


@runtime_checkable
class Demonstrates(Protocol):
    """An environment that can show how a task is answered, for a warm start by supervised fine-tuning."""

    def demonstration(self, task: Task, rng: random.Random) -> str | Sequence[Message]:
        """Return the text of one answer, end token excluded; different draws may show different quality.

        Where a task takes several turns: what follows its prompt, from the policy's first turn to its last, with what
        it is told in between.
        """
        ...


@runtime_checkable
class Probes(Protocol):
    """An environment whose reward can be asked about a text without a policy: what the reward probe uses."""

    async def score(self, task: Task, text: str) -> Score:
        """Return the score of `text` as an answer to `task`."""
        ...

    def gold(self, task: Task) -> str:
        """Return a text that deserves the full reward."""
        ...
