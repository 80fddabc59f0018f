"""Seeds derived from names, so that no random state has to be saved to continue a run exactly.

Every random choice names itself: ``derive(run_seed, "rollout", task_id, attempt, turn)``. The digest is stable
across processes and machines (unlike `hash`), and two names never share a stream by accident of order.
"""

from __future__ import annotations

import hashlib
import random

Name = str | int


def derive(*names: Name) -> int:
    """Return a 63-bit seed for a sequence of names; the same names give the same seed everywhere."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        text = f"{type(name).__name__}:{name}".encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> 1


def stream(*names: Name) -> random.Random:
    """Return a generator of random numbers that belongs to these names alone."""
    return random.Random(derive(*names))
