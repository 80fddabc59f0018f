"""Reasoning-gym tasks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from ratchet.core.errors import ConfigError
from ratchet.core.task import Split
from ratchet.environments.gym import ReasoningGym
from ratchet.environments.table import build_environment
from ratchet.rewards.probe import probe

pytest.importorskip("reasoning_gym")
TRAIN = Split("train", 0)


@pytest.fixture
def chain_sum() -> Iterator[ReasoningGym]:
    environment = ReasoningGym(task="chain_sum", options={"max_terms": 2}, reward_workers=1)
    yield environment
    environment.close()


def test_its_options_reach_the_library(chain_sum: ReasoningGym) -> None:
    questions = [chain_sum.task(TRAIN, i).prompt[-1].content for i in range(20)]
    assert all(question.count("+") + question.count(" - ") == 1 for question in questions)


def test_only_the_tagged_answer_counts(chain_sum: ReasoningGym) -> None:
    async def values() -> list[float]:
        task = chain_sum.task(TRAIN, 0)
        wrong = str(int(task.answer) + 1)
        texts = [
            f"<answer>{task.answer}</answer>",
            f"<answer>{wrong}</answer> no: <answer> {task.answer} </answer>",
            f"<answer>{task.answer}</answer> no: <answer>{wrong}</answer>",
            task.answer,
        ]
        return [(await chain_sum.score(task, text)).value for text in texts]

    right, corrected, spoilt, untagged = asyncio.run(values())
    assert (right, corrected, untagged) == (1, 1, 0)
    assert spoilt < 1


def test_items_far_along_a_split_differ_from_the_first(chain_sum: ReasoningGym) -> None:
    far = {chain_sum.task(TRAIN, i).prompt for i in (500, 501, 1_000_000)}
    assert len(far) == 3
    assert not far & {chain_sum.task(TRAIN, i).prompt for i in range(2)}


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'no task "chainsum"\. Did you mean "chain_sum"'):
        build_environment("reasoning_gym", {"task": "chainsum"})


def test_a_task_without_gold_answers_is_neither_probed_nor_demonstrated() -> None:
    environment = ReasoningGym(task="rush_hour")
    task = environment.task(TRAIN, 0)
    assert asyncio.run(probe(environment, [task])) == []
    with pytest.raises(ConfigError, match="no gold answers"):
        environment.demonstration(task, random.Random(0))
