"""Whole runs that sample behind a server: measured each step, brought back once, stopped in good order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from engine_servers import FakeSglang, FakeVllm, Served

from ratchet.cli.main import Commands
from ratchet.core.errors import ConfigError, EngineError
from ratchet.run.launch import resume, train
from ratchet.run.parts import make_environment
from ratchet.run.policies import fresh_policy
from ratchet.store.run_store import RunStore

CONTEXT = 24


@pytest.fixture(params=["vllm", "sglang"])
def server(request: pytest.FixtureRequest, config) -> Iterator[Served]:
    chosen = config()
    policy = fresh_policy(chosen, make_environment(chosen))
    made = FakeVllm(policy, CONTEXT) if request.param == "vllm" else FakeSglang(policy, CONTEXT)
    yield made
    made.close()


def words(server: Served, *more: str) -> tuple[str, ...]:
    name = "vllm" if isinstance(server, FakeVllm) else "sglang"
    return (f"engine.name={name}", f"engine.url={server.url}", "engine.start_s=5", "train.steps=4", *more)


def dying_at(server: Served, version: int, times: int) -> None:
    """Let the server die over its first answers under one version of the weights."""
    left = times

    def watch(path: str, body: Any) -> None:
        nonlocal left
        if left and path.endswith("generate") and server.label.startswith(f"{version}:"):
            server.dies += 1
            left -= 1

    server.watch = watch


def test_a_run_measures_each_step_and_survives_the_death_of_its_engine(config, server: Served) -> None:
    dying_at(server, 2, 1)
    store = RunStore.open(train(config(*words(server))).folder)
    assert store.status()["state"] == "finished"
    rows = store.metrics()
    assert len(rows) == 4
    assert rows[0]["gate/logp_diff_max"] < 1e-4
    for row in rows:
        assert 0 <= row["sampler/logp_diff_mean"] <= row["sampler/logp_diff_max"] < 1e-4
        assert abs(row["kl/sampler"]) < 1e-6
    turn = store.read_groups(3)[0].rollouts[0].trajectories[0].turns[0]
    assert (turn.version, turn.last_version) == (3, 3)
    said = [event["what"] for event in store.events() if event["kind"] == "engine"]
    assert len(said) == 2
    assert "died" in said[0]
    assert "back, with weights 2" in said[1]


@pytest.mark.parametrize("server", ["vllm"], indirect=True)
def test_an_engine_that_stays_dead_ends_the_run_with_a_sentence_and_its_checkpoints(
    config, server: Served, tmp_path: Path
) -> None:
    dying_at(server, 1, 1000)
    with pytest.raises(EngineError, match="died again under weights 1"):
        train(config(*words(server, "record.checkpoint_every=1", "train.steps=2")))
    folder = tmp_path / "run"
    assert RunStore.open(folder).status()["state"] == "failed"
    assert (folder / "checkpoints" / "step_000001").is_dir()
    server.watch, server.dies = (lambda path, body: None), 0
    assert resume(folder).finished
    assert len(RunStore.open(folder).metrics()) == 2


def test_an_engine_that_stays_dead_is_told_in_one_line_with_exit_code_2() -> None:
    @click.command()
    def broken() -> None:
        raise EngineError("It died again.")

    ended = CliRunner().invoke(Commands(commands=[broken]), ["broken"])
    assert ended.exit_code == 2
    assert ended.output == "ratchet: It died again.\n"


def test_a_server_that_is_not_there_costs_no_run_folder(config, tmp_path: Path) -> None:
    chosen = config("engine.name=vllm", "engine.url=http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="does not answer"):
        train(chosen)
    assert not (tmp_path / "run").exists()


def test_a_server_that_cannot_serve_the_run_costs_no_warm_start_and_no_run_folder(
    config, server: Served, tmp_path: Path
) -> None:
    server.longest = CONTEXT - 1
    with pytest.raises(ConfigError, match=f"room for {CONTEXT - 1}"):
        train(config(*words(server, "warm_start.steps=5", f"warm_start.cache={tmp_path / 'kept'}")))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "kept").exists()
