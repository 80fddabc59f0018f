"""What can be put is chosen, used, evicted and counted as said, on every database."""

from __future__ import annotations

import numpy as np
import pytest
from builders import random_groups
from experiences import chosen, fingerprints, made, put, use

from ratchet.buffer.groups import SAMPLERS_KNOWN, GroupTable
from ratchet.core.errors import RunError
from ratchet.store.codec import group_to_json


def test_a_group_comes_back_as_it_was_put(table: GroupTable) -> None:
    groups = random_groups(0)
    for group in reversed(groups):
        table.put(group, version=0, priority=0.0, admitted=True)
    back = table.read(0)
    assert [group_to_json(g) for g in back] == [group_to_json(g) for g in groups]
    ours, theirs = (g[1].rollouts[2].trajectories[0].turns[0] for g in (back, groups))
    np.testing.assert_array_equal(ours.logprobs, theirs.logprobs)
    assert [g.index for g in table.load(table.choose(0, 2, cooldown=0, max_uses=0))] == [0, 1]


def test_the_highest_priorities_are_chosen_and_ties_go_to_the_newer_step_then_the_lower_index(table) -> None:
    for step, index, priority in ((0, 1, 5.0), (0, 0, 1.0), (1, 3, 1.0), (1, 2, 1.0), (2, 4, -3.5)):
        put(table, step, index, priority=priority)
    assert chosen(table, 2) == [(0, 1), (1, 2), (1, 3), (0, 0), (2, 4)]
    assert chosen(table, 2, 2) == [(0, 1), (1, 2)]


def test_a_step_never_sees_groups_of_steps_to_come(table) -> None:
    for step in range(3):
        put(table, step, 0, priority=float(step))
    assert chosen(table, 1) == [(1, 0), (0, 0)]
    assert (table.size, table.size_at(1)) == (3, 2)


def test_a_used_group_rests_for_the_cooldown_and_not_a_step_longer(table) -> None:
    put(table, 0, 0)
    use(table, 3)
    assert [chosen(table, step, cooldown=2) for step in (4, 5, 6)] == [[], [], [(0, 0)]]
    assert chosen(table, 4, cooldown=0) == [(0, 0)]


def test_a_group_used_often_enough_is_not_chosen_and_zero_sets_no_limit(table) -> None:
    put(table, 0, 0)
    for step in range(2):
        use(table, step)
    assert [chosen(table, 2, max_uses=n) for n in (0, 1, 2, 3)] == [[(0, 0)], [], [], [(0, 0)]]


def test_a_use_changes_priority_count_and_step(table) -> None:
    put(table, 0, 0, priority=4.0)
    use(table, 1, priority=-1.5)
    (entry,) = table.choose(2, 1, cooldown=0, max_uses=0)
    assert (entry.uses, entry.last_used, entry.priority, entry.version) == (1, 1, -1.5, 0)


def test_stale_groups_up_to_the_step_are_evicted(table) -> None:
    for step, index, version in ((2, 0, 0), (2, 1, 1), (3, 2, 2), (4, 3, 1)):
        put(table, step, index, version=version)
    assert table.evict_older(3, 2) == 2
    assert chosen(table, 4) == [(4, 3), (3, 2)]
    assert table.evict_older(3, 2) == 0


def test_what_exceeds_the_capacity_goes_lowest_priority_first(table) -> None:
    for index, priority in enumerate((3.0, 1.0, 2.0, 1.0)):
        put(table, 0, index, priority=priority)
    put(table, 1, 9, priority=-9.0)
    assert table.evict_beyond(0, 3) == 1
    assert chosen(table, 0) == [(0, 0), (0, 2), (0, 1)]
    assert table.evict_beyond(0, 3) == 0
    assert table.evict_beyond(1, 2) == 2
    assert chosen(table, 1) == [(0, 0), (0, 2)]


def test_fifo_evicts_the_groups_of_its_step_alone(table) -> None:
    for step in range(3):
        put(table, step, step)
    assert table.evict_used(1) == 1
    assert chosen(table, 2) == [(2, 2), (0, 0)]


def test_a_refused_group_is_there_but_never_chosen(table) -> None:
    put(table, 0, 0, admitted=False)
    put(table, 0, 1)
    assert table.groups_at(0) == [0, 1]
    assert chosen(table, 0) == [(0, 1)]
    assert [e.index for e in table.entries_at(0)] == [1]
    assert ([g.index for g in table.read(0)], [g.index for g in table.read(0, admitted=False)]) == ([1], [0])
    assert table.size == 1


def test_putting_a_group_again_replaces_it_and_what_was_known_of_it(table) -> None:
    put(table, 0, 0, priority=1.0)
    put(table, 0, 1, priority=2.0)
    use(table, 0, priority=-1.0)
    table.put(made(0, 0, rewards=(7, 8, 9)), version=0, priority=3.0, admitted=True)
    (entry, _) = table.choose(1, 2, cooldown=9, max_uses=0) + table.choose(1, 2, cooldown=0, max_uses=0)[1:]
    assert (entry.index, entry.uses, entry.priority) == (0, 0, 3.0)
    assert len(table.read(0)[0].rollouts) == 3
    assert table.size == 2
    put(table, 0, 0, admitted=False)
    assert table.size == 1
    assert table.rewind(0, fingerprints(0)) == 2
    assert chosen(table, 0) == [(0, 1)]


def test_a_group_put_again_does_not_inherit_what_was_logged_under_its_number(table) -> None:
    put(table, 0, 0, priority=1.0)
    use(table, 0)
    put(table, 0, 0, priority=3.0)  # SQLite gives the number of the last row again once that row is gone
    table.rewind(0, fingerprints(0))
    (entry,) = table.choose(0, 1, cooldown=0, max_uses=0)
    assert (entry.uses, entry.priority) == (0, 3.0)


def test_versions_are_those_behind_live_groups(table) -> None:
    for step, version in ((3, 1), (4, 2), (5, 2)):
        put(table, step, 0, version=version)
    assert table.versions() == {1, 2}
    table.evict_older(5, 2)
    assert table.versions() == {2}


def test_what_is_flushed_is_there_and_flushing_changes_nothing(opened) -> None:
    table = opened()
    put(table, 0, 0)
    table.flush()
    assert chosen(table, 0) == chosen(opened(create=False), 0) == [(0, 0)]


def test_all_of_a_transaction_happens_or_none(opened) -> None:
    table = opened()
    put(table, 0, 0)

    def interrupted() -> None:
        with table.transaction("doing two things"):
            use(table, 0)
            table.evict_used(0)
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    table.close()
    table = opened(create=False)
    (entry,) = table.choose(0, 1, cooldown=0, max_uses=0)
    assert (entry.uses, table.size) == (0, 1)


def test_purging_deletes_what_was_evicted_before_and_a_bounded_number_at_once(table) -> None:
    for step in range(5):
        put(table, step, 0)
        put(table, step, 1, admitted=False)
        use(table, step)
        table.evict_used(step)
    assert table.purge(3, most=4) == 4
    assert table.purge(3, most=4) == 2
    assert table.purge(3) == 0
    assert [table.groups_at(step) for step in range(5)] == [[], [], [], [0, 1], [0, 1]]
    with pytest.raises(RunError, match=r"deleted what was evicted before step 3.*cannot go back to step 2"):
        table.rewind(2, {})
    assert table.rewind(3, fingerprints(4)) == 4
    assert chosen(table, 4) == [(4, 0), (3, 0)]


def test_a_database_older_than_the_checkpoint_is_refused(table) -> None:
    use(table, 0)
    with pytest.raises(RunError, match=r"recorded 1 trained steps, but the checkpoint is of step 2.*older copy"):
        table.rewind(2, {})


def test_groups_to_come_stay_only_if_the_same_weights_sampled_them(table) -> None:
    for step in range(2):
        put(table, step, 0)
        use(table, step)
    put(table, 2, 0, version=1)
    put(table, 2, 1, version=2)
    put(table, 3, 2, version=1)
    table.put(made(3, 3, version=1, mark="other"), version=1, priority=0.0, admitted=True)
    assert table.rewind(2, fingerprints(1)) == 2
    assert [table.groups_at(step) for step in range(4)] == [[0], [0], [0], [2]]


def test_going_back_over_several_uses_restores_what_was_before_the_first_of_them(table) -> None:
    put(table, 0, 0, priority=5.0)
    for step in range(4):
        use(table, step, priority=-1.0 - step)
    assert table.rewind(1, fingerprints(0)) == 0
    (entry,) = table.choose(1, 1, cooldown=0, max_uses=0)
    assert (entry.uses, entry.last_used, entry.priority) == (1, 0, -1.0)
    use(table, 1, priority=7.0)  # what was taken back is logged no more
    assert table.rewind(0, {}) == 0
    assert table.size == 0


def test_buffers_of_one_database_do_not_see_each_other(opened, name: str) -> None:
    one, two = opened(), opened(name=f"{name}-2")
    put(one, 0, 0, priority=1.0)
    put(two, 0, 0, priority=2.0)
    put(two, 1, 0)
    use(one, 0)
    two.evict_older(1, 1)
    assert (one.size, two.size) == (1, 1)
    assert (one.groups_at(1), two.groups_at(1)) == ([], [0])
    two.rewind(0, {})
    assert (chosen(one, 1), two.size) == ([(0, 0)], 0)


def test_weights_that_nothing_live_was_sampled_with_are_forgotten_and_may_come_again(table: GroupTable) -> None:
    last = SAMPLERS_KNOWN + 8
    for step in range(last + 1):
        put(table, step, 0)
        if step < last:
            table.evict_used(step)
        table.purge(step)
    assert len(table._samplers) <= SAMPLERS_KNOWN + 2, "memory must not grow with the steps of a run"
    put(table, last + 1, 0, version=0)
    assert table.versions() == {0, last}
    assert [entry.version for entry in table.choose(last + 1, 2, cooldown=0, max_uses=0)] == [0, last]
