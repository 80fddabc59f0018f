"""Curves by value, and the staleness law against its formula."""

from __future__ import annotations

import math

import pytest
from builders import within
from hypothesis import given
from hypothesis import strategies as st

from ratchet.config.curve import Constant, Cosine, Linear, Steps, at, values_of
from ratchet.config.schedule import Schedule
from ratchet.config.schema import SyncSection


def test_curves_have_the_values_worked_out_by_hand() -> None:
    line = Linear(kind="linear", start=1.0, end=3.0, steps=4)
    assert [line.at(s) for s in (0, 1, 2, 4, 9)] == [1.0, 1.5, 2.0, 3.0, 3.0]
    wave = Cosine(kind="cosine", start=2.0, end=1.0, steps=4)
    # 1 + 0.5 (1 + cos(pi s / 4)): at s = 1 the cosine is 1/sqrt 2.
    assert [wave.at(s) for s in (0, 1, 2, 4, 9)] == pytest.approx([2.0, 1 + 0.5 * (1 + 2**-0.5), 1.5, 1.0, 1.0])
    stairs = Steps(kind="steps", values={0: 1.0, 40: 20.0})
    assert [stairs.at(s) for s in (0, 39, 40, 1000)] == [1.0, 1.0, 20.0, 20.0]
    assert [at(curve, 7) for curve in (0.25, 3, Constant(kind="constant", value=2.0))] == [0.25, 3.0, 2.0]
    assert [max(values_of(curve)) for curve in (line, wave, stairs, 0.25)] == [3.0, 2.0, 20.0, 0.25]


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_warm_up_rises_evenly_and_never_begins_at_zero(kind: str) -> None:
    form = Linear if kind == "linear" else Cosine
    bare = form(kind=kind, start=1.0, end=0.5, steps=10)
    warm = form(kind=kind, start=1.0, end=0.5, steps=10, warmup=4)
    assert [warm.at(s) / bare.at(s) for s in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 300))
def test_a_constant_interval_obeys_the_staleness_law(interval: int, offset: int, step: int) -> None:
    schedule = Schedule(SyncSection(interval=interval, offset=offset))
    assert schedule.version_for(step) == max(0, interval * math.floor((step - offset) / interval))
    assert 0 <= schedule.staleness(step) <= interval - 1 + offset


def test_a_schedule_is_asked_for_every_step_of_a_long_run_in_no_time() -> None:
    schedule = Schedule(SyncSection(interval=1, offset=1))
    with within(5):
        assert [schedule.version_for(k) for k in range(100_000)] == [max(0, k - 1) for k in range(100_000)]


@given(st.dictionaries(st.integers(1, 60), st.integers(1, 12), max_size=3), st.integers(1, 12), st.integers(0, 5))
def test_a_staircase_interval_refreshes_where_walking_the_steps_says(
    later: dict[int, int], first: int, offset: int
) -> None:
    values = {0: float(first), **{k: float(v) for k, v in later.items()}}
    schedule = Schedule(SyncSection(interval=Steps(kind="steps", values=values), offset=offset))
    points, step = [0], 0
    while step < 120:
        step += int(values[max(s for s in values if s <= step)])
        points.append(step)
    for k in range(100):
        assert schedule.version_for(k) == max([p for p in points if p <= k - offset], default=0)


def test_versions_never_go_back() -> None:
    schedule = Schedule(SyncSection(interval=Steps(kind="steps", values={0: 1.0, 4: 20.0, 30: 3.0}), offset=2))
    versions = [schedule.version_for(k) for k in range(60)]
    assert versions == sorted(versions)
    assert versions[:8] == [0, 0, 0, 1, 2, 3, 4, 4]
