"""Exploring in other processes: a source of groups that hands each group to one of several explorers.

The loops cannot tell it from an explorer of their own. A group is played whole by one explorer, comes back when it is
finished, and is put into the buffer at once. If an explorer dies, another plays the groups it had under way; since
every draw derives from names, they come out as they would have. So a finished group is never lost and none is trained
twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ratchet.cluster.crew import LostError, Member
from ratchet.core.errors import RunError
from ratchet.core.rollout import Group
from ratchet.run.game import Game
from ratchet.run.sync import Weights

LOSSES_IN_A_ROW = 3
"""Times that each explorer may die, on average, without any group being finished in between: then something is wrong
with what they do and not with where they live."""


TOLD_EVERY_S = 0.2
"""Seconds between two tellings of what explorers do: each writes about all of them, groups begin and end faster."""


class Hands(Protocol):
    """Who hosts explorers: `cluster.crew.Crew`."""

    def hire(self, name: str) -> Member: ...

    def share(self, value: Any) -> Any: ...

    async def call(self, member: Member, method: str, *arguments: Any) -> Any: ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Worker:
    member: Member
    plays: dict[int, float] = field(default_factory=dict)
    """Index of each group under way, and since when (Unix time)."""
    facts: Mapping[str, Any] = field(default_factory=dict)


class FarGroups:
    """A source of groups; see the top of this file."""

    def __init__(
        self,
        hands: Callable[[], Hands],
        number: int,
        *,
        held: Callable[[], Weights | None],
        task_at: Callable[[int], int],
        lost: Callable[[str, list[int], str], None],
        tell: Callable[[], None],
    ) -> None:
        """`hands` is asked for a host when the first group is wanted; `held` returns the weights to sample with.

        `lost` is told who died, which groups it had under way, and why; `tell` that `doing` has changed,
        within `TOLD_EVERY_S` seconds, once for all that changed meanwhile.
        """
        self._ask, self._number, self._held, self._task_at = hands, number, held, task_at
        self._lost, self._tell = lost, tell
        self._hands: Hands | None = None
        self._shared: tuple[Any, int, str] | None = None
        """The weights that explorers were last sent to fetch: where, which version, with what fingerprint."""
        self._workers: list[_Worker] = []
        self._hired = self._losses = 0
        self._greeting: set[asyncio.Task[None]] = set()
        self._telling: asyncio.TimerHandle | None = None
        self._told = -TOLD_EVERY_S

    async def group(self, step: int, index: int, samples: int, *, greedy: bool = False) -> Group:
        """Return group `index` when whoever plays it has finished."""
        if self._hands is None:
            self._hands = self._ask()
            for _ in range(self._number):
                self._hire()
        weights = self._held()
        assert weights is not None, "groups are asked for before weights have arrived"
        if self._shared is None or self._shared[1:] != (weights.version, weights.fingerprint):
            cpu = {name: tensor.cpu() for name, tensor in weights.tensors.items()}
            self._shared = (self._hands.share(cpu), weights.version, weights.fingerprint)
        return await self._played(Game(step, index, self._task_at(index), samples, greedy), self._shared)

    def doing(self) -> list[dict[str, Any]]:
        """Return of each explorer its name, where it lives, the groups it plays, and since when it does."""
        return [
            {"name": w.member.name, **w.facts, "plays": sorted(w.plays), "since": min(w.plays.values(), default=None)}
            for w in self._workers
        ]

    async def close(self) -> None:
        """End all explorers."""
        if self._telling is not None:
            self._telling.cancel()
        for task in self._greeting:
            task.cancel()
        if self._hands is not None:
            self._hands.close()

    async def _played(self, game: Game, way: tuple[Any, int, str]) -> Group:
        """Return a group, played by whoever lives long enough."""
        assert self._hands is not None
        while True:
            worker = min(self._workers, key=lambda w: len(w.plays))
            worker.plays[game.index] = time.time()
            self._tell_soon()
            try:
                group: Group = await self._hands.call(worker.member, "play", game, *way)
                self._losses = 0
                return group
            except LostError as error:
                self._replace(worker, str(error))
            finally:
                worker.plays.pop(game.index, None)
                self._tell_soon()

    def _tell_soon(self) -> None:
        """Tell at once if that was long ago, so that what goes wrong with it ends the run; else a little later."""
        wait = self._told + TOLD_EVERY_S - time.monotonic()
        if wait <= 0:
            self._tell_now()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(wait, self._tell_now)

    def _tell_now(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._telling, self._told = None, time.monotonic()
        self._tell()

    def _replace(self, worker: _Worker, why: str) -> None:
        """Put another explorer in the place of one that died; the first of its groups to notice does it."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        self._losses += 1
        self._lost(worker.member.name, sorted(worker.plays), why)
        if self._losses > LOSSES_IN_A_ROW * self._number:
            raise RunError(
                f"Explorers died {self._losses} times in a row and finished no group in between. The last: {why}"
            )
        self._hire()

    def _hire(self) -> None:
        assert self._hands is not None
        self._hired += 1
        worker = _Worker(self._hands.hire(f"explorer-{self._hired}"))
        self._workers.append(worker)
        greeting = asyncio.ensure_future(self._greet(worker))
        self._greeting.add(greeting)
        greeting.add_done_callback(self._greeting.discard)

    async def _greet(self, worker: _Worker) -> None:
        """Learn where an explorer lives, for those who look."""
        assert self._hands is not None
        try:
            worker.facts = await self._hands.call(worker.member, "where")
        except (LostError, RunError):
            return  # whoever plays with it meets the same
        self._tell_soon()
