"""Objects that live in actors of their own on Ray, on this machine or on a cluster.

A crew knows nothing of what its members do: it is given a function that makes the object, and calls the object's
coroutines by name. One is `close`, which gives back what would outlive the process: members are asked for it before
they are ended. A member that dies raises `LostError` for each call that was under way, one to which the connection
broke `UnreachableError`; what then happens is the caller's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.cluster.cluster import Cluster, in_time
from ratchet.cluster.host import CALLS_AT_ONCE, SIGNS, Host, answer
from ratchet.cluster.pool import Pool

CLOSES_S = 5.0
"""Seconds that members have to give back what they hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One actor, and the place that Ray keeps for it."""

    name: str
    actor: Any
    place: Any = None


class Crew:
    """Starts members and talks to them."""

    def __init__(
        self, make: Callable[[], Any], cluster: Cluster, logs: Path, *, gpus: int = 0, pool: Pool | None = None
    ) -> None:
        """`make` makes a member's object, in its own process, which takes one core and `gpus` GPUs. What one prints
        goes to a file of its name in `logs`. `pool` works for the members, and ends with them.

        **Raises**: `ConfigError` or `RunError` as `Cluster.ray`.
        """
        self._ray, self._cluster, self._make = cluster.ray, cluster, make
        self._bundle = {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}
        self._members: list[Member] = []
        self._logs, self._pool = logs, pool
        self._there: list[Member] = []

    def hire(self, name: str) -> Member:
        """Start a member; calls to it wait until it is there."""
        place = self._ray.util.placement_group([self._bundle])
        host = self._ray.remote(concurrency_groups={SIGNS: 4})(Host)
        placed = host.options(
            num_cpus=1,
            num_gpus=self._bundle.get("GPU", 0),
            max_concurrency=CALLS_AT_ONCE,
            enable_task_events=False,  # Ray's head keeps some for each call
            scheduling_strategy=self._cluster.inside(place),
        )
        self._members.append(Member(name, placed.remote(self._make, self._logs / f"{name}.txt"), place))
        return self._members[-1]

    def dismiss(self, member: Member) -> None:
        """End a member and give its place back, whether or not it still answers."""
        self._members.remove(member)
        if member in self._there:
            self._there.remove(member)
        self._ray.kill(member.actor)
        self._ray.util.remove_placement_group(member.place)

    async def lacks(self, member: Member) -> str:
        """Return what a member that has no place yet waits for, and how much of it is free; "" once it has one."""
        return await asyncio.to_thread(self._cluster.lacks, member.place, self._bundle)

    def share(self, value: Any) -> Any:
        """Put a value where every member finds it, once; give what is returned as an argument of `call`."""
        return self._ray.put(value)

    async def call(self, member: Member, method: str, *arguments: Any) -> Any:
        """Return what a coroutine of the member's object returns; it is cancelled if this is.

        **Raises**: `LostError` if the member is gone, `UnreachableError` if the connection is, `RunError` for what else
        the object raised.
        """
        return await answer(member.name, member.actor.do.remote(method, *arguments))

    async def sign(self, member: Member) -> dict[str, Any]:
        """Return where a member lives, as a sign that it does; it answers while its object is busy, too."""
        facts: dict[str, Any] = await answer(member.name, member.actor.sign.options(concurrency_group=SIGNS).remote())
        if member in self._members and member not in self._there:
            self._there.append(member)
        return facts

    def close(self) -> None:
        """End all members and give their places back."""
        in_time(self._dismiss_all)

    def pool(self) -> list[dict[str, Any]]:
        """Return what the pool does, as `Pool.doing`."""
        return [] if self._pool is None else self._pool.doing()

    def _dismiss_all(self) -> None:
        if closing := [member.actor.do.remote("close") for member in self._there]:
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSES_S)
        for member in list(self._members):
            self.dismiss(member)
        if self._pool is not None:
            self._pool.close()
