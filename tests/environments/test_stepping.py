"""Environments with reset and step."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ratchet.core.errors import ConfigError
from ratchet.core.task import Split
from ratchet.environments.scripted import Scripted
from ratchet.environments.stepping import Stepping
from ratchet.environments.table import build_environment

TRAIN = Split("train", 0)

CORRIDOR = """
class Corridor:
    closed = 0

    def __init__(self, length=3):
        self.length = length

    def reset(self, *, seed):
        self.place = seed % self.length
        return f"You stand at {self.place} of {self.length}.", {}

    def step(self, action):
        if action == "jump" or action == 1:
            self.place += 1
        elif action == "fall":
            raise RuntimeError("fell")
        there = self.place >= self.length
        return f"You stand at {self.place}.", 1.0 if there else -0.25, there, False, {}

    def close(self):
        Corridor.closed += 1
"""


@pytest.fixture
def corridor(tmp_path: Path) -> str:
    (tmp_path / "corridor.py").write_text(CORRIDOR)
    return f"{tmp_path / 'corridor.py'}:Corridor"


def test_an_episode_is_played_observation_by_observation_and_earns_the_sum_of_its_rewards(corridor: str) -> None:
    environment = Stepping(make=corridor, options={"length": 2}, system="Go to the end.")
    task = environment.task(TRAIN, 0)
    place = task.extras["seed"] % 2
    assert [m.content for m in task.prompt] == ["Go to the end.", f"You stand at {place} of 2."]
    policy = Scripted(["stay", *["jump"] * (2 - place)])
    outcome = asyncio.run(environment.run(task, policy))
    assert outcome.score.value == -0.25 + (1.0 if place else 0.75)
    assert outcome.metrics == {"actions": 3 - place}
    assert [m.content for m in policy.asked[1]] == [f"You stand at {place}."]


def test_actions_are_words_the_last_of_which_counts_and_an_answer_without_one_is_asked_again(corridor: str) -> None:
    environment = Stepping(make=corridor, options={"length": 1}, actions=("wait", "go on"))
    policy = Scripted(["hm, waiting", "I could wait, but I GO ON."])
    outcome = asyncio.run(environment.run(environment.task(TRAIN, 0), policy))
    assert outcome.score.value == 1.0
    assert [m.content for m in policy.asked[1]] == ["Answer with one of: wait, go on."]


def test_an_episode_ends_with_what_was_earned_when_its_turns_are_used_up(corridor: str) -> None:
    environment = Stepping(make=corridor, turns=2)
    outcome = asyncio.run(environment.run(environment.task(TRAIN, 0), Scripted(["stay", "stay"])))
    assert outcome.score.value == -0.5


def test_tasks_depend_on_split_and_index_alone_and_every_environment_is_closed(corridor: str) -> None:
    environment = Stepping(make=corridor)
    assert environment.task(TRAIN, 5) == Stepping(make=corridor).task(TRAIN, 5)
    assert environment.task(TRAIN, 5) != environment.task(Split("test", 0), 5)
    made = environment._new
    closed = made.closed
    with pytest.raises(RuntimeError, match="fell"):
        asyncio.run(environment.run(environment.task(TRAIN, 0), Scripted(["fall"])))
    assert made.closed == closed + 2


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        ("nowhere.py:Corridor", {}, "nowhere.py"),
        ("HERE", {"lenght": 3}, "cannot begin an episode: TypeError"),
    ],
)
def test_an_environment_that_cannot_begin_is_a_sentence(
    corridor: str, make: str, options: dict[str, int], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        build_environment("gymnasium", {"make": corridor if make == "HERE" else make, "options": options})


def test_an_environment_of_gymnasium_is_made_by_its_id() -> None:
    pytest.importorskip("gymnasium")
    options = {"is_slippery": False, "render_mode": "ansi"}
    environment = Stepping(make="FrozenLake-v1", options=options, actions=("left", "down", "right", "up"))
    task = environment.task(TRAIN, 0)
    assert "SFFF" in task.prompt[0].content.replace("\x1b[41m", "").replace("\x1b[0m", "")
    way = ["down", "down", "right", "right", "down", "right"]
    outcome = asyncio.run(environment.run(task, Scripted(way)))
    assert outcome.score.value == 1.0
    assert outcome.metrics == {"actions": 6}
    with pytest.raises(ConfigError, match="cannot begin an episode"):
        build_environment("gymnasium", {"make": "FrozenLaek-v1"})
