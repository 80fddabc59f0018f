"""A network that is cut between a run and one of its explorers, on a real Ray of two nodes with a link between them.

The far node lives in a network namespace of this machine. `SILENCE_S` is shorter than its default so that a test is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_runs import WITHIN_S, check, on_ray, plays_held
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
BREAKS_S, DEAD_S = 17.0, 30.0
"""Cuts by whose end Ray has given up its connection to an explorer (10 s after something was sent, as measured, and a
sign of life is asked for every 5 s), and the node beyond it, too (23 s)."""
GIVEN_UP_S = 40.0
"""From the cut until the explorer beyond it is given up: 20 s of silence that begin within 5 s, and what a machine of
two cores adds."""
ENDS_S = 30.0
"""From the end of the cut until a node that Ray took for dead meanwhile has ended by itself."""
BACK_S = 60.0
"""From when the node is added again until the run has ended: it takes two steps more."""


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    with Wire(tmp_path / "own") as made:
        yield made


@pytest.fixture
def rays(tmp_path: Path, wire: Wire) -> Iterator[Rays]:
    with Rays(tmp_path / "rays", namespaces={1: wire.words, 2: wire.words}, ip=wire.here) as made:
        yield made


def beyond(run: Run, far: Node, explorers: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the explorer at the far end and the others, once all play groups that do not end."""
    run.until(lambda: plays_held(run, explorers))
    (there,) = (actor for actor in run.actors() if int(actor["pid"]) in far.processes())
    return there, [actor for actor in run.actors() if actor != there]


def says_silent(run: Run, name: str) -> bool:
    lines = [line for line in status_text(RunStore.open(run.folder)).splitlines() if line.startswith(name)]
    return any(re.search(r"\) (plays|waits for) .*; its last sign of life came \d+ s ago$", line) for line in lines)


def lasts(began: float, seconds: float) -> None:
    until(lambda: time.monotonic() >= began + seconds, seconds, "the cut's length")


def serve_again(rays: Rays, wire: Wire, far: Node, gone: dict[str, Any]) -> None:
    """Mend the wire, see that what was beyond it ends by itself, and add the node again."""
    assert int(gone["pid"]) in far.processes(), "beyond the cut it goes on"
    wire.mend()
    mended = time.monotonic()
    until(lambda: int(gone["pid"]) not in far.processes(), ENDS_S, "the explorer that was given up ends")
    print(f"mended: the explorer that was given up ended within {time.monotonic() - mended:.1f} s")
    until(far.has_ended, ENDS_S, "the node that Ray took for dead ends")
    print(f"mended: the node that Ray took for dead ended within {time.monotonic() - mended:.1f} s")
    rays.add(1, ip=wire.there)


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

        run.until(are_played_here, GIVEN_UP_S)
        print(f"cut: its groups were played here within {time.monotonic() - cut:.1f} s")
        run.until(lambda: gone["name"] not in [actor["name"] for actor in run.actors()], GIVEN_UP_S)
        print(f"cut: given up within {time.monotonic() - cut:.1f} s")
        run.until(lambda: "explorer-3 waits since" in status_text(RunStore.open(run.folder)))
        lasts(cut, DEAD_S)
        serve_again(rays, wire, far, gone)
        assert run.code(BACK_S) == 0, run.said()
    (lost,) = run.events("explorer_lost")
    assert (lost["explorer"], lost["groups"]) == (gone["name"], gone["plays"])
    print(f"given up for this: {lost['what']}")
    check(run.folder, config, tmp_path)


def test_answers_from_beyond_a_cut_that_come_when_their_explorer_was_given_up_count_for_nothing(
    config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path
) -> None:
    rays.add(0)
    far = rays.add(1, ip=wire.there)
    words = (f"environment.wait={hold}", f"cluster.silence_s={SILENCE_S}")
    with on_ray(config, rays, tmp_path, *words, explorers=1).train() as run:
        gone, _ = beyond(run, far, 1)
        wire.cut()
        cut = time.monotonic()
        hold.unlink()  # its groups end, and nobody hears of it
        run.until(lambda: "explorer-2 waits since" in status_text(RunStore.open(run.folder)), GIVEN_UP_S)
        lasts(cut, DEAD_S)
        assert run.status()["step"] == 2
        serve_again(rays, wire, far, gone)
        assert run.code(BACK_S) == 0, run.said()
    (lost,) = run.events("explorer_lost")
    assert (lost["explorer"], lost["groups"]) == (gone["name"], gone["plays"])
    check(run.folder, config, tmp_path)


@pytest.mark.parametrize(("seconds", "option"), [(8.0, "wait"), (BREAKS_S, "hold")])
def test_a_cut_that_ends_before_ray_takes_the_node_for_dead_replaces_nobody(
    config: Config, rays: Rays, wire: Wire, tmp_path: Path, hold: Path, seconds: float, option: str
) -> None:
    """After the short one comes what ended beyond it; after the long one its groups, which never end, begin anew."""
    rays.add(0)
    far = rays.add(1, ip=wire.there)
    words = (f"environment.{option}={hold}", f"cluster.silence_s={SILENCE_S}")
    with on_ray(config, rays, tmp_path, *words, explorers=1).train() as run:
        there, _ = beyond(run, far, 1)
        wire.cut()
        cut = time.monotonic()
        took = run.until(lambda: says_silent(run, there["name"]), 8)
        print(f"cut: the status says so within {took:.1f} s")
        hold.unlink()
        lasts(cut, seconds)
        assert (run.status()["step"], run.actors()[0]["pid"]) == (2, there["pid"])
        wire.mend()
        took = run.until(lambda: run.status()["step"] > 2, WITHIN_S)
        print(f"mended after {seconds} s: its groups are trained within {took:.1f} s")
        assert run.code() == 0, run.said()
    assert not run.events("explorer_lost"), "who played them is who was cut off"
    check(run.folder, config, tmp_path)
