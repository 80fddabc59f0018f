"""A run on several ranks: the same numbers, checkpoints that any number of ranks goes on from, and ranks that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
import torch
from builders import random_groups, tiny_policy
from runs import rows
from several import forked, on_ranks, under_torchrun

from ratchet.algorithms.table import build_algorithm
from ratchet.config.learning import AlgorithmSection, TrainSection
from ratchet.config.read import config_from_tree, merge
from ratchet.config.schema import RunConfig
from ratchet.core.errors import CheckpointError, ConfigError, RunError
from ratchet.policy.policy import Policy
from ratchet.run.checkpoint import RunState, newest_sound, read_checkpoint, write_checkpoint
from ratchet.run.launch import resume, train
from ratchet.run.moments import Moments, write_moments
from ratchet.run.observer import Silent
from ratchet.train.team import ALONE, Team
from ratchet.train.trainer import Trainer

Config = Callable[..., RunConfig]
SHARDED = ("cluster.shard=full", "record.checkpoint_every=1")
COSTS = ("tokens/forward", "flops/")
"""What depends on how a batch is cut: a prompt may be computed on two ranks."""


def numbers(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.startswith(COSTS)} for row in rows(folder)]


def assert_alike(folder: Path, other: Path) -> None:
    """Two runs report the same numbers and end with the same weights, but for rounding in float32."""
    for mine, theirs in zip(numbers(folder), numbers(other), strict=True):
        assert mine == pytest.approx(theirs, rel=2e-3, abs=2e-5)
    ours, others = (Policy.load(newest_sound(f / "checkpoints")[0]).weights() for f in (folder, other))
    for name, weight in ours.items():
        torch.testing.assert_close(weight, others[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # runs of seven processes, from the first step to the figures
def test_a_run_goes_on_from_a_sharded_checkpoint_on_any_number_of_ranks(config: Config, tmp_path: Path) -> None:
    straight = train(config("train.steps=4", "record.checkpoint_every=1", folder=tmp_path / "straight")).folder
    begun = config("train.steps=2", *SHARDED, folder=tmp_path / "many")
    folder = tmp_path / "many" / "run"
    under_torchrun(2, lambda rank: train(begun) and None)
    state = read_checkpoint(folder / "checkpoints" / "step_000002").optimiser
    one = read_checkpoint(straight / "checkpoints" / "step_000002").optimiser
    assert set(state) == set(one)
    for name in one:
        torch.testing.assert_close(state[name], one[name], rtol=1e-4, atol=1e-6)
    words = ("train.steps=3",)
    under_torchrun(4, lambda rank: resume(folder, words=words, accept_changes=True) and None)
    assert len(list((folder / "checkpoints" / "step_000003").glob("optimiser*"))) == 4
    resume(folder, words=("train.steps=4", "cluster.shard=none"), accept_changes=True)
    assert_alike(folder, straight)


@pytest.mark.slow
def test_ranks_with_all_weights_train_the_same_model(config: Config, tmp_path: Path) -> None:
    settings = ("train.steps=2", "train.updates_per_batch=2", "train.overlap=true", "sync.offset=1")
    straight = train(config(*settings, folder=tmp_path / "straight")).folder
    begun = config(*settings, folder=tmp_path / "two")
    under_torchrun(2, lambda rank: train(begun) and None)
    assert_alike(tmp_path / "two" / "run", straight)


class Kills(Silent):
    """Kills a process after a step."""

    def __init__(self, pid: Path) -> None:
        self._pid = pid

    def step(self, row: dict[str, float], total: int) -> None:
        os.kill(int(self._pid.read_text()), signal.SIGKILL)


def test_rank_0_stops_and_says_why_when_another_is_killed(config: Config, tmp_path: Path) -> None:
    chosen, pid = config("train.steps=5", "record.checkpoint_every=1"), tmp_path / "pid"

    def work(rank: int) -> str:
        if rank:
            pid.write_text(str(os.getpid()))
            train(chosen)
            return "trained to the end"
        with pytest.raises(RunError) as raised:
            train(chosen, Kills(pid))
        return str(raised.value)

    (zero, said), (one, nothing) = under_torchrun(2, work)
    assert (zero, one, nothing) == (0, -signal.SIGKILL, None)
    assert "Rank 0 of 2 lost another rank" in said
    path, complaints = newest_sound(tmp_path / "run" / "checkpoints")  # what was finished is there
    assert (path.name, complaints) == ("step_000001", [])


def test_the_others_stop_when_rank_0_is_killed(config: Config, tmp_path: Path) -> None:
    chosen, pid = config("train.steps=5"), tmp_path / "pid"

    def work(rank: int) -> str:
        if not rank:
            pid.write_text(str(os.getpid()))
            train(chosen, Kills(pid))
        with pytest.raises(RunError, match="Rank 1 of 2 lost another rank"):
            train(chosen)
        return "stopped"

    assert under_torchrun(2, work) == [(-signal.SIGKILL, None), (0, "stopped")]


def test_another_number_of_ranks_than_were_started_is_refused(config: Config) -> None:
    chosen = config("cluster.ranks=3")
    with pytest.raises(ConfigError, match=r"cluster.ranks = 3, but 1 were started"):
        train(chosen)


def test_a_kill_while_others_write_leaves_the_earlier_checkpoint(tmp_path: Path) -> None:
    policy = tiny_policy()
    state = RunState(1, 1, policy.fingerprint())
    first = write_checkpoint(tmp_path, policy, state, {"sampled_by": torch.tensor([0])}, {})

    def work(rank: int) -> None:
        kill = lambda folder: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        write_checkpoint(tmp_path, policy, RunState(2, 2, state.fingerprint), {}, {}, others=kill)

    assert forked(1, work) == [(-signal.SIGKILL, None)]
    assert newest_sound(tmp_path) == (first, [])


def test_a_part_that_another_rank_cannot_write_leaves_no_checkpoint(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise CheckpointError("Rank 1 cannot write its part")

    policy = tiny_policy()
    with pytest.raises(CheckpointError, match="Rank 1 cannot write"):
        write_checkpoint(tmp_path, policy, RunState(1, 1, policy.fingerprint()), {}, {}, others=full)
    assert list(tmp_path.iterdir()) == []


def after_a_step(team: Team, folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Go on from the moments and weights of the step before, train a step, leave both in the folder."""
    policy = tiny_policy()
    if step:
        policy.decoder.load_state_dict(torch.load(folder / "weights.pt"))
    method, config = AlgorithmSection(lr=1e-2), TrainSection()
    trainer = Trainer(policy, build_algorithm("grpo", {}), method, config, seed=0, team=team)
    if step:
        trainer.restore(Moments(folder))
    trainer.step(random_groups(step), step)
    team.gathered("read")
    if team.rank == 0:
        for path in folder.glob("optimiser*"):
            path.unlink()
        torch.save(policy.decoder.state_dict(), folder / "weights.pt")
    team.gathered("removed")
    write_moments(folder, trainer.state(), rank=team.rank)
    return policy.weights()


def test_moments_of_any_number_of_ranks_are_read_by_any_other_number(tmp_path: Path) -> None:
    straight, many = tmp_path / "straight", tmp_path / "many"
    straight.mkdir()
    many.mkdir()
    for step, size in enumerate((2, 4, 1)):
        one = after_a_step(ALONE, straight, step)
        if size == 1:
            found = after_a_step(ALONE, many, step)
        else:
            found = on_ranks(size, "full", tmp_path / str(step), lambda team, k=step: after_a_step(team, many, k))[0]
            assert len(list(many.glob("optimiser*"))) == size
        for name, weight in one.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)


def test_moments_without_one_of_their_parts_are_refused(tmp_path: Path) -> None:
    on_ranks(2, "full", tmp_path / "meet", lambda team: after_a_step(team, tmp_path, 0))
    (tmp_path / "optimiser-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"of the \d+ rows of optimiser/.*: a rank's file is missing"):
        Moments(tmp_path)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"cluster": {"shard": "full"}, "train": {"optimiser": "adamw_8bit"}}, r"cluster.shard = \"full\" spreads"),
        ({"cluster": {"explorers": 3}}, r"cluster.explorers = 3 is about Ray"),
        (
            {"cluster": {"shard": "full"}, "policy": {"model": "m", "lora": {"rank": 8}}},
            r"policy.lora.rank = 8 trains few of them",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(tree: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_from_tree(merge({"environment": {"name": "judge"}}, tree))


@pytest.mark.slow  # three processes that each load torch
def test_the_launcher_names_the_rank_that_was_killed_and_leaves_no_process(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(config("train.steps=2000", "cluster.ranks=2").model_dump(mode="json")))
    command = [sys.executable, "-m", "ratchet", "train", str(file), "--plain"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert launcher.stdout is not None
    said = ""
    while "step 1/" not in said:
        said += launcher.stdout.readline()
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {rank_of(pid): int(pid) for pid in children}
    os.kill(ranks["1"], signal.SIGKILL)
    said += launcher.communicate(timeout=90)[0]
    assert launcher.returncode == 1
    assert f"Rank 1 of 2 (pid {ranks['1']}) was killed by SIGKILL" in said
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline


def rank_of(pid: str) -> str:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return next((e.removeprefix("RANK=") for e in entries if e.startswith("RANK=")), "")
