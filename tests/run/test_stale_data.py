"""Data that is not fresh: recorded, replayed, offline, sampled ahead, or by several versions of the weights at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from runs import Notes, rows, weights

from ratchet.config.schedule import Schedule
from ratchet.config.schema import RunConfig
from ratchet.core.errors import ConfigError
from ratchet.run.changes import accept, changes
from ratchet.run.launch import resume, train
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]


def test_training_in_a_thread_changes_no_number(config: Config, tmp_path: Path) -> None:
    settings = ("sync.offset=1", "sync.interval=2")
    one = train(config(*settings, folder=tmp_path / "a")).folder
    two = train(config(*settings, "train.overlap=true", folder=tmp_path / "b")).folder
    assert rows(one) == rows(two)
    assert weights(one) == weights(two)


@pytest.mark.parametrize("words", [(), ("train.updates_per_batch=2",), ("buffer.kind='replay'", "sync.offset=1")])
def test_a_run_records_how_far_trainer_and_sampler_were_apart_at_each_token(
    config: Config, words: tuple[str, ...]
) -> None:
    store = RunStore.open(train(config(*words)).folder)
    for k, row in enumerate(rows(store.folder)):
        found = store.read_differences(k)
        assert found is not None
        assert sum(map(len, found.values())) == row["tokens/trained"]
        apart = max(float(abs(values).max()) for values in found.values())
        if "sampler/logp_diff_max" in row:
            assert apart == pytest.approx(row["sampler/logp_diff_max"], rel=1e-3, abs=1e-7)
        for one in store.read_groups(k):
            for r in one.rollouts:
                assert len(found.get((one.step, one.index, r.attempt), range(r.output_tokens))) == r.output_tokens
    bare = RunStore.open(train(config(*words, "record.rollouts=false", "run.name='bare'")).folder)
    assert bare.read_differences(0) is None


RELAY = f"{Path(__file__).parent / 'relay.py'}:Relay"


def latest_beside_the_first(folder: Path) -> int:
    """The last task that began before the attempts at task 0 ended."""
    first = next(g for g in RunStore.open(folder).read_groups(0) if g.index == 0)
    assert all(r.score is not None for r in first.rollouts), "nobody came"
    return max(int(r.metrics["latest"]) for r in first.rollouts)


def test_the_next_step_begins_while_the_last_group_of_one_is_played_if_the_same_weights_sample_it(
    config: Config,
) -> None:
    words = (f"environment.name={RELAY}", "explore.rollout_timeout_s=20", "sync.interval=3", "sync.offset=1")
    # Steps 0 to 3 are sampled by version 0 (offset 1), 4 by version 3; steps have 4 tasks; room is for as many as that.
    folder = train(config(*words, "environment.awaited=5")).folder
    assert 5 <= latest_beside_the_first(folder) < 16
    store = RunStore.open(folder)
    for k, row in enumerate(rows(folder)):
        groups = store.read_groups(k)
        assert [g.index for g in groups] == [4 * k + i for i in range(4)]
        versions = {turn.version for g in groups for r in g.rollouts for t in r.trajectories for turn in t.turns}
        assert versions == {0 if k < 4 else 3}
        assert sum(v for name, v in row.items() if name.startswith("ledger/")) == 4 * 3


def test_a_step_that_other_weights_sample_waits_for_the_step_before(config: Config) -> None:
    folder = train(config(f"environment.name={RELAY}", "environment.awaited=3")).folder
    assert latest_beside_the_first(folder) == 3


def test_offline_every_batch_comes_from_the_starting_policy(config: Config) -> None:
    folder = train(config("sync.offline=true")).folder
    versions = [
        t.version
        for k in range(6)
        for g in RunStore.open(folder).read_groups(k)
        for r in g.rollouts
        for tr in r.trajectories
        for t in tr.turns
    ]
    assert set(versions) == {0}
    assert [r["stale/max"] for r in rows(folder)] == list(range(6))


@pytest.mark.parametrize(
    "words",
    [
        ("sync.interval=1", "sync.offset=0"),
        ("sync.interval=3", "sync.offset=0"),
        ("sync.interval=2", "sync.offset=1"),
        ("sync.interval=1", "sync.offset=3"),
        ("sync.interval={kind='steps', values={0=1, 2=4}}", "sync.offset=1"),
    ],
)
def test_every_turn_was_sampled_by_the_version_the_schedule_names(config: Config, words: tuple[str, ...]) -> None:
    chosen = config(*words)
    store, law = RunStore.open(train(chosen).folder), Schedule(chosen.sync)
    for k, row in enumerate(rows(store.folder)):
        versions = {
            v
            for g in store.read_groups(k)
            for r in g.rollouts
            for tr in r.trajectories
            for t in tr.turns
            for v in t.token_versions.tolist()
        }
        assert versions == {law.version_for(k)}
        assert row["stale/max"] == row["stale/mean"] == law.staleness(k)


def test_a_recorded_run_is_trained_on_again_with_another_algorithm(config: Config, tmp_path: Path) -> None:
    first = train(config("sync.offline=true", folder=tmp_path / "a")).folder
    again = train(config(f"data.from_run={first}", "algorithm.name=reinforce", folder=tmp_path / "b")).folder
    for k in range(6):
        ours, theirs = (RunStore.open(f).read_groups(k) for f in (again, first))
        assert [g.task.id for g in ours] == [g.task.id for g in theirs]
        assert [[r.score.value for r in g.rollouts] for g in ours] == [
            [r.score.value for r in g.rollouts] for g in theirs
        ]
    assert [r["reward/mean"] for r in rows(again)] == [r["reward/mean"] for r in rows(first)]
    assert "stale/mean" not in rows(again)[0]
    assert weights(again) != weights(first)


def test_the_same_algorithm_on_the_recorded_groups_gives_the_recorded_run(config: Config, tmp_path: Path) -> None:
    """All samples of an offline run are the starting policy's, so training on its record is the same training."""
    first = train(config("sync.offline=true", folder=tmp_path / "a")).folder
    again = train(config(f"data.from_run={first}", folder=tmp_path / "b")).folder
    assert weights(again) == weights(first)


def test_a_recorded_run_begins_again_at_its_end(config: Config, tmp_path: Path) -> None:
    first = train(config("train.steps=2", folder=tmp_path / "a")).folder
    again = train(config(f"data.from_run={first}", "train.steps=4", folder=tmp_path / "b")).folder
    rewards = [r["reward/mean"] for r in rows(again)]
    assert rewards[:2] == rewards[2:]
    assert rewards[0] != rewards[1]


@pytest.mark.parametrize(
    ("recorded", "settings", "says"),
    [
        ((), ("explore.temperature=0.7",), r"explore.temperature = 1, this run asks for 0.7.*Set explore.temperature"),
        ((), ("explore.samples_per_prompt=9",), "recorded 3 attempts per prompt, fewer than .* = 9"),
        (("record.rollouts=false",), (), "holds no rollouts"),
        ((), ("policy.tiny.characters=XYZ",), "another tokenizer"),
    ],
)
def test_a_recorded_run_that_does_not_fit_is_refused(
    config: Config, tmp_path: Path, recorded: tuple[str, ...], settings: tuple[str, ...], says: str
) -> None:
    first = train(config("train.steps=1", *recorded, folder=tmp_path / "a")).folder
    with pytest.raises(ConfigError, match=says):
        train(config(f"data.from_run={first}", *settings, folder=tmp_path / "b"))


def test_replay_trains_old_groups_again_and_counts_them(config: Config) -> None:
    settings = ("buffer.kind=replay", "buffer.train_prompts=6", "buffer.cooldown=1", "buffer.max_uses=2")
    found = rows(train(config(*settings)).folder)
    assert found[0]["buffer/replayed_frac"] == 0
    assert found[2]["buffer/replayed_frac"] == pytest.approx(2 / 6)
    assert found[2]["stale/max"] > 0
    assert all(r["rollouts/step"] == 12 for r in found)
    for row in found:  # the ledger speaks of what was sampled, and closes
        assert sum(v for k, v in row.items() if k.startswith("ledger/")) == 12


def test_a_bound_on_staleness_lets_replay_reach_back_no_further(config: Config) -> None:
    settings = ("buffer.kind=replay", "buffer.train_prompts=12", "buffer.max_staleness=1")
    found = rows(train(config(*settings)).folder)
    assert max(r["stale/max"] for r in found) == 1
    assert sum(r["buffer/evicted_stale"] for r in found) > 0


def test_a_greedy_attempt_is_sampled_and_recorded_where_the_algorithm_needs_it(config: Config) -> None:
    folder = train(config("algorithm.name=remax", "train.steps=2")).folder
    groups = RunStore.open(folder).read_groups(0)
    assert all(g.greedy is not None and len(g.rollouts) == 3 for g in groups)
    assert rows(folder)[0]["reward/greedy"] == pytest.approx(
        sum(g.greedy.score.value for g in groups if g.greedy and g.greedy.score) / len(groups)
    )


def test_weights_that_arrive_in_mid_answer_are_named_token_by_token(config: Config) -> None:
    settings = ("sync.offset=2", "train.overlap=true", "sync.partial_rollouts=true", "explore.max_tokens=16")
    folder = train(config(*settings, "train.steps=12")).folder
    turns = [
        t
        for k in range(12)
        for g in RunStore.open(folder).read_groups(k)
        for r in g.rollouts
        for tr in r.trajectories
        for t in tr.turns
    ]
    for turn in turns:
        versions = turn.token_versions.tolist()
        assert versions == sorted(versions)
        assert (versions[0], versions[-1]) == (turn.version, turn.last_version)
    assert max(t.last_version for t in turns) > 0


def test_a_resumed_run_of_partial_rollouts_says_that_it_will_not_repeat(config: Config, tmp_path: Path) -> None:
    settings = ("sync.offset=1", "train.overlap=true", "sync.partial_rollouts=true", "train.steps=2")
    folder = train(config(*settings)).folder
    notes = Notes()
    resume(folder, notes, words=["train.steps=3"], accept_changes=True)
    assert any("will not repeat" in n for n in notes.notes)


def test_a_changed_config_is_refused_by_name_and_nothing_is_touched(config: Config, tmp_path: Path) -> None:
    folder = train(config("train.steps=2")).folder
    before = (folder / "config.toml").read_bytes(), (folder / "events.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"algorithm.lr: 0.01 -> 0.5; train.steps: 2 -> 4\..*--accept-changes"):
        resume(folder, words=["train.steps=4", "algorithm.lr=0.5"])
    assert ((folder / "config.toml").read_bytes(), (folder / "events.jsonl").read_bytes()) == before


def test_a_changed_config_file_is_noticed_too(config: Config) -> None:
    folder = train(config("train.steps=2")).folder
    file = folder / "config.toml"
    file.write_text(file.read_text().replace("steps = 2", "steps = 3"))
    with pytest.raises(ConfigError, match=r"train.steps: 2 -> 3"):
        resume(folder)


def test_accepted_changes_are_recorded_and_hold_from_there_on(config: Config) -> None:
    folder = train(config("train.steps=2")).folder
    assert resume(folder, words=["train.steps=4", "algorithm.lr=0.5"], accept_changes=True).finished
    changed = [e for e in RunStore.open(folder).events() if e["kind"] == "config_changed"]
    assert [(c["key"], c["before"], c["after"]) for c in changed[0]["changes"]] == [
        ("algorithm.lr", 0.01, 0.5),
        ("train.steps", 2, 4),
    ]
    assert [r["opt/lr"] for r in rows(folder)] == [0.01, 0.01, 0.5, 0.5]
    assert (folder / "config-until-step-2.toml").is_file()
    assert resume(folder).finished, "the new config is now the run's own"


@pytest.mark.parametrize(
    "word", ["run.seed=3", "policy.tiny.hidden=32", "buffer.kind=replay", "explore.prompts_per_step=2"]
)
def test_what_the_weights_were_made_with_cannot_change(config: Config, word: str) -> None:
    folder = train(config("train.steps=1")).folder
    with pytest.raises(ConfigError, match="cannot go on with another"):
        resume(folder, words=[word], accept_changes=True)


def test_a_teacher_is_asked_for_and_checked(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'algorithm.name = "distill".*policy.teacher is empty'):
        train(config("algorithm.name=distill"))
    master = train(config(folder=tmp_path / "master")).folder / "checkpoints" / "step_000006"
    with pytest.raises(ConfigError, match=r"policy.teacher.*asks no teacher"):
        train(config(f"policy.teacher={master}", folder=tmp_path / "b"))
    pupil = train(config("algorithm.name=distill", f"policy.teacher={master}", "train.steps=2", folder=tmp_path / "c"))
    assert pupil.finished


def test_a_critic_is_kept_in_the_checkpoint(config: Config, tmp_path: Path) -> None:
    straight = train(config("algorithm.name=ppo", "train.steps=4", folder=tmp_path / "a")).folder
    half = train(config("algorithm.name=ppo", "train.steps=2", folder=tmp_path / "b")).folder
    resume(half, words=["train.steps=4"], accept_changes=True)
    assert rows(half) == rows(straight)


def test_a_run_whose_folder_was_renamed_goes_on(config: Config, tmp_path: Path) -> None:
    folder = train(config("train.steps=2")).folder
    moved = folder.rename(tmp_path / "moved")
    assert resume(moved, words=["train.steps=3"], accept_changes=True).finished
    assert len(rows(moved)) == 3


def test_a_password_is_in_no_message_about_changes() -> None:
    found = changes({"buffer": {"url": ""}}, {"buffer": {"url": "postgresql://me:secret@host/db"}})
    with pytest.raises(ConfigError) as caught:
        accept(found, accepted=False, resume="ratchet resume x")
    assert "secret" not in str(caught.value)
    assert "postgresql://me:***@host/db" in str(caught.value)


def test_a_buffer_that_cannot_be_used_is_found_before_the_warm_start(config: Config, tmp_path: Path) -> None:
    for words in (["buffer.url=sqlite:////nowhere/there/b.sqlite"], ["buffer.kind=replay", "buffer.priority=age"]):
        with pytest.raises(ConfigError, match=r"buffer\.(url|priority)"):
            train(config(*words, "warm_start.steps=50"))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()
