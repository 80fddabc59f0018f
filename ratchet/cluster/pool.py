"""Actors of which any will do: a call goes to the one with the fewest from the same caller, and Ray itself starts anew
those that die. Unlike a crew's members nobody watches over them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratchet.cluster.cluster import Cluster
from ratchet.cluster.host import CALLS_AT_ONCE, SIGNS, Host, Line

LOOK_EVERY_S = 1.0
"""Seconds between two looks at what the actors do."""


class Lines:
    """Ways to all actors of a pool; may be handed to other actors."""

    def __init__(self, lines: tuple[Line, ...]) -> None:
        self._lines, self._calls = lines, [0] * len(lines)

    async def call(self, method: str, *arguments: Any) -> Any:
        """Do what `Line.call` does, with the actor that has the fewest calls from here."""
        chosen = self._calls.index(min(self._calls))
        self._calls[chosen] += 1
        try:
            return await self._lines[chosen].call(method, *arguments)
        finally:
            self._calls[chosen] -= 1


class Pool:
    """So many actors of one core each, spread over the nodes."""

    def __init__(self, make: Callable[[], Any], cluster: Cluster, logs: Path, number: int, *, name: str) -> None:
        """`make` makes the object of each, in its own process; `name` and a number name them. What one prints goes to a
        file of its name in `logs`."""
        self._ray = cluster.ray
        placed = self._ray.remote(concurrency_groups={SIGNS: 4})(Host).options(
            num_cpus=1,
            max_restarts=-1,
            max_concurrency=CALLS_AT_ONCE,
            enable_task_events=False,
            scheduling_strategy="SPREAD",
        )
        names = [f"{name}-{n + 1}" for n in range(number)]
        self._lines = [Line(name, placed.remote(make, logs / f"{name}.txt")) for name in names]
        self._asked = [(time.time(), self._sign(line)) for line in self._lines]
        self._facts: list[dict[str, Any]] = [{} for _ in self._lines]

    def lines(self) -> Lines:
        """Return the ways to them."""
        return Lines(tuple(self._lines))

    def doing(self) -> list[dict[str, Any]]:
        """Return of each its name, where it lives and how many calls are under way, as last heard; of one that is not
        there, since when it is asked. Never waits."""
        rows = []
        for n, line in enumerate(self._lines):
            since, asked = self._asked[n]
            if self._ray.wait([asked], timeout=0)[0]:
                try:
                    self._facts[n] = self._ray.get(asked)
                except self._ray.exceptions.RayError:
                    self._facts[n] = {}  # Ray starts it anew
                if time.time() - since > LOOK_EVERY_S:
                    self._asked[n] = (time.time(), self._sign(line))
            rows.append({"name": line.name, **(self._facts[n] or {"since": since})})
        return rows

    def close(self) -> None:
        """End them all."""
        for line in self._lines:
            self._ray.kill(line.actor)

    def _sign(self, line: Line) -> Any:
        return line.actor.busy.options(concurrency_group=SIGNS).remote()
