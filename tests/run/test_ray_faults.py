"""Faults on a real Ray of several nodes: no finished group is lost or trained twice, and the run goes on in time.

`WITHIN_S` are the seconds within which it does; docs/how-to/cluster.md states them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ray_runs import WITHIN_S, check, on_ray, plays_held
from rays import Node, Rays, until

from ratchet.cli.look import status_text
from ratchet.config.schema import RunConfig
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]
pytestmark = pytest.mark.slow
pytest.importorskip("ray")


def test_a_node_that_is_removed_costs_no_group_and_one_that_is_added_takes_the_waiting_explorer(
    config: Config, rays: Rays, tmp_path: Path, hold: Path
) -> None:
    rays.add(1)
    away = rays.add(1)
    with on_ray(config, rays, tmp_path, f"environment.hold={hold}").train() as run:
        run.until(lambda: plays_held(run, 2))
        assert len({actor["ray_node"] for actor in run.actors()}) == 2
        gone = next(a for a in run.actors() if int(a["pid"]) in away.processes())
        text = status_text(RunStore.open(run.folder))
        assert all(f"{a['name']} (pid {a['pid']} on " in text and f"node {a['ray_node'][:8]}) plays" in text
                   for a in run.actors()), text  # fmt: skip
        away.kill()
        took = run.until(lambda: gone["name"] not in [a["name"] for a in run.actors()], WITHIN_S)
        print(f"node removed: noticed within {took:.1f} s")
        run.until(lambda: any(a.get("lacks") for a in run.actors()))
        assert "explorer-3 waits since" in status_text(RunStore.open(run.folder))
        assert "a node with 1 CPU free" in status_text(RunStore.open(run.folder))
        rays.add(1)
        took = run.until(lambda: all("pid" in a for a in run.actors()), WITHIN_S)
        print(f"node added: the explorer is there within {took:.1f} s")
        hold.unlink()
        assert run.code() == 0, run.said()
    (lost,) = run.events("explorer_lost")
    assert lost["groups"] == gone["plays"]
    check(run.folder, config, tmp_path)


def test_an_explorer_that_is_frozen_is_given_up_and_its_groups_are_played_elsewhere(
    config: Config, rays: Rays, tmp_path: Path, hold: Path
) -> None:
    rays.add(2)
    words = (f"environment.hold={hold}", "cluster.silence_s=4")
    with on_ray(config, rays, tmp_path, *words).train() as run:
        run.until(lambda: plays_held(run, 2))
        frozen = run.actors()[0]
        os.kill(frozen["pid"], signal.SIGSTOP)
        took = run.until(lambda: frozen["name"] not in [a["name"] for a in run.actors()], 20)
        print(f"frozen: given up within {took:.1f} s")
        hold.unlink()
        assert run.code() == 0, run.said()
    (lost,) = run.events("explorer_lost")
    assert "gave no sign of life for 4 s" in lost["what"]
    check(run.folder, config, tmp_path)


def test_an_explorer_that_is_far_too_slow_holds_nobody_up(config: Config, rays: Rays, tmp_path: Path) -> None:
    """One that does nothing at all for the rest of the run, and still counts as alive, is as slow as one can be."""
    rays.add(2)
    long = "train.steps=12"
    with on_ray(config, rays, tmp_path, long, "cluster.silence_s=600").train() as run:
        run.until(lambda: run.status().get("step", 0) >= 1)
        os.kill(run.actors()[0]["pid"], signal.SIGSTOP)
        assert run.status()["step"] < 11
        assert run.code() == 0, run.said()
    assert not run.events("explorer_lost")
    check(run.folder, config, tmp_path, long)


DIES_AS_IT_PUBLISHES = """
import os, signal, sys
from ratchet.cluster.crew import Crew

whole, shared = Crew.share, 0


def share(self, value):
    global shared
    shared += 1
    if shared < 3:
        return whole(self, value)
    whole(self, dict(list(value.items())[: len(value) // 2]))
    os.kill(os.getpid(), signal.SIGKILL)


Crew.share = share
from ratchet.cli.main import main
main()
"""


def test_a_run_killed_as_it_publishes_weights_goes_on_as_if_nothing_had_happened(
    config: Config, rays: Rays, tmp_path: Path
) -> None:
    rays.add(2)
    with on_ray(config, rays, tmp_path).train(DIES_AS_IT_PUBLISHES) as run:
        assert run.code() == -signal.SIGKILL, run.said()
        assert RunStore.open(run.folder).status()["step"] == 2, "it died between the second step and the third"
        with run.resume():
            assert run.code() == 0, run.said()
    check(run.folder, config, tmp_path)


def test_a_full_disk_stops_the_run_with_the_cause_leaves_nothing_on_ray_and_resume_goes_on(
    config: Config, rays: Rays, tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("only root may mount a file system that can be full")
    disk, node = tmp_path / "ray", rays.add(2)
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=330k", "ratchet-test", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    try:
        with on_ray(config, rays, tmp_path).train() as run:
            assert run.code() == 1, run.said()
            assert re.search(r"^ratchet: .*(full|No space left).*ratchet resume", run.said(), re.M), run.said()
            until(lambda: not members(node), 30, "explorers end with their run")
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            with run.resume():
                assert run.code() == 0, run.said()
            check(run.folder, config, tmp_path)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_an_interrupted_run_leaves_a_ray_it_joined_as_it_was(
    config: Config, rays: Rays, tmp_path: Path, hold: Path
) -> None:
    node = rays.add(2)
    with on_ray(config, rays, tmp_path, f"environment.hold={hold}").train() as run:
        run.until(lambda: plays_held(run, 2))
        run.interrupt()
        assert run.code() == 0, run.said()
        assert "Go on with: ratchet resume" in run.said()
        until(lambda: not members(node), 30, "explorers end with their run")
        hold.unlink()
        with run.resume():
            assert run.code() == 0, run.said()
    check(run.folder, config, tmp_path)


def members(node: Node) -> list[str]:
    """Return the actors that live on a node."""
    names = [Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in node.processes()]
    return [name for name in names if name.startswith("ray::Host")]  # Ray keeps workers that idle
