"""Reasoning-gym tasks: items by (split, index), and the library's own scorer.

Items are generated again wherever they are needed, from the same seed, so that a reward process needs nothing but a
name, options and two integers.

**Source**: Reasoning Gym (arXiv 2505.24760), https://github.com/open-thought/reasoning-gym.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ratchet.core.errors import ConfigError, nearest
from ratchet.core.load import describe, require_library
from ratchet.core.seeds import derive
from ratchet.core.task import Split, Task
from ratchet.rewards.text import last_tagged

_CHUNK = 500
"""Items per dataset object, the library's own default: some tasks prepare that many at once, none asks for more."""
_RESERVED = ("seed", "size")


@dataclass(frozen=True, slots=True)
class GymItem:
    """One question of a reasoning-gym task."""

    question: str
    answer: str
    """The library's gold answer; empty where it has none."""


@dataclass(frozen=True, slots=True)
class Gym:
    """A reasoning-gym task with its options."""

    task: str
    options: str
    """The task's own options as JSON."""

    @classmethod
    def open(cls, task: str, options: Mapping[str, Any], *, where: str) -> Gym:
        """Return the task called `task`, having generated one item.

        **Raises**: `ConfigError` if the library or the task is missing, or the options cannot be used.
        """
        require_library("reasoning_gym", extra="gym", purpose=f'The reasoning_gym task "{task}"')
        factory = importlib.import_module("reasoning_gym.factory")
        if task not in factory.DATASETS:
            raise ConfigError(f'The library reasoning_gym has no task "{task}".{_nearest_task(task, factory.DATASETS)}')
        _, config = factory.DATASETS[task]
        known = [name for name in config.__dataclass_fields__ if name not in _RESERVED]
        for name in options:
            if name in _RESERVED:
                raise ConfigError(f"{where}.{name} is set by ratchet, from the run's seed. Remove it.")
            if name not in known:
                raise ConfigError(f'{where}.{name} is no option of the task "{task}".{nearest(name, known)}')
        gym = cls(task, json.dumps(dict(options), sort_keys=True))
        try:
            gym.item(Split("train", 0), 0)
        # The library checks its options with assertions, and some tasks only notice while generating.
        except Exception as error:
            raise ConfigError(f'{where}: the task "{task}" refuses {gym.options}: {describe(error)}.') from error
        return gym

    def item(self, split: Split, index: int) -> GymItem:
        """Return item `index` of a split."""
        entry = self._entry(split.name, split.seed, index)
        return GymItem(str(entry["question"]), "" if entry["answer"] is None else str(entry["answer"]))

    def grade(self, split: Split, index: int, answer: str) -> float:
        """Return what the library's scorer gives `answer`, 0 to 1. May hang on hostile text: see `score_gym`."""
        return grade(self.task, self.options, split.name, split.seed, index, answer)

    def _entry(self, split: str, seed: int, index: int) -> dict[str, Any]:
        chunk, position = divmod(index, _CHUNK)
        entry: dict[str, Any] = _dataset(self.task, self.options, split, seed, chunk)[position]
        return entry


def grade(task: str, options: str, split: str, seed: int, index: int, answer: str) -> float:
    """Return what the library's scorer gives `answer` to item `index`, 0 to 1."""
    chunk, position = divmod(index, _CHUNK)
    dataset = _dataset(task, options, split, seed, chunk)
    return float(dataset.score_answer(answer, dataset[position]))


def score_gym(task: Task, text: str) -> float:
    """Return what the library's scorer gives the tagged answer in `text`; 0 if there is none. Runs in a reward process:
    some scorers evaluate the text as a formula, which can take for ever."""
    answer = last_tagged(text)
    if answer is None:
        return 0.0
    e = task.extras
    return grade(e["task"], e["options"], e["split"], e["seed"], e["index"], answer)


@lru_cache(maxsize=16)
def _dataset(task: str, options: str, split: str, seed: int, chunk: int) -> Any:
    factory = importlib.import_module("reasoning_gym.factory")
    dataset_seed = derive("reasoning_gym", split, seed, chunk) % 2**31
    return factory.create_dataset(task, seed=dataset_seed, size=_CHUNK, **json.loads(options))


def _nearest_task(task: str, known: Mapping[str, object]) -> str:
    hint = nearest(task, known)
    # A hundred names help nobody in a message.
    return hint if "Did you mean" in hint else f" It has {len(known)} tasks; see its gallery for the names."
