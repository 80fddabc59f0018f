"""Leaving a Ray that may not answer."""

from __future__ import annotations

import threading

from ratchet.cluster.cluster import in_time


def test_what_ends_is_waited_for_and_what_never_ends_is_left() -> None:
    done = list[int]()
    assert in_time(lambda: done.append(1))
    assert done == [1]
    assert not in_time(threading.Event().wait, 0.05)
