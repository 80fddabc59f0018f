"""``ratchet doctor``: what it prints, as text and as JSON, its exit codes, and the rollouts of our own runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ratchet.cli.main import main
from ratchet.core.rollout import Group, Rollout, Score, Status
from ratchet.core.task import Message, Task
from ratchet.store.run_store import RunStore

STEPS = 60


def doctor(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, words)])


def trl(path: Path, reward: np.ndarray) -> Path:
    rows = [{"step": i + 1, "loss": 0.0, "learning_rate": 1e-6, "grad_norm": 0.2, "reward": float(value),
             "reward_std": 0.3, "completions/mean_length": 120.0} for i, value in enumerate(reward)]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def rise(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 0.01, STEPS)
    return 0.2 + 0.5 * np.linspace(0, 1, STEPS) + noise


def fall() -> np.ndarray:
    return np.where(np.arange(STEPS) < 45, rise(), 0.15 + 0.001 * np.arange(STEPS))


def test_a_run_that_goes_well_ends_with_0_and_says_so(tmp_path: Path) -> None:
    result = doctor(trl(tmp_path / "log.jsonl", rise()))
    assert result.exit_code == 0
    assert "INFO  healthy_growth  (reward, steps 1 to 60)" in result.stdout


def test_a_collapse_ends_with_4_and_names_steps_causes_and_options(tmp_path: Path) -> None:
    result = doctor(trl(tmp_path / "log.jsonl", fall()))
    assert result.exit_code == 4
    assert "ERROR  reward_collapse" in result.stdout
    assert "steepest at step 46" in result.stdout
    assert "Lower the learning rate: learning_rate." in result.stdout


def test_a_warning_ends_with_3(tmp_path: Path) -> None:
    result = doctor(trl(tmp_path / "log.jsonl", 0.3 + np.random.default_rng(0).normal(0, 0.01, STEPS)))
    assert result.exit_code == 3
    assert "WARNING  no_learning" in result.stdout


def test_json_holds_findings_with_numbers_causes_and_sources(tmp_path: Path) -> None:
    result = doctor(trl(tmp_path / "log.jsonl", fall()), "--json")
    tree = json.loads(result.stdout)
    assert result.exit_code == 4
    assert tree["worst"] == "error"
    finding = tree["findings"][0]
    assert finding["rule"] == "reward_collapse"
    assert finding["first_step"] == 46
    assert finding["numbers"]["best"] > finding["numbers"]["end"]
    assert finding["sources"]


def test_of_several_logs_the_worst_decides(tmp_path: Path) -> None:
    fine, bad = trl(tmp_path / "a.jsonl", rise()), trl(tmp_path / "b.jsonl", fall())
    result = doctor(fine, bad)
    assert result.exit_code == 4
    assert str(fine) in result.stdout
    assert str(bad) in result.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\x00\x01\x02\x03" * 200, "is binary"),
        (b"\n".join(b'{"step": %d, "loss": 1.0, "learning_rate": 1e-5, "epoch": 0.1}' % i for i in range(20)), "no re"),
    ],
)
def test_what_cannot_be_used_ends_with_2_and_one_sentence(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    result = doctor(path)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_log_of_few_points_is_told_to_be_too_short(tmp_path: Path) -> None:
    result = doctor(trl(tmp_path / "log.jsonl", rise()[:5]))
    assert result.exit_code == 0
    assert "5 points of a reward: below 8" in result.stdout


def a_run(folder: Path) -> RunStore:
    """Return a run whose reward times out for three of eight attempts, so that nothing is learned."""
    store = RunStore.create(folder, {"environment": {"name": "questions"}, "algorithm": {"lr": 1e-6}}, {}, {})
    dice = np.random.default_rng(0)
    for step in range(40):
        store.append_metrics({"step": step, "reward/mean": 0.3 + 0.01 * dice.standard_normal(), "rollouts/asked": 8.0,
                              "rollouts/scored": 5.0, "drop/reward_timeout": 3.0, "len/response/mean": 30.0,
                              "time/step": 1.0})  # fmt: skip
    task = Task(environment="questions", prompt=(Message("user", "2+2"),), answer="4")
    attempts = tuple(
        Rollout(task.id, i, (), Status.REWARD_TIMEOUT if i < 3 else Status.OK, None if i < 3 else Score(0.3))
        for i in range(8)
    )
    store.write_groups(39, [Group(task, 5, 39, attempts)])
    return store


def test_a_run_of_ours_is_flat_because_of_timeouts_and_names_the_rollouts(tmp_path: Path) -> None:
    result = doctor(a_run(tmp_path / "run").folder)
    told = " ".join(result.stdout.split())
    assert result.exit_code == 4
    assert "because 38% of the rollouts were lost to reward timeout" in told
    assert "Rollouts: 39:5:0, 39:5:1, 39:5:2" in told
    assert "algorithm.lr (algorithm.lr is 1e-06)" in told
