"""What is asked: messages, tasks, and the splits tasks are drawn from."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal

from ratchet.core.seeds import stream

Role = Literal["system", "user", "assistant", "tool"]
Json = Any  # a value that survives a round trip through JSON


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Task:
    """A question with what is needed to judge an answer to it."""

    environment: str
    """Name of the environment that made it and can run it."""
    prompt: tuple[Message, ...]
    """The conversation the policy is to continue."""
    answer: str = ""
    """The gold answer, in the form the environment's reward compares with."""
    extras: Mapping[str, Json] = field(default_factory=dict)
    """Whatever else the reward needs; must survive JSON."""

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that depend on the content alone."""
        content = [self.environment, [[m.role, m.content] for m in self.prompt], self.answer, dict(self.extras)]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Split:
    """A named stream of tasks: ``Split("train", seed)``, ``Split("test", seed)``.

    Environments are deterministic in (split, index): a generator draws from `rng(index)`, a dataset reads row
    `shuffled(index, size)`. So the data cursor of a run is one integer.
    """

    name: str
    seed: int

    def rng(self, index: int, *names: str | int) -> random.Random:
        """Return the generator of random numbers that belongs to task `index`."""
        return stream("split", self.name, self.seed, index, *names)

    def shuffled(self, index: int, size: int) -> int:
        """Return the row for task `index` of a dataset of `size` rows: every epoch is a new order of all rows."""
        epoch, position = divmod(index, size)
        return _permutation(self.name, self.seed, epoch, size)[position]


@lru_cache(maxsize=8)
def _permutation(name: str, seed: int, epoch: int, size: int) -> list[int]:
    order = list(range(size))
    stream("epoch", name, seed, epoch).shuffle(order)
    return order
