r"""Questions with gold answers from data of any form, judged by mathematics, by letters, or by a function of the user.

GSM8K's lines work as they are: what follows ``####`` is the answer, what stands before it the worked solution.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from ratchet.core.errors import ConfigError
from ratchet.core.load import is_path, require_library
from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Split, Task
from ratchet.environments.rows import Row, Rows, hold_out, read_rows
from ratchet.environments.single_turn import ask_once, fill, messages, missing_fields
from ratchet.environments.sources import Source
from ratchet.rewards.math import plain_number
from ratchet.rewards.pool import RewardPool
from ratchet.rewards.text import CLOSE_ANSWER, OPEN_ANSWER, is_exactly

MATH_SYSTEM = "Reason step by step, and put your final answer within \\boxed{}."
"""The default system message."""


class Questions(BaseModel):
    """Asks the questions of a data set or file and compares the answers with its gold answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "questions"

    path: str = Field(
        min_length=1,
        description="JSONL, JSON, CSV or Parquet file with a question per line or row, a folder of such files, or "
        "owner/name of a data set of Hugging Face.",
    )
    subset: str = Field("", description="Configuration of the data set, or a folder within `path`; empty for none.")
    split: str = Field("", description="Split for training, where `path` has several; empty takes train.")
    test_split: str = Field("", description="Split of `path` for the test split; empty to hold out a share.")
    test_path: str = Field("", description="Another file, folder or data set for the test split.")
    held_out: float = Field(0.1, ge=0, lt=1, description="Share of the rows that only the test split reads.")
    question_field: str = Field(
        "question",
        min_length=1,
        description="Name of the question's field, a.b for a field within another; it holds a text, or a conversation "
        "as a list of messages with role and content.",
    )
    answer_field: str = Field(
        "answer", min_length=1, description="Name of the field with the gold answer, or with a worked solution."
    )
    answer_pattern: str = Field(
        r"####[ \t]*([^\n]+)",
        description="Regular expression whose one group is the gold answer; its last match in the answer field counts, "
        "and where it does not match, the whole field.",
    )
    prompt: str = Field("{question}", description="Template of the user message, with {question}.")
    system: str = Field(MATH_SYSTEM, description="System message; empty for none.")
    verifier: Literal["math", "exact"] = Field("math", description="How an answer is compared with the gold answer.")
    reward: str = Field("", description="Your own reward instead of a verifier, as file.py:function.")
    reward_timeout_s: float = Field(5.0, gt=0, le=3600, description="Seconds the reward may take for one answer.")
    first_timeout_s: float = Field(60.0, gt=0, le=3600, description="Seconds a reward process may take to import.")
    reward_workers: int = Field(2, ge=1, le=256, description="Number of reward processes.")

    _rows: Rows = PrivateAttr()
    _pool: RewardPool = PrivateAttr()
    _characters: str = PrivateAttr()

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f'"{pattern}" is no regular expression: {error}') from error
        if groups != 1:
            raise ValueError(f'"{pattern}" has {groups} groups; put ( ) around the answer, and (?: ) around the rest')
        return pattern

    @field_validator("prompt")
    @classmethod
    def _complete(cls, prompt: str) -> str:
        if missing_fields(prompt, ("question",)):
            raise ValueError("the template lacks {question}; add it")
        return prompt

    @field_validator("reward")
    @classmethod
    def _reachable(cls, reward: str) -> str:
        # Only looked for, not imported: users' code runs in reward processes.
        if reward and not is_path(reward):
            raise ValueError(f'"{reward}" is no path to a function; write file.py:function or package.module:function')
        file = reward.rpartition(":")[0]
        if file.endswith(".py") and not Path(file).expanduser().is_file():
            raise ValueError(f'"{file}" does not exist; give a path relative to here, or absolute')
        return reward

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        given = self.model_fields_set
        if self.reward and "verifier" in given:
            raise ValueError("verifier and reward exclude each other; remove one")
        tests = [name for name in ("held_out", "test_path", "test_split") if name in given and getattr(self, name)]
        if len(tests) > 1:
            raise ValueError(f"{tests[0]} and {tests[1]} exclude each other; remove one")
        return self

    def model_post_init(self, context: Any, /) -> None:
        """Read the files, so that a bad line fails when the configuration is read."""
        if not self.reward and self.verifier == "math":
            require_library("math_verify", extra="math", purpose='environment.verifier = "math"')
        rows = self._read(Source(self.path, self.subset, self.split))
        if self.test_path:
            train, test = rows, self._read(Source(self.test_path))
        elif self.test_split:
            train, test = rows, self._read(Source(self.path, self.subset, self.test_split))
        else:
            train, test = hold_out(rows, self.held_out, path=self.path)
        texts = (text for row in (*train, *test) for text in _texts(row))
        self._characters = "".join(sorted({c for text in (self.prompt, self.system, *texts) for c in text}))
        self._rows = Rows(train, test, path=self.path)
        self._pool = RewardPool(
            num_workers=self.reward_workers, timeout_s=self.reward_timeout_s, first_timeout_s=self.first_timeout_s
        )

    @property
    def words(self) -> tuple[str, ...]:
        """Return the strings of several characters that should be single tokens."""
        return ("\\boxed{", "####")

    @property
    def characters(self) -> str:
        """Return every single character of the files, the prompt and the system message."""
        return self._characters

    def num_tasks(self, split: Split) -> int | None:
        """Return how many questions the split has."""
        return self._rows.size(split)

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split; `extras` holds the answer field as it stands in the file."""
        row = self._rows.row(split, index)
        solution = row.values[self.answer_field]
        return Task(
            environment=self.name,
            prompt=self._asked(row),
            answer=self._answer(solution),
            extras={"solution": solution},
        )

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return the outcome of one answer."""
        return await ask_once(task, policy, self.score)

    async def score(self, task: Task, text: str) -> Score:
        """Return 1 for the gold answer and 0 for another, or what the user's reward gives.

        **Raises**: `RewardError`.
        """
        if self.reward:
            return await self._pool.score(self.reward, task, text)
        if self.verifier == "exact":
            return Score(float(is_exactly(task.answer, text)))
        return await self._pool.score("ratchet.rewards.math:score_math", task, text)

    def gold(self, task: Task) -> str:
        """Return the gold answer, marked as the verifier wants it; for a user's reward, the answer field as it is."""
        if self.reward:
            return str(task.extras["solution"])
        return f"{OPEN_ANSWER}{task.answer}{CLOSE_ANSWER}" if self.verifier == "exact" else self._boxed(task.answer)

    def wrong(self, task: Task) -> str | None:
        """Return the gold number plus one, marked as an answer; None if the answer is no number."""
        number = plain_number(task.answer)
        return None if number is None else self._boxed(str(number + 1))

    def demonstration(self, task: Task, rng: random.Random) -> str:
        """Return the worked solution of the file, or the gold answer where there is no more than that."""
        solution = str(task.extras["solution"])
        return self.gold(task) if solution == task.answer else solution

    def close(self) -> None:
        """End the reward processes."""
        self._pool.close()

    def _read(self, source: Source) -> list[Row]:
        fields = (self.question_field, self.answer_field)
        rows = read_rows(source, fields=fields, chats=(self.question_field,))
        for row in rows:
            if not self._answer(row.values[self.answer_field]):
                raise ConfigError(f'{row.place}: "{self.answer_field}" holds no answer. Correct or remove it.')
            if row.chats and "prompt" in self.model_fields_set:
                raise ConfigError(
                    f'{row.place}: "{self.question_field}" holds a conversation, which is asked as it stands, and '
                    "environment.prompt is for questions that are texts. Leave it out."
                )
        return rows

    def _asked(self, row: Row) -> tuple[Message, ...]:
        """Return the prompt: a conversation as it stands, behind the system message unless it has one of its own."""
        chat = row.chats.get(self.question_field)
        if chat is None:
            return messages(fill(self.prompt, {"question": row.values[self.question_field]}), system=self.system)
        own = not self.system or any(message.role == "system" for message in chat)
        return chat if own else (Message("system", self.system), *chat)

    def _answer(self, solution: str) -> str:
        matches = re.findall(self.answer_pattern, solution)
        return str(matches[-1] if matches else solution).strip()

    @staticmethod
    def _boxed(answer: str) -> str:
        return f"\\boxed{{{answer}}}"


def _texts(row: Row) -> Iterator[str]:
    yield from row.values.values()
    yield from (message.content for chat in row.chats.values() for message in chat)
