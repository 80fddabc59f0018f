"""Self-play: how tests are taken apart, what choosing goes by, and a whole round on a tiny policy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from builders import rollout, turn
from checkers import InProcess
from click.testing import CliRunner

from ratchet.cli.main import main
from ratchet.config.read import config_from_tree
from ratchet.core.rollout import Rollout
from ratchet.core.task import Split
from ratchet.environments.reproduce import Reproduce
from ratchet.environments.reproduce_edits import Edit, write_edit
from ratchet.run.launch import train
from ratchet.run.observer import Silent
from ratchet.run.selfplay import Bug, _tried, choice, majority, selfplay, single_tests

FILE = {"name": "reproduce", "testwriter_share": 0.5, "kinds": ["one"]}


def bug(**changes: object) -> Bug:
    """Two patches, two tests: the first test fails without a patch, the second does not."""
    facts = {
        "right": (False, True),
        "patched": ("a", "b"),
        "reproduces": (True, False),
        "failing": (1, 0),
        "passing": (0, 1),
        "repaired": ((0, 0), (1, 0)),
        "kept": ((0, 1), (0, 1)),
    }
    return Bug(**{**facts, **changes})


def test_the_patch_that_turns_a_failing_test_is_chosen() -> None:
    assert choice(bug(), 2) == 1
    assert choice(bug(), 1) == 0, "with one patch there is no choice"
    assert choice(bug(failing=(0, 0)), 2) == 0, "tests that fail nothing say nothing: the greedy patch"


def test_a_patch_that_does_not_apply_is_never_chosen() -> None:
    assert choice(bug(patched=(None, "b"), repaired=((9, 9), (0, 0))), 2) == 1
    assert choice(bug(patched=(None, None)), 2) is None


def test_the_majority_is_the_file_that_comes_up_most_often() -> None:
    many = bug(right=(False, True, True), patched=("a", "b", "b"))
    assert majority(many, 3) == 1
    assert majority(many, 2) == 0, "the first of equals"
    assert majority(bug(patched=(None, None)), 2) is None


def single_tests_of_a_test_are_counted_one_by_one() -> None:
    text = "import math\nX = 1\ndef test_a():\n    assert X\ndef helper(): pass\ndef test_b():\n    assert not X"
    first, second = single_tests(text)
    assert "test_a" in first
    assert "helper" in first
    assert "X = 1" in first
    assert "test_b" not in first
    assert "test_b" in second
    assert "test_a" not in second
    assert single_tests("assert f(1) == 2") == ["assert f(1) == 2"]
    assert single_tests("def (") == ["def ("]


def answers(*texts: str) -> list[Rollout]:
    return [
        rollout(1.0 if i == len(texts) - 1 else 0.0, turn([1], [2], text=text), attempt=i)
        for i, text in enumerate(texts)
    ]


def test_every_patch_is_run_against_every_test() -> None:
    environment = Reproduce.model_validate({"kinds": ["one"]})
    environment.use_checker(InProcess())
    split = Split("test", 0)
    task, fix = (environment.task_for(split, 3, role) for role in ("testwriter", "bugfixer"))
    assert task.extras["buggy"] == fix.extras["buggy"], "both roles see the same bug"
    buggy = task.extras["buggy"]
    line = buggy.splitlines(keepends=True)[-1]
    wrong = write_edit(Edit(line, line.replace("return", "return 1+1 and")))
    tried = asyncio.run(
        _tried(
            environment,
            task,
            answers("no edit", wrong, environment.gold(fix)),
            answers("assert True", "def (", environment.gold(task)),
        )
    )
    assert tried.patched[0] is None
    assert tried.right == (False, False, True)
    assert (tried.failing, tried.passing) == ((0, 0, 1), (1, 0, 0))
    assert tried.repaired[2] == (0, 0, 1)
    assert tried.kept[2] == (1, 0, 0)
    assert choice(tried, 3) == 2


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A policy that was trained for one step on the tiny functions."""
    tree = {
        "run": {"folder": str(tmp_path), "threads": 1, "name": "run"},
        "environment": FILE,
        "policy": {"tiny": {"hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "intermediate": 16}},
        "explore": {"prompts_per_step": 2, "samples_per_prompt": 2, "max_tokens": 8},
        "train": {"steps": 1},
    }
    return train(config_from_tree(tree)).folder


def test_a_whole_round_is_told_with_intervals(run: Path) -> None:
    result = selfplay(run, None, tasks=3, size=2, observer=Silent())
    assert [row.size for row in result.sizes] == [1, 2]
    assert result.bugs == 3
    for row in result.sizes:
        for rate in (row.chosen, row.majority, row.possible, row.average):
            assert 0 <= rate.low <= rate.value <= rate.high <= 1
    printed = CliRunner().invoke(main, ["selfplay", str(run), "--tasks", "2", "--size", "2", "--json"])
    assert json.loads(printed.output)["bugs"] == 2
    told = CliRunner().invoke(main, ["selfplay", str(run), "--tasks", "2", "--size", "2", "--plain"]).output
    assert "chosen by tests" in told
    assert "2 x 2" in told


def test_a_run_without_these_roles_is_refused(tmp_path: Path) -> None:
    tree = {
        "run": {"folder": str(tmp_path), "threads": 1, "name": "sum"},
        "environment": {"name": "arithmetic"},
        "policy": {"tiny": {"hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "intermediate": 16}},
        "explore": {"prompts_per_step": 1, "samples_per_prompt": 2, "max_tokens": 4},
        "train": {"steps": 1},
    }
    result = CliRunner().invoke(main, ["selfplay", str(train(config_from_tree(tree)).folder)])
    assert result.exit_code == 2
    assert 'trained on environment.name = "arithmetic"' in result.output
