"""The command line: exit codes, sentences instead of traces, and a quick start."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ratchet.cli.main import main
from ratchet.config.read import config_from_tree
from ratchet.run.launch import train

LETTERS = f"{Path(__file__).parent.parent / 'run' / 'letters.py'}:Letters"


def ratchet(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two steps."""
    tiny = {"hidden": 16, "layers": 1, "query_heads": 1, "key_heads": 1, "intermediate": 16, "context": 24}
    tree = {
        "run": {"threads": 1, "device": "cpu", "folder": str(tmp_path_factory.mktemp("runs"))},
        "environment": {"name": LETTERS},
        "policy": {"tiny": tiny},
        "explore": {"prompts_per_step": 2, "samples_per_prompt": 2, "max_tokens": 4},
        "algorithm": {"lr": 1e-3},
        "train": {"steps": 2},
    }
    return train(config_from_tree(tree)).folder


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["train", "judge", "train.stepz=3"], 2, 'train.stepz is not a setting. Did you mean "steps"?'),
        (["train", "judge", "train.steps=0"], 2, "train.steps = 0: input should be greater than or equal to 1"),
        (["train", "jugde"], 2, 'There is no recipe "jugde". Did you mean "judge"?'),
        (["train", "none.toml"], 2, 'There is no file "none.toml"'),
        (["train", "train.steps=3"], 2, "Name a recipe or a TOML file first"),
        (["train"], 2, "Missing argument"),
        (["explain", "judge", "algorithm.lr=0"], 2, "algorithm.lr = 0: must be above 0"),
        (
            ["explain", "judge", "environment.name=juge"],
            2,
            'environment.name = "juge" is unknown. Did you mean "judge"?',
        ),
        (["explain", "judge", "environment.full_shere=1"], 2, 'Did you mean "full_share"?'),
        (["explain", "judge", "policy.model=/no/such/model"], 2, "there is no such folder"),
        (["check-reward", "judge", "explore.temperature=0"], 2, "temperature"),
        (["check-reward", "judge", "--tasks", "0"], 2, "0 is not in the range"),
        (["resume", "/no/such/run"], 2, "is not a run folder"),
        (["status", "/no/such/run"], 2, "is not a run folder"),
        (["rollouts", "/no/such/run"], 2, "is not a run folder"),
        (["eval", "/no/such/run"], 2, "is not a run folder"),
        (["chart", "/no/such/run"], 2, "There is no /no/such/run."),
        (["export", "/no/such/run", "x"], 2, "is not a run folder"),
        (["trian", "judge"], 2, 'There is no command "trian". Did you mean "train"?'),
        (["--no-such-option"], 2, "No such option"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(words: list[str], code: int, told: str) -> None:
    result = ratchet(*words)
    assert result.exit_code == code
    assert told in result.output
    assert "Traceback" not in result.output


def test_a_run_that_fails_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    words = [
        "train",
        "judge",
        f"environment.name={LETTERS}",
        "environment.fail=raise",
        "environment.every=1",
        f"run.folder={tmp_path}",
    ]
    small = [
        "warm_start.steps=0",
        "policy.tiny.layers=1",
        "explore.prompts_per_step=2",
        "train.steps=1",
        "eval.tasks=0",
        "run.threads=1",
    ]
    result = ratchet(*words, *small)
    assert result.exit_code == 1
    assert "attempts failed" in result.output
    assert "Traceback" not in result.output


def test_a_finished_run_can_be_looked_at(run: Path) -> None:
    assert "finished, 2 of 2 steps done" in ratchet("status", run).output
    assert "Step 1: 2 groups; showing 1" in ratchet("rollouts", run, "--groups", "1").output
    assert ratchet("rollouts", run, "--step", "0", "--tokens").exit_code == 0
    assert "is finished" in ratchet("resume", run).output
    asked = ratchet("rollouts", run, "--step", "9")
    assert (asked.exit_code, "kept are steps 0 to 1" in asked.output) == (2, True)


def test_a_checkpoint_can_be_evaluated_and_exported(run: Path, tmp_path: Path) -> None:
    evaluated = ratchet("eval", run, "--tasks", "3", "--samples", "2")
    assert evaluated.exit_code == 0, evaluated.output
    assert "3 test tasks x 2 samples" in evaluated.output
    exported = ratchet("export", run, tmp_path / "model", "--step", "0")
    assert exported.exit_code == 0, exported.output
    assert (tmp_path / "model" / "model.safetensors").is_file()
    again = ratchet("export", run, tmp_path / "model")
    assert (again.exit_code, "is not empty" in again.output) == (2, True)
    gone = ratchet("eval", run, "--step", "7")
    assert (gone.exit_code, "There is no checkpoint after step 7" in gone.output) == (2, True)


def test_explain_says_the_numbers_of_a_recipe() -> None:
    result = ratchet("explain", "judge", "train.steps=7")
    assert result.exit_code == 0, result.output
    assert "Each of 7 steps: 64 prompts x 8 samples = 512 attempts" in result.output


@pytest.mark.parametrize(
    "words",
    [["-c", "import ratchet"], ["-c", "from ratchet.cli.main import main; main()", "--help"]],
    ids=["import ratchet", "ratchet --help"],
)
def test_it_starts_quickly(words: list[str]) -> None:
    # Processor time, which other programs on this machine do not stretch as they do the clock's.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3
