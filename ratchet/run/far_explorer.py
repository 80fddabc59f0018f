"""The explorer that lives in another process, made there from what its host is sent; and the source that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from ratchet.cluster.cluster import Cluster
from ratchet.cluster.crew import Crew
from ratchet.cluster.host import line_to_me
from ratchet.cluster.pool import Lines, Pool
from ratchet.config.plan import Plan
from ratchet.config.schema import RunConfig
from ratchet.core.errors import RunError
from ratchet.core.protocols import Reply
from ratchet.core.rollout import Group
from ratchet.engines.build import engine_for
from ratchet.run.checkpoint import checkpoint_path
from ratchet.run.curriculum import Curriculum
from ratchet.run.far import FarGroups
from ratchet.run.far_environment import EnvironmentWorker, FarEnvironment
from ratchet.run.frozen import Frozen
from ratchet.run.game import Game
from ratchet.run.parts import make_environment, set_threads
from ratchet.run.policies import choose_device, saved_policy
from ratchet.run.source import explorer_of, sampling_of
from ratchet.run.sync import MemorySync
from ratchet.store.run_store import RunStore


class FarExplorer:
    """An explorer with an engine of its own."""

    def __init__(self, config: RunConfig, plan: Plan, start: Path, workers: Lines | None = None) -> None:
        """`start` is the run's first checkpoint: what is not trained (tokenizer, shape) comes from there. `workers`, if
        there are any, play the attempts."""
        set_threads(config)
        self._config, self._plan = config, plan
        self._environment = own = make_environment(config)
        self._far = None if workers is None else FarEnvironment(own, workers, line_to_me("the explorer"))
        self._policy = saved_policy(config, start)
        self._engine = engine_for(
            config.engine, self._policy, context=plan.context_tokens, sampling=sampling_of(config), note=print
        )
        self._frozen = Frozen(config, start, self._policy.device)
        self._playing = 0
        self._plays: set[asyncio.Task[Group]] = set()
        self._changed = asyncio.Condition()

    async def play(self, game: Game, tensors: Mapping[str, Tensor], version: int, fingerprint: str) -> Group:
        """Return a finished group, sampled with these weights and no others.

        **Raises**: `RunError` if they came damaged, or the group was abandoned.
        """
        play = asyncio.create_task(self._play(game, tensors, version, fingerprint))
        self._plays.add(play)
        try:
            await asyncio.wait({play})
            if play.cancelled():
                raise RunError(f"Group {game.index} was abandoned.")
            return play.result()
        finally:
            self._plays.discard(play)
            play.cancel()

    async def abandon(self) -> None:
        """Stop playing all groups: the connection broke over which their answers were awaited."""
        for play in self._plays:
            play.cancel()

    async def close(self) -> None:
        """Close the engines: one may hold memory that outlives its process."""
        await self._frozen.close()
        await asyncio.to_thread(self._engine.close)

    async def speak(self, *asked: Any) -> Reply:
        """See `FarEnvironment.speak`."""
        assert self._far is not None
        return await self._far.speak(*asked)

    async def _play(self, game: Game, tensors: Mapping[str, Tensor], version: int, fingerprint: str) -> Group:
        async with self._changed:
            # A group of other weights may still be under way: one that nobody waits for any more, or that came late.
            await self._changed.wait_for(lambda: not self._playing or self._engine.version == version)
            self._hold(tensors, version, fingerprint)
            self._playing += 1
        try:
            return await self._played(game)
        finally:
            self._playing -= 1
            async with self._changed:
                self._changed.notify_all()

    def _hold(self, tensors: Mapping[str, Tensor], version: int, fingerprint: str) -> None:
        """Load weights, unless the engine has them, once all of them are there and found to be what was sent."""
        if self._engine.version == version:
            return
        there = {name: tensor.to(self._policy.device) for name, tensor in tensors.items()}
        made = self._policy.fingerprint(there)
        if made != fingerprint:
            raise RunError(
                f"The weights of version {version} left with fingerprint {fingerprint} and came as {made}. The run's "
                "own are untouched; go on with: ratchet resume"
            )
        self._engine.load(there, version, fingerprint)

    async def _played(self, game: Game) -> Group:
        explorer = explorer_of(
            self._config,
            self._far or self._environment,
            self._engine,
            self._policy,
            self._plan,
            self._frozen,
            task_at=lambda index: game.problem,
        )
        return await explorer.group(game.step, game.index, game.samples, greedy=game.greedy)


def far_groups(
    config: RunConfig,
    cluster: Cluster,
    store: RunStore,
    plan: Plan,
    curriculum: Curriculum,
    sync: MemorySync,
    step: Callable[[], int],
    tell: Callable[[], None],
) -> FarGroups:
    """Return the explorers on Ray as a source. Ray is started when the first group is asked for, if not before."""
    folder = store.folder.resolve()
    start, logs = checkpoint_path(folder / "checkpoints", 0), folder / "logs"
    gpus = 1 if choose_device(config).type == "cuda" else 0

    def lost(name: str, indexes: list[int], why: str) -> None:
        store.append_event("explorer_lost", step(), explorer=name, groups=indexes, what=why)

    def hands() -> Crew:
        number = config.cluster.environments
        pool = Pool(partial(EnvironmentWorker, config), cluster, logs, number, name="environment") if number else None
        workers = None if pool is None else pool.lines()
        return Crew(partial(FarExplorer, config, plan, start, workers), cluster, logs, gpus=gpus, pool=pool)

    return FarGroups(
        hands,
        config.cluster.explorers,
        held=lambda: sync.held,
        task_at=curriculum.task_at,
        lost=lost,
        tell=tell,
        silence_s=config.cluster.silence_s,
    )
