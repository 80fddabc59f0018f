"""The run folder: what was written comes back, whatever happened while it was written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders import group, random_groups, rollout, turn

from ratchet.core.errors import ConfigError, RunError
from ratchet.core.rollout import Group, Rollout, Score, Status, StopReason, Trajectory
from ratchet.core.task import Message, Task
from ratchet.store.codec import group_from_json, group_to_json
from ratchet.store.run_store import RunStore


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore.create(
        tmp_path / "run", {"train": {"steps": 3, "betas": (0.9, 0.95), "none": None}}, {"x": 1}, {"y": "é"}
    )


def rich_group() -> Group:
    asked = Task(
        "judge",
        (Message("system", "ü"), Message("user", "1\n\u2028<|x|>")),
        "A",
        {"digits": [1, 2], "deep": {"a": None}},
    )
    turns = (
        turn([1, 2], [3, 4], logprobs=[-0.1, -1e-30], log_kept=np.array([0.0, -0.25], dtype=np.float32), version=4),
        turn(
            [1, 2, 3, 4], [5], version=4, stop=StopReason.LENGTH, text="größe 😀\n", last_version=6, fingerprint="abc"
        ),
    )
    played = Rollout(
        asked.id, 3, (Trajectory(turns), Trajectory((), agent="helper", trainable=False, parent=0)), Status.OK,
        Score(0.1 + 0.2, {"accuracy": 1.0, "format": 1 / 3}), metrics={"steps": 2.0}, seconds=1.5,
        notes={"box": "1 failed"},
    )  # fmt: skip
    return Group(asked, 17, 5, (played, rollout(None, status=Status.REWARD_TIMEOUT)))


def test_a_group_comes_back_from_json_with_every_bit_of_its_facts() -> None:
    before = rich_group()
    after = group_from_json(json.loads(json.dumps(group_to_json(before))))
    assert (after.task, after.task.id, after.index, after.step) == (before.task, before.task.id, 17, 5)
    for one, other in zip(before.rollouts, after.rollouts, strict=True):
        for name in ("attempt", "status", "score", "error", "metrics", "seconds", "notes"):
            assert getattr(one, name) == getattr(other, name)
        for a, b in zip(one.trajectories, other.trajectories, strict=True):
            assert (a.agent, a.trainable, a.parent) == (b.agent, b.trainable, b.parent)
            for t, u in zip(a.turns, b.turns, strict=True):
                for name in ("prompt", "output", "logprobs", "log_kept"):
                    assert getattr(t, name).tobytes() == getattr(u, name).tobytes()
                    assert getattr(t, name).dtype == getattr(u, name).dtype
                for name in ("version", "last_version", "fingerprint", "stop", "text"):
                    assert getattr(t, name) == getattr(u, name)


def test_groups_of_a_step_come_back_in_order_and_equal_groups_are_equal_files(store: RunStore) -> None:
    groups = [rich_group(), *random_groups(1)]
    store.write_groups(5, groups)
    store.write_groups(6, groups)
    assert [group_to_json(g) for g in store.read_groups(5)] == [group_to_json(g) for g in groups]
    assert store.steps_with_groups() == [5, 6]
    assert store.groups_path(5).read_bytes() == store.groups_path(6).read_bytes()
    assert not list((store.folder / "rollouts").glob("*.part"))


def test_groups_that_were_not_kept_are_a_config_error_that_says_which_were(store: RunStore) -> None:
    with pytest.raises(ConfigError, match="none were kept"):
        store.read_groups(0)
    store.write_groups(2, [group([rollout(1.0)])])
    with pytest.raises(ConfigError, match="no rollouts of step 7: kept are steps 2 to 2"):
        store.read_groups(7)


def test_of_a_repeated_step_the_last_row_counts_and_steps_come_in_order(store: RunStore) -> None:
    for step, value in ((0, 1.0), (1, 2.0), (2, 3.0), (1, 20.0), (2, 30.0)):
        store.append_metrics({"step": step, "x": value})
    assert [(row["step"], row["x"]) for row in store.metrics()] == [(0, 1.0), (1, 20.0), (2, 30.0)]


@pytest.mark.parametrize("half", ['{"step": 1, "x', '{"step": 1, "x": 2.0}', '{"step": 1, "x": "\u00fc'])
def test_a_half_written_last_line_is_ignored_and_does_not_spoil_what_follows(store: RunStore, half: str) -> None:
    store.append_metrics({"step": 0, "x": 1.0})
    with (store.folder / "metrics.jsonl").open("ab") as file:
        file.write(half.encode()[: -1 if half.endswith("\u00fc") else None])
    assert [row["step"] for row in store.metrics()] == [0]
    store.append_metrics({"step": 1, "x": 5.0})
    assert [(row["step"], row["x"]) for row in store.metrics()] == [(0, 1.0), (1, 5.0)]


def test_config_plan_environment_and_status_come_back(store: RunStore) -> None:
    again = RunStore.open(store.folder)
    assert again.config_tree() == {"train": {"steps": 3, "betas": [0.9, 0.95]}}
    assert (again.plan(), again.environment(), again.status()) == ({"x": 1}, {"y": "é"}, {})
    store.write_status({"state": "running"})
    store.write_status({"state": "finished"})
    assert again.status() == {"state": "finished"}


def test_events_keep_their_order_and_their_facts(store: RunStore) -> None:
    store.append_event("start", 0, fingerprint="f")
    store.append_event("eval", 3, split="test")
    assert [(e["kind"], e["step"], e.get("split")) for e in store.events()] == [("start", 0, None), ("eval", 3, "test")]


def test_an_existing_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="There is a run at"):
        RunStore.create(tmp_path / "run", {}, {}, {})
    assert not list((tmp_path / "run").iterdir())


def test_a_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be made: Not a directory\. Set run\.folder elsewhere"):
        RunStore.create(tmp_path / "file" / "run", {}, {}, {})


def test_a_folder_that_is_no_run_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        RunStore.open(tmp_path)


def test_a_disk_that_refuses_is_a_run_error_that_says_what_is_safe(store: RunStore) -> None:
    (store.folder / "metrics.jsonl").unlink()
    (store.folder / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=r"metrics\.jsonl cannot be written.*recorded before is safe"):
        store.append_metrics({"step": 0})


def test_differences_of_tokens_come_back_and_go_with_the_groups_they_belong_to(store: RunStore) -> None:
    store.write_groups(5, random_groups(1))
    assert store.read_differences(5) is None
    noise = np.random.default_rng(0).normal(0, 1e-3, 20_000).astype(np.float16)
    kept = {(5, 0, 0): noise, (5, 1, 3): np.array([np.nan, -65504.0], dtype=np.float16)}
    store.write_differences(5, kept)
    found = store.read_differences(5)
    assert found is not None
    assert list(found) == list(kept)
    for key, values in kept.items():
        np.testing.assert_array_equal(found[key], values)
    (path,) = (store.folder / "rollouts").glob("differences_*")
    assert path.stat().st_size < 2.2 * len(noise)
    assert store.steps_with_groups() == [5]
    store.write_groups(5, random_groups(2))  # a resumed run plays the step anew
    assert store.read_differences(5) is None
