"""Runs on a real Ray in which something fails: how they begin, and what must be so when they have ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rays import Rays, Run
from runs import rows

from ratchet.config.schema import RunConfig
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]

STEPS, PROMPTS, SAMPLES = 4, 5, 3
SETTINGS = (f"train.steps={STEPS}", f"explore.prompts_per_step={PROMPTS}", "record.checkpoint_every=1")
COSTS = ("tokens/forward", "flops/")
"""What depends on how a batch is cut: a prompt may be computed on two ranks."""
WITHIN_S = 60.0
"""From the loss of a node until its groups are played elsewhere."""


def on_ray(config: Config, rays: Rays, tmp_path: Path, *words: str, explorers: int = 2) -> Run:
    ray = ("cluster.name=ray", f"cluster.explorers={explorers}", f"cluster.address={rays.address}")
    return Run(config(*SETTINGS, *ray, *words, folder=tmp_path / "ray"), rays)


def check(folder: Path, config: Config, tmp_path: Path, *words: str, but: tuple[str, ...] = ()) -> None:
    """Fail unless each group was trained once, the ledger closes, and the numbers are those of one process, `but` for
    those whose names begin so."""
    straight = train(config(*SETTINGS, *words, folder=tmp_path / "straight")).folder
    store = RunStore.open(folder)
    assert store.status()["state"] == "finished"
    for step, (mine, theirs) in enumerate(zip(rows(folder), rows(straight), strict=True)):
        assert sorted(g.index for g in store.read_groups(step)) == [PROMPTS * step + i for i in range(PROMPTS)]
        assert sum(v for k, v in mine.items() if k.startswith("ledger/")) == PROMPTS * SAMPLES == mine["rollouts/asked"]
        kept = {name: value for name, value in mine.items() if not name.startswith(but)}
        assert kept == pytest.approx({name: theirs[name] for name in kept}, rel=2e-3, abs=2e-5)
        assert mine.keys() == theirs.keys()


def plays_held(run: Run, number: int) -> list[dict[str, Any]]:
    """Return the explorers that play groups that never end, once there are so many."""
    busy = [a for a in run.actors() if a.get("plays") and "pid" in a and min(a["plays"]) >= 12]
    return busy if len(busy) == number else []
