"""Exploring in other processes: a source of groups that hands each group to one of several explorers.

The loops cannot tell it from an explorer of their own. A group is played whole by one explorer and comes back when it
is finished. Whatever becomes of explorers, a finished group is never lost and none comes twice:

- An explorer that dies, or gives no sign of life for some time, is replaced; others play the groups it had under way.
- Where a group takes far longer than groups do and an explorer has nothing to play, it plays that group too. The first
  to finish counts, the other is told to stop.
- An explorer that has no place on the cluster yet is given nothing. When it has one, groups that begin go to it.
- One whose sign of life is overdue (the network is cut, say) is given nothing until it is heard again. Where the
  connection to it broke, its answers are lost: others play its groups, and it stops playing them when it is heard.

Since every draw derives from names, groups come out as they would have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ratchet.cluster.crew import Member
from ratchet.cluster.host import LostError, UnreachableError
from ratchet.core.errors import RatchetError, RunError
from ratchet.core.rollout import Group
from ratchet.run.game import Game
from ratchet.run.late import Late
from ratchet.run.sync import Weights

LOSSES_IN_A_ROW = 3
"""Times that each explorer may die, on average, without any group being finished in between: then something is wrong
with what they do and not with where they live."""
TOLD_EVERY_S = 0.2
"""Seconds between two tellings of what explorers do: each writes about all of them, groups begin and end faster."""
GATHER_S = 10.0
"""Seconds that the first explorer waits for others before it is given groups: else it would be given all there are."""
LOOK_EVERY_S = 1.0
"""Seconds between two looks for groups that take too long, and for a place that an explorer waits for."""
SIGNS_PER_SILENCE = 4
"""Signs of life asked for within the time after which silence counts as death."""
TICKS = 20
"""Pieces in which that time is counted."""
OVERDUE_TICKS = 2
"""Of them, without the sign that was asked for, until the status says so: after one it may be there, not yet read."""


class Hands(Protocol):
    """Who hosts explorers: `cluster.crew.Crew`."""

    def hire(self, name: str) -> Member: ...

    def dismiss(self, member: Member) -> None: ...

    async def lacks(self, member: Member) -> str: ...

    def share(self, value: Any) -> Any: ...

    async def call(self, member: Member, method: str, *arguments: Any) -> Any: ...

    async def sign(self, member: Member) -> dict[str, Any]: ...

    def pool(self) -> list[dict[str, Any]]: ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Worker:
    member: Member
    hired: float
    """Unix time."""
    lacks: str = ""
    """What it waits for before it can start; empty once it has a place, or where nobody has asked yet."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Where it lives, once it is there."""
    heard: float = 0.0
    """When it gave its last sign of life (Unix time)."""
    overdue: bool = False
    """Whether the next one should be there by now."""
    broken: bool = False
    """Whether the connection broke, so that it may play groups whose answers nobody will get."""
    taken: tuple[int, ...] = ()
    """The groups that were under way then, and are others' since."""
    plays: dict[int, float] = field(default_factory=dict)
    """Index of each group under way, and since when (Unix time)."""
    watch: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class _Asked:
    game: Game
    way: tuple[Any, int, str]
    answer: asyncio.Future[Group]
    players: dict[_Worker, asyncio.Task[None]] = field(default_factory=dict)


class FarGroups:
    """A source of groups; see the top of this file."""

    def __init__(
        self,
        hands: Callable[[], Hands],
        number: int,
        *,
        held: Callable[[], Weights | None],
        task_at: Callable[[int], int],
        lost: Callable[[str, list[int], str], None],
        tell: Callable[[], None],
        silence_s: float = 60.0,
        gather_s: float = GATHER_S,
    ) -> None:
        """`hands` is asked for a host when the first group is wanted; `held` returns the weights to sample with.

        `lost` is told who died, which groups it had under way, and why; `tell` that `doing` has changed,
        within `TOLD_EVERY_S` seconds, once for all that changed meanwhile. An explorer that has given no sign of life
        for `silence_s` seconds is given up. The first to be there waits `gather_s` seconds for the others.
        """
        self._ask, self._number, self._held, self._task_at = hands, number, held, task_at
        self._lost, self._tell, self._silence, self._gather_s = lost, tell, silence_s, gather_s
        self._hands: Hands | None = None
        self._shared: tuple[Any, int, str] | None = None
        """The weights that explorers were last sent to fetch: where, which version, with what fingerprint."""
        self._workers: list[_Worker] = []
        self._asked: set[_Asked] = set()
        self._late = Late()
        self._hired = self._losses = 0
        self._gathered = False
        self._gathering: asyncio.TimerHandle | None = None
        self._helping: asyncio.Task[None] | None = None
        self._wrong: RatchetError | None = None
        """Why nobody can play any more."""
        self._telling: asyncio.TimerHandle | None = None
        self._told = -TOLD_EVERY_S

    async def group(self, step: int, index: int, samples: int, *, greedy: bool = False) -> Group:
        """Return group `index` when whoever plays it has finished."""
        if self._hands is None:
            self._hands = self._ask()
            for _ in range(self._number):
                self._hire()
            self._helping = asyncio.create_task(self._help())
        if self._wrong is not None:
            raise self._wrong
        weights = self._held()
        assert weights is not None, "groups are asked for before weights have arrived"
        if self._shared is None or self._shared[1:] != (weights.version, weights.fingerprint):
            cpu = {name: tensor.cpu() for name, tensor in weights.tensors.items()}
            self._shared = (self._hands.share(cpu), weights.version, weights.fingerprint)
        game = Game(step, index, self._task_at(index), samples, greedy)
        asked = _Asked(game, self._shared, asyncio.get_running_loop().create_future())
        self._asked.add(asked)
        try:
            self._begin([asked])
            return await asked.answer
        finally:
            self._asked.discard(asked)
            for play in asked.players.values():
                play.cancel()

    def doing(self) -> list[dict[str, Any]]:
        """Return of each explorer its name, where it lives, the groups it plays, and since when; of one that is not
        there yet what it waits for, and since when; of one that is overdue when it was heard last. Then of the
        pool that works for them."""
        return [
            {
                "name": w.member.name,
                **w.facts,
                **({"lacks": w.lacks} if w.lacks else {}),
                **({"silent": w.heard} if w.overdue else {}),
                "plays": sorted(w.plays),
                "since": min(w.plays.values(), default=None) if w.facts else w.hired,
            }
            for w in self._workers
        ] + ([] if self._hands is None else self._hands.pool())

    async def close(self) -> None:
        """End all explorers."""
        for timer in (self._telling, self._gathering):
            if timer is not None:
                timer.cancel()
        tasks = [
            self._helping,
            *(w.watch for w in self._workers),
            *(p for a in self._asked for p in a.players.values()),
        ]
        begun = [task for task in tasks if task is not None]
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        if self._hands is not None:
            self._hands.close()

    # --- groups ---

    def _begin(self, among: Iterable[_Asked]) -> None:
        """Deal what nobody plays yet to the explorers with the least to do; without any it is dealt when one comes."""
        there = [w for w in self._workers if w.facts and not w.overdue]
        if not self._gathered or not there:
            return
        for asked in sorted(among, key=lambda a: a.game.index):
            if not asked.players and not asked.answer.done():
                self._deal(asked, min(there, key=lambda w: len(w.plays)))

    def _deal(self, asked: _Asked, worker: _Worker) -> None:
        worker.plays[asked.game.index] = time.time()
        asked.players[worker] = asyncio.create_task(self._play(asked, worker))

    async def _play(self, asked: _Asked, worker: _Worker) -> None:
        """Have an explorer play a group, to its end or until another is faster."""
        assert self._hands is not None
        started = time.monotonic()
        try:
            self._tell_soon()
            group: Group = await self._hands.call(worker.member, "play", asked.game, *asked.way)
            self._losses = 0
            self._late.took(time.monotonic() - started)
            if not asked.answer.done():
                asked.answer.set_result(group)
        except UnreachableError:
            self._put_off(worker)
        except LostError as error:
            self._replace(worker, str(error))
        except RatchetError as error:
            if not asked.answer.done():
                asked.answer.set_exception(error)
        finally:
            worker.plays.pop(asked.game.index, None)
            self._tell_soon()

    async def _help(self) -> None:
        """Have explorers that have nothing to play help with groups that take far longer than groups do."""
        assert self._hands is not None
        at_work: list[dict[str, Any]] = []
        while True:
            looked = time.monotonic()
            await asyncio.sleep(LOOK_EVERY_S)
            if (now_at_work := self._hands.pool()) != at_work:
                at_work = now_at_work
                self._tell_soon()
            if time.monotonic() - looked > 2 * LOOK_EVERY_S:
                continue  # this process was busy: what was finished meanwhile has yet to be heard of
            now, free = time.time(), [w for w in self._workers if w.facts and not w.overdue and not w.plays]
            for asked in sorted(self._asked, key=lambda a: a.game.index) if free else ():
                since = [w.plays[asked.game.index] for w in asked.players if asked.game.index in w.plays]
                if len(since) == 1 and self._late.is_late(now - since[0]):
                    self._deal(asked, min(free, key=lambda w: len(w.plays)))

    # --- explorers ---

    def _hire(self) -> None:
        assert self._hands is not None
        self._hired += 1
        worker = _Worker(self._hands.hire(f"explorer-{self._hired}"), time.time())
        self._workers.append(worker)
        worker.watch = asyncio.create_task(self._watch(worker))

    async def _watch(self, worker: _Worker) -> None:
        """See an explorer to its place, welcome it, and ask for signs of life."""
        assert self._hands is not None
        try:
            while lacks := await self._hands.lacks(worker.member):
                worker.lacks = lacks
                self._tell_soon()
                await asyncio.sleep(LOOK_EVERY_S)
            worker.lacks = ""
            self._tell_soon()
            worker.facts, worker.heard = await self._hands.sign(worker.member), time.time()
            self._welcome()
            while True:
                for _ in range(TICKS // SIGNS_PER_SILENCE):
                    if not worker.broken:
                        await asyncio.sleep(self._silence / TICKS)
                await self._heard(worker)
        except LostError as error:
            self._replace(worker, str(error))
        except TimeoutError:
            self._replace(worker, f"{worker.member.name} gave no sign of life for {self._silence:g} s")
        except RatchetError as error:
            self._give_up(error)

    async def _heard(self, worker: _Worker) -> None:
        """Return when an explorer has given a sign of life. Raises `TimeoutError` if it gives none for too long.

        What counts is time in which this process could have heard it: a training step may keep it busy for minutes.
        """
        sign = asyncio.create_task(self._sign(worker))
        try:
            for tick in range(1, TICKS + 1):
                ends = time.monotonic() + self._silence / TICKS
                await asyncio.wait({sign}, timeout=self._silence / TICKS)
                if sign.done() and sign.result():
                    return
                if sign.done():
                    await asyncio.sleep(ends - time.monotonic())
                    sign = asyncio.create_task(self._sign(worker))
                elif tick == OVERDUE_TICKS and not worker.overdue:
                    worker.overdue = True
                    self._tell_soon()
            raise TimeoutError
        finally:
            sign.cancel()

    async def _sign(self, worker: _Worker) -> bool:
        """Return whether a sign of life came, rather than word that the connection is broken."""
        assert self._hands is not None
        try:
            await self._hands.sign(worker.member)
            if worker.broken:
                await self._hands.call(worker.member, "abandon")
        except UnreachableError:
            self._put_off(worker)
            return False
        worker.heard, worker.broken, worker.taken = time.time(), False, ()
        if worker.overdue:
            worker.overdue = False
            self._tell_soon()
            self._begin(self._asked)
        return True

    def _put_off(self, worker: _Worker) -> None:
        """Have others play the groups of one to which the connection broke; it may come back."""
        if worker in self._workers and not worker.broken:
            worker.overdue, worker.broken, worker.taken = True, True, tuple(worker.plays)
            self._tell_soon()
            self._take(worker)

    def _welcome(self) -> None:
        """Deal what waits for an explorer, now that there is one more."""
        self._tell_soon()
        if self._gathered or all(w.facts for w in self._workers):
            self._gather()
        elif self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(self._gather_s, self._gather)

    def _gather(self) -> None:
        self._gathered = True
        self._begin(self._asked)

    def _replace(self, worker: _Worker, why: str) -> None:
        """Put another explorer in the place of one that is gone, and deal its groups anew; the first to notice does it.

        Whoever dies, or falls silent, is dismissed: one that only seemed dead must not go on taking a place.
        """
        if worker not in self._workers:
            return
        assert self._hands is not None
        self._workers.remove(worker)
        self._losses += 1
        self._lost(worker.member.name, sorted({*worker.plays, *worker.taken}), why)
        self._hands.dismiss(worker.member)
        if self._losses > LOSSES_IN_A_ROW * self._number:
            self._give_up(
                RunError(
                    f"Explorers died {self._losses} times in a row and finished no group in between. The last: {why}"
                )
            )
            return
        self._hire()
        self._take(worker)
        if worker.watch is not None and worker.watch is not asyncio.current_task():
            worker.watch.cancel()

    def _take(self, worker: _Worker) -> None:
        """Take all groups from an explorer and deal them anew."""
        for asked in self._asked:
            play = asked.players.pop(worker, None)
            if play is not None and play is not asyncio.current_task():
                play.cancel()  # it may wait for the silent one for ever
        self._begin(self._asked)

    def _give_up(self, error: RatchetError) -> None:
        self._wrong = error
        for asked in self._asked:
            if not asked.answer.done():
                asked.answer.set_exception(error)

    # --- telling ---

    def _tell_soon(self) -> None:
        """Tell at once if that was long ago, so that what goes wrong with it ends the run; else a little later."""
        wait = self._told + TOLD_EVERY_S - time.monotonic()
        if wait <= 0:
            self._tell_now()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(wait, self._tell_now)

    def _tell_now(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        self._telling, self._told = None, time.monotonic()
        try:
            self._tell()
        except RatchetError as error:
            self._give_up(error)
