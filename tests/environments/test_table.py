"""Opening environments by name, and what is said when that fails."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.core.errors import ConfigError
from ratchet.core.task import Split
from ratchet.environments.arithmetic import Arithmetic
from ratchet.environments.scripted import Scripted
from ratchet.environments.table import build_environment, close_environment

MINE = """
from ratchet.core.protocols import Outcome
from ratchet.core.rollout import Score
from ratchet.core.task import Message, Task

class Echo:
    name = "echo"
    def __init__(self, word: str, times: int = 2):
        self.word, self.times, self.closed = word, times, False
    def num_tasks(self, split):
        return None
    def task(self, split, index):
        return Task(self.name, (Message("user", f"{self.word} {index}"),), answer=self.word)
    async def run(self, task, policy):
        score = 0
        for _ in range(self.times):
            score += (await policy.chat(task.prompt)).text == task.answer
        return Outcome(Score(score))
    def close(self):
        self.closed = True

class Half:
    name = "half"

VALUE = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    return str(file)


def told(name: str, options: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        build_environment(name, options or {})
    return str(caught.value)


def test_a_built_in_environment_takes_its_options() -> None:
    environment = build_environment("arithmetic", {"terms_min": 3, "terms_max": 3})
    assert environment == Arithmetic(terms_min=3, terms_max=3)


def test_an_environment_of_ones_own_is_one_class_in_a_file(mine: str) -> None:
    environment = build_environment(f"{mine}:Echo", {"word": "hi"})
    task = environment.task(Split("train", 0), 5)
    outcome = asyncio.run(environment.run(task, Scripted(["hi", "ho"])))
    assert outcome.score.value == 1
    close_environment(environment)
    assert vars(environment)["closed"]


def test_closing_an_environment_that_holds_nothing_is_fine() -> None:
    close_environment(build_environment("arithmetic", {}))


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert 'environment.name = "arithmetics" is unknown. Did you mean "arithmetic"?' in told("arithmetics")
    assert "Known: agents, arithmetic, file.py:ClassName, gymnasium, judge" in told("zzz")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"term_min": 3}, ["environment.term_min", 'Did you mean "terms_min"?']),
        ({"full_share": 2}, ["environment.full_share = 2", "less than or equal to 1", "Share of demonstrations"]),
        ({"terms_min": "many"}, ['environment.terms_min = "many"', "integer", "Fewest terms"]),
        ({"terms_max": 27}, ["environment.terms_max = 27", "26"]),
        ({"terms_min": 9, "terms_max": 8}, ["terms_min = 9 is above terms_max = 8"]),
        ({"format_weight": float("nan")}, ["environment.format_weight = NaN"]),
        ({"full_share": 2, "repeat_last": -1}, ["1 more option(s)"]),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_what_is_allowed(options: dict[str, object], parts: list[str]) -> None:
    message = told("arithmetic", options)
    for part in parts:
        assert part in message
    assert "\n" not in message


def test_a_required_option_is_asked_for() -> None:
    assert "environment.path is required (JSONL, JSON, CSV" in told("questions")
    assert "environment.task is required (Name of the task" in told("reasoning_gym")


def test_ones_own_file_is_explained_when_it_cannot_be_used(mine: str, tmp_path: Path) -> None:
    assert "nowhere.py" in told("nowhere.py:Echo")
    assert 'does not define "Ecko". Did you mean "Echo"?' in told(f"{mine}:Ecko")
    assert "is of type int; name a class" in told(f"{mine}:VALUE")
    assert "lacks num_tasks, task, run" in told(f"{mine}:Half")
    assert "missing a required argument: 'word'" in told(f"{mine}:Echo")
    assert 'environment.wrd is no option of Echo. Did you mean "word"?' in told(f"{mine}:Echo", {"wrd": "hi"})
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('not today')\n")
    assert "RuntimeError: not today (broken.py, line 1)" in told(f"{broken}:Echo")


def test_the_table_imports_no_environment_and_no_library_behind_one() -> None:
    code = (
        "import sys, ratchet.environments.table;"
        "print([m for m in ('reasoning_gym', 'math_verify', 'torch', 'pebble', 'ratchet.environments.judge')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_scripted_policy_refuses_a_call_beyond_its_script(mine: str) -> None:
    environment = build_environment(f"{mine}:Echo", {"word": "hi", "times": 2})
    with pytest.raises(AssertionError, match="1 replies, and this is call 2"):
        asyncio.run(environment.run(environment.task(Split("train", 0), 0), Scripted(["hi"])))


def test_demonstrations_depend_on_the_generator_alone() -> None:
    environment = Arithmetic()
    task = environment.task(Split("train", 0), 0)
    assert environment.demonstration(task, random.Random(3)) == environment.demonstration(task, random.Random(3))
