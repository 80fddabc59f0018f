"""The explorer that lives in another process, here in this one: which weights it samples with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from ratchet.config.schema import RunConfig
from ratchet.core.errors import RunError
from ratchet.core.rollout import Group
from ratchet.run.checkpoint import RunState, write_checkpoint
from ratchet.run.far_explorer import FarExplorer
from ratchet.run.game import Game
from ratchet.run.parts import make_environment, plan_for
from ratchet.run.policies import fresh_policy

Config = Callable[..., RunConfig]
Way = tuple[dict[str, Tensor], int, str]


def made(config: RunConfig, folder: Path) -> tuple[FarExplorer, Callable[[int], Way]]:
    """Return an explorer that begins at a checkpoint, and what gives weights of some version."""
    environment = make_environment(config)
    policy = fresh_policy(config, environment)
    first = write_checkpoint(folder / "checkpoints", policy, RunState(0, 0, policy.fingerprint()), {}, {})

    def way(version: int) -> Way:
        there = {name: weight + 0.01 * version for name, weight in policy.weights().items()}
        return there, version, policy.fingerprint(there)

    return FarExplorer(config, plan_for(config, policy, environment), first), way


def versions(group: Group) -> set[int]:
    return {turn.version for r in group.rollouts for t in r.trajectories for turn in t.turns}


def test_weights_of_which_half_are_older_are_refused_and_never_sampled_with(config: Config, tmp_path: Path) -> None:
    explorer, way = made(config(), tmp_path)
    older, (newer, version, fingerprint) = way(0), way(1)
    half = {**newer, **dict(list(older[0].items())[: len(newer) // 2])}

    async def play() -> None:
        game = Game(1, 0, 0, 3, False)
        assert versions(await explorer.play(game, *older)) == {0}
        with pytest.raises(RunError, match=r"weights of version 1 left with fingerprint .* and came as .*resume"):
            await explorer.play(game, half, version, fingerprint)
        assert versions(await explorer.play(game, *older)) == {0}, "what was there before is there still"
        assert versions(await explorer.play(game, newer, version, fingerprint)) == {1}

    asyncio.run(play())


def test_groups_that_are_abandoned_end_and_make_way_for_newer_weights(config: Config, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    explorer, way = made(config(f"environment.hold={hold}"), tmp_path)
    hold.touch()

    async def play() -> None:
        game = Game(0, 12, 12, 3, False)
        held = asyncio.create_task(explorer.play(game, *way(0)))  # never ends by itself, and nobody can cancel it
        await asyncio.sleep(0)
        newer = asyncio.create_task(explorer.play(Game(1, 4, 4, 3, False), *way(1)))
        await asyncio.sleep(0)
        await explorer.abandon()
        for task in (held, newer):
            with pytest.raises(RunError, match=r"Group (12|4) was abandoned"):
                await task
        hold.unlink()
        assert versions(await explorer.play(Game(1, 4, 4, 3, False), *way(1))) == {1}
        assert versions(await explorer.play(game, *way(0))) == {0}, "what was abandoned can be played anew"

    asyncio.run(play())


def test_weights_wait_until_groups_of_others_are_played(config: Config, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    explorer, way = made(config(f"environment.hold={hold}"), tmp_path)
    hold.touch()

    async def play() -> None:
        slow = asyncio.create_task(explorer.play(Game(0, 12, 12, 3, False), *way(0)))  # never ends by itself
        await asyncio.sleep(0)
        newer = asyncio.create_task(explorer.play(Game(1, 4, 4, 3, False), *way(1)))
        assert versions(await explorer.play(Game(0, 1, 1, 3, False), *way(0))) == {0}
        assert not newer.done()
        slow.cancel()  # nobody waits for it any more
        assert versions(await newer) == {1}

    asyncio.run(play())
