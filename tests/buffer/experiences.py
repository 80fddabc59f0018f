"""Groups with just what the buffer looks at."""

from __future__ import annotations

from builders import group, rollout, turn

from ratchet.buffer.groups import GroupTable
from ratchet.core.rollout import Group


def made(
    step: int, index: int, *, version: int | None = None, mark: str = "f", rewards: tuple[float, ...] = (0, 1)
) -> Group:
    """Return a group sampled by one version, that of its step unless given; its fingerprint is `mark` and version."""
    version = step if version is None else version
    rollouts = [
        rollout(reward, turn([1, index], [step, 2], version=version, fingerprint=f"{mark}{version}"), attempt=i)
        for i, reward in enumerate(rewards)
    ]
    return group(rollouts, index=index, step=step)


def put(
    table: GroupTable,
    step: int,
    index: int,
    *,
    version: int | None = None,
    priority: float = 0.0,
    admitted: bool = True,
) -> None:
    """Put a group with a priority."""
    version = step if version is None else version
    table.put(made(step, index, version=version), version=version, priority=priority, admitted=admitted)


def chosen(
    table: GroupTable, step: int, limit: int = 100, *, cooldown: int = 0, max_uses: int = 0
) -> list[tuple[int, int]]:
    """Return (step, index) of what a step may train on."""
    return [(e.step, e.index) for e in table.choose(step, limit, cooldown=cooldown, max_uses=max_uses)]


def use(table: GroupTable, step: int, *, limit: int = 100, priority: float | None = None) -> list[tuple[int, int]]:
    """Use what a step may train on, at a new priority if one is given; return (step, index) of it."""
    entries = table.choose(step, limit, cooldown=0, max_uses=0)
    table.use(step, entries, [e.priority if priority is None else priority for e in entries])
    return [(e.step, e.index) for e in entries]


def fingerprints(last: int, *, mark: str = "f") -> dict[int, str]:
    """Return the fingerprints of versions 0 .. last."""
    return {version: f"{mark}{version}" for version in range(last + 1)}
