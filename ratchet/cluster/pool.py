"""Actors of which any will do: a call goes to the one with the fewest from the same caller, and Ray itself starts anew
those that die. Unlike a crew's members nobody watches over them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratchet.cluster.cluster import Cluster
from ratchet.cluster.host import CALLS_AT_ONCE, SIGNS, Host, Line, LostError, UnreachableError

CORE = {"CPU": 1}
"""What each takes."""
LOOK_EVERY_S = 1.0
"""Seconds between two looks at what the actors do."""


class Lines:
    """Ways to all actors of a pool; may be handed to other actors."""

    def __init__(self, lines: tuple[Line, ...]) -> None:
        self._lines, self._calls, self._doubtful = lines, [0] * len(lines), [False] * len(lines)

    async def call(self, method: str, *arguments: Any) -> Any:
        """Do what `Line.call` does, with the actor that has the fewest calls from here, rather one that was not lost.

        One that was lost is waited for until it is heard: Ray refuses calls to an actor that it is starting anew, and
        that says nothing against what is called.
        """
        chosen = min(range(len(self._lines)), key=lambda n: (self._doubtful[n], self._calls[n]))
        self._calls[chosen] += 1
        try:
            while self._doubtful[chosen]:
                await self._look(chosen)
            return await self._lines[chosen].call(method, *arguments)
        except LostError:
            self._doubtful[chosen] = True
            raise
        finally:
            self._calls[chosen] -= 1

    async def _look(self, n: int) -> None:
        try:
            await self._lines[n].busy()
            self._doubtful[n] = False
        except UnreachableError:
            await asyncio.sleep(LOOK_EVERY_S)


class Pool:
    """So many actors of one core each, spread over the nodes."""

    def __init__(self, make: Callable[[], Any], cluster: Cluster, logs: Path, number: int, *, name: str) -> None:
        """`make` makes the object of each, in its own process; `name` and a number name them. What one prints goes to a
        file of its name in `logs`."""
        self._ray, self._cluster = cluster.ray, cluster
        placed = self._ray.remote(concurrency_groups={SIGNS: 4})(Host).options(
            num_cpus=CORE["CPU"],
            max_restarts=-1,
            max_concurrency=CALLS_AT_ONCE,
            enable_task_events=False,
            scheduling_strategy="SPREAD",
        )
        names = [f"{name}-{n + 1}" for n in range(number)]
        self._lines = [Line(name, placed.remote(make, logs / f"{name}.txt")) for name in names]
        self._asked = [(time.time(), line.busy_soon()) for line in self._lines]
        self._facts: list[dict[str, Any]] = [{} for _ in self._lines]

    def lines(self) -> Lines:
        """Return the ways to them."""
        return Lines(tuple(self._lines))

    def doing(self) -> list[dict[str, Any]]:
        """Return of each its name, where it lives and how many calls are under way, as last heard; of one that is not
        there since when it is asked, and what it waits for if there is no place for it. Waits for none of them."""
        rows = []
        for n, line in enumerate(self._lines):
            since, asked = self._asked[n]
            if self._ray.wait([asked], timeout=0)[0]:
                try:
                    self._facts[n] = self._ray.get(asked)
                except self._ray.exceptions.RayError:
                    self._facts[n] = {}  # Ray starts it anew
                if time.time() - since > LOOK_EVERY_S:
                    self._asked[n] = (time.time(), line.busy_soon())
            rows.append({"name": line.name, **(self._facts[n] or {"since": since, "lacks": self._lacks()})})
        return rows

    def close(self) -> None:
        """End them all."""
        for line in self._lines:
            self._ray.kill(line.actor)

    def _lacks(self) -> str:
        free = self._ray.available_resources().get("CPU", 0) >= CORE["CPU"]
        return "" if free else self._cluster.wants(CORE)
