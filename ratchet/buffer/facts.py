"""What the buffer reads off a group, and a group as bytes. Pure."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

from ratchet.core.rollout import Group, Turn
from ratchet.store.codec import group_from_json, group_to_json

LEVEL = 1
"""zlib's fastest. A group of 8 rollouts of 200 tokens: 26.7 KB of JSON become 12.8 KB in 0.21 ms, as long as the JSON
itself takes to make; level 6 takes 0.48 ms for 12.2 KB."""


def pack(group: Group) -> bytes:
    """Return a group as compressed JSON; exact but for clocks, which keep four digits."""
    return zlib.compress(json.dumps(group_to_json(group), separators=(",", ":")).encode(), LEVEL)


def unpack(data: bytes) -> Group:
    """Inverse of `pack`."""
    return group_from_json(json.loads(zlib.decompress(data)))


def oldest_version(group: Group) -> int:
    """Return the oldest version of the weights that sampled a token of the group.

    A group without a single turn depends on no weights: it counts as sampled by those of its own step.
    """
    return min((turn.version for turn in _sampled(group)), default=group.step)


def samplers(group: Group) -> dict[int, str]:
    """Return version -> fingerprint of all weights that sampled for the group; "" where a turn does not tell.

    A turn that newer weights finished tells the fingerprint of the newest alone.
    """
    found: dict[int, str] = {}
    greedy = () if group.greedy is None else group.greedy.trajectories
    turns = [*_sampled(group), *(turn for tr in greedy if tr.trainable for turn in tr.turns)]
    for turn in turns:
        for version in (turn.version, *(version for _, version in turn.switches)):
            found.setdefault(version, "")
        found[turn.last_version] = turn.fingerprint
    return found


def _sampled(group: Group) -> Iterator[Turn]:
    """Yield the policy's own turns; those of frozen agents are observations."""
    for rollout in group.rollouts:
        for trajectory in rollout.trajectories:
            if trajectory.trainable:
                yield from trajectory.turns
