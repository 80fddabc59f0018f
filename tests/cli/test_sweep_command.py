"""``ratchet sweep``: what it says, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from ratchet.cli.main import main
from ratchet.cli.sweep import Asked, SweepView, again, default_jobs, end_text, ended_text, progress_text
from ratchet.config.sweep import make_cells, read_sweep
from ratchet.run.launch import train
from ratchet.run.sweep import Ended, Progress, Report, locked
from ratchet.store.run_store import RunStore

LETTERS = f"{Path(__file__).parent.parent / 'run' / 'letters.py'}:Letters"

BASE = f"""
[run]
threads = 1
device = "cpu"
[environment]
name = "{LETTERS}"
[policy.tiny]
hidden = 16
layers = 1
query_heads = 1
key_heads = 1
intermediate = 16
context = 24
[explore]
prompts_per_step = 2
samples_per_prompt = 2
max_tokens = 4
[train]
steps = 2
"""

SWEEP = """
base = "config.toml"
seeds = [0]
[axes.letters]
good = {}
bad = { environment = { fail = "raise", every = 1 } }
"""


def ratchet(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words])


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(BASE)
    (tmp_path / "letters.toml").write_text(SWEEP)
    return tmp_path / "letters.toml"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train.stepz=3"], 'cell good-seed0: train.stepz is not a setting. Did you mean "steps"?'),
        (["algorithm.clip_hi=3"], 'Did you mean "clip_high"?'),
        (["--only", "letter=good"], 'letter is no axis of'),
        (["--only", "letters=god"], 'god is no label of letters. Did you mean "good"?'),
        (["--folder", "/proc/no"], "The sweep's folder /proc/no cannot be written"),
        (["--jobs", "-1"], "-1 is not in the range"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2_and_nothing_begins(sweep, tmp_path, words, told: str) -> None:
    place = [] if "--folder" in words else ["--folder", str(tmp_path / "out")]
    result = ratchet("sweep", sweep, *words, *place)
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_sweep_that_is_not_there_is_one_sentence_and_exit_code_2() -> None:
    assert 'There is no sweep "judge".' in ratchet("sweep", "judge").output
    assert ratchet("sweep", "none.toml").exit_code == 2


def test_a_sweep_with_a_bad_cell_skips_what_is_finished_tells_and_exits_1(sweep: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    listed = ratchet("sweep", sweep, "--folder", folder, "--dry")
    assert (listed.exit_code, folder.exists()) == (0, False)
    assert [line.split("  ", 1)[1].strip() for line in listed.output.splitlines()[1:]] == ["to be trained"] * 2

    train(make_cells(read_sweep(str(sweep)), folder=folder, only=["letters=good"])[0].config)
    result = ratchet("sweep", sweep, "--folder", folder, "--jobs", "1")
    assert result.exit_code == 1
    assert "out: 2 cells, 1 finished, 0 begun; 1 at a time" in result.output
    assert "1/2  bad-seed0  exit code 1: ratchet: Step 0: 4 of 4 attempts failed" in result.output
    assert f"bad-seed0 failed (exit code 1). Its last words, of {folder / 'logs' / 'bad-seed0.txt'}:" in result.output
    assert "Failed: bad-seed0." in result.output
    assert (
        f"Go on, with what is not finished: ratchet sweep {sweep} --folder {folder} --jobs 1\n"
        f"Compare: ratchet compare {folder}\n"
    ) in result.output

    listed = ratchet("sweep", sweep, "--folder", folder, "--dry").output
    assert "good-seed0  finished\n" in listed
    assert "bad-seed0   begun, 0 of 2 steps done\n" in listed

    done = ratchet("sweep", sweep, "--folder", folder, "--only", "letters=good")
    assert (done.exit_code, "1 of 1 cells are finished" in done.output) == (0, True)
    events = [e["kind"] for e in RunStore.open(folder / "good-seed0").events()]
    assert (events.count("start"), events.count("resume"), events.count("finished")) == (1, 0, 1)

    changed = ratchet("sweep", sweep, "--folder", folder, "train.steps=3")
    assert changed.exit_code == 2
    assert "was begun with other settings: train.steps: 2 -> 3. So were 1 more cells." in changed.output
    assert "train.steps: 2 -> 3" in ratchet("sweep", sweep, "--folder", folder, "train.steps=3", "--dry").output

    with locked(folder, SweepView(Console(quiet=True))):
        second = ratchet("sweep", sweep, "--folder", folder)
    assert (second.exit_code, "runs a sweep in" in second.output) == (2, True)


def test_so_many_cells_run_at_once_as_the_cores_hold(sweep: Path) -> None:
    def jobs(threads: int) -> int:
        return default_jobs(make_cells(read_sweep(str(sweep)), folder=Path("x"), words=[f"run.threads={threads}"]))

    assert jobs(0) == 1
    assert jobs(10_000) == 1
    assert jobs(1) >= 1


def test_the_live_view_shows_the_running_cells_and_the_time_left() -> None:
    console = Console(record=True, width=100, file=None, quiet=False, force_terminal=False)
    view = SweepView(console)
    with console.capture() as shown:
        console.print(view.render())
        view.now(Progress(20, 3, 1, tuple((f"cell{i}", i, 10) for i in range(10)), 125.0))
        console.print(view.render())
    assert "3 of 20 cells finished, 1 failed, 2 min 05 s left" in shown.get()
    assert f"  {'━' * 4}{'╌' * 16}  cell2  2/10" in shown.get()
    assert f"  {'╌' * 20}  cell0  ..." in shown.get()
    assert "and 2 more" in shown.get()


def test_what_is_said_of_a_cell_and_of_the_end() -> None:
    log = Path("sweep/logs/a.txt")
    progress = Progress(3, 1, 0, (), None)
    assert progress_text(progress) == "1 of 3 cells finished"
    fine = Ended("a", True, 61.0, 0.5, "exit code 0", log, ("Report: x",))
    stopped = Ended("b", False, 1.0, None, "stopped as asked", log, ("Stopped",))
    failed = Ended("c", False, 1.0, None, "SIGKILL", log, ("last",))
    assert ended_text(fine, progress) == "1/3  a  reward 0.500  1 min 01 s"
    assert ended_text(stopped, progress) == "1/3  b  stopped as asked"
    assert ended_text(failed, progress) == "1/3  c  SIGKILL: last"
    told = end_text(Report((fine, stopped, failed), stopped=True), 1, 3, Path("my sweep"), "ratchet sweep x")
    assert told.splitlines()[1:] == [
        "c failed (SIGKILL). Its last words, of sweep/logs/a.txt:",
        "    last",
        "",
        "1 of 3 cells are finished in my sweep.",
        "Failed: c.",
        "Go on, with what is not finished: ratchet sweep x",
        "Compare: ratchet compare 'my sweep'",
    ]


def test_the_command_to_go_on_is_the_one_that_was_given() -> None:
    asked = Asked(("stale", 'algorithm.lr={kind="x"}'), ("seed=0",), Path("a b"), 2)
    assert again(asked) == "ratchet sweep stale 'algorithm.lr={kind=\"x\"}' --only seed=0 --folder 'a b' --jobs 2"
