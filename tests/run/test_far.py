"""Explorers in other processes: whoever dies, each group comes back once and the run goes on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import group, rollout, turn
from runs import rows

from ratchet.cli.look import actor_text
from ratchet.cluster.crew import Member
from ratchet.cluster.host import LostError, UnreachableError
from ratchet.config.schema import RunConfig
from ratchet.core.errors import RunError
from ratchet.core.rollout import Group
from ratchet.run.far import FarGroups
from ratchet.run.late import Late
from ratchet.run.launch import train
from ratchet.run.sync import Weights
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]
HELD = Weights({"w": torch.zeros(1)}, 3, "f3")


class FakeHands:
    """Members that play at once; those named in `dying` die with the groups of their index under way.

    Those in `stuck` never finish a group, those in `mute` give no sign of life after the first until `unmute`, and
    those in `homeless` have no place until they are taken out of it. The connection to those in `cut_off` is broken.
    """

    def __init__(
        self,
        dying: dict[str, int],
        *,
        stuck: tuple[str, ...] = (),
        mute: tuple[str, ...] = (),
        homeless: set[str] | None = None,
    ) -> None:
        self.dying, self.hired, self.played, self.closed = dying, list[str](), list[tuple[str, int]](), False
        self.stuck, self.homeless = stuck, homeless or set()
        self.mute = {name: asyncio.Event() for name in mute}
        self.cut_off, self.abandoned = set[str](), list[str]()
        self.dismissed, self.told_to_stop, self.signs = list[str](), list[tuple[str, int]](), Counter[str]()

    def hire(self, name: str) -> Member:
        self.hired.append(name)
        return Member(name, None)

    def dismiss(self, member: Member) -> None:
        self.dismissed.append(member.name)

    def pool(self) -> list[dict[str, Any]]:
        return []

    async def lacks(self, member: Member) -> str:
        return "a node with 1 CPU free" if member.name in self.homeless else ""

    async def sign(self, member: Member) -> dict[str, Any]:
        self.signs[member.name] += 1
        self._reach(member)
        if member.name in self.mute and self.signs[member.name] > 1:
            await self.mute[member.name].wait()
        return {"pid": 1, "node": "here"}

    def _reach(self, member: Member) -> None:
        if member.name in self.cut_off:
            raise UnreachableError(f"{member.name} cannot be reached: connection timed out")

    def unmute(self, name: str) -> None:
        self.mute[name].set()

    def share(self, value: Any) -> Any:
        return value

    async def call(self, member: Member, method: str, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        self._reach(member)
        if method == "abandon":
            self.abandoned.append(member.name)
            return None
        game, _, version, fingerprint = arguments
        if member.name in self.stuck:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.told_to_stop.append((member.name, game.index))
                raise
        if self.dying.get(member.name, game.index + 1) <= game.index or "all" in self.dying:
            raise LostError(f"{member.name} is gone: it was killed")
        assert (version, fingerprint) == (3, "f3")
        self.played.append((member.name, game.index))
        return replace(group([rollout(1.0, turn([1], [2]))]), index=game.index, step=game.step)

    def close(self) -> None:
        self.closed = True


def far(
    hands: FakeHands,
    number: int,
    lost: list[tuple[str, list[int]]],
    tell: Callable[[], None] = lambda: None,
    **seconds: float,
) -> FarGroups:
    return FarGroups(
        lambda: hands,
        number,
        held=lambda: HELD,
        task_at=lambda index: index + 100,
        lost=lambda name, indexes, why: lost.append((name, indexes)),
        tell=tell,
        **seconds,
    )


async def played(source: FarGroups, prompts: int) -> list[Group]:
    found = await asyncio.gather(*(source.group(2, index, 3) for index in range(8, 8 + prompts)))
    await source.close()
    return found


def test_groups_are_dealt_to_all_explorers() -> None:
    hands = FakeHands({})
    found = asyncio.run(played(far(hands, 2, []), 6))
    assert [g.index for g in found] == [8, 9, 10, 11, 12, 13]
    assert {name for name, _ in hands.played} == {"explorer-1", "explorer-2"}
    assert hands.closed


def test_groups_of_an_explorer_that_dies_are_played_by_others_and_each_comes_once() -> None:
    lost: list[tuple[str, list[int]]] = []
    hands = FakeHands({"explorer-1": 10})  # dies with 10 and 12 under way, after 8
    found = asyncio.run(played(far(hands, 2, lost), 6))
    assert sorted(g.index for g in found) == [8, 9, 10, 11, 12, 13]
    assert len(hands.played) == 6
    assert lost == [("explorer-1", [10, 12])]
    assert hands.hired == ["explorer-1", "explorer-2", "explorer-3"]


def test_many_groups_that_begin_and_end_at_once_are_told_of_seldom() -> None:
    told: list[list[str]] = []

    async def play() -> None:
        source = FarGroups(
            lambda: FakeHands({}), 2, held=lambda: HELD, task_at=int, lost=lambda *_: None,
            tell=lambda: told.append([worker["name"] for worker in source.doing()]),
        )  # fmt: skip
        await asyncio.gather(*(source.group(0, index, 1) for index in range(64)))
        await source.close()

    asyncio.run(play())
    assert told[0] == ["explorer-1", "explorer-2"]
    assert len(told) < 20, "not once for each of 64 beginnings and 64 ends"


def test_groups_of_an_explorer_that_falls_silent_are_played_by_others_and_it_is_dismissed() -> None:
    lost: list[tuple[str, list[int]]] = []
    hands = FakeHands({}, stuck=("explorer-1",), mute=("explorer-1",))
    found = asyncio.run(played(far(hands, 2, lost, silence_s=0.05), 6))
    assert [g.index for g in found] == [8, 9, 10, 11, 12, 13]
    assert lost == [("explorer-1", [8, 10, 12])]
    assert hands.dismissed == ["explorer-1"]
    assert "explorer-3" in hands.hired


def test_an_explorer_that_is_overdue_is_told_of_and_given_nothing_until_it_is_heard_again() -> None:
    hands = FakeHands({}, mute=("explorer-1",))
    told: list[list[dict[str, Any]]] = []

    async def play() -> tuple[str, str]:
        source = far(hands, 2, [], silence_s=1.0, tell=lambda: told.append(source.doing()))

        async def until(silent: bool) -> str:
            while not told or any("silent" in actor for actor in told[-1]) != silent:
                await asyncio.sleep(0.01)
            return actor_text(told[-1][0])

        await asyncio.gather(*(source.group(0, index, 1) for index in range(4)))
        overdue = await until(True)
        await asyncio.gather(*(source.group(1, index, 1) for index in range(4, 8)))
        hands.unmute("explorer-1")
        heard = await until(False)
        await asyncio.gather(*(source.group(2, index, 1) for index in range(8, 12)))
        await source.close()
        return overdue, heard

    overdue, heard = asyncio.run(play())
    by_step = [{name for name, index in hands.played if index // 4 == step} for step in range(3)]
    assert by_step == [{"explorer-1", "explorer-2"}, {"explorer-2"}, {"explorer-1", "explorer-2"}]
    assert (hands.hired, hands.dismissed) == (["explorer-1", "explorer-2"], [])
    where = "explorer-1 (pid 1 on here) waits for a group to play"
    assert re.fullmatch(re.escape(where) + r"; its last sign of life came \d s ago", overdue)
    assert heard == where


def test_an_explorer_to_which_the_connection_breaks_keeps_its_place_and_abandons_what_it_played() -> None:
    hands = FakeHands({})

    async def play() -> tuple[list[Group], str, str]:
        source = far(hands, 2, [], silence_s=2.0)
        await asyncio.gather(*(source.group(0, index, 1) for index in range(4)))
        hands.cut_off.add("explorer-1")
        found = await asyncio.gather(*(source.group(1, index, 1) for index in range(4, 8)))
        overdue = actor_text(source.doing()[0])
        assert hands.abandoned == []
        hands.cut_off.clear()
        while not hands.abandoned or any("silent" in actor for actor in source.doing()):
            await asyncio.sleep(0.01)
        await asyncio.gather(*(source.group(2, index, 1) for index in range(8, 12)))
        heard = actor_text(source.doing()[0])
        await source.close()
        return found, overdue, heard

    found, overdue, heard = asyncio.run(play())
    assert [g.index for g in found] == [4, 5, 6, 7]
    assert Counter(index for _, index in hands.played) == Counter(range(12)), "each is played once"
    by_step = [{name for name, index in hands.played if index // 4 == step} for step in range(3)]
    assert by_step == [{"explorer-1", "explorer-2"}, {"explorer-2"}, {"explorer-1", "explorer-2"}]
    assert (hands.hired, hands.dismissed) == (["explorer-1", "explorer-2"], [])
    assert hands.abandoned == ["explorer-1"]
    assert "its last sign of life came" in overdue
    assert "its last sign of life came" not in heard


def test_groups_wait_while_all_explorers_are_cut_off_and_those_that_stay_so_are_replaced() -> None:
    lost: list[tuple[str, list[int]]] = []
    hands = FakeHands({})

    async def play() -> Group:
        source = far(hands, 1, lost, silence_s=0.2)
        await source.group(0, 0, 1)
        hands.cut_off.add("explorer-1")
        found = await source.group(1, 1, 1)
        await source.close()
        return found

    assert asyncio.run(play()).index == 1
    assert hands.played == [("explorer-1", 0), ("explorer-2", 1)]
    assert (lost, hands.dismissed) == ([("explorer-1", [1])], ["explorer-1"])


def test_an_idle_explorer_helps_with_groups_that_take_far_too_long_and_the_other_is_told_to_stop() -> None:
    lost: list[tuple[str, list[int]]] = []
    hands = FakeHands({}, stuck=("explorer-1",))
    found = asyncio.run(played(far(hands, 2, lost), 8))
    assert [g.index for g in found] == list(range(8, 16))
    assert hands.told_to_stop == [("explorer-1", index) for index in (8, 10, 12, 14)]
    assert (lost, hands.dismissed) == ([], [])


def test_an_explorer_without_a_place_is_given_nothing_and_its_status_says_what_it_waits_for() -> None:
    hands = FakeHands({}, homeless={"explorer-2"})

    async def play() -> list[dict[str, Any]]:
        source = far(hands, 2, [], gather_s=0.0)
        await asyncio.gather(*(source.group(0, index, 1) for index in range(4)))
        before = source.doing()
        hands.homeless.clear()
        while hands.signs.total() < 2:
            await asyncio.sleep(0.01)
        await asyncio.gather(*(source.group(1, index, 1) for index in range(4, 8)))
        await source.close()
        return before

    told = asyncio.run(play())
    assert [name for name, index in hands.played if index < 4] == ["explorer-1"] * 4
    assert {name for name, index in hands.played if index >= 4} == {"explorer-1", "explorer-2"}
    assert re.fullmatch(r"explorer-2 waits since \d s for a node with 1 CPU free", actor_text(told[1]))


def test_a_group_is_late_after_twice_the_time_that_nine_of_ten_take() -> None:
    late = Late()
    for seconds in (1.0, 1.5, 2.0):
        late.took(seconds)
    assert not late.is_late(100.0), "three groups say nothing about groups"
    for seconds in (2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 50.0):
        late.took(seconds)
    assert (late.is_late(3.9), late.is_late(4.1)) == (False, True)


def test_explorers_that_all_die_end_the_run_with_the_cause() -> None:
    with pytest.raises(RunError, match=r"Explorers died 7 times in a row .*explorer-\d+ is gone: it was killed"):
        asyncio.run(played(far(FakeHands({"all": 0}), 2, []), 4))


def test_the_status_tells_what_an_explorer_does() -> None:
    there = {"name": "explorer-1", "pid": 7, "node": "n1"}
    assert actor_text({"name": "explorer-1", "plays": [], "since": None}) == "explorer-1 is starting"
    assert actor_text({**there, "plays": []}) == "explorer-1 (pid 7 on n1) waits for a group to play"
    assert actor_text({**there, "plays": [3, 5], "since": 0.0}).startswith("explorer-1 (pid 7 on n1) plays 3, 5 since")


def test_the_status_tells_what_an_environment_elsewhere_does() -> None:
    there = {"name": "environment-1", "pid": 7, "node": "n1", "since": 0.0}
    assert actor_text({"name": "environment-1", "since": None}) == "environment-1 is starting"
    assert actor_text({**there, "calls": 0}) == "environment-1 (pid 7 on n1) waits for attempts"
    assert actor_text({**there, "calls": 3}) == "environment-1 (pid 7 on n1) plays 3 attempts"


def test_the_status_tells_what_a_rank_does_with_rank_0() -> None:
    rank = {"name": "rank-1", "pid": 7, "node": "n1", "ray_node": "5d0c1f2a99"}
    assert actor_text(rank) == "rank-1 (pid 7 on n1, Ray's node 5d0c1f2a) trains"
    assert actor_text(rank, {"for": "groups", "since": 0.0}).endswith("waits for rank 0, which waits for groups")


@pytest.mark.slow  # a real Ray
def test_explorers_killed_in_the_middle_of_rollouts_cost_no_group(config: Config, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    settings = ("train.steps=4", "explore.prompts_per_step=5")
    straight = train(config(*settings, folder=tmp_path / "straight")).folder
    hold = tmp_path / "hold"
    hold.touch()  # tasks from 12 on that begin while it is there never end: 10 and 11 of step 2 do
    folder, killed = tmp_path / "ray" / "run", threading.Event()
    ray = ("cluster.name=ray", "cluster.explorers=2", f"environment.hold={hold}")

    def kill_all() -> None:
        while not killed.wait(0.2):
            path = folder / "status.json"
            status = json.loads(path.read_text()) if path.is_file() else {}
            busy = [a["pid"] for a in status.get("actors", ()) if a["plays"] and "pid" in a and min(a["plays"]) >= 12]
            if len(busy) == 2:
                hold.unlink()
                for pid in busy:
                    os.kill(pid, signal.SIGKILL)
                killed.set()

    thread = threading.Thread(target=kill_all, daemon=True)
    thread.start()
    try:
        assert train(config(*settings, *ray, folder=tmp_path / "ray")).finished
    finally:
        killed.set()
        thread.join()
    store = RunStore.open(folder)
    lost = [event for event in store.events() if event["kind"] == "explorer_lost"]
    assert {index for event in lost for index in event["groups"]} == {12, 13, 14}  # one may lose both of its players
    for step, (mine, theirs) in enumerate(zip(rows(folder), rows(straight), strict=True)):
        assert sorted(g.index for g in store.read_groups(step)) == [5 * step + i for i in range(5)]
        assert sum(v for k, v in mine.items() if k.startswith("ledger/")) == 5 * 3
        assert mine == pytest.approx(theirs, rel=2e-3, abs=2e-5)
