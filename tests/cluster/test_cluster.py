"""Leaving a Ray that may not answer, and what it says of actors."""

from __future__ import annotations

import threading

import pytest

from ratchet.cluster.cluster import in_time, line


def test_what_ends_is_waited_for_and_what_never_ends_is_left() -> None:
    done = list[int]()
    assert in_time(lambda: done.append(1))
    assert done == [1]
    assert not in_time(threading.Event().wait, 0.05)


@pytest.mark.parametrize("begins", ["The actor died because its node has died.", "The actor is dead because it was."])
def test_of_an_actor_that_died_the_reason_is_told_and_not_its_numbers(begins: str) -> None:
    error = RuntimeError(f"The actor died unexpectedly.\n\tclass_name: Host\n\tactor_id: 37e5\n{begins}\n more")
    assert line(error) == f"{begins} more"
    assert line(RuntimeError("no such\n place")) == "no such place"
