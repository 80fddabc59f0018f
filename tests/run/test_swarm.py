"""Whole runs of an orchestrator with frozen agents: what is recorded, what is trained, and what a kill changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import rows, weights

from ratchet.config.schema import RunConfig
from ratchet.run.launch import resume, train
from ratchet.run.observer import Silent
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]
SWARM = (
    "environment={name='swarm'}", "policy.tiny.hidden=32", "policy.tiny.context=320", "subagent.max_tokens=4",
    "explore.max_tokens=40", "explore.prompts_per_step=2", "warm_start.steps=60", "warm_start.batch=8",
    "warm_start.lr=1e-2", "warm_start.options={agent_share=0.2}", "train.steps=4", "record.checkpoint_every=2",
    "reward.weights={accuracy=1.0, finish={kind='linear', start=1.0, end=0.0, steps=3}}",
)  # fmt: skip


class Dies(Silent):
    def step(self, row: dict[str, float], total: int) -> None:
        if row["step"] == 2:
            raise MemoryError("killed")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("swarm")


@pytest.fixture
def straight(config: Config, kept: Path) -> Path:
    """The folder that holds a finished run, and the cache of its warm start; whichever test is first makes it."""
    if not (kept / "run").exists():
        train(config(*SWARM, f"warm_start.cache={kept}/cache", folder=kept))
    return kept


def test_a_run_records_its_agents_and_trains_on_the_orchestrator_alone(straight: Path) -> None:
    store = RunStore.open(straight / "run")
    table = store.metrics()
    groups = [g for step in range(4) for g in store.read_groups(step)]
    spawned = [t for g in groups for r in g.rollouts for t in r.trajectories if not t.trainable]
    assert spawned, "the warm start has taught it to launch agents"
    assert sum(row["agents/spawned"] for row in table) == len(spawned)
    for row in table:
        ends = sum(v for k, v in row.items() if k.startswith("ledger_agents/"))
        assert ends == row["agents/spawned"]
        assert row["prefix/breaks"] == 0
    own = sum(r.output_tokens for g in groups for r in g.rollouts)
    assert sum(row["tokens/generated"] for row in table) == own
    assert sum(row["tokens/trained"] for row in table) <= own
    assert all(t.turns[0].version == 0 for t in spawned), "frozen: the weights the run began with"
    assert {r.trajectories[t.parent].trainable for g in groups for r in g.rollouts for t in r.trajectories[1:]} == {
        True
    }


def test_a_kill_changes_nothing(config: Config, straight: Path, tmp_path: Path) -> None:
    words = (*SWARM, f"warm_start.cache={straight}/cache")
    with pytest.raises(MemoryError):
        train(config(*words), Dies())
    assert resume(tmp_path / "run").finished
    assert without_clocks(tmp_path / "run") == without_clocks(straight / "run")
    assert weights(tmp_path / "run", 4) == weights(straight / "run", 4)


def without_clocks(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("env/seconds/")} for row in rows(folder)]
