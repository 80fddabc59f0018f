"""Between explorer and trainer: groups wait here, whole, until their step is trained."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from ratchet.core.rollout import Group


class StepBuffer:
    """First in, first out, by step. Lives in the run's event loop; holds what is not trained yet."""

    def __init__(self, groups_per_step: int, *, ahead: int, done: int) -> None:
        """`ahead` is how many steps may be sampled before their predecessor is trained; `done` steps are trained."""
        self._size, self._ahead, self._done = groups_per_step, ahead, done
        self._groups: dict[int, list[Group]] = defaultdict(list)
        self._changed = asyncio.Condition()

    async def room_for(self, step: int) -> None:
        """Return when the explorer may begin a step."""
        async with self._changed:
            await self._changed.wait_for(lambda: step - self._done <= self._ahead)

    async def put(self, group: Group) -> None:
        """Add a group to its step."""
        async with self._changed:
            self._groups[group.step].append(group)
            self._changed.notify_all()

    async def take(self, step: int) -> list[Group]:
        """Return the groups of a step once all are there, and forget them."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._groups[step]) >= self._size)
            return self._groups.pop(step)

    async def trained(self, step: int) -> None:
        """Say that a step is trained and on disk."""
        async with self._changed:
            self._done = step + 1
            self._changed.notify_all()
