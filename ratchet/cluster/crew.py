"""Objects that live in actors of their own on Ray, on this machine or on a cluster.

A crew knows nothing of what its members do: it is given a function that makes the object, and calls the object's
coroutines by name. A member that dies raises `LostError` for each call that was under way, one to which the connection
broke `UnreachableError`; what then happens is the caller's business.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ratchet.core.errors import ConfigError, RatchetError, RunError
from ratchet.core.load import require_library

CALLS_AT_ONCE = 1 << 16
"""Coroutines that one member may run: all groups of a step are in flight at once."""
SIGNS = "signs"
"""Ray's name of the thread that answers `sign`: the object's own may be busy for long."""
ANSWERS_S = 5.0
"""How long a machine at `cluster.address` may take to answer."""


class LostError(RatchetError):
    """A member of a crew died, or its node did."""


class UnreachableError(LostError):
    """The connection to a member is broken, and what it was to answer is lost; it may live, and be heard again."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One actor, and the place that Ray keeps for it."""

    name: str
    actor: Any
    place: Any = None


class Crew:
    """Starts members and talks to them. Starts Ray where none is joined, and ends what it started."""

    def __init__(self, make: Callable[[], Any], *, address: str = "", gpus: int = 0, room: int = 1) -> None:
        """`make` makes a member's object, in its own process. `address` is that of a running Ray, empty starts one
        with room for so many members; each of them takes one core and `gpus` GPUs.

        **Raises**: `ConfigError` if ray is missing, or there is no Ray at the address.
        """
        require_library("ray", extra="ray", purpose='cluster.name = "ray"')
        import ray
        import ray.util
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._ray: Any = ray
        self._make, self._in = make, PlacementGroupSchedulingStrategy
        self._bundle = {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}
        quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                # One of its own, whatever Ray runs beside: without "local" that would be joined. Its workers yield to
                # everything else on their machine unless told otherwise.
                own: dict[str, Any] = {"num_cpus": room + 1, "_system_config": {"worker_niceness": 0}}
                ray.init(address="local", include_dashboard=False, **own, **quiet)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            if not address:
                raise RunError(f"Ray does not start on this machine: {_line(error)}") from error
            raise ConfigError(
                f'cluster.address = "{address}": there is no Ray that lets this run in ({_line(error)}). If it runs, '
                "its nodes must have the same versions of Ray and Python, and if it asks for a token (ray start says "
                "so), set RAY_AUTH_MODE=token here. Else start one with ray start --head, or leave cluster.address out."
            ) from None

    def hire(self, name: str) -> Member:
        """Start a member; calls to it wait until it is there."""
        place = self._ray.util.placement_group([self._bundle])
        host = self._ray.remote(concurrency_groups={SIGNS: 4})(_Host)
        placed = host.options(
            num_cpus=1,
            num_gpus=self._bundle.get("GPU", 0),
            max_concurrency=CALLS_AT_ONCE,
            enable_task_events=False,  # Ray's head keeps some for each call
            scheduling_strategy=self._in(place),
        )
        return Member(name, placed.remote(self._make), place)

    def dismiss(self, member: Member) -> None:
        """End a member and give its place back, whether or not it still answers."""
        self._ray.kill(member.actor)
        self._ray.util.remove_placement_group(member.place)

    async def lacks(self, member: Member) -> str:
        """Return what a member that has no place yet waits for, and how much of it is free; "" once it has one."""
        return await asyncio.to_thread(self._lacks, member)

    def share(self, value: Any) -> Any:
        """Put a value where every member finds it, once; give what is returned as an argument of `call`."""
        return self._ray.put(value)

    async def call(self, member: Member, method: str, *arguments: Any) -> Any:
        """Return what a coroutine of the member's object returns; it is cancelled if this is.

        **Raises**: `LostError` if the member is gone, `UnreachableError` if the connection is, `RunError` for what else
        the object raised.
        """
        return await self._answer(member, member.actor.do.remote(method, *arguments))

    async def sign(self, member: Member) -> dict[str, Any]:
        """Return where a member lives, as a sign that it does; it answers while its object is busy, too."""
        facts: dict[str, Any] = await self._answer(member, member.actor.sign.options(concurrency_group=SIGNS).remote())
        return facts

    def close(self) -> None:
        """End all members, and Ray itself if it was started here."""
        self._ray.shutdown()

    async def _answer(self, member: Member, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return await reference
        except asyncio.CancelledError:
            self._ray.cancel(reference)
            raise
        except errors.ActorUnavailableError as error:
            raise UnreachableError(f"{member.name} cannot be reached: {_line(error)}") from None
        except errors.RayActorError as error:
            raise LostError(f"{member.name} is gone: {' '.join(str(error).split())[:300]}") from None
        except errors.RayTaskError as error:
            if isinstance(error.cause, RatchetError):
                raise error.cause from None
            raise RunError(f"{member.name} failed: {str(error).strip().splitlines()[-1]}") from error
        except errors.RayError as error:
            raise RunError(f"Ray lost what was asked of {member.name}: {_line(error)}") from error

    def _lacks(self, member: Member) -> str:
        table: dict[str, Any] = self._ray.util.placement_group_table(member.place)
        if table["state"] == "CREATED":
            return ""
        here, free = self._ray.cluster_resources(), self._ray.available_resources()
        counts = (f"{free.get(kind, 0):g} of {here.get(kind, 0):g} {kind}s are free" for kind in self._bundle)
        wanted = " and ".join(f"{number} {kind}" for kind, number in self._bundle.items())
        return f"a node with {wanted} free; on all nodes together {', '.join(counts)}"


class _Host:
    """The actor around an object."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._object = make()

    async def do(self, method: str, *arguments: Any) -> Any:
        return await getattr(self._object, method)(*arguments)

    async def sign(self) -> dict[str, Any]:
        import ray

        node = ray.get_runtime_context().get_node_id()
        return {"pid": os.getpid(), "node": socket.gethostname(), "ray_node": node}


def check_address(address: str) -> None:
    """Raise `ConfigError` unless something answers at a Ray's address; "auto" is looked for by Ray itself, later."""
    host, _, port = address.rpartition(":")
    if address in ("", "auto"):
        return
    if not host or not port.isdecimal():
        raise ConfigError(f'cluster.address = "{address}" is none: write host:port, 10.0.0.1:6379 say, or auto.')
    try:
        socket.create_connection((host, int(port)), ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f'cluster.address = "{address}": nothing answers there ({error}). Start Ray with ray start --head, or '
            "leave cluster.address out."
        ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
