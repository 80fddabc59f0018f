"""Objects that live in actors of their own on Ray, on this machine or on a cluster.

A crew knows nothing of what its members do: it is given a function that makes the object, and calls the object's
coroutines by name. A member that dies raises `LostError` for each call that was under way; what then happens is the
caller's business.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ratchet.core.errors import ConfigError, RatchetError, RunError
from ratchet.core.load import require_library

CALLS_AT_ONCE = 1 << 16
"""Coroutines that one member may run: all groups of a step are in flight at once."""


class LostError(RatchetError):
    """A member of a crew died, or its node did."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One actor."""

    name: str
    actor: Any


class Crew:
    """Starts members and talks to them. Starts Ray where none is joined, and ends what it started."""

    def __init__(self, make: Callable[[], Any], *, address: str = "", gpus: int = 0, room: int = 1) -> None:
        """`make` makes a member's object, in its own process. `address` is that of a running Ray, empty starts one
        with room for so many members; each of them takes one core and `gpus` GPUs.

        **Raises**: `ConfigError` if ray is missing, or there is no Ray at the address.
        """
        require_library("ray", extra="ray", purpose='cluster.name = "ray"')
        import ray

        self._ray, self._make, self._gpus = ray, make, gpus
        quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                # Ray's workers yield to everything else on their machine unless told otherwise.
                ray.init(num_cpus=room + 1, include_dashboard=False, _system_config={"worker_niceness": 0}, **quiet)
        except ConnectionError as error:
            raise ConfigError(
                f'cluster.address = "{address}": no Ray answers there ({error}). Start one with ray start --head, or '
                "leave cluster.address out."
            ) from None

    def hire(self, name: str) -> Member:
        """Start a member; calls to it wait until it is there."""
        host = self._ray.remote(_Host).options(num_cpus=1, num_gpus=self._gpus, max_concurrency=CALLS_AT_ONCE)
        return Member(name, host.remote(self._make))

    def share(self, value: Any) -> Any:
        """Put a value where every member finds it, once; give what is returned as an argument of `call`."""
        return self._ray.put(value)

    async def call(self, member: Member, method: str, *arguments: Any) -> Any:
        """Return what a coroutine of the member's object returns.

        **Raises**: `LostError` if the member is gone, `RunError` for what else the object raised.
        """
        errors = self._ray.exceptions
        try:
            return await member.actor.do.remote(method, *arguments)
        except errors.RayActorError as error:
            raise LostError(f"{member.name} is gone: {' '.join(str(error).split())[:300]}") from None
        except errors.RayTaskError as error:
            if isinstance(error.cause, RatchetError):
                raise error.cause from None
            raise RunError(f"{member.name} failed: {str(error).strip().splitlines()[-1]}") from error

    def close(self) -> None:
        """End all members, and Ray itself if it was started here."""
        self._ray.shutdown()


class _Host:
    """The actor around an object."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._object = make()

    async def do(self, method: str, *arguments: Any) -> Any:
        if method == "where":
            return {"pid": os.getpid(), "node": socket.gethostname()}
        return await getattr(self._object, method)(*arguments)
