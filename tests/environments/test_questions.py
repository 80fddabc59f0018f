"""Questions from files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ratchet.core.errors import ConfigError
from ratchet.core.task import Split
from ratchet.environments.questions import Questions
from ratchet.environments.table import build_environment
from ratchet.rewards.errors import RewardTimeout

TRAIN, TEST = Split("train", 0), Split("test", 0)


def write(path: Path, *lines: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def gsm(tmp_path: Path) -> str:
    lines = [
        {"question": f"What is {i} + 1?", "answer": f"{i} + 1 = <<{i}+1={i + 1}>>\n#### {i + 1}"} for i in range(9)
    ]
    return write(tmp_path / "gsm.jsonl", *lines)


def told(**options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        build_environment("questions", options)
    return str(caught.value)


def test_the_gold_answer_is_what_follows_the_marks_and_the_demonstration_is_the_solution(gsm: str) -> None:
    environment = Questions(path=gsm, held_out=0)
    task = environment.task(TRAIN, 0)
    number = int(task.prompt[-1].content.split()[2])
    assert task.answer == str(number + 1)
    assert environment.gold(task) == f"\\boxed{{{number + 1}}}"
    assert environment.wrong(task) == f"\\boxed{{{number + 2}}}"
    assert environment.demonstration(task, None) == f"{number} + 1 = <<{number}+1={number + 1}>>\n#### {number + 1}"


def test_an_answer_without_marks_is_taken_whole_and_fields_may_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"problem": "Capital of France?", "gold": " Paris "})
    environment = Questions(
        path=path, held_out=0, question_field="problem", answer_field="gold", verifier="exact", system=""
    )
    task = environment.task(TRAIN, 0)
    assert task.answer == "Paris"
    assert [message.role for message in task.prompt] == ["user"]
    values = [asyncio.run(environment.score(task, text)).value for text in ("Paris", "<answer>Paris</answer>", "paris")]
    assert values == [1, 1, 0]


def test_a_pattern_of_ones_own_reads_the_answer(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"question": "?", "answer": "first A: 3, then A: 4"})
    environment = Questions(path=path, held_out=0, answer_pattern=r"A: (\d+)")
    assert environment.task(TRAIN, 0).answer == "4"


def test_split_files_are_used_as_they_are(gsm: str, tmp_path: Path) -> None:
    test_path = write(tmp_path / "test.jsonl", {"question": "What is 100 + 1?", "answer": "101"})
    environment = Questions(path=gsm, test_path=test_path)
    assert (environment.num_tasks(TRAIN), environment.num_tasks(TEST)) == (9, 1)
    assert environment.task(TEST, 0).answer == "101"


def test_ones_own_reward_judges_and_a_hanging_one_is_killed(gsm: str, tmp_path: Path) -> None:
    reward = tmp_path / "mine.py"
    reward.write_text(
        "def reward(task, text):\n"
        "    while text == 'hang':\n        pass\n"
        "    return {'right': float(task.answer in text), 'short': 0.5 * (len(text) < 9)}\n"
    )
    environment = Questions(path=gsm, reward=f"{reward}:reward", reward_timeout_s=1, reward_workers=1)
    task = environment.task(TRAIN, 0)

    async def play() -> dict[str, float]:
        with pytest.raises(RewardTimeout):
            await environment.score(task, "hang")
        return dict((await environment.score(task, environment.gold(task))).parts)

    assert asyncio.run(play()) == {"right": 1.0, "short": 0.0}
    environment.close()


def test_bad_options_are_explained(gsm: str, tmp_path: Path) -> None:
    assert "exclude each other" in told(path=gsm, reward="ratchet.rewards.math:score_math", verifier="math")
    assert "exclude each other" in told(path=gsm, test_path=gsm, held_out=0.5)
    assert "has 0 groups" in told(path=gsm, answer_pattern="####")
    assert "is no regular expression" in told(path=gsm, answer_pattern="(")
    assert "lacks {question}" in told(path=gsm, prompt="hello")
    assert '"nowhere.py" does not exist' in told(path=gsm, reward="nowhere.py:reward")
    assert "is no path to a function" in told(path=gsm, reward="reward")
    assert '"problem" is missing' in told(path=gsm, question_field="problem")
    assert 'environment.verifier = "maths"' in told(path=gsm, verifier="maths")
    empty = write(tmp_path / "e.jsonl", {"question": "?", "answer": "####  \n"})
    assert "e.jsonl:1" in told(path=empty, answer_pattern=r"####([^\n]*)")


def test_a_test_split_with_nothing_held_out_says_so(gsm: str) -> None:
    with pytest.raises(ConfigError, match='nothing is held out for the split "test"'):
        Questions(path=gsm, held_out=0).task(TEST, 0)
