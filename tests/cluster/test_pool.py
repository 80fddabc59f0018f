"""Calls to actors of which any will do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ratchet.cluster.host import LostError, UnreachableError
from ratchet.cluster.pool import Lines


class Actor:
    """One that is being started anew for so many looks."""

    def __init__(self, looks: int = 0) -> None:
        self.looks, self.calls = looks, 0

    async def call(self, method: str, *arguments: Any) -> Any:
        self.calls += 1
        if self.looks:
            raise UnreachableError("it is restarting")
        return method

    async def busy(self) -> dict[str, Any]:
        self.looks -= 1
        if self.looks > 0:
            raise UnreachableError("it is restarting")
        return {}


def test_one_that_was_lost_is_called_again_only_when_it_is_heard() -> None:
    restarting = Actor(looks=2)
    lines = Lines((restarting,))  # type: ignore[arg-type]
    with pytest.raises(LostError):
        asyncio.run(lines.call("run"))
    assert asyncio.run(lines.call("run")) == "run"
    assert (restarting.calls, restarting.looks) == (2, 0)


def test_calls_go_to_those_that_were_not_lost() -> None:
    lost, other = Actor(looks=99), Actor()
    lines = Lines((lost, other))  # type: ignore[arg-type]
    with pytest.raises(LostError):
        asyncio.run(lines.call("run"))
    assert [asyncio.run(lines.call("run")) for _ in range(3)] == ["run"] * 3
    assert (lost.calls, other.calls) == (1, 3)
