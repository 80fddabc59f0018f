"""The scratchpad task: the sum modulo 10 of labelled digits, with the working written out.

Made for tiny policies on one core: see `scratchpad` for why effort pays.
"""

from __future__ import annotations

import random
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Split, Task
from ratchet.environments import scratchpad
from ratchet.environments.single_turn import ask_once, messages
from ratchet.rewards.text import TAGS, is_thought_then_integer, last_integer


class Arithmetic(BaseModel):
    """Asks ``a7b3c5=?``; the full answer is ``<think>a77b30c55</think><answer>5</answer>``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "arithmetic"

    terms_min: int = Field(8, ge=1, le=len(scratchpad.LABELS), description="Fewest terms of a question.")
    terms_max: int = Field(12, ge=1, le=len(scratchpad.LABELS), description="Most terms of a question.")
    format_weight: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="What a well-formed answer earns besides the 1 for a right one."
    )
    full_share: float = Field(0.6, ge=0, le=1, description="Share of demonstrations that write every step.")
    dropped_tag_share: float = Field(0.12, ge=0, le=1, description="Share of demonstrations that lack one tag.")
    repeat_last: int = Field(
        0, ge=0, le=1000, description="Most times a demonstration repeats its last step; drawn evenly from 0 to this."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.terms_min > self.terms_max:
            raise ValueError(f"terms_min = {self.terms_min} is above terms_max = {self.terms_max}; swap them")
        return self

    @property
    def words(self) -> tuple[str, ...]:
        """Return the strings of several characters that should be single tokens."""
        return TAGS

    @property
    def characters(self) -> str:
        """Return every single character prompts and demonstrations can hold."""
        return "".join(sorted(set(scratchpad.LABELS[: self.terms_max] + "0123456789=?")))

    def num_tasks(self, split: Split) -> int | None:
        """Return None: tasks are generated without end."""
        return None

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split; `extras` holds the digits."""
        digits = scratchpad.draw_digits(split.rng(index), self.terms_min, self.terms_max)
        return Task(
            environment=self.name,
            prompt=messages(scratchpad.question(digits)),
            answer=str(scratchpad.total(digits)),
            extras={"digits": digits},
        )

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return the outcome of one answer."""
        return await ask_once(task, policy, self.score)

    async def score(self, task: Task, text: str) -> Score:
        """Return accuracy + format_weight x format; both parts are 0 or 1."""
        accuracy = float(last_integer(text) == task.answer)
        form = float(is_thought_then_integer(text))
        return Score(accuracy + self.format_weight * form, {"accuracy": accuracy, "format": form})

    def gold(self, task: Task) -> str:
        """Return the answer with every step written out."""
        return scratchpad.write_answer("".join(scratchpad.worked_steps(task.extras["digits"])), task.answer)

    def wrong(self, task: Task) -> str:
        """Return a well-formed answer that is off by one."""
        return scratchpad.write_answer("", str((int(task.answer) + 1) % 10))

    def demonstration(self, task: Task, rng: random.Random) -> str:
        """Return one answer: the steps, perhaps cut short or padded, then the true answer; perhaps a tag less."""
        steps = scratchpad.worked_steps(task.extras["digits"])
        kept = steps[: scratchpad.draw_kept_steps(rng, len(steps), self.full_share)]
        if kept and self.repeat_last:
            kept += kept[-1:] * rng.randint(0, self.repeat_last)
        text = scratchpad.write_answer("".join(kept), task.answer)
        return scratchpad.drop_one_tag(rng, text, self.dropped_tag_share)
