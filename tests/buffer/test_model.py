"""Random operations against a naive buffer in memory: both always say the same, and going back is exact."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from experiences import made
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ratchet.buffer.groups import Entry, GroupTable

STEPS_AHEAD, PLACES, LAG = 2, 4, 3
MARKS = st.sampled_from("fg")
Place = tuple[int, int]


@dataclass
class Naive:
    """A group as the naive buffer knows it: how it was put, and the log of what was done to it since."""

    step: int
    index: int
    version: int
    mark: str
    first_priority: float
    admitted: bool
    uses: list[tuple[int, float]] = field(default_factory=list)  # (step, new priority)
    evicted: list[int] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.admitted and not self.evicted

    @property
    def priority(self) -> float:
        return self.uses[-1][1] if self.uses else self.first_priority

    @property
    def gone_since(self) -> int | None:
        return self.evicted[0] if self.evicted else None if self.admitted else self.step

    def rank(self) -> tuple[float, int, int]:
        return (-self.priority, -self.step, self.index)


class Agrees(RuleBasedStateMachine):
    """The table of `url` and the naive buffer, side by side."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.name = f"model-{uuid.uuid4().hex}"
        self.table = GroupTable.open(self.url, self.name, tokenizer="t", create=True)
        self.groups: dict[Place, Naive] = {}
        self.now = 0
        self.purged = 0

    def teardown(self) -> None:
        self.table.close()

    def live(self, step: int) -> list[Naive]:
        return sorted((g for g in self.groups.values() if g.live and g.step <= step), key=Naive.rank)

    def choice(self, step: int, limit: int, cooldown: int, max_uses: int) -> list[Naive]:
        return [
            g
            for g in self.live(step)
            if (not max_uses or len(g.uses) < max_uses) and (not g.uses or step > g.uses[-1][0] + cooldown)
        ][:limit]

    def agree(self, entries: list[Entry], groups: list[Naive]) -> None:
        assert [(e.step, e.index, e.version, e.uses, e.last_used, e.priority) for e in entries] == [
            (g.step, g.index, g.version, len(g.uses), g.uses[-1][0] if g.uses else None, g.priority) for g in groups
        ]

    @rule(
        ahead=st.integers(0, STEPS_AHEAD),
        index=st.integers(0, PLACES - 1),
        lag=st.integers(0, LAG),
        mark=MARKS,
        priority=st.sampled_from([-1.5, 0.0, 0.0, 2.0]),
        admitted=st.sampled_from([True, True, True, False]),
    )
    def put(self, ahead: int, index: int, lag: int, mark: str, priority: float, admitted: bool) -> None:
        step = self.now + ahead
        version = max(0, step - lag)
        group = made(step, index, version=version, mark=mark)
        self.table.put(group, version=version, priority=priority, admitted=admitted)
        self.groups[step, index] = Naive(step, index, version, mark, priority, admitted)

    @rule(
        limit=st.integers(0, 5),
        cooldown=st.integers(0, 2),
        max_uses=st.integers(0, 3),
        bound=st.none() | st.integers(0, LAG),
        capacity=st.none() | st.integers(0, 6),
        fifo=st.sampled_from([False, False, True]),
        penalty=st.sampled_from([0.0, 1.0]),
    )
    def train(
        self,
        limit: int,
        cooldown: int,
        max_uses: int,
        bound: int | None,
        capacity: int | None,
        fifo: bool,
        penalty: float,
    ) -> None:
        step = self.now
        if bound is not None:
            old = [g for g in self.live(step) if g.version < step - bound]
            assert self.table.evict_older(step, step - bound) == len(old)
            self.evict(step, old)
        entries = self.table.choose(step, limit, cooldown=cooldown, max_uses=max_uses)
        used = self.choice(step, limit, cooldown, max_uses)
        self.agree(entries, used)
        self.table.use(step, entries, [e.priority - penalty for e in entries])
        for group in used:
            group.uses.append((step, group.priority - penalty))
        if fifo:
            mine = [g for g in self.live(step) if g.step == step]
            assert self.table.evict_used(step) == len(mine)
            self.evict(step, mine)
        if max_uses:
            spent = [(e, g) for e, g in zip(entries, used, strict=True) if len(g.uses) >= max_uses and g.live]
            self.table.evict(step, [e for e, _ in spent])
            self.evict(step, [g for _, g in spent])
        if capacity is not None:
            beyond = self.live(step)[capacity:]
            assert self.table.evict_beyond(step, capacity) == len(beyond)
            self.evict(step, beyond)
        self.now += 1

    @rule(limit=st.integers(2, 4))
    def train_again_and_again(self, limit: int) -> None:
        for _ in range(3):
            self.train(limit, 0, 0, None, None, False, 0.5)

    def evict(self, step: int, groups: list[Naive]) -> None:
        for group in groups:
            group.evicted.append(step)

    @precondition(lambda self: self.now > self.purged)
    @rule(data=st.data(), marks=st.lists(MARKS, min_size=20, max_size=20))
    def rewind(self, data: st.DataObject, marks: list[str]) -> None:
        step = data.draw(st.integers(self.purged, self.now))
        known = {version: f"{marks[version]}{version}" for version in range(min(step + 1, 20))}
        kept = {
            place: g
            for place, g in self.groups.items()
            if g.step < step or known.get(g.version) == f"{g.mark}{g.version}"
        }
        assert self.table.rewind(step, known) == sum(g.step >= step for g in kept.values())
        for group in kept.values():
            group.uses = [(at, priority) for at, priority in group.uses if at < step]
            group.evicted = [at for at in group.evicted if at < step]
        self.groups, self.now = kept, step

    @rule(back=st.integers(2, 6))
    def purge(self, back: int) -> None:
        step = max(self.purged, self.now - back)
        gone = [p for p, g in self.groups.items() if g.gone_since is not None and g.gone_since < step]
        assert self.table.purge(step) == len(gone)
        for place in gone:
            del self.groups[place]
        self.purged = step

    @rule()
    def reopen(self) -> None:
        self.table.close()
        self.table = GroupTable.open(self.url, self.name, tokenizer="t", create=False)

    @invariant()
    def the_same_is_there(self) -> None:
        assert self.table.size == sum(g.live for g in self.groups.values())
        assert self.table.size_at(self.now) == len(self.live(self.now))
        assert self.table.versions() == {g.version for g in self.groups.values() if g.live}
        for step in range(max(0, self.now - 1), self.now + STEPS_AHEAD + 1):
            mine = sorted((g for g in self.groups.values() if g.step == step), key=lambda g: g.index)
            assert self.table.groups_at(step) == [g.index for g in mine]
            self.agree(self.table.entries_at(step), [g for g in mine if g.live])
            assert [g.index for g in self.table.read(step)] == [g.index for g in mine if g.admitted]

    @invariant()
    def the_same_would_be_chosen(self) -> None:
        for limit, cooldown, max_uses in ((3, 0, 0), (99, 1, 2)):
            entries = self.table.choose(self.now, limit, cooldown=cooldown, max_uses=max_uses)
            self.agree(entries, self.choice(self.now, limit, cooldown, max_uses))
            tokens = [g.rollouts[0].trajectories[0].turns[0].prompt.tolist() for g in self.table.load(entries)]
            assert tokens == [[1, e.index] for e in entries]


def test_the_table_agrees_with_a_naive_buffer(url: str) -> None:
    class Here(Agrees):
        pass

    Here.url = url
    run_state_machine_as_test(Here, settings=settings(max_examples=25, stateful_step_count=25))
