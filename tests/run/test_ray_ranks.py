"""Ranks that train on a real Ray, beside explorers: the same numbers, places that are waited for, ranks that die."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray_runs import COSTS, SETTINGS, STEPS, check, on_ray
from rays import Node, Rays, Run, until
from runs import rows
from several import under_torchrun

from ratchet.cli.look import status_text
from ratchet.config.schema import RunConfig
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]
pytestmark = pytest.mark.slow
pytest.importorskip("ray")

WITHIN_S = 30.0
"""From the death of a rank, or of its node, until the run has stopped."""


def on_ranks(config: Config, rays: Rays, tmp_path: Path, *words: str, ranks: int = 2) -> Run:
    return on_ray(config, rays, tmp_path, f"cluster.ranks={ranks}", *words, explorers=1)


def ranks_of(run: Run) -> list[dict[str, Any]]:
    return [actor for actor in run.actors() if actor["name"].startswith("rank-")]


def left_on(*nodes: Node) -> list[str]:
    """Return what lives on nodes for a run."""
    pids = [pid for node in nodes for pid in node.processes()]
    names = [Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in pids]
    return [name for name in names if name.startswith(("ray::Host", "ray::_Seat"))]


def test_ranks_wait_for_their_places_then_train_the_same_model_in_parts_beside_explorers(
    config: Config, rays: Rays, tmp_path: Path
) -> None:
    head = rays.add(3)
    with on_ranks(config, rays, tmp_path, "cluster.shard=full", ranks=4).train() as run:
        run.until(lambda: "Training waits for 4 places with 1 CPU each; on all nodes together 3 of 3" in run.said())
        away = rays.add(2)
        run.until(lambda: len(ranks_of(run)) == 3)  # while the explorer is starting
        found = ranks_of(run)
        assert [actor["name"] for actor in found] == ["rank-1", "rank-2", "rank-3"]
        assert {actor["pid"] for actor in found} <= {*head.processes(), *away.processes()}
        text = status_text(RunStore.open(run.folder))
        for a in found:
            where = f"{a['name']} (pid {a['pid']} on {a['node']}, Ray's node {a['ray_node'][:8]})"
            assert f"{where} waits for rank 0, which waits for groups" in text, text
        assert run.code() == 0, run.said()
    last = run.folder / "checkpoints" / f"step_{STEPS:06d}"
    assert len(list(last.glob("optimiser*"))) == 4
    assert {path.name for path in (run.folder / "logs").glob("rank-*")} == {"rank-1.txt", "rank-2.txt", "rank-3.txt"}
    until(lambda: not left_on(head, away), 30, "ranks end with their run")
    check(run.folder, config, tmp_path, but=COSTS)


def test_a_rank_killed_while_others_explore_stops_the_run_which_names_it_and_goes_on_with_other_ranks(
    config: Config, rays: Rays, tmp_path: Path, hold: Path
) -> None:
    node = rays.add(4)
    with on_ranks(config, rays, tmp_path, f"environment.hold={hold}", ranks=3).train() as run:
        run.until(lambda: run.status().get("step") == 2)
        gone = ranks_of(run)[1]
        os.kill(gone["pid"], signal.SIGKILL)
        began = time.monotonic()
        assert run.code(WITHIN_S) == 1, run.said()
        print(f"rank killed: stopped within {time.monotonic() - began:.1f} s")
        assert f"rank-2 (pid {gone['pid']} on {gone['node']}) is gone" in run.said()
        assert "Go on with: ratchet resume" in run.said()
        until(lambda: not left_on(node), 30, "the others end with their run")
        hold.unlink()
        with run.resume("cluster.ranks=2"):
            assert run.code() == 0, run.said()
    check(run.folder, config, tmp_path, but=COSTS)


DIES_IN_A_STEP = """
import os, signal
from ratchet.cluster.seats import Seats
from ratchet.run.ranks import Ranks, Step

tell, seats = Ranks.tell, []
start = Seats.start


def started(self, work):
    start(self, work)
    seats.append(self)


def told(self, order):
    tell(self, order)
    if isinstance(order, Step) and order.number == 2:
        os.kill(seats[0].doing()[0]["pid"], signal.SIGKILL)


Ranks.tell, Seats.start = told, started
from ratchet.cli.main import main
main()
"""


@pytest.mark.parametrize("words", [(), ("train.overlap=true", "sync.offset=1")], ids=["in turn", "overlapping"])
def test_a_rank_killed_in_the_middle_of_a_step_stops_the_run_which_goes_on_as_if_nothing_had_happened(
    config: Config, rays: Rays, tmp_path: Path, words: tuple[str, ...]
) -> None:
    node = rays.add(3)
    with on_ranks(config, rays, tmp_path, *words).train(DIES_IN_A_STEP) as run:
        assert run.code() == 1, run.said()
        assert re.search(r"rank-1 \(pid \d+ on .*\) is gone: ", run.said()), run.said()
        assert len(rows(run.folder)) == 2
        until(lambda: not left_on(node), 30, "all end with their run")
        with run.resume():
            assert run.code() == 0, run.said()
    if not words:
        check(run.folder, config, tmp_path, but=COSTS)


def test_a_removed_node_with_a_rank_stops_the_run_which_goes_on_with_what_is_left(
    config: Config, rays: Rays, tmp_path: Path, hold: Path
) -> None:
    rays.add(1)
    away = rays.add(2)
    with on_ranks(config, rays, tmp_path, f"environment.hold={hold}").train() as run:
        run.until(lambda: run.status().get("step") == 2)
        assert ranks_of(run)[0]["pid"] in away.processes()
        away.kill()
        began = time.monotonic()
        assert run.code(WITHIN_S) == 1, run.said()
        print(f"node removed: stopped within {time.monotonic() - began:.1f} s")
        assert "lost another rank of this run" in run.said()
        hold.unlink()
        with run.resume("cluster.ranks=1"):
            assert run.code() == 0, run.said()
    check(run.folder, config, tmp_path, but=COSTS)


def test_an_interrupt_ends_ranks_and_explorers_and_leaves_the_ray_as_it_was(
    config: Config, rays: Rays, tmp_path: Path, hold: Path
) -> None:
    node = rays.add(3)
    with on_ranks(config, rays, tmp_path, f"environment.hold={hold}").train() as run:
        run.until(lambda: run.status().get("step") == 2)
        run.interrupt()
        assert run.code(WITHIN_S) == 0, run.said()
        until(lambda: not left_on(node), 30, "all end with their run")
        hold.unlink()
        with run.resume():
            assert run.code() == 0, run.said()
    check(run.folder, config, tmp_path, but=COSTS)


def test_under_torchrun_the_first_rank_has_the_explorers(config: Config, tmp_path: Path) -> None:
    chosen = config(*SETTINGS, "cluster.name=ray", "cluster.explorers=2", folder=tmp_path / "ray")
    under_torchrun(2, lambda rank: train(chosen) and None)
    check(tmp_path / "ray" / "run", config, tmp_path, but=COSTS)
