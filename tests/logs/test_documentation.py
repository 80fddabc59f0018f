"""The how-to's commands and programs run as printed, and the page of keys is the tables'."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from made import (
    json_lines,
    notebook,
    trackio_database,
    trainer_state,
    trl_console,
    trl_row,
    verl_console,
    verl_json_lines,
    wandb_csv,
)

import ratchet
from ratchet.cli.main import main
from ratchet.core.metric import METRICS
from ratchet.logs.frameworks.entry import match
from ratchet.logs.frameworks.plain import RATCHET

DOCS = Path(ratchet.__file__).parents[1] / "docs"
HOW_TO = (DOCS / "how-to" / "foreign-logs.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ ratchet (.*)$", HOW_TO, re.MULTILINE)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the logs the how-to speaks of."""
    steps = range(1, 41)
    files = {
        "train.log": verl_console([*range(1, 31), *range(21, 41)]),
        "outputs/checkpoint-40/trainer_state.json": trainer_state(steps),
        "chart.csv": wandb_csv(steps),
        "train.ipynb": notebook(trl_console(steps)),
        "before.jsonl": verl_json_lines(range(1, 31)),
        "after.jsonl": verl_json_lines(range(21, 41)),
        "mine.jsonl": json_lines({"step": s, "reward": 0.1, "kl": 0.2} for s in steps),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "trackio").mkdir()
    rows = [{f"train/{key}": value for key, value in trl_row(s).items()} for s in steps]
    trackio_database(tmp_path / "trackio" / "project.db", {"first": rows, "second": rows})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_how_to_runs(command: str, logs: Path) -> None:
    if command == "logs tensorboard":
        pytest.importorskip("tensorboard")
        from test_formats import write_events

        (logs / "tensorboard").mkdir()
        write_events(logs / "tensorboard" / "events.out.tfevents.1.host", "train/reward", [(1, 0.5), (2, 0.6)])
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0, result.output
    if "--json" in command:
        json.loads(result.stdout)


def test_the_output_shown_is_what_is_printed(logs: Path) -> None:
    block = HOW_TO.split("```console\n")[1].split("```")[0]
    command, _, shown = block.partition("\n")
    printed = CliRunner().invoke(main, command.removeprefix("$ ratchet ").split()).stdout
    at = 0
    for piece in shown.strip("\n").split("\n...\n"):
        found = printed.find(piece.removesuffix("\n..."), at)
        assert found >= 0, f"not printed any more:\n{piece}\n\nprinted:\n{printed}"
        at = found


def test_the_program_of_the_how_to_runs(logs: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", HOW_TO, re.DOTALL)
    package = str(Path(ratchet.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": package, "PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "verl rollout step [21]"


def test_the_page_of_keys_is_made_from_the_tables() -> None:
    made = subprocess.run([sys.executable, "-m", "ratchet.logs"], capture_output=True, text=True, check=True).stdout
    assert (DOCS / "foreign-keys.md").read_text() == made, (
        "write it again: python -m ratchet.logs > docs/foreign-keys.md"
    )


def test_every_metric_of_ours_is_recognised_in_our_own_runs() -> None:
    names = [metric.pattern.replace("*", "x") for metric in METRICS if metric.pattern != "eval/*"]
    assert {
        name: found and found.name for name in names if (found := match(RATCHET, name)) is None or found.name != name
    } == {}
