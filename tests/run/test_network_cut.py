"""A network that is cut between a run and one of its explorers or ranks, on a real Ray with a link between two nodes.

The far node lives in a network namespace of this machine. `SILENCE_S` is shorter than its default so that a test is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_runs import COSTS, WITHIN_S, check, on_ray, plays_held
from rays import Node, Rays, Run, Wire, has_namespaces, until

from ratchet.cli.look import status_text
from ratchet.config.schema import RunConfig
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_namespaces(), reason="only root may make network namespaces, with ip and tc (iproute2)"),
]
pytest.importorskip("ray")

SILENCE_S = 20.0
DEAD_S = 75.0
"""A cut by whose end Ray takes the node beyond it for dead: it waits 10 s for each of five signs of life, asked for 3 s
after the last. A node that hears nothing for 60 s ends by itself."""
GIVEN_UP_S = 20.0
"""From when an explorer beyond a cut is to be given up until it is: signs of life are asked for every 5 s, and what a
machine of two cores adds."""
ENDS_S = 60.0
"""From the end of a cut until what was given up beyond it has ended. Packets are tried again ever more rarely, after a
cut of 30 s for the first time 21 s later."""
BACK_S = 60.0
"""From when there is a place again until the run has ended: it takes two steps more."""


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with Wire(tmp_path / "own") as made:
        yield made


@pytest.fixture
def rays(tmp_path: Path, wire: Wire) -> Iterator[Rays]:
    with Rays(tmp_path / "rays", namespaces={wire.there: wire.words}, ip=wire.here) as made:
        yield made


def beyond(run: Run, far: Node, explorers: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the explorer at the far end and the others, once all play groups that do not end."""
    run.until(lambda: plays_held(run, explorers))
    (there,) = (actor for actor in run.actors() if int(actor["pid"]) in far.processes())
    return there, [actor for actor in run.actors() if actor != there]


def with_one_explorer_beyond(config: Config, rays: Rays, wire: Wire, tmp_path: Path, *words: str) -> tuple[Run, Node]:
    """Return a run that is about to begin, whose only explorer will be beyond the wire."""
    rays.add(0)
    far = rays.add(1, ip=wire.there)
    return on_ray(config, rays, tmp_path, *words, explorers=1), far


def says_silent(run: Run, name: str) -> bool:
    lines = [line for line in status_text(RunStore.open(run.folder)).splitlines() if line.startswith(name)]
    return any(re.search(r"\) (plays|waits for) .*; its last sign of life came \d+ s ago$", line) for line in lines)


def lasts(began: float, seconds: float) -> None:
    until(lambda: time.monotonic() >= began + seconds, seconds, "the cut's length")


def serve_again(rays: Rays, wire: Wire, far: Node, gone: dict[str, Any]) -> None:
    """Mend the wire, see that who was given up beyond it ends, and add a node in case the one there has ended, too."""
    assert int(gone["pid"]) in far.processes() or far.has_ended(), "beyond the cut it goes on"
    wire.mend()
    mended = time.monotonic()
    until(lambda: int(gone["pid"]) not in far.processes(), ENDS_S, "the explorer that was given up ends")
    print(f"mended: the explorer that was given up had ended within {time.monotonic() - mended:.1f} s")
    rays.add(1)


def test_a_cut_of_30_s_costs_no_group_for_others_play_what_was_beyond_it(
    config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path
) -> None:
    rays.add(1)
    far = rays.add(1, ip=wire.there)
    words = (f"environment.hold={hold}", f"cluster.silence_s={SILENCE_S}")
    with on_ray(config, rays, tmp_path, *words).train() as run:
        gone, (here,) = beyond(run, far, 2)
        wire.cut()
        cut = time.monotonic()
        hold.unlink()
        took = run.until(lambda: says_silent(run, gone["name"]), SILENCE_S)
        print(f"cut: the status says so within {took:.1f} s")

        def are_played_here() -> bool:
            plays = {actor["name"]: actor["plays"] for actor in run.actors()}
            return not plays.get(gone["name"]) and plays[here["name"]] == here["plays"]  # none but its own, which hold

        run.until(are_played_here, SILENCE_S + GIVEN_UP_S)
        print(f"cut: its groups were played here within {time.monotonic() - cut:.1f} s")
        run.until(lambda: gone["name"] not in [actor["name"] for actor in run.actors()], SILENCE_S + GIVEN_UP_S)
        print(f"cut: given up within {time.monotonic() - cut:.1f} s")
        run.until(lambda: "explorer-3 waits since" in status_text(RunStore.open(run.folder)))
        lasts(cut, 30)
        serve_again(rays, wire, far, gone)
        assert run.code(BACK_S) == 0, run.said()
    (lost,) = run.events("explorer_lost")
    assert (lost["explorer"], lost["groups"]) == (gone["name"], gone["plays"])
    print(f"given up for this: {lost['what']}")
    check(run.folder, config, tmp_path)


@pytest.mark.parametrize(("silence_s", "seconds"), [(SILENCE_S, 30.0), (600.0, DEAD_S)], ids=["by the run", "by Ray"])
def test_answers_from_beyond_a_cut_that_come_when_their_explorer_was_given_up_count_for_nothing(
    config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path, silence_s: float, seconds: float
) -> None:
    words = (f"environment.wait={hold}", f"cluster.silence_s={silence_s}")
    run, far = with_one_explorer_beyond(config, rays, wire, tmp_path, *words)
    with run.train():
        gone, _ = beyond(run, far, 1)
        wire.cut()
        cut = time.monotonic()
        hold.unlink()  # its groups end, and nobody hears of it
        given_up = min(silence_s, DEAD_S) + GIVEN_UP_S
        run.until(lambda: "explorer-2 waits since" in status_text(RunStore.open(run.folder)), given_up)
        print(f"cut: given up within {time.monotonic() - cut:.1f} s")
        lasts(cut, seconds)
        assert run.status()["step"] == 2
        serve_again(rays, wire, far, gone)
        assert run.code(BACK_S) == 0, run.said()
    (lost,) = run.events("explorer_lost")
    assert (lost["explorer"], lost["groups"]) == (gone["name"], gone["plays"])
    print(f"given up for this: {lost['what']}")
    check(run.folder, config, tmp_path)


@pytest.mark.parametrize(("seconds", "silence_s"), [(8.0, SILENCE_S), (30.0, 60.0)])
def test_a_cut_that_is_borne_replaces_nobody_and_what_ended_beyond_it_comes_afterwards(
    config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path, seconds: float, silence_s: float
) -> None:
    words = (f"environment.wait={hold}", f"cluster.silence_s={silence_s}")
    run, far = with_one_explorer_beyond(config, rays, wire, tmp_path, *words)
    with run.train():
        there, _ = beyond(run, far, 1)
        wire.cut()
        cut = time.monotonic()
        hold.unlink()
        took = run.until(lambda: says_silent(run, there["name"]), 0.4 * silence_s)
        print(f"cut: the status says so within {took:.1f} s")
        lasts(cut, seconds)
        assert (run.status()["step"], run.actors()[0]["pid"]) == (2, there["pid"])
        wire.mend()
        took = run.until(lambda: run.status()["step"] > 2, WITHIN_S)
        print(f"mended after {seconds} s: its groups are trained within {took:.1f} s")
        assert run.code() == 0, run.said()
    assert not run.events("explorer_lost"), "who played them is who was cut off"
    check(run.folder, config, tmp_path)


def test_where_connections_break_the_groups_begin_anew_and_nobody_is_replaced(
    config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path
) -> None:
    words = (f"environment.hold={hold}", f"cluster.silence_s={SILENCE_S}")  # a sign of life is asked for every 5 s
    run, far = with_one_explorer_beyond(config, rays, wire, tmp_path, *words)
    with run.train():
        there, _ = beyond(run, far, 1)
        wire.clog()
        hold.unlink()  # what is under way never ends
        took = run.until(lambda: not run.actors()[0]["plays"], SILENCE_S)
        print(f"clogged: its groups are known as lost within {took:.1f} s")
        assert (run.status()["step"], run.actors()[0]["pid"]) == (2, there["pid"])
        wire.clear()
        took = run.until(lambda: run.status()["step"] > 2, WITHIN_S)
        print(f"cleared: they are played anew and trained within {took:.1f} s")
        assert run.code() == 0, run.said()
    assert not run.events("explorer_lost")
    check(run.folder, config, tmp_path)


def with_a_rank_beyond(config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path) -> tuple[Run, Node]:
    """Return a run that is about to begin, whose second rank will be beyond the wire and its explorer here."""
    rays.add(1)
    far = rays.add(1, ip=wire.there)
    return on_ray(config, rays, tmp_path, "cluster.ranks=2", f"environment.wait={hold}", explorers=1), far


def explores_beside_ranks(run: Run, rays: Rays, far: Node) -> None:
    """Add a node for the explorer once both places of the ranks are taken; return when its groups do not end."""
    run.until(lambda: [a["name"] for a in run.actors() if "pid" in a] == ["rank-1"])
    assert int(run.actors()[0]["pid"]) in far.processes()
    rays.add(1)
    run.until(lambda: plays_held(run, 1))


@pytest.mark.parametrize("seconds", [8.0, 30.0])
def test_a_cut_in_a_step_of_several_ranks_costs_nothing_but_time(
    config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path, seconds: float
) -> None:
    run, far = with_a_rank_beyond(config, rays, wire, tmp_path, hold)
    with run.train():
        explores_beside_ranks(run, rays, far)
        wire.cut()
        cut = time.monotonic()
        hold.unlink()  # the groups are here, and the step begins
        lasts(cut, seconds)
        assert run.status()["step"] == 2
        wire.mend()
        took = run.until(lambda: run.status()["step"] > 2, WITHIN_S)
        print(f"mended after {seconds} s: the step was done within {took:.1f} s")
        assert run.code() == 0, run.said()
    check(run.folder, config, tmp_path, but=COSTS)


def test_a_cut_between_ranks_that_outlasts_ray_stops_the_run_which_names_the_rank_and_goes_on(
    config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path
) -> None:
    run, far = with_a_rank_beyond(config, rays, wire, tmp_path, hold)
    with run.train():
        explores_beside_ranks(run, rays, far)
        wire.cut()
        cut = time.monotonic()
        assert run.code(DEAD_S + GIVEN_UP_S) == 1, run.said()
        print(f"stopped {time.monotonic() - cut:.1f} s after the cut: {run.said().strip().splitlines()[-1]}")
        assert "lost another rank of this run" in run.said()
        assert "rank-1 (pid" in run.said()
        wire.mend()
        hold.unlink()
        until(far.has_ended, ENDS_S, "the node beyond the cut ends")
        with run.resume("cluster.ranks=1"):
            assert run.code() == 0, run.said()
    check(run.folder, config, tmp_path, but=COSTS)
