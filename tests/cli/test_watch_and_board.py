"""The commands that follow runs: what they print, and what they refuse."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ratchet.board.board import Board
from ratchet.board.diagnosis import Diagnosed
from ratchet.board.finding import Finding
from ratchet.board.run import OwnRun
from ratchet.cli.board import diagnosed, diagnosis
from ratchet.cli.main import main
from ratchet.cli.watch import frame
from ratchet.core.errors import ConfigError
from ratchet.store.run_store import RunStore


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    config = {
        "run": {"study": "judge"},
        "environment": {"name": "judge"},
        "algorithm": {"name": "grpo"},
        "train": {"steps": 20},
    }
    made = RunStore.create(tmp_path / "runs" / "one", config, {"steps": 20}, {})
    for k in range(10):
        made.append_metrics(
            {"step": k, "reward/mean": k / 10, "len/response/mean": 40.0, "time/step": 2.0, "ledger/trained": 4.0}
        )
    made.append_event("note", 9, text="\x1b[2Jlook \u202ehere")
    made.write_status({"state": "stopped", "step": 10, "steps": 20, "resume": "ratchet resume one"})
    return made


def test_watch_shows_state_figure_ledger_and_events(store: RunStore) -> None:
    told = CliRunner().invoke(main, ["watch", str(store.folder), "--once"])
    assert told.exit_code == 0
    for words in (
        "one",
        "stopped",
        "step 10 of 20",
        "ratchet resume one",
        "train reward",
        "0.900",
        "▁",
        "█",
        "trained 100.0 %",
    ):
        assert words in told.output
    assert "\x1b[2J" not in told.output
    assert "\u202e" not in told.output


def test_watch_shows_the_findings_it_is_handed(store: RunStore) -> None:
    from rich.console import Console

    run = OwnRun(store.folder)
    run.refresh()
    found = Diagnosed((Finding("warning", "r", "entropy", 0, 5, "Entropy [bold]falls[/bold]."),), 1)
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(frame(run, found, 100))
    assert "warning: Entropy [bold]falls[/bold]." in console.export_text()


def test_watch_and_board_refuse_what_is_no_run_and_no_folder(tmp_path: Path) -> None:
    for words in (["watch", str(tmp_path), "--once"], ["board", str(tmp_path / "none")]):
        told = CliRunner().invoke(main, words)
        assert told.exit_code == 2
        assert told.output.startswith("ratchet: ")


def test_board_says_when_its_port_is_taken(store: RunStore) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        told = CliRunner().invoke(main, ["board", str(store.folder.parent), "--port", str(taken.getsockname()[1])])
    assert told.exit_code == 2
    assert "Choose another --port" in told.output


def test_board_writes_an_export(store: RunStore, tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["board", str(store.folder.parent), "--export", str(tmp_path / "out")])
    assert told.exit_code == 0
    assert "1 runs" in told.output
    assert (tmp_path / "out" / "index.html").is_file()


def test_board_and_watch_show_what_the_doctor_finds(store: RunStore) -> None:
    noise = np.random.default_rng(0).normal(0, 0.03, 100).tolist()
    for k in range(100):
        store.append_metrics({"step": k, "reward/mean": (0.8 if k < 50 else 0.1) + noise[k], "entropy": 0.5})
    worst = diagnosed(store.folder)[0]
    assert (worst.severity, worst.rule, worst.metric) == ("error", "reward_collapse", "reward/mean")
    assert worst.causes
    assert worst.change
    assert 48 <= worst.first <= 52
    board = Board(store.folder.parent, diagnosis())
    one = board.runs()["runs"][0]["id"]
    board.diagnosis.wait(one, board.library.get(one))
    assert board.runs()["runs"][0]["finding"] == {"severity": "error", "sentence": worst.sentence}
    assert board.run(one)["findings"][0]["sources"] == worst.sources
    board.close()
    assert f"error: {worst.sentence[:40]}" in CliRunner().invoke(main, ["watch", str(store.folder), "--once"]).output


def test_a_log_too_short_to_judge_says_so_instead_of_no_findings(tmp_path: Path) -> None:
    short = RunStore.create(tmp_path / "short", {"train": {"steps": 9}}, {}, {})
    short.append_metrics({"step": 0, "reward/mean": 0.1})
    with pytest.raises(ConfigError, match="The log has 1 points of a reward"):
        diagnosed(short.folder)
