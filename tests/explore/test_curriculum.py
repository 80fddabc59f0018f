"""Which problems are admitted, in what order they come, and which successes are shown again: pure functions."""

from __future__ import annotations

import random

import pytest

from ratchet.core.rollout import Group, Positive, Rollout, Score, Status, Trajectory
from ratchet.core.task import Task
from ratchet.explore.curriculum import Plan, admit, first_plan, is_due
from ratchet.explore.positives import choose_positives, flattened_at, replay_facts, solved_share


def group_of(index: int, *values: float) -> Group:
    rollouts = tuple(
        Rollout(f"t{index}", i, (Trajectory(()),), Status.OK, Score(value)) for i, value in enumerate(values)
    )
    return Group(Task("reproduce", ()), index, 10 * index, rollouts)


def test_a_run_begins_with_the_problems_that_are_solved_at_times() -> None:
    plan = first_plan({0: 0, 1: 3, 2: 16, 3: 0})
    assert plan == Plan((1, 2), (0, 3))
    assert [step for step in range(301) if is_due(step, every=100)] == [100, 200, 300]
    assert not is_due(100, every=0)


def test_both_admission_rules_and_the_threshold() -> None:
    plan, passes = Plan((9,), (1, 2, 3, 4)), {1: 1, 2: 0, 3: 2}
    solvable, facts = admit(plan, passes, rule="solvable", count=5, rng=random.Random(0))
    assert solvable == Plan((9, 1, 3), (2, 4))
    assert facts["newly_admitted"] == facts["solvable_waiting"] == 2
    unsolved, facts = admit(plan, passes, rule="unsolved", count=5, rng=random.Random(0))
    assert unsolved == Plan((9, 2), (1, 3, 4)), "a problem that was not tried is not known to be unsolved"
    assert (facts["waiting"], facts["tried"]) == (3, 3)
    held, facts = admit(plan, passes, rule="solvable", count=5, rng=random.Random(0), success=0.4, threshold=0.5)
    assert held == plan
    assert facts["newly_admitted"] == 0


def test_no_more_are_admitted_than_asked_and_the_draw_belongs_to_its_seed() -> None:
    plan, passes = Plan((), tuple(range(100))), dict.fromkeys(range(100), 0)
    draws = [admit(plan, passes, rule="unsolved", count=5, rng=random.Random(seed))[0].admitted for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 5


def test_an_epoch_shows_every_admitted_problem_once_and_the_next_one_in_another_order() -> None:
    plan = Plan((3, 5, 8, 13, 21), (1,))
    first, second = ([plan.problem(5 * epoch + i, 7, 0) for i in range(5)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == [3, 5, 8, 13, 21]
    assert first != second
    assert first == [plan.problem(i, 7, 0) for i in range(5)]
    assert first != [plan.problem(i, 8, 0) for i in range(5)]


def test_a_curve_has_flattened_when_the_last_window_gains_little() -> None:
    assert flattened_at([0.2] * 9, window=5, gain=0.01) is None
    assert flattened_at([0.2] * 10, window=5, gain=0.01) == 10
    assert flattened_at([0.2] * 5 + [0.3] * 5, window=5, gain=0.01) is None
    assert flattened_at([0.3] * 5 + [0.2] * 5, window=5, gain=0.01) == 10
    rising = [k / 100 for k in range(20)]
    assert flattened_at(rising + [0.2] * 20, window=5, gain=0.01) == 28
    assert flattened_at(rising + [0.2] * 20, window=5, gain=0.01, start=33) == 33


def test_when_it_flattened_does_not_depend_on_what_came_later() -> None:
    rng = random.Random(3)
    rates = [min(0.6, 0.02 * k) + rng.gauss(0, 0.01) for k in range(80)]
    when = flattened_at(rates, window=10, gain=0.02)
    assert when is not None
    assert all(flattened_at(rates[:n], window=10, gain=0.02) == (when if n >= when else None) for n in range(81))


def test_positives_are_successes_of_problems_that_are_not_yet_sure() -> None:
    groups = [group_of(0, 0, 0), group_of(1, 1, 1), group_of(2, 0, 1, 1), group_of(3, 1, 0)]
    chosen = choose_positives(groups, count=9, rng=random.Random(0))
    assert [p.group.index for p in chosen] == [2, 3]
    assert all(p.rollout.score is not None and p.rollout.score.value == 1 for p in chosen)
    assert len(choose_positives(groups, count=9, rng=random.Random(0), one_per_task=False)) == 3
    assert len(choose_positives(groups, count=1, rng=random.Random(0))) == 1
    assert replay_facts(chosen, step=40, asked=4) == {
        "positives/count": 2,
        "positives/missing": 2,
        "positives/age": 15,
        "positives/success": pytest.approx((2 / 3 + 1 / 2) / 2),
    }
    assert replay_facts([], step=0, asked=0)["positives/age"] == 0


def test_the_share_of_solved_attempts_leaves_failed_ones_out() -> None:
    failed = Rollout("t", 2, (), Status.REWARD_TIMEOUT, None)
    group = Group(Task("reproduce", ()), 0, 0, (*group_of(0, 1, 0).rollouts, failed))
    assert solved_share([group], least=1.0) == 0.5
    assert solved_share([], least=1.0) == 0.0
    assert Positive(group, group.rollouts[0]).rollout.attempt == 0
