"""Kill a run at any instant: what goes on equals what was never stopped, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from builders import within
from runs import Notes, rows, weights

from ratchet.config.schema import RunConfig
from ratchet.core.errors import CheckpointError, ConfigError
from ratchet.run.checkpoint import damage, list_checkpoints
from ratchet.run.launch import resume, train
from ratchet.run.lock import alone
from ratchet.run.observer import Silent
from ratchet.store.run_store import RunStore

Config = Callable[..., RunConfig]
REPLAY = ("buffer.kind=replay", "buffer.train_prompts=7", "buffer.cooldown=1", "buffer.capacity=14")


class Dies(Silent):
    """Ends the process, as far as a test can, right after a step is on disk."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, row: dict[str, float], total: int) -> None:
        if row["step"] == self._step:
            raise MemoryError("killed")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Config, tuple[str, ...]], Path]:
    """Return the folder of a run with these settings that nothing stopped; one for all tests that compare with it."""
    done: dict[tuple[str, ...], Path] = {}

    def folder(config: Config, settings: tuple[str, ...]) -> Path:
        if settings not in done:
            done[settings] = train(config(*settings, folder=tmp_path_factory.mktemp("straight"))).folder
        return done[settings]

    return folder


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        pytest.param((), 2, marks=pytest.mark.slow),
        ((), 4),
        pytest.param(("sync.interval=4",), 2, marks=pytest.mark.slow),
        (("sync.interval=4",), 4),
        (("sync.interval={kind='steps', values={0=1, 2=3}}", "train.updates_per_batch=2"), 4),
        (("sync.offset=1",), 4),
        (("sync.offset=2", "sync.interval=2"), 4),
        (("sync.offset=2", "sync.interval=2", "train.overlap=true"), 4),
        (REPLAY, 4),
        pytest.param((*REPLAY, "sync.interval=4"), 2, marks=pytest.mark.slow),
        pytest.param((*REPLAY, "sync.interval=4"), 4, marks=pytest.mark.slow),
        ((*REPLAY, "sync.interval=2", "sync.offset=1", "buffer.priority=advantage"), 3),
        (("algorithm.name=k1_5", "sync.interval=4"), 4),
    ],
)
def test_some_steps_a_kill_and_the_rest_equal_six_steps_in_one_go(
    config: Config, uninterrupted, tmp_path: Path, settings: tuple[str, ...], last: int
) -> None:
    straight = uninterrupted(config, settings)
    with pytest.raises(MemoryError):
        train(config(*settings), Dies(last))
    with within(60):
        assert resume(tmp_path / "run").finished
    assert rows(tmp_path / "run") == rows(straight)
    assert weights(tmp_path / "run") == weights(straight)
    assert len({r["reward/mean"] for r in rows(straight)}) > 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda s: s.name)
def test_a_signal_to_a_real_process_loses_nothing(
    config: Config, uninterrupted, tmp_path: Path, number: signal.Signals
) -> None:
    hold = tmp_path / "hold"  # while it is there, step 3 never ends, so the signal always meets step 3
    chosen = config(f"environment.hold={hold}", "record.checkpoint_every=2", folder=tmp_path / "stopped")
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps(chosen.model_dump(mode="json")))
    hold.touch()
    command = "from ratchet.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", command, "train", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    try:
        assert process.stdout is not None
        with within(60):
            for line in process.stdout:
                said.append(line)
                if line.startswith("step 2/"):
                    os.kill(process.pid, number)
            code = process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    folder = tmp_path / "stopped" / "run"
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0), "".join(said)
    newest = list_checkpoints(folder / "checkpoints")[-1]
    assert newest.name == ("step_000002" if number is signal.SIGKILL else "step_000003")
    assert not damage(newest)
    if number is not signal.SIGKILL:
        assert RunStore.open(folder).status()["state"] == "stopped"
        assert f"ratchet resume {folder}" in said[-1]
    hold.unlink()
    assert resume(folder).finished
    straight = uninterrupted(config, ())
    assert rows(folder) == rows(straight)
    assert weights(folder) == weights(straight)


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("model.safetensors", "cut"),
        pytest.param("optimiser.safetensors", "gone", marks=pytest.mark.slow),
        pytest.param("state.json", "cut", marks=pytest.mark.slow),
        pytest.param("MANIFEST.json", "cut", marks=pytest.mark.slow),
        ("MANIFEST.json", "gone"),
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(
    config: Config, uninterrupted, tmp_path: Path, file: str, how: str
) -> None:
    settings = ("train.steps=3", "record.checkpoint_every=1")
    straight, folder = uninterrupted(config, settings), tmp_path / "run"
    with pytest.raises(MemoryError):
        train(config(*settings), Dies(1))
    spoiled = folder / "checkpoints" / "step_000002" / file
    if how == "gone":
        spoiled.unlink()
    else:
        spoiled.write_bytes(spoiled.read_bytes()[:-10])
    notes = Notes()
    assert resume(folder, notes).finished
    assert any("step_000002 is damaged" in n and file in n for n in notes.notes)
    assert [e["what"] for e in RunStore.open(folder).events() if e["kind"] == "damaged_checkpoint"]
    assert rows(folder) == rows(straight)
    assert weights(folder, 3) == weights(straight, 3)


def test_a_run_without_a_sound_checkpoint_cannot_go_on_and_says_why(config, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        train(config("train.steps=3"), Dies(0))
    (tmp_path / "run" / "checkpoints" / "step_000000" / "config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"no sound checkpoint: step_000000 is damaged \(config.json is missing\)"
    ):
        resume(tmp_path / "run")


def test_a_finished_run_has_nothing_left_to_do(config, tmp_path: Path) -> None:
    folder = train(config("train.steps=2")).folder
    before, notes = rows(folder), Notes()
    assert resume(folder, notes).finished
    assert rows(folder) == before
    assert "is finished: all 2 steps are done" in notes.notes[-1]


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run folder"):
        resume(tmp_path)


@pytest.mark.parametrize("last", [1, 5], ids=["in the middle", "after the last step"])
def test_an_evaluation_that_a_kill_prevented_is_made_up_for(config: Config, tmp_path: Path, last: int) -> None:
    with pytest.raises(MemoryError):
        train(config("eval.tasks=2", "eval.every=2", "record.checkpoint_every=1"), Dies(last))
    resume(tmp_path / "run")
    evaluated = [e["step"] for e in RunStore.open(tmp_path / "run").events() if e["kind"] == "eval"]
    assert evaluated == [2, 4, 6]


def test_the_starting_policy_is_evaluated_where_that_is_asked_for(config: Config) -> None:
    folder = train(config("eval.tasks=2", "eval.at_start=true", "train.steps=2")).folder
    assert [e["step"] for e in RunStore.open(folder).events() if e["kind"] == "eval"] == [0, 2]


def test_a_report_that_a_kill_prevented_is_written_on_resume(config: Config, tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        train(config("train.steps=2"), Dies(1))
    resume(tmp_path / "run")
    assert (tmp_path / "run" / "report.md").is_file()
    assert RunStore.open(tmp_path / "run").status()["state"] == "finished"


def test_two_processes_never_work_on_the_same_run(config: Config) -> None:
    folder = train(config("train.steps=1")).folder
    with alone(folder), pytest.raises(ConfigError, match=rf"Another process \(pid {os.getpid()}\) is working on"):
        resume(folder)
    assert resume(folder).finished


def test_with_all_newer_checkpoints_damaged_a_run_begins_at_its_first_and_ends_the_same(
    config: Config, uninterrupted, tmp_path: Path
) -> None:
    settings = ("record.checkpoint_every=1", "record.keep_checkpoints=1", "train.steps=5")
    straight, folder = uninterrupted(config, settings), tmp_path / "run"
    with pytest.raises(MemoryError):
        train(config(*settings), Dies(3))
    for path in list_checkpoints(folder / "checkpoints")[1:]:
        (path / "model.safetensors").unlink()
    assert resume(folder).finished
    assert rows(folder) == rows(straight)
    assert weights(folder, 5) == weights(straight, 5)


def test_a_run_killed_before_its_first_checkpoint_is_told_to_start_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ratchet.run.launch.checkpoint", killed)
        with pytest.raises(MemoryError):
            train(config("train.steps=1"))
    folder = tmp_path / "run"
    with pytest.raises(CheckpointError, match=rf"never got to its first one, so nothing is lost: remove {folder} and"):
        resume(folder)
    (folder / "config.toml").write_text("[run]\nthreads")  # killed earlier still
    with pytest.raises(ConfigError, match=r"config.toml is no TOML: .*start the run again"):
        resume(folder)


def test_checkpoints_that_a_kill_left_behind_are_removed_on_resume(
    config: Config, uninterrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("train.steps=3", "record.checkpoint_every=1", "record.keep_checkpoints=1")
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("ratchet.run.loops.prune", lambda folder, *_, done: killed() if done == 3 else 0)
        with pytest.raises(MemoryError):
            train(config(*settings))
    assert len(list_checkpoints(folder / "checkpoints")) == 4
    assert resume(folder).finished
    kept = [[p.name for p in list_checkpoints(f / "checkpoints")] for f in (folder, uninterrupted(config, settings))]
    assert kept[0] == kept[1]
    assert len(kept[0]) < 4


def test_damaged_newer_checkpoints_never_push_out_sound_ones(config: Config, uninterrupted, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(MemoryError):
        train(config("record.checkpoint_every=1"), Dies(4))
    for spoiled in list_checkpoints(folder / "checkpoints")[-2:]:
        (spoiled / "model.safetensors").unlink()
    with pytest.raises(MemoryError):
        resume(folder, Dies(3), words=["record.keep_checkpoints=1"], accept_changes=True)
    notes = Notes()
    assert resume(folder, notes).finished
    assert any("at step 4 of 6" in note for note in notes.notes), "what the second process did is not lost"
    straight = uninterrupted(config, ())
    assert rows(folder) == rows(straight)
    assert weights(folder) == weights(straight)


def test_a_run_killed_after_its_last_event_gets_its_report_and_status_on_resume(config: Config) -> None:
    folder = train(config("train.steps=1")).folder
    before = rows(folder)
    (folder / "report.md").unlink()
    RunStore.open(folder).write_status({"state": "running", "step": 1, "steps": 1})
    assert resume(folder).finished
    assert (folder / "report.md").is_file()
    assert RunStore.open(folder).status()["state"] == "finished"
    assert rows(folder) == before


def killed(*_: object) -> int:
    raise MemoryError("killed")
