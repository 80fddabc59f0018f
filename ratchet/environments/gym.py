"""Any reasoning-gym task, with the library's own scorer."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from ratchet.core.errors import ConfigError
from ratchet.core.protocols import Outcome, PolicyHandle
from ratchet.core.rollout import Score
from ratchet.core.task import Split, Task
from ratchet.environments.single_turn import ask_once, messages
from ratchet.rewards.gym import Gym
from ratchet.rewards.pool import RewardPool
from ratchet.rewards.text import CLOSE_ANSWER, OPEN_ANSWER

ANSWER_SYSTEM = f"""\
Think the problem through. Then end with the final answer alone, in the form the question asks for, between \
{OPEN_ANSWER} and {CLOSE_ANSWER}."""
"""The default system message: the reward reads only the last answer tags."""


class ReasoningGym(BaseModel):
    """Asks a reasoning-gym task's questions; the answer stands between ``<answer>`` and ``</answer>``."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str] = "reasoning_gym"

    task_name: str = Field(alias="task", min_length=1, description="Name of the task, as in the library's gallery.")
    options: Mapping[str, Any] = Field(default_factory=dict, description="The task's own options.")
    system: str = Field(ANSWER_SYSTEM, description="System message; empty for none.")
    reward_timeout_s: float = Field(5.0, gt=0, le=3600, description="Seconds the scorer may take for one answer.")
    first_timeout_s: float = Field(60.0, gt=0, le=3600, description="Seconds a reward process may take to import.")
    reward_workers: int = Field(2, ge=1, le=256, description="Number of reward processes.")

    _gym: Gym = PrivateAttr()
    _pool: RewardPool = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Generate one item, so that a bad task or option fails when the configuration is read."""
        self._gym = Gym.open(self.task_name, self.options, where="environment.options")
        self._pool = RewardPool(
            num_workers=self.reward_workers, timeout_s=self.reward_timeout_s, first_timeout_s=self.first_timeout_s
        )

    @property
    def words(self) -> tuple[str, ...]:
        """Return the strings of several characters that should be single tokens."""
        return (OPEN_ANSWER, CLOSE_ANSWER)

    @property
    def characters(self) -> str:
        """Return printable ASCII and whatever else the first questions hold."""
        sample = (self._gym.item(Split("train", 0), index) for index in range(32))
        texts = "".join(item.question + item.answer for item in sample)
        return "".join(sorted(set(string.printable + texts + self.system)))

    def num_tasks(self, split: Split) -> int | None:
        """Return None: tasks are generated without end."""
        return None

    def task(self, split: Split, index: int) -> Task:
        """Return task `index` of a split; `extras` says how to generate the item again."""
        item = self._gym.item(split, index)
        return Task(
            environment=self.name,
            prompt=messages(item.question, system=self.system),
            answer=item.answer,
            extras={
                "task": self._gym.task,
                "options": self._gym.options,
                "split": split.name,
                "seed": split.seed,
                "index": index,
            },
        )

    async def run(self, task: Task, policy: PolicyHandle) -> Outcome:
        """Return the outcome of one answer."""
        return await ask_once(task, policy, self.score)

    async def score(self, task: Task, text: str) -> Score:
        """Return the library's score of the tagged answer, 0 to 1. **Raises**: `RewardError`."""
        return await self._pool.score("ratchet.rewards.gym:score_gym", task, text)

    def gold(self, task: Task) -> str:
        """Return the library's gold answer in its tags; empty where it has none and can only check answers."""
        return f"{OPEN_ANSWER}{task.answer}{CLOSE_ANSWER}" if task.answer else ""

    def demonstration(self, task: Task, rng: random.Random) -> str:
        """Return the gold answer: the library knows no working. **Raises**: `ConfigError` if it has no gold answer."""
        if not task.answer:
            raise ConfigError(
                f'The reasoning_gym task "{self.task_name}" has no gold answers, so it cannot be demonstrated. '
                "Choose another task for the warm start, or none."
            )
        return self.gold(task)

    def close(self) -> None:
        """End the reward processes."""
        self._pool.close()
