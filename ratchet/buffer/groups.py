"""The experience buffer as a table: groups are put, chosen, used, evicted, and all of it can be taken back.

Nothing here decides what to train on or when; `buffer.py` does. Synchronous, for one thread and one process at a time:
counts are kept in memory. Every change is one short transaction, so a killed process leaves no half group.

    put ──> live ──choose, use──> live ──evict──> evicted ──purge──> deleted
      └───> refused: evicted as it is put ───────────┘
    rewind: evicted ──> live, uses taken back, groups of steps to come forgotten or kept

Each operation costs O(log n) per group it touches, whatever n (the indexes are in `tables.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, CursorResult, Select

from ratchet.buffer import statements as sql
from ratchet.buffer.census import Census
from ratchet.buffer.database import Database
from ratchet.buffer.facts import pack, samplers, unpack
from ratchet.buffer.registry import open_buffer
from ratchet.core.errors import RunError
from ratchet.core.rollout import Group

SAMPLERS_KNOWN = 512
"""Weights that are kept in memory although nothing live was sampled with them: the next group often was."""
CHUNK = 500
"""Rows per statement that lists them; old SQLite libraries allow 999 parameters."""
PURGED_AT_ONCE = 1024
"""Groups one purge deletes at most: far more than a step evicts, and few enough to take milliseconds."""
PURGED_STEPS = 16
"""Steps whose uses one purge deletes at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the table knows about a live group without reading it."""

    group_id: int
    step: int
    index: int
    version: int
    """Oldest version of the weights that sampled it."""
    uses: int
    last_used: int | None
    """The step that used it last."""
    priority: float


class GroupTable:
    """One buffer in a database, told apart from others by its name."""

    def __init__(self, database: Database, buffer_id: int) -> None:
        """Not for callers: `open` checks what must hold first."""
        self._database, self._id = database, buffer_id
        self._census = Census()
        self._samplers: dict[int, dict[int, str]] = {}
        self._sampler_ids: dict[str, int] = {}
        with database.doing("being opened") as connection:
            state = connection.execute(sql.BUFFER, self._at()).one()
            self._purged: int = state.purged
            self._trained: int = state.trained
            for number, weights in connection.execute(sql.ALL_SAMPLERS, self._at()):
                self._know(number, weights)
            self._count(connection)
        database.returned = self._hold_together

    @classmethod
    def open(cls, url: str, name: str, *, tokenizer: str, create: bool) -> GroupTable:
        """Open the buffer of a name, a new one if `create`, else the one that is there.

        `tokenizer` tells one tokenizer from another: groups are tokens, and mean nothing under any other.

        **Raises**: `ConfigError` if the database cannot be used, a new buffer's name is taken, or an old one is missing
        or has another schema or tokenizer; then nothing in the database was touched.
        """
        database = Database.connect(url, create=create)
        with ExitStack() as failed:
            failed.callback(database.close)
            table = cls(database, open_buffer(database, name, tokenizer=tokenizer, create=create))
            failed.pop_all()
        return table

    @contextmanager
    def transaction(self, what: str) -> Iterator[None]:
        """Make the operations within one: all of them happen or none. `what` says what they do, in an error.

        After an error the counts in memory may be wrong: close the table, and open it again.
        """
        with self._database.doing(what):
            yield

    # --- what is there ---

    @property
    def size(self) -> int:
        """Number of live groups."""
        return self._census.size

    def size_at(self, step: int) -> int:
        """Return the number of live groups of this step and those before."""
        return self._census.up_to(step)

    def versions(self) -> frozenset[int]:
        """Return the versions of all weights that sampled live groups."""
        return self._census.versions(self._samplers)

    def groups_at(self, step: int) -> list[int]:
        """Return the indexes of the groups of a step that were ever put, refused and evicted ones too, in order."""
        with self._database.doing(f"listing the groups of step {step}") as connection:
            return list(connection.execute(sql.INDEXES, self._at(step)).scalars())

    def entries_at(self, step: int) -> list[Entry]:
        """Return the live groups of a step in order of their indexes."""
        with self._database.doing(f"listing the groups of step {step}") as connection:
            return [Entry(*row) for row in connection.execute(sql.ENTRIES, self._at(step))]

    def read(self, step: int, *, admitted: bool = True) -> list[Group]:
        """Return the groups of a step that were admitted (or those that were not), in order of their indexes."""
        with self._database.doing(f"reading the groups of step {step}") as connection:
            rows = connection.execute(sql.READ_STEP, self._at(step, p_admitted=admitted)).scalars()
            return [unpack(facts) for facts in rows]

    def load(self, entries: Sequence[Entry]) -> list[Group]:
        """Return the groups of entries, in their order."""
        found: dict[int, bytes] = {}
        with self._database.doing("reading groups") as connection:
            for ids in _chunks([entry.group_id for entry in entries]):
                found |= {row.group_id: row.facts for row in connection.execute(sql.READ_GROUPS, {"p_ids": ids})}
        return [unpack(found[entry.group_id]) for entry in entries]

    # --- what changes it ---

    def put(self, group: Group, *, version: int, priority: float, admitted: bool) -> None:
        """Store a group, in place of any with its step and index.

        `version` is the oldest that sampled it. One not `admitted` is there to be counted and read, never chosen.
        """
        assert math.isfinite(priority), "priorities are ordered, so they are finite"
        facts = pack(group)
        with self._database.doing(f"storing group {group.index} of step {group.step}") as connection:
            same = self._at(group.step, p_idx=group.index)
            for key, sampler, evicted_at in connection.execute(sql.SAME_GROUP, same).all():
                connection.execute(sql.FORGET_USES_OF, self._at(group.step, p_id=key))
                _delete(connection, [key])
                if evicted_at is None:
                    self._census.remove(group.step, sampler)
            sampler = self._sampler(connection, group)
            row = {
                "buffer_id": self._id,
                "step": group.step,
                "idx": group.index,
                "version": version,
                "sampler_id": sampler,
                "admitted": admitted,
                "priority": priority,
                "uses": 0,
                "evicted_at": None if admitted else group.step,
            }
            key = _key(connection.execute(sql.ADD_GROUP, row))
            connection.execute(sql.ADD_FACTS, {"group_id": key, "facts": facts})
        if admitted:
            self._census.add(group.step, sampler)

    def choose(self, step: int, limit: int, *, cooldown: int, max_uses: int) -> list[Entry]:
        """Return the `limit` groups of highest priority that `step` may train on, best first.

        Groups of this step or an earlier one, live, used less than `max_uses` times (0: no limit) and not within the
        `cooldown` steps before: a group used at step u rests until step u + cooldown, included. Of equal priorities the
        newer step comes first, then the lower index.

        Reads `limit` rows and those it must skip: resting groups, at most cooldown x limit; groups of steps to come;
        and groups used up, which the caller therefore evicts.
        """
        asked = self._at(step, p_rested=step - cooldown, p_max_uses=max_uses, p_limit=limit)
        with self._database.doing(f"choosing the groups of step {step}") as connection:
            return [Entry(*row) for row in connection.execute(sql.CHOOSE, asked)]

    def use(self, step: int, entries: Sequence[Entry], new_priorities: Sequence[float]) -> None:
        """Record that a step trained on these groups, and what they are worth from now on; none is a step, too."""
        assert all(map(math.isfinite, new_priorities)), "priorities are ordered, so they are finite"
        log, changed = [], []
        for entry, priority in zip(entries, new_priorities, strict=True):
            before = {"uses": entry.uses, "last_used": entry.last_used, "priority": entry.priority}
            log.append({"buffer_id": self._id, "step": step, "group_id": entry.group_id, **before})
            changed.append(_uses(entry.group_id, entry.uses + 1, step, priority))
        with self._database.doing(f"recording the uses of step {step}") as connection:
            if log:
                connection.execute(sql.LOG_USES, log)
                connection.execute(sql.SET_USES, changed)
            connection.execute(sql.SET_TRAINED, self._at(p_trained=step + 1))
        self._trained = step + 1

    def evict(self, step: int, entries: Sequence[Entry]) -> int:
        """Evict those of these groups that are live. Return how many."""
        ids = [entry.group_id for entry in entries]
        with self._database.doing(f"evicting groups at step {step}") as connection:
            return sum(self._evict(connection, step, sql.AMONG, self._at(p_ids=some)) for some in _chunks(ids))

    def evict_older(self, step: int, oldest_version: int) -> int:
        """Evict the groups up to this step that older weights sampled. Return how many."""
        with self._database.doing(f"evicting stale groups at step {step}") as connection:
            return self._evict(connection, step, sql.OLDER, self._at(step, p_version=oldest_version))

    def evict_beyond(self, step: int, capacity: int) -> int:
        """Evict the groups of lowest priority up to this step until `capacity` are left. Return how many.

        What was sampled ahead of the step neither counts nor goes: it must not change what the step sees.
        """
        surplus = self._census.up_to(step) - capacity
        if surplus <= 0:
            return 0
        with self._database.doing(f"evicting groups beyond the capacity at step {step}") as connection:
            return self._evict(connection, step, sql.WORST, self._at(step, p_limit=surplus))

    def evict_used(self, step: int) -> int:
        """Evict the groups of this step: it is trained, and each is trained once. Return how many."""
        with self._database.doing(f"evicting the groups of step {step}") as connection:
            return self._evict(connection, step, sql.OF_STEP, self._at(step))

    def purge(self, step: int, *, most: int = PURGED_AT_ONCE) -> int:
        """Delete what was evicted before `step`, at most so many groups; return how many were deleted.

        No `rewind` goes behind `step` any more. Called at every step it keeps up, and its cost stays bounded.
        """
        with self._database.doing(f"deleting what was evicted before step {step}") as connection:
            if step > self._purged:
                connection.execute(sql.SET_PURGED, self._at(p_purged=step))
            ids = list(connection.execute(sql.EVICTED_BEFORE, self._at(step, p_limit=most)).scalars())
            _delete(connection, ids)
            first = connection.execute(sql.FIRST_USE, self._at()).scalar()
            if first is not None:  # a bound on steps is one on rows: a step uses as many groups as it trains
                connection.execute(sql.FORGET_USES_BEFORE, self._at(min(step, first + PURGED_STEPS)))
        self._purged = max(self._purged, step)
        self._forget_samplers()
        return len(ids)

    def rewind(self, step: int, fingerprints: Mapping[int, str], *, past: bool = True, ahead: bool = True) -> int:
        """Go back to the state before `step` was trained. Return how many groups of steps to come were kept.

        Uses and evictions of this step and later ones are taken back: the counts, the last uses and the priorities are
        what they were. Groups of this step and later ones stay if every version that sampled them is in `fingerprints`
        with the same fingerprint; else they are forgotten, for what is sampled anew may differ. Without `ahead` all are
        forgotten: the run goes on with settings that would have sampled others.

        Without `past` nobody will ask for groups of steps before this one (fifo), so they may have been deleted.

        **Raises**: `RunError` if the buffer cannot know that state: it is older, or has deleted too much.
        """
        at = self._at(step)
        with self._database.doing(f"going back to step {step}") as connection:
            self._check_reach(connection, step, past=past and step > 0)
            connection.execute(sql.SET_PURGED, self._at(p_purged=min(self._purged, step)))
            known = {n for n, weights in self._samplers.items() if _same(weights, fingerprints)}
            since = connection.execute(sql.SINCE, at).all()
            lost = [group_id for group_id, sampler in since if sampler not in known or not ahead]
            _delete(connection, lost)
            # Newest first, so that what remains of a group is what it was before the oldest of these uses.
            log = connection.execute(sql.USES_SINCE, at)
            before = {group_id: _uses(group_id, uses, last, priority) for group_id, uses, last, priority in log}
            if before:
                connection.execute(sql.SET_USES, list(before.values()))
            connection.execute(sql.FORGET_USES_SINCE, at)
            connection.execute(sql.REVIVE, at)
            connection.execute(sql.SET_TRAINED, self._at(p_trained=step))
            self._count(connection)
        self._purged, self._trained = min(self._purged, step), step
        return len(since) - len(lost)

    def flush(self) -> None:
        """Make sure that a power cut loses nothing of what was written so far; call it before writing a checkpoint."""
        with self._database.lasting("being written to disk") as connection:
            connection.execute(sql.SET_PURGED, self._at(p_purged=self._purged))  # PostgreSQL syncs what changes only

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._database.close()

    # --- how ---

    def _at(self, step: int | None = None, **parameters: object) -> dict[str, object]:
        """Return the parameters of a statement about this buffer."""
        return {"p_buffer": self._id, **({} if step is None else {"p_step": step}), **parameters}

    def _count(self, connection: Connection) -> None:
        """Count the live groups, once: reads an index over them from end to end."""
        self._census = Census()
        for step, sampler, number in connection.execute(sql.COUNT_LIVE, self._at()):
            self._census.add(step, sampler, number)

    def _hold_together(self, connection: Connection) -> None:
        """Raise `RunError` unless the database still knows all that was written to it; it was away for a time.

        Commits do not wait for the disk (`Database.tune`), so a server that crashed may have lost the last of them.
        """
        before, state = self._census, connection.execute(sql.BUFFER, self._at()).one()
        self._count(connection)
        if not self._census.agrees(before) or state.trained != self._trained:
            raise RunError(
                f"The buffer at {self._database.shown} was away and came back without the last of what was written to "
                f"it: it has {self._census.size} groups and {state.trained} trained steps, and had {before.size} and "
                f"{self._trained}. The checkpoints are untouched; go on from the last one with: ratchet resume"
            )

    def _know(self, number: int, weights: str) -> None:
        self._samplers[number] = {int(version): text for version, text in json.loads(weights).items()}
        self._sampler_ids[weights] = number

    def _forget_samplers(self) -> None:
        """Forget weights that no live group was sampled with, unless they are few. Should they come again, they get
        another number."""
        if len(self._samplers) <= SAMPLERS_KNOWN:
            return
        live = self._census.samplers()
        if len(self._samplers) > SAMPLERS_KNOWN + 2 * len(live):
            self._samplers = {number: weights for number, weights in self._samplers.items() if number in live}
            self._sampler_ids = {weights: number for weights, number in self._sampler_ids.items() if number in live}

    def _sampler(self, connection: Connection, group: Group) -> int:
        """Return the number of the weights that sampled a group, a new one if they are new."""
        weights = json.dumps({str(v): f for v, f in sorted(samplers(group).items())})
        if weights not in self._sampler_ids:
            row = {"buffer_id": self._id, "weights": weights}
            self._know(_key(connection.execute(sql.ADD_SAMPLER, row)), weights)
        return self._sampler_ids[weights]

    def _evict(self, connection: Connection, step: int, victims: Select[Any], parameters: Mapping[str, object]) -> int:
        """Evict the groups a query finds."""
        found = connection.execute(victims, parameters).all()
        if found:
            connection.execute(sql.SET_EVICTED, [{"p_id": group_id, "p_step": step} for group_id, _, _ in found])
        for _, of_step, sampler in found:
            self._census.remove(of_step, sampler)
        return len(found)

    def _check_reach(self, connection: Connection, step: int, *, past: bool) -> None:
        """Refuse to go back to a state the buffer never was in, or knows no more."""
        row = connection.execute(sql.BUFFER, self._at()).one()
        where = f'The buffer "{row.name}" in {self._database.shown}'
        if row.trained < step:
            raise RunError(
                f"{where} has recorded {row.trained} trained steps, but the checkpoint is of step {step}: the database "
                f"is an older copy. Put the newest one back, or remove the checkpoints after step {row.trained} and "
                "resume again."
            )
        if past and row.purged > step:
            raise RunError(
                f"{where} has deleted what was evicted before step {row.purged}, so it cannot go back to step {step}. "
                f"Resume from a checkpoint of step {row.purged} or later, or start a new run."
            )


def _uses(group_id: int, uses: int, last: int | None, priority: float) -> dict[str, object]:
    """Return the parameters that set a group's uses."""
    return {"p_id": group_id, "p_uses": uses, "p_last": last, "p_priority": priority}


def _same(weights: Mapping[int, str], fingerprints: Mapping[int, str]) -> bool:
    """Return whether weights are among those known. Of weights replaced in the middle of a turn only the version is
    told; what came after them agrees only if they did."""
    return all(version in fingerprints and text in ("", fingerprints[version]) for version, text in weights.items())


def _delete(connection: Connection, ids: Sequence[int]) -> None:
    """Delete groups."""
    for some in _chunks(ids):
        connection.execute(sql.DELETE_FACTS, {"p_ids": some})
        connection.execute(sql.DELETE_GROUPS, {"p_ids": some})


def _chunks(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut a list into pieces that fit into a statement."""
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def _key(made: CursorResult[Any]) -> int:
    """Return the number the database gave the row just inserted."""
    assert made.inserted_primary_key is not None, "a single row always tells its key"
    return int(made.inserted_primary_key[0])
