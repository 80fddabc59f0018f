"""Sweeps: what is finished is skipped, what is begun goes on, what is killed loses nothing, what fails stops no other.

Most tests run cells that do not train: a script that writes what a run would. The last ones run real ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w
from builders import within
from runs import rows

from ratchet.cli.sweep import words_of
from ratchet.config.schema import RunConfig
from ratchet.config.sweep import Cell, as_tree, make_cells, read_sweep
from ratchet.core.errors import ConfigError, RunError
from ratchet.run.checkpoint import list_checkpoints, seal
from ratchet.run.launch import train
from ratchet.run.observer import Silent
from ratchet.run.parts import make_environment
from ratchet.run.policies import fresh_policy
from ratchet.run.sweep import (
    Ended,
    Progress,
    Report,
    State,
    Supervisor,
    check_cells,
    locked,
    look,
    refuse_different,
    write_sweep,
)
from ratchet.run.warm_start import warm_start_key, warm_started
from ratchet.store.run_store import RunStore

SCRIPT = """
import signal, sys, time, tomllib
from pathlib import Path
from ratchet.store.run_store import RunStore

verb, path = sys.argv[1], Path(sys.argv[2])
tree = tomllib.loads((path if verb == "train" else path / "config.toml").read_text())
if verb == "train":
    store = RunStore.create(Path(tree["run"]["folder"]) / tree["run"]["name"], tree, {}, {})
else:
    store = RunStore.open(path)
store.append_event("start" if verb == "train" else "resume", 0)
if tree["run"]["seed"] == 7:
    print("some words")
    sys.exit("seven is unlucky")
if tree["run"]["seed"] == 8:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    store.append_event("deaf", 0)
    time.sleep(60)
for step in range(tree["train"]["steps"]):
    store.append_metrics({"step": step, "reward/mean": float(step)})
store.append_event("finished", 6)
"""


def scripted(verb: str, path: Path) -> list[str]:
    """Return the words of a process that behaves like a run and takes no time."""
    return [sys.executable, "-c", SCRIPT, verb, str(path)]


class Watch:
    """Remembers everything, and does something whenever it hears how things stand."""

    def __init__(self, do: Callable[[Progress], None] = lambda progress: None) -> None:
        self.notes: list[str] = []
        self.lines: list[Ended] = []
        self.progress: list[Progress] = []
        self._do = do

    def note(self, text: str) -> None:
        self.notes.append(text)

    def ended(self, cell: Ended, progress: Progress) -> None:
        self.lines.append(cell)
        self.progress.append(progress)

    def now(self, progress: Progress) -> None:
        self.progress.append(progress)
        self._do(progress)


@pytest.fixture
def cells(config: Callable[..., RunConfig], tmp_path: Path):
    """Return a maker of the cells of a sweep over seeds."""

    def make(seeds: list[int], *words: str) -> tuple[Cell, ...]:
        (tmp_path / "config.toml").write_text(tomli_w.dumps(as_tree(config())))
        (tmp_path / "seeds.toml").write_text(f'base = "config.toml"\nseeds = {seeds}\n')
        return make_cells(read_sweep(str(tmp_path / "seeds.toml")), folder=tmp_path / "sweep", words=words)

    (tmp_path / "sweep").mkdir()
    return make


def go(cells: tuple[Cell, ...], folder: Path, watcher: Watch | None = None, jobs: int = 1, command=scripted) -> Report:
    watcher = watcher or Watch()
    with locked(folder, watcher) as lock, within(60):
        found = [look(cell, folder) for cell in cells]
        return Supervisor(folder, found, jobs=jobs, command=command, watcher=watcher, lock=lock).run()


def kinds(folder: Path, cell: str) -> list[str]:
    return [e["kind"] for e in RunStore.open(folder / cell).events()]


def begin(cell: Cell, folder: Path, step: int | None = 3) -> RunStore:
    """Leave behind what a killed run leaves behind: a run folder with a checkpoint, or without one."""
    store = RunStore.create(folder / cell.name, as_tree(cell.config), {}, {})
    if step is not None:
        checkpoint = store.folder / "checkpoints" / f"step_{step:06d}"
        checkpoint.mkdir()
        (checkpoint / "state.json").write_text("{}")
        seal(checkpoint)
    return store


def test_every_cell_runs_once_and_never_again(cells, tmp_path: Path) -> None:
    folder, watch = tmp_path / "sweep", Watch()
    report = go(cells([0, 1]), folder, watch)
    assert (len(report.ended), report.failed, report.stopped) == (2, (), False)
    assert [(e.name, e.finished, e.reward) for e in watch.lines] == [("seed0", True, 3.0), ("seed1", True, 3.0)]
    assert go(cells([0, 1, 2]), folder).ended[0].name == "seed2"
    assert go(cells([0, 1, 2]), folder).ended == ()
    assert [kinds(folder, f"seed{s}") for s in range(3)] == [["start", "finished"]] * 3


def test_a_begun_cell_goes_on(cells, tmp_path: Path) -> None:
    folder, (cell,) = tmp_path / "sweep", cells([0])
    begin(cell, folder)
    found, watch = look(cell, folder), Watch()
    assert (found.state, found.step) == (State.BEGUN, 3)
    go((cell,), folder, watch)
    assert kinds(folder, "seed0") == ["resume", "finished"]
    assert watch.notes == ["seed0: going on at step 3"]


def test_a_finished_cell_needs_no_checkpoints(cells, tmp_path: Path) -> None:
    folder, (cell,) = tmp_path / "sweep", cells([0])
    begin(cell, folder, None).append_event("finished", 6)
    assert look(cell, folder).state is State.FINISHED


@pytest.mark.parametrize("left", ["nothing", "no checkpoint", "half a config", "half a checkpoint"])
def test_a_cell_killed_before_its_first_checkpoint_is_moved_aside_and_begun_anew(cells, tmp_path, left: str) -> None:
    folder, (cell,) = tmp_path / "sweep", cells([0])
    if left == "nothing":
        (folder / cell.name).mkdir()
    else:
        store = begin(cell, folder, 0 if left == "half a checkpoint" else None)
        if left == "half a config":
            (store.folder / "config.toml").write_text("[run")
        if left == "half a checkpoint":
            (store.folder / "checkpoints" / "step_000000" / "state.json").write_text("")
    assert look(cell, folder).state is State.USELESS
    watch = Watch()
    assert not go((cell,), folder, watch).failed
    assert (folder / "discarded" / "seed0-1").is_dir()
    assert watch.notes[0].startswith("seed0 was never really begun (")
    assert f"moved to {folder / 'discarded' / 'seed0-1'}, begun anew" in watch.notes[0]
    assert kinds(folder, "seed0") == ["start", "finished"]


def test_a_cell_begun_with_other_settings_is_refused_with_their_names(cells, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    go(cells([0, 1]), folder)
    begin(cells([2])[0], folder)
    found = [look(cell, folder) for cell in cells([0, 1, 2], "train.steps=9", "algorithm.clip_low=0.1")]
    assert [f.state for f in found] == [State.DIFFERENT] * 3
    with pytest.raises(ConfigError) as caught:
        refuse_different(found, folder)
    assert str(caught.value) == (
        f"The cell {folder / 'seed0'} was begun with other settings: algorithm.clip_low: None -> 0.1; "
        "train.steps: 6 -> 9. So were 2 more cells. Nothing was started. Choose another --folder, or remove that "
        "folder to run the cell anew."
    )


def test_a_sweep_folder_that_was_moved_holds_the_same_runs(cells, tmp_path: Path) -> None:
    go(cells([0]), tmp_path / "sweep")
    (tmp_path / "sweep").rename(tmp_path / "moved")
    assert look(cells([0])[0], tmp_path / "moved").state is State.FINISHED


def test_a_cell_whose_settings_were_changed_on_the_way_is_another_run(cells, tmp_path: Path) -> None:
    folder, (cell,) = tmp_path / "sweep", cells([0])
    store = begin(cell, folder)
    store.append_event("config_changed", 2, changes=[{"key": "train.steps", "before": 3, "after": 6}])
    assert look(cell, folder).state is State.BEGUN
    store.append_event("config_changed", 3, changes=[{"key": "algorithm.lr", "before": 1.0, "after": 0.01}])
    found = look(cell, folder)
    assert (found.state, found.told) == (State.DIFFERENT, ("algorithm.lr was changed at step 3",))


def test_a_finished_cell_that_was_given_more_steps_and_stopped_is_begun(cells, tmp_path: Path) -> None:
    folder, (cell,) = tmp_path / "sweep", cells([0])
    begin(cell, folder).append_event("finished", 4)
    assert look(cell, folder).state is State.BEGUN


def test_a_cell_whose_config_cannot_be_read_any_more_is_refused(cells, tmp_path: Path) -> None:
    folder, (cell,) = tmp_path / "sweep", cells([0])
    store = begin(cell, folder)
    (store.folder / "config.toml").write_text("[trian]\n")
    found = look(cell, folder)
    assert found.state is State.DIFFERENT
    assert "is no config any more: " in found.told[0]


def test_a_failed_cell_is_told_with_its_last_words_and_the_others_go_on(cells, tmp_path: Path) -> None:
    folder, watch = tmp_path / "sweep", Watch()
    report = go(cells([7, 1]), folder, watch)
    (failed,) = report.failed
    assert (failed.name, failed.why, failed.tail) == ("seed7", "exit code 1", ("some words", "seven is unlucky"))
    assert failed.log.read_text() == "some words\nseven is unlucky\n"
    assert kinds(folder, "seed1") == ["start", "finished"]
    assert (watch.progress[-1].finished, watch.progress[-1].failed) == (1, 1)


def test_so_many_cells_run_at_once_and_no_more(cells, tmp_path: Path) -> None:
    watch = Watch()
    go(cells([0, 1, 2, 3]), tmp_path / "sweep", watch, jobs=2)
    assert max(len(p.running) for p in watch.progress) == 2
    assert (watch.progress[-1].finished, watch.progress[-1].running) == (4, ())
    assert watch.progress[-1].left_s == 0


def test_a_process_that_cannot_be_started_ends_the_sweep_with_a_sentence(cells, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"The cell seed0 cannot be started: .*No such file"):
        go(cells([0]), tmp_path / "sweep", command=lambda verb, path: ["/no/such/program"])


def test_the_second_signal_kills(cells, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"

    def send(progress: Progress) -> None:
        if (folder / "seed8" / "events.jsonl").is_file() and "deaf" in kinds(folder, "seed8"):
            os.kill(os.getpid(), signal.SIGTERM)

    watch, before = Watch(send), signal.getsignal(signal.SIGTERM)
    report = go(cells([8, 1]), folder, watch)
    assert report.stopped
    assert [(e.name, e.finished) for e in report.ended] == [("seed8", False)]
    assert "Stopping: 1 running cells end their step; once more kills them" in watch.notes
    assert not (folder / "seed1").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_sweep_in_the_same_folder_is_refused_by_the_number_of_the_first(cells, tmp_path: Path) -> None:
    told = f"Process {os.getpid()} runs a sweep in .* already. Wait for it, stop it with: kill {os.getpid()}"
    with locked(tmp_path, Watch()), pytest.raises(ConfigError, match=told), locked(tmp_path, Watch()):
        pass
    with locked(tmp_path, Watch()):
        pass


def test_the_cells_of_a_killed_sweep_are_waited_for(tmp_path: Path) -> None:
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('held'); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", hold, str(tmp_path / "cells.lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as orphan:  # fmt: skip
        assert orphan.stdout is not None
        assert orphan.stdin is not None
        orphan.stdout.readline()
        stdin = orphan.stdin

        class Frees(Watch):
            def note(self, text: str) -> None:
                super().note(text)
                stdin.write("\n")
                stdin.flush()

        watch = Frees()
        with within(20), locked(tmp_path, watch):
            assert watch.notes == [
                f"The last sweep in {tmp_path} was killed; waiting for its cells to finish their step"
            ]


def test_what_a_sweep_is_made_of_is_written_down_whole(cells, tmp_path: Path) -> None:
    cells([0, 1])
    write_sweep(read_sweep(str(tmp_path / "seeds.toml")), ["train.steps=3"], tmp_path)
    assert json.loads((tmp_path / "sweep.json").read_text()) == {
        "name": "seeds",
        "file": str(tmp_path / "seeds.toml"),
        "settings": ["train.steps=3"],
        "axes": {"seed": ["0", "1"]},
        "cells": {"seed0": {"seed": "0"}, "seed1": {"seed": "1"}},
    }


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("algorithm.clip_lo=0.1", 'Cell seed0: .*clip_lo.*Did you mean "clip_low"'),
        ("algorithm.name=grop", 'Cell seed0: .*Did you mean "grpo"'),
        ("environment.prompd=3", 'Cell seed0: environment.prompd is no option.*Did you mean "prompt"'),
        ("explore.samples_per_prompt=1", "Cell seed0: .*compares at least 2 samples"),
    ],
)
def test_what_only_the_parts_can_check_is_checked_before_the_first_cell(cells, word: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_cells(cells([0, 1], word))


def test_a_warm_start_that_another_process_computes_is_waited_for_and_found(config, tmp_path: Path) -> None:
    words = ("warm_start.steps=2",)
    first = config(*words)
    policy = warm_started(first, fresh_policy(first, make_environment(first)), Silent())
    second = config(*words, f"warm_start.cache={tmp_path / 'other'}")
    fresh = fresh_policy(second, make_environment(second))
    key = warm_start_key(second, fresh)
    (tmp_path / "other").mkdir()
    lock = tmp_path / "other" / f".{key}.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        class Other(Silent):
            notes: list[str] = []  # noqa: RUF012

            def note(self, text: str) -> None:
                self.notes.append(text)
                if "waiting for the warm start another process computes" in text:
                    shutil.copytree(tmp_path / "cache" / key, tmp_path / "other" / key)
                    lock.unlink()
                    fcntl.flock(held, fcntl.LOCK_UN)

        with within(20):
            found = warm_started(second, fresh, Other())
    assert "found in" in Other.notes[-1]
    assert found.fingerprint() == policy.fingerprint()
    assert [p.name for p in (tmp_path / "other").iterdir()] == [key]


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_to_the_same_numbers(cells, tmp_path: Path) -> None:
    folder, hold = tmp_path / "sweep", tmp_path / "hold"  # while it is there, step 3 never ends
    chosen = cells([0], f"environment.hold={hold}", "record.checkpoint_every=2")
    hold.touch()

    def stop(progress: Progress) -> None:
        if progress.running and progress.running[0][1] == 3 and not watch.stopped:
            watch.stopped = True
            os.kill(os.getpid(), signal.SIGINT)

    watch = Watch(stop)
    watch.stopped = False
    report = go(chosen, folder, watch, command=words_of)
    assert (report.stopped, report.ended[0].why) == (True, "stopped as asked")
    assert RunStore.open(folder / "seed0").status()["state"] == "stopped"
    assert look(chosen[0], folder).step == 3
    hold.unlink()
    assert not go(chosen, folder, command=words_of).failed
    straight = train(
        chosen[0].config.model_copy(update={"run": chosen[0].config.run.model_copy(update={"name": "one"})})
    )
    assert rows(folder / "seed0") == rows(straight.folder)
    assert [k for k in kinds(folder, "seed0") if k in ("start", "stopped", "resume", "finished")] == [
        "start", "stopped", "resume", "finished",
    ]  # fmt: skip


def at_step(folder: Path, step: int) -> bool:
    """Return whether a run, if it is one already, says that it stands at this step."""
    return (folder / "config.toml").is_file() and RunStore.open(folder).status().get("step") == step


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_the_cells_of_a_killed_sweep_stop_cleanly_and_unasked(cells, tmp_path: Path) -> None:
    folder, hold = tmp_path / "sweep", tmp_path / "hold"
    (cell,) = cells([0], f"environment.hold={hold}")
    hold.touch()
    words = [str(tmp_path / "seeds.toml"), f"environment.hold={hold}", "--folder", str(folder)]
    code = "from ratchet.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "sweep", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as sweep:
        with within(60):
            while not at_step(folder / "seed0", 3):
                assert sweep.poll() is None, sweep.communicate()[0]
        sweep.kill()
    with within(60), locked(folder, Watch()):
        assert RunStore.open(folder / "seed0").status()["state"] == "stopped"
    assert list_checkpoints(folder / "seed0" / "checkpoints")[-1].name == "step_000003"
    assert look(cell, folder).state is State.BEGUN
