"""Attempts that fail are counted, never trained on, and stop a run only when there are too many."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.config.schedule import Schedule
from ratchet.core.errors import RunError
from ratchet.run.launch import train
from ratchet.store.run_store import RunStore


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("raise", "environment_error"),
        ("no number", "reward_invalid"),
        ("never", "rollout_timeout"),
        ("silent", "no_tokens"),
    ],
)
def test_half_of_the_attempts_failing_is_counted_and_the_ledger_closes(config, fail: str, reason: str) -> None:
    chosen = config(f"environment.fail={fail}", "train.steps=2", "explore.rollout_timeout_s=0.3")
    store = RunStore.open(train(chosen).folder)
    for row in store.metrics():
        ledger = {name: count for name, count in row.items() if name.startswith("ledger/")}
        assert ledger == {"ledger/trained": 6.0, f"ledger/{reason}": 6.0}
        assert sum(ledger.values()) == row["rollouts/asked"]
    failed = [r for g in store.read_groups(0) if g.index % 2 == 0 for r in g.rollouts]
    if fail != "silent":
        assert {(r.status.value, r.score) for r in failed} == {(reason, None)}
        assert all(r.error for r in failed)


@pytest.mark.parametrize("fail", ["raise", "no number"])
def test_more_failures_than_allowed_stop_the_run_with_the_first_reason(config, tmp_path: Path, fail: str) -> None:
    with pytest.raises(
        RunError, match=r"Step 0: 12 of 12 attempts failed \(12 .*more than explore.max_failed_share = 0.5 allows"
    ):
        train(config(f"environment.fail={fail}", "environment.every=1"))
    store = RunStore.open(tmp_path / "run")
    assert store.status()["state"] == "failed"
    assert store.events()[-1]["kind"] == "failed"
    assert len(store.read_groups(0)) == 4, "the rollouts that failed are kept, to be looked at"


def test_a_run_that_allows_every_failure_goes_on_without_training(config) -> None:
    chosen = config("environment.fail=raise", "environment.every=1", "explore.max_failed_share=1.0", "train.steps=2")
    rows = RunStore.open(train(chosen).folder).metrics()
    assert [row["ledger/environment_error"] for row in rows] == [12.0, 12.0]
    assert [row["tokens/trained"] for row in rows] == [0.0, 0.0]


def test_a_prompt_longer_than_the_context_is_counted_and_never_cut(config) -> None:
    chosen = config("environment.prompt=-40", "train.steps=1")  # every second prompt has forty digits
    store = RunStore.open(train(chosen).folder)
    (row,) = store.metrics()
    assert row["ledger/prompt_too_long"] == 6.0
    assert row["ledger/trained"] == 6.0
    long = next(r for g in store.read_groups(0) for r in g.rollouts if r.status.value == "prompt_too_long")
    assert "the context holds 24" in long.error


def test_the_data_cursor_never_repeats_or_skips_a_task(config) -> None:
    store = RunStore.open(train(config()).folder)
    assert [g.index for k in range(6) for g in store.read_groups(k)] == list(range(24))


@pytest.mark.parametrize(
    "settings",
    [
        ("sync.interval=3",),
        ("eval.tasks=3", "eval.every=2", "sync.interval=3"),
        ("sync.offset=1", "eval.tasks=3", "eval.every=1"),
    ],
)
def test_every_answer_is_sampled_by_the_version_its_schedule_names(config, settings: tuple[str, ...]) -> None:
    chosen = config(*settings)
    schedule, store = Schedule(chosen.sync), RunStore.open(train(chosen).folder)
    for k in range(6):
        turns = [t for g in store.read_groups(k) for r in g.rollouts for t in r.trajectories[0].turns]
        assert {(t.version, t.last_version) for t in turns} == {(schedule.version_for(k), schedule.version_for(k))}
        assert store.metrics()[k]["stale/max"] == k - schedule.version_for(k)
