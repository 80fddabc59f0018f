"""Preference pairs for `judge`: a question, a better and a worse answer, from three kinds of source.

`open_pairs` turns the option `source` into one of: the built-in digit sum, a reasoning-gym task with perturbed gold
answers, a JSONL file. All are deterministic in (split, index).
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.core.errors import ConfigError, nearest
from ratchet.core.task import Split
from ratchet.environments import scratchpad
from ratchet.environments.options import read_options
from ratchet.environments.rows import Rows, hold_out, read_rows
from ratchet.rewards.gym import Gym

_GYM_PREFIX = "reasoning_gym:"
_ITEMS_TRIED = 8
"""How many items of a generator may lack a usable pair in a row before the task is called unsuitable."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with a better and a worse answer."""

    question: str
    chosen: str
    rejected: str
    steps: tuple[str, ...]
    """The working that leads to the better answer, for demonstrations; the answer itself if no more is known."""


class PairSource(Protocol):
    """Where pairs come from."""

    @property
    def characters(self) -> str:
        """Return every single character its pairs can hold."""
        ...

    def num_pairs(self, split: Split) -> int | None:
        """Return how many different pairs there are, or None for a generator without end."""
        ...

    def pair(self, split: Split, index: int) -> Pair:
        """Return pair `index` of a split."""
        ...


def open_pairs(source: str, options: Mapping[str, Any]) -> PairSource:
    """Return the source that `source` names, with its options.

    **Raises**: `ConfigError` if there is no such source or its options cannot be used.
    """
    where = "environment.source_options"
    if source == "sum":
        return read_options(SumPairs, options, where=where)
    if source.startswith(_GYM_PREFIX):
        return GymPairs(Gym.open(source.removeprefix(_GYM_PREFIX), options, where=where))
    if not Path(source).is_file() and not source.endswith((".jsonl", ".json")):
        raise ConfigError(
            f'environment.source = "{source}" is neither a known source nor a file.'
            + nearest(source, ["sum", _GYM_PREFIX + "<task>", "path/to/pairs.jsonl"])
        )
    return FilePairs(source, read_options(FileOptions, options, where=where))


class SumPairs(BaseModel):
    """The labelled digit sum: the right sum against a wrong one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    terms_min: int = Field(8, ge=1, le=len(scratchpad.LABELS), description="Fewest terms of a question.")
    terms_max: int = Field(12, ge=1, le=len(scratchpad.LABELS), description="Most terms of a question.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.terms_min > self.terms_max:
            raise ValueError(f"terms_min = {self.terms_min} is above terms_max = {self.terms_max}; swap them")
        return self

    @property
    def characters(self) -> str:
        """Return labels, digits, and the two signs that end a question."""
        return scratchpad.LABELS[: self.terms_max] + "0123456789=?"

    def num_pairs(self, split: Split) -> int | None:
        """Return None: pairs are generated without end."""
        return None

    def pair(self, split: Split, index: int) -> Pair:
        """Return the right sum and one of the nine wrong ones."""
        rng = split.rng(index)
        digits = scratchpad.draw_digits(rng, self.terms_min, self.terms_max)
        right = scratchpad.total(digits)
        wrong = (right + rng.randint(1, 9)) % 10
        return Pair(scratchpad.question(digits), str(right), str(wrong), tuple(scratchpad.worked_steps(digits)))


@dataclass(frozen=True, slots=True)
class GymPairs:
    """A reasoning-gym task: its gold answer against a perturbed one that its own scorer marks down."""

    gym: Gym

    @property
    def characters(self) -> str:
        """Return printable ASCII and whatever else the first tasks hold."""
        sample = (self.gym.item(Split("train", 0), index) for index in range(32))
        return string.printable + "".join(item.question + item.answer for item in sample)

    def num_pairs(self, split: Split) -> int | None:
        """Return None: pairs are generated without end."""
        return None

    def pair(self, split: Split, index: int) -> Pair:
        """Return gold and a wrong answer; items for which there is none give way to another of the same index.

        **Raises**: `ConfigError` if the task never gives a pair.
        """
        for attempt in range(_ITEMS_TRIED):
            # Replacements come from a stream of their own, so that no index repeats its neighbour's item.
            stream = split if attempt == 0 else Split(f"{split.name}/replacement", split.seed + attempt)
            item = self.gym.item(stream, index)
            if self.gym.grade(stream, index, item.answer) < 1.0:
                continue
            rng = split.rng(index, "rejected", attempt)
            other = self.gym.item(stream, index + 1).answer
            for candidate in _perturbations(rng, item.answer, other):
                if candidate != item.answer and self.gym.grade(stream, index, candidate) < 1.0:
                    return Pair(item.question, item.answer, candidate, (item.answer,))
        raise ConfigError(
            f'environment.source: the reasoning_gym task "{self.gym.task}" gives no pairs: either its scorer does not '
            "accept its own answers, or every changed answer is still right. Choose another task."
        )


def _perturbations(rng: random.Random, gold: str, other: str) -> Iterator[str]:
    """Yield wrong candidates, likeliest to fool first: one digit changed, another item's answer, two characters
    exchanged, the last character gone."""
    places = [i for i, character in enumerate(gold) if character in string.digits]
    if places:
        place = rng.choice(places)
        digit = rng.choice([d for d in string.digits if d != gold[place]])
        yield gold[:place] + digit + gold[place + 1 :]
    if other:
        yield other
    swaps = [i for i in range(len(gold) - 1) if gold[i] != gold[i + 1]]
    if swaps:
        i = rng.choice(swaps)
        yield gold[:i] + gold[i + 1] + gold[i] + gold[i + 2 :]
    if len(gold) > 1:
        yield gold[:-1]


class FileOptions(BaseModel):
    """Options of a file of pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    held_out: float = Field(0.1, ge=0, lt=1, description="Share of the lines that only the test split reads.")


class FilePairs:
    """A JSONL file with one ``{"question", "chosen", "rejected"}`` per line."""

    def __init__(self, path: str, options: FileOptions) -> None:
        lines = read_rows(path, fields=("question", "chosen", "rejected"))
        for line in lines:
            if line.values["chosen"] == line.values["rejected"]:
                raise ConfigError(f"{path}:{line.number}: chosen and rejected are the same text. Remove the line.")
        train, test = hold_out(lines, options.held_out, path=path)
        self._rows = Rows(train, test, path=path)
        self._characters = "".join(sorted({c for line in lines for text in line.values.values() for c in text}))

    @property
    def characters(self) -> str:
        """Return every character of the file's texts."""
        return self._characters

    def num_pairs(self, split: Split) -> int | None:
        """Return how many lines the split reads."""
        return self._rows.size(split)

    def pair(self, split: Split, index: int) -> Pair:
        """Return the line that belongs to `index`."""
        values = self._rows.row(split, index).values
        return Pair(values["question"], values["chosen"], values["rejected"], (values["chosen"],))
