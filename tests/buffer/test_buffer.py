"""The buffer as the two loops use it: what a step trains on depends on the step alone, and a kill changes nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from builders import within
from experiences import fingerprints, made
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.buffer.buffer import Buffer, Taken
from ratchet.buffer.groups import GroupTable
from ratchet.config.schema import BufferSection
from ratchet.core.rollout import Group

PROMPTS = 3


def buffer(table: GroupTable, *, ahead: int = 0, done: int = 0, **config: Any) -> Buffer:
    settings = BufferSection(**config)
    prompts = settings.train_prompts or PROMPTS
    return Buffer(table, settings, prompts_per_step=PROMPTS, train_prompts=prompts, ahead=ahead, done=done)


async def fill(one: Buffer, step: int, *, lag: int = 0) -> None:
    """Put the groups of a step, in no order."""
    for index in reversed(one.missing(step)):
        await one.put(made(step, index, version=max(0, step - lag), rewards=(0.0, float(index % 3))))


def places(groups: tuple[Group, ...]) -> list[tuple[int, int]]:
    return [(g.step, g.index) for g in groups]


async def one_step(one: Buffer, step: int, *, lag: int = 0) -> tuple[Taken, dict[str, float]]:
    await fill(one, step, lag=lag)
    taken = await one.take(step)
    metrics = one.finish(step)
    await one.trained(step)
    return taken, metrics


def test_fifo_trains_the_groups_of_the_step_in_order_and_once(table: GroupTable) -> None:
    async def main() -> None:
        one = buffer(table)
        for step in range(2):
            taken, metrics = await one_step(one, step)
            assert places(taken.trained) == [(step, 3 * step + i) for i in range(3)]
            assert taken.trained == taken.fresh
            assert (taken.stale, taken.replayed) == ((), 0)
            assert metrics == {
                "buffer/size": 0, "buffer/replayed_frac": 0, "buffer/uses_mean": 1, "buffer/evicted_stale": 0,
                "buffer/evicted_capacity": 0, "buffer/refused_stale": 0,
            }  # fmt: skip

    asyncio.run(main())


def test_a_step_is_taken_only_when_all_its_groups_are_there(table: GroupTable) -> None:
    async def main() -> None:
        one = buffer(table)
        taking = asyncio.create_task(one.take(0))
        for index in (2, 0, 1):
            await asyncio.sleep(0)
            assert not taking.done()
            await one.put(made(0, index))
        assert places((await taking).fresh) == [(0, 0), (0, 1), (0, 2)]

    with within(10):
        asyncio.run(main())


def test_the_explorer_waits_until_few_enough_steps_are_untrained(table: GroupTable) -> None:
    async def main() -> None:
        one = buffer(table, ahead=1)
        await one.room_for(0)
        await one.room_for(1)
        waiting = asyncio.create_task(one.room_for(2))
        await fill(one, 0)
        await one.take(0)
        one.finish(0)
        await asyncio.sleep(0)
        assert not waiting.done(), "finished is not trained: the weights are not published yet"
        await one.trained(0)
        await waiting

    with within(10):
        asyncio.run(main())


def test_replay_prefers_fresh_groups_and_pays_for_each_use(table: GroupTable) -> None:
    async def main() -> None:
        one = buffer(table, kind="replay", train_prompts=4, reuse_penalty=1.0)
        # freshness: version - uses
        first, _ = await one_step(one, 0)
        assert places(first.trained) == [(0, 0), (0, 1), (0, 2)]  # now at -1
        second, metrics = await one_step(one, 1)
        assert places(second.trained) == [(1, 3), (1, 4), (1, 5), (0, 0)]  # now at 0, 0, 0, -2
        assert (second.replayed, second.uses_mean) == (1, (1 + 1 + 1 + 2) / 4)
        assert metrics["buffer/replayed_frac"] == 0.25
        assert metrics["buffer/size"] == 6
        third, _ = await one_step(one, 2)
        assert places(third.trained) == [(2, 6), (2, 7), (2, 8), (1, 3)]

    asyncio.run(main())


def test_uses_cooldown_and_capacity_bound_replay(table: GroupTable) -> None:
    async def main() -> None:
        one = buffer(table, kind="replay", train_prompts=6, reuse_penalty=0.0, max_uses=2, cooldown=1, capacity=7)
        taken = [await one_step(one, step) for step in range(4)]
        assert [places(t.trained) for t, _ in taken] == [
            [(0, 0), (0, 1), (0, 2)],
            [(1, 3), (1, 4), (1, 5)],  # those of step 0 rest
            [(2, 6), (2, 7), (2, 8), (0, 0), (0, 1), (0, 2)],  # those of step 0 are used up
            [(3, 9), (3, 10), (3, 11), (1, 3), (1, 4), (1, 5)],
        ]
        assert [m["buffer/size"] for _, m in taken] == [3, 6, 6, 6]
        assert [m["buffer/evicted_capacity"] for _, m in taken] == [0, 0, 0, 0]

    asyncio.run(main())


def test_capacity_keeps_the_highest_priorities(table: GroupTable) -> None:
    async def main() -> None:
        one = buffer(table, kind="replay", reuse_penalty=0.25, capacity=4, ahead=1)
        await fill(one, 0)
        await fill(one, 1)  # ahead: neither counted nor evicted
        taken, metrics = await one_step(one, 0)
        assert (metrics["buffer/evicted_capacity"], metrics["buffer/size"]) == (0, 3)
        taken, metrics = await one_step(one, 1)
        assert places(taken.trained) == [(1, 3), (1, 4), (1, 5)]
        assert (metrics["buffer/evicted_capacity"], metrics["buffer/size"]) == (2, 4)
        assert [(e.step, e.index) for e in table.choose(9, 9, cooldown=0, max_uses=0)] == [
            (1, 3), (1, 4), (1, 5), (0, 0)
        ]  # fmt: skip

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["fifo", "replay"])
def test_groups_of_weights_too_far_behind_are_refused_and_handed_over_as_stale(table: GroupTable, kind: str) -> None:
    async def main() -> None:
        one = buffer(table, kind=kind, max_staleness=1, done=4)
        for index, version in ((12, 4), (13, 2), (14, 3)):
            await one.put(made(4, index, version=version))
        taken = await one.take(4)
        assert places(taken.trained) == [(4, 12), (4, 14)]
        assert (places(taken.fresh), places(taken.stale)) == ([(4, 12), (4, 14)], [(4, 13)])
        assert one.finish(4)["buffer/refused_stale"] == 1

    asyncio.run(main())


def test_replayed_groups_are_evicted_when_they_have_become_stale(table: GroupTable) -> None:
    async def main() -> None:
        one = buffer(table, kind="replay", train_prompts=9, max_staleness=1)
        taken = [await one_step(one, step) for step in range(3)]
        assert [t.replayed for t, _ in taken] == [0, 3, 3]
        assert [m["buffer/evicted_stale"] for _, m in taken] == [0, 0, 3]
        assert one.versions() == {1, 2}

    asyncio.run(main())


def test_a_step_without_anything_to_train_on_is_a_step(table: GroupTable) -> None:
    async def main() -> None:
        one = buffer(table, max_staleness=0, done=3)
        await fill(one, 3, lag=1)
        taken = await one.take(3)
        assert (taken.trained, len(taken.stale), taken.uses_mean) == ((), 3, 0.0)
        assert one.finish(3)["buffer/replayed_frac"] == 0

    asyncio.run(main())


def test_a_users_priority_decides_what_is_replayed(table: GroupTable, tmp_path: Path) -> None:
    file = tmp_path / "by_index.py"
    file.write_text("def lowest(group, uses):\n    return -group.index - 100 * (uses > 1)\n")

    async def main() -> None:
        one = buffer(table, kind="replay", train_prompts=2, priority=f"{file}:lowest")
        taken = [await one_step(one, step) for step in range(3)]
        assert [places(t.trained) for t, _ in taken] == [[(0, 0), (0, 1)], [(0, 0), (0, 1)], [(0, 2), (1, 3)]]

    asyncio.run(main())


def test_what_was_sampled_before_a_kill_is_not_sampled_again(opened: Callable[..., GroupTable]) -> None:
    async def before() -> None:
        one = buffer(opened(), max_staleness=0, ahead=1)
        await one_step(one, 0)
        await one.put(made(1, 4))
        await one.put(made(1, 3, version=0))  # refused
        await one.put(made(2, 6, version=1))

    async def after() -> None:
        again = opened(create=False)
        assert again.rewind(1, fingerprints(1)) == 3
        one = buffer(again, max_staleness=0, ahead=1, done=1)
        assert [one.missing(step) for step in (1, 2)] == [[5], [7, 8]]
        await one.put(made(1, 5))
        taken = await one.take(1)
        assert (places(taken.trained), places(taken.stale)) == ([(1, 4), (1, 5)], [(1, 3)])

    asyncio.run(before())
    asyncio.run(after())


@dataclass
class Killed(Exception):
    pass


@dataclass
class World:
    """A run that can be killed before anything it does."""

    url: str
    config: BufferSection
    steps: int
    ahead: int
    lag: int
    every: int
    rows: dict[int, tuple[list[tuple[int, int]], list[tuple[int, int]], dict[str, float]]] = field(default_factory=dict)
    checkpoints: list[int] = field(default_factory=lambda: [0])
    sampled: int = 0

    def run(self, *, create: bool, kill_after: int | None) -> bool:
        """Go on from the newest checkpoint; return whether the end was reached."""
        left = [kill_after]

        def alive() -> None:
            if left[0] is not None:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1

        table = GroupTable.open(self.url, "run", tokenizer="t", create=create)
        try:
            asyncio.run(self.loops(table, alive, create=create))
            return True
        except Killed:
            return False
        finally:
            table.close()

    async def loops(self, table: GroupTable, alive: Callable[[], None], *, create: bool) -> None:
        done = self.checkpoints[-1]
        if not create:
            table.rewind(done, fingerprints(done))
        one = Buffer(
            table, self.config, prompts_per_step=PROMPTS, train_prompts=self.config.train_prompts or PROMPTS,
            ahead=self.ahead, done=done,
        )  # fmt: skip
        tasks = [asyncio.create_task(loop) for loop in (self.explore(one, alive, done), self.train(one, alive, done))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def explore(self, one: Buffer, alive: Callable[[], None], done: int) -> None:
        for step in range(done, self.steps):
            await one.room_for(step)
            for index in one.missing(step):
                alive()
                version = max(0, step - self.lag - index % 2)  # known by then: the lag is at least `ahead`
                await one.put(made(step, index, version=version, rewards=(0.0, float(index * 7 % 5))))
                self.sampled += 1

    async def train(self, one: Buffer, alive: Callable[[], None], done: int) -> None:
        for step in range(done, self.steps):
            alive()
            taken = await one.take(step)
            alive()
            metrics = one.finish(step)
            self.rows[step] = places(taken.trained), places(taken.stale), metrics
            alive()
            if (step + 1) % self.every == 0:
                one.flush()
                self.checkpoints = [*self.checkpoints[-1:], step + 1]
                one.keep_from(self.checkpoints[0])
            alive()
            await one.trained(step)


@settings(max_examples=25)
@given(
    kind=st.sampled_from(["fifo", "replay", "replay"]),
    train_prompts=st.integers(1, 6),
    priority=st.sampled_from(["freshness", "advantage"]),
    penalty=st.sampled_from([0.0, 0.5, 3.0]),
    bounds=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 8)),
    staleness=st.integers(-1, 4),
    ahead=st.integers(0, 2),
    slack=st.integers(0, 1),
    every=st.integers(1, 3),
    kills=st.lists(st.integers(0, 30), max_size=4),
    damaged=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_head_starts_and_kills_change_nothing(
    kind: Any, train_prompts: int, priority: str, penalty: float, bounds: tuple[int, int, int], staleness: int,
    ahead: int, slack: int, every: int, kills: list[int], damaged: list[bool],
) -> None:  # fmt: skip
    cooldown, max_uses, capacity = bounds
    chosen: dict[str, Any] = {"max_staleness": staleness}
    if kind == "replay":
        chosen |= {
            "train_prompts": train_prompts, "priority": priority, "reuse_penalty": penalty, "cooldown": cooldown,
            "max_uses": max_uses, "capacity": capacity,
        }  # fmt: skip
    config = BufferSection(kind=kind, **chosen)
    with tempfile.TemporaryDirectory() as folder:
        straight = World(f"sqlite:///{folder}/straight", config, 7, ahead=0, lag=ahead + slack, every=every)
        assert straight.run(create=True, kill_after=None)
        other = World(f"sqlite:///{folder}/other", config, 7, ahead=ahead, lag=ahead + slack, every=every)
        ended, create = False, True
        for kill, bad in zip(kills, damaged, strict=False):
            ended = ended or other.run(create=create, kill_after=kill)
            create = False
            if bad and not ended and len(other.checkpoints) > 1:
                other.checkpoints.pop()
        assert ended or other.run(create=create, kill_after=None)
    assert other.rows == straight.rows
    if not kills:
        assert other.sampled == 7 * PROMPTS
