"""Environments of the library verifiers, at the endpoint of a run: a fake of it here, itself where it is there.

`RATCHET_VERIFIERS_PYTHONS` names the Pythons that have it, split by ``:``; versions before 0.4 and from 0.4 on are
different, and each is tested where one is named.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import string
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ratchet.cli.main import main
from ratchet.config.read import config_from_tree
from ratchet.core.errors import ConfigError, RunError
from ratchet.core.protocols import Sampling
from ratchet.core.rollout import Group, Status
from ratchet.core.task import Split
from ratchet.engines.scripted import ScriptedEngine
from ratchet.environments.table import build_environment
from ratchet.environments.verifiers import Verifiers
from ratchet.explore.explorer import ExploreLimits, Explorer
from ratchet.policy.tokenizer import tiny_tokenizer
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore

pytest.importorskip("httpx")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from ratchet.serve.training import opener

HERE = Path(__file__).parent
TOKENIZER = tiny_tokenizer((), string.printable)
SAMPLING = Sampling(max_tokens=50)
TRAIN, TEST = Split("train", 0), Split("test", 0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment and its library be found where the run is started."""
    if importlib.util.find_spec("verifiers") is not None:
        pytest.skip("the library itself is installed in this Python, and would hide the fake")
    monkeypatch.chdir(HERE / "verifiers_fake")


def opened(name: str = "vowels", **options: Any) -> Verifiers:
    made = build_environment("verifiers", {"id": name, **options})
    assert isinstance(made, Verifiers)
    made.serve_by(opener(made.agents, TOKENIZER, SAMPLING))
    return made


def groups(environment: Verifiers, *, prompts: int = 2, samples: int = 2, timeout_s: float = 60.0) -> list[Group]:
    """Return what an explorer makes of an environment's play; the policy says more vowels when it is asked twice."""
    engine = ScriptedEngine(TOKENIZER, lambda prompt, seed: "aab" if "abcd" in prompt else "abcd", context=2000)
    engine.load({}, 0, "abc")
    explorer = Explorer(environment, engine, TOKENIZER, TRAIN, SAMPLING, ExploreLimits(2000, timeout_s))

    async def explore() -> list[Group]:
        return [group async for group in explorer.groups(0, 0, prompts, samples)]

    with closing(environment):
        return asyncio.run(explore())


def refusal(name: str = "vowels", **options: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        opened(name, **options)
    return str(refused.value)


@pytest.mark.usefixtures("fake")
def test_attempts_are_played_by_the_environment_and_keep_the_tokens_of_their_turns() -> None:
    found = groups(opened(args={"turns": 2}), prompts=3, samples=2)
    assert len({group.task.extras["number"] for group in found}) == 3
    for rollout in (rollout for group in found for rollout in group.rollouts):
        assert rollout.score is not None, rollout.error
        assert rollout.score.value == pytest.approx(3 / 7)
        assert rollout.metrics == {"conversations": 1.0, "turns": 2.0, "share": rollout.score.value}
        (trajectory,) = rollout.trajectories
        one, two = trajectory.turns
        seen = np.concatenate([one.prompt, one.output])
        assert np.array_equal(two.prompt[: len(seen)], seen)
        assert TOKENIZER.decode(two.prompt[len(seen) :]) == "more"


@pytest.mark.usefixtures("fake")
def test_an_attempt_that_fails_is_counted_and_the_others_go_on() -> None:
    found = groups(opened(args={"fault": "fail"}, held_out=0.0), prompts=10, samples=1)
    by_number = {group.task.extras["number"]: group.rollouts[0] for group in found}
    assert [by_number[n].status for n in range(10)] == [Status.ENVIRONMENT_ERROR, Status.OK] * 5
    assert (by_number[0].error, by_number[2].error) == ("KeyError: 'no such letter'", "no such word")


@pytest.mark.usefixtures("fake")
def test_a_process_that_dies_is_started_again_once_and_what_it_held_is_counted(tmp_path: Path) -> None:
    environment = opened(args={"fault": "die", "once": str(tmp_path / "died")}, held_out=0.0, at_once=2)
    rollouts = [group.rollouts[0] for group in groups(environment, prompts=10, samples=1)]
    failed = [r for r in rollouts if r.status is Status.ENVIRONMENT_ERROR]
    assert 1 <= len(failed) <= 2, "what it held when it died, and nothing else"
    assert failed[0].error == 'The process of the environment "vowels" ended with exit code 3 (the ground opened).'
    assert [r.status for r in rollouts].count(Status.OK) == 10 - len(failed)


@pytest.mark.usefixtures("fake")
def test_a_process_that_dies_twice_stops_the_run_with_a_sentence() -> None:
    with pytest.raises(RunError, match=r"ended twice, the last time with exit code 3 \(the ground opened\)"):
        groups(opened(args={"fault": "die"}, held_out=0.0), prompts=10, samples=1)


@pytest.mark.usefixtures("fake")
def test_tasks_are_held_out_by_content_and_an_eval_dataset_is_the_test() -> None:
    with closing(opened(held_out=0.2)) as environment, closing(opened(held_out=0.2)) as again:
        assert (environment.num_tasks(TRAIN), environment.num_tasks(TEST)) == (8, 2)
        shown = [environment.task(TRAIN, i) for i in range(8)]
        assert shown == [again.task(TRAIN, i) for i in range(8)]
        asked = {task.prompt[-1].content for task in (*shown, *(environment.task(TEST, i) for i in range(2)))}
        assert asked == {f"{i:02d}" for i in range(10)}
    with closing(opened(args={"held": 3}, tasks=4)) as environment:
        assert (environment.num_tasks(TRAIN), environment.num_tasks(TEST)) == (4, 3)
        assert environment.task(TEST, 0).prompt[0].content in ("50", "51", "52")
    with closing(opened(held_out=0.0)) as environment, pytest.raises(ConfigError, match=r"Set environment\.held_out"):
        environment.task(TEST, 0)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "vowells"}, '"vowells" is not installed for'),
        ({"name": "broken"}, '"broken" cannot be imported: ModuleNotFoundError: No module named \'a_library_that'),
        ({"args": {"rows": -1}}, "has no data set to train on"),
        ({"args": {"rows": 0}}, "has no tasks to train on"),
        ({"args": {"rows": 1}}, "Set environment.held_out = 0"),
        ({"args": {"weights": []}}, "has no reward: its rubric holds no function with a weight"),
        ({"args": {"grouped": True}}, "judges attempts by comparing those of a group"),
        ({"args": {"lenght": 3}}, "unexpected keyword argument 'lenght'"),
        ({"settings": {"agent": {}}}, "takes environment.args alone"),
        ({"python": "/nowhere/python"}, 'environment.python = "/nowhere/python" cannot be started'),
        ({"python": "/bin/false"}, 'The environment "vowels" did not load: /bin/false ended with exit code 1'),
    ],
)
def test_an_environment_that_cannot_be_used_is_refused_with_a_sentence(options: dict[str, Any], said: str) -> None:
    assert said in refusal(**options)


def test_a_python_without_the_library_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("verifiers") is not None:
        pytest.skip("the library is installed in this Python")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text('[environment]\nname = "verifiers"\nid = "vowels"\n')
    done = CliRunner().invoke(main, ["train", "run.toml"])
    assert done.exit_code == 2
    assert "needs the library verifiers, which is not installed for" in done.output
    assert "pip install 'ratchet[verifiers]'" in done.output


def learned(tmp_path: Path, options: dict[str, Any], steps: int) -> list[float]:
    """Return the mean reward of each step of a tiny run."""
    config = config_from_tree(
        {
            "run": {"folder": str(tmp_path), "name": "vowels", "device": "cpu", "threads": 1},
            "environment": {"name": "verifiers", **options},
            "policy": {
                "tiny": {
                    "hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "head_size": 16, "intermediate": 16,
                    "context": 64,
                },
            },
            "explore": {"prompts_per_step": 2, "samples_per_prompt": 8, "max_tokens": 4},
            "algorithm": {"name": "grpo", "lr": 3e-2},
            "train": {"steps": steps},
        }
    )  # fmt: skip
    train(config)
    return [row["reward/mean"] for row in RunStore.open(tmp_path / "vowels").metrics()]


@pytest.mark.usefixtures("fake")
@pytest.mark.slow
def test_a_tiny_policy_learns_an_environment_of_the_fake(tmp_path: Path) -> None:
    reward = learned(tmp_path, {"id": "vowels", "args": {"turns": 2}}, 20)
    assert np.mean(reward[:3]) < 0.2
    assert np.mean(reward[-3:]) > 0.7


def pythons() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the Pythons that have the library, with its version."""
    own = sys.executable if importlib.util.find_spec("verifiers") is not None else ""
    for python in filter(None, [own, *os.environ.get("RATCHET_VERIFIERS_PYTHONS", "").split(":")]):
        ask = "import importlib.metadata as m; print(m.version('verifiers'))"
        said = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
        yield python, tuple(map(int, said.split(".")[:2]))


def having(*, task_sets: bool) -> str:
    """Return a Python that has the library in one of its forms."""
    for python, version in pythons():
        if (version >= (0, 4)) is task_sets:
            return python
    pytest.skip(
        f"verifiers {'0.4 or later' if task_sets else 'before 0.4'} is not installed: name a Python that has it in "
        "RATCHET_VERIFIERS_PYTHONS"
    )


@pytest.mark.slow
@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize(("task_sets", "name"), [(False, "vowels"), (True, "vowel-tasks")])
def test_the_library_itself_plays_both_of_its_forms(
    task_sets: bool, name: str, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = having(task_sets=task_sets)
    monkeypatch.chdir(HERE / "verifiers_environments")
    (group,) = groups(opened(name, python=python, args={"turns": turns}), prompts=1, samples=2)
    for rollout in group.rollouts:
        assert rollout.score is not None, rollout.error
        assert rollout.score.value == pytest.approx([1 / 4, 3 / 7][turns - 1])
        (trajectory,) = rollout.trajectories
        assert TOKENIZER.decode(trajectory.turns[0].prompt).startswith("Say.")
        assert len(trajectory.turns) == turns


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_sets", "options", "said"),
    [
        (False, {"name": "vowels", "args": {"rubric": "none"}}, "has no reward"),
        (False, {"name": "vowels", "args": {"rubric": "group"}}, "judges attempts by comparing"),
        (False, {"name": "vowels", "args": {"dataset": False}}, "has no data set to train on"),
        (True, {"name": "vowels"}, "cannot be imported"),
        (True, {"name": "vowel-tasks", "args": {"rows": 0}}, "has no tasks"),
        (
            True,
            {
                "name": "vowel-tasks",
                "settings": {"agent": {"harness": {"id": "bash"}, "runtime": {"type": "subprocess"}}},
            },
            "lets the policy run programs on this machine",
        ),
    ],
)
def test_what_the_library_would_let_pass_is_refused(
    task_sets: bool, options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = having(task_sets=task_sets)
    monkeypatch.chdir(HERE / "verifiers_environments")
    assert said in refusal(python=python, **options)


@pytest.mark.slow
def test_a_tiny_policy_learns_an_environment_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = having(task_sets=False)
    monkeypatch.chdir(HERE / "verifiers_environments")
    reward = learned(tmp_path, {"id": "vowels", "python": python, "args": {"turns": 2}}, 20)
    assert np.mean(reward[:3]) < 0.2
    assert np.mean(reward[-3:]) > 0.7
