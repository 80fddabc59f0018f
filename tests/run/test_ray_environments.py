"""Environments that play in processes of their own on a real Ray, and are killed there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_runs import check, on_ray, plays_held
from rays import Rays, Run

from ratchet.cli.look import status_text
from ratchet.config.schema import RunConfig
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]
pytestmark = pytest.mark.slow
pytest.importorskip("ray")


def workers_at_play(run: Run) -> list[dict[str, Any]]:
    """Return the workers, once all play and the explorer plays groups that never end."""
    found = [actor for actor in run.actors() if actor["name"].startswith("environment-")]
    return found if plays_held(run, 1) and all(actor.get("calls") for actor in found) else []


def test_attempts_of_environments_that_are_killed_are_played_anew_and_nothing_else_changes(
    config: Config, rays: Rays, tmp_path: Path, hold: Path
) -> None:
    rays.add(3)
    words = ("cluster.environments=2", f"environment.hold={hold}")
    with on_ray(config, rays, tmp_path, *words, explorers=1).train() as run:
        run.until(lambda: workers_at_play(run))
        killed = workers_at_play(run)
        text = status_text(RunStore.open(run.folder))
        for actor in killed:
            assert f"{actor['name']} (pid {actor['pid']} on {actor['node']}" in text, text
            assert f"plays {actor['calls']} attempts" in text, text
        hold.unlink()
        for actor in killed:
            os.kill(actor["pid"], signal.SIGKILL)
        assert run.code() == 0, run.said()
    assert not run.events("explorer_lost")
    logs = {path.name for path in (run.folder / "logs").iterdir()}
    assert logs == {"explorer-1.txt", "environment-1.txt", "environment-2.txt"}
    check(run.folder, config, tmp_path)


def test_who_has_no_core_says_so_and_begins_when_there_is_one(config: Config, rays: Rays, tmp_path: Path) -> None:
    rays.add(1)
    with on_ray(config, rays, tmp_path, "cluster.environments=1", explorers=1).train() as run:
        run.until(lambda: any(actor.get("lacks") for actor in run.actors()))
        text = status_text(RunStore.open(run.folder))
        assert "for a node with 1 CPU free; on all nodes together 0 of 1 CPUs are free" in text, text
        rays.add(1)
        assert run.code() == 0, run.said()
    check(run.folder, config, tmp_path)
