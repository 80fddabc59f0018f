"""The buffer as the two loops see it: the explorer puts groups in, the trainer takes the groups of a step out.

It lives in the run's event loop; calls to the database are synchronous and take milliseconds. What later choices depend
on changes in `take` and `finish` of a step and never in `put`, and both look only at groups of that step and earlier
ones: so what a step trains on depends on the step alone, however far the sampler has run ahead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ratchet.buffer.facts import oldest_version
from ratchet.buffer.groups import Entry, GroupTable
from ratchet.buffer.priority import priority_from
from ratchet.config.schema import BufferSection
from ratchet.core.rollout import Group


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """What the buffer gives for a step."""

    fresh: tuple[Group, ...]
    """The groups sampled for this step and admitted, in order of their indexes."""
    stale: tuple[Group, ...]
    """The groups sampled for this step and refused: their weights were too far behind."""
    trained: tuple[Group, ...]
    """The groups to train on: fifo, those of `fresh`, in order; replay, those of highest priority, best first. May be
    fewer than `train_prompts`, even none, where cooldown, uses or staleness leave no more."""
    replayed: int
    """How many of `trained` were sampled for an earlier step."""
    uses_mean: float
    """How often the groups of `trained` were used so far, this time included."""
    evicted_stale: int
    """Groups evicted because their weights are too far behind this step."""


class Buffer:
    """Groups between explorer and trainer, kept in a table that outlives the process."""

    def __init__(
        self,
        table: GroupTable,
        config: BufferSection,
        *,
        prompts_per_step: int,
        train_prompts: int,
        ahead: int,
        done: int,
    ) -> None:
        """`ahead` is how many steps may be sampled before their predecessor is trained; `done` steps are trained.

        A table that was used before must have been rewound to `done` first.

        **Raises**: `ConfigError` if `config.priority` cannot be used.
        """
        self._table, self._config = table, config
        self._size, self._train_prompts = prompts_per_step, train_prompts
        self._ahead, self._done, self._finished = ahead, done, done
        self._priority = priority_from(config)
        self._present: dict[int, set[int]] = {}
        self._held: dict[int, dict[int, tuple[Group, bool]]] = {}
        self._taken: tuple[Taken, list[Entry]] | None = None
        self._deletable = 0
        self._changed = asyncio.Condition()

    # --- the explorer's side ---

    async def room_for(self, step: int) -> None:
        """Return when the explorer may begin a step."""
        async with self._changed:
            await self._changed.wait_for(lambda: step - self._done <= self._ahead)

    def missing(self, step: int) -> list[int]:
        """Return the indexes of a step still to be sampled: after a resume, some may be there already."""
        first = step * self._size
        return [i for i in range(first, first + self._size) if i not in self._at(step)]

    async def put(self, group: Group) -> None:
        """Store a group; one sampled by weights more than `max_staleness` steps behind is kept, but never trained."""
        version, bound = oldest_version(group), self._config.max_staleness
        admitted = bound < 0 or group.step - version <= bound
        async with self._changed:
            present = self._at(group.step)
            self._table.put(group, version=version, priority=self._priority(group, 0), admitted=admitted)
            present.add(group.index)
            self._held.setdefault(group.step, {})[group.index] = (group, admitted)
            self._changed.notify_all()

    # --- the trainer's side ---

    async def take(self, step: int) -> Taken:
        """Return what a step trains on, once all groups sampled for it are there."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._at(step)) >= self._size)
        config, evicted = self._config, 0
        with self._table.transaction(f"choosing the groups of step {step}"):
            if config.max_staleness >= 0:
                evicted = self._table.evict_older(step, step - config.max_staleness)
            if config.kind == "fifo":
                entries = self._table.entries_at(step)
            else:
                entries = self._table.choose(
                    step, self._train_prompts, cooldown=config.cooldown, max_uses=config.max_uses
                )
        fresh, stale = self._groups_of(step)
        taken = Taken(
            fresh=fresh,
            stale=stale,
            trained=self._load(step, entries, fresh),
            replayed=sum(entry.step < step for entry in entries),
            uses_mean=fmean(entry.uses + 1 for entry in entries) if entries else 0.0,
            evicted_stale=evicted,
        )
        self._taken = taken, entries
        return taken

    def finish(self, step: int) -> dict[str, float]:
        """Record that the step taken last is trained; return the buffer's metrics of the step.

        Does not give way. The record must be there before any checkpoint that counts the step as trained, so call this
        between the optimiser step and the checkpoint.
        """
        assert self._taken is not None, f"step {step} is finished without having been taken"
        (taken, entries), config, table, beyond = self._taken, self._config, self._table, 0
        priorities = [self._priority(g, e.uses + 1) for g, e in zip(taken.trained, entries, strict=True)]
        with table.transaction(f"recording step {step}"):
            table.use(step, entries, priorities)
            if config.kind == "fifo":
                table.evict_used(step)
            if config.max_uses:  # they would be skipped at every choice to come
                table.evict(step, [e for e in entries if e.uses + 1 >= config.max_uses])
            if config.capacity:
                beyond = table.evict_beyond(step, config.capacity)
        if self._deletable:
            table.purge(self._deletable)
        self._taken, self._finished = None, step + 1
        return {
            "buffer/size": float(table.size_at(step)),
            "buffer/replayed_frac": taken.replayed / len(entries) if entries else 0.0,
            "buffer/uses_mean": taken.uses_mean,
            "buffer/evicted_stale": float(taken.evicted_stale),
            "buffer/evicted_capacity": float(beyond),
            "buffer/refused_stale": float(len(taken.stale)),
        }

    async def trained(self, step: int) -> None:
        """Let the explorer go on: a step is trained and its weights are published. Finishes the step if need be."""
        if self._finished <= step:
            self.finish(step)
        async with self._changed:
            self._done = step + 1
            for old in [s for s in self._present if s <= step]:
                del self._present[old]
                self._held.pop(old, None)
            self._changed.notify_all()

    # --- the checkpoint's side ---

    def flush(self) -> None:
        """Make sure that a power cut loses nothing of what was written so far; call it before writing a checkpoint."""
        self._table.flush()

    def keep_from(self, step: int) -> None:
        """Say that the oldest checkpoint to be kept is of `step`: what was evicted before may be deleted, and is, bit
        by bit, at the end of steps."""
        self._deletable = step

    def versions(self) -> frozenset[int]:
        """Return the versions of weights behind the groups a step may still train on: a checkpoint keeps their
        fingerprints."""
        return self._table.versions()

    def close(self) -> None:
        """Close the table."""
        self._table.close()

    # --- how ---

    def _at(self, step: int) -> set[int]:
        """Return the indexes of a step that are there, looked up in the table the first time."""
        if step not in self._present:
            self._present[step] = set(self._table.groups_at(step))
        return self._present[step]

    def _groups_of(self, step: int) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
        """Return the admitted and the refused groups of a step, from memory unless a resume left some in the table."""
        held = self._held.get(step, {})
        if held.keys() >= self._at(step):
            ordered = [held[i] for i in sorted(held)]
            return tuple(g for g, admitted in ordered if admitted), tuple(g for g, admitted in ordered if not admitted)
        return tuple(self._table.read(step)), tuple(self._table.read(step, admitted=False))

    def _load(self, step: int, entries: Sequence[Entry], fresh: Sequence[Group]) -> tuple[Group, ...]:
        """Return the groups of entries, reading only those of earlier steps."""
        older = [entry for entry in entries if entry.step != step]
        loaded = dict(zip([e.group_id for e in older], self._table.load(older), strict=True))
        now = {group.index: group for group in fresh}
        return tuple(now[e.index] if e.step == step else loaded[e.group_id] for e in entries)
