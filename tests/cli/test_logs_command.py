"""``ratchet logs``: what it prints, as text and as JSON, and its exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "logs"))

from made import json_lines, trl_console, verl_console, verl_row

from ratchet.cli.main import main


def logs(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["logs", *map(str, words)])


@pytest.fixture
def verl(tmp_path: Path) -> Path:
    path = tmp_path / "verl.log"
    path.write_text(verl_console(range(1, 21)))
    return path


def test_it_says_what_was_seen_and_why(verl: Path) -> None:
    result = logs(verl)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == str(verl)
    assert any(line.startswith("  format     console:") for line in lines)
    assert any(line.startswith("  framework  verl: lines of the form step:N") for line in lines)
    assert any("a step is: rollout step, 1 to 20" in line for line in lines)
    row = next(line.split() for line in lines if line.startswith("reward/mean"))
    assert row == ["reward/mean", "critic/score/mean", "20", "0.0100", "0.200", "0.0100", "0.200"]
    assert "eval/gsm8k/acc/mean@1" in result.stdout
    assert "not the low side of the clip" in result.stdout


def test_what_is_not_recognised_is_listed_with_its_points(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json_lines({"step": s, **verl_row(s), "my/metric": 1.0} for s in range(1, 8)))
    assert "Not recognised (1), with points\n  my/metric (7)" in logs(path).stdout


def test_json_holds_series_notes_and_joins(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"step": s, **verl_row(s), "actor/kl_loss": float("nan") if s == 3 else 0.1}
        for s in [*range(1, 9), *range(5, 12)]
    ]
    path.write_text(json_lines(rows))
    tree = json.loads(logs(path, "--json").stdout, parse_constant=pytest.fail)
    assert tree["framework"]["name"] == "verl"
    assert tree["series"]["reward/mean"] | {"meaning": ""} == {
        "name": "reward/mean", "key": "critic/score/mean", "axis": "rollout step", "points": 11, "not_finite": 0,
        "first_step": 1, "last_step": 11, "first": 0.01, "last": 0.11, "min": 0.01, "max": 0.11, "unit": "",
        "better": "higher is better", "meaning": "", "zero": "", "change": "",
    }  # fmt: skip
    assert tree["series"]["kl/ref"]["not_finite"] == 1
    assert tree["joins"] == [{"row": 9, "left": 8, "entered": 5, "replaced": 4, "restart": False}]
    assert {"join", "non-finite"} <= {note["topic"] for note in tree["notes"]}
    assert tree["objection"] is None


def test_several_logs_are_read_one_by_one_or_merged(tmp_path: Path) -> None:
    for name, steps in (("a", range(1, 31)), ("b", range(21, 41))):
        (tmp_path / f"{name}.jsonl").write_text(json_lines({"step": s, **verl_row(s)} for s in steps))
    apart = json.loads(logs(tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--json").stdout)
    assert [tree["series"]["reward/mean"]["points"] for tree in apart] == [30, 20]
    merged = json.loads(logs(tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--merge", "--json").stdout)
    assert merged["series"]["reward/mean"]["points"] == 40


def test_a_log_of_supervised_training_is_shown_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "sft.jsonl"
    path.write_text(
        json_lines({"step": s, "loss": 1.0, "learning_rate": 1e-5, "mean_token_accuracy": 0.5} for s in range(9))
    )
    result = logs(path)
    assert result.exit_code == 2
    assert "training   supervised fine-tuning" in result.stdout
    assert "is a log of supervised fine-tuning" in result.stderr
    assert json.loads(logs(path, "--json").stdout)["objection"].startswith(str(path))


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (b"", [], "is empty."),
        (b"\x00\x01\x02\x03" * 99, [], "is binary"),
        (b"nothing\n" * 9, [], "holds no metrics"),
        (b'{"step": 1, "reward": 0.5}\n', ["--framework", "verll"], 'Did you mean "verl"?'),
        (b'{"step": 1, "reward": 0.5}\n', ["--format", "cvs"], 'Did you mean "csv"?'),
        (verl_console(range(9)).encode() + trl_console(range(1, 9)).encode(), [], "speaks for two frameworks"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(content: bytes, words: list[str], told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(content)
    result = logs(path, *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("ratchet: ")
    assert told in result.stderr
    assert "Traceback" not in result.stderr
