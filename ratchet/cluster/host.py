"""An object in an actor of its own, and how its coroutines are called by name from elsewhere."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.cluster.cluster import line, whereabouts
from ratchet.core.errors import RatchetError, RunError

CALLS_AT_ONCE = 1 << 16
"""Coroutines that one actor may run: all groups of a step are in flight at once."""
SIGNS = "signs"
"""Ray's name of the thread that answers `sign`: the object's own may be busy for long."""


class LostError(RatchetError):
    """An actor died, or its node did."""


class UnreachableError(LostError):
    """The connection to an actor is broken, and what it was to answer is lost; it may live, and be heard again."""


class Host:
    """The actor around an object."""

    def __init__(self, make: Callable[[], Any], log: Path) -> None:
        say_into(log)
        self._object = make()
        self._calls = 0

    async def do(self, method: str, *arguments: Any) -> Any:
        self._calls += 1
        try:
            return await getattr(self._object, method)(*arguments)
        finally:
            self._calls -= 1

    async def sign(self) -> dict[str, Any]:
        return whereabouts()

    async def busy(self) -> dict[str, Any]:
        return {**whereabouts(), "calls": self._calls}


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A way to an object in an actor; it may be handed to other actors, and works there, too."""

    name: str
    actor: Any

    async def call(self, method: str, *arguments: Any) -> Any:
        """Return what a coroutine of the object returns, and raise what it raises; it is cancelled if this is.

        **Raises**: besides `LostError` if the actor is gone, `UnreachableError` if the connection is, and `RunError`
        where Ray fails or what was raised cannot travel.
        """
        return await answer(self.name, self.actor.do.remote(method, *arguments), as_raised=True)

    async def busy(self) -> dict[str, Any]:
        """Return where the actor lives and how many calls are under way there, while its object is busy, too.

        **Raises**: as `call`.
        """
        facts: dict[str, Any] = await answer(self.name, self.busy_soon())
        return facts

    def busy_soon(self) -> Any:
        """Return Ray's reference to what `busy` returns."""
        return self.actor.busy.options(concurrency_group=SIGNS).remote()


def say_into(log: Path) -> None:
    """Append what this process and its children print from here on to a file, and not to Ray's."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def line_to_me(name: str) -> Line:
    """Return the way to the object of the actor that this is called in."""
    import ray

    return Line(name, ray.get_runtime_context().current_actor)


async def answer(name: str, reference: Any, *, as_raised: bool = False) -> Any:
    """Return what an actor of a name answers; what was asked is cancelled if this is.

    **Raises**: what `Line.call` does; without `as_raised`, `RunError` for all that is no `RatchetError`.
    """
    import ray

    errors = ray.exceptions
    try:
        return await reference
    except asyncio.CancelledError:
        ray.cancel(reference)
        raise
    except errors.ActorUnavailableError as error:
        raise UnreachableError(f"{name} cannot be reached: {line(error)}") from None
    except errors.RayActorError as error:
        raise LostError(f"{name} is gone: {line(error)}") from None
    except errors.RayTaskError as error:
        if isinstance(error.cause, Exception if as_raised else RatchetError):
            raise error.cause from None
        raise RunError(f"{name} failed: {str(error).strip().splitlines()[-1]}") from error
    except errors.RayError as error:
        raise RunError(f"Ray lost what was asked of {name}: {line(error)}") from error
