"""The published TestWriter and BugFixer recipe, run for two steps on a random checkpoint with bugs from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from borrowed import POND, need_sandbox
from real_inputs import write_random_qwen2

from ratchet.bugs.make import Wishes
from ratchet.bugs.produce import Asked, make_bugs
from ratchet.config.read import read_config
from ratchet.core.task import Split
from ratchet.environments.reproduce import Reproduce
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore


@pytest.fixture(scope="module")
def bugs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bugs of tiny functions, as lines of a file."""
    path = tmp_path_factory.mktemp("bugs") / "bugs.jsonl"
    environment, split = Reproduce.model_validate({"kinds": ["one"], "examples_share": 0.0}), Split("train", 3)
    lines = []
    for i in range(16):
        extras = environment.task(split, i).extras
        names: dict[str, object] = {}
        exec(extras["fixed"], names)
        cases = [{"args": [a], "expected": names["f"](a)} for a in range(10)]  # type: ignore[operator]
        spec = extras["buggy"].split('"""')[1]
        files = {key: extras[key].replace(f'"""{spec}"""', '"""."""') for key in ("buggy", "fixed")}
        lines.append({"name": f"f{i}", "entry_point": "f", "spec": spec, **files, "testcases": cases})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


class Silent:
    """Hears how far the making of bugs is."""

    def now(self, what: str, done: int, total: int, lines: int) -> None:
        pass


def test_two_steps_of_the_published_recipe_run_on_bugs_of_a_file(tmp_path: Path, bugs: Path) -> None:
    run_two_steps(tmp_path, bugs, context=1024)


@pytest.mark.slow
def test_two_steps_run_on_bugs_made_out_of_a_package(tmp_path: Path) -> None:
    need_sandbox()
    bugs = tmp_path / "bugs.jsonl"
    make_bugs(Asked(str(POND / "words.py"), bugs, Wishes(), timeout_s=0.4), Silent())
    run_two_steps(tmp_path, bugs, context=8192)


def run_two_steps(tmp_path: Path, bugs: Path, context: int) -> None:
    need_sandbox()
    config = read_config(
        [
            "reproduce/kimi-dev",
            f"policy.model={tmp_path / 'model'}",
            f"environment.source={bugs}",
            "environment.held_out=0.25",
            f"run.folder={tmp_path / 'runs'}",
            "run.name=kimi",
            "run.threads=1",
            "run.device=cpu",
            f"policy.context={context}",  # of 65,536
            "curriculum.problems=8",  # of 4,096
            "curriculum.attempts=2",  # of 16
            "curriculum.solved=0.0",  # a random model solves nothing: here every problem counts as solved
            "explore.prompts_per_step=10",  # of 1,024
            "explore.samples_per_prompt=2",  # of 10
            "explore.max_tokens=24",  # of 32,768
            "train.steps=2",  # of 100
            "eval.tasks=4",  # of 500
            "eval.every=0",
        ]
    )
    write_random_qwen2(tmp_path / "model", bugs.read_text(encoding="utf-8").splitlines())
    store = RunStore.open(train(config).folder)
    rows = store.metrics()
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["curriculum/admitted"] == 8 for row in rows)
    assert all(row["ledger/trained"] == row["rollouts/asked"] == 20 for row in rows)
    roles = {group.task.extras["role"] for group in store.read_groups(0)}
    assert roles == {"testwriter", "bugfixer"}
    events = [event["kind"] for event in store.events()]
    assert events.count("eval") == 2
    assert "curriculum" in events
    probed = next(e for e in store.events() if e["kind"] == "reward_probe")["rows"]
    assert {row["probe"]: row["mean"] for row in probed}["gold"] == 1.0
    assert (config.train.updates_per_batch, config.algorithm.name, config.curriculum.every) == (5, "k1_5", 20)
